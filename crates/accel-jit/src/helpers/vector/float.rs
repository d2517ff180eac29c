//! Floating-point operations on elements.

use super::*;
use armlet_arm::fp::{self, Double, Format, Half, Rounding, Single};

/// A 64-bit result as the whole register, or as the upper half of the old one.
fn merge_half(s: Shape, old: u128, out: u128) -> u128 {
    if s.upper() { (old & byte_mask(8)) | (out << 64) } else { out }
}

/// What a floating-point instruction does to one element; raw encodings.
pub trait FpOp {
    /// `d` is the old destination's element; `param` is [`Shape::with`]'s.
    fn lane<F: Format>(env: &mut FpEnv, d: u64, n: u64, m: u64, param: u32) -> u64;
}

/// The element size of a format, as log2 of its bytes.
const fn es<F: Format>() -> u32 {
    F::BITS.trailing_zeros() - 3
}

#[inline]
pub(super) fn get<F: Format>(x: u128, i: u32) -> u64 {
    (x >> (i * F::BITS)) as u64 & F::MASK
}

#[inline]
pub(super) fn gather<F: Format>(count: u32, mut f: impl FnMut(u32) -> u64) -> u128 {
    let mut out = 0;
    for i in 0..count {
        out |= u128::from(f(i) & F::MASK) << (i * F::BITS);
    }
    out
}

/// Lane by lane, the lowest first.
pub extern "C" fn lanes<O: FpOp, F: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let s = shape(op);
    let (d, n, m) = (reg(regs, op.d), reg(regs, op.n), reg(regs, op.m));
    let fixed = (op.imm & Shape::BY_ELEMENT != 0).then_some((op.imm >> 8) & ((128 / F::BITS) - 1));
    let out = gather::<F>(s.lanes(es::<F>()), |i| {
        let m = get::<F>(m, fixed.unwrap_or(i));
        O::lane::<F>(env, get::<F>(d, i), get::<F>(n, i), m, s.param())
    });
    set(regs, op.d, out);
}

/// Adjacent pairs of the concatenation m:n; for a scalar (shape of one element), the pair in n.
pub extern "C" fn pairwise<O: FpOp, F: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let (n, m) = (reg(regs, op.n), reg(regs, op.m));
    let count = shape(op).lanes(es::<F>());
    let half = count.div_ceil(2);
    let out = gather::<F>(count, |i| {
        let (v, i) = if i < half { (n, i) } else { (m, i - half) };
        O::lane::<F>(env, 0, get::<F>(v, 2 * i), get::<F>(v, 2 * i + 1), 0)
    });
    set(regs, op.d, out);
}

/// All elements of n, folded as a tree of neighbours (`Reduce`).
pub extern "C" fn across<O: FpOp, F: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let mut v = reg(regs, op.n);
    let mut count = shape(op).lanes(es::<F>());
    while count > 1 {
        count /= 2;
        v = gather::<F>(count, |i| O::lane::<F>(env, 0, get::<F>(v, 2 * i), get::<F>(v, 2 * i + 1), 0));
    }
    set(regs, op.d, v & u128::from(F::MASK));
}

