//! Sums of products: complex numbers, and half-precision and BFloat16 factors with single-precision sums.

use super::float::{gather, get};
use super::*;
use armlet_arm::fp::{self, Double, Format, Half, Single};

/// Parameter of [`fmlal`]: the upper half of the elements.
pub const UPPER_PART: u32 = 1;
/// Parameter of [`fmlal`]: subtract the products.
pub const SUBTRACT: u32 = 2;

/// The index of the element that is the second source for all lanes.
fn fixed(op: VOperands) -> Option<u32> {
    (op.imm & Shape::BY_ELEMENT != 0).then_some((op.imm >> 8) & 15)
}

/// FMLAL, FMLAL2, FMLSL, FMLSL2.
pub extern "C" fn fmlal(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let s = shape(op);
    let (d, n, m) = (reg(regs, op.d), reg(regs, op.n), reg(regs, op.m));
    let count = s.lanes(2);
    let first = if s.param() & UPPER_PART != 0 { count } else { 0 };
    let out = gather::<Single>(count, |i| {
        let a = get::<Half>(n, first + i);
        let a = if s.param() & SUBTRACT != 0 { fp::neg::<Half>(env, a) } else { a };
        let b = get::<Half>(m, fixed(op).unwrap_or(first + i));
        fp::mul_add_half(env, get::<Single>(d, i), a, b)
    });
    set(regs, op.d, out);
}

/// BFMLALB; BFMLALT with the parameter 1.
pub extern "C" fn bfmlal(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let top = shape(op).param();
    let (d, n, m) = (reg(regs, op.d), reg(regs, op.n), reg(regs, op.m));
    let out = gather::<Single>(4, |i| {
        let b = get::<Half>(m, fixed(op).unwrap_or(2 * i + top));
        fp::bf_mul_add(env, get::<Single>(d, i), get::<Half>(n, 2 * i + top), b)
    });
    set(regs, op.d, out);
}

/// The `i`th pair of 16-bit elements.
fn pair(v: u128, i: u32) -> [u64; 2] {
    [get::<Half>(v, 2 * i), get::<Half>(v, 2 * i + 1)]
}

/// BFDOT.
pub extern "C" fn bfdot(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let (d, n, m) = (reg(regs, op.d), reg(regs, op.n), reg(regs, op.m));
    let out = gather::<Single>(shape(op).lanes(2), |i| {
        fp::bf_dot_add(env, get::<Single>(d, i), pair(n, i), pair(m, fixed(op).unwrap_or(i)))
    });
    set(regs, op.d, out);
}

/// BFMMLA: rows of four elements of `n` by rows of four of `m`.
pub extern "C" fn bfmmla(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let (d, n, m) = (reg(regs, op.d), reg(regs, op.n), reg(regs, op.m));
    let out = gather::<Single>(4, |at| {
        let (i, j) = (at / 2, at % 2);
        (0..2).fold(get::<Single>(d, at), |sum, k| {
            fp::bf_dot_add(env, sum, pair(n, 2 * i + k), pair(m, 2 * j + k))
        })
    });
    set(regs, op.d, out);
}

/// FCADD: the parameter is 0 for a rotation by 90 degrees, 1 for 270.
pub extern "C" fn fcadd<F: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let s = shape(op);
    let (n, m) = (reg(regs, op.n), reg(regs, op.m));
    let out = gather::<F>(s.bytes() * 8 / F::BITS, |i| {
        let other = get::<F>(m, i ^ 1);
        let other = if (i & 1) == s.param() { fp::neg::<F>(env, other) } else { other };
        fp::add::<F>(env, get::<F>(n, i), other)
    });
    set(regs, op.d, out);
}

/// FCMLA: the parameter is the rotation in units of 90 degrees.
pub extern "C" fn fcmla<F: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let s = shape(op);
    let (d, n, m) = (reg(regs, op.d), reg(regs, op.n), reg(regs, op.m));
    let swap = s.param() & 1;
    let out = gather::<F>(s.bytes() * 8 / F::BITS, |i| {
        let (part, whole) = (i & 1, i & !1);
        let b = get::<F>(m, fixed(op).map_or(whole, |index| 2 * index) + (part ^ swap));
        // Real parts change their sign from 90 to 180 degrees, imaginary ones from 180 to 270.
        let negative = s.param() == 2 || s.param() == 1 + 2 * part;
        let b = if negative { fp::neg::<F>(env, b) } else { b };
        fp::mul_add::<F>(env, get::<F>(d, i), get::<F>(n, whole + swap), b)
    });
    set(regs, op.d, out);
}

/// [`fcadd`] for elements of `1 << es` bytes.
pub fn fcadd_for(es: u8) -> VectorHelper {
    match es {
        1 => fcadd::<Half>,
        2 => fcadd::<Single>,
        _ => fcadd::<Double>,
    }
}

/// [`fcmla`] for elements of `1 << es` bytes.
pub fn fcmla_for(es: u8) -> VectorHelper {
    match es {
        1 => fcmla::<Half>,
        2 => fcmla::<Single>,
        _ => fcmla::<Double>,
    }
}
