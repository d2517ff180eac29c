//! One block request: parsing and doing it.

use std::io;

use armlet_memory::Ram;
use armlet_storage::{BlockBackend, SECTOR_SIZE};

use super::spec::{Status, request};
use super::{MAX_RANGE_SECTORS, MAX_RANGES};
use crate::queue::{Buffers, Chain};

/// What requests are done with.
pub(super) struct Target<'a> {
    pub backend: &'a dyn BlockBackend,
    pub id: &'a [u8; request::ID_LEN],
    /// Features that the driver accepted.
    pub features: u64,
    /// Every write is made durable before it completes.
    pub write_through: bool,
}

/// Why a request was not done.
enum Failure {
    /// The driver asked for something that is not there.
    Unsupported,
    /// The request makes no sense: beyond the end, odd length, read-only.
    Invalid,
    /// The host could not.
    Host(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem => Self::Invalid,
            _ => Self::Host(error),
        }
    }
}

/// A request that was answered.
pub(super) struct Done {
    /// Bytes written to the driver's buffers.
    pub written: u32,
    /// The host's error behind an `IoErr`.
    pub host_error: Option<io::Error>,
}

/// True if `chain` is a read or a write. A hint only: the driver may change the request at any moment.
pub(super) fn is_transfer(chain: &Chain, memory: &Ram) -> bool {
    let mut kind = [0; 4];
    chain.readable(memory).copy_to(&mut kind);
    matches!(u32::from_le_bytes(kind), request::IN | request::OUT)
}

/// Does the request in `chain` and writes its status byte. A chain without room for that is handed back as it is,
/// with nothing written.
pub(super) fn execute(target: &Target<'_>, chain: &Chain, memory: &Ram) -> Done {
    let mut readable = chain.readable(memory);
    let mut writable = chain.writable(memory);
    let status_byte = writable.take_back(1);
    if status_byte.is_empty() {
        return Done { written: 0, host_error: None };
    }
    let mut header = [0; request::HEADER_LEN];
    let result = if readable.take_front(header.len() as u64).copy_to(&mut header) == header.len() {
        dispatch(target, &header, &readable, &writable)
    } else {
        Err(Failure::Invalid)
    };
    let (data, status, host_error) = match result {
        Ok(data) => (data, Status::Ok, None),
        Err(Failure::Unsupported) => (0, Status::Unsupp, None),
        Err(Failure::Invalid) => (0, Status::IoErr, None),
        Err(Failure::Host(e)) => (0, Status::IoErr, Some(e)),
    };
    let status_len = status_byte.copy_from(&[status as u8]) as u64;
    Done { written: u32::try_from(data + status_len).unwrap_or(u32::MAX), host_error }
}

/// Returns the bytes written to `writable`.
fn dispatch(
    target: &Target<'_>,
    header: &[u8; request::HEADER_LEN],
    readable: &Buffers<'_>,
    writable: &Buffers<'_>,
) -> Result<u64, Failure> {
    let kind = le32(header, 0);
    let sector = le64(header, 8);
    match kind {
        request::IN => {
            let offset = data_offset(target, sector, writable.len())?;
            target.backend.read_at(writable.slices(), offset)?;
            Ok(writable.len())
        }
        request::OUT => {
            let offset = data_offset(target, sector, readable.len())?;
            target.backend.write_at(readable.slices(), offset)?;
            made_durable(target)
        }
        request::FLUSH => {
            target.backend.flush()?;
            Ok(0)
        }
        request::GET_ID => Ok(writable.copy_from(target.id) as u64),
        request::DISCARD if target.features & super::spec::feature::DISCARD != 0 => {
            for range in parse_ranges(target, readable, 0)? {
                target.backend.discard(range.offset, range.len)?;
            }
            made_durable(target)
        }
        request::WRITE_ZEROES if target.features & super::spec::feature::WRITE_ZEROES != 0 => {
            for range in parse_ranges(target, readable, request::RANGE_UNMAP)? {
                let unmap = range.flags & request::RANGE_UNMAP != 0;
                target.backend.write_zeroes(range.offset, range.len, unmap)?;
            }
            made_durable(target)
        }
        _ => Err(Failure::Unsupported),
    }
}

fn made_durable(target: &Target<'_>) -> Result<u64, Failure> {
    if target.write_through {
        target.backend.flush()?;
    }
    Ok(0)
}

/// Byte offset of a transfer of whole sectors within the disk.
fn data_offset(target: &Target<'_>, sector: u64, len: u64) -> Result<u64, Failure> {
    if !len.is_multiple_of(SECTOR_SIZE) {
        return Err(Failure::Invalid);
    }
    byte_offset(target, sector, len / SECTOR_SIZE)
}

fn byte_offset(target: &Target<'_>, sector: u64, sectors: u64) -> Result<u64, Failure> {
    let capacity = target.backend.size() / SECTOR_SIZE;
    match sector.checked_add(sectors) {
        Some(end) if end <= capacity => Ok(sector * SECTOR_SIZE),
        _ => Err(Failure::Invalid),
    }
}

/// A range of a discard or write-zeroes request, in bytes.
struct Range {
    offset: u64,
    len: u64,
    flags: u32,
}

/// All ranges, each checked, before any is acted on.
fn parse_ranges(
    target: &Target<'_>,
    readable: &Buffers<'_>,
    allowed_flags: u32,
) -> Result<Vec<Range>, Failure> {
    let len = readable.len();
    let max = u64::from(MAX_RANGES) * request::RANGE_LEN as u64;
    if len == 0 || len > max || !len.is_multiple_of(request::RANGE_LEN as u64) {
        return Err(Failure::Invalid);
    }
    if target.backend.read_only() {
        return Err(Failure::Invalid);
    }
    // Copied once: the driver may change the buffer while it is looked at.
    let mut bytes = vec![0; len as usize];
    readable.copy_to(&mut bytes);
    let parse = |raw: &[u8]| {
        let (sector, sectors, flags) = (le64(raw, 0), le32(raw, 8), le32(raw, 12));
        if flags & !allowed_flags != 0 {
            return Err(Failure::Unsupported);
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(Failure::Invalid);
        }
        let offset = byte_offset(target, sector, sectors.into())?;
        Ok(Range { offset, len: u64::from(sectors) * SECTOR_SIZE, flags })
    };
    bytes.chunks_exact(request::RANGE_LEN).map(parse).collect()
}

/// Little-endian word at `at`; 0 beyond the end.
fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

/// Little-endian doubleword at `at`; 0 beyond the end.
fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}
