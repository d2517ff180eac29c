//! Half precision, worked on as single precision.
//!
//! Single precision holds every sum, difference, product, quotient and root of halves so well that rounding twice changes
//! nothing (it has more than 2 * 11 + 1 bits). Only what is fused needs care: it is rounded to odd first.

use super::known::Known;
use super::known_float::{CVTDQ2PS, CVTTPS2DQ, NOT_LESS, QUIETLY, ROUND, host_rounding};
use super::odd::Scalar;
use super::vector::*;
use super::vector_ops::*;
use super::*;
use crate::helpers::vector::float::Conversion;
use crate::helpers::vector::products::{SUBTRACT, UPPER_PART};
use crate::host::x86_64::evex::Evex;
use crate::ir::VName;
use crate::runtime::state::JitState;
use armlet_arm::fp::Rounding;

const TO_SINGLES: Opc = opc(1, 2, 0x13);
const TO_HALVES: Opc = opc(1, 3, 0x1d);
/// Rounding of [`TO_HALVES`]: MXCSR's.
const BY_MXCSR: u8 = 4;
const COMPARE: Opc = opc(0, 1, 0xc2);
const UNORDERED: u8 = 3;
const ADDPS: u8 = 0x58;
const MULPS: u8 = 0x59;
const CVTPS2PD: Opc = opc(0, 1, 0x5a);
const CVTPD2PS: Opc = opc(1, 1, 0x5a);
const PMOVSXWD: Opc = opc(1, 2, 0x23);
const PMOVZXWD: Opc = opc(1, 2, 0x33);
const EXTRACT_UPPER: Opc = opc(1, 3, 0x39);
const BLENDV: Opc = opc(1, 3, 0x4a);
const PACKSSDW: Opc = opc(1, 1, 0x6b);
const PACKUSDW: Opc = opc(1, 2, 0x2b);
const INFINITY: u64 = 0x7c00;
/// As singles: the largest signed and unsigned integers of 16 bits, and what is infinite.
const LARGEST: u64 = 0x46ff_fe00;
const LARGEST_UNSIGNED: u64 = 0x477f_ff00;
const SINGLE_INFINITY: u64 = 0x7f80_0000;
/// What doubles have beyond the fraction of singles, and the last bit before.
const BEYOND: u64 = 0x1fff_ffff;
const LAST: u64 = 0x2000_0000;

/// What may have to be computed again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Odd {
    /// Nothing: the result is exact, or rounds as it has to.
    Nothing,
    /// NaNs.
    Nan,
    /// NaNs, and what may have been rounded up to the smallest normal number.
    NanOrLeast,
}

fn sign() -> M {
    field(std::mem::offset_of!(JitState, consts.sign16))
}

impl Generator {
    /// False if the host has no short sequence.
    pub(super) fn known_half(&mut self, name: VName, k: Known, inst: &Inst) -> bool {
        use VName::*;
        self.clobber_flags();
        self.lower_scratch();
        match name {
            // On its way as a single, the host would flush it.
            DoubleToHalf if self.options.flush => return false,
            Fabs | Fneg => return self.half_sign(name == Fabs, k),
            HalfToSingle | HalfToDouble | SingleToHalf | DoubleToHalf => self.convert_half(name, k, inst),
            Fadd | Fsub | Fmul | Fnmul | Fdiv | Fabd | Fmulx => self.half_arithmetic(name, k, inst),
            Fmaxv | Fminv => self.half_across(name == Fmaxv, k, inst),
            Fmlal => self.half_long(k, inst),
            Fmax | Fmin | Fmaxnm | Fminnm => self.half_extreme(matches!(name, Fmax | Fmaxnm), k, inst),
            Faddp | Fmaxp | Fminp | Fmaxnmp | Fminnmp => self.half_pairs(name, k, inst),
            Fmla | Fmls | Fmadd | Fmsub | Fnmadd | Fnmsub => self.half_fused(name, k, inst),
            Frecps | Frsqrts => self.half_step(name == Frsqrts, k, inst),
            Fcmeq | Fcmge | Fcmgt | Facge | Facgt | FcmeqZero | FcmgeZero | FcmgtZero | Fcmle | Fcmlt => {
                self.half_comparison(name, k);
            }
            Fsqrt => {
                let n = self.half_operand(k, k.op.n);
                self.widen(k, X1, n);
                self.wide(k, opc(0, 1, 0x51), X0, Xmm(0), X1);
                self.half_result(k, Odd::Nan, inst);
            }
            Frintn | Frintp | Frintm | Frintz | Frintx | Frinti | Frinta => self.half_rounded(name, k, inst),
            Scvtf | Ucvtf => self.half_from_integer(name == Scvtf, k, inst),
            _ => return self.half_to_integer(name, k, inst),
        }
        true
    }

