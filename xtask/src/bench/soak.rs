//! `cargo xtask soak`: what only shows after many tries.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Run, disk, inside, to_the_end};
use crate::boot::{Linux, complaints};
use crate::kernel::Version;
use crate::{run, suite};

/// How long to try.
#[derive(Args)]
pub struct Options {
    /// Boots to power-off
    #[arg(long, default_value_t = 100)]
    boots: usize,
    /// CPUs of the guests
    #[arg(long, default_value_t = 4)]
    smp: u32,
    /// CPU model of the guests
    #[arg(long, default_value = "neoverse-n1")]
    cpu: String,
    /// The kernel
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Version,
    /// Seconds of the mixed run of self-checking programs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Leave out the self-checking programs
    #[arg(long)]
    no_verify: bool,
    /// Random schedules of the engine's threads, CPUs plugged and unplugged again and again, and nothing else
    #[arg(long)]
    engine: bool,
    /// Schedules for each of the engine's models
    #[arg(long, default_value_t = 100_000)]
    schedules: u32,
    /// How often each of three CPUs is plugged and unplugged, on each accelerator
    #[arg(long, default_value_t = 10_000)]
    cycles: u32,
    /// Debian's gdb and perf inside a guest, and nothing else
    #[arg(long)]
    debuggers: bool,
    /// Debuggers: a guest of the peer instead
    #[arg(long, requires = "debuggers")]
    reference: bool,
    /// Everything that can happen to a running machine, at random and at once, and nothing else
    #[arg(long)]
    storm: bool,
    /// Minutes of the storm
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// What the storm is made from; chosen if it is not given
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// A guest hung, complained or computed wrongly.
pub fn main(o: &Options) -> Result<()> {
    if o.storm {
        return storm(o.kernel, o.minutes, o.seed);
    }
    if o.debuggers {
        return inside::debuggers(o.kernel, o.reference);
    }
    if o.engine {
        return engine(o.schedules, o.cycles);
    }
    let armlet = run::build_armlet()?;
    let linux = Linux::prepare(o.kernel)?;
    for n in 1..=o.boots {
        let r = Run { linux: &linux, disk: None, smp: o.smp, cpu: &o.cpu, words: "quiet" };
        let text = to_the_end(&mut r.armlet(&armlet), Duration::from_secs(120), "armlet-init: user space")
            .with_context(|| format!("boot {n}"))?;
        complaints(&text).with_context(|| format!("boot {n}"))?;
        if n % 10 == 0 || n == o.boots {
            println!("{n} of {} boots went well", o.boots);
        }
    }
    if o.no_verify {
        return Ok(());
    }
    let disk = disk::prepare()?;
    let words = format!("quiet bench=verify VERIFY_SECONDS={}", o.seconds);
    let r = Run { linux: &linux, disk: Some(&disk), smp: o.smp, cpu: &o.cpu, words: &words };
    let text = to_the_end(&mut r.armlet(&armlet), Duration::from_secs(1800), "VERIFY-END")?;
    complaints(&text)?;
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("VERIFY ")).collect();
    let bad: Vec<&str> = lines.iter().copied().filter(|l| !l.trim_end().ends_with(" 0")).collect();
    println!("{} of {} self-checking programs went well", lines.len() - bad.len(), lines.len());
    if !bad.is_empty() {
        bail!("these did not: {}\n{text}", bad.join(", "));
    }
    inside::debuggers(o.kernel, false)?;
    engine(o.schedules, o.cycles)
}

/// Many random schedules of the engine's threads; many CPUs that come and go under load.
fn engine(schedules: u32, cycles: u32) -> Result<()> {
    run::say(&format!("{schedules} schedules of each of the engine's models"));
    run::shown(&mut suite::model_checker("shuttle", schedules))?;
    let mut c = run::command(&run::cargo(), ["test", "--quiet", "--release", "--package", "armlet-machine"]);
    c.args(["--test", "plug_soak", "--", "--nocapture"]).env("ARMLET_CYCLES", cycles.to_string());
    run::shown(&mut c)
}

/// stress-ng on 4 CPUs, while everything happens that can happen to a machine: pauses, work, exclusive sections,
/// debuggers, CPUs that come and go.
///
/// # Errors
/// Something hung, the guest complained or computed wrongly, or the process grew.
pub fn storm(kernel: Version, minutes: f64, seed: Option<u64>) -> Result<()> {
    let (linux, disk) = (Linux::prepare(kernel)?, disk::prepare()?);
    let package = ["build", "--quiet", "--release", "--package", "armlet-storm"];
    run::shown(&mut run::command(&run::cargo(), package))?;
    let program = run::target().join("release/armlet-storm");
    let mut c = run::command(&program.to_string_lossy(), ["--minutes", &minutes.to_string()]);
    c.arg("--kernel").arg(&linux.image).arg("--initrd").arg(&linux.initrd).arg("--disk").arg(&disk);
    c.args(seed.map(|seed| format!("--seed={seed}")));
    run::shown(&mut c)
}
