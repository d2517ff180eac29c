//! MRS: rules of access, and values.

use crate::exception::Exception;
use crate::feature::{Feature, FeatureSet};
use crate::id::IdReg;
use crate::model::CpuModel;
use crate::spec::{cntkctl, cpacr, mdscr, sctlr};
use crate::state::{CpuState, Pstate};
use crate::sysreg::{Access, ExternalRegisters, Kind, SysReg, lookup};

/// What an encoding means in a given model.
pub(super) enum Target {
    /// A register of the table.
    Register(SysReg),
    /// A register of the ID space.
    Id(IdReg),
    /// An implementation-defined register: reads as zero, ignores writes.
    ImplementationDefined,
    /// Nothing.
    Unallocated,
}

/// Reads a system register (MRS). `enc` as in [`encoding`](crate::sysreg::encoding); `rt` only goes to the
/// syndrome of a trap. NZCV in `state.pstate` must be valid.
///
/// # Errors
/// The exception that the access causes.
pub fn read(
    state: &mut CpuState,
    model: &CpuModel,
    ext: &dyn ExternalRegisters,
    enc: u16,
    rt: u32,
) -> Result<u64, Exception> {
    let el = state.el();
    let result = match target(model, enc) {
        Target::Register(reg) => match check(state, reg, enc, rt, true) {
            Ok(()) => return Ok(value(state, model, ext, reg)),
            refused => refused,
        },
        Target::Id(id) if el > 0 => return Ok(model.ids().get(id)),
        Target::ImplementationDefined if el > 0 => return Ok(0),
        _ => Err(Exception::undefined()),
    };
    // FEAT_IDST: EL0 sees a trap rather than an Undefined exception in the whole ID space.
    if el == 0 && is_feature_id_space(enc) && model.has(Feature::Idst) {
        return Err(Exception::system_register_trap(enc, rt, true));
    }
    result.map(|()| 0)
}

/// op0 = 3, op1 = 0, 1 or 3, CRn = 0, CRm = 0 to 7.
fn is_feature_id_space(enc: u16) -> bool {
    matches!(enc >> 11, 0o30 | 0o31 | 0o33) && enc >> 6 & 0x1f == 0
}

/// Finds what `enc` is in this model.
pub(super) fn target(model: &CpuModel, enc: u16) -> Target {
    if let Some(reg) = lookup(enc) {
        return if exists(model, reg) { Target::Register(reg) } else { Target::Unallocated };
    }
    let (op0_op1, crn, crm, op2) = (enc >> 11, enc >> 7 & 0xf, enc >> 3 & 0xf, enc & 7);
    let id_space = op0_op1 == 3 << 3 && crn == 0 && matches!(crm, 1..8);
    let implementation_defined = matches!(op0_op1, 0o30 | 0o31) && matches!(crn, 11 | 15);
    if id_space {
        Target::Id(IdReg::new(crm as u8, op2 as u8))
    } else if implementation_defined {
        Target::ImplementationDefined
    } else {
        Target::Unallocated
    }
}

/// Whether the model has the register.
pub(super) fn exists(model: &CpuModel, reg: SysReg) -> bool {
    if !model.has(reg.feature()) {
        return false;
    }
    let enc = reg.encoding();
    // DBGBVR, DBGBCR, DBGWVR and DBGWCR: op0 = 2, op1 = 0, CRn = 0, CRm = the number, op2 = 4 to 7.
    if enc >> 7 == 2 << 7 {
        let number = usize::from(enc >> 3 & 0xf);
        let (breakpoints, watchpoints) = model.debug_resources();
        return match enc & 7 {
            4 | 5 => number < breakpoints,
            6 | 7 => number < watchpoints,
            _ => true,
        };
    }
    true
}

/// True if CPACR_EL1.FPEN traps floating-point and SIMD instructions at the current exception level.
#[inline]
pub fn fp_access_trapped(state: &CpuState) -> bool {
    fp_access_trapped_at(state, state.el())
}

/// The same at exception level `el`.
pub fn fp_access_trapped_at(state: &CpuState, el: usize) -> bool {
    match (state.sys[SysReg::CpacrEl1] & cpacr::FPEN) >> cpacr::FPEN_SHIFT {
        0b11 => false,
        0b01 => el == 0,
        _ => el <= 1,
    }
}

/// The register that has encoding `enc` with these features, if it is one of [`ExternalRegisters`] that EL1 may read (or
/// write) whatever the state is.
pub fn external(features: &FeatureSet, enc: u16, read: bool) -> Option<SysReg> {
    let reg = lookup(enc).filter(|reg| reg.kind() == Kind::External && features.has(reg.feature()))?;
    allows(reg.access(), false, read).then_some(reg)
}

/// The register that has encoding `enc` with these features, if all that MRS at EL1 does is to read it from
/// [`SysRegs`](crate::sysreg::SysRegs).
pub fn stored(features: &FeatureSet, enc: u16) -> Option<SysReg> {
    // Whether a debug register is there depends on its number as well.
    let debug = enc >> 14 == 2;
    let reg = lookup(enc).filter(|reg| !debug && features.has(reg.feature()))?;
    (matches!(reg.kind(), Kind::Store(_)) && allows(reg.access(), false, true)).then_some(reg)
}

/// The right to read (or write) by the exception level alone.
fn allows(access: Access, el0: bool, read: bool) -> bool {
    match access {
        Access::Rw1 => !el0,
        Access::Ro1 => !el0 && read,
        Access::Wo1 => !el0 && !read,
        Access::Rw1Ro0 => !el0 || read,
        Access::Ro0 => read,
        Access::Rw0 => true,
    }
}

