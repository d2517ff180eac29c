//! Vector operations with more than one host instruction to them: floating-point comparisons, minimum and
//! maximum, conversions, saturation.

use super::vector::*;
use super::vector_ops::*;
use super::*;
use crate::runtime::state::JitState;

/// PMOVZX to the next element size; PMOVSX is 0x10 below.
const PMOVZX: [u8; 3] = [0x30, 0x33, 0x35];
const CMP_UNORDERED: u8 = 3;

fn ones() -> M {
    field(std::mem::offset_of!(JitState, consts.ones))
}

impl Generator {
    /// Jumps if any bit of `x` is set.
    fn jump_if_any(&mut self, x: Xmm) -> Fixup {
        self.asm.vex(PTEST, x.0, 0, x);
        self.asm.jcc(Cc::NE)
    }

    /// X3 = where elements of `a` and `b` are unordered.
    fn unordered(&mut self, double: bool, a: Xmm, b: Xmm) {
        self.asm.vex_imm(opc(u8::from(double), 1, 0xc2), X3.0, a.0, b, CMP_UNORDERED);
    }

    /// Two sources; what is above 64 bits must not raise flags, so copies without it if not `q`.
    fn float_sources(&mut self, q: bool, n: VReg, m: VReg) -> (Xmm, Xmm) {
        let (n, m) = (self.vector_value(n), self.vector_value(m));
        if q {
            return (n, m);
        }
        self.asm.vex(MOVQ, X1.0, 0, n);
        self.asm.vex(MOVQ, X2.0, 0, m);
        (X1, X2)
    }

    fn float_source(&mut self, q: bool, n: VReg) -> Xmm {
        let n = self.vector_value(n);
        if q {
            return n;
        }
        self.asm.vex(MOVQ, X1.0, 0, n);
        X1
    }

    /// Operations with two sources; false if `inst` is not for here.
    pub(super) fn v3_more(&mut self, inst: &Inst) -> bool {
        let Inst::V3 { op, es, q, d, n, m } = *inst else { return false };
        let double = es == 3;
        match op {
            V3Op::SmulLow | V3Op::UmulLow => {
                let (n, m) = (self.vector_value(n), self.vector_value(m));
                let o = if op == V3Op::UmulLow { opc(1, 1, 0xf4) } else { opc(1, 2, 0x28) };
                self.asm.vex(o, X0.0, n.0, m);
                self.vector_result(d, X0, q);
            }
            V3Op::FcmEq | V3Op::FcmGe | V3Op::FcmGt => {
                let (n, m) = self.float_sources(q, n, m);
                // Quiet equality; the others signal every NaN.
                let predicate = match op {
                    V3Op::FcmEq => 0x00,
                    V3Op::FcmGe => 0x0d,
                    _ => 0x0e,
                };
                self.trap_if_any_denormal(double, n);
                self.trap_if_any_denormal(double, m);
                self.asm.vex_imm(opc(u8::from(double), 1, 0xc2), X0.0, n.0, m, predicate);
                self.vector_result(d, X0, q);
            }
            V3Op::Fmax | V3Op::Fmin | V3Op::Fmaxnm | V3Op::Fminnm => {
                self.clobber_flags();
                let (a, b) = self.float_sources(q, n, m);
                self.unordered(double, a, b);
                let slow = self.jump_if_any(X3);
                // Of zeros with different signs the host takes the second: both orders, joined.
                let larger = matches!(op, V3Op::Fmax | V3Op::Fmaxnm);
                let o = opc(u8::from(double), 1, if larger { 0x5f } else { 0x5d });
                self.asm.vex(o, X0.0, a.0, b);
                self.asm.vex(o, X3.0, b.0, a);
                let join = opc(0, 1, if larger { 0x54 } else { 0x56 });
                self.asm.vex(join, X0.0, X0.0, X3);
                self.vector_result(d, X0, q);
                self.slow_from(slow, inst);
            }
            V3Op::Fabd => {
                self.clobber_flags();
                let (a, b) = self.float_sources(q, n, m);
                self.asm.vex(opc(u8::from(double), 1, 0x5c), X0.0, a.0, b);
                self.look(|g| g.unordered(double, X0, X0));
                let slow = self.jump_if_any(X3);
                self.asm.vex(MOVDQA, X3.0, 0, Self::sign(double));
                self.asm.vex(opc(0, 1, 0x55), X0.0, X3.0, X0);
                self.vector_result(d, X0, q);
                self.slow_from(slow, inst);
            }
            _ => return false,
        }
        true
    }

