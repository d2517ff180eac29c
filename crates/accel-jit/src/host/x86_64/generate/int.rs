//! Integer instructions.

use super::locate::{Loc, Source};
use super::vector::X0;
use super::*;
use crate::runtime::state::JitState;

fn x(w: Width) -> bool {
    w == Width::X
}

impl Generator {
    pub(super) fn integer(&mut self, inst: &Inst) {
        match *inst {
            Inst::Mov { w, d, s } => self.mov(w, d, s),
            Inst::Alu { op, w, d, a, b } => self.alu(op, w, d, a, b),
            Inst::AluFlags { op, w, d, a, b } => self.alu_flags(op, w, d, a, b),
            Inst::AddCarry { sub, w, d, a, b } => self.add_carry(sub, w, d, a, b),
            Inst::Unary { op, w, d, s } => self.unary(op, w, d, s),
            Inst::Extract { signed, w, d, s, lsb, width } => self.extract(signed, w, d, s, (lsb, width)),
            Inst::Insert { w, d, into, s, lsb, width } => self.insert(w, d, into, s, (lsb, width)),
            Inst::Extr { w, d, hi, lo, lsb } => self.extr(w, d, hi, lo, lsb),
            Inst::MulHigh { signed, d, a, b } => self.mul_high(signed, d, a, b),
            Inst::Div { signed, w, d, a, b } => self.div(signed, w, d, a, b),
            Inst::MinMax { max, signed, w, d, a, b } => self.min_max(max, signed, w, d, (a, b)),
            Inst::Pauth { op, d, pointer, modifier } => self.pauth(op, d, pointer, modifier),
            Inst::Crc32 { c, size, d, acc, data } => self.crc32(c, size, d, acc, data),
            Inst::Select { op, w, d, cond, a, b } => self.select(op, w, d, cond, (a, b)),
            Inst::CondCompare { add, w, a, b, cond, nzcv } => self.cond_compare(add, w, (a, b), cond, nzcv),
            Inst::GetNzcv { d } => self.get_nzcv(d),
            Inst::SetNzcv { s } => self.set_nzcv(s),
            Inst::PcRel { d, offset } => self.pc_rel(d, offset),
            _ => unreachable!("not an integer instruction"),
        }
    }

    fn mov(&mut self, w: Width, d: Reg, s: Opnd) {
        if d == Reg::NONE {
            return;
        }
        if let (Opnd::Imm(v), true) = (s, d.is_guest() && pinned(d).is_none()) {
            let v = if w == Width::W { i64::from(v as u32) } else { v };
            if let Ok(i) = i32::try_from(v) {
                self.locations.drop_copy(d);
                return self.asm.store_imm(true, x_slot(d.0), i);
            }
        }
        let g = self.dest(d, RAX);
        if let (Opnd::Reg(r), Width::X) = (s, w)
            && let (Loc::Host(h), true) = (self.loc(r), g == RAX)
        {
            return self.done(d, h);
        }
        self.move_into(w, g, s);
        self.done(d, g);
    }

    fn alu(&mut self, op: AluOp, w: Width, d: Reg, a: Opnd, b: Opnd) {
        if d == Reg::NONE {
            return;
        }
        match op {
            AluOp::Add | AluOp::Sub if self.lea(op, w, d, a, b) => {}
            AluOp::Add => self.two(Op2::Add, true, w, d, (a, b)),
            AluOp::Sub => self.two(Op2::Sub, false, w, d, (a, b)),
            AluOp::And if self.low_bits(w, d, a, b) => {}
            AluOp::And => self.two(Op2::And, true, w, d, (a, b)),
            AluOp::Or => self.two(Op2::Or, true, w, d, (a, b)),
            AluOp::Xor => self.two(Op2::Xor, true, w, d, (a, b)),
            AluOp::AndNot | AluOp::OrNot | AluOp::XorNot => self.logic_not(op, w, d, a, b),
            AluOp::Shl | AluOp::Shr | AluOp::Sar | AluOp::Ror => self.shift(op, w, d, a, b),
            AluOp::Mul if self.flags_wanted() => self.mul_keeping_flags(w, d, a, b),
            AluOp::Mul => {
                self.clobber_flags();
                let s = self.scratch();
                let (a, b) = if self.ends_here(b) { (b, a) } else { (a, b) };
                let g = self.dest_over(d, a, RAX);
                let t = if g == RAX || !self.is_in(b, g) { g } else { RAX };
                let b = self.value(b, s);
                if !self.is_in(a, t) {
                    self.move_into(w, t, a);
                }
                self.asm.imul(x(w), t, b);
                self.done(d, t);
            }
        }
    }

