//! Mistakes that other machines have made, each by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::support::{COUNT, Fault, LIMIT, Plan, eventually, reset_state, thread_time};
use super::{Op, Subject};
use crate::accel::{Halt, VcpuBackend};
use crate::{AfterExit, Engine, EngineError, MachineState, Power, VcpuAccess, VcpuShared, VcpuState};

/// Interrupts, events, requests and work rain on a vCPU whose thread is ending and gone.
pub fn bug_kick_against_an_exiting_thread(subject: &dyn Subject) {
    for _ in 0..10 {
        let machine = Plan::new(subject, COUNT).start(2);
        // Held by each piece of work that is not done: a flood of it is another test's matter.
        let (stop, undone) = (AtomicBool::new(false), Arc::new(()));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        machine.shared[1].set_irq(true);
                        machine.shared[1].send_event();
                        machine.shared[1].request_exit();
                        machine.shared[1].set_irq(false);
                        if Arc::strong_count(&undone) < 16 {
                            let held = Arc::clone(&undone);
                            let _ = machine.engine.run_on_async(1, move |_| drop(held));
                        }
                        thread::yield_now();
                    }
                });
            }
            // Also if something fails, or the scope would wait for ever.
            let _stop = Stop(&stop);
            eventually("it runs", || machine.runs(1) > 0);
            machine.engine.unplug(1).expect("unplugs");
            machine.shared[1].notify();
        });
        machine.engine.run_on(0, |_| ()).expect("the other is well");
    }
}

/// Sets a flag when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While its thread still makes it, nobody can see a vCPU; pause and sections do not wait for it.
pub fn bug_vcpu_visible_before_its_thread_exists(subject: &dyn Subject) {
    if !subject.threads() {
        return;
    }
    let machine = Plan::new(subject, COUNT).fault(1, Fault::SlowCreation).start(1);
    thread::scope(|scope| {
        let state = machine.reset_state(1);
        let engine: &Engine = &machine.engine;
        let create = scope.spawn(move || engine.create_vcpu(Arc::new(VcpuShared::new(1)), state, Power::On));
        for _ in 0..20 {
            assert_eq!(engine.vcpus(), [0]);
            assert!(matches!(engine.run_on(1, |_| ()), Err(EngineError::NoSuchVcpu(1))));
            engine.run_exclusive(0, |_| ()).expect("does not wait for it");
            engine.pause("test").expect("does not wait for it");
            engine.resume("test").expect("resumes");
        }
        assert!(!create.is_finished());
        machine.latch.open();
        create.join().expect("no panic").expect("is made");
    });
    assert_eq!(machine.engine.vcpus(), [0, 1]);
}

/// What happened to the lines before there was a thread is seen by it.
pub fn bug_kick_before_the_thread_exists(subject: &dyn Subject) {
    let program = [Op::Wfi, Op::Increment(0), Op::Jump(0)];
    let mut machine = Plan::new(subject, &program).empty();
    let shared = Arc::new(VcpuShared::new(0));
    shared.set_irq(true);
    shared.send_event();
    shared.request_exit();
    machine.engine.create_vcpu(Arc::clone(&shared), machine.reset_state(0), Power::On).expect("is made");
    machine.shared.push(shared);
    machine.engine.start("test").expect("starts");
    assert!(machine.shared[0].irq());
    if subject.executes() {
        machine.progresses(0);
    }
    machine.engine.run_on(0, |_| ()).expect("work runs");
}

/// `stopped` was set by another thread, so reset ran while the CPU still executed.
pub fn bug_reset_ran_while_a_cpu_still_executed(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(3);
    let entry = machine.entry;
    for round in 0..60 {
        let nobody_inside = || (0..3).all(|i| !machine.is_inside(i));
        let devices = || {
            for _ in 0..20 {
                assert!(nobody_inside());
                thread::yield_now();
            }
        };
        let cpu = |index| {
            assert!(nobody_inside());
            (reset_state(index, entry), Power::On)
        };
        machine.engine.reset("test", devices, cpu).expect("resets");
        if round % 3 == 0 {
            let runs = machine.runs(0);
            eventually("it runs", || machine.runs(0) > runs || machine.is_inside(0));
        }
    }
}

