//! The vector and floating-point half of the interpreter.

use armlet_arm::fp::{self, Double, Format, Half, Single};
use armlet_arm::{crypto, state::FpEnv};

use super::interp::{Frame, Machine};
use super::*;

/// Element `i` of size `1 << es` bytes, zero-extended.
fn element(v: u128, es: u8, i: usize) -> u64 {
    let bits = 8u32 << es;
    (v >> (bits as usize * i)) as u64 & (u64::MAX >> (64 - bits))
}

/// `v` with element `i` replaced.
fn with_element(v: u128, es: u8, i: usize, e: u64) -> u128 {
    let bits = 8u32 << es;
    let mask = u128::from(u64::MAX >> (64 - bits)) << (bits as usize * i);
    (v & !mask) | ((u128::from(e) << (bits as usize * i)) & mask)
}

fn signed(e: u64, es: u8) -> i64 {
    let shift = 64 - (8u32 << es);
    (e << shift) as i64 >> shift
}

fn count(es: u8, q: bool) -> usize {
    (if q { 16 } else { 8 }) >> es
}

/// A register of 64 or 128 bits from a function of the element's index.
fn build(es: u8, q: bool, mut f: impl FnMut(usize) -> u64) -> u128 {
    (0..count(es, q)).fold(0, |v, i| with_element(v, es, i, f(i)))
}

fn limit(q: bool, v: u128) -> u128 {
    if q { v } else { v & u128::from(u64::MAX) }
}

fn all_ones(yes: bool) -> u64 {
    if yes { u64::MAX } else { 0 }
}

/// Saturates to the element size; sets QC if that changes the value.
fn saturate(env: &mut FpEnv, v: i128, es: u8, unsigned: bool) -> u64 {
    let bits = 8u32 << es;
    let (min, max) =
        if unsigned { (0, (1i128 << bits) - 1) } else { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) };
    if v < min || v > max {
        env.raise(fp::FPSR_QC);
    }
    v.clamp(min, max) as u64
}

fn lane3(env: &mut FpEnv, op: V3Op, es: u8, d: u64, n: u64, m: u64) -> u64 {
    let (sn, sm) = (signed(n, es), signed(m, es));
    let (wide_n, wide_m) = (i128::from(n), i128::from(m));
    match op {
        V3Op::And => n & m,
        V3Op::Bic => n & !m,
        V3Op::Orr => n | m,
        V3Op::Orn => n | !m,
        V3Op::Eor => n ^ m,
        V3Op::Add => n.wrapping_add(m),
        V3Op::Sub => n.wrapping_sub(m),
        V3Op::Mul => n.wrapping_mul(m),
        V3Op::CmEq => all_ones(n == m),
        V3Op::CmGt => all_ones(sn > sm),
        V3Op::CmGe => all_ones(sn >= sm),
        V3Op::CmHi => all_ones(n > m),
        V3Op::CmHs => all_ones(n >= m),
        V3Op::CmTst => all_ones(n & m != 0),
        V3Op::Smax => sn.max(sm) as u64,
        V3Op::Smin => sn.min(sm) as u64,
        V3Op::Umax => n.max(m),
        V3Op::Umin => n.min(m),
        V3Op::Urhadd => ((wide_n + wide_m + 1) >> 1) as u64,
        V3Op::Mla => d.wrapping_add(n.wrapping_mul(m)),
        V3Op::Mls => d.wrapping_sub(n.wrapping_mul(m)),
        V3Op::Bsl => (d & n) | (!d & m),
        V3Op::Bit => (n & m) | (d & !m),
        V3Op::Bif => (n & !m) | (d & m),
        V3Op::SmulLow => i64::from(n as i32).wrapping_mul(i64::from(m as i32)) as u64,
        V3Op::Sdot => d.wrapping_add(dot((true, true), 4, n, m)),
        V3Op::Udot => d.wrapping_add(dot((false, false), 4, n, m)),
        V3Op::Usdot => d.wrapping_add(dot((false, true), 4, n, m)),
        V3Op::UmulLow => (n & 0xffff_ffff) * (m & 0xffff_ffff),
        _ if es == 2 => float3::<Single>(env, op, d, n, m),
        _ => float3::<Double>(env, op, d, n, m),
    }
}

