//! Files that a run writes: that they can be written, and hold nothing that the run reads, is found out before
//! anything is changed.

use std::fs::{Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use armlet::serial::NO_WAIT;

use crate::args::RunArgs;
use crate::parse::Serial;

/// A file and the option that names it.
struct Named<'a> {
    option: &'static str,
    path: &'a Path,
}

fn named<'a>(option: &'static str, path: Option<&'a PathBuf>) -> Option<Named<'a>> {
    path.map(|path| Named { option, path })
}

fn inputs(args: &RunArgs) -> Vec<Named<'_>> {
    let files = [
        named("--kernel", args.kernel.as_ref()),
        named("--initrd", args.initrd.as_ref()),
        named("--dtb", args.dtb.as_ref()),
        named("--replay", args.replay.as_ref()),
        named("--restore", args.restore.as_ref()),
    ];
    let drives = args.drive.iter().map(|d| Named { option: "--drive", path: &d.file });
    let symbols = args.symbols.iter().map(|path| Named { option: "--symbols", path });
    files.into_iter().flatten().chain(drives).chain(symbols).collect()
}

fn outputs(args: &RunArgs) -> Vec<Named<'_>> {
    let console = match &args.serial {
        Serial::File(path) => Some(path),
        _ => None,
    };
    [
        named("--serial", console),
        named("--record", args.record.as_ref()),
        named("--stats", args.stats.as_ref()),
        named("--profile", args.profile.as_ref()),
        named("--dump-dtb", args.dump_dtb.as_ref()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Checks that no file is written that the run reads, or that another option has it write.
///
/// # Errors
/// What to say.
pub fn check_apart(args: &RunArgs) -> Result<(), String> {
    let mut taken = inputs(args);
    for output in outputs(args) {
        if let Some(other) = taken.iter().find(|other| is_same(other.path, output.path)) {
            let (option, path) = (output.option, output.path.display());
            return Err(format!(
                "{option} would overwrite '{path}', which {} names: choose another file",
                other.option
            ));
        }
        taken.push(output);
    }
    Ok(())
}

/// True if both are one regular file, or will be.
fn is_same(a: &Path, b: &Path) -> bool {
    let identity = |m: &Metadata| (m.dev(), m.ino());
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.is_file() && identity(&a) == identity(&b),
        (Err(_), Err(_)) => place(a).is_some_and(|a| Some(a) == place(b)),
        _ => false,
    }
}

/// Where a file that is not there yet would be.
fn place(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(std::fs::canonicalize(folder).ok()?.join(path.file_name()?))
}

/// Checks that the file at `path` can be written later; it is as before when this returns.
///
/// # Errors
/// The host's.
pub fn check_writable(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    // A pipe without a reader, or one that is full, must not hold up the start.
    options.write(true).custom_flags(NO_WAIT);
    match std::fs::metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => Err(std::io::Error::other("it is a socket")),
        Ok(_) => options.open(path).map(drop),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            // A link that leads nowhere is not followed here, and cannot be told from a missing file later.
            options.create_new(true).open(path)?;
            std::fs::remove_file(path)
        }
        Err(e) => Err(e),
    }
}
