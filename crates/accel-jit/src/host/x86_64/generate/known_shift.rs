//! Shifts by registers and saturating shifts by constants.
//!
//! The host's counts are unsigned, and one that is too large leaves nothing but copies of the sign. So a shift to the left
//! by a negative count is zero, and a rounded one to the right by a count below one as well: both are joined.

use super::known::*;
use super::vector::*;
use super::vector_ops::*;
use super::*;
use crate::host::x86_64::evex::Evex;
use crate::ir::VName;
use crate::runtime::state::JitState;

/// Shifts by counts of their own, by 32 and 64 bits.
const PSLLV: [Opc; 2] = [opc(1, 2, 0x47), opcw(1, 2, 0x47)];
const PSRLV: [Opc; 2] = [opc(1, 2, 0x45), opcw(1, 2, 0x45)];
const PSRAVD: Opc = opc(1, 2, 0x46);
/// EVEX only.
const PSRAVQ: Opc = opcw(1, 2, 0x46);
const PSLLVW: Opc = opcw(1, 2, 0x12);
const PSRLVW: Opc = opcw(1, 2, 0x10);
const PSRAVW: Opc = opcw(1, 2, 0x11);
const PSRAQ: Opc = opcw(1, 1, 0x72);
const PMOVWB: Opc = opc(2, 2, 0x30);
const PMOVSX: [Opc; 3] = [opc(1, 2, 0x20), opc(1, 2, 0x23), opc(1, 2, 0x21)];
const PMOVZX: [Opc; 3] = [opc(1, 2, 0x30), opc(1, 2, 0x33), opc(1, 2, 0x31)];
const EXTRACT_UPPER: Opc = opc(1, 3, 0x39);
const PMINS: [Opc; 3] = [opc(1, 2, 0x38), opc(1, 1, 0xea), opc(1, 2, 0x39)];
const PMAXS: [Opc; 3] = [opc(1, 2, 0x3c), opc(1, 1, 0xee), opc(1, 2, 0x3d)];
/// Unsigned minima of halfwords and words.
const PMINU: [Opc; 2] = [opc(1, 2, 0x3a), opc(1, 2, 0x3b)];
const YMM: Evex = Evex { length: 1, mask: 0, zeroing: false, rounding: false };
/// Halfwords to bytes and words to halfwords, saturated; signed, unsigned.
const PACK: [[Opc; 2]; 2] = [[opc(1, 1, 0x63), opc(1, 1, 0x6b)], [opc(1, 1, 0x67), opc(1, 2, 0x2b)]];

/// A shift by a register.
#[derive(Clone, Copy)]
struct Kind {
    signed: bool,
    rounds: bool,
    saturates: bool,
}

impl Kind {
    fn of(name: VName) -> Option<Self> {
        use VName::*;
        let (signed, rounds, saturates) = match name {
            Sshl => (true, false, false),
            Ushl => (false, false, false),
            Srshl => (true, true, false),
            Urshl => (false, true, false),
            Sqshl => (true, false, true),
            Uqshl => (false, false, true),
            Sqrshl => (true, true, true),
            Uqrshl => (false, true, true),
            _ => return None,
        };
        Some(Self { signed, rounds, saturates })
    }
}

fn ones() -> M {
    field(std::mem::offset_of!(JitState, consts.ones))
}

impl Generator {
    /// SSHL and its kind: to the left by the low byte of the element; to the right if that is negative.
    pub(super) fn known_shift(&mut self, name: VName, k: Known) -> bool {
        let Some(kind) = Kind::of(name) else { return false };
        if kind.saturates {
            self.clobber_flags();
        }
        match k.es {
            0 => self.shift_bytes(kind, k),
            1 if !self.options.avx512 => self.shift_halfwords(kind, k),
            _ => self.shift_elements(kind, k),
        }
        if kind.saturates {
            self.saturated_where(X1, k.shape.bytes());
        }
        self.known_result(k, k.shape.bytes())
    }

