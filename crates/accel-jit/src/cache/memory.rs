//! Memory for code: shared memory mapped twice, writable at one place and executable at another.
//!
//! It has no file, since host profilers look for names of code only where there is none.
#![expect(unsafe_code, reason = "the code cache is mapped memory that the host executes")]

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap_anonymous, mprotect, mremap, munmap};

/// The mapping. No page of it is ever writable and executable at one address.
pub struct CodeMemory {
    write: NonNull<u8>,
    execute: NonNull<u8>,
    size: usize,
    used: usize,
}

impl CodeMemory {
    /// Reserves `size` bytes of address space; pages are taken when they are first written.
    ///
    /// # Errors
    /// The host's error.
    pub fn new(size: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases no Rust object.
        let write =
            unsafe { mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, flags)? };
        // SAFETY: of shared memory, no bytes are moved: the same pages are mapped at a second address of the kernel's
        // choice. The two mappings alias each other, and only raw pointers are made to them.
        let execute = unsafe { mremap(write, 0, size, MremapFlags::MAYMOVE) }.and_then(|execute| {
            // SAFETY: the mapping was just made and nothing refers to it.
            unsafe { mprotect(execute, size, MprotectFlags::READ | MprotectFlags::EXEC) }.map(|()| execute)
        });
        let execute = match execute {
            Ok(p) => p,
            Err(e) => {
                // SAFETY: the mapping was made above and nothing refers to it.
                let _ = unsafe { munmap(write, size) };
                return Err(e.into());
            }
        };
        let not_null =
            |p: *mut std::ffi::c_void| NonNull::new(p.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory);
        Ok(Self { write: not_null(write)?, execute: not_null(execute)?, size, used: 0 })
    }

    /// Bytes left.
    pub fn room(&self) -> usize {
        self.size - self.used
    }

    /// Execution address of the byte at `offset`.
    pub fn address(&self, offset: usize) -> u64 {
        self.execute.as_ptr() as u64 + offset as u64
    }

    /// All execution addresses.
    pub fn addresses(&self) -> Range<u64> {
        self.address(0)..self.address(self.size)
    }

    /// Execution address of the next code.
    pub fn next_address(&self) -> u64 {
        self.address(self.used)
    }

    /// Appends code; the next one will be aligned to 16 bytes. Returns its offset.
    pub fn append(&mut self, code: &[u8]) -> usize {
        let at = self.used;
        assert!(code.len() + 16 <= self.room(), "the caller looked for room first");
        self.used = (at + code.len() + 15) & !15;
        self.patch(at, code);
        at
    }

    /// Overwrites code.
    pub fn patch(&mut self, offset: usize, code: &[u8]) {
        assert!(offset + code.len() <= self.used, "patch outside of the code");
        // SAFETY: the range lies inside the writable mapping (checked above). The host keeps instruction
        // fetch coherent with stores; only this thread executes the code, and it is not inside the range.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), self.write.as_ptr().add(offset), code.len());
        }
    }

    /// Forgets code from `offset` on.
    pub fn truncate(&mut self, offset: usize) {
        self.used = offset;
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        // SAFETY: both mappings were made by `new` with this size; the vCPU that executed here is gone.
        unsafe {
            let _ = munmap(self.write.as_ptr().cast(), self.size);
            let _ = munmap(self.execute.as_ptr().cast(), self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_written_at_one_place_and_executed_at_another_that_has_no_file() {
        let mut memory = CodeMemory::new(1 << 20).expect("memory");
        // mov eax, 42; ret
        let offset = memory.append(&[0xb8, 42, 0, 0, 0, 0xc3]);
        let address = memory.address(offset);
        // SAFETY: the code follows the C calling convention and touches nothing else.
        let f: extern "C" fn() -> u32 = unsafe { std::mem::transmute(address) };
        assert_eq!(f(), 42);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
        let own = |line: &&str| line.starts_with(&format!("{address:x}-"));
        let line = maps.lines().find(own).expect("is mapped");
        assert!(line.contains(" r-xs ") && line.ends_with("/dev/zero (deleted)"), "{line}");
        assert!(!maps.contains("rwx"), "{maps}");
    }
}
