//! Creation, pause, reset, unplug, failure, shutdown: G1, G10, G11, G14, G19.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::support::{COUNT, Fault, LIMIT, Plan, eventually, reset_state};
use super::{Op, Subject};
use crate::accel::Halt;
use crate::{
    AfterExit, Engine, EngineError, MachineEvent, MachineState, Power, PowerOnError, Then, VcpuShared,
    VcpuState,
};

/// The thread exists and bears its name, nothing has run, and the vCPU waits for the start.
pub fn g01_creation_returns_a_stopped_vcpu_on_its_own_thread(subject: &dyn Subject) {
    let name = subject.load(COUNT).accelerator.name();
    let machine = Plan::new(subject, COUNT).build(2);
    for index in 0..2 {
        assert_eq!(machine.engine.vcpu_state(index).expect("exists"), VcpuState::Stopped(Then::Run));
        let (thread, state) = machine
            .engine
            .run_on(index, |cpu| (thread::current().name().map(str::to_owned), cpu.state().clone()))
            .expect("work runs before the start");
        let own = if subject.threads() { format!("CPU {index}/{name}") } else { format!("CPUs/{name}") };
        assert_eq!(thread, Some(own));
        assert_eq!((state.pc, state.x[0]), (machine.entry, 0));
        assert_eq!(machine.runs(index), 0);
    }
    assert_eq!(machine.engine.state(), MachineState::Created);
    machine.engine.start("test").expect("starts");
    assert!(matches!(machine.engine.start("again"), Err(EngineError::BadState { .. })));
    eventually("both run", || machine.runs(0) > 0 && machine.runs(1) > 0);
}

/// The error of the initialisation on the thread is the result of `create_vcpu`, and leaves no trace.
pub fn g01_creation_returns_the_accelerators_error(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).fault(1, Fault::Refuse).build(1);
    let refused = machine.engine.create_vcpu(Arc::new(VcpuShared::new(1)), machine.reset_state(1), Power::On);
    let Err(EngineError::Accelerator(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.to_string(), "No room for vCPU 1");
    assert_eq!(machine.engine.vcpus(), [0]);
    assert!(matches!(machine.engine.run_on(1, |_| ()), Err(EngineError::NoSuchVcpu(1))));
    machine.engine.start("test").expect("starts without it");
    machine.engine.pause("test").expect("nobody is missed");
}

/// A panic in the accelerator's initialisation does not leave the caller waiting.
pub fn g01_a_panic_during_creation_is_an_error(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).fault(0, Fault::PanicInCreation).empty();
    let failed = machine.engine.create_vcpu(Arc::new(VcpuShared::new(0)), machine.reset_state(0), Power::On);
    let Err(EngineError::Accelerator(error)) = failed else { panic!("{failed:?}") };
    assert!(error.to_string().contains("creation of 0"), "{error}");
}

/// Of two vCPUs with one number the second is refused, also when both are made at once.
pub fn g01_numbers_are_taken_once(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).empty();
    let made = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let shared = Arc::new(VcpuShared::new(0));
                match machine.engine.create_vcpu(shared, machine.reset_state(0), Power::On) {
                    Ok(()) => drop(made.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => assert!(matches!(error, EngineError::Exists(0)), "{error}"),
                }
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
    assert_eq!(machine.engine.vcpus(), [0]);
}

/// When `pause` returns, no vCPU executes, and none does until the resume.
pub fn g10_only_stopped_vcpus_make_a_pause(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(3);
    for _ in 0..50 {
        machine.engine.pause("test").expect("pauses");
        assert_eq!(machine.engine.state(), MachineState::Paused);
        let runs: Vec<_> = (0..3).map(|i| machine.runs(i)).collect();
        for index in 0..3 {
            assert!(!machine.is_inside(index));
            machine.shared[index].notify();
            let state = machine.engine.vcpu_state(index).expect("exists");
            assert_eq!(state, VcpuState::Stopped(Then::Run));
        }
        let now: Vec<_> = (0..3).map(|i| machine.runs(i)).collect();
        assert_eq!(runs, now);
        machine.engine.resume("test").expect("resumes");
        eventually("all run again", || (0..3).all(|i| machine.runs(i) > runs[i]));
    }
}

/// All waiters are told (the condition is broadcast), and more may come when it is paused already.
pub fn g10_any_number_of_threads_wait_for_one_pause(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(2);
    let engine = &machine.engine;
    for _ in 0..20 {
        // Hold the pause up until all waiters have asked for it.
        let latch = machine.occupy(0);
        thread::scope(|scope| {
            let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| engine.pause("test"))).collect();
            eventually("the pause is on its way", || engine.state() == MachineState::Pausing);
            latch.open();
            for waiter in waiters {
                waiter.join().expect("no panic").expect("the pause is complete");
            }
        });
        engine.pause("again").expect("paused already");
        engine.resume("test").expect("resumes");
    }
}

