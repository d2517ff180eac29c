//! The host's monotonic time, read from the CPU's cycle counter in a few nanoseconds.
//!
//! The counter is turned into time by a *line*: cycles and nanoseconds at one moment, and nanoseconds per cycle. A line
//! holds for a second at most; the next one begins at the host's monotonic clock, with the rate measured since the last.
//! If readers have been told more than the clock says, the new line begins there, and is slower by so much that it
//! meets the clock at its end. Time so never goes back, on whatever CPU it is read, and never leaves the clock by more
//! than the error of one second's rate.
//!
//! A line is read under a version number, which is odd while the line changes. While there is no line (at first, if the
//! host has no counter that its kernel trusts, or if it stops being one), the host's clock is asked.
//!
//! Lock order: `anchors` is taken by readers, under any of their locks; nothing is taken under it.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Reads the CPU's cycle counter: the same on all CPUs, not before what the program has read earlier, not after what
/// it reads later.
pub type CycleCounter = fn() -> u64;

/// How long the first line is prepared, in nanoseconds; each holds twice as long as the one before.
const FIRST: u64 = 5_000_000;
/// How long a line holds at most.
const LONGEST: u64 = 1_000_000_000;
/// Cycles between which the host's clock must have been read for both to belong together.
const TOGETHER: u64 = 20_000;
/// A line is slowed down by at most a tenth.
const SLOWEST: u64 = 10;
/// The rate of a counter that can be trusted changes by less than one in so many.
const STEADY: u64 = 512;

/// The counter and the host's clock at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    cycles: u64,
    ns: u64,
}

/// How cycles become time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line {
    /// Where it begins.
    cycles: u64,
    /// Nanoseconds there.
    ns: u64,
    /// Nanoseconds per cycle, as a fraction of 2^64.
    rate: u64,
    /// For how many cycles it holds. 0: there is none.
    span: u64,
}

impl Line {
    /// Time `since` cycles behind the line's beginning.
    fn after(&self, since: u64) -> u64 {
        self.ns.wrapping_add(((u128::from(since) * u128::from(self.rate)) >> 64) as u64)
    }

    /// The latest that a reader may have been told when the counter is at `cycles`.
    fn told(&self, cycles: u64) -> u64 {
        self.after(cycles.wrapping_sub(self.cycles).min(self.span))
    }
}

/// What the next line is made from.
#[derive(Debug)]
struct Anchors {
    last: Pair,
    /// The rate measured last.
    rate: Option<u64>,
    line: Line,
    /// The latest time that was told without a line.
    latest: u64,
    /// How long the next line is to hold, or until there is the first.
    wait: u64,
    /// The counter turned out not to be one of time.
    broken: bool,
}

impl Anchors {
    fn new(last: Pair) -> Self {
        Self { last, rate: None, line: Line::default(), latest: 0, wait: FIRST, broken: false }
    }

    /// It is time for a line when the clock says `ns`.
    fn is_due(&self, ns: u64) -> bool {
        !self.broken && ns.saturating_sub(self.last.ns) >= FIRST
    }

    /// Makes the line that begins now, and tells the time.
    fn next(&mut self, now: Pair) -> u64 {
        let ns = self.told(now.ns, now.cycles);
        let rate = self.measure(now);
        self.last = now;
        self.line = match rate {
            Some(rate) => self.begin(now, ns, rate),
            None => {
                self.broken = true;
                Line::default()
            }
        };
        ns
    }

    /// The time that the clock says, or what somebody may have been told before, if that is later.
    fn told(&mut self, ns: u64, cycles: u64) -> u64 {
        self.latest = self.latest.max(self.line.told(cycles)).max(ns);
        self.latest
    }

    /// Nanoseconds per cycle since the last measurement, if the counter can be trusted.
    fn measure(&mut self, now: Pair) -> Option<u64> {
        let cycles = now.cycles.checked_sub(self.last.cycles).filter(|cycles| *cycles > 0)?;
        let ns = now.ns.checked_sub(self.last.ns)?;
        let rate =
            u64::try_from((u128::from(ns) << 64) / u128::from(cycles)).ok().filter(|rate| *rate > 0)?;
        let steady = |old: u64| rate.abs_diff(old) <= old / STEADY;
        let trusted = self.rate.is_none_or(steady);
        self.rate = Some(rate);
        trusted.then_some(rate)
    }

