//! The translation regime as the system registers set it.

use crate::feature::Feature;
use crate::model::{CpuModel, pa_bits};
use crate::spec::{sctlr, tcr};
use crate::state::CpuState;
use crate::sysreg::SysReg;

/// One half of the virtual address space: what TTBR0 or TTBR1 maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half {
    /// Address of the first table.
    pub base: u64,
    /// Size of the input address in bits.
    pub input_bits: u8,
    /// log2 of the granule: 12, 14 or 16.
    pub page_shift: u8,
    /// Level of the first lookup.
    pub start_level: i8,
    /// Highest address bit that counts in a data access: 55 with TBI, else 63.
    pub top: u8,
    /// The same for instruction fetch.
    pub fetch_top: u8,
    /// Lowest level at which a block may stand.
    pub block_level: i8,
    /// Size of an output address in bits.
    pub output_bits: u8,
    /// Every access faults: EPD is set, or TxSZ is out of range.
    pub disabled: bool,
    /// Accesses from EL0 fault (E0PD).
    pub el0_disabled: bool,
    /// Permissions in table descriptors do not count (HPD).
    pub flat_permissions: bool,
    /// Bits of a descriptor that are the same bits of the output address.
    address_mask: u64,
    /// Bits of a descriptor that are the upper bits of a 52-bit output address...
    high_mask: u64,
    /// ... and how far they have to be moved.
    high_shift: u8,
    /// TCR.SHx where that counts rather than the descriptor (LPA2).
    pub shareability: Option<u8>,
    /// TTBR has an address of 52 bits.
    wide: bool,
}

/// Everything that [`translate`](super::translate) needs to know beside memory. Depends on SCTLR_EL1,
/// TCR_EL1, TTBR0_EL1, TTBR1_EL1 and MAIR_EL1 only, so it can be kept until one of them is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub(super) halves: [Half; 2],
    pub(super) mair: u64,
    asid: u16,
    /// Bits of an address space identifier that count, and the half whose TTBR has it.
    asid_mask: u16,
    asid_half: usize,
    /// Size of a physical address of this PE.
    pub(super) pa_bits: u8,
    pub(super) enabled: bool,
    pub(super) wxn: bool,
    pub(super) epan: bool,
    pub(super) set_access_flag: bool,
    pub(super) set_dirty: bool,
    pub(super) cached_fetch: bool,
}

/// Fields of one half, as read.
struct Registers {
    size: u8,
    granule_shift: Option<u8>,
    disabled: bool,
    tbi: bool,
    tbid: bool,
    hpd: bool,
    e0pd: bool,
    sh: u8,
}

impl Context {
    /// The regime in force for `state`.
    pub fn new(state: &CpuState, model: &CpuModel) -> Self {
        let control = state.sys[SysReg::SctlrEl1];
        let tcr = state.sys[SysReg::TcrEl1];
        let ttbr = [state.sys[SysReg::Ttbr0El1], state.sys[SysReg::Ttbr1El1]];
        let set_access_flag = tcr & tcr::HA != 0 && model.has(Feature::Haf);
        let mut context = Self {
            halves: [Half::new(&lower(tcr), tcr, model), Half::new(&upper(tcr), tcr, model)],
            mair: state.sys[SysReg::MairEl1],
            asid: 0,
            asid_mask: if tcr & tcr::AS != 0 && model.has(Feature::Asid16) { 0xffff } else { 0xff },
            asid_half: usize::from(tcr & tcr::A1 != 0),
            pa_bits: model.pa_bits(),
            enabled: control & sctlr::M != 0,
            wxn: control & sctlr::WXN != 0,
            epan: control & sctlr::EPAN != 0,
            set_access_flag,
            set_dirty: set_access_flag && tcr & tcr::HD != 0 && model.has(Feature::Hafdbs),
            cached_fetch: control & sctlr::I != 0,
        };
        context.set_tables(ttbr);
        context
    }

