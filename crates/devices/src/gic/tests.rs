use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::spec::*;
use super::*;
use crate::testing::Random;

const SGI: u64 = SGI_BASE;

struct Bench {
    gic: Arc<GicV3>,
    dist: Arc<dyn MmioDevice>,
    redist: Arc<dyn MmioDevice>,
    cpus: Vec<Arc<VcpuShared>>,
}

/// MPIDR of CPU `n` as the board numbers them: 16 in a cluster.
fn mpidr(n: usize) -> u64 {
    0x8000_0000 | (n as u64 % 16) | (n as u64 / 16) << 8
}

/// A GIC as after reset.
fn raw_bench(n: usize) -> Bench {
    let cpus: Vec<_> = (0..n).map(|i| Arc::new(VcpuShared::new(i))).collect();
    let config = GicConfig { spis: 256, affinities: (0..n).map(mpidr).collect() };
    let gic = GicV3::new(&config, cpus.clone()).expect("a GIC");
    Bench { dist: gic.distributor(), redist: gic.redistributors(0..n), gic, cpus }
}

/// A GIC as an operating system sets it up: everything group 1, priority 0xa0, groups on, mask open.
fn bench(n: usize) -> Bench {
    let b = raw_bench(n);
    b.d(gicd::CTLR, 3);
    for i in 1..9 {
        b.d(0x80 + 4 * i, !0);
    }
    for i in (32..288).step_by(4) {
        b.d(common::IPRIORITYR + i, 0xa0a0_a0a0);
    }
    for cpu in 0..n {
        b.r(cpu, gicr::WAKER, 0);
        b.r(cpu, SGI + 0x80, !0);
        for i in (0..32).step_by(4) {
            b.r(cpu, SGI + common::IPRIORITYR + i, 0xa0a0_a0a0);
        }
        b.r(cpu, SGI + 0x100, !0);
        b.w(cpu, icc::PMR, 0xff);
        b.w(cpu, icc::IGRPEN0, 1);
        b.w(cpu, icc::IGRPEN1, 1);
    }
    b
}

impl Bench {
    fn d(&self, offset: u64, value: u32) {
        self.dist.write(offset, AccessSize::Word, u64::from(value));
    }

    fn dr(&self, offset: u64) -> u32 {
        self.dist.read(offset, AccessSize::Word) as u32
    }

    fn r(&self, cpu: usize, offset: u64, value: u32) {
        self.redist.write(cpu as u64 * REDISTRIBUTOR_SIZE + offset, AccessSize::Word, u64::from(value));
    }

    fn rr(&self, cpu: usize, offset: u64) -> u32 {
        self.redist.read(cpu as u64 * REDISTRIBUTOR_SIZE + offset, AccessSize::Word) as u32
    }

    fn w(&self, cpu: usize, register: u16, value: u64) {
        self.gic.write_icc_encoding(cpu, register, value);
    }

    fn icc(&self, cpu: usize, register: u16) -> u64 {
        self.gic.read_icc_encoding(cpu, register)
    }

    fn iar(&self, cpu: usize) -> u64 {
        self.icc(cpu, icc::IAR1)
    }

    fn eoi(&self, cpu: usize, intid: u64) {
        self.w(cpu, icc::EOIR1, intid);
    }

    fn irq(&self, cpu: usize) -> bool {
        self.cpus[cpu].irq()
    }

    fn spi(&self, n: u32) -> Arc<dyn InterruptLine> {
        self.gic.spi(n).expect("an SPI")
    }

    fn ppi(&self, cpu: usize, n: u32) -> Arc<dyn InterruptLine> {
        self.gic.ppi(cpu, n).expect("a PPI")
    }

    /// Enables SPI `n`, routed to `cpu`.
    fn enable_spi(&self, n: u64, cpu: usize) {
        self.dist.write(gicd::IROUTER + 8 * (n + 32), AccessSize::Double, mpidr(cpu) & 0xff_ffff);
        let intid = n + 32;
        self.d(0x100 + intid / 32 * 4, 1 << (intid % 32));
    }

    fn spi_priority(&self, n: u64, priority: u8) {
        self.dist.write(common::IPRIORITYR + 32 + n, AccessSize::Byte, u64::from(priority));
    }

    /// Makes SPI `n` edge-triggered.
    fn edge(&self, n: u64) {
        let intid = n + 32;
        let offset = common::ICFGR + intid / 16 * 4;
        self.d(offset, self.dr(offset) | 2 << (2 * (intid % 16)));
    }
}

