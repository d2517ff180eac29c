//! Sums of products of bytes: widened to halfwords, which the host multiplies and adds in pairs.

use super::vector::*;
use super::vector_ops::*;
use super::*;

const PMADDWD: Opc = opc(1, 1, 0xf5);
const PHADDD: Opc = opc(1, 2, 0x02);

impl Generator {
    /// `d` = the lower or upper eight bytes of `n` as halfwords.
    fn widen_bytes(&mut self, signed: bool, upper: bool, d: Xmm, n: Xmm) {
        let extend = opc(1, 2, if signed { 0x20 } else { 0x30 });
        if upper {
            self.psrldq(d, n, 8);
            self.asm.vex(extend, d.0, 0, d);
        } else {
            self.asm.vex(extend, d.0, 0, n);
        }
    }

    /// Dot and matrix products; false if `inst` is none.
    pub(super) fn v3_products(&mut self, inst: &Inst) -> bool {
        let Inst::V3 { op, q, d, n, m, .. } = *inst else { return false };
        let (n_signed, m_signed) = match op {
            V3Op::Sdot | V3Op::Smmla => (true, true),
            V3Op::Udot | V3Op::Ummla => (false, false),
            V3Op::Usdot | V3Op::Usmmla => (false, true),
            _ => return false,
        };
        let (rd, rn, rm) = (self.vector_value(d), self.vector_value(n), self.vector_value(m));
        self.widen_bytes(n_signed, false, X0, rn);
        self.widen_bytes(m_signed, false, X1, rm);
        if matches!(op, V3Op::Sdot | V3Op::Udot | V3Op::Usdot) {
            self.asm.vex(PMADDWD, X0.0, X0.0, X1);
            if q {
                self.widen_bytes(n_signed, true, X1, rn);
                self.widen_bytes(m_signed, true, X2, rm);
                self.asm.vex(PMADDWD, X1.0, X1.0, X2);
            }
            self.asm.vex(PHADDD, X0.0, X0.0, X1);
        } else {
            // Row by row; each row of the result is one of `n` by both of `m`.
            self.widen_bytes(m_signed, true, X2, rm);
            self.asm.vex(PMADDWD, X3.0, X0.0, X1);
            self.asm.vex(PMADDWD, X0.0, X0.0, X2);
            self.asm.vex(PHADDD, X3.0, X3.0, X0);
            self.widen_bytes(n_signed, true, X0, rn);
            self.asm.vex(PMADDWD, X1.0, X0.0, X1);
            self.asm.vex(PMADDWD, X2.0, X0.0, X2);
            self.asm.vex(PHADDD, X1.0, X1.0, X2);
            self.asm.vex(PHADDD, X0.0, X3.0, X1);
        }
        self.asm.vex(PADD[2], X0.0, X0.0, rd);
        self.vector_result(d, X0, q);
        true
    }
}
