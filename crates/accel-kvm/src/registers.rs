//! The shared state of a vCPU, register by register, as `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG` number them
//! (Documentation/virt/kvm/api.rst of Linux, 4.68).

use std::io;

use armlet_arm::spec::oslsr;
use armlet_arm::sysreg::encoding;
use armlet_arm::{CpuState, Pstate, SysReg};

const ARM64: u64 = 0x6000_0000_0000_0000;
const SIZE_U32: u64 = 0x0020_0000_0000_0000;
const SIZE_U64: u64 = 0x0030_0000_0000_0000;
const SIZE_U128: u64 = 0x0040_0000_0000_0000;
/// Scalable vector registers, whatever length they have.
const SIZE_U2048: u64 = 0x0080_0000_0000_0000;
const SIZE_MASK: u64 = 0x00f0_0000_0000_0000;
const CORE: u64 = 0x0010 << 16;
const SYSTEM: u64 = 0x0013 << 16;
const SVE: u64 = 0x0015 << 16;

/// Byte offsets in `struct kvm_regs`.
mod core {
    pub const X: u64 = 0;
    pub const SP_EL0: u64 = 248;
    pub const PC: u64 = 256;
    pub const PSTATE: u64 = 264;
    pub const SP_EL1: u64 = 272;
    pub const ELR_EL1: u64 = 280;
    pub const SPSR_EL1: u64 = 288;
    pub const V: u64 = 336;
    pub const FPSR: u64 = 848;
    pub const FPCR: u64 = 852;
}

/// A register's number by the encoding of the instructions that access it
/// ([`armlet_arm::sysreg::encoding`]).
pub const fn system_register(encoding: u16) -> u64 {
    ARM64 | SIZE_U64 | SYSTEM | encoding as u64
}

const fn core_register(offset: u64, size: u64) -> u64 {
    ARM64 | size | CORE | (offset / 4)
}

/// Zn, in one slice.
const fn scalable_register(n: u64) -> u64 {
    ARM64 | SIZE_U2048 | SVE | n << 5
}

/// One vCPU's registers by number.
pub trait OneReg {
    /// Reads a register into as many bytes as it has.
    ///
    /// # Errors
    /// The host's.
    fn get(&self, id: u64, value: &mut [u8]) -> io::Result<()>;
    /// Writes a register.
    ///
    /// # Errors
    /// The host's.
    fn set(&self, id: u64, value: &[u8]) -> io::Result<()>;

    /// Reads a register of 64 bits.
    ///
    /// # Errors
    /// The host's.
    fn get_u64(&self, id: u64) -> io::Result<u64> {
        let mut value = [0; 8];
        self.get(id, &mut value)?;
        Ok(u64::from_le_bytes(value))
    }

    /// Writes a register of 64 bits.
    ///
    /// # Errors
    /// The host's.
    fn set_u64(&self, id: u64, value: u64) -> io::Result<()> {
        self.set(id, &value.to_le_bytes())
    }
}

/// Where a register is in the shared state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    X(usize),
    Sp(usize),
    Pc,
    Pstate,
    V(usize),
    Fpsr,
    Fpcr,
    System(SysReg),
}

