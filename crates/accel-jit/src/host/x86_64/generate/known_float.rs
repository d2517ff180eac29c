//! Floating-point vector instructions that are lifted to functions: conversions with any rounding, and the steps of
//! reciprocals. Where a result might raise what Arm does not, or the reverse, the reference decides.

use super::known::Known;
use super::vector::*;
use super::vector_ops::*;
use super::*;
use crate::helpers::vector::float::Conversion;
use crate::ir::VName;
use crate::runtime::state::JitState;
use armlet_arm::fp::Rounding;

pub(super) const ROUND: Opc = opc(1, 3, 0x08);
/// In a rounding mode: leave the inexact flag alone.
pub(super) const QUIETLY: u8 = 8;
/// Predicates of comparisons that do not signal quiet NaNs: not less (or unordered), and greater or equal.
pub(super) const NOT_LESS: u8 = 0x15;
const AT_LEAST: u8 = 0x1d;
const ANDPS: Opc = opc(0, 1, 0x54);
pub(super) const CVTTPS2DQ: Opc = opc(2, 1, 0x5b);
pub(super) const CVTDQ2PS: Opc = opc(0, 1, 0x5b);
/// EVEX only.
const CVTTPS2UDQ: Opc = opc(0, 1, 0x78);
const CVTTPD2QQ: Opc = opcw(1, 1, 0x7a);
const CVTTPD2UQQ: Opc = opcw(1, 1, 0x78);
const CVTUDQ2PS: Opc = opc(3, 1, 0x7a);
const CVTQQ2PD: Opc = opcw(2, 1, 0xe6);
const CVTUQQ2PD: Opc = opcw(2, 1, 0x7a);

/// Numbers of a format.
struct Format {
    /// From here on all numbers are integers.
    integers: u64,
    half: u64,
    one: u64,
    one_and_a_half: u64,
    two: u64,
    infinity: u64,
    /// Twice the smallest normal number.
    small: u64,
    /// Just below 2^31, or 2^63.
    largest_integer: u64,
}

const SINGLE: Format = Format {
    integers: 0x4b00_0000,
    half: 0x3f00_0000,
    one: 0x3f80_0000,
    one_and_a_half: 0x3fc0_0000,
    two: 0x4000_0000,
    infinity: 0x7f80_0000,
    small: 0x0100_0000,
    largest_integer: 0x4eff_ffff,
};

const DOUBLE: Format = Format {
    integers: 0x4330 << 48,
    half: 0x3fe0 << 48,
    one: 0x3ff0 << 48,
    one_and_a_half: 0x3ff8 << 48,
    two: 0x4000 << 48,
    infinity: 0x7ff0 << 48,
    small: 0x0020 << 48,
    largest_integer: 0x43df_ffff_ffff_ffff,
};

fn power_of_two(double: bool, exponent: i32) -> u64 {
    if double { ((1023 + exponent) as u64) << 52 } else { ((127 + exponent) as u64) << 23 }
}

fn format(double: bool) -> Format {
    if double { DOUBLE } else { SINGLE }
}

/// The mode in ROUNDPS's immediate; ties away from zero are none of the host's.
pub(super) fn host_rounding(rounding: Rounding) -> Option<u8> {
    Some(match rounding {
        Rounding::TieEven => 0,
        Rounding::NegInf => 1,
        Rounding::PosInf => 2,
        Rounding::Zero => 3,
        _ => return None,
    })
}

/// How a conversion to integers rounds, and whether they are signed.
pub(super) fn integer_of(name: VName) -> Option<(Rounding, bool)> {
    Some(match name {
        VName::Fcvtns => (Rounding::TieEven, true),
        VName::Fcvtnu => (Rounding::TieEven, false),
        VName::Fcvtps => (Rounding::PosInf, true),
        VName::Fcvtpu => (Rounding::PosInf, false),
        VName::Fcvtms => (Rounding::NegInf, true),
        VName::Fcvtmu => (Rounding::NegInf, false),
        VName::Fcvtas => (Rounding::TieAway, true),
        VName::Fcvtau => (Rounding::TieAway, false),
        VName::Fcvtzs => (Rounding::Zero, true),
        VName::Fcvtzu => (Rounding::Zero, false),
        _ => return None,
    })
}

