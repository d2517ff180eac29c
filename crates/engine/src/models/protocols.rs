//! The small protocols under `loom`: every interleaving, every outcome that the memory model allows. A lost
//! wake-up shows as a deadlock, which loom reports.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::{model::Builder, thread};

use crate::accel::Kick;
use crate::gate::{Door, Gate};
use crate::queue::{Work, WorkQueue};
use crate::shared::VcpuShared;
use crate::sleeper::Sleeper;
use crate::sync::{AtomicBool, AtomicU32, Ordering, lock};

/// Searches with at most three preemptions, which finds nearly everything and ends.
fn check(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(body);
}

#[test]
fn a_reason_stored_before_a_wake_is_never_slept_through() {
    check(|| {
        let sleeper = Arc::new(Sleeper::new());
        let reason = Arc::new(AtomicBool::new(false));
        let (waker, store) = (Arc::clone(&sleeper), Arc::clone(&reason));
        let other = thread::spawn(move || {
            // The weakest store: the fences of the protocol must carry it.
            store.store(true, Ordering::Relaxed);
            waker.wake();
        });
        assert!(sleeper.sleep_until(None, || reason.load(Ordering::Relaxed)));
        other.join().expect("no panic");
    });
}

#[test]
fn two_reasons_from_two_threads_are_both_seen() {
    check(|| {
        let sleeper = Arc::new(Sleeper::new());
        let count = Arc::new(AtomicU32::new(0));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (waker, count) = (Arc::clone(&sleeper), Arc::clone(&count));
                thread::spawn(move || {
                    count.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                })
            })
            .collect();
        sleeper.sleep_until(None, || count.load(Ordering::Relaxed) == 2);
        others.into_iter().for_each(|other| other.join().expect("no panic"));
    });
}

/// A kick as the dummy has it.
struct Bell(Mutex<bool>, Condvar);

impl Kick for Bell {
    fn kick(&self) {
        *lock(&self.0) = true;
        self.1.notify_one();
    }
}

impl Bell {
    fn run_until_kicked(&self) {
        let mut rung = lock(&self.0);
        while !*rung {
            rung = self.1.wait(rung).expect("not poisoned");
        }
        *rung = false;
    }
}

/// The head of a vCPU thread's loop against a submission: the work is done, whenever it comes, though the
/// accelerator leaves `run` only for kicks.
#[test]
fn work_gets_a_running_vcpu_out() {
    check(|| {
        let shared = Arc::new(VcpuShared::new(0));
        let queue = Arc::new(WorkQueue::<u32>::new());
        let bell = Arc::new(Bell(Mutex::new(false), Condvar::new()));
        shared.set_kick(Arc::clone(&bell) as Arc<dyn Kick>);
        let (target, submissions) = (Arc::clone(&shared), Arc::clone(&queue));
        let other = thread::spawn(move || {
            let work = Work { awaited: false, exclusive: false, job: 7 };
            assert!(submissions.push(work).is_ok());
            target.request_exit();
        });
        let mut done = 0;
        while done == 0 {
            shared.clear_exit_request();
            while let Some(work) = queue.pop() {
                done += work.job;
            }
            if done == 0 {
                bell.run_until_kicked();
            }
        }
        other.join().expect("no panic");
    });
}

#[test]
fn an_interrupt_wakes_a_halting_vcpu() {
    check(|| {
        let shared = Arc::new(VcpuShared::new(0));
        let gic = Arc::clone(&shared);
        let other = thread::spawn(move || {
            gic.set_irq(true);
            gic.set_irq(false);
            gic.send_event();
        });
        // The line alone may come and go unseen; the event stays.
        shared.sleep_until(None, || shared.interrupt_pending() || shared.event_pending());
        other.join().expect("no panic");
        assert!(shared.take_event());
    });
}

#[test]
fn a_closing_queue_loses_no_work() {
    check(|| {
        let queue = Arc::new(WorkQueue::<u32>::new());
        let submissions = Arc::clone(&queue);
        let submitter = thread::spawn(move || {
            let push = |job| submissions.push(Work { awaited: true, exclusive: false, job }).is_ok();
            (push(1), push(2))
        });
        let closer = Arc::clone(&queue);
        let closing =
            thread::spawn(move || closer.close().into_iter().map(|work| work.job).collect::<Vec<_>>());
        let mut seen: Vec<_> = queue.pop().into_iter().map(|work| work.job).collect();
        let accepted = submitter.join().expect("no panic");
        seen.extend(closing.join().expect("no panic"));
        assert!(queue.pop().is_none(), "work after the close");
        seen.sort_unstable();
        match accepted {
            (true, true) => assert_eq!(seen, [1, 2]),
            (true, false) => assert_eq!(seen, [1]),
            (false, false) => assert!(seen.is_empty()),
            (false, true) => panic!("a closed queue opened again"),
        }
    });
}

/// What a thread at the gate does in its turn, with the proof that nobody is inside during a section.
struct Field {
    gate: Gate,
    in_section: AtomicBool,
    in_guest: AtomicU32,
}

impl Field {
    fn new(doors: &[Arc<Door>]) -> Arc<Self> {
        let field =
            Self { gate: Gate::new(), in_section: AtomicBool::new(false), in_guest: AtomicU32::new(0) };
        doors.iter().for_each(|door| field.gate.add(Arc::clone(door)));
        Arc::new(field)
    }

    fn execute(&self, door: &Door, shared: &VcpuShared) {
        loop {
            if let Some(_inside) = self.gate.enter(door) {
                self.in_guest.fetch_add(1, Ordering::Relaxed);
                assert!(!self.in_section.load(Ordering::Relaxed), "entered during a section");
                self.in_guest.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            let _waiting = door.wait();
            shared.sleep_until(None, || self.gate.is_open());
        }
    }

    fn section(&self, door: &Arc<Door>, shared: &VcpuShared) {
        let _closed = loop {
            if let Some(closed) = self.gate.close(door) {
                break closed;
            }
            let _waiting = door.wait();
            shared.sleep_until(None, || self.gate.is_open());
        };
        shared.sleep_until(None, || self.gate.others_out());
        assert!(!self.in_section.swap(true, Ordering::Relaxed), "two sections");
        assert_eq!(self.in_guest.load(Ordering::Relaxed), 0, "somebody is inside");
        self.in_section.store(false, Ordering::Relaxed);
    }
}

fn vcpu(index: usize) -> (Arc<VcpuShared>, Arc<Door>) {
    let shared = Arc::new(VcpuShared::new(index));
    let door = Arc::new(Door::new(Arc::clone(&shared)));
    (shared, door)
}

#[test]
fn nobody_is_inside_during_a_section() {
    check(|| {
        let ((own, own_door), (other, other_door)) = (vcpu(0), vcpu(1));
        let field = Field::new(&[Arc::clone(&own_door), Arc::clone(&other_door)]);
        let there = Arc::clone(&field);
        let executing = thread::spawn(move || there.execute(&other_door, &other));
        field.section(&own_door, &own);
        executing.join().expect("no panic");
    });
}

#[test]
fn two_sections_take_turns() {
    check(|| {
        let ((own, own_door), (other, other_door)) = (vcpu(0), vcpu(1));
        let field = Field::new(&[Arc::clone(&own_door), Arc::clone(&other_door)]);
        let there = Arc::clone(&field);
        let second = thread::spawn(move || there.section(&other_door, &other));
        field.section(&own_door, &own);
        second.join().expect("no panic");
    });
}
