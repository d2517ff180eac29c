//! Vector instructions that are lifted to functions, as host code where that is short; the rest is called.

use super::vector::*;
use super::vector_ops::*;
use super::*;
use crate::helpers::vector::Shape;
use crate::host::x86_64::evex::Evex;
use crate::ir::VName;
use crate::runtime::state::JitState;
use armlet_arm::fp::FPSR_QC;

pub(super) const PBLENDD: Opc = opc(1, 3, 0x02);
const PBLENDVB: Opc = opc(1, 3, 0x4c);
const PBLENDMB: Opc = opc(1, 2, 0x66);
const PMOVB2M: Opc = opc(2, 2, 0x29);
const PMULDQ: Opc = opc(1, 2, 0x28);
const PMULLW: Opc = opc(1, 1, 0xd5);
const PMULHW: Opc = opc(1, 1, 0xe5);
const PMULHRSW: Opc = opc(1, 2, 0x0b);
/// EVEX only.
const PMOVZXWD: Opc = opc(1, 2, 0x33);
const PMOVDW: Opc = opc(2, 2, 0x33);
const PCMPUB: Opc = opc(1, 3, 0x3e);
const PERMI2B: Opc = opc(1, 2, 0x75);
const PLZCNTD: Opc = opc(1, 2, 0x44);
const AFFINE: Opc = opcw(1, 3, 0xce);
const LESS: u8 = 1;
const YMM: Evex = Evex { length: 1, mask: 0, zeroing: false, rounding: false };
/// The matrix that reverses the bits of bytes.
const REVERSE_BITS: u64 = 0x8040_2010_0804_0201;
/// Leading zeros of four bits, by their value; from eight on there are none.
const NIBBLE_CLZ: i64 = 0x0101_0101_0202_0304;
/// Reversed nibbles, by their value.
const NIBBLE_REVERSED: [i64; 2] = [0x0e06_0a02_0c04_0800, 0x0f07_0b03_0d05_0901];

/// An instruction of this module.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub es: u8,
    pub op: VOperands,
    pub shape: Shape,
}

impl Known {
    /// log2 of the bytes, as an index.
    pub fn e(self) -> usize {
        usize::from(self.es & 3)
    }

    /// Bytes of the result of an instruction whose elements are twice as wide as their sources.
    fn wide_bytes(self) -> u32 {
        if self.shape.bytes() < 8 { 2 << self.es } else { 16 }
    }
}

impl Generator {
    pub(super) fn v_known(&mut self, inst: &Inst) {
        let Inst::VKnown { name, es, f, op } = *inst else { unreachable!("checked by the caller") };
        let k = Known { es, op, shape: Shape::of(op) };
        let done = match name {
            VName::Sha512h
            | VName::Sha512h2
            | VName::Sha512su0
            | VName::Sha512su1
            | VName::Eor3
            | VName::Bcax
            | VName::Rax1
            | VName::Xar => self.known_crypto(name, k),
            VName::Sqadd | VName::Sqsub | VName::Uqadd | VName::Uqsub => self.known_saturating(name, k),
            VName::Suqadd | VName::Usqadd => self.known_mixed(name, k),
            VName::Sqabs | VName::Sqneg => self.known_sign(name, k),
            VName::Sqdmulh | VName::Sqrdmulh => self.known_high_product(name, k),
            VName::Sqdmull | VName::Sqdmlal | VName::Sqdmlsl => self.known_long_product(name, k),
            VName::Sqrdmlah | VName::Sqrdmlsh => self.known_accumulated_product(name == VName::Sqrdmlsh, k),
            VName::Sshl | VName::Ushl | VName::Srshl | VName::Urshl => self.known_shift(name, k),
            VName::Sqshl | VName::Uqshl | VName::Sqrshl | VName::Uqrshl => self.known_shift(name, k),
            VName::SqshlImmediate | VName::UqshlImmediate | VName::Sqshlu => {
                self.known_shift_immediate(name, k)
            }
            VName::Pmul | VName::Pmull => self.known_polynomial(name == VName::Pmull, k),
            VName::Cls | VName::Clz => self.known_leading(name == VName::Cls, k),
            VName::Rbit => self.known_rbit(k),
            VName::Tbl(count) => self.known_table(count, false, k),
            VName::Tbx(count) => self.known_table(count, true, k),
            _ => self.known_float(name, k, inst),
        };
        if !done {
            self.helper(f, op);
        }
    }