impl Generator {
    /// False if the host has no short sequence.
    pub(super) fn known_float(&mut self, name: VName, k: Known, inst: &Inst) -> bool {
        if k.es < 2 {
            return self.known_half(name, k, inst);
        }
        match name {
            VName::Frinta => {
                self.clobber_flags();
                let x = self.clean(k.op.n, k.shape.bytes());
                let slow = self.round_away(k.es == 3, x);
                self.known_result(k, k.shape.bytes());
                self.slow_from(slow, inst);
                true
            }
            VName::Scvtf => self.known_from_signed(k),
            VName::Ucvtf => self.known_from_unsigned(k),
            VName::Frecpe | VName::Frsqrte if k.es == 2 => {
                self.known_estimate(name == VName::Frsqrte, k, inst);
                true
            }
            VName::Frecpe | VName::Frsqrte => false,
            VName::Frecps | VName::Frsqrts => {
                self.known_step(name == VName::Frsqrts, k, inst);
                true
            }
            VName::Fmulx => {
                self.known_extended_product(k, inst);
                true
            }
            VName::HalfToSingle | VName::HalfToDouble | VName::SingleToHalf | VName::DoubleToHalf => {
                self.known_half(name, k, inst)
            }
            _ => match integer_of(name) {
                Some((rounding, signed)) => self.known_to_integer(rounding, signed, k, inst),
                None => false,
            },
        }
    }

    /// The value of `v`, with nothing above the lowest `bytes`, where it could raise flags.
    pub(super) fn clean(&mut self, v: VReg, bytes: u32) -> Xmm {
        let x = self.vector_value(v);
        if u32::from(self.bits_of(v)) <= 8 * bytes {
            return x;
        }
        let t = self.vector_temp();
        if bytes == 8 {
            self.asm.vex(MOVQ, t.0, 0, x);
        } else {
            // insertps with a zero mask for the upper three elements
            self.asm.vex_imm(opc(1, 3, 0x21), t.0, x.0, x, 0b1110);
        }
        t
    }

    fn any(&mut self, x: Xmm) -> Fixup {
        self.asm.vex(opc(1, 2, 0x17), x.0, 0, x);
        self.asm.jcc(Cc::NE)
    }

    fn float_abs(&self, double: bool) -> M {
        let [abs, _] = Self::magnitudes(usize::from(!double));
        abs
    }

    fn every_float(&mut self, x: Xmm, double: bool, value: u64) {
        self.broadcast64(x, if double { value } else { value << 32 | value });
    }

    fn packed(double: bool, code: u8) -> Opc {
        opc(u8::from(double), 1, code)
    }

    /// X0 = the elements of `x` rounded to integers, ties away from zero, without a flag. The jump is taken where one is
    /// too large to have a fraction, or a NaN. Clobbers all scratch registers, which `x` is none of.
    pub(super) fn round_away(&mut self, double: bool, x: Xmm) -> Fixup {
        let (f, abs) = (format(double), self.float_abs(double));
        self.asm.vex(ANDPS, X1.0, x.0, abs);
        self.every_float(X2, double, f.integers);
        self.asm.vex_imm(Self::packed(double, 0xc2), X3.0, X1.0, X2, NOT_LESS);
        let slow = self.any(X3);
        self.asm.vex_imm(Opc { op: ROUND.op + u8::from(double), ..ROUND }, X0.0, 0, x, QUIETLY | 3);
        // What is cut off is exact, and so is what is added.
        self.asm.vex(Self::packed(double, 0x5c), X1.0, x.0, X0);
        self.asm.vex(ANDPS, X1.0, X1.0, abs);
        self.every_float(X2, double, f.half);
        self.asm.vex_imm(Self::packed(double, 0xc2), X3.0, X1.0, X2, AT_LEAST);
        self.every_float(X2, double, f.one);
        let sign = if double {
            std::mem::offset_of!(JitState, consts.sign64)
        } else {
            std::mem::offset_of!(JitState, consts.sign32)
        };
        self.vv(PAND, X1, x, Self::constant(sign));
        self.vv(POR, X2, X2, X1);
        self.vv(PAND, X2, X2, X3);
        self.asm.vex(Self::packed(double, 0x58), X0.0, X0.0, X2);
        // Zero keeps its sign.
        self.vv(POR, X0, X0, X1);
        slow
    }

