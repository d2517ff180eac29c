//! `cargo xtask litmus`: the memory model, as a guest sees it.
//!
//! The tests and what the model allows of each come from `armlet-litmus`; `guests/litmus` runs them. An outcome that is
//! not allowed is a failure. One that is allowed and not sequentially consistent shows that the runs are able to see
//! something at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use armlet_litmus::code;
use armlet_litmus::model::{Model, allowed};
use armlet_litmus::shapes::{SHAPES, variants};
use armlet_litmus::test::Test;
use clap::Args;

use crate::session::{Session, last_lines};
use crate::{guests, run};

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Runs of each test
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// CPUs; may be given several times
    #[arg(long, default_values_t = [2, 4])]
    smp: Vec<usize>,
    /// Seed of the variants and of how they are run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Random variants of each shape, beside the systematic ones
    #[arg(long, default_value_t = 30)]
    random: usize,
    /// Only the shape of this name
    #[arg(long, value_name = "SHAPE")]
    only: Option<String>,
    /// Run under this program, which takes `qemu-system-aarch64`'s options, instead of armlet
    #[arg(long, value_name = "PROGRAM")]
    reference: Option<PathBuf>,
    /// Leave out all barriers, acquires and releases: forbidden outcomes must be seen
    #[arg(long)]
    broken: bool,
}

/// What is known of one shape.
#[derive(Default)]
struct Row {
    variants: usize,
    runs: u64,
    /// Runs with a forbidden outcome.
    forbidden: u64,
    /// Variants whose outcomes may be other than sequentially consistent, and those that were.
    relaxable: usize,
    relaxed: usize,
}

/// A test and what may come of it.
struct Judged {
    test: Test,
    allowed: BTreeSet<u32>,
    sequential: BTreeSet<u32>,
}

/// Runs the command.
///
/// # Errors
/// A forbidden outcome was seen, or the guest cannot be run.
pub fn main(o: &Options) -> Result<()> {
    let mut forbidden = 0;
    for &cpus in &o.smp {
        let tests = judged(o, cpus)?;
        let mut plan = Plan { runs: o.runs, seed: o.seed, cpus, broken: o.broken, program: Program::Armlet };
        if let Some(program) = &o.reference {
            plan.program = Program::Reference(program.clone());
        } else {
            atomics(&run::build_armlet()?, cpus, o.runs.min(200_000))?;
        }
        let start = Instant::now();
        let rows = plan.run(&tests)?;
        print(&rows, &plan, start.elapsed());
        forbidden += rows.values().map(|r| r.forbidden).sum::<u64>();
    }
    match (forbidden, o.broken) {
        (0, false) => Ok(()),
        (0, true) => bail!("nothing forbidden was seen, though nothing is ordered"),
        (_, true) => Ok(()),
        _ => bail!("{forbidden} runs had a forbidden outcome"),
    }
}

/// The short form: that nothing forbidden is seen, and that it would be.
///
/// # Errors
/// Either is not so.
pub fn short(armlet: &Path) -> Result<()> {
    let options = |random, only: Option<&str>| Options {
        runs: 0,
        smp: Vec::new(),
        seed: 1,
        random,
        only: only.map(str::to_owned),
        reference: None,
        broken: false,
    };
    for (cpus, runs) in [(2, 4096), (4, 2048)] {
        atomics(armlet, cpus, 3000)?;
        let mut tests = judged(&options(6, None), cpus)?;
        // Those of two threads have had their turn.
        tests.retain(|t| cpus == 2 || t.test.threads.len() > 2);
        let plan = Plan { runs, seed: 1, cpus, broken: false, program: Program::Armlet };
        let forbidden: u64 = plan.run(&tests)?.values().map(|r| r.forbidden).sum();
        if forbidden != 0 {
            bail!("{forbidden} runs had a forbidden outcome on {cpus} CPUs");
        }
    }
    // Without barriers and ordered accesses, a store and a later load change places.
    let tests = judged(&options(10, Some("SB")), 2)?;
    for round in 0..60 {
        let plan = Plan { runs: 20_000, seed: round, cpus: 2, broken: true, program: Program::Armlet };
        if plan.run(&tests)?.values().any(|r| r.forbidden != 0 && r.relaxed != 0) {
            return Ok(());
        }
    }
    bail!("with all barriers left out, no forbidden outcome was seen")
}

