//! The CPU interface: masks, priorities, and the ICC_* system registers.

use super::spec::{
    FIRST_LPI, INTID_SPECIAL, INTID_SPURIOUS, PRIORITY_BITS, PRIORITY_IDLE, PRIORITY_MASK, PRIVATE_INTIDS,
    icc,
};
use super::state::{Group, Pending, State};

/// Registers of one CPU interface.
pub(super) struct CpuInterface {
    pub(super) pmr: u8,
    pub(super) bpr0: u8,
    pub(super) bpr1: u8,
    /// CBPR and EOImode.
    pub(super) ctlr: u64,
    pub(super) group0_on: bool,
    pub(super) group1_on: bool,
    /// Active priorities of group 0: bit n is group priority n.
    pub(super) active0: u32,
    pub(super) active1: u32,
}

impl Default for CpuInterface {
    fn default() -> Self {
        Self {
            pmr: 0,
            bpr0: icc::BPR0_MIN,
            bpr1: icc::BPR1_MIN,
            ctlr: 0,
            group0_on: false,
            group1_on: false,
            active0: 0,
            active1: 0,
        }
    }
}

impl CpuInterface {
    fn common_bpr(&self) -> bool {
        self.ctlr & icc::CTLR_CBPR != 0
    }

    /// The part of `priority` that counts for preemption.
    fn group_priority(&self, priority: u8, group: Group) -> u8 {
        // BPR0 = n leaves bits [7:n+1], BPR1 = n leaves [7:n].
        let shift = match group {
            Group::Group1 if !self.common_bpr() => u32::from(self.bpr1),
            _ => u32::from(self.bpr0) + 1,
        };
        0xff_u8.checked_shl(shift).unwrap_or(0) & priority
    }

    /// Group priority of the highest active interrupt.
    fn running_priority(&self) -> u8 {
        match (self.active0 | self.active1).trailing_zeros() {
            32 => PRIORITY_IDLE,
            level => (level as u8) << (8 - PRIORITY_BITS),
        }
    }

    /// Does the priority mask, and what is running, let `p` through?
    pub(super) fn admits(&self, p: Pending) -> bool {
        p.priority < self.pmr && self.group_priority(p.priority, p.group) < self.running_priority()
    }

    fn activate(&mut self, p: Pending) {
        let bit = 1 << (self.group_priority(p.priority, p.group) >> (8 - PRIORITY_BITS));
        match p.group {
            Group::Group0 => self.active0 |= bit,
            Group::Group1 => self.active1 |= bit,
        }
    }

    /// Priority drop: the highest active priority goes, if it belongs to `group`.
    fn drop_priority(&mut self, group: Group) {
        let (own, other) = match group {
            Group::Group0 => (&mut self.active0, self.active1),
            Group::Group1 => (&mut self.active1, self.active0),
        };
        if own.trailing_zeros() <= other.trailing_zeros() && *own != 0 {
            *own &= *own - 1;
        }
    }

    fn bpr1(&self) -> u8 {
        if self.common_bpr() { (self.bpr0 + 1).min(7) } else { self.bpr1 }
    }

    fn read(&self, register: u16) -> u64 {
        match register {
            icc::PMR => u64::from(self.pmr),
            icc::BPR0 => u64::from(self.bpr0),
            icc::BPR1 => u64::from(self.bpr1()),
            icc::AP0R0 => u64::from(self.active0),
            icc::AP1R0 => u64::from(self.active1),
            icc::RPR => u64::from(self.running_priority()),
            icc::CTLR => icc::CTLR_FIXED | self.ctlr,
            icc::SRE => icc::SRE_VALUE,
            icc::IGRPEN0 => u64::from(self.group0_on),
            icc::IGRPEN1 => u64::from(self.group1_on),
            _ => 0,
        }
    }

    /// Writes a register that changes only what the interface lets through.
    fn write(&mut self, register: u16, value: u64) {
        let point = (value & 7) as u8;
        match register {
            icc::PMR => self.pmr = value as u8 & PRIORITY_MASK,
            icc::BPR0 => self.bpr0 = point.max(icc::BPR0_MIN),
            icc::BPR1 if !self.common_bpr() => self.bpr1 = point.max(icc::BPR1_MIN),
            icc::AP0R0 => self.active0 = value as u32,
            icc::AP1R0 => self.active1 = value as u32,
            icc::CTLR => self.ctlr = value & icc::CTLR_WRITABLE,
            _ => {}
        }
    }
}

/// One of those that CPUs share, but for LPIs.
fn is_spi(intid: u32) -> bool {
    (PRIVATE_INTIDS..FIRST_LPI).contains(&intid)
}

