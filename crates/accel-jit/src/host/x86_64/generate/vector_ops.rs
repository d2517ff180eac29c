//! Element-wise vector operations. Combinations that the host has no short sequence for go to the
//! reference interpreter.

use super::locate::Loc;
use super::vector::*;
use super::*;
use crate::runtime::state::JitState;

pub(super) const PXOR: Opc = opc(1, 1, 0xef);
pub(super) const PAND: Opc = opc(1, 1, 0xdb);
pub(super) const PANDN: Opc = opc(1, 1, 0xdf);
pub(super) const POR: Opc = opc(1, 1, 0xeb);
pub(super) const PSHUFB: Opc = opc(1, 2, 0x00);
pub(super) const PUNPCKLQDQ: Opc = opc(1, 1, 0x6c);
pub(super) const PUNPCKHQDQ: Opc = opc(1, 1, 0x6d);
pub(super) const PSHUFD: Opc = opc(1, 1, 0x70);
const SHUFPD: Opc = opc(1, 1, 0xc6);
pub(super) const INSERTPS: Opc = opc(1, 3, 0x21);
pub(super) const PALIGNR: Opc = opc(1, 3, 0x0f);
pub(super) const PTEST: Opc = opc(1, 2, 0x17);
pub(super) const MOVDQA: Opc = opc(1, 1, 0x6f);
/// The lower half alone.
pub(super) const MOVQ: Opc = opc(2, 1, 0x7e);
/// From a general register.
pub(super) const MOVQ_GPR: Opc = opcw(1, 1, 0x6e);
pub(super) const PADDUSB: Opc = opc(1, 1, 0xdc);
const PACKUSWB: Opc = opc(1, 1, 0x67);
const PACKUSDW: Opc = opc(1, 2, 0x2b);
pub(super) const PADD: [Opc; 4] = [opc(1, 1, 0xfc), opc(1, 1, 0xfd), opc(1, 1, 0xfe), opc(1, 1, 0xd4)];
pub(super) const PSUB: [Opc; 4] = [opc(1, 1, 0xf8), opc(1, 1, 0xf9), opc(1, 1, 0xfa), opc(1, 1, 0xfb)];
pub(super) const PCMPEQ: [Opc; 4] = [opc(1, 1, 0x74), opc(1, 1, 0x75), opc(1, 1, 0x76), opc(1, 2, 0x29)];
pub(super) const PCMPGT: [Opc; 4] = [opc(1, 1, 0x64), opc(1, 1, 0x65), opc(1, 1, 0x66), opc(1, 2, 0x37)];
const PMAXS: [Opc; 3] = [opc(1, 2, 0x3c), opc(1, 1, 0xee), opc(1, 2, 0x3d)];
const PMINS: [Opc; 3] = [opc(1, 2, 0x38), opc(1, 1, 0xea), opc(1, 2, 0x39)];
pub(super) const PMAXU: [Opc; 3] = [opc(1, 1, 0xde), opc(1, 2, 0x3e), opc(1, 2, 0x3f)];
const PMINU: [Opc; 3] = [opc(1, 1, 0xda), opc(1, 2, 0x3a), opc(1, 2, 0x3b)];
pub(super) const PUNPCKL: [Opc; 4] = [opc(1, 1, 0x60), opc(1, 1, 0x61), opc(1, 1, 0x62), PUNPCKLQDQ];
pub(super) const PUNPCKH: [Opc; 4] = [opc(1, 1, 0x68), opc(1, 1, 0x69), opc(1, 1, 0x6a), PUNPCKHQDQ];
/// Shift by a constant: opcode and extension are in the group of the element size (16, 32, 64 bits).
const SHIFT_GROUP: [Opc; 3] = [opc(1, 1, 0x71), opc(1, 1, 0x72), opc(1, 1, 0x73)];
pub(super) const SRL: u8 = 2;
pub(super) const SRA: u8 = 4;
pub(super) const SLL: u8 = 6;

impl Generator {
    pub(super) fn vv(&mut self, o: Opc, d: Xmm, a: Xmm, b: impl Into<Rm>) {
        self.asm.vex(o, d.0, a.0, b);
    }

    pub(super) fn vmov(&mut self, d: Xmm, s: Xmm) {
        self.asm.vex(MOVDQA, d.0, 0, s);
    }

    /// d = a shifted by the constant; `es` 1 to 3.
    pub(super) fn vshift_imm(&mut self, ext: u8, es: u8, d: Xmm, a: Xmm, n: u8) {
        self.asm.vex_imm(SHIFT_GROUP[usize::from(es) - 1], ext, d.0, a, n);
    }

