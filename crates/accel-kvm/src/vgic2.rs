//! A GICv2 inside the host's kernel, as it is reset (Documentation/virt/kvm/devices/arm-vgic.rst of Linux, IHI 0048).
//! Needs no KVM.

use std::io;

use armlet_arm::gic::{PRIVATE_INTIDS, common, gicc, gicd, gicd2};

use crate::vgic::{Attributes, Group};

/// Most CPUs that it serves (IHI 0048, 2.2.1).
pub const MOST_CPUS: usize = 8;

/// What of the device was given when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// SPIs, a multiple of 32.
    pub spis: u32,
    /// CPUs.
    pub cpus: usize,
}

impl Shape {
    /// Everything as at power-on; the inputs keep their levels.
    ///
    /// # Errors
    /// The host's.
    pub fn reset(&self, device: &impl Attributes) -> io::Result<()> {
        let of = |cpu: usize| Cpu { device, cpu: (cpu as u64) << 32 };
        // The first CPU's view has the shared ones too.
        let shared = of(0);
        shared.set(gicd::CTLR, 0)?;
        for word in 1..u64::from((self.spis + PRIVATE_INTIDS) / 32) {
            shared.reset_word(word)?;
            (0..8).try_for_each(|n| shared.set(gicd2::ITARGETSR + 32 * word + 4 * n, 0))?;
        }
        for cpu in (0..self.cpus).map(of) {
            cpu.reset_word(0)?;
            (0..4).try_for_each(|n| cpu.set(gicd2::CPENDSGIR + 4 * n, u32::MAX))?;
            for register in [gicc::CTLR, gicc::PMR, gicc::BPR, gicc::ABPR, gicc::APR] {
                device.set(Group::Interface2, cpu.cpu | register, 0)?;
            }
        }
        Ok(())
    }
}

/// The distributor as one CPU sees it.
struct Cpu<'a, D> {
    device: &'a D,
    /// Its number, in the upper half.
    cpu: u64,
}

impl<D: Attributes> Cpu<'_, D> {
    fn set(&self, register: u64, value: u32) -> io::Result<()> {
        self.device.set(Group::Distributor, self.cpu | register, value.into())
    }

    /// The registers of 32 interrupts.
    fn reset_word(&self, word: u64) -> io::Result<()> {
        for (register, value) in [
            (common::ICENABLER, u32::MAX),
            (common::ICPENDR, u32::MAX),
            (common::ICACTIVER, u32::MAX),
            (common::IGROUPR, 0),
        ] {
            self.set(register + 4 * word, value)?;
        }
        (0..8).try_for_each(|n| self.set(common::IPRIORITYR + 32 * word + 4 * n, 0))?;
        // SGIs are always edges; writes to theirs are ignored.
        (0..2).try_for_each(|n| self.set(common::ICFGR + 8 * word + 4 * n, 0))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    /// Takes what is written.
    #[derive(Default)]
    struct Device(RefCell<BTreeMap<(Group, u64), u64>>);

    impl Attributes for Device {
        fn get(&self, _: Group, _: u64) -> io::Result<u64> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn set(&self, group: Group, attribute: u64, value: u64) -> io::Result<()> {
            assert!(group != Group::Distributor || (attribute as u32).is_multiple_of(4));
            assert!(self.0.borrow_mut().insert((group, attribute), value).is_none(), "{attribute:#x} twice");
            Ok(())
        }
    }

    #[test]
    fn each_interrupt_and_each_cpu_is_reset_once() {
        let device = Device::default();
        Shape { spis: 64, cpus: 2 }.reset(&device).unwrap();
        let all = device.0.take();
        let count = |group, range: std::ops::Range<u64>| {
            all.keys().filter(|(g, at)| *g == group && range.contains(&(at & 0xffff_ffff))).count()
        };
        // Two words of SPIs, and one of each CPU's own.
        for register in [common::IGROUPR, common::ICENABLER, common::ICPENDR, common::ICACTIVER] {
            assert_eq!(count(Group::Distributor, register..register + 0x80), 4, "{register:#x}");
        }
        assert_eq!(count(Group::Distributor, common::IPRIORITYR..0x800), 4 * 8);
        assert_eq!(count(Group::Distributor, gicd2::ITARGETSR..0xc00), 2 * 8, "SPIs only");
        assert_eq!(count(Group::Distributor, common::ICFGR..0xd00), 4 * 2);
        assert_eq!(count(Group::Interface2, 0..0x1000), 2 * 5);
        // Registers that clear are written ones, the others zeroes.
        assert_eq!(all[&(Group::Distributor, 1 << 32 | common::ICPENDR)], u64::from(u32::MAX));
        assert_eq!(all[&(Group::Distributor, 1 << 32 | gicd2::CPENDSGIR)], u64::from(u32::MAX));
        assert_eq!(all[&(Group::Distributor, gicd::CTLR)], 0);
    }
}
