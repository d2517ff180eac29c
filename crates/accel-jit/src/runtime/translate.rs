//! From a guest address to a block of host code.

use std::time::Instant;

use armlet_arm::mmu::{self, Access, AccessKind, Fault};
use armlet_arm::{Exception, Feature, SysReg};

use super::context::bit;
use super::slow_mem::Walker;
use super::vcpu::JitCore;
use crate::cache::{BlockId, BlockKey, CAREFUL, STEP};
use crate::ir::Inst;
use crate::lift::pointer::landing;
use crate::lift::{Flow, LiftContext, lift};
use crate::mmu::Fetch;

/// Guest instructions in one block, at most.
const MAX_INSTRUCTIONS: usize = 64;
const PAGE: u64 = 4096;
/// Guest instructions at a branch's target, and behind branches there, that are asked what they do with NZCV, at most.
const LOOK: u32 = 12;

impl JitCore {
    /// The block at virtual address `pc`, translated if need be; a careful one if so wanted.
    ///
    /// # Errors
    /// The exception of the instruction fetch.
    pub(super) fn block_at(&mut self, pc: u64, careful: bool) -> Result<BlockId, Exception> {
        let Fetch { page, guarded } = self.fetch(pc)?;
        let extra = if self.each() {
            STEP
        } else if careful {
            CAREFUL
        } else {
            0
        };
        let context = self.context() | extra | if guarded { bit::GUARDED } else { 0 };
        let key = BlockKey { pa: page | (pc & (PAGE - 1)), context };
        if let Some(id) = self.cache.find(key) {
            return Ok(id);
        }
        self.translate(key, pc)
    }

    /// Where the page that the instruction at `pc` is in is.
    ///
    /// # Errors
    /// The exception of the instruction fetch.
    pub(super) fn fetch(&mut self, pc: u64) -> Result<Fetch, Exception> {
        if pc & 3 != 0 { Err(Exception::pc_alignment(pc)) } else { self.fetch_page(pc) }
    }

    /// The word of the instruction at `pc`.
    pub(super) fn instruction_at(&mut self, pc: u64) -> Option<u32> {
        let page = self.fetch(pc).ok()?.page;
        let machine = self.machine.clone();
        PageWords::new(machine.memory.ram(), page).get((pc & (PAGE - 1)) as u32)
    }

    /// Where the page of `pc` is.
    fn fetch_page(&mut self, pc: u64) -> Result<Fetch, Exception> {
        let el = self.state().cpu.el() as u8;
        let set = if el == 0 { self.sets.el0() } else { self.sets.el1() };
        if let Some(fetch) = set.page(pc) {
            return Ok(fetch);
        }
        let access = Access { kind: AccessKind::Fetch, el, pan: false };
        let walker = Walker(self.machine.memory.ram());
        let t = mmu::translate(&self.mmu, &walker, pc, access)
            .map_err(|f| Exception::instruction_abort(f, pc))?;
        let page = t.pa & !(PAGE - 1);
        if !self.machine.memory.ram().contains(page, PAGE) {
            return Err(Exception::instruction_abort(Fault::external(), pc));
        }
        let fetch = Fetch { page, guarded: t.guarded && self.machine.model.has(Feature::Bti) };
        let block = u32::from(t.block_size_log2).max(if t.contiguous { 16 } else { 12 });
        let set = if el == 0 { self.sets.el0() } else { self.sets.el1() };
        set.fill_page(pc, fetch, block, t.non_global);
        Ok(fetch)
    }

    fn translate(&mut self, key: BlockKey, pc: u64) -> Result<BlockId, Exception> {
        let start = self.machine.options.count.then(Instant::now);
        if self.cache.is_full() {
            self.cache.flush();
            self.sets.clear_jumps();
        }
        self.track_code_page(key.pa >> 12);
        let page_pa = key.pa & !(PAGE - 1);
        let machine = self.machine.clone();
        let mut words = PageWords::new(machine.memory.ram(), page_pa);
        let limit = if key.context & STEP == 0 { MAX_INSTRUCTIONS } else { 1 };
        self.lift_base = self.lift_context();
        self.lift_base.guarded = key.context & bit::GUARDED != 0;
        let count = self.lift_block(&mut words, (pc & (PAGE - 1)) as u32, limit);
        #[cfg(feature = "mistakes")]
        self.make_mistake(page_pa);
        let mut options = self.generator_options();
        options.watch = self.debug.watches();
        if options.bti {
            let first = words.get((pc & (PAGE - 1)) as u32).unwrap_or(0);
            options.landing = Some(landing(&self.lift_base, first));
        }
        if !options.counted && !options.watch && key.context & STEP == 0 && !self.debug.shapes_code() {
            self.find_dead_flags(&mut words);
        }
        options.windows &= key.context & (CAREFUL | STEP) == 0 && !options.watch;
        let base = self.cache.next_address();
        let numbers = self.cache.next_numbers();
        self.generator.generate(self.builder.block(), base, numbers, options);
        let id = self.cache.insert(key, &mut self.generator);
        if let Some(perf) = &self.machine.options.perf {
            let vectors = self.state().cpu.sys[SysReg::VbarEl1];
            perf.add(self.cache.outer(id), self.generator.asm.len(), pc, vectors);
        }
        self.counters.translated_instructions += count as u64;
        if let Some(start) = start {
            self.counters.translation_ns += start.elapsed().as_nanos() as u64;
        }
        Ok(id)
    }

