//! The executor under test: lifts run by the IR interpreter.

use armlet_accel_jit::ir::interp::{Exit, Machine, SystemOp, run};
use armlet_accel_jit::ir::{Builder, Hint, Inst, Mem, Order, Raise};
use armlet_accel_jit::lift::{Flow, LiftContext, lift};
use armlet_arm::fp::{FPCR_AH, FPCR_FIZ, FPCR_NEP};
use armlet_arm::{CpuState, Feature, FeatureSet};

use crate::record::{self, Record};
use crate::{Case, program};

/// An access that did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not in the case's memory or code: the address, its tag removed.
    Address(u64),
    /// Misaligned where alignment is needed.
    Alignment,
    /// A system register or operation that these tests leave out.
    System,
}

/// FPCR and FPSR, the system registers that instructions here may reach.
const FPCR: u16 = armlet_arm::sysreg::encoding(3, 3, 4, 4, 0);
const FPSR: u16 = armlet_arm::sysreg::encoding(3, 3, 4, 4, 1);

/// What a program at EL0 sees of memory: its own record's memory, and its code to read.
pub struct Memory<'a> {
    /// Address of `bytes`.
    pub at: u64,
    /// The record's memory.
    pub bytes: &'a mut [u8],
    /// The code image from [`program::CODE`] on, or what is known of it.
    pub code: &'a [u8],
    /// Address of `code`.
    pub code_at: u64,
}

/// Top-byte-ignore: the address without its tag.
fn untagged(address: u64) -> u64 {
    ((address << 8) as i64 >> 8) as u64
}

fn inside(at: u64, len: usize, address: u64, bytes: usize) -> Option<usize> {
    let offset = address.checked_sub(at)?;
    (offset.checked_add(bytes as u64)? <= len as u64).then_some(offset as usize)
}

fn aligned(address: u64, bytes: usize, mem: Mem) -> Result<(), Fault> {
    if mem.order != Order::Plain && !address.is_multiple_of(bytes as u64) {
        Err(Fault::Alignment)
    } else {
        Ok(())
    }
}

