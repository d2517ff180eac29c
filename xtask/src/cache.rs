//! The cache folder: downloads and what is built from them. Anything in it may be deleted at any time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `$ARMLET_CACHE`, or `armlet` in the user's cache folder.
///
/// # Errors
/// There is neither `$HOME` nor a folder named by the environment.
pub fn folder() -> Result<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("ARMLET_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("armlet")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/armlet")))
        .context("no cache folder: set HOME or ARMLET_CACHE")
}

/// Makes `path` once: `make` builds it under a temporary name beside it, and only a complete one gets the
/// real name. A build that was cut off leaves nothing that a later run would trust.
///
/// # Errors
/// Those of `make`, and those of the file system.
pub fn once(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    remove(&partial)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    make(&partial)?;
    fs::rename(&partial, path).with_context(|| format!("cannot finish {}", path.display()))
}

/// Removes a file or folder, if it is there.
///
/// # Errors
/// Those of the file system.
pub fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}
