//! Slow paths of memory accesses: TLB refill, page-crossing and device accesses, faults.
#![expect(unsafe_code, reason = "guest RAM is accessed through host addresses")]

use std::arch::asm;

use armlet_arm::mmu::{self, Access, AccessKind, Fault, PhysicalMemory};
use armlet_arm::spec::sctlr;
use armlet_arm::{Exception, Feature, SysReg};
use armlet_memory::{AccessSize, Ram};

use super::context::bit;
use super::state::JitState;
use super::vcpu::{JitCore, core_of};
use crate::host::x86_64::regs::{SavedAt, saved_at};
use crate::mmu::{Place, SideEntry, SlowAccess};

/// Guest RAM as the table walker sees it.
pub(super) struct Walker<'a>(pub &'a Ram);

impl PhysicalMemory for Walker<'_> {
    fn read_u64(&self, pa: u64) -> Option<u64> {
        self.0.load(pa, AccessSize::Double)
    }

    fn compare_exchange_u64(&self, pa: u64, old: u64, new: u64) -> Option<Result<u64, u64>> {
        self.0.compare_exchange(pa, old, new)
    }
}

/// Where an access goes.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// RAM, at this host address.
    Ram(*mut u8),
    /// Anything else, at this physical address.
    Device(u64),
}

/// Why an access was not made.
pub(super) enum Trouble {
    /// It takes an exception.
    Exception(Exception),
    /// The instruction has to be executed by itself.
    Alone,
}

impl From<Exception> for Trouble {
    fn from(exception: Exception) -> Self {
        Self::Exception(exception)
    }
}

const PAGE: u64 = 4096;

impl JitCore {
    /// Translates a part of an access that lies in one page; fills the TLB if it is plain RAM.
    pub(super) fn locate(&mut self, va: u64, access: SlowAccess) -> Result<Target, Trouble> {
        let write = access.write();
        let s = self.state();
        let el1 = s.cpu.el() > 0;
        let unprivileged = access.unprivileged() && !s.cpu.pstate.contains(armlet_arm::Pstate::UAO);
        let as_el1 = el1 && !unprivileged;
        let kind = if write { AccessKind::Write } else { AccessKind::Read };
        let request = Access { kind, el: u8::from(as_el1), pan: as_el1 && self.pan() };
        let t = match mmu::translate_here(&self.mmu, &Walker(self.machine.memory.ram()), va, request) {
            Ok(t) => t,
            Err(f) => return Err(self.data_abort(f, va, access, request).into()),
        };
        let Some(host) = self.machine.memory.ram().host_address(t.pa & !(PAGE - 1), PAGE) else {
            return if self.must_be_alone() { Err(Trouble::Alone) } else { Ok(Target::Device(t.pa)) };
        };
        // SAFETY: the offset stays inside the page that `host_address` vouched for.
        let at = unsafe { host.add((va & (PAGE - 1)) as usize) };
        if t.device && self.mmu.enabled() {
            // Device memory that happens to be RAM: every access is checked for alignment.
            return Ok(Target::Device(t.pa));
        }
        if write && self.about_to_write(t.pa >> 12) {
            return self.locate(va, access);
        }
        let block = u32::from(t.block_size_log2).max(if t.contiguous { 16 } else { 12 });
        let addend = (host as u64).wrapping_sub(va & !(PAGE - 1));
        let protected = as_el1 && t.permissions.is_protected(self.mmu.epan());
        let set = if as_el1 { self.sets.el1() } else { self.sets.el0() };
        set.fill(va, addend, write, block, t.non_global);
        if protected {
            set.note_protected(va);
        }
        self.counters.tlb_misses += 1;
        Ok(Target::Ram(at))
    }