/// The sum of the products of the low bytes of `n` and `m`, which are signed or not.
fn dot((n_signed, m_signed): (bool, bool), bytes: u32, n: u64, m: u64) -> u64 {
    let value = |x: u64, i: u32, signed: bool| {
        let b = (x >> (8 * i)) as u8;
        if signed { i64::from(b as i8) } else { i64::from(b) }
    };
    (0..bytes).map(|i| value(n, i, n_signed) * value(m, i, m_signed)).sum::<i64>() as u64
}

/// SMMLA, UMMLA, USMMLA.
fn matrix(signs: (bool, bool), d: u128, n: u128, m: u128) -> u128 {
    build(2, true, |at| {
        let (row_n, row_m) = (element(n, 3, at / 2), element(m, 3, at % 2));
        element(d, 2, at).wrapping_add(dot(signs, 8, row_n, row_m))
    })
}

fn float3<F: Format>(env: &mut FpEnv, op: V3Op, d: u64, n: u64, m: u64) -> u64 {
    match op {
        V3Op::Fadd => fp::add::<F>(env, n, m),
        V3Op::Fsub => fp::sub::<F>(env, n, m),
        V3Op::Fmul => fp::mul::<F>(env, n, m),
        V3Op::Fdiv => fp::div::<F>(env, n, m),
        V3Op::Fmla => fp::mul_add::<F>(env, d, n, m),
        V3Op::FcmEq => all_ones(fp::compare_eq::<F>(env, n, m)),
        V3Op::FcmGe => all_ones(fp::compare_ge::<F>(env, n, m)),
        V3Op::FcmGt => all_ones(fp::compare_gt::<F>(env, n, m)),
        V3Op::Fmax => fp::max::<F>(env, n, m),
        V3Op::Fmin => fp::min::<F>(env, n, m),
        V3Op::Fmaxnm => fp::maxnm::<F>(env, n, m),
        V3Op::Fminnm => fp::minnm::<F>(env, n, m),
        V3Op::Fabd => {
            let difference = fp::sub::<F>(env, n, m);
            fp::abs::<F>(env, difference)
        }
        _ => {
            let n = fp::neg::<F>(env, n);
            fp::mul_add::<F>(env, d, n, m)
        }
    }
}

/// Operations that are not element by element; `None` if `op` is one that is.
fn permute((op, es, q): (V3Op, u8, bool), d: u128, n: u128, m: u128) -> Option<u128> {
    let half = count(es, q) / 2;
    let (at_n, at_m) = (|i: usize| element(n, es, i), |i: usize| element(m, es, i));
    let either = |i: usize| if i < 2 * half { at_n(i) } else { at_m(i - 2 * half) };
    let odd = usize::from(matches!(op, V3Op::Uzp2 | V3Op::Trn2));
    Some(match op {
        V3Op::Addp => build(es, q, |i| either(2 * i).wrapping_add(either(2 * i + 1))),
        V3Op::Zip1 => build(es, q, |i| if i % 2 == 0 { at_n(i / 2) } else { at_m(i / 2) }),
        V3Op::Zip2 => build(es, q, |i| if i % 2 == 0 { at_n(half + i / 2) } else { at_m(half + i / 2) }),
        V3Op::Uzp1 | V3Op::Uzp2 => build(es, q, |i| either(2 * i + odd)),
        V3Op::Trn1 | V3Op::Trn2 => {
            build(es, q, |i| if i % 2 == 0 { at_n(i + odd) } else { at_m(i - 1 + odd) })
        }
        V3Op::Tbl1 => build(0, q, |i| match element(m, 0, i) as usize {
            k @ 0..16 => element(n, 0, k),
            _ => 0,
        }),
        V3Op::Sha256h => crypto::sha256h(d, n, m),
        V3Op::Sha256h2 => crypto::sha256h2(d, n, m),
        V3Op::Sha256su1 => crypto::sha256su1(d, n, m),
        V3Op::Sha1c => crypto::sha1c(d, n, m),
        V3Op::Sha1p => crypto::sha1p(d, n, m),
        V3Op::Sha1m => crypto::sha1m(d, n, m),
        V3Op::Sha1su0 => crypto::sha1su0(d, n, m),
        V3Op::Aese => crypto::aese(n, m),
        V3Op::Aesd => crypto::aesd(n, m),
        V3Op::Smmla => matrix((true, true), d, n, m),
        V3Op::Ummla => matrix((false, false), d, n, m),
        V3Op::Usmmla => matrix((false, true), d, n, m),
        V3Op::Pmull64 if q => crypto::pmull64((n >> 64) as u64, (m >> 64) as u64),
        V3Op::Pmull64 => crypto::pmull64(n as u64, m as u64),
        _ => return None,
    })
}

