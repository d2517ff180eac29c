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

/// First LPI.
pub const FIRST_LPI: u32 = 8192;

/// An LPI's byte in the configuration table (IHI 0069, 5.1.1).
pub mod lpi {
    /// It is enabled.
    pub const ENABLED: u8 = 1 << 0;
    /// Its priority.
    pub const PRIORITY: u8 = 0xfc;
}

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

    /// TYPER: there are LPIs.
    pub const TYPER_LPIS: u32 = 1 << 17;
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
    /// Read an LPI's configuration again, 64 bits.
    pub const INVLPIR: u64 = 0x00a0;
    /// Read the configuration of all LPIs again, 64 bits.
    pub const INVALLR: u64 = 0x00b0;
    /// Whether that is being done.
    pub const SYNCR: u64 = 0x00c0;

    /// CTLR: LPIs are enabled.
    pub const CTLR_ENABLE_LPIS: u32 = 1 << 0;
    /// CTLR: they can be disabled again.
    pub const CTLR_CES: u32 = 1 << 1;
    /// CTLR: INVLPIR and INVALLR are there.
    pub const CTLR_IR: u32 = 1 << 2;
    /// CTLR: do not pick this CPU for 1-of-N interrupts of group 0.
    pub const CTLR_DPG0: u32 = 1 << 24;
    /// CTLR: do not pick this CPU for 1-of-N interrupts of group 1.
    pub const CTLR_DPG1: u32 = 1 << 25;
    /// TYPER: there are physical LPIs.
    pub const TYPER_PLPIS: u64 = 1 << 0;
    /// TYPER: last redistributor of its region.
    pub const TYPER_LAST: u64 = 1 << 4;
    /// TYPER: CTLR.DPGn are there.
    pub const TYPER_DPGS: u64 = 1 << 5;
    /// WAKER: software asks for the quiet state.
    pub const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
    /// WAKER: the quiet state is reached.
    pub const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
    /// PROPBASER: bits of an INTID, less one.
    pub const PROPBASER_IDBITS: u64 = 0x1f;
    /// PROPBASER: where the table is.
    pub const PROPBASER_ADDRESS: u64 = 0xf_ffff_ffff_f000;
    /// PROPBASER: the bits that are not reserved.
    pub const PROPBASER_MASK: u64 = 0x070f_ffff_ffff_ff9f;
    /// PENDBASER: where the table is.
    pub const PENDBASER_ADDRESS: u64 = 0xf_ffff_ffff_0000;
    /// PENDBASER: the table is all zeros; write only.
    pub const PENDBASER_PTZ: u64 = 1 << 62;
    /// PENDBASER: the bits that are not reserved and can be read.
    pub const PENDBASER_MASK: u64 = 0x070f_ffff_ffff_0f80;
}

/// Registers and commands of the interrupt translation service (IHI 0069, 5.3, 12.19).
pub mod gits {
    /// Control.
    pub const CTLR: u64 = 0x0000;
    /// Implementer identification.
    pub const IIDR: u64 = 0x0004;
    /// Type, 64 bits.
    pub const TYPER: u64 = 0x0008;
    /// Command queue, 64 bits.
    pub const CBASER: u64 = 0x0080;
    /// Where software writes the next command, 64 bits.
    pub const CWRITER: u64 = 0x0088;
    /// Where the next command is read, 64 bits.
    pub const CREADR: u64 = 0x0090;
    /// First table, 64 bits; eight of them.
    pub const BASER: u64 = 0x0100;
    /// Behind the last one.
    pub const BASER_END: u64 = 0x0140;
    /// Where messages are written: an EventID, in the frame behind this one.
    pub const TRANSLATER: u64 = 0x1_0040;
    /// Both frames.
    pub const SIZE: u64 = 0x2_0000;

    /// CTLR: enabled.
    pub const CTLR_ENABLED: u32 = 1 << 0;
    /// CTLR: disabled, and nothing is left to do.
    pub const CTLR_QUIESCENT: u32 = 1 << 31;
    /// Valid; of CBASER and BASER.
    pub const VALID: u64 = 1 << 63;
    /// CBASER and BASER: pages, less one.
    pub const PAGES: u64 = 0xff;
    /// CBASER: where the queue is.
    pub const CBASER_ADDRESS: u64 = 0xf_ffff_ffff_f000;
    /// CBASER: size of its pages.
    pub const CBASER_PAGE: u64 = 0x1000;
    /// CBASER: the bits that are not reserved.
    pub const CBASER_MASK: u64 = 0xb8ef_ffff_ffff_fcff;
    /// CREADR and CWRITER: place in the queue in bytes.
    pub const OFFSET: u64 = 0xf_ffe0;
    /// CREADR: a command cannot be carried out.
    pub const CREADR_STALLED: u64 = 1 << 0;
    /// CWRITER: try it again.
    pub const CWRITER_RETRY: u64 = 1 << 0;
    /// BASER: two levels.
    pub const BASER_INDIRECT: u64 = 1 << 62;
    /// BASER: what of it software can change, with pages of 64 KiB.
    pub const BASER_MASK: u64 = 0xf8e0_ffff_ffff_fcff;
    /// BASER: pages of 64 KiB.
    pub const BASER_64K: u64 = 2 << 8;
    /// BASER: a table of devices.
    pub const BASER_DEVICES: u64 = 1 << 56;
    /// BASER: a table of collections.
    pub const BASER_COLLECTIONS: u64 = 4 << 56;

