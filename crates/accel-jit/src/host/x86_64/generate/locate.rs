//! Where values are: guest registers in their fixed homes, temporaries in three registers or in memory.
//!
//! Host registers that no temporary needs hold copies of guest registers that live in memory. Results are
//! written through, so a copy can be dropped at any moment and memory is always right; except for results that are
//! replaced before anybody can look: those are in their copies only, which stay until then.

use std::cell::Cell;

use super::*;
use crate::ir::visit::Facts;
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
    /// A copy of a guest register whose home is in memory.
    Copy(u8),
    /// The coming new value of such a register.
    Pending(u8),
    Scratch,
    /// The host's distance of a window, by its index.
    Window(u8),
    /// Whether a condition holds.
    Condition,
}

/// A stretch of memory that is known to be plain, in one page, and permitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    /// Addresses are relative to this register.
    pub base: Reg,
    /// First byte.
    pub lo: i32,
    /// Byte after the last.
    pub hi: i32,
    /// May be written, too.
    pub write: bool,
}

/// Windows at one time: each takes one of the temporaries' registers.
const WINDOWS: usize = 2;

const POOL: usize = TEMPS.len();

/// The first of the temporaries' registers that [`Generator::scratch_exactly`] is not asked for.
const FIRST_UNBOUND: usize = 2;

/// Copies that memory does not have and conditions, at most.
const MOST_ALONE: u32 = 2;

/// No instruction of the block.
const NEVER: u16 = u16::MAX;

pub(super) struct Locations {
    last_use: [u16; 256],
    place: [Option<Loc>; 256],
    holders: [Holder; POOL],
    /// Holders that the current IR instruction relies on, one bit each.
    locked: Cell<u8>,
    /// Copies that memory does not have, one bit each.
    only: u8,
    /// Who holds a condition.
    condition: Option<usize>,
    windows: [Option<Window>; WINDOWS],
    /// Which window goes next.
    oldest: usize,
    /// For each instruction, which one from it on reads a guest register before it is replaced; [`NEVER`] if none does.
    reads: Vec<[u16; 32]>,
    /// Some holder is not a copy: there is something to release.
    transient: bool,
    /// Index of the current IR instruction.
    pub at: usize,
}

impl Default for Locations {
    fn default() -> Self {
        Self {
            last_use: [0; 256],
            place: [None; 256],
            holders: [Holder::Free; POOL],
            locked: Cell::new(0),
            only: 0,
            condition: None,
            windows: [None; WINDOWS],
            oldest: 0,
            reads: Vec::new(),
            transient: false,
            at: 0,
        }
    }
}

pub(super) const fn spill_slot(t: u8) -> M {
    const { assert!(SPILL_SLOTS == 256) };
    field(std::mem::offset_of!(JitState, spill) + t as usize * 8)
}

impl Locations {
    pub fn prepare(&mut self, block: &Block) {
        self.holders = [Holder::Free; POOL];
        self.windows = [None; WINDOWS];
        self.locked.set(0);
        self.only = 0;
        self.condition = None;
        for t in 0..=usize::from(block.temps) {
            self.last_use[t + usize::from(Reg::FIRST_TEMP)] = 0;
            self.place[t + usize::from(Reg::FIRST_TEMP)] = None;
        }
        self.at = 0;
        // Those of instructions are told of one by one.
        let end = block.insts.len();
        self.reads.resize(self.reads.len().max(end + 1), [NEVER; 32]);
        self.reads[end] = [NEVER; 32];
    }

    /// What instruction `i` replaces and then reads; later ones have been told of already, and each is to be told of.
    pub fn note_reads(&mut self, i: usize, definitions: &[Reg], uses: &[Reg]) {
        let mut reads = self.reads[i + 1];
        for r in definitions.iter().filter(|r| r.0 < 32) {
            reads[usize::from(r.0)] = NEVER;
        }
        for r in uses.iter().filter(|r| r.0 < 32) {
            reads[usize::from(r.0)] = i as u16;
        }
        self.reads[i] = reads;
    }

