//! Choosing and making the accelerator.

use std::sync::Arc;

use armlet_accel_dummy::DummyAccelerator;
use armlet_accel_jit::perf::PerfMap;
use armlet_accel_jit::{JitAccelerator, JitOptions, check_host};
use armlet_accel_kvm::{Calls, KvmAccelerator, KvmConfig, KvmMachine};
use armlet_arm::CpuModel;
use armlet_arm::sysreg::ExternalRegisters;
use armlet_devices::clock::MAX_SHIFT;
use armlet_engine::samples::Samples;
use armlet_engine::{Accelerator, AcceleratorError, HostTime, InstructionCount};
use armlet_memory::AddressSpace;

use crate::config::{AcceleratorConfig, AcceleratorKind, MachineConfig, Semihosting};
use crate::error::ConfigError;
use crate::fdt::redistributor_regions;
use crate::pace::PaceOptions;
use crate::profile::{self, KernelSymbols};
use crate::{cpu, spec};

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
    /// What the system counter shows.
    pub(crate) host_time: Option<Arc<HostTime>>,
    /// The virtual machine, with KVM.
    pub(crate) kvm: Option<Arc<KvmMachine>>,
    /// Where to tell what executes.
    pub(crate) samples: Option<Arc<Samples>>,
    /// What translated code is called.
    pub(crate) symbols: KernelSymbols,
}

/// What executes the guest, and as which CPU.
pub(crate) struct Chosen {
    pub(crate) kind: AcceleratorKind,
    pub(crate) model: CpuModel,
    /// The virtual machine, with KVM.
    pub(crate) kvm: Option<Arc<KvmMachine>>,
    /// What a user should know about the choice.
    pub(crate) note: Option<String>,
}

/// What `config` means on this host.
///
/// # Errors
/// The host does not have it, or an option is not one of its.
pub(crate) fn choose(config: &MachineConfig) -> Result<Chosen, ConfigError> {
    let kind = config.accelerator.kind;
    if kind == AcceleratorKind::Kvm {
        check_options(kind, &config.accelerator)?;
        return with_kvm(config);
    }
    // Options are the translator's.
    let tries = kind == AcceleratorKind::Auto && config.accelerator.options.is_empty();
    let why = match tries.then(|| with_kvm(config)) {
        Some(Ok(chosen)) => {
            let note = format!("KVM executes the guest, as CPU '{}'", chosen.model.name());
            return Ok(Chosen { note: Some(note), ..chosen });
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    let kind = if kind == AcceleratorKind::Auto { AcceleratorKind::Jit } else { kind };
    check_options(kind, &config.accelerator)?;
    if kind == AcceleratorKind::Jit
        && let Err(error) = check_host()
    {
        return Err(why.unwrap_or_else(|| failed(error)));
    }
    let model = cpu::model(&config.cpu)?;
    let why = why.map(|error| error.to_string());
    tracing::info!(kind = kind.name(), why, "accelerator");
    // Where KVM can never be, nobody misses it.
    let note = why.filter(|_| HOST_MAY_HAVE_KVM).map(|why| format!("the JIT executes the guest: {why}"));
    Ok(Chosen { kind, model, kvm: None, note })
}

/// This host's architecture is that of guests.
const HOST_MAY_HAVE_KVM: bool = cfg!(target_arch = "aarch64");

fn with_kvm(config: &MachineConfig) -> Result<Chosen, ConfigError> {
    if config.semihosting == Semihosting::On {
        return Err(ConfigError::SemihostingWithKvm);
    }
    let ram_end = spec::RAM_BASE.saturating_add(config.memory);
    let regions = redistributor_regions(config.places(), ram_end);
    let end = regions.iter().map(|r| r.base.saturating_add(r.size)).fold(ram_end, u64::max);
    let [sve, pmu] = cpu::host_extensions(&config.cpu);
    let machine = KvmMachine::open(&KvmConfig {
        affinities: (0..config.places())
            .map(|cpu| Ok(config.topology()?.mpidr(cpu)))
            .collect::<Result<_, ConfigError>>()?,
        end,
        calls: Calls::Psci,
        stolen_time: Some(spec::STOLEN_TIME.base),
        sve,
        pmu,
    });
    let machine = machine.map_err(|e| ConfigError::NoKvm { why: e.to_string() })?;
    if machine.keeps_power() && config.places() > config.smp {
        let why = "CPUs that come later (--smp N,max=M) need Linux 6.4 or later on the host".into();
        return Err(ConfigError::NoKvm { why });
    }
    let model = cpu::model_of(&machine, &config.cpu)?;
    Ok(Chosen { kind: AcceleratorKind::Kvm, model, kvm: Some(machine), note: None })
}

fn check_options(kind: AcceleratorKind, config: &AcceleratorConfig) -> Result<(), ConfigError> {
    for (option, value) in &config.options {
        check_option(kind, option, value)?;
    }
    if config.value("thread") != Some("single")
        && let Some((option, _)) =
            config.options.iter().find(|(name, _)| SINGLE_ONLY.contains(&name.as_str()))
    {
        return Err(ConfigError::NeedsSingleThread { option: option.clone() });
    }
    Ok(())
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
        "sleep" | "trace" | "perf" | "avx512" => one_of(["on", "off"]),
        "icount" => {
            let fits = value.parse::<u32>().is_ok_and(|n| n <= MAX_SHIFT);
            Some((format!("0 to {MAX_SHIFT}, an instruction taking 2 to the power of that in ns"), fits))
        }
        _ => None,
    }
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
                AcceleratorKind::Jit => "it takes smc, thread, icount, sleep, trace, perf and avx512",
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
        AcceleratorKind::Kvm => {
            let machine = needs.kvm.ok_or(ConfigError::Wiring("there is no virtual machine".into()))?;
            Ok(Arc::new(KvmAccelerator::new(machine, needs.memory, needs.model)?))
        }
        AcceleratorKind::Jit | AcceleratorKind::Auto => {
            let options = JitOptions {
                strict: config.value("smc") == Some("strict"),
                count: needs.count,
                semihosting: needs.semihosting,
                counter: needs.counter.clone(),
                trace: needs.trace,
                host_time: needs.host_time.clone(),
                samples: needs.samples.clone(),
                avx512: config.value("avx512") != Some("off"),
                perf: (config.value("perf") == Some("on")).then(|| perf_map(&needs)).transpose()?,
                ..JitOptions::default()
            };
            let Needs { memory, model, external, cpus, .. } = needs;
            let jit = JitAccelerator::new(memory, model, external, cpus, options);
            Ok(Arc::new(jit.map_err(failed)?))
        }
    }
}
