//! Access to a vCPU on its own thread, outside guest execution: what work gets.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use armlet_arm::CpuState;

use crate::accel::{AcceleratorError, VcpuBackend};
use crate::engine::Core;
use crate::error::EngineError;
use crate::gate::Closed;
use crate::power::Power;
use crate::queue::{Job, Work};
use crate::reply::{Promise, reply};
use crate::report::Waiting;
use crate::single::Pool;
use crate::vcpu::{Then, Vcpu};

/// A vCPU between two runs, on its own thread.
///
/// Only this can begin an exclusive section or wait for another vCPU from a vCPU's thread, and it exists
/// only outside guest execution: entering a section from inside it cannot be written down (G6).
pub struct VcpuAccess<'a> {
    pub(crate) seat: &'a mut Seat,
    pub(crate) vcpu: &'a Arc<Vcpu>,
    pub(crate) core: &'a Arc<Core>,
    /// This thread is in an exclusive section, its own or that of a vCPU which waits for it.
    pub(crate) exclusive: bool,
    /// The other vCPUs of this thread, if they share one.
    pub(crate) pool: Option<&'a Pool>,
}

/// What only a vCPU's own thread has.
pub(crate) struct Body {
    pub(crate) backend: Box<dyn VcpuBackend>,
    /// Chosen by work (power-on, reset).
    pub(crate) next: Option<Then>,
}

/// Where a vCPU's body is while it is used. It is empty only while the vCPU waits for others of its thread, which
/// find the body in their [`Pool`].
pub(crate) struct Seat(pub(crate) Option<Body>);

impl Seat {
    pub(crate) fn body(&self) -> &Body {
        self.0.as_ref().expect("a vCPU in use has its body")
    }

    pub(crate) fn body_mut(&mut self) -> &mut Body {
        self.0.as_mut().expect("a vCPU in use has its body")
    }
}

