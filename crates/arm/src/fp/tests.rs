//! Oracles: `rustc_apfloat` for values and flags in every rounding mode, the host for square roots, and the
//! Arm ARM for NaNs, flushing and estimates.

use super::*;
use rustc_apfloat::{Float, FloatConvert, Round, Status, ieee};

const MODES: [(u32, Round); 4] = [
    (0, Round::NearestTiesToEven),
    (1, Round::TowardPositive),
    (2, Round::TowardNegative),
    (3, Round::TowardZero),
];

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Encodings where things go wrong, in both signs.
fn special<F: Format>() -> Vec<u64> {
    let one = F::ONE;
    let mut values = vec![
        0,
        1,
        2,
        3,
        F::FRAC_MASK,
        F::FRAC_MASK - 1,
        F::QUIET,
        F::FRAC_MASK + 1,
        F::FRAC_MASK + 2,
        one - 1,
        one,
        one + 1,
        one + (1 << F::FRAC),
        one + F::QUIET,
        one - (1 << F::FRAC),
        one + ((F::FRAC as u64) << F::FRAC),
        one + ((F::FRAC as u64 + 1) << F::FRAC) + 1,
        one + ((F::BIAS as u64 / 2) << F::FRAC),
        one - ((F::BIAS as u64 / 2) << F::FRAC) + 1,
        F::MAX_NORMAL,
        F::MAX_NORMAL - 1,
        F::INFINITY,
    ];
    values.extend(values.clone().iter().map(|v| v | F::SIGN));
    values
}

fn nans<F: Format>() -> Vec<u64> {
    let q = F::DEFAULT_NAN;
    let s = F::INFINITY;
    vec![q, q | 5, q | F::SIGN | 9, s | 1, s | F::SIGN | 3]
}

fn random<F: Format>(rng: &mut Rng, special: &[u64]) -> u64 {
    let r = rng.next();
    match r & 7 {
        0 | 1 => special[(r >> 8) as usize % special.len()],
        // Near one, so that sums cancel and products stay in range.
        2..=4 => {
            let exp = (F::BIAS as u64).wrapping_add((r >> 8) % 9).wrapping_sub(4);
            let frac = rng.next() & F::FRAC_MASK;
            let frac = if r & 0x100_0000 != 0 { frac & !(F::FRAC_MASK >> 4) } else { frac };
            (frac | (exp << F::FRAC)) | if r & 0x80 != 0 { F::SIGN } else { 0 }
        }
        _ => rng.next() & F::MASK,
    }
}

fn flags(status: Status) -> u32 {
    [
        (Status::INVALID_OP, FPSR_IOC),
        (Status::DIV_BY_ZERO, FPSR_DZC),
        (Status::OVERFLOW, FPSR_OFC),
        (Status::UNDERFLOW, FPSR_UFC),
        (Status::INEXACT, FPSR_IXC),
    ]
    .into_iter()
    .filter(|(s, _)| status.intersects(*s))
    .fold(0, |all, (_, f)| all | f)
}

/// Checks a result against the oracle's. The oracle finds tininess after rounding: a result that was rounded
/// up to the smallest normal number is an underflow for Arm only. It reports an overflow only if the result is
/// an infinity.
#[track_caller]
fn check<F: Format, A: Float>(what: &str, ops: &[u64], got: (u64, u32), want: (A, Status)) {
    let bits = if want.0.is_nan() { F::DEFAULT_NAN } else { want.0.to_bits() as u64 };
    let mut want_flags = flags(want.1);
    let tiny = got.0 & !F::SIGN == 1 << F::FRAC && got.1 & FPSR_IXC != 0;
    if tiny && bits == got.0 {
        want_flags |= got.1 & FPSR_UFC;
    }
    if got.0 & !F::SIGN == F::MAX_NORMAL && got.1 & FPSR_IXC != 0 {
        want_flags |= got.1 & FPSR_OFC;
    }
    assert_eq!(
        (got.0, got.1),
        (bits, want_flags),
        "{what} {:x?}: got {:x} {:x}, want {bits:x} {want_flags:x}",
        ops,
        got.0,
        got.1
    );
}

