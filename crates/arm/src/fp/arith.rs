//! Addition, multiplication, division, square root, fused multiply-add, minimum and maximum.

use super::*;

/// Does the operation leave this operand alone: a NaN under alternate handling, where its sign has no meaning?
#[inline]
const fn is_signless<F: Format>(env: &FpEnv, op: u64) -> bool {
    env.alternate() && op & !F::SIGN > F::INFINITY
}

/// Absolute value; a NaN only loses its sign (`FPAbs`).
#[inline]
pub const fn abs<F: Format>(env: &FpEnv, op: u64) -> u64 {
    if is_signless::<F>(env, op) { op } else { op & !F::SIGN }
}

/// Negation; a NaN only changes its sign (`FPNeg`).
#[inline]
pub const fn neg<F: Format>(env: &FpEnv, op: u64) -> u64 {
    if is_signless::<F>(env, op) { op } else { op ^ F::SIGN }
}

/// `FPAdd`.
#[inline]
pub fn add<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    let (ua, ub) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if let Some(nan) = process_nans::<F>(env, (ua, a), (ub, b)) {
        return nan;
    }
    process_sum::<F>(env, (a, b), ua, ub)
}

/// `FPSub`.
#[inline]
pub fn sub<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    let (ua, mut ub) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if let Some(nan) = process_nans::<F>(env, (ua, a), (ub, b)) {
        return nan;
    }
    ub.sign = !ub.sign;
    process_sum::<F>(env, (a, b), ua, ub)
}

#[inline]
fn process_sum<F: Format>(env: &mut FpEnv, (a, b): (u64, u64), ua: Unpacked, ub: Unpacked) -> u64 {
    process_denormals::<F>(env, &[a, b]);
    add_unpacked::<F>(env, ua, ub)
}

pub(super) fn add_unpacked<F: Format>(env: &mut FpEnv, a: Unpacked, b: Unpacked) -> u64 {
    let rounding = env.rounding();
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) if a.sign != b.sign => invalid::<F>(env),
        (Class::Infinity, _) => infinity::<F>(a.sign),
        (_, Class::Infinity) => infinity::<F>(b.sign),
        (Class::Zero, Class::Zero) if a.sign == b.sign => zero::<F>(a.sign),
        (Class::Zero, Class::Zero) => zero_sum::<F>(rounding),
        (Class::Zero, _) => round::<F>(env, b.sign, b.exp, b.sig, rounding),
        (_, Class::Zero) => round::<F>(env, a.sign, a.exp, a.sig, rounding),
        _ => add_finite::<F>(env, a, b, rounding),
    }
}

fn add_finite<F: Format>(env: &mut FpEnv, a: Unpacked, b: Unpacked, rounding: Rounding) -> u64 {
    let (big, small) = if (a.exp, a.sig) >= (b.exp, b.sig) { (a, b) } else { (b, a) };
    // One bit of headroom; the significands have at least ten zero bits below.
    let wide = big.sig >> 1;
    let narrow = shift_right_jam(small.sig >> 1, (big.exp - small.exp) as u32);
    let sum = if big.sign == small.sign { wide + narrow } else { wide - narrow };
    if sum == 0 {
        return zero_sum::<F>(rounding);
    }
    let shift = sum.leading_zeros();
    round::<F>(env, big.sign, big.exp + 1 - shift as i32, sum << shift, rounding)
}

/// `FPMul`.
#[inline]
pub fn mul<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    multiply::<F>(env, a, b, false)
}

/// `FPMulX`: infinity times zero is two.
#[inline]
pub fn mulx<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    multiply::<F>(env, a, b, true)
}

#[inline]
fn multiply<F: Format>(env: &mut FpEnv, a: u64, b: u64, extended: bool) -> u64 {
    let (ua, ub) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if let Some(nan) = process_nans::<F>(env, (ua, a), (ub, b)) {
        return nan;
    }
    process_denormals::<F>(env, &[a, b]);
    let sign = ua.sign != ub.sign;
    match (ua.class, ub.class) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => {
            if extended {
                sign_bit::<F>(sign) | (F::ONE + (1 << F::FRAC))
            } else {
                invalid::<F>(env)
            }
        }
        (Class::Infinity, _) | (_, Class::Infinity) => infinity::<F>(sign),
        (Class::Zero, _) | (_, Class::Zero) => zero::<F>(sign),
        _ => {
            let rounding = env.rounding();
            let (exp, product) = product(&ua, &ub);
            let sig = (product >> 64) as u64 | u64::from(product as u64 != 0);
            round::<F>(env, sign, exp, sig, rounding)
        }
    }
}

