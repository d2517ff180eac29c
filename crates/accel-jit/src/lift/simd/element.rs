//! Instructions whose second source is one element of a register.

use super::three::{float_inline, float_lanes, long_helper};
use super::*;
use crate::helpers::vector::{int, same as lanewise};
use crate::ir::{F2Op, F3Op};

/// The register and the element of the second source, for elements of `1 << es` bytes.
fn source(s: &Simd, es: u8) -> Option<(VReg, u32)> {
    let (h, l, m) = (bits(s.word, 11, 1), bits(s.word, 21, 1), bits(s.word, 20, 1));
    let rm = bits(s.word, 16, 4);
    match es {
        1 => Some((rm as VReg, h << 2 | l << 1 | m)),
        2 => Some(((m << 4 | rm) as VReg, h << 1 | l)),
        3 if l == 0 => Some(((m << 4 | rm) as VReg, h)),
        _ => None,
    }
}

pub(super) fn by_element(s: &mut Simd, f: VectorHelper, shape: Shape, es: u8) -> Option<Flow> {
    let (m, index) = source(s, es)?;
    let op = VOperands { m, ..s.operands(shape.element(index)) };
    s.emit(match VName::by_mnemonic(s.mnemonic) {
        Some(name) => Inst::VKnown { name, es, f, op },
        None => Inst::VHelper { f, op },
    })
}

/// As [`by_element`], for floating-point vectors.
fn float_by_element(s: &mut Simd, f: VectorHelper, es: u8) -> Option<Flow> {
    if s.ctx.fp_inline {
        return by_element(s, f, s.vector(), es);
    }
    let (m, index) = source(s, es)?;
    let op = VOperands { m, ..s.operands(s.vector().element(index)) };
    s.emit(Inst::VHelper { f, op })
}

/// As [`by_element`], for floating-point scalars.
fn scalar_by_element(s: &mut Simd, f: VectorHelper, es: u8) -> Option<Flow> {
    if s.ctx.fp_inline {
        return by_element(s, f, Shape::scalar(es), es);
    }
    let (m, index) = source(s, es)?;
    let op = VOperands { m, ..s.operands(Shape::scalar(es).element(index)) };
    let above = if matches!(s.mnemonic, "FMLA" | "FMLS") { s.d() } else { s.n() };
    s.scalar(Inst::VHelper { f, op }, es, above)
}

/// Spreads the element over a scratch register.
pub(super) fn spread(s: &mut Simd, es: u8) -> Option<VReg> {
    let (m, lane) = source(s, es)?;
    s.emit(Inst::VDupLane { es, q: true, d: SCRATCH, n: m, lane: lane as u8 });
    Some(SCRATCH)
}

/// Element size of a floating-point form.
fn float_size(s: &Simd) -> u8 {
    if s.enc.name().ends_with("_RH_H") { 1 } else { s.sz() }
}

/// Advanced SIMD vector x indexed element.
pub fn vector(s: &mut Simd) -> Option<Flow> {
    let (es, q) = (s.size(), s.q());
    match s.mnemonic {
        "FMLA" | "FMLS" | "FMUL" | "FMULX" => float_vector(s),
        "SDOT" | "UDOT" | "USDOT" | "SUDOT" | "BFDOT" | "BFMLAL" | "FMLAL" | "FMLAL2" | "FMLSL"
        | "FMLSL2" | "FCMLA" => super::products::by_element(s),
        "MUL" | "MLA" | "MLS" => {
            allowed(matches!(es, 1 | 2))?;
            let op = match s.mnemonic {
                "MUL" => V3Op::Mul,
                "MLA" => V3Op::Mla,
                _ => V3Op::Mls,
            };
            let m = spread(s, es)?;
            let (d, n) = (s.d(), s.n());
            s.emit(Inst::V3 { op, es, q, d, n, m })
        }
        mnemonic => {
            allowed(matches!(es, 1 | 2))?;
            if let Some(f) = high_helper(mnemonic, es) {
                return by_element(s, f, s.vector(), es);
            }
            if matches!(mnemonic, "SMULL" | "UMULL" | "SMLAL" | "UMLAL" | "SMLSL" | "UMLSL") {
                return long(s, es, q);
            }
            let f = long_helper(mnemonic, es)?;
            by_element(s, f, s.vector(), es)
        }
    }
}

/// Widening products: both sources extended.
fn long(s: &mut Simd, es: u8, q: bool) -> Option<Flow> {
    let (d, n) = (s.d(), s.n());
    let op = if s.u() { V2Op::Uxtl } else { V2Op::Sxtl };
    let m = spread(s, es)?;
    s.emit(Inst::V2 { op, es, q: false, d: SCRATCH + 1, n: m });
    s.emit(Inst::V2 { op, es, q, d: SCRATCH, n });
    if es == 2 {
        return super::three::multiply_words(s, d);
    }
    let op = match &s.mnemonic[1..] {
        "MULL" => V3Op::Mul,
        "MLAL" => V3Op::Mla,
        _ => V3Op::Mls,
    };
    s.emit(Inst::V3 { op, es: es + 1, q: true, d, n: SCRATCH, m: SCRATCH + 1 })
}

/// The doubling high-half multiplies.
fn high_helper(mnemonic: &str, es: u8) -> Option<VectorHelper> {
    let f: BySize = match mnemonic {
        "SQDMULH" => lanewise::<int::Sqdmulh>,
        "SQRDMULH" => lanewise::<int::Sqrdmulh>,
        "SQRDMLAH" => lanewise::<int::Sqrdmlah>,
        "SQRDMLSH" => lanewise::<int::Sqrdmlsh>,
        _ => return None,
    };
    Some(f(es))
}

fn float_vector(s: &mut Simd) -> Option<Flow> {
    let (es, q) = (float_size(s), s.q());
    not_one_lane(es, q)?;
    if s.ctx.fp_inline
        && es >= 2
        && let Some(op) = float_inline(s.mnemonic)
    {
        let m = spread(s, es)?;
        let (d, n) = (s.d(), s.n());
        return s.emit(Inst::V3 { op, es, q, d, n, m });
    }
    let f = float_lanes(s.mnemonic)?;
    float_by_element(s, f(es), es)
}

/// Advanced SIMD scalar x indexed element.
pub fn scalar(s: &mut Simd) -> Option<Flow> {
    if s.mnemonic.starts_with('F') {
        return float_scalar(s);
    }
    let es = s.size();
    allowed(matches!(es, 1 | 2))?;
    let f = high_helper(s.mnemonic, es).or_else(|| long_helper(s.mnemonic, es))?;
    by_element(s, f, Shape::scalar(es), es)
}

fn float_scalar(s: &mut Simd) -> Option<Flow> {
    let es = float_size(s);
    if s.ctx.fp_inline && es >= 2 && s.mnemonic != "FMULX" {
        let m = spread(s, es)?;
        let (d, n, double) = (s.d(), s.n(), es == 3);
        return match s.mnemonic {
            "FMUL" => s.emit(Inst::F2 { op: F2Op::Mul, double, d, n, m }),
            "FMLA" => s.emit(Inst::F3 { op: F3Op::Madd, double, d, n, m, a: d }),
            _ => s.emit(Inst::F3 { op: F3Op::Msub, double, d, n, m, a: d }),
        };
    }
    let f = float_lanes(s.mnemonic)?;
    scalar_by_element(s, f(es), es)
}
