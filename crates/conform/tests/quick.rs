//! The quick form of the differential tests, with fixed seeds and with one that may be given.

use armlet_conform::generate::Plan;
use armlet_conform::run::{Report, Run};
use armlet_conform::{Executor, features, line, missing, program, qemu, shrink};

/// Set to let the tests pass without the oracle.
const SKIP: &str = "ARMLET_SKIP_QEMU_USER";

fn run(model: &str, seed: u64, filter: Option<&str>) -> Run {
    let features = features(model).expect("the model exists");
    Run {
        plan: Plan::new(features, seed, filter),
        model: model.into(),
        states: 0,
        absent: 0,
        sequences: 0,
        oracle: Executor::Qemu,
        tested: vec![Executor::Interpreter, Executor::Jit, Executor::JitAvx2],
        spoil: None,
    }
}

/// True if there is an oracle; false if it may be missing.
fn has_oracle() -> bool {
    if qemu::version().is_some() {
        return true;
    }
    assert!(
        std::env::var_os(SKIP).is_some(),
        "there is no qemu-user: run `cargo xtask setup` (or set {SKIP}=1 to skip)"
    );
    eprintln!("skipped: no qemu-user, and {SKIP} is set");
    false
}

/// Runs it, prints each encoding's first mismatch small, and fails if there is one.
fn expect_none(run: &Run) -> Report {
    println!("{} with seed {}", run.model, run.plan.seed);
    let report = run.run().expect("the executors run");
    let mut seen = Vec::new();
    for m in report.mismatches.iter().filter(|m| {
        let new = !seen.contains(&m.case.enc);
        seen.push(m.case.enc);
        new
    }) {
        let small = shrink::shrink(run, m).expect("the executors run");
        println!("{:?}: {}", small.tested, small.want.differences(&small.got).join(", "));
        println!("  {}", line::write(&small.case, &small.want));
    }
    let n = report.mismatches.len();
    assert!(n == 0, "{n} mismatches with seed {} of {} (oracle/armlet)", run.plan.seed, run.model);
    assert!(report.never.is_empty(), "never run: {:?}", report.never);
    report
}

/// A second seed: `ARMLET_SEED`, or always the same. Runs with random ones are `cargo xtask conform`'s.
fn second() -> u64 {
    std::env::var("ARMLET_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_130)
}

#[test]
fn every_encoding_does_what_the_oracle_does() {
    if !has_oracle() {
        return;
    }
    for seed in [20_261_128, second()] {
        let report = expect_none(&Run { states: 24, absent: 2, ..run("max", seed, None) });
        let all = report.total();
        assert!(all.run > 1200 && all.states > 20 * all.run, "{} encodings, {} states", all.run, all.states);
        assert!(report.absent.run > 2500, "{} encodings on no model", report.absent.run);
        assert!(report.unallocated.states > 100);
    }
}

#[test]
fn an_older_model_does_what_the_oracle_does() {
    if has_oracle() {
        expect_none(&Run { states: 8, absent: 2, ..run("neoverse-n1", second(), None) });
        expect_none(&Run { states: 8, absent: 2, ..run("cortex-a57", second(), None) });
    }
}

#[test]
fn sequences_do_what_the_oracle_does() {
    if !has_oracle() {
        return;
    }
    for seed in [20_261_129, second()] {
        let report = expect_none(&Run { sequences: 1000, ..run("max", seed, None) });
        assert!(
            report.sequences.states > 950 && report.instructions > 40_000,
            "{} executed",
            report.instructions
        );
    }
    for filter in [
        "addsub,log,movewide,bitfield,extract,cond,_dp_,compb,testb,branch_imm",
        "addsub,cond,compb,ldst,memop,comswap,asisdls",
        "asimd,asisd,float,condbranch,ldstpos",
    ] {
        expect_none(&Run { sequences: 500, ..run("max", second(), Some(filter)) });
    }
}

/// The completeness of lifts: what a model has, some lift knows.
#[test]
fn no_encoding_of_any_model_is_missing() {
    for model in armlet_arm::model::CpuModel::all() {
        let list: Vec<_> = missing(model.features()).iter().map(|e| e.name()).collect();
        assert!(list.is_empty(), "{}: no lift for {list:?}", model.name());
    }
}

/// Wherever SP points, as a sequence may leave it, the oracle's program catches its signals.
#[test]
fn a_signal_does_not_need_the_stack_pointer() {
    if !has_oracle() {
        return;
    }
    let features = features("max").expect("the model exists");
    // Nowhere, a few places in the data, the records.
    for sp in [0, 1, 0x1000_0000, 0x1000_1080, 0x1001_0000, 0x1001_0240, 0x2000_0000, u64::MAX] {
        let text = format!("00000000 : sp={sp:#x} -> sigill");
        let (cases, want) = line::parse(&text).expect("it reads").expect("it is a case");
        let code = program::code(&features, &cases);
        let got = qemu::execute("max", &features, &cases, &code).expect("the oracle runs").pop();
        let got = got.expect("a state");
        assert!(want.is_same(&got), "SP {sp:#x}: {}", want.differences(&got).join(", "));
    }
}
