//! A device's work: on a thread of its own, since it may block on the host, or at once.
//!
//! The thread lives as long as the device and sleeps on a condition variable while there is nothing to do. The
//! device's queues are in a [`Job`], which is installed when the driver starts the device and removed when it
//! resets it. The thread takes the job out of the shared state while it runs it, so nothing is locked during
//! host I/O; who wants the job gone, or quiet, asks for it through [`Stop`] and waits until it is back.
//!
//! Where drivers wait for each of many small requests, whoever wakes the thread first attempts the work itself, as far as
//! that takes no waiting ([`Job::attempt`]).
//!
//! What a driver most likely finds out by itself a job need not tell it at once: it may owe that ([`Outcome::Owing`]), and
//! the thread settles it a little later ([`Job::settle`]).
//!
//! In a machine whose every step is to be the same in every run there is no thread: the work is done by whoever wakes
//! it, a vCPU, before its access to the device is over.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Who does a device's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// A thread of the device's own; a vCPU never waits for the host.
    #[default]
    Threaded,
    /// The vCPU that notifies the device, which waits for the host: completion and interrupt come with the
    /// notification, in every run alike.
    Immediate,
}

/// Work that is done when it is woken.
pub(crate) trait Job: Send + 'static {
    /// Works until nothing is left to do, and returns early, between two requests, when `stop` asks for it.
    fn run(&mut self, stop: &Stop) -> Outcome;

    /// Does the same as far as it takes neither waiting nor long; [`Outcome::More`] if something is left.
    fn attempt(&mut self, stop: &Stop) -> Outcome {
        let _ = stop;
        Outcome::More
    }

    /// Tells the driver what it is owed, if it still is. [`Outcome::Owing`] if it is to be asked again.
    fn settle(&mut self, when: Settle) -> Outcome {
        let _ = when;
        Outcome::Idle
    }
}

/// When a driver is to be told what it is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// [`LATE`] has passed since [`Outcome::Owing`]: unless the driver has meanwhile looked for itself.
    Due,
    /// In any case: nothing is to be left over.
    Now,
}

/// How late a driver may be told what it is owed.
pub(crate) const LATE: Duration = Duration::from_micros(250);

/// How a [`Job::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is left to do until the next wake.
    Idle,
    /// As [`Idle`](Self::Idle), but the driver is owed a notification.
    Owing,
    /// There is more to do; asked to stop, or giving others a turn.
    More,
    /// The driver broke the rules; the job has said so on the link and is not run again.
    Broken,
}

/// Asks a running job to return soon.
#[derive(Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    /// True if the job should return between two requests.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Jobs are run when woken.
    Running,
    /// Wakes are remembered and nothing is run.
    Paused,
    /// What is left is worked off, then the thread ends.
    Draining,
    /// The thread has ended.
    Ended,
}

/// Where the job is.
enum Slot<J> {
    /// The driver has not started the device.
    None,
    /// Here, not being run.
    Parked(J),
    /// With the thread.
    Running,
}

struct State<J> {
    mode: Mode,
    slot: Slot<J>,
    woken: bool,
    /// When the job is to settle what it owes.
    due: Option<Instant>,
    /// The thread is awake, or wakes when something is due.
    watching: bool,
    /// How many wait for the job to be parked; it is not run again before they have had their turn.
    waiting: u32,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    /// The thread waits here for work.
    work: Condvar,
    /// Others wait here for the thread to put its job back.
    parked: Condvar,
    stop: Stop,
    service: Service,
    /// Where the thread waits instead, once it is there: the host's kernel can ring it as well.
    bell: OnceLock<OwnedFd>,
}