    /// Does what the options say to the lifted block, or to what is generated from it.
    #[cfg(feature = "mistakes")]
    fn make_mistake(&mut self, page_pa: u64) {
        use crate::mistake::Kind;
        let mistake = self.machine.options.mistake.filter(|m| page_pa >= m.from);
        self.generator.asm.mistake = match mistake.map(|m| m.kind) {
            Some(Kind::Host(change)) => Some(change),
            Some(Kind::Lift(change)) => {
                let mut block = self.builder.finish();
                change(&mut block);
                self.builder.resume(block);
                None
            }
            None => None,
        };
    }

    /// Finds out at which targets of the block's branches nobody asks for NZCV, where that matters. They are in the same
    /// page, so that they are invalidated together with the block.
    fn find_dead_flags(&mut self, words: &mut PageWords<'_>) {
        let mut written = false;
        let mut targets = Vec::new();
        for inst in &self.builder.block().insts {
            if let Inst::BranchIf { target, .. } | Inst::Branch { target } = *inst {
                if written && (0..PAGE as i64).contains(&target) && !targets.contains(&target) {
                    targets.push(target);
                }
            } else if !written {
                written = inst.facts().writes_flags;
            }
        }
        for target in targets {
            if self.flags_are_dead_at(words, target, &mut { LOOK }) {
                self.builder.flags_are_dead_at(target);
            }
        }
    }

    /// True if the instructions at `offset`, which is to be in the page, replace NZCV before anything asks for it, may fault
    /// or may leave, whichever way branches in between go. `left` of them are looked at.
    fn flags_are_dead_at(&mut self, words: &mut PageWords<'_>, offset: i64, left: &mut u32) -> bool {
        if !(0..PAGE as i64).contains(&offset) {
            return false;
        }
        let mut ctx = LiftContext { offset: offset as u32, ..self.lift_base };
        while *left > 0 {
            *left -= 1;
            let Some(word) = words.get(ctx.offset) else { return false };
            self.ahead.clear();
            let flow = lift(&mut self.ahead, &ctx, word);
            let mut branch = None;
            for inst in &self.ahead.block().insts {
                let facts = inst.facts();
                if let (Inst::BranchIf { target, .. }, false) = (inst, facts.reads_flags) {
                    branch = Some(*target);
                } else if facts.reads_flags || facts.leaves {
                    return false;
                } else if facts.writes_flags {
                    return true;
                }
            }
            if let Some(target) = branch
                && !self.flags_are_dead_at(words, target, left)
            {
                return false;
            }
            match flow {
                Flow::Next => ctx.offset += 4,
                Flow::Goto(target) => return self.flags_are_dead_at(words, target, left),
                Flow::End => return false,
            }
        }
        false
    }

    /// Lifts a superblock into the builder; tells how many instructions it has.
    fn lift_block(&mut self, words: &mut PageWords<'_>, first: u32, limit: usize) -> usize {
        let debug = &self.debug;
        let b = &mut self.builder;
        b.clear();
        let mut ctx = LiftContext { offset: first, ..self.lift_base };
        let mut count = 0;
        loop {
            let stop = count > 0 && debug.has_offset(ctx.offset as u16);
            let Some(word) = words.get(ctx.offset).filter(|_| count < limit && !stop && !b.nearly_full())
            else {
                b.emit(Inst::Branch { target: i64::from(ctx.offset) });
                return count;
            };
            b.emit(Inst::Start { offset: ctx.offset as u16, word });
            count += 1;
            match lift(b, &ctx, word) {
                Flow::Next => ctx.offset += 4,
                Flow::End => return count,
                // Forward jumps in the page are followed; loops must be able to poll.
                Flow::Goto(t) if t > i64::from(ctx.offset) && t < PAGE as i64 => ctx.offset = t as u32,
                Flow::Goto(target) => {
                    b.emit(Inst::Branch { target });
                    return count;
                }
            }
        }
    }
}

/// The instructions of one guest page, read in stretches; the guest may change them at any moment.
pub(super) struct PageWords<'a> {
    ram: &'a armlet_memory::Ram,
    page: u64,
    /// Offset of the first word that has been read, bytes.
    first: u32,
    words: [u32; STRETCH],
}

/// Words that are read at a time.
const STRETCH: usize = 16;
const STRETCH_BYTES: u32 = 4 * STRETCH as u32;

impl<'a> PageWords<'a> {
    fn new(ram: &'a armlet_memory::Ram, page: u64) -> Self {
        Self { ram, page, first: u32::MAX, words: [0; STRETCH] }
    }

    fn get(&mut self, offset: u32) -> Option<u32> {
        if u64::from(offset) >= PAGE {
            return None;
        }
        let first = offset & !(STRETCH_BYTES - 1);
        if first != self.first {
            self.first = first;
            if !self.ram.load_words(self.page + u64::from(first), &mut self.words) {
                self.first = u32::MAX;
                return None;
            }
        }
        Some(self.words[(offset - first) as usize / 4])
    }
}
