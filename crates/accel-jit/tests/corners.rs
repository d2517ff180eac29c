//! Programs that have once gone wrong.
#![cfg(target_arch = "x86_64")]

use std::sync::Arc;

use armlet_accel_jit::{JitAccelerator, JitOptions};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, CpuState, SysReg};
use armlet_engine::{Accelerator, VcpuBackend, VcpuExit, VcpuShared};
use armlet_memory::{AddressSpaceBuilder, Ram};

struct NoRegisters;

impl ExternalRegisters for NoRegisters {
    fn read(&self, _cpu: usize, _reg: SysReg) -> u64 {
        0
    }
    fn write(&self, _cpu: usize, _reg: SysReg, _value: u64) {}
}

const ENTRY: u64 = 0x4000_0000;
const HLT: u32 = 0xd45e_0000;

/// The state after `words`, which end with HLT, from `x`.
fn run(words: &[u32], strict: bool, x: &[(usize, u64)]) -> CpuState {
    run_on("neoverse-n1", words, strict, x)
}

/// The same on a CPU of this model.
fn run_on(model: &str, words: &[u32], strict: bool, x: &[(usize, u64)]) -> CpuState {
    let ram = Ram::new(ENTRY, 1 << 20).expect("the host has a megabyte");
    for (i, word) in words.iter().enumerate() {
        ram.write(ENTRY + 4 * i as u64, &word.to_le_bytes()).expect("fits");
    }
    let memory = Arc::new(AddressSpaceBuilder::new(ram).build());
    let model = Arc::new(CpuModel::by_name(model).expect("the model exists"));
    let options = JitOptions { code_size: 1 << 20, strict, ..JitOptions::default() };
    let jit = JitAccelerator::new(memory, model.clone(), Arc::new(NoRegisters), 2, options);
    let jit = jit.expect("the host can run it");
    let mut state = model.reset_state(0, armlet_arm::model::mpidr(0));
    state.pc = ENTRY;
    state.sys[SysReg::CpacrEl1] = 3 << 20;
    for (register, value) in x {
        state.x[*register] = *value;
    }
    let mut cpu = jit.create_vcpu(Arc::new(VcpuShared::new(0)), state).expect("a vCPU can be made");
    assert!(matches!(cpu.run(), VcpuExit::Semihosting));
    VcpuBackend::state(&*cpu).clone()
}

#[test]
fn a_register_may_be_base_and_index_at_once() {
    // ldr x0, [x20, x20]; ldr x1, [x20, x20, lsl #3]; the base is half of the address, or a ninth.
    for (word, x20) in [(0xf874_6a80, (ENTRY + 0x800) / 2), (0xf874_7a80, (ENTRY + 0x800) / 9 / 8 * 8)] {
        let address = if word == 0xf874_6a80 { 2 * x20 } else { 9 * x20 };
        let mut words = [0u32; 0x400];
        (words[0], words[1]) = (word, HLT);
        words[((address - ENTRY) / 4) as usize] = 0x1234;
        assert_eq!(run(&words, false, &[(20, x20)]).x[0], 0x1234);
    }
}

#[test]
fn an_atomic_may_write_to_its_own_page_while_code_is_tracked() {
    // br x3; ldadd x21, x22, [x20]; hlt. The atomic is the first of its block.
    let mut words = [0u32; 64];
    (words[0], words[1], words[2]) = (0xd61f_0060, 0xf835_0296, HLT);
    words[32] = 5;
    let at = ENTRY + 4 * 32;
    let s = run(&words, true, &[(3, ENTRY + 4), (20, at), (21, 3)]);
    assert_eq!(s.x[22], 5);
}

