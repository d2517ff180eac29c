//! NaNs that the host makes nearly as Arm does, without the reference interpreter.
//!
//! Programs that overflow go on with NaNs for ever, so each of these results is to cost little more than others.

use armlet_arm::fp::FPCR_DN;

use super::vector::GUEST_VECTORS;
use super::*;
use crate::runtime::state::JitState;

/// A sum, difference, product or quotient of scalars, whose result is a NaN or has to be looked at for another reason.
#[derive(Clone, Copy)]
pub(super) struct Scalars {
    /// The host's operation.
    pub code: Opc,
    pub double: bool,
    /// The operands in Arm's order, and the result: hardware registers where the result is looked at.
    pub n: Xmm,
    pub m: Xmm,
    pub result: Xmm,
}

impl Generator {
    /// As [`Generator::slow_from`], for results that may be NaNs: those are made here, but for one that would be the
    /// second operand's because that is signalling and the first is not (Arm ARM, FPProcessNaNs).
    pub(super) fn odd_from(&mut self, odd: Fixup, inst: &Inst, d: VReg, s: Scalars) {
        let Some(before) = self.carried_before.filter(|_| d < GUEST_VECTORS) else {
            return self.slow_from(odd, inst);
        };
        let back = self.asm.here();
        let after = self.carried_now();
        let slow = self.slow_path(inst);
        let marked = std::mem::take(&mut self.asm.marked);
        self.defer(move |g| {
            g.asm.bind(odd);
            // What the way past here stores to make room for the result.
            let stored = before.dirty().filter(|(_, v)| *v != d && !after.has_dirty(*v));
            carry::emit_stores(&mut g.asm, stored);
            g.nan(&s, back);
            marked.into_iter().for_each(|at| g.asm.bind(at));
            slow(g, back);
        });
    }

    /// Makes the NaN and goes on at `back`, or goes on here if the reference is to be asked. Clobbers rax and EFLAGS.
    fn nan(&mut self, s: &Scalars, back: u64) {
        let compare = opc(u8::from(s.double), 1, 0x2e);
        self.asm.vex(compare, s.result.0, 0, s.result);
        let number = self.asm.jcc(Cc::NP);
        self.asm.vex(compare, s.n.0, 0, s.m);
        let operand = self.asm.jcc(Cc::P);
        let default = self.asm.here();
        self.asm.mov_imm(RAX, if s.double { 0x7ff8 << 48 } else { 0x7fc0 << 16 });
        self.asm.vex(Opc { w: true, ..opc(1, 1, 0x6e) }, s.result.0, 0, RAX);
        self.asm.jmp_to(back);
        self.asm.bind(operand);
        self.trap_if_denormal(s.double, s.n);
        self.trap_if_denormal(s.double, s.m);
        self.asm.test_imm(false, field(std::mem::offset_of!(JitState, cpu.fp.fpcr)), FPCR_DN as i32);
        self.asm.jcc_to(Cc::NE, default);
        // The first that is a NaN, made quiet.
        self.asm.vex(s.code, s.result.0, s.n.0, s.m);
        self.zero_above(s.double, s.result);
        self.asm.vex(compare, s.m.0, 0, s.m);
        self.asm.jcc_to(Cc::NP, back);
        self.asm.vex(Opc { w: true, ..opc(1, 1, 0x7e) }, s.m.0, 0, RAX);
        self.asm.bt_imm(true, RAX, if s.double { 51 } else { 22 });
        self.asm.jcc_to(Cc::B, back);
        self.asm.bind(number);
    }
}
