//! Code generation for x86-64 hosts with AVX2, BMI2, FMA, AES and PCLMULQDQ (Haswell, Zen and later).

pub mod asm;
pub mod cycles;
mod evex;
pub mod features;
pub mod generate;
pub mod levels;
pub mod marks;
pub mod regs;
pub mod thunks;
mod upper;
