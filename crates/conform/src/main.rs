//! `armlet-conform`: runs the differential tests and prints one line for each mismatch.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use armlet_conform::{Comparison, Executor, features, generate::Plan, missing};
use clap::{Parser, ValueEnum};

/// Who runs the cases
#[derive(Clone, Copy, ValueEnum)]
enum By {
    /// The independent implementation
    Qemu,
    /// Lifts, run by the IR interpreter
    Interpreter,
    /// Lifts, run as host code
    Jit,
}

impl From<By> for Executor {
    fn from(by: By) -> Self {
        match by {
            By::Qemu => Self::Qemu,
            By::Interpreter => Self::Interpreter,
            By::Jit => Self::Jit,
        }
    }
}

/// Compare armlet's instruction semantics with qemu-user's
#[derive(Parser)]
struct Options {
    /// Seed of the run (from the clock if not given)
    #[arg(long)]
    seed: Option<u64>,
    /// Number of cases
    #[arg(long, default_value_t = 20_000)]
    count: u64,
    /// Number of the first case
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only encodings whose class or name contains this (or one of these, separated by commas)
    #[arg(long)]
    class: Option<String>,
    /// CPU model
    #[arg(long, default_value = "neoverse-n1")]
    cpu: String,
    /// What is right
    #[arg(long, value_enum, default_value = "qemu")]
    oracle: By,
    /// What is tested; may be given several times
    #[arg(long, value_enum, default_values = ["interpreter", "jit"])]
    test: Vec<By>,
    /// Sequences of instructions instead of single ones
    #[arg(long)]
    sequences: bool,
    /// Lines to print for each encoding
    #[arg(long, default_value_t = 2)]
    lines: usize,
    /// List the encodings that the model has and no lift knows, and stop
    #[arg(long)]
    missing: bool,
}

fn main() -> Result<ExitCode> {
    let o = Options::parse();
    let features = features(&o.cpu)?;
    if o.missing {
        let list = missing(&features);
        for e in &list {
            println!("{} ({})", e.name(), e.class().name());
        }
        println!("{} encodings of {} are missing", list.len(), o.cpu);
        return Ok(ExitCode::SUCCESS);
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let seed = o.seed.unwrap_or(clock);
    let plan = Plan::new(features, seed, o.class.as_deref());
    println!("seed {seed}, {} cases of {} encodings", o.count, plan.encodings.len());
    let comparison = Comparison {
        oracle: o.oracle.into(),
        tested: o.test.iter().map(|&by| by.into()).collect(),
        model: o.cpu,
        sequences: o.sequences,
    };
    let all = comparison.run(&plan, o.first, o.count)?;
    let mut seen = BTreeMap::new();
    for m in &all {
        let n = seen.entry(m.enc).or_insert(0usize);
        *n += 1;
        if *n <= o.lines {
            println!("{}", m.text);
        }
    }
    if all.is_empty() {
        println!("no mismatch");
        return Ok(ExitCode::SUCCESS);
    }
    for (e, n) in &seen {
        println!("{n:6} {} ({})", e.name(), e.class().name());
    }
    println!("{} mismatches in {} encodings", all.len(), seen.len());
    Ok(ExitCode::FAILURE)
}
