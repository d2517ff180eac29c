//! Properties: features that can be switched on top of a model, `--cpu neoverse-n1,lse=off`.

use crate::id::{IdReg, IdRegisters};
use crate::model::ModelError;

/// A switch: the ID fields it sets when on and when off.
#[derive(Debug)]
pub struct Property {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for people.
    pub description: &'static str,
    /// (register, lsb, value when on, value when off)
    fields: &'static [(IdReg, u32, u8, u8)],
    /// The properties that must be on if this one is.
    needs: &'static [&'static str],
}

const fn property(
    name: &'static str,
    description: &'static str,
    fields: &'static [(IdReg, u32, u8, u8)],
    needs: &'static [&'static str],
) -> Property {
    Property { name, description, fields, needs }
}

type R = IdReg;

/// Pointers and generic data by one algorithm each, with FEAT_FPACCOMBINE.
const IMPDEF: &[(IdReg, u32, u8, u8)] = &[(R::ISAR1, 8, 5, 0), (R::ISAR1, 28, 1, 0)];
const QARMA3: &[(IdReg, u32, u8, u8)] = &[(R::ISAR2, 12, 5, 0), (R::ISAR2, 8, 1, 0)];
const QARMA5: &[(IdReg, u32, u8, u8)] = &[(R::ISAR1, 4, 5, 0), (R::ISAR1, 24, 1, 0)];

/// Properties of which one at most can be on, and the one name for all of them: its values are the rest of their
/// names, or `off`, or `on` for the first.
pub(super) const CHOICES: &[(&str, &[&str])] =
    &[("pauth", &["pauth-impdef", "pauth-qarma5", "pauth-qarma3"])];

