//! The interrupt controller inside the host's kernel (Documentation/virt/kvm/devices/arm-vgic-v3.rst of Linux).

use std::io;
use std::sync::Arc;

use armlet_saved::{SavedGic, Unfit};
use kvm_bindings::{
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
    KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
    KVM_DEV_ARM_VGIC_GRP_NR_IRQS, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, KVM_VGIC_V3_ADDR_TYPE_DIST,
    KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, kvm_create_device, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
};
use kvm_ioctls::{DeviceFd, VmFd};

use crate::system::{command, get, host, set};
use crate::vgic::{Attributes, Group, PRIVATE, SGI_FRAME, Shape, attribute_affinity, frame, icc};
use crate::{GicLayout, KvmError};

/// `KVM_IRQ_LINE`: an SPI.
const TYPE_SPI: u32 = 1 << 24;

/// A GICv3 in the host's kernel.
pub struct KvmGic {
    device: DeviceFd,
    vm: Arc<VmFd>,
    shape: Shape,
}

impl Attributes for DeviceFd {
    fn get(&self, group: Group, attribute: u64) -> io::Result<u64> {
        match number_of(group) {
            (number, Size::Word) => get::<u32>(self, number, attribute).map(u64::from),
            (number, Size::Double) => get(self, number, attribute),
        }
    }

    fn set(&self, group: Group, attribute: u64, value: u64) -> io::Result<()> {
        match number_of(group) {
            (number, Size::Word) => set(self, number, attribute, &(value as u32)),
            (number, Size::Double) => set(self, number, attribute, &value),
        }
    }
}

enum Size {
    Word,
    Double,
}

/// The kernel's number of the group, and the size of its values.
const fn number_of(group: Group) -> (u32, Size) {
    match group {
        Group::Distributor => (KVM_DEV_ARM_VGIC_GRP_DIST_REGS, Size::Word),
        Group::Redistributor => (KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, Size::Word),
        Group::Interface => (KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Size::Double),
        Group::Levels => (KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, Size::Word),
    }
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
        Ok(Self { device, vm: Arc::clone(vm), shape: Shape { spis: layout.spis, affinities } })
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

    /// All registers, and the levels of the inputs. The vCPUs must be stopped.
    ///
    /// # Errors
    /// The host's.
    pub fn save(&self) -> Result<SavedGic, Unfit> {
        let failed = |e| Unfit::new(format!("the host's kernel does not tell its interrupt controller: {e}"));
        self.shape.save(&self.device).map_err(failed)
    }

    /// Takes over what was saved. The vCPUs must be stopped, and be as they are to go on.
    ///
    /// # Errors
    /// What the host's cannot be; it must not be used then.
    pub fn restore(&self, saved: &SavedGic) -> Result<(), Unfit> {
        self.shape.restore(&self.device, saved)
    }

    fn try_reset(&self) -> io::Result<()> {
        let distributor = |at: u64, value: u32| set(&self.device, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, at, &value);
        distributor(frame::CTLR, 0)?;
        // Each frame has the registers of the private ones too, which the redistributors hold.
        reset_frame(1..(self.shape.spis + PRIVATE) / 32, distributor)?;
        for n in u64::from(PRIVATE)..u64::from(self.shape.spis + PRIVATE) {
            distributor(frame::IROUTER + 8 * n, 0)?;
            distributor(frame::IROUTER + 8 * n + 4, 0)?;
        }
        self.shape.affinities.iter().try_for_each(|affinity| self.reset_cpu(*affinity))
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
