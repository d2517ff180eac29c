//! All vCPUs of a machine on one thread, in a deterministic order (G18).
//!
//! The thread goes round: it looks after every vCPU's work and requests, does what happens at the present count, and
//! lets one vCPU execute until the next thing happens, the vCPU has nothing to do, or its turn is over. Who is next
//! depends on the count alone. Kicks, work and pauses from outside end an execution at any point, but not a turn.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::accel::Halt;
use crate::access::{Body, Seat, VcpuAccess, panic_message};
use crate::engine::Core;
use crate::pace::{NEVER, Pace};
use crate::shared::Common;
use crate::sync::{Mutex, lock, thread as threads};
use crate::thread::{self, Joining, VcpuThread, resumed};
use crate::vcpu::{Then, Vcpu, VcpuState};

/// Somebody who asks for something all the time does not keep the guest from executing.
const MOST_ROUNDS: usize = 64;

struct Queue {
    joining: Vec<Joining>,
    /// The thread exists, and will look at `joining` again.
    active: bool,
}

/// The thread as others see it.
pub(crate) struct Crew {
    pace: Arc<dyn Pace>,
    common: Arc<Common>,
    queue: Mutex<Queue>,
}

impl Crew {
    pub(crate) fn new(pace: Arc<dyn Pace>) -> Self {
        let queue = Mutex::new(Queue { joining: Vec::new(), active: false });
        Self { pace, common: Arc::new(Common::new()), queue }
    }

    /// Hands a new vCPU to the thread, which is started if there is none.
    pub(crate) fn join(&self, core: &Arc<Core>, joining: Joining) -> std::io::Result<()> {
        joining.vcpu.shared.share_thread(&self.common);
        let mut queue = lock(&self.queue);
        queue.joining.push(joining);
        if !queue.active {
            let core = Arc::clone(core);
            let name = format!("CPUs/{}", core.accelerator.name());
            threads::Builder::new().name(name).spawn(move || run(core))?;
            queue.active = true;
        }
        drop(queue);
        self.common.sleeper.wake();
        Ok(())
    }

    fn has_joining(&self) -> bool {
        !lock(&self.queue).joining.is_empty()
    }

    fn take_joining(&self) -> Vec<Joining> {
        std::mem::take(&mut lock(&self.queue).joining)
    }

    /// Ends the thread's activity unless somebody has joined.
    fn close(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.active = !queue.joining.is_empty();
        !queue.active
    }
}

/// Where the bodies of those vCPUs are that nobody on the thread uses.
pub(crate) struct Pool(RefCell<Vec<Place>>);

struct Place {
    vcpu: Arc<Vcpu>,
    body: Option<Body>,
    /// Why the vCPU cannot be used any more.
    panic: Option<String>,
}

impl Pool {
    fn add(&self, vcpu: &Arc<Vcpu>, body: Body) {
        self.0.borrow_mut().push(Place { vcpu: Arc::clone(vcpu), body: Some(body), panic: None });
    }

    fn remove(&self, vcpu: &Arc<Vcpu>) {
        self.0.borrow_mut().retain(|place| !Arc::ptr_eq(&place.vcpu, vcpu));
    }

    fn with<R>(&self, vcpu: &Arc<Vcpu>, f: impl FnOnce(&mut Place) -> R) -> Option<R> {
        self.0.borrow_mut().iter_mut().find(|place| Arc::ptr_eq(&place.vcpu, vcpu)).map(f)
    }

    fn take(&self, vcpu: &Arc<Vcpu>) -> Option<Body> {
        self.with(vcpu, |place| place.body.take()).flatten()
    }

    fn put(&self, vcpu: &Arc<Vcpu>, body: Option<Body>) {
        self.with(vcpu, |place| place.body = body);
    }

    /// Why the vCPU cannot be used any more, if so.
    fn panic(&self, vcpu: &Arc<Vcpu>) -> Option<String> {
        self.with(vcpu, |place| place.panic.clone()).flatten()
    }

    /// Leaves the body of `access` to the others while `f` runs.
    pub(crate) fn lend(&self, access: &mut VcpuAccess<'_>, f: impl FnOnce(&Arc<Core>)) {
        let (vcpu, core) = (Arc::clone(access.vcpu), Arc::clone(access.core));
        self.put(&vcpu, access.seat.0.take());
        f(&core);
        access.seat.0 = self.take(&vcpu);
    }

