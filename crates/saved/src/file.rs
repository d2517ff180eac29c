//! The bytes of a saved machine: numbered sections, each with its version, its length and its checks.
//!
//! ```text
//! "armlet state\r\n\x1a\n"  u32 format  u32 CRC of both
//! section*                  u32 number  u32 version  u64 length  u32 CRC of the payload  u32 CRC of all that  payload
//! end                       the same, with the number 0: its payload is the SHA-256 of every head before it
//! ```
//!
//! Numbers are little-endian, the CRC is that of gzip. A payload is checked by its CRC, and that by its head, and the
//! heads and their order by the end: nothing can be lost, added, or moved unnoticed. A reader takes in one section at
//! a time, none longer than [`MAX_PAYLOAD`]; what a section says of itself is believed only as far as there are bytes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;
use sha2::{Digest, Sha256};
use thiserror::Error;

const MAGIC: [u8; 16] = *b"armlet state\r\n\x1a\n";
/// The version of everything behind it.
pub const FORMAT: u32 = 1;
/// Longest payload of a section in bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;
const HEAD: usize = 24;

/// What a section is of. The numbers stand in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Section {
    /// Nothing follows.
    End = 0,
    /// What machine it is.
    Machine = 1,
    /// One vCPU.
    Cpu = 2,
    /// The interrupt controller.
    Gic = 3,
    /// Generic timers and time.
    Timers = 4,
    /// The PL011.
    Uart = 5,
    /// The PL031.
    Rtc = 6,
    /// The PL061.
    Gpio = 7,
    /// A virtio device.
    Virtio = 8,
    /// Input that the guest has not got yet.
    Console = 9,
    /// Semihosting.
    Semihosting = 10,
    /// A part of RAM that is not zero: its guest-physical address, 8 bytes, and what it holds.
    Ram = 16,
}

impl Section {
    const ALL: [Self; 12] = [
        Self::End,
        Self::Machine,
        Self::Cpu,
        Self::Gic,
        Self::Timers,
        Self::Uart,
        Self::Rtc,
        Self::Gpio,
        Self::Virtio,
        Self::Console,
        Self::Semihosting,
        Self::Ram,
    ];

    /// What it holds, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::End => "the end",
            Self::Machine => "the machine",
            Self::Cpu => "a CPU",
            Self::Gic => "the interrupt controller",
            Self::Timers => "the timers",
            Self::Uart => "the UART",
            Self::Rtc => "the real-time clock",
            Self::Gpio => "the GPIO controller",
            Self::Virtio => "a virtio device",
            Self::Console => "the console",
            Self::Semihosting => "semihosting",
            Self::Ram => "RAM",
        }
    }

    /// The version that is written, and the only one that is read.
    const fn version(self) -> u32 {
        match self {
            Self::Gic => 2,
            _ => 1,
        }
    }
}