macro_rules! pick {
    ($($(#[$meta:meta])* $name:ident => $engine:ident;)*) => {$(
        $(#[$meta])*
        pub fn $name<O: FpOp>(es: u8) -> VectorHelper {
            match es {
                1 => $engine::<O, Half>,
                2 => $engine::<O, Single>,
                _ => $engine::<O, Double>,
            }
        }
    )*};
}
pick! {
    /// [`lanes`] for elements of `1 << es` bytes, `es` 1 to 3.
    same => lanes;
    /// [`pairwise`] for elements of `1 << es` bytes.
    pairs => pairwise;
    /// [`across`] for elements of `1 << es` bytes.
    reduce => across;
}

/// Parameter of conversions and roundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Rounding mode; `None` for FPCR's.
    pub rounding: Option<Rounding>,
    /// The integer is unsigned.
    pub unsigned: bool,
    /// Report inexactness (FRINTX).
    pub exact: bool,
    /// The general register has 64 bits.
    pub x: bool,
    /// Fraction bits of a fixed-point number.
    pub fbits: u32,
}

impl Conversion {
    /// With this rounding; signed, not exact, 32 bits, no fraction.
    pub const fn new(rounding: Option<Rounding>) -> Self {
        Self { rounding, unsigned: false, exact: false, x: false, fbits: 0 }
    }

    /// As a shape's parameter.
    pub fn pack(self) -> u32 {
        let rounding = self.rounding.map_or(7, |r| r as u32);
        rounding
            | (u32::from(self.unsigned) << 3)
            | (u32::from(self.exact) << 4)
            | (u32::from(self.x) << 5)
            | ((self.fbits & 127) << 8)
    }

    /// From a shape's parameter.
    #[inline]
    pub fn unpack(param: u32) -> Self {
        let mode = param & 7;
        Self {
            rounding: (mode != 7).then(|| Rounding::from_index(mode)),
            unsigned: param & 8 != 0,
            exact: param & 16 != 0,
            x: param & 32 != 0,
            fbits: (param >> 8) & 127,
        }
    }

    #[inline]
    pub(super) fn mode(self, env: &FpEnv) -> Rounding {
        self.rounding.unwrap_or_else(|| env.rounding())
    }
}

macro_rules! fp_ops {
    ($($(#[$meta:meta])* $name:ident($env:ident, $d:ident, $n:ident, $m:ident, $p:ident) => $body:expr;)*) => {$(
        $(#[$meta])*
        pub struct $name;
        impl FpOp for $name {
            #[inline]
            #[allow(unused_variables)]
            fn lane<F: Format>($env: &mut FpEnv, $d: u64, $n: u64, $m: u64, $p: u32) -> u64 { $body }
        }
    )*};
}

/// All ones if `b`.
#[inline]
fn mask(b: bool) -> u64 {
    if b { u64::MAX } else { 0 }
}

fp_ops! {
    /// FADD, FADDP.
    Add(env, d, n, m, p) => fp::add::<F>(env, n, m);
    /// FSUB.
    Sub(env, d, n, m, p) => fp::sub::<F>(env, n, m);
    /// FMUL.
    Mul(env, d, n, m, p) => fp::mul::<F>(env, n, m);
    /// FNMUL.
    Nmul(env, d, n, m, p) => {
        let product = fp::mul::<F>(env, n, m);
        fp::neg::<F>(env, product)
    };
    /// FMULX.
    Mulx(env, d, n, m, p) => fp::mulx::<F>(env, n, m);
    /// FDIV.
    Div(env, d, n, m, p) => fp::div::<F>(env, n, m);
    /// FMLA.
    Mla(env, d, n, m, p) => fp::mul_add::<F>(env, d, n, m);
    /// FMLS.
    Mls(env, d, n, m, p) => {
        let n = fp::neg::<F>(env, n);
        fp::mul_add::<F>(env, d, n, m)
    };
    /// FMAX, FMAXP, FMAXV.
    Max(env, d, n, m, p) => fp::max::<F>(env, n, m);
    /// FMIN, FMINP, FMINV.
    Min(env, d, n, m, p) => fp::min::<F>(env, n, m);
    /// FMAXNM, FMAXNMP, FMAXNMV.
    Maxnm(env, d, n, m, p) => fp::maxnm::<F>(env, n, m);
    /// FMINNM, FMINNMP, FMINNMV.
    Minnm(env, d, n, m, p) => fp::minnm::<F>(env, n, m);
    /// FABD.
    Abd(env, d, n, m, p) => {
        let difference = fp::sub::<F>(env, n, m);
        fp::abs::<F>(env, difference)
    };
    /// FABS.
    Abs(env, d, n, m, p) => fp::abs::<F>(env, n);
    /// FNEG.
    Neg(env, d, n, m, p) => fp::neg::<F>(env, n);
    /// FSQRT.
    Sqrt(env, d, n, m, p) => fp::sqrt::<F>(env, n);
    /// FRECPS.
    Recps(env, d, n, m, p) => fp::recip_step::<F>(env, n, m);
    /// FRSQRTS.
    Rsqrts(env, d, n, m, p) => fp::rsqrt_step::<F>(env, n, m);
    /// FRECPE; the parameter tells of FEAT_RPRES.
    Recpe(env, d, n, m, p) => fp::recip_estimate::<F>(env, n, p != 0);
    /// FRSQRTE; the parameter tells of FEAT_RPRES.
    Rsqrte(env, d, n, m, p) => fp::rsqrt_estimate::<F>(env, n, p != 0);
    /// FRECPX.
    Recpx(env, d, n, m, p) => fp::recip_exponent::<F>(env, n);
    /// FCMEQ.
    Cmeq(env, d, n, m, p) => mask(fp::compare_eq::<F>(env, n, m));
    /// FCMGE.
    Cmge(env, d, n, m, p) => mask(fp::compare_ge::<F>(env, n, m));
    /// FCMGT.
    Cmgt(env, d, n, m, p) => mask(fp::compare_gt::<F>(env, n, m));
    /// FACGE.
    Acge(env, d, n, m, p) => {
        let (n, m) = (fp::abs::<F>(env, n), fp::abs::<F>(env, m));
        mask(fp::compare_ge::<F>(env, n, m))
    };
    /// FACGT.
    Acgt(env, d, n, m, p) => {
        let (n, m) = (fp::abs::<F>(env, n), fp::abs::<F>(env, m));
        mask(fp::compare_gt::<F>(env, n, m))
    };
    /// FCMEQ (zero).
    CmeqZero(env, d, n, m, p) => mask(fp::compare_eq::<F>(env, n, 0));
    /// FCMGE (zero).
    CmgeZero(env, d, n, m, p) => mask(fp::compare_ge::<F>(env, n, 0));
    /// FCMGT (zero).
    CmgtZero(env, d, n, m, p) => mask(fp::compare_gt::<F>(env, n, 0));
    /// FCMLE (zero).
    CmleZero(env, d, n, m, p) => mask(fp::compare_ge::<F>(env, 0, n));
    /// FCMLT (zero).
    CmltZero(env, d, n, m, p) => mask(fp::compare_gt::<F>(env, 0, n));
    /// FRINTN, P, M, Z, A, X, I, by [`Conversion`].
    Rint(env, d, n, m, p) => {
        let c = Conversion::unpack(p);
        let mode = c.mode(env);
        fp::round_int::<F>(env, n, mode, c.exact)
    };
    /// FRINT32X and its kind: [`Conversion`], of 64 bits if `x`.
    RintN(env, d, n, m, p) => {
        let c = Conversion::unpack(p);
        let mode = c.mode(env);
        fp::round_int_n::<F>(env, n, mode, if c.x { 64 } else { 32 })
    };
    /// FCVTNS and its kind to an integer or fixed-point number of the same width, by [`Conversion`].
    ToInt(env, d, n, m, p) => {
        let c = Conversion::unpack(p);
        let mode = c.mode(env);
        fp::to_fixed::<F>(env, n, c.fbits, c.unsigned, mode, F::BITS)
    };
    /// SCVTF and UCVTF of an integer or fixed-point number of the same width, by [`Conversion`].
    FromInt(env, d, n, m, p) => {
        let c = Conversion::unpack(p);
        let mode = c.mode(env);
        let unused = 64 - F::BITS;
        let n = if c.unsigned { n } else { (((n << unused) as i64) >> unused) as u64 };
        fp::fixed_to_fp::<F>(env, n, c.fbits, c.unsigned, mode)
    };
}

/// FMADD, FMSUB, FNMADD, FNMSUB: parameter bit 0 negates the product, bit 1 the addend.
pub extern "C" fn fused<F: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let (n, m, a) = (reg(regs, op.n), reg(regs, op.m), reg(regs, op.a));
    let (n, m, a) = (n as u64 & F::MASK, m as u64 & F::MASK, a as u64 & F::MASK);
    let param = shape(op).param();
    let n = if param & 1 != 0 { fp::neg::<F>(env, n) } else { n };
    let a = if param & 2 != 0 { fp::neg::<F>(env, a) } else { a };
    set(regs, op.d, fp::mul_add::<F>(env, a, n, m).into());
}

/// [`fused`] for operands of `1 << es` bytes.
pub fn fused_for(es: u8) -> VectorHelper {
    match es {
        1 => fused::<Half>,
        2 => fused::<Single>,
        _ => fused::<Double>,
    }
}

/// FCVT of a scalar.
pub extern "C" fn fcvt<From: Format, To: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let n = reg(regs, op.n) as u64 & From::MASK;
    set(regs, op.d, fp::convert::<From, To>(env, n).into());
}

/// FCVTL, FCVTL2: half to single precision, or single to double.
pub extern "C" fn fcvtl<From: Format, To: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let n = reg(regs, op.n) >> if shape(op).upper() { 64 } else { 0 };
    let out = gather::<To>(128 / To::BITS, |i| fp::convert::<From, To>(env, get::<From>(n, i)));
    set(regs, op.d, out);
}

