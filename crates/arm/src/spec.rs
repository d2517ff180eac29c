//! Register layouts (Arm ARM D24): fields of the system registers that behaviour depends on.

#![allow(missing_docs)]

/// SCTLR_EL1.
pub mod sctlr {
    pub const M: u64 = 1 << 0;
    pub const A: u64 = 1 << 1;
    pub const C: u64 = 1 << 2;
    pub const SA: u64 = 1 << 3;
    pub const SA0: u64 = 1 << 4;
    pub const NAA: u64 = 1 << 6;
    pub const ITD: u64 = 1 << 7;
    pub const SED: u64 = 1 << 8;
    pub const UMA: u64 = 1 << 9;
    pub const EN_RCTX: u64 = 1 << 10;
    pub const EOS: u64 = 1 << 11;
    pub const I: u64 = 1 << 12;
    pub const EN_DB: u64 = 1 << 13;
    pub const DZE: u64 = 1 << 14;
    pub const UCT: u64 = 1 << 15;
    pub const NTWI: u64 = 1 << 16;
    pub const NTWE: u64 = 1 << 18;
    pub const WXN: u64 = 1 << 19;
    pub const TSCXT: u64 = 1 << 20;
    pub const IESB: u64 = 1 << 21;
    pub const EIS: u64 = 1 << 22;
    pub const SPAN: u64 = 1 << 23;
    pub const E0E: u64 = 1 << 24;
    pub const EE: u64 = 1 << 25;
    pub const UCI: u64 = 1 << 26;
    pub const EN_DA: u64 = 1 << 27;
    pub const NTLSMD: u64 = 1 << 28;
    pub const LSMAOE: u64 = 1 << 29;
    pub const EN_IB: u64 = 1 << 30;
    pub const EN_IA: u64 = 1 << 31;
    pub const CMOW: u64 = 1 << 32;
    pub const MSC_EN: u64 = 1 << 33;
    pub const BT0: u64 = 1 << 35;
    pub const BT1: u64 = 1 << 36;
    pub const ITFSB: u64 = 1 << 37;
    pub const TCF0: u64 = 3 << 38;
    pub const TCF: u64 = 3 << 40;
    pub const ATA0: u64 = 1 << 42;
    pub const ATA: u64 = 1 << 43;
    pub const DSSBS: u64 = 1 << 44;
    pub const EPAN: u64 = 1 << 57;
    pub const TIDCP: u64 = 1 << 63;
}

/// TCR_EL1.
pub mod tcr {
    pub const T0SZ_SHIFT: u32 = 0;
    pub const EPD0: u64 = 1 << 7;
    pub const TG0_SHIFT: u32 = 14;
    pub const T1SZ_SHIFT: u32 = 16;
    pub const A1: u64 = 1 << 22;
    pub const EPD1: u64 = 1 << 23;
    pub const SH0_SHIFT: u32 = 12;
    pub const SH1_SHIFT: u32 = 28;
    pub const TG1_SHIFT: u32 = 30;
    pub const IPS_SHIFT: u32 = 32;
    pub const AS: u64 = 1 << 36;
    pub const TBI0: u64 = 1 << 37;
    pub const TBI1: u64 = 1 << 38;
    pub const HA: u64 = 1 << 39;
    pub const HD: u64 = 1 << 40;
    pub const HPD0: u64 = 1 << 41;
    pub const HPD1: u64 = 1 << 42;
    pub const HWU: u64 = 0xff << 43;
    pub const TBID0: u64 = 1 << 51;
    pub const TBID1: u64 = 1 << 52;
    pub const NFD: u64 = 3 << 53;
    pub const E0PD0: u64 = 1 << 55;
    pub const E0PD1: u64 = 1 << 56;
    pub const TCMA: u64 = 3 << 57;
    pub const DS: u64 = 1 << 59;
    /// Bits `[36:0]` that exist in every version of the architecture.
    pub const BASE: u64 = 0x7f_ffff_ffff & !(1 << 6) & !(1 << 35);
}

