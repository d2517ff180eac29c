//! The MMIO transport (virtio 4.2), version 2.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use armlet_memory::{AccessSize, MmioDevice, Ram};

use crate::device::{Activation, DriverLink, LineSetter, VirtioDevice};
use crate::queue::{Queue, QueueError, QueueLayout};
use crate::spec::{feature, mmio, status};

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
}

/// A virtio device with its registers in the guest-physical address space.
///
/// Lock order: the registers' lock is taken before any of the device's; the device never takes it.
pub struct MmioTransport {
    pub(crate) device: Arc<dyn VirtioDevice>,
    memory: Ram,
    pub(crate) link: Arc<DriverLink>,
    state: Mutex<State>,
}

impl MmioTransport {
    /// Puts `device` behind registers; its buffers are in `memory`, and `line` is its interrupt line
    /// (level-sensitive, active high).
    pub fn new(device: Arc<dyn VirtioDevice>, memory: Ram, line: LineSetter) -> Self {
        let state = Mutex::new(State::new(&*device));
        let link = Arc::new(DriverLink::new(device.name(), line));
        Self { device, memory, link, state }
    }

    /// The device behind the registers.
    pub fn device(&self) -> &Arc<dyn VirtioDevice> {
        &self.device
    }

    /// Puts device and registers into their state at power-on. Guest memory is not touched after this returns.
    pub fn reset(&self) {
        self.reset_locked(&mut self.lock());
    }

    /// As [`Self::reset`], and the device forgets what it knows from before.
    pub fn power_on(&self) {
        self.reset();
        self.device.power_on();
    }

    /// See [`VirtioDevice::quiesce`].
    pub fn quiesce(&self) {
        self.device.quiesce();
    }

    /// See [`VirtioDevice::resume`].
    pub fn resume(&self) {
        self.device.resume();
    }

    /// See [`VirtioDevice::shutdown`].
    pub fn shutdown(&self, deadline: Duration) -> bool {
        self.device.shutdown(deadline)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn offered(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    fn reset_locked(&self, state: &mut State) {
        self.device.reset();
        self.link.reset();
        *state = State::new(&*self.device);
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            mmio::MAGIC_VALUE => mmio::MAGIC,
            mmio::VERSION => mmio::VERSION_2,
            mmio::DEVICE_ID => self.device.device_id(),
            mmio::VENDOR_ID => mmio::VENDOR,
            mmio::INTERRUPT_STATUS => self.link.causes(),
            mmio::CONFIG_GENERATION => self.link.generation(),
            mmio::DEVICE_FEATURES => half(self.offered(), self.lock().device_features_sel),
            mmio::QUEUE_NUM_MAX => {
                let index = self.lock().queue_sel as usize;
                self.device.queue_sizes().get(index).copied().unwrap_or(0).into()
            }
            mmio::QUEUE_READY => self.lock().queue().is_some_and(|q| q.ready).into(),
            mmio::STATUS => {
                let broken = if self.link.needs_reset() { status::DEVICE_NEEDS_RESET } else { 0 };
                self.lock().status | broken
            }
            // No shared memory regions: length and base of all ones (4.2.2).
            mmio::SHM_LEN_LOW | mmio::SHM_LEN_HIGH | mmio::SHM_BASE_LOW | mmio::SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        match offset {
            // The two registers of the fast path take no lock here.
            mmio::QUEUE_NOTIFY => {
                if let Ok(queue) = u16::try_from(value) {
                    self.device.notify(queue);
                }
            }
            mmio::INTERRUPT_ACK => self.link.acknowledge(value),
            mmio::STATUS => self.write_status(value),
            mmio::DEVICE_FEATURES_SEL => self.lock().device_features_sel = value,
            mmio::DRIVER_FEATURES_SEL => self.lock().driver_features_sel = value,
            mmio::DRIVER_FEATURES => self.write_features(value),
            mmio::QUEUE_SEL => self.lock().queue_sel = value,
            _ => self.write_queue_register(offset, value),
        }
    }

    fn write_features(&self, value: u32) {
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

    /// Queue registers are open until the queue is ready; once the device is live they are closed altogether,
    /// the queue's readiness included (only a reset opens them again).
    fn write_queue_register(&self, offset: u64, value: u32) {
        let mut state = self.lock();
        let index = state.queue_sel as usize;
        let live = state.phase == Phase::Live;
        let Some(queue) = state.queues.get_mut(index) else { return };
        if live {
            return;
        }
        if offset == mmio::QUEUE_READY {
            queue.ready = value & 1 != 0;
            return;
        }
        if queue.ready {
            return;
        }
        let layout = &mut queue.layout;
        match offset {
            // A size that does not fit is refused when the device goes live, as 0 is.
            mmio::QUEUE_NUM => layout.size = u16::try_from(value).unwrap_or(0),
            mmio::QUEUE_DESC_LOW => set_low(&mut layout.descriptors, value),
            mmio::QUEUE_DESC_HIGH => set_high(&mut layout.descriptors, value),
            mmio::QUEUE_DRIVER_LOW => set_low(&mut layout.available, value),
            mmio::QUEUE_DRIVER_HIGH => set_high(&mut layout.available, value),
            mmio::QUEUE_DEVICE_LOW => set_low(&mut layout.used, value),
            mmio::QUEUE_DEVICE_HIGH => set_high(&mut layout.used, value),
            _ => {}
        }
    }

    fn write_status(&self, value: u32) {
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

impl MmioDevice for MmioTransport {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        if let Some(offset) = offset.checked_sub(mmio::CONFIG) {
            let mut bytes = [0; 8];
            self.device.read_config(offset, &mut bytes[..size.bytes() as usize]);
            return u64::from_le_bytes(bytes);
        }
        // Drivers must use aligned words here (4.2.2.2).
        if size == AccessSize::Word && offset.is_multiple_of(4) {
            self.read_register(offset).into()
        } else {
            0
        }
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        if let Some(offset) = offset.checked_sub(mmio::CONFIG) {
            let features = self.lock().driver_features;
            self.device.write_config(features, offset, &value.to_le_bytes()[..size.bytes() as usize]);
        } else if size == AccessSize::Word && offset.is_multiple_of(4) {
            self.write_register(offset, value as u32);
        }
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

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}

/// Fills `out` from `offset` in a configuration of `config.len()` bytes; the rest stays as it is.
pub(crate) fn copy_config(config: &[u8], offset: u64, out: &mut [u8]) {
    let Some(from) = usize::try_from(offset).ok().and_then(|o| config.get(o..)) else { return };
    let n = from.len().min(out.len());
    out[..n].copy_from_slice(&from[..n]);
}
