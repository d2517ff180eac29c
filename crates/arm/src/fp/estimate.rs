//! Reciprocal and reciprocal square root: estimates and Newton steps.

use super::arith::{fused_sum, product};
use super::*;

/// `RecipEstimate` for every input from 256 to 511.
static RECIP: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let a = (i as u32 + 256) * 2 + 1;
        let b = (1 << 19) / a;
        table[i] = b.div_ceil(2) as u16;
        i += 1;
    }
    table
};

/// `RecipSqrtEstimate` for every input from 128 to 511.
static RSQRT: [u16; 384] = {
    let mut table = [0; 384];
    let mut i = 0;
    while i < 384 {
        let a = i as u64 + 128;
        let a = if a < 256 { a * 2 + 1 } else { ((a >> 1 << 1) + 1) * 2 };
        let mut b = 512;
        while a * (b + 1) * (b + 1) < 1 << 28 {
            b += 1;
        }
        table[i] = b.div_ceil(2) as u16;
        i += 1;
    }
    table
};

#[inline]
fn recip_table(a: u64) -> u64 {
    u64::from(RECIP[(a & 0xff) as usize])
}

#[inline]
fn rsqrt_table(a: u64) -> u64 {
    RSQRT.get((a as usize).wrapping_sub(128)).copied().unwrap_or_default().into()
}

/// `RecipEstimate` with increased precision (FEAT_RPRES): twelve fraction bits, of 11 bits below the leading one.
fn recip_12(a: u64) -> u64 {
    let a = 2 * a + 1;
    // Never exactly between two: the divisor is odd.
    ((1 << 26) / a).div_ceil(2)
}

/// `RecipSqrtEstimate` with increased precision, for inputs from 1024 to 4095.
fn rsqrt_12(a: u64) -> u64 {
    // The square root of the middle of the interval, as a double-precision significand: of a + 1/2 or a + 1.
    let halves = if a < 2048 { 2 * a + 1 } else { 2 * ((a & !1) + 1) };
    let doubled = (u128::from(halves) << 95).isqrt() as u64;
    let root = u128::from(doubled.div_ceil(2));
    let (estimate, rest) = ((1 << 65) / root, (1 << 65) % root);
    let up = 2 * rest > root || (2 * rest == root && estimate & 1 != 0);
    (estimate + u128::from(up)) as u64
}

/// Do the estimates of this format have twelve bits?
fn has_12_bits<F: Format>(env: &FpEnv, rpres: bool) -> bool {
    rpres && F::BITS == 32 && env.alternate()
}

/// `FPRecipEstimate`; `rpres` tells that the CPU has FEAT_RPRES.
pub fn recip_estimate<F: Format>(env: &mut FpEnv, op: u64, rpres: bool) -> u64 {
    env.without_exceptions(|env| recip_estimate_in::<F>(env, op, rpres))
}

fn recip_estimate_in<F: Format>(env: &mut FpEnv, op: u64, rpres: bool) -> u64 {
    let u = unpack::<F>(env, op);
    match u.class {
        Class::QuietNan | Class::SignallingNan => return process_nan::<F>(env, u.class, op),
        Class::Infinity => return zero::<F>(u.sign),
        Class::Zero => {
            env.raise(FPSR_DZC);
            return infinity::<F>(u.sign);
        }
        Class::Nonzero => {}
    }
    if u.exp < -F::BIAS - 1 {
        env.raise(FPSR_OFC | FPSR_IXC);
        let over = if env.rounding().overflows_to_infinity(u.sign) { F::INFINITY } else { F::MAX_NORMAL };
        return sign_bit::<F>(u.sign) | over;
    }
    if env.flushes::<F>() && u.exp >= F::BIAS - 1 {
        env.raise(FPSR_UFC);
        return zero::<F>(u.sign);
    }
    // The significand's top bits; the estimate is for 2^-exp scaled to [1/2, 1).
    let frac = if has_12_bits::<F>(env, rpres) {
        (recip_12(u.sig >> 52) & 0xfff) << (F::FRAC - 12)
    } else {
        (recip_table(u.sig >> 55) & 0xff) << (F::FRAC - 8)
    };
    let exp = -1 - u.exp + F::BIAS;
    let bits = match exp {
        1.. => ((exp as u64) << F::FRAC) | frac,
        0 => (F::QUIET) | (frac >> 1),
        _ => (F::QUIET >> 1) | (frac >> 2),
    };
    sign_bit::<F>(u.sign) | bits
}

