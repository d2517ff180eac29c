//! FPSR's cumulative flags, which MXCSR gathers while translated code runs.
//!
//! To look at MXCSR is to wait for everything before. So each block notes, before its first instruction that may raise an
//! exception, that there may be flags which FPSR lacks; who reads FPSR looks at MXCSR only then. C libraries raise
//! exceptions by operations on constants and read FPSR behind them: which flags those set is known when they are translated.

use armlet_arm::fp::{self, Double, Single};
use armlet_arm::state::FpEnv;

use super::*;
use crate::ir::vectors::NO_VECTOR;
use crate::ir::visit::Change;
use crate::runtime::state::JitState;

/// Bits of FPSR that can be written: QC and the cumulative exception flags.
const FPSR_BITS: i32 = 0x0800_009f;
/// Flags of MXCSR.
const MXCSR_FLAGS: i32 = 0x3f;
/// How many IR instructions before an operation its constants are looked for.
const LOOK: usize = 24;

fn fpsr() -> M {
    field(std::mem::offset_of!(JitState, cpu.fp.fpsr))
}

fn mxcsr_ahead() -> M {
    field(std::mem::offset_of!(JitState, mxcsr_ahead))
}

fn mxcsr_now() -> M {
    field(std::mem::offset_of!(JitState, mxcsr_now))
}

impl Generator {
    /// Before instruction `i`: notes that it may raise an exception.
    pub(super) fn note_exceptions(&mut self, insts: &[Inst], i: usize) {
        if self.exceptions_noted || !may_raise(&insts[i]) {
            return;
        }
        // What denormal constants raise depends on FPCR.FZ.
        let known = if self.options.flush { None } else { raised_by_constants(insts, i) };
        match known {
            Some(0) => {}
            Some(flags) => {
                self.clobber_flags();
                self.asm.op_imm(Op2::Or, false, fpsr(), flags as i32);
            }
            None => {
                self.exceptions_noted = true;
                self.asm.store_imm(false, mxcsr_ahead(), 1);
            }
        }
    }

    /// MRS of FPSR.
    pub(super) fn read_fpsr(&mut self, d: Reg) {
        self.clobber_flags();
        let t = self.scratch();
        if std::mem::take(&mut self.exceptions_noted) {
            self.gather_flags(t);
        } else {
            self.asm.op_imm(Op2::Cmp, false, mxcsr_ahead(), 0);
            let ahead = self.asm.jcc(Cc::NE);
            let back = self.asm.here();
            self.defer(move |g| {
                g.asm.bind(ahead);
                g.gather_flags(t);
                g.asm.jmp_to(back);
            });
        }
        let g = self.dest(d, RAX);
        self.asm.load(false, g, fpsr());
        self.done(d, g);
    }

    /// Adds MXCSR's flags to FPSR. Clobbers rax and `t`.
    fn gather_flags(&mut self, t: Gpr) {
        self.asm.stmxcsr(mxcsr_now());
        // IE stays bit 0; ZE, OE, UE, PE move down over the denormal flag.
        self.asm.load(false, RAX, mxcsr_now());
        self.asm.mov32(t, RAX);
        self.asm.op_imm(Op2::And, false, RAX, 1);
        self.asm.shift_imm(Shift::Shr, false, t, 1);
        self.asm.op_imm(Op2::And, false, t, 0x1e);
        self.asm.op(Op2::Or, false, RAX, t);
        self.asm.op_mem(Op2::Or, false, fpsr(), RAX);
        self.asm.store_imm(false, mxcsr_ahead(), 0);
    }

    /// MSR of FPSR.
    pub(super) fn write_fpsr(&mut self, s: Opnd) {
        self.clobber_flags();
        self.move_into(Width::W, RAX, s);
        self.asm.op_imm(Op2::And, false, RAX, FPSR_BITS);
        self.asm.store(false, fpsr(), RAX);
        self.asm.stmxcsr(mxcsr_now());
        self.asm.op_imm(Op2::And, false, mxcsr_now(), !MXCSR_FLAGS);
        self.asm.ldmxcsr(mxcsr_now());
        self.asm.store_imm(false, mxcsr_ahead(), 0);
        self.exceptions_noted = false;
    }
}

/// True if the host's instructions for it may set flags of MXCSR.
fn may_raise(inst: &Inst) -> bool {
    use V2Op::*;
    use V3Op::*;
    match *inst {
        Inst::F1 { op, .. } => !matches!(op, F1Op::Mov | F1Op::Neg | F1Op::Abs),
        Inst::V3 { op, .. } => {
            matches!(op, Fadd | Fsub | Fmul | Fdiv | Fmla | Fmls | FcmEq | FcmGe | FcmGt)
                || matches!(op, Fmax | Fmin | Fmaxnm | Fminnm | Fabd)
        }
        Inst::V2 { op, .. } => {
            matches!(op, Fsqrt | FrintN | FrintP | FrintM | FrintZ | FrintX | FrintI)
                || matches!(op, Fcvtzs | Scvtf | Fcvtl | Fcvtn)
        }
        Inst::F2 { .. } | Inst::F3 { .. } | Inst::FCmp { .. } | Inst::FCondCompare { .. } => true,
        Inst::FToInt { .. } | Inst::IntToF { .. } => true,
        Inst::VKnown { .. } | Inst::VHelper { .. } | Inst::VHelperGpr { .. } => true,
        _ => false,
    }
}

