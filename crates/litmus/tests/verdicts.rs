//! The model against verdicts that are known: of the papers, of Arm's documents, of x86.

use std::collections::BTreeSet;

use armlet_litmus::model::{Model, allowed};
use armlet_litmus::shapes::{SHAPES, shape, variants, with};
use armlet_litmus::test::{Barrier, Link, Test, What};

const NONE: Link = Link::None;
const DMB: Link = Link::Barrier(Barrier::Full, false);
const DMB_LD: Link = Link::Barrier(Barrier::Load, false);
const DMB_ST: Link = Link::Barrier(Barrier::Store, false);
const ADDR: Link = Link::Address;
const DATA: Link = Link::Data;
const CTRL: Link = Link::Control;
const CTRL_ISB: Link = Link::ControlIsb;

fn make(name: &str, links: &[&[Link]]) -> Test {
    with(shape(name).expect("a shape"), links, |_, _, what| what)
}

/// All loads acquire as `load` does, all stores release.
fn ordered(name: &str, load: What) -> Test {
    with(
        shape(name).expect("a shape"),
        &[],
        |_, _, what| if what.reads() { load } else { What::StoreRelease },
    )
}

fn outcomes(test: &Test, model: Model) -> BTreeSet<String> {
    allowed(test, model).into_iter().map(|o| test.describe(o)).collect()
}

/// Whether the outcome that the shape is about is allowed.
fn allows(test: &Test) -> bool {
    let about = match test.shape {
        "MP" => "1:y=1 1:x=0",
        "SB" => "0:y=0 1:x=0",
        "LB" => "0:x=1 1:y=1",
        "S" => "1:y=1 [x]=1",
        "R" => "1:x=0 [y]=2",
        "2+2W" => "[x]=1 [y]=2",
        "CoRR" => "1:x=1 1:x=0",
        "CoRW1" => "0:x=1",
        "CoWW" => "1:x=0 1:x=0 [x]=1",
        "SB+rfi" => "0:x=1 0:y=0 1:y=1 1:x=0",
        "WRC" => "1:x=1 2:y=1 2:x=0",
        "RWC" => "1:x=1 1:y=0 2:x=0",
        "ISA2" => "1:y=1 2:z=1 2:x=0",
        "3.LB" => "0:x=1 1:y=1 2:z=1",
        "3.SB" => "0:y=0 1:z=0 2:x=0",
        "IRIW" => "1:x=1 1:y=0 3:y=1 3:x=0",
        "MP+rfi" => "1:y=1 1:z=1 1:x=0",
        "W+RWC" => "1:y=1 1:z=0 2:x=0",
        other => panic!("no outcome for {other}"),
    };
    let sequential = outcomes(test, Model::Sequential);
    assert!(!sequential.contains(about), "{test}: {about} is nothing special");
    outcomes(test, Model::Arm).contains(about)
}

#[test]
fn coherence_holds_without_any_order() {
    for name in ["CoRR", "CoRW1", "CoWW"] {
        assert!(!allows(&make(name, &[])), "{name}");
    }
}

#[test]
fn plain_accesses_may_do_anything_else() {
    for name in ["MP", "SB", "LB", "S", "R", "2+2W", "WRC", "RWC", "ISA2", "3.LB", "3.SB", "IRIW", "W+RWC"] {
        assert!(allows(&make(name, &[])), "{name}");
    }
}

#[test]
fn of_two_threads() {
    let verdicts: &[(&str, Link, Link, bool)] = &[
        ("MP", DMB, DMB, false),
        ("MP", DMB, ADDR, false),
        ("MP", DMB, CTRL, true),
        ("MP", DMB, CTRL_ISB, false),
        ("MP", DMB, DMB_LD, false),
        ("MP", DMB, DMB_ST, true),
        ("MP", DMB, NONE, true),
        ("MP", DMB_ST, ADDR, false),
        ("MP", DMB_LD, ADDR, true),
        ("MP", NONE, ADDR, true),
        ("SB", DMB, DMB, false),
        ("SB", DMB, DMB_ST, true),
        ("SB", DMB_ST, DMB_ST, true),
        ("SB", DMB_LD, DMB_LD, true),
        ("LB", DATA, DATA, false),
        ("LB", ADDR, ADDR, false),
        ("LB", CTRL, CTRL, false),
        ("LB", DMB_LD, DMB_LD, false),
        ("LB", DMB_ST, DMB_ST, true),
        ("LB", DATA, NONE, true),
        ("S", DMB, DATA, false),
        ("S", DMB_ST, CTRL, false),
        ("S", DMB, NONE, true),
        ("R", DMB, DMB, false),
        ("R", DMB_ST, DMB, false),
        ("R", DMB, DMB_ST, true),
        ("2+2W", DMB_ST, DMB_ST, false),
        ("2+2W", DMB_ST, NONE, true),
        ("2+2W", DMB_LD, DMB_LD, true),
    ];
    for &(name, first, second, wanted) in verdicts {
        let test = make(name, &[&[first], &[second]]);
        assert_eq!(allows(&test), wanted, "{test}");
    }
}

