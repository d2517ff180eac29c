//! Registers whose values are known while a block is lifted: constants that programs make of several instructions (MOVZ
//! and MOVK, ADRP and ADD) become one, and constants that fit are operands instead of registers.

use super::interp::{alu, cut, insert};
use super::visit::Change;
use super::*;

/// A value that is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Constant(u64),
    /// Relative to the virtual address of the block's page.
    InPage(i64),
}

/// What is known of the guest's registers.
pub struct Constants {
    /// One bit for each register of which something is known.
    known: u32,
    values: [Known; 32],
}

impl Default for Constants {
    fn default() -> Self {
        Self { known: 0, values: [Known::Constant(0); 32] }
    }
}

impl Constants {
    /// Nothing is known at the beginning of a block.
    pub fn clear(&mut self) {
        self.known = 0;
    }

    /// The next instruction of the block: what it is with what is known. Remembers what it does.
    #[inline]
    pub fn next(&mut self, inst: Inst) -> Inst {
        if self.known == 0 && !matches!(inst, Inst::Mov { .. } | Inst::PcRel { .. }) {
            return inst;
        }
        let inst = self.refined(inst);
        self.note(&inst);
        inst
    }

    fn known(&self, r: Reg) -> Option<Known> {
        (r.0 < 32 && self.known >> r.0 & 1 != 0).then(|| self.values[usize::from(r.0)])
    }

    fn constant(&self, o: Opnd) -> Option<u64> {
        match o {
            Opnd::Imm(v) => Some(v as u64),
            Opnd::Reg(r) => match self.known(r)? {
                Known::Constant(v) => Some(v),
                Known::InPage(_) => None,
            },
        }
    }

    /// The operand as a constant if it is a known one that host instructions take.
    fn short(&self, w: Width, o: Opnd) -> Opnd {
        match self.constant(o) {
            Some(v) if w == Width::W => Opnd::Imm(i64::from(v as i32)),
            Some(v) if i32::try_from(v as i64).is_ok() => Opnd::Imm(v as i64),
            _ => o,
        }
    }

    fn refined(&self, inst: Inst) -> Inst {
        match inst {
            Inst::Insert { w, d, into, s, lsb, width } => match (self.constant(into), self.constant(s)) {
                (Some(into), Some(s)) => moved(w, d, insert(w, into, s, (lsb, width))),
                _ => inst,
            },
            Inst::Alu { op, w, d, a, b } => self.refined_alu(op, w, d, (a, b)),
            Inst::AluFlags { op: op @ (FlagOp::Add | FlagOp::Sub | FlagOp::And), w, d, a, b } => {
                Inst::AluFlags { op, w, d, a, b: self.short(w, b) }
            }
            _ => inst,
        }
    }

    fn refined_alu(&self, op: AluOp, w: Width, d: Reg, (a, b): (Opnd, Opnd)) -> Inst {
        use AluOp::*;
        if let (Some(a), Some(b)) = (self.constant(a), self.constant(b)) {
            return moved(w, d, alu(op, w, a, b));
        }
        if let (Add, Width::X, Opnd::Reg(r), Opnd::Imm(v)) = (op, w, a, b)
            && let Some(Known::InPage(offset)) = self.known(r)
        {
            return Inst::PcRel { d, offset: offset.wrapping_add(v) };
        }
        let (a, b) = match op {
            Add | And | Or | Xor => match (self.short(w, a), self.short(w, b)) {
                (a @ Opnd::Imm(_), b) => (b, a),
                (_, b) => (a, b),
            },
            Mul => (a, b),
            _ => (a, self.short(w, b)),
        };
        Inst::Alu { op, w, d, a, b }
    }

    fn note(&mut self, inst: &Inst) {
        match *inst {
            Inst::Start { .. } => {}
            Inst::Mov { w, d, s: Opnd::Imm(v) } => self.set(d, Some(Known::Constant(cut(w, v as u64)))),
            Inst::PcRel { d, offset } => self.set(d, Some(Known::InPage(offset))),
            Inst::Alu { d, .. } | Inst::Mov { d, .. } => self.set(d, None),
            _ => {
                let facts = inst.facts();
                if facts.change == Change::Everything {
                    self.known = 0;
                }
                facts.definitions.into_iter().for_each(|d| self.set(d, None));
            }
        }
    }

