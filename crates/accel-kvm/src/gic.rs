//! The interrupt controller inside the host's kernel (Documentation/virt/kvm/devices/arm-vgic-v3.rst, arm-vgic-its.rst and
//! arm-vgic.rst of Linux).

use std::io;
use std::sync::Arc;

use armlet_arm::gic::{PRIVATE_INTIDS, SGI_BASE, common, gicd, gicr, gits, icc};
use armlet_saved::{SavedGic, Unfit};
use kvm_bindings::{
    KVM_DEV_ARM_ITS_CTRL_RESET, KVM_DEV_ARM_ITS_RESTORE_TABLES, KVM_DEV_ARM_ITS_SAVE_TABLES,
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CPU_REGS,
    KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
    KVM_DEV_ARM_VGIC_GRP_ITS_REGS, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, KVM_MSI_VALID_DEVID,
    KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V2_ADDR_TYPE_CPU, KVM_VGIC_V2_ADDR_TYPE_DIST,
    KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, kvm_create_device,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS as TYPE_ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2 as TYPE_V2, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3 as TYPE_V3,
    kvm_msi,
};
use kvm_ioctls::{DeviceFd, VmFd};

use crate::system::{command, could_create, get, host, set};
use crate::vgic::{Attributes, Group, Shape, attribute_affinity};
use crate::vits::{self, Service};
use crate::{GicLayout, GicVersion, KvmError, KvmMessage, vgic2};

/// `KVM_IRQ_LINE`: an SPI.
const TYPE_SPI: u32 = 1 << 24;

/// An interrupt controller in the host's kernel.
pub struct KvmGic {
    device: DeviceFd,
    vm: Arc<VmFd>,
    kind: Kind,
}

/// What it is.
enum Kind {
    V2(vgic2::Shape),
    V3 { shape: Shape, its: Its },
}

/// The interrupt translation service.
struct Its(DeviceFd);

impl Service for Its {
    fn get(&self, register: u64) -> io::Result<u64> {
        get(&self.0, KVM_DEV_ARM_VGIC_GRP_ITS_REGS, register)
    }

    fn set(&self, register: u64, value: u64) -> io::Result<()> {
        set(&self.0, KVM_DEV_ARM_VGIC_GRP_ITS_REGS, register, &value)
    }

    fn write_tables(&self) -> io::Result<()> {
        command(&self.0, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_ITS_SAVE_TABLES.into())
    }

    fn read_tables(&self) -> io::Result<()> {
        command(&self.0, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_ITS_RESTORE_TABLES.into())
    }
}

impl Its {
    fn new(vm: &VmFd, base: u64) -> io::Result<Self> {
        let mut asked = kvm_create_device { type_: TYPE_ITS, fd: 0, flags: 0 };
        let its = Self(vm.create_device(&mut asked).map_err(host)?);
        set(&its.0, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE.into(), &base)?;
        command(&its.0, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT.into())?;
        Ok(its)
    }

    fn reset(&self) -> io::Result<()> {
        command(&self.0, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_ITS_CTRL_RESET.into())?;
        // Of these the kernel leaves all but that they are valid.
        [gits::BASER, gits::BASER + 8].into_iter().try_for_each(|register| self.set(register, 0))
    }
}

/// What kind of interrupt controller is made.
enum Plan {
    V2(vgic2::Shape),
    V3(Shape),
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
        Group::Interface2 => (KVM_DEV_ARM_VGIC_GRP_CPU_REGS, Size::Word),
    }
}

