//! What a vCPU's thread shares with devices and other vCPUs: interrupt lines, the event register, kicks.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use armlet_arm::Pstate;

use crate::accel::{Halt, Kick};
use crate::sleeper::Sleeper;
use crate::sync::{AtomicBool, Mutex, Ordering, lock, step};

/// What vCPUs have in common that share one thread.
pub(crate) struct Common {
    pub(crate) sleeper: Sleeper,
    /// The one that executes.
    executing: Mutex<Option<Arc<VcpuShared>>>,
}

impl Common {
    pub(crate) fn new() -> Self {
        Self { sleeper: Sleeper::new(), executing: Mutex::new(None) }
    }

    /// Notes who executes now. Who asked for something before is to be looked at after this.
    pub(crate) fn set_executing(&self, vcpu: Option<&Arc<VcpuShared>>) {
        *lock(&self.executing) = vcpu.cloned();
    }

    /// Gets the thread's attention.
    fn request_exit(&self) {
        if let Some(vcpu) = &*lock(&self.executing) {
            vcpu.request_own_exit();
        }
    }
}

/// Drives an interrupt line; tells whether it has risen. Mostly it is where it is to be, which takes no exchange to find out.
fn drive(line: &AtomicBool, level: bool) -> bool {
    line.load(Ordering::Acquire) != level && !line.swap(level, Ordering::AcqRel) && level
}

/// Shared part of one vCPU.
///
/// Whatever changes here for the vCPU to see goes through the same four steps, which lose nothing: store
/// the reason, store the exit request (if `run` must return), wake the sleeper, kick the accelerator.
pub struct VcpuShared {
    index: usize,
    irq: AtomicBool,
    fiq: AtomicBool,
    event: AtomicBool,
    exit_request: AtomicBool,
    sleeper: Sleeper,
    /// What the vCPU has in common with those that share its thread.
    common: OnceLock<Arc<Common>>,
    kick: OnceLock<std::sync::Arc<dyn Kick>>,
}

impl Default for VcpuShared {
    fn default() -> Self {
        Self::new(0)
    }
}

impl VcpuShared {
    /// For vCPU number `index`.
    pub fn new(index: usize) -> Self {
        Self {
            index,
            irq: AtomicBool::new(false),
            fiq: AtomicBool::new(false),
            event: AtomicBool::new(false),
            exit_request: AtomicBool::new(false),
            sleeper: Sleeper::new(),
            common: OnceLock::new(),
            kick: OnceLock::new(),
        }
    }

    /// The vCPU's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Level of the IRQ line.
    #[inline]
    pub fn irq(&self) -> bool {
        self.irq.load(Ordering::Acquire)
    }

    /// Level of the FIQ line.
    #[inline]
    pub fn fiq(&self) -> bool {
        self.fiq.load(Ordering::Acquire)
    }

    /// The levels of the IRQ and of the FIQ line, to look at without a call.
    pub fn lines(&self) -> [&AtomicBool; 2] {
        [&self.irq, &self.fiq]
    }

    /// True if WFI has something to wake up for.
    #[inline]
    pub fn interrupt_pending(&self) -> bool {
        self.irq() || self.fiq()
    }

    /// True if an interrupt would be taken with the masks of `pstate`: what ends WFE.
    pub fn interrupt_unmasked(&self, pstate: Pstate) -> bool {
        pstate.takes(self.irq(), self.fiq())
    }

    /// True if there is something that ends a halt of a vCPU with these masks.
    pub(crate) fn ends(&self, halt: Halt, pstate: Pstate) -> bool {
        match halt {
            Halt::Interrupt => self.interrupt_pending(),
            Halt::Event => self.event_pending() || self.interrupt_unmasked(pstate),
        }
    }

    /// Drives the IRQ line (interrupt controllers only). A rising level gets the vCPU's attention.
    pub fn set_irq(&self, level: bool) {
        if drive(&self.irq, level) {
            step("interrupt: kick", || self.notify());
        }
    }

