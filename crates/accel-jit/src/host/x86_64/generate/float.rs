//! Scalar floating point on the host's unit, with the reference interpreter for NaNs.
//!
//! MXCSR holds the guest's rounding mode, and its cumulative flags are the guest's. Blocks that use this
//! are only translated while FPCR asks for IEEE defaults otherwise (no flush-to-zero, no default NaN). A
//! result that is not a NaN is then the Arm result; a NaN is computed again by the reference. So is the smallest
//! normal number where rounding may have led up to it: Arm calls that an underflow, since it looks before
//! rounding, and the host, which looks afterwards, does not.

use super::known_float::host_rounding;
use super::odd::{Scalar, Scalars};
use super::vector::*;
use super::*;
use crate::runtime::state::{FcmpSlots, JitState};

impl Generator {
    /// Scalar opcode prefix: F2 for double, F3 for single.
    fn scalar(double: bool, op: u8) -> Opc {
        opc(if double { 3 } else { 2 }, 1, op)
    }

    /// Compares `x` with itself: parity tells of a NaN.
    pub(super) fn is_nan(&mut self, double: bool, x: Xmm) {
        self.look(|g| g.asm.vex(opc(u8::from(double), 1, 0x2e), x.0, 0, x));
    }

    /// Jumps if `x` is a NaN, or the smallest normal number of either sign. Clobbers X1.
    fn if_nan_or_least(&mut self, double: bool, x: Xmm) -> Fixup {
        let [abs, least] = Self::magnitudes(if double { 0 } else { 1 });
        self.asm.vex(opc(0, 1, 0x54), X1.0, x.0, abs);
        // Equal or unordered.
        self.look(|g| g.asm.vex(opc(u8::from(double), 1, 0x2e), X1.0, 0, least));
        self.asm.jcc(Cc::E)
    }

    /// The masks of magnitudes and the smallest normal numbers: of doubles (0), singles (1), halves (2).
    pub(super) fn magnitudes(kind: usize) -> [M; 2] {
        [
            field(std::mem::offset_of!(JitState, consts.abs) + 16 * kind),
            field(std::mem::offset_of!(JitState, consts.least) + 16 * kind),
        ]
    }

    /// Zeroes what is above the scalar in X0 unless it is known to be zero, and makes it the value of `d`.
    fn scalar_result(&mut self, double: bool, d: VReg, clean: bool) {
        if !clean {
            self.zero_above(double, X0);
        }
        self.vector_adopt(d, X0, if double { 64 } else { 32 });
    }

    /// Zeroes what is above the scalar in `x`.
    pub(super) fn zero_above(&mut self, double: bool, x: Xmm) {
        if double {
            self.asm.vex(opc(2, 1, 0x7e), x.0, 0, x);
        } else {
            // insertps with a zero mask for the upper three elements
            self.asm.vex_imm(opc(1, 3, 0x21), x.0, x.0, x, 0b1110);
        }
    }

    /// True if it is known that nothing but the scalar is set in `v`.
    fn is_clean(&self, double: bool, v: VReg) -> bool {
        self.bits_of(v) <= if double { 64 } else { 32 }
    }

    pub(super) fn float(&mut self, inst: &Inst) {
        match *inst {
            Inst::F1 { op: op @ (F1Op::Mov | F1Op::Neg | F1Op::Abs), double, d, n } => {
                self.float_bits(op, double, d, n);
            }
            Inst::F1 { op, double, d, n } => self.float1(inst, op, double, d, n),
            Inst::F2 { op, double, d, n, m } => self.float2(inst, op, double, (d, n, m)),
            Inst::F3 { op, double, d, n, m, a } => {
                self.clobber_flags();
                let (n, m, addend) = (self.vector_value(n), self.vector_value(m), self.vector_value(a));
                let clean = self.is_clean(double, a);
                self.asm.vex(opc(1, 1, 0x28), X0.0, 0, addend);
                // 231 forms: x0 = ±(n * m) ± x0
                let op = match op {
                    F3Op::Madd => 0xb9,
                    F3Op::Nmsub => 0xbb,
                    F3Op::Msub => 0xbd,
                    F3Op::Nmadd => 0xbf,
                };
                let o = Opc { pp: 1, map: 2, op, w: double };
                self.asm.vex(o, X0.0, n.0, m);
                let nan = self.if_nan_or_least(double, X0);
                self.scalar_result(double, d, clean);
                self.slow_from(nan, inst);
            }
            _ => unreachable!("not a scalar float instruction"),
        }
    }

