//! The GICv3 (Arm IHI 0069), by its registers.
//!
//! Where a field is one of KVM's too, it has the meaning of its device attributes: a pending bit is the latch, apart from
//! the level of the input.

saved! {
    /// 32 consecutive interrupts, a bit each.
    SavedInterrupts {
        /// IGROUPR: group 1 rather than group 0.
        "1" group: u32,
        /// ISENABLER.
        "2" enabled: u32,
        /// Pending by an edge or by a write to ISPENDR; not by the level of the input.
        "3" latched: u32,
        /// Level of the input.
        "4" line: u32,
        /// ISACTIVER.
        "5" active: u32,
        /// Edge-triggered rather than level-sensitive (ICFGR).
        "6" edge: u32,
        /// IPRIORITYR, 32 of them.
        "7" priority: Vec<u8>,
    }

    /// One CPU's redistributor and CPU interface.
    SavedGicCpu {
        /// Aff3:Aff2:Aff1:Aff0, a byte each.
        "1" affinity: u32,
        /// SGIs and PPIs.
        "2" private: SavedInterrupts,
        /// GICR_CTLR.
        "3" redistributor_ctlr: u32,
        /// GICR_WAKER.ProcessorSleep.
        "4" asleep: bool,
        /// GICR_PROPBASER.
        "5" propbaser: u64,
        /// GICR_PENDBASER.
        "6" pendbaser: u64,
        /// ICC_PMR_EL1.
        "7" pmr: u8,
        /// ICC_BPR0_EL1.
        "8" bpr0: u8,
        /// ICC_BPR1_EL1, as it is without ICC_CTLR_EL1.CBPR.
        "9" bpr1: u8,
        /// ICC_CTLR_EL1, the bits that software can change: CBPR and EOImode.
        "10" ctlr: u64,
        /// ICC_IGRPEN0_EL1.
        "11" group0_on: bool,
        /// ICC_IGRPEN1_EL1.
        "12" group1_on: bool,
        /// ICC_AP0R0_EL1 and those behind it, as many as there are.
        "13" active0: Vec<u32>,
        /// ICC_AP1R0_EL1 and those behind it.
        "14" active1: Vec<u32>,
    }

    /// The interrupt controller.
    SavedGic {
        /// Architecture version: 3.
        "1" version: u32,
        /// GICD_CTLR, the bits that software can change: the group enables.
        "2" ctlr: u32,
        /// SPIs, from INTID 32 on.
        "3" shared: Vec<SavedInterrupts>,
        /// GICD_IROUTER, by SPI number.
        "4" routes: Vec<u64>,
        /// All places for CPUs, those without a CPU as well.
        "5" cpus: Vec<SavedGicCpu>,
        /// Priority bits that are implemented.
        "6" priority_bits: u32,
        /// CPU from which the search for the target of a 1-of-N interrupt begins.
        "7" next_cpu: u32,
        /// Its interrupt translation service.
        "8" its: Option<SavedIts>,
    }

    /// The interrupt translation service. Its tables, and those that tell which LPIs are pending, are in the guest's memory, as
    /// Linux's KVM lays them out (revision 0).
    SavedIts {
        /// GITS_CTLR.Enabled.
        "1" enabled: bool,
        /// GITS_CBASER.
        "2" queue: u64,
        /// GITS_CWRITER.
        "3" written: u64,
        /// GITS_CREADR.
        "4" read: u64,
        /// GITS_BASER0, the bits that software can change: the table of devices.
        "5" devices: u64,
        /// GITS_BASER1: that of collections.
        "6" collections: u64,
    }
}
