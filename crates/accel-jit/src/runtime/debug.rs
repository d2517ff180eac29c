//! Debugging: what a debugger outside wants of a vCPU, and the guest's own breakpoints, watchpoints and software
//! step.
//!
//! Nothing of this costs anything while nothing is wanted. Blocks that are made while something is end before each
//! instruction whose place in its page is that of a breakpoint, and such places are only ever reached through the
//! loop around translated code, which looks closer. Code that is made while there are watchpoints asks before each
//! access. A step executes a block of one instruction. All of it has a context bit of its own, so that switching
//! it on and off forgets no code.

use armlet_arm::debug::{self, Armed, Step, WatchedAccess};
use armlet_arm::mmu::{Access, AccessKind};
use armlet_arm::{CpuState, Exception, Pstate};
use armlet_engine::{DebugRequest, DebugStop, VcpuExit};

use super::state::JitState;
use super::vcpu::{JitCore, core_of};
use crate::mmu::SlowAccess;

const PAGE: u64 = 4096;

/// What blocks depend on.
#[derive(Clone, Default, PartialEq, Eq)]
struct Shape {
    /// Offsets in a page with a breakpoint, in ascending order.
    offsets: Vec<u16>,
    /// Accesses are watched.
    watches: bool,
}

/// A vCPU's debugging.
#[derive(Default)]
pub(super) struct Debug {
    request: DebugRequest,
    /// The guest's own.
    armed: Armed,
    shape: Shape,
    /// The shape that the blocks with the context bit were made for.
    made_for: Shape,
    /// An instruction of a step has executed.
    stepped: bool,
    /// The guest's software step has let an instruction through, and nothing else has happened since: whether that
    /// was a load-exclusive.
    guest_stepped: Option<bool>,
    /// What is to be reported.
    due: Option<DebugStop>,
}

impl Debug {
    /// Takes a new request; true if code that was made for another one is to be forgotten.
    pub fn set(&mut self, request: DebugRequest) -> bool {
        (self.request, self.stepped, self.due) = (request, false, None);
        self.reshape()
    }

    /// Looks at the guest's debug registers; true if code that was made for others is to be forgotten.
    pub fn look_at(&mut self, cpu: &CpuState) -> bool {
        let armed = Armed::new(cpu);
        let changed = armed != self.armed;
        self.armed = armed;
        changed && self.reshape()
    }

    fn reshape(&mut self) -> bool {
        let all = self.request.breakpoints.iter().chain(&self.armed.breakpoints);
        let mut offsets: Vec<u16> = all.map(|a| (a % PAGE) as u16).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let watches = !self.request.watchpoints.is_empty() || self.armed.watchpoints;
        self.shape = Shape { offsets, watches };
        if !self.shapes_code() || self.shape == self.made_for {
            return false;
        }
        self.made_for = self.shape.clone();
        true
    }

    /// Blocks have to be made for it.
    pub fn shapes_code(&self) -> bool {
        self.shape != Shape::default()
    }

    /// A debugger wants one instruction.
    pub fn steps(&self) -> bool {
        self.request.step
    }

    /// Each instruction is a block.
    pub fn each(&self) -> bool {
        self.request.step || self.armed.each
    }

