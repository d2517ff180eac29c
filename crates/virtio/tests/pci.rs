//! The PCI transport's own: structures, vectors, what the function may do, and where its doorbells are. What it shares with
//! the MMIO transport is tested by `over_pci`.

mod common;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use armlet_devices::{Message, MessageSender, MessageSink};
use armlet_memory::{AccessSize, Ram};
use armlet_pci::Function;
use armlet_virtio::spec::pci::{NO_VECTOR, cap, cfg_type, common as reg};
use armlet_virtio::spec::status;
use armlet_virtio::{
    Console, ConsoleSink, Doorbell, Entropy, PciPlace, PciTransport, Service, Transport, VirtioDevice,
};
use common::pci::{ISR, NOTIFY, ON};
use common::{BUFFERS, Desc, Line, RAM_BASE, RAM_SIZE, WRITE};

use AccessSize::{Byte, Double, Half, Word};

const DESC: u64 = RAM_BASE;
const AVAIL: u64 = RAM_BASE + 0x1000;
const USED: u64 = RAM_BASE + 0x2000;
const PATIENCE: Duration = Duration::from_secs(20);
/// In configuration space, where MSI-X's control is.
const MSIX_CONTROL: u16 = 0xd6;

/// Where messages come.
#[derive(Default)]
struct Post {
    data: Mutex<Vec<u32>>,
    came: Condvar,
}

struct Sender(Arc<Post>, u32);

impl MessageSender for Sender {
    fn send(&self) {
        self.0.data.lock().unwrap().push(self.1);
        self.0.came.notify_all();
    }
}

struct Office(Arc<Post>);

impl MessageSink for Office {
    fn send(&self, message: Message) {
        self.sender(message).send();
    }

    fn sender(&self, message: Message) -> Box<dyn MessageSender> {
        assert_eq!((message.device, message.address), (3 << 3, 0x0809_0040));
        Box::new(Sender(Arc::clone(&self.0), message.data))
    }
}

impl Post {
    /// Waits for a message.
    fn next(&self) -> u32 {
        let data = self.data.lock().unwrap();
        let (mut data, timeout) = self.came.wait_timeout_while(data, PATIENCE, |d| d.is_empty()).unwrap();
        assert!(!timeout.timed_out(), "no message");
        data.remove(0)
    }

    fn is_empty(&self) -> bool {
        self.data.lock().unwrap().is_empty()
    }
}

#[derive(Default)]
struct Bell(Arc<Mutex<Vec<u64>>>);

impl Doorbell for Bell {
    fn ring_at(&self, addresses: &[u64]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }
}

struct Rig {
    f: PciTransport,
    ram: Ram,
    line: Arc<Line>,
    post: Arc<Post>,
    rung: Arc<Mutex<Vec<u64>>>,
    available: u16,
}

impl Rig {
    fn new(device: Arc<dyn VirtioDevice>) -> Self {
        let ram = Ram::new(RAM_BASE, RAM_SIZE).unwrap();
        let (line, post, bell) = (Arc::new(Line::default()), Arc::new(Post::default()), Bell::default());
        let rung = Arc::clone(&bell.0);
        let messages: Arc<dyn MessageSink> = Arc::new(Office(Arc::clone(&post)));
        let place = PciPlace {
            number: 3,
            pin: Arc::clone(&line) as _,
            messages: Some(messages),
            bell: Some(Box::new(bell)),
        };
        Self { f: PciTransport::new(device, ram.clone(), place), ram, line, post, rung, available: 0 }
    }

    fn entropy() -> Self {
        Self::new(Arc::new(Entropy::new().unwrap()))
    }

    fn get(&self, at: u64, size: AccessSize) -> u64 {
        self.f.read(0, at, size)
    }

    fn set(&self, at: u64, size: AccessSize, value: u64) {
        self.f.write(0, at, size, value);
    }

    /// Sets the device up, with its first queue.
    fn start(&self) {
        self.f.write_config(4, Half, ON);
        for value in [0, 1, 3] {
            self.set(reg::DEVICE_STATUS, Byte, value);
        }
        self.set(reg::DRIVER_FEATURE_SELECT, Word, 1);
        self.set(reg::DRIVER_FEATURE, Word, 1);
        self.set(reg::DEVICE_STATUS, Byte, 11);
        self.set(reg::QUEUE_SELECT, Half, 0);
        self.set(reg::QUEUE_DESC, Double, DESC);
        self.set(reg::QUEUE_DRIVER, Word, AVAIL);
        self.set(reg::QUEUE_DEVICE, Word, USED);
        self.set(reg::QUEUE_ENABLE, Half, 1);
        self.set(reg::DEVICE_STATUS, Byte, 15);
        assert_eq!(self.get(reg::DEVICE_STATUS, Byte), 15);
    }

