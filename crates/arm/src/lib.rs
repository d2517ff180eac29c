//! The Arm architecture (A64, Armv8-A) as facts and pure functions.
//!
//! Names of registers and fields are those of the Arm Architecture Reference Manual (Arm ARM, DDI 0487).
//! Nothing here knows threads, devices or the host.

pub mod crypto;
pub mod debug;
pub mod decode;
pub mod exception;
pub mod feature;
pub mod fp;
pub mod gic;
pub mod id;
pub mod mmu;
pub mod model;
pub mod mops;
pub mod pauth;
pub mod psci;
pub mod spec;
pub mod state;
pub mod sysop;
pub mod sysreg;

pub use decode::{Class, Enc, decode};
pub use exception::Exception;
pub use feature::{Feature, FeatureSet};
pub use model::CpuModel;
pub use state::{CpuState, Pstate};
pub use sysreg::SysReg;
