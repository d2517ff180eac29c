//! TLB invalidation: forms and operands.

use crate::feature::Feature;
use crate::model::CpuModel;
use crate::spec::tcr;
use crate::state::CpuState;
use crate::sysreg::SysReg;

/// What a TLBI instruction invalidates, of the EL1&0 regime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlbiKind {
    /// VMALLE1.
    All,
    /// ASIDE1.
    Asid,
    /// VAE1, and VALE1 if `last_level`.
    Va {
        /// Only entries for the last level of the walk.
        last_level: bool,
    },
    /// VAAE1, and VAALE1 if `last_level`.
    VaAllAsids {
        /// Only entries for the last level of the walk.
        last_level: bool,
    },
    /// RVAE1, and RVALE1 if `last_level`.
    Range {
        /// Only entries for the last level of the walk.
        last_level: bool,
    },
    /// RVAAE1, and RVAALE1 if `last_level`.
    RangeAllAsids {
        /// Only entries for the last level of the walk.
        last_level: bool,
    },
}

/// A TLBI instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlbi {
    /// What it invalidates.
    pub kind: TlbiKind,
    /// On all PEs of the shareability domain (the IS and OS forms) rather than only here.
    pub broadcast: bool,
}

/// The entries to invalidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlbiTarget {
    /// All.
    All,
    /// The non-global ones of an ASID.
    Asid(u16),
    /// Those that cover `va`: global ones, and those of `asid` (of all ASIDs if `None`).
    Va {
        /// Any address in the page, sign-extended.
        va: u64,
        /// Address space.
        asid: Option<u16>,
    },
    /// Those that cover any address from `start` to `last`, both included.
    Range {
        /// First address, sign-extended.
        start: u64,
        /// Last address.
        last: u64,
        /// Address space.
        asid: Option<u16>,
    },
    /// None: the operand is reserved.
    Nothing,
}

/// By CRm and op2.
pub(super) fn find(model: &CpuModel, crm: u8, op2: u8) -> Option<Tlbi> {
    let (feature, broadcast, range) = match crm {
        3 => (Feature::Base, true, false),
        7 => (Feature::Base, false, false),
        1 => (Feature::TlbiOs, true, false),
        2 | 5 => (Feature::TlbiRange, true, true),
        6 => (Feature::TlbiRange, false, true),
        _ => return None,
    };
    if !model.has(feature) {
        return None;
    }
    let kind = match (range, op2) {
        (false, 0) => TlbiKind::All,
        (false, 2) => TlbiKind::Asid,
        (false, 1 | 5) => TlbiKind::Va { last_level: op2 == 5 },
        (false, 3 | 7) => TlbiKind::VaAllAsids { last_level: op2 == 7 },
        (true, 1 | 5) => TlbiKind::Range { last_level: op2 == 5 },
        (true, 3 | 7) => TlbiKind::RangeAllAsids { last_level: op2 == 7 },
        _ => return None,
    };
    Some(Tlbi { kind, broadcast })
}

impl Tlbi {
    /// What the instruction with operand `xt` invalidates.
    pub fn target(self, xt: u64, state: &CpuState, model: &CpuModel) -> TlbiTarget {
        let tcr = state.sys[SysReg::TcrEl1];
        let wide_asid = tcr & tcr::AS != 0 && model.has(Feature::Asid16);
        let asid = (xt >> 48) as u16 & if wide_asid { 0xffff } else { 0xff };
        let va = sign_extend(xt << 12, 56);
        match self.kind {
            TlbiKind::All => TlbiTarget::All,
            TlbiKind::Asid => TlbiTarget::Asid(asid),
            TlbiKind::Va { .. } => TlbiTarget::Va { va, asid: Some(asid) },
            TlbiKind::VaAllAsids { .. } => TlbiTarget::Va { va, asid: None },
            TlbiKind::Range { .. } => range(xt, tcr, model, Some(asid)),
            TlbiKind::RangeAllAsids { .. } => range(xt, tcr, model, None),
        }
    }
}

/// Operand of the range forms: TG `[47:46]`, SCALE `[45:44]`, NUM `[43:39]`, BaseADDR `[36:0]`.
fn range(xt: u64, tcr: u64, model: &CpuModel, asid: Option<u16>) -> TlbiTarget {
    let page_shift = match xt >> 46 & 3 {
        1 => 12,
        2 => 14,
        3 => 16,
        _ => return TlbiTarget::Nothing,
    };
    let scale = xt >> 44 & 3;
    let num = xt >> 39 & 0x1f;
    // With TCR_EL1.DS, BaseADDR has bits [52:16] whatever the granule.
    let base_shift = if tcr & tcr::DS != 0 && model.has(Feature::Lpa2) { 16 } else { page_shift };
    let start = sign_extend((xt & 0x1f_ffff_ffff) << base_shift, 37 + base_shift);
    let bytes = (num + 1) << (5 * scale + 1) << page_shift;
    // A range that goes over the end of the address space stops there.
    TlbiTarget::Range { start, last: start.saturating_add(bytes - 1), asid }
}

fn sign_extend(value: u64, bits: u32) -> u64 {
    let shift = 64 - bits;
    ((value << shift) as i64 >> shift) as u64
}