    /// `d` = `a` to the left by counts of their own, which are no sources' registers.
    fn left_by(&mut self, es: u8, d: Xmm, a: Xmm, count: Xmm) {
        match es {
            1 => self.asm.evex(PSLLVW, d.0, a.0, count),
            _ => self.vv(PSLLV[usize::from(es) - 2], d, a, count),
        }
    }

    /// The same to the right; `d` is neither of the others.
    fn right_by(&mut self, signed: bool, es: u8, d: Xmm, (a, count): (Xmm, Xmm)) {
        match (es, signed) {
            (1, true) => self.asm.evex(PSRAVW, d.0, a.0, count),
            (1, false) => self.asm.evex(PSRLVW, d.0, a.0, count),
            (_, false) => self.vv(PSRLV[usize::from(es) - 2], d, a, count),
            (2, true) => self.vv(PSRAVD, d, a, count),
            _ if self.options.avx512 => self.asm.evex(PSRAVQ, d.0, a.0, count),
            _ => {
                let (sign, zero) = (self.vector_temp(), self.zero_vector());
                self.vv(PCMPGT[3], sign, zero, a);
                self.vv(PXOR, d, a, sign);
                self.vv(PSRLV[1], d, d, count);
                self.vv(PXOR, d, d, sign);
            }
        }
    }

    /// x = x / 2, rounded up: x less the half that is rounded down. Clobbers `t`.
    fn halve_up(&mut self, signed: bool, es: u8, x: Xmm, t: Xmm) {
        match (es, signed) {
            (3, true) if self.options.avx512 => self.asm.evex_imm(PSRAQ, 4, t.0, x, 1),
            (3, true) => {
                let (sign, zero) = (self.vector_temp(), self.zero_vector());
                self.vv(PCMPGT[3], sign, zero, x);
                self.vv(PXOR, t, x, sign);
                self.vshift_imm(SRL, 3, t, t, 1);
                self.vv(PXOR, t, t, sign);
            }
            _ => self.vshift_imm(if signed { SRA } else { SRL }, es, t, x, 1),
        }
        self.vv(PSUB[usize::from(es)], x, x, t);
    }

    /// X0 = the result, and X1 = where it saturates; of elements whose shifts the host has.
    fn shift_elements(&mut self, kind: Kind, k: Known) {
        let (n, m, e) = (self.vector_value(k.op.n), self.vector_value(k.op.m), k.e());
        let (count, zero) = (self.vector_temp(), self.zero_vector());
        let unused = if k.es == 1 { 8 } else { 24 };
        self.vshift_imm(SLL, k.es.min(2), count, m, unused);
        self.vshift_imm(SRA, k.es.min(2), count, count, unused);
        if k.es == 3 {
            self.vshift_imm(SRA, 2, X1, count, 31);
            self.vshift_imm(SLL, 3, X1, X1, 32);
            self.asm.vex_imm(PBLENDD, count.0, count.0, X1, 0b1010);
        }
        self.vv(PSUB[e], X3, zero, count);
        if kind.rounds {
            self.vv(PADD[e], X3, X3, ones());
        }
        self.right_by(kind.signed, k.es, X1, (n, X3));
        if kind.rounds {
            self.halve_up(kind.signed, k.es, X1, X2);
        } else if kind.signed {
            self.vv(PCMPGT[e], X2, zero, count);
            self.vv(PAND, X1, X1, X2);
        }
        self.left_by(k.es, X0, n, count);
        if !kind.saturates {
            return self.vv(POR, X0, X0, X1);
        }
        // What is shifted back is the same if nothing was lost.
        self.right_by(kind.signed, k.es, X2, (X0, count));
        self.vv(POR, X0, X0, X1);
        self.vv(PCMPEQ[e], X2, X2, n);
        self.vv(PCMPGT[e], X3, zero, count);
        self.vv(POR, X2, X2, X3);
        self.saturate_by_sign(kind.signed, k.es, n);
        self.blend(X0, X1, X0, X2);
        self.vv(PXOR, X1, X2, ones());
    }

