//! `cargo xtask bench`: armlet and the peer on the same kernel, disk and workload, taking turns in one run, so
//! that a noisy host disturbs both alike. Figures are medians. What armlet promises (SPECIFICATION.md) is
//! compared with what was measured.

mod chart;
mod console;
mod disk;
mod figures;
mod inside;
mod kvm;
mod latency;
mod operations;
pub mod peer;
mod promises;
pub mod soak;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::boot::Linux;
use crate::kernel::Version;
use crate::run;
use crate::session::{Session, last_lines};

use figures::{Figures, GROUPS, Table};
use peer::Peer;

/// How much to measure.
#[derive(Args)]
pub struct Options {
    /// One shorter round instead of several
    #[arg(long)]
    quick: bool,
    /// Rounds of the workload
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Boots of each
    #[arg(long, default_value_t = 7)]
    boots: usize,
    /// Leave the peer out
    #[arg(long)]
    alone: bool,
    /// CPUs of the guests
    #[arg(long, default_value_t = 1)]
    smp: u32,
    /// CPU model of the guests
    #[arg(long, default_value = "neoverse-n1")]
    cpu: String,
    /// Latencies only
    #[arg(long)]
    latency: bool,
    /// Times of single operations only: a table and a chart in docs/
    #[arg(long, conflicts_with = "latency")]
    operations: bool,
    /// What leaving the guest costs with KVM only, on an arm64 host that the peer emulates
    #[arg(long, conflicts_with_all = ["latency", "operations"])]
    kvm: bool,
    /// Many programs that nothing was tuned for only: a table in docs/
    #[arg(long, conflicts_with_all = ["latency", "operations", "kvm", "alone"])]
    sweep: bool,
    /// Bulk output to consoles only
    #[arg(long, conflicts_with_all = ["latency", "operations", "kvm"])]
    console: bool,
    /// Leave out the workload: boots and single figures only
    #[arg(long)]
    no_workload: bool,
}

/// One run of a guest.
pub struct Run<'a> {
    /// The kernel.
    pub linux: &'a Linux,
    /// Its disk, whose changes are thrown away.
    pub disk: Option<&'a Path>,
    /// Number of CPUs.
    pub smp: u32,
    /// Model of them.
    pub cpu: &'a str,
    /// More of the kernel's command line.
    pub words: &'a str,
}

impl Run<'_> {
    /// armlet's command for it.
    fn armlet(&self, armlet: &Path) -> Command {
        let mut c = self.linux.command(armlet, self.smp, self.words);
        c.args(["--cpu", self.cpu, "--memory", "2G"]);
        if let Some(disk) = self.disk {
            let name = disk.to_string_lossy().replace(',', ",,");
            c.arg("--drive").arg(format!("{name},snapshot=on"));
        }
        c
    }
}

