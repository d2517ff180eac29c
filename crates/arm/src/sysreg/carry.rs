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

/// What `reg`'s storage in a vCPU of `model`, whose registers are `reset` after a reset, holds once `value` was written to
/// it: bits that mean nothing there are as here, and not as another holder of the register keeps them.
pub fn settled(model: &CpuModel, reset: &CpuState, reg: SysReg, value: u64) -> u64 {
    if reg == SysReg::OslsrEl1 || !exists(model, reg) || matches!(reg.access(), Access::Ro1 | Access::Ro0) {
        return value;
    }
    match reg.kind() {
        Kind::Store(mask) => value & mask,
        Kind::Special => {
            let mut state = reset.clone();
            state.sys[SysReg::OslsrEl1] |= oslsr::OSLK;
            store_special(&mut state, model, reg, value);
            state.sys[reg]
        }
        Kind::Zero | Kind::Model | Kind::External => value,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_settled_can_be_held() {
        // SCTLR_EL1 as Linux writes it, with EPAN, which this model has not and real cores keep.
        for name in ["neoverse-n1", "cortex-a53"] {
            let model = CpuModel::by_name(name).unwrap();
            let reset = model.reset_state(0, 1 << 31);
            let linux = 0x200_0000_3474_d91d;
            assert!(!can_hold(&model, &reset, SysReg::SctlrEl1, linux));
            for &reg in SysReg::ALL {
                for value in [linux, 0, u64::MAX, reset.sys[reg]] {
                    let once = settled(&model, &reset, reg, value);
                    assert_eq!(settled(&model, &reset, reg, once), once, "{}", reg.name());
                    if once != value {
                        assert!(can_hold(&model, &reset, reg, once), "{} {value:#x} {once:#x}", reg.name());
                    }
                }
            }
            let settled = settled(&model, &reset, SysReg::SctlrEl1, linux);
            // ITD is RES1: there is no AArch32.
            assert_eq!(settled & 0xffff, linux & 0xffff | 1 << 7, "the bits that count are kept");
            assert_eq!(settled >> 57 & 1, 0);
        }
    }
}
