use std::sync::Arc;

use armlet_engine::VcpuShared;
use armlet_memory::{AccessSize, MmioDevice, Ram};

use super::super::spec::{REDISTRIBUTOR_SIZE, gicd, gicr, gits, icc, its_table};
use super::super::{GicConfig, GicV3};
use super::*;
use crate::testing::Random;

const RAM: u64 = 0x4000_0000;
const BASE: u64 = 0x0808_0000;
const CONFIGURATION: u64 = RAM + 0x1_0000;
const QUEUE: u64 = RAM + 0x2_0000;
const DEVICES: u64 = RAM + 0x3_0000;
const COLLECTIONS: u64 = RAM + 0x4_0000;
const EVENTS: u64 = RAM + 0x5_0000;
const PENDING: u64 = RAM + 0x10_0000;
const SIZE: u64 = 16 << 20;
const CPUS: usize = 3;
const DEVICE: u32 = 7;
const LPI: u32 = 8192;
/// Of the queue, in bytes.
const QUEUE_SIZE: u64 = 0x1_0000;

struct Bench {
    gic: Arc<GicV3>,
    its: Arc<Its>,
    frames: Arc<dyn MmioDevice>,
    redist: Arc<dyn MmioDevice>,
    cpus: Vec<Arc<VcpuShared>>,
    ram: Ram,
}

/// As after a reset, over `ram`.
fn raw(ram: &Ram) -> Bench {
    let cpus: Vec<_> = (0..CPUS).map(|i| Arc::new(VcpuShared::new(i))).collect();
    let config = GicConfig { spis: 64, affinities: (0..CPUS as u64).collect() };
    let gic = GicV3::with_lpis(&config, cpus.clone(), ram.clone()).unwrap();
    let its = Its::new(&gic, ram.clone(), BASE);
    Bench { frames: its.frames(), redist: gic.redistributors(0..CPUS), its, gic, cpus, ram: ram.clone() }
}

/// As software sets it up: collections 0 to 2 for CPUs 0 to 2, a device with 32 events, LPIs on.
fn bench() -> Bench {
    let b = raw(&Ram::new(RAM, SIZE).unwrap());
    b.gic.distributor().write(gicd::CTLR, AccessSize::Word, 3);
    for cpu in 0..CPUS {
        b.enable_lpis(cpu);
        b.gic.write_icc_encoding(cpu, icc::PMR, 0xff);
        b.gic.write_icc_encoding(cpu, icc::IGRPEN1, 1);
    }
    b.w(gits::CBASER, gits::VALID | QUEUE | 15);
    b.w(gits::BASER, gits::VALID | DEVICES);
    b.w(gits::BASER + 8, gits::VALID | COLLECTIONS);
    b.enable();
    for cpu in 0..CPUS as u64 {
        b.command([gits::MAPC.into(), 0, gits::VALID | cpu << 16 | cpu, 0]);
    }
    b.map_device(DEVICE, 5, EVENTS);
    b
}

impl Bench {
    fn w(&self, offset: u64, value: u64) {
        self.frames.write(offset, AccessSize::Double, value);
    }

    fn r(&self, offset: u64) -> u64 {
        self.frames.read(offset, AccessSize::Double)
    }

    fn enable(&self) {
        self.frames.write(gits::CTLR, AccessSize::Word, 1);
    }

    fn rd(&self, cpu: usize, offset: u64, value: u64) {
        self.redist.write(cpu as u64 * REDISTRIBUTOR_SIZE + offset, AccessSize::Double, value);
    }

    fn enable_lpis(&self, cpu: usize) {
        self.rd(cpu, gicr::PROPBASER, CONFIGURATION | 15);
        self.rd(cpu, gicr::PENDBASER, PENDING + 0x1_0000 * cpu as u64);
        self.rd(cpu, gicr::CTLR, 1);
    }

    fn word(&self, at: u64) -> u64 {
        self.ram.load(at, AccessSize::Double).unwrap()
    }

    fn configure(&self, lpi: u32, byte: u8) {
        self.ram.write(CONFIGURATION + u64::from(lpi - LPI), &[byte]).unwrap();
    }

    /// Puts a command into the queue and has it carried out.
    fn command(&self, command: [u64; 4]) {
        let place = self.r(gits::CWRITER);
        self.put(place, command);
        let next = (place + gits::COMMAND_SIZE) % QUEUE_SIZE;
        self.w(gits::CWRITER, next);
        assert_eq!(self.r(gits::CREADR), next);
    }

