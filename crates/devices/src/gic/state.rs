//! The interrupts' state and the choice of the one to signal.

use std::sync::Arc;

use armlet_engine::VcpuShared;

use super::cpu_interface::CpuInterface;
use super::lpi::{Lpis, Queue};
use super::spec::{FIRST_LPI, PRIORITY_MASK, PRIVATE_INTIDS, SGIS, gicd, gicr};

/// Interrupt group; the single security state has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Signalled as FIQ.
    Group0,
    /// Signalled as IRQ.
    Group1,
}

/// An interrupt that could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) intid: u32,
    pub(super) priority: u8,
    pub(super) group: Group,
}

/// State of 32 consecutive interrupts, a bit each.
#[derive(Clone)]
pub(super) struct Block {
    /// Group 1 rather than group 0.
    pub(super) group1: u32,
    pub(super) enabled: u32,
    /// Pending by an edge, or by a write to ISPENDR.
    pub(super) latched: u32,
    /// Level of the input.
    pub(super) line: u32,
    pub(super) active: u32,
    /// Edge-triggered rather than level-sensitive.
    pub(super) edge: u32,
    pub(super) priority: [u8; 32],
}

/// Registers that have a bit per interrupt, in their order in the register map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BitRegister {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
}

impl BitRegister {
    /// The register at `offset` (below IPRIORITYR) and which block of 32 it is for.
    pub(super) fn at(offset: u64) -> Option<(Self, usize)> {
        let register = match offset >> 7 {
            1 => Self::Group,
            2 => Self::SetEnable,
            3 => Self::ClearEnable,
            4 => Self::SetPending,
            5 => Self::ClearPending,
            6 => Self::SetActive,
            7 => Self::ClearActive,
            _ => return None,
        };
        Some((register, ((offset & 0x7f) / 4) as usize))
    }
}

impl Block {
    fn new(edge: u32) -> Self {
        Self { group1: 0, enabled: 0, latched: 0, line: 0, active: 0, edge, priority: [0; 32] }
    }

    /// Back to reset, except for the inputs' levels, which belong to the devices.
    fn reset(&mut self, edge: u32) {
        *self = Self { line: self.line, ..Self::new(edge) };
    }

    pub(super) fn pending(&self) -> u32 {
        self.latched | (self.line & !self.edge)
    }

    /// Those that could be signalled: pending, enabled, not active, group on.
    fn candidates(&self, group0_on: bool, group1_on: bool) -> u32 {
        let groups = (if group1_on { self.group1 } else { 0 }) | (if group0_on { !self.group1 } else { 0 });
        self.pending() & self.enabled & !self.active & groups
    }

    pub(super) fn read(&self, register: BitRegister) -> u32 {
        match register {
            BitRegister::Group => self.group1,
            BitRegister::SetEnable | BitRegister::ClearEnable => self.enabled,
            BitRegister::SetPending | BitRegister::ClearPending => self.pending(),
            BitRegister::SetActive | BitRegister::ClearActive => self.active,
        }
    }

    /// Writes `bits`; returns the interrupts whose state may have changed.
    pub(super) fn write(&mut self, register: BitRegister, bits: u32) -> u32 {
        match register {
            BitRegister::Group => {
                let changed = self.group1 ^ bits;
                self.group1 = bits;
                return changed;
            }
            BitRegister::SetEnable => self.enabled |= bits,
            BitRegister::ClearEnable => self.enabled &= !bits,
            BitRegister::SetPending => self.latched |= bits,
            // An input that is still high keeps a level-sensitive interrupt pending.
            BitRegister::ClearPending => self.latched &= !bits,
            BitRegister::SetActive => self.active |= bits,
            BitRegister::ClearActive => self.active &= !bits,
        }
        bits
    }

    /// Four priorities from `first` on, as IPRIORITYR has them.
    pub(super) fn read_priorities(&self, first: usize) -> u32 {
        let byte = |i: usize| self.priority.get(first + i).copied().unwrap_or(0);
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    }

    pub(super) fn write_priority(&mut self, index: usize, value: u8) {
        if let Some(p) = self.priority.get_mut(index) {
            *p = value & PRIORITY_MASK;
        }
    }

    /// The half `high` of the configuration, two bits per interrupt: bit 1 is "edge", bit 0 reserved.
    pub(super) fn read_config(&self, high: bool) -> u32 {
        let half = if high { self.edge >> 16 } else { self.edge & 0xffff };
        (0..16).fold(0, |word, i| word | (((half >> i) & 1) << (2 * i + 1)))
    }