fn lane2(env: &mut FpEnv, op: V2Op, es: u8, n: u64) -> u64 {
    let s = signed(n, es);
    match op {
        V2Op::Not => !n,
        V2Op::Neg => n.wrapping_neg(),
        V2Op::Abs => s.unsigned_abs(),
        V2Op::Cnt => n.count_ones().into(),
        V2Op::CmEqZero => all_ones(s == 0),
        V2Op::CmGtZero => all_ones(s > 0),
        V2Op::CmGeZero => all_ones(s >= 0),
        V2Op::CmLtZero => all_ones(s < 0),
        V2Op::CmLeZero => all_ones(s <= 0),
        V2Op::Fneg => n ^ (1 << ((8 << es) - 1)),
        V2Op::Fabs => n & !(1 << ((8 << es) - 1)),
        V2Op::Fsqrt if es == 2 => fp::sqrt::<Single>(env, n),
        V2Op::Fsqrt => fp::sqrt::<Double>(env, n),
        V2Op::FrintN | V2Op::FrintP | V2Op::FrintM | V2Op::FrintZ | V2Op::FrintX | V2Op::FrintI => {
            if es == 2 { round_int::<Single>(env, op, n) } else { round_int::<Double>(env, op, n) }
        }
        V2Op::Fcvtzs => fp::to_fixed::<Single>(env, n, 0, false, fp::Rounding::Zero, 32),
        V2Op::Scvtf => {
            let rounding = env.rounding();
            fp::fixed_to_fp::<Single>(env, s as u64, 0, false, rounding)
        }
        _ => n,
    }
}

fn round_int<F: Format>(env: &mut FpEnv, op: V2Op, n: u64) -> u64 {
    let rounding = match op {
        V2Op::FrintN => fp::Rounding::TieEven,
        V2Op::FrintP => fp::Rounding::PosInf,
        V2Op::FrintM => fp::Rounding::NegInf,
        V2Op::FrintZ => fp::Rounding::Zero,
        _ => env.rounding(),
    };
    fp::round_int::<F>(env, n, rounding, op == V2Op::FrintX)
}

/// An element of twice the width made narrow.
fn narrow_lane(env: &mut FpEnv, op: V2Op, es: u8, n: u64) -> u64 {
    match op {
        V2Op::Sqxtn => saturate(env, signed(n, es + 1).into(), es, false),
        V2Op::Uqxtn => saturate(env, n.into(), es, true),
        V2Op::Sqxtun => saturate(env, signed(n, es + 1).into(), es, true),
        V2Op::Fcvtn if es == 1 => fp::convert::<Single, Half>(env, n),
        V2Op::Fcvtn => fp::convert::<Double, Single>(env, n),
        _ => n,
    }
}

