//! The translator: decode, lift to IR, host code.

pub mod helpers;
pub mod ir;
pub mod lift;
