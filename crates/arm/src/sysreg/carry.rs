//! Values that a register can have come to hold, for states that come from outside.

use crate::model::CpuModel;
use crate::spec::oslsr;
use crate::state::{CpuState, FpEnv};
use crate::sysreg::access::exists;
use crate::sysreg::write::{fp_masks, store_special};
use crate::sysreg::{Access, Kind, SysReg};

/// True if `reg`'s storage in a vCPU of `model`, whose registers are `reset` after a reset, can come to hold `value` by
/// what a guest does.
pub fn can_hold(model: &CpuModel, reset: &CpuState, reg: SysReg, value: u64) -> bool {
    let before = reset.sys[reg];
    if value == before {
        return true;
    }
    if reg == SysReg::OslsrEl1 {
        return (value ^ before) & !oslsr::OSLK == 0;
    }
    if !exists(model, reg) || matches!(reg.access(), Access::Ro1 | Access::Ro0) {
        return false;
    }
    match reg.kind() {
        Kind::Store(mask) => value & !mask == 0,
        Kind::Special => {
            let mut state = reset.clone();
            // Opens all of MDSCR_EL1.
            state.sys[SysReg::OslsrEl1] |= oslsr::OSLK;
            store_special(&mut state, model, reg, value);
            state.sys[reg] == value
        }
        Kind::Zero | Kind::Model | Kind::External => false,
    }
}

/// Checks that FPCR and FPSR can have these values in a vCPU of `model`.
///
/// # Errors
/// The name of the one that cannot.
pub fn check_fp(model: &CpuModel, fp: FpEnv) -> Result<(), &'static str> {
    let (fpcr, fpsr) = fp_masks(model);
    match fp {
        _ if u64::from(fp.fpcr) & !fpcr != 0 => Err("FPCR"),
        _ if u64::from(fp.fpsr) & !fpsr != 0 => Err("FPSR"),
        _ => Ok(()),
    }
}
