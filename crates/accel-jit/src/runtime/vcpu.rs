//! One vCPU: the loop around translated code.
#![expect(unsafe_code, reason = "translated code is entered, and reaches the vCPU through its state")]

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use armlet_arm::exception::take;
use armlet_arm::mmu::Context;
use armlet_arm::pauth::{self, Key, Operation};
use armlet_arm::spec::sctlr;
use armlet_arm::{CpuState, Exception, Feature, Pstate, SysReg};
use armlet_engine::{
    AcceleratorError, DebugRequest, DebugStop, Halt, Kick, VcpuBackend, VcpuExit, VcpuShared,
};

use super::context::{Inputs, Regime};
use super::count::Counting;
use super::debug::Debug;
use super::exit::Exit;
use super::float_mode::{self, Trapping};
use super::maintenance::Remote;
use super::profile::{Sampling, Tick};
use super::state::{JitState, nzcv_from_arm, nzcv_to_arm};
use super::{attend, slow, slow_mem};
use crate::MachineShared;
use crate::cache::{CodeCache, CodeMemory};
use crate::host::x86_64::asm::Asm;
use crate::host::x86_64::generate::Generator;
use crate::host::x86_64::regs::VECTOR_COPIES;
use crate::host::x86_64::thunks::{self, About, SlowPaths, Thunks};
use crate::ir::Builder;
use crate::lift::LiftContext;
use crate::mmu::TlbSets;

/// Counters for `--stats`.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counters {
    pub exits: [u64; Exit::COUNT],
    pub translated_instructions: u64,
    pub translation_ns: u64,
    pub tlb_misses: u64,
    pub mmio: u64,
    pub system: u64,
    pub tlbi: u64,
    pub ic: u64,
    helpers: [u64; Helper::NAMES.len()],
    pub interrupts: u64,
    pub exceptions: u64,
    /// Instructions executed, where they are counted.
    pub instructions: u64,
}

impl Counters {
    /// Counts a call of a helper.
    pub fn helper(&mut self, helper: Helper) {
        self.helpers[helper as usize] += 1;
    }
}

/// What translated code calls for, other than accesses and system instructions; for `--stats`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Helper {
    VectorReference,
    LoadExclusivePair,
    StoreExclusivePair,
    CasPair,
    Sync,
    Pauth,
    Mops,
}

impl Helper {
    const NAMES: [&str; 7] = [
        "helper_vector_reference",
        "helper_load_exclusive_pair",
        "helper_store_exclusive_pair",
        "helper_cas_pair",
        "helper_sync",
        "helper_pauth",
        "helper_mops",
    ];
}

/// The state, shared with whoever may kick the vCPU.
struct StateCell(UnsafeCell<JitState>);

// SAFETY: other threads only use the two atomic flags, through `Kick`; everything else is the vCPU thread's.
unsafe impl Send for StateCell {}
// SAFETY: as above.
unsafe impl Sync for StateCell {}

impl Kick for StateCell {
    fn kick(&self) {
        let s = self.0.get();
        // SAFETY: the cell is alive; only the atomics are touched, by shared reference to each.
        unsafe {
            // Who takes the poll finds the hint.
            (*s).irq_hint.store(1, Ordering::Release);
            (*s).poll.store(1, Ordering::SeqCst);
        }
    }
}

/// An exit that translated code was left by, to be chained to the block that it leads to.
#[derive(Clone, Copy)]
struct Link {
    number: u32,
    /// Virtual address.
    target: u64,
    /// To a careful block.
    careful: bool,
}

