//! Differences that are nobody's mistake, or the oracle's: each with the section of the Arm ARM that decides it.

use armlet_arm::Class;

use crate::record::{self, Record};
use crate::{Case, Executor};

/// A difference between two executors.
pub struct Seen<'a> {
    /// The case.
    pub case: &'a Case,
    /// Whose state is taken for right.
    pub oracle: Executor,
    /// Who is tested.
    pub tested: Executor,
    /// The oracle's state.
    pub want: &'a Record,
    /// The tested executor's state.
    pub got: &'a Record,
}

/// A kind of difference that is explained.
pub struct Exception {
    /// What differs, and who is right.
    pub what: &'static str,
    /// The section of the Arm ARM (DDI 0487) that decides.
    pub section: &'static str,
    applies: fn(&Seen<'_>) -> bool,
}

/// All of them.
pub static EXCEPTIONS: &[Exception] = &[
    Exception {
        what: "the oracle's host does not tell at which address an access failed that its MMU cannot express",
        section: "D24.2, FAR_EL1: the address that the access failed at",
        applies: |s| s.oracle == Executor::Qemu && s.got.far >> 47 != 0 && only(s, &|r| r.far = 0),
    },
    Exception {
        what: "the oracle's FABS and FNEG (vector) change the sign of a NaN with FPCR.AH set",
        section: "J1.3, FPAbs and FPNeg, which leave it alone, as the scalar forms do",
        applies: |s| {
            let vector = matches!(s.case.enc.class(), Class::Asimdmisc | Class::Asimdmiscfp16);
            let negates = matches!(s.case.enc.mnemonic(), "FABS" | "FNEG");
            let d = s.case.body.last().map_or(0, |w| *w as usize & 31);
            let ah = s.case.record.fpcr & armlet_arm::fp::FPCR_AH != 0;
            vector && negates && ah && s.oracle == Executor::Qemu && same_but(s, &|r| r.v[d] = 0)
        },
    },
    Exception {
        what: "the oracle signs an address whose bits 63 and 55 differ by bit 63, though the lower half has tags",
        section: "J1.1, AddPAC, which goes by bit 55 if TCR_EL1.TBI0 or TBI1 is set",
        applies: |s| {
            let first = s.case.body.first().copied().unwrap_or(0);
            s.oracle == Executor::Qemu && s.case.body.len() <= 2 && signs_by_63(first, &s.case.record.x)
        },
    },
    Exception {
        what: "the oracle takes the tag of an address that DC CVAP and DC CVADP are given for a part of it",
        section: "J1.1, AddrTop: translation, for cache maintenance as well, leaves the tag out",
        applies: |s| {
            let first = s.case.body.first().copied().unwrap_or(0);
            s.oracle == Executor::Qemu && s.case.body.len() <= 2 && keeps_tag(first, &s.case.record.x)
        },
    },
    Exception {
        what: "registers that an instruction loads are UNKNOWN when it ends in a Data Abort",
        section: "D1.3.4",
        applies: |s| only(s, &|r| forget_loaded(r, faulting(s))),
    },
];

/// True if the oracle gets `word` wrong with these registers, so that what follows would differ, too.
pub fn is_misjudged(word: u32, x: &[u64; 32]) -> bool {
    signs_by_63(word, x) || keeps_tag(word, x)
}

/// DC CVAP or DC CVADP of an address with a tag.
fn keeps_tag(word: u32, x: &[u64; 32]) -> bool {
    let t = word as usize & 31;
    matches!(word & !31, 0xd50b_7c20 | 0xd50b_7d20) && t != 31 && x[t] >> 56 != 0
}

/// True if `word` signs an address that the oracle takes for one of the other half.
fn signs_by_63(word: u32, x: &[u64; 32]) -> bool {
    let Some(enc) = armlet_arm::decode(word) else { return false };
    let n = match (enc.mnemonic(), enc.class()) {
        (m, _) if !m.starts_with("PAC") || m == "PACGA" => return false,
        (_, Class::Hints) if word >> 8 & 15 == 1 => 17,
        (_, Class::Hints) => 30,
        _ => word as usize & 31,
    };
    n != 31 && x[n] >> 55 & 1 == 1 && x[n] >> 63 == 0
}

/// The instruction that ended the case.
fn faulting(s: &Seen<'_>) -> u32 {
    let at = s.want.pc.wrapping_sub(s.case.place.code) / 4;
    s.case.body.get(at as usize).copied().unwrap_or(0)
}

/// Zeroes the vector registers that an instruction loads, if it loads more than one.
fn forget_loaded(r: &mut Record, word: u32) {
    use armlet_arm::Class::*;
    let t = word as usize & 31;
    let vector = word >> 26 & 1 == 1;
    match armlet_arm::decode(word).map(armlet_arm::Enc::class) {
        _ if word >> 22 & 1 == 0 => {}
        Some(Asisdlse | Asisdlsep | Asisdlso | Asisdlsop) => (0..4).for_each(|i| r.v[(t + i) % 32] = 0),
        Some(LdstnapairOffs | LdstpairOff | LdstpairPost | LdstpairPre) if vector => {
            (r.v[t], r.v[word as usize >> 10 & 31]) = (0, 0);
        }
        _ => {}
    }
}

/// True if the two are the same after `forget` has removed from both what may differ.
fn same_but(s: &Seen<'_>, forget: &dyn Fn(&mut Record)) -> bool {
    let (mut want, mut got) = (s.want.clone(), s.got.clone());
    forget(&mut want);
    forget(&mut got);
    want.is_same(&got)
}

/// True if both end in the same signal and are the same after `forget` has removed from both what may differ.
fn only(s: &Seen<'_>, forget: &dyn Fn(&mut Record)) -> bool {
    s.want.status == s.got.status && s.want.status >= record::SIGNAL && same_but(s, forget)
}

/// The number in [`EXCEPTIONS`] of what explains the difference.
pub fn explain(seen: &Seen<'_>) -> Option<usize> {
    EXCEPTIONS.iter().position(|e| (e.applies)(seen))
}
