//! The models by name. Values are those of the real parts, less what is not offered to a guest here:
//! EL2, EL3 and AArch32 state, mixed endianness, the performance monitors, profiling, trace.

use crate::feature::FeatureSet;
use crate::id::{IdReg, IdRegisters};
use crate::model::{CacheGeometry, CpuModel, ModelError, spsr_mask};

/// A model as it is written down.
pub(super) struct Entry {
    pub name: &'static str,
    description: &'static str,
    midr: u64,
    ids: &'static [(IdReg, u64)],
    /// Level 1 data, level 1 instruction, level 2: (KiB, ways).
    caches: [(u32, u32); 3],
    /// As hosts with this part have it; none if it is none.
    part: Option<Part>,
}

/// What the real part has otherwise, and KVM cannot hide from a guest. Nothing of it is of use to a guest.
struct Part {
    /// CTR_EL0.L1Ip.
    level1: u64,
    mmfr1: u64,
}

/// CTR_EL0 of parts but for L1Ip: lines of 64 bytes, neither IDC nor DIC, which KVM can take from a part that has them.
const CTR_PART: u64 = 1 << 31 | 4 << 24 | 4 << 20 | 4 << 16 | 4;
/// DCZID_EL0.BS of parts: 64 bytes.
const DCZID_PART: u64 = 4;
/// CLIDR_EL1 without CTR_EL0.IDC: instructions and data are the same from level 1 on.
const CLIDR_PART: u64 = CLIDR | 1 << 27 | 1 << 21;
/// ID_AA64MMFR1_EL1: XNX, 16-bit VMIDs and VHE, which are of EL2.
const MMFR1_EL2: u64 = 1 << 28 | 1 << 8 | 2 << 4;
/// ECBHB, which older parts do not promise.
const ECBHB: u64 = 1 << 60;
const PIPT: u64 = 3;
const VIPT: u64 = 2;
const PART_V8_0: Option<Part> = Some(Part { level1: PIPT, mmfr1: 0 });
const PART_V8_2: Option<Part> = Some(Part { level1: PIPT, mmfr1: MMFR1_V8_2 & !ECBHB | MMFR1_EL2 });

/// Level 1 split, level 2 unified, level of coherency 2; no level of unification, as CTR_EL0.IDC is set.
const CLIDR: u64 = 2 << 30 | 2 << 24 | 4 << 3 | 3;

/// EL0 and EL1 in AArch64 only, with the GIC's system registers.
const PFR0_BASE: u64 = 1 << 24 | 1 << 4 | 1;
/// Half precision, in scalar and in vectors.
const PFR0_FP16: u64 = 1 << 20 | 1 << 16;
const PFR0_RAS: u64 = 1 << 28;
/// CSV2 and CSV3.
const PFR0_CSV: u64 = 1 << 60 | 1 << 56;

/// Two context-aware of six breakpoints, four watchpoints.
const DFR0_BASE: u64 = 1 << 28 | 3 << 20 | 5 << 12;

/// AES with PMULL, SHA1, SHA256, CRC32.
const ISAR0_V8_0: u64 = 0x1_1120;
/// The same with LSE, RDM and DotProd.
const ISAR0_V8_2: u64 = 0x1000_1021_1120;
/// LRCPC and DPB.
const ISAR1_V8_2: u64 = 0x10_0001;

/// 16-bit ASIDs; the 4K and the 64K granule.
const MMFR0_BASE: u64 = 2 << 4;
const TGRAN16: u64 = 1 << 20;
/// HAFDBS, HPDS2, LOR, PAN2. ECBHB: no branch history is shared between exception levels.
const MMFR1_V8_2: u64 = 1 << 60 | 2 << 20 | 1 << 16 | 2 << 12 | 2;
/// TTCNP, UAO, IESB.
const MMFR2_V8_2: u64 = 0x1011;