impl Machine for Memory<'_> {
    type Fault = Fault;

    fn read(&mut self, address: u64, buf: &mut [u8], mem: Mem) -> Result<(), Fault> {
        let at = untagged(address);
        aligned(at, buf.len(), mem)?;
        let from = if let Some(o) = inside(self.at, self.bytes.len(), at, buf.len()) {
            &self.bytes[o..o + buf.len()]
        } else if let Some(o) = inside(self.code_at, self.code.len(), at, buf.len()) {
            &self.code[o..o + buf.len()]
        } else {
            return Err(Fault::Address(at));
        };
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write(&mut self, address: u64, data: &[u8], mem: Mem) -> Result<(), Fault> {
        let at = untagged(address);
        aligned(at, data.len(), mem)?;
        let o = inside(self.at, self.bytes.len(), at, data.len()).ok_or(Fault::Address(at))?;
        self.bytes[o..o + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn system(&mut self, cpu: &mut CpuState, op: SystemOp) -> Result<u64, Fault> {
        match op {
            SystemOp::Read { enc: FPCR } => Ok(cpu.fp.fpcr.into()),
            SystemOp::Read { enc: FPSR } => Ok(cpu.fp.fpsr.into()),
            SystemOp::Write { enc: FPCR, value } => {
                cpu.fp.fpcr = value as u32 & 0x07c8_0000;
                Ok(0)
            }
            SystemOp::Write { enc: FPSR, value } => {
                cpu.fp.fpsr = value as u32 & 0x0800_009f;
                Ok(0)
            }
            _ => Err(Fault::System),
        }
    }
}

/// Control bits that inline floating point does not handle: AHP, DN, FZ, FZ16.
pub const FPCR_SPECIAL: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 19;
/// The same of FEAT_AFP: NEP, AH, FIZ.
pub const FPCR_ALTERNATE: u32 = FPCR_NEP | FPCR_AH | FPCR_FIZ;

/// The context of EL0 code at `pc`.
pub fn context(features: &FeatureSet, cpu: &CpuState, pc: u64) -> LiftContext {
    LiftContext {
        features: *features,
        el: 0,
        fp_enabled: true,
        fp_inline: cpu.fp.fpcr & (FPCR_SPECIAL | FPCR_ALTERNATE) == 0,
        fp_alternate: cpu.fp.fpcr & FPCR_AH != 0,
        fp_merge: cpu.fp.fpcr & FPCR_NEP != 0,
        check_sp: false,
        offset: (pc & 0xfff) as u32,
    }
}

/// Lifts and runs one instruction at `cpu.pc`.
pub fn step<M: Machine>(
    features: &FeatureSet,
    cpu: &mut CpuState,
    machine: &mut M,
    word: u32,
) -> Exit<M::Fault> {
    let pc = cpu.pc;
    let ctx = context(features, cpu, pc);
    let mut b = Builder::new();
    b.emit(Inst::Start { offset: ctx.offset as u16, word });
    if let Flow::Goto(target) = lift(&mut b, &ctx, word) {
        b.emit(Inst::Branch { target });
    }
    run(&b.finish(), pc & !0xfff, cpu, machine)
}

/// The Linux signal that ends a case.
fn signal(exit: Exit<Fault>) -> u64 {
    record::SIGNAL
        + match exit {
            Exit::Raise(Raise::Brk(_)) => 5,
            Exit::Fault(Fault::Address(_)) => 11,
            Exit::SpAlignment | Exit::Fault(Fault::Alignment) => 7,
            _ => 4,
        }
}

/// What became of a case, and why if it ended early.
pub struct Outcome {
    /// The state afterwards.
    pub record: Record,
    /// The exit that was not a branch.
    pub stopped: Option<Exit<Fault>>,
}

/// Runs case `index`. `code` is the code image from [`program::CODE`] on.
pub fn execute(features: &FeatureSet, case: &Case, index: usize, code: &[u8]) -> Outcome {
    let start = program::body_address(index);
    let mut result = case.record.clone();
    let mut cpu = case.record.to_cpu(start);
    let end = start + 4 * case.body.len() as u64;
    let mut stopped = None;
    let mut steps = 0;
    let mut bytes = std::mem::take(&mut result.memory);
    while let Some(&word) = case.body.get((cpu.pc.wrapping_sub(start) / 4) as usize) {
        let mut memory = Memory {
            at: program::record_address(index) + u64::from(record::MEMORY),
            bytes: &mut bytes,
            code,
            code_at: program::CODE,
        };
        match step(features, &mut cpu, &mut memory, word) {
            Exit::Goto | Exit::Hint(Hint::Yield | Hint::Wfe | Hint::Wfi | Hint::Sev | Hint::Sevl) => {}
            exit => {
                stopped = Some(exit);
                break;
            }
        }
        steps += 1;
        if steps > 64 {
            break;
        }
    }
    result.memory = bytes;
    result.set_cpu(&cpu);
    result.status = match stopped {
        Some(exit) => signal(exit),
        None if cpu.pc == end => record::FELL,
        None if cpu.pc == end + program::TAKEN_OFFSET => record::TAKEN,
        None => u64::MAX,
    };
    if stopped.is_some() {
        result.pc = cpu.pc;
    }
    Outcome { record: result, stopped }
}

/// True if the model has the encoding of `word` but no lift does more than raise Undefined for it.
pub fn is_missing(features: &FeatureSet, word: u32) -> bool {
    let Some(enc) = armlet_arm::decode(word) else { return false };
    if !features.has(enc.feature()) || enc.feature() == Feature::Absent {
        return false;
    }
    let cpu = CpuState::new(0);
    let ctx = LiftContext { el: 1, ..context(features, &cpu, 0) };
    let mut b = Builder::new();
    lift(&mut b, &ctx, word);
    matches!(b.block().insts.last(), Some(Inst::Raise(Raise::Undefined)))
}