fn is_nan<F: Format>(v: u64) -> bool {
    v & !F::SIGN > F::INFINITY
}

fn arithmetic<F: Format, A: Float + Copy>() {
    let special = special::<F>();
    let mut rng = Rng(F::BITS.into());
    let mut pairs: Vec<(u64, u64)> =
        special.iter().flat_map(|&a| special.iter().map(move |&b| (a, b))).collect();
    for _ in 0..20_000 {
        pairs.push((random::<F>(&mut rng, &special), random::<F>(&mut rng, &special)));
    }
    for (a, b) in pairs {
        if is_nan::<F>(a) || is_nan::<F>(b) {
            continue;
        }
        let c = random::<F>(&mut rng, &special);
        let (fa, fb, fc) = (A::from_bits(a.into()), A::from_bits(b.into()), A::from_bits(c.into()));
        for (mode, round) in MODES {
            let run = |f: fn(&mut FpEnv, u64, u64) -> u64| {
                let mut env = FpEnv::new(mode << FPCR_RMODE_SHIFT);
                (f(&mut env, a, b), env.fpsr)
            };
            let r = fa.add_r(fb, round);
            check::<F, A>("add", &[a, b, mode.into()], run(add::<F>), (r.value, r.status));
            let r = fa.sub_r(fb, round);
            check::<F, A>("sub", &[a, b, mode.into()], run(sub::<F>), (r.value, r.status));
            let r = fa.mul_r(fb, round);
            check::<F, A>("mul", &[a, b, mode.into()], run(mul::<F>), (r.value, r.status));
            let r = fa.div_r(fb, round);
            check::<F, A>("div", &[a, b, mode.into()], run(div::<F>), (r.value, r.status));
            if !is_nan::<F>(c) {
                let mut env = FpEnv::new(mode << FPCR_RMODE_SHIFT);
                let got = mul_add::<F>(&mut env, c, a, b);
                let r = fa.mul_add_r(fb, fc, round);
                check::<F, A>("fma", &[a, b, c, mode.into()], (got, env.fpsr), (r.value, r.status));
            }
        }
        let mut env = FpEnv::default();
        let want = match fa.partial_cmp(&fb) {
            Some(std::cmp::Ordering::Less) => 0b1000,
            Some(std::cmp::Ordering::Equal) => 0b0110,
            _ => 0b0010,
        };
        assert_eq!(compare::<F>(&mut env, a, b, true), want, "compare {a:x} {b:x}");
        let larger = max::<F>(&mut env, a, b);
        let smaller = min::<F>(&mut env, a, b);
        assert_eq!((larger, smaller), (maxnm::<F>(&mut env, a, b), minnm::<F>(&mut env, a, b)));
        if want == 0b0110 {
            assert_eq!((larger, smaller), (a & b, a | b));
        } else {
            assert_eq!((larger, smaller), if want == 0b1000 { (b, a) } else { (a, b) });
        }
        assert_eq!(env.fpsr, 0);
    }
}

#[test]
fn half_arithmetic_matches_the_oracle() {
    arithmetic::<Half, ieee::Half>();
}

#[test]
fn single_arithmetic_matches_the_oracle() {
    arithmetic::<Single, ieee::Single>();
}

#[test]
fn double_arithmetic_matches_the_oracle() {
    arithmetic::<Double, ieee::Double>();
}

