//! Branches, exceptions and hints: everything that leaves a block.

use super::locate::Loc;
use super::*;
use crate::mmu::{JUMP_CACHE_ENTRIES, TlbSet};
use crate::runtime::state::JitState;

const PAGE: i64 = 4096;

impl Generator {
    pub(super) fn control(&mut self, inst: &Inst) {
        match *inst {
            Inst::BranchIf { test, target } => self.branch_if(test, target),
            Inst::Branch { target } => self.branch(target),
            Inst::BranchReg { target, btype, .. } => self.branch_reg(target, btype),
            Inst::Raise(raise) => {
                self.clobber_flags();
                let (exit, arg) = Exit::from_raise(raise);
                self.asm.store_imm(true, field(std::mem::offset_of!(JitState, exit_arg)), arg as i32);
                if exit == Exit::Svc && self.options.el0 && !self.options.counted {
                    return self.change_level(self.thunks.svc);
                }
                self.leave(exit, i64::from(self.offset));
            }
            Inst::Eret => {
                self.clobber_flags();
                if self.options.el1h && !self.options.counted {
                    return self.change_level(self.thunks.eret);
                }
                self.leave(Exit::Eret, i64::from(self.offset));
            }
            Inst::EretAuthenticated { b } => {
                self.clobber_flags();
                self.asm.store_imm(true, field(std::mem::offset_of!(JitState, exit_arg)), i32::from(b));
                self.leave(Exit::EretAuthenticated, i64::from(self.offset));
            }
            Inst::WaitUntil { event, until } => {
                self.clobber_flags();
                self.move_into(Width::X, RAX, until);
                self.asm.store(true, field(std::mem::offset_of!(JitState, result)), RAX);
                let rt = (self.word & 31) as i32;
                self.asm.store_imm(true, field(std::mem::offset_of!(JitState, exit_arg)), rt);
                self.leave(if event { Exit::Wfet } else { Exit::Wfit }, i64::from(self.offset));
            }
            Inst::Hint(hint) => self.hint(hint),
            _ => unreachable!("not a control instruction"),
        }
    }

    /// Leaves translated code with PC at page + offset.
    pub(super) fn leave(&mut self, exit: Exit, offset: i64) {
        self.spend(self.count);
        self.leave_uncounted(exit, offset);
    }

    /// Goes on at another exception level.
    fn change_level(&mut self, thunk: u64) {
        self.store_dirty();
        self.asm.mov_imm(RAX, i64::from(self.offset));
        self.asm.jmp_to(thunk);
    }

    /// The same for who has counted, or has not begun to.
    pub(super) fn leave_uncounted(&mut self, exit: Exit, offset: i64) {
        self.store_dirty();
        self.asm.store_imm(false, field(std::mem::offset_of!(JitState, exit_code)), exit as i32);
        self.asm.mov_imm(RAX, offset);
        self.asm.jmp_to(self.thunks.leave_at_offset);
    }

    fn hint(&mut self, hint: Hint) {
        self.clobber_flags();
        match hint {
            Hint::Yield => self.asm.pause(),
            Hint::Wfi => self.leave(Exit::Wfi, i64::from(self.offset)),
            Hint::Wfe => self.leave(Exit::Wfe, i64::from(self.offset)),
            Hint::Sev => self.leave(Exit::Sev, i64::from(self.offset)),
            Hint::Sevl => self.leave(Exit::Sevl, i64::from(self.offset)),
        }
    }

    fn poll(&mut self) {
        self.asm.op_imm(Op2::Cmp, false, field(std::mem::offset_of!(JitState, poll)), 0);
    }

    /// Evaluates the test of a branch to `target`; the result is the host condition under which it holds.
    fn test(&mut self, test: Test, target: i64) -> Cc {
        match test {
            Test::Flags(cond) => {
                if !self.flags_dead.contains(&target) {
                    // Saving may change what CF means, so the condition comes after it.
                    self.save_nzcv();
                }
                self.host_condition(cond)
            }
            Test::Zero(w, r) | Test::NonZero(w, r) => {
                self.clobber_flags();
                match self.loc(r) {
                    Loc::Host(g) => self.asm.test(w == Width::X, g, g),
                    Loc::Memory(m) => self.asm.op_imm(Op2::Cmp, w == Width::X, m, 0),
                }
                if matches!(test, Test::Zero(..)) { Cc::E } else { Cc::NE }
            }
            Test::BitClear(r, bit) | Test::BitSet(r, bit) => {
                self.clobber_flags();
                let loc = self.loc(r);
                let set = matches!(test, Test::BitSet(..));
                if bit < 31 {
                    self.asm.test_imm(false, loc, 1 << bit);
                    if set { Cc::NE } else { Cc::E }
                } else {
                    self.asm.bt_imm(true, loc, bit);
                    if set { Cc::B } else { Cc::AE }
                }
            }
        }
    }

