//! Vector registers that stay in host registers from one block to the next.
//!
//! A block begins by loading the vector registers that it will read before it writes them; behind that is its *warm*
//! entry. Where an exit is made to jump to the block directly, what the exit's block has in host registers already is
//! only moved, by a *bridge*: code between the two that is made when they meet.
//!
//! Results stay in host registers, *dirty*, until somebody may look at their homes in memory, which has mostly other values
//! by then: slow paths of accesses find them by the side table, all others have them stored first, and so have exits,
//! unless the block behind expects the register dirty.

use super::*;
use crate::ir::vectors::NO_VECTOR;

/// Vector registers that a warm entry expects, at most.
pub const MOST_CARRIED: usize = 10;

/// The same on hosts with AVX-512, which have twice as many.
pub const MOST_CARRIED_WIDE: usize = 22;

/// Host vector registers.
const HOST: usize = VECTOR_COPIES;

/// What vector registers host registers hold: [`NO_VECTOR`] if none.
pub type Held = [VReg; HOST];

/// What host registers hold, and which of it memory does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Carried {
    /// The vector registers.
    pub held: Held,
    /// One bit for each host register.
    pub dirty: u32,
}

impl Carried {
    /// Nothing.
    pub const NOTHING: Self = Self { held: [NO_VECTOR; HOST], dirty: 0 };

    /// True if nothing is held.
    pub fn is_nothing(&self) -> bool {
        self.held == Self::NOTHING.held
    }

    /// Host registers whose values memory does not have, and which vector registers' they are.
    pub fn dirty(&self) -> impl Iterator<Item = (u8, VReg)> {
        let held = self.held.into_iter().enumerate();
        let dirty = self.dirty;
        held.filter(move |(host, v)| dirty & 1 << host != 0 && *v != NO_VECTOR)
            .map(|(host, v)| (host as u8, v))
    }

    fn has(&self, v: VReg) -> bool {
        v != NO_VECTOR && self.held.contains(&v)
    }

    pub(super) fn has_dirty(&self, v: VReg) -> bool {
        self.dirty().any(|(_, d)| d == v)
    }

    /// True if an exit that holds this has anything of what is `wanted`.
    fn helps(&self, wanted: &Self) -> bool {
        wanted.held.iter().any(|v| self.has(*v))
    }
}

/// Host registers to store, with their vector registers; then those to move, as (to, from), in order; then those to load.
#[derive(Default, Debug, PartialEq, Eq)]
struct Plan {
    stores: Vec<(u8, VReg)>,
    moves: Vec<(u8, u8)>,
    loads: Vec<(u8, VReg)>,
}

/// How to get from what is there to what is wanted.
fn plan(from: &Carried, wanted: &Carried) -> Plan {
    let mut plan = Plan::default();
    plan.stores.extend(from.dirty().filter(|(_, v)| !wanted.has_dirty(*v)));
    let mut waiting = Vec::new();
    for (to, v) in wanted.held.iter().enumerate().filter(|(_, v)| **v != NO_VECTOR) {
        match from.held.iter().position(|h| h == v) {
            Some(from) if from == to => {}
            Some(from) => waiting.push((to as u8, from as u8)),
            None => plan.loads.push((to as u8, *v)),
        }
    }
    while !waiting.is_empty() {
        // One whose old value nobody waits for; of a circle, one goes by a spare register, or by memory.
        let free = waiting.iter().position(|(to, _)| waiting.iter().all(|(_, from)| from != to));
        match free {
            Some(i) => plan.moves.push(waiting.remove(i)),
            None => {
                let (to, host) = waiting.remove(0);
                let unused = |r: &u8| {
                    wanted.held[usize::from(*r)] == NO_VECTOR && waiting.iter().all(|(_, from)| from != r)
                };
                if let Some(spare) = (0..HOST as u8).find(unused) {
                    plan.moves.push((spare, host));
                    waiting.push((to, spare));
                } else {
                    let v = from.held[usize::from(host)];
                    plan.stores.push((host, v));
                    plan.loads.push((to, v));
                }
            }
        }
    }
    plan
}