impl<J> Shared<J> {
    /// Gets the thread to look for work.
    fn ring(&self) {
        self.work.notify_one();
        if let Some(bell) = self.bell.get() {
            // It fails only if the count in it is full, and then it rings already.
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
    }

    /// Waits for work, or until something is due, on the device's thread.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<J>>,
        lookout: &mut Lookout,
    ) -> MutexGuard<'a, State<J>> {
        let limit = state.due.map(|due| due.saturating_duration_since(Instant::now()));
        state.watching = limit.is_some();
        let mut state = match (self.bell.get(), limit) {
            (None, None) => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            (None, Some(limit)) => {
                self.work.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
            }
            (Some(bell), limit) => {
                drop(state);
                let rung = lookout.wait(bell, limit);
                let mut state = self.lock();
                state.woken |= rung;
                state
            }
        };
        state.watching = true;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the thread does not hold the job.
    fn until_parked<'a>(&'a self, mut state: MutexGuard<'a, State<J>>) -> MutexGuard<'a, State<J>> {
        state.waiting += 1;
        while matches!(state.slot, Slot::Running) {
            self.stop.0.store(true, Ordering::Relaxed);
            state = self.parked.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        if state.waiting == 0 {
            self.stop.0.store(false, Ordering::Relaxed);
            self.ring();
        }
        state
    }
}

/// How long a device's thread looks at its bell before it sleeps. Whoever rings for one that sleeps has to wake it, and
/// here that is a vCPU; so while rings follow each other closely, the thread is awake for them.
#[derive(Debug, Default)]
struct Lookout {
    span: Duration,
}

impl Lookout {
    const SHORTEST: Duration = Duration::from_micros(4);
    const LONGEST: Duration = Duration::from_micros(64);

    /// Returns when it rings, or at once if it has rung; false if it has not within `limit`.
    fn wait(&mut self, bell: &OwnedFd, limit: Option<Duration>) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < self.span && !has_rung(bell, Duration::ZERO) {
            std::hint::spin_loop();
        }
        if limit.is_some_and(|limit| !has_rung(bell, limit.saturating_sub(begin.elapsed()))) {
            return false;
        }
        // What interrupts it makes the thread look for work once in vain.
        let _ = rustix::io::read(bell, &mut [0; 8]);
        self.adapt(begin.elapsed());
        true
    }

    /// The ring has come after `waited`: one that a longer look would have met lengthens it, one that came late makes it
    /// short again.
    fn adapt(&mut self, waited: Duration) {
        if waited > Self::LONGEST {
            self.span /= 2;
            if self.span < Self::SHORTEST {
                self.span = Duration::ZERO;
            }
        } else if waited > self.span {
            self.span = (2 * self.span).clamp(Self::SHORTEST, Self::LONGEST);
        }
    }
}

/// True if it rings within `limit`.
fn has_rung(bell: &OwnedFd, limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: 0, tv_nsec: limit.min(LATE).subsec_nanos().into() };
    // An error is the reader's to meet.
    poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&limit)).map_or(true, |ready| ready > 0)
}