#[test]
fn a_bit_as_a_mask_is_the_bit_of_the_old_value() {
    const VALUES: [u64; 2] = [0x8123_4567_89ab_cdef, 0x7654_3210_7edc_ba98];
    const MASK: u64 = 0xf0f0_1234_8765_0ff0;
    for value in VALUES {
        for bit in [0, 1, 5, 30, 31, 32, 40, 63] {
            // Of the mask's and of the result's registers, some have host registers and some are in memory.
            for (d, s, m) in
                [(5, 6, 7), (5, 5, 7), (0, 0, 1), (0, 20, 1), (20, 0, 21), (5, 7, 7), (20, 21, 21)]
            {
                for (wide, swapped) in [(true, false), (true, true), (false, false), (false, true)] {
                    if !wide && bit > 31 {
                        continue;
                    }
                    let (extract, and) =
                        if wide { (0x9340_0000, 0x8a00_0000) } else { (0x1300_0000, 0x0a00_0000) };
                    let (a, b) = if swapped { (m, d) } else { (d, m) };
                    let words =
                        [extract | bit << 16 | bit << 10 | s << 5 | d, and | b << 16 | a << 5 | d, HLT];
                    let x = [(m as usize, MASK), (s as usize, value)];
                    let mask = if s == m { value } else { MASK };
                    let masked = if value >> bit & 1 != 0 { mask } else { 0 };
                    let expected = if wide { masked } else { masked & 0xffff_ffff };
                    assert_eq!(run(&words, false, &x).x[d as usize], expected, "{words:08x?} from {x:x?}");
                }
            }
        }
    }
}

#[test]
fn fpsr_has_the_flags_of_what_was_before_wherever_that_was() {
    const DZC: u64 = 1 << 1;
    const IXC: u64 = 1 << 4;
    // Each `adr x10, .+8; br x10` begins another block.
    const NEXT: [u32; 2] = [0x1000_004a, 0xd61f_0140];
    const CLEAR: u32 = 0xd51b_443f;
    let mrs = |x: u32| 0xd53b_4420 | x;
    let mut words = vec![CLEAR];
    words.extend(NEXT);
    // fmov s1, #1.0; fmov s2, #3.0; fdiv s0, s1, s2
    words.extend([mrs(0), 0x1e2e_1001, 0x1e21_1002, 0x1e22_1820, mrs(1), CLEAR]);
    // fmov d3, x20; fmov d4, x21; fdiv d5, d3, d4
    words.extend([0x9e67_0283, 0x9e67_02a4, 0x1e64_1865]);
    words.extend(NEXT);
    // mov w11, #0x7f7fffff; fmov s1, w11; fmov s2, #1.0; fsub s0, s1, s2
    words.extend([mrs(2), mrs(3), 0x12b0_100b, 0x1e27_0161, 0x1e2e_1002, 0x1e22_3820]);
    words.extend(NEXT);
    words.extend([mrs(4), CLEAR]);
    words.extend(NEXT);
    // fsub d6, d3, d3; fdiv d7, d6, d4
    words.extend([mrs(5), 0x1e63_3866, mrs(6), 0x1e64_18c7, mrs(7), HLT]);
    let s = run(&words, false, &[(20, 1f64.to_bits()), (21, 0f64.to_bits())]);
    assert_eq!(s.x[..8], [0, IXC, DZC, DZC, DZC | IXC, 0, 0, 1]);
}

/// Registers of which some have host registers and some are in memory: destination, and two sources.
const REGISTERS: [[u32; 3]; 7] =
    [[5, 6, 7], [5, 5, 7], [5, 6, 5], [0, 1, 2], [0, 0, 20], [20, 1, 0], [1, 20, 21]];
const NUMBERS: [u64; 5] = [0, 1, 0x8000_0000, 0xffff_ffff_8765_4321, 0x0123_4567_89ab_cdef];

