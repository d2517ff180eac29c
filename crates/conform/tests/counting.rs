//! Instructions are counted exactly: however a run is cut into pieces, it does the same at the same count.
#![cfg(target_arch = "x86_64")]

use armlet_conform::generate::{Plan, Reach};
use armlet_conform::jit::{Counted, execute_counted};
use armlet_conform::program::Layout;
use armlet_conform::random::Random;
use armlet_conform::{Case, features, program};

const SEED: u64 = 20_261_123;
const MODEL: &str = "neoverse-n1";

/// All of these runs come to the same.
fn compare(cases: &[Case], pieces: &[u64]) {
    let code = program::code(&features(MODEL).expect("the model exists"), cases);
    let mut random = Random::new(&[SEED]);
    let mut run = |longest: u64| {
        let mut piece = || if longest == 0 { u64::from(u32::MAX) } else { 1 + random.next() % longest };
        execute_counted(MODEL, cases, &code, &mut piece).expect("the run ends")
    };
    let whole: Counted = run(0);
    assert!(whole.count > cases.len() as u64 * 20 && whole.trace != 0, "{} counted", whole.count);
    for &longest in pieces {
        let other = run(longest);
        assert_eq!((other.count, other.trace), (whole.count, whole.trace), "pieces up to {longest}");
        assert!(other.records == whole.records, "pieces up to {longest}: other states");
    }
}

fn plan() -> Plan {
    Plan::new(features(MODEL).expect("the model exists"), SEED, None)
}

#[test]
fn of_single_instructions() {
    let plan = plan();
    let mut layout = Layout::default();
    let list = plan.encodings.iter().copied().filter(|&e| plan.reach(e) == Reach::User);
    let cases: Vec<_> = list.flat_map(|e| plan.cases(e, 0, 1, &mut layout)).collect();
    compare(&cases, &[1, 7, 40, 300]);
}

#[test]
fn of_sequences() {
    let plan = plan();
    let mut layout = Layout::default();
    let encodings = plan.for_sequences();
    let cases: Vec<_> = (0..200).filter_map(|n| plan.sequence(&encodings, n, &mut layout)).collect();
    compare(&cases, &[1, 7, 40, 300]);
}
