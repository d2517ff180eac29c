use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::spec::*;
use super::*;
use crate::testing::{Probe, Random};

/// Takes up to a limit; what it took can be looked at.
#[derive(Default)]
struct Sink {
    taken: Mutex<Vec<u8>>,
    blocked: Mutex<bool>,
}

impl CharSink for Sink {
    fn write(&self, bytes: &[u8]) -> usize {
        if *lock(&self.blocked) {
            return 0;
        }
        lock(&self.taken).extend(bytes);
        bytes.len()
    }
}

struct Bench {
    uart: Pl011,
    line: Arc<Probe>,
    sink: Arc<Sink>,
}

fn bench() -> Bench {
    let (line, sink) = (Arc::new(Probe::default()), Arc::new(Sink::default()));
    Bench { uart: Pl011::new("uart0", line.clone(), sink.clone()), line, sink }
}

impl Bench {
    fn read(&self, offset: u64) -> u32 {
        self.uart.read(offset, AccessSize::Word) as u32
    }

    fn write(&self, offset: u64, value: u32) {
        self.uart.write(offset, AccessSize::Word, u64::from(value));
    }

    fn flags(&self) -> Flags {
        Flags::from_bits_truncate(self.read(FR))
    }

    fn raw(&self) -> Interrupts {
        Interrupts::from_bits_truncate(self.read(RIS))
    }
}