    // ---- operands and results ----

    /// An operation on as many singles as there are halves.
    fn wide(&mut self, k: Known, o: Opc, d: Xmm, a: Xmm, b: Xmm) {
        if k.shape.bytes() == 16 { self.asm.ymm(o, d, a.0, b) } else { self.vv(o, d, a, b) }
    }

    fn wide_imm(&mut self, k: Known, o: Opc, [d, a, b]: [Xmm; 3], imm: u8) {
        if k.shape.bytes() == 16 {
            self.asm.ymm_imm(o, d, a.0, b, imm);
        } else {
            self.asm.vex_imm(o, d.0, a.0, b, imm);
        }
    }

    fn widen(&mut self, k: Known, x: Xmm, halves: Xmm) {
        self.wide(k, TO_SINGLES, x, Xmm(0), halves);
    }

    /// The halves of `v`; what is above a scalar is zero.
    fn half_operand(&mut self, k: Known, v: VReg) -> Xmm {
        let x = self.vector_value(v);
        self.half_alone(k, x)
    }

    fn half_alone(&mut self, k: Known, x: Xmm) -> Xmm {
        if k.shape.bytes() != 2 {
            return x;
        }
        let t = self.vector_temp();
        self.pslldq(t, x, 14);
        self.psrldq(t, t, 14);
        t
    }

    /// The second source, or one element of it.
    fn second_half(&mut self, k: Known) -> Xmm {
        let m = self.second(k);
        self.half_alone(k, m)
    }

    fn any_of(&mut self, k: Known, x: Xmm) -> Fixup {
        self.wide(k, PTEST, x, Xmm(0), x);
        self.asm.jcc(Cc::NE)
    }

    /// X0's singles are the value of the destination, as halves.
    fn half_result(&mut self, k: Known, odd: Odd, inst: &Inst) {
        self.narrow_halves(k);
        self.halves_result(k, odd, inst);
    }

    /// X0 = X0's singles as halves, rounded as MXCSR says.
    fn narrow_halves(&mut self, k: Known) {
        // The source is in the reg field of this one.
        self.wide_imm(k, TO_HALVES, [X0, Xmm(0), X0], BY_MXCSR);
        if k.shape.bytes() == 16 {
            self.asm.vzeroupper();
        }
    }

    /// X0's halves are the value of the destination. Clobbers the other scratch registers.
    fn halves_result(&mut self, k: Known, odd: Odd, inst: &Inst) {
        if odd == Odd::Nothing {
            self.known_result(k, k.shape.bytes());
            return;
        }
        let slow = self.odd_halves(odd);
        self.known_result(k, k.shape.bytes());
        self.slow_from(slow, inst);
    }

    /// Jumps if X0 has odd halves. Clobbers the other scratch registers.
    fn odd_halves(&mut self, odd: Odd) -> Fixup {
        let [abs, least] = Self::magnitudes(2);
        self.asm.vex(PAND, X1.0, X0.0, abs);
        self.every(X2, 1, INFINITY);
        self.vv(PCMPGT[1], X2, X1, X2);
        if odd == Odd::NanOrLeast {
            self.asm.vex(PCMPEQ[1], X1.0, X1.0, least);
            self.vv(POR, X2, X2, X1);
        }
        self.vv(PTEST, X2, Xmm(0), X2);
        self.asm.jcc(Cc::NE)
    }

    fn half_sign(&mut self, clears: bool, k: Known) -> bool {
        let n = self.vector_value(k.op.n);
        let [abs, _] = Self::magnitudes(2);
        if clears {
            self.vv(PAND, X0, n, abs);
        } else {
            self.vv(PXOR, X0, n, sign());
        }
        self.known_result(k, k.shape.bytes())
    }