/// The device's handle on its thread, or on its work that is done at once.
pub(crate) struct Worker<J: Job> {
    shared: Arc<Shared<J>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<J: Job> Worker<J> {
    /// A worker; a thread sleeps until a job is there and woken.
    ///
    /// # Errors
    /// The host's, if it starts no thread.
    pub(crate) fn spawn(name: &str, service: Service) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                mode: Mode::Running,
                slot: Slot::None,
                woken: false,
                due: None,
                watching: true,
                waiting: 0,
            }),
            work: Condvar::new(),
            parked: Condvar::new(),
            stop: Stop::default(),
            service,
            bell: OnceLock::new(),
        });
        if service == Service::Immediate {
            return Ok(Self { shared, thread: Mutex::new(None) });
        }
        // The thread's job: the device's requests, one after the other. It may block on the host's disk or
        // whatever else the job does I/O with, and on the device's interrupt line; never on a vCPU.
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || serve(&of_thread))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Has the work done that there is.
    fn start(&self, state: MutexGuard<'_, State<J>>) {
        match self.shared.service {
            Service::Threaded => self.shared.ring(),
            Service::Immediate => drop(work_off(&self.shared, state)),
        }
    }

    /// Hands over the job, in place of any before it, and has it look for work.
    pub(crate) fn install(&self, job: J) {
        let mut state = self.shared.until_parked(self.shared.lock());
        state.slot = Slot::Parked(job);
        state.woken = true;
        state.due = None;
        self.start(state);
    }

    /// Takes the job away; it is not running any more when this returns.
    pub(crate) fn remove(&self) {
        let mut state = self.shared.until_parked(self.shared.lock());
        state.slot = Slot::None;
        state.woken = false;
        state.due = None;
    }

    /// Looks at the job, if there is one. It must be quiet.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&J) -> R) -> Option<R> {
        match &self.shared.lock().slot {
            Slot::Parked(job) => Some(look(job)),
            Slot::None | Slot::Running => None,
        }
    }

    /// There is work.
    pub(crate) fn wake(&self) {
        let mut state = self.shared.lock();
        if !state.woken {
            state.woken = true;
            self.start(state);
        }
    }

    /// There is work, of which the caller does what the job can attempt, unless the thread is at it. Waking the thread and
    /// waiting for it would take a driver that waits for each of its small requests much longer.
    pub(crate) fn wake_or_attempt(&self) {
        let mut state = self.shared.lock();
        let free = !state.woken && state.waiting == 0 && state.mode == Mode::Running;
        if !free || self.shared.service != Service::Threaded {
            drop(state);
            return self.wake();
        }
        match std::mem::replace(&mut state.slot, Slot::Running) {
            Slot::Parked(job) => {
                let state = run(&self.shared, state, job, J::attempt);
                if state.woken || (state.due.is_some() && !state.watching) {
                    self.shared.ring();
                }
            }
            other => {
                state.slot = other;
                state.woken = true;
                self.shared.ring();
            }
        }
    }

    /// See [`VirtioDevice::take_doorbell`](crate::VirtioDevice::take_doorbell).
    pub(crate) fn take_doorbell(&self, bell: OwnedFd) {
        // Under the lock: the thread looks for a bell with it held, and then waits.
        let _state = self.shared.lock();
        let _ = self.shared.bell.set(bell);
        self.shared.ring();
    }

    /// True if the work is that of a thread.
    pub(crate) fn has_thread(&self) -> bool {
        self.shared.service == Service::Threaded
    }

    /// See [`VirtioDevice::quiesce`](crate::VirtioDevice::quiesce).
    pub(crate) fn quiesce(&self) {
        let mut state = self.shared.lock();
        if state.mode == Mode::Running {
            state.mode = Mode::Paused;
        }
        drop(settle(&self.shared, self.shared.until_parked(state), Settle::Now));
    }

    /// See [`VirtioDevice::resume`](crate::VirtioDevice::resume).
    pub(crate) fn resume(&self) {
        let mut state = self.shared.lock();
        if state.mode == Mode::Paused {
            state.mode = Mode::Running;
            self.start(state);
        }
    }

    /// See [`VirtioDevice::shutdown`](crate::VirtioDevice::shutdown).
    pub(crate) fn shutdown(&self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        let mut state = self.shared.lock();
        if state.mode != Mode::Ended {
            state.mode = Mode::Draining;
        }
        self.shared.ring();
        if self.shared.service == Service::Immediate && state.mode != Mode::Ended {
            state = work_off(&self.shared, state);
            if !matches!(state.slot, Slot::Running) {
                state.mode = Mode::Ended;
                state.slot = Slot::None;
            }
        }
        while state.mode != Mode::Ended {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.shared.stop.0.store(true, Ordering::Relaxed);
                return false;
            }
            state = self.shared.parked.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|t| t.join().is_ok())
    }
}

impl<J: Job> Drop for Worker<J> {
    fn drop(&mut self) {
        self.shared.stop.0.store(true, Ordering::Relaxed);
        if !self.shutdown(Duration::from_secs(5)) {
            tracing::warn!("a device's thread did not end; leaving it behind");
        }
    }
}

/// Marks the thread as ended however it ends, so that nobody waits for it in vain.
struct Ending<'a, J>(&'a Shared<J>);

impl<J> Drop for Ending<'_, J> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.mode = Mode::Ended;
        state.slot = Slot::None;
        self.0.parked.notify_all();
    }
}