/// A vCPU of the translator.
pub struct JitCore {
    cell: Arc<StateCell>,
    pub(super) machine: Arc<MachineShared>,
    pub(super) shared: Arc<VcpuShared>,
    pub(super) remote: Arc<Remote>,
    pub(super) sets: TlbSets,
    pub(super) cache: CodeCache,
    pub(super) generator: Generator,
    pub(super) builder: Builder,
    /// For instructions that are only looked at.
    pub(super) ahead: Builder,
    pub(super) thunks: Thunks,
    pub(super) mmu: Context,
    pub(super) regime: Regime,
    /// What the context was brought up to date with; `None` if anything else may have changed.
    pub(super) inputs: Option<Inputs>,
    pub(super) el_context: [u16; 2],
    pub(super) lift_base: LiftContext,
    pub(super) counters: Counters,
    pub(super) debug: Debug,
    pub(super) counting: Counting,
    /// For samples of where guest code executes.
    pub(super) tick: Option<Box<Tick>>,
    /// The state was changed from outside.
    changed: bool,
}

/// The vCPU whose translated code calls.
pub(super) fn core_of<'a>(s: *mut JitState) -> &'a mut JitCore {
    // SAFETY: `vcpu` is set before code is entered, by `run`, whose own reference is not used while
    // translated code runs; slow paths do not nest.
    unsafe { &mut *(*s).vcpu }
}

const SLOW_PATHS: SlowPaths = SlowPaths {
    access: slow_mem::access,
    watch: super::debug::watch,
    load_exclusive_pair: slow::load_exclusive_pair,
    store_exclusive_pair: slow::store_exclusive_pair,
    cas_pair: slow::cas_pair,
    system: slow::system,
    external_read: slow::external_read,
    external_write: slow::external_write,
    sync: slow::sync,
    pauth: slow::pauth,
    mops: super::mops::mops,
    vector: slow::vector,
    attend: attend::attend,
    attend_branch: attend::attend_branch,
    eret: attend::eret,
};

impl JitCore {
    /// Makes a vCPU, on the thread that will run it.
    ///
    /// # Errors
    /// The host has no memory for code.
    pub fn new(
        machine: Arc<MachineShared>,
        shared: Arc<VcpuShared>,
        state: CpuState,
    ) -> Result<Self, AcceleratorError> {
        let no_memory = |e| {
            AcceleratorError(format!(
                "the host gives no memory for translated code ({e}): raise the limit on address space (ulimit -v), or use \
                 fewer CPUs"
            ))
        };
        let mut memory = CodeMemory::new(machine.options.code_size).map_err(no_memory)?;
        let mut asm = Asm::default();
        asm.reset(memory.next_address());
        let time = machine.options.host_time.as_deref();
        let vectors = if machine.options.avx512 { VECTOR_COPIES } else { VECTOR_COPIES / 2 };
        let bti = machine.model.has(Feature::Bti);
        let about = About {
            bti,
            vectors,
            time,
            lines: shared.lines().map(|line| std::ptr::from_ref(line) as u64),
            spsr_mask: machine.model.spsr_mask(),
            count: machine.options.count,
            counted: machine.options.counter.is_some(),
        };
        let thunks = thunks::emit(&mut asm, &SLOW_PATHS, &about);
        memory.append(asm.code());
        let used = (memory.next_address() - memory.address(0)) as usize;
        let mmu = Context::new(&state, &machine.model);
        let cell = Arc::new(StateCell(UnsafeCell::new(JitState::new(state))));
        let code = memory.next_address()..memory.address(0) + machine.options.code_size as u64;
        let tick = machine.options.samples.as_ref().map(|_| Tick::new(cell.0.get(), code));
        let remote = Arc::new(Remote::default());
        remote.set_kick(cell.clone());
        machine.remotes.add(remote.clone());
        let lift_base = LiftContext {
            features: *machine.model.features(),
            el: 0,
            fp_enabled: false,
            fp_inline: false,
            half_inline: false,
            fp_alternate: false,
            fp_merge: false,
            check_sp: false,
            guarded: false,
            offset: 0,
        };
        Ok(Self {
            cell,
            machine,
            shared,
            remote,
            sets: TlbSets::new(),
            cache: CodeCache::new(memory, used),
            generator: Generator::new(thunks),
            builder: Builder::new(),
            ahead: Builder::new(),
            thunks,
            mmu,
            regime: Regime::default(),
            inputs: None,
            el_context: [0; 2],
            lift_base,
            counters: Counters::default(),
            debug: Debug::default(),
            counting: Counting::default(),
            tick,
            changed: true,
        })
    }

