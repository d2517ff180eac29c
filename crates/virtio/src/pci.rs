//! The PCI transport (virtio 4.1), not transitional: a function whose BAR 0 has the structures of registers and whose
//! BAR 1 has MSI-X's table.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use armlet_devices::{InterruptLine, MessageSink};
use armlet_memory::{AccessSize, Ram};
use armlet_pci::spec::capability;
use armlet_pci::{ConfigSpace, Endpoint, Function, Identity, Msix, MsixPlace, requester_id};
use armlet_saved::{SavedVirtio, SavedVirtioPci, Unfit};

use crate::device::{Event, InterruptPath, VirtioDevice};
use crate::registers::{Registers, Transport, set_high, set_low};
use crate::spec::device_id;
use crate::spec::pci::{DEVICE, NO_VECTOR, REVISION, SUBSYSTEM, VENDOR, cap, cfg_type, common};

/// The BAR with the structures: its size, and where each structure begins.
const REGISTERS_BAR: usize = 0;
const REGISTERS_SIZE: u32 = 0x4000;
const STRUCTURE: u64 = 0x1000;
const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const DEVICE_CONFIG: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
/// Bytes from one queue's notification address to the next one's.
const NOTIFY_MULTIPLIER: u32 = 4;

/// The BAR with MSI-X's table, and where the pending bits are in it.
const MSIX_BAR: usize = 1;
const MSIX_SIZE: u32 = 0x1000;
const PENDING: u32 = 0x800;

/// Rings a device's bell for the guest's notifications, where the host's kernel can notice them.
pub trait Doorbell: Send + Sync {
    /// Stores to these addresses ring from now on, and to no others, as far as that can be. What is not noticed comes to
    /// the device as an access.
    fn ring_at(&self, addresses: &[u64]);
}

/// Where a function sits.
pub struct PciPlace {
    /// Number of the device on bus 0.
    pub number: u8,
    /// Its INTA.
    pub pin: Arc<dyn InterruptLine>,
    /// Where its messages go; without, it has no MSI-X.
    pub messages: Option<Arc<dyn MessageSink>>,
    /// What the device is notified by besides, if it takes that.
    pub bell: Option<Box<dyn Doorbell>>,
}

/// How the function interrupts.
struct Interrupts {
    endpoint: Endpoint,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
}

impl Interrupts {
    /// The vector that a write of `value` chooses: none, if there is no such (4.1.5.1.2).
    fn vector(&self, value: u16) -> u16 {
        let count = self.endpoint.msix().map_or(0, Msix::count);
        if usize::from(value) < count { value } else { NO_VECTOR }
    }
}

impl InterruptPath for Arc<Interrupts> {
    fn level(&self, pending: bool) {
        self.endpoint.set_interrupt(pending);
    }

    fn message(&self, event: Event) -> bool {
        let Some(msix) = self.endpoint.msix() else { return false };
        let vector = match event {
            Event::Used(queue) => self.queues.get(usize::from(queue)),
            Event::Config => Some(&self.config),
        };
        msix.signal(vector.map_or(NO_VECTOR, |vector| vector.load(Ordering::Relaxed)))
    }

    fn reset(&self) {
        let all = self.queues.iter().chain([&self.config]);
        all.for_each(|vector| vector.store(NO_VECTOR, Ordering::Relaxed));
        if let Some(msix) = self.endpoint.msix() {
            msix.forget();
        }
    }
}

/// Why the device does no work.
struct Hold {
    /// The machine wants it quiet.
    machine: bool,
    /// One of its reasons was there when it was looked at last.
    quiet: bool,
}

/// A virtio device as a PCI function.
///
/// Lock order: the hold's lock before the function's and the device's.
pub struct PciTransport {
    registers: Registers,
    interrupts: Arc<Interrupts>,
    hold: Mutex<Hold>,
    bell: Option<Box<dyn Doorbell>>,
    /// Where the capability is in configuration space by which BARs are accessed.
    window: u16,
}