    /// Only TTBR0_EL1 and TTBR1_EL1 have changed, to these.
    pub fn set_tables(&mut self, ttbr: [u64; 2]) {
        for (half, ttbr) in self.halves.iter_mut().zip(ttbr) {
            half.base = half.table_base(ttbr, half.wide);
        }
        self.asid = (ttbr[self.asid_half] >> 48) as u16 & self.asid_mask;
    }

    /// True if stage 1 translation is on (SCTLR_EL1.M).
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// The current address space identifier.
    #[inline]
    pub fn asid(&self) -> u16 {
        self.asid
    }

    /// SCTLR_EL1.EPAN, for [`Permissions::allow`](super::Permissions::allow).
    #[inline]
    pub fn epan(&self) -> bool {
        self.epan
    }

    #[inline]
    pub(super) fn half(&self, va: u64) -> &Half {
        &self.halves[(va >> 55 & 1) as usize]
    }

    /// Size in bits of the addresses that a half of the address space takes (`upper`: that of TTBR1_EL1).
    pub fn address_bits(&self, upper: bool) -> u8 {
        self.halves[usize::from(upper)].input_bits
    }

    /// True if the top byte of this address is ignored (EffectiveTBI); `data` as opposed to instruction fetch.
    pub fn ignores_top(&self, va: u64, data: bool) -> bool {
        let half = self.half(va);
        (if data { half.top } else { half.fetch_top }) == 55
    }

    /// The address without a tag: if the top byte of this data address is ignored (TBI), bit 55 is
    /// copied into it.
    pub fn tag_address(&self, va: u64) -> u64 {
        if self.half(va).top == 55 { sign_extend_from_55(va) } else { va }
    }

    /// What PC becomes on a branch to `va` (`AArch64.BranchAddr` at EL0 and EL1).
    #[inline]
    pub fn branch_target(&self, va: u64) -> u64 {
        if self.half(va).fetch_top == 55 { sign_extend_from_55(va) } else { va }
    }
}

/// [`Context::branch_target`] for when there is no context at hand; `tcr` is TCR_EL1, of which only bits
/// that exist in the model can be set.
#[inline]
pub(crate) fn branch_target(tcr: u64, va: u64) -> u64 {
    let (ignored, data_only) =
        if va >> 55 & 1 == 0 { (tcr::TBI0, tcr::TBID0) } else { (tcr::TBI1, tcr::TBID1) };
    if tcr & (ignored | data_only) == ignored { sign_extend_from_55(va) } else { va }
}

fn sign_extend_from_55(va: u64) -> u64 {
    ((va << 8) as i64 >> 8) as u64
}

fn lower(tcr: u64) -> Registers {
    Registers {
        size: (tcr >> tcr::T0SZ_SHIFT & 0x3f) as u8,
        granule_shift: match tcr >> tcr::TG0_SHIFT & 3 {
            0 => Some(12),
            1 => Some(16),
            2 => Some(14),
            _ => None,
        },
        disabled: tcr & tcr::EPD0 != 0,
        tbi: tcr & tcr::TBI0 != 0,
        tbid: tcr & tcr::TBID0 != 0,
        hpd: tcr & tcr::HPD0 != 0,
        e0pd: tcr & tcr::E0PD0 != 0,
        sh: (tcr >> tcr::SH0_SHIFT & 3) as u8,
    }
}

fn upper(tcr: u64) -> Registers {
    Registers {
        size: (tcr >> tcr::T1SZ_SHIFT & 0x3f) as u8,
        granule_shift: match tcr >> tcr::TG1_SHIFT & 3 {
            1 => Some(14),
            2 => Some(12),
            3 => Some(16),
            _ => None,
        },
        disabled: tcr & tcr::EPD1 != 0,
        tbi: tcr & tcr::TBI1 != 0,
        tbid: tcr & tcr::TBID1 != 0,
        hpd: tcr & tcr::HPD1 != 0,
        e0pd: tcr & tcr::E0PD1 != 0,
        sh: (tcr >> tcr::SH1_SHIFT & 3) as u8,
    }
}

