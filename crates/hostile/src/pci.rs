//! Two virtio devices on PCI Express, by a guest that does anything to configuration space, windows and rings.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use armlet_devices::{Message, MessageSender, MessageSink, UnconnectedLine};
use armlet_memory::{AccessSize, MmioDevice, Ram};
use armlet_pci::HostBridge;
use armlet_virtio::{Doorbell, Entropy, PciPlace, PciTransport, Transport};

use crate::input::Input;
use crate::virtio::{BASE, RAM};

const WINDOW: u64 = 0x1000_0000;
const WINDOW_SIZE: u64 = 0x10_0000;
const SIZES: [AccessSize; 4] = [AccessSize::Byte, AccessSize::Half, AccessSize::Word, AccessSize::Double];

/// Messages that have come, and the doorbells that there are.
#[derive(Default)]
struct Seen {
    messages: u64,
    bells: [Vec<u64>; 2],
}

#[derive(Clone, Default)]
struct World(Arc<Mutex<Seen>>);

impl World {
    fn with<R>(&self, f: impl FnOnce(&mut Seen) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MessageSender for World {
    fn send(&self) {
        self.with(|seen| seen.messages += 1);
    }
}

impl MessageSink for World {
    fn send(&self, _: Message) {
        MessageSender::send(self);
    }

    fn sender(&self, _: Message) -> Box<dyn MessageSender> {
        Box::new(self.clone())
    }
}

struct Bell(World, usize);

impl Doorbell for Bell {
    fn ring_at(&self, addresses: &[u64]) {
        self.0.with(|seen| seen.bells[self.1] = addresses.to_vec());
    }
}

struct Bench {
    ram: Ram,
    functions: [Arc<PciTransport>; 2],
    bridge: Arc<HostBridge>,
    ecam: Arc<dyn MmioDevice>,
    memory: Arc<dyn MmioDevice>,
    world: World,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

impl Bench {
    fn new() -> io::Result<Self> {
        let (ram, world) = (Ram::new(BASE, RAM)?, World::default());
        let function = |n: usize| {
            let place = PciPlace {
                number: n as u8 + 1,
                pin: Arc::new(UnconnectedLine),
                messages: Some(Arc::new(world.clone())),
                bell: Some(Box::new(Bell(world.clone(), n))),
            };
            Ok::<_, io::Error>(Arc::new(PciTransport::new(Arc::new(Entropy::seeded(1)?), ram.clone(), place)))
        };
        let functions = [function(0)?, function(1)?];
        let bridge =
            HostBridge::new(functions.iter().map(|f| Arc::clone(f) as _).collect(), WINDOW, WINDOW_SIZE);
        Ok(Self { ram, functions, ecam: bridge.ecam(), memory: bridge.memory(), bridge, world })
    }

    fn power_on(&self) {
        self.functions.iter().for_each(|function| function.power_on());
        self.bridge.reset();
        let zeroes = [0; RAM as usize];
        self.ram.write(BASE, &zeroes).expect("in memory");
    }

    fn config(&self, device: u64, offset: u64, size: AccessSize, value: u64) {
        self.ecam.write(device << 15 | offset, size, value);
    }

    fn word(&self, device: u64, offset: u64) -> u64 {
        self.ecam.read(device << 15 | offset, AccessSize::Word)
    }

    /// As a driver does it: windows that do not overlap, and a queue in memory.
    fn set_up(&self, device: u64) {
        let base = WINDOW + device * 0x8000;
        self.config(device, 0x10, AccessSize::Word, base);
        self.config(device, 0x14, AccessSize::Word, base + 0x4000);
        self.config(device, 4, AccessSize::Half, 6);
        let set = |at, size, value| self.memory.write(base - WINDOW + at, size, value);
        for status in [1, 3] {
            set(0x14, AccessSize::Byte, status);
        }
        set(0x08, AccessSize::Word, 1);
        set(0x0c, AccessSize::Word, 1);
        set(0x14, AccessSize::Byte, 11);
        let rings = BASE + 0x4000 * device;
        set(0x20, AccessSize::Double, rings);
        set(0x28, AccessSize::Double, rings + 0x1000);
        set(0x30, AccessSize::Double, rings + 0x2000);
        set(0x1c, AccessSize::Half, 1);
        set(0x14, AccessSize::Byte, 15);
    }

    fn act(&self, input: &mut Input<'_>) {
        let what = input.u8();
        let (device, size) = (1 + u64::from(what >> 3 & 1), SIZES[usize::from(what >> 4 & 3)]);
        match what & 7 {
            // Anything, anywhere in configuration space.
            0 => {
                let offset = u64::from(input.u16()) << 4 | u64::from(what >> 4);
                self.ecam.write(offset, size, input.u64());
                self.ecam.read(offset, size);
            }
            1 => {
                self.config(device, input.u8().into(), size, input.u32().into());
                self.word(device, input.u8().into());
            }
            // Windows, near each other.
            2 => {
                let base = WINDOW - 0x8000 + (u64::from(input.u8()) << 12);
                self.config(device, 0x10 + 4 * u64::from(what >> 7), AccessSize::Word, base);
            }
            3 => self.config(device, 4, AccessSize::Half, input.u8().into()),
            4 => {
                let offset = u64::from(input.u16()) << 2;
                self.memory.write(offset, size, input.u64());
                self.memory.read(offset, size);
            }
            // The device's registers and vectors, where a driver has them.
            5 => self.memory.write(device * 0x8000 + u64::from(input.u16() & 0x40ff), size, input.u64()),
            6 => {
                let at = u64::from(input.u16()) % RAM;
                let length = usize::from(input.u8() & 31);
                // Where there is no memory, nothing is written.
                let _ = self.ram.write(BASE + at, input.take(length));
            }
            _ => self.set_up(device),
        }
    }

    /// What holds whatever was done.
    fn check(&self) {
        for (n, device) in [(0, 1), (1, 2)] {
            assert_eq!(self.word(device, 0), 0x1044_1af4);
            let on = self.word(device, 4) & 2 != 0;
            let base = self.word(device, 0x10);
            let inside = base >= WINDOW && base + 0x4000 <= WINDOW + WINDOW_SIZE;
            let bells = self.world.with(|seen| seen.bells[n].clone());
            // A bell is where its queue is, or nowhere.
            assert!(bells.is_empty() || on && inside && bells == [base + 0x3000], "{bells:x?} at {base:x}");
        }
        // Who is no bus master leaves memory and bus alone.
        for device in [1, 2] {
            self.config(device, 4, AccessSize::Half, 2);
        }
        let bytes = || {
            let mut bytes = vec![0; RAM as usize];
            self.ram.read(BASE, &mut bytes).expect("in memory");
            (bytes, self.world.with(|seen| seen.messages))
        };
        let before = bytes();
        for offset in (0x3000..WINDOW_SIZE).step_by(0x1000) {
            self.memory.write(offset, AccessSize::Half, 0);
        }
        assert!(before == bytes(), "a function that is no bus master has used the bus");
    }
}

/// Runs one input.
///
/// # Panics
/// A function or the bridge does what it must not.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    BENCH.with_borrow_mut(|bench| {
        let bench = bench.get_or_insert_with(|| Bench::new().expect("a bus"));
        bench.power_on();
        let how = input.u8();
        (1..=2).filter(|device| how & device != 0).for_each(|device| bench.set_up(device.into()));
        while !input.is_empty() {
            bench.act(&mut input);
        }
        bench.check();
    });
}
