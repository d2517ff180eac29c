//! What the host can do, asked before anything is made.

use std::io;

use kvm_bindings::{KVM_API_VERSION, KVM_CAP_ARM_NISV_TO_USER, kvm_enable_cap};
use kvm_ioctls::{Cap, Kvm, VmFd};

use crate::system::host;
use crate::{KvmConfig, KvmError};

/// Bits of a guest-physical address where the host says nothing about it.
const DEFAULT_ADDRESS_BITS: u32 = 40;
/// Bits with which a machine is made if it does not need more.
const USUAL_ADDRESS_BITS: u32 = 40;

/// Opens the device.
///
/// # Errors
/// [`KvmError`]: there is none, the user may not, or what it offers is not enough.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|e| match e.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::NoDevice,
        libc::EACCES | libc::EPERM => KvmError::Permission,
        _ => KvmError::Open { source: host(e) },
    })?;
    if kvm.get_api_version() != KVM_API_VERSION as i32 {
        return Err(KvmError::TooOld { what: "stable interface", since: "3.10" });
    }
    let needed = [
        (Cap::OneReg, "access to single registers", "3.10"),
        (Cap::DeviceCtrl, "devices in the kernel", "3.10"),
        (Cap::ArmPsci02, "PSCI 0.2", "3.16"),
        (Cap::Ioeventfd, "doorbells for devices", "3.14"),
        (Cap::ImmediateExit, "way to leave a guest at once", "4.13"),
        (Cap::SetGuestDebug, "debugging of guests", "4.2"),
    ];
    if let Some((_, what, since)) = needed.into_iter().find(|(cap, ..)| !kvm.check_extension(*cap)) {
        return Err(KvmError::TooOld { what, since });
    }
    Ok(kvm)
}

/// Makes an empty virtual machine that has room for what `config` says.
///
/// # Errors
/// [`KvmError`]: addresses are too short, there are too many vCPUs, the kernel is too old.
pub fn create(kvm: &Kvm, config: &KvmConfig) -> Result<VmFd, KvmError> {
    let (asked, most) = (config.affinities.len(), kvm.get_max_vcpus());
    if asked > most {
        return Err(KvmError::Vcpus { asked, most });
    }
    let told = u32::try_from(kvm.get_host_ipa_limit()).unwrap_or(0);
    let bits = address_bits(config.end, told)?;
    // A host that says nothing about it takes no choice either.
    let vm = if told == 0 { kvm.create_vm() } else { kvm.create_vm_with_ipa_size(bits) };
    let refused = |what| move |e| KvmError::Refused { what, source: host(e) };
    let vm = vm.map_err(refused("make a virtual machine"))?;
    // Accesses that the CPU does not describe come here, where more can be said about them.
    if kvm.check_extension_raw(KVM_CAP_ARM_NISV_TO_USER.into()) > 0 {
        let cap = kvm_enable_cap { cap: KVM_CAP_ARM_NISV_TO_USER, ..Default::default() };
        vm.enable_cap(&cap).map_err(refused("tell of all accesses to devices"))?;
    }
    Ok(vm)
}

/// Bits of guest-physical addresses, for a machine that ends at `end` on a host that has `told` at most.
fn address_bits(end: u64, told: u32) -> Result<u32, KvmError> {
    let limit = if told == 0 { DEFAULT_ADDRESS_BITS } else { told };
    let needed = u64::BITS - end.saturating_sub(1).leading_zeros();
    if needed > limit {
        return Err(KvmError::AddressSize { needed, limit });
    }
    Ok(needed.max(USUAL_ADDRESS_BITS.min(limit)))
}

/// For calls that have to wait until nobody is in the kernel with a vCPU: tries again for a while.
pub fn when_idle(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    const TRIES: usize = 10_000;
    for _ in 0..TRIES {
        match call() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::yield_now(),
            other => return other,
        }
    }
    call()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_long_as_the_machine_needs() {
        assert_eq!(address_bits(0x8000_0000, 0).unwrap(), 40);
        assert_eq!(address_bits(0x8000_0000, 36).unwrap(), 36);
        assert_eq!(address_bits(1 << 40, 48).unwrap(), 40);
        assert_eq!(address_bits((1 << 40) + 1, 48).unwrap(), 41);
        let refused = address_bits((1 << 40) + 1, 40);
        assert!(matches!(refused, Err(KvmError::AddressSize { needed: 41, limit: 40 })));
    }
}
