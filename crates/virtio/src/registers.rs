//! What every transport has: the driver's registers, their rules, and the device's life that they govern (virtio 2.1,
//! 3.1, 4).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use armlet_memory::Ram;
use armlet_saved::{SavedVirtio, Unfit};

use crate::device::{Activation, DriverLink, InterruptPath, VirtioDevice};
use crate::queue::{Queue, QueueError, QueueLayout};
use crate::spec::{feature, status};

/// Features of the rings and the transport, offered for every device.
const TRANSPORT_FEATURES: u64 = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;

/// How far the driver has come with the device (virtio 3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// After a reset: features may be chosen.
    Negotiating,
    /// The features are settled; queues may be set up.
    FeaturesOk,
    /// The driver is ready: the device works, and features and queues cannot be changed any more.
    Live,
}

/// One queue's registers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueRegisters {
    pub(crate) layout: QueueLayout,
    pub(crate) ready: bool,
}

pub(crate) struct State {
    pub(crate) phase: Phase,
    /// Status bits that the driver wrote and the device accepted.
    pub(crate) status: u32,
    pub(crate) device_features_sel: u32,
    pub(crate) driver_features_sel: u32,
    pub(crate) driver_features: u64,
    pub(crate) queue_sel: u32,
    pub(crate) queues: Vec<QueueRegisters>,
}

impl State {
    fn new(device: &dyn VirtioDevice) -> Self {
        let queue = |&size: &u16| QueueRegisters {
            layout: QueueLayout { size, ..QueueLayout::default() },
            ready: false,
        };
        Self {
            phase: Phase::Negotiating,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: device.queue_sizes().iter().map(queue).collect(),
        }
    }

    fn queue(&self) -> Option<&QueueRegisters> {
        self.queues.get(self.queue_sel as usize)
    }

    /// The queue that is selected, as long as its registers are open: until it is ready. Once the device is live they are
    /// closed altogether, the queue's readiness included (only a reset opens them again).
    fn open_queue(&mut self) -> Option<&mut QueueRegisters> {
        let live = self.phase == Phase::Live;
        self.queues.get_mut(self.queue_sel as usize).filter(|queue| !live && !queue.ready)
    }
}

/// A device with its registers, however they are reached.
pub trait Transport: Send + Sync {
    /// The device behind the registers.
    fn device(&self) -> &Arc<dyn VirtioDevice>;

    /// Puts device and registers into their state at power-on. Guest memory is not touched after this returns.
    fn reset(&self);

    /// See [`VirtioDevice::quiesce`].
    fn quiesce(&self);

    /// See [`VirtioDevice::resume`].
    fn resume(&self);

    /// All registers and what the device keeps. It must be [quiet](Self::quiesce).
    fn save(&self) -> SavedVirtio;

    /// Takes over all of that, in a device that nobody has used yet. It stays [quiet](Self::quiesce) until it is
    /// [resumed](Self::resume). What guest memory holds must have been restored before.
    ///
    /// # Errors
    /// What differs. The device must then be reset before it is used.
    fn restore(&self, saved: &SavedVirtio) -> Result<(), Unfit>;

    /// As [`Self::reset`], and the device forgets what it knows from before.
    fn power_on(&self) {
        self.reset();
        self.device().power_on();
    }

    /// See [`VirtioDevice::shutdown`].
    fn shutdown(&self, deadline: Duration) -> bool {
        self.device().shutdown(deadline)
    }
}

/// The registers.
///
/// Lock order: their lock is taken before any of the device's; the device never takes it.
pub(crate) struct Registers {
    pub(crate) device: Arc<dyn VirtioDevice>,
    memory: Ram,
    pub(crate) link: Arc<DriverLink>,
    state: Mutex<State>,
}