/// All switches, by name. SHA-1 and SHA-256 come together (Arm ARM, ID_AA64ISAR0_EL1).
pub(super) const ALL: &[Property] = &[
    property("aes", "AES and polynomial multiply", &[(R::ISAR0, 4, 2, 0)], &[]),
    property("afp", "alternate floating-point handling", &[(R::MMFR1, 44, 1, 0)], &[]),
    property("bf16", "BFloat16 instructions", &[(R::ISAR1, 44, 1, 0)], &[]),
    property("bti", "branch target identification", &[(R::PFR1, 0, 1, 0)], &[]),
    property("clrbhb", "clearing of branch history", &[(R::ISAR2, 28, 1, 0)], &[]),
    property("crc32", "CRC32 instructions", &[(R::ISAR0, 16, 1, 0)], &[]),
    property("cssc", "common short sequences: CTZ, CNT, SMAX and others", &[(R::ISAR2, 52, 1, 0)], &[]),
    property("dit", "data-independent timing", &[(R::PFR0, 48, 1, 0)], &[]),
    property("dotprod", "dot product instructions", &[(R::ISAR0, 44, 1, 0)], &[]),
    property("dpb", "DC CVAP", &[(R::ISAR1, 0, 1, 0)], &[]),
    property("dpb2", "DC CVADP", &[(R::ISAR1, 0, 2, 1)], &["dpb"]),
    property("e0pd", "halves of the address space closed to EL0", &[(R::MMFR2, 60, 1, 0)], &[]),
    property("ebf16", "extended BFloat16 behaviours", &[(R::ISAR1, 44, 2, 1)], &["bf16"]),
    property("ecv", "self-synchronised counters", &[(R::MMFR0, 60, 1, 0)], &[]),
    property("fcma", "complex number instructions", &[(R::ISAR1, 16, 1, 0)], &[]),
    property("fhm", "half-precision products with single-precision sums", &[(R::ISAR0, 48, 1, 0)], &["fp16"]),
    property("flagm", "flag manipulation", &[(R::ISAR0, 52, 2, 0)], &[]),
    property("fp16", "half-precision arithmetic", &[(R::PFR0, 16, 1, 0), (R::PFR0, 20, 1, 0)], &[]),
    property("frintts", "rounding to integers of 32 and 64 bits", &[(R::ISAR1, 32, 1, 0)], &[]),
    property("hafdbs", "hardware access flag and dirty state", &[(R::MMFR1, 0, 2, 0)], &[]),
    property("hbc", "hinted conditional branches", &[(R::ISAR2, 20, 1, 0)], &[]),
    property("hpds", "hierarchical permission disables", &[(R::MMFR1, 12, 2, 0)], &[]),
    property("i8mm", "matrix products of bytes", &[(R::ISAR1, 52, 1, 0)], &[]),
    property("jscvt", "conversion to integer as in JavaScript", &[(R::ISAR1, 12, 1, 0)], &[]),
    property("lpa", "52-bit physical addresses (64K granule)", &[(R::MMFR0, 0, 6, 5)], &[]),
    property(
        "lpa2",
        "52-bit addresses with the 4K and 16K granules",
        &[(R::MMFR0, 28, 1, 0), (R::MMFR0, 20, 2, 1)],
        &["lpa"],
    ),
    property("lrcpc", "load-acquire RCpc", &[(R::ISAR1, 20, 1, 0)], &[]),
    property("lrcpc2", "load-acquire RCpc with offsets", &[(R::ISAR1, 20, 2, 1)], &["lrcpc"]),
    property("lrcpc3", "load-acquire RCpc of pairs and vectors", &[(R::ISAR1, 20, 3, 2)], &["lrcpc2"]),
    property("lse", "atomic instructions", &[(R::ISAR0, 20, 2, 0)], &[]),
    property("lse2", "unaligned atomicity inside 16 bytes", &[(R::MMFR2, 32, 1, 0)], &[]),
    property("lva", "52-bit virtual addresses (64K granule)", &[(R::MMFR2, 16, 1, 0)], &[]),
    property("mops", "memory copy and memory set", &[(R::ISAR2, 16, 1, 0)], &[]),
    property("pan", "privileged access never", &[(R::MMFR1, 20, 2, 0)], &[]),
    property("pauth-impdef", "pointer authentication by a fast algorithm", IMPDEF, &[]),
    property("pauth-qarma3", "pointer authentication by QARMA3", QARMA3, &[]),
    property("pauth-qarma5", "pointer authentication by QARMA5", QARMA5, &[]),
    property("ras", "error synchronisation barrier and records", &[(R::PFR0, 28, 1, 0)], &[]),
    property("rdm", "rounding double multiply accumulate", &[(R::ISAR0, 28, 1, 0)], &[]),
    property("rng", "random numbers", &[(R::ISAR0, 60, 1, 0)], &[]),
    property("rpres", "reciprocal estimates of 12 bits", &[(R::ISAR2, 4, 1, 0)], &["afp"]),
    property("sb", "speculation barrier", &[(R::ISAR1, 36, 1, 0)], &[]),
    property("sha1", "SHA-1", &[(R::ISAR0, 8, 1, 0)], &["sha256"]),
    property("sha256", "SHA-256", &[(R::ISAR0, 12, 1, 0)], &["sha1"]),
    property("sha3", "SHA-512 and SHA-3", &[(R::ISAR0, 12, 2, 1), (R::ISAR0, 32, 1, 0)], &["sha256"]),
    property("sm4", "SM3 and SM4", &[(R::ISAR0, 36, 1, 0), (R::ISAR0, 40, 1, 0)], &[]),
    property("specres", "restriction of predictions", &[(R::ISAR1, 40, 2, 0)], &[]),
    property("ssbs", "speculative store bypass safe", &[(R::PFR1, 4, 2, 0)], &[]),
    property("tlbirange", "TLB maintenance by range", &[(R::ISAR0, 56, 2, 0)], &[]),
    property("uao", "user access override", &[(R::MMFR2, 4, 1, 0)], &[]),
    property("wfxt", "waiting with a time limit", &[(R::ISAR2, 0, 2, 0)], &[]),
];

