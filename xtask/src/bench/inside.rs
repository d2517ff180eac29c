//! Debian's own gdb and perf inside a Debian guest: the guest's debug architecture, seen by those that it is for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::disk::Disk;
use super::peer::Peer;
use super::{Run, to_the_end};
use crate::boot::{Linux, complaints};
use crate::kernel::Version;
use crate::{host, run};

const DISK: Disk = Disk {
    name: "debug-disk",
    packages: &["?essential", "mawk", "mount", "gdb", "linux-perf", "libc6-dev"],
    scripts: "guests/linux/debug",
    size: "700M",
};
/// CPUs and CPU models.
const MACHINES: [(u32, &str); 2] = [(1, "neoverse-n1"), (4, "max")];
/// Checks in `guests/linux/debug/debug`.
const CHECKS: usize = 16;

/// Breakpoints, watchpoints, steps, threads; counters, probes, a profile.
///
/// # Errors
/// One of them is not as it should be.
pub fn debuggers(kernel: Version, reference: bool) -> Result<()> {
    host::ensure(host::TEST)?;
    let (linux, disk) = (Linux::prepare(kernel)?, DISK.prepare(compile)?);
    let peer = if reference { Some(Peer::prepare()?) } else { None };
    let armlet = run::build_armlet()?;
    for (smp, cpu) in MACHINES {
        let r = Run { linux: &linux, disk: Some(&disk), smp, cpu, words: "quiet bench=debug" };
        let mut c = match &peer {
            Some(peer) => peer.command(&r),
            None => r.armlet(&armlet),
        };
        let text = to_the_end(&mut c, Duration::from_secs(3600), "DEBUG-END")
            .and_then(|text| complaints(&text).map(|()| text))
            .with_context(|| format!("gdb and perf, --smp {smp} --cpu {cpu}"))?;
        let good = text.lines().filter(|l| l.starts_with("DEBUG ok ")).count();
        println!("gdb and perf, --smp {smp} --cpu {cpu}: {good} of {CHECKS} checks went well");
        if good != CHECKS {
            bail!("{text}");
        }
    }
    Ok(())
}

/// Compiles the program that is debugged with the guest's own C library, and lists its symbols.
fn compile(tree: &Path) -> Result<()> {
    let folder = tree.join("bench");
    let mut gcc =
        run::command("aarch64-linux-gnu-gcc", ["-O1", "-g", "-no-pie", "-pthread", "-Wall", "-Wextra"]);
    gcc.arg(format!("--sysroot={}", tree.display())).arg(format!("-fdebug-prefix-map={}=", tree.display()));
    // Return addresses are signed where the CPU model can do that.
    gcc.args(["-mbranch-protection=standard", "-o", "program"]).arg(folder.join("program.c"));
    run::quiet(gcc.current_dir(&folder))?;
    let mut nm = run::command("aarch64-linux-gnu-nm", ["program"]);
    Ok(std::fs::write(folder.join("symbols"), run::quiet(nm.current_dir(&folder))?)?)
}
