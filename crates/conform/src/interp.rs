//! The first executor under test: lifts run by the IR interpreter.

use armlet_accel_jit::ir::interp::{Exit, Machine, SystemOp, run};
use armlet_accel_jit::ir::{Block, Builder, Hint, Inst, Mem, Raise};
use armlet_accel_jit::lift::{Flow, LiftContext, lift};
use armlet_arm::fp::{FPCR_AH, FPCR_AHP, FPCR_FIZ, FPCR_FZ16, FPCR_NEP};
use armlet_arm::{CpuState, Feature, FeatureSet, Pstate, sysreg};

use crate::generate::fpcr_mask;
use crate::record::{self, Record, untagged};
use crate::{Case, keys, program};

/// An access that did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not in the case's memory or code, or not for this: the first address that is not, its tag removed.
    Address(u64),
    /// Misaligned where alignment is needed.
    Alignment,
    /// A system register or operation that is UNDEFINED or trapped at EL0.
    System,
    /// A pointer's code is wrong.
    Pointer,
    /// A system register or operation that these tests leave out.
    Unknown,
}

/// System registers that instructions here may reach.
const FPCR: u16 = sysreg::encoding(3, 3, 4, 4, 0);
const FPSR: u16 = sysreg::encoding(3, 3, 4, 4, 1);
const DIT: u16 = sysreg::encoding(3, 3, 4, 2, 5);
const SSBS: u16 = sysreg::encoding(3, 3, 4, 2, 6);

/// Cache maintenance by address, with nothing to be seen of it: IC IVAU, DC CVAC, CVAU, CIVAC, CVAP, CVADP.
const MAINTENANCE: [u16; 6] = {
    const fn sys(crm: u16) -> u16 {
        sysreg::encoding(1, 3, 7, crm, 1)
    }
    [sys(5), sys(10), sys(11), sys(14), sys(12), sys(13)]
};

/// What a program at EL0 sees of memory: its own record's memory, its code to read, and the edges.
pub struct Memory<'a> {
    /// Address of `bytes`.
    pub at: u64,
    /// The record's memory.
    pub bytes: &'a mut [u8],
    /// The code image from [`program::CODE`] on, or what is known of it.
    pub code: &'a [u8],
    /// What the CPU has.
    pub features: &'a FeatureSet,
    /// What stores replaced, newest last: offset and bytes.
    pub journal: Option<Vec<(usize, Vec<u8>)>>,
}

/// Where a byte is.
enum Home {
    Own(usize),
    Code(usize),
    EdgeRead(u64),
    EdgeWrite,
    Nowhere,
}

impl Memory<'_> {
    fn home(&self, at: u64) -> Home {
        let inside = |from: u64, len: u64| at.checked_sub(from).filter(|&o| o < len);
        if let Some(o) = inside(self.at, self.bytes.len() as u64) {
            Home::Own(o as usize)
        } else if let Some(o) = inside(program::CODE, self.code.len() as u64) {
            Home::Code(o as usize)
        } else if let Some(o) = inside(program::EDGE_READ, program::PAGE) {
            Home::EdgeRead(o)
        } else if inside(program::EDGE_WRITE, program::PAGE).is_some() {
            Home::EdgeWrite
        } else {
            Home::Nowhere
        }
    }

    fn aligned(&self, address: u64, bytes: usize, mem: Mem) -> Result<(), Fault> {
        let lse2 = self.features.has(Feature::Lse2);
        if mem.may_be_at(address, bytes as u64, lse2) { Ok(()) } else { Err(Fault::Alignment) }
    }
}