/// CPACR_EL1.
pub mod cpacr {
    pub const ZEN: u64 = 3 << 16;
    pub const FPEN: u64 = 3 << 20;
    pub const FPEN_SHIFT: u32 = 20;
    pub const SMEN: u64 = 3 << 24;
}

/// CNTKCTL_EL1.
pub mod cntkctl {
    pub const EL0PCTEN: u64 = 1 << 0;
    pub const EL0VCTEN: u64 = 1 << 1;
    pub const EVNTEN: u64 = 1 << 2;
    pub const EVNTDIR: u64 = 1 << 3;
    pub const EVNTI: u64 = 0xf << 4;
    pub const EL0VTEN: u64 = 1 << 8;
    pub const EL0PTEN: u64 = 1 << 9;
    pub const EVNTIS: u64 = 1 << 17;
}

/// MDSCR_EL1.
pub mod mdscr {
    pub const SS: u64 = 1 << 0;
    pub const ERR: u64 = 1 << 6;
    pub const TDCC: u64 = 1 << 12;
    pub const KDE: u64 = 1 << 13;
    pub const HDE: u64 = 1 << 14;
    pub const MDE: u64 = 1 << 15;
}

/// OSLSR_EL1.
pub mod oslsr {
    pub const OSLK: u64 = 1 << 1;
    /// OSLM, bit 1: the OS lock is implemented.
    pub const OSLM_IMPLEMENTED: u64 = 1 << 3;
}

/// FPCR.
pub mod fpcr {
    pub const FIZ: u64 = 1 << 0;
    pub const AH: u64 = 1 << 1;
    pub const NEP: u64 = 1 << 2;
    pub const EBF: u64 = 1 << 13;
    pub const FZ16: u64 = 1 << 19;
    pub const RMODE: u64 = 3 << 22;
    pub const FZ: u64 = 1 << 24;
    pub const DN: u64 = 1 << 25;
    pub const AHP: u64 = 1 << 26;
}

/// FPSR.
pub mod fpsr {
    /// Cumulative exception bits IOC, DZC, OFC, UFC, IXC and IDC.
    pub const CUMULATIVE: u64 = 0x9f;
    pub const QC: u64 = 1 << 27;
}

/// Long-descriptor translation table entries (Arm ARM D8.3).
pub mod descriptor {
    pub const VALID: u64 = 1 << 0;
    /// Table (levels -1 to 2) or page (level 3) rather than block.
    pub const TABLE_OR_PAGE: u64 = 1 << 1;
    pub const ATTR_INDEX_SHIFT: u32 = 2;
    /// Accessible from EL0.
    pub const AP1: u64 = 1 << 6;
    /// Read-only.
    pub const AP2: u64 = 1 << 7;
    pub const SH_SHIFT: u32 = 8;
    pub const AF: u64 = 1 << 10;
    pub const NG: u64 = 1 << 11;
    pub const GP: u64 = 1 << 50;
    pub const DBM: u64 = 1 << 51;
    pub const CONTIGUOUS: u64 = 1 << 52;
    pub const PXN: u64 = 1 << 53;
    pub const UXN: u64 = 1 << 54;
    pub const PXN_TABLE: u64 = 1 << 59;
    pub const UXN_TABLE: u64 = 1 << 60;
    pub const AP_TABLE_NO_EL0: u64 = 1 << 61;
    pub const AP_TABLE_READ_ONLY: u64 = 1 << 62;
}

/// PAR_EL1.
pub mod par {
    pub const F: u64 = 1 << 0;
    pub const FST_SHIFT: u32 = 1;
    pub const SH_SHIFT: u32 = 7;
    pub const NS: u64 = 1 << 9;
    pub const RES1: u64 = 1 << 11;
    pub const ATTR_SHIFT: u32 = 56;
}
