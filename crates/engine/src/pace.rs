//! Time that is made of instructions: what a machine needs whose vCPUs share one thread in a deterministic order.
//!
//! The *count* rises by one with every instruction that any vCPU executes, or tries to and takes an exception, and
//! with every interrupt that one takes. It skips ahead while no vCPU has anything to do. It is the only time there is
//! for the guest: the same guest with the same inputs at the same counts does the same, to the instruction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The count of one machine. Written by the vCPUs' thread only; exact whenever a device is called.
#[derive(Debug, Default)]
pub struct InstructionCount {
    now: AtomicU64,
    skipped: AtomicU64,
}

impl InstructionCount {
    /// The count.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Acquire)
    }

    /// How much of it was not executed but skipped.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Acquire)
    }

    /// The executing vCPU has come this far.
    pub fn set(&self, now: u64) {
        self.now.store(now, Ordering::Release);
    }

    /// Skips ahead to `until`, unless it is later than that.
    pub fn skip_to(&self, until: u64) {
        let now = self.now();
        if until > now {
            self.skipped.fetch_add(until - now, Ordering::AcqRel);
            self.now.store(until, Ordering::Release);
        }
    }

    /// Back to the beginning of time.
    pub fn restart(&self) {
        self.skipped.store(0, Ordering::Release);
        self.now.store(0, Ordering::Release);
    }
}

/// A count that never comes.
pub const NEVER: u64 = u64::MAX;

/// What happens when, in a machine whose time is an [`InstructionCount`]. All of it is called on the vCPUs' thread,
/// outside guest execution.
pub trait Pace: Send + Sync {
    /// The count.
    fn count(&self) -> &Arc<InstructionCount>;
    /// The count at which [`Pace::happen`] must be called next; [`NEVER`] if nothing is planned.
    fn next(&self) -> u64;
    /// Does what is to happen at the present count: timers that have expired, input that has come. `digest` makes a
    /// number of all registers of all vCPUs, which is the same whenever the same guest has come to the same count.
    fn happen(&self, digest: &mut dyn FnMut() -> u64);
    /// The longest turn of a vCPU while others wait for theirs, in counts.
    fn turn(&self) -> u64 {
        100_000
    }
    /// vCPU `vcpu` has executed all the instructions from the count `from` to `to`.
    fn executed(&self, vcpu: usize, from: u64, to: u64) {
        let _ = (vcpu, from, to);
    }
    /// How many counts make up that time.
    fn counts_in(&self, time: Duration) -> u64;
    /// No vCPU has anything to do before the count `until` ([`NEVER`]: before something comes from outside). Skips to
    /// `until`, or to an earlier count at which something came from outside, or lets the count be for now. `sleep`
    /// sleeps for that long (`None`: without end) and tells whether the thread was woken before.
    fn idle(&self, until: u64, sleep: &mut dyn FnMut(Option<Duration>) -> bool);
}
