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

/// A root, a rounded or a converted number: what the host makes of a NaN is what Arm makes of it, if it keeps NaNs.
#[derive(Clone, Copy)]
pub(super) struct Scalar {
    /// The source is a double, and the result.
    pub double: [bool; 2],
    /// Hardware registers where the result is looked at.
    pub n: Xmm,
    pub result: Xmm,
}

impl Generator {
    /// As [`Generator::slow_from`], for results of one source that may be NaNs: those are made here.
    pub(super) fn odd_one_from(&mut self, odd: Fixup, inst: &Inst, d: VReg, s: Scalar) {
        self.made_from(odd, inst, d, move |g, back| g.nan_of_one(&s, back));
    }

    /// The same for a conversion to a half in `result`.
    pub(super) fn odd_half_from(&mut self, odd: Fixup, inst: &Inst, d: VReg, result: Xmm) {
        self.made_from(odd, inst, d, move |g, back| g.half_nan_of_one(result, back));
    }

    /// As [`Generator::slow_from`], for results that may be NaNs: those are made here, but for one that would be the
    /// second operand's because that is signalling and the first is not (Arm ARM, FPProcessNaNs).
    pub(super) fn odd_from(&mut self, odd: Fixup, inst: &Inst, d: VReg, s: Scalars) {
        self.made_from(odd, inst, d, move |g, back| g.nan(&s, back));
    }

    /// As [`Generator::slow_from`], but `make` makes some results, whose way past here ends at the address that it is given.
    fn made_from(&mut self, odd: Fixup, inst: &Inst, d: VReg, make: impl FnOnce(&mut Self, u64) + 'static) {
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
            make(g, back);
            marked.into_iter().for_each(|at| g.asm.bind(at));
            slow(g, back);
        });
    }

    /// EFLAGS.Z unless FPCR.DN is set.
    fn look_for_default_nan(&mut self) {
        self.asm.test_imm(false, field(std::mem::offset_of!(JitState, cpu.fp.fpcr)), FPCR_DN as i32);
    }

    /// `result` = the default NaN, with nothing above it. Clobbers rax.
    fn default_nan(&mut self, double: bool, result: Xmm) {
        self.asm.mov_imm(RAX, if double { 0x7ff8 << 48 } else { 0x7fc0 << 16 });
        self.asm.vex(Opc { w: true, ..opc(1, 1, 0x6e) }, result.0, 0, RAX);
    }

    /// As [`Generator::nan`].
    fn nan_of_one(&mut self, s: &Scalar, back: u64) {
        let compare = s.double.map(|double| opc(u8::from(double), 1, 0x2e));
        self.look(|g| g.asm.vex(compare[1], s.result.0, 0, s.result));
        let number = self.asm.jcc(Cc::NP);
        self.look(|g| g.asm.vex(compare[0], s.n.0, 0, s.n));
        let made = self.asm.jcc(Cc::NP);
        self.look_for_default_nan();
        let default = self.asm.jcc(Cc::NE);
        self.zero_above(s.double[1], s.result);
        self.asm.jmp_to(back);
        self.asm.bind(made);
        self.asm.bind(default);
        self.default_nan(s.double[1], s.result);
        self.asm.jmp_to(back);
        self.asm.bind(number);
    }

    /// As [`Generator::nan`], of a half in `result`.
    fn half_nan_of_one(&mut self, result: Xmm, back: u64) {
        self.asm.vex(opc(1, 1, 0x7e), result.0, 0, RAX);
        self.asm.op_imm(Op2::And, false, RAX, 0xffff);
        self.asm.vex(opc(1, 1, 0x6e), result.0, 0, RAX);
        self.asm.op_imm(Op2::And, false, RAX, 0x7fff);
        self.asm.op_imm(Op2::Cmp, false, RAX, 0x7c00);
        let number = self.asm.jcc(Cc::BE);
        self.look_for_default_nan();
        self.asm.jcc_to(Cc::E, back);
        self.asm.mov_imm(RAX, 0x7e00);
        self.asm.vex(opc(1, 1, 0x6e), result.0, 0, RAX);
        self.asm.jmp_to(back);
        self.asm.bind(number);
    }

    /// Makes the NaN and goes on at `back`, or goes on here if the reference is to be asked. Clobbers rax and EFLAGS.
    fn nan(&mut self, s: &Scalars, back: u64) {
        let compare = opc(u8::from(s.double), 1, 0x2e);
        self.asm.vex(compare, s.result.0, 0, s.result);
        let number = self.asm.jcc(Cc::NP);
        self.asm.vex(compare, s.n.0, 0, s.m);
        let operand = self.asm.jcc(Cc::P);
        let default = self.asm.here();
        self.default_nan(s.double, s.result);
        self.asm.jmp_to(back);
        self.asm.bind(operand);
        self.trap_if_denormal(s.double, s.n);
        self.trap_if_denormal(s.double, s.m);
        self.look_for_default_nan();
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
