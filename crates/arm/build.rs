//! Generates the A64 decoder from `data/a64-encodings.tsv`: the enums of encodings and classes, their tables and a
//! decision tree from an instruction word to a short list of candidates.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::{env, fs, path::Path};

/// A leaf of the decision tree holds at most this many candidates, unless nothing separates them.
const LEAF: usize = 3;
/// Width of the root's field, bits `[31:21]`.
const ROOT_WIDTH: u32 = 11;
/// Widest field of an inner node.
const MAX_WIDTH: u32 = 6;

struct Row {
    name: String,
    mask: u32,
    value: u32,
    should_be: u32,
    class: String,
}

impl Row {
    /// The bits that decide the decode: fixed bits without the should-be ones.
    fn deciding(&self) -> u32 {
        self.mask & !self.should_be
    }

    /// Whether a word whose bits `lo..lo+width` are `field` may be this row.
    fn admits(&self, lo: u32, width: u32, field: u32) -> bool {
        let mask = self.deciding() & (((1 << width) - 1) << lo);
        (self.value ^ (field << lo)) & mask == 0
    }
}

fn number(s: &str) -> u32 {
    u32::from_str_radix(s.trim_start_matches("0x"), 16).expect("hexadecimal field in the encoding table")
}

fn parse(text: &str) -> Vec<Row> {
    text.lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(|line| {
            let f: Vec<&str> = line.split('\t').collect();
            assert!(f.len() >= 5, "encoding table: short line {line:?}");
            Row {
                name: f[0].to_owned(),
                mask: number(f[1]),
                value: number(f[2]),
                should_be: number(f[3]),
                class: class_name(f[4]),
            }
        })
        .collect()
}

/// `dpimm/addsub_imm` becomes `AddsubImm`; all of SVE and SME are one class each.
fn class_name(path: &str) -> String {
    match path.split('/').next() {
        Some("sve") => return "Sve".into(),
        Some("sme") => return "Sme".into(),
        _ => {}
    }
    let last = path.rsplit('/').next().unwrap_or(path);
    last.split('_')
        .map(|word| {
            let mut c = word.chars();
            c.next().map(|f| f.to_ascii_uppercase().to_string() + c.as_str()).unwrap_or_default()
        })
        .collect()
}

#[derive(Default)]
struct Tree {
    /// Inner node: `shift << 26 | width << 22 | first child`; leaf: `LEAF_FLAG | count << 20 | first candidate`.
    nodes: Vec<u32>,
    candidates: Vec<u16>,
}

const LEAF_FLAG: u32 = 1 << 31;

impl Tree {
    /// Places the subtree for `rows` at node `at`.
    fn build(&mut self, rows: &[Row], set: &[u16], at: usize, used: u32) {
        let choice = if set.len() <= LEAF { None } else { best_field(rows, set, used) };
        let Some((lo, width)) = choice else {
            let first = self.candidates.len() as u32;
            assert!(first < 1 << 20 && set.len() < 1 << 11);
            self.candidates.extend_from_slice(set);
            self.nodes[at] = LEAF_FLAG | ((set.len() as u32) << 20) | first;
            return;
        };
        self.split(rows, set, at, used, (lo, width));
    }

    fn split(&mut self, rows: &[Row], set: &[u16], at: usize, used: u32, (lo, width): (u32, u32)) {
        let first = self.nodes.len();
        assert!(first < 1 << 22);
        self.nodes[at] = (lo << 26) | (width << 22) | first as u32;
        self.nodes.resize(first + (1 << width), 0);
        for field in 0..1 << width {
            let sub: Vec<u16> =
                set.iter().copied().filter(|&i| rows[i as usize].admits(lo, width, field)).collect();
            self.build(rows, &sub, first + field as usize, used | (((1 << width) - 1) << lo));
        }
    }
}