    /// X1 = the largest number, or the smallest where elements of `n` are negative. Clobbers X3.
    fn saturate_by_sign(&mut self, signed: bool, es: u8, n: Xmm) {
        self.vv(PCMPEQ[0], X1, X1, X1);
        if signed {
            let zero = self.zero_vector();
            self.vv(PCMPGT[usize::from(es)], X3, zero, n);
            if es == 0 {
                self.every(X1, 0, 0x7f);
            } else {
                self.vshift_imm(SRL, es, X1, X1, 1);
            }
            self.vv(PXOR, X1, X1, X3);
        }
    }

    /// The four scratch registers in the lower half, where 256-bit forms of VEX reach them.
    pub(super) fn lower_scratch(&mut self) {
        [X0, X1, X2, X3].into_iter().for_each(|x| self.lower(x));
    }

    /// Bytes as halfwords in a register of twice the length, or as words, half of them at a time.
    fn shift_bytes(&mut self, kind: Kind, k: Known) {
        self.lower_scratch();
        let (n, m) = (self.vector_value(k.op.n), self.vector_value(k.op.m));
        let extend = if kind.signed { PMOVSX } else { PMOVZX };
        if self.options.avx512 {
            self.asm.evex_with(extend[0], X0.0, 0, n, YMM);
            self.asm.evex_with(PMOVSX[0], X2.0, 0, m, YMM);
            self.shift_wide(kind, 0, 1);
            self.asm.evex_with(PMOVWB, X0.0, 0, X0, YMM);
            if kind.saturates {
                self.asm.evex_with(PMOVWB, X1.0, 0, X1, YMM);
            }
            return self.asm.vzeroupper();
        }
        let (low, low_mask) = (self.vector_temp(), self.vector_temp());
        for upper in [false, true] {
            let (from, count) = if upper {
                self.psrldq(X0, n, 8);
                self.psrldq(X2, m, 8);
                (X0, X2)
            } else {
                (n, m)
            };
            self.asm.ymm(extend[2], X0, 0, from);
            self.asm.ymm(PMOVSX[2], X2, 0, count);
            self.shift_wide(kind, 0, 2);
            self.narrow_words(kind, 0xff);
            if !upper {
                self.vmov(low, X0);
                self.vmov(low_mask, X1);
            }
        }
        self.asm.vzeroupper();
        self.vv(PACK[usize::from(!(kind.saturates && kind.signed))][0], X0, low, X0);
        self.vv(PACK[0][0], X1, low_mask, X1);
    }

    /// Halfwords as words.
    fn shift_halfwords(&mut self, kind: Kind, k: Known) {
        let (n, m) = (self.vector_value(k.op.n), self.vector_value(k.op.m));
        self.asm.ymm(if kind.signed { PMOVSX[1] } else { PMOVZX[1] }, X0, 0, n);
        self.vshift_imm(SLL, 1, X2, m, 8);
        self.vshift_imm(SRA, 1, X2, X2, 8);
        self.asm.ymm(PMOVSX[1], X2, 0, X2);
        self.shift_wide(kind, 1, 2);
        self.narrow_words(kind, 0xffff);
        self.asm.vzeroupper();
    }

    /// X0 = words of X0 as halfwords, and X1 so if the shift saturates. Clobbers X3.
    fn narrow_words(&mut self, kind: Kind, mask: u64) {
        if !kind.saturates {
            self.wide_every(X3, 2, mask);
            self.asm.ymm(PAND, X0, X0.0, X3);
        }
        self.asm.ymm_imm(EXTRACT_UPPER, X0, 0, X3, 1);
        self.vv(PACK[usize::from(!(kind.saturates && kind.signed))][1], X0, X0, X3);
        if kind.saturates {
            self.asm.ymm_imm(EXTRACT_UPPER, X1, 0, X3, 1);
            self.vv(PACK[0][1], X1, X1, X3);
        }
    }

    /// The 256-bit `x` = `value` in every element.
    pub(super) fn wide_every(&mut self, x: Xmm, es: u8, value: u64) {
        let ones = u64::MAX >> (64 - (8 << es));
        self.asm.mov_imm(RAX, ((value & ones) * (u64::MAX / ones)) as i64);
        self.asm.vex(MOVQ_GPR, x.0, 0, RAX);
        self.asm.ymm(opc(1, 2, 0x59), x, 0, x);
    }

