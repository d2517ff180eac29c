//! What can go wrong in the engine's operations.

use thiserror::Error;

use crate::accel::AcceleratorError;
use crate::control::MachineState;

/// Why an operation of the engine failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The accelerator refused to make the vCPU.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// The host gave no thread.
    #[error(
        "Cannot start a thread for vCPU {vcpu}: {source}; raise the limit on threads or ask for fewer vCPUs"
    )]
    Thread {
        /// The vCPU.
        vcpu: usize,
        /// What the host said.
        source: std::io::Error,
    },
    /// The number is taken.
    #[error("vCPU {0} exists already; choose another number")]
    Exists(usize),
    /// There is no such vCPU.
    #[error("There is no vCPU {0}; list those that exist and choose one of them")]
    NoSuchVcpu(usize),
    /// The vCPU left the machine before the work was done.
    #[error("vCPU {0} has left the machine; the work for it was not done")]
    Gone(usize),
    /// The vCPU is on, which it may not be for the operation.
    #[error("vCPU {0} is on; let the guest switch it off first")]
    PoweredOn(usize),
    /// A blocking operation was called on a vCPU's thread, where it could wait for itself.
    #[error(
        "This operation blocks and may not be called on a vCPU's thread; use its VcpuAccess or send an event"
    )]
    OnVcpuThread,
    /// The work itself panicked.
    #[error("Work on vCPU {vcpu} panicked: {reason}")]
    Panicked {
        /// The vCPU.
        vcpu: usize,
        /// The panic's message.
        reason: String,
    },
    /// Somebody did not answer in time.
    #[error("{what} is not done after {seconds} s; not answering: vCPU {vcpus:?}")]
    Timeout {
        /// The operation.
        what: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// Who was waited for.
        vcpus: Vec<usize>,
    },
    /// The machine was resumed before it had stopped.
    #[error("The pause was overtaken by a resume; pause again")]
    PauseCancelled,
    /// The machine is shutting down or gone.
    #[error("The machine is shutting down")]
    ShutDown,
    /// The operation makes no sense now.
    #[error("Cannot {operation} a machine that is {state}")]
    BadState {
        /// The operation.
        operation: &'static str,
        /// The machine's state.
        state: MachineState,
    },
    /// A vCPU failed; the machine goes on only after a reset.
    #[error("The machine has failed ({0}); reset it")]
    Failed(String),
}