    /// Add and subtract of registers and constants by LEA: no flags touched, three operands.
    fn lea(&mut self, op: AluOp, w: Width, d: Reg, a: Opnd, b: Opnd) -> bool {
        let Opnd::Reg(ra) = a else { return false };
        let ga = match self.loc(ra) {
            Loc::Host(ga) => ga,
            // Whatever changes the flags would have to save them first.
            Loc::Memory(_) if self.flags_wanted() => self.value(a, RAX),
            Loc::Memory(_) => return false,
        };
        let m = match b {
            Opnd::Imm(v) => {
                let v = if op == AluOp::Sub { v.wrapping_neg() } else { v };
                let v = if w == Width::W { i64::from(v as i32) } else { v };
                let Ok(disp) = i32::try_from(v) else { return false };
                M::at(ga, disp)
            }
            Opnd::Reg(rb) if op == AluOp::Add => {
                let gb = match self.loc(rb) {
                    Loc::Host(gb) => gb,
                    Loc::Memory(_) if self.flags_wanted() && ga != RAX => self.value(b, RAX),
                    Loc::Memory(_) => return false,
                };
                M::indexed(ga, gb, 0, 0)
            }
            Opnd::Reg(_) => return false,
        };
        let g = self.dest(d, RAX);
        if g == ga && !self.flags_wanted() && m.index.is_none() {
            self.flags_lost();
            self.asm.op_imm(Op2::Add, x(w), g, m.disp);
        } else {
            self.asm.lea(x(w), g, m);
        }
        self.done(d, g);
        true
    }

    fn two(&mut self, op: Op2, commutes: bool, w: Width, d: Reg, (a, b): (Opnd, Opnd)) {
        self.clobber_flags();
        let s = self.scratch_for_constant(w, b);
        let (a, b) = if commutes && self.ends_here(b) { (b, a) } else { (a, b) };
        let g = self.dest_over(d, a, RAX);
        let (a, b) = if commutes && self.is_in(b, g) && !self.is_in(a, g) { (b, a) } else { (a, b) };
        // Subtraction into its own second operand goes through rax.
        let t = if self.is_in(b, g) && !self.is_in(a, g) { RAX } else { g };
        let b = match b {
            Opnd::Reg(_) if t != RAX => self.source_in_register(w, b, RAX),
            _ => self.source(w, b, s),
        };
        if !self.is_in(a, t) {
            self.move_into(w, t, a);
        }
        self.op2(op, w, t, b);
        self.done(d, t);
    }

    /// A scratch register if the constant needs one, else rax as a dummy.
    fn scratch_for_constant(&mut self, w: Width, b: Opnd) -> Gpr {
        match b {
            Opnd::Imm(v) if w == Width::X && i32::try_from(v).is_err() => self.scratch(),
            _ => RAX,
        }
    }

    fn logic_not(&mut self, op: AluOp, w: Width, d: Reg, a: Opnd, b: Opnd) {
        if op == AluOp::OrNot && a == Opnd::Imm(0) {
            return self.unary(UnaryOp::Not, w, d, b);
        }
        self.clobber_flags();
        if let Opnd::Imm(v) = b {
            let op = match op {
                AluOp::AndNot => Op2::And,
                AluOp::OrNot => Op2::Or,
                _ => Op2::Xor,
            };
            return self.two(op, true, w, d, (a, Opnd::Imm(!v)));
        }
        let s = self.scratch();
        let g = self.dest(d, RAX);
        if op == AluOp::AndNot {
            let b = self.value(b, s);
            let a = match a {
                Opnd::Reg(r) => Rm::from(self.loc(r)),
                Opnd::Imm(_) => self.value(a, RAX).into(),
            };
            self.asm.andn(x(w), g, b, a);
        } else {
            self.move_into(w, s, b);
            self.asm.group3(2, x(w), s);
            let a = self.source(w, a, RAX);
            self.op2(if op == AluOp::OrNot { Op2::Or } else { Op2::Xor }, w, s, a);
            self.asm.mov(g, s);
        }
        self.done(d, g);
    }

