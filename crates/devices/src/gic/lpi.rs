//! LPIs: which are pending, and their tables in the guest's memory (IHI 0069, 5.1).
//!
//! An LPI is pending at one CPU only, so what is kept is bounded by their number; mapped so that it would be at several,
//! it goes to the last one. A configuration is read when its LPI becomes pending, and when software asks for that. Pending
//! tables are read when a CPU's LPIs are enabled and written when they are disabled, or saved. An LPI whose bit is in no
//! memory does not become pending.
//!
//! All redistributors share one configuration table (`GICR_TYPER.CommonLPIAff` is 0), so there is one `GICR_PROPBASER`.

use std::collections::BTreeSet;

use armlet_memory::{AccessSize, Ram};

use super::spec::{FIRST_LPI, INTIDS, LPIS, PRIORITY_MASK, gicr, lpi};
use super::state::{Group, Pending, State};

/// Order of those that are disabled: behind all others.
const DISABLED: u16 = 1 << 8;
/// LPIs whose pending bits are in one word of the table.
const WORD: u32 = 64;

/// LPIs that are pending at one CPU, by priority and number, those that are disabled last.
#[derive(Default)]
pub(super) struct Queue(BTreeSet<(u16, u32)>);

impl Queue {
    /// The one to signal.
    pub(super) fn first(&self) -> Option<Pending> {
        let (order, intid) = *self.0.first()?;
        let priority = u8::try_from(order).ok()?;
        Some(Pending { intid, priority, group: Group::Group1 })
    }
}

/// What all redistributors share.
pub(super) struct Lpis {
    ram: Ram,
    pub(super) propbaser: u64,
    /// By LPI: the CPU at which it is pending, plus one.
    holders: Vec<u16>,
    /// By LPI that is pending: its configuration as it was read last.
    configurations: Vec<u8>,
}

impl Lpis {
    pub(super) fn new(ram: Ram) -> Self {
        let all = LPIS as usize;
        Self { ram, propbaser: 0, holders: vec![0; all], configurations: vec![0; all] }
    }

    /// INTIDs below this have a configuration.
    pub(super) fn end(&self) -> u32 {
        let bits = (self.propbaser & gicr::PROPBASER_IDBITS) as u32 + 1;
        1_u32.checked_shl(bits).unwrap_or(INTIDS).min(INTIDS)
    }

    fn configuration(&self, intid: u32) -> u8 {
        let at = (self.propbaser & gicr::PROPBASER_ADDRESS) + u64::from(intid - FIRST_LPI);
        let byte = self.ram.load(at, AccessSize::Byte).unwrap_or(0) as u8;
        byte & (PRIORITY_MASK & lpi::PRIORITY | lpi::ENABLED)
    }

    /// Order among those that are pending, by what was read.
    fn order(&self, intid: u32) -> u16 {
        let configuration = self.configurations[(intid - FIRST_LPI) as usize];
        let disabled = if configuration & lpi::ENABLED == 0 { DISABLED } else { 0 };
        disabled | u16::from(configuration & lpi::PRIORITY)
    }

    /// The CPU at which `intid`, which is an LPI, is pending.
    fn holder(&self, intid: u32) -> Option<usize> {
        usize::from(self.holders[(intid - FIRST_LPI) as usize]).checked_sub(1)
    }

    fn is_lpi(intid: u32) -> bool {
        (FIRST_LPI..INTIDS).contains(&intid)
    }

    /// The words of a pending table: the first LPI of each and where it is.
    fn words(&self, pendbaser: u64) -> impl Iterator<Item = (u32, u64)> + use<> {
        let table = pendbaser & gicr::PENDBASER_ADDRESS;
        (FIRST_LPI..self.end()).step_by(WORD as usize).map(move |first| (first, table + u64::from(first / 8)))
    }
}

impl State {
    /// INTIDs below this are LPIs that there are, if there are any.
    pub(super) fn lpis_end(&self) -> u32 {
        self.lpis.as_ref().map_or(0, Lpis::end)
    }

