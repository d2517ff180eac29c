//! Guest semantics: each A64 encoding, written once, as a lift to IR.

use armlet_arm::FeatureSet;

use crate::ir::Builder;

/// What a lift may depend on besides the instruction: everything here is part of a block's key.
#[derive(Clone, Copy, Debug)]
pub struct LiftContext {
    /// What the CPU model has.
    pub features: FeatureSet,
    /// Current exception level.
    pub el: u8,
    /// FP and SIMD instructions are not trapped by CPACR_EL1.
    pub fp_enabled: bool,
    /// FPCR is such that inline floating point is exact (no FZ, DN, AHP, FZ16).
    pub fp_inline: bool,
    /// SP alignment is checked at this EL.
    pub check_sp: bool,
    /// Offset of the instruction in its 4 KiB page, bytes. May reach 4092.
    pub offset: u32,
}

/// Where execution goes after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// To the next instruction (side exits may have been emitted).
    Next,
    /// Always to page base + this offset; nothing has been emitted for the jump yet.
    Goto(i64),
    /// The block has ended: its last IR instruction leaves it.
    End,
}

/// Lifts the instruction `word`. An encoding that the model lacks becomes an Undefined exception.
pub fn lift(b: &mut Builder, ctx: &LiftContext, word: u32) -> Flow {
    let _ = (ctx, word);
    b.emit(crate::ir::Inst::Raise(crate::ir::Raise::Undefined));
    Flow::End
}