    fn shift(&mut self, op: AluOp, w: Width, d: Reg, a: Opnd, b: Opnd) {
        let host = match op {
            AluOp::Shl => Shift::Shl,
            AluOp::Shr => Shift::Shr,
            AluOp::Sar => Shift::Sar,
            _ => Shift::Ror,
        };
        if let Opnd::Imm(n) = b {
            let n = (n as u8) & (w.bits() as u8 - 1);
            if host == Shift::Ror {
                let g = self.dest(d, RAX);
                let a = self.value(a, RAX);
                self.asm.rorx(x(w), g, a, n);
                return self.done(d, g);
            }
            if n != 0
                && let (Opnd::Reg(a), true) = (a, self.flags_wanted())
            {
                return self.shift_keeping_flags(host, w, d, a, n);
            }
            self.clobber_flags();
            let g = self.dest_over(d, a, RAX);
            if n == 0 {
                self.move_into(w, g, a);
            } else {
                self.move_to_change(w, g, a);
                self.asm.shift_imm(host, x(w), g, n);
            }
            return self.done(d, g);
        }
        if host == Shift::Ror {
            self.clobber_flags();
            self.scratch_exactly(RCX);
            let g = self.dest(d, RAX);
            self.move_into(Width::X, RCX, b);
            self.move_into(w, RAX, a);
            self.asm.shift_cl(host, x(w), RAX);
            if g != RAX {
                self.asm.mov(g, RAX);
            }
            return self.done(d, g);
        }
        let s = self.scratch();
        let g = self.dest(d, RAX);
        let count = self.value(b, s);
        let a = self.value(a, RAX);
        self.asm.shiftx(host, x(w), g, a, count);
        self.done(d, g);
    }

    fn alu_flags(&mut self, op: FlagOp, w: Width, d: Reg, a: Opnd, b: Opnd) {
        let carry = match op {
            FlagOp::Sub | FlagOp::Sbc => Carry::Inverted,
            _ => Carry::Same,
        };
        // Adc and Sbc: CF must hold C or NOT C when the operation runs; only moves may come between.
        let carry_in = match op {
            FlagOp::Adc => Some(Carry::Same),
            FlagOp::Sbc => Some(Carry::Inverted),
            _ => None,
        };
        if carry_in.is_some() {
            self.find_carry();
        }
        let s = self.scratch();
        let g = self.dest(d, RAX);
        let host = match op {
            FlagOp::Add => Op2::Add,
            FlagOp::Sub => Op2::Sub,
            FlagOp::Adc => Op2::Adc,
            FlagOp::Sbc => Op2::Sbb,
            FlagOp::And => Op2::And,
            FlagOp::AndNot => {
                self.move_not(w, s, b);
                self.flags_and(w, d, g, a, Source::Rm(s.into()));
                self.nzcv = Nzcv::Host { carry, saved: false };
                return;
            }
        };
        let b_in_g = self.is_in(b, g);
        let b = self.source_in_register(w, b, s);
        if op == FlagOp::And {
            self.flags_and(w, d, g, a, b);
        } else if op == FlagOp::Sub && d == Reg::NONE {
            self.compare(w, a, b);
        } else {
            let t = if b_in_g { RAX } else { g };
            self.move_to_change(w, t, a);
            if let Some(want) = carry_in {
                self.set_carry(want);
            }
            self.op2(host, w, t, b);
            if d != Reg::NONE {
                self.done(d, t);
            }
        }
        self.nzcv = Nzcv::Host { carry, saved: false };
    }

    /// s = NOT b; keeps the flags.
    fn move_not(&mut self, w: Width, s: Gpr, b: Opnd) {
        match b {
            Opnd::Imm(v) => self.move_into(w, s, Opnd::Imm(!v)),
            Opnd::Reg(_) => {
                self.move_into(w, s, b);
                self.asm.group3(2, x(w), s);
            }
        }
    }