#[test]
fn refuses_impossible_configurations() {
    let cpu = || Arc::new(VcpuShared::new(0));
    let make = |spis, affinities: &[u64]| {
        let config = GicConfig { spis, affinities: affinities.to_vec() };
        GicV3::new(&config, affinities.iter().map(|_| cpu()).collect()).err()
    };
    assert_eq!(make(256, &[]), Some(GicError::Cpus(0)));
    assert_eq!(make(256, &[1, 1]), Some(GicError::Affinity(1)));
    assert_eq!(make(0, &[0]), Some(GicError::Spis(0)));
    assert_eq!(make(33, &[0]), Some(GicError::Spis(33)));
    assert_eq!(make(992, &[0]), Some(GicError::Spis(992)));
    assert_eq!(make(960, &[0]), None);
    let b = raw_bench(1);
    assert!(b.gic.spi(256).is_err());
    assert!(b.gic.ppi(0, 16).is_err());
    assert!(b.gic.ppi(1, 0).is_err());
}

#[test]
fn identifies_itself() {
    let b = raw_bench(18);
    assert_eq!(b.dr(gicd::CTLR), 0x50, "ARE and DS");
    assert_eq!(b.dr(gicd::TYPER) & 0x1f, 8, "288 INTIDs");
    assert_eq!(b.dr(gicd::IIDR) & 0xfff, 0x43b);
    assert_eq!(b.dr(0xffe8) >> 4, 3);
    for cpu in 0..18 {
        assert_eq!(b.rr(cpu, 0xffe8) >> 4, 3);
        let typer = b.redist.read(cpu as u64 * REDISTRIBUTOR_SIZE + gicr::TYPER, AccessSize::Double);
        assert_eq!(typer >> 32, (mpidr(cpu) & 0xffff));
        assert_eq!((typer >> 8) & 0xffff, cpu as u64);
        assert_eq!(typer & gicr::TYPER_LAST != 0, cpu == 17);
        assert_eq!(typer as u32, b.rr(cpu, gicr::TYPER));
        assert_eq!((typer >> 32) as u32, b.rr(cpu, gicr::TYPER + 4));
    }
    assert_eq!(b.icc(0, icc::SRE), 7);
    assert_eq!((b.icc(0, icc::CTLR) >> 8) & 7, 4, "5 priority bits");
    assert_eq!(b.icc(0, icc::RPR), 0xff);
    assert_eq!(b.icc(0, icc::BPR0), 2);
    assert_eq!(b.icc(0, icc::BPR1), 3);
    assert_eq!(b.iar(0), 1023);
}

#[test]
fn waker_follows_software() {
    let b = raw_bench(2);
    assert_eq!(b.rr(1, gicr::WAKER), 6);
    b.r(1, gicr::WAKER, 0);
    assert_eq!(b.rr(1, gicr::WAKER), 0);
    assert_eq!(b.rr(0, gicr::WAKER), 6);
}

#[test]
fn registers_hold_what_is_implemented() {
    let b = raw_bench(1);
    b.d(common::IPRIORITYR + 32, 0xffff_ffff);
    assert_eq!(b.dr(common::IPRIORITYR + 32), 0xf8f8_f8f8);
    b.dist.write(common::IPRIORITYR + 33, AccessSize::Byte, 0x47);
    assert_eq!(b.dr(common::IPRIORITYR + 32), 0xf8f8_40f8);
    assert_eq!(b.dist.read(common::IPRIORITYR + 33, AccessSize::Byte), 0x40);
    b.d(common::IPRIORITYR, 0xffff_ffff);
    assert_eq!(b.dr(common::IPRIORITYR), 0, "private interrupts are the redistributor's");
    b.r(0, SGI + common::ICFGR, 0);
    assert_eq!(b.rr(0, SGI + common::ICFGR), 0xaaaa_aaaa, "SGIs are edge-triggered");
    b.r(0, SGI + common::ICFGR + 4, 0xffff_ffff);
    assert_eq!(b.rr(0, SGI + common::ICFGR + 4), 0xaaaa_aaaa);
    b.dist.write(gicd::IROUTER + 8 * 40, AccessSize::Double, !0);
    assert_eq!(b.dist.read(gicd::IROUTER + 8 * 40, AccessSize::Double), gicd::IROUTER_MASK);
    b.d(gicd::IROUTER + 8 * 40, 5);
    assert_eq!(b.dist.read(gicd::IROUTER + 8 * 40, AccessSize::Double), 0xff_0000_0005);
    assert_eq!(b.dist.read(gicd::IROUTER + 8 * 31, AccessSize::Double), 0);
    b.w(0, icc::PMR, 0xff);
    assert_eq!(b.icc(0, icc::PMR), 0xf8);
    b.w(0, icc::BPR0, 0);
    b.w(0, icc::BPR1, 0);
    assert_eq!((b.icc(0, icc::BPR0), b.icc(0, icc::BPR1)), (2, 3));
    b.w(0, icc::BPR0, 4);
    b.w(0, icc::CTLR, icc::CTLR_CBPR);
    b.w(0, icc::BPR1, 7);
    assert_eq!(b.icc(0, icc::BPR1), 5, "BPR0 + 1 under CBPR");
    b.w(0, icc::CTLR, 0);
    assert_eq!(b.icc(0, icc::BPR1), 3, "the write was ignored");
}

