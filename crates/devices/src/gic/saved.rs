//! Saving and restoring.

use armlet_saved::{SavedGic, SavedGicCpu, SavedInterrupts, Unfit};

use super::cpu_interface::CpuInterface;
use super::spec::{PRIORITY_BITS, PRIORITY_MASK, PRIVATE_INTIDS, SGIS, gicd, gicr, icc};
use super::state::{Block, Cpu, State};
use super::{GicV3, lock};
use std::sync::atomic::Ordering;

/// The GICv3 of [`SavedGic::version`].
const VERSION: u32 = 3;

impl GicV3 {
    /// All registers, and the levels of the inputs; but for its ITS, which has them itself. Which LPIs are pending is in the
    /// guest's memory then, in their tables.
    pub fn save(&self) -> SavedGic {
        let state = lock(&self.state);
        state.store_all_lpis();
        let propbaser = state.lpis.as_ref().map_or(0, |lpis| lpis.propbaser);
        let cpu = |cpu: &Cpu| SavedGicCpu { propbaser, ..cpu.save() };
        SavedGic {
            version: VERSION,
            ctlr: state.ctlr,
            shared: state.blocks.iter().map(Block::save).collect(),
            routes: state.routes.clone(),
            cpus: state.cpus.iter().map(cpu).collect(),
            priority_bits: PRIORITY_BITS,
            next_cpu: state.next_cpu as u32,
            its: None,
        }
    }

    /// Checks that `saved` is of an interrupt controller like this one, with values that its registers can have.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, saved: &SavedGic) -> Result<(), Unfit> {
        lock(&self.state).check(saved)
    }

    /// Takes over all registers, and drives the vCPUs' lines by them. LPIs' tables are in the guest's memory already. The inputs have the levels that were saved; whoever
    /// drives them says so if they are others now.
    ///
    /// # Errors
    /// As [`Self::check`]; nothing has changed then.
    pub fn restore(&self, saved: &SavedGic) -> Result<(), Unfit> {
        self.with(|state| {
            state.check(saved)?;
            state.restore(saved);
            let shared = state.blocks.iter().flat_map(|block| levels(block, 0..32));
            let private = state.cpus.iter().flat_map(|cpu| levels(&cpu.private, SGIS..PRIVATE_INTIDS));
            for (known, level) in self.levels.iter().zip(shared.chain(private)) {
                known.store(level, Ordering::Release);
            }
            Ok(())
        })
    }
}

fn levels(block: &Block, range: std::ops::Range<u32>) -> impl Iterator<Item = bool> {
    let line = block.line;
    range.map(move |bit| line & (1 << bit) != 0)
}

impl State {
    fn check(&self, saved: &SavedGic) -> Result<(), Unfit> {
        let of = |what: &str| format!("the interrupt controller: {what}");
        let differ = |what: &str, then: usize, now: usize| of(&format!("it had {then} {what} and has {now}"));
        let version = || of(&format!("it was a GICv{} and is a GICv{VERSION}", saved.version));
        Unfit::unless(saved.version == VERSION, version)?;
        let bits = saved.priority_bits;
        Unfit::unless(bits == PRIORITY_BITS, || {
            differ("priority bits", bits as usize, PRIORITY_BITS as usize)
        })?;
        let (then, now) = (saved.shared.len() * 32, self.blocks.len() * 32);
        Unfit::unless(then == now && saved.routes.len() == now, || differ("SPIs", then, now))?;
        let (then, now) = (saved.cpus.len(), self.cpus.len());
        Unfit::unless(then == now, || differ("places for CPUs", then, now))?;
        let affinities =
            saved.cpus.iter().zip(&self.cpus).position(|(then, now)| then.affinity != now.affinity);
        Unfit::unless(affinities.is_none(), || of("CPUs had other affinities"))?;
        let routes = saved.routes.iter().all(|route| route & !gicd::IROUTER_MASK == 0);
        Unfit::unless(routes && saved.ctlr & !gicd::CTLR_WRITABLE == 0, || of("GICD_CTLR or IROUTER"))?;
        saved.shared.iter().try_for_each(check_block)?;
        let propbaser = saved.cpus.first().map_or(0, |cpu| cpu.propbaser);
        let common = saved.cpus.iter().all(|cpu| cpu.propbaser == propbaser);
        Unfit::unless(common, || of("GICR_PROPBASER was not the same for all CPUs"))?;
        saved.cpus.iter().try_for_each(|cpu| check_cpu(cpu, self.lpis.is_some()))
    }

