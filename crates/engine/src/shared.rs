//! What a vCPU's thread shares with devices and other vCPUs: interrupt lines, the event register, kicks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::accel::Kick;

/// Shared part of one vCPU.
#[derive(Default)]
pub struct VcpuShared {
    index: usize,
    irq: AtomicBool,
    fiq: AtomicBool,
    event: AtomicBool,
    kick: OnceLock<Arc<dyn Kick>>,
}

impl VcpuShared {
    /// For vCPU number `index`.
    pub fn new(index: usize) -> Self {
        Self { index, ..Self::default() }
    }

    /// The vCPU's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Level of the IRQ line.
    pub fn irq(&self) -> bool {
        self.irq.load(Ordering::Acquire)
    }

    /// Level of the FIQ line.
    pub fn fiq(&self) -> bool {
        self.fiq.load(Ordering::Acquire)
    }

    /// True if WFI has something to wake up for.
    pub fn interrupt_pending(&self) -> bool {
        self.irq() || self.fiq()
    }

    /// Drives the IRQ line (interrupt controllers only). A rising level gets the vCPU's attention.
    pub fn set_irq(&self, level: bool) {
        if !self.irq.swap(level, Ordering::AcqRel) && level {
            self.notify();
        }
    }

    /// Drives the FIQ line.
    pub fn set_fiq(&self, level: bool) {
        if !self.fiq.swap(level, Ordering::AcqRel) && level {
            self.notify();
        }
    }

    /// Sets the event register (SEV, or an event from outside) and wakes a WFE.
    pub fn send_event(&self) {
        self.event.store(true, Ordering::Release);
        self.notify();
    }

    /// Clears the event register and tells whether it was set (WFE).
    pub fn take_event(&self) -> bool {
        self.event.swap(false, Ordering::AcqRel)
    }

    /// Set by the accelerator when it has made the vCPU.
    pub fn set_kick(&self, kick: Arc<dyn Kick>) {
        let _ = self.kick.set(kick);
    }

    /// Gets the attention of the vCPU: wakes it if it sleeps, kicks it if it runs.
    pub fn notify(&self) {
        if let Some(k) = self.kick.get() {
            k.kick();
        }
    }
}