/// The exact product of two nonzero magnitudes: `sig / 2^127 * 2^exp` with bit 127 of `sig` set.
#[inline]
pub(super) fn product(a: &Unpacked, b: &Unpacked) -> (i32, u128) {
    let product = u128::from(a.sig) * u128::from(b.sig);
    let shift = product.leading_zeros();
    (a.exp + b.exp + 1 - shift as i32, product << shift)
}

/// `FPDiv`.
#[inline]
pub fn div<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    let (ua, ub) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if let Some(nan) = process_nans::<F>(env, (ua, a), (ub, b)) {
        return nan;
    }
    if !ub.is(Class::Zero) {
        process_denormals::<F>(env, &[a, b]);
    }
    let sign = ua.sign != ub.sign;
    match (ua.class, ub.class) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => invalid::<F>(env),
        (Class::Infinity, _) => infinity::<F>(sign),
        (_, Class::Zero) => {
            env.raise(FPSR_DZC);
            infinity::<F>(sign)
        }
        (Class::Zero, _) | (_, Class::Infinity) => zero::<F>(sign),
        _ => {
            let rounding = env.rounding();
            let sig = quotient::<F>(ua.sig, ub.sig);
            let shift = sig.leading_zeros();
            round::<F>(env, sign, ua.exp - ub.exp - shift as i32, sig << shift, rounding)
        }
    }
}

/// `a / b` with 63 fractional bits (fewer, but enough, in the narrow formats) and a sticky lowest bit.
#[inline]
fn quotient<F: Format>(a: u64, b: u64) -> u64 {
    if F::FRAC <= 23 {
        // 24-bit significands: 63 - 32 fractional bits are enough.
        let (n, d) = (a >> 1, b >> 32);
        let q = n / d;
        // a / b is in (1/2, 2), so q is in (2^30, 2^32).
        (q << 32) | u64::from(n % d != 0)
    } else {
        let n = u128::from(a) << 63;
        let d = u128::from(b);
        let q = n / d;
        q as u64 | u64::from(n - q * d != 0)
    }
}

/// `FPSqrt`.
pub fn sqrt<F: Format>(env: &mut FpEnv, op: u64) -> u64 {
    let u = unpack::<F>(env, op);
    match u.class {
        Class::QuietNan | Class::SignallingNan => process_nan::<F>(env, u.class, op),
        Class::Zero => zero::<F>(u.sign),
        _ if u.sign => invalid::<F>(env),
        Class::Infinity => infinity::<F>(false),
        Class::Nonzero => {
            process_denormals::<F>(env, &[op]);
            let rounding = env.rounding();
            // An even exponent, and a radicand in [1, 4) with 126 fractional bits.
            let radicand = u128::from(u.sig) << (63 + (u.exp & 1));
            let root = radicand.isqrt();
            let sig = root as u64 | u64::from(root * root != radicand);
            round::<F>(env, false, u.exp >> 1, sig, rounding)
        }
    }
}

/// `FPMulAdd`: `addend + a * b`, rounded once.
pub fn mul_add<F: Format>(env: &mut FpEnv, addend: u64, a: u64, b: u64) -> u64 {
    let operands = [(unpack::<F>(env, addend), addend), (unpack::<F>(env, a), a), (unpack::<F>(env, b), b)];
    if let Some(nan) = fused_nan(env, &operands) {
        return match nan {
            Nan::Invalid => invalid::<F>(env),
            Nan::Operand(i, class) => process_nan::<F>(env, class, operands[i].1),
        };
    }
    match mul_add_numbers::<F>(env, operands.map(|(u, _)| u)) {
        Some(result) => {
            process_denormals::<F>(env, &[addend, a, b]);
            result
        }
        None => invalid::<F>(env),
    }
}