impl Machine for Memory<'_> {
    type Fault = Fault;

    fn read(&mut self, address: u64, buf: &mut [u8], mem: Mem) -> Result<(), Fault> {
        let at = untagged(address);
        self.aligned(at, buf.len(), mem)?;
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = at.wrapping_add(i as u64);
            *byte = match self.home(at) {
                Home::Own(o) => self.bytes[o],
                Home::Code(o) => self.code[o],
                Home::EdgeRead(o) => program::edge_byte(o),
                // Whatever others have stored there.
                Home::EdgeWrite => return Err(Fault::Unknown),
                Home::Nowhere => return Err(Fault::Address(at)),
            };
        }
        Ok(())
    }

    fn write(&mut self, address: u64, data: &[u8], mem: Mem) -> Result<(), Fault> {
        let at = untagged(address);
        self.aligned(at, data.len(), mem)?;
        for i in 0..data.len() as u64 {
            if !matches!(self.home(at.wrapping_add(i)), Home::Own(_) | Home::EdgeWrite) {
                return Err(Fault::Address(at.wrapping_add(i)));
            }
        }
        if let Home::Own(o) = self.home(at) {
            let place = &mut self.bytes[o..o + data.len()];
            if let Some(journal) = &mut self.journal {
                journal.push((o, place.to_vec()));
            }
            place.copy_from_slice(data);
        }
        Ok(())
    }

    fn system(&mut self, cpu: &mut CpuState, op: SystemOp) -> Result<u64, Fault> {
        let mut flag = |flag: Pstate, value: bool| {
            cpu.pstate.set(flag, value);
            Ok(0)
        };
        match op {
            SystemOp::Read { enc: FPCR } => Ok(cpu.fp.fpcr.into()),
            SystemOp::Read { enc: FPSR } => Ok(cpu.fp.fpsr.into()),
            SystemOp::Write { enc: FPCR, value } => {
                cpu.fp.fpcr = value as u32 & fpcr_mask(self.features);
                Ok(0)
            }
            SystemOp::Write { enc: FPSR, value } => {
                cpu.fp.fpsr = value as u32 & 0x0800_009f;
                Ok(0)
            }
            SystemOp::Sys { enc, value } if MAINTENANCE.contains(&enc) => match self.home(untagged(value)) {
                // Whether that fails is the implementation's choice.
                Home::Nowhere => Err(Fault::Unknown),
                _ => Ok(0),
            },
            SystemOp::Read { enc: DIT } => Ok((cpu.pstate & Pstate::DIT).bits().into()),
            SystemOp::Read { enc: SSBS } => Ok((cpu.pstate & Pstate::SSBS).bits().into()),
            SystemOp::Write { enc: DIT, value } => flag(Pstate::DIT, value >> 24 & 1 != 0),
            SystemOp::Write { enc: SSBS, value } => flag(Pstate::SSBS, value >> 12 & 1 != 0),
            SystemOp::PstateImm { op1: 3, op2: 2, imm } => flag(Pstate::DIT, imm & 1 != 0),
            SystemOp::PstateImm { op1: 3, op2: 1, imm } => flag(Pstate::SSBS, imm & 1 != 0),
            SystemOp::Pauth { op, pointer, modifier } => {
                keys::perform(op, pointer, modifier).ok_or(Fault::Pointer)
            }
            _ => Err(Fault::Unknown),
        }
    }
}

/// Control bits that inline floating point of halves does not handle.
pub const FPCR_SPECIAL: u32 = FPCR_AHP | FPCR_FZ16;
/// Those of FEAT_AFP that none does: NEP, AH, FIZ.
pub const FPCR_ALTERNATE: u32 = FPCR_NEP | FPCR_AH | FPCR_FIZ;

/// The context of EL0 code at `pc`.
pub fn context(features: &FeatureSet, cpu: &CpuState, pc: u64) -> LiftContext {
    LiftContext {
        features: *features,
        el: 0,
        fp_enabled: true,
        fp_inline: cpu.fp.fpcr & FPCR_ALTERNATE == 0,
        half_inline: cpu.fp.fpcr & FPCR_SPECIAL == 0,
        fp_alternate: cpu.fp.fpcr & FPCR_AH != 0,
        fp_merge: cpu.fp.fpcr & FPCR_NEP != 0,
        check_sp: false,
        guarded: false,
        offset: (pc & 0xfff) as u32,
    }
}

