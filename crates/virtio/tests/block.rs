//! The block device through its registers: requests, images, and the ways in which they go wrong.

mod common;

use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use armlet_memory::AccessSize;
use armlet_storage::{BlockBackend, DiskOptions, VolatileSlice};
use armlet_virtio::Service;
use armlet_virtio::spec::{feature, mmio};
use common::disk::*;
use common::*;

/// The device works: used at the end of tests that mistreat it.
fn assert_works(d: &mut Driver, content: &[u8]) {
    assert_eq!(read(d, 3, 1024), content[1536..2560]);
}

#[test]
fn identification_and_configuration_are_as_specified() {
    let image = TempImage::new(&pattern(DISK, 1));
    let d = Driver::new(block(DiskOptions::new(&image.0)));
    assert_eq!(d.reg(mmio::MAGIC_VALUE).to_le_bytes(), *b"virt");
    assert_eq!(d.reg(mmio::VERSION), 2);
    assert_eq!(d.reg(mmio::DEVICE_ID), 2);
    assert_eq!(d.dev.read(mmio::CONFIG, AccessSize::Double), DISK as u64 / 512);
    assert_eq!(d.reg(mmio::CONFIG + 20), 512);
    assert_eq!(d.dev.read(mmio::CONFIG + 32, AccessSize::Byte), 1, "the write cache is on");
    assert_eq!(d.dev.read(mmio::CONFIG + 58, AccessSize::Double), 0, "beyond the configuration");
    assert_eq!(d.dev.read(u64::MAX - 7, AccessSize::Double), 0);
}

#[test]
fn reads_and_writes_reach_the_image() {
    let content = pattern(DISK, 2);
    let image = TempImage::new(&content);
    for without in [0, feature::EVENT_IDX, feature::EVENT_IDX | feature::INDIRECT_DESC | F_FLUSH] {
        let mut d = Driver::start(block(DiskOptions::new(&image.0)), without);
        assert_eq!(read(&mut d, 0, 512), image.bytes()[..512]);
        assert_eq!(read(&mut d, DISK as u64 / 512 - 8, 4096), image.bytes()[DISK - 4096..]);
        let new = pattern(1 << 20, 3 + without);
        write(&mut d, 77, &new);
        assert_eq!(request(&mut d, FLUSH, 0, &[]), (OK, 1));
        let mut expected = content.clone();
        expected[77 * 512..77 * 512 + new.len()].copy_from_slice(&new);
        assert!(image.bytes() == expected, "the image differs");
        assert!(read(&mut d, 77, 1 << 20) == new, "read back differs");
    }
}

#[test]
fn immediate_service_is_over_when_the_notification_returns() {
    let content = pattern(DISK, 2);
    let image = TempImage::new(&content);
    let backend = DiskOptions::new(&image.0).open().unwrap().backend;
    let mut d = Driver::start(served(backend, Service::Immediate), 0);
    for (sector, count) in [(0, 1u32), (9, 8), (2, 300)] {
        let data = BUFFERS + 0x1000;
        let status = data + 512 * u64::from(count);
        d.ram.write(HEADER, &header(IN, sector)).unwrap();
        d.add(0, &[(HEADER, 16, false), (data, 512 * count, true), (status, 1, true)]);
        d.notify(0);
        assert!(d.line.is_high(), "the interrupt is there");
        assert_eq!(d.poll_used(0).map(|(_, written)| written), Some(512 * count + 1));
        d.acknowledge();
        let at = sector as usize * 512;
        assert!(d.bytes(data, 512 * count as usize) == content[at..at + 512 * count as usize]);
    }
    assert!(d.dev.shutdown(Duration::ZERO));
}

#[test]
fn how_a_request_is_cut_into_descriptors_means_nothing() {
    let content = pattern(DISK, 4);
    let image = TempImage::new(&content);
    let mut d = Driver::start(block(DiskOptions::new(&image.0)), 0);
    // Header in two pieces, data in odd pieces, the status byte at the end of a data buffer.
    d.ram.write(HEADER, &header(IN, 5)).unwrap();
    let chain = [
        (HEADER, 3, false),
        (HEADER + 3, 13, false),
        (DATA, 1, true),
        (DATA + 1, 510, true),
        (DATA + 511, 514, true),
    ];
    d.add(0, &chain);
    d.notify(0);
    assert_eq!(d.wait_used(0).1, 1025);
    assert_eq!(d.bytes(DATA, 1024), content[2560..3584]);
    assert_eq!(d.bytes(DATA + 1024, 1), [OK]);
}