    /// Accesses are watched.
    pub fn watches(&self) -> bool {
        self.shape.watches
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

    /// Code at this address may only be entered after a look.
    pub fn stops_in(&self, address: u64) -> bool {
        self.each() || self.has_offset((address % PAGE) as u16)
    }

    /// A block must end before the instruction at this offset in its page.
    pub fn has_offset(&self, offset: u16) -> bool {
        !self.shape.offsets.is_empty() && self.shape.offsets.binary_search(&offset).is_ok()
    }

    /// True if there is a debugger's breakpoint at `pc`, and it is not being stepped over.
    pub fn breaks_at(&self, pc: u64) -> bool {
        !self.request.step && self.has_offset((pc % PAGE) as u16) && self.request.breakpoints.contains(&pc)
    }

    /// The guest's breakpoint before the instruction at PC.
    fn breakpoint(&self, cpu: &CpuState) -> Option<Exception> {
        let hit = self.stops_in(cpu.pc) && debug::breakpoint_hit(cpu);
        hit.then(Exception::breakpoint)
    }

    /// The guest's software step that is due before the instruction at PC; `stepped` as in `guest_stepped`.
    fn software_step(&self, cpu: &CpuState, stepped: Option<bool>) -> Option<Exception> {
        let due = self.armed.each && debug::step(cpu) == Step::Pending;
        due.then(|| Exception::software_step(stepped))
    }

    /// True if the instruction at PC is one that software step lets through.
    pub fn guest_steps(&self, cpu: &CpuState) -> bool {
        self.armed.each && debug::step(cpu) == Step::NotPending
    }

    /// What `run` returns: a step over an instruction that waits ends behind it.
    pub fn instead_of(&mut self, exit: VcpuExit) -> VcpuExit {
        match exit {
            VcpuExit::Halted(_) | VcpuExit::HaltedFor(..) if self.request.step => {
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
            self.undo();
        }
        hit
    }
}

impl JitCore {
    /// After the guest's debug registers may have changed.
    pub(super) fn look_at_debug_registers(&mut self) {
        let mut debug = std::mem::take(&mut self.debug);
        let stale = debug.look_at(&self.state().cpu);
        self.debug = debug;
        if stale {
            self.cache.flush();
            self.sets.clear_jumps();
        }
    }

    /// The guest's watchpoint that an access would meet.
    pub(super) fn guest_watchpoint(
        &self,
        va: u64,
        bytes: u64,
        kind: (bool, bool),
        el: usize,
    ) -> Option<Exception> {
        let access = WatchedAccess { address: va, bytes, read: kind.0, write: kind.1, el };
        let cpu = &self.state().cpu;
        let hit = debug::watchpoint_hit(cpu, &access)?;
        // An access that updates memory counts as a read if reading is watched.
        let read = WatchedAccess { write: false, ..access };
        let write = kind.1 && !(kind.0 && debug::watchpoint_hit(cpu, &read).is_some());
        Some(Exception::watchpoint(hit, write, false))
    }

    /// The guest's watchpoint that DC IVAC would meet: it counts as a write of the cache line, and tells the address
    /// that it was given (Arm ARM D2.10).
    pub(super) fn maintenance_watchpoint(&self, va: u64) -> Option<Exception> {
        let bytes = self.machine.model.data_line_bytes();
        let cpu = &self.state().cpu;
        let line =
            WatchedAccess { address: va & !(bytes - 1), bytes, read: false, write: true, el: cpu.el() };
        debug::watchpoint_hit(cpu, &line).map(|_| Exception::watchpoint(va, true, true))
    }

    /// Exception level whose permissions an access has.
    pub(super) fn level_of(&self, access: SlowAccess) -> usize {
        let cpu = &self.state().cpu;
        if access.unprivileged() && !cpu.pstate.contains(Pstate::UAO) { 0 } else { cpu.el() }
    }

    /// True if an access is misaligned or fails in translation, which comes before a watchpoint (Arm ARM D1.3.5, synchronous exception
    /// prioritization).
    pub(super) fn fails_first(&mut self, va: u64, bytes: u64, access: SlowAccess) -> bool {
        let el = u8::from(self.level_of(access) > 0);
        let kind = if access.write() { AccessKind::WriteCheck } else { AccessKind::Read };
        let request = Access { kind, el, pan: el > 0 && self.pan() };
        let misaligned = if access.atomic() {
            va & (bytes - 1) != 0 && !self.may_be_unaligned(va, access)
        } else {
            self.check_alignment(va, access).is_err()
        };
        misaligned
            || [va, va.wrapping_add(bytes - 1)].into_iter().any(|at| self.probe_address(at, request).is_err())
    }

    /// The exception that is due before the instruction at PC executes, other than that of its fetch (Arm ARM
    /// D1.3.5, synchronous exception prioritization).
    pub(super) fn exception_before(&mut self) -> Option<Exception> {
        let stepped = self.debug.guest_stepped.take();
        let cpu = &self.state().cpu;
        let step = self.debug.software_step(cpu, stepped);
        if step.is_some() {
            return step;
        }
        let illegal = cpu.pstate.contains(Pstate::IL);
        let behind_fetch = self.debug.breakpoint(cpu).or_else(|| illegal.then(Exception::illegal_state))?;
        // A fetch that fails comes first, and will fail again.
        let pc = cpu.pc;
        self.fetch(pc).is_ok().then_some(behind_fetch)
    }

    /// What is to be known of the instruction at PC to step over it: whether it is a load-exclusive, and how many
    /// exceptions there have been. `None` if it is not one that software step lets through.
    pub(super) fn guest_step(&mut self) -> Option<(bool, u64)> {
        if !self.debug.guest_steps(&self.state().cpu) {
            return None;
        }
        let pc = self.state().cpu.pc;
        let exclusive = self.instruction_at(pc).is_some_and(debug::is_load_exclusive);
        Some((exclusive, self.counters.exceptions))
    }

    /// After an instruction that software step has let through; `step` as [`JitCore::guest_step`] gave it.
    pub(super) fn guest_stepped(&mut self, (exclusive, exceptions): (bool, u64)) {
        if self.counters.exceptions == exceptions {
            self.state_mut().cpu.pstate.remove(Pstate::SS);
            self.debug.guest_stepped = Some(exclusive);
        }
    }
}

/// Asks whether an access may be made: `access` describes it, `bytes` is its length, with bit 8 set if it reads.
pub(super) extern "sysv64" fn watch(s: *mut JitState, va: u64, access: u64, bytes: u64, _: u64) -> u64 {
    let core = core_of(s);
    let access = SlowAccess::from_bits(access);
    let (kind, bytes) = ((bytes & 0x100 != 0, access.write()), bytes & 0xff);
    if let Some(exception) = core.guest_watchpoint(va, bytes, kind, core.level_of(access)) {
        if core.fails_first(va, bytes, access) {
            return 0;
        }
        core.take_at_offset(access.offset(), &exception);
        return 1;
    }
    if !core.meets_watchpoint(va, bytes, kind) {
        return 0;
    }
    let pc = core.state().page_va.wrapping_add(access.offset());
    core.state_mut().cpu.pc = pc;
    1
}