    /// Byte shift of the whole register to the right.
    pub(super) fn psrldq(&mut self, d: Xmm, a: Xmm, n: u8) {
        self.asm.vex_imm(SHIFT_GROUP[2], 3, d.0, a, n);
    }

    /// The same to the left.
    pub(super) fn pslldq(&mut self, d: Xmm, a: Xmm, n: u8) {
        self.asm.vex_imm(SHIFT_GROUP[2], 7, d.0, a, n);
    }

    pub(super) fn constant(offset: usize) -> M {
        field(offset)
    }

    pub(super) fn broadcast64(&mut self, x: Xmm, v: u64) {
        self.asm.mov_imm(RAX, v as i64);
        self.asm.vex(MOVQ_GPR, x.0, 0, RAX);
        self.vv(PUNPCKLQDQ, x, x, x);
    }

    pub(super) fn v_const(&mut self, d: VReg, lo: u64, hi: u64) {
        let r = self.vector_dest(d);
        if lo == 0 && hi == 0 {
            self.vv(PXOR, r, r, r);
        } else if lo == u64::MAX && hi == u64::MAX {
            self.vv(PCMPEQ[0], r, r, r);
        } else {
            self.asm.mov_imm(RAX, lo as i64);
            self.asm.vex(opcw(1, 1, 0x6e), r.0, 0, RAX);
            if hi == lo {
                self.vv(PUNPCKLQDQ, r, r, r);
            } else if hi != 0 {
                self.asm.mov_imm(RAX, hi as i64);
                self.asm.vex_imm(opcw(1, 3, 0x22), r.0, r.0, RAX, 1);
            }
        }
        self.vector_store(d, r, if hi == 0 { 64 } else { 128 });
    }

