//! Random valid instructions of an encoding.

use armlet_arm::{Class, Enc, Feature, FeatureSet, decode};

use super::Word;
use crate::asm;
use crate::random::Random;

/// An instruction of this encoding, after another one that it needs, or `None` if these fields cannot be tested.
pub(super) fn word(r: &mut Random, features: &FeatureSet, enc: Enc) -> Option<Word> {
    let word = fill(r, features, enc)?;
    let mut body = vec![word];
    if enc.class() == Class::Memcms && features.has(enc.feature()) {
        return Some(Word { enc, body: all_three(word)? });
    }
    let exclusive_store = matches!(enc.class(), Class::Ldstexclr | Class::Ldstexclp) && word & (1 << 22) == 0;
    if exclusive_store && features.has(enc.feature()) {
        body.insert(0, load_exclusive_for(word));
        if r.one_in(8) {
            body.insert(1, asm::CLREX);
        }
    }
    if features.has(enc.feature())
        && !r.one_in(8)
        && let Some(first) = signs_for(enc, word)
    {
        body.insert(0, first);
    }
    Some(Word { enc, body })
}

/// What signs the pointer that the instruction authenticates.
fn signs_for(enc: Enc, word: u32) -> Option<u32> {
    let m = enc.mnemonic();
    let (n, b) = (word >> 5 & 31, word >> 10 & 1);
    match enc.class() {
        // AUTIA is PACIA but for a bit, and so on.
        Class::Dp1src if m.starts_with("AUT") => Some(word & !(1 << 12)),
        Class::Hints if m.starts_with("AUT") => Some(word & !(1 << 7)),
        // PACIASP, PACIBSP.
        Class::BranchReg if m.starts_with("RETA") => Some(0xd503_233f | b << 6),
        // PACIZA, PACIZB; PACIA, PACIB with the same modifier.
        Class::BranchReg if m.ends_with("AAZ") || m.ends_with("ABZ") => Some(0xdac1_23e0 | b << 10 | n),
        Class::BranchReg if m.starts_with("BRA") || m.starts_with("BLRA") => {
            Some(0xdac1_0000 | b << 10 | (word & 31) << 5 | n)
        }
        // PACDZA, PACDZB; SP has none.
        Class::LdstPac if n != 31 => Some(0xdac1_2be0 | (word >> 23 & 1) << 10 | n),
        _ => None,
    }
}

/// The prologue, main part and epilogue that a copy or a set is made of: only after all of them is the result the
/// architecture's. Register numbers that are not all different, or 31, are CONSTRAINED UNPREDICTABLE.
fn all_three(word: u32) -> Option<Vec<u32>> {
    let [d, n, m] = [word & 31, word >> 5 & 31, word >> 16 & 31];
    let at = if word >> 22 & 3 == 3 { 14 } else { 22 };
    let fits = d != n && d != m && n != m && d != 31 && n != 31 && (m != 31 || at == 14);
    fits.then(|| (0..3).map(|part| word & !(3 << at) | part << at).collect())
}

/// Loads, stores and atomics: the base register is in bits 9:5.
pub(super) fn is_memory(c: Class) -> bool {
    use Class::*;
    matches!(
        c,
        LdstImmpost
            | LdstImmpre
            | LdstPos
            | LdstRegoff
            | LdstUnpriv
            | LdstUnscaled
            | LdstnapairOffs
            | LdstpairOff
            | LdstpairPost
            | LdstpairPre
            | Loadlit
            | Asisdlse
            | Asisdlsep
            | Asisdlso
            | Asisdlsop
    ) || needs_alignment(c)
}

/// Accesses that are ordered or atomic.
pub(super) fn needs_alignment(c: Class) -> bool {
    use Class::*;
    matches!(
        c,
        Ldstexclr
            | Ldstexclp
            | Ldstord
            | LdapstlUnscaled
            | LdapstlSimd
            | LdapstlWriteback
            | Ldiappstilp
            | Memop
            | Memop128
            | Comswap
            | Comswappr
    )
}

fn is_pair(c: Class) -> bool {
    use Class::*;
    matches!(c, LdstnapairOffs | LdstpairOff | LdstpairPost | LdstpairPre | Ldstexclp)
}

