//! Tininess is found before rounding (Arm ARM A1.5, `FPRoundBase`), while hosts find it afterwards: results that round
//! up to the smallest normal number, which random cases hardly ever meet.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;

use armlet_arm::fp::{FPCR_FZ, FPSR_IDC, FPSR_IXC, FPSR_UFC};
use armlet_arm::{Enc, decode};
use armlet_conform::program::Layout;
use armlet_conform::random::Random;
use armlet_conform::record::Record;
use armlet_conform::{Case, features, interp, jit, program};

/// An instruction with the sources 1 and 2 (and 3, which is zero), and the bits of its source and result elements.
type Instruction = (u32, u32, u32);

const INSTRUCTIONS: [Instruction; 11] = [
    (0x1e22_0820, 32, 32), // fmul s0, s1, s2
    (0x1e62_0820, 64, 64), // fmul d0, d1, d2
    (0x1e22_8820, 32, 32), // fnmul s0, s1, s2
    (0x1f02_0c20, 32, 32), // fmadd s0, s1, s2, s3
    (0x1f42_8c20, 64, 64), // fmsub d0, d1, d2, d3
    (0x6e22_dc20, 32, 32), // fmul v0.4s, v1.4s, v2.4s
    (0x4e62_cc20, 64, 64), // fmla v0.2d, v1.2d, v2.2d
    (FDIV, 64, 64),
    (0x1e62_4020, 64, 32), // fcvt s0, d1
    (0x0e61_6820, 64, 32), // fcvtn v0.2s, v1.2d
    (0x0e21_6820, 32, 16), // fcvtn v0.4h, v1.4s
];
/// fdiv v0.2d, v1.2d, v2.2d
const FDIV: u32 = 0x6e62_fc20;

/// The smallest normal number, and one.
fn landmarks(bits: u32) -> (u64, u64) {
    match bits {
        16 => (1 << 10, 0x3c00),
        32 => (1 << 23, 0x3f80_0000),
        _ => (1 << 52, 0x3ff << 52),
    }
}

fn spread(value: u64, bits: u32) -> u128 {
    (0..128 / bits).fold(0, |v, i| v | u128::from(value) << (i * bits))
}

/// A case whose result is around the smallest normal number of its format.
fn case(r: &mut Random, layout: &mut Layout, (word, bits, result): Instruction) -> Case {
    let mut record = Record::new();
    record.fpcr = (r.below(4) as u32) << 22;
    if r.one_in(3) {
        record.fpcr |= FPCR_FZ;
        record.fpsr = r.next() as u32 & (FPSR_IDC | FPSR_IXC | FPSR_UFC);
    }
    let sign = r.below(2) << (bits - 1);
    let (least, one) = landmarks(bits);
    let (n, m) = match (bits, result) {
        (64, 32) => ((0x381 << 52) - r.below(3) + r.below(2), 0),
        (32, 16) => (0x3880_0000 - r.below(3) + r.below(2), 0),
        // Quotients by a little above one, products by a little below.
        _ if word == FDIV => (least + r.below(4), one + r.below(4)),
        _ => (least + r.below(4), one - r.below(4)),
    };
    (record.v[1], record.v[2]) = (spread(n | sign, bits), spread(m, bits));
    let enc: Enc = decode(word).expect("an instruction");
    let code = layout.next_code();
    layout.take_code(1);
    Case { enc, number: 0, state: 0, body: vec![word], place: layout.place(code), record }
}

#[test]
fn results_that_round_up_to_the_smallest_normal_number_underflow() {
    let seed = 20_260_903;
    let mut r = Random::new(&[seed]);
    let instructions: Vec<_> = (0..4000).map(|i| INSTRUCTIONS[i % INSTRUCTIONS.len()]).collect();
    let mut layout = Layout::default();
    let cases: Vec<_> = instructions.iter().map(|&word| case(&mut r, &mut layout, word)).collect();
    let features = features("neoverse-n1").expect("the model exists");
    let code = program::code(&features, &cases);
    let found = jit::execute("neoverse-n1", &cases, &code, true).expect("the JIT runs");
    let mut rounded_up = BTreeSet::new();
    for (i, (case, found)) in cases.iter().zip(&found).enumerate() {
        let wanted = interp::execute(&features, case, &code, None).record;
        let differences = wanted.differences(found);
        let source = case.record.v[1];
        assert!(differences.is_empty(), "seed {seed}: {} {source:#x}: {differences:?}", case.enc.name());
        let bits = instructions[i].2;
        let magnitude = wanted.v[0] as u64 & (u64::MAX >> (65 - bits));
        if magnitude == landmarks(bits).0 && wanted.fpsr & FPSR_UFC != 0 {
            rounded_up.insert(instructions[i]);
        }
    }
    assert_eq!(rounded_up.len(), INSTRUCTIONS.len(), "only these were rounded up: {rounded_up:x?}");
}