    fn branch_if(&mut self, test: Test, target: i64) {
        if let Test::Flags(c) = test
            && c.always()
        {
            let skip = self.asm.jmp();
            self.asm.bind(skip);
            return self.branch(target);
        }
        let cc = self.test(test, target);
        if !(0..PAGE).contains(&target) {
            let taken = self.asm.jcc(cc);
            self.later(Cold::Across { from: taken, target });
            return;
        }
        if target > i64::from(self.offset) {
            let taken = self.asm.jcc(cc);
            return match self.options.counted {
                false => self.exit_site(taken, target as u16),
                true => self.later(Cold::Taken { from: taken, target: target as u16 }),
            };
        }
        let skip = self.asm.jcc(cc.invert());
        self.back_edge(target as u16);
        self.asm.bind(skip);
    }

    /// Jump backwards in the page, polling on the way.
    fn back_edge(&mut self, target: u16) {
        self.spend(self.count);
        self.poll();
        let go = self.asm.jcc(Cc::E);
        self.exit_site(go, target);
        self.store_dirty();
        self.asm.mov_imm(RAX, i64::from(target));
        self.asm.jmp_to(self.thunks.poll);
    }

    /// Makes the jump at `fixup`, which is here, a patchable one; its stub goes behind the block.
    pub(super) fn exit_site(&mut self, fixup: Fixup, target: u16) {
        let carried = self.carried_now();
        let carried = self.note_carried(carried);
        let index = self.exits.len() as u32;
        self.exits.push(ExitSite { fixup: fixup.0 as u32, target, careful: false, carried });
        self.later(Cold::Exit { from: fixup, index });
    }

    fn branch(&mut self, target: i64) {
        self.clobber_flags();
        if !(0..PAGE).contains(&target) {
            return self.jump_across(target);
        }
        if target > i64::from(self.offset) {
            self.spend(self.count);
            let go = self.asm.jmp();
            self.exit_site(go, target as u16);
        } else {
            self.back_edge(target as u16);
        }
    }

    /// To another page: by virtual address, through the jump cache.
    pub(super) fn jump_across(&mut self, target: i64) {
        self.store_dirty();
        self.spend(self.count);
        self.page_relative(RAX, target);
        self.set_btype(0);
        self.jump_to_rax();
    }

    fn branch_reg(&mut self, target: Opnd, btype: u8) {
        self.store_dirty();
        self.clobber_flags();
        self.move_into(Width::X, RAX, target);
        self.spend(self.count);
        self.set_btype(btype);
        self.jump_to_rax();
    }

    /// Continues at the virtual address in rax. All temporaries are dead.
    fn jump_to_rax(&mut self) {
        hash_rax(&mut self.asm);
        self.poll();
        self.asm.jcc_to(Cc::NE, self.thunks.indirect_poll);
        jump_if_known(&mut self.asm, self.thunks.second);
    }
}

/// Makes rcx the offset, in fours, of the branch target in rax.
pub fn hash_rax(a: &mut Asm) {
    // As TlbSet::jump_index has it.
    a.rorx(false, RCX, RAX, 10);
    a.op(Op2::Xor, false, RCX, RAX);
    a.op_imm(Op2::And, false, RCX, (JUMP_CACHE_ENTRIES as i32 - 1) << 2);
}

/// Continues at the virtual address in rax, whose hash is in rcx, if its block is known; else at `unknown`.
pub fn jump_if_known(a: &mut Asm, unknown: u64) {
    let entry = std::mem::offset_of!(TlbSet, jumps) as i32;
    a.op(Op2::Cmp, true, RAX, M::indexed(R15, RCX, 2, entry));
    a.jcc_to(Cc::NE, unknown);
    a.jmp_rm(M::indexed(R15, RCX, 2, entry + 8));
}