    pub(super) fn write_config(&mut self, high: bool, value: u32) {
        let half = (0..16).fold(0, |bits, i| bits | (((value >> (2 * i + 1)) & 1) << i));
        let shift = if high { 16 } else { 0 };
        self.edge = (self.edge & !(0xffff << shift)) | (half << shift);
    }

    /// Drives the input of interrupt `index`; true if that may change what is pending.
    fn set_line(&mut self, index: u32, level: bool) -> bool {
        let bit = 1 << index;
        if (self.line & bit != 0) == level {
            return false;
        }
        self.line ^= bit;
        if level {
            if self.edge & bit != 0 {
                self.latched |= bit;
            }
            return true;
        }
        self.edge & bit == 0
    }

    fn acknowledge(&mut self, index: u32) {
        self.latched &= !(1 << index);
        self.active |= 1 << index;
    }
}

/// One CPU's redistributor and CPU interface.
pub(super) struct Cpu {
    pub(super) shared: Arc<VcpuShared>,
    /// Affinity as Aff3:Aff2:Aff1:Aff0, a byte each.
    pub(super) affinity: u32,
    pub(super) private: Block,
    /// SPIs routed here, a word per block.
    pub(super) spis: Vec<u32>,
    pub(super) ctlr: u32,
    pub(super) asleep: bool,
    pub(super) pendbaser: u64,
    /// LPIs that are pending here.
    pub(super) lpis: Queue,
    pub(super) interface: CpuInterface,
    /// The best candidate, whatever the interface's masks say.
    pub(super) best: Option<Pending>,
    /// The best among the SPIs.
    best_spi: Option<Pending>,
}

/// Edge configuration of the private interrupts: SGIs are edge-triggered, PPIs level-sensitive at reset.
const PRIVATE_EDGE: u32 = (1 << SGIS) - 1;

impl Cpu {
    fn new(shared: Arc<VcpuShared>, affinity: u32, blocks: usize) -> Self {
        Self {
            shared,
            affinity,
            private: Block::new(PRIVATE_EDGE),
            spis: vec![0; blocks],
            ctlr: 0,
            asleep: true,
            pendbaser: 0,
            lpis: Queue::default(),
            interface: CpuInterface::default(),
            best: None,
            best_spi: None,
        }
    }

    /// As at power-on, but for LPIs that are pending.
    pub(super) fn reset(&mut self) {
        self.private.reset(PRIVATE_EDGE);
        self.ctlr = 0;
        self.asleep = true;
        self.pendbaser = 0;
        self.interface = CpuInterface::default();
    }

    /// May a 1-of-N interrupt of the group be given to this CPU?
    fn participates(&self, group1: bool) -> bool {
        let opted_out = self.ctlr & if group1 { gicr::CTLR_DPG1 } else { gicr::CTLR_DPG0 } != 0;
        let on = if group1 { self.interface.group1_on } else { self.interface.group0_on };
        on && !self.asleep && !opted_out
    }
}

/// All state of the interrupt controller, under one lock.
pub(super) struct State {
    /// GICD_CTLR's group enables.
    pub(super) ctlr: u32,
    pub(super) blocks: Vec<Block>,
    /// GICD_IROUTER by SPI number.
    pub(super) routes: Vec<u64>,
    /// The CPU that each SPI goes to now.
    targets: Vec<Option<u16>>,
    pub(super) cpus: Vec<Cpu>,
    /// `None` if there are no LPIs.
    pub(super) lpis: Option<Lpis>,
    /// Where the search for a 1-of-N target starts.
    pub(super) next_cpu: usize,
    /// Who is to be woken.
    pub(super) sleeping: Option<Sleeping>,
}

/// vCPUs with an interrupt line that has risen while they slept.
pub(super) struct Sleeping {
    first: Arc<VcpuShared>,
    /// Mostly there is no other.
    others: Vec<Arc<VcpuShared>>,
}

impl Sleeping {
    fn add(to: &mut Option<Self>, cpu: Arc<VcpuShared>) {
        match to {
            None => *to = Some(Self { first: cpu, others: Vec::new() }),
            Some(sleeping) => sleeping.others.push(cpu),
        }
    }

    pub(super) fn wake(self) {
        self.first.notify();
        self.others.iter().for_each(|cpu| cpu.notify());
    }
}

impl State {
    pub(super) fn new(spis: u32, cpus: Vec<(Arc<VcpuShared>, u32)>, lpis: Option<Lpis>) -> Self {
        let blocks = spis.div_ceil(32) as usize;
        let cpus = cpus.into_iter().map(|(shared, affinity)| Cpu::new(shared, affinity, blocks)).collect();
        let mut state = Self {
            ctlr: 0,
            blocks: vec![Block::new(0); blocks],
            routes: vec![0; blocks * 32],
            targets: vec![None; blocks * 32],
            cpus,
            lpis,
            next_cpu: 0,
            sleeping: None,
        };
        state.reset();
        state
    }