/// The granule in force: a reserved or unimplemented one counts as the smallest that is implemented.
fn granule(wanted: Option<u8>, model: &CpuModel) -> u8 {
    let implemented = |shift| {
        model.has(match shift {
            12 => Feature::Granule4,
            14 => Feature::Granule16,
            _ => Feature::Granule64,
        })
    };
    let smallest = || [12, 14].into_iter().find(|&s| implemented(s)).unwrap_or(16);
    wanted.filter(|&s| implemented(s)).unwrap_or_else(smallest)
}

impl Half {
    fn new(r: &Registers, tcr: u64, model: &CpuModel) -> Self {
        let page_shift = granule(r.granule_shift, model);
        let lpa2 = tcr & tcr::DS != 0
            && match page_shift {
                12 => model.has(Feature::Lpa2Granule4),
                14 => model.has(Feature::Lpa2Granule16),
                _ => false,
            };
        let lpa = page_shift == 16 && model.has(Feature::Lpa);
        let smallest = if lpa2 || (page_shift == 16 && model.has(Feature::Lva)) { 12 } else { 16 };
        let largest = match (model.has(Feature::Ttst), page_shift) {
            (false, _) => 39,
            (true, 16) => 47,
            (true, _) => 48,
        };
        let valid = (smallest..=largest).contains(&r.size);
        let input_bits = 64 - r.size.clamp(smallest, largest);
        let stride = page_shift - 3;
        let start_level = 3 - ((input_bits - 1 - page_shift) / stride) as i8;
        let ips = pa_bits((tcr >> tcr::IPS_SHIFT & 7) as u8).min(model.pa_bits());
        let top = if r.tbi { 55 } else { 63 };
        Self {
            base: 0,
            input_bits,
            page_shift,
            start_level,
            top,
            fetch_top: if r.tbid { 63 } else { top },
            block_level: block_level(page_shift, lpa2, lpa),
            output_bits: if lpa || lpa2 { ips } else { ips.min(48) },
            disabled: r.disabled || !valid,
            el0_disabled: r.e0pd,
            flat_permissions: r.hpd,
            address_mask: !((1 << page_shift) - 1) & if lpa2 { (1 << 50) - 1 } else { (1 << 48) - 1 },
            high_mask: if lpa2 { 3 << 8 } else { u64::from(lpa) * (0xf << 12) },
            high_shift: if lpa2 { 50 - 8 } else { 48 - 12 },
            shareability: lpa2.then_some(r.sh),
            wide: lpa2 || (lpa && ips == 52),
        }
    }

    /// Address of the first table in TTBR, which is aligned to the table's size; of 52 bits if `wide`.
    fn table_base(&self, ttbr: u64, wide: bool) -> u64 {
        const BADDR: u64 = 0xffff_ffff_fffe;
        let stride = self.page_shift - 3;
        let resolved_below = self.page_shift + stride * (3 - self.start_level) as u8;
        let size_log2 = self.input_bits - resolved_below + 3;
        if wide {
            let low = ttbr & BADDR & !((1 << size_log2.max(6)) - 1);
            low | (ttbr >> 2 & 0xf) << 48
        } else {
            ttbr & BADDR & !((1 << size_log2) - 1)
        }
    }

    /// Address in a descriptor, of the next table or of the page or block, with the low bits that the
    /// granule leaves over cleared.
    #[inline]
    pub(super) fn output_address(&self, descriptor: u64) -> u64 {
        descriptor & self.address_mask | (descriptor & self.high_mask) << self.high_shift
    }

    /// True if the address is one that this half maps; `top` is the highest bit that counts.
    #[inline]
    pub(super) fn in_range(&self, va: u64, top: u8) -> bool {
        let upper = va >> 55 & 1 != 0;
        let rest = if upper { !va } else { va };
        (rest << (63 - top)) >> (63 - top) >> self.input_bits == 0
    }
}

fn block_level(page_shift: u8, lpa2: bool, lpa: bool) -> i8 {
    match page_shift {
        12 => 1 - lpa2 as i8,
        14 => 2 - lpa2 as i8,
        _ => 2 - lpa as i8,
    }
}