#[test]
fn indirect_tables_are_followed() {
    let content = pattern(DISK, 5);
    let image = TempImage::new(&content);
    let mut d = Driver::start(block(DiskOptions::new(&image.0)), 0);
    d.ram.write(HEADER, &header(IN, 9)).unwrap();
    let table = BUFFERS + 0x200;
    d.put_desc(table, 0, Desc { addr: HEADER, len: 16, flags: NEXT, next: 2 });
    d.put_desc(table, 2, Desc { addr: DATA, len: 512, flags: NEXT | WRITE, next: 1 });
    d.put_desc(table, 1, Desc { addr: STATUS, len: 1, flags: WRITE, next: 0 });
    let desc = d.rings[0].desc;
    d.put_desc(desc, 0, Desc { addr: table, len: 48, flags: INDIRECT, next: 0 });
    d.make_available(0, 0);
    d.notify(0);
    assert_eq!(d.wait_used(0), (0, 513));
    assert_eq!(d.bytes(DATA, 512), content[9 * 512..10 * 512]);
}

#[test]
fn many_requests_in_flight_all_complete_and_the_index_wraps() {
    let content = pattern(DISK, 6);
    let image = TempImage::new(&content);
    let mut d = Driver::start(block(DiskOptions::new(&image.0)), 0);
    let slots = 64u64;
    // 64 * 1100 chains take the 16-bit indices past their end.
    for round in 0..1100u64 {
        for i in 0..slots {
            let slot = BUFFERS + 0x1000 * i;
            let sector = (round * 31 + i * 17) % (DISK as u64 / 512);
            d.ram.write(slot, &header(IN, sector)).unwrap();
            d.add(0, &[(slot, 16, false), (slot + 512, 512, true), (slot + 16, 1, true)]);
        }
        d.notify(0);
        for _ in 0..slots {
            d.wait_used(0);
        }
        let i = round % slots;
        let sector = ((round * 31 + i * 17) % (DISK as u64 / 512)) as usize;
        assert_eq!(d.bytes(BUFFERS + 0x1000 * i + 16, 1), [OK]);
        assert_eq!(d.bytes(BUFFERS + 0x1000 * i + 512, 512), content[sector * 512..][..512]);
    }
}

#[test]
fn the_serial_number_is_cut_to_twenty_bytes() {
    let image = TempImage::new(&pattern(DISK, 7));
    let mut d = Driver::start(block(DiskOptions::new(&image.0)), 0);
    assert_eq!(request(&mut d, GET_ID, 0, &[(DATA, 20, true)]), (OK, 21));
    assert_eq!(d.bytes(DATA, 21), *b"serial-0123456789-an\0");
}

#[test]
fn zeroes_and_discards_do_what_they_say() {
    let content = pattern(DISK, 8);
    let image = TempImage::new(&content);
    let mut d = Driver::start(block(DiskOptions::new(&image.0)), 0);
    for (kind, flags) in [(WRITE_ZEROES, 0), (WRITE_ZEROES, 1), (DISCARD, 0)] {
        write(&mut d, 0, &content[..1 << 20]);
        let mut ranges = range(1, 3, flags);
        ranges.extend(range(64, 100, flags));
        d.ram.write(DATA, &ranges).unwrap();
        assert_eq!(request(&mut d, kind, 0, &[(DATA, 32, false)]), (OK, 1));
        let mut zeroed = content.clone();
        zeroed[512..4 * 512].fill(0);
        zeroed[64 * 512..164 * 512].fill(0);
        let now = image.bytes();
        if kind == WRITE_ZEROES {
            assert!(now == zeroed);
        } else {
            // Either old data or zeroes, and nothing else touched.
            let allowed = now.iter().zip(&content).zip(&zeroed).all(|((n, old), z)| n == old || n == z);
            assert!(allowed && now.len() == DISK);
        }
    }
}

