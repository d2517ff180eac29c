//! Pointer authentication inline, for the implementation-defined algorithm; and branch targets.

use armlet_arm::SysReg;
use armlet_arm::pauth::{Key, Operation};

use super::locate::Loc;
use super::*;
use crate::lift::pointer::Landing;
use crate::runtime::state::JitState;

fn register(r: SysReg) -> M {
    field(std::mem::offset_of!(JitState, cpu.sys) + r as usize * 8)
}

/// Where an operand is at some place in the code.
#[derive(Clone, Copy)]
enum Held {
    In(Rm),
    Constant(i32),
}

impl Generator {
    pub(super) fn pauth(&mut self, op: Operation, d: Reg, pointer: Opnd, modifier: Opnd) {
        self.clobber_flags();
        match op {
            Operation::Sign(key) if self.options.pauth_inline => {
                self.pauth_inline(op, key, d, pointer, modifier);
            }
            Operation::Authenticate(key) | Operation::AuthenticateCombined(key)
                if self.options.pauth_inline =>
            {
                self.pauth_inline(op, key, d, pointer, modifier);
            }
            Operation::Strip { data } => self.strip(data, d, pointer),
            _ => {
                let (pointer, modifier) = (self.held(pointer), self.held(modifier));
                self.pauth_call(op, self.offset, pointer, modifier);
                self.vectors.clear();
                let g = self.dest(d, RAX);
                self.asm.mov(g, RAX);
                self.done(d, g);
            }
        }
    }