    /// Clears what is above the lowest `bytes`.
    pub(super) fn limit_to(&mut self, x: Xmm, bytes: u32) {
        match bytes {
            16.. => {}
            8 => self.asm.vex(MOVQ, x.0, 0, x),
            _ => {
                let n = 16 - bytes as u8;
                self.pslldq(x, x, n);
                self.psrldq(x, x, n);
            }
        }
    }

    /// X0 becomes the value of the destination.
    pub(super) fn known_result(&mut self, k: Known, bytes: u32) -> bool {
        self.limit_to(X0, bytes);
        self.vector_adopt(k.op.d, X0, (8 * bytes) as u8);
        true
    }

    /// Sets FPSR.QC if anything is set in the lowest `bytes` of `mask`. Clobbers the flags.
    pub(super) fn saturated_where(&mut self, mask: Xmm, bytes: u32) {
        self.limit_to(mask, bytes);
        self.asm.vex(PTEST, mask.0, 0, mask);
        let none = self.asm.jcc(Cc::E);
        let fpsr = field(std::mem::offset_of!(JitState, cpu.fp.fpsr));
        self.asm.op_imm(Op2::Or, false, fpsr, FPSR_QC as i32);
        self.asm.bind(none);
    }

    /// The second source; one element of it spread, if the instruction says so.
    pub(super) fn second(&mut self, k: Known) -> Xmm {
        let m = self.vector_value(k.op.m);
        let Some(lane) = k.shape.by_element() else { return m };
        let t = self.vector_temp();
        self.psrldq(t, m, lane << k.es);
        self.asm.vex(opc(1, 2, [0x78, 0x79, 0x58, 0x59][k.e()]), t.0, 0, t);
        t
    }

    /// `x` = `value` in every element.
    pub(super) fn every(&mut self, x: Xmm, es: u8, value: u64) {
        let ones = u64::MAX >> (64 - (8 << es));
        self.broadcast64(x, (value & ones) * (u64::MAX / ones));
    }

    /// `d` = `a` where `mask`'s bytes are clear, else `b`.
    pub(super) fn blend(&mut self, d: Xmm, a: Xmm, b: Xmm, mask: Xmm) {
        if [d, a, b, mask].iter().any(|x| self.asm.hardware(x.0) >= 16) {
            self.asm.evex(PMOVB2M, 1, 0, mask);
            return self.asm.evex_with(PBLENDMB, d.0, a.0, b, Evex { mask: 1, ..Evex::default() });
        }
        let mask = self.asm.hardware(mask.0) << 4;
        self.asm.vex_imm(PBLENDVB, d.0, a.0, b, mask);
    }

    // ---- saturation ----

    /// X0 = a + b, or a - b, saturated; X1 = where it is. Clobbers X2 and X3.
    fn saturating_signed(&mut self, es: u8, subtract: bool, a: Xmm, b: Xmm) {
        let e = usize::from(es);
        let plain = if subtract { PSUB[e] } else { PADD[e] };
        if es < 2 {
            self.vv(opc(1, 1, if subtract { 0xe8 } else { 0xec } + es), X0, a, b);
            self.vv(plain, X1, a, b);
            return self.differs(e);
        }
        self.vv(plain, X0, a, b);
        // Signs that were the same (or not the same, before a subtraction), and are another now.
        self.vv(PXOR, X1, a, X0);
        if subtract {
            self.vv(PXOR, X2, a, b);
        } else {
            self.vv(PXOR, X2, b, X0);
        }
        self.vv(PAND, X1, X1, X2);
        self.vv(PXOR, X3, X3, X3);
        self.vv(PCMPGT[e], X1, X3, X1);
        self.vv(PCMPGT[e], X2, X3, a);
        self.vv(PCMPEQ[0], X3, X3, X3);
        self.vshift_imm(SRL, es, X3, X3, 1);
        self.vv(PXOR, X2, X2, X3);
        self.blend(X0, X0, X2, X1);
    }