    pub(super) fn state(&self) -> &JitState {
        // SAFETY: only this thread reaches the state but for its atomics, and no `&mut` to it is held
        // across calls of this method (it is only made by `state_mut`, for the length of a borrow of self).
        unsafe { &*self.cell.0.get() }
    }

    pub(super) fn state_mut(&mut self) -> &mut JitState {
        // SAFETY: as in `state`; the borrow of self keeps others away.
        unsafe { &mut *self.cell.0.get() }
    }

    /// The state, and what all vCPUs share.
    pub(super) fn parts(&mut self) -> (&mut JitState, &MachineShared) {
        // SAFETY: as in `state_mut`.
        (unsafe { &mut *self.cell.0.get() }, &self.machine)
    }

    /// NZCV from the form of translated code to PSTATE.
    pub(super) fn sync_flags_out(&mut self) {
        let s = self.state_mut();
        let rest = s.cpu.pstate.bits() & !Pstate::NZCV.bits();
        s.cpu.pstate = Pstate::from_bits_retain(rest | nzcv_to_arm(s.nzcv));
    }

    fn sync_flags_in(&mut self) {
        let s = self.state_mut();
        s.nzcv = nzcv_from_arm(s.cpu.pstate.bits());
    }

    /// Takes an exception of the instruction at `offset` in the current page.
    pub(super) fn take_at_offset(&mut self, offset: u64, e: &Exception) {
        self.state_mut().cpu.pc = self.state().page_va.wrapping_add(offset);
        self.take(e);
    }

    /// Takes an exception of the instruction at PC.
    fn take(&mut self, e: &Exception) {
        self.sync_flags_out();
        self.counters.exceptions += 1;
        let (s, machine) = self.parts();
        take(&mut s.cpu, &machine.model, e);
    }

    /// Leaves translated code at its next poll.
    pub(super) fn poll_soon(&self) {
        self.state().poll.store(1, Ordering::SeqCst);
    }

    /// After changes from outside: nothing that was derived from the state is to be trusted.
    fn adopt_state(&mut self) {
        self.changed = false;
        self.sync_flags_in();
        let s = self.state_mut();
        s.mxcsr_guest = float_mode::mxcsr(&s.cpu.fp);
        self.regime = Regime::default();
        self.inputs = None;
        self.mmu = Context::new(&self.state().cpu, &self.machine.model);
        self.prepare_entry();
        self.sets.clear();
        self.look_at_debug_registers();
    }

    /// Makes the architectural state complete.
    fn publish_state(&mut self) {
        self.sync_flags_out();
        let s = self.state_mut();
        float_mode::move_flags(&mut s.mxcsr_guest, &mut s.cpu.fp);
        s.cpu.bank_sp();
        self.publish_event();
    }

    fn execute(&mut self) -> VcpuExit {
        if self.changed {
            self.adopt_state();
        }
        // Always look once: something may have been posted before.
        self.poll_soon();
        self.look_for_interrupts();
        let mut link = None;
        // The jump cache missed, or led to a block that is gone: do not ask it again.
        let mut missed = false;
        loop {
            if self.take_poll() {
                self.handle_mailbox();
                self.take_sample();
                if self.shared.exit_requested() {
                    return VcpuExit::Kicked;
                }
            }
            if let Some(stop) = self.debug.due() {
                return VcpuExit::Debug(stop);
            }
            if self.is_at_limit() {
                return VcpuExit::Kicked;
            }
            if self.takes_interrupts() && self.take_interrupts() && self.count_interrupt() {
                continue;
            }
            self.update_context();
            if self.debug.breaks_at(self.state().cpu.pc) {
                return VcpuExit::Debug(DebugStop::Breakpoint);
            }
            if let Some(exception) = self.exception_before() {
                self.take(&exception);
                continue;
            }
            let guest_step = self.guest_step();
            let exit = match self.enter(link.take(), std::mem::take(&mut missed)) {
                Ok(exit) => exit,
                Err(e) => {
                    self.debug.stepped();
                    self.count_failed_fetch();
                    self.take(&e);
                    continue;
                }
            };
            self.debug.stepped();
            self.count_exit(exit);
            if let Some(step) = guest_step.filter(|_| exit.completes()) {
                self.guest_stepped(step);
            }
            self.counters.exits[exit as usize] += 1;
            match exit {
                Exit::Look | Exit::Done | Exit::Limit => {}
                Exit::Chain => link = self.chain_target(),
                Exit::Indirect => {
                    missed = true;
                    self.canonical_target();
                }
                _ => {
                    if let Some(out) = self.handle(exit) {
                        return self.debug.instead_of(out);
                    }
                }
            }
        }
    }

