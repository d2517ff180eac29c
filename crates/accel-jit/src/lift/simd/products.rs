//! Sums of products: dot products and matrices of bytes, complex numbers, half-precision and BFloat16 factors.

use super::element::{float_by_element, spread};
use super::*;
use crate::helpers::vector::products as pv;

/// Where the second source is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Second {
    Register,
    Element,
}

/// Three registers: of the three-same class FMLAL and its kind, of three-register extension everything.
pub fn same(s: &mut Simd) -> Option<Flow> {
    let (es, q) = (s.size(), s.q());
    match s.mnemonic {
        "SDOT" | "UDOT" | "USDOT" => {
            allowed(es == 2)?;
            dot(s, s.m())
        }
        "SMMLA" => s.v3(V3Op::Smmla, 2, true),
        "UMMLA" => s.v3(V3Op::Ummla, 2, true),
        "USMMLA" => s.v3(V3Op::Usmmla, 2, true),
        "BFMMLA" => s.helper(pv::bfmmla, Shape::vector(true)),
        "FCADD" => {
            complex_size(s, es)?;
            let rotation = bits(s.word, 12, 1);
            if s.ctx.fp_inline && es >= 2 {
                return complex_add(s, es, rotation);
            }
            s.helper(pv::fcadd_for(es), Shape::vector(q).with(rotation))
        }
        "FCMLA" => {
            complex_size(s, es)?;
            let rotation = bits(s.word, 11, 2);
            if s.ctx.fp_inline && es >= 2 {
                return complex_multiply(s, es, s.m(), rotation);
            }
            s.helper(pv::fcmla_for(es), Shape::vector(q).with(rotation))
        }
        _ => widening(s, Second::Register),
    }
}

/// With one element as the second source, or a pair, or four bytes.
pub fn by_element(s: &mut Simd) -> Option<Flow> {
    let es = s.size();
    match s.mnemonic {
        "SDOT" | "UDOT" => {
            allowed(es == 2)?;
            let m = spread(s, 2)?;
            dot(s, m)
        }
        // The size field is part of these two's opcode.
        "USDOT" | "SUDOT" => {
            let m = spread(s, 2)?;
            dot(s, m)
        }
        "FCMLA" => complex_by_element(s, es),
        _ => widening(s, Second::Element),
    }
}

/// Dot products of four bytes.
fn dot(s: &mut Simd, m: VReg) -> Option<Flow> {
    let (d, n, q, es) = (s.d(), s.n(), s.q(), 2);
    let (op, n, m) = match s.mnemonic {
        "SDOT" => (V3Op::Sdot, n, m),
        "UDOT" => (V3Op::Udot, n, m),
        "USDOT" => (V3Op::Usdot, n, m),
        "SUDOT" => (V3Op::Usdot, m, n),
        _ => return None,
    };
    s.emit(Inst::V3 { op, es, q, d, n, m })
}

/// Factors of 16 bits with sums of 32.
fn widening(s: &mut Simd, second: Second) -> Option<Flow> {
    // Elements are 16 bits here, except where pairs of them are.
    let (f, shape, es): (VectorHelper, _, _) = match s.mnemonic {
        "BFDOT" => (pv::bfdot, s.vector(), 2),
        "BFMLAL" => (pv::bfmlal, Shape::vector(true).with(u32::from(s.q())), 1),
        "FMLAL" => (pv::fmlal, s.vector(), 1),
        "FMLAL2" => (pv::fmlal, s.vector().with(pv::UPPER_PART), 1),
        "FMLSL" => (pv::fmlal, s.vector().with(pv::SUBTRACT), 1),
        "FMLSL2" => (pv::fmlal, s.vector().with(pv::UPPER_PART | pv::SUBTRACT), 1),
        _ => return None,
    };
    match second {
        Second::Register => s.float_known(f, shape, es),
        Second::Element => float_by_element(s, f, shape, es),
    }
}

/// The element sizes that complex numbers have.
fn complex_size(s: &Simd, es: u8) -> Option<()> {
    allowed(es > 0)?;
    not_one_lane(es, s.q())?;
    if es == 1 { s.has(Feature::Fp16) } else { Some(()) }
}

/// FCMLA by element: the element is a complex number.
fn complex_by_element(s: &mut Simd, es: u8) -> Option<Flow> {
    let (h, l, m) = (bits(s.word, 11, 1), bits(s.word, 21, 1), s.m());
    let (q, rotation) = (s.q(), bits(s.word, 13, 2));
    let index = match es {
        1 => {
            s.has(Feature::Fp16)?;
            allowed(h == 0 || q)?;
            h << 1 | l
        }
        2 => {
            allowed(l == 0 && q)?;
            h
        }
        _ => return None,
    };
    if s.ctx.fp_inline && es == 2 {
        s.emit(Inst::VDupLane { es: 3, q, d: SCRATCH, n: m, lane: index as u8 });
        return complex_multiply(s, es, SCRATCH, rotation);
    }
    s.helper(pv::fcmla_for(es), Shape::vector(q).with(rotation).element(index))
}

/// Scratch register = `m` with the parts of each complex number exchanged.
fn exchange(s: &mut Simd, es: u8, d: VReg, m: VReg) {
    if es == 3 {
        s.emit(Inst::VExt { q: true, d, n: m, m, imm: 8 });
    } else {
        s.emit(Inst::V2 { op: V2Op::Rev64, es, q: true, d, n: m });
    }
}

/// Changes the signs of the real parts, of the imaginary parts, or of both.
fn change_signs(s: &mut Simd, es: u8, v: VReg, (real, imaginary): (bool, bool)) {
    let sign = |on: bool| if on { 1u64 << 63 } else { 0 };
    let (lo, hi) = if es == 3 {
        (sign(real), sign(imaginary))
    } else {
        let both = sign(real) >> 32 | sign(imaginary);
        (both, both)
    };
    let mask = SCRATCH + 3;
    s.emit(Inst::VConst { d: mask, lo, hi });
    s.emit(Inst::V3 { op: V3Op::Eor, es: 0, q: true, d: v, n: v, m: mask });
}

/// FCADD of singles or doubles.
fn complex_add(s: &mut Simd, es: u8, rotation: u32) -> Option<Flow> {
    let (d, n, m, q) = (s.d(), s.n(), s.m(), s.q());
    exchange(s, es, SCRATCH, m);
    change_signs(s, es, SCRATCH, (rotation == 0, rotation == 1));
    s.emit(Inst::V3 { op: V3Op::Fadd, es, q, d, n, m: SCRATCH })
}

/// FCMLA of singles or doubles.
fn complex_multiply(s: &mut Simd, es: u8, m: VReg, rotation: u32) -> Option<Flow> {
    let (d, n, q) = (s.d(), s.n(), s.q());
    let (first, second) = (SCRATCH + 1, SCRATCH + 2);
    let odd = rotation & 1 != 0;
    let op = if odd { V3Op::Trn2 } else { V3Op::Trn1 };
    s.emit(Inst::V3 { op, es, q: true, d: first, n, m: n });
    if odd {
        exchange(s, es, second, m);
    } else {
        s.emit(Inst::V2 { op: V2Op::Mov, es: 0, q: true, d: second, n: m });
    }
    if rotation != 0 {
        change_signs(s, es, second, (rotation < 3, rotation > 1));
    }
    s.emit(Inst::V3 { op: V3Op::Fmla, es, q, d, n: first, m: second })
}
