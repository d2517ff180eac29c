//! Taking an exception (`AArch64.TakeException`).

use crate::exception::{Exception, ExceptionClass, ReturnTo};
use crate::feature::Feature;
use crate::model::CpuModel;
use crate::spec::sctlr;
use crate::state::{CpuState, Pstate};
use crate::sysreg::SysReg;

/// Offset of a vector within its group of four.
#[derive(Clone, Copy)]
enum Vector {
    Synchronous = 0x000,
    Irq = 0x080,
    Fiq = 0x100,
    SError = 0x180,
}

/// The registers of the exception level that the exception goes to.
struct Target {
    el: usize,
    vbar: SysReg,
    sctlr: SysReg,
    spsr: SysReg,
    elr: SysReg,
    esr: SysReg,
    far: SysReg,
}

/// All exceptions from EL0 and EL1 go to EL1 while that is the highest level.
const EL1: Target = Target {
    el: 1,
    vbar: SysReg::VbarEl1,
    sctlr: SysReg::SctlrEl1,
    spsr: SysReg::SpsrEl1,
    elr: SysReg::ElrEl1,
    esr: SysReg::EsrEl1,
    far: SysReg::FarEl1,
};

/// Takes a synchronous exception. NZCV in `state.pstate` must be valid, and `state.pc` the address of the
/// instruction that caused it.
pub fn take(state: &mut CpuState, model: &CpuModel, exception: &Exception) {
    let target = &EL1;
    let same = state.el() == target.el;
    state.sys[target.esr] = exception.syndrome(same);
    if let Some(far) = exception.far {
        state.sys[target.far] = far;
    }
    let return_address = match exception.return_to {
        ReturnTo::Instruction => state.pc,
        ReturnTo::Next => state.pc.wrapping_add(4),
        ReturnTo::Address(address) => address,
    };
    enter(state, model, target, Vector::Synchronous, return_address);
}

/// Takes an IRQ. `state.pc` is the address of the instruction to be executed next; ESR stays as it was.
pub fn take_irq(state: &mut CpuState, model: &CpuModel) {
    let pc = state.pc;
    enter(state, model, &EL1, Vector::Irq, pc);
}

/// Takes an FIQ; otherwise as [`take_irq`].
pub fn take_fiq(state: &mut CpuState, model: &CpuModel) {
    let pc = state.pc;
    enter(state, model, &EL1, Vector::Fiq, pc);
}

/// Takes an SError interrupt with `iss` (25 bits; bit 24 marks an implementation-defined syndrome).
pub fn take_serror(state: &mut CpuState, model: &CpuModel, iss: u32) {
    let ec = u64::from(ExceptionClass::SError.ec(true));
    state.sys[EL1.esr] = ec << 26 | 1 << 25 | u64::from(iss & 0x1ff_ffff);
    let pc = state.pc;
    enter(state, model, &EL1, Vector::SError, pc);
}

fn enter(state: &mut CpuState, model: &CpuModel, target: &Target, vector: Vector, return_address: u64) {
    let old = state.pstate;
    let group = match (old.el() == target.el, old.contains(Pstate::SP)) {
        (true, false) => 0x000,
        (true, true) => 0x200,
        (false, _) => 0x400, // from a lower level, which always uses AArch64
    };
    state.sys[target.spsr] = u64::from(old.bits());
    state.sys[target.elr] = return_address;
    state.set_pstate(entered_pstate(old, state.sys[target.sctlr], model, target.el));
    state.pc = (state.sys[target.vbar] & !0x7ff).wrapping_add(group + vector as u64);
}

/// PSTATE on entry to EL1 from `old`, with this SCTLR_EL1. Each bit depends on the same bit of `old`, or on none.
pub fn entered(old: Pstate, sctlr: u64, model: &CpuModel) -> Pstate {
    entered_pstate(old, sctlr, model, EL1.el)
}

/// PSTATE on entry: everything masked; PAN, SSBS and TCO as SCTLR says; NZCV and DIT stay.
fn entered_pstate(old: Pstate, sctlr: u64, model: &CpuModel, el: usize) -> Pstate {
    let cleared = Pstate::SS | Pstate::IL | Pstate::UAO | Pstate::BTYPE | Pstate::SSBS;
    let mut new = (old - cleared) | Pstate::DAIF;
    if sctlr & sctlr::SPAN == 0 && model.has(Feature::Pan) {
        new |= Pstate::PAN;
    }
    if sctlr & sctlr::DSSBS != 0 && model.has(Feature::Ssbs) {
        new |= Pstate::SSBS;
    }
    if model.has(Feature::Mte) {
        new |= Pstate::TCO;
    }
    if model.has(Feature::Nmi) {
        new |= Pstate::ALLINT;
    }
    new.with_el(el, true)
}
