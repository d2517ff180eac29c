//! `armlet-conform`: runs the differential tests and prints one line for each mismatch.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use armlet_conform::generate::Plan;
use armlet_conform::run::{Report, Row, Run};
use armlet_conform::{Executor, coverage, explain, features, line, missing, program, qemu, shrink};
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
    /// The same without the host's AVX-512 instructions
    JitAvx2,
}

impl From<By> for Executor {
    fn from(by: By) -> Self {
        match by {
            By::Qemu => Self::Qemu,
            By::Interpreter => Self::Interpreter,
            By::Jit => Self::Jit,
            By::JitAvx2 => Self::JitAvx2,
        }
    }
}

/// Compare armlet's instruction semantics with qemu-user's
#[derive(Parser)]
struct Options {
    /// Seed of the run (from the clock if not given)
    #[arg(long)]
    seed: Option<u64>,
    /// 2,000 states for each encoding and sequences of 10 million instructions
    #[arg(long)]
    full: bool,
    /// States for each encoding
    #[arg(long)]
    states: Option<u64>,
    /// States for each encoding that no model has
    #[arg(long)]
    absent: Option<u64>,
    /// Sequences of 10 to 200 instructions
    #[arg(long)]
    sequences: Option<u64>,
    /// Only encodings whose class or name contains this (or one of these, separated by commas)
    #[arg(long)]
    class: Option<String>,
    /// CPU model
    #[arg(long, default_value = "max")]
    cpu: String,
    /// What is right
    #[arg(long, value_enum, default_value = "qemu")]
    oracle: By,
    /// What is tested; may be given several times
    #[arg(long, value_enum, default_values = ["interpreter", "jit", "jit-avx2"])]
    test: Vec<By>,
    /// Mismatches to shrink and print for each encoding
    #[arg(long, default_value_t = 1)]
    lines: usize,
    /// Run the cases in this file, one a line, by the oracle, and print them with what it does
    #[arg(long)]
    cases: Option<PathBuf>,
    /// Write docs/a64-coverage.md
    #[arg(long)]
    coverage: bool,
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
    if o.coverage {
        fs::write(coverage::path(), coverage::page()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &o.cases {
        answer(&fs::read_to_string(path)?, &o.cpu)?;
        return Ok(ExitCode::SUCCESS);
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let (states, sequences) = if o.full { (2000, 125_000) } else { (64, 2000) };
    let run = Run {
        plan: Plan::new(features, o.seed.unwrap_or(clock), o.class.as_deref()),
        model: o.cpu.clone(),
        states: o.states.unwrap_or(states),
        absent: o.absent.unwrap_or(if o.full { 2000 } else { 4 }),
        sequences: o.sequences.unwrap_or(sequences),
        oracle: o.oracle.into(),
        tested: o.test.iter().map(|&by| by.into()).collect(),
        spoil: None,
    };
    println!("{}", qemu::version().unwrap_or_else(|| "no oracle".into()));
    println!(
        "seed {}, {} states for each of {} encodings",
        run.plan.seed,
        run.states,
        run.plan.encodings.len()
    );
    let start = Instant::now();
    let report = run.run()?;
    print(&report);
    show(&run, &report, o.lines)?;
    println!("{:.0} s", start.elapsed().as_secs_f64());
    Ok(if report.mismatches.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the cases with the oracle's answers, and other lines as they are.
fn answer(text: &str, model: &str) -> Result<()> {
    let features = features(model)?;
    for line in text.lines() {
        match line::parse(line)? {
            None => println!("{line}"),
            Some((cases, _)) => {
                let code = program::code(&features, &cases);
                let after = qemu::execute(model, &features, &cases, &code)?;
                if let (Some(case), Some(after)) = (cases.last(), after.last()) {
                    println!("{}", line::write(case, after));
                }
            }
        }
    }
    Ok(())
}

/// The table by class, and what else was run.
fn print(report: &Report) {
    println!(
        "{:<22}{:>10}{:>12}{:>10}{:>11}{:>12}",
        "class", "encodings", "implemented", "run", "states", "mismatches"
    );
    let row = |name: &str, r: &Row| {
        let explained = if r.explained == 0 { String::new() } else { format!(", {} explained", r.explained) };
        println!(
            "{name:<22}{:>10}{:>12}{:>10}{:>11}{:>12}{explained}",
            r.encodings, r.implemented, r.run, r.states, r.mismatches
        );
    };
    for (name, r) in &report.classes {
        row(name, r);
    }
    row("all", &report.total());
    row("on no model", &report.absent);
    row("unallocated", &report.unallocated);
    row("sequences", &report.sequences);
    println!("{} instructions executed in sequences", report.instructions);
    for (n, e) in report.explained.iter().zip(explain::EXCEPTIONS).filter(|(n, _)| **n != 0) {
        println!("{n} explained: {} ({})", e.what, e.section);
    }
    for e in &report.never {
        println!("never run: {}", e.name());
    }
}

/// A few mismatches of each encoding, shrunk.
fn show(run: &Run, report: &Report, lines: usize) -> Result<()> {
    let mut seen = BTreeMap::new();
    for m in &report.mismatches {
        let n = seen.entry((m.case.enc, m.case.body.len() >= 10)).or_insert(0usize);
        *n += 1;
        if *n <= lines {
            let small = shrink::shrink(run, m)?;
            println!(
                "{:?} {} ({}): {}",
                m.tested,
                m.case.enc.name(),
                m.case.number,
                small.want.differences(&small.got).join(", ")
            );
            println!("  {}", line::write(&small.case, &small.want));
            println!("  # {:?}: {}", m.tested, line::outputs(&small.case, &small.got));
        }
    }
    for ((e, long), n) in &seen {
        println!(
            "{n:6} {} ({}){}",
            e.name(),
            e.class().name(),
            if *long { ", last of sequences" } else { "" }
        );
    }
    if report.mismatches.is_empty() {
        println!("no mismatch");
    } else {
        println!("{} mismatches in {} encodings", report.mismatches.len(), seen.len());
    }
    Ok(())
}
