//! A test as A64 code: for each thread a function that runs it on one set of locations after the other.
//!
//! The functions are called with the address of a parameter block (`SYNC` and so on), and keep to AAPCS64. Before
//! each round a function tells the others how far it is and waits for them, at most for a time; then it waits a little
//! more, differently in each round, so that the threads meet at different moments.

use std::fmt::Write;

use crate::test::{Barrier, Link, Op, Test, What};

/// Offsets in the parameter block: addresses of the locations, then these.
const STRIDE: u32 = 32;
const COUNT: u32 = 40;
const OUT: u32 = 48;
const SYNC: u32 = 56;
const SPIN: u32 = 64;
const DELAY_MASK: u32 = 72;
const DELAY: u32 = 80;
/// Bytes between two threads' words at [`SYNC`].
const SYNC_STRIDE: u32 = 128;

/// Registers: the parameter block is X0, what was read is in X1 to X4, X5 to X9 are free to use.
const LOCATION: u32 = 10;
const STEP: u32 = 14;
const ROUND: u32 = 15;
const RESULTS: u32 = 16;
const ROUNDS: u32 = 17;
const ZERO: u32 = 31;

const NOP: u32 = 0xd503_201f;
const ISB: u32 = 0xd503_3fdf;
const RET: u32 = 0xd65f_03c0;

fn ldr(t: u32, n: u32, offset: u32) -> u32 {
    0xf940_0000 | (offset / 8) << 10 | n << 5 | t
}

fn str(t: u32, n: u32, offset: u32) -> u32 {
    0xf900_0000 | (offset / 8) << 10 | n << 5 | t
}

fn add(d: u32, n: u32, m: u32) -> u32 {
    0x8b00_0000 | m << 16 | n << 5 | d
}

fn add_imm(d: u32, n: u32, imm: u32) -> u32 {
    0x9100_0000 | imm << 10 | n << 5 | d
}

fn movz(d: u32, imm: u32) -> u32 {
    0xd280_0000 | imm << 5 | d
}

fn orr(d: u32, n: u32, m: u32, shift: u32) -> u32 {
    0xaa00_0000 | m << 16 | shift << 10 | n << 5 | d
}

fn eor(d: u32, n: u32, m: u32) -> u32 {
    0xca00_0000 | m << 16 | n << 5 | d
}

/// CBZ or CBNZ, over so many instructions.
fn branch_if(nonzero: bool, t: u32, by: i32) -> u32 {
    0xb400_0000 | u32::from(nonzero) << 24 | (by as u32 & 0x7_ffff) << 5 | t
}

fn branch(by: i32) -> u32 {
    0x1400_0000 | by as u32 & 0x3ff_ffff
}

/// CMP and a branch if the first is lower, or if it is not.
fn compare_branch(n: u32, m: u32, lower: bool, by: i32) -> [u32; 2] {
    [0xeb00_001f | m << 16 | n << 5, 0x5400_0002 | u32::from(lower) | (by as u32 & 0x7_ffff) << 5]
}

fn barrier(kind: Barrier, dsb: bool, inner: bool) -> u32 {
    let option = match kind {
        Barrier::Full => 15,
        Barrier::Load => 13,
        Barrier::Store => 14,
    } - if inner { 4 } else { 0 };
    (if dsb { 0xd503_309f } else { 0xd503_30bf }) | option << 8
}

/// The code of thread `thread`. Where `broken`, every barrier is a NOP and every access is plain, as if the translator
/// had forgotten them.
pub fn thread(test: &Test, thread: usize, broken: bool) -> Vec<u32> {
    let mut c = Vec::new();
    for location in 0..4 {
        c.push(ldr(LOCATION + location, 0, 8 * location));
    }
    c.extend([ldr(STEP, 0, STRIDE), ldr(ROUNDS, 0, COUNT), ldr(RESULTS, 0, OUT), movz(ROUND, 1)]);
    let start = c.len();
    meet(&mut c, thread as u32, test.threads.len() as u32);
    let mut read = 0;
    let mut last = ZERO;
    for op in &test.threads[thread] {
        operation(&mut c, test, op, broken, &mut read, last);
        last = read;
    }
    c.push(orr(7, ZERO, if read > 0 { 1 } else { ZERO }, 0));
    for n in 2..=read {
        c.push(orr(7, 7, n, 2 * (n - 1)));
    }
    c.extend([str(7, RESULTS, 0), add_imm(RESULTS, RESULTS, 8)]);
    for location in 0..4 {
        c.push(add(LOCATION + location, LOCATION + location, STEP));
    }
    c.push(add_imm(ROUND, ROUND, 1));
    let back = start as i32 - (c.len() as i32 + 1);
    // Rounds are counted from 1.
    c.extend(compare_branch(ROUND, ROUNDS, true, back));
    c.push(RET);
    c
}