impl PciTransport {
    /// Makes `device`, whose buffers are in `memory`, a function at `place`.
    pub fn new(device: Arc<dyn VirtioDevice>, memory: Ram, place: PciPlace) -> Self {
        let PciPlace { number, pin, messages, bell } = place;
        let queues = device.queue_sizes().len();
        let (config, window) = config_space(&*device);
        let mut endpoint = Endpoint::new(config, pin);
        if let Some(messages) = messages {
            let place = MsixPlace { bar: MSIX_BAR as u8, table: 0, pending: PENDING };
            endpoint = endpoint.with_msix(queues + 1, place, requester_id(number), messages);
        }
        let none = || AtomicU16::new(NO_VECTOR);
        let interrupts =
            Arc::new(Interrupts { endpoint, config: none(), queues: (0..queues).map(|_| none()).collect() });
        let registers = Registers::new(device, memory, Box::new(Arc::clone(&interrupts)));
        // It is no bus master yet.
        registers.device.quiesce();
        let hold = Mutex::new(Hold { machine: false, quiet: true });
        Self { registers, interrupts, hold, bell, window }
    }

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the device work, or not, as the reasons are now.
    fn settle(&self, mut hold: MutexGuard<'_, Hold>) {
        let quiet = hold.machine || !self.interrupts.endpoint.is_bus_master();
        if quiet != hold.quiet {
            hold.quiet = quiet;
            match quiet {
                true => self.registers.device.quiesce(),
                false => self.registers.device.resume(),
            }
        }
    }

    fn read_common(&self, offset: u64, size: AccessSize) -> u64 {
        let registers = &self.registers;
        let vector = |vector: &AtomicU16| vector.load(Ordering::Relaxed).into();
        let address = |from, value| read_address(offset - from, size, value);
        match (offset, size) {
            (common::DEVICE_FEATURE_SELECT, AccessSize::Word) => registers.lock().device_features_sel.into(),
            (common::DEVICE_FEATURE, AccessSize::Word) => registers.device_features().into(),
            (common::DRIVER_FEATURE_SELECT, AccessSize::Word) => registers.lock().driver_features_sel.into(),
            (common::DRIVER_FEATURE, AccessSize::Word) => registers.driver_features().into(),
            (common::CONFIG_MSIX_VECTOR, AccessSize::Half) => vector(&self.interrupts.config),
            (common::NUM_QUEUES, AccessSize::Half) => registers.device.queue_sizes().len() as u64,
            (common::DEVICE_STATUS, AccessSize::Byte) => registers.status().into(),
            (common::CONFIG_GENERATION, AccessSize::Byte) => u64::from(registers.link.generation()) & 0xff,
            (common::QUEUE_SELECT, AccessSize::Half) => registers.lock().queue_sel.into(),
            (common::QUEUE_SIZE, AccessSize::Half) => registers.queue().layout.size.into(),
            (common::QUEUE_MSIX_VECTOR, AccessSize::Half) => {
                self.queue_vector().map_or(NO_VECTOR.into(), vector)
            }
            (common::QUEUE_ENABLE, AccessSize::Half) => registers.queue().ready.into(),
            (common::QUEUE_NOTIFY_OFF, AccessSize::Half) => self.selected().map_or(0, |queue| queue as u64),
            (common::QUEUE_DESC..common::QUEUE_DRIVER, _) => {
                address(common::QUEUE_DESC, registers.queue().layout.descriptors)
            }
            (common::QUEUE_DRIVER..common::QUEUE_DEVICE, _) => {
                address(common::QUEUE_DRIVER, registers.queue().layout.available)
            }
            (common::QUEUE_DEVICE..=0x37, _) => address(common::QUEUE_DEVICE, registers.queue().layout.used),
            _ => 0,
        }
    }

