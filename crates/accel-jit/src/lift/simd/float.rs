//! Scalar floating point and its exchange with general registers.

use super::two::rounding;
use super::*;
use crate::helpers::vector::float::{self as fv, Conversion};
use crate::helpers::vector::gpr;
use crate::ir::{AluOp, Cond, Extend, F1Op, F2Op, F3Op, Width};
use armlet_arm::fp::{Double, Half, Rounding, Single};

/// Field `ftype` as log2 of the operand's bytes.
fn ftype(s: &Simd) -> Option<u8> {
    match s.size() {
        0 => Some(2),
        1 => Some(3),
        3 => Some(1),
        _ => None,
    }
}

/// May operands of this size be worked on inline?
fn inline(s: &Simd, es: u8) -> bool {
    s.ctx.fp_inline && es >= 2
}

/// Floating-point data-processing (1 source).
pub fn one(s: &mut Simd) -> Option<Flow> {
    if s.mnemonic == "BFCVT" {
        return s.scalar_helper(fv::bfcvt, Shape::scalar(1), 1, s.d());
    }
    let es = ftype(s)?;
    if s.mnemonic == "FCVT" {
        return convert(s, es);
    }
    let op = match s.mnemonic {
        "FMOV" => F1Op::Mov,
        "FABS" => F1Op::Abs,
        "FNEG" => F1Op::Neg,
        "FSQRT" => F1Op::Sqrt,
        "FRINTN" => F1Op::RintN,
        "FRINTP" => F1Op::RintP,
        "FRINTM" => F1Op::RintM,
        "FRINTZ" => F1Op::RintZ,
        "FRINTX" => F1Op::RintX,
        "FRINTI" => F1Op::RintI,
        mnemonic if mnemonic.starts_with("FRINT") => return one_helper(s, es),
        _ => return None,
    };
    let (d, n, double) = (s.d(), s.n(), es == 3);
    // Moves do not depend on FPCR, changes of signs only on AH and NEP.
    let exact = match op {
        F1Op::Mov => es >= 2,
        F1Op::Abs | F1Op::Neg => es >= 2 && !s.ctx.fp_alternate,
        _ => false,
    };
    if op == F1Op::Mov && exact || inline(s, es) {
        return s.emit(Inst::F1 { op, double, d, n });
    }
    if exact {
        return s.scalar(Inst::F1 { op, double, d, n }, es, d);
    }
    one_helper(s, es)
}

fn one_helper(s: &mut Simd, es: u8) -> Option<Flow> {
    let (f, param) = match s.mnemonic {
        "FMOV" => {
            let (d, n) = (s.d(), s.n());
            return s.emit(Inst::FSelect { es, cond: Cond(14), d, n, m: n });
        }
        "FABS" => (fv::same::<fv::Abs>(es), 0),
        "FNEG" => (fv::same::<fv::Neg>(es), 0),
        "FSQRT" => (fv::same::<fv::Sqrt>(es), 0),
        mnemonic => super::two::round_to_integral(mnemonic).map(|(f, param)| (f(es), param))?,
    };
    s.scalar_known(f, Shape::scalar(es).with(param), es, s.d())
}

/// FCVT between precisions.
fn convert(s: &mut Simd, from: u8) -> Option<Flow> {
    // Field opc names the destination as ftype does the source.
    let to = match bits(s.word, 15, 2) {
        0 => 2,
        1 => 3,
        3 => 1,
        _ => return None,
    };
    if s.ctx.fp_inline && from >= 2 && to >= 2 {
        let (d, n) = (s.d(), s.n());
        return s.emit(Inst::F1 { op: F1Op::Cvt, double: from == 3, d, n });
    }
    let (f, name): (VectorHelper, _) = match (from, to) {
        (1, 2) => (fv::fcvt::<Half, Single>, Some(VName::HalfToSingle)),
        (1, 3) => (fv::fcvt::<Half, Double>, Some(VName::HalfToDouble)),
        (2, 1) => (fv::fcvt::<Single, Half>, Some(VName::SingleToHalf)),
        (2, 3) => (fv::fcvt::<Single, Double>, None),
        (3, 1) => (fv::fcvt::<Double, Half>, Some(VName::DoubleToHalf)),
        (3, 2) => (fv::fcvt::<Double, Single>, None),
        _ => return None,
    };
    match name.filter(|_| s.ctx.fp_inline) {
        Some(name) => s.named(name, f, Shape::scalar(to), to),
        None => s.scalar_helper(f, Shape::scalar(to), to, s.d()),
    }
}

