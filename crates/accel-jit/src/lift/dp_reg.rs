//! Data processing (register).

use armlet_arm::pauth::Operation;
use armlet_arm::{Class, Enc, Feature};

use super::fields::*;
use super::{Flow, LiftContext, pointer};
use crate::ir::{AluOp, Builder, Cond, FlagOp, Inst, Opnd, Reg, SelectOp, UnaryOp, Width};

/// Lifts the classes of this module.
pub fn lift(b: &mut Builder, _ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    match enc.class() {
        Class::LogShift => logical_shifted(b, word)?,
        Class::AddsubShift => add_sub_shifted(b, word)?,
        Class::AddsubExt => add_sub_extended(b, word)?,
        Class::AddsubCarry => add_sub_carry(b, word),
        Class::CondcmpImm | Class::CondcmpReg => conditional_compare(b, word),
        Class::Condsel => conditional_select(b, word),
        Class::Dp1src if enc.feature() == Feature::PAuth => pointer::one_source(b, word)?,
        Class::Dp1src => one_source(b, word)?,
        Class::Dp2src => two_sources(b, word)?,
        Class::Dp3src => three_sources(b, word)?,
        Class::Rmif => rotate_into_flags(b, word),
        Class::Setf => flags_of_narrow(b, word),
        _ => return None,
    }
    Some(Flow::Next)
}

/// AND, BIC, ORR, ORN, EOR, EON, ANDS, BICS (shifted register).
fn logical_shifted(b: &mut Builder, word: u32) -> Option<()> {
    let w = sf(word);
    let amount = bits(word, 10, 6);
    if amount >= w.bits() {
        return None;
    }
    let d = Builder::dz(rd(word));
    let a = Builder::xz(rn(word));
    let flags = bits(word, 29, 2) == 3;
    if d == Reg::NONE && !flags {
        return Some(());
    }
    let o = shifted(b, w, rm(word), bits(word, 22, 2), amount);
    let op = match (bits(word, 29, 2), bit(word, 21)) {
        (0, false) => AluOp::And,
        (0, true) => AluOp::AndNot,
        (1, false) => AluOp::Or,
        (1, true) => AluOp::OrNot,
        (2, false) => AluOp::Xor,
        (2, true) => AluOp::XorNot,
        (_, not) => {
            let op = if not { FlagOp::AndNot } else { FlagOp::And };
            b.emit(Inst::AluFlags { op, w, d, a, b: o });
            return Some(());
        }
    };
    alu(b, op, w, d, (a, o));
    Some(())
}

/// ADD, ADDS, SUB, SUBS on operands already read.
fn add_sub(b: &mut Builder, word: u32, d: Reg, a: Opnd, o: Opnd) {
    let w = sf(word);
    match (bit(word, 30), bit(word, 29)) {
        (false, false) => alu(b, AluOp::Add, w, d, (a, o)),
        (true, false) => alu(b, AluOp::Sub, w, d, (a, o)),
        (false, true) => b.emit(Inst::AluFlags { op: FlagOp::Add, w, d, a, b: o }),
        (true, true) => b.emit(Inst::AluFlags { op: FlagOp::Sub, w, d, a, b: o }),
    }
}

/// ADD, ADDS, SUB, SUBS (shifted register); ROR is not allowed.
fn add_sub_shifted(b: &mut Builder, word: u32) -> Option<()> {
    let w = sf(word);
    let (kind, amount) = (bits(word, 22, 2), bits(word, 10, 6));
    if kind == 3 || amount >= w.bits() {
        return None;
    }
    let o = shifted(b, w, rm(word), kind, amount);
    add_sub(b, word, Builder::dz(rd(word)), Builder::xz(rn(word)), o);
    Some(())
}

/// ADD, ADDS, SUB, SUBS (extended register): SP as first source, and as destination unless flags are set.
fn add_sub_extended(b: &mut Builder, word: u32) -> Option<()> {
    let shift = bits(word, 10, 3);
    if shift > 4 {
        return None;
    }
    let option = bits(word, 13, 3);
    // For 32-bit operations UXTW and SXTW take the register as it is.
    let option = if sf(word) == Width::W && option & 3 == 2 { 3 } else { option };
    let o = extended(b, rm(word), option, shift);
    let d = if bit(word, 29) { Builder::dz(rd(word)) } else { Builder::sp(rd(word)) };
    add_sub(b, word, d, Builder::sp(rn(word)).into(), o);
    Some(())
}