    /// X1 = where X0 and X1 differ.
    fn differs(&mut self, e: usize) {
        self.vv(PCMPEQ[e], X1, X1, X0);
        self.vv(PXOR, X1, X1, Self::constant(std::mem::offset_of!(JitState, consts.ones)));
    }

    /// The same for unsigned elements.
    fn saturating_unsigned(&mut self, es: u8, subtract: bool, a: Xmm, b: Xmm) {
        let e = usize::from(es);
        let plain = if subtract { PSUB[e] } else { PADD[e] };
        if es < 2 {
            self.vv(opc(1, 1, if subtract { 0xd8 } else { 0xdc } + es), X0, a, b);
            self.vv(plain, X1, a, b);
            return self.differs(e);
        }
        let sign = Self::constant(if es == 3 {
            std::mem::offset_of!(JitState, consts.sign64)
        } else {
            std::mem::offset_of!(JitState, consts.sign32)
        });
        self.vv(plain, X0, a, b);
        // Unsigned a > sum, or b > a.
        let (larger, smaller) = if subtract { (b, a) } else { (a, X0) };
        self.vv(PXOR, X1, larger, sign);
        self.vv(PXOR, X2, smaller, sign);
        self.vv(PCMPGT[e], X1, X1, X2);
        if subtract {
            self.vv(PANDN, X0, X1, X0);
        } else {
            self.vv(POR, X0, X0, X1);
        }
    }

    fn known_saturating(&mut self, name: VName, k: Known) -> bool {
        self.clobber_flags();
        let (n, m) = (self.vector_value(k.op.n), self.vector_value(k.op.m));
        let subtract = matches!(name, VName::Sqsub | VName::Uqsub);
        if matches!(name, VName::Sqadd | VName::Sqsub) {
            self.saturating_signed(k.es, subtract, n, m);
        } else {
            self.saturating_unsigned(k.es, subtract, n, m);
        }
        self.saturated_where(X1, k.shape.bytes());
        self.known_result(k, k.shape.bytes())
    }

    /// SUQADD and USQADD: with the sign of the destination turned round, both numbers are of one kind.
    fn known_mixed(&mut self, name: VName, k: Known) -> bool {
        self.clobber_flags();
        let (d, n) = (self.vector_value(k.op.d), self.vector_value(k.op.n));
        let (turned, sign) = (self.vector_temp(), self.vector_temp());
        self.every(sign, k.es, 1 << ((8 << k.es) - 1));
        self.vv(PXOR, turned, d, sign);
        if name == VName::Suqadd {
            self.saturating_unsigned(k.es, false, turned, n);
        } else {
            self.saturating_signed(k.es, false, turned, n);
        }
        self.vv(PXOR, X0, X0, sign);
        self.saturated_where(X1, k.shape.bytes());
        self.known_result(k, k.shape.bytes())
    }

    /// SQABS and SQNEG: only the smallest number saturates, and MIN - 1 is MAX.
    fn known_sign(&mut self, name: VName, k: Known) -> bool {
        self.clobber_flags();
        let (n, e) = (self.vector_value(k.op.n), k.e());
        self.vv(PXOR, X2, X2, X2);
        if name == VName::Sqneg {
            self.vv(PSUB[e], X0, X2, n);
            self.vv(PAND, X1, X0, n);
        } else {
            self.vv(PCMPGT[e], X1, X2, n);
            self.vv(PXOR, X0, n, X1);
            self.vv(PSUB[e], X0, X0, X1);
            self.vmov(X1, X0);
        }
        self.vv(PCMPGT[e], X1, X2, X1);
        self.vv(PADD[e], X0, X0, X1);
        self.saturated_where(X1, k.shape.bytes());
        self.known_result(k, k.shape.bytes())
    }

