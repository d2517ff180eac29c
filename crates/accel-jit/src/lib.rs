//! The translator: decode, lift to IR, host code.

pub mod ir;
pub mod lift;
