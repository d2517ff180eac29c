//! Register layout of PCI and PCI Express: "PCI Local Bus Specification 3.0" (sections given as PCI) and "PCI Express
//! Base Specification 5.0" (PCIe).

/// Type 0 configuration space header (PCI 6.1).
pub mod header {
    /// Vendor.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device.
    pub const DEVICE_ID: u16 = 0x02;
    /// What the function may do.
    pub const COMMAND: u16 = 0x04;
    /// What it is at.
    pub const STATUS: u16 = 0x06;
    /// Revision; above it three bytes of class code.
    pub const REVISION_ID: u16 = 0x08;
    /// Unit of cache lines, without a meaning in PCI Express.
    pub const CACHE_LINE_SIZE: u16 = 0x0c;
    /// The first of six base address registers.
    pub const BAR0: u16 = 0x10;
    /// Vendor of the board.
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    /// The board.
    pub const SUBSYSTEM_ID: u16 = 0x2e;
    /// Where the list of capabilities begins.
    pub const CAPABILITIES: u16 = 0x34;
    /// Whatever the guest keeps there about the interrupt.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// 1: INTA.
    pub const INTERRUPT_PIN: u16 = 0x3d;
    /// The first byte behind the header.
    pub const END: u16 = 0x40;
}

/// Bits of the command register (PCI 6.2.2).
pub mod command {
    /// The function answers to memory accesses.
    pub const MEMORY: u16 = 1 << 1;
    /// It may access memory, and send messages.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// It reports parity errors.
    pub const PARITY: u16 = 1 << 6;
    /// It reports system errors.
    pub const SERR: u16 = 1 << 8;
    /// It does not assert INTx.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register (PCI 6.2.3).
pub mod status {
    /// The function would assert INTx if it may.
    pub const INTERRUPT: u16 = 1 << 3;
    /// There is a list of capabilities.
    pub const CAPABILITIES: u16 = 1 << 4;
}

/// Kinds of capability (PCI appendix H).
pub mod capability {
    /// Whatever the vendor defines.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSI_X: u8 = 0x11;
}

/// The PCI Express capability (PCIe 7.5.3), without its two bytes of head.
pub mod express {
    /// Length in bytes, with the head.
    pub const LENGTH: usize = 0x3c;
    /// PCI Express Capabilities: version 2, a root complex integrated endpoint.
    pub const CAPABILITIES: usize = 0x02;
    /// Value of [`CAPABILITIES`].
    pub const INTEGRATED_ENDPOINT: u16 = 9 << 4 | 2;
    /// Device Capabilities.
    pub const DEVICE_CAPABILITIES: usize = 0x04;
    /// Errors are reported by the endpoint's role.
    pub const ROLE_BASED_ERRORS: u32 = 1 << 15;
    /// Device Control.
    pub const DEVICE_CONTROL: usize = 0x08;
    /// What can be written there: error reporting, relaxed ordering, no snoop, sizes.
    pub const DEVICE_CONTROL_WRITABLE: u16 = 0x78ff;
    /// What is there after a reset: relaxed ordering, no snoop, reads of 512 bytes.
    pub const DEVICE_CONTROL_RESET: u16 = 0x2810;
}

/// The MSI-X capability (PCI 6.8.2).
pub mod msix {
    /// Length in bytes, with the head.
    pub const LENGTH: usize = 12;
    /// Message Control.
    pub const CONTROL: u16 = 2;
    /// Where the table is.
    pub const TABLE: u16 = 4;
    /// Where the pending bits are.
    pub const PENDING: u16 = 8;
    /// Message Control: number of vectors less 1.
    pub const COUNT: u16 = 0x7ff;
    /// Message Control: all vectors are masked.
    pub const MASK_ALL: u16 = 1 << 14;
    /// Message Control: messages instead of INTx.
    pub const ENABLE: u16 = 1 << 15;
    /// Most vectors.
    pub const MAX_VECTORS: usize = 2048;
    /// Bytes of an entry of the table.
    pub const ENTRY: u64 = 16;
    /// Words of an entry: address, its upper half, data, control.
    pub const ADDRESS_LOW: u64 = 0;
    /// Upper half of the address.
    pub const ADDRESS_HIGH: u64 = 1;
    /// Data.
    pub const DATA: u64 = 2;
    /// Control: bit 0 masks the vector.
    pub const VECTOR_CONTROL: u64 = 3;
}

/// Functions that are addressed in the window of one bus (PCIe 7.2.2), in bytes.
pub const ECAM_BUS: u64 = 1 << 20;
/// Configuration space of one function there.
pub const ECAM_FUNCTION: u64 = 1 << 12;
/// Devices on a bus.
pub const DEVICES: usize = 32;
/// What a read gives to which nothing answers.
pub const NOBODY: u64 = u64::MAX;