/// FCVTN, FCVTN2.
pub extern "C" fn fcvtn<From: Format, To: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let n = reg(regs, op.n);
    let out = gather::<To>(128 / From::BITS, |i| fp::convert::<From, To>(env, get::<From>(n, i)));
    let out = merge_half(shape(op), reg(regs, op.d), out);
    set(regs, op.d, out);
}

/// FCVTXN, FCVTXN2, and the scalar form.
pub extern "C" fn fcvtxn(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let n = reg(regs, op.n);
    let s = shape(op);
    let count = if s.bytes() < 8 { 1 } else { 2 };
    let out = gather::<Single>(count, |i| fp::convert_to_odd_single(env, get::<Double>(n, i)));
    let out = merge_half(s, reg(regs, op.d), out);
    set(regs, op.d, out);
}

/// BFCVT.
pub extern "C" fn bfcvt(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let n = reg(regs, op.n) as u64 & Single::MASK;
    set(regs, op.d, fp::convert_to_bfloat(env, n).into());
}

/// BFCVTN, BFCVTN2.
pub extern "C" fn bfcvtn(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let n = reg(regs, op.n);
    let out = gather::<Half>(4, |i| fp::convert_to_bfloat(env, get::<Single>(n, i)));
    let out = merge_half(shape(op), reg(regs, op.d), out);
    set(regs, op.d, out);
}
