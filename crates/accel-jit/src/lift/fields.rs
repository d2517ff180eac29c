//! Fields of instruction words, and emission helpers that several classes share.

use crate::ir::{Addr, AluOp, Builder, Inst, Opnd, Reg, UnaryOp, Width};

use super::LiftContext;

/// Bits `lo .. lo + width`.
pub fn bits(word: u32, lo: u32, width: u32) -> u32 {
    (word >> lo) & ((1 << width) - 1)
}

/// One bit.
pub fn bit(word: u32, n: u32) -> bool {
    word >> n & 1 != 0
}

/// Bits `lo .. lo + width` as a signed number.
pub fn sbits(word: u32, lo: u32, width: u32) -> i64 {
    i64::from((word << (32 - lo - width)) as i32 >> (32 - width))
}

/// Field Rd or Rt.
pub fn rd(word: u32) -> u32 {
    bits(word, 0, 5)
}

/// Field Rn.
pub fn rn(word: u32) -> u32 {
    bits(word, 5, 5)
}

/// Field Rm or Rs of memory operations.
pub fn rm(word: u32) -> u32 {
    bits(word, 16, 5)
}

/// Field Ra or Rt2.
pub fn ra(word: u32) -> u32 {
    bits(word, 10, 5)
}

/// The width that the `sf` bit says.
pub fn sf(word: u32) -> Width {
    Width::from_sf(bit(word, 31))
}

/// A constant as an operand of width `w`: sign-extended from its width.
pub fn imm(w: Width, v: u64) -> Opnd {
    Opnd::Imm(match w {
        Width::W => i64::from(v as u32 as i32),
        Width::X => v as i64,
    })
}

/// `d = s`; nothing if nobody wants it.
pub fn mov(b: &mut Builder, w: Width, d: Reg, s: impl Into<Opnd>) {
    let s = s.into();
    if d != Reg::NONE && !(w == Width::X && s == Opnd::Reg(d)) {
        b.emit(Inst::Mov { w, d, s });
    }
}

/// `d = op s`; nothing if nobody wants it.
pub fn unary(b: &mut Builder, op: UnaryOp, w: Width, d: Reg, s: Opnd) {
    if d != Reg::NONE {
        b.emit(Inst::Unary { op, w, d, s });
    }
}

/// `d = a op o` without flags, in the simplest form that operands of zero allow.
pub fn alu(b: &mut Builder, op: AluOp, w: Width, d: Reg, (a, o): (Opnd, Opnd)) {
    use AluOp::*;
    const ZERO: Opnd = Opnd::Imm(0);
    match (op, a == ZERO, o == ZERO) {
        _ if d == Reg::NONE => {}
        (Add | Or | Xor, true, _) => mov(b, w, d, o),
        (Add | Sub | Or | Xor | AndNot | Shl | Shr | Sar | Ror, _, true) => mov(b, w, d, a),
        (And | Mul, true, _) | (And | Mul, _, true) => mov(b, w, d, ZERO),
        (AndNot | Shl | Shr | Sar | Ror, true, _) => mov(b, w, d, ZERO),
        (Sub, true, _) => unary(b, UnaryOp::Neg, w, d, o),
        (OrNot | XorNot, true, true) | (OrNot, _, true) => mov(b, w, d, Opnd::Imm(-1)),
        (OrNot | XorNot, true, _) => unary(b, UnaryOp::Not, w, d, o),
        (XorNot, _, true) => unary(b, UnaryOp::Not, w, d, a),
        _ => b.emit(Inst::Alu { op, w, d, a, b: o }),
    }
}

/// A register field shifted by a constant: LSL, LSR, ASR, ROR.
pub fn shifted(b: &mut Builder, w: Width, reg: u32, kind: u32, amount: u32) -> Opnd {
    let s = Builder::xz(reg);
    if amount == 0 || s == Opnd::Imm(0) {
        return s;
    }
    let op = [AluOp::Shl, AluOp::Shr, AluOp::Sar, AluOp::Ror][kind as usize & 3];
    b.alu(op, w, s, Opnd::Imm(i64::from(amount))).into()
}

/// A register field extended as `option` says (UXTB, UXTH, UXTW, UXTX, SXTB, …) and shifted left.
pub fn extended(b: &mut Builder, reg: u32, option: u32, shift: u32) -> Opnd {
    let s = Builder::xz(reg);
    if s == Opnd::Imm(0) {
        return s;
    }
    let op = match option & 7 {
        0 => UnaryOp::ZextB,
        1 => UnaryOp::ZextH,
        2 => UnaryOp::ZextW,
        4 => UnaryOp::SextB,
        5 => UnaryOp::SextH,
        6 => UnaryOp::SextW,
        _ => return shifted(b, Width::X, reg, 0, shift),
    };
    let t = b.unary(op, Width::X, s);
    if shift == 0 { t.into() } else { b.alu(AluOp::Shl, Width::X, t, Opnd::Imm(i64::from(shift))).into() }
}

/// Checks SP's alignment if the base register field is SP and the check is on.
pub fn check_sp(b: &mut Builder, ctx: &LiftContext, base: u32) {
    if base == 31 && ctx.check_sp {
        b.emit(Inst::CheckSp);
    }
}

/// How an access with an immediate offset treats its base register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Index {
    /// Base + offset, base kept.
    Offset,
    /// Base + offset, written back.
    Pre,
    /// Base, base + offset written back.
    Post,
}

/// The address of an access with an immediate offset. The base register is changed by [`write_back`], after the
/// access.
pub fn address(base: u32, offset: i64, index: Index) -> Addr {
    let disp = if index == Index::Post { 0 } else { offset as i32 };
    Addr::offset(Builder::sp(base), disp)
}

/// Before an access that loads into its own base register: what the base will be, since it can't be had later.
pub fn early_base(b: &mut Builder, base: u32, offset: i64, index: Index, loads: &[u32]) -> Option<Reg> {
    let clobbered = index != Index::Offset && base != 31 && loads.contains(&base);
    clobbered.then(|| b.alu(AluOp::Add, Width::X, Builder::sp(base), Opnd::Imm(offset)))
}

/// After the access: the write-back of the base register.
pub fn write_back(b: &mut Builder, base: u32, offset: i64, index: Index, early: Option<Reg>) {
    let d = Builder::sp(base);
    match (index, early) {
        (Index::Offset, _) => {}
        (_, Some(t)) => mov(b, Width::X, d, t),
        _ => alu(b, AluOp::Add, Width::X, d, (d.into(), Opnd::Imm(offset))),
    }
}
