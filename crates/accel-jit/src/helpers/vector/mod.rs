//! Advanced SIMD and scalar floating-point instructions as plain functions on whole registers.
//!
//! Every function has the shape `VectorHelper` or `VectorGprHelper`. What an instruction does to one element
//! is a type that implements `IntOp` or `FpOp`; how elements are taken from registers and put back
//! is an *engine* (a generic function), so that each pair of the two is one small function. [`Shape`] packs what
//! an engine needs besides register numbers into [`VOperands::imm`].

pub mod crypto;
pub mod float;
pub mod gpr;
pub mod int;
pub mod products;
#[cfg(test)]
mod tests;

use armlet_arm::fp::FPSR_QC;
use armlet_arm::state::FpEnv;

use crate::ir::{VOperands, VectorHelper};

/// The V registers.
pub type Regs = [u128; 32];

/// [`VOperands::imm`]: how many bytes take part, an element index and one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(u32);

impl Shape {
    const UPPER: u32 = 1 << 5;
    const BY_ELEMENT: u32 = 1 << 6;

    /// A vector of 16 bytes if `q`, else of 8. Long and narrow forms take or write the upper half if `q`.
    pub const fn vector(q: bool) -> Self {
        Self(if q { 16 | Self::UPPER } else { 8 })
    }

    /// One element of `1 << es` bytes.
    pub const fn scalar(es: u8) -> Self {
        Self(1 << es)
    }

    /// The second source is this element of its register, for all lanes.
    pub const fn element(self, index: u32) -> Self {
        Self(self.0 | Self::BY_ELEMENT | ((index & 15) << 8))
    }

    /// With a parameter of 16 bits: a shift count, a rounding mode, ….
    pub const fn with(self, param: u32) -> Self {
        Self((self.0 & 0xffff) | (param << 16))
    }

    /// As `VOperands::imm`.
    pub const fn pack(self) -> u32 {
        self.0
    }

    /// As it was packed.
    pub const fn of(op: VOperands) -> Self {
        Self(op.imm)
    }

    /// How many bytes take part: 16 or 8 of vectors, those of one element of scalars.
    pub const fn bytes(self) -> u32 {
        self.0 & 31
    }

    /// Long and narrow forms take or write the upper half.
    pub const fn upper(self) -> bool {
        self.0 & Self::UPPER != 0
    }

    /// [`Shape::with`]'s.
    pub const fn param(self) -> u32 {
        self.0 >> 16
    }

    /// [`Shape::element`]'s, if the second source is one element.
    pub fn by_element(self) -> Option<u8> {
        (self.0 & Self::BY_ELEMENT != 0).then_some((self.0 >> 8 & 15) as u8)
    }

    const fn mask(self) -> u128 {
        byte_mask(self.bytes())
    }

    const fn lanes(self, es: u32) -> u32 {
        self.bytes() >> es
    }
}

const fn byte_mask(bytes: u32) -> u128 {
    if bytes >= 16 { u128::MAX } else { (1 << (8 * bytes)) - 1 }
}

fn shape(op: VOperands) -> Shape {
    Shape(op.imm)
}

fn reg(regs: &Regs, i: u8) -> u128 {
    regs[usize::from(i & 31)]
}

fn set(regs: &mut Regs, i: u8, value: u128) {
    regs[usize::from(i & 31)] = value;
}

/// Bits of an element.
const fn bits(es: u32) -> u32 {
    8 << es
}

/// Zero-extends an element.
#[inline]
const fn zx<const ES: u32>(x: u64) -> u64 {
    x & (u64::MAX >> (64 - bits(ES)))
}

/// Sign-extends an element.
#[inline]
const fn sx<const ES: u32>(x: u64) -> i64 {
    let unused = 64 - bits(ES);
    ((x << unused) as i64) >> unused
}

#[inline]
const fn lane<const ES: u32>(x: u128, i: u32) -> u64 {
    zx::<ES>((x >> (i * bits(ES))) as u64)
}

