//! The gate to guest execution: closed while one thread is in an exclusive section.
//!
//! Each vCPU passes its [`Door`] on the way into guest execution and on the way out. Entering is a store, a
//! full fence and a load; an exclusive section is the mirror image, so that either the vCPU sees the closed
//! gate or the owner sees the vCPU inside (and kicks it out):
//!
//! ```text
//! vCPU:   executing = true;  fence;  closed?        owner:  closed = true;  fence;  executing?
//! ```
//!
//! Sleeping and stopped vCPUs are not disturbed: they find the gate closed if they want to enter (G7).
//! Nobody sleeps on a lock here; all waiting is done by vCPU threads in their own sleeper, so that they can
//! serve their queues meanwhile.
//!
//! Lock order: `inner` is a leaf; nothing else is locked under it.

use std::sync::Arc;

use crate::shared::VcpuShared;
use crate::sync::{AtomicBool, Mutex, Ordering, fence, kept, lock, step};

/// One vCPU's way in and out.
pub(crate) struct Door {
    shared: Arc<VcpuShared>,
    executing: AtomicBool,
    /// The thread sleeps until the gate opens: for entering or for its own turn to close it.
    waiting: AtomicBool,
}

impl Door {
    pub(crate) fn new(shared: Arc<VcpuShared>) -> Self {
        Self { shared, executing: AtomicBool::new(false), waiting: AtomicBool::new(false) }
    }

    /// True while its thread sleeps until the gate opens.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Announces that this door's thread sleeps until the gate opens, until the guard is dropped. A thread
    /// that serves others while it waits may do this again inside.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        Waiting { outer: self.waiting.swap(true, Ordering::AcqRel), door: self }
    }
}

/// While it lives, opening the gate wakes the thread.
pub(crate) struct Waiting<'a> {
    door: &'a Door,
    outer: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.door.waiting.store(self.outer, Ordering::Release);
    }
}

struct Inner {
    owner: Option<Arc<Door>>,
    doors: Vec<Arc<Door>>,
}

/// The gate of one machine.
pub(crate) struct Gate {
    closed: AtomicBool,
    inner: Mutex<Inner>,
}

/// Inside guest execution; dropping it leaves, also on a panic.
pub(crate) struct Inside<'a>(&'a Gate, &'a Door);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

/// The gate is closed by the holder; dropping it opens the gate, also on a panic.
pub(crate) struct Closed<'a>(&'a Gate);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { closed: AtomicBool::new(false), inner: Mutex::new(Inner { owner: None, doors: Vec::new() }) }
    }

    /// Makes a vCPU known, before it may enter for the first time.
    pub(crate) fn add(&self, door: Arc<Door>) {
        lock(&self.inner).doors.push(door);
    }

    /// Forgets a vCPU whose thread is gone.
    pub(crate) fn remove(&self, door: &Arc<Door>) {
        lock(&self.inner).doors.retain(|d| !Arc::ptr_eq(d, door));
    }

    /// Enters guest execution unless the gate is closed.
    pub(crate) fn enter<'a>(&'a self, door: &'a Door) -> Option<Inside<'a>> {
        door.executing.store(true, Ordering::Relaxed);
        step("gate: fence of the entering side", || fence(Ordering::SeqCst));
        let inside = Inside(self, door);
        // If it is closed, dropping `inside` tells the owner, who may have seen us.
        (!kept("gate: look behind the door") || self.is_open()).then_some(inside)
    }

    fn leave(&self, door: &Door) {
        door.executing.store(false, Ordering::Release);
        step("gate: fence of the leaving side", || fence(Ordering::SeqCst));
        if self.closed.load(Ordering::Relaxed) {
            let owner = lock(&self.inner).owner.clone();
            if let Some(owner) = owner {
                step("gate: wake of the owner", || owner.shared.wake());
            }
        }
    }

    /// True while nobody is in an exclusive section.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Closes the gate for `door`'s thread and kicks out whoever is inside; `None` if it is closed already.
    /// The section may begin when [`Gate::others_out`] holds.
    pub(crate) fn close(&self, door: &Arc<Door>) -> Option<Closed<'_>> {
        let executing: Vec<_> = {
            let mut inner = lock(&self.inner);
            if inner.owner.is_some() {
                return None;
            }
            inner.owner = Some(Arc::clone(door));
            self.closed.store(true, Ordering::Relaxed);
            step("gate: fence of the closing side", || fence(Ordering::SeqCst));
            inner.doors.iter().filter(|d| d.executing.load(Ordering::Acquire)).cloned().collect()
        };
        let closed = Closed(self);
        step("gate: kick of those inside", || executing.iter().for_each(|d| d.shared.request_exit()));
        Some(closed)
    }

    /// True when no vCPU is inside guest execution.
    pub(crate) fn others_out(&self) -> bool {
        lock(&self.inner).doors.iter().all(|d| !d.executing.load(Ordering::Acquire))
    }

    /// Numbers of the vCPUs inside guest execution.
    pub(crate) fn executing(&self) -> Vec<usize> {
        let inner = lock(&self.inner);
        let inside = inner.doors.iter().filter(|d| d.executing.load(Ordering::Acquire));
        inside.map(|d| d.shared.index()).collect()
    }

    /// The vCPU that has closed the gate.
    pub(crate) fn owner(&self) -> Option<usize> {
        lock(&self.inner).owner.as_ref().map(|door| door.shared.index())
    }

    fn open(&self) {
        let doors = {
            let mut inner = lock(&self.inner);
            inner.owner = None;
            self.closed.store(false, Ordering::Release);
            step("gate: fence of the opening side", || fence(Ordering::SeqCst));
            inner.doors.clone()
        };
        let waiting = doors.iter().filter(|d| d.waiting.load(Ordering::Acquire));
        step("gate: wake of those who wait", || waiting.for_each(|d| d.shared.wake()));
    }
}
