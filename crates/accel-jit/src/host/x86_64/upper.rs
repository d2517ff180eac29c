//! The upper half of the vector registers, which hosts with AVX-512 have (xmm16 to xmm31).
//!
//! EVEX reaches them, and has a form of most VEX instructions. What it has no form of works on two of the lower half that
//! are kept for that.

use super::asm::{Asm, Front, NO_NAMES, Opc, Rm, VectorNames, Xmm, is_upper, opc};
use super::evex::Evex;

/// Registers of the lower half that nothing else is in: for the first source and the destination, and for the second.
const LOWERED: [u8; 2] = [14, 15];

/// Vector registers that names may mean on hosts with AVX-512.
pub const UPPER_NAMES: usize = 32 - LOWERED.len();

/// Names of all registers that are free for use, and behind them those that are not.
pub const LOWER_FIRST: VectorNames = {
    let mut names = NO_NAMES;
    let mut i = LOWERED[0] as usize;
    while i < Xmm::NAMES {
        names[i] = ((i - LOWERED[0] as usize + LOWERED.len()) % 18 + LOWERED[0] as usize) as u8;
        i += 1;
    }
    names
};

/// The same, beginning at the other end.
pub const UPPER_FIRST: VectorNames = {
    let mut names = LOWER_FIRST;
    let mut i = 0;
    while i < UPPER_NAMES {
        names[i] = LOWER_FIRST[UPPER_NAMES - 1 - i];
        i += 1;
    }
    names
};

const MOVDQA: Opc = opc(1, 1, 0x6f);

/// EVEX.W of the EVEX form of a VEX instruction; None if there is no such form, or another instruction in its place.
const fn evex_w(o: Opc) -> Option<bool> {
    let wide = match (o.map, o.pp, o.op) {
        // What W means is the same in both.
        (1, 1, 0x6e | 0x7e) | (1, 2 | 3, 0x2a | 0x2c | 0x2d) => o.w,
        (2, 1, 0x45..=0x47 | 0x96..=0x9f | 0xa6..=0xaf | 0xb6..=0xbf) | (3, 1, 0x16 | 0x22) => o.w,
        // Moves, arithmetic and conversions of singles, and of doubles.
        (1, 0, 0x10..=0x17 | 0x28 | 0x29 | 0x2e | 0x2f | 0x51 | 0x54..=0x5f | 0xc6) => false,
        (1, 1, 0x5b) => false,
        (1, 1, 0x10..=0x17 | 0x28 | 0x29 | 0x2e | 0x2f | 0x51 | 0x54..=0x5f | 0xc6 | 0xe6) => true,
        (1, 2, 0x10 | 0x11 | 0x12 | 0x16 | 0x51 | 0x58..=0x5f | 0xe6) => false,
        (1, 3, 0x10 | 0x11 | 0x12 | 0x51 | 0x58..=0x5a | 0x5c..=0x5f | 0xe6) => true,
        (1, 2, 0x6f | 0x7f | 0x70) | (1, 3, 0x70) => false,
        (1, 2, 0x7e) => true,
        // Integers. Where elements are bytes or halfwords, W is ignored.
        (1, 1, 0x6c | 0x6d | 0x73 | 0xd3 | 0xd4 | 0xd6 | 0xf3 | 0xf4 | 0xfb) => true,
        (1, 1, 0x60..=0x63 | 0x67..=0x6b | 0x6f..=0x72 | 0x7f | 0xc4 | 0xc5) => false,
        (1, 1, 0xd1 | 0xd2 | 0xd5 | 0xd8..=0xe5 | 0xe8..=0xef | 0xf1 | 0xf2 | 0xf5 | 0xf6) => false,
        (1, 1, 0xf8..=0xfa | 0xfc..=0xfe) => false,
        (2, 1, 0x28 | 0x59) => true,
        (2, 1, 0x00 | 0x04 | 0x0b | 0x13 | 0x18 | 0x1c..=0x1e | 0x20..=0x25 | 0x2b | 0x30..=0x35) => false,
        (2, 1, 0x38..=0x40 | 0x58 | 0x78 | 0x79 | 0xcf | 0xdc..=0xdf) => false,
        (3, 1, 0x09 | 0x0b | 0xce | 0xcf) => true,
        (3, 1, 0x08 | 0x0a | 0x0f | 0x14 | 0x15 | 0x1d | 0x20 | 0x21 | 0x44) => false,
        _ => return None,
    };
    Some(wide)
}

