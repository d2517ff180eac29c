//! The independent implementation: qemu-user, run as a program. The newest that Debian has is in the cache folder
//! (`cargo xtask setup`); the machine's own serves if there is none.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, process};

use anyhow::{Context, Result, bail};
use armlet_arm::{Feature, FeatureSet};

use crate::record::{self, Record};
use crate::{Case, keys, program};

/// Names the command that runs arm64 programs, with its options, instead of what is found. The word `PROGRAM` in it is
/// replaced by the program's path, which is appended otherwise.
pub const VARIABLE: &str = "ARMLET_QEMU_USER";

/// The newest one, in the cache folder.
fn cached() -> Option<PathBuf> {
    let var = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = var("ARMLET_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("armlet")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/armlet")))?;
    Some(folder.join("oracle/usr/bin/qemu-aarch64")).filter(|p| p.is_file())
}

/// The command's words. What can be left out of the CPU with everything and the model does not have is left out.
fn words(model: &str, features: &FeatureSet) -> Vec<String> {
    if let Ok(line) = env::var(VARIABLE) {
        return line.split_whitespace().map(str::to_owned).collect();
    }
    let program = cached().map_or_else(|| "qemu-aarch64-static".into(), |p| p.to_string_lossy().into_owned());
    let mut cpu = model.to_owned();
    if model == "max" {
        cpu.push_str(",sve=off,sme=off");
        cpu.push_str(if features.has(Feature::PAuth) { ",pauth-qarma5=on" } else { ",pauth=off" });
    }
    vec![program, "-seed".into(), keys::SEED.to_string(), "-cpu".into(), cpu]
}

/// The oracle's version, or `None` if it cannot be run at all.
pub fn version() -> Option<String> {
    let words = words("max", &FeatureSet::default());
    let out = Command::new(words.first()?).arg("--version").stderr(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&out.stdout).lines().next().map(str::to_owned)
}

/// Seconds that the oracle has for a program, which it executes in a few.
const LIMIT: &str = "300";

/// A folder in memory, if there is one.
fn folder() -> PathBuf {
    let shm = Path::new("/dev/shm");
    env::var_os("ARMLET_CONFORM_FOLDER")
        .map_or_else(|| if shm.is_dir() { shm.to_owned() } else { env::temp_dir() }, PathBuf::from)
}

/// A file that is gone when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(kind: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(folder().join(format!("armlet-conform-{}-{number}-{kind}", process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if env::var_os("ARMLET_CONFORM_KEEP").is_none() {
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// Runs the cases and returns their states afterwards.
///
/// # Errors
/// The program cannot be written or run, or ended otherwise than it should.
pub fn execute(model: &str, features: &FeatureSet, cases: &[Case], code: &[u8]) -> Result<Vec<Record>> {
    let (image, records) = (Temporary::new("program"), Temporary::new("records"));
    let mut data = write(&image, &records, cases, code)
        .with_context(|| format!("cannot write the test program {}", image.0.display()))?;
    run(words(model, features), &image.0.to_string_lossy(), data.try_clone()?)?;
    let mut bytes = Vec::new();
    data.rewind()?;
    data.read_to_end(&mut bytes).context("cannot read the test program's records")?;
    let from = (program::record_address(0) - program::DATA) as usize;
    let records = bytes.get(from..from + cases.len() * record::SIZE).context("the records are cut off")?;
    Ok(records.chunks(record::SIZE).map(Record::from_bytes).collect())
}

fn write(image: &Temporary, records: &Temporary, cases: &[Case], code: &[u8]) -> Result<File> {
    let mut f = File::create(&image.0)?;
    f.write_all(&program::elf(code))?;
    f.set_permissions(fs::Permissions::from_mode(0o755))?;
    let mut data = File::options().read(true).write(true).create_new(true).open(&records.0)?;
    data.write_all(&program::data(cases))?;
    data.rewind()?;
    Ok(data)
}

fn run(mut words: Vec<String>, path: &str, records: File) -> Result<()> {
    match words.iter_mut().find(|w| w.contains("PROGRAM")) {
        Some(w) => *w = w.replace("PROGRAM", path),
        None => words.push(path.to_owned()),
    }
    let (first, rest) = words.split_first().context("the command in ARMLET_QEMU_USER is empty")?;
    // A program that a wrong instruction leads astray may not come to an end.
    let status = Command::new("timeout")
        .args(["--kill-after=5", LIMIT, first])
        .args(rest)
        .stdin(records)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{first}`; run `cargo xtask setup`"))?;
    if !status.success() {
        bail!("`{}` ended with {status}", words.join(" "));
    }
    Ok(())
}
