//! The independent implementation: Debian's `qemu-user-static`, run as a program.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::record::{self, Record};
use crate::{Case, program};

/// Names the command that runs arm64 programs, with its options, instead of [`DEFAULT`]. The word `PROGRAM` in it is
/// replaced by the program's path, which is appended otherwise.
pub const VARIABLE: &str = "ARMLET_QEMU_USER";
/// The command if nothing else is said.
pub const DEFAULT: &str = "qemu-aarch64-static -cpu neoverse-n1";

/// The command's words.
fn words() -> Vec<String> {
    let line = env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.to_owned());
    line.split_whitespace().map(str::to_owned).collect()
}

/// Says whether the oracle can be run at all.
pub fn is_available() -> bool {
    let words = words();
    let Some(first) = words.first() else { return false };
    Command::new(first).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Runs the cases and returns their states afterwards.
///
/// # Errors
/// The program cannot be written or run, or ended otherwise than it should.
pub fn execute(cases: &[Case], code: &[u8]) -> Result<Vec<Record>> {
    let records: Vec<Vec<u8>> = cases
        .iter()
        .enumerate()
        .map(|(i, c)| c.record.to_bytes(program::next_code(i, cases.len())))
        .collect();
    let image = program::elf(code, &program::data(&records));
    let folder = env::var("ARMLET_CONFORM_FOLDER").map_or_else(|_| env::temp_dir(), Into::into);
    let path =
        folder.join(format!("armlet-conform-{}-{:?}", std::process::id(), std::thread::current().id()));
    let written = (|| -> Result<()> {
        let mut f = fs::File::create(&path)?;
        f.write_all(&image)?;
        f.set_permissions(fs::Permissions::from_mode(0o755))?;
        Ok(())
    })();
    written.with_context(|| format!("cannot write the test program {}", path.display()))?;
    let result = run(&path.to_string_lossy());
    if env::var_os("ARMLET_CONFORM_KEEP").is_none() {
        let _ = fs::remove_file(&path);
    }
    let out = result?;
    if out.len() != cases.len() * record::SIZE {
        bail!("the test program wrote {} bytes instead of {}", out.len(), cases.len() * record::SIZE);
    }
    Ok(out.chunks(record::SIZE).map(Record::from_bytes).collect())
}

fn run(path: &str) -> Result<Vec<u8>> {
    let mut words = words();
    match words.iter_mut().find(|w| w.contains("PROGRAM")) {
        Some(w) => *w = w.replace("PROGRAM", path),
        None => words.push(path.to_owned()),
    }
    let (first, rest) = words.split_first().context("the command in ARMLET_QEMU_USER is empty")?;
    let out = Command::new(first)
        .args(rest)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{first}`; install Debian's qemu-user-static"))?;
    if !out.status.success() {
        bail!("`{}` ended with {}", words.join(" "), out.status);
    }
    Ok(out.stdout)
}
