//! The test program: a static arm64 ELF that loads one state after the other from its records, executes the
//! instructions that each names, and stores the state. Its code is made here, word by word, so that no cross compiler
//! is needed. The records are a file on its standard input, which it maps where the code expects it.

use armlet_arm::{Feature, FeatureSet};

use crate::asm::*;
use crate::record;
use crate::{Case, Place};

/// Where the code is.
pub const CODE: u64 = 0x40_0000;
/// Bytes that the code may have.
pub const CODE_SIZE: u64 = 2 << 20;
/// Where the records are.
pub const DATA: u64 = 0x1000_0000;
/// A page that can only be read, in front of one that is not mapped.
pub const EDGE_READ: u64 = 0x2000_0000;
/// A page that can be written, in front of one that is not mapped. What is stored there is compared by nobody.
pub const EDGE_WRITE: u64 = EDGE_READ + 2 * PAGE;
/// The pages from [`EDGE_READ`] on that belong to the edges, mapped or not.
pub const EDGE_SIZE: u64 = 4 * PAGE;
/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes before the first instructions under test: start, signal handler, loading, storing.
const PROLOGUE: u64 = 0x1000;
/// Where the pages with instructions under test begin.
pub const BODIES: u64 = CODE + PROLOGUE;
/// Bytes of the data before the first record, with the signal structures. Not a multiple of a record's size, so that a
/// page ends in the middle of every second record's memory.
const DATA_HEADER: u64 = 0x1_0200;
/// The signal stack. Where SP points into it, a signal would count as one inside another and push its frame below SP: it is
/// where neither what is in registers nor a mask or a sum of that leads.
const STACK: u64 = 0x5b6a_9310_0000;
const STACK_SIZE: u64 = 0x1_0000;
/// Where the data's head says which record is being worked on.
const CURRENT: u64 = DATA + 0x80;
/// Instructions before and after those under test.
const STUB: (u64, u64) = (2, 2);
/// Most instructions under test that run in one go.
pub const MAX_BODY: usize = 256;
/// Signals that are caught: SIGILL, SIGTRAP, SIGBUS, SIGSEGV.
const SIGNALS: [u32; 4] = [4, 5, 7, 11];

/// Gives places in a program to instructions and states.
#[derive(Clone, Debug)]
pub struct Layout {
    code: u64,
    records: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self { code: CODE + PROLOGUE + 4 * STUB.0, records: 0 }
    }
}

impl Layout {
    /// Where the next instructions under test will begin.
    pub const fn next_code(&self) -> u64 {
        self.code
    }

    /// Takes the place for `count` instructions.
    pub const fn take_code(&mut self, count: usize) {
        self.code += 4 * (count as u64 + STUB.0 + STUB.1);
    }

    /// True if there is no place for another [`MAX_BODY`] instructions.
    pub const fn is_full(&self) -> bool {
        self.code + 4 * (MAX_BODY as u64 + 16) > CODE + CODE_SIZE - PAGE
    }

    /// Where the next state will be.
    pub const fn next_record(&self) -> u64 {
        record_address(self.records)
    }

    /// Takes the place of one more state, for instructions at `code`.
    pub const fn place(&mut self, code: u64) -> Place {
        let record = self.next_record();
        self.records += 1;
        Place { code, record }
    }
}

/// Address of record `index`.
pub const fn record_address(index: usize) -> u64 {
    DATA + DATA_HEADER + (index * record::SIZE) as u64
}

/// Offset from the end of the instructions to what they fall through to, and to the branch target behind it.
pub const TAKEN_OFFSET: u64 = 4;

struct Code {
    base: u64,
    words: Vec<u32>,
}

impl Code {
    fn at(base: u64) -> Self {
        Self { base, words: Vec::new() }
    }

    fn here(&self) -> u64 {
        self.base + 4 * self.words.len() as u64
    }

    fn put(&mut self, word: u32) {
        self.words.push(word);
    }