/// Why a file cannot be read as a saved machine.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum Fault {
    #[error("{0}")]
    Host(#[from] io::Error),
    #[error("it is no saved state")]
    NotOne,
    #[error("it has format {0}, and this program reads format {FORMAT}")]
    Format(u32),
    #[error("it is cut off near byte {0}")]
    Cut(u64),
    #[error("it is damaged: {what}, near byte {at}")]
    Damaged { what: &'static str, at: u64 },
    #[error("it has a section {0}, which this program does not know")]
    UnknownSection(u32),
    #[error("version {found} of {name} is not the {known} that this program reads")]
    Version { name: &'static str, found: u32, known: u32 },
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.sum()
}

/// Writes a saved machine.
pub struct Writer<W> {
    out: W,
    heads: Sha256,
}

impl<W: Write> Writer<W> {
    /// Begins.
    ///
    /// # Errors
    /// The host's.
    pub fn new(mut out: W) -> io::Result<Self> {
        let format = FORMAT.to_le_bytes();
        let head = [&MAGIC[..], &format, &crc(&[&MAGIC, &format]).to_le_bytes()].concat();
        out.write_all(&head)?;
        Ok(Self { out, heads: Sha256::new_with_prefix(&head) })
    }

    /// Writes a section whose payload is `parts` one after the other, at most [`MAX_PAYLOAD`] bytes.
    ///
    /// # Errors
    /// The host's.
    pub fn section(&mut self, section: Section, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > MAX_PAYLOAD {
            return Err(io::Error::other(format!("{} takes {length} bytes", section.name())));
        }
        let mut head = Vec::with_capacity(HEAD);
        head.extend((section as u32).to_le_bytes());
        head.extend(section.version().to_le_bytes());
        head.extend((length as u64).to_le_bytes());
        head.extend(crc(parts).to_le_bytes());
        head.extend(crc(&[&head]).to_le_bytes());
        self.out.write_all(&head)?;
        self.heads.update(&head);
        parts.iter().try_for_each(|part| self.out.write_all(part))
    }

    /// Writes a section of numbered fields.
    ///
    /// # Errors
    /// The host's.
    pub fn fields(&mut self, section: Section, value: &impl serde::Serialize) -> io::Result<()> {
        self.section(section, &[&serde_json::to_vec(value)?])
    }

    /// Writes the end; gives back where all was written to.
    ///
    /// # Errors
    /// The host's.
    pub fn finish(mut self) -> io::Result<W> {
        let digest = self.heads.clone().finalize();
        self.section(Section::End, &[&digest])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads a saved machine, section by section.
pub struct Reader<R> {
    input: R,
    heads: Sha256,
    payload: Vec<u8>,
    /// Bytes read so far.
    at: u64,
    over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    ///
    /// # Errors
    /// It is none, or of another format.
    pub fn new(input: R) -> Result<Self, Fault> {
        let mut reader = Self { input, heads: Sha256::new(), payload: Vec::new(), at: 0, over: false };
        let head = match reader.take::<HEAD>() {
            Err(Fault::Cut(at))
                if !MAGIC.starts_with(&reader.payload[..reader.payload.len().min(16)]) || at == 0 =>
            {
                return Err(Fault::NotOne);
            }
            other => other?,
        };
        if head[..16] != MAGIC {
            return Err(Fault::NotOne);
        }
        let number =
            |from: usize| u32::from_le_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]);
        if number(20) != crc(&[&head[..20]]) {
            return Err(reader.damaged("its beginning is not what was written"));
        }
        if number(16) != FORMAT {
            return Err(Fault::Format(number(16)));
        }
        reader.heads.update(head);
        Ok(reader)
    }

    fn damaged(&self, what: &'static str) -> Fault {
        Fault::Damaged { what, at: self.at }
    }

    /// Reads `length` bytes into the payload's buffer, which grows no further than there are bytes.
    fn fill(&mut self, length: u64) -> Result<(), Fault> {
        self.payload.clear();
        let read = (&mut self.input).take(length).read_to_end(&mut self.payload)? as u64;
        self.at += read;
        if read == length { Ok(()) } else { Err(Fault::Cut(self.at)) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.fill(N as u64)?;
        <[u8; N]>::try_from(self.payload.as_slice()).map_err(|_| Fault::Cut(self.at))
    }

    /// The next section; `None` after the end, when everything has been found to be as it was written.
    ///
    /// # Errors
    /// [`Fault`].
    #[expect(clippy::should_implement_trait, reason = "what it gives borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<(Section, &[u8])>, Fault> {
        if self.over {
            return Ok(None);
        }
        let head = self.take::<HEAD>()?;
        let word =
            |from: usize| u32::from_le_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]);
        if word(20) != crc(&[&head[..20]]) {
            return Err(self.damaged("a section's head is not what was written"));
        }
        let (number, version, length) = (word(0), word(4), u64::from(word(8)) | u64::from(word(12)) << 32);
        let section = Section::ALL.into_iter().find(|section| *section as u32 == number);
        let section = section.ok_or(Fault::UnknownSection(number))?;
        if version != section.version() {
            let known = section.version();
            return Err(Fault::Version { name: section.name(), found: version, known });
        }
        if length > MAX_PAYLOAD as u64 {
            return Err(self.damaged("a section is too long"));
        }
        self.fill(length)?;
        if crc(&[&self.payload]) != word(16) {
            return Err(self.damaged("a section is not what was written"));
        }
        if section == Section::End {
            self.check_end()?;
            return Ok(None);
        }
        self.heads.update(head);
        Ok(Some((section, &self.payload)))
    }

    fn check_end(&mut self) -> Result<(), Fault> {
        self.over = true;
        if self.payload[..] != self.heads.clone().finalize()[..] {
            return Err(self.damaged("sections are missing or not in their order"));
        }
        if self.input.read(&mut [0])? != 0 {
            return Err(self.damaged("something follows its end"));
        }
        Ok(())
    }
}

/// A file that appears under its name when it is complete, and not at all before: until [`Self::commit`], what was there
/// is there.
pub struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    committed: bool,
}