    /// Where a pointer is extended does not depend on the algorithm.
    fn strip(&mut self, data: bool, d: Reg, pointer: Opnd) {
        let (half, mask) = (self.scratch(), self.scratch());
        let table = usize::from(data) * 16;
        let of_half = |offset: usize| M { index: Some((half, 3)), ..field(offset + table) };
        self.move_into(Width::X, RAX, pointer);
        self.asm.mov(half, RAX);
        self.asm.shift_imm(Shift::Shr, true, half, 55);
        self.asm.op_imm(Op2::And, false, half, 1);
        self.asm.load(true, mask, of_half(std::mem::offset_of!(JitState, pauth_mask)));
        self.asm.andn(true, RAX, mask, RAX);
        self.asm.op(Op2::Or, true, RAX, of_half(std::mem::offset_of!(JitState, pauth_ones)));
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    fn held(&mut self, o: Opnd) -> Held {
        match o {
            Opnd::Imm(v) => Held::Constant(v as i32),
            Opnd::Reg(r) => Held::In(match self.loc(r) {
                Loc::Host(g) => g.into(),
                Loc::Memory(m) => m.into(),
            }),
        }
    }

    fn load_held(&mut self, g: Gpr, held: Held) {
        match held {
            Held::Constant(v) => self.asm.mov_imm(g, i64::from(v)),
            Held::In(Rm::R(r)) => self.asm.mov(g, Gpr(r)),
            Held::In(Rm::M(m)) => self.asm.load(true, g, m),
        }
    }

    /// The result is in rax; or it has been left for an exception.
    fn pauth_call(&mut self, op: Operation, offset: u16, pointer: Held, modifier: Held) {
        self.load_held(RAX, modifier);
        self.asm.push(RAX);
        self.asm.push_imm(i32::from(offset) | i32::from(op.bits()) << 16);
        self.load_held(RAX, pointer);
        self.call_thunk(self.thunks.pauth);
        self.pop_words(2);
    }

    /// What is not clear at once is left to the slow path: pointers that are extended by neither zeros nor ones, and
    /// codes that are wrong.
    fn pauth_inline(&mut self, op: Operation, key: Key, d: Reg, pointer: Opnd, modifier: Opnd) {
        self.scratch_exactly(RDX);
        let (s, mask) = (self.scratch(), self.scratch());
        let (pointer, modifier) = (self.held(pointer), self.held(modifier));
        let table = usize::from(key.is_data()) * 16;
        let masks = field(std::mem::offset_of!(JitState, pauth_mask) + table);
        let ones = field(std::mem::offset_of!(JitState, pauth_ones) + table);
        let at_half = |m: M| M { index: Some((RDX, 3)), ..m };
        self.load_held(RAX, pointer);
        self.asm.test_imm(false, register(SysReg::SctlrEl1), key.enable() as u32 as i32);
        let disabled = self.asm.jcc(Cc::E);
        self.asm.mov(s, RAX);
        self.asm.mov(RDX, RAX);
        self.asm.shift_imm(Shift::Shr, true, RDX, 55);
        self.asm.op_imm(Op2::And, false, RDX, 1);
        self.asm.load(true, mask, at_half(masks));
        let slow = if matches!(op, Operation::Sign(_)) {
            self.asm.op(Op2::And, true, RAX, mask);
            self.asm.op(Op2::Cmp, true, RAX, at_half(ones));
            let odd = self.asm.jcc(Cc::NE);
            self.asm.mov(RAX, s);
            self.pauth_code(key, modifier);
            self.asm.op(Op2::And, true, RAX, mask);
            self.asm.op(Op2::Xor, true, RAX, s);
            odd
        } else {
            // s becomes the difference to the original pointer, which has to be the code.
            self.asm.andn(true, RAX, mask, s);
            self.asm.op(Op2::Or, true, RAX, at_half(ones));
            self.asm.op(Op2::Xor, true, s, RAX);
            self.pauth_code(key, modifier);
            self.asm.op(Op2::And, true, RAX, mask);
            self.asm.op(Op2::Cmp, true, RAX, s);
            let wrong = self.asm.jcc(Cc::NE);
            self.load_held(RAX, pointer);
            self.asm.op(Op2::Xor, true, RAX, s);
            wrong
        };
        self.asm.bind(disabled);
        let back = self.asm.here();
        let copies = self.vectors.snapshot();
        let offset = self.offset;
        self.defer(move |g| {
            g.asm.bind(slow);
            g.pauth_call(op, offset, pointer, modifier);
            g.restore_vectors(&copies);
            g.asm.jmp_to(back);
        });
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    /// rax = the code of the pointer in rax: as [`armlet_arm::pauth::fast_code`] has it. Clobbers rdx.
    fn pauth_code(&mut self, key: Key, modifier: Held) {
        let [lo, hi] = key.registers().map(register);
        let multiplier = field(std::mem::offset_of!(JitState, consts.pauth_multiplier));
        self.asm.op(Op2::Xor, true, RAX, lo);
        self.asm.group3(4, true, multiplier);
        self.asm.op(Op2::Xor, true, RAX, RDX);
        match modifier {
            Held::Constant(0) => {}
            Held::Constant(v) => self.asm.op_imm(Op2::Xor, true, RAX, v),
            Held::In(rm) => self.asm.op(Op2::Xor, true, RAX, rm),
        }
        self.asm.op(Op2::Xor, true, RAX, hi);
        self.asm.group3(4, true, multiplier);
        self.asm.op(Op2::Xor, true, RAX, RDX);
        self.asm.op(Op2::Xor, true, RAX, lo);
    }

    /// At the outer entry, with PSTATE.BTYPE in rdx: whether this is where a branch may lead.
    pub(super) fn check_landing(&mut self, block: &Block) {
        if self.shows_btype() {
            self.asm.mov32(RAX, RDX);
            self.asm.shift_imm(Shift::Shl, false, RAX, BTYPE_SHIFT);
            self.asm.op_mem(Op2::Or, false, pstate(), RAX);
        }
        let first = match block.insts.first() {
            Some(Inst::Start { offset, .. }) => i64::from(*offset),
            _ => 0,
        };
        let Some(Landing { allowed, by_control, keeps }) = self.options.landing else { return };
        if keeps {
            self.asm.shift_imm(Shift::Shl, false, RDX, BTYPE_SHIFT);
            return self.asm.op_mem(Op2::Or, false, pstate(), RDX);
        }
        if allowed == 0b1111 {
            return;
        }
        let allows = |types: u8| allowed & types == types;
        let refused = if allows(0b0111) {
            self.asm.op_imm(Op2::Cmp, false, RDX, 3);
            self.asm.jcc(Cc::E)
        } else if allows(0b1011) {
            self.asm.op_imm(Op2::Cmp, false, RDX, 2);
            self.asm.jcc(Cc::E)
        } else {
            self.asm.test(false, RDX, RDX);
            self.asm.jcc(Cc::NE)
        };
        self.defer(move |g| {
            g.asm.bind(refused);
            g.asm.shift_imm(Shift::Shl, false, RDX, BTYPE_SHIFT);
            g.asm.op_mem(Op2::Or, false, pstate(), RDX);
            let argument = field(std::mem::offset_of!(JitState, exit_arg));
            g.asm.store_imm(true, argument, i32::from(by_control));
            g.leave_uncounted(Exit::BranchTarget, first);
        });
    }

    /// Where instructions are counted a block may be left before its first one, which must not be seen.
    fn shows_btype(&self) -> bool {
        self.options.bti && self.options.counted
    }

    /// The first instruction is about to execute.
    pub(super) fn land(&mut self) {
        if self.shows_btype() && !self.options.landing.is_some_and(|landing| landing.keeps) {
            self.asm.op_imm(Op2::And, false, pstate(), !(3 << BTYPE_SHIFT));
        }
    }

    /// Tells the target of the branch that follows what kind it is.
    pub(super) fn set_btype(&mut self, btype: u8) {
        if self.options.bti {
            self.asm.mov_imm(RDX, i64::from(btype));
        }
    }
}

/// PSTATE.BTYPE.
pub const BTYPE_SHIFT: u8 = 10;

fn pstate() -> M {
    field(std::mem::offset_of!(JitState, cpu.pstate))
}
