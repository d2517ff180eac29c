//! Arm floating point, bit for bit, in integer arithmetic.
//!
//! Operands and results are raw encodings, zero-extended to 64 bits. Control comes from FPCR and the
//! cumulative exception flags go to FPSR, both in [`FpEnv`]. The host's floating point is never used, so its
//! rounding mode does not matter. Names follow the shared pseudocode of the Arm ARM (J1.3, `shared/functions/float`).

mod arith;
mod bfloat;
mod compare;
mod convert;
mod estimate;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_alternate;

pub use crate::state::FpEnv;
pub use arith::{abs, add, div, max, maxnm, min, minnm, mul, mul_add, mul_add_half, mulx, neg, sqrt, sub};
pub use bfloat::{bf_dot_add, bf_mul_add, convert_to_bfloat};
pub use compare::{compare, compare_eq, compare_ge, compare_gt};
pub use convert::{
    convert, convert_to_odd_single, fixed_to_fp, js_to_int32, round_int, round_int_n, to_fixed,
    to_fixed_value,
};
pub use estimate::{
    recip_estimate, recip_exponent, recip_step, rsqrt_estimate, rsqrt_step, unsigned_recip_estimate,
    unsigned_rsqrt_estimate,
};

/// Alternative half-precision format.
pub const FPCR_AHP: u32 = 1 << 26;
/// Default NaN.
pub const FPCR_DN: u32 = 1 << 25;
/// Flush to zero, single and double precision.
pub const FPCR_FZ: u32 = 1 << 24;
/// Flush to zero, half precision.
pub const FPCR_FZ16: u32 = 1 << 19;
/// Extended BFloat16 behaviours (FEAT_EBF16).
pub const FPCR_EBF: u32 = 1 << 13;
/// The elements of a scalar's register above the lowest come from a source (FEAT_AFP).
pub const FPCR_NEP: u32 = 1 << 2;
/// Alternate handling (FEAT_AFP).
pub const FPCR_AH: u32 = 1 << 1;
/// Flush inputs to zero, single and double precision (FEAT_AFP).
pub const FPCR_FIZ: u32 = 1 << 0;
/// Lowest bit of the rounding mode field.
pub const FPCR_RMODE_SHIFT: u32 = 22;

/// Cumulative saturation.
pub const FPSR_QC: u32 = 1 << 27;
/// Input denormal.
pub const FPSR_IDC: u32 = 1 << 7;
/// Inexact.
pub const FPSR_IXC: u32 = 1 << 4;
/// Underflow.
pub const FPSR_UFC: u32 = 1 << 3;
/// Overflow.
pub const FPSR_OFC: u32 = 1 << 2;
/// Division by zero.
pub const FPSR_DZC: u32 = 1 << 1;
/// Invalid operation.
pub const FPSR_IOC: u32 = 1 << 0;

impl FpEnv {
    /// An environment with this FPCR and no flag set.
    pub const fn new(fpcr: u32) -> Self {
        Self { fpcr, fpsr: 0 }
    }

    /// Sets a cumulative flag (`FPProcessException`; no trap is supported).
    #[inline]
    pub const fn raise(&mut self, flag: u32) {
        self.fpsr |= flag;
    }

    /// The rounding mode that FPCR asks for.
    #[inline]
    pub const fn rounding(&self) -> Rounding {
        match (self.fpcr >> FPCR_RMODE_SHIFT) & 3 {
            0 => Rounding::TieEven,
            1 => Rounding::PosInf,
            2 => Rounding::NegInf,
            _ => Rounding::Zero,
        }
    }

    /// Is alternate handling (FPCR.AH) asked for?
    #[inline]
    const fn alternate(&self) -> bool {
        self.fpcr & FPCR_AH != 0
    }

    /// Does every NaN result become the default NaN?
    #[inline]
    const fn only_default_nans(&self) -> bool {
        self.fpcr & FPCR_DN != 0
    }

    /// `FPDefaultNaN`: negative under alternate handling.
    #[inline]
    const fn default_nan<F: Format>(&self) -> u64 {
        if self.alternate() { F::DEFAULT_NAN | F::SIGN } else { F::DEFAULT_NAN }
    }