impl KvmGic {
    /// Makes it for a virtual machine all of whose vCPUs have been made: of version 3, or 2 where the host has no other.
    pub(crate) fn new(vm: &Arc<VmFd>, mpidrs: &[u64], layout: &GicLayout) -> Result<Self, KvmError> {
        let cpus = mpidrs.len();
        let (number, plan) = match version(vm) {
            GicVersion::V2 if cpus > vgic2::MOST_CPUS => return Err(KvmError::GicCpus { asked: cpus }),
            GicVersion::V2 => (TYPE_V2, Plan::V2(vgic2::Shape { spis: layout.spis, cpus })),
            GicVersion::V3 => {
                let affinities = mpidrs.iter().map(|m| attribute_affinity(*m)).collect();
                (TYPE_V3, Plan::V3(Shape { spis: layout.spis, affinities }))
            }
        };
        let mut asked = kvm_create_device { type_: number, fd: 0, flags: 0 };
        let device = vm.create_device(&mut asked).map_err(|e| KvmError::Gic(host(e)))?;
        let refused = |source| KvmError::Refused { what: "place an interrupt controller", source };
        place(&device, &plan, layout).map_err(refused)?;
        let interrupts = layout.spis + PRIVATE_INTIDS;
        set(&device, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &interrupts).map_err(refused)?;
        let refused = |source| KvmError::Refused { what: "start an interrupt controller", source };
        command(&device, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT.into()).map_err(refused)?;
        let refused = |source| KvmError::Refused { what: "make an interrupt translation service", source };
        let kind = match plan {
            Plan::V2(shape) => Kind::V2(shape),
            Plan::V3(shape) => Kind::V3 { shape, its: Its::new(vm, layout.its).map_err(refused)? },
        };
        Ok(Self { device, vm: Arc::clone(vm), kind })
    }

    /// What it is.
    pub fn version(&self) -> GicVersion {
        match self.kind {
            Kind::V2(_) => GicVersion::V2,
            Kind::V3 { .. } => GicVersion::V3,
        }
    }

    /// Drives the input of SPI `n` (INTID `n + 32`).
    pub fn set_spi(&self, n: u32, level: bool) {
        if let Err(error) = self.vm.set_irq_line(TYPE_SPI | (n + PRIVATE_INTIDS), level) {
            tracing::error!(spi = n, level, %error, "the host's kernel does not take an interrupt");
        }
    }

    /// Everything as at power-on; the inputs keep their levels. The vCPUs must be stopped.
    pub fn reset(&self) {
        let reset = match &self.kind {
            Kind::V2(shape) => shape.reset(&self.device),
            Kind::V3 { shape, its } => its.reset().and_then(|()| self.reset_v3(shape)),
        };
        if let Err(error) = reset {
            tracing::error!(%error, "the interrupt controller in the host's kernel cannot be reset");
        }
    }

    /// Sends a message to its ITS.
    ///
    /// # Errors
    /// Nothing takes the message: not there, or not from that device, or no such event.
    pub fn send(&self, message: KvmMessage) -> io::Result<()> {
        let KvmMessage { device, address, data } = message;
        let (address_lo, address_hi) = (address as u32, (address >> 32) as u32);
        let flags = KVM_MSI_VALID_DEVID;
        let msi = kvm_msi { address_lo, address_hi, data, flags, devid: device, pad: [0; 12] };
        match self.vm.signal_msi(msi).map_err(host)? {
            0 => Err(io::Error::other("the guest has mapped no such event")),
            _ => Ok(()),
        }
    }

    /// All registers, and the levels of the inputs. Mappings of the ITS, and which LPIs are pending, are in the guest's memory
    /// then. The vCPUs must be stopped.
    ///
    /// # Errors
    /// The host's, or it is a GICv2.
    pub fn save(&self) -> Result<SavedGic, Unfit> {
        let failed = |e| Unfit::new(format!("the host's kernel does not tell its interrupt controller: {e}"));
        let (shape, its) = self.saved_parts()?;
        let attribute = KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES;
        command(&self.device, KVM_DEV_ARM_VGIC_GRP_CTRL, attribute.into()).map_err(failed)?;
        let its = Some(vits::save(its).map_err(failed)?);
        Ok(SavedGic { its, ..shape.save(&self.device).map_err(failed)? })
    }

    /// Takes over what was saved. The vCPUs must be stopped, and be as they are to go on.
    ///
    /// # Errors
    /// What the host's cannot be; it must not be used then.
    pub fn restore(&self, saved: &SavedGic) -> Result<(), Unfit> {
        let (shape, its) = self.saved_parts()?;
        let saved_its = saved.its.as_ref();
        let saved_its = saved_its.ok_or_else(|| Unfit::new("the interrupt controller: it had no ITS"))?;
        // Which LPIs are pending is read when their mappings are, so where those tables are comes first.
        shape.restore(&self.device, saved)?;
        vits::restore(its, saved_its)
    }

