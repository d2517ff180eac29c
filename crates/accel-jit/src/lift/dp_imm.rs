//! Data processing (immediate).

use armlet_arm::{Class, Enc};

use super::fields::*;
use super::{Flow, LiftContext, dp_reg};
use crate::ir::{AluOp, Builder, FlagOp, Inst, Opnd, Reg, UnaryOp, Width};

/// Lifts the classes of this module.
pub fn lift(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    match enc.class() {
        Class::Pcreladdr => pc_relative(b, ctx, word),
        Class::AddsubImm => add_sub(b, word),
        Class::MinmaxImm => min_max(b, word),
        Class::LogImm => logical(b, word)?,
        Class::Movewide => move_wide(b, word)?,
        Class::Bitfield => bitfield(b, word)?,
        Class::Extract => extract(b, word)?,
        _ => return None,
    }
    Some(Flow::Next)
}

/// ADR, ADRP. The page base is that of the 4 KiB page, so ADRP's offset is a multiple of it.
fn pc_relative(b: &mut Builder, ctx: &LiftContext, word: u32) {
    let value = (sbits(word, 5, 19) << 2) | i64::from(bits(word, 29, 2));
    let offset = if bit(word, 31) { value << 12 } else { value + i64::from(ctx.offset) };
    if rd(word) != 31 {
        b.emit(Inst::PcRel { d: Builder::dz(rd(word)), offset });
    }
}

/// ADD, ADDS, SUB, SUBS (immediate): SP as source, and as destination unless flags are set.
fn add_sub(b: &mut Builder, word: u32) {
    let w = sf(word);
    let value = i64::from(bits(word, 10, 12)) << if bit(word, 22) { 12 } else { 0 };
    let (a, o) = (Opnd::Reg(Builder::sp(rn(word))), Opnd::Imm(value));
    match (bit(word, 30), bit(word, 29)) {
        (false, false) => alu(b, AluOp::Add, w, Builder::sp(rd(word)), (a, o)),
        (true, false) => alu(b, AluOp::Sub, w, Builder::sp(rd(word)), (a, o)),
        (sub, true) => {
            let op = if sub { FlagOp::Sub } else { FlagOp::Add };
            b.emit(Inst::AluFlags { op, w, d: Builder::dz(rd(word)), a, b: o });
        }
    }
}

/// DecodeBitMasks: the bitmask immediate of N:immr:imms, or `None` where it is reserved.
pub fn bitmask(w: Width, n: bool, immr: u32, imms: u32) -> Option<u64> {
    if n && w == Width::W {
        return None;
    }
    let len = 31u32.checked_sub(((u32::from(n) << 6) | (!imms & 0x3f)).leading_zeros())?;
    if len < 1 {
        return None;
    }
    let levels = (1u32 << len) - 1;
    let (s, r) = (imms & levels, immr & levels);
    if s == levels {
        return None;
    }
    let esize = 1u32 << len;
    let element_mask = u64::MAX >> (64 - esize);
    let welem = u64::MAX >> (63 - s);
    let rotated = if r == 0 { welem } else { ((welem >> r) | (welem << (esize - r))) & element_mask };
    let mut value = rotated;
    let mut size = esize;
    while size < 64 {
        value |= value << size;
        size *= 2;
    }
    Some(if w == Width::W { value & 0xffff_ffff } else { value })
}

/// AND, ORR, EOR, ANDS (immediate).
fn logical(b: &mut Builder, word: u32) -> Option<()> {
    let w = sf(word);
    let value = imm(w, bitmask(w, bit(word, 22), bits(word, 16, 6), bits(word, 10, 6))?);
    let a = Builder::xz(rn(word));
    let d = Builder::sp(rd(word));
    match bits(word, 29, 2) {
        0 => alu(b, AluOp::And, w, d, (a, value)),
        1 => alu(b, AluOp::Or, w, d, (a, value)),
        2 => alu(b, AluOp::Xor, w, d, (a, value)),
        _ => b.emit(Inst::AluFlags { op: FlagOp::And, w, d: Builder::dz(rd(word)), a, b: value }),
    }
    Some(())
}

/// MOVN, MOVZ, MOVK.
fn move_wide(b: &mut Builder, word: u32) -> Option<()> {
    let w = sf(word);
    let lsb = bits(word, 21, 2) * 16;
    if lsb >= w.bits() {
        return None;
    }
    let d = Builder::dz(rd(word));
    let value = u64::from(bits(word, 5, 16));
    match bits(word, 29, 2) {
        0 => mov(b, w, d, imm(w, !(value << lsb))),
        2 => mov(b, w, d, imm(w, value << lsb)),
        _ if d == Reg::NONE => {}
        _ => {
            let s = Opnd::Imm(value as i64);
            b.emit(Inst::Insert { w, d, into: d.into(), s, lsb: lsb as u8, width: 16 });
        }
    }
    Some(())
}