impl Asm {
    /// VEX on 256-bit registers by names; EVEX where one is of the upper half, if the instruction has such a form.
    pub fn ymm(&mut self, o: Opc, reg: Xmm, vvvv: u8, rm: Xmm) {
        let (d, a, b) = (self.hardware(reg.0), self.hardware(vvvv), self.hardware(rm.0));
        if is_upper(d) || is_upper(a) || is_upper(b) {
            return self.upper_ymm(o, [d, a, b]);
        }
        self.vex_l(o, d, a, Rm::R(b), 1);
    }

    /// The same with an immediate byte; registers of the lower half only.
    pub fn ymm_imm(&mut self, o: Opc, reg: Xmm, vvvv: u8, rm: Xmm, imm: u8) {
        self.ymm(o, reg, vvvv, rm);
        self.b(imm);
    }

    /// Shift of 256 bits by a constant: `ext` tells which.
    pub fn ymm_shift(&mut self, o: Opc, ext: u8, d: Xmm, s: Xmm, imm: u8) {
        let (d, s) = (self.hardware(d.0), self.hardware(s.0));
        debug_assert!(!is_upper(d) && !is_upper(s), "VEX does not reach it");
        self.vex_l(o, ext, d, Rm::R(s), 1);
        self.b(imm);
    }

    /// A VEX instruction on 128 bits, by hardware numbers of which some are of the upper half.
    #[cold]
    pub(super) fn upper(&mut self, o: Opc, [reg, vvvv]: [u8; 2], rm: Rm, imm: Option<u8>) {
        if evex_w(o).is_some() {
            self.evex_any(o, [reg, vvvv], rm);
            return imm.into_iter().for_each(|imm| self.b(imm));
        }
        let [first, second] = LOWERED;
        // PTEST reads what others write; what has one source has it in the second place.
        let reads = o.map == 2 && o.op == 0x17;
        if reads && reg >= 16 {
            self.evex_any(MOVDQA, [first, 0], Rm::R(reg));
        }
        let vvvv = if vvvv >= 16 {
            self.evex_any(MOVDQA, [first, 0], Rm::R(vvvv));
            first
        } else {
            vvvv
        };
        let rm = self.lowered(rm, second);
        self.vex_l(o, if reg >= 16 { first } else { reg }, vvvv, rm, 0);
        imm.into_iter().for_each(|imm| self.b(imm));
        if !reads && reg >= 16 {
            self.evex_any(MOVDQA, [reg, 0], Rm::R(first));
        }
    }

    /// An instruction on 256 bits, by hardware numbers of which some are of the upper half.
    pub(super) fn upper_ymm(&mut self, o: Opc, [reg, vvvv, rm]: [u8; 3]) {
        let w = evex_w(o);
        debug_assert!(w.is_some(), "VEX only: {o:?}");
        let wide = Evex { length: 1, ..Evex::default() };
        self.evex_with(Opc { w: w.unwrap_or(o.w), ..o }, reg, vvvv, Xmm(rm), wide);
    }

    /// A legacy instruction that reads its destination, the same way.
    #[cold]
    pub(super) fn upper_legacy(&mut self, o: Opc, reg: u8, rm: Rm, imm: Option<u8>) {
        let [first, second] = LOWERED;
        let rm = self.lowered(rm, second);
        if reg >= 16 {
            self.evex_any(MOVDQA, [first, 0], Rm::R(reg));
        }
        self.legacy(o, if reg >= 16 { first } else { reg }, rm, false);
        imm.into_iter().for_each(|imm| self.b(imm));
        if reg >= 16 {
            self.evex_any(MOVDQA, [reg, 0], Rm::R(first));
        }
    }

    fn lowered(&mut self, rm: Rm, to: u8) -> Rm {
        let Rm::R(register @ 16..) = rm else { return rm };
        self.evex_any(MOVDQA, [to, 0], Rm::R(register));
        Rm::R(to)
    }