    // ---- arithmetic ----

    fn half_arithmetic(&mut self, name: VName, k: Known, inst: &Inst) {
        let n = self.half_operand(k, k.op.n);
        let m = self.second_half(k);
        self.widen(k, X0, n);
        self.widen(k, X1, m);
        // Zero times infinity is the reference's.
        let infinite = (name == VName::Fmulx).then(|| self.infinite(k));
        let code = match name {
            VName::Fadd => ADDPS,
            VName::Fsub | VName::Fabd => 0x5c,
            VName::Fdiv => 0x5e,
            _ => MULPS,
        };
        if k.shape.bytes() == 2 {
            // Zeros by zeros are none of a scalar's business.
            self.vv(opc(2, 1, code), X0, X0, X1);
        } else {
            self.wide(k, opc(0, 1, code), X0, X0, X1);
        }
        self.narrow_halves(k);
        let odd = match name {
            VName::Fadd | VName::Fsub | VName::Fabd => Odd::Nan,
            _ => Odd::NanOrLeast,
        };
        if matches!(name, VName::Fabd | VName::Fnmul) {
            return self.half_signed_result(name, (k, odd), inst);
        }
        self.halves_result(k, odd, inst);
        if let Some(infinite) = infinite {
            self.slow_from(infinite, inst);
        }
    }

    /// FABD and FNMUL: a result whose sign is changed.
    fn half_signed_result(&mut self, name: VName, (k, odd): (Known, Odd), inst: &Inst) {
        // NaNs and the smallest normal number are told whatever their sign is.
        let [abs, _] = Self::magnitudes(2);
        if name == VName::Fabd {
            self.vv(PAND, X0, X0, abs);
        } else {
            self.vv(PXOR, X0, X0, sign());
        }
        self.halves_result(k, odd, inst);
    }

    /// Jumps if X0 or X1 have an infinity or a NaN. Clobbers X2 and X3.
    fn infinite(&mut self, k: Known) -> Fixup {
        let infinity = self.vector_temp();
        self.lower(infinity);
        self.wide_every(infinity, 2, SINGLE_INFINITY);
        for (x, above) in [(X0, X2), (X1, X3)] {
            self.wide_shift(k, SLL, above, x, 1);
            self.wide_shift(k, SRL, above, above, 1);
            self.wide_imm(k, COMPARE, [above, above, infinity], NOT_LESS);
        }
        self.wide(k, POR, X2, X2, X3);
        self.any_of(k, X2)
    }

    /// Words shifted by a constant.
    fn wide_shift(&mut self, k: Known, ext: u8, d: Xmm, s: Xmm, count: u8) {
        if k.shape.bytes() == 16 {
            self.asm.ymm_shift(opc(1, 1, 0x72), ext, d, s, count);
        } else {
            self.vshift_imm(ext, 2, d, s, count);
        }
    }

    /// X0 = the larger or the smaller ones of X1 and X2; the jump is taken where one is a NaN. Clobbers X3.
    fn extremes(&mut self, k: Known, larger: bool) -> Fixup {
        self.wide_imm(k, COMPARE, [X3, X1, X2], UNORDERED);
        let slow = self.any_of(k, X3);
        // Of zeros with different signs the host takes the second: both orders, joined.
        let o = opc(0, 1, if larger { 0x5f } else { 0x5d });
        self.wide(k, o, X0, X1, X2);
        self.wide(k, o, X3, X2, X1);
        self.wide(k, opc(0, 1, if larger { 0x54 } else { 0x56 }), X0, X0, X3);
        slow
    }

    fn half_extreme(&mut self, larger: bool, k: Known, inst: &Inst) {
        let (n, m) = (self.half_operand(k, k.op.n), self.half_operand(k, k.op.m));
        self.widen(k, X1, n);
        self.widen(k, X2, m);
        let slow = self.extremes(k, larger);
        self.half_result(k, Odd::Nothing, inst);
        self.slow_from(slow, inst);
    }

