//! Drivers that break the rules: work and memory stay bounded, nothing but RAM is touched, and after a reset the
//! device works as if nothing had been.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use armlet_memory::AccessSize;
use armlet_storage::DiskOptions;
use armlet_virtio::spec::{mmio, status};
use common::disk::*;
use common::*;

const RAM_END: u64 = RAM_BASE + RAM_SIZE;
/// The virtio-mmio windows of the board.
const DEVICE_WINDOW: u64 = 0x0a00_3e00;

struct Rig {
    d: Driver,
    content: Vec<u8>,
    image: TempImage,
}

impl Rig {
    fn new() -> Self {
        let content = pattern(DISK, 99);
        let image = TempImage::new(&content);
        let d = Driver::start(block(DiskOptions::new(&image.0)), 0);
        Self { d, content, image }
    }

    fn assert_works(&mut self) {
        assert_eq!(read(&mut self.d, 3, 1024), self.content[1536..2560]);
    }

    /// Runs `misbehave`; the device must say that it needs a reset, do nothing, and work again after one.
    fn breaks(&mut self, what: &str, misbehave: impl FnOnce(&mut Driver)) {
        eprintln!("{what}");
        self.d.ram.write(HEADER, &header(IN, 0)).unwrap();
        misbehave(&mut self.d);
        self.d.notify(0);
        self.d.wait_broken();
        assert_eq!(self.d.poll_used(0), None, "{what}");
        self.d.notify(0);
        self.d.bring_up(0);
        self.assert_works();
        assert!(self.image.bytes() == self.content, "{what}");
    }

    /// Makes the chain that starts at descriptor 0 available.
    fn chain_breaks(&mut self, what: &str, descriptors: &[(u64, u32, u16, u16)]) {
        self.breaks(what, |d| {
            for (i, &(addr, len, flags, next)) in descriptors.iter().enumerate() {
                d.put_desc(d.rings[0].desc, i as u16, Desc { addr, len, flags, next });
            }
            d.make_available(0, 0);
        });
    }
}

#[test]
fn queue_registers_are_closed_while_the_device_is_live() {
    let mut r = Rig::new();
    r.d.set(mmio::QUEUE_SEL, 0);
    for value in [0, 1, 7, 8, 0x8000, 0x7fff_ffff, u32::MAX] {
        for register in [
            mmio::QUEUE_NUM,
            mmio::QUEUE_READY,
            mmio::QUEUE_DESC_LOW,
            mmio::QUEUE_DESC_HIGH,
            mmio::QUEUE_DRIVER_LOW,
            mmio::QUEUE_DRIVER_HIGH,
            mmio::QUEUE_DEVICE_LOW,
            mmio::QUEUE_DEVICE_HIGH,
            mmio::DRIVER_FEATURES,
        ] {
            r.d.set(register, value);
            r.d.set(mmio::DRIVER_FEATURES_SEL, value & 1);
        }
        r.d.set(mmio::STATUS, 15);
        assert_eq!(r.d.reg(mmio::QUEUE_READY), 1);
        r.assert_works();
    }
}

#[test]
fn a_ready_queue_keeps_its_place_before_the_device_is_live() {
    let mut r = Rig::new();
    r.d.negotiate(0);
    r.d.rings.clear();
    r.d.set_up_ring(0, 256);
    r.d.set(mmio::QUEUE_NUM, 2);
    r.d.set(mmio::QUEUE_DESC_LOW, 0);
    r.d.set(mmio::STATUS, 15);
    r.assert_works();
}

#[test]
fn rings_that_cannot_be_are_refused() {
    let mut r = Rig::new();
    let good = r.d.rings[0].desc;
    let cases: &[(u32, u64, u64, u64)] = &[
        (0, good, good + 0x8000, good + 0xa000),
        (3, good, good + 0x8000, good + 0xa000),
        (512, good, good + 0x8000, good + 0xa000),
        (0x1_0008, good, good + 0x8000, good + 0xa000),
        (256, good + 8, good + 0x8000, good + 0xa000),
        (256, good, good + 0x8001, good + 0xa000),
        (256, good, good + 0x8000, good + 0xa002),
        (256, RAM_END - 4080, good + 0x8000, good + 0xa000),
        (256, good, RAM_END - 512, good + 0xa000),
        (256, good, good + 0x8000, RAM_END - 2052),
        (256, DEVICE_WINDOW, good + 0x8000, good + 0xa000),
        (256, good, DEVICE_WINDOW, good + 0xa000),
        (256, good, good + 0x8000, DEVICE_WINDOW),
        (256, 0, 0, 0),
        (256, u64::MAX - 15, u64::MAX - 1, u64::MAX - 3),
    ];
    for &(size, desc, avail, used) in cases {
        r.d.negotiate(0);
        r.d.set(mmio::QUEUE_SEL, 0);
        r.d.set(mmio::QUEUE_NUM, size);
        for (register, value) in
            [(mmio::QUEUE_DESC_LOW, desc), (mmio::QUEUE_DRIVER_LOW, avail), (mmio::QUEUE_DEVICE_LOW, used)]
        {
            r.d.set(register, value as u32);
            r.d.set(register + 4, (value >> 32) as u32);
        }
        r.d.set(mmio::QUEUE_READY, 1);
        r.d.set(mmio::STATUS, 15);
        let name = format!("{size} {desc:#x} {avail:#x} {used:#x}");
        assert_ne!(r.d.reg(mmio::STATUS) & status::DEVICE_NEEDS_RESET, 0, "{name}");
        assert_eq!(r.d.reg(mmio::INTERRUPT_STATUS), 2, "{name}");
        r.d.notify(0);
        r.d.bring_up(0);
        r.assert_works();
    }
}

