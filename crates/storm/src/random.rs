//! Chance, from a seed: the same seed gives each agent the same choices again, if not the same moments.

use std::time::Duration;

/// A generator of numbers that look random (xorshift64).
pub struct Random(u64);

impl Random {
    /// For the agent of this name.
    pub fn new(seed: u64, agent: &str) -> Self {
        // FNV-1a keeps the agents apart; a state of 0 would stay 0.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(agent.bytes().chain(seed.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, mix) | 1)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n.max(1)
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn choice<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        all.get(self.below(all.len())).copied()
    }

    /// Up to so many milliseconds, short ones more often.
    pub fn moment(&mut self, milliseconds: usize) -> Duration {
        let most = self.below(1000 * milliseconds) + 1;
        Duration::from_micros(self.below(most) as u64)
    }
}
