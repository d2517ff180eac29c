use armlet_arm::{CpuState, Enc, FeatureSet};

use super::super::testing::{features, words};
use super::super::{Flow, LiftContext, is_data_simd, lift};
use crate::ir::interp::{self, Exit};
use crate::ir::{Builder, Inst, Mem, Raise};

fn context(features: FeatureSet, fp_inline: bool) -> LiftContext {
    LiftContext {
        features,
        el: 0,
        fp_enabled: true,
        fp_inline,
        half_inline: true,
        fp_alternate: false,
        fp_merge: false,
        check_sp: false,
        guarded: false,
        offset: 0,
    }
}

fn lifts(ctx: &LiftContext, word: u32) -> bool {
    let mut b = Builder::new();
    lift(&mut b, ctx, word) == Flow::Next
        && !b.block().insts.iter().any(|i| matches!(i, Inst::Raise(Raise::Undefined)))
}

#[test]
fn every_encoding_that_a_model_has_is_lifted() {
    for model in ["neoverse-n1", "cortex-a53", "cortex-a76", "max"] {
        for fp_inline in [false, true] {
            let ctx = context(features(model), fp_inline);
            let has = |e: &Enc| is_data_simd(e.class()) && ctx.features.has(e.feature());
            let missing: Vec<&str> = Enc::all()
                .iter()
                .filter(|e| {
                    has(e) && !words(**e).any(|w| armlet_arm::decode(w) == Some(**e) && lifts(&ctx, w))
                })
                .map(|e| e.name())
                .collect();
            assert!(missing.is_empty(), "{model}: {missing:?}");
        }
    }
}

#[test]
fn encodings_that_a_model_lacks_are_undefined() {
    let ctx = context(features("cortex-a53"), true);
    // fadd h0, h1, h2; sdot v0.4s, v1.16b, v2.16b; sqrdmlah v0.4s, v1.4s, v2.4s
    for word in [0x1ee2_2820, 0x4e82_9420, 0x6e82_8420] {
        assert!(!lifts(&ctx, word), "{word:#010x}");
        assert!(lifts(&context(features("neoverse-n1"), true), word), "{word:#010x}");
    }
    // The 64-bit polynomial product is a feature of its own, found by the size field.
    assert!(lifts(&context(features("neoverse-n1"), true), 0x0ee2_e020));
    assert!(!lifts(&context(FeatureSet::default(), true), 0x0ee2_e020));
}

#[test]
fn reserved_fields_are_undefined() {
    let ctx = context(features("neoverse-n1"), true);
    let undefined = [
        0x0ee2_8420, // add v0.1d
        0x4ee2_0420, // shadd v0.2d
        0x0e70_1820, // rev16 v0.4h
        0x2e02_4020, // ext v0.8b, #8
        0x0eb1_b820, // addv from 2s
        0x1e02_1c20, // scvtf s0, w1, #57
        0x2f00_8020, // mla by element of bytes (unallocated)
    ];
    for word in undefined {
        assert!(!lifts(&ctx, word), "{word:#010x}");
    }
}

struct NoMachine;
impl interp::Machine for NoMachine {
    type Fault = ();
    fn read(&mut self, _: u64, _: &mut [u8], _: Mem) -> Result<(), ()> {
        Err(())
    }
    fn write(&mut self, _: u64, _: &[u8], _: Mem) -> Result<(), ()> {
        Err(())
    }
    fn system(&mut self, _: &mut CpuState, _: interp::SystemOp) -> Result<u64, ()> {
        Err(())
    }
}

fn run(cpu: &mut CpuState, word: u32) {
    let mut b = Builder::new();
    let fp_inline = cpu.fp.fpcr & (0xf << 24 | 7) == 0;
    let merge = cpu.fp.fpcr & armlet_arm::fp::FPCR_NEP != 0;
    lift(&mut b, &LiftContext { fp_merge: merge, ..context(features("max"), fp_inline) }, word);
    assert_eq!(interp::run(&b.finish(), 0, cpu, &mut NoMachine), Exit::Goto, "{word:#010x}");
}

