//! The console device.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use armlet_memory::AccessSize;
use armlet_virtio::spec::{feature, mmio};
use armlet_virtio::{Console, ConsoleSink};
use common::*;

/// Keeps what it is given, up to a limit that can be raised.
struct Terminal {
    state: Mutex<(Vec<u8>, usize)>,
    raised: Condvar,
}

impl Terminal {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((Vec::new(), limit)), raised: Condvar::new() })
    }

    fn raise(&self, limit: usize) {
        self.state.lock().unwrap().1 = limit;
        self.raised.notify_all();
    }

    fn text(&self) -> Vec<u8> {
        self.state.lock().unwrap().0.clone()
    }
}

impl ConsoleSink for Terminal {
    fn write(&self, bytes: &[u8], wait: Duration) -> usize {
        let state = self.state.lock().unwrap();
        let (mut state, _) = self.raised.wait_timeout_while(state, wait, |s| s.0.len() >= s.1).unwrap();
        let n = bytes.len().min(state.1 - state.0.len()).min(7);
        state.0.extend_from_slice(&bytes[..n]);
        n
    }
}

struct Rig {
    console: Arc<Console>,
    terminal: Arc<Terminal>,
    room: Arc<AtomicUsize>,
    d: Driver,
}

impl Rig {
    fn new(limit: usize, without: u64) -> Self {
        let terminal = Terminal::new(limit);
        let room = Arc::new(AtomicUsize::new(0));
        let count = room.clone();
        let on_room = Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let console = Arc::new(Console::new(terminal.clone(), on_room).unwrap());
        let d = Driver::start(console.clone(), without);
        Self { console, terminal, room, d }
    }

    /// Gives the device a buffer for input; tells it if asked to.
    fn post(&mut self, len: u32) {
        self.d.add(0, &[(BUFFERS, len, true)]);
        self.d.notify(0);
    }

    fn input(&mut self) -> Vec<u8> {
        let (_, len) = self.d.wait_used(0);
        self.d.bytes(BUFFERS, len as usize)
    }
}

#[test]
fn output_comes_out_in_order() {
    for without in [0, feature::EVENT_IDX] {
        let mut r = Rig::new(usize::MAX, without);
        let mut expected = Vec::new();
        for i in 0..200u32 {
            let text = format!("line {i} of some output\n");
            r.d.ram.write(BUFFERS, text.as_bytes()).unwrap();
            r.d.add(1, &[(BUFFERS, 4, false), (BUFFERS + 4, text.len() as u32 - 4, false)]);
            r.d.notify(1);
            assert_eq!(r.d.wait_used(1).1, 0);
            expected.extend(text.bytes());
        }
        assert_eq!(r.terminal.text(), expected);
    }
}

#[test]
fn a_driver_that_looks_for_itself_is_not_interrupted() {
    let mut r = Rig::new(usize::MAX, 0);
    let interrupts = r.d.line.edges();
    for _ in 0..2000 {
        r.d.add(1, &[(BUFFERS, 1, false)]);
        r.d.notify(1);
        let end = Instant::now() + Duration::from_secs(20);
        while r.d.poll_used(1).is_none() {
            assert!(Instant::now() < end, "no used element");
        }
        r.d.acknowledge();
    }
    let interrupts = r.d.line.edges() - interrupts;
    // Now and then the host has something else to do in between.
    assert!(interrupts < 200, "{interrupts}");
    // Who does not look is told.
    for _ in 0..20 {
        r.d.add(1, &[(BUFFERS, 1, false)]);
        r.d.notify(1);
        r.d.line.wait_high();
        assert_eq!(r.d.acknowledge(), 1);
        assert!(r.d.poll_used(1).is_some());
    }
}

#[test]
fn a_driver_has_been_told_all_when_the_device_is_quiet() {
    let mut r = Rig::new(usize::MAX, 0);
    for _ in 0..50 {
        r.d.add(1, &[(BUFFERS, 1, false)]);
        r.d.notify(1);
        r.d.dev.quiesce();
        let told = r.d.line.is_high();
        let done = r.d.poll_used(1).is_some();
        assert_eq!(told, done);
        r.d.dev.resume();
        if !done {
            r.d.wait_used(1);
        }
        r.d.acknowledge();
    }
}

#[test]
fn input_waits_for_buffers_and_buffers_for_input() {
    for without in [0, feature::EVENT_IDX] {
        let mut r = Rig::new(0, without);
        assert_eq!(r.console.receive(b"early"), 5);
        r.post(3);
        assert_eq!(r.input(), b"ear");
        r.post(10);
        assert_eq!(r.input(), b"ly");
        r.post(10);
        assert_eq!(r.d.poll_used(0), None);
        assert_eq!(r.console.receive(b"late"), 4);
        assert_eq!(r.input(), b"late");
    }
}

