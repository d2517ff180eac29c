//! Vector registers that stay in host registers from one block to the next.
//!
//! A block begins by loading the vector registers that it will read before it writes them; behind that is its *warm*
//! entry. Where an exit is made to jump to the block directly, what the exit's block has in host registers already is
//! only moved, by a *bridge*: code between the two that is made when they meet. Homes in memory are right all the time,
//! so whatever is not in a register is loaded, and everything else enters as before.

use super::*;
use crate::ir::vectors::NO_VECTOR;

/// Vector registers that a warm entry expects, at most.
pub const MOST_CARRIED: usize = 10;

/// Host vector registers.
const HOST: usize = 16;

/// What vector registers host registers hold: [`NO_VECTOR`] if none.
pub type Held = [VReg; HOST];

/// Nothing.
pub const HELD_NOTHING: Held = [NO_VECTOR; HOST];

/// Host registers to move, as (to, from); then the loads, as (to, vector register).
#[derive(Default, Debug, PartialEq, Eq)]
struct Plan {
    moves: Vec<(u8, u8)>,
    loads: Vec<(u8, VReg)>,
}

/// How to get from what is held to what is wanted.
fn plan(held: &Held, wanted: &Held) -> Plan {
    let mut plan = Plan::default();
    let mut waiting = Vec::new();
    for (to, v) in wanted.iter().enumerate().filter(|(_, v)| **v != NO_VECTOR) {
        match held.iter().position(|h| h == v) {
            Some(from) if from == to => {}
            Some(from) => waiting.push((to as u8, from as u8)),
            None => plan.loads.push((to as u8, *v)),
        }
    }
    while !waiting.is_empty() {
        // One whose old value nobody waits for, or whose value is that of a circle: memory has it.
        let free = waiting.iter().position(|(to, _)| waiting.iter().all(|(_, from)| from != to));
        match free {
            Some(i) => plan.moves.push(waiting.remove(i)),
            None => {
                let (to, from) = waiting.remove(0);
                plan.loads.push((to, held[usize::from(from)]));
            }
        }
    }
    plan
}

/// Emits the bridge from what is held at an exit to the warm entry at `target`, which wants `wanted`. False if there would
/// be nothing in it.
pub fn emit_bridge(a: &mut Asm, held: &Held, wanted: &Held, target: u64) -> bool {
    let plan = plan(held, wanted);
    for (to, from) in &plan.moves {
        a.vex(opc(0, 1, 0x28), *to, 0, Xmm(*from));
    }
    for (to, v) in &plan.loads {
        a.vex(opc(1, 1, 0x6f), *to, 0, v_slot(*v));
    }
    let any = !a.is_empty();
    a.jmp_to(target);
    any
}

/// True if an exit that holds `held` has anything of what is `wanted`.
pub fn helps(held: &Held, wanted: &Held) -> bool {
    wanted.iter().any(|v| *v != NO_VECTOR && held.contains(v))
}

impl Generator {
    /// Loads what the block will read before it writes it, behind the inner entry.
    pub(super) fn warm_up(&mut self, block: &Block) {
        self.wanted = HELD_NOTHING;
        self.warm_entry = self.inner_entry;
        if self.options.counted || self.options.count || self.options.watch {
            return;
        }
        let first = first_reads(block);
        if first.is_empty() {
            return;
        }
        self.leave_entry();
        for v in first {
            let x = self.vector_value(v);
            self.wanted[usize::from(self.asm.hardware(x.0))] = v;
        }
        self.vectors.next_instruction();
        self.warm_entry = self.asm.len() as u32;
    }

    /// What host registers hold here.
    pub(super) fn held_now(&self) -> Held {
        let mut held = HELD_NOTHING;
        for (hardware, v) in self.vectors.copies(&self.asm) {
            held[usize::from(hardware)] = v;
        }
        held
    }
}

/// The vector registers that the block reads before it writes them, first ones first.
fn first_reads(block: &Block) -> Vec<VReg> {
    let (mut written, mut first) = (0u64, Vec::new());
    for inst in &block.insts {
        // Whatever runs Rust code takes registers from memory.
        let forgets = matches!(inst, Inst::VHelper { .. } | Inst::VHelperGpr { .. });
        if forgets || first.len() == MOST_CARRIED {
            break;
        }
        let used = inst.vector_use();
        for v in used.reads.into_iter().filter(|v| *v < 32) {
            if written & 1 << v == 0 && first.len() < MOST_CARRIED {
                written |= 1 << v;
                first.push(v);
            }
        }
        for v in used.writes.into_iter().filter(|v| *v < 32) {
            written |= 1 << v;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pairs: &[(usize, VReg)]) -> Held {
        let mut h = HELD_NOTHING;
        for (host, v) in pairs {
            h[*host] = *v;
        }
        h
    }

    /// What the host registers hold after the plan.
    fn after(held: &Held, plan: &Plan) -> Held {
        let mut now = *held;
        for (to, from) in &plan.moves {
            now[usize::from(*to)] = now[usize::from(*from)];
        }
        for (to, v) in &plan.loads {
            now[usize::from(*to)] = *v;
        }
        now
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
            let (mut h, mut w) = (HELD_NOTHING, HELD_NOTHING);
            for v in 0..12 {
                if random(4) > 0 {
                    h[random(16) as usize] = v;
                }
                if random(4) > 0 {
                    w[random(16) as usize] = v;
                }
            }
            let now = after(&h, &plan(&h, &w));
            for (host, v) in w.iter().enumerate().filter(|(_, v)| **v != NO_VECTOR) {
                assert_eq!(now[host], *v, "register {host}: from {h:?} to {w:?}");
            }
        }
    }

    #[test]
    fn what_is_in_its_place_takes_nothing_and_what_is_elsewhere_a_move() {
        let (h, w) = (held(&[(4, 1), (5, 2), (6, 3)]), held(&[(4, 1), (7, 2), (8, 9)]));
        assert_eq!(plan(&h, &w), Plan { moves: vec![(7, 5)], loads: vec![(8, 9)] });
        assert!(helps(&h, &w) && !helps(&h, &held(&[(4, 9)])));
    }

    #[test]
    fn registers_read_first_are_found_in_order() {
        let mut block = Block::default();
        let f2 = |d, n, m| Inst::F2 { op: F2Op::Add, double: true, d, n, m };
        block.insts.extend([f2(3, 5, 3), f2(7, 3, 9), f2(5, 7, 7), f2(1, 7, 2)]);
        assert_eq!(first_reads(&block), [5, 3, 9, 2]);
    }
}