    pub(super) fn v3(&mut self, inst: &Inst) {
        let Inst::V3 { op, es, q, d, n, m } = *inst else { unreachable!("checked by the caller") };
        if self.v3_float(inst) || self.v3_more(inst) || self.v3_crypto(inst) || self.v3_products(inst) {
            return;
        }
        let e = usize::from(es & 3);
        if self.v3_unsupported(op, es, q) {
            return self.vector_slow(inst);
        }
        let low = self.bits_of(n) <= 64 && self.bits_of(m) <= 64;
        let (rn, rm) = (self.vector_value(n), self.vector_value(m));
        match op {
            V3Op::And => self.vv(PAND, X0, rn, rm),
            V3Op::Bic => self.vv(PANDN, X0, rm, rn),
            V3Op::Orr => self.vv(POR, X0, rn, rm),
            V3Op::Eor => self.vv(PXOR, X0, rn, rm),
            V3Op::Orn => {
                self.vv(PCMPEQ[0], X0, X0, X0);
                self.vv(PXOR, X0, X0, rm);
                self.vv(POR, X0, X0, rn);
            }
            V3Op::Add => self.vv(PADD[e], X0, rn, rm),
            V3Op::Sub => self.vv(PSUB[e], X0, rn, rm),
            V3Op::Mul => self.v_mul(e, rn, rm),
            V3Op::Mla | V3Op::Mls => {
                let rd = self.vector_value(d);
                self.v_mul(e, rn, rm);
                let o = if op == V3Op::Mla { PADD[e] } else { PSUB[e] };
                self.vv(o, X0, rd, X0);
            }
            V3Op::CmEq => self.vv(PCMPEQ[e], X0, rn, rm),
            V3Op::CmGt => self.vv(PCMPGT[e], X0, rn, rm),
            V3Op::CmGe => {
                self.vv(PCMPGT[e], X0, rm, rn);
                self.vv(PXOR, X0, X0, Self::constant(std::mem::offset_of!(JitState, consts.ones)));
            }
            V3Op::CmHs | V3Op::CmHi if es == 3 => {
                // Without their signs, signed ones compare the same.
                let sign = Self::constant(std::mem::offset_of!(JitState, consts.sign64));
                self.vv(PXOR, X0, rn, sign);
                self.vv(PXOR, X1, rm, sign);
                if op == V3Op::CmHi {
                    self.vv(PCMPGT[3], X0, X0, X1);
                } else {
                    self.vv(PCMPGT[3], X0, X1, X0);
                    self.vv(PXOR, X0, X0, Self::constant(std::mem::offset_of!(JitState, consts.ones)));
                }
            }
            V3Op::CmHs => {
                self.vv(PMAXU[e], X0, rn, rm);
                self.vv(PCMPEQ[e], X0, X0, rn);
            }
            V3Op::CmHi => {
                self.vv(PMAXU[e], X0, rn, rm);
                self.vv(PCMPEQ[e], X0, X0, rm);
                self.vv(PXOR, X0, X0, Self::constant(std::mem::offset_of!(JitState, consts.ones)));
            }
            V3Op::CmTst => {
                self.vv(PAND, X0, rn, rm);
                self.vv(PXOR, X1, X1, X1);
                self.vv(PCMPEQ[e], X0, X0, X1);
                self.vv(PXOR, X0, X0, Self::constant(std::mem::offset_of!(JitState, consts.ones)));
            }
            V3Op::Smax => self.vv(PMAXS[e], X0, rn, rm),
            V3Op::Smin => self.vv(PMINS[e], X0, rn, rm),
            V3Op::Umax => self.vv(PMAXU[e], X0, rn, rm),
            V3Op::Umin => self.vv(PMINU[e], X0, rn, rm),
            V3Op::Urhadd => self.vv(if es == 0 { opc(1, 1, 0xe0) } else { opc(1, 1, 0xe3) }, X0, rn, rm),
            V3Op::Addp => self.v_addp(es, q, rn, rm),
            V3Op::Zip1 => self.vv(PUNPCKL[e], X0, rn, rm),
            V3Op::Zip2 if q => self.vv(PUNPCKH[e], X0, rn, rm),
            V3Op::Zip2 => {
                self.vv(PUNPCKL[e], X0, rn, rm);
                self.psrldq(X0, X0, 8);
            }
            V3Op::Uzp1 | V3Op::Uzp2 => self.v_uzp(op == V3Op::Uzp2, es, q, rn, rm),
            V3Op::Trn1 | V3Op::Trn2 => self.v_trn(op == V3Op::Trn2, es, rn, rm),
            V3Op::Bsl | V3Op::Bit | V3Op::Bif => {
                // d ^ ((d ^ a) & mask)
                let rd = self.vector_value(d);
                let (a, b, mask) = match op {
                    V3Op::Bsl => (rn, rm, rd),
                    V3Op::Bit => (rn, rd, rm),
                    _ => (rd, rn, rm),
                };
                if self.options.avx512 {
                    // The mask chooses.
                    self.vmov(X0, mask);
                    self.asm.evex_imm(opcw(1, 3, 0x25), X0.0, a.0, b, 0xca);
                } else {
                    self.vv(PXOR, X0, a, b);
                    self.vv(PAND, X0, X0, mask);
                    self.vv(PXOR, X0, X0, b);
                }
            }
            V3Op::Tbl1 => {
                self.vv(
                    opc(1, 1, 0xdc),
                    X0,
                    rm,
                    Self::constant(std::mem::offset_of!(JitState, consts.tbl_clamp)),
                );
                self.vv(PSHUFB, X0, rn, X0);
            }
            V3Op::Aese | V3Op::Aesd => {
                let zero = self.zero_vector();
                self.vv(PXOR, X0, rn, rm);
                self.vv(opc(1, 2, if op == V3Op::Aese { 0xdd } else { 0xdf }), X0, X0, zero);
            }
            V3Op::Pmull64 => {
                let imm = if q { 0x11 } else { 0 };
                self.asm.vex_imm(opc(1, 3, 0x44), X0.0, rn.0, rm, imm);
                return self.vector_result(d, X0, true);
            }
            _ => return self.vector_slow(inst),
        }
        if !q && low && keeps_zeros(op) {
            return self.vector_adopt(d, X0, 64);
        }
        self.vector_result(d, X0, q);
    }

    fn v3_unsupported(&self, op: V3Op, es: u8, q: bool) -> bool {
        match op {
            V3Op::Mul | V3Op::Mla | V3Op::Mls => es == 3,
            V3Op::Smax | V3Op::Smin | V3Op::Umax | V3Op::Umin => es == 3,
            V3Op::Urhadd => es > 1,
            V3Op::Trn1 | V3Op::Trn2 => es == 3 && !q,
            _ => false,
        }
    }

    /// X0 = n * m per element. Clobbers X1 and X2.
    fn v_mul(&mut self, e: usize, n: Xmm, m: Xmm) {
        match e {
            0 => {
                // Even and odd bytes as halfwords.
                self.vv(opc(1, 1, 0xd5), X0, n, m);
                self.vshift_imm(SRL, 1, X1, n, 8);
                self.vshift_imm(SRL, 1, X2, m, 8);
                self.vv(opc(1, 1, 0xd5), X1, X1, X2);
                self.vshift_imm(SLL, 1, X1, X1, 8);
                self.vshift_imm(SLL, 1, X0, X0, 8);
                self.vshift_imm(SRL, 1, X0, X0, 8);
                self.vv(POR, X0, X0, X1);
            }
            1 => self.vv(opc(1, 1, 0xd5), X0, n, m),
            _ => self.vv(opc(1, 2, 0x40), X0, n, m),
        }
    }

