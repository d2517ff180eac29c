//! Runs of many cases: what to run, in batches on all of the host's cores, and what came of it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use armlet_arm::{Class, Enc};

use crate::explain::{self, Seen};
use crate::generate::{Plan, Reach};
use crate::program::Layout;
use crate::record::{self, Record};
use crate::spoil::Spoil;
use crate::{Case, Executor, interp, program, qemu};

/// What to run, and by whom.
#[derive(Clone, Debug)]
pub struct Run {
    /// Encodings and seed.
    pub plan: Plan,
    /// The CPU model.
    pub model: String,
    /// States for each encoding.
    pub states: u64,
    /// States for each encoding that no model has, and words that are allocated to nothing for each of those.
    pub absent: u64,
    /// Sequences.
    pub sequences: u64,
    /// Who is right.
    pub oracle: Executor,
    /// Who is tested.
    pub tested: Vec<Executor>,
    /// Changes what the tested executor runs, to see whether it is noticed.
    pub spoil: Option<Spoil>,
}

/// A difference that nothing explains.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The case.
    pub case: Case,
    /// Who ran it.
    pub tested: Executor,
    /// The oracle's state afterwards.
    pub want: Record,
    /// The tested executor's.
    pub got: Record,
}

/// Figures of one class of encodings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Encodings in the table.
    pub encodings: u64,
    /// Those that the model has.
    pub implemented: u64,
    /// Those of them that were run.
    pub run: u64,
    /// States run by each executor.
    pub states: u64,
    /// Unexplained differences.
    pub mismatches: u64,
    /// Explained differences.
    pub explained: u64,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By class.
    pub classes: BTreeMap<&'static str, Row>,
    /// Encodings that no model has, with the states that were run: UNDEFINED is right.
    pub absent: Row,
    /// Words that are allocated to nothing.
    pub unallocated: Row,
    /// Sequences.
    pub sequences: Row,
    /// Instructions that sequences executed.
    pub instructions: u64,
    /// Unexplained differences, in order of cases.
    pub mismatches: Vec<Mismatch>,
    /// How often each of [`explain::EXCEPTIONS`] explained a difference.
    pub explained: Vec<u64>,
    /// Encodings that should have been run and could not be.
    pub never: Vec<Enc>,
}

/// States per instruction.
const STATES_PER_WORD: u64 = 8;
/// States in one program, about.
const BATCH: usize = 6000;
/// Sequences in one program.
const SEQUENCES: u64 = 500;

/// A piece of work.
#[derive(Clone, Copy, Debug)]
enum Job {
    /// States of instructions `first .. end` of an encoding.
    Single {
        enc: Enc,
        first: u64,
        end: u64,
    },
    Absent {
        enc: Enc,
        count: u64,
    },
    Unallocated {
        first: u64,
        end: u64,
    },
    Sequences {
        first: u64,
        end: u64,
    },
}

