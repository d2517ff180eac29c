//! Breakpoints and watchpoints that a client has set.

use std::collections::BTreeSet;

use armlet_engine::{DebugRequest, Watchpoint};
use gdbstub::target::ext::breakpoints::WatchKind;

/// Most breakpoints, and most watchpoints: far more than anyone sets, and few enough to be looked through.
const MAX_BREAKPOINTS: usize = 4096;
const MAX_WATCHPOINTS: usize = 256;
/// Bytes that one access touches at most: four vector registers.
const LONGEST_ACCESS: u64 = 64;

/// How a client calls a breakpoint. Both kinds are the same here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BreakKind {
    Software,
    Hardware,
}

/// All that a client has set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Points {
    breakpoints: BTreeSet<(u64, BreakKind)>,
    watchpoints: Vec<Watchpoint>,
}

/// An address without its top byte, which may be a tag.
fn bare(address: u64) -> u64 {
    address << 8 >> 8
}

fn watchpoint(address: u64, length: u64, kind: WatchKind) -> Watchpoint {
    let (read, write) = (!matches!(kind, WatchKind::Write), !matches!(kind, WatchKind::Read));
    Watchpoint { address, length, read, write }
}

impl Points {
    /// Sets a breakpoint; false if there are too many.
    pub(crate) fn add_breakpoint(&mut self, address: u64, kind: BreakKind) -> bool {
        let room = self.breakpoints.len() < MAX_BREAKPOINTS || self.breakpoints.contains(&(address, kind));
        if room {
            self.breakpoints.insert((address, kind));
        }
        room
    }

    /// Removes a breakpoint, if there is one.
    pub(crate) fn remove_breakpoint(&mut self, address: u64, kind: BreakKind) {
        self.breakpoints.remove(&(address, kind));
    }

    /// Sets a watchpoint; false if there are too many, or it has no length.
    pub(crate) fn add_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) -> bool {
        let new = watchpoint(address, length, kind);
        if self.watchpoints.contains(&new) {
            return true;
        }
        let room = self.watchpoints.len() < MAX_WATCHPOINTS && length > 0;
        if room {
            self.watchpoints.push(new);
        }
        room
    }

    /// Removes a watchpoint, if there is one.
    pub(crate) fn remove_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) {
        let old = watchpoint(address, length, kind);
        self.watchpoints.retain(|w| *w != old);
    }

    /// What a vCPU is to do about all this.
    pub(crate) fn request(&self, step: bool) -> DebugRequest {
        let mut breakpoints: Vec<u64> = self.breakpoints.iter().map(|(address, _)| *address).collect();
        breakpoints.dedup();
        DebugRequest { step, breakpoints, watchpoints: self.watchpoints.clone() }
    }

    /// The kind that a client knows the breakpoint at `address` by.
    pub(crate) fn kind_at(&self, address: u64) -> BreakKind {
        match self.breakpoints.contains(&(address, BreakKind::Software)) {
            true => BreakKind::Software,
            false => BreakKind::Hardware,
        }
    }

    /// Which watchpoint an access from `address` on has met, in the words of the client: its kind and an address in
    /// it. The first byte of the access may lie before it.
    pub(crate) fn watch_met(&self, address: u64, write: bool) -> (WatchKind, u64) {
        let touched = |w: &&Watchpoint| w.is_hit(address, LONGEST_ACCESS, (true, true));
        // A read-modify-write counts as a write, and may have met one for reads.
        let suits = |w: &&Watchpoint| if write { w.write } else { w.read };
        let nearest = |suits: &dyn Fn(&&Watchpoint) -> bool| {
            let all = self.watchpoints.iter().filter(touched).filter(suits);
            all.min_by_key(|w| bare(w.address).saturating_sub(bare(address))).copied()
        };
        let Some(met) = nearest(&suits).or_else(|| nearest(&|_| true)) else {
            return (if write { WatchKind::Write } else { WatchKind::Read }, address);
        };
        let kind = match (met.read, met.write) {
            (true, true) => WatchKind::ReadWrite,
            (true, false) => WatchKind::Read,
            _ => WatchKind::Write,
        };
        (kind, met.address.wrapping_add(bare(address).saturating_sub(bare(met.address))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_breakpoints_at_one_address_are_one_to_a_vcpu() {
        let mut points = Points::default();
        for kind in [BreakKind::Software, BreakKind::Hardware, BreakKind::Hardware] {
            assert!(points.add_breakpoint(0x1000, kind));
        }
        assert_eq!(points.request(false).breakpoints, [0x1000]);
        assert_eq!(points.kind_at(0x1000), BreakKind::Software);
        points.remove_breakpoint(0x1000, BreakKind::Software);
        points.remove_breakpoint(0x1000, BreakKind::Software);
        assert_eq!(points.kind_at(0x1000), BreakKind::Hardware);
        assert_eq!(points.request(true).breakpoints, [0x1000]);
        points.remove_breakpoint(0x1000, BreakKind::Hardware);
        assert_eq!(points.request(false), DebugRequest::default());
    }

    #[test]
    fn there_are_limits() {
        let mut points = Points::default();
        let added =
            (0..2 * MAX_BREAKPOINTS as u64).filter(|a| points.add_breakpoint(4 * a, BreakKind::Software));
        assert_eq!(added.count(), MAX_BREAKPOINTS);
        assert!(points.add_breakpoint(0, BreakKind::Software), "is there already");
        let mut points = Points::default();
        let added = (0..1000).filter(|a| points.add_watchpoint(*a, u64::MAX, WatchKind::Write));
        assert_eq!(added.count(), MAX_WATCHPOINTS);
        assert!(!Points::default().add_watchpoint(0, 0, WatchKind::Read));
    }

    #[test]
    fn the_watchpoint_that_was_met_is_found() {
        let mut points = Points::default();
        for (address, length, kind) in [
            (0x1010, 4, WatchKind::Write),
            (0x1014, 4, WatchKind::Read),
            (0x1030, 8, WatchKind::ReadWrite),
            (0x2000, 1, WatchKind::Read),
        ] {
            assert!(points.add_watchpoint(address, length, kind));
        }
        let met = |address, write| points.watch_met(address, write);
        assert_eq!(met(0x1012, true), (WatchKind::Write, 0x1012));
        assert_eq!(met(0x1008, true), (WatchKind::Write, 0x1010));
        assert_eq!(met(0x1008, false), (WatchKind::Read, 0x1014));
        assert_eq!(met(0x1020, true), (WatchKind::ReadWrite, 0x1030));
        assert_eq!(met(0x2000, true), (WatchKind::Read, 0x2000), "an atomic instruction");
        assert_eq!(met(0x5000, true), (WatchKind::Write, 0x5000));
        assert_eq!(met(0x55 << 56 | 0x1012, true), (WatchKind::Write, 0x1012), "a tag");
        points.remove_watchpoint(0x1010, 4, WatchKind::Write);
        assert_eq!(points.request(false).watchpoints.len(), 3);
    }
}