/// Emits the bridge from an exit to the warm entry at `warm`, which wants `wanted`, or to the inner entry if that is of no
/// use. Where it leads to, if there would be nothing in it.
pub fn emit_bridge(a: &mut Asm, from: &Carried, wanted: &Carried, [inner, warm]: [u64; 2]) -> Option<u64> {
    let warmly = from.helps(wanted);
    let (wanted, target) = if warmly { (wanted, warm) } else { (&Carried::NOTHING, inner) };
    let plan = plan(from, wanted);
    emit_stores(a, plan.stores.iter().copied());
    for (to, from) in &plan.moves {
        a.vex(opc(0, 1, 0x28), *to, 0, Xmm(*from));
    }
    for (to, v) in &plan.loads {
        a.vex(opc(1, 1, 0x6f), *to, 0, v_slot(*v));
    }
    if a.is_empty() {
        return Some(target);
    }
    a.jmp_to(target);
    None
}

/// Stores host registers to the homes of vector registers.
pub(super) fn emit_stores(a: &mut Asm, stores: impl Iterator<Item = (u8, VReg)>) {
    for (host, v) in stores {
        a.vex(opc(1, 1, 0x7f), host, 0, v_slot(v));
    }
}

impl Generator {
    /// Loads what the block will read before it writes it, behind the inner entry.
    pub(super) fn warm_up(&mut self, block: &Block) {
        self.wanted = Carried::NOTHING;
        self.warm_entry = self.inner_entry;
        if self.options.counted || self.options.count || self.options.watch {
            return;
        }
        let most = if self.options.avx512 { MOST_CARRIED_WIDE } else { MOST_CARRIED };
        let (first, dirty) = expected(block, most);
        if first.is_empty() {
            return;
        }
        self.leave_entry();
        for v in first {
            let x = self.vector_value(v);
            if dirty & 1 << v != 0 {
                self.vectors.make_dirty(x);
            }
        }
        self.vectors.next_instruction();
        self.wanted = self.carried_now();
        self.warm_entry = self.asm.len() as u32;
    }

    /// Where the warm entry of a block that is gone leads to.
    pub(super) fn stale_entry(&mut self, block: &Block) {
        self.stale_entry = self.asm.len() as u32;
        let wanted = self.wanted;
        emit_stores(&mut self.asm, wanted.dirty());
        self.asm.mov_imm(RAX, i64::from(block.first_offset()));
        self.asm.jmp_to(self.thunks.poll);
    }

    /// What host registers hold here.
    pub(super) fn carried_now(&self) -> Carried {
        self.cold_carried.unwrap_or_else(|| self.vectors.carried(&self.asm))
    }

    /// Stores what memory does not have; it stays dirty for whoever comes here another way.
    pub(super) fn store_dirty(&mut self) {
        let carried = self.carried_now();
        emit_stores(&mut self.asm, carried.dirty());
    }

    /// The number of what the warm entry wants.
    pub fn wanted_number(&mut self) -> u32 {
        if self.wanted.is_nothing() { 0 } else { self.note_carried(self.wanted) }
    }

    /// The number of `carried` in the block's table; 0 is for nothing.
    pub(super) fn note_carried(&mut self, carried: Carried) -> u32 {
        if self.carried.last() != Some(&carried) {
            self.carried.push(carried);
        }
        self.carried.len() as u32 - 1
    }
}

