//! `cargo xtask test`: every check, in the order in which a mistake shows soonest.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::soak;
use crate::boot::{Linux, scripted};
use crate::kernel::Version;
use crate::{
    arm64, cache, drivers, gdb, guests, host, kvm, litmus, oracle, profile, qmp, repeat, run, saved, topology,
};

/// How much to test.
#[derive(Args)]
pub struct Options {
    /// Leave out the boots of real kernels
    #[arg(long)]
    pub no_boot: bool,
}

/// What passed and what failed, in tests.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: Vec<String>,
}

impl Tally {
    /// Runs one check that counts as one test.
    fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        let start = Instant::now();
        println!("── {name}");
        match check() {
            Ok(()) => {
                println!("   ok ({:.1} s)", start.elapsed().as_secs_f64());
                self.passed += 1;
            }
            Err(e) => {
                println!("   FAILED: {e:#}");
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Runs test programs through cargo and counts their tests.
    fn tests(&mut self, name: &str, c: &mut Command) {
        println!("── {name}");
        match count(c) {
            Ok((passed, failed, success)) => {
                self.passed += passed;
                self.failed.extend((0..failed).map(|_| format!("{name}: a test")));
                if !success && failed == 0 {
                    self.failed.push(format!("{name}: did not run to its end"));
                }
            }
            Err(e) => self.failed.push(format!("{name}: {e:#}")),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Something failed.
pub fn main(o: &Options) -> Result<()> {
    let start = Instant::now();
    host::ensure(host::BOOT)?;
    host::ensure(host::TEST)?;
    oracle::prepare()?;
    let cargo = run::cargo();
    let mut tally = Tally::default();
    let cargo_check = |tally: &mut Tally, name: &str, args: &[&str]| {
        tally.check(name, || run::shown(run::command(&cargo, args).env("RUSTDOCFLAGS", "-D warnings")));
    };
    cargo_check(&mut tally, "format", &["fmt", "--all", "--check"]);
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    cargo_check(&mut tally, "lints", &clippy);
    tally.check("all of it compiles for arm64 hosts", arm64::check);
    tally.check("licences and sources of dependencies", deny);
    cargo_check(&mut tally, "documentation", &["doc", "--quiet", "--workspace", "--no-deps"]);
    tally.tests("tests", &mut run::command(&cargo, ["test", "--workspace", "--no-fail-fast"]));
    models(&mut tally);
    if !o.no_boot {
        guests(&mut tally)?;
        boots(&mut tally)?;
        let armlet = run::build_armlet()?;
        tally.check("a public QMP client drives Linux", || qmp::drive_linux(&armlet));
        tally.check("the memory model, and atomics under contention", || litmus::short(&armlet));
        tally.check("gdb debugs a bare-metal program", || gdb::bare_metal(&armlet));
        tally.check("gdb debugs Linux", || gdb::linux(&armlet, 1000).map(drop));
        tally.check("gdb debugs Linux backwards", || gdb::backwards(&armlet).map(drop));
        tally.check("Linux sees CPUs as they are arranged", || topology::linux(&armlet));
        for version in Version::ALL {
            let name = format!("symbols in the image of Linux {version:?}");
            tally.check(&name, || profile::symbols(&armlet, version));
        }
        tally.check("Linux with KVM, on an emulated host", kvm::short);
        tally.check("the profile of a boot", || profile::boot(&armlet));
        tally.check("a storm over Linux", || soak::storm(Version::V6_12, 1.0, None));
        tally.check("a public QMP client ends a machine", || qmp::drive_dummy(&armlet));
        tally.check("four QMP clients at once", || qmp::storm(&armlet, 10, 1));
        for guest in guests::build_tests()? {
            tally.check(&format!("guest {}, the same again", guest.name), || repeat::twice(&armlet, &guest));
        }
        for guest in guests::build_tests()? {
            let name = format!("guest {}, saved and restored", guest.name);
            tally.check(&name, || saved::bare_metal(&armlet, &guest, repeat::seed_of_now()).map(drop));
        }
        tally.check("Linux, saved and restored", || saved::linux(&armlet));
        tally.check("Linux, the same again", || repeat::linux_twice(&armlet));
        tally.check("a session with Linux, replayed", || repeat::recorded(&armlet, repeat::seed_of_now()));
    }
    println!("\n{:.0} s in all", start.elapsed().as_secs_f64());
    for f in &tally.failed {
        println!("FAILED: {f}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed.len());
    if tally.failed.is_empty() { Ok(()) } else { bail!("not everything passed") }
}

/// The engine's interleavings: all of the small protocols (loom), random ones of the whole (shuttle). The
/// checkers replace std's locks by a flag for the compiler, so each has a build of its own.
fn models(tally: &mut Tally) {
    for checker in ["loom", "shuttle"] {
        tally.tests(&format!("models of the engine ({checker})"), &mut model_checker(checker, 1000));
    }
}

/// The engine's models under `checker`; those at random with so many schedules each.
pub fn model_checker(checker: &str, schedules: u32) -> Command {
    let args = ["test", "--quiet", "--package", "armlet-engine", "--lib", "--target-dir"];
    let mut c = run::command(&run::cargo(), args);
    c.arg(run::target().join(checker)).env("RUSTFLAGS", format!("--cfg {checker}"));
    c.env("SHUTTLE_ITERATIONS", schedules.to_string());
    c
}

/// Our own bare-metal programs: the demonstration, as it is in the tree and built anew, and the tests.
fn guests(tally: &mut Tally) -> Result<()> {
    let armlet = run::build_armlet()?;
    tally.check("demonstration guest, built in", || {
        guests::check_demo()?;
        guests::talk_to_demo(Command::new(&armlet).arg("run"))
    });
    tally.check("demonstration guest, built anew", || {
        guests::talk_to_demo(Command::new(&armlet).args(["run", "--kernel"]).arg(guests::build_demo()?))
    });
    for guest in guests::build_tests()? {
        tally.check(&format!("guest {}", guest.name), || guest.run(&mut guest.armlet(&armlet)));
    }
    Ok(())
}

/// Boots of real kernels, each with a short session in its shell.
fn boots(tally: &mut Tally) -> Result<()> {
    let armlet = run::build_armlet()?;
    for (version, smp) in [(Version::V6_12, 1), (Version::V6_12, 4)] {
        tally.check(&format!("boot of Linux {version:?} with {smp} CPUs"), || {
            let linux = Linux::prepare(version)?;
            let mut c = linux.command(&armlet, smp, "quiet shell");
            scripted(&mut c, smp, Duration::from_secs(120), false).map(|_| ())
        });
    }
    for signal in ["TERM", "INT", "HUP", "KILL"] {
        tally.check(&format!("the disk holds every flush after SIG{signal}"), || {
            drivers::killed(&Linux::prepare(Version::V6_12)?, &armlet, signal)
        });
    }
    tally.check("Linux's drivers for block and entropy devices", || {
        drivers::block_and_entropy(&Linux::prepare(Version::V6_12)?, &armlet)
    });
    for (version, smp) in [(Version::V6_12, 1), (Version::V6_12, 2), (Version::V6_1, 2)] {
        tally.check(&format!("a disk on PCI Express, Linux {version:?} with {smp} CPUs"), || {
            drivers::pci(&Linux::prepare(version)?, &armlet, smp)
        });
    }
    tally.check("Linux sees the same PCI function as with the peer", || {
        drivers::pci_as_peer(&Linux::prepare(Version::V6_12)?, &armlet)
    });
    tally.check("a shell on the virtio console", || {
        drivers::virtio_console(&Linux::prepare(Version::V6_12)?, &armlet)
    });
    Ok(())
}

/// `cargo deny` without its list of advisories, which would need the network at every run.
fn deny() -> Result<()> {
    let tool = cargo_deny()?;
    run::shown(&mut run::command(
        &tool.to_string_lossy(),
        ["--log-level", "error", "check", "bans", "licenses", "sources"],
    ))
}

/// The path of `cargo-deny`, built into the cache folder if the machine has none.
///
/// # Errors
/// It cannot be built.
pub fn cargo_deny() -> Result<PathBuf> {
    if host::has("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    let folder = cache::folder()?.join("tools/cargo-deny");
    cache::once(&folder, |partial| {
        run::say("building cargo-deny, once (a few minutes)");
        let target = partial.join("target");
        let mut c = run::command(&run::cargo(), ["install", "cargo-deny", "--locked", "--debug", "--quiet"]);
        c.arg("--root").arg(partial).env("CARGO_TARGET_DIR", &target);
        run::shown(&mut c)?;
        cache::remove(&target)
    })?;
    Ok(folder.join("bin/cargo-deny"))
}

/// Runs `c`, shows its output and adds up the lines in which test programs tell their results.
fn count(c: &mut Command) -> Result<(u64, u64, bool)> {
    let mut child =
        c.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{}`", run::line(c)))?;
    let (mut passed, mut failed) = (0, 0);
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        if let Some((p, f)) = result_line(&line) {
            passed += p;
            failed += f;
        }
        // Thousands of lines that end in "ok" hide the ones that matter.
        if !line.ends_with("... ok") && !line.is_empty() {
            println!("{line}");
        }
    }
    Ok((passed, failed, child.wait()?.success()))
}

/// Passed and failed in `test result: ok. 3 passed; 0 failed; …`.
pub fn result_line(line: &str) -> Option<(u64, u64)> {
    let mut parts = line.strip_prefix("test result: ")?.split_once(". ")?.1.split("; ");
    let mut number = |word: &str| parts.next()?.strip_suffix(word)?.trim().parse().ok();
    Some((number(" passed")?, number(" failed")?))
}

#[cfg(test)]
mod tests {
    use super::result_line;

    #[test]
    fn result_lines_are_added_up() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(line), Some((12, 3)));
        assert_eq!(result_line("test result: unknown"), None);
    }
}