/// Pauses and resumes from several threads: each ends, with the machine paused or the news that a resume
/// came first, and the last word counts.
pub fn g10_pause_and_resume_at_once_stay_in_order(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(2);
    let engine = &machine.engine;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..100 {
                    match engine.pause("test") {
                        Ok(()) | Err(EngineError::PauseCancelled) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            scope.spawn(|| {
                for _ in 0..100 {
                    engine.resume("test").expect("a resume is always possible here");
                    thread::yield_now();
                }
            });
        }
        // The pausers may be left waiting for nobody: every pause completes by itself.
    });
    engine.resume("last").expect("resumes");
    assert_eq!(engine.state(), MachineState::Running);
    let runs = [machine.runs(0), machine.runs(1)];
    eventually("both run", || machine.runs(0) > runs[0] || machine.is_inside(0));
    engine.pause("last").expect("pauses");
    assert!(!machine.is_inside(0) && !machine.is_inside(1));
}

/// The vCPU that asks parks and sends an event; the machine's thread does it, with everybody stopped.
pub fn g11_a_reset_asked_for_by_a_vcpu_is_done_by_the_machines_thread(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Increment(0), Op::Hvc(3), Op::Jump(0)];
    let machine = Plan::new(subject, &program)
        .hypercall(|_, vcpu, _, _| AfterExit::StopMachine(MachineEvent::Reset { vcpu }))
        .start(2);
    for _ in 0..20 {
        // vCPUs of one thread go no further when one of them has asked for something.
        let count = if subject.threads() { 2 } else { 1 };
        let mut asked: Vec<_> = (0..count).map(|_| machine.event()).collect();
        asked.sort_by_key(|event| matches!(event, MachineEvent::Reset { vcpu: 1 }));
        let who = |event: &MachineEvent| match *event {
            MachineEvent::Reset { vcpu } => vcpu,
            ref other => panic!("{other:?}"),
        };
        let asked: Vec<_> = asked.iter().map(who).collect();
        assert!(asked == [0, 1] || !subject.threads(), "{asked:?}");
        for &index in &asked {
            assert_eq!(machine.engine.vcpu_state(index).expect("exists"), VcpuState::AwaitingMachine);
            assert_eq!(machine.x(index, 0), 1, "the guest went on behind its request");
        }
        // Not even a resume lets a vCPU go on that has asked for its reset.
        machine.engine.pause("test").expect("pauses");
        machine.engine.resume("test").expect("resumes");
        assert_eq!(machine.x(asked[0], 0), 1);
        let (mut devices, entry) = (false, machine.entry);
        machine
            .engine
            .reset(
                "asked for by the guest",
                || {
                    assert!(!machine.is_inside(0) && !machine.is_inside(1));
                    devices = true;
                },
                |index| (reset_state(index, entry), Power::On),
            )
            .expect("resets");
        assert!(devices);
        assert_eq!(machine.engine.state(), MachineState::Running);
    }
}

/// Waiting for vCPUs on a vCPU's thread is an error, not a deadlock.
pub fn g11_blocking_calls_on_a_vcpus_thread_are_refused(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(2);
    let engine: Weak<Engine> = Arc::downgrade(&machine.engine);
    machine
        .engine
        .run_on(0, move |_| {
            let engine = engine.upgrade().expect("lives");
            let refused = |result: Result<(), EngineError>| {
                assert!(matches!(result, Err(EngineError::OnVcpuThread)), "{result:?}");
            };
            refused(engine.pause("test"));
            refused(engine.run_on(1, |_| ()));
            refused(engine.run_exclusive(0, |_| ()));
            refused(engine.reset("test", || (), |_| unreachable!()));
            refused(engine.unplug(0));
            refused(engine.shutdown("test"));
            refused(engine.create_vcpu(Arc::new(VcpuShared::new(5)), reset_state(5, 0), Power::On));
            engine.request_pause("from a vCPU").expect("asking is allowed");
        })
        .expect("work runs");
    machine.engine.pause("test").expect("pauses");
}

