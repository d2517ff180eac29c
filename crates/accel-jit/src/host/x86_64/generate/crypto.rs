//! SHA1 and SHA256 by the host's instructions, and guest instructions that are worth more together.

use super::vector::*;
use super::vector_ops::*;
use super::*;

const MOVD: Opc = opc(1, 1, 0x6e);
const PBROADCASTD: Opc = opc(1, 2, 0x58);
const SHA1RNDS4: Opc = opc(0, 3, 0xcc);
/// Takes its two schedule words from the low half of xmm0.
const SHA256RNDS2: Opc = opc(0, 2, 0xcb);
const SHA256MSG1: Opc = opc(0, 2, 0xcc);
const SHA256MSG2: Opc = opc(0, 2, 0xcd);
const AESENC: Opc = opc(1, 2, 0xdc);
const AESDEC: Opc = opc(1, 2, 0xde);
/// PSHUFD: element order reversed; elements of each half swapped; the upper half.
const REVERSE: u8 = 0x1b;
const SWAP_PAIRS: u8 = 0xb1;
const UPPER: u8 = 0x0e;
/// INSERTPS: the lowest element, nothing above.
const LOWEST_ONLY: u8 = 0x0e;

impl Generator {
    /// Generates a sequence at the start of `insts` that the host does better as a whole. Returns how many IR
    /// instructions that was. Nothing in such a sequence can fault or leave the block.
    pub(super) fn fuse(&mut self, insts: &[Inst]) -> Option<usize> {
        match *insts {
            [
                Inst::V3 { op: V3Op::Aese, d, n, m, .. },
                Inst::Start { .. },
                Inst::V2 { op: V2Op::Aesmc, d: d2, n: n2, .. },
                ..,
            ] if d2 == d && n2 == d => self.aes_round(AESENC, d, n, m),
            [
                Inst::V3 { op: V3Op::Aesd, d, n, m, .. },
                Inst::Start { .. },
                Inst::V2 { op: V2Op::Aesimc, d: d2, n: n2, .. },
                ..,
            ] if d2 == d && n2 == d => self.aes_round(AESDEC, d, n, m),
            // A bit spread over a register, and the register as a mask.
            [
                Inst::Extract { signed: true, w: w1, d, s, lsb, width: 1 },
                Inst::Start { .. },
                Inst::Alu { op: AluOp::And, w, d: d2, a, b },
                ..,
            ] if d2 == d
                && d != Reg::NONE
                && (w1 == Width::X || w == Width::W)
                && (a == d.into()) != (b == d.into()) =>
            {
                // It is the result of the second instruction that somebody may look at.
                self.index += 2;
                self.locations.at += 2;
                self.mask_by_bit(w, d, (s, lsb), if a == d.into() { b } else { a });
                Some(3)
            }
            // Both halves of the same rounds, with a copy of the state's first half.
            [
                Inst::V2 { op: V2Op::Mov, q: true, d: copy, n: moved, .. },
                Inst::Start { .. },
                Inst::V3 { op: V3Op::Sha256h, d: abcd, n: efgh, m: words, .. },
                Inst::Start { .. },
                Inst::V3 { op: V3Op::Sha256h2, d: d2, n: n2, m: m2, .. },
                ..,
            ] if self.options.sha
                && moved == abcd
                && (d2, n2, m2) == (efgh, copy, words)
                && ![abcd, efgh, words].contains(&copy)
                && ![efgh, words].contains(&abcd)
                && efgh != words =>
            {
                self.sha256_rounds_of_both(copy, abcd, efgh, words);
                Some(5)
            }
            _ => None,
        }
    }

    /// AESE and AESMC, or AESD and AESIMC: the host's round, which adds its key behind instead of before.
    fn aes_round(&mut self, round: Opc, d: VReg, n: VReg, m: VReg) -> Option<usize> {
        let (rn, rm) = (self.vector_value(n), self.vector_value(m));
        let zero = self.zero_vector();
        self.asm.vex(PXOR, X0.0, rn.0, rm);
        self.asm.vex(round, X0.0, X0.0, zero);
        self.vector_result(d, X0, true);
        Some(3)
    }

    fn sha256_rounds_of_both(&mut self, copy: VReg, abcd: VReg, efgh: VReg, words: VReg) {
        let (x, y, w) = (self.vector_value(abcd), self.vector_value(efgh), self.vector_value(words));
        self.vector_copy(copy, x);
        if !self.take_sha([abcd, efgh]) {
            self.sha_form(X1, false, [y, x]);
            self.sha_form(X2, true, [y, x]);
        }
        self.sha256_four_rounds(w);
        self.sha256_half(PUNPCKHQDQ);
        self.vector_result(abcd, X0, true);
        self.sha256_half(PUNPCKLQDQ);
        self.vector_result(efgh, X0, true);
        self.keep_sha([abcd, efgh]);
    }

    /// `d` = the state as the host wants it: {F, E, B, A}, or {H, G, D, C} for `lower`.
    pub(super) fn sha_form<T: Into<Rm>>(&mut self, d: Xmm, lower: bool, [efgh, abcd]: [T; 2]) {
        let unpack = if lower { PUNPCKLQDQ } else { PUNPCKHQDQ };
        self.asm.vex(MOVDQA, d.0, 0, efgh);
        self.asm.vex(unpack, d.0, d.0, abcd);
        self.asm.vex_imm(PSHUFD, d.0, 0, d, SWAP_PAIRS);
    }

    /// Four rounds: X1 and X2 have the state as the host wants it, afterwards.
    fn sha256_rounds(&mut self, abcd: Xmm, efgh: Xmm, w: Xmm) {
        self.sha_form(X1, false, [efgh, abcd]);
        self.sha_form(X2, true, [efgh, abcd]);
        self.sha256_four_rounds(w);
    }

