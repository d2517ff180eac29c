//! Slow paths of everything but plain memory accesses.
#![expect(unsafe_code, reason = "128-bit atomics on guest RAM")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use armlet_arm::mmu::{Access, AccessKind};
use armlet_arm::model::COUNTER_FREQUENCY;
use armlet_arm::sysop::{SysEncoding, SysOp, address_translate, decode_sys};
use armlet_arm::sysreg::Effects;
use armlet_arm::{Exception, Pstate, SysReg, pauth, sysreg};
use armlet_engine::Halt;

use super::maintenance::Maintenance;
use super::slow_mem::{Trouble, Walker};
use super::state::{JitState, nzcv_from_arm};
use super::vcpu::{Helper, JitCore, core_of};
use crate::ir::interp;
use crate::mmu::{Fetch, SlowAccess};

pub(super) const STAY: u64 = 0;
pub(super) const LEAVE: u64 = 1;
pub(super) const GO_ON: u64 = 2;

/// Compare-and-swap of 16 bytes.
///
/// # Safety
/// `p` must be valid for reads and writes of 16 bytes and aligned to 16.
unsafe fn cas16(p: *mut u128, old: u128, new: u128) -> u128 {
    let (mut lo, mut hi) = (old as u64, (old >> 64) as u64);
    // By hand: without optimisation the intrinsic becomes a call into libatomic.
    // SAFETY: the caller vouches for the address; the feature was checked when the accelerator was made. RBX
    // cannot be an operand, so it is exchanged for the time of the instruction.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {new_lo}",
            "lock cmpxchg16b [rdi]",
            "mov rbx, {new_lo}",
            in("rdi") p,
            new_lo = inout(reg) new as u64 => _,
            in("rcx") (new >> 64) as u64,
            inout("rax") lo,
            inout("rdx") hi,
            options(nostack),
        );
    }
    u128::from(lo) | u128::from(hi) << 64
}

/// Compare-and-swap of a pair of `size`-byte elements at `p`; returns the old value.
///
/// # Safety
/// `p` must be valid for reads and writes of two elements, and both must be in the same 16 aligned bytes.
unsafe fn cas_pair_at(p: *mut u8, size: u64, old: u128, new: u128) -> u128 {
    // SAFETY: the caller vouches for the address.
    unsafe {
        if size == 8 {
            return cas16(p.cast(), old, new);
        }
        // By hand: the address may be a multiple of less than 8.
        let mut seen = old as u64;
        std::arch::asm!(
            "lock cmpxchg qword ptr [{p}], {new}",
            p = in(reg) p,
            new = in(reg) new as u64,
            inout("rax") seen,
            options(nostack),
        );
        seen.into()
    }
}

fn join(size: u64, lo: u64, hi: u64) -> u128 {
    if size == 8 { u128::from(lo) | u128::from(hi) << 64 } else { u128::from(lo & 0xffff_ffff | hi << 32) }
}

fn split(size: u64, v: u128) -> (u64, u64) {
    if size == 8 { (v as u64, (v >> 64) as u64) } else { (v as u64 & 0xffff_ffff, v as u64 >> 32) }
}

pub(super) extern "sysv64" fn load_exclusive_pair(s: *mut JitState, va: u64, a: u64, _: u64, _: u64) -> u64 {
    let core = core_of(s);
    core.counters.helper(Helper::LoadExclusivePair);
    let access = SlowAccess::from_bits(a);
    let size = access.bytes();
    let p = match core.atomic_target(va, size * 2, access.with_atomic(true)) {
        Ok(p) => p,
        Err(trouble) => return core.leave_in(access.offset(), trouble),
    };
    // A read by compare-and-swap needs write permission on the host page, which RAM always has.
    // SAFETY: `atomic_target` vouches for an aligned pair in RAM.
    let v = unsafe { cas_pair_at(p, size, 0, 0) };
    let (lo, hi) = split(size, v);
    let st = core.state_mut();
    st.cpu.monitor.address = va;
    st.cpu.monitor.size = size * 2;
    st.cpu.monitor.value_lo = lo;
    st.cpu.monitor.value_hi = hi;
    st.result = lo;
    st.result2 = hi;
    STAY
}

