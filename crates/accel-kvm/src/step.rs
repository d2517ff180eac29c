//! Steps take no interrupts: they are masked while one instruction executes, and what the instruction has seen or changed
//! of the masks is put right afterwards. Needs no KVM.

use armlet_arm::{CpuState, Pstate, SysReg};

const MASKS: Pstate = Pstate::I.union(Pstate::F);

/// Masks that are hidden from the host's CPU during a step.
#[derive(Debug)]
pub struct Hidden {
    masks: Pstate,
    pc: u64,
    word: Option<u32>,
}

/// What an instruction does with the masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    None,
    /// `MSR DAIFSet, #imm`
    Set(Pstate),
    /// `MSR DAIFClr, #imm`
    Clear(Pstate),
    /// `MRS Xt, DAIF`
    Read(usize),
    /// `MSR DAIF, Xt` and ERET: they replace them.
    Replace,
}

impl Effect {
    fn of(word: u32) -> Self {
        let immediate = Pstate::from_bits_retain((word >> 8 & 0xf) << 6) & MASKS;
        match word {
            w if w & 0xffff_f0ff == 0xd503_40df => Self::Set(immediate),
            w if w & 0xffff_f0ff == 0xd503_40ff => Self::Clear(immediate),
            w if w & 0xffff_ffe0 == 0xd53b_4220 => Self::Read((w & 0x1f) as usize),
            w if w & 0xffff_ffe0 == 0xd51b_4220 => Self::Replace,
            // ERET, ERETAA, ERETAB.
            w if w & 0xffff_f3e0 == 0xd69f_03e0 => Self::Replace,
            _ => Self::None,
        }
    }
}

impl Hidden {
    /// Masks interrupts in `state`, which executes the instruction `word` next (`None`: it cannot be known, and faults).
    /// `None` if they are masked already.
    pub fn begin(state: &mut CpuState, word: Option<u32>) -> Option<Self> {
        let masks = state.pstate & MASKS;
        if masks == MASKS {
            return None;
        }
        state.pstate |= MASKS;
        Some(Self { masks, pc: state.pc, word })
    }

    /// Puts right what is in `state` after the guest was left.
    pub fn end(self, state: &mut CpuState) {
        let Self { masks, pc, word } = self;
        if state.pc != pc && self.took_exception(state) {
            let spsr = &mut state.sys[SysReg::SpsrEl1];
            *spsr = *spsr & !u64::from(MASKS.bits()) | u64::from(masks.bits());
            return;
        }
        let effect = if state.pc == pc { Effect::None } else { word.map_or(Effect::None, Effect::of) };
        let masks = match effect {
            Effect::Replace => return,
            Effect::None => masks,
            Effect::Set(more) => masks | more,
            Effect::Clear(fewer) => masks - fewer,
            Effect::Read(register) => {
                if register < 31 {
                    let read = &mut state.x[register];
                    *read = *read & !u64::from(MASKS.bits()) | u64::from(masks.bits());
                }
                masks
            }
        };
        state.pstate = (state.pstate - MASKS) | masks;
    }

    /// The instruction has ended in a vector of EL1, and the exception link names it or (calls) the next one.
    fn took_exception(&self, state: &CpuState) -> bool {
        let vectors = state.sys[SysReg::VbarEl1];
        let link = state.sys[SysReg::ElrEl1];
        let at_vector = state.pc.wrapping_sub(vectors) < 0x800 && state.pc.is_multiple_of(0x80);
        let next = self.pc.wrapping_add(4);
        at_vector && state.pc != next && (link == self.pc || link == next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps over `word` as the host would that does `run`, from masks that only hide FIQ.
    fn step(word: u32, run: impl FnOnce(&mut CpuState)) -> CpuState {
        let mut state = CpuState::new(0);
        state.sys[SysReg::VbarEl1] = 0x8000;
        state.pc = 0x1000;
        state.pstate = Pstate::F.with_el(1, true);
        let hidden = Hidden::begin(&mut state, Some(word)).expect("IRQ is not masked");
        assert!(state.pstate.contains(MASKS));
        state.pc += 4;
        run(&mut state);
        hidden.end(&mut state);
        state
    }

    fn masks(state: &CpuState) -> Pstate {
        state.pstate & MASKS
    }

    #[test]
    fn the_masks_are_as_the_instruction_leaves_them() {
        assert_eq!(masks(&step(0xd503_201f, |_| ())), Pstate::F, "NOP");
        assert_eq!(masks(&step(0xd503_42df, |_| ())), MASKS, "MSR DAIFSet, #2");
        assert_eq!(masks(&step(0xd503_43ff, |s| s.pstate -= MASKS)), Pstate::empty(), "MSR DAIFClr, #3");
        assert_eq!(masks(&step(0xd51b_4223, |s| s.pstate -= Pstate::F)), Pstate::I, "MSR DAIF, X3");
        assert_eq!(masks(&step(0xd69f_03e0, |s| s.pstate -= MASKS)), Pstate::empty(), "ERET");
        let read = step(0xd53b_4223, |s| s.x[3] = 0x3c0);
        assert_eq!((masks(&read), read.x[3]), (Pstate::F, 0x340), "MRS X3, DAIF");
        assert_eq!(masks(&step(0xd53b_423f, |_| ())), Pstate::F, "MRS XZR, DAIF");
    }

    #[test]
    fn an_exception_keeps_the_masks_from_before() {
        for link in [0x1000, 0x1004] {
            let state = step(0xd400_0001, |s| {
                s.sys[SysReg::ElrEl1] = link;
                s.sys[SysReg::SpsrEl1] = s.pstate.bits().into();
                s.pc = 0x8200;
            });
            assert_eq!(masks(&state), MASKS);
            assert_eq!(state.sys[SysReg::SpsrEl1] & 0xc0, u64::from(Pstate::F.bits()));
        }
    }

    #[test]
    fn what_has_not_executed_changes_nothing() {
        let state = step(0xd503_42df, |s| s.pc = 0x1000);
        assert_eq!(masks(&state), Pstate::F);
        let mut masked = CpuState::new(0);
        assert!(Hidden::begin(&mut masked, None).is_none());
    }
}
