//! The whole engine under `shuttle`: random schedules over the scripted accelerator.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};

use armlet_arm::CpuState;
use shuttle::thread;

use crate::conformance::scripted::Scripted;
use crate::conformance::support::reset_state;
use crate::conformance::{Op, Subject};
use crate::{
    AfterExit, Engine, EngineConfig, EngineError, ExitHandler, MachineEvent, MachineState, Power,
    PowerControl, PowerOnError, VcpuShared,
};

/// 0: counts. 8: sleeps and counts. 20: calls and counts. 32: waits for events, sends some.
const PROGRAM: &[Op] = &[
    Op::Increment(0),
    Op::Jump(0),
    Op::Wfi,
    Op::Increment(0),
    Op::Jump(2),
    Op::Hvc(0),
    Op::Increment(0),
    Op::Jump(5),
];

struct Handler(AfterExit);

impl ExitHandler for Handler {
    fn hypercall(&self, _: &PowerControl, _: usize, _: u16, _: &mut CpuState) -> AfterExit {
        self.0.clone()
    }
    fn semihosting(&self, _: usize, _: &mut CpuState) -> AfterExit {
        AfterExit::Resume
    }
}

struct Machine {
    engine: Arc<Engine>,
    shared: Vec<Arc<VcpuShared>>,
    events: std::sync::mpsc::Receiver<MachineEvent>,
    entry: u64,
}

/// Starts vCPUs at the given ops.
fn machine(after: AfterExit, ops: &[u64]) -> Machine {
    let loaded = Scripted.load(PROGRAM);
    let (sender, events) = channel();
    let engine = Engine::new(EngineConfig::new(loaded.accelerator, Arc::new(Handler(after)), sender));
    let shared: Vec<_> = (0..ops.len()).map(|index| Arc::new(VcpuShared::new(index))).collect();
    for (index, op) in ops.iter().enumerate() {
        let state = reset_state(index, loaded.entry + 4 * op);
        engine.create_vcpu(Arc::clone(&shared[index]), state, Power::On).expect("is made");
    }
    Machine { engine: Arc::new(engine), shared, events, entry: loaded.entry }
}