/// Who waits for work on a vCPU that leaves gets an error, at once; so does who comes later.
pub fn g14_unplugging_cancels_waiting_work_and_refuses_more(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(2);
    let engine = &machine.engine;
    let latch = machine.occupy(1);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|i| {
                scope.spawn(move || match i % 2 {
                    0 => engine.run_on(1, |_| ()),
                    _ => engine.run_exclusive(1, |_| ()),
                })
            })
            .collect();
        let unplug = scope.spawn(|| engine.unplug(1));
        for waiter in waiting {
            let result = waiter.join().expect("no panic");
            assert!(matches!(result, Err(EngineError::Gone(1))), "{result:?}");
        }
        assert!(matches!(engine.run_on_async(1, |_| ()), Err(EngineError::Gone(1))));
        latch.open();
        unplug.join().expect("no panic").expect("unplugs");
    });
    assert!(matches!(engine.run_on(1, |_| ()), Err(EngineError::NoSuchVcpu(1))));
    assert_eq!(engine.vcpus(), [0]);
    engine.pause("test").expect("nobody is missed");
}

/// A vCPU that the guest uses stays; one that is off leaves, and of unplugging and CPU_ON one succeeds.
pub fn g14_of_unplugging_and_cpu_on_exactly_one_succeeds(subject: &dyn Subject) {
    let mut machine = Plan::new(subject, COUNT).start(1);
    let refused = machine.engine.unplug_if_off(0);
    assert!(matches!(refused, Err(EngineError::PoweredOn(0))), "{refused:?}");
    for round in 0..60 {
        machine.create(1, Power::Off);
        machine.engine.release(1).expect("releases");
        let (power, entry, engine) = (machine.engine.power(), machine.entry, &machine.engine);
        let (on, unplugged) = thread::scope(|scope| {
            let on = scope.spawn(|| power.power_on(1, entry, 0));
            if round % 2 == 0 {
                thread::yield_now();
            }
            let unplugged = engine.unplug_if_off(1);
            (on.join().expect("no panic"), unplugged)
        });
        match (&on, &unplugged) {
            (Ok(()), Err(EngineError::PoweredOn(1))) => {
                eventually("it is on", || power.power(1) == Some(Power::On));
                engine.unplug(1).expect("unplugs");
            }
            (Err(PowerOnError::Invalid), Ok(())) => {}
            both => panic!("{both:?}"),
        }
        assert_eq!(engine.vcpus(), [0]);
    }
    machine.engine.pause("test").expect("nobody is missed");
}

/// Plugging and unplugging leave the rest of the machine running.
pub fn g14_a_vcpu_can_be_unplugged_and_plugged_again_while_the_machine_runs(subject: &dyn Subject) {
    let mut machine = Plan::new(subject, COUNT).start(1);
    for _ in 0..20 {
        machine.create(1, Power::On);
        let state = machine.engine.vcpu_state(1).expect("exists");
        assert_eq!(state, VcpuState::Stopped(Then::Run), "a plugged vCPU waits for its release");
        let runs = machine.runs(1);
        machine.engine.release(1).expect("releases");
        eventually("the new vCPU runs", || machine.runs(1) > runs);
        machine.engine.unplug(1).expect("unplugs");
        assert!(!machine.is_inside(1));
    }
    machine.engine.run_on(0, |_| ()).expect("the first one still works");
}

/// Neither the engine nor the accelerator keeps anything of a vCPU that has left, or gives the next one of its number what
/// was meant for it.
pub fn g14_nothing_reaches_a_vcpu_that_left(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(2);
    for power in [Power::On, Power::Off] {
        let shared = Arc::new(VcpuShared::new(2));
        machine.engine.create_vcpu(Arc::clone(&shared), machine.reset_state(2), power).expect("is made");
        machine.engine.release(2).expect("is there");
        machine.engine.run_on(2, |_| ()).expect("work runs");
        machine.engine.unplug(2).expect("unplugs");
        eventually("everybody has forgotten it", || Arc::strong_count(&shared) == 1);
    }
    // One whose creation fails is not kept either.
    let shared = Arc::new(VcpuShared::new(1));
    let twice = machine.engine.create_vcpu(Arc::clone(&shared), machine.reset_state(1), Power::On);
    assert!(matches!(twice, Err(EngineError::Exists(1))));
    eventually("everybody has forgotten it", || Arc::strong_count(&shared) == 1);
}