    fn flags_and(&mut self, w: Width, d: Reg, g: Gpr, a: Opnd, b: Source) {
        if d == Reg::NONE
            && let Opnd::Reg(r) = a
        {
            let a = self.loc(r);
            match (a, b) {
                // The result has no more bits than the constant, and is not negative either way.
                (a, Source::Imm(v)) => return self.asm.test_imm(x(w) && v < 0, a, v),
                (Loc::Host(ga), Source::Rm(rm)) => return self.asm.test(x(w), rm, ga),
                (Loc::Memory(m), Source::Rm(Rm::R(gb))) => return self.asm.test(x(w), m, Gpr(gb)),
                _ => {}
            }
        }
        // g may be an input of the operation: work in rax.
        self.move_into(w, RAX, a);
        self.op2(Op2::And, w, RAX, b);
        if d != Reg::NONE {
            if g != RAX {
                self.asm.mov(g, RAX);
            }
            self.done(d, g);
        }
    }

    /// cmp a, b with a in a register or in memory.
    pub(super) fn compare(&mut self, w: Width, a: Opnd, b: Source) {
        let a_loc = match a {
            Opnd::Reg(r) => self.loc(r),
            Opnd::Imm(_) => Loc::Host(self.value(a, RAX)),
        };
        match (a_loc, b) {
            (Loc::Host(g), Source::Imm(0)) => {
                // TEST leaves CF clear, as comparing with zero does.
                self.asm.test(x(w), g, g);
            }
            (a, Source::Imm(v)) => self.asm.op_imm(Op2::Cmp, x(w), a, v),
            (Loc::Host(g), Source::Rm(rm)) => self.asm.op(Op2::Cmp, x(w), g, rm),
            (Loc::Memory(m), Source::Rm(rm)) => {
                self.asm.load(x(w), RAX, m);
                self.asm.op(Op2::Cmp, x(w), RAX, rm);
            }
        }
    }

    fn add_carry(&mut self, sub: bool, w: Width, d: Reg, a: Opnd, b: Opnd) {
        self.find_carry();
        if matches!(self.nzcv, Nzcv::Host { .. }) {
            let later = self.nzcv_wanted[self.index + 1];
            match later {
                Wanted::Nothing => {}
                Wanted::One(cond) if cond == CARRY_SET && self.save_condition(cond) => {}
                _ => self.save_nzcv(),
            }
        }
        let s = self.scratch();
        let g = self.dest(d, RAX);
        let b = self.source_in_register(w, b, s);
        self.move_into(w, RAX, a);
        self.set_carry(if sub { Carry::Inverted } else { Carry::Same });
        self.op2(if sub { Op2::Sbb } else { Op2::Adc }, w, RAX, b);
        self.flags_lost();
        if d != Reg::NONE {
            self.asm.mov(g, RAX);
            self.done(d, g);
        }
    }

    fn unary(&mut self, op: UnaryOp, w: Width, d: Reg, s: Opnd) {
        if d == Reg::NONE {
            return;
        }
        let flags_kept = matches!(
            op,
            UnaryOp::SextB
                | UnaryOp::SextH
                | UnaryOp::SextW
                | UnaryOp::ZextB
                | UnaryOp::ZextH
                | UnaryOp::ZextW
                | UnaryOp::Rev
                | UnaryOp::Not
        );
        if !flags_kept {
            self.clobber_flags();
        }
        match op {
            UnaryOp::Rbit => return self.rbit(w, d, s),
            UnaryOp::Rev16 => return self.rev16(w, d, s),
            _ => {}
        }
        let t = if matches!(op, UnaryOp::Cls | UnaryOp::Abs) { self.scratch() } else { RAX };
        let g = self.dest(d, RAX);
        let from = match s {
            Opnd::Reg(r) => Rm::from(self.loc(r)),
            Opnd::Imm(_) => self.value(s, RAX).into(),
        };
        match op {
            UnaryOp::SextB => self.asm.movsx8(x(w), g, from),
            UnaryOp::SextH => self.asm.movsx16(x(w), g, from),
            UnaryOp::SextW => self.asm.movsxd(g, from),
            UnaryOp::ZextB => self.asm.movzx8(g, from),
            UnaryOp::ZextH => self.asm.movzx16(g, from),
            UnaryOp::ZextW => self.move_into(Width::W, g, s),
            UnaryOp::Clz => self.asm.lzcnt(x(w), g, from),
            UnaryOp::Ctz => self.asm.tzcnt(x(w), g, from),
            UnaryOp::Cnt => self.asm.popcnt(x(w), g, from),
            UnaryOp::Abs => {
                self.move_into(w, RAX, s);
                self.asm.mov(t, RAX);
                self.asm.group3(3, x(w), RAX);
                self.asm.cmov(Cc::S, x(w), RAX, t);
                self.asm.mov(g, RAX);
            }
            UnaryOp::Not => {
                self.move_into(w, g, s);
                self.asm.group3(2, x(w), g);
            }
            UnaryOp::Neg => {
                self.move_into(w, g, s);
                self.asm.group3(3, x(w), g);
            }
            UnaryOp::Rev => {
                self.move_into(w, g, s);
                self.asm.bswap(x(w), g);
            }
            UnaryOp::Rev32 => {
                self.move_into(Width::X, g, s);
                self.asm.bswap(true, g);
                self.asm.rorx(true, g, g, 32);
            }
            UnaryOp::Cls => {
                // CLS = CLZ(x ^ (x >> 1 arithmetic)) - 1
                self.move_into(w, RAX, s);
                self.asm.mov(t, RAX);
                self.asm.shift_imm(Shift::Sar, x(w), t, 1);
                self.asm.op(Op2::Xor, x(w), RAX, t);
                self.asm.lzcnt(x(w), RAX, RAX);
                self.asm.op_imm(Op2::Sub, x(w), RAX, 1);
                self.asm.mov(g, RAX);
            }
            UnaryOp::Rbit | UnaryOp::Rev16 => unreachable!("done above"),
        }
        self.done(d, g);
    }