    /// An address into a register.
    fn address(&mut self, d: u32, value: u64) {
        self.put(movz(d, value as u32 & 0xffff, 0));
        self.put(movk(d, (value >> 16) as u32 & 0xffff, 1));
        if value >> 32 != 0 {
            self.put(movk(d, (value >> 32) as u32 & 0xffff, 2));
        }
    }

    /// Maps memory that can be read and written.
    fn map(&mut self, address: u64, size: u64, flags: u32) {
        self.address(0, address);
        self.address(1, size);
        for (register, value) in [(2, 3), (3, flags), (4, 0), (5, 0)] {
            self.put(movz(register, value, 0));
        }
        self.system_call(222); // mmap
    }

    fn system_call(&mut self, number: u32) {
        self.put(movz(8, number, 0));
        self.put(SVC);
    }

    fn branch(&mut self, to: u64) {
        self.put(b(self.here(), to));
    }
}

/// Where the parts of the prologue are.
const HANDLER: u64 = CODE + 0x200;
/// Loads the state of the record in X28 and goes to its instructions.
pub const LOAD: u64 = CODE + 0x400;
const FELL: u64 = CODE + 0x600;
const TAKEN: u64 = CODE + 0x640;
const SAVE: u64 = CODE + 0x680;
/// Where the last case goes on to.
pub const FINISH: u64 = CODE + 0x900;

/// Maps the records, sets up signals and goes to the first case.
fn start(data_size: u64) -> Code {
    let mut c = Code::at(CODE);
    c.map(DATA, data_size, 0x11); // MAP_SHARED | MAP_FIXED, standard input
    c.map(STACK, STACK_SIZE, 0x32); // MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
    c.address(0, DATA);
    c.put(movz(1, 0, 0));
    c.system_call(132); // sigaltstack
    for n in SIGNALS {
        c.put(movz(0, n, 0));
        c.address(1, DATA + 0x40);
        c.put(movz(2, 0, 0));
        c.put(movz(3, 8, 0));
        c.system_call(134); // rt_sigaction
    }
    c.address(28, record_address(0));
    c.branch(LOAD);
    c
}

/// The signal handler: copies the interrupted state from the signal frame to the record and goes on with the next
/// case, without ever returning from the signal.
fn handler() -> Code {
    /// X0 in Linux's arm64 `ucontext`.
    const REGS: u32 = 184;
    let mut c = Code::at(HANDLER);
    c.put(mrs(3, TPIDR_EL0));
    c.put(add_imm(0, 0, record::SIGNAL as u32));
    c.put(str(0, 3, record::STATUS));
    c.put(ldr(4, 1, 16));
    c.put(str(4, 3, record::FAR));
    for i in 0..16 {
        c.put(ldp(4, 5, 2, REGS + 16 * i));
        c.put(stp(4, 5, 3, 16 * i));
    }
    c.put(ldr(4, 2, REGS + 8 * 32));
    c.put(str(4, 3, record::PC));
    c.put(ldr(4, 2, REGS + 8 * 33));
    c.put(and_flags(4, 4));
    c.put(str(4, 3, record::NZCV));
    c.put(ldr_w(4, 2, 472));
    c.put(str(4, 3, record::FPSR));
    c.put(ldr_w(4, 2, 476));
    c.put(str(4, 3, record::FPCR));
    c.put(add_imm(2, 2, 480));
    for i in 0..16 {
        c.put(ldp_q(0, 1, 2, 32 * i));
        c.put(stp_q(0, 1, 3, record::V + 32 * i));
    }
    c.put(mov(0, 3));
    next(&mut c);
    c
}

/// To the case after that of the record in X0.
fn next(c: &mut Code) {
    c.put(ldr(28, 0, record::NEXT));
    c.put(cbz(28, c.here(), FINISH));
    c.branch(LOAD);
}