    /// A vector for the queue and one for the configuration, unmasked.
    fn start_with_messages(&self) {
        self.f.write_config(MSIX_CONTROL, Half, 0x8000);
        self.start();
        for vector in 0..2 {
            for (n, word) in [0x0809_0040, 0, 100 + vector, 0].into_iter().enumerate() {
                self.f.write(1, 16 * vector + 4 * n as u64, Word, word);
            }
        }
        self.set(reg::CONFIG_MSIX_VECTOR, Half, 0);
        self.set(reg::QUEUE_MSIX_VECTOR, Half, 1);
    }

    /// Asks for 16 bytes.
    fn ask(&mut self) {
        let d = Desc { addr: BUFFERS, len: 16, flags: WRITE, next: 0 };
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&d.addr.to_le_bytes());
        raw[8..12].copy_from_slice(&d.len.to_le_bytes());
        raw[12..14].copy_from_slice(&d.flags.to_le_bytes());
        self.ram.write(DESC, &raw).unwrap();
        self.available += 1;
        self.ram.store(AVAIL + 2, Half, self.available.into()).unwrap();
        self.set(NOTIFY, Half, 0);
    }

    fn used(&self) -> u64 {
        self.ram.load(USED + 2, Half).unwrap()
    }

    fn config(&self, at: u16, size: AccessSize) -> u32 {
        self.f.read_config(at, size)
    }

    /// Where each capability is that has this kind (and this `cfg_type`).
    fn capability(&self, id: u32, kind: u8) -> u16 {
        let mut at = self.config(0x34, Byte) as u16;
        for _ in 0..48 {
            let vendor = self.config(at + 3, Byte) == u32::from(kind) || id != 9;
            if self.config(at, Byte) == id && vendor {
                return at;
            }
            at = self.config(at + 1, Byte) as u16;
        }
        panic!("there is no capability {id:#x} of type {kind}");
    }
}

#[test]
fn a_driver_finds_the_structures_by_their_capabilities() {
    let r = Rig::entropy();
    assert_eq!(r.config(0, Word), 0x1044_1af4);
    assert_eq!(r.config(8, Word), 0x00ff_0001);
    let place = |kind| {
        let at = r.capability(9, kind);
        let field = |offset| r.config(at + offset, Word);
        assert_eq!(r.config(at + cap::BAR, Byte), 0);
        (field(cap::OFFSET), field(cap::LENGTH))
    };
    assert_eq!(place(cfg_type::COMMON), (0, 0x40));
    assert_eq!(place(cfg_type::NOTIFY), (0x3000, 4));
    assert_eq!(place(cfg_type::ISR), (0x1000, 1));
    assert_eq!(place(cfg_type::DEVICE), (0x2000, 0x1000));
    let notify = r.capability(9, cfg_type::NOTIFY);
    assert_eq!((r.config(notify + 2, Byte), r.config(notify + 16, Word)), (20, 4));
    let msix = r.capability(0x11, 0);
    assert_eq!(msix + 2, MSIX_CONTROL);
    assert_eq!(r.config(msix + 2, Half), 1, "a vector for the queue and one for the configuration");
    assert_eq!((r.config(msix + 4, Word), r.config(msix + 8, Word)), (1, 0x801));
    let express = r.capability(0x10, 0);
    assert_eq!(r.config(express + 2, Half), 0x92);
}

