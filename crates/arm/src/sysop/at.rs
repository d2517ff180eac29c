//! Address translation instructions and PAR_EL1.

use crate::exception::Exception;
use crate::feature::Feature;
use crate::mmu::{self, Access, AccessKind, Context, Fault, FaultKind, PhysicalMemory, Translation};
use crate::model::CpuModel;
use crate::spec::par;
use crate::state::{CpuState, Pstate};
use crate::sysreg::SysReg;

/// An AT instruction of the EL1&0 regime, stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressTranslation {
    /// S1E0x rather than S1E1x.
    pub el0: bool,
    /// S1ExW rather than S1ExR.
    pub write: bool,
    /// S1E1RP and S1E1WP: PSTATE.PAN counts.
    pub pan: bool,
}

/// By CRm and op2.
pub(super) fn find(model: &CpuModel, crm: u8, op2: u8) -> Option<AddressTranslation> {
    let (write, second) = (op2 & 1 != 0, op2 & 2 != 0);
    match (crm, op2) {
        (8, 0..=3) => Some(AddressTranslation { el0: second, write, pan: false }),
        (9, 0 | 1) if model.has(Feature::Pan2) => Some(AddressTranslation { el0: false, write, pan: true }),
        _ => None,
    }
}

/// Executes an AT instruction: translates `va` and writes PAR_EL1, with the address or with the fault.
///
/// # Errors
/// A data abort, if a table could not be read or updated: those are not reported in PAR_EL1.
pub fn address_translate<M: PhysicalMemory + ?Sized>(
    state: &mut CpuState,
    model: &CpuModel,
    mem: &M,
    op: AddressTranslation,
    va: u64,
) -> Result<(), Exception> {
    let access = Access {
        kind: if op.write { AccessKind::WriteCheck } else { AccessKind::Read },
        el: u8::from(!op.el0),
        pan: op.pan && state.pstate.contains(Pstate::PAN),
    };
    let ctx = Context::new(state, model);
    state.sys[SysReg::ParEl1] = match mmu::translate(&ctx, mem, va, access) {
        Ok(translation) => success(&translation),
        Err(
            fault @ Fault { kind: FaultKind::SyncExternalOnWalk | FaultKind::UnsupportedAtomicUpdate, .. },
        ) => {
            return Err(Exception::maintenance_abort(fault, va));
        }
        Err(fault) => par::F | par::RES1 | u64::from(fault.status_code()) << par::FST_SHIFT,
    };
    Ok(())
}

fn success(t: &Translation) -> u64 {
    const OUTER_SHAREABLE: u64 = 0b10;
    // Device and non-cacheable memory are reported as Outer Shareable whatever the descriptor says.
    let sh = if t.device || t.attributes == 0x44 { OUTER_SHAREABLE } else { u64::from(t.shareability) };
    u64::from(t.attributes) << par::ATTR_SHIFT
        | t.pa & 0xf_ffff_ffff_f000
        | par::RES1
        | par::NS
        | sh << par::SH_SHIFT
}
