//! What this implementation chooses where the architecture (Arm IHI 0069, chapter 12) lets it; the layout is
//! [`armlet_arm::gic`]'s.

pub use armlet_arm::gic::{
    FIRST_LPI, INTID_SPECIAL, INTID_SPURIOUS, PPIS, PRIVATE_INTIDS, SGI_BASE, SGIS, gicr, gits, its_table,
    lpi,
};

/// Most SPIs, in whole blocks of 32 below the special INTIDs.
pub const MAX_SPIS: u32 = 960;
/// Most CPUs.
pub const MAX_CPUS: usize = 512;

/// Implemented priority bits: 5, thus 32 levels and one active-priorities register per group.
pub const PRIORITY_BITS: u32 = 5;
/// The implemented bits of a priority field.
pub const PRIORITY_MASK: u8 = 0xff << (8 - PRIORITY_BITS);
/// Running priority of an idle CPU interface.
pub const PRIORITY_IDLE: u8 = 0xff;

/// Size of the distributor's window.
pub const DISTRIBUTOR_SIZE: u64 = 0x1_0000;
/// Size of one CPU's redistributor: the RD frame and the SGI frame, 64 KiB each.
pub const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

/// Distributor registers.
pub mod gicd {
    pub use armlet_arm::gic::gicd::*;

    /// TYPER: 10 INTID bits (field holds one less).
    pub const TYPER_IDBITS: u32 = 9 << 19;
    /// TYPER with LPIs: 16 INTID bits.
    pub const TYPER_IDBITS_LPIS: u32 = 15 << 19;
}

/// INTIDs below this are LPIs, or nothing.
pub const INTIDS: u32 = 1 << 16;
/// LPIs.
pub const LPIS: u32 = INTIDS - FIRST_LPI;

/// The interrupt translation service.
pub mod its {
    /// Bits of DeviceIDs, and most bits of EventIDs.
    pub const ID_BITS: u32 = 16;
    /// TYPER: physical LPIs, entries of 8 bytes, [`ID_BITS`]; CPUs by their numbers (PTA), collections of 16 bits in memory.
    pub const TYPER: u64 = 1 | 7 << 4 | (ID_BITS as u64 - 1) << 8 | (ID_BITS as u64 - 1) << 13;
    /// BASER0: a table of devices with entries of 8 bytes.
    pub const BASER0_FIXED: u64 = super::gits::BASER_DEVICES | 7 << 48 | super::gits::BASER_64K;
    /// BASER1: one of collections.
    pub const BASER1_FIXED: u64 = super::gits::BASER_COLLECTIONS | 7 << 48 | super::gits::BASER_64K;
    /// PIDR0 differs from that of the other frames.
    pub const PIDR0: u8 = 0x94;
    /// Most that one access to a register does before the queue stalls: a command is 1, an LPI that it moves as well.
    pub const WORK: u32 = 1 << 18;
}

/// Registers that the distributor and the SGI frame lay out alike.
pub mod common {
    pub use armlet_arm::gic::common::*;

    /// IIDR: implementer Arm.
    pub const IIDR_VALUE: u32 = 0x43b;
    /// Identification registers PIDR4..7, PIDR0..3, CIDR0..3, from [`IDREGS`] on. PIDR2.ArchRev is 3: GICv3.
    pub const ID_VALUES: [u8; 12] = [0x44, 0, 0, 0, 0x92, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1];
}

/// CPU interface registers.
pub mod icc {
    pub use armlet_arm::gic::icc::*;

    /// CTLR: PRIbits (one less than the number), A3V, RSS; IDbits 0 is 16 bits.
    pub const CTLR_FIXED: u64 = ((super::PRIORITY_BITS as u64 - 1) << 8) | (1 << 15) | (1 << 18);
    /// SRE: system registers on, no bypass; fixed.
    pub const SRE_VALUE: u64 = 0b111;
    /// Smallest value of BPR0: all implemented priority bits take part in preemption.
    pub const BPR0_MIN: u8 = 7 - super::PRIORITY_BITS as u8;
    /// Smallest value of BPR1, which counts from one bit further down.
    pub const BPR1_MIN: u8 = BPR0_MIN + 1;
}
