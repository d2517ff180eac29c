//! The seam between the engine and what executes guest code.

use std::sync::Arc;

use armlet_arm::CpuState;
use thiserror::Error;

use crate::shared::VcpuShared;

/// Why an accelerator or one of its vCPUs cannot be made.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct AcceleratorError(pub String);

/// Makes a vCPU's `run` return, or look at its interrupt lines again, soon. Callable from any thread, at
/// any moment, also before `run` was entered: a kick is never lost (the next `run` sees it).
pub trait Kick: Send + Sync {
    /// Asks for attention.
    fn kick(&self);
}

/// What a vCPU waits for when it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// WFI: any interrupt line, masked or not.
    Interrupt,
    /// WFE: the event register, or an interrupt line that PSTATE does not mask (Arm ARM, D1.6.1).
    Event,
}

/// Why `run` returned.
#[derive(Debug)]
pub enum VcpuExit {
    /// A kick was seen; nothing else happened.
    Kicked,
    /// The guest executed WFI or WFE and nothing was pending. PC is past it.
    Halted(Halt),
    /// `HVC #imm`; PC is past it. The handler reads and writes the general registers.
    Hypercall(u16),
    /// `HLT #0xf000` (semihosting); PC is past it. W0 is the operation, X1 its parameter.
    Semihosting,
    /// The vCPU cannot go on; the text says why.
    Fatal(String),
}

/// One vCPU inside an accelerator. Lives on its own thread, where it was made; never sent to another.
pub trait VcpuBackend {
    /// How other threads get this vCPU's attention.
    fn kick_handle(&self) -> Arc<dyn Kick>;
    /// Executes guest code until something needs the engine. Interrupts are taken inside, from the lines
    /// in [`VcpuShared`].
    fn run(&mut self) -> VcpuExit;
    /// The architectural state, complete and current. Only valid between calls of `run`.
    fn state(&self) -> &CpuState;
    /// The same for changing; the accelerator takes all changes into account at the next `run`, whatever
    /// was changed (translations and TLB contents that depend on it are dropped or revalidated).
    fn state_mut(&mut self) -> &mut CpuState;
    /// The machine's reset: `state` replaces all registers. Memory may have been replaced as well, so nothing
    /// that was made from what it held, such as translated code, may be used any more.
    fn reset(&mut self, state: CpuState) {
        *self.state_mut() = state;
    }
    /// Counters for `--stats`, as (name, value).
    fn statistics(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// A way of executing guest code.
pub trait Accelerator: Send + Sync {
    /// Short name as it stands in thread names: `JIT`, `KVM`, `dummy`.
    fn name(&self) -> &'static str;
    /// Makes a vCPU; called on the thread that will run it.
    ///
    /// # Errors
    /// What the accelerator lacks, for people.
    fn create_vcpu(
        &self,
        shared: Arc<VcpuShared>,
        state: CpuState,
    ) -> Result<Box<dyn VcpuBackend>, AcceleratorError>;
}
