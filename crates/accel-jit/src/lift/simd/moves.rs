//! Moves of elements, permutations, table lookups and constants.

use super::*;
use crate::helpers::vector::int;
use crate::ir::Extend;

/// Field `imm5` as element size and index.
fn lane(s: &Simd) -> Option<(u8, u8)> {
    let imm5 = bits(s.word, 16, 5);
    let es = imm5.trailing_zeros();
    (es < 4).then(|| (es as u8, (imm5 >> (es + 1)) as u8))
}

/// Advanced SIMD copy.
pub fn insert(s: &mut Simd) -> Option<Flow> {
    let (es, index) = lane(s)?;
    let (d, n, q) = (s.d(), s.n(), s.q());
    let x = Builder::xz(bits(s.word, 5, 5));
    let to = Builder::dz(bits(s.word, 0, 5));
    match s.enc {
        Enc::DUP_asimdins_DV_v => {
            not_one_lane(es, q)?;
            s.emit(Inst::VDupLane { es, q, d, n, lane: index })
        }
        Enc::DUP_asimdins_DR_r => {
            not_one_lane(es, q)?;
            s.emit(Inst::VDupGpr { es, q, d, s: x })
        }
        Enc::INS_asimdins_IR_r => s.emit(Inst::VInsGpr { es, d, lane: index, s: x }),
        Enc::INS_asimdins_IV_v => {
            let nl = (bits(s.word, 11, 4) >> es) as u8;
            s.emit(Inst::VInsLane { es, d, dl: index, n, nl })
        }
        Enc::SMOV_asimdins_W_w => {
            allowed(es < 2)?;
            get_lane(s, es, Extend::SignW, to, index)
        }
        Enc::SMOV_asimdins_X_x => {
            allowed(es < 3)?;
            get_lane(s, es, Extend::SignX, to, index)
        }
        Enc::UMOV_asimdins_W_w => {
            allowed(es < 3)?;
            get_lane(s, es, Extend::Zero, to, index)
        }
        Enc::UMOV_asimdins_X_x => {
            allowed(es == 3)?;
            get_lane(s, es, Extend::Zero, to, index)
        }
        _ => None,
    }
}

/// An element to a general register, unless that is the zero register.
pub(super) fn get_lane(s: &mut Simd, es: u8, ext: Extend, d: Reg, lane: u8) -> Option<Flow> {
    let n = s.n();
    if d != Reg::NONE {
        s.emit(Inst::VGetLane { es, ext, d, n, lane });
    }
    Some(Flow::Next)
}

/// DUP (element, scalar).
pub fn scalar_copy(s: &mut Simd) -> Option<Flow> {
    let (es, lane) = lane(s)?;
    let (d, n) = (s.d(), s.n());
    if es == 3 {
        return s.emit(Inst::VDupLane { es, q: false, d, n, lane });
    }
    let t = s.b.temp();
    s.emit(Inst::VGetLane { es, ext: Extend::Zero, d: t, n, lane });
    s.emit(Inst::VFromGpr { es: 2, d, s: t.into() })
}

/// EXT.
pub fn extract(s: &mut Simd) -> Option<Flow> {
    let imm = bits(s.word, 11, 4) as u8;
    let q = s.q();
    allowed(q || imm < 8)?;
    let (d, n, m) = (s.d(), s.n(), s.m());
    s.emit(Inst::VExt { q, d, n, m, imm })
}

/// ZIP, UZP, TRN.
pub fn permute(s: &mut Simd) -> Option<Flow> {
    let op = match s.mnemonic {
        "UZP1" => V3Op::Uzp1,
        "UZP2" => V3Op::Uzp2,
        "TRN1" => V3Op::Trn1,
        "TRN2" => V3Op::Trn2,
        "ZIP1" => V3Op::Zip1,
        "ZIP2" => V3Op::Zip2,
        _ => return None,
    };
    not_one_lane(s.size(), s.q())?;
    s.v3(op, s.size(), s.q())
}

/// TBL, TBX.
pub fn table(s: &mut Simd) -> Option<Flow> {
    let count = bits(s.word, 13, 2) as u8 + 1;
    let (name, extend) = match s.mnemonic {
        "TBL" if count == 1 => return s.v3(V3Op::Tbl1, 0, s.q()),
        "TBL" => (VName::Tbl(count), false),
        "TBX" => (VName::Tbx(count), true),
        _ => return None,
    };
    let op = s.operands(s.vector().with(int::table_parameter(count, extend)));
    s.emit(Inst::VKnown { name, es: 0, f: int::table, op })
}

/// Repeats the low `1 << es` bytes of a value over 64 bits.
pub(super) fn repeat(es: u8, value: u64) -> u64 {
    match es {
        0 => value * 0x0101_0101_0101_0101,
        1 => value * 0x0001_0001_0001_0001,
        2 => value * 0x0000_0001_0000_0001,
        _ => value,
    }
}

/// `AdvSIMDExpandImm`, before MVNI's and BIC's inversion.
fn expand(cmode: u32, op: bool, imm8: u64) -> u64 {
    match cmode {
        0b0000..0b1000 => repeat(2, imm8 << (8 * (cmode >> 1))),
        0b1000..0b1100 => repeat(1, imm8 << (8 * ((cmode >> 1) & 1))),
        0b1100 => repeat(2, imm8 << 8 | 0xff),
        0b1101 => repeat(2, imm8 << 16 | 0xffff),
        0b1110 if op => (0..8).fold(0, |all, i| if imm8 >> i & 1 != 0 { all | 0xff << (8 * i) } else { all }),
        0b1110 => repeat(0, imm8),
        _ if op => float_constant(3, imm8 as u32),
        _ => repeat(2, float_constant(2, imm8 as u32)),
    }
}

/// `VFPExpandImm`, for elements of `1 << es` bytes.
pub(super) fn float_constant(es: u8, imm8: u32) -> u64 {
    let imm8 = u64::from(imm8);
    let (exp_bits, frac_bits) = match es {
        1 => (5, 10),
        2 => (8, 23),
        _ => (11, 52),
    };
    let (sign, b) = (imm8 >> 7, imm8 >> 6 & 1);
    // NOT(b), then b repeated, then two bits of the immediate.
    let exp = (b ^ 1) << (exp_bits - 1) | (b * ((1 << (exp_bits - 3)) - 1)) << 2 | (imm8 >> 4 & 3);
    sign << (exp_bits + frac_bits) | exp << frac_bits | (imm8 & 15) << (frac_bits - 4)
}

/// MOVI, MVNI, ORR, BIC, FMOV with an immediate.
pub fn immediate(s: &mut Simd) -> Option<Flow> {
    let imm8 = u64::from(bits(s.word, 16, 3) << 5 | bits(s.word, 5, 5));
    let q = s.q();
    let value = if s.enc == Enc::FMOV_asimdimm_H_h {
        repeat(1, float_constant(1, imm8 as u32))
    } else {
        expand(bits(s.word, 12, 4), s.u(), imm8)
    };
    let d = s.d();
    match s.mnemonic {
        "MOVI" | "FMOV" => s.emit(Inst::VConst { d, lo: value, hi: if q { value } else { 0 } }),
        "MVNI" => s.emit(Inst::VConst { d, lo: !value, hi: if q { !value } else { 0 } }),
        "ORR" | "BIC" => {
            let op = if s.mnemonic == "ORR" { V3Op::Orr } else { V3Op::Bic };
            s.emit(Inst::VConst { d: SCRATCH, lo: value, hi: value });
            s.emit(Inst::V3 { op, es: 0, q, d, n: d, m: SCRATCH })
        }
        _ => None,
    }
}
