//! How Linux sees the CPUs arranged that `--smp` arranges.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::boot::{self, Linux, PROMPT};
use crate::kernel::Version;
use crate::session::Session;

/// Two of each: every level of the affinity is used.
const SMP: &str = "cpus=16,sockets=2,clusters=2,cores=2,threads=2";

/// What Linux tells of CPU 13, which is thread 1 of core 0 of cluster 1 of socket 1.
const TOLD: &[(&str, &str)] = &[
    ("topology/physical_package_id", "1"),
    ("topology/package_cpus_list", "8-15"),
    ("topology/cluster_cpus_list", "12-15"),
    ("topology/thread_siblings_list", "12-13"),
    ("cache/index0/type", "Data"),
    ("cache/index0/size", "64K"),
    ("cache/index1/type", "Instruction"),
    ("cache/index2/size", "1024K"),
    ("cache/index2/shared_cpu_list", "12-15"),
    ("cache/index2/ways_of_associativity", "8"),
];

/// Debian's kernel with 16 CPUs, asked for their arrangement.
///
/// # Errors
/// It is not the one that was given.
pub fn linux(armlet: &Path) -> Result<()> {
    let linux = Linux::prepare(Version::V6_12)?;
    let mut s =
        Session::start(&mut linux.command(armlet, SMP, "quiet shell"), Duration::from_secs(180), false)?;
    s.wait_for(PROMPT).context("no shell prompt")?;
    boot::ask(&mut s, "cat /sys/devices/system/cpu/online", "0-15")?;
    for (file, expected) in TOLD {
        let line = format!("echo \"=$(cat /sys/devices/system/cpu/cpu13/{file})=\"");
        boot::ask(&mut s, &line, &format!("={expected}="))?;
    }
    s.send_line("poweroff -f")?;
    let (status, transcript) = s.finish()?;
    if status.code() != Some(0) {
        bail!("armlet ended with {status}");
    }
    boot::complaints(&transcript)
}
