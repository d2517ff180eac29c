use super::spec::*;
use super::*;
use crate::clock::{COUNTER_FREQUENCY, Clock};
use crate::testing::{Probe, Random};

struct Bench {
    gpio: Arc<Pl061>,
    line: Arc<Probe>,
    clock: Arc<Clock>,
    queue: Arc<TimerQueue>,
}

fn bench() -> Bench {
    let clock = Arc::new(Clock::manual(COUNTER_FREQUENCY));
    let queue = TimerQueue::new(Arc::clone(&clock));
    let line = Arc::new(Probe::default());
    Bench { gpio: Pl061::new(line.clone(), &queue), line, clock, queue }
}

impl Bench {
    fn r(&self, offset: u64) -> u8 {
        self.gpio.read(offset, AccessSize::Word) as u8
    }

    fn w(&self, offset: u64, value: u8) {
        self.gpio.write(offset, AccessSize::Word, u64::from(value));
    }
}

/// Address of the data register that sees the lines in `mask`.
fn data(mask: u8) -> u64 {
    u64::from(mask) << 2
}

#[test]
fn identifies_itself() {
    let b = bench();
    let ids: Vec<u8> = (0..8).map(|i| b.r(0xfe0 + 4 * i)).collect();
    assert_eq!(ids, [0x61, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    for offset in (DIR..=AFSEL).step_by(4) {
        assert_eq!(b.r(offset), 0, "{offset:#x} at reset");
    }
}

#[test]
fn data_accesses_are_masked_by_address() {
    let b = bench();
    b.w(DIR, 0xff);
    b.w(data(0xff), 0xa5);
    assert_eq!(b.r(data(0xff)), 0xa5);
    assert_eq!(b.r(data(0x0f)), 0x05);
    b.w(data(0xc4), 0x66);
    assert_eq!(b.r(data(0xff)), 0x65);
    assert_eq!(b.r(data(0)), 0);
    assert_eq!(b.gpio.read(data(0xff), AccessSize::Byte), 0x65);
}

#[test]
fn inputs_and_outputs() {
    let b = bench();
    b.gpio.set_input(1, true);
    b.gpio.set_input(9, true);
    assert_eq!(b.r(data(0xff)), 2);
    b.w(data(0xff), 0xf0);
    assert_eq!(b.r(data(0xff)), 2, "inputs do not take what is written");
    b.w(DIR, 0xf2);
    assert_eq!(b.r(data(0xff)), 0xf0, "an output shows what was written");
}

#[test]
fn edges() {
    // (IBE, IEV, interrupt on rise, on fall)
    for (both, event, rise, fall) in [(0, 0, false, true), (0, 8, true, false), (8, 0, true, true)] {
        let b = bench();
        b.w(IBE, both);
        b.w(IEV, event);
        b.w(IE, 8);
        b.gpio.set_input(3, true);
        assert_eq!(b.line.level(), rise);
        assert_eq!(b.r(RIS), if rise { 8 } else { 0 });
        b.w(IC, 8);
        assert!(!b.line.level());
        b.gpio.set_input(3, false);
        assert_eq!(b.line.level(), fall);
        b.w(IC, 0xf7);
        assert_eq!(b.line.level(), fall, "other lines' clears");
        b.w(IE, 0);
        assert!(!b.line.level());
        assert_eq!((b.r(RIS), b.r(MIS)), (if fall { 8 } else { 0 }, 0));
    }
}

#[test]
fn levels() {
    let b = bench();
    b.w(IS, 8);
    b.w(IEV, 8);
    b.w(IE, 8);
    assert!(!b.line.level());
    b.gpio.set_input(3, true);
    assert!(b.line.level());
    b.w(IC, 8);
    assert!(b.line.level(), "a level cannot be cleared");
    b.gpio.set_input(3, false);
    assert!(!b.line.level());
    b.w(IEV, 0);
    assert!(b.line.level(), "low counts now");
}

#[test]
fn power_key_is_pressed_and_let_go() {
    let b = bench();
    b.w(IBE, 8);
    b.w(IE, 8);
    b.gpio.press_power_button();
    assert!(b.line.level());
    assert_eq!(b.r(data(8)), 8);
    b.w(IC, 8);
    b.clock.advance(Pl061::PRESS_NS - 1);
    b.queue.run_expired();
    assert_eq!(b.r(data(8)), 8);
    b.clock.advance(1);
    b.queue.run_expired();
    assert_eq!(b.r(data(8)), 0);
    assert!(b.line.level());
    b.gpio.reset();
    assert!(!b.line.level());
}

#[test]
fn survives_random_accesses() {
    let b = bench();
    let mut random = Random::seeded("pl061");
    for _ in 0..50_000 {
        let offset = match random.below(8) {
            0 => random.next(),
            1 => data(0xff),
            _ => DIR + random.below(0x28),
        };
        let size = AccessSize::from_log2(random.below(4) as u32);
        match random.below(3) {
            0 => b.gpio.write(offset, size, random.next()),
            1 => {
                b.gpio.read(offset, size);
            }
            _ => b.gpio.set_input(random.next() as u8 % 10, random.below(2) == 0),
        }
        assert_eq!(b.line.level(), b.r(MIS) != 0);
        assert_eq!(b.r(MIS), b.r(RIS) & b.r(IE));
    }
}

#[test]
fn a_restored_one_goes_on_as_the_saved_one_does() {
    let mut random = Random::seeded("pl061 saved");
    let registers = [DIR, IS, IBE, IEV, IE, RIS, MIS, IC, AFSEL, data(0xff), data(0x0f), data(0x88)];
    let act = |b: &Bench, what: u64, value: u64| {
        let offset = registers[(value >> 8) as usize % registers.len()];
        match what {
            0 => b.gpio.set_input((value >> 16) as u8 % 8, value & 1 != 0),
            1 => b.gpio.press_power_button(),
            2 => {
                b.clock.advance(value % (Pl061::PRESS_NS / 2));
                b.queue.run_expired();
            }
            _ => b.w(offset, value as u8),
        }
        (registers.map(|offset| b.r(offset)), b.line.level())
    };
    for _ in 0..100 {
        let (one, other) = (bench(), bench());
        for b in [&one, &other] {
            for _ in 0..random.below(50) {
                act(b, random.below(8), random.next());
            }
        }
        let saved = one.gpio.save();
        other.gpio.restore(&saved);
        assert_eq!(other.gpio.save(), saved);
        for _ in 0..100 {
            let (what, value) = (random.below(8), random.next());
            assert_eq!(act(&one, what, value), act(&other, what, value), "{what} {value:#x}");
        }
    }
}