/// The tests for so many CPUs.
fn judged(o: &Options, cpus: usize) -> Result<Vec<Judged>> {
    let shapes: Vec<_> =
        SHAPES.iter().filter(|(name, _)| o.only.as_ref().is_none_or(|only| only == name)).collect();
    if shapes.is_empty() {
        let names: Vec<_> = SHAPES.iter().map(|(name, _)| *name).collect();
        bail!("there is no such shape; there are {}", names.join(", "));
    }
    let tests = shapes.into_iter().flat_map(|&shape| variants(shape, o.seed, o.random));
    let judge = |test: Test| {
        let [allowed, sequential] = [Model::Arm, Model::Sequential].map(|model| allowed(&test, model));
        Judged { test, allowed, sequential }
    };
    Ok(tests.filter(|t| t.threads.len() <= cpus).map(judge).collect())
}

enum Program {
    Armlet,
    Reference(PathBuf),
}

struct Plan {
    runs: u64,
    seed: u64,
    cpus: usize,
    broken: bool,
    program: Program,
}

impl Plan {
    fn run(&self, tests: &[Judged]) -> Result<BTreeMap<&'static str, Row>> {
        let source: Vec<Test> = tests.iter().map(|j| j.test.clone()).collect();
        let elf = guests::build_litmus("litmus", Some(&code::source(&source, self.broken)))?;
        let arguments = format!("runs={} seed={}", self.runs, self.seed);
        let mut command = match &self.program {
            Program::Armlet => guests::on_armlet(&run::build_armlet()?, &elf, self.cpus, &arguments),
            Program::Reference(program) => guests::on_reference(program, &elf, self.cpus, &arguments),
        };
        let limit = Duration::from_secs(120 + tests.len() as u64 * (1 + self.runs / 20_000));
        let (status, text) = Session::start(&mut command, limit, false)?.finish()?;
        if status.code() != Some(0) || !text.contains("litmus: end") {
            bail!("the guest ended with {status}; it says:\n{}", last_lines(&text));
        }
        let mut rows: BTreeMap<&'static str, Row> = BTreeMap::new();
        let mut results = 0;
        for line in text.lines().filter_map(|l| l.trim().strip_prefix("test ")) {
            let (number, outcomes) = line.split_once(':').context("a line without outcomes")?;
            let judged = tests.get(number.parse::<usize>()?).context("a test that there is not")?;
            self.judge(judged, outcomes, rows.entry(judged.test.shape).or_default())?;
            results += 1;
        }
        if results == tests.len() {
            Ok(rows)
        } else {
            bail!("{results} of {} tests have results", tests.len())
        }
    }

    fn judge(&self, judged: &Judged, outcomes: &str, row: &mut Row) -> Result<()> {
        let mut relaxed = false;
        for pair in outcomes.split_whitespace() {
            let (outcome, count) = pair.split_once('=').context("an outcome without a number")?;
            let (outcome, count) = (u32::from_str_radix(outcome, 16)?, count.parse::<u64>()?);
            row.runs += count;
            if judged.allowed.contains(&outcome) {
                relaxed |= !judged.sequential.contains(&outcome);
                continue;
            }
            row.forbidden += count;
            if !self.broken {
                let what = judged.test.describe(outcome);
                println!("FORBIDDEN: {} has {what}, {count} times (seed {})", judged.test, self.seed);
            }
        }
        row.variants += 1;
        row.relaxable += usize::from(judged.allowed.len() > judged.sequential.len());
        row.relaxed += usize::from(relaxed);
        Ok(())
    }
}

/// Exclusives and atomics under contention.
///
/// # Errors
/// A counter is wrong.
pub fn atomics(armlet: &Path, cpus: usize, runs: u64) -> Result<()> {
    let elf = guests::build_litmus("atomics", None)?;
    let mut command: Command = guests::on_armlet(armlet, &elf, cpus, &format!("runs={runs}"));
    let (status, text) =
        Session::start(&mut command, Duration::from_secs(120 + runs / 100), false)?.finish()?;
    if status.code() != Some(0) {
        bail!("the guest ended with {status}; it says:\n{}", last_lines(&text));
    }
    println!("{}", last_lines(&text).trim());
    Ok(())
}

fn print(rows: &BTreeMap<&'static str, Row>, plan: &Plan, time: Duration) {
    println!("{:8} {:>9} {:>12} {:>10} {:>22}", "shape", "variants", "runs", "forbidden", "relaxed (may be)");
    let mut all = Row::default();
    for (name, _) in SHAPES {
        let Some(r) = rows.get(name) else { continue };
        show(name, r);
        all.variants += r.variants;
        all.runs += r.runs;
        all.forbidden += r.forbidden;
        all.relaxable += r.relaxable;
        all.relaxed += r.relaxed;
    }
    show("all", &all);
    println!("{} CPUs, seed {}, {:.0} s\n", plan.cpus, plan.seed, time.as_secs_f64());
}

fn show(name: &str, r: &Row) {
    let relaxed = format!("{} ({})", r.relaxed, r.relaxable);
    println!("{name:8} {:>9} {:>12} {:>10} {relaxed:>22}", r.variants, r.runs, r.forbidden);
}