#[test]
fn chains_without_an_end_are_refused() {
    let mut r = Rig::new();
    r.chain_breaks("a descriptor that follows itself", &[(HEADER, 16, NEXT, 0)]);
    r.chain_breaks("a loop of two", &[(HEADER, 16, NEXT, 1), (DATA, 512, NEXT | WRITE, 0)]);
    r.chain_breaks("a loop of two, writable", &[(HEADER, 16, NEXT, 1), (DATA, 512, NEXT | WRITE, 1)]);
    r.chain_breaks("a successor outside the table", &[(HEADER, 16, NEXT, 256)]);
    r.chain_breaks("a successor far outside the table", &[(HEADER, 16, NEXT, 0xffff)]);
    r.chain_breaks("empty buffers in a loop", &[(HEADER, 0, NEXT, 0)]);
    r.breaks("2^32 bytes in total", |d| {
        for i in 0..256 {
            let flags = if i == 255 { WRITE } else { NEXT | WRITE };
            let desc = Desc { addr: RAM_BASE, len: RAM_SIZE as u32, flags, next: i + 1 };
            d.put_desc(d.rings[0].desc, i, desc);
        }
        d.make_available(0, 0);
    });
}

#[test]
fn indirect_tables_that_cannot_be_are_refused() {
    let mut r = Rig::new();
    let table = BUFFERS + 0x20_0000;
    let entry = |d: &Driver, i, addr, len, flags, next| d.put_desc(table, i, Desc { addr, len, flags, next });
    r.breaks("a table in a table", |d| {
        entry(d, 0, HEADER, 16, NEXT, 1);
        entry(d, 1, table, 32, INDIRECT, 0);
        d.put_desc(d.rings[0].desc, 0, Desc { addr: table, len: 32, flags: INDIRECT, next: 0 });
        d.make_available(0, 0);
    });
    r.breaks("a table that is its own only entry", |d| {
        entry(d, 0, table, 16, INDIRECT, 0);
        d.put_desc(d.rings[0].desc, 0, Desc { addr: table, len: 16, flags: INDIRECT, next: 0 });
        d.make_available(0, 0);
    });
    r.breaks("65535 entries in a row", |d| {
        for i in 0..0xffff {
            entry(d, i, HEADER, 0, NEXT, i + 1);
        }
        d.put_desc(d.rings[0].desc, 0, Desc { addr: table, len: 0xf_fff0, flags: INDIRECT, next: 0 });
        d.make_available(0, 0);
    });
    r.breaks("a loop in a table of 65535", |d| {
        entry(d, 0, HEADER, 1, NEXT, 0);
        d.put_desc(d.rings[0].desc, 0, Desc { addr: table, len: 0xf_fff0, flags: INDIRECT, next: 0 });
        d.make_available(0, 0);
    });
    for (what, addr, len) in [
        ("an empty table", table, 0),
        ("a table of one and a half entries", table, 24),
        ("a table of 2^28 entries", table, 0xffff_fff0),
        ("a table that ends beyond RAM", RAM_END - 8, 16),
        ("a table in a device", DEVICE_WINDOW, 32),
        ("a table at the end of the address space", u64::MAX - 15, 32),
    ] {
        r.chain_breaks(what, &[(addr, len, INDIRECT, 0)]);
    }
    // After a direct descriptor, as the specification allows.
    r.d.ram.write(HEADER, &header(IN, 0)).unwrap();
    entry(&r.d, 0, DATA, 512, NEXT | WRITE, 1);
    entry(&r.d, 1, STATUS, 1, WRITE, 0);
    let ring = r.d.rings[0].desc;
    r.d.put_desc(ring, 100, Desc { addr: HEADER, len: 16, flags: NEXT, next: 101 });
    r.d.put_desc(ring, 101, Desc { addr: table, len: 32, flags: INDIRECT, next: 0 });
    r.d.make_available(0, 100);
    r.d.notify(0);
    assert_eq!(r.d.wait_used(0), (100, 513));
}

