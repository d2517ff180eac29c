//! Guest RAM: one private mapping, of large pages where the host has some.
#![expect(unsafe_code, reason = "atomic access to guest RAM goes through raw host pointers")]

use super::*;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::mm::{Advice, madvise};
use vm_memory::Bytes;

/// Bytes of an entry of `/proc/PID/pagemap`, one for each page (proc_pid_pagemap(5)).
const ENTRY: usize = 8;
/// Bits of one: the page is in memory, or swapped out.
const PRESENT: u64 = 1 << 63 | 1 << 62;
/// How many are read at once.
const ENTRIES: usize = 4096;

/// The machine's RAM. Cloning shares the same memory.
#[derive(Clone)]
pub struct Ram {
    memory: GuestMemoryMmap,
    base: Gpa,
    size: u64,
    host: usize,
}

impl Ram {
    /// Allocates `size` bytes of zeroed RAM at guest-physical `base`. Pages are taken from the host when
    /// they are first touched.
    ///
    /// # Errors
    /// The host's error, if it has not that much address space or memory.
    pub fn new(base: Gpa, size: u64) -> std::io::Result<Self> {
        let len = usize::try_from(size).map_err(std::io::Error::other)?;
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(base), len)]).map_err(std::io::Error::other)?;
        let host = vm_memory::GuestMemoryBackend::get_host_address(&memory, GuestAddress(base))
            .map_err(std::io::Error::other)? as usize;
        let ram = Self { memory, base, size, host };
        // A host that has no large pages says so; then they are small ones. A guest's memory is no part of our core dumps.
        let _ = ram.advise(Advice::LinuxHugepage);
        let _ = ram.advise(Advice::LinuxDontDump);
        Ok(ram)
    }

    /// Makes all of it zero again, and gives its pages back to the host. Nobody may be using it.
    ///
    /// # Errors
    /// The host's.
    pub fn clear(&self) -> std::io::Result<()> {
        self.advise(Advice::LinuxDontNeed)
    }

    fn advise(&self, advice: Advice) -> std::io::Result<()> {
        // SAFETY: this is the whole of a mapping that lives as long as `self.memory`, and whoever uses it is prepared for
        // any bytes at any moment: advice at most makes them zero.
        unsafe { madvise(self.host as *mut _, self.size as usize, advice)? };
        Ok(())
    }

    /// The stretches that have memory of the host's, by address. Everything else is zero.
    pub fn present(&self) -> Present<'_> {
        let pagemap = File::open("/proc/self/pagemap").ok();
        Present { ram: self, pagemap, at: 0, entries: Vec::new(), next: 0 }
    }

    /// The same RAM as the `vm-memory` crate's type, for virtio queues and loaders.
    pub fn guest_memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// First guest-physical address of RAM.
    pub fn base(&self) -> Gpa {
        self.base
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// True if `[gpa, gpa + len)` lies in RAM.
    #[inline]
    pub fn contains(&self, gpa: Gpa, len: u64) -> bool {
        gpa >= self.base && len <= self.size && gpa - self.base <= self.size - len
    }

    /// Host address of `[gpa, gpa + len)`, if all of it is RAM. It stays valid as long as a clone of this
    /// `Ram` lives; the guest may change what is there at any moment.
    #[inline]
    pub fn host_address(&self, gpa: Gpa, len: u64) -> Option<*mut u8> {
        self.contains(gpa, len).then(|| (self.host + (gpa - self.base) as usize) as *mut u8)
    }

    /// Copies from RAM.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] unless the whole range is RAM.
    pub fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), MemoryError> {
        self.memory.read_slice(out, GuestAddress(gpa)).map_err(|_| MemoryError::Unmapped(gpa))
    }

    /// Copies to RAM.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] unless the whole range is RAM.
    pub fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), MemoryError> {
        self.memory.write_slice(data, GuestAddress(gpa)).map_err(|_| MemoryError::Unmapped(gpa))
    }

    /// Single-copy atomic load of an aligned 1, 2, 4 or 8 byte value (little-endian), sequentially consistent.
    /// `None` if it is not aligned or not RAM.
    #[inline]
    pub fn load(&self, gpa: Gpa, size: AccessSize) -> Option<u64> {
        let p = self.aligned(gpa, size)?;
        // SAFETY: `aligned` returned a live, aligned address inside the RAM mapping of the access's size;
        // guest RAM is only ever accessed as atomics, volatile or raw bytes, never as Rust references.
        Some(unsafe {
            match size {
                AccessSize::Byte => (*p.cast::<AtomicU8>()).load(Ordering::SeqCst).into(),
                AccessSize::Half => (*p.cast::<AtomicU16>()).load(Ordering::SeqCst).into(),
                AccessSize::Word => (*p.cast::<AtomicU32>()).load(Ordering::SeqCst).into(),
                AccessSize::Double => (*p.cast::<AtomicU64>()).load(Ordering::SeqCst),
            }
        })
    }

    /// Loads aligned words one after the other, each single-copy atomic. False if not all of them are RAM.
    pub fn load_words(&self, gpa: Gpa, out: &mut [u32]) -> bool {
        let bytes = 4 * out.len() as u64;
        let Some(first) = self.host_address(gpa, bytes).filter(|_| gpa.is_multiple_of(4)) else {
            return false;
        };
        for (i, word) in out.iter_mut().enumerate() {
            // SAFETY: `host_address` vouched for the whole range, which is aligned; otherwise as in `load`.
            *word = unsafe { (*first.cast::<AtomicU32>().add(i)).load(Ordering::Relaxed) };
        }
        true
    }

    /// Single-copy atomic store, as [`Ram::load`]. `None` if it is not aligned or not RAM.
    pub fn store(&self, gpa: Gpa, size: AccessSize, value: u64) -> Option<()> {
        let p = self.aligned(gpa, size)?;
        // SAFETY: as in `load`.
        unsafe {
            match size {
                AccessSize::Byte => (*p.cast::<AtomicU8>()).store(value as u8, Ordering::SeqCst),
                AccessSize::Half => (*p.cast::<AtomicU16>()).store(value as u16, Ordering::SeqCst),
                AccessSize::Word => (*p.cast::<AtomicU32>()).store(value as u32, Ordering::SeqCst),
                AccessSize::Double => (*p.cast::<AtomicU64>()).store(value, Ordering::SeqCst),
            }
        }
        Some(())
    }

    /// Atomic compare-and-swap of an aligned doubleword (page-table updates). `None` if it is not aligned or
    /// not RAM; otherwise `Ok(old)` if it was swapped and `Err(actual)` if not.
    pub fn compare_exchange(&self, gpa: Gpa, old: u64, new: u64) -> Option<Result<u64, u64>> {
        let p = self.aligned(gpa, AccessSize::Double)?;
        // SAFETY: as in `load`.
        let cell = unsafe { &*p.cast::<AtomicU64>() };
        Some(cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst))
    }

    #[inline]
    fn aligned(&self, gpa: Gpa, size: AccessSize) -> Option<*mut u8> {
        // No division: sizes are powers of two.
        if gpa & (size.bytes() - 1) != 0 {
            return None;
        }
        self.host_address(gpa, size.bytes())
    }
}