    /// X0 = sums of neighbours of n, then of m. Clobbers X1 to X3.
    fn v_addp(&mut self, es: u8, q: bool, n: Xmm, m: Xmm) {
        let (a, b) = if q {
            (n, m)
        } else {
            self.vv(PUNPCKLQDQ, X2, n, m);
            (X2, X2)
        };
        match es {
            0 => {
                self.vshift_imm(SRL, 1, X0, a, 8);
                self.vv(PADD[0], X0, X0, a);
                self.vshift_imm(SRL, 1, X1, b, 8);
                self.vv(PADD[0], X1, X1, b);
                self.vshift_imm(SLL, 1, X0, X0, 8);
                self.vshift_imm(SRL, 1, X0, X0, 8);
                self.vshift_imm(SLL, 1, X1, X1, 8);
                self.vshift_imm(SRL, 1, X1, X1, 8);
                self.vv(PACKUSWB, X0, X0, X1);
            }
            1 => self.vv(opc(1, 2, 0x01), X0, a, b),
            2 => self.vv(opc(1, 2, 0x02), X0, a, b),
            _ => {
                self.vv(PUNPCKLQDQ, X0, n, m);
                self.vv(PUNPCKHQDQ, X1, n, m);
                self.vv(PADD[3], X0, X0, X1);
            }
        }
    }

    pub(super) fn v_uzp(&mut self, odd: bool, es: u8, q: bool, n: Xmm, m: Xmm) {
        let pick = if odd { PUNPCKHQDQ } else { PUNPCKLQDQ };
        match es {
            3 => self.vv(pick, X0, n, m),
            2 if q => {
                let imm = if odd { 0xdd } else { 0x88 };
                self.asm.vex_imm(opc(0, 1, 0xc6), X0.0, n.0, m, imm);
            }
            2 => {
                self.vv(PUNPCKL[2], X0, n, m);
                if odd {
                    self.psrldq(X0, X0, 8);
                }
            }
            _ => {
                let shuffle = if es == 0 {
                    std::mem::offset_of!(JitState, consts.deinterleave8)
                } else {
                    std::mem::offset_of!(JitState, consts.deinterleave16)
                };
                let shuffle = Self::constant(shuffle);
                if q {
                    self.vv(PSHUFB, X0, n, shuffle);
                    self.vv(PSHUFB, X1, m, shuffle);
                    self.vv(pick, X0, X0, X1);
                } else {
                    self.vv(PUNPCKLQDQ, X0, n, m);
                    self.vv(PSHUFB, X0, X0, shuffle);
                    if odd {
                        self.psrldq(X0, X0, 8);
                    }
                }
            }
        }
    }

    fn v_trn(&mut self, odd: bool, es: u8, n: Xmm, m: Xmm) {
        if es == 3 {
            return self.vv(if odd { PUNPCKHQDQ } else { PUNPCKLQDQ }, X0, n, m);
        }
        // The pair's own half, and the partner moved beside it.
        let bits = 8u8 << es;
        let group = es + 1;
        if odd {
            self.vshift_imm(SRL, group, X0, n, bits);
            self.vshift_imm(SRL, group, X1, m, bits);
            self.vshift_imm(SLL, group, X1, X1, bits);
        } else {
            self.vshift_imm(SLL, group, X0, n, bits);
            self.vshift_imm(SRL, group, X0, X0, bits);
            self.vshift_imm(SLL, group, X1, m, bits);
        }
        self.vv(POR, X0, X0, X1);
    }