#[test]
fn level_interrupt_comes_again_while_the_line_is_high() {
    let b = bench(1);
    b.enable_spi(1, 0);
    let line = b.spi(1);
    line.set(true);
    assert!(b.irq(0));
    assert_eq!(b.icc(0, icc::HPPIR1), 33);
    assert_eq!(b.iar(0), 33);
    assert!(!b.irq(0), "active: not signalled again");
    assert_eq!(b.icc(0, icc::RPR), 0xa0);
    assert_eq!(b.dr(0x204) & 2, 2, "active and pending");
    assert_eq!(b.dr(0x304) & 2, 2);
    b.eoi(0, 33);
    assert!(b.irq(0), "line still high");
    assert_eq!(b.gic.read_icc_encoding(0, icc::ISR), icc::ISR_I);
    assert_eq!(b.iar(0), 33);
    line.set(false);
    assert_eq!(b.dr(0x204) & 2, 0);
    b.eoi(0, 33);
    assert!(!b.irq(0));
    assert_eq!(b.iar(0), 1023);
}

#[test]
fn level_that_falls_before_the_acknowledge_is_spurious() {
    let b = bench(1);
    b.enable_spi(1, 0);
    let line = b.spi(1);
    line.set(true);
    line.set(false);
    assert!(!b.irq(0));
    assert_eq!(b.iar(0), 1023);
}

#[test]
fn edge_interrupt_is_latched_once_per_rise() {
    let b = bench(1);
    b.enable_spi(16, 0);
    b.edge(16);
    let line = b.spi(16);
    line.set(true);
    line.set(false);
    assert!(b.irq(0), "latched");
    assert_eq!(b.iar(0), 48);
    line.set(true);
    line.set(true);
    assert!(!b.irq(0), "active and pending");
    b.eoi(0, 48);
    assert!(b.irq(0));
    assert_eq!(b.iar(0), 48);
    b.eoi(0, 48);
    assert!(!b.irq(0), "a high line alone is no edge");
}

#[test]
fn set_and_clear_pending() {
    let b = bench(1);
    b.enable_spi(1, 0);
    b.d(0x204, 2);
    assert!(b.irq(0));
    b.d(0x284, 2);
    assert!(!b.irq(0));
    b.spi(1).set(true);
    b.d(0x284, 2);
    assert!(b.irq(0), "clearing does not help against a high line");
}

#[test]
fn set_active_holds_an_interrupt_back() {
    let b = bench(1);
    b.enable_spi(1, 0);
    b.d(0x304, 2);
    b.spi(1).set(true);
    assert!(!b.irq(0));
    b.d(0x384, 2);
    assert!(b.irq(0));
}

#[test]
fn disabled_things_do_not_signal() {
    let b = bench(1);
    b.enable_spi(1, 0);
    b.spi(1).set(true);
    assert!(b.irq(0));
    b.d(0x184, 2);
    assert!(!b.irq(0), "interrupt disabled");
    b.d(0x104, 2);
    assert!(b.irq(0));
    b.d(gicd::CTLR, 1);
    assert!(!b.irq(0), "group 1 off in the distributor");
    b.d(gicd::CTLR, 3);
    b.w(0, icc::IGRPEN1, 0);
    assert!(!b.irq(0), "group 1 off in the interface");
    assert_eq!(b.iar(0), 1023);
    b.w(0, icc::IGRPEN1, 1);
    b.w(0, icc::PMR, 0xa0);
    assert!(!b.irq(0), "priority equal to the mask");
    assert_eq!(b.icc(0, icc::HPPIR1), 33, "HPPIR does not look at the mask");
    assert_eq!(b.iar(0), 1023);
    b.w(0, icc::PMR, 0xa8);
    assert!(b.irq(0));
}

