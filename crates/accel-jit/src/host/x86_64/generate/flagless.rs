//! Integer operations in forms that leave the host's flags alone, for where the guest's are in them and wanted.

use super::locate::Loc;
use super::*;

/// MULX: the product of rdx and the last operand; its upper half goes to the first one.
const MULX: Opc = opc(3, 2, 0xf6);

impl Generator {
    /// True if the guest's flags are in the host's, and somebody may ask for them.
    pub(super) fn flags_wanted(&self) -> bool {
        matches!(self.nzcv, Nzcv::Host { .. } | Nzcv::Float { .. }) && self.nzcv_needed()
    }

    /// A shift by the constant `n`, which is not 0.
    pub(super) fn shift_keeping_flags(&mut self, host: Shift, w: Width, d: Reg, a: Reg, n: u8) {
        let g = self.dest_over(d, a.into(), RAX);
        let a = self.loc(a);
        if let (Shift::Shl, 1, Loc::Host(a)) = (host, n, a) {
            self.asm.lea(w == Width::X, g, M::indexed(a, a, 0, 0));
            return self.done(d, g);
        }
        self.asm.mov_imm(RAX, i64::from(n));
        self.asm.shiftx(host, w == Width::X, g, a, RAX);
        self.done(d, g);
    }

    /// The lower half of a product.
    pub(super) fn mul_keeping_flags(&mut self, w: Width, d: Reg, a: Opnd, b: Opnd) {
        let (b, s) = self.factors(a, b);
        let g = self.dest(d, RAX);
        let b = self.factor(b, s);
        let upper = if g == RAX { s } else { RAX };
        self.asm.vex(Opc { w: w == Width::X, ..MULX }, upper.0, g.0, b);
        self.done(d, g);
    }

    /// UMULH.
    pub(super) fn unsigned_mul_high(&mut self, d: Reg, a: Opnd, b: Opnd) {
        let (b, s) = self.factors(a, b);
        let g = self.dest(d, RAX);
        let b = self.factor(b, s);
        let lower = if g == RAX { s } else { RAX };
        self.asm.vex(Opc { w: true, ..MULX }, g.0, lower.0, b);
        self.done(d, g);
    }

    /// RDX = one of the factors; gives the other, and a scratch register for it.
    fn factors(&mut self, a: Opnd, b: Opnd) -> (Opnd, Gpr) {
        let (a, b) = if self.is_in(b, RDX) { (b, a) } else { (a, b) };
        let there = self.is_in(a, RDX);
        if there && self.ends_here(a) {
            self.becomes_scratch(a);
        } else if !(there && self.is_copy(a)) {
            self.scratch_exactly(RDX);
        }
        let s = self.scratch();
        if !there {
            self.move_into(Width::X, RDX, a);
            // Long numbers are multiplied by the same one again and again.
            self.becomes_copy(RDX, a);
        }
        (b, s)
    }

    /// A factor as MULX takes it.
    fn factor(&mut self, b: Opnd, s: Gpr) -> Rm {
        match b {
            Opnd::Reg(r) => Rm::from(self.loc(r)),
            Opnd::Imm(_) => self.value(b, s).into(),
        }
    }

    /// AND with a mask of the low byte, halfword or word; false if `b` is none.
    pub(super) fn low_bits(&mut self, w: Width, d: Reg, a: Opnd, b: Opnd) -> bool {
        let (Opnd::Reg(r), Opnd::Imm(mask)) = (a, b) else { return false };
        let mask = if w == Width::W { i64::from(mask as u32) } else { mask };
        if !matches!(mask, 0xff | 0xffff | 0xffff_ffff) {
            return false;
        }
        let g = self.dest_over(d, a, RAX);
        match (mask, self.loc(r)) {
            (0xff, from) => self.asm.movzx8(g, from),
            (0xffff, from) => self.asm.movzx16(g, from),
            (_, Loc::Host(from)) => self.asm.mov32(g, from),
            (_, Loc::Memory(from)) => self.asm.load(false, g, from),
        }
        self.done(d, g);
        true
    }
}
