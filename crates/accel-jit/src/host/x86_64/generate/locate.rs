//! Where values are: guest registers in their fixed homes, temporaries in three registers or in memory.

use super::*;
use crate::runtime::state::{JitState, SPILL_SLOTS};

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loc {
    Host(Gpr),
    Memory(M),
}

impl From<Loc> for Rm {
    fn from(l: Loc) -> Rm {
        match l {
            Loc::Host(r) => r.into(),
            Loc::Memory(m) => m.into(),
        }
    }
}

/// Who occupies a temporary's host register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    Free,
    Temp(u8),
    Scratch,
}

pub(super) struct Locations {
    last_use: [u16; 256],
    place: [Option<Loc>; 256],
    holders: [Holder; 3],
    /// Index of the current IR instruction.
    pub at: usize,
}

impl Default for Locations {
    fn default() -> Self {
        Self { last_use: [0; 256], place: [None; 256], holders: [Holder::Free; 3], at: 0 }
    }
}

const fn spill_slot(t: u8) -> M {
    assert!(SPILL_SLOTS == 256);
    field(std::mem::offset_of!(JitState, spill) + t as usize * 8)
}

impl Locations {
    pub fn prepare(&mut self, block: &Block) {
        self.holders = [Holder::Free; 3];
        for t in 0..=usize::from(block.temps) {
            self.last_use[t + usize::from(Reg::FIRST_TEMP)] = 0;
            self.place[t + usize::from(Reg::FIRST_TEMP)] = None;
        }
        for (i, inst) in block.insts.iter().enumerate() {
            inst.for_each_use(|r| {
                if r.is_temp() {
                    self.last_use[usize::from(r.0)] = i as u16;
                }
            });
        }
    }

    /// The first register that is taken as scratch.
    pub fn taken_scratch(&self) -> Gpr {
        let i = self.holders.iter().position(|h| *h == Holder::Scratch);
        TEMPS[i.expect("a scratch register was taken")]
    }

    /// Frees scratch registers and temporaries whose last use was instruction `i`.
    pub fn release(&mut self, i: usize) {
        for h in &mut self.holders {
            match *h {
                Holder::Scratch => *h = Holder::Free,
                Holder::Temp(t) if usize::from(self.last_use[usize::from(t)]) <= i => *h = Holder::Free,
                _ => {}
            }
        }
    }
}

impl Generator {
    pub(super) fn loc(&self, r: Reg) -> Loc {
        if let Some(g) = pinned(r) {
            Loc::Host(g)
        } else if r.is_guest() {
            Loc::Memory(x_slot(r.0))
        } else {
            self.locations.place[usize::from(r.0)].expect("a temporary is written before it is read")
        }
    }

    /// A host register that holds nothing, for use inside the current IR instruction. Take all scratch
    /// registers before looking at operands: a temporary may move to memory.
    pub(super) fn scratch(&mut self) -> Gpr {
        let i = match self.locations.holders.iter().position(|h| *h == Holder::Free) {
            Some(i) => i,
            None => self.evict(),
        };
        self.locations.holders[i] = Holder::Scratch;
        TEMPS[i]
    }

    /// A particular one of the temporaries' registers as scratch.
    pub(super) fn scratch_exactly(&mut self, g: Gpr) {
        let i = TEMPS.iter().position(|t| *t == g).expect("one of the temporaries' registers");
        if let Holder::Temp(t) = self.locations.holders[i] {
            self.spill(i, t);
        }
        assert!(self.locations.holders[i] != Holder::Scratch, "register already taken");
        self.locations.holders[i] = Holder::Scratch;
    }

    fn evict(&mut self) -> usize {
        let i = self.locations.holders.iter().position(|h| matches!(h, Holder::Temp(_)));
        let i = i.expect("an instruction needs at most three scratch registers");
        if let Holder::Temp(t) = self.locations.holders[i] {
            self.spill(i, t);
        }
        i
    }

