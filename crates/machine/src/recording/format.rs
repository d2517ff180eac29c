//! The bytes of a recording.
//!
//! ```text
//! "armlet recording"  u32 format  u32 length of the identity  identity  u32 CRC of format, length and identity
//! record*             varint length of the body  body  u32 CRC of the body
//! body                u8 kind  varint count since the record before  payload
//! ```
//!
//! Numbers are little-endian, varints have seven bits to the byte, texts are a varint length and UTF-8, and the CRC is
//! that of gzip. A file that ends inside a record was cut off while it was made; anything else that is wrong is damage.

use std::io::{self, Read, Write};

use flate2::Crc;

use super::{Ending, Input, Item};
use crate::notice::Cause;

pub(super) const MAGIC: [u8; 16] = *b"armlet recording";
/// The version of everything behind it.
pub(super) const FORMAT: u32 = 1;
/// Longest identity in bytes.
const MAX_IDENTITY: usize = 1 << 20;
/// Longest body of a record in bytes.
const MAX_BODY: usize = 1 << 16;
/// Most bytes of console input in one record.
pub(crate) const MAX_CONSOLE: usize = 1 << 12;

mod kind {
    pub const CONSOLE: u8 = 1;
    pub const POWER_KEY: u8 = 2;
    pub const BREAK: u8 = 3;
    pub const HOLD_INPUT: u8 = 4;
    pub const RESET: u8 = 5;
    pub const CHECKPOINT: u8 = 0x40;
    pub const END: u8 = 0x41;
}

/// What identifies a machine: names and values, in a fixed order.
pub(crate) type Identity = Vec<(String, String)>;

