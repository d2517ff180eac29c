//! KVM on hosts that are not arm64: nothing but the error.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, CpuState, SysReg};
use armlet_engine::{Accelerator, AcceleratorError, VcpuBackend, VcpuShared};
use armlet_memory::AddressSpace;
use armlet_saved::{SavedGic, Unfit};

use crate::{GicLayout, GicVersion, KvmConfig, KvmError, KvmMessage};

/// Frequency of the host's counter, in Hz. No guest has it here.
pub fn counter_frequency() -> u64 {
    0
}

/// A virtual machine. There is none on this host.
pub struct KvmMachine(Infallible);

#[allow(missing_docs, reason = "as on hosts that have it")]
impl KvmMachine {
    /// A virtual machine.
    ///
    /// # Errors
    /// Always: this host is none that guests could run on.
    pub fn open(config: &KvmConfig) -> Result<Arc<Self>, KvmError> {
        let _ = config;
        Err(KvmError::Host(std::env::consts::ARCH))
    }

    pub fn host_model(&self) -> Result<CpuModel, KvmError> {
        match self.0 {}
    }

    pub fn adopt(&self, _: &CpuModel) -> Result<(), KvmError> {
        match self.0 {}
    }

    pub fn gic_version(&self) -> GicVersion {
        match self.0 {}
    }

    pub fn create_gic(self: &Arc<Self>, _: &GicLayout) -> Result<Arc<KvmGic>, KvmError> {
        match self.0 {}
    }

    pub fn bell(&self) -> Result<KvmBell, KvmError> {
        match self.0 {}
    }

    pub fn doorbell(&self, _: u64) -> Result<OwnedFd, KvmError> {
        match self.0 {}
    }

    pub fn time_goes(&self, _: bool) {
        match self.0 {}
    }

    pub fn unsaved(&self) -> Option<(&'static str, &'static str)> {
        match self.0 {}
    }

    pub fn keeps_power(&self) -> bool {
        match self.0 {}
    }

    pub fn counter(&self) -> u64 {
        match self.0 {}
    }

    pub fn set_counter(&self, _: u64) {
        match self.0 {}
    }

    pub fn stolen(&self, _: usize) -> Option<u64> {
        match self.0 {}
    }

    pub fn set_stolen(&self, _: usize, _: u64) -> bool {
        match self.0 {}
    }
}

impl ExternalRegisters for KvmMachine {
    fn read(&self, _: usize, _: SysReg) -> u64 {
        match self.0 {}
    }

    fn write(&self, _: usize, _: SysReg, _: u64) {
        match self.0 {}
    }
}

/// An interrupt controller in the host's kernel. There is none on this host.
pub struct KvmGic(Infallible);

#[allow(missing_docs, reason = "as on hosts that have it")]
impl KvmGic {
    pub fn version(&self) -> GicVersion {
        match self.0 {}
    }

    pub fn set_spi(&self, _: u32, _: bool) {
        match self.0 {}
    }

    pub fn send(&self, _: KvmMessage) -> io::Result<()> {
        match self.0 {}
    }

    pub fn reset(&self) {
        match self.0 {}
    }

    pub fn save(&self) -> Result<SavedGic, Unfit> {
        match self.0 {}
    }

    pub fn restore(&self, _: &SavedGic) -> Result<(), Unfit> {
        match self.0 {}
    }
}

/// A bell that the guest rings. There is none on this host.
pub struct KvmBell(Infallible);

#[allow(missing_docs, reason = "as on hosts that have it")]
impl KvmBell {
    pub fn descriptor(&self) -> Result<OwnedFd, KvmError> {
        match self.0 {}
    }

    pub fn ring_at(&self, _: &[u64]) -> Result<(), KvmError> {
        match self.0 {}
    }
}

/// KVM as an accelerator. There is none on this host.
pub struct KvmAccelerator(Infallible);

impl KvmAccelerator {
    /// Of `machine`, whose memory and devices are in `memory`.
    ///
    /// # Errors
    /// None: there is no `machine`.
    pub fn new(machine: Arc<KvmMachine>, _: Arc<AddressSpace>, _: Arc<CpuModel>) -> Result<Self, KvmError> {
        match machine.0 {}
    }
}

impl Accelerator for KvmAccelerator {
    fn name(&self) -> &'static str {
        match self.0 {}
    }

    fn create_vcpu(&self, _: Arc<VcpuShared>, _: CpuState) -> Result<Box<dyn VcpuBackend>, AcceleratorError> {
        match self.0 {}
    }
}