#[test]
fn fields_are_read_as_wide_as_they_are() {
    let r = Rig::entropy();
    r.start();
    assert_eq!(r.get(reg::NUM_QUEUES, Half), 1);
    assert_eq!(r.get(reg::QUEUE_SIZE, Half), 8);
    assert_eq!(r.get(reg::QUEUE_DESC, Double), DESC);
    assert_eq!((r.get(reg::QUEUE_DRIVER, Word), r.get(reg::QUEUE_DRIVER + 4, Word)), (AVAIL, 0));
    assert_eq!(r.get(reg::DRIVER_FEATURE, Word), 1);
    for (at, size) in [
        (reg::NUM_QUEUES, Byte),
        (reg::NUM_QUEUES, Word),
        (reg::DEVICE_STATUS, Half),
        (reg::QUEUE_DESC, Half),
        (reg::QUEUE_DESC + 4, Double),
        (reg::QUEUE_DEVICE + 8, Word),
        (0x1000 - 4, Word),
        (ISR + 1, Byte),
        (0x3ff8, Double),
        (u64::MAX - 7, Double),
    ] {
        assert_eq!(r.get(at, size), 0, "{at:#x}");
        r.set(at, size, u64::MAX);
    }
    r.set(reg::QUEUE_SELECT, Half, 1);
    for field in [reg::QUEUE_SIZE, reg::QUEUE_ENABLE, reg::QUEUE_NOTIFY_OFF] {
        assert_eq!(r.get(field, Half), 0, "there is no such queue");
    }
    assert_eq!(r.get(reg::QUEUE_MSIX_VECTOR, Half), u64::from(NO_VECTOR));
    assert_eq!(r.get(reg::DEVICE_STATUS, Byte), 15);
}

#[test]
fn reading_the_status_takes_intx_back() {
    let mut r = Rig::entropy();
    r.start();
    r.ask();
    r.line.wait_high();
    assert_eq!(r.config(6, Half) & 8, 8);
    assert_eq!(r.get(ISR, Byte), 1);
    assert!(!r.line.is_high());
    assert_eq!(r.get(ISR, Byte), 0);
    // Disabled, it is only said.
    r.f.write_config(4, Half, ON | 0x400);
    r.ask();
    while r.config(6, Half) & 8 == 0 {
        std::thread::yield_now();
    }
    assert!(!r.line.is_high());
    r.f.write_config(4, Half, ON);
    assert!(r.line.is_high());
    r.set(reg::DEVICE_STATUS, Byte, 0);
    assert!(!r.line.is_high());
}

#[test]
fn queues_and_the_configuration_have_their_own_messages() {
    let mut r = Rig::entropy();
    r.start_with_messages();
    r.ask();
    assert_eq!(r.post.next(), 101);
    assert_eq!(r.get(ISR, Byte), 0, "the status does not tell of queues then");
    // Masked, it is pending.
    r.f.write(1, 0x1c, Word, 1);
    r.ask();
    while r.f.read(1, 0x800, Word) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(r.f.read(1, 0x800, Word), 2);
    assert!(r.post.is_empty());
    r.f.write(1, 0x1c, Word, 0);
    assert_eq!((r.post.next(), r.f.read(1, 0x800, Word)), (101, 0));
    // No vector, no message.
    r.set(reg::QUEUE_MSIX_VECTOR, Half, u64::from(NO_VECTOR));
    r.ask();
    while r.used() != 3 {
        std::thread::yield_now();
    }
    r.f.quiesce();
    r.f.resume();
    assert!(r.post.is_empty() && !r.line.is_high());
    // A ring that cannot be: the configuration's vector says that the device is broken.
    r.ram.store(AVAIL + 2, Half, 0x8000).unwrap();
    r.set(NOTIFY, Half, 0);
    assert_eq!(r.post.next(), 100);
    assert_eq!(r.get(reg::DEVICE_STATUS, Byte) & u64::from(status::DEVICE_NEEDS_RESET), 64);
    assert_eq!(r.get(ISR, Byte), 2, "and so does the status");
}

#[test]
fn vectors_that_do_not_exist_are_not_taken_and_a_reset_forgets_all() {
    let r = Rig::entropy();
    r.start_with_messages();
    for field in [reg::CONFIG_MSIX_VECTOR, reg::QUEUE_MSIX_VECTOR] {
        r.set(field, Half, 2);
        assert_eq!(r.get(field, Half), u64::from(NO_VECTOR));
        r.set(field, Half, 1);
        assert_eq!(r.get(field, Half), 1);
    }
    r.set(reg::DEVICE_STATUS, Byte, 0);
    assert_eq!(r.get(reg::DEVICE_STATUS, Byte), 0);
    assert_eq!(r.get(reg::CONFIG_MSIX_VECTOR, Half), u64::from(NO_VECTOR));
    assert_eq!(r.get(reg::QUEUE_ENABLE, Half), 0);
    assert_eq!(r.f.read(1, 0x18, Word), 101, "the table is the function's and stays");
    r.f.reset();
    assert_eq!(r.f.read(1, 0x18, Word), 0);
    assert_eq!(r.config(4, Half), 0);
}