    fn begin(&mut self, now: Pair, ns: u64, rate: u64) -> Line {
        let ahead = u128::from(ns - now.ns);
        let less = (u128::from(rate) * ahead / u128::from(self.wait)).min(u128::from(rate / SLOWEST)) as u64;
        let slowed = rate - less;
        let span = (u128::from(self.wait) << 64) / u128::from(slowed.max(1));
        self.wait = (2 * self.wait).min(LONGEST);
        Line { cycles: now.cycles, ns, rate: slowed, span: u64::try_from(span).unwrap_or(0) }
    }
}

/// Nanoseconds of the host's monotonic clock since this was made.
///
/// Translated code reads [`Self::LAYOUT`] by itself, as [`Self::now`] does.
#[derive(Debug)]
#[repr(C)]
pub struct HostTime {
    version: AtomicU64,
    cycles: AtomicU64,
    ns: AtomicU64,
    rate: AtomicU64,
    span: AtomicU64,
    state: AtomicU64,
    start: Instant,
    counter: Option<CycleCounter>,
    anchors: Mutex<Anchors>,
}

/// Where translated code finds the parts of a [`HostTime`]: offsets in bytes, all of 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Odd while the line changes. To be read before and after everything else.
    pub version: usize,
    /// Where the line begins.
    pub cycles: usize,
    /// Nanoseconds there.
    pub ns: usize,
    /// Nanoseconds per cycle, as a fraction of 2^64.
    pub rate: usize,
    /// For less than so many cycles the line holds.
    pub span: usize,
    /// [`HostTime::state`].
    pub state: usize,
}

impl HostTime {
    /// Where its parts are.
    pub const LAYOUT: Layout = Layout {
        version: offset_of!(Self, version),
        cycles: offset_of!(Self, cycles),
        ns: offset_of!(Self, ns),
        rate: offset_of!(Self, rate),
        span: offset_of!(Self, span),
        state: offset_of!(Self, state),
    };

    /// Time that begins now, from `counter` if there is one that the host's kernel trusts itself.
    pub fn new(counter: Option<CycleCounter>) -> Self {
        let zero = || AtomicU64::new(0);
        let first = Pair { cycles: counter.map_or(0, |read| read()), ns: 0 };
        Self {
            version: zero(),
            cycles: zero(),
            ns: zero(),
            rate: zero(),
            span: zero(),
            state: zero(),
            start: Instant::now(),
            counter,
            anchors: Mutex::new(Anchors::new(first)),
        }
    }

    /// True if it may be read from a cycle counter.
    pub fn has_counter(&self) -> bool {
        self.counter.is_some()
    }

    /// Room for the state of the clock that shows this time: bits 63 and 62 clear if it runs, and is ahead of this time by
    /// nothing, and behind by so many nanoseconds.
    pub fn state(&self) -> &AtomicU64 {
        &self.state
    }

    /// Nanoseconds since this was made.
    pub fn now(&self) -> u64 {
        match self.counter {
            None => self.clock(),
            Some(read) => self.by_line(read).unwrap_or_else(|| self.anchor(read)),
        }
    }