    fn known_to_integer(&mut self, rounding: Rounding, signed: bool, k: Known, inst: &Inst) -> bool {
        let double = k.es == 3;
        self.clobber_flags();
        let mut slow = Vec::new();
        let mut x = self.clean(k.op.n, k.shape.bytes());
        let fbits = Conversion::unpack(k.shape.param()).fbits;
        if fbits > 0 {
            x = self.scaled(x, signed, (k, fbits), &mut slow);
        }
        self.trap_if_any_denormal(double, x);
        let round = Opc { op: ROUND.op + u8::from(double), ..ROUND };
        let mode = host_rounding(rounding);
        let rounded = match mode {
            Some(3) => x,
            Some(mode) => {
                self.asm.vex_imm(round, X0.0, 0, x, QUIETLY | mode);
                X0
            }
            None => {
                slow.push(self.round_away(double, x));
                X0
            }
        };
        if !signed && !self.options.avx512 {
            // From zero to what signed integers reach.
            self.every_float(X1, double, format(double).largest_integer);
            self.vv(PCMPGT[k.e()], X1, rounded, X1);
            self.vv(PXOR, X2, X2, X2);
            self.vv(PCMPGT[k.e()], X2, X2, rounded);
            self.vv(POR, X1, X1, X2);
            slow.push(self.any(X1));
        }
        match (double, self.options.avx512) {
            (true, false) => self.doubles_one_by_one(rounded, &mut slow),
            (true, true) => self.asm.evex(if signed { CVTTPD2QQ } else { CVTTPD2UQQ }, X0.0, 0, rounded),
            (false, true) if !signed => self.asm.evex(CVTTPS2UDQ, X0.0, 0, rounded),
            _ => self.asm.vex(CVTTPS2DQ, X0.0, 0, rounded),
        }
        if !double || self.options.avx512 {
            // The host says so for everything that does not fit.
            self.vv(PCMPEQ[0], X1, X1, X1);
            if signed || !self.options.avx512 {
                self.vshift_imm(SLL, k.es, X1, X1, (8 << k.es) - 1);
            }
            self.vv(PCMPEQ[k.e()], X1, X1, X0);
            slow.push(self.any(X1));
        }
        if mode != Some(3) {
            // For the inexact flag alone.
            self.asm.vex_imm(round, X1.0, 0, x, mode.unwrap_or(0));
        }
        self.known_result(k, k.shape.bytes());
        for fixup in slow {
            self.slow_from(fixup, inst);
        }
        true
    }

    /// X0 = the two doubles of `x` as integers, by general registers.
    fn doubles_one_by_one(&mut self, x: Xmm, slow: &mut Vec<Fixup>) {
        const CVTTSD2SI: Opc = opcw(3, 1, 0x2c);
        self.psrldq(X2, x, 8);
        for (from, to) in [(x, X1), (X2, X2)] {
            self.asm.vex(CVTTSD2SI, RAX.0, 0, from);
            self.asm.op_imm(Op2::Cmp, true, RAX, 1);
            slow.push(self.asm.jcc(Cc::O));
            self.asm.vex(MOVQ_GPR, to.0, 0, RAX);
        }
        self.vv(PUNPCKL[3], X0, X1, X2);
    }

    /// `x` with its fraction bits before the point, where the integer part is not too large by far: that is exact.
    fn scaled(&mut self, x: Xmm, signed: bool, (k, fbits): (Known, u32), slow: &mut Vec<Fixup>) -> Xmm {
        let double = k.es == 3;
        let (bits, t, abs) = (8u32 << k.es, self.vector_temp(), self.float_abs(double));
        let limit = bits - u32::from(signed) - fbits.min(bits - u32::from(signed));
        self.every_float(X2, double, power_of_two(double, limit as i32));
        self.asm.vex(ANDPS, X1.0, x.0, abs);
        self.asm.vex_imm(Self::packed(double, 0xc2), X3.0, X1.0, X2, NOT_LESS);
        slow.push(self.any(X3));
        self.every_float(X1, double, power_of_two(double, fbits as i32));
        self.asm.vex(Self::packed(double, 0x59), t.0, x.0, X1);
        t
    }

    /// X0 = X0 with `fbits` of its bits behind the point: exact.
    fn scale_down(&mut self, k: Known) {
        let fbits = Conversion::unpack(k.shape.param()).fbits;
        if fbits > 0 {
            let double = k.es == 3;
            self.every_float(X1, double, power_of_two(double, -(fbits as i32)));
            self.asm.vex(Self::packed(double, 0x59), X0.0, X0.0, X1);
        }
    }