/// Floating-point data-processing (2 source).
pub fn two(s: &mut Simd) -> Option<Flow> {
    let es = ftype(s)?;
    let (op, f): (F2Op, BySize) = match s.mnemonic {
        "FADD" => (F2Op::Add, fv::same::<fv::Add>),
        "FSUB" => (F2Op::Sub, fv::same::<fv::Sub>),
        "FMUL" => (F2Op::Mul, fv::same::<fv::Mul>),
        "FDIV" => (F2Op::Div, fv::same::<fv::Div>),
        "FNMUL" => (F2Op::Nmul, fv::same::<fv::Nmul>),
        "FMAX" => (F2Op::Max, fv::same::<fv::Max>),
        "FMIN" => (F2Op::Min, fv::same::<fv::Min>),
        "FMAXNM" => (F2Op::Maxnm, fv::same::<fv::Maxnm>),
        "FMINNM" => (F2Op::Minnm, fv::same::<fv::Minnm>),
        _ => return None,
    };
    if inline(s, es) {
        let (d, n, m) = (s.d(), s.n(), s.m());
        return s.emit(Inst::F2 { op, double: es == 3, d, n, m });
    }
    s.scalar_known(f(es), Shape::scalar(es), es, s.n())
}

/// Floating-point data-processing (3 source).
pub fn three(s: &mut Simd) -> Option<Flow> {
    let es = ftype(s)?;
    // The parameter: bit 0 negates the product, bit 1 the addend.
    let (op, param) = match s.mnemonic {
        "FMADD" => (F3Op::Madd, 0),
        "FMSUB" => (F3Op::Msub, 1),
        "FNMADD" => (F3Op::Nmadd, 3),
        "FNMSUB" => (F3Op::Nmsub, 2),
        _ => return None,
    };
    if inline(s, es) {
        let (d, n, m, a) = (s.d(), s.n(), s.m(), s.a());
        return s.emit(Inst::F3 { op, double: es == 3, d, n, m, a });
    }
    s.scalar_known(fv::fused_for(es), Shape::scalar(es).with(param), es, s.a())
}

/// Half `v` as a single in scratch register `d`, or what is not one as it is: a NaN that signals there, signals when it is
/// compared.
fn comparable(s: &mut Simd, es: u8, d: VReg, v: VReg) -> VReg {
    if es >= 2 {
        return v;
    }
    s.half_as_single(d, v);
    d
}

/// FCMP, FCMPE.
pub fn compare(s: &mut Simd) -> Option<Flow> {
    let es = ftype(s)?;
    let (signal, zero) = (bit(s.word, 4), bit(s.word, 3));
    allowed(matches!(s.mnemonic, "FCMP" | "FCMPE"))?;
    if s.ctx.fp_inline {
        let (n, m) = (s.n(), s.m());
        let n = comparable(s, es, SCRATCH, n);
        let m = (!zero).then(|| comparable(s, es, SCRATCH + 1, m));
        return s.emit(Inst::FCmp { double: es == 3, signal, n, m });
    }
    let param = if signal { gpr::SIGNAL } else { 0 } | if zero { gpr::WITH_ZERO } else { 0 };
    s.helper_nzcv(gpr::compare_for(es), Shape::scalar(es).with(param), Opnd::Imm(0))
}

/// FCCMP, FCCMPE.
pub fn conditional_compare(s: &mut Simd) -> Option<Flow> {
    let es = ftype(s)?;
    let signal = if bit(s.word, 4) { gpr::SIGNAL } else { 0 };
    let param = signal | bits(s.word, 0, 4) << 4 | bits(s.word, 12, 4) << 8;
    if inline(s, es) {
        let (n, m) = (s.n(), s.m());
        let (signal, cond) = (signal != 0, Cond(bits(s.word, 12, 4) as u8));
        let nzcv = bits(s.word, 0, 4) as u8;
        return s.emit(Inst::FCondCompare { double: es == 3, signal, n, m, cond, nzcv });
    }
    let old = s.b.temp();
    s.emit(Inst::GetNzcv { d: old });
    s.helper_nzcv(gpr::conditional_compare_for(es), Shape::scalar(es).with(param), old.into())
}

