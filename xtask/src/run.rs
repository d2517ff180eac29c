//! Running other programs: what was run is in the error when it fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// A command with its arguments and no standard input.
pub fn command<S: AsRef<std::ffi::OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut c = Command::new(program);
    c.args(args).stdin(Stdio::null());
    c
}

/// How `c` reads in a message.
pub fn line(c: &Command) -> String {
    let words = std::iter::once(c.get_program()).chain(c.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs to the end, output shown.
///
/// # Errors
/// The program is missing or its exit status is not 0.
pub fn shown(c: &mut Command) -> Result<()> {
    let status = c.status().with_context(|| format!("cannot run `{}`", line(c)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(c));
    }
    Ok(())
}

/// Runs to the end and gives its standard output; all of its output is in the error if it fails.
///
/// # Errors
/// The program is missing or its exit status is not 0.
pub fn quiet(c: &mut Command) -> Result<String> {
    let out = c.output().with_context(|| format!("cannot run `{}`", line(c)))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        bail!("`{}` failed: {}\n{text}{}", line(c), out.status, String::from_utf8_lossy(&out.stderr));
    }
    Ok(text)
}

/// Tells what is being done, on standard error.
pub fn say(text: &str) {
    eprintln!("xtask: {text}");
}

/// The `cargo` that started us.
pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Builds the release `armlet` and gives its path.
///
/// # Errors
/// The build failed.
pub fn build_armlet() -> Result<PathBuf> {
    shown(&mut command(&cargo(), ["build", "--quiet", "--release", "--package", "armlet-cli"]))?;
    Ok(target().join("release/armlet"))
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
