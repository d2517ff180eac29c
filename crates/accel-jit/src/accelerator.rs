//! The translator as an accelerator, on hosts that it makes code for.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, CpuState};
use armlet_engine::{Accelerator, AcceleratorError, VcpuBackend, VcpuShared};
use armlet_memory::AddressSpace;

use crate::JitOptions;
use crate::host;
use crate::runtime::{self, Remotes};

/// What all vCPUs of a machine share.
pub struct MachineShared {
    pub(crate) memory: Arc<AddressSpace>,
    pub(crate) model: Arc<CpuModel>,
    pub(crate) external: Arc<dyn ExternalRegisters>,
    pub(crate) options: JitOptions,
    pub(crate) smp: bool,
    pub(crate) remotes: Remotes,
    vcpus: RwLock<Vec<Arc<VcpuShared>>>,
    code_pages: Mutex<HashSet<u64>>,
}

impl MachineShared {
    /// Forgets a vCPU that is gone.
    pub(crate) fn forget(&self, vcpu: &Arc<VcpuShared>) {
        self.vcpus.write().unwrap_or_else(PoisonError::into_inner).retain(|v| !Arc::ptr_eq(v, vcpu));
    }

    /// SEV: every vCPU's event register.
    pub(crate) fn send_event_to_all(&self) {
        for v in self.vcpus.read().unwrap_or_else(PoisonError::into_inner).iter() {
            v.send_event();
        }
    }

    /// Notes a page that code is translated from; true if it is new.
    pub(crate) fn add_code_page(&self, page: u64) -> bool {
        self.code_pages.lock().unwrap_or_else(PoisonError::into_inner).insert(page)
    }

    /// Forgets such a page; true if it was one.
    pub(crate) fn remove_code_page(&self, page: u64) -> bool {
        self.code_pages.lock().unwrap_or_else(PoisonError::into_inner).remove(&page)
    }
}

/// The just-in-time translator as an accelerator.
pub struct JitAccelerator {
    shared: Arc<MachineShared>,
}

impl JitAccelerator {
    /// For a machine of up to `vcpus` vCPUs of `model`.
    ///
    /// # Errors
    /// This host's CPU lacks something that translated code needs; the text names it.
    pub fn new(
        memory: Arc<AddressSpace>,
        model: Arc<CpuModel>,
        external: Arc<dyn ExternalRegisters>,
        vcpus: usize,
        options: JitOptions,
    ) -> Result<Self, AcceleratorError> {
        check_host()?;
        let avx512 = options.avx512 && host::x86_64::features::has_avx512();
        let options = JitOptions { avx512, ..options };
        let shared = MachineShared {
            memory,
            model,
            external,
            options,
            smp: vcpus > 1,
            remotes: Remotes::default(),
            vcpus: RwLock::default(),
            code_pages: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// Tells whether this host can run translated code.
///
/// # Errors
/// The features that it lacks, by name.
pub fn check_host() -> Result<(), AcceleratorError> {
    let missing = host::x86_64::features::missing();
    if missing.is_empty() {
        return Ok(());
    }
    Err(AcceleratorError(format!(
        "this host's CPU lacks {} (the JIT needs an x86-64 CPU with AVX2 and BMI2, 2013 or later); \
         run on a newer host, or let the hypervisor pass the host's CPU features through",
        missing.join(", ")
    )))
}

impl Accelerator for JitAccelerator {
    fn name(&self) -> &'static str {
        "JIT"
    }

    fn create_vcpu(
        &self,
        shared: Arc<VcpuShared>,
        state: CpuState,
    ) -> Result<Box<dyn VcpuBackend>, AcceleratorError> {
        let core = runtime::vcpu::JitCore::new(self.shared.clone(), shared.clone(), state)?;
        self.shared.vcpus.write().unwrap_or_else(PoisonError::into_inner).push(shared);
        Ok(Box::new(core))
    }
}