    /// Vector floating point; false if `inst` is not.
    fn v3_float(&mut self, inst: &Inst) -> bool {
        let Inst::V3 { op, es, q, d, n, m } = *inst else { return false };
        let code = match op {
            V3Op::Fadd => 0x58,
            V3Op::Fsub => 0x5c,
            V3Op::Fmul => 0x59,
            V3Op::Fdiv => 0x5e,
            V3Op::Fmla => 0xb8,
            V3Op::Fmls => 0xbc,
            _ => return false,
        };
        let double = es == 3;
        if es < 2 || (!q && double) {
            self.vector_slow(inst);
            return true;
        }
        self.clobber_flags();
        let fused = matches!(op, V3Op::Fmla | V3Op::Fmls);
        let (mut rn, mut rm) = (self.vector_value(n), self.vector_value(m));
        let rd = if fused { self.vector_value(d) } else { X0 };
        if !q {
            // Whatever is above the 64 bits must not raise flags.
            self.asm.vex(opc(2, 1, 0x7e), X1.0, 0, rn);
            self.asm.vex(opc(2, 1, 0x7e), X2.0, 0, rm);
            if op == V3Op::Fdiv {
                self.broadcast64(X3, 0x3f80_0000_3f80_0000);
                self.vv(PUNPCKLQDQ, X2, X2, X3);
            }
            (rn, rm) = (X1, X2);
        }
        if op == V3Op::Fdiv {
            self.trap_if_any_denormal(double, rn);
        }
        if fused {
            if q {
                self.vmov(X0, rd);
            } else {
                self.asm.vex(opc(2, 1, 0x7e), X0.0, 0, rd);
            }
            self.asm.vex(Opc { pp: 1, map: 2, op: code, w: double }, X0.0, rn.0, rm);
        } else {
            self.asm.vex(opc(u8::from(double), 1, code), X0.0, rn.0, rm);
        }
        self.vector_nan_check(inst, d, q);
        true
    }

    /// X0 becomes the value of `d` unless an element is a NaN, or may have been rounded up to the smallest normal
    /// number: then the reference decides.
    fn vector_nan_check(&mut self, inst: &Inst, d: VReg, q: bool) {
        let double = matches!(inst, Inst::V3 { es: 3, .. } | Inst::V2 { es: 3, .. });
        let exact = matches!(inst, Inst::V3 { op: V3Op::Fadd | V3Op::Fsub, .. } | Inst::V2 { .. });
        let compare = opc(u8::from(double), 1, 0xc2);
        if exact {
            self.look(|g| g.asm.vex_imm(compare, X3.0, X0.0, X0, 3));
        } else {
            let [abs, least] = Self::magnitudes(if double { 0 } else { 1 });
            self.asm.vex(opc(0, 1, 0x54), X3.0, X0.0, abs);
            // Equal or unordered, quietly.
            self.look(|g| g.asm.vex_imm(compare, X3.0, X3.0, least, 8));
        }
        self.asm.vex(opc(1, 2, 0x17), X3.0, 0, X3);
        let nan = self.asm.jcc(Cc::NE);
        self.vector_result(d, X0, q);
        self.slow_from(nan, inst);
    }