/// Loads all state from the record in X28, which stays in TPIDR_EL0, and goes to the instructions under test; X28 is
/// loaded there.
fn load(features: &FeatureSet) -> Code {
    let mut c = Code::at(LOAD);
    c.put(msr(TPIDR_EL0, 28));
    c.address(0, CURRENT);
    c.put(str(28, 0, 0));
    for (feature, word) in [(Feature::Dit, MSR_DIT_0), (Feature::Ssbs2, MSR_SSBS_0)] {
        if features.has(feature) {
            c.put(word);
        }
    }
    for (reg, at) in [(NZCV, record::NZCV), (FPCR, record::FPCR), (FPSR, record::FPSR)] {
        c.put(ldr(0, 28, at));
        c.put(msr(reg, 0));
    }
    c.put(ldr(0, 28, record::SP));
    c.put(mov_to_sp(0));
    for i in (0..32).step_by(2) {
        c.put(ldp_q(i, i + 1, 28, record::V + 16 * i));
    }
    for i in (0..28).step_by(2) {
        c.put(ldp(i, i + 1, 28, 8 * i));
    }
    c.put(ldp(29, 30, 28, 8 * 29));
    c.put(ldr(28, 28, record::ENTRY));
    c.put(CLREX);
    c.put(br(28));
    c
}

/// Stores the status that stands for how a case ended, and goes to store the rest.
fn ended(at: u64, status: u64) -> Code {
    let mut c = Code::at(at);
    c.put(msr(TPIDR_EL0, 0));
    c.address(0, CURRENT);
    c.put(ldr(0, 0, 0));
    c.put(str(1, 0, 8));
    c.put(movz(1, status as u32, 0));
    c.branch(SAVE);
    c
}

/// Stores all state: X0 is the record, its own value is in TPIDR_EL0; X1 is the status, its own value is stored.
fn save() -> Code {
    let mut c = Code::at(SAVE);
    c.put(str(1, 0, record::STATUS));
    c.put(mrs(1, TPIDR_EL0));
    c.put(str(1, 0, 0));
    for i in (2..30).step_by(2) {
        c.put(stp(i, i + 1, 0, 8 * i));
    }
    c.put(str(30, 0, 8 * 30));
    c.put(mov_from_sp(1));
    c.put(str(1, 0, record::SP));
    for (reg, at) in [(NZCV, record::NZCV), (FPCR, record::FPCR), (FPSR, record::FPSR)] {
        c.put(mrs(1, reg));
        c.put(str(1, 0, at));
    }
    for i in (0..32).step_by(2) {
        c.put(stp_q(i, i + 1, 0, record::V + 16 * i));
    }
    next(&mut c);
    c
}

/// Exits.
fn finish() -> Code {
    let mut c = Code::at(FINISH);
    c.put(movz(0, 0, 0));
    c.system_call(93); // exit
    c
}

/// What the end of the program is without an operating system: an SVC, with a record behind the last for the
/// exception to be stored in.
pub fn finish_by_call(cases: usize) -> Vec<u32> {
    let mut c = Code::at(FINISH);
    c.address(0, record_address(cases));
    c.put(msr(TPIDR_EL0, 0));
    c.put(SVC);
    c.words
}

/// The instructions of one place, between what fetches X28 and the two ends.
fn body(at: u64, instructions: &[u32]) -> Code {
    let mut c = Code::at(at - 4 * STUB.0);
    c.put(mrs(28, TPIDR_EL0));
    c.put(ldr(28, 28, 8 * 28));
    c.words.extend_from_slice(instructions);
    c.branch(FELL);
    c.branch(TAKEN);
    c
}