    /// Runs translated code at PC; chains the exit `link` to it.
    fn enter(&mut self, link: Option<Link>, missed: bool) -> Result<Exit, Exception> {
        let pc = self.state().cpu.pc;
        let each = self.each();
        if each {
            // So that no branch finds its way to other code.
            self.poll_soon();
        }
        let set = if self.state().cpu.el() == 0 { self.sets.el0() } else { self.sets.el1() };
        let known = if missed || link.is_some() || each { None } else { set.jump(pc) };
        let code = match known {
            Some(code) => code,
            None => {
                let flushes = self.cache.statistics.flushes;
                // An interrupt may have been taken since the exit was left.
                let link = link.filter(|l| l.target == pc);
                let careful = link.is_some_and(|l| l.careful);
                let id = self.block_at(pc, careful)?;
                if let Some(link) = link
                    && self.cache.statistics.flushes == flushes
                    && !each
                    && !self.debug.stops_in(pc)
                {
                    self.cache.chain(link.number, id);
                }
                let code = self.cache.outer(id);
                if careful || each || self.debug.stops_in(pc) {
                    return Ok(self.execute_at(code, pc));
                }
                let set = if self.state().cpu.el() == 0 { self.sets.el0() } else { self.sets.el1() };
                set.fill_jump(pc, code);
                code
            }
        };
        Ok(self.execute_at(code, pc))
    }

    /// Executes translated code until it is left.
    fn execute_at(&mut self, code: u64, pc: u64) -> Exit {
        let core: *mut Self = self;
        let state = self.cell.0.get();
        // SAFETY: `code` is the outer entry of a live block in this vCPU's cache, made for the current
        // context; the thunk follows the C calling convention. `self` is not used until it returns, slow
        // paths reach it through the pointer that is stored here.
        unsafe {
            (*state).vcpu = core;
            let enter: extern "sysv64" fn(*mut JitState, u64, u64) = std::mem::transmute(self.thunks.enter);
            enter(state, code, pc);
        }
        Exit::from_code(self.state().exit_code)
    }

    /// PC becomes the target of the exit that translated code has just left by. Tells which exit, and where to.
    fn chain_target(&mut self) -> Option<Link> {
        let number = self.state().exit_arg as u32;
        let (target, careful) = self.cache.exit_target(number)?;
        let s = self.state_mut();
        s.cpu.pc = s.page_va.wrapping_add(u64::from(target));
        Some(Link { number, target: s.cpu.pc, careful })
    }

    /// A branch target whose top byte is ignored becomes canonical before it is PC.
    pub(super) fn canonical_target(&mut self) {
        let pc = self.mmu.branch_target(self.state().cpu.pc);
        self.state_mut().cpu.pc = pc;
    }

