//! Devices that are saved and restored under a driver that does not notice.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use armlet_saved::SavedVirtio;
use armlet_storage::DiskOptions;
use armlet_virtio::spec::feature;
use armlet_virtio::{Console, ConsoleSink, Entropy, Service, VirtioDevice};
use common::disk::{self, DATA, DISK, HEADER, OK, OUT, STATUS, TempImage, header, pattern};
use common::*;

fn storage(image: &TempImage) -> Arc<dyn armlet_storage::BlockBackend> {
    DiskOptions::new(&image.0).open().unwrap().backend
}

/// Saves the device, and restores it as `device` in another machine with the same memory.
fn transplant(d: &mut Driver, device: Arc<dyn VirtioDevice>) -> SavedVirtio {
    d.dev.quiesce();
    let text = serde_json::to_string(&d.dev.save()).unwrap();
    let mut memory = vec![0; RAM_SIZE as usize];
    d.ram.read(RAM_BASE, &mut memory).unwrap();
    let other = Driver::new(device);
    other.ram.write(RAM_BASE, &memory).unwrap();
    let saved = serde_json::from_str(&text).unwrap();
    other.dev.restore(&saved).unwrap();
    assert_eq!(other.dev.save(), saved, "what is saved again is the same");
    assert_eq!(other.line.is_high(), d.line.is_high());
    d.dev.reset();
    assert!(d.dev.shutdown(Duration::from_secs(20)));
    other.dev.resume();
    (d.ram, d.dev, d.line) = (other.ram, other.dev, other.line);
    saved
}

#[test]
fn requests_go_on_where_they_were() {
    for (service, without) in
        [(Service::Threaded, 0), (Service::Immediate, 0), (Service::Threaded, feature::EVENT_IDX)]
    {
        let image = TempImage::new(&vec![0; DISK]);
        let mut d = Driver::start(disk::served(storage(&image), service), without);
        for round in 0..120_u64 {
            if round % 11 == 3 {
                transplant(&mut d, disk::served(unlocked(&image), service));
            }
            disk::write(&mut d, round, &pattern(512, round + 1));
        }
        for round in 0..120 {
            assert_eq!(disk::read(&mut d, round, 512), pattern(512, round + 1));
        }
    }
}

/// A second way to the image of a disk that another device still has open and locked.
fn unlocked(image: &TempImage) -> Arc<dyn armlet_storage::BlockBackend> {
    let file = std::fs::File::options().read(true).write(true).open(&image.0).unwrap();
    Arc::new(armlet_storage::RawImage::new(file, DISK as u64, false))
}

#[test]
fn what_was_notified_while_quiet_is_done_after_the_restore() {
    let image = TempImage::new(&vec![0; DISK]);
    let mut d = Driver::start(disk::device(storage(&image)), 0);
    d.dev.quiesce();
    d.ram.write(HEADER, &header(OUT, 9)).unwrap();
    d.ram.write(DATA, &pattern(512, 5)).unwrap();
    d.add(0, &[(HEADER, 16, false), (DATA, 512, false), (STATUS, 1, true)]);
    d.notify(0);
    transplant(&mut d, disk::device(unlocked(&image)));
    d.wait_used(0);
    assert_eq!(d.bytes(STATUS, 1), [OK]);
    assert_eq!(image.bytes()[9 * 512..10 * 512], pattern(512, 5));
}

#[derive(Default)]
struct Terminal {
    text: Mutex<Vec<u8>>,
    room: Mutex<usize>,
}

impl ConsoleSink for Terminal {
    fn write(&self, bytes: &[u8], wait: Duration) -> usize {
        let n = {
            let mut room = self.room.lock().unwrap();
            let n = bytes.len().min(*room);
            *room -= n;
            n
        };
        self.text.lock().unwrap().extend(&bytes[..n]);
        if n == 0 {
            std::thread::sleep(wait.min(Duration::from_millis(1)));
        }
        n
    }
}