pub(super) extern "sysv64" fn store_exclusive_pair(
    s: *mut JitState,
    va: u64,
    a: u64,
    v1: u64,
    v2: u64,
) -> u64 {
    let core = core_of(s);
    core.counters.helper(Helper::StoreExclusivePair);
    let access = SlowAccess::from_bits(a);
    let size = access.bytes();
    let m = core.state().cpu.monitor;
    core.state_mut().cpu.monitor.address = u64::MAX;
    core.state_mut().result = 1;
    if m.address != va || m.size != size * 2 {
        return STAY;
    }
    let p = match core.atomic_target(va, size * 2, access.with_atomic(true)) {
        Ok(p) => p,
        Err(trouble) => return core.leave_in(access.offset(), trouble),
    };
    let old = join(size, m.value_lo, m.value_hi);
    // SAFETY: `atomic_target` vouches for an aligned pair in RAM.
    let seen = unsafe { cas_pair_at(p, size, old, join(size, v1, v2)) };
    core.state_mut().result = u64::from(seen != old);
    STAY
}

pub(super) extern "sysv64" fn cas_pair(s: *mut JitState, va: u64, a: u64, numbers: u64, _: u64) -> u64 {
    let core = core_of(s);
    core.counters.helper(Helper::CasPair);
    let access = SlowAccess::from_bits(a).with_update(true);
    let size = access.bytes();
    let p = match core.atomic_target(va, size * 2, access.with_atomic(true)) {
        Ok(p) => p,
        Err(trouble) => return core.leave_in(access.offset(), trouble),
    };
    let st = core.state_mut();
    // Register 31 is zero here, not SP.
    let x = |n: u64| if n >= 31 { 0 } else { st.cpu.x[n as usize] };
    let (d, n) = (numbers & 0xff, numbers >> 8 & 0xff);
    let (old, new) = (join(size, x(d), x(d + 1)), join(size, x(n), x(n + 1)));
    // SAFETY: `atomic_target` vouches for an aligned pair in RAM.
    let (lo, hi) = split(size, unsafe { cas_pair_at(p, size, old, new) });
    for (r, v) in [(d, lo), (d + 1, hi)] {
        if r < 31 {
            st.cpu.x[r as usize] = v;
        }
    }
    STAY
}

pub(super) extern "sysv64" fn sync(s: *mut JitState, _: u64, _: u64, _: u64, _: u64) -> u64 {
    let core = core_of(s);
    core.counters.helper(Helper::Sync);
    core.wait_for_others();
    STAY
}

/// Pointer authentication. The operation is behind the offset.
pub(super) extern "sysv64" fn pauth(s: *mut JitState, pointer: u64, what: u64, modifier: u64, _: u64) -> u64 {
    let core = core_of(s);
    core.counters.helper(Helper::Pauth);
    let operation = pauth::Operation::from_bits((what >> 16) as u8);
    let machine = core.machine.clone();
    let cpu = &core.state().cpu;
    match pauth::perform(cpu, &machine.model, &core.mmu, operation, (pointer, modifier)) {
        Ok(result) => {
            core.state_mut().result = result;
            STAY
        }
        Err(e) => core.leave_with(what & 0xfff, &e),
    }
}

/// Executes a vector IR instruction by the reference interpreter. rax is the instruction's address.
pub(super) extern "sysv64" fn vector(s: *mut JitState, inst: u64, input: u64, _: u64, _: u64) -> u64 {
    let core = core_of(s);
    core.counters.helper(Helper::VectorReference);
    // SAFETY: the code generator put the address of an instruction there that lives as long as the block.
    let inst = unsafe { &*(inst as *const crate::ir::Inst) };
    let st = core.state_mut();
    st.result = interp::vector_instruction(inst, &mut st.cpu, &mut st.v_scratch, input);
    core.exceptions_raised();
    STAY
}

/// MRS, MSR (register and immediate), SYS: by the instruction word.
pub(super) extern "sysv64" fn system(s: *mut JitState, value: u64, offset: u64, word: u64, _: u64) -> u64 {
    let core = core_of(s);
    let offset = offset & 0xfff;
    match core.system_instruction(value, word as u32, offset) {
        Ok(result) => result,
        Err(e) => core.leave_with(offset, &e),
    }
}

/// MRS of EL1 of a register outside.
pub(super) extern "sysv64" fn external_read(s: *mut JitState, _: u64, _: u64, reg: u64, _: u64) -> u64 {
    let core = core_of(s);
    core.counters.system += 1;
    core.note_count();
    let (s, machine) = core.parts();
    s.result = SysReg::ALL.get(reg as usize).map_or(0, |r| machine.external.read(s.cpu.index as usize, *r));
    STAY
}

