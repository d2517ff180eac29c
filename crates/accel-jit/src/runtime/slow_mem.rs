//! Slow paths of memory accesses: TLB refill, page-crossing and device accesses, faults.
#![expect(unsafe_code, reason = "guest RAM is accessed through host addresses")]

use armlet_arm::Exception;
use armlet_arm::mmu::{self, Access, AccessKind, Fault, PhysicalMemory};
use armlet_memory::{AccessSize, Ram};

use super::state::JitState;
use super::vcpu::{JitCore, core_of};
use crate::host::x86_64::regs::{FIRST_VECTOR_COPY, SavedAt, saved_at};
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
enum Target {
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
    fn locate(&mut self, va: u64, access: SlowAccess) -> Result<Target, Trouble> {
        let write = access.write();
        let s = self.state();
        let el1 = s.cpu.el() > 0;
        let unprivileged = access.unprivileged() && !s.cpu.pstate.contains(armlet_arm::Pstate::UAO);
        let as_el1 = el1 && !unprivileged;
        let kind = if write { AccessKind::Write } else { AccessKind::Read };
        let request = Access { kind, el: u8::from(as_el1), pan: as_el1 && self.pan };
        let machine = self.machine.clone();
        let ram = machine.memory.ram();
        let t = mmu::translate(&self.mmu, &Walker(ram), va, request)
            .map_err(|f| Exception::data_abort(f, va, write))?;
        let Some(host) = ram.host_address(t.pa & !(PAGE - 1), PAGE) else {
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
        let set = if as_el1 { self.sets.el1() } else { self.sets.el0() };
        set.fill(va, addend, write, block, t.non_global);
        self.counters.tlb_misses += 1;
        Ok(Target::Ram(at))
    }

    fn check_alignment(&self, va: u64, bytes: u64, access: SlowAccess) -> Result<(), Exception> {
        if access.aligned() && va & (bytes - 1) != 0 {
            return Err(Exception::data_abort(Fault::alignment(), va, access.write()));
        }
        Ok(())
    }

    /// Reads up to 16 bytes at `va`, which may cross a page.
    fn read(&mut self, va: u64, bytes: u64, access: SlowAccess) -> Result<u128, Trouble> {
        let first = (PAGE - (va & (PAGE - 1))).min(bytes);
        let low = self.locate(va, access)?;
        let mut out = [0u8; 16];
        if first < bytes {
            let high = self.locate(va.wrapping_add(first), access)?;
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

    fn write(&mut self, va: u64, bytes: u64, value: u128, access: SlowAccess) -> Result<(), Trouble> {
        let first = (PAGE - (va & (PAGE - 1))).min(bytes);
        let low = self.locate(va, access)?;
        let mut data = value.to_le_bytes();
        if first < bytes {
            // Both halves must be permitted before either is written.
            let high = self.locate(va.wrapping_add(first), access)?;
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
        let element = access.bytes().min(bytes).min(8);
        let misaligned = !va.is_multiple_of(access.bytes().min(16)) || !bytes.is_power_of_two();
        if misaligned || access.atomic() {
            let fault = if misaligned { Fault::alignment() } else { Fault::external() };
            return Err(Exception::data_abort(fault, va, access.write()).into());
        }
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
        self.check_alignment(va, bytes, access)?;
        let first = self.read(va, bytes, access)?;
        let second = if access.pair() { self.read(va.wrapping_add(bytes), bytes, access)? } else { 0 };
        self.put(e.values[0], e.copies[0], first, access);
        self.put(e.values[1], e.copies[1], second, access);
        Ok(())
    }

    fn slow_store(&mut self, va: u64, e: &SideEntry) -> Result<(), Trouble> {
        let (access, bytes) = (e.access, e.access.bytes());
        self.check_alignment(va, bytes, access)?;
        let [v1, v2] = e.values.map(|v| self.get(v));
        if access.pair() {
            // The second element must be permitted before the first is written.
            let next = va.wrapping_add(bytes);
            let last = next.wrapping_add(bytes - 1);
            self.locate(va, access)?;
            if (va ^ last) >= PAGE {
                self.locate(last & !(PAGE - 1), access)?;
            }
            self.write(va, bytes, v1, access)?;
            return self.write(next, bytes, v2, access);
        }
        self.write(va, bytes, v1, access)
    }

    /// Leaves translated code for `trouble` of the instruction at `offset` in the page.
    pub(super) fn leave_in(&mut self, offset: u64, trouble: Trouble) -> u64 {
        match trouble {
            Trouble::Exception(exception) => self.take_at_offset(offset, &exception),
            Trouble::Alone => self.state_mut().cpu.pc = self.state().page_va.wrapping_add(offset),
        }
        1
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
                if let Some(x) = s.saved_vectors.get_mut(usize::from(copy.wrapping_sub(FIRST_VECTOR_COPY))) {
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

    /// Host address for an atomic access of `bytes` (aligned, so in one page); fills the TLB.
    pub(super) fn atomic_target(
        &mut self,
        va: u64,
        bytes: u64,
        access: SlowAccess,
    ) -> Result<*mut u8, Trouble> {
        if va & (bytes - 1) != 0 {
            return Err(Exception::data_abort(Fault::alignment(), va, access.write()).into());
        }
        match self.locate(va, access)? {
            Target::Ram(p) => Ok(p),
            // Exclusives and atomics to Device memory are not supported (as the architecture allows).
            Target::Device(_) => Err(Exception::data_abort(Fault::external(), va, access.write()).into()),
        }
    }

    /// The Read (Write) translation of `va`, for cache maintenance and DC ZVA.
    pub(super) fn probe_address(&mut self, va: u64, request: Access) -> Result<u64, Fault> {
        let machine = self.machine.clone();
        mmu::translate(&self.mmu, &Walker(machine.memory.ram()), va, request).map(|t| t.pa)
    }
}

/// Copies bytes out of guest RAM; aligned power-of-two sizes are single-copy atomic.
///
/// # Safety
/// `p` must be valid for reads of `out.len()` bytes.
unsafe fn copy_from_guest(p: *const u8, out: &mut [u8]) {
    // SAFETY: the caller vouches for the range.
    unsafe {
        match (out.len(), p as usize % out.len().max(1)) {
            (2, 0) => out.copy_from_slice(&p.cast::<u16>().read_volatile().to_le_bytes()),
            (4, 0) => out.copy_from_slice(&p.cast::<u32>().read_volatile().to_le_bytes()),
            (8, 0) => out.copy_from_slice(&p.cast::<u64>().read_volatile().to_le_bytes()),
            _ => {
                for (i, b) in out.iter_mut().enumerate() {
                    *b = p.add(i).read_volatile();
                }
            }
        }
    }
}

/// Copies bytes into guest RAM; aligned power-of-two sizes are single-copy atomic.
///
/// # Safety
/// `p` must be valid for writes of `data.len()` bytes.
unsafe fn copy_to_guest(p: *mut u8, data: &[u8]) {
    // SAFETY: the caller vouches for the range.
    unsafe {
        match (data, p as usize % data.len().max(1)) {
            ([a, b], 0) => p.cast::<u16>().write_volatile(u16::from_le_bytes([*a, *b])),
            ([a, b, c, d], 0) => p.cast::<u32>().write_volatile(u32::from_le_bytes([*a, *b, *c, *d])),
            (d, 0) if d.len() == 8 => {
                let mut v = [0; 8];
                v.copy_from_slice(d);
                p.cast::<u64>().write_volatile(u64::from_le_bytes(v));
            }
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
    let va = core.host_register(e.base).wrapping_add_signed(i64::from(e.disp));
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
