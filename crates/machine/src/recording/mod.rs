//! Recordings: what came to a machine from outside, and at which instruction count, so that a run can be repeated.
//!
//! A machine whose time is made of instructions does the same whenever it is given the same at the same counts. A
//! recording is what that takes: what identifies the machine, its inputs, now and then a checkpoint by which a replay
//! finds out that it has left the path, and how it ended.

mod format;
mod identity;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::boot::InputFile;
use crate::error::BootError;
use crate::machine::End;
use crate::notice::Cause;
use format::Fault;
pub(crate) use format::{Identity, MAX_CONSOLE};
pub(crate) use identity::{check_drives, compare, digest, digest_of, identify, on_off, sampled, shown};

/// Something that comes to the guest from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Typed.
    Console(Vec<u8>),
    /// The power key is pressed.
    PowerKey,
    /// A break on the serial line.
    Break,
    /// From now on input waits for the guest's driver.
    Hold,
    /// Somebody outside resets the machine.
    Reset(Cause),
}

/// How a recorded run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself.
    PoweredOff,
    /// By itself, with a status.
    Exited(u32),
    /// By itself.
    Crashed(String),
    /// By itself.
    ResetLoop,
    /// By somebody or something outside: who or what.
    Outside(String),
}

/// Longest text of an [`Ending`] in bytes.
const MAX_TEXT: usize = 4096;

impl Ending {
    /// What `end` is in a recording.
    pub(crate) fn of(end: &End) -> Self {
        let short = |text: &str| {
            let fits = (0..=text.len().min(MAX_TEXT)).rev().find(|n| text.is_char_boundary(*n));
            text[..fits.unwrap_or(0)].to_owned()
        };
        match end {
            End::PoweredOff => Self::PoweredOff,
            End::Exited(status) => Self::Exited(*status),
            End::Crashed(what) => Self::Crashed(short(what)),
            End::ResetLoop => Self::ResetLoop,
            End::Quit(who) => Self::Outside(short(who)),
            End::TimedOut => Self::Outside("--timeout".into()),
            End::Replayed(why) | End::Failed(why) => Self::Outside(short(why)),
        }
    }

    /// True if the guest comes to it by itself.
    pub(crate) fn by_guest(&self) -> bool {
        !matches!(self, Self::Outside(_))
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// What came.
    Input(Input),
    /// A number made of all registers.
    Checkpoint(u64),
    /// The last one.
    End(Ending),
}

/// Why a recording cannot be made or used.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum RecordingError {
    #[error(transparent)]
    Open(#[from] BootError),
    #[error("recording '{}' cannot be written ({source}): check the path, its permissions and the space there", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("recording '{}' cannot be read ({source}): check the path and its permissions", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("'{}' is no recording: give a file that --record has made", path.display())]
    NotARecording { path: PathBuf },
    #[error("recording '{}' has format {found}, and this program reads format {known}: replay it with the version that made it", path.display(), known = format::FORMAT)]
    Format { path: PathBuf, found: u32 },
    #[error("recording '{}' is damaged ({what}, near byte {at}): take an undamaged copy, or record again", path.display())]
    Damaged { path: PathBuf, what: &'static str, at: u64 },
    #[error("recording '{}' ends before it begins: record again", path.display())]
    CutEarly { path: PathBuf },
    #[error("recording '{}' is of another machine: {what} was {recorded} and is {here}: {mend}", path.display())]
    OtherMachine { path: PathBuf, what: String, recorded: String, here: String, mend: String },
    #[error("drive '{}' can be written, and a recording cannot bring back what it held: add readonly=on or snapshot=on", path.display())]
    WritableDrive { path: PathBuf },
}

/// Makes a recording. The file is not touched before the machine has started.
pub(crate) struct Recorder {
    path: PathBuf,
    identity: Identity,
    file: Option<BufWriter<File>>,
    last: u64,
    /// The first error, until it is told.
    failed: Option<std::io::Error>,
    /// There was one: nothing is written any more.
    broken: bool,
}

impl Recorder {
    /// A recording in the file at `path`; what is there now is left until [`Self::begin`].
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn new(path: &Path, identity: Identity) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::Write { path: path.into(), source };
        check_writable(path).map_err(failed)?;
        Ok(Self { path: path.into(), identity, file: None, last: 0, failed: None, broken: false })
    }

    /// Creates the file, or empties it. What goes wrong is told by [`Self::error`].
    pub(crate) fn begin(&mut self) {
        if self.file.is_some() || self.broken {
            return;
        }
        let begun = File::create(&self.path).and_then(|file| {
            let file = self.file.insert(BufWriter::new(file));
            format::write_head(file, &self.identity).and_then(|()| file.flush())
        });
        self.check(begun);
    }

    /// Writes `item`, which happened at `count`, and sees that the host has it. After an error, nothing.
    pub(crate) fn note(&mut self, count: u64, item: &Item) {
        self.begin();
        let Some(file) = self.file.as_mut().filter(|_| !self.broken) else { return };
        let passed = count.saturating_sub(self.last);
        self.last = self.last.max(count);
        let written = format::write_item(file, passed, item).and_then(|()| file.flush());
        self.check(written);
    }

    /// The error because of which the recording is not whole; told once.
    pub(crate) fn error(&mut self) -> Option<RecordingError> {
        let source = self.failed.take()?;
        Some(RecordingError::Write { path: self.path.clone(), source })
    }

    fn check(&mut self, written: std::io::Result<()>) {
        self.broken |= written.is_err();
        self.failed = written.err();
    }
}

/// Checks that the file at `path` can be written; it is as before when this returns.
fn check_writable(path: &Path) -> std::io::Result<()> {
    use std::io::{Error, ErrorKind};
    use std::os::unix::fs::FileTypeExt;
    let mut options = File::options();
    options.write(true);
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() || meta.file_type().is_char_device() => options.open(path).map(drop),
        Ok(_) => Err(Error::other("it is no file")),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            options.create_new(true).open(path)?;
            std::fs::remove_file(path)
        }
        Err(e) => Err(e),
    }
}