    fn put(&self, place: u64, command: [u64; 4]) {
        let bytes: Vec<u8> = command.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.ram.write(QUEUE + place, &bytes).unwrap();
    }

    fn of_event(&self, number: u8, event: u32) {
        self.command([u64::from(number) | u64::from(DEVICE) << 32, event.into(), 0, 0]);
    }

    fn map_device(&self, device: u32, bits: u64, table: u64) {
        self.command([u64::from(gits::MAPD) | u64::from(device) << 32, bits - 1, gits::VALID | table, 0]);
    }

    fn map(&self, event: u32, lpi: u32, collection: u64) {
        let ids = u64::from(event) | u64::from(lpi) << 32;
        self.command([u64::from(gits::MAPTI) | u64::from(DEVICE) << 32, ids, collection, 0]);
    }

    fn send(&self, event: u32) {
        self.its.send(Message { device: DEVICE, address: BASE + gits::TRANSLATER, data: event });
    }

    fn iar(&self, cpu: usize) -> u64 {
        self.gic.read_icc_encoding(cpu, icc::IAR1)
    }

    fn eoi(&self, cpu: usize, intid: u64) {
        self.gic.write_icc_encoding(cpu, icc::EOIR1, intid);
    }

    /// All that `cpu` takes, in order.
    fn taken(&self, cpu: usize) -> Vec<u32> {
        let mut all = Vec::new();
        while self.cpus[cpu].irq() {
            let intid = self.iar(cpu);
            self.eoi(cpu, intid);
            all.push(intid as u32);
        }
        all
    }
}

#[test]
fn identifies_itself_with_tables_that_cannot_be_others() {
    let b = raw(&Ram::new(RAM, SIZE).unwrap());
    assert_eq!(b.r(gits::TYPER), 0x1_ef71);
    assert_eq!(b.frames.read(gits::CTLR, AccessSize::Word), 1 << 31);
    assert_eq!(b.frames.read(0xffe8, AccessSize::Word) >> 4, 3);
    assert_eq!(b.frames.read(0xffe0, AccessSize::Word), 0x94);
    for (n, fixed) in [(0, 0x0107_0000_0000_0200), (1, 0x0407_0000_0000_0200), (2, 0), (7, 0)] {
        b.w(gits::BASER + 8 * n, !0);
        let writable = match n {
            0 => gits::BASER_MASK,
            1 => gits::BASER_MASK & !gits::BASER_INDIRECT,
            _ => 0,
        };
        assert_eq!(b.r(gits::BASER + 8 * n), fixed | writable, "GITS_BASER{n}");
    }
    // By halves as well.
    b.frames.write(gits::CBASER, AccessSize::Word, 0x4800_0005);
    b.frames.write(gits::CBASER + 4, AccessSize::Word, 1 << 31);
    assert_eq!(b.r(gits::CBASER), gits::VALID | 0x4800_0005);
    let distributor = b.gic.distributor();
    assert_eq!(distributor.read(gicd::TYPER, AccessSize::Word) >> 17 & 0x7d, 0x3d, "LPIs, 16 bits");
    assert_eq!(b.redist.read(gicr::TYPER, AccessSize::Word) & 1, 1);
    assert_eq!(b.redist.read(gicr::CTLR, AccessSize::Word), 6);
}

#[test]
fn without_memory_there_are_no_lpis() {
    let config = GicConfig { spis: 32, affinities: vec![0] };
    let gic = GicV3::new(&config, vec![Arc::new(VcpuShared::new(0))]).unwrap();
    let redist = gic.redistributors(0..1);
    for register in [gicr::PROPBASER, gicr::PENDBASER, gicr::CTLR] {
        redist.write(register, AccessSize::Double, 0x4000_0001);
        assert_eq!(redist.read(register, AccessSize::Word), 0);
    }
    assert_eq!(gic.distributor().read(gicd::TYPER, AccessSize::Word) >> 17 & 1, 0);
}

#[test]
fn without_queue_and_tables_it_is_not_enabled() {
    let b = raw(&Ram::new(RAM, SIZE).unwrap());
    for (register, value) in [(gits::CBASER, QUEUE), (gits::BASER, DEVICES), (gits::BASER + 8, COLLECTIONS)] {
        b.enable();
        assert_eq!(b.frames.read(gits::CTLR, AccessSize::Word) & 1, 0);
        b.w(register, gits::VALID | value);
    }
    b.enable();
    assert_eq!(b.frames.read(gits::CTLR, AccessSize::Word), 1);
    // And then they do not change.
    b.w(gits::CBASER, 0);
    b.w(gits::BASER, 0);
    assert_eq!(b.r(gits::CBASER), gits::VALID | QUEUE);
    assert_eq!(b.r(gits::BASER) >> 63, 1);
}

