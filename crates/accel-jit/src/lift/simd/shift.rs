//! Shifts by a constant, and conversions with fixed point, which share their encoding.

use super::*;
use crate::helpers::vector::float::{self as fv, Conversion};
use crate::helpers::vector::{int, same as lanewise};
use armlet_arm::fp::Rounding;

/// Field `immh:immb`.
fn immediate(s: &Simd) -> u32 {
    bits(s.word, 16, 7)
}

/// log2 of the element's bytes, from the highest set bit of `immh`.
fn element(s: &Simd) -> Option<u8> {
    let immh = immediate(s) >> 3;
    (immh != 0).then(|| (31 - immh.leading_zeros()) as u8)
}

fn right(s: &Simd, es: u8) -> u32 {
    (16 << es) - immediate(s)
}

fn left(s: &Simd, es: u8) -> u32 {
    immediate(s) - (8 << es)
}

/// Advanced SIMD shift by immediate.
pub fn vector(s: &mut Simd) -> Option<Flow> {
    let es = element(s)?;
    let q = s.q();
    if is_narrowing(s.mnemonic) || s.mnemonic.ends_with("SHLL") {
        allowed(es < 3)?;
        return match s.mnemonic {
            "SHRN" | "RSHRN" => shift_narrow(s, es),
            "SSHLL" | "USHLL" => shift_long(s, es),
            _ => {
                let (n, q) = (s.n(), s.q());
                saturating_narrow(s, es, n, q)
            }
        };
    }
    not_one_lane(es, q)?;
    if is_conversion(s.mnemonic) {
        return convert(s, es, s.vector());
    }
    if let Some(op) = inline(s.mnemonic) {
        return plain(s, op, es, q);
    }
    if matches!(s.mnemonic, "SRSHR" | "URSHR" | "SRSRA" | "URSRA") {
        return rounding_shift(s, es, q);
    }
    saturating_left(s, es, s.vector())
}

/// SQSHL, UQSHL, SQSHLU.
fn saturating_left(s: &mut Simd, es: u8, shape: Shape) -> Option<Flow> {
    let (f, name): (BySize, _) = match s.mnemonic {
        "SQSHL" => (lanewise::<int::SqshlImm>, VName::SqshlImmediate),
        "UQSHL" => (lanewise::<int::UqshlImm>, VName::UqshlImmediate),
        "SQSHLU" => (lanewise::<int::Sqshlu>, VName::Sqshlu),
        _ => return None,
    };
    let shape = shape.with(left(s, es));
    s.named(name, f(es), shape, es)
}

/// SRSHR and its kind.
fn rounding_shift(s: &mut Simd, es: u8, q: bool) -> Option<Flow> {
    let (d, count, signed) = (s.d(), right(s, es) as u8, !s.u());
    let (high, last) = (SCRATCH, SCRATCH + 1);
    if count == 8 << es {
        return rounded_away(s, (es, q), signed);
    }
    let n = s.n();
    rounded_parts(s, n, (es, q), (signed, count));
    if s.mnemonic.ends_with('A') {
        s.emit(Inst::V3 { op: V3Op::Add, es, q, d: high, n: high, m: last });
        return s.emit(Inst::V3 { op: V3Op::Add, es, q, d, n: d, m: high });
    }
    s.emit(Inst::V3 { op: V3Op::Add, es, q, d, n: high, m: last })
}

/// SRSHR and its kind by the whole element: nothing is left of a signed one, and of an unsigned one its highest bit.
fn rounded_away(s: &mut Simd, (es, q): (u8, bool), signed: bool) -> Option<Flow> {
    let (d, n, accumulates) = (s.d(), s.n(), s.mnemonic.ends_with('A'));
    let imm = (8 << es) - 1;
    match (signed, accumulates) {
        (true, false) => s.emit(Inst::VConst { d, lo: 0, hi: 0 }),
        (true, true) => s.emit(Inst::V2 { op: V2Op::Mov, es: 0, q, d, n: d }),
        (false, false) => s.emit(Inst::VShift { op: VShiftOp::Ushr, es, q, d, n, imm }),
        (false, true) => s.emit(Inst::VShift { op: VShiftOp::Usra, es, q, d, n, imm }),
    }
}

/// The first two scratch registers = the source shifted to the right by less than the element, and the last bit that was
/// shifted out: their sum is rounded.
fn rounded_parts(s: &mut Simd, n: VReg, (es, q): (u8, bool), (signed, count): (bool, u8)) {
    let width = 8 << es;
    let shift = if signed { VShiftOp::Sshr } else { VShiftOp::Ushr };
    let (high, last) = (SCRATCH, SCRATCH + 1);
    s.emit(Inst::VShift { op: shift, es, q, d: high, n, imm: count });
    s.emit(Inst::VShift { op: VShiftOp::Shl, es, q, d: last, n, imm: width - count });
    s.emit(Inst::VShift { op: VShiftOp::Ushr, es, q, d: last, n: last, imm: width - 1 });
}