    /// Forgets all LPIs and where their tables are, as at power-on.
    pub(super) fn reset_lpis(&mut self) {
        (0..self.cpus.len()).for_each(|cpu| self.forget_lpis(cpu));
        if let Some(lpis) = &mut self.lpis {
            lpis.propbaser = 0;
        }
    }

    /// `GICR_PROPBASER`, which must not change while it is in use.
    pub(super) fn write_propbaser(&mut self, cpu: usize, value: u64) {
        let on = self.cpus.get(cpu).is_some_and(|c| c.ctlr & gicr::CTLR_ENABLE_LPIS != 0);
        if let Some(lpis) = self.lpis.as_mut().filter(|_| !on) {
            lpis.propbaser = value & gicr::PROPBASER_MASK;
        }
    }

    /// `GICR_PENDBASER`, likewise. That the table is all zeros changes nothing: it is read all the same.
    pub(super) fn write_pendbaser(&mut self, cpu: usize, value: u64) {
        let there = self.lpis.is_some();
        let off = |c: &&mut super::state::Cpu| there && c.ctlr & gicr::CTLR_ENABLE_LPIS == 0;
        if let Some(c) = self.cpus.get_mut(cpu).filter(off) {
            c.pendbaser = value & gicr::PENDBASER_MASK;
        }
    }

    /// `GICR_CTLR.EnableLPIs`.
    pub(super) fn switch_lpis(&mut self, cpu: usize, on: bool) {
        let there = self.lpis.is_some();
        let Some(c) = self.cpus.get_mut(cpu) else { return };
        if on == (c.ctlr & gicr::CTLR_ENABLE_LPIS != 0) || !there {
            return;
        }
        if on {
            c.ctlr |= gicr::CTLR_ENABLE_LPIS;
            self.load_lpis(cpu);
        } else {
            self.store_lpis(cpu);
            self.forget_lpis(cpu);
            self.cpus[cpu].ctlr &= !gicr::CTLR_ENABLE_LPIS;
        }
        self.update_own(cpu);
    }

    /// Takes over `cpu`'s pending table. The caller updates.
    pub(super) fn load_lpis(&mut self, cpu: usize) {
        let (Some(c), Some(lpis)) = (self.cpus.get(cpu), &self.lpis) else { return };
        let words = lpis.words(c.pendbaser).filter_map(|(first, at)| {
            let word = lpis.ram.load(at, AccessSize::Double).filter(|word| *word != 0)?;
            Some((first, word))
        });
        for (first, word) in words.collect::<Vec<_>>() {
            for bit in (0..WORD).filter(|bit| word & (1 << bit) != 0) {
                if self.holder(first + bit).is_none() {
                    self.add_lpi(cpu, first + bit);
                }
            }
        }
    }

    /// Writes `cpu`'s pending table, as far as it is another.
    fn store_lpis(&self, cpu: usize) {
        let (Some(c), Some(lpis)) = (self.cpus.get(cpu), &self.lpis) else { return };
        for (first, at) in lpis.words(c.pendbaser) {
            let holders = lpis.holders.iter().skip((first - FIRST_LPI) as usize).take(WORD as usize);
            let bit = |(bit, holder): (usize, &u16)| u64::from(usize::from(*holder) == cpu + 1) << bit;
            let word = holders.enumerate().map(bit).fold(0, |word, bit| word | bit);
            if lpis.ram.load(at, AccessSize::Double).is_some_and(|old| old != word) {
                // It was there to be read.
                let _ = lpis.ram.store(at, AccessSize::Double, word);
            }
        }
    }

    /// Writes the pending tables of all CPUs.
    pub(super) fn store_all_lpis(&self) {
        let on = |cpu: &usize| self.cpus[*cpu].ctlr & gicr::CTLR_ENABLE_LPIS != 0;
        (0..self.cpus.len()).filter(on).for_each(|cpu| self.store_lpis(cpu));
    }

    /// Nothing is pending at `cpu` any more. The caller updates.
    pub(super) fn forget_lpis(&mut self, cpu: usize) {
        let (Some(c), Some(lpis)) = (self.cpus.get_mut(cpu), &mut self.lpis) else { return };
        for (_, intid) in std::mem::take(&mut c.lpis.0) {
            lpis.holders[(intid - FIRST_LPI) as usize] = 0;
        }
    }

