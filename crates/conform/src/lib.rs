//! Differential tests of instruction semantics: random instructions on random and adversarial state, executed by
//! an independent implementation (qemu-user) and by armlet's lifts, compared register by register.
//!
//! Where qemu-user is known to be wrong: FABS (vector) and FNEG (vector) change the sign of a NaN with FPCR.AH set, where
//! `FPAbs` and `FPNeg` (Arm ARM J1.3, `shared/functions/float`) leave it alone, as the scalar forms do.

pub mod asm;
pub mod generate;
pub mod interp;
pub mod jit;
pub mod program;
pub mod qemu;
pub mod random;
pub mod record;

use anyhow::Result;
use armlet_arm::{Enc, FeatureSet};

use generate::Plan;
use record::Record;

/// One test case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its number in the run; with the seed it determines everything.
    pub number: u64,
    /// The encoding under test.
    pub enc: Enc,
    /// The instructions; the one under test is the last.
    pub body: Vec<u32>,
    /// The state before.
    pub record: Record,
}

/// A difference between the two executors.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The case's number.
    pub number: u64,
    /// The encoding under test.
    pub enc: Enc,
    /// One line: instruction, differences (oracle/armlet), inputs.
    pub text: String,
}

/// Cases per test program.
const BATCH: usize = 2000;

/// The features of a CPU model.
///
/// # Errors
/// No such model.
pub fn features(model: &str) -> Result<FeatureSet> {
    Ok(*armlet_arm::model::CpuModel::by_name(model)?.features())
}

/// Who runs the cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// qemu-user, the independent implementation.
    Qemu,
    /// Lifts, run by the IR interpreter.
    Interpreter,
    /// Lifts, run as host code.
    Jit,
}

/// What to compare.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What is right.
    pub oracle: Executor,
    /// What is tested.
    pub tested: Vec<Executor>,
    /// The CPU model, for the JIT.
    pub model: String,
    /// Sequences of instructions rather than single ones.
    pub sequences: bool,
}

impl Comparison {
    /// Of the interpreter with qemu-user, on single instructions.
    pub fn of_lifts(model: &str) -> Self {
        let tested = vec![Executor::Interpreter];
        Self { oracle: Executor::Qemu, tested, model: model.into(), sequences: false }
    }

    /// Of host code with the interpreter.
    pub fn of_host_code(model: &str, sequences: bool) -> Self {
        let tested = vec![Executor::Jit];
        Self { oracle: Executor::Interpreter, tested, model: model.into(), sequences }
    }

    /// Runs cases `first .. first + count` and returns what differs.
    ///
    /// # Errors
    /// An executor cannot be run.
    pub fn run(&self, plan: &Plan, first: u64, count: u64) -> Result<Vec<Mismatch>> {
        let mut out = Vec::new();
        let mut number = first;
        while number < first + count {
            let n = (first + count - number).min(BATCH as u64);
            let mut cases = Vec::new();
            for k in number..number + n {
                let index = cases.len();
                cases.extend(if self.sequences { plan.sequence(k, index) } else { plan.case(k, index) });
            }
            number += n;
            if !cases.is_empty() {
                self.batch(plan, &cases, &mut out)?;
            }
        }
        Ok(out)
    }

    fn batch(&self, plan: &Plan, cases: &[Case], out: &mut Vec<Mismatch>) -> Result<()> {
        let bodies: Vec<Vec<u32>> = cases.iter().map(|c| c.body.clone()).collect();
        let code = program::code(&bodies);
        let expected = self.execute(self.oracle, plan, cases, &code)?;
        for &tested in &self.tested {
            let got = self.execute(tested, plan, cases, &code)?;
            for ((case, want), got) in cases.iter().zip(&expected).zip(&got) {
                let differences = want.differences(got);
                if !differences.is_empty() {
                    out.push(describe(plan.seed, tested, case, &differences));
                }
            }
        }
        Ok(())
    }

    fn execute(&self, by: Executor, plan: &Plan, cases: &[Case], code: &[u8]) -> Result<Vec<Record>> {
        match by {
            Executor::Qemu => qemu::execute(cases, code),
            Executor::Jit => jit::execute(&self.model, cases, code),
            Executor::Interpreter => Ok(cases
                .iter()
                .enumerate()
                .map(|(i, case)| interp::execute(&plan.features, case, i, code).record)
                .collect()),
        }
    }
}

fn describe(seed: u64, tested: Executor, case: &Case, differences: &[String]) -> Mismatch {
    let word = case.body.last().copied().unwrap_or(0);
    let r = &case.record;
    let mut inputs = Vec::new();
    for at in [0, 5, 16, 10] {
        let n = (word >> at & 31) as usize;
        inputs.push(format!("x{n}={:#x} v{n}={:#x}", r.x[n], r.v[n]));
    }
    let body = case.body.iter().map(|w| format!("{w:08x}")).collect::<Vec<_>>().join(" ");
    let shown: Vec<_> = differences.iter().take(8).cloned().collect();
    let text = format!(
        "{tested:?} {} {body} seed {seed} case {}: {} | nzcv={:#x} fpcr={:#x} fpsr={:#x} {}",
        case.enc.name(),
        case.number,
        shown.join(", "),
        r.nzcv,
        r.fpcr,
        r.fpsr,
        inputs.join(" ")
    );
    Mismatch { number: case.number, enc: case.enc, text }
}

/// The encodings that the model has and no lift knows.
pub fn missing(features: &FeatureSet) -> Vec<Enc> {
    let mut r = random::Random::new(&[1]);
    Enc::all()
        .iter()
        .copied()
        .filter(|e| features.has(e.feature()))
        // UDF and the debug-state instructions are undefined by definition.
        .filter(|e| !["UDF", "DCPS1", "DCPS2", "DCPS3", "DRPS", "SYSL"].contains(&e.mnemonic()))
        .filter(|&e| {
            let words = (0..256).map(|_| e.value() | (r.next() as u32 & !e.mask()));
            let mut own = words.filter(|&w| armlet_arm::decode(w) == Some(e)).peekable();
            own.peek().is_some() && own.all(|w| interp::is_missing(features, w))
        })
        .collect()
}
