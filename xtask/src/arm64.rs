//! `cargo xtask test-arm64`: the tests of all crates, built for arm64 hosts, on one that the peer emulates.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build::{Arch, Built, Target};
use crate::host;
use crate::kvm::{Host, Plan};
use crate::run;
use crate::suite::result_line;

/// Tests that the emulated host cannot do, and why.
const CANNOT: [(&str, &str); 3] = [
    ("an_image_that_another_process_uses_is_refused_by_its_name", "needs flock of util-linux"),
    ("locks_on_single_bytes_count_as_well", "needs perl"),
    (
        "bug_idle_guests_in_wfe_burn_a_host_core",
        "measures processor time, which is dear where all is emulated",
    ),
];

/// What `cargo xtask test-kvm` runs there.
const ELSEWHERE: [&str; 2] = ["accel-kvm/exits", "accel-kvm/conformance"];

/// What to test.
#[derive(Args)]
pub struct Options {
    /// Only test programs whose names have this in them
    #[arg(long, default_value = "")]
    only: String,
    /// Show what the emulated host writes
    #[arg(long)]
    verbose: bool,
}

/// Runs the command.
///
/// # Errors
/// Something cannot be built, or a test fails there.
pub fn main(o: &Options) -> Result<()> {
    host::ensure(host::BOOT)?;
    run::say("building all tests for arm64");
    let target = Target::prepare(Arch::Arm64, true)?;
    let built = target.build_tests(&["--workspace"])?;
    let disk = run::target().join("arm64.tar");
    pack(&target, &built, &disk)?;
    let plan = Plan { disks: vec![("tests", disk)], ..Plan::default() };
    let mut host = Host::start(&plan, o.verbose)?;
    host.ask("tar xf /dev/tests -C /", 0)?;
    let (mut passed, mut wrong) = (0, Vec::new());
    for test in built.iter().filter(|built| built.is_test) {
        let name = test.name();
        if !name.contains(&o.only) || ELSEWHERE.contains(&&*name) {
            continue;
        }
        let told = test.run(&mut host).with_context(|| name.clone())?;
        let results: Vec<_> = told.lines().filter_map(|line| result_line(line.trim_end())).collect();
        let (well, ill) = results.iter().fold((0, 0), |(p, f), result| (p + result.0, f + result.1));
        println!("{name}: {well} passed, {ill} failed");
        passed += well;
        if results.is_empty() || ill > 0 {
            println!("{told}");
            wrong.push(name);
        }
    }
    for (test, why) in CANNOT {
        println!("left out: {test} ({why})");
    }
    println!("{passed} passed; programs with failures: {}", wrong.len());
    if wrong.is_empty() { Ok(()) } else { bail!("not everything passed for arm64: {}", wrong.join(", ")) }
}

/// Compiles every crate with its tests for arm64, without making programs of them.
///
/// # Errors
/// Something does not compile.
pub fn check() -> Result<()> {
    let target = Target::prepare(Arch::Arm64, true)?;
    run::shown(target.cargo("check").args(["--workspace", "--all-targets"]).env("RUSTFLAGS", "-D warnings"))
}

/// Writes a disk with the tree and the programs, each where it is here: tests know their files by whole paths.
fn pack(target: &Target, built: &[Built], disk: &Path) -> Result<()> {
    let staged = run::target().join("arm64");
    let _ = fs::remove_dir_all(&staged);
    let place = |path: &Path| staged.join(path.strip_prefix("/").unwrap_or(path));
    fs::create_dir_all(place(&target.temporary()))?;
    for Built { program, .. } in built {
        let to = place(program);
        fs::create_dir_all(to.parent().context("a program without a folder")?)?;
        run::quiet(Command::new("aarch64-linux-gnu-strip").arg("-o").arg(&to).arg(program))?;
    }
    let root = run::root();
    let mut c = Command::new("tar");
    c.args(["--exclude=target", "--exclude=.git", "-C", "/", "-cf"]).arg(disk);
    run::quiet(c.arg(root.strip_prefix("/").unwrap_or(&root)))?;
    run::quiet(Command::new("tar").arg("-C").arg(&staged).arg("-rf").arg(disk).arg("."))?;
    fs::remove_dir_all(&staged)?;
    Ok(())
}

impl Built {
    /// Of the package and the program, without the number that only cargo knows.
    fn name(&self) -> String {
        let part = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let program = part(&self.program);
        format!("{}/{}", part(&self.folder), program.rsplit_once('-').map_or(&*program, |(name, _)| name))
    }

    fn run(&self, host: &mut Host) -> Result<String> {
        let (folder, program) = (self.folder.display(), self.program.display());
        let skipped: String = CANNOT.iter().map(|(test, _)| format!(" --skip {test}")).collect();
        // There is no qemu-user, with which all is compared where it is translated. Results tell what the status would.
        let settings = format!("CARGO_MANIFEST_DIR={folder} ARMLET_SKIP_QEMU_USER=1");
        host.ask(&format!("cd {folder}; {settings} {program} -q{skipped} 2>&1; true"), 0)
    }
}
