//! Same-base check elimination: one probe of the TLB for several accesses off one base register.
//!
//! Where later accesses of the block use the same base, the first of them probes for the whole stretch that
//! they touch (a *window*) and keeps the host's distance in a register; the others need no probe, cannot fault,
//! and leave the flags alone. If the stretch is not plain memory in one page, the block is left for one of the
//! same instructions that does without windows (a *careful* one), before anything of the instruction is done.
//!
//! A window holds until its base changes in another way than by a constant, or until an instruction that
//! may change translations. Invalidations by other vCPUs are handled between blocks, as those of an
//! instruction that was already under way.

use super::locate::Window;
use super::*;
use crate::ir::visit::{Change, Facts, PlainAccess};

/// Longest stretch of one window, bytes: the longer, the more often it crosses a page.
const SPAN: i64 = 256;
/// How many accesses are looked at for one window.
const LOOK: usize = 16;
const NONE: u16 = u16::MAX;

/// An access, and the next one off the same base.
#[derive(Clone, Copy)]
struct Link {
    /// Index of its instruction.
    at: u16,
    access: PlainAccess,
    /// Where the next one is in the list.
    next: u16,
    /// How much the base rises until then.
    rise: i32,
}

/// What accesses follow each other, in one block.
#[derive(Default)]
pub(super) struct Plan {
    /// The last access of the block first.
    links: Vec<Link>,
    /// The first access off each guest register among those taken in.
    next: [u16; 32],
    /// How much the register rises before it.
    rise: [i32; 32],
}

/// What an instruction means for bases, and whether it may leave the block.
#[derive(Clone, Copy)]
pub(super) struct Effect {
    pub definitions: [Reg; 2],
    pub change: Change,
    pub leaves: bool,
}

impl Default for Effect {
    fn default() -> Self {
        Self { definitions: [Reg::NONE; 2], change: Change::Definitions, leaves: false }
    }
}

impl Plan {
    /// Ready for a block.
    pub fn clear(&mut self) {
        self.links.clear();
        self.next = [NONE; 32];
    }

    /// Takes in instruction `i`; the later ones have been taken in already.
    pub fn add(&mut self, i: usize, facts: &Facts) {
        match facts.change {
            Change::Rise(by) => {
                if let Some(rise) = self.rise.get_mut(usize::from(facts.definitions[0].0)) {
                    *rise = rise.saturating_add(by);
                }
            }
            Change::Everything => self.next = [NONE; 32],
            Change::Definitions => {
                for d in facts.definitions {
                    if let Some(next) = self.next.get_mut(usize::from(d.0)) {
                        *next = NONE;
                    }
                }
            }
        }
        if let Some(access) = facts.access {
            let r = usize::from(access.base.0);
            let here = self.links.len() as u16;
            self.links.push(Link { at: i as u16, access, next: self.next[r], rise: self.rise[r] });
            self.next[r] = here;
            self.rise[r] = 0;
        }
    }

    /// The stretch that the access at `index` and those after it touch, relative to the base now. None if
    /// there is nothing to gain.
    fn stretch(&mut self, index: usize) -> Option<(i32, i32)> {
        // Code is made in order: what is behind is not needed any more.
        while self.links.last().is_some_and(|l| usize::from(l.at) < index) {
            self.links.pop();
        }
        let mut link = *self.links.last().filter(|l| usize::from(l.at) == index)?;
        let write = link.access.write;
        let mut reach = stretch_of(&link.access, 0);
        let (mut rise, mut more) = (0i64, false);
        for _ in 0..LOOK {
            rise += i64::from(link.rise);
            let Some(next) = self.links.get(usize::from(link.next)) else { break };
            link = *next;
            if link.access.write && !write {
                continue;
            }
            let (lo, hi) = stretch_of(&link.access, rise);
            let both = (reach.0.min(lo), reach.1.max(hi));
            if both.1 - both.0 > SPAN {
                break;
            }
            reach = both;
            more = true;
        }
        more.then_some((i32::try_from(reach.0).ok()?, i32::try_from(reach.1).ok()?))
    }
}

fn stretch_of(a: &PlainAccess, rise: i64) -> (i64, i64) {
    let lo = rise + i64::from(a.disp);
    (lo, lo + i64::from(a.bytes))
}

impl Generator {
    /// The stretch to probe for at the current access, if a window is worth it.
    pub(super) fn window_ahead(&mut self) -> Option<(i32, i32)> {
        // Starting the instruction again must not repeat another access of it.
        if self.accesses > 1 {
            return None;
        }
        self.plan.stretch(self.index)
    }

    /// The window that covers an access, if there is one.
    pub(super) fn window_over(&self, addr: Addr, bytes: u8, write: bool) -> Option<Gpr> {
        let Opnd::Reg(base) = addr.base else { return None };
        if addr.index.is_some() {
            return None;
        }
        let (lo, hi) = (addr.disp, addr.disp.checked_add(i32::from(bytes))?);
        self.locations.window(|w| w.base == base && w.lo <= lo && hi <= w.hi && (w.write || !write))
    }

    /// Keeps the host's distance, which scratch register `g` holds, for the accesses to come.
    pub(super) fn keep_window(&mut self, g: Gpr, base: Reg, (lo, hi): (i32, i32), write: bool) {
        self.locations.add_window(g, Window { base, lo, hi, write });
    }

    /// A window that the TLB does not know: asks for it, unless it crosses into another page, and goes on in the
    /// careful block of the instruction if it cannot be had.
    pub(super) fn window_missed(&mut self, index: u32, offset: u16, (s, last_page): (Gpr, Gpr)) {
        let e = self.side_table[index as usize];
        self.asm.lea(true, s, M::at(Gpr(e.base), e.disp));
        self.asm.op(Op2::Xor, true, s, last_page);
        self.asm.shift_imm(Shift::Shr, true, s, 12);
        let crosses = self.asm.jcc(Cc::NE);
        self.call_access(index);
        self.side_table[index as usize].otherwise = self.asm.len() as u32;
        self.asm.bind(crosses);
        // Nothing of the instruction is done yet.
        self.spend(self.count - 1);
        self.take_back_trace();
        let fixup = self.asm.jmp();
        let exit = self.exits.len() as u32;
        let carried = self.carried_now();
        let carried = self.note_carried(carried);
        self.exits.push(ExitSite { fixup: fixup.0 as u32, target: offset, careful: true, carried });
        self.emit_cold(Cold::Exit { from: fixup, index: exit });
    }

    /// After instruction `i`: what it means for windows and for what is known of SP.
    pub(super) fn follow_changes(&mut self, i: usize) {
        if !self.sp_aligned && !self.locations.has_windows() {
            return;
        }
        let Effect { definitions, change, .. } = self.effects[i];
        match change {
            Change::Rise(by) => {
                self.locations.raise_windows(definitions[0], by);
                self.sp_aligned &= definitions[0] != Reg::SP || by % 16 == 0;
            }
            Change::Everything => {
                self.locations.drop_windows(|_| true);
                self.sp_aligned = false;
            }
            Change::Definitions => {
                for d in definitions.into_iter().filter(|d| d.is_guest()) {
                    self.locations.drop_windows(|w| w.base == d);
                    self.sp_aligned &= d != Reg::SP;
                }
            }
        }
    }
}