/// Reverses elements of size `1 << es` bytes inside groups of `group` bytes.
fn reverse(es: u8, q: bool, group: usize, n: u128) -> u128 {
    let per = group >> es;
    build(es, q, |i| element(n, es, i / per * per + (per - 1 - i % per)))
}

fn vector2(env: &mut FpEnv, (op, es, q): (V2Op, u8, bool), d: u128, n: u128) -> u128 {
    let half = n >> if q { 64 } else { 0 };
    match op {
        V2Op::Mov => limit(q, n),
        V2Op::Rev64 => reverse(es, q, 8, n),
        V2Op::Rev32 => reverse(es, q, 4, n),
        V2Op::Rev16 => reverse(es, q, 2, n),
        V2Op::Aesmc => crypto::aesmc(n),
        V2Op::Aesimc => crypto::aesimc(n),
        V2Op::Sxtl => build(es + 1, true, |i| signed(element(half, es, i), es) as u64),
        V2Op::Uxtl => build(es + 1, true, |i| element(half, es, i)),
        V2Op::Fcvtl if es == 1 => build(2, true, |i| fp::convert::<Half, Single>(env, element(half, 1, i))),
        V2Op::Fcvtl => build(3, true, |i| fp::convert::<Single, Double>(env, element(half, 2, i))),
        V2Op::Sha256su0 => crypto::sha256su0(d, n),
        V2Op::Sha1h => crypto::sha1h(n),
        V2Op::Sha1su1 => crypto::sha1su1(d, n),
        V2Op::Xtn | V2Op::Sqxtn | V2Op::Uqxtn | V2Op::Sqxtun | V2Op::Fcvtn => {
            let narrow = build(es, false, |i| narrow_lane(env, op, es, element(n, es + 1, i)));
            if q { limit(false, d) | narrow << 64 } else { narrow }
        }
        _ => build(es, q, |i| lane2(env, op, es, element(n, es, i))),
    }
}

fn shift(op: VShiftOp, es: u8, d: u64, n: u64, imm: u32) -> u64 {
    let bits = 8u32 << es;
    let right = |v: u64| if imm >= 64 { 0 } else { v >> imm };
    let arithmetic = (signed(n, es) >> imm.min(63)) as u64;
    let ones = u64::MAX >> (64 - bits);
    match op {
        VShiftOp::Shl => n << imm,
        VShiftOp::Sshr => arithmetic,
        VShiftOp::Ushr => right(n),
        VShiftOp::Ssra => d.wrapping_add(arithmetic),
        VShiftOp::Usra => d.wrapping_add(right(n)),
        VShiftOp::Sli => (n << imm) | (d & !(ones << imm)),
        VShiftOp::Sri => right(n) | (d & !right(ones)),
    }
}

fn scalar2<F: Format>(env: &mut FpEnv, op: F2Op, n: u64, m: u64) -> u64 {
    match op {
        F2Op::Add => fp::add::<F>(env, n, m),
        F2Op::Sub => fp::sub::<F>(env, n, m),
        F2Op::Mul => fp::mul::<F>(env, n, m),
        F2Op::Div => fp::div::<F>(env, n, m),
        F2Op::Nmul => {
            let product = fp::mul::<F>(env, n, m);
            fp::neg::<F>(env, product)
        }
        F2Op::Min => fp::min::<F>(env, n, m),
        F2Op::Max => fp::max::<F>(env, n, m),
        F2Op::Minnm => fp::minnm::<F>(env, n, m),
        F2Op::Maxnm => fp::maxnm::<F>(env, n, m),
    }
}