/// The vector registers that the block expects in host registers, those that it reads before it writes them first; and of
/// which of them memory need not have the values, as bits: those that it writes. A loop expects all that it writes.
fn expected(block: &Block, most: usize) -> (Vec<VReg>, u64) {
    let (mut written, mut any) = (0u64, 0u64);
    let mut first = Vec::new();
    let body = block.loop_body();
    for inst in body.unwrap_or(&block.insts) {
        // Whatever runs Rust code takes registers from memory.
        let forgets = matches!(inst, Inst::VHelper { .. } | Inst::VHelperGpr { .. });
        if forgets || first.len() == most {
            break;
        }
        let used = inst.vector_use();
        for v in used.reads.into_iter().filter(|v| *v < 32) {
            if any & 1 << v == 0 && first.len() < most {
                any |= 1 << v;
                first.push(v);
            }
        }
        for v in used.writes.into_iter().filter(|v| *v < 32) {
            any |= 1 << v;
            written |= 1 << v;
        }
    }
    if body.is_some() {
        let others: Vec<VReg> = (0..32).filter(|v| written & 1 << v != 0 && !first.contains(v)).collect();
        first.extend(others.into_iter().take(most - first.len()));
    }
    (first, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Host registers that hold vector registers, and those of them that are dirty.
    fn carried(pairs: &[(usize, VReg)], dirty: u32) -> Carried {
        let mut c = Carried { dirty, ..Carried::NOTHING };
        for (host, v) in pairs {
            c.held[*host] = *v;
        }
        c
    }

    /// What the host registers hold after the plan, and whose homes are not right then. Fails where a wrong home is loaded.
    fn after(from: &Carried, plan: &Plan) -> (Held, Vec<VReg>) {
        let mut now = from.held;
        let mut wrong: Vec<VReg> = from.dirty().map(|(_, v)| v).collect();
        for (host, v) in &plan.stores {
            assert_eq!(from.held[usize::from(*host)], *v);
            wrong.retain(|w| w != v);
        }
        for (to, from) in &plan.moves {
            now[usize::from(*to)] = now[usize::from(*from)];
        }
        for (to, v) in &plan.loads {
            assert!(!wrong.contains(v), "V{v} is loaded from a home that is not right");
            now[usize::from(*to)] = *v;
        }
        (now, wrong)
    }

    #[test]
    fn whatever_is_held_becomes_what_is_wanted() {
        // Every register holds or wants one of a few, in many arrangements: chains, circles, what is missing.
        let mut seed = 0x9e37_79b9_u32;
        let mut random = |n: u32| {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed % n
        };
        for _ in 0..20_000 {
            let (mut h, mut w) = (Carried::NOTHING, Carried::NOTHING);
            for v in 0..12 {
                if random(4) > 0 {
                    h.held[random(16) as usize] = v;
                }
                if random(4) > 0 {
                    w.held[random(16) as usize] = v;
                }
            }
            (h.dirty, w.dirty) = (random(1 << 16), random(1 << 16));
            let (now, wrong) = after(&h, &plan(&h, &w));
            for (host, v) in w.held.iter().enumerate().filter(|(_, v)| **v != NO_VECTOR) {
                assert_eq!(now[host], *v, "register {host}: from {h:?} to {w:?}");
            }
            for v in wrong {
                assert!(w.has_dirty(v), "nobody knows of V{v}: from {h:?} to {w:?}");
            }
        }
    }

    #[test]
    fn what_is_in_its_place_takes_nothing_and_what_is_elsewhere_a_move() {
        let h = carried(&[(4, 1), (5, 2), (6, 3)], 1 << 4 | 1 << 6);
        let w = carried(&[(4, 1), (7, 2), (8, 9)], 1 << 4);
        let expected = Plan { stores: vec![(6, 3)], moves: vec![(7, 5)], loads: vec![(8, 9)] };
        assert_eq!(plan(&h, &w), expected);
        assert!(h.helps(&w) && !h.helps(&carried(&[(4, 9)], 0)));
    }

    #[test]
    fn registers_read_first_are_found_in_order() {
        let mut block = Block::default();
        let f2 = |d, n, m| Inst::F2 { op: F2Op::Add, double: true, d, n, m };
        block.insts.extend([f2(3, 5, 3), f2(7, 3, 9), f2(5, 7, 7), f2(1, 7, 2)]);
        let written = 1 << 3 | 1 << 7 | 1 << 5 | 1 << 1;
        assert_eq!(expected(&block, 10), (vec![5, 3, 9, 2], written));
        block.insts.push(Inst::Branch { target: 0 });
        assert_eq!(expected(&block, 10), (vec![5, 3, 9, 2, 1, 7], written), "a loop");
    }
}
