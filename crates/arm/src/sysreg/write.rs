//! MSR: values that registers accept, and what a write means for the accelerator.

use crate::exception::Exception;
use crate::feature::Feature;
use crate::model::CpuModel;
use crate::spec::{cntkctl, cpacr, fpcr, fpsr, mdscr, oslsr, sctlr, tcr};
use crate::state::{CpuState, Pstate};
use crate::sysreg::access::{Target, check, target};
use crate::sysreg::{ExternalRegisters, Kind, SysReg};

bitflags::bitflags! {
    /// What the accelerator has to look at again after a write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Effects: u32 {
        /// The translation regime: SCTLR, TCR, TTBR (the ASID too) or MAIR.
        const TRANSLATION = 1 << 0;
        /// PSTATE: masks, PAN, UAO, stack pointer selection.
        const PSTATE = 1 << 1;
        /// FPCR, FPSR or the right to use floating point.
        const FP = 1 << 2;
        /// Debug: single step, breakpoints, watchpoints.
        const DEBUG = 1 << 3;
        /// An interrupt may have become deliverable or gone (GIC, timer, masks).
        const INTERRUPTS = 1 << 4;
    }
}

/// Writes a system register (MSR register). `enc` as in [`encoding`](crate::sysreg::encoding); `rt` only
/// goes to the syndrome of a trap. NZCV in `state.pstate` must be valid, and is after.
///
/// # Errors
/// The exception that the access causes.
pub fn write(
    state: &mut CpuState,
    model: &CpuModel,
    ext: &dyn ExternalRegisters,
    enc: u16,
    rt: u32,
    value: u64,
) -> Result<Effects, Exception> {
    match target(model, enc) {
        Target::Register(reg) => {
            check(state, reg, enc, rt, false)?;
            perform(state, model, ext, reg, value);
            Ok(effects(reg))
        }
        Target::ImplementationDefined if state.el() > 0 => Ok(Effects::empty()),
        _ => Err(Exception::undefined()),
    }
}

/// Writes, with no question of who may.
pub(super) fn perform(
    state: &mut CpuState,
    model: &CpuModel,
    ext: &dyn ExternalRegisters,
    reg: SysReg,
    value: u64,
) {
    if reg.kind() == Kind::External {
        ext.write(state.index as usize, reg, value);
    } else {
        store(state, model, reg, value);
    }
    if reg == SysReg::CntkctlEl1 {
        // Held here for the access rules; the timers make the event stream from it.
        ext.write(state.index as usize, reg, state.sys[reg]);
    }
}

/// What a write to `reg` touches.
fn effects(reg: SysReg) -> Effects {
    use SysReg as R;
    match reg {
        // SCTLR_EL1 also rules traps and stack alignment that translated code has built in.
        R::SctlrEl1 | R::TcrEl1 | R::Ttbr0El1 | R::Ttbr1El1 | R::MairEl1 => Effects::TRANSLATION,
        R::SpSel | R::Pan | R::Uao | R::Ssbs | R::Dit | R::Tco => Effects::PSTATE,
        R::Daif => Effects::PSTATE | Effects::INTERRUPTS,
        R::Fpcr | R::Fpsr | R::CpacrEl1 => Effects::FP,
        R::MdscrEl1 | R::OslarEl1 | R::OsdlrEl1 => Effects::DEBUG,
        _ if reg.encoding() >> 7 == 2 << 7 && reg.encoding() & 4 != 0 => Effects::DEBUG,
        _ if reg.kind() == Kind::External => Effects::INTERRUPTS,
        _ => Effects::empty(),
    }
}

fn store(state: &mut CpuState, model: &CpuModel, reg: SysReg, value: u64) {
    match reg.kind() {
        Kind::Store(mask) => state.sys[reg] = value & mask,
        Kind::Special => store_special(state, model, reg, value),
        Kind::Zero | Kind::Model | Kind::External => {}
    }
}

