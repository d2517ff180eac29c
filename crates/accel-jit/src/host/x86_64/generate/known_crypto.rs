//! SHA512 and SHA3.

use super::known::Known;
use super::vector::*;
use super::vector_ops::*;
use super::*;
use crate::ir::VName;

/// EVEX only.
const PROR: Opc = opcw(1, 1, 0x72);
const TERNARY: Opc = opcw(1, 3, 0x25);
/// Truth tables: exclusive or; the first chooses between the others; what two of three say.
const EOR: u8 = 0x96;
const CHOICE: u8 = 0xca;
const MAJORITY: u8 = 0xe8;

/// Rotations to the right whose exclusive or is taken; the last one is a shift where it says so.
#[derive(Clone, Copy)]
struct Sigma(u8, u8, u8, bool);

const LARGE_0: Sigma = Sigma(28, 34, 39, false);
const LARGE_1: Sigma = Sigma(14, 18, 41, false);
const SMALL_0: Sigma = Sigma(1, 8, 7, true);
const SMALL_1: Sigma = Sigma(19, 61, 6, true);

impl Generator {
    pub(super) fn known_crypto(&mut self, name: VName, k: Known) -> bool {
        let op = k.op;
        let (n, m) = (self.vector_value(op.n), self.vector_value(op.m));
        match name {
            VName::Eor3 => {
                let a = self.vector_value(op.a);
                self.vv(PXOR, X0, n, m);
                self.vv(PXOR, X0, X0, a);
            }
            VName::Bcax => {
                let a = self.vector_value(op.a);
                self.vv(PANDN, X0, a, m);
                self.vv(PXOR, X0, X0, n);
            }
            VName::Rax1 => {
                self.rotate_right(X0, m, 63);
                self.vv(PXOR, X0, X0, n);
            }
            VName::Xar => {
                self.vv(PXOR, X0, n, m);
                self.rotate_right(X0, X0, k.shape.param() as u8 & 63);
            }
            VName::Sha512su0 => {
                let (d, x) = (self.vector_value(op.d), self.vector_temp());
                self.asm.vex_imm(PALIGNR, x.0, n.0, d, 8);
                self.sigma(SMALL_0, x);
                self.vv(PADD[3], X0, X0, d);
            }
            VName::Sha512su1 => {
                let d = self.vector_value(op.d);
                self.sigma(SMALL_1, n);
                self.vv(PADD[3], X0, X0, d);
                self.vv(PADD[3], X0, X0, m);
            }
            VName::Sha512h => self.sha512_rounds(true, op),
            VName::Sha512h2 => self.sha512_rounds(false, op),
            _ => return false,
        }
        self.known_result(k, 16)
    }

    /// `d` = the doublewords of `s` rotated by 0 to 63. Clobbers X3, which is neither.
    fn rotate_right(&mut self, d: Xmm, s: Xmm, count: u8) {
        if count == 0 {
            self.vmov(d, s);
        } else if self.options.avx512 {
            self.asm.evex_imm(PROR, 0, d.0, s, count);
        } else {
            self.vshift_imm(SRL, 3, X3, s, count);
            self.vshift_imm(SLL, 3, d, s, 64 - count);
            self.vv(POR, d, d, X3);
        }
    }

    /// X0 = what `sigma` says of `x`. Clobbers the other scratch registers, which `x` is none of.
    fn sigma(&mut self, Sigma(a, b, c, shifts): Sigma, x: Xmm) {
        self.rotate_right(X0, x, a);
        self.rotate_right(X1, x, b);
        if shifts {
            self.vshift_imm(SRL, 3, X2, x, c);
        } else {
            self.rotate_right(X2, x, c);
        }
        if self.options.avx512 {
            self.asm.evex_imm(TERNARY, X0.0, X1.0, X2, EOR);
        } else {
            self.vv(PXOR, X0, X0, X1);
            self.vv(PXOR, X0, X0, X2);
        }
    }

    /// X1 = e chooses between f and g. Clobbers X2.
    fn choice(&mut self, [e, f, g]: [Xmm; 3]) {
        if self.options.avx512 {
            self.vmov(X1, e);
            return self.asm.evex_imm(TERNARY, X1.0, f.0, g, CHOICE);
        }
        self.vv(PXOR, X1, f, g);
        self.vv(PAND, X1, X1, e);
        self.vv(PXOR, X1, X1, g);
    }

    /// X1 = the bits that two of three have. Clobbers X2.
    fn majority(&mut self, [a, b, c]: [Xmm; 3]) {
        if self.options.avx512 {
            self.vmov(X1, a);
            return self.asm.evex_imm(TERNARY, X1.0, b.0, c, MAJORITY);
        }
        // b, unless both others say otherwise.
        self.vv(PXOR, X1, a, b);
        self.vv(PXOR, X2, b, c);
        self.vv(PAND, X1, X1, X2);
        self.vv(PXOR, X1, X1, b);
    }

    /// X0 = SHA512H or SHA512H2: one doubleword from the other, each with its own sum.
    fn sha512_rounds(&mut self, first: bool, op: VOperands) {
        let (w, x, y) = (self.vector_value(op.d), self.vector_value(op.n), self.vector_value(op.m));
        let [y_high, upper, result, next] = std::array::from_fn(|_| self.vector_temp());
        self.vv(PUNPCKH[3], y_high, y, y);
        if first {
            self.vv(PUNPCKH[3], upper, x, x);
            self.sigma(LARGE_1, y_high);
            self.choice([y_high, x, upper]);
        } else {
            self.sigma(LARGE_0, y);
            self.majority([x, y_high, y]);
        }
        self.vv(PADD[3], X0, X0, X1);
        self.vv(PUNPCKH[3], upper, w, w);
        self.vv(PADD[3], result, X0, upper);
        if first {
            self.vv(PADD[3], next, result, y);
            self.sigma(LARGE_1, next);
            self.choice([next, y_high, x]);
        } else {
            self.sigma(LARGE_0, result);
            self.majority([result, y, y_high]);
        }
        self.vv(PADD[3], X0, X0, X1);
        self.vv(PADD[3], X0, X0, w);
        self.vv(PUNPCKL[3], X0, X0, result);
    }
}
