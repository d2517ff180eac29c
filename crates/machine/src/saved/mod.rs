//! Machines that are saved to a file and go on from it later, in another process.
//!
//! The file (`armlet_saved::file`) begins with what machine it is, then has every part in sections of its own, and ends
//! with RAM. To save, the machine is held: no vCPU executes, no device works, time stands still. To restore, a machine
//! is made as always and takes over what was saved before it is started; if something does not fit, no machine is made.

mod identity;
mod restore;
mod save;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use armlet_engine::EngineError;
use armlet_saved::Unfit;
use armlet_saved::file::Fault;
use thiserror::Error;

use crate::error::BootError;

pub(crate) use identity::config_of;
pub(crate) use restore::Source;
pub use save::{SaveReport, SavedThen};

/// Why a machine is not saved. It goes on as before.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum SaveError {
    #[error(
        "a machine whose time is made of instructions cannot be saved: record it instead (--record), or run it without thread=single"
    )]
    Deterministic,
    #[error(
        "drive {0} has snapshot=on, and what the guest has written there is in no file: run it without, on a copy of the image"
    )]
    Snapshot(usize),
    #[error("the machine has failed and cannot go on from here: {0}")]
    Failed(String),
    #[error("the machine is about to be reset or to end: save it later")]
    Ending,
    #[error("drive {number} cannot be flushed ({source}): see what its file system lacks")]
    Flush { number: usize, source: std::io::Error },
    #[error("state '{}' cannot be written ({source}): check the path, its permissions and the space there", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Accelerator(#[from] Unfit),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Recording(#[from] crate::recording::RecordingError),
    #[error("{0}")]
    Engine(#[from] EngineError),
}

/// Why a saved machine cannot be restored. Nothing was changed.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum RestoreError {
    #[error("saved state '{}' cannot be read ({source}): check the path and its permissions", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("'{}' cannot be restored: {fault}: {}", path.display(), mend(fault))]
    File { path: PathBuf, fault: Fault },
    #[error("'{}' cannot be restored: {what}: save the machine again", path.display())]
    Contents { path: PathBuf, what: String },
    #[error("saved state '{}' is of another machine: {what}: {mend}", path.display())]
    OtherMachine { path: PathBuf, what: String, mend: String },
    #[error("saved state '{}' does not fit this machine: {source}", path.display())]
    Unfit { path: PathBuf, source: Unfit },
    #[error("drive {number} ('{}') was written to since the machine was saved, and its guest would not notice: give the image as it was then", drive.display())]
    DriveChanged { number: usize, drive: PathBuf },
    #[error("a machine whose time is made of instructions cannot be restored: leave thread=single out")]
    Deterministic,
}

fn mend(fault: &Fault) -> &'static str {
    match fault {
        Fault::Host(_) => "check the disk that it is on",
        Fault::NotOne => "give a file that armlet ctl PATH save has made",
        Fault::Format(_) | Fault::UnknownSection(_) | Fault::Version { .. } => {
            "restore it with the version that saved it"
        }
        Fault::Cut(_) | Fault::Damaged { .. } => "take an undamaged copy, or save the machine again",
    }
}