    /// Has `vcpu` do its work in order until `done`; only what has its part in a section that is
    /// `lent` to it, if so.
    pub(crate) fn serve(&self, core: &Arc<Core>, vcpu: &Arc<Vcpu>, lent: bool, done: impl Fn() -> bool) {
        let mut seat = Seat(self.take(vcpu));
        if seat.0.is_none() {
            return;
        }
        let work = || {
            while !done()
                && let Some(work) = vcpu.queue.take(|work| !lent || work.lent)
            {
                let mut access =
                    VcpuAccess { seat: &mut seat, vcpu, core, exclusive: false, pool: Some(self) };
                access.perform(work);
            }
        };
        let end = catch_unwind(AssertUnwindSafe(work));
        self.put(vcpu, seat.0);
        if let Err(panic) = end {
            self.with(vcpu, |place| place.panic = Some(panic_message(&*panic)));
        }
    }
}

/// One vCPU of the thread.
struct Member {
    thread: VcpuThread,
    /// The count at which its halt ends by itself.
    wake_at: u64,
    /// The halt that being held has interrupted.
    halted: Option<Halt>,
    /// It was to stop and stay stopped when [`Single::attend`] looked last.
    held: bool,
}

/// Why nobody executes.
enum Nobody {
    /// All wait, at most until this count.
    Waiting(u64),
    /// Somebody outside has to act first.
    Held,
}

struct Single {
    core: Arc<Core>,
    pace: Arc<dyn Pace>,
    common: Arc<Common>,
    pool: Rc<Pool>,
    members: Vec<Member>,
    /// Whose turn it is, by its place in `members`, and the count at which that ends.
    current: Option<usize>,
    turn_ends: u64,
    /// The count when somebody was chosen last.
    chosen_at: u64,
    /// Whose threads count as ended next.
    gone: Vec<Arc<Vcpu>>,
}

fn run(core: Arc<Core>) {
    thread::enter_vcpu_thread();
    let Some(crew) = &core.crew else { return };
    let single = Single {
        pace: Arc::clone(&crew.pace),
        common: Arc::clone(&crew.common),
        pool: Rc::new(Pool(RefCell::default())),
        members: Vec::new(),
        current: None,
        turn_ends: 0,
        chosen_at: 0,
        gone: Vec::new(),
        core: Arc::clone(&core),
    };
    let last = single.run(crew);
    // Who waits for this finds nothing of the machine left here.
    drop(core);
    last.iter().for_each(|vcpu| vcpu.finish());
}

impl Single {
    /// Until nobody is left; who was it last.
    fn run(mut self, crew: &Crew) -> Vec<Arc<Vcpu>> {
        loop {
            crew.take_joining().into_iter().for_each(|joining| self.admit(joining));
            self.attend_to_all();
            if self.members.is_empty() {
                if crew.close() {
                    return self.gone;
                }
                continue;
            }
            self.gone.drain(..).for_each(|vcpu| vcpu.finish());
            match self.choose() {
                Ok(member) => self.turn(member),
                Err(Nobody::Held) => {
                    self.sleep(crew, None, || false);
                }
                Err(Nobody::Waiting(until)) => self.idle(crew, until),
            }
        }
    }

    /// Makes a vCPU.
    fn admit(&mut self, joining: Joining) {
        let Joining { vcpu, state, first, promise } = joining;
        if !promise.begin() {
            return vcpu.finish();
        }
        match thread::make(&self.core, &vcpu, state, first) {
            Ok(backend) => {
                self.pool.add(&vcpu, Body { backend, next: None });
                let thread = VcpuThread::new(&self.core, &vcpu, Seat(None), first);
                self.members.push(Member { thread, wake_at: NEVER, halted: None, held: true });
                self.members.sort_by_key(|member| member.thread.vcpu.index());
                promise.answer(Ok(Ok(())));
            }
            Err(error) => {
                promise.answer(Ok(Err(error)));
                vcpu.finish();
            }
        }
    }

    /// Until nothing more is asked: what is asked of several vCPUs at once, such as to start, is done before one of
    /// them executes.
    fn attend_to_all(&mut self) {
        for _ in 0..MOST_ROUNDS {
            self.attend();
            if !self.is_asked() {
                return;
            }
        }
    }

