//! Why KVM cannot be used.

use std::io;

use thiserror::Error;

/// Why a virtual machine, or a part of it, cannot be had.
#[derive(Debug, Error)]
pub enum KvmError {
    /// Guests are of another architecture than the host.
    #[error("KVM runs guests of the host's own architecture, and this host is {0}")]
    Host(&'static str),
    /// No device.
    #[error(
        "there is no {}: load the kernel's module kvm, or have virtualisation enabled by the firmware, or by the \
         hypervisor if this is itself a virtual machine",
        crate::DEVICE
    )]
    NoDevice,
    /// The user may not.
    #[error(
        "no permission for {}: join the group that owns it (`sudo usermod -aG kvm $USER`, then log in again)",
        crate::DEVICE
    )]
    Permission,
    /// The device is there and cannot be opened.
    #[error("{device} cannot be opened: {source}", device = crate::DEVICE)]
    Open {
        /// The host's reason.
        source: io::Error,
    },
    /// A capability that this host's kernel has not.
    #[error("the host's KVM has no {what}: use Linux {since} or later on the host")]
    TooOld {
        /// What is missing.
        what: &'static str,
        /// Version that brought it.
        since: &'static str,
    },
    /// Something that a CPU was to have.
    #[error("this host's KVM gives guests no {what}: leave {option}=on out of --cpu")]
    Absent {
        /// What is missing.
        what: &'static str,
        /// What asked for it.
        option: &'static str,
    },
    /// Addresses of guests are too short.
    #[error(
        "this machine needs guest-physical addresses of {needed} bits, and the host's KVM has {limit}: give it less \
         memory (--memory) or fewer CPUs"
    )]
    AddressSize {
        /// Bits that the machine needs.
        needed: u32,
        /// Bits that the host has.
        limit: u32,
    },
    /// Too many vCPUs.
    #[error("the host's KVM has at most {most} CPUs for a machine, not {asked}: give --smp {most} or less")]
    Vcpus {
        /// Those wanted.
        asked: usize,
        /// Those that it can have.
        most: usize,
    },
    /// The host's interrupt controller serves no guest.
    #[error(
        "this host's interrupt controller can serve no guest ({0}): use a host with GICv3 or later, or with a GICv2 that \
         has the virtualization extensions"
    )]
    Gic(io::Error),
    /// More CPUs than a GICv2 has interfaces for.
    #[error(
        "this host's interrupt controller serves guests with a GICv2, thus {most} CPUs at most, not {asked}: give --smp \
         {most} or less",
        most = crate::vgic2::MOST_CPUS
    )]
    GicCpus {
        /// Those wanted.
        asked: usize,
    },
    /// The model is not one that the host's CPU can be.
    #[error("this host's CPU cannot be a {cpu}: {fields}; use --cpu host")]
    Identity {
        /// The model.
        cpu: String,
        /// What differs.
        fields: String,
    },
    /// A system call failed.
    #[error("the host's KVM refuses to {what}: {source}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The host's reason.
        source: io::Error,
    },
}