pub(super) fn store_special(state: &mut CpuState, model: &CpuModel, reg: SysReg, value: u64) {
    match reg {
        SysReg::SctlrEl1 => state.sys[reg] = value & sctlr_mask(model) | model.sctlr_res1(),
        SysReg::TcrEl1 => state.sys[reg] = value & tcr_mask(model),
        SysReg::Ttbr0El1 | SysReg::Ttbr1El1 => {
            let res0 = u64::from(!model.has(Feature::TtCnp));
            state.sys[reg] = value & !res0;
        }
        SysReg::CpacrEl1 => state.sys[reg] = value & cpacr_mask(model),
        SysReg::SpsrEl1 => state.sys[reg] = value & u64::from(model.spsr_mask()),
        SysReg::CntkctlEl1 => state.sys[reg] = value & cntkctl_mask(model),
        SysReg::SpEl0 => state.sp_el[0] = value,
        SysReg::Fpcr => state.fp.fpcr = (value & fpcr_mask(model)) as u32,
        SysReg::Fpsr => state.fp.fpsr = (value & FPSR_MASK) as u32,
        SysReg::MdscrEl1 => store_mdscr(state, value),
        SysReg::OslarEl1 => {
            let locked = if value & 1 != 0 { oslsr::OSLK } else { 0 };
            state.sys[SysReg::OslsrEl1] = oslsr::OSLM_IMPLEMENTED | locked;
        }
        SysReg::OsdlrEl1 => {
            state.sys[reg] = if model.has(Feature::DoubleLock) { value & 1 } else { 0 };
        }
        SysReg::DbgclaimsetEl1 => state.sys[SysReg::DbgclaimsetEl1] |= value & 0xff,
        SysReg::DbgclaimclrEl1 => state.sys[SysReg::DbgclaimsetEl1] &= !(value & 0xff),
        _ => store_pstate(state, reg, value),
    }
}

fn store_pstate(state: &mut CpuState, reg: SysReg, value: u64) {
    let mask = match reg {
        SysReg::Nzcv => Pstate::NZCV,
        SysReg::Daif => Pstate::DAIF,
        SysReg::Pan => Pstate::PAN,
        SysReg::Uao => Pstate::UAO,
        SysReg::Dit => Pstate::DIT,
        SysReg::Ssbs => Pstate::SSBS,
        SysReg::Tco => Pstate::TCO,
        SysReg::SpSel => Pstate::SP,
        _ => return,
    };
    let new = Pstate::from_bits_retain(value as u32) & mask;
    state.set_pstate((state.pstate - mask) | new);
}

/// The bits that mirror external debug (ERR, TXU, RXO, TXfull, RXfull) can be set only while the OS lock
/// is held, for a debugger's save and restore.
fn store_mdscr(state: &mut CpuState, value: u64) {
    const MIRRORS: u64 = 1 << 30 | 1 << 29 | 1 << 27 | 1 << 26 | mdscr::HDE | mdscr::ERR;
    const PLAIN: u64 = 3 << 22 | mdscr::MDE | mdscr::KDE | mdscr::TDCC | mdscr::SS;
    let locked = state.sys[SysReg::OslsrEl1] & oslsr::OSLK != 0;
    let mask = if locked { PLAIN | MIRRORS } else { PLAIN };
    let old = state.sys[SysReg::MdscrEl1];
    state.sys[SysReg::MdscrEl1] = old & !mask & MIRRORS | value & mask;
}

/// Folds (feature, bits) pairs into the mask of bits that exist.
fn with_features(model: &CpuModel, base: u64, optional: &[(Feature, u64)]) -> u64 {
    optional.iter().filter(|(feature, _)| model.has(*feature)).fold(base, |mask, (_, bits)| mask | bits)
}

fn sctlr_mask(model: &CpuModel) -> u64 {
    use sctlr::*;
    let base = M | C | A | SA | SA0 | UMA | I | DZE | UCT | NTWI | NTWE | WXN | UCI;
    let optional = [
        (Feature::Lse2, NAA),
        (Feature::SpecRes, EN_RCTX),
        (Feature::Exs, EOS | EIS),
        (Feature::PAuth, EN_IA | EN_IB | EN_DA | EN_DB),
        (Feature::Csv2_2, TSCXT),
        (Feature::Iesb, IESB),
        (Feature::Pan, SPAN),
        (Feature::BigEnd, EE),
        (Feature::BigEndEl0, E0E),
        (Feature::Lsmaoc, NTLSMD | LSMAOE),
        (Feature::Cmow, CMOW),
        (Feature::Mops, MSC_EN),
        (Feature::Bti, BT0 | BT1),
        (Feature::Mte2, ITFSB | TCF0 | TCF | ATA0 | ATA),
        (Feature::Ssbs, DSSBS),
        (Feature::Pan3, EPAN),
        (Feature::Tidcp1, TIDCP),
    ];
    with_features(model, base, &optional)
}

