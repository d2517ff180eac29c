//! Figures that armlet promises in SPECIFICATION.md and that need no peer.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::figures::median;
use super::to_the_end;
use crate::boot::{Linux, PROMPT};
use crate::session::Session;
use crate::{cache, guests, run};

/// A measured figure beside the promised one.
pub struct Promise {
    what: String,
    measured: f64,
    limit: f64,
    at_most: bool,
}

impl Promise {
    /// Less is better.
    pub fn at_most(what: &str, measured: f64, limit: f64) -> Self {
        Self { what: what.into(), measured, limit, at_most: true }
    }

    /// More is better.
    pub fn at_least(what: &str, measured: f64, limit: f64) -> Self {
        Self { what: what.into(), measured, limit, at_most: false }
    }

    /// True if the measured figure is as good as promised.
    pub fn kept(&self) -> bool {
        if self.at_most { self.measured <= self.limit } else { self.measured >= self.limit }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.kept() { "kept  " } else { "MISSED" };
        let sign = if self.at_most { "at most" } else { "at least" };
        write!(f, "{mark} {:44} {:8.2}, promised {sign} {}", self.what, self.measured, self.limit)
    }
}

/// Measures them all.
///
/// # Errors
/// A guest could not be run.
pub fn single(armlet: &Path, linux: &Linux) -> Result<Vec<Promise>> {
    let mut promises = vec![start(armlet)?];
    promises.extend(at_the_prompt(armlet, linux)?);
    promises.push(translation(armlet, linux)?);
    Ok(promises)
}

/// Start of the process to its end, for a guest whose first act is to end: an upper bound of the time to the
/// first guest instruction.
fn start(armlet: &Path) -> Result<Promise> {
    run::say("start-up time");
    let tests = guests::build_tests()?;
    let guest = tests.iter().find(|g| g.name == "semihosting").context("the guest is gone")?;
    let mut times = Vec::new();
    for _ in 0..15 {
        let begin = Instant::now();
        guest.run(&mut guest.armlet(armlet))?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Promise::at_most("start, run a tiny guest, end: ms", median(&times), 20.0))
}

/// Processor time and memory of a guest that waits at its prompt.
fn at_the_prompt(armlet: &Path, linux: &Linux) -> Result<[Promise; 2]> {
    const SECONDS: f64 = 8.0;
    run::say("an idle guest");
    let mut s =
        Session::start(&mut linux.command(armlet, 1, "quiet shell"), Duration::from_secs(120), false)?;
    s.wait_for(PROMPT)?;
    s.quiet_for(Duration::from_secs(2))?;
    let before = cpu_seconds(s.process())?;
    s.quiet_for(Duration::from_secs_f64(SECONDS))?;
    let busy = (cpu_seconds(s.process())? - before) / SECONDS * 100.0;
    let memory = own_memory(s.process())?;
    s.send_line("poweroff -f")?;
    s.finish()?;
    Ok([
        Promise::at_most("idle guest, share of a host core: %", busy, 2.0),
        Promise::at_most("memory beyond the guest's RAM after boot: MiB", memory, 100.0),
    ])
}

/// Processor time that the process has used, in seconds (proc_pid_stat(5), utime and stime in 1/100 s).
fn cpu_seconds(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = text.rsplit_once(") ").context("cannot read /proc/PID/stat")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>();
    Ok(ticks / 100.0)
}

/// Memory of the process in MiB, without the guest's RAM (proc_pid_smaps(5)).
fn own_memory(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps"))?;
    let (mut kib, mut ram) = (0.0, false);
    for line in text.lines() {
        let value = |key| {
            let rest = line.strip_prefix(key)?;
            rest.trim().trim_end_matches(" kB").parse::<f64>().ok()
        };
        if let Some(size) = value("Size:") {
            ram = size >= GUEST_RAM;
        } else if let Some(pss) = value("Pss:") {
            kib += if ram { 0.0 } else { pss };
        }
    }
    Ok(kib / 1024.0)
}

/// Mappings from so many KiB on are the guest's RAM: there are no others that large.
const GUEST_RAM: f64 = 262_144.0;

/// Time to translate a guest instruction, over boots of Linux, from armlet's own counters.
fn translation(armlet: &Path, linux: &Linux) -> Result<Promise> {
    run::say("translation time");
    let mut times = Vec::new();
    for _ in 0..7 {
        let stats = cache::folder()?.join("stats.json");
        let mut c: Command = linux.command(armlet, 1, "quiet");
        c.arg("--stats").arg(&stats);
        to_the_end(&mut c, Duration::from_secs(120), "armlet-init: user space")?;
        let text = fs::read_to_string(&stats).context("armlet wrote no counters")?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let count = |key| find(&json, key).filter(|n| *n > 0.0).with_context(|| format!("no counter {key}"));
        times.push(count("translation_ns")? / count("instructions_translated")? / 1e3);
    }
    Ok(Promise::at_most("translation of a guest instruction: µs", median(&times), 0.5))
}

/// Sum of the numbers that stand under `key` anywhere in `json`.
fn find(json: &serde_json::Value, key: &str) -> Option<f64> {
    match json {
        serde_json::Value::Object(map) => {
            let inner = map.values().filter_map(|v| find(v, key));
            map.get(key).and_then(serde_json::Value::as_f64).into_iter().chain(inner).reduce(|a, b| a + b)
        }
        serde_json::Value::Array(list) => list.iter().filter_map(|v| find(v, key)).reduce(|a, b| a + b),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_and_added_wherever_they_stand() {
        let json = serde_json::json!({"vcpus": [{"jit": {"n": 2}}, {"jit": {"n": 3}}], "other": 1});
        assert_eq!(find(&json, "n"), Some(5.0));
        assert_eq!(find(&json, "absent"), None);
    }

    #[test]
    fn promises_know_their_direction() {
        assert!(Promise::at_most("", 1.0, 2.0).kept() && !Promise::at_most("", 3.0, 2.0).kept());
        assert!(Promise::at_least("", 3.0, 2.0).kept() && !Promise::at_least("", 1.0, 2.0).kept());
    }
}