/// MSR of EL1 to a register outside.
pub(super) extern "sysv64" fn external_write(
    s: *mut JitState,
    value: u64,
    offset: u64,
    reg: u64,
    _: u64,
) -> u64 {
    let core = core_of(s);
    core.counters.system += 1;
    core.note_count();
    let (s, machine) = core.parts();
    if let Some(reg) = SysReg::ALL.get(reg as usize) {
        machine.external.write(s.cpu.index as usize, *reg, value);
    }
    if core.is_undisturbed() && !core.has_interrupt() {
        return STAY;
    }
    core.state_mut().cpu.pc = core.state().page_va.wrapping_add(offset + 4);
    core.attend()
}

impl JitCore {
    fn leave_with(&mut self, offset: u64, e: &Exception) -> u64 {
        self.take_at_offset(offset, e);
        self.go_on_at_vector()
    }

    /// After an exception was taken: its handler follows, unless something else wants to be looked at.
    pub(super) fn go_on_at_vector(&mut self) -> u64 {
        if !self.is_undisturbed() {
            return LEAVE;
        }
        self.update_context();
        GO_ON
    }

    fn system_instruction(&mut self, value: u64, word: u32, offset: u64) -> Result<u64, Exception> {
        self.counters.system += 1;
        self.note_count();
        self.sync_flags_out();
        let enc = (word >> 5) as u16;
        let (read, rt) = (word & 1 << 21 != 0, word & 31);
        let core_pc = self.state().page_va.wrapping_add(offset);
        // What a register read tells of interrupts or time must not depend on a stale PC.
        self.state_mut().cpu.pc = core_pc;
        let effects = match word >> 19 & 3 {
            0 => {
                let (op1, crm, op2) = (word >> 16 & 7, word >> 8 & 15, word >> 5 & 7);
                let (s, machine) = self.parts();
                sysreg::pstate_write(&mut s.cpu, &machine.model, op1, op2, crm)?
            }
            1 => return self.sys_operation(value, word, offset),
            _ if read => {
                self.merge_fp_flags_for(enc);
                let (s, machine) = self.parts();
                let cpu = &mut s.cpu;
                let v = sysreg::read(cpu, &machine.model, &*machine.external, enc, rt)?;
                let flags = cpu.pstate.bits();
                s.result = v;
                // Random numbers tell by the flags that there was one.
                s.nzcv = nzcv_from_arm(flags);
                return Ok(STAY);
            }
            _ => {
                self.merge_fp_flags_for(enc);
                let (s, machine) = self.parts();
                let cpu = &mut s.cpu;
                sysreg::write(cpu, &machine.model, &*machine.external, enc, rt, value)?
            }
        };
        Ok(self.apply(effects, core_pc + 4))
    }

    /// Leaves translated code if something that it depends on may have changed.
    fn apply(&mut self, effects: Effects, next: u64) -> u64 {
        if effects.contains(Effects::FP) {
            self.load_fp_mode();
        }
        if effects.contains(Effects::DEBUG) {
            self.look_at_debug_registers();
        }
        let flags = self.state().cpu.pstate.bits() & Pstate::NZCV.bits();
        self.state_mut().nzcv = nzcv_from_arm(flags);
        let stays =
            if effects.is_empty() { !self.leaves_after_device() } else { self.goes_on_after(effects) };
        if stays {
            return STAY;
        }
        self.state_mut().cpu.pc = next;
        if effects.contains(Effects::DEBUG) { LEAVE } else { self.attend() }
    }

    /// Brings FPSR up to date for an access to the register with this encoding.
    fn merge_fp_flags_for(&mut self, enc: u16) {
        if [SysReg::Fpsr, SysReg::Fpcr].map(SysReg::encoding).contains(&enc) {
            self.merge_fp_flags();
        }
    }

    /// True if there may be an interrupt that is not masked.
    fn has_interrupt(&self) -> bool {
        let masked = self.state().cpu.pstate.contains(Pstate::I | Pstate::F);
        !masked && self.state().irq_hint.load(Ordering::Relaxed) != 0
    }

    /// True if what comes behind an instruction with these effects is the same as before it, and nothing wants attention.
    fn goes_on_after(&mut self, effects: Effects) -> bool {
        if effects.contains(Effects::DEBUG) || !self.is_undisturbed() || self.has_interrupt() {
            return false;
        }
        if effects == Effects::INTERRUPTS {
            return true;
        }
        let before = (self.context(), self.current_page());
        self.update_context();
        before.1.is_some() && before == (self.context(), self.current_page())
    }

    /// True if nobody debugs, counts, or waits for the vCPU's attention.
    fn is_undisturbed(&self) -> bool {
        self.state().poll.load(Ordering::Relaxed) == 0 && !self.must_leave()
    }

