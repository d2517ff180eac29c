//! What tests of all encodings begin with.

use armlet_arm::model::CpuModel;
use armlet_arm::{Enc, FeatureSet};

/// The features of the model called so.
pub(crate) fn features(model: &str) -> FeatureSet {
    *CpuModel::by_name(model).expect("a known model").features()
}

/// Words of an encoding with pseudo-random free bits.
pub(crate) fn words(e: Enc) -> impl Iterator<Item = u32> {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    (0..400).map(move |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (e.value() & e.mask()) | ((seed >> 20) as u32 & !e.mask())
    })
}