/// `FPMulAddH`: `addend + a * b` in single precision, of half-precision factors, rounded once.
pub fn mul_add_half(env: &mut FpEnv, addend: u64, a: u64, b: u64) -> u64 {
    let operands =
        [(unpack::<Single>(env, addend), addend), (unpack::<Half>(env, a), a), (unpack::<Half>(env, b), b)];
    if let Some(nan) = fused_nan(env, &operands) {
        return match nan {
            Nan::Invalid => invalid::<Single>(env),
            Nan::Operand(0, class) => process_nan::<Single>(env, class, addend),
            Nan::Operand(i, class) => {
                let half = process_nan::<Half>(env, class, operands[i].1);
                super::convert::convert_nan::<Half, Single>(half, half & Half::SIGN != 0)
            }
        };
    }
    match mul_add_numbers::<Single>(env, operands.map(|(u, _)| u)) {
        Some(result) => {
            process_denormals::<Single>(env, &[addend]);
            result
        }
        None => invalid::<Single>(env),
    }
}

/// What a fused multiplication and addition makes of NaNs.
enum Nan {
    /// The default NaN, and Invalid Operation.
    Invalid,
    /// The operand of this index (0: the addend), as one of this class.
    Operand(usize, Class),
}

/// `FPProcessNaNs3`, and infinity times zero with a quiet NaN added to it.
#[inline]
fn fused_nan(env: &FpEnv, operands: &[(Unpacked, u64); 3]) -> Option<Nan> {
    let [c, a, b] = operands.each_ref().map(|(u, _)| u);
    if !c.is_nan() && !a.is_nan() && !b.is_nan() {
        return None;
    }
    let signalling = operands.iter().position(|(u, _)| u.is(Class::SignallingNan));
    if env.alternate() {
        // The first factor, then the second, then the addend, whichever is the signalling one.
        let class = if signalling.is_some() { Class::SignallingNan } else { Class::QuietNan };
        return [1, 2, 0].into_iter().find(|&i| operands[i].0.is_nan()).map(|i| Nan::Operand(i, class));
    }
    let inf_times_zero =
        (a.is(Class::Infinity) && b.is(Class::Zero)) || (a.is(Class::Zero) && b.is(Class::Infinity));
    if c.is(Class::QuietNan) && inf_times_zero {
        return Some(Nan::Invalid);
    }
    let first = signalling.or_else(|| operands.iter().position(|(u, _)| u.is_nan()));
    first.map(|i| Nan::Operand(i, operands[i].0.class))
}

/// The sum of numbers; `None` if the operation is invalid.
fn mul_add_numbers<F: Format>(env: &mut FpEnv, [addend, a, b]: [Unpacked; 3]) -> Option<u64> {
    let sign = a.sign != b.sign;
    let infinite = a.is(Class::Infinity) || b.is(Class::Infinity);
    let is_zero = a.is(Class::Zero) || b.is(Class::Zero);
    if infinite && (is_zero || (addend.is(Class::Infinity) && addend.sign != sign)) {
        return None;
    }
    if addend.is(Class::Infinity) {
        return Some(infinity::<F>(addend.sign));
    }
    if infinite {
        return Some(infinity::<F>(sign));
    }
    if addend.is(Class::Zero) && is_zero && addend.sign == sign {
        return Some(zero::<F>(sign));
    }
    let rounding = env.rounding();
    let exact = if is_zero { None } else { Some(product(&a, &b)) };
    Some(match fused_sum(addend, sign, exact) {
        Some((sign, exp, sig)) => round::<F>(env, sign, exp, sig, rounding),
        None => zero_sum::<F>(rounding),
    })
}

