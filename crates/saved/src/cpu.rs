//! One vCPU.

use armlet_arm::state::{ExclusiveMonitor, FpEnv};
use armlet_arm::sysreg::{self, SysRegs};
use armlet_arm::{CpuModel, CpuState, Pstate, SysReg};
use serde::{Deserialize, Serialize};

use crate::Unfit;

saved! {
    /// The local exclusive monitor.
    SavedMonitor {
        /// Virtual address of the load-exclusive; `None` while the monitor is open.
        "1" address: Option<u64>,
        /// What was read: low and high half.
        "2" value: [u64; 2],
        /// Bytes read.
        "3" size: u64,
    }

    /// One vCPU: the architectural state, and what it is about to do.
    SavedCpu {
        /// Its number.
        "1" index: u32,
        /// X0 to X30.
        "2" x: Vec<u64>,
        /// SP_EL0 to SP_EL3.
        "3" sp: Vec<u64>,
        /// Program counter.
        "4" pc: u64,
        /// PSTATE, in the layout of SPSR_EL1.
        "5" pstate: u32,
        /// FPCR.
        "6" fpcr: u32,
        /// FPSR.
        "7" fpsr: u32,
        /// V0 to V31: low and high half.
        "8" v: Vec<[u64; 2]>,
        /// The local exclusive monitor.
        "9" monitor: SavedMonitor,
        /// System registers that are not 0, as encoding (bits 20 to 5 of MRS) and value. Those of interrupt controller
        /// and timers are with these.
        "10" system: Vec<(u16, u64)>,
        /// On or off.
        "11" power: SavedPower,
        /// The event register (SEV, WFE).
        "12" event: bool,
    }
}

/// Power of a vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedPower {
    /// Executes code.
    #[default]
    #[serde(rename = "1")]
    On,
    /// Off, until CPU_ON.
    #[serde(rename = "2")]
    Off,
}

impl SavedCpu {
    /// Saves `state`.
    pub fn of(state: &CpuState, power: SavedPower, event: bool) -> Self {
        let mut state = state.clone();
        state.bank_sp();
        // Every field by name: whoever adds one decides here what becomes of it.
        let CpuState { x, pc, pstate, fp, index, v, sp_el, monitor, sys } = state;
        let FpEnv { fpcr, fpsr } = fp;
        let ExclusiveMonitor { address, value_lo, value_hi, size } = monitor;
        let SysRegs(values) = sys;
        let system = SysReg::ALL.iter().zip(values).filter(|(_, value)| *value != 0);
        Self {
            index,
            x: x[..31].to_vec(),
            sp: sp_el.to_vec(),
            pc,
            pstate: pstate.bits(),
            fpcr,
            fpsr,
            v: v.iter().map(|v| [*v as u64, (*v >> 64) as u64]).collect(),
            monitor: SavedMonitor {
                address: (address != u64::MAX).then_some(address),
                value: [value_lo, value_hi],
                size,
            },
            system: system.map(|(reg, value)| (reg.encoding(), value)).collect(),
            power,
            event,
        }
    }

    /// The state of vCPU `reset.index` of `model`, whose registers are `reset` after a reset. Registers that are not in
    /// the saved state are 0.
    ///
    /// # Errors
    /// It has a register, or a value of one, that this vCPU cannot have: which.
    pub fn restore(&self, model: &CpuModel, reset: &CpuState) -> Result<CpuState, Unfit> {
        let unfit = |what: String| Unfit(format!("CPU {}: {what}", self.index));
        let mut state = CpuState::new(self.index);
        Unfit::unless(self.index == reset.index, || {
            format!("CPU {} was saved where CPU {} is", self.index, reset.index)
        })?;
        let shape = (self.x.len(), self.sp.len(), self.v.len());
        Unfit::unless(shape == (31, 4, 32), || format!("CPU {}: registers are missing", self.index))?;
        state.x[..31].copy_from_slice(&self.x);
        state.sp_el.copy_from_slice(&self.sp);
        state.pc = self.pc;
        state.fp = FpEnv { fpcr: self.fpcr, fpsr: self.fpsr };
        for (to, [low, high]) in state.v.iter_mut().zip(&self.v) {
            *to = u128::from(*low) | u128::from(*high) << 64;
        }
        state.monitor = self.monitor.restore().map_err(unfit)?;
        self.restore_system(model, reset, &mut state).map_err(unfit)?;
        sysreg::check_fp(model, state.fp)
            .map_err(|reg| unfit(value_of(reg, "a value of another CPU model")))?;
        state.pstate = self.restore_pstate(model).map_err(unfit)?;
        state.x[31] = state.sp_el[state.sp_index()];
        Ok(state)
    }