    /// Neighbours, of the first source and then of the second; of a scalar, those of the source.
    fn half_pairs(&mut self, name: VName, k: Known, inst: &Inst) {
        let (n, m) = (self.vector_value(k.op.n), self.vector_value(k.op.m));
        let (even, odd) = (self.vector_temp(), self.vector_temp());
        if k.shape.bytes() == 2 {
            self.pslldq(even, n, 14);
            self.psrldq(even, even, 14);
            self.pslldq(odd, n, 12);
            self.psrldq(odd, odd, 14);
        } else {
            let q = k.shape.bytes() == 16;
            self.v_uzp(false, 1, q, n, m);
            self.vmov(even, X0);
            self.v_uzp(true, 1, q, n, m);
            self.vmov(odd, X0);
        }
        self.widen(k, X1, even);
        self.widen(k, X2, odd);
        if name == VName::Faddp {
            self.wide(k, opc(0, 1, ADDPS), X0, X1, X2);
            return self.half_result(k, Odd::Nan, inst);
        }
        let slow = self.extremes(k, matches!(name, VName::Fmaxp | VName::Fmaxnmp));
        self.half_result(k, Odd::Nothing, inst);
        self.slow_from(slow, inst);
    }

    /// FMAXV and its kind: as integers, which compare as the numbers do once all but the sign is turned round in negative ones.
    fn half_across(&mut self, larger: bool, k: Known, inst: &Inst) {
        const PMAXSW: Opc = opc(1, 1, 0xee);
        const PMINSW: Opc = opc(1, 1, 0xea);
        let (n, bytes) = (self.vector_value(k.op.n), k.shape.bytes());
        let [abs, _] = Self::magnitudes(2);
        self.vv(PAND, X1, n, abs);
        self.every(X2, 1, INFINITY);
        self.vv(PCMPGT[1], X1, X1, X2);
        self.limit_to(X1, bytes);
        self.vv(PTEST, X1, Xmm(0), X1);
        let nan = self.asm.jcc(Cc::NE);
        self.vmov(X0, n);
        self.turn_negative();
        for step in [8, 4, 2].into_iter().filter(|step| *step < bytes as u8) {
            self.psrldq(X1, X0, step);
            self.vv(if larger { PMAXSW } else { PMINSW }, X0, X0, X1);
        }
        self.turn_negative();
        self.known_result(k, 2);
        self.slow_from(nan, inst);
    }

    /// Turns round all but the sign of negative halfwords of X0. Clobbers X1.
    fn turn_negative(&mut self) {
        self.vshift_imm(SRA, 1, X1, X0, 15);
        self.vshift_imm(SRL, 1, X1, X1, 1);
        self.vv(PXOR, X0, X0, X1);
    }

    // ---- fused ----

    /// FMLAL and its kind: the product is exact as a single.
    fn half_long(&mut self, k: Known, inst: &Inst) {
        let (n, d) = (self.vector_value(k.op.n), self.vector_value(k.op.d));
        let m = self.second(k);
        let (bytes, param) = (k.shape.bytes(), k.shape.param());
        let upper = param & UPPER_PART != 0;
        for (x, from, moves) in [(X1, n, upper), (X2, m, upper && k.shape.by_element().is_none())] {
            if moves {
                self.psrldq(x, from, bytes as u8 / 2);
            } else {
                self.vmov(x, from);
            }
            self.limit_to(x, bytes / 2);
            self.asm.vex(TO_SINGLES, x.0, 0, x);
        }
        self.vmov(X0, d);
        self.limit_to(X0, bytes);
        let code = if param & SUBTRACT != 0 { 0xbc } else { 0xb8 };
        self.vv(opc(1, 2, code), X0, X1, X2);
        let [abs, least] = Self::magnitudes(1);
        self.asm.vex(PAND, X3.0, X0.0, abs);
        // Equal or unordered, quietly.
        self.asm.vex_imm(COMPARE, X3.0, X3.0, least, 8);
        self.vv(PTEST, X3, Xmm(0), X3);
        let slow = self.asm.jcc(Cc::NE);
        self.known_result(k, bytes);
        self.slow_from(slow, inst);
    }

