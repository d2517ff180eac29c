//! `cargo xtask bench --kvm`: what armlet costs with KVM, beside the peer, on an arm64 host that the peer emulates. Both are
//! emulated alike there, so that what they cost is compared; times in themselves mean nothing.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use super::figures::median;
use super::peer::{self, ARM64_LOADER, ARM64_PROGRAM};
use super::promises::Promise;
use crate::kvm::host::{Host, Plan};
use crate::session::last_lines;
use crate::{guests, run};

/// Rounds in turns.
pub const ROUNDS: usize = 5;
/// Starts in a row, since the clock there has hundredths of seconds.
const STARTS: usize = 10;

/// The guest's names, what they are, and how many times the peer's time ours may take at most.
const OPERATIONS: &[(&str, &str, Option<f64>)] = &[
    ("load", "load from a device", Some(1.1)),
    ("store", "store to a device", Some(1.1)),
    ("kick", "notification, one after the other", Some(1.1)),
    ("kick-apart", "notification of a device that sleeps", Some(1.1)),
    ("polled", "read of a sector, polled", None),
    ("interrupted", "read of a sector, with its interrupt", None),
];

/// Who runs the guest, and what was measured.
struct Contestant {
    name: &'static str,
    /// The command up to a guest's path.
    command: String,
    /// For a guest with a disk, which is called `disk`.
    disk: &'static str,
    /// In nanoseconds, by operation, one per round.
    operations: Vec<Vec<f64>>,
    /// Host memory beyond the guest's, in MiB.
    memory: Vec<f64>,
    /// From the process's start to the end of a guest that ends at once, in milliseconds.
    starts: Vec<f64>,
}

impl Contestant {
    fn new(name: &'static str, command: String, disk: &'static str) -> Self {
        let operations = vec![Vec::new(); OPERATIONS.len()];
        Self { name, command, disk, operations, memory: Vec::new(), starts: Vec::new() }
    }

    /// Runs the guest that measures.
    fn measure(&mut self, host: &mut Host) -> Result<()> {
        let Self { command, disk, .. } = self;
        let run = format!("{command} /bench/exits {disk} </dev/null >out 2>&1 &");
        let wait = "while ! grep -q 'exits end' out && kill -0 $!; do sleep 0.2; done";
        host.ask(&format!("{run} {wait}"), 0)?;
        // All that it has in memory but the guest's, which is one mapping of 1 GiB.
        let sum = "awk '/^Size:/ { s = $2 } /^Rss:/ && s < 1048576 { t += $2 } END { print \"memory\", t }' /proc/$!/smaps";
        let told = host.ask(&format!("{sum}; kill $!; wait $!; cat out; true"), 0)?;
        let number = |line: &str| {
            let found = told
                .lines()
                .find_map(|l| l.trim().strip_prefix(line)?.strip_prefix(' ')?.parse::<f64>().ok());
            found.with_context(|| format!("{} does not tell '{line}':\n{}", self.name, last_lines(&told)))
        };
        let memory = number("memory")? / 1024.0;
        let times = OPERATIONS.iter().map(|(name, ..)| number(&format!("exit {name}")));
        let times = times.collect::<Result<Vec<_>>>()?;
        self.memory.push(memory);
        self.operations.iter_mut().zip(times).for_each(|(all, picoseconds)| all.push(picoseconds / 1e3));
        Ok(())
    }

    /// Runs the guest that ends at once.
    fn start(&mut self, host: &mut Host) -> Result<()> {
        let time = time_of(host, &format!("{} /bench/off </dev/null", self.command))?;
        self.starts.push(time);
        Ok(())
    }
}

/// What a command takes on the emulated host, in milliseconds.
fn time_of(host: &mut Host, command: &str) -> Result<f64> {
    let clock = "cut -d' ' -f1 /proc/uptime";
    let line = format!(
        "a=$({clock}); for n in $(seq {STARTS}); do {command} >out 2>&1 || break; done; s=$?; b=$({clock}); \
         cat out; echo \"took\"\" $a $b\"; [ $s = 0 ]"
    );
    let told = host.ask(&line, 0)?;
    let words = told.lines().find_map(|l| l.trim().strip_prefix("took ")).context("no time")?;
    let (begin, end) = words.split_once(' ').context("no time")?;
    Ok((end.parse::<f64>()? - begin.parse::<f64>()?) * 1e3 / STARTS as f64)
}

