//! The guest's random numbers, RNDR and RNDRRS (FEAT_RNG).

use std::sync::Arc;

use crate::clock::Clock;

/// Random numbers: the host's; or, where time is made of instructions, those that belong to the present one, so that
/// whoever executes the same again gets the same again.
pub struct RandomNumbers {
    clock: Arc<Clock>,
}

/// Where the sequence of a counted run begins: the fraction of the square root of 2.
const SEED: u64 = 0x6a09_e667_f3bc_c908;

impl RandomNumbers {
    /// For a machine on `clock`.
    pub fn new(clock: Arc<Clock>) -> Self {
        Self { clock }
    }

    /// The next number, for vCPU `cpu`.
    pub fn next(&self, cpu: usize) -> u64 {
        match self.clock.instructions() {
            Some(count) => mixed(mixed(count ^ SEED) ^ cpu as u64),
            None => from_host(),
        }
    }
}

/// The output function of SplitMix64: a bijection, so that no two counts have the same number.
fn mixed(v: u64) -> u64 {
    let v = v.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let v = (v ^ v >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let v = (v ^ v >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    v ^ v >> 31
}

/// The kernel gives so few bytes at once, and without an error, from early in its boot on.
fn from_host() -> u64 {
    let mut bytes = [0; 8];
    while !matches!(rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()), Ok(8)) {
        std::thread::yield_now();
    }
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use armlet_engine::InstructionCount;

    use super::*;
    use crate::clock::COUNTER_FREQUENCY;

    #[test]
    fn the_host_does_not_repeat_itself() {
        let random = RandomNumbers::new(Arc::new(Clock::new(COUNTER_FREQUENCY)));
        let all: HashSet<u64> = (0..1000).map(|_| random.next(0)).collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn the_same_instruction_gets_the_same_number() {
        let count = Arc::new(InstructionCount::default());
        let random = RandomNumbers::new(Arc::new(Clock::counting(COUNTER_FREQUENCY, Arc::clone(&count), 0)));
        let run = || {
            let numbers = |n| {
                count.set(n);
                [random.next(0), random.next(1)]
            };
            (0..1000).flat_map(numbers).collect::<Vec<u64>>()
        };
        let first = run();
        assert_eq!(first, run());
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), first.len());
        let ones: u32 = first.iter().map(|n| n.count_ones()).sum();
        assert!((63_000..65_000).contains(&ones), "{ones} of 128000 bits");
    }
}