/// Builds a register from its elements, from `count` on zero.
#[inline]
fn collect<const ES: u32>(count: u32, mut f: impl FnMut(u32) -> u64) -> u128 {
    let mut out = 0;
    for i in 0..count {
        out |= u128::from(zx::<ES>(f(i))) << (i * bits(ES));
    }
    out
}

/// The second source of a lane-wise operation, its element spread over all lanes if the shape says so.
#[inline]
fn second<const ES: u32>(regs: &Regs, op: VOperands) -> u128 {
    let m = reg(regs, op.m);
    if op.imm & Shape::BY_ELEMENT == 0 {
        return m;
    }
    let ones = u128::MAX / (u128::MAX >> (128 - bits(ES)));
    u128::from(lane::<ES>(m, (op.imm >> 8) & (15 >> ES))) * ones
}

/// What an integer instruction does to one element. Sources come zero-extended, the result is truncated.
pub trait IntOp {
    /// `d` is the old destination's element; `qc` is set on saturation; `param` is [`Shape::with`]'s.
    fn lane<const ES: u32>(qc: &mut bool, d: u64, n: u64, m: u64, param: u32) -> u64;
}

/// Lane by lane. Lanes that take no part count as zero in all sources, which saturates in no instruction.
pub extern "C" fn lanewise<O: IntOp, const ES: u32>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let s = shape(op);
    let mask = s.mask();
    let (d, n) = (reg(regs, op.d) & mask, reg(regs, op.n) & mask);
    let m = second::<ES>(regs, op) & mask;
    let mut qc = false;
    let out = collect::<ES>(16 >> ES, |i| {
        O::lane::<ES>(&mut qc, lane::<ES>(d, i), lane::<ES>(n, i), lane::<ES>(m, i), s.param())
    });
    saturated(env, qc);
    set(regs, op.d, out & mask);
}

fn saturated(env: &mut FpEnv, qc: bool) {
    if qc {
        env.fpsr |= FPSR_QC;
    }
}

/// [`lanewise`] for elements of `1 << es` bytes.
pub fn same<O: IntOp>(es: u8) -> VectorHelper {
    match es & 3 {
        0 => lanewise::<O, 0>,
        1 => lanewise::<O, 1>,
        2 => lanewise::<O, 2>,
        _ => lanewise::<O, 3>,
    }
}

/// Elements of n and m (upper halves if the shape says so) with a destination of elements twice as wide: the
/// operation gets narrow `n` and `m`, zero-extended, and runs for `WIDE` elements.
pub extern "C" fn lengthen<O: LongOp, const ES: u32, const WIDE: u32>(
    env: &mut FpEnv,
    regs: &mut Regs,
    op: VOperands,
) {
    let s = shape(op);
    let m = second::<ES>(regs, op);
    let (d, n) = (reg(regs, op.d), reg(regs, op.n));
    let shift = if s.upper() { 64 } else { 0 };
    let m = if op.imm & Shape::BY_ELEMENT == 0 { m >> shift } else { m };
    let n = n >> shift;
    // A vector's destination is always the whole register.
    let scalar = s.bytes() < 8;
    let count = if scalar { 1 } else { 8 >> ES };
    let mut qc = false;
    let out = collect::<WIDE>(count, |i| {
        O::lane::<ES, WIDE>(&mut qc, lane::<WIDE>(d, i), lane::<ES>(n, i), lane::<ES>(m, i))
    });
    saturated(env, qc);
    set(regs, op.d, out);
}

/// What a widening instruction does to one element.
pub trait LongOp {
    /// `d` is the old wide element; narrow sources come zero-extended; the result is truncated.
    fn lane<const ES: u32, const WIDE: u32>(qc: &mut bool, d: u64, n: u64, m: u64) -> u64;
}

/// [`lengthen`] for source elements of `1 << es` bytes, `es` below 3. The shape of a scalar is its source's.
pub fn long<O: LongOp>(es: u8) -> VectorHelper {
    match es & 3 {
        0 => lengthen::<O, 0, 1>,
        1 => lengthen::<O, 1, 2>,
        _ => lengthen::<O, 2, 3>,
    }
}
