//! `cargo xtask fuzz`: the targets of `armlet-hostile` under libFuzzer, with AddressSanitizer.
//!
//! `fuzz/` is a workspace of its own, built for the sanitizer by the stable compiler. What libFuzzer finds worth
//! keeping stays in the target folder; an input that fails is kept there too, and its path shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::run;

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Coverage as libFuzzer wants it, and the sanitizer.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Cforce-frame-pointers=yes --cfg fuzzing";

/// What to look for, and how long.
#[derive(Args)]
pub struct Options {
    /// The target; without one, they are listed
    target: Option<String>,
    /// All targets, one after the other
    #[arg(long, conflicts_with = "target")]
    all: bool,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// A target, as the program lists it.
struct Target {
    name: String,
    longest: String,
    about: String,
}

/// Runs the command.
///
/// # Errors
/// A target failed, or the build.
pub fn main(o: &Options) -> Result<()> {
    let program = build()?;
    let targets = list(&program)?;
    let wanted = |t: &&Target| o.all || o.target.as_ref() == Some(&t.name);
    let chosen: Vec<&Target> = targets.iter().filter(wanted).collect();
    if chosen.is_empty() {
        for t in &targets {
            println!("{:10} {}", t.name, t.about);
        }
        return match &o.target {
            Some(name) => bail!("there is no target {name:?}"),
            None => Ok(()),
        };
    }
    let mut failed = Vec::new();
    for target in chosen {
        if let Err(e) = run_target(&program, target, o.seconds) {
            println!("{}: {e:#}", target.name);
            failed.push(target.name.as_str());
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("findings in {}", failed.join(", ")) }
}

fn folder() -> PathBuf {
    run::target().join("fuzz")
}

/// Builds the program, and gives its path.
fn build() -> Result<PathBuf> {
    let target = folder().join("build");
    let mut c = run::command(&run::cargo(), ["build", "--quiet", "--release", "--target", TRIPLE]);
    c.args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"]).arg(&target);
    // Sanitizers are not stable yet; this compiler has them nevertheless.
    c.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", RUSTFLAGS);
    run::shown(&mut c)?;
    Ok(target.join(TRIPLE).join("release/armlet-fuzz"))
}

fn list(program: &Path) -> Result<Vec<Target>> {
    let text = run::quiet(Command::new(program).env("ARMLET_FUZZ_TARGET", "list"))?;
    let line = |line: &str| {
        let mut parts = line.splitn(3, ' ').map(str::to_owned);
        Some(Target { name: parts.next()?, longest: parts.next()?, about: parts.next()? })
    };
    text.lines().map(line).collect::<Option<_>>().context("the program does not list its targets")
}

fn run_target(program: &Path, target: &Target, seconds: u64) -> Result<()> {
    let corpus = folder().join("corpus").join(&target.name);
    let findings = folder().join("findings");
    for folder in [&corpus, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut c = Command::new(program);
    c.env("ARMLET_FUZZ_TARGET", &target.name);
    c.args([format!("-max_total_time={seconds}"), format!("-max_len={}", target.longest)]);
    c.args(["-print_final_stats=1", "-verbosity=0", "-print_funcs=0"]);
    c.arg(format!("-artifact_prefix={}/{}-", findings.display(), target.name)).arg(&corpus);
    let kept = Path::new("crates/hostile/corpus").join(&target.name);
    if kept.is_dir() {
        c.arg(kept);
    }
    println!("{}: {}, {seconds} s", target.name, target.about);
    run::shown(&mut c)
}
