//! EVEX encodings (Intel SDM, volume 2, section 2.7): registers only, for hosts with AVX-512.

use super::asm::{Asm, Front, Opc, Rm, Xmm};

/// What an EVEX instruction says besides its operands.
#[derive(Clone, Copy, Default, Debug)]
pub struct Evex {
    /// Vector length: 0 is 128 bits, 1 is 256.
    pub length: u8,
    /// Mask register; 0 for none.
    pub mask: u8,
    /// Elements that the mask leaves out become zero.
    pub zeroing: bool,
    /// All of 512 bits, without exceptions, rounded as `length` says: 0 to the nearest, 1 down, 2 up, 3 towards zero.
    pub rounding: bool,
}

impl Asm {
    /// `op reg, vvvv, rm` on 128-bit registers.
    pub fn evex(&mut self, o: Opc, reg: u8, vvvv: u8, rm: Xmm) {
        self.evex_with(o, reg, vvvv, rm, Evex::default());
    }

    /// The same with an immediate byte.
    pub fn evex_imm(&mut self, o: Opc, reg: u8, vvvv: u8, rm: Xmm, imm: u8) {
        self.evex(o, reg, vvvv, rm);
        self.b(imm);
    }

    /// `op reg, vvvv, rm` with a vector length and a mask.
    pub fn evex_with(&mut self, o: Opc, reg: u8, vvvv: u8, rm: Xmm, e: Evex) {
        let (reg, vvvv, rm) = (self.hardware(reg), self.hardware(vvvv), self.hardware(rm.0));
        if !e.rounding {
            self.mark(o);
        }
        let bit = |register: u8, from: u8, to: u8| (register >> from & 1) << to;
        let extension = !(bit(reg, 3, 7) | bit(rm, 4, 6) | bit(rm, 3, 5) | bit(reg, 4, 4)) & 0xf0;
        let second = u8::from(o.w) << 7 | (!vvvv & 15) << 3 | 4 | o.pp;
        let third = u8::from(e.zeroing) << 7
            | e.length << 5
            | u8::from(e.rounding) << 4
            | (!vvvv >> 4 & 1) << 3
            | e.mask;
        let bytes = [0x62, extension | o.map, second, third, o.op, 0, 0, 0];
        self.put(Front { bytes: u64::from_le_bytes(bytes), bits: 40 }, reg, Rm::R(rm));
    }

    /// The same with an immediate byte.
    pub fn evex_with_imm(&mut self, o: Opc, reg: u8, vvvv: u8, rm: Xmm, (e, imm): (Evex, u8)) {
        self.evex_with(o, reg, vvvv, rm, e);
        self.b(imm);
    }
}
