//! Advanced SIMD and floating-point data processing.
//!
//! What the IR has an inline operation for is lifted to that; everything else to a call of a function of
//! [`crate::helpers::vector`]. Inline floating point is used only if FPCR allows it
//! ([`LiftContext::fp_inline`]).

mod element;
mod float;
mod moves;
mod products;
mod shift;
#[cfg(test)]
mod tests;
mod three;
mod two;

use armlet_arm::{Class, Enc, Feature};

use super::fields::{bit, bits};
use super::{Flow, LiftContext};
use crate::helpers::vector::{Shape, crypto};
use crate::ir::{
    Builder, F1Op, Inst, Opnd, Reg, V2Op, V3Op, VName, VOperands, VReg, VShiftOp, VectorGprHelper,
    VectorHelper,
};

/// The function for elements of `1 << es` bytes.
type BySize = fn(u8) -> VectorHelper;

/// First scratch vector register.
const SCRATCH: VReg = 32;

/// One instruction being lifted.
struct Simd<'a> {
    b: &'a mut Builder,
    ctx: &'a LiftContext,
    enc: Enc,
    mnemonic: &'static str,
    word: u32,
}

impl Simd<'_> {
    fn d(&self) -> VReg {
        bits(self.word, 0, 5) as VReg
    }

    fn n(&self) -> VReg {
        bits(self.word, 5, 5) as VReg
    }

    fn m(&self) -> VReg {
        bits(self.word, 16, 5) as VReg
    }

    fn a(&self) -> VReg {
        bits(self.word, 10, 5) as VReg
    }

    fn q(&self) -> bool {
        bit(self.word, 30)
    }

    /// Field `size`: log2 of the bytes of an element.
    fn size(&self) -> u8 {
        bits(self.word, 22, 2) as u8
    }

    /// Field `sz`, as log2 of the bytes of an element.
    fn sz(&self) -> u8 {
        2 + bits(self.word, 22, 1) as u8
    }

    /// `U`, the unsigned bit of most classes.
    fn u(&self) -> bool {
        bit(self.word, 29)
    }

    /// The shape of a vector instruction.
    fn vector(&self) -> Shape {
        Shape::vector(self.q())
    }

    fn operands(&self, shape: Shape) -> VOperands {
        VOperands { d: self.d(), n: self.n(), m: self.m(), a: self.a(), imm: shape.pack() }
    }

    fn helper(&mut self, f: VectorHelper, shape: Shape) -> Option<Flow> {
        let op = self.operands(shape);
        self.b.emit(Inst::VHelper { f, op });
        Some(Flow::Next)
    }

    /// As [`Simd::helper`], by the mnemonic's name if it has one.
    fn known(&mut self, f: VectorHelper, shape: Shape, es: u8) -> Option<Flow> {
        let op = self.operands(shape);
        self.emit(match VName::by_mnemonic(self.mnemonic) {
            Some(name) => Inst::VKnown { name, es, f, op },
            None => Inst::VHelper { f, op },
        })
    }

    /// As [`Simd::helper`], by this name.
    fn named(&mut self, name: VName, f: VectorHelper, shape: Shape, es: u8) -> Option<Flow> {
        let op = self.operands(shape);
        self.emit(Inst::VKnown { name, es, f, op })
    }

    /// The last but one scratch register = the lowest element of the source, and nothing above it.
    fn lowest(&mut self, es: u8) -> VReg {
        let (d, n) = (SCRATCH + 6, self.n());
        self.lowest_of(es, d, n);
        d
    }

    /// As [`Simd::known`] if FPCR allows that, else by function.
    fn float_known(&mut self, f: VectorHelper, shape: Shape, es: u8) -> Option<Flow> {
        if self.ctx.fp_inline { self.known(f, shape, es) } else { self.helper(f, shape) }
    }

    /// The same of a scalar result, as [`Simd::scalar`] places it.
    fn scalar_known(&mut self, f: VectorHelper, shape: Shape, es: u8, above: VReg) -> Option<Flow> {
        if self.ctx.fp_inline {
            return self.known(f, shape, es);
        }
        self.scalar_helper(f, shape, es, above)
    }

    /// `d`, a scratch register, = the half `n` as a single.
    fn half_as_single(&mut self, d: VReg, n: VReg) {
        self.lowest_of(1, d, n);
        self.emit(Inst::V2 { op: V2Op::Fcvtl, es: 1, q: false, d, n: d });
    }

    /// `d` = the lowest element of `n`.
    fn lowest_of(&mut self, es: u8, d: VReg, n: VReg) {
        match es {
            0 | 1 => {
                self.emit(Inst::VConst { d, lo: u64::MAX >> (64 - (8 << es)), hi: 0 });
                self.emit(Inst::V3 { op: V3Op::And, es: 0, q: true, d, n: d, m: n });
            }
            _ => {
                self.emit(Inst::F1 { op: F1Op::Mov, double: es == 3, d, n });
            }
        }
    }

    /// A scalar floating-point function whose result is `1 << es` bytes, as [`Simd::scalar`] places it.
    fn scalar_helper(&mut self, f: VectorHelper, shape: Shape, es: u8, above: VReg) -> Option<Flow> {
        let op = self.operands(shape);
        self.scalar(Inst::VHelper { f, op }, es, above)
    }

    /// An instruction with a scalar result of `1 << es` bytes in `d`. What is above it is zero, or as in `above` if
    /// FPCR.NEP says so (Arm ARM, FPCR, NEP).
    fn scalar(&mut self, inst: Inst, es: u8, above: VReg) -> Option<Flow> {
        if !self.ctx.fp_merge {
            return self.emit(inst);
        }
        let d = self.d();
        self.emit(Inst::V2 { op: V2Op::Mov, es: 0, q: true, d: SCRATCH, n: above });
        self.emit(inst);
        self.emit(Inst::VInsLane { es, d: SCRATCH, dl: 0, n: d, nl: 0 });
        self.emit(Inst::V2 { op: V2Op::Mov, es: 0, q: true, d, n: SCRATCH })
    }

    fn helper_gpr(&mut self, f: VectorGprHelper, shape: Shape, s: Opnd, d: Reg) -> Option<Flow> {
        let op = self.operands(shape);
        self.b.emit(Inst::VHelperGpr { f, op, s, d, nzcv: false });
        Some(Flow::Next)
    }

    fn helper_nzcv(&mut self, f: VectorGprHelper, shape: Shape, s: Opnd) -> Option<Flow> {
        let op = self.operands(shape);
        self.b.emit(Inst::VHelperGpr { f, op, s, d: Reg::NONE, nzcv: true });
        Some(Flow::Next)
    }

    fn emit(&mut self, inst: Inst) -> Option<Flow> {
        self.b.emit(inst);
        Some(Flow::Next)
    }

    /// `d = op(n, m)` inline, for elements of `1 << es` bytes.
    fn v3(&mut self, op: V3Op, es: u8, q: bool) -> Option<Flow> {
        let (d, n, m) = (self.d(), self.n(), self.m());
        self.emit(Inst::V3 { op, es, q, d, n, m })
    }

    /// `d = op(n)` inline.
    fn v2(&mut self, op: V2Op, es: u8, q: bool) -> Option<Flow> {
        let (d, n) = (self.d(), self.n());
        self.emit(Inst::V2 { op, es, q, d, n })
    }

    /// `d = op(n, imm)` inline.
    fn vshift(&mut self, op: VShiftOp, es: u8, q: bool, imm: u32) -> Option<Flow> {
        let (d, n) = (self.d(), self.n());
        self.emit(Inst::VShift { op, es, q, d, n, imm: imm as u8 })
    }

    fn has(&self, f: Feature) -> Option<()> {
        self.ctx.features.has(f).then_some(())
    }
}

