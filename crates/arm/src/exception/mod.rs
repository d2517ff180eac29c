//! Exceptions: what they are ([`Exception`]), how they are taken ([`take`], [`take_irq`], [`take_fiq`],
//! [`take_serror`]) and returned from ([`eret`]). Arm ARM D1.3 and D24.2.37 (ESR_EL1).

mod entry;
mod exit;

#[cfg(test)]
mod tests;

pub use entry::{entered, take, take_fiq, take_irq, take_serror};
pub use exit::{eret, eret_to};

use crate::mmu::Fault;

/// ESR_ELx.EC, without the difference between "from a lower" and "from the same exception level".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExceptionClass {
    /// Unknown reason: undefined instructions.
    Unknown = 0x00,
    /// Trapped WFI, WFE, WFIT or WFET.
    WaitFor = 0x01,
    /// Access to floating point, Advanced SIMD or SVE trapped by CPACR_EL1.FPEN.
    FpAccess = 0x07,
    /// Branch target exception.
    BranchTarget = 0x0d,
    /// Illegal Execution state.
    IllegalState = 0x0e,
    /// SVC.
    Svc = 0x15,
    /// HVC.
    Hvc = 0x16,
    /// SMC.
    Smc = 0x17,
    /// Trapped MSR, MRS or system instruction.
    SystemRegister = 0x18,
    /// Access to SVE trapped by CPACR_EL1.ZEN.
    SveAccess = 0x19,
    /// Pointer authentication failure.
    PacFail = 0x1c,
    /// Instruction abort.
    InstructionAbort = 0x20,
    /// PC alignment fault.
    PcAlignment = 0x22,
    /// Data abort.
    DataAbort = 0x24,
    /// SP alignment fault.
    SpAlignment = 0x26,
    /// Memory copy or memory set (FEAT_MOPS).
    MemoryOperation = 0x27,
    /// Trapped floating-point exception.
    FpException = 0x2c,
    /// SError interrupt.
    SError = 0x2f,
    /// Hardware breakpoint.
    Breakpoint = 0x30,
    /// Software step.
    SoftwareStep = 0x32,
    /// Watchpoint.
    Watchpoint = 0x34,
    /// BRK.
    Brk = 0x3c,
}

impl ExceptionClass {
    /// ESR_ELx.EC when taken from the same exception level (`same`) or a lower one.
    pub const fn ec(self, same: bool) -> u8 {
        let base = self as u8;
        match self {
            Self::InstructionAbort
            | Self::DataAbort
            | Self::Breakpoint
            | Self::SoftwareStep
            | Self::Watchpoint => base + same as u8,
            _ => base,
        }
    }
}

/// Where the exception returns to (the preferred return address).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnTo {
    /// The instruction at PC, which was not executed.
    Instruction,
    /// The instruction after the one at PC.
    Next,
    /// This address.
    Address(u64),
}

/// A synchronous exception.
///
/// When it is taken, `CpuState::pc` is the address of the instruction that caused it; the exception knows
/// itself whether it returns there or behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Class.
    pub class: ExceptionClass,
    /// ESR_ELx.ISS, 25 bits.
    pub iss: u32,
    /// What goes to FAR_ELx; `None` leaves that register alone.
    pub far: Option<u64>,
    /// Preferred return address.
    pub return_to: ReturnTo,
}

/// ISS bits CV and COND of an instruction trapped from AArch64.
const CV_COND: u32 = 1 << 24 | 0xe << 20;
/// Debug exception status code of breakpoints, steps and watchpoints.
const DEBUG_STATUS: u32 = 0x22;
/// ISS.FnV: FAR is not valid.
const FNV: u32 = 1 << 10;
/// ISS.CM: a cache maintenance or address translation instruction.
const CM: u32 = 1 << 8;
/// ISS.WnR: a write.
const WNR: u32 = 1 << 6;

impl Exception {
    const fn new(class: ExceptionClass, iss: u32) -> Self {
        Self { class, iss: iss & 0x1ff_ffff, far: None, return_to: ReturnTo::Instruction }
    }

    const fn with_far(self, va: u64) -> Self {
        Self { far: Some(va), ..self }
    }

    /// Undefined instruction (EC 0).
    pub const fn undefined() -> Self {
        Self::new(ExceptionClass::Unknown, 0)
    }

    /// `SVC #imm`.
    #[inline]
    pub const fn svc(imm: u16) -> Self {
        Self { return_to: ReturnTo::Next, ..Self::new(ExceptionClass::Svc, imm as u32) }
    }

    /// `HVC #imm`, for a PE that has EL2.
    pub const fn hvc(imm: u16) -> Self {
        Self { return_to: ReturnTo::Next, ..Self::new(ExceptionClass::Hvc, imm as u32) }
    }

    /// `SMC #imm`, for a PE that has EL3.
    pub const fn smc(imm: u16) -> Self {
        Self { return_to: ReturnTo::Next, ..Self::new(ExceptionClass::Smc, imm as u32) }
    }

    /// `BRK #imm`. Returns to the BRK itself.
    pub const fn brk(imm: u16) -> Self {
        Self::new(ExceptionClass::Brk, imm as u32)
    }

    /// Floating-point or SIMD instruction (or access to FPCR, FPSR) disabled by CPACR_EL1.FPEN.
    pub const fn fp_access_trap() -> Self {
        Self::new(ExceptionClass::FpAccess, CV_COND)
    }

    /// Trapped MSR, MRS or system instruction. `enc` is op0:op1:CRn:CRm:op2 as in
    /// [`encoding`](crate::sysreg::encoding), `rt` the register number (31 for MSR immediate).
    pub const fn system_register_trap(enc: u16, rt: u32, read: bool) -> Self {
        Self::system_trap((enc as u32) >> 14, enc as u32 & 0x3fff, rt, read)
    }