#[test]
fn group_0_is_fiq() {
    let b = bench(1);
    b.enable_spi(1, 0);
    b.d(0x84, !2);
    b.spi(1).set(true);
    assert!(b.cpus[0].fiq());
    assert!(!b.irq(0));
    assert_eq!(b.iar(0), 1023);
    assert_eq!(b.icc(0, icc::HPPIR1), 1023);
    assert_eq!(b.icc(0, icc::HPPIR0), 33);
    assert_eq!(b.icc(0, icc::IAR0), 33);
    assert!(!b.cpus[0].fiq());
    assert_eq!(b.icc(0, icc::AP0R0), 1 << (0xa0 >> 3));
    b.spi(1).set(false);
    b.w(0, icc::EOIR0, 33);
    assert_eq!(b.icc(0, icc::RPR), 0xff);
    assert!(!b.cpus[0].fiq());
}

#[test]
fn priority_and_number_order() {
    let b = bench(1);
    for n in [3, 5, 7, 9] {
        b.enable_spi(n, 0);
    }
    b.spi_priority(3, 0x80);
    b.spi_priority(5, 0x40);
    b.spi_priority(7, 0x40);
    b.spi_priority(9, 0xc0);
    for n in [9, 7, 5, 3] {
        b.spi(n).set(true);
    }
    b.w(0, icc::BPR1, 7);
    let mut order = Vec::new();
    loop {
        let intid = b.iar(0);
        if intid == 1023 {
            break;
        }
        order.push(intid);
        b.spi(intid as u32 - 32).set(false);
        b.eoi(0, intid);
    }
    assert_eq!(order, [37, 39, 35, 41]);
}

#[test]
fn preemption_needs_a_higher_group_priority() {
    let b = bench(1);
    for (n, priority) in [(1, 0xa0), (2, 0x98), (3, 0x80)] {
        b.enable_spi(n, 0);
        b.spi_priority(n, priority);
    }
    // BPR1 5: the group priority is bits [7:5].
    b.w(0, icc::BPR1, 5);
    b.spi(1).set(true);
    assert_eq!(b.iar(0), 33);
    assert_eq!(b.icc(0, icc::RPR), 0xa0);
    b.spi(2).set(true);
    assert!(b.irq(0), "0x98 is in the group priority 0x80");
    assert_eq!(b.iar(0), 34);
    assert_eq!(b.icc(0, icc::RPR), 0x80);
    assert_eq!(b.icc(0, icc::AP1R0), 1 << 20 | 1 << 16);
    b.spi(3).set(true);
    assert!(!b.irq(0), "same group priority");
    assert_eq!(b.iar(0), 1023);
    b.spi(2).set(false);
    b.eoi(0, 34);
    assert!(b.irq(0));
    assert_eq!(b.iar(0), 35);
    b.spi(3).set(false);
    b.eoi(0, 35);
    assert_eq!(b.icc(0, icc::RPR), 0xa0);
    b.spi(1).set(false);
    b.eoi(0, 33);
    assert_eq!(b.icc(0, icc::RPR), 0xff);
}

#[test]
fn binary_points_count_differently_for_the_groups() {
    // With BPR0 = BPR1 = 4: group 0 preempts by bits [7:5], group 1 by bits [7:4].
    for (group1, expect) in [(true, true), (false, false)] {
        let b = bench(1);
        b.enable_spi(1, 0);
        b.enable_spi(2, 0);
        b.spi_priority(1, 0x90);
        b.spi_priority(2, 0x80);
        b.w(0, icc::BPR0, 4);
        b.w(0, icc::BPR1, 4);
        if !group1 {
            b.d(0x84, !6);
        }
        b.spi(1).set(true);
        assert_eq!(b.icc(0, if group1 { icc::IAR1 } else { icc::IAR0 }), 33);
        b.spi(2).set(true);
        assert_eq!(b.irq(0) || b.cpus[0].fiq(), expect, "group 1: {group1}");
    }
}