#[test]
fn input_survives_the_drivers_reset() {
    let mut r = Rig::new(0, 0);
    assert_eq!(r.console.receive(b"typed ahead"), 11);
    r.d.bring_up(0);
    r.post(100);
    assert_eq!(r.input(), b"typed ahead");
}

#[test]
fn a_guest_that_does_not_read_stops_the_hosts_writer() {
    let mut r = Rig::new(0, 0);
    let flood = vec![b'y'; 100_000];
    let taken = r.console.receive(&flood);
    assert!(taken > 0 && taken < 10_000, "{taken}");
    assert_eq!(r.console.receive(&flood), 0);
    assert_eq!(r.room.load(Ordering::SeqCst), 0);
    r.post(1000);
    assert_eq!(r.input().len(), 1000);
    assert_eq!(r.room.load(Ordering::SeqCst), 1, "told once that there is room");
    assert_eq!(r.console.receive(&flood), 1000);
}

#[test]
fn a_host_that_does_not_read_stops_the_guests_writer() {
    let mut r = Rig::new(10, 0);
    r.d.ram.write(BUFFERS, &[b'y'; 64]).unwrap();
    for _ in 0..8 {
        r.d.add(1, &[(BUFFERS, 64, false)]);
    }
    r.d.notify(1);
    // A reset does not wait for the reader; nor does pausing.
    r.d.dev.quiesce();
    assert_eq!(r.d.poll_used(1), None);
    r.d.dev.resume();
    r.d.dev.quiesce();
    let before = r.terminal.text().len();
    assert!(before <= 10);
    r.d.dev.resume();
    r.terminal.raise(8 * 64);
    for _ in 0..8 {
        r.d.wait_used(1);
    }
    assert_eq!(r.terminal.text().len(), 8 * 64, "nothing lost and nothing twice");

    for _ in 0..8 {
        r.d.add(1, &[(BUFFERS, 64, false)]);
    }
    r.d.notify(1);
    r.d.bring_up(0);
    r.terminal.raise(usize::MAX);
    r.d.ram.write(BUFFERS, b"new").unwrap();
    r.d.add(1, &[(BUFFERS, 3, false)]);
    r.d.notify(1);
    r.d.wait_used(1);
    assert!(r.terminal.text().ends_with(b"new"));
}

#[test]
fn a_new_size_is_told_by_a_configuration_change() {
    let r = Rig::new(0, 0);
    let generation = r.d.reg(mmio::CONFIG_GENERATION);
    r.console.resize(132, 43);
    assert_eq!(r.d.acknowledge(), 2);
    assert_ne!(r.d.reg(mmio::CONFIG_GENERATION), generation);
    assert_eq!(r.d.dev.read(mmio::CONFIG, AccessSize::Half), 132);
    assert_eq!(r.d.dev.read(mmio::CONFIG + 2, AccessSize::Half), 43);
    r.console.resize(132, 43);
    assert!(!r.d.line.is_high(), "no change, no interrupt");

    let r = Rig::new(0, 1);
    r.console.resize(132, 43);
    assert!(!r.d.line.is_high(), "a driver that does not know sizes is left alone");
}

#[test]
fn a_driver_that_breaks_the_rules_of_a_queue_has_to_reset() {
    for queue in [0, 1] {
        let mut r = Rig::new(usize::MAX, 0);
        let desc = r.d.rings[queue].desc;
        r.d.put_desc(
            desc,
            0,
            Desc { addr: BUFFERS, len: 1, flags: NEXT | if queue == 0 { WRITE } else { 0 }, next: 0 },
        );
        r.d.make_available(queue, 0);
        r.d.notify(queue);
        r.console.receive(b"x");
        r.d.wait_broken();
        r.d.bring_up(0);
        r.post(8);
        assert_eq!(r.input(), b"x");
        r.d.add(1, &[(BUFFERS, 1, false)]);
        r.d.notify(1);
        r.d.wait_used(1);
        assert_eq!(r.terminal.text(), b"x");
    }
}

#[test]
fn shutdown_ends_although_nobody_reads() {
    let mut r = Rig::new(0, 0);
    r.d.add(1, &[(BUFFERS, 64, false)]);
    r.d.notify(1);
    let _ = r.d.dev.shutdown(Duration::from_millis(20));
    assert_eq!(r.d.poll_used(1), None);
    assert!(r.d.dev.shutdown(Duration::from_secs(20)));
}
