//! Writes the initial RAM disk: a gzip'd cpio archive ("newc", as the kernel's
//! Documentation/driver-api/early-userspace/buffer-format describes it).

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};

use crate::kernel::Kernel;

const INIT: &str = include_str!("../../guests/linux/init");
const FILE: u32 = 0o100_755;
const FOLDER: u32 = 0o040_755;

/// A cpio archive in the making.
#[derive(Default)]
pub struct Archive {
    data: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds folders; those that are in others come after them.
    pub fn folders(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.add(name, FOLDER, &[]));
    }

    /// Adds a file that may be executed.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.add(name, FILE, content);
    }

    /// Adds a kernel's modules, and the order in which they are to be loaded, to `lib/modules`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn modules(&mut self, kernel: &Kernel) -> Result<()> {
        let mut order = String::new();
        for module in kernel.modules() {
            let name = module.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            self.add(&format!("lib/modules/{name}"), FILE, &fs::read(&module)?);
            order.push_str(&name);
            order.push('\n');
        }
        self.add("lib/modules/order", FILE, order.as_bytes());
        Ok(())
    }

    /// Writes it, compressed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(self, path: &Path) -> Result<()> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(&self.finish())?;
        fs::write(path, gz.finish()?)?;
        Ok(())
    }

    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.data.extend(b"070701");
        for f in fields {
            self.data.extend(format!("{f:08x}").bytes());
        }
        self.data.extend(name.bytes());
        self.data.push(0);
        self.pad();
        self.data.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.data.resize(self.data.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.data
    }
}

/// Writes the initrd for `kernel` to `path`.
///
/// # Errors
/// Those of the file system.
pub fn write(kernel: &Kernel, path: &Path) -> Result<()> {
    let mut a = Archive::default();
    a.folders(&["bin", "dev", "lib", "lib/modules", "mnt", "proc", "root", "sys", "tmp"]);
    a.add("init", FILE, INIT.as_bytes());
    a.add("bin/busybox", FILE, &fs::read(kernel.busybox())?);
    a.modules(kernel)?;
    a.write(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_what_was_written() {
        if !crate::host::has("cpio") {
            return;
        }
        let mut a = Archive::default();
        a.add("bin", FOLDER, &[]);
        a.add("bin/x", FILE, b"hello");
        let mut child = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&a.finish()).unwrap();
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success());
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("drwxr-xr-x") && text.lines().nth(1).unwrap().contains(" 5 "), "{text}");
    }
}