    /// What `request` has failed with. An access that updates memory counts as a read if reading fails.
    fn data_abort(&self, fault: Fault, va: u64, access: SlowAccess, request: Access) -> Exception {
        let read = Access { kind: AccessKind::Read, ..request };
        let ram = self.machine.memory.ram();
        let unreadable = || mmu::translate(&self.mmu, &Walker(ram), va, read).is_err();
        Exception::data_abort(fault, va, access.write() && !(access.update() && unreadable()))
    }

    pub(super) fn check_alignment(&self, va: u64, access: SlowAccess) -> Result<(), Exception> {
        if access.aligned() && !access.is_aligned(va) && !self.may_be_unaligned(va, access) {
            return Err(Exception::data_abort(Fault::alignment(), va, access.write()));
        }
        Ok(())
    }

    /// True if FEAT_LSE2 lets this ordered or atomic access be where it is: inside 16 aligned bytes, or
    /// (SCTLR_EL1.nAA) anywhere if it is not atomic.
    pub(super) fn may_be_unaligned(&self, va: u64, access: SlowAccess) -> bool {
        let checked = self.context() & bit::ALIGN != 0;
        if checked || !self.machine.model.has(Feature::Lse2) {
            return false;
        }
        let anywhere = self.state().cpu.sys[SysReg::SctlrEl1] & sctlr::NAA != 0 && !access.atomic();
        anywhere || is_inside_16(va, access.bytes() << u32::from(access.pair()))
    }

    /// Reads up to 16 bytes at `va`, which may cross a page.
    pub(super) fn read(&mut self, va: u64, bytes: u64, access: SlowAccess) -> Result<u128, Trouble> {
        let first = (PAGE - (va & (PAGE - 1))).min(bytes);
        let low = self.locate(va, access)?;
        let mut out = [0u8; 16];
        if first < bytes {
            let high = self.locate(va.wrapping_add(first), access)?;
            check_crossing(va, access, low, high)?;
            let (a, b) = out.split_at_mut(first as usize);
            self.read_part(low, va, a, access)?;
            self.read_part(high, va.wrapping_add(first), &mut b[..(bytes - first) as usize], access)?;
        } else {
            self.read_part(low, va, &mut out[..bytes as usize], access)?;
        }
        Ok(u128::from_le_bytes(out))
    }

    fn read_part(&mut self, t: Target, va: u64, out: &mut [u8], access: SlowAccess) -> Result<(), Trouble> {
        match t {
            Target::Ram(p) => {
                // SAFETY: `locate` found this many bytes of RAM there; volatile or atomic use elsewhere
                // races only with the guest's own accesses, which the guest has to order.
                unsafe { copy_from_guest(p, out) };
                Ok(())
            }
            Target::Device(pa) => self.device_access(
                pa,
                va,
                out.len() as u64,
                access,
                |core, pa, chunk| {
                    let size = AccessSize::from_log2(chunk.len().trailing_zeros());
                    let v = core.bus_read(pa, size)?;
                    chunk.copy_from_slice(&v.to_le_bytes()[..chunk.len()]);
                    Some(())
                },
                out,
            ),
        }
    }

    pub(super) fn write(
        &mut self,
        va: u64,
        bytes: u64,
        value: u128,
        access: SlowAccess,
    ) -> Result<(), Trouble> {
        let first = (PAGE - (va & (PAGE - 1))).min(bytes);
        let low = self.locate(va, access)?;
        let mut data = value.to_le_bytes();
        if first < bytes {
            // Both halves must be permitted before either is written.
            let high = self.locate(va.wrapping_add(first), access)?;
            check_crossing(va, access, low, high)?;
            let (a, b) = data.split_at_mut(first as usize);
            self.write_part(low, va, a, access)?;
            self.write_part(high, va.wrapping_add(first), &mut b[..(bytes - first) as usize], access)
        } else {
            self.write_part(low, va, &mut data[..bytes as usize], access)
        }
    }