    /// FMLA, FMADD and their kind.
    fn half_fused(&mut self, name: VName, k: Known, inst: &Inst) {
        let n = self.half_operand(k, k.op.n);
        let m = self.second_half(k);
        let addend = if matches!(name, VName::Fmla | VName::Fmls) { k.op.d } else { k.op.a };
        let addend = self.half_operand(k, addend);
        // 231 forms: the sum is ±(n * m) ± the addend.
        let code = match name {
            VName::Fmla | VName::Fmadd => 0xb8,
            VName::Fnmsub => 0xba,
            VName::Fmls | VName::Fmsub => 0xbc,
            _ => 0xbe,
        };
        if self.options.avx512 {
            let neighbours = self.neighbours();
            self.widen(k, X0, addend);
            self.fused_to_odd(k, (code, neighbours), (n, m));
            self.narrow_halves(k);
            if k.shape.bytes() != 16 {
                self.asm.vzeroupper();
            }
        } else {
            self.fused_by_doubles(k, code, (n, m, addend));
        }
        self.halves_result(k, Odd::NanOrLeast, inst);
    }

    /// What [`Generator::fused_to_odd`] works with, to be had before any jump to a slow path.
    fn neighbours(&mut self) -> [Xmm; 2] {
        [0, 1].map(|_| {
            let x = self.vector_temp();
            self.lower(x);
            x
        })
    }

    /// X0 = singles ±(n * m) ± X0, rounded to odd: of the two neighbours of what is not exact, the odd one. An exact result
    /// is as MXCSR's mode has it, since the sign of a zero depends on that.
    fn fused_to_odd(&mut self, k: Known, (code, [down, up]): (u8, [Xmm; 2]), (n, m): (Xmm, Xmm)) {
        self.widen(k, X1, n);
        self.widen(k, X2, m);
        self.wide(k, MOVDQA, down, Xmm(0), X0);
        self.wide(k, MOVDQA, up, Xmm(0), X0);
        let o = opc(1, 2, code);
        self.wide(k, o, X0, X1, X2);
        for (neighbour, direction) in [(down, 1), (up, 2)] {
            let by = Evex { length: direction, rounding: true, ..Evex::default() };
            self.asm.evex_with(o, neighbour.0, X1.0, X2, by);
            self.wide_shift(k, SLL, X3, neighbour, 31);
            let choice = self.asm.hardware(X3.0) << 4;
            self.wide_imm(k, BLENDV, [X0, X0, neighbour], choice);
        }
    }

    /// X0 = halves ±(n * m) ± addend, by doubles: what they cannot hold is never near the middle between two halves.
    fn fused_by_doubles(&mut self, k: Known, code: u8, (n, m, addend): (Xmm, Xmm, Xmm)) {
        let (q, low) = (k.shape.bytes() == 16, self.vector_temp());
        for upper in [false, true] {
            if upper && !q {
                break;
            }
            for (x, from) in [(X0, addend), (X1, n), (X2, m)] {
                if upper {
                    self.psrldq(x, from, 8);
                    self.asm.vex(TO_SINGLES, x.0, 0, x);
                } else {
                    self.asm.vex(TO_SINGLES, x.0, 0, from);
                }
                self.asm.ymm(CVTPS2PD, x, 0, x);
            }
            self.asm.ymm(opcw(1, 2, code), X0, X1.0, X2);
            // To the precision of singles, rounded to odd.
            self.wide_every(X1, 3, BEYOND);
            self.asm.ymm(PAND, X2, X0.0, X1);
            self.asm.ymm(PXOR, X3, X3.0, X3);
            self.asm.ymm(PCMPEQ[3], X2, X2.0, X3);
            self.asm.ymm(PANDN, X0, X1.0, X0);
            self.wide_every(X1, 3, LAST);
            self.asm.ymm(PANDN, X2, X2.0, X1);
            self.asm.ymm(POR, X0, X0.0, X2);
            self.asm.ymm(CVTPD2PS, X0, 0, X0);
            self.asm.vex_imm(TO_HALVES, X0.0, 0, X0, BY_MXCSR);
            if q && !upper {
                self.vmov(low, X0);
            }
        }
        self.asm.vzeroupper();
        if q {
            self.vv(PUNPCKLQDQ, X0, low, X0);
        }
    }