#[test]
fn group_0_preempts_group_1() {
    let b = bench(1);
    b.enable_spi(1, 0);
    b.enable_spi(2, 0);
    b.d(0x84, !4);
    b.spi_priority(2, 0x20);
    b.spi(1).set(true);
    assert_eq!(b.iar(0), 33);
    b.spi(2).set(true);
    assert!(b.cpus[0].fiq() && !b.irq(0));
    assert_eq!(b.icc(0, icc::IAR0), 34);
    // An EOI of the other group drops nothing of group 0.
    b.w(0, icc::CTLR, icc::CTLR_EOIMODE);
    b.eoi(0, 33);
    assert_eq!(b.icc(0, icc::RPR), 0x20);
    b.w(0, icc::EOIR0, 34);
    assert_eq!(b.icc(0, icc::RPR), 0xa0);
}

#[test]
fn eoi_mode_1_splits_drop_and_deactivation() {
    let b = bench(1);
    b.enable_spi(1, 0);
    b.w(0, icc::CTLR, icc::CTLR_EOIMODE);
    assert_eq!(b.icc(0, icc::CTLR) & 3, 2);
    b.spi(1).set(true);
    assert_eq!(b.iar(0), 33);
    b.eoi(0, 33);
    assert_eq!(b.icc(0, icc::RPR), 0xff, "priority dropped");
    assert_eq!(b.dr(0x304) & 2, 2, "still active");
    assert!(!b.irq(0));
    b.w(0, icc::DIR, 33);
    assert_eq!(b.dr(0x304) & 2, 0);
    assert!(b.irq(0), "line still high");
    b.w(0, icc::CTLR, 0);
    assert_eq!(b.iar(0), 33);
    b.w(0, icc::DIR, 33);
    assert_eq!(b.dr(0x304) & 2, 2, "DIR does nothing in mode 0");
}

#[test]
fn an_spi_can_be_deactivated_by_another_cpu() {
    let b = bench(2);
    b.enable_spi(1, 0);
    b.w(0, icc::CTLR, icc::CTLR_EOIMODE);
    b.w(1, icc::CTLR, icc::CTLR_EOIMODE);
    b.spi(1).set(true);
    assert_eq!(b.iar(0), 33);
    b.eoi(0, 33);
    assert!(!b.irq(0));
    b.w(1, icc::DIR, 33);
    assert!(b.irq(0) && !b.irq(1));
}

#[test]
fn special_and_foreign_intids_at_eoi() {
    let b = bench(1);
    b.enable_spi(1, 0);
    b.spi(1).set(true);
    assert_eq!(b.iar(0), 33);
    for intid in 1020..1024 {
        b.eoi(0, intid);
    }
    assert_eq!(b.icc(0, icc::RPR), 0xa0);
    b.eoi(0, 0xff_ffff);
    assert_eq!(b.dr(0x304) & 2, 2);
    b.w(0, icc::EOIR1, 33);
    b.w(0, icc::EOIR1, 33);
    assert_eq!(b.icc(0, icc::RPR), 0xff);
}

#[test]
fn ppis_are_private() {
    let b = bench(2);
    let line = b.ppi(1, 11);
    line.set(true);
    assert!(!b.irq(0) && b.irq(1));
    assert_eq!(b.iar(0), 1023);
    assert_eq!(b.iar(1), 27);
    assert_eq!(b.rr(1, SGI + 0x300), 1 << 27);
    assert_eq!(b.rr(0, SGI + 0x300), 0);
    line.set(false);
    b.eoi(1, 27);
    assert!(!b.irq(1));
}

/// The CPUs on which SGI `n` is pending; clears it.
fn sgi_pending(b: &Bench, n: u32) -> Vec<usize> {
    (0..b.cpus.len())
        .filter(|&cpu| {
            let hit = b.rr(cpu, SGI + 0x200) & (1 << n) != 0;
            assert_eq!(hit, b.irq(cpu) || b.cpus[cpu].fiq(), "line of CPU {cpu}");
            b.r(cpu, SGI + 0x280, 1 << n);
            hit
        })
        .collect()
}

