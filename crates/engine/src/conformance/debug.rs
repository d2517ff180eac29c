//! What debuggers ask of vCPUs: G12.

use std::sync::{Arc, OnceLock};

use armlet_arm::{Pstate, SysReg};

use super::support::{COUNT, Machine, Plan, eventually};
use super::{Op, Subject};
use crate::accel::{DebugRequest, DebugStop, Watchpoint};
use crate::{AfterExit, MachineEvent, MachineState, Then, VcpuShared, VcpuState};

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
pub fn g12_a_step_is_one_instruction(subject: &dyn Subject) {
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
pub fn g12_a_breakpoint_stops_before_its_instruction(subject: &dyn Subject) {
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
pub fn g12_a_frozen_vcpu_stays_where_it_is(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let machine = Plan::new(subject, COUNT).start(2);
    machine.progresses(1);
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
    // While it runs: the debugger's own pause was overtaken by somebody's resume.
    for _ in 0..5 {
        machine.engine.freeze(|index| index == 1).expect("runs");
        machine.reaches(1, VcpuState::Stopped(Then::Run));
        let before = machine.x(1, 0);
        machine.progresses(0);
        machine.progresses(0);
        assert_eq!(machine.x(1, 0), before, "it executed");
        machine.engine.freeze(|_| false).expect("runs");
        machine.progresses(1);
    }
}

/// The first vCPU to meet something stops every other, wherever it is; what was met is told, of whom.
pub fn g12_one_vcpus_stop_stops_all_and_is_told(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    // 0: counts. 8: sleeps.
    let program = [Op::Increment(0), Op::Jump(0), Op::Wfi, Op::Jump(2)];
    let machine = Plan::new(subject, &program).build(4);
    let entry = machine.entry;
    machine.engine.run_on(3, move |cpu| cpu.state_mut().pc = entry + 8).expect("work runs");
    machine.engine.start("test").expect("starts");
    for round in 0..30 {
        let culprit = round % 3;
        machine.progresses(culprit);
        machine.engine.pause("test").expect("pauses");
        machine.debug(culprit, DebugRequest { breakpoints: vec![entry], ..DebugRequest::default() });
        machine.engine.resume("test").expect("resumes");
        let event = machine.event();
        assert_eq!(event, MachineEvent::Debug { vcpu: culprit, stop: DebugStop::Breakpoint });
        machine.engine.pause("test").expect("is on its way");
        let stopped = |i| matches!(machine.engine.vcpu_state(i), Ok(VcpuState::Stopped(_)));
        assert!((0..4).all(|i| stopped(i) && !machine.is_inside(i)));
        assert_eq!(machine.at(culprit), 0);
        machine.debug(culprit, DebugRequest::default());
        machine.engine.resume("test").expect("resumes");
    }
}

/// A breakpoint at the instruction that is stepped is not met again, one at the next is not passed.
pub fn bug_breakpoint_at_the_address_being_stepped(subject: &dyn Subject) {
    if !subject.executes() {
        return;
    }
    let program = [Op::Increment(0), Op::Increment(1), Op::Hvc(0), Op::Jump(0)];
    let machine = Plan::new(subject, &program).start(1);
    machine.engine.pause("test").expect("pauses");
    let entry = machine.entry;
    machine
        .engine
        .run_on(0, move |cpu| {
            let state = cpu.state_mut();
            (state.pc, state.x[0], state.x[1]) = (entry, 0, 0);
        })
        .expect("work runs");
    let breakpoints: Vec<_> = (0..program.len() as u64).map(|op| entry + 4 * op).collect();
    for n in 1..=100_u64 {
        machine.debug(0, DebugRequest { step: true, breakpoints: breakpoints.clone(), ..step() });
        assert_eq!(stop_of(&machine), (0, DebugStop::Step));
        assert_eq!(machine.at(0), n % 4, "one instruction was executed");
        // Now it may run, and meets the one where it is at once.
        machine.debug(0, DebugRequest { breakpoints: breakpoints.clone(), ..DebugRequest::default() });
        assert_eq!(stop_of(&machine), (0, DebugStop::Breakpoint));
        assert_eq!(machine.at(0), n % 4, "nothing was executed");
        let rounds = n / 4;
        let done = (rounds + u64::from(n % 4 >= 1), rounds + u64::from(n % 4 >= 2));
        assert_eq!((machine.x(0, 0), machine.x(0, 1)), done, "after {n} steps");
    }
}

/// Where the exception vectors of [`bug_irq_taken_between_the_two_halves_of_a_watchpoint`] are, and in them that for an
/// IRQ at the current level, in bytes.
const VECTORS: (u64, u64) = (0x800, 0x280);

/// A watched access is reported before it happens and then made by a step. An interrupt that is pending all the time comes
/// before or after, never between, and is not lost.
pub fn bug_irq_taken_between_the_two_halves_of_a_watchpoint(subject: &dyn Subject) {
    // Where time is counted, lines only change at counts of their own, and an interrupt is a step.
    if !subject.executes() || !subject.threads() {
        return;
    }
    let mut program = vec![Op::Increment(0), Op::Store(0), Op::Increment(1), Op::Jump(0)];
    program.resize((VECTORS.0 + VECTORS.1) as usize / 4, Op::Jump(0));
    program.extend([Op::Increment(5), Op::Hvc(0), Op::Eret]);
    let shared: Arc<OnceLock<Arc<VcpuShared>>> = Arc::default();
    let line = Arc::clone(&shared);
    let machine = Plan::new(subject, &program)
        .hypercall(move |_, _, _, _| {
            line.get().expect("set before the start").set_irq(false);
            AfterExit::Resume
        })
        .build(1);
    let _ = shared.set(Arc::clone(&machine.shared[0]));
    let (entry, address) = (machine.entry, machine.entry + 0x8000);
    machine
        .engine
        .run_on(0, move |cpu| {
            let state = cpu.state_mut();
            state.sys[SysReg::VbarEl1] = entry + VECTORS.0;
            state.x[20] = address;
            state.pstate.remove(Pstate::I);
        })
        .expect("work runs");
    let watchpoint = Watchpoint { address: address + 4, length: 2, read: false, write: true };
    let watched = DebugRequest { watchpoints: vec![watchpoint], ..DebugRequest::default() };
    machine.engine.start("test").expect("starts");
    machine.engine.pause("test").expect("pauses");
    // Not before: it could be met between the two, and again when the machine goes on, which would be two events.
    machine.debug(0, watched.clone());
    let mut raised = 0;
    for round in 0..200 {
        machine.shared[0].set_irq(round % 3 != 0);
        raised += u64::from(round % 3 != 0);
        let (_, stop) = stop_of(&machine);
        assert!(matches!(stop, DebugStop::Watchpoint { write: true, .. }), "{stop:?}");
        assert_eq!(machine.at(0), 1);
        assert_eq!(machine.x(0, 0), machine.x(0, 1) + 1);
        let taken = machine.x(0, 5);
        machine.shared[0].set_irq(true);
        machine.debug(0, step());
        assert_eq!(stop_of(&machine), (0, DebugStop::Step));
        assert_eq!((machine.at(0), machine.x(0, 5)), (2, taken), "the interrupt came between");
        machine.debug(0, watched.clone());
    }
    machine.debug(0, DebugRequest::default());
    machine.engine.resume("test").expect("resumes");
    eventually("the interrupt is taken", || !machine.shared[0].irq());
    assert_eq!(machine.x(0, 5), raised + 1, "each that was up when the vCPU was let go, and the last one");
}