    pub(super) fn v2(&mut self, inst: &Inst) {
        let Inst::V2 { op, es, q, d, n } = *inst else { unreachable!("checked by the caller") };
        if self.v2_more(inst) || self.v2_crypto(inst) {
            return;
        }
        let e = usize::from(es & 3);
        if op == V2Op::Fsqrt && (es < 2 || (!q && es == 3))
            || (matches!(op, V2Op::Fneg | V2Op::Fabs) && es < 2)
        {
            return self.vector_slow(inst);
        }
        if op == V2Op::Fsqrt {
            self.clobber_flags();
        }
        let rn = self.vector_value(n);
        match op {
            V2Op::Mov => self.vmov(X0, rn),
            V2Op::Not => {
                self.vv(PXOR, X0, rn, Self::constant(std::mem::offset_of!(JitState, consts.ones)));
            }
            V2Op::Neg => {
                self.vv(PXOR, X0, X0, X0);
                self.vv(PSUB[e], X0, X0, rn);
            }
            V2Op::Abs if es < 3 => self.asm.vex(opc(1, 2, 0x1c + es), X0.0, 0, rn),
            V2Op::Abs => {
                self.vv(PXOR, X1, X1, X1);
                self.vv(PCMPGT[3], X1, X1, rn);
                self.vv(PXOR, X0, rn, X1);
                self.vv(PSUB[3], X0, X0, X1);
            }
            V2Op::Rev64 | V2Op::Rev32 | V2Op::Rev16 => self.v_rev(op, es, rn),
            V2Op::Cnt if self.options.avx512 => self.asm.evex(opc(1, 2, 0x54), X0.0, 0, rn),
            V2Op::Cnt => {
                let nibble = Self::constant(std::mem::offset_of!(JitState, consts.nibble));
                self.asm.vex(opc(1, 1, 0x6f), X2.0, 0, nibble);
                let counts = Self::constant(std::mem::offset_of!(JitState, consts.nibble_count));
                self.asm.vex(opc(1, 1, 0x6f), X3.0, 0, counts);
                self.vv(PAND, X0, rn, X2);
                self.vshift_imm(SRL, 1, X1, rn, 4);
                self.vv(PAND, X1, X1, X2);
                self.vv(PSHUFB, X0, X3, X0);
                self.vv(PSHUFB, X1, X3, X1);
                self.vv(PADD[0], X0, X0, X1);
            }
            V2Op::Aesmc => {
                self.vv(PXOR, X1, X1, X1);
                self.vv(opc(1, 2, 0xdf), X0, rn, X1);
                self.vv(opc(1, 2, 0xdc), X0, X0, X1);
            }
            V2Op::Aesimc => self.asm.vex(opc(1, 2, 0xdb), X0.0, 0, rn),
            V2Op::Sxtl | V2Op::Uxtl => {
                let mut s = rn;
                if q {
                    self.psrldq(X0, rn, 8);
                    s = X0;
                }
                let base = if op == V2Op::Sxtl { 0x20 } else { 0x30 };
                let code = [base, base + 3, base + 5][e.min(2)];
                self.asm.vex(opc(1, 2, code), X0.0, 0, s);
                return self.vector_result(d, X0, true);
            }
            V2Op::Xtn => return self.v_xtn(es, q, d, rn),
            V2Op::Fneg | V2Op::Fabs => {
                let sign = if es == 3 {
                    std::mem::offset_of!(JitState, consts.sign64)
                } else {
                    std::mem::offset_of!(JitState, consts.sign32)
                };
                self.asm.vex(opc(1, 1, 0x6f), X1.0, 0, Self::constant(sign));
                self.vv(if op == V2Op::Fneg { PXOR } else { PANDN }, X0, X1, rn);
            }
            V2Op::Fsqrt => {
                let mut s = rn;
                if !q {
                    self.asm.vex(opc(2, 1, 0x7e), X1.0, 0, rn);
                    s = X1;
                }
                self.trap_if_any_denormal(es == 3, s);
                self.asm.vex(opc(u8::from(es == 3), 1, 0x51), X0.0, 0, s);
                return self.vector_nan_check(inst, d, q);
            }
            V2Op::CmEqZero | V2Op::CmGtZero | V2Op::CmGeZero | V2Op::CmLtZero | V2Op::CmLeZero => {
                self.vv(PXOR, X1, X1, X1);
                match op {
                    V2Op::CmEqZero => self.vv(PCMPEQ[e], X0, rn, X1),
                    V2Op::CmGtZero | V2Op::CmLeZero => self.vv(PCMPGT[e], X0, rn, X1),
                    _ => self.vv(PCMPGT[e], X0, X1, rn),
                }
                if matches!(op, V2Op::CmGeZero | V2Op::CmLeZero) {
                    self.vv(PXOR, X0, X0, Self::constant(std::mem::offset_of!(JitState, consts.ones)));
                }
            }
            _ => return self.vector_slow(inst),
        }
        self.vector_result(d, X0, q);
    }

    fn v_rev(&mut self, op: V2Op, es: u8, n: Xmm) {
        let shuffle = match (op, es) {
            (V2Op::Rev64, 0) => std::mem::offset_of!(JitState, consts.rev64_8),
            (V2Op::Rev64, 1) => std::mem::offset_of!(JitState, consts.rev64_16),
            (V2Op::Rev64, _) => return self.asm.vex_imm(opc(1, 1, 0x70), X0.0, 0, n, 0b1011_0001),
            (V2Op::Rev32, 0) => std::mem::offset_of!(JitState, consts.rev32_8),
            (V2Op::Rev32, _) => std::mem::offset_of!(JitState, consts.rev32_16),
            _ => std::mem::offset_of!(JitState, consts.rev16_8),
        };
        self.vv(PSHUFB, X0, n, Self::constant(shuffle));
    }

    fn v_xtn(&mut self, es: u8, q: bool, d: VReg, n: Xmm) {
        match es {
            0 => {
                self.vshift_imm(SLL, 1, X0, n, 8);
                self.vshift_imm(SRL, 1, X0, X0, 8);
                self.vv(PACKUSWB, X0, X0, X0);
            }
            1 => {
                self.vshift_imm(SLL, 2, X0, n, 16);
                self.vshift_imm(SRL, 2, X0, X0, 16);
                self.vv(PACKUSDW, X0, X0, X0);
            }
            _ => self.asm.vex_imm(opc(1, 1, 0x70), X0.0, 0, n, 0b1000_1000),
        }
        if q {
            let rd = self.vector_value(d);
            self.vv(PUNPCKLQDQ, X0, rd, X0);
        }
        self.vector_result(d, X0, q);
    }

