//! Profiles of Linux: the symbols that its images carry are those that it tells itself, and a boot is told by them.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use armlet_profile::Symbols;

use crate::boot::Linux;
use crate::kernel::Version;
use crate::session::Session;
use crate::{cache, run};

/// Kernels have more functions than this.
const LEAST: usize = 20_000;

/// Runs the command.
///
/// # Errors
/// What is not as it should be.
pub fn main() -> Result<()> {
    let armlet = run::build_armlet()?;
    for version in Version::ALL {
        symbols(&armlet, version).with_context(|| format!("Linux {version:?}"))?;
    }
    boot(&armlet)?;
    run::say("kernels' symbols are found, and a boot is told by them");
    Ok(())
}

/// Every function that the kernel tells of is found in its image, at its address and under one of its names there.
///
/// # Errors
/// Which are not.
pub fn symbols(armlet: &Path, version: Version) -> Result<()> {
    let linux = Linux::prepare(version)?;
    let map = std::fs::read_to_string(linux.map(armlet)?)?;
    let found = Symbols::of_linux(&std::fs::read(&linux.image)?);
    let mut told: HashMap<u64, HashSet<&str>> = HashMap::new();
    for line in map.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [address, kind, name] = words.as_slice()
            && ["T", "t", "W", "w"].contains(kind)
            && !name.starts_with(['$', '.'])
        {
            told.entry(u64::from_str_radix(address, 16)?).or_default().insert(name);
        }
    }
    // Images that have not run yet may not know where they will be.
    let text = |address: Option<u64>| address.context("there is no _stext");
    let linked = told.iter().find(|(_, names)| names.contains("_stext")).map(|(address, _)| *address);
    let base = text(linked)?.wrapping_sub(text(found.address_of("_stext"))?);
    let wrong: Vec<String> = told
        .iter()
        .filter(|(address, names)| {
            let own = address.wrapping_sub(base);
            !found.find(own).is_some_and(|s| s.address == own && names.contains(s.name.as_str()))
        })
        .map(|(address, names)| format!("{address:x} {names:?} {:?}", found.find(address.wrapping_sub(base))))
        .collect();
    if !wrong.is_empty() || told.len() < LEAST {
        let first = wrong.first().map_or("", String::as_str);
        bail!("{} of {} functions are not found, such as {first}", wrong.len(), told.len());
    }
    Ok(())
}

/// A boot's profile names the kernel's functions, with their callers.
///
/// # Errors
/// What it does not tell.
pub fn boot(armlet: &Path) -> Result<()> {
    let linux = Linux::prepare(Version::V6_12)?;
    let folder = cache::folder()?.join("profile");
    cache::remove(&folder)?;
    std::fs::create_dir_all(&folder)?;
    let folded = folder.join("boot.folded");
    let mut c = linux.command(armlet, 2, "quiet");
    c.arg("--profile").arg(&folded);
    let (status, _) = Session::start(&mut c, Duration::from_secs(120), false)?.finish()?;
    if !status.success() {
        bail!("armlet ended with {status}");
    }
    let stacks = std::fs::read_to_string(&folded)?;
    let periods = |line: &str| line.rsplit_once(' ').and_then(|(_, n)| n.parse::<u64>().ok());
    let (mut all, mut named) = (0, 0);
    for line in stacks.lines().filter(|line| line.starts_with("EL1;")) {
        let periods = periods(line).with_context(|| format!("no number: {line}"))?;
        all += periods;
        named += if line.contains(";0x") { 0 } else { periods };
    }
    // Code before the MMU is on and code of modules has no names.
    if all == 0 || named * 10 < all * 8 {
        bail!("{named} of {all} periods have names for all callers:\n{stacks}");
    }
    for callers in ["start_kernel;", "ret_from_fork;kernel_init;kernel_init_freeable;do_one_initcall;"] {
        if !stacks.contains(callers) {
            bail!("nothing is called by {callers}");
        }
    }
    let graph = std::fs::read_to_string(folded.with_extension("svg"))?;
    let table = std::fs::read_to_string(folded.with_extension("txt"))?;
    if !graph.contains("<title>start_kernel: ") || !table.contains("  do_one_initcall\n") {
        bail!("the graph or the table lacks functions:\n{table}");
    }
    cache::remove(&folder)
}