#[test]
fn of_more_threads() {
    assert!(!allows(&make("WRC", &[&[], &[DATA], &[ADDR]])), "Arm is multi-copy atomic");
    assert!(allows(&make("WRC", &[&[], &[DATA], &[CTRL]])));
    assert!(!allows(&make("IRIW", &[&[], &[ADDR], &[], &[ADDR]])));
    assert!(!allows(&make("IRIW", &[&[], &[DMB_LD], &[], &[CTRL_ISB]])));
    assert!(allows(&make("IRIW", &[&[], &[ADDR], &[], &[]])));
    assert!(!allows(&make("ISA2", &[&[DMB], &[DATA], &[ADDR]])));
    assert!(!allows(&make("RWC", &[&[], &[ADDR], &[DMB]])));
    assert!(allows(&make("RWC", &[&[], &[ADDR], &[DMB_LD]])));
    assert!(!allows(&make("W+RWC", &[&[DMB], &[ADDR], &[DMB]])));
    assert!(!allows(&make("3.LB", &[&[DATA], &[DATA], &[CTRL]])));
    assert!(!allows(&make("3.SB", &[&[DMB], &[DMB], &[DMB]])));
}

#[test]
fn acquire_and_release() {
    for name in ["MP", "LB", "S", "SB", "R", "2+2W", "WRC", "RWC", "IRIW", "ISA2", "3.SB", "W+RWC"] {
        assert!(
            !allows(&ordered(name, What::LoadAcquire)),
            "{name} with STLR and LDAR is sequentially consistent"
        );
    }
    // LDAPR may come before an earlier STLR.
    assert!(allows(&ordered("SB", What::LoadRcpc)));
    assert!(allows(&ordered("3.SB", What::LoadRcpc)));
    assert!(!allows(&ordered("MP", What::LoadRcpc)));
    assert!(!allows(&ordered("IRIW", What::LoadRcpc)));
    // So may plain ones.
    assert!(allows(&ordered("SB", What::Load)));
}

#[test]
fn forwarding_and_speculation() {
    // Each thread may read its own store before others see it.
    assert!(allows(&make("SB+rfi", &[&[NONE, ADDR], &[NONE, ADDR]])));
    assert!(allows(&make("SB+rfi", &[&[NONE, NONE], &[NONE, NONE]])));
    assert!(!allows(&make("SB+rfi", &[&[DMB, ADDR], &[DMB, ADDR]])));
    // PPOCA: a store under a branch may be forwarded before the branch is known; PPOAA: not with an address.
    assert!(allows(&make("MP+rfi", &[&[DMB], &[CTRL, NONE, ADDR]])));
    assert!(!allows(&make("MP+rfi", &[&[DMB], &[ADDR, NONE, ADDR]])));
    assert!(!allows(&make("MP+rfi", &[&[DMB], &[DATA, NONE, ADDR]])));
}

#[test]
fn atomics() {
    let stores = |name: &str, swap: What, load: What| {
        with(shape(name).expect("a shape"), &[], |_, _, what| if what.reads() { load } else { swap })
    };
    let seen = |test: &Test, text: &str| outcomes(test, Model::Arm).iter().any(|o| o == text);
    // Two swaps of one location: one sees the other.
    let test = stores("CoRW2", What::Swap(false, false), What::Load);
    assert!(!outcomes(&test, Model::Arm).iter().any(|o| o.contains("0:x=0 0:x=0 1:x=0")), "{test}");
    for swap in [What::Swap(true, true), What::Exclusive(true, true)] {
        let test = stores("SB", swap, What::LoadAcquire);
        assert!(!seen(&test, "0:x=0 0:y=0 1:y=0 1:x=0"), "{test}");
    }
    // The write of a single instruction that acquires and releases is before all that follows; not so that of a pair.
    assert!(!seen(&stores("SB", What::Swap(true, true), What::Load), "0:x=0 0:y=0 1:y=0 1:x=0"));
    assert!(seen(&stores("SB", What::Swap(false, true), What::Load), "0:x=0 0:y=0 1:y=0 1:x=0"));
    assert!(seen(&stores("SB", What::Exclusive(true, true), What::Load), "0:x=0 0:y=0 1:y=0 1:x=0"));
}

/// Sequential consistency allows no more than x86-TSO, and that, for the code that the translator makes, no more than
/// Arm. That shows both that the model does not forbid too much, and that the translator's fences are enough.
#[test]
fn models_contain_each_other() {
    let (mut tests, mut relaxed) = (0, 0);
    for &s in SHAPES {
        for test in variants(s, 1, 40) {
            let [sc, tso, arm] = [Model::Sequential, Model::Tso, Model::Arm].map(|m| allowed(&test, m));
            assert!(!sc.is_empty(), "{test}");
            assert!(sc.is_subset(&tso), "{test}");
            let more: Vec<String> = tso.difference(&arm).map(|&o| test.describe(o)).collect();
            assert!(more.is_empty(), "{test}: allowed by x86 and not by Arm: {more:?}");
            tests += 1;
            relaxed += usize::from(arm.len() > sc.len());
        }
    }
    assert!(tests > 1000 && relaxed > tests / 3, "{tests} tests, {relaxed} of them relaxed");
}

/// x86-TSO's own verdicts.
#[test]
fn of_x86() {
    let seen = |test: &Test, text: &str| outcomes(test, Model::Tso).contains(text);
    assert!(seen(&make("SB", &[]), "0:y=0 1:x=0"));
    assert!(seen(&make("R", &[]), "1:x=0 [y]=2"));
    assert!(seen(&make("SB+rfi", &[]), "0:x=1 0:y=0 1:y=1 1:x=0"));
    assert!(!seen(&make("SB", &[&[DMB], &[DMB]]), "0:y=0 1:x=0"));
    assert!(!seen(&make("MP", &[]), "1:y=1 1:x=0"));
    assert!(!seen(&make("LB", &[]), "0:x=1 1:y=1"));
    assert!(!seen(&make("2+2W", &[]), "[x]=1 [y]=2"));
    assert!(!seen(&make("IRIW", &[]), "1:x=1 1:y=0 3:y=1 3:x=0"));
}