    /// Are subnormal results of this format flushed to zero?
    #[inline]
    const fn flushes<F: Format>(&self) -> bool {
        self.fpcr & (if F::BITS == 16 { FPCR_FZ16 } else { FPCR_FZ }) != 0
    }

    /// Are subnormal operands of this format flushed to zero, and does that raise Input Denormal?
    #[inline]
    const fn flushes_operands<F: Format>(&self) -> (bool, bool) {
        if F::BITS == 16 {
            return (self.fpcr & FPCR_FZ16 != 0, false);
        }
        let with_flag = self.fpcr & (FPCR_FZ | FPCR_AH) == FPCR_FZ;
        (with_flag || self.fpcr & FPCR_FIZ != 0, with_flag)
    }

    /// Computes as the instructions do that under alternate handling round to nearest, flush subnormal numbers to
    /// zero on their way in and out, and raise nothing: estimates, their Newton steps, and BFloat16's.
    #[inline]
    fn without_exceptions<T>(&mut self, compute: impl FnOnce(&mut Self) -> T) -> T {
        if !self.alternate() {
            return compute(self);
        }
        let fpcr = self.fpcr & !(3 << FPCR_RMODE_SHIFT) | FPCR_FIZ | FPCR_FZ;
        compute(&mut Self::new(fpcr))
    }
}

/// `FPRounding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rounding {
    /// To nearest, ties to even (RN).
    TieEven = 0,
    /// Towards plus infinity (RP).
    PosInf = 1,
    /// Towards minus infinity (RM).
    NegInf = 2,
    /// Towards zero (RZ).
    Zero = 3,
    /// To nearest, ties away from zero.
    TieAway = 4,
    /// To odd: an inexact result has its lowest bit set.
    Odd = 5,
}

impl Rounding {
    /// The mode with this number; numbers past the last are `TieEven`.
    #[inline]
    pub const fn from_index(index: u32) -> Self {
        match index {
            1 => Self::PosInf,
            2 => Self::NegInf,
            3 => Self::Zero,
            4 => Self::TieAway,
            5 => Self::Odd,
            _ => Self::TieEven,
        }
    }

    /// Is the magnitude rounded up, given its remainder below the lowest kept bit (`half` is one half)?
    #[inline]
    const fn rounds_up(self, sign: bool, odd: bool, rem: u64, half: u64) -> bool {
        match self {
            Self::TieEven => rem > half || (rem == half && odd),
            Self::TieAway => rem >= half && rem != 0,
            Self::PosInf => rem != 0 && !sign,
            Self::NegInf => rem != 0 && sign,
            Self::Zero => false,
            Self::Odd => rem != 0 && !odd,
        }
    }

    /// Does a result that is too large become an infinity rather than the largest number?
    #[inline]
    const fn overflows_to_infinity(self, sign: bool) -> bool {
        match self {
            Self::TieEven | Self::TieAway => true,
            Self::PosInf => !sign,
            Self::NegInf => sign,
            Self::Zero | Self::Odd => false,
        }
    }
}

/// A binary interchange format.
pub trait Format: Copy + 'static {
    /// Width of the encoding.
    const BITS: u32;
    /// Width of the fraction.
    const FRAC: u32;
    /// Width of the exponent.
    const EXP: u32 = Self::BITS - Self::FRAC - 1;
    /// Exponent bias.
    const BIAS: i32 = (1 << (Self::EXP - 1)) - 1;
    /// Exponent of the smallest normal number.
    const MIN_EXP: i32 = 1 - Self::BIAS;
    /// Largest biased exponent, that of infinities and NaNs.
    const EXP_MAX: u64 = (1 << Self::EXP) - 1;
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::BITS - 1);
    /// The fraction's bits.
    const FRAC_MASK: u64 = (1 << Self::FRAC) - 1;
    /// All bits of the encoding.
    const MASK: u64 = u64::MAX >> (64 - Self::BITS);
    /// Positive infinity.
    const INFINITY: u64 = Self::EXP_MAX << Self::FRAC;
    /// The bit that makes a NaN quiet.
    const QUIET: u64 = 1 << (Self::FRAC - 1);
    /// The default NaN.
    const DEFAULT_NAN: u64 = Self::INFINITY | Self::QUIET;
    /// The largest finite number.
    const MAX_NORMAL: u64 = Self::INFINITY - 1;
    /// One.
    const ONE: u64 = (Self::BIAS as u64) << Self::FRAC;
}

