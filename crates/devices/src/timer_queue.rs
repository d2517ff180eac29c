//! One queue for all timers of a machine.
//!
//! A timer is registered once, with a callback, and then armed and cancelled by its key as often as wanted. A
//! thread sleeps until the earliest deadline; nothing polls. Rearming is cheap: a deadline that moves later
//! leaves the heap alone (the old entry is replaced when it comes up), and the thread is woken only for
//! a deadline earlier than the one it sleeps for.
//!
//! On a clock that counts instructions there is no thread: whoever counts asks for [`TimerQueue::next_count`] and calls
//! [`TimerQueue::run_expired`] there.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{Clock, NEVER};
use crate::lock;

/// What a timer does when its time has come.
pub type TimerCallback = Arc<dyn Fn() + Send + Sync>;

/// A registered timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKey(usize);

/// The timers of one machine, in nanoseconds of its [`Clock`].
pub struct TimerQueue {
    clock: Arc<Clock>,
    state: Mutex<State>,
    changed: Condvar,
}

struct Slot {
    callback: TimerCallback,
    deadline: u64,
    /// The deadline of this timer's one valid heap entry, [`NEVER`] if there is none. Never later than
    /// `deadline`; other entries are stale.
    queued: u64,
}

struct State {
    slots: Vec<Slot>,
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    /// Until when the thread sleeps; 0 while it is awake (it will look again before it sleeps).
    sleeping_until: u64,
    stop: bool,
}

/// The thread that runs a queue's callbacks; dropping it stops and joins the thread.
pub struct TimerThread {
    queue: Arc<TimerQueue>,
    thread: Option<JoinHandle<()>>,
}