fn rounding_and_integers<F: Format, A: Float + Copy>() {
    let special = special::<F>();
    let mut rng = Rng(77);
    let all = MODES.into_iter().chain([(4, Round::NearestTiesToAway)]);
    let modes: Vec<_> = all.map(|(m, r)| (Rounding::from_index(m), r)).collect();
    for i in 0..20_000 {
        let a = special.get(i).copied().unwrap_or_else(|| random::<F>(&mut rng, &special));
        if is_nan::<F>(a) {
            continue;
        }
        let fa = A::from_bits(a.into());
        for &(mode, round) in &modes {
            let mut env = FpEnv::default();
            let got = round_int::<F>(&mut env, a, mode, true);
            let r = fa.round_to_integral(round);
            check::<F, A>("rint", &[a, mode as u64], (got, env.fpsr), (r.value, r.status));
            for bits in [16, 32, 64] {
                let mut exact = false;
                let r = fa.to_i128_r(bits as usize, round, &mut exact);
                let mut env = FpEnv::default();
                let got = to_fixed::<F>(&mut env, a, 0, false, mode, bits);
                let want = (r.value as u64 & (u64::MAX >> (64 - bits)), flags(r.status));
                assert_eq!((got, env.fpsr), want, "to i{bits} {a:x} {mode:?}");
                let r = fa.to_u128_r(bits as usize, round, &mut exact);
                let mut env = FpEnv::default();
                let got = to_fixed::<F>(&mut env, a, 0, true, mode, bits);
                assert_eq!((got, env.fpsr), (r.value as u64, flags(r.status)), "to u{bits} {a:x} {mode:?}");
            }
        }
        let int = rng.next() >> (rng.next() & 63);
        for (mode, round) in MODES {
            let mode = Rounding::from_index(mode);
            let mut env = FpEnv::default();
            let got = fixed_to_fp::<F>(&mut env, int, 0, true, mode);
            let r = A::from_u128_r(int.into(), round);
            check::<F, A>("from u64", &[int, mode as u64], (got, env.fpsr), (r.value, r.status));
            let mut env = FpEnv::default();
            let got = fixed_to_fp::<F>(&mut env, int, 0, false, mode);
            let r = A::from_i128_r((int as i64).into(), round);
            check::<F, A>("from i64", &[int, mode as u64], (got, env.fpsr), (r.value, r.status));
            // A fraction scales exactly, before rounding.
            let mut env = FpEnv::default();
            let got = fixed_to_fp::<F>(&mut env, int >> 54, 5, true, mode);
            let r = A::from_u128_r((int >> 54).into(), round).map(|v: A| v.scalbn(-5));
            check::<F, A>("from fixed", &[int, mode as u64], (got, env.fpsr), (r.value, r.status));
        }
    }
}

#[test]
fn half_integers_match_the_oracle() {
    rounding_and_integers::<Half, ieee::Half>();
}

#[test]
fn single_integers_match_the_oracle() {
    rounding_and_integers::<Single, ieee::Single>();
}

#[test]
fn double_integers_match_the_oracle() {
    rounding_and_integers::<Double, ieee::Double>();
}

fn conversions<F: Format, T: Format, A: Float + Copy + FloatConvert<B>, B: Float + Copy>() {
    let special = special::<F>();
    let mut rng = Rng(5);
    for i in 0..40_000 {
        let mut a = special.get(i).copied().unwrap_or_else(|| random::<F>(&mut rng, &special));
        if T::BITS < F::BITS && i % 2 == 0 {
            // Bring the exponent near the narrow format's range.
            let exp = (F::BIAS as u64 - T::BIAS as u64 - 16) + rng.next() % (2 * T::BIAS as u64 + 24);
            a = (a & !F::INFINITY) | (exp << F::FRAC);
        }
        if is_nan::<F>(a) {
            continue;
        }
        for (mode, round) in MODES {
            let mut env = FpEnv::new(mode << FPCR_RMODE_SHIFT);
            let got = convert::<F, T>(&mut env, a);
            let mut loses = false;
            let r = A::from_bits(a.into()).convert_r(round, &mut loses);
            check::<T, B>("convert", &[a, mode.into()], (got, env.fpsr), (r.value, r.status));
        }
    }
}

#[test]
fn format_conversions_match_the_oracle() {
    conversions::<Half, Single, ieee::Half, ieee::Single>();
    conversions::<Half, Double, ieee::Half, ieee::Double>();
    conversions::<Single, Half, ieee::Single, ieee::Half>();
    conversions::<Single, Double, ieee::Single, ieee::Double>();
    conversions::<Double, Half, ieee::Double, ieee::Half>();
    conversions::<Double, Single, ieee::Double, ieee::Single>();
}