    /// Where the table of a BASER with pages of 64 KiB is; bits 51 to 48 are in 15 to 12.
    pub const fn table_address(baser: u64) -> u64 {
        (baser & 0xffff_ffff_0000) | (baser & 0xf000) << 36
    }

    /// Bytes of it.
    pub const fn table_size(baser: u64) -> u64 {
        ((baser & PAGES) + 1) << 16
    }

    /// Bytes of a command.
    pub const COMMAND_SIZE: u64 = 32;
    /// An event of a device goes to another collection.
    pub const MOVI: u8 = 0x01;
    /// Sends an event.
    pub const INT: u8 = 0x03;
    /// An event's interrupt is not pending any more.
    pub const CLEAR: u8 = 0x04;
    /// What came before is done.
    pub const SYNC: u8 = 0x05;
    /// Gives a device a table of events.
    pub const MAPD: u8 = 0x08;
    /// Gives a collection a CPU.
    pub const MAPC: u8 = 0x09;
    /// Gives an event an interrupt and a collection.
    pub const MAPTI: u8 = 0x0a;
    /// The same, with the INTID that is the EventID.
    pub const MAPI: u8 = 0x0b;
    /// Reads the configuration of an event's interrupt again.
    pub const INV: u8 = 0x0c;
    /// The same for all of a collection.
    pub const INVALL: u8 = 0x0d;
    /// What is pending at a CPU goes to another one.
    pub const MOVALL: u8 = 0x0e;
    /// Takes an event's interrupt away.
    pub const DISCARD: u8 = 0x0f;
}

/// Tables of the interrupt translation service in the guest's memory, as Linux's KVM lays them out (revision 0;
/// Documentation/virt/kvm/devices/arm-vgic-its.rst). An entry has 8 bytes.
pub mod its_table {
    /// Bytes of an entry.
    pub const ENTRY: u64 = 8;
    /// Bytes of a page, of which a first level names those of the second.
    pub const PAGE: u64 = 0x1_0000;
    /// An entry of a first level, of a device or of a collection is valid.
    pub const VALID: u64 = 1 << 63;
    /// Where the page is that an entry of a first level names.
    pub const PAGE_ADDRESS: u64 = 0xf_ffff_ffff_0000;

    /// A device, whose events' table is at `itt`, with `bits` of EventID. The next one may be right behind it.
    pub const fn device(itt: u64, bits: u32) -> u64 {
        VALID | 1 << 49 | (itt >> 8) << 5 | (bits - 1) as u64
    }

    /// Where the table of a device's events is, and how many bits their EventIDs have; `None` if it is not valid.
    pub const fn device_of(entry: u64) -> Option<(u64, u32)> {
        if entry & VALID == 0 {
            return None;
        }
        Some((((entry >> 5) & 0xfff_ffff_ffff) << 8, (entry & 0x1f) as u32 + 1))
    }

    /// An event with its interrupt and collection, the last of its table or not. The next one may be right behind it.
    pub const fn event(intid: u32, collection: u16, last: bool) -> u64 {
        let next = if last { 0 } else { 1 << 48 };
        next | (intid as u64) << 16 | collection as u64
    }

    /// Interrupt and collection of an event.
    pub const fn event_of(entry: u64) -> (u32, u16) {
        ((entry >> 16) as u32, entry as u16)
    }

    /// A collection and the CPU that it goes to.
    pub const fn collection(id: u16, cpu: u32) -> u64 {
        VALID | (cpu as u64) << 16 | id as u64
    }

    /// Collection and CPU; `None` if it is not valid.
    pub const fn collection_of(entry: u64) -> Option<(u16, u64)> {
        if entry & VALID == 0 { None } else { Some((entry as u16, (entry >> 16) & 0xf_ffff_ffff)) }
    }
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
