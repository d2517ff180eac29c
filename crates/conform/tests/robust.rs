//! Lifting never panics and always ends properly, whatever the instruction word.

use armlet_accel_jit::ir::{Builder, Inst};
use armlet_accel_jit::lift::{Flow, LiftContext, lift};
use armlet_arm::{Enc, FeatureSet};
use armlet_conform::random::Random;

fn leaves(inst: &Inst) -> bool {
    use Inst::{Branch, BranchReg, Eret, EretAuthenticated, Raise};
    matches!(inst, Branch { .. } | BranchReg { .. } | Raise(_) | Eret | EretAuthenticated { .. })
}

fn check(b: &mut Builder, ctx: &LiftContext, word: u32) {
    b.clear();
    let flow = lift(b, ctx, word);
    let ends = b.block().insts.last().is_some_and(leaves);
    assert_eq!(flow == Flow::End, ends, "{word:#010x} lifts to {flow:?} with {:?}", b.block().insts);
    let inner = b.block().insts.split_last().is_none_or(|(_, rest)| !rest.iter().any(leaves));
    assert!(inner, "{word:#010x} leaves the block in its middle: {:?}", b.block().insts);
    assert!(b.block().temps <= 16, "{word:#010x} uses {} temporaries", b.block().temps);
}

fn contexts(features: FeatureSet) -> Vec<LiftContext> {
    let mut list = Vec::new();
    for (el, on, offset) in [(0, true, 0), (1, true, 4092), (1, false, 2048)] {
        list.push(LiftContext {
            features,
            el,
            fp_enabled: on,
            fp_inline: on,
            half_inline: on,
            fp_alternate: !on,
            fp_merge: !on,
            check_sp: on,
            guarded: on,
            offset,
        });
    }
    list
}

#[test]
fn any_word_lifts() {
    let features = armlet_conform::features("max").expect("the model exists");
    let mut r = Random::new(&[42]);
    let mut b = Builder::new();
    for ctx in contexts(features) {
        for _ in 0..300_000 {
            check(&mut b, &ctx, r.next() as u32);
        }
        for e in Enc::all().iter().filter(|e| features.has(e.feature())) {
            for _ in 0..64 {
                check(&mut b, &ctx, e.value() | (r.next() as u32 & !e.mask()));
            }
        }
    }
}