/// SHA512, SHA3, SM3, SM4, FlagM2, TLBIOS and TLBIRANGE on top.
const ISAR0_MAX: u64 = ISAR0_V8_2 & !(0xf << 12) | 2 << 12 | 1 << 32 | 1 << 36 | 1 << 40 | 2 << 52 | 2 << 56;
/// DPB2, JSCVT, SB, DGH on top.
const ISAR1_MAX: u64 = 1 << 48 | 1 << 36 | 1 << 12 | 2;
/// HBC.
const ISAR2_MAX: u64 = 1 << 20;
/// LVA, TTST, IDST, TTL, BBM level 2, E0PD on top.
const MMFR2_MAX: u64 = MMFR2_V8_2 | 1 << 16 | 1 << 28 | 1 << 36 | 1 << 48 | 2 << 52 | 1 << 60;

/// What the integer and system instructions have on top. DIT.
const PFR0_SYSTEM: u64 = 1 << 48;
/// BTI.
const PFR1_SYSTEM: u64 = 1;
/// RNG.
const ISAR0_SYSTEM: u64 = 1 << 60;
/// SPECRES2, LRCPC3, and PAuth up to FPACCOMBINE by the implementation-defined algorithm.
const ISAR1_SYSTEM: u64 = 2 << 40 | 3 << 20 | 1 << 28 | 5 << 8;
/// WFxT, MOPS, CLRBHB, CSSC.
const ISAR2_SYSTEM: u64 = 1 << 52 | 1 << 28 | 1 << 16 | 2;
/// ECV.
const MMFR0_SYSTEM: u64 = 1 << 60;
/// LSE2.
const MMFR2_SYSTEM: u64 = 1 << 32;
/// Vectors and floating point on top: FHM.
const ISAR0_VECTOR: u64 = 1 << 48;
/// FCMA, FRINTTS, BF16 with EBF16, I8MM.
const ISAR1_VECTOR: u64 = 1 << 16 | 1 << 32 | 2 << 44 | 1 << 52;
/// RPRES.
const ISAR2_VECTOR: u64 = 1 << 4;
/// AFP.
const MMFR1_VECTOR: u64 = 1 << 44;

