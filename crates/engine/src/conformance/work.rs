//! Work and exclusive sections: G2 to G7, G15.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::support::{COUNT, Latch, Plan, eventually};
use super::{Op, Subject};
use crate::accel::Halt;
use crate::{
    AfterExit, Engine, EngineError, MachineEvent, MachineState, Power, Report, Then, VcpuState, Wait,
};

/// Before the start, running, halted, off, paused, parked.
pub fn g02_work_runs_in_every_state(subject: &dyn Subject) {
    // 0: WFI, 8: WFE, 16: a request to stop.
    let program = [Op::Wfi, Op::Jump(0), Op::Wfe, Op::Jump(2), Op::Hvc(0), Op::Jump(4)];
    let mut machine = Plan::new(subject, &program)
        .hypercall(|_, vcpu, _, _| AfterExit::StopMachine(MachineEvent::PowerOff { vcpu }))
        .build(3);
    machine.create(3, Power::Off);
    let entry = machine.entry;
    let works =
        |index: usize| machine.engine.run_on(index, move |cpu| cpu.index() + 10).ok() == Some(index + 10);
    for index in 0..3 {
        let pc = entry + 8 * index as u64;
        machine.engine.run_on(index, move |cpu| cpu.state_mut().pc = pc).expect("before the start");
    }
    machine.engine.start("test").expect("starts");
    machine.reaches(3, VcpuState::PoweredOff);
    assert!(works(3));
    assert_eq!(machine.engine.vcpu_state(3).expect("exists"), VcpuState::PoweredOff);
    if subject.executes() {
        let halts = [Some(Halt::Interrupt), Some(Halt::Event), None];
        for (index, halt) in halts.into_iter().enumerate() {
            let state = halt.map_or(VcpuState::AwaitingMachine, |halt| machine.resting(halt));
            match halt {
                Some(halt) => machine.rests(index, halt),
                None => machine.reaches(index, state),
            }
            assert!(works(index));
            assert_eq!(machine.engine.vcpu_state(index).expect("exists"), state, "work changed the state");
        }
    }
    machine.engine.pause("test").expect("pauses");
    for index in 0..4 {
        assert!(works(index));
        let state = machine.engine.vcpu_state(index).expect("exists");
        assert!(matches!(state, VcpuState::Stopped(_)), "{state:?}");
    }
    assert_eq!(machine.engine.vcpu_state(3).expect("exists"), VcpuState::Stopped(Then::PoweredOff));
}

/// On its own thread `run_on` calls; on another it runs there, and comes back with the result.
pub fn g03_run_on_is_direct_on_the_own_thread(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(2);
    let [own, direct, other] = machine
        .engine
        .run_on(0, |cpu| {
            let own = thread::current().id();
            let direct = cpu.run_on(0, |_| thread::current().id()).expect("direct");
            let other = cpu.run_on(1, |_| thread::current().id()).expect("on the other");
            assert!(matches!(cpu.run_on(7, |_| ()), Err(EngineError::NoSuchVcpu(7))));
            [own, direct, other]
        })
        .expect("work runs");
    assert_eq!(own, direct);
    assert_eq!(own != other, subject.threads());
    let there = machine.engine.run_on(1, |_| thread::current().id()).expect("work runs");
    assert_eq!(there, other);
}

/// Never run at once, not even on the own thread; first in, first out, also among the three kinds.
pub fn g04_async_work_is_deferred_and_in_order(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(2);
    let log = Arc::new(Mutex::new(Vec::new()));
    let push = |n: u32| {
        let log = Arc::clone(&log);
        move |_: &mut crate::VcpuAccess<'_>| log.lock().unwrap_or_else(PoisonError::into_inner).push(n)
    };
    let engine = Arc::clone(&machine.engine);
    let (later, now) = (push(1), push(0));
    machine
        .engine
        .run_on(0, move |cpu| {
            engine.run_on_async(0, later).expect("queued on the own thread");
            now(cpu);
            // The engine's last owner must not be a vCPU's thread.
            drop(engine);
        })
        .expect("work runs");
    for n in 2..100 {
        machine.engine.run_on_async(0, push(n)).expect("queued");
    }
    machine.engine.run_exclusive(0, push(100)).expect("work runs");
    machine.engine.run_on(0, push(101)).expect("work runs");
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(*log, (0..102).collect::<Vec<_>>());
}

