//! The tests test: a mistake of a lift or of the code generator is found, whatever kind it is of, and shrinks to one
//! instruction.

use armlet_conform::generate::Plan;
use armlet_conform::run::Run;
#[cfg(target_arch = "x86_64")]
use armlet_conform::spoil::HOST_MISTAKES;
use armlet_conform::spoil::{MISTAKES, Mistake};
use armlet_conform::{Executor, features, line, qemu, shrink};

#[test]
fn every_mistake_of_a_lift_is_found_in_the_interpreter() {
    find(Executor::Interpreter, MISTAKES, 128);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_mistake_of_a_lift_is_found_in_host_code() {
    find(Executor::Jit, MISTAKES, 128);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_mistake_of_the_code_generator_is_found() {
    // A NaN that the two hosts make of the same operands differs seldom.
    find(Executor::Jit, HOST_MISTAKES, 1500);
}

fn find(tested: Executor, mistakes: &[Mistake], states: u64) {
    if qemu::version().is_none() {
        assert!(std::env::var_os("ARMLET_SKIP_QEMU_USER").is_some(), "run `cargo xtask setup`");
        return;
    }
    let features = features("max").expect("the model exists");
    for mistake in mistakes {
        let mut run = Run {
            plan: Plan::new(features, 20_261_130, Some(mistake.encodings)),
            model: "max".into(),
            states,
            absent: 0,
            sequences: 0,
            oracle: Executor::Qemu,
            tested: vec![tested],
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
