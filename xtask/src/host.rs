//! Programs of the host that come from Debian's packages.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{command, quiet, say};

/// A program and the Debian package that brings it.
pub type Tool = (&'static str, &'static str);

/// What `boot` needs.
pub const BOOT: &[Tool] = &[("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("xz", "xz-utils")];
/// What the tests need besides.
pub const TEST: &[Tool] = &[
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("aarch64-linux-gnu-as", "binutils-aarch64-linux-gnu"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("dtc", "device-tree-compiler"),
    ("expect", "expect"),
    ("gcc", "gcc"),
    ("qemu-img", "qemu-utils"),
    ("python3", "python3"),
    ("gdb-multiarch", "gdb-multiarch"),
];
/// What the benchmark needs besides.
pub const BENCH: &[Tool] = &[("mke2fs", "e2fsprogs")];

/// True if `program` is in one of the folders where programs are looked for.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|d| d.join(program).is_file())
}

/// Installs the packages whose programs are missing.
///
/// # Errors
/// apt is missing or fails, or we may not install.
pub fn ensure(tools: &[Tool]) -> Result<()> {
    let mut missing: Vec<&str> = tools.iter().filter(|(p, _)| !has(p)).map(|(_, package)| *package).collect();
    missing.dedup();
    install(&missing)
}

/// Installs packages that bring no program, unless `present` is there.
///
/// # Errors
/// As for [`ensure`].
pub fn ensure_file(present: &str, package: &str) -> Result<()> {
    if std::path::Path::new(present).exists() { Ok(()) } else { install(&[package]) }
}

/// Installs `package`, unless `test` runs well without it.
///
/// # Errors
/// As for [`ensure`].
pub fn ensure_working(test: &mut Command, package: &str) -> Result<()> {
    if test.output().is_ok_and(|out| out.status.success()) { Ok(()) } else { install(&[package]) }
}

/// Installs packages of which some are of another architecture, unless `present` is there.
///
/// # Errors
/// As for [`ensure`].
pub fn ensure_foreign(present: &str, arch: &str, packages: &[&str]) -> Result<()> {
    if std::path::Path::new(present).exists() {
        return Ok(());
    }
    // Without it there is no such package; to say it again changes nothing.
    quiet(&mut command("dpkg", ["--add-architecture", arch]))
        .context("cannot take packages of another architecture")?;
    install(packages)
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if quiet(&mut command("id", ["-u"]))?.trim() != "0" {
        bail!("these Debian packages are missing; install them as root: apt-get install {list}");
    }
    say(&format!("installing {list}"));
    let apt = |args: &[&str]| -> Result<String> {
        quiet(apt_get().args(args)).with_context(|| format!("cannot install {list}"))
    };
    apt(&["update", "-q"])?;
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    args.extend(packages);
    apt(&args)?;
    Ok(())
}

/// `apt-get` that asks no questions and tries again when the network stumbles.
pub fn apt_get() -> Command {
    let mut c = command("apt-get", ["-oAcquire::Retries=3", "-oDPkg::Lock::Timeout=120"]);
    c.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    c
}
