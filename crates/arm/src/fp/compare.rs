//! Comparisons.

use super::*;

/// `FPCompare`: NZCV in bits 3 to 0. Quiet NaNs are invalid only if `signal_nans`.
pub fn compare<F: Format>(env: &mut FpEnv, a: u64, b: u64, signal_nans: bool) -> u32 {
    let (ua, ub) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if ua.is_nan() || ub.is_nan() {
        if signal_nans || ua.is(Class::SignallingNan) || ub.is(Class::SignallingNan) {
            env.raise(FPSR_IOC);
        }
        return 0b0011;
    }
    process_denormals::<F>(env, &[a, b]);
    if ua.less(&ub) {
        0b1000
    } else if ub.less(&ua) {
        0b0010
    } else {
        0b0110
    }
}

/// `FPCompareEQ`.
pub fn compare_eq<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> bool {
    compare::<F>(env, a, b, false) == 0b0110
}

/// `FPCompareGE`.
pub fn compare_ge<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> bool {
    matches!(compare::<F>(env, a, b, true), 0b0110 | 0b0010)
}

/// `FPCompareGT`.
pub fn compare_gt<F: Format>(env: &mut FpEnv, a: u64, b: u64) -> bool {
    compare::<F>(env, a, b, true) == 0b0010
}