impl VcpuAccess<'_> {
    /// The vCPU's number.
    pub fn index(&self) -> usize {
        self.vcpu.index()
    }

    /// The accelerator's vCPU.
    pub fn backend(&mut self) -> &mut dyn VcpuBackend {
        &mut *self.seat.body_mut().backend
    }

    /// The architectural state.
    pub fn state(&self) -> &CpuState {
        self.seat.body().backend.state()
    }

    /// The architectural state, for changing.
    pub fn state_mut(&mut self) -> &mut CpuState {
        self.backend().state_mut()
    }

    /// Whether it is on.
    pub fn power(&self) -> Power {
        self.vcpu.power.get()
    }

    /// Whether its event register is set.
    pub fn event_pending(&self) -> bool {
        self.vcpu.shared.event_pending()
    }

    /// Replaces registers, power and event register, as a reset does; memory may have been replaced as well.
    pub fn replace(&mut self, state: CpuState, power: Power, event: bool) {
        self.backend().reset(state);
        self.go_on(power, event);
    }

    /// As [`Self::replace`], with registers that must all be there afterwards.
    ///
    /// # Errors
    /// What the accelerator cannot have; the vCPU must not run then.
    pub fn restore(&mut self, state: CpuState, power: Power, event: bool) -> Result<(), AcceleratorError> {
        self.backend().replace(state)?;
        self.go_on(power, event);
        Ok(())
    }

    fn go_on(&mut self, power: Power, event: bool) {
        self.vcpu.shared.take_event();
        if event {
            self.vcpu.shared.set_event();
        }
        self.vcpu.power.set(power);
        self.set_next(if power == Power::On { Then::Run } else { Then::PoweredOff });
    }

    /// True inside an exclusive section.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Runs `f` on vCPU `target`'s thread and returns its result. On this vCPU it is a direct call. While
    /// it waits this vCPU serves others that wait for it, so two that call each other get through.
    ///
    /// # Errors
    /// The target does not exist, leaves, does not answer, or `f` panics.
    pub fn run_on<R, F>(&mut self, target: usize, f: F) -> Result<R, EngineError>
    where
        R: Send + 'static,
        F: FnOnce(&mut VcpuAccess<'_>) -> R + Send + 'static,
    {
        if target == self.index() {
            return Ok(f(self));
        }
        self.call(target, false, f)
    }

    /// As [`VcpuAccess::run_on`], with every other vCPU outside guest execution meanwhile. Sections may be
    /// nested.
    ///
    /// # Errors
    /// As [`VcpuAccess::run_on`]; also if some vCPU does not leave guest execution in time.
    pub fn run_exclusive<R, F>(&mut self, target: usize, f: F) -> Result<R, EngineError>
    where
        R: Send + 'static,
        F: FnOnce(&mut VcpuAccess<'_>) -> R + Send + 'static,
    {
        if target != self.index() {
            return self.call(target, true, f);
        }
        self.exclusively(f)
    }

    fn call<R, F>(&mut self, target: usize, exclusive: bool, f: F) -> Result<R, EngineError>
    where
        R: Send + 'static,
        F: FnOnce(&mut VcpuAccess<'_>) -> R + Send + 'static,
    {
        let vcpu = self.core.control.vcpu(target)?;
        let (promise, answer) = reply(target, Some(Arc::clone(&self.vcpu.shared)));
        // Inside a section the gate is ours: the target works under it rather than waiting for it.
        let lent = self.exclusive;
        let work = Work { awaited: true, exclusive: exclusive && !lent, lent, job: job(promise, lent, f) };
        vcpu.submit(work).map_err(|_| EngineError::Gone(target))?;
        if let Some(pool) = self.pool {
            pool.lend(self, |core| pool.serve(core, &vcpu, lent, || answer.is_done()));
            return answer.take().unwrap_or(Err(EngineError::Gone(target)));
        }
        // What others want would be done in the section, which they have no part in.
        let serve = if lent { Serve::Lent } else { Serve::All };
        let (patience, me) = (self.core.patience, Arc::clone(self.vcpu));
        let _noted = me.waits.note(Waiting::Work(target));
        if !self.wait_serving(serve, Some(patience), || answer.is_done()) && answer.abandon() {
            return Err(self.core.timeout("Work", vec![target]));
        }
        // It runs or has run; it ends, or its promise is dropped.
        self.wait_serving(serve, None, || answer.is_done());
        answer.take().unwrap_or(Err(EngineError::Gone(target)))
    }

    /// Runs `f` here in an exclusive section.
    fn exclusively<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> Result<R, EngineError> {
        let core = Arc::clone(self.core);
        let outer = self.exclusive;
        let _closed = self.begin_exclusive(&core)?;
        let result = f(self);
        self.exclusive = outer;
        Ok(result)
    }

    /// Closes the gate and waits until every other vCPU is outside guest execution. Nothing to do (`None`)
    /// inside a section.
    fn begin_exclusive<'c>(&mut self, core: &'c Arc<Core>) -> Result<Option<Closed<'c>>, EngineError> {
        if self.exclusive {
            return Ok(None);
        }
        let closed = self.close_gate(core)?;
        let vcpu = Arc::clone(self.vcpu);
        let _noted = vcpu.waits.note(Waiting::Executing);
        // Serves nobody here: who waits for this vCPU is not executing, so this wait does not need it.
        if !self.wait_serving(Serve::Nobody, Some(core.patience), || core.gate.others_out()) {
            return Err(core.timeout("An exclusive section", core.gate.executing()));
        }
        core.counters.exclusive_sections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.exclusive = true;
        Ok(Some(closed))
    }

    /// Waits for its turn at the gate.
    fn close_gate<'c>(&mut self, core: &'c Arc<Core>) -> Result<Closed<'c>, EngineError> {
        let vcpu = Arc::clone(self.vcpu);
        loop {
            if let Some(closed) = core.gate.close(&vcpu.door) {
                return Ok(closed);
            }
            let waiting = (vcpu.door.wait(), vcpu.waits.note(Waiting::Turn));
            let in_time = self.wait_serving(Serve::All, Some(core.patience), || core.gate.is_open());
            drop(waiting);
            if !in_time {
                return Err(core.timeout("Waiting for another exclusive section", Vec::new()));
            }
        }
    }

    /// Sleeps until `done`, or until `limit` has passed (false), and does others' awaited work meanwhile.
    fn wait_serving(&mut self, serve: Serve, limit: Option<Duration>, done: impl Fn() -> bool) -> bool {
        let vcpu = Arc::clone(self.vcpu);
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            while let Some(work) = serve.pop(&vcpu) {
                self.perform(work);
            }
            let woken = vcpu.shared.sleep_until(deadline, || done() || serve.has_work(&vcpu));
            if done() {
                return true;
            }
            if !woken {
                return false;
            }
        }
    }

    /// Does one piece of work.
    pub(crate) fn perform(&mut self, work: Work) {
        let core = Arc::clone(self.core);
        core.counters.work_items.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if !work.exclusive {
            return (work.job)(Ok(self));
        }
        let outer = self.exclusive;
        match self.begin_exclusive(&core) {
            Ok(closed) => {
                (work.job)(Ok(self));
                self.exclusive = outer;
                drop(closed);
            }
            Err(error) => (work.job)(Err(error)),
        }
    }

    /// Chooses what the vCPU does next, whatever it did before.
    pub(crate) fn set_next(&mut self, next: Then) {
        self.seat.body_mut().next = Some(next);
    }
}

/// Whose work a waiting vCPU does.
#[derive(Clone, Copy)]
enum Serve {
    Nobody,
    /// Work of the section that this vCPU is in.
    Lent,
    /// All awaited work.
    All,
}

impl Serve {
    fn wants(self, work: &Work) -> bool {
        match self {
            Self::Nobody => false,
            Self::Lent => work.lent,
            Self::All => work.awaited,
        }
    }

    fn pop(self, vcpu: &Vcpu) -> Option<Work> {
        vcpu.queue.take(|work| self.wants(work))
    }

    fn has_work(self, vcpu: &Vcpu) -> bool {
        vcpu.queue.has(|work| self.wants(work))
    }
}

/// Wraps `f` so that its result, or its panic, is answered. A panic then goes on: the thread's state cannot
/// be trusted any more.
pub(crate) fn job<R, F>(promise: Promise<R>, lent: bool, f: F) -> Job
where
    R: Send + 'static,
    F: FnOnce(&mut VcpuAccess<'_>) -> R + Send + 'static,
{
    Box::new(move |access| {
        let access = match access {
            Ok(access) => access,
            Err(error) => return promise.answer(Err(error)),
        };
        if !promise.begin() {
            return;
        }
        let (vcpu, outer) = (access.index(), access.exclusive);
        access.exclusive |= lent;
        let result = catch_unwind(AssertUnwindSafe(|| f(access)));
        access.exclusive = outer;
        match result {
            Ok(result) => promise.answer(Ok(result)),
            Err(panic) => {
                promise.answer(Err(EngineError::Panicked { vcpu, reason: panic_message(&*panic) }));
                resume_unwind(panic);
            }
        }
    })
}

/// The text of a caught panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".to_owned())
}