/// SQSHRN and its kind: shift wide elements, then saturate them. Rounding cannot overflow, as some bit is shifted out.
fn saturating_narrow(s: &mut Simd, es: u8, n: VReg, q: bool) -> Option<Flow> {
    let (d, count) = (s.d(), right(s, es) as u8);
    let (wide, high, last) = (es + 1, SCRATCH, SCRATCH + 1);
    let signed = s.mnemonic.starts_with('S');
    if s.mnemonic.contains("QR") {
        rounded_parts(s, n, (wide, true), (signed, count));
        s.emit(Inst::V3 { op: V3Op::Add, es: wide, q: true, d: high, n: high, m: last });
    } else {
        let op = if signed { VShiftOp::Sshr } else { VShiftOp::Ushr };
        s.emit(Inst::VShift { op, es: wide, q: true, d: high, n, imm: count });
    }
    let op = match (signed, s.mnemonic.ends_with("UN")) {
        (true, true) => V2Op::Sqxtun,
        (true, false) => V2Op::Sqxtn,
        _ => V2Op::Uqxtn,
    };
    s.emit(Inst::V2 { op, es, q, d, n: high })
}

/// Advanced SIMD scalar shift by immediate.
pub fn scalar(s: &mut Simd) -> Option<Flow> {
    let es = element(s)?;
    let shape = Shape::scalar(es);
    if is_narrowing(s.mnemonic) {
        allowed(es < 3)?;
        let n = s.lowest(es + 1);
        return saturating_narrow(s, es, n, false);
    }
    if is_conversion(s.mnemonic) {
        return convert(s, es, shape);
    }
    if let Some(op) = inline(s.mnemonic) {
        allowed(es == 3)?;
        return plain(s, op, 3, false);
    }
    if matches!(s.mnemonic, "SQSHL" | "UQSHL" | "SQSHLU") {
        return saturating_left(s, es, shape);
    }
    allowed(es == 3)?;
    rounding_shift(s, 3, false)
}

fn is_narrowing(mnemonic: &str) -> bool {
    mnemonic.ends_with("SHRN") || mnemonic.ends_with("SHRUN") || mnemonic == "SHRN" || mnemonic == "RSHRN"
}

fn is_conversion(mnemonic: &str) -> bool {
    matches!(mnemonic, "SCVTF" | "UCVTF" | "FCVTZS" | "FCVTZU")
}

/// Operations of the IR.
fn inline(mnemonic: &str) -> Option<VShiftOp> {
    Some(match mnemonic {
        "SHL" => VShiftOp::Shl,
        "SSHR" => VShiftOp::Sshr,
        "USHR" => VShiftOp::Ushr,
        "SSRA" => VShiftOp::Ssra,
        "USRA" => VShiftOp::Usra,
        "SLI" => VShiftOp::Sli,
        "SRI" => VShiftOp::Sri,
        _ => return None,
    })
}

/// The IR's shifts have counts below the element's width: a right shift by all of it becomes something else.
fn plain(s: &mut Simd, op: VShiftOp, es: u8, q: bool) -> Option<Flow> {
    if matches!(op, VShiftOp::Shl | VShiftOp::Sli) {
        return s.vshift(op, es, q, left(s, es));
    }
    let (count, width) = (right(s, es), 8 << es);
    let d = s.d();
    match op {
        _ if count < width => s.vshift(op, es, q, count),
        VShiftOp::Sshr | VShiftOp::Ssra => s.vshift(op, es, q, width - 1),
        VShiftOp::Ushr => s.emit(Inst::VConst { d, lo: 0, hi: 0 }),
        // Nothing is added or inserted; a 64-bit form still clears the upper half.
        _ => s.emit(Inst::V2 { op: V2Op::Mov, es: 0, q, d, n: d }),
    }
}

/// SHRN, RSHRN: shift wide elements, then take their low halves. The count is at most half a wide element.
fn shift_narrow(s: &mut Simd, es: u8) -> Option<Flow> {
    let (d, mut n, q, count) = (s.d(), s.n(), s.q(), right(s, es));
    if s.mnemonic.starts_with('R') {
        s.emit(Inst::V2 { op: V2Op::Mov, es: 0, q: true, d: SCRATCH, n });
        super::three::add_constant(s, SCRATCH, es + 1, 1 << (count - 1));
        n = SCRATCH;
    }
    s.emit(Inst::VShift { op: VShiftOp::Ushr, es: es + 1, q: true, d: SCRATCH, n, imm: count as u8 });
    s.emit(Inst::V2 { op: V2Op::Xtn, es, q, d, n: SCRATCH })
}

/// SSHLL, USHLL.
fn shift_long(s: &mut Simd, es: u8) -> Option<Flow> {
    let op = if s.u() { V2Op::Uxtl } else { V2Op::Sxtl };
    let (d, n, q, count) = (s.d(), s.n(), s.q(), left(s, es));
    s.emit(Inst::V2 { op, es, q, d, n });
    if count != 0 {
        s.emit(Inst::VShift { op: VShiftOp::Shl, es: es + 1, q: true, d, n: d, imm: count as u8 });
    }
    Some(Flow::Next)
}

/// SCVTF, UCVTF, FCVTZS, FCVTZU with fraction bits.
fn convert(s: &mut Simd, es: u8, shape: Shape) -> Option<Flow> {
    allowed(es > 0)?;
    if es == 1 {
        s.has(Feature::Fp16)?;
    }
    let to_int = s.mnemonic.starts_with('F');
    let mode = to_int.then_some(Rounding::Zero);
    let c = Conversion { unsigned: s.u(), fbits: right(s, es), ..Conversion::new(mode) };
    let f = if to_int { fv::same::<fv::ToInt>(es) } else { fv::same::<fv::FromInt>(es) };
    if shape == Shape::scalar(es) {
        return s.scalar_known(f, shape.with(c.pack()), es, s.d());
    }
    s.float_known(f, shape.with(c.pack()), es)
}