/// `Some` if the condition holds; an encoding for which it does not is UNDEFINED.
fn allowed(condition: bool) -> Option<()> {
    condition.then_some(())
}

/// 64-bit elements are only allowed in 128-bit vectors.
fn not_one_lane(es: u8, q: bool) -> Option<()> {
    allowed(es < 3 || q)
}

/// True unless floating-point operands and results are all singles and doubles.
fn may_have_halves(enc: Enc, word: u32) -> bool {
    use Class::*;
    let m = enc.mnemonic();
    let widening = m.starts_with("FMLAL") || m.starts_with("FMLSL");
    match enc.class() {
        // Fields ftype, and opc of FCVT.
        Floatdp1 => bits(word, 22, 2) == 3 || m == "FCVT" && bits(word, 15, 2) == 3,
        Float2fix | Float2int | Floatccmp | Floatcmp | Floatdp2 | Floatdp3 => bits(word, 22, 2) == 3,
        Asimdsame | Asisdsame => widening,
        Asimdmisc | Asisdmisc => matches!(m, "FCVTL" | "FCVTN") && !bit(word, 22),
        Asimdall | Asisdpair => enc.name().ends_with("_H"),
        Asimdelem | Asisdelem => enc.name().ends_with("_RH_H") || widening || m == "FCMLA",
        // Field immh.
        Asimdshf | Asisdshf => bits(word, 19, 4) < 4,
        _ => true,
    }
}

