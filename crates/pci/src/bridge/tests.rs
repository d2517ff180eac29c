//! Windows and routes, with functions that note what reaches them.

use super::*;
use std::sync::Mutex;

const BASE: u64 = 0x1000_0000;
const SIZE: u64 = 0x2000_0000;

struct Probe {
    endpoint: Endpoint,
    seen: Mutex<Vec<(usize, u64, u64)>>,
    placed: Mutex<Vec<(usize, Option<u64>)>>,
}

impl Function for Probe {
    fn name(&self) -> &str {
        "probe"
    }
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
    fn read(&self, bar: usize, offset: u64, _: AccessSize) -> u64 {
        (bar as u64) << 32 | offset
    }
    fn write(&self, bar: usize, offset: u64, _: AccessSize, value: u64) {
        self.seen.lock().unwrap().push((bar, offset, value));
    }
    fn placed(&self, bar: usize, base: Option<u64>) {
        self.placed.lock().unwrap().push((bar, base));
    }
}

fn probe(device: u16) -> Arc<Probe> {
    let identity = Identity { vendor: 0x1af4, device, ..BRIDGE };
    let mut config = ConfigSpace::new(&identity);
    config.add_bar(0, 0x1000);
    config.add_bar(2, 0x4000);
    let endpoint = Endpoint::new(config, Arc::new(UnconnectedLine));
    Arc::new(Probe { endpoint, seen: Mutex::default(), placed: Mutex::default() })
}

struct Bus {
    probes: [Arc<Probe>; 2],
    ecam: Arc<dyn MmioDevice>,
    memory: Arc<dyn MmioDevice>,
    bridge: Arc<HostBridge>,
}

fn bus() -> Bus {
    let probes = [probe(1), probe(2)];
    let bridge = HostBridge::new(probes.iter().map(|p| Arc::clone(p) as _).collect(), BASE, SIZE);
    Bus { ecam: bridge.ecam(), memory: bridge.memory(), probes, bridge }
}

impl Bus {
    fn config(&self, device: u64, at: u64, value: u32) {
        self.ecam.write(device << 15 | at, AccessSize::Word, value.into());
    }

    fn word(&self, address: u64) -> u64 {
        self.memory.read(address - BASE, AccessSize::Word)
    }

    fn placed(&self, probe: usize) -> Vec<(usize, Option<u64>)> {
        std::mem::take(&mut self.probes[probe].placed.lock().unwrap())
    }
}

#[test]
fn functions_are_found_on_bus_0_and_nobody_elsewhere() {
    let b = bus();
    let read = |offset| b.ecam.read(offset, AccessSize::Word);
    assert_eq!(read(0), 0x0008_1b36);
    assert_eq!(read(8), 0x0600_0000);
    assert_eq!(read(1 << 15), 0x0001_1af4);
    assert_eq!(read(2 << 15), 0x0002_1af4);
    assert_eq!(b.ecam.read(1 << 15, AccessSize::Double), 0x0000_0000_0001_1af4);
    assert_eq!(b.ecam.read((1 << 15) + 2, AccessSize::Half), 1);
    assert_eq!(read((1 << 15) + 0x100), 0, "no extended capabilities");
    for nobody in [3 << 15, 31 << 15, 1 << 15 | 1 << 12, 1 << 20, 15 << 20, (16 << 20) - 4] {
        assert_eq!(read(nobody), 0xffff_ffff, "{nobody:#x}");
        assert_eq!(b.ecam.read(nobody, AccessSize::Byte), 0xff);
        b.config(nobody >> 15, 4, u32::MAX);
    }
}

#[test]
fn accesses_reach_a_function_where_its_window_is_put() {
    let b = bus();
    b.config(1, 0x10, 0x1230_0000);
    b.config(1, 0x18, 0x1240_0000);
    assert_eq!(b.word(0x1230_0010), 0xffff_ffff, "it does not answer yet");
    b.config(1, 4, 2);
    assert_eq!(b.placed(0), [(0, Some(0x1230_0000)), (2, Some(0x1240_0000))]);
    assert_eq!(b.word(0x1230_0010), 0x10);
    assert_eq!(b.word(0x1240_3ffc), 2 << 32 | 0x3ffc);
    assert_eq!(b.word(0x1240_4000), 0xffff_ffff);
    b.memory.write(0x0230_0020, AccessSize::Half, 7);
    assert_eq!(*b.probes[0].seen.lock().unwrap(), [(0, 0x20, 7)]);
    b.config(1, 0x10, 0x1250_0000);
    assert_eq!(b.word(0x1230_0010), 0xffff_ffff);
    assert_eq!(b.word(0x1250_0010), 0x10);
    assert_eq!(b.placed(0), [(0, None), (0, Some(0x1250_0000))]);
    b.config(1, 4, 0);
    assert_eq!(b.placed(0), [(0, None), (2, None)]);
    assert_eq!(b.word(0x1250_0010), 0xffff_ffff);
}

#[test]
fn where_windows_overlap_the_lowest_answers_and_the_other_is_in_no_place() {
    let b = bus();
    b.config(2, 0x10, 0x1230_0000);
    b.config(2, 4, 2);
    assert_eq!(b.placed(1), [(0, Some(0x1230_0000))]);
    b.config(1, 0x18, 0x1230_0000);
    b.config(1, 4, 2);
    assert_eq!(b.word(0x1230_0004), 2 << 32 | 4);
    assert_eq!(b.placed(1), [(0, None)]);
    b.config(1, 0x18, 0x1240_0000);
    assert_eq!(b.placed(1), [(0, Some(0x1230_0000))]);
    // At the edge of the window, and outside of it.
    b.config(2, 0x10, (BASE - 0x1000) as u32);
    assert_eq!(b.placed(1), [(0, None)]);
    for base in [BASE + SIZE, 0xffff_f000, 0] {
        b.config(2, 0x10, base as u32);
        assert_eq!(b.placed(1), []);
    }
    b.config(2, 0x10, (BASE + SIZE - 0x1000) as u32);
    assert_eq!(b.placed(1), [(0, Some(BASE + SIZE - 0x1000))]);
}

#[test]
fn a_reset_of_the_functions_empties_the_windows() {
    let b = bus();
    b.config(1, 0x10, 0x1230_0000);
    b.config(1, 4, 2);
    b.placed(0);
    b.probes[0].endpoint.reset();
    b.bridge.reset();
    assert_eq!(b.placed(0), [(0, None)]);
    assert_eq!(b.word(0x1230_0000), 0xffff_ffff);
}

#[test]
fn no_access_anywhere_does_harm() {
    let b = bus();
    let ports = b.bridge.ports();
    for size in [AccessSize::Byte, AccessSize::Half, AccessSize::Word, AccessSize::Double] {
        for offset in (0..16 << 20).step_by(0xffd).chain(0..0x1000).chain([u64::MAX, u64::MAX - 3]) {
            b.ecam.write(offset, size, u64::MAX);
            b.ecam.read(offset, size);
            b.memory.write(offset, size, u64::MAX);
            b.memory.read(offset, size);
            ports.write(offset, size, 1);
            assert_eq!(ports.read(offset, size), nobody(size));
        }
    }
    assert_eq!(b.ecam.read(0, AccessSize::Word), 0x0008_1b36);
}
