use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;

/// The registers as the kernel has them.
#[derive(Default)]
struct Kernel(RefCell<BTreeMap<(Group, u64), u64>>);

const AFFINITY: u64 = !0 << 32;
const SPIS: u32 = 64;
/// `ICC_CTLR_EL1` of a host with 5 bits of priority: PRIbits, A3V.
const HOST_CONTROL: u64 = 4 << 8 | 1 << 15;

impl Kernel {
    fn at(&self, group: Group, at: u64) -> u64 {
        self.0.borrow().get(&(group, at)).copied().unwrap_or(0)
    }

    fn put(&self, group: Group, at: u64, value: u64) {
        self.0.borrow_mut().insert((group, at), value);
    }

    /// The register and its place among those of its kind, as the register that sets it; whether it clears.
    fn set_of(offset: u64) -> (u64, Option<bool>) {
        match offset & 0xffff {
            0x100..0x180 | 0x300..0x380 => (offset, Some(true)),
            0x180..0x200 | 0x380..0x400 => (offset - 0x80, Some(false)),
            _ => (offset, None),
        }
    }

    /// LPIs of the CPU whose register is `at` are enabled.
    fn uses_tables(&self, at: u64) -> bool {
        self.at(Group::Redistributor, at & AFFINITY) & u64::from(gicr::CTLR_ENABLE_LPIS) != 0
    }

    fn set_interface(&self, at: u64, value: u64) -> io::Result<()> {
        let control = self.at(Group::Interface, at & AFFINITY | u64::from(icc::CTLR));
        let register = at as u16;
        match register {
            icc::CTLR if value & !icc::CTLR_WRITABLE != HOST_CONTROL => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            icc::BPR1 if control & icc::CTLR_CBPR != 0 => return Ok(()),
            _ => {}
        }
        self.put(Group::Interface, at, value);
        Ok(())
    }
}

impl Attributes for Kernel {
    fn get(&self, group: Group, at: u64) -> io::Result<u64> {
        let control = self.at(Group::Interface, at & AFFINITY | u64::from(icc::CTLR));
        Ok(match group {
            Group::Interface if at as u16 == icc::CTLR => control & icc::CTLR_WRITABLE | HOST_CONTROL,
            Group::Interface if at as u16 == icc::BPR1 && control & icc::CTLR_CBPR != 0 => 7,
            Group::Distributor if at == gicd::CTLR => self.at(group, at) | 0x50,
            // LPIs can be disabled again (CES), and their configuration be read again (IR).
            Group::Redistributor if at & !AFFINITY == gicr::CTLR => self.at(group, at) | 6,
            Group::Interface | Group::Levels => self.at(group, at),
            _ => self.at(group, Self::set_of(at).0),
        })
    }

    fn set(&self, group: Group, at: u64, value: u64) -> io::Result<()> {
        if group == Group::Interface {
            return self.set_interface(at, value);
        }
        let (register, sets) = Self::set_of(at);
        let old = self.at(group, register);
        let value = match (sets, at & 0xffff) {
            (Some(true), _) => old | value,
            (Some(false), _) => old & !value,
            // All that there is of it.
            (None, 0) if group == Group::Distributor => value & u64::from(GROUP1),
            // A table does not change while it is in use.
            (None, 0x70..0x80)
                if group == Group::Redistributor && at & SGI_BASE == 0 && self.uses_tables(at) =>
            {
                old
            }
            // How a table is cached.
            (None, 0x70) if group == Group::Redistributor && at & SGI_BASE == 0 => value | 0x180,
            // An upper half, and 1-of-N in a lower one.
            (None, 0x6000..0x8000) if at & 4 != 0 => 0,
            (None, 0x6000..0x8000) => value & 0xff_ffff,
            (None, 0x400..0x800) => value & 0xf8f8_f8f8,
            // A CPU's own are levels, but for SGIs.
            (None, 0xc00..0xd00) if group == Group::Redistributor => old,
            _ => value,
        };
        self.put(group, register, value);
        Ok(())
    }
}

fn shape() -> Shape {
    Shape { spis: SPIS, affinities: [0, 1, 0x100].map(|mpidr| attribute_affinity(1 << 31 | mpidr)).into() }
}

fn kernel() -> Kernel {
    let kernel = Kernel::default();
    for affinity in shape().affinities {
        kernel.put(Group::Redistributor, affinity | (SGI_BASE + common::ICFGR), 0xaaaa_aaaa);
    }
    kernel
}