    fn sign(double: bool) -> M {
        field(if double {
            std::mem::offset_of!(JitState, consts.sign64)
        } else {
            std::mem::offset_of!(JitState, consts.sign32)
        })
    }

    /// Sets FPSR.QC unless all bits of `same` under the vector's width are set. Clobbers the flags.
    fn saturated_unless(&mut self, same: Xmm, q: bool) {
        self.asm.vex(PXOR, same.0, same.0, ones());
        self.saturated_where(same, if q { 16 } else { 8 });
    }

    /// Saturating narrowing to bytes or halfwords: saturated where the result does not extend to the source.
    fn saturating_narrow(&mut self, op: V2Op, es: u8, q: bool, d: VReg, n: VReg) {
        self.clobber_flags();
        let n = self.vector_value(n);
        let e = usize::from(es);
        match op {
            V2Op::Sqxtn => self.asm.vex(opc(1, 1, [0x63, 0x6b][e]), X0.0, n.0, n),
            V2Op::Sqxtun => self.pack_unsigned(es, n),
            _ => {
                let max = if es == 0 { 0x00ff_00ff_00ff_00ff_i64 } else { 0x0000_ffff_0000_ffff };
                self.asm.mov_imm(RAX, max);
                self.asm.vex(opcw(1, 1, 0x6e), X1.0, 0, RAX);
                self.asm.vex(PUNPCKLQDQ, X1.0, X1.0, X1);
                self.asm.vex(opc(1, 2, [0x3a, 0x3b][e]), X1.0, X1.0, n);
                self.pack_unsigned(es, X1);
            }
        }
        let extend = PMOVZX[e] - if op == V2Op::Sqxtn { 0x10 } else { 0 };
        self.asm.vex(opc(1, 2, extend), X1.0, 0, X0);
        self.asm.vex(PCMPEQ[e + 1], X1.0, X1.0, n);
        self.saturated_unless(X1, true);
        if q {
            let rd = self.vector_value(d);
            self.asm.vex(PUNPCKLQDQ, X0.0, rd.0, X0);
        }
        self.vector_result(d, X0, q);
    }

    /// The same from doublewords to words: each fits if its upper half is what the lower one extends to.
    fn saturating_narrow_words(&mut self, op: V2Op, q: bool, d: VReg, n: VReg) {
        self.clobber_flags();
        let n = self.vector_value(n);
        self.asm.vex_imm(PSHUFD, X0.0, 0, n, 0x88);
        self.asm.vex_imm(PSHUFD, X1.0, 0, n, 0xdd);
        if op == V2Op::Sqxtn {
            self.vshift_imm(SRA, 2, X2, X0, 31);
        } else {
            self.asm.vex(PXOR, X2.0, X2.0, X2);
        }
        self.asm.vex(PCMPEQ[2], X2.0, X2.0, X1);
        // What it saturates to.
        self.asm.vex(PCMPEQ[2], X3.0, X3.0, X3);
        if op != V2Op::Uqxtn {
            self.vshift_imm(SRA, 2, X1, X1, 31);
            if op == V2Op::Sqxtn {
                self.vshift_imm(SRL, 2, X3, X3, 1);
            }
            self.asm.vex(PXOR, X3.0, X3.0, X1);
        }
        self.blend(X0, X3, X0, X2);
        self.saturated_unless(X2, true);
        if q {
            let rd = self.vector_value(d);
            self.asm.vex(PUNPCKLQDQ, X0.0, rd.0, X0);
        }
        self.vector_result(d, X0, q);
    }

    /// X0 = signed wide elements of `n`, saturated to unsigned narrow ones.
    fn pack_unsigned(&mut self, es: u8, n: Xmm) {
        let o = if es == 0 { opc(1, 1, 0x67) } else { opc(1, 2, 0x2b) };
        self.asm.vex(o, X0.0, n.0, n);
    }