#[test]
fn bfloat_conversions_match_the_oracle() {
    let special = special::<Single>();
    let mut rng = Rng(16);
    for i in 0..100_000 {
        let a = special.get(i).copied().unwrap_or_else(|| random::<Single>(&mut rng, &special));
        // Bits that are rounded off: any, few, a half and its neighbours.
        let a = if i % 3 == 0 { (a & !0xffff) | (0x7fff + rng.next() % 3) } else { a };
        if is_nan::<Single>(a) {
            continue;
        }
        for (mode, round) in MODES {
            let mut env = FpEnv::new(mode << FPCR_RMODE_SHIFT);
            let got = convert_to_bfloat(&mut env, a);
            let mut loses = false;
            let r: rustc_apfloat::StatusAnd<ieee::BFloat> =
                ieee::Single::from_bits(a.into()).convert_r(round, &mut loses);
            check::<BFloat, ieee::BFloat>("bfloat", &[a, mode.into()], (got, env.fpsr), (r.value, r.status));
        }
    }
}

#[test]
fn square_roots_match_the_host_and_bracket_the_root() {
    let mut rng = Rng(11);
    let singles = special::<Single>();
    let doubles = special::<Double>();
    for _ in 0..50_000 {
        let a = random::<Single>(&mut rng, &singles) & !Single::SIGN;
        if !is_nan::<Single>(a) {
            let host = f32::from_bits(a as u32).sqrt().to_bits();
            assert_eq!(sqrt::<Single>(&mut FpEnv::default(), a), host.into(), "{a:x}");
        }
        let a = random::<Double>(&mut rng, &doubles) & !Double::SIGN;
        if is_nan::<Double>(a) {
            continue;
        }
        assert_eq!(sqrt::<Double>(&mut FpEnv::default(), a), f64::from_bits(a).sqrt().to_bits(), "{a:x}");
        let mut env = FpEnv::new(3 << FPCR_RMODE_SHIFT);
        let down = sqrt::<Double>(&mut env, a);
        let up = sqrt::<Double>(&mut FpEnv::new(1 << FPCR_RMODE_SHIFT), a);
        assert_eq!(up - down, u64::from(env.fpsr & FPSR_IXC != 0));
        if a < Double::INFINITY && a > 1 << 61 {
            let sign = |r: u64| mul_add::<Double>(&mut FpEnv::default(), a | Double::SIGN, r, r);
            assert!(sign(down) == 0 || sign(down) & Double::SIGN != 0, "{a:x}");
            assert!(sign(up) & Double::SIGN == 0, "{a:x}");
        }
    }
    let mut env = FpEnv::default();
    for h in 0..=Half::INFINITY {
        let wide = convert::<Half, Double>(&mut env, h);
        let root = f64::from_bits(wide).sqrt().to_bits();
        assert_eq!(sqrt::<Half>(&mut env, h), convert::<Double, Half>(&mut env, root), "{h:x}");
    }
    let mut env = FpEnv::default();
    assert_eq!(sqrt::<Half>(&mut env, 0x8000), 0x8000);
    assert_eq!(env.fpsr, 0);
    assert_eq!(sqrt::<Half>(&mut env, 0xbc00), 0x7e00);
    assert_eq!(env.fpsr, FPSR_IOC);
}