    /// X3 = where `n` or `m` is infinite or a NaN, X0 = the magnitudes of `n`. Clobbers X1 and X2.
    fn either_infinite(&mut self, double: bool, n: Xmm, m: Xmm) {
        let (abs, compare) = (self.float_abs(double), Self::packed(double, 0xc2));
        self.every_float(X2, double, format(double).infinity);
        self.asm.vex(ANDPS, X0.0, n.0, abs);
        self.asm.vex(ANDPS, X1.0, m.0, abs);
        self.asm.vex_imm(compare, X3.0, X0.0, X2, NOT_LESS);
        self.asm.vex_imm(compare, X1.0, X1.0, X2, NOT_LESS);
        self.vv(POR, X3, X3, X1);
    }

    /// FMULX: zero times infinity is the reference's.
    fn known_extended_product(&mut self, k: Known, inst: &Inst) {
        let double = k.es == 3;
        let (abs, bytes) = (self.float_abs(double), k.shape.bytes());
        self.clobber_flags();
        let n = self.clean(k.op.n, bytes);
        let m = if k.shape.by_element().is_some() {
            let m = self.second(k);
            self.limit_to(m, bytes);
            m
        } else {
            self.clean(k.op.m, bytes)
        };
        self.either_infinite(double, n, m);
        let infinite = self.any(X3);
        self.asm.vex(Self::packed(double, 0x59), X0.0, n.0, m);
        // Rounded up to the smallest normal number, perhaps.
        let [_, least] = Self::magnitudes(usize::from(!double));
        self.asm.vex(ANDPS, X1.0, X0.0, abs);
        self.asm.vex(PCMPEQ[k.e()], X1.0, X1.0, least);
        let tiny = self.any(X1);
        self.known_result(k, bytes);
        self.slow_from(infinite, inst);
        self.slow_from(tiny, inst);
    }

    fn known_from_signed(&mut self, k: Known) -> bool {
        let n = self.clean(k.op.n, k.shape.bytes());
        if k.es == 2 {
            self.asm.vex(CVTDQ2PS, X0.0, 0, n);
        } else if self.options.avx512 {
            self.asm.evex(CVTQQ2PD, X0.0, 0, n);
        } else {
            const CVTSI2SD: Opc = opcw(3, 1, 0x2a);
            self.vv(PXOR, X1, X1, X1);
            self.asm.vex(opcw(1, 1, 0x7e), n.0, 0, RAX);
            self.asm.vex(CVTSI2SD, X0.0, X1.0, RAX);
            self.asm.vex_imm(opcw(1, 3, 0x16), n.0, 0, RAX, 1);
            self.asm.vex(CVTSI2SD, X1.0, X1.0, RAX);
            self.vv(PUNPCKL[3], X0, X0, X1);
        }
        self.scale_down(k);
        self.known_result(k, k.shape.bytes())
    }

    fn known_from_unsigned(&mut self, k: Known) -> bool {
        let n = self.clean(k.op.n, k.shape.bytes());
        match (k.es, self.options.avx512) {
            (2, true) => self.asm.evex(CVTUDQ2PS, X0.0, 0, n),
            (_, true) => self.asm.evex(CVTUQQ2PD, X0.0, 0, n),
            (2, false) => {
                // Both halves convert exactly, and only their sum rounds.
                const TWO_TO_16: u64 = 0x4780_0000;
                self.vshift_imm(SRL, 2, X0, n, 16);
                self.vshift_imm(SLL, 2, X1, n, 16);
                self.vshift_imm(SRL, 2, X1, X1, 16);
                self.asm.vex(CVTDQ2PS, X0.0, 0, X0);
                self.asm.vex(CVTDQ2PS, X1.0, 0, X1);
                self.every_float(X2, false, TWO_TO_16);
                self.asm.vex(opc(0, 1, 0x59), X0.0, X0.0, X2);
                self.asm.vex(opc(0, 1, 0x58), X0.0, X0.0, X1);
            }
            _ => {
                // The halves as fractions of 2^84 and 2^52, whose exponents come off exactly; only the sum rounds.
                self.vshift_imm(SRL, 3, X0, n, 32);
                self.vshift_imm(SLL, 3, X1, n, 32);
                self.vshift_imm(SRL, 3, X1, X1, 32);
                self.broadcast64(X2, 0x4530 << 48);
                self.vv(POR, X0, X0, X2);
                self.broadcast64(X2, 0x4330 << 48);
                self.vv(POR, X1, X1, X2);
                self.broadcast64(X2, 0x4530_0000_0010_0000);
                self.asm.vex(opc(1, 1, 0x5c), X0.0, X0.0, X2);
                self.asm.vex(opc(1, 1, 0x58), X0.0, X0.0, X1);
                // Rounding down makes zero negative.
                let abs = self.float_abs(true);
                self.asm.vex(ANDPS, X0.0, X0.0, abs);
            }
        }
        self.scale_down(k);
        self.known_result(k, k.shape.bytes())
    }