#[test]
fn flags_are_the_comparison_s_after_what_leaves_them_alone() {
    type Operation = (u32, fn(u64, u64) -> u64);
    // lsr, lsl, asr, mul, umull, and with masks, add; then those of 32 bits.
    let operations: [Operation; 14] = [
        (0xd340_fc00 | 32 << 16, |n, _| n >> 32),
        (0xd340_fc00 | 63 << 16, |n, _| n >> 63),
        (0xd340_0000 | 51 << 16 | 50 << 10, |n, _| n << 13),
        (0x9340_fc00 | 9 << 16, |n, _| (n as i64 >> 9) as u64),
        (0x9b00_7c00, u64::wrapping_mul),
        (0x9ba0_7c00, |n, m| (n & 0xffff_ffff) * (m & 0xffff_ffff)),
        (0x9240_0000 | 7 << 10, |n, _| n & 0xff),
        (0x9240_0000 | 15 << 10, |n, _| n & 0xffff),
        (0x9240_0000 | 31 << 10, |n, _| n & 0xffff_ffff),
        (0x8b00_0000, u64::wrapping_add),
        (0x5300_7c00 | 7 << 16, |n, _| u64::from(n as u32 >> 7)),
        (0x1300_7c00 | 7 << 16, |n, _| (n as i32 >> 7) as u32 as u64),
        (0x1b00_7c00, |n, m| u64::from((n as u32).wrapping_mul(m as u32))),
        (0x1200_0000 | 7 << 10, |n, _| n & 0xff),
    ];
    for (word, operation) in operations {
        // One that has no second source must have none there.
        let two = matches!(word >> 24 & 0x1f, 0x1b | 0x0b);
        for [d, n, m] in REGISTERS {
            for (a, b) in NUMBERS.into_iter().flat_map(|a| NUMBERS.map(|b| (a, b))) {
                let second = if two { m << 16 } else { 0 };
                // cmp x3, x4; the operation; cset x8, lo; cset x9, gt
                let words = [0xeb04_007f, word | second | n << 5 | d, 0x9a9f_27e8, 0x9a9f_d7e9, HLT];
                let mut x = vec![(n as usize, a), (3, a), (4, b)];
                x.extend((m != n).then_some((m as usize, b)));
                let s = run(&words, false, &x);
                let m = if m == n { a } else { b };
                let what = format!("{words:08x?} from {x:x?}");
                assert_eq!(s.x[d as usize], operation(a, m), "{what}");
                assert_eq!((s.x[8], s.x[9]), (u64::from(a < b), u64::from(a as i64 > b as i64)), "{what}");
            }
        }
    }
}

#[test]
fn a_register_may_be_chosen_over_itself() {
    type Change = (u32, fn(u64) -> u64);
    let changes: [Change; 4] = [
        (0x1a80_0000, |m| m),
        (0x1a80_0400, |m| m.wrapping_add(1)),
        (0x5a80_0000, |m| !m),
        (0x5a80_0400, u64::wrapping_neg),
    ];
    for (word, change) in changes {
        for ([d, n, m], wide) in REGISTERS.into_iter().flat_map(|r| [(r, false), (r, true)]) {
            for (a, b) in NUMBERS.into_iter().flat_map(|a| NUMBERS.map(|b| (a, b))) {
                // cmp x3, x4; csel and its kind, lo
                let select = word | u32::from(wide) << 31 | m << 16 | 3 << 12 | n << 5 | d;
                let words = [0xeb04_007f, select, HLT];
                let x = [(n as usize, a), (m as usize, b), (3, a), (4, b)];
                let mask = if wide { u64::MAX } else { 0xffff_ffff };
                let n = if n == m { b } else { a };
                let expected = if a < b { n } else { change(b) } & mask;
                assert_eq!(run(&words, false, &x).x[d as usize], expected, "{words:08x?} from {x:x?}");
            }
        }
    }
}

#[test]
fn flags_live_on_if_one_way_behind_a_branch_asks_for_them() {
    // cmp x3, x4; cbz x5, .+12; mov x0, #0; hlt; tbz w6, #0, .+12; cmp x0, x0; hlt; cset x8, lo; hlt
    let words = [0xeb04_007f, 0xb400_0065, 0xd280_0000, HLT, 0x3600_0066, 0xeb00_001f, HLT, 0x9a9f_27e8, HLT];
    for (a, b) in [(1, 2), (2, 1), (2, 2)] {
        for bit in [0, 1] {
            let s = run(&words, false, &[(3, a), (4, b), (6, bit), (8, 7)]);
            let expected = if bit == 0 { u64::from(a < b) } else { 7 };
            assert_eq!(s.x[8], expected, "comparing {a} with {b}, bit {bit}");
        }
    }
}

/// ConditionHolds after comparing `a` with `b`.
fn holds_after(cond: u32, a: u64, b: u64) -> bool {
    let (unsigned, signed) = (a.cmp(&b), (a as i64).cmp(&(b as i64)));
    let overflows = (a as i64).checked_sub(b as i64).is_none();
    let base = match cond >> 1 {
        0 => a == b,
        1 => unsigned.is_ge(),
        2 => (a.wrapping_sub(b) as i64) < 0,
        3 => overflows,
        4 => unsigned.is_gt(),
        5 => signed.is_ge(),
        _ => signed.is_gt(),
    };
    base != (cond & 1 != 0)
}

/// ConditionHolds for N, Z, C and V.
fn holds_for(cond: u32, nzcv: u32) -> bool {
    let bit = |n: u32| nzcv >> n & 1 != 0;
    let (n, z, c, v) = (bit(3), bit(2), bit(1), bit(0));
    let base = [z, c, n, v, c && !z, n == v, n == v && !z][cond as usize >> 1];
    base != (cond & 1 != 0)
}