    fn write_part(&mut self, t: Target, va: u64, data: &mut [u8], access: SlowAccess) -> Result<(), Trouble> {
        match t {
            Target::Ram(p) => {
                // SAFETY: as in `read_part`.
                unsafe { copy_to_guest(p, data) };
                Ok(())
            }
            Target::Device(pa) => self.device_access(
                pa,
                va,
                data.len() as u64,
                access,
                |core, pa, chunk| {
                    let mut v = [0u8; 8];
                    v[..chunk.len()].copy_from_slice(chunk);
                    let size = AccessSize::from_log2(chunk.len().trailing_zeros());
                    core.bus_write(pa, size, u64::from_le_bytes(v))
                },
                data,
            ),
        }
    }

    /// Splits an access to Device memory into elements of at most eight bytes.
    fn device_access(
        &mut self,
        pa: u64,
        va: u64,
        bytes: u64,
        access: SlowAccess,
        mut f: impl FnMut(&mut Self, u64, &mut [u8]) -> Option<()>,
        data: &mut [u8],
    ) -> Result<(), Trouble> {
        if !access.is_aligned(va) {
            return Err(Exception::data_abort(Fault::alignment(), va, access.write()).into());
        }
        // What has elements smaller than registers is made of bytes, halfwords or words.
        let whole = bytes == access.bytes() && va.is_multiple_of(bytes);
        let element = if whole { bytes.min(8) } else { access.align() };
        for (i, chunk) in data.chunks_mut(element as usize).enumerate() {
            let offset = i as u64 * element;
            f(self, pa + offset, chunk).ok_or_else(|| {
                Exception::data_abort(Fault::external(), va.wrapping_add(offset), access.write())
            })?;
        }
        Ok(())
    }

    /// A register of a device, or RAM that is mapped as Device memory.
    fn bus_read(&mut self, pa: u64, size: AccessSize) -> Option<u64> {
        self.counters.mmio += 1;
        self.note_count();
        let memory = &self.machine.memory;
        memory.ram().load(pa, size).or_else(|| memory.mmio_read(pa, size).ok())
    }

    fn bus_write(&mut self, pa: u64, size: AccessSize, value: u64) -> Option<()> {
        self.counters.mmio += 1;
        self.note_count();
        let memory = &self.machine.memory;
        memory.ram().store(pa, size, value).or_else(|| memory.mmio_write(pa, size, value).ok())
    }

    fn slow_load(&mut self, va: u64, e: &SideEntry) -> Result<(), Trouble> {
        let (access, bytes) = (e.access, e.access.bytes());
        self.check_alignment(va, access)?;
        if access.pair() && is_inside_16(va, 2 * bytes) {
            let both = self.read(va, 2 * bytes, access)?;
            let mask = u128::MAX >> (128 - 8 * bytes);
            self.put(e.values[0], e.copies[0], both & mask, access);
            self.put(e.values[1], e.copies[1], both >> (8 * bytes), access);
            return Ok(());
        }
        let first = self.read(va, bytes, access)?;
        let second = if access.pair() { self.read(va.wrapping_add(bytes), bytes, access)? } else { 0 };
        self.put(e.values[0], e.copies[0], first, access);
        self.put(e.values[1], e.copies[1], second, access);
        Ok(())
    }

    fn slow_store(&mut self, va: u64, e: &SideEntry) -> Result<(), Trouble> {
        let (access, bytes) = (e.access, e.access.bytes());
        self.check_alignment(va, access)?;
        let [v1, v2] = e.values.map(|v| self.get(v));
        if access.pair() && is_inside_16(va, 2 * bytes) {
            let mask = u128::MAX >> (128 - 8 * bytes);
            return self.write(va, 2 * bytes, (v1 & mask) | v2 << (8 * bytes), access);
        }
        if access.pair() {
            // All must be permitted before anything is written.
            let next = va.wrapping_add(bytes);
            self.locate(va, access)?;
            let first = PAGE - (va & (PAGE - 1));
            if first < 2 * bytes {
                self.locate(va.wrapping_add(first), access)?;
            }
            self.write(va, bytes, v1, access)?;
            return self.write(next, bytes, v2, access);
        }
        self.write(va, bytes, v1, access)
    }

