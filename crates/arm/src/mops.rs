//! Memory copy and memory set (FEAT_MOPS), as option A of the architecture has them: between the instructions of a
//! sequence the remaining size is negative where it counts upwards (Arm ARM C3.2.20 and the pseudocode of CPY* and
//! SET*). The first instruction of a sequence only prepares the registers, the second does everything, the third what
//! an exception may have left of it.

#[cfg(test)]
mod tests;

use crate::exception::Exception;
use crate::spec::sctlr;
use crate::state::{CpuState, Pstate};
use crate::sysreg::SysReg;

/// How memory is to be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// From the last byte down.
    pub backward: bool,
    /// Writes have EL0's permissions.
    pub write_unprivileged: bool,
    /// Reads have EL0's permissions.
    pub read_unprivileged: bool,
}

/// What the instructions work on.
pub trait Machine {
    /// Why nothing could be done.
    type Trouble;

    /// The registers.
    fn state(&mut self) -> &mut CpuState;

    /// Copies some of the `bytes` bytes (at least one) at `from` to `to`: the first ones, or the last ones if
    /// `manner.backward`. Tells how many.
    ///
    /// # Errors
    /// The first (last) byte cannot be read or written.
    fn copy(&mut self, to: u64, from: u64, bytes: u64, manner: Manner) -> Result<u64, Self::Trouble>;

    /// Sets some of the `bytes` bytes (at least one) from `to` on to `value`. Tells how many.
    ///
    /// # Errors
    /// The first byte cannot be written.
    fn set(&mut self, to: u64, value: u8, bytes: u64, manner: Manner) -> Result<u64, Self::Trouble>;
}

/// Why an instruction was not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop<T> {
    /// It takes an exception.
    Exception(Exception),
    /// An access failed; registers tell how far it came.
    Memory(T),
}

/// How far an instruction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// To its end.
    Done,
    /// As far as was wanted: it has to be executed again.
    More,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Prologue,
    Main,
    Epilogue,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// CPYF: always from the first byte up.
    CopyForward,
    Copy,
    Set,
}

/// The fields of an instruction.
#[derive(Clone, Copy)]
struct Fields {
    kind: Kind,
    stage: Stage,
    options: u32,
    d: usize,
    s: usize,
    n: usize,
}

/// Largest size of a copy whose direction is chosen.
const MOST_COPIED: u64 = (1 << 55) - 1;
/// Largest size otherwise.
const MOST: u64 = (1 << 63) - 1;

impl Fields {
    /// `None` if a field makes it UNDEFINED: `sz`, or the stage.
    fn of(word: u32) -> Option<Self> {
        if word >> 30 != 0 {
            return None;
        }
        let stage = |n: u32| match n & 3 {
            0 => Some(Stage::Prologue),
            1 => Some(Stage::Main),
            2 => Some(Stage::Epilogue),
            _ => None,
        };
        let (op1, op2) = (word >> 22 & 3, word >> 12 & 15);
        let (kind, stage, options) = if op1 == 3 {
            (Kind::Set, stage(op2 >> 2)?, op2 & 3)
        } else {
            let kind = if word >> 26 & 1 != 0 { Kind::Copy } else { Kind::CopyForward };
            (kind, stage(op1)?, op2)
        };
        let field = |lsb: u32| (word >> lsb & 31) as usize;
        Some(Self { kind, stage, options, d: field(0), n: field(5), s: field(16) })
    }

    /// Registers that overlap, or are none, make it CONSTRAINED UNPREDICTABLE: here UNDEFINED.
    fn is_defined(&self) -> bool {
        let source = self.kind == Kind::Set || self.s != 31;
        self.d != self.n && self.s != self.n && self.s != self.d && self.d != 31 && self.n != 31 && source
    }

    fn manner(&self, el: usize, backward: bool) -> Manner {
        let option = |bit: u32| el > 0 && self.options >> bit & 1 != 0;
        Manner {
            backward,
            write_unprivileged: option(0),
            read_unprivileged: self.kind != Kind::Set && option(1),
        }
    }
}

/// True if `word` is one of these instructions and its registers are such that it is defined.
pub fn is_defined(word: u32) -> bool {
    Fields::of(word).is_some_and(|fields| fields.is_defined())
}

/// The register with the remaining size, if `word` is the last instruction of a sequence: it only reads that register
/// if it is zero, and PSTATE.C clear.
pub fn left_for_epilogue(word: u32) -> Option<u8> {
    let fields = Fields::of(word).filter(|fields| fields.stage == Stage::Epilogue)?;
    Some(fields.n as u8)
}