    /// Which instruction reads guest register `r` next, the current one included or not.
    fn next_read(&self, r: u8, current: bool) -> u16 {
        self.reads[self.at + usize::from(!current)][usize::from(r)]
    }

    /// Instruction `i` uses these registers; later ones have been told of already.
    pub fn note_uses(&mut self, i: usize, uses: &[Reg]) {
        for r in uses.iter().filter(|r| r.is_temp()) {
            let last = &mut self.last_use[usize::from(r.0)];
            *last = (*last).max(i as u16);
        }
    }

    /// The host register of what the next instruction defines, if the result of instruction `i` is a temporary for that
    /// one alone, which has no use for what it replaces and cannot fail.
    pub fn early_place(&self, i: usize, facts: &Facts, next: &Facts) -> Option<Gpr> {
        let ([t, Reg::NONE], [d, Reg::NONE]) = (facts.definitions, next.definitions) else { return None };
        let alone = t.is_temp() && usize::from(self.last_use[usize::from(t.0)]) == i + 1;
        let free = next.uses.contains(&t) && !next.uses.contains(&d) && !next.leaves && !facts.leaves;
        pinned(d).filter(|_| alone && free)
    }

    /// The first register that is taken as scratch, if one is.
    pub fn taken_scratch(&self) -> Option<Gpr> {
        self.holders.iter().position(|h| *h == Holder::Scratch).map(|i| TEMPS[i])
    }

    fn copy_of(&self, r: Reg) -> Option<usize> {
        self.holders.iter().position(|h| *h == Holder::Copy(r.0))
    }

    fn lock(&self, i: usize) {
        self.locked.set(self.locked.get() | 1 << i);
    }

    fn is_locked(&self, i: usize) -> bool {
        self.locked.get() & 1 << i != 0
    }

    /// The copy that is read last of those that memory has and the current instruction has not looked at.
    fn least_wanted(&self) -> Option<(usize, u16)> {
        let copies = self.holders.iter().enumerate().filter_map(|(i, h)| match h {
            Holder::Copy(r) if !self.is_locked(i) && self.only & 1 << i == 0 => {
                Some((i, self.next_read(*r, true)))
            }
            _ => None,
        });
        copies.max_by_key(|(_, read)| *read)
    }

    /// A register that is free, or holds a copy that the current instruction does not use.
    fn available(&mut self) -> Option<usize> {
        if let Some(i) = self.holders.iter().position(|h| *h == Holder::Free) {
            return Some(i);
        }
        if let Some((i, _)) = self.least_wanted() {
            return Some(i);
        }
        let window = |i: &usize| matches!(self.holders[*i], Holder::Window(_)) && !self.is_locked(*i);
        let i = (0..POOL).find(window)?;
        if let Holder::Window(w) = self.holders[i] {
            self.windows[usize::from(w)] = None;
        }
        Some(i)
    }

    /// The same for a copy of guest register `r` as it is behind the current instruction, unless all others are read sooner.
    fn available_for(&mut self, r: u8) -> Option<usize> {
        let read = self.next_read(r, false);
        let full = !self.holders.contains(&Holder::Free);
        if full && (read == NEVER || self.least_wanted().is_some_and(|(_, other)| other < read)) {
            return None;
        }
        self.available()
    }

    pub fn has_windows(&self) -> bool {
        self.windows.iter().any(Option::is_some)
    }

    /// The register of a window that is as wanted; it stays for the current instruction.
    pub fn window(&self, wanted: impl Fn(&Window) -> bool) -> Option<Gpr> {
        let w = self.windows.iter().position(|w| w.as_ref().is_some_and(&wanted))?;
        let i = self.holders.iter().position(|h| *h == Holder::Window(w as u8))?;
        self.lock(i);
        Some(TEMPS[i])
    }