    /// A load or store of one word, of whose `place` only this is looked at.
    fn one_word(&mut self, va: u64, access: SlowAccess, (place, copy): (Place, u8)) -> Result<(), Trouble> {
        self.check_alignment(va, access)?;
        let target = self.locate(va, access)?;
        let bytes = access.bytes() as usize;
        if access.write() {
            let mut word = (self.get(place) as u64).to_le_bytes();
            return self.write_part(target, va, &mut word[..bytes], access);
        }
        let mut word = [0; 8];
        self.read_part(target, va, &mut word[..bytes], access)?;
        self.put(place, copy, u64::from_le_bytes(word).into(), access);
        Ok(())
    }

    /// Leaves the block for `trouble` of the instruction at `offset` in the page.
    pub(super) fn leave_in(&mut self, offset: u64, trouble: Trouble) -> u64 {
        match trouble {
            Trouble::Exception(exception) => {
                self.take_at_offset(offset, &exception);
                self.go_on_at_vector()
            }
            Trouble::Alone => {
                self.state_mut().cpu.pc = self.state().page_va.wrapping_add(offset);
                1
            }
        }
    }

    /// Puts the page of a window into the TLB. False if it is not one page of plain memory that may be accessed.
    fn fill_window(&mut self, va: u64, e: &SideEntry) -> bool {
        let last = va.wrapping_add(u64::from(e.window) - 1);
        if (va ^ last) >= PAGE {
            return false;
        }
        match self.locate(va, e.access) {
            Ok(target) => matches!(target, Target::Ram(_)),
            Err(_) => {
                // Its own block finds out.
                self.redo();
                false
            }
        }
    }

    /// Brings vector registers home that translated code holds in host registers only; `number` tells which.
    fn store_carried(&mut self, number: u32) {
        if number == 0 {
            return;
        }
        let carried = self.cache.carried(number);
        let s = self.state_mut();
        for (host, v) in carried.dirty() {
            if let (Some(home), Some(value)) =
                (s.cpu.v.get_mut(usize::from(v)), s.saved_vectors.get(usize::from(host)))
            {
                *home = *value;
            }
        }
    }

    /// What a host register held when translated code called.
    fn host_register(&self, number: u8) -> u64 {
        let s = self.state();
        match saved_at(number) {
            SavedAt::Guest(r) => s.cpu.x[usize::from(r)],
            SavedAt::Temp(i) => s.saved[usize::from(i)],
            SavedAt::Result => s.result,
        }
    }

    fn get(&self, place: Place) -> u128 {
        let s = self.state();
        u128::from(match place {
            Place::None => 0,
            Place::Host(g) => self.host_register(g),
            Place::Guest(r) => s.cpu.x[usize::from(r)],
            Place::Spill(t) => s.spill[usize::from(t)],
            Place::Constant(c) => u64::from(c),
            Place::Vector(v) => return self.vector(v),
        })
    }

    /// Puts the result of a load where translated code would have. `copy` is the host register that holds a
    /// copy of the vector register.
    fn put(&mut self, place: Place, copy: u8, value: u128, access: SlowAccess) {
        let s = self.state_mut();
        let extended = access.extend(value as u64);
        match place {
            Place::Host(g) => match saved_at(g) {
                SavedAt::Guest(r) => s.cpu.x[usize::from(r)] = extended,
                SavedAt::Temp(i) => s.saved[usize::from(i)] = extended,
                SavedAt::Result => s.result = extended,
            },
            Place::Guest(r) => s.cpu.x[usize::from(r)] = extended,
            Place::Spill(t) => s.spill[usize::from(t)] = extended,
            Place::Vector(v) => {
                if let Some(x) = s.saved_vectors.get_mut(usize::from(copy)) {
                    *x = value;
                }
                self.set_vector(v, value);
            }
            Place::None | Place::Constant(_) => {}
        }
    }

