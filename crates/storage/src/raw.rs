//! Raw images: the file's bytes are the disk's bytes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use armlet_memory::fileio;
use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use crate::{BlockBackend, SECTOR_SIZE, check_range, check_writable, total_len};

/// Bytes written at a time where the host cannot zero a range itself.
const ZERO_CHUNK: u64 = 256 * 1024;

/// A raw image in a regular file or on a host block device.
///
/// A file whose length is no multiple of the sector size is padded: the guest reads zeroes beyond the file's
/// end, and the file grows to the whole sector if the guest writes there.
pub struct RawImage {
    file: File,
    /// Size that the guest sees.
    size: u64,
    /// Length of the file when it was opened; a read that ends before it is an error.
    file_len: u64,
    read_only: bool,
    /// The host said that it cannot punch holes here; not asked again.
    no_punch: AtomicBool,
    /// The same for zeroing a range in place.
    no_zero: AtomicBool,
}

impl RawImage {
    /// Takes an open file of `file_len` bytes (block devices have a length of 0 in their metadata, so it is
    /// not asked here).
    pub fn new(file: File, file_len: u64, read_only: bool) -> Self {
        Self {
            file,
            size: file_len.next_multiple_of(SECTOR_SIZE),
            file_len,
            read_only,
            no_punch: AtomicBool::new(false),
            no_zero: AtomicBool::new(false),
        }
    }

    /// Asks the host to do `mode`; false if it cannot do that on this file.
    fn try_fallocate(
        &self,
        mode: FallocateFlags,
        refused: &AtomicBool,
        offset: u64,
        len: u64,
    ) -> io::Result<bool> {
        if refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        loop {
            return match fallocate(&self.file, mode | FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => Ok(true),
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY) => {
                    refused.store(true, Ordering::Relaxed);
                    Ok(false)
                }
                // Block devices refuse ranges that are not aligned to their logical blocks.
                Err(Errno::INVAL) => Ok(false),
                Err(e) => Err(e.into()),
            };
        }
    }

    fn write_zero_bytes(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        let mut zeroes = vec![0u8; len.min(ZERO_CHUNK) as usize];
        while len > 0 {
            let n = len.min(ZERO_CHUNK);
            let (chunk, _) = zeroes.split_at_mut(n as usize);
            write_all(&self.file, &[VolatileSlice::from(chunk)], offset)?;
            offset += n;
            len -= n;
        }
        Ok(())
    }
}

/// Writes all of `buffers`.
pub(crate) fn write_all(file: &File, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
    let written = fileio::write_at(file.as_fd(), buffers, offset)?;
    if written as u64 == total_len(buffers) { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Fills `buffers`; what lies beyond the end of the file reads as zero if that end is at or after `file_len`.
pub(crate) fn read_padded(
    file: &File,
    buffers: &[VolatileSlice<'_>],
    offset: u64,
    file_len: u64,
) -> io::Result<()> {
    let got = fileio::read_at(file.as_fd(), buffers, offset)? as u64;
    if got < total_len(buffers) {
        if offset + got < file_len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the disk image has been truncated"));
        }
        zero_from(buffers, got);
    }
    Ok(())
}

/// Zeroes `buffers` from their byte `start` on.
pub(crate) fn zero_from(buffers: &[VolatileSlice<'_>], start: u64) {
    const ZEROES: [u8; 512] = [0; 512];
    let mut skip = start;
    for buffer in buffers {
        let len = buffer.len() as u64;
        let mut at = skip.min(len);
        skip -= at;
        while let Ok(rest) = buffer.offset(at as usize)
            && !rest.is_empty()
        {
            rest.copy_from(&ZEROES);
            at += rest.len().min(ZEROES.len()) as u64;
        }
    }
}

impl BlockBackend for RawImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        check_range(offset, total_len(buffers), self.size)?;
        read_padded(&self.file, buffers, offset, self.file_len)
    }

    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        check_writable(self.read_only)?;
        check_range(offset, total_len(buffers), self.size)?;
        write_all(&self.file, buffers, offset)
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        loop {
            match fdatasync(&self.file) {
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_writable(self.read_only)?;
        check_range(offset, len, self.size)?;
        if len > 0 {
            self.try_fallocate(FallocateFlags::PUNCH_HOLE, &self.no_punch, offset, len)?;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        check_writable(self.read_only)?;
        check_range(offset, len, self.size)?;
        if len == 0
            || (unmap && self.try_fallocate(FallocateFlags::PUNCH_HOLE, &self.no_punch, offset, len)?)
            || self.try_fallocate(FallocateFlags::ZERO_RANGE, &self.no_zero, offset, len)?
        {
            return Ok(());
        }
        self.write_zero_bytes(offset, len)
    }
}
