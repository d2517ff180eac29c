//! Accesses of loops that move on steadily remember their page.
//!
//! In a block that branches back to its beginning, an access whose address only ever grows or shrinks by what does not
//! come from memory mostly stays in the page where it was last. It has a *site* of its own in the TLB set: the page, and
//! where that is in the host. Looking there takes no hash and covers the end of the access as well; what is not there
//! comes from the TLB as elsewhere, and stays. Whatever takes lines from the TLB empties the sites.

use super::mem::{Probe, Probed, Slow};
use super::*;
use crate::mmu::{SITE_CLASSES, SITES, TlbSet};

/// Registers and temporaries, one bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Registers([u64; 4]);

impl Registers {
    fn has(&self, r: Reg) -> bool {
        self.0[usize::from(r.0 >> 6)] & 1 << (r.0 & 63) != 0
    }

    fn set(&mut self, r: Reg, on: bool) {
        let bit = 1 << (r.0 & 63);
        let word = &mut self.0[usize::from(r.0 >> 6)];
        *word = if on { *word | bit } else { *word & !bit };
    }

    fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

/// The sites of one block.
#[derive(Default)]
pub(super) struct Sites {
    /// Which instructions of the loop access what moves on steadily; none if the block is no loop.
    steady: Vec<bool>,
    /// The number of the next site of each class.
    next: [u8; SITE_CLASSES],
}

impl Sites {
    /// Ready for a block.
    pub fn prepare(&mut self, block: &Block) {
        self.steady.clear();
        let Some(body) = block.loop_body() else { return };
        // Blocks of one program share few sites.
        self.next = [(block.first_offset() >> 4) as u8 % SITES as u8; SITE_CLASSES];
        let mut before = Registers([u64::MAX; 4]);
        loop {
            self.steady.clear();
            let after = follow(body, before, &mut self.steady);
            // What the last round made of a register is what the next one begins with.
            let both = before.and(after);
            if both == before {
                return;
            }
            before = both;
        }
    }

    /// The site of instruction `i`'s access in its turn, if it is to have one.
    fn take(&mut self, i: usize, bytes: u8, write: bool) -> Option<usize> {
        if !*self.steady.get(i)? || !bytes.is_power_of_two() {
            return None;
        }
        let class = 2 * bytes.trailing_zeros() as usize + usize::from(write);
        let next = self.next.get_mut(class)?;
        let site = class * SITES + usize::from(*next);
        *next = (*next + 1) % SITES as u8;
        Some(site)
    }
}

/// Adds to a register what another one has: nobody knows how far that is, over many rounds.
fn strides(inst: &Inst) -> bool {
    match *inst {
        Inst::Alu { d, a, b: Opnd::Reg(b), .. } => a == Opnd::Reg(d) || b == d,
        Inst::AluFlags { d, a, b: Opnd::Reg(b), .. } => a == Opnd::Reg(d) || b == d,
        _ => false,
    }
}

/// Goes round the loop, in which at first the registers in `steady` change from round to round only by constants, or are
/// sums, differences, shifts and moves of such registers. Notes which accesses are by such; which registers are it at last.
fn follow(body: &[Inst], mut steady: Registers, accesses: &mut Vec<bool>) -> Registers {
    // Those that have been made in this round, and not from what they were.
    let mut fresh = Registers([0; 4]);
    for inst in body {
        accesses.push(inst.any_access().is_some_and(|a| {
            let is = |r: Reg| steady.has(r);
            matches!(a.addr.base, Opnd::Reg(base) if is(base)) && a.addr.index.is_none_or(is)
        }));
        let facts = inst.facts();
        let smooth = matches!(
            inst,
            Inst::Mov { .. }
                | Inst::Alu { op: AluOp::Add | AluOp::Sub | AluOp::Shl, .. }
                | Inst::AluFlags { op: FlagOp::Add | FlagOp::Sub, .. }
                | Inst::Unary { op: UnaryOp::SextW | UnaryOp::ZextW, .. }
        );
        let used = || facts.uses.iter().filter(|r| **r != Reg::NONE);
        for d in facts.definitions.into_iter().filter(|d| *d != Reg::NONE) {
            let again = used().any(|r| *r == d) && !fresh.has(d);
            steady.set(d, smooth && !(again && strides(inst)) && used().all(|r| steady.has(*r)));
            fresh.set(d, !again);
        }
    }
    steady
}

/// What the code behind the block that looks for another page has to know.
pub(super) struct Elsewhere {
    from: Fixup,
    /// The access's number in the side table.
    index: u32,
    site: usize,
    address: M,
    probe: Probe,
    registers: (Gpr, Gpr),
    back: u64,
}

fn limit(site: usize) -> M {
    M::at(R15, (std::mem::offset_of!(TlbSet, site_limits) + 8 * site) as i32)
}

fn page(site: usize) -> M {
    M::at(R15, (std::mem::offset_of!(TlbSet, site_pages) + 8 * site) as i32)
}

fn host(site: usize) -> M {
    M::at(R15, (std::mem::offset_of!(TlbSet, site_hosts) + 8 * site) as i32)
}

impl Generator {
    /// Looks in the access's site, if it is to have one.
    pub(super) fn site_for(&mut self, p: Probe) -> Option<usize> {
        if self.accesses == 1 { self.sites.take(self.index, p.bytes, p.write) } else { None }
    }