    /// Trapped system instruction (SYS, op0 = 1), operands as in
    /// [`encoding`](crate::sysreg::encoding) without op0.
    pub const fn system_instruction_trap(op: u16, rt: u32) -> Self {
        Self::system_trap(1, op as u32 & 0x3fff, rt, false)
    }

    /// Trapped MSR (immediate): op0 = 0, CRn = 4.
    pub const fn pstate_trap(op1: u32, op2: u32, imm: u32) -> Self {
        Self::system_trap(0, (op1 & 7) << 11 | 4 << 7 | (imm & 0xf) << 3 | (op2 & 7), 31, false)
    }

    const fn system_trap(op0: u32, rest: u32, rt: u32, read: bool) -> Self {
        let (op1, crn, crm, op2) = (rest >> 11 & 7, rest >> 7 & 0xf, rest >> 3 & 0xf, rest & 7);
        let iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | (rt & 0x1f) << 5 | crm << 1 | read as u32;
        Self::new(ExceptionClass::SystemRegister, iss)
    }

    /// WFI (`event` false) or WFE trapped by SCTLR_EL1.nTWI or nTWE.
    pub const fn wf_trap(event: bool) -> Self {
        Self::new(ExceptionClass::WaitFor, CV_COND | event as u32)
    }

    /// WFIT (`event` false) or WFET of register `rt` trapped by SCTLR_EL1.nTWI or nTWE.
    pub const fn wft_trap(event: bool, rt: u32) -> Self {
        Self::new(ExceptionClass::WaitFor, CV_COND | (rt & 0x1f) << 5 | 1 << 2 | 2 | event as u32)
    }

    /// Illegal Execution state: an instruction was to be executed with PSTATE.IL set.
    pub const fn illegal_state() -> Self {
        Self::new(ExceptionClass::IllegalState, 0)
    }

    /// Branch target exception; `btype` is PSTATE.BTYPE.
    pub const fn branch_target(btype: u32) -> Self {
        Self::new(ExceptionClass::BranchTarget, btype & 3)
    }

    /// Pointer authentication failed, with a key for data or for instructions, the second one (B) or the first.
    pub const fn pac_fail(data: bool, b: bool) -> Self {
        Self::new(ExceptionClass::PacFail, (data as u32) << 1 | b as u32)
    }

    /// Registers that do not fit a memory copy or memory set instruction; `iss` tells which and how.
    pub const fn memory_operation(iss: u32) -> Self {
        Self::new(ExceptionClass::MemoryOperation, iss)
    }

    /// Misaligned PC: to be taken with that PC in the state.
    pub const fn pc_alignment(pc: u64) -> Self {
        Self::new(ExceptionClass::PcAlignment, 0).with_far(pc)
    }

    /// Misaligned SP used as a base (SCTLR_EL1.SA or SA0).
    pub const fn sp_alignment() -> Self {
        Self::new(ExceptionClass::SpAlignment, 0)
    }

    /// Instruction fetch from `va` failed.
    pub const fn instruction_abort(fault: Fault, va: u64) -> Self {
        Self::new(ExceptionClass::InstructionAbort, fault.status_code()).with_far(va)
    }

    /// Data access to `va` failed. An instruction that both reads and writes counts as a write only if
    /// a read would have been allowed.
    pub const fn data_abort(fault: Fault, va: u64, write: bool) -> Self {
        let wnr = if write { WNR } else { 0 };
        Self::new(ExceptionClass::DataAbort, wnr | fault.status_code()).with_far(va)
    }

    /// Cache maintenance or address translation instruction on `va` failed.
    pub const fn maintenance_abort(fault: Fault, va: u64) -> Self {
        Self::new(ExceptionClass::DataAbort, CM | WNR | fault.status_code()).with_far(va)
    }

    /// Data abort whose address is not known (asynchronously detected external abort).
    pub const fn data_abort_without_address(fault: Fault, write: bool) -> Self {
        let wnr = if write { WNR } else { 0 };
        Self::new(ExceptionClass::DataAbort, FNV | wnr | fault.status_code())
    }

    /// Hardware breakpoint at PC.
    pub const fn breakpoint() -> Self {
        Self::new(ExceptionClass::Breakpoint, DEBUG_STATUS)
    }

    /// Software step: before the instruction at PC. `stepped` tells whether the instruction that was stepped was a
    /// load-exclusive; `None` if none was.
    pub const fn software_step(stepped: Option<bool>) -> Self {
        let iss = match stepped {
            Some(exclusive) => 1 << 24 | (exclusive as u32) << 6,
            None => 0,
        };
        Self::new(ExceptionClass::SoftwareStep, iss | DEBUG_STATUS)
    }

    /// Watchpoint hit by an access to `va`; `maintenance` for DC instructions.
    pub const fn watchpoint(va: u64, write: bool, maintenance: bool) -> Self {
        let iss = if write { WNR } else { 0 } | if maintenance { CM } else { 0 } | DEBUG_STATUS;
        Self::new(ExceptionClass::Watchpoint, iss).with_far(va)
    }

    /// The same exception with another preferred return address.
    pub const fn returning_to(self, address: u64) -> Self {
        Self { return_to: ReturnTo::Address(address), ..self }
    }

    /// ESR_ELx when taken from the same exception level (`same`) or a lower one. IL is always set: all
    /// A64 instructions have 32 bits.
    #[inline]
    pub const fn syndrome(&self, same: bool) -> u64 {
        (self.class.ec(same) as u64) << 26 | 1 << 25 | self.iss as u64
    }
}
