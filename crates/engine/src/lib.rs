//! The vCPU engine: lifecycle, threads, work, exclusive sections, kick, halt, pause, shutdown.
//!
//! An [`Engine`] owns the vCPUs of one machine. Each has a thread of its own that drives an
//! accelerator's [`VcpuBackend`] and is one state machine ([`VcpuState`]). Other threads reach it through
//! what they share with it ([`VcpuShared`]: interrupt lines, events, kicks), through its work queue
//! ([`Engine::run_on`]), through the machine's control ([`Engine::pause`] and its kin) and through the
//! gate, which an exclusive section closes ([`Engine::run_exclusive`]).
//!
//! The seam to accelerators is in [`accel`].

pub mod accel;
mod access;
#[cfg(feature = "conformance")]
pub mod conformance;
mod control;
mod engine;
mod error;
mod event;
mod gate;
pub mod host_time;
mod linger;
#[cfg(all(test, any(loom, shuttle)))]
mod models;
pub mod pace;
mod power;
mod queue;
mod reply;
mod report;
pub mod samples;
pub mod shared;
mod single;
mod sleeper;
mod sync;
mod thread;
mod vcpu;

pub use accel::{
    Accelerator, AcceleratorError, DebugRequest, DebugStop, Halt, Kick, VcpuBackend, VcpuExit, Watchpoint,
};
pub use access::VcpuAccess;
pub use control::MachineState;
pub use engine::{Engine, EngineConfig};
pub use error::EngineError;
pub use event::{AfterExit, ExitHandler, MachineEvent, MachineListener};
pub use host_time::HostTime;
pub use pace::{InstructionCount, Pace};
pub use power::{Power, PowerControl, PowerOnError};
pub use report::{Report, VcpuReport, Wait};
pub use shared::VcpuShared;
pub use vcpu::{Then, VcpuState};
