//! The target description: which registers there are, as gdb wants to be told.

use std::fmt::Write as _;

use armlet_arm::CpuModel;
use armlet_arm::SysReg;
use armlet_arm::sysreg::Inspected;

use crate::registers::{FIRST_SYSTEM, Layout};

/// Fields of CPSR, by bit.
const CPSR: [(&str, u32, u32); 19] = [
    ("SP", 0, 0),
    ("EL", 2, 3),
    ("nRW", 4, 4),
    ("F", 6, 6),
    ("I", 7, 7),
    ("A", 8, 8),
    ("D", 9, 9),
    ("BTYPE", 10, 11),
    ("SSBS", 12, 12),
    ("ALLINT", 13, 13),
    ("IL", 20, 20),
    ("SS", 21, 21),
    ("PAN", 22, 22),
    ("UAO", 23, 23),
    ("DIT", 24, 24),
    ("TCO", 25, 25),
    ("V", 28, 28),
    ("C", 29, 29),
    ("Z", 30, 30),
];

/// A view of a vector register.
struct View {
    name: &'static str,
    /// Of an element.
    bits: u32,
    /// Names and types of the elements, as gdb's users know them.
    kinds: &'static [(&'static str, &'static str)],
}

const VIEWS: [View; 5] = [
    View { name: "d", bits: 64, kinds: &[("f", "ieee_double"), ("u", "uint64"), ("s", "int64")] },
    View { name: "s", bits: 32, kinds: &[("f", "ieee_single"), ("u", "uint32"), ("s", "int32")] },
    View { name: "h", bits: 16, kinds: &[("f", "ieee_half"), ("u", "uint16"), ("s", "int16")] },
    View { name: "b", bits: 8, kinds: &[("u", "uint8"), ("s", "int8")] },
    View { name: "q", bits: 128, kinds: &[("u", "uint128"), ("s", "int128")] },
];

/// The description of a CPU of this model, as XML.
pub(crate) fn xml(model: &CpuModel, layout: &Layout) -> String {
    let mut x = String::from(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n\
         <target version=\"1.0\">\n<architecture>aarch64</architecture>\n",
    );
    core(&mut x);
    floating_point(&mut x);
    system(&mut x, layout);
    let _ = writeln!(x, "<!-- {} -->\n</target>", model.name());
    x
}

fn register(x: &mut String, name: &str, bits: u32, kind: &str) {
    let _ = writeln!(x, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"/>");
}

fn core(x: &mut String) {
    x.push_str("<feature name=\"org.gnu.gdb.aarch64.core\">\n<flags id=\"cpsr_flags\" size=\"4\">\n");
    for (name, start, end) in CPSR {
        let _ = writeln!(x, "<field name=\"{name}\" start=\"{start}\" end=\"{end}\"/>");
    }
    x.push_str("<field name=\"N\" start=\"31\" end=\"31\"/>\n</flags>\n");
    (0..31).for_each(|n| register(x, &format!("x{n}"), 64, "int"));
    register(x, "sp", 64, "data_ptr");
    register(x, "pc", 64, "code_ptr");
    register(x, "cpsr", 32, "cpsr_flags");
    x.push_str("</feature>\n");
}

fn floating_point(x: &mut String) {
    x.push_str("<feature name=\"org.gnu.gdb.aarch64.fpu\">\n");
    for View { name: view, bits, kinds } in VIEWS {
        for (name, kind) in kinds {
            let count = 128 / bits;
            let _ = writeln!(x, "<vector id=\"v{view}{name}\" type=\"{kind}\" count=\"{count}\"/>");
        }
        let _ = writeln!(x, "<union id=\"vn{view}\">");
        kinds.iter().for_each(|(name, _)| field(x, name, &format!("v{view}{name}")));
        x.push_str("</union>\n");
    }
    x.push_str("<union id=\"aarch64v\">\n");
    VIEWS.iter().for_each(|View { name, .. }| field(x, name, &format!("vn{name}")));
    x.push_str("</union>\n");
    (0..32).for_each(|n| register(x, &format!("v{n}"), 128, "aarch64v"));
    register(x, "fpsr", 32, "int");
    register(x, "fpcr", 32, "int");
    x.push_str("</feature>\n");
}

fn field(x: &mut String, name: &str, kind: &str) {
    let _ = writeln!(x, "<field name=\"{name}\" type=\"{kind}\"/>");
}

/// System registers belong to a group of their own, so that `info registers` stays short; they are not saved around
/// function calls that gdb makes.
fn system(x: &mut String, layout: &Layout) {
    x.push_str("<feature name=\"org.armlet.aarch64.system\">\n");
    for (n, reg) in layout.system().iter().enumerate() {
        let (name, number) = (reg.name(), FIRST_SYSTEM + n);
        let _ = writeln!(
            x,
            "<reg name=\"{name}\" bitsize=\"64\" regnum=\"{number}\" type=\"{}\" group=\"system\" \
             save-restore=\"no\"/>",
            kind_of(*reg)
        );
    }
    x.push_str("</feature>\n");
}

/// Addresses are shown with the symbol that they lie in.
fn kind_of(reg: Inspected) -> &'static str {
    match reg {
        Inspected::Register(SysReg::ElrEl1 | SysReg::VbarEl1 | SysReg::RvbarEl1) => "code_ptr",
        Inspected::Register(SysReg::SpEl0 | SysReg::FarEl1 | SysReg::TpidrEl1) | Inspected::SpEl1 => {
            "data_ptr"
        }
        _ => "uint64",
    }
}
