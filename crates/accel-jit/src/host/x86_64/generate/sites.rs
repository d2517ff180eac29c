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

    fn remove(&mut self, r: Reg) {
        self.0[usize::from(r.0 >> 6)] &= !(1 << (r.0 & 63));
    }
}

/// The sites of one block.
pub(super) struct Sites {
    /// Registers that move on steadily; none if the block is no loop.
    steady: Registers,
    /// The number of the next site of each class.
    next: [u8; SITE_CLASSES],
    /// Where the loop ends.
    end: usize,
}

impl Default for Sites {
    fn default() -> Self {
        Self { steady: Registers([0; 4]), next: [0; SITE_CLASSES], end: 0 }
    }
}

impl Sites {
    /// Ready for a block.
    pub fn prepare(&mut self, block: &Block) {
        *self = Self::default();
        let Some(body) = block.loop_body() else { return };
        // Blocks of one program share few sites.
        self.next = [(block.first_offset() >> 4) as u8 % SITES as u8; SITE_CLASSES];
        (self.steady, self.end) = (steady(body), body.len());
    }

    /// The site of an access in its turn, if it is to have one.
    fn take(&mut self, addr: Addr, bytes: u8, write: bool) -> Option<usize> {
        let steady = |o: Opnd| matches!(o, Opnd::Reg(r) if self.steady.has(r));
        if !steady(addr.base) || !addr.index.is_none_or(|i| steady(i.into())) || !bytes.is_power_of_two() {
            return None;
        }
        let class = 2 * bytes.trailing_zeros() as usize + usize::from(write);
        let next = self.next.get_mut(class)?;
        let site = class * SITES + usize::from(*next);
        *next = (*next + 1) % SITES as u8;
        Some(site)
    }
}

/// Adds to a register what another one has: nobody knows how far that is.
fn strides(inst: &Inst) -> bool {
    match *inst {
        Inst::Alu { d, a, b: Opnd::Reg(b), .. } => a == Opnd::Reg(d) || b == d,
        Inst::AluFlags { d, a, b: Opnd::Reg(b), .. } => a == Opnd::Reg(d) || b == d,
        _ => false,
    }
}

/// Registers that change only by constants, or are sums, differences, shifts and moves of such registers.
fn steady(body: &[Inst]) -> Registers {
    let mut steady = Registers([u64::MAX; 4]);
    loop {
        let before = steady;
        for inst in body {
            let facts = inst.facts();
            let smooth = matches!(
                inst,
                Inst::Mov { .. }
                    | Inst::Alu { op: AluOp::Add | AluOp::Sub | AluOp::Shl, .. }
                    | Inst::AluFlags { op: FlagOp::Add | FlagOp::Sub, .. }
                    | Inst::Unary { op: UnaryOp::SextW | UnaryOp::ZextW, .. }
            );
            if smooth && !strides(inst) && facts.uses.iter().all(|r| steady.has(*r)) {
                continue;
            }
            facts.definitions.into_iter().filter(|d| *d != Reg::NONE).for_each(|d| steady.remove(d));
        }
        if steady == before {
            return steady;
        }
    }
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
    pub(super) fn site_for(&mut self, addr: Addr, p: Probe) -> Option<usize> {
        let once = self.accesses == 1 && self.index < self.sites.end;
        if once { self.sites.take(addr, p.bytes, p.write) } else { None }
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
    fn only_steady_accesses_of_loops_have_sites_and_each_its_own() {
        let list = block(&[
            load(0, 0),
            load(1, 2),
            add(2, 2, Opnd::Imm(8)),
            add(3, 2, Reg(4).into()),
            add(5, 5, Reg(4).into()),
        ]);
        let at = |base| Addr::offset(Reg(base), 0);
        let mut sites = Sites::default();
        sites.prepare(&list);
        assert_eq!(sites.take(at(0), 8, false), None, "its address comes from memory");
        assert_eq!(sites.take(at(1), 8, false), None, "so does this");
        assert_eq!(sites.take(at(5), 8, false), None, "nobody knows how far it goes");
        assert_eq!(sites.take(at(2), 24, false), None, "no power of two");
        let [a, b, c] = [(2, false), (3, false), (3, true)].map(|(r, w)| sites.take(at(r), 8, w));
        assert!(a.is_some() && b.is_some() && c.is_some() && a != b && b != c && a != c);
        let mut straight = list;
        straight.insts.pop();
        sites.prepare(&straight);
        assert_eq!(sites.take(at(2), 8, false), None, "no loop");
    }
}
