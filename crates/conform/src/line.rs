//! Cases as text, one line each:
//!
//! ```text
//! 1e622820 : v1=0x3ff0000000000000 fpcr=0x400000 m+10=00ff -> v0=0x3ff0000000000000 fpsr=0x10 # FADD_D_floatdp2
//! ```
//!
//! Instruction words; the state before, where what is not named is zero (SP: [`SP`]); the state after, where what is not
//! named is as before; the encodings' names. Numbers are hexadecimal. `m+100` is an address in the case's memory, of which
//! a page ends at `m+200`; `c+4` one in its code; `80|m+0` has a tag. `m+100=00ff` names bytes of the memory. After the arrow
//! may also stand `taken`, `sigill`, `sigtrap`, `sigbus`, `sigsegv`, the number of the instruction that did that if it
//! is not the first (`at=2`), and the address of an access that failed (`far=0x0`).

use anyhow::{Context, Result, bail};
use armlet_arm::Enc;

use crate::program::Layout;
use crate::record::{self, MEMORY_SIZE, Record, untagged};
use crate::{Case, Place, asm};

/// SP where a line does not name it.
pub const SP: u64 = 0x7fff_0000;

/// Bytes around code and memory that count as theirs.
const NEAR: u64 = 0x1000;

/// The state of a line that names nothing.
pub fn blank() -> Record {
    let mut r = Record::new();
    r.x[31] = SP;
    r
}

/// The cases, each at the place that a line has, behind one that does nothing: an end of a page in the memory of
/// every second record.
pub fn at_odd_places(cases: impl IntoIterator<Item = (Enc, Vec<u32>, Record, Place)>) -> Vec<Case> {
    let mut layout = Layout::default();
    let mut out = Vec::new();
    for (enc, body, record, from) in cases {
        let code = layout.next_code();
        layout.take_code(1);
        let place = layout.place(code);
        out.push(Case { enc, number: 0, state: 0, body: vec![asm::NOP], place, record: blank() });
        let code = layout.next_code();
        layout.take_code(body.len());
        let place = layout.place(code);
        let record = moved(&record, from, place);
        out.push(Case { enc, number: 0, state: 0, body, place, record });
    }
    out
}

/// The state with its pointers into code and memory moved from one place to another.
fn moved(r: &Record, from: Place, to: Place) -> Record {
    let mut r = r.clone();
    for x in &mut r.x {
        for (base, new) in [(from.memory(), to.memory()), (from.code, to.code)] {
            let offset = untagged(*x).wrapping_sub(base).wrapping_add(NEAR);
            if offset < 2 * NEAR + MEMORY_SIZE as u64 {
                *x = x.wrapping_add(new.wrapping_sub(base));
                break;
            }
        }
    }
    r
}

/// A value, relative to the place where that makes sense.
fn value(v: u64, place: Place) -> String {
    for (letter, base) in [('m', place.memory()), ('c', place.code)] {
        let offset = untagged(v).wrapping_sub(base) as i64;
        if offset.unsigned_abs() < NEAR {
            let tag = if v >> 56 == 0 { String::new() } else { format!("{:x}|", v >> 56) };
            let sign = if offset < 0 { '-' } else { '+' };
            return format!("{tag}{letter}{sign}{:x}", offset.unsigned_abs());
        }
    }
    format!("{v:#x}")
}

fn parse_value(text: &str, place: Place) -> Result<u128> {
    let hex =
        |t: &str| u128::from_str_radix(t.trim_start_matches("0x"), 16).with_context(|| format!("`{text}`"));
    let (tag, rest) = match text.split_once('|') {
        Some((tag, rest)) => (hex(tag)? as u64, rest),
        None => (0, text),
    };
    let base = match rest.as_bytes() {
        [b'm', b'+' | b'-', ..] => place.memory(),
        [b'c', b'+' | b'-', ..] => place.code,
        _ => return hex(rest),
    };
    let size = hex(&rest[2..])? as u64;
    let offset = if rest.as_bytes()[1] == b'-' { size.wrapping_neg() } else { size };
    Ok((base.wrapping_add(offset) | tag << 56).into())
}

/// What `r` has that `base` has not.
fn changes(r: &Record, base: &Record, place: Place) -> Vec<String> {
    let mut out = Vec::new();
    for i in 0..32 {
        if r.x[i] != base.x[i] {
            let name = if i == 31 { "sp".into() } else { format!("x{i}") };
            out.push(format!("{name}={}", value(r.x[i], place)));
        }
    }
    if r.nzcv != base.nzcv {
        out.push(format!("nzcv={:x}", r.nzcv >> 28));
    }
    for (name, a, b) in [("fpcr", r.fpcr, base.fpcr), ("fpsr", r.fpsr, base.fpsr)] {
        if a != b {
            out.push(format!("{name}={a:#x}"));
        }
    }
    for i in 0..32 {
        if r.v[i] != base.v[i] {
            out.push(format!("v{i}={:#x}", r.v[i]));
        }
    }
    let mut at = 0;
    while at < MEMORY_SIZE {
        let differs = |i: usize| r.memory[i] != base.memory[i];
        if differs(at) {
            let end = (at..MEMORY_SIZE).find(|&i| !differs(i)).unwrap_or(MEMORY_SIZE);
            let bytes: String = r.memory[at..end].iter().map(|b| format!("{b:02x}")).collect();
            out.push(format!("m+{at:x}={bytes}"));
            at = end;
        }
        at += 1;
    }
    out
}