    fn float_bits(&mut self, op: F1Op, double: bool, d: VReg, n: VReg) {
        let clean = self.is_clean(double, n);
        let n = self.vector_value(n);
        let sign = if double {
            std::mem::offset_of!(JitState, consts.sign64)
        } else {
            std::mem::offset_of!(JitState, consts.sign32)
        };
        match op {
            F1Op::Neg => self.asm.vex(opc(0, 1, 0x57), X0.0, n.0, field(sign)),
            F1Op::Abs => {
                self.asm.vex(opc(1, 1, 0x6f), X1.0, 0, field(sign));
                self.asm.vex(opc(0, 1, 0x55), X0.0, X1.0, n);
            }
            _ => self.asm.vex(opc(1, 1, 0x28), X0.0, 0, n),
        }
        // Negation sets the upper sign bits of a clean register.
        self.scalar_result(double, d, clean && op != F1Op::Neg);
    }

    fn float1(&mut self, inst: &Inst, op: F1Op, double: bool, d: VReg, n: VReg) {
        self.clobber_flags();
        let out_double = if op == F1Op::Cvt { !double } else { double };
        // What is above the scalar comes from the source.
        let clean = if out_double { self.is_clean(true, n) } else { !double && self.is_clean(false, n) };
        let n = self.vector_value(n);
        let [source, result] = [n, X0].map(|x| Xmm(self.asm.hardware(x.0)));
        match op {
            F1Op::Sqrt => {
                self.trap_if_denormal(double, n);
                self.asm.vex(Self::scalar(double, 0x51), X0.0, n.0, n);
            }
            F1Op::Cvt => self.asm.vex(Self::scalar(double, 0x5a), X0.0, n.0, n),
            _ => {
                let imm = match op {
                    F1Op::RintN => 8,
                    F1Op::RintM => 8 | 1,
                    F1Op::RintP => 8 | 2,
                    F1Op::RintZ => 8 | 3,
                    F1Op::RintX => 4,
                    _ => 8 | 4,
                };
                let o = opc(1, 3, if double { 0x0b } else { 0x0a });
                self.trap_if_denormal(double, n);
                self.asm.vex_imm(o, X0.0, n.0, n, imm);
            }
        }
        let nan = if op == F1Op::Cvt && double {
            self.if_nan_or_least(out_double, X0)
        } else {
            self.is_nan(out_double, X0);
            self.asm.jcc(Cc::P)
        };
        self.scalar_result(out_double, d, clean);
        self.odd_one_from(nan, inst, d, Scalar { double: [double, out_double], n: source, result });
    }

    fn float2(&mut self, inst: &Inst, op: F2Op, double: bool, (d, n, m): (VReg, VReg, VReg)) {
        self.clobber_flags();
        // What is above the scalar comes from the first operand.
        let commutes = matches!(op, F2Op::Add | F2Op::Mul | F2Op::Nmul);
        let swapped = commutes && !self.is_clean(double, n);
        let (n, m) = if swapped { (m, n) } else { (n, m) };
        let clean = self.is_clean(double, n);
        let (n, m) = (self.vector_value(n), self.vector_value(m));
        let hardware = [n, m, X0].map(|x| Xmm(self.asm.hardware(x.0)));
        let (mut clean, mut least) = (clean, false);
        let simple = match op {
            F2Op::Add => Some(0x58),
            F2Op::Mul | F2Op::Nmul => Some(0x59),
            F2Op::Sub => Some(0x5c),
            F2Op::Div => Some(0x5e),
            _ => None,
        };
        if op == F2Op::Div {
            self.trap_if_denormal(double, n);
        }
        if let Some(code) = simple {
            self.asm.vex(Self::scalar(double, code), X0.0, n.0, m);
            // Sums that are so small are exact.
            if !matches!(op, F2Op::Add | F2Op::Sub) {
                least = true;
            } else {
                self.is_nan(double, X0);
            }
        } else {
            // Ordered operands only: then min and max agree but for the sign of zeros.
            self.asm.vex(opc(u8::from(double), 1, 0x2e), n.0, 0, m);
        }
        let nan = if least { self.if_nan_or_least(double, X0) } else { self.asm.jcc(Cc::P) };
        match op {
            F2Op::Nmul => {
                let sign = if double {
                    std::mem::offset_of!(JitState, consts.sign64)
                } else {
                    std::mem::offset_of!(JitState, consts.sign32)
                };
                self.asm.vex(opc(0, 1, 0x57), X0.0, X0.0, field(sign));
                clean = false;
            }
            F2Op::Min | F2Op::Minnm => {
                self.asm.vex(Self::scalar(double, 0x5d), X0.0, n.0, m);
                self.asm.vex(Self::scalar(double, 0x5d), X1.0, m.0, n);
                self.asm.vex(opc(0, 1, 0x56), X0.0, X0.0, X1);
                clean = false;
            }
            F2Op::Max | F2Op::Maxnm => {
                self.asm.vex(Self::scalar(double, 0x5f), X0.0, n.0, m);
                self.asm.vex(Self::scalar(double, 0x5f), X1.0, m.0, n);
                self.asm.vex(opc(0, 1, 0x54), X0.0, X0.0, X1);
                clean = false;
            }
            _ => {}
        }
        self.scalar_result(double, d, clean);
        match simple.filter(|_| op != F2Op::Nmul) {
            Some(code) => {
                let [n, m, result] = hardware;
                let (n, m) = if swapped { (m, n) } else { (n, m) };
                let code = Self::scalar(double, code);
                self.odd_from(nan, inst, d, Scalars { code, double, n, m, result });
            }
            None => self.slow_from(nan, inst),
        }
    }