    /// X1 = where elements of X0 are the smallest number, which become the largest.
    fn least_becomes_largest(&mut self, es: u8) {
        let e = usize::from(es);
        self.vv(PCMPEQ[0], X1, X1, X1);
        self.vshift_imm(SLL, es, X1, X1, (8 << es) - 1);
        self.vv(PCMPEQ[e], X1, X1, X0);
        self.vv(PXOR, X0, X0, X1);
    }

    fn known_high_product(&mut self, name: VName, k: Known) -> bool {
        if !matches!(k.es, 1 | 2) {
            return false;
        }
        self.clobber_flags();
        let rounds = name == VName::Sqrdmulh;
        let n = self.vector_value(k.op.n);
        let m = self.second(k);
        if k.es == 2 {
            self.high_product_of_words(rounds, n, m);
        } else if rounds {
            self.vv(PMULHRSW, X0, n, m);
        } else {
            self.vv(PMULHW, X0, n, m);
            self.vv(PMULLW, X1, n, m);
            self.vshift_imm(SLL, 1, X0, X0, 1);
            self.vshift_imm(SRL, 1, X1, X1, 15);
            self.vv(POR, X0, X0, X1);
        }
        // MIN * MIN alone does not fit, and its product looks like MIN.
        self.least_becomes_largest(k.es);
        self.saturated_where(X1, k.shape.bytes());
        self.known_result(k, k.shape.bytes())
    }

    /// X0 = 2 * n * m >> 32, of even words from the one product, of odd ones from the other.
    fn high_product_of_words(&mut self, rounds: bool, n: Xmm, m: Xmm) {
        self.vv(PMULDQ, X0, n, m);
        self.vshift_imm(SRL, 3, X1, n, 32);
        self.vshift_imm(SRL, 3, X2, m, 32);
        self.vv(PMULDQ, X1, X1, X2);
        if rounds {
            self.broadcast64(X2, 1 << 30);
            self.vv(PADD[3], X0, X0, X2);
            self.vv(PADD[3], X1, X1, X2);
        }
        self.vshift_imm(SRL, 3, X0, X0, 31);
        self.vshift_imm(SLL, 3, X1, X1, 1);
        self.asm.vex_imm(PBLENDD, X0.0, X0.0, X1, 0b1010);
    }

    /// SQRDMLAH, SQRDMLSH: all of it halved, so that it fits twice the element.
    fn known_accumulated_product(&mut self, subtract: bool, k: Known) -> bool {
        if !matches!(k.es, 1 | 2) {
            return false;
        }
        self.clobber_flags();
        let (d, n) = (self.vector_value(k.op.d), self.vector_value(k.op.n));
        let m = self.second(k);
        if k.es == 1 {
            self.accumulate_halfwords(subtract, d, (n, m));
        } else {
            self.accumulate_words(subtract, d, (n, m));
        }
        self.saturated_where(X1, k.shape.bytes());
        self.known_result(k, k.shape.bytes())
    }

    /// X0 = the result, X1 = where it saturates.
    fn accumulate_halfwords(&mut self, subtract: bool, d: Xmm, (n, m): (Xmm, Xmm)) {
        let (low, high, half, zero) =
            (self.vector_temp(), self.vector_temp(), self.vector_temp(), self.zero_vector());
        self.vv(PMULLW, X0, n, m);
        self.vv(PMULHW, X1, n, m);
        self.every(half, 2, 1 << 14);
        for (unpack, sum) in [(PUNPCKL[1], low), (PUNPCKH[1], high)] {
            self.vv(unpack, X2, X0, X1);
            self.vv(unpack, sum, zero, d);
            self.vshift_imm(SRA, 2, sum, sum, 1);
            self.vv(PADD[2], sum, sum, half);
            self.vv(if subtract { PSUB[2] } else { PADD[2] }, sum, sum, X2);
            self.vshift_imm(SRA, 2, sum, sum, 15);
        }
        self.vv(opc(1, 1, 0x6b), X0, low, high);
        // Saturated where the result does not extend to the sum.
        for (unpack, sum) in [(PUNPCKL[1], low), (PUNPCKH[1], high)] {
            self.vv(unpack, X2, X0, X0);
            self.vshift_imm(SRA, 2, X2, X2, 16);
            self.vv(PCMPEQ[2], sum, sum, X2);
        }
        self.vv(opc(1, 1, 0x6b), X1, low, high);
        let ones = Self::constant(std::mem::offset_of!(JitState, consts.ones));
        self.vv(PXOR, X1, X1, ones);
    }

