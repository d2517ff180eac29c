//! A small driver, written from the specification's driver requirements: it builds rings in RAM and works a device
//! through its MMIO registers, as a guest does. The tests of `over_pci` are the same ones over the PCI transport.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod disk;
pub mod pci;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use armlet_memory::{AccessSize, MmioDevice, Ram};
use armlet_virtio::spec::{feature, mmio, status};
use armlet_virtio::{MmioTransport, Transport, VirtioDevice};

pub const RAM_BASE: u64 = 0x4000_0000;
pub const RAM_SIZE: u64 = 16 << 20;
/// Where tests put buffers; the rings are below.
pub const BUFFERS: u64 = RAM_BASE + 0x10_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// How long a test waits for a device before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The interrupt line, with a way to wait for it.
#[derive(Default)]
pub struct Line {
    level: Mutex<(bool, u64)>,
    changed: Condvar,
}

impl Line {
    pub fn is_high(&self) -> bool {
        self.level.lock().unwrap().0
    }

    /// How often the line has gone from low to high.
    pub fn edges(&self) -> u64 {
        self.level.lock().unwrap().1
    }

    pub fn set(&self, high: bool) {
        let mut level = self.level.lock().unwrap();
        level.1 += u64::from(high && !level.0);
        level.0 = high;
        self.changed.notify_all();
    }

    pub fn wait_high(&self) {
        let level = self.level.lock().unwrap();
        let (_level, timeout) = self.changed.wait_timeout_while(level, PATIENCE, |l| !l.0).unwrap();
        assert!(!timeout.timed_out(), "the device raised no interrupt");
    }
}

/// A transport whose registers are where those of the MMIO transport are.
pub trait Device: MmioDevice + Transport {}

impl<T: MmioDevice + Transport> Device for T {}

const OVER_PCI: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"over_pci");

