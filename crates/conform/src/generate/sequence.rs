//! Cases of many instructions that use each other's results, branch, loop, load and store through pointers that
//! survive, and often end in a fault. Built instruction by instruction along what the interpreter executes.

use armlet_accel_jit::ir::interp::{Exit, run};
use armlet_accel_jit::lift::is_data_simd;
use armlet_arm::state::{ExclusiveMonitor, FpEnv};
use armlet_arm::{Class, CpuState, Enc, Pstate};

use super::{Plan, Reach, fill, hash, is_unmapped, state};
use crate::explain;
use crate::interp::{self, Fault, Memory};
use crate::program::{self, Layout};
use crate::random::Random;
use crate::{Case, Place, asm};

/// Registers that point into the case's memory, or to an edge.
const POINTERS: [u32; 6] = [0, 1, 19, 20, 29, 31];
/// Registers with small numbers.
const INDICES: [u32; 3] = [2, 3, 8];
/// The loops' counter, which nothing else uses.
const COUNTER: u32 = 27;
/// Shortest and longest sequence, instructions.
const LENGTH: (u64, u64) = (10, 200);
/// Instructions executed at most, those of loops counted each time.
const MOST_STEPS: usize = 4000;

/// What a step can change, to be able to take it back.
struct Before {
    x: [u64; 32],
    v: [u128; 32],
    pc: u64,
    pstate: Pstate,
    fp: FpEnv,
    monitor: ExclusiveMonitor,
}

impl Before {
    fn of(cpu: &CpuState) -> Self {
        Self { x: cpu.x, v: cpu.v, pc: cpu.pc, pstate: cpu.pstate, fp: cpu.fp, monitor: cpu.monitor }
    }

    fn put_back(&self, cpu: &mut CpuState, memory: &mut Memory<'_>) {
        (cpu.x, cpu.v, cpu.pc, cpu.pstate, cpu.fp) = (self.x, self.v, self.pc, self.pstate, self.fp);
        cpu.monitor = self.monitor;
        for (at, bytes) in memory.journal.iter_mut().flat_map(|j| j.drain(..).rev()) {
            memory.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }
}

/// What became of a step.
enum Step {
    Went,
    /// It ended the sequence, by an exception that every executor takes.
    Ended,
    /// It did what a sequence may not do.
    Bad,
}

/// A sequence that is being made.
struct Making<'a> {
    plan: &'a Plan,
    encodings: &'a [Enc],
    place: Place,
    body: Vec<u32>,
    last: Option<Enc>,
    length: usize,
    steps: usize,
    /// Where an open loop begins.
    open: Option<usize>,
    /// The branch that closed the last loop, and what was then.
    closed: Option<(usize, Before, Vec<u8>)>,
    /// Whether a fault may end it.
    may_fault: bool,
}

impl Plan {
    /// The encodings that sequences are made of.
    pub fn for_sequences(&self) -> Vec<Enc> {
        let suits = |c: Class| {
            // A pair's half of LDXP and STXP with a single register's other half is CONSTRAINED UNPREDICTABLE.
            !matches!(
                c,
                Class::BranchReg
                    | Class::Memcms
                    | Class::Loadlit
                    | Class::Exception
                    | Class::LdstPac
                    | Class::Ldstexclp
                    | Class::PermUndef
            )
        };
        let list = self.encodings.iter().copied();
        // The oracle gets these wrong with FPCR.AH set, and what follows would differ, too.
        let wrong = |e: Enc| {
            let vector = matches!(e.class(), Class::Asimdmisc | Class::Asimdmiscfp16);
            vector && matches!(e.mnemonic(), "FABS" | "FNEG")
        };
        list.filter(|&e| suits(e.class()) && !wrong(e) && self.reach(e) == Reach::User).collect()
    }

    /// Sequence `number`, of some of `encodings`, placed by `layout`.
    pub fn sequence(&self, encodings: &[Enc], number: u64, layout: &mut Layout) -> Option<Case> {
        let mut r = Random::new(&[self.seed, hash("sequence"), number]);
        (0..8).find_map(|_| self.attempt(&mut r, encodings, number, layout))
    }

    fn attempt(&self, r: &mut Random, encodings: &[Enc], number: u64, layout: &mut Layout) -> Option<Case> {
        let code = layout.next_code();
        let place = Place { code, record: layout.next_record() };
        let mut record = state::random(r, &self.features);
        let may_fault = r.one_in(2);
        for n in POINTERS {
            record.x[n as usize] = place.memory() + 256 + r.below(16) * 16;
        }
        if may_fault {
            let n = r.of(&POINTERS[..5]) as usize;
            record.x[n] = program::EDGE_READ + program::PAGE - 16 * (1 + r.below(16));
        }
        for n in INDICES {
            record.x[n as usize] = (r.below(64) as i64 - 32) as u64;
        }
        let length = (LENGTH.0 + r.below(LENGTH.1 - LENGTH.0 + 1)) as usize;
        let mut making = Making {
            plan: self,
            encodings,
            place,
            body: Vec::new(),
            last: None,
            length,
            steps: 0,
            open: None,
            closed: None,
            may_fault,
        };
        let mut bytes = record.memory.clone();
        let mut memory = Memory {
            at: place.memory(),
            bytes: &mut bytes,
            code: &[],
            features: &self.features,
            journal: Some(Vec::new()),
        };
        if !making.make(r, record.to_cpu(code), &mut memory) {
            return None;
        }
        let (body, enc) = (making.body, making.last?);
        let case = Case { enc, number, state: 0, body, place, record };
        if !self.is_sound(&case) {
            return None;
        }
        layout.take_code(case.body.len());
        layout.place(code);
        Some(case)
    }
}

