//! Results of the workload: reading, medians, tables.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};

/// Measurements that tell about the same thing.
pub struct Group {
    /// Its name.
    pub title: &'static str,
    /// The promised speed, times the peer's.
    pub least: f64,
    /// Names of its measurements, as the workload prints them.
    pub names: &'static [&'static str],
}

/// All measurements, grouped.
pub const GROUPS: &[Group] = &[
    Group {
        title: "integer",
        least: 2.0,
        names: &[
            "python3",
            "sqlite",
            "gcc-compile",
            "cpu-int64",
            "cpu-collatz",
            "cpu-crc16",
            "str",
            "bsearch",
        ],
    },
    Group {
        title: "floating point, SIMD, crypto",
        least: 8.0,
        names: &["cpu-double", "cpu-matrixprod", "matrix", "sha256", "aes-gcm"],
    },
    Group {
        title: "system",
        least: 6.0,
        names: &["context", "fork", "pipe", "fault", "syscall", "fork-exec"],
    },
];

/// Speeds by name: operations a second, or runs a second; more is better. One per round.
#[derive(Default)]
pub struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    /// Takes the `RESULT` lines of one round.
    ///
    /// # Errors
    /// A measured program failed, or there is no result at all.
    pub fn read(&mut self, text: &str) -> Result<()> {
        let (mut any, mut failed) = (false, Vec::new());
        for line in text.lines().filter(|l| l.starts_with("RESULT ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, name, value, better, status] = words[..] else {
                bail!("cannot read the line {line:?}");
            };
            let value: f64 = value.parse()?;
            if status != "0" || value <= 0.0 {
                failed.push(line);
                continue;
            }
            let speed = if better == "higher" { value } else { 1.0 / value };
            self.0.entry(name.to_owned()).or_default().push(speed);
            any = true;
        }
        if !failed.is_empty() {
            bail!("measured programs failed:\n{}", failed.join("\n"));
        }
        if any { Ok(()) } else { bail!("no results") }
    }

    /// The median speed.
    fn speed(&self, name: &str) -> Option<f64> {
        self.0.get(name).map(|v| median(v))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.keys().try_for_each(|n| writeln!(f, "  {n:16} {:14.4}", self.speed(n).unwrap_or_default()))
    }
}

/// The median; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// One contestant's speeds against another's.
pub struct Table<'a> {
    /// The one that counts as 1.
    pub base: &'a Figures,
    /// The other.
    pub other: &'a Figures,
    /// What is listed.
    pub groups: &'a [Group],
}

impl Table<'_> {
    fn ratio(&self, name: &str) -> Option<f64> {
        Some(self.other.speed(name)? / self.base.speed(name)?)
    }

    /// Geometric mean of the ratios that there are.
    pub fn geometric_mean(&self, names: &[&str]) -> Option<f64> {
        let ratios: Vec<f64> = names.iter().filter_map(|n| self.ratio(n)).collect();
        let sum: f64 = ratios.iter().map(|r| r.ln()).sum();
        (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:18}{:>14}{:>14}{:>10}", "speed", "peer", "armlet", "ratio")?;
        for group in self.groups {
            let Some(mean) = self.geometric_mean(group.names) else { continue };
            for name in group.names {
                if let (Some(a), Some(b)) = (self.base.speed(name), self.other.speed(name)) {
                    writeln!(f, "  {name:16}{a:14.4}{b:14.4}{:10.2}", b / a)?;
                }
            }
            writeln!(f, "= {:44}{mean:10.2}", group.title)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_become_medians_and_ratios_in_which_more_is_better() {
        let (mut a, mut b) = (Figures::default(), Figures::default());
        for value in ["3.0", "1.0", "2.0"] {
            a.read(&format!("noise\r\nRESULT python3 {value} lower 0\r\nRESULT str 10 higher 0\r\n"))
                .unwrap();
        }
        b.read("RESULT python3 0.5 lower 0\nRESULT str 10 higher 0").unwrap();
        let t = Table { base: &a, other: &b, groups: GROUPS };
        assert!((t.ratio("python3").unwrap() - 4.0).abs() < 1e-9);
        assert!((t.geometric_mean(&["python3", "str", "absent"]).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(t.geometric_mean(&["absent"]), None);
        assert!(Figures::default().read("RESULT python3 1.0 lower 1").is_err());
        assert!(Figures::default().read("nothing").is_err());
    }
}
