//! The root disks of guests: Debian's arm64 programs and our scripts, in an ext4 image.

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
    let disk = Disk { name: "disk", packages: PACKAGES, scripts: "bench/guest", size: SIZE };
    disk.prepare(|_| Ok(()))
}

/// A root disk that is made of Debian packages and of our files, which it has in `/bench`.
pub struct Disk {
    /// Its folder in the cache folder.
    pub name: &'static str,
    /// Debian's; those that they need come with them.
    pub packages: &'static [&'static str],
    /// The folder with our files.
    pub scripts: &'static str,
    /// As mke2fs understands it.
    pub size: &'static str,
}

impl Disk {
    /// Makes the disk if it is not there or our files are others, and gives its path. `build` makes something of our
    /// files, in the tree whose path it is given.
    ///
    /// # Errors
    /// Download, unpacking or mke2fs failed; those of `build`.
    pub fn prepare(&self, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        host::ensure(host::BENCH)?;
        let folder = cache::folder()?.join(self.name);
        let (tree, image) = (folder.join("tree"), folder.join("root.img"));
        cache::once(&tree, |partial| {
            Release::open("trixie", "arm64")?.unpack_all(self.packages, partial)?;
            finish(partial)
        })?;
        if copy_changed(Path::new(self.scripts), &tree.join("bench"))? {
            cache::remove(&image)?;
        }
        cache::once(&image, |partial| {
            build(&tree)?;
            let name = partial.to_string_lossy();
            let source = tree.to_string_lossy();
            let args = ["-q", "-t", "ext4", "-d", &source, &name, self.size];
            run::quiet(&mut run::command("mke2fs", args)).map(|_| ())
        })?;
        Ok(image)
    }
}

/// Copies those files of a folder that are not there as they are; true if there are some.
fn copy_changed(from: &Path, to: &Path) -> Result<bool> {
    let mut changed = false;
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (new, to) = (fs::read(entry.path())?, to.join(entry.file_name()));
        if fs::read(&to).ok().as_ref() != Some(&new) {
            fs::write(&to, new)?;
            changed = true;
        }
    }
    Ok(changed)
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
