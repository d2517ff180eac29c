//! The demonstration guest that boots when no kernel is given: our own bare-metal program.

use std::fs::File;
use std::io::Write;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::boot::InputFile;
use crate::error::BootError;

/// The program, built from `guests/demo` by `cargo xtask guests`.
const ELF: &[u8] = include_bytes!("../../../guests/demo/demo.elf");

/// The program as an open file.
pub(crate) fn open() -> Result<InputFile, BootError> {
    let path = std::path::PathBuf::from("built-in demonstration");
    let failed = |source| BootError::Open { what: "kernel", path: path.clone(), source };
    let fd = memfd_create(c"armlet-demo", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(ELF).map_err(failed)?;
    Ok(InputFile { what: "kernel", path, file, len: ELF.len() as u64 })
}
