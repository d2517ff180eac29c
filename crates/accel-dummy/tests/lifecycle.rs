//! The engine's life over the dummy accelerator, as a machine drives it.

use std::sync::{Arc, Mutex, mpsc};

use armlet_accel_dummy::DummyAccelerator;
use armlet_arm::CpuState;
use armlet_engine::{
    AfterExit, Engine, EngineConfig, ExitHandler, MachineEvent, MachineListener, MachineState, Power,
    PowerControl, VcpuShared, VcpuState,
};

struct NoCalls;

impl ExitHandler for NoCalls {
    fn hypercall(&self, _: &PowerControl, _: usize, _: u16, _: &mut CpuState) -> AfterExit {
        AfterExit::Resume
    }
    fn semihosting(&self, _: usize, _: &mut CpuState) -> AfterExit {
        AfterExit::Resume
    }
}

#[test]
fn a_machine_of_dummies_is_made_runs_pauses_and_ends() {
    let (events, _received) = mpsc::channel();
    let engine = Engine::new(EngineConfig::new(Arc::new(DummyAccelerator), Arc::new(NoCalls), events));
    for index in 0..2 {
        let power = if index == 0 { Power::On } else { Power::Off };
        engine
            .create_vcpu(Arc::new(VcpuShared::new(index)), CpuState::new(index as u32), power)
            .expect("a dummy can always be made");
    }
    engine.start("test").expect("starts");
    assert_eq!(engine.state(), MachineState::Running);
    let name = engine
        .run_on(0, |cpu| {
            cpu.state_mut().x[3] = 42;
            std::thread::current().name().map(str::to_owned)
        })
        .expect("work runs");
    assert_eq!(name.as_deref(), Some("CPU 0/dummy"));
    assert!(engine.run_exclusive(1, |cpu| cpu.is_exclusive()).expect("sections work"));
    engine.power().power_on(1, 0x4000, 7).expect("it is off");
    let (pc, x0) = engine.run_on(1, |cpu| (cpu.state().pc, cpu.state().x[0])).expect("work runs");
    assert_eq!((pc, x0), (0x4000, 7));
    assert_eq!(engine.power().power(1), Some(Power::On));
    engine.pause("test").expect("pauses");
    assert_eq!(engine.state(), MachineState::Paused);
    assert!(matches!(engine.vcpu_state(0), Ok(VcpuState::Stopped(_))));
    assert_eq!(engine.run_on(0, |cpu| cpu.state().x[3]).expect("work runs while paused"), 42);
    engine.resume("test").expect("resumes");
    engine.shutdown("test").expect("ends");
    assert_eq!(engine.state(), MachineState::Gone);
}

/// Writes down what it hears.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<(MachineState, MachineState, String)>>>);

impl MachineListener for Diary {
    fn event(&self, event: MachineEvent) {
        panic!("nobody sends {event:?}");
    }
    fn state_changed(&self, from: MachineState, to: MachineState, reason: &str) {
        self.0.lock().unwrap().push((from, to, reason.to_owned()));
    }
}

#[test]
fn the_listener_hears_every_state_in_order_and_why() {
    use MachineState::{Created, Gone, Paused, Pausing, Resetting, Running, ShuttingDown};
    let diary = Diary::default();
    let engine = Engine::new(EngineConfig::new(Arc::new(DummyAccelerator), Arc::new(NoCalls), diary.clone()));
    engine.create_vcpu(Arc::new(VcpuShared::new(0)), CpuState::new(0), Power::On).expect("is made");
    let thread = engine.thread_id(0).expect("exists");
    let own = engine.run_on(0, |_| rustix::thread::gettid().as_raw_pid().unsigned_abs());
    assert_eq!(thread, own.expect("work runs"));
    assert!(std::path::Path::new(&format!("/proc/self/task/{thread}")).exists());
    engine.start("a").expect("starts");
    engine.pause("b").expect("pauses");
    engine.pause("again").expect("is paused");
    engine.resume("c").expect("resumes");
    engine.resume("again").expect("runs");
    engine.reset("d", || (), |_| (CpuState::new(0), Power::On)).expect("resets");
    engine.shutdown("e").expect("ends");
    let diary = diary.0.lock().unwrap();
    let steps: Vec<_> = diary.iter().map(|(from, to, _)| (*from, *to)).collect();
    let expected = [Created, Running, Pausing, Paused, Running, Resetting, Running, ShuttingDown, Gone];
    assert_eq!(steps, expected.windows(2).map(|w| (w[0], w[1])).collect::<Vec<_>>());
    let asked: Vec<_> = diary.iter().map(|(_, _, reason)| reason.as_str()).filter(|r| r.len() == 1).collect();
    assert_eq!(asked, ["a", "b", "c", "d", "e"]);
}
