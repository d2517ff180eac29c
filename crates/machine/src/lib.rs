//! The `virt` board: memory map, wiring, device tree, boot, PSCI, semihosting, reset, and the machine that
//! runs on it.
//!
//! Describe a machine with [`MachineConfig`], build it with [`Machine::new`], run it with [`Machine::run`].

use std::sync::{Mutex, MutexGuard, PoisonError};

mod accelerator;
mod board;
pub mod boot;
pub mod config;
pub mod console;
pub mod cpu;
mod demo;
pub mod error;
pub mod fdt;
mod handle;
mod handler;
mod hung;
mod interrupts;
mod machine;
mod notice;
mod pace;
mod profile;
pub mod psci;
mod recording;
mod rewind;
mod saved;
pub mod semihosting;
pub mod spec;
mod statistics;
pub mod topology;

pub use armlet_accel_jit::crash::before_death;
pub use config::MachineConfig;
pub use console::Console;
pub use error::{BootError, ConfigError, PlugError};
pub use handle::{CpuInfo, MachineHandle, RunState};
pub use machine::{End, Machine};
pub use notice::{Cause, Notice, NoticeListener};
pub use recording::RecordingError;
pub use rewind::RewindError;
pub use saved::{RestoreError, SaveError, SaveReport, SavedThen};
pub use statistics::Statistics;

/// Locks `mutex`; a holder that panicked does not take the machine down with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