#[test]
fn a_device_does_nothing_that_may_not_access_memory() {
    let mut r = Rig::entropy();
    r.start();
    r.f.write_config(4, Half, 2);
    r.ask();
    // Nothing else could be seen to have had its turn: the device is quiet before the write is over.
    assert_eq!(r.used(), 0);
    r.f.quiesce();
    r.f.write_config(4, Half, ON);
    assert_eq!(r.used(), 0, "the machine wants it quiet");
    r.f.resume();
    r.line.wait_high();
    assert_eq!(r.used(), 1);
}

#[test]
fn structures_are_reached_through_configuration_space() {
    let r = Rig::entropy();
    let at = r.capability(9, cfg_type::PCI);
    let access = |bar: u32, offset: u32, length: u32| {
        r.f.write_config(at + cap::BAR, Byte, bar);
        r.f.write_config(at + cap::OFFSET, Word, offset);
        r.f.write_config(at + cap::LENGTH, Word, length);
    };
    access(0, reg::DEVICE_STATUS as u32, 1);
    r.f.write_config(at + cap::DATA, Byte, 1);
    assert_eq!(r.get(reg::DEVICE_STATUS, Byte), 1);
    r.f.write_config(at + cap::DATA, Word, 0xffff_ff03);
    assert_eq!(r.config(at + cap::DATA, Byte), 3);
    access(0, reg::QUEUE_SIZE as u32, 2);
    assert_eq!(r.config(at + cap::DATA, Half), 8);
    access(0, reg::DEVICE_FEATURE as u32, 4);
    assert_eq!(r.config(at + cap::DATA, Word), 0x3000_0000);
    access(1, 0x0c, 4);
    r.f.write_config(at + cap::DATA, Word, 0);
    assert_eq!(r.f.read(1, 0x0c, Word), 0, "the vector is unmasked");
    for (bar, offset, length) in
        [(0, 0, 0), (0, 0, 3), (0, 0, 8), (2, 0, 4), (255, u32::MAX, 4), (0, u32::MAX, 4)]
    {
        access(bar, offset, length);
        r.f.write_config(at + cap::DATA, Word, u32::MAX);
        r.config(at + cap::DATA, Word);
    }
    assert_eq!(r.get(reg::DEVICE_STATUS, Byte), 3);
}

#[test]
fn doorbells_follow_the_window() {
    struct Sink;
    impl ConsoleSink for Sink {
        fn write(&self, bytes: &[u8], _: Duration) -> usize {
            bytes.len()
        }
    }
    let console = Console::with_service(Arc::new(Sink), Box::new(|| {}), Service::Immediate).unwrap();
    let r = Rig::new(Arc::new(console));
    r.f.placed(0, Some(0x1000_0000));
    assert_eq!(*r.rung.lock().unwrap(), [0x1000_3000, 0x1000_3004]);
    r.set(reg::QUEUE_SELECT, Half, 1);
    assert_eq!(r.get(reg::QUEUE_NOTIFY_OFF, Half), 1);
    r.f.placed(1, Some(0x1000_4000));
    r.f.placed(0, None);
    assert!(r.rung.lock().unwrap().is_empty());
}

#[test]
fn a_saved_function_goes_on_elsewhere_with_its_vectors() {
    let mut r = Rig::entropy();
    r.start_with_messages();
    r.ask();
    assert_eq!(r.post.next(), 101);
    r.f.write(1, 0x1c, Word, 1);
    r.ask();
    while r.f.read(1, 0x800, Word) == 0 {
        std::thread::yield_now();
    }
    r.f.quiesce();
    let saved = serde_json::to_string(&r.f.save()).unwrap();
    let mut other = Rig::entropy();
    let mut memory = vec![0; RAM_SIZE as usize];
    r.ram.read(RAM_BASE, &mut memory).unwrap();
    other.ram.write(RAM_BASE, &memory).unwrap();
    other.available = r.available;
    other.f.restore(&serde_json::from_str(&saved).unwrap()).unwrap();
    assert_eq!(serde_json::to_string(&other.f.save()).unwrap(), saved);
    other.f.resume();
    assert!(other.post.is_empty());
    other.f.write(1, 0x1c, Word, 0);
    assert_eq!(other.post.next(), 101, "it was pending");
    other.ask();
    assert_eq!(other.post.next(), 101);
    // What cannot be.
    let mut strange = r.f.save();
    strange.pci.as_mut().unwrap().queue_vectors.push(0);
    assert!(Rig::entropy().f.restore(&strange).is_err());
    strange.pci = None;
    let error = Rig::entropy().f.restore(&strange).unwrap_err().to_string();
    assert_eq!(error, "virtio-rng: it was no PCI function and is one");
}