impl Making<'_> {
    /// False if it does what it may not.
    fn make(&mut self, r: &mut Random, mut cpu: CpuState, memory: &mut Memory<'_>) -> bool {
        loop {
            if self.steps >= MOST_STEPS {
                return false;
            }
            let at = ((cpu.pc - self.place.code) / 4) as usize;
            if at < self.body.len() {
                // Round a loop once more.
                match self.step(&mut cpu, memory, self.body[at]) {
                    Step::Went => {}
                    Step::Ended => break,
                    Step::Bad if self.open_up(&mut cpu, memory) => {}
                    Step::Bad => return false,
                }
            } else if self.body.len() >= self.length {
                return true;
            } else if at > self.body.len() {
                // Jumped over, this time.
                if let Some((word, enc)) = self.random_word(r)
                    && !fill::is_memory(enc.class())
                    && !self.plan.is_undefined(cpu.pc, word)
                {
                    self.body.push(word);
                }
            } else {
                match self.append(r, &mut cpu, memory) {
                    Step::Went | Step::Bad => {}
                    Step::Ended => break,
                }
            }
        }
        // What must not be executed, or only by who gets it wrong.
        for _ in 0..3 {
            self.body.push(asm::add_imm(4, 4, 1));
        }
        true
    }

    /// One more instruction where execution is.
    fn append(&mut self, r: &mut Random, cpu: &mut CpuState, memory: &mut Memory<'_>) -> Step {
        let here = self.body.len();
        let room = self.length - here;
        match self.open {
            None if room > 24 && r.one_in(24) => {
                self.open = Some(here + 1);
                return self.push(cpu, memory, asm::movz_w(COUNTER, 1 + r.below(5) as u32));
            }
            Some(start) if here - start >= 3 && (r.one_in(6) || room < 4) => {
                self.open = None;
                let count = self.push(cpu, memory, asm::sub_imm_w(COUNTER, COUNTER, 1));
                if !matches!(count, Step::Went) {
                    return count;
                }
                let (from, to) = (4 * (here as u64 + 1), 4 * start as u64);
                self.closed = Some((here + 1, Before::of(cpu), memory.bytes.to_vec()));
                return self.push(cpu, memory, asm::cbnz_w(COUNTER, from, to));
            }
            _ => {}
        }
        if r.one_in(20) {
            return self.new_pointer(r, cpu, memory);
        }
        let Some((word, enc)) = self.random_word(r) else { return Step::Bad };
        if let Some(first) = before(enc, word) {
            let step = self.try_push(cpu, memory, first);
            if !matches!(step, Step::Went) {
                return step;
            }
        }
        let step = self.try_push(cpu, memory, word);
        if !matches!(step, Step::Bad) {
            self.last = Some(enc);
        }
        step
    }

    /// Points a register into the memory again.
    fn new_pointer(&mut self, r: &mut Random, cpu: &mut CpuState, memory: &mut Memory<'_>) -> Step {
        let n = r.of(&POINTERS[..5]);
        let step = if r.one_in(2) { 16 } else { 1 };
        let to = self.place.memory() + 256 + r.below(512 / step) * step;
        self.push(cpu, memory, asm::movz(n, to as u32 & 0xffff, 0));
        self.push(cpu, memory, asm::movk(n, (to >> 16) as u32, 1))
    }

    /// As [`Self::push`], taken back if it does what may not be done.
    fn try_push(&mut self, cpu: &mut CpuState, memory: &mut Memory<'_>, word: u32) -> Step {
        let before = Before::of(cpu);
        let step = self.push(cpu, memory, word);
        if matches!(step, Step::Bad) {
            self.body.pop();
            before.put_back(cpu, memory);
        }
        step
    }

    /// Makes the last loop none, since going round it once more does what may not be done. False if there is none.
    fn open_up(&mut self, cpu: &mut CpuState, memory: &mut Memory<'_>) -> bool {
        let Some((at, before, bytes)) = self.closed.take() else { return false };
        if let Some(journal) = &mut memory.journal {
            journal.clear();
        }
        before.put_back(cpu, memory);
        memory.bytes.copy_from_slice(&bytes);
        self.body.truncate(at);
        self.body.push(asm::NOP);
        cpu.pc += 4;
        true
    }

    fn push(&mut self, cpu: &mut CpuState, memory: &mut Memory<'_>, word: u32) -> Step {
        self.body.push(word);
        self.step(cpu, memory, word)
    }

    fn step(&mut self, cpu: &mut CpuState, memory: &mut Memory<'_>, word: u32) -> Step {
        self.steps += 1;
        if let Some(journal) = &mut memory.journal {
            journal.clear();
        }
        if is_stray_store(cpu, word) || explain::is_misjudged(word, &cpu.x) {
            return Step::Bad;
        }
        let block = interp::lifted(&self.plan.features, cpu, word);
        let exit = run(&block, cpu.pc & !0xfff, cpu, memory);
        let faults = match exit {
            _ if interp::goes_on(&exit) => false,
            Exit::Fault(Fault::Address(a)) => is_unmapped(a),
            Exit::Fault(Fault::Alignment) if self.plan.oracle_aligns_alike() => true,
            _ => return Step::Bad,
        };
        if !cpu.x[31].is_multiple_of(16) {
            return Step::Bad;
        }
        match faults {
            false => Step::Went,
            true if self.may_fault => Step::Ended,
            true => Step::Bad,
        }
    }

    fn random_word(&self, r: &mut Random) -> Option<(u32, Enc)> {
        let enc = r.of(self.encodings);
        let word = fill::fill(r, &self.plan.features, enc)?;
        let room = self.length.saturating_sub(self.body.len()).max(1) as u32;
        let word = suit(r, enc, word, room);
        let uses_counter = [0, 5, 10, 16].iter().any(|at| word >> at & 31 == COUNTER);
        // Most pointers and indices stay what they are, or the sequence would soon end.
        let kept = |n: u32| POINTERS.contains(&n) || INDICES.contains(&n);
        let written = match enc.class() {
            c if is_data_simd(c) => false,
            c if fill::is_memory(c) => [0, 10, 16].iter().any(|at| kept(word >> at & 31)),
            Class::AddsubImm | Class::AddsubExt | Class::LogImm => kept(word & 31),
            _ => word & 31 != 31 && kept(word & 31),
        };
        let fits = !uses_counter && (!written || r.one_in(16));
        (fits && armlet_arm::decode(word) == Some(enc)).then_some((word, enc))
    }
}

