//! The tests test: a mistake in a lift is found, whatever kind it is of, and shrinks to one instruction.

use armlet_conform::generate::Plan;
use armlet_conform::run::Run;
use armlet_conform::spoil::MISTAKES;
use armlet_conform::{Executor, features, line, qemu, shrink};

#[test]
fn every_mistake_is_found() {
    if qemu::version().is_none() {
        assert!(std::env::var_os("ARMLET_SKIP_QEMU_USER").is_some(), "run `cargo xtask setup`");
        return;
    }
    let features = features("max").expect("the model exists");
    for mistake in MISTAKES {
        let mut run = Run {
            plan: Plan::new(features, 20_261_130, Some(mistake.encodings)),
            model: "max".into(),
            states: 128,
            absent: 0,
            sequences: 0,
            oracle: Executor::Qemu,
            tested: vec![Executor::Interpreter],
            spoil: None,
        };
        assert!(!run.plan.encodings.is_empty(), "nothing is called {}", mistake.encodings);
        let right = run.run().expect("the executors run");
        assert!(right.mismatches.is_empty(), "without the mistake: {}", mistake.what);
        run.spoil = Some(mistake.spoil);
        let report = run.run().expect("the executors run");
        let first = report.mismatches.first().unwrap_or_else(|| panic!("not found: {}", mistake.what));
        let small = shrink::shrink(&run, first).expect("the executors run");
        let text = line::write(&small.case, &small.want);
        assert!(!small.want.is_same(&small.got), "{}: {text}", mistake.what);
        // What is left of 31 registers, 32 vectors and a kilobyte of memory.
        assert!(text.len() < 600, "{}: not small: {text}", mistake.what);
        let (_, again) = line::parse(&text).expect("the line reads").expect("it is a case");
        assert!(again.is_same(&small.want), "{}: reads as something else: {text}", mistake.what);
    }
}
