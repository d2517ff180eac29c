//! Tier 1: one pass from IR to host code.
//!
//! Guest registers stay where [`regs`](super::regs) says, so state is always precise between IR
//! instructions, apart from vector registers ([`carry`]) and NZCV: that may be in EFLAGS only, and is stored to its slot
//! before it would be lost and whenever somebody may look. Temporaries get one of three host registers, or a memory slot.
//! Slow paths are emitted behind the block and jump back.

mod atomics;
#[cfg(test)]
mod calls;
pub mod carry;
pub(super) mod control;
mod count;
mod crypto;
mod cumulative;
mod flagless;
mod flags;
mod float;
mod flush;
mod int;
mod known;
mod known_crypto;
mod known_float;
mod known_half;
mod known_shift;
mod locate;
mod mem;
mod odd;
pub(super) mod pointer;
mod products;
mod sites;
mod system;
mod vector;
mod vector_more;
mod vector_ops;
mod windows;

use armlet_arm::FeatureSet;

use super::asm::*;
use super::regs::*;
use super::thunks::Thunks;
use crate::cache::Numbers;
use crate::ir::*;
use crate::lift::pointer::Landing;
use crate::mmu::SideEntry;
use crate::runtime::exit::Exit;

use carry::Carried;
use flags::{CARRY_SET, Carry, Nzcv, Wanted, float_condition};
use locate::Locations;
use sites::{Elsewhere, Sites};
use vector::{VectorCache, vector_names};
use windows::{Effect, Plan};

/// What code generation depends on, besides the block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Other vCPUs exist: ordered accesses and atomics need fences and locks.
    pub smp: bool,
    /// Count blocks.
    pub count: bool,
    /// Every access must be aligned (SCTLR_EL1.A, or the MMU is off).
    pub align_check: bool,
    /// EL1 with SP_EL1: hot system registers are accessed inline.
    pub el1h: bool,
    /// TLB sets hold writes for this machine's strict code tracking (no effect on code).
    pub el0: bool,
    /// The host's SHA instructions may be used.
    pub sha: bool,
    /// The host's AVX-512 instructions may be used.
    pub avx512: bool,
    /// With `avx512`: the registers that only it reaches are used first.
    pub upper_first: bool,
    /// Several accesses may share one probe of the TLB.
    pub windows: bool,
    /// Ask before each access whether it is watched.
    pub watch: bool,
    /// Floating point is not trapped.
    pub fp: bool,
    /// FPCR.FZ is set.
    pub flush: bool,
    /// CTR_EL0 and DCZID_EL0 as EL1 sees them.
    pub cache_type: [u64; 2],
    /// Bits of SPSR_EL1 that can be written.
    pub spsr_mask: u32,
    /// Keep the exact count of instructions.
    pub counted: bool,
    /// Keep a hash of the instructions.
    pub trace: bool,
    /// Branches tell their targets what they are (FEAT_BTI).
    pub bti: bool,
    /// How the block begins, if the model has FEAT_BTI.
    pub landing: Option<Landing>,
    /// There are keys to authenticate pointers.
    pub pauth: bool,
    /// Pointers are authenticated by the implementation-defined algorithm.
    pub pauth_inline: bool,
    /// Atomic accesses need not be aligned inside 16 bytes, pairs are accessed at once (FEAT_LSE2).
    pub lse2: bool,
    /// The system counter has its self-synchronised names (FEAT_ECV).
    pub ecv: bool,
    /// Which system registers there are.
    pub features: FeatureSet,
    /// Note where each instruction begins.
    pub marks: bool,
}

/// A jump to another block in the same page that can be patched.
#[derive(Clone, Copy, Debug)]
pub struct ExitSite {
    /// Offset of the displacement in the code; it goes to a stub at first.
    pub fixup: u32,
    /// Offset in the page of the guest instruction to go to.
    pub target: u16,
    /// It goes to a careful block.
    pub careful: bool,
    /// What host vector registers hold there, by its number.
    pub carried: u32,
}