/// Jobs that share a program, and what is right for them.
#[derive(Clone, Debug)]
struct Batch {
    jobs: Vec<Job>,
    oracle: Oracle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oracle {
    By(Executor),
    /// UNDEFINED, and nothing else happens.
    Undefined,
}

impl Run {
    /// Does all of it.
    ///
    /// # Errors
    /// An executor cannot be run.
    pub fn run(&self) -> Result<Report> {
        let batches = self.batches();
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        let worker = || loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(batch) = batches.get(n) else { break };
            let result = self.batch(batch);
            if result.is_err() {
                next.store(batches.len(), Ordering::Relaxed);
            }
            if let Ok(mut done) = done.lock() {
                done.push((n, result));
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(batches.len().max(1));
        // The workers block on the oracle's process only.
        thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(worker))));
        let mut done = done.into_inner().map_err(|_| anyhow!("a worker ended in a panic"))?;
        done.sort_by_key(|(n, _)| *n);
        let mut report = self.empty();
        for (_, part) in done {
            report.add(part?);
        }
        report.never = self.never(&report);
        Ok(report)
    }

    fn empty(&self) -> Report {
        let mut report = Report { explained: vec![0; explain::EXCEPTIONS.len()], ..Report::default() };
        for &enc in &self.plan.encodings {
            let row = report.classes.entry(enc.class().name()).or_default();
            row.encodings += 1;
            row.implemented += u64::from(self.plan.reach(enc) != Reach::Absent);
        }
        report
    }

    /// All work, in an order that depends on nothing but the options.
    fn batches(&self) -> Vec<Batch> {
        let mut out = Vec::new();
        for (reach, oracle) in [
            (Reach::User, Oracle::By(self.oracle)),
            (Reach::Jit, Oracle::By(self.oracle)),
            (Reach::Own, Oracle::By(Executor::Interpreter)),
        ] {
            let list = self.plan.encodings.iter().copied().filter(|&e| self.plan.reach(e) == reach);
            let words = self.states.div_ceil(STATES_PER_WORD);
            out.extend(pack(
                list.map(|enc| (Job::Single { enc, first: 0, end: words }, self.states)),
                oracle,
            ));
        }
        let absent = self.plan.encodings.iter().copied().filter(|&e| self.plan.reach(e) == Reach::Absent);
        let absent = absent.map(|enc| (Job::Absent { enc, count: self.absent }, self.absent));
        out.extend(pack(absent, Oracle::Undefined));
        let piece = |size: u64, total: u64| {
            (0..total.div_ceil(size)).map(move |i| (i * size, total.min((i + 1) * size)))
        };
        let unallocated = if self.plan.encodings.len() == Enc::all().len() { 64 * self.absent } else { 0 };
        for (first, end) in piece(2000, unallocated) {
            let jobs = vec![Job::Unallocated { first, end }];
            out.push(Batch { jobs, oracle: Oracle::Undefined });
        }
        for (first, end) in piece(SEQUENCES, self.sequences) {
            let jobs = vec![Job::Sequences { first, end }];
            out.push(Batch { jobs, oracle: Oracle::By(self.oracle) });
        }
        out
    }

    /// The cases of a batch, each with its job's number.
    fn cases(&self, batch: &Batch) -> Vec<Case> {
        let mut layout = Layout::default();
        let mut out = Vec::new();
        let in_sequences = if batch.jobs.iter().any(|j| matches!(j, Job::Sequences { .. })) {
            self.plan.for_sequences()
        } else {
            vec![]
        };
        for job in &batch.jobs {
            match *job {
                Job::Single { enc, first, end } => {
                    for word in first..end {
                        let states = (self.states - word * STATES_PER_WORD).min(STATES_PER_WORD);
                        out.extend(self.plan.cases(enc, word, states, &mut layout));
                    }
                }
                Job::Absent { enc, count } => {
                    for word in 0..count {
                        out.extend(self.plan.cases(enc, word, 1, &mut layout));
                    }
                }
                Job::Unallocated { first, end } => {
                    out.extend((first..end).flat_map(|n| self.plan.unallocated(n, &mut layout)));
                }
                Job::Sequences { first, end } if !in_sequences.is_empty() => {
                    out.extend(
                        (first..end).filter_map(|n| self.plan.sequence(&in_sequences, n, &mut layout)),
                    );
                }
                Job::Sequences { .. } => {}
            }
        }
        out
    }

    fn batch(&self, batch: &Batch) -> Result<Report> {
        let cases = self.cases(batch);
        let mut report = self.empty();
        report.classes.values_mut().for_each(|row| *row = Row::default());
        if cases.is_empty() {
            return Ok(report);
        }
        let code = program::code(&self.plan.features, &cases);
        let (by, want) = match batch.oracle {
            Oracle::By(by) => (by, self.execute(by, &cases, &code, &mut report)?),
            Oracle::Undefined => (Executor::Qemu, cases.iter().map(undefined).collect()),
        };
        let mut seen = std::collections::BTreeSet::new();
        for case in &cases {
            let row = report.row(batch, case);
            row.states += 1;
            row.run += u64::from(seen.insert(case.enc));
        }
        let able = |t: Executor| t != Executor::Interpreter || self.plan.reach(cases[0].enc) != Reach::Jit;
        for &tested in self.tested.iter().filter(|&&t| t != by && able(t)) {
            let got = self.execute(tested, &cases, &code, &mut report)?;
            for ((case, want), got) in cases.iter().zip(&want).zip(&got) {
                if want.is_same(got) {
                    continue;
                }
                let explained = explain::explain(&Seen { case, oracle: by, tested, want, got });
                let row = report.row(batch, case);
                if let Some(n) = explained {
                    row.explained += 1;
                    report.explained[n] += 1;
                } else {
                    row.mismatches += 1;
                    let (want, got) = (want.clone(), got.clone());
                    report.mismatches.push(Mismatch { case: case.clone(), tested, want, got });
                }
            }
        }
        Ok(report)
    }

    fn execute(&self, by: Executor, cases: &[Case], code: &[u8], report: &mut Report) -> Result<Vec<Record>> {
        match by {
            Executor::Qemu => qemu::execute(&self.model, &self.plan.features, cases, code),
            #[cfg(target_arch = "x86_64")]
            Executor::Jit | Executor::JitAvx2 => match self.spoil {
                None => crate::jit::execute(&self.model, cases, code, by == Executor::Jit),
                Some(spoil) => crate::jit::execute_mistaken(&self.model, cases, code, spoil.into()),
            },
            #[cfg(not(target_arch = "x86_64"))]
            Executor::Jit | Executor::JitAvx2 => anyhow::bail!("this host has no translator"),
            Executor::Interpreter => {
                let mut out = Vec::new();
                let lift = self.spoil.and_then(Spoil::lift);
                for case in cases {
                    let outcome = interp::execute(&self.plan.features, case, code, lift);
                    if case.body.len() >= 10 {
                        report.instructions += outcome.steps;
                    }
                    out.push(outcome.record);
                }
                Ok(out)
            }
        }
    }

    /// The states that all executors come to, for the shrinker: the oracle's first.
    ///
    /// # Errors
    /// An executor cannot be run.
    pub fn pair(&self, tested: Executor, cases: &[Case]) -> Result<(Vec<Record>, Vec<Record>)> {
        let code = program::code(&self.plan.features, cases);
        let absent = cases.first().is_some_and(|c| {
            c.body.len() == 1
                && armlet_arm::decode(c.body[0]).is_none_or(|e| self.plan.reach(e) == Reach::Absent)
        });
        let own = cases.first().is_some_and(|c| self.plan.reach(c.enc) == Reach::Own);
        let mut report = self.empty();
        let want = match (absent, own) {
            (true, _) => cases.iter().map(undefined).collect(),
            (_, true) => self.execute(Executor::Interpreter, cases, &code, &mut report)?,
            _ => self.execute(self.oracle, cases, &code, &mut report)?,
        };
        Ok((want, self.execute(tested, cases, &code, &mut report)?))
    }

    /// Encodings that a program can run and that have not been run.
    fn never(&self, report: &Report) -> Vec<Enc> {
        let mut classes: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, row) in &report.classes {
            classes.insert(name, row.run);
        }
        let mut layout = Layout::default();
        let list = self.plan.encodings.iter().copied();
        list.filter(|&e| matches!(self.plan.reach(e), Reach::User | Reach::Jit | Reach::Own))
            .filter(|e| {
                let all = self.plan.encodings.iter().filter(|o| {
                    o.class() == e.class()
                        && matches!(self.plan.reach(**o), Reach::User | Reach::Jit | Reach::Own)
                });
                classes.get(e.class().name()).is_none_or(|&run| run < all.count() as u64)
            })
            .filter(|&e| self.states > 0 && self.plan.cases(e, 0, 1, &mut layout).is_empty())
            .collect()
    }
}