fn explore(body: impl Fn() + Send + Sync + 'static) {
    let iterations = std::env::var("SHUTTLE_ITERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    shuttle::check_random(body, iterations);
}

fn all<const N: usize>(bodies: [Box<dyn FnOnce() + Send>; N]) {
    let threads = bodies.map(|body| thread::spawn(body));
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

#[test]
fn work_sections_and_pauses_at_once() {
    explore(|| {
        let machine = machine(AfterExit::Resume, &[0, 2]);
        machine.engine.start("model").expect("starts");
        let engine = || Arc::clone(&machine.engine);
        let (a, b, c) = (engine(), engine(), engine());
        all([
            Box::new(move || {
                assert_eq!(
                    a.run_on(0, |cpu| cpu.run_on(1, |cpu| cpu.index())).expect("runs").expect("runs"),
                    1
                );
                a.run_exclusive(1, |_| ()).expect("runs");
            }),
            Box::new(move || {
                let nested = b.run_on(1, |cpu| cpu.run_exclusive(0, |cpu| cpu.index()));
                assert_eq!(nested.expect("runs").expect("runs"), 0);
            }),
            Box::new(move || {
                let paused = c.pause("model");
                assert!(matches!(paused, Ok(())), "{paused:?}");
                c.resume("model").expect("resumes");
            }),
        ]);
        machine.shared[1].set_irq(true);
        machine.engine.shutdown("model").expect("ends");
        assert_eq!(machine.engine.state(), MachineState::Gone);
    });
}

#[test]
fn sections_on_each_other() {
    explore(|| {
        let machine = machine(AfterExit::Resume, &[0, 0, 2]);
        machine.engine.start("model").expect("starts");
        let call = |own: usize| {
            let engine = Arc::clone(&machine.engine);
            Box::new(move || {
                let work = move |cpu: &mut crate::VcpuAccess<'_>| {
                    for step in 1..3 {
                        let other = (own + step) % 3;
                        assert_eq!(cpu.run_exclusive(other, |cpu| cpu.index()).expect("gets through"), other);
                    }
                };
                engine.run_on(own, work).expect("runs");
            }) as Box<dyn FnOnce() + Send>
        };
        all([call(0), call(1), call(2)]);
        machine.engine.shutdown("model").expect("ends");
    });
}

#[test]
fn pauses_and_resumes_from_several_threads() {
    explore(|| {
        let machine = machine(AfterExit::Resume, &[0, 5]);
        machine.engine.start("model").expect("starts");
        let pause = || {
            let engine = Arc::clone(&machine.engine);
            Box::new(move || match engine.pause("model") {
                Ok(()) | Err(EngineError::PauseCancelled) => {}
                Err(error) => panic!("{error}"),
            }) as Box<dyn FnOnce() + Send>
        };
        let engine = Arc::clone(&machine.engine);
        all([pause(), pause(), Box::new(move || engine.resume("model").expect("resumes"))]);
        machine.engine.pause("model").expect("pauses");
        assert_eq!(machine.engine.state(), MachineState::Paused);
        machine.engine.shutdown("model").expect("ends");
    });
}

#[test]
fn unplug_against_work_and_sections() {
    explore(|| {
        let machine = machine(AfterExit::Resume, &[0, 0]);
        machine.engine.start("model").expect("starts");
        let engine = || Arc::clone(&machine.engine);
        let (a, b, c) = (engine(), engine(), engine());
        let target = Arc::clone(&machine.shared[1]);
        all([
            Box::new(move || {
                let result = a.run_on(1, |_| ());
                assert!(matches!(result, Ok(()) | Err(EngineError::Gone(1) | EngineError::NoSuchVcpu(1))));
                a.run_exclusive(0, |_| ()).expect("runs");
            }),
            Box::new(move || {
                let result = b.run_on(0, |cpu| cpu.run_exclusive(1, |_| ())).expect("vCPU 0 stays");
                assert!(matches!(result, Ok(()) | Err(EngineError::Gone(1) | EngineError::NoSuchVcpu(1))));
                target.request_exit();
            }),
            Box::new(move || c.unplug(1).expect("unplugs")),
        ]);
        machine.engine.pause("model").expect("pauses");
        machine.engine.shutdown("model").expect("ends");
    });
}

#[test]
fn racing_cpu_on_and_reset() {
    explore(|| {
        let machine = machine(AfterExit::PowerOff, &[0, 5]);
        machine.engine.start("model").expect("starts");
        let power = machine.engine.power();
        while power.power(1) != Some(Power::Off) {
            thread::yield_now();
        }
        let wins = Arc::new(AtomicUsize::new(0));
        let on = |context| {
            let (power, wins, entry) = (power.clone(), Arc::clone(&wins), machine.entry);
            Box::new(move || match power.power_on(1, entry, context) {
                Ok(()) => drop(wins.fetch_add(1, Ordering::SeqCst)),
                Err(error) => assert!(matches!(error, PowerOnError::AlreadyOn | PowerOnError::OnPending)),
            }) as Box<dyn FnOnce() + Send>
        };
        all([on(100), on(200)]);
        assert_eq!(wins.load(Ordering::SeqCst), 1);
        let entry = machine.entry;
        let resets = [Arc::clone(&machine.engine), Arc::clone(&machine.engine)].map(|engine| {
            Box::new(move || {
                let boot = |i| (reset_state(i, entry), if i == 0 { Power::On } else { Power::Off });
                engine.reset("model", || (), boot).expect("resets");
            }) as Box<dyn FnOnce() + Send>
        });
        all(resets);
        assert_eq!(power.power(1), Some(Power::Off));
        assert_eq!(machine.engine.state(), MachineState::Running);
        machine.engine.shutdown("model").expect("ends");
    });
}

#[test]
fn a_guests_request_to_stop_reaches_the_machines_thread() {
    explore(|| {
        let machine = machine(AfterExit::StopMachine(MachineEvent::PowerOff { vcpu: 1 }), &[2, 5]);
        machine.engine.start("model").expect("starts");
        let event: OnceLock<MachineEvent> = OnceLock::new();
        while event.get().is_none() {
            if let Ok(received) = machine.events.try_recv() {
                let _ = event.set(received);
            }
            thread::yield_now();
        }
        assert_eq!(event.get(), Some(&MachineEvent::PowerOff { vcpu: 1 }));
        assert_eq!(machine.engine.run_on(1, |cpu| cpu.state().x[0]).expect("runs"), 0);
        machine.engine.shutdown("model").expect("ends");
    });
}