/// True for a store-exclusive that a branch has led to past its load, while a monitor is open for another size or
/// another address: whether it stores is CONSTRAINED UNPREDICTABLE (Arm ARM B2.17.5).
fn is_stray_store(cpu: &CpuState, word: u32) -> bool {
    let class = armlet_arm::decode(word).map(Enc::class);
    let stores = class == Some(Class::Ldstexclr) && word >> 22 & 1 == 0;
    let (open, size) = (cpu.monitor.address, 1 << (word >> 30));
    stores && open != u64::MAX && (open, cpu.monitor.size) != (cpu.x[word as usize >> 5 & 31], size)
}

/// What an instruction needs before it: a store-exclusive its load; an MSR to FPCR or FPSR only bits in Xt that every
/// executor has.
fn before(enc: Enc, word: u32) -> Option<u32> {
    let t = word & 31;
    if enc.class() == Class::Ldstexclr && word >> 22 & 1 == 0 {
        return Some(fill::load_exclusive_for(word));
    }
    // AND Xt, Xt, #0x07c00000 and AND Xt, Xt, #0x1f.
    match word & !31 {
        0xd51b_4400 if t != 31 => Some(0x926a_1000 | t << 5 | t),
        0xd51b_4420 if t != 31 => Some(0x9240_1000 | t << 5 | t),
        _ => None,
    }
}

/// Makes an instruction fit a sequence in which `room` more instructions have place.
fn suit(r: &mut Random, enc: Enc, word: u32, room: u32) -> u32 {
    // To one of the next instructions, at most to what follows the last.
    let skip = 1 + r.below(u64::from(room.min(4))) as u32;
    let base = |word: u32, n: u32| word & !(31 << 5) | n << 5;
    match enc.class() {
        Class::BranchImm => word & !0x3ff_ffff | skip,
        Class::Condbranch | Class::Compbranch => word & !0xff_ffe0 | skip << 5,
        Class::Testbranch => word & !0x7_ffe0 | skip << 5,
        Class::Systeminstrs => word & !31 | r.of(&POINTERS[..5]),
        c if fill::is_memory(c) => {
            let word = base(word, r.of(&POINTERS));
            let word = if c == Class::LdstRegoff {
                word & !(31 << 16) | r.of(&[INDICES[0], INDICES[1], INDICES[2], 31]) << 16
            } else {
                word
            };
            // Small offsets, so that pointers stay inside.
            match c {
                Class::LdstPos => word & !(0xff0 << 10),
                Class::LdstImmpost | Class::LdstImmpre => word & !(0x1c0 << 12),
                _ => word,
            }
        }
        _ => word,
    }
}