/// What runs guests.
struct Contestant {
    name: &'static str,
    command: Box<dyn Fn(&Run<'_>) -> Command>,
    boots: Vec<f64>,
    figures: Figures,
}

/// Runs the command.
///
/// # Errors
/// Something could not be built or run, or a promise was not kept.
pub fn main(o: &Options) -> Result<()> {
    let armlet = run::build_armlet()?;
    if o.kvm {
        return judge(&kvm::measure(&armlet, if o.quick { 1 } else { kvm::ROUNDS })?);
    }
    if o.operations {
        let peer = if o.alone { None } else { Some(Peer::prepare()?) };
        return operations::measure(&armlet, peer.as_ref());
    }
    if o.latency {
        let peer = if o.alone { None } else { Some(Peer::prepare()?) };
        return judge(&latency::measure(&armlet, peer.as_ref())?);
    }
    if o.sweep {
        return judge(&sweep::measure(armlet, o)?);
    }
    let linux = Linux::prepare(Version::V6_12)?;
    if o.console {
        let peer = if o.alone { None } else { Some(Peer::prepare()?) };
        return judge(&console::measure(&armlet, &linux, peer.as_ref())?);
    }
    let disk = if o.no_workload { PathBuf::new() } else { disk::prepare()? };
    let mut contestants = Vec::new();
    if !o.alone {
        let peer = Peer::prepare()?;
        println!("peer: {}", peer.version()?);
        contestants.push(contestant("peer", move |r| peer.command(r)));
    }
    let program = armlet.clone();
    contestants.push(contestant("armlet", move |r| r.armlet(&program)));

    let (boots, rounds) = if o.quick { (3, 1) } else { (o.boots, o.rounds) };
    for round in 1..=boots {
        for c in &mut contestants {
            run::say(&format!("boot {round} of {boots}: {}", c.name));
            let r = Run { linux: &linux, disk: None, smp: o.smp, cpu: &o.cpu, words: "quiet" };
            c.boots.push(boot(&mut (c.command)(&r))?.as_secs_f64());
        }
    }
    for round in 1..=if o.no_workload { 0 } else { rounds } {
        for c in &mut contestants {
            run::say(&format!("workload {round} of {rounds}: {}", c.name));
            // With a second CPU the workload runs twice at once.
            let script = if o.smp > 1 { "pair" } else { "workload" };
            let words = format!("quiet bench={script}{}", if o.quick { " QUICK" } else { "" });
            let r = Run { linux: &linux, disk: Some(&disk), smp: o.smp, cpu: &o.cpu, words: &words };
            let text = to_the_end(&mut (c.command)(&r), Duration::from_secs(900), "WORKLOAD-END")?;
            c.figures.read(&text).with_context(|| format!("{}'s workload", c.name))?;
        }
    }
    let mut promises = promises::single(&armlet, &linux)?;
    let peer = if o.alone { None } else { Some(Peer::prepare()?) };
    promises.extend(latency::measure(&armlet, peer.as_ref())?);
    promises.extend(console::measure(&armlet, &linux, peer.as_ref())?);
    promises.extend(report(&contestants));
    judge(&promises)
}

/// Tells which promises were kept.
fn judge(promises: &[promises::Promise]) -> Result<()> {
    println!();
    for p in promises {
        println!("{p}");
    }
    let missed = promises.iter().filter(|p| !p.kept()).count();
    if missed == 0 { Ok(()) } else { bail!("{missed} promises were not kept") }
}

/// Fetches the peer and makes the disk, unless the cache folder has them.
///
/// # Errors
/// Download or unpacking failed.
pub fn setup() -> Result<()> {
    disk::prepare()?;
    Peer::prepare()?;
    peer::for_arm64()?;
    Ok(())
}

fn contestant(name: &'static str, command: impl Fn(&Run<'_>) -> Command + 'static) -> Contestant {
    Contestant { name, command: Box::new(command), boots: Vec::new(), figures: Figures::default() }
}

/// Prints the tables, and compares armlet with the peer if there is one.
fn report(contestants: &[Contestant]) -> Vec<promises::Promise> {
    let mut promises = Vec::new();
    println!("\nboot to power-off, seconds (median of {})", contestants[0].boots.len());
    for c in contestants {
        println!("  {:8} {:6.2}", c.name, figures::median(&c.boots));
    }
    let [peer, armlet] = contestants else {
        println!("{}", contestants[0].figures);
        return promises;
    };
    let ratio = figures::median(&armlet.boots) / figures::median(&peer.boots);
    promises.push(promises::Promise::at_most("boot, share of the peer's time", ratio, 0.5));
    let table = Table { base: &peer.figures, other: &armlet.figures, groups: GROUPS };
    println!("{table}");
    for group in GROUPS {
        if let Some(speed) = table.geometric_mean(group.names) {
            let title = format!("{}, speed against the peer's", group.title);
            promises.push(promises::Promise::at_least(&title, speed, group.least));
        }
    }
    promises
}

/// Time from start to end of a run whose guest powers off by itself.
fn boot(c: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    to_the_end(c, Duration::from_secs(120), "armlet-init: user space")?;
    Ok(start.elapsed())
}

/// Runs a guest to its end and gives what it wrote, which must contain `sign`.
fn to_the_end(c: &mut Command, limit: Duration, sign: &str) -> Result<String> {
    let (status, text) = Session::start(c, limit, false)?.finish()?;
    if status.success() && text.contains(sign) {
        return Ok(text);
    }
    bail!("{status}, no {sign:?}; its last lines:\n{}", last_lines(&text))
}