    pub(super) fn fcmp(&mut self, double: bool, signal: bool, n: VReg, m: Option<VReg>) {
        let n = self.vector_value(n);
        let m = match m {
            Some(m) => self.vector_value(m),
            None => {
                self.asm.vex(opc(1, 1, 0xef), X1.0, X1.0, X1);
                X1
            }
        };
        // As who asks first likes it.
        let condition = self.next_condition[self.index];
        let swapped = condition.is_some_and(|c| float_condition(c, true).is_some());
        let (n, m) = if swapped { (m, n) } else { (n, m) };
        self.compare_scalars(double, if signal { 0x2f } else { 0x2e }, (n, m));
        self.nzcv = Nzcv::Float { swapped, saved: false };
    }

    /// rax = NZCV in the form of its slot, by a table of what the host's comparison leaves. Keeps EFLAGS.
    pub(super) fn compared_slot(&mut self, swapped: bool) {
        let table = std::mem::offset_of!(JitState, consts.fcmp_slots);
        let table = field(table + usize::from(swapped) * std::mem::size_of::<FcmpSlots>());
        self.asm.lahf();
        self.asm.movzx_ah();
        self.asm.movzx16(RAX, M { index: Some((RAX, 1)), ..table });
    }

    /// NZCV in EFLAGS, with the carry inverted.
    fn compare_floats(&mut self, double: bool, signal: bool, (n, m): (Xmm, Xmm)) {
        self.compare_scalars(double, if signal { 0x2f } else { 0x2e }, (n, m));
        self.compared_slot(false);
        self.asm.op8_imm(Op2::Add, RAX, 0x7f);
        self.asm.sahf();
    }

    /// FCCMP, FCCMPE.
    pub(super) fn fccmp(&mut self, inst: &Inst) {
        let Inst::FCondCompare { double, signal, n, m, cond, nzcv } = *inst else { return };
        let operands = (self.vector_value(n), self.vector_value(m));
        let otherwise = if cond.always() {
            None
        } else {
            let cc = self.host_condition(cond);
            Some(self.asm.jcc(cc.invert()))
        };
        self.compare_floats(double, signal, operands);
        if let Some(otherwise) = otherwise {
            let done = self.asm.jmp();
            self.asm.bind(otherwise);
            let slot = crate::runtime::state::nzcv_from_arm(u32::from(nzcv) << 28);
            self.asm.mov_imm(RAX, i64::from(slot));
            self.asm.op8_imm(Op2::Add, RAX, 0x7f);
            self.asm.sahf();
            self.asm.bind(done);
        }
        self.nzcv = Nzcv::Host { carry: Carry::Inverted, saved: false };
    }

    pub(super) fn fselect(&mut self, es: u8, cond: Cond, d: VReg, n: VReg, m: VReg) {
        let (n, m) = (self.vector_value(n), self.vector_value(m));
        self.asm.vex(opc(1, 1, 0x28), X0.0, 0, n);
        if !cond.always() {
            let cc = self.host_condition(cond);
            let keep = self.asm.jcc(cc);
            self.asm.vex(opc(1, 1, 0x28), X0.0, 0, m);
            self.asm.bind(keep);
        }
        match es {
            3 => self.scalar_result(true, d, false),
            2 => self.scalar_result(false, d, false),
            _ => {
                self.asm.vex(opc(1, 1, 0xef), X1.0, X1.0, X1);
                self.asm.vex_imm(opc(1, 3, 0x0e), X0.0, X1.0, X0, 1);
                self.vector_result(d, X0, true);
            }
        }
    }

