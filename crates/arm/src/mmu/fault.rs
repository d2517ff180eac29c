//! Faults and their status codes.

/// Why an access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An address in a descriptor, in TTBR or (MMU off) the address itself is too large.
    AddressSize,
    /// No valid descriptor.
    Translation,
    /// The Access flag is clear.
    AccessFlag,
    /// The page does not allow it.
    Permission,
    /// External abort on the access itself.
    SyncExternal,
    /// External abort on a read of a table.
    SyncExternalOnWalk,
    /// Misaligned access.
    Alignment,
    /// The table is where hardware update of descriptors cannot be done.
    UnsupportedAtomicUpdate,
    /// Exclusive or atomic access to memory that does not support it.
    UnsupportedExclusive,
}

/// A fault and where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Why.
    pub kind: FaultKind,
    /// Level of the lookup, -1 to 3; 0 where levels mean nothing.
    pub level: i8,
}

impl Fault {
    /// A fault at a level of the walk.
    pub const fn new(kind: FaultKind, level: i8) -> Self {
        Self { kind, level }
    }

    /// Misaligned access.
    pub const fn alignment() -> Self {
        Self::new(FaultKind::Alignment, 0)
    }

    /// External abort on the access itself.
    pub const fn external() -> Self {
        Self::new(FaultKind::SyncExternal, 0)
    }

    /// The fault status code (IFSC, DFSC, PAR_EL1.FST), 6 bits.
    pub const fn status_code(self) -> u32 {
        let level = (self.level & 3) as u32;
        match (self.kind, self.level) {
            (FaultKind::AddressSize, -1) => 0b10_1001,
            (FaultKind::Translation, -1) => 0b10_1011,
            (FaultKind::SyncExternalOnWalk, -1) => 0b01_0011,
            (FaultKind::AddressSize, _) => level,
            (FaultKind::Translation, _) => 0b00_0100 | level,
            (FaultKind::AccessFlag, _) => 0b00_1000 | level,
            (FaultKind::Permission, _) => 0b00_1100 | level,
            (FaultKind::SyncExternal, _) => 0b01_0000,
            (FaultKind::SyncExternalOnWalk, _) => 0b01_0100 | level,
            (FaultKind::Alignment, _) => 0b10_0001,
            (FaultKind::UnsupportedAtomicUpdate, _) => 0b11_0001,
            (FaultKind::UnsupportedExclusive, _) => 0b11_0101,
        }
    }
}