#[test]
fn buffers_outside_ram_are_refused() {
    let mut r = Rig::new();
    for (what, addr, len) in [
        ("beyond the end of the address space", u64::MAX - 0xff, 512),
        ("all of the address space", u64::MAX, u32::MAX),
        ("at address 0", 0, 512),
        ("in the device's own registers", DEVICE_WINDOW, 512),
        ("in the interrupt controller", 0x0800_0000, 512),
        ("just before RAM", RAM_BASE - 1, 1),
        ("into RAM from below", RAM_BASE - 256, 512),
        ("just after RAM", RAM_END, 1),
        ("out of RAM at its end", RAM_END - 1, 512),
        ("longer than RAM", RAM_BASE, u32::MAX),
    ] {
        for flags in [0, WRITE] {
            r.chain_breaks(
                what,
                &[(HEADER, 16, NEXT, 1), (addr, len, flags | NEXT, 2), (STATUS, 1, WRITE, 0)],
            );
        }
    }
    // The very last bytes of RAM are RAM.
    r.d.ram.write(HEADER, &header(IN, 7)).unwrap();
    r.d.add(0, &[(HEADER, 16, false), (DATA, 512, true), (RAM_END - 1, 1, true)]);
    r.d.notify(0);
    assert_eq!(r.d.wait_used(0).1, 513);
    assert_eq!(r.d.bytes(RAM_END - 1, 1), [OK]);
}

#[test]
fn readable_buffers_after_writable_ones_are_refused() {
    let mut r = Rig::new();
    r.chain_breaks(
        "the header last",
        &[(DATA, 512, NEXT | WRITE, 1), (HEADER, 16, NEXT, 2), (STATUS, 1, WRITE, 0)],
    );
}

#[test]
fn impossible_available_indices_are_refused() {
    let mut r = Rig::new();
    for jump in [257u16, 300, 0x7fff, 0x8000, 0xfff0, 0xffff] {
        r.breaks(&format!("the index jumps by {jump}"), |d| {
            let idx = d.rings[0].avail_idx.wrapping_add(jump);
            d.put_u16(d.rings[0].avail + 2, idx);
        });
    }
    for head in [256u16, 257, 0xffff] {
        r.breaks(&format!("head {head}"), |d| d.make_available(0, head));
    }
}

#[test]
fn notifications_of_queues_that_do_not_exist_are_ignored() {
    let mut r = Rig::new();
    for value in [1, 2, 0xff, 0xffff, 0x1_0000, u32::MAX] {
        r.d.set(mmio::QUEUE_NOTIFY, value);
        r.d.set(mmio::QUEUE_SEL, value);
        assert_eq!(r.d.reg(mmio::QUEUE_NUM_MAX), 0);
        assert_eq!(r.d.reg(mmio::QUEUE_READY), 0);
        r.d.set(mmio::QUEUE_NUM, 8);
        r.d.set(mmio::QUEUE_READY, 1);
        assert_eq!(r.d.reg(mmio::QUEUE_READY), 0);
    }
    r.assert_works();
    // And before the driver is ready.
    r.d.set(mmio::STATUS, 0);
    r.d.notify(0);
    r.d.bring_up(0);
    r.assert_works();
}

#[test]
fn a_device_without_queues_lives() {
    let mut r = Rig::new();
    r.d.negotiate(0);
    r.d.set(mmio::STATUS, 15);
    r.d.notify(0);
    assert_eq!(r.d.reg(mmio::STATUS), 15);
    r.d.bring_up(0);
    r.assert_works();
}

#[test]
fn data_over_the_rings_harms_only_the_driver() {
    let mut r = Rig::new();
    // Disk content over descriptor table, available ring and used ring.
    for target in [0, 0x8000, 0xa000] {
        let ring = r.d.rings[0].desc;
        r.d.ram.write(HEADER, &header(IN, 0)).unwrap();
        r.d.add(0, &[(HEADER, 16, false), (ring + target, 0x2000, true), (STATUS, 1, true)]);
        r.d.notify(0);
        r.d.dev.quiesce();
        r.d.dev.resume();
        r.d.bring_up(0);
        r.assert_works();
    }
    assert!(r.image.bytes() == r.content);
}

