//! What identifies a machine: everything that its guest can tell apart.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Identity, RecordingError};
use crate::boot::{Boot, KernelKind};
use crate::config::{MachineConfig, OnReset, Semihosting};
use crate::error::{BootError, size};
use crate::pace::PaceOptions;
use crate::topology::Topology;

const VERSION: &str = "the version of armlet";
/// How much is read at a time.
const CHUNK: usize = 64 << 10;
/// Of a disk: so many pieces of this size, spread over it.
const SAMPLES: u64 = 256;
const SAMPLE: u64 = 4096;
/// Digits of a digest that are kept.
const DIGITS: usize = 32;
/// Longest value that an error shows in full.
const SHOWN: usize = 80;

/// Checks that no drive keeps what the guest writes.
///
/// # Errors
/// [`RecordingError::WritableDrive`].
pub(crate) fn check_drives(config: &MachineConfig) -> Result<(), RecordingError> {
    match config.drives.iter().find(|drive| !drive.readonly && !drive.snapshot) {
        Some(drive) => Err(RecordingError::WritableDrive { path: drive.file.clone() }),
        None => Ok(()),
    }
}

/// What identifies the machine that `config` describes.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn identify(
    config: &MachineConfig,
    pace: &PaceOptions,
    topology: &Topology,
    boot: &Boot,
) -> Result<Identity, RecordingError> {
    let mut all = Identity::new();
    let mut put = |name: &str, value: String| all.push((name.to_owned(), value));
    put(VERSION, env!("CARGO_PKG_VERSION").into());
    put("--machine", config.machine.clone());
    put("--cpu", cpu(config));
    let Topology { sockets, clusters, cores, threads } = topology;
    let levels = format!("sockets={sockets},clusters={clusters},cores={cores},threads={threads}");
    put("--smp", format!("{},max={},{levels}", config.smp, config.places()));
    put("--memory", size(config.memory));
    put("--accel jit,thread=single,icount=", pace.shift.to_string());
    let strict = config.accelerator.value("smc") == Some("strict");
    put("--accel jit,thread=single,smc=", if strict { "strict" } else { "fast" }.into());
    put("--console", format!("{:?}", config.console).to_lowercase());
    put("--semihosting", format!("{:?}", config.semihosting).to_lowercase());
    put("--no-reboot", on_off(config.on_reset == OnReset::PowerOff));
    put("--kaslr", on_off(config.boot.kaslr));
    put("the entropy device", on_off(config.entropy));
    put("--append", config.boot.append.clone());
    let digests = boot.digests()?;
    put("--kernel", digests.kernel);
    if tells_name(config, boot) {
        put("the kernel's file name", name_of(boot.kernel().path()));
    }
    put("--initrd", digests.initrd.unwrap_or_else(none));
    put("--dtb", digests.dtb.unwrap_or_else(none));
    put("the number of drives", config.drives.len().to_string());
    for (n, drive) in config.drives.iter().enumerate() {
        // The guest reads it as the disk's serial number.
        put(&format!("drive {n}'s file name"), name_of(&drive.file));
        put(&format!("drive {n}'s mode"), if drive.readonly { "readonly" } else { "snapshot" }.into());
        put(&format!("drive {n}'s bus"), drive.bus.name().into());
        put(&format!("drive {n}"), sampled(&drive.file)?);
    }
    Ok(all)
}

/// Checks that the recording at `path`, of the machine `recorded`, is of the machine `here`.
///
/// # Errors
/// The first difference.
pub(crate) fn compare(path: &Path, recorded: &Identity, here: &Identity) -> Result<(), RecordingError> {
    let value = |identity: &Identity, name: &str| {
        identity.iter().find(|(n, _)| n == name).map_or_else(none, |(_, value)| value.clone())
    };
    for (name, _) in recorded.iter().chain(here) {
        let (then, now) = (value(recorded, name), value(here, name));
        if then != now {
            return Err(RecordingError::OtherMachine {
                path: path.into(),
                what: shown(name),
                mend: mend(name, &shown(&then)),
                recorded: quoted(&then),
                here: quoted(&now),
            });
        }
    }
    Ok(())
}

/// What to do about a difference.
fn mend(name: &str, recorded: &str) -> String {
    match name {
        VERSION => "replay it with that version".into(),
        "--kernel" | "--initrd" | "--dtb" => "give the file that it was recorded with".into(),
        "--no-reboot" | "--kaslr" if recorded == "on" => format!("add {name}"),
        "--no-reboot" | "--kaslr" => format!("leave {name} out"),
        "--append" => "give the same --append".into(),
        _ if name.starts_with("--accel") => format!("give {name}{recorded}"),
        _ if name.starts_with("--") => format!("give {name} {recorded}"),
        _ if name.contains("drive") => "give the same --drive options and images".into(),
        _ => "give what it was recorded with".into(),
    }
}

pub(crate) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

fn quoted(value: &str) -> String {
    format!("'{}'", shown(value))
}

fn none() -> String {
    "none".into()
}

pub(crate) fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.into()
}

fn cpu(config: &MachineConfig) -> String {
    let mut text = config.cpu.model.clone();
    for (name, on) in &config.cpu.features {
        text.push_str(&format!(",{name}={}", on_off(*on)));
    }
    text
}

/// True if the guest can ask for its program's name.
fn tells_name(config: &MachineConfig, boot: &Boot) -> bool {
    let elf = matches!(boot.kernel().kind(), KernelKind::Elf(_));
    match config.semihosting {
        Semihosting::Off => false,
        Semihosting::Auto => elf,
        Semihosting::On => true,
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn text_of(len: u64, digest: Sha256) -> String {
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}, SHA-256 {}", size(len), &hex[..DIGITS])
}

/// Size and digest of the first `len` bytes of `file`.
pub(crate) fn digest(file: &File, len: u64) -> std::io::Result<String> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let want = (len - at).min(CHUNK as u64) as usize;
        file.read_exact_at(&mut buffer[..want], at)?;
        sum.update(&buffer[..want]);
        at += want as u64;
    }
    Ok(text_of(len, sum))
}

/// Size and digest of `bytes`.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    text_of(bytes.len() as u64, Sha256::new_with_prefix(bytes))
}

/// Size of the disk image at `path` and a digest of samples of it, since disks are large.
pub(crate) fn sampled(path: &Path) -> Result<String, RecordingError> {
    let failed = |source| BootError::Open { what: "disk image", path: path.into(), source };
    let read = || {
        use std::io::{Seek, SeekFrom};
        let mut file = File::open(path)?;
        // Also of a block device, whose metadata does not say.
        let len = file.seek(SeekFrom::End(0))?;
        let mut sum = Sha256::new();
        let mut buffer = [0; SAMPLE as usize];
        let step = (len / SAMPLES).max(SAMPLE) / SAMPLE * SAMPLE;
        let last = len.saturating_sub(SAMPLE);
        for at in (0..SAMPLES).map(|n| n * step).take_while(|at| *at < len).chain([last]) {
            let want = (len - at).min(SAMPLE) as usize;
            file.read_exact_at(&mut buffer[..want], at)?;
            sum.update(&buffer[..want]);
        }
        Ok(text_of(len, sum))
    };
    Ok(read().map_err(failed)?)
}
