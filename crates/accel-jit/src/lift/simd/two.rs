//! Instructions with one vector source: miscellaneous, across lanes, scalar pairs.

use super::*;
use crate::helpers::vector::float::{self as fv, Conversion};
use crate::helpers::vector::{int, same as lanewise};
use crate::ir::{Extend, F1Op, Width};
use armlet_arm::fp::{Double, Half, Rounding, Single};

/// Advanced SIMD two-register miscellaneous.
pub fn misc(s: &mut Simd) -> Option<Flow> {
    let (es, q) = (s.size(), s.q());
    if let Some(op) = inline_misc(s.mnemonic) {
        not_one_lane(es, q)?;
        return s.v2(op, es, q);
    }
    match s.mnemonic {
        "REV64" => {
            allowed(es < 3)?;
            s.v2(V2Op::Rev64, es, q)
        }
        "REV32" => {
            allowed(es < 2)?;
            s.v2(V2Op::Rev32, es, q)
        }
        "REV16" => {
            allowed(es < 1)?;
            s.v2(V2Op::Rev16, es, q)
        }
        "CNT" => {
            allowed(es == 0)?;
            s.v2(V2Op::Cnt, 0, q)
        }
        // NOT and RBIT: the size field is part of the opcode.
        "NOT" => s.v2(V2Op::Not, 0, q),
        "RBIT" => s.known(lanewise::<int::Rbit>(0), s.vector(), 0),
        "XTN" => {
            allowed(es < 3)?;
            s.v2(V2Op::Xtn, es, q)
        }
        "SHLL" => {
            allowed(es < 3)?;
            let (d, n) = (s.d(), s.n());
            s.emit(Inst::V2 { op: V2Op::Uxtl, es, q, d, n });
            s.emit(Inst::VShift { op: VShiftOp::Shl, es: es + 1, q: true, d, n: d, imm: 8 << es })
        }
        "SADDLP" | "UADDLP" | "SADALP" | "UADALP" => {
            allowed(es < 3)?;
            add_long_pairs(s, es, q)
        }
        "CLS" | "CLZ" => {
            allowed(es < 3)?;
            let f = if s.u() { lanewise::<int::Clz> } else { lanewise::<int::Cls> };
            s.known(f(es), s.vector(), es)
        }
        "URECPE" | "URSQRTE" => {
            allowed(s.sz() == 2)?;
            let f = if s.u() { lanewise::<int::Ursqrte> } else { lanewise::<int::Urecpe> };
            s.helper(f(2), s.vector())
        }
        "SUQADD" | "USQADD" | "SQABS" | "SQNEG" => {
            not_one_lane(es, q)?;
            let f = saturating(s.mnemonic)?(es);
            s.known(f, s.vector(), es)
        }
        "SQXTN" | "UQXTN" | "SQXTUN" => {
            allowed(es < 3)?;
            let op = narrowing(s.mnemonic)?;
            s.v2(op, es, q)
        }
        "FCVTL" if s.ctx.fp_inline => s.v2(V2Op::Fcvtl, s.sz() - 1, q),
        "FCVTN" if s.ctx.fp_inline => s.v2(V2Op::Fcvtn, s.sz() - 1, q),
        "FCVTL" => {
            let f = if s.sz() == 3 { fv::fcvtl::<Single, Double> } else { fv::fcvtl::<Half, Single> };
            s.helper(f, s.vector())
        }
        "FCVTN" => {
            let f = if s.sz() == 3 { fv::fcvtn::<Double, Single> } else { fv::fcvtn::<Single, Half> };
            s.helper(f, s.vector())
        }
        "FCVTXN" => s.helper(fv::fcvtxn, s.vector()),
        "BFCVTN" => s.helper(fv::bfcvtn, s.vector()),
        _ => float_misc(s, s.sz()),
    }
}