    fn spill(&mut self, i: usize, t: u8) {
        self.asm.store(true, spill_slot(t), TEMPS[i]);
        self.locations.place[usize::from(t)] = Some(Loc::Memory(spill_slot(t)));
        self.locations.holders[i] = Holder::Free;
    }

    /// Where the result for `d` goes: its host register, or `other` if it lives in memory or nowhere. After
    /// writing it, call [`Generator::done`].
    pub(super) fn dest(&mut self, d: Reg, other: Gpr) -> Gpr {
        if d == Reg::NONE {
            return other;
        }
        if let Some(g) = pinned(d) {
            return g;
        }
        if d.is_temp() {
            let place = match self.locations.holders.iter().position(|h| *h == Holder::Free) {
                Some(i) => {
                    self.locations.holders[i] = Holder::Temp(d.0);
                    Loc::Host(TEMPS[i])
                }
                None => Loc::Memory(spill_slot(d.0)),
            };
            self.locations.place[usize::from(d.0)] = Some(place);
            if let Loc::Host(g) = place {
                return g;
            }
        }
        other
    }

    /// Stores a result that [`Generator::dest`] put into a scratch register.
    pub(super) fn done(&mut self, d: Reg, g: Gpr) {
        if d == Reg::NONE {
            return;
        }
        match self.loc(d) {
            Loc::Host(h) => self.asm.mov(h, g),
            Loc::Memory(m) => self.asm.store(true, m, g),
        }
    }

    /// The operand in a host register: its own, or loaded into `s`.
    pub(super) fn value(&mut self, o: Opnd, s: Gpr) -> Gpr {
        match o {
            Opnd::Imm(v) => {
                self.asm.mov_imm(s, v);
                s
            }
            Opnd::Reg(r) => match self.loc(r) {
                Loc::Host(g) => g,
                Loc::Memory(m) => {
                    self.asm.load(true, s, m);
                    s
                }
            },
        }
    }

    /// Moves the operand into `d`, whatever it is; upper half cleared for `w` false.
    pub(super) fn move_into(&mut self, w: Width, d: Gpr, o: Opnd) {
        match o {
            Opnd::Imm(v) if w == Width::W => self.asm.mov_imm(d, i64::from(v as u32)),
            Opnd::Imm(v) => self.asm.mov_imm(d, v),
            Opnd::Reg(r) => match self.loc(r) {
                Loc::Host(g) if w == Width::W => self.asm.mov32(d, g),
                Loc::Host(g) => self.asm.mov(d, g),
                Loc::Memory(m) => self.asm.load(w == Width::X, d, m),
            },
        }
    }

    /// The operand as register, memory or 32-bit immediate of a two-operand instruction; a constant that
    /// does not fit goes through `s`.
    pub(super) fn source(&mut self, w: Width, o: Opnd, s: Gpr) -> Source {
        match o {
            Opnd::Imm(v) => {
                let v = if w == Width::W { i64::from(v as i32) } else { v };
                match i32::try_from(v) {
                    Ok(i) => Source::Imm(i),
                    Err(_) => {
                        self.asm.mov_imm(s, v);
                        Source::Rm(s.into())
                    }
                }
            }
            Opnd::Reg(r) => Source::Rm(self.loc(r).into()),
        }
    }

    pub(super) fn op2(&mut self, op: Op2, w: Width, d: Gpr, s: Source) {
        match s {
            Source::Rm(rm) => self.asm.op(op, w == Width::X, d, rm),
            Source::Imm(v) => self.asm.op_imm(op, w == Width::X, d, v),
        }
    }

    /// True if `o` is the value in host register `g`.
    pub(super) fn is_in(&self, o: Opnd, g: Gpr) -> bool {
        matches!(o, Opnd::Reg(r) if self.loc(r) == Loc::Host(g))
    }
}

/// Second operand of a two-operand host instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Rm(Rm),
    Imm(i32),
}