    fn vector(&self, number: u8) -> u128 {
        let s = self.state();
        let n = usize::from(number);
        s.cpu.v.get(n).or_else(|| s.v_scratch.get(n.wrapping_sub(32))).copied().unwrap_or(0)
    }

    fn set_vector(&mut self, number: u8, value: u128) {
        let s = self.state_mut();
        let n = usize::from(number);
        if let Some(v) = s.cpu.v.get_mut(n) {
            *v = value;
        } else if let Some(v) = s.v_scratch.get_mut(n.wrapping_sub(32)) {
            *v = value;
        }
    }

    /// Host address for an atomic access of `bytes` (aligned, or in 16 aligned bytes, so in one page); fills the TLB.
    pub(super) fn atomic_target(
        &mut self,
        va: u64,
        bytes: u64,
        access: SlowAccess,
    ) -> Result<*mut u8, Trouble> {
        // A read would fail likewise.
        let write = access.write() && !access.update();
        if va & (bytes - 1) != 0 && !(bytes <= 16 && self.may_be_unaligned(va, access)) {
            return Err(Exception::data_abort(Fault::alignment(), va, write).into());
        }
        match self.locate(va, access)? {
            Target::Ram(p) => Ok(p),
            // Exclusives and atomics to Device memory are not supported (as the architecture allows).
            Target::Device(_) => Err(Exception::data_abort(Fault::external(), va, write).into()),
        }
    }

    /// The Read (Write) translation of `va`, for cache maintenance and DC ZVA.
    pub(super) fn probe_address(&mut self, va: u64, request: Access) -> Result<u64, Fault> {
        mmu::translate(&self.mmu, &Walker(self.machine.memory.ram()), va, request).map(|t| t.pa)
    }
}

/// What crosses from one page to another by no element's end is misaligned: that fails if one is Device memory.
fn check_crossing(va: u64, access: SlowAccess, low: Target, high: Target) -> Result<(), Exception> {
    let device = matches!(low, Target::Device(_)) || matches!(high, Target::Device(_));
    if device && !access.is_aligned(va) {
        return Err(Exception::data_abort(Fault::alignment(), va, access.write()));
    }
    Ok(())
}

/// True if `bytes` bytes at `address` are all in the same 16 aligned ones.
pub(super) const fn is_inside_16(address: u64, bytes: u64) -> bool {
    address & 15 <= 16_u64.wrapping_sub(bytes) && bytes <= 16
}

/// True if an access is of at most 8 bytes in one page.
fn is_one_word(va: u64, access: SlowAccess) -> bool {
    let bytes = access.bytes();
    !access.pair() && bytes <= 8 && PAGE - (va & (PAGE - 1)) >= bytes
}

/// Copies bytes out of guest RAM; sizes that are powers of two are single-copy atomic inside 16 aligned bytes.
///
/// # Safety
/// `p` must be valid for reads of `out.len()` bytes.
unsafe fn copy_from_guest(p: *const u8, out: &mut [u8]) {
    let whole = is_inside_16(p as u64, out.len() as u64);
    // SAFETY: the caller vouches for the range; the instructions read as many bytes as there are.
    unsafe {
        match out.len() {
            2 if whole => {
                let v: u16;
                asm!("mov {:x}, word ptr [{}]", out(reg) v, in(reg) p, options(nostack, readonly));
                out.copy_from_slice(&v.to_le_bytes());
            }
            4 if whole => {
                let v: u32;
                asm!("mov {:e}, dword ptr [{}]", out(reg) v, in(reg) p, options(nostack, readonly));
                out.copy_from_slice(&v.to_le_bytes());
            }
            8 if whole => {
                let v: u64;
                asm!("mov {}, qword ptr [{}]", out(reg) v, in(reg) p, options(nostack, readonly));
                out.copy_from_slice(&v.to_le_bytes());
            }
            16 if whole => {
                asm!(
                    "vmovdqu {t}, xmmword ptr [{from}]",
                    "vmovdqu xmmword ptr [{to}], {t}",
                    t = out(xmm_reg) _,
                    from = in(reg) p,
                    to = in(reg) out.as_mut_ptr(),
                    options(nostack),
                );
            }
            _ => {
                for (i, b) in out.iter_mut().enumerate() {
                    *b = p.add(i).read_volatile();
                }
            }
        }
    }
}

