//! Flattened device trees that a user gives: checking one, and filling in its `/chosen` (Devicetree
//! Specification v0.4, chapter 5).

use std::path::Path;

use super::InputFile;
use crate::error::BootError;

/// Most that arm64 Linux takes.
pub const MAX_SIZE: u64 = 2 << 20;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
const HEADER_LEN: usize = 40;

/// Reads and checks the file at `path`.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, BootError> {
    let input = InputFile::open("device tree", path)?;
    if input.len > MAX_SIZE {
        return Err(BootError::DtbTooLarge { path: path.into(), len: input.len });
    }
    let blob = std::fs::read(path).map_err(|e| input.read_failed(e))?;
    let bad = |why| BootError::BadDtb { path: path.into(), why };
    let tree = Tree::parse(&blob).map_err(bad)?;
    tree.scan().map_err(bad)?;
    Ok(blob)
}

/// The same tree with the boot arguments and the initrd's place in `/chosen`, replacing what was there.
pub(crate) fn with_chosen(
    blob: &[u8],
    append: &str,
    initrd: Option<(u64, u64)>,
) -> Result<Vec<u8>, BootError> {
    let mut set: Vec<(&str, Vec<u8>)> = Vec::new();
    if !append.is_empty() {
        set.push(("bootargs", [append.as_bytes(), &[0]].concat()));
    }
    if let Some((start, end)) = initrd {
        set.push(("linux,initrd-start", start.to_be_bytes().to_vec()));
        set.push(("linux,initrd-end", end.to_be_bytes().to_vec()));
    }
    if set.is_empty() {
        return Ok(blob.to_vec());
    }
    let out = Tree::parse(blob).and_then(|t| t.set_in_chosen(&set)).map_err(BootError::DeviceTree)?;
    if out.len() as u64 > MAX_SIZE {
        return Err(BootError::DeviceTree("with its boot arguments it is longer than 2M".into()));
    }
    Ok(out)
}

/// The blocks of a flattened tree.
struct Tree<'a> {
    reservations: &'a [u8],
    structure: &'a [u8],
    strings: &'a [u8],
    boot_cpu: u32,
}

/// What [`Tree::scan`] finds.
struct Scan {
    /// Offset after the name of `/chosen`.
    chosen: Option<usize>,
    /// Offset of the root node's `END_NODE`.
    root_end: usize,
    /// Name, and start and end offsets, of the properties of `/chosen`.
    properties: Vec<(String, usize, usize)>,
}

