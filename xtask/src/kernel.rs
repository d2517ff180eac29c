//! Debian's arm64 cloud kernels, with the modules that an armlet machine needs, and a static busybox.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::apt::Release;
use crate::{cache, host, run};

/// Modules in the order in which they must be loaded, as far as a kernel has them as modules; the rest that
/// the machine needs is built in.
const MODULES: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
    "rng-core",
    "virtio-rng",
];

/// A kernel by the version that Debian had when its release was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// Of Debian 12, bookworm
    #[value(name = "6.1", alias = "bookworm")]
    V6_1,
    /// Of Debian 13, trixie
    #[value(name = "6.12", alias = "trixie")]
    V6_12,
    /// Of Debian sid
    #[value(name = "7.2", alias = "sid")]
    V7_2,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_2];

    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::V7_2 => "sid",
        }
    }

    /// Its folder in the cache folder, with a number where an older one lacks modules.
    fn folder(self) -> String {
        let number = if self == Self::V6_1 { ".2" } else { "" };
        format!("{}{number}", self.suite())
    }
}

/// Files of one kernel in the cache folder.
pub struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// Fetches the kernel unless the cache folder has it.
    ///
    /// # Errors
    /// Download or unpacking failed.
    pub fn fetch(version: Version) -> Result<Self> {
        let folder = cache::folder()?.join("kernels").join(version.folder());
        cache::once(&folder, |partial| {
            let tree = partial.join("tree");
            // Newer releases split the kernel into base, binary and modules packages.
            let wanted = |n: &str| {
                let split = ["linux-image-", "linux-binary-", "linux-modules-"];
                n == "busybox-static" || split.iter().any(|p| n.starts_with(p)) && n.ends_with("-cloud-arm64")
            };
            Release::open(version.suite(), "arm64")?.unpack_some(
                &["linux-image-cloud-arm64", "busybox-static"],
                &tree,
                wanted,
            )?;
            collect(&tree, partial)?;
            cache::remove(&tree)
        })?;
        Ok(Self { folder })
    }

    /// The uncompressed kernel.
    pub fn image(&self) -> PathBuf {
        self.folder.join("Image")
    }

    /// A static arm64 busybox.
    pub fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }

    /// Its modules, in the order in which they must be loaded.
    pub fn modules(&self) -> Vec<PathBuf> {
        let files = MODULES.iter().map(|m| self.folder.join(format!("{m}.ko")));
        files.filter(|f| f.exists()).collect()
    }
}

/// Takes kernel, busybox and modules out of the unpacked packages.
fn collect(tree: &Path, to: &Path) -> Result<()> {
    host::ensure(host::BOOT)?;
    let mut files = Vec::new();
    walk(tree, &mut files)?;
    let find = |test: &dyn Fn(&str) -> bool| {
        files.iter().find(|f| f.file_name().is_some_and(|n| test(&n.to_string_lossy())))
    };
    let image =
        find(&|n| n == "vmlinuz" || n.starts_with("vmlinuz-")).context("the packages have no kernel")?;
    let busybox =
        files.iter().find(|f| f.ends_with("bin/busybox")).context("the packages have no busybox")?;
    fs::copy(image, to.join("Image"))?;
    fs::copy(busybox, to.join("busybox"))?;
    for module in MODULES {
        let name = format!("{module}.ko");
        let Some(file) = find(&|n| n == name || n.strip_prefix(&name).is_some_and(|e| e.starts_with('.')))
        else {
            continue; // Built in.
        };
        let data = match file.extension().and_then(|e| e.to_str()) {
            Some("ko") => fs::read(file)?,
            Some("xz") => decompress("xz", file)?,
            Some("zst") => decompress("zstd", file)?,
            _ => bail!("{} is compressed in a way that is not known here", file.display()),
        };
        fs::write(to.join(name), data)?;
    }
    Ok(())
}

fn decompress(program: &'static str, file: &Path) -> Result<Vec<u8>> {
    if program == "zstd" {
        host::ensure(&[("zstd", "zstd")])?;
    }
    let out = run::command(program, ["-dc".as_ref(), file.as_os_str()]).output()?;
    if !out.status.success() {
        bail!("cannot decompress {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    }
    Ok(out.stdout)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