/// Work that submits itself again, for ever, keeps its vCPU neither from other work nor from a pause or from leaving.
pub fn g04_work_that_makes_work_holds_nothing_up(subject: &dyn Subject) {
    fn again(engine: &Weak<Engine>, rounds: &Arc<AtomicU64>) {
        let Some(strong) = engine.upgrade() else { return };
        let (engine, rounds) = (Weak::clone(engine), Arc::clone(rounds));
        rounds.fetch_add(1, Ordering::Relaxed);
        // Refused as the vCPU leaves, which ends it.
        let _ = strong.run_on_async(1, move |_| again(&engine, &rounds));
    }
    let machine = Plan::new(subject, COUNT).start(2);
    let rounds = Arc::new(AtomicU64::new(0));
    let more = |count: u64| {
        let goal = rounds.load(Ordering::Relaxed) + count;
        eventually("more work", || rounds.load(Ordering::Relaxed) > goal);
    };
    again(&Arc::downgrade(&machine.engine), &rounds);
    more(100);
    machine.engine.run_on(1, |_| ()).expect("other work is done");
    machine.engine.pause("test").expect("pauses");
    more(100);
    machine.engine.resume("test").expect("resumes");
    machine.engine.unplug(1).expect("unplugs");
    machine.engine.run_on(0, |_| ()).expect("the other is well");
}

/// In a section no other vCPU is inside `run`, however long it takes; afterwards they go on.
pub fn g05_others_are_outside_guest_execution_in_a_section(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(3);
    for round in 0..60 {
        let target = round % 3;
        let seen = machine.seen.clone();
        machine
            .engine
            .run_exclusive(target, move |cpu| {
                assert!(cpu.is_exclusive());
                for _ in 0..20 {
                    assert!(seen.iter().all(|s| !s.inside.load(Ordering::SeqCst)));
                    thread::yield_now();
                }
            })
            .expect("the section is left");
    }
    let runs: Vec<_> = (0..3).map(|i| machine.runs(i)).collect();
    eventually("all run again", || (0..3).all(|i| machine.is_inside(i) || machine.runs(i) > runs[i]));
}

