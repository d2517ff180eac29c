//! Many vCPUs come and go under load; nothing hangs and nothing is left behind. One test, so that the process's
//! threads and descriptors can be counted. `ARMLET_CYCLES` says how often.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use armlet_engine::{Engine, EngineError};
use armlet_machine::config::AcceleratorKind;
use armlet_machine::{Machine, MachineConfig, MachineHandle, PlugError, spec};

fn cycles() -> usize {
    std::env::var("ARMLET_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Resident memory in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Plugs and unplugs CPU `index`; every other time it is switched on in between.
fn cycle(handle: &MachineHandle, engine: &Engine, index: usize, times: usize) {
    for i in 0..times {
        handle.plug_cpu(index).unwrap();
        let thread = handle.cpus().iter().find(|c| c.index == index).unwrap().thread_id;
        let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap();
        assert!(name.starts_with(&format!("CPU {index}/")), "{name}");
        if i % 2 == 0 {
            handle.unplug_cpu(index).unwrap();
        } else {
            engine.power().power_on(index, spec::RAM_BASE, 0).unwrap();
            assert!(matches!(handle.unplug_cpu(index), Err(PlugError::On(_))));
            // Whoever uses the engine itself may be ruthless.
            engine.unplug(index).unwrap();
        }
    }
}

/// Work, kicks, exclusive sections and pauses on whoever is there, until `done`.
fn rain(handle: &MachineHandle, engine: &Engine, done: &AtomicBool) {
    let expected = |e: &EngineError| {
        matches!(e, EngineError::Gone(_) | EngineError::NoSuchVcpu(_) | EngineError::PauseCancelled)
    };
    for i in 0.. {
        if done.load(Ordering::SeqCst) {
            return;
        }
        let target = i % 4;
        let result = match i % 7 {
            0 => handle.pause("rain"),
            1 => handle.resume("rain"),
            2 => engine.run_exclusive(target, |_| ()),
            3 => engine.run_on_async(target, |_| ()),
            4 => engine.run_exclusive(0, move |a| drop(a.run_on(target, |_| ()))),
            _ => engine.run_on(target, |_| ()),
        };
        assert!(result.as_ref().err().is_none_or(expected), "{result:?}");
    }
}

/// Runs `times` cycles of each of three vCPUs.
fn round(handle: &MachineHandle, engine: &Engine, times: usize) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let rains = [(); 2].map(|()| scope.spawn(|| rain(handle, engine, &done)));
        let cycles = [1, 2, 3].map(|index| scope.spawn(move || cycle(handle, engine, index, times)));
        let ends = cycles.map(|cycle| cycle.join());
        done.store(true, Ordering::SeqCst);
        rains.into_iter().for_each(|rain| rain.join().unwrap());
        ends.into_iter().for_each(|end| end.unwrap());
    });
}

/// Threads and descriptors. A thread that has ended is in the host's list for a moment longer.
fn kept(threads: usize) -> (usize, usize) {
    let start = Instant::now();
    while entries("/proc/self/task") > threads && start.elapsed() < Duration::from_secs(20) {
        thread::yield_now();
    }
    (entries("/proc/self/task"), entries("/proc/self/fd"))
}

fn soak(kind: AcceleratorKind) {
    let mut config = MachineConfig { memory: 64 << 20, max_cpus: Some(4), ..MachineConfig::default() };
    config.accelerator.kind = kind;
    let machine = Machine::new(config).unwrap();
    machine.start().unwrap();
    let (handle, engine) = (machine.handle(), machine.engine());
    let before = (entries("/proc/self/task"), entries("/proc/self/fd"));
    // The first round fills what is kept for ever, such as the allocator's pools.
    round(&handle, engine, cycles() / 10 + 100);
    let (memory, begin) = (resident(), Instant::now());
    round(&handle, engine, cycles());
    let (after, time) = (kept(before.0), begin.elapsed());
    println!(
        "{}: {} cycles of each of 3 CPUs in {:.1} s; threads {} then {}; descriptors {} then {}; {memory} KiB then {}",
        kind.name(),
        cycles(),
        time.as_secs_f64(),
        before.0,
        after.0,
        before.1,
        after.1,
        resident()
    );
    assert_eq!(after, before, "threads or descriptors are left behind");
    // What the allocator has in use stays the same; how it is spread over pages varies by some vCPUs' TLBs and caches.
    // A vCPU that stays behind is seen after some cycles, a few hundred bytes of each after 10,000.
    assert!(resident() < memory + (16 << 10), "memory grows from {memory} KiB to {} KiB", resident());
    assert_eq!(engine.vcpus(), [0]);
}

#[test]
fn vcpus_come_and_go_under_load() {
    let idle = entries("/proc/self/task");
    soak(AcceleratorKind::Dummy);
    // The first machine's threads must not be counted as the second one's.
    assert_eq!(kept(idle).0, idle, "a machine that is gone leaves threads behind");
    if armlet_accel_jit::check_host().is_ok() {
        soak(AcceleratorKind::Jit);
    }
}