/// Lifts the classes of this module.
pub fn lift(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    use Class::*;
    let inline = ctx.half_inline || !may_have_halves(enc, word);
    let ctx = &LiftContext { fp_inline: ctx.fp_inline && inline, ..*ctx };
    let s = &mut Simd { b, ctx, enc, mnemonic: enc.mnemonic(), word };
    match enc.class() {
        Asimdsame => three::same(s),
        Asimdsamefp16 => three::float_same(s, 1),
        Asimdsame2 => three::same_extra(s),
        Asimddiff => three::different(s),
        Asisdsame => three::scalar_same(s),
        Asisdsamefp16 => three::float_scalar_same(s, 1),
        Asisdsame2 => three::scalar_same_extra(s),
        Asisddiff => three::scalar_different(s),
        Asimdelem => element::vector(s),
        Asisdelem => element::scalar(s),
        Asimdmisc => two::misc(s),
        Asimdmiscfp16 => two::float_misc(s, 1),
        Asimdall => two::all(s),
        Asisdmisc => two::scalar_misc(s),
        Asisdmiscfp16 => two::float_scalar_misc(s, 1),
        Asisdpair => two::scalar_pair(s),
        Asimdshf => shift::vector(s),
        Asisdshf => shift::scalar(s),
        Asimdins => moves::insert(s),
        Asisdone => moves::scalar_copy(s),
        Asimdext => moves::extract(s),
        Asimdperm => moves::permute(s),
        Asimdtbl => moves::table(s),
        Asimdimm => moves::immediate(s),
        Cryptoaes | Cryptosha2 | Cryptosha3 | Cryptosha5122 | Cryptosha5123 | Crypto4 | Crypto3Imm2
        | Crypto3Imm6 => cryptography(s),
        Float2fix => float::fixed(s),
        Float2int => float::integer(s),
        Floatccmp => float::conditional_compare(s),
        Floatcmp => float::compare(s),
        Floatdp1 => float::one(s),
        Floatdp2 => float::two(s),
        Floatdp3 => float::three(s),
        Floatimm => float::immediate(s),
        Floatsel => float::select(s),
        _ => None,
    }
}

/// AES, SHA, SM3 and SM4.
fn cryptography(s: &mut Simd) -> Option<Flow> {
    let shape = Shape::vector(true);
    let f: VectorHelper = match s.mnemonic {
        // The first source of these is the destination.
        "AESE" | "AESD" => {
            let op = if s.mnemonic == "AESE" { V3Op::Aese } else { V3Op::Aesd };
            let (d, m) = (s.d(), s.n());
            return s.emit(Inst::V3 { op, es: 0, q: true, d, n: d, m });
        }
        "AESMC" => return s.v2(V2Op::Aesmc, 0, true),
        "AESIMC" => return s.v2(V2Op::Aesimc, 0, true),
        "SHA1C" => return s.v3(V3Op::Sha1c, 2, true),
        "SHA1P" => return s.v3(V3Op::Sha1p, 2, true),
        "SHA1M" => return s.v3(V3Op::Sha1m, 2, true),
        "SHA1H" => return s.v2(V2Op::Sha1h, 2, true),
        "SHA1SU0" => return s.v3(V3Op::Sha1su0, 2, true),
        "SHA1SU1" => return s.v2(V2Op::Sha1su1, 2, true),
        "SHA256H" => return s.v3(V3Op::Sha256h, 2, true),
        "SHA256H2" => return s.v3(V3Op::Sha256h2, 2, true),
        "SHA256SU0" => return s.v2(V2Op::Sha256su0, 2, true),
        "SHA256SU1" => return s.v3(V3Op::Sha256su1, 2, true),
        "SHA512H" => crypto::sha512h,
        "SHA512H2" => crypto::sha512h2,
        "SHA512SU0" => crypto::sha512su0,
        "SHA512SU1" => crypto::sha512su1,
        "EOR3" => crypto::eor3,
        "BCAX" => crypto::bcax,
        "RAX1" => crypto::rax1,
        "XAR" => return s.known(crypto::xar, shape.with(bits(s.word, 10, 6)), 3),
        "SM3SS1" => crypto::sm3ss1,
        "SM3TT1A" => return s.helper(crypto::sm3tt1a, shape.with(bits(s.word, 12, 2))),
        "SM3TT1B" => return s.helper(crypto::sm3tt1b, shape.with(bits(s.word, 12, 2))),
        "SM3TT2A" => return s.helper(crypto::sm3tt2a, shape.with(bits(s.word, 12, 2))),
        "SM3TT2B" => return s.helper(crypto::sm3tt2b, shape.with(bits(s.word, 12, 2))),
        "SM3PARTW1" => crypto::sm3partw1,
        "SM3PARTW2" => crypto::sm3partw2,
        "SM4E" => crypto::sm4e,
        "SM4EKEY" => crypto::sm4ekey,
        _ => return None,
    };
    s.known(f, shape, 3)
}
