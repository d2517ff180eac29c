//! Known answers, worked out by hand from the Arm ARM: alternate handling (FEAT_AFP, FEAT_RPRES), sums of products,
//! BFloat16.

use super::*;

const NAN: u64 = 0x7fc0_1234;
const NEGATIVE_NAN: u64 = 0xffc0_1234;
const SIGNALLING: u64 = 0xff80_0001;

fn single(v: f32) -> u64 {
    v.to_bits().into()
}

/// The result and the flags.
fn run<T>(fpcr: u32, compute: impl FnOnce(&mut FpEnv) -> T) -> (T, u32) {
    let mut env = FpEnv::new(fpcr);
    let result = compute(&mut env);
    (result, env.fpsr)
}

#[test]
fn nans_have_no_sign() {
    let env = FpEnv::new(FPCR_AH);
    assert_eq!(neg::<Single>(&env, NAN), NAN);
    assert_eq!(abs::<Single>(&env, SIGNALLING), SIGNALLING);
    assert_eq!(abs::<Single>(&env, 0xff80_0000), Single::INFINITY);
    assert_eq!(neg::<Half>(&FpEnv::new(FPCR_FZ16), 0x7e00), 0xfe00);
    // The default NaN is negative.
    let zero_by_zero = |env: &mut FpEnv| div::<Single>(env, 0, 0);
    assert_eq!(run(FPCR_AH, zero_by_zero), (0xffc0_0000, FPSR_IOC));
    assert_eq!(run(0, zero_by_zero), (0x7fc0_0000, FPSR_IOC));
}

#[test]
fn the_first_source_wins_among_nans() {
    let of_two = |env: &mut FpEnv| add::<Single>(env, NAN, SIGNALLING);
    assert_eq!(run(FPCR_AH, of_two), (NAN, FPSR_IOC));
    assert_eq!(run(0, of_two), (SIGNALLING | Single::QUIET, FPSR_IOC));
    // The addend comes last, and does not become the default NaN for infinity times zero.
    let of_three = |env: &mut FpEnv| mul_add::<Single>(env, SIGNALLING, single(1.0), NEGATIVE_NAN);
    assert_eq!(run(FPCR_AH, of_three), (NEGATIVE_NAN, FPSR_IOC));
    let no_product = |env: &mut FpEnv| mul_add::<Single>(env, NAN, Single::INFINITY, 0);
    assert_eq!(run(FPCR_AH, no_product), (NAN, 0));
    assert_eq!(run(0, no_product), (0x7fc0_0000, FPSR_IOC));
}

#[test]
fn maximum_and_minimum_take_the_second() {
    let minus_zero = Single::SIGN;
    assert_eq!(run(FPCR_AH, |env| max::<Single>(env, 0, minus_zero)), (minus_zero, 0));
    assert_eq!(run(FPCR_AH, |env| min::<Single>(env, minus_zero, 0)), (0, 0));
    assert_eq!(run(FPCR_AH, |env| max::<Single>(env, NAN, single(2.0))), (single(2.0), FPSR_IOC));
    assert_eq!(run(FPCR_AH, |env| max::<Single>(env, single(2.0), NAN)), (NAN, FPSR_IOC));
    // A subnormal second operand beside a NaN is flushed by FIZ only.
    assert_eq!(run(FPCR_AH | FPCR_FIZ, |env| min::<Single>(env, NAN, 1)), (0, FPSR_IOC));
    // These do not flush what they select, those with numbers preferred do.
    assert_eq!(run(FPCR_AH | FPCR_FZ, |env| max::<Single>(env, 1, 2)), (2, FPSR_IDC));
    assert_eq!(run(FPCR_AH | FPCR_FZ, |env| maxnm::<Single>(env, 1, 2)), (0, FPSR_IDC | FPSR_UFC | FPSR_IXC));
}

