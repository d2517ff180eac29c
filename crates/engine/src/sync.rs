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

/// Locks `mutex` whether or not a thread panicked with it: every critical section of this crate leaves its
/// data whole at each step, and a panic is reported by other means.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
