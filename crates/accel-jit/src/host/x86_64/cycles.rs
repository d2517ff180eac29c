//! The host's cycle counter as a source of time.
#![expect(unsafe_code, reason = "the counter is read by an instruction that has no safe name")]

use armlet_engine::host_time::CycleCounter;

/// Where Linux tells what it takes time from (its Documentation/timers/timekeeping.rst).
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// The host's cycle counter (TSC), if its kernel takes time from it: then it is the same on all CPUs and never stops.
pub fn cycle_counter() -> Option<CycleCounter> {
    let source = std::fs::read_to_string(CLOCK_SOURCE).ok()?;
    (source.trim() == "tsc").then_some(read)
}

/// The counter, neither before what the program has read earlier nor after what it reads later.
fn read() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads the counter, which every x86-64 CPU has and Linux lets programs read.
    unsafe {
        std::arch::asm!(
            "lfence",
            "rdtsc",
            "lfence",
            out("rax") low,
            out("rdx") high,
            options(nostack, preserves_flags),
        );
    }
    (high << 32) | low
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use armlet_engine::HostTime;

    use super::*;

    #[test]
    fn threads_that_tell_each_other_the_time_never_see_it_go_back() {
        // On hosts that have no such counter the host's clock is what is tested.
        let time = HostTime::new(cycle_counter());
        let latest = AtomicU64::new(0);
        let reader = || {
            loop {
                let before = latest.load(Ordering::SeqCst);
                let now = time.now();
                assert!(now >= before, "{before} and then {now}");
                latest.fetch_max(now, Ordering::SeqCst);
                // The first lines hold for 10, 20 and 40 ms.
                if now > 150_000_000 {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(reader);
            }
        });
    }
}