/// Reads a recording that has been checked from its first byte to its last.
pub(crate) struct Player {
    path: PathBuf,
    file: BufReader<File>,
    /// The next item, and its count.
    next: Option<(u64, Item)>,
    /// The recording has no end.
    cut: bool,
}

const CUT: &str = "it was cut off here while it was made";

impl Player {
    /// Opens the recording at `path` and reads it through.
    ///
    /// # Errors
    /// It cannot be read, is none, or is damaged.
    pub(crate) fn open(path: &Path) -> Result<(Self, Identity), RecordingError> {
        let input = InputFile::open("recording", path)?;
        let mut file = BufReader::new(input.file);
        let identity = read_through(&mut file);
        let (identity, start, whole) = match identity {
            Ok(all) => all,
            Err((fault, at)) => return Err(error_of(path, fault, at)),
        };
        let back = |source| RecordingError::Read { path: path.into(), source };
        file.seek(std::io::SeekFrom::Start(start)).map_err(back)?;
        let mut player = Self { path: path.into(), file, next: Some((0, Item::Checkpoint(0))), cut: !whole };
        player.advance();
        Ok((player, identity))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// True if it has no end.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// The next item, and its count.
    pub(crate) fn next(&self) -> Option<(u64, &Item)> {
        self.next.as_ref().map(|(count, item)| (*count, item))
    }

    /// Goes on to the one after it. What cannot be read although it could be before ends the recording there.
    pub(crate) fn advance(&mut self) {
        let Some((count, last)) = self.next.take() else { return };
        let ends = |why: &str| Some((count, Item::End(Ending::Outside(why.into()))));
        let item = match format::read_item(&mut self.file) {
            _ if matches!(last, Item::End(_)) => None,
            Ok(Some((passed, item))) => Some((count.saturating_add(passed), item)),
            Ok(None) | Err(Fault::Cut) if self.cut => ends(CUT),
            Ok(None) | Err(_) => ends("it has changed behind this place"),
        };
        self.next = item;
    }
}

/// The identity, where the records begin, and whether they have an end.
type Outline = (Identity, u64, bool);

/// Reads a recording from its beginning to its end; on a fault, also about where that is.
fn read_through(file: &mut (impl std::io::Read + Seek)) -> Result<Outline, (Fault, u64)> {
    let at = |file: &mut dyn Seek| file.stream_position().unwrap_or(0);
    let identity = match format::read_head(file) {
        Ok(identity) => identity,
        Err(fault) => return Err((fault, at(file))),
    };
    let start = at(file);
    let mut count = 0u64;
    let mut ended = false;
    loop {
        match format::read_item(file) {
            Ok(None) | Err(Fault::Cut) if !ended => return Ok((identity, start, false)),
            Ok(None) => return Ok((identity, start, true)),
            Ok(Some(_)) | Err(Fault::Cut) if ended => {
                return Err((Fault::Damaged("something follows its end"), at(file)));
            }
            Ok(Some((passed, item))) => {
                let sum = count.checked_add(passed).filter(|sum| *sum < LAST);
                count = sum.ok_or_else(|| (Fault::Damaged("a count is too large"), at(file)))?;
                ended = matches!(item, Item::End(_));
            }
            Err(fault) => return Err((fault, at(file))),
        }
    }
}

/// No count of a recording reaches this.
const LAST: u64 = u64::MAX / 2;

fn error_of(path: &Path, fault: Fault, at: u64) -> RecordingError {
    let path = path.to_path_buf();
    match fault {
        Fault::Host(source) => RecordingError::Read { path, source },
        Fault::NotARecording => RecordingError::NotARecording { path },
        Fault::Format(found) => RecordingError::Format { path, found },
        Fault::Cut => RecordingError::CutEarly { path },
        Fault::Damaged(what) => RecordingError::Damaged { path, what, at },
    }
}
