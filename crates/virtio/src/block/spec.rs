//! Layout and constants of the block device (virtio 5.2).

/// Feature bits (5.2.3).
pub mod feature {
    /// The configuration has the most buffers of a request.
    pub const SEG_MAX: u64 = 1 << 2;
    /// The disk cannot be written.
    pub const RO: u64 = 1 << 5;
    /// The configuration has the block size.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Flush requests, and a write cache by default.
    pub const FLUSH: u64 = 1 << 9;
    /// The configuration has the physical block size.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// The driver can switch the write cache off.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// Discard requests.
    pub const DISCARD: u64 = 1 << 13;
    /// Write-zeroes requests.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Request types (5.2.6).
pub mod request {
    /// Read.
    pub const IN: u32 = 0;
    /// Write.
    pub const OUT: u32 = 1;
    /// Make earlier writes durable.
    pub const FLUSH: u32 = 4;
    /// Give the device's name.
    pub const GET_ID: u32 = 8;
    /// The content of ranges is not needed any more.
    pub const DISCARD: u32 = 11;
    /// Make ranges read as zero.
    pub const WRITE_ZEROES: u32 = 13;

    /// Bytes of a request's header: type, reserved, sector.
    pub const HEADER_LEN: usize = 16;
    /// Bytes of a range of discard and write-zeroes: sector, number of sectors, flags.
    pub const RANGE_LEN: usize = 16;
    /// Bytes of the device's name.
    pub const ID_LEN: usize = 20;
    /// Flag of a write-zeroes range: its space may be given back.
    pub const RANGE_UNMAP: u32 = 1;
}

/// Status byte of a request (5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Failed.
    IoErr = 1,
    /// The device does not know such requests.
    Unsupp = 2,
}

/// Offsets in the configuration (5.2.4).
pub mod config {
    /// Size in sectors, 64 bits.
    pub const CAPACITY: usize = 0;
    /// Most buffers of a request, 32 bits.
    pub const SEG_MAX: usize = 12;
    /// Block size in bytes, 32 bits.
    pub const BLK_SIZE: usize = 20;
    /// Log2 of logical blocks per physical block, 8 bits.
    pub const PHYSICAL_BLOCK_EXP: usize = 24;
    /// Smallest good size of I/O in blocks, 16 bits.
    pub const MIN_IO_SIZE: usize = 26;
    /// 1: the write cache is on, 8 bits.
    pub const WRITEBACK: usize = 32;
    /// Longest range to discard, in sectors, 32 bits.
    pub const MAX_DISCARD_SECTORS: usize = 36;
    /// Most ranges of a discard, 32 bits.
    pub const MAX_DISCARD_SEG: usize = 40;
    /// Alignment of ranges to discard, in sectors, 32 bits.
    pub const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    /// Longest range to zero, in sectors, 32 bits.
    pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    /// Most ranges to zero, 32 bits.
    pub const MAX_WRITE_ZEROES_SEG: usize = 52;
    /// 1: zeroing may give space back, 8 bits.
    pub const WRITE_ZEROES_MAY_UNMAP: usize = 56;
    /// Length of all this.
    pub const LEN: usize = 60;
}
