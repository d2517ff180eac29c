//! Registers by the numbers that gdb knows them by.

use armlet_arm::sysreg::{ExternalRegisters, Inspected, inspect, inspectable, modify};
use armlet_arm::{CpuModel, CpuState, Pstate, SysReg};

const SP: usize = 31;
const PC: usize = 32;
const CPSR: usize = 33;
const V0: usize = 34;
const FPSR: usize = V0 + 32;
const FPCR: usize = FPSR + 1;
/// Number of the first system register.
pub(crate) const FIRST_SYSTEM: usize = FPCR + 1;
/// Length of all registers but the system registers, one after the other: what the packets `g` and `G` carry.
pub(crate) const GENERAL_BYTES: usize = 33 * 8 + 4 + 32 * 16 + 4 + 4;

/// Expedited in every report of a stop: the frame pointer, SP and PC.
pub(crate) const EXPEDITED: [usize; 3] = [29, SP, PC];

/// A register that cannot be read or changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// What registers are read from and written to with, beside the state.
#[derive(Clone, Copy)]
pub(crate) struct Cpu<'a> {
    pub(crate) model: &'a CpuModel,
    pub(crate) external: &'a dyn ExternalRegisters,
}

/// Which registers there are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    system: Vec<Inspected>,
}

impl Layout {
    pub(crate) fn new(model: &CpuModel) -> Self {
        Self { system: inspectable(model) }
    }

    /// System registers, by rising number.
    pub(crate) fn system(&self) -> &[Inspected] {
        &self.system
    }

    /// Length of a register in bytes; `None` if there is no such register.
    pub(crate) fn bytes(&self, number: usize) -> Option<usize> {
        match number {
            CPSR | FPSR | FPCR => Some(4),
            V0..FPSR => Some(16),
            _ if number < FIRST_SYSTEM + self.system.len() => Some(8),
            _ => None,
        }
    }

    /// Reads one register, little-endian. On the vCPU's own thread.
    pub(crate) fn read(&self, state: &CpuState, cpu: Cpu<'_>, number: usize) -> Result<Vec<u8>, Refused> {
        let length = self.bytes(number).ok_or(Refused)?;
        let value = match number {
            PC => state.pc.into(),
            CPSR => state.pstate.bits().into(),
            V0..FPSR => state.v[number - V0],
            FPSR => state.fp.fpsr.into(),
            FPCR => state.fp.fpcr.into(),
            0..=SP => state.x[number].into(),
            _ => {
                let reg = self.system.get(number - FIRST_SYSTEM).ok_or(Refused)?;
                inspect(state, cpu.model, cpu.external, *reg).into()
            }
        };
        Ok(value.to_le_bytes()[..length].to_vec())
    }

    /// Changes one register. On the vCPU's own thread.
    pub(crate) fn write(
        &self,
        state: &mut CpuState,
        cpu: Cpu<'_>,
        number: usize,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        if self.bytes(number) != Some(bytes.len()) {
            return Err(Refused);
        }
        let mut all = [0; 16];
        all[..bytes.len()].copy_from_slice(bytes);
        let wide = u128::from_le_bytes(all);
        let value = wide as u64;
        match number {
            PC => state.pc = value,
            CPSR => return set_pstate(state, cpu.model, value as u32),
            V0..FPSR => state.v[number - V0] = wide,
            0..=SP => {
                state.x[number] = value;
                state.bank_sp();
            }
            _ => {
                let reg = match number {
                    FPSR => Inspected::Register(SysReg::Fpsr),
                    FPCR => Inspected::Register(SysReg::Fpcr),
                    _ => *self.system.get(number - FIRST_SYSTEM).ok_or(Refused)?,
                };
                if !modify(state, cpu.model, cpu.external, reg, value) {
                    return Err(Refused);
                }
            }
        }
        Ok(())
    }

    /// Reads all registers but the system registers. On the vCPU's own thread.
    pub(crate) fn read_general(&self, state: &CpuState, cpu: Cpu<'_>) -> Vec<u8> {
        (0..FIRST_SYSTEM).flat_map(|n| self.read(state, cpu, n).unwrap_or_default()).collect()
    }

