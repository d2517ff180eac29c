//! The machine's time: nanoseconds that pass while the machine runs, and the system counter made of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use armlet_engine::{HostTime, InstructionCount};

/// Frequency of the system counter of boards before v8.6, in Hz: one tick is 16 ns.
pub const COUNTER_FREQUENCY: u64 = 62_500_000;

/// A moment that never comes, in nanoseconds or ticks.
pub const NEVER: u64 = u64::MAX;

const NANOSECONDS: u128 = 1_000_000_000;
const PAUSED: u64 = 1 << 63;
/// It is being decided where the clock stands.
const STOPPING: u64 = u64::MAX;

/// Latest time that a clock is set to: 146 years.
const LATEST: u64 = PAUSED / 2 - 1;

/// Nanoseconds from `zero` to `source`, with `zero` modulo 2^63.
fn since(source: u64, zero: u64) -> u64 {
    // From before the source's 0.
    let early = zero > LATEST;
    if early { source.saturating_add(PAUSED - zero) } else { source.saturating_sub(zero) }
}

/// Where nanoseconds come from.
enum Source {
    /// The host's monotonic clock.
    Host(Arc<HostTime>),
    /// Set by hand.
    Manual(AtomicU64),
    /// The guest's instructions, of 2^`shift` ns each.
    Instructions { count: Arc<InstructionCount>, shift: u32 },
}

/// Largest [`Clock::counting`] shift: an instruction takes 1.024 µs.
pub const MAX_SHIFT: u32 = 10;

/// A clock that starts at 0 and can be stopped. Reading it mostly takes no lock: one look at the host's time, one
/// multiplication.
pub struct Clock {
    source: Source,
    frequency: u64,
    /// Ticks per nanosecond, as a fraction of 2^32.
    scale: u64,
    /// Running: the source's nanoseconds at our 0, modulo 2^63, since it may have been before the source's. Paused:
    /// [`PAUSED`] and our nanoseconds, or [`STOPPING`] for a moment. A clock on the host's time has it there.
    own_state: AtomicU64,
}

impl Clock {
    /// A running clock on the host's monotonic time, whose counter ticks `frequency` times a second (1 Hz to
    /// 4 GHz; taken to the nearest bound outside).
    pub fn new(frequency: u64) -> Self {
        Self::with_source(frequency, Source::Host(Arc::new(HostTime::new(None))))
    }

    /// A clock on `time`, stopped at 0 until [`Self::resume`].
    pub fn stopped(frequency: u64, time: HostTime) -> Self {
        let clock = Self::with_source(frequency, Source::Host(Arc::new(time)));
        clock.state().store(PAUSED, Ordering::Release);
        clock
    }

    /// The host's time that this clock shows, for others to read the counter as this clock does, if they can: a tick is
    /// 16 ns, and [`HostTime::state`] is taken off unless its bits 63 or 62 are set.
    pub fn host_time(&self) -> Option<&Arc<HostTime>> {
        match &self.source {
            Source::Host(time) if time.has_counter() && self.scale == 1 << 28 => Some(time),
            _ => None,
        }
    }

    /// A running clock that stands still until [`Self::advance`] moves it: for tests and for deterministic runs.
    pub fn manual(frequency: u64) -> Self {
        Self::with_source(frequency, Source::Manual(AtomicU64::new(0)))
    }

    /// A clock whose nanoseconds are instructions: each takes 2^`shift` of them (at most [`MAX_SHIFT`]). It starts at
    /// the present count, stands still by itself while nothing executes, and so cannot be paused.
    pub fn counting(frequency: u64, count: Arc<InstructionCount>, shift: u32) -> Self {
        Self::with_source(frequency, Source::Instructions { count, shift: shift.min(MAX_SHIFT) })
    }

    fn with_source(frequency: u64, source: Source) -> Self {
        let frequency = frequency.clamp(1, 4_000_000_000);
        let scale = ((u128::from(frequency) << 32) / NANOSECONDS) as u64;
        Self { source, frequency, scale: scale.max(1), own_state: AtomicU64::new(0) }
    }

    fn state(&self) -> &AtomicU64 {
        match &self.source {
            Source::Host(time) => time.state(),
            _ => &self.own_state,
        }
    }

    /// Ticks per second (`CNTFRQ_EL0`).
    pub fn frequency(&self) -> u64 {
        self.frequency
    }

    fn source_ns(&self) -> u64 {
        match &self.source {
            Source::Host(time) => time.now(),
            Source::Manual(ns) => ns.load(Ordering::Acquire),
            Source::Instructions { count, shift } => {
                count.now().checked_mul(1 << shift).map_or(!PAUSED, |ns| ns & !PAUSED)
            }
        }
    }

