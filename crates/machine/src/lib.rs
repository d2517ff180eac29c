//! The `virt` board: memory map, wiring, device tree, boot, PSCI, semihosting, reset, and the machine that
//! runs on it.
//!
//! Describe a machine with [`MachineConfig`].

pub mod boot;
pub mod config;
mod demo;
pub mod error;
pub mod fdt;
pub mod psci;
pub mod spec;

pub use config::MachineConfig;
pub use error::{BootError, ConfigError};
