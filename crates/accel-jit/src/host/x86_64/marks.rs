//! Marks before floating-point instructions that may trap.
//!
//! Where the guest flushes denormal numbers to zero, exceptions of the host's are unmasked as long as FPSR lacks their flags.
//! What the handler is to do stands before the instruction, in the displacement of a NOP, which nothing else begins with: so
//! it is found without a table, and goes when the code goes.

use super::asm::{Asm, Fixup, Opc};

/// NOP with a 32-bit displacement off rax.
const NOP: [u8; 3] = [0x0f, 0x1f, 0x80];
/// Bytes of a mark.
pub const LENGTH: usize = NOP.len() + 4;

/// What to do about an instruction that has trapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Its exception is all that it raises: note that, and execute it again.
    Again,
    /// Go on so many bytes behind where it begins.
    Elsewhere(i32),
}

impl Mark {
    /// The mark whose bytes these are; None if they are none.
    pub fn read(bytes: [u8; LENGTH]) -> Option<Self> {
        let [a, b, c, distance @ ..] = bytes;
        let distance = i32::from_le_bytes(distance);
        ([a, b, c] == NOP).then_some(if distance == 0 { Self::Again } else { Self::Elsewhere(distance) })
    }
}

impl Asm {
    /// Marks the instruction with this opcode, which follows, if it may raise a floating-point exception.
    #[inline]
    pub(super) fn mark(&mut self, o: Opc) {
        if self.marks && may_raise(o) {
            NOP.into_iter().for_each(|byte| self.b(byte));
            self.word(0);
            self.marked.push(Fixup(self.len() - 4));
        }
    }
}

/// True for opcodes of VEX and EVEX instructions with floating-point exceptions other than for invalid operations.
fn may_raise(o: Opc) -> bool {
    match (o.map, o.pp) {
        (1, pp) => match o.op {
            0x2a | 0x2c | 0x2d => pp >= 2,
            0x2e | 0x2f => pp < 2,
            0xe6 => pp > 0,
            0x51 | 0x58..=0x5f | 0x78..=0x7b | 0xc2 => true,
            _ => false,
        },
        (2, 1) => matches!(o.op, 0x96..=0x9f | 0xa6..=0xaf | 0xb6..=0xbf),
        (3, 1) => matches!(o.op, 0x08..=0x0b | 0x1d),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::asm::{Xmm, opc};
    use super::*;

    #[test]
    fn marks_are_found_before_instructions_and_say_where_to_go() {
        let mut a = Asm::default();
        a.reset(0);
        a.marks = true;
        a.vex(opc(1, 1, 0xef), 1, 2, Xmm(3));
        let integer = a.len();
        a.vex(opc(3, 1, 0x58), 1, 2, Xmm(20));
        let code = |a: &Asm| a.code()[integer..integer + LENGTH].try_into().expect("so many bytes");
        assert_eq!(Mark::read(code(&a)), Some(Mark::Again));
        a.int3();
        let [at] = a.marked[..] else { panic!("one instruction may trap") };
        a.bind(at);
        assert_eq!(Mark::read(code(&a)), Some(Mark::Elsewhere((a.len() - integer - LENGTH) as i32)));
        assert_eq!(Mark::read([0x90; LENGTH]), None);
    }
}
