//! The machine's run state: start, pause, resume, reset, failure, shutdown, and who has stopped.
//!
//! The state changes first, then each vCPU is asked to hold; only a vCPU itself declares itself stopped, and
//! only it takes that back, under the lock and after another look at the request (G10). So a pause that
//! finds all vCPUs stopped can rely on it, and a resume in the middle of a pause needs no special case.
//!
//! Lock order: `inner` is taken before any vCPU's sleeper, the gate's list and what the listener locks, never
//! inside them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::EngineError;
use crate::event::MachineListener;
use crate::sync::{Condvar, Mutex, MutexGuard, kept, lock, step};
use crate::vcpu::Vcpu;

/// What the whole machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState {
    /// Not started yet.
    Created,
    /// Guest code may run.
    Running,
    /// A pause was asked for; not every vCPU has stopped yet.
    Pausing,
    /// Every vCPU has stopped.
    Paused,
    /// Stopped for a reset, afterwards as before it.
    Resetting,
    /// Stopped so that the whole can be looked at, afterwards as before it.
    Held,
    /// Leaving for good.
    ShuttingDown,
    /// All threads are gone.
    Gone,
}

impl fmt::Display for MachineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "not started",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resetting => "being reset",
            Self::Held => "held",
            Self::ShuttingDown => "shutting down",
            Self::Gone => "gone",
        })
    }
}

impl MachineState {
    /// Stopped for something that ends by itself.
    const fn is_passing(self) -> bool {
        matches!(self, Self::Resetting | Self::Held)
    }
}

/// One vCPU as the machine's control sees it.
struct Slot {
    vcpu: Arc<Vcpu>,
    /// Declared by the vCPU's own thread only.
    stopped: bool,
    /// Takes part in start and resume; a vCPU that is being plugged does not yet.
    released: bool,
    /// A debugger keeps it stopped while others run.
    frozen: bool,
}

struct Inner {
    state: MachineState,
    /// What follows a reset, or being held: Created, Running or Paused.
    after: MachineState,
    /// Counts pauses asked for, completed and cancelled (all up to that number).
    pause_asked: u64,
    pause_done: u64,
    pause_cancelled: u64,
    failure: Option<String>,
    slots: Vec<Slot>,
    listener: Arc<dyn MachineListener>,
}

/// The machine's control block.
pub(crate) struct Control {
    inner: Mutex<Inner>,
    changed: Condvar,
    patience: Duration,
}

impl Inner {
    fn go(&mut self, to: MachineState, reason: &str) {
        if self.state != to {
            tracing::info!(from = %self.state, to = %to, reason, "machine state");
            let from = std::mem::replace(&mut self.state, to);
            self.listener.state_changed(from, to, reason);
        }
    }

    fn all_stopped(&self) -> bool {
        self.slots.iter().all(|slot| slot.stopped)
    }

    fn not_stopped(&self) -> Vec<usize> {
        self.slots.iter().filter(|slot| !slot.stopped).map(|slot| slot.vcpu.index()).collect()
    }

    fn hold_all(&self) {
        self.slots.iter().for_each(|slot| slot.vcpu.hold(true));
    }

    fn release_all(&self) {
        self.slots.iter().filter(|slot| slot.released && !slot.frozen).for_each(|slot| slot.vcpu.hold(false));
    }

    fn ask_pause(&mut self, reason: &str) {
        self.go(MachineState::Pausing, reason);
        self.pause_asked += 1;
        self.hold_all();
        self.settle();
    }

    fn cancel_pauses(&mut self) {
        self.pause_cancelled = self.pause_asked;
    }

    /// Completes a pause if everybody has stopped.
    fn settle(&mut self) {
        if self.state == MachineState::Pausing && self.all_stopped() {
            self.go(MachineState::Paused, "every vCPU has stopped");
        }
        if self.state == MachineState::Paused {
            self.pause_done = self.pause_asked;
        }
    }

    fn alive(&self) -> Result<(), EngineError> {
        match self.state {
            MachineState::ShuttingDown | MachineState::Gone => Err(EngineError::ShutDown),
            _ => Ok(()),
        }
    }
}