#[test]
fn subnormal_operands_are_told_of() {
    assert_eq!(run(FPCR_AH, |env| add::<Single>(env, 1, 1)), (2, FPSR_IDC));
    assert_eq!(run(FPCR_AH | FPCR_FIZ, |env| add::<Single>(env, 1, 1)), (0, 0));
    assert_eq!(run(FPCR_FZ, |env| add::<Single>(env, 1, 1)), (0, FPSR_IDC));
    assert_eq!(run(FPCR_AH, |env| add::<Half>(env, 1, 1)), (2, 0));
    // Not if the operation is invalid otherwise, divides by zero, or has a NaN.
    assert_eq!(run(FPCR_AH, |env| div::<Single>(env, 1, 0)), (Single::INFINITY, FPSR_DZC));
    assert_eq!(run(FPCR_AH, |env| sqrt::<Single>(env, Single::SIGN | 1)), (0xffc0_0000, FPSR_IOC));
    assert_eq!(run(FPCR_AH, |env| mul::<Single>(env, 1, NAN)), (NAN, 0));
    assert_eq!(run(FPCR_AH, |env| compare::<Double>(env, 1, 1, false)), (0b0110, FPSR_IDC));
    assert_eq!(run(FPCR_AH, |env| round_int::<Single>(env, 1, Rounding::Zero, true)), (0, FPSR_IXC));
}

#[test]
fn tininess_is_found_after_rounding() {
    // Half of the smallest normal number and one, less a little: rounds up to it.
    let (a, b) = (Single::FRAC_MASK + 1, single(1.0) - 1);
    let product = |env: &mut FpEnv| mul::<Single>(env, a, b);
    assert_eq!(run(0, product), (a, FPSR_UFC | FPSR_IXC));
    // With an unbounded exponent there is one more bit, which makes it representable: still tiny.
    assert_eq!(run(FPCR_AH, product), (a, FPSR_UFC | FPSR_IXC));
    // The largest double below the smallest normal single rounds up with that bit, too.
    let below = 0x380f_ffff_ffff_ffff;
    let narrow = |env: &mut FpEnv| convert::<Double, Single>(env, below);
    assert_eq!(run(0, narrow), (a, FPSR_UFC | FPSR_IXC));
    assert_eq!(run(FPCR_AH, narrow), (a, FPSR_IXC));
    assert_eq!(run(FPCR_FZ, narrow), (0, FPSR_UFC));
    assert_eq!(run(FPCR_AH | FPCR_FZ, narrow), (a, FPSR_IXC));
    // What is flushed after rounding is inexact.
    let half = |env: &mut FpEnv| mul::<Single>(env, a, single(0.5));
    assert_eq!(run(FPCR_AH | FPCR_FZ, half), (0, FPSR_UFC | FPSR_IXC));
    assert_eq!(run(FPCR_FZ, half), (0, FPSR_UFC));
}

#[test]
fn estimates_raise_nothing_and_may_have_twelve_bits() {
    assert_eq!(run(FPCR_AH, |env| recip_estimate::<Single>(env, 0, false)), (Single::INFINITY, 0));
    assert_eq!(run(FPCR_AH, |env| rsqrt_estimate::<Single>(env, 0xbf80_0000, true)), (0xffc0_0000, 0));
    assert_eq!(run(FPCR_AH, |env| recip_estimate::<Single>(env, SIGNALLING, true)), (0xffc0_0001, 0));
    // One: 8190.0 / 8192 rather than 511 / 512, of the interval from 1 to 1 + 2^-11.
    let one = single(1.0);
    assert_eq!(run(FPCR_AH, |env| recip_estimate::<Single>(env, one, true)).0, single(8190.0 / 8192.0));
    assert_eq!(run(0, |env| recip_estimate::<Single>(env, one, true)).0, single(511.0 / 512.0));
    assert_eq!(run(FPCR_AH, |env| recip_estimate::<Single>(env, one, false)).0, single(511.0 / 512.0));
    // Every estimate is within 2^-11 of the value.
    for top in 0..1u64 << 12 {
        let bits = (126 << 23) + (top << 12) + 0x123;
        let v = f64::from(f32::from_bits(bits as u32));
        let value = |bits: u64| f64::from(f32::from_bits(bits as u32));
        let recip = value(run(FPCR_AH, |env| recip_estimate::<Single>(env, bits, true)).0);
        let rsqrt = value(run(FPCR_AH, |env| rsqrt_estimate::<Single>(env, bits, true)).0);
        assert!((recip * v - 1.0).abs() < 1.0 / 2048.0, "{v}: {recip}");
        assert!((rsqrt * v.sqrt() - 1.0).abs() < 1.0 / 2048.0, "{v}: {rsqrt}");
    }
    // The steps round to nearest.
    let step = |env: &mut FpEnv| recip_step::<Single>(env, single(1.0 / 3.0), single(3.0));
    let (nearest, _) = run(0, step);
    assert_eq!(run(FPCR_AH | 3 << FPCR_RMODE_SHIFT, step), (nearest, 0));
}