    /// Exits that need the architecture or the engine. PC is the instruction's address.
    fn handle(&mut self, exit: Exit) -> Option<VcpuExit> {
        let imm = self.state().exit_arg as u16;
        let exception = match exit {
            Exit::Undefined => Exception::undefined(),
            Exit::FpTrap => Exception::fp_access_trap(),
            Exit::Svc => Exception::svc(imm),
            Exit::Hvc => return self.hypercall(imm),
            // There is no EL3.
            Exit::Smc => Exception::undefined(),
            Exit::Brk => Exception::brk(imm),
            Exit::Hlt if imm == 0xf000 && self.machine.options.semihosting => {
                let cpu = &mut self.state_mut().cpu;
                cpu.pc += 4;
                cpu.pstate -= Pstate::BTYPE;
                return Some(VcpuExit::Semihosting);
            }
            Exit::Hlt => Exception::undefined(),
            Exit::PcAlignment => Exception::pc_alignment(self.state().cpu.pc),
            Exit::IllegalState => Exception::illegal_state(),
            Exit::SpAlignment => Exception::sp_alignment(),
            Exit::Eret => return self.exception_return(),
            Exit::EretAuthenticated => return self.authenticated_return(imm != 0),
            Exit::BranchTarget => return self.branch_target(imm != 0),
            Exit::Wfit => return self.timed_wait(false),
            Exit::Wfet => return self.timed_wait(true),
            Exit::Wfi => return self.wait(false),
            Exit::Wfe => return self.wait(true),
            Exit::Sev => {
                self.machine.send_event_to_all();
                self.shared.send_event();
                self.state_mut().cpu.pc += 4;
                return None;
            }
            Exit::Sevl => {
                self.shared.send_event();
                self.state_mut().cpu.pc += 4;
                return None;
            }
            Exit::Look | Exit::Chain | Exit::Indirect | Exit::Done | Exit::Limit => return None,
        };
        self.take(&exception);
        None
    }

    /// HVC: the machine's firmware interface; undefined at EL0.
    fn hypercall(&mut self, imm: u16) -> Option<VcpuExit> {
        if self.state().cpu.el() == 0 {
            self.take(&Exception::undefined());
            return None;
        }
        self.state_mut().cpu.pc += 4;
        Some(VcpuExit::Hypercall(imm))
    }

    /// ERETAA, ERETAB.
    fn authenticated_return(&mut self, b: bool) -> Option<VcpuExit> {
        let machine = self.machine.clone();
        let operation = Operation::AuthenticateCombined(if b { Key::Ib } else { Key::Ia });
        let cpu = &self.state().cpu;
        let pointer = (cpu.sys[SysReg::ElrEl1], cpu.x[31]);
        match pauth::perform(cpu, &machine.model, &self.mmu, operation, pointer) {
            Ok(target) => self.return_to(target),
            Err(e) => {
                self.take(&e);
                None
            }
        }
    }

    /// A branch has led to an instruction that is no target for it, unless (`by_control`) SCTLR_EL1 allows it.
    fn branch_target(&mut self, by_control: bool) -> Option<VcpuExit> {
        let cpu = &mut self.state_mut().cpu;
        let strict = cpu.sys[SysReg::SctlrEl1] & if cpu.el() == 0 { sctlr::BT0 } else { sctlr::BT1 } != 0;
        if by_control && !strict {
            cpu.pstate -= Pstate::BTYPE;
            return None;
        }
        let btype = (cpu.pstate & Pstate::BTYPE).bits() >> 10;
        self.count_failed_fetch();
        self.take(&Exception::branch_target(btype));
        None
    }

    pub(super) fn exception_return(&mut self) -> Option<VcpuExit> {
        self.return_to(self.state().cpu.sys[SysReg::ElrEl1])
    }

    fn return_to(&mut self, target: u64) -> Option<VcpuExit> {
        self.sync_flags_out();
        let (s, machine) = self.parts();
        match armlet_arm::exception::eret_to(&mut s.cpu, &machine.model, target) {
            Ok(()) => {
                self.sync_flags_in();
                // An exception return is an event for WFE.
                self.shared.set_event();
                // The masks may have changed. A line that rises from now on is followed by its kick.
                if self.shared.irq() || self.shared.fiq() {
                    self.state().irq_hint.store(1, Ordering::SeqCst);
                }
            }
            Err(e) => self.take(&e),
        }
        None
    }