const CMP_X3_X4: u32 = 0xeb04_007f;

fn cset(d: u32, cond: u32) -> u32 {
    0x9a9f_07e0 | (cond ^ 1) << 12 | d
}

#[test]
fn what_a_conditional_comparison_leaves_is_the_same_for_whoever_asks() {
    const PAIRS: [(u64, u64); 4] = [(1, 2), (5, 5), (1 << 63, 1), (7, u64::MAX)];
    for (cond, nzcv) in (0..14).flat_map(|cond| (0..16).map(move |nzcv| (cond, nzcv))) {
        // cmp x3, x4; ccmp x5, x6, #nzcv, cond; orr x7, x5, x6, whose flags are lost; cset x9; add x8, x9, x8, lsl #1
        let ccmp = 0xfa46_00a0 | cond << 12 | nzcv;
        let mut words = Vec::new();
        for later in 0..14 {
            words.extend([CMP_X3_X4, ccmp]);
            words.extend((later % 2 == 0).then_some(0xaa06_00a7));
            words.extend([cset(9, later), 0x8b08_0528]);
        }
        words.extend([CMP_X3_X4, HLT]);
        for (first, second) in PAIRS.into_iter().flat_map(|f| PAIRS.map(|s| (f, s))) {
            let x = [(3, first.0), (4, first.1), (5, second.0), (6, second.1)];
            let expected = (0..14).fold(0, |bits, later| {
                let made = holds_after(cond, first.0, first.1);
                let holds =
                    if made { holds_after(later, second.0, second.1) } else { holds_for(later, nzcv) };
                bits << 1 | u64::from(holds)
            });
            assert_eq!(run(&words, false, &x).x[8], expected, "cond {cond}, nzcv {nzcv}, {x:x?}");
        }
    }
}

#[test]
fn conditions_are_kept_past_accesses() {
    const PAIRS: [(u64, u64); 6] = [(1, 2), (2, 1), (5, 5), (1 << 63, 1), (1, 1 << 63), (7, u64::MAX)];
    for (first, second) in (0..14).flat_map(|first| (0..14).map(move |second| (first, second))) {
        for (a, b) in PAIRS {
            // cmp x3, x4; str x3, [x20]; cset x8; ldr x0, [x20]; cset x9; ldr x1, [x20, x21]; cset x10; adc x11, x3, x4;
            // ldr x2, [x20]; sbc x12, x3, x4
            let words = [
                CMP_X3_X4,
                0xf900_0283,
                cset(8, first),
                0xf940_0280,
                cset(9, second),
                0xf875_6a81,
                cset(10, first),
                0x9a04_006b,
                0xf940_0282,
                0xda04_006c,
                HLT,
            ];
            let s = run(&words, false, &[(3, a), (4, b), (20, ENTRY + 0x800), (21, 0)]);
            let [f, g] = [first, second].map(|cond| u64::from(holds_after(cond, a, b)));
            let carry = u64::from(a >= b);
            let sums = [a.wrapping_add(b).wrapping_add(carry), a.wrapping_sub(b).wrapping_sub(1 - carry)];
            let what = format!("conditions {first} and {second} after {a:x} with {b:x}");
            assert_eq!(s.x[8..13], [f, g, f, sums[0], sums[1]], "{what}");
            assert_eq!(s.x[..3], [a; 3], "{what}");
        }
    }
}

#[test]
fn a_size_that_a_set_of_memory_counted_down_is_no_constant_any_more() {
    // msr fpsr, xzr; mov x2, #0x100; mov x1, #0; setp [x0]!, x2!, x1; setm; sete
    let mut words = vec![0xd51b_443f, 0xd280_2002, 0xd280_0001, 0x19c1_0440, 0x19c1_4440, 0x19c1_8440];
    // fmov d1, x2; fmov d2, #1.0; fadd d0, d1, d2; mrs x3, fpsr. The sum with zero is exact.
    words.extend([0x9e67_0041, 0x1e6e_1002, 0x1e62_2820, 0xd53b_4423, HLT]);
    let s = run_on("max", &words, false, &[(0, ENTRY + 0x1000)]);
    assert_eq!((s.x[2], s.x[3]), (0, 0));
}
