//! Random states: registers with a liking for edges and for each other's values.

use armlet_arm::{Feature, FeatureSet, fp};

use crate::Place;
use crate::random::Random;
use crate::record::{MEMORY_SIZE, Record};

/// FPCR's bits that the model has and that change results.
pub fn fpcr_mask(features: &FeatureSet) -> u32 {
    let mut mask = fp::FPCR_AHP | fp::FPCR_DN | fp::FPCR_FZ | 3 << fp::FPCR_RMODE_SHIFT;
    if features.has(Feature::Fp16) {
        mask |= fp::FPCR_FZ16;
    }
    if features.has(Feature::Afp) {
        mask |= fp::FPCR_AH | fp::FPCR_FIZ | fp::FPCR_NEP;
    }
    if features.has(Feature::Ebf16) {
        mask |= fp::FPCR_EBF;
    }
    mask
}

/// All registers and the memory.
pub fn random(r: &mut Random, features: &FeatureSet) -> Record {
    let mut s = Record::new();
    for x in &mut s.x {
        *x = r.integer();
    }
    // A second register close to the first makes comparisons and subtractions interesting.
    let (a, b) = (r.below(31) as usize, r.below(31) as usize);
    s.x[a] = s.x[b].wrapping_add(r.below(3)).wrapping_sub(1);
    s.x[31] = 0x7fff_0000 + r.below(1 << 20) * 16;
    for v in &mut s.v {
        *v = r.vector();
    }
    let all: Vec<usize> = (0..32).collect();
    for _ in 0..8 {
        relate(r, &mut s, &all);
    }
    s.nzcv = (r.next() as u32) << 28;
    s.fpcr = fpcr(r, features);
    // What is set already is not set again, nor looked for.
    s.fpsr = match r.below(8) {
        0 => r.next() as u32 & 0x0800_009f,
        1 | 2 => r.next() as u32 & (fp::FPSR_IDC | fp::FPSR_UFC | fp::FPSR_IXC),
        _ => 0,
    };
    // Stretches of edge values between stretches of anything.
    s.memory.clear();
    while s.memory.len() < MEMORY_SIZE {
        let v = r.vector();
        s.memory.extend_from_slice(&v.to_le_bytes());
        s.memory.extend((0..2).flat_map(|_| r.next().to_le_bytes()));
    }
    s.memory.truncate(MEMORY_SIZE);
    s
}

/// Anything in FPCR, or more often what programs set.
fn fpcr(r: &mut Random, features: &FeatureSet) -> u32 {
    let rounding = if r.one_in(2) { r.next() as u32 & 3 << fp::FPCR_RMODE_SHIFT } else { 0 };
    let others = match r.below(8) {
        0 => r.next() as u32 & fpcr_mask(features),
        1 | 2 => fp::FPCR_FZ,
        3 => {
            r.of(&[fp::FPCR_DN, fp::FPCR_FZ | fp::FPCR_DN, fp::FPCR_FZ | fp::FPCR_FZ16, fp::FPCR_AHP])
                & fpcr_mask(features)
        }
        _ => 0,
    };
    rounding | others
}

/// Makes one vector register equal to another one, or equal but for the sign, the last place, or the exponent, so that sums
/// cancel, comparisons are close, and products and sums come out near a rounding boundary.
fn relate(r: &mut Random, s: &mut Record, registers: &[usize]) {
    let (to, from) = (r.of(registers), r.of(registers));
    let bits: u32 = r.of(&[16, 32, 64]);
    let lanes = (0..128 / bits).fold(0u128, |m, lane| m | 1 << (bits * lane));
    let exponent = [10, 23, 52][bits.trailing_zeros() as usize - 4];
    let v = s.v[from];
    s.v[to] = match r.below(5) {
        0 => v,
        1 => v ^ lanes << (bits - 1),
        2 => v ^ lanes,
        3 => v.wrapping_add(lanes),
        // So many powers of two apart that one operand's last bits decide how the other is rounded.
        _ => v.wrapping_add(lanes * (u128::from(r.below(exponent + 3)) << exponent)),
    };
}

/// Numbers of the instruction's own kind in the registers that its fields name, so that what matters meets.
pub fn floats(r: &mut Random, s: &mut Record, word: u32, bits: u32) {
    let fields = [0, 5, 10, 16].map(|at| (word >> at & 31) as usize);
    for n in fields {
        s.v[n] = r.floats(bits);
    }
    if r.one_in(4) {
        relate(r, s, &fields);
    }
}

/// Addresses of either half, with tags and without, in some registers: what codes are put into.
pub fn pointers(r: &mut Random, s: &mut Record, place: Place) {
    for x in &mut s.x[..31] {
        let bits = r.of(&[32, 39, 47, 48]);
        let low = r.next() & ((1 << bits) - 1);
        *x = match r.below(8) {
            0 => place.memory() + r.below(1024),
            1 | 2 => low,
            3 => low | u64::MAX << 48,
            4 => low | r.next() << 56,
            _ => continue,
        };
    }
}

/// Addresses inside the case's memory and a size, for a copy or a set.
pub fn for_copy(r: &mut Random, s: &mut Record, word: u32, place: Place) {
    let [d, n, m] = [word, word >> 5, word >> 16].map(|field| (field & 31) as usize);
    let forward = word >> 26 & 1 == 0;
    let copies = word >> 27 & 1 == 1 && word >> 22 & 3 != 3;
    s.x[n] = if r.one_in(8) { 0 } else { r.below(300) };
    s.x[d] = place.memory() + 32 + r.below(128);
    if copies {
        // Forwards only, the two may not overlap.
        s.x[m] = place.memory() + if forward { 512 + r.below(128) } else { 32 + r.below(256) };
    }
}