/// NaN rules, as J1.3's `FPProcessNaNs` and `FPProcessNaNs3` have them.
fn nan_rules<F: Format>() {
    let operands: Vec<u64> =
        nans::<F>().into_iter().chain([0, F::ONE, F::INFINITY, F::SIGN | F::INFINITY]).collect();
    let signalling = |v: u64| is_nan::<F>(v) && v & F::QUIET == 0;
    let pick = |ops: &[u64], dn: bool| {
        let nan = ops.iter().find(|v| signalling(**v)).or(ops.iter().find(|v| is_nan::<F>(**v)))?;
        Some(if dn { F::DEFAULT_NAN } else { nan | F::QUIET })
    };
    for &a in &operands {
        for &b in &operands {
            for dn in [false, true] {
                let fpcr = if dn { FPCR_DN } else { 0 };
                if let Some(want) = pick(&[a, b], dn) {
                    let ioc = u32::from(signalling(a) || signalling(b));
                    for f in [add::<F>, sub::<F>, mul::<F>, mulx::<F>, div::<F>, max::<F>, min::<F>] {
                        let mut env = FpEnv::new(fpcr);
                        assert_eq!((f(&mut env, a, b), env.fpsr), (want, ioc), "{a:x} {b:x}");
                    }
                    let mut env = FpEnv::new(fpcr);
                    let flipped = pick(&[a ^ F::SIGN, b], dn);
                    let want = if is_nan::<F>(a) { flipped } else { Some(want) };
                    assert_eq!(Some(recip_step::<F>(&mut env, a, b)), want);
                    assert_eq!(compare::<F>(&mut env, a, b, false), 3);
                    assert_eq!(env.fpsr, ioc);
                    assert!(!compare_ge::<F>(&mut env, a, b));
                    assert_eq!(env.fpsr, FPSR_IOC);
                }
                for &c in &operands {
                    let mut env = FpEnv::new(fpcr);
                    let got = mul_add::<F>(&mut env, c, a, b);
                    let Some(want) = pick(&[c, a, b], dn) else { continue };
                    let zero_inf =
                        (a == 0 && b & !F::SIGN == F::INFINITY) || (b == 0 && a & !F::SIGN == F::INFINITY);
                    if zero_inf && !signalling(c) {
                        assert_eq!((got, env.fpsr), (F::DEFAULT_NAN, FPSR_IOC));
                    } else {
                        let ioc = u32::from([a, b, c].into_iter().any(signalling));
                        assert_eq!((got, env.fpsr), (want, ioc), "{c:x} {a:x} {b:x}");
                    }
                }
            }
        }
    }
    // A number beats a quiet NaN, not a signalling one.
    let mut env = FpEnv::default();
    assert_eq!(maxnm::<F>(&mut env, F::DEFAULT_NAN, F::ONE), F::ONE);
    assert_eq!(minnm::<F>(&mut env, F::SIGN, F::DEFAULT_NAN), F::SIGN);
    assert_eq!(env.fpsr, 0);
    assert_eq!(minnm::<F>(&mut env, F::INFINITY | 1, F::ONE), F::DEFAULT_NAN | 1);
    assert_eq!(env.fpsr, FPSR_IOC);
    assert_eq!(to_fixed::<F>(&mut env, F::DEFAULT_NAN, 0, false, Rounding::Zero, 32), 0);
    assert_eq!(mulx::<F>(&mut env, F::INFINITY, F::SIGN), F::SIGN | (F::ONE + (1 << F::FRAC)));
}

#[test]
fn nans_follow_the_arm_rules() {
    nan_rules::<Half>();
    nan_rules::<Single>();
    nan_rules::<Double>();
}

#[test]
fn flushing_follows_fz_and_fz16() {
    let mut env = FpEnv::new(FPCR_FZ);
    assert_eq!(add::<Single>(&mut env, 1, 0x8000_0000), 0);
    assert_eq!(env.fpsr, FPSR_IDC);
    let mut env = FpEnv::new(FPCR_FZ);
    // The smallest normal number times 1 - 2^-24 would round up to itself: flushed before rounding.
    assert_eq!(mul::<Single>(&mut env, 0x0080_0000, 0x3f7f_ffff), 0);
    assert_eq!(env.fpsr, FPSR_UFC);
    let mut env = FpEnv::new(FPCR_FZ);
    assert_eq!(add::<Half>(&mut env, 1, 1), 2);
    let mut env = FpEnv::new(FPCR_FZ16);
    assert_eq!(add::<Half>(&mut env, 1, 1), 0);
    assert_eq!(env.fpsr, 0);
    assert_eq!(add::<Single>(&mut env, 1, 1), 2);
    assert_eq!(convert::<Half, Single>(&mut env, 1), 0x3380_0000);
    assert_eq!(env.fpsr, 0);
    assert_eq!(mul::<Half>(&mut env, 0x0400, 0x3800), 0);
    assert_eq!(env.fpsr, FPSR_UFC);
    let mut env = FpEnv::new(FPCR_FZ);
    assert_eq!(max::<Double>(&mut env, 5, Double::SIGN | 7), 0);
    assert_eq!(env.fpsr, FPSR_IDC);
    // Tininess before rounding: this product rounds up to the smallest normal number.
    let mut env = FpEnv::default();
    assert_eq!(mul::<Single>(&mut env, 0x0080_0000, 0x3f7f_ffff), 0x0080_0000);
    assert_eq!(env.fpsr, FPSR_UFC | FPSR_IXC);
}