/// SADDLP, UADDLP, SADALP, UADALP: the halves of wide elements.
fn add_long_pairs(s: &mut Simd, es: u8, q: bool) -> Option<Flow> {
    let (d, n, wide) = (s.d(), s.n(), es + 1);
    let (high, low) = (SCRATCH, SCRATCH + 1);
    neighbours(s, es, q, n);
    if s.mnemonic.ends_with("ALP") {
        s.emit(Inst::V3 { op: V3Op::Add, es: wide, q, d: low, n: low, m: d });
    }
    s.emit(Inst::V3 { op: V3Op::Add, es: wide, q, d, n: high, m: low })
}

/// The first two scratch registers = the odd elements of `n` and the even ones, as wide elements.
fn neighbours(s: &mut Simd, es: u8, q: bool, n: VReg) {
    let (wide, half) = (es + 1, 8 << es);
    let shift = if s.u() { VShiftOp::Ushr } else { VShiftOp::Sshr };
    let (high, low) = (SCRATCH, SCRATCH + 1);
    s.emit(Inst::VShift { op: shift, es: wide, q, d: high, n, imm: half });
    s.emit(Inst::VShift { op: VShiftOp::Shl, es: wide, q, d: low, n, imm: half });
    s.emit(Inst::VShift { op: shift, es: wide, q, d: low, n: low, imm: half });
}

/// Operations of the IR that allow all element sizes.
fn inline_misc(mnemonic: &str) -> Option<V2Op> {
    Some(match mnemonic {
        "ABS" => V2Op::Abs,
        "NEG" => V2Op::Neg,
        "CMEQ" => V2Op::CmEqZero,
        "CMGT" => V2Op::CmGtZero,
        "CMGE" => V2Op::CmGeZero,
        "CMLT" => V2Op::CmLtZero,
        "CMLE" => V2Op::CmLeZero,
        _ => return None,
    })
}

fn saturating(mnemonic: &str) -> Option<BySize> {
    Some(match mnemonic {
        "SUQADD" => lanewise::<int::Suqadd>,
        "USQADD" => lanewise::<int::Usqadd>,
        "SQABS" => lanewise::<int::Sqabs>,
        "SQNEG" => lanewise::<int::Sqneg>,
        _ => return None,
    })
}

fn narrowing(mnemonic: &str) -> Option<V2Op> {
    Some(match mnemonic {
        "SQXTN" => V2Op::Sqxtn,
        "UQXTN" => V2Op::Uqxtn,
        "SQXTUN" => V2Op::Sqxtun,
        _ => return None,
    })
}

/// The rounding mode in a mnemonic's letter.
pub(super) fn rounding(letter: u8) -> Option<Conversion> {
    let mode = match letter {
        b'N' => Some(Rounding::TieEven),
        b'M' => Some(Rounding::NegInf),
        b'P' => Some(Rounding::PosInf),
        b'Z' => Some(Rounding::Zero),
        b'A' => Some(Rounding::TieAway),
        b'X' | b'I' => None,
        _ => return None,
    };
    Some(Conversion { exact: letter == b'X', ..Conversion::new(mode) })
}

/// FRINTN and its kind, FRINT32X and its kind: by function, and the parameter.
pub(super) fn round_to_integral(mnemonic: &str) -> Option<(BySize, u32)> {
    let name = mnemonic.as_bytes();
    let by_letter = |at: usize| rounding(*name.get(at)?);
    Some(match name.get(5..7) {
        Some(b"32") => (fv::same::<fv::RintN>, by_letter(7)?.pack()),
        Some(b"64") => (fv::same::<fv::RintN>, Conversion { x: true, ..by_letter(7)? }.pack()),
        _ => (fv::same::<fv::Rint>, by_letter(5)?.pack()),
    })
}

