use std::sync::atomic::{AtomicU64, Ordering};

use super::spec::*;
use super::*;
use crate::clock::{COUNTER_FREQUENCY, Clock};
use crate::testing::{Probe, Random};

const SECOND: u64 = 1_000_000_000;

struct Bench {
    rtc: Arc<Pl031>,
    line: Arc<Probe>,
    clock: Arc<Clock>,
    queue: Arc<TimerQueue>,
    wall: Arc<AtomicU64>,
}

fn bench() -> Bench {
    let clock = Arc::new(Clock::manual(COUNTER_FREQUENCY));
    let queue = TimerQueue::new(Arc::clone(&clock));
    let wall = Arc::new(AtomicU64::new(1_700_000_000 * SECOND + SECOND / 4));
    let line = Arc::new(Probe::default());
    let source = Arc::clone(&wall);
    let now: WallClock = Box::new(move || Duration::from_nanos(source.load(Ordering::SeqCst)));
    Bench { rtc: Pl031::new(line.clone(), &queue, now), line, clock, queue, wall }
}

impl Bench {
    fn pass(&self, ns: u64) {
        self.wall.fetch_add(ns, Ordering::SeqCst);
        self.clock.advance(ns);
        self.queue.run_expired();
    }

    fn r(&self, offset: u64) -> u32 {
        self.rtc.read(offset, AccessSize::Word) as u32
    }

    fn w(&self, offset: u64, value: u32) {
        self.rtc.write(offset, AccessSize::Word, u64::from(value));
    }
}

#[test]
fn tells_the_time() {
    let b = bench();
    assert_eq!(b.r(DR), 1_700_000_000);
    b.pass(SECOND / 2);
    assert_eq!(b.r(DR), 1_700_000_000);
    b.pass(SECOND / 4);
    assert_eq!(b.r(DR), 1_700_000_001);
    assert_eq!(b.r(CR), 1, "running");
    b.w(CR, 0);
    assert_eq!(b.r(CR), 1, "cannot be stopped");
    let ids: Vec<u32> = (0..8).map(|i| b.r(0xfe0 + 4 * i)).collect();
    assert_eq!(ids, [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    let host = Pl031::new(b.line.clone(), &b.queue, host_wall_clock());
    assert!(host.read(DR, AccessSize::Word) > 1_700_000_000);
    let wall = machine_wall_clock(Duration::from_secs(1000), Arc::clone(&b.clock));
    let machine = Pl031::new(b.line.clone(), &b.queue, wall);
    let before = machine.read(DR, AccessSize::Word);
    b.pass(7 * SECOND);
    assert_eq!((before, machine.read(DR, AccessSize::Word)), (1000, 1007));
}

#[test]
fn can_be_set() {
    let b = bench();
    b.w(LR, 1000);
    assert_eq!((b.r(DR), b.r(LR)), (1000, 1000));
    b.pass(5 * SECOND);
    assert_eq!(b.r(DR), 1005);
    b.w(LR, u32::MAX);
    b.pass(SECOND);
    assert_eq!(b.r(DR), 0, "wraps");
    b.rtc.reset();
    assert_eq!(b.r(DR), 0, "kept over reset");
}

#[test]
fn matches_at_the_start_of_the_second() {
    let b = bench();
    b.w(IMSC, 1);
    b.w(MR, 1_700_000_003);
    b.pass(2 * SECOND + SECOND / 2);
    assert_eq!((b.r(RIS), b.line.level()), (0, false));
    b.pass(SECOND / 4);
    assert_eq!((b.r(RIS), b.r(MIS), b.line.level()), (1, 1, true));
    b.w(IMSC, 0);
    assert_eq!((b.r(RIS), b.r(MIS), b.line.level()), (1, 0, false));
    b.w(IMSC, 1);
    assert!(b.line.level());
    b.w(ICR, 1);
    assert_eq!((b.r(RIS), b.line.level()), (0, false));
    b.pass(SECOND);
    assert_eq!(b.r(RIS), 0, "once");
    b.w(MR, b.r(DR));
    assert_eq!(b.r(RIS), 1, "now is a match");
}

#[test]
fn setting_the_time_moves_the_match() {
    let b = bench();
    b.w(MR, 1_700_000_100);
    b.w(LR, 1_700_000_098);
    b.pass(2 * SECOND);
    assert_eq!(b.r(RIS), 1);
}

#[test]
fn a_match_in_a_pause_comes_at_resumption() {
    let b = bench();
    b.w(IMSC, 1);
    b.w(MR, 1_700_000_002);
    b.queue.pause();
    b.pass(10 * SECOND);
    assert!(!b.line.level());
    b.queue.resume();
    b.pass(2 * SECOND);
    assert!(b.line.level());
}

#[test]
fn survives_random_accesses() {
    let b = bench();
    let mut random = Random::seeded("pl031");
    for _ in 0..20_000 {
        let offset = if random.below(8) == 0 { random.next() } else { random.below(0x24) };
        let size = AccessSize::from_log2(random.below(4) as u32);
        match random.below(3) {
            0 => b.rtc.write(offset, size, random.next() >> random.below(64)),
            1 => {
                b.rtc.read(offset, size);
            }
            _ => b.pass(random.next() % SECOND),
        }
        assert_eq!(b.line.level(), b.r(MIS) == 1);
        assert_eq!(b.r(MIS), b.r(RIS) & b.r(IMSC));
    }
}

#[test]
fn a_restored_one_goes_on_as_the_saved_one_does() {
    let mut random = Random::seeded("pl031 saved");
    let registers = [DR, MR, LR, CR, IMSC, RIS, MIS];
    let act = |b: &Bench, what: u64, value: u64| {
        let near = b.r(DR).wrapping_add(value as u32 % 5).wrapping_sub(1);
        match what {
            0 => b.w(MR, near),
            1 => b.w(LR, value as u32),
            2 => b.w(IMSC, value as u32),
            3 => b.w(ICR, value as u32),
            _ => b.pass(value % (2 * SECOND)),
        }
        (registers.map(|offset| b.r(offset)), b.line.level())
    };
    for _ in 0..100 {
        let (one, other) = (bench(), bench());
        for b in [&one, &other] {
            for _ in 0..random.below(30) {
                act(b, random.below(6), random.next());
            }
        }
        // It goes on in another place at the same time of day.
        other.wall.store(one.wall.load(Ordering::SeqCst), Ordering::SeqCst);
        let saved = one.rtc.save();
        other.rtc.restore(&saved).unwrap();
        assert_eq!(other.rtc.save(), saved);
        for _ in 0..60 {
            let (what, value) = (random.below(6), random.next());
            assert_eq!(act(&one, what, value), act(&other, what, value), "{what} {value:#x}");
        }
    }
    let b = bench();
    let saved = SavedRtc { mask: 2, ..b.rtc.save() };
    assert!(b.rtc.restore(&saved).is_err());
}