#[test]
fn immediates_expand() {
    let cases: [(u32, u128); 7] = [
        (0x4f00_0440, 0x0000_0002_0000_0002_0000_0002_0000_0002), // movi v0.4s, #2
        (0x0f02_6540, 0x0000_0000_0000_0000_4a00_0000_4a00_0000), // movi v0.2s, #0x4a, lsl #24
        (0x6f00_d420, 0xfffe_0000_fffe_0000_fffe_0000_fffe_0000), // mvni v0.4s, #1, msl #16
        (0x4f07_e7e0, u128::MAX),                                 // movi v0.16b, #0xff
        (0x4f03_f600, 0x3f80_0000_3f80_0000_3f80_0000_3f80_0000), // fmov v0.4s, #1.0
        (0x6f04_f400, 0xc000_0000_0000_0000_c000_0000_0000_0000), // fmov v0.2d, #-2.0
        (0x1e6f_1000, 0x3ff8_0000_0000_0000),                     // fmov d0, #1.5
    ];
    for (word, want) in cases {
        let mut cpu = CpuState::new(0);
        cpu.v[0] = 0x55;
        run(&mut cpu, word);
        assert_eq!(cpu.v[0], want, "{word:#010x}");
    }
}

#[test]
fn scalars_keep_the_rest_of_a_source_if_asked_to() {
    // What is above the lowest element, in the registers 0 to 3; the result's is as in the register, or zero.
    let cases: [(u32, Option<usize>); 14] = [
        (0x1e22_2820, Some(1)), // fadd s0, s1, s2
        (0x1e22_8820, Some(1)), // fnmul s0, s1, s2
        (0x1f02_0c20, Some(3)), // fmadd s0, s1, s2, s3
        (0x1e20_c020, Some(0)), // fabs s0, s1
        (0x1e22_c020, Some(0)), // fcvt d0, s1
        (0x5f82_1020, Some(0)), // fmla s0, s1, v2.s[0]
        (0x5f82_9020, Some(1)), // fmul s0, s1, v2.s[0]
        (0x5e22_e420, Some(2)), // fcmeq s0, s1, s2
        (0x5ea0_d820, None),    // fcmeq s0, s1, #0.0
        (0x1e22_0020, Some(0)), // scvtf s0, w1
        (0x1e63_4020, Some(0)), // bfcvt h0, s1
        (0x5f3f_e420, Some(0)), // scvtf s0, s1, #1
        (0x1e20_4020, None),    // fmov s0, s1
        (0x7e30_d820, None),    // faddp s0, v1.2s
    ];
    for (word, above) in cases {
        let mut cpu = CpuState::new(0);
        cpu.fp.fpcr = armlet_arm::fp::FPCR_NEP;
        for i in 0..4 {
            cpu.v[i] = (i as u128 + 5) << 64 | 0x3f80_0000;
        }
        run(&mut cpu, word);
        assert_eq!(cpu.v[0] >> 64, above.map_or(0, |i| i as u128 + 5), "{word:#010x}");
    }
}

#[test]
fn dot_products_mix_signs() {
    let mut results = Vec::new();
    // sdot, udot, usdot v0.2s, v1.8b, v2.8b; sudot v0.2s, v1.8b, v2.4b[0]; smmla, usmmla v0.4s, v1.16b, v2.16b
    for word in [0x0e82_9420, 0x2e82_9420, 0x0e82_9c20, 0x0f02_f020, 0x4e82_a420, 0x4e82_ac20] {
        let mut cpu = CpuState::new(0);
        (cpu.v[0], cpu.v[1], cpu.v[2]) = (1, 0xff02, 0xfe02);
        run(&mut cpu, word);
        results.push(cpu.v[0] as u32 as i32);
    }
    assert_eq!(results, [7, 5 + 255 * 254, 5 - 510, 5 - 254, 7, 5 - 510]);
}

#[test]
fn a_conditional_compare_takes_either_way() {
    let mut cpu = CpuState::new(0);
    cpu.v[1] = 0x3f80_0000;
    cpu.v[2] = 0x4000_0000;
    // fccmp s1, s2, #5, eq
    cpu.pstate = armlet_arm::Pstate::Z;
    run(&mut cpu, 0x1e22_0425);
    assert_eq!(cpu.pstate.bits() >> 28, 0b1000);
    run(&mut cpu, 0x1e22_0425);
    assert_eq!(cpu.pstate.bits() >> 28, 5);
}