    /// The EVEX form of a VEX instruction (Intel SDM, volume 2, section 2.7). A displacement that is not 0 takes four
    /// bytes: a short one would be multiplied.
    fn evex_any(&mut self, o: Opc, [reg, vvvv]: [u8; 2], rm: Rm) {
        let (o, reg) = self.emitted(o, reg);
        self.mark(o);
        let w = evex_w(o).unwrap_or(o.w);
        let bit = |register: u8, from: u8, to: u8| (register >> from & 1) << to;
        let rex = Self::rex_bits(reg & 15, rm);
        let high = match rm {
            Rm::R(r) => bit(r, 3, 5) | bit(r, 4, 6),
            Rm::M(_) => (rex & 3) << 5,
        };
        let extension = !(bit(reg, 3, 7) | high | bit(reg, 4, 4)) & 0xf0;
        let second = u8::from(w) << 7 | (!vvvv & 15) << 3 | 4 | o.pp;
        let third = (!vvvv >> 4 & 1) << 3;
        let bytes = [0x62, extension | o.map, second, third, o.op, 0, 0, 0];
        self.put_far(Front { bytes: u64::from_le_bytes(bytes), bits: 40 }, reg, rm, true);
    }
}

#[cfg(test)]
mod tests {
    use super::super::asm::{Gpr, M, RAX, RBP, RCX, opcw};
    use super::*;

    fn bytes(emit: impl Fn(&mut Asm)) -> String {
        let mut a = Asm::default();
        a.reset(0);
        emit(&mut a);
        a.code().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Encodings are those of the GNU assembler.
    #[test]
    fn instructions_that_have_an_evex_form_take_it() {
        let x = Xmm;
        let at = |base, index, disp| M { base, index, disp };
        type Emit<'a> = &'a dyn Fn(&mut Asm);
        let cases: [(&str, Emit<'_>); 10] = [
            ("62816d00efcf", &|a| a.vex(opc(1, 1, 0xef), 17, 18, x(31))),
            ("62f1dd00d4eb", &|a| a.vex(opc(1, 1, 0xd4), 5, 20, x(3))),
            ("62223508dcc0", &|a| a.vex(opc(1, 2, 0xdc), 24, 9, x(16))),
            ("62e16c08548510000000", &|a| a.vex(opc(0, 1, 0x54), 16, 2, at(RBP, None, 0x10))),
            ("62417d087fac0f08000000", &|a| {
                a.vex(opc(1, 1, 0x7f), 29, 0, at(Gpr(15), Some((RCX, 0)), 8));
            }),
            ("62c1fd086ee9", &|a| a.vex(opcw(1, 1, 0x6e), 21, 0, Gpr(9))),
            // W is ignored; the assembler leaves it 0.
            ("62f18d0073df08", &|a| a.vex_imm(opc(1, 1, 0x73), 3, 30, x(7), 8)),
            ("62f29d00b9ce", &|a| a.vex(opcw(1, 2, 0xb9), 1, 28, x(6))),
            ("6291ff082cc2", &|a| a.vex(opcw(3, 1, 0x2c), RAX.0, 0, x(26))),
            ("62c17c082ed8", &|a| a.vex(opc(0, 1, 0x2e), 19, 0, x(8))),
        ];
        for (expected, emit) in cases {
            assert_eq!(bytes(emit), expected);
        }
    }

    #[test]
    fn others_work_on_two_registers_of_the_lower_half() {
        let x = Xmm;
        let compare = bytes(|a| a.vex(opc(1, 1, 0x74), 17, 20, x(3)));
        assert_eq!(compare, "62317d086ff4".to_owned() + "c50974f3" + "62c17d086fce");
        let legacy = bytes(|a| a.sse(opc(0, 2, 0xcc), 22, x(31)));
        assert_eq!(legacy, "62117d086fff".to_owned() + "62317d086ff6" + "450f38ccf7" + "62c17d086ff6");
        let test = bytes(|a| a.vex(opc(1, 2, 0x17), 25, 0, x(2)));
        assert_eq!(test, "62117d086ff1".to_owned() + "c4627917f2");
        let lower = bytes(|a| a.vex(opc(1, 1, 0xef), 15, 14, x(13)));
        assert_eq!(lower, "c44109effd", "VEX is shorter");
    }

    #[test]
    fn names_are_all_registers_and_those_that_are_kept_come_last() {
        for names in [LOWER_FIRST, UPPER_FIRST] {
            let mut sorted = names;
            sorted.sort_unstable();
            assert_eq!(sorted, NO_NAMES);
            assert_eq!(names[UPPER_NAMES..], LOWERED);
        }
        assert_eq!((LOWER_FIRST[13], LOWER_FIRST[14], UPPER_FIRST[0]), (13, 16, 31));
    }
}