#[test]
fn bad_requests_fail_and_leave_no_trace() {
    let content = pattern(DISK, 9);
    let image = TempImage::new(&content);
    let mut d = Driver::start(block(DiskOptions::new(&image.0)), 0);
    let last = DISK as u64 / 512;
    // Beyond the end, by one sector, by wrapping, and in the middle of the data.
    for sector in [last, last - 1, u64::MAX, u64::MAX / 512, u64::MAX / 512 + 1] {
        assert_eq!(request(&mut d, IN, sector, &[(DATA, 1024, true)]).0, IOERR, "read {sector:#x}");
        assert_eq!(request(&mut d, OUT, sector, &[(DATA, 1024, false)]).0, IOERR, "write {sector:#x}");
    }
    assert_eq!(request(&mut d, IN, 0, &[(DATA, 511, true)]).0, IOERR);
    assert_eq!(request(&mut d, OUT, 0, &[(DATA, 513, false)]).0, IOERR);
    // SCSI commands, and types that nobody has defined.
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, 0x8000_0000, u32::MAX] {
        assert_eq!(request(&mut d, kind, 0, &[(DATA, 512, true)]), (UNSUPP, 1), "type {kind}");
    }
    for (kind, bytes, status) in [
        (DISCARD, range(0, 8, 1), UNSUPP),
        (DISCARD, range(last, 1, 0), IOERR),
        (DISCARD, range(u64::MAX, 1, 0), IOERR),
        (DISCARD, range(0, u32::MAX, 0), IOERR),
        (DISCARD, range(0, 8, 0)[..15].to_vec(), IOERR),
        (DISCARD, vec![0; 16 * 17], IOERR),
        (WRITE_ZEROES, range(0, 8, 2), UNSUPP),
        (WRITE_ZEROES, range(last - 1, 2, 0), IOERR),
        // The first range is good, the second not: neither is done.
        (WRITE_ZEROES, [range(0, 8, 0), range(last, 8, 0)].concat(), IOERR),
    ] {
        d.ram.write(DATA, &bytes).unwrap();
        let data = [(DATA, bytes.len() as u32, false)];
        assert_eq!(request(&mut d, kind, 0, &data), (status, 1), "{kind} {bytes:x?}");
    }
    assert_eq!(request(&mut d, DISCARD, 0, &[]).0, IOERR);
    assert!(image.bytes() == content);
    assert_works(&mut d, &content);
}

#[test]
fn requests_of_features_that_were_not_taken_are_unsupported() {
    let content = pattern(DISK, 10);
    let image = TempImage::new(&content);
    let mut d = Driver::start(block(DiskOptions::new(&image.0)), F_DISCARD | 1 << 14);
    d.ram.write(DATA, &range(0, 8, 0)).unwrap();
    assert_eq!(request(&mut d, DISCARD, 0, &[(DATA, 16, false)]).0, UNSUPP);
    assert_eq!(request(&mut d, WRITE_ZEROES, 0, &[(DATA, 16, false)]).0, UNSUPP);
    assert!(image.bytes() == content);
}

#[test]
fn a_malformed_request_costs_nothing_but_itself() {
    let content = pattern(DISK, 11);
    let image = TempImage::new(&content);
    let mut d = Driver::start(block(DiskOptions::new(&image.0)), 0);
    // More often than the queue has entries: no slot may get lost.
    for _ in 0..400 {
        d.ram.write(HEADER, &header(IN, 0)).unwrap();
        // Header only; half a header; nothing to read; no bytes at all.
        for chain in [
            &[(HEADER, 16, false)][..],
            &[(HEADER, 8, false)],
            &[(DATA, 512, true)],
            &[(HEADER, 0, false)],
            &[(HEADER, 8, false), (STATUS, 1, true)],
        ] {
            let head = d.add(0, chain);
            d.notify(0);
            let (id, len) = d.wait_used(0);
            assert_eq!(id, u32::from(head));
            assert!(len <= 1);
        }
    }
    assert_works(&mut d, &content);
}

#[test]
fn a_read_only_disk_says_so_and_takes_no_writes() {
    let content = pattern(DISK, 12);
    let image = TempImage::new(&content);
    let options = DiskOptions { read_only: true, ..DiskOptions::new(&image.0) };
    let mut d = Driver::start(block(options), 0);
    assert_ne!(d.offered() & 1 << 5, 0, "RO is offered");
    assert_eq!(d.offered() & F_DISCARD, 0);
    assert_eq!(request(&mut d, OUT, 0, &[(DATA, 512, false)]).0, IOERR);
    d.ram.write(DATA, &range(0, 8, 0)).unwrap();
    assert_eq!(request(&mut d, WRITE_ZEROES, 0, &[(DATA, 16, false)]).0, UNSUPP);
    assert_eq!(request(&mut d, FLUSH, 0, &[]).0, OK);
    assert!(image.bytes() == content);
    assert_works(&mut d, &content);
}

