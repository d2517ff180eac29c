//! PL061 GPIO controller (Arm DDI 0190), with the board's power key on line 3.

pub mod spec;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, Weak};

use armlet_memory::{AccessSize, MmioDevice};
use armlet_saved::SavedGpio;

use crate::line::InterruptLine;
use crate::timer_queue::{TimerKey, TimerQueue};
use crate::{lock, primecell};

/// The GPIO controller.
pub struct Pl061 {
    line: Arc<dyn InterruptLine>,
    queue: Arc<TimerQueue>,
    /// Lets go of the power key.
    release: TimerKey,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Levels driven from outside.
    input: u8,
    /// Levels that the guest wrote.
    output: u8,
    direction: u8,
    sense_level: u8,
    both_edges: u8,
    event: u8,
    mask: u8,
    /// Edges seen and not yet cleared.
    edges: u8,
    hardware: u8,
}

impl State {
    /// Levels of the lines: what outputs drive, what inputs see.
    fn lines(&self) -> u8 {
        (self.output & self.direction) | (self.input & !self.direction)
    }

    /// Raw interrupt status: the level where that counts, otherwise the edges seen.
    fn raw(&self) -> u8 {
        let at_level = !(self.lines() ^ self.event);
        (at_level & self.sense_level) | (self.edges & !self.sense_level)
    }

    /// Changes something that may move lines, and notes the edges.
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.lines();
        change(self);
        let after = self.lines();
        let moved = before ^ after;
        let wanted = self.both_edges | !(after ^ self.event);
        self.edges |= moved & wanted & !self.sense_level;
    }
}

impl Pl061 {
    /// How long a press of the power key lasts: longer than guests debounce.
    pub const PRESS_NS: u64 = 100_000_000;

    /// A controller that interrupts on `line`; `queue` times the power key.
    pub fn new(line: Arc<dyn InterruptLine>, queue: &Arc<TimerQueue>) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = Weak::clone(this);
            let release = queue.register(Arc::new(move || {
                if let Some(gpio) = this.upgrade() {
                    gpio.set_input(spec::POWER_LINE, false);
                }
            }));
            Self { line, queue: Arc::clone(queue), release, state: Mutex::default() }
        })
    }

    /// Drives line `n` (0 to 7) from outside; others are ignored.
    pub fn set_input(&self, n: u8, level: bool) {
        let Some(bit) = 1_u8.checked_shl(u32::from(n)) else { return };
        let mut state = lock(&self.state);
        state.change(|s| s.input = if level { s.input | bit } else { s.input & !bit });
        self.update_line(&state);
    }

    /// Presses the power key and lets go of it [`Self::PRESS_NS`] later.
    pub fn press_power_button(&self) {
        self.set_input(spec::POWER_LINE, true);
        self.queue.arm(self.release, self.queue.clock().now_ns().saturating_add(Self::PRESS_NS));
    }

    /// Machine reset; the inputs keep their levels.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        *state = State { input: state.input, ..State::default() };
        self.update_line(&state);
    }

    /// As at power-on: nobody presses a key either.
    pub fn power_on(&self) {
        self.queue.cancel(self.release);
        lock(&self.state).input = State::default().input;
        self.reset();
    }

    /// All registers and the levels from outside.
    pub fn save(&self) -> SavedGpio {
        let state = lock(&self.state);
        let now = self.queue.clock().now_ns();
        SavedGpio {
            input: state.input,
            output: state.output,
            direction: state.direction,
            sense_level: state.sense_level,
            both_edges: state.both_edges,
            event: state.event,
            mask: state.mask,
            edges: state.edges,
            hardware: state.hardware,
            release_in: self.queue.deadline(self.release).map(|deadline| deadline.saturating_sub(now)),
        }
    }

    /// Takes over all of that; every value is possible.
    pub fn restore(&self, saved: &SavedGpio) {
        let mut state = lock(&self.state);
        *state = State {
            input: saved.input,
            output: saved.output,
            direction: saved.direction,
            sense_level: saved.sense_level,
            both_edges: saved.both_edges,
            event: saved.event,
            mask: saved.mask,
            edges: saved.edges,
            hardware: saved.hardware,
        };
        match saved.release_in {
            Some(left) => self.queue.arm(self.release, self.queue.clock().now_ns().saturating_add(left)),
            None => self.queue.cancel(self.release),
        }
        self.update_line(&state);
    }

    fn update_line(&self, state: &State) {
        self.line.set(state.raw() & state.mask != 0);
    }
}

impl MmioDevice for Pl061 {
    fn name(&self) -> &str {
        "pl061"
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        if !primecell::is_register(offset) {
            return 0;
        }
        let state = lock(&self.state);
        let byte = match offset {
            0..spec::DATA_END => state.lines() & (offset >> 2) as u8,
            spec::DIR => state.direction,
            spec::IS => state.sense_level,
            spec::IBE => state.both_edges,
            spec::IEV => state.event,
            spec::IE => state.mask,
            spec::RIS => state.raw(),
            spec::MIS => state.raw() & state.mask,
            spec::AFSEL => state.hardware,
            _ => {
                let id = primecell::identification(spec::PERIPH_ID, offset).unwrap_or(0);
                return primecell::narrow(id, size);
            }
        };
        u64::from(byte)
    }

    fn write(&self, offset: u64, _size: AccessSize, value: u64) {
        if !primecell::is_register(offset) {
            return;
        }
        let byte = value as u8;
        let mut state = lock(&self.state);
        match offset {
            0..spec::DATA_END => {
                let chosen = (offset >> 2) as u8;
                state.change(|s| s.output = (s.output & !chosen) | (byte & chosen));
            }
            spec::DIR => state.change(|s| s.direction = byte),
            spec::IS => state.sense_level = byte,
            spec::IBE => state.both_edges = byte,
            spec::IEV => state.event = byte,
            spec::IE => state.mask = byte,
            spec::IC => state.edges &= !byte,
            spec::AFSEL => state.hardware = byte,
            _ => return,
        }
        self.update_line(&state);
    }
}
