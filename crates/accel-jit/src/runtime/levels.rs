//! Changing the exception level inside translated code: SVC from EL0, and ERET from EL1 to where it came from.
//!
//! Both are pieces of host code ([`levels`](crate::host::x86_64::levels)) that all blocks share. What they need not look at
//! every time is prepared here: that the sets and the branch targets of the level that they go to are those that
//! `update_context` would choose there. Whatever that depends on leaves translated code when it
//! changes. Everything unusual, from software step to an illegal return, is found before anything is changed, and goes the
//! way of all other exceptions.

use armlet_arm::exception::entered;
use armlet_arm::{Pstate, SysReg};

use super::vcpu::JitCore;
use crate::mmu::{LowerKey, TlbSet};

/// What the pieces of host code work with.
#[derive(Debug)]
#[repr(C)]
pub struct Levels {
    /// Nonzero: an SVC of EL0 may be taken.
    pub enter: u32,
    /// Nonzero: EL0, and EL1, may be returned to.
    pub back: [u32; 2],
    /// What PSTATE keeps when EL1 is entered, and what it has then in any case.
    pub kept: u32,
    /// See `kept`.
    pub set: u32,
    /// PSTATE.PAN that the lines in EL1's set are for, in its place.
    pub pan: u32,
    /// Nonzero: there was an exception return, which is an event for WFE, that the event register does not know of yet.
    pub event: u32,
    /// The sets of EL0 and EL1.
    pub sets: [*mut TlbSet; 2],
    /// SVCs that were taken so, if counting.
    pub entries: u64,
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            enter: 0,
            back: [0; 2],
            kept: 0,
            set: 0,
            pan: 0,
            event: 0,
            sets: [std::ptr::null_mut(); 2],
            entries: 0,
        }
    }
}

impl JitCore {
    /// Tells translated code how it may change the exception level. `contexts` are those of EL0 and of EL1 with SP_EL1.
    pub(super) fn prepare_levels(&mut self, contexts: [u16; 2]) {
        let quick = !self.is_counted() && !self.debug.each() && !self.debug.shapes_code();
        let [user, kernel] = [0, 1].map(|el| quick && self.el_context[el] == contexts[el]);
        let lower = self.sets.lower();
        let now = LowerKey { ttbr0: self.ttbr0(), asid: self.mmu.asid(), pan: lower.pan };
        let kernel = kernel && lower == now;
        let sets: [*mut TlbSet; 2] = [self.sets.el0(), self.sets.el1()];
        let levels = &mut self.state_mut().levels;
        levels.enter = kernel.into();
        levels.back = [user.into(), kernel.into()];
        levels.pan = if lower.pan { Pstate::PAN.bits() } else { 0 };
        levels.sets = sets;
    }

    /// SCTLR_EL1 has changed, which tells what PSTATE is when EL1 is entered.
    pub(super) fn prepare_entry(&mut self) {
        let sctlr = self.state().cpu.sys[SysReg::SctlrEl1];
        let [zeros, ones] = [Pstate::empty(), Pstate::from_bits_retain(u32::MAX)]
            .map(|old| entered(old, sctlr, &self.machine.model).bits());
        let levels = &mut self.state_mut().levels;
        (levels.kept, levels.set) = (ones & !zeros, zeros);
    }

    /// Tells the event register of exception returns.
    pub(super) fn publish_event(&mut self) {
        if std::mem::take(&mut self.state_mut().levels.event) != 0 {
            self.shared.set_event();
        }
    }
}