/// The thread's loop.
fn serve<J: Job>(shared: &Shared<J>) {
    let _ending = Ending(shared);
    let mut state = shared.lock();
    let mut lookout = Lookout::default();
    loop {
        state = work_off(shared, state);
        if state.mode == Mode::Draining {
            drop(settle(shared, state, Settle::Now));
            return;
        }
        state = match state.due {
            // There may be work again after it.
            Some(due) if due <= Instant::now() => settle(shared, state, Settle::Due),
            _ => shared.wait(state, &mut lookout),
        };
    }
}

/// Runs the job for as long as it is woken and may run. Another thread that is at it does what is left.
fn work_off<'a, J: Job>(
    shared: &'a Shared<J>,
    mut state: MutexGuard<'a, State<J>>,
) -> MutexGuard<'a, State<J>> {
    while state.woken && state.waiting == 0 && !matches!(state.mode, Mode::Paused | Mode::Ended) {
        match std::mem::replace(&mut state.slot, Slot::Running) {
            Slot::Parked(job) => {
                state.woken = false;
                state = run(shared, state, job, J::run);
            }
            Slot::Running => break,
            // The device is not active: nothing to do for this wake.
            Slot::None => {
                state.woken = false;
                state.slot = Slot::None;
            }
        }
    }
    state
}

/// Has the job tell what it owes, if nobody runs it.
fn settle<'a, J: Job>(
    shared: &'a Shared<J>,
    mut state: MutexGuard<'a, State<J>>,
    when: Settle,
) -> MutexGuard<'a, State<J>> {
    state.due = None;
    match std::mem::replace(&mut state.slot, Slot::Running) {
        Slot::Parked(job) => run(shared, state, job, |job, _| job.settle(when)),
        // Who runs it will be owing if it still owes then.
        other => {
            state.slot = other;
            state
        }
    }
}