/// The part of a line behind its arrow.
pub fn outputs(case: &Case, after: &Record) -> String {
    let mut out = Vec::new();
    let signals = [
        (record::SIGILL, "sigill"),
        (record::SIGTRAP, "sigtrap"),
        (record::SIGBUS, "sigbus"),
        (record::SIGSEGV, "sigsegv"),
        (record::TAKEN, "taken"),
    ];
    if let Some((_, name)) = signals.iter().find(|(s, _)| *s == after.status) {
        out.push((*name).to_owned());
    } else if after.status != record::FELL {
        out.push(format!("status={:x}", after.status));
    }
    if after.status >= record::SIGNAL && after.pc != case.place.code {
        out.push(format!("at={:x}", after.pc.wrapping_sub(case.place.code) / 4));
    }
    if after.status == record::SIGSEGV {
        out.push(format!("far={}", value(after.far, case.place)));
    }
    out.extend(changes(after, &case.record, case.place));
    if out.is_empty() { "nothing".into() } else { out.join(" ") }
}

/// A case and the state that it should end in.
pub fn write(case: &Case, after: &Record) -> String {
    let words: Vec<String> = case.body.iter().map(|w| format!("{w:08x}")).collect();
    let mut before = changes(&case.record, &blank(), case.place);
    before.insert(0, String::new());
    let text: Vec<&str> = case.body.iter().map(|&w| name(w)).collect();
    format!("{} :{} -> {} # {}", words.join(" "), before.join(" "), outputs(case, after), text.join("; "))
}

/// The name of the instruction's encoding.
fn name(word: u32) -> &'static str {
    armlet_arm::decode(word).map_or("unallocated", Enc::name)
}

/// A line's program, whose last case is the line's, and the state that it should end in. `None` for empty lines and
/// comments.
///
/// # Errors
/// The line does not read as such.
pub fn parse(line: &str) -> Result<Option<(Vec<Case>, Record)>> {
    let text = line.split('#').next().unwrap_or("").trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (body, states) = text.split_once(':').context("no colon")?;
    let (before, after) = states.split_once("->").unwrap_or((states, "nothing"));
    let body: Vec<u32> = body
        .split_whitespace()
        .map(|w| u32::from_str_radix(w, 16).with_context(|| format!("`{w}` is no instruction word")))
        .collect::<Result<_>>()?;
    let last = *body.last().context("no instruction")?;
    let enc = armlet_arm::decode(last).unwrap_or(Enc::all()[0]);
    let nowhere = Place { code: u64::MAX / 4, record: u64::MAX / 2 };
    let mut cases = at_odd_places([(enc, body, blank(), nowhere)]);
    let case = cases.last_mut().context("no case")?;
    for word in before.split_whitespace() {
        set(&mut case.record, word, case.place)?;
    }
    let mut want = case.record.clone();
    for word in after.split_whitespace() {
        set(&mut want, word, case.place)?;
    }
    if want.status >= record::SIGNAL {
        want.pc = case.place.code + 4 * want.pc;
    }
    Ok(Some((cases, want)))
}

/// Takes one word of a state over into it.
fn set(r: &mut Record, word: &str, place: Place) -> Result<()> {
    let Some((name, text)) = word.split_once('=') else {
        r.status = match word {
            "taken" => record::TAKEN,
            "sigill" => record::SIGILL,
            "sigtrap" => record::SIGTRAP,
            "sigbus" => record::SIGBUS,
            "sigsegv" => record::SIGSEGV,
            "nothing" => r.status,
            _ => bail!("`{word}` means nothing"),
        };
        return Ok(());
    };
    if let Some(at) = name.strip_prefix("m+") {
        return set_bytes(r, usize::from_str_radix(at, 16)?, text);
    }
    let v = parse_value(text, place)?;
    let number = |prefix: char| name.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
    match name {
        "sp" => r.x[31] = v as u64,
        "nzcv" => r.nzcv = (v as u32) << 28,
        "fpcr" => r.fpcr = v as u32,
        "fpsr" => r.fpsr = v as u32,
        "far" => r.far = v as u64,
        "at" => r.pc = v as u64,
        _ => match (number('x'), number('v')) {
            (Some(n @ 0..31), _) => r.x[n] = v as u64,
            (_, Some(n @ 0..32)) => r.v[n] = v,
            _ => bail!("`{name}` is no register"),
        },
    }
    Ok(())
}

fn set_bytes(r: &mut Record, at: usize, text: &str) -> Result<()> {
    for i in (0..text.len()).step_by(2) {
        let byte = text.get(i..i + 2).context("half a byte")?;
        *r.memory.get_mut(at + i / 2).context("past the memory's end")? = u8::from_str_radix(byte, 16)?;
    }
    Ok(())
}