fn be32(b: &[u8], at: usize) -> Result<u32, String> {
    let bytes = at.checked_add(4).and_then(|end| b.get(at..end)).ok_or("it ends early")?;
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn c_str(b: &[u8], at: usize) -> Result<&[u8], String> {
    let rest = b.get(at..).ok_or("a name lies outside")?;
    let len = rest.iter().position(|&c| c == 0).ok_or("a name has no end")?;
    Ok(&rest[..len])
}

const fn padded(n: usize) -> usize {
    n.next_multiple_of(4)
}

impl<'a> Tree<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self, String> {
        if blob.len() < HEADER_LEN || be32(blob, 0)? != MAGIC {
            return Err("it has no device tree header".into());
        }
        let total = be32(blob, 4)? as usize;
        let blob = blob.get(..total).ok_or(format!("{} of {total} bytes", blob.len()))?;
        let (version, compatible) = (be32(blob, 20)?, be32(blob, 24)?);
        if version < 17 || compatible > 17 {
            return Err(format!("its version is {version}, not 17"));
        }
        let block = |offset: u32, len: u32| {
            let start = offset as usize;
            blob.get(start..start.saturating_add(len as usize)).ok_or("a block lies outside".to_string())
        };
        let structure = block(be32(blob, 8)?, be32(blob, 36)?)?;
        let strings = block(be32(blob, 12)?, be32(blob, 32)?)?;
        let rest = blob.get(be32(blob, 16)? as usize..).ok_or("a block lies outside")?;
        let entries = rest.chunks_exact(16).position(|e| e.iter().all(|&b| b == 0));
        let entries = entries.ok_or("its memory reservations have no end")?;
        Ok(Self { reservations: &rest[..(entries + 1) * 16], structure, strings, boot_cpu: be32(blob, 28)? })
    }

    fn scan(&self) -> Result<Scan, String> {
        let s = self.structure;
        let mut found = Scan { chosen: None, root_end: 0, properties: Vec::new() };
        let (mut at, mut depth, mut in_chosen) = (0usize, 0usize, false);
        loop {
            let start = at;
            let token = be32(s, at)?;
            at += 4;
            match token {
                BEGIN_NODE => {
                    let name = c_str(s, at)?;
                    at += padded(name.len() + 1);
                    depth += 1;
                    if depth == 2 && name == b"chosen" {
                        found.chosen = Some(at);
                        in_chosen = true;
                    }
                }
                END_NODE => {
                    depth = depth.checked_sub(1).ok_or("a node ends that did not begin")?;
                    in_chosen &= depth >= 2;
                    if depth == 0 {
                        found.root_end = start;
                    }
                }
                PROP => {
                    let (len, name) = (be32(s, at)? as usize, be32(s, at + 4)? as usize);
                    let name = c_str(self.strings, name)?;
                    at = at
                        .checked_add(8)
                        .and_then(|a| a.checked_add(padded(len)))
                        .ok_or("a length overflows")?;
                    if at > s.len() {
                        return Err("a property ends outside".into());
                    }
                    if in_chosen && depth == 2 {
                        found.properties.push((String::from_utf8_lossy(name).into_owned(), start, at));
                    }
                }
                NOP => {}
                END if depth == 0 => return Ok(found),
                END => return Err("a node has no end".into()),
                t => return Err(format!("unknown token {t:#x}")),
            }
        }
    }

    fn set_in_chosen(&self, set: &[(&str, Vec<u8>)]) -> Result<Vec<u8>, String> {
        let scan = self.scan()?;
        let mut structure = self.structure.to_vec();
        // From the end, so that the offsets before stay true; all lie behind the start of `/chosen`.
        for (_, start, end) in scan.properties.iter().rev().filter(|p| set.iter().any(|s| s.0 == p.0)) {
            structure.drain(*start..*end);
        }
        let mut strings = self.strings.to_vec();
        let mut new = Vec::new();
        let word = |v: &mut Vec<u8>, w: u32| v.extend_from_slice(&w.to_be_bytes());
        if scan.chosen.is_none() {
            word(&mut new, BEGIN_NODE);
            new.extend_from_slice(b"chosen\0\0");
        }
        for (name, value) in set {
            word(&mut new, PROP);
            word(&mut new, value.len() as u32);
            word(&mut new, strings.len() as u32);
            new.extend_from_slice(value);
            new.resize(padded(new.len()), 0);
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
        }
        if scan.chosen.is_none() {
            word(&mut new, END_NODE);
        }
        let at = scan.chosen.unwrap_or(scan.root_end);
        structure.splice(at..at, new);
        Ok(self.assemble(&structure, &strings))
    }

    fn assemble(&self, structure: &[u8], strings: &[u8]) -> Vec<u8> {
        let reservations_at = HEADER_LEN;
        let structure_at = reservations_at + self.reservations.len();
        let strings_at = structure_at + structure.len();
        let total = strings_at + strings.len();
        let header = [
            MAGIC,
            total as u32,
            structure_at as u32,
            strings_at as u32,
            reservations_at as u32,
            17,
            16,
            self.boot_cpu,
            strings.len() as u32,
            structure.len() as u32,
        ];
        let mut out: Vec<u8> = header.iter().flat_map(|w| w.to_be_bytes()).collect();
        for block in [self.reservations, structure, strings] {
            out.extend_from_slice(block);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_fdt::FdtWriter;

    fn sample(chosen: bool) -> Vec<u8> {
        let mut w = FdtWriter::new().unwrap();
        let root = w.begin_node("").unwrap();
        w.property_u32("#address-cells", 2).unwrap();
        if chosen {
            let c = w.begin_node("chosen").unwrap();
            w.property_string("bootargs", "old arguments").unwrap();
            w.property_string("stdout-path", "/uart").unwrap();
            w.end_node(c).unwrap();
        }
        let n = w.begin_node("after").unwrap();
        w.property_u32("value", 7).unwrap();
        w.end_node(n).unwrap();
        w.end_node(root).unwrap();
        w.finish().unwrap()
    }

    #[test]
    fn chosen_is_filled_in_whether_it_was_there_or_not() {
        for there in [true, false] {
            let out = with_chosen(&sample(there), "quiet", Some((0x4800_0000, 0x4810_0000))).unwrap();
            let tree = fdt::Fdt::new(&out).unwrap();
            let chosen = tree.find_node("/chosen").unwrap();
            let all: Vec<_> = chosen.properties().filter(|p| p.name == "bootargs").collect();
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].as_str(), Some("quiet"));
            assert_eq!(chosen.property("linux,initrd-end").unwrap().as_usize(), Some(0x4810_0000));
            assert_eq!(chosen.property("stdout-path").is_some(), there);
            assert_eq!(tree.find_node("/after").unwrap().property("value").unwrap().as_usize(), Some(7));
        }
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error_or_a_tree() {
        let good = sample(true);
        for n in 0..good.len() {
            assert!(Tree::parse(&good[..n]).and_then(|t| t.scan().map(|_| ())).is_err(), "cut at {n}");
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[n] ^= 1 << bit;
                // Either answer is right; what matters is that no input ends the process.
                if let Ok(out) = with_chosen(&bad, "quiet", None) {
                    assert!(out.len() >= HEADER_LEN);
                }
            }
        }
    }
}
