//! What single operations cost, as a bare-metal guest measures them: armlet's beside the peer's, as text and as a
//! chart.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::chart::{Bar, Chart};
use super::figures::median;
use super::peer::Peer;
use crate::session::{Session, last_lines};
use crate::{guests, run};

/// Runs of each.
const ROUNDS: usize = 5;
/// Longest run.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the results go.
const TABLE: &str = "docs/operations.txt";
const CHART: &str = "docs/operations.svg";

/// The guest's names, and what they mean. Those that begin with 2 need a second CPU.
const NAMES: &[(&str, &str)] = &[
    ("alu", "integer instruction"),
    ("call", "call and return"),
    ("indirect-call", "indirect call and return"),
    ("dispatch", "jump by a table, 16 ways at random"),
    ("ldar", "LDAR"),
    ("stlr", "STLR"),
    ("ldadd", "LDADDAL"),
    ("exclusive", "LDAXR, ADD, STLXR"),
    ("fadd", "FADD, double"),
    ("fmadd", "FMADD, double"),
    ("fmla", "FMLA, four singles"),
    ("fadd-flush", "FADD, flushing to zero"),
    ("fmla-flush", "FMLA, flushing to zero"),
    ("fcvtzs", "FCVTZS"),
    ("fcmp", "FCMP and CSET"),
    ("tbl", "TBL, one and two registers"),
    ("aes", "AESE and AESMC"),
    ("sha256", "SHA256H and SHA256H2"),
    ("crc32x", "CRC32X"),
    ("copy-64", "copy of 64 bytes"),
    ("copy-4096", "copy of 4 KiB"),
    ("tlb-miss", "load that misses the TLB"),
    ("cntvct", "read of the counter"),
    ("daif", "mask and unmask interrupts"),
    ("tlbi", "TLBI VAE1, DSB, load"),
    ("svc", "system call and return"),
    ("address-space", "switch of address space, load"),
    ("page-fault", "page fault and its repair"),
    ("timer", "timer interrupt"),
    ("timer-wake-up", "lateness of a timer in WFI"),
    ("2-ldadd", "LDADDAL, two CPUs"),
    ("2-exclusive", "LDAXR, ADD, STLXR, two CPUs"),
    ("2-stlr+ldar", "STLR and LDAR, two CPUs"),
    ("2-tlbi", "TLBI VAE1, DSB, load, two CPUs"),
    ("2-ipi", "interrupt to a sleeping CPU and back"),
    ("2-ipi-busy", "interrupt to a busy CPU and back"),
];

/// One contestant's times in nanoseconds, by operation, one per round.
struct Times(Vec<Vec<f64>>);

impl Times {
    fn new() -> Self {
        Self(vec![Vec::new(); NAMES.len()])
    }

    /// Takes what the guest wrote; its number of CPUs tells which operations must be there.
    fn read(&mut self, text: &str, cpus: u32) -> Result<()> {
        for (i, (name, _)) in NAMES.iter().enumerate() {
            if name.starts_with("2-") != (cpus == 2) {
                continue;
            }
            let line = text
                .lines()
                .find_map(|l| l.trim().strip_prefix("operation ")?.strip_prefix(name)?.strip_prefix(' '));
            let picoseconds: f64 =
                line.with_context(|| format!("no time for {name}:\n{}", last_lines(text)))?.parse()?;
            self.0[i].push(picoseconds / 1e3);
        }
        Ok(())
    }

    fn medians(&self) -> Vec<f64> {
        self.0.iter().map(|t| median(t)).collect()
    }
}

/// Measures, and writes the table and the chart; the table alone on standard output if there is no peer.
///
/// # Errors
/// The guest could not be built or run, or the results could not be written.
pub fn measure(armlet: &Path, peer: Option<&Peer>) -> Result<()> {
    let guest = guests::build_bench("operations")?;
    let (mut ours, mut theirs) = (Times::new(), Times::new());
    for round in 1..=ROUNDS {
        run::say(&format!("single operations, round {round} of {ROUNDS}"));
        for cpus in [1, 2] {
            let mut c = run::command(&armlet.to_string_lossy(), ["run", "--smp", &cpus.to_string()]);
            ours.read(&output(c.arg("--kernel").arg(&guest))?, cpus)?;
            if let Some(peer) = peer {
                theirs.read(&output(&mut peer.bare(&guest, &cpus.to_string()))?, cpus)?;
            }
        }
    }
    if peer.is_none() {
        for ((_, what), ns) in NAMES.iter().zip(ours.medians()) {
            println!("  {what:38}{:>10}", time(ns));
        }
        return Ok(());
    }
    let (ours, theirs) = (ours.medians(), theirs.medians());
    let table = table(&ours, &theirs);
    print!("\n{table}");
    fs::write(TABLE, table).with_context(|| format!("cannot write {TABLE}"))?;
    let bars = NAMES
        .iter()
        .zip(ours.iter().zip(&theirs))
        .map(|((_, what), (a, b))| Bar { name: what, values: [*b, *a] });
    let chart = Chart {
        title: "Time of single operations (logarithmic; less is better)",
        series: ["QEMU", "armlet"],
        bars: bars.collect(),
    };
    fs::write(CHART, chart.to_string()).with_context(|| format!("cannot write {CHART}"))
}

fn output(c: &mut Command) -> Result<String> {
    let (status, text) = Session::start(c, PATIENCE, false)?.finish()?;
    if !status.success() {
        bail!("`{}` ended with {status}:\n{}", run::line(c), last_lines(&text));
    }
    Ok(text)
}

fn table(ours: &[f64], theirs: &[f64]) -> String {
    let mut text = format!("{:40}{:>10}{:>10}{:>8}\n", "operation", "QEMU", "armlet", "ratio");
    for ((_, what), (a, b)) in NAMES.iter().zip(ours.iter().zip(theirs)) {
        let _ = writeln!(text, "{what:40}{:>10}{:>10}{:>8.1}", time(*b), time(*a), b / a);
    }
    text
}

/// Nanoseconds in the unit that suits them.
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 10.0 => format!("{ns:.2} ns"),
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e4 => format!("{:.1} µs", ns / 1e3),
        ns => format!("{:.0} µs", ns / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_is_found_by_its_whole_name() {
        let text = |two: bool| {
            let names = NAMES.iter().filter(|(name, _)| name.starts_with("2-") == two).enumerate();
            names.map(|(i, (name, _))| format!("operation {name} {}000\r\n", i + 1)).collect::<String>()
        };
        let mut times = Times::new();
        times.read(&text(false), 1).unwrap();
        times.read(&text(true), 2).unwrap();
        let at = |name: &str| times.medians()[NAMES.iter().position(|(n, _)| *n == name).unwrap()];
        let line = |name: &str| NAMES.iter().position(|(n, _)| *n == name).unwrap() as f64 + 1.0;
        assert_eq!((at("timer"), at("timer-wake-up")), (line("timer"), line("timer-wake-up")));
        assert_eq!((at("2-ldadd"), at("2-exclusive")), (1.0, 2.0));
        assert!(times.read("operation alu 1000\n", 1).is_err());
        assert!(times.read(&text(false).replace("alu 1000", "alu x"), 1).is_err());
    }

    #[test]
    fn times_have_three_digits_or_so() {
        assert_eq!([0.1234, 45.6, 1234.0, 56789.0].map(time), ["0.12 ns", "46 ns", "1.2 µs", "57 µs"]);
    }
}