    /// X0 = X0 shifted by X2, elements of `1 << es` bytes in such of `1 << wide`, 256 bits of them, and X1 = where it
    /// saturates. Clobbers the other scratch registers.
    fn shift_wide(&mut self, kind: Kind, es: u8, wide: u8) {
        let (e, bits) = (usize::from(wide), 8u64 << es);
        let by = |g: &mut Self, ops: [Opc; 2], d: Xmm, a: Xmm, count: Xmm| match wide {
            1 => g.asm.evex_with(ops[0], d.0, a.0, count, YMM),
            _ => g.asm.ymm(ops[1], d, a.0, count),
        };
        let (left, right) = ([PSLLVW, PSLLV[0]], [[PSRLVW, PSRLV[0]], [PSRAVW, PSRAVD]]);
        let t = self.vector_temp();
        self.lower(t);
        self.asm.ymm(PXOR, t, t.0, t);
        self.asm.ymm(PSUB[e], X3, t.0, X2);
        if kind.rounds {
            self.asm.ymm(PCMPEQ[0], X1, X1.0, X1);
            self.asm.ymm(PADD[e], X3, X3.0, X1);
        }
        by(self, right[usize::from(kind.signed)], X1, X0, X3);
        if kind.rounds {
            let group = opc(1, 1, if wide == 1 { 0x71 } else { 0x72 });
            self.asm.ymm_shift(group, if kind.signed { SRA } else { SRL }, X3, X1, 1);
            self.asm.ymm(PSUB[e], X1, X1.0, X3);
        } else if kind.signed {
            self.asm.ymm(PCMPGT[e], X3, t.0, X2);
            self.asm.ymm(PAND, X1, X1.0, X3);
        }
        // More than all bits is as much as all of them.
        self.wide_every(t, wide, bits);
        self.asm.ymm(PMINS[e], X2, X2.0, t);
        by(self, left, X0, X0, X2);
        self.asm.ymm(POR, X0, X0.0, X1);
        if !kind.saturates {
            return;
        }
        let (least, most) =
            if kind.signed { (u64::MAX << (bits - 1), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
        self.wide_every(t, wide, most);
        if kind.signed {
            self.asm.ymm(PMINS[e], X1, X0.0, t);
            self.wide_every(t, wide, least);
            self.asm.ymm(PMAXS[e], X1, X1.0, t);
        } else {
            self.asm.ymm(PMINU[e - 1], X1, X0.0, t);
        }
        self.asm.ymm(PCMPEQ[e], X3, X1.0, X0);
        self.asm.ymm(MOVDQA, X0, 0, X1);
        self.asm.ymm(PCMPEQ[0], X1, X1.0, X1);
        self.asm.ymm(PXOR, X1, X1.0, X3);
    }

    /// SQSHL, UQSHL, SQSHLU by a constant: shifted back, the result is the source if nothing was lost.
    pub(super) fn known_shift_immediate(&mut self, name: VName, k: Known) -> bool {
        self.clobber_flags();
        let (n, left, count) = (self.vector_value(k.op.n), self.vector_temp(), k.shape.param() as u8);
        self.v_shl(k.es, left, n, count);
        if name == VName::SqshlImmediate {
            self.v_sshr(k.es, left, count);
        } else {
            self.v_ushr(k.es, X0, left, count);
        }
        self.vv(PCMPEQ[k.e()], X2, X0, n);
        self.saturate_by_sign(name == VName::SqshlImmediate, k.es, n);
        if name == VName::Sqshlu {
            // What is negative saturates to zero.
            let zero = self.zero_vector();
            self.vv(PCMPGT[k.e()], X3, zero, n);
            self.vv(PANDN, X2, X3, X2);
            self.vv(PXOR, X1, X1, X3);
        }
        self.blend(X0, X1, left, X2);
        self.vv(PXOR, X1, X2, ones());
        self.saturated_where(X1, k.shape.bytes());
        self.known_result(k, k.shape.bytes())
    }
}