/// Stretches of RAM that the host has given memory for: address and length in bytes, whole pages of the host's; or the host's
/// error, after which there are no more.
pub struct Present<'a> {
    ram: &'a Ram,
    /// The host's table of pages, if it shows that.
    pagemap: Option<File>,
    /// Where to go on, bytes from RAM's begin.
    at: u64,
    /// What was read last of the table, and which of that is next: the page at `at`.
    entries: Vec<u8>,
    next: usize,
}

impl Present<'_> {
    /// Whether the page at `at` is present. None behind the last one.
    fn look(&mut self) -> std::io::Result<Option<bool>> {
        if self.at >= self.ram.size {
            return Ok(None);
        }
        // A host that does not tell may have memory everywhere.
        let Some(pagemap) = &self.pagemap else { return Ok(Some(true)) };
        if self.next == self.entries.len() {
            let page = rustix::param::page_size() as u64;
            let count = ((self.ram.size - self.at).div_ceil(page) as usize).min(ENTRIES);
            self.entries.resize(count * ENTRY, 0);
            self.next = 0;
            let first = (self.ram.host as u64 + self.at) / page;
            pagemap.read_exact_at(&mut self.entries, first * ENTRY as u64)?;
        }
        let entry = self.entries[self.next..].first_chunk().map_or(0, |entry| u64::from_le_bytes(*entry));
        self.next += ENTRY;
        Ok(Some(entry & PRESENT != 0))
    }

    /// The stretch that begins at `at` or behind it.
    fn stretch(&mut self) -> std::io::Result<Option<(Gpa, u64)>> {
        let page = rustix::param::page_size() as u64;
        let mut start = None;
        while let Some(present) = self.look()? {
            let here = self.at;
            self.at = (here + page).min(self.ram.size);
            match start {
                None if present => start = Some(here),
                // The page that ends it is behind it already.
                Some(start) if !present => return Ok(Some((self.ram.base + start, here - start))),
                _ => {}
            }
        }
        Ok(start.map(|start| (self.ram.base + start, self.at - start)))
    }
}

