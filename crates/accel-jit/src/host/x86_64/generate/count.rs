//! Counting instructions exactly, for machines whose time is made of them.
//!
//! A block is only entered if all of it may execute. Where it is left, the number of the instruction tells how many
//! have: the exits add it; what a slow path leaves by finds it in the state.

use super::*;
use crate::runtime::state::JitState;

fn count() -> M {
    field(std::mem::offset_of!(JitState, count))
}

fn trace() -> M {
    field(std::mem::offset_of!(JitState, trace))
}

fn trace_before() -> M {
    field(std::mem::offset_of!(JitState, trace_before))
}

impl Generator {
    /// At the block's entry: leaves if fewer instructions may execute than it has.
    pub(super) fn check_limit(&mut self, block: &Block) {
        if !self.options.counted {
            return;
        }
        let starts = block.insts.iter().filter_map(|inst| match inst {
            Inst::Start { offset, .. } => Some(*offset),
            _ => None,
        });
        let (first, all) = (starts.clone().next().unwrap_or(0), starts.count());
        self.asm.load(true, RAX, count());
        self.asm.op_imm(Op2::Add, true, RAX, all as i32);
        self.asm.op(Op2::Cmp, true, RAX, field(std::mem::offset_of!(JitState, limit)));
        let beyond = self.asm.jcc(Cc::A);
        self.defer(move |g| {
            g.asm.bind(beyond);
            g.leave_uncounted(Exit::Limit, i64::from(first));
        });
    }

    /// At the start of an instruction, which consists of what is from `first` on up to the next start.
    pub(super) fn start_counting(&mut self, block: &Block, first: usize) {
        self.count += 1;
        if !self.options.counted {
            return;
        }
        let own = block.insts[first..].iter().take_while(|inst| !matches!(inst, Inst::Start { .. })).count();
        if self.effects[first..first + own].iter().any(|effect| effect.leaves) {
            self.asm.store_imm(false, field(std::mem::offset_of!(JitState, position)), self.count as i32);
        }
        self.trace_instruction();
    }

    /// Takes the instruction into the hash: its address, and what it is. Keeps EFLAGS.
    fn trace_instruction(&mut self) {
        if !self.options.trace {
            return;
        }
        self.asm.load(true, RAX, trace());
        self.asm.store(true, trace_before(), RAX);
        let what = self.word.rotate_left(11).wrapping_add(u32::from(self.offset)) as i32;
        self.asm.lea(true, RAX, M::at(RAX, what));
        self.asm.crc32c_mem(RAX, field(std::mem::offset_of!(JitState, page_va)));
        self.asm.store(true, trace(), RAX);
    }

    /// The current instruction will be executed by another block.
    pub(super) fn take_back_trace(&mut self) {
        if self.options.counted && self.options.trace {
            self.asm.load(true, RAX, trace_before());
            self.asm.store(true, trace(), RAX);
        }
    }

    /// `instructions` of the block have executed. Clobbers EFLAGS.
    pub(super) fn spend(&mut self, instructions: u32) {
        if self.options.counted {
            self.asm.op_imm(Op2::Add, true, count(), instructions as i32);
        }
    }
}
