//! Instructions with three vector operands: same widths, and long, wide and narrow forms.

use super::*;
use crate::helpers::vector::{float as fv, int, long, same as lanewise};
use crate::ir::{F1Op, F2Op};

/// Advanced SIMD three same.
pub fn same(s: &mut Simd) -> Option<Flow> {
    if s.mnemonic.starts_with("FMLAL") || s.mnemonic.starts_with("FMLSL") {
        return super::products::same(s);
    }
    if s.mnemonic.starts_with('F') {
        return float_same(s, s.sz());
    }
    if let Some(op) = logical(s.mnemonic) {
        if op == V3Op::Orr && s.n() == s.m() {
            return s.v2(V2Op::Mov, 0, s.q());
        }
        return s.v3(op, 0, s.q());
    }
    let (es, q) = (s.size(), s.q());
    if let Some((op, max)) = inline_same(s.mnemonic) {
        allowed(es <= max)?;
        not_one_lane(es, q)?;
        // Averages are inline for the narrow elements only.
        if es < 2 || op != V3Op::Urhadd {
            return s.v3(op, es, q);
        }
    }
    match s.mnemonic {
        "SABD" | "UABD" | "SABA" | "UABA" => {
            allowed(es < 3)?;
            absolute_difference(s, es, q)
        }
        "SHADD" | "UHADD" | "SRHADD" | "URHADD" | "SHSUB" | "UHSUB" => {
            allowed(es < 3)?;
            halving(s, es, q)
        }
        "SMAXP" | "SMINP" | "UMAXP" | "UMINP" => {
            allowed(es < 3)?;
            let op = match s.mnemonic {
                "SMAXP" => V3Op::Smax,
                "SMINP" => V3Op::Smin,
                "UMAXP" => V3Op::Umax,
                _ => V3Op::Umin,
            };
            let (d, n, m) = (s.d(), s.n(), s.m());
            s.emit(Inst::V3 { op: V3Op::Uzp1, es, q, d: SCRATCH, n, m });
            s.emit(Inst::V3 { op: V3Op::Uzp2, es, q, d: SCRATCH + 1, n, m });
            s.emit(Inst::V3 { op, es, q, d, n: SCRATCH, m: SCRATCH + 1 })
        }
        _ => {
            let f = helper_same(s.mnemonic, es)?;
            not_one_lane(es, q)?;
            s.known(f, s.vector(), es)
        }
    }
}

fn logical(mnemonic: &str) -> Option<V3Op> {
    Some(match mnemonic {
        "AND" => V3Op::And,
        "BIC" => V3Op::Bic,
        "ORR" => V3Op::Orr,
        "ORN" => V3Op::Orn,
        "EOR" => V3Op::Eor,
        "BSL" => V3Op::Bsl,
        "BIT" => V3Op::Bit,
        "BIF" => V3Op::Bif,
        _ => return None,
    })
}

/// Integer operations that the IR has, and their largest element.
fn inline_same(mnemonic: &str) -> Option<(V3Op, u8)> {
    Some(match mnemonic {
        "ADD" => (V3Op::Add, 3),
        "SUB" => (V3Op::Sub, 3),
        "CMEQ" => (V3Op::CmEq, 3),
        "CMGT" => (V3Op::CmGt, 3),
        "CMGE" => (V3Op::CmGe, 3),
        "CMHI" => (V3Op::CmHi, 3),
        "CMHS" => (V3Op::CmHs, 3),
        "CMTST" => (V3Op::CmTst, 3),
        "MUL" => (V3Op::Mul, 2),
        "MLA" => (V3Op::Mla, 2),
        "MLS" => (V3Op::Mls, 2),
        "SMAX" => (V3Op::Smax, 2),
        "SMIN" => (V3Op::Smin, 2),
        "UMAX" => (V3Op::Umax, 2),
        "UMIN" => (V3Op::Umin, 2),
        "ADDP" => (V3Op::Addp, 3),
        "URHADD" => (V3Op::Urhadd, 2),
        _ => return None,
    })
}