#[test]
fn sgi_targets() {
    let b = bench(20);
    let sgi = 5_u64 << 24;
    b.w(0, icc::SGI1R, sgi | 0b1010);
    assert_eq!(sgi_pending(&b, 5), [1, 3]);
    b.w(3, icc::SGI1R, sgi | 1 << 3);
    assert_eq!(sgi_pending(&b, 5), [3], "itself");
    b.w(0, icc::SGI1R, sgi | 1 << 16 | 0b11);
    assert_eq!(sgi_pending(&b, 5), [16, 17], "cluster 1");
    b.w(2, icc::SGI1R, sgi | icc::SGIR_IRM);
    assert_eq!(sgi_pending(&b, 5), (0..20).filter(|c| *c != 2).collect::<Vec<_>>());
    b.w(0, icc::SGI1R, sgi | 1 << 44 | 0xffff);
    assert_eq!(sgi_pending(&b, 5), [0; 0], "no CPU with Aff0 16 to 31");
    b.w(0, icc::SGI1R, sgi | 1 << 32 | 0xffff);
    assert_eq!(sgi_pending(&b, 5), [0; 0], "no CPU with Aff2 1");
    b.w(0, icc::SGI1R, sgi | 1 << 48 | 0xffff);
    assert_eq!(sgi_pending(&b, 5), [0; 0], "no CPU with Aff3 1");
}

#[test]
fn sgi_range_selector_and_high_affinities() {
    let cpus: Vec<_> = (0..3).map(|i| Arc::new(VcpuShared::new(i))).collect();
    let affinities = vec![0, 0x25, 7 << 32 | 3 << 16 | 2 << 8 | 0x11];
    let gic = GicV3::new(&GicConfig { spis: 32, affinities }, cpus).expect("a GIC");
    let redist = gic.redistributors(0..3);
    let pending = |cpu: u64| redist.read(cpu * REDISTRIBUTOR_SIZE + SGI + 0x200, AccessSize::Word) as u32;
    gic.write_icc_encoding(0, icc::SGI1R, 2 << 44 | 1 << 24 | 1 << 5);
    assert_eq!((pending(0), pending(1), pending(2)), (0, 2, 0));
    gic.write_icc_encoding(0, icc::SGI1R, 7 << 48 | 1 << 44 | 3 << 32 | 2 << 24 | 2 << 16 | 1 << 1);
    assert_eq!((pending(0), pending(1), pending(2)), (0, 2, 4));
}

#[test]
fn sgi_groups() {
    let b = bench(2);
    b.r(1, SGI + 0x80, !(1 << 2));
    b.w(0, icc::SGI0R, 2 << 24 | 2);
    assert!(b.cpus[1].fiq());
    assert_eq!(b.icc(1, icc::IAR0), 2);
    b.w(1, icc::EOIR0, 2);
    b.w(0, icc::SGI1R, 2 << 24 | 2);
    assert!(b.cpus[1].fiq(), "SGI1R reaches group 0 with one security state");
    b.r(1, SGI + 0x280, !0);
    b.w(0, icc::SGI0R, 3 << 24 | 2);
    assert_eq!(b.rr(1, SGI + 0x200), 0, "SGI0R does not reach group 1");
}

#[test]
fn routing_by_affinity() {
    let b = bench(18);
    b.enable_spi(4, 17);
    let line = b.spi(4);
    line.set(true);
    assert!(b.irq(17) && !b.irq(0));
    b.enable_spi(4, 2);
    assert!(b.irq(2) && !b.irq(17), "a pending interrupt moves");
    assert_eq!(b.iar(17), 1023);
    b.dist.write(gicd::IROUTER + 8 * 36, AccessSize::Double, 0x99);
    assert!((0..18).all(|c| !b.irq(c)), "nobody there");
}

#[test]
fn one_of_n_takes_turns_among_participants() {
    let b = bench(4);
    b.enable_spi(4, 0);
    b.r(1, gicr::WAKER, 2);
    b.r(2, gicr::CTLR, gicr::CTLR_DPG1);
    b.dist.write(gicd::IROUTER + 8 * 36, AccessSize::Double, gicd::IROUTER_IRM);
    let line = b.spi(4);
    let mut hits = [0; 4];
    for _ in 0..10 {
        line.set(true);
        let on: Vec<usize> = (0..4).filter(|&c| b.irq(c)).collect();
        assert_eq!(on.len(), 1);
        hits[on[0]] += 1;
        assert_eq!(b.iar(on[0]), 36);
        line.set(false);
        b.eoi(on[0], 36);
    }
    assert_eq!(hits, [5, 0, 0, 5]);
    line.set(true);
    let first = if b.irq(0) { 0 } else { 3 };
    b.w(first, icc::IGRPEN1, 0);
    assert!(b.irq(3 - first), "goes on to one that takes part");
}

