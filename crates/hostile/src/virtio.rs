//! Virtio devices through their registers, by a driver that does anything: queues set up properly or not, descriptors
//! and rings written as it likes, registers written in any order and size.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use armlet_memory::{AccessSize, MmioDevice, Ram};
use armlet_storage::BlockBackend;
use armlet_virtio::{
    Block, BlockConfig, Console, ConsoleSink, Entropy, MmioTransport, Service, Transport, VirtioDevice,
};
use vm_memory::VolatileSlice;

use crate::input::Input;

pub(crate) const BASE: u64 = 0x4000_0000;
pub(crate) const RAM: u64 = 0x1_0000;
/// Where the driver puts each queue: descriptors, then the two rings.
const QUEUES: u64 = 0x8000;
const QUEUE_STRIDE: u64 = 0x1000;
const AVAIL: u64 = 0x400;
const USED: u64 = 0x800;
const QUEUE_SIZE: u16 = 16;
const DISK: usize = 64 << 10;

/// Registers (virtio 4.2.2).
mod reg {
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub const QUEUE_SEL: u64 = 0x30;
    pub const QUEUE_NUM: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESC: u64 = 0x80;
    pub const QUEUE_DRIVER: u64 = 0x90;
    pub const QUEUE_DEVICE: u64 = 0xa0;
}

/// A disk in memory.
struct Disk(std::sync::Mutex<Vec<u8>>);

impl Disk {
    fn each(
        &self,
        buffers: &[VolatileSlice<'_>],
        offset: u64,
        mut f: impl FnMut(&mut [u8], &VolatileSlice<'_>),
    ) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        for buffer in buffers {
            // The device is to have checked this.
            f(&mut disk[at..at + buffer.len()], buffer);
            at += buffer.len();
        }
        Ok(())
    }
}

impl BlockBackend for Disk {
    fn size(&self) -> u64 {
        DISK as u64
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        self.each(buffers, offset, |disk, buffer| buffer.copy_from(disk))
    }
    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        self.each(buffers, offset, |disk, buffer| {
            buffer.copy_to(disk);
        })
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }
    fn write_zeroes(&self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        disk[offset as usize..(offset + len) as usize].fill(0);
        Ok(())
    }
}

struct Sink;

impl ConsoleSink for Sink {
    fn write(&self, bytes: &[u8], _: Duration) -> usize {
        bytes.len()
    }
}

/// A device, and its driver's memory.
struct Bench {
    ram: Ram,
    transport: MmioTransport,
    console: Option<Arc<Console>>,
}

thread_local! {
    static BENCHES: RefCell<[Option<Bench>; 3]> = const { RefCell::new([const { None }; 3]) };
}

impl Bench {
    fn new(kind: usize) -> io::Result<Self> {
        let ram = Ram::new(BASE, RAM)?;
        let console = Arc::new(Console::with_service(Arc::new(Sink), Box::new(|| {}), Service::Immediate)?);
        let disk = Arc::new(Disk(std::sync::Mutex::new(vec![0; DISK])));
        let config = BlockConfig { name: "disk".into(), serial: "1".into() };
        let device: Arc<dyn VirtioDevice> = match kind {
            0 => Arc::new(Block::with_service(disk, config, Service::Immediate)?),
            1 => console.clone(),
            _ => Arc::new(Entropy::seeded(1)?),
        };
        let transport = MmioTransport::new(device, ram.clone(), Arc::new(|_| {}));
        Ok(Self { ram, transport, console: (kind == 1).then_some(console) })
    }

    fn set(&self, register: u64, value: u32) {
        self.transport.write(register, AccessSize::Word, value.into());
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        // Where there is no memory, nothing is written.
        let _ = self.ram.write(BASE + at, bytes);
    }

    /// As a driver does it (virtio 3.1.1), with such features.
    fn set_up(&self, features: u32) {
        self.set(reg::STATUS, 1);
        self.set(reg::STATUS, 3);
        self.set(reg::DRIVER_FEATURES, features);
        self.set(reg::DRIVER_FEATURES_SEL, 1);
        self.set(reg::DRIVER_FEATURES, 1);
        self.set(reg::STATUS, 11);
        for queue in 0..2 {
            let at = BASE + QUEUES + u64::from(queue) * QUEUE_STRIDE;
            self.set(reg::QUEUE_SEL, queue);
            self.set(reg::QUEUE_NUM, QUEUE_SIZE.into());
            let places = [(reg::QUEUE_DESC, 0), (reg::QUEUE_DRIVER, AVAIL), (reg::QUEUE_DEVICE, USED)];
            for (register, offset) in places {
                self.set(register, (at + offset) as u32);
                self.set(register + 4, 0);
            }
            self.set(reg::QUEUE_READY, 1);
        }
        self.set(reg::STATUS, 15);
    }