    fn sys_operation(&mut self, value: u64, word: u32, offset: u64) -> Result<u64, Exception> {
        let encoding = SysEncoding::unpack((word >> 5) as u16 & 0x3fff);
        let op = decode_sys(&self.state().cpu, &self.machine.model, encoding, word & 31)?;
        match op {
            SysOp::DcZva => return self.zero_block(value, offset),
            SysOp::Tlbi(t) => {
                let target = t.target(value, &self.state().cpu, &self.machine.model);
                self.counters.tlbi += 1;
                self.sets.invalidate(&target);
                if t.broadcast {
                    self.broadcast(Maintenance::Tlb(target));
                }
                if self.current_page_is_known() {
                    return Ok(STAY);
                }
                self.state_mut().cpu.pc = self.state().page_va + offset + 4;
                return Ok(LEAVE);
            }
            SysOp::At(at) => {
                let (s, machine) = self.parts();
                address_translate(&mut s.cpu, &machine.model, &Walker(machine.memory.ram()), at, value)?;
                return Ok(STAY);
            }
            SysOp::IcIallu { broadcast } => {
                self.counters.ic += 1;
                self.cache.invalidate_all(&self.thunks);
                if broadcast {
                    self.broadcast(Maintenance::AllCode);
                }
                self.state_mut().cpu.pc = self.state().page_va + offset + 4;
                return Ok(LEAVE);
            }
            SysOp::IcIvau | SysOp::DcClean | SysOp::DcInvalidate => {
                let access = op.access(&self.state().cpu);
                let pa = match access {
                    Some(a) => Some(
                        self.probe_address(value, a).map_err(|f| Exception::maintenance_abort(f, value))?,
                    ),
                    None => None,
                };
                if let (SysOp::IcIvau, Some(pa)) = (op, pa) {
                    return Ok(self.invalidate_code(pa >> 12, offset));
                }
                if op == SysOp::DcInvalidate
                    && let Some(exception) = self.maintenance_watchpoint(value)
                {
                    return Err(exception);
                }
            }
            SysOp::Nop => {}
        }
        Ok(STAY)
    }

    /// False if the page that is executing may have been unmapped.
    fn current_page_is_known(&mut self) -> bool {
        self.current_page().is_some()
    }

    /// Where the page that is executing is, if the TLB knows it.
    fn current_page(&mut self) -> Option<Fetch> {
        let page = self.state().page_va;
        let set = if self.state().cpu.el() == 0 { self.sets.el0() } else { self.sets.el1() };
        set.page(page)
    }

    /// IC IVAU: drops the page's blocks, here and everywhere.
    fn invalidate_code(&mut self, page: u64, offset: u64) -> u64 {
        self.counters.ic += 1;
        let any = self.cache.invalidate_page(page, &self.thunks);
        self.broadcast(Maintenance::CodePage(page));
        if !any {
            return STAY;
        }
        self.state_mut().cpu.pc = self.state().page_va + offset + 4;
        LEAVE
    }

    /// DC ZVA.
    fn zero_block(&mut self, va: u64, offset: u64) -> Result<u64, Exception> {
        let bytes = self.machine.model.zva_bytes();
        let start = va & !(bytes - 1);
        let access = SlowAccess::new(offset as u16, 3).with_write(true).with_aligned(true).with_atomic(true);
        let p = match self.atomic_target(start, bytes, access) {
            Ok(p) => p,
            Err(Trouble::Alone) => return Ok(self.leave_in(offset, Trouble::Alone)),
            Err(Trouble::Exception(_)) => {
                // The syndrome has the address as given.
                let el = u8::from(self.state().cpu.el() > 0);
                let pan = el > 0 && self.pan();
                let request = Access { kind: AccessKind::Write, el, pan };
                let fault = match self.probe_address(va, request) {
                    Err(f) => f,
                    Ok(_) => armlet_arm::mmu::Fault::alignment(),
                };
                return Err(Exception::data_abort(fault, va, true));
            }
        };
        // Behind what translation finds wrong (Arm ARM D1.3.5).
        let el = self.state().cpu.el();
        if let Some(exception) = self.guest_watchpoint(start, bytes, (false, true), el) {
            return Err(exception);
        }
        if self.meets_watchpoint(start, bytes, (false, true)) {
            self.state_mut().cpu.pc = self.state().page_va + offset;
            return Ok(LEAVE);
        }
        for i in 0..bytes / 8 {
            // SAFETY: the block is aligned and smaller than a page of RAM that `atomic_target` found.
            unsafe { p.cast::<u64>().add(i as usize).write_volatile(0) };
        }
        Ok(STAY)
    }

