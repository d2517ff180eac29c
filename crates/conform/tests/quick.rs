//! The quick form of the differential tests: a few cases for each group of encodings, with a fixed seed.

use armlet_conform::{Comparison, features, generate::Plan, missing, qemu};

/// Set to let the tests pass without the oracle.
const SKIP: &str = "ARMLET_SKIP_QEMU_USER";

fn quick(filters: &[&str], count: u64) {
    if !qemu::is_available() {
        assert!(
            std::env::var_os(SKIP).is_some(),
            "qemu-user is missing: install Debian's qemu-user-static (or set {SKIP}=1 to skip)"
        );
        eprintln!("skipped: no qemu-user, and {SKIP} is set");
        return;
    }
    let features = features("neoverse-n1").expect("the model exists");
    let mut lines = Vec::new();
    for filter in filters {
        let plan = Plan::new(features, 20_260_901, Some(filter));
        assert!(!plan.encodings.is_empty(), "nothing is called {filter}");
        let found = Comparison::of_lifts("neoverse-n1").run(&plan, 0, count).expect("the oracle runs");
        lines.extend(found.into_iter().map(|m| m.text));
    }
    assert!(lines.is_empty(), "{} mismatches (oracle/armlet):\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn data_processing_immediate() {
    quick(&["pcreladdr", "addsubimm", "logimm", "movewide", "bitfield", "extract"], 500);
}

#[test]
fn data_processing_register() {
    quick(&["logshift", "addsubshift", "addsubext", "addsubcarry", "condcmp", "condsel"], 500);
    quick(&["dp_1src", "dp_2src", "dp_3src"], 1000);
}

#[test]
fn branches_and_system() {
    quick(&["branchimm", "branchreg", "compbranch", "condbranch", "testbranch"], 200);
    quick(&["exception", "hints", "barriers", "systemmove"], 200);
}

#[test]
fn loads_and_stores() {
    quick(&["ldstpos", "ldstimm", "ldstunscaled", "ldstunpriv", "regoff"], 500);
    quick(&["ldstpair", "ldstnapair", "loadlit"], 500);
}

#[test]
fn atomics() {
    quick(&["ldstord", "ldstexcl", "_memop", "comswap"], 1000);
}

#[test]
fn structure_loads_and_stores() {
    quick(&["asisdlse", "asisdlso"], 1500);
}

#[test]
fn vectors() {
    quick(&["_asimd"], 6000);
}

#[test]
fn scalars_and_floating_point() {
    quick(&["_asisd", "_float"], 3000);
}

#[test]
fn cryptography() {
    quick(&["_crypto"], 500);
}

fn host_code(filter: Option<&str>, sequences: bool, count: u64) {
    host_code_of("neoverse-n1", filter, sequences, count);
}

fn host_code_of(model: &str, filter: Option<&str>, sequences: bool, count: u64) {
    let features = features(model).expect("the model exists");
    let plan = Plan::new(features, 20_260_902, filter);
    let found = Comparison::of_host_code(model, sequences).run(&plan, 0, count).expect("the JIT runs");
    let lines: Vec<_> = found.into_iter().map(|m| m.text).collect();
    assert!(lines.is_empty(), "{} mismatches (interpreter/JIT):\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn host_code_of_single_instructions() {
    host_code(None, false, 12_000);
}

#[test]
fn host_code_of_sequences() {
    host_code(None, true, 2000);
}

#[test]
fn host_code_of_integer_sequences() {
    host_code(Some("addsub,log,movewide,bitfield,extract,cond,_dp_,compb,testb,branch_imm"), true, 2000);
}

#[test]
fn host_code_of_memory_sequences() {
    host_code(Some("addsub,cond,compb,ldst,memop,comswap,asisdls"), true, 2000);
}

/// What FPCR has only on that model, too.
#[test]
fn host_code_of_the_largest_model() {
    host_code_of("max", Some("_asimd,_asisd,_float,_crypto"), false, 4000);
    host_code_of("max", Some("_asimd,_asisd,_float,addsub,log"), true, 1000);
}

/// The completeness of lifts: what a model has, some lift knows.
#[test]
fn no_encoding_of_any_model_is_missing() {
    for model in armlet_arm::model::CpuModel::all() {
        let list: Vec<_> = missing(model.features()).iter().map(|e| e.name()).collect();
        assert!(list.is_empty(), "{}: no lift for {list:?}", model.name());
    }
}
