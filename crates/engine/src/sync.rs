//! The one door to threads, locks and atomics: std's, or those of the model checkers when the engine is
//! built for them (`--cfg loom` for the small protocols, `--cfg shuttle` for the whole engine).

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence},
    },
    thread, thread_local,
};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence},
    },
    thread, thread_local,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence},
    },
    thread, thread_local,
};

/// One step of a protocol, by a name under which the models' self-test can leave it out, to see that they
/// notice. Everywhere else it is just done.
#[inline(always)]
pub(crate) fn step(name: &'static str, f: impl FnOnce()) {
    if kept(name) {
        f();
    }
}

/// False while the self-test leaves the step `name` out.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn kept(_name: &'static str) -> bool {
    true
}

/// False while the self-test leaves the step `name` out.
#[cfg(loom)]
pub(crate) fn kept(name: &'static str) -> bool {
    static LEFT_OUT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    LEFT_OUT.get_or_init(|| std::env::var(LEAVE_OUT).ok()).as_deref() != Some(name)
}

/// The variable that tells a model which step to leave out.
#[cfg(loom)]
pub(crate) const LEAVE_OUT: &str = "ARMLET_MODEL_LEAVE_OUT";

/// Locks `mutex` whether or not a thread panicked with it: every critical section of this crate leaves its
/// data whole at each step, and a panic is reported by other means.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
