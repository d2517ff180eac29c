//! The engine's life over the dummy accelerator, as a machine drives it.

use std::sync::{Arc, mpsc};

use armlet_accel_dummy::DummyAccelerator;
use armlet_arm::CpuState;
use armlet_engine::{
    AfterExit, Engine, EngineConfig, ExitHandler, MachineState, Power, PowerControl, VcpuShared, VcpuState,
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
