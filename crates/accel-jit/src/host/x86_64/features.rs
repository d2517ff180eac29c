//! What the host CPU must have.

/// Names of the features that this CPU lacks and translated code needs; empty if all are there.
pub fn missing() -> Vec<&'static str> {
    macro_rules! need {
        ($($name:tt)*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    need!("avx2" "bmi1" "bmi2" "lzcnt" "popcnt" "fma" "f16c" "aes" "pclmulqdq" "sse4.2" "cmpxchg16b")
        .into_iter()
        .filter(|(_, there)| !there)
        .map(|(name, _)| name)
        .collect()
}

/// True if the host has the parts of AVX-512 that translated code uses (Ice Lake, Zen 4 and later).
pub fn has_avx512() -> bool {
    macro_rules! all {
        ($($name:tt)*) => { [$(std::arch::is_x86_feature_detected!($name)),*].iter().all(|there| *there) };
    }
    all!("avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512cd" "avx512vbmi" "avx512bitalg" "gfni" "vaes"
        "vpclmulqdq")
}