#[test]
fn a_console_in_the_middle_of_a_line_loses_and_repeats_nothing() {
    let terminal = Arc::new(Terminal::default());
    let console = || Arc::new(Console::new(terminal.clone(), Box::new(|| {})).unwrap());
    let first = console();
    let mut d = Driver::start(first.clone(), 0);
    first.resize(132, 43);
    assert_eq!(first.receive(b"typed ahead"), 11);
    let text = pattern(3000, 7);
    d.ram.write(BUFFERS, &text).unwrap();
    d.add(1, &[(BUFFERS, 1000, false), (BUFFERS + 1000, 2000, false)]);
    d.notify(1);
    let mut shown = 0;
    for step in [1, 0, 999, 500, 700] {
        *terminal.room.lock().unwrap() = step;
        shown += step;
        while terminal.text.lock().unwrap().len() < shown {
            std::thread::yield_now();
        }
        let saved = transplant(&mut d, console());
        assert_eq!((saved.queues[1].done, saved.queues[1].next_available), (shown as u64, 0));
        assert_eq!(d.poll_used(1), None);
    }
    *terminal.room.lock().unwrap() = usize::MAX;
    d.wait_used(1);
    assert_eq!(*terminal.text.lock().unwrap(), text);
    assert_eq!(d.reg(armlet_virtio::spec::mmio::CONFIG), 132 | 43 << 16);
    d.add(0, &[(BUFFERS, 64, true)]);
    d.notify(0);
    assert_eq!(d.wait_used(0).1, 11);
    assert_eq!(d.bytes(BUFFERS, 11), b"typed ahead");
}

#[test]
fn a_driver_that_has_come_half_way_goes_on() {
    let mut d = Driver::new(Arc::new(Entropy::new().unwrap()));
    d.negotiate(0);
    transplant(&mut d, Arc::new(Entropy::new().unwrap()));
    d.set_up_ring(0, 8);
    transplant(&mut d, Arc::new(Entropy::new().unwrap()));
    d.set(armlet_virtio::spec::mmio::STATUS, 15);
    d.add(0, &[(BUFFERS, 64, true)]);
    d.notify(0);
    assert_eq!(d.wait_used(0).1, 64);
    // One that waits for its reset still does.
    d.put_u16(d.rings[0].avail + 2, 999);
    d.notify(0);
    d.wait_broken();
    transplant(&mut d, Arc::new(Entropy::new().unwrap()));
    d.wait_broken();
    d.bring_up(0);
    d.add(0, &[(BUFFERS, 32, true)]);
    d.notify(0);
    assert_eq!(d.wait_used(0).1, 32);
}

#[test]
fn what_does_not_fit_is_named() {
    let entropy = || Arc::new(Entropy::new().unwrap());
    let d = Driver::start(entropy(), 0);
    d.dev.quiesce();
    let saved = d.dev.save();
    let refused = |device: Arc<dyn VirtioDevice>, change: fn(&mut SavedVirtio)| {
        let mut saved = saved.clone();
        change(&mut saved);
        Driver::new(device).dev.restore(&saved).unwrap_err().to_string()
    };
    let image = TempImage::new(&vec![0; DISK]);
    let block = disk::device(storage(&image));
    assert_eq!(refused(block, |_| {}), "disk0: it was a virtio device 4 and is a 2");
    for (text, change) in [
        ("features", (|s| s.offered |= 1) as fn(&mut SavedVirtio)),
        ("queues", |s| s.queues.clear()),
        ("status", |s| s.status = 64),
        ("status", |s| s.status = 4),
        ("status", |s| s.causes = 4),
        ("its features cannot be", |s| s.driver_features = 1),
        ("rings", |s| s.queues[0].available = 1),
        ("rings", |s| s.queues[0].size = 9),
        ("rings", |s| s.queues[0].descriptors = 0),
    ] {
        let error = refused(entropy(), change);
        assert!(error.contains(text), "{text}: {error}");
    }
    // Any place in a queue is one that a driver can bring about.
    let mut strange = saved.clone();
    strange.queues[0].next_available = 7777;
    strange.queues[0].done = u64::MAX;
    let other = Driver::new(entropy());
    other.dev.restore(&strange).unwrap();
    other.dev.resume();
    other.wait_broken();
    assert!(other.dev.shutdown(Duration::from_secs(20)));
}