/// An instruction word of this encoding.
pub(super) fn fill(r: &mut Random, features: &FeatureSet, enc: Enc) -> Option<u32> {
    // A should-be bit that is as it should not be is CONSTRAINED UNPREDICTABLE.
    let mask = enc.mask() | enc.should_be();
    let mut word = enc.value() | (r.next() as u32 & !mask);
    // Often the same register twice, or the one that is zero or SP.
    let set = |word: u32, at: u32, v: u32| word & !(31 << at) | v << at;
    let free = |at: u32| mask >> at & 31 == 0;
    let d = word & 31;
    for at in [5, 16, 10] {
        if free(at) && r.one_in(12) {
            word = set(word, at, d);
        } else if free(at) && r.one_in(16) {
            word = set(word, at, 31);
        }
    }
    if free(0) && r.one_in(16) {
        word = set(word, 0, 31);
    }
    word = match enc.class() {
        Class::BranchImm => word & !0x3ff_ffff | 2,
        Class::Condbranch | Class::Compbranch => word & !0xff_ffe0 | 2 << 5,
        Class::Testbranch => word & !0x7_ffe0 | 2 << 5,
        Class::Loadlit => word & !0xff_ffe0 | ((r.below(32) as u32).wrapping_sub(16) & 0x7_ffff) << 5,
        Class::Systemmove => word & !(0x7fff << 5) | system_register(r, features) << 5,
        Class::Pstate if enc == Enc::MSR_SI_pstate => pstate_field(r, features, word)?,
        Class::Systeminstrs => maintenance(r, features, word),
        Class::Comswappr if !r.one_in(8) => word & !(1 << 16 | 1),
        _ => word,
    };
    // A pair loaded into one register is CONSTRAINED UNPREDICTABLE, and versions of the oracle disagree.
    let pair = is_pair(enc.class()) && word & (1 << 22) != 0;
    // Versions of the oracle take some unallocated immediates for neighbours of theirs.
    if enc.class() == Class::Asimdshf && word >> 19 & 15 == 0 {
        return None;
    }
    // Semihosting's call.
    if enc.mnemonic() == "HLT" && word >> 5 & 0xffff == 0xf000 {
        return None;
    }
    (decode(word) == Some(enc) && !(pair && word & 31 == word >> 10 & 31)).then_some(word)
}

/// Bits of the floating-point numbers that the instruction works on, if it does.
pub(super) fn float_bits(enc: Enc, word: u32) -> Option<u32> {
    let class = enc.class().name();
    let m = enc.mnemonic();
    if !(m.starts_with('F') || m.starts_with("BF")) {
        return None;
    }
    let scalar = class.starts_with("Float");
    Some(match (scalar, word >> 22 & 3) {
        _ if class.ends_with("fp16") || m.starts_with("BF") => 16,
        (true, 3) => 16,
        (true, 1) | (false, 1 | 3) => 64,
        _ => 32,
    })
}

/// NZCV, FPCR, FPSR, and what else a program may have.
fn system_register(r: &mut Random, features: &FeatureSet) -> u32 {
    let mut list = vec![0xda10u32, 0xda20, 0xda21];
    if features.has(Feature::Dit) {
        list.push(0xda15);
    }
    if features.has(Feature::Ssbs2) {
        list.push(0xda16);
    }
    r.of(&list) & 0x7fff
}

/// DIT and SSBS, which a program may set, if the model has them.
fn pstate_field(r: &mut Random, features: &FeatureSet, word: u32) -> Option<u32> {
    let mut list = Vec::new();
    for (feature, op2) in [(Feature::Dit, 2), (Feature::Ssbs2, 1)] {
        if features.has(feature) {
            list.push(op2);
        }
    }
    // SPSel, which is UNDEFINED at EL0, where there is nothing else.
    let Some(&op2) = list.get(r.below(list.len().max(1) as u64) as usize) else {
        return Some(word & !(7 << 16 | 7 << 5) | 5 << 5);
    };
    Some(word & !(7 << 16 | 7 << 5 | 15 << 8) | 3 << 16 | op2 << 5 | (r.next() as u32 & 1) << 8)
}

/// Cache maintenance that a program may do: DC CVAC, CVAU, CIVAC, CVAP, CVADP, IC IVAU, of any address in Xt.
fn maintenance(r: &mut Random, features: &FeatureSet, word: u32) -> u32 {
    let mut list = vec![(10, 1), (11, 1), (14, 1), (5, 1)];
    for (feature, crm) in [(Feature::Dpb, 12), (Feature::Dpb2, 13)] {
        if features.has(feature) {
            list.push((crm, 1));
        }
    }
    let (crm, op2) = r.of(&list);
    word & !(0x3fff << 5) | 3 << 16 | 7 << 12 | crm << 8 | op2 << 5
}

/// The load-exclusive that makes a store-exclusive succeed: of the same size at the same address. What comes of other
/// sizes is CONSTRAINED UNPREDICTABLE (Arm ARM B2.17.5).
pub(super) fn load_exclusive_for(word: u32) -> u32 {
    let load = word | 1 << 22 | 0x1f << 16;
    // Into registers that the store does not use, so that the address and the data stay.
    let used = [word & 31, word >> 5 & 31, word >> 10 & 31];
    let mut free = (0..31).filter(|n| !used.contains(n));
    let (a, b) = (free.next().unwrap_or(0), free.next().unwrap_or(1));
    let load = load & !31 | a;
    if load & (1 << 21) != 0 { load & !(31 << 10) | b << 10 } else { load }
}