    /// FRECPS: 2 - n * m. FRSQRTS: (3 - n * m) / 2. Zero times infinity is the reference's.
    fn half_step(&mut self, root: bool, k: Known, inst: &Inst) {
        if !self.options.avx512 {
            let f = match *inst {
                Inst::VKnown { f, op, .. } => (f, op),
                _ => return,
            };
            return self.helper(f.0, f.1);
        }
        let (n, m) = (self.half_operand(k, k.op.n), self.half_operand(k, k.op.m));
        self.widen(k, X0, n);
        self.widen(k, X1, m);
        let neighbours = self.neighbours();
        let infinite = self.infinite(k);
        // As singles: 2 and 3.
        self.wide_every(X0, 2, if root { 0x4040_0000 } else { 0x4000_0000 });
        self.fused_to_odd(k, (0xbc, neighbours), (n, m));
        if root {
            self.wide_every(X1, 2, 0x3f00_0000);
            self.wide(k, opc(0, 1, MULPS), X0, X0, X1);
        }
        self.half_result(k, Odd::NanOrLeast, inst);
        self.slow_from(infinite, inst);
    }

    // ---- comparisons, roundings, conversions ----

    fn half_comparison(&mut self, name: VName, k: Known) {
        use VName::*;
        let n = self.half_operand(k, k.op.n);
        self.widen(k, X0, n);
        if name.reads_m() {
            let m = self.half_operand(k, k.op.m);
            self.widen(k, X1, m);
        } else {
            self.wide(k, PXOR, X1, X1, X1);
        }
        if matches!(name, Facge | Facgt) {
            for x in [X0, X1] {
                self.wide_shift(k, SLL, x, x, 1);
                self.wide_shift(k, SRL, x, x, 1);
            }
        }
        // Quiet equality; the others signal every NaN.
        let predicate = match name {
            Fcmeq | FcmeqZero => 0x00,
            Fcmge | Facge | FcmgeZero => 0x0d,
            Fcmgt | Facgt | FcmgtZero => 0x0e,
            Fcmle => 0x02,
            _ => 0x01,
        };
        self.wide_imm(k, COMPARE, [X0, X0, X1], predicate);
        self.pack_words(k, PACKSSDW);
        self.known_result(k, k.shape.bytes());
    }

    /// X0 = X0's words as halfwords. Clobbers X3.
    fn pack_words(&mut self, k: Known, pack: Opc) {
        if k.shape.bytes() == 16 {
            self.asm.ymm_imm(EXTRACT_UPPER, X0, 0, X3, 1);
            self.asm.vzeroupper();
            self.vv(pack, X0, X0, X3);
        } else {
            self.vv(pack, X0, X0, X0);
        }
    }

    /// X1 = one half with the sign of the halves `n`, added to which they round away from zero when cut off: exact as
    /// singles.
    fn half_towards(&mut self, k: Known, n: Xmm) {
        self.vv(PAND, X1, n, sign());
        self.every(X2, 1, 0x3800);
        self.vv(POR, X1, X1, X2);
        self.widen(k, X1, X1);
    }

    fn half_rounded(&mut self, name: VName, k: Known, inst: &Inst) {
        let n = self.half_operand(k, k.op.n);
        self.widen(k, X0, n);
        let mode = match name {
            VName::Frintn => QUIETLY,
            VName::Frintm => QUIETLY | 1,
            VName::Frintp => QUIETLY | 2,
            VName::Frintx => BY_MXCSR,
            VName::Frinti => QUIETLY | BY_MXCSR,
            _ => QUIETLY | 3,
        };
        if name == VName::Frinta {
            self.half_towards(k, n);
            self.wide(k, opc(0, 1, ADDPS), X0, X0, X1);
        }
        self.wide_imm(k, ROUND, [X0, Xmm(0), X0], mode);
        self.half_result(k, Odd::Nan, inst);
    }

    fn half_from_integer(&mut self, signed: bool, k: Known, inst: &Inst) {
        let n = self.half_operand(k, k.op.n);
        self.wide(k, if signed { PMOVSXWD } else { PMOVZXWD }, X0, Xmm(0), n);
        self.wide(k, CVTDQ2PS, X0, Xmm(0), X0);
        let fbits = Conversion::unpack(k.shape.param()).fbits;
        if fbits > 0 {
            self.wide_every(X1, 2, u64::from(127 - fbits) << 23);
            self.wide(k, opc(0, 1, MULPS), X0, X0, X1);
        }
        self.half_result(k, Odd::Nothing, inst);
    }