/// `addend + product` (whose sign is `sign`) as sign, exponent and significand for `round`; `None` if zero.
pub(super) fn fused_sum(
    addend: Unpacked,
    sign: bool,
    product: Option<(i32, u128)>,
) -> Option<(bool, i32, u64)> {
    let add_sig = if addend.is(Class::Zero) { 0 } else { u128::from(addend.sig) << 63 };
    let (mul_exp, mul_sig) = match product {
        // The low bits of a product of 53-bit significands are zero: nothing is lost.
        Some((exp, sig)) => (exp, sig >> 1),
        None => (addend.exp, 0),
    };
    let add_exp = if add_sig == 0 { mul_exp } else { addend.exp };
    let p = (mul_exp, mul_sig);
    let c = (add_exp, add_sig);
    // Bring both to the larger exponent; zero significands have been given the other's exponent.
    let product_is_big = p >= c;
    let (big, small) = if product_is_big { (p, c) } else { (c, p) };
    let big_sign = if product_is_big { sign } else { addend.sign };
    let narrow = shift_right_jam128(small.1, (big.0 - small.0) as u32);
    let sum = if sign == addend.sign { big.1 + narrow } else { big.1 - narrow };
    if sum == 0 {
        return None;
    }
    let shift = sum.leading_zeros();
    let sum = sum << shift;
    let sig = (sum >> 64) as u64 | u64::from(sum as u64 != 0);
    Some((big_sign, big.0 + 1 - shift as i32, sig))
}

/// `FPMax`.
#[inline]
pub fn max<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    select_alternate::<F>(env, a, b).unwrap_or_else(|| select::<F>(env, a, b, true))
}

/// `FPMin`.
#[inline]
pub fn min<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    select_alternate::<F>(env, a, b).unwrap_or_else(|| select::<F>(env, a, b, false))
}

/// `FPMaxNum`: a quiet NaN loses to a number.
#[inline]
pub fn maxnm<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    let (a, b) = replace_quiet_nan::<F>(env, a, b, infinity::<F>(true));
    let result = select::<F>(env, a, b, true);
    flush_selected::<F>(env, result)
}

/// `FPMinNum`: a quiet NaN loses to a number.
#[inline]
pub fn minnm<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> u64 {
    let (a, b) = replace_quiet_nan::<F>(env, a, b, infinity::<F>(false));
    let result = select::<F>(env, a, b, false);
    flush_selected::<F>(env, result)
}

/// A result that is one of the operands, rounded: under alternate handling these have not been flushed.
#[inline]
fn flush_selected<F: Format>(env: &mut FpEnv, result: u64) -> u64 {
    let subnormal = result & F::INFINITY == 0 && result & F::FRAC_MASK != 0;
    if subnormal && env.alternate() && env.flushes::<F>() {
        env.raise(FPSR_UFC | FPSR_IXC);
        return result & F::SIGN;
    }
    result
}

#[inline]
fn replace_quiet_nan<F: Format>(env: &mut FpEnv, a: u64, b: u64, by: u64) -> (u64, u64) {
    let (ua, ub) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if env.alternate() && ua.is_nan() && ub.is_nan() {
        return (a, b);
    }
    match (ua.is(Class::QuietNan), ub.is(Class::QuietNan)) {
        (true, false) => (by, b),
        (false, true) => (a, by),
        _ => (a, b),
    }
}

/// What FMAX and FMIN do otherwise under alternate handling: of NaNs and of zeros, the second operand.
#[inline]
fn select_alternate<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> Option<u64> {
    if !env.alternate() {
        return None;
    }
    let (ua, ub) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if ua.is(Class::Zero) && ub.is(Class::Zero) && ua.sign != ub.sign {
        return Some(zero::<F>(ub.sign));
    }
    if ua.is_nan() || ub.is_nan() {
        env.raise(FPSR_IOC);
        return Some(if ub.is(Class::Zero) { zero::<F>(ub.sign) } else { b });
    }
    None
}

#[inline]
fn select<F: Format>(env: &mut FpEnv, a: u64, b: u64, larger: bool) -> u64 {
    let (ua, ub) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if let Some(nan) = process_nans::<F>(env, (ua, a), (ub, b)) {
        return nan;
    }
    process_denormals::<F>(env, &[a, b]);
    if ua.is(Class::Zero) && ub.is(Class::Zero) {
        let sign = if larger { ua.sign && ub.sign } else { ua.sign || ub.sign };
        return zero::<F>(sign);
    }
    let first = if larger { ub.less(&ua) } else { ua.less(&ub) };
    let (u, op) = if first { (ua, a) } else { (ub, b) };
    // A flushed operand counts as the zero that it was flushed to.
    if u.is(Class::Zero) { zero::<F>(u.sign) } else { op }
}
