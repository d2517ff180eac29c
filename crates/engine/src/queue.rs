//! The work queue of one vCPU: all three kinds of work, in one order, closed under its own lock (G5, G14).

use std::collections::VecDeque;

use crate::access::VcpuAccess;
use crate::error::EngineError;
use crate::sync::{AtomicBool, Mutex, Ordering, kept, lock};

/// What runs on the vCPU's thread: gets access to the vCPU, or the reason why it does not run.
pub(crate) type Job = Box<dyn FnOnce(Result<&mut VcpuAccess<'_>, EngineError>) + Send>;

/// One piece of work.
pub(crate) struct Work<J = Job> {
    /// Somebody waits for it; it is also run while this vCPU itself waits for another (G15).
    pub(crate) awaited: bool,
    /// Every other vCPU is to be outside guest execution.
    pub(crate) exclusive: bool,
    /// Part of the exclusive section that is going on, on a vCPU that waits for it.
    pub(crate) lent: bool,
    pub(crate) job: J,
}

struct State<J> {
    items: VecDeque<Work<J>>,
    closed: bool,
}

/// First in, first out; refuses after [`WorkQueue::close`].
pub(crate) struct WorkQueue<J = Job> {
    state: Mutex<State<J>>,
    /// Mirrors `items` for a look without the lock.
    nonempty: AtomicBool,
}

impl<J> WorkQueue<J> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State { items: VecDeque::new(), closed: false }),
            nonempty: AtomicBool::new(false),
        }
    }

    /// Adds work; gives it back if the queue is closed. The caller then wakes the vCPU.
    pub(crate) fn push(&self, work: Work<J>) -> Result<(), Work<J>> {
        let mut state = lock(&self.state);
        if state.closed && kept("queue: look for the close") {
            return Err(work);
        }
        state.items.push_back(work);
        self.nonempty.store(true, Ordering::Release);
        Ok(())
    }

    /// True if there may be work.
    pub(crate) fn has_work(&self) -> bool {
        self.nonempty.load(Ordering::Acquire)
    }

    /// The oldest work.
    pub(crate) fn pop(&self) -> Option<Work<J>> {
        self.take(|_| true)
    }

    /// True if there is work of the kind that is `wanted`.
    pub(crate) fn has(&self, wanted: impl Fn(&Work<J>) -> bool) -> bool {
        self.has_work() && lock(&self.state).items.iter().any(wanted)
    }

    /// The oldest work of the kind that is `wanted`.
    pub(crate) fn take(&self, wanted: impl Fn(&Work<J>) -> bool) -> Option<Work<J>> {
        if !self.has_work() {
            return None;
        }
        let mut state = lock(&self.state);
        let at = state.items.iter().position(wanted)?;
        let work = state.items.remove(at);
        self.nonempty.store(!state.items.is_empty(), Ordering::Release);
        work
    }

    /// How many pieces of work there are, and how many of them somebody waits for.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.items.len(), state.items.iter().filter(|work| work.awaited).count())
    }

    /// Refuses work from now on and hands out what was not done.
    #[must_use = "waiting callers hear of it when the work is dropped"]
    pub(crate) fn close(&self) -> VecDeque<Work<J>> {
        let mut state = lock(&self.state);
        state.closed = true;
        self.nonempty.store(false, Ordering::Release);
        std::mem::take(&mut state.items)
    }
}