/// The flags that instruction `i` sets whatever the rounding mode is, if it is an operation on constants.
fn raised_by_constants(insts: &[Inst], i: usize) -> Option<u32> {
    let Inst::F2 { op, double, n, m, .. } = insts[i] else { return None };
    let (a, b) = (constant(&insts[..i], n)?, constant(&insts[..i], m)?);
    let flags = [0u32, 1, 2, 3].map(|mode| {
        let mut env = FpEnv { fpcr: mode << 22, fpsr: 0 };
        let e = &mut env;
        match (op, double) {
            (F2Op::Add, true) => fp::add::<Double>(e, a, b),
            (F2Op::Add, false) => fp::add::<Single>(e, a, b),
            (F2Op::Sub, true) => fp::sub::<Double>(e, a, b),
            (F2Op::Sub, false) => fp::sub::<Single>(e, a, b),
            (F2Op::Mul, true) => fp::mul::<Double>(e, a, b),
            (F2Op::Mul, false) => fp::mul::<Single>(e, a, b),
            (F2Op::Div, true) => fp::div::<Double>(e, a, b),
            (F2Op::Div, false) => fp::div::<Single>(e, a, b),
            _ => return None,
        };
        Some(env.fpsr)
    });
    flags[0].filter(|first| flags.iter().all(|f| *f == Some(*first)))
}

/// The low half of vector register `v` behind `insts`, if it is a constant.
fn constant(insts: &[Inst], v: VReg) -> Option<u64> {
    debug_assert!(v != NO_VECTOR, "an operand");
    for (i, inst) in insts.iter().enumerate().rev().take(LOOK) {
        match *inst {
            Inst::VHelper { .. } | Inst::VHelperGpr { .. } => return None,
            Inst::VConst { d, lo, .. } if d == v => return Some(lo),
            Inst::VFromGpr { es, d, s } if d == v => {
                let value = match s {
                    Opnd::Imm(value) => value,
                    Opnd::Reg(r) => integer(&insts[..i], r)?,
                };
                return Some(value as u64 & u64::MAX >> (64 - (8 << es)));
            }
            _ if inst.vector_use().writes.contains(&v) => return None,
            _ => {}
        }
    }
    None
}

/// The value of `r` behind `insts`, if it is a constant.
fn integer(insts: &[Inst], r: Reg) -> Option<i64> {
    let sets = |inst: &&Inst| {
        let facts = inst.facts();
        facts.change == Change::Everything || facts.definitions.contains(&r)
    };
    match insts.iter().rev().take(LOOK).find(sets)? {
        Inst::Mov { w: Width::X, s: Opnd::Imm(value), .. } => Some(*value),
        Inst::Mov { w: Width::W, s: Opnd::Imm(value), .. } => Some(i64::from(*value as u32)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IXC: u32 = 1 << 4;
    const DZC: u32 = 1 << 1;

    fn single(d: VReg, value: f32) -> Inst {
        Inst::VConst { d, lo: u64::from(value.to_bits()), hi: 0 }
    }

    fn two(op: F2Op) -> Inst {
        Inst::F2 { op, double: false, d: 0, n: 1, m: 2 }
    }

    fn raised(insts: &[Inst]) -> Option<u32> {
        raised_by_constants(insts, insts.len() - 1)
    }

    #[test]
    fn flags_of_operations_on_constants_are_known() {
        let largest = i64::from(f32::MAX.to_bits());
        let largest = Inst::Mov { w: Width::W, d: Reg(3), s: Opnd::Imm(largest) };
        let moved = Inst::VFromGpr { es: 2, d: 1, s: Opnd::Reg(Reg(3)) };
        assert_eq!(raised(&[largest, moved, single(2, 1.0), two(F2Op::Sub)]), Some(IXC));
        assert_eq!(raised(&[single(1, 1.0), single(2, 0.0), two(F2Op::Div)]), Some(DZC));
        assert_eq!(raised(&[single(1, 1.0), single(2, 2.0), two(F2Op::Add)]), Some(0));
    }

    #[test]
    fn flags_of_others_are_not() {
        let replaced = Inst::Mov { w: Width::W, d: Reg(3), s: Opnd::Imm(1) };
        let other = Inst::Mov { w: Width::W, d: Reg(3), s: Opnd::Reg(Reg(4)) };
        let moved = Inst::VFromGpr { es: 2, d: 1, s: Opnd::Reg(Reg(3)) };
        assert_eq!(raised(&[replaced, other, moved, single(2, 1.0), two(F2Op::Sub)]), None);
        assert_eq!(raised(&[single(2, 1.0), two(F2Op::Sub)]), None, "V1 may be anything");
        // Whether it overflows depends on the rounding mode.
        let half = f32::MAX.to_bits() - (24 << 23);
        let small = single(2, f32::from_bits(half & !0x7f_ffff));
        assert_eq!(raised(&[single(1, f32::MAX), small, two(F2Op::Add)]), None);
        let changed = Inst::V3 { op: V3Op::Add, es: 2, q: false, d: 1, n: 2, m: 2 };
        assert_eq!(raised(&[single(1, 1.0), single(2, 1.0), changed, two(F2Op::Sub)]), None);
    }
}
