//! Known answers, worked out by hand from the Arm ARM's pseudocode.

use super::*;
use armlet_arm::fp::{FPSR_IOC, Rounding};
use float::Conversion;

fn call(f: VectorHelper, regs: &mut Regs, shape: Shape) -> u32 {
    let mut env = FpEnv::default();
    f(&mut env, regs, VOperands { d: 0, n: 1, m: 2, a: 3, imm: shape.pack() });
    env.fpsr
}

fn registers(d: u128, n: u128, m: u128) -> Regs {
    let mut regs = [0; 32];
    (regs[0], regs[1], regs[2]) = (d, n, m);
    regs
}

#[test]
fn saturation_sets_qc_in_lanes_that_take_part() {
    let mut regs = registers(u128::MAX, 0x7f01 | 0x7f << 64, 0x0101 | 1 << 64);
    assert_eq!(call(same::<int::Sqadd>(0), &mut regs, Shape::vector(false)), FPSR_QC);
    assert_eq!(regs[0], 0x7f02);
    // The only saturating lane is above the scalar.
    let mut regs = registers(0, 0x7f01, 0x0101);
    assert_eq!(call(same::<int::Sqadd>(0), &mut regs, Shape::scalar(0)), 0);
    assert_eq!(regs[0], 2);
}

#[test]
fn shifts_by_register_go_both_ways() {
    let mut regs = registers(0, 0x8000_0000_0000_0001, 0xff);
    call(same::<int::Srshl>(3), &mut regs, Shape::scalar(3));
    assert_eq!(regs[0], 0xc000_0000_0000_0001);
    let mut regs = registers(0, u64::MAX.into(), 0x80);
    call(same::<int::Urshl>(3), &mut regs, Shape::scalar(3));
    assert_eq!(regs[0], 0);
    let mut regs = registers(0, u64::MAX.into(), 0xc0);
    call(same::<int::Urshl>(3), &mut regs, Shape::scalar(3));
    assert_eq!(regs[0], 1, "a shift by 64 rounds up");
    let mut regs = registers(0, 1, 0x7f);
    assert_eq!(call(same::<int::Uqshl>(3), &mut regs, Shape::scalar(3)), FPSR_QC);
    assert_eq!(regs[0], u64::MAX.into());
    let mut regs = registers(0, u128::from(u64::MAX), 0x40);
    assert_eq!(call(same::<int::Sqshl>(3), &mut regs, Shape::scalar(3)), FPSR_QC);
    assert_eq!(regs[0], 1 << 63);
}

#[test]
fn doubling_multiplies_saturate_at_the_one_case() {
    let mut regs = registers(0, 0x8000, 0x8000);
    assert_eq!(call(same::<int::Sqdmulh>(1), &mut regs, Shape::scalar(1)), FPSR_QC);
    assert_eq!(regs[0], 0x7fff);
    let mut regs = registers(0, 0x8000_0000, 0x8000_0000);
    assert_eq!(call(long::<int::Sqdmull>(2), &mut regs, Shape::scalar(2)), FPSR_QC);
    assert_eq!(regs[0], 0x7fff_ffff_ffff_ffff);
}

#[test]
fn elements_are_taken_by_index() {
    let mut regs = registers(0, 0x0004_0003_0002_0001, 0x0009_0000_0000_0000);
    call(same::<int::Sqrdmlah>(1), &mut regs, Shape::vector(false).element(3));
    assert_eq!(regs[0], 0, "small products round to nothing");
    call(long::<int::Sqdmull>(1), &mut regs, Shape::vector(false).element(3));
    assert_eq!(regs[0], 72 << 96 | 54 << 64 | 36 << 32 | 18);
}

#[test]
fn float_lanes_that_take_no_part_raise_nothing() {
    // The upper half holds 0 / 0.
    let mut regs = registers(u128::MAX, 0x3f80_0000_4000_0000, 0x3f80_0000_4000_0000);
    assert_eq!(call(float::same::<float::Div>(2), &mut regs, Shape::vector(false)), 0);
    assert_eq!(regs[0], 0x3f80_0000_3f80_0000);
    let mut regs = registers(0, 0x3f80_0000_4000_0000, 0x3f80_0000_4000_0000);
    assert_eq!(call(float::same::<float::Div>(2), &mut regs, Shape::vector(true)), FPSR_IOC);
}

#[test]
fn conversions_pack_into_a_parameter() {
    for rounding in [None, Some(Rounding::TieAway), Some(Rounding::Zero)] {
        for fbits in [0, 1, 64] {
            let c = Conversion { rounding, unsigned: fbits == 1, exact: fbits == 0, x: true, fbits };
            assert_eq!(Conversion::unpack(Shape::scalar(3).with(c.pack()).param()), c);
        }
    }
}

#[test]
fn reductions_fold_neighbours_first() {
    // The two signalling NaNs meet a number first: the lower one wins in the last step.
    let mut regs = registers(0, 0x7f80_0002_3f80_0000_3f80_0000_7f80_0001, 0);
    assert_eq!(call(float::reduce::<float::Max>(2), &mut regs, Shape::vector(true)), FPSR_IOC);
    assert_eq!(regs[0], 0x7fc0_0001);
}

#[test]
fn tables_go_on_behind_the_last_register() {
    for (extend, out_of_range) in [(false, 0), (true, 0x77)] {
        let mut regs = registers(0xbb << 120 | 0x7700_00cc, 0, 0x40_1f_10_0f);
        regs[31] = 0xaa << 120;
        let shape = Shape::vector(false).with(int::table_parameter(2, extend));
        let op = VOperands { d: 0, n: 31, m: 2, a: 0, imm: shape.pack() };
        int::table(&mut FpEnv::default(), &mut regs, op);
        assert_eq!(regs[0], out_of_range << 24 | 0xbb_cc_aa, "{extend}");
    }
}
