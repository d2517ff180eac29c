//! KVM: the host's own CPU executes the guest.
//!
//! | module | what |
//! |---|---|
//! | `host` | what the host can do, asked before anything is made |
//! | `features` | what vCPUs can have, and what ours get |
//! | `machine` | the virtual machine: memory, vCPUs' descriptors, time, doorbells |
//! | `identity` | the ID registers: the host's as a CPU model, and a model's written to the host |
//! | `gic` | the interrupt controller inside the host's kernel |
//! | [`vgic`] | its state, as it is saved; needs no KVM |
//! | [`vgic2`] | the same for a GICv2, where the host has only that |
//! | [`vits`] | the state of its ITS; needs no KVM |
//! | `bell` | notifications of devices without an exit |
//! | `vcpu` | the loop around `KVM_RUN` |
//! | `kick` | how a vCPU is got out of it |
//! | [`exit`] | what an exit means, over a bus; needs no KVM |
//! | [`patch`] | breakpoints in memory; needs no KVM |
//! | [`step`] | single steps without interrupts; needs no KVM |
//! | [`registers`] | the shared state, register by register; needs no KVM |
//!
//! Calls of PSCI are not answered by the host's kernel but forwarded ([`armlet_engine::VcpuExit::Hypercall`]), so that
//! the power of vCPUs is the engine's here as everywhere. A vCPU that waits for an interrupt sleeps in the kernel, inside
//! `run`: the engine sees it as running.
//!
//! KVM is for arm64 hosts. Elsewhere [`KvmMachine::open`] says so, and nothing else can be called.

mod error;
pub mod exit;
pub mod patch;
pub mod registers;
pub mod step;
pub mod vgic;
pub mod vgic2;
pub mod vits;

#[cfg(not(target_arch = "aarch64"))]
mod absent;
#[cfg(target_arch = "aarch64")]
mod bell;
#[cfg(target_arch = "aarch64")]
mod debug;
#[cfg(target_arch = "aarch64")]
mod features;
#[cfg(target_arch = "aarch64")]
mod gic;
#[cfg(target_arch = "aarch64")]
mod host;
#[cfg(target_arch = "aarch64")]
mod identity;
#[cfg(target_arch = "aarch64")]
mod kick;
#[cfg(target_arch = "aarch64")]
mod machine;
#[cfg(target_arch = "aarch64")]
mod system;
#[cfg(target_arch = "aarch64")]
mod vcpu;

#[cfg(not(target_arch = "aarch64"))]
pub use absent::{KvmAccelerator, KvmBell, KvmGic, KvmMachine, counter_frequency};
#[cfg(target_arch = "aarch64")]
pub use bell::KvmBell;
pub use error::KvmError;
#[cfg(target_arch = "aarch64")]
pub use gic::KvmGic;
#[cfg(target_arch = "aarch64")]
pub use machine::KvmMachine;
#[cfg(target_arch = "aarch64")]
pub use system::counter_frequency;
#[cfg(target_arch = "aarch64")]
pub use vcpu::KvmAccelerator;

/// The device by which KVM is reached.
pub const DEVICE: &str = "/dev/kvm";

/// Which of a guest's calls (HVC) come to the machine; the others are answered by the host's kernel, which has
/// mitigations, random numbers and stolen time to offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// Those of PSCI (Arm DEN 0022).
    #[default]
    Psci,
    /// All that can be forwarded, for tests.
    All,
}

/// Whether vCPUs are to have something that not every host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// No.
    #[default]
    No,
    /// If the host has it.
    IfThere,
    /// It must be there.
    Yes,
}

/// What a virtual machine is made for.
#[derive(Clone, Debug, Default)]
pub struct KvmConfig {
    /// `MPIDR_EL1` of each place for a vCPU.
    pub affinities: Vec<u64>,
    /// First guest-physical address behind everything that is mapped.
    pub end: u64,
    /// Calls that come to the machine.
    pub calls: Calls,
    /// Where the vCPUs' stolen time is told (Arm DEN 0057), 64 bytes for each, in a page that is nothing else's.
    pub stolen_time: Option<u64>,
    /// The Scalable Vector Extension, with all vector lengths that the host has.
    pub sve: Wanted,
    /// Performance counters (PMUv3), with interrupts if there is an interrupt controller.
    pub pmu: Wanted,
}

/// INTID of the performance counters' interrupt, a PPI (Arm DEN 0094, BSA 3.7.1).
pub const PMU_INTID: u32 = 23;

/// An interrupt controller inside the host's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicVersion {
    /// Where the host has nothing better: up to [`vgic2::MOST_CPUS`] CPUs, and nothing of it can be saved.
    V2,
    /// GICv3.
    V3,
}

/// Where an interrupt controller inside the host's kernel is.
#[derive(Clone, Debug)]
pub struct GicLayout {
    /// Number of SPIs, a multiple of 32.
    pub spis: u32,
    /// First guest-physical address of the distributor.
    pub distributor: u64,
    /// Regions of a GICv3's redistributors: first address, and how many.
    pub redistributors: Vec<(u64, usize)>,
    /// First guest-physical address of a GICv2's CPU interfaces.
    pub interface: u64,
    /// First guest-physical address of a GICv3's interrupt translation service, which there always is then.
    pub its: u64,
}

/// An interrupt that is a message: what a device writes, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvmMessage {
    /// DeviceID.
    pub device: u32,
    /// Guest-physical address.
    pub address: u64,
    /// EventID.
    pub data: u32,
}