/// Half precision (IEEE, unless a conversion says alternative).
#[derive(Clone, Copy, Debug)]
pub struct Half;
/// Single precision.
#[derive(Clone, Copy, Debug)]
pub struct Single;
/// Double precision.
#[derive(Clone, Copy, Debug)]
pub struct Double;

/// BFloat16: the upper half of single precision.
#[derive(Clone, Copy, Debug)]
struct BFloat;

impl Format for BFloat {
    const BITS: u32 = 16;
    const FRAC: u32 = 7;
}
impl Format for Half {
    const BITS: u32 = 16;
    const FRAC: u32 = 10;
}
impl Format for Single {
    const BITS: u32 = 32;
    const FRAC: u32 = 23;
}
impl Format for Double {
    const BITS: u32 = 64;
    const FRAC: u32 = 52;
}

/// `FPType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Zero,
    Nonzero,
    Infinity,
    QuietNan,
    SignallingNan,
}

/// An operand taken apart. For `Nonzero` the value is `sig / 2^63 * 2^exp` with bit 63 of `sig` set.
#[derive(Clone, Copy, Debug)]
struct Unpacked {
    class: Class,
    sign: bool,
    exp: i32,
    sig: u64,
}

impl Unpacked {
    #[inline]
    const fn special(class: Class, sign: bool) -> Self {
        Self { class, sign, exp: 0, sig: 0 }
    }

    #[inline]
    const fn is_nan(&self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignallingNan)
    }

    #[inline]
    fn is(&self, class: Class) -> bool {
        self.class == class
    }

    /// Of two finite or infinite operands, is `self` less than `other`?
    #[inline]
    fn less(&self, other: &Self) -> bool {
        let key = |u: &Self| -> (i32, u64) {
            match u.class {
                Class::Zero => (i32::MIN, 0),
                Class::Infinity => (i32::MAX, 0),
                _ => (u.exp, u.sig),
            }
        };
        if self.is(Class::Zero) && other.is(Class::Zero) {
            return false;
        }
        match (self.sign && !self.is(Class::Zero), other.sign && !other.is(Class::Zero)) {
            (true, false) => true,
            (false, true) => false,
            (false, false) => key(self) < key(other),
            (true, true) => key(other) < key(self),
        }
    }
}

/// `FPUnpack`: flushes a subnormal operand if FPCR asks for that.
#[inline]
fn unpack<F: Format>(env: &mut FpEnv, op: u64) -> Unpacked {
    let (flush, with_flag) = env.flushes_operands::<F>();
    unpack_base::<F>(env, op, (flush, with_flag), false)
}

/// `FPUnpackCV`: for conversions between formats. FZ16 has no say, AHP has.
#[inline]
fn unpack_cv<F: Format>(env: &mut FpEnv, op: u64) -> Unpacked {
    let flush = if F::BITS == 16 { (false, false) } else { env.flushes_operands::<F>() };
    let alternative = F::BITS == 16 && env.fpcr & FPCR_AHP != 0;
    unpack_base::<F>(env, op, flush, alternative)
}

