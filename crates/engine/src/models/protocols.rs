//! The small protocols under `loom`: every interleaving, every outcome that the memory model allows. A lost
//! wake-up shows as a deadlock, which loom reports.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use armlet_arm::CpuState;
use loom::sync::{Condvar, Mutex};
use loom::{model::Builder, thread};

use crate::accel::Kick;
use crate::access::VcpuAccess;
use crate::control::{Control, MachineState, Resetting};
use crate::error::EngineError;
use crate::gate::{Door, Gate};
use crate::power::{Power, PowerCell};
use crate::queue::{Job, Work, WorkQueue};
use crate::reply::reply;
use crate::shared::VcpuShared;
use crate::sleeper::Sleeper;
use crate::sync::{AtomicBool, AtomicU32, LEAVE_OUT, Ordering, lock};
use crate::vcpu::Vcpu;

/// Searches with at most so many preemptions, which finds nearly everything and ends.
fn check(preemptions: usize, body: fn()) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(body);
}

#[test]
fn model_a_reason_stored_before_a_wake_is_never_slept_through() {
    check(3, a_reason_stored_before_a_wake_is_never_slept_through);
}

#[test]
fn model_two_reasons_from_two_threads_are_both_seen() {
    check(3, two_reasons_from_two_threads_are_both_seen);
}

#[test]
fn model_work_gets_a_running_vcpu_out() {
    check(3, work_gets_a_running_vcpu_out);
}

#[test]
fn model_an_interrupt_wakes_a_halting_vcpu() {
    check(3, an_interrupt_wakes_a_halting_vcpu);
}

#[test]
fn model_an_interrupt_under_a_lock_wakes_a_halting_vcpu() {
    check(3, an_interrupt_under_a_lock_wakes_a_halting_vcpu);
}

#[test]
fn model_a_closing_queue_loses_no_work() {
    check(3, a_closing_queue_loses_no_work);
}

#[test]
fn model_nobody_is_inside_during_a_section() {
    check(3, nobody_is_inside_during_a_section);
}

#[test]
fn model_two_sections_take_turns() {
    check(3, two_sections_take_turns);
}

#[test]
fn model_a_pause_after_a_pause_is_complete_too() {
    check(2, a_pause_after_a_pause_is_complete_too);
}

#[test]
fn model_a_pause_after_a_hasty_resume_is_complete_too() {
    check(4, a_pause_after_a_hasty_resume_is_complete_too);
}

#[test]
fn model_a_pause_is_complete_when_the_vcpu_has_stopped() {
    check(4, a_pause_is_complete_when_the_vcpu_has_stopped);
}

#[test]
fn model_an_event_wakes_a_waiting_vcpu() {
    check(3, an_event_wakes_a_waiting_vcpu);
}

#[test]
fn model_a_section_gets_a_running_vcpu_out() {
    check(3, a_section_gets_a_running_vcpu_out);
}

#[test]
fn model_a_resume_ends_the_wait_for_a_pause() {
    check(3, a_resume_ends_the_wait_for_a_pause);
}

#[test]
fn model_a_shutdown_ends_the_wait_for_a_pause() {
    check(3, a_shutdown_ends_the_wait_for_a_pause);
}

#[test]
fn model_resets_take_turns() {
    check(3, resets_take_turns);
}

#[test]
fn model_an_answer_reaches_who_waits_for_it() {
    check(3, an_answer_reaches_who_waits_for_it);
}

#[test]
fn model_an_answer_wakes_a_vcpu_that_waits_for_it() {
    check(3, an_answer_wakes_a_vcpu_that_waits_for_it);
}

#[test]
fn model_the_end_of_a_thread_is_heard() {
    check(3, the_end_of_a_thread_is_heard);
}

