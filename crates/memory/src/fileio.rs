//! Positional file I/O straight into and out of guest RAM, without a bounce buffer.
//!
//! Guest RAM must never be seen as a Rust reference (the guest writes to it at any moment), and the safe
//! wrappers of `preadv(2)` want references. This module is the one place that hands its raw addresses to the
//! kernel.
#![expect(unsafe_code, reason = "preadv/pwritev take raw pointers into guest RAM")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

/// Most buffers that one system call takes (Linux's `UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

/// Reads at `offset` into `slices`, in order, until they are full or the file ends. Returns the bytes read.
///
/// # Errors
/// The host's error; part of the slices may have been filled.
pub fn read_at(fd: BorrowedFd<'_>, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    transfer(slices, offset, |iov, offset| {
        // SAFETY: every entry describes memory that a `VolatileSlice` keeps valid for writes during this call;
        // the kernel's stores to it are like any other agent's stores to volatile memory.
        unsafe { libc::preadv64(fd.as_raw_fd(), iov.as_ptr(), iov.len() as libc::c_int, offset) }
    })
}

/// Writes all of `slices`, in order, at `offset`. Returns the bytes written, which are fewer only if the host
/// takes no more without an error.
///
/// # Errors
/// The host's error; part may have been written.
pub fn write_at(fd: BorrowedFd<'_>, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    transfer(slices, offset, |iov, offset| {
        // SAFETY: as in `read_at`, for reads.
        unsafe { libc::pwritev64(fd.as_raw_fd(), iov.as_ptr(), iov.len() as libc::c_int, offset) }
    })
}

fn transfer(
    slices: &[VolatileSlice<'_>],
    offset: u64,
    mut call: impl FnMut(&[libc::iovec], i64) -> isize,
) -> io::Result<usize> {
    let mut iov: Vec<libc::iovec> = slices
        .iter()
        .filter(|s| !s.is_empty())
        .map(|s| libc::iovec { iov_base: s.ptr_guard_mut().as_ptr().cast(), iov_len: s.len() })
        .collect();
    let mut rest = iov.as_mut_slice();
    let mut done = 0usize;
    while !rest.is_empty() {
        let at = offset
            .checked_add(done as u64)
            .and_then(|o| i64::try_from(o).ok())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let n = call(&rest[..rest.len().min(IOV_MAX)], at);
        if n < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        if n == 0 {
            break;
        }
        done += n as usize;
        rest = advance(rest, n as usize);
    }
    Ok(done)
}

/// Drops the first `n` bytes.
fn advance(mut iov: &mut [libc::iovec], mut n: usize) -> &mut [libc::iovec] {
    while let Some(first) = iov.first_mut() {
        if n < first.iov_len {
            first.iov_base = first.iov_base.cast::<u8>().wrapping_add(n).cast();
            first.iov_len -= n;
            break;
        }
        n -= first.iov_len;
        iov = &mut iov[1..];
    }
    iov
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ram;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    use vm_memory::{GuestAddress, GuestMemoryBackend};

    #[test]
    fn scattered_pieces_land_in_order_and_the_end_of_the_file_is_told() {
        let mut file = File::from(rustix::fs::memfd_create(c"t", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.write_all(b"0123456789").unwrap();
        let ram = Ram::new(0, 0x1000).unwrap();
        let slice = |gpa, len| ram.guest_memory().get_slice(GuestAddress(gpa), len).unwrap();

        let n = read_at(file.as_fd(), &[slice(0x100, 3), slice(0, 0), slice(0x50, 20)], 2).unwrap();
        assert_eq!(n, 8);
        let mut out = [0; 8];
        ram.read(0x100, &mut out[..3]).unwrap();
        ram.read(0x50, &mut out[3..]).unwrap();
        assert_eq!(&out, b"23456789");

        assert_eq!(write_at(file.as_fd(), &[slice(0x50, 2), slice(0x100, 1)], 0).unwrap(), 3);
        let mut start = [0; 4];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"5623");
    }

    #[test]
    fn more_pieces_than_one_system_call_takes_are_all_moved() {
        let file = File::from(rustix::fs::memfd_create(c"t", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let ram = Ram::new(0, 0x1_0000).unwrap();
        let data: Vec<u8> = (0..3000u32).map(|i| (i * 7) as u8).collect();
        ram.write(0, &data).unwrap();
        let pieces: Vec<_> =
            (0..3000).map(|i| ram.guest_memory().get_slice(GuestAddress(i), 1).unwrap()).collect();
        assert_eq!(write_at(file.as_fd(), &pieces, 5).unwrap(), 3000);
        let mut back = vec![0; 3000];
        file.read_exact_at(&mut back, 5).unwrap();
        assert_eq!(back, data);
    }

    #[test]
    fn an_offset_beyond_what_files_can_have_is_an_error() {
        let file = File::from(rustix::fs::memfd_create(c"t", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let ram = Ram::new(0, 0x1000).unwrap();
        let slice = ram.guest_memory().get_slice(GuestAddress(0), 16).unwrap();
        assert!(read_at(file.as_fd(), &[slice], u64::MAX - 3).is_err());
    }
}
