//! Registers of the generic interrupt controller as every implementation lays them out: version 3 (Arm IHI 0069, chapter 12),
//! and what version 2 has besides (IHI 0048, chapter 4).

/// INTIDs below this are SGIs and PPIs, private to a CPU.
pub const PRIVATE_INTIDS: u32 = 32;
/// INTIDs below this are SGIs.
pub const SGIS: u32 = 16;
/// PPIs of each CPU.
pub const PPIS: u32 = PRIVATE_INTIDS - SGIS;
/// First of the four special INTIDs; none of them is an interrupt.
pub const INTID_SPECIAL: u32 = 1020;
/// "No interrupt to acknowledge".
pub const INTID_SPURIOUS: u32 = 1023;
/// Where the SGI frame starts in a redistributor.
pub const SGI_BASE: u64 = 0x1_0000;

/// Distributor registers.
pub mod gicd {
    /// Control.
    pub const CTLR: u64 = 0x0000;
    /// Interrupt controller type.
    pub const TYPER: u64 = 0x0004;
    /// Implementer identification.
    pub const IIDR: u64 = 0x0008;
    /// Interrupt routing, 8 bytes per INTID.
    pub const IROUTER: u64 = 0x6000;
    /// End of the routing registers.
    pub const IROUTER_END: u64 = 0x8000;

    /// CTLR: group 0 enabled.
    pub const CTLR_ENABLE_GRP0: u32 = 1 << 0;
    /// CTLR: group 1 enabled.
    pub const CTLR_ENABLE_GRP1: u32 = 1 << 1;
    /// CTLR: affinity routing.
    pub const CTLR_ARE: u32 = 1 << 4;
    /// CTLR: security disabled: a single security state.
    pub const CTLR_DS: u32 = 1 << 6;
    /// CTLR: the bits that software can change.
    pub const CTLR_WRITABLE: u32 = CTLR_ENABLE_GRP0 | CTLR_ENABLE_GRP1;

    /// TYPER: affinity level 3 may be other than 0.
    pub const TYPER_A3V: u32 = 1 << 24;
    /// TYPER: the range selector of the SGI registers works.
    pub const TYPER_RSS: u32 = 1 << 26;

    /// IROUTER: any one participating CPU, instead of the one named.
    pub const IROUTER_IRM: u64 = 1 << 31;
    /// IROUTER: the implemented bits.
    pub const IROUTER_MASK: u64 = 0xff_80ff_ffff;
}

/// Redistributor registers, RD frame.
pub mod gicr {
    /// Control.
    pub const CTLR: u64 = 0x0000;
    /// Implementer identification.
    pub const IIDR: u64 = 0x0004;
    /// Type, 64 bits.
    pub const TYPER: u64 = 0x0008;
    /// Power management.
    pub const WAKER: u64 = 0x0014;
    /// LPI configuration table, 64 bits.
    pub const PROPBASER: u64 = 0x0070;
    /// LPI pending table, 64 bits.
    pub const PENDBASER: u64 = 0x0078;

    /// CTLR: do not pick this CPU for 1-of-N interrupts of group 0.
    pub const CTLR_DPG0: u32 = 1 << 24;
    /// CTLR: do not pick this CPU for 1-of-N interrupts of group 1.
    pub const CTLR_DPG1: u32 = 1 << 25;
    /// TYPER: last redistributor of its region.
    pub const TYPER_LAST: u64 = 1 << 4;
    /// TYPER: CTLR.DPGn are there.
    pub const TYPER_DPGS: u64 = 1 << 5;
    /// WAKER: software asks for the quiet state.
    pub const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
    /// WAKER: the quiet state is reached.
    pub const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
}

/// Registers that the distributor and the SGI frame lay out alike.
pub mod common {
    /// IGROUPR0: the first of the registers with a bit per interrupt.
    pub const BIT_REGISTERS: u64 = 0x0080;
    /// IGROUPR0.
    pub const IGROUPR: u64 = BIT_REGISTERS;
    /// ISENABLER0.
    pub const ISENABLER: u64 = 0x0100;
    /// ICENABLER0.
    pub const ICENABLER: u64 = 0x0180;
    /// ISPENDR0.
    pub const ISPENDR: u64 = 0x0200;
    /// ICPENDR0.
    pub const ICPENDR: u64 = 0x0280;
    /// ISACTIVER0.
    pub const ISACTIVER: u64 = 0x0300;
    /// ICACTIVER0.
    pub const ICACTIVER: u64 = 0x0380;
    /// IPRIORITYR0.
    pub const IPRIORITYR: u64 = 0x0400;
    /// End of the priority registers.
    pub const IPRIORITYR_END: u64 = 0x0800;
    /// ICFGR0.
    pub const ICFGR: u64 = 0x0c00;
    /// End of the configuration registers.
    pub const ICFGR_END: u64 = 0x0d00;
    /// First of the identification registers.
    pub const IDREGS: u64 = 0xffd0;
    /// End of the frame.
    pub const FRAME_END: u64 = 0x1_0000;
}

