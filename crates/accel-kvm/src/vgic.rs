//! The state of the interrupt controller inside the host's kernel, register by register, in the form that is saved
//! (Documentation/virt/kvm/devices/arm-vgic-v3.rst of Linux, IHI 0069).
//!
//! The kernel's has less than the architecture: groups are on or off together, no interrupt goes to whatever CPU is free
//! (1-of-N), affinity 3 is 0, and nobody sleeps (`GICR_WAKER`). What was saved and needs more is refused by name: all is
//! written, then read back and compared. `ISPENDR` is the latch there, without the levels, and what is written replaces it,
//! zeroes as well.

use std::io;

use armlet_arm::gic::{PRIVATE_INTIDS, SGI_BASE, common, gicd, gicr, icc};
use armlet_saved::{SavedGic, SavedGicCpu, SavedInterrupts, Unfit};

/// `GICD_CTLR`: the groups.
const GROUPS: u32 = gicd::CTLR_WRITABLE;
const GROUP1: u32 = gicd::CTLR_ENABLE_GRP1;

/// Where the tables are and how large. How they are cached is the kernel's business.
const PROPBASER_TABLE: u64 = 0xf_ffff_ffff_f01f;
const PENDBASER_TABLE: u64 = 0xf_ffff_ffff_0000;

/// Attributes of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The distributor's registers, of 32 bits.
    Distributor,
    /// A redistributor's, of 32 bits; the affinity in the upper half.
    Redistributor,
    /// A CPU interface's, of 64 bits; the affinity in the upper half.
    Interface,
    /// Levels of 32 inputs from an INTID on; the affinity in the upper half.
    Levels,
    /// The CPU interface of a GICv2, registers of 32 bits; the CPU's number in the upper half.
    Interface2,
}

/// The device, by its attributes. No vCPU is inside the kernel.
pub trait Attributes {
    /// Reads one.
    ///
    /// # Errors
    /// The host's.
    fn get(&self, group: Group, attribute: u64) -> io::Result<u64>;
    /// Writes one.
    ///
    /// # Errors
    /// The host's.
    fn set(&self, group: Group, attribute: u64, value: u64) -> io::Result<()>;
}

/// What of the device was given when it was made.
#[derive(Clone, Debug)]
pub struct Shape {
    /// SPIs, a multiple of 32.
    pub spis: u32,
    /// Of each vCPU: Aff3:Aff2:Aff1:Aff0 in bits 63 to 32.
    pub affinities: Vec<u64>,
}

/// Aff3:Aff2:Aff1:Aff0 of `MPIDR_EL1` in bits 63 to 32.
pub fn attribute_affinity(mpidr: u64) -> u64 {
    ((mpidr & 0xff_ffff) | (mpidr >> 8 & 0xff00_0000)) << 32
}

/// A frame with registers for `words` of 32 interrupts, and where their levels are.
struct Frame<'a, D> {
    device: &'a D,
    group: Group,
    base: u64,
    levels: u64,
}

impl<D: Attributes> Frame<'_, D> {
    fn get(&self, at: u64) -> io::Result<u32> {
        self.device.get(self.group, self.base + at).map(|value| value as u32)
    }

    fn set(&self, at: u64, value: u32) -> io::Result<()> {
        self.device.set(self.group, self.base + at, value.into())
    }

    fn save(&self, word: u64) -> io::Result<SavedInterrupts> {
        let bits = |register: u64| self.get(register + 4 * word);
        let mut priority = Vec::with_capacity(32);
        for four in 0..8 {
            priority.extend(self.get(common::IPRIORITYR + 32 * word + 4 * four)?.to_le_bytes());
        }
        let edges = |half: u64| self.get(common::ICFGR + 8 * word + 4 * half).map(edges_of);
        Ok(SavedInterrupts {
            group: bits(common::IGROUPR)?,
            enabled: bits(common::ISENABLER)?,
            latched: bits(common::ISPENDR)?,
            line: self.device.get(Group::Levels, self.levels + 32 * word)? as u32,
            active: bits(common::ISACTIVER)?,
            edge: edges(0)? | edges(1)? << 16,
            priority,
        })
    }

    fn restore(&self, word: u64, saved: &SavedInterrupts) -> io::Result<()> {
        let configuration = [saved.edge & 0xffff, saved.edge >> 16];
        for (half, edges) in (0..).zip(configuration) {
            self.set(common::ICFGR + 8 * word + 4 * half, configuration_of(edges))?;
        }
        for (four, bytes) in (0..).zip(saved.priority.chunks_exact(4)) {
            let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            self.set(common::IPRIORITYR + 32 * word + 4 * four, value)?;
        }
        for (register, value) in [
            (common::IGROUPR, saved.group),
            (common::ICENABLER, u32::MAX),
            (common::ISENABLER, saved.enabled),
            (common::ISPENDR, saved.latched),
            (common::ICACTIVER, u32::MAX),
            (common::ISACTIVER, saved.active),
        ] {
            self.set(register + 4 * word, value)?;
        }
        self.device.set(Group::Levels, self.levels + 32 * word, saved.line.into())
    }
}

