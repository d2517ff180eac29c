//! Differential tests of instruction semantics: random instructions on random and adversarial state, executed by
//! an independent implementation (qemu-user), by armlet's lifts in the IR interpreter and as host code, and compared
//! register by register.

pub mod asm;
pub mod coverage;
pub mod explain;
pub mod generate;
pub mod interp;
#[cfg(target_arch = "x86_64")]
pub mod jit;
pub mod keys;
pub mod line;
pub mod program;
pub mod qemu;
pub mod random;
pub mod record;
pub mod run;
pub mod shrink;
pub mod spoil;

use anyhow::Result;
use armlet_arm::{CpuModel, Enc, FeatureSet};

use record::Record;

/// Where in the test program a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address of its first instruction.
    pub code: u64,
    /// Address of its record.
    pub record: u64,
}

impl Place {
    /// Address of the case's own memory.
    pub const fn memory(self) -> u64 {
        self.record + record::MEMORY as u64
    }
}

/// One test case.
#[derive(Clone, Debug)]
pub struct Case {
    /// The encoding under test.
    pub enc: Enc,
    /// Number of the instruction among those of its encoding, or of the sequence.
    pub number: u64,
    /// Number of the state among those of the instruction.
    pub state: u64,
    /// The instructions; the one under test is the last.
    pub body: Vec<u32>,
    /// Where it is executed.
    pub place: Place,
    /// The state before.
    pub record: Record,
}

/// A CPU model. The one with everything authenticates pointers as the architecture says, since the oracle's choice of an
/// algorithm would be its own.
///
/// # Errors
/// No such model.
pub fn model(name: &str) -> Result<CpuModel> {
    Ok(CpuModel::parse(if name == "max" { "max,pauth=qarma5" } else { name })?)
}

/// The features of a CPU model.
///
/// # Errors
/// No such model.
pub fn features(name: &str) -> Result<FeatureSet> {
    Ok(*model(name)?.features())
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
    /// The same without the host's AVX-512 instructions.
    JitAvx2,
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