/// SBFM, BFM, UBFM.
fn bitfield(b: &mut Builder, word: u32) -> Option<()> {
    let w = sf(word);
    let (immr, imms) = (bits(word, 16, 6), bits(word, 10, 6));
    if bit(word, 22) != bit(word, 31) || immr >= w.bits() || imms >= w.bits() {
        return None;
    }
    let d = Builder::dz(rd(word));
    if d == Reg::NONE {
        return Some(());
    }
    let s = Builder::xz(rn(word));
    match bits(word, 29, 2) {
        0 => field_move(b, true, w, (d, s), (immr, imms)),
        1 => field_insert(b, w, (d, s), (immr, imms)),
        _ => field_move(b, false, w, (d, s), (immr, imms)),
    }
    Some(())
}

/// SBFM and UBFM with their aliases.
fn field_move(b: &mut Builder, signed: bool, w: Width, (d, s): (Reg, Opnd), (immr, imms): (u32, u32)) {
    let top = w.bits() - 1;
    if imms >= immr {
        match (imms - immr + 1, immr) {
            (32, 0) if w == Width::W => mov(b, w, d, s),
            (64, 0) => mov(b, w, d, s),
            _ if imms == top => {
                alu(b, if signed { AluOp::Sar } else { AluOp::Shr }, w, d, (s, Opnd::Imm(immr.into())));
            }
            (width, 0) => low_field(b, signed, w, (d, s), width),
            (width, lsb) => {
                b.emit(Inst::Extract { signed, w, d, s, lsb: lsb as u8, width: width as u8 });
            }
        }
        return;
    }
    let (lsb, width) = (w.bits() - immr, imms + 1);
    let shift = Opnd::Imm(lsb.into());
    if lsb + width == w.bits() {
        return alu(b, AluOp::Shl, w, d, (s, shift));
    }
    let t = b.temp();
    low_field(b, signed, w, (t, s), width);
    alu(b, AluOp::Shl, w, d, (t.into(), shift));
}

/// `d` = the low `width` bits of `s`, extended.
fn low_field(b: &mut Builder, signed: bool, w: Width, (d, s): (Reg, Opnd), width: u32) {
    let op = match (width, signed) {
        (8, false) => UnaryOp::ZextB,
        (16, false) => UnaryOp::ZextH,
        (32, false) => UnaryOp::ZextW,
        (8, true) => UnaryOp::SextB,
        (16, true) => UnaryOp::SextH,
        (32, true) => UnaryOp::SextW,
        _ => return b.emit(Inst::Extract { signed, w, d, s, lsb: 0, width: width as u8 }),
    };
    unary(b, op, w, d, s);
}

/// BFM: BFXIL and BFI.
fn field_insert(b: &mut Builder, w: Width, (d, s): (Reg, Opnd), (immr, imms): (u32, u32)) {
    let (lsb, width, s) = if imms < immr {
        (w.bits() - immr, imms + 1, s)
    } else if immr == 0 {
        (0, imms + 1, s)
    } else {
        let width = imms - immr + 1;
        let t = b.temp();
        b.emit(Inst::Extract { signed: false, w, d: t, s, lsb: immr as u8, width: width as u8 });
        (0, width, t.into())
    };
    if width == w.bits() {
        return mov(b, w, d, s);
    }
    b.emit(Inst::Insert { w, d, into: d.into(), s, lsb: lsb as u8, width: width as u8 });
}

/// EXTR (ROR by a constant when both sources are one register).
fn extract(b: &mut Builder, word: u32) -> Option<()> {
    let w = sf(word);
    let lsb = bits(word, 10, 6);
    if bit(word, 22) != bit(word, 31) || lsb >= w.bits() {
        return None;
    }
    let d = Builder::dz(rd(word));
    let (hi, lo) = (Builder::xz(rn(word)), Builder::xz(rm(word)));
    if d == Reg::NONE {
    } else if lsb == 0 {
        mov(b, w, d, lo);
    } else if hi == lo {
        alu(b, AluOp::Ror, w, d, (lo, Opnd::Imm(lsb.into())));
    } else {
        b.emit(Inst::Extr { w, d, hi, lo, lsb: lsb as u8 });
    }
    Some(())
}

/// SMAX, UMAX, SMIN, UMIN (immediate).
fn min_max(b: &mut Builder, word: u32) {
    let (w, opcode) = (sf(word), bits(word, 18, 2));
    let value = if opcode & 1 == 0 { sbits(word, 10, 8) } else { i64::from(bits(word, 10, 8)) };
    b.emit(dp_reg::min_max(w, Builder::dz(rd(word)), (Builder::xz(rn(word)), Opnd::Imm(value)), opcode));
}
