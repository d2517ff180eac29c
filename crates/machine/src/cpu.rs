//! What the board needs to know of a CPU model.

use armlet_accel_kvm::{KvmMachine, Wanted};
use armlet_arm::CpuModel;
use armlet_arm::feature::Feature;
use armlet_arm::model::{HOST, PORTABLE};

use crate::boot::PageSize;
use crate::config::CpuConfig;
use crate::error::ConfigError;
use crate::spec;

/// The model that stands for the host's own CPU with KVM, and for [`USUAL`] elsewhere.
pub(crate) const DEFAULT: &str = "default";
/// The model where nobody asks for another.
const USUAL: &str = "neoverse-n1";

/// The model that `config` names.
///
/// # Errors
/// [`ConfigError::Cpu`].
pub fn model(config: &CpuConfig) -> Result<CpuModel, ConfigError> {
    let name = match config.model.as_str() {
        DEFAULT => USUAL,
        HOST => return Err(ConfigError::HostCpu),
        name => name,
    };
    with_features(CpuModel::by_name(name)?, config)
}

/// The model that `config` names, and the machine's vCPUs become.
///
/// # Errors
/// [`ConfigError::Cpu`], or the host cannot be such a CPU.
pub(crate) fn model_of(machine: &KvmMachine, config: &CpuConfig) -> Result<CpuModel, ConfigError> {
    let base = match config.model.as_str() {
        DEFAULT | HOST => machine.host_model()?,
        // No host can be one that is not.
        name => CpuModel::by_name(name)?.with_features([(PORTABLE, true)])?,
    };
    let model = with_features(base, config)?;
    machine.adopt(&model)?;
    Ok(model)
}

/// Whether the host's own CPU is to have scalable vectors and performance counters: the first unless somebody wants none,
/// the second only if somebody wants them, since their interrupts and counts are the host's.
pub(crate) fn host_extensions(config: &CpuConfig) -> [Wanted; 2] {
    let asked = |name: &str| {
        let last = config.features.iter().rev().find(|(feature, _)| feature == name);
        last.map(|(_, on)| if *on { Wanted::Yes } else { Wanted::No })
    };
    match is_host(config) {
        true => [asked(SVE).unwrap_or(Wanted::IfThere), asked(PMU).unwrap_or_default()],
        false => [Wanted::No; 2],
    }
}

/// Features that only the host's own CPU can have: they are chosen before its model is known.
const SVE: &str = "sve";
const PMU: &str = "pmu";

fn is_host(config: &CpuConfig) -> bool {
    [DEFAULT, HOST].contains(&config.model.as_str())
}

fn with_features(model: CpuModel, config: &CpuConfig) -> Result<CpuModel, ConfigError> {
    let chosen = |name: &str| model.name() == HOST && [SVE, PMU].contains(&name);
    let features = config.features.iter().map(|(name, on)| (name.as_str(), *on));
    let mut features = features.filter(|(name, _)| !chosen(name)).peekable();
    // A host may have features that depend on others in ways that are not known here.
    if features.peek().is_none() {
        return Ok(model);
    }
    Ok(model.with_features(features)?)
}

/// The page sizes of a model.
pub(crate) fn granules(model: &CpuModel) -> Vec<PageSize> {
    let all = [
        (Feature::Granule4, PageSize::K4),
        (Feature::Granule16, PageSize::K16),
        (Feature::Granule64, PageSize::K64),
    ];
    all.into_iter().filter(|(feature, _)| model.has(*feature)).map(|(_, size)| size).collect()
}

/// True if the model has performance counters.
pub(crate) fn has_counters(model: &CpuModel) -> bool {
    model.has(Feature::PmuV3)
}

/// `compatible` of the model's device tree nodes.
pub(crate) fn compatible(model: &CpuModel) -> String {
    match model.name() {
        // No core of that name exists; this is what the binding has for models.
        "max" | HOST => "arm,armv8".into(),
        name => format!("arm,{name}"),
    }
}

/// Checks that the model's physical addresses reach all of RAM and the redistributors above it.
pub(crate) fn check_reach(model: &CpuModel, cpus: usize, memory: u64) -> Result<(), ConfigError> {
    let bits = u32::from(model.pa_bits());
    let ram_end = spec::RAM_BASE.saturating_add(memory);
    let regions = crate::fdt::redistributor_regions(cpus, ram_end);
    let end = regions.iter().map(|r| r.base + r.size).fold(ram_end, u64::max);
    if end > 1 << bits {
        return Err(ConfigError::MemoryBeyondCpu { asked: memory, bits, cpu: model.name().into() });
    }
    Ok(())
}