impl Registers {
    /// Of `device`, whose buffers are in `memory` and which interrupts by `path`.
    pub(crate) fn new(device: Arc<dyn VirtioDevice>, memory: Ram, path: Box<dyn InterruptPath>) -> Self {
        let state = Mutex::new(State::new(&*device));
        let link = Arc::new(DriverLink::new(device.name(), path));
        Self { device, memory, link, state }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn offered(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    /// The state at power-on.
    pub(crate) fn reset(&self) {
        self.reset_locked(&mut self.lock());
    }

    fn reset_locked(&self, state: &mut State) {
        self.device.reset();
        self.link.reset();
        *state = State::new(&*self.device);
    }

    /// The device status.
    pub(crate) fn status(&self) -> u32 {
        let broken = if self.link.needs_reset() { status::DEVICE_NEEDS_RESET } else { 0 };
        self.lock().status | broken
    }

    /// The features that are offered, as far as they are selected.
    pub(crate) fn device_features(&self) -> u32 {
        half(self.offered(), self.lock().device_features_sel)
    }

    /// The features that the driver has taken, as far as they are selected.
    pub(crate) fn driver_features(&self) -> u32 {
        let state = self.lock();
        half(state.driver_features, state.driver_features_sel)
    }

    /// Most entries of the selected queue; 0 if there is none.
    pub(crate) fn queue_size_max(&self) -> u16 {
        let index = self.lock().queue_sel as usize;
        self.device.queue_sizes().get(index).copied().unwrap_or(0)
    }

    /// The selected queue; one that does not exist is all zero.
    pub(crate) fn queue(&self) -> QueueRegisters {
        self.lock().queue().copied().unwrap_or_default()
    }

    /// Changes the layout of the selected queue, if it is still open.
    pub(crate) fn write_layout(&self, change: impl FnOnce(&mut QueueLayout)) {
        if let Some(queue) = self.lock().open_queue() {
            change(&mut queue.layout);
        }
    }

    /// Says whether the selected queue is set up.
    pub(crate) fn write_ready(&self, ready: bool) {
        let mut state = self.lock();
        if state.phase == Phase::Live {
            return;
        }
        let index = state.queue_sel as usize;
        if let Some(queue) = state.queues.get_mut(index) {
            queue.ready = ready;
        }
    }

    /// Takes features, as far as they are selected, until they are settled.
    pub(crate) fn write_features(&self, value: u32) {
        let mut state = self.lock();
        let shift = match state.driver_features_sel {
            0 => 0,
            1 => 32,
            // Bits 64 and up: none is offered, and none is remembered.
            _ => return,
        };
        if state.phase == Phase::Negotiating {
            let others = state.driver_features & !(u64::from(u32::MAX) << shift);
            state.driver_features = others | u64::from(value) << shift;
        }
    }

    pub(crate) fn write_status(&self, value: u32) {
        let mut state = self.lock();
        if value == 0 {
            self.reset_locked(&mut state);
            return;
        }
        // Bits that are set stay set until a reset (2.1.1).
        let new = value & !state.status;
        state.status |= new & (status::ACKNOWLEDGE | status::DRIVER | status::FAILED);
        if new & status::FEATURES_OK != 0 && state.phase == Phase::Negotiating {
            let taken = state.driver_features;
            if taken & !self.offered() == 0 && taken & feature::VERSION_1 != 0 {
                state.phase = Phase::FeaturesOk;
                state.status |= status::FEATURES_OK;
            }
        }
        if new & status::DRIVER_OK != 0 && state.phase == Phase::FeaturesOk {
            state.phase = Phase::Live;
            state.status |= status::DRIVER_OK;
            self.go_live(&state);
        }
    }

    fn go_live(&self, state: &State) {
        match self.make_queues(state) {
            Ok(queues) => self.activate(state, queues),
            Err(error) => self.link.fail(error),
        }
    }

    pub(crate) fn activate(&self, state: &State, queues: Vec<Option<Queue>>) {
        self.device.activate(Activation {
            features: state.driver_features,
            queues,
            memory: self.memory.clone(),
            link: self.link.clone(),
        });
    }

    pub(crate) fn make_queues(&self, state: &State) -> Result<Vec<Option<Queue>>, QueueError> {
        let event_idx = state.driver_features & feature::EVENT_IDX != 0;
        let make = |(q, &max): (&QueueRegisters, &u16)| {
            q.ready.then(|| Queue::new(self.memory.clone(), q.layout, max, event_idx)).transpose()
        };
        state.queues.iter().zip(self.device.queue_sizes()).map(make).collect()
    }
}

/// The 32 bits of `value` that a selector register asks for.
fn half(value: u64, selector: u32) -> u32 {
    match selector {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

pub(crate) fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

pub(crate) fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}

/// Fills `out` from `offset` in a configuration of `config.len()` bytes; the rest stays as it is.
pub(crate) fn copy_config(config: &[u8], offset: u64, out: &mut [u8]) {
    let Some(from) = usize::try_from(offset).ok().and_then(|o| config.get(o..)) else { return };
    let n = from.len().min(out.len());
    out[..n].copy_from_slice(&from[..n]);
}