#[test]
fn alternative_half_precision_has_no_infinities() {
    let mut env = FpEnv::new(FPCR_AHP);
    assert_eq!(convert::<Half, Single>(&mut env, 0x7c00), f32::to_bits(65536.0).into());
    assert_eq!(convert::<Half, Single>(&mut env, 0x7fff), f32::to_bits(131_008.0).into());
    assert_eq!(convert::<Single, Half>(&mut env, f32::to_bits(131_008.0).into()), 0x7fff);
    assert_eq!(env.fpsr, 0);
    assert_eq!(convert::<Single, Half>(&mut env, f32::to_bits(-131_072.0).into()), 0xffff);
    assert_eq!(env.fpsr, FPSR_IOC);
    let mut env = FpEnv::new(FPCR_AHP);
    assert_eq!(convert::<Double, Half>(&mut env, Double::INFINITY), 0x7fff);
    assert_eq!(env.fpsr, FPSR_IOC);
    let mut env = FpEnv::new(FPCR_AHP);
    assert_eq!(convert::<Single, Half>(&mut env, 0xffc0_0000), 0x8000);
    assert_eq!(env.fpsr, FPSR_IOC);
    // Arithmetic does not know the alternative format.
    assert_eq!(add::<Half>(&mut env, 0x7c00, 0x3c00), 0x7c00);
}

#[test]
fn nan_conversions_keep_the_payload() {
    let mut env = FpEnv::default();
    assert_eq!(convert::<Single, Double>(&mut env, 0xffc1_2345), 0xfff8_2468_a000_0000);
    assert_eq!(env.fpsr, 0);
    assert_eq!(convert::<Single, Half>(&mut env, 0x7f80_2000), 0x7e01);
    assert_eq!(env.fpsr, FPSR_IOC);
    assert_eq!(convert::<Half, Double>(&mut env, 0xfe01), 0xfff8_0400_0000_0000);
    env.fpcr = FPCR_DN;
    assert_eq!(convert::<Half, Double>(&mut env, 0xfe01), Double::DEFAULT_NAN);
}

#[test]
fn round_to_odd_is_exact_or_odd() {
    let mut rng = Rng(3);
    for _ in 0..20_000 {
        let a = (rng.next() & !Double::INFINITY) | ((0x370 + rng.next() % 0x120) << 52);
        let mut env = FpEnv::default();
        let odd = convert_to_odd_single(&mut env, a);
        let mut env = FpEnv::new(3 << FPCR_RMODE_SHIFT);
        let zero = convert::<Double, Single>(&mut env, a);
        let want = if env.fpsr & FPSR_IXC != 0 { zero | 1 } else { zero };
        assert_eq!(odd, want, "{a:x}");
    }
    let mut env = FpEnv::default();
    assert_eq!(convert_to_odd_single(&mut env, Double::MAX_NORMAL), Single::MAX_NORMAL);
    assert_eq!(env.fpsr, FPSR_OFC | FPSR_IXC);
}

