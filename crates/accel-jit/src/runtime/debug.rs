//! What a debugger wants of a vCPU: breakpoints, watchpoints, single steps.
//!
//! Nothing of this costs anything while nothing is wanted. Blocks end before each instruction whose place in its
//! page is that of a breakpoint, and such places are only ever reached through the loop around translated code,
//! which looks at the address. Code that is made while there are watchpoints asks before each access. A step
//! executes a block of one instruction.

use armlet_engine::{DebugRequest, DebugStop, VcpuExit};

use super::state::JitState;
use super::vcpu::{JitCore, core_of};
use crate::mmu::SlowAccess;

const PAGE: u64 = 4096;

/// A vCPU's debugging.
#[derive(Default)]
pub(super) struct Debug {
    request: DebugRequest,
    /// Offsets in a page with a breakpoint, in ascending order.
    offsets: Vec<u16>,
    /// An instruction of a step has executed.
    stepped: bool,
    /// What is to be reported.
    due: Option<DebugStop>,
}

impl Debug {
    /// Takes a new request; true if translated code is no longer right.
    pub fn set(&mut self, request: DebugRequest) -> bool {
        let mut offsets: Vec<u16> = request.breakpoints.iter().map(|a| (a % PAGE) as u16).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let stale =
            offsets != self.offsets || request.watchpoints.is_empty() != self.request.watchpoints.is_empty();
        *self = Self { request, offsets, stepped: false, due: None };
        stale
    }

    /// One instruction at a time.
    pub fn steps(&self) -> bool {
        self.request.step
    }

    /// Accesses are watched.
    pub fn watches(&self) -> bool {
        !self.request.watchpoints.is_empty()
    }

    /// What is to be reported, once.
    pub fn due(&mut self) -> Option<DebugStop> {
        let step = (std::mem::take(&mut self.stepped) && self.request.step).then_some(DebugStop::Step);
        self.due.take().or(step)
    }

    /// Translated code was left: in a step, an instruction has executed or its exception was taken.
    pub fn stepped(&mut self) {
        self.stepped = self.request.step;
    }

    /// Code at this address may only be entered after a look at the breakpoints.
    pub fn stops_in(&self, address: u64) -> bool {
        self.request.step || self.has_offset((address % PAGE) as u16)
    }

    /// A block must end before the instruction at this offset in its page.
    pub fn has_offset(&self, offset: u16) -> bool {
        !self.offsets.is_empty() && self.offsets.binary_search(&offset).is_ok()
    }

    /// True if there is a breakpoint at `pc`, and it is not being stepped over.
    pub fn breaks_at(&self, pc: u64) -> bool {
        !self.request.step && self.has_offset((pc % PAGE) as u16) && self.request.breakpoints.contains(&pc)
    }

    /// What `run` returns: a step over an instruction that waits ends behind it.
    pub fn instead_of(&mut self, exit: VcpuExit) -> VcpuExit {
        match exit {
            VcpuExit::Halted(_) if self.request.step => {
                self.stepped = false;
                VcpuExit::Debug(DebugStop::Step)
            }
            other => other,
        }
    }
}

impl JitCore {
    /// Notes a watchpoint that an access would meet.
    pub(super) fn meets_watchpoint(&mut self, address: u64, bytes: u64, kind: (bool, bool)) -> bool {
        let hit = self.debug.request.watchpoints.iter().any(|w| w.is_hit(address, bytes, kind));
        if hit {
            self.debug.due = Some(DebugStop::Watchpoint { address, write: kind.1 });
            self.debug.stepped = false;
        }
        hit
    }
}

/// Asks whether an access may be made: `access` describes it, `bytes` is its length, with bit 8 set if it reads.
pub(super) extern "sysv64" fn watch(s: *mut JitState, va: u64, access: u64, bytes: u64, _: u64) -> u64 {
    let core = core_of(s);
    let access = SlowAccess::from_bits(access);
    let kind = (bytes & 0x100 != 0, access.write());
    if !core.meets_watchpoint(va, bytes & 0xff, kind) {
        return 0;
    }
    let pc = core.state().page_va.wrapping_add(access.offset());
    core.state_mut().cpu.pc = pc;
    1
}