#[test]
fn a_snapshot_keeps_writes_for_itself() {
    let content = pattern(DISK, 13);
    let image = TempImage::new(&content);
    let options = DiskOptions { snapshot: true, ..DiskOptions::new(&image.0) };
    let mut d = Driver::start(block(options), 0);
    let new = pattern(10 * 512, 14);
    write(&mut d, 3, &new);
    d.ram.write(DATA, &range(100, 9, 1)).unwrap();
    assert_eq!(request(&mut d, WRITE_ZEROES, 0, &[(DATA, 16, false)]), (OK, 1));
    let mut expected = content.clone();
    expected[3 * 512..13 * 512].copy_from_slice(&new);
    expected[100 * 512..109 * 512].fill(0);
    assert!(read(&mut d, 0, 1 << 20) == expected[..1 << 20]);
    assert!(image.bytes() == content, "the image has changed");
}

#[test]
fn qemu_img_sees_what_the_guest_wrote() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("qemu-img is not installed: nothing is compared");
        return;
    }
    let content = pattern(DISK, 15);
    let image = TempImage::new(&content);
    let mut d = Driver::start(block(DiskOptions::new(&image.0)), 0);
    let mut expected = content.clone();
    for i in 0..40u64 {
        let len = 512 * (1 + (i as usize * 7) % 60);
        let sector = (i * 397) % (DISK as u64 / 512 - 60);
        let data = pattern(len, i + 100);
        write(&mut d, sector, &data);
        expected[sector as usize * 512..][..len].copy_from_slice(&data);
    }
    d.ram.write(DATA, &range(1000, 333, 1)).unwrap();
    assert_eq!(request(&mut d, WRITE_ZEROES, 0, &[(DATA, 16, false)]), (OK, 1));
    expected[1000 * 512..1333 * 512].fill(0);
    assert_eq!(request(&mut d, FLUSH, 0, &[]), (OK, 1));
    drop(d);
    let reference = TempImage::new(&expected);
    let compared = Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "raw"])
        .args([&image.0, &reference.0])
        .output()
        .unwrap();
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
}

/// A backend that tells what is done to it, and can be held.
struct Probe {
    log: Mutex<Vec<&'static str>>,
    held: Mutex<bool>,
    released: Condvar,
    fail: bool,
}

impl Probe {
    fn new(held: bool, fail: bool) -> Arc<Self> {
        Arc::new(Self { log: Mutex::default(), held: Mutex::new(held), released: Condvar::new(), fail })
    }

    fn enter(&self, what: &'static str) -> std::io::Result<()> {
        self.log.lock().unwrap().push(what);
        let held = self.held.lock().unwrap();
        drop(self.released.wait_while(held, |h| *h).unwrap());
        if self.fail { Err(std::io::Error::other("the disk is on fire")) } else { Ok(()) }
    }

    fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.released.notify_all();
    }

    fn log(&self) -> Vec<&'static str> {
        self.log.lock().unwrap().clone()
    }
}