fn scalar1<F: Format>(env: &mut FpEnv, op: F1Op, n: u64) -> u64 {
    use fp::Rounding;
    let by_fpcr = env.rounding();
    match op {
        F1Op::Mov => n,
        F1Op::Neg => fp::neg::<F>(env, n),
        F1Op::Abs => fp::abs::<F>(env, n),
        F1Op::Sqrt => fp::sqrt::<F>(env, n),
        F1Op::Cvt if F::BITS == 64 => fp::convert::<Double, Single>(env, n),
        F1Op::Cvt => fp::convert::<Single, Double>(env, n),
        F1Op::RintN => fp::round_int::<F>(env, n, Rounding::TieEven, false),
        F1Op::RintP => fp::round_int::<F>(env, n, Rounding::PosInf, false),
        F1Op::RintM => fp::round_int::<F>(env, n, Rounding::NegInf, false),
        F1Op::RintZ => fp::round_int::<F>(env, n, Rounding::Zero, false),
        F1Op::RintX => fp::round_int::<F>(env, n, by_fpcr, true),
        F1Op::RintI => fp::round_int::<F>(env, n, by_fpcr, false),
    }
}

fn scalar3<F: Format>(env: &mut FpEnv, op: F3Op, (n, m, a): (u64, u64, u64)) -> u64 {
    let (n, a) = match op {
        F3Op::Madd => (n, a),
        F3Op::Msub => (fp::neg::<F>(env, n), a),
        F3Op::Nmadd => (fp::neg::<F>(env, n), fp::neg::<F>(env, a)),
        F3Op::Nmsub => (n, fp::neg::<F>(env, a)),
    };
    fp::mul_add::<F>(env, a, n, m)
}