/// Executes the instruction `word`, which [`is_defined`]. Once `limit` bytes have been moved it may stop with
/// [`Progress::More`].
///
/// # Errors
/// What keeps it from going on; the registers tell how far it came.
pub fn execute<M: Machine>(machine: &mut M, word: u32, limit: u64) -> Result<Progress, Stop<M::Trouble>> {
    let undefined = Stop::Exception(Exception::undefined());
    let Some(fields) = Fields::of(word).filter(Fields::is_defined) else { return Err(undefined) };
    let state = machine.state();
    if state.el() == 0 && state.sys[SysReg::SctlrEl1] & sctlr::MSC_EN == 0 {
        return Err(undefined);
    }
    if fields.stage == Stage::Prologue {
        prepare(state, &fields);
        return Ok(Progress::Done);
    }
    if state.pstate.contains(Pstate::C) {
        return Err(Stop::Exception(Exception::memory_operation(mismatch(&fields))));
    }
    if fields.kind == Kind::Set { set(machine, &fields, limit) } else { copy(machine, &fields, limit) }
}

/// ISS of the exception for a sequence that was begun by an implementation of option B.
fn mismatch(fields: &Fields) -> u32 {
    let is_set = u32::from(fields.kind == Kind::Set) << 24;
    let from_epilogue = u32::from(fields.stage == Stage::Epilogue) << 18;
    let (wrong_option, option_a) = (1 << 17, 1 << 16);
    let registers = (fields.d << 10 | fields.s << 5 | fields.n) as u32;
    is_set | fields.options << 19 | from_epilogue | wrong_option | option_a | registers
}

fn prepare(state: &mut CpuState, fields: &Fields) {
    let most = if fields.kind == Kind::Copy { MOST_COPIED } else { MOST };
    let size = state.x[fields.n].min(most);
    let forward = match fields.kind {
        Kind::Copy => is_forward(state.x[fields.d], state.x[fields.s], size),
        Kind::CopyForward | Kind::Set => true,
    };
    state.pstate -= Pstate::NZCV;
    if forward {
        state.x[fields.d] = state.x[fields.d].wrapping_add(size);
        if fields.kind != Kind::Set {
            state.x[fields.s] = state.x[fields.s].wrapping_add(size);
        }
        state.x[fields.n] = size.wrapping_neg();
    } else {
        state.x[fields.n] = size;
    }
}

/// Backward if the end of the source would be overwritten; tags do not count.
fn is_forward(to: u64, from: u64, size: u64) -> bool {
    let bare = |a: u64| a & ((1 << 56) - 1);
    let (to, from) = (bare(to), bare(from));
    !(from < to && bare(from.wrapping_add(size)) > to)
}

fn copy<M: Machine>(machine: &mut M, fields: &Fields, limit: u64) -> Result<Progress, Stop<M::Trouble>> {
    let mut moved = 0;
    loop {
        let state = machine.state();
        let (to, from, size) = (state.x[fields.d], state.x[fields.s], state.x[fields.n]);
        if size == 0 {
            return Ok(Progress::Done);
        }
        if moved >= limit {
            return Ok(Progress::More);
        }
        let backward = (size as i64) > 0;
        let manner = fields.manner(state.el(), backward);
        let done = if backward {
            machine.copy(to, from, size, manner)
        } else {
            let bytes = size.wrapping_neg();
            machine.copy(to.wrapping_add(size), from.wrapping_add(size), bytes, manner)
        };
        let done = done.map_err(Stop::Memory)?;
        moved += done;
        machine.state().x[fields.n] = if backward { size - done } else { size.wrapping_add(done) };
    }
}

fn set<M: Machine>(machine: &mut M, fields: &Fields, limit: u64) -> Result<Progress, Stop<M::Trouble>> {
    let state = machine.state();
    let value = if fields.s == 31 { 0 } else { state.x[fields.s] as u8 };
    let manner = fields.manner(state.el(), false);
    let mut moved = 0;
    loop {
        let state = machine.state();
        let (end, size) = (state.x[fields.d], state.x[fields.n]);
        if size == 0 {
            return Ok(Progress::Done);
        }
        if moved >= limit {
            return Ok(Progress::More);
        }
        let bytes = size.wrapping_neg();
        let done = machine.set(end.wrapping_add(size), value, bytes, manner).map_err(Stop::Memory)?;
        moved += done;
        machine.state().x[fields.n] = size.wrapping_add(done);
    }
}