/// Bytes from the inner and the warm entry on that invalidation may overwrite.
const ENTRY_ROOM: usize = 16;

/// Code that is seldom executed, to be emitted behind the block.
enum Cold {
    /// The stub of a patchable exit, by its index in `exits`.
    Exit { from: Fixup, index: u32 },
    /// A branch in the page that is taken, where instructions are counted.
    Taken { from: Fixup, target: u16 },
    /// A jump to another page.
    Across { from: Fixup, target: i64 },
    /// The slow path of an access, by its index in `side_table`.
    Access { from: Fixup, index: u32 },
    /// A window that is not known, by its index in `side_table`; else the careful block of the instruction.
    /// The second of the registers has the page of its last byte.
    Window { from: Fixup, index: u32, offset: u16, registers: (Gpr, Gpr) },
    /// An access that is not in the page of its site.
    Elsewhere(Box<Elsewhere>),
    /// Leaving translated code.
    Leave { from: Fixup, exit: Exit, offset: i64 },
    /// Emitted.
    Done,
    /// Anything rarer.
    Other(Box<dyn FnOnce(&mut Generator)>),
}

/// Turns blocks into host code; reused for block after block.
pub struct Generator {
    /// The code.
    pub asm: Asm,
    /// Patchable exits of the last block.
    pub exits: Vec<ExitSite>,
    /// Side table entries of the last block.
    pub side_table: Vec<SideEntry>,
    /// Offset of the inner entry (page_va is already right).
    pub inner_entry: u32,
    /// Offset of the entry at which host vector registers hold what is wanted.
    pub warm_entry: u32,
    /// What that is.
    pub wanted: Carried,
    /// Offset of what the warm entry leads to when the block is gone.
    pub stale_entry: u32,
    /// What host vector registers hold at exits and accesses; the first is nothing.
    pub carried: Vec<Carried>,
    /// The same where code behind the block was asked for.
    cold_carried: Option<Carried>,
    /// The same before the current instruction's result.
    carried_before: Option<Carried>,
    /// The same where the last access left for its slow path.
    carried_at_miss: Carried,
    /// Where instructions begin, if that is wanted: offset in the code, offset in the page.
    pub marks: Vec<(u32, u16)>,
    /// IR instructions that slow paths of this block execute; the owner keeps them alive at this address.
    pub slow_insts: Vec<Box<Inst>>,
    thunks: Thunks,
    options: Options,
    locations: Locations,
    vectors: VectorCache,
    nzcv: Nzcv,
    /// What is wanted of NZCV as it is before each instruction.
    nzcv_wanted: Vec<Wanted>,
    /// Targets at which nobody asks for NZCV.
    flags_dead: Vec<i64>,
    /// What flags are first asked for behind each instruction.
    next_condition: Vec<Option<Cond>>,
    /// Whether the result of each instruction is replaced before anybody can look at memory.
    replaced: Vec<bool>,
    /// The register of the guest's that each instruction's temporary may be in: that of the next one's result, which nobody
    /// asks for any more.
    early: Vec<Option<Gpr>>,
    /// Whether nobody needs it at all.
    dead: Vec<bool>,
    effects: Vec<Effect>,
    plan: Plan,
    sites: Sites,
    /// Plain accesses of the current guest instruction so far.
    accesses: u32,
    /// SP is known to be a multiple of 16.
    sp_aligned: bool,
    /// It is noted that MXCSR may have flags that FPSR lacks.
    exceptions_noted: bool,
    /// With the number of the instruction that each belongs to, and what names of vector registers mean there.
    cold: Vec<(Cold, u32, VectorNames, Carried)>,
    numbers: Numbers,
    index: usize,
    offset: u16,
    word: u32,
    /// Number of the current instruction in the block; the first is 1.
    count: u32,
    /// Functions are called, and not only for values that are odd.
    #[cfg(test)]
    called: bool,
}