/// Bit 1 of each field of ICFGR: edge-triggered.
fn edges_of(configuration: u32) -> u32 {
    (0..16).fold(0, |edges, n| edges | (configuration >> (2 * n + 1) & 1) << n)
}

fn configuration_of(edges: u32) -> u32 {
    (0..16).fold(0, |configuration, n| configuration | (edges >> n & 1) << (2 * n + 1))
}

/// One CPU's registers.
struct Cpu<'a, D> {
    device: &'a D,
    affinity: u64,
}

impl<'a, D: Attributes> Cpu<'a, D> {
    fn private(&self) -> Frame<'a, D> {
        let base = self.affinity | SGI_BASE;
        Frame { device: self.device, group: Group::Redistributor, base, levels: self.affinity }
    }

    fn own(&self) -> Frame<'a, D> {
        let base = self.affinity;
        Frame { device: self.device, group: Group::Redistributor, base, levels: self.affinity }
    }

    fn get(&self, register: u16) -> io::Result<u64> {
        self.device.get(Group::Interface, self.affinity | u64::from(register))
    }

    fn set(&self, register: u16, value: u64) -> io::Result<()> {
        self.device.set(Group::Interface, self.affinity | u64::from(register), value)
    }

    fn priority_bits(&self) -> io::Result<u32> {
        Ok((self.get(icc::CTLR)? >> 8 & 7) as u32 + 1)
    }

    /// How many registers of active priorities there are for each group.
    fn active_registers(&self) -> io::Result<u16> {
        Ok(match self.priority_bits()? {
            ..=5 => 1,
            6 => 2,
            _ => 4,
        })
    }

    fn active(&self, first: u16) -> io::Result<Vec<u32>> {
        (0..self.active_registers()?).map(|n| self.get(first + n).map(|value| value as u32)).collect()
    }

    /// A register of 64 bits, which is accessed by halves.
    fn table(&self, register: u64) -> io::Result<u64> {
        let frame = self.own();
        Ok(u64::from(frame.get(register)?) | u64::from(frame.get(register + 4)?) << 32)
    }

    fn save(&self) -> io::Result<SavedGicCpu> {
        let (control, bits) = (self.get(icc::CTLR)?, self.priority_bits()?);
        // With one binary point for both groups the other one is not told.
        self.set(icc::CTLR, control & !icc::CTLR_CBPR)?;
        let bpr1 = self.get(icc::BPR1)?;
        self.set(icc::CTLR, control)?;
        // Of a CPU that has not run they are still lower than they can be.
        let least = |value: u64, least: u32| (value as u8).max(least as u8);
        Ok(SavedGicCpu {
            affinity: (self.affinity >> 32) as u32,
            private: self.private().save(0)?,
            redistributor_ctlr: self.own().get(gicr::CTLR)? & gicr::CTLR_ENABLE_LPIS,
            asleep: false,
            propbaser: self.table(gicr::PROPBASER)? & PROPBASER_TABLE,
            pendbaser: self.table(gicr::PENDBASER)? & PENDBASER_TABLE,
            pmr: self.get(icc::PMR)? as u8 & priority_mask(bits),
            bpr0: least(self.get(icc::BPR0)?, 7_u32.saturating_sub(bits)),
            bpr1: least(bpr1, 8_u32.saturating_sub(bits)),
            ctlr: control & icc::CTLR_WRITABLE,
            group0_on: self.get(icc::IGRPEN0)? & 1 != 0,
            group1_on: self.get(icc::IGRPEN1)? & 1 != 0,
            active0: self.active(icc::AP0R0)?,
            active1: self.active(icc::AP1R0)?,
        })
    }

    fn restore(&self, saved: &SavedGicCpu) -> io::Result<()> {
        self.private().restore(0, &saved.private)?;
        // Tables change only while nothing uses them.
        self.own().set(gicr::CTLR, 0)?;
        for (register, value) in [(gicr::PROPBASER, saved.propbaser), (gicr::PENDBASER, saved.pendbaser)] {
            self.own().set(register, value as u32)?;
            self.own().set(register + 4, (value >> 32) as u32)?;
        }
        self.own().set(gicr::CTLR, saved.redistributor_ctlr & gicr::CTLR_ENABLE_LPIS)?;
        let control = self.get(icc::CTLR)? & !icc::CTLR_WRITABLE;
        // BPR1 is only taken while there is one for each group.
        self.set(icc::CTLR, control)?;
        self.set(icc::BPR0, saved.bpr0.into())?;
        self.set(icc::BPR1, saved.bpr1.into())?;
        self.set(icc::CTLR, control | saved.ctlr & icc::CTLR_WRITABLE)?;
        self.set(icc::PMR, saved.pmr.into())?;
        for (first, values) in [(icc::AP0R0, &saved.active0), (icc::AP1R0, &saved.active1)] {
            for (n, value) in (0..self.active_registers()?).zip(values) {
                self.set(first + n, (*value).into())?;
            }
        }
        self.set(icc::IGRPEN0, saved.group0_on.into())?;
        self.set(icc::IGRPEN1, saved.group1_on.into())
    }
}