/// The panic is caught and reported, the others stop, and nothing waits for the dead.
pub fn g19_a_panicking_vcpu_stops_the_machine_and_says_why(subject: &dyn Subject) {
    for in_work in [false, true] {
        let mut plan = Plan::new(subject, COUNT);
        if !in_work {
            plan = plan.fault(1, Fault::PanicInRun);
        }
        let machine = plan.start(3);
        let expected = if in_work { "test: work" } else { "test: a run" };
        if in_work {
            let result = machine.engine.run_on(1, |_| panic!("test: work"));
            let Err(EngineError::Panicked { vcpu: 1, reason }) = result else { panic!("{result:?}") };
            assert_eq!(reason, expected);
        }
        let event = machine.event();
        assert_eq!(event, MachineEvent::Panicked { vcpu: 1, reason: expected.to_owned() });
        machine.engine.pause("test").expect("the others stop, the dead count as stopped");
        assert!(!machine.is_inside(0) && !machine.is_inside(2));
        let failure = machine.engine.failure().expect("the reason is kept");
        assert!(failure.contains(expected) && failure.contains("vCPU 1"), "{failure}");
        assert!(matches!(machine.engine.resume("test"), Err(EngineError::Failed(_))));
        assert!(matches!(machine.engine.run_on(1, |_| ()), Err(EngineError::Gone(1))));
        machine.engine.run_on(0, |_| ()).expect("the others still do work");
        let entry = machine.entry;
        let reset = machine.engine.reset("test", || (), |i| (reset_state(i, entry), Power::On));
        assert!(reset.is_err(), "the dead cannot be reset");
        machine.engine.shutdown("test").expect("ends");
    }
}

/// A vCPU that cannot go on stops the machine; a reset heals it.
pub fn g19_a_fatal_exit_stops_the_machine_until_a_reset(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).fault(0, Fault::FatalInRun).start(2);
    let event = machine.event();
    assert_eq!(event, MachineEvent::Fatal { vcpu: 0, reason: "test: a fatal exit".to_owned() });
    machine.engine.pause("test").expect("pauses");
    assert!(matches!(machine.engine.resume("test"), Err(EngineError::Failed(_))));
    let entry = machine.entry;
    machine.engine.reset("test", || (), |i| (reset_state(i, entry), Power::On)).expect("resets");
    assert_eq!(machine.engine.state(), MachineState::Paused);
    let runs = machine.runs(0);
    machine.engine.resume("test").expect("healed");
    eventually("it runs again", || machine.runs(0) > runs);
}

/// A thread that does not come back is named after the engine's patience; nobody waits for ever.
pub fn g19_a_hung_thread_is_reported_not_waited_for(subject: &dyn Subject) {
    let patience = Duration::from_millis(100);
    let machine = Plan::new(subject, COUNT).fault(1, Fault::Hang).patience(patience).start(2);
    eventually("it hangs", || machine.is_inside(1));
    let timed_out = |result: Result<(), EngineError>| {
        let Err(EngineError::Timeout { vcpus, .. }) = result else { panic!("{result:?}") };
        // On a busy host the others may be late as well.
        assert!(vcpus.contains(&1), "{vcpus:?}");
    };
    let start = Instant::now();
    timed_out(machine.engine.run_on(1, |_| unreachable!("abandoned work does not run")));
    timed_out(machine.engine.pause("test"));
    timed_out(machine.engine.shutdown("test"));
    assert!(start.elapsed() < LIMIT);
    machine.latch.open();
    eventually("it ends late", || machine.engine.shutdown("again").is_ok());
    assert_eq!(machine.engine.state(), MachineState::Gone);
}

/// From every state, with waiters of every kind.
pub fn g19_shutdown_ends_everybody_in_any_state(subject: &dyn Subject) {
    let program = [Op::Wfi, Op::Jump(0), Op::Wfe, Op::Jump(2), Op::Increment(0), Op::Jump(4)];
    for paused in [false, true] {
        let mut machine = Plan::new(subject, &program).build(2);
        machine.create(2, Power::On);
        machine.create(3, Power::Off);
        let entry = machine.entry;
        for index in 1..3 {
            let pc = entry + 8 * index as u64;
            machine.engine.run_on(index, move |cpu| cpu.state_mut().pc = pc).expect("work runs");
        }
        machine.engine.start("test").expect("starts");
        if subject.executes() {
            machine.rests(0, Halt::Interrupt);
            machine.rests(1, Halt::Event);
        }
        machine.reaches(3, VcpuState::PoweredOff);
        if paused {
            machine.engine.pause("test").expect("pauses");
        }
        let late: OnceLock<bool> = OnceLock::new();
        thread::scope(|scope| {
            scope.spawn(|| while machine.engine.run_on(2, |_| ()).is_ok() {});
            scope.spawn(|| while machine.engine.run_exclusive(0, |_| ()).is_ok() {});
            scope.spawn(|| {
                while machine.engine.pause("test").is_ok() {
                    if machine.engine.resume("test").is_err() {
                        break;
                    }
                }
                let _ = late.set(matches!(machine.engine.pause("late"), Err(EngineError::ShutDown)));
            });
            machine.engine.shutdown("test").expect("ends");
        });
        assert_eq!(late.get(), Some(&true));
        assert_eq!(machine.engine.state(), MachineState::Gone);
        for index in 0..4 {
            assert_eq!(machine.engine.vcpu_state(index).expect("known"), VcpuState::Gone);
        }
    }
}
