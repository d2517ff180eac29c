//! Choosing and making the accelerator.

use std::sync::Arc;

use armlet_accel_dummy::DummyAccelerator;
use armlet_accel_jit::perf::PerfMap;
use armlet_accel_jit::{JitAccelerator, JitOptions, check_host};
use armlet_arm::CpuModel;
use armlet_arm::sysreg::ExternalRegisters;
use armlet_devices::clock::MAX_SHIFT;
use armlet_engine::samples::Samples;
use armlet_engine::{Accelerator, AcceleratorError, InstructionCount};
use armlet_memory::AddressSpace;

use crate::config::{AcceleratorConfig, AcceleratorKind};
use crate::error::ConfigError;
use crate::pace::PaceOptions;
use crate::profile::{self, KernelSymbols};

/// What an accelerator is made for.
pub(crate) struct Needs {
    pub(crate) memory: Arc<AddressSpace>,
    pub(crate) model: Arc<CpuModel>,
    pub(crate) external: Arc<dyn ExternalRegisters>,
    pub(crate) cpus: usize,
    /// `HLT #0xf000` is a call, not undefined.
    pub(crate) semihosting: bool,
    /// Counters that cost time are wanted.
    pub(crate) count: bool,
    /// All vCPUs share one thread, and this counts their instructions.
    pub(crate) counter: Option<Arc<InstructionCount>>,
    /// Hash what is executed.
    pub(crate) trace: bool,
    /// Where to tell what executes.
    pub(crate) samples: Option<Arc<Samples>>,
    /// What translated code is called.
    pub(crate) symbols: KernelSymbols,
}

/// The kind that `config` means on this host.
///
/// # Errors
/// The host does not have it, or an option is not one of its.
pub(crate) fn choose(config: &AcceleratorConfig) -> Result<AcceleratorKind, ConfigError> {
    let kind = match config.kind {
        AcceleratorKind::Auto => AcceleratorKind::Jit,
        AcceleratorKind::Kvm => return Err(ConfigError::NoKvm { why: no_kvm() }),
        kind => kind,
    };
    for (option, value) in &config.options {
        check_option(kind, option, value)?;
    }
    if config.value("thread") != Some("single")
        && let Some((option, _)) =
            config.options.iter().find(|(name, _)| SINGLE_ONLY.contains(&name.as_str()))
    {
        return Err(ConfigError::NeedsSingleThread { option: option.clone() });
    }
    if kind == AcceleratorKind::Jit {
        check_host().map_err(failed)?;
    }
    Ok(kind)
}

/// Options that mean something only where all vCPUs share one thread.
const SINGLE_ONLY: [&str; 3] = ["icount", "sleep", "trace"];

/// How the machine counts instructions, if it does. The options have been checked.
pub(crate) fn pace(config: &AcceleratorConfig) -> Option<PaceOptions> {
    (config.value("thread") == Some("single")).then(|| PaceOptions {
        shift: config.value("icount").and_then(|n| n.parse().ok()).unwrap_or(0),
        sleep: config.value("sleep") != Some("off"),
        trace: config.value("trace") == Some("on"),
    })
}

/// The values of an option of the translator, as people write them; whether `value` is one.
fn jit_option(option: &str, value: &str) -> Option<(String, bool)> {
    let one_of = |known: [&str; 2]| Some((known.join(", "), known.contains(&value)));
    match option {
        "smc" => one_of(["fast", "strict"]),
        "thread" => one_of(["single", "multi"]),
        "sleep" | "trace" | "perf" => one_of(["on", "off"]),
        "icount" => {
            let fits = value.parse::<u32>().is_ok_and(|n| n <= MAX_SHIFT);
            Some((format!("0 to {MAX_SHIFT}, an instruction taking 2 to the power of that in ns"), fits))
        }
        _ => None,
    }
}

fn no_kvm() -> String {
    let host = std::env::consts::ARCH;
    if host != "aarch64" {
        return format!("KVM runs guests of the host's own architecture, and this host is {host}");
    }
    if !std::path::Path::new("/dev/kvm").exists() {
        return "there is no /dev/kvm".into();
    }
    "this version does not drive it yet".into()
}

fn check_option(kind: AcceleratorKind, option: &str, value: &str) -> Result<(), ConfigError> {
    let accel = kind.name();
    let known = match kind {
        AcceleratorKind::Jit => jit_option(option, value),
        _ => None,
    };
    let option = option.to_string();
    match known {
        Some((_, true)) => Ok(()),
        Some((known, false)) => {
            Err(ConfigError::AcceleratorValue { accel, option, value: value.to_string(), known })
        }
        None => {
            let known = match kind {
                AcceleratorKind::Jit => "it takes smc, thread, icount, sleep, trace and perf",
                _ => "it takes none",
            };
            Err(ConfigError::AcceleratorOption { accel, option, known: known.into() })
        }
    }
}

/// The file in which host profilers find what translated code is called.
fn perf_map(needs: &Needs) -> Result<Arc<PerfMap>, ConfigError> {
    let names = profile::name_of(needs.symbols.clone(), needs.memory.ram().clone());
    let failed = |source| ConfigError::PerfMap { path: PerfMap::path(), source };
    PerfMap::create(names).map(Arc::new).map_err(failed)
}

fn failed(e: AcceleratorError) -> ConfigError {
    ConfigError::Accelerator(e.to_string())
}

/// Makes the accelerator, `kind` being what [`choose`] chose.
pub(crate) fn make(
    kind: AcceleratorKind,
    config: &AcceleratorConfig,
    needs: Needs,
) -> Result<Arc<dyn Accelerator>, ConfigError> {
    match kind {
        AcceleratorKind::Dummy => Ok(Arc::new(DummyAccelerator)),
        AcceleratorKind::Kvm => Err(ConfigError::NoKvm { why: no_kvm() }),
        AcceleratorKind::Jit | AcceleratorKind::Auto => {
            let options = JitOptions {
                strict: config.value("smc") == Some("strict"),
                count: needs.count,
                semihosting: needs.semihosting,
                counter: needs.counter.clone(),
                trace: needs.trace,
                samples: needs.samples.clone(),
                perf: (config.value("perf") == Some("on")).then(|| perf_map(&needs)).transpose()?,
                ..JitOptions::default()
            };
            let Needs { memory, model, external, cpus, .. } = needs;
            let jit = JitAccelerator::new(memory, model, external, cpus, options);
            Ok(Arc::new(jit.map_err(failed)?))
        }
    }
}
