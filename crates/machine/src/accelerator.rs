//! Choosing and making the accelerator.

use std::sync::Arc;

use armlet_accel_dummy::DummyAccelerator;
use armlet_accel_jit::{JitAccelerator, JitOptions, check_host};
use armlet_arm::CpuModel;
use armlet_arm::sysreg::ExternalRegisters;
use armlet_engine::{Accelerator, AcceleratorError};
use armlet_memory::AddressSpace;

use crate::config::{AcceleratorConfig, AcceleratorKind};
use crate::error::ConfigError;

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
    if kind == AcceleratorKind::Jit {
        check_host().map_err(failed)?;
    }
    Ok(kind)
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
    let (option_text, value_text) = (option.to_string(), value.to_string());
    match (kind, option) {
        (AcceleratorKind::Jit, "smc") if ["strict", "fast"].contains(&value) => Ok(()),
        (AcceleratorKind::Jit, "smc") => Err(ConfigError::AcceleratorValue {
            accel,
            option: option_text,
            value: value_text,
            known: "fast, strict".into(),
        }),
        (AcceleratorKind::Jit, _) => Err(ConfigError::AcceleratorOption {
            accel,
            option: option_text,
            known: "it takes smc=fast or smc=strict".into(),
        }),
        _ => {
            Err(ConfigError::AcceleratorOption { accel, option: option_text, known: "it takes none".into() })
        }
    }
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
            let is =
                |name, value| config.options.iter().any(|o| *o == (String::from(name), String::from(value)));
            let options = JitOptions {
                strict: is("smc", "strict"),
                count: needs.count,
                semihosting: needs.semihosting,
                ..JitOptions::default()
            };
            let Needs { memory, model, external, cpus, .. } = needs;
            let jit = JitAccelerator::new(memory, model, external, cpus, options);
            Ok(Arc::new(jit.map_err(failed)?))
        }
    }
}