    fn sha256_four_rounds(&mut self, w: Xmm) {
        self.name_xmm0();
        self.asm.vex(MOVDQA, X0.0, 0, w);
        self.asm.sse(SHA256RNDS2, X1.0, X2);
        self.asm.vex_imm(PSHUFD, X0.0, 0, w, UPPER);
        self.asm.sse(SHA256RNDS2, X2.0, X1);
    }

    /// X0 = half of the state that [`Generator::sha256_rounds`] left.
    fn sha256_half(&mut self, unpack: Opc) {
        self.asm.vex(unpack, X0.0, X2.0, X1);
        self.asm.vex_imm(PSHUFD, X0.0, 0, X0, SWAP_PAIRS);
    }

    /// Cryptographic operations with two sources; false if `inst` is none or the host cannot do it.
    pub(super) fn v3_crypto(&mut self, inst: &Inst) -> bool {
        let Inst::V3 { op, d, n, m, .. } = *inst else { return false };
        let needs_host = !matches!(op, V3Op::Sha1su0);
        if needs_host && !self.options.sha {
            return false;
        }
        match op {
            V3Op::Sha256h => {
                let (x, y, w) = (self.vector_value(d), self.vector_value(n), self.vector_value(m));
                self.sha256_rounds(x, y, w);
                self.sha256_half(PUNPCKHQDQ);
            }
            V3Op::Sha256h2 => {
                let (x, y, w) = (self.vector_value(n), self.vector_value(d), self.vector_value(m));
                self.sha256_rounds(x, y, w);
                self.sha256_half(PUNPCKLQDQ);
            }
            V3Op::Sha256su1 => {
                let (rd, rn, rm) = (self.vector_value(d), self.vector_value(n), self.vector_value(m));
                self.asm.vex_imm(PALIGNR, X0.0, rm.0, rn, 4);
                self.asm.vex(PADD[2], X0.0, X0.0, rd);
                self.asm.sse(SHA256MSG2, X0.0, rm);
            }
            V3Op::Sha1su0 => {
                let (rd, rn, rm) = (self.vector_value(d), self.vector_value(n), self.vector_value(m));
                self.asm.vex_imm(PALIGNR, X0.0, rn.0, rd, 8);
                self.asm.vex(PXOR, X0.0, X0.0, rd);
                self.asm.vex(PXOR, X0.0, X0.0, rm);
            }
            V3Op::Sha1c => self.sha1_rounds(0, 0x5a82_7999, (d, n, m)),
            V3Op::Sha1p => self.sha1_rounds(1, 0x6ed9_eba1, (d, n, m)),
            V3Op::Sha1m => self.sha1_rounds(2, 0x8f1b_bcdc, (d, n, m)),
            _ => return false,
        }
        self.vector_result(d, X0, true);
        true
    }

    /// X0 = four rounds of SHA1. The host's state has A on top, and it adds the function's constant, which the
    /// guest's words already contain.
    fn sha1_rounds(&mut self, function: u8, constant: u32, (d, n, m): (VReg, VReg, VReg)) {
        let (rd, rn, rm) = (self.vector_value(d), self.vector_value(n), self.vector_value(m));
        self.asm.mov_imm(RAX, i64::from(constant));
        self.asm.vex(MOVD, X2.0, 0, RAX);
        self.asm.vex(PBROADCASTD, X2.0, 0, X2);
        self.asm.vex_imm(INSERTPS, X1.0, rn.0, rn, LOWEST_ONLY);
        self.asm.vex(PADD[2], X1.0, X1.0, rm);
        self.asm.vex(PSUB[2], X1.0, X1.0, X2);
        self.asm.vex_imm(PSHUFD, X1.0, 0, X1, REVERSE);
        self.asm.vex_imm(PSHUFD, X0.0, 0, rd, REVERSE);
        self.asm.sse_imm(SHA1RNDS4, X0.0, X1, function);
        self.asm.vex_imm(PSHUFD, X0.0, 0, X0, REVERSE);
    }

    /// `d` = words of `n` rotated left. Clobbers X3.
    fn rotate_words(&mut self, d: Xmm, n: Xmm, by: u8) {
        self.vshift_imm(SRL, 2, X3, n, 32 - by);
        self.vshift_imm(SLL, 2, d, n, by);
        self.asm.vex(POR, d.0, d.0, X3);
    }

    /// Cryptographic operations with one source; false if `inst` is none or the host cannot do it.
    pub(super) fn v2_crypto(&mut self, inst: &Inst) -> bool {
        let Inst::V2 { op, d, n, .. } = *inst else { return false };
        match op {
            V2Op::Sha256su0 if self.options.sha => {
                let (rd, rn) = (self.vector_value(d), self.vector_value(n));
                self.asm.vex(MOVDQA, X0.0, 0, rd);
                self.asm.sse(SHA256MSG1, X0.0, rn);
            }
            V2Op::Sha1h => {
                let rn = self.vector_value(n);
                self.asm.vex_imm(INSERTPS, X0.0, rn.0, rn, LOWEST_ONLY);
                self.rotate_words(X0, X0, 30);
            }
            V2Op::Sha1su1 => {
                let (rd, rn) = (self.vector_value(d), self.vector_value(n));
                self.psrldq(X0, rn, 4);
                self.asm.vex(PXOR, X0.0, X0.0, rd);
                // The last word needs the first result, before it is known: its share of that again.
                self.pslldq(X1, X0, 12);
                self.rotate_words(X0, X0, 1);
                self.rotate_words(X1, X1, 2);
                self.asm.vex(PXOR, X0.0, X0.0, X1);
            }
            _ => return false,
        }
        self.vector_result(d, X0, true);
        true
    }
}