/// One "vCPU" changes descriptors and request while the device works on them. Whatever the device sees, it must be
/// one of the values, looked at once: sectors that no version of the request names stay as they are.
#[test]
fn requests_that_change_under_the_device_stay_within_their_versions() {
    let mut r = Rig::new();
    r.d.ram.write(DATA, &vec![0xaa; 0x2000]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (ram, table, stopped) = (r.d.ram.clone(), r.d.rings[0].desc, stop.clone());
    let flipper = std::thread::spawn(move || {
        let mut i = 0usize;
        while !stopped.load(Ordering::Relaxed) {
            i += 1;
            // The header's type and sector, the data's address and length, the end of the chain.
            ram.store(HEADER, AccessSize::Word, [1, 0, 13, 0xffff_ffff][i % 4]).unwrap();
            ram.store(HEADER + 8, AccessSize::Double, [100, u64::MAX, DISK as u64][i % 3]).unwrap();
            for head in (0..255u64).step_by(3) {
                let data = table + 16 * (head + 1);
                let addr = [DATA, DATA + 0x100, DEVICE_WINDOW, u64::MAX - 3][i % 4];
                let len = [512, 1024, u64::from(u32::MAX)][i % 3];
                ram.store(data, AccessSize::Double, addr).unwrap();
                ram.store(data + 8, AccessSize::Word, len).unwrap();
                ram.store(data + 12, AccessSize::Half, [1, 3, 0, 7][i % 4]).unwrap();
            }
        }
    });
    let mut broken = 0;
    for _ in 0..300 {
        for _ in 0..85 {
            r.d.add(0, &[(HEADER, 16, false), (DATA, 512, false), (STATUS, 1, true)]);
        }
        r.d.notify(0);
        // Every request is answered, or the device gives up.
        let used = r.d.rings[0].used + 2;
        while r.d.u16(used) != 85 {
            if r.d.reg(mmio::STATUS) & status::DEVICE_NEEDS_RESET != 0 {
                broken += 1;
                break;
            }
            std::thread::yield_now();
        }
        r.d.bring_up(0);
    }
    stop.store(true, Ordering::Relaxed);
    flipper.join().unwrap();
    eprintln!("broken {broken} times");
    r.d.bring_up(0);
    let (now, old) = (r.image.bytes(), &r.content);
    assert!(now[..100 * 512] == old[..100 * 512] && now[102 * 512..] == old[102 * 512..]);
    r.assert_works();
}

/// Random registers, random rings, random bytes where requests are: nothing to assert but that the device lives.
#[test]
fn random_drivers_leave_a_device_that_works() {
    let content = pattern(DISK, 98);
    let image = TempImage::new(&content);
    let options = DiskOptions { snapshot: true, ..DiskOptions::new(&image.0) };
    let mut d = Driver::start(block(options), 0);
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |n: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 8) % n
    };
    for round in 0..3000 {
        d.bring_up(0);
        let ring = d.rings[0].desc;
        // Requests at 16 places, and descriptors that mostly point there.
        for i in 0..16 {
            let kind = [0, 1, 4, 8, 11, 13, 2][random(7) as usize];
            d.ram.write(BUFFERS + i * 0x1000, &header(kind, random(1 << 15))).unwrap();
            d.ram
                .write(
                    BUFFERS + i * 0x1000 + 16,
                    &range(random(1 << 15), random(64) as u32, random(3) as u32),
                )
                .unwrap();
        }
        for i in 0..32 {
            let addr = match random(10) {
                0 => random(u64::MAX),
                1 => RAM_END - random(0x2000),
                _ => BUFFERS + random(16) * 0x1000 + if random(2) == 0 { 0 } else { random(512) },
            };
            let len = match random(10) {
                0 => random(1 << 32),
                1..4 => 16 * random(4),
                4 => 1,
                _ => 512 * random(20),
            };
            let flags = if random(20) == 0 { random(8) } else { random(4) };
            let desc = Desc { addr, len: len as u32, flags: flags as u16, next: random(33) as u16 };
            d.put_desc(ring, i, desc);
        }
        for _ in 0..random(20) {
            d.make_available(0, random(32) as u16);
            if random(3) == 0 {
                d.notify(0);
            }
        }
        d.notify(0);
        if random(2) == 0 {
            d.dev.quiesce();
            d.dev.resume();
        }
        for _ in 0..random(10) {
            let offset = random(mmio::WINDOW_SIZE / 4) * 4;
            d.dev.write(offset, AccessSize::Word, random(1 << 32) >> random(32));
        }
        if round % 100 == 0 {
            d.bring_up(0);
            assert_eq!(request(&mut d, GET_ID, 0, &[(DATA, 20, true)]), (OK, 21));
        }
    }
    assert!(image.bytes() == content, "a snapshot wrote to its base");
}