/// Tells the others the round, waits for them, and then for a moment.
fn meet(c: &mut Vec<u32>, me: u32, threads: u32) {
    c.extend([ldr(8, 0, SYNC), str(ROUND, 8, me * SYNC_STRIDE)]);
    for other in (0..threads).filter(|&t| t != me) {
        c.push(ldr(9, 0, SPIN));
        c.extend([branch_if(false, 9, 6), ldr(7, 8, other * SYNC_STRIDE)]);
        c.extend(compare_branch(7, ROUND, false, 3));
        c.extend([0xd100_0529, branch(-5)]); // SUB X9, X9, #1
    }
    c.extend([ldr(9, 0, DELAY_MASK), 0x8a00_0000 | ROUND << 16 | 9 << 5 | 9]); // AND X9, X9, ROUND
    c.extend([ldr(7, 0, DELAY), add(9, 9, 7)]);
    c.extend([branch_if(false, 9, 3), 0xd100_0529, branch(-2)]);
}

fn operation(c: &mut Vec<u32>, test: &Test, op: &Op, broken: bool, read: &mut u32, last: u32) {
    let size = test.size << 30;
    let mut address = LOCATION + op.location as u32;
    c.push(movz(6, op.value.into()));
    match op.link {
        Link::None => {}
        Link::Barrier(..) if broken => c.push(NOP),
        Link::Barrier(kind, dsb) => c.push(barrier(kind, dsb, test.inner)),
        Link::Address => {
            c.extend([eor(8, last, last), add(8, 8, address)]);
            address = 8;
        }
        Link::Data => c.extend([eor(8, last, last), add(6, 6, 8)]),
        Link::Control => c.push(branch_if(true, last, 1)),
        Link::ControlIsb => c.extend([branch_if(true, last, 1), ISB]),
    }
    let n = address << 5;
    let target = *read + 1;
    *read += u32::from(op.what.reads());
    let what = match op.what {
        What::LoadAcquire | What::LoadRcpc if broken => What::Load,
        What::StoreRelease if broken => What::Store,
        what => what,
    };
    match what {
        What::Load => c.push(0x3940_0000 | size | n | target),
        What::LoadAcquire => c.push(0x08df_fc00 | size | n | target),
        What::LoadRcpc => c.push(0x38bf_c000 | size | n | target),
        What::Store => c.push(0x3900_0000 | size | n | 6),
        What::StoreRelease => c.push(0x089f_fc00 | size | n | 6),
        What::Swap(a, l) => {
            c.push(0x3820_8000 | size | u32::from(a) << 23 | u32::from(l) << 22 | 6 << 16 | n | target);
        }
        What::Exclusive(a, l) => {
            c.push(0x085f_7c00 | size | u32::from(a) << 15 | n | target);
            c.push(0x0800_7c00 | size | u32::from(l) << 15 | 9 << 16 | n | 6);
            c.push(branch_if(true, 9, -2));
        }
    }
}

/// Assembler source with all tests: their code, and the table `tests` of `struct test`, `test_count` long.
pub fn source(tests: &[Test], broken: bool) -> String {
    let mut code = String::from("        .text\n");
    let mut table =
        String::from("        .section .rodata\n        .balign 8\n        .global tests, test_count\n");
    let _ = writeln!(table, "test_count: .quad {}\ntests:", tests.len());
    for (number, test) in tests.iter().enumerate() {
        for t in 0..test.threads.len() {
            let _ = write!(code, "test_{number}_{t}: .word ");
            let words: Vec<String> = thread(test, t, broken).iter().map(|w| format!("{w:#x}")).collect();
            let _ = writeln!(code, "{}", words.join(", "));
        }
        let bits = test.outcome_bits();
        let _ = write!(
            table,
            "        .word {}, {}, {}, {bits}\n        .byte ",
            test.threads.len(),
            test.locations(),
            test.size
        );
        let reads = (0..4).map(|t| if t < test.threads.len() { test.reads_shift(t) } else { 0 });
        let finals = (0..4).map(|l| test.final_shift(l).unwrap_or(255));
        let _ =
            writeln!(table, "{}", reads.chain(finals).map(|s| s.to_string()).collect::<Vec<_>>().join(", "));
        for t in 0..4 {
            let _ = match t < test.threads.len() {
                true => writeln!(table, "        .quad test_{number}_{t}"),
                false => writeln!(table, "        .quad 0"),
            };
        }
    }
    code + &table
}