#[test]
fn estimates_follow_the_pseudocode() {
    let mut env = FpEnv::default();
    let f = |v: f32| u64::from(v.to_bits());
    // RecipEstimate(256) = 511 and RecipSqrtEstimate(128) = 511.
    assert_eq!(recip_estimate::<Single>(&mut env, f(1.0), false), f(511.0 / 512.0));
    assert_eq!(recip_estimate::<Single>(&mut env, f(-2.0), false), f(-511.0 / 1024.0));
    assert_eq!(rsqrt_estimate::<Single>(&mut env, f(1.0), false), f(511.0 / 512.0));
    assert_eq!(rsqrt_estimate::<Single>(&mut env, f(4.0), false), f(511.0 / 1024.0));
    assert_eq!(env.fpsr, 0);
    // Relative errors stay under 2^-8, in every format.
    let mut rng = Rng(1);
    for _ in 0..10_000 {
        let v = f64::from_bits((rng.next() & Double::FRAC_MASK) | ((1023 - 9 + rng.next() % 18) << 52));
        let narrow = convert::<Double, Half>(&mut FpEnv::default(), v.to_bits());
        let v = f64::from_bits(convert::<Half, Double>(&mut FpEnv::default(), narrow));
        let single = u64::from((v as f32).to_bits());
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1.0 / 256.0, "{v} {got} {want}");
        let wide = |h: u64| f64::from_bits(convert::<Half, Double>(&mut FpEnv::default(), h));
        near(f64::from_bits(recip_estimate::<Double>(&mut env, v.to_bits(), false)), 1.0 / v);
        near(f32::from_bits(recip_estimate::<Single>(&mut env, single, false) as u32).into(), 1.0 / v);
        near(wide(recip_estimate::<Half>(&mut env, narrow, false)), 1.0 / v);
        near(f64::from_bits(rsqrt_estimate::<Double>(&mut env, v.to_bits(), false)), v.sqrt().recip());
        near(
            f32::from_bits(rsqrt_estimate::<Single>(&mut env, single, false) as u32).into(),
            v.sqrt().recip(),
        );
        near(wide(rsqrt_estimate::<Half>(&mut env, narrow, false)), v.sqrt().recip());
    }
    assert_eq!(env.fpsr, 0);
}

#[test]
fn estimates_at_the_edges() {
    let mut env = FpEnv::default();
    assert_eq!(recip_estimate::<Single>(&mut env, 0x8000_0000, false), 0xff80_0000);
    assert_eq!(env.fpsr, FPSR_DZC);
    let mut env = FpEnv::new(3 << FPCR_RMODE_SHIFT);
    assert_eq!(recip_estimate::<Double>(&mut env, 1, false), Double::MAX_NORMAL);
    assert_eq!(env.fpsr, FPSR_OFC | FPSR_IXC);
    let mut env = FpEnv::new(FPCR_FZ);
    assert_eq!(recip_estimate::<Single>(&mut env, 0xff00_0000, false), 0x8000_0000);
    assert_eq!(env.fpsr, FPSR_UFC);
    let mut env = FpEnv::default();
    // 2^127: the estimate of 2^-127 is 511/512 of it, a subnormal number.
    assert_eq!(recip_estimate::<Single>(&mut env, 0x7f00_0000, false), 0x003f_e000);
    assert_eq!(recip_estimate::<Single>(&mut env, 0x7e80_0000, false), 0x007f_c000);
    assert_eq!(rsqrt_estimate::<Single>(&mut env, 0xbf80_0000, false), Single::DEFAULT_NAN);
    assert_eq!(env.fpsr, FPSR_IOC);
    assert_eq!(unsigned_recip_estimate(0x7fff_ffff), u32::MAX);
    assert_eq!(unsigned_recip_estimate(0x8000_0000), 0xff80_0000);
    assert_eq!(unsigned_recip_estimate(0xffff_ffff), 0x8000_0000);
    assert_eq!(unsigned_rsqrt_estimate(0x3fff_ffff), u32::MAX);
    assert_eq!(unsigned_rsqrt_estimate(0x4000_0000), 0xff80_0000);
    assert_eq!(unsigned_rsqrt_estimate(0xffff_ffff), 0x8000_0000);
    assert_eq!(recip_exponent::<Single>(&mut env, 0x8000_0001), 0xff00_0000);
    assert_eq!(recip_exponent::<Single>(&mut env, 0x3f81_2345), 0x4000_0000);
    assert_eq!(recip_exponent::<Single>(&mut env, 0x7f80_0000), 0);
}