/// Copies bytes into guest RAM; sizes that are powers of two are single-copy atomic inside 16 aligned bytes.
///
/// # Safety
/// `p` must be valid for writes of `data.len()` bytes.
unsafe fn copy_to_guest(p: *mut u8, data: &[u8]) {
    let whole = is_inside_16(p as u64, data.len() as u64);
    let mut value = [0; 8];
    value[..data.len().min(8)].copy_from_slice(&data[..data.len().min(8)]);
    let value = u64::from_le_bytes(value);
    // SAFETY: the caller vouches for the range; the instructions write as many bytes as there are.
    unsafe {
        match data.len() {
            2 if whole => asm!("mov word ptr [{}], {:x}", in(reg) p, in(reg) value, options(nostack)),
            4 if whole => asm!("mov dword ptr [{}], {:e}", in(reg) p, in(reg) value, options(nostack)),
            8 if whole => asm!("mov qword ptr [{}], {}", in(reg) p, in(reg) value, options(nostack)),
            16 if whole => asm!(
                "vmovdqu {t}, xmmword ptr [{from}]",
                "vmovdqu xmmword ptr [{to}], {t}",
                t = out(xmm_reg) _,
                from = in(reg) data.as_ptr(),
                to = in(reg) p,
                options(nostack),
            ),
            _ => {
                for (i, b) in data.iter().enumerate() {
                    p.add(i).write_volatile(*b);
                }
            }
        }
    }
}

/// Does the access that entry `number` of the side table describes, or takes its exception.
pub(super) extern "sysv64" fn access(s: *mut JitState, number: u64, _: u64, _: u64, _: u64) -> u64 {
    let core = core_of(s);
    let Some(e) = core.cache.side_entry(number as u32) else {
        // Translated code holds only numbers of entries that exist; leaving is safe whatever happened.
        return 1;
    };
    // Most accesses need only a part of the entry; to copy all of it and then look at it piece by piece takes long.
    let (access, carried, resume, value) = (e.access, e.carried, e.resume, (e.values[0], e.copies[0]));
    let va = core.host_register(e.base).wrapping_add_signed(i64::from(e.disp));
    let simple = e.window == 0 && !access.atomic() && is_one_word(va, access);
    if simple && carried == 0 {
        return match core.one_word(va, access, value) {
            Ok(()) => {
                core.state_mut().resume = core.cache.address(resume);
                0
            }
            Err(trouble) => core.leave_in(access.offset(), trouble),
        };
    }
    let e = *e;
    core.store_carried(carried);
    if e.window != 0 {
        let at = if core.fill_window(va, &e) { e.resume } else { e.otherwise };
        core.state_mut().resume = core.cache.address(at);
        return 0;
    }
    let done = if e.access.atomic() {
        // The atomic access goes on, with what is now in the TLB.
        core.atomic_target(va, e.access.bytes(), e.access).map(|_| ())
    } else if e.access.write() {
        core.slow_store(va, &e)
    } else {
        core.slow_load(va, &e)
    };
    match done {
        Ok(()) => {
            core.state_mut().resume = core.cache.address(e.resume);
            0
        }
        Err(trouble) => core.leave_in(e.access.offset(), trouble),
    }
}
