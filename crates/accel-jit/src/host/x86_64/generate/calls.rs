//! Which instructions are host code, and which still call a function.

use armlet_arm::Enc;

use super::*;
use crate::ir::Builder;
use crate::lift::testing::{features, words};
use crate::lift::{self, Flow, LiftContext, is_data_simd};

fn context(model: &str, halves: bool) -> LiftContext {
    LiftContext {
        features: features(model),
        el: 0,
        fp_enabled: true,
        fp_inline: true,
        half_inline: halves,
        fp_alternate: false,
        fp_merge: false,
        check_sp: false,
        guarded: false,
        offset: 0,
    }
}

/// What blocks are made for.
#[derive(Clone, Copy, Debug)]
struct For {
    model: &'static str,
    avx512: bool,
    /// FPCR.FZ is set.
    flush: bool,
    /// FPCR.FZ16 is not.
    halves: bool,
}

/// Does `word` call a function, whatever its operands? None if it is UNDEFINED.
fn calls(g: &mut Generator, ctx: &LiftContext, For { avx512, flush, .. }: For, word: u32) -> Option<bool> {
    let mut b = Builder::new();
    if lift::lift(&mut b, ctx, word) != Flow::Next {
        return None;
    }
    b.emit(Inst::Branch { target: 4 });
    g.called = false;
    let options = Options { avx512, sha: true, fp: true, flush, ..Options::default() };
    g.generate(&b.finish(), 1 << 20, Numbers::default(), options);
    Some(g.called)
}

/// Beginnings of the names of encodings that may call functions: what is seldom, or has no short sequence.
const CALLING: [&str; 19] = [
    "BF",
    "FCADD",
    "FCCMP",
    "FCMLA",
    "FCVTXN",
    "FJCVTZS",
    "FRECPE",
    "FRECPX",
    "FRINT32",
    "FRINT64",
    "FRSQRTE",
    "SCVTF_H32_float2fix",
    "SCVTF_H64_float2fix",
    "SM3",
    "SM4",
    "UCVTF_H32_float2fix",
    "UCVTF_H64_float2fix",
    "URECPE",
    "URSQRTE",
];

/// The same on hosts without AVX-512 alone.
const CALLING_WITHOUT_AVX512: [&str; 4] =
    ["FRECPS_asimdsamefp16", "FRECPS_asisdsamefp16", "FRSQRTS_asimdsamefp16", "FRSQRTS_asisdsamefp16"];

/// The same with FPCR.FZ set.
const CALLING_WITH_FLUSHING: [&str; 1] = ["FCVT_HD"];

/// Encodings of which some instruction calls.
fn callers(what: For) -> Vec<Enc> {
    let ctx = context(what.model, what.halves);
    let mut g = Generator::new(Thunks::default());
    let mut calling = |e: &Enc| {
        let mut mine = words(*e).filter(|w| armlet_arm::decode(*w) == Some(*e));
        mine.any(|w| calls(&mut g, &ctx, what, w) == Some(true))
    };
    let all = Enc::all().iter().filter(|e| is_data_simd(e.class()) && ctx.features.has(e.feature()));
    all.copied().filter(|e| calling(e)).collect()
}

#[test]
fn common_instructions_call_nothing() {
    for model in ["neoverse-n1", "max"] {
        for (avx512, flush) in [(true, false), (false, false), (true, true), (false, true)] {
            expect_only_known(For { model, avx512, flush, halves: true });
        }
    }
}

fn expect_only_known(what: For) {
    let mut all = CALLING.to_vec();
    if !what.avx512 {
        all.extend(CALLING_WITHOUT_AVX512);
    }
    if what.flush {
        all.extend(CALLING_WITH_FLUSHING);
    }
    let found = callers(what);
    let known = |e: &&Enc| all.iter().any(|begin| e.name().starts_with(begin));
    let others: Vec<&str> = found.iter().filter(|e| !known(e)).map(|e| e.name()).collect();
    assert!(others.is_empty(), "{what:?}: {others:?}");
    if what.model == "max" {
        let gone: Vec<_> = all.iter().filter(|b| !found.iter().any(|e| e.name().starts_with(**b))).collect();
        assert!(gone.is_empty(), "nothing calls any more: {gone:?}");
    }
}

#[test]
fn singles_and_doubles_are_host_code_whatever_becomes_of_denormal_halves() {
    let found = callers(For { model: "max", avx512: true, flush: true, halves: false });
    let of_halves = |name: &str| {
        let begins = ["FCVTL_", "FCVTN_", "FMLAL", "FMLSL"].iter().any(|begin| name.starts_with(begin));
        begins || name.contains("fp16") || name.contains('H') || name.contains("shf_")
    };
    let known = |name: &str| CALLING.iter().any(|begin| name.starts_with(begin)) || of_halves(name);
    let others: Vec<&str> = found.iter().map(|e| e.name()).filter(|name| !known(name)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(found.iter().any(|e| e.name() == "FADD_H_floatdp2"), "{} encodings", found.len());
}
