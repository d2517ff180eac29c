//! PL031 real-time clock (Arm DDI 0224): seconds since 1970, from the host's wall clock.
//!
//! The clock runs from the start and, unlike the machine's timers, also while the machine is paused: it tells
//! the time of day. A match is found in time while the machine runs, and at resumption otherwise.

pub mod spec;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use armlet_memory::{AccessSize, MmioDevice};
use armlet_saved::{SavedRtc, Unfit};

use crate::clock::{Clock, NEVER};
use crate::line::InterruptLine;
use crate::timer_queue::{TimerKey, TimerQueue};
use crate::{lock, primecell};

/// Tells the time of day, as the time since the start of 1970 (UTC).
pub type WallClock = Box<dyn Fn() -> Duration + Send + Sync>;

/// The host's time of day.
pub fn host_wall_clock() -> WallClock {
    Box::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A time of day that begins with the machine's time, at `start` since 1970: the same in every run.
pub fn machine_wall_clock(start: Duration, clock: Arc<Clock>) -> WallClock {
    Box::new(move || start.saturating_add(Duration::from_nanos(clock.now_ns())))
}

/// The real-time clock.
pub struct Pl031 {
    line: Arc<dyn InterruptLine>,
    queue: Arc<TimerQueue>,
    key: TimerKey,
    wall: WallClock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Guest time less host time, in seconds, modulo 2^32.
    offset: u32,
    match_value: u32,
    load: u32,
    mask: u32,
    raw: u32,
    /// Host second at which the match comes, if one is awaited.
    awaited: Option<u64>,
}

impl Pl031 {
    /// A clock that interrupts on `line`, with the time from `wall`.
    pub fn new(line: Arc<dyn InterruptLine>, queue: &Arc<TimerQueue>, wall: WallClock) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = Weak::clone(this);
            let key = queue.register(Arc::new(move || {
                if let Some(rtc) = this.upgrade() {
                    rtc.expired();
                }
            }));
            Self { line, queue: Arc::clone(queue), key, wall, state: Mutex::default() }
        })
    }

    /// Machine reset: no match awaited, no interrupt. The time set by the guest is kept, as by a battery.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        *state = State { offset: state.offset, ..State::default() };
        self.queue.cancel(self.key);
        self.line.set(false);
    }

    /// As at power-on: the time is the host's again.
    pub fn power_on(&self) {
        lock(&self.state).offset = 0;
        self.reset();
    }

    /// All registers. The time of day is the host's and goes on.
    pub fn save(&self) -> SavedRtc {
        let State { offset, match_value, load, mask, raw, awaited } = *lock(&self.state);
        SavedRtc { offset, match_value, load, mask, raw, awaited }
    }

    /// Takes over all registers. A match that has come meanwhile comes now.
    ///
    /// # Errors
    /// A register cannot have its value; nothing has changed then.
    pub fn restore(&self, saved: &SavedRtc) -> Result<(), Unfit> {
        let SavedRtc { offset, match_value, load, mask, raw, awaited } = *saved;
        Unfit::unless((mask | raw) & !spec::BIT == 0, || "the clock's interrupt cannot be as it was".into())?;
        let mut state = lock(&self.state);
        *state = State { offset, match_value, load, mask, raw, awaited };
        self.queue.cancel(self.key);
        self.look(&mut state);
        self.update_line(&state);
        Ok(())
    }

    /// The queue's callback.
    fn expired(&self) {
        let mut state = lock(&self.state);
        self.look(&mut state);
        self.update_line(&state);
    }

    fn update_line(&self, state: &State) {
        self.line.set(state.raw & state.mask != 0);
    }

    fn time(&self, state: &State) -> u32 {
        ((self.wall)().as_secs() as u32).wrapping_add(state.offset)
    }

    /// Sets up the wait for the next match.
    fn await_match(&self, state: &mut State) {
        let to_go = state.match_value.wrapping_sub(self.time(state));
        state.awaited = Some((self.wall)().as_secs().saturating_add(u64::from(to_go)));
        self.look(state);
    }

    /// Raises the interrupt if the awaited second has come, otherwise sees to being called when it has.
    fn look(&self, state: &mut State) {
        let Some(second) = state.awaited else { return };
        let left = Duration::from_secs(second).saturating_sub((self.wall)());
        if left.is_zero() {
            state.raw = spec::BIT;
            state.awaited = None;
            self.queue.cancel(self.key);
        } else {
            let left = u64::try_from(left.as_nanos()).unwrap_or(NEVER);
            self.queue.arm(self.key, self.queue.clock().now_ns().saturating_add(left));
        }
    }
}

impl MmioDevice for Pl031 {
    fn name(&self) -> &str {
        "pl031"
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        if !primecell::is_register(offset) {
            return 0;
        }
        let state = lock(&self.state);
        let value = match offset {
            spec::DR => self.time(&state),
            spec::MR => state.match_value,
            spec::LR => state.load,
            spec::CR => spec::BIT,
            spec::IMSC => state.mask,
            spec::RIS => state.raw,
            spec::MIS => state.raw & state.mask,
            _ => primecell::identification(spec::PERIPH_ID, offset).unwrap_or(0),
        };
        primecell::narrow(value, size)
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        if !primecell::is_register(offset) {
            return;
        }
        let value = primecell::narrow(value as u32, size) as u32;
        let mut state = lock(&self.state);
        match offset {
            spec::MR => {
                state.match_value = value;
                self.await_match(&mut state);
            }
            spec::LR => {
                state.load = value;
                state.offset = value.wrapping_sub((self.wall)().as_secs() as u32);
                // A match that was set before moves with the time.
                if state.awaited.is_some() {
                    self.await_match(&mut state);
                }
            }
            spec::IMSC => state.mask = value & spec::BIT,
            spec::ICR => state.raw &= !value,
            _ => return,
        }
        self.update_line(&state);
    }
}