    /// Machine reset; the inputs keep their levels.
    pub(super) fn reset(&mut self) {
        self.ctlr = 0;
        self.next_cpu = 0;
        self.blocks.iter_mut().for_each(|b| b.reset(0));
        self.routes.fill(0);
        self.reset_lpis();
        self.cpus.iter_mut().for_each(Cpu::reset);
        self.route_all();
        self.update_all();
    }

    /// Splits an INTID into its block and bit, for `cpu`'s private ones or the shared ones.
    fn block_mut(&mut self, cpu: usize, intid: u32) -> Option<(&mut Block, u32)> {
        if intid < PRIVATE_INTIDS {
            return Some((&mut self.cpus.get_mut(cpu)?.private, intid));
        }
        let spi = intid - PRIVATE_INTIDS;
        Some((self.blocks.get_mut((spi / 32) as usize)?, spi % 32))
    }

    /// Drives an input. `cpu` matters for private interrupts only.
    pub(super) fn set_line(&mut self, cpu: usize, intid: u32, level: bool) {
        let Some((block, bit)) = self.block_mut(cpu, intid) else { return };
        if !block.set_line(bit, level) {
            return;
        }
        if intid < PRIVATE_INTIDS {
            self.update_own(cpu);
        } else {
            self.spi_changed((intid - PRIVATE_INTIDS) as usize, level);
        }
    }

    /// Makes an SGI pending on `cpu`. The caller updates.
    pub(super) fn set_sgi(&mut self, cpu: usize, sgi: u32) {
        if let Some((block, bit)) = self.block_mut(cpu, sgi & (SGIS - 1)) {
            block.latched |= 1 << bit;
        }
    }

    /// One SPI changed; `fresh` if it may have become pending just now.
    fn spi_changed(&mut self, spi: usize, fresh: bool) {
        if fresh && self.routes.get(spi).is_some_and(|r| r & gicd::IROUTER_IRM != 0) {
            self.reroute(spi);
        }
        if let Some(Some(cpu)) = self.targets.get(spi) {
            self.update(usize::from(*cpu));
        }
    }

    /// Pending to active; an LPI is never active.
    pub(super) fn acknowledge(&mut self, cpu: usize, intid: u32) {
        if intid >= FIRST_LPI {
            self.forget_lpi(intid);
        } else if let Some((block, bit)) = self.block_mut(cpu, intid) {
            block.acknowledge(bit);
        }
    }

    /// Active to inactive, and whatever follows. An interrupt still pending is signalled again.
    pub(super) fn deactivate(&mut self, cpu: usize, intid: u32) {
        let Some((block, bit)) = self.block_mut(cpu, intid) else { return };
        block.active &= !(1 << bit);
        let still_pending = block.pending() & (1 << bit) != 0;
        if intid < PRIVATE_INTIDS {
            self.update_own(cpu);
        } else {
            self.spi_changed((intid - PRIVATE_INTIDS) as usize, still_pending);
        }
    }

    /// Finds the targets of all SPIs anew.
    pub(super) fn route_all(&mut self) {
        (0..self.routes.len()).for_each(|spi| self.route(spi));
    }

    /// Finds the target of an SPI by its IROUTER and records it.
    fn route(&mut self, spi: usize) {
        let route = self.routes[spi];
        let target = if route & gicd::IROUTER_IRM != 0 {
            self.pick_one_of_n(spi)
        } else {
            let affinity = (route & 0xff_ffff) as u32 | ((route >> 8) & 0xff00_0000) as u32;
            self.cpus.iter().position(|c| c.affinity == affinity)
        };
        let (block, bit) = (spi / 32, 1 << (spi % 32));
        for (i, cpu) in self.cpus.iter_mut().enumerate() {
            if Some(i) == target {
                cpu.spis[block] |= bit;
            } else {
                cpu.spis[block] &= !bit;
            }
        }
        self.targets[spi] = target.map(|i| i as u16);
    }

    /// Next participating CPU in turn.
    fn pick_one_of_n(&mut self, spi: usize) -> Option<usize> {
        let group1 = self.blocks[spi / 32].group1 & (1 << (spi % 32)) != 0;
        let n = self.cpus.len();
        let found = (0..n).map(|i| (self.next_cpu + i) % n).find(|&i| self.cpus[i].participates(group1))?;
        self.next_cpu = (found + 1) % n;
        Some(found)
    }