#[test]
fn a_message_becomes_the_lpi_at_its_collections_cpu() {
    let b = bench();
    b.configure(LPI + 3, 0xa1);
    b.map(3, LPI + 3, 1);
    let sender = b.its.sender(Message { device: DEVICE, address: BASE + gits::TRANSLATER, data: 3 });
    for _ in 0..2 {
        sender.send();
        assert!(b.cpus[1].irq() && !b.cpus[0].irq());
        assert_eq!(b.iar(1), u64::from(LPI + 3));
        // Pending again before the end: there is no active state, but a running priority.
        b.send(3);
        assert!(!b.cpus[1].irq());
        b.eoi(1, u64::from(LPI + 3));
        assert_eq!(b.taken(1), [LPI + 3]);
    }
    // To another address, of another device, of another event.
    b.its.send(Message { device: DEVICE, address: BASE + 0x40, data: 3 });
    b.its.send(Message { device: 8, address: BASE + gits::TRANSLATER, data: 3 });
    b.send(4);
    b.send(1 << 31);
    // A CPU's own store names no device.
    b.frames.write(gits::TRANSLATER, AccessSize::Word, 3);
    b.frames.write(gits::CTLR, AccessSize::Word, 0);
    sender.send();
    assert_eq!(b.taken(1), [0; 0]);
}

#[test]
fn tables_have_the_layout_that_kvm_reads() {
    let b = bench();
    b.map(0, LPI + 1, 2);
    b.map(31, LPI + 2, 0);
    assert_eq!(b.word(DEVICES + 8 * u64::from(DEVICE)), gits::VALID | 1 << 49 | (EVENTS >> 8) << 5 | 4);
    assert_eq!(b.word(EVENTS), 1 << 48 | u64::from(LPI + 1) << 16 | 2);
    // Behind the last event that there can be, there is none.
    assert_eq!(b.word(EVENTS + 8 * 31), u64::from(LPI + 2) << 16);
    for n in 0..CPUS as u64 {
        assert_eq!(b.word(COLLECTIONS + 8 * n), gits::VALID | n << 16 | n);
    }
    assert_eq!(b.word(COLLECTIONS + 24), 0);
    // Collections are a list: one that goes away leaves no hole.
    b.command([gits::MAPC.into(), 0, 0, 0]);
    assert_eq!(b.word(COLLECTIONS), gits::VALID | 2 << 16 | 2);
    assert_eq!(b.word(COLLECTIONS + 16), 0);
    b.command([gits::MAPC.into(), 0, gits::VALID | 1 << 16 | 2, 0]);
    assert_eq!(b.word(COLLECTIONS), gits::VALID | 1 << 16 | 2);
    b.of_event(gits::DISCARD, 0);
    assert_eq!(b.word(EVENTS), 0);
    b.command([u64::from(gits::MAPD) | u64::from(DEVICE) << 32, 0, 0, 0]);
    assert_eq!(b.word(DEVICES + 8 * u64::from(DEVICE)), 0);
}

#[test]
fn a_device_table_may_have_two_levels() {
    let b = bench();
    b.frames.write(gits::CTLR, AccessSize::Word, 0);
    b.w(gits::BASER, gits::VALID | gits::BASER_INDIRECT | DEVICES);
    b.enable();
    let device = 8192 + 5;
    // Without a page of the second level there is no such device.
    b.ram.store(DEVICES, AccessSize::Double, 0).unwrap();
    b.map_device(device, 5, EVENTS);
    let page = RAM + 0x20_0000;
    b.ram.store(DEVICES + 8, AccessSize::Double, gits::VALID | page).unwrap();
    assert_eq!(b.word(page + 8 * 5), 0);
    b.map_device(device, 5, EVENTS);
    assert_eq!(its_table::device_of(b.word(page + 8 * 5)), Some((EVENTS, 5)));
    b.configure(LPI, 0x81);
    b.command([u64::from(gits::MAPTI) | u64::from(device) << 32, 4 | u64::from(LPI) << 32, 0, 0]);
    b.its.send(Message { device, address: BASE + gits::TRANSLATER, data: 4 });
    assert_eq!(b.taken(0), [LPI]);
}