#[test]
fn reset_keeps_input_levels_only() {
    let b = bench(2);
    b.enable_spi(1, 1);
    b.spi(1).set(true);
    assert!(b.irq(1));
    assert_eq!(b.iar(1), 33);
    b.gic.reset();
    assert!(!b.irq(1));
    assert_eq!(b.dr(gicd::CTLR), 0x50);
    assert_eq!(b.icc(1, icc::PMR), 0);
    assert_eq!(b.icc(1, icc::RPR), 0xff);
    assert_eq!(b.dr(0x104), 0);
    assert_eq!(b.dr(0x204), 2, "the device still holds its line");
    b.gic.reset_cpu_interface(1);
    assert_eq!(b.icc(1, icc::IGRPEN1), 0);
}

#[test]
fn a_vcpu_that_is_plugged_starts_afresh_with_the_lines_of_its_place() {
    let b = bench(2);
    b.enable_spi(3, 1);
    b.r(1, 0x1_0100, 1 << 27);
    let (spi, ppi) = (b.spi(3), b.ppi(1, 11));
    ppi.set(true);
    assert!(b.irq(1));
    let other = Arc::new(VcpuShared::new(1));
    b.gic.connect(1, Arc::clone(&other));
    assert!(!b.irq(1), "the one that left hears no more");
    spi.set(true);
    assert!(!other.irq() && !b.irq(1), "its interface is off");
    assert_eq!(b.rr(1, 0x1_0100), 0, "nothing is enabled in its redistributor");
    b.w(1, icc::PMR, 0xff);
    b.w(1, icc::IGRPEN1, 1);
    assert!(other.irq() && !b.irq(1));
    assert_eq!(b.iar(1), 35, "the SPI is still routed to its place");
    b.eoi(1, 35);
    spi.set(false);
    assert!(!other.irq());
    b.r(1, 0x1_0080, !0);
    b.r(1, 0x1_0100, 1 << 27);
    assert!(other.irq(), "the level of the PPI was kept");
    b.gic.connect(7, Arc::new(VcpuShared::new(7)));
}

#[test]
fn odd_accesses() {
    let b = bench(1);
    b.enable_spi(1, 0);
    assert_eq!(b.dist.read(0x100, AccessSize::Double), 2 << 32, "two words");
    assert_eq!(b.dist.read(0x104, AccessSize::Byte), 2);
    assert_eq!(b.dist.read(0x105, AccessSize::Word), 0, "misaligned");
    b.dist.write(0x184, AccessSize::Byte, 2);
    assert_eq!(b.dr(0x104), 2, "bit registers are written by words only");
    assert_eq!(b.dist.read(!7, AccessSize::Double), 0);
    assert_eq!(b.redist.read(!7, AccessSize::Double), 0);
    b.dist.write(!7, AccessSize::Double, !0);
    b.redist.write(!7, AccessSize::Double, !0);
    assert_eq!(b.icc(99, icc::IAR1), 1023);
    b.w(99, icc::SGI1R, !0);
}

/// What a CPU should be told, straight from the definition: every interrupt looked at.
fn expected(b: &Bench, cpu: usize) -> Option<(u64, u32)> {
    let word = |base: u64, intid: u64| {
        let value = if intid < 32 { b.rr(cpu, SGI + base) } else { b.dr(base + intid / 32 * 4) };
        value & (1 << (intid % 32)) != 0
    };
    let ctlr = b.dr(gicd::CTLR);
    (0..288)
        .filter(|&intid| {
            let group1 = word(0x80, intid);
            let on = b.icc(cpu, if group1 { icc::IGRPEN1 } else { icc::IGRPEN0 }) == 1
                && ctlr & (1 << u32::from(group1)) != 0;
            let here = intid < 32 || {
                let route = b.dist.read(gicd::IROUTER + 8 * intid, AccessSize::Double);
                route == mpidr(cpu) & 0xff_ffff
            };
            on && here && word(0x200, intid) && word(0x100, intid) && !word(0x300, intid)
        })
        .map(|intid| {
            let byte = |d: &Arc<dyn MmioDevice>, o| d.read(o + intid, AccessSize::Byte) as u32;
            let priority = if intid < 32 {
                byte(&b.redist, cpu as u64 * REDISTRIBUTOR_SIZE + SGI + common::IPRIORITYR)
            } else {
                byte(&b.dist, common::IPRIORITYR)
            };
            (intid, priority)
        })
        .min_by_key(|&(intid, priority)| (priority, intid))
}

