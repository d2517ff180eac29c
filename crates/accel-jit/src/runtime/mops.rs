//! Memory copy and memory set (FEAT_MOPS) on guest memory: a page at a time, through the TLB.
#![expect(unsafe_code, reason = "guest RAM is moved by its host addresses")]

use std::arch::asm;
use std::sync::atomic::Ordering;

use armlet_arm::CpuState;
use armlet_arm::mops::{self, Manner, Progress, Stop};

use super::slow_mem::{Target, Trouble};
use super::state::{JitState, nzcv_from_arm};
use super::vcpu::{Helper, JitCore, core_of};
use crate::mmu::SlowAccess;

const STAY: u64 = 0;
const LEAVE: u64 = 1;
const PAGE: u64 = 4096;

/// Bytes after which it is looked at whether something else is to be done.
const STRETCH: u64 = 64 << 10;

/// Executes the instruction `word` at `offset` in the page, or a part of it.
pub(super) extern "sysv64" fn mops(s: *mut JitState, _: u64, offset: u64, word: u64, _: u64) -> u64 {
    let core = core_of(s);
    core.counters.helper(Helper::Mops);
    core.move_memory(offset & 0xfff, word as u32)
}

/// The vCPU, and the instruction's offset in its page.
struct Mover<'a> {
    core: &'a mut JitCore,
    offset: u16,
}

impl JitCore {
    fn move_memory(&mut self, offset: u64, word: u32) -> u64 {
        self.note_count();
        self.sync_flags_out();
        loop {
            let mut mover = Mover { core: self, offset: offset as u16 };
            let end = mops::execute(&mut mover, word, STRETCH);
            let flags = self.state().cpu.pstate.bits();
            self.state_mut().nzcv = nzcv_from_arm(flags);
            match end {
                Ok(Progress::Done) => return STAY,
                // Where instructions are counted each part is one: when it ends must not depend on others.
                Ok(Progress::More) if self.is_counted() || self.state().poll.load(Ordering::Relaxed) != 0 => {
                    self.state_mut().cpu.pc = self.state().page_va.wrapping_add(offset);
                    return LEAVE;
                }
                Ok(Progress::More) => {}
                Err(Stop::Exception(e)) => return self.leave_in(offset, e.into()),
                Err(Stop::Memory(trouble)) => return self.leave_in(offset, trouble),
            }
        }
    }
}

/// How many of `bytes` bytes are in one page: from `address` up, or from the last byte down.
fn in_page(address: u64, bytes: u64, backward: bool) -> u64 {
    let last = address.wrapping_add(bytes - 1);
    if backward { bytes.min(last % PAGE + 1) } else { bytes.min(PAGE - address % PAGE) }
}

impl Mover<'_> {
    fn access(&self, write: bool, unprivileged: bool) -> SlowAccess {
        SlowAccess::new(self.offset, 0).with_write(write).with_unprivileged(unprivileged)
    }

    /// Where the bytes at `va` are, which are in one page.
    fn find(&mut self, va: u64, bytes: u64, access: SlowAccess) -> Result<Target, Trouble> {
        let kind = (!access.write(), access.write());
        let el = self.core.level_of(access);
        if let Some(exception) = self.core.guest_watchpoint(va, bytes, kind, el)
            && !self.core.fails_first(va, bytes, access)
        {
            return Err(exception.into());
        }
        if self.core.meets_watchpoint(va, bytes, kind) {
            return Err(Trouble::Alone);
        }
        let set = if el == 0 { self.core.sets.el0() } else { self.core.sets.el1() };
        match set.host_address(va, access.write()) {
            Some(host) => Ok(Target::Ram(host as *mut u8)),
            None => self.core.locate(va, access),
        }
    }
}

impl mops::Machine for Mover<'_> {
    type Trouble = Trouble;

    fn state(&mut self) -> &mut CpuState {
        &mut self.core.state_mut().cpu
    }

    fn copy(&mut self, to: u64, from: u64, bytes: u64, manner: Manner) -> Result<u64, Trouble> {
        let count = in_page(to, bytes, manner.backward).min(in_page(from, bytes, manner.backward));
        let skipped = if manner.backward { bytes - count } else { 0 };
        let (to, from) = (to.wrapping_add(skipped), from.wrapping_add(skipped));
        let (read, write) =
            (self.access(false, manner.read_unprivileged), self.access(true, manner.write_unprivileged));
        let source = self.find(from, count, read)?;
        let destination = self.find(to, count, write)?;
        if let (Target::Ram(source), Target::Ram(destination)) = (source, destination) {
            // SAFETY: both are as many bytes of RAM, each in one page that may be accessed.
            unsafe { copy_bytes(destination, source, count, manner.backward) };
            return Ok(count);
        }
        // Devices are accessed byte by byte.
        let last = if manner.backward { count - 1 } else { 0 };
        let value = self.core.read(from.wrapping_add(last), 1, read)?;
        self.core.write(to.wrapping_add(last), 1, value, write)?;
        Ok(1)
    }

    fn set(&mut self, to: u64, value: u8, bytes: u64, manner: Manner) -> Result<u64, Trouble> {
        let count = in_page(to, bytes, false);
        let access = self.access(true, manner.write_unprivileged);
        match self.find(to, count, access)? {
            Target::Ram(p) => {
                // SAFETY: as many bytes of RAM, in one page that may be written.
                unsafe {
                    asm!("rep stosb", in("al") value, inout("rcx") count => _, inout("rdi") p => _,
                        options(nostack, preserves_flags));
                }
                Ok(count)
            }
            Target::Device(_) => {
                self.core.write(to, 1, value.into(), access)?;
                Ok(1)
            }
        }
    }
}

/// Copies from the first byte up; or as if from the last byte down.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of `count` bytes, at most a page.
unsafe fn copy_bytes(to: *mut u8, from: *const u8, count: u64, backward: bool) {
    // SAFETY: the caller vouches for the ranges. By hand, as other vCPUs may access the same memory.
    let up = |to: *mut u8, from: *const u8| unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    };
    if !backward {
        return up(to, from);
    }
    let mut buffer = [0u8; PAGE as usize];
    up(buffer.as_mut_ptr(), from);
    up(to, buffer.as_ptr());
}