impl Generator {
    /// A generator that calls `thunks`.
    pub fn new(thunks: Thunks) -> Self {
        Self {
            asm: Asm::default(),
            exits: Vec::new(),
            side_table: Vec::new(),
            inner_entry: 0,
            warm_entry: 0,
            wanted: Carried::NOTHING,
            stale_entry: 0,
            carried: Vec::new(),
            cold_carried: None,
            carried_before: None,
            carried_at_miss: Carried::NOTHING,
            marks: Vec::new(),
            slow_insts: Vec::new(),
            thunks,
            options: Options::default(),
            locations: Locations::default(),
            vectors: VectorCache::default(),
            nzcv: Nzcv::Slot,
            nzcv_wanted: Vec::new(),
            flags_dead: Vec::new(),
            next_condition: Vec::new(),
            replaced: Vec::new(),
            early: Vec::new(),
            dead: Vec::new(),
            effects: Vec::new(),
            plan: Plan::default(),
            sites: Sites::default(),
            accesses: 0,
            sp_aligned: false,
            exceptions_noted: false,
            cold: Vec::new(),
            numbers: Numbers::default(),
            index: 0,
            offset: 0,
            word: 0,
            count: 0,
            #[cfg(test)]
            called: false,
        }
    }

    /// Generates code for `block`, to execute at `base`; its exits and side table entries get numbers from
    /// `numbers` on. The result is in the public fields.
    pub fn generate(&mut self, block: &Block, base: u64, numbers: Numbers, options: Options) {
        self.asm.reset_named(base, vector_names(&options));
        self.asm.marks = options.flush;
        self.exits.clear();
        self.side_table.clear();
        self.numbers = numbers;
        self.slow_insts.clear();
        self.marks.clear();
        self.options = options;
        self.nzcv = Nzcv::Slot;
        self.vectors = VectorCache::new(&options);
        self.carried.clear();
        self.carried.push(Carried::NOTHING);
        self.cold_carried = None;
        self.locations.prepare(block);
        self.look_ahead(block);
        self.sites.prepare(block);
        self.sp_aligned = false;
        self.exceptions_noted = false;
        self.count = 0;
        self.entries(block);
        let mut fused = 0;
        for (i, inst) in block.insts.iter().enumerate() {
            if let Inst::Start { offset, word } = *inst {
                (self.offset, self.word, self.accesses) = (offset, word, 0);
                if self.options.marks {
                    self.marks.push((self.asm.len() as u32, offset));
                }
                self.start_counting(block, i + 1);
                continue;
            }
            self.index = i;
            self.locations.at = i;
            self.vectors.next_instruction();
            self.carried_before = None;
            if i >= fused && !self.dead[i] {
                self.note_exceptions(&block.insts, i);
                match self.fuse(&block.insts[i..]) {
                    Some(count) => fused = i + count,
                    None => self.inst(inst),
                }
                self.settle_marks(inst);
            }
            self.locations.release(i);
            self.follow_changes(i);
            self.release_condition();
        }
        // Slow paths may defer further ones.
        let mut next = 0;
        while next < self.cold.len() {
            let done = (Cold::Done, 0, NO_NAMES, Carried::NOTHING);
            let (cold, count, names, carried) = std::mem::replace(&mut self.cold[next], done);
            (self.count, self.asm.names, self.cold_carried) = (count, names, Some(carried));
            self.emit_cold(cold);
            self.asm.marked.clear();
            next += 1;
        }
        self.cold.clear();
        if self.warm_entry != self.inner_entry {
            self.stale_entry(block);
        }
        // Room to overwrite both entries when the block is invalidated.
        while self.asm.len() < self.warm_entry as usize + ENTRY_ROOM {
            self.asm.int3();
        }
    }

    /// Outer entry: rax holds the virtual address, rdx PSTATE.BTYPE if the model has it; sets the page. Inner entry follows.
    fn entries(&mut self, block: &Block) {
        self.asm.op_imm(Op2::And, true, RAX, -4096);
        self.asm.store(true, field(std::mem::offset_of!(crate::runtime::state::JitState, page_va)), RAX);
        self.check_landing(block);
        self.inner_entry = self.asm.len() as u32;
        if self.options.count {
            let m = field(std::mem::offset_of!(crate::runtime::state::JitState, blocks_run));
            self.asm.op_imm(Op2::Add, true, m, 1);
        }
        self.check_limit(block);
        self.land();
        self.warm_up(block);
    }