/// Floating-point operations with one source, by function, and the parameter; scalars use the same.
fn float_helper(s: &Simd) -> Option<(BySize, u32)> {
    let mnemonic = s.mnemonic;
    let name = mnemonic.as_bytes();
    let rpres = u32::from(s.ctx.features.has(Feature::Rpres));
    Some(match mnemonic {
        "FABS" => (fv::same::<fv::Abs>, 0),
        "FNEG" => (fv::same::<fv::Neg>, 0),
        "FSQRT" => (fv::same::<fv::Sqrt>, 0),
        "FRECPE" => (fv::same::<fv::Recpe>, rpres),
        "FRSQRTE" => (fv::same::<fv::Rsqrte>, rpres),
        "FRECPX" => (fv::same::<fv::Recpx>, 0),
        "FCMEQ" => (fv::same::<fv::CmeqZero>, 0),
        "FCMGE" => (fv::same::<fv::CmgeZero>, 0),
        "FCMGT" => (fv::same::<fv::CmgtZero>, 0),
        "FCMLE" => (fv::same::<fv::CmleZero>, 0),
        "FCMLT" => (fv::same::<fv::CmltZero>, 0),
        "SCVTF" | "UCVTF" => {
            let c = Conversion { unsigned: name[0] == b'U', ..Conversion::new(None) };
            (fv::same::<fv::FromInt>, c.pack())
        }
        _ if mnemonic.starts_with("FRINT") => round_to_integral(mnemonic)?,
        _ if mnemonic.starts_with("FCVT") && name.len() == 6 => {
            let c = Conversion { unsigned: name[5] == b'U', ..rounding(name[4])? };
            (fv::same::<fv::ToInt>, c.pack())
        }
        _ => return None,
    })
}

/// What the IR has of vector floating point with one source; `None` if it has nothing.
fn float_inline(s: &mut Simd, es: u8, q: bool) -> Option<Flow> {
    let (d, n) = (s.d(), s.n());
    let zero = SCRATCH;
    let compare = |op, swap| if swap { (op, zero, n) } else { (op, n, zero) };
    let (op, a, b) = match s.mnemonic {
        "FRINTN" => return s.v2(V2Op::FrintN, es, q),
        "FRINTP" => return s.v2(V2Op::FrintP, es, q),
        "FRINTM" => return s.v2(V2Op::FrintM, es, q),
        "FRINTZ" => return s.v2(V2Op::FrintZ, es, q),
        "FRINTX" => return s.v2(V2Op::FrintX, es, q),
        "FRINTI" => return s.v2(V2Op::FrintI, es, q),
        "FCVTZS" if es == 2 => return s.v2(V2Op::Fcvtzs, es, q),
        "SCVTF" if es == 2 => return s.v2(V2Op::Scvtf, es, q),
        "FCMEQ" => compare(V3Op::FcmEq, false),
        "FCMGE" => compare(V3Op::FcmGe, false),
        "FCMGT" => compare(V3Op::FcmGt, false),
        "FCMLE" => compare(V3Op::FcmGe, true),
        "FCMLT" => compare(V3Op::FcmGt, true),
        _ => return None,
    };
    s.emit(Inst::VConst { d: zero, lo: 0, hi: 0 });
    s.emit(Inst::V3 { op, es, q, d, n: a, m: b })
}

/// Floating point of [`misc`].
pub fn float_misc(s: &mut Simd, es: u8) -> Option<Flow> {
    let q = s.q();
    not_one_lane(es, q)?;
    if es >= 2 {
        // These two depend on nothing else of FPCR.
        match s.mnemonic {
            "FABS" if !s.ctx.fp_alternate => return s.v2(V2Op::Fabs, es, q),
            "FNEG" if !s.ctx.fp_alternate => return s.v2(V2Op::Fneg, es, q),
            "FSQRT" if s.ctx.fp_inline => return s.v2(V2Op::Fsqrt, es, q),
            _ if s.ctx.fp_inline => {
                if let Some(flow) = float_inline(s, es, q) {
                    return Some(flow);
                }
            }
            _ => {}
        }
    }
    let (f, param) = float_helper(s)?;
    let shape = s.vector().with(param);
    match zero_name(s) {
        Some(name) => s.named(name, f(es), shape, es),
        None => s.float_known(f(es), shape, es),
    }
}