#[test]
fn random_operations_agree_with_the_definition() {
    let mut random = Random::seeded("gic");
    let b = bench(3);
    let registers = [
        icc::PMR,
        icc::IAR0,
        icc::EOIR0,
        icc::HPPIR0,
        icc::BPR0,
        icc::AP0R0,
        icc::AP1R0,
        icc::DIR,
        icc::RPR,
        icc::SGI1R,
        icc::ASGI1R,
        icc::SGI0R,
        icc::IAR1,
        icc::EOIR1,
        icc::BPR1,
        icc::CTLR,
        icc::IGRPEN0,
        icc::IGRPEN1,
    ];
    for step in 0..20_000 {
        let cpu = random.below(3) as usize;
        let size = AccessSize::from_log2(random.below(4) as u32);
        match random.below(8) {
            0 => b.spi(random.below(256) as u32).set(random.below(2) == 0),
            1 => b.ppi(cpu, random.below(16) as u32).set(random.below(2) == 0),
            2 => b.dist.write(random.below(0xe00), size, random.next()),
            // No 1-of-N here: its choice is not in the registers.
            3 => b.dist.write(gicd::IROUTER + 8 * random.below(300), AccessSize::Double, random.below(4)),
            4 => b.redist.write(random.below(3 * REDISTRIBUTOR_SIZE), size, random.next()),
            5 => {
                let offset = cpu as u64 * REDISTRIBUTOR_SIZE + SGI + random.below(0xe00);
                b.redist.write(offset, size, random.next());
            }
            6 => {
                let register = registers[random.below(registers.len() as u64) as usize];
                let value = if random.below(2) == 0 { random.next() } else { random.below(300) };
                b.w(cpu, register, value);
            }
            _ => {
                b.icc(cpu, registers[random.below(registers.len() as u64) as usize]);
                b.dist.read(random.next() >> random.below(60), size);
                b.redist.read(random.next() >> random.below(60), size);
            }
        }
        if step % 16 == 0 {
            b.d(gicd::CTLR, 3);
            b.w(cpu, icc::IGRPEN1, 1);
        }
        for cpu in 0..3 {
            let best = expected(&b, cpu);
            let hppi = b.icc(cpu, icc::HPPIR0).min(b.icc(cpu, icc::HPPIR1));
            assert_eq!(hppi, best.map_or(1023, |(intid, _)| intid), "step {step}, CPU {cpu}");
            if let Some((_, priority)) = best
                && u64::from(priority) < b.icc(cpu, icc::PMR)
                && b.icc(cpu, icc::RPR) == 0xff
            {
                assert!(b.irq(cpu) ^ b.cpus[cpu].fiq(), "step {step}, CPU {cpu}: signalled");
            }
            if best.is_none() {
                assert!(!b.irq(cpu) && !b.cpus[cpu].fiq(), "step {step}, CPU {cpu}: quiet");
            }
        }
    }
}

/// Takes every interrupt that is signalled, as a vCPU thread does.
fn serve(b: &Bench, cpu: usize, mut taken: impl FnMut(u64)) {
    while b.irq(cpu) {
        let intid = b.iar(cpu);
        if intid != 1023 {
            taken(intid);
            b.eoi(cpu, intid);
        }
    }
}

#[test]
fn threads_lose_no_interrupt() {
    const ROUNDS: usize = 20_000;
    let b = bench(2);
    let got = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let done = AtomicBool::new(false);
    b.enable_spi(1, 0);
    std::thread::scope(|scope| {
        // Two CPUs play ping-pong with SGIs while a device raises an interrupt that CPU 0 lowers.
        for cpu in 0..2 {
            let (b, got, done) = (&b, &got, &done);
            let line = b.spi(1);
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    serve(b, cpu, |intid| match intid {
                        1 => {
                            let n = got[cpu].fetch_add(1, Ordering::AcqRel) + 1;
                            if cpu == 0 && n == ROUNDS {
                                done.store(true, Ordering::Release);
                            } else {
                                b.w(cpu, icc::SGI1R, 1 << 24 | 1 << (1 - cpu));
                            }
                        }
                        33 => line.set(false),
                        other => panic!("interrupt {other}"),
                    });
                    std::thread::yield_now();
                }
            });
        }
        let (b, done) = (&b, &done);
        scope.spawn(move || {
            let line = b.spi(1);
            while !done.load(Ordering::Acquire) {
                line.set(true);
                std::thread::yield_now();
            }
        });
        b.w(1, icc::SGI1R, 1 << 24 | 1);
    });
    assert_eq!(got[0].load(Ordering::SeqCst), ROUNDS);
    assert_eq!(got[1].load(Ordering::SeqCst), ROUNDS - 1);
}
