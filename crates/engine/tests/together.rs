//! What vCPUs that share a thread do is the same however often they are held meanwhile.
#![cfg(not(any(loom, shuttle)))]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{hint, thread};

use armlet_engine::conformance::scripted::together;
use armlet_engine::conformance::support::{COUNT, Plan, eventually};
use armlet_engine::conformance::{Loaded, Op, Subject};
use armlet_engine::{InstructionCount, Pace, pace::NEVER};

const VCPUS: usize = 8;
const TURN: u64 = 500;

/// One execution: the vCPU, and the counts from and to.
type Executed = (usize, u64, u64);

/// A pace that notes who executes, at which nobody ever has nothing to do.
#[derive(Default)]
struct Noting {
    count: Arc<InstructionCount>,
    turns: Mutex<Vec<Executed>>,
    idle: Mutex<Vec<u64>>,
}

impl Pace for Noting {
    fn count(&self) -> &Arc<InstructionCount> {
        &self.count
    }

    fn next(&self) -> u64 {
        NEVER
    }

    fn turn(&self) -> u64 {
        TURN
    }

    fn happen(&self, _digest: &mut dyn FnMut() -> u64) {}

    fn executed(&self, vcpu: usize, from: u64, to: u64) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        match turns.last_mut() {
            Some(last) if last.0 == vcpu && last.2 == from => last.2 = to,
            _ if from == to => {}
            _ => turns.push((vcpu, from, to)),
        }
    }

    fn counts_in(&self, time: Duration) -> u64 {
        time.as_nanos() as u64
    }

    fn idle(&self, _until: u64, sleep: &mut dyn FnMut(Option<Duration>) -> bool) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.count.now());
        sleep(None);
    }
}

struct Busy(Arc<Noting>);

impl Subject for Busy {
    fn threads(&self) -> bool {
        false
    }

    fn load(&self, program: &[Op]) -> Loaded {
        together(program, Arc::clone(&self.0) as Arc<dyn Pace>)
    }
}

/// Threads that keep the host busy, so that whoever starts or resumes a machine is interrupted in the midst of it.
struct Crowd(Arc<AtomicBool>);

impl Crowd {
    fn new() -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        for _ in 0..2 * thread::available_parallelism().map_or(1, |n| n.get().min(4)) {
            let goes_on = Arc::clone(&goes_on);
            thread::spawn(move || {
                while goes_on.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        Self(goes_on)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Whoever starts, pauses and resumes the machine does so for one vCPU after the other; none executes out of its turn
/// for that, and no time passes.
#[test]
fn being_held_changes_nothing() {
    let _crowd = Crowd::new();
    let pace = Arc::new(Noting::default());
    let subject = Busy(Arc::clone(&pace));
    for _ in 0..30 {
        pace.count.restart();
        pace.turns.lock().expect("nobody failed").clear();
        let machine = Plan::new(&subject, COUNT).start(VCPUS);
        for _ in 0..20 {
            let now = pace.count.now();
            eventually("progress", || pace.count.now() > now);
            machine.engine.pause("test").expect("pauses");
            thread::yield_now();
            machine.engine.resume("test").expect("resumes");
        }
        machine.engine.pause("test").expect("pauses");
        drop(machine);
        assert_eq!(*pace.idle.lock().expect("nobody failed"), [0; 0], "time passed at these counts");
        let turns = pace.turns.lock().expect("nobody failed");
        let end = turns.last().expect("somebody executed").2;
        for (n, turn) in turns.iter().enumerate() {
            let from = n as u64 * TURN;
            assert_eq!(*turn, (n % VCPUS, from, end.min(from + TURN)), "{n} turns before: {turns:?}");
        }
    }
}