/// Scratch register = |n - m|, as larger minus smaller.
fn difference(s: &mut Simd, es: u8, q: bool) -> VReg {
    let (max, min) = if s.u() { (V3Op::Umax, V3Op::Umin) } else { (V3Op::Smax, V3Op::Smin) };
    let (n, m) = (s.n(), s.m());
    s.emit(Inst::V3 { op: max, es, q, d: SCRATCH, n, m });
    s.emit(Inst::V3 { op: min, es, q, d: SCRATCH + 1, n, m });
    s.emit(Inst::V3 { op: V3Op::Sub, es, q, d: SCRATCH, n: SCRATCH, m: SCRATCH + 1 });
    SCRATCH
}

/// SABD, UABD, SABA, UABA.
fn absolute_difference(s: &mut Simd, es: u8, q: bool) -> Option<Flow> {
    let t = difference(s, es, q);
    let d = s.d();
    if s.mnemonic.ends_with('D') {
        s.emit(Inst::V2 { op: V2Op::Mov, es: 0, q, d, n: t })
    } else {
        s.emit(Inst::V3 { op: V3Op::Add, es, q, d, n: d, m: t })
    }
}

/// SABDL, UABDL, SABAL, UABAL: the narrow difference fits its element, unsigned.
fn long_difference(s: &mut Simd, es: u8, q: bool) -> Option<Flow> {
    let t = difference(s, es, true);
    let d = s.d();
    if s.mnemonic.ends_with("DL") {
        return s.emit(Inst::V2 { op: V2Op::Uxtl, es, q, d, n: t });
    }
    s.emit(Inst::V2 { op: V2Op::Uxtl, es, q, d: SCRATCH + 1, n: t });
    s.emit(Inst::V3 { op: V3Op::Add, es: es + 1, q: true, d, n: d, m: SCRATCH + 1 })
}

/// Halving additions and subtractions without wide elements:
/// n + m = 2 (n AND m) + (n EOR m) = 2 (n ORR m) - (n EOR m), n - m = (n EOR m) - 2 (m BIC n).
fn halving(s: &mut Simd, es: u8, q: bool) -> Option<Flow> {
    let (d, n, m) = (s.d(), s.n(), s.m());
    let subtract = s.mnemonic.ends_with("SUB");
    let rounding = s.mnemonic.contains("RH");
    let (even, x) = (SCRATCH, SCRATCH + 1);
    let shift = if s.u() { VShiftOp::Ushr } else { VShiftOp::Sshr };
    if subtract {
        s.emit(Inst::V3 { op: V3Op::Bic, es: 0, q, d: even, n: m, m: n });
    } else {
        let op = if rounding { V3Op::Orr } else { V3Op::And };
        s.emit(Inst::V3 { op, es: 0, q, d: even, n, m });
    }
    s.emit(Inst::V3 { op: V3Op::Eor, es: 0, q, d: x, n, m });
    s.emit(Inst::VShift { op: shift, es, q, d: x, n: x, imm: 1 });
    match (subtract, rounding) {
        (true, _) => s.emit(Inst::V3 { op: V3Op::Sub, es, q, d, n: x, m: even }),
        (_, true) => s.emit(Inst::V3 { op: V3Op::Sub, es, q, d, n: even, m: x }),
        _ => s.emit(Inst::V3 { op: V3Op::Add, es, q, d, n: even, m: x }),
    }
}

/// Integer operations by function, for elements that they allow; scalars use the same.
fn helper_same(mnemonic: &str, es: u8) -> Option<VectorHelper> {
    let (f, range): (BySize, _) = match mnemonic {
        "SQADD" => (lanewise::<int::Sqadd>, 0..=3),
        "UQADD" => (lanewise::<int::Uqadd>, 0..=3),
        "SQSUB" => (lanewise::<int::Sqsub>, 0..=3),
        "UQSUB" => (lanewise::<int::Uqsub>, 0..=3),
        "SSHL" => (lanewise::<int::Sshl>, 0..=3),
        "USHL" => (lanewise::<int::Ushl>, 0..=3),
        "SRSHL" => (lanewise::<int::Srshl>, 0..=3),
        "URSHL" => (lanewise::<int::Urshl>, 0..=3),
        "SQSHL" => (lanewise::<int::Sqshl>, 0..=3),
        "UQSHL" => (lanewise::<int::Uqshl>, 0..=3),
        "SQRSHL" => (lanewise::<int::Sqrshl>, 0..=3),
        "UQRSHL" => (lanewise::<int::Uqrshl>, 0..=3),
        "SQDMULH" => (lanewise::<int::Sqdmulh>, 1..=2),
        "SQRDMULH" => (lanewise::<int::Sqrdmulh>, 1..=2),
        "SQRDMLAH" => (lanewise::<int::Sqrdmlah>, 1..=2),
        "SQRDMLSH" => (lanewise::<int::Sqrdmlsh>, 1..=2),
        "PMUL" => (lanewise::<int::Pmul>, 0..=0),
        _ => return None,
    };
    range.contains(&es).then(|| f(es))
}

