//! The test program: a static arm64 ELF that loads each case's state, executes its instructions, stores the state
//! and in the end writes all records to its standard output. Its code is made here, word by word, so that no
//! cross compiler is needed.

use crate::asm::*;
use crate::record;

/// Where the code is.
pub const CODE: u64 = 0x40_0000;
/// Where the records are.
pub const DATA: u64 = 0x1000_0000;
/// Bytes before the first case: start, signal handler, common code.
const PROLOGUE: u64 = 0x1000;
/// Bytes of the data before the first record: signal structures and the signal stack. Not a multiple of a record's
/// size, so that a page ends in the middle of every second record's memory.
const DATA_HEADER: u64 = 0x1_0200;
/// Bytes of each case's code.
const CASE_CODE: u64 = 0x180;
/// Where in a case's code its instructions begin.
const BODY: u64 = 0xd0;
/// Most instructions that a case has.
pub const MAX_BODY: usize = 16;
/// Signals that are caught: SIGILL, SIGTRAP, SIGBUS, SIGSEGV.
const SIGNALS: [u32; 4] = [4, 5, 7, 11];

/// Address of case `index`'s record.
pub const fn record_address(index: usize) -> u64 {
    DATA + DATA_HEADER + (index * record::SIZE) as u64
}

/// Address of case `index`'s first instruction.
pub const fn body_address(index: usize) -> u64 {
    CODE + PROLOGUE + index as u64 * CASE_CODE + BODY
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

    /// An address below 4 GiB into a register.
    fn address(&mut self, d: u32, value: u64) {
        self.put(movz(d, value as u32 & 0xffff, 0));
        self.put(movk(d, (value >> 16) as u32 & 0xffff, 1));
    }

    fn system_call(&mut self, number: u32) {
        self.put(movz(8, number, 0));
        self.put(SVC);
    }
}

/// Where the parts of the prologue are.
const HANDLER: u64 = CODE + 0x200;
const SAVE: u64 = CODE + 0x600;
/// Where the last case goes on to.
pub const FINISH: u64 = CODE + 0x800;

/// Sets up signals and goes to the first case.
fn start() -> Code {
    let mut c = Code::at(CODE);
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
    let to = CODE + PROLOGUE;
    c.put(b(c.here(), to));
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
    c.put(ldr(1, 3, record::NEXT));
    c.put(br(1));
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
    c.put(ldr(1, 0, record::NEXT));
    c.put(br(1));
    c
}

/// Writes the records to standard output and exits.
fn finish(cases: usize) -> Code {
    let mut c = Code::at(FINISH);
    c.address(19, record_address(0));
    c.address(20, (cases * record::SIZE) as u64);
    let again = c.here();
    c.put(movz(0, 1, 0));
    c.put(mov(1, 19));
    c.put(mov(2, 20));
    c.system_call(64); // write
    c.put(add(19, 19, 0));
    c.put(subs(20, 20, 0));
    c.put(b_ne(c.here(), again));
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

/// Address of the first case's code.
pub const fn first_code() -> u64 {
    CODE + PROLOGUE
}

fn case(index: usize, body: &[u32]) -> Code {
    let mut c = Code::at(CODE + PROLOGUE + index as u64 * CASE_CODE);
    let record = record_address(index);
    c.address(28, record);
    c.put(msr(TPIDR_EL0, 28));
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
    c.put(ldr(28, 28, 8 * 28));
    while c.here() < body_address(index) {
        c.put(CLREX);
    }
    c.words.extend_from_slice(body);
    let [fell, taken] = [c.here() + 8, c.here() + 8 + 24];
    c.put(b(c.here(), fell));
    c.put(b(c.here(), taken));
    for status in [record::FELL, record::TAKEN] {
        c.put(msr(TPIDR_EL0, 0));
        c.address(0, record);
        c.put(str(1, 0, 8));
        c.put(movz(1, status as u32, 0));
        c.put(b(c.here(), SAVE));
    }
    c
}

fn place(image: &mut [u8], code: &Code, limit: u64) {
    let from = (code.base - CODE) as usize;
    let bytes: Vec<u8> = code.words.iter().flat_map(|w| w.to_le_bytes()).collect();
    assert!(code.here() <= limit, "the code at {:#x} is too long", code.base);
    image[from..from + bytes.len()].copy_from_slice(&bytes);
}

/// The code image, from [`CODE`] on.
pub fn code(bodies: &[Vec<u32>]) -> Vec<u8> {
    let mut image = vec![0; (PROLOGUE + bodies.len() as u64 * CASE_CODE) as usize];
    place(&mut image, &start(), HANDLER);
    place(&mut image, &handler(), SAVE);
    place(&mut image, &save(), FINISH);
    place(&mut image, &finish(bodies.len()), CODE + PROLOGUE);
    for (i, body) in bodies.iter().enumerate() {
        let code = case(i, body);
        let limit = code.base + CASE_CODE;
        place(&mut image, &code, limit);
    }
    image
}

/// Address of the code that follows case `index`.
pub fn next_code(index: usize, cases: usize) -> u64 {
    if index + 1 < cases { CODE + PROLOGUE + (index as u64 + 1) * CASE_CODE } else { FINISH }
}

/// The data image, from [`DATA`] on: signal structures, then the records.
pub fn data(records: &[Vec<u8>]) -> Vec<u8> {
    let mut image = vec![0; DATA_HEADER as usize];
    let mut put = |at: usize, v: u64| image[at..at + 8].copy_from_slice(&v.to_le_bytes());
    // stack_t: base, flags, size.
    put(0, DATA + 0x1000);
    put(16, DATA_HEADER - 0x1000);
    // sigaction: handler, SA_SIGINFO | SA_ONSTACK | SA_NODEFER, restorer, mask.
    put(0x40, HANDLER);
    put(0x48, 0x4800_0004);
    for r in records {
        image.extend_from_slice(r);
    }
    image
}

/// The ELF file with both images.
pub fn elf(code: &[u8], data: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let code_at = 0x1000u64;
    let data_at = (code_at + code.len() as u64).next_multiple_of(0x1000);
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
    for v in [64, 56, 2, 64, 0, 0] {
        half(&mut f, v);
    }
    for (flags, at, address, len) in
        [(5, code_at, CODE, code.len() as u64), (6, data_at, DATA, data.len() as u64)]
    {
        word(&mut f, 1); // PT_LOAD
        word(&mut f, flags);
        for v in [at, address, address, len, len, 0x1000] {
            long(&mut f, v);
        }
    }
    debug_assert_eq!(f.len() as u64, HEADERS);
    f.resize(code_at as usize, 0);
    f.extend_from_slice(code);
    f.resize(data_at as usize, 0);
    f.extend_from_slice(data);
    f
}