/// CPU interface registers, by the encoding of [`crate::sysreg::encoding`].
pub mod icc {
    use crate::sysreg::encoding;

    /// Priority mask.
    pub const PMR: u16 = encoding(3, 0, 4, 6, 0);
    /// Acknowledge, group 0.
    pub const IAR0: u16 = encoding(3, 0, 12, 8, 0);
    /// End of interrupt, group 0.
    pub const EOIR0: u16 = encoding(3, 0, 12, 8, 1);
    /// Highest priority pending, group 0.
    pub const HPPIR0: u16 = encoding(3, 0, 12, 8, 2);
    /// Binary point, group 0.
    pub const BPR0: u16 = encoding(3, 0, 12, 8, 3);
    /// Active priorities, group 0.
    pub const AP0R0: u16 = encoding(3, 0, 12, 8, 4);
    /// Active priorities, group 1.
    pub const AP1R0: u16 = encoding(3, 0, 12, 9, 0);
    /// Deactivate.
    pub const DIR: u16 = encoding(3, 0, 12, 11, 1);
    /// Running priority.
    pub const RPR: u16 = encoding(3, 0, 12, 11, 3);
    /// Generate SGI, group 1.
    pub const SGI1R: u16 = encoding(3, 0, 12, 11, 5);
    /// Generate SGI, the other security state's group 1.
    pub const ASGI1R: u16 = encoding(3, 0, 12, 11, 6);
    /// Generate SGI, group 0.
    pub const SGI0R: u16 = encoding(3, 0, 12, 11, 7);
    /// Acknowledge, group 1.
    pub const IAR1: u16 = encoding(3, 0, 12, 12, 0);
    /// End of interrupt, group 1.
    pub const EOIR1: u16 = encoding(3, 0, 12, 12, 1);
    /// Highest priority pending, group 1.
    pub const HPPIR1: u16 = encoding(3, 0, 12, 12, 2);
    /// Binary point, group 1.
    pub const BPR1: u16 = encoding(3, 0, 12, 12, 3);
    /// Control.
    pub const CTLR: u16 = encoding(3, 0, 12, 12, 4);
    /// System register enable.
    pub const SRE: u16 = encoding(3, 0, 12, 12, 5);
    /// Group 0 enable.
    pub const IGRPEN0: u16 = encoding(3, 0, 12, 12, 6);
    /// Group 1 enable.
    pub const IGRPEN1: u16 = encoding(3, 0, 12, 12, 7);

    /// ISR_EL1, the PE's view of the lines that the interface drives.
    pub const ISR: u16 = encoding(3, 0, 12, 1, 0);
    /// ISR: an IRQ is pending.
    pub const ISR_I: u64 = 1 << 7;
    /// ISR: an FIQ is pending.
    pub const ISR_F: u64 = 1 << 6;

    /// CTLR: one binary point register for both groups.
    pub const CTLR_CBPR: u64 = 1 << 0;
    /// CTLR: EOIR drops the priority only; DIR deactivates.
    pub const CTLR_EOIMODE: u64 = 1 << 1;
    /// CTLR: the bits that software can change.
    pub const CTLR_WRITABLE: u64 = CTLR_CBPR | CTLR_EOIMODE;

    /// SGIxR: all CPUs but the writer.
    pub const SGIR_IRM: u64 = 1 << 40;
}

/// Registers of the distributor that only version 2 has, or uses.
pub mod gicd2 {
    /// ITARGETSR0: a byte for each interrupt, with a bit for each CPU.
    pub const ITARGETSR: u64 = 0x0800;
    /// CPENDSGIR0: a byte for each SGI, with a bit for each CPU that sent it.
    pub const CPENDSGIR: u64 = 0x0f10;
}

/// Registers of version 2's CPU interface.
pub mod gicc {
    /// Control.
    pub const CTLR: u64 = 0x0000;
    /// Priority mask.
    pub const PMR: u64 = 0x0004;
    /// Binary point.
    pub const BPR: u64 = 0x0008;
    /// Binary point of group 1.
    pub const ABPR: u64 = 0x001c;
    /// Active priorities.
    pub const APR: u64 = 0x00d0;
}
