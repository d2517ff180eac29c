//! CPU models: sets of ID register values, and what follows from them.

mod catalogue;
mod property;

#[cfg(test)]
mod tests;

use thiserror::Error;

pub use catalogue::names;
pub use property::Property;

use crate::feature::{Feature, FeatureSet};
use crate::id::{IdReg, IdRegisters};
use crate::spec::{oslsr, sctlr};
use crate::state::{CpuState, Pstate};
use crate::sysreg::SysReg;

/// Frequency of the system counter in Hz, the reset value of CNTFRQ_EL0.
pub const COUNTER_FREQUENCY: u64 = 62_500_000;

/// CTR_EL0 of all models: data cache lines of 64 bytes, instruction cache lines of 4 KiB, PIPT, IDC set (a
/// clean to the point of unification is never needed: instruction fetch sees all completed stores), DIC clear
/// (instruction cache maintenance is needed: it is how the JIT learns of new code).
const CTR: u64 = 1 << 31 // RES1
    | 1 << 28 // IDC
    | 4 << 24 // CWG: 16 words
    | 4 << 20 // ERG: 16 words
    | 4 << 16 // DminLine: 16 words
    | 3 << 14 // L1Ip: PIPT
    | I_MIN_LINE;

/// CTR_EL0.IminLine: log2 of words, 4 KiB. Code is forgotten by pages of that size, so that a guest need not
/// ask for 64 lines of each.
const I_MIN_LINE: u64 = 10;

/// DCZID_EL0.BS: log2 of words zeroed by DC ZVA, 2 KiB, the largest there is: each one costs about the same.
const DC_ZVA_BLOCK: u64 = 9;

/// Bytes zeroed by one DC ZVA, unless the model is [portable](CpuModel::is_portable).
pub const DC_ZVA_BYTES: u64 = 4 << DC_ZVA_BLOCK;

/// Name of the property that makes a model [portable](CpuModel::is_portable).
pub const PORTABLE: &str = "portable";

/// Why there is no such model.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ModelError {
    /// No CPU of that name.
    #[error("unknown CPU '{0}': use one of {names}", names = names().join(", "))]
    UnknownModel(String),
    /// No property of that name.
    #[error("unknown CPU feature '{0}': use one of {names}", names = feature_names())]
    UnknownFeature(String),
    /// The text of the property is not `name=on` or `name=off`.
    #[error("CPU feature '{0}' has no value: write {0}=on or {0}=off")]
    NoValue(String),
    /// A value other than on or off.
    #[error("CPU feature '{name}' cannot be '{value}': write {name}=on or {name}=off")]
    BadValue {
        /// The property.
        name: String,
        /// What was given.
        value: String,
    },
    /// A feature is to be both on and off.
    #[error("CPU feature '{0}' is given as on and as off: leave one of them out")]
    Contradiction(&'static str),
    /// There is no such part.
    #[error("CPU '{0}' is no part that a host could have: leave portable=on out, or use another CPU")]
    NotPortable(&'static str),
    /// Features of which there can be only one.
    #[error(
        "CPU features '{first}' and '{second}' cannot both be on: write {first}=off, or {choice}=... for one of them"
    )]
    Exclusive {
        /// The name for all of them.
        choice: &'static str,
        /// One that is on.
        first: &'static str,
        /// Another one.
        second: &'static str,
    },
    /// A choice has no such value.
    #[error("CPU feature '{name}' cannot be '{value}': write {name}= with one of {values}")]
    NoSuchChoice {
        /// The choice.
        name: String,
        /// What was given.
        value: String,
        /// What there is.
        values: String,
    },
    /// A feature that another one needs is off.
    #[error("CPU feature '{name}' needs '{needs}': write {needs}=on, or {name}=off")]
    Needs {
        /// What is on.
        name: &'static str,
        /// What it needs.
        needs: &'static str,
    },
}

fn feature_names() -> String {
    [&property::names()[..], &[PORTABLE]].concat().join(", ")
}

/// Geometry of one cache, as CCSIDR_EL1 tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheGeometry {
    /// Total size in bytes.
    pub size: u32,
    /// Associativity.
    pub ways: u32,
    /// Line size in bytes, a power of two of at least 16.
    pub line: u32,
}

impl CacheGeometry {
    /// Number of sets.
    pub const fn sets(self) -> u32 {
        self.size / self.ways / self.line
    }

    /// CCSIDR_EL1, in the 64-bit format if `wide` (FEAT_CCIDX).
    pub const fn ccsidr(self, wide: bool) -> u64 {
        let sets = self.sets() as u64 - 1;
        let ways = self.ways as u64 - 1;
        let line = self.line.ilog2() as u64 - 4;
        if wide { sets << 32 | ways << 3 | line } else { sets << 13 | ways << 3 | line }
    }
}

/// Name of the model that is the host's own CPU.
pub const HOST: &str = "host";