    /// Bit reversal: swap bytes, then nibbles, pairs and bits inside them.
    fn rbit(&mut self, w: Width, d: Reg, s: Opnd) {
        let t = self.scratch();
        let m = self.scratch();
        let g = self.dest(d, RAX);
        self.move_into(w, RAX, s);
        self.asm.bswap(x(w), RAX);
        for (shift, mask) in
            [(4, 0x0f0f_0f0f_0f0f_0f0f_i64), (2, 0x3333_3333_3333_3333), (1, 0x5555_5555_5555_5555)]
        {
            let mask = if w == Width::W { mask & 0xffff_ffff } else { mask };
            self.asm.mov_imm(m, mask);
            self.asm.mov(t, RAX);
            self.asm.shift_imm(Shift::Shr, x(w), t, shift);
            self.asm.op(Op2::And, x(w), t, m);
            self.asm.op(Op2::And, x(w), RAX, m);
            self.asm.shift_imm(Shift::Shl, x(w), RAX, shift);
            self.asm.op(Op2::Or, x(w), RAX, t);
        }
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    fn rev16(&mut self, w: Width, d: Reg, s: Opnd) {
        let t = self.scratch();
        let m = self.scratch();
        let g = self.dest(d, RAX);
        let mask = if w == Width::W { 0x00ff_00ff } else { 0x00ff_00ff_00ff_00ff };
        self.move_into(w, RAX, s);
        self.asm.mov_imm(m, mask);
        self.asm.mov(t, RAX);
        self.asm.shift_imm(Shift::Shr, x(w), t, 8);
        self.asm.op(Op2::And, x(w), t, m);
        self.asm.op(Op2::And, x(w), RAX, m);
        self.asm.shift_imm(Shift::Shl, x(w), RAX, 8);
        self.asm.op(Op2::Or, x(w), RAX, t);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    fn extract(&mut self, signed: bool, w: Width, d: Reg, s: Opnd, (lsb, width): (u8, u8)) {
        if d == Reg::NONE {
            return;
        }
        let bits = w.bits() as u8;
        if lsb == 0 && width == bits {
            return self.mov(w, d, s);
        }
        if lsb == 0 && matches!(width, 8 | 16 | 32) {
            let op = match (signed, width) {
                (true, 8) => UnaryOp::SextB,
                (true, 16) => UnaryOp::SextH,
                (true, _) => UnaryOp::SextW,
                (false, 8) => UnaryOp::ZextB,
                (false, 16) => UnaryOp::ZextH,
                (false, _) => UnaryOp::ZextW,
            };
            return self.unary(op, w, d, s);
        }
        self.clobber_flags();
        let g = self.dest_over(d, s, RAX);
        self.move_to_change(w, g, s);
        let up = bits - lsb - width;
        if signed {
            if up != 0 {
                self.asm.shift_imm(Shift::Shl, x(w), g, up);
            }
            self.asm.shift_imm(Shift::Sar, x(w), g, bits - width);
        } else {
            if lsb != 0 {
                self.asm.shift_imm(Shift::Shr, x(w), g, lsb);
            }
            if up != 0 {
                if width < 32 {
                    self.asm.op_imm(Op2::And, false, g, ((1u32 << width) - 1) as i32);
                } else if width == 32 {
                    self.asm.mov32(g, g);
                } else {
                    self.asm.shift_imm(Shift::Shl, true, g, 64 - width);
                    self.asm.shift_imm(Shift::Shr, true, g, 64 - width);
                }
            }
        }
        self.done(d, g);
    }

    /// A bit of `s` as a mask over `b`: what shifting it there and back, and AND, come to.
    pub(super) fn mask_by_bit(&mut self, w: Width, d: Reg, (s, bit): (Opnd, u8), b: Opnd) {
        self.clobber_flags();
        let t = self.scratch();
        let g = self.dest(d, RAX);
        let tested = match s {
            Opnd::Reg(r) => Rm::from(self.loc(r)),
            Opnd::Imm(_) => self.value(s, RAX).into(),
        };
        if bit < 31 {
            self.asm.test_imm(false, tested, 1 << bit);
        } else {
            self.asm.bt_imm(true, tested, bit);
        }
        let masked = match b {
            Opnd::Reg(r) => Rm::from(self.loc(r)),
            Opnd::Imm(_) => self.value(b, t).into(),
        };
        let t = if self.is_in(b, g) { RAX } else { g };
        self.asm.mov_imm(t, 0);
        self.asm.cmov(if bit < 31 { Cc::NE } else { Cc::B }, x(w), t, masked);
        self.done(d, t);
    }

    fn insert(&mut self, w: Width, d: Reg, into: Opnd, s: Opnd, (lsb, width): (u8, u8)) {
        if d == Reg::NONE {
            return;
        }
        self.clobber_flags();
        let t = self.scratch();
        let m = self.scratch();
        let g = self.dest(d, RAX);
        let ones = if width == 64 { u64::MAX } else { (1u64 << width) - 1 };
        let mask = ones << lsb;
        self.move_into(w, t, s);
        if lsb != 0 {
            self.asm.shift_imm(Shift::Shl, x(w), t, lsb);
        }
        self.move_into(w, RAX, into);
        let full = if w == Width::W { 0xffff_ffff } else { u64::MAX };
        self.and_constant(w, t, mask & full, m);
        self.and_constant(w, RAX, !mask & full, m);
        self.asm.op(Op2::Or, x(w), RAX, t);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    fn and_constant(&mut self, w: Width, g: Gpr, mask: u64, s: Gpr) {
        let v = if w == Width::W { i64::from(mask as u32 as i32) } else { mask as i64 };
        match i32::try_from(v) {
            Ok(i) => self.asm.op_imm(Op2::And, x(w), g, i),
            Err(_) => {
                self.asm.mov_imm(s, v);
                self.asm.op(Op2::And, x(w), g, s);
            }
        }
    }

    fn extr(&mut self, w: Width, d: Reg, hi: Opnd, lo: Opnd, lsb: u8) {
        if d == Reg::NONE {
            return;
        }
        if lsb == 0 {
            return self.mov(w, d, lo);
        }
        if hi == lo {
            return self.shift(AluOp::Ror, w, d, hi, Opnd::Imm(i64::from(lsb)));
        }
        self.clobber_flags();
        let s = self.scratch();
        let g = self.dest(d, RAX);
        let hi = self.value(hi, s);
        self.move_into(w, RAX, lo);
        self.asm.shrd(x(w), RAX, hi, lsb);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    fn mul_high(&mut self, signed: bool, d: Reg, a: Opnd, b: Opnd) {
        if d == Reg::NONE {
            return;
        }
        if !signed {
            return self.unsigned_mul_high(d, a, b);
        }
        self.clobber_flags();
        self.scratch_exactly(RDX);
        let s = self.scratch();
        let g = self.dest(d, RAX);
        let b = self.value(b, s);
        self.move_into(Width::X, RAX, a);
        self.asm.group3(5, true, b);
        self.asm.mov(g, RDX);
        self.done(d, g);
    }

    fn div(&mut self, signed: bool, w: Width, d: Reg, a: Opnd, b: Opnd) {
        if d == Reg::NONE {
            return;
        }
        self.clobber_flags();
        self.scratch_exactly(RDX);
        let s = self.scratch();
        let g = self.dest(d, RAX);
        self.move_into(w, s, b);
        self.move_into(w, RAX, a);
        self.asm.test(x(w), s, s);
        let zero = self.asm.jcc(Cc::E);
        let mut done = None;
        if signed {
            // Dividing by -1 is negation: the host would trap on MIN / -1.
            self.asm.op_imm(Op2::Cmp, x(w), s, -1);
            let general = self.asm.jcc(Cc::NE);
            self.asm.group3(3, x(w), RAX);
            done = Some(self.asm.jmp());
            self.asm.bind(general);
            self.asm.sign_to_rdx(x(w));
            self.asm.group3(7, x(w), s);
        } else {
            self.asm.mov_imm(RDX, 0);
            self.asm.group3(6, x(w), s);
        }
        let after = self.asm.jmp();
        self.asm.bind(zero);
        self.asm.mov_imm(RAX, 0);
        self.asm.bind(after);
        if let Some(f) = done {
            self.asm.bind(f);
        }
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    fn min_max(&mut self, max: bool, signed: bool, w: Width, d: Reg, (a, b): (Opnd, Opnd)) {
        if d == Reg::NONE {
            return;
        }
        self.clobber_flags();
        let s = self.scratch();
        let g = self.dest(d, RAX);
        self.move_into(w, s, b);
        self.move_into(w, RAX, a);
        self.asm.op(Op2::Cmp, x(w), RAX, s);
        let cc = match (max, signed) {
            (true, true) => Cc::L,
            (true, false) => Cc::B,
            (false, true) => Cc::G,
            (false, false) => Cc::A,
        };
        self.asm.cmov(cc, x(w), RAX, s);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    fn crc32(&mut self, c: bool, size: u8, d: Reg, acc: Opnd, data: Opnd) {
        if d == Reg::NONE {
            return;
        }
        let s = self.scratch();
        if c {
            let g = self.dest(d, RAX);
            let data = self.value(data, s);
            self.move_into(Width::W, RAX, acc);
            self.asm.crc32c(size, RAX, data);
            self.asm.mov32(g, RAX);
            return self.done(d, g);
        }
        self.clobber_flags();
        self.move_into(Width::X, s, data);
        self.move_into(Width::W, RAX, acc);
        self.crc32_iso(size, s);
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    /// rax = CRC32 of the data in `s` into eax. The multiple of the polynomial whose low half is the data has the remainder
    /// above it; the factor is the data times the polynomial's inverse.
    fn crc32_iso(&mut self, size: u8, s: Gpr) {
        const PCLMULQDQ: Opc = opc(1, 3, 0x44);
        let bits = 8 << size;
        let constants = field(std::mem::offset_of!(JitState, consts.crc32));
        self.asm.op(Op2::Xor, true, s, RAX);
        if bits < 64 {
            self.asm.shift_imm(Shift::Shl, true, s, 64 - bits);
        }
        self.asm.vex(opcw(1, 1, 0x6e), X0.0, 0, s);
        self.asm.vex_imm(PCLMULQDQ, X0.0, X0.0, constants, 0x00);
        self.asm.vex_imm(PCLMULQDQ, X0.0, X0.0, constants, 0x10);
        self.asm.vex_imm(opcw(1, 3, 0x16), X0.0, 0, s, 1);
        if bits < 32 {
            self.asm.shift_imm(Shift::Shr, false, RAX, bits);
            self.asm.op(Op2::Xor, false, RAX, s);
        } else {
            self.asm.mov32(RAX, s);
        }
    }

    fn select(&mut self, op: SelectOp, w: Width, d: Reg, cond: Cond, (a, b): (Opnd, Opnd)) {
        if d == Reg::NONE {
            return;
        }
        if cond.always() {
            return self.mov(w, d, a);
        }
        let s = self.scratch();
        let cc = self.host_condition(cond);
        let g = self.dest(d, RAX);
        // cset and csetm
        if a == Opnd::Imm(0) && b == Opnd::Imm(0) && matches!(op, SelectOp::Increment | SelectOp::Invert) {
            self.asm.mov_imm(g, 0);
            self.asm.setcc(cc.invert(), g);
            if op == SelectOp::Invert {
                // -1 or 0; the flags must survive, so no NEG: 0 - x by LEA of NOT.
                self.asm.lea(true, g, M::at(g, -1));
                self.asm.group3(2, x(w), g);
            }
            return self.done(d, g);
        }
        if self.is_in(a, g) {
            // It stays unless the other one is chosen. A 32-bit move clears the upper half in both cases.
            let other = match (op, b) {
                (SelectOp::None, Opnd::Reg(r)) => self.loc(r).into(),
                _ => {
                    self.changed(op, w, RAX, b);
                    Rm::from(RAX)
                }
            };
            self.asm.cmov(cc.invert(), x(w), g, other);
            return self.done(d, g);
        }
        self.changed(op, w, g, b);
        let a = match a {
            Opnd::Imm(_) => self.value(a, s).into(),
            Opnd::Reg(r) => Rm::from(self.loc(r)),
        };
        self.asm.cmov(cc, x(w), g, a);
        self.done(d, g);
    }

    /// t = `b`, changed as a select changes its second input; keeps the flags.
    fn changed(&mut self, op: SelectOp, w: Width, t: Gpr, b: Opnd) {
        if let (SelectOp::Increment, Opnd::Reg(r)) = (op, b)
            && let Loc::Host(g) = self.loc(r)
        {
            return self.asm.lea(x(w), t, M::at(g, 1));
        }
        if !self.is_in(b, t) {
            self.move_into(w, t, b);
        }
        match op {
            SelectOp::None => {}
            SelectOp::Increment => self.asm.lea(x(w), t, M::at(t, 1)),
            SelectOp::Invert => self.asm.group3(2, x(w), t),
            SelectOp::Negate => {
                self.asm.group3(2, x(w), t);
                self.asm.lea(x(w), t, M::at(t, 1));
            }
        }
    }

    fn get_nzcv(&mut self, d: Reg) {
        if d == Reg::NONE {
            return;
        }
        self.save_nzcv();
        self.flags_lost();
        let s = self.scratch();
        let g = self.dest(d, RAX);
        let slot = self.nzcv_slot();
        self.asm.movzx16(RAX, slot);
        self.asm.op_imm(Op2::Xor, false, RAX, 0x100);
        self.asm.mov32(s, RAX);
        self.asm.op_imm(Op2::And, false, s, 0xc000);
        self.asm.shift_imm(Shift::Shl, false, s, 16);
        // C: bit 8 to 29, V: bit 0 to 28.
        self.asm.push(s);
        self.asm.mov32(s, RAX);
        self.asm.op_imm(Op2::And, false, s, 0x100);
        self.asm.shift_imm(Shift::Shl, false, s, 21);
        self.asm.op_imm(Op2::And, false, RAX, 1);
        self.asm.shift_imm(Shift::Shl, false, RAX, 28);
        self.asm.op(Op2::Or, false, RAX, s);
        self.asm.pop(s);
        self.asm.op(Op2::Or, false, RAX, s);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    fn set_nzcv(&mut self, o: Opnd) {
        self.nzcv = Nzcv::Slot;
        let s = self.scratch();
        self.move_into(Width::W, RAX, o);
        self.asm.shift_imm(Shift::Shr, false, RAX, 28);
        // Table of sixteen halfwords behind the state's constants.
        self.asm.lea(true, s, field(std::mem::offset_of!(JitState, consts.nzcv_slots)));
        self.asm.movzx16(RAX, M::indexed(s, RAX, 1, 0));
        let slot = self.nzcv_slot();
        self.asm.store16(slot, RAX);
    }

    fn pc_rel(&mut self, d: Reg, offset: i64) {
        if d == Reg::NONE {
            return;
        }
        let g = self.dest(d, RAX);
        self.page_relative(g, offset);
        self.done(d, g);
    }

    /// g = virtual address of the page + offset; keeps the flags. `g` is not needed for anything else.
    pub(super) fn page_relative(&mut self, g: Gpr, offset: i64) {
        self.asm.load(true, g, field(std::mem::offset_of!(JitState, page_va)));
        match i32::try_from(offset) {
            Ok(0) => {}
            Ok(disp) => self.asm.lea(true, g, M::at(g, disp)),
            Err(_) => {
                // ADRP reaches 4 GiB: two steps.
                let mut rest = offset;
                while rest != 0 {
                    let step = rest.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                    self.asm.lea(true, g, M::at(g, step as i32));
                    rest -= step;
                }
            }
        }
    }
}