    /// An LPI is not pending any more; the CPU where it was. The caller updates that one.
    pub(super) fn forget_lpi(&mut self, intid: u32) -> Option<usize> {
        let lpis = self.lpis.as_mut().filter(|_| Lpis::is_lpi(intid))?;
        let cpu = lpis.holder(intid)?;
        self.cpus.get_mut(cpu)?.lpis.0.remove(&(lpis.order(intid), intid));
        lpis.holders[(intid - FIRST_LPI) as usize] = 0;
        Some(cpu)
    }

    /// The CPU at which `intid` is pending.
    fn holder(&self, intid: u32) -> Option<usize> {
        self.lpis.as_ref().filter(|_| Lpis::is_lpi(intid))?.holder(intid)
    }

    /// Makes an LPI pending at `cpu`, if it can be; the CPU where it was before. The caller updates both.
    fn add_lpi(&mut self, cpu: usize, intid: u32) -> Option<usize> {
        if !self.takes_lpi(cpu, intid) {
            return None;
        }
        let before = self.forget_lpi(intid);
        let (Some(c), Some(lpis)) = (self.cpus.get_mut(cpu), &mut self.lpis) else { return before };
        let index = (intid - FIRST_LPI) as usize;
        lpis.configurations[index] = lpis.configuration(intid);
        lpis.holders[index] = cpu as u16 + 1;
        c.lpis.0.insert((lpis.order(intid), intid));
        before
    }

    /// There is such an LPI, `cpu`'s are enabled, and its pending bit has a place.
    fn takes_lpi(&self, cpu: usize, intid: u32) -> bool {
        let (Some(c), Some(lpis)) = (self.cpus.get(cpu), &self.lpis) else { return false };
        let place = (c.pendbaser & gicr::PENDBASER_ADDRESS) + u64::from(intid / 8);
        c.ctlr & gicr::CTLR_ENABLE_LPIS != 0
            && (FIRST_LPI..lpis.end()).contains(&intid)
            && lpis.ram.contains(place, 1)
    }

    /// An LPI comes to `cpu`.
    pub(super) fn set_lpi(&mut self, cpu: usize, intid: u32) {
        if let Some(before) = self.add_lpi(cpu, intid).filter(|before| *before != cpu) {
            self.update_own(before);
        }
        self.update_own(cpu);
    }

    /// An LPI is not pending any more, wherever it was.
    pub(super) fn clear_lpi(&mut self, intid: u32) {
        if let Some(cpu) = self.forget_lpi(intid) {
            self.update_own(cpu);
        }
    }

    /// An LPI that is pending is so at `cpu` from now on, if that one takes it.
    pub(super) fn move_lpi(&mut self, intid: u32, cpu: usize) {
        if self.holder(intid).is_some_and(|holder| holder != cpu) {
            self.set_lpi(cpu, intid);
        }
    }

    /// All LPIs that are pending at `from` go to `to`; how many that were.
    pub(super) fn move_lpis(&mut self, from: usize, to: usize) -> u32 {
        if from == to {
            return 0;
        }
        let Some(c) = self.cpus.get(from) else { return 0 };
        let all: Vec<_> = c.lpis.0.iter().map(|(_, intid)| *intid).collect();
        for intid in &all {
            self.add_lpi(to, *intid);
        }
        self.update_own(from);
        self.update_own(to);
        all.len() as u32
    }

    /// Reads the configuration of an LPI again.
    pub(super) fn reload_lpi(&mut self, intid: u32) {
        if let Some(cpu) = self.forget_lpi(intid) {
            self.set_lpi(cpu, intid);
        }
    }

    /// Reads the configuration of all LPIs again that are pending at `cpu`; how many those were.
    pub(super) fn reload_lpis(&mut self, cpu: usize) -> u32 {
        let Some(c) = self.cpus.get(cpu) else { return 0 };
        let all: Vec<_> = c.lpis.0.iter().map(|(_, intid)| *intid).collect();
        for intid in &all {
            self.forget_lpi(*intid);
            self.add_lpi(cpu, *intid);
        }
        self.update_own(cpu);
        all.len() as u32
    }
}
