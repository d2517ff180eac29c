//! What it takes to get the attention of vCPUs that compute: `latency PROGRAM`, whose CPUs all compute without end.
//!
//! Each line is a name, then the median and the 99th percentile in microseconds.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use armlet::config::BootConfig;
use armlet::{Machine, MachineConfig};
use armlet_engine::{Power, VcpuState};

/// Measurements of each kind.
const SAMPLES: usize = 500;
/// Longest wait for the guest's CPUs to come.
const PATIENCE: Duration = Duration::from_secs(30);

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A machine of `cpus` CPUs, all of which compute.
fn machine(program: &str, cpus: usize) -> Outcome<Machine> {
    let boot = BootConfig { kernel: Some(PathBuf::from(program)), ..BootConfig::default() };
    let machine =
        Machine::new(MachineConfig { smp: cpus, memory: 64 << 20, boot, ..MachineConfig::default() })?;
    machine.start()?;
    let begin = Instant::now();
    let power = machine.engine().power();
    while (0..cpus).any(|cpu| power.power(cpu) != Some(Power::On)) {
        if begin.elapsed() > PATIENCE {
            return Err("the program does not start its CPUs".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(machine)
}

/// Times `action` again and again, with a rest between for the vCPUs to go on.
fn measure(
    name: &str,
    mut action: impl FnMut() -> Outcome<()>,
    mut rest: impl FnMut() -> Outcome<()>,
) -> Outcome<()> {
    let mut times = Vec::new();
    for _ in 0..SAMPLES {
        let begin = Instant::now();
        action()?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
        rest()?;
        std::thread::sleep(Duration::from_micros(500));
    }
    times.sort_by(f64::total_cmp);
    println!("{name} {:.1} {:.1}", times[SAMPLES / 2], times[SAMPLES * 99 / 100]);
    Ok(())
}

fn main() -> Outcome<()> {
    let program = std::env::args().nth(1).ok_or("name the program")?;
    let one = machine(&program, 1)?;
    measure("run_on", || Ok(one.engine().run_on(0, |_| ())?), || Ok(()))?;
    drop(one);
    let four = machine(&program, 4)?;
    measure("exclusive", || Ok(four.engine().run_exclusive(0, |_| ())?), || Ok(()))?;
    drop(four);
    let eight = machine(&program, 8)?;
    let handle = eight.handle();
    let resume = || {
        handle.resume("latency")?;
        // Those that have not gone on yet would count as stopped still.
        while (0..8).any(|cpu| eight.engine().vcpu_state(cpu).ok() != Some(VcpuState::Running)) {
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    };
    measure("pause", || Ok(handle.pause("latency")?), resume)
}
