//! Why a disk image could not be opened: each text names the cause and the mend.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a disk image could not be opened. Nothing was created or changed.
#[derive(Debug, Error)]
pub enum StorageError {
    /// There is no such file.
    #[error("disk image '{0}' does not exist: check the path, or create one with 'truncate -s 8G {0}'", path.display())]
    Missing {
        /// The image.
        path: PathBuf,
    },
    /// The path is a directory.
    #[error("disk image '{}' is a directory: name a disk image file in it", path.display())]
    Directory {
        /// The image.
        path: PathBuf,
    },
    /// The path is a pipe, socket or character device.
    #[error("disk image '{}' is a {kind}: use a regular file or a block device", path.display())]
    NotAnImage {
        /// The image.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It may not be read.
    #[error("disk image '{}' may not be read by this user: change its permissions or use a copy", path.display())]
    NotReadable {
        /// The image.
        path: PathBuf,
    },
    /// It may be read, not written.
    #[error(
        "disk image '{}' is not writable: add readonly=on, or snapshot=on to throw the guest's writes away, \
         or change its permissions",
        path.display()
    )]
    NotWritable {
        /// The image.
        path: PathBuf,
    },
    /// Another process writes to it, or it reads and we want to write.
    #[error("disk image '{}' is in use{holder}: {mend}", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
        /// " by process 12 (name)", or empty if the host does not tell.
        holder: String,
        /// What to do.
        mend: &'static str,
    },
    /// This machine has it already, and at least one of the two may write.
    #[error("disk image '{}' is given twice: give it once, or add readonly=on or snapshot=on to each", path.display())]
    Twice {
        /// The image.
        path: PathBuf,
    },
    /// It has no bytes.
    #[error("disk image '{}' is empty: give it a size with 'truncate -s 8G {0}'", path.display())]
    Empty {
        /// The image.
        path: PathBuf,
    },
    /// No format was given and the content is another one's.
    #[error(
        "disk image '{}' is a {found} image, which is not supported yet: convert it with \
         'qemu-img convert -O raw {0} disk.img', or add format=raw to use its bytes as they are",
        path.display()
    )]
    UnsupportedFormat {
        /// The image.
        path: PathBuf,
        /// The format that its first bytes tell.
        found: &'static str,
    },
    /// The place for a snapshot's writes could not be made.
    #[error(
        "no temporary file for snapshot=on: {source}; set TMPDIR to a writable directory with free space"
    )]
    Overlay {
        /// The host's error.
        source: io::Error,
    },
    /// Anything else that the host says.
    #[error("disk image '{}' cannot be opened ({source}): check the path and what it leads to", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
}