/// `FPRSqrtEstimate`; `rpres` tells that the CPU has FEAT_RPRES.
pub fn rsqrt_estimate<F: Format>(env: &mut FpEnv, op: u64, rpres: bool) -> u64 {
    env.without_exceptions(|env| rsqrt_estimate_in::<F>(env, op, rpres))
}

fn rsqrt_estimate_in<F: Format>(env: &mut FpEnv, op: u64, rpres: bool) -> u64 {
    let u = unpack::<F>(env, op);
    match u.class {
        Class::QuietNan | Class::SignallingNan => return process_nan::<F>(env, u.class, op),
        Class::Zero => {
            env.raise(FPSR_DZC);
            return infinity::<F>(u.sign);
        }
        _ if u.sign => return invalid::<F>(env),
        Class::Infinity => return zero::<F>(false),
        Class::Nonzero => {}
    }
    let biased = u.exp + F::BIAS;
    let half = (biased & 1) as u32;
    let exp = (3 * F::BIAS - 1 - biased) / 2;
    let frac = if has_12_bits::<F>(env, rpres) {
        (rsqrt_12(u.sig >> (52 + half)) & 0xfff) << (F::FRAC - 12)
    } else {
        (rsqrt_table(u.sig >> (55 + half)) & 0xff) << (F::FRAC - 8)
    };
    ((exp as u64) << F::FRAC) | frac
}

/// `UnsignedRecipEstimate` (URECPE).
pub fn unsigned_recip_estimate(op: u32) -> u32 {
    if op >> 31 == 0 { u32::MAX } else { (recip_table(u64::from(op >> 23)) << 23) as u32 }
}

/// `UnsignedRSqrtEstimate` (URSQRTE).
pub fn unsigned_rsqrt_estimate(op: u32) -> u32 {
    if op >> 30 == 0 { u32::MAX } else { (rsqrt_table(u64::from(op >> 23)) << 23) as u32 }
}

/// `FPRecpX` (FRECPX).
pub fn recip_exponent<F: Format>(env: &mut FpEnv, op: u64) -> u64 {
    env.without_exceptions(|env| recip_exponent_in::<F>(env, op))
}

fn recip_exponent_in<F: Format>(env: &mut FpEnv, op: u64) -> u64 {
    let u = unpack::<F>(env, op);
    if u.is_nan() {
        return process_nan::<F>(env, u.class, op);
    }
    let exp = (op >> F::FRAC) & F::EXP_MAX;
    let exp = if exp == 0 { F::EXP_MAX - 1 } else { !exp & F::EXP_MAX };
    (op & F::SIGN) | (exp << F::FRAC)
}

/// `FPRecipStepFused` (FRECPS): `2 - a * b`.
pub fn recip_step<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    let step_of = Step { addend: F::ONE + (1 << F::FRAC), halvings: 0 };
    env.without_exceptions(|env| step::<F>(env, a, b, step_of))
}

/// `FPRSqrtStepFused` (FRSQRTS): `(3 - a * b) / 2`.
pub fn rsqrt_step<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    let step_of = Step { addend: F::ONE + (3 << (F::FRAC - 1)), halvings: 1 };
    env.without_exceptions(|env| step::<F>(env, a, b, step_of))
}

/// The constants of a Newton step: `(addend - a * b) / 2^halvings`.
#[derive(Clone, Copy)]
struct Step {
    addend: u64,
    halvings: i32,
}

fn step<F: Format>(env: &mut FpEnv, a: u64, b: u64, step: Step) -> u64 {
    let a = neg::<F>(env, a);
    let (ua, ub) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if let Some(nan) = process_nans::<F>(env, (ua, a), (ub, b)) {
        return nan;
    }
    let sign = ua.sign != ub.sign;
    let halved = step.addend - ((step.halvings as u64) << F::FRAC);
    match (ua.class, ub.class) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => return halved,
        (Class::Infinity, _) | (_, Class::Infinity) => return infinity::<F>(sign),
        _ => {}
    }
    let rounding = env.rounding();
    let exact = if ua.is(Class::Zero) || ub.is(Class::Zero) { None } else { Some(product(&ua, &ub)) };
    let addend = unpack::<F>(env, step.addend);
    match fused_sum(addend, sign, exact) {
        Some((sign, exp, sig)) => round::<F>(env, sign, exp - step.halvings, sig, rounding),
        None => zero_sum::<F>(rounding),
    }
}