    /// Looks after what is asked of each vCPU. All are held, or let go, for the same moment: if one were seen before the
    /// others, who executes next and how much time passes would hang on the host.
    fn attend(&mut self) {
        self.members.iter().for_each(|member| member.thread.vcpu.shared.clear_exit_request());
        let members = &mut self.members;
        self.core.control.at_one_moment(|| {
            members.iter_mut().for_each(|member| member.held = member.thread.vcpu.is_held())
        });
        for i in 0..self.members.len() {
            let pool = Rc::clone(&self.pool);
            self.with(i, |member| member.attend(&pool));
        }
        let gone = |member: &Member| member.thread.state == VcpuState::Gone;
        let earlier = self.members.iter().take(self.current.unwrap_or(0));
        let before = earlier.filter(|member| gone(member)).count();
        self.members.retain(|member| !gone(member));
        self.current = self.current.map(|current| current - before);
    }

    /// Does something with a vCPU that is in use meanwhile; a panic ends it.
    fn with<R>(&mut self, i: usize, f: impl FnOnce(&mut Member) -> R) -> Option<R> {
        let member = &mut self.members[i];
        let vcpu = Arc::clone(&member.thread.vcpu);
        let result = match self.pool.panic(&vcpu) {
            Some(panic) => Err(panic),
            None => {
                member.thread.seat = Seat(self.pool.take(&vcpu));
                let result =
                    catch_unwind(AssertUnwindSafe(|| f(member))).map_err(|panic| panic_message(&*panic));
                self.pool.put(&vcpu, member.thread.seat.0.take());
                result
            }
        };
        let result = result.map(Some).unwrap_or_else(|panic| {
            thread::farewell(&self.core, &vcpu, Some(panic));
            member.thread.state = VcpuState::Gone;
            None
        });
        if member.thread.state == VcpuState::ShuttingDown {
            thread::farewell(&self.core, &vcpu, None);
            member.thread.state = VcpuState::Gone;
        }
        if member.thread.state == VcpuState::Gone {
            // Its accelerator's part goes before its thread counts as ended.
            self.pool.remove(&vcpu);
            self.gone.push(vcpu);
        }
        result
    }

    /// Who executes next.
    fn choose(&mut self) -> Result<usize, Nobody> {
        let now = self.pace.count().now();
        if now < std::mem::replace(&mut self.chosen_at, now) {
            // Time has begun anew.
            (self.current, self.turn_ends) = (None, 0);
        }
        // Whoever has asked the machine's thread for something, or has failed, stops the guest's time.
        if self.members.iter().any(|member| member.awaits_machine()) {
            return Err(Nobody::Held);
        }
        let count = self.members.len();
        if let Some(i) = self.current.filter(|&i| i < count && now < self.turn_ends)
            && self.gets_ready(i, now)
        {
            return Ok(i);
        }
        let first = self.current.map_or(0, |current| current + 1);
        if let Some(i) = (first..first + count).map(|i| i % count).find(|&i| self.gets_ready(i, now)) {
            (self.current, self.turn_ends) = (Some(i), now.saturating_add(self.pace.turn()));
            return Ok(i);
        }
        if self.members.iter().all(|member| matches!(member.thread.state, VcpuState::Stopped(_))) {
            return Err(Nobody::Held);
        }
        let wakes = self.members.iter().map(|member| member.wakes_at()).min();
        Err(Nobody::Waiting(wakes.unwrap_or(NEVER).min(self.pace.next())))
    }

    fn gets_ready(&mut self, i: usize, now: u64) -> bool {
        self.with(i, |member| member.gets_ready(now)) == Some(true)
    }

    /// One execution of a vCPU, unless something happens first.
    fn turn(&mut self, i: usize) {
        let (now, next) = (self.pace.count().now(), self.pace.next());
        if next <= now {
            return self.happen();
        }
        let until = self.turn_ends.min(next);
        let pace = Arc::clone(&self.pace);
        self.common.set_executing(Some(&self.members[i].thread.vcpu.shared));
        if !self.is_asked() {
            let vcpu = self.members[i].thread.vcpu.index();
            self.with(i, |member| member.execute(until, &*pace));
            pace.executed(vcpu, now, pace.count().now());
        }
        self.common.set_executing(None);
    }

    fn happen(&self) {
        let pool = &self.pool;
        self.pace.happen(&mut || digest(pool));
    }

    fn idle(&mut self, crew: &Crew, until: u64) {
        if until <= self.pace.count().now() {
            return self.happen();
        }
        let pace = Arc::clone(&self.pace);
        pace.idle(until, &mut |time| {
            let something = || {
                pace.next() <= pace.count().now() || self.members.iter().any(|member| self.is_awake(member))
            };
            self.sleep(crew, time, something)
        });
    }