/// The name of a comparison of halves with zero, if FPCR allows it.
fn zero_name(s: &Simd) -> Option<VName> {
    let name = match s.mnemonic {
        "FCMEQ" => VName::FcmeqZero,
        "FCMGE" => VName::FcmgeZero,
        "FCMGT" => VName::FcmgtZero,
        "FCMLE" => VName::Fcmle,
        "FCMLT" => VName::Fcmlt,
        _ => return None,
    };
    s.ctx.fp_inline.then_some(name)
}

/// Advanced SIMD scalar two-register miscellaneous.
pub fn scalar_misc(s: &mut Simd) -> Option<Flow> {
    let es = s.size();
    if let Some(op) = inline_misc(s.mnemonic) {
        allowed(es == 3)?;
        return s.v2(op, 3, false);
    }
    if let Some(f) = saturating(s.mnemonic) {
        return s.known(f(es), Shape::scalar(es), es);
    }
    if let Some(op) = narrowing(s.mnemonic) {
        allowed(es < 3)?;
        let (d, n) = (s.d(), s.lowest(es + 1));
        return s.emit(Inst::V2 { op, es, q: false, d, n });
    }
    if s.mnemonic == "FCVTXN" {
        return s.scalar_helper(fv::fcvtxn, Shape::scalar(2), 2, s.d());
    }
    float_scalar_misc(s, s.sz())
}

/// Floating point of [`scalar_misc`].
pub fn float_scalar_misc(s: &mut Simd, es: u8) -> Option<Flow> {
    if s.ctx.fp_inline && es >= 2 {
        let (double, w) = (es == 3, if es == 3 { Width::X } else { Width::W });
        let (d, n) = (s.d(), s.n());
        match s.mnemonic {
            "SCVTF" | "UCVTF" => {
                let t = s.b.temp();
                s.emit(Inst::VGetLane { es, ext: Extend::Zero, d: t, n, lane: 0 });
                return s.emit(Inst::IntToF { signed: !s.u(), double, w, d, s: t.into() });
            }
            "FCVTZS" | "FCVTZU" => {
                let t = s.b.temp();
                s.emit(Inst::FToInt { signed: !s.u(), double, rounding: Rounding::Zero, w, d: t, n });
                return s.emit(Inst::VFromGpr { es, d, s: t.into() });
            }
            _ => {}
        }
    }
    let (f, param) = float_helper(s)?;
    if s.mnemonic.starts_with("FCM") {
        // Comparisons with zero are not among those that FPCR.NEP is about.
        return match zero_name(s) {
            Some(_) if es >= 2 => super::three::compare_scalar_with_zero(s, es),
            Some(name) => s.named(name, f(es), Shape::scalar(es), es),
            None => s.helper(f(es), Shape::scalar(es)),
        };
    }
    s.scalar_known(f(es), Shape::scalar(es).with(param), es, s.d())
}

/// Advanced SIMD across lanes.
pub fn all(s: &mut Simd) -> Option<Flow> {
    if s.mnemonic.starts_with('F') {
        let es = if s.enc.name().ends_with("_H") { 1 } else { 2 };
        if s.ctx.fp_inline && es == 2 {
            return fold_floats(s);
        }
        let f: BySize = match s.mnemonic {
            "FMAXNMV" => fv::reduce::<fv::Maxnm>,
            "FMINNMV" => fv::reduce::<fv::Minnm>,
            "FMAXV" => fv::reduce::<fv::Max>,
            "FMINV" => fv::reduce::<fv::Min>,
            _ => return None,
        };
        return s.helper(f(es), s.vector());
    }
    let es = s.size();
    allowed(es < 2 || (es == 2 && s.q()))?;
    let op = match s.mnemonic {
        "ADDV" => V3Op::Add,
        "SMAXV" => V3Op::Smax,
        "SMINV" => V3Op::Smin,
        "UMAXV" => V3Op::Umax,
        "UMINV" => V3Op::Umin,
        "SADDLV" | "UADDLV" => {
            // Sums of neighbours are as wide as the result.
            let (n, q) = (s.n(), s.q());
            let sum = SCRATCH + 2;
            neighbours(s, es, q, n);
            s.emit(Inst::V3 { op: V3Op::Add, es: es + 1, q, d: sum, n: SCRATCH, m: SCRATCH + 1 });
            return fold_lanes(s, V3Op::Add, es + 1, sum);
        }
        _ => return None,
    };
    let n = s.n();
    fold_lanes(s, op, es, n)
}