/// FCSEL.
pub fn select(s: &mut Simd) -> Option<Flow> {
    let es = ftype(s)?;
    let cond = Cond(bits(s.word, 12, 4) as u8);
    let (d, n, m) = (s.d(), s.n(), s.m());
    s.emit(Inst::FSelect { es, cond, d, n, m })
}

/// FMOV (scalar, immediate).
pub fn immediate(s: &mut Simd) -> Option<Flow> {
    let lo = super::moves::float_constant(ftype(s)?, bits(s.word, 13, 8));
    let d = s.d();
    s.emit(Inst::VConst { d, lo, hi: 0 })
}

fn width(s: &Simd) -> Width {
    Width::from_sf(bit(s.word, 31))
}

/// Conversions between floating point and fixed point in a general register.
pub fn fixed(s: &mut Simd) -> Option<Flow> {
    let es = ftype(s)?;
    let x = width(s) == Width::X;
    let scale = bits(s.word, 10, 6);
    allowed(x || scale >= 32)?;
    let unsigned = bit(s.word, 16);
    let to_int = s.mnemonic.starts_with('F');
    let mode = to_int.then_some(Rounding::Zero);
    let c = Conversion { unsigned, x, fbits: 64 - scale, ..Conversion::new(mode) };
    let shape = Shape::scalar(es).with(c.pack());
    if s.ctx.fp_inline && (to_int || es >= 2) {
        return fixed_inline(s, es, to_int, c.fbits);
    }
    if to_int {
        s.helper_gpr(gpr::to_int_for(es), shape, Opnd::Imm(0), Builder::dz(bits(s.word, 0, 5)))
    } else {
        from_general(s, es, shape, Builder::xz(bits(s.word, 5, 5)))
    }
}

/// A double that is a power of two, or such a single.
fn power_of_two(s: &mut Simd, d: VReg, double: bool, exponent: i32) {
    let lo = if double { ((1023 + exponent) as u64) << 52 } else { ((127 + exponent) as u64) << 23 };
    s.emit(Inst::VConst { d, lo, hi: 0 });
}

/// Conversions with fraction bits: those by which they differ from others are a multiplication, which is exact.
fn fixed_inline(s: &mut Simd, es: u8, to_int: bool, fbits: u32) -> Option<Flow> {
    let (signed, w, double) = (!bit(s.word, 16), width(s), es == 3);
    let (v, n) = (s.d(), s.n());
    let (number, scale) = (SCRATCH, SCRATCH + 1);
    if !to_int {
        let general = Builder::xz(bits(s.word, 5, 5));
        s.emit(Inst::IntToF { signed, double, w, d: number, s: general });
        power_of_two(s, scale, double, -(fbits as i32));
        return s.emit(Inst::F2 { op: F2Op::Mul, double, d: v, n: number, m: scale });
    }
    // Doubles that are too large in any case, but not NaNs, are made smaller; singles are doubles that are not.
    match es {
        1 => s.half_as_single(number, n),
        2 => {}
        _ => {
            power_of_two(s, scale, true, 500);
            s.emit(Inst::F2 { op: F2Op::Min, double: true, d: number, n, m: scale });
            s.emit(Inst::F1 { op: F1Op::Neg, double: true, d: scale, n: scale });
            s.emit(Inst::F2 { op: F2Op::Max, double: true, d: number, n: number, m: scale });
        }
    }
    if !double {
        let n = if es == 1 { number } else { n };
        s.emit(Inst::F1 { op: F1Op::Cvt, double: false, d: number, n });
    }
    power_of_two(s, scale, true, fbits as i32);
    s.emit(Inst::F2 { op: F2Op::Mul, double: true, d: number, n: number, m: scale });
    let d = match Builder::dz(bits(s.word, 0, 5)) {
        Reg::NONE => s.b.temp(),
        d => d,
    };
    s.emit(Inst::FToInt { signed, double: true, rounding: Rounding::Zero, w, d, n: number })
}

