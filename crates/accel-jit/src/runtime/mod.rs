//! Running translated code: the vCPU's loop, translation, slow paths, maintenance across vCPUs.

pub mod exit;
pub mod state;
pub mod vcpu;

mod attend;
mod context;
mod count;
mod debug;
mod float_mode;
pub mod levels;
mod maintenance;
mod mops;
mod profile;
mod slow;
mod slow_mem;
mod translate;

pub(crate) use float_mode::handles_traps;
pub use maintenance::{Maintenance, Remote, Remotes};