    fn clock(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn by_line(&self, read: CycleCounter) -> Option<u64> {
        let version = self.version.load(Ordering::Acquire);
        let line = Line {
            cycles: self.cycles.load(Ordering::Acquire),
            ns: self.ns.load(Ordering::Acquire),
            rate: self.rate.load(Ordering::Acquire),
            span: self.span.load(Ordering::Acquire),
        };
        let since = read().wrapping_sub(line.cycles);
        // Whoever has seen a part of a new line sees that the version was odd, or is another one.
        let whole = version & 1 == 0 && self.version.load(Ordering::Relaxed) == version;
        (whole && since < line.span).then(|| line.after(since))
    }

    /// Reads the host's clock, and makes a new line if it is time for one.
    #[cold]
    fn anchor(&self, read: CycleCounter) -> u64 {
        let mut anchors = self.anchors.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have made it meanwhile.
        if let Some(ns) = self.by_line(read) {
            return ns;
        }
        let ns = self.clock();
        if !anchors.is_due(ns) {
            return anchors.told(ns, read());
        }
        // From here on nobody uses the old line.
        let version = self.version.fetch_add(1, Ordering::SeqCst);
        let ns = match self.pair(read) {
            Some(pair) => anchors.next(pair),
            None => anchors.told(self.clock(), read()),
        };
        let line = anchors.line;
        for (place, value) in [
            (&self.cycles, line.cycles),
            (&self.ns, line.ns),
            (&self.rate, line.rate),
            (&self.span, line.span),
        ] {
            place.store(value, Ordering::Release);
        }
        self.version.store(version.wrapping_add(2), Ordering::Release);
        ns
    }

    /// Counter and clock at one moment, unless the thread is interrupted each time.
    fn pair(&self, read: CycleCounter) -> Option<Pair> {
        let tries = (0..5).map(|_| {
            let before = read();
            let ns = self.clock();
            let width = read().wrapping_sub(before);
            (width, Pair { cycles: before.wrapping_add(width / 2), ns })
        });
        tries.min_by_key(|(width, _)| *width).filter(|(width, _)| *width < TOGETHER).map(|(_, pair)| pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Random(u64);

    impl Random {
        /// Less than `limit`.
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    /// A counter of `hz`, whose clock runs `drift` millionths too fast.
    struct Host {
        hz: u64,
        cycles: u64,
        ns: f64,
        drift: f64,
    }

    impl Host {
        fn pass(&mut self, cycles: u64) {
            self.cycles += cycles;
            self.ns += cycles as f64 * 1e9 / self.hz as f64 * (1.0 + self.drift / 1e6);
        }

        fn now(&self) -> Pair {
            Pair { cycles: self.cycles, ns: self.ns as u64 }
        }
    }

    /// Reads as `HostTime::now` does.
    fn read(anchors: &mut Anchors, now: Pair) -> u64 {
        let since = now.cycles.wrapping_sub(anchors.line.cycles);
        if since < anchors.line.span {
            return anchors.line.after(since);
        }
        if anchors.is_due(now.ns) { anchors.next(now) } else { anchors.told(now.ns, now.cycles) }
    }

    #[test]
    fn time_never_goes_back_and_stays_with_the_clock() {
        for seed in 1..200 {
            let mut random = Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
            let hz = 1_000_000_001 + random.below(5_000_000_000);
            let mut host = Host { hz, cycles: random.below(1 << 60), ns: 0.0, drift: 0.0 };
            let mut anchors = Anchors::new(host.now());
            let mut last = 0;
            for step in 0..2000 {
                // Clocks are steered by up to 500 millionths; a reader may stay away for minutes.
                host.drift = random.below(1001) as f64 - 500.0;
                let exponent = random.below(20);
                host.pass(1 + random.below((hz / 100_000) << exponent));
                let told = read(&mut anchors, host.now());
                assert!(told >= last, "seed {seed}, step {step}: {last} and then {told}");
                last = told;
                let off = told.abs_diff(host.now().ns);
                assert!(off <= 2_100_000, "seed {seed}, step {step}: off by {off} ns");
                assert!(!anchors.broken, "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn a_steady_clock_is_met_exactly() {
        let mut host = Host { hz: 3_700_000_000, cycles: 12_345, ns: 0.0, drift: 7.0 };
        let mut anchors = Anchors::new(host.now());
        for step in 0..100_000u64 {
            host.pass(37_000_000 / 10);
            let told = read(&mut anchors, host.now());
            let off = told.abs_diff(host.now().ns);
            assert!(off <= 2, "step {step}: off by {off} ns");
        }
        assert_eq!(anchors.wait, LONGEST);
    }

    #[test]
    fn a_counter_that_jumps_or_stops_is_not_used_again() {
        let second = 3_000_000_000u64;
        // Backwards, far ahead, at half its speed, not at all.
        for jump in [second.wrapping_neg(), 1000 * second, (second / 2).wrapping_neg()] {
            let mut host = Host { hz: second, cycles: 1 << 40, ns: 0.0, drift: 0.0 };
            let mut anchors = Anchors::new(host.now());
            for _ in 0..10_000 {
                host.pass(second / 1000);
                read(&mut anchors, host.now());
            }
            assert!(anchors.line.span > 0 && !anchors.broken);
            host.cycles = host.cycles.wrapping_add(jump);
            let (mut last, mut told) = (0, 0);
            for _ in 0..5_000 {
                host.pass(second / 1000);
                told = read(&mut anchors, host.now());
                assert!(told >= last);
                last = told;
            }
            assert!(anchors.broken, "{jump:#x}");
            assert_eq!(told, host.now().ns, "the clock is what is told");
        }
    }

    #[test]
    fn without_a_counter_it_is_the_clock() {
        let time = HostTime::new(None);
        assert!(!time.has_counter());
        let mut last = 0;
        while last < 1_000_000 {
            let now = time.now();
            assert!(now >= last);
            last = now;
        }
    }
}
