//! System registers as a debugger sees them: whatever the exception level, and without side effects of reading.

use crate::id::IdReg;
use crate::model::CpuModel;
use crate::state::CpuState;
use crate::sysreg::access::{exists, plain_value};
use crate::sysreg::write::perform;
use crate::sysreg::{Access, ExternalRegisters, Kind, SysReg};

/// A register that can be inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// A register of the table.
    Register(SysReg),
    /// A register of the ID space, and its name.
    Id(IdReg, &'static str),
    /// SP_EL1, which EL1 reaches as SP only.
    SpEl1,
}

impl Inspected {
    /// The Arm ARM's name, such as `SCTLR_EL1`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register(reg) => reg.name(),
            Self::Id(_, name) => name,
            Self::SpEl1 => "SP_EL1",
        }
    }

    /// True if [`modify`] can change it.
    pub const fn writable(self) -> bool {
        match self {
            Self::SpEl1 => true,
            Self::Id(..) => false,
            Self::Register(reg) => {
                matches!(reg.access(), Access::Rw1 | Access::Rw0 | Access::Rw1Ro0)
                    && !matches!(reg.kind(), Kind::Zero | Kind::Model)
            }
        }
    }
}

/// All registers of `model` that can be read without consequences. FPCR and FPSR are not among them: they are
/// in [`CpuState::fp`].
pub fn inspectable(model: &CpuModel) -> Vec<Inspected> {
    let table = SysReg::ALL.iter().copied().filter(|&reg| exists(model, reg) && !reading_acts(reg));
    let table = table.filter(|reg| !matches!(reg, SysReg::Fpcr | SysReg::Fpsr)).map(Inspected::Register);
    let ids = IdReg::NAMED.iter().map(|&(reg, name)| Inspected::Id(reg, name));
    table.chain(ids).chain([Inspected::SpEl1]).collect()
}

/// Reading it does something, or is not possible at all.
fn reading_acts(reg: SysReg) -> bool {
    use SysReg as R;
    reg.access() == Access::Wo1 || matches!(reg, R::IccIar0El1 | R::IccIar1El1 | R::Rndr | R::Rndrrs)
}

/// What the register holds. On the vCPU's own thread, as for [`ExternalRegisters`].
pub fn inspect(state: &CpuState, model: &CpuModel, ext: &dyn ExternalRegisters, reg: Inspected) -> u64 {
    match reg {
        Inspected::Id(id, _) => model.ids().get(id),
        Inspected::SpEl1 => stack_pointer(state, 1),
        Inspected::Register(SysReg::SpEl0) => stack_pointer(state, 0),
        Inspected::Register(reg) if reading_acts(reg) => 0,
        Inspected::Register(reg) => plain_value(state, model, ext, reg),
    }
}

/// Changes the register, as MSR at EL1 would; false if it cannot be changed.
pub fn modify(
    state: &mut CpuState,
    model: &CpuModel,
    ext: &dyn ExternalRegisters,
    reg: Inspected,
    value: u64,
) -> bool {
    if !reg.writable() {
        return false;
    }
    match reg {
        Inspected::SpEl1 => set_stack_pointer(state, 1, value),
        Inspected::Register(SysReg::SpEl0) => set_stack_pointer(state, 0, value),
        Inspected::Register(reg) => perform(state, model, ext, reg, value),
        Inspected::Id(..) => {}
    }
    true
}

fn stack_pointer(state: &CpuState, el: usize) -> u64 {
    if state.sp_index() == el { state.x[31] } else { state.sp_el[el] }
}

fn set_stack_pointer(state: &mut CpuState, el: usize, value: u64) {
    state.sp_el[el] = value;
    if state.sp_index() == el {
        state.x[31] = value;
    }
}