/// Floating point of [`same`], for elements of `1 << es` bytes.
pub fn float_same(s: &mut Simd, es: u8) -> Option<Flow> {
    let q = s.q();
    not_one_lane(es, q)?;
    if s.ctx.fp_inline
        && es >= 2
        && let Some(op) = float_inline(s.mnemonic)
    {
        return s.v3(op, es, q);
    }
    if s.ctx.fp_inline && es >= 2 && matches!(s.mnemonic, "FACGE" | "FACGT") {
        let op = if s.mnemonic == "FACGE" { V3Op::FcmGe } else { V3Op::FcmGt };
        let (d, n, m) = (s.d(), s.n(), s.m());
        s.emit(Inst::V2 { op: V2Op::Fabs, es, q, d: SCRATCH, n });
        s.emit(Inst::V2 { op: V2Op::Fabs, es, q, d: SCRATCH + 1, n: m });
        return s.emit(Inst::V3 { op, es, q, d, n: SCRATCH, m: SCRATCH + 1 });
    }
    if s.ctx.fp_inline
        && es >= 2
        && let Some(op) = float_pair_inline(s.mnemonic)
    {
        let (d, n, m) = (s.d(), s.n(), s.m());
        s.emit(Inst::V3 { op: V3Op::Uzp1, es, q, d: SCRATCH, n, m });
        s.emit(Inst::V3 { op: V3Op::Uzp2, es, q, d: SCRATCH + 1, n, m });
        return s.emit(Inst::V3 { op, es, q, d, n: SCRATCH, m: SCRATCH + 1 });
    }
    let f = float_lanes(s.mnemonic).or_else(|| float_pairs(s.mnemonic))?;
    s.float_known(f(es), s.vector(), es)
}

pub(super) fn float_inline(mnemonic: &str) -> Option<V3Op> {
    Some(match mnemonic {
        "FADD" => V3Op::Fadd,
        "FSUB" => V3Op::Fsub,
        "FMUL" => V3Op::Fmul,
        "FDIV" => V3Op::Fdiv,
        "FMLA" => V3Op::Fmla,
        "FMLS" => V3Op::Fmls,
        "FCMEQ" => V3Op::FcmEq,
        "FCMGE" => V3Op::FcmGe,
        "FCMGT" => V3Op::FcmGt,
        "FMAX" => V3Op::Fmax,
        "FMIN" => V3Op::Fmin,
        "FMAXNM" => V3Op::Fmaxnm,
        "FMINNM" => V3Op::Fminnm,
        "FABD" => V3Op::Fabd,
        _ => return None,
    })
}

/// Floating-point operations lane by lane; scalars use the same.
pub(super) fn float_lanes(mnemonic: &str) -> Option<BySize> {
    Some(match mnemonic {
        "FADD" => fv::same::<fv::Add>,
        "FSUB" => fv::same::<fv::Sub>,
        "FMUL" => fv::same::<fv::Mul>,
        "FMULX" => fv::same::<fv::Mulx>,
        "FDIV" => fv::same::<fv::Div>,
        "FMLA" => fv::same::<fv::Mla>,
        "FMLS" => fv::same::<fv::Mls>,
        "FMAX" => fv::same::<fv::Max>,
        "FMIN" => fv::same::<fv::Min>,
        "FMAXNM" => fv::same::<fv::Maxnm>,
        "FMINNM" => fv::same::<fv::Minnm>,
        "FABD" => fv::same::<fv::Abd>,
        "FRECPS" => fv::same::<fv::Recps>,
        "FRSQRTS" => fv::same::<fv::Rsqrts>,
        "FCMEQ" => fv::same::<fv::Cmeq>,
        "FCMGE" => fv::same::<fv::Cmge>,
        "FCMGT" => fv::same::<fv::Cmgt>,
        "FACGE" => fv::same::<fv::Acge>,
        "FACGT" => fv::same::<fv::Acgt>,
        _ => return None,
    })
}