    /// Changes all registers but the system registers: all of them or none. On the vCPU's own thread.
    pub(crate) fn write_general(
        &self,
        state: &mut CpuState,
        cpu: Cpu<'_>,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        if bytes.len() != GENERAL_BYTES {
            return Err(Refused);
        }
        let mut new = state.clone();
        // The mode first: it chooses the stack pointer that SP is.
        let cpsr = 33 * 8;
        self.write(&mut new, cpu, CPSR, &bytes[cpsr..cpsr + 4])?;
        let mut rest = bytes;
        for number in 0..FIRST_SYSTEM {
            let length = self.bytes(number).ok_or(Refused)?;
            let (value, more) = rest.split_at(length);
            self.write(&mut new, cpu, number, value)?;
            rest = more;
        }
        *state = new;
        Ok(())
    }
}

/// Takes a new PSTATE, unless it is of a mode that the machine does not have.
fn set_pstate(state: &mut CpuState, model: &CpuModel, bits: u32) -> Result<(), Refused> {
    const MODES: [u32; 3] = [0b0_0000, 0b0_0100, 0b0_0101]; // EL0t, EL1t, EL1h
    if !MODES.contains(&(bits & 0x1f)) {
        return Err(Refused);
    }
    state.set_pstate(Pstate::from_bits_retain(bits & model.spsr_mask()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Devices;

    impl ExternalRegisters for Devices {
        fn read(&self, _: usize, reg: SysReg) -> u64 {
            reg.encoding().into()
        }
        fn write(&self, _: usize, _: SysReg, _: u64) {}
    }

    fn parts() -> (Layout, CpuModel, CpuState) {
        let model = CpuModel::by_name("neoverse-n1").unwrap();
        let mut state = model.reset_state(0, 0x8000_0000);
        (0..32).for_each(|n| state.x[n] = 0x1111 * n as u64);
        state.bank_sp();
        state.v[31] = 0x1234 << 100;
        state.pc = 0x4000_0000;
        (Layout::new(&model), model, state)
    }

    #[test]
    fn every_register_is_read_and_written_by_its_number() {
        let (layout, model, mut state) = parts();
        let cpu = Cpu { model: &model, external: &Devices };
        let mut numbers = 0;
        while let Some(length) = layout.bytes(numbers) {
            let value = layout.read(&state, cpu, numbers).unwrap();
            assert_eq!(value.len(), length);
            let shown = format!("{state:?}");
            // Writing ones clears bits of this one.
            let clears = numbers
                .checked_sub(FIRST_SYSTEM)
                .is_some_and(|n| layout.system()[n].name() == "DBGCLAIMCLR_EL1");
            match layout.write(&mut state, cpu, numbers, &value) {
                Ok(()) if clears => {}
                Ok(()) => assert_eq!(layout.read(&state, cpu, numbers).unwrap(), value, "register {numbers}"),
                Err(Refused) => assert_eq!(format!("{state:?}"), shown),
            }
            assert_eq!(layout.write(&mut state, cpu, numbers, &value[1..]), Err(Refused));
            numbers += 1;
        }
        assert!(numbers > FIRST_SYSTEM + 100);
        for number in [numbers, usize::MAX] {
            assert_eq!(layout.read(&state, cpu, number), Err(Refused));
            assert_eq!(layout.write(&mut state, cpu, number, &[0; 8]), Err(Refused));
        }
    }

    #[test]
    fn general_registers_come_and_go_together() {
        let (layout, model, mut state) = parts();
        let cpu = Cpu { model: &model, external: &Devices };
        let all = layout.read_general(&state, cpu);
        assert_eq!(all.len(), GENERAL_BYTES);
        assert_eq!(all[8..10], [0x11, 0x11]);
        let mut other = parts().2;
        (other.x, other.v, other.pc) = ([0; 32], [0; 32], 0);
        layout.write_general(&mut other, cpu, &all).unwrap();
        assert_eq!(format!("{other:?}"), format!("{state:?}"));
        // To EL0: SP is another one.
        let mut at_el0 = all.clone();
        at_el0[33 * 8] &= !0x1f;
        layout.write_general(&mut state, cpu, &at_el0).unwrap();
        assert_eq!((state.el(), state.x[31], state.sp_el[1]), (0, 31 * 0x1111, 31 * 0x1111));
        let before = format!("{state:?}");
        for mode in [1, 8, 9, 13, 16, 19] {
            at_el0[33 * 8] = mode;
            assert_eq!(layout.write_general(&mut state, cpu, &at_el0), Err(Refused), "mode {mode}");
        }
        assert_eq!(layout.write_general(&mut state, cpu, &all[1..]), Err(Refused));
        assert_eq!(format!("{state:?}"), before);
    }
}
