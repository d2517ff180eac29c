//! What debuggers ask of vCPUs.

use super::support::{COUNT, Machine, Plan};
use super::{Op, Subject};
use crate::accel::{DebugRequest, DebugStop};
use crate::{MachineEvent, MachineState};

fn step() -> DebugRequest {
    DebugRequest { step: true, ..DebugRequest::default() }
}

/// Resumes, and waits for a debugger's stop.
#[track_caller]
fn stop_of(machine: &Machine) -> (usize, DebugStop) {
    machine.engine.resume("test").expect("resumes");
    let MachineEvent::Debug { vcpu, stop } = machine.event() else { panic!("another event") };
    machine.engine.pause("test").expect("pauses");
    (vcpu, stop)
}

/// Each step is one instruction, whatever it is, and an interrupt line that is up does not matter.
pub fn debug_a_step_is_one_instruction(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program =
        [Op::Increment(0), Op::Hvc(7), Op::Increment(0), Op::Wfi, Op::Wfe, Op::Increment(0), Op::Jump(0)];
    let machine = Plan::new(subject, &program).start(1);
    machine.engine.pause("test").expect("pauses");
    machine.engine.run_on(0, |cpu| cpu.state_mut().x[0] = 0).expect("work runs");
    let entry = machine.entry;
    machine.engine.run_on(0, move |cpu| cpu.state_mut().pc = entry).expect("work runs");
    machine.debug(0, step());
    machine.shared[0].set_irq(true);
    for n in 1..200_u64 {
        assert_eq!(stop_of(&machine), (0, DebugStop::Step));
        let (round, at) = (n / 7, n % 7);
        assert_eq!(machine.at(0), at, "after {n} steps");
        let increments = [0, 1, 1, 2, 2, 2, 3][at as usize];
        assert_eq!(machine.x(0, 0), 3 * round + increments, "after {n} steps");
    }
    machine.shared[0].set_irq(false);
    machine.debug(0, DebugRequest::default());
    machine.engine.resume("test").expect("resumes");
    machine.shared[0].send_event();
}

/// A breakpoint stops before its instruction, each time that it is reached, on each vCPU for itself.
pub fn debug_a_breakpoint_stops_before_its_instruction(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Increment(0), Op::Increment(1), Op::Increment(2), Op::Jump(0)];
    let machine = Plan::new(subject, &program).start(2);
    machine.progresses(0);
    machine.engine.pause("test").expect("pauses");
    let request = DebugRequest { breakpoints: vec![machine.entry + 4], ..DebugRequest::default() };
    for _ in 0..20 {
        machine.debug(0, request.clone());
        assert_eq!(stop_of(&machine), (0, DebugStop::Breakpoint));
        assert_eq!(machine.at(0), 1);
        assert_eq!(machine.x(0, 0), machine.x(0, 1) + 1);
        assert_eq!(machine.x(0, 1), machine.x(0, 2));
        // Off it, by a step.
        machine.debug(0, step());
        assert_eq!(stop_of(&machine), (0, DebugStop::Step));
        assert_eq!(machine.at(0), 2);
    }
    machine.debug(0, DebugRequest::default());
    machine.engine.resume("test").expect("resumes");
    machine.progresses(0);
    machine.progresses(1);
}

/// A vCPU that a debugger keeps stopped executes nothing while others run, and does its work.
pub fn debug_a_frozen_vcpu_stays_where_it_is(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let machine = Plan::new(subject, COUNT).start(2);
    machine.progresses(1);
    assert!(machine.engine.freeze(|_| true).is_err(), "of a running machine");
    for _ in 0..5 {
        machine.engine.pause("test").expect("pauses");
        machine.engine.freeze(|index| index == 1).expect("is paused");
        let before = machine.x(1, 0);
        machine.engine.resume("test").expect("resumes");
        machine.progresses(0);
        machine.progresses(0);
        assert_eq!(machine.engine.state(), MachineState::Running);
        assert_eq!(machine.x(1, 0), before, "it executed");
        machine.engine.pause("test").expect("pauses");
        machine.engine.freeze(|_| false).expect("is paused");
        machine.engine.resume("test").expect("resumes");
        machine.progresses(1);
    }
}