/// What the IR does with the even and the odd elements of a pairwise operation.
pub(super) fn float_pair_inline(mnemonic: &str) -> Option<V3Op> {
    Some(match mnemonic {
        "FADDP" => V3Op::Fadd,
        "FMAXP" | "FMAXV" => V3Op::Fmax,
        "FMINP" | "FMINV" => V3Op::Fmin,
        "FMAXNMP" | "FMAXNMV" => V3Op::Fmaxnm,
        "FMINNMP" | "FMINNMV" => V3Op::Fminnm,
        _ => return None,
    })
}

/// Floating-point operations on pairs, by the vector or scalar mnemonic.
pub(super) fn float_pairs(mnemonic: &str) -> Option<BySize> {
    Some(match mnemonic {
        "FADDP" => fv::pairs::<fv::Add>,
        "FMAXP" => fv::pairs::<fv::Max>,
        "FMINP" => fv::pairs::<fv::Min>,
        "FMAXNMP" => fv::pairs::<fv::Maxnm>,
        "FMINNMP" => fv::pairs::<fv::Minnm>,
        _ => return None,
    })
}

/// Advanced SIMD three-register extension: SQRDMLAH, SQRDMLSH, and sums of products.
pub fn same_extra(s: &mut Simd) -> Option<Flow> {
    match helper_same(s.mnemonic, s.size()) {
        Some(f) => s.known(f, s.vector(), s.size()),
        None => super::products::same(s),
    }
}

/// Advanced SIMD scalar three same.
pub fn scalar_same(s: &mut Simd) -> Option<Flow> {
    if s.mnemonic.starts_with('F') {
        return float_scalar_same(s, s.sz());
    }
    let es = s.size();
    let op = match s.mnemonic {
        "ADD" | "SUB" | "CMEQ" | "CMGT" | "CMGE" | "CMHI" | "CMHS" | "CMTST" => inline_same(s.mnemonic)?.0,
        "SSHL" | "USHL" | "SRSHL" | "URSHL" if es != 3 => return None,
        mnemonic => {
            let f = helper_same(mnemonic, es)?;
            return s.known(f, Shape::scalar(es), es);
        }
    };
    allowed(es == 3)?;
    s.v3(op, 3, false)
}

/// Floating point of [`scalar_same`].
pub fn float_scalar_same(s: &mut Simd, es: u8) -> Option<Flow> {
    if s.ctx.fp_inline && es >= 2 && s.mnemonic == "FABD" {
        let (d, n, m, double) = (s.d(), s.n(), s.m(), es == 3);
        s.emit(Inst::F2 { op: F2Op::Sub, double, d: SCRATCH, n, m });
        return s.emit(Inst::F1 { op: F1Op::Abs, double, d, n: SCRATCH });
    }
    let f = float_lanes(s.mnemonic)?;
    if s.ctx.fp_inline && es >= 2 {
        let op = match s.mnemonic {
            "FCMEQ" => Some(V3Op::FcmEq),
            "FCMGE" | "FACGE" => Some(V3Op::FcmGe),
            "FCMGT" | "FACGT" => Some(V3Op::FcmGt),
            _ => None,
        };
        if let Some(op) = op {
            return compare_scalars(s, op, es);
        }
    }
    // The masks of comparisons leave what the second source has.
    let compares = s.mnemonic.starts_with("FC") || s.mnemonic.starts_with("FAC");
    let above = if compares { s.m() } else { s.n() };
    s.scalar_known(f(es), Shape::scalar(es), es, above)
}

