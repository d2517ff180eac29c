//! NZCV: where it is, and how what is asked of it is found out.

use super::mem::NOT_CARRY;
use super::*;
use crate::ir::visit::Change;
use crate::runtime::state::{JitState, nzcv_from_arm};

/// How NZCV is kept at this point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Nzcv {
    /// In the slot.
    Slot,
    /// In EFLAGS, with this carry; also in the slot if `saved`.
    Host { carry: Carry, saved: bool },
    /// In EFLAGS as the host compares floating-point numbers, the second with the first if `swapped`; also in the slot
    /// if `saved`.
    Float { swapped: bool, saved: bool },
    /// In the slot if `saved`, otherwise lost; whether this condition holds is 1 or 0 in this byte, and ZF is the opposite
    /// if `fresh`.
    One { cond: Cond, holds: Rm, saved: bool, fresh: bool },
}

/// The condition that C is set.
pub(super) const CARRY_SET: Cond = Cond(2);

/// What is wanted of NZCV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Nothing,
    /// Whether this condition holds, or its opposite.
    One(Cond),
    All,
}

impl Wanted {
    /// Before somebody who asks for `cond`, and for no more.
    pub(super) fn and(self, cond: Cond) -> Self {
        match self {
            Self::Nothing if !cond.always() => Self::One(cond),
            Self::One(other) if cond == other || cond == other.invert() => self,
            _ => Self::All,
        }
    }
}

/// How CF relates to the guest's C.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carry {
    /// CF is NOT C (after a subtraction).
    Inverted,
    /// CF is C (after an addition or a logical operation).
    Same,
}

impl Generator {
    /// True if NZCV as it was before the current instruction is wanted by it or later.
    pub(super) fn nzcv_needed(&self) -> bool {
        self.nzcv_wanted[self.index] != Wanted::Nothing
    }

    /// Stores NZCV to its slot if it is only in EFLAGS and somebody may want it. Clobbers rax, keeps EFLAGS.
    pub(super) fn save_nzcv(&mut self) {
        if let Nzcv::Host { carry, saved: false } = self.nzcv
            && self.nzcv_needed()
        {
            if carry == Carry::Same {
                self.asm.cmc();
            }
            self.asm.lahf();
            self.asm.setcc(Cc::O, RAX);
            self.asm.store16(self.nzcv_slot(), RAX);
            self.nzcv = Nzcv::Host { carry: Carry::Inverted, saved: true };
        }
        if let Nzcv::Float { swapped, saved: false } = self.nzcv
            && self.nzcv_needed()
        {
            self.compared_slot(swapped);
            self.asm.store16(self.nzcv_slot(), RAX);
            self.nzcv = Nzcv::Float { swapped, saved: true };
        }
    }

    /// To be called before EFLAGS is clobbered by an instruction that does not define NZCV.
    pub(super) fn clobber_flags(&mut self) {
        match (self.nzcv_wanted[self.index], self.next_condition[self.index]) {
            (Wanted::One(cond), _) if self.save_condition(cond) => return,
            (Wanted::One(cond), _) | (Wanted::All, Some(cond)) => {
                self.save_nzcv();
                self.keep_condition(cond);
            }
            _ => self.save_nzcv(),
        }
        self.flags_lost();
    }

    /// EFLAGS is clobbered, and what is wanted of NZCV is elsewhere.
    pub(super) fn flags_lost(&mut self) {
        match &mut self.nzcv {
            Nzcv::One { fresh, .. } => *fresh = false,
            other => *other = Nzcv::Slot,
        }
    }

    /// Saves nothing of NZCV, which is only in EFLAGS, but whether `cond` holds. False if that cannot be done, or need not.
    /// Keeps EFLAGS, but for the carry.
    pub(super) fn save_condition(&mut self, cond: Cond) -> bool {
        match self.nzcv {
            Nzcv::Host { saved: false, .. } => {}
            Nzcv::Float { swapped, saved: false } if float_condition(cond, swapped).is_some() => {}
            _ => return false,
        }
        let cc = self.host_condition(cond);
        let holds = match self.locations.take_condition(false) {
            Some(g) => {
                self.asm.setcc(cc, g);
                g.into()
            }
            None => {
                let slot = field(std::mem::offset_of!(JitState, condition));
                self.asm.setcc_mem(cc, slot);
                slot.into()
            }
        };
        self.nzcv = Nzcv::One { cond, holds, saved: false, fresh: false };
        true
    }

    /// Keeps whether `cond` holds for whoever asks for that next, NZCV being saved, if there is a register.
    fn keep_condition(&mut self, cond: Cond) {
        let known = match self.nzcv {
            Nzcv::Host { saved, .. } => saved,
            Nzcv::Float { swapped, saved } => saved && float_condition(cond, swapped).is_some(),
            _ => false,
        };
        if known && let Some(g) = self.locations.take_condition(true) {
            let cc = self.host_condition(cond);
            self.asm.setcc(cc, g);
            self.nzcv = Nzcv::One { cond, holds: g.into(), saved: true, fresh: false };
        }
    }