/// The IR of one instruction at `cpu.pc`.
pub fn lifted(features: &FeatureSet, cpu: &CpuState, word: u32) -> Block {
    let ctx = context(features, cpu, cpu.pc);
    let mut b = Builder::new();
    b.emit(Inst::Start { offset: ctx.offset as u16, word });
    if let Flow::Goto(target) = lift(&mut b, &ctx, word) {
        b.emit(Inst::Branch { target });
    }
    b.finish()
}

/// Lifts and runs one instruction at `cpu.pc`.
pub fn step<M: Machine>(
    features: &FeatureSet,
    cpu: &mut CpuState,
    machine: &mut M,
    word: u32,
) -> Exit<M::Fault> {
    let block = lifted(features, cpu, word);
    run(&block, cpu.pc & !0xfff, cpu, machine)
}

/// The Linux signal that ends a case.
fn signal(exit: Exit<Fault>) -> u64 {
    match exit {
        Exit::Raise(Raise::Brk(_)) => record::SIGTRAP,
        Exit::Fault(Fault::Address(_)) => record::SIGSEGV,
        Exit::SpAlignment | Exit::Fault(Fault::Alignment) => record::SIGBUS,
        _ => record::SIGILL,
    }
}

/// What became of a case, and why if it ended early.
pub struct Outcome {
    /// The state afterwards.
    pub record: Record,
    /// The exit that was not a branch.
    pub stopped: Option<Exit<Fault>>,
    /// Instructions that were begun.
    pub steps: u64,
}

/// Instructions after which a case is given up.
const MOST_STEPS: u64 = 4096;

/// True for exits after which execution goes on.
pub fn goes_on(exit: &Exit<Fault>) -> bool {
    matches!(
        exit,
        Exit::Goto
            | Exit::WaitUntil { .. }
            | Exit::Hint(Hint::Yield | Hint::Wfe | Hint::Wfi | Hint::Sev | Hint::Sevl)
    )
}

/// Runs a case. `code` is the code image from [`program::CODE`] on; `spoil` changes each block before it is run.
pub fn execute(features: &FeatureSet, case: &Case, code: &[u8], spoil: Option<fn(&mut Block)>) -> Outcome {
    let start = case.place.code;
    let mut result = case.record.clone();
    let mut cpu = case.record.to_cpu(start);
    let end = start + 4 * case.body.len() as u64;
    let mut stopped = None;
    let mut bytes = std::mem::take(&mut result.memory);
    let mut memory = Memory { at: case.place.memory(), bytes: &mut bytes, code, features, journal: None };
    let mut steps = 0;
    while steps < MOST_STEPS {
        let Some(&word) = case.body.get((cpu.pc.wrapping_sub(start) / 4) as usize) else { break };
        steps += 1;
        let mut block = lifted(features, &cpu, word);
        if let Some(spoil) = spoil {
            spoil(&mut block);
        }
        let exit = run(&block, cpu.pc & !0xfff, &mut cpu, &mut memory);
        if !goes_on(&exit) {
            stopped = Some(exit);
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
    if let Some(exit) = stopped {
        result.pc = cpu.pc;
        if let Exit::Fault(Fault::Address(at)) = exit {
            result.far = at;
        }
    }
    Outcome { record: result, stopped, steps }
}

/// The state and PC after a case of one instruction, wherever it goes.
pub fn advance(features: &FeatureSet, case: &Case, code: &[u8]) -> (Record, u64) {
    let outcome = execute(features, case, code, None);
    let mut cpu = case.record.to_cpu(case.place.code);
    let mut bytes = case.record.memory.clone();
    let mut memory = Memory { at: case.place.memory(), bytes: &mut bytes, code, features, journal: None };
    let exit = step(features, &mut cpu, &mut memory, case.body.first().copied().unwrap_or(0));
    (outcome.record, if goes_on(&exit) { cpu.pc } else { u64::MAX })
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
