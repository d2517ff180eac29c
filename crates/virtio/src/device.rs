//! The seam between a transport and the devices behind it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use armlet_memory::Ram;
use armlet_saved::{SavedVirtio, Unfit};

use crate::queue::{Queue, QueueError, QueuePosition};
use crate::spec::interrupt;

/// Sets the level of a device's interrupt line. Called with the device's interrupt lock held, so it must not
/// call back into the device.
pub type LineSetter = Arc<dyn Fn(bool) + Send + Sync>;

/// What a device tells its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Buffers of this queue were used.
    Used(u16),
    /// The configuration, or the need to be reset, changed.
    Config,
}

/// How a transport interrupts. It must not call back into the device.
pub(crate) trait InterruptPath: Send + Sync {
    /// There are causes in the interrupt status, or there are none any more. Called with the causes locked.
    fn level(&self, pending: bool);

    /// Tells of `event` by a message. False if it is the interrupt status that tells of used buffers.
    fn message(&self, _event: Event) -> bool {
        false
    }

    /// The driver resets the device, or puts it into use anew.
    fn reset(&self) {}
}

impl InterruptPath for LineSetter {
    fn level(&self, pending: bool) {
        self(pending);
    }
}

/// What a device says to its driver outside the queues: interrupts, configuration changes, and that it is
/// broken. Shared by the transport and the device's threads.
pub struct DriverLink {
    /// The device's name, for logs.
    name: String,
    /// Pending causes. The line is set under this lock, so that it always shows the causes.
    causes: Mutex<u32>,
    path: Box<dyn InterruptPath>,
    generation: AtomicU32,
    needs_reset: AtomicBool,
    /// How often a driver has broken the rules since the machine was built.
    failures: AtomicU32,
}

/// Failures of drivers of one device that are logged one by one.
const MAX_LOGGED: u32 = 8;

impl DriverLink {
    /// A quiet link over `path`, for the device called `name`.
    pub(crate) fn new(name: &str, path: Box<dyn InterruptPath>) -> Self {
        Self {
            name: name.into(),
            causes: Mutex::new(0),
            path,
            generation: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        }
    }

    /// Tells the driver that buffers of `queue` were used.
    pub fn used_buffers(&self, queue: u16) {
        if !self.path.message(Event::Used(queue)) {
            self.raise(interrupt::USED_BUFFER);
        }
    }

    /// Tells the driver that the configuration has changed; call it after the change.
    pub fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.tell_config();
    }

    /// Tells the driver that the device does nothing more until it is reset, because of `error`.
    pub fn fail(&self, error: QueueError) {
        let count = self.failures.fetch_add(1, Ordering::Relaxed);
        if count < MAX_LOGGED {
            tracing::warn!(device = self.name, %error, "the guest's driver broke the rules; the device waits for a reset");
        } else if count == MAX_LOGGED {
            tracing::warn!(device = self.name, "more of this device's drivers' mistakes are not logged");
        }
        self.needs_reset.store(true, Ordering::SeqCst);
        self.tell_config();
    }

    /// The status says it in any case, before a message does (virtio 4.1.4.5.1).
    fn tell_config(&self) {
        self.raise(interrupt::CONFIG_CHANGE);
        self.path.message(Event::Config);
    }

    /// True from [`fail`](Self::fail) to the next reset.
    pub fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    pub(crate) fn causes(&self) -> u32 {
        *self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes causes back; those that there were.
    pub(crate) fn acknowledge(&self, handled: u32) -> u32 {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *causes;
        *causes &= !handled;
        if before != 0 && *causes == 0 {
            self.path.level(false);
        }
        before
    }

    /// Takes over what was said before a machine was saved.
    pub(crate) fn restore(&self, saved: &SavedVirtio) {
        self.generation.store(saved.generation, Ordering::SeqCst);
        self.needs_reset.store(saved.needs_reset, Ordering::SeqCst);
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        *causes = saved.causes;
        self.path.level(*causes != 0);
    }

    pub(crate) fn reset(&self) {
        self.needs_reset.store(false, Ordering::SeqCst);
        self.path.reset();
        self.acknowledge(u32::MAX);
    }

    fn raise(&self, cause: u32) {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *causes;
        *causes |= cause;
        if before == 0 {
            self.path.level(true);
        }
    }
}

/// What a device gets when its driver is ready.
pub struct Activation {
    /// Feature bits that device and driver agreed on.
    pub features: u64,
    /// The queues; `None` for those that the driver did not set up.
    pub queues: Vec<Option<Queue>>,
    /// Where the rings and buffers are.
    pub memory: Ram,
    /// The way back to the driver.
    pub link: Arc<DriverLink>,
}

/// A virtio device, without its transport.
///
/// Apart from [`quiesce`](Self::quiesce), [`resume`](Self::resume) and [`shutdown`](Self::shutdown), methods are
/// called on vCPU threads, and none may block for long: work that may is for the device's own thread.
/// `activate` and `reset` are never called at the same time.
pub trait VirtioDevice: Send + Sync {
    /// Kind of device (virtio 5).
    fn device_id(&self) -> u32;

    /// Short name for logs and the memory map.
    fn name(&self) -> &str;

    /// The device's own feature bits; the transport adds those of the transport and the rings.
    fn features(&self) -> u64;

    /// Largest size of each queue, a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `out` from `offset` in the configuration; bytes that do not exist stay as they are (zero).
    fn read_config(&self, offset: u64, out: &mut [u8]);

    /// True if the device can be notified by a doorbell, instead of by [`Self::notify`]: it makes no difference which of its
    /// queues is meant.
    fn takes_doorbell(&self) -> bool {
        false
    }

    /// The device is notified by this descriptor (an eventfd) from now on, as well as by [`Self::notify`]. Once, before
    /// the machine starts.
    fn take_doorbell(&self, bell: OwnedFd) {
        drop(bell);
    }

    /// Writes to the configuration. `features` is what the driver has accepted so far.
    fn write_config(&self, _features: u64, _offset: u64, _data: &[u8]) {}

    /// Starts work on the queues.
    fn activate(&self, activation: Activation);

    /// The driver says that there are buffers in `queue`. Ignored for queues that do not exist and while the
    /// device is not active.
    fn notify(&self, queue: u16);

    /// Stops work. Guest memory is not touched after this returns.
    fn reset(&self);

    /// As at power-on, after a reset: what else the device knows is forgotten.
    fn power_on(&self) {}

    /// Returns when no work is going on; none starts until [`resume`](Self::resume).
    fn quiesce(&self);

    /// Goes on after [`quiesce`](Self::quiesce), with whatever was notified meanwhile.
    fn resume(&self);

    /// How far each queue that is in use has been worked on. Only while the device is quiet.
    fn positions(&self) -> Vec<Option<QueuePosition>>;

    /// Adds what the device itself knows: its configuration, and what it keeps for the guest. Only while it is quiet.
    fn save(&self, saved: &mut SavedVirtio);

    /// Takes that over, before it is activated and while it is quiet.
    ///
    /// # Errors
    /// What differs; nothing has changed then.
    fn restore(&self, saved: &SavedVirtio) -> Result<(), Unfit>;

    /// Finishes requests that the driver has handed over, then ends the device's threads. Returns false if that
    /// took longer than `deadline`; the threads are then left to end on their own.
    fn shutdown(&self, deadline: Duration) -> bool;
}