fn transport(device: Arc<dyn VirtioDevice>, ram: Ram, line: Arc<Line>) -> Arc<dyn Device> {
    match OVER_PCI {
        true => Arc::new(pci::AsMmio::new(device, ram, line)),
        false => Arc::new(MmioTransport::new(device, ram, Arc::new(move |level| line.set(level)))),
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

/// A queue's rings, from the driver's side.
pub struct Ring {
    pub index: u32,
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    pub avail_idx: u16,
    pub last_used: u16,
    free: u16,
}

pub struct Driver {
    pub ram: Ram,
    pub dev: Arc<dyn Device>,
    pub line: Arc<Line>,
    pub event_idx: bool,
    pub rings: Vec<Ring>,
}

impl Driver {
    /// A transport with the device in reset.
    pub fn new(device: Arc<dyn VirtioDevice>) -> Self {
        let ram = Ram::new(RAM_BASE, RAM_SIZE).unwrap();
        let line = Arc::new(Line::default());
        let dev = transport(device, ram.clone(), line.clone());
        Self { ram, dev, line, event_idx: false, rings: Vec::new() }
    }

    /// A device that is up, with all that it offers but `without`.
    pub fn start(device: Arc<dyn VirtioDevice>, without: u64) -> Self {
        let mut driver = Self::new(device);
        driver.bring_up(without);
        driver
    }

    pub fn reg(&self, offset: u64) -> u32 {
        self.dev.read(offset, AccessSize::Word) as u32
    }

    pub fn set(&self, offset: u64, value: u32) {
        self.dev.write(offset, AccessSize::Word, value.into());
    }

    pub fn offered(&self) -> u64 {
        self.set(mmio::DEVICE_FEATURES_SEL, 0);
        let low = self.reg(mmio::DEVICE_FEATURES);
        self.set(mmio::DEVICE_FEATURES_SEL, 1);
        u64::from(self.reg(mmio::DEVICE_FEATURES)) << 32 | u64::from(low)
    }

    pub fn take_features(&mut self, features: u64) {
        self.event_idx = features & feature::EVENT_IDX != 0;
        for sel in 0..2 {
            self.set(mmio::DRIVER_FEATURES_SEL, sel);
            self.set(mmio::DRIVER_FEATURES, (features >> (32 * sel)) as u32);
        }
    }

    /// The sequence of virtio 3.1.1 to FEATURES_OK.
    pub fn negotiate(&mut self, without: u64) {
        self.set(mmio::STATUS, 0);
        self.set(mmio::STATUS, status::ACKNOWLEDGE);
        self.set(mmio::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        self.take_features(self.offered() & !without);
        self.set(mmio::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        assert_eq!(self.reg(mmio::STATUS), 11, "features refused");
    }

    pub fn bring_up(&mut self, without: u64) {
        self.negotiate(without);
        self.rings.clear();
        for index in 0.. {
            self.set(mmio::QUEUE_SEL, index);
            let max = self.reg(mmio::QUEUE_NUM_MAX);
            if max == 0 {
                break;
            }
            self.set_up_ring(index, max as u16);
        }
        self.set(mmio::STATUS, 15);
        assert_eq!(self.reg(mmio::STATUS), 15);
    }

    pub fn set_up_ring(&mut self, index: u32, size: u16) {
        let base = RAM_BASE + 0x1_0000 * u64::from(index);
        let ring = Ring {
            index,
            size,
            desc: base,
            avail: base + 0x8000,
            used: base + 0xa000,
            avail_idx: 0,
            last_used: 0,
            free: 0,
        };
        self.ram.write(base, &vec![0; 0x1_0000]).unwrap();
        self.set(mmio::QUEUE_SEL, index);
        assert_eq!(self.reg(mmio::QUEUE_READY), 0);
        self.set(mmio::QUEUE_NUM, size.into());
        for (register, value) in [
            (mmio::QUEUE_DESC_LOW, ring.desc),
            (mmio::QUEUE_DRIVER_LOW, ring.avail),
            (mmio::QUEUE_DEVICE_LOW, ring.used),
        ] {
            self.set(register, value as u32);
            self.set(register + 4, (value >> 32) as u32);
        }
        self.set(mmio::QUEUE_READY, 1);
        assert_eq!(self.reg(mmio::QUEUE_READY), 1);
        self.rings.push(ring);
    }

    pub fn u16(&self, gpa: u64) -> u16 {
        self.ram.load(gpa, AccessSize::Half).unwrap() as u16
    }

    pub fn put_u16(&self, gpa: u64, value: u16) {
        self.ram.store(gpa, AccessSize::Half, value.into()).unwrap();
    }

    pub fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.ram.read(gpa, &mut out).unwrap();
        out
    }

    pub fn put_desc(&self, table: u64, index: u16, d: Desc) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&d.addr.to_le_bytes());
        raw[8..12].copy_from_slice(&d.len.to_le_bytes());
        raw[12..14].copy_from_slice(&d.flags.to_le_bytes());
        raw[14..].copy_from_slice(&d.next.to_le_bytes());
        self.ram.write(table + 16 * u64::from(index), &raw).unwrap();
    }

    /// Puts buffers (address, length, device writes) into a chain and makes it available; returns its head. Does
    /// not notify.
    pub fn add(&mut self, queue: usize, buffers: &[(u64, u32, bool)]) -> u16 {
        let (desc, size) = (self.rings[queue].desc, self.rings[queue].size);
        let head = self.rings[queue].free;
        for (i, &(addr, len, write)) in buffers.iter().enumerate() {
            let index = (head + i as u16) % size;
            let last = i + 1 == buffers.len();
            let flags = if write { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.put_desc(desc, index, Desc { addr, len, flags, next: (index + 1) % size });
        }
        self.rings[queue].free = (head + buffers.len() as u16) % size;
        self.make_available(queue, head);
        head
    }

    pub fn make_available(&mut self, queue: usize, head: u16) {
        let (avail, size, idx) =
            (self.rings[queue].avail, self.rings[queue].size, self.rings[queue].avail_idx);
        self.put_u16(avail + 4 + 2 * u64::from(idx % size), head);
        self.rings[queue].avail_idx = idx.wrapping_add(1);
        self.put_u16(avail + 2, self.rings[queue].avail_idx);
    }

    pub fn notify(&self, queue: usize) {
        self.set(mmio::QUEUE_NOTIFY, queue as u32);
    }

    /// The next used element (head, bytes written), if there is one.
    pub fn poll_used(&mut self, queue: usize) -> Option<(u32, u32)> {
        let (used, avail, size, last) = {
            let r = &self.rings[queue];
            (r.used, r.avail, r.size, r.last_used)
        };
        if self.u16(used + 2) == last {
            return None;
        }
        let at = used + 4 + 8 * u64::from(last % size);
        let word = |gpa| self.ram.load(gpa, AccessSize::Word).unwrap() as u32;
        let element = (word(at), word(at + 4));
        self.rings[queue].last_used = last.wrapping_add(1);
        if self.event_idx {
            // used_event: tell me about the very next one.
            self.put_u16(avail + 4 + 2 * u64::from(size), last.wrapping_add(1));
        }
        Some(element)
    }

    /// Waits for the next used element, as a driver does: by the interrupt.
    pub fn wait_used(&mut self, queue: usize) -> (u32, u32) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(element) = self.poll_used(queue) {
                return element;
            }
            assert!(Instant::now() < end, "no used element");
            self.line.wait_high();
            self.acknowledge();
        }
    }

    /// Handles whatever causes are pending; returns them.
    pub fn acknowledge(&self) -> u32 {
        let causes = self.reg(mmio::INTERRUPT_STATUS);
        self.set(mmio::INTERRUPT_ACK, causes);
        causes
    }

    /// Waits until the device says that it needs a reset.
    pub fn wait_broken(&self) {
        let end = Instant::now() + PATIENCE;
        while self.reg(mmio::STATUS) & status::DEVICE_NEEDS_RESET == 0 {
            assert!(Instant::now() < end, "the device does not say that it needs a reset");
            self.line.wait_high();
            self.acknowledge();
        }
    }
}