impl Place {
    fn name(self) -> String {
        match self {
            Self::System(register) => register.name().to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn of(self, state: &CpuState) -> u128 {
        match self {
            Self::X(n) => state.x[n].into(),
            Self::Sp(el) if el == state.sp_index() => state.x[31].into(),
            Self::Sp(el) => state.sp_el[el].into(),
            Self::Pc => state.pc.into(),
            Self::Pstate => state.pstate.bits().into(),
            Self::V(n) => state.v[n],
            Self::Fpsr => state.fp.fpsr.into(),
            Self::Fpcr => state.fp.fpcr.into(),
            // The other bits say what there is.
            Self::System(SysReg::OslsrEl1) => (state.sys[SysReg::OslsrEl1] & oslsr::OSLK).into(),
            Self::System(register) => state.sys[register].into(),
        }
    }

    /// The value to write where the host has that of `old`.
    fn written(self, old: &CpuState, new: &CpuState) -> u128 {
        match self {
            Self::System(r @ SysReg::OslsrEl1) => u128::from(old.sys[r] & !oslsr::OSLK) | self.of(new),
            other => other.of(new),
        }
    }

    /// PSTATE before the stack pointers, one of which is also the current one.
    fn put(self, state: &mut CpuState, value: u128) {
        let low = value as u64;
        match self {
            Self::X(n) => state.x[n] = low,
            Self::Sp(el) => {
                state.sp_el[el] = low;
                if el == state.sp_index() {
                    state.x[31] = low;
                }
            }
            Self::Pc => state.pc = low,
            Self::Pstate => state.pstate = Pstate::from_bits_retain(low as u32),
            Self::V(n) => state.v[n] = value,
            Self::Fpsr => state.fp.fpsr = low as u32,
            Self::Fpcr => state.fp.fpcr = low as u32,
            Self::System(r @ (SysReg::CntvCtlEl0 | SysReg::CntpCtlEl0)) => state.sys[r] = low & !ISTATUS,
            Self::System(register) => state.sys[register] = low,
        }
    }
}

/// The registers of a vCPU that are in the shared state, and their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers(Vec<(u64, Place)>);

impl Registers {
    /// Those that a host has: it is asked for each.
    pub fn of(vcpu: &impl OneReg) -> Self {
        let mut all = vec![
            (core_register(core::PC, SIZE_U64), Place::Pc),
            (core_register(core::PSTATE, SIZE_U64), Place::Pstate),
            (core_register(core::SP_EL0, SIZE_U64), Place::Sp(0)),
            (core_register(core::SP_EL1, SIZE_U64), Place::Sp(1)),
            (core_register(core::ELR_EL1, SIZE_U64), Place::System(SysReg::ElrEl1)),
            (core_register(core::SPSR_EL1, SIZE_U64), Place::System(SysReg::SpsrEl1)),
            (core_register(core::FPSR, SIZE_U32), Place::Fpsr),
            (core_register(core::FPCR, SIZE_U32), Place::Fpcr),
        ];
        all.extend((0..31).map(|n| (core_register(core::X + 8 * n, SIZE_U64), Place::X(n as usize))));
        // A vCPU with scalable vectors has the others as their low parts only.
        let scalable = vcpu.get(scalable_register(0), &mut [0; MOST_BYTES]).is_ok();
        let vector = |n| match scalable {
            true => scalable_register(n),
            false => core_register(core::V + 16 * n, SIZE_U128),
        };
        all.extend((0..32).map(|n| (vector(n), Place::V(n as usize))));
        let system = SysReg::ALL.iter().filter(|r| is_state(**r));
        let system = system.map(|r| (number(*r), Place::System(*r)));
        all.extend(system.filter(|(id, _)| vcpu.get_u64(*id).is_ok()));
        Self(all)
    }

    /// Reads all of them into `state`.
    ///
    /// # Errors
    /// The host's, and of which register.
    pub fn load(&self, vcpu: &impl OneReg, state: &mut CpuState) -> io::Result<()> {
        for (id, place) in &self.0 {
            let mut value = [0; MOST_BYTES];
            vcpu.get(*id, &mut value[..size_of(*id)]).map_err(|e| named(&e, *place))?;
            place.put(state, low_part(&value));
        }
        Ok(())
    }

    /// A register that `wanted` has otherwise than `here`, which the host has told: its name, and the two values.
    pub fn difference(&self, wanted: &CpuState, here: &CpuState) -> Option<(String, u128, u128)> {
        let absent = SysReg::ALL.iter().map(|r| Place::System(*r)).filter(|place| match place {
            Place::System(register) => is_state(*register) && !self.0.iter().any(|(_, p)| p == place),
            _ => false,
        });
        let mut all = self.0.iter().map(|(_, place)| *place).chain(absent);
        let different = all.find(|place| place.of(wanted) != place.of(here))?;
        Some((different.name(), different.of(wanted), different.of(here)))
    }

    /// Writes those that `new` has otherwise than `old`, which the host has.
    ///
    /// # Errors
    /// The host's, and of which register.
    pub fn store(&self, vcpu: &impl OneReg, old: &CpuState, new: &CpuState) -> io::Result<()> {
        let changed = self.0.iter().filter(|(_, place)| place.of(old) != place.of(new));
        for (id, place) in changed {
            let mut value = [0; MOST_BYTES];
            if size_of(*id) > LOW {
                // What is above the part that is known stays.
                vcpu.get(*id, &mut value).map_err(|e| named(&e, *place))?;
            }
            value[..LOW].copy_from_slice(&place.written(old, new).to_le_bytes());
            vcpu.set(*id, &value[..size_of(*id)]).map_err(|e| named(&e, *place))?;
        }
        Ok(())
    }
}

/// Bytes of the largest register, and of the largest part of one that the shared state has.
const MOST_BYTES: usize = 256;
const LOW: usize = 16;

fn low_part(value: &[u8; MOST_BYTES]) -> u128 {
    value.first_chunk().map_or(0, |low| u128::from_le_bytes(*low))
}

fn size_of(id: u64) -> usize {
    1 << ((id & SIZE_MASK) >> 52)
}

fn named(error: &io::Error, place: Place) -> io::Error {
    io::Error::new(error.kind(), format!("register {}: {error}", place.name()))
}

/// The timers' registers, and their numbers as encodings. CNTV_CVAL_EL0 has another than that of its encoding.
const TIMERS: [(SysReg, u16); 4] = [
    (SysReg::CntvCtlEl0, encoding(3, 3, 14, 3, 1)),
    (SysReg::CntvCvalEl0, encoding(3, 3, 14, 0, 2)),
    (SysReg::CntpCtlEl0, encoding(3, 3, 14, 2, 1)),
    (SysReg::CntpCvalEl0, encoding(3, 3, 14, 2, 2)),
];

/// CNT*_CTL_EL0: the condition is met.
const ISTATUS: u64 = 1 << 2;

/// The number of a register in the shared state.
fn number(register: SysReg) -> u64 {
    let timer = TIMERS.iter().find(|(timer, _)| *timer == register);
    system_register(timer.map_or_else(|| register.encoding(), |(_, number)| *number))
}

/// True for a register that guests change, and that is not a device's.
fn is_state(register: SysReg) -> bool {
    let encoding = register.encoding();
    let (op0, crn, crm) = (encoding >> 14, encoding >> 7 & 0xf, encoding >> 3 & 0xf);
    match (op0, crn) {
        (3, 0) => register == SysReg::CsselrEl1,
        // The counters are the machine's.
        (3, 14) => register == SysReg::CntkctlEl1 || TIMERS.iter().any(|(timer, _)| *timer == register),
        // The interrupt controller's.
        (3, 12) => crm < 8,
        (3, 4) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Default)]
    struct Host {
        scalable: bool,
        values: RefCell<BTreeMap<u64, Vec<u8>>>,
        writes: RefCell<Vec<u64>>,
    }

    impl OneReg for Host {
        fn get(&self, id: u64, value: &mut [u8]) -> io::Result<()> {
            if !self.scalable && id & SIZE_MASK == SIZE_U2048 {
                return Err(io::ErrorKind::NotFound.into());
            }
            if let Some(known) = self.values.borrow().get(&id) {
                value.copy_from_slice(known);
            }
            Ok(())
        }

        fn set(&self, id: u64, value: &[u8]) -> io::Result<()> {
            self.values.borrow_mut().insert(id, value.to_vec());
            self.writes.borrow_mut().push(id);
            Ok(())
        }
    }

    fn registers() -> Registers {
        Registers::of(&Host::default())
    }

    /// Has no pointer authentication.
    struct Older;

    impl OneReg for Older {
        fn get(&self, id: u64, _: &mut [u8]) -> io::Result<()> {
            let keys = system_register(SysReg::ApiaKeyLoEl1.encoding());
            let scalable = id & SIZE_MASK == SIZE_U2048;
            if scalable || id & !0x7f == keys & !0x7f { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
        }

        fn set(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_host_has_not_is_left_out() {
        let all = registers().0.len();
        let keys = SysReg::ALL.iter().filter(|r| r.encoding() >> 7 == SysReg::ApiaKeyLoEl1.encoding() >> 7);
        assert_eq!(Registers::of(&Older).0.len(), all - keys.count());
        assert!(all > 71 + 40);
    }

    #[test]
    fn vectors_are_the_low_parts_of_scalable_ones_whose_rest_stays() {
        let host = Host { scalable: true, ..Host::default() };
        let registers = Registers::of(&host);
        // KVM_REG_ARM64_SVE_ZREG(31, 0).
        let last = 0x6080_0000_0015_03e0;
        assert!(registers.0.contains(&(last, Place::V(31))));
        assert!(!registers.0.iter().any(|(id, _)| *id == core_register(core::V, SIZE_U128)));
        let whole: Vec<u8> = (0..MOST_BYTES).map(|n| n as u8).collect();
        host.values.borrow_mut().insert(last, whole.clone());
        let mut state = CpuState::new(0);
        registers.load(&host, &mut state).unwrap();
        assert_eq!(state.v[31].to_le_bytes(), whole[..LOW]);
        let mut new = state.clone();
        new.v[31] = u128::MAX;
        registers.store(&host, &state, &new).unwrap();
        let there = host.values.borrow()[&last].clone();
        assert_eq!((&there[..LOW], &there[LOW..]), (&[0xff; LOW][..], &whole[LOW..]));
        assert_eq!(host.writes.take(), [last]);
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        // As Linux's tools/testing/selftests/kvm/aarch64/get-reg-list.c lists them.
        assert_eq!(system_register(SysReg::MpidrEl1.encoding()), 0x6030_0000_0013_c005);
        assert_eq!(system_register(SysReg::SctlrEl1.encoding()), 0x6030_0000_0013_c080);
        let all = registers().0;
        let id = |place| all.iter().find(|(_, p)| *p == place).expect("is one").0;
        assert_eq!(id(Place::X(0)), 0x6030_0000_0010_0000);
        assert_eq!(id(Place::X(30)), 0x6030_0000_0010_003c);
        assert_eq!(id(Place::Sp(0)), 0x6030_0000_0010_003e);
        assert_eq!(id(Place::Pc), 0x6030_0000_0010_0040);
        assert_eq!(id(Place::Pstate), 0x6030_0000_0010_0042);
        assert_eq!(id(Place::Sp(1)), 0x6030_0000_0010_0044);
        assert_eq!(id(Place::System(SysReg::ElrEl1)), 0x6030_0000_0010_0046);
        assert_eq!(id(Place::System(SysReg::SpsrEl1)), 0x6030_0000_0010_0048);
        assert_eq!(id(Place::V(0)), 0x6040_0000_0010_0054);
        assert_eq!(id(Place::V(31)), 0x6040_0000_0010_00d0);
        assert_eq!(id(Place::Fpsr), 0x6020_0000_0010_00d4);
        assert_eq!(id(Place::Fpcr), 0x6020_0000_0010_00d5);
        // KVM_REG_ARM_TIMER_CTL and _CVAL, KVM_REG_ARM_PTIMER_CTL and _CVAL.
        assert_eq!(id(Place::System(SysReg::CntvCtlEl0)), 0x6030_0000_0013_df19);
        assert_eq!(id(Place::System(SysReg::CntvCvalEl0)), 0x6030_0000_0013_df02);
        assert_eq!(id(Place::System(SysReg::CntpCtlEl0)), 0x6030_0000_0013_df11);
        assert_eq!(id(Place::System(SysReg::CntpCvalEl0)), 0x6030_0000_0013_df12);
    }

    #[test]
    fn a_state_that_was_written_is_read_back_whole() {
        let (registers, host) = (registers(), Host::default());
        let mut state = CpuState::new(3);
        for el in [0, 1] {
            let old = state.clone();
            state.set_pstate(Pstate::N.with_el(1, el == 1));
            let mut n = 100 * (el + 1) as u64;
            let mut next = || {
                n += 1;
                n
            };
            state.x.iter_mut().for_each(|x| *x = next());
            state.v.iter_mut().for_each(|v| *v = u128::from(next()) << 64 | 5);
            SysReg::ALL.iter().for_each(|r| state.sys[*r] = next());
            state.sys[SysReg::OslsrEl1] = oslsr::OSLK;
            (state.sys[SysReg::CntvCtlEl0], state.sys[SysReg::CntpCtlEl0]) = (1, 3);
            (state.pc, state.fp.fpcr, state.fp.fpsr) = (next(), next() as u32, next() as u32);
            state.sp_el[1 - el] = next();
            state.bank_sp();
            registers.store(&host, &CpuState { pc: !0, ..old.clone() }, &state).unwrap();
            let mut back = old;
            registers.load(&host, &mut back).unwrap();
            assert_eq!((back.x, back.pc, back.pstate), (state.x, state.pc, state.pstate));
            assert_eq!((back.v, back.fp), (state.v, state.fp));
            assert_eq!(back.sp_el[..2], state.sp_el[..2]);
            let carried = SysReg::ALL.iter().filter(|r| is_state(**r));
            carried.for_each(|r| assert_eq!(back.sys[*r], state.sys[*r], "{}", r.name()));
        }
    }

    #[test]
    fn what_a_host_does_not_take_is_named() {
        let (registers, here) = (Registers::of(&Older), CpuState::new(0));
        let mut wanted = here.clone();
        assert_eq!(registers.difference(&wanted, &here), None);
        // Not the state's.
        (wanted.sys[SysReg::MidrEl1], wanted.sys[SysReg::CntfrqEl0]) = (1, 2);
        assert_eq!(registers.difference(&wanted, &here), None);
        wanted.sys[SysReg::ApibKeyHiEl1] = 7;
        assert_eq!(registers.difference(&wanted, &here), Some(("APIBKeyHi_EL1".into(), 7, 0)));
        wanted.sys[SysReg::CntvCvalEl0] = 9;
        assert_eq!(registers.difference(&wanted, &here), Some(("CNTV_CVAL_EL0".into(), 9, 0)));
    }

    #[test]
    fn only_what_has_changed_is_written() {
        let (registers, host) = (registers(), Host::default());
        let old = CpuState::new(0);
        let mut new = old.clone();
        registers.store(&host, &old, &new).unwrap();
        assert!(host.writes.borrow().is_empty());
        new.x[7] = 1;
        new.x[31] = 2;
        new.sys[SysReg::VbarEl1] = 3;
        // An identification register, a timer's, the interrupt controller's: not the state's to change.
        for r in [SysReg::MidrEl1, SysReg::CntvctEl0, SysReg::IccIgrpen1El1] {
            new.sys[r] = 4;
        }
        registers.store(&host, &old, &new).unwrap();
        let vbar = system_register(SysReg::VbarEl1.encoding());
        let expected = [core_register(core::SP_EL1, SIZE_U64), core_register(core::X + 56, SIZE_U64), vbar];
        let writes = host.writes.borrow().clone();
        assert!(expected.iter().all(|id| writes.contains(id)), "{writes:x?}");
        assert_eq!(writes.len(), expected.len(), "{writes:x?}");
    }
}