    fn half_to_integer(&mut self, name: VName, k: Known, inst: &Inst) -> bool {
        let Some((rounding, signed)) = super::known_float::integer_of(name) else { return false };
        let n = self.half_operand(k, k.op.n);
        self.widen(k, X3, n);
        let fbits = Conversion::unpack(k.shape.param()).fbits;
        if fbits > 0 {
            self.wide_every(X1, 2, u64::from(127 + fbits) << 23);
            self.wide(k, opc(0, 1, MULPS), X3, X3, X1);
        }
        let mode = host_rounding(rounding);
        if rounding == Rounding::TieAway {
            self.half_towards(k, n);
            self.wide(k, opc(0, 1, ADDPS), X0, X3, X1);
            self.wide_imm(k, ROUND, [X0, Xmm(0), X0], QUIETLY | 3);
        } else {
            self.wide_imm(k, ROUND, [X0, Xmm(0), X3], QUIETLY | mode.unwrap_or(3));
        }
        // NaNs and infinities are beyond the largest, as integers compare them.
        self.wide_every(X1, 2, if signed { LARGEST } else { LARGEST_UNSIGNED });
        if signed {
            self.wide_shift(k, SLL, X2, X0, 1);
            self.wide_shift(k, SRL, X2, X2, 1);
            self.wide(k, PCMPGT[2], X2, X2, X1);
        } else {
            self.wide(k, PCMPGT[2], X2, X0, X1);
            self.wide_shift(k, SRA, X1, X0, 31);
            self.wide(k, POR, X2, X2, X1);
        }
        let slow = self.any_of(k, X2);
        // For the inexact flag alone.
        self.wide_imm(k, ROUND, [X1, Xmm(0), X3], mode.unwrap_or(0));
        self.wide(k, CVTTPS2DQ, X0, Xmm(0), X0);
        self.pack_words(k, if signed { PACKSSDW } else { PACKUSDW });
        self.known_result(k, k.shape.bytes());
        self.slow_from(slow, inst);
        true
    }

    /// FCVT of a scalar from or to half precision.
    fn convert_half(&mut self, name: VName, k: Known, inst: &Inst) {
        let half = Known { shape: crate::helpers::vector::Shape::scalar(1), ..k };
        match name {
            VName::HalfToSingle | VName::HalfToDouble => {
                let n = self.half_operand(half, k.op.n);
                self.asm.vex(TO_SINGLES, X0.0, 0, n);
                let double = name == VName::HalfToDouble;
                if double {
                    self.vv(opc(2, 1, 0x5a), X0, X0, X0);
                }
                let result = Xmm(self.asm.hardware(X0.0));
                self.is_nan(double, X0);
                let nan = self.asm.jcc(Cc::P);
                self.vector_adopt(k.op.d, X0, if double { 64 } else { 32 });
                let scalar = Scalar { double: [double; 2], n: result, result };
                return self.odd_one_from(nan, inst, k.op.d, scalar);
            }
            VName::SingleToHalf => {
                let n = self.clean(k.op.n, 4);
                self.vmov(X0, n);
            }
            _ => {
                // To the precision of singles, rounded to odd.
                let n = self.clean(k.op.n, 8);
                self.every(X1, 3, BEYOND);
                self.vv(PAND, X2, n, X1);
                self.vv(PXOR, X3, X3, X3);
                self.vv(PCMPEQ[3], X2, X2, X3);
                self.vv(PANDN, X0, X1, n);
                self.every(X1, 3, LAST);
                self.vv(PANDN, X2, X2, X1);
                self.vv(POR, X0, X0, X2);
                self.asm.vex(CVTPD2PS, X0.0, 0, X0);
            }
        }
        self.narrow_halves(half);
        let result = Xmm(self.asm.hardware(X0.0));
        let odd = self.odd_halves(Odd::NanOrLeast);
        self.known_result(half, 2);
        self.odd_half_from(odd, inst, k.op.d, result);
    }
}
