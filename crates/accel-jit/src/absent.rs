//! The translator on hosts that it makes no code for: nothing but the error.

use std::sync::Arc;

use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, CpuState};
use armlet_engine::host_time::CycleCounter;
use armlet_engine::{Accelerator, AcceleratorError, VcpuBackend, VcpuShared};
use armlet_memory::AddressSpace;

use crate::JitOptions;

/// The just-in-time translator as an accelerator. There is none on this host.
pub struct JitAccelerator(std::convert::Infallible);

impl JitAccelerator {
    /// For a machine of up to `vcpus` vCPUs of `model`.
    ///
    /// # Errors
    /// Always: this host cannot translate.
    pub fn new(
        memory: Arc<AddressSpace>,
        model: Arc<CpuModel>,
        external: Arc<dyn ExternalRegisters>,
        vcpus: usize,
        options: JitOptions,
    ) -> Result<Self, AcceleratorError> {
        let _ = (memory, model, external, vcpus, options);
        Err(no_host())
    }
}

/// Tells whether this host can run translated code.
///
/// # Errors
/// Always: it cannot.
pub fn check_host() -> Result<(), AcceleratorError> {
    Err(no_host())
}

/// The host's cycle counter, if time can be made of it: not here.
pub fn cycle_counter() -> Option<CycleCounter> {
    None
}

fn no_host() -> AcceleratorError {
    let host = std::env::consts::ARCH;
    AcceleratorError(format!(
        "{host}: this host cannot translate; use --accel kvm (translated code is for x86-64 hosts)"
    ))
}

impl Accelerator for JitAccelerator {
    fn name(&self) -> &'static str {
        match self.0 {}
    }

    fn create_vcpu(&self, _: Arc<VcpuShared>, _: CpuState) -> Result<Box<dyn VcpuBackend>, AcceleratorError> {
        match self.0 {}
    }
}
