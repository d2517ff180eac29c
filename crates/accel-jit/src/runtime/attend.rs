//! What wants a vCPU's attention while translated code runs: interrupts, what other vCPUs ask for, the engine.
//!
//! All of it is found where translated code polls, and by instructions after which an interrupt may be taken. What can
//! be done there is done there, and translated code goes on, in the handler of an interrupt for example. It is left for
//! what belongs to the loop around it: the engine's requests, a debugger, exact counts.

use std::sync::atomic::Ordering;

use armlet_arm::Pstate;
use armlet_arm::exception::{take_fiq, take_irq};

use super::slow::{GO_ON, LEAVE};
use super::state::JitState;
use super::vcpu::{JitCore, core_of};

/// Something may want attention before the instruction at PC.
pub(super) extern "sysv64" fn attend(s: *mut JitState, _: u64, _: u64, _: u64, _: u64) -> u64 {
    core_of(s).attend()
}

/// The same before the target of an indirect branch.
pub(super) extern "sysv64" fn attend_branch(s: *mut JitState, _: u64, _: u64, _: u64, _: u64) -> u64 {
    let core = core_of(s);
    core.canonical_target();
    core.attend()
}

/// ERET, if there is anything unusual about it.
pub(super) extern "sysv64" fn eret(s: *mut JitState, _: u64, _: u64, _: u64, _: u64) -> u64 {
    let core = core_of(s);
    core.exception_return();
    core.attend()
}

impl JitCore {
    /// Looks at what wants attention before the instruction at PC. Tells whether translated code goes on at PC.
    pub(super) fn attend(&mut self) -> u64 {
        if self.must_leave() || self.look_up() {
            return LEAVE;
        }
        self.take_interrupts();
        // A branch leads to a block as the code at its target allows, and behind an illegal return comes an exception.
        if self.state().cpu.pstate.intersects(Pstate::BTYPE | Pstate::IL) {
            return LEAVE;
        }
        self.update_context();
        GO_ON
    }

    /// True if the loop around translated code has to see each step.
    pub(super) fn must_leave(&self) -> bool {
        self.is_counted() || self.debug.each() || self.debug.shapes_code()
    }

    /// Carries out what others have asked for. True if the engine wants the vCPU back, which will be found again.
    fn look_up(&mut self) -> bool {
        if !self.take_poll() {
            return false;
        }
        self.handle_mailbox();
        self.take_sample();
        let wanted = self.shared.exit_requested();
        if wanted {
            self.poll_soon();
        }
        wanted
    }

    /// True if there may be something to look at; what comes from now on will be told anew.
    pub(super) fn take_poll(&self) -> bool {
        let poll = &self.state().poll;
        poll.load(Ordering::Acquire) != 0 && poll.swap(0, Ordering::SeqCst) != 0
    }

    /// Looks at the interrupt lines as soon as they are not masked. A line that is seen to be up may not have
    /// been followed by its kick yet, and the thread that is to kick may not run for a long time.
    pub(super) fn look_for_interrupts(&self) {
        self.state().irq_hint.store(1, Ordering::SeqCst);
    }

    /// Takes an interrupt, if there is one that is not masked.
    pub(super) fn take_interrupts(&mut self) -> bool {
        let hint = &self.state().irq_hint;
        if hint.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let lines = || (self.shared.irq(), self.shared.fiq());
        let mut levels = lines();
        if levels == (false, false) {
            hint.store(0, Ordering::SeqCst);
            // One that rises from now on is followed by its kick.
            levels = lines();
            if levels == (false, false) {
                return false;
            }
            hint.store(1, Ordering::SeqCst);
        }
        // The hint stays: there may be another one behind this, and masks change.
        let (irq, fiq) = levels;
        let masks = self.state().cpu.pstate;
        if !masks.takes(irq, fiq) {
            return false;
        }
        self.sync_flags_out();
        let (s, machine) = self.parts();
        if fiq && !masks.contains(Pstate::F) {
            take_fiq(&mut s.cpu, &machine.model);
        } else {
            take_irq(&mut s.cpu, &machine.model);
        }
        self.counters.interrupts += 1;
        true
    }
}