/// The field whose values divide `set` best: the smallest sum of squares, weighted against its table's size.
fn best_field(rows: &[Row], set: &[u16], used: u32) -> Option<(u32, u32)> {
    let mut best = None;
    let mut best_cost = set.len() as f64;
    for width in 1..=MAX_WIDTH {
        for lo in 0..=32 - width {
            if used & (((1 << width) - 1) << lo) != 0 {
                continue;
            }
            let mut sum = 0usize;
            for field in 0..1u32 << width {
                let n = set.iter().filter(|&&i| rows[i as usize].admits(lo, width, field)).count();
                sum += n.max(1);
            }
            // Mean candidates left per value, and a little for the size of the node.
            let cost = sum as f64 / f64::from(1u32 << width) + 0.02 * f64::from(1u32 << width);
            if cost < best_cost - 0.01 {
                best_cost = cost;
                best = Some((lo, width));
            }
        }
    }
    best
}

fn emit(rows: &[Row], tree: &Tree) -> String {
    let mut o = String::new();
    let classes: BTreeSet<&str> = rows.iter().map(|r| r.class.as_str()).collect();
    let all = |o: &mut String, f: &dyn Fn(&Row) -> String| {
        for r in rows {
            let _ = write!(o, "{},", f(r));
        }
    };
    o.push_str(
        "/// An A64 encoding, by its name in Arm's machine-readable specification.\n\
         #[allow(non_camel_case_types, missing_docs, clippy::enum_variant_names, clippy::upper_case_acronyms)]\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(u16)]\npub enum Enc {",
    );
    all(&mut o, &|r| r.name.clone());
    o.push_str(
        "}\n/// An encoding class: the last part of the specification's class path.\n\
         #[allow(missing_docs)]\n#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n\
         #[repr(u8)]\npub enum Class {",
    );
    for c in &classes {
        let _ = write!(o, "{c},");
    }
    let _ = write!(o, "}}\nimpl Class {{\n/// All classes, by name.\npub const ALL: &[Class] = &[");
    for c in &classes {
        let _ = write!(o, "Class::{c},");
    }
    let _ = write!(o, "];\n/// The class's name.\npub const fn name(self) -> &'static str {{ match self {{");
    for c in &classes {
        let _ = write!(o, "Class::{c} => {c:?},");
    }
    o.push_str("} } }\n");
    let n = rows.len();
    let _ = write!(o, "static ALL: [Enc; {n}] = [");
    all(&mut o, &|r| format!("Enc::{}", r.name));
    let _ = write!(o, "];\nstatic INFO: [Info; {n}] = [");
    all(&mut o, &|r| {
        format!(
            "Info {{ name: {:?}, mask: {:#x}, value: {:#x}, should_be: {:#x}, class: Class::{} }}",
            r.name, r.mask, r.value, r.should_be, r.class
        )
    });
    let _ = write!(o, "];\nstatic NODES: [u32; {}] = {:?};\n", tree.nodes.len(), tree.nodes);
    let _ = write!(o, "static CANDIDATES: [(u32, u32, Enc); {}] = [", tree.candidates.len());
    for &i in &tree.candidates {
        let r = &rows[i as usize];
        let _ = write!(o, "({:#x}, {:#x}, Enc::{}),", r.deciding(), r.value & r.deciding(), r.name);
    }
    o.push_str("];\n");
    o
}

fn main() {
    println!("cargo::rerun-if-changed=data/a64-encodings.tsv");
    println!("cargo::rerun-if-changed=build.rs");
    let text =
        fs::read_to_string("data/a64-encodings.tsv").expect("the encoding table data/a64-encodings.tsv");
    let rows = parse(&text);
    let mut order: Vec<u16> = (0..rows.len() as u16).collect();
    // More specific rows first; the first match in a leaf wins.
    order.sort_by_key(|&i| std::cmp::Reverse(rows[i as usize].deciding().count_ones()));
    let mut tree = Tree { nodes: vec![0], candidates: Vec::new() };
    let root = 32 - ROOT_WIDTH;
    tree.split(&rows, &order, 0, 0, (root, ROOT_WIDTH));
    let out = Path::new(&env::var("OUT_DIR").expect("OUT_DIR is set by cargo")).join("a64.rs");
    fs::write(out, emit(&rows, &tree)).expect("the build folder is writable");
}
