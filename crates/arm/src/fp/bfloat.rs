//! BFloat16: conversion to it, and sums of its products in single precision.

use super::arith::{fused_sum, product};
use super::convert::convert_nan;
use super::*;

/// A BFloat16 number as the single-precision number that it is.
#[inline]
const fn widen(op: u64) -> u64 {
    (op & 0xffff) << 16
}

/// `FPConvertBF`: single precision to BFloat16.
pub fn convert_to_bfloat(env: &mut FpEnv, op: u64) -> u64 {
    env.without_exceptions(|env| {
        let u = unpack::<Single>(env, op);
        match u.class {
            Class::QuietNan | Class::SignallingNan => {
                if u.is(Class::SignallingNan) {
                    env.raise(FPSR_IOC);
                }
                let default = env.only_default_nans();
                if default { env.default_nan::<BFloat>() } else { convert_nan::<Single, BFloat>(op, u.sign) }
            }
            Class::Infinity => infinity::<BFloat>(u.sign),
            Class::Zero => zero::<BFloat>(u.sign),
            Class::Nonzero => {
                let (rounding, flush) = (env.rounding(), env.flushes::<Single>());
                round_base::<BFloat>(env, u.sign, u.exp, u.sig, rounding, flush)
            }
        }
    })
}

/// `BFMulAddH` (BFMLALB, BFMLALT): `addend + a * b` in single precision, of BFloat16 factors, rounded once.
pub fn bf_mul_add(env: &mut FpEnv, addend: u64, a: u64, b: u64) -> u64 {
    env.without_exceptions(|env| mul_add::<Single>(env, addend, widen(a), widen(b)))
}

/// `BFDotAdd` (BFDOT, BFMMLA): `addend + a[0] * b[0] + a[1] * b[1]` of BFloat16 factors. FPCR only chooses the sign of
/// the default NaN, unless it asks for the extended behaviours. Nothing is raised.
pub fn bf_dot_add(env: &FpEnv, addend: u64, a: [u64; 2], b: [u64; 2]) -> u64 {
    if env.fpcr & FPCR_EBF != 0 {
        // The products' sum is rounded once, and every NaN is the default one.
        let mut env = FpEnv::new((env.fpcr & !FPCR_AHP) | FPCR_DN);
        let sum = dot(&mut env, a.map(widen), b.map(widen));
        return add::<Single>(&mut env, addend, sum);
    }
    let [first, second] = [0, 1].map(|i| multiply_to_odd(env, widen(a[i]), widen(b[i])));
    let sum = add_to_odd(env, first, second);
    add_to_odd(env, addend, sum)
}

/// `FPDot`: two products and their sum, rounded once.
fn dot(env: &mut FpEnv, a: [u64; 2], b: [u64; 2]) -> u64 {
    let a = a.map(|op| unpack::<Single>(env, op));
    let b = b.map(|op| unpack::<Single>(env, op));
    let invalid = |i: usize| {
        let pair = (a[i].class, b[i].class);
        matches!(pair, (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity))
    };
    if a.iter().chain(&b).any(Unpacked::is_nan) || invalid(0) || invalid(1) {
        return env.default_nan::<Single>();
    }
    let [p, q] = [0, 1].map(|i| {
        let sign = a[i].sign != b[i].sign;
        if a[i].is(Class::Infinity) || b[i].is(Class::Infinity) {
            return Unpacked::special(Class::Infinity, sign);
        }
        if a[i].is(Class::Zero) || b[i].is(Class::Zero) {
            return Unpacked::special(Class::Zero, sign);
        }
        // Sixteen significant bits: nothing is below the upper half.
        let (exp, sig) = product(&a[i], &b[i]);
        Unpacked { class: Class::Nonzero, sign, exp, sig: (sig >> 64) as u64 }
    });
    let rounding = env.rounding();
    match (p.class, q.class) {
        (Class::Infinity, Class::Infinity) if p.sign != q.sign => env.default_nan::<Single>(),
        (Class::Infinity, _) => infinity::<Single>(p.sign),
        (_, Class::Infinity) => infinity::<Single>(q.sign),
        (Class::Zero, Class::Zero) if p.sign == q.sign => zero::<Single>(p.sign),
        (Class::Zero, Class::Zero) => zero_sum::<Single>(rounding),
        _ => {
            let exact = (!q.is(Class::Zero)).then_some((q.exp, u128::from(q.sig) << 64));
            match fused_sum(p, q.sign, exact) {
                Some((sign, exp, sig)) => round::<Single>(env, sign, exp, sig, rounding),
                None => zero_sum::<Single>(rounding),
            }
        }
    }
}

/// `BFUnpack`: subnormal numbers are zeros.
fn unpack_flushed(op: u64) -> Unpacked {
    unpack_base::<Single>(&mut FpEnv::new(0), op, (true, false), false)
}

/// `BFRound`: to odd, with subnormal results as zeros and infinity for what is too large.
fn round_to_odd(sign: bool, exp: i32, sig: u64) -> u64 {
    if exp < Single::MIN_EXP {
        return zero::<Single>(sign);
    }
    let mut env = FpEnv::new(0);
    let result = round_base::<Single>(&mut env, sign, exp, sig, Rounding::Odd, false);
    if env.fpsr & FPSR_OFC != 0 { infinity::<Single>(sign) } else { result }
}

/// `BFMulH`.
fn multiply_to_odd(env: &FpEnv, a: u64, b: u64) -> u64 {
    let (a, b) = (unpack_flushed(a), unpack_flushed(b));
    let sign = a.sign != b.sign;
    if a.is_nan() || b.is_nan() {
        return env.default_nan::<Single>();
    }
    match (a.class, b.class) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => env.default_nan::<Single>(),
        (Class::Infinity, _) | (_, Class::Infinity) => infinity::<Single>(sign),
        (Class::Zero, _) | (_, Class::Zero) => zero::<Single>(sign),
        _ => {
            let (exp, sig) = product(&a, &b);
            round_to_odd(sign, exp, (sig >> 64) as u64 | u64::from(sig as u64 != 0))
        }
    }
}

/// `FPAdd_BF16`.
fn add_to_odd(env: &FpEnv, a: u64, b: u64) -> u64 {
    let (a, b) = (unpack_flushed(a), unpack_flushed(b));
    if a.is_nan() || b.is_nan() {
        return env.default_nan::<Single>();
    }
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) if a.sign != b.sign => env.default_nan::<Single>(),
        (Class::Infinity, _) => infinity::<Single>(a.sign),
        (_, Class::Infinity) => infinity::<Single>(b.sign),
        (Class::Zero, Class::Zero) => zero::<Single>(a.sign && b.sign),
        _ => {
            let exact = (!b.is(Class::Zero)).then_some((b.exp, u128::from(b.sig) << 64));
            match fused_sum(a, b.sign, exact) {
                Some((sign, exp, sig)) => round_to_odd(sign, exp, sig),
                None => zero::<Single>(false),
            }
        }
    }
}