const fn priority_mask(bits: u32) -> u8 {
    if bits >= 8 { u8::MAX } else { !(u8::MAX >> bits) }
}

impl Shape {
    fn distributor<'a, D>(&self, device: &'a D) -> Frame<'a, D> {
        let levels = self.affinities.first().copied().unwrap_or(0);
        Frame { device, group: Group::Distributor, base: 0, levels }
    }

    fn words(&self) -> std::ops::RangeInclusive<u64> {
        1..=u64::from(self.spis / 32)
    }

    fn routes(&self) -> impl Iterator<Item = u64> {
        (u64::from(PRIVATE_INTIDS)..u64::from(self.spis + PRIVATE_INTIDS)).map(|n| gicd::IROUTER + 8 * n)
    }

    /// All registers, and the levels of the inputs that are not edge-triggered.
    ///
    /// # Errors
    /// The host's.
    pub fn save(&self, device: &impl Attributes) -> io::Result<SavedGic> {
        let distributor = self.distributor(device);
        let cpu = |affinity: &u64| Cpu { device, affinity: *affinity };
        let route = |at: u64| Ok(u64::from(distributor.get(at)?) | u64::from(distributor.get(at + 4)?) << 32);
        let cpus = self.affinities.iter().map(|affinity| cpu(affinity).save());
        let bits = self.affinities.first().map_or(Ok(0), |affinity| cpu(affinity).priority_bits());
        Ok(SavedGic {
            version: 3,
            // The kernel's switch is one for both groups.
            ctlr: if distributor.get(gicd::CTLR)? & GROUP1 != 0 { GROUPS } else { 0 },
            shared: self.words().map(|word| distributor.save(word)).collect::<io::Result<_>>()?,
            routes: self.routes().map(route).collect::<io::Result<_>>()?,
            cpus: cpus.collect::<io::Result<_>>()?,
            priority_bits: bits?,
            next_cpu: 0,
            its: None,
        })
    }

    /// Writes what was saved.
    ///
    /// # Errors
    /// What the kernel's cannot be. The device must not be used then.
    pub fn restore(&self, device: &impl Attributes, saved: &SavedGic) -> Result<(), Unfit> {
        let failed = |e: io::Error| unfit(&format!("the host's kernel does not take it: {e}"));
        let before = self.save(device).map_err(failed)?;
        check(saved, &before)?;
        self.write(device, saved).map_err(failed)?;
        let after = self.save(device).map_err(failed)?;
        compare(saved, &after)
    }

    fn write(&self, device: &impl Attributes, saved: &SavedGic) -> io::Result<()> {
        let distributor = self.distributor(device);
        // First: what becomes pending while it is off is not looked at when it is switched on.
        distributor.set(gicd::CTLR, saved.ctlr & GROUP1)?;
        for (word, saved) in self.words().zip(&saved.shared) {
            distributor.restore(word, saved)?;
        }
        for (at, route) in self.routes().zip(&saved.routes) {
            distributor.set(at, *route as u32)?;
            distributor.set(at + 4, (*route >> 32) as u32)?;
        }
        for (affinity, saved) in self.affinities.iter().zip(&saved.cpus) {
            Cpu { device, affinity: *affinity }.restore(saved)?;
        }
        Ok(())
    }
}

fn unfit(what: &str) -> Unfit {
    Unfit::new(format!("the interrupt controller: {what}"))
}

/// Nothing if `then` is `now`.
fn same(what: &str, then: u64, now: u64) -> Result<(), Unfit> {
    Unfit::unless(then == now, || {
        format!("the interrupt controller: {what} was {then:#x} and is {now:#x} in the host's kernel")
    })
}