    /// The first instruction count at which [`Self::now_ns`] is `ns` or more; [`NEVER`] for that, and for clocks that
    /// do not count.
    pub fn count_of(&self, ns: u64) -> u64 {
        match &self.source {
            Source::Instructions { shift, .. } if ns != NEVER => ns.div_ceil(1 << shift),
            _ => NEVER,
        }
    }

    /// How many instructions have executed, if the clock's time is made of them.
    pub fn instructions(&self) -> Option<u64> {
        match &self.source {
            Source::Instructions { count, .. } => Some(count.now()),
            _ => None,
        }
    }

    fn counts(&self) -> bool {
        matches!(self.source, Source::Instructions { .. })
    }

    /// Nanoseconds that the machine has run.
    pub fn now_ns(&self) -> u64 {
        loop {
            let state = self.state().load(Ordering::Acquire);
            if state == STOPPING {
                std::hint::spin_loop();
            } else if state & PAUSED != 0 {
                return state & !PAUSED;
            } else {
                let ns = self.source_ns();
                // Else it may be later than where the clock has been stopped.
                if self.state().load(Ordering::Acquire) == state {
                    return since(ns, state);
                }
            }
        }
    }

    /// The system counter: `CNTPCT_EL0`, and `CNTVCT_EL0` with no offset.
    pub fn now_ticks(&self) -> u64 {
        self.ticks_at(self.now_ns())
    }

    /// The counter's value at `ns`.
    pub fn ticks_at(&self, ns: u64) -> u64 {
        ((u128::from(ns) * u128::from(self.scale)) >> 32) as u64
    }

    /// The first nanosecond at which the counter is `ticks` or more; [`NEVER`] if that is out of range.
    pub fn ns_of(&self, ticks: u64) -> u64 {
        let ns = (u128::from(ticks) << 32).div_ceil(u128::from(self.scale));
        u64::try_from(ns).unwrap_or(NEVER)
    }

    /// True if the clock stands.
    pub fn is_paused(&self) -> bool {
        self.state().load(Ordering::Acquire) & PAUSED != 0
    }

    /// Stops the clock, not before anything that somebody was told. Timers are told through
    /// [`TimerQueue::pause`](crate::TimerQueue::pause), which calls this. A counting clock stands by itself.
    pub fn pause(&self) {
        if self.counts() {
            return;
        }
        let running = |state: u64| (state & PAUSED == 0).then_some(STOPPING);
        // Whoever has read the source before this was told less than it says behind it; whoever reads it later asks again.
        if let Ok(state) = self.state().fetch_update(Ordering::SeqCst, Ordering::Acquire, running) {
            let ns = since(self.source_ns(), state).min(!PAUSED - 1);
            self.state().store(PAUSED | ns, Ordering::Release);
        }
    }