#[test]
fn identifies_itself() {
    let b = bench();
    let ids: Vec<u32> = (0..8).map(|i| b.read(0xfe0 + 4 * i)).collect();
    assert_eq!(ids, [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn reset_values() {
    let b = bench();
    assert_eq!(b.read(IFLS), 0x12);
    assert_eq!(b.read(CR), 0x301);
    assert_eq!(b.read(IMSC), 0);
    assert_eq!(b.read(RIS), 0);
    assert_eq!(
        b.flags() & (Flags::RXFE | Flags::TXFE | Flags::TXFF | Flags::RXFF),
        Flags::RXFE | Flags::TXFE
    );
    b.write(IBRD, 0xffff_ffff);
    b.write(FBRD, 0xffff_ffff);
    b.write(LCR_H, 0xffff_ffff);
    assert_eq!((b.read(IBRD), b.read(FBRD), b.read(LCR_H)), (0xffff, 0x3f, 0xff));
    b.uart.reset();
    assert_eq!((b.read(IBRD), b.read(FBRD), b.read(LCR_H)), (0, 0, 0));
}

#[test]
fn sends_what_is_written() {
    let b = bench();
    for c in b"hello" {
        b.write(DR, u32::from(*c));
    }
    assert_eq!(&*lock(&b.sink.taken), b"hello");
    assert!(b.flags().contains(Flags::TXFE));
    assert!(!b.flags().contains(Flags::BUSY));
}

#[test]
fn byte_accesses_reach_the_data_register() {
    let b = bench();
    b.uart.write(DR, AccessSize::Byte, 0x1241);
    assert_eq!(&*lock(&b.sink.taken), b"A");
    assert_eq!(b.uart.receive(b"z"), 1);
    assert_eq!(b.uart.read(DR + 1, AccessSize::Byte), 0, "between registers: nothing, no side effect");
    assert_eq!(b.uart.read(DR, AccessSize::Byte), u64::from(b'z'));
}

#[test]
fn held_input_waits_for_the_driver() {
    let b = bench();
    b.uart.hold_input_for_driver();
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    b.uart.set_input_ready(Box::new(move || tell.store(true, Ordering::SeqCst)));
    assert_eq!(b.uart.receive(b"ab"), 0);
    assert_eq!(b.read(DR), 0, "nothing for a driver that drains");
    assert!(!told.load(Ordering::SeqCst));
    b.write(IMSC, (Interrupts::RT | Interrupts::RX).bits());
    assert_eq!(b.uart.receive(b"a"), 0, "nor for one that drains after the first unmasking");
    b.write(IMSC, Interrupts::RT.bits());
    assert!(told.load(Ordering::SeqCst));
    assert_eq!(b.uart.receive(b"a"), 1);
    b.uart.reset();
    assert_eq!(b.uart.receive(b"b"), 0, "the next driver likewise");
}

#[test]
fn transmitter_off_keeps_characters() {
    let b = bench();
    b.write(CR, (Control::UARTEN | Control::RXE).bits());
    b.write(DR, u32::from(b'x'));
    assert!(lock(&b.sink.taken).is_empty());
    assert!(b.flags().contains(Flags::BUSY | Flags::TXFF), "one-character register is full");
    b.write(CR, CR_RESET.bits());
    assert_eq!(&*lock(&b.sink.taken), b"x");
}

#[test]
fn transmit_interrupt_follows_a_blocked_sink() {
    let b = bench();
    b.write(LCR_H, LCR_H_FEN);
    b.write(IMSC, Interrupts::TX.bits());
    assert!(!b.line.level(), "no transmit interrupt before anything was sent");
    *lock(&b.sink.blocked) = true;
    for i in 0..FIFO_DEPTH as u32 {
        assert!(!b.flags().contains(Flags::TXFF));
        b.write(DR, i);
    }
    assert!(b.flags().contains(Flags::TXFF | Flags::BUSY));
    assert!(!b.flags().contains(Flags::TXFE));
    b.write(DR, 0xee);
    assert!(!b.line.level());
    *lock(&b.sink.blocked) = false;
    b.uart.transmit_ready();
    assert!(b.line.level());
    assert_eq!(*lock(&b.sink.taken), (0..32).collect::<Vec<u8>>(), "the 33rd was lost, in order otherwise");
    b.write(ICR, Interrupts::TX.bits());
    assert!(!b.line.level());
}

#[test]
fn receive_levels() {
    for (select, trigger) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28)] {
        let b = bench();
        b.write(LCR_H, LCR_H_FEN);
        b.write(IFLS, select << 3);
        b.write(IMSC, Interrupts::RX.bits());
        for i in 1..=FIFO_DEPTH {
            assert_eq!(b.uart.receive(&[i as u8]), 1);
            assert_eq!(b.line.level(), i >= trigger, "IFLS {select}, {i} characters");
        }
        assert!(b.flags().contains(Flags::RXFF));
        for left in (0..FIFO_DEPTH).rev() {
            assert_eq!(b.read(DR), (FIFO_DEPTH - left) as u32);
            assert_eq!(b.line.level(), left >= trigger, "IFLS {select}, {left} left");
        }
        assert!(b.flags().contains(Flags::RXFE));
    }
}

#[test]
fn receive_timeout_covers_fewer_than_the_level() {
    let b = bench();
    b.write(LCR_H, LCR_H_FEN);
    b.write(IMSC, Interrupts::RT.bits());
    assert_eq!(b.uart.receive(b"ab"), 2);
    assert_eq!(b.raw(), Interrupts::RT);
    assert!(b.line.level());
    assert_eq!(b.read(DR), u32::from(b'a'));
    assert!(b.line.level(), "until the FIFO is empty");
    assert_eq!(b.read(DR), u32::from(b'b'));
    assert!(!b.line.level());
}

#[test]
fn masks_and_clears() {
    let b = bench();
    assert_eq!(b.uart.receive(b"a"), 1);
    assert_eq!(b.raw(), Interrupts::RX | Interrupts::RT);
    assert_eq!(b.read(MIS), 0);
    b.write(IMSC, Interrupts::RX.bits());
    assert_eq!(b.read(MIS), Interrupts::RX.bits());
    assert!(b.line.level());
    b.write(ICR, Interrupts::RX.bits());
    assert_eq!(b.raw(), Interrupts::RT);
    assert!(!b.line.level());
}

#[test]
fn without_fifos_holds_one_character() {
    let b = bench();
    assert_eq!(b.uart.receive(b"abc"), 1);
    assert!(b.flags().contains(Flags::RXFF));
    assert_eq!(b.read(DR), u32::from(b'a'));
}

#[test]
fn tells_when_input_fits_again() {
    let b = bench();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    b.uart.set_input_ready(Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    b.write(LCR_H, LCR_H_FEN);
    assert_eq!(b.uart.receive(&[7; 40]), 32);
    assert_eq!(b.uart.receive(&[7; 8]), 0);
    for _ in 0..15 {
        b.read(DR);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    b.read(DR);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    for _ in 0..16 {
        b.read(DR);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1, "once only");
    // While the receiver is off nothing is taken; switching it on asks for input.
    b.write(CR, Control::UARTEN.bits());
    assert_eq!(b.uart.receive(b"x"), 0);
    b.write(CR, CR_RESET.bits());
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn loopback_returns_characters_and_modem_lines() {
    let b = bench();
    b.write(LCR_H, LCR_H_FEN);
    b.write(CR, (CR_RESET | Control::LBE | Control::RTS | Control::OUT2).bits());
    assert_eq!(b.flags() & (Flags::CTS | Flags::DSR | Flags::DCD | Flags::RI), Flags::CTS | Flags::RI);
    assert!(b.raw().contains(Interrupts::RI | Interrupts::DSR | Interrupts::DCD));
    b.write(DR, 0x55);
    assert!(lock(&b.sink.taken).is_empty());
    assert_eq!(b.read(DR), 0x55);
    assert_eq!(b.uart.receive(b"x"), 0, "the outside is cut off");
}

#[test]
fn overrun_marks_the_next_character() {
    let b = bench();
    b.write(LCR_H, LCR_H_FEN);
    b.write(CR, (CR_RESET | Control::LBE).bits());
    for i in 0..33 {
        b.write(DR, i);
    }
    assert!(b.raw().contains(Interrupts::OE));
    for i in 0..32 {
        assert_eq!(b.read(DR), i);
    }
    b.write(DR, 0x77);
    assert_eq!(b.read(DR), 0x77 | u32::from(DR_OVERRUN));
    assert_eq!(b.read(RSR), 8);
    b.write(RSR, 0);
    assert_eq!(b.read(RSR), 0);
}

#[test]
fn break_is_a_flagged_zero() {
    let b = bench();
    b.write(IMSC, Interrupts::BE.bits());
    b.uart.receive_break();
    assert!(b.line.level());
    assert_eq!(b.read(DR), u32::from(DR_BREAK));
    assert_eq!(b.read(RSR), 4);
}

#[test]
fn survives_random_accesses() {
    let b = bench();
    let mut random = Random::seeded("pl011");
    for _ in 0..50_000 {
        let offset = if random.below(16) == 0 { random.next() } else { random.below(0x60) };
        let size = AccessSize::from_log2(random.below(4) as u32);
        match random.below(4) {
            0 => {
                let input = [random.next() as u8; 40];
                let n = random.below(41) as usize;
                assert!(b.uart.receive(&input[..n]) <= FIFO_DEPTH);
            }
            1 => b.uart.write(offset, size, random.next()),
            2 => *lock(&b.sink.blocked) = random.below(2) == 0,
            _ => {
                b.uart.read(offset, size);
            }
        }
        let masked = b.raw().bits() & b.read(IMSC);
        assert_eq!(b.read(MIS), masked);
        assert_eq!(b.line.level(), masked != 0, "the line is the masked status");
    }
}

#[test]
fn a_restored_one_goes_on_as_the_saved_one_does() {
    let mut random = Random::seeded("pl011 saved");
    let offsets = [DR, RSR, FR, ILPR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, MIS, ICR, DMACR];
    // What it shows of one random thing that is done to it.
    let act = |b: &Bench, what: u64, value: u64| {
        let offset = offsets[(value >> 40) as usize % offsets.len()];
        let bytes = &value.to_le_bytes()[..(value >> 60) as usize % 8];
        let taken = match what {
            0..=3 => b.uart.receive(bytes),
            4 => {
                b.uart.receive_break();
                0
            }
            5 => {
                *lock(&b.sink.blocked) ^= true;
                b.uart.transmit_ready();
                0
            }
            6 => {
                b.write(CR, value as u32 | CR_RESET.bits());
                0
            }
            _ => {
                b.write(offset, value as u32);
                0
            }
        };
        (taken, b.read(offset), b.flags(), b.raw(), b.line.level())
    };
    let clock = Arc::new(Clock::manual(COUNTER_FREQUENCY));
    let bench = || {
        let b = bench();
        Bench { uart: b.uart.on_clock(&clock), ..b }
    };
    for _ in 0..100 {
        let (one, other) = (bench(), bench());
        for b in [&one, &other] {
            for _ in 0..random.below(200) {
                clock.advance(random.below(10_000_000));
                act(b, random.below(14), random.next());
            }
        }
        let saved = one.uart.save();
        let text = serde_json::to_string(&saved).unwrap();
        other.uart.restore(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(other.uart.save(), saved);
        let blocked = *lock(&one.sink.blocked);
        *lock(&other.sink.blocked) = blocked;
        let (before, other_before) = (lock(&one.sink.taken).len(), lock(&other.sink.taken).len());
        for _ in 0..200 {
            let (what, value) = (random.below(14), random.next());
            assert_eq!(act(&one, what, value), act(&other, what, value), "{what} {value:#x}");
        }
        assert_eq!(lock(&one.sink.taken)[before..], lock(&other.sink.taken)[other_before..]);
    }
    let b = bench();
    let mut saved = b.uart.save();
    saved.cr = 1 << 20;
    assert!(b.uart.restore(&saved).unwrap_err().to_string().contains("UARTCR"));
    saved = b.uart.save();
    saved.receive = vec![0; FIFO_DEPTH + 1];
    assert!(b.uart.restore(&saved).unwrap_err().to_string().contains("FIFO"));
}