impl Iterator for Present<'_> {
    type Item = std::io::Result<(Gpa, u64)>;

    fn next(&mut self) -> Option<Self::Item> {
        let stretch = self.stretch();
        if stretch.is_err() {
            self.at = self.ram.size;
        }
        stretch.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleared_it_is_zero() {
        let ram = Ram::new(0x4000_0000, 0x1_0000).unwrap();
        ram.write(0x4000_0ffe, &[1, 2, 3, 4]).unwrap();
        ram.clear().unwrap();
        assert_eq!(ram.load(0x4000_0ffc, AccessSize::Word), Some(0));
        assert_eq!(ram.load(0x4000_1000, AccessSize::Word), Some(0));
    }

    #[test]
    fn what_was_never_touched_is_not_present() {
        let ram = Ram::new(0x4000_0000, 16 << 20).unwrap();
        let all = |ram: &Ram| ram.present().collect::<std::io::Result<Vec<_>>>().unwrap();
        assert_eq!(all(&ram), []);
        ram.write(0x4000_0001, &[1]).unwrap();
        ram.write(0x4080_0fff, &[1, 2]).unwrap();
        let found = all(&ram);
        // The host may use larger pages.
        assert!(found.iter().any(|(start, len)| (*start..start + len).contains(&0x4000_0001)));
        assert!(found.iter().any(|(start, len)| *start <= 0x4080_0fff && start + len > 0x4080_1000));
        assert!(found.iter().all(|(start, len)| start % 4096 == 0 && len % 4096 == 0));
        ram.clear().unwrap();
        assert_eq!(all(&ram), []);
        ram.write(0x40ff_ffff, &[1]).unwrap();
        let last = all(&ram).pop();
        assert_eq!(last.map(|(start, len)| start + len), Some(0x4100_0000));
        // Everything counts as present where the host does not tell.
        let untold = Present { pagemap: None, ..ram.present() };
        assert_eq!(untold.map(Result::unwrap).collect::<Vec<_>>(), [(0x4000_0000, 16 << 20)]);
    }

    #[test]
    fn values_written_come_back_and_edges_are_refused() {
        let ram = Ram::new(0x4000_0000, 0x1_0000).unwrap();
        ram.write(0x4000_fffe, &[1, 2]).unwrap();
        assert_eq!(ram.load(0x4000_fffe, AccessSize::Half), Some(0x0201));
        assert_eq!(ram.load(0x4000_ffff, AccessSize::Half), None);
        assert!(ram.write(0x4000_ffff, &[1, 2]).is_err());
        assert!(!ram.contains(u64::MAX, 2));
        assert_eq!(ram.compare_exchange(0x4000_0000, 0, 7), Some(Ok(0)));
        assert_eq!(ram.compare_exchange(0x4000_0000, 0, 8), Some(Err(7)));
    }
}
