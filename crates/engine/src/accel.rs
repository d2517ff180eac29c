//! The seam between the engine and what executes guest code.

use std::sync::Arc;
use std::time::Duration;

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

/// What a debugger waits for met a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugStop {
    /// A breakpoint: the instruction at PC has not executed.
    Breakpoint,
    /// A watchpoint: the instruction at PC has not made the access.
    Watchpoint {
        /// First byte of the access.
        address: u64,
        /// It would have written.
        write: bool,
    },
    /// One instruction has executed, or its exception was taken.
    Step,
}

/// Addresses whose access stops a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// First byte, virtual.
    pub address: u64,
    /// Bytes; at least one.
    pub length: u64,
    /// Loads stop.
    pub read: bool,
    /// Stores stop.
    pub write: bool,
}

impl Watchpoint {
    /// True if an access of `bytes` bytes at `address` touches it. The top byte of addresses does not count.
    pub fn is_hit(&self, address: u64, bytes: u64, (read, write): (bool, bool)) -> bool {
        let bare = |a: u64| a << 8 >> 8;
        let (first, start) = (bare(address), bare(self.address));
        let kind = (read && self.read) || (write && self.write);
        kind && first < start.saturating_add(self.length) && start < first.saturating_add(bytes)
    }
}

/// What a debugger wants of a vCPU. The default is nothing, and costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugRequest {
    /// Execute one instruction and stop; interrupts are not taken meanwhile.
    pub step: bool,
    /// Virtual addresses of instructions to stop before.
    pub breakpoints: Vec<u64>,
    /// Accesses to stop before.
    pub watchpoints: Vec<Watchpoint>,
}

/// Why `run` returned.
#[derive(Debug)]
pub enum VcpuExit {
    /// A kick was seen; nothing else happened.
    Kicked,
    /// The guest executed WFI or WFE and nothing was pending. PC is past it.
    Halted(Halt),
    /// WFIT or WFET likewise, until so much of the machine's time has passed.
    HaltedFor(Halt, Duration),
    /// `HVC #imm`; PC is past it. The handler reads and writes the general registers.
    Hypercall(u16),
    /// `HLT #0xf000` (semihosting); PC is past it. W0 is the operation, X1 its parameter.
    Semihosting,
    /// A debugger's request was met. PC is the instruction that executes next.
    Debug(DebugStop),
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
    /// As [`VcpuBackend::run`], in a machine with a [`Pace`](crate::Pace): at most until the instruction count is
    /// `until`, where it returns [`VcpuExit::Kicked`]. The count is right whenever a device is called, and at the
    /// end.
    fn run_until(&mut self, until: u64) -> VcpuExit {
        let _ = until;
        VcpuExit::Fatal("this accelerator does not count instructions".to_owned())
    }
    /// The architectural state, complete and current. Only valid between calls of `run`.
    fn state(&self) -> &CpuState;
    /// The same for changing; the accelerator takes all changes into account at the next `run`, whatever
    /// was changed (translations and TLB contents that depend on it are dropped or revalidated).
    fn state_mut(&mut self) -> &mut CpuState;
    /// What is pending in the vCPU and not in its state, so that it cannot be saved: for people.
    fn unsaved(&self) -> Option<&'static str> {
        None
    }
    /// The machine's reset: `state` replaces all registers. Memory may have been replaced as well, so nothing
    /// that was made from what it held, such as translated code, may be used any more.
    fn reset(&mut self, state: CpuState) {
        *self.state_mut() = state;
    }
    /// As [`VcpuBackend::reset`], of a vCPU that goes on from `state`, which must be there whole afterwards.
    ///
    /// # Errors
    /// What the accelerator cannot have.
    fn replace(&mut self, state: CpuState) -> Result<(), AcceleratorError> {
        self.reset(state);
        Ok(())
    }
    /// A vCPU that was off starts anew: `state` replaces all registers.
    fn power_on(&mut self, state: CpuState) {
        *self.state_mut() = state;
    }
    /// Guest memory was changed from outside, possibly code or translation tables: nothing that was made from what it
    /// held may be used any more. The default is for accelerators that make nothing from it.
    fn memory_changed(&mut self) {}
    /// What a debugger wants from now on. The default refuses.
    ///
    /// # Errors
    /// The accelerator cannot do it.
    fn set_debug(&mut self, request: DebugRequest) -> Result<(), AcceleratorError> {
        if request == DebugRequest::default() {
            return Ok(());
        }
        Err(AcceleratorError("This accelerator does not support debugging of guests".to_owned()))
    }
    /// True if a debugger wants one instruction.
    fn steps(&self) -> bool {
        false
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