    /// Lets go of a condition's register if nobody asks for it any more.
    pub(super) fn release_condition(&mut self) {
        if let Nzcv::One { cond, saved, .. } = self.nzcv {
            let asked = self.next_condition[self.index].is_some_and(|c| c == cond || c == cond.invert());
            let changes = self.effects[self.index].change == Change::Everything;
            let wanted = self.nzcv_wanted[self.index + 1] != Wanted::Nothing;
            if wanted && (!saved || asked && !changes) {
                return;
            }
            self.nzcv = Nzcv::Slot;
        }
        self.locations.drop_condition();
    }

    pub(super) fn nzcv_slot(&self) -> M {
        field(std::mem::offset_of!(JitState, nzcv))
    }

    /// The host condition for `cond`; brings NZCV into EFLAGS if it is not there. May clobber rax.
    pub(super) fn host_condition(&mut self, cond: Cond) -> Cc {
        if let Nzcv::Float { swapped, .. } = self.nzcv
            && let Some(cc) = float_condition(cond, swapped)
        {
            return cc;
        }
        if let Nzcv::One { cond: known, holds, saved, fresh } = self.nzcv {
            if cond == known || cond == known.invert() {
                if !fresh {
                    self.asm.op8_imm(Op2::Cmp, holds, 0);
                    self.nzcv = Nzcv::One { cond: known, holds, saved, fresh: true };
                }
                return if cond == known { Cc::NE } else { Cc::E };
            }
            debug_assert!(saved, "a condition that was not kept");
            self.nzcv = Nzcv::Slot;
        }
        if self.nzcv == Nzcv::Slot
            && let Some(cc) = self.saved_condition(cond)
        {
            return cc;
        }
        self.flags_to_host();
        let Nzcv::Host { mut carry, saved } = self.nzcv else { unreachable!("flags were just brought in") };
        if matches!(cond.0, 8 | 9) && carry == Carry::Same {
            self.asm.cmc();
            carry = Carry::Inverted;
            self.nzcv = Nzcv::Host { carry, saved };
        }
        let inverted = carry == Carry::Inverted;
        match cond.0 {
            0 => Cc::E,
            1 => Cc::NE,
            2 if inverted => Cc::AE,
            2 => Cc::B,
            3 if inverted => Cc::B,
            3 => Cc::AE,
            4 => Cc::S,
            5 => Cc::NS,
            6 => Cc::O,
            7 => Cc::NO,
            8 => Cc::A,
            9 => Cc::BE,
            10 => Cc::GE,
            11 => Cc::L,
            12 => Cc::G,
            _ => Cc::LE,
        }
    }

    /// The host condition for `cond`, NZCV being in its slot, if it is a matter of one bit there, or of two. Keeps rax.
    fn saved_condition(&mut self, cond: Cond) -> Option<Cc> {
        const CLEAR: Cc = Cc::E;
        let (byte, mask, holds) = match cond.0 >> 1 {
            0 => (1, 0x40, CLEAR.invert()),
            1 => (1, 1, CLEAR),
            2 => (1, 0x80, CLEAR.invert()),
            3 => (0, 1, CLEAR.invert()),
            // The higher one: C and not Z.
            4 => (1, 0x41, CLEAR),
            _ => return None,
        };
        let slot = self.nzcv_slot();
        self.asm.test8_imm(M { disp: slot.disp + byte, ..slot }, mask);
        Some(if cond.0 & 1 == 0 { holds } else { holds.invert() })
    }

    /// Loads NZCV from its slot into EFLAGS if it is not there. Clobbers rax then.
    pub(super) fn flags_to_host(&mut self) {
        debug_assert!(!matches!(self.nzcv, Nzcv::One { .. }), "more is asked than was kept");
        if let Nzcv::Float { swapped, saved } = self.nzcv {
            self.compared_slot(swapped);
            self.asm.op8_imm(Op2::Add, RAX, 0x7f);
            self.asm.sahf();
            self.nzcv = Nzcv::Host { carry: Carry::Inverted, saved };
        }
        if self.nzcv == Nzcv::Slot {
            let slot = self.nzcv_slot();
            self.asm.movzx16(RAX, slot);
            self.asm.op8_imm(Op2::Add, RAX, 0x7f);
            self.asm.sahf();
            self.nzcv = Nzcv::Host { carry: Carry::Inverted, saved: true };
        }
    }