/// ADC, ADCS, SBC, SBCS.
fn add_sub_carry(b: &mut Builder, word: u32) {
    let w = sf(word);
    let sub = bit(word, 30);
    let d = Builder::dz(rd(word));
    let (a, o) = (Builder::xz(rn(word)), Builder::xz(rm(word)));
    if bit(word, 29) {
        let op = if sub { FlagOp::Sbc } else { FlagOp::Adc };
        b.emit(Inst::AluFlags { op, w, d, a, b: o });
    } else if d != Reg::NONE {
        b.emit(Inst::AddCarry { sub, w, d, a, b: o });
    }
}

/// CCMN, CCMP (register or immediate).
fn conditional_compare(b: &mut Builder, word: u32) {
    let o = if bit(word, 11) { Opnd::Imm(i64::from(rm(word))) } else { Builder::xz(rm(word)) };
    b.emit(Inst::CondCompare {
        add: !bit(word, 30),
        w: sf(word),
        a: Builder::xz(rn(word)),
        b: o,
        cond: Cond(bits(word, 12, 4) as u8),
        nzcv: bits(word, 0, 4) as u8,
    });
}

/// CSEL, CSINC, CSINV, CSNEG.
fn conditional_select(b: &mut Builder, word: u32) {
    let d = Builder::dz(rd(word));
    if d == Reg::NONE {
        return;
    }
    let op = match (bit(word, 30), bit(word, 10)) {
        (false, false) => SelectOp::None,
        (false, true) => SelectOp::Increment,
        (true, false) => SelectOp::Invert,
        (true, true) => SelectOp::Negate,
    };
    let cond = Cond(bits(word, 12, 4) as u8);
    let (a, o) = (Builder::xz(rn(word)), Builder::xz(rm(word)));
    if cond.always() {
        mov(b, sf(word), d, a);
    } else {
        b.emit(Inst::Select { op, w: sf(word), d, cond, a, b: o });
    }
}

/// RBIT, REV16, REV, REV32, CLZ, CLS, CTZ, CNT, ABS.
fn one_source(b: &mut Builder, word: u32) -> Option<()> {
    let w = sf(word);
    let op = match (bits(word, 10, 11), w) {
        (0, _) => UnaryOp::Rbit,
        (1, _) => UnaryOp::Rev16,
        (2, Width::X) => UnaryOp::Rev32,
        (2, Width::W) | (3, Width::X) => UnaryOp::Rev,
        (4, _) => UnaryOp::Clz,
        (5, _) => UnaryOp::Cls,
        (6, _) => UnaryOp::Ctz,
        (7, _) => UnaryOp::Cnt,
        (8, _) => UnaryOp::Abs,
        _ => return None,
    };
    unary(b, op, w, Builder::dz(rd(word)), Builder::xz(rn(word)));
    Some(())
}

/// Variable shifts, division, CRC32, maximum and minimum, PACGA.
fn two_sources(b: &mut Builder, word: u32) -> Option<()> {
    let w = sf(word);
    let d = Builder::dz(rd(word));
    let (a, o) = (Builder::xz(rn(word)), Builder::xz(rm(word)));
    let opcode = bits(word, 10, 6);
    let inst = match opcode {
        2 | 3 => Inst::Div { signed: opcode == 3, w, d, a, b: o },
        8..=11 => {
            let op = [AluOp::Shl, AluOp::Shr, AluOp::Sar, AluOp::Ror][(opcode & 3) as usize];
            alu(b, op, w, d, (a, o));
            return Some(());
        }
        12 => Inst::Pauth { op: Operation::Generic, d, pointer: a, modifier: sp_or(word) },
        24..=27 => min_max(w, d, (a, o), opcode),
        16..=23 => Inst::Crc32 { c: bit(word, 12), size: bits(word, 10, 2) as u8, d, acc: a, data: o },
        _ => return None,
    };
    if d != Reg::NONE {
        b.emit(inst);
    }
    Some(())
}

/// Register Rm, 31 meaning SP.
fn sp_or(word: u32) -> Opnd {
    Builder::sp(rm(word)).into()
}

