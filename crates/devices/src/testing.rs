//! Helpers of this crate's tests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::line::InterruptLine;

/// A line that remembers its level and how often it rose.
#[derive(Default)]
pub(crate) struct Probe {
    level: AtomicBool,
    rises: AtomicUsize,
}

impl Probe {
    pub(crate) fn level(&self) -> bool {
        self.level.load(Ordering::SeqCst)
    }

    pub(crate) fn rises(&self) -> usize {
        self.rises.load(Ordering::SeqCst)
    }
}

impl InterruptLine for Probe {
    fn set(&self, level: bool) {
        if !self.level.swap(level, Ordering::SeqCst) && level {
            self.rises.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// xorshift64* random numbers, seeded from `ARMLET_SEED` or the time; the seed is printed so that a failure
/// can be repeated.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(what: &str) -> Self {
        let seed = std::env::var("ARMLET_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |d| d.as_nanos() as u64)
        });
        println!("{what}: ARMLET_SEED={seed}");
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
}