    /// FRECPS: 2 - n * m. FRSQRTS: (3 - n * m) / 2, as 1.5 - n / 2 * m, so that nothing overflows which does not have
    /// to; n / 2 must be exact. Zero times infinity is the reference's.
    fn known_step(&mut self, root: bool, k: Known, inst: &Inst) {
        let double = k.es == 3;
        let f = format(double);
        self.clobber_flags();
        let bytes = k.shape.bytes();
        let (n, m) = (self.clean(k.op.n, bytes), self.clean(k.op.m, bytes));
        self.either_infinite(double, n, m);
        if root {
            self.every_float(X2, double, f.small);
            self.vv(PCMPGT[k.e()], X2, X2, X0);
            self.vv(POR, X3, X3, X2);
            self.limit_to(X3, bytes);
        }
        let slow = self.any(X3);
        let factor = if root {
            self.every_float(X1, double, f.half);
            self.asm.vex(Self::packed(double, 0x59), X1.0, X1.0, n);
            X1
        } else {
            n
        };
        self.every_float(X0, double, if root { f.one_and_a_half } else { f.two });
        // X0 -= factor * m
        self.asm.vex(Opc { pp: 1, map: 2, op: 0xbc, w: double }, X0.0, factor.0, m);
        self.known_result(k, bytes);
        self.slow_from(slow, inst);
    }

    /// FRECPE and FRSQRTE of singles: the fraction from a table, the exponent by subtraction. Others than normal numbers
    /// with normal results, and below zero for roots, are the reference's.
    fn known_estimate(&mut self, root: bool, k: Known, inst: &Inst) {
        const GATHERD: Opc = opc(1, 2, 0x90);
        self.clobber_flags();
        [X1, X2, X3].into_iter().for_each(|x| self.lower(x));
        let n = self.vector_value(k.op.n);
        let (field_of, sum, last) = if root {
            (std::mem::offset_of!(JitState, consts.rsqrt), 380, 254)
        } else {
            (std::mem::offset_of!(JitState, consts.recip), 253, 252)
        };
        // X1: where the number is not as it has to be.
        let magnitude = if root {
            n
        } else {
            let abs = self.float_abs(false);
            self.asm.vex(ANDPS, X0.0, n.0, abs);
            X0
        };
        self.every(X2, 2, 1 << 23);
        self.vv(PCMPGT[2], X1, X2, magnitude);
        self.every(X2, 2, ((last + 1) << 23) - 1);
        self.vv(PCMPGT[2], X2, magnitude, X2);
        self.vv(POR, X1, X1, X2);
        self.limit_to(X1, k.shape.bytes());
        let slow = self.any(X1);
        // X1: the fraction of the result.
        self.vshift_imm(SLL, 2, X1, n, if root { 8 } else { 9 });
        self.vshift_imm(SRL, 2, X1, X1, if root { 23 } else { 24 });
        self.vv(PCMPEQ[0], X2, X2, X2);
        let table = M { index: Some((Gpr(self.asm.hardware(X1.0)), 2)), ..field(field_of) };
        self.vv(PXOR, X3, X3, X3);
        self.asm.vex(GATHERD, X3.0, X2.0, table);
        // X0: the exponent.
        self.vshift_imm(SLL, 2, X1, n, 1);
        self.vshift_imm(SRL, 2, X1, X1, 24);
        self.vshift_imm(SLL, 2, X1, X1, 23);
        self.every(X0, 2, sum << 23);
        self.vv(PSUB[2], X0, X0, X1);
        if root {
            self.vshift_imm(SRL, 2, X0, X0, 24);
            self.vshift_imm(SLL, 2, X0, X0, 23);
        }
        self.vv(POR, X0, X0, X3);
        if !root {
            let sign = Self::constant(std::mem::offset_of!(JitState, consts.sign32));
            self.vv(PAND, X1, n, sign);
            self.vv(POR, X0, X0, X1);
        }
        self.known_result(k, k.shape.bytes());
        self.slow_from(slow, inst);
    }
}