    fn write_common(&self, offset: u64, size: AccessSize, value: u64) {
        let registers = &self.registers;
        let (word, half) = (value as u32, value as u16);
        let address = |from, address: &mut u64| write_address(offset - from, size, address, value);
        match (offset, size) {
            (common::DEVICE_FEATURE_SELECT, AccessSize::Word) => registers.lock().device_features_sel = word,
            (common::DRIVER_FEATURE_SELECT, AccessSize::Word) => registers.lock().driver_features_sel = word,
            (common::DRIVER_FEATURE, AccessSize::Word) => registers.write_features(word),
            (common::CONFIG_MSIX_VECTOR, AccessSize::Half) => {
                self.interrupts.config.store(self.interrupts.vector(half), Ordering::Relaxed);
            }
            (common::DEVICE_STATUS, AccessSize::Byte) => registers.write_status(word & 0xff),
            (common::QUEUE_SELECT, AccessSize::Half) => registers.lock().queue_sel = half.into(),
            (common::QUEUE_SIZE, AccessSize::Half) => registers.write_layout(|layout| layout.size = half),
            (common::QUEUE_MSIX_VECTOR, AccessSize::Half) => {
                if let Some(vector) = self.queue_vector() {
                    vector.store(self.interrupts.vector(half), Ordering::Relaxed);
                }
            }
            // Nothing but a reset takes it back (4.1.4.3.2).
            (common::QUEUE_ENABLE, AccessSize::Half) if half == 1 => registers.write_ready(true),
            (common::QUEUE_DESC..common::QUEUE_DRIVER, _) => {
                registers.write_layout(|layout| address(common::QUEUE_DESC, &mut layout.descriptors));
            }
            (common::QUEUE_DRIVER..common::QUEUE_DEVICE, _) => {
                registers.write_layout(|layout| address(common::QUEUE_DRIVER, &mut layout.available));
            }
            (common::QUEUE_DEVICE..=0x37, _) => {
                registers.write_layout(|layout| address(common::QUEUE_DEVICE, &mut layout.used));
            }
            _ => {}
        }
    }

    /// The selected queue's number, if there is such a queue.
    fn selected(&self) -> Option<usize> {
        let queue = self.registers.lock().queue_sel as usize;
        (queue < self.interrupts.queues.len()).then_some(queue)
    }

    fn queue_vector(&self) -> Option<&AtomicU16> {
        self.interrupts.queues.get(self.selected()?)
    }

    /// What the capability in configuration space asks for: BAR, offset, length.
    fn window(&self) -> Option<(usize, u64, AccessSize)> {
        let field = |at, size| self.interrupts.endpoint.read_config(self.window + at, size);
        let size = match field(cap::LENGTH, AccessSize::Word) {
            1 => AccessSize::Byte,
            2 => AccessSize::Half,
            4 => AccessSize::Word,
            _ => return None,
        };
        let bar = field(cap::BAR, AccessSize::Byte) as usize;
        Some((bar, field(cap::OFFSET, AccessSize::Word).into(), size))
    }

    /// True if an access to configuration space is one to the data of that capability.
    fn is_windowed(&self, offset: u16, size: AccessSize) -> bool {
        let data = self.window + cap::DATA;
        u64::from(offset) < u64::from(data) + 4 && u64::from(offset) + size.bytes() > data.into()
    }

    fn notify_addresses(&self, base: u64) -> Vec<u64> {
        let step = u64::from(NOTIFY_MULTIPLIER);
        (0..self.interrupts.queues.len() as u64).map(|queue| base + NOTIFY + step * queue).collect()
    }
}

impl Function for PciTransport {
    fn name(&self) -> &str {
        self.registers.device.name()
    }

    fn endpoint(&self) -> &Endpoint {
        &self.interrupts.endpoint
    }

