//! `cargo xtask build`: armlet for the architectures that it runs on, also from another one.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{host, run};

/// An architecture that armlet runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// Translates
    #[value(name = "x86-64", alias = "amd64")]
    X86_64,
    /// Runs guests with KVM
    #[value(name = "arm64", alias = "aarch64")]
    Arm64,
}

/// What to build.
#[derive(Args)]
pub struct Options {
    /// The host that armlet is to run on
    #[arg(long, value_enum, default_value = "arm64")]
    arch: Arch,
    /// One file that needs no libraries
    #[arg(long = "static")]
    fixed: bool,
}

/// Builds and tells where the program is.
///
/// # Errors
/// A compiler is missing and cannot be installed, or the build fails.
pub fn main(o: &Options) -> Result<()> {
    let target = Target::prepare(o.arch, o.fixed)?;
    run::shown(target.cargo("build").args(["--package", "armlet-cli"]))?;
    println!("{}", target.folder().join("armlet").display());
    Ok(())
}

/// Rust's compiler and library for a host, which may be another one than this.
pub struct Target {
    arch: Arch,
    fixed: bool,
}

impl Target {
    /// Installs what is missing; `fixed`: programs get no libraries.
    ///
    /// # Errors
    /// Something cannot be installed.
    pub fn prepare(arch: Arch, fixed: bool) -> Result<Self> {
        let target = Self { arch, fixed };
        if target.is_foreign() {
            host::ensure(&[("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"), (COMPILER, "rustc-web")])?;
            host::ensure_file("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross")?;
            host::ensure_foreign(LIBRARY, "arm64", &["libstd-rust-web-dev", "libstd-rust-web-dev:arm64"])?;
        }
        Ok(target)
    }

    /// The standard library of that architecture comes with the compiler of the distribution, not with ours.
    fn is_foreign(&self) -> bool {
        self.arch == Arch::Arm64 && std::env::consts::ARCH != "aarch64"
    }

    fn triple(&self) -> &'static str {
        match self.arch {
            Arch::X86_64 => "x86_64-unknown-linux-gnu",
            Arch::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// `cargo COMMAND` for this target, optimised.
    pub fn cargo(&self, command: &str) -> Command {
        let mut c = run::command(&run::cargo(), [command, "--quiet", "--release", "--target", self.triple()]);
        // Two compilers in one folder would wait for each other, and build all again in turns.
        c.arg("--target-dir").arg(self.target());
        if self.is_foreign() {
            c.env("RUSTC", COMPILER)
                .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
        }
        let flags = if self.fixed { "-Ctarget-feature=+crt-static" } else { "" };
        c.env(format!("CARGO_TARGET_{}_RUSTFLAGS", self.triple().to_uppercase().replace('-', "_")), flags);
        c
    }

    /// Builds tests, chosen by cargo's options; their names have numbers that only cargo knows. With them come the programs
    /// that they start.
    ///
    /// # Errors
    /// Something does not build.
    pub fn build_tests(&self, which: &[&str]) -> Result<Vec<Built>> {
        let mut c = self.cargo("test");
        let told = run::quiet(c.args(["--no-run", "--message-format", "json"]).args(which))?;
        let messages = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let built = messages.filter_map(|message| {
            let path = |value: &Value| value.as_str().map(PathBuf::from);
            Some(Built {
                program: path(message.get("executable")?)?,
                folder: path(message.get("manifest_path")?)?.parent()?.to_owned(),
                is_test: message.get("profile")?.get("test")?.as_bool()?,
            })
        });
        Ok(built.collect())
    }

    fn target(&self) -> PathBuf {
        run::target().join(if self.fixed { "static" } else { "foreign" })
    }

    /// What tests have as `CARGO_TARGET_TMPDIR`.
    pub fn temporary(&self) -> PathBuf {
        self.target().join("tmp")
    }

    /// Where programs are that were built.
    pub fn folder(&self) -> PathBuf {
        self.target().join(self.triple()).join("release")
    }
}

/// A program that cargo has built.
pub struct Built {
    /// Where it is.
    pub program: PathBuf,
    /// The folder of its package.
    pub folder: PathBuf,
    /// It is a test, and not what a test starts.
    pub is_test: bool,
}

/// Of Debian; its name is also that of the package's program.
const COMPILER: &str = "/usr/bin/rustc";
/// Of that compiler, for arm64.
const LIBRARY: &str = "/usr/lib/rustlib/aarch64-unknown-linux-gnu";