    fn saved_parts(&self) -> Result<(&Shape, &Its), Unfit> {
        match &self.kind {
            Kind::V3 { shape, its } => Ok((shape, its)),
            Kind::V2(_) => Err(Unfit::new(
                "the interrupt controller: this host's kernel has a GICv2, which is neither saved nor restored",
            )),
        }
    }

    fn reset_v3(&self, shape: &Shape) -> io::Result<()> {
        let distributor = |at: u64, value: u32| set(&self.device, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, at, &value);
        distributor(gicd::CTLR, 0)?;
        // Each frame has the registers of the private ones too, which the redistributors hold.
        reset_frame(1..(shape.spis + PRIVATE_INTIDS) / 32, distributor)?;
        for n in u64::from(PRIVATE_INTIDS)..u64::from(shape.spis + PRIVATE_INTIDS) {
            distributor(gicd::IROUTER + 8 * n, 0)?;
            distributor(gicd::IROUTER + 8 * n + 4, 0)?;
        }
        shape.affinities.iter().try_for_each(|affinity| self.reset_cpu(*affinity))
    }

    fn reset_cpu(&self, affinity: u64) -> io::Result<()> {
        let private = |at: u64, value: u32| {
            set(&self.device, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, affinity | (SGI_BASE + at), &value)
        };
        reset_frame(0..1, private)?;
        for register in
            [gicr::CTLR, gicr::PROPBASER, gicr::PROPBASER + 4, gicr::PENDBASER, gicr::PENDBASER + 4]
        {
            set(&self.device, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, affinity | register, &0u32)?;
        }
        let group = KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS;
        let attribute = |register: u16| affinity | u64::from(register);
        for register in [icc::PMR, icc::BPR0, icc::BPR1, icc::AP0R0, icc::AP1R0, icc::IGRPEN0, icc::IGRPEN1] {
            set(&self.device, group, attribute(register), &0u64)?;
        }
        let control: u64 = get(&self.device, group, attribute(icc::CTLR))?;
        set(&self.device, group, attribute(icc::CTLR), &(control & !icc::CTLR_WRITABLE))
    }
}

/// What a guest of this host can have: version 2 where there is no other.
pub fn version(vm: &VmFd) -> GicVersion {
    let only_v2 = !could_create(vm, TYPE_V3) && could_create(vm, TYPE_V2);
    if only_v2 { GicVersion::V2 } else { GicVersion::V3 }
}

/// Where guests find it.
fn place(device: &DeviceFd, plan: &Plan, layout: &GicLayout) -> io::Result<()> {
    let put = |what: u32, base: u64| set(device, KVM_DEV_ARM_VGIC_GRP_ADDR, what.into(), &base);
    if let Plan::V2(_) = plan {
        put(KVM_VGIC_V2_ADDR_TYPE_DIST, layout.distributor)?;
        return put(KVM_VGIC_V2_ADDR_TYPE_CPU, layout.interface);
    }
    put(KVM_VGIC_V3_ADDR_TYPE_DIST, layout.distributor)?;
    // Bits 63 to 52: how many; 51 to 16: where; 11 to 0: which.
    let region = |(index, (base, count)): (usize, &(u64, usize))| (*count as u64) << 52 | base | index as u64;
    let mut regions = layout.redistributors.iter().enumerate().map(region);
    regions.try_for_each(|region| put(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, region))
}

/// The registers of a frame that hold `words` of 32 interrupts each.
fn reset_frame(words: std::ops::Range<u32>, write: impl Fn(u64, u32) -> io::Result<()>) -> io::Result<()> {
    for word in words.map(u64::from) {
        for (register, value) in [
            (common::ICENABLER, u32::MAX),
            (common::ISPENDR, 0),
            (common::ICACTIVER, u32::MAX),
            (common::IGROUPR, 0),
        ] {
            write(register + 4 * word, value)?;
        }
        for byte in 0..8 {
            write(common::IPRIORITYR + 32 * word + 4 * byte, 0)?;
        }
        // SGIs are always edges; writes to theirs are ignored.
        write(common::ICFGR + 8 * word, 0)?;
        write(common::ICFGR + 8 * word + 4, 0)?;
    }
    Ok(())
}
