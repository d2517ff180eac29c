//! vCPUs that come and go while the machine runs.

use std::time::Duration;

use armlet_arm::SysReg;
use armlet_engine::{MachineState, Power, VcpuState};
use armlet_machine::config::AcceleratorKind;
use armlet_machine::{Cause, End, Machine, MachineConfig, Notice, NoticeListener, PlugError, spec};
use armlet_memory::AccessSize;

fn machine(smp: usize, places: usize) -> Machine {
    let mut config =
        MachineConfig { memory: 64 << 20, smp, max_cpus: Some(places), ..MachineConfig::default() };
    config.accelerator.kind = AcceleratorKind::Dummy;
    Machine::new(config).unwrap()
}

#[test]
fn the_guest_sees_every_place_from_the_start() {
    let machine = machine(2, 4);
    assert_eq!(machine.engine().vcpus(), [0, 1]);
    assert_eq!(machine.handle().places(), 4);
    let typer =
        |cpu: u64| machine.memory().mmio_read(0x080a_0008 + cpu * 0x2_0000, AccessSize::Double).unwrap();
    assert_eq!((0..4).map(|cpu| typer(cpu) >> 32).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((0..4).map(|cpu| typer(cpu) >> 4 & 1).collect::<Vec<_>>(), [0, 0, 0, 1], "the last one");
    let config = MachineConfig { smp: 2, max_cpus: Some(4), memory: 64 << 20, ..MachineConfig::default() };
    let tree = Machine::device_tree(&config).unwrap();
    assert_eq!(fdt::Fdt::new(&tree).unwrap().cpus().count(), 4);
}

#[test]
fn a_cpu_is_plugged_switched_on_switched_off_and_unplugged() {
    let machine = machine(1, 4);
    let (handle, engine) = (machine.handle(), machine.engine());
    machine.start().unwrap();
    handle.plug_cpu(2).unwrap();
    assert_eq!(handle.cpus().iter().map(|c| c.index).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(engine.power().power(2), Some(Power::Off));
    let mpidr = engine.run_on(2, |a| a.state().sys[SysReg::MpidrEl1]).unwrap();
    assert_eq!(mpidr & 0xff_ffff, 2);
    assert!(matches!(handle.plug_cpu(2), Err(PlugError::Present(2))));
    engine.power().power_on(2, spec::RAM_BASE, 7).unwrap();
    while engine.vcpu_state(2).unwrap() != VcpuState::Running {
        std::thread::yield_now();
    }
    let error = handle.unplug_cpu(2).unwrap_err().to_string();
    assert!(error.contains("cpu2/online"), "{error}");
    // A reset switches it off and leaves it plugged.
    let mut machine = machine;
    handle.reset(Cause::HostReset);
    handle.quit(Cause::HostUi, "the test");
    assert_eq!(machine.run(None), End::Quit("the test".into()));
    assert_eq!(machine.engine().power().power(2), Some(Power::Off));
    handle.unplug_cpu(2).unwrap();
    assert!(matches!(handle.unplug_cpu(2), Err(PlugError::Absent(2))));
}

#[test]
fn what_is_impossible_is_refused() {
    let machine = machine(1, 3);
    let handle = machine.handle();
    machine.start().unwrap();
    let error = handle.plug_cpu(3).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no place for CPU 3: this machine has 3, 0 to 2; start it with --smp N,max=M for more"
    );
    assert!(matches!(handle.plug_cpu(usize::MAX), Err(PlugError::NoPlace { .. })));
    assert!(matches!(handle.plug_cpu(0), Err(PlugError::Present(0))));
    assert!(matches!(handle.unplug_cpu(0), Err(PlugError::Boot(0))), "also the last one");
    assert!(matches!(handle.unplug_cpu(2), Err(PlugError::Absent(2))));
    assert!(matches!(handle.unplug_cpu(9), Err(PlugError::Absent(9))));
    machine.shutdown();
    assert!(matches!(handle.plug_cpu(2), Err(PlugError::Engine(_))));
    assert_eq!(machine.engine().state(), MachineState::Gone);
}

/// Writes down which vCPUs were unplugged.
#[derive(Default)]
struct Removed(std::sync::Mutex<Vec<usize>>);

impl NoticeListener for Removed {
    fn notice(&self, notice: &Notice) {
        if let Notice::CpuRemoved(index) = notice {
            self.0.lock().unwrap().push(*index);
        }
    }
}

#[test]
fn plugging_works_before_the_start_and_while_paused() {
    let machine = machine(1, 3);
    let handle = machine.handle();
    let removed = std::sync::Arc::new(Removed::default());
    handle.listen(&(std::sync::Arc::clone(&removed) as _));
    handle.plug_cpu(1).unwrap();
    handle.unplug_cpu(1).unwrap();
    handle.plug_cpu(1).unwrap();
    machine.start().unwrap();
    handle.pause("test").unwrap();
    handle.plug_cpu(2).unwrap();
    handle.unplug_cpu(1).unwrap();
    assert_eq!(machine.engine().state(), MachineState::Paused);
    handle.resume("test").unwrap();
    machine.engine().power().power_on(2, spec::RAM_BASE, 0).unwrap();
    handle.pause("test").unwrap();
    assert_eq!(*removed.0.lock().unwrap(), [1, 1]);
    assert!(handle.time() > Duration::ZERO);
}