    /// The state, once it is decided.
    fn update(&self, change: impl Fn(u64) -> Option<u64>) {
        while self
            .state()
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                if state == STOPPING { Some(state) } else { change(state) }
            })
            .is_ok_and(|state| state == STOPPING)
        {
            std::hint::spin_loop();
        }
    }

    /// Lets a stopped clock go on where it stood.
    pub fn resume(&self) {
        self.update(|state| (state & PAUSED != 0).then(|| self.source_ns().wrapping_sub(state) & !PAUSED));
    }

    /// Sets a stopped clock to `ns`, where it goes on at [`Self::resume`]; does nothing to one that runs or counts.
    pub fn set(&self, ns: u64) {
        self.update(|state| (state & PAUSED != 0).then_some(PAUSED | ns.min(LATEST)));
    }

    /// Moves a manual clock on; does nothing to others.
    pub fn advance(&self, ns: u64) {
        if let Source::Manual(now) = &self.source {
            now.fetch_add(ns, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn scales_exactly() {
        let clock = Clock::manual(COUNTER_FREQUENCY);
        assert_eq!(clock.now_ticks(), 0);
        clock.advance(15);
        assert_eq!(clock.now_ticks(), 0);
        clock.advance(1);
        assert_eq!(clock.now_ticks(), 1);
        clock.advance(1_000_000_000 - 16);
        assert_eq!(clock.now_ticks(), COUNTER_FREQUENCY);
        let century = 100 * 365 * 86_400;
        assert_eq!(clock.ticks_at(century * 1_000_000_000), century * COUNTER_FREQUENCY);
        let fast = Clock::manual(1_000_000_000);
        assert_eq!(fast.ticks_at(u64::MAX), u64::MAX);
        assert_eq!(fast.ns_of(u64::MAX), u64::MAX);
    }

    #[test]
    fn moments_are_neither_early_nor_late() {
        for frequency in [1, 24_000_000, COUNTER_FREQUENCY, 100_000_000, 1_000_000_000] {
            let clock = Clock::manual(frequency);
            for ticks in [0, 1, 2, 3, 1000, 62_500_001, 0xffff_ffff, 0x12_3456_789a] {
                let ns = clock.ns_of(ticks);
                if ns == NEVER {
                    continue;
                }
                assert!(clock.ticks_at(ns) >= ticks, "{frequency} Hz, {ticks}");
                assert!(ns == 0 || clock.ticks_at(ns - 1) < ticks, "{frequency} Hz, {ticks}");
            }
        }
        assert_eq!(Clock::manual(COUNTER_FREQUENCY).ns_of(u64::MAX), NEVER);
    }

    #[test]
    fn pause_takes_time_out() {
        let clock = Clock::manual(COUNTER_FREQUENCY);
        clock.advance(100);
        clock.pause();
        clock.pause();
        clock.advance(1000);
        assert!(clock.is_paused());
        assert_eq!(clock.now_ns(), 100);
        clock.resume();
        clock.resume();
        assert_eq!(clock.now_ns(), 100);
        clock.advance(5);
        assert_eq!(clock.now_ns(), 105);
    }

    #[test]
    fn a_stopped_clock_can_be_set_and_goes_on_from_there() {
        let clock = Clock::manual(COUNTER_FREQUENCY);
        clock.advance(100);
        clock.set(5);
        assert_eq!(clock.now_ns(), 100, "it runs");
        for ns in [0, 7, 99, 100, 101, 1 << 40, LATEST] {
            clock.pause();
            clock.set(ns);
            clock.advance(3);
            assert_eq!(clock.now_ns(), ns);
            clock.resume();
            assert_eq!(clock.now_ns(), ns);
            clock.advance(11);
            assert_eq!(clock.now_ns(), ns + 11);
            clock.pause();
            assert_eq!(clock.now_ns(), ns + 11);
        }
    }

    #[test]
    fn instructions_make_time_and_a_pause_changes_nothing() {
        for shift in [0, 3, MAX_SHIFT, MAX_SHIFT + 1] {
            let count = Arc::new(InstructionCount::default());
            let clock = Clock::counting(COUNTER_FREQUENCY, Arc::clone(&count), shift);
            let ns = 1 << shift.min(MAX_SHIFT);
            assert_eq!(clock.now_ns(), 0);
            count.set(1000);
            clock.pause();
            assert!(!clock.is_paused());
            count.set(1001);
            assert_eq!(clock.now_ns(), 1001 * ns);
            clock.resume();
            clock.advance(5);
            assert_eq!(clock.now_ns(), 1001 * ns);
            count.skip_to(COUNTER_FREQUENCY);
            assert_eq!(clock.now_ticks(), COUNTER_FREQUENCY * ns / 16);
            // The first count that is not too early.
            for deadline in [0, 1, ns, ns + 1, 12_345_678_901] {
                let at = clock.count_of(deadline);
                assert!(at * ns >= deadline && (at == 0 || (at - 1) * ns < deadline), "{deadline}");
            }
            assert_eq!(clock.count_of(NEVER), NEVER);
            count.set(u64::MAX);
            assert!(clock.now_ns() >= 1 << 62, "the end of time is no beginning");
        }
        assert_eq!(Clock::manual(COUNTER_FREQUENCY).count_of(5), NEVER);
    }

    #[test]
    fn stopped_it_begins_at_0() {
        let clock = Clock::stopped(COUNTER_FREQUENCY, HostTime::new(None));
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert_eq!(clock.now_ns(), 0);
        clock.resume();
        while clock.now_ns() == 0 {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_pause_takes_back_no_time_that_was_told() {
        let clock = Clock::new(COUNTER_FREQUENCY);
        let (latest, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let read = || {
            while !done.load(Ordering::Relaxed) {
                let before = latest.load(Ordering::SeqCst);
                let now = clock.now_ns();
                assert!(now >= before, "{before} and then {now}");
                latest.fetch_max(now, Ordering::SeqCst);
            }
        };
        std::thread::scope(|scope| {
            let readers = [(); 2].map(|()| scope.spawn(read));
            for _ in 0..20_000 {
                clock.pause();
                // Whoever has read just before tells it now.
                let late = (0..50).any(|_| clock.now_ns() < latest.load(Ordering::SeqCst));
                clock.resume();
                if late {
                    done.store(true, Ordering::Relaxed);
                    panic!("somebody was told more than the clock stands at");
                }
            }
            done.store(true, Ordering::Relaxed);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
    }

    #[test]
    fn the_host_clock_moves_forward() {
        let clock = Clock::new(COUNTER_FREQUENCY);
        let mut last = 0;
        for _ in 0..1000 {
            let now = clock.now_ns();
            assert!(now >= last);
            last = now;
        }
        while clock.now_ticks() == 0 {
            std::hint::spin_loop();
        }
        clock.pause();
        let frozen = clock.now_ns();
        assert_eq!(clock.now_ns(), frozen);
        assert!(frozen > 0);
    }
}
