//! Kicks, sleeping and waking: G9, G13.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::support::{COUNT, LIMIT, Plan, eventually, thread_time};
use super::{Op, Subject};
use armlet_arm::Pstate;

use crate::VcpuState;
use crate::accel::Halt;

/// Each piece of work makes a running vCPU come out, at whatever moment it arrives.
pub fn g09_no_kick_is_lost_by_a_running_vcpu(subject: &dyn Subject) {
    let machine = Plan::new(subject, COUNT).start(1);
    for n in 0..1000_u64 {
        // An interrupt line at the same moment must not swallow the request to come out.
        machine.shared[0].set_irq(n % 2 == 0);
        let done = machine.engine.run_on(0, move |_| n).expect("a lost kick would time out");
        assert_eq!(done, n);
    }
    if subject.executes() {
        machine.progresses(0);
    }
}

/// Each interrupt gets a vCPU out of WFI, at whatever moment it goes to sleep.
pub fn g09_no_wake_is_lost_by_a_halting_vcpu(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    // X0 counts wakes; HVC makes each of them visible and lowers the line, as a handler would.
    let program = [Op::Wfi, Op::Increment(0), Op::Hvc(0), Op::Jump(0)];
    let shared: Arc<std::sync::OnceLock<Arc<crate::VcpuShared>>> = Arc::default();
    let (lower, wakes) = (Arc::clone(&shared), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&wakes);
    let machine = Plan::new(subject, &program)
        .hypercall(move |_, _, _, _| {
            lower.get().expect("set before the start").set_irq(false);
            count.fetch_add(1, Ordering::SeqCst);
            crate::AfterExit::Resume
        })
        .build(1);
    let _ = shared.set(Arc::clone(&machine.shared[0]));
    machine.engine.start("test").expect("starts");
    for n in 1..=1000 {
        machine.shared[0].set_irq(true);
        eventually("the interrupt wakes", || wakes.load(Ordering::SeqCst) >= n);
    }
    if subject.sleeps_inside() {
        // The kick that comes with an interrupt may end the next WFI as well.
        assert!(machine.x(0, 0) >= 1000);
    } else {
        assert_eq!((wakes.load(Ordering::SeqCst), machine.x(0, 0)), (1000, 1000));
    }
}

/// The thread's own processor time stands still in WFI.
pub fn g13_a_vcpu_in_wfi_uses_no_host_time(subject: &dyn Subject) {
    uses_no_host_time(subject, Op::Wfi, Halt::Interrupt);
}

/// And in WFE.
pub fn g13_a_vcpu_in_wfe_uses_no_host_time(subject: &dyn Subject) {
    uses_no_host_time(subject, Op::Wfe, Halt::Event);
}

fn uses_no_host_time(subject: &dyn Subject, op: Op, halt: Halt) {
    if !subject.executes() {
        return;
    }
    // Where looking gets it out of its sleep, that must not matter.
    let span = Duration::from_millis(if subject.sleeps_inside() { 1000 } else { 100 });
    let program = [op, Op::Increment(0), Op::Jump(0)];
    let machine = Plan::new(subject, &program).start(1);
    machine.rests(0, halt);
    let before = thread_time(&machine.engine, 0);
    machine.rests(0, halt);
    let runs = machine.runs(0);
    // Not for synchronisation: this is the span that is measured.
    std::thread::sleep(span);
    assert_eq!(machine.runs(0), runs, "{op:?} did not sleep");
    let used = thread_time(&machine.engine, 0) - before;
    assert!(used < span / 20, "{op:?} used {used:?} in {span:?}");
}

/// IRQ and FIQ; a level that is up keeps it awake, an event does not matter to it.
pub fn g13_wfi_wakes_on_each_interrupt_line(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    // HVC makes each wake visible to those who do not look at registers.
    let program = [Op::Wfi, Op::Hvc(0), Op::Jump(0)];
    let wakes = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&wakes);
    let machine = Plan::new(subject, &program)
        .hypercall(move |_, _, _, _| {
            count.fetch_add(1, Ordering::SeqCst);
            crate::AfterExit::Resume
        })
        .start(1);
    let shared = &machine.shared[0];
    for line in [crate::VcpuShared::set_irq, crate::VcpuShared::set_fiq] {
        machine.rests(0, Halt::Interrupt);
        if !subject.sleeps_inside() {
            let runs = machine.runs(0);
            shared.send_event();
            machine.engine.run_on(0, |_| ()).expect("work runs");
            assert_eq!(machine.runs(0), runs, "an event ended WFI");
        }
        let before = wakes.load(Ordering::SeqCst);
        line(shared, true);
        eventually("the level keeps it awake", || wakes.load(Ordering::SeqCst) >= before + 20);
        line(shared, false);
    }
    machine.rests(0, Halt::Interrupt);
}

/// The register remembers an event that came before the WFE, once.
pub fn g13_wfe_wakes_on_the_event_register_and_clears_it(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Wfe, Op::Increment(0), Op::Jump(0)];
    let machine = Plan::new(subject, &program).build(1);
    let (shared, asleep) = (&machine.shared[0], VcpuState::Halted(Halt::Event));
    shared.send_event();
    shared.send_event();
    machine.engine.start("test").expect("starts");
    eventually("the remembered event ends the first WFE", || machine.x(0, 0) == 1);
    machine.reaches(0, asleep);
    for n in 2..200 {
        shared.send_event();
        eventually("the event wakes", || machine.x(0, 0) == n);
        assert!(!shared.event_pending());
    }
    // At the start all interrupts are masked: they end WFI, but not WFE.
    for line in [crate::VcpuShared::set_irq, crate::VcpuShared::set_fiq] {
        machine.reaches(0, asleep);
        let runs = machine.runs(0);
        line(shared, true);
        machine.engine.run_on(0, |_| ()).expect("work runs");
        assert_eq!(machine.runs(0), runs, "a masked interrupt ended WFE");
        line(shared, false);
    }
}

