//! Disk images: what a block device reads and writes.
//!
//! A [`BlockBackend`] is a flat array of bytes with the promises that a block device makes about them. What the
//! bytes mean is the guest's matter. Today's backends are [`RawImage`] (a file or a host block device) and
//! [`Overlay`] (copy-on-write over another, thrown away at the end: `snapshot=on`).
//!
//! [`DiskOptions::open`] is the way in for users' images: it looks at the path first and says in one line what
//! is wrong and what to do about it, before anything is created or changed.

use std::io;

pub use vm_memory::VolatileSlice;

mod error;
mod open;
mod overlay;
mod raw;

pub use error::StorageError;
pub use open::{Disk, DiskOptions, ImageFormat};
pub use overlay::Overlay;
pub use raw::RawImage;

/// Size in bytes of a sector, the unit in which guests address disks.
pub const SECTOR_SIZE: u64 = 512;

/// A disk image that is open.
///
/// Offsets and lengths are in bytes and need not be aligned. All calls may come from any thread; calls that
/// overlap in time and in the bytes they touch give either order. Every call may block on the host's disk.
///
/// An access that does not lie within [`size`](Self::size) is an error of kind
/// [`InvalidInput`](io::ErrorKind::InvalidInput) and has no effect.
pub trait BlockBackend: Send + Sync {
    /// Size in bytes, a multiple of [`SECTOR_SIZE`]; it does not change while the image is open.
    fn size(&self) -> u64;

    /// True if writes, discards and write-zeroes are refused.
    fn read_only(&self) -> bool;

    /// Fills all of `buffers`, in order, from `offset`.
    ///
    /// # Errors
    /// The host's; part of the buffers may have been filled.
    fn read_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<()>;

    /// Writes all of `buffers`, in order, at `offset`. It is durable after the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// The host's; part may have been written.
    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<()>;

    /// Returns when every write that ended before this call survives a power cut.
    ///
    /// # Errors
    /// The host's: data may be lost.
    fn flush(&self) -> io::Result<()>;

    /// Says that the bytes are not needed any more. What is read there afterwards is either old data or zeroes.
    ///
    /// # Errors
    /// The host's. A host file system that cannot do it is no error.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes the bytes read as zero; with `unmap`, their space may be given back.
    ///
    /// # Errors
    /// The host's.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;

    /// True if [`revert`](Self::revert) can be done: nothing was ever written that stays.
    fn is_revertible(&self) -> bool {
        self.read_only()
    }

    /// Makes everything read as when the image was opened, if it [can be](Self::is_revertible).
    ///
    /// # Errors
    /// The host's.
    fn revert(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The sum of the buffers' lengths.
pub(crate) fn total_len(buffers: &[VolatileSlice<'_>]) -> u64 {
    buffers.iter().map(|b| b.len() as u64).sum()
}

/// Refuses `[offset, offset + len)` unless it lies within `size`.
pub(crate) fn check_range(offset: u64, len: u64, size: u64) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "access beyond the end of the disk image")),
    }
}

/// Refuses a change of a read-only image.
pub(crate) fn check_writable(read_only: bool) -> io::Result<()> {
    if read_only {
        return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the disk image is read-only"));
    }
    Ok(())
}