/// A comparison to a mask. What is above the scalars must not raise exceptions.
fn compare_scalars(s: &mut Simd, op: V3Op, es: u8) -> Option<Flow> {
    let (d, n, m, double) = (s.d(), s.n(), s.m(), es == 3);
    let (a, b) = (SCRATCH, SCRATCH + 1);
    let take = if s.mnemonic.starts_with("FAC") { F1Op::Abs } else { F1Op::Mov };
    s.emit(Inst::F1 { op: take, double, d: a, n });
    s.emit(Inst::F1 { op: take, double, d: b, n: m });
    s.emit(Inst::V3 { op, es, q: false, d: a, n: a, m: b });
    s.emit(Inst::F1 { op: F1Op::Mov, double, d, n: a })
}

/// The same with zero as the second source, or as the first for those that ask for less.
pub(super) fn compare_scalar_with_zero(s: &mut Simd, es: u8) -> Option<Flow> {
    let (d, n, double) = (s.d(), s.n(), es == 3);
    let (a, zero) = (SCRATCH, SCRATCH + 1);
    let (op, n_first) = match s.mnemonic {
        "FCMEQ" => (V3Op::FcmEq, true),
        "FCMGE" => (V3Op::FcmGe, true),
        "FCMGT" => (V3Op::FcmGt, true),
        "FCMLE" => (V3Op::FcmGe, false),
        _ => (V3Op::FcmGt, false),
    };
    s.emit(Inst::F1 { op: F1Op::Mov, double, d: a, n });
    s.emit(Inst::VConst { d: zero, lo: 0, hi: 0 });
    let (n, m) = if n_first { (a, zero) } else { (zero, a) };
    s.emit(Inst::V3 { op, es, q: false, d: a, n, m });
    s.emit(Inst::F1 { op: F1Op::Mov, double, d, n: a })
}

/// Advanced SIMD scalar three-register extension.
pub fn scalar_same_extra(s: &mut Simd) -> Option<Flow> {
    let es = s.size();
    let f = helper_same(s.mnemonic, es)?;
    s.known(f, Shape::scalar(es), es)
}

/// Advanced SIMD scalar three different: SQDMULL and its kind.
pub fn scalar_different(s: &mut Simd) -> Option<Flow> {
    let es = s.size();
    let f = long_helper(s.mnemonic, es)?;
    s.known(f, Shape::scalar(es), es)
}

/// Advanced SIMD three different.
pub fn different(s: &mut Simd) -> Option<Flow> {
    let (es, q) = (s.size(), s.q());
    if s.mnemonic == "PMULL" {
        return polynomial(s, es, q);
    }
    allowed(es < 3)?;
    let extend = if s.u() { V2Op::Uxtl } else { V2Op::Sxtl };
    match s.mnemonic {
        "SADDL" | "UADDL" => inline_long(s, V3Op::Add, es, extend),
        "SSUBL" | "USUBL" => inline_long(s, V3Op::Sub, es, extend),
        "SMULL" | "UMULL" if es < 2 => inline_long(s, V3Op::Mul, es, extend),
        "SMLAL" | "UMLAL" if es < 2 => inline_long(s, V3Op::Mla, es, extend),
        "SMLSL" | "UMLSL" if es < 2 => inline_long(s, V3Op::Mls, es, extend),
        "SMULL" | "UMULL" | "SMLAL" | "UMLAL" | "SMLSL" | "UMLSL" => long_words(s, extend),
        "SADDW" | "UADDW" => inline_wide(s, V3Op::Add, es, extend),
        "SSUBW" | "USUBW" => inline_wide(s, V3Op::Sub, es, extend),
        "ADDHN" | "RADDHN" => high_half(s, V3Op::Add, es, q),
        "SUBHN" | "RSUBHN" => high_half(s, V3Op::Sub, es, q),
        "SABDL" | "UABDL" | "SABAL" | "UABAL" => long_difference(s, es, q),
        mnemonic => {
            let f = long_helper(mnemonic, es)?;
            s.known(f, s.vector(), es)
        }
    }
}