    fn read(&self, bar: usize, offset: u64, size: AccessSize) -> u64 {
        match (bar, offset / STRUCTURE * STRUCTURE) {
            (REGISTERS_BAR, COMMON) => self.read_common(offset, size),
            // It is over with the read, and the interrupt with it (4.1.4.5.1).
            (REGISTERS_BAR, ISR) if offset == ISR => self.registers.link.acknowledge(u32::MAX).into(),
            (REGISTERS_BAR, DEVICE_CONFIG) => {
                let mut bytes = [0; 8];
                self.registers
                    .device
                    .read_config(offset - DEVICE_CONFIG, &mut bytes[..size.bytes() as usize]);
                u64::from_le_bytes(bytes)
            }
            (MSIX_BAR, _) => match self.interrupts.endpoint.msix() {
                Some(msix) if offset >= PENDING.into() => {
                    msix.read_pending(offset - u64::from(PENDING), size)
                }
                Some(msix) => msix.read_table(offset, size),
                None => 0,
            },
            _ => 0,
        }
    }

    fn write(&self, bar: usize, offset: u64, size: AccessSize, value: u64) {
        match (bar, offset / STRUCTURE * STRUCTURE) {
            (REGISTERS_BAR, NOTIFY) => {
                let queue = (offset - NOTIFY) / u64::from(NOTIFY_MULTIPLIER);
                // The structure's size keeps it small.
                self.registers.device.notify(queue as u16);
            }
            (REGISTERS_BAR, COMMON) => self.write_common(offset, size, value),
            (REGISTERS_BAR, DEVICE_CONFIG) => {
                let features = self.registers.lock().driver_features;
                let data = &value.to_le_bytes()[..size.bytes() as usize];
                self.registers.device.write_config(features, offset - DEVICE_CONFIG, data);
            }
            (MSIX_BAR, _) if offset < PENDING.into() => {
                if let Some(msix) = self.interrupts.endpoint.msix() {
                    msix.write_table(offset, size, value);
                }
            }
            _ => {}
        }
    }

    fn read_config(&self, offset: u16, size: AccessSize) -> u32 {
        let endpoint = &self.interrupts.endpoint;
        if self.is_windowed(offset, size)
            && let Some((bar, at, size)) = self.window()
        {
            let value = self.read(bar, at, size).to_le_bytes();
            let data = self.window + cap::DATA;
            endpoint.with_config(|config| config.store(data, &value[..size.bytes() as usize]));
        }
        endpoint.read_config(offset, size)
    }

    fn write_config(&self, offset: u16, size: AccessSize, value: u32) {
        let endpoint = &self.interrupts.endpoint;
        endpoint.write_config(offset, size, value);
        if self.is_windowed(offset, size)
            && let Some((bar, at, size)) = self.window()
        {
            let value = endpoint.read_config(self.window + cap::DATA, size);
            self.write(bar, at, size, value.into());
        }
        self.settle(self.hold());
    }

    fn placed(&self, bar: usize, base: Option<u64>) {
        let Some(bell) = self.bell.as_ref().filter(|_| bar == REGISTERS_BAR) else { return };
        bell.ring_at(&base.map_or_else(Vec::new, |base| self.notify_addresses(base)));
    }
}

impl Transport for PciTransport {
    fn device(&self) -> &Arc<dyn VirtioDevice> {
        &self.registers.device
    }

    fn reset(&self) {
        self.interrupts.endpoint.reset();
        self.registers.reset();
        self.settle(self.hold());
    }

    fn quiesce(&self) {
        let mut hold = self.hold();
        hold.machine = true;
        self.settle(hold);
        // Nothing is on its way then: what is saved is whole.
        self.interrupts.endpoint.hold(true);
    }

    fn resume(&self) {
        let mut hold = self.hold();
        hold.machine = false;
        self.interrupts.endpoint.hold(false);
        self.settle(hold);
    }

    fn save(&self) -> SavedVirtio {
        let vector = |vector: &AtomicU16| vector.load(Ordering::Relaxed);
        let pci = SavedVirtioPci {
            function: self.interrupts.endpoint.save(),
            config_vector: vector(&self.interrupts.config),
            queue_vectors: self.interrupts.queues.iter().map(vector).collect(),
        };
        SavedVirtio { pci: Some(pci), ..self.registers.save() }
    }

