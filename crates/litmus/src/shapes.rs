//! The classic shapes (Alglave, Maranget, Sarkar, Sewell: Understanding POWER multiprocessors; Alglave et al.: Herding
//! cats) and variants of them: each access and each gap between two filled in various ways.

use std::collections::HashSet;

use crate::test::{Barrier, Link, OUTCOME_BITS, Op, Test, What};

/// A shape: its name, and its threads as letters, `Wx Ry | …`.
pub type Shape = (&'static str, &'static str);

/// All shapes.
pub const SHAPES: &[Shape] = &[
    ("CoRR", "Wx | Rx Rx"),
    ("CoWW", "Wx Wx | Rx Rx"),
    ("CoRW1", "Rx Wx"),
    ("CoRW2", "Rx Wx | Wx"),
    ("CoWR", "Wx Rx | Wx"),
    ("MP", "Wx Wy | Ry Rx"),
    ("SB", "Wx Ry | Wy Rx"),
    ("SB+rfi", "Wx Rx Ry | Wy Ry Rx"),
    ("LB", "Rx Wy | Ry Wx"),
    ("S", "Wx Wy | Ry Wx"),
    ("R", "Wx Wy | Wy Rx"),
    ("2+2W", "Wx Wy | Wy Wx"),
    ("MP+rfi", "Wx Wy | Ry Wz Rz Rx"),
    ("WRC", "Wx | Rx Wy | Ry Rx"),
    ("RWC", "Wx | Rx Ry | Wy Rx"),
    ("WWC", "Wx | Rx Wy | Ry Wx"),
    ("WRR+2W", "Wx | Rx Ry | Wy Wx"),
    ("WRW+2W", "Wx | Rx Wy | Wy Wx"),
    ("ISA2", "Wx Wy | Ry Wz | Rz Rx"),
    ("W+RWC", "Wx Wy | Ry Rz | Wz Rx"),
    ("Z6.1", "Wx Wy | Wy Wz | Rz Wx"),
    ("Z6.2", "Wx Wy | Ry Wz | Rz Wx"),
    ("Z6.3", "Wx Wy | Wy Wz | Rz Rx"),
    ("Z6.4", "Wx Wy | Wy Rz | Wz Rx"),
    ("Z6.5", "Wx Wy | Wy Wz | Wz Rx"),
    ("3.2W", "Wx Wy | Wy Wz | Wz Wx"),
    ("3.SB", "Wx Ry | Wy Rz | Wz Rx"),
    ("3.LB", "Rx Wy | Ry Wz | Rz Wx"),
    ("IRIW", "Wx | Rx Ry | Wy | Ry Rx"),
    ("IRRWIW", "Wx | Rx Ry | Wy | Ry Wx"),
    ("IRWIW", "Wx | Rx Wy | Wy | Ry Wx"),
    ("4.SB", "Wx Ry | Wy Rz | Wz Rw | Ww Rx"),
    ("4.LB", "Rx Wy | Ry Wz | Rz Ww | Rw Wx"),
];

/// The shape of this name.
pub fn shape(name: &str) -> Option<Shape> {
    SHAPES.iter().copied().find(|(n, _)| *n == name)
}

/// How stores, loads and gaps of a variant are filled.
#[derive(Clone, Copy, Debug)]
struct Filling {
    load: What,
    store: What,
    /// After a store.
    after_store: Link,
    /// After a load.
    after_load: Link,
}

const PLAIN: Filling =
    Filling { load: What::Load, store: What::Store, after_store: Link::None, after_load: Link::None };

/// The locations.
const LETTERS: [u8; 4] = *b"xyzw";

/// The test with plain accesses and nothing between them.
pub fn plain(shape: Shape) -> Test {
    let mut values = [0; 4];
    let thread = |text: &str| {
        text.split_whitespace()
            .map(|access| {
                let letter = access.as_bytes().get(1);
                let location = LETTERS.iter().position(|l| Some(l) == letter).unwrap_or(0);
                let store = access.starts_with('W');
                values[location] += u8::from(store);
                let what = if store { What::Store } else { What::Load };
                Op { what, location, value: if store { values[location] } else { 0 }, link: Link::None }
            })
            .collect()
    };
    Test { shape: shape.0, threads: shape.1.split('|').map(thread).collect(), inner: false, size: 3 }
}