/// Has the job do `work` once, unlocked, and parks it.
fn run<'a, J: Job>(
    shared: &'a Shared<J>,
    state: MutexGuard<'a, State<J>>,
    mut job: J,
    work: impl FnOnce(&mut J, &Stop) -> Outcome,
) -> MutexGuard<'a, State<J>> {
    drop(state);
    let ending = Ending(shared);
    let mut outcome = work(&mut job, &shared.stop);
    if outcome == Outcome::Owing && shared.service == Service::Immediate {
        outcome = job.settle(Settle::Now);
    }
    // Only a panic ends it here.
    std::mem::forget(ending);
    let mut state = shared.lock();
    state.slot = if outcome == Outcome::Broken { Slot::None } else { Slot::Parked(job) };
    if outcome == Outcome::Owing {
        state.due.get_or_insert_with(|| Instant::now() + LATE);
    }
    let given_up = state.mode == Mode::Draining && shared.stop.requested();
    state.woken = (state.woken || outcome == Outcome::More) && !given_up;
    shared.parked.notify_all();
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Does what `todo` counts, one at a time.
    struct Counter {
        todo: Arc<AtomicU64>,
        done: Arc<AtomicU64>,
        /// Set when something was done that nobody was told of.
        owed: Arc<AtomicBool>,
        /// Set while running, to see that two never do at once and that nobody holds a job that runs.
        running: Arc<AtomicBool>,
    }

    impl Counter {
        fn new(todo: &Arc<AtomicU64>, done: &Arc<AtomicU64>) -> Self {
            let (owed, running) = Default::default();
            Self { todo: todo.clone(), done: done.clone(), owed, running }
        }
    }

    impl Job for Counter {
        fn run(&mut self, stop: &Stop) -> Outcome {
            assert!(!self.running.swap(true, Ordering::SeqCst));
            let mut outcome = Outcome::Owing;
            self.owed.store(true, Ordering::SeqCst);
            while self.todo.load(Ordering::SeqCst) > 0 {
                if stop.requested() {
                    outcome = Outcome::More;
                    break;
                }
                self.todo.fetch_sub(1, Ordering::SeqCst);
                self.done.fetch_add(1, Ordering::SeqCst);
            }
            self.running.store(false, Ordering::SeqCst);
            outcome
        }

        /// One, and leaves the rest.
        fn attempt(&mut self, _stop: &Stop) -> Outcome {
            assert!(!self.running.swap(true, Ordering::SeqCst));
            let todo = self.todo.load(Ordering::SeqCst);
            if todo > 0 {
                self.todo.fetch_sub(1, Ordering::SeqCst);
                self.done.fetch_add(1, Ordering::SeqCst);
            }
            self.running.store(false, Ordering::SeqCst);
            self.owed.store(true, Ordering::SeqCst);
            if todo > 1 { Outcome::More } else { Outcome::Owing }
        }

        fn settle(&mut self, _: Settle) -> Outcome {
            assert!(!self.running.load(Ordering::SeqCst));
            self.owed.store(false, Ordering::SeqCst);
            Outcome::Idle
        }
    }

    #[test]
    fn no_work_is_lost_whatever_comes_between() {
        for service in [Service::Threaded, Service::Immediate] {
            storm(service);
        }
    }

    /// An eventfd, which the host's kernel would ring, and another hold on it.
    fn bell() -> (OwnedFd, OwnedFd) {
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        let bell = rustix::event::eventfd(0, flags).unwrap();
        (bell.try_clone().unwrap(), bell)
    }

    #[test]
    fn the_waker_does_what_it_can_and_the_thread_the_rest() {
        let worker = Worker::spawn("test", Service::Threaded).unwrap();
        let (todo, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        worker.install(Counter::new(&todo, &done));
        worker.quiesce();
        worker.resume();
        let end = Instant::now() + Duration::from_secs(20);
        let mut all = 0;
        for n in [1, 5, 1, 100] {
            all += n;
            todo.fetch_add(n, Ordering::SeqCst);
            worker.wake_or_attempt();
            while done.load(Ordering::SeqCst) != all {
                assert!(Instant::now() < end, "{n}: what was left was lost");
                std::thread::yield_now();
            }
        }
        assert!(worker.shutdown(Duration::from_secs(20)));
    }

    #[test]
    fn a_doorbell_wakes_as_well_as_a_call_does() {
        storm_with(Service::Threaded, true);
        let worker = Worker::spawn("test", Service::Threaded).unwrap();
        let (mine, its) = bell();
        worker.take_doorbell(its);
        let (todo, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        worker.install(Counter::new(&todo, &done));
        for n in 1..=1000 {
            todo.fetch_add(1, Ordering::SeqCst);
            rustix::io::write(&mine, &1u64.to_ne_bytes()).unwrap();
            let end = Instant::now() + Duration::from_secs(20);
            while done.load(Ordering::SeqCst) != n {
                assert!(Instant::now() < end, "a ring was lost");
                std::thread::yield_now();
            }
        }
        assert!(worker.shutdown(Duration::from_secs(20)));
    }

    #[test]
    fn a_thread_stays_awake_while_rings_follow_each_other_closely() {
        let mut lookout = Lookout::default();
        let spans = |lookout: &mut Lookout, waited: u64| {
            lookout.adapt(Duration::from_micros(waited));
            lookout.span.as_micros()
        };
        assert_eq!([20; 4].map(|waited| spans(&mut lookout, waited)), [4, 8, 16, 32]);
        assert_eq!(spans(&mut lookout, 20), 32, "it was met");
        assert_eq!([60; 3].map(|waited| spans(&mut lookout, waited)), [64; 3]);
        assert_eq!([1000; 6].map(|waited| spans(&mut lookout, waited)), [32, 16, 8, 4, 0, 0]);
        // It sleeps then, and the ring ends it.
        let (mine, its) = bell();
        assert!(!has_rung(&its, Duration::ZERO));
        rustix::io::write(&mine, &1u64.to_ne_bytes()).unwrap();
        assert!(has_rung(&its, Duration::ZERO));
        assert!(lookout.wait(&its, None));
        assert!(!lookout.wait(&its, Some(Duration::from_micros(10))), "it was taken");
    }

    fn storm(service: Service) {
        storm_with(service, false);
    }

    fn storm_with(service: Service, belled: bool) {
        let worker = Worker::spawn("test", service).unwrap();
        if belled {
            worker.take_doorbell(bell().1);
        }
        let (todo, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let running = Arc::new(AtomicBool::new(false));
        let owed = Arc::new(AtomicBool::new(false));
        let job = || {
            owed.store(false, Ordering::SeqCst);
            Counter { todo: todo.clone(), done: done.clone(), owed: owed.clone(), running: running.clone() }
        };
        worker.install(job());
        const PER_THREAD: u64 = 20_000;
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for i in 0..PER_THREAD {
                        todo.fetch_add(1, Ordering::SeqCst);
                        if i % 2 == 0 { worker.wake() } else { worker.wake_or_attempt() }
                    }
                });
            }
            s.spawn(|| {
                for i in 0..2000 {
                    if i % 3 == 0 {
                        worker.remove();
                        assert!(!running.load(Ordering::SeqCst));
                        worker.install(job());
                    } else {
                        worker.quiesce();
                        assert!(!running.load(Ordering::SeqCst));
                        assert!(!owed.load(Ordering::SeqCst), "nobody learns of it while all is quiet");
                        let before = done.load(Ordering::SeqCst);
                        std::thread::yield_now();
                        assert_eq!(done.load(Ordering::SeqCst), before);
                        worker.resume();
                    }
                }
            });
        });
        let end = Instant::now() + Duration::from_secs(20);
        while done.load(Ordering::SeqCst) != 2 * PER_THREAD || owed.load(Ordering::SeqCst) {
            assert!(Instant::now() < end, "a wake was lost, or nobody was told");
            std::thread::yield_now();
        }
        assert!(worker.shutdown(Duration::from_secs(20)));
        assert!(worker.shutdown(Duration::ZERO), "a second time is as good");
    }

    struct Bad;

    impl Job for Bad {
        fn run(&mut self, _: &Stop) -> Outcome {
            std::panic::resume_unwind(Box::new("a mistake of ours"));
        }
    }

    #[test]
    fn work_that_is_done_at_once_is_done_when_the_wake_returns() {
        let worker = Worker::spawn("test", Service::Immediate).unwrap();
        let (todo, done) = (Arc::new(AtomicU64::new(3)), Arc::new(AtomicU64::new(0)));
        worker.wake();
        worker.install(Counter::new(&todo, &done));
        assert_eq!(done.load(Ordering::SeqCst), 3, "what waited is done with the installation");
        let give = |n| {
            todo.fetch_add(n, Ordering::SeqCst);
            worker.wake();
            done.load(Ordering::SeqCst)
        };
        assert_eq!(give(1), 4);
        worker.quiesce();
        assert_eq!(give(1), 4, "remembered");
        worker.resume();
        assert_eq!(give(0), 5);
        worker.quiesce();
        assert_eq!(give(2), 5);
        assert!(worker.shutdown(Duration::ZERO));
        assert_eq!(give(1), 7, "what was left is worked off, and nothing after that");
        assert!(worker.shutdown(Duration::ZERO));
    }

    #[test]
    fn nobody_waits_for_work_that_panicked_at_once() {
        let worker = Worker::spawn("test", Service::Immediate).unwrap();
        let install = std::panic::AssertUnwindSafe(|| worker.install(Bad));
        assert!(std::panic::catch_unwind(install).is_err());
        worker.quiesce();
        worker.remove();
        worker.wake();
        assert!(worker.shutdown(Duration::ZERO));
    }

    #[test]
    fn nobody_waits_for_a_thread_that_died() {
        let worker = Worker::spawn("test", Service::Threaded).unwrap();
        worker.install(Bad);
        worker.remove();
        worker.quiesce();
        worker.wake();
        // If it had not died yet it would be waiting for work and now drain.
        worker.shutdown(Duration::from_secs(20));
        assert_eq!(worker.shared.lock().mode, Mode::Ended);
    }
}
