//! What the host's vCPUs can have, and what ours get.

use std::io;

use kvm_bindings::{
    KVM_ARM_VCPU_PMU_V3, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT, KVM_ARM_VCPU_PMU_V3_IRQ,
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_ARM_VCPU_PTRAUTH_ADDRESS,
    KVM_ARM_VCPU_PTRAUTH_GENERIC, KVM_ARM_VCPU_SVE, KVM_CAP_ARM_PMU_V3, KVM_CAP_ARM_PTRAUTH_ADDRESS,
    KVM_CAP_ARM_PTRAUTH_GENERIC, KVM_CAP_ARM_SVE, kvm_vcpu_init,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::system::{host, set_of_vcpu};
use crate::{KvmConfig, KvmError, PMU_INTID, Wanted};

/// What vCPU `index` is initialised with; with `off`, all but the first begin switched off.
pub fn init_of(init: &kvm_vcpu_init, index: usize, off: bool) -> kvm_vcpu_init {
    let mut init = *init;
    init.features[0] |= u32::from(off && index != 0) << KVM_ARM_VCPU_POWER_OFF;
    init
}

/// What not every host has, and no state that is saved.
struct Extension {
    what: &'static str,
    /// Of `--cpu`.
    option: &'static str,
    capability: u32,
    feature: u32,
}

const EXTENSIONS: [Extension; 2] = [
    Extension {
        what: "scalable vectors (SVE)",
        option: "sve",
        capability: KVM_CAP_ARM_SVE,
        feature: KVM_ARM_VCPU_SVE,
    },
    Extension {
        what: "performance counters (PMUv3)",
        option: "pmu",
        capability: KVM_CAP_ARM_PMU_V3,
        feature: KVM_ARM_VCPU_PMU_V3,
    },
];

/// True if vCPUs are initialised with a feature, by its number.
pub fn has_feature(init: &kvm_vcpu_init, feature: u32) -> bool {
    init.features[0] & 1 << feature != 0
}

/// The kind of vCPU that the host has, with what it may have besides.
pub fn features(kvm: &Kvm, vm: &VmFd, config: &KvmConfig) -> Result<kvm_vcpu_init, KvmError> {
    let mut init = kvm_vcpu_init::default();
    let refused = |e| KvmError::Refused { what: "tell what vCPUs it makes", source: host(e) };
    vm.get_preferred_target(&mut init).map_err(refused)?;
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    let there = |capability: u32| kvm.check_extension_raw(capability.into()) > 0;
    if [KVM_CAP_ARM_PTRAUTH_ADDRESS, KVM_CAP_ARM_PTRAUTH_GENERIC].into_iter().all(there) {
        init.features[0] |= 1 << KVM_ARM_VCPU_PTRAUTH_ADDRESS | 1 << KVM_ARM_VCPU_PTRAUTH_GENERIC;
    }
    for (extension, wanted) in EXTENSIONS.iter().zip([config.sve, config.pmu]) {
        match (wanted, there(extension.capability)) {
            (Wanted::Yes | Wanted::IfThere, true) => init.features[0] |= 1 << extension.feature,
            (Wanted::Yes, false) => {
                return Err(KvmError::Absent { what: extension.what, option: extension.option });
            }
            (Wanted::No | Wanted::IfThere, _) => {}
        }
    }
    Ok(init)
}

/// Has a vCPU's counters interrupt it; the interrupt controller is there.
pub fn connect_counters(vcpu: &VcpuFd) -> io::Result<()> {
    set_of_vcpu(vcpu, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_IRQ.into(), &PMU_INTID)?;
    // Takes no value.
    set_of_vcpu(vcpu, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT.into(), &0u32)
}

/// What is not in the state that is saved, and which option of `--cpu` it is.
pub fn unsaved(init: &kvm_vcpu_init) -> Option<(&'static str, &'static str)> {
    let found = EXTENSIONS.iter().find(|extension| has_feature(init, extension.feature));
    found.map(|extension| (extension.what, extension.option))
}