    /// Routes an SPI anew and updates the CPU that it leaves.
    pub(super) fn reroute(&mut self, spi: usize) {
        if spi >= self.routes.len() {
            return;
        }
        let before = self.targets[spi];
        self.route(spi);
        for cpu in [before, self.targets[spi]].into_iter().flatten() {
            self.update(usize::from(cpu));
        }
    }

    /// Which CPUs take 1-of-N interrupts has changed, or how an interrupt is grouped.
    pub(super) fn participants_changed(&mut self) {
        for spi in 0..self.routes.len() {
            if self.routes[spi] & gicd::IROUTER_IRM != 0 {
                self.reroute(spi);
            }
        }
    }

    /// The interrupts `bits` of an SPI block changed by a register write.
    pub(super) fn block_changed(&mut self, block: usize, bits: u32) {
        for bit in (0..32).filter(|b| bits & (1 << b) != 0) {
            let spi = block * 32 + bit;
            if self.routes.get(spi).is_some_and(|r| r & gicd::IROUTER_IRM != 0) {
                self.reroute(spi);
            }
        }
        for cpu in 0..self.cpus.len() {
            if self.cpus[cpu].spis.get(block).is_some_and(|targets| targets & bits != 0) {
                self.update(cpu);
            }
        }
    }

    /// Finds the best candidate of every CPU anew and drives all lines.
    pub(super) fn update_all(&mut self) {
        (0..self.cpus.len()).for_each(|cpu| self.update(cpu));
    }

    /// Finds `cpu`'s best candidate anew and drives its lines.
    pub(super) fn update(&mut self, cpu: usize) {
        let [group0_on, group1_on] = self.groups_on(cpu);
        let Some(c) = self.cpus.get_mut(cpu) else { return };
        let shared = self.blocks.iter().zip(&c.spis).enumerate().filter(|(_, (_, targets))| **targets != 0);
        c.best_spi = shared.fold(None, |best, (i, (block, targets))| {
            better(best, block, block.candidates(group0_on, group1_on) & targets, (i as u32 + 1) * 32)
        });
        self.update_own(cpu);
    }

    /// The same where no SPI has changed: only private ones, LPIs, or what is active.
    pub(super) fn update_own(&mut self, cpu: usize) {
        let [group0_on, group1_on] = self.groups_on(cpu);
        let Some(c) = self.cpus.get_mut(cpu) else { return };
        let own = better(None, &c.private, c.private.candidates(group0_on, group1_on), 0);
        let best = own.into_iter().chain(c.best_spi).min_by_key(|p| p.priority);
        let lpi = c.lpis.first().filter(|lpi| group1_on && best.is_none_or(|b| lpi.priority < b.priority));
        c.best = lpi.or(best);
        self.drive(cpu);
    }

    /// Drives `cpu`'s interrupt lines.
    pub(super) fn drive(&mut self, cpu: usize) {
        let Some(c) = self.cpus.get(cpu) else { return };
        let group = c.signalled().map(|p| p.group);
        if c.shared.set_lines(group == Some(Group::Group1), group == Some(Group::Group0)) {
            Sleeping::add(&mut self.sleeping, Arc::clone(&c.shared));
        }
    }

    /// Whether groups 0 and 1 are on, in the distributor and for `cpu`.
    fn groups_on(&self, cpu: usize) -> [bool; 2] {
        let Some(c) = self.cpus.get(cpu) else { return [false; 2] };
        [
            self.ctlr & gicd::CTLR_ENABLE_GRP0 != 0 && c.interface.group0_on,
            self.ctlr & gicd::CTLR_ENABLE_GRP1 != 0 && c.interface.group1_on,
        ]
    }
}

/// The better one of `best` and the candidates `bits` of a block that begins at INTID `base`: highest priority (lowest
/// number) first, then lowest INTID.
fn better(best: Option<Pending>, block: &Block, mut bits: u32, base: u32) -> Option<Pending> {
    let mut best = best;
    while bits != 0 {
        let bit = bits.trailing_zeros();
        bits &= bits - 1;
        let priority = block.priority[bit as usize];
        if best.is_none_or(|b| priority < b.priority) {
            let group = if block.group1 & (1 << bit) != 0 { Group::Group1 } else { Group::Group0 };
            best = Some(Pending { intid: base + bit, priority, group });
        }
    }
    best
}

impl Cpu {
    /// The best candidate, if the interface lets it through.
    pub(super) fn signalled(&self) -> Option<Pending> {
        self.best.filter(|p| self.interface.admits(*p))
    }
}