    /// Makes CF what `want` says; only moves may come between that and the addition or subtraction with carry.
    pub(super) fn set_carry(&mut self, want: Carry) {
        let carry = match self.nzcv {
            Nzcv::Host { carry, .. } => carry,
            Nzcv::One { cond, holds, .. } => {
                debug_assert!(cond.0 >> 1 == CARRY_SET.0 >> 1, "another condition");
                if (cond == CARRY_SET) == (want == Carry::Same) {
                    self.asm.bt_imm(false, holds, 0);
                } else {
                    self.asm.op8_imm(Op2::Cmp, holds, 1);
                }
                want
            }
            _ => {
                let slot = self.nzcv_slot();
                self.asm.bt_imm(false, slot, NOT_CARRY.trailing_zeros() as u8);
                Carry::Inverted
            }
        };
        if carry != want {
            self.asm.cmc();
        }
    }

    /// Before an addition or subtraction with carry takes its operands: [`Generator::set_carry`] is to find the carry.
    pub(super) fn find_carry(&mut self) {
        match self.nzcv {
            Nzcv::One { cond, .. } if cond.0 >> 1 != CARRY_SET.0 >> 1 => self.nzcv = Nzcv::Slot,
            Nzcv::Float { .. } => self.flags_to_host(),
            _ => {}
        }
    }

    pub(super) fn cond_compare(&mut self, add: bool, w: Width, operands: (Opnd, Opnd), cond: Cond, nzcv: u8) {
        if !cond.always()
            && let Wanted::One(later) = self.nzcv_wanted[self.index + 1]
            && let Some(both) = self.first_of_two(cond, later.holds_for(nzcv))
        {
            return self.second_of_two(add, w, operands, later, both);
        }
        let s = self.scratch();
        let otherwise = if cond.always() {
            None
        } else {
            let cc = self.host_condition(cond);
            Some(self.asm.jcc(cc.invert()))
        };
        self.compare_either(add, w, operands, s);
        if let Some(otherwise) = otherwise {
            let done = self.asm.jmp();
            self.asm.bind(otherwise);
            let slot = nzcv_from_arm(u32::from(nzcv) << 28);
            self.asm.mov_imm(RAX, i64::from(slot));
            self.asm.op8_imm(Op2::Add, RAX, 0x7f);
            self.asm.sahf();
            self.asm.bind(done);
        }
        self.nzcv = Nzcv::Host { carry: Carry::Inverted, saved: false };
    }

    /// CMP or CMN, with the carry inverted.
    fn compare_either(&mut self, add: bool, w: Width, (a, b): (Opnd, Opnd), s: Gpr) {
        let b = self.source(w, b, s);
        if add {
            self.move_into(w, RAX, a);
            self.op2(Op2::Add, w, RAX, b);
            self.asm.cmc();
        } else {
            self.compare(w, a, b);
        }
    }

    /// Where it is all the same whether a conditional comparison is made: a register that is 1 if `cond` makes it matter, and
    /// what follows from it otherwise, if there is one.
    fn first_of_two(&mut self, cond: Cond, otherwise: bool) -> Option<(Gpr, bool)> {
        let mut cc = self.host_condition(cond);
        let g = match self.nzcv {
            Nzcv::One { holds: Rm::R(g), .. } => Gpr(g),
            _ => self.locations.take_condition(false)?,
        };
        if otherwise {
            cc = cc.invert();
        }
        self.asm.setcc(cc, g);
        Some((g, otherwise))
    }

    /// The conditional comparison of [`Generator::first_of_two`] is made; `later` is all that is asked of it.
    fn second_of_two(
        &mut self,
        add: bool,
        w: Width,
        operands: (Opnd, Opnd),
        later: Cond,
        (g, otherwise): (Gpr, bool),
    ) {
        let s = self.scratch();
        self.compare_either(add, w, operands, s);
        self.nzcv = Nzcv::Host { carry: Carry::Inverted, saved: false };
        let cc = self.host_condition(later);
        self.asm.setcc(cc, RAX);
        self.asm.op8(if otherwise { Op2::Or } else { Op2::And }, g, RAX);
        self.nzcv = Nzcv::One { cond: later, holds: g.into(), saved: false, fresh: true };
    }
}

/// The host condition for `cond` after a comparison of floating-point numbers, if one is enough.
pub(super) fn float_condition(cond: Cond, swapped: bool) -> Option<Cc> {
    Some(match (cond.0, swapped) {
        (6, _) => Cc::P,
        (7, _) => Cc::NP,
        (10, false) => Cc::AE,
        (11, false) => Cc::B,
        (12, false) => Cc::A,
        (13, false) => Cc::BE,
        // Less, and not unordered; the opposite.
        (3 | 4, true) => Cc::A,
        (2 | 5, true) => Cc::BE,
        // Greater or unordered; the opposite.
        (8, true) => Cc::B,
        (9, true) => Cc::AE,
        _ => return None,
    })
}