    fn restore(&mut self, saved: &SavedGic) {
        self.ctlr = saved.ctlr;
        self.blocks = saved.shared.iter().map(Block::restored).collect();
        self.routes.clone_from(&saved.routes);
        self.reset_lpis();
        if let Some((lpis, first)) = self.lpis.as_mut().zip(saved.cpus.first()) {
            lpis.propbaser = first.propbaser;
        }
        for (cpu, saved) in self.cpus.iter_mut().zip(&saved.cpus) {
            cpu.restore(saved);
        }
        (0..self.cpus.len()).for_each(|cpu| self.load_lpis(cpu));
        // Targets of 1-of-N interrupts are chosen from there on, whatever has been here before.
        let next_cpu = saved.next_cpu as usize % self.cpus.len();
        self.next_cpu = next_cpu;
        self.route_all();
        self.next_cpu = next_cpu;
        self.update_all();
    }
}

fn check_block(block: &SavedInterrupts) -> Result<(), Unfit> {
    let fits = block.priority.len() == 32 && block.priority.iter().all(|p| p & !PRIORITY_MASK == 0);
    Unfit::unless(fits, || "the interrupt controller: priorities that it cannot have".into())
}

fn check_cpu(cpu: &SavedGicCpu, lpis: bool) -> Result<(), Unfit> {
    let of = |what: &str| format!("the interrupt controller: {what} of a CPU cannot be as it was");
    check_block(&cpu.private)?;
    let sgis = (1 << SGIS) - 1;
    Unfit::unless(cpu.private.edge & sgis == sgis, || of("GICR_ICFGR0"))?;
    let dpg = gicr::CTLR_DPG0 | gicr::CTLR_DPG1;
    let (ctlr, propbaser, pendbaser) = match lpis {
        true => (dpg | gicr::CTLR_ENABLE_LPIS, gicr::PROPBASER_MASK, gicr::PENDBASER_MASK),
        false => (dpg, 0, 0),
    };
    Unfit::unless(cpu.redistributor_ctlr & !ctlr == 0, || of("GICR_CTLR"))?;
    Unfit::unless(cpu.propbaser & !propbaser == 0, || of("GICR_PROPBASER"))?;
    Unfit::unless(cpu.pendbaser & !pendbaser == 0, || of("GICR_PENDBASER"))?;
    Unfit::unless(cpu.pmr & !PRIORITY_MASK == 0, || of("ICC_PMR_EL1"))?;
    Unfit::unless((icc::BPR0_MIN..8).contains(&cpu.bpr0), || of("ICC_BPR0_EL1"))?;
    Unfit::unless((icc::BPR1_MIN..8).contains(&cpu.bpr1), || of("ICC_BPR1_EL1"))?;
    Unfit::unless(cpu.ctlr & !icc::CTLR_WRITABLE == 0, || of("ICC_CTLR_EL1"))?;
    let active = [&cpu.active0, &cpu.active1];
    let one = active.iter().all(|registers| registers.iter().skip(1).all(|register| *register == 0));
    Unfit::unless(one, || of("ICC_AP0R1_EL1 or ICC_AP1R1_EL1"))
}

impl Block {
    fn save(&self) -> SavedInterrupts {
        let Self { group1, enabled, latched, line, active, edge, priority } = self.clone();
        SavedInterrupts { group: group1, enabled, latched, line, active, edge, priority: priority.to_vec() }
    }