impl TimerQueue {
    /// Longest single sleep; bounds what is handed to the host.
    const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);

    /// A queue on `clock`. Without [`Self::start`], callbacks run in [`Self::run_expired`] only.
    pub fn new(clock: Arc<Clock>) -> Arc<Self> {
        let state = State { slots: Vec::new(), heap: BinaryHeap::new(), sleeping_until: 0, stop: false };
        Arc::new(Self { clock, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Starts the thread, named `timers`. It blocks on this queue only, and on what callbacks lock.
    ///
    /// # Errors
    /// The host's, if it has no thread to give.
    pub fn start(self: &Arc<Self>) -> io::Result<TimerThread> {
        let queue = Arc::clone(self);
        lock(&queue.state).stop = false;
        let thread = std::thread::Builder::new().name("timers".to_owned()).spawn(move || {
            // The host may otherwise be 50 µs late on purpose. If it refuses, it is just that.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            queue.run();
        })?;
        Ok(TimerThread { queue: Arc::clone(self), thread: Some(thread) })
    }

    /// The queue's clock.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Adds a timer, not armed. `callback` runs with no lock of the queue held; it must look at its device's
    /// state again, since a cancel may have crossed it.
    pub fn register(&self, callback: TimerCallback) -> TimerKey {
        let mut state = lock(&self.state);
        state.slots.push(Slot { callback, deadline: NEVER, queued: NEVER });
        TimerKey(state.slots.len() - 1)
    }

    /// Lets the timer go off at `deadline` nanoseconds, once, instead of what was set before. A deadline in
    /// the past goes off at once; [`NEVER`] cancels.
    pub fn arm(&self, key: TimerKey, deadline: u64) {
        let mut state = lock(&self.state);
        let Some(slot) = state.slots.get_mut(key.0) else { return };
        slot.deadline = deadline;
        if deadline >= slot.queued {
            return;
        }
        slot.queued = deadline;
        state.heap.push(Reverse((deadline, key.0)));
        state.compact();
        if deadline < state.sleeping_until {
            state.sleeping_until = deadline;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Stops the timer. A callback already on its way still runs.
    pub fn cancel(&self, key: TimerKey) {
        if let Some(slot) = lock(&self.state).slots.get_mut(key.0) {
            slot.deadline = NEVER;
        }
    }

    /// When the timer goes off, if it is armed.
    pub fn deadline(&self, key: TimerKey) -> Option<u64> {
        lock(&self.state).slots.get(key.0).map(|slot| slot.deadline).filter(|deadline| *deadline != NEVER)
    }

    /// Stops every timer: time begins anew.
    pub fn cancel_all(&self) {
        let mut state = lock(&self.state);
        state.heap.clear();
        for slot in &mut state.slots {
            (slot.deadline, slot.queued) = (NEVER, NEVER);
        }
    }

    /// Stops the clock and with it all timers.
    pub fn pause(&self) {
        self.clock.pause();
        self.wake();
    }

    /// Lets clock and timers go on.
    pub fn resume(&self) {
        self.clock.resume();
        self.wake();
    }

    /// Makes the thread look at the clock again.
    fn wake(&self) {
        lock(&self.state).sleeping_until = 0;
        self.changed.notify_one();
    }

    /// Runs the callbacks of all timers whose time has come, the earliest first; returns how many. For use without
    /// the thread: with a manual clock, or one that counts instructions.
    pub fn run_expired(&self) -> usize {
        let mut count = 0;
        loop {
            // A statement of its own: the lock must be gone when the callback runs.
            let expired = lock(&self.state).take_expired(self.clock.now_ns());
            let Some(callback) = expired else { return count };
            callback();
            count += 1;
        }
    }

    /// The earliest deadline, if a timer is armed.
    pub fn next_deadline(&self) -> Option<u64> {
        lock(&self.state).earliest()
    }

    /// The instruction count at which [`Self::run_expired`] has something to do next; [`NEVER`] if no timer is armed,
    /// or the clock counts no instructions.
    pub fn next_count(&self) -> u64 {
        self.next_deadline().map_or(NEVER, |deadline| self.clock.count_of(deadline))
    }

    /// The thread's body.
    fn run(&self) {
        let mut state = lock(&self.state);
        while !state.stop {
            // The lock is held from here into the wait, so a change cannot slip between.
            let now = self.clock.now_ns();
            if let Some(callback) = state.take_expired(now) {
                drop(state);
                callback();
                state = lock(&self.state);
                continue;
            }
            let paused = self.clock.is_paused();
            let next = if paused { None } else { state.heap.peek().map(|Reverse((deadline, _))| *deadline) };
            state.sleeping_until = if paused { 0 } else { next.unwrap_or(NEVER) };
            state = match next {
                Some(deadline) => {
                    let sleep = Duration::from_nanos(deadline.saturating_sub(now)).min(Self::LONGEST_SLEEP);
                    self.changed.wait_timeout(state, sleep).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.sleeping_until = 0;
        }
    }
}

impl State {
    /// The callback of a timer whose time has come, which is thereby no longer armed.
    fn take_expired(&mut self, now: u64) -> Option<TimerCallback> {
        while let Some(&Reverse((deadline, key))) = self.heap.peek()
            && deadline <= now
        {
            self.heap.pop();
            let slot = self.slots.get_mut(key)?;
            if slot.queued != deadline {
                continue;
            }
            slot.queued = NEVER;
            if slot.deadline <= now {
                slot.deadline = NEVER;
                return Some(Arc::clone(&slot.callback));
            }
            if slot.deadline != NEVER {
                slot.queued = slot.deadline;
                self.heap.push(Reverse((slot.deadline, key)));
            }
        }
        None
    }

    /// The earliest deadline. Entries that are out of date are replaced or dropped on the way, each of them once, so
    /// this costs a look at the heap's top.
    fn earliest(&mut self) -> Option<u64> {
        while let Some(&Reverse((queued, key))) = self.heap.peek() {
            let slot = self.slots.get_mut(key)?;
            if slot.queued == queued && slot.deadline == queued {
                return Some(queued);
            }
            self.heap.pop();
            if slot.queued == queued {
                slot.queued = slot.deadline;
                if slot.deadline != NEVER {
                    self.heap.push(Reverse((slot.deadline, key)));
                }
            }
        }
        None
    }

    /// Drops stale entries when they outnumber the timers: a guest that moves a deadline ever earlier must not
    /// grow the heap.
    fn compact(&mut self) {
        if self.heap.len() <= 4 * self.slots.len() + 16 {
            return;
        }
        self.heap.clear();
        for (key, slot) in self.slots.iter_mut().enumerate() {
            slot.queued = slot.deadline;
            if slot.deadline != NEVER {
                self.heap.push(Reverse((slot.deadline, key)));
            }
        }
    }
}

impl Drop for TimerThread {
    fn drop(&mut self) {
        lock(&self.queue.state).stop = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A callback that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::clock::COUNTER_FREQUENCY;
    use crate::testing::Random;

    fn manual() -> (Arc<Clock>, Arc<TimerQueue>) {
        let clock = Arc::new(Clock::manual(COUNTER_FREQUENCY));
        (Arc::clone(&clock), TimerQueue::new(clock))
    }

    #[test]
    fn fires_once_in_order() {
        let (clock, queue) = manual();
        let log = Arc::new(Mutex::new(Vec::new()));
        let keys: Vec<_> = (0..3)
            .map(|i| {
                let log = Arc::clone(&log);
                queue.register(Arc::new(move || lock(&log).push(i)))
            })
            .collect();
        queue.arm(keys[0], 300);
        queue.arm(keys[1], 100);
        queue.arm(keys[2], 200);
        assert_eq!(queue.next_deadline(), Some(100));
        clock.advance(99);
        assert_eq!(queue.run_expired(), 0);
        clock.advance(1);
        assert_eq!(queue.run_expired(), 1);
        clock.advance(1000);
        assert_eq!(queue.run_expired(), 2);
        assert_eq!(*lock(&log), [1, 2, 0]);
        assert_eq!(queue.run_expired(), 0);
        assert_eq!(queue.next_deadline(), None);
    }

    #[test]
    fn callbacks_may_use_the_queue() {
        let (clock, queue) = manual();
        let key = Arc::new(Mutex::new(None));
        let callback = {
            let (key, queue, clock) = (Arc::clone(&key), Arc::downgrade(&queue), Arc::clone(&clock));
            move || {
                let (Some(queue), Some(key)) = (queue.upgrade(), *lock(&key)) else { return };
                queue.arm(key, clock.now_ns() + 10);
            }
        };
        let registered = queue.register(Arc::new(callback));
        *lock(&key) = Some(registered);
        queue.arm(registered, 10);
        for _ in 0..3 {
            clock.advance(10);
            assert_eq!(queue.run_expired(), 1);
        }
    }

    #[test]
    fn a_paused_clock_holds_timers() {
        let (clock, queue) = manual();
        let key = queue.register(Arc::new(|| {}));
        queue.arm(key, 10);
        queue.pause();
        clock.advance(100);
        assert_eq!(queue.run_expired(), 0);
        queue.resume();
        clock.advance(10);
        assert_eq!(queue.run_expired(), 1);
    }

    #[test]
    fn random_use_agrees_with_a_list() {
        let (clock, queue) = manual();
        let mut random = Random::seeded("timer queue");
        let fired: Arc<Vec<AtomicUsize>> = Arc::new((0..5).map(|_| AtomicUsize::new(0)).collect());
        let keys: Vec<_> = (0..5)
            .map(|i| {
                let fired = Arc::clone(&fired);
                queue.register(Arc::new(move || {
                    fired[i].fetch_add(1, Ordering::SeqCst);
                }))
            })
            .collect();
        let mut model: [Option<u64>; 5] = [None; 5];
        let mut expected = [0; 5];
        for _ in 0..20_000 {
            let i = random.below(5) as usize;
            match random.below(4) {
                0 | 1 => {
                    let deadline = (clock.now_ns() + random.below(200)).saturating_sub(20);
                    queue.arm(keys[i], deadline);
                    model[i] = Some(deadline);
                }
                2 => {
                    queue.cancel(keys[i]);
                    model[i] = None;
                }
                _ => clock.advance(random.below(50)),
            }
            queue.run_expired();
            for (armed, count) in model.iter_mut().zip(&mut expected) {
                if armed.is_some_and(|d| d <= clock.now_ns()) {
                    *armed = None;
                    *count += 1;
                }
            }
            let counts: Vec<usize> = fired.iter().map(|f| f.load(Ordering::SeqCst)).collect();
            assert_eq!(counts, expected);
            // Not always: looking replaces entries that are out of date.
            if random.below(4) == 0 {
                assert_eq!(queue.next_deadline(), model.iter().flatten().min().copied());
            }
        }
    }

    #[test]
    fn on_counted_time_timers_go_off_at_exact_counts_without_a_thread() {
        let count = Arc::new(armlet_engine::InstructionCount::default());
        let clock = Arc::new(Clock::counting(COUNTER_FREQUENCY, Arc::clone(&count), 3));
        let queue = TimerQueue::new(clock);
        let log = Arc::new(Mutex::new(Vec::new()));
        let keys: Vec<_> = (0..3)
            .map(|i| {
                let (log, count) = (Arc::clone(&log), Arc::clone(&count));
                queue.register(Arc::new(move || lock(&log).push((i, count.now()))))
            })
            .collect();
        assert_eq!(queue.next_count(), NEVER);
        // 8 ns an instruction: 81 ns are over at the 11th.
        for (key, deadline) in keys.iter().zip([81, 80, 800]) {
            queue.arm(*key, deadline);
        }
        queue.arm(keys[2], 1600);
        while queue.next_count() != NEVER {
            assert!(queue.next_count() > count.now());
            count.set(queue.next_count());
            queue.pause();
            assert_eq!(queue.run_expired(), 1);
            queue.resume();
        }
        assert_eq!(*lock(&log), [(1, 10), (0, 11), (2, 200)]);
    }

    #[test]
    fn ever_earlier_deadlines_do_not_grow_the_heap() {
        let (_, queue) = manual();
        let key = queue.register(Arc::new(|| {}));
        for i in 0..100_000 {
            queue.arm(key, NEVER - 1 - i);
        }
        assert!(lock(&queue.state).heap.len() <= 32);
        assert_eq!(queue.next_deadline(), Some(NEVER - 100_000));
    }

    #[test]
    fn the_thread_keeps_time_and_notices_earlier_deadlines() {
        let clock = Arc::new(Clock::new(COUNTER_FREQUENCY));
        let queue = TimerQueue::new(Arc::clone(&clock));
        let thread = queue.start().expect("a thread");
        let (tx, rx) = mpsc::channel();
        let keys: Vec<_> = (0..2)
            .map(|i| {
                let (tx, clock) = (tx.clone(), Arc::clone(&clock));
                queue.register(Arc::new(move || {
                    let _ = tx.send((i, clock.now_ns()));
                }))
            })
            .collect();
        let hour = clock.now_ns() + 3_600_000_000_000;
        queue.arm(keys[0], hour);
        let soon = clock.now_ns() + 2_000_000;
        queue.arm(keys[1], soon);
        let (which, at) = rx.recv().expect("the second timer");
        assert_eq!(which, 1);
        assert!(at >= soon, "not early");
        // Paused, nothing fires; resumed, it does.
        queue.pause();
        queue.arm(keys[0], clock.now_ns() + 1_000_000);
        assert!(rx.recv_timeout(Duration::from_millis(20)).is_err());
        queue.resume();
        assert_eq!(rx.recv().map(|(which, _)| which), Ok(0));
        drop(thread);
    }

    #[test]
    fn many_threads_arm_and_none_is_lost() {
        let clock = Arc::new(Clock::new(COUNTER_FREQUENCY));
        let queue = TimerQueue::new(Arc::clone(&clock));
        let _thread = queue.start().expect("a thread");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (tx, rx) = mpsc::channel();
                    let key = queue.register(Arc::new(move || {
                        let _ = tx.send(());
                    }));
                    for i in 0..500 {
                        queue.arm(key, clock.now_ns() + 1_000_000_000);
                        queue.arm(key, clock.now_ns() + i * 10);
                        assert_eq!(rx.recv_timeout(Duration::from_secs(20)), Ok(()));
                    }
                });
            }
        });
    }
}