    fn restore_pstate(&self, model: &CpuModel) -> Result<Pstate, String> {
        let pstate = Pstate::from_bits_retain(self.pstate);
        let known = model.spsr_mask() & !0x1f | (Pstate::EL_LO | Pstate::SP).bits();
        let possible = self.pstate & !known == 0 && pstate.el() <= 1;
        // EL0 has one stack pointer.
        let selected = pstate.el() == 1 || !pstate.contains(Pstate::SP);
        if possible && selected {
            return Ok(pstate);
        }
        Err(format!("PSTATE was {:#x}, which this CPU model cannot have", self.pstate))
    }

    fn restore_system(&self, model: &CpuModel, reset: &CpuState, state: &mut CpuState) -> Result<(), String> {
        let mut last = None;
        let mut sorted = self.system.clone();
        sorted.sort_unstable();
        for (encoding, value) in sorted {
            if last.replace(encoding) == Some(encoding) {
                return Err(format!("register {encoding:#06x} was saved twice"));
            }
            let reg = sysreg::lookup(encoding).ok_or_else(|| {
                format!("register {encoding:#06x} was saved, which this program does not know")
            })?;
            state.sys[reg] = value;
        }
        for &reg in SysReg::ALL {
            let value = state.sys[reg];
            if !sysreg::can_hold(model, reset, reg, value) {
                let why = format!("{value:#x} and cannot be that here");
                return Err(value_of(reg.name(), &why));
            }
        }
        Ok(())
    }
}

fn value_of(register: &str, what: &str) -> String {
    format!("{register} was {what}")
}