/// What an instruction that is UNDEFINED leaves.
fn undefined(case: &Case) -> Record {
    Record { status: record::SIGILL, pc: case.place.code, ..case.record.clone() }
}

/// Jobs of so many states each, together in batches.
fn pack(jobs: impl Iterator<Item = (Job, u64)>, oracle: Oracle) -> Vec<Batch> {
    let mut out: Vec<Batch> = Vec::new();
    let mut size = usize::MAX;
    for (job, states) in jobs {
        if size.saturating_add(states as usize) > BATCH {
            out.push(Batch { jobs: Vec::new(), oracle });
            size = 0;
        }
        size += states as usize;
        if let Some(batch) = out.last_mut() {
            batch.jobs.push(job);
        }
    }
    out
}

impl Report {
    fn row(&mut self, batch: &Batch, case: &Case) -> &mut Row {
        match batch.jobs.first() {
            Some(Job::Absent { .. }) => &mut self.absent,
            Some(Job::Unallocated { .. }) => &mut self.unallocated,
            Some(Job::Sequences { .. }) => &mut self.sequences,
            _ => self.classes.entry(case.enc.class().name()).or_default(),
        }
    }

    fn add(&mut self, other: Self) {
        for (name, row) in other.classes {
            self.classes.entry(name).or_default().add(row);
        }
        self.absent.add(other.absent);
        self.unallocated.add(other.unallocated);
        self.sequences.add(other.sequences);
        self.instructions += other.instructions;
        self.mismatches.extend(other.mismatches);
        for (sum, n) in self.explained.iter_mut().zip(other.explained) {
            *sum += n;
        }
    }

    /// All rows of single instructions together.
    pub fn total(&self) -> Row {
        let mut total = Row::default();
        self.classes.values().for_each(|row| total.add(*row));
        total
    }
}

impl Row {
    fn add(&mut self, other: Self) {
        self.encodings += other.encodings;
        self.implemented += other.implemented;
        self.run += other.run;
        self.states += other.states;
        self.mismatches += other.mismatches;
        self.explained += other.explained;
    }
}

/// True for the classes that only scalable vectors and matrices have.
pub fn is_scalable(class: Class) -> bool {
    matches!(class, Class::Sve | Class::Sme)
}
