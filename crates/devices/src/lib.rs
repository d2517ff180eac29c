//! The devices of the `virt` board: interrupt controller, timers, UART, clock and GPIO.
//!
//! Register layouts and reset values stand in each device's `spec` module, behaviour beside it. Every device
//! has its own lock.
//!
//! # Lock order
//!
//! device (UART, RTC, GPIO, one timer) → timer queue → ITS → GIC → a vCPU's kick.
//!
//! A lock may be taken while those to its left are held, never the other way round. Callbacks (timer
//! callbacks, the UART's "room again" notice) are called with no lock of this crate held. Character sinks are
//! called with the UART's lock held and must not call back into it.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod clock;
pub mod gic;
pub mod line;
pub mod message;
pub mod pl011;
pub mod pl031;
pub mod pl061;
mod primecell;
mod random;
pub mod timer;
pub mod timer_queue;

pub use clock::Clock;
pub use gic::{GicConfig, GicError, GicV3};
pub use line::{InterruptLine, UnconnectedLine};
pub use message::{Message, MessageSender, MessageSink};
pub use pl011::{CharSink, OutputQueue, Pl011};
pub use pl031::{Pl031, WallClock, host_wall_clock, machine_wall_clock};
pub use pl061::Pl061;
pub use timer::{BoardRegisters, GenericTimers, TimerLines};
pub use timer_queue::{TimerKey, TimerQueue, TimerThread};

/// Locks `mutex`; a holder that panicked does not take the device down with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod testing;