    pub(super) fn v_shift(&mut self, inst: &Inst) {
        let Inst::VShift { op, es, q, d, n, imm } = *inst else { unreachable!("checked by the caller") };
        let bits = 8u32 << es;
        let imm32 = u32::from(imm);
        let ones = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        let every = u64::MAX / ones;
        let rn = self.vector_value(n);
        match op {
            VShiftOp::Shl => self.v_shl(es, X0, rn, imm),
            VShiftOp::Ushr => self.v_ushr(es, X0, rn, imm),
            VShiftOp::Sshr => self.v_sshr(es, rn, imm),
            VShiftOp::Usra => {
                let rd = self.vector_value(d);
                self.v_ushr(es, X0, rn, imm);
                self.vv(PADD[usize::from(es)], X0, rd, X0);
            }
            VShiftOp::Ssra => {
                let rd = self.vector_value(d);
                self.v_sshr(es, rn, imm);
                self.vv(PADD[usize::from(es)], X0, rd, X0);
            }
            VShiftOp::Sli | VShiftOp::Sri => {
                let rd = self.vector_value(d);
                let mask = if op == VShiftOp::Sli {
                    self.v_shl(es, X0, rn, imm);
                    (ones << imm32) & ones
                } else {
                    self.v_ushr(es, X0, rn, imm);
                    if imm32 >= bits { 0 } else { ones >> imm32 }
                };
                self.broadcast64(X1, mask * every);
                self.vv(PANDN, X1, X1, rd);
                self.vv(POR, X0, X0, X1);
            }
        }
        self.vector_result(d, X0, q);
    }

    pub(super) fn v_shl(&mut self, es: u8, d: Xmm, n: Xmm, imm: u8) {
        if es > 0 {
            return self.vshift_imm(SLL, es, d, n, imm);
        }
        self.vshift_imm(SLL, 1, d, n, imm);
        self.broadcast64(X2, (0xff_u64 << imm & 0xff) * 0x0101_0101_0101_0101);
        self.vv(PAND, d, d, X2);
    }

    pub(super) fn v_ushr(&mut self, es: u8, d: Xmm, n: Xmm, imm: u8) {
        if es > 0 {
            return self.vshift_imm(SRL, es, d, n, imm);
        }
        self.vshift_imm(SRL, 1, d, n, imm);
        self.broadcast64(X2, (0xff_u64 >> imm) * 0x0101_0101_0101_0101);
        self.vv(PAND, d, d, X2);
    }

    /// X0 = n >> imm, signed. Clobbers X1, X2.
    pub(super) fn v_sshr(&mut self, es: u8, n: Xmm, imm: u8) {
        if es == 1 || es == 2 {
            return self.vshift_imm(SRA, es, X0, n, imm);
        }
        if es == 3 && self.options.avx512 {
            return self.asm.evex_imm(opcw(1, 1, 0x72), 4, X0.0, n, imm.min(63));
        }
        let bits = 8u8 << es;
        let imm = imm.min(bits - 1);
        // Move the sign bit down with the rest, then extend it: (x ^ s) - s.
        self.v_ushr(es, X0, n, imm);
        let sign = 1u64 << (bits - 1 - imm);
        self.broadcast64(X1, if es == 0 { sign * 0x0101_0101_0101_0101 } else { sign });
        self.vv(PXOR, X0, X0, X1);
        self.vv(PSUB[usize::from(es)], X0, X0, X1);
    }

    pub(super) fn v_ext(&mut self, q: bool, d: VReg, n: VReg, m: VReg, imm: u8) {
        let (rn, rm) = (self.vector_value(n), self.vector_value(m));
        if q {
            self.asm.vex_imm(opc(1, 3, 0x0f), X0.0, rm.0, rn, imm);
        } else {
            self.vv(PUNPCKLQDQ, X0, rn, rm);
            self.psrldq(X0, X0, imm);
        }
        self.vector_result(d, X0, q);
    }

    /// X0 = all elements the lowest of `x`.
    fn splat(&mut self, es: u8, x: Xmm) {
        let code = [0x78, 0x79, 0x58, 0x59][usize::from(es)];
        self.asm.vex(opc(1, 2, code), X0.0, 0, x);
    }

    pub(super) fn v_dup_lane(&mut self, es: u8, q: bool, d: VReg, n: VReg, lane: u8) {
        let mut s = self.vector_value(n);
        match (es, q, lane) {
            (3, false, 0) => return self.vector_result_of(d, s),
            (3, false, _) => {
                // Nothing is above it then.
                self.psrldq(X0, s, 8);
                return self.vector_adopt(d, X0, 64);
            }
            (3, true, 0) => self.vv(PUNPCKLQDQ, X0, s, s),
            (3, true, _) => self.vv(PUNPCKHQDQ, X0, s, s),
            (2, true, _) => self.asm.vex_imm(PSHUFD, X0.0, 0, s, lane * 0x55),
            _ => {
                if lane != 0 {
                    self.psrldq(X0, s, lane << es);
                    s = X0;
                }
                self.splat(es, s);
            }
        }
        self.vector_result(d, X0, q);
    }

