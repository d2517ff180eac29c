//! Instructions between floating-point and general registers.

use super::float::Conversion;
use super::*;
use armlet_arm::fp::{self, Double, Format, Half, Single};

use crate::ir::VectorGprHelper;

macro_rules! pick {
    ($($(#[$meta:meta])* $name:ident => $function:ident;)*) => {$(
        $(#[$meta])*
        pub fn $name(es: u8) -> VectorGprHelper {
            match es {
                1 => $function::<Half>,
                2 => $function::<Single>,
                _ => $function::<Double>,
            }
        }
    )*};
}
pick! {
    /// [`to_int`] for an operand of `1 << es` bytes.
    to_int_for => to_int;
    /// [`from_int`] for a result of `1 << es` bytes.
    from_int_for => from_int;
    /// [`compare`] for operands of `1 << es` bytes.
    compare_for => compare;
    /// [`conditional_compare`] for operands of `1 << es` bytes.
    conditional_compare_for => conditional_compare;
}

/// FCVTNS and its kind to a general register, by [`Conversion`].
pub extern "C" fn to_int<F: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands, _: u64) -> u64 {
    let c = Conversion::unpack(shape(op).param());
    let mode = c.mode(env);
    let n = reg(regs, op.n) as u64 & F::MASK;
    fp::to_fixed::<F>(env, n, c.fbits, c.unsigned, mode, if c.x { 64 } else { 32 })
}

/// SCVTF and UCVTF from a general register, by [`Conversion`].
pub extern "C" fn from_int<F: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands, s: u64) -> u64 {
    let c = Conversion::unpack(shape(op).param());
    let mode = c.mode(env);
    let value = match (c.x, c.unsigned) {
        (true, _) => s,
        (false, true) => s & 0xffff_ffff,
        (false, false) => s as u32 as i32 as u64,
    };
    set(regs, op.d, fp::fixed_to_fp::<F>(env, value, c.fbits, c.unsigned, mode).into());
    s
}

/// Parameter of comparisons: signal quiet NaNs.
pub const SIGNAL: u32 = 1;
/// Parameter of comparisons: with 0.0 rather than a register.
pub const WITH_ZERO: u32 = 2;

/// FCMP, FCMPE: NZCV in bits 31 to 28.
pub extern "C" fn compare<F: Format>(env: &mut FpEnv, regs: &mut Regs, op: VOperands, _: u64) -> u64 {
    let param = shape(op).param();
    let n = reg(regs, op.n) as u64 & F::MASK;
    let m = if param & WITH_ZERO != 0 { 0 } else { reg(regs, op.m) as u64 & F::MASK };
    u64::from(fp::compare::<F>(env, n, m, param & SIGNAL != 0)) << 28
}

/// FCCMP, FCCMPE: the old NZCV (bits 31 to 28) comes in; the parameter has `SIGNAL`, the NZCV field in
/// bits 4 to 7 and the condition in bits 8 to 11.
pub extern "C" fn conditional_compare<F: Format>(
    env: &mut FpEnv,
    regs: &mut Regs,
    op: VOperands,
    old: u64,
) -> u64 {
    let param = shape(op).param();
    if condition_holds((param >> 8) & 15, (old >> 28) as u32) {
        let without_zero = VOperands { imm: Shape::scalar(3).with(param & SIGNAL).pack(), ..op };
        compare::<F>(env, regs, without_zero, 0)
    } else {
        u64::from((param >> 4) & 15) << 28
    }
}

/// `ConditionHolds`, with NZCV in bits 3 to 0.
const fn condition_holds(cond: u32, nzcv: u32) -> bool {
    let (n, z, c, v) = (nzcv & 8 != 0, nzcv & 4 != 0, nzcv & 2 != 0, nzcv & 1 != 0);
    let holds = match cond >> 1 {
        0 => z,
        1 => c,
        2 => n,
        3 => v,
        4 => c && !z,
        5 => n == v,
        6 => n == v && !z,
        _ => return true,
    };
    holds != (cond & 1 != 0)
}

/// FJCVTZS: the integer.
pub extern "C" fn js_to_int(env: &mut FpEnv, regs: &mut Regs, op: VOperands, _: u64) -> u64 {
    fp::js_to_int32(env, reg(regs, op.n) as u64).0.into()
}

/// FJCVTZS: the flags, in bits 31 to 28.
pub extern "C" fn js_flags(env: &mut FpEnv, regs: &mut Regs, op: VOperands, _: u64) -> u64 {
    u64::from(fp::js_to_int32(env, reg(regs, op.n) as u64).1) << 30
}