/// Checks the right to read (or write) `reg`.
pub(super) fn check(state: &CpuState, reg: SysReg, enc: u16, rt: u32, read: bool) -> Result<(), Exception> {
    let el0 = state.el() == 0;
    if !allows(reg.access(), el0, read) {
        return Err(Exception::undefined());
    }
    match reg {
        SysReg::Fpcr | SysReg::Fpsr if fp_access_trapped(state) => Err(Exception::fp_access_trap()),
        // With SPSel clear, SP_EL0 is the current stack pointer and has no name.
        SysReg::SpEl0 if !state.pstate.contains(Pstate::SP) => Err(Exception::undefined()),
        _ if el0 && trapped_at_el0(state, reg) => Err(Exception::system_register_trap(enc, rt, read)),
        _ => Ok(()),
    }
}

/// Accesses from EL0 that EL1 has asked to see.
fn trapped_at_el0(state: &CpuState, reg: SysReg) -> bool {
    let control = state.sys[SysReg::SctlrEl1];
    let timer = state.sys[SysReg::CntkctlEl1];
    match reg {
        SysReg::CtrEl0 => control & sctlr::UCT == 0,
        SysReg::Daif => control & sctlr::UMA == 0,
        SysReg::ScxtnumEl0 => control & sctlr::TSCXT != 0,
        SysReg::CntfrqEl0 => timer & (cntkctl::EL0PCTEN | cntkctl::EL0VCTEN) == 0,
        SysReg::CntpctEl0 | SysReg::CntpctssEl0 => timer & cntkctl::EL0PCTEN == 0,
        SysReg::CntvctEl0 | SysReg::CntvctssEl0 => timer & cntkctl::EL0VCTEN == 0,
        SysReg::CntpTvalEl0 | SysReg::CntpCtlEl0 | SysReg::CntpCvalEl0 => timer & cntkctl::EL0PTEN == 0,
        SysReg::CntvTvalEl0 | SysReg::CntvCtlEl0 | SysReg::CntvCvalEl0 => timer & cntkctl::EL0VTEN == 0,
        SysReg::MdccsrEl0 | SysReg::DbgdtrEl0 | SysReg::DbgdtrrxEl0 => {
            state.sys[SysReg::MdscrEl1] & mdscr::TDCC != 0
        }
        _ => false,
    }
}

fn value(state: &mut CpuState, model: &CpuModel, ext: &dyn ExternalRegisters, reg: SysReg) -> u64 {
    if matches!(reg, SysReg::Rndr | SysReg::Rndrrs) {
        // Success clears NZCV.
        state.pstate -= Pstate::NZCV;
    }
    plain_value(state, model, ext, reg)
}

/// What a register holds; the state stays as it is.
pub(super) fn plain_value(
    state: &CpuState,
    model: &CpuModel,
    ext: &dyn ExternalRegisters,
    reg: SysReg,
) -> u64 {
    match reg.kind() {
        Kind::Store(_) => state.sys[reg],
        Kind::Zero => 0,
        Kind::Model => model_value(model, reg),
        Kind::External => ext.read(state.index as usize, reg),
        Kind::Special => special_value(state, model, ext, reg),
    }
}

fn model_value(model: &CpuModel, reg: SysReg) -> u64 {
    match reg {
        SysReg::MidrEl1 => model.midr(),
        SysReg::RevidrEl1 => model.revidr(),
        SysReg::ClidrEl1 => model.clidr(),
        SysReg::CtrEl0 => model.ctr(),
        _ => 0,
    }
}

fn special_value(state: &CpuState, model: &CpuModel, ext: &dyn ExternalRegisters, reg: SysReg) -> u64 {
    let pstate = |bits: Pstate| u64::from((state.pstate & bits).bits());
    match reg {
        SysReg::Nzcv => pstate(Pstate::NZCV),
        SysReg::Daif => pstate(Pstate::DAIF),
        SysReg::Pan => pstate(Pstate::PAN),
        SysReg::Uao => pstate(Pstate::UAO),
        SysReg::Dit => pstate(Pstate::DIT),
        SysReg::Ssbs => pstate(Pstate::SSBS),
        SysReg::Tco => pstate(Pstate::TCO),
        SysReg::SpSel => pstate(Pstate::SP),
        SysReg::CurrentEl => (state.el() as u64) << 2,
        SysReg::SpEl0 => state.sp_el[0],
        SysReg::Fpcr => u64::from(state.fp.fpcr),
        SysReg::Fpsr => u64::from(state.fp.fpsr),
        SysReg::CcsidrEl1 => model.ccsidr(state.sys[SysReg::CsselrEl1]),
        SysReg::DczidEl0 => model.dczid() | u64::from(zva_prohibited(state)) << 4,
        SysReg::DbgclaimsetEl1 => 0xff,
        SysReg::DbgclaimclrEl1 => state.sys[SysReg::DbgclaimsetEl1],
        SysReg::Rndr | SysReg::Rndrrs => ext.read(state.index as usize, reg),
        _ => state.sys[reg],
    }
}

/// DCZID_EL0.DZP: DC ZVA would be trapped here.
fn zva_prohibited(state: &CpuState) -> bool {
    state.el() == 0 && state.sys[SysReg::SctlrEl1] & sctlr::DZE == 0
}