impl BlockBackend for Probe {
    fn size(&self) -> u64 {
        DISK as u64
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_at(&self, _: &[VolatileSlice<'_>], _: u64) -> std::io::Result<()> {
        self.enter("read")
    }
    fn write_at(&self, _: &[VolatileSlice<'_>], _: u64) -> std::io::Result<()> {
        self.enter("write")
    }
    fn flush(&self) -> std::io::Result<()> {
        self.enter("flush")
    }
    fn discard(&self, _: u64, _: u64) -> std::io::Result<()> {
        self.enter("discard")
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> std::io::Result<()> {
        self.enter("zero")
    }
}

#[test]
fn a_flush_completes_only_after_the_backends() {
    let probe = Probe::new(true, false);
    let mut d = Driver::start(device(probe.clone()), 0);
    d.ram.write(HEADER, &header(FLUSH, 0)).unwrap();
    d.add(0, &[(HEADER, 16, false), (STATUS, 1, true)]);
    d.notify(0);
    while probe.log().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(d.poll_used(0), None, "completed while the backend still flushes");
    assert!(!d.line.is_high());
    probe.release();
    d.wait_used(0);
    assert_eq!(probe.log(), ["flush"]);
}

#[test]
fn without_a_write_cache_every_write_is_flushed() {
    let probe = Probe::new(false, false);
    let mut d = Driver::start(device(probe.clone()), F_FLUSH);
    write(&mut d, 0, &[1; 512]);
    assert_eq!(probe.log(), ["write", "flush"]);

    let probe = Probe::new(false, false);
    let mut d = Driver::start(device(probe.clone()), 0);
    write(&mut d, 0, &[1; 512]);
    d.dev.write(mmio::CONFIG + 32, AccessSize::Byte, 0);
    assert_eq!(d.dev.read(mmio::CONFIG + 32, AccessSize::Byte), 0);
    write(&mut d, 0, &[1; 512]);
    assert_eq!(probe.log(), ["write", "write", "flush"]);
}

#[test]
fn host_errors_become_request_errors() {
    let mut d = Driver::start(device(Probe::new(false, true)), 0);
    assert_eq!(request(&mut d, IN, 0, &[(DATA, 512, true)]), (IOERR, 1));
    assert_eq!(request(&mut d, OUT, 0, &[(DATA, 512, false)]), (IOERR, 1));
    assert_eq!(request(&mut d, FLUSH, 0, &[]), (IOERR, 1));
}

#[test]
fn a_reset_waits_for_the_request_in_flight_and_drops_the_rest() {
    let probe = Probe::new(true, false);
    let mut d = Driver::start(device(probe.clone()), 0);
    d.ram.write(HEADER, &header(IN, 0)).unwrap();
    for _ in 0..3 {
        d.add(0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    }
    d.notify(0);
    while probe.log().is_empty() {
        std::thread::yield_now();
    }
    let dev = d.dev.clone();
    let resetting = std::thread::spawn(move || dev.write(mmio::STATUS, AccessSize::Word, 0));
    assert!(!resetting.is_finished());
    probe.release();
    resetting.join().unwrap();
    assert_eq!(d.reg(mmio::STATUS), 0);
    assert!(!d.line.is_high());
    let done = probe.log().len();
    d.notify(0);
    d.bring_up(0);
    assert_eq!(probe.log().len(), done, "requests from before the reset were done after it");
    assert_eq!(request(&mut d, FLUSH, 0, &[]), (OK, 1));
}

#[test]
fn a_quiet_device_keeps_what_it_is_told_for_later() {
    let probe = Probe::new(false, false);
    let mut d = Driver::start(device(probe.clone()), 0);
    d.dev.quiesce();
    d.ram.write(HEADER, &header(FLUSH, 0)).unwrap();
    d.add(0, &[(HEADER, 16, false), (STATUS, 1, true)]);
    d.notify(0);
    assert_eq!(d.poll_used(0), None);
    d.dev.resume();
    d.wait_used(0);
    assert_eq!(probe.log(), ["flush"]);
}

#[test]
fn shutdown_finishes_what_was_handed_over_but_not_beyond_its_deadline() {
    let probe = Probe::new(false, false);
    let mut d = Driver::start(device(probe.clone()), 0);
    d.ram.write(HEADER, &header(OUT, 0)).unwrap();
    d.dev.quiesce();
    for _ in 0..5 {
        d.add(0, &[(HEADER, 16, false), (DATA, 512, false), (STATUS, 1, true)]);
    }
    d.notify(0);
    assert!(d.dev.shutdown(Duration::from_secs(20)));
    assert_eq!(probe.log(), ["write"; 5]);
    d.notify(0);
    d.dev.reset();

    let probe = Probe::new(true, false);
    let mut d = Driver::start(device(probe.clone()), 0);
    d.add(0, &[(HEADER, 16, false), (STATUS, 1, true)]);
    d.ram.write(HEADER, &header(FLUSH, 0)).unwrap();
    d.notify(0);
    while probe.log().is_empty() {
        std::thread::yield_now();
    }
    assert!(!d.dev.shutdown(Duration::from_millis(10)));
    probe.release();
}