    fn restored(saved: &SavedInterrupts) -> Self {
        let SavedInterrupts { group, enabled, latched, line, active, edge, priority } = saved.clone();
        let mut all = [0; 32];
        all.iter_mut().zip(priority).for_each(|(to, from)| *to = from);
        Self { group1: group, enabled, latched, line, active, edge, priority: all }
    }
}

impl Cpu {
    fn save(&self) -> SavedGicCpu {
        let interface = &self.interface;
        SavedGicCpu {
            affinity: self.affinity,
            private: self.private.save(),
            redistributor_ctlr: self.ctlr,
            asleep: self.asleep,
            propbaser: 0,
            pendbaser: self.pendbaser,
            pmr: interface.pmr,
            bpr0: interface.bpr0,
            bpr1: interface.bpr1,
            ctlr: interface.ctlr,
            group0_on: interface.group0_on,
            group1_on: interface.group1_on,
            active0: vec![interface.active0],
            active1: vec![interface.active1],
        }
    }

    fn restore(&mut self, saved: &SavedGicCpu) {
        self.private = Block::restored(&saved.private);
        self.ctlr = saved.redistributor_ctlr;
        self.asleep = saved.asleep;
        self.pendbaser = saved.pendbaser;
        let first = |registers: &[u32]| registers.first().copied().unwrap_or(0);
        self.interface = CpuInterface {
            pmr: saved.pmr,
            bpr0: saved.bpr0,
            bpr1: saved.bpr1,
            ctlr: saved.ctlr,
            group0_on: saved.group0_on,
            group1_on: saved.group1_on,
            active0: first(&saved.active0),
            active1: first(&saved.active1),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use armlet_engine::VcpuShared;
    use armlet_memory::{AccessSize, MmioDevice};

    use super::super::GicConfig;
    use super::super::spec::{REDISTRIBUTOR_SIZE, SGI_BASE, common};
    use super::*;
    use crate::testing::Random;

    const CPUS: usize = 3;

    struct Bench {
        gic: Arc<GicV3>,
        dist: Arc<dyn MmioDevice>,
        redist: Arc<dyn MmioDevice>,
        cpus: Vec<Arc<VcpuShared>>,
    }

    fn bench(cpus: usize, spis: u32) -> Bench {
        let shared: Vec<_> = (0..cpus).map(|i| Arc::new(VcpuShared::new(i))).collect();
        let config = GicConfig { spis, affinities: (0..cpus as u64).collect() };
        let gic = GicV3::new(&config, shared.clone()).unwrap();
        Bench { dist: gic.distributor(), redist: gic.redistributors(0..cpus), gic, cpus: shared }
    }

    /// Offsets that exist in the distributor, and in the SGI frame.
    fn offset(random: &mut Random) -> u64 {
        let ranges = [(0x80, 0x400), (common::IPRIORITYR, 0x520), (common::ICFGR, 0xc50)];
        let (from, to) = ranges[random.below(3) as usize];
        from + random.below((to - from) / 4) * 4
    }

    const ICC: [u16; 15] = [
        icc::PMR,
        icc::IAR0,
        icc::IAR1,
        icc::EOIR0,
        icc::EOIR1,
        icc::HPPIR0,
        icc::HPPIR1,
        icc::BPR0,
        icc::BPR1,
        icc::DIR,
        icc::RPR,
        icc::SGI1R,
        icc::CTLR,
        icc::IGRPEN0,
        icc::IGRPEN1,
    ];

    /// One random thing done to each of `benches`; what they show of it must be the same.
    fn act(benches: &[&Bench], random: &mut Random) {
        let (what, cpu, at, value) =
            (random.below(12), random.below(CPUS as u64), offset(random), random.next());
        let icc = ICC[random.below(15) as usize];
        let (spi, level) = (random.below(256) as u32, random.below(2) == 0);
        let word = AccessSize::Word;
        let redist = cpu * REDISTRIBUTOR_SIZE + SGI_BASE;
        let route = gicd::IROUTER + 8 * (32 + u64::from(spi));
        let shown = |b: &Bench| {
            match what {
                0..=2 => b.dist.write(at, word, value),
                3 => b.redist.write(redist + at, word, value),
                4 => b.dist.write(gicd::CTLR, word, value | 3),
                5 => b.redist.write(cpu * REDISTRIBUTOR_SIZE + gicr::WAKER, word, value & 2),
                6 => b.dist.write(
                    route,
                    AccessSize::Double,
                    value & if level { gicd::IROUTER_IRM | 3 } else { 3 },
                ),
                7 => b.gic.spi(spi).unwrap().set(level),
                8 => b.gic.ppi(cpu as usize, spi % 16).unwrap().set(level),
                9 => b.gic.write_icc_encoding(cpu as usize, icc::PMR, 0xf8),
                _ => b.gic.write_icc_encoding(cpu as usize, icc, value >> random_shift(value)),
            }
            let read = b.gic.read_icc_encoding(cpu as usize, icc);
            let lines: Vec<_> = b.cpus.iter().map(|c| (c.irq(), c.fiq())).collect();
            (read, b.dist.read(at, word), b.redist.read(redist + at, word), lines)
        };
        let first = shown(benches[0]);
        for bench in &benches[1..] {
            assert_eq!(shown(bench), first, "{what} {at:#x} {value:#x} {icc:#x}");
        }
    }

    fn random_shift(value: u64) -> u64 {
        value % 61
    }

    #[test]
    fn a_restored_one_goes_on_as_the_saved_one_does() {
        let mut random = Random::seeded("gic saved");
        for _ in 0..40 {
            let one = bench(CPUS, 256);
            for _ in 0..600 {
                act(&[&one], &mut random);
            }
            let saved: SavedGic =
                serde_json::from_str(&serde_json::to_string(&one.gic.save()).unwrap()).unwrap();
            let other = bench(CPUS, 256);
            for _ in 0..random.below(200) {
                act(&[&other], &mut random);
            }
            other.gic.restore(&saved).unwrap();
            // What a 1-of-N interrupt goes to was chosen in another order.
            one.gic.restore(&saved).unwrap();
            assert_eq!(other.gic.save(), saved);
            for _ in 0..300 {
                act(&[&one, &other], &mut random);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_changes_nothing() {
        let b = bench(CPUS, 256);
        for (text, change) in [
            ("256 SPIs and has 128", Box::new(|_: &mut SavedGic| {}) as Box<dyn Fn(&mut SavedGic)>),
            ("GICv2", Box::new(|s| s.version = 2)),
            ("7 priority bits", Box::new(|s| s.priority_bits = 7)),
            ("2 places", Box::new(|s| s.cpus.truncate(2))),
            ("affinities", Box::new(|s| s.cpus[1].affinity = 9)),
            ("IROUTER", Box::new(|s| s.routes[3] = 1 << 40)),
            ("priorities", Box::new(|s| s.shared[1].priority[0] = 1)),
            ("priorities", Box::new(|s| s.shared[1].priority.clear())),
            ("ICFGR0", Box::new(|s| s.cpus[0].private.edge = 0)),
            ("GICR_CTLR", Box::new(|s| s.cpus[0].redistributor_ctlr = 1)),
            ("PMR", Box::new(|s| s.cpus[2].pmr = 1)),
            ("BPR0", Box::new(|s| s.cpus[2].bpr0 = 8)),
            ("BPR1", Box::new(|s| s.cpus[2].bpr1 = 0)),
            ("ICC_CTLR", Box::new(|s| s.cpus[2].ctlr = 4)),
            ("AP0R1", Box::new(|s| s.cpus[2].active0.push(1))),
        ] {
            let target = if text.contains("SPIs") { bench(CPUS, 128) } else { bench(CPUS, 256) };
            let before = target.gic.save();
            let mut saved = b.gic.save();
            change(&mut saved);
            let error = target.gic.restore(&saved).unwrap_err().to_string();
            assert!(error.contains(text), "{text}: {error}");
            assert_eq!(target.gic.save(), before);
        }
    }
}