    /// The same, of even words and of odd ones.
    fn accumulate_words(&mut self, subtract: bool, d: Xmm, (n, m): (Xmm, Xmm)) {
        let (even, odd, scale) = (self.vector_temp(), self.vector_temp(), self.vector_temp());
        // Minus 2^31 is a word, 2^31 is not.
        self.every(scale, 3, 1 << 31);
        for (moves, sum) in [(false, even), (true, odd)] {
            let mut sources = [n, m, d];
            if moves {
                for (s, x) in sources.iter_mut().zip([X0, X1, X2]) {
                    self.vshift_imm(SRL, 3, x, *s, 32);
                    *s = x;
                }
            }
            let [n, m, d] = sources;
            self.vv(PMULDQ, X0, n, m);
            self.vv(PMULDQ, X2, d, scale);
            self.every(sum, 3, 1 << 30);
            self.vv(PSUB[3], sum, sum, X2);
            self.vv(if subtract { PSUB[3] } else { PADD[3] }, sum, sum, X0);
        }
        // The results, and the words above them by half.
        self.vshift_imm(SRL, 3, X0, even, 31);
        self.vshift_imm(SLL, 3, X2, odd, 1);
        self.asm.vex_imm(PBLENDD, X0.0, X0.0, X2, 0b1010);
        self.vshift_imm(SRL, 3, X3, even, 32);
        self.asm.vex_imm(PBLENDD, X3.0, X3.0, odd, 0b1010);
        // It does not fit if the two highest bits differ.
        self.vv(PADD[2], X1, X3, X3);
        self.vv(PXOR, X1, X1, X3);
        self.vshift_imm(SRA, 2, X1, X1, 31);
        self.vshift_imm(SRA, 2, X3, X3, 31);
        self.every(X2, 2, 0x7fff_ffff);
        self.vv(PXOR, X3, X3, X2);
        self.blend(X0, X0, X3, X1);
    }

    fn known_long_product(&mut self, name: VName, k: Known) -> bool {
        if !matches!(k.es, 1 | 2) {
            return false;
        }
        self.clobber_flags();
        let n = self.vector_value(k.op.n);
        let m = self.second(k);
        let (wide, upper) = (k.es + 1, k.shape.upper());
        if k.es == 1 {
            self.vv(PMULLW, X0, n, m);
            self.vv(PMULHW, X1, n, m);
            self.vv(if upper { PUNPCKH[1] } else { PUNPCKL[1] }, X0, X0, X1);
        } else {
            // The words of a half, where the multiplication looks for them.
            let order = if upper { 0xfa } else { 0x50 };
            self.asm.vex_imm(PSHUFD, X0.0, 0, n, order);
            self.asm.vex_imm(PSHUFD, X1.0, 0, m, order);
            self.vv(PMULDQ, X0, X0, X1);
        }
        self.vv(PADD[usize::from(wide)], X0, X0, X0);
        self.least_becomes_largest(wide);
        self.saturated_where(X1, k.wide_bytes());
        if name != VName::Sqdmull {
            let d = self.vector_value(k.op.d);
            let product = self.vector_temp();
            self.vmov(product, X0);
            self.saturating_signed(wide, name == VName::Sqdmlsl, d, product);
            self.saturated_where(X1, k.wide_bytes());
        }
        self.known_result(k, k.wide_bytes())
    }

    // ---- bits ----