/// How many times longer a process takes there than here: one that does next to nothing. What else this host has to do
/// slows the emulation down in both figures from there; here, the quickest of many counts.
fn slowness(host: &mut Host, armlet: &Path) -> Result<f64> {
    let there = time_of(host, "armlet --version")?;
    let mut here = f64::INFINITY;
    for _ in 0..10 * STARTS {
        let begin = Instant::now();
        run::quiet(&mut run::command(&armlet.to_string_lossy(), ["--version"]))?;
        here = here.min(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(there / here)
}

/// Measures; `armlet` is the one for this host.
///
/// # Errors
/// Something could not be built or run.
pub fn measure(armlet: &Path, rounds: usize) -> Result<Vec<Promise>> {
    let mut host = prepare()?;
    let peer = format!(
        "/peer/{ARM64_LOADER} --library-path /peer /peer/{ARM64_PROGRAM} -M virt,gic-version=3 -accel kvm -cpu host \
         -m 1024 -display none -nodefaults -serial stdio -monitor none -kernel"
    );
    let its_disk = "-global virtio-mmio.force-legacy=false -object iothread,id=t0 \
                    -drive file=disk,format=raw,if=none,id=d0 -device virtio-blk-device,drive=d0,iothread=t0";
    let ours = "armlet run --accel kvm --memory 1G --kernel".to_owned();
    let mut both = [Contestant::new("peer", peer, its_disk), Contestant::new("armlet", ours, "--drive disk")];
    let mut slow = Vec::new();
    for round in 1..=rounds {
        run::say(&format!("KVM, round {round} of {rounds}"));
        for contestant in &mut both {
            contestant.measure(&mut host)?;
            contestant.start(&mut host)?;
        }
        slow.push(slowness(&mut host, armlet)?);
    }
    let [theirs, ours] = &both;
    Ok(report(theirs, ours, median(&slow)))
}

fn prepare() -> Result<Host> {
    let mut plan = Plan::default();
    plan.add_armlet()?;
    for name in ["exits", "off"] {
        plan.files.push((format!("/bench/{name}"), guests::build_bench(name)?));
    }
    for entry in std::fs::read_dir(peer::for_arm64()?)? {
        let path = entry?.path();
        plan.files.push((format!("/peer/{}", path.file_name().unwrap_or_default().to_string_lossy()), path));
    }
    let mut host = Host::start(&plan, false)?;
    host.ask("dd if=/dev/zero of=disk bs=1M count=1", 0)?;
    Ok(host)
}

/// A table, and what was promised.
fn report(theirs: &Contestant, ours: &Contestant, slow: f64) -> Vec<Promise> {
    println!("\n  {:42}{:>12}{:>12}{:>8}", "emulated, microseconds", theirs.name, ours.name, "ratio");
    let mut promises = Vec::new();
    for (n, (_, what, limit)) in OPERATIONS.iter().enumerate() {
        let (their, our) = (median(&theirs.operations[n]), median(&ours.operations[n]));
        let ratio = our / their;
        println!("  {what:42}{:12.2}{:12.2}{ratio:8.2}", their / 1e3, our / 1e3);
        promises.extend(
            limit.map(|limit| Promise::at_most(&format!("KVM, {what}: times the peer's"), ratio, limit)),
        );
    }
    let (their, our) = (median(&theirs.starts), median(&ours.starts));
    println!("  {:42}{their:12.0}{our:12.0}{:8.2}", "start to end of a tiny guest, ms", our / their);
    println!("  a process takes {slow:.0} times longer there than here");
    let memory = (median(&theirs.memory), median(&ours.memory));
    println!(
        "  {:42}{:12.1}{:12.1}{:8.2}",
        "memory beyond the guest's, MiB",
        memory.0,
        memory.1,
        memory.1 / memory.0
    );
    promises.push(Promise::at_most(
        "KVM, memory beyond the guest's: of the peer's",
        memory.1 / memory.0,
        0.33,
    ));
    promises.push(Promise::at_most("KVM, start of a tiny guest to its end: ms", our / slow, 20.0));
    promises
}