#[inline]
fn unpack_base<F: Format>(
    env: &mut FpEnv,
    op: u64,
    (flush, with_flag): (bool, bool),
    alternative: bool,
) -> Unpacked {
    let sign = op & F::SIGN != 0;
    let biased = (op >> F::FRAC) & F::EXP_MAX;
    let frac = op & F::FRAC_MASK;
    if biased == 0 {
        if frac == 0 {
            return Unpacked::special(Class::Zero, sign);
        }
        if flush {
            if with_flag {
                env.raise(FPSR_IDC);
            }
            return Unpacked::special(Class::Zero, sign);
        }
        let shift = frac.leading_zeros();
        let exp = F::MIN_EXP - (shift as i32 - (63 - F::FRAC as i32));
        return Unpacked { class: Class::Nonzero, sign, exp, sig: frac << shift };
    }
    if biased == F::EXP_MAX && !alternative {
        let class = if frac == 0 {
            Class::Infinity
        } else if frac & F::QUIET != 0 {
            Class::QuietNan
        } else {
            Class::SignallingNan
        };
        return Unpacked::special(class, sign);
    }
    let sig = (frac | (1 << F::FRAC)) << (63 - F::FRAC);
    Unpacked { class: Class::Nonzero, sign, exp: biased as i32 - F::BIAS, sig }
}

/// `FPProcessDenorms`: under alternate handling, a subnormal operand that is not flushed raises Input Denormal.
#[inline]
fn process_denormals<F: Format>(env: &mut FpEnv, operands: &[u64]) {
    if F::BITS != 16 && env.alternate() && env.fpcr & FPCR_FIZ == 0 {
        let subnormal = |op: &u64| op & !F::SIGN != 0 && op & F::INFINITY == 0;
        if operands.iter().any(subnormal) {
            env.raise(FPSR_IDC);
        }
    }
}

#[inline]
const fn sign_bit<F: Format>(sign: bool) -> u64 {
    if sign { F::SIGN } else { 0 }
}

#[inline]
const fn zero<F: Format>(sign: bool) -> u64 {
    sign_bit::<F>(sign)
}

#[inline]
const fn infinity<F: Format>(sign: bool) -> u64 {
    sign_bit::<F>(sign) | F::INFINITY
}

/// The zero that an exact sum of opposite values has.
#[inline]
fn zero_sum<F: Format>(rounding: Rounding) -> u64 {
    zero::<F>(rounding == Rounding::NegInf)
}

/// Invalid operation with a default NaN as its result.
#[cold]
fn invalid<F: Format>(env: &mut FpEnv) -> u64 {
    env.raise(FPSR_IOC);
    env.default_nan::<F>()
}

/// `FPProcessNaN`: `op` is a NaN of this class.
#[cold]
fn process_nan<F: Format>(env: &mut FpEnv, class: Class, op: u64) -> u64 {
    if class == Class::SignallingNan {
        env.raise(FPSR_IOC);
    }
    if env.only_default_nans() { env.default_nan::<F>() } else { op | F::QUIET }
}

/// `FPProcessNaNs`: the result if either operand is a NaN.
#[inline]
fn process_nans<F: Format>(env: &mut FpEnv, a: (Unpacked, u64), b: (Unpacked, u64)) -> Option<u64> {
    if !a.0.is_nan() && !b.0.is_nan() {
        return None;
    }
    let signalling = [a, b].into_iter().find(|(u, _)| u.is(Class::SignallingNan));
    if env.alternate() && a.0.is_nan() && b.0.is_nan() {
        let class = signalling.map_or(Class::QuietNan, |(u, _)| u.class);
        return Some(process_nan::<F>(env, class, a.1));
    }
    let chosen = signalling.unwrap_or(if a.0.is_nan() { a } else { b });
    Some(process_nan::<F>(env, chosen.0.class, chosen.1))
}

/// `x >> n`, with every bit that falls out ORed into the lowest.
#[inline]
const fn shift_right_jam(x: u64, n: u32) -> u64 {
    if n == 0 {
        x
    } else if n < 64 {
        (x >> n) | ((x << (64 - n)) != 0) as u64
    } else {
        (x != 0) as u64
    }
}

#[inline]
const fn shift_right_jam128(x: u128, n: u32) -> u128 {
    if n == 0 {
        x
    } else if n < 128 {
        (x >> n) | ((x << (128 - n)) != 0) as u128
    } else {
        (x != 0) as u128
    }
}

/// `FPRound` of `sig / 2^63 * 2^exp`; bit 63 of `sig` is set and its lowest bit is sticky.
#[inline]
fn round<F: Format>(env: &mut FpEnv, sign: bool, exp: i32, sig: u64, rounding: Rounding) -> u64 {
    let flush = env.flushes::<F>();
    round_base::<F>(env, sign, exp, sig, rounding, flush)
}