fn tcr_mask(model: &CpuModel) -> u64 {
    use tcr::*;
    let optional = [
        (Feature::Haf, HA),
        (Feature::Hafdbs, HD),
        (Feature::Hpds, HPD0 | HPD1),
        (Feature::Hpds2, HWU),
        (Feature::PAuth, TBID0 | TBID1),
        (Feature::Sve, NFD),
        (Feature::E0pd, E0PD0 | E0PD1),
        (Feature::Mte2, TCMA),
        (Feature::Lpa2, DS),
    ];
    with_features(model, BASE, &optional)
}

fn cpacr_mask(model: &CpuModel) -> u64 {
    with_features(
        model,
        0,
        &[(Feature::Fp, cpacr::FPEN), (Feature::Sve, cpacr::ZEN), (Feature::Sme, cpacr::SMEN)],
    )
}

fn cntkctl_mask(model: &CpuModel) -> u64 {
    use cntkctl::*;
    let base = EL0PCTEN | EL0VCTEN | EVNTEN | EVNTDIR | EVNTI | EL0VTEN | EL0PTEN;
    with_features(model, base, &[(Feature::Ecv, EVNTIS)])
}

const FPSR_MASK: u64 = fpsr::CUMULATIVE | fpsr::QC;

fn fpcr_mask(model: &CpuModel) -> u64 {
    use fpcr::*;
    let optional = [(Feature::Fp16, FZ16), (Feature::Afp, FIZ | AH | NEP), (Feature::Ebf16, EBF)];
    with_features(model, RMODE | FZ | DN | AHP, &optional)
}

/// The bits of FPCR and of FPSR that exist.
pub(super) fn fp_masks(model: &CpuModel) -> (u64, u64) {
    (fpcr_mask(model), FPSR_MASK)
}

/// MSR (immediate): sets a field of PSTATE. `op1` and `op2` select it, `imm` is CRm.
///
/// # Errors
/// Undefined, or a trap of DAIFSet and DAIFClr at EL0 (SCTLR_EL1.UMA).
pub fn pstate_write(
    state: &mut CpuState,
    model: &CpuModel,
    op1: u32,
    op2: u32,
    imm: u32,
) -> Result<Effects, Exception> {
    let (reg, feature, el) = match (op1, op2) {
        (0, 3) => (Pstate::UAO, Feature::Uao, 1),
        (0, 4) => (Pstate::PAN, Feature::Pan, 1),
        (0, 5) => (Pstate::SP, Feature::Base, 1),
        (3, 1) => (Pstate::SSBS, Feature::Ssbs2, 0),
        (3, 2) => (Pstate::DIT, Feature::Dit, 0),
        (3, 4) => (Pstate::TCO, Feature::Mte, 0),
        (3, 6 | 7) => return daif_write(state, op1, op2, imm),
        _ => return Err(Exception::undefined()),
    };
    if !model.has(feature) || state.el() < el {
        return Err(Exception::undefined());
    }
    let mut new = state.pstate;
    new.set(reg, imm & 1 != 0);
    state.set_pstate(new);
    Ok(Effects::PSTATE)
}

/// DAIFSet (op2 = 6) and DAIFClr (op2 = 7).
fn daif_write(state: &mut CpuState, op1: u32, op2: u32, imm: u32) -> Result<Effects, Exception> {
    if state.el() == 0 && state.sys[SysReg::SctlrEl1] & sctlr::UMA == 0 {
        return Err(Exception::pstate_trap(op1, op2, imm));
    }
    let bits = Pstate::from_bits_retain((imm & 0xf) << 6);
    state.pstate.set(bits, op2 == 6);
    Ok(Effects::PSTATE | Effects::INTERRUPTS)
}