    /// CLS, CLZ. As many bits as there are after the first one are like it, as there are zeros where it differs.
    fn known_leading(&mut self, signs: bool, k: Known) -> bool {
        let n = self.vector_value(k.op.n);
        let mut from = n;
        if signs {
            let zero = self.zero_vector();
            from = self.vector_temp();
            self.vv(PCMPGT[k.e()], X0, zero, n);
            self.vv(PXOR, from, n, X0);
        }
        match k.es {
            1 if self.options.avx512 => {
                self.asm.evex_with(PMOVZXWD, X0.0, 0, from, YMM);
                self.asm.evex_with(PLZCNTD, X0.0, 0, X0, YMM);
                self.asm.evex_with(PMOVDW, X0.0, 0, X0, YMM);
                self.asm.vzeroupper();
                self.every(X1, 1, 16);
                self.vv(PSUB[1], X0, X0, X1);
            }
            2.. if self.options.avx512 => self.asm.evex(PLZCNTD, X0.0, 0, from),
            _ => {
                self.leading_of_bytes(from);
                (1..=k.es).for_each(|es| self.leading_of_pairs(es));
            }
        }
        if signs {
            let ones = Self::constant(std::mem::offset_of!(JitState, consts.ones));
            self.vv(PADD[k.e()], X0, X0, ones);
        }
        self.known_result(k, k.shape.bytes())
    }

    /// X0 = leading zeros of each byte of `n`. Clobbers the other scratch registers.
    fn leading_of_bytes(&mut self, n: Xmm) {
        let nibble = Self::constant(std::mem::offset_of!(JitState, consts.nibble));
        self.asm.mov_imm(RAX, NIBBLE_CLZ);
        self.asm.vex(MOVQ_GPR, X3.0, 0, RAX);
        self.vv(PAND, X1, n, nibble);
        self.vshift_imm(SRL, 1, X2, n, 4);
        self.vv(PAND, X2, X2, nibble);
        self.vv(PSHUFB, X1, X3, X1);
        self.vv(PSHUFB, X0, X3, X2);
        // Those of the lower nibble count if the upper one is zero.
        self.vv(PXOR, X3, X3, X3);
        self.vv(PCMPEQ[0], X2, X2, X3);
        self.vv(PAND, X1, X1, X2);
        self.vv(PADD[0], X0, X0, X1);
    }

    /// X0 = leading zeros of elements, from those of their halves: the lower one's count if the upper one is zero.
    fn leading_of_pairs(&mut self, es: u8) {
        let (e, half) = (usize::from(es), 4 << es);
        self.vshift_imm(SRL, es, X1, X0, half);
        self.vshift_imm(SLL, es, X2, X0, half);
        self.vshift_imm(SRL, es, X2, X2, half);
        self.every(X3, es, u64::from(half));
        self.vv(PCMPEQ[e], X3, X3, X1);
        self.vv(PAND, X2, X2, X3);
        self.vv(PADD[e], X0, X1, X2);
    }

    /// PMUL, and PMULL of bytes: bit by bit of the second source, the highest first.
    fn known_polynomial(&mut self, long: bool, k: Known) -> bool {
        const PMOVZXBW: Opc = opc(1, 2, 0x30);
        if k.es != 0 {
            return false;
        }
        let (mut n, m) = (self.vector_value(k.op.n), self.vector_value(k.op.m));
        let (zero, e) = (self.zero_vector(), usize::from(long));
        self.vmov(X1, m);
        if long {
            let wide = self.vector_temp();
            if k.shape.upper() {
                self.psrldq(X0, n, 8);
                n = X0;
                self.psrldq(X1, X1, 8);
            }
            self.vv(PMOVZXBW, wide, Xmm(0), n);
            self.vv(PMOVZXBW, X1, Xmm(0), X1);
            self.vshift_imm(SLL, 1, X1, X1, 8);
            n = wide;
        }
        self.vv(PXOR, X0, X0, X0);
        for bit in 0..8 {
            self.vv(PCMPGT[e], X2, zero, X1);
            self.vv(PAND, X2, X2, n);
            if bit > 0 {
                self.vv(PADD[e], X0, X0, X0);
            }
            self.vv(PXOR, X0, X0, X2);
            self.vv(PADD[e], X1, X1, X1);
        }
        self.known_result(k, if long { 16 } else { k.shape.bytes() })
    }