    /// Goes over the block backwards: what is live, what is used last, which accesses share their base.
    fn look_ahead(&mut self, block: &Block) {
        self.nzcv_wanted.clear();
        self.nzcv_wanted.resize(block.insts.len() + 1, Wanted::All);
        self.effects.clear();
        self.effects.resize(block.insts.len(), Effect::default());
        self.plan.clear();
        self.flags_dead.clear();
        self.flags_dead.extend_from_slice(&block.flags_dead);
        self.next_condition.clear();
        self.next_condition.resize(block.insts.len(), None);
        let (mut wanted, mut condition) = (Wanted::All, None);
        self.replaced.clear();
        self.replaced.resize(block.insts.len(), false);
        self.early.clear();
        self.early.resize(block.insts.len(), None);
        let mut next = None;
        self.dead.clear();
        self.dead.resize(block.insts.len(), false);
        // Guest registers whose values somebody may see before they are replaced.
        let everybody_looks = self.options.counted || self.options.trace || self.options.watch;
        let mut seen = u32::MAX;
        // Those that an instruction reads before they are replaced.
        let mut read = u32::MAX;
        for (i, inst) in block.insts.iter().enumerate().rev() {
            if matches!(inst, Inst::Start { .. }) {
                self.nzcv_wanted[i] = wanted;
                self.locations.note_reads(i, &[], &[]);
                next = None;
                continue;
            }
            let facts = inst.facts();
            self.early[i] = next.and_then(|next| self.locations.early_place(i, &facts, &next));
            next = Some(facts);
            let (definitions, change, leaves) = (facts.definitions, facts.change, facts.leaves);
            self.effects[i] = Effect { definitions, change, leaves };
            if let [Reg(d @ 0..32), Reg::NONE] = definitions
                && (seen | read) & 1 << d == 0
                && inst.is_pure()
            {
                self.dead[i] = true;
                self.locations.note_reads(i, &[], &[]);
                (self.nzcv_wanted[i], self.next_condition[i]) = (wanted, condition);
                continue;
            }
            wanted = match (inst, inst.condition()) {
                (Inst::Branch { target }, _) if block.flags_dead.contains(target) => Wanted::Nothing,
                (Inst::BranchIf { target, .. }, asked) if block.flags_dead.contains(target) => {
                    asked.map_or(wanted, |cond| wanted.and(cond))
                }
                _ if facts.leaves => Wanted::All,
                (Inst::AddCarry { .. }, _) => wanted.and(CARRY_SET),
                (Inst::AluFlags { op: FlagOp::Adc | FlagOp::Sbc, .. }, _) => Wanted::Nothing.and(CARRY_SET),
                (_, Some(cond)) if facts.writes_flags => Wanted::Nothing.and(cond),
                (_, Some(cond)) => wanted.and(cond),
                _ if facts.reads_flags => Wanted::All,
                _ if facts.writes_flags => Wanted::Nothing,
                _ => wanted,
            };
            self.nzcv_wanted[i] = wanted;
            self.next_condition[i] = condition;
            if let [Reg(d @ 0..32), Reg::NONE] = facts.definitions {
                self.replaced[i] = seen & 1 << d == 0;
                seen &= !(1 << d);
            }
            if facts.leaves || everybody_looks || facts.definitions[1] != Reg::NONE {
                seen = u32::MAX;
            }
            if let Some(cond) = inst.condition() {
                condition = Some(cond);
            } else if inst.asks_for_carry() {
                condition = Some(CARRY_SET);
            } else if facts.reads_flags || facts.writes_flags {
                condition = None;
            }
            let bits = |all: &[Reg]| all.iter().filter(|r| r.0 < 32).fold(0, |bits, r| bits | 1 << r.0);
            read = if facts.leaves { u32::MAX } else { read & !bits(&definitions) | bits(&facts.uses) };
            self.locations.note_uses(i, &facts.uses);
            self.locations.note_reads(i, &definitions, &facts.uses);
            if self.options.windows {
                self.plan.add(i, &facts);
            }
        }
    }

