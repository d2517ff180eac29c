//! Architectural features (`FEAT_*`, Arm ARM A2) and how the ID registers tell of them.
//!
//! A [`FeatureSet`] is only ever derived from the ID registers, so what a guest reads there and what it
//! gets cannot disagree.

use crate::id::{IdReg, IdRegisters};

macro_rules! features {
    ($($(#[$meta:meta])* $variant:ident $name:literal = $test:expr;)*) => {
        /// A feature that an encoding or a behaviour depends on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Feature { $($(#[$meta])* $variant),* }

        impl Feature {
            /// All of them.
            pub const ALL: &[Feature] = &[$(Feature::$variant),*];

            /// The Arm ARM's name, such as `FEAT_LSE`.
            pub const fn name(self) -> &'static str {
                match self { $(Feature::$variant => $name),* }
            }

            /// What the ID registers say about this feature.
            pub fn in_ids(self, ids: &IdRegisters) -> bool {
                match self { $(Feature::$variant => test(ids, $test)),* }
            }
        }
    };
}

/// How a feature is found in the ID registers.
enum Test {
    Always,
    Never,
    /// Unsigned field at the bit is at least this.
    AtLeast(IdReg, u32, u8),
    /// Unsigned field equals this.
    Is(IdReg, u32, u8),
    /// Signed field is at least this.
    Signed(IdReg, u32, i8),
    /// One-bit field.
    Bit(IdReg, u32),
    /// Computed from several fields.
    By(fn(&IdRegisters) -> bool),
}

fn test(ids: &IdRegisters, t: Test) -> bool {
    match t {
        Test::Always => true,
        Test::Never => false,
        Test::AtLeast(reg, lsb, min) => ids.field(reg, lsb) >= min,
        Test::Is(reg, lsb, value) => ids.field(reg, lsb) == value,
        Test::Signed(reg, lsb, min) => ids.signed_field(reg, lsb) >= min,
        Test::Bit(reg, bit) => ids.get(reg) >> bit & 1 != 0,
        Test::By(f) => f(ids),
    }
}

/// The highest pointer-authentication level in APA, API or APA3.
fn pauth_level(ids: &IdRegisters) -> u8 {
    ids.field(IdReg::ISAR1, 4).max(ids.field(IdReg::ISAR1, 8)).max(ids.field(IdReg::ISAR2, 12))
}

/// Generic authentication by any algorithm (GPA, GPI or GPA3).
fn pauth_generic(ids: &IdRegisters) -> bool {
    ids.field(IdReg::ISAR1, 24) | ids.field(IdReg::ISAR1, 28) | ids.field(IdReg::ISAR2, 8) != 0
}

/// 52-bit addresses with the 4K or the 16K granule.
fn lpa2(ids: &IdRegisters) -> bool {
    ids.signed_field(IdReg::MMFR0, 28) >= 1 || ids.field(IdReg::MMFR0, 20) >= 2
}

use IdReg as R;
use Test::{Always, AtLeast, Bit, By, Is, Never, Signed};

features! {
    Base "A64" = Always;
    // ID_AA64PFR0_EL1
    Fp "FEAT_FP" = Signed(R::PFR0, 16, 0);
    AdvSimd "FEAT_AdvSIMD" = Signed(R::PFR0, 20, 0);
    Fp16 "FEAT_FP16" = Signed(R::PFR0, 16, 1);
    El2 "EL2" = AtLeast(R::PFR0, 8, 1);
    El3 "EL3" = AtLeast(R::PFR0, 12, 1);
    GicCpuInterface "GIC system registers" = AtLeast(R::PFR0, 24, 1);
    Ras "FEAT_RAS" = AtLeast(R::PFR0, 28, 1);
    RasV1p1 "FEAT_RASv1p1" = AtLeast(R::PFR0, 28, 2);
    Sve "FEAT_SVE" = AtLeast(R::PFR0, 32, 1);
    Sel2 "FEAT_SEL2" = AtLeast(R::PFR0, 36, 1);
    Mpam "FEAT_MPAM" = AtLeast(R::PFR0, 40, 1);
    AmuV1 "FEAT_AMUv1" = AtLeast(R::PFR0, 44, 1);
    Dit "FEAT_DIT" = AtLeast(R::PFR0, 48, 1);
    Rme "FEAT_RME" = AtLeast(R::PFR0, 52, 1);
    Csv2 "FEAT_CSV2" = AtLeast(R::PFR0, 56, 1);
    /// SCXTNUM_ELx.
    Csv2_2 "FEAT_CSV2_2" = AtLeast(R::PFR0, 56, 2);
    Csv3 "FEAT_CSV3" = AtLeast(R::PFR0, 60, 1);
    // ID_AA64PFR1_EL1
    Bti "FEAT_BTI" = AtLeast(R::PFR1, 0, 1);
    Ssbs "FEAT_SSBS" = AtLeast(R::PFR1, 4, 1);
    /// MRS and MSR access to PSTATE.SSBS.
    Ssbs2 "FEAT_SSBS2" = AtLeast(R::PFR1, 4, 2);
    Mte "FEAT_MTE" = AtLeast(R::PFR1, 8, 1);
    Mte2 "FEAT_MTE2" = AtLeast(R::PFR1, 8, 2);
    Mte3 "FEAT_MTE3" = AtLeast(R::PFR1, 8, 3);
    Sme "FEAT_SME" = AtLeast(R::PFR1, 24, 1);
    Sme2 "FEAT_SME2" = AtLeast(R::PFR1, 24, 2);
    Nmi "FEAT_NMI" = AtLeast(R::PFR1, 36, 1);
    Gcs "FEAT_GCS" = AtLeast(R::PFR1, 44, 1);
    The "FEAT_THE" = AtLeast(R::PFR1, 48, 1);
    Fpmr "FEAT_FPMR" = AtLeast(R::PFR2, 32, 1);
    // ID_AA64ISAR0_EL1
    Aes "FEAT_AES" = AtLeast(R::ISAR0, 4, 1);
    Pmull "FEAT_PMULL" = AtLeast(R::ISAR0, 4, 2);
    Sha1 "FEAT_SHA1" = AtLeast(R::ISAR0, 8, 1);
    Sha256 "FEAT_SHA256" = AtLeast(R::ISAR0, 12, 1);
    Sha512 "FEAT_SHA512" = AtLeast(R::ISAR0, 12, 2);
    Crc32 "FEAT_CRC32" = AtLeast(R::ISAR0, 16, 1);
    Lse "FEAT_LSE" = AtLeast(R::ISAR0, 20, 2);
    Lse128 "FEAT_LSE128" = AtLeast(R::ISAR0, 20, 3);
    Tme "FEAT_TME" = AtLeast(R::ISAR0, 24, 1);
    Rdm "FEAT_RDM" = AtLeast(R::ISAR0, 28, 1);
    Sha3 "FEAT_SHA3" = AtLeast(R::ISAR0, 32, 1);
    Sm3 "FEAT_SM3" = AtLeast(R::ISAR0, 36, 1);
    Sm4 "FEAT_SM4" = AtLeast(R::ISAR0, 40, 1);
    DotProd "FEAT_DotProd" = AtLeast(R::ISAR0, 44, 1);
    Fhm "FEAT_FHM" = AtLeast(R::ISAR0, 48, 1);
    FlagM "FEAT_FlagM" = AtLeast(R::ISAR0, 52, 1);
    FlagM2 "FEAT_FlagM2" = AtLeast(R::ISAR0, 52, 2);
    TlbiOs "FEAT_TLBIOS" = AtLeast(R::ISAR0, 56, 1);
    TlbiRange "FEAT_TLBIRANGE" = AtLeast(R::ISAR0, 56, 2);
    Rng "FEAT_RNG" = AtLeast(R::ISAR0, 60, 1);
    // ID_AA64ISAR1_EL1
    Dpb "FEAT_DPB" = AtLeast(R::ISAR1, 0, 1);
    Dpb2 "FEAT_DPB2" = AtLeast(R::ISAR1, 0, 2);
    PAuth "FEAT_PAuth" = By(|ids| pauth_level(ids) >= 1);
    Epac "FEAT_EPAC" = By(|ids| pauth_level(ids) == 2);
    PAuth2 "FEAT_PAuth2" = By(|ids| pauth_level(ids) >= 3);
    Fpac "FEAT_FPAC" = By(|ids| pauth_level(ids) >= 4);
    FpacCombine "FEAT_FPACCOMBINE" = By(|ids| pauth_level(ids) >= 5);
    PAuthLr "FEAT_PAuth_LR" = By(|ids| pauth_level(ids) >= 6);
    PAuthGeneric "FEAT_PAuth (PACGA)" = By(pauth_generic);
    PacQarma5 "FEAT_PACQARMA5" = AtLeast(R::ISAR1, 4, 1);
    PacImp "FEAT_PACIMP" = AtLeast(R::ISAR1, 8, 1);
    PacQarma3 "FEAT_PACQARMA3" = AtLeast(R::ISAR2, 12, 1);
    PacGenericQarma5 "FEAT_PACQARMA5 (PACGA)" = AtLeast(R::ISAR1, 24, 1);
    PacGenericQarma3 "FEAT_PACQARMA3 (PACGA)" = AtLeast(R::ISAR2, 8, 1);
    Jscvt "FEAT_JSCVT" = AtLeast(R::ISAR1, 12, 1);
    Fcma "FEAT_FCMA" = AtLeast(R::ISAR1, 16, 1);
    Lrcpc "FEAT_LRCPC" = AtLeast(R::ISAR1, 20, 1);
    Lrcpc2 "FEAT_LRCPC2" = AtLeast(R::ISAR1, 20, 2);
    Lrcpc3 "FEAT_LRCPC3" = AtLeast(R::ISAR1, 20, 3);
    Frintts "FEAT_FRINTTS" = AtLeast(R::ISAR1, 32, 1);
    Sb "FEAT_SB" = AtLeast(R::ISAR1, 36, 1);
    SpecRes "FEAT_SPECRES" = AtLeast(R::ISAR1, 40, 1);
    SpecRes2 "FEAT_SPECRES2" = AtLeast(R::ISAR1, 40, 2);
    Bf16 "FEAT_BF16" = AtLeast(R::ISAR1, 44, 1);
    Ebf16 "FEAT_EBF16" = AtLeast(R::ISAR1, 44, 2);
    Dgh "FEAT_DGH" = AtLeast(R::ISAR1, 48, 1);
    I8mm "FEAT_I8MM" = AtLeast(R::ISAR1, 52, 1);
    Xs "FEAT_XS" = AtLeast(R::ISAR1, 56, 1);
    Ls64 "FEAT_LS64" = AtLeast(R::ISAR1, 60, 1);
    Ls64V "FEAT_LS64_V" = AtLeast(R::ISAR1, 60, 2);
    Ls64Accdata "FEAT_LS64_ACCDATA" = AtLeast(R::ISAR1, 60, 3);
    // ID_AA64ISAR2_EL1
    WfxT "FEAT_WFxT" = AtLeast(R::ISAR2, 0, 2);
    Rpres "FEAT_RPRES" = AtLeast(R::ISAR2, 4, 1);
    Mops "FEAT_MOPS" = AtLeast(R::ISAR2, 16, 1);
    MopsGo "FEAT_MOPS_GO" = AtLeast(R::ISAR2, 16, 2);
    Hbc "FEAT_HBC" = AtLeast(R::ISAR2, 20, 1);
    ConstPacField "FEAT_CONSTPACFIELD" = AtLeast(R::ISAR2, 24, 1);
    Clrbhb "FEAT_CLRBHB" = AtLeast(R::ISAR2, 28, 1);
    SysReg128 "FEAT_SYSREG128" = AtLeast(R::ISAR2, 32, 1);
    SysInstr128 "FEAT_SYSINSTR128" = AtLeast(R::ISAR2, 36, 1);
    Rprfm "FEAT_RPRFM" = AtLeast(R::ISAR2, 48, 1);
    Cssc "FEAT_CSSC" = AtLeast(R::ISAR2, 52, 1);
    Lut "FEAT_LUT" = AtLeast(R::ISAR2, 56, 1);
    Ats1a "FEAT_ATS1A" = AtLeast(R::ISAR2, 60, 1);
    // ID_AA64ISAR3_EL1
    Cpa "FEAT_CPA" = AtLeast(R::ISAR3, 0, 1);
    Faminmax "FEAT_FAMINMAX" = AtLeast(R::ISAR3, 4, 1);
    Tlbiw "FEAT_TLBIW" = AtLeast(R::ISAR3, 8, 1);
    Lsfe "FEAT_LSFE" = AtLeast(R::ISAR3, 16, 1);
    Occmo "FEAT_OCCMO" = AtLeast(R::ISAR3, 20, 1);
    Lsui "FEAT_LSUI" = AtLeast(R::ISAR3, 24, 1);
    Fprcvt "FEAT_FPRCVT" = AtLeast(R::ISAR3, 28, 1);
    // ID_AA64ZFR0_EL1, ID_AA64SMFR0_EL1, ID_AA64FPFR0_EL1
    Sve2 "FEAT_SVE2" = By(|ids| ids.field(R::PFR0, 32) != 0 && ids.field(R::ZFR0, 0) >= 1);
    Sve2p1 "FEAT_SVE2p1" = By(|ids| ids.field(R::PFR0, 32) != 0 && ids.field(R::ZFR0, 0) >= 2);
    SveAes "FEAT_SVE_AES" = AtLeast(R::ZFR0, 4, 1);
    SveBitPerm "FEAT_SVE_BitPerm" = AtLeast(R::ZFR0, 16, 1);
    SveSha3 "FEAT_SVE_SHA3" = AtLeast(R::ZFR0, 32, 1);
    SveSm4 "FEAT_SVE_SM4" = AtLeast(R::ZFR0, 40, 1);
    F32mm "FEAT_F32MM" = AtLeast(R::ZFR0, 52, 1);
    F64mm "FEAT_F64MM" = AtLeast(R::ZFR0, 56, 1);
    SmeFa64 "FEAT_SME_FA64" = Bit(R::SMFR0, 63);
    Fp8 "FEAT_FP8" = Bit(R::FPFR0, 31);
    Fp8Fma "FEAT_FP8FMA" = Bit(R::FPFR0, 30);
    Fp8Dot4 "FEAT_FP8DOT4" = Bit(R::FPFR0, 29);
    Fp8Dot2 "FEAT_FP8DOT2" = Bit(R::FPFR0, 28);
    F8f32mm "FEAT_F8F32MM" = Bit(R::FPFR0, 27);
    F8f16mm "FEAT_F8F16MM" = Bit(R::FPFR0, 26);
    // ID_AA64MMFR0_EL1
    Lpa "FEAT_LPA" = AtLeast(R::MMFR0, 0, 6);
    Asid16 "ASID16" = AtLeast(R::MMFR0, 4, 2);
    BigEnd "FEAT_MixedEnd" = AtLeast(R::MMFR0, 8, 1);
    BigEndEl0 "FEAT_MixedEndEL0" = By(|ids| ids.field(R::MMFR0, 8) != 0 || ids.field(R::MMFR0, 16) != 0);
    Granule16 "16K granule" = AtLeast(R::MMFR0, 20, 1);
    Granule64 "64K granule" = Signed(R::MMFR0, 24, 0);
    Granule4 "4K granule" = Signed(R::MMFR0, 28, 0);
    Lpa2 "FEAT_LPA2" = By(lpa2);
    /// LPA2 for the 4K granule.
    Lpa2Granule4 "FEAT_LPA2 (4K)" = Signed(R::MMFR0, 28, 1);
    /// LPA2 for the 16K granule.
    Lpa2Granule16 "FEAT_LPA2 (16K)" = AtLeast(R::MMFR0, 20, 2);
    Exs "FEAT_ExS" = AtLeast(R::MMFR0, 44, 1);
    Fgt "FEAT_FGT" = AtLeast(R::MMFR0, 56, 1);
    Ecv "FEAT_ECV" = AtLeast(R::MMFR0, 60, 1);
    // ID_AA64MMFR1_EL1
    /// Hardware update of the Access flag.
    Haf "FEAT_HAFDBS (access flag)" = AtLeast(R::MMFR1, 0, 1);
    /// Hardware update of the Access flag and of dirty state.
    Hafdbs "FEAT_HAFDBS" = AtLeast(R::MMFR1, 0, 2);
    Vhe "FEAT_VHE" = AtLeast(R::MMFR1, 8, 1);
    Hpds "FEAT_HPDS" = AtLeast(R::MMFR1, 12, 1);
    Hpds2 "FEAT_HPDS2" = AtLeast(R::MMFR1, 12, 2);
    Lor "FEAT_LOR" = AtLeast(R::MMFR1, 16, 1);
    Pan "FEAT_PAN" = AtLeast(R::MMFR1, 20, 1);
    Pan2 "FEAT_PAN2" = AtLeast(R::MMFR1, 20, 2);
    Pan3 "FEAT_PAN3" = AtLeast(R::MMFR1, 20, 3);
    Xnx "FEAT_XNX" = AtLeast(R::MMFR1, 28, 1);
    Twed "FEAT_TWED" = AtLeast(R::MMFR1, 32, 1);
    Ets2 "FEAT_ETS2" = AtLeast(R::MMFR1, 36, 2);
    Hcx "FEAT_HCX" = AtLeast(R::MMFR1, 40, 1);
    Afp "FEAT_AFP" = AtLeast(R::MMFR1, 44, 1);
    Tidcp1 "FEAT_TIDCP1" = AtLeast(R::MMFR1, 52, 1);
    Cmow "FEAT_CMOW" = AtLeast(R::MMFR1, 56, 1);
    // ID_AA64MMFR2_EL1
    TtCnp "FEAT_TTCNP" = AtLeast(R::MMFR2, 0, 1);
    Uao "FEAT_UAO" = AtLeast(R::MMFR2, 4, 1);
    Lsmaoc "FEAT_LSMAOC" = AtLeast(R::MMFR2, 8, 1);
    Iesb "FEAT_IESB" = AtLeast(R::MMFR2, 12, 1);
    Lva "FEAT_LVA" = AtLeast(R::MMFR2, 16, 1);
    Lva3 "FEAT_LVA3" = AtLeast(R::MMFR2, 16, 2);
    Ccidx "FEAT_CCIDX" = AtLeast(R::MMFR2, 20, 1);
    Nv "FEAT_NV" = AtLeast(R::MMFR2, 24, 1);
    Ttst "FEAT_TTST" = AtLeast(R::MMFR2, 28, 1);
    Lse2 "FEAT_LSE2" = AtLeast(R::MMFR2, 32, 1);
    Idst "FEAT_IDST" = AtLeast(R::MMFR2, 36, 1);
    S2Fwb "FEAT_S2FWB" = AtLeast(R::MMFR2, 40, 1);
    Ttl "FEAT_TTL" = AtLeast(R::MMFR2, 48, 1);
    Bbm "FEAT_BBM" = AtLeast(R::MMFR2, 52, 1);
    Evt "FEAT_EVT" = AtLeast(R::MMFR2, 56, 1);
    E0pd "FEAT_E0PD" = AtLeast(R::MMFR2, 60, 1);
    // ID_AA64MMFR3_EL1
    Tcr2 "FEAT_TCR2" = AtLeast(R::MMFR3, 0, 1);
    Sctlr2 "FEAT_SCTLR2" = AtLeast(R::MMFR3, 4, 1);
    S1Pie "FEAT_S1PIE" = AtLeast(R::MMFR3, 8, 1);
    S1Poe "FEAT_S1POE" = AtLeast(R::MMFR3, 16, 1);
    Aie "FEAT_AIE" = AtLeast(R::MMFR3, 24, 1);
    Mec "FEAT_MEC" = AtLeast(R::MMFR3, 28, 1);
    D128 "FEAT_D128" = AtLeast(R::MMFR3, 32, 1);
    // ID_AA64DFR0_EL1
    Debugv8p2 "FEAT_Debugv8p2" = AtLeast(R::DFR0, 0, 8);
    PmuV3 "FEAT_PMUv3" =
        By(|ids| ids.field(R::DFR0, 8) != 0 && ids.field(R::DFR0, 8) != 15);
    Spe "FEAT_SPE" = AtLeast(R::DFR0, 32, 1);
    DoubleLock "FEAT_DoubleLock" = Is(R::DFR0, 36, 0);
    TraceFilter "FEAT_TRF" = AtLeast(R::DFR0, 40, 1);
    Trbe "FEAT_TRBE" = AtLeast(R::DFR0, 44, 1);
    Brbe "FEAT_BRBE" = AtLeast(R::DFR0, 52, 1);
    /// Encodings of features newer than all that have a name here; no model has them.
    Absent "newer than modelled" = Never;
}

const WORDS: usize = Feature::ALL.len().div_ceil(64);

/// A set of features, derived from ID registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FeatureSet([u64; WORDS]);

impl FeatureSet {
    /// The features that `ids` announce.
    pub fn from_ids(ids: &IdRegisters) -> Self {
        let mut set = Self::default();
        for &f in Feature::ALL {
            if f.in_ids(ids) {
                set.0[f as usize / 64] |= 1 << (f as usize % 64);
            }
        }
        set
    }

    /// True if the feature is in the set.
    #[inline]
    pub const fn has(&self, f: Feature) -> bool {
        self.0[f as usize / 64] >> (f as usize % 64) & 1 != 0
    }

    /// All features of the set.
    pub fn iter(&self) -> impl Iterator<Item = Feature> {
        let set = *self;
        Feature::ALL.iter().copied().filter(move |&f| set.has(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_ids_are_armv8_0_with_fp() {
        let set = FeatureSet::from_ids(&IdRegisters::default());
        for f in [Feature::Base, Feature::Fp, Feature::AdvSimd, Feature::Granule4, Feature::DoubleLock] {
            assert!(set.has(f), "{}", f.name());
        }
        for f in [Feature::Lse, Feature::Fp16, Feature::Pan, Feature::Absent, Feature::Sve] {
            assert!(!set.has(f), "{}", f.name());
        }
    }

    #[test]
    fn no_floating_point_is_all_ones() {
        let mut ids = IdRegisters::default();
        ids.set(IdReg::PFR0, 0xff_0000);
        let set = FeatureSet::from_ids(&ids);
        assert!(!set.has(Feature::Fp) && !set.has(Feature::AdvSimd) && !set.has(Feature::Fp16));
    }

    #[test]
    fn levels_of_a_field() {
        let mut ids = IdRegisters::default();
        ids.set(IdReg::ISAR0, 2 << 4 | 2 << 20);
        let set = FeatureSet::from_ids(&ids);
        assert!(set.has(Feature::Aes) && set.has(Feature::Pmull));
        assert!(set.has(Feature::Lse) && !set.has(Feature::Lse128));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Feature::ALL.iter().map(|f| f.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Feature::ALL.len());
    }
}