#[test]
fn integers_that_do_not_fit_are_the_most_negative() {
    let round =
        |env: &mut FpEnv, v: f32, bits| round_int_n::<Single>(env, single(v), Rounding::TieEven, bits);
    assert_eq!(run(0, |env| round(env, 2.5, 32)), (single(2.0), FPSR_IXC));
    assert_eq!(run(0, |env| round(env, -0.25, 64)), (Single::SIGN, FPSR_IXC));
    assert_eq!(run(0, |env| round(env, 2_147_483_648.0, 32)), (single(-2_147_483_648.0), FPSR_IOC));
    assert_eq!(run(0, |env| round(env, -2_147_483_648.0, 32)), (single(-2_147_483_648.0), 0));
    assert_eq!(run(0, |env| round(env, 2_147_483_648.0, 64)), (single(2_147_483_648.0), 0));
    assert_eq!(run(0, |env| round(env, f32::NAN, 64)), (single(-9_223_372_036_854_775_808.0), FPSR_IOC));
    let up = |env: &mut FpEnv| round_int_n::<Double>(env, 2_147_483_647.5f64.to_bits(), Rounding::PosInf, 32);
    assert_eq!(run(0, up), ((-2_147_483_648f64).to_bits(), FPSR_IOC));
}

#[test]
fn half_precision_factors_have_single_precision_sums() {
    // 1 + 2^-10 squared needs 21 bits.
    let fused = |env: &mut FpEnv| mul_add_half(env, 0, 0x3c01, 0x3c01);
    assert_eq!(run(0, fused), (single(1.0 + 2.0f32.powi(-9) + 2.0f32.powi(-20)), 0));
    assert_eq!(run(0, |env| mul_add_half(env, 0, 0x7d01, 0x3c00)), (0x7fe0_2000, FPSR_IOC));
    assert_eq!(run(0, |env| mul_add_half(env, single(1.0), 0x7c00, 0)), (0x7fc0_0000, FPSR_IOC));
    assert_eq!(run(FPCR_FZ16, |env| mul_add_half(env, single(1.0), 1, 0x3c00)), (single(1.0), 0));
}

#[test]
fn bfloat_rounds_by_fpcr_and_its_sums_to_odd() {
    assert_eq!(run(0, |env| convert_to_bfloat(env, 0x3f80_8000)), (0x3f80, FPSR_IXC));
    assert_eq!(run(1 << FPCR_RMODE_SHIFT, |env| convert_to_bfloat(env, 0x3f80_8000)), (0x3f81, FPSR_IXC));
    assert_eq!(run(0, |env| convert_to_bfloat(env, SIGNALLING)), (0xffc0, FPSR_IOC));
    assert_eq!(run(FPCR_DN | FPCR_AH, |env| convert_to_bfloat(env, NAN)), (0xffc0, 0));
    assert_eq!(run(FPCR_FZ, |env| convert_to_bfloat(env, 1)), (0, FPSR_IDC));
    let one = 0x3f80;
    let dot = |env: &mut FpEnv, addend, a| bf_dot_add(env, addend, a, [one, one]);
    assert_eq!(run(0, |env| dot(env, single(1.0), [one, one])), (single(3.0), 0));
    // 2^-30 is far below the last bit of 1, which it makes odd.
    let tiny = 0x3080;
    assert_eq!(run(0, |env| dot(env, 0, [one, tiny])), (0x3f80_0001, 0));
    assert_eq!(run(FPCR_EBF, |env| dot(env, 0, [one, tiny])), (0x3f80_0000, 0));
    // Subnormal numbers are zeros, and too large is infinite even to odd.
    assert_eq!(run(0, |env| dot(env, 1, [0, 0])), (0, 0));
    assert_eq!(run(0, |env| bf_dot_add(env, 0, [0x7f7f, 0], [0x7f7f, 0])), (Single::INFINITY, 0));
    assert_eq!(run(FPCR_AH, |env| dot(env, 0, [0x7fc1, 0])), (0xffc0_0000, 0));
    assert_eq!(run(0, |env| bf_mul_add(env, single(1.0), one, one)), (single(2.0), 0));
}