/// SCVTF and UCVTF by function.
fn from_general(s: &mut Simd, es: u8, shape: Shape, general: Opnd) -> Option<Flow> {
    let op = s.operands(shape);
    let f = gpr::from_int_for(es);
    s.scalar(Inst::VHelperGpr { f, op, s: general, d: Reg::NONE, nzcv: false }, es, s.d())
}

/// Conversions between floating point and integers in a general register, and FMOV.
pub fn integer(s: &mut Simd) -> Option<Flow> {
    match s.mnemonic {
        "FMOV" => return general_move(s),
        "FJCVTZS" => {
            let shape = Shape::scalar(3);
            s.helper_gpr(gpr::js_to_int, shape, Opnd::Imm(0), Builder::dz(bits(s.word, 0, 5)));
            return s.helper_nzcv(gpr::js_flags, shape, Opnd::Imm(0));
        }
        _ => {}
    }
    let es = ftype(s)?;
    let w = width(s);
    let unsigned = bit(s.word, 16);
    let (signed, double) = (!unsigned, es == 3);
    let (v, general) = (s.d(), Builder::xz(bits(s.word, 5, 5)));
    let (n, d) = (s.n(), Builder::dz(bits(s.word, 0, 5)));
    match s.mnemonic {
        "SCVTF" | "UCVTF" => {
            if inline(s, es) {
                return s.emit(Inst::IntToF { signed, double, w, d: v, s: general });
            }
            if s.ctx.fp_inline {
                // What singles cannot hold is infinite as a half.
                s.emit(Inst::IntToF { signed, double: false, w, d: v, s: general });
                let op = VOperands { n: v, ..s.operands(Shape::scalar(1)) };
                let f: VectorHelper = fv::fcvt::<Single, Half>;
                return s.emit(Inst::VKnown { name: VName::SingleToHalf, es: 1, f, op });
            }
            let c = Conversion { unsigned, x: w == Width::X, ..Conversion::new(None) };
            from_general(s, es, Shape::scalar(es).with(c.pack()), general)
        }
        mnemonic => {
            let c = rounding(*mnemonic.as_bytes().get(4)?)?;
            if let (true, Some(rounding)) = (s.ctx.fp_inline, c.rounding) {
                let n = if es == 1 {
                    s.half_as_single(SCRATCH, n);
                    SCRATCH
                } else {
                    n
                };
                // Even an unwanted result raises exceptions.
                let d = if d == Reg::NONE { s.b.temp() } else { d };
                return s.emit(Inst::FToInt { signed, double, rounding, w, d, n });
            }
            let c = Conversion { unsigned, x: w == Width::X, ..c };
            s.helper_gpr(gpr::to_int_for(es), Shape::scalar(es).with(c.pack()), Opnd::Imm(0), d)
        }
    }
}

/// FMOV (general).
fn general_move(s: &mut Simd) -> Option<Flow> {
    let (v, general) = (s.d(), Builder::xz(bits(s.word, 5, 5)));
    let to = Builder::dz(bits(s.word, 0, 5));
    match s.enc {
        Enc::FMOV_32S_float2int => super::moves::get_lane(s, 2, Extend::Zero, to, 0),
        Enc::FMOV_64D_float2int => super::moves::get_lane(s, 3, Extend::Zero, to, 0),
        Enc::FMOV_64VX_float2int => super::moves::get_lane(s, 3, Extend::Zero, to, 1),
        Enc::FMOV_32H_float2int | Enc::FMOV_64H_float2int => {
            super::moves::get_lane(s, 1, Extend::Zero, to, 0)
        }
        Enc::FMOV_S32_float2int => s.emit(Inst::VFromGpr { es: 2, d: v, s: general }),
        Enc::FMOV_D64_float2int => s.emit(Inst::VFromGpr { es: 3, d: v, s: general }),
        Enc::FMOV_V64I_float2int => s.emit(Inst::VInsGpr { es: 3, d: v, lane: 1, s: general }),
        Enc::FMOV_H32_float2int | Enc::FMOV_H64_float2int => {
            let low = s.b.alu(AluOp::And, Width::W, general, Opnd::Imm(0xffff));
            s.emit(Inst::VFromGpr { es: 2, d: v, s: low.into() })
        }
        _ => None,
    }
}
