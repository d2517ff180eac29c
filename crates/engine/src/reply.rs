//! The way back of awaited work: a result, an error, or the news that nobody will answer.

use std::sync::Arc;
use std::time::Duration;

use crate::error::EngineError;
use crate::shared::VcpuShared;
use crate::sync::{Condvar, Mutex, lock, step};

enum State<R> {
    /// Not begun.
    Queued,
    /// `f` runs.
    Running,
    /// The caller went away before it had begun.
    Abandoned,
    Done(Result<R, EngineError>),
    /// The caller has the result.
    Taken,
}

struct Slot<R> {
    state: Mutex<State<R>>,
    done: Condvar,
    /// A caller that is itself a vCPU sleeps in its own sleeper.
    caller: Option<Arc<VcpuShared>>,
}

/// The caller's end.
pub(crate) struct Reply<R>(Arc<Slot<R>>);

/// The worker's end; dropped without an answer it says that the vCPU has gone.
pub(crate) struct Promise<R> {
    slot: Arc<Slot<R>>,
    vcpu: usize,
}

/// Both ends, for work on `vcpu`.
pub(crate) fn reply<R>(vcpu: usize, caller: Option<Arc<VcpuShared>>) -> (Promise<R>, Reply<R>) {
    let slot = Arc::new(Slot { state: Mutex::new(State::Queued), done: Condvar::new(), caller });
    (Promise { slot: Arc::clone(&slot), vcpu }, Reply(slot))
}

impl<R> Promise<R> {
    /// Says that the work begins; false if nobody wants it any more.
    pub(crate) fn begin(&self) -> bool {
        let mut state = lock(&self.slot.state);
        let wanted = matches!(*state, State::Queued);
        if wanted {
            *state = State::Running;
        }
        wanted
    }

    /// Answers.
    pub(crate) fn answer(self, result: Result<R, EngineError>) {
        self.put(result);
    }

    fn put(&self, result: Result<R, EngineError>) {
        {
            let mut state = lock(&self.slot.state);
            if !matches!(*state, State::Queued | State::Running) {
                return;
            }
            *state = State::Done(result);
        }
        step("reply: notify of the caller", || self.slot.done.notify_all());
        if let Some(caller) = &self.slot.caller {
            step("reply: wake of the calling vCPU", || caller.wake());
        }
    }
}

impl<R> Drop for Promise<R> {
    fn drop(&mut self) {
        self.put(Err(EngineError::Gone(self.vcpu)));
    }
}

impl<R> Reply<R> {
    pub(crate) fn is_done(&self) -> bool {
        matches!(*lock(&self.0.state), State::Done(_))
    }

    /// The result, if there is one.
    pub(crate) fn take(&self) -> Option<Result<R, EngineError>> {
        let mut state = lock(&self.0.state);
        if !matches!(*state, State::Done(_)) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Some(result),
            _ => None,
        }
    }

    /// Gives up unless the work has begun; true if it will not run.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = lock(&self.0.state);
        let queued = matches!(*state, State::Queued);
        if queued {
            *state = State::Abandoned;
        }
        queued
    }

    /// Waits for the answer on a thread that is no vCPU's; `None` if the work has not begun within
    /// `patience` (it will not run then). Work that has begun is waited for: its end is up to `f`.
    pub(crate) fn wait(&self, patience: Duration) -> Option<Result<R, EngineError>> {
        let mut state = lock(&self.0.state);
        let deadline = std::time::Instant::now() + patience;
        loop {
            match *state {
                State::Done(_) => {
                    drop(state);
                    return self.take();
                }
                State::Running => state = self.0.done.wait(state).unwrap_or_else(|e| e.into_inner()),
                _ => {
                    let left = deadline.saturating_duration_since(std::time::Instant::now());
                    if left.is_zero() {
                        *state = State::Abandoned;
                        return None;
                    }
                    state = self.0.done.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
                }
            }
        }
    }
}