    fn act(&self, input: &mut Input<'_>, heads: &mut [u16; 2]) {
        let what = input.u8();
        let queue = usize::from(what >> 3 & 1);
        let rings = QUEUES + queue as u64 * QUEUE_STRIDE;
        match what & 7 {
            0 => {
                let at = u64::from(input.u16());
                let length = usize::from(input.u8() & 63);
                self.put(at, input.take(length));
            }
            1 => self.set(4 * u64::from(input.u8() & 0x7f), input.u32()),
            2 => {
                let sizes = [AccessSize::Byte, AccessSize::Half, AccessSize::Word, AccessSize::Double];
                let size = sizes[usize::from(what >> 4 & 3)];
                let offset = u64::from(input.u16()) & 0xfff;
                self.transport.write(offset, size, input.u64());
                self.transport.read(offset, size);
            }
            3 => self.set(reg::QUEUE_NOTIFY, input.u8().into()),
            4 | 6 => {
                // A descriptor: address, length, flags, next.
                let number = u64::from(input.u8() % QUEUE_SIZE as u8);
                let mut bytes = [0; 16];
                let near = (BASE + u64::from(input.u16())).to_le_bytes();
                bytes[..8].copy_from_slice(&near);
                let length = if what & 0x80 != 0 { input.u32() } else { input.u16().into() };
                bytes[8..12].copy_from_slice(&length.to_le_bytes());
                bytes[12] = input.u8() & 7;
                bytes[14] = input.u8();
                self.put(rings + number * 16, &bytes);
            }
            5 => {
                let slot = u64::from(heads[queue] % QUEUE_SIZE);
                self.put(rings + AVAIL + 4 + 2 * slot, &[input.u8(), 0]);
                heads[queue] = heads[queue].wrapping_add(1);
                self.put(rings + AVAIL + 2, &heads[queue].to_le_bytes());
                self.set(reg::QUEUE_NOTIFY, queue as u32);
            }
            _ => {
                if let Some(console) = &self.console {
                    let length = usize::from(input.u8());
                    console.receive(input.take(length));
                    console.resize(input.u8().into(), 1);
                }
            }
        }
    }
}

/// Runs one input for the device of this kind.
fn run(kind: usize, bytes: &[u8]) {
    let mut input = Input::new(bytes);
    BENCHES.with_borrow_mut(|benches| {
        let bench = benches[kind].get_or_insert_with(|| Bench::new(kind).expect("a device"));
        bench.transport.power_on();
        bench.put(0, &[0; RAM as usize]);
        let how = input.u8();
        if how & 7 != 7 {
            bench.set_up(input.u32());
        }
        let mut heads = [0; 2];
        while !input.is_empty() {
            bench.act(&mut input, &mut heads);
        }
        bench.set(reg::STATUS, 0);
        assert_eq!(bench.transport.read(reg::STATUS, AccessSize::Word), 0, "the device is reset");
        // What the driver left in memory must not be touched any more.
        let mut before = vec![0; RAM as usize];
        bench.ram.read(BASE, &mut before).expect("in memory");
        bench.set(reg::QUEUE_NOTIFY, 0);
        bench.set(reg::QUEUE_NOTIFY, 1);
        let mut after = vec![0; RAM as usize];
        bench.ram.read(BASE, &mut after).expect("in memory");
        assert!(before == after, "a device that is reset has written to memory");
    });
}

/// The block device.
///
/// # Panics
/// The device does what it must not.
pub fn block(bytes: &[u8]) {
    run(0, bytes);
}

/// The console.
///
/// # Panics
/// The device does what it must not.
pub fn console(bytes: &[u8]) {
    run(1, bytes);
}

/// The entropy device.
///
/// # Panics
/// The device does what it must not.
pub fn entropy(bytes: &[u8]) {
    run(2, bytes);
}