/// SMAX, UMAX, SMIN, UMIN, in this order by the two low bits of their opcodes.
pub fn min_max(w: Width, d: Reg, (a, b): (Opnd, Opnd), opcode: u32) -> Inst {
    Inst::MinMax { max: opcode & 2 == 0, signed: opcode & 1 == 0, w, d, a, b }
}

/// MADD, MSUB, SMADDL, SMSUBL, UMADDL, UMSUBL, SMULH, UMULH.
fn three_sources(b: &mut Builder, word: u32) -> Option<()> {
    let d = Builder::dz(rd(word));
    if d == Reg::NONE {
        return Some(());
    }
    let (n, m) = (Builder::xz(rn(word)), Builder::xz(rm(word)));
    let (w, x, y) = match bits(word, 21, 3) {
        0 => (sf(word), n, m),
        1 => (Width::X, widened(b, UnaryOp::SextW, n), widened(b, UnaryOp::SextW, m)),
        5 => (Width::X, widened(b, UnaryOp::ZextW, n), widened(b, UnaryOp::ZextW, m)),
        op @ (2 | 6) => {
            b.emit(Inst::MulHigh { signed: op == 2, d, a: n, b: m });
            return Some(());
        }
        _ => return None,
    };
    let addend = Builder::xz(ra(word));
    let op = if bit(word, 15) { AluOp::Sub } else { AluOp::Add };
    if addend == Opnd::Imm(0) && op == AluOp::Add {
        alu(b, AluOp::Mul, w, d, (x, y));
    } else {
        let t = b.temp();
        alu(b, AluOp::Mul, w, t, (x, y));
        alu(b, op, w, d, (addend, t.into()));
    }
    Some(())
}

fn widened(b: &mut Builder, op: UnaryOp, s: Opnd) -> Opnd {
    if s == Opnd::Imm(0) { s } else { b.unary(op, Width::X, s).into() }
}

/// RMIF: the flags that the mask names become the low bits of the rotated register.
fn rotate_into_flags(b: &mut Builder, word: u32) {
    let mask = i64::from(bits(word, 0, 4)) << 28;
    let old = b.temp();
    b.emit(Inst::GetNzcv { d: old });
    // The register's bits 3:0 after the rotation, moved to 31:28.
    let by = (bits(word, 15, 6) + 64 - 28) % 64;
    let rotated = b.temp();
    alu(b, AluOp::Ror, Width::X, rotated, (Builder::xz(rn(word)), Opnd::Imm(by.into())));
    let new = b.alu(AluOp::And, Width::X, rotated, Opnd::Imm(mask));
    let kept = b.alu(AluOp::And, Width::X, old, Opnd::Imm(!mask & 0xf000_0000));
    let nzcv = b.alu(AluOp::Or, Width::X, new, kept);
    b.emit(Inst::SetNzcv { s: nzcv.into() });
}

/// SETF8, SETF16: N, Z and V of a narrow value; C stays.
fn flags_of_narrow(b: &mut Builder, word: u32) {
    let top = if bit(word, 14) { 15u8 } else { 7 };
    let s = Builder::xz(rn(word));
    let old = b.temp();
    b.emit(Inst::GetNzcv { d: old });
    let kept = b.alu(AluOp::And, Width::X, old, Opnd::Imm(1 << 29));
    // Flags of the value at the top of a word give N and Z; C and V come from elsewhere.
    let high = b.temp();
    alu(b, AluOp::Shl, Width::W, high, (s, Opnd::Imm(i64::from(31 - top))));
    b.emit(Inst::AluFlags { op: FlagOp::And, w: Width::W, d: Reg::NONE, a: high.into(), b: high.into() });
    let nz = b.temp();
    b.emit(Inst::GetNzcv { d: nz });
    // V is the exclusive or of the sign bit and the bit above it.
    let twice = b.temp();
    alu(b, AluOp::Shr, Width::X, twice, (s, Opnd::Imm(1)));
    let diff = b.temp();
    alu(b, AluOp::Xor, Width::X, diff, (s, twice.into()));
    let v = b.temp();
    b.emit(Inst::Extract { signed: false, w: Width::X, d: v, s: diff.into(), lsb: top, width: 1 });
    let v = b.alu(AluOp::Shl, Width::X, v, Opnd::Imm(28));
    let nzc = b.alu(AluOp::Or, Width::X, nz, kept);
    let all = b.alu(AluOp::Or, Width::X, nzc, v);
    b.emit(Inst::SetNzcv { s: all.into() });
}