/// xorshift64.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn some_interrupts(seed: &mut u64, edge: Option<u32>) -> SavedInterrupts {
    let mut next = || random(seed) as u32;
    let edge = edge.unwrap_or(next());
    SavedInterrupts {
        group: next(),
        enabled: next(),
        latched: next(),
        line: next() & !edge,
        active: next(),
        edge,
        priority: (0..32).map(|_| next() as u8 & 0xf8).collect(),
    }
}

/// A state that the kernel's can have.
fn some_state(seed: &mut u64) -> SavedGic {
    let shape = shape();
    let cpu = |affinity: &u64, seed: &mut u64| SavedGicCpu {
        affinity: (affinity >> 32) as u32,
        private: some_interrupts(seed, Some(0xffff)),
        redistributor_ctlr: random(seed) as u32 & gicr::CTLR_ENABLE_LPIS,
        propbaser: random(seed) & PROPBASER_TABLE,
        pendbaser: random(seed) & PENDBASER_TABLE,
        pmr: random(seed) as u8 & 0xf8,
        bpr0: 2 + random(seed) as u8 % 6,
        bpr1: 3 + random(seed) as u8 % 5,
        ctlr: random(seed) & 3,
        group0_on: random(seed) & 1 != 0,
        group1_on: random(seed) & 1 != 0,
        active0: vec![random(seed) as u32],
        active1: vec![random(seed) as u32],
        ..SavedGicCpu::default()
    };
    SavedGic {
        version: 3,
        ctlr: if random(seed) & 1 != 0 { GROUPS } else { 0 },
        shared: (0..SPIS / 32).map(|_| some_interrupts(seed, None)).collect(),
        routes: (0..SPIS).map(|_| random(seed) & 0xff_ffff).collect(),
        cpus: shape.affinities.iter().map(|affinity| cpu(affinity, seed)).collect(),
        priority_bits: 5,
        next_cpu: 0,
        its: None,
    }
}

#[test]
fn what_was_saved_is_there_again() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos());
    let mut seed = now as u64 | 1;
    println!("seed {seed}");
    let used = kernel();
    for _ in 0..50 {
        let state = some_state(&mut seed);
        // One that is new, and one that was something else before.
        for kernel in [&kernel(), &used] {
            shape().restore(kernel, &state).unwrap();
            assert_eq!(shape().save(kernel).unwrap(), state);
        }
    }
}

#[test]
fn saving_changes_nothing() {
    let kernel = kernel();
    shape().restore(&kernel, &some_state(&mut 42)).unwrap();
    let before = kernel.0.borrow().clone();
    shape().save(&kernel).unwrap();
    assert_eq!(*kernel.0.borrow(), before);
}

#[test]
fn one_that_has_not_run_has_values_that_registers_can_have() {
    let saved = shape().save(&kernel()).unwrap();
    let cpu = &saved.cpus[1];
    assert_eq!((cpu.bpr0, cpu.bpr1, cpu.private.edge, saved.priority_bits), (2, 3, 0xffff, 5));
}

#[test]
fn what_the_kernel_has_not_is_named() {
    type Change = fn(&mut SavedGic);
    let cases: [(&str, Change); 11] = [
        ("GICD_IROUTER of SPI 3", |gic| gic.routes[3] |= 1 << 31),
        ("GICD_IROUTER of SPI 4", |gic| gic.routes[4] |= 1 << 32),
        ("GICR_CTLR of CPU 1", |gic| gic.cpus[1].redistributor_ctlr |= 1 << 24),
        ("GICR_ICFGR from INTID 0 on", |gic| gic.cpus[2].private.edge |= 1 << 16),
        ("GICD_IPRIORITYR of INTID 70", |gic| gic.shared[1].priority[6] |= 1),
        ("had 4 priority bits and has 5", |gic| gic.priority_bits = 4),
        ("ICC_AP0R0_EL1", |gic| gic.cpus[0].active0.push(1)),
        ("only group 0", |gic| gic.ctlr = 1),
        ("had 32 SPIs and has 64", |gic| drop(gic.shared.pop())),
        ("had 2 places for CPUs and has 3", |gic| drop(gic.cpus.pop())),
        ("affinity of CPU 2", |gic| gic.cpus[2].affinity = 7),
    ];
    for (words, change) in cases {
        let mut state = some_state(&mut 7);
        change(&mut state);
        let error = shape().restore(&kernel(), &state).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn the_groups_have_one_switch() {
    let mut state = some_state(&mut 9);
    // What Linux writes where there is one security state, and another guest might.
    for (ctlr, back) in [(3, 3), (2, 3), (0, 0)] {
        state.ctlr = ctlr;
        let kernel = kernel();
        shape().restore(&kernel, &state).unwrap();
        assert_eq!(shape().save(&kernel).unwrap().ctlr, back);
    }
}