#[test]
fn priorities_and_masks_are_those_of_the_configuration_when_it_was_read() {
    let b = bench();
    for (event, byte) in [(0, 0xa1), (1, 0x41), (2, 0x40), (3, 0xa1), (4, 0x81)] {
        b.configure(LPI + event, byte);
        b.map(event, LPI + event, 0);
        b.send(event);
    }
    // A change is not seen before it is told.
    b.configure(LPI + 3, 0x01);
    b.configure(LPI + 2, 0x21);
    let highest = |b: &Bench| b.gic.read_icc_encoding(0, icc::HPPIR1) as u32;
    assert_eq!(highest(&b), LPI + 1);
    b.of_event(gits::INV, 2);
    assert_eq!(highest(&b), LPI + 2);
    b.gic.write_icc_encoding(0, icc::PMR, 0x20);
    assert!(!b.cpus[0].irq());
    b.command([gits::INVALL.into(), 0, 0, 0]);
    assert_eq!(b.taken(0), [LPI + 3]);
    b.gic.write_icc_encoding(0, icc::PMR, 0xff);
    assert_eq!(b.taken(0), [LPI + 2, LPI + 1, LPI + 4, LPI]);
    // The same without commands.
    b.configure(LPI, 0xa0);
    b.send(0);
    assert_eq!(b.taken(0), [0; 0]);
    b.configure(LPI, 0xa1);
    b.rd(0, gicr::INVLPIR, LPI.into());
    assert_eq!(b.taken(0), [LPI]);
}

#[test]
fn what_is_pending_moves_and_goes_away() {
    let b = bench();
    for event in 0..4 {
        b.configure(LPI + event, 0xa1);
        b.map(event, LPI + event, 0);
        b.send(event);
    }
    b.command([u64::from(gits::MOVI) | u64::from(DEVICE) << 32, 0, 1, 0]);
    b.of_event(gits::CLEAR, 1);
    b.of_event(gits::DISCARD, 2);
    assert_eq!(b.taken(1), [LPI]);
    b.command([gits::MOVALL.into(), 0, 0, 2 << 16]);
    assert_eq!((b.taken(0), b.taken(2)), (vec![], vec![LPI + 3]));
    (0..4).for_each(|event| b.of_event(gits::INT, event));
    assert_eq!((b.taken(0), b.taken(1)), (vec![LPI + 1, LPI + 3], vec![LPI]));
    // One LPI is pending at one CPU only, the last one that it came to.
    b.map(5, LPI, 2);
    b.send(0);
    b.send(5);
    assert_eq!((b.taken(1), b.taken(2)), (vec![], vec![LPI]));
}

#[test]
fn pending_tables_are_read_when_lpis_are_enabled_and_written_when_they_are_disabled() {
    let b = bench();
    b.configure(LPI + 70, 0xa1);
    b.configure(LPI + 64, 0xa1);
    b.map(0, LPI + 70, 1);
    b.send(0);
    b.rd(1, gicr::CTLR, 0);
    assert!(!b.cpus[1].irq());
    let at = PENDING + 0x1_0000 + u64::from(LPI + 64) / 8;
    assert_eq!(b.word(at), 1 << 6);
    b.send(0);
    b.ram.store(at, AccessSize::Double, 1).unwrap();
    b.rd(1, gicr::CTLR, 1);
    assert_eq!(b.taken(1), [LPI + 64]);
    // Tables in use stay where they are.
    b.rd(1, gicr::PENDBASER, 0);
    b.rd(1, gicr::PROPBASER, 0);
    b.send(0);
    assert_eq!(b.taken(1), [LPI + 70]);
}

#[test]
fn a_queue_in_no_memory_stalls_until_it_is_tried_again() {
    let b = bench();
    b.frames.write(gits::CTLR, AccessSize::Word, 0);
    b.w(gits::CBASER, gits::VALID | (RAM + SIZE - 0x1000) | 1);
    b.enable();
    // One page of it is there.
    b.w(gits::CWRITER, 0x1020);
    assert_eq!(b.r(gits::CREADR), 0x1000 | gits::CREADR_STALLED);
    b.w(gits::CWRITER, 0x1020 | gits::CWRITER_RETRY);
    assert_eq!(b.r(gits::CREADR), 0x1000 | gits::CREADR_STALLED);
    // Nothing is behind the end.
    b.w(gits::CWRITER, 0x2000);
    assert_eq!(b.r(gits::CWRITER), 0x1020);
}