    fn restore(&self, saved: &SavedVirtio) -> Result<(), Unfit> {
        let unfit = |e: Unfit| self.registers.unfit(&e.to_string());
        let none = || self.registers.unfit("it was no PCI function and is one");
        let pci = saved.pci.as_ref().ok_or_else(none)?;
        self.registers.check(saved)?;
        let same = pci.queue_vectors.len() == self.interrupts.queues.len();
        Unfit::unless(same, || "it had other queues".into()).map_err(unfit)?;
        self.quiesce();
        self.interrupts.endpoint.restore(&pci.function).map_err(unfit)?;
        let vectors = self.interrupts.queues.iter().zip(&pci.queue_vectors);
        for (to, from) in vectors.chain([(&self.interrupts.config, &pci.config_vector)]) {
            to.store(self.interrupts.vector(*from), Ordering::Relaxed);
        }
        self.registers.restore(saved)
    }
}

/// What the function is, and where the capability is by which BARs are accessed through configuration space.
fn config_space(device: &dyn VirtioDevice) -> (ConfigSpace, u16) {
    let kind = device.device_id();
    let identity = Identity {
        vendor: VENDOR,
        // Kinds are small.
        device: DEVICE + kind as u16,
        revision: REVISION,
        class: class(kind),
        subsystem_vendor: SUBSYSTEM.0,
        subsystem: SUBSYSTEM.1,
    };
    let mut config = ConfigSpace::new(&identity);
    config.add_interrupt();
    config.add_bar(REGISTERS_BAR, REGISTERS_SIZE);
    config.add_bar(MSIX_BAR, MSIX_SIZE);
    config.add_express();
    let queues = device.queue_sizes().len() as u32;
    let mut add = |kind: u8, offset: u64, length: u32, more: &[u8], writable: &[u8]| {
        let mut body = vec![16 + more.len() as u8, kind, REGISTERS_BAR as u8, 0, 0, 0];
        body.extend((offset as u32).to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(more);
        config.add_capability(capability::VENDOR, &body, writable)
    };
    add(cfg_type::COMMON, COMMON, common::LENGTH as u32, &[], &[]);
    add(cfg_type::NOTIFY, NOTIFY, NOTIFY_MULTIPLIER * queues, &NOTIFY_MULTIPLIER.to_le_bytes(), &[]);
    add(cfg_type::ISR, ISR, 1, &[], &[]);
    add(cfg_type::DEVICE, DEVICE_CONFIG, STRUCTURE as u32, &[], &[]);
    // BAR, offset, length and data, from the third byte on.
    let mut writable = [0; 18];
    writable[2] = 0xff;
    writable[6..].fill(0xff);
    let window = add(cfg_type::PCI, 0, 0, &[0; 4], &writable);
    (config, window)
}

/// Class codes that tell drivers and people what it is (PCI Code and ID Assignment Specification).
fn class(kind: u32) -> u32 {
    match kind {
        device_id::BLOCK => 0x01_0000,
        device_id::CONSOLE => 0x07_8000,
        _ => 0x00_ff00,
    }
}

/// A queue's address, whole or by halves.
fn read_address(at: u64, size: AccessSize, address: u64) -> u64 {
    match (at, size) {
        (0, AccessSize::Double) => address,
        (0, AccessSize::Word) => address & u64::from(u32::MAX),
        (4, AccessSize::Word) => address >> 32,
        _ => 0,
    }
}

fn write_address(at: u64, size: AccessSize, address: &mut u64, value: u64) {
    match (at, size) {
        (0, AccessSize::Double) => *address = value,
        (0, AccessSize::Word) => set_low(address, value as u32),
        (4, AccessSize::Word) => set_high(address, value as u32),
        _ => {}
    }
}