    /// Sleeps until a vCPU is asked for something, or `something` else is the case (true), or for that long.
    fn sleep(&self, crew: &Crew, time: Option<Duration>, something: impl Fn() -> bool) -> bool {
        let deadline = time.map(|time| Instant::now() + time);
        self.common.sleeper.sleep_until(deadline, || self.is_asked() || crew.has_joining() || something())
    }

    /// Something is asked of a vCPU.
    fn is_asked(&self) -> bool {
        self.members.iter().any(|member| member.thread.vcpu.shared.exit_requested())
    }

    fn is_awake(&self, member: &Member) -> bool {
        let VcpuState::Halted(halt) = member.thread.state else { return false };
        let vcpu = &member.thread.vcpu;
        let ends = |body: &Body| vcpu.shared.ends(halt, body.backend.state().pstate);
        self.pool.with(vcpu, |place| place.body.as_ref().is_some_and(ends)) == Some(true)
    }
}

impl Member {
    fn attend(&mut self, pool: &Pool) {
        let vcpu = Arc::clone(&self.thread.vcpu);
        if self.thread.drain(Some(pool)) {
            self.halted = None;
        }
        if vcpu.is_leaving() {
            return self.thread.enter(VcpuState::ShuttingDown);
        }
        if self.held {
            if let VcpuState::Halted(halt) = self.thread.state {
                self.halted = Some(halt);
            }
            let then = match self.thread.state {
                VcpuState::Stopped(then) => then,
                VcpuState::PoweredOff => Then::PoweredOff,
                VcpuState::AwaitingMachine => Then::AwaitMachine,
                _ => Then::Run,
            };
            self.thread.enter(VcpuState::Stopped(then));
        }
        if let VcpuState::Stopped(then) = self.thread.state
            && self.thread.core.control.rest_for_now(&vcpu, self.held)
        {
            let halted = self.halted.take().filter(|_| !self.thread.seat.body().backend.steps());
            // A halt goes on where it was: what the guest sees of being held must be nothing.
            self.thread.enter(halted.map_or(resumed(then), VcpuState::Halted));
        }
    }

    fn awaits_machine(&self) -> bool {
        matches!(self.thread.state, VcpuState::AwaitingMachine | VcpuState::Stopped(Then::AwaitMachine))
    }

    /// True if it can execute at the count `now`.
    fn gets_ready(&mut self, now: u64) -> bool {
        if let VcpuState::Halted(halt) = self.thread.state
            && (now >= self.wake_at || self.thread.is_awake(halt))
        {
            let next = self.thread.end_halt(halt);
            self.thread.enter(next);
        }
        self.thread.state == VcpuState::Running
    }

    fn wakes_at(&self) -> u64 {
        if matches!(self.thread.state, VcpuState::Halted(_)) { self.wake_at } else { NEVER }
    }

    fn execute(&mut self, until: u64, pace: &dyn Pace) {
        let exit = {
            let core = Arc::clone(&self.thread.core);
            let vcpu = Arc::clone(&self.thread.vcpu);
            // Closed only while somebody on this very thread works.
            let Some(_inside) = core.gate.enter(&vcpu.door) else { return };
            self.thread.seat.body_mut().backend.run_until(until)
        };
        let next = self.thread.handle(exit);
        let limit = self.thread.halt_limit.filter(|_| matches!(next, VcpuState::Halted(_)));
        self.wake_at = limit.map_or(NEVER, |limit| pace.count().now().saturating_add(pace.counts_in(limit)));
        self.thread.enter(next);
    }
}

/// A number made of all registers.
fn digest(pool: &Pool) -> u64 {
    let mut digest = 0u64;
    // The same for ever: recordings hold it.
    let mut add = |word: u64| digest = (digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for place in pool.0.borrow().iter() {
        let Some(body) = &place.body else { continue };
        let s = body.backend.state();
        s.x.into_iter().chain(s.sp_el).for_each(&mut add);
        s.v.into_iter().flat_map(|v| [v as u64, (v >> 64) as u64]).for_each(&mut add);
        [s.pc, s.pstate.bits().into(), s.fp.fpcr.into(), s.fp.fpsr.into()].into_iter().for_each(&mut add);
    }
    digest
}