/// `FPRoundCV`: for conversions between formats. FZ16 has no say, AHP has.
#[inline]
fn round_cv<F: Format>(env: &mut FpEnv, sign: bool, exp: i32, sig: u64, rounding: Rounding) -> u64 {
    if F::BITS == 16 && env.fpcr & FPCR_AHP != 0 {
        return round_alternative(env, sign, exp, sig, rounding);
    }
    let flush = F::BITS != 16 && env.flushes::<F>();
    round_base::<F>(env, sign, exp, sig, rounding, flush)
}

#[inline]
fn round_base<F: Format>(
    env: &mut FpEnv,
    sign: bool,
    exp: i32,
    sig: u64,
    rounding: Rounding,
    flush: bool,
) -> u64 {
    if flush && exp < F::MIN_EXP && is_tiny::<F>(env, sign, exp, sig, rounding) {
        env.raise(if env.alternate() { FPSR_UFC | FPSR_IXC } else { FPSR_UFC });
        return zero::<F>(sign);
    }
    let (magnitude, inexact) = round_magnitude::<F>(env, sign, exp, sig, rounding);
    if magnitude >= F::INFINITY {
        env.raise(FPSR_OFC | FPSR_IXC);
        let over = if rounding.overflows_to_infinity(sign) { F::INFINITY } else { F::MAX_NORMAL };
        return sign_bit::<F>(sign) | over;
    }
    if inexact {
        env.raise(FPSR_IXC);
    }
    sign_bit::<F>(sign) | magnitude
}

/// Does a number that is below the smallest normal one count as that? Under alternate handling, only if it still is
/// when rounded with an unbounded exponent.
#[inline]
fn is_tiny<F: Format>(env: &FpEnv, sign: bool, exp: i32, sig: u64, rounding: Rounding) -> bool {
    if !env.alternate() {
        return true;
    }
    let shift = 63 - F::FRAC;
    let (int, rem) = (sig >> shift, sig & ((1 << shift) - 1));
    let up = rounding.rounds_up(sign, int & 1 != 0, rem, 1 << (shift - 1)) && rounding != Rounding::Odd;
    exp < F::MIN_EXP - 1 || !(up && int + 1 == 2 << F::FRAC)
}

/// Rounds to the alternative half-precision format, which has no infinities and no NaNs.
fn round_alternative(env: &mut FpEnv, sign: bool, exp: i32, sig: u64, rounding: Rounding) -> u64 {
    let (magnitude, inexact) = round_magnitude::<Half>(env, sign, exp, sig, rounding);
    if magnitude > 0x7fff {
        env.raise(FPSR_IOC);
        return sign_bit::<Half>(sign) | 0x7fff;
    }
    if inexact {
        env.raise(FPSR_IXC);
    }
    sign_bit::<Half>(sign) | magnitude
}

/// The rounded magnitude as an encoding (which may run past the format's range) and whether it is inexact.
#[inline]
fn round_magnitude<F: Format>(
    env: &mut FpEnv,
    sign: bool,
    exp: i32,
    sig: u64,
    rounding: Rounding,
) -> (u64, bool) {
    let shift = 63 - F::FRAC;
    let subnormal = exp < F::MIN_EXP;
    let tiny = subnormal && is_tiny::<F>(env, sign, exp, sig, rounding);
    let sig = if subnormal { shift_right_jam(sig, (F::MIN_EXP - exp) as u32) } else { sig };
    let mut int = sig >> shift;
    let rem = sig & ((1 << shift) - 1);
    if tiny && rem != 0 {
        env.raise(FPSR_UFC);
    }
    if rounding.rounds_up(sign, int & 1 != 0, rem, 1 << (shift - 1)) {
        int += 1;
    }
    // A carry out of the fraction lands in the exponent, which is what it should do.
    let exponent = if subnormal { 0 } else { (exp - F::MIN_EXP).min(F::EXP_MAX as i32 + 1) as u64 };
    ((exponent << F::FRAC) + int, rem != 0)
}
