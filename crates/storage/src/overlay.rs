//! Copy-on-write over another image (`snapshot=on`).
//!
//! The guest's writes go to a file that has no name, at the same offsets as on the disk; a bitmap says which
//! clusters live there. The base is only read. Everything is gone when the overlay is dropped, or when the
//! process dies in whatever way.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, fallocate, memfd_create, open};
use vm_memory::VolatileSlice;

use crate::raw::{read_padded, write_all};
use crate::{BlockBackend, check_range, total_len};

/// Smallest cluster in bytes: guests' file systems write whole 4 KiB blocks, which then need no copying.
const MIN_CLUSTER: u64 = 4096;
/// Clusters grow so that the bitmap stays within this many bits (2 MiB of host memory).
const MAX_CLUSTERS: u64 = 1 << 24;

/// A copy-on-write overlay.
pub struct Overlay {
    base: Arc<dyn BlockBackend>,
    file: File,
    cluster: u64,
    /// One bit per cluster that lives in `file`. Held during every access: a copy of a cluster and its bit
    /// must not be seen apart.
    present: Mutex<Vec<u64>>,
}

impl Overlay {
    /// Puts an empty overlay on `base`.
    ///
    /// # Errors
    /// The host's, if no directory takes a temporary file and there is no memory for one either.
    pub fn new(base: Arc<dyn BlockBackend>) -> io::Result<Self> {
        let file = scratch_file()?;
        file.set_len(base.size())?;
        let cluster = base.size().div_ceil(MAX_CLUSTERS).next_power_of_two().max(MIN_CLUSTER);
        let words = base.size().div_ceil(cluster).div_ceil(64);
        Ok(Self { base, file, cluster, present: Mutex::new(vec![0; words as usize]) })
    }

    fn with_present<T>(&self, f: impl FnOnce(&mut Present<'_>) -> T) -> T {
        let mut bits = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut Present { bits: &mut bits, cluster: self.cluster })
    }

    /// Copies the cluster that holds byte `at` from the base, unless it lives here already or `range` covers
    /// all of it.
    fn copy_up(&self, present: &mut Present<'_>, at: u64, range: &Range<u64>) -> io::Result<()> {
        let index = at / self.cluster;
        let start = index * self.cluster;
        let end = (start + self.cluster).min(self.base.size());
        if present.has(index) || (range.start <= start && range.end >= end) {
            return Ok(());
        }
        let mut copy = vec![0; (end - start) as usize];
        let buffer = [VolatileSlice::from(copy.as_mut_slice())];
        self.base.read_at(&buffer, start)?;
        write_all(&self.file, &buffer, start)?;
        present.set(index..index + 1);
        Ok(())
    }

    /// Brings the clusters that `range` covers in part up here: only its first and its last can be such.
    fn copy_up_edges(&self, present: &mut Present<'_>, range: &Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.copy_up(present, range.start, range)?;
        self.copy_up(present, range.end - 1, range)
    }

    fn clusters(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.cluster..range.end.div_ceil(self.cluster)
    }
}

/// The bitmap, seen for the time that its lock is held.
struct Present<'a> {
    bits: &'a mut [u64],
    cluster: u64,
}

impl Present<'_> {
    fn has(&self, cluster: u64) -> bool {
        let word = self.bits.get((cluster / 64) as usize);
        word.is_some_and(|w| w >> (cluster % 64) & 1 != 0)
    }

    fn set(&mut self, clusters: Range<u64>) {
        for c in clusters {
            if let Some(word) = self.bits.get_mut((c / 64) as usize) {
                *word |= 1 << (c % 64);
            }
        }
    }

    /// The longest run from `start` to at most `end` (bytes) that lives in one place: its end, and whether it
    /// is the overlay.
    fn run(&self, start: u64, end: u64) -> (u64, bool) {
        let first = start / self.cluster;
        let here = self.has(first);
        let last = (end - 1) / self.cluster;
        let stop = (first + 1..=last).find(|&c| self.has(c) != here).map_or(end, |c| c * self.cluster);
        (stop, here)
    }
}

/// Bytes `[from, to)` of `buffers` taken as one.
fn window<'a>(buffers: &[VolatileSlice<'a>], from: u64, to: u64) -> Vec<VolatileSlice<'a>> {
    let mut out = Vec::new();
    let mut at = 0;
    for buffer in buffers {
        let len = buffer.len() as u64;
        let start = from.clamp(at, at + len) - at;
        let end = to.clamp(at, at + len) - at;
        if start < end
            && let Ok(part) = buffer.subslice(start as usize, (end - start) as usize)
        {
            out.push(part);
        }
        at += len;
    }
    out
}

impl BlockBackend for Overlay {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        let len = total_len(buffers);
        check_range(offset, len, self.size())?;
        self.with_present(|present| {
            let end = offset + len;
            let mut at = offset;
            while at < end {
                let (stop, here) = present.run(at, end);
                let part = window(buffers, at - offset, stop - offset);
                if here {
                    read_padded(&self.file, &part, at, self.size())?;
                } else {
                    self.base.read_at(&part, at)?;
                }
                at = stop;
            }
            Ok(())
        })
    }

    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        let len = total_len(buffers);
        check_range(offset, len, self.size())?;
        let range = offset..offset + len;
        self.with_present(|present| {
            self.copy_up_edges(present, &range)?;
            write_all(&self.file, buffers, offset)?;
            present.set(self.clusters(&range));
            Ok(())
        })
    }

    fn flush(&self) -> io::Result<()> {
        // Nothing here is meant to survive.
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        check_range(offset, len, self.size())?;
        let range = offset..offset + len;
        if range.is_empty() {
            return Ok(());
        }
        self.with_present(|present| {
            self.copy_up_edges(present, &range)?;
            zero_file(&self.file, &range)?;
            present.set(self.clusters(&range));
            Ok(())
        })
    }

    fn is_revertible(&self) -> bool {
        true
    }

    fn revert(&self) -> io::Result<()> {
        self.with_present(|present| {
            present.bits.fill(0);
            self.file.set_len(0)?;
            self.file.set_len(self.base.size())
        })
    }
}

fn zero_file(file: &File, range: &Range<u64>) -> io::Result<()> {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if fallocate(file, mode, range.start, range.end - range.start).is_ok() {
        return Ok(());
    }
    let mut zeroes = vec![0; (range.end - range.start).min(1 << 18) as usize];
    let mut at = range.start;
    while at < range.end {
        let n = (range.end - at).min(zeroes.len() as u64);
        let (chunk, _) = zeroes.split_at_mut(n as usize);
        write_all(file, &[VolatileSlice::from(chunk)], at)?;
        at += n;
    }
    Ok(())
}

/// A file without a name: in `$TMPDIR`, `/var/tmp` (on disk on most hosts), `/tmp`, else in memory.
fn scratch_file() -> io::Result<File> {
    let places =
        [std::env::var_os("TMPDIR").map(PathBuf::from), Some("/var/tmp".into()), Some("/tmp".into())];
    for place in places.into_iter().flatten() {
        if let Ok(file) = unnamed_file_in(&place) {
            return Ok(file);
        }
    }
    Ok(File::from(memfd_create(c"armlet-snapshot", MemfdFlags::CLOEXEC)?))
}

fn unnamed_file_in(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(open(directory, flags, Mode::RUSR | Mode::WUSR)?);
    Ok(file)
}