pub(super) const ALL: &[Entry] = &[
    Entry {
        name: "neoverse-n1",
        description: "Arm Neoverse N1 (Armv8.2-A server core); the default",
        midr: 0x414f_d0c1,
        ids: &[
            (IdReg::PFR0, PFR0_BASE | PFR0_FP16 | PFR0_RAS | PFR0_CSV),
            (IdReg::PFR1, 2 << 4),
            (IdReg::DFR0, DFR0_BASE | 8),
            (IdReg::ISAR0, ISAR0_V8_2),
            (IdReg::ISAR1, ISAR1_V8_2),
            (IdReg::MMFR0, MMFR0_BASE | TGRAN16 | 5),
            (IdReg::MMFR1, MMFR1_V8_2),
            (IdReg::MMFR2, MMFR2_V8_2),
        ],
        caches: [(64, 4), (64, 4), (1024, 8)],
        part: PART_V8_2,
    },
    Entry {
        name: "cortex-a53",
        description: "Arm Cortex-A53 (Armv8.0-A small core)",
        midr: 0x410f_d034,
        ids: &[
            (IdReg::PFR0, PFR0_BASE),
            (IdReg::DFR0, DFR0_BASE | 6),
            (IdReg::ISAR0, ISAR0_V8_0),
            (IdReg::MMFR0, MMFR0_BASE | 2),
        ],
        caches: [(32, 4), (32, 2), (1024, 16)],
        part: Some(Part { level1: VIPT, mmfr1: 0 }),
    },
    Entry {
        name: "cortex-a57",
        description: "Arm Cortex-A57 (Armv8.0-A)",
        midr: 0x411f_d070,
        ids: &[
            (IdReg::PFR0, PFR0_BASE),
            (IdReg::DFR0, DFR0_BASE | 6),
            (IdReg::ISAR0, ISAR0_V8_0),
            (IdReg::MMFR0, MMFR0_BASE | 4),
        ],
        caches: [(32, 2), (48, 3), (2048, 16)],
        part: PART_V8_0,
    },
    Entry {
        name: "cortex-a72",
        description: "Arm Cortex-A72 (Armv8.0-A)",
        midr: 0x410f_d083,
        ids: &[
            (IdReg::PFR0, PFR0_BASE),
            (IdReg::DFR0, DFR0_BASE | 6),
            (IdReg::ISAR0, ISAR0_V8_0),
            (IdReg::MMFR0, MMFR0_BASE | 4),
        ],
        caches: [(32, 2), (48, 3), (1024, 16)],
        part: PART_V8_0,
    },
    Entry {
        name: "cortex-a76",
        description: "Arm Cortex-A76 (Armv8.2-A)",
        midr: 0x414f_d0b1,
        ids: &[
            (IdReg::PFR0, PFR0_BASE | PFR0_FP16 | PFR0_RAS | PFR0_CSV),
            (IdReg::PFR1, 1 << 4),
            (IdReg::DFR0, DFR0_BASE | 8),
            (IdReg::ISAR0, ISAR0_V8_2),
            (IdReg::ISAR1, ISAR1_V8_2),
            (IdReg::MMFR0, MMFR0_BASE | TGRAN16 | 2),
            (IdReg::MMFR1, MMFR1_V8_2),
            (IdReg::MMFR2, MMFR2_V8_2),
        ],
        caches: [(64, 4), (64, 4), (512, 8)],
        part: PART_V8_2,
    },
    Entry {
        name: "max",
        description: "everything that is implemented",
        // Implementer 0 is reserved for software, so no workaround for a real part's errata applies.
        midr: 0x000f_a640,
        ids: &[
            (IdReg::PFR0, PFR0_BASE | PFR0_FP16 | PFR0_RAS | PFR0_CSV | PFR0_SYSTEM),
            (IdReg::PFR1, 2 << 4 | PFR1_SYSTEM),
            (IdReg::DFR0, DFR0_BASE | 8),
            (IdReg::ISAR0, ISAR0_MAX | ISAR0_VECTOR | ISAR0_SYSTEM),
            (IdReg::ISAR1, ISAR1_MAX | ISAR1_VECTOR | ISAR1_SYSTEM),
            (IdReg::ISAR2, ISAR2_MAX | ISAR2_VECTOR | ISAR2_SYSTEM),
            // LPA (52 bits), and LPA2 for the 4K and the 16K granule.
            (IdReg::MMFR0, MMFR0_BASE | 1 << 28 | 2 << 20 | 6 | MMFR0_SYSTEM),
            (IdReg::MMFR1, MMFR1_V8_2 | MMFR1_VECTOR),
            (IdReg::MMFR2, MMFR2_MAX | MMFR2_SYSTEM),
        ],
        caches: [(64, 4), (64, 4), (1024, 8)],
        part: None,
    },
];

/// Names of all models, the default first.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|entry| entry.name).collect()
}

impl Entry {
    pub(super) fn build(&self) -> CpuModel {
        let mut ids = IdRegisters::default();
        ids.set(IdReg::new(0, 0), self.midr);
        for &(reg, value) in self.ids {
            ids.set(reg, value);
        }
        let features = FeatureSet::from_ids(&ids);
        CpuModel {
            name: self.name,
            description: self.description,
            ids,
            ctr: super::CTR,
            dczid: super::DC_ZVA_BLOCK,
            clidr: CLIDR,
            caches: self.caches.map(|(kib, ways)| CacheGeometry { size: kib << 10, ways, line: 64 }),
            features,
            spsr_mask: spsr_mask(&features),
            portable: false,
        }
    }
}

/// Makes `model` [portable](CpuModel::is_portable).
///
/// # Errors
/// [`ModelError::NotPortable`]: there is no such part.
pub(super) fn make_portable(model: &mut CpuModel) -> Result<(), ModelError> {
    let entry = ALL.iter().find(|entry| entry.name == model.name);
    let part = entry.and_then(|entry| entry.part.as_ref()).ok_or(ModelError::NotPortable(model.name))?;
    model.ctr = CTR_PART | part.level1 << 14;
    model.dczid = DCZID_PART;
    model.clidr = CLIDR_PART;
    model.ids.set(IdReg::MMFR1, part.mmfr1);
    model.portable = true;
    Ok(())
}
