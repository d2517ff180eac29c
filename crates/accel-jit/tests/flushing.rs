//! Programs that flush denormal numbers to zero (FPCR.FZ): results and flags, whatever the flags were before.
#![cfg(target_arch = "x86_64")]

use std::hint::black_box;
use std::sync::Arc;

use armlet_accel_jit::{JitAccelerator, JitOptions};
use armlet_arm::fp::{FPCR_DN, FPCR_FZ, FPSR_DZC, FPSR_IDC, FPSR_IOC, FPSR_IXC, FPSR_UFC};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, CpuState, SysReg};
use armlet_engine::{Accelerator, VcpuBackend, VcpuExit, VcpuShared};
use armlet_memory::{AddressSpaceBuilder, Ram};

/// A device that computes with the host's floating point.
struct Computes;

impl ExternalRegisters for Computes {
    fn read(&self, _cpu: usize, _reg: SysReg) -> u64 {
        let denormal = black_box(f64::MIN_POSITIVE) / black_box(3.0);
        assert!(denormal > 0.0 && denormal.is_subnormal(), "the host's mode is the guest's");
        (black_box(1000.0) / black_box(7.0) + denormal) as u64
    }
    fn write(&self, _cpu: usize, _reg: SysReg, _value: u64) {}
}

const ENTRY: u64 = 0x4000_0000;
const HLT: u32 = 0xd45e_0000;
const DENORMAL: u64 = 1;
const LEAST: u64 = 0x0080_0000;
const ONE: u64 = 0x3f80_0000;
const HALF: u64 = 0x3f00_0000;
const THREE: u64 = 0x4040_0000;
const DEFAULT_NAN: u64 = 0x7fc0_0000;

fn msr_fpcr(x: u32) -> u32 {
    0xd51b_4400 | x
}
fn msr_fpsr(x: u32) -> u32 {
    0xd51b_4420 | x
}
fn mrs_fpsr(x: u32) -> u32 {
    0xd53b_4420 | x
}

/// An operation on singles: S`d` = S1 op S2.
#[derive(Clone, Copy, Debug)]
enum Op {
    Add = 0x1e22_2820,
    Mul = 0x1e22_0820,
    Div = 0x1e22_1820,
}

/// X0 to X30 after `words`, from `x`; X1 and X2 are moved to S1 and S2 before.
fn run(words: &[u32], x: &[(usize, u64)], avx512: bool) -> [u64; 32] {
    run_from(words, x, [0; 2], avx512).x
}

/// The state after `words`, from `x`, FPCR and FPSR.
fn run_from(words: &[u32], x: &[(usize, u64)], [fpcr, fpsr]: [u32; 2], avx512: bool) -> CpuState {
    let ram = Ram::new(ENTRY, 1 << 20).expect("the host has a megabyte");
    // fmov s1, w1; fmov s2, w2
    let moves = [0x1e27_0021, 0x1e27_0042];
    for (i, word) in moves.iter().chain(words).chain(&[HLT]).enumerate() {
        ram.write(ENTRY + 4 * i as u64, &word.to_le_bytes()).expect("fits");
    }
    let memory = Arc::new(AddressSpaceBuilder::new(ram).build());
    let model = Arc::new(CpuModel::by_name("neoverse-n1").expect("the default model exists"));
    let options = JitOptions { code_size: 1 << 20, avx512, ..JitOptions::default() };
    let jit = JitAccelerator::new(memory, model.clone(), Arc::new(Computes), 1, options);
    let jit = jit.expect("the host can run it");
    let mut state = model.reset_state(0, armlet_arm::model::mpidr(0));
    state.pc = ENTRY;
    state.sys[SysReg::CpacrEl1] = 3 << 20;
    (state.fp.fpcr, state.fp.fpsr) = (fpcr, fpsr);
    for (register, value) in x {
        state.x[*register] = *value;
    }
    let mut cpu = jit.create_vcpu(Arc::new(VcpuShared::new(0)), state).expect("a vCPU can be made");
    assert!(matches!(cpu.run(), VcpuExit::Semihosting));
    VcpuBackend::state(&*cpu).clone()
}

/// The result of an operation, and FPSR after it.
fn compute(op: Op, [n, m]: [u64; 2], [fpcr, fpsr]: [u32; 2], avx512: bool) -> (u64, u32) {
    // fmov w5, s0
    let words = [msr_fpcr(3), msr_fpsr(4), op as u32, 0x1e26_0005, mrs_fpsr(6)];
    let x = run(&words, &[(1, n), (2, m), (3, fpcr.into()), (4, fpsr.into())], avx512);
    (x[5], x[6] as u32)
}