impl NewFile {
    /// A new file that is to be at `path`. It is for its owner only, since a guest's memory is in it.
    ///
    /// # Errors
    /// The host's; there is something at `path` that is no file.
    pub fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("it is no file")),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // What a link leads to is what is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = path.file_name().ok_or_else(|| io::Error::other("it has no name"))?;
        for attempt in 0..100 {
            let mut temporary = name.to_owned();
            temporary.push(format!(".{}-{attempt}.part", std::process::id()));
            let temporary = path.with_file_name(temporary);
            match File::options().read(true).write(true).create_new(true).mode(0o600).open(&temporary) {
                Ok(file) => return Ok(Self { path, temporary, file, committed: false }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::other("too many unfinished files beside it"))
    }

    /// To write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in its place, where it survives a power cut.
    ///
    /// # Errors
    /// The host's; nothing has changed then.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.committed = true;
        // A folder that cannot be synchronised keeps the file all the same.
        if let Some(folder) = self.path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.fields(Section::Machine, &"a machine").unwrap();
        writer.section(Section::Ram, &[&[1, 2], &[3; 100]]).unwrap();
        writer.section(Section::Ram, &[]).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Section, Vec<u8>)>, Fault> {
        let mut reader = Reader::new(bytes)?;
        let mut all = Vec::new();
        while let Some((section, payload)) = reader.next()? {
            all.push((section, payload.to_vec()));
        }
        Ok(all)
    }

    #[test]
    fn what_was_written_is_read() {
        let all = read(&example()).unwrap();
        assert_eq!(all[0], (Section::Machine, b"\"a machine\"".to_vec()));
        assert_eq!(all[1], (Section::Ram, [&[1, 2][..], &[3; 100]].concat()));
        assert_eq!(all[2], (Section::Ram, Vec::new()));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn every_other_length_is_refused() {
        let bytes = example();
        for length in 0..bytes.len() {
            match read(&bytes[..length]) {
                Err(Fault::NotOne) => assert!(length == 0),
                Err(Fault::Cut(at)) => assert_eq!(at, length as u64),
                other => panic!("{length}: {other:?}"),
            }
        }
        assert!(matches!(read(&[&bytes[..], &[0]].concat()), Err(Fault::Damaged { .. })));
    }

    #[test]
    fn every_changed_bit_is_found() {
        let bytes = example();
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(read(&changed).is_err(), "bit {at}");
        }
    }

    #[test]
    fn sections_that_are_missing_doubled_or_moved_are_found() {
        let first = 24..24 + 24 + 11;
        let second = first.end..first.end + 24 + 102;
        let bytes = example();
        let piece = |range: &std::ops::Range<usize>| &bytes[range.clone()];
        let (head, rest) = (&bytes[..24], &bytes[second.end..]);
        for sections in [
            vec![piece(&first)],
            vec![piece(&second)],
            vec![piece(&second), piece(&first)],
            vec![piece(&first), piece(&second), piece(&second)],
        ] {
            let changed = [&[head][..], &sections, &[rest]].concat().concat();
            assert!(matches!(read(&changed), Err(Fault::Damaged { .. })));
        }
        assert!(read(&[head, piece(&first), piece(&second), rest].concat()).is_ok());
    }

    #[test]
    fn other_formats_sections_and_versions_are_named() {
        let patch = |at: usize, value: u32, sum: std::ops::Range<usize>| {
            let mut bytes = example();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let crc = crc(&[&bytes[sum.clone()]]);
            bytes[sum.end..sum.end + 4].copy_from_slice(&crc.to_le_bytes());
            read(&bytes).unwrap_err().to_string()
        };
        assert_eq!(patch(16, 7, 0..20), "it has format 7, and this program reads format 1");
        assert_eq!(patch(24, 99, 24..44), "it has a section 99, which this program does not know");
        assert_eq!(patch(28, 2, 24..44), "version 2 of the machine is not the 1 that this program reads");
        let long = patch(36, 1, 24..44);
        assert!(long.contains("too long"), "{long}");
        assert_eq!(read(b"\x7fELF and so on and on and on").unwrap_err().to_string(), "it is no saved state");
        assert_eq!(read(b"short").unwrap_err().to_string(), "it is no saved state");
    }

    #[test]
    fn a_file_is_there_when_it_is_complete_and_not_before() {
        let folder = std::env::temp_dir().join(format!("armlet-saved-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("state");
        fs::write(&path, "old").unwrap();
        let given_up = NewFile::create(&path).unwrap();
        given_up.file().write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let (one, two) = (NewFile::create(&path).unwrap(), NewFile::create(&path).unwrap());
        one.file().write_all(b"new").unwrap();
        two.file().write_all(b"newer").unwrap();
        one.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        two.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(NewFile::create(&folder).is_err(), "a folder");
        assert!(NewFile::create("/dev/null".as_ref()).is_err());
        assert!(NewFile::create(&folder.join("absent/state")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
