//! Makes a mismatch small: one instruction if one is enough, and a state of which nothing can be left out.

use anyhow::Result;

use crate::explain::{Seen, explain};
use crate::generate::Reach;
use crate::record::{MEMORY_SIZE, Record};
use crate::run::{Mismatch, Run};
use crate::{Case, Executor, asm, interp, line, program};

/// A part of a case that may be left out.
#[derive(Clone, Copy, Debug)]
enum Part {
    X(usize),
    V(usize),
    /// The bits of a vector register from here on.
    Above(usize, u32),
    Nzcv,
    Fpcr,
    Fpsr,
    Memory(usize),
    Instruction(usize),
}

/// Bytes of memory that are left out together.
const CHUNK: usize = 16;

impl Part {
    fn all(case: &Case) -> Vec<Self> {
        let mut list = vec![Self::Nzcv, Self::Fpcr, Self::Fpsr];
        if case.body.len() > 1 {
            list.extend((0..case.body.len()).map(Self::Instruction));
        }
        list.extend((0..MEMORY_SIZE / CHUNK).map(Self::Memory));
        list.extend((0..32).map(Self::X));
        list.extend((0..32).map(Self::V));
        list.extend((0..32).flat_map(|n| [64, 32, 16].map(|bits| Self::Above(n, bits))));
        list
    }

    /// Leaves it out; false if there is nothing to leave out.
    fn leave_out(self, case: &mut Case) -> bool {
        let blank = line::blank();
        let r = &mut case.record;
        fn set<T: PartialEq>(place: &mut T, value: T) -> bool {
            let differs = *place != value;
            *place = value;
            differs
        }
        match self {
            Self::X(n) => set(&mut r.x[n], blank.x[n]),
            Self::V(n) => set(&mut r.v[n], 0),
            Self::Above(n, bits) => {
                let low = r.v[n] & ((1 << bits) - 1);
                set(&mut r.v[n], low)
            }
            Self::Nzcv => set(&mut r.nzcv, 0),
            Self::Fpcr => set(&mut r.fpcr, 0),
            Self::Fpsr => set(&mut r.fpsr, 0),
            Self::Memory(n) => {
                let chunk = &mut r.memory[n * CHUNK..(n + 1) * CHUNK];
                let differs = chunk.iter().any(|&b| b != 0);
                chunk.fill(0);
                differs
            }
            Self::Instruction(n) => set(&mut case.body[n], asm::NOP),
        }
    }
}

struct Shrinker<'a> {
    run: &'a Run,
    tested: Executor,
}

/// The smallest case that can be found that shows the mismatch, or the mismatch as it was.
///
/// # Errors
/// An executor cannot be run.
pub fn shrink(run: &Run, mismatch: &Mismatch) -> Result<Mismatch> {
    // Without the interpreter nothing tells whether a smaller case stays inside its own memory.
    if run.plan.reach(mismatch.case.enc) == Reach::Jit {
        return Ok(mismatch.clone());
    }
    let s = Shrinker { run, tested: mismatch.tested };
    let mut best = mismatch.clone();
    if best.case.body.len() >= 10
        && let Some(single) = s.first_of(s.single_steps(&best.case))?
    {
        best = single;
    }
    for _ in 0..4 {
        let Some(smaller) = s.round(&best.case)? else { break };
        best = smaller;
    }
    // At the place that a line has.
    Ok(s.first_of(vec![best.case.clone()])?.unwrap_or(best))
}

impl Shrinker<'_> {
    /// Each instruction that a sequence executes, alone, on the state that it meets.
    fn single_steps(&self, case: &Case) -> Vec<Case> {
        let code = program::code(&self.run.plan.features, std::slice::from_ref(case));
        let mut out = Vec::new();
        let mut state = case.record.clone();
        let mut at = 0;
        while let Some(&word) = case.body.get(at) {
            let place = crate::Place { code: case.place.code + 4 * at as u64, ..case.place };
            let enc = armlet_arm::decode(word).unwrap_or(case.enc);
            let single = Case { enc, body: vec![word], place, record: state.clone(), ..*case };
            let (next, pc) = interp::advance(&self.run.plan.features, &single, &code);
            out.push(single);
            at = (pc.wrapping_sub(case.place.code) / 4) as usize;
            state = next;
            if out.len() > 2000 {
                break;
            }
        }
        out
    }

    /// Leaves out what can be left out, each for itself and then together. `None` if nothing can.
    fn round(&self, case: &Case) -> Result<Option<Mismatch>> {
        let mut parts = Vec::new();
        let mut tries = Vec::new();
        for part in Part::all(case) {
            let mut smaller = case.clone();
            if part.leave_out(&mut smaller) {
                parts.push(part);
                tries.push(smaller);
            }
        }
        let shown = self.which(tries)?;
        let parts: Vec<Part> =
            parts.into_iter().zip(shown).filter(|(_, m)| m.is_some()).map(|(p, _)| p).collect();
        let mut smaller = case.clone();
        let mut together = Vec::new();
        for part in &parts {
            part.leave_out(&mut smaller);
            together.push(smaller.clone());
        }
        Ok(self.which(together)?.into_iter().flatten().next_back())
    }

    fn first_of(&self, cases: Vec<Case>) -> Result<Option<Mismatch>> {
        Ok(self.which(cases)?.into_iter().flatten().next())
    }

    /// Which of these cases show a mismatch that nothing explains.
    fn which(&self, cases: Vec<Case>) -> Result<Vec<Option<Mismatch>>> {
        let mut out = Vec::new();
        for some in cases.chunks(1000) {
            let parts = some.iter().map(|c| (c.enc, c.body.clone(), c.record.clone(), c.place));
            let mut placed = line::at_odd_places(parts);
            // One that leaves its own code shows nothing.
            for case in placed.iter_mut() {
                let ends =
                    interp::execute(&self.run.plan.features, case, &[], None).record.status != u64::MAX;
                if !ends {
                    case.body = vec![asm::NOP];
                }
            }
            let (want, got) = self.run.pair(self.tested, &placed)?;
            out.extend(
                placed
                    .into_iter()
                    .zip(want.into_iter().zip(got))
                    .skip(1)
                    .step_by(2)
                    .map(|(case, (want, got))| self.mismatch(case, want, got)),
            );
        }
        Ok(out)
    }

    fn mismatch(&self, case: Case, want: Record, got: Record) -> Option<Mismatch> {
        if want.is_same(&got) {
            return None;
        }
        let (oracle, tested) = (self.run.oracle, self.tested);
        let seen = Seen { case: &case, oracle, tested, want: &want, got: &got };
        if explain(&seen).is_some() { None } else { Some(Mismatch { case, tested, want, got }) }
    }
}