/// DCZID_EL0.BS.
const DCZID_BS: u64 = 0xf;

/// What a host tells of its CPU, as its guests see it.
#[derive(Clone, Debug)]
pub struct HostIds {
    /// The ID register space.
    pub ids: IdRegisters,
    /// CTR_EL0.
    pub ctr: u64,
    /// DCZID_EL0.
    pub dczid: u64,
    /// CLIDR_EL1.
    pub clidr: u64,
    /// The caches, by CSSELR_EL1: level 1 data, level 1 instruction, level 2 unified.
    pub caches: [CacheGeometry; 3],
}

/// A CPU: its name and the values of its ID registers. Behaviour follows from the ID registers only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuModel {
    name: &'static str,
    description: &'static str,
    ids: IdRegisters,
    ctr: u64,
    dczid: u64,
    clidr: u64,
    /// By CSSELR_EL1: level 1 data, level 1 instruction, level 2 unified.
    caches: [CacheGeometry; 3],
    features: FeatureSet,
    /// Bits of SPSR_EL1 that mean something here, and so those PSTATE can take from it.
    spsr_mask: u32,
    portable: bool,
}

impl CpuModel {
    /// The model called `name`.
    ///
    /// # Errors
    /// [`ModelError::UnknownModel`], naming those that exist.
    pub fn by_name(name: &str) -> Result<Self, ModelError> {
        catalogue::ALL
            .iter()
            .find(|entry| entry.name == name)
            .map(catalogue::Entry::build)
            .ok_or_else(|| ModelError::UnknownModel(name.to_owned()))
    }

