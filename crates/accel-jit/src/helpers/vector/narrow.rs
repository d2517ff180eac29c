//! Narrowing operations: elements of twice the width in, results into the lower or upper half.

use super::int::{sat_s, sat_u, shift_right};
use super::*;

/// What a narrowing instruction does to one element.
pub trait NarrowOp {
    /// `n` and `m` are wide elements, zero-extended; the result is truncated to `ES`.
    fn lane<const ES: u32, const WIDE: u32>(qc: &mut bool, n: u64, m: u64, param: u32) -> u64;
}

/// Elements of size `WIDE` to `ES`. The upper form keeps the lower half of the destination.
pub extern "C" fn narrow_lanes<O: NarrowOp, const ES: u32, const WIDE: u32>(
    env: &mut FpEnv,
    regs: &mut Regs,
    op: VOperands,
) {
    let s = shape(op);
    let (n, m) = (reg(regs, op.n), reg(regs, op.m));
    // A scalar's shape is that of its result.
    let count = if s.bytes() < 8 { 1 } else { 8 >> ES };
    let mut qc = false;
    let out = collect::<ES>(count, |i| {
        O::lane::<ES, WIDE>(&mut qc, lane::<WIDE>(n, i), lane::<WIDE>(m, i), s.param())
    });
    saturated(env, qc);
    set(regs, op.d, merge_half(s, reg(regs, op.d), out));
}

/// A 64-bit result as the whole register, or as the upper half of the old one.
pub(super) fn merge_half(s: Shape, old: u128, out: u128) -> u128 {
    if s.upper() { (old & byte_mask(8)) | (out << 64) } else { out }
}

/// [`narrow_lanes`] for result elements of `1 << es` bytes, `es` below 3.
pub fn narrow<O: NarrowOp>(es: u8) -> VectorHelper {
    match es & 3 {
        0 => narrow_lanes::<O, 0, 1>,
        1 => narrow_lanes::<O, 1, 2>,
        _ => narrow_lanes::<O, 2, 3>,
    }
}

macro_rules! narrow_ops {
    ($($(#[$meta:meta])* $name:ident($qc:ident, $n:ident, $m:ident, $p:ident) => $body:expr;)*) => {$(
        $(#[$meta])*
        pub struct $name;
        impl NarrowOp for $name {
            #[inline]
            #[allow(unused_variables)]
            fn lane<const ES: u32, const WIDE: u32>($qc: &mut bool, $n: u64, $m: u64, $p: u32) -> u64 { $body }
        }
    )*};
}

#[inline]
fn s<const WIDE: u32>(x: u64) -> i128 {
    sx::<WIDE>(x).into()
}

narrow_ops! {
    /// SQXTN.
    Sqxtn(qc, n, m, p) => sat_s::<ES>(qc, s::<WIDE>(n));
    /// UQXTN.
    Uqxtn(qc, n, m, p) => sat_u::<ES>(qc, n.into());
    /// SQXTUN.
    Sqxtun(qc, n, m, p) => sat_u::<ES>(qc, s::<WIDE>(n));
    /// SQSHRN.
    Sqshrn(qc, n, m, p) => sat_s::<ES>(qc, shift_right(s::<WIDE>(n), p, false));
    /// SQRSHRN.
    Sqrshrn(qc, n, m, p) => sat_s::<ES>(qc, shift_right(s::<WIDE>(n), p, true));
    /// UQSHRN.
    Uqshrn(qc, n, m, p) => sat_u::<ES>(qc, shift_right(n.into(), p, false));
    /// UQRSHRN.
    Uqrshrn(qc, n, m, p) => sat_u::<ES>(qc, shift_right(n.into(), p, true));
    /// SQSHRUN.
    Sqshrun(qc, n, m, p) => sat_u::<ES>(qc, shift_right(s::<WIDE>(n), p, false));
    /// SQRSHRUN.
    Sqrshrun(qc, n, m, p) => sat_u::<ES>(qc, shift_right(s::<WIDE>(n), p, true));
}
