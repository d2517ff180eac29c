//! Exception return (`AArch64.ExceptionReturn`).

use crate::exception::Exception;
use crate::mmu::branch_target;
use crate::model::CpuModel;
use crate::spec::{mdscr, oslsr};
use crate::state::{CpuState, ExclusiveMonitor, Pstate};
use crate::sysreg::SysReg;

/// ERET: PSTATE from SPSR_EL1, PC from ELR_EL1. An illegal return sets PSTATE.IL instead of changing the
/// exception level; the caller sees to it that the next instruction then raises
/// [`Exception::illegal_state`]. Opens the exclusive monitor. The event register is the caller's, and so
/// is the check of PC's alignment when it next fetches.
///
/// # Errors
/// Undefined at EL0.
pub fn eret(state: &mut CpuState, model: &CpuModel) -> Result<(), Exception> {
    eret_to(state, model, state.sys[SysReg::ElrEl1])
}

/// ERETAA and ERETAB: [`eret`] to `target`, which is ELR_EL1 authenticated.
///
/// # Errors
/// Undefined at EL0.
pub fn eret_to(state: &mut CpuState, model: &CpuModel, target: u64) -> Result<(), Exception> {
    if state.el() == 0 {
        return Err(Exception::undefined());
    }
    let spsr = Pstate::from_bits_retain(state.sys[SysReg::SpsrEl1] as u32 & model.spsr_mask());
    let illegal = is_illegal(state.pstate, spsr);
    let mut new = if illegal { illegal_pstate(state.pstate, spsr) } else { spsr };
    new.set(Pstate::SS, spsr.contains(Pstate::SS) && step_activates(state, new));
    state.monitor = ExclusiveMonitor { address: u64::MAX, ..Default::default() };
    state.set_pstate(new);
    // An illegal return leaves all of PC's bits as ELR has them.
    state.pc = if illegal { target } else { branch_target(state.sys[SysReg::TcrEl1], target) };
    Ok(())
}

/// The conditions of an illegal return (Arm ARM D1.3.4).
fn is_illegal(current: Pstate, spsr: Pstate) -> bool {
    let reserved_mode = spsr.bits() & 2 != 0;
    let el0_with_sp_el0_only = spsr.el() == 0 && spsr.contains(Pstate::SP);
    spsr.contains(Pstate::AARCH32) || reserved_mode || spsr.el() > current.el() || el0_with_sp_el0_only
}

/// After an illegal return: exception level and stack pointer stay, flags and masks come from SPSR.
fn illegal_pstate(current: Pstate, spsr: Pstate) -> Pstate {
    let restored = Pstate::NZCV | Pstate::DAIF | Pstate::PAN | Pstate::ALLINT;
    (spsr & restored) | Pstate::IL | Pstate::empty().with_el(current.el(), current.contains(Pstate::SP))
}

/// `DebugExceptionReturnSS`: SPSR.SS is honoured if software step is on, disabled where the return comes
/// from and enabled where it goes, with the PSTATE `to`.
fn step_activates(state: &CpuState, to: Pstate) -> bool {
    let control = state.sys[SysReg::MdscrEl1];
    let locked = state.sys[SysReg::OslsrEl1] & oslsr::OSLK != 0;
    if control & mdscr::SS == 0 || locked {
        return false;
    }
    let enabled = |p: Pstate| p.el() == 0 || (control & mdscr::KDE != 0 && !p.contains(Pstate::D));
    !enabled(state.pstate) && enabled(to)
}
