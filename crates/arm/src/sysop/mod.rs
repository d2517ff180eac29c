//! System instructions (SYS, op0 = 1): cache maintenance, TLB maintenance, address translation.

mod at;
mod tlbi;

#[cfg(test)]
mod tests;

pub use at::{AddressTranslation, address_translate};
pub use tlbi::{Tlbi, TlbiKind, TlbiTarget};

use crate::exception::Exception;
use crate::feature::Feature;
use crate::mmu::{Access, AccessKind};
use crate::model::CpuModel;
use crate::spec::sctlr;
use crate::state::{CpuState, Pstate};
use crate::sysreg::encoding;

/// What a SYS instruction asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysOp {
    /// TLB invalidation; operands in [`Tlbi::target`].
    Tlbi(Tlbi),
    /// All instruction caches, of this PE or (`broadcast`) of all.
    IcIallu {
        /// IC IALLUIS.
        broadcast: bool,
    },
    /// Instruction cache line by address, on all PEs.
    IcIvau,
    /// Zeroes the aligned block of [`CpuModel::zva_bytes`](crate::CpuModel::zva_bytes) around the address. On
    /// Device memory that is an alignment fault.
    DcZva,
    /// DC CVAC, CVAU, CVAP, CVADP or CIVAC: nothing to do once the address has been checked.
    DcClean,
    /// DC IVAC: nothing to do once the address has been checked.
    DcInvalidate,
    /// Translates the address into PAR_EL1.
    At(AddressTranslation),
    /// Nothing to do: maintenance by set and way, prediction restriction.
    Nop,
}

impl SysOp {
    /// The access whose translation the instruction needs first, with the abort made by
    /// [`Exception::maintenance_abort`] if that fails; for DC ZVA by [`Exception::data_abort`].
    pub fn access(self, state: &CpuState) -> Option<Access> {
        let el = u8::from(state.el() > 0);
        let (kind, pan) = match self {
            Self::DcZva => (AccessKind::Write, state.pstate.contains(Pstate::PAN)),
            Self::DcInvalidate => (AccessKind::WriteCheck, false),
            Self::DcClean | Self::IcIvau => (AccessKind::Read, false),
            _ => return None,
        };
        Some(Access { kind, el, pan: pan && el > 0 })
    }
}

/// When EL0 may execute a system instruction.
#[derive(Clone, Copy)]
enum El0 {
    Never,
    /// If the bit of SCTLR_EL1 is set; trapped otherwise.
    If(u64),
}

/// Finds what `SYS #op1, CRn, CRm, #op2, Xt` does here; `rt` only goes to the syndrome of a trap.
///
/// # Errors
/// Undefined, or a trap to EL1.
pub fn decode_sys(
    state: &CpuState,
    model: &CpuModel,
    operation: SysEncoding,
    rt: u32,
) -> Result<SysOp, Exception> {
    let (op, el0) = find(model, operation).ok_or(Exception::undefined())?;
    if state.el() > 0 {
        return Ok(op);
    }
    match el0 {
        El0::Never => Err(Exception::undefined()),
        El0::If(bit) if state.sys[crate::SysReg::SctlrEl1] & bit != 0 => Ok(op),
        El0::If(_) => Err(Exception::system_instruction_trap(operation.packed(), rt)),
    }
}

/// op1, CRn, CRm and op2 of a SYS instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysEncoding {
    /// op1, 0 to 7.
    pub op1: u8,
    /// CRn, 0 to 15.
    pub crn: u8,
    /// CRm, 0 to 15.
    pub crm: u8,
    /// op2, 0 to 7.
    pub op2: u8,
}

impl SysEncoding {
    /// From bits `[18:5]` of the instruction; higher bits are ignored.
    #[inline]
    pub const fn unpack(bits: u16) -> Self {
        Self {
            op1: (bits >> 11 & 7) as u8,
            crn: (bits >> 7 & 0xf) as u8,
            crm: (bits >> 3 & 0xf) as u8,
            op2: (bits & 7) as u8,
        }
    }

    /// As in bits `[18:5]` of the instruction.
    pub const fn packed(self) -> u16 {
        encoding(0, self.op1 as u16, self.crn as u16, self.crm as u16, self.op2 as u16)
    }
}

fn find(model: &CpuModel, e: SysEncoding) -> Option<(SysOp, El0)> {
    match (e.op1, e.crn) {
        (0 | 3, 7) => cache_or_translation(model, e),
        (0, 8 | 9) => {
            let xs_variant = e.crn == 9;
            if xs_variant && !model.has(Feature::Xs) {
                return None;
            }
            Some((SysOp::Tlbi(tlbi::find(model, e.crm, e.op2)?), El0::Never))
        }
        // Implementation-defined maintenance.
        (0 | 1, 11 | 15) => Some((SysOp::Nop, El0::Never)),
        _ => None,
    }
}

fn cache_or_translation(model: &CpuModel, e: SysEncoding) -> Option<(SysOp, El0)> {
    let uci = El0::If(sctlr::UCI);
    let with = |feature, op| model.has(feature).then_some(op);
    match (e.op1, e.crm, e.op2) {
        (0, 1, 0) => Some((SysOp::IcIallu { broadcast: true }, El0::Never)),
        (0, 5, 0) => Some((SysOp::IcIallu { broadcast: false }, El0::Never)),
        (3, 5, 1) => Some((SysOp::IcIvau, uci)),
        (0, 6, 1) => Some((SysOp::DcInvalidate, El0::Never)),
        (0, 6 | 10 | 14, 2) => Some((SysOp::Nop, El0::Never)), // DC ISW, CSW, CISW
        (3, 4, 1) => Some((SysOp::DcZva, El0::If(sctlr::DZE))),
        (3, 10 | 11 | 14, 1) => Some((SysOp::DcClean, uci)), // DC CVAC, CVAU, CIVAC
        (3, 12, 1) => with(Feature::Dpb, (SysOp::DcClean, uci)),
        (3, 13, 1) => with(Feature::Dpb2, (SysOp::DcClean, uci)),
        // CFP, DVP and CPP RCTX.
        (3, 3, 4 | 5 | 7) => with(Feature::SpecRes, (SysOp::Nop, El0::If(sctlr::EN_RCTX))),
        // COSP RCTX.
        (3, 3, 6) => with(Feature::SpecRes2, (SysOp::Nop, El0::If(sctlr::EN_RCTX))),
        (0, 8 | 9, _) => Some((SysOp::At(at::find(model, e.crm, e.op2)?), El0::Never)),
        _ => None,
    }
}