    /// Drives the FIQ line.
    pub fn set_fiq(&self, level: bool) {
        if drive(&self.fiq, level) {
            step("interrupt: kick", || self.notify());
        }
    }

    /// Drives both lines and kicks the accelerator if one rises. True if the vCPU sleeps: [`Self::notify`] must follow then,
    /// with nothing locked that the vCPU asks for when it wakes.
    #[must_use]
    pub fn set_lines(&self, irq: bool, fiq: bool) -> bool {
        if !(drive(&self.irq, irq) | drive(&self.fiq, fiq)) {
            return false;
        }
        self.kick();
        self.sleeper().is_asleep()
    }

    /// Sets the event register (SEV, or an event from outside) and wakes a WFE.
    pub fn send_event(&self) {
        self.event.store(true, Ordering::Release);
        // A running vCPU finds the register at its next WFE; only a sleeping one needs waking.
        step("event: wake of the sleeper", || self.sleeper().wake());
    }

    /// Sets the event register from the vCPU's own thread, where nobody sleeps (SEVL, exception return).
    #[inline]
    pub fn set_event(&self) {
        self.event.store(true, Ordering::Release);
    }

    /// Clears the event register and tells whether it was set (WFE).
    #[inline]
    pub fn take_event(&self) -> bool {
        self.event.swap(false, Ordering::AcqRel)
    }

    /// Whether the event register is set; leaves it as it is.
    pub fn event_pending(&self) -> bool {
        self.event.load(Ordering::Acquire)
    }

    fn sleeper(&self) -> &Sleeper {
        self.common.get().map_or(&self.sleeper, |common| &common.sleeper)
    }

    /// The vCPU shares its thread with others.
    pub(crate) fn share_thread(&self, common: &Arc<Common>) {
        let _ = self.common.set(Arc::clone(common));
    }

    /// Set by the accelerator when it has made the vCPU.
    pub fn set_kick(&self, kick: std::sync::Arc<dyn Kick>) {
        let _ = self.kick.set(kick);
    }

    /// Gets the attention of the vCPU: wakes it if it sleeps, kicks it if it runs.
    pub fn notify(&self) {
        step("kick: wake of the sleeper", || self.sleeper().wake());
        self.kick();
    }

    fn kick(&self) {
        if let Some(k) = self.kick.get() {
            step("kick: kick of the accelerator", || k.kick());
        }
    }

    /// Asks `run` to return soon (work, pause, exclusive section, shutdown). The reason must have been
    /// stored before.
    pub fn request_exit(&self) {
        self.request_own_exit();
        if let Some(common) = self.common.get() {
            common.request_exit();
        }
    }

    fn request_own_exit(&self) {
        // Exchanges, here and where it is taken: between a store and another thread's exchange the models know no order.
        step("kick: store of the exit request", || {
            self.exit_request.swap(true, Ordering::AcqRel);
        });
        self.notify();
    }

    /// True if the engine wants the vCPU's thread back: an accelerator that has seen a kick must then leave
    /// `run` with [`VcpuExit::Kicked`](crate::VcpuExit::Kicked). If it is false the kick was for an
    /// interrupt line, and `run` may go on after looking at the lines.
    #[inline]
    pub fn exit_requested(&self) -> bool {
        self.exit_request.load(Ordering::Acquire)
    }

    /// Takes the exit request, before looking for its reasons.
    pub(crate) fn clear_exit_request(&self) {
        self.exit_request.swap(false, Ordering::AcqRel);
    }

    /// Sleeps on the vCPU's own thread; see [`Sleeper::sleep_until`].
    pub(crate) fn sleep_until(&self, deadline: Option<Instant>, ready: impl FnMut() -> bool) -> bool {
        self.sleeper().sleep_until(deadline, ready)
    }

    /// Wakes the vCPU's thread without kicking the accelerator.
    pub(crate) fn wake(&self) {
        self.sleeper().wake();
    }
}