    /// Gets out of what invalidation overwrites, before a place that a slow path may come back to: the access may
    /// itself have invalidated its block. Changes nothing.
    fn leave_entry(&mut self) {
        while self.asm.len() < self.warm_entry as usize + ENTRY_ROOM {
            self.asm.lea(true, RAX, M::at(RAX, 0));
        }
    }

    /// Defers emission of a slow path to behind the block.
    fn defer(&mut self, cold: impl FnOnce(&mut Generator) + 'static) {
        self.later(Cold::Other(Box::new(cold)));
    }

    /// Puts code behind the block.
    fn later(&mut self, cold: Cold) {
        self.cold.push((cold, self.count, self.asm.names, self.carried_now()));
    }

    fn emit_cold(&mut self, cold: Cold) {
        match cold {
            Cold::Exit { from, index } => {
                self.asm.bind(from);
                self.store_dirty();
                self.asm.push_imm((self.numbers.exit + index) as i32);
                self.asm.jmp_to(self.thunks.chain);
            }
            Cold::Taken { from, target } => {
                self.asm.bind(from);
                self.spend(self.count);
                let go = self.asm.jmp();
                self.exit_site(go, target);
            }
            Cold::Across { from, target } => {
                self.asm.bind(from);
                self.jump_across(target);
            }
            Cold::Access { from, index } => {
                self.asm.bind(from);
                self.call_access(index);
            }
            Cold::Window { from, index, offset, registers } => {
                self.asm.bind(from);
                self.window_missed(index, offset, registers);
            }
            Cold::Elsewhere(e) => self.look_elsewhere(&e),
            Cold::Leave { from, exit, offset } => {
                self.asm.bind(from);
                self.leave(exit, offset);
            }
            Cold::Other(f) => f(self),
            Cold::Done => {}
        }
    }

    fn inst(&mut self, inst: &Inst) {
        match inst {
            Inst::Start { .. } => unreachable!("has been looked at"),
            Inst::Mov { .. }
            | Inst::Alu { .. }
            | Inst::AluFlags { .. }
            | Inst::AddCarry { .. }
            | Inst::Unary { .. }
            | Inst::Extract { .. }
            | Inst::Insert { .. }
            | Inst::Extr { .. }
            | Inst::MulHigh { .. }
            | Inst::Div { .. }
            | Inst::MinMax { .. }
            | Inst::Pauth { .. }
            | Inst::Crc32 { .. }
            | Inst::Select { .. }
            | Inst::CondCompare { .. }
            | Inst::GetNzcv { .. }
            | Inst::SetNzcv { .. }
            | Inst::PcRel { .. } => self.integer(inst),
            Inst::CheckSp
            | Inst::Load { .. }
            | Inst::LoadPair { .. }
            | Inst::Store { .. }
            | Inst::StorePair { .. }
            | Inst::LoadV { .. }
            | Inst::LoadVPair { .. }
            | Inst::StoreV { .. }
            | Inst::StoreVPair { .. }
            | Inst::LoadEx { .. }
            | Inst::StoreEx { .. }
            | Inst::ClearEx
            | Inst::AtomicRmw { .. }
            | Inst::Cas { .. }
            | Inst::CasPair { .. }
            | Inst::Mops { .. }
            | Inst::Barrier(_) => self.memory(inst),
            Inst::BranchIf { .. }
            | Inst::Branch { .. }
            | Inst::BranchReg { .. }
            | Inst::Raise(_)
            | Inst::Eret
            | Inst::EretAuthenticated { .. }
            | Inst::WaitUntil { .. }
            | Inst::Hint(_) => self.control(inst),
            Inst::SysRead { .. } | Inst::SysWrite { .. } | Inst::PstateImm { .. } | Inst::Sys { .. } => {
                self.system(inst);
            }
            _ => self.vector(inst),
        }
    }
}
