//! The root disk of the measured guest: Debian's arm64 programs and our scripts, in an ext4 image.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::Release;
use crate::{cache, host, run};

const PACKAGES: &[&str] = &[
    "?essential",
    "mawk",
    "mount",
    "stress-ng",
    "openssl",
    "sqlite3",
    "python3-minimal",
    "gcc",
    "libc6-dev",
];
/// What no measured program reads.
const NOT_NEEDED: &[&str] = &["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"];
const SIZE: &str = "1500M";

/// Makes the disk from the packages and from `bench/guest`, and gives its path.
///
/// # Errors
/// Download, unpacking or mke2fs failed.
pub fn prepare() -> Result<PathBuf> {
    host::ensure(host::BENCH)?;
    let folder = cache::folder()?.join("disk");
    let tree = folder.join("tree");
    cache::once(&tree, |partial| {
        Release::open("trixie", "arm64")?.unpack_all(PACKAGES, partial)?;
        finish(partial)
    })?;
    let mut changed = false;
    let scripts = tree.join("bench");
    fs::create_dir_all(&scripts)?;
    for entry in fs::read_dir("bench/guest")? {
        let entry = entry?;
        let (new, to) = (fs::read(entry.path())?, scripts.join(entry.file_name()));
        if fs::read(&to).ok().as_ref() != Some(&new) {
            fs::write(&to, new)?;
            changed = true;
        }
    }
    let image = folder.join("root.img");
    if changed {
        cache::remove(&image)?;
    }
    cache::once(&image, |partial| {
        let name = partial.to_string_lossy();
        let source = tree.to_string_lossy();
        run::quiet(&mut run::command("mke2fs", ["-q", "-t", "ext4", "-d", &source, &name, SIZE])).map(|_| ())
    })?;
    Ok(image)
}

/// Does what the packages' scripts would have done, as far as the programs need it.
fn finish(tree: &Path) -> Result<()> {
    for path in NOT_NEEDED {
        cache::remove(&tree.join(path))?;
    }
    for folder in ["bench", "dev", "proc", "root", "run", "sys", "tmp"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(tree.join("etc/group"), "root:x:0:\n")?;
    if !tree.join("usr/bin/awk").exists() {
        symlink("mawk", tree.join("usr/bin/awk")).context("cannot link awk")?;
    }
    Ok(())
}
