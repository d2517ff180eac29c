//! Instructions are counted exactly: however a run is cut into pieces, it does the same at the same count.
#![cfg(target_arch = "x86_64")]

use armlet_conform::generate::Plan;
use armlet_conform::jit::{Counted, execute_counted};
use armlet_conform::random::Random;
use armlet_conform::{Case, features, program};

const SEED: u64 = 20_261_123;

/// All of these runs come to the same.
fn compare(cases: &[Case], pieces: &[u64]) {
    let bodies: Vec<Vec<u32>> = cases.iter().map(|c| c.body.clone()).collect();
    let code = program::code(&bodies);
    let mut random = Random::new(&[SEED]);
    let mut run = |longest: u64| {
        let mut piece = || if longest == 0 { u64::from(u32::MAX) } else { 1 + random.next() % longest };
        execute_counted("neoverse-n1", cases, &code, &mut piece).expect("the run ends")
    };
    let whole: Counted = run(0);
    assert!(whole.count > cases.len() as u64 * 20 && whole.trace != 0, "{} counted", whole.count);
    for &longest in pieces {
        let other = run(longest);
        assert_eq!((other.count, other.trace), (whole.count, whole.trace), "pieces up to {longest}");
        assert!(other.records == whole.records, "pieces up to {longest}: other states");
    }
}

/// The cases that `make` makes of the first `count` numbers, each for its place.
fn compare_all(count: u64, make: impl Fn(&Plan, u64, usize) -> Option<Case>) {
    let plan = Plan::new(features("neoverse-n1").expect("the model exists"), SEED, None);
    let mut cases = Vec::new();
    for number in 0..count {
        cases.extend(make(&plan, number, cases.len()));
    }
    compare(&cases, &[1, 7, 40, 300]);
}

#[test]
fn of_single_instructions() {
    compare_all(1500, Plan::case);
}

#[test]
fn of_sequences() {
    compare_all(400, Plan::sequence);
}
