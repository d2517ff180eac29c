//! PSCI's power of single vCPUs: G17.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::support::{Latch, Plan, eventually, reset_state};
use super::{Op, Subject};
use crate::{AfterExit, Power, PowerOnError, VcpuState};

/// 0: counts in X1. 8: counts in X2. 16: HVC, then counts in X3.
const PROGRAM: &[Op] = &[
    Op::Increment(1),
    Op::Jump(0),
    Op::Increment(2),
    Op::Jump(2),
    Op::Hvc(0),
    Op::Increment(3),
    Op::Jump(5),
];

/// Eight threads at once, many times.
pub fn g17_of_racing_cpu_on_calls_one_succeeds(subject: &dyn Subject) {
    for _ in 0..30 {
        let mut machine = Plan::new(subject, PROGRAM).build(1);
        machine.create(1, Power::Off);
        machine.engine.start("test").expect("starts");
        let (power, entry) = (machine.engine.power(), machine.entry);
        let winner = AtomicUsize::new(usize::MAX);
        let successes = AtomicUsize::new(0);
        thread::scope(|scope| {
            for caller in 0..8 {
                let (power, winner, successes) = (&power, &winner, &successes);
                scope.spawn(move || match power.power_on(1, entry + 8, caller as u64) {
                    Ok(()) => {
                        winner.store(caller, Ordering::SeqCst);
                        successes.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) => {
                        assert!(matches!(error, PowerOnError::AlreadyOn | PowerOnError::OnPending))
                    }
                });
            }
        });
        assert_eq!(successes.into_inner(), 1);
        eventually("it is on", || power.power(1) == Some(Power::On));
        assert_eq!(machine.x(1, 0), winner.into_inner() as u64, "the context is the winner's");
        assert_eq!(power.power_on(1, entry, 0), Err(PowerOnError::AlreadyOn));
        assert_eq!(power.power_on(5, entry, 0), Err(PowerOnError::Invalid));
        if subject.executes() {
            eventually("it runs at its entry", || machine.x(1, 2) > 0);
            assert_eq!(machine.x(1, 1), 0);
        }
    }
}

/// The target itself completes CPU_ON, on its own thread.
pub fn g17_on_pending_lasts_until_the_target_has_acted(subject: &dyn Subject) {
    let mut machine = Plan::new(subject, PROGRAM).build(1);
    machine.create(1, Power::Off);
    machine.engine.start("test").expect("starts");
    let (latch, begun) = (Arc::new(Latch::default()), Arc::new(AtomicBool::new(false)));
    let (held, flag) = (Arc::clone(&latch), Arc::clone(&begun));
    machine
        .engine
        .run_on_async(1, move |_| {
            flag.store(true, Ordering::SeqCst);
            held.wait();
        })
        .expect("queued");
    eventually("the target is busy", || begun.load(Ordering::SeqCst));
    let power = machine.engine.power();
    assert_eq!(power.power(1), Some(Power::Off));
    power.power_on(1, machine.entry, 7).expect("it is off");
    assert_eq!(power.power(1), Some(Power::OnPending));
    assert_eq!(power.power_on(1, machine.entry, 8), Err(PowerOnError::OnPending));
    latch.open();
    eventually("it is on", || power.power(1) == Some(Power::On));
    assert_eq!(machine.x(1, 0), 7);
}

/// A vCPU powers itself off and is powered on again by another; registers start from the reset state.
pub fn g17_cpu_off_and_on_again(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let machine = Plan::new(subject, PROGRAM).hypercall(|_, _, _, _| AfterExit::PowerOff).start(2);
    let (power, entry) = (machine.engine.power(), machine.entry);
    for context in 0..30 {
        machine
            .engine
            .run_on(1, move |cpu| {
                cpu.state_mut().pc = entry + 16;
                cpu.state_mut().x[9] = 99;
            })
            .expect("work runs");
        eventually("it is off", || power.power(1) == Some(Power::Off));
        machine.reaches(1, VcpuState::PoweredOff);
        let runs = machine.runs(1);
        machine.shared[1].set_irq(true);
        machine.shared[1].send_event();
        machine.engine.run_on(1, |_| ()).expect("work runs");
        machine.shared[1].set_irq(false);
        assert_eq!((machine.runs(1), machine.x(1, 3)), (runs, 0), "an interrupt ran an off vCPU");
        power.power_on(1, entry + 8, context).expect("it is off");
        eventually("it runs", || machine.x(1, 2) > 0);
        assert_eq!((machine.x(1, 0), machine.x(1, 9)), (context, 0));
    }
}

/// After a reset each vCPU has the power that the reset gave it, whatever was pending.
pub fn g17_reset_decides_about_power(subject: &dyn Subject) {
    let mut machine = Plan::new(subject, PROGRAM).build(1);
    machine.create(1, Power::Off);
    machine.engine.start("test").expect("starts");
    let (power, entry) = (machine.engine.power(), machine.entry);
    for round in 0..20 {
        power.power_on(1, entry, 1).expect("it is off");
        if round % 2 == 0 {
            eventually("it is on", || power.power(1) == Some(Power::On));
        }
        let boot = |index| (reset_state(index, entry), if index == 0 { Power::On } else { Power::Off });
        machine.engine.reset("test", || (), boot).expect("resets");
        assert_eq!((power.power(0), power.power(1)), (Some(Power::On), Some(Power::Off)));
        machine.reaches(1, VcpuState::PoweredOff);
        assert_eq!(machine.x(1, 0), 0);
    }
}