    fn timed_wait(&mut self, event: bool) -> Option<VcpuExit> {
        match self.timed_wait_instruction(event) {
            Ok(halt) => {
                self.state_mut().cpu.pc += 4;
                self.look_for_interrupts();
                halt.map(|(halt, limit)| VcpuExit::HaltedFor(halt, limit))
            }
            Err(e) => {
                self.take(&e);
                None
            }
        }
    }

    fn wait(&mut self, event: bool) -> Option<VcpuExit> {
        match self.wait_instruction(event) {
            Ok(halt) => {
                self.state_mut().cpu.pc += 4;
                self.look_for_interrupts();
                halt.map(|h: Halt| VcpuExit::Halted(h))
            }
            Err(e) => {
                self.take(&e);
                None
            }
        }
    }
}

impl VcpuBackend for JitCore {
    fn kick_handle(&self) -> Arc<dyn Kick> {
        self.cell.clone()
    }

    fn run(&mut self) -> VcpuExit {
        let executing = self.remote.begin();
        self.handle_mailbox();
        let sampling = match (&self.tick, &self.machine.options.samples) {
            (Some(tick), Some(samples)) => Some(Sampling::begin(tick, samples.period())),
            _ => None,
        };
        let trapping = Trapping::begin(self.cell.0.get(), self.cache.addresses());
        let exit = self.execute();
        drop(trapping);
        drop(sampling);
        drop(executing);
        self.publish_state();
        exit
    }

    fn run_until(&mut self, until: u64) -> VcpuExit {
        self.begin_counting(until);
        let exit = self.run();
        self.end_counting();
        exit
    }

    fn state(&self) -> &CpuState {
        &JitCore::state(self).cpu
    }

    fn state_mut(&mut self) -> &mut CpuState {
        self.changed = true;
        &mut JitCore::state_mut(self).cpu
    }

    fn set_debug(&mut self, request: DebugRequest) -> Result<(), AcceleratorError> {
        if self.debug.set(request) {
            self.cache.flush();
            self.sets.clear_jumps();
        }
        Ok(())
    }

    fn steps(&self) -> bool {
        self.debug.steps()
    }

    fn memory_changed(&mut self) {
        self.cache.flush();
        self.sets.clear();
    }

    fn reset(&mut self, state: CpuState) {
        // Before the registers change: what was translated was translated from memory that has been replaced.
        self.memory_changed();
        *VcpuBackend::state_mut(self) = state;
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        let c = &self.counters;
        let s = &self.cache.statistics;
        let mut out: Vec<(String, u64)> = [
            ("blocks_run", JitCore::state(self).blocks_run),
            ("blocks_translated", s.blocks),
            ("instructions_translated", c.translated_instructions),
            ("translation_ns", c.translation_ns),
            ("code_bytes", s.bytes),
            ("code_flushes", s.flushes),
            ("blocks_invalidated", s.invalidated),
            ("tlb_misses", c.tlb_misses),
            ("mmio_accesses", c.mmio),
            ("system_instructions", c.system),
            ("tlb_invalidations", c.tlbi),
            ("instruction_cache_invalidations", c.ic),
            ("helper_vector", JitCore::state(self).vector_helpers),
            ("interrupts", c.interrupts),
            ("exceptions", c.exceptions + JitCore::state(self).levels.entries),
        ]
        .map(|(n, v)| (n.to_owned(), v))
        .into();
        out.extend(self.counted_statistics());
        out.extend(Helper::NAMES.iter().zip(c.helpers).map(|(name, n)| ((*name).to_owned(), n)));
        let exits = c.exits.iter().enumerate();
        out.extend(exits.map(|(i, n)| (format!("exit_{}", Exit::from_code(i as u32).name()), *n)));
        out
    }
}

impl Drop for JitCore {
    fn drop(&mut self) {
        self.machine.remotes.remove(&self.remote);
        self.machine.forget(&self.shared);
    }
}