    /// The low half of `x` becomes the value of `d`.
    fn vector_result_of(&mut self, d: VReg, x: Xmm) {
        self.asm.vex(MOVQ, X0.0, 0, x);
        self.vector_adopt(d, X0, 64);
    }

    pub(super) fn v_dup_gpr(&mut self, es: u8, q: bool, d: VReg, s: Opnd) {
        let g = self.value(s, RAX);
        self.asm.vex(opcw(1, 1, 0x6e), X0.0, 0, g);
        self.splat(es, X0);
        self.vector_result(d, X0, q);
    }

    /// X0 = `x` with `g` in `lane`.
    fn insert_gpr(&mut self, es: u8, x: Xmm, g: Gpr, lane: u8) {
        let o = match es {
            0 => opc(1, 3, 0x20),
            1 => opc(1, 1, 0xc4),
            2 => opc(1, 3, 0x22),
            _ => opcw(1, 3, 0x22),
        };
        self.asm.vex_imm(o, X0.0, x.0, g, lane);
    }

    fn extract_gpr(&mut self, es: u8, g: Gpr, x: Xmm, lane: u8) {
        match es {
            0 => self.asm.vex_imm(opc(1, 3, 0x14), x.0, 0, g, lane),
            1 => self.asm.vex_imm(opc(1, 3, 0x15), x.0, 0, g, lane),
            2 => self.asm.vex_imm(opc(1, 3, 0x16), x.0, 0, g, lane),
            _ => self.asm.vex_imm(opcw(1, 3, 0x16), x.0, 0, g, lane),
        }
    }

    pub(super) fn v_ins_lane(&mut self, es: u8, d: VReg, dl: u8, n: VReg, nl: u8) {
        let rn = self.vector_value(n);
        let rd = self.vector_value(d);
        match (es, dl, nl) {
            (3, 1, 0) => self.vv(PUNPCKLQDQ, X0, rd, rn),
            (3, 0, 1) => self.vv(PUNPCKHQDQ, X0, rn, rd),
            (3, 1, _) => self.asm.vex_imm(SHUFPD, X0.0, rd.0, rn, 2),
            (3, ..) => self.asm.vex_imm(SHUFPD, X0.0, rn.0, rd, 2),
            (2, ..) => self.asm.vex_imm(INSERTPS, X0.0, rd.0, rn, nl << 6 | dl << 4),
            _ => {
                self.extract_gpr(es, RAX, rn, nl);
                self.insert_gpr(es, rd, RAX, dl);
            }
        }
        self.vector_result(d, X0, true);
    }

    pub(super) fn v_ins_gpr(&mut self, es: u8, d: VReg, lane: u8, s: Opnd) {
        let rd = self.vector_value(d);
        let g = self.value(s, RAX);
        self.insert_gpr(es, rd, g, lane);
        self.vector_result(d, X0, true);
    }

    pub(super) fn v_get_lane(&mut self, es: u8, ext: Extend, d: Reg, n: VReg, lane: u8) {
        let rn = self.vector_value(n);
        self.extract_gpr(es, RAX, rn, lane);
        let wide = ext == Extend::SignX;
        match (es, ext) {
            (_, Extend::Zero) | (3, _) => {}
            (0, _) => self.asm.movsx8(wide, RAX, RAX),
            (1, _) => self.asm.movsx16(wide, RAX, RAX),
            _ if wide => self.asm.movsxd(RAX, RAX),
            _ => {}
        }
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    pub(super) fn v_from_gpr(&mut self, es: u8, d: VReg, s: Opnd) {
        let r = self.vector_dest(d);
        let o = Opc { w: es == 3, ..opc(1, 1, 0x6e) };
        match s {
            Opnd::Reg(x) => match self.loc(x) {
                Loc::Host(g) => self.asm.vex(o, r.0, 0, g),
                Loc::Memory(m) => self.asm.vex(o, r.0, 0, m),
            },
            Opnd::Imm(_) => {
                let g = self.value(s, RAX);
                self.asm.vex(o, r.0, 0, g);
            }
        }
        self.vector_store(d, r, 8 << es);
    }
}

/// True if elements of zero and zero give zero.
fn keeps_zeros(op: V3Op) -> bool {
    matches!(op, V3Op::And | V3Op::Bic | V3Op::Orr | V3Op::Eor | V3Op::Add | V3Op::Sub)
}