/// Each step that carries a protocol, and the model that must notice its absence.
const STEPS: &[(&str, &str)] = &[
    ("sleeper: fence of the sleeping side", "a_reason_stored_before_a_wake_is_never_slept_through"),
    ("sleeper: fence of the waking side", "a_reason_stored_before_a_wake_is_never_slept_through"),
    ("sleeper: second look", "a_reason_stored_before_a_wake_is_never_slept_through"),
    ("sleeper: lock before the notify", "a_reason_stored_before_a_wake_is_never_slept_through"),
    ("sleeper: notify", "a_reason_stored_before_a_wake_is_never_slept_through"),
    ("interrupt: kick", "an_interrupt_wakes_a_halting_vcpu"),
    ("event: wake of the sleeper", "an_event_wakes_a_waiting_vcpu"),
    ("kick: store of the exit request", "work_gets_a_running_vcpu_out"),
    ("work: kick of the target", "work_gets_a_running_vcpu_out"),
    ("leave: kick of who leaves", "a_pause_is_complete_when_the_vcpu_has_stopped"),
    ("vcpu: notify of the end", "the_end_of_a_thread_is_heard"),
    ("reply: notify of the caller", "an_answer_reaches_who_waits_for_it"),
    ("reply: wake of the calling vCPU", "an_answer_wakes_a_vcpu_that_waits_for_it"),
    ("kick: wake of the sleeper", "an_interrupt_wakes_a_halting_vcpu"),
    ("kick: kick of the accelerator", "work_gets_a_running_vcpu_out"),
    ("queue: look for the close", "a_closing_queue_loses_no_work"),
    ("gate: fence of the entering side", "nobody_is_inside_during_a_section"),
    ("gate: fence of the closing side", "a_section_gets_a_running_vcpu_out"),
    ("gate: look behind the door", "nobody_is_inside_during_a_section"),
    ("gate: wake of the owner", "nobody_is_inside_during_a_section"),
    ("gate: fence of the leaving side", "nobody_is_inside_during_a_section"),
    ("gate: kick of those inside", "a_section_gets_a_running_vcpu_out"),
    ("gate: fence of the opening side", "two_sections_take_turns"),
    ("gate: wake of those who wait", "two_sections_take_turns"),
    ("control: look at the request under the lock", "a_pause_is_complete_when_the_vcpu_has_stopped"),
    ("control: sleep only when declared", "a_pause_after_a_hasty_resume_is_complete_too"),
    ("control: notify of an acknowledgement", "a_pause_is_complete_when_the_vcpu_has_stopped"),
    ("control: notify of a resume", "a_resume_ends_the_wait_for_a_pause"),
    ("control: notify of a shutdown", "a_shutdown_ends_the_wait_for_a_pause"),
    ("control: notify of a reset's end", "resets_take_turns"),
    ("control: kick of who is to hold", "a_pause_is_complete_when_the_vcpu_has_stopped"),
];

/// The self-test: without any one step its model, which passes otherwise, fails. Each in a process of its own, since a model that
/// fails in the middle cannot always be unwound.
#[test]
fn no_step_is_superfluous() {
    let program = std::env::current_exe().expect("a test has a path");
    let passes = |step: &str, model: &str| {
        let mut run = Command::new(&program);
        run.args(["--exact", &format!("models::protocols::model_{model}")]).env(LEAVE_OUT, step);
        run.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs").success()
    };
    let unnoticed: Vec<_> = STEPS.iter().filter(|(step, model)| passes(step, model)).collect();
    assert!(unnoticed.is_empty(), "nothing fails without {unnoticed:?}");
}

/// Every fence and every notify of the engine is a step that can be left out, and every step is in the list.
#[test]
fn every_step_is_tried() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("can be read").path();
        let Some("rs") = path.extension().and_then(|e| e.to_str()) else { continue };
        let text = std::fs::read_to_string(&path).expect("can be read");
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let carries =
                ["fence(Ordering", ".notify_all()", ".notify_one()"].iter().any(|w| line.contains(w));
            assert!(!carries || line.contains("step(\""), "{}: no step: {line}", path.display());
            for call in ["step(\"", "kept(\""] {
                let name = line.split_once(call).and_then(|(_, rest)| rest.split_once('"'));
                found.extend(name.map(|(name, _)| name.to_owned()));
            }
        }
    }
    let listed = STEPS.iter().map(|(step, _)| (*step).to_owned()).collect();
    assert_eq!(found, listed);
}

fn a_reason_stored_before_a_wake_is_never_slept_through() {
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
}

fn two_reasons_from_two_threads_are_both_seen() {
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
    fn new() -> Self {
        Self(Mutex::new(false), Condvar::new())
    }

    fn run_until_kicked(&self) {
        let mut rung = lock(&self.0);
        while !*rung {
            rung = self.1.wait(rung).expect("not poisoned");
        }
        *rung = false;
    }
}

/// A kick as translated code has it: a flag that it polls.
struct Poll(AtomicBool);

impl Kick for Poll {
    fn kick(&self) {
        self.0.swap(true, Ordering::AcqRel);
    }
}