/// An interrupt that is not masked ends WFE, to be taken.
pub fn g13_wfe_wakes_on_an_unmasked_interrupt(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Wfe, Op::Increment(0), Op::Jump(0)];
    for (line, mask) in [
        (crate::VcpuShared::set_irq as fn(&crate::VcpuShared, bool), Pstate::I),
        (crate::VcpuShared::set_fiq, Pstate::F),
    ] {
        let machine = Plan::new(subject, &program).start(1);
        machine.reaches(0, VcpuState::Halted(Halt::Event));
        let runs = machine.runs(0);
        machine.engine.run_on(0, move |cpu| cpu.state_mut().pstate.remove(mask)).expect("work runs");
        assert_eq!(machine.runs(0), runs, "the mask alone ended WFE");
        line(&machine.shared[0], true);
        eventually("the interrupt wakes", || machine.runs(0) > runs);
    }
}

/// A WFE that waits for another's store (its monitor is armed) ends by itself, soon: no event tells of the
/// store here.
pub fn g13_wfe_with_an_armed_monitor_ends_by_itself(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Wfe, Op::Increment(0), Op::Jump(0)];
    let machine = Plan::new(subject, &program).build(1);
    let address = machine.entry;
    machine.engine.run_on(0, move |cpu| cpu.state_mut().monitor.address = address).expect("work runs");
    machine.engine.start("test").expect("starts");
    for _ in 0..20 {
        machine.progresses(0);
    }
    machine.engine.run_on(0, |cpu| cpu.state_mut().monitor.address = u64::MAX).expect("work runs");
    let before = machine.x(0, 0);
    eventually("without the monitor it sleeps", || {
        machine.reaches(0, VcpuState::Halted(Halt::Event));
        let runs = machine.runs(0);
        std::thread::sleep(Duration::from_millis(20));
        machine.runs(0) == runs
    });
    assert!(machine.x(0, 0) >= before);
}

/// The event stream ends WFE, and nothing else.
pub fn g13_the_event_stream_ends_wfe(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let period = Duration::from_millis(1);
    let program = [Op::Wfe, Op::Increment(0), Op::Jump(0), Op::Wfi, Op::Increment(0), Op::Jump(3)];
    let machine = Plan::new(subject, &program).event_stream(period).build(2);
    let pc = machine.entry + 12;
    machine.engine.run_on(1, move |cpu| cpu.state_mut().pc = pc).expect("work runs");
    let start = std::time::Instant::now();
    machine.engine.start("test").expect("starts");
    // Work without a pause, as to look at a register is, does not put the end off.
    while machine.x(0, 0) == 0 {
        assert!(start.elapsed() < LIMIT, "work put the stream's event off");
    }
    eventually("the stream ends it again and again", || machine.x(0, 0) >= 20);
    let counted = u128::from(machine.x(0, 0));
    let most = start.elapsed().as_micros() / period.as_micros() + 2;
    assert!(counted <= most, "{counted} in {:?}", start.elapsed());
    assert_eq!(machine.x(1, 0), 0, "it ended WFI");
}

/// SEV on one vCPU wakes all that wait for an event.
pub fn g13_sev_wakes_the_others(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    // 0: wait for events; 12: wait for an interrupt, send an event.
    let program =
        [Op::Wfe, Op::Increment(0), Op::Jump(0), Op::Wfi, Op::Sev, Op::Increment(0), Op::Hvc(0), Op::Jump(3)];
    let sender: Arc<std::sync::OnceLock<Arc<crate::VcpuShared>>> = Arc::default();
    let lower = Arc::clone(&sender);
    let machine = Plan::new(subject, &program)
        .hypercall(move |_, _, _, _| {
            lower.get().expect("set before the start").set_irq(false);
            crate::AfterExit::Resume
        })
        .build(3);
    let _ = sender.set(Arc::clone(&machine.shared[2]));
    let pc = machine.entry + 12;
    machine.engine.run_on(2, move |cpu| cpu.state_mut().pc = pc).expect("work runs");
    machine.engine.start("test").expect("starts");
    for n in 1..50 {
        for waiter in 0..2 {
            machine.reaches(waiter, VcpuState::Halted(Halt::Event));
        }
        // It has lowered the line of the round before.
        machine.reaches(2, VcpuState::Halted(Halt::Interrupt));
        machine.shared[2].set_irq(true);
        for waiter in 0..2 {
            eventually("SEV wakes", || machine.x(waiter, 0) == n);
        }
    }
}

/// Work, kicks and the machine's other vCPUs leave the guest in its WFI.
pub fn g13_work_does_not_end_a_halt(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Wfi, Op::Increment(0), Op::Jump(0)];
    let machine = Plan::new(subject, &program).start(1);
    machine.reaches(0, VcpuState::Halted(Halt::Interrupt));
    let runs = machine.runs(0);
    for _ in 0..200 {
        machine.engine.run_on(0, |_| ()).expect("work runs");
        machine.shared[0].notify();
        machine.engine.run_on_async(0, |_| ()).expect("queued");
    }
    assert_eq!((machine.runs(0), machine.x(0, 0)), (runs, 0));
    // A pause may end it: completing WFI early is architecturally allowed. It must not be lost, though.
    machine.engine.pause("test").expect("pauses");
    machine.engine.resume("test").expect("resumes");
    machine.reaches(0, VcpuState::Halted(Halt::Interrupt));
    assert!(machine.x(0, 0) <= 1);
}