/// The tree of FMAXV and its kind: neighbours, then the two results.
fn fold_floats(s: &mut Simd) -> Option<Flow> {
    let op = super::three::float_pair_inline(s.mnemonic)?;
    let (d, mut n) = (s.d(), s.n());
    for q in [true, false] {
        s.emit(Inst::V3 { op: V3Op::Uzp1, es: 2, q, d: SCRATCH, n, m: n });
        s.emit(Inst::V3 { op: V3Op::Uzp2, es: 2, q, d: SCRATCH + 1, n, m: n });
        n = SCRATCH + 2;
        s.emit(Inst::V3 { op, es: 2, q, d: n, n: SCRATCH, m: SCRATCH + 1 });
    }
    s.emit(Inst::F1 { op: F1Op::Mov, double: false, d, n })
}

/// Folds the register onto itself until the result is in the lowest element.
fn fold_lanes(s: &mut Simd, op: V3Op, es: u8, mut n: VReg) -> Option<Flow> {
    let (d, q) = (s.d(), s.q());
    let mut step = if q { 8 } else { 4 };
    while step >= 1 << es {
        s.emit(Inst::VExt { q, d: SCRATCH + 1, n, m: n, imm: step });
        s.emit(Inst::V3 { op, es, q, d: SCRATCH, n, m: SCRATCH + 1 });
        n = SCRATCH;
        step /= 2;
    }
    let t = s.b.temp();
    s.emit(Inst::VGetLane { es, ext: Extend::Zero, d: t, n, lane: 0 });
    s.emit(Inst::VFromGpr { es: es.max(2), d, s: t.into() })
}

/// Advanced SIMD scalar pairwise.
pub fn scalar_pair(s: &mut Simd) -> Option<Flow> {
    if s.mnemonic == "ADDP" {
        allowed(s.size() == 3)?;
        let (d, n) = (s.d(), s.n());
        s.emit(Inst::VDupLane { es: 3, q: false, d: SCRATCH, n, lane: 1 });
        return s.emit(Inst::V3 { op: V3Op::Add, es: 3, q: false, d, n, m: SCRATCH });
    }
    let es = if s.enc.name().ends_with("_H") { 1 } else { s.sz() };
    if s.ctx.fp_inline
        && es >= 2
        && let Some(op) = super::three::float_pair_inline(s.mnemonic)
    {
        return float_scalar_pair(s, op, es);
    }
    let f = super::three::float_pairs(s.mnemonic)?;
    s.float_known(f(es), Shape::scalar(es), es)
}

/// A scalar pair: both elements as the lowest of a register. What is above must not raise exceptions.
fn float_scalar_pair(s: &mut Simd, op: V3Op, es: u8) -> Option<Flow> {
    let (d, n) = (s.d(), s.n());
    let (low, high) = (SCRATCH, SCRATCH + 1);
    let t = s.b.temp();
    s.emit(Inst::F1 { op: F1Op::Mov, double: es == 3, d: low, n });
    s.emit(Inst::VGetLane { es, ext: Extend::Zero, d: t, n, lane: 1 });
    s.emit(Inst::VFromGpr { es, d: high, s: t.into() });
    s.emit(Inst::V3 { op, es, q: true, d, n: low, m: high })
}
