//! Properties: features that can be switched on top of a model, `--cpu neoverse-n1,lse=off`.

use crate::id::{IdReg, IdRegisters};

/// A switch: the ID fields it sets when on and when off.
#[derive(Debug)]
pub struct Property {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for people.
    pub description: &'static str,
    /// (register, lsb, value when on, value when off)
    fields: &'static [(IdReg, u32, u8, u8)],
    /// The property that must be on if this one is.
    needs: Option<&'static str>,
}

const fn property(
    name: &'static str,
    description: &'static str,
    fields: &'static [(IdReg, u32, u8, u8)],
    needs: Option<&'static str>,
) -> Property {
    Property { name, description, fields, needs }
}

type R = IdReg;

/// All switches, by name.
pub(super) const ALL: &[Property] = &[
    property("aes", "AES and polynomial multiply", &[(R::ISAR0, 4, 2, 0)], None),
    property("crc32", "CRC32 instructions", &[(R::ISAR0, 16, 1, 0)], None),
    property("dotprod", "dot product instructions", &[(R::ISAR0, 44, 1, 0)], None),
    property("dpb", "DC CVAP", &[(R::ISAR1, 0, 1, 0)], None),
    property("dpb2", "DC CVADP", &[(R::ISAR1, 0, 2, 1)], None),
    property("e0pd", "halves of the address space closed to EL0", &[(R::MMFR2, 60, 1, 0)], None),
    property("flagm", "flag manipulation", &[(R::ISAR0, 52, 2, 0)], None),
    property("fp16", "half-precision arithmetic", &[(R::PFR0, 16, 1, 0), (R::PFR0, 20, 1, 0)], None),
    property("hafdbs", "hardware access flag and dirty state", &[(R::MMFR1, 0, 2, 0)], None),
    property("hbc", "hinted conditional branches", &[(R::ISAR2, 20, 1, 0)], None),
    property("hpds", "hierarchical permission disables", &[(R::MMFR1, 12, 2, 0)], None),
    property("jscvt", "conversion to integer as in JavaScript", &[(R::ISAR1, 12, 1, 0)], None),
    property("lpa", "52-bit physical addresses (64K granule)", &[(R::MMFR0, 0, 6, 5)], None),
    property(
        "lpa2",
        "52-bit addresses with the 4K and 16K granules",
        &[(R::MMFR0, 28, 1, 0), (R::MMFR0, 20, 2, 1)],
        Some("lpa"),
    ),
    property("lrcpc", "load-acquire RCpc", &[(R::ISAR1, 20, 1, 0)], None),
    property("lrcpc2", "load-acquire RCpc with offsets", &[(R::ISAR1, 20, 2, 1)], None),
    property("lse", "atomic instructions", &[(R::ISAR0, 20, 2, 0)], None),
    property("lva", "52-bit virtual addresses (64K granule)", &[(R::MMFR2, 16, 1, 0)], None),
    property("pan", "privileged access never", &[(R::MMFR1, 20, 2, 0)], None),
    property("ras", "error synchronisation barrier and records", &[(R::PFR0, 28, 1, 0)], None),
    property("rdm", "rounding double multiply accumulate", &[(R::ISAR0, 28, 1, 0)], None),
    property("sb", "speculation barrier", &[(R::ISAR1, 36, 1, 0)], None),
    property("sha1", "SHA-1", &[(R::ISAR0, 8, 1, 0)], None),
    property("sha256", "SHA-256", &[(R::ISAR0, 12, 1, 0)], None),
    property("sha3", "SHA-512 and SHA-3", &[(R::ISAR0, 12, 2, 1), (R::ISAR0, 32, 1, 0)], Some("sha256")),
    property("sm4", "SM3 and SM4", &[(R::ISAR0, 36, 1, 0), (R::ISAR0, 40, 1, 0)], None),
    property("ssbs", "speculative store bypass safe", &[(R::PFR1, 4, 2, 0)], None),
    property("tlbirange", "TLB maintenance by range", &[(R::ISAR0, 56, 2, 0)], None),
    property("uao", "user access override", &[(R::MMFR2, 4, 1, 0)], None),
];

/// Names of all switches.
pub(super) fn names() -> Vec<&'static str> {
    ALL.iter().map(|p| p.name).collect()
}

pub(super) fn find(name: &str) -> Option<&'static Property> {
    ALL.iter().find(|p| p.name == name)
}

/// The first property that is on while the one it needs is off.
pub(super) fn unmet(ids: &IdRegisters) -> Option<(&'static str, &'static str)> {
    ALL.iter().find_map(|p| {
        let needs = p.needs?;
        let missing = p.is_on(ids) && !find(needs).is_some_and(|n| n.is_on(ids));
        missing.then_some((p.name, needs))
    })
}

impl Property {
    /// All that exist, by name.
    pub fn all() -> &'static [Property] {
        ALL
    }

    /// True if the ID registers have every field at its "on" value or above.
    pub fn is_on(&self, ids: &IdRegisters) -> bool {
        self.fields.iter().all(|&(reg, lsb, on, _)| ids.field(reg, lsb) >= on)
    }

    pub(super) fn apply(&self, ids: &mut IdRegisters, on: bool) {
        for &(reg, lsb, when_on, when_off) in self.fields {
            // A model that has more than "on" keeps it, one that has less than "off" likewise.
            let present = ids.field(reg, lsb);
            let value = if on { present.max(when_on) } else { present.min(when_off) };
            ids.set_field(reg, lsb, value);
        }
    }
}
