//! Where guest code spends its time: stacks that were met, and how often.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The calls that led to where a vCPU was, as far as they could be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// Exception level.
    pub el: u8,
    /// The address space, at EL0.
    pub asid: u16,
    /// The instruction that was executing, or the beginning of what was.
    pub pc: u64,
    /// The link register: the way back, unless the function has already called others or saved it.
    pub lr: u64,
    /// Return addresses by the chain of frame records (AAPCS64, 6.2.3), the innermost first.
    pub callers: Vec<u64>,
    /// The accelerator itself was at work for that instruction.
    pub accelerator: bool,
}

/// What all vCPUs of a machine have met.
#[derive(Debug)]
pub struct Samples {
    period: Duration,
    stacks: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    stacks: HashMap<Stack, u64>,
    vectors: u64,
}

/// Callers that are followed, at most.
pub const MAX_CALLERS: usize = 64;

/// Different stacks that are kept; of what comes after, only the innermost address.
const MAX_STACKS: usize = 1 << 20;

impl Samples {
    /// None yet; one is to be taken for each `period` of a vCPU's time on the host.
    pub fn new(period: Duration) -> Self {
        Self { period, stacks: Mutex::default() }
    }

    /// A vCPU's time between two samples.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Counts `times` periods in which the vCPU was at `stack`, with its exception vectors (VBAR_EL1) at `vectors`.
    pub fn add(&self, mut stack: Stack, times: u64, vectors: u64) {
        let mut found = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        if found.stacks.len() >= MAX_STACKS {
            stack.callers.clear();
        }
        *found.stacks.entry(stack).or_default() += times;
        if vectors != 0 {
            found.vectors = vectors;
        }
    }

    /// The stacks, each with its number of periods, and where the exception vectors were last.
    pub fn take(&self) -> (Vec<(Stack, u64)>, u64) {
        let found = std::mem::take(&mut *self.stacks.lock().unwrap_or_else(PoisonError::into_inner));
        (found.stacks.into_iter().collect(), found.vectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_stacks_are_added_up() {
        let samples = Samples::new(Duration::from_millis(1));
        let stack = |pc| Stack { el: 1, asid: 0, pc, lr: 0, callers: vec![8], accelerator: false };
        samples.add(stack(4), 2, 0x800);
        samples.add(stack(4), 1, 0);
        samples.add(stack(12), 1, 0);
        let (mut found, vectors) = samples.take();
        found.sort_by_key(|(stack, _)| stack.pc);
        assert_eq!((found, vectors), (vec![(stack(4), 3), (stack(12), 1)], 0x800));
        assert!(samples.take().0.is_empty());
    }
}
