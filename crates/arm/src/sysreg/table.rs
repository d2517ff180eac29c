//! The table of system registers.

use crate::feature::Feature;
use crate::sysreg::encoding;

/// Who may read and write a register, before any configurable trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// EL1 reads and writes.
    Rw1,
    /// EL1 reads.
    Ro1,
    /// EL1 writes.
    Wo1,
    /// EL1 reads and writes, EL0 reads.
    Rw1Ro0,
    /// EL0 and EL1 read.
    Ro0,
    /// EL0 and EL1 read and write.
    Rw0,
}

/// What is behind a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Storage; the mask has the bits that can be written.
    Store(u64),
    /// Reads as zero, ignores writes.
    Zero,
    /// A value of the CPU model.
    Model,
    /// [`ExternalRegisters`](crate::sysreg::ExternalRegisters).
    External,
    /// Code of its own, in storage or elsewhere in the state.
    Special,
}

macro_rules! sysregs {
    ($($variant:ident $name:literal $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal,
       $access:ident, $feature:ident, $kind:expr;)*) => {
        /// A system register that has storage or a device behind it. The discriminant is its index in
        /// [`SysRegs`](crate::sysreg::SysRegs); saved state uses the encoding, not the index.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[allow(missing_docs)]
        pub enum SysReg { $($variant),* }

        impl SysReg {
            /// All of them, by index.
            pub const ALL: &[SysReg] = &[$(SysReg::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            const NAMES: [&str; Self::COUNT] = [$($name),*];
            const ENCODINGS: [u16; Self::COUNT] = [$(encoding($op0, $op1, $crn, $crm, $op2)),*];
            const RULES: [(Access, Feature, Kind); Self::COUNT] =
                [$((Access::$access, Feature::$feature, $kind)),*];
        }
    };
}

impl SysReg {
    /// The Arm ARM's name, such as `SCTLR_EL1`.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The encoding op0:op1:CRn:CRm:op2, 16 bits as in MRS/MSR bits `[20:5]`.
    #[inline]
    pub const fn encoding(self) -> u16 {
        Self::ENCODINGS[self as usize]
    }

    /// The feature that a model needs to have this register.
    pub const fn feature(self) -> Feature {
        Self::RULES[self as usize].1
    }

    pub(crate) const fn access(self) -> Access {
        Self::RULES[self as usize].0
    }

    pub(crate) const fn kind(self) -> Kind {
        Self::RULES[self as usize].2
    }
}

const ALL_BITS: u64 = u64::MAX;
const LOW32: u64 = 0xffff_ffff;

use Kind::{External, Model, Special, Store, Zero};

sysregs! {
    // Identification beyond the ID space proper (which needs no entries).
    MidrEl1 "MIDR_EL1" 3 0 0 0 0, Ro1, Base, Model;
    MpidrEl1 "MPIDR_EL1" 3 0 0 0 5, Ro1, Base, Store(0);
    RevidrEl1 "REVIDR_EL1" 3 0 0 0 6, Ro1, Base, Model;
    CcsidrEl1 "CCSIDR_EL1" 3 1 0 0 0, Ro1, Base, Special;
    ClidrEl1 "CLIDR_EL1" 3 1 0 0 1, Ro1, Base, Model;
    Ccsidr2El1 "CCSIDR2_EL1" 3 1 0 0 2, Ro1, Ccidx, Zero;
    AidrEl1 "AIDR_EL1" 3 1 0 0 7, Ro1, Base, Zero;
    CsselrEl1 "CSSELR_EL1" 3 2 0 0 0, Rw1, Base, Store(0xf);
    CtrEl0 "CTR_EL0" 3 3 0 0 1, Ro0, Base, Model;
    DczidEl0 "DCZID_EL0" 3 3 0 0 7, Ro0, Base, Special;
    // Control of the PE and of translation.
    SctlrEl1 "SCTLR_EL1" 3 0 1 0 0, Rw1, Base, Special;
    ActlrEl1 "ACTLR_EL1" 3 0 1 0 1, Rw1, Base, Zero;
    CpacrEl1 "CPACR_EL1" 3 0 1 0 2, Rw1, Base, Special;
    Ttbr0El1 "TTBR0_EL1" 3 0 2 0 0, Rw1, Base, Special;
    Ttbr1El1 "TTBR1_EL1" 3 0 2 0 1, Rw1, Base, Special;
    TcrEl1 "TCR_EL1" 3 0 2 0 2, Rw1, Base, Special;
    MairEl1 "MAIR_EL1" 3 0 10 2 0, Rw1, Base, Store(ALL_BITS);
    AmairEl1 "AMAIR_EL1" 3 0 10 3 0, Rw1, Base, Zero;
    LorsaEl1 "LORSA_EL1" 3 0 10 4 0, Rw1, Lor, Zero;
    LoreaEl1 "LOREA_EL1" 3 0 10 4 1, Rw1, Lor, Zero;
    LornEl1 "LORN_EL1" 3 0 10 4 2, Rw1, Lor, Zero;
    LorcEl1 "LORC_EL1" 3 0 10 4 3, Rw1, Lor, Zero;
    LoridEl1 "LORID_EL1" 3 0 10 4 7, Ro1, Lor, Zero;
    ContextidrEl1 "CONTEXTIDR_EL1" 3 0 13 0 1, Rw1, Base, Store(LOW32);
    // Pointer authentication keys.
    ApiaKeyLoEl1 "APIAKeyLo_EL1" 3 0 2 1 0, Rw1, PAuth, Store(ALL_BITS);
    ApiaKeyHiEl1 "APIAKeyHi_EL1" 3 0 2 1 1, Rw1, PAuth, Store(ALL_BITS);
    ApibKeyLoEl1 "APIBKeyLo_EL1" 3 0 2 1 2, Rw1, PAuth, Store(ALL_BITS);
    ApibKeyHiEl1 "APIBKeyHi_EL1" 3 0 2 1 3, Rw1, PAuth, Store(ALL_BITS);
    ApdaKeyLoEl1 "APDAKeyLo_EL1" 3 0 2 2 0, Rw1, PAuth, Store(ALL_BITS);
    ApdaKeyHiEl1 "APDAKeyHi_EL1" 3 0 2 2 1, Rw1, PAuth, Store(ALL_BITS);
    ApdbKeyLoEl1 "APDBKeyLo_EL1" 3 0 2 2 2, Rw1, PAuth, Store(ALL_BITS);
    ApdbKeyHiEl1 "APDBKeyHi_EL1" 3 0 2 2 3, Rw1, PAuth, Store(ALL_BITS);
    ApgaKeyLoEl1 "APGAKeyLo_EL1" 3 0 2 3 0, Rw1, PAuth, Store(ALL_BITS);
    ApgaKeyHiEl1 "APGAKeyHi_EL1" 3 0 2 3 1, Rw1, PAuth, Store(ALL_BITS);
    // Exceptions.
    SpsrEl1 "SPSR_EL1" 3 0 4 0 0, Rw1, Base, Special;
    ElrEl1 "ELR_EL1" 3 0 4 0 1, Rw1, Base, Store(ALL_BITS);
    Afsr0El1 "AFSR0_EL1" 3 0 5 1 0, Rw1, Base, Zero;
    Afsr1El1 "AFSR1_EL1" 3 0 5 1 1, Rw1, Base, Zero;
    EsrEl1 "ESR_EL1" 3 0 5 2 0, Rw1, Base, Store(0xff_ffff_ffff_ffff);
    FarEl1 "FAR_EL1" 3 0 6 0 0, Rw1, Base, Store(ALL_BITS);
    ParEl1 "PAR_EL1" 3 0 7 4 0, Rw1, Base, Store(ALL_BITS);
    VbarEl1 "VBAR_EL1" 3 0 12 0 0, Rw1, Base, Store(!0x7ff);
    RvbarEl1 "RVBAR_EL1" 3 0 12 0 1, Ro1, Base, Store(0);
    IsrEl1 "ISR_EL1" 3 0 12 1 0, Ro1, Base, External;
    // Reliability: no error records.
    ErridrEl1 "ERRIDR_EL1" 3 0 5 3 0, Ro1, Ras, Zero;
    ErrselrEl1 "ERRSELR_EL1" 3 0 5 3 1, Rw1, Ras, Zero;
    ErxfrEl1 "ERXFR_EL1" 3 0 5 4 0, Ro1, Ras, Zero;
    ErxctlrEl1 "ERXCTLR_EL1" 3 0 5 4 1, Rw1, Ras, Zero;
    ErxstatusEl1 "ERXSTATUS_EL1" 3 0 5 4 2, Rw1, Ras, Zero;
    ErxaddrEl1 "ERXADDR_EL1" 3 0 5 4 3, Rw1, Ras, Zero;
    ErxpfgfEl1 "ERXPFGF_EL1" 3 0 5 4 4, Ro1, RasV1p1, Zero;
    ErxpfgctlEl1 "ERXPFGCTL_EL1" 3 0 5 4 5, Rw1, RasV1p1, Zero;
    ErxpfgcdnEl1 "ERXPFGCDN_EL1" 3 0 5 4 6, Rw1, RasV1p1, Zero;
    Erxmisc0El1 "ERXMISC0_EL1" 3 0 5 5 0, Rw1, Ras, Zero;
    Erxmisc1El1 "ERXMISC1_EL1" 3 0 5 5 1, Rw1, Ras, Zero;
    Erxmisc2El1 "ERXMISC2_EL1" 3 0 5 5 2, Rw1, RasV1p1, Zero;
    Erxmisc3El1 "ERXMISC3_EL1" 3 0 5 5 3, Rw1, RasV1p1, Zero;
    DisrEl1 "DISR_EL1" 3 0 12 1 1, Rw1, Ras, Store(0x8180_1fff);
    // Process state and stack pointers.
    SpEl0 "SP_EL0" 3 0 4 1 0, Rw1, Base, Special;
    SpSel "SPSel" 3 0 4 2 0, Rw1, Base, Special;
    CurrentEl "CurrentEL" 3 0 4 2 2, Ro1, Base, Special;
    Pan "PAN" 3 0 4 2 3, Rw1, Pan, Special;
    Uao "UAO" 3 0 4 2 4, Rw1, Uao, Special;
    Nzcv "NZCV" 3 3 4 2 0, Rw0, Base, Special;
    Daif "DAIF" 3 3 4 2 1, Rw0, Base, Special;
    Dit "DIT" 3 3 4 2 5, Rw0, Dit, Special;
    Ssbs "SSBS" 3 3 4 2 6, Rw0, Ssbs2, Special;
    Tco "TCO" 3 3 4 2 7, Rw0, Mte, Special;
    Fpcr "FPCR" 3 3 4 4 0, Rw0, Fp, Special;
    Fpsr "FPSR" 3 3 4 4 1, Rw0, Fp, Special;
    // Random numbers.
    Rndr "RNDR" 3 3 2 4 0, Ro0, Rng, Special;
    Rndrrs "RNDRRS" 3 3 2 4 1, Ro0, Rng, Special;
    // Software thread IDs.
    TpidrEl1 "TPIDR_EL1" 3 0 13 0 4, Rw1, Base, Store(ALL_BITS);
    TpidrEl0 "TPIDR_EL0" 3 3 13 0 2, Rw0, Base, Store(ALL_BITS);
    TpidrroEl0 "TPIDRRO_EL0" 3 3 13 0 3, Rw1Ro0, Base, Store(ALL_BITS);
    ScxtnumEl1 "SCXTNUM_EL1" 3 0 13 0 7, Rw1, Csv2_2, Store(ALL_BITS);
    ScxtnumEl0 "SCXTNUM_EL0" 3 3 13 0 7, Rw0, Csv2_2, Store(ALL_BITS);
    // Generic timer.
    CntkctlEl1 "CNTKCTL_EL1" 3 0 14 1 0, Rw1, Base, Special;
    CntfrqEl0 "CNTFRQ_EL0" 3 3 14 0 0, Rw1Ro0, Base, Store(LOW32);
    CntpctEl0 "CNTPCT_EL0" 3 3 14 0 1, Ro0, Base, External;
    CntvctEl0 "CNTVCT_EL0" 3 3 14 0 2, Ro0, Base, External;
    CntpctssEl0 "CNTPCTSS_EL0" 3 3 14 0 5, Ro0, Ecv, External;
    CntvctssEl0 "CNTVCTSS_EL0" 3 3 14 0 6, Ro0, Ecv, External;
    CntpTvalEl0 "CNTP_TVAL_EL0" 3 3 14 2 0, Rw0, Base, External;
    CntpCtlEl0 "CNTP_CTL_EL0" 3 3 14 2 1, Rw0, Base, External;
    CntpCvalEl0 "CNTP_CVAL_EL0" 3 3 14 2 2, Rw0, Base, External;
    CntvTvalEl0 "CNTV_TVAL_EL0" 3 3 14 3 0, Rw0, Base, External;
    CntvCtlEl0 "CNTV_CTL_EL0" 3 3 14 3 1, Rw0, Base, External;
    CntvCvalEl0 "CNTV_CVAL_EL0" 3 3 14 3 2, Rw0, Base, External;
    // GIC CPU interface (GICv3 and v4, IHI 0069) with five bits of priority, so one register of active
    // priorities for each group.
    IccPmrEl1 "ICC_PMR_EL1" 3 0 4 6 0, Rw1, GicCpuInterface, External;
    IccIar0El1 "ICC_IAR0_EL1" 3 0 12 8 0, Ro1, GicCpuInterface, External;
    IccEoir0El1 "ICC_EOIR0_EL1" 3 0 12 8 1, Wo1, GicCpuInterface, External;
    IccHppir0El1 "ICC_HPPIR0_EL1" 3 0 12 8 2, Ro1, GicCpuInterface, External;
    IccBpr0El1 "ICC_BPR0_EL1" 3 0 12 8 3, Rw1, GicCpuInterface, External;
    IccAp0r0El1 "ICC_AP0R0_EL1" 3 0 12 8 4, Rw1, GicCpuInterface, External;
    IccAp1r0El1 "ICC_AP1R0_EL1" 3 0 12 9 0, Rw1, GicCpuInterface, External;
    IccDirEl1 "ICC_DIR_EL1" 3 0 12 11 1, Wo1, GicCpuInterface, External;
    IccRprEl1 "ICC_RPR_EL1" 3 0 12 11 3, Ro1, GicCpuInterface, External;
    IccSgi1rEl1 "ICC_SGI1R_EL1" 3 0 12 11 5, Wo1, GicCpuInterface, External;
    IccAsgi1rEl1 "ICC_ASGI1R_EL1" 3 0 12 11 6, Wo1, GicCpuInterface, External;
    IccSgi0rEl1 "ICC_SGI0R_EL1" 3 0 12 11 7, Wo1, GicCpuInterface, External;
    IccIar1El1 "ICC_IAR1_EL1" 3 0 12 12 0, Ro1, GicCpuInterface, External;
    IccEoir1El1 "ICC_EOIR1_EL1" 3 0 12 12 1, Wo1, GicCpuInterface, External;
    IccHppir1El1 "ICC_HPPIR1_EL1" 3 0 12 12 2, Ro1, GicCpuInterface, External;
    IccBpr1El1 "ICC_BPR1_EL1" 3 0 12 12 3, Rw1, GicCpuInterface, External;
    IccCtlrEl1 "ICC_CTLR_EL1" 3 0 12 12 4, Rw1, GicCpuInterface, External;
    IccSreEl1 "ICC_SRE_EL1" 3 0 12 12 5, Rw1, GicCpuInterface, External;
    IccIgrpen0El1 "ICC_IGRPEN0_EL1" 3 0 12 12 6, Rw1, GicCpuInterface, External;
    IccIgrpen1El1 "ICC_IGRPEN1_EL1" 3 0 12 12 7, Rw1, GicCpuInterface, External;
    // Debug.
    OsdtrrxEl1 "OSDTRRX_EL1" 2 0 0 0 2, Rw1, Base, Store(LOW32);
    MdccintEl1 "MDCCINT_EL1" 2 0 0 2 0, Rw1, Base, Store(0x6000_0000);
    MdscrEl1 "MDSCR_EL1" 2 0 0 2 2, Rw1, Base, Special;
    OsdtrtxEl1 "OSDTRTX_EL1" 2 0 0 3 2, Rw1, Base, Store(LOW32);
    OseccrEl1 "OSECCR_EL1" 2 0 0 6 2, Rw1, Base, Store(LOW32);
    MdccsrEl0 "MDCCSR_EL0" 2 3 0 1 0, Ro0, Base, Zero;
    DbgdtrEl0 "DBGDTR_EL0" 2 3 0 4 0, Rw0, Base, Zero;
    // DBGDTRRX_EL0 when read, DBGDTRTX_EL0 when written.
    DbgdtrrxEl0 "DBGDTRRX_EL0" 2 3 0 5 0, Rw0, Base, Zero;
    MdrarEl1 "MDRAR_EL1" 2 0 1 0 0, Ro1, Base, Zero;
    OslarEl1 "OSLAR_EL1" 2 0 1 0 4, Wo1, Base, Special;
    OslsrEl1 "OSLSR_EL1" 2 0 1 1 4, Ro1, Base, Store(0);
    OsdlrEl1 "OSDLR_EL1" 2 0 1 3 4, Rw1, Base, Special;
    DbgprcrEl1 "DBGPRCR_EL1" 2 0 1 4 4, Rw1, Base, Store(1);
    DbgclaimsetEl1 "DBGCLAIMSET_EL1" 2 0 7 8 6, Rw1, Base, Special;
    DbgclaimclrEl1 "DBGCLAIMCLR_EL1" 2 0 7 9 6, Rw1, Base, Special;
    DbgauthstatusEl1 "DBGAUTHSTATUS_EL1" 2 0 7 14 6, Ro1, Base, Zero;
    Dbgbvr0El1 "DBGBVR0_EL1" 2 0 0 0 4, Rw1, Base, Store(ALL_BITS);
    Dbgbvr1El1 "DBGBVR1_EL1" 2 0 0 1 4, Rw1, Base, Store(ALL_BITS);
    Dbgbvr2El1 "DBGBVR2_EL1" 2 0 0 2 4, Rw1, Base, Store(ALL_BITS);
    Dbgbvr3El1 "DBGBVR3_EL1" 2 0 0 3 4, Rw1, Base, Store(ALL_BITS);
    Dbgbvr4El1 "DBGBVR4_EL1" 2 0 0 4 4, Rw1, Base, Store(ALL_BITS);
    Dbgbvr5El1 "DBGBVR5_EL1" 2 0 0 5 4, Rw1, Base, Store(ALL_BITS);
    Dbgbcr0El1 "DBGBCR0_EL1" 2 0 0 0 5, Rw1, Base, Store(0x00ff_e1e7);
    Dbgbcr1El1 "DBGBCR1_EL1" 2 0 0 1 5, Rw1, Base, Store(0x00ff_e1e7);
    Dbgbcr2El1 "DBGBCR2_EL1" 2 0 0 2 5, Rw1, Base, Store(0x00ff_e1e7);
    Dbgbcr3El1 "DBGBCR3_EL1" 2 0 0 3 5, Rw1, Base, Store(0x00ff_e1e7);
    Dbgbcr4El1 "DBGBCR4_EL1" 2 0 0 4 5, Rw1, Base, Store(0x00ff_e1e7);
    Dbgbcr5El1 "DBGBCR5_EL1" 2 0 0 5 5, Rw1, Base, Store(0x00ff_e1e7);
    Dbgwvr0El1 "DBGWVR0_EL1" 2 0 0 0 6, Rw1, Base, Store(!3);
    Dbgwvr1El1 "DBGWVR1_EL1" 2 0 0 1 6, Rw1, Base, Store(!3);
    Dbgwvr2El1 "DBGWVR2_EL1" 2 0 0 2 6, Rw1, Base, Store(!3);
    Dbgwvr3El1 "DBGWVR3_EL1" 2 0 0 3 6, Rw1, Base, Store(!3);
    Dbgwvr4El1 "DBGWVR4_EL1" 2 0 0 4 6, Rw1, Base, Store(!3);
    Dbgwvr5El1 "DBGWVR5_EL1" 2 0 0 5 6, Rw1, Base, Store(!3);
    Dbgwcr0El1 "DBGWCR0_EL1" 2 0 0 0 7, Rw1, Base, Store(0x1f1f_ffff);
    Dbgwcr1El1 "DBGWCR1_EL1" 2 0 0 1 7, Rw1, Base, Store(0x1f1f_ffff);
    Dbgwcr2El1 "DBGWCR2_EL1" 2 0 0 2 7, Rw1, Base, Store(0x1f1f_ffff);
    Dbgwcr3El1 "DBGWCR3_EL1" 2 0 0 3 7, Rw1, Base, Store(0x1f1f_ffff);
    Dbgwcr4El1 "DBGWCR4_EL1" 2 0 0 4 7, Rw1, Base, Store(0x1f1f_ffff);
    Dbgwcr5El1 "DBGWCR5_EL1" 2 0 0 5 7, Rw1, Base, Store(0x1f1f_ffff);
}

/// Index of no register.
const NONE: u8 = u8::MAX;
/// How many combinations of op0, op1 and CRn have registers.
const GROUPS: usize = {
    let mut seen = [false; 512];
    let mut count = 0;
    let mut i = 0;
    while i < SysReg::COUNT {
        let group = SysReg::ENCODINGS[i] as usize >> 7;
        count += !seen[group] as usize;
        seen[group] = true;
        i += 1;
    }
    count
};

/// Finds a register by its encoding in two steps: op0, op1 and CRn choose a group, CRm and op2 a register.
struct Lookup {
    groups: [u8; 512],
    registers: [[u8; 128]; GROUPS],
}

static LOOKUP: Lookup = {
    assert!(SysReg::COUNT < NONE as usize);
    let mut table = Lookup { groups: [NONE; 512], registers: [[NONE; 128]; GROUPS] };
    let mut used = 0;
    let mut i = 0;
    while i < SysReg::COUNT {
        let enc = SysReg::ENCODINGS[i] as usize;
        if table.groups[enc >> 7] == NONE {
            table.groups[enc >> 7] = used as u8;
            used += 1;
        }
        let entry = &mut table.registers[table.groups[enc >> 7] as usize][enc & 0x7f];
        assert!(*entry == NONE, "two registers with one encoding");
        *entry = i as u8;
        i += 1;
    }
    table
};

pub(super) fn lookup(enc: u16) -> Option<SysReg> {
    let group = LOOKUP.groups[usize::from(enc >> 7)];
    let index = LOOKUP.registers.get(usize::from(group))?[usize::from(enc & 0x7f)];
    SysReg::ALL.get(usize::from(index)).copied()
}
