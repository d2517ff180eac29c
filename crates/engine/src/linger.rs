//! How long a halted vCPU looks for the end of its halt before it sleeps.
//!
//! To sleep and to be woken takes the host several microseconds, on both sides. Where halts turn out to be shorter than
//! some of them (CPUs that interrupt each other, a device that answers at once), the vCPU's thread looks for a moment
//! first. Long halts end that again, so idle guests do not look at all; neither does anybody while there are more vCPUs
//! in this process than CPUs in the host.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A halt of this length or more is slept through.
const LONGEST: Duration = Duration::from_micros(32);
/// What looking begins with.
const SHORTEST: Duration = Duration::from_micros(4);
/// Looks between two looks at the clock.
const LOOKS: u32 = 16;

/// Threads of vCPUs in this process.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// One vCPU's.
#[derive(Debug)]
pub(crate) struct Linger {
    limit: Duration,
}

impl Linger {
    pub(crate) fn new() -> Self {
        THREADS.fetch_add(1, Ordering::Relaxed);
        Self { limit: Duration::ZERO }
    }

    /// Looks for a while, until `deadline` at the latest, whether `ready` holds; tells whether it did.
    pub(crate) fn look(&self, deadline: Option<Instant>, mut ready: impl FnMut() -> bool) -> bool {
        if self.limit.is_zero() || !there_is_room() {
            return false;
        }
        let end = Instant::now() + self.limit;
        let end = deadline.map_or(end, |deadline| deadline.min(end));
        while Instant::now() < end {
            for _ in 0..LOOKS {
                if ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        false
    }

    /// Learns how long a halt was.
    pub(crate) fn learn(&mut self, halt: Duration) {
        self.limit = match halt {
            _ if halt >= LONGEST => shorter(self.limit),
            _ if halt > self.limit => (2 * self.limit).clamp(SHORTEST, LONGEST),
            _ => self.limit,
        };
    }
}

impl Drop for Linger {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn shorter(limit: Duration) -> Duration {
    if limit > SHORTEST { limit / 2 } else { Duration::ZERO }
}

/// True if every vCPU may have a CPU of the host, and there is one for whoever ends a halt.
fn there_is_room() -> bool {
    static CPUS: OnceLock<usize> = OnceLock::new();
    let cpus = *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
    // The model checkers have no clock.
    !cfg!(any(loom, shuttle)) && cpus > 1 && THREADS.load(Ordering::Relaxed) <= cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_halts_are_looked_through_and_long_ones_are_not() {
        let micros = Duration::from_micros;
        let mut linger = Linger::new();
        assert!(!linger.look(None, || unreachable!("nobody looks at first")));
        for halt in [10, 10, 10] {
            linger.learn(micros(halt));
        }
        assert_eq!(linger.limit, micros(16), "enough for halts of 10");
        linger.learn(micros(10));
        assert_eq!(linger.limit, micros(16));
        for _ in 0..10 {
            linger.learn(micros(31));
        }
        assert_eq!(linger.limit, LONGEST);
        for _ in 0..4 {
            assert!(!linger.limit.is_zero());
            linger.learn(micros(4000));
        }
        assert_eq!(linger.limit, Duration::ZERO);
    }

    #[test]
    fn looking_ends() {
        let linger = Linger { limit: LONGEST };
        THREADS.fetch_add(1, Ordering::Relaxed);
        assert!(!linger.look(None, || false));
        let mut looks = 0;
        let found = linger.look(None, || {
            looks += 1;
            looks == 5
        });
        assert_eq!(found, looks == 5, "where there is room");
    }
}