impl SavedMonitor {
    fn restore(&self) -> Result<ExclusiveMonitor, String> {
        let [value_lo, value_hi] = self.value;
        let address = self.address.unwrap_or(u64::MAX);
        match self.size {
            0 | 1 | 2 | 4 | 8 | 16 => Ok(ExclusiveMonitor { address, value_lo, value_hi, size: self.size }),
            size => Err(format!("the exclusive monitor was of {size} bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// splitmix64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z ^ z >> 27
        }
    }

    struct Nobody;

    impl sysreg::ExternalRegisters for Nobody {
        fn read(&self, _cpu: usize, _reg: SysReg) -> u64 {
            0
        }

        fn write(&self, _cpu: usize, _reg: SysReg, _value: u64) {}
    }

    /// A state that a guest can bring about: random values written to every register.
    fn random_state(model: &CpuModel, random: &mut Random) -> CpuState {
        let mut state = model.reset_state(3, 0x8000_0003);
        state.x.iter_mut().chain(&mut state.sp_el).for_each(|x| *x = random.next());
        state.v.iter_mut().for_each(|v| *v = u128::from(random.next()) << 64 | u128::from(random.next()));
        state.pc = random.next();
        for _ in 0..2 {
            for &reg in SysReg::ALL {
                let _ = sysreg::write(&mut state, model, &Nobody, reg.encoding(), 0, random.next());
            }
        }
        let el1 = random.next() & 1 != 0;
        let bits = Pstate::from_bits_retain(random.next() as u32 & model.spsr_mask());
        state.set_pstate(
            (bits - Pstate::from_bits_retain(0xf)).with_el(usize::from(el1), el1 && random.next() & 1 != 0),
        );
        let size = 1 << (random.next() % 5);
        state.monitor = ExclusiveMonitor { address: random.next(), value_lo: 1, value_hi: 2, size };
        state
    }

    fn parts(state: &CpuState) -> impl PartialEq + std::fmt::Debug {
        let mut s = state.clone();
        s.bank_sp();
        (s.x, s.pc, s.pstate, s.fp, s.index, (s.v, s.sp_el, s.monitor, s.sys.0))
    }

    #[test]
    fn whatever_a_guest_writes_comes_back() {
        let seed =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos());
        let seed = std::env::var("ARMLET_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed as u64);
        println!("ARMLET_SEED={seed}");
        let mut random = Random(seed);
        for model in CpuModel::all() {
            for _ in 0..20 {
                let state = random_state(&model, &mut random);
                let saved = SavedCpu::of(&state, SavedPower::Off, true);
                let text = serde_json::to_string(&saved).unwrap();
                let read: SavedCpu = serde_json::from_str(&text).unwrap();
                assert_eq!(read, saved);
                let reset = model.reset_state(3, 0x8000_0003);
                let back = read.restore(&model, &reset).unwrap_or_else(|e| panic!("{}: {e}", model.name()));
                assert_eq!(parts(&back), parts(&state), "{}", model.name());
            }
        }
    }

    fn refused(model: &str, change: impl FnOnce(&mut SavedCpu)) -> String {
        let model = CpuModel::by_name(model).unwrap();
        let reset = model.reset_state(0, 0x8000_0000);
        let mut saved = SavedCpu::of(&reset, SavedPower::On, false);
        change(&mut saved);
        saved.restore(&model, &reset).unwrap_err().to_string()
    }

    #[test]
    fn what_this_cpu_cannot_have_is_named() {
        let put = |reg: SysReg, value| {
            move |cpu: &mut SavedCpu| {
                cpu.system.retain(|(encoding, _)| *encoding != reg.encoding());
                cpu.system.push((reg.encoding(), value));
            }
        };
        for (text, change) in [
            ("MPIDR_EL1", Box::new(put(SysReg::MpidrEl1, 0x8000_0001)) as Box<dyn FnOnce(&mut SavedCpu)>),
            ("SCTLR_EL1", Box::new(put(SysReg::SctlrEl1, u64::MAX))),
            ("APIAKeyLo_EL1", Box::new(put(SysReg::ApiaKeyLoEl1, 1))),
            ("ICC_PMR_EL1", Box::new(put(SysReg::IccPmrEl1, 1))),
            ("0xffff", Box::new(|cpu| cpu.system.push((0xffff, 1)))),
            ("twice", Box::new(|cpu| cpu.system.push(cpu.system[0]))),
            ("PSTATE", Box::new(|cpu| cpu.pstate |= 8)),
            ("PSTATE", Box::new(|cpu| cpu.pstate = 1)),
            ("PSTATE", Box::new(|cpu| cpu.pstate |= 16)),
            ("FPCR", Box::new(|cpu| cpu.fpcr = u32::MAX)),
            ("monitor", Box::new(|cpu| cpu.monitor.size = 3)),
            ("missing", Box::new(|cpu| cpu.x.truncate(30))),
            ("CPU 1 was saved where CPU 0 is", Box::new(|cpu| cpu.index = 1)),
        ] {
            let error = refused("cortex-a53", change);
            assert!(error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_field_is_an_error_and_a_missing_one_its_default() {
        assert_eq!(serde_json::from_str::<SavedCpu>("{}").unwrap(), SavedCpu::default());
        let error = serde_json::from_str::<SavedCpu>(r#"{"99": 1}"#).unwrap_err().to_string();
        assert!(error.contains("99"), "{error}");
    }
}