/// Sections, plugging and unplugging at the same time: neither waits for the other for ever, and no plugged
/// vCPU executes in a section.
pub fn bug_exclusive_work_against_hot_plug(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(2);
    let stop = AtomicBool::new(false);
    let sections = AtomicUsize::new(0);
    thread::scope(|scope| {
        for target in 0..2 {
            let (machine, stop, sections) = (&machine, &stop, &sections);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seen = machine.seen.clone();
                    let section = move |_: &mut VcpuAccess<'_>| {
                        // One chance for the others to execute: on a busy host it costs much time.
                        assert!(seen.iter().all(|s| !s.inside.load(Ordering::SeqCst)));
                        thread::yield_now();
                        assert!(seen.iter().all(|s| !s.inside.load(Ordering::SeqCst)));
                    };
                    machine.engine.run_exclusive(target, section).expect("a section");
                    sections.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("sections have begun", || sections.load(Ordering::Relaxed) > 0);
        for round in 0..40 {
            let index = 2 + round % 3;
            let shared = Arc::new(VcpuShared::new(index));
            machine.engine.create_vcpu(shared, machine.reset_state(index), Power::On).expect("is made");
            machine.engine.release(index).expect("released");
            machine.engine.unplug(index).expect("unplugs");
        }
        let before = sections.load(Ordering::Relaxed);
        eventually("sections go on", || sections.load(Ordering::Relaxed) > before);
        stop.store(true, Ordering::Relaxed);
    });
}

