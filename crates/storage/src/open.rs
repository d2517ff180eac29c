//! Opening a user's disk image.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{BlockBackend, Overlay, RawImage, SECTOR_SIZE, StorageError};

/// Format of a disk image. It is what the user says it is: the content is never asked, since the guest writes
/// the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// The file's bytes are the disk's bytes.
    Raw,
}

/// How to open a disk image.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// File or host block device.
    pub path: PathBuf,
    /// The format. Without one it is raw, and an image that looks like another format is refused.
    pub format: Option<ImageFormat>,
    /// `readonly=on`: the guest cannot write.
    pub read_only: bool,
    /// `snapshot=on`: the guest's writes are thrown away at the end.
    pub snapshot: bool,
}

/// A disk image that [`DiskOptions::open`] has opened.
pub struct Disk {
    /// Its content.
    pub backend: Arc<dyn BlockBackend>,
    /// What the user should know about it, one line each.
    pub notes: Vec<String>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("size", &self.backend.size()).field("notes", &self.notes).finish()
    }
}

impl DiskOptions {
    /// A writable image at `path`, raw unless it looks otherwise.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), format: None, read_only: false, snapshot: false }
    }

    /// Opens and locks the image: exclusively if the guest may write to it, shared otherwise. The lock ends
    /// with the backend.
    ///
    /// # Errors
    /// [`StorageError`], each with its mend. Nothing has been created or changed then.
    pub fn open(&self) -> Result<Disk, StorageError> {
        let writable = !self.read_only && !self.snapshot;
        let metadata = self.check_kind()?;
        let file = self.open_file(writable, &metadata)?;
        self.lock(&file, writable)?;
        let len = (&file).seek(SeekFrom::End(0)).map_err(|source| self.io(source))?;
        if len == 0 {
            return Err(StorageError::Empty { path: self.path.clone() });
        }
        self.check_format(&file)?;

        let mut notes = Vec::new();
        if !len.is_multiple_of(SECTOR_SIZE) {
            notes.push(format!(
                "disk image '{}' is {len} bytes long, no whole number of {SECTOR_SIZE}-byte sectors: \
                 the guest sees it padded with zeroes",
                self.path.display()
            ));
        }
        let image = Arc::new(RawImage::new(file, len, !writable));
        let backend: Arc<dyn BlockBackend> = if self.snapshot && !self.read_only {
            Arc::new(Overlay::new(image).map_err(|source| StorageError::Overlay { source })?)
        } else {
            image
        };
        Ok(Disk { backend, notes })
    }

    fn io(&self, source: io::Error) -> StorageError {
        StorageError::Io { path: self.path.clone(), source }
    }

    /// Looks before opening: opening a pipe would block, and opening a device may have effects.
    fn check_kind(&self) -> Result<Metadata, StorageError> {
        let path = self.path.clone();
        let metadata = std::fs::metadata(&self.path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StorageError::Missing { path: path.clone() },
            io::ErrorKind::PermissionDenied => StorageError::NotReadable { path: path.clone() },
            _ => self.io(source),
        })?;
        let kind = metadata.file_type();
        if kind.is_file() || kind.is_block_device() {
            return Ok(metadata);
        }
        if kind.is_dir() {
            return Err(StorageError::Directory { path });
        }
        let kind = match () {
            () if kind.is_fifo() => "pipe",
            () if kind.is_socket() => "socket",
            () => "character device",
        };
        Err(StorageError::NotAnImage { path, kind })
    }

    fn open_file(&self, writable: bool, metadata: &Metadata) -> Result<File, StorageError> {
        let mut options = OpenOptions::new();
        options.read(true).write(writable);
        if writable && metadata.file_type().is_block_device() {
            // Refused by the host if the device is mounted or otherwise taken.
            options.custom_flags(rustix::fs::OFlags::EXCL.bits() as i32);
        }
        options.open(&self.path).map_err(|source| {
            let path = self.path.clone();
            match source.kind() {
                io::ErrorKind::PermissionDenied if writable && File::open(&path).is_ok() => {
                    StorageError::NotWritable { path }
                }
                io::ErrorKind::PermissionDenied => StorageError::NotReadable { path },
                io::ErrorKind::ReadOnlyFilesystem => StorageError::NotWritable { path },
                io::ErrorKind::ResourceBusy => StorageError::InUse {
                    path,
                    holder: " by the host (mounted, or part of another volume)".into(),
                    mend: "unmount it first, or add readonly=on or snapshot=on",
                },
                _ => self.io(source),
            }
        })
    }

    fn lock(&self, file: &File, writable: bool) -> Result<(), StorageError> {
        let result = if writable { file.try_lock() } else { file.try_lock_shared() };
        match result {
            Ok(()) => self.check_record_locks(file, writable),
            Err(TryLockError::WouldBlock) => Err(self.in_use(file, writable)),
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(path = %self.path.display(), "the host's file system has no locks");
                Ok(())
            }
            Err(TryLockError::Error(source)) => Err(self.io(source)),
        }
    }

    /// Other emulators lock single bytes of an image, which says nothing to those who lock it as a whole.
    fn check_record_locks(&self, file: &File, writable: bool) -> Result<(), StorageError> {
        let locks = lock_table(file);
        // Some file systems keep our own lock as one on bytes.
        let own = Some(std::process::id());
        let mut others = locks.iter().filter(|lock| lock.is_record() && lock.pid != own);
        let in_the_way = if writable { others.next() } else { others.find(|lock| lock.is_of_writer()) };
        let Some(lock) = in_the_way else { return Ok(()) };
        let writer = locks.iter().any(|lock| lock.pid != own && lock.is_of_writer());
        Err(StorageError::InUse {
            path: self.path.clone(),
            holder: lock.pid.map_or(" by another program".into(), |pid| format!(" by {}", process(pid))),
            mend: if writer { WRITTEN } else { READ },
        })
    }

    /// The error for an image that is locked.
    fn in_use(&self, file: &File, writable: bool) -> StorageError {
        let path = self.path.clone();
        // Before the next line may add a lock of our own.
        let holder = lock_holder(file);
        let shared_is_free = writable && file.try_lock_shared().is_ok();
        match holder {
            Some(pid) if pid == std::process::id() => StorageError::Twice { path },
            holder => StorageError::InUse {
                path,
                holder: holder.map(|pid| format!(" by {}", process(pid))).unwrap_or_default(),
                mend: if shared_is_free { READ } else { WRITTEN },
            },
        }
    }

    /// Refuses another format's image that nobody said is raw. It is only ever a refusal: an image is never
    /// taken for what its bytes, which a guest may have written, say.
    fn check_format(&self, file: &File) -> Result<(), StorageError> {
        if self.format.is_some() {
            return Ok(());
        }
        let mut start = [0; 8];
        let n = file.read_at(&mut start, 0).map_err(|source| self.io(source))?;
        let start = &start[..n];
        const MAGICS: [(&[u8], &str); 4] =
            [(b"QFI\xfb", "qcow2"), (b"KDMV", "VMDK"), (b"vhdxfile", "VHDX"), (b"conectix", "VHD")];
        match MAGICS.iter().find(|(magic, _)| start.starts_with(magic)) {
            Some((_, found)) => Err(StorageError::UnsupportedFormat { path: self.path.clone(), found }),
            None => Ok(()),
        }
    }
}