    fn set(&mut self, d: Reg, known: Option<Known>) {
        if d.0 >= 32 {
            return;
        }
        match known {
            Some(value) => {
                self.values[usize::from(d.0)] = value;
                self.known |= 1 << d.0;
            }
            None => self.known &= !(1 << d.0),
        }
    }
}

fn moved(w: Width, d: Reg, value: u64) -> Inst {
    Inst::Mov { w, d, s: Opnd::Imm(value as i64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X1: Reg = Reg(1);
    const X2: Reg = Reg(2);
    const IMM: Opnd = Opnd::Imm(99);

    fn movk(w: Width, value: i64, lsb: u8) -> Inst {
        Inst::Insert { w, d: X1, into: X1.into(), s: Opnd::Imm(value), lsb, width: 16 }
    }

    fn mov(w: Width, value: i64) -> Inst {
        Inst::Mov { w, d: X1, s: Opnd::Imm(value) }
    }

    fn add(d: Reg, a: Reg, b: impl Into<Opnd>) -> Inst {
        Inst::Alu { op: AluOp::Add, w: Width::X, d, a: a.into(), b: b.into() }
    }

    /// What the last of `insts` becomes behind the others.
    fn last(insts: &[Inst]) -> String {
        let mut constants = Constants::default();
        shown(insts.iter().fold(Inst::CheckSp, |_, inst| constants.next(*inst)))
    }

    fn shown(inst: Inst) -> String {
        format!("{inst:?}")
    }

    #[test]
    fn a_constant_of_several_instructions_is_one() {
        let other = Inst::Mov { w: Width::X, d: X2, s: Opnd::Imm(7) };
        let x = [mov(Width::X, 0x1234), other, movk(Width::X, 0xabcd, 16), movk(Width::X, 0xf000, 48)];
        let value = 0xf000_0000_abcd_1234_u64 as i64;
        assert_eq!(last(&x), shown(mov(Width::X, value)));
        let w = [mov(Width::W, -1), movk(Width::W, 2, 16)];
        assert_eq!(last(&w), shown(mov(Width::W, 0x0002_ffff)));
    }

    #[test]
    fn an_address_of_two_instructions_is_one() {
        let page = Inst::PcRel { d: X1, offset: -0x7000 };
        assert_eq!(
            last(&[page, add(X2, X1, Opnd::Imm(0x123))]),
            shown(Inst::PcRel { d: X2, offset: -0x6edd })
        );
        let short = Inst::Alu { op: AluOp::Add, w: Width::W, d: X2, a: X1.into(), b: Opnd::Imm(1) };
        assert_eq!(last(&[page, short]), shown(short), "of the lower half only");
    }

    #[test]
    fn short_constants_are_operands() {
        assert_eq!(last(&[mov(Width::X, 99), add(X2, X2, X1)]), shown(add(X2, X2, IMM)));
        assert_eq!(last(&[mov(Width::X, 99), add(X2, X1, X2)]), shown(add(X2, X2, IMM)), "sums commute");
        let long = add(X2, X2, X1);
        assert_eq!(last(&[mov(Width::X, 1 << 40), long]), shown(long));
        let minus = Inst::Alu { op: AluOp::Sub, w: Width::X, d: X2, a: X1.into(), b: X2.into() };
        assert_eq!(last(&[mov(Width::X, 99), minus]), shown(minus), "differences do not");
    }

    #[test]
    fn what_changes_is_not_known_any_more() {
        let user = add(X2, X2, X1);
        let load = Inst::Unary { op: UnaryOp::Rev, w: Width::X, d: X1, s: X1.into() };
        assert_eq!(last(&[mov(Width::X, 1), load, user]), shown(user));
        assert_eq!(
            last(&[mov(Width::X, 1), Inst::Mops { word: 0 }, user]),
            shown(user),
            "its registers are guest's"
        );
        let pair = Inst::CasPair { mem: Mem::plain(3), d: Reg(0), s: X2, addr: Addr::offset(X2, 0) };
        assert_eq!(last(&[mov(Width::X, 1), pair, user]), shown(user));
        let mut constants = Constants::default();
        constants.next(mov(Width::X, 1));
        constants.clear();
        assert_eq!(shown(constants.next(user)), shown(user));
    }
}