impl State {
    /// Reads ICC register `register` (an encoding) for `cpu`. Unknown registers read as 0.
    pub(super) fn read_icc(&mut self, cpu: usize, register: u16) -> u64 {
        match register {
            icc::IAR0 => u64::from(self.take(cpu, Group::Group0)),
            icc::IAR1 => u64::from(self.take(cpu, Group::Group1)),
            icc::HPPIR0 => u64::from(self.peek(cpu, Group::Group0)),
            icc::HPPIR1 => u64::from(self.peek(cpu, Group::Group1)),
            icc::ISR => self.cpus.get(cpu).map_or(0, |c| {
                (icc::ISR_I * u64::from(c.shared.irq())) | (icc::ISR_F * u64::from(c.shared.fiq()))
            }),
            _ => self.cpus.get(cpu).map_or(0, |c| c.interface.read(register)),
        }
    }

    /// Writes ICC register `register` for `cpu`. Unknown registers are ignored.
    pub(super) fn write_icc(&mut self, cpu: usize, register: u16, value: u64) {
        let Some(c) = self.cpus.get_mut(cpu) else { return };
        match register {
            icc::EOIR0 => self.end(cpu, Group::Group0, value),
            icc::EOIR1 => self.end(cpu, Group::Group1, value),
            icc::DIR => self.deactivate_by_dir(cpu, value),
            icc::SGI1R => self.generate_sgi(cpu, value, true),
            icc::SGI0R | icc::ASGI1R => self.generate_sgi(cpu, value, false),
            icc::IGRPEN0 => {
                c.interface.group0_on = value & 1 != 0;
                self.groups_changed(cpu);
            }
            icc::IGRPEN1 => {
                c.interface.group1_on = value & 1 != 0;
                self.groups_changed(cpu);
            }
            _ => {
                c.interface.write(register, value);
                self.drive(cpu);
            }
        }
    }

    fn groups_changed(&mut self, cpu: usize) {
        self.participants_changed();
        self.update(cpu);
    }

    /// IAR: acknowledges the interrupt being signalled, if it is of `group`.
    fn take(&mut self, cpu: usize, group: Group) -> u32 {
        let Some(c) = self.cpus.get_mut(cpu) else { return INTID_SPURIOUS };
        let Some(p) = c.signalled().filter(|p| p.group == group) else { return INTID_SPURIOUS };
        c.interface.activate(p);
        self.acknowledge(cpu, p.intid);
        if is_spi(p.intid) {
            self.update(cpu)
        } else {
            self.update_own(cpu)
        }
        p.intid
    }

    /// HPPIR: what is pending, whatever the priority mask says.
    fn peek(&self, cpu: usize, group: Group) -> u32 {
        let best = self.cpus.get(cpu).and_then(|c| c.best);
        best.filter(|p| p.group == group).map_or(INTID_SPURIOUS, |p| p.intid)
    }

    fn end(&mut self, cpu: usize, group: Group, value: u64) {
        let intid = (value & 0xff_ffff) as u32;
        if (INTID_SPECIAL..=INTID_SPURIOUS).contains(&intid) {
            return;
        }
        let Some(c) = self.cpus.get_mut(cpu) else { return };
        c.interface.drop_priority(group);
        let deactivates = c.interface.ctlr & icc::CTLR_EOIMODE == 0;
        self.drive(cpu);
        if deactivates {
            self.deactivate(cpu, intid);
        }
    }

    /// DIR; with EOImode 0 its use is unpredictable, here ignored.
    fn deactivate_by_dir(&mut self, cpu: usize, value: u64) {
        let split = self.cpus.get(cpu).is_some_and(|c| c.interface.ctlr & icc::CTLR_EOIMODE != 0);
        if split {
            self.deactivate(cpu, (value & 0xff_ffff) as u32);
        }
    }

    /// SGIxR. With one security state SGI1R reaches SGIs of either group, the others those of group 0.
    fn generate_sgi(&mut self, from: usize, value: u64, group1_too: bool) {
        let sgi = ((value >> 24) & 0xf) as u32;
        let cluster =
            (((value >> 48) & 0xff) << 16 | ((value >> 32) & 0xff) << 8 | ((value >> 16) & 0xff)) as u32;
        let first = ((value >> 44) & 0xf) as u32 * 16;
        for cpu in 0..self.cpus.len() {
            let c = &self.cpus[cpu];
            let hit = if value & icc::SGIR_IRM != 0 {
                cpu != from
            } else {
                let aff0 = c.affinity & 0xff;
                c.affinity >> 8 == cluster && aff0 & 0xf0 == first && value & (1 << (aff0 & 0xf)) != 0
            };
            if hit && (group1_too || c.private.group1 & (1 << sgi) == 0) {
                self.set_sgi(cpu, sgi);
                self.update_own(cpu);
            }
        }
    }
}
