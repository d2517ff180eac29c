//! Memory for code: one memfd mapped twice, writable at one place and executable at another.
#![expect(unsafe_code, reason = "the code cache is mapped memory that the host executes")]

use std::io;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

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
        let fd = memfd_create(c"armlet-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, size as u64)?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice aliases no Rust object.
        let write = unsafe {
            mmap(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)?
        };
        // SAFETY: as above; the two mappings alias each other, and only raw pointers are made to them.
        let execute = unsafe {
            mmap(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::EXEC, MapFlags::SHARED, &fd, 0)
        };
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