    pub(super) fn broadcast(&mut self, m: Maintenance) {
        if self.machine.smp {
            let machine = self.machine.clone();
            machine.remotes.post(&self.remote, m);
            self.state_mut().sync_pending = 1;
        }
    }

    /// DSB: until all others have done what was broadcast.
    pub(super) fn wait_for_others(&mut self) {
        let machine = self.machine.clone();
        let remote = self.remote.clone();
        machine.remotes.wait(&remote, || self.handle_mailbox());
        self.state_mut().sync_pending = 0;
    }

    /// Carries out what other vCPUs have asked for.
    pub(super) fn handle_mailbox(&mut self) {
        if !self.remote.pending() {
            return;
        }
        let remote = self.remote.clone();
        let (requests, count) = remote.take();
        for m in requests {
            match m {
                Maintenance::Tlb(target) => self.sets.invalidate(&target),
                Maintenance::CodePage(page) => {
                    self.cache.invalidate_page(page, &self.thunks);
                }
                Maintenance::AllCode => {
                    self.cache.invalidate_all(&self.thunks);
                }
                Maintenance::Protect(page) => self.protect(page),
            }
        }
        remote.acknowledge(count);
    }

    /// Withholds write permission for a physical page (strict tracking of code).
    fn protect(&mut self, page: u64) {
        if let Some(host) = self.machine.memory.ram().host_address(page << 12, 4096) {
            self.sets.forget_writes_to(host as u64);
        }
    }

    /// Code is about to be translated from this page.
    pub(super) fn track_code_page(&mut self, page: u64) {
        if !self.machine.options.strict || !self.machine.add_code_page(page) {
            return;
        }
        self.protect(page);
        self.broadcast(Maintenance::Protect(page));
        if self.machine.smp {
            self.wait_for_others();
        }
    }

    /// The guest is about to write to this page; the write may be let through from now on. True if this took a
    /// wait, in which other vCPUs' invalidations were carried out: what was translated before may be gone.
    pub(super) fn about_to_write(&mut self, page: u64) -> bool {
        if !self.machine.options.strict || !self.machine.remove_code_page(page) {
            return false;
        }
        self.cache.invalidate_page(page, &self.thunks);
        self.broadcast(Maintenance::CodePage(page));
        if self.machine.smp {
            self.wait_for_others();
        }
        // Look at what is to be executed at the next poll.
        self.poll_soon();
        true
    }

    /// WFI and WFE: the trap at EL0, or what to wait for.
    pub(super) fn wait_instruction(&mut self, event: bool) -> Result<Option<Halt>, Exception> {
        self.wait_or_trap(event, || Exception::wf_trap(event))
    }

    /// WFIT and WFET: the same, and how long at most.
    pub(super) fn timed_wait_instruction(
        &mut self,
        event: bool,
    ) -> Result<Option<(Halt, Duration)>, Exception> {
        let (until, rt) = (self.state().result, self.state().exit_arg as u32);
        if let Some(counter) = &self.machine.options.counter {
            counter.set(self.state().count);
        }
        let now = self.machine.external.read(self.state().cpu.index as usize, SysReg::CntvctEl0);
        let Some(left) = until.checked_sub(now).filter(|left| *left > 0) else { return Ok(None) };
        let nanoseconds = (u128::from(left) * 1_000_000_000).div_ceil(u128::from(COUNTER_FREQUENCY));
        let limit = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let halt = self.wait_or_trap(event, || Exception::wft_trap(event, rt))?;
        Ok(halt.map(|halt| (halt, limit)))
    }

    fn wait_or_trap(
        &mut self,
        event: bool,
        trap: impl FnOnce() -> Exception,
    ) -> Result<Option<Halt>, Exception> {
        use armlet_arm::spec::sctlr;
        self.publish_event();
        let cpu = &self.state().cpu;
        let allowed = cpu.sys[SysReg::SctlrEl1] & if event { sctlr::NTWE } else { sctlr::NTWI };
        let would_wait = if event {
            !self.shared.take_event() && !self.shared.interrupt_unmasked(cpu.pstate)
        } else {
            !self.shared.interrupt_pending()
        };
        if cpu.el() == 0 && allowed == 0 && would_wait {
            return Err(trap());
        }
        let halt = if event { Halt::Event } else { Halt::Interrupt };
        Ok(would_wait.then_some(halt))
    }
}