/// From an exit handler, on the vCPU's thread, a section through the engine is refused; there is no other
/// way to ask for one there.
pub fn bug_exclusive_section_entered_from_inside_execution(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Hvc(0), Op::Jump(0)];
    let engine: Arc<std::sync::OnceLock<std::sync::Weak<Engine>>> = Arc::default();
    let (handle, refused) = (Arc::clone(&engine), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&refused);
    let machine = Plan::new(subject, &program)
        .hypercall(move |_, vcpu, _, _| {
            // The test's end drops the engine on its own thread, never here: it joins this thread first.
            if let Some(engine) = handle.get().and_then(std::sync::Weak::upgrade) {
                for target in [vcpu, 1 - vcpu] {
                    let result = engine.run_exclusive(target, |_| ());
                    assert!(matches!(result, Err(EngineError::OnVcpuThread)));
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
            AfterExit::Resume
        })
        .build(2);
    let _ = engine.set(Arc::downgrade(&machine.engine));
    machine.engine.start("test").expect("starts");
    eventually("it was tried", || refused.load(Ordering::SeqCst) > 10);
    machine.engine.run_exclusive(0, |_| ()).expect("from outside it works");
    machine.engine.pause("test").expect("pauses");
    machine.engine.shutdown("test").expect("ends");
}

/// A panic inside a section opens the gate; the others stop by order, not by accident.
pub fn bug_exclusive_section_not_released_on_a_panic(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(3);
    let result = machine.engine.run_exclusive(1, |_| panic!("test: in a section"));
    assert!(matches!(result, Err(EngineError::Panicked { vcpu: 1, .. })), "{result:?}");
    for target in [0, 2, 0] {
        machine.engine.run_exclusive(target, |_| ()).expect("the gate is open");
    }
    machine.engine.pause("test").expect("pauses");
    machine.engine.shutdown("test").expect("ends");
}

/// The pause is complete only with the reset, and holds afterwards.
pub fn bug_reset_while_another_thread_waits_for_pause(subject: &dyn Subject) {
    for _ in 0..20 {
        let machine = Plan::new(subject, COUNT).start(2);
        let (engine, entry) = (&machine.engine, machine.entry);
        let latch = machine.occupy(0);
        thread::scope(|scope| {
            let pause = scope.spawn(|| engine.pause("test"));
            eventually("the pause is on its way", || engine.state() == MachineState::Pausing);
            let reset = scope.spawn(|| engine.reset("test", || (), |i| (reset_state(i, entry), Power::On)));
            eventually("the reset has begun", || engine.state() == MachineState::Resetting);
            let second = scope.spawn(|| engine.pause("during the reset"));
            latch.open();
            pause.join().expect("no panic").expect("pauses");
            second.join().expect("no panic").expect("pauses");
            reset.join().expect("no panic").expect("resets");
        });
        assert_eq!(engine.state(), MachineState::Paused);
        assert!(!machine.is_inside(0) && !machine.is_inside(1));
        assert_eq!((machine.x(0, 0), machine.x(1, 0)), (0, 0), "something ran after the reset");
    }
}

/// A vCPU leaves from every state, and its thread ends.
pub fn bug_unplug_loop_that_never_exits(subject: &dyn Subject) {
    let program = [Op::Wfi, Op::Jump(0), Op::Wfe, Op::Jump(2), Op::Increment(0), Op::Jump(4)];
    let mut machine = Plan::new(subject, &program).build(4);
    machine.create(4, Power::Off);
    let entry = machine.entry;
    for index in 1..4 {
        let pc = entry + 8 * (index as u64 % 3);
        machine.engine.run_on(index, move |cpu| cpu.state_mut().pc = pc).expect("work runs");
    }
    machine.engine.unplug(3).expect("before the start");
    machine.engine.start("test").expect("starts");
    eventually("the rest runs", || (0..3).all(|i| machine.runs(i) > 0));
    for index in [4, 2, 1] {
        machine.engine.unplug(index).expect("while running");
    }
    machine.engine.pause("test").expect("pauses");
    machine.engine.unplug(0).expect("while paused");
    assert_eq!(machine.engine.vcpus(), [0; 0]);
    assert!(matches!(machine.engine.unplug(0), Err(EngineError::NoSuchVcpu(0))));
}

/// Where vCPUs share a thread all but one wait for their turn, and where they do not all compute: each does its work soon.
pub fn bug_work_of_a_vcpu_that_is_not_current_never_run(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(4);
    let done = Arc::new(AtomicUsize::new(0));
    for round in 0..20 {
        for index in 0..4 {
            machine.engine.run_on(index, |_| ()).expect("runs");
            let count = Arc::clone(&done);
            let later = move |_: &mut VcpuAccess<'_>| {
                count.fetch_add(1, Ordering::SeqCst);
            };
            machine.engine.run_on_async(index, later).expect("is queued");
            machine.engine.run_exclusive((index + round) % 4, |_| ()).expect("runs");
        }
        eventually("what was queued is done", || done.load(Ordering::SeqCst) == 4 * (round + 1));
    }
}

/// Somebody who asks for a pause does not declare anybody stopped: while the vCPU is busy, it is not, and neither is the
/// machine.
pub fn bug_stopped_declared_by_another_thread(subject: &dyn Subject) {
    if !subject.threads() {
        // One that is busy keeps all of its thread.
        return;
    }
    let machine = Plan::new(subject, COUNT).start(2);
    for round in 0..20 {
        let latch = machine.occupy(0);
        machine.engine.request_pause("test").expect("asked for");
        if round % 2 == 0 {
            machine.engine.request_pause("test").expect("asked for again");
        }
        eventually("the idle one stops", || {
            matches!(machine.engine.vcpu_state(1), Ok(VcpuState::Stopped(_)))
        });
        assert_eq!(machine.engine.vcpu_state(0).expect("exists"), VcpuState::Running);
        assert_eq!(machine.engine.state(), MachineState::Pausing);
        latch.open();
        machine.engine.pause("test").expect("pauses");
        assert!(matches!(machine.engine.vcpu_state(0), Ok(VcpuState::Stopped(_))));
        machine.engine.resume("test").expect("resumes");
    }
}