    /// The model for a command line's `name[,feature=on|off]...`; `pauth` takes the name of an algorithm, too.
    ///
    /// # Errors
    /// What is wrong with the text, and the mend.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let mut parts = text.split(',');
        let model = Self::by_name(parts.next().unwrap_or_default())?;
        let mut changes = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| ModelError::NoValue(part.to_owned()))?;
            if let Some(choice) = Property::choice(name, value) {
                let none =
                    |values| ModelError::NoSuchChoice { name: name.into(), value: value.into(), values };
                changes.extend(choice.map_err(none)?);
                continue;
            }
            let on = match value {
                "on" => true,
                "off" => false,
                _ => return Err(ModelError::BadValue { name: name.to_owned(), value: value.to_owned() }),
            };
            changes.push((name, on));
        }
        model.with_features(changes)
    }

    /// The CPU of a host, whose guests execute on it.
    pub fn of_host(host: HostIds) -> Self {
        let HostIds { ids, ctr, dczid, clidr, caches } = host;
        let features = FeatureSet::from_ids(&ids);
        let (name, description) = (HOST, "the host's own CPU (with KVM)");
        let spsr_mask = spsr_mask(&features);
        let (dczid, portable) = (dczid & DCZID_BS, false);
        Self { name, description, ids, ctr, dczid, clidr, caches, features, spsr_mask, portable }
    }

    /// All models, the default first.
    pub fn all() -> Vec<Self> {
        catalogue::ALL.iter().map(catalogue::Entry::build).collect()
    }

    /// Name for the command line.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// One line for people.
    pub fn description(&self) -> &'static str {
        self.description
    }

    /// The same model with features switched on or off; the ID registers change accordingly, and nothing else does. The
    /// order of the changes does not matter: all are made, then the whole is checked.
    ///
    /// # Errors
    /// A feature is unknown, is to be both on and off, or is on while one that it needs is off.
    pub fn with_features<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a str, bool)>,
    ) -> Result<Self, ModelError> {
        let (mut portable, mut others) = (Vec::new(), Vec::new());
        for (name, on) in changes {
            if name == PORTABLE { portable.push(on) } else { others.push((name, on)) }
        }
        let mut model = self.clone();
        match (portable.contains(&true), portable.contains(&false)) {
            (true, true) => return Err(ModelError::Contradiction(PORTABLE)),
            (true, false) => catalogue::make_portable(&mut model)?,
            (false, _) => {}
        }
        let mut settings = property::Settings::of(&model.ids);
        for (name, on) in others {
            settings.change(name, on)?;
        }
        settings.realize(&mut model.ids)?;
        model.features = FeatureSet::from_ids(&model.ids);
        model.spsr_mask = spsr_mask(&model.features);
        Ok(model)
    }

    /// True if the model tells of itself only what every host with that part can have KVM tell a guest, so that a saved
    /// machine can go on there: caches, DC ZVA, and what belongs to other exception levels as the part has them.
    pub fn is_portable(&self) -> bool {
        self.portable
    }

    /// Bytes zeroed by one DC ZVA.
    pub fn zva_bytes(&self) -> u64 {
        4 << self.dczid
    }

    /// Bytes of the smallest data cache line (CTR_EL0.DminLine).
    pub fn data_line_bytes(&self) -> u64 {
        4 << (self.ctr >> 16 & 15)
    }

    /// True if the model has the feature.
    #[inline]
    pub fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// All features of the model.
    #[inline]
    pub fn features(&self) -> &FeatureSet {
        &self.features
    }

    /// The ID register space, without MPIDR_EL1.
    pub fn ids(&self) -> &IdRegisters {
        &self.ids
    }

    /// MIDR_EL1.
    pub fn midr(&self) -> u64 {
        self.ids.get(IdReg::new(0, 0))
    }

    /// REVIDR_EL1.
    pub fn revidr(&self) -> u64 {
        self.ids.get(IdReg::new(0, 6))
    }

    /// CTR_EL0.
    pub fn ctr(&self) -> u64 {
        self.ctr
    }

    /// DCZID_EL0 without DZP.
    pub fn dczid(&self) -> u64 {
        self.dczid
    }

    /// CLIDR_EL1.
    pub fn clidr(&self) -> u64 {
        self.clidr
    }

    /// The caches, by CSSELR_EL1: level 1 data, level 1 instruction, level 2 unified.
    pub fn caches(&self) -> [CacheGeometry; 3] {
        self.caches
    }

    /// CCSIDR_EL1 for a value of CSSELR_EL1; zero for a cache that is not there (the architecture leaves
    /// it UNKNOWN).
    pub fn ccsidr(&self, csselr: u64) -> u64 {
        let cache = match csselr & 0xf {
            0 => self.caches[0],
            1 => self.caches[1],
            2 => self.caches[2],
            _ => return 0,
        };
        cache.ccsidr(self.has(Feature::Ccidx))
    }

    /// Number of hardware breakpoints and watchpoints.
    pub fn debug_resources(&self) -> (usize, usize) {
        let count = |lsb| usize::from(self.ids.field(IdReg::DFR0, lsb)) + 1;
        (count(12), count(20))
    }

    /// Size of a physical address in bits (ID_AA64MMFR0_EL1.PARange).
    pub fn pa_bits(&self) -> u8 {
        pa_bits(self.ids.field(IdReg::MMFR0, 0))
    }

    /// Bits of SPSR_EL1 that exist.
    #[inline]
    pub fn spsr_mask(&self) -> u32 {
        self.spsr_mask
    }

    /// SCTLR_EL1 at reset: MMU and caches off, little-endian, RES1 bits set.
    pub fn sctlr_reset(&self) -> u64 {
        self.sctlr_res1()
    }

    /// Bits of SCTLR_EL1 that are RES1 because the feature they control is absent.
    pub(crate) fn sctlr_res1(&self) -> u64 {
        let without = |feature, bits: u64| if self.has(feature) { 0 } else { bits };
        sctlr::SED
            | sctlr::ITD
            | without(Feature::Exs, sctlr::EOS | sctlr::EIS)
            | without(Feature::Csv2_2, sctlr::TSCXT)
            | without(Feature::Pan, sctlr::SPAN)
            | without(Feature::Lsmaoc, sctlr::NTLSMD | sctlr::LSMAOE)
    }

    /// State after a reset of vCPU `index`, which starts at address zero at EL1h with the MMU off.
    pub fn reset_state(&self, index: u32, mpidr: u64) -> CpuState {
        let mut state = CpuState::new(index);
        state.sys[SysReg::SctlrEl1] = self.sctlr_reset();
        state.sys[SysReg::CntfrqEl0] = COUNTER_FREQUENCY;
        state.sys[SysReg::MpidrEl1] = mpidr;
        state.sys[SysReg::OslsrEl1] = oslsr::OSLM_IMPLEMENTED | oslsr::OSLK;
        state
    }
}

/// MPIDR_EL1 of vCPU `index` where no topology is given: 16 to a cluster, as GICv3's target lists reach them.
pub const fn mpidr(index: u32) -> u64 {
    let index = index as u64;
    1 << 31 | (index / 16 / 256 % 256) << 16 | (index / 16 % 256) << 8 | (index % 16)
}

/// Bits of a physical address for an encoding of PARange or IPS; reserved ones count as the largest.
pub(crate) const fn pa_bits(field: u8) -> u8 {
    match field {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        _ => 52,
    }
}

fn spsr_mask(features: &FeatureSet) -> u32 {
    let base = Pstate::NZCV | Pstate::SS | Pstate::IL | Pstate::DAIF;
    let optional = [
        (Feature::Mte, Pstate::TCO),
        (Feature::Dit, Pstate::DIT),
        (Feature::Uao, Pstate::UAO),
        (Feature::Pan, Pstate::PAN),
        (Feature::Nmi, Pstate::ALLINT),
        (Feature::Ssbs, Pstate::SSBS),
        (Feature::Bti, Pstate::BTYPE1 | Pstate::BTYPE0),
    ];
    let present =
        optional.iter().filter(|(f, _)| features.has(*f)).fold(base, |mask, (_, bits)| mask | *bits);
    present.bits() | 0x1f
}