impl<M: Machine> Frame<'_, M> {
    /// The low element of a precision.
    fn low(&self, double: bool, r: VReg) -> u64 {
        element(self.v(r), if double { 3 } else { 2 }, 0)
    }

    pub(super) fn vector(&mut self, inst: &Inst) {
        match *inst {
            Inst::VConst { d, lo, hi } => self.set_v(d, u128::from(lo) | u128::from(hi) << 64),
            Inst::V3 { op, es, q, d, n, m } => {
                let (vd, vn, vm) = (self.v(d), self.v(n), self.v(m));
                let env = &mut self.cpu.fp;
                let r = permute((op, es, q), vd, vn, vm).unwrap_or_else(|| {
                    build(es, q, |i| {
                        lane3(env, op, es, element(vd, es, i), element(vn, es, i), element(vm, es, i))
                    })
                });
                self.set_v(d, r);
            }
            Inst::V2 { op, es, q, d, n } => {
                let (vd, vn) = (self.v(d), self.v(n));
                let r = vector2(&mut self.cpu.fp, (op, es, q), vd, vn);
                self.set_v(d, r);
            }
            Inst::VShift { op, es, q, d, n, imm } => {
                let (vd, vn) = (self.v(d), self.v(n));
                let r =
                    build(es, q, |i| shift(op, es, element(vd, es, i), element(vn, es, i), u32::from(imm)));
                self.set_v(d, r);
            }
            Inst::VExt { q, d, n, m, imm } => {
                let width = if q { 16 } else { 8 };
                let (vn, vm) = (self.v(n), self.v(m));
                let r = build(0, q, |i| match i + usize::from(imm) {
                    k if k < width => element(vn, 0, k),
                    k => element(vm, 0, k - width),
                });
                self.set_v(d, r);
            }
            Inst::FCmp { double, signal, n, m } => {
                let (a, b) = (self.low(double, n), m.map_or(0, |m| self.low(double, m)));
                let env = &mut self.cpu.fp;
                let nzcv = if double {
                    fp::compare::<Double>(env, a, b, signal)
                } else {
                    fp::compare::<Single>(env, a, b, signal)
                };
                self.set_nzcv(nzcv << 28);
            }
            Inst::FCondCompare { double, signal, n, m, cond, nzcv } => {
                if self.holds(cond) {
                    self.vector(&Inst::FCmp { double, signal, n, m: Some(m) });
                } else {
                    self.set_nzcv(u32::from(nzcv) << 28);
                }
            }
            Inst::FSelect { es, cond, d, n, m } => {
                let from = if self.holds(cond) { n } else { m };
                self.set_v(d, element(self.v(from), es, 0).into());
            }
            Inst::VKnown { f, op, .. } | Inst::VHelper { f, op } => f(&mut self.cpu.fp, &mut self.cpu.v, op),
            Inst::VHelperGpr { f, op, s, d, nzcv } => {
                let s = self.get(s);
                let r = f(&mut self.cpu.fp, &mut self.cpu.v, op, s);
                if nzcv {
                    self.set_nzcv(r as u32);
                }
                self.set(d, r);
            }
            _ if self.lanes(inst) => {}
            _ => self.scalar(inst),
        }
    }

    /// Moves of single elements; false if it is none.
    fn lanes(&mut self, inst: &Inst) -> bool {
        match *inst {
            Inst::VDupLane { es, q, d, n, lane } => {
                let e = element(self.v(n), es, lane.into());
                self.set_v(d, build(es, q, |_| e));
            }
            Inst::VDupGpr { es, q, d, s } => {
                let e = self.get(s);
                self.set_v(d, build(es, q, |_| e));
            }
            Inst::VInsLane { es, d, dl, n, nl } => {
                let e = element(self.v(n), es, nl.into());
                self.set_v(d, with_element(self.v(d), es, dl.into(), e));
            }
            Inst::VInsGpr { es, d, lane, s } => {
                self.set_v(d, with_element(self.v(d), es, lane.into(), self.get(s)));
            }
            Inst::VGetLane { es, ext, d, n, lane } => {
                let e = element(self.v(n), es, lane.into());
                self.set(
                    d,
                    match ext {
                        Extend::Zero => e,
                        Extend::SignW => signed(e, es) as u64 & 0xffff_ffff,
                        Extend::SignX => signed(e, es) as u64,
                    },
                );
            }
            Inst::GetFpcr { d } => self.set(d, self.cpu.fp.fpcr.into()),
            Inst::VFromGpr { es, d, s } => self.set_v(d, element(self.get(s).into(), es, 0).into()),
            _ => return false,
        }
        true
    }

    fn scalar(&mut self, inst: &Inst) {
        match *inst {
            Inst::F2 { op, double, d, n, m } => {
                let (n, m) = (self.low(double, n), self.low(double, m));
                let f = if double { scalar2::<Double> } else { scalar2::<Single> };
                let r = f(&mut self.cpu.fp, op, n, m);
                self.set_v(d, r.into());
            }
            Inst::F1 { op, double, d, n } => {
                let n = self.low(double, n);
                let f = if double { scalar1::<Double> } else { scalar1::<Single> };
                let r = f(&mut self.cpu.fp, op, n);
                self.set_v(d, r.into());
            }
            Inst::F3 { op, double, d, n, m, a } => {
                let operands = (self.low(double, n), self.low(double, m), self.low(double, a));
                let f = if double { scalar3::<Double> } else { scalar3::<Single> };
                let r = f(&mut self.cpu.fp, op, operands);
                self.set_v(d, r.into());
            }
            Inst::FToInt { signed, double, rounding, w, d, n } => {
                let n = self.low(double, n);
                let f = if double { fp::to_fixed::<Double> } else { fp::to_fixed::<Single> };
                let r = f(&mut self.cpu.fp, n, 0, !signed, rounding, w.bits());
                self.set(d, r);
            }
            Inst::IntToF { signed, double, w, d, s } => {
                let s = match (w, signed) {
                    (Width::X, _) => self.get(s),
                    (Width::W, true) => self.get(s) as i32 as u64,
                    (Width::W, false) => self.get(s) & 0xffff_ffff,
                };
                let f = if double { fp::fixed_to_fp::<Double> } else { fp::fixed_to_fp::<Single> };
                let rounding = self.cpu.fp.rounding();
                let r = f(&mut self.cpu.fp, s, 0, !signed, rounding);
                self.set_v(d, r.into());
            }
            _ => {}
        }
    }
}