/// What has to be the same before anything is written.
fn check(saved: &SavedGic, here: &SavedGic) -> Result<(), Unfit> {
    let number = |what: &str, then: usize, now: usize| {
        Unfit::unless(then == now, || {
            format!("the interrupt controller: it had {then} {what} and has {now} in the host's kernel")
        })
    };
    same("its version", saved.version.into(), here.version.into())?;
    number("priority bits", saved.priority_bits as usize, here.priority_bits as usize)?;
    number("SPIs", saved.shared.len() * 32, here.shared.len() * 32)?;
    number("SPIs", saved.routes.len(), here.routes.len())?;
    number("places for CPUs", saved.cpus.len(), here.cpus.len())?;
    for (cpu, (then, now)) in saved.cpus.iter().zip(&here.cpus).enumerate() {
        same(&format!("the affinity of CPU {cpu}"), then.affinity.into(), now.affinity.into())?;
        let others = then.redistributor_ctlr & !gicr::CTLR_ENABLE_LPIS;
        same(&format!("GICR_CTLR of CPU {cpu}"), others.into(), 0)?;
    }
    // Both groups are on together; of a guest without group 1 nothing would come.
    let alone = saved.ctlr & GROUPS == GROUPS & !GROUP1;
    Unfit::unless(!alone, || "the interrupt controller: GICD_CTLR has only group 0 on".into())
}

/// What has been written and is not there.
fn compare(saved: &SavedGic, here: &SavedGic) -> Result<(), Unfit> {
    same("GICD_CTLR", (saved.ctlr & GROUP1).into(), (here.ctlr & GROUP1).into())?;
    for (n, (then, now)) in saved.shared.iter().zip(&here.shared).enumerate() {
        compare_interrupts("GICD", 32 * (n + 1), then, now)?;
    }
    for (n, (then, now)) in saved.routes.iter().zip(&here.routes).enumerate() {
        same(&format!("GICD_IROUTER of SPI {n}"), *then, *now)?;
    }
    for (cpu, (then, now)) in saved.cpus.iter().zip(&here.cpus).enumerate() {
        compare_cpu(then, now).map_err(|Unfit(what)| Unfit(format!("{what} (CPU {cpu})")))?;
    }
    Ok(())
}

fn compare_interrupts(
    frame: &str,
    first: usize,
    then: &SavedInterrupts,
    now: &SavedInterrupts,
) -> Result<(), Unfit> {
    for (register, then, now) in [
        ("IGROUPR", then.group, now.group),
        ("ISENABLER", then.enabled, now.enabled),
        ("ISPENDR", then.latched, now.latched),
        ("ISACTIVER", then.active, now.active),
        ("ICFGR", then.edge, now.edge),
        // Those of edges are not told.
        ("the levels at the inputs", then.line & !then.edge, now.line & !now.edge),
    ] {
        let name = if register.contains(' ') { register.into() } else { format!("{frame}_{register}") };
        same(&format!("{name} from INTID {first} on"), then.into(), now.into())?;
    }
    for (n, (then, now)) in then.priority.iter().zip(&now.priority).enumerate() {
        same(&format!("{frame}_IPRIORITYR of INTID {}", first + n), (*then).into(), (*now).into())?;
    }
    Ok(())
}

fn compare_cpu(then: &SavedGicCpu, now: &SavedGicCpu) -> Result<(), Unfit> {
    compare_interrupts("GICR", 0, &then.private, &now.private)?;
    for (register, then, now) in [
        ("GICR_CTLR", then.redistributor_ctlr.into(), now.redistributor_ctlr.into()),
        ("GICR_PROPBASER", then.propbaser & PROPBASER_TABLE, now.propbaser),
        ("GICR_PENDBASER", then.pendbaser & PENDBASER_TABLE, now.pendbaser),
        ("ICC_PMR_EL1", then.pmr.into(), now.pmr.into()),
        ("ICC_BPR0_EL1", then.bpr0.into(), now.bpr0.into()),
        ("ICC_BPR1_EL1", then.bpr1.into(), now.bpr1.into()),
        ("ICC_CTLR_EL1", then.ctlr, now.ctlr),
        ("ICC_IGRPEN0_EL1", then.group0_on.into(), now.group0_on.into()),
        ("ICC_IGRPEN1_EL1", then.group1_on.into(), now.group1_on.into()),
    ] {
        same(register, then, now)?;
    }
    for (register, then, now) in
        [("ICC_AP0R0_EL1", &then.active0, &now.active0), ("ICC_AP1R0_EL1", &then.active1, &now.active1)]
    {
        // One that is not there is 0.
        let value = |all: &[u32], n| all.get(n).copied().unwrap_or(0).into();
        (0..4).try_for_each(|n| same(register, value(then, n), value(now, n)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