fn place(image: &mut [u8], code: &Code, limit: u64) {
    let from = (code.base - CODE) as usize;
    assert!(code.here() <= limit, "the code at {:#x} is too long", code.base);
    for (i, word) in code.words.iter().enumerate() {
        image[from + 4 * i..from + 4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// The code image of these cases, from [`CODE`] on, in whole pages and with some room behind.
pub fn code(features: &FeatureSet, cases: &[Case]) -> Vec<u8> {
    let end = cases.iter().map(|c| c.place.code + 4 * (c.body.len() as u64 + STUB.1)).max();
    let end = (end.unwrap_or(CODE + PROLOGUE) + 256).next_multiple_of(PAGE);
    let mut image = vec![0; (end - CODE) as usize];
    place(&mut image, &start(data_size(cases.len())), HANDLER);
    place(&mut image, &handler(), LOAD);
    place(&mut image, &load(features), FELL);
    place(&mut image, &ended(FELL, record::FELL), TAKEN);
    place(&mut image, &ended(TAKEN, record::TAKEN), SAVE);
    place(&mut image, &save(), FINISH);
    place(&mut image, &finish(), CODE + PROLOGUE);
    let mut last = 0;
    for case in cases {
        if case.place.code != last {
            place(&mut image, &body(case.place.code, &case.body), end);
            last = case.place.code;
        }
    }
    image
}

/// Bytes of the data of so many records: whole pages.
pub fn data_size(records: usize) -> u64 {
    (DATA_HEADER + (records * record::SIZE) as u64).next_multiple_of(PAGE)
}

/// The data image, from [`DATA`] on: signal structures, then the cases' states.
pub fn data(cases: &[Case]) -> Vec<u8> {
    let mut image = vec![0; data_size(cases.len()) as usize];
    let mut put = |at: usize, v: u64| image[at..at + 8].copy_from_slice(&v.to_le_bytes());
    // stack_t: base, flags, size.
    put(0, STACK);
    put(16, STACK_SIZE);
    // sigaction: handler, SA_SIGINFO | SA_ONSTACK | SA_NODEFER, restorer, mask.
    put(0x40, HANDLER);
    put(0x48, 0x4800_0004);
    for (i, case) in cases.iter().enumerate() {
        let next = if i + 1 < cases.len() { record_address(i + 1) } else { 0 };
        let from = (case.place.record - DATA) as usize;
        debug_assert_eq!(case.place.record, record_address(i));
        let entry = case.place.code - 4 * STUB.0;
        case.record.put(entry, next, &mut image[from..from + record::SIZE]);
    }
    image
}

/// The byte at `offset` of the page at [`EDGE_READ`].
pub const fn edge_byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9d) >> 3 ^ offset) as u8
}

/// The pages at [`EDGE_READ`] and [`EDGE_WRITE`].
pub fn edges() -> [Vec<u8>; 2] {
    [(0..PAGE).map(edge_byte).collect(), vec![0; PAGE as usize]]
}

/// The ELF file with the code and the edges.
pub fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 3 * 56;
    let [read, write] = edges();
    let mut f: Vec<u8> = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |f: &mut Vec<u8>, v: u16| f.extend_from_slice(&v.to_le_bytes());
    let word = |f: &mut Vec<u8>, v: u32| f.extend_from_slice(&v.to_le_bytes());
    let long = |f: &mut Vec<u8>, v: u64| f.extend_from_slice(&v.to_le_bytes());
    half(&mut f, 2); // ET_EXEC
    half(&mut f, 183); // EM_AARCH64
    word(&mut f, 1);
    long(&mut f, CODE);
    long(&mut f, 64);
    long(&mut f, 0);
    word(&mut f, 0);
    for v in [64, 56, 3, 64, 0, 0] {
        half(&mut f, v);
    }
    let mut at = PAGE;
    for (flags, address, bytes) in [(5, CODE, code), (4, EDGE_READ, &read), (6, EDGE_WRITE, &write)] {
        let len = bytes.len() as u64;
        word(&mut f, 1); // PT_LOAD
        word(&mut f, flags);
        for v in [at, address, address, len, len, PAGE] {
            long(&mut f, v);
        }
        at += len;
    }
    debug_assert_eq!(f.len() as u64, HEADERS);
    f.resize(PAGE as usize, 0);
    for bytes in [code, &read, &write] {
        f.extend_from_slice(bytes);
    }
    f
}