    fn known_rbit(&mut self, k: Known) -> bool {
        let n = self.vector_value(k.op.n);
        if self.options.avx512 {
            self.broadcast64(X3, REVERSE_BITS);
            self.asm.evex_imm(AFFINE, X0.0, n.0, X3, 0);
        } else {
            let nibble = Self::constant(std::mem::offset_of!(JitState, consts.nibble));
            let [low, high] = NIBBLE_REVERSED;
            self.asm.mov_imm(RAX, low);
            self.asm.vex(MOVQ_GPR, X3.0, 0, RAX);
            self.asm.mov_imm(RAX, high);
            self.asm.vex_imm(opcw(1, 3, 0x22), X3.0, X3.0, RAX, 1);
            self.vv(PAND, X0, n, nibble);
            self.vshift_imm(SRL, 1, X1, n, 4);
            self.vv(PAND, X1, X1, nibble);
            self.vv(PSHUFB, X0, X3, X0);
            self.vv(PSHUFB, X1, X3, X1);
            self.vshift_imm(SLL, 1, X0, X0, 4);
            self.vv(POR, X0, X0, X1);
        }
        self.known_result(k, k.shape.bytes())
    }

    // ---- tables ----

    fn known_table(&mut self, count: u8, extend: bool, k: Known) -> bool {
        let m = self.vector_value(k.op.m);
        if self.options.avx512 && count > 1 {
            self.table_at_once(count, m, k.op.n);
        } else {
            self.table_by_parts(count, m, k.op.n);
        }
        if extend {
            let d = self.vector_value(k.op.d);
            // Indices that are in range.
            self.every(X1, 0, u64::from(16 * count - 1));
            self.vv(PMAXU[0], X2, m, X1);
            self.vv(PCMPEQ[0], X2, X2, X1);
            self.blend(X0, d, X0, X2);
        }
        self.known_result(k, k.shape.bytes())
    }

    /// X0 = two registers of the table looked up at a time; zero where the index is out of range.
    fn table_at_once(&mut self, count: u8, m: Xmm, first: VReg) {
        let table = |i: u8| (first + i) & 31;
        let (n0, n1) = (self.vector_value(table(0)), self.vector_value(table(1)));
        let masked = |mask| Evex { mask, zeroing: true, ..Evex::default() };
        self.every(X3, 0, 32);
        self.asm.evex_imm(PCMPUB, 1, m.0, X3, LESS);
        self.vmov(X0, m);
        self.asm.evex_with(PERMI2B, X0.0, n0.0, n1, masked(1));
        if count == 2 {
            return;
        }
        let (n2, n3) = (self.vector_value(table(2)), self.vector_value(table(count - 1)));
        self.vv(PXOR, X1, m, X3);
        if count == 3 {
            self.every(X3, 0, 16);
        }
        self.asm.evex_imm(PCMPUB, 1, X1.0, X3, LESS);
        self.asm.evex_with(PERMI2B, X1.0, n2.0, n3, masked(1));
        self.vv(POR, X0, X0, X1);
    }

    /// X0 = one lookup for each register of the table, with the indices moved down.
    fn table_by_parts(&mut self, count: u8, m: Xmm, first: VReg) {
        let clamp = Self::constant(std::mem::offset_of!(JitState, consts.tbl_clamp));
        let n = self.vector_value(first);
        self.vv(PADDUSB, X0, m, clamp);
        self.vv(PSHUFB, X0, n, X0);
        if count > 1 {
            self.every(X2, 0, 16);
            self.vmov(X3, m);
        }
        for i in 1..count {
            let n = self.vector_value((first + i) & 31);
            self.vv(PSUB[0], X3, X3, X2);
            self.vv(PADDUSB, X1, X3, clamp);
            self.vv(PSHUFB, X1, n, X1);
            self.vv(POR, X0, X0, X1);
        }
    }
}