/// ADDHN, SUBHN and their rounding forms.
fn high_half(s: &mut Simd, op: V3Op, es: u8, q: bool) -> Option<Flow> {
    let (d, n, m) = (s.d(), s.n(), s.m());
    let wide = es + 1;
    s.emit(Inst::V3 { op, es: wide, q: true, d: SCRATCH, n, m });
    if s.mnemonic.starts_with('R') {
        add_constant(s, SCRATCH, wide, 1 << ((8 << es) - 1));
    }
    s.emit(Inst::VShift { op: VShiftOp::Ushr, es: wide, q: true, d: SCRATCH, n: SCRATCH, imm: 8 << es });
    s.emit(Inst::V2 { op: V2Op::Xtn, es, q, d, n: SCRATCH })
}

/// Adds a constant to every element of a scratch register.
pub(super) fn add_constant(s: &mut Simd, v: VReg, es: u8, value: u64) {
    let value = super::moves::repeat(es, value);
    let constant = SCRATCH + 7;
    s.emit(Inst::VConst { d: constant, lo: value, hi: value });
    s.emit(Inst::V3 { op: V3Op::Add, es, q: true, d: v, n: v, m: constant });
}

/// PMULL: bytes, or 64 bits with FEAT_PMULL.
fn polynomial(s: &mut Simd, es: u8, q: bool) -> Option<Flow> {
    match es {
        0 => s.known(long::<int::Pmull>(0), s.vector(), 0),
        3 => {
            s.has(Feature::Pmull)?;
            s.v3(V3Op::Pmull64, 3, q)
        }
        _ => None,
    }
}

/// Extends both sources, then works on wide elements.
fn inline_long(s: &mut Simd, op: V3Op, es: u8, extend: V2Op) -> Option<Flow> {
    let (d, n, m, q) = (s.d(), s.n(), s.m(), s.q());
    s.emit(Inst::V2 { op: extend, es, q, d: SCRATCH, n });
    let second = if n == m {
        SCRATCH
    } else {
        s.emit(Inst::V2 { op: extend, es, q, d: SCRATCH + 1, n: m });
        SCRATCH + 1
    };
    s.emit(Inst::V3 { op, es: es + 1, q: true, d, n: SCRATCH, m: second })
}

/// Products of words, into doublewords.
fn long_words(s: &mut Simd, extend: V2Op) -> Option<Flow> {
    let (d, n, m, q) = (s.d(), s.n(), s.m(), s.q());
    s.emit(Inst::V2 { op: extend, es: 2, q, d: SCRATCH, n });
    s.emit(Inst::V2 { op: extend, es: 2, q, d: SCRATCH + 1, n: m });
    multiply_words(s, d)
}

/// d = or += or -= the products of the low words of the first two scratch registers' doublewords.
pub(super) fn multiply_words(s: &mut Simd, d: VReg) -> Option<Flow> {
    let op = if s.u() { V3Op::UmulLow } else { V3Op::SmulLow };
    let accumulate = match &s.mnemonic[1..] {
        "MULL" => return s.emit(Inst::V3 { op, es: 3, q: true, d, n: SCRATCH, m: SCRATCH + 1 }),
        "MLAL" => V3Op::Add,
        _ => V3Op::Sub,
    };
    s.emit(Inst::V3 { op, es: 3, q: true, d: SCRATCH, n: SCRATCH, m: SCRATCH + 1 });
    s.emit(Inst::V3 { op: accumulate, es: 3, q: true, d, n: d, m: SCRATCH })
}

/// Extends the second source.
fn inline_wide(s: &mut Simd, op: V3Op, es: u8, extend: V2Op) -> Option<Flow> {
    let (d, n, m, q) = (s.d(), s.n(), s.m(), s.q());
    s.emit(Inst::V2 { op: extend, es, q, d: SCRATCH, n: m });
    s.emit(Inst::V3 { op, es: es + 1, q: true, d, n, m: SCRATCH })
}

/// Widening operations by function.
pub(super) fn long_helper(mnemonic: &str, es: u8) -> Option<VectorHelper> {
    let f: BySize = match mnemonic {
        "SQDMULL" if es > 0 => long::<int::Sqdmull>,
        "SQDMLAL" if es > 0 => long::<int::Sqdmlal>,
        "SQDMLSL" if es > 0 => long::<int::Sqdmlsl>,
        _ => return None,
    };
    (es < 3).then(|| f(es))
}
