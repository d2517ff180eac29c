//! The interrupt controller inside the host's kernel (Documentation/virt/kvm/devices/arm-vgic-v3.rst of Linux).

use std::io;
use std::sync::Arc;

use armlet_arm::sysreg::encoding;
use kvm_bindings::{
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
    KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
    kvm_create_device, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
};
use kvm_ioctls::{DeviceFd, VmFd};

use crate::system::{command, get, host, set};
use crate::{GicLayout, KvmError};

/// INTIDs below are a CPU's own.
const PRIVATE: u32 = 32;
/// `KVM_IRQ_LINE`: an SPI.
const TYPE_SPI: u32 = 1 << 24;
/// The second frame of a redistributor.
const SGI_FRAME: u64 = 0x1_0000;

/// Registers of the distributor, and of the second frame of a redistributor, by the number of their first (IHI 0069, 12.9).
mod frame {
    pub const CTLR: u64 = 0;
    pub const IGROUPR: u64 = 0x80;
    pub const ICENABLER: u64 = 0x180;
    /// The kernel takes what is written for the pending state, zeroes as well.
    pub const ISPENDR: u64 = 0x200;
    pub const ICACTIVER: u64 = 0x380;
    pub const IPRIORITYR: u64 = 0x400;
    pub const ICFGR: u64 = 0xc00;
    pub const IROUTER: u64 = 0x6000;
}

/// Registers of the CPU interface that a reset changes.
mod icc {
    use super::encoding;
    pub const PMR: u16 = encoding(3, 0, 4, 6, 0);
    pub const BPR0: u16 = encoding(3, 0, 12, 8, 3);
    pub const AP0R0: u16 = encoding(3, 0, 12, 8, 4);
    pub const AP1R0: u16 = encoding(3, 0, 12, 9, 0);
    pub const BPR1: u16 = encoding(3, 0, 12, 12, 3);
    pub const CTLR: u16 = encoding(3, 0, 12, 12, 4);
    pub const IGRPEN0: u16 = encoding(3, 0, 12, 12, 6);
    pub const IGRPEN1: u16 = encoding(3, 0, 12, 12, 7);
    /// CTLR: what software may change.
    pub const CTLR_WRITABLE: u64 = 3;
}

/// A GICv3 in the host's kernel.
pub struct KvmGic {
    device: DeviceFd,
    vm: Arc<VmFd>,
    spis: u32,
    /// Of each vCPU, as the device's attributes have it.
    affinities: Vec<u64>,
}

/// Aff3:Aff2:Aff1:Aff0 in bits 63 to 32.
fn attribute_affinity(mpidr: u64) -> u64 {
    ((mpidr & 0xff_ffff) | (mpidr >> 8 & 0xff00_0000)) << 32
}

impl KvmGic {
    /// Makes it for a virtual machine all of whose vCPUs have been made.
    pub(crate) fn new(vm: &Arc<VmFd>, mpidrs: &[u64], layout: &GicLayout) -> Result<Self, KvmError> {
        let mut kind = kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, fd: 0, flags: 0 };
        let device = vm.create_device(&mut kind).map_err(|e| KvmError::Gic(host(e)))?;
        let refused = |source| KvmError::Refused { what: "place an interrupt controller", source };
        let address = KVM_DEV_ARM_VGIC_GRP_ADDR;
        set(&device, address, KVM_VGIC_V3_ADDR_TYPE_DIST.into(), &layout.distributor).map_err(refused)?;
        for (index, (base, count)) in layout.redistributors.iter().enumerate() {
            // Bits 63 to 52: how many; 51 to 16: where; 11 to 0: which.
            let region = (*count as u64) << 52 | base | index as u64;
            set(&device, address, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION.into(), &region).map_err(refused)?;
        }
        let interrupts = layout.spis + PRIVATE;
        set(&device, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &interrupts).map_err(refused)?;
        let refused = |source| KvmError::Refused { what: "start an interrupt controller", source };
        command(&device, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT.into()).map_err(refused)?;
        let affinities = mpidrs.iter().map(|m| attribute_affinity(*m)).collect();
        Ok(Self { device, vm: Arc::clone(vm), spis: layout.spis, affinities })
    }

    /// Drives the input of SPI `n` (INTID `n + 32`).
    pub fn set_spi(&self, n: u32, level: bool) {
        if let Err(error) = self.vm.set_irq_line(TYPE_SPI | (n + PRIVATE), level) {
            tracing::error!(spi = n, level, %error, "the host's kernel does not take an interrupt");
        }
    }

    /// Everything as at power-on; the inputs keep their levels. The vCPUs must be stopped.
    pub fn reset(&self) {
        if let Err(error) = self.try_reset() {
            tracing::error!(%error, "the interrupt controller in the host's kernel cannot be reset");
        }
    }

    fn try_reset(&self) -> io::Result<()> {
        let distributor = |at: u64, value: u32| set(&self.device, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, at, &value);
        distributor(frame::CTLR, 0)?;
        // Each frame has the registers of the private ones too, which the redistributors hold.
        reset_frame(1..(self.spis + PRIVATE) / 32, distributor)?;
        for n in u64::from(PRIVATE)..u64::from(self.spis + PRIVATE) {
            distributor(frame::IROUTER + 8 * n, 0)?;
            distributor(frame::IROUTER + 8 * n + 4, 0)?;
        }
        self.affinities.iter().try_for_each(|affinity| self.reset_cpu(*affinity))
    }

    fn reset_cpu(&self, affinity: u64) -> io::Result<()> {
        let private = |at: u64, value: u32| {
            set(&self.device, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, affinity | (SGI_FRAME + at), &value)
        };
        reset_frame(0..1, private)?;
        let group = KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS;
        let attribute = |register: u16| affinity | u64::from(register);
        for register in [icc::PMR, icc::BPR0, icc::BPR1, icc::AP0R0, icc::AP1R0, icc::IGRPEN0, icc::IGRPEN1] {
            set(&self.device, group, attribute(register), &0u64)?;
        }
        let control: u64 = get(&self.device, group, attribute(icc::CTLR))?;
        set(&self.device, group, attribute(icc::CTLR), &(control & !icc::CTLR_WRITABLE))
    }
}

/// The registers of a frame that hold `words` of 32 interrupts each.
fn reset_frame(words: std::ops::Range<u32>, write: impl Fn(u64, u32) -> io::Result<()>) -> io::Result<()> {
    for word in words.map(u64::from) {
        for (register, value) in [
            (frame::ICENABLER, u32::MAX),
            (frame::ISPENDR, 0),
            (frame::ICACTIVER, u32::MAX),
            (frame::IGROUPR, 0),
        ] {
            write(register + 4 * word, value)?;
        }
        for byte in 0..8 {
            write(frame::IPRIORITYR + 32 * word + 4 * byte, 0)?;
        }
        // SGIs are always edges; writes to theirs are ignored.
        write(frame::ICFGR + 8 * word, 0)?;
        write(frame::ICFGR + 8 * word + 4, 0)?;
    }
    Ok(())
}
