//! Conversions between formats and with integers and fixed point; rounding to an integral value.

use super::*;

/// `FPConvert` with FPCR's rounding mode.
pub fn convert<From: Format, To: Format>(env: &mut FpEnv, op: u64) -> u64 {
    let rounding = env.rounding();
    convert_rounding::<From, To>(env, op, rounding)
}

/// FCVTXN: double to single precision, rounding to odd.
pub fn convert_to_odd_single(env: &mut FpEnv, op: u64) -> u64 {
    convert_rounding::<Double, Single>(env, op, Rounding::Odd)
}

fn convert_rounding<From: Format, To: Format>(env: &mut FpEnv, op: u64, rounding: Rounding) -> u64 {
    let alternative = To::BITS == 16 && env.fpcr & FPCR_AHP != 0;
    let u = unpack_cv::<From>(env, op);
    match u.class {
        Class::QuietNan | Class::SignallingNan => {
            if u.is(Class::SignallingNan) || alternative {
                env.raise(FPSR_IOC);
            }
            if alternative {
                zero::<To>(u.sign)
            } else if env.only_default_nans() {
                env.default_nan::<To>()
            } else {
                convert_nan::<From, To>(op, u.sign)
            }
        }
        Class::Infinity if alternative => {
            env.raise(FPSR_IOC);
            sign_bit::<To>(u.sign) | 0x7fff
        }
        Class::Infinity => infinity::<To>(u.sign),
        Class::Zero => zero::<To>(u.sign),
        Class::Nonzero => {
            process_denormals::<From>(env, &[op]);
            round_cv::<To>(env, u.sign, u.exp, u.sig, rounding)
        }
    }
}

/// `FPConvertNaN`: keeps the top of the payload and makes the NaN quiet.
pub(super) fn convert_nan<From: Format, To: Format>(op: u64, sign: bool) -> u64 {
    let frac = (op & From::FRAC_MASK) << (63 - From::FRAC) >> (63 - To::FRAC);
    sign_bit::<To>(sign) | To::INFINITY | To::QUIET | (frac & To::FRAC_MASK)
}

/// `FPRoundInt`: to an integral value in the same format; `exact` reports inexactness (FRINTX).
pub fn round_int<F: Format>(env: &mut FpEnv, op: u64, rounding: Rounding, exact: bool) -> u64 {
    let u = unpack::<F>(env, op);
    match u.class {
        Class::QuietNan | Class::SignallingNan => process_nan::<F>(env, u.class, op),
        Class::Infinity => infinity::<F>(u.sign),
        Class::Zero => zero::<F>(u.sign),
        Class::Nonzero => {
            if u.exp >= F::FRAC as i32 {
                return op;
            }
            let (int, inexact) = round_to_u128(&u, 0, rounding);
            if inexact && exact {
                env.raise(FPSR_IXC);
            }
            let int = int as u64;
            if int == 0 {
                return zero::<F>(u.sign);
            }
            let shift = int.leading_zeros();
            round::<F>(env, u.sign, 63 - shift as i32, int << shift, Rounding::Zero)
        }
    }
}

/// `FPRoundIntN`: to an integral value that a signed integer of `bits` (32 or 64) holds; what does not fit is invalid
/// and becomes the most negative one.
pub fn round_int_n<F: Format>(env: &mut FpEnv, op: u64, rounding: Rounding, bits: u32) -> u64 {
    let u = unpack::<F>(env, op);
    let (magnitude, inexact) = match u.class {
        Class::Zero => return zero::<F>(u.sign),
        Class::Nonzero => round_to_u128(&u, 0, rounding),
        Class::Infinity | Class::QuietNan | Class::SignallingNan => (1 << 65, false),
    };
    let limit = (1 << (bits - 1)) - u128::from(!u.sign);
    if magnitude > limit {
        env.raise(FPSR_IOC);
        return F::SIGN | ((F::BIAS as u64 + u64::from(bits) - 1) << F::FRAC);
    }
    if inexact {
        env.raise(FPSR_IXC);
    }
    if magnitude == 0 {
        return zero::<F>(u.sign);
    }
    let shift = (magnitude as u64).leading_zeros();
    round::<F>(env, u.sign, 63 - shift as i32, (magnitude as u64) << shift, Rounding::Zero)
}

