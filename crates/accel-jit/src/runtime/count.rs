//! Executing an exact number of instructions.
//!
//! Translated code keeps the count ([`generate::count`](crate::host::x86_64::generate)) and never enters a block that
//! would go beyond the limit; the rest is executed one by one. Whatever the guest does that may change an interrupt
//! line takes effect before the next instruction: system instructions leave translated code if something has got
//! their vCPU's attention, and accesses to devices are executed one by one. So what the guest sees depends on the
//! count alone, and not on how its code is cut into blocks.

use std::sync::atomic::Ordering;

use super::exit::Exit;
use super::vcpu::JitCore;

/// How the count stands.
#[derive(Default)]
pub(super) struct Counting {
    /// The next instruction is executed by itself.
    alone: bool,
    /// Translated code was left before the instruction at which it was.
    undone: bool,
    /// The count when this vCPU began.
    start: u64,
}

impl JitCore {
    /// Instructions are counted here.
    pub(super) fn is_counted(&self) -> bool {
        self.machine.options.counter.is_some()
    }

    /// The next block is one instruction.
    pub(super) fn each(&self) -> bool {
        self.debug.each() || self.counting.alone
    }

    /// From the machine's count up to `limit`.
    pub(super) fn begin_counting(&mut self, limit: u64) {
        let Some(counter) = self.machine.options.counter.clone() else { return };
        self.counting.start = counter.now();
        let s = self.state_mut();
        (s.count, s.limit) = (counter.now(), limit);
    }

    pub(super) fn end_counting(&mut self) {
        let Some(counter) = &self.machine.options.counter else { return };
        let count = self.state().count;
        counter.set(count);
        self.counters.instructions += count - self.counting.start;
    }

    pub(super) fn is_at_limit(&self) -> bool {
        self.is_counted() && self.state().count >= self.state().limit
    }

    /// Time is that of the current instruction.
    pub(super) fn note_count(&self) {
        if let Some(counter) = &self.machine.options.counter {
            let s = self.state();
            counter.set(s.count + u64::from(s.position).saturating_sub(1));
        }
    }

    /// A step of a debugger takes no interrupts, so that it ends where it is expected to. Where time is counted it must
    /// not change what happens when, and an interrupt is a step.
    pub(super) fn takes_interrupts(&self) -> bool {
        self.is_counted() || !self.debug.steps()
    }

    /// An interrupt was taken: that counts, so that there is one state for each count. True if so.
    pub(super) fn count_interrupt(&mut self) -> bool {
        let counted = self.is_counted();
        if counted {
            self.state_mut().count += 1;
            self.debug.stepped();
        }
        counted
    }

    /// A fetch that failed counts as an instruction, so that time goes on whatever happens.
    pub(super) fn count_failed_fetch(&mut self) {
        self.counting.alone = false;
        self.state_mut().count += 1;
    }

    /// Translated code was left: counts what it has not counted itself.
    pub(super) fn count_exit(&mut self, exit: Exit) {
        if !self.is_counted() {
            return;
        }
        let undone = std::mem::take(&mut self.counting.undone);
        match exit {
            Exit::Limit => self.counting.alone = true,
            Exit::Done if undone => {
                let s = self.state_mut();
                s.count += u64::from(s.position) - 1;
                s.trace = s.trace_before;
            }
            Exit::Done => {
                let s = self.state_mut();
                s.count += u64::from(s.position);
                self.counting.alone = false;
            }
            _ => self.counting.alone = false,
        }
    }

    /// Translated code is about to be left before the current instruction.
    pub(super) fn undo(&mut self) {
        self.counting.undone = true;
    }

    /// Translated code goes on after all.
    pub(super) fn redo(&mut self) {
        (self.counting.alone, self.counting.undone) = (false, false);
    }

    /// True if the current instruction, which accesses a device, has to be executed by itself; translated code is to
    /// be left.
    pub(super) fn must_be_alone(&mut self) -> bool {
        if !self.is_counted() || self.each() {
            return false;
        }
        self.counting.alone = true;
        self.undo();
        true
    }

    /// True if a system instruction may have changed an interrupt line of this vCPU.
    pub(super) fn leaves_after_device(&self) -> bool {
        self.is_counted() && self.state().poll.load(Ordering::Relaxed) != 0
    }

    pub(super) fn counted_statistics(&self) -> Vec<(String, u64)> {
        let mut out = Vec::new();
        if self.is_counted() {
            out.push(("instructions".to_owned(), self.counters.instructions));
        }
        if self.machine.options.trace {
            out.push(("trace_hash".to_owned(), self.state().trace));
        }
        out
    }
}