/// Names of all switches.
pub(super) fn names() -> Vec<&'static str> {
    ALL.iter().map(|p| p.name).collect()
}

/// Which properties a CPU is to have, before it has them.
pub(super) struct Settings {
    /// As many as there are properties: on or off, and whether somebody asked for it.
    all: Vec<(bool, bool)>,
}

impl Settings {
    /// Those that `ids` announce.
    pub(super) fn of(ids: &IdRegisters) -> Self {
        Self { all: ALL.iter().map(|p| (p.is_on(ids), false)).collect() }
    }

    /// Switches the property called `name`.
    pub(super) fn change(&mut self, name: &str, on: bool) -> Result<(), ModelError> {
        let at = ALL.iter().position(|p| p.name == name);
        let at = at.ok_or_else(|| ModelError::UnknownFeature(name.to_owned()))?;
        if self.all[at] == (!on, true) {
            return Err(ModelError::Contradiction(ALL[at].name));
        }
        self.all[at] = (on, true);
        Ok(())
    }

    fn is_on(&self, name: &str) -> bool {
        ALL.iter().zip(&self.all).any(|(p, (on, _))| p.name == name && *on)
    }

    /// Checks that what is on has what it needs, and writes what was changed to `ids`.
    pub(super) fn realize(&self, ids: &mut IdRegisters) -> Result<(), ModelError> {
        for (property, _) in ALL.iter().zip(&self.all).filter(|(_, (on, _))| *on) {
            if let Some(needs) = property.needs.iter().find(|needs| !self.is_on(needs)) {
                return Err(ModelError::Needs { name: property.name, needs });
            }
        }
        for (name, among) in CHOICES {
            let on: Vec<_> = among.iter().filter(|property| self.is_on(property)).collect();
            if let [first, second, ..] = on[..] {
                return Err(ModelError::Exclusive { choice: name, first, second });
            }
        }
        // Some share a field, which then has a value for each level: what is on raises it, what is off lowers it.
        for wanted in [true, false] {
            let changed = ALL.iter().zip(&self.all).filter(|(_, setting)| **setting == (wanted, true));
            changed.for_each(|(property, _)| property.apply(ids, wanted));
        }
        Ok(())
    }
}

impl Property {
    /// All that exist, by name.
    pub fn all() -> &'static [Property] {
        ALL
    }

    /// Names of the properties that must be on if this one is.
    pub fn needs(&self) -> &'static [&'static str] {
        self.needs
    }

    /// True if the ID registers have every field at its "on" value or above.
    pub fn is_on(&self, ids: &IdRegisters) -> bool {
        self.fields.iter().all(|&(reg, lsb, on, _)| ids.field(reg, lsb) >= on)
    }

    /// What `name=value` means if `name` is a choice among properties: all of these. None if it is none; the values that
    /// there are if it has no such value.
    pub fn choice(name: &str, value: &str) -> Option<Result<Vec<(&'static str, bool)>, String>> {
        let (name, among) = CHOICES.iter().find(|(choice, _)| *choice == name)?;
        let value_of = |property: &'static str| &property[name.len() + 1..];
        let wanted = match value {
            "off" => None,
            "on" => among.first().copied(),
            _ => match among.iter().find(|property| value_of(property) == value) {
                Some(property) => Some(*property),
                None => {
                    let values: Vec<_> = among.iter().map(|property| value_of(property)).collect();
                    return Some(Err(format!("{}, on or off", values.join(", "))));
                }
            },
        };
        Some(Ok(among.iter().map(|property| (*property, Some(*property) == wanted)).collect()))
    }

    fn apply(&self, ids: &mut IdRegisters, on: bool) {
        for &(reg, lsb, when_on, when_off) in self.fields {
            // A model that has more than "on" keeps it, one that has less than "off" likewise.
            let present = ids.field(reg, lsb);
            let value = if on { present.max(when_on) } else { present.min(when_off) };
            ids.set_field(reg, lsb, value);
        }
    }
}