    /// Turns scratch register `g` into the register of a window.
    pub fn add_window(&mut self, g: Gpr, window: Window) {
        let w = self.windows.iter().position(Option::is_none).unwrap_or_else(|| {
            self.oldest = (self.oldest + 1) % WINDOWS;
            self.oldest
        });
        self.free_window(w);
        if let Some(i) = TEMPS.iter().position(|t| *t == g) {
            self.holders[i] = Holder::Window(w as u8);
            self.lock(i);
            self.windows[w] = Some(window);
        }
    }

    fn free_window(&mut self, w: usize) {
        self.windows[w] = None;
        if let Some(i) = self.holders.iter().position(|h| *h == Holder::Window(w as u8)) {
            self.holders[i] = Holder::Free;
        }
    }

    /// Forgets windows.
    pub fn drop_windows(&mut self, chosen: impl Fn(&Window) -> bool) {
        for w in 0..WINDOWS {
            if self.windows[w].as_ref().is_some_and(&chosen) {
                self.free_window(w);
            }
        }
    }

    /// Register `r` has risen by a constant.
    pub fn raise_windows(&mut self, r: Reg, by: i32) {
        for w in self.windows.iter_mut().flatten().filter(|w| w.base == r) {
            w.lo -= by;
            w.hi -= by;
        }
    }

    /// Lets go of all copies that the current instruction has looked at.
    pub fn unlock(&self) {
        self.locked.set(0);
    }

    /// Forgets the copy of a guest register that changes in memory.
    pub fn drop_copy(&mut self, r: Reg) {
        if let Some(i) = self.copy_of(r) {
            self.holders[i] = Holder::Free;
            self.only &= !(1 << i);
        }
    }

    /// The copy in `i` has a new value. True if memory need not have it: it is replaced soon, and there are not too many
    /// of the kind, since they leave fewer registers for others.
    fn keeps_alone(&mut self, i: usize, replaced: bool) -> bool {
        let others = self.only & !(1 << i);
        let alone = replaced && others.count_ones() + u32::from(self.condition.is_some()) < MOST_ALONE;
        self.only = others | u8::from(alone) << i;
        alone
    }

    /// A register for a condition, to be kept until [`Locations::drop_condition`]; not one that instructions have in mind.
    /// If it is `idle`, nobody else reads what is there.
    pub fn take_condition(&mut self, idle: bool) -> Option<Gpr> {
        if self.condition.is_some() || self.only.count_ones() >= MOST_ALONE {
            return None;
        }
        let fits = |i: &usize| match self.holders[*i] {
            Holder::Free => true,
            Holder::Copy(r) => {
                let read = idle && self.next_read(r, true) != NEVER;
                !read && !self.is_locked(*i) && self.only & 1 << *i == 0
            }
            _ => false,
        };
        let i = (FIRST_UNBOUND..POOL).find(fits)?;
        self.holders[i] = Holder::Condition;
        self.condition = Some(i);
        Some(TEMPS[i])
    }

    /// Nobody asks for the condition any more.
    pub fn drop_condition(&mut self) {
        if let Some(i) = self.condition.take() {
            self.holders[i] = Holder::Free;
        }
    }

    /// Forgets all copies.
    pub fn drop_copies(&mut self) {
        debug_assert!(self.only == 0, "somebody looks at a register that memory does not have");
        for h in &mut self.holders {
            if matches!(h, Holder::Copy(_)) {
                *h = Holder::Free;
            }
        }
    }

    /// Frees scratch registers before the end of an instruction.
    pub fn free_scratch(&mut self) {
        for h in &mut self.holders {
            if *h == Holder::Scratch {
                *h = Holder::Free;
            }
        }
    }