#[test]
fn flags_are_those_of_what_was_flushed_whatever_was_set_before() {
    let cases: [(Op, [u64; 2], u64, u32); 9] = [
        (Op::Add, [DENORMAL, ONE], ONE, FPSR_IDC),
        (Op::Mul, [LEAST, HALF], 0, FPSR_UFC),
        (Op::Mul, [LEAST + 1, HALF], 0, FPSR_UFC),
        (Op::Div, [ONE, THREE], 0x3eaa_aaab, FPSR_IXC),
        (Op::Div, [DENORMAL, 0], DEFAULT_NAN, FPSR_IDC | FPSR_IOC),
        (Op::Div, [ONE, 0], 0x7f80_0000, FPSR_DZC),
        (Op::Div, [ONE, DENORMAL], 0x7f80_0000, FPSR_IDC | FPSR_DZC),
        (Op::Mul, [DENORMAL, 0x7f80_0000], DEFAULT_NAN, FPSR_IDC | FPSR_IOC),
        // Rounded up to the smallest normal number, had it not been flushed before.
        (Op::Mul, [LEAST, ONE - 1], 0, FPSR_UFC),
    ];
    for avx512 in [true, false] {
        for (op, operands, result, flags) in cases {
            for before in 0..8 {
                let bit = |n: u32, flag: u32| if before >> n & 1 != 0 { flag } else { 0 };
                let before = bit(0, FPSR_IDC) | bit(1, FPSR_IXC) | bit(2, FPSR_UFC);
                let found = compute(op, operands, [FPCR_FZ, before], avx512);
                assert_eq!(found, (result, before | flags), "{op:?} {operands:x?} {before:#x}");
            }
        }
    }
}

#[test]
fn a_nan_beside_a_denormal_number_is_seen_with_it() {
    const NAN: u64 = 0x7fc0_1234;
    for (fpcr, nan) in [(FPCR_FZ, NAN), (FPCR_FZ | FPCR_DN, DEFAULT_NAN)] {
        assert_eq!(compute(Op::Add, [DENORMAL, NAN], [fpcr, 0], true), (nan, FPSR_IDC));
        assert_eq!(compute(Op::Mul, [NAN, ONE], [fpcr, 0], true), (nan, 0));
    }
    assert_eq!(compute(Op::Add, [ONE, NAN], [FPCR_DN, 0], true), (DEFAULT_NAN, 0));
}

#[test]
fn a_cpu_may_be_made_while_its_program_flushes() {
    for before in [0, FPSR_IDC, FPSR_IXC, FPSR_UFC | FPSR_IXC] {
        let words = [Op::Mul as u32, 0x1e26_0005];
        let state = run_from(&words, &[(1, LEAST), (2, HALF)], [FPCR_FZ, before], true);
        assert_eq!((state.x[5], state.fp.fpsr), (0, before | FPSR_UFC));
    }
}

#[test]
fn guests_that_flush_go_on_where_a_last_act_is_asked_for_late() {
    for _ in 0..2 {
        assert_eq!(compute(Op::Mul, [LEAST, HALF], [FPCR_FZ, 0], true), (0, FPSR_UFC));
        armlet_accel_jit::crash::before_death(|| {});
    }
}

#[test]
fn programs_that_flush_and_such_that_do_not_take_turns() {
    const SQUARE: u32 = Op::Mul as u32;
    // x3: FPCR of the one, x4 and x5: FPSR of both; x8, x9: how often each has found what it should.
    let mut words = vec![0xd280_0c87]; // mov x7, #100
    let start = words.len();
    words.extend([msr_fpsr(4), msr_fpcr(3), SQUARE, mrs_fpsr(4)]);
    words.extend([0x1e26_000a, 0x7100_015f, 0x9a88_1508]); // fmov w10, s0; cmp w10, #0; cinc x8, x8, eq
    words.extend([msr_fpsr(5), msr_fpcr(31), SQUARE, mrs_fpsr(5)]);
    words.extend([0x1e26_000a, 0x7100_015f, 0x9a89_0529]); // ...; cinc x9, x9, ne
    words.push(0xf100_04e7); // subs x7, x7, #1
    let back = (start as i32 - words.len() as i32) as u32;
    words.push(0x5400_0001 | (back & 0x7_ffff) << 5); // b.ne
    let x = run(&words, &[(1, LEAST), (2, HALF), (3, FPCR_FZ.into())], true);
    assert_eq!((x[8], x[9]), (100, 100));
    assert_eq!((x[4] as u32, x[5]), (FPSR_UFC, 0));
}

#[test]
fn functions_compute_in_the_hosts_mode_and_the_guests_comes_back() {
    // mrs x7, ICC_IAR1_EL1, which is the device's
    let words = [msr_fpcr(3), msr_fpsr(31), 0xd538_cc07, Op::Mul as u32, 0x1e26_0005, mrs_fpsr(6)];
    let x = run(&words, &[(1, LEAST), (2, HALF), (3, FPCR_FZ.into())], true);
    assert_eq!((x[5], x[6] as u32, x[7]), (0, FPSR_UFC, 142));
}