/// Why bytes are no recording, or not one that can be read on.
#[derive(Debug)]
pub(super) enum Fault {
    /// The host's error.
    Host(io::Error),
    /// It begins like something else.
    NotARecording,
    /// It has another format.
    Format(u32),
    /// It ends in the middle.
    Cut,
    /// Something in it is wrong: what.
    Damaged(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.sum()
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Takes things off the front of a body; `None` if they are not there.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|b| b[0])
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && part > 1 {
                return None;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.varint()?).ok()?;
        String::from_utf8(self.bytes(len)?.to_vec()).ok()
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Writes magic, format and identity.
pub(super) fn write_head(out: &mut impl Write, identity: &[(String, String)]) -> io::Result<()> {
    let mut text = Vec::new();
    for (name, value) in identity {
        put_text(&mut text, name);
        put_text(&mut text, value);
    }
    let (format, len) = (FORMAT.to_le_bytes(), (text.len() as u32).to_le_bytes());
    let sum = crc(&[&format, &len, &text]).to_le_bytes();
    [&MAGIC[..], &format, &len, &text, &sum].iter().try_for_each(|part| out.write_all(part))
}

/// Writes `item`, `passed` counts after the one before.
pub(super) fn write_item(out: &mut impl Write, passed: u64, item: &Item) -> io::Result<()> {
    let mut body = Vec::with_capacity(32);
    body.push(kind_of(item));
    put_varint(&mut body, passed);
    match item {
        Item::Input(Input::Console(bytes)) => body.extend_from_slice(bytes),
        Item::Input(Input::Reset(cause)) => body.push(cause_code(*cause)),
        Item::Input(Input::PowerKey | Input::Break | Input::Hold) => {}
        Item::Checkpoint(digest) => body.extend_from_slice(&digest.to_le_bytes()),
        Item::End(ending) => put_ending(&mut body, ending),
    }
    let mut frame = Vec::with_capacity(body.len() + 8);
    put_varint(&mut frame, body.len() as u64);
    frame.extend_from_slice(&body);
    frame.extend_from_slice(&crc(&[&body]).to_le_bytes());
    out.write_all(&frame)
}

fn kind_of(item: &Item) -> u8 {
    match item {
        Item::Input(Input::Console(_)) => kind::CONSOLE,
        Item::Input(Input::PowerKey) => kind::POWER_KEY,
        Item::Input(Input::Break) => kind::BREAK,
        Item::Input(Input::Hold) => kind::HOLD_INPUT,
        Item::Input(Input::Reset(_)) => kind::RESET,
        Item::Checkpoint(_) => kind::CHECKPOINT,
        Item::End(_) => kind::END,
    }
}

const CAUSES: [Cause; 8] = [
    Cause::HostError,
    Cause::HostQuit,
    Cause::HostReset,
    Cause::HostSignal,
    Cause::HostUi,
    Cause::GuestShutdown,
    Cause::GuestReset,
    Cause::GuestPanic,
];

fn cause_code(cause: Cause) -> u8 {
    CAUSES.iter().position(|c| *c == cause).unwrap_or(0) as u8
}

fn put_ending(body: &mut Vec<u8>, ending: &Ending) {
    let (code, number, text) = match ending {
        Ending::PoweredOff => (0, 0, ""),
        Ending::Exited(status) => (1, *status, ""),
        Ending::Crashed(what) => (2, 0, what.as_str()),
        Ending::ResetLoop => (3, 0, ""),
        Ending::Outside(why) => (4, 0, why.as_str()),
    };
    body.push(code);
    put_varint(body, number.into());
    put_text(body, text);
}

fn ending(body: &mut Body<'_>) -> Option<Ending> {
    let (code, number, text) = (body.byte()?, body.varint()?, body.text()?);
    Some(match code {
        0 => Ending::PoweredOff,
        1 => Ending::Exited(u32::try_from(number).ok()?),
        2 => Ending::Crashed(text),
        3 => Ending::ResetLoop,
        4 => Ending::Outside(text),
        _ => return None,
    })
}

fn parse(body: &[u8]) -> Option<(u64, Item)> {
    let mut body = Body(body);
    let (kind, passed) = (body.byte()?, body.varint()?);
    let item = match kind {
        kind::CONSOLE => {
            let bytes = body.rest();
            if bytes.is_empty() || bytes.len() > MAX_CONSOLE {
                return None;
            }
            Item::Input(Input::Console(bytes.to_vec()))
        }
        kind::POWER_KEY => Item::Input(Input::PowerKey),
        kind::BREAK => Item::Input(Input::Break),
        kind::HOLD_INPUT => Item::Input(Input::Hold),
        kind::RESET => Item::Input(Input::Reset(*CAUSES.get(usize::from(body.byte()?))?)),
        kind::CHECKPOINT => Item::Checkpoint(body.u64()?),
        kind::END => Item::End(ending(&mut body)?),
        _ => return None,
    };
    body.0.is_empty().then_some((passed, item))
}

/// Reads as much of `out` as there is.
fn read_up_to(input: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match input.read(&mut out[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

fn read_all<const N: usize>(input: &mut impl Read) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    if read_up_to(input, &mut bytes)? < N { Err(Fault::Cut) } else { Ok(bytes) }
}

/// Reads `len` bytes (which has been checked against a limit).
fn read_vec(input: &mut impl Read, len: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0; len];
    if read_up_to(input, &mut bytes)? < len { Err(Fault::Cut) } else { Ok(bytes) }
}

/// Reads what [`write_head`] wrote.
pub(super) fn read_head(input: &mut impl Read) -> Result<Identity, Fault> {
    let mut magic = [0; MAGIC.len()];
    let n = read_up_to(input, &mut magic)?;
    if n == 0 || magic[..n] != MAGIC[..n] {
        return Err(Fault::NotARecording);
    }
    let format: [u8; 4] = read_all(input)?;
    let version = u32::from_le_bytes(format);
    if version != FORMAT {
        return Err(Fault::Format(version));
    }
    let len: [u8; 4] = read_all(input)?;
    let size = u32::from_le_bytes(len) as usize;
    if size > MAX_IDENTITY {
        return Err(Fault::Damaged("its description of the machine is too long"));
    }
    let text = read_vec(input, size)?;
    if read_all::<4>(input)? != crc(&[&format, &len, &text]).to_le_bytes() {
        return Err(Fault::Damaged("its description of the machine has changed"));
    }
    let mut body = Body(&text);
    let mut identity = Vec::new();
    while !body.0.is_empty() {
        let (name, value) = (body.text(), body.text());
        let pair = name.zip(value).ok_or(Fault::Damaged("its description of the machine is not one"))?;
        identity.push(pair);
    }
    Ok(identity)
}

/// Reads what [`write_item`] wrote: the counts passed, and the item; `None` at the end of the file.
pub(super) fn read_item(input: &mut impl Read) -> Result<Option<(u64, Item)>, Fault> {
    let mut len = 0usize;
    for shift in [0, 7, 14] {
        let mut byte = [0];
        if read_up_to(input, &mut byte)? == 0 {
            return if shift == 0 { Ok(None) } else { Err(Fault::Cut) };
        }
        len |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
        if shift == 14 {
            return Err(Fault::Damaged("a record is too long"));
        }
    }
    if len > MAX_BODY {
        return Err(Fault::Damaged("a record is too long"));
    }
    let body = read_vec(input, len)?;
    if read_all::<4>(input)? != crc(&[&body]).to_le_bytes() {
        return Err(Fault::Damaged("a record has changed"));
    }
    parse(&body).map(Some).ok_or(Fault::Damaged("a record makes no sense"))
}