/// The magnitude of a nonzero operand times `2^fbits` as an integer, and whether that is inexact.
/// Magnitudes of `2^65` and more come out as `2^65` or more, not exactly.
#[inline]
fn round_to_u128(u: &Unpacked, fbits: u32, rounding: Rounding) -> (u128, bool) {
    let exp = u.exp + fbits as i32;
    let (int, rem) = match exp {
        64.. => return (1 << 65, false),
        63 => (u.sig, 0),
        0..63 => (u.sig >> (63 - exp), u.sig << (exp + 1)),
        -1 => (0, u.sig),
        _ => (0, 1),
    };
    let up = rounding.rounds_up(u.sign, int & 1 != 0, rem, 1 << 63);
    (u128::from(int) + u128::from(up), rem != 0)
}

/// `FPToFixed`: to an integer of `bits` (16, 32 or 64) with `fbits` fraction bits, saturating.
/// The result is zero-extended from `bits`.
pub fn to_fixed<F: Format>(
    env: &mut FpEnv,
    op: u64,
    fbits: u32,
    unsigned: bool,
    rounding: Rounding,
    bits: u32,
) -> u64 {
    to_fixed_value::<F>(env, op, fbits, unsigned, rounding, bits) & (u64::MAX >> (64 - bits))
}

/// As [`to_fixed`], sign-extended to 64 bits when signed.
pub fn to_fixed_value<F: Format>(
    env: &mut FpEnv,
    op: u64,
    fbits: u32,
    unsigned: bool,
    rounding: Rounding,
    bits: u32,
) -> u64 {
    let u = unpack::<F>(env, op);
    let (magnitude, inexact) = match u.class {
        Class::Zero => return 0,
        Class::QuietNan | Class::SignallingNan => {
            env.raise(FPSR_IOC);
            return 0;
        }
        Class::Infinity => (1 << 65, false),
        Class::Nonzero => round_to_u128(&u, fbits, rounding),
    };
    let limit: u128 = match (unsigned, u.sign) {
        (true, true) => 0,
        (true, false) => (1 << bits) - 1,
        (false, true) => 1 << (bits - 1),
        (false, false) => (1 << (bits - 1)) - 1,
    };
    if magnitude > limit {
        env.raise(FPSR_IOC);
    } else if inexact {
        env.raise(FPSR_IXC);
    }
    let value = magnitude.min(limit) as u64;
    if u.sign { value.wrapping_neg() } else { value }
}

/// `FixedToFP`: from a 64-bit integer (extended by the caller) with `fbits` fraction bits.
pub fn fixed_to_fp<F: Format>(
    env: &mut FpEnv,
    op: u64,
    fbits: u32,
    unsigned: bool,
    rounding: Rounding,
) -> u64 {
    let sign = !unsigned && (op as i64) < 0;
    let magnitude = if sign { op.wrapping_neg() } else { op };
    if magnitude == 0 {
        return 0;
    }
    let shift = magnitude.leading_zeros();
    round::<F>(env, sign, 63 - shift as i32 - fbits as i32, magnitude << shift, rounding)
}

/// `FPToFixedJS`: double precision to a 32-bit integer modulo 2^32, and whether the conversion was exact
/// (the Z flag of FJCVTZS).
pub fn js_to_int32(env: &mut FpEnv, op: u64) -> (u32, bool) {
    let u = unpack::<Double>(env, op);
    match u.class {
        // Minus zero is not exact: JavaScript tells it from zero. A flushed operand counts as inexact.
        Class::Zero => (0, op == 0),
        Class::Infinity | Class::QuietNan | Class::SignallingNan => {
            env.raise(FPSR_IOC);
            (0, false)
        }
        Class::Nonzero => {
            let (int, inexact) = match u.exp {
                ..0 => (0, true),
                0..63 => (u.sig >> (63 - u.exp), u.sig << (u.exp + 1) != 0),
                63..=95 => (u.sig << (u.exp - 63).min(63), false),
                _ => (0, false),
            };
            let limit = if u.sign { 1 << 31 } else { (1 << 31) - 1 };
            let overflow = u.exp > 62 || int > limit;
            if overflow {
                env.raise(FPSR_IOC);
            } else if inexact {
                env.raise(FPSR_IXC);
            }
            let value = if u.sign { int.wrapping_neg() } else { int } as u32;
            (value, !overflow && !inexact)
        }
    }
}