impl Control {
    pub(crate) fn new(patience: Duration, listener: Arc<dyn MachineListener>) -> Self {
        let inner = Inner {
            state: MachineState::Created,
            after: MachineState::Created,
            pause_asked: 0,
            pause_done: 0,
            pause_cancelled: 0,
            failure: None,
            slots: Vec::new(),
            listener,
        };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), patience }
    }

    pub(crate) fn state(&self) -> MachineState {
        lock(&self.inner).state
    }

    /// Guest code may run, or will when what the machine is stopped for is over.
    pub(crate) fn is_running(&self) -> bool {
        let inner = lock(&self.inner);
        let state = if inner.state.is_passing() { inner.after } else { inner.state };
        state == MachineState::Running
    }

    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.inner).failure.clone()
    }

    pub(crate) fn vcpus(&self) -> Vec<Arc<Vcpu>> {
        lock(&self.inner).slots.iter().map(|slot| Arc::clone(&slot.vcpu)).collect()
    }

    pub(crate) fn vcpu(&self, index: usize) -> Result<Arc<Vcpu>, EngineError> {
        let inner = lock(&self.inner);
        let slot = inner.slots.iter().find(|slot| slot.vcpu.index() == index);
        slot.map(|slot| Arc::clone(&slot.vcpu)).ok_or(EngineError::NoSuchVcpu(index))
    }

    /// The state, and each vCPU with whether it has declared itself stopped.
    pub(crate) fn look(&self) -> (MachineState, Vec<(Arc<Vcpu>, bool)>) {
        let inner = lock(&self.inner);
        let vcpus = inner.slots.iter().map(|slot| (Arc::clone(&slot.vcpu), slot.stopped)).collect();
        (inner.state, vcpus)
    }

    /// True while every vCPU declares itself stopped.
    #[cfg(all(test, loom))]
    pub(crate) fn all_stopped(&self) -> bool {
        lock(&self.inner).all_stopped()
    }

    /// Takes in a vCPU whose thread has told that it is ready and stopped.
    pub(crate) fn add(&self, vcpu: Arc<Vcpu>) -> Result<(), EngineError> {
        let mut inner = lock(&self.inner);
        inner.alive()?;
        if inner.slots.iter().any(|slot| slot.vcpu.index() == vcpu.index()) {
            return Err(EngineError::Exists(vcpu.index()));
        }
        let released = inner.state == MachineState::Created;
        inner.slots.push(Slot { vcpu, stopped: true, released, frozen: false });
        inner.slots.sort_by_key(|slot| slot.vcpu.index());
        Ok(())
    }

    /// Lets a vCPU that was added after the start take part.
    pub(crate) fn release(&self, index: usize) -> Result<(), EngineError> {
        let mut inner = lock(&self.inner);
        inner.alive()?;
        let running = inner.state == MachineState::Running;
        let slot = inner.slots.iter_mut().find(|slot| slot.vcpu.index() == index);
        let slot = slot.ok_or(EngineError::NoSuchVcpu(index))?;
        slot.released = true;
        if running {
            slot.vcpu.hold(false);
        }
        Ok(())
    }

    /// Forgets a vCPU whose thread has gone. Nobody waits for it any more: it has counted as stopped since its end.
    pub(crate) fn remove(&self, vcpu: &Arc<Vcpu>) {
        lock(&self.inner).slots.retain(|slot| !Arc::ptr_eq(&slot.vcpu, vcpu));
    }

    pub(crate) fn start(&self, reason: &str) -> Result<(), EngineError> {
        let mut inner = lock(&self.inner);
        inner.alive()?;
        if inner.state != MachineState::Created {
            return Err(EngineError::BadState { operation: "start", state: inner.state });
        }
        inner.go(MachineState::Running, reason);
        inner.slots.iter_mut().for_each(|slot| slot.released = true);
        inner.release_all();
        Ok(())
    }

    /// Asks for a pause without waiting; any thread may. Returns what to wait for, if anything.
    pub(crate) fn request_pause(&self, reason: &str) -> Result<Option<u64>, EngineError> {
        let mut inner = lock(&self.inner);
        inner.alive()?;
        match inner.state {
            MachineState::Running => inner.ask_pause(reason),
            state if state.is_passing() => {
                inner.after = MachineState::Paused;
                inner.pause_asked += 1;
            }
            _ => {}
        }
        let waits = inner.state == MachineState::Pausing || inner.state.is_passing();
        Ok(waits.then_some(inner.pause_asked))
    }

    pub(crate) fn pause(&self, reason: &str) -> Result<(), EngineError> {
        self.request_pause(reason)?.map_or(Ok(()), |ticket| self.await_pause(ticket))
    }

    /// Waits for the pause that [`Control::request_pause`] has asked for.
    pub(crate) fn await_pause(&self, ticket: u64) -> Result<(), EngineError> {
        let done = |inner: &Inner| match inner {
            inner if inner.pause_done >= ticket => Some(Ok(())),
            inner if inner.pause_cancelled >= ticket => Some(Err(EngineError::PauseCancelled)),
            inner => inner.alive().err().map(Err),
        };
        self.wait("Pausing the machine", lock(&self.inner), done).1
    }

    /// Chooses the vCPUs that stay stopped while the machine runs. If it runs already, the chosen ones stop soon.
    pub(crate) fn freeze(&self, chosen: impl Fn(usize) -> bool) -> Result<(), EngineError> {
        let mut inner = lock(&self.inner);
        inner.alive()?;
        inner.slots.iter_mut().for_each(|slot| slot.frozen = chosen(slot.vcpu.index()));
        // Somebody else may have resumed it since the caller has paused it.
        if inner.state == MachineState::Running {
            inner.slots.iter().filter(|slot| slot.released).for_each(|slot| slot.vcpu.hold(slot.frozen));
        }
        Ok(())
    }

    pub(crate) fn resume(&self, reason: &str) -> Result<(), EngineError> {
        let mut inner = lock(&self.inner);
        inner.alive()?;
        if let Some(failure) = &inner.failure {
            return Err(EngineError::Failed(failure.clone()));
        }
        match inner.state {
            MachineState::Pausing | MachineState::Paused => {
                inner.cancel_pauses();
                inner.go(MachineState::Running, reason);
                inner.release_all();
            }
            state if state.is_passing() && inner.after == MachineState::Paused => {
                inner.cancel_pauses();
                inner.after = MachineState::Running;
            }
            // As a start.
            MachineState::Held if inner.after == MachineState::Created => {
                inner.after = MachineState::Running;
                inner.slots.iter_mut().for_each(|slot| slot.released = true);
            }
            MachineState::Created => {
                return Err(EngineError::BadState { operation: "resume", state: inner.state });
            }
            _ => {}
        }
        step("control: notify of a resume", || self.changed.notify_all());
        Ok(())
    }

    /// Stops every vCPU for a reset. The reset ends with the guard.
    pub(crate) fn begin_reset(&self, reason: &str) -> Result<Resetting<'_>, EngineError> {
        self.begin(MachineState::Resetting, reason)
    }

    /// Stops every vCPU for a look at the whole machine. It goes on with the guard's end.
    pub(crate) fn begin_hold(&self, reason: &str) -> Result<Resetting<'_>, EngineError> {
        self.begin(MachineState::Held, reason)
    }

    fn begin(&self, passing: MachineState, reason: &str) -> Result<Resetting<'_>, EngineError> {
        let inner = lock(&self.inner);
        // One after the other.
        let free = |inner: &Inner| match inner.state {
            state if state.is_passing() => None,
            _ => Some(inner.alive()),
        };
        let (mut inner, result) = self.wait("Waiting for another reset", inner, free);
        result?;
        inner.after = match inner.state {
            MachineState::Pausing => MachineState::Paused,
            state => state,
        };
        inner.go(passing, reason);
        inner.hold_all();
        let guard = Resetting { control: self, outcome: Err("the reset was not completed".into()) };
        let stopped = |inner: &Inner| match inner.all_stopped() {
            true => Some(Ok(())),
            false => inner.alive().err().map(Err),
        };
        let (inner, result) = self.wait("Stopping the vCPUs", inner, stopped);
        drop(inner);
        result.map(|()| guard)
    }

    /// Notes that a vCPU cannot go on and asks everybody to stop; waits for nobody.
    pub(crate) fn fail(&self, reason: &str) {
        let mut inner = lock(&self.inner);
        inner.failure.get_or_insert_with(|| reason.to_owned());
        match inner.state {
            MachineState::Running => inner.ask_pause(reason),
            state if state.is_passing() => inner.after = MachineState::Paused,
            _ => {}
        }
    }

    /// From here on nothing but leaving. False if somebody did it before.
    pub(crate) fn begin_shutdown(&self, reason: &str) -> bool {
        let mut inner = lock(&self.inner);
        let first = inner.alive().is_ok();
        if first {
            inner.go(MachineState::ShuttingDown, reason);
            step("control: notify of a shutdown", || self.changed.notify_all());
        }
        first
    }

    pub(crate) fn end_shutdown(&self, reason: &str) {
        // Whoever waited has been told that it begins.
        lock(&self.inner).go(MachineState::Gone, reason);
    }

    /// One round of being stopped, on the vCPU's own thread: declares it, sleeps until there is something to
    /// do, and takes the declaration back. False if the vCPU is to stay stopped.
    pub(crate) fn rest(&self, vcpu: &Vcpu) -> bool {
        // Sleeps only when it has declared itself stopped: a pause that follows on a resume waits for that.
        if self.set_stopped(vcpu, true) || !kept("control: sleep only when declared") {
            vcpu.shared.sleep_until(None, || !vcpu.is_held() || vcpu.queue.has_work() || vcpu.is_leaving());
        }
        self.set_stopped(vcpu, false)
    }

    /// The same without sleeping, for a thread that has other vCPUs as well and knows by [`Control::at_one_moment`]
    /// whether this one is `held`.
    pub(crate) fn rest_for_now(&self, vcpu: &Vcpu, held: bool) -> bool {
        self.set_stopped(vcpu, held) && !held
    }

    /// Looks while no start, pause or resume is half done.
    pub(crate) fn at_one_moment<R>(&self, look: impl FnOnce() -> R) -> R {
        let _inner = lock(&self.inner);
        look()
    }

    /// Notes that the calling vCPU has stopped, or goes on; false if it is asked for the opposite.
    fn set_stopped(&self, vcpu: &Vcpu, stopped: bool) -> bool {
        let mut inner = lock(&self.inner);
        if vcpu.is_held() != stopped && kept("control: look at the request under the lock") {
            return false;
        }
        if let Some(slot) = inner.slots.iter_mut().find(|slot| std::ptr::eq(&*slot.vcpu, vcpu)) {
            slot.stopped = stopped;
        }
        inner.settle();
        step("control: notify of an acknowledgement", || self.changed.notify_all());
        true
    }

    /// The calling vCPU's thread ends: it counts as stopped for ever.
    pub(crate) fn declare_gone(&self, vcpu: &Vcpu) {
        vcpu.hold(true);
        self.set_stopped(vcpu, true);
    }

    /// Waits until `done` gives a result, at most as long as the engine's patience.
    fn wait<'a>(
        &self,
        what: &'static str,
        mut inner: MutexGuard<'a, Inner>,
        done: impl Fn(&Inner) -> Option<Result<(), EngineError>>,
    ) -> (MutexGuard<'a, Inner>, Result<(), EngineError>) {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(result) = done(&inner) {
                return (inner, result);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (seconds, vcpus) = (self.patience.as_secs(), inner.not_stopped());
                return (inner, Err(EngineError::Timeout { what, seconds, vcpus }));
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

/// A reset in progress, or a hold: every vCPU is stopped. Dropping that of a reset without [`Resetting::complete`]
/// leaves the machine paused and failed.
pub(crate) struct Resetting<'a> {
    control: &'a Control,
    outcome: Result<(), String>,
}

impl Resetting<'_> {
    pub(crate) fn complete(mut self) {
        self.outcome = Ok(());
    }
}

impl Drop for Resetting<'_> {
    fn drop(&mut self) {
        let mut inner = lock(&self.control.inner);
        let reason = match inner.state {
            MachineState::Resetting => "the reset is over",
            MachineState::Held => "held no longer",
            _ => return,
        };
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        match outcome {
            // Nothing was changed.
            _ if inner.state == MachineState::Held => {}
            Ok(()) => inner.failure = None,
            Err(reason) => {
                inner.failure.get_or_insert(reason);
                inner.after = MachineState::Paused;
            }
        }
        match inner.after {
            // Not everybody needs to have stopped, if the reset was given up.
            MachineState::Paused => inner.go(MachineState::Pausing, reason),
            next => inner.go(next, reason),
        }
        inner.settle();
        if inner.state == MachineState::Running {
            inner.release_all();
        }
        step("control: notify of a reset's end", || self.control.changed.notify_all());
    }
}