    /// The access at `address` by its site; s is the host's address then.
    pub(super) fn probe_site(&mut self, site: usize, address: M, p: Probe, (s, t): (Gpr, Gpr)) -> Probed {
        match address {
            M { base, index: None, disp: 0 } => self.asm.mov(s, base),
            _ => self.asm.lea(true, s, address),
        }
        self.asm.op(Op2::Sub, true, s, page(site));
        self.asm.op(Op2::Cmp, true, s, limit(site));
        let miss = self.asm.jcc(Cc::AE);
        self.carried_at_miss = self.carried_now();
        let back = self.asm.here();
        self.asm.op(Op2::Add, true, s, host(site));
        let index = self.side_table.len() as u32;
        let elsewhere = Elsewhere { from: miss, index, site, address, probe: p, registers: (s, t), back };
        self.later(Cold::Elsewhere(Box::new(elsewhere)));
        Probed { host: M::at(s, 0), slow: Some(Slow { address, miss: None }), free: t }
    }

    /// The access is not in its site's page: the TLB tells where else.
    pub(super) fn look_elsewhere(&mut self, e: &Elsewhere) {
        let (s, t) = e.registers;
        self.asm.bind(e.from);
        let unknown = self.compare_tag(e.address, i32::from(e.probe.bytes) - 1, e.probe, (s, t));
        // s is the distance, t the page.
        self.asm.op(Op2::Add, true, s, t);
        self.asm.store(true, host(e.site), s);
        self.asm.store(true, page(e.site), t);
        self.asm.store_imm(true, limit(e.site), 4097 - i32::from(e.probe.bytes));
        self.asm.store_imm(true, M::at(R15, std::mem::offset_of!(TlbSet, sites_used) as i32), 1);
        self.asm.lea(true, s, e.address);
        self.asm.op(Op2::Sub, true, s, t);
        self.asm.jmp_to(e.back);
        self.asm.bind(unknown);
        self.call_access(e.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(insts: &[Inst]) -> Block {
        let mut b = Block::default();
        b.insts.extend_from_slice(insts);
        b.insts.push(Inst::Branch { target: 0 });
        b
    }

    fn add(d: u8, a: u8, b: Opnd) -> Inst {
        Inst::Alu { op: AluOp::Add, w: Width::X, d: Reg(d), a: Reg(a).into(), b }
    }

    fn load(d: u8, base: u8) -> Inst {
        let (mem, addr) = (Mem::plain(3), Addr::offset(Reg(base), 0));
        Inst::Load { mem, ext: Extend::Zero, d: Reg(d), addr }
    }

    #[test]
    fn a_register_counts_for_what_it_is_just_there() {
        let list = block(&[
            // X1 and X5 are made anew in each round, X6 is not.
            add(1, 2, Reg(3).into()),
            add(1, 1, Reg(4).into()),
            load(1, 1),
            load(7, 1),
            Inst::Mov { w: Width::X, d: Reg(5), s: Reg(2).into() },
            load(7, 5),
            load(7, 6),
            add(6, 6, Reg(4).into()),
            add(2, 2, Opnd::Imm(8)),
        ]);
        let mut sites = Sites::default();
        sites.prepare(&list);
        let steady: Vec<usize> = (0..9).filter(|i| sites.take(*i, 8, false).is_some()).collect();
        assert_eq!(steady, [2, 5]);
    }

    #[test]
    fn only_steady_accesses_of_loops_have_sites_and_each_its_own() {
        let list = block(&[
            load(0, 0),
            load(1, 2),
            add(2, 2, Opnd::Imm(8)),
            add(3, 2, Reg(4).into()),
            add(5, 5, Reg(4).into()),
            load(9, 3),
            load(9, 1),
            load(9, 5),
        ]);
        let mut sites = Sites::default();
        sites.prepare(&list);
        assert_eq!(sites.take(0, 8, false), None, "its address comes from memory");
        assert_eq!(sites.take(6, 8, false), None, "so does this");
        assert_eq!(sites.take(7, 8, false), None, "nobody knows how far it goes");
        assert_eq!(sites.take(1, 24, false), None, "no power of two");
        let [a, b, c] = [(1, false), (5, false), (5, true)].map(|(i, w)| sites.take(i, 8, w));
        assert!(a.is_some() && b.is_some() && c.is_some() && a != b && b != c && a != c);
        let mut straight = list;
        straight.insts.pop();
        sites.prepare(&straight);
        assert_eq!(sites.take(1, 8, false), None, "no loop");
    }
}