/// The test with `links` between accesses, thread by thread, and accesses as `fill` changes them.
pub fn with(shape: Shape, links: &[&[Link]], fill: impl Fn(usize, usize, What) -> What) -> Test {
    let mut test = plain(shape);
    for (t, ops) in test.threads.iter_mut().enumerate() {
        for (n, op) in ops.iter_mut().enumerate() {
            op.what = fill(t, n, op.what);
            if n > 0 {
                op.link = links.get(t).and_then(|l| l.get(n - 1)).copied().unwrap_or(Link::None);
            }
        }
    }
    repair(&mut test);
    test
}

/// Takes away dependencies on what does not read, and values that would be written twice.
fn repair(test: &mut Test) {
    let mut values = [0; 4];
    for ops in &mut test.threads {
        let mut before = None;
        for op in ops {
            let possible = match op.link {
                Link::None | Link::Barrier(..) => true,
                Link::Data => before.is_some_and(What::reads) && op.what.writes(),
                _ => before.is_some_and(What::reads),
            };
            if before.is_none() || !possible {
                op.link = Link::None;
            }
            if op.what.writes() {
                values[op.location] += 1;
                op.value = values[op.location];
            }
            before = Some(op.what);
        }
    }
}

const SWAPS: [What; 4] =
    [What::Swap(false, false), What::Swap(true, false), What::Swap(false, true), What::Swap(true, true)];
const EXCLUSIVES: [What; 4] = [
    What::Exclusive(false, false),
    What::Exclusive(true, false),
    What::Exclusive(false, true),
    What::Exclusive(true, true),
];
const BARRIERS: [Link; 6] = [
    Link::Barrier(Barrier::Full, false),
    Link::Barrier(Barrier::Load, false),
    Link::Barrier(Barrier::Store, false),
    Link::Barrier(Barrier::Full, true),
    Link::Barrier(Barrier::Load, true),
    Link::Barrier(Barrier::Store, true),
];
const DEPENDENCIES: [Link; 4] = [Link::Address, Link::Data, Link::Control, Link::ControlIsb];

/// The fillings that every shape gets.
fn fillings() -> Vec<Filling> {
    let mut all = vec![PLAIN];
    let links = BARRIERS.iter().chain(&DEPENDENCIES);
    all.extend(links.map(|&l| Filling { after_store: l, after_load: l, ..PLAIN }));
    for store in [Link::Barrier(Barrier::Full, false), Link::Barrier(Barrier::Store, false)] {
        let loads = DEPENDENCIES.into_iter().chain([Link::Barrier(Barrier::Load, false)]);
        all.extend(loads.map(|load| Filling { after_store: store, after_load: load, ..PLAIN }));
    }
    for load in [What::Load, What::LoadAcquire, What::LoadRcpc] {
        for store in [What::Store, What::StoreRelease] {
            all.push(Filling { load, store, ..PLAIN });
        }
    }
    for store in SWAPS.into_iter().chain(EXCLUSIVES) {
        all.push(Filling { store, ..PLAIN });
        all.push(Filling { store, load: What::LoadAcquire, ..PLAIN });
        all.push(Filling { store, load: What::LoadRcpc, after_load: Link::Address, ..PLAIN });
    }
    all
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// Variants of `shape`: the systematic ones, and `more` at random.
pub fn variants(shape: Shape, seed: u64, more: usize) -> Vec<Test> {
    let name = shape.0.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut r = Random(name);
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    let mut add = |r: &mut Random, mut test: Test| {
        repair(&mut test);
        if test.outcome_bits() <= OUTCOME_BITS && seen.insert(test.threads.clone()) {
            test.inner = r.below(2) == 0;
            test.size = r.below(4) as u32;
            all.push(test);
        }
    };
    for f in fillings() {
        let mut test = plain(shape);
        for ops in &mut test.threads {
            let mut after = Link::None;
            for op in ops {
                op.link = after;
                after = if op.what.reads() { f.after_load } else { f.after_store };
                op.what = if op.what.reads() { f.load } else { f.store };
            }
        }
        add(&mut r, test);
    }
    for _ in 0..more {
        let mut test = plain(shape);
        for op in test.threads.iter_mut().flatten() {
            op.what = if op.what.reads() {
                r.of(&[What::Load, What::Load, What::LoadAcquire, What::LoadRcpc])
            } else {
                let swap = r.of(&SWAPS);
                let exclusive = r.of(&EXCLUSIVES);
                r.of(&[What::Store, What::Store, What::StoreRelease, swap, exclusive])
            };
            let barrier = r.of(&BARRIERS);
            op.link =
                r.of(&[Link::None, barrier, Link::Address, Link::Data, Link::Control, Link::ControlIsb]);
        }
        add(&mut r, test);
    }
    all
}