/// Sections from everywhere exclude each other; inside one, another is a plain call.
pub fn g06_one_section_at_a_time_and_nesting_is_allowed(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(3);
    let busy = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    thread::scope(|scope| {
        for caller in 0..4_usize {
            let (machine, busy, count) = (&machine, &busy, &count);
            scope.spawn(move || {
                for round in 0..30 {
                    let (busy, count) = (Arc::clone(busy), Arc::clone(count));
                    let section = move |cpu: &mut crate::VcpuAccess<'_>| {
                        assert!(!busy.swap(true, Ordering::SeqCst), "two sections at once");
                        let next = (cpu.index() + 1) % 3;
                        let own = cpu.run_exclusive(cpu.index(), |cpu| cpu.is_exclusive());
                        let lent = cpu.run_exclusive(next, |cpu| cpu.is_exclusive());
                        assert!(own.expect("nests") && lent.expect("is lent"));
                        count.fetch_add(1, Ordering::SeqCst);
                        busy.store(false, Ordering::SeqCst);
                    };
                    machine.engine.run_exclusive((caller + round) % 3, section).expect("has its turn");
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::SeqCst), 120);
    assert!(!machine.engine.run_on(0, |cpu| cpu.is_exclusive()).expect("work runs"));
}

/// While a section waits for its own work on another vCPU, nobody else's work is done in it: that would be in the
/// section too.
pub fn g06_a_section_that_waits_does_only_its_own_work(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(3);
    let (busy, waits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for round in 0..30 {
        let (inside, noted) = (Arc::clone(&busy), Arc::clone(&waits));
        let section = move |cpu: &mut crate::VcpuAccess<'_>| {
            assert!(!inside.swap(true, Ordering::SeqCst), "two sections at once");
            let there_and_back = move |other: &mut crate::VcpuAccess<'_>| {
                noted.store(true, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
                // Of the section, though it comes from elsewhere: it must be done.
                other.run_on(0, |cpu| cpu.is_exclusive())
            };
            assert!(matches!(cpu.run_on(1, there_and_back), Ok(Ok(true))));
            inside.store(false, Ordering::SeqCst);
        };
        thread::scope(|scope| {
            scope.spawn(|| machine.engine.run_exclusive(0, section).expect("has its turn"));
            eventually("the section waits", || waits.load(Ordering::SeqCst));
            let inside = Arc::clone(&busy);
            let other = move |_: &mut crate::VcpuAccess<'_>| inside.load(Ordering::SeqCst);
            let nested = move |cpu: &mut crate::VcpuAccess<'_>| cpu.run_exclusive(round % 3, other);
            let met = machine.engine.run_on(0, nested).expect("work runs").expect("has its turn");
            assert!(!met, "two sections at once");
        });
        waits.store(false, Ordering::SeqCst);
    }
}

/// A halted vCPU does not notice sections.
pub fn g07_a_section_leaves_halted_vcpus_asleep(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Wfi, Op::Increment(0), Op::Jump(0)];
    let machine = Plan::new(subject, &program).start(2);
    let asleep = VcpuState::Halted(Halt::Interrupt);
    machine.reaches(1, asleep);
    let runs = machine.runs(1);
    for _ in 0..50 {
        machine.engine.run_exclusive(0, |_| ()).expect("needs nobody else");
    }
    assert_eq!((machine.runs(1), machine.engine.vcpu_state(1).ok()), (runs, Some(asleep)));
}

/// An interrupt comes for a halted vCPU during a section: it waits for the end.
pub fn g07_a_section_holds_a_vcpu_that_wakes_at_the_door(subject: &dyn Subject) {
    if !subject.executes() || !subject.threads() {
        // On one thread nobody else goes on while one works.
        return;
    }
    let program = [Op::Wfi, Op::Increment(0), Op::Jump(0)];
    let machine = Plan::new(subject, &program).start(2);
    machine.rests(1, Halt::Interrupt);
    let runs = machine.runs(1);
    let latch = Arc::new(Latch::default());
    let held = Arc::clone(&latch);
    thread::scope(|scope| {
        scope.spawn(|| machine.engine.run_exclusive(0, move |_| held.wait()).expect("a section"));
        eventually("the section has begun", || {
            machine.engine.statistics().iter().any(|(n, v)| n == "exclusive_sections" && *v == 1)
        });
        machine.shared[1].set_irq(true);
        machine.reaches(1, VcpuState::Running);
        assert_eq!(machine.runs(1), runs, "it entered guest execution during a section");
        assert!(!machine.is_inside(1));
        latch.open();
    });
    eventually("it runs after the section", || machine.runs(1) > runs);
    machine.shared[1].set_irq(false);
}

/// Each vCPU runs work on the other at the same moment, many times.
pub fn g15_vcpus_that_call_each_other_get_through(subject: &dyn Subject) {
    call_each_other(subject, false);
}

/// The same with sections.
pub fn g15_sections_on_each_other_get_through(subject: &dyn Subject) {
    call_each_other(subject, true);
}

fn call_each_other(subject: &dyn Subject, exclusive: bool) {
    let machine = Plan::new(subject, COUNT).start(3);
    thread::scope(|scope| {
        for own in 0..3 {
            let engine = &machine.engine;
            scope.spawn(move || {
                let work = move |cpu: &mut crate::VcpuAccess<'_>| {
                    for round in 0..60 {
                        let other = (own + 1 + round % 2) % 3;
                        let result = match exclusive {
                            true => cpu.run_exclusive(other, |cpu| cpu.index()),
                            false => cpu.run_on(other, |cpu| cpu.index()),
                        };
                        assert_eq!(result.expect("gets through"), other);
                    }
                };
                engine.run_on(own, work).expect("work runs");
            });
        }
    });
}

/// Who waits for whom can be told at any moment, also of vCPUs that do not answer.
pub fn g19_a_report_says_who_waits_for_whom(subject: &dyn Subject) {
    if !subject.threads() {
        // One that is busy keeps all of its thread.
        return;
    }
    let machine = Plan::new(subject, COUNT).start(4);
    // One that has not begun to run would do the work below while it is stopped.
    (0..4).for_each(|index| machine.reaches(index, VcpuState::Running));
    let quiet = machine.engine.report();
    assert_eq!((quiet.state, quiet.section), (MachineState::Running, None));
    assert!(quiet.vcpus.iter().map(|v| (v.index, v.wait.clone(), v.queued)).eq((0..4).map(|i| (i, None, 0))));
    // 2 does not leave its work; 1 waits for it there, and the machine for its pause; 3 gets no section meanwhile.
    let latch = Arc::new(Latch::default());
    let (inside, opens) = (Arc::new(AtomicBool::new(false)), Arc::clone(&latch));
    let noted = Arc::clone(&inside);
    let section = move |_: &mut crate::VcpuAccess<'_>| {
        noted.store(true, Ordering::SeqCst);
        opens.wait();
    };
    thread::scope(|scope| {
        scope.spawn(|| machine.engine.run_exclusive(2, section));
        eventually("the section begins", || inside.load(Ordering::SeqCst));
        scope.spawn(|| machine.engine.run_on(1, |cpu| cpu.run_on(2, |_| ()).is_ok()));
        scope.spawn(|| machine.engine.run_exclusive(3, |_| ()));
        scope.spawn(|| machine.engine.pause("test"));
        let told = |report: &Report| {
            let vcpu = |index: usize| &report.vcpus[index];
            report.state == MachineState::Pausing
                && report.section == Some(2)
                && vcpu(1).wait == Some(Wait::Work(2))
                && vcpu(3).wait == Some(Wait::Gate(Some(2)))
                && (vcpu(2).queued, vcpu(2).awaited) == (1, 1)
                && vcpu(0).stopped
                && (vcpu(2).held, vcpu(2).stopped) == (true, false)
                && report.vcpus.iter().all(|v| !v.executing)
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !told(&machine.engine.report()) && Instant::now() < deadline {
            thread::yield_now();
        }
        let report = machine.engine.report();
        // Before a panic, which would wait for the threads.
        latch.open();
        assert!(told(&report), "{report}");
    });
    let after = machine.engine.report();
    assert_eq!((after.state, after.section), (MachineState::Paused, None));
    assert!(after.vcpus.iter().all(|v| v.stopped && v.wait.is_none() && v.queued == 0), "{after}");
}
