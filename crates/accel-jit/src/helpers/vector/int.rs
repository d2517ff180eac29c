//! Integer operations on elements, same width and widening.

use super::*;
use armlet_arm::{crypto, fp};

/// Defines element operations as types: `Name(qc, d, n, m, param) => expression;` with `ES` in scope.
macro_rules! int_ops {
    ($($(#[$meta:meta])* $name:ident($qc:ident, $d:ident, $n:ident, $m:ident, $p:ident) => $body:expr;)*) => {$(
        $(#[$meta])*
        pub struct $name;
        impl IntOp for $name {
            #[inline]
            #[allow(unused_variables)]
            fn lane<const ES: u32>($qc: &mut bool, $d: u64, $n: u64, $m: u64, $p: u32) -> u64 { $body }
        }
    )*};
}

/// `SignedSatQ`.
#[inline]
pub(super) fn sat_s<const ES: u32>(qc: &mut bool, v: i128) -> u64 {
    let max = (1 << (bits(ES) - 1)) - 1;
    let clamped = v.clamp(-max - 1, max);
    *qc |= clamped != v;
    clamped as u64
}

/// `UnsignedSatQ`.
#[inline]
pub(super) fn sat_u<const ES: u32>(qc: &mut bool, v: i128) -> u64 {
    let clamped = v.clamp(0, (1 << bits(ES)) - 1);
    *qc |= clamped != v;
    clamped as u64
}

#[inline]
fn s<const ES: u32>(x: u64) -> i128 {
    sx::<ES>(x).into()
}

#[inline]
fn u(x: u64) -> i128 {
    x.into()
}

/// Shift by the low byte of `m`, signed: left if positive; rounded if `round`.
#[inline]
fn shift_by<const ES: u32>(v: i128, m: u64, round: bool) -> i128 {
    let count = i32::from(m as i8);
    if count >= 0 {
        // 64 is enough to shift everything out, or to saturate anything.
        v << count.min(bits(ES) as i32)
    } else {
        let right = (-count).min(bits(ES) as i32 + 1) as u32;
        shift_right(v, right, round)
    }
}

/// `v >> count` (1 to 65), rounded if `round`.
#[inline]
pub(super) fn shift_right(v: i128, count: u32, round: bool) -> i128 {
    if round && count > 0 { (v + (1 << (count - 1))) >> count } else { v >> count }
}

/// `2 * n * m >> bits`, rounded if asked for, without overflow for elements of up to 32 bits.
#[inline]
fn doubling_high<const ES: u32>(n: u64, m: u64, round: bool) -> i128 {
    shift_right(s::<ES>(n) * s::<ES>(m), bits(ES) - 1, round)
}

int_ops! {
    /// SQADD.
    Sqadd(qc, d, n, m, p) => sat_s::<ES>(qc, s::<ES>(n) + s::<ES>(m));
    /// UQADD.
    Uqadd(qc, d, n, m, p) => sat_u::<ES>(qc, u(n) + u(m));
    /// SQSUB.
    Sqsub(qc, d, n, m, p) => sat_s::<ES>(qc, s::<ES>(n) - s::<ES>(m));
    /// UQSUB.
    Uqsub(qc, d, n, m, p) => sat_u::<ES>(qc, u(n) - u(m));
    /// SSHL.
    Sshl(qc, d, n, m, p) => shift_by::<ES>(s::<ES>(n), m, false) as u64;
    /// USHL.
    Ushl(qc, d, n, m, p) => shift_by::<ES>(u(n), m, false) as u64;
    /// SRSHL.
    Srshl(qc, d, n, m, p) => shift_by::<ES>(s::<ES>(n), m, true) as u64;
    /// URSHL.
    Urshl(qc, d, n, m, p) => shift_by::<ES>(u(n), m, true) as u64;
    /// SQSHL (register).
    Sqshl(qc, d, n, m, p) => sat_s::<ES>(qc, shift_by::<ES>(s::<ES>(n), m, false));
    /// UQSHL (register).
    Uqshl(qc, d, n, m, p) => sat_u::<ES>(qc, unsigned_left::<ES>(n, m, false));
    /// SQRSHL.
    Sqrshl(qc, d, n, m, p) => sat_s::<ES>(qc, shift_by::<ES>(s::<ES>(n), m, true));
    /// UQRSHL.
    Uqrshl(qc, d, n, m, p) => sat_u::<ES>(qc, unsigned_left::<ES>(n, m, true));
    /// SQDMULH.
    Sqdmulh(qc, d, n, m, p) => sat_s::<ES>(qc, doubling_high::<ES>(n, m, false));
    /// SQRDMULH.
    Sqrdmulh(qc, d, n, m, p) => sat_s::<ES>(qc, doubling_high::<ES>(n, m, true));
    /// SQRDMLAH.
    Sqrdmlah(qc, d, n, m, p) => sat_s::<ES>(
        qc,
        shift_right((s::<ES>(d) << bits(ES)) + 2 * s::<ES>(n) * s::<ES>(m), bits(ES), true),
    );
    /// SQRDMLSH.
    Sqrdmlsh(qc, d, n, m, p) => sat_s::<ES>(
        qc,
        shift_right((s::<ES>(d) << bits(ES)) - 2 * s::<ES>(n) * s::<ES>(m), bits(ES), true),
    );
    /// PMUL, bytes only.
    Pmul(qc, d, n, m, p) => crypto::pmull8(n as u8, m as u8).into();
    /// SUQADD: signed d plus unsigned n.
    Suqadd(qc, d, n, m, p) => sat_s::<ES>(qc, s::<ES>(d) + u(n));
    /// USQADD: unsigned d plus signed n.
    Usqadd(qc, d, n, m, p) => sat_u::<ES>(qc, u(d) + s::<ES>(n));
    /// SQABS.
    Sqabs(qc, d, n, m, p) => sat_s::<ES>(qc, s::<ES>(n).abs());
    /// SQNEG.
    Sqneg(qc, d, n, m, p) => sat_s::<ES>(qc, -s::<ES>(n));
    /// CLS.
    Cls(qc, d, n, m, p) => {
        let v = sx::<ES>(n);
        let same = if v < 0 { v.leading_ones() } else { v.leading_zeros() };
        u64::from(same - (64 - bits(ES)) - 1)
    };
    /// CLZ.
    Clz(qc, d, n, m, p) => u64::from(n.leading_zeros() - (64 - bits(ES)));
    /// RBIT, bytes.
    Rbit(qc, d, n, m, p) => u64::from((n as u8).reverse_bits());
    /// URECPE, 32-bit elements.
    Urecpe(qc, d, n, m, p) => u64::from(fp::unsigned_recip_estimate(n as u32));
    /// URSQRTE, 32-bit elements.
    Ursqrte(qc, d, n, m, p) => u64::from(fp::unsigned_rsqrt_estimate(n as u32));
    /// SRSHR: `param` is the shift.
    Srshr(qc, d, n, m, p) => shift_right(s::<ES>(n), p, true) as u64;
    /// URSHR.
    Urshr(qc, d, n, m, p) => shift_right(u(n), p, true) as u64;
    /// SRSRA.
    Srsra(qc, d, n, m, p) => d.wrapping_add(shift_right(s::<ES>(n), p, true) as u64);
    /// URSRA.
    Ursra(qc, d, n, m, p) => d.wrapping_add(shift_right(u(n), p, true) as u64);
    /// SQSHL (immediate).
    SqshlImm(qc, d, n, m, p) => sat_s::<ES>(qc, s::<ES>(n) << (p & 63));
    /// UQSHL (immediate).
    UqshlImm(qc, d, n, m, p) => sat_u::<ES>(qc, u(n) << (p & 63));
    /// SQSHLU.
    Sqshlu(qc, d, n, m, p) => sat_u::<ES>(qc, s::<ES>(n) << (p & 63));
}

/// As `shift_by` for an unsigned value: 64 bits shifted left by 64 overflow the sign of `i128`.
#[inline]
fn unsigned_left<const ES: u32>(n: u64, m: u64, round: bool) -> i128 {
    if m as i8 >= bits(ES) as i8 && n != 0 { i128::MAX } else { shift_by::<ES>(u(n), m, round) }
}

macro_rules! long_ops {
    ($($(#[$meta:meta])* $name:ident($qc:ident, $d:ident, $n:ident, $m:ident) => $body:expr;)*) => {$(
        $(#[$meta])*
        pub struct $name;
        impl LongOp for $name {
            #[inline]
            #[allow(unused_variables)]
            fn lane<const ES: u32, const WIDE: u32>($qc: &mut bool, $d: u64, $n: u64, $m: u64) -> u64 { $body }
        }
    )*};
}

/// `2 * n * m`, saturated to the wide element.
#[inline]
fn doubled<const ES: u32, const WIDE: u32>(qc: &mut bool, n: u64, m: u64) -> i128 {
    let product = sat_s::<WIDE>(qc, 2 * s::<ES>(n) * s::<ES>(m));
    (product as i64).into()
}

long_ops! {
    /// SQDMULL.
    Sqdmull(qc, d, n, m) => doubled::<ES, WIDE>(qc, n, m) as u64;
    /// SQDMLAL.
    Sqdmlal(qc, d, n, m) => {
        let product = doubled::<ES, WIDE>(qc, n, m);
        sat_s::<WIDE>(qc, s::<WIDE>(d) + product)
    };
    /// SQDMLSL.
    Sqdmlsl(qc, d, n, m) => {
        let product = doubled::<ES, WIDE>(qc, n, m);
        sat_s::<WIDE>(qc, s::<WIDE>(d) - product)
    };
    /// PMULL, bytes only.
    Pmull(qc, d, n, m) => crypto::pmull8(n as u8, m as u8).into();
}

/// Parameter of [`table`]: how many registers the table has, and whether indices out of range leave the destination.
pub const fn table_parameter(count: u8, extend: bool) -> u32 {
    count as u32 | (extend as u32) << 3
}

/// TBL and TBX.
pub extern "C" fn table(_: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let s = shape(op);
    let (count, extend) = (s.param() & 7, s.param() & 8 != 0);
    let (d, m) = (reg(regs, op.d), reg(regs, op.m));
    let out = collect::<0>(s.lanes(0), |i| {
        let index = lane::<0>(m, i) as u32;
        match index / 16 {
            from if from < count => lane::<0>(reg(regs, op.n + from as u8), index % 16),
            _ if extend => lane::<0>(d, i),
            _ => 0,
        }
    });
    set(regs, op.d, out);
}
