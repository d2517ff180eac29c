//! Sleeping until something happens, without ever missing it.
//!
//! The thread that owns a [`Sleeper`] announces that it is about to sleep and *then* looks for reasons to
//! stay awake; whoever makes a reason stores it and *then* looks for the announcement. A full fence on both
//! sides makes it impossible for both to look too early:
//!
//! ```text
//! sleeper:  state = ASLEEP;  fence;  ready()?       waker:  reason = …;  fence;  state == ASLEEP?
//! ```
//!
//! Waking a thread that is awake costs a fence and a load.

use std::time::Instant;

use crate::sync::{AtomicU32, Condvar, Mutex, Ordering, fence, kept, lock, step};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// Where one thread, its owner, sleeps; any thread may wake it.
#[derive(Debug)]
pub(crate) struct Sleeper {
    state: AtomicU32,
    lock: Mutex<()>,
    condvar: Condvar,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU32::new(AWAKE), lock: Mutex::new(()), condvar: Condvar::new() }
    }

    /// Sleeps until `ready` holds, or until `deadline`; tells whether `ready` held. `ready` is
    /// evaluated once at the start and after each wake.
    pub(crate) fn sleep_until(&self, deadline: Option<Instant>, mut ready: impl FnMut() -> bool) -> bool {
        loop {
            self.state.store(ASLEEP, Ordering::Relaxed);
            step("sleeper: fence of the sleeping side", || fence(Ordering::SeqCst));
            if kept("sleeper: second look") && ready() {
                self.state.store(AWAKE, Ordering::Relaxed);
                return true;
            }
            if !self.sleep(deadline) {
                self.state.store(AWAKE, Ordering::Relaxed);
                return ready();
            }
        }
    }

    /// Sleeps until woken (true) or until the deadline has passed (false).
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        let mut guard = lock(&self.lock);
        while self.state.load(Ordering::Acquire) == ASLEEP {
            guard = match deadline {
                None => self.condvar.wait(guard).unwrap_or_else(|e| e.into_inner()),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.condvar.wait_timeout(guard, left).unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        true
    }

    /// True if the owner sleeps, or is about to: a reason that was stored before is to be followed by [`Self::wake`].
    pub(crate) fn is_asleep(&self) -> bool {
        step("sleeper: fence of the waking side", || fence(Ordering::SeqCst));
        self.state.load(Ordering::Relaxed) == ASLEEP
    }

    /// Makes the owner look at its reasons again, if it sleeps. The reason must have been stored before.
    pub(crate) fn wake(&self) {
        if self.is_asleep() && self.state.swap(AWAKE, Ordering::AcqRel) == ASLEEP {
            // The owner holds the lock from its last look at `state` until it waits.
            step("sleeper: lock before the notify", || drop(lock(&self.lock)));
            step("sleeper: notify", || self.condvar.notify_one());
        }
    }
}