const READ: &str = "others read it, so add readonly=on or snapshot=on, or stop them";
const WRITTEN: &str = "another process writes to it, so stop that one or use a copy of the image";

/// One line of the host's lock table.
struct Lock {
    /// "FLOCK", "POSIX" or "OFDLCK".
    kind: String,
    write: bool,
    pid: Option<u32>,
    /// First and last byte.
    range: (u64, u64),
}

/// The byte that QEMU locks, for sharing, while it may write to an image.
const QEMU_WRITES: u64 = 101;

impl Lock {
    fn is_record(&self) -> bool {
        self.kind != "FLOCK"
    }

    fn is_of_writer(&self) -> bool {
        self.is_record() && (self.write || (self.range.0..=self.range.1).contains(&QEMU_WRITES))
    }
}

/// The locks that the host knows on `file`; none if it does not tell.
fn lock_table(file: &File) -> Vec<Lock> {
    let table = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let Ok(metadata) = file.metadata() else { return Vec::new() };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    // "1: FLOCK  ADVISORY  WRITE 708 00:2f:12345 0 EOF"
    let parse = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let &[_, kind, _, mode, pid, place, first, last] = fields.as_slice() else { return None };
        let last = last.parse().unwrap_or(u64::MAX);
        let lock = Lock {
            kind: kind.into(),
            write: mode == "WRITE",
            pid: pid.parse().ok(),
            range: (first.parse().ok()?, last),
        };
        (place == inode).then_some(lock)
    };
    table.lines().filter_map(parse).collect()
}

/// The process that holds `file` locked as a whole, if the host tells.
fn lock_holder(file: &File) -> Option<u32> {
    lock_table(file).iter().find(|lock| !lock.is_record())?.pid
}

/// "process 12 (name)".
fn process(pid: u32) -> String {
    match std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim()),
        Err(_) => format!("process {pid}"),
    }
}