#[test]
fn newton_steps_round_once() {
    let mut env = FpEnv::default();
    let d = |v: f64| v.to_bits();
    assert_eq!(recip_step::<Double>(&mut env, d(1.5), d(0.5)), d(1.25));
    assert_eq!(recip_step::<Double>(&mut env, d(2.0), d(1.0)), 0);
    assert_eq!(rsqrt_step::<Double>(&mut env, d(1.5), d(-0.5)), d(1.875));
    assert_eq!(recip_step::<Double>(&mut env, d(0.0), d(f64::INFINITY)), d(2.0));
    assert_eq!(rsqrt_step::<Double>(&mut env, d(f64::NEG_INFINITY), d(0.0)), d(1.5));
    assert_eq!(rsqrt_step::<Double>(&mut env, d(f64::INFINITY), d(2.0)), d(f64::NEG_INFINITY));
    assert_eq!(recip_step::<Double>(&mut env, d(0.0), d(5.0)), d(2.0));
    let mut rng = Rng(9);
    let special = special::<Double>();
    for _ in 0..20_000 {
        let a = random::<Double>(&mut rng, &special);
        let b = random::<Double>(&mut rng, &special);
        let (fa, fb) = (f64::from_bits(a), f64::from_bits(b));
        if !(fa * fb).is_finite() {
            continue;
        }
        let want = (-fa).mul_add(fb, 2.0);
        assert_eq!(recip_step::<Double>(&mut FpEnv::default(), a, b), d(want), "{a:x} {b:x}");
        let want = (-fa).mul_add(fb, 3.0) / 2.0;
        assert_eq!(rsqrt_step::<Double>(&mut FpEnv::default(), a, b), d(want), "{a:x} {b:x}");
    }
}

#[test]
fn javascript_conversion_wraps() {
    let mut env = FpEnv::default();
    let mut js = |v: f64| js_to_int32(&mut env, v.to_bits());
    assert_eq!(js(1.0), (1, true));
    assert_eq!(js(-0.0), (0, false));
    assert_eq!(js(-1.5), (u32::MAX, false));
    assert_eq!(js(2_147_483_648.0), (0x8000_0000, false));
    assert_eq!(js(-2_147_483_648.0), (0x8000_0000, true));
    assert_eq!(js(4_294_967_301.0), (5, false));
    assert_eq!(js(-4_294_967_301.0), (5u32.wrapping_neg(), false));
    assert_eq!(js(f64::from_bits(0x4410_0000_0000_0001)), (0x4000, false));
    assert_eq!(js(1e300), (0, false));
    assert_eq!(js(f64::NAN), (0, false));
}

#[test]
fn fixed_point_saturates() {
    let mut env = FpEnv::default();
    let d = |v: f64| v.to_bits();
    assert_eq!(to_fixed::<Double>(&mut env, d(1.5), 1, false, Rounding::Zero, 32), 3);
    assert_eq!(to_fixed::<Double>(&mut env, d(-0.25), 2, false, Rounding::Zero, 32), 0xffff_ffff);
    assert_eq!(env.fpsr, 0);
    assert_eq!(to_fixed::<Double>(&mut env, d(-0.5), 0, true, Rounding::Zero, 32), 0);
    assert_eq!(env.fpsr, FPSR_IXC);
    let mut env = FpEnv::default();
    assert_eq!(to_fixed::<Double>(&mut env, d(-1.0), 0, true, Rounding::Zero, 32), 0);
    assert_eq!(to_fixed::<Double>(&mut env, d(f64::INFINITY), 64, true, Rounding::Zero, 64), u64::MAX);
    assert_eq!(env.fpsr, FPSR_IOC);
    let mut env = FpEnv::default();
    assert_eq!(fixed_to_fp::<Single>(&mut env, 3, 64, true, Rounding::TieEven), 0x2040_0000);
    assert_eq!(env.fpsr, 0);
}
