//! What lifts write into.

use super::constants::Constants;
use super::*;

/// Collects the IR of one superblock.
#[derive(Default)]
pub struct Builder {
    block: Block,
    constants: Constants,
}

impl Builder {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the builder and keeps its memory.
    pub fn clear(&mut self) {
        self.block.insts.clear();
        self.block.temps = 0;
        self.block.flags_dead.clear();
        self.constants.clear();
    }

    /// Appends an instruction, in the simplest form that it has here.
    pub fn emit(&mut self, inst: Inst) {
        let inst = self.constants.next(inst);
        self.block.insts.push(inst);
    }

    /// A new temporary. Each must be written exactly once, before it is read.
    pub fn temp(&mut self) -> Reg {
        let t = Reg(Reg::FIRST_TEMP + self.block.temps);
        debug_assert!(self.block.temps < Reg::MAX_TEMPS);
        self.block.temps += 1;
        t
    }

    /// True when so few temporaries are left that the block should end (a guest instruction uses at most 16).
    pub fn nearly_full(&self) -> bool {
        self.block.temps + 16 > Reg::MAX_TEMPS
    }

    /// General register field as an input, 31 meaning zero.
    pub fn xz(n: u32) -> Opnd {
        if n & 31 == 31 { Opnd::Imm(0) } else { Opnd::Reg(Reg((n & 31) as u8)) }
    }

    /// General register field as a destination, 31 meaning nowhere.
    pub fn dz(n: u32) -> Reg {
        if n & 31 == 31 { Reg::NONE } else { Reg((n & 31) as u8) }
    }

    /// General register field, 31 meaning SP.
    pub fn sp(n: u32) -> Reg {
        Reg((n & 31) as u8)
    }

    /// A temporary holding `a op b`.
    pub fn alu(&mut self, op: AluOp, w: Width, a: impl Into<Opnd>, b: impl Into<Opnd>) -> Reg {
        let d = self.temp();
        self.emit(Inst::Alu { op, w, d, a: a.into(), b: b.into() });
        d
    }

    /// A temporary holding `op s`.
    pub fn unary(&mut self, op: UnaryOp, w: Width, s: impl Into<Opnd>) -> Reg {
        let d = self.temp();
        self.emit(Inst::Unary { op, w, d, s: s.into() });
        d
    }

    /// Notes that nobody asks for NZCV as it is where the block leaves for `target`.
    pub fn flags_are_dead_at(&mut self, target: i64) {
        self.block.flags_dead.push(target);
    }

    /// The block so far.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Goes on with a block that has been taken.
    #[cfg(all(feature = "mistakes", target_arch = "x86_64"))]
    pub(crate) fn resume(&mut self, block: Block) {
        self.block = block;
    }

    /// Takes the finished block.
    pub fn finish(&mut self) -> Block {
        self.constants.clear();
        std::mem::take(&mut self.block)
    }
}