    /// Operations with one source; false if `inst` is not for here.
    pub(super) fn v2_more(&mut self, inst: &Inst) -> bool {
        let Inst::V2 { op, es, q, d, n } = *inst else { return false };
        let double = es == 3;
        match op {
            V2Op::Sqxtn | V2Op::Uqxtn | V2Op::Sqxtun if es < 2 => self.saturating_narrow(op, es, q, d, n),
            V2Op::Sqxtn | V2Op::Uqxtn | V2Op::Sqxtun => self.saturating_narrow_words(op, q, d, n),
            V2Op::FrintN | V2Op::FrintP | V2Op::FrintM | V2Op::FrintZ | V2Op::FrintX | V2Op::FrintI => {
                let mode = match op {
                    V2Op::FrintN => 8,
                    V2Op::FrintM => 8 | 1,
                    V2Op::FrintP => 8 | 2,
                    V2Op::FrintZ => 8 | 3,
                    V2Op::FrintX => 4,
                    _ => 8 | 4,
                };
                self.clobber_flags();
                let n = self.float_source(q, n);
                self.trap_if_any_denormal(double, n);
                self.asm.vex_imm(opc(1, 3, 0x08 + u8::from(double)), X0.0, 0, n, mode);
                self.look(|g| g.unordered(double, X0, X0));
                let slow = self.jump_if_any(X3);
                self.vector_result(d, X0, q);
                self.slow_from(slow, inst);
            }
            V2Op::Fcvtzs => {
                self.clobber_flags();
                let n = self.float_source(q, n);
                self.trap_if_any_denormal(false, n);
                self.asm.vex(opc(2, 1, 0x5b), X0.0, 0, n);
                // The host says MIN for everything that does not fit.
                self.asm.vex(PCMPEQ[2], X3.0, X0.0, Self::sign(false));
                let slow = self.jump_if_any(X3);
                self.vector_result(d, X0, q);
                self.slow_from(slow, inst);
            }
            V2Op::Scvtf => {
                let n = self.float_source(q, n);
                self.asm.vex(opc(0, 1, 0x5b), X0.0, 0, n);
                self.vector_result(d, X0, q);
            }
            V2Op::Fcvtl => {
                self.clobber_flags();
                let mut n = self.vector_value(n);
                if q {
                    self.asm.vex_imm(opc(1, 1, 0x73), 3, X1.0, n, 8);
                    n = X1;
                }
                let o = if es == 2 { opc(0, 1, 0x5a) } else { opc(1, 2, 0x13) };
                self.asm.vex(o, X0.0, 0, n);
                self.look(|g| g.unordered(es == 2, X0, X0));
                let slow = self.jump_if_any(X3);
                self.vector_result(d, X0, true);
                self.slow_from(slow, inst);
            }
            V2Op::Fcvtn => self.convert_narrow(inst),
            _ => return false,
        }
        true
    }

    /// FCVTN, FCVTN2.
    fn convert_narrow(&mut self, inst: &Inst) {
        let Inst::V2 { es, q, d, n, .. } = *inst else { return };
        self.clobber_flags();
        let n = self.vector_value(n);
        // No copy may go between the jumps to the slow path and the result.
        let kept = if q { Some(self.vector_value(d)) } else { None };
        self.unordered(es == 2, n, n);
        let slow = self.jump_if_any(X3);
        if es == 2 {
            self.asm.vex(opc(1, 1, 0x5a), X0.0, 0, n);
        } else {
            // The source is in the reg field of this one; rounding is MXCSR's.
            self.asm.vex_imm(opc(1, 3, 0x1d), n.0, 0, X0, 4);
        }
        // Rounded up to the smallest normal number, perhaps.
        let [abs, least] = Self::magnitudes(3 - usize::from(es));
        self.asm.vex(opc(0, 1, 0x54), X3.0, X0.0, abs);
        self.asm.vex(PCMPEQ[usize::from(es)], X3.0, X3.0, least);
        let tiny = self.jump_if_any(X3);
        if let Some(rd) = kept {
            self.asm.vex(PUNPCKLQDQ, X0.0, rd.0, X0);
        }
        self.vector_result(d, X0, q);
        self.slow_from(slow, inst);
        self.slow_from(tiny, inst);
    }
}