/// The head of a vCPU thread's loop against a submission: the work is done, whenever it comes, though the accelerator
/// leaves `run` only if it is kicked and the engine wants it back.
fn work_gets_a_running_vcpu_out() {
    let shared = Arc::new(VcpuShared::new(0));
    let poll = Arc::new(Poll(AtomicBool::new(false)));
    shared.set_kick(Arc::clone(&poll) as Arc<dyn Kick>);
    let vcpu = Arc::new(Vcpu::new(shared, CpuState::new(0), PowerCell::new(Power::On)));
    let target = Arc::clone(&vcpu);
    let other = thread::spawn(move || {
        let job: Job = Box::new(|_: Result<&mut VcpuAccess<'_>, EngineError>| ());
        let work = Work { awaited: false, exclusive: false, lent: false, job };
        assert!(target.submit(work).is_ok());
    });
    loop {
        vcpu.shared.clear_exit_request();
        if vcpu.queue.pop().is_some() {
            break;
        }
        while !(poll.0.swap(false, Ordering::AcqRel) && vcpu.shared.exit_requested()) {
            thread::yield_now();
        }
    }
    other.join().expect("no panic");
}

fn an_interrupt_wakes_a_halting_vcpu() {
    let shared = Arc::new(VcpuShared::new(0));
    let gic = Arc::clone(&shared);
    let other = thread::spawn(move || gic.set_irq(true));
    shared.sleep_until(None, || shared.interrupt_pending());
    other.join().expect("no panic");
}

fn an_interrupt_under_a_lock_wakes_a_halting_vcpu() {
    let shared = Arc::new(VcpuShared::new(0));
    let gic = Arc::clone(&shared);
    let other = thread::spawn(move || {
        if gic.set_lines(true, false) {
            gic.notify();
        }
    });
    shared.sleep_until(None, || shared.interrupt_pending());
    other.join().expect("no panic");
}

fn an_event_wakes_a_waiting_vcpu() {
    let shared = Arc::new(VcpuShared::new(0));
    let sender = Arc::clone(&shared);
    let other = thread::spawn(move || sender.send_event());
    shared.sleep_until(None, || shared.event_pending());
    other.join().expect("no panic");
    assert!(shared.take_event() && !shared.take_event());
}

fn a_closing_queue_loses_no_work() {
    let queue = Arc::new(WorkQueue::<u32>::new());
    let submissions = Arc::clone(&queue);
    let submitter = thread::spawn(move || {
        let push = |job| submissions.push(Work { awaited: true, exclusive: false, lent: false, job }).is_ok();
        (push(1), push(2))
    });
    let closer = Arc::clone(&queue);
    let closing = thread::spawn(move || closer.close().into_iter().map(|work| work.job).collect::<Vec<_>>());
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

fn nobody_is_inside_during_a_section() {
    let ((own, own_door), (other, other_door)) = (vcpu(0), vcpu(1));
    let field = Field::new(&[Arc::clone(&own_door), Arc::clone(&other_door)]);
    let there = Arc::clone(&field);
    let executing = thread::spawn(move || there.execute(&other_door, &other));
    field.section(&own_door, &own);
    executing.join().expect("no panic");
}

/// The other is inside and stays there until it is kicked.
fn a_section_gets_a_running_vcpu_out() {
    let ((own, own_door), (other, other_door)) = (vcpu(0), vcpu(1));
    let bell = Arc::new(Bell::new());
    other.set_kick(Arc::clone(&bell) as Arc<dyn Kick>);
    let field = Field::new(&[Arc::clone(&own_door), Arc::clone(&other_door)]);
    let there = Arc::clone(&field);
    let target = Arc::clone(&other);
    let executing = thread::spawn(move || {
        if let Some(_inside) = there.gate.enter(&other_door) {
            bell.run_until_kicked();
        }
    });
    field.section(&own_door, &own);
    // If it entered after the section, nobody has kicked it yet.
    target.request_exit();
    executing.join().expect("no panic");
}

fn two_sections_take_turns() {
    let ((own, own_door), (other, other_door)) = (vcpu(0), vcpu(1));
    let field = Field::new(&[Arc::clone(&own_door), Arc::clone(&other_door)]);
    let there = Arc::clone(&field);
    let second = thread::spawn(move || there.section(&other_door, &other));
    field.section(&own_door, &own);
    second.join().expect("no panic");
}

/// Whether a vCPU is inside guest execution, and a bell that rings when it enters.
struct Inside {
    now: AtomicBool,
    entered: Bell,
}

impl Inside {
    fn is_empty(&self) -> bool {
        !self.now.load(Ordering::Relaxed)
    }
}

/// The head of a vCPU thread's loop, over the real control: stops when it is asked, runs otherwise.
fn live(control: &Control, vcpu: &Vcpu, bell: &Bell, inside: &Inside) {
    let mut stopped = true;
    while !vcpu.is_leaving() {
        vcpu.shared.clear_exit_request();
        if stopped {
            stopped = !control.rest(vcpu);
        } else if vcpu.is_held() {
            stopped = true;
        } else if !vcpu.is_leaving() {
            inside.now.store(true, Ordering::Relaxed);
            inside.entered.kick();
            bell.run_until_kicked();
            inside.now.store(false, Ordering::Relaxed);
        }
    }
}

/// Control of one vCPU that lives on a thread of its own, while `drive` drives it.
fn controlled(drive: fn(&Control, &Inside)) {
    let control = Arc::new(Control::new(Duration::from_secs(3600), Arc::new(channel().0)));
    let bell = Arc::new(Bell::new());
    let shared = Arc::new(VcpuShared::new(0));
    shared.set_kick(Arc::clone(&bell) as Arc<dyn Kick>);
    let vcpu = Arc::new(Vcpu::new(shared, CpuState::new(0), PowerCell::new(Power::On)));
    let inside = Arc::new(Inside { now: AtomicBool::new(false), entered: Bell::new() });
    control.add(Arc::clone(&vcpu)).expect("the first one");
    control.start("model").expect("starts");
    let thread = {
        let (control, vcpu, inside) = (Arc::clone(&control), Arc::clone(&vcpu), Arc::clone(&inside));
        thread::spawn(move || live(&control, &vcpu, &bell, &inside))
    };
    drive(&control, &inside);
    assert!(inside.is_empty(), "paused, and inside");
    assert!(control.all_stopped(), "paused, and somebody took it back");
    vcpu.leave();
    thread.join().expect("no panic");
}

fn a_pause_is_complete_when_the_vcpu_has_stopped() {
    controlled(|control, _| control.pause("model").expect("pauses"));
}

fn a_pause_after_a_pause_is_complete_too() {
    controlled(|control, inside| {
        control.pause("model").expect("pauses");
        assert!(inside.is_empty(), "paused, and inside");
        control.resume("model").expect("resumes");
        control.pause("model").expect("pauses again");
    });
}

fn a_pause_after_a_hasty_resume_is_complete_too() {
    controlled(|control, inside| {
        inside.entered.run_until_kicked();
        control.request_pause("model").expect("is asked for");
        control.resume("model").expect("resumes");
        control.pause("model").expect("pauses");
    });
}

/// Control of a running vCPU that nobody drives, so that it never stops.
fn never_stopping() -> (Arc<Control>, u64) {
    let control = Arc::new(Control::new(Duration::from_secs(3600), Arc::new(channel().0)));
    let shared = Arc::new(VcpuShared::new(0));
    let vcpu = Arc::new(Vcpu::new(shared, CpuState::new(0), PowerCell::new(Power::On)));
    control.add(Arc::clone(&vcpu)).expect("the first one");
    control.start("model").expect("starts");
    assert!(control.rest(&vcpu), "it may go on");
    let ticket = control.request_pause("model").expect("is asked for").expect("takes time");
    (control, ticket)
}

fn a_resume_ends_the_wait_for_a_pause() {
    let (control, ticket) = never_stopping();
    let there = Arc::clone(&control);
    let waiting = thread::spawn(move || there.await_pause(ticket));
    control.resume("model").expect("resumes");
    assert!(matches!(waiting.join().expect("no panic"), Err(EngineError::PauseCancelled)));
}

fn a_shutdown_ends_the_wait_for_a_pause() {
    let (control, ticket) = never_stopping();
    let there = Arc::clone(&control);
    let waiting = thread::spawn(move || there.await_pause(ticket));
    assert!(control.begin_shutdown("model"));
    assert!(matches!(waiting.join().expect("no panic"), Err(EngineError::ShutDown)));
}

fn resets_take_turns() {
    let control = Arc::new(Control::new(Duration::from_secs(3600), Arc::new(channel().0)));
    let there = Arc::clone(&control);
    let reset = |control: &Control| control.begin_reset("model").map(Resetting::complete);
    let second = thread::spawn(move || reset(&there));
    reset(&control).expect("resets");
    second.join().expect("no panic").expect("resets");
    assert_eq!(control.state(), MachineState::Created);
}

fn an_answer_reaches_who_waits_for_it() {
    let (promise, answer) = reply(0, None);
    let worker = thread::spawn(move || {
        assert!(promise.begin());
        promise.answer(Ok(7));
    });
    assert!(matches!(answer.wait(Duration::from_secs(3600)), Some(Ok(7))));
    worker.join().expect("no panic");
}

fn an_answer_wakes_a_vcpu_that_waits_for_it() {
    let shared = Arc::new(VcpuShared::new(0));
    let (promise, answer) = reply(1, Some(Arc::clone(&shared)));
    let worker = thread::spawn(move || promise.answer(Ok(7)));
    shared.sleep_until(None, || answer.is_done());
    assert!(matches!(answer.take(), Some(Ok(7))));
    worker.join().expect("no panic");
}

fn the_end_of_a_thread_is_heard() {
    let shared = Arc::new(VcpuShared::new(0));
    let vcpu = Arc::new(Vcpu::new(shared, CpuState::new(0), PowerCell::new(Power::On)));
    let thread = Arc::clone(&vcpu);
    let ending = thread::spawn(move || thread.finish());
    assert!(vcpu.wait_finished(Instant::now() + Duration::from_secs(3600)));
    ending.join().expect("no panic");
}
