//! The vCPU engine: lifecycle, threads, work, exclusive sections, kick, halt, pause, shutdown.
//!
//! The seam to accelerators is in [`accel`]; what a vCPU's thread shares with the rest of the machine is
//! in [`shared`].

pub mod accel;
pub mod shared;

pub use accel::{Accelerator, AcceleratorError, Halt, Kick, VcpuBackend, VcpuExit};
pub use shared::VcpuShared;