    pub(super) fn float_to_int(&mut self, inst: &Inst) {
        let Inst::FToInt { signed, double, rounding, w, d, n } = *inst else {
            unreachable!("checked by the caller")
        };
        self.clobber_flags();
        let x = self.vector_value(n);
        let mode = host_rounding(rounding);
        let clean = if mode.is_none() { self.clean(n, if double { 8 } else { 4 }) } else { x };
        self.trap_if_denormal(double, x);
        let mut odd = Vec::new();
        let round = opc(1, 3, 0x0a + u8::from(double));
        let rounded = match mode {
            Some(3) => x,
            Some(mode) => {
                self.asm.vex_imm(round, X0.0, x.0, x, 8 | mode);
                X0
            }
            None => {
                odd.push(self.round_away(double, clean));
                X0
            }
        };
        if signed {
            let o = Opc { w: w == Width::X, ..Self::scalar(double, 0x2c) };
            self.asm.vex(o, RAX.0, 0, rounded);
            // The host says MIN for everything that does not fit.
            self.asm.op_imm(Op2::Cmp, w == Width::X, RAX, 1);
            odd.push(self.asm.jcc(Cc::O));
        } else {
            odd.push(self.float_to_unsigned(double, w, rounded));
        }
        if mode != Some(3) {
            // For the inexact flag alone.
            self.asm.vex_imm(round, X1.0, x.0, x, mode.unwrap_or(0));
        }
        for fixup in odd {
            self.slow_from(fixup, inst);
        }
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    /// rax = `n`, by a signed 64-bit conversion, for numbers from zero to below 2^63 or 2^32; others jump.
    fn float_to_unsigned(&mut self, double: bool, w: Width, n: Xmm) -> Fixup {
        // The top bits of the number tell its sign and size, before anything can raise an exception.
        let move_bits = Opc { w: double, ..opc(1, 1, 0x7e) };
        let (fraction, bias) = if double { (52, 1023) } else { (23, 127) };
        let bits = if w == Width::X { 63 } else { 32 };
        self.asm.vex(move_bits, n.0, 0, RAX);
        self.asm.shift_imm(Shift::Shr, double, RAX, fraction);
        self.asm.op_imm(Op2::Cmp, false, RAX, bias + bits);
        let odd = self.asm.jcc(Cc::AE);
        self.asm.vex(Opc { w: true, ..Self::scalar(double, 0x2c) }, RAX.0, 0, n);
        odd
    }

    /// UCVTF from 64 bits: numbers from 2^63 on are halved, the lost bit kept sticky, and doubled again.
    fn unsigned_to_float(&mut self, double: bool, d: VReg, s: Opnd) {
        self.clobber_flags();
        self.move_into(Width::X, RAX, s);
        let convert = Opc { w: true, ..Self::scalar(double, 0x2a) };
        self.asm.vex(opc(1, 1, 0xef), X0.0, X0.0, X0);
        self.asm.test(true, RAX, RAX);
        let large = self.asm.jcc(Cc::S);
        self.asm.vex(convert, X0.0, X0.0, RAX);
        let back = self.asm.here();
        self.defer(move |g| {
            g.asm.bind(large);
            g.asm.shift_imm(Shift::Shr, true, RAX, 1);
            let even = g.asm.jcc(Cc::AE);
            g.asm.op_imm(Op2::Or, true, RAX, 1);
            g.asm.bind(even);
            g.asm.vex(convert, X0.0, X0.0, RAX);
            g.asm.vex(Self::scalar(double, 0x58), X0.0, X0.0, X0);
            g.asm.jmp_to(back);
        });
        self.scalar_result(double, d, true);
    }

    pub(super) fn int_to_float(&mut self, inst: &Inst) {
        let Inst::IntToF { signed, double, w, d, s } = *inst else { unreachable!("checked by the caller") };
        if !signed && w == Width::X {
            return self.unsigned_to_float(double, d, s);
        }
        self.move_into(w, RAX, s);
        self.asm.vex(opc(1, 1, 0xef), X0.0, X0.0, X0);
        let wide = w == Width::X || !signed;
        let o = Opc { w: wide, ..Self::scalar(double, 0x2a) };
        self.asm.vex(o, X0.0, X0.0, RAX);
        self.scalar_result(double, d, true);
    }
}