/// Two threads wait for one pause: the condition is told to both.
pub fn bug_pause_told_to_one_of_two_waiters(subject: &dyn Subject) {
    for _ in 0..20 {
        let machine = Plan::new(subject, COUNT).start(2);
        let latch = machine.occupy(0);
        let waiting = AtomicUsize::new(0);
        thread::scope(|scope| {
            let wait = || {
                waiting.fetch_add(1, Ordering::SeqCst);
                machine.engine.pause("test")
            };
            let waiters = [scope.spawn(wait), scope.spawn(wait)];
            eventually("both wait", || waiting.load(Ordering::SeqCst) == 2);
            eventually("the pause is on its way", || machine.engine.state() == MachineState::Pausing);
            let begin = Instant::now();
            latch.open();
            waiters.into_iter().for_each(|waiter| waiter.join().expect("no panic").expect("pauses"));
            // Who is not told looks again at the end of the engine's patience.
            assert!(begin.elapsed() < LIMIT / 2, "a waiter was not told");
        });
    }
}

/// True if values of the type cannot leave their thread: the second of two ways to implement the trait would make the call
/// ambiguous otherwise, which does not compile.
trait StaysAtHome<Marker> {
    fn stays() -> bool {
        true
    }
}
impl<T: ?Sized> StaysAtHome<()> for T {}
impl<T: ?Sized + Send> StaysAtHome<u8> for T {}

/// What a vCPU knows of memory (translations, TLBs) belongs to its thread, by type; and whatever asks for it to be
/// forgotten, from whatever thread, has it done there.
pub fn bug_tlb_flush_run_on_the_wrong_thread(subject: &dyn Subject) {
    assert!(<dyn VcpuBackend as StaysAtHome<_>>::stays());
    assert!(<Box<dyn VcpuBackend> as StaysAtHome<_>>::stays());
    let machine = Plan::new(subject, COUNT).start(3);
    let entry = machine.entry;
    // Each touch of a vCPU by another thread than its own would panic, and end the vCPU.
    thread::scope(|scope| {
        for own in 0..3 {
            let engine = &machine.engine;
            scope.spawn(move || {
                for round in 0..40 {
                    let other = (own + 1 + round % 2) % 3;
                    let flush = |cpu: &mut VcpuAccess<'_>| cpu.backend().memory_changed();
                    let all = move |cpu: &mut VcpuAccess<'_>| {
                        (0..3).try_for_each(|target| cpu.run_on(target, flush))
                    };
                    engine.run_on(own, move |cpu| cpu.run_on(other, flush)).expect("runs").expect("runs");
                    engine.run_exclusive(own, all).expect("runs").expect("runs");
                    engine.run_on_async(other, flush).expect("is queued");
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..10 {
                machine.engine.reset("test", || (), |i| (reset_state(i, entry), Power::On)).expect("resets");
            }
        });
    });
    for index in 0..3 {
        machine.engine.run_on(index, |_| ()).expect("it is alive");
    }
}

/// Guests that wait for events in loops, also for another's store, leave the host's processors alone.
pub fn bug_idle_guests_in_wfe_burn_a_host_core(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Wfe, Op::Increment(0), Op::Jump(0)];
    let machine = Plan::new(subject, &program).build(4);
    // Two of them have an armed monitor, and so wake up by themselves.
    let address = machine.entry;
    for index in 2..4 {
        machine
            .engine
            .run_on(index, move |cpu| cpu.state_mut().monitor.address = address)
            .expect("work runs");
    }
    machine.engine.start("test").expect("starts");
    (0..2).for_each(|index| machine.reaches(index, VcpuState::Halted(Halt::Event)));
    let span = Duration::from_millis(300);
    let used = || -> Duration { (0..4).map(|index| thread_time(&machine.engine, index)).sum() };
    let before = used();
    // Not for synchronisation: this is the span that is measured.
    thread::sleep(span);
    let used = used() - before;
    assert!(used < span / 3, "four idle vCPUs used {used:?} in {span:?}");
}