    /// Frees scratch registers and temporaries whose last use was instruction `i`.
    pub fn release(&mut self, i: usize) {
        self.locked.set(0);
        if !std::mem::take(&mut self.transient) {
            return;
        }
        for h in &mut self.holders {
            match *h {
                Holder::Scratch | Holder::Pending(_) => *h = Holder::Free,
                Holder::Temp(t) if usize::from(self.last_use[usize::from(t)]) <= i => *h = Holder::Free,
                Holder::Temp(_) => self.transient = true,
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
            match self.locations.copy_of(r) {
                Some(i) => {
                    self.locations.lock(i);
                    Loc::Host(TEMPS[i])
                }
                None => Loc::Memory(x_slot(r.0)),
            }
        } else {
            self.locations.place[usize::from(r.0)].expect("a temporary is written before it is read")
        }
    }

    /// A host register that holds nothing, for use inside the current IR instruction. Take all scratch
    /// registers before looking at operands: a temporary may move to memory.
    pub(super) fn scratch(&mut self) -> Gpr {
        let i = match self.locations.available() {
            Some(i) => i,
            None => self.evict(),
        };
        self.locations.holders[i] = Holder::Scratch;
        self.locations.transient = true;
        TEMPS[i]
    }

    /// A particular one of the temporaries' registers as scratch.
    pub(super) fn scratch_exactly(&mut self, g: Gpr) {
        let i = TEMPS.iter().position(|t| *t == g).expect("one of the temporaries' registers");
        if let Holder::Temp(t) = self.locations.holders[i] {
            self.spill(i, t);
        }
        if let Holder::Window(w) = self.locations.holders[i] {
            self.locations.free_window(usize::from(w));
        }
        if let Holder::Copy(r) = self.locations.holders[i]
            && self.locations.only & 1 << i != 0
        {
            self.asm.store(true, x_slot(r), g);
            self.locations.only &= !(1 << i);
        }
        assert!(self.locations.holders[i] != Holder::Scratch, "register already taken");
        self.locations.holders[i] = Holder::Scratch;
        self.locations.transient = true;
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
        if d.is_guest() {
            return match self.locations.copy_of(d).or_else(|| self.locations.available_for(d.0)) {
                Some(i) => {
                    // The old value may still be read from memory: not a copy before it is done.
                    if self.locations.holders[i] != Holder::Copy(d.0) {
                        self.locations.holders[i] = Holder::Pending(d.0);
                        self.locations.transient = true;
                    }
                    self.locations.lock(i);
                    TEMPS[i]
                }
                None => other,
            };
        }
        if let Some(g) = self.early[self.index] {
            self.locations.place[usize::from(d.0)] = Some(Loc::Host(g));
            return g;
        }
        let place = match self.locations.available() {
            Some(i) => {
                self.locations.holders[i] = Holder::Temp(d.0);
                self.locations.transient = true;
                Loc::Host(TEMPS[i])
            }
            None => Loc::Memory(spill_slot(d.0)),
        };
        self.locations.place[usize::from(d.0)] = Some(place);
        match place {
            Loc::Host(g) => g,
            Loc::Memory(_) => other,
        }
    }

    /// True if `o` is a temporary in a host register that nobody asks for after the current instruction.
    pub(super) fn ends_here(&self, o: Opnd) -> bool {
        self.ending_holder(o).is_some()
    }

    fn ending_holder(&self, o: Opnd) -> Option<usize> {
        let Opnd::Reg(r) = o else { return None };
        let l = &self.locations;
        let holder = l.holders.iter().position(|h| *h == Holder::Temp(r.0))?;
        (usize::from(l.last_use[usize::from(r.0)]) <= l.at).then_some(holder)
    }

    /// The register of `o`, which [`Generator::ends_here`] is true for, may be written by the current instruction.
    pub(super) fn becomes_scratch(&mut self, o: Opnd) {
        if let Some(i) = self.ending_holder(o) {
            self.locations.holders[i] = Holder::Scratch;
            self.locations.transient = true;
        }
    }

    /// True if `o` is a guest register's copy; it stays for the current instruction.
    pub(super) fn is_copy(&self, o: Opnd) -> bool {
        let Opnd::Reg(r) = o else { return false };
        let copy = self.locations.copy_of(r);
        copy.inspect(|i| self.locations.lock(*i)).is_some()
    }

    /// Scratch register `g`, which has the value of `o` and keeps it, is a copy from now on if that is of use.
    pub(super) fn becomes_copy(&mut self, g: Gpr, o: Opnd) {
        let (Opnd::Reg(r), Some(i)) = (o, TEMPS.iter().position(|t| *t == g)) else { return };
        let lives_in_memory = r.is_guest() && pinned(r).is_none() && self.locations.copy_of(r).is_none();
        if lives_in_memory && self.locations.next_read(r.0, false) != NEVER {
            self.locations.holders[i] = Holder::Copy(r.0);
            self.locations.lock(i);
        }
    }

    /// As [`Generator::dest`], but in the register of `a` if nobody asks for that afterwards.
    pub(super) fn dest_over(&mut self, d: Reg, a: Opnd, other: Gpr) -> Gpr {
        let fresh = d != Reg::NONE && pinned(d).is_none() && self.locations.copy_of(d).is_none();
        let fresh = fresh && self.early[self.index].is_none();
        let Some(i) = self.ending_holder(a).filter(|_| fresh) else { return self.dest(d, other) };
        self.locations.transient = true;
        self.locations.lock(i);
        if d.is_guest() {
            self.locations.holders[i] = Holder::Pending(d.0);
        } else {
            self.locations.holders[i] = Holder::Temp(d.0);
            self.locations.place[usize::from(d.0)] = Some(Loc::Host(TEMPS[i]));
        }
        TEMPS[i]
    }

    /// Stores a result that [`Generator::dest`] put into a scratch register.
    pub(super) fn done(&mut self, d: Reg, g: Gpr) {
        if d == Reg::NONE {
            return;
        }
        if let Some(i) = self.locations.holders.iter().position(|h| *h == Holder::Pending(d.0)) {
            self.locations.holders[i] = Holder::Copy(d.0);
        }
        match self.loc(d) {
            Loc::Host(h) => {
                self.asm.mov(h, g);
                if d.is_guest() && pinned(d).is_none() {
                    let replaced = self.replaced[self.index];
                    let copy = self.locations.copy_of(d);
                    if !copy.is_some_and(|i| self.locations.keeps_alone(i, replaced)) {
                        self.asm.store(true, x_slot(d.0), h);
                    }
                }
            }
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
                    let g = self.new_copy(r).unwrap_or(s);
                    self.asm.load(true, g, m);
                    g
                }
            },
        }
    }

    /// A register for a copy of guest register `r`, which is about to be loaded. Not to be used where the
    /// code is only sometimes executed.
    fn new_copy(&mut self, r: Reg) -> Option<Gpr> {
        // The old value of a register that is about to change is not worth one.
        if !r.is_guest() || self.locations.holders.contains(&Holder::Pending(r.0)) {
            return None;
        }
        let i = self.locations.available_for(r.0)?;
        self.locations.holders[i] = Holder::Copy(r.0);
        self.locations.lock(i);
        Some(TEMPS[i])
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

    /// Moves the operand into `d`, to be changed there by an instruction of this width, which clears the upper half.
    pub(super) fn move_to_change(&mut self, w: Width, d: Gpr, o: Opnd) {
        if !self.is_in(o, d) {
            self.move_into(w, d, o);
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

    /// The same, but a guest register that lives in memory goes through `s`, too: the host knows what was stored a moment ago
    /// where it is loaded, at once, but takes several cycles where an operation has it as its operand.
    pub(super) fn source_in_register(&mut self, w: Width, o: Opnd, s: Gpr) -> Source {
        match self.source(w, o, s) {
            Source::Rm(Rm::M(m)) => {
                self.asm.load(w == Width::X, s, m);
                Source::Rm(s.into())
            }
            other => other,
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
        let Opnd::Reg(r) = o else { return false };
        match self.locations.copy_of(r) {
            Some(i) => TEMPS[i] == g,
            None => self.loc(r) == Loc::Host(g),
        }
    }
}

/// Second operand of a two-operand host instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Rm(Rm),
    Imm(i32),
}
