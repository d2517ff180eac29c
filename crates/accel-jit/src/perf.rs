//! What host profilers see of translated code: a file of addresses and names, where Linux's `perf` looks for it
//! (tools/perf/Documentation/jit-interface.txt).

use std::fs::File;
use std::io::{self, LineWriter, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Names an address of the guest, whose exception vectors (VBAR_EL1) are at the second one.
pub type NameOf = Box<dyn Fn(u64, u64) -> String + Send + Sync>;

/// The file, and how guest addresses are named in it.
pub struct PerfMap {
    file: Mutex<LineWriter<File>>,
    name: NameOf,
}

impl std::fmt::Debug for PerfMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PerfMap")
    }
}

impl PerfMap {
    /// Where `perf` looks for this process's map.
    pub fn path() -> PathBuf {
        format!("/tmp/perf-{}.map", std::process::id()).into()
    }

    /// Makes the file, new.
    ///
    /// # Errors
    /// The host's.
    pub fn create(name: NameOf) -> io::Result<Self> {
        let path = Self::path();
        // Whoever may write there may have put something else in its place.
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        Ok(Self { file: Mutex::new(LineWriter::new(File::create_new(path)?)), name })
    }

    /// Notes that `length` bytes of host code at `address` are a translation from the guest's `va` on; its
    /// exception vectors are at `vectors`.
    pub fn add(&self, address: u64, length: usize, va: u64, vectors: u64) {
        let name = (self.name)(va, vectors);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A profile without some names is better than a machine that stops for want of room.
        let _ = writeln!(file, "{address:x} {length:x} guest {name}");
    }
}