#[test]
fn one_access_does_a_bounded_amount_of_work() {
    let b = bench();
    // All LPIs pending, and a queue full of commands that move all of them.
    let full = PENDING + u64::from(LPI) / 8;
    b.rd(0, gicr::CTLR, 0);
    b.ram.write(full, &vec![0xff; (65536 - LPI as usize) / 8]).unwrap();
    b.rd(0, gicr::CTLR, 1);
    let commands = QUEUE_SIZE / gits::COMMAND_SIZE;
    let first = b.r(gits::CWRITER) / gits::COMMAND_SIZE;
    for n in first..commands {
        let (from, to) = (n % 2, (n + 1) % 2);
        b.put(n * gits::COMMAND_SIZE, [gits::MOVALL.into(), 0, from << 16, to << 16]);
    }
    b.w(gits::CWRITER, 0);
    let stalled = b.r(gits::CREADR);
    assert_eq!(stalled & gits::CREADR_STALLED, 1);
    let done = stalled / gits::COMMAND_SIZE - first;
    let all = u64::from(65536 - LPI);
    assert!((done - 1) * all < u64::from(spec::WORK) && done * all >= u64::from(spec::WORK) - done, "{done}");
    // Software can have it go on.
    b.w(gits::CWRITER, gits::CWRITER_RETRY);
    assert!(b.r(gits::CREADR) > stalled);
}

#[test]
fn what_was_saved_goes_on_over_the_same_memory() {
    let mut random = Random::seeded("its saved");
    for _ in 0..40 {
        let b = bench();
        for _ in 0..random.below(60) {
            let (event, cpu) = (random.below(32) as u32, random.below(3));
            match random.below(6) {
                0 | 1 => b.map(event, LPI + random.below(200) as u32, cpu),
                2 => b.configure(LPI + random.below(200) as u32, random.next() as u8),
                3 => b.of_event(gits::DISCARD, event),
                4 => b.command([gits::MAPC.into(), 0, gits::VALID | cpu << 16 | random.below(5), 0]),
                _ => b.send(event),
            }
        }
        let (gic, its) = (b.gic.save(), b.its.save());
        let other = raw(&b.ram);
        other.gic.restore(&gic).unwrap();
        other.its.restore(&its).unwrap();
        assert_eq!((other.gic.save(), other.its.save()), (gic, its));
        for event in 0..32 {
            let taken = |b: &Bench| -> Vec<_> { (0..CPUS).map(|cpu| b.taken(cpu)).collect() };
            // Configurations are read again; what they were before cannot be known.
            for bench in [&b, &other] {
                (0..CPUS).for_each(|cpu| bench.rd(cpu, gicr::INVALLR, 0));
            }
            assert_eq!(taken(&b), taken(&other));
            b.send(event);
            other.send(event);
        }
    }
}

#[test]
fn registers_that_cannot_be_are_named() {
    let b = bench();
    type Change = fn(&mut SavedIts);
    let cases: [(&str, Change); 6] = [
        ("GITS_CBASER", |its| its.queue |= 1 << 62),
        ("GITS_CWRITER", |its| its.written = QUEUE_SIZE),
        ("GITS_CREADR", |its| its.read = 8),
        ("GITS_BASER0", |its| its.devices |= 1 << 56),
        ("GITS_BASER1", |its| its.collections |= gits::BASER_INDIRECT),
        ("GITS_CTLR", |its| its.devices = 0),
    ];
    for (words, change) in cases {
        let mut saved = b.its.save();
        change(&mut saved);
        let before = b.its.save();
        assert!(b.its.restore(&saved).unwrap_err().0.contains(words), "{words}");
        assert_eq!(b.its.save(), before);
    }
}

#[test]
fn lpis_of_a_place_stay_enabled_when_another_cpu_comes() {
    let b = bench();
    b.configure(LPI, 0xa1);
    b.map(0, LPI, 1);
    b.send(0);
    b.gic.connect(1, Arc::new(VcpuShared::new(1)));
    b.gic.write_icc_encoding(1, icc::PMR, 0xff);
    b.gic.write_icc_encoding(1, icc::IGRPEN1, 1);
    assert_eq!(b.iar(1), u64::from(LPI));
    b.eoi(1, u64::from(LPI));
    b.send(0);
    assert_eq!(b.iar(1), u64::from(LPI));
}

#[test]
fn a_reset_leaves_nothing() {
    let b = bench();
    b.configure(LPI, 0xa1);
    b.map(0, LPI, 0);
    b.send(0);
    assert!(b.cpus[0].irq());
    b.its.reset();
    b.gic.reset();
    assert!(!b.cpus[0].irq());
    let fresh = raw(&b.ram);
    assert_eq!((b.its.save(), b.gic.save()), (fresh.its.save(), fresh.gic.save()));
}
