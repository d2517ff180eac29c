//! The independent implementation of instructions: the newest qemu-user that Debian has, in a folder of its own
//! and never installed.

use std::path::PathBuf;

use anyhow::Result;

use crate::apt::Release;
use crate::{cache, run};

/// Where `armlet-conform` looks for it.
fn folder() -> Result<PathBuf> {
    Ok(cache::folder()?.join("oracle"))
}

/// Fetches the oracle unless the cache folder has it. Its programs are static, so nothing that they depend on is
/// unpacked.
///
/// # Errors
/// Download or unpacking failed.
pub fn prepare() -> Result<()> {
    cache::once(&folder()?, |partial| {
        let arch = run::quiet(&mut run::command("dpkg", ["--print-architecture"]))?;
        Release::open("sid", arch.trim())?.unpack_some(&["qemu-user"], partial, |name| name == "qemu-user")
    })
}
