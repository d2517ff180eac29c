//! What a saved machine says of itself, and the comparison with the one that is to go on from it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use armlet_arm::CpuModel;
use armlet_arm::id::IdReg;
use armlet_arm::model::PORTABLE;
use armlet_saved::{SavedDrive, SavedFile, SavedMachine};

use super::{RestoreError, SaveError};
use crate::boot::Boot;
use crate::config::{
    BootConfig, Bus, ConsoleDevice, CpuConfig, DriveConfig, DriveFormat, MachineConfig, OnReset, Semihosting,
};
use crate::error::size;
use crate::recording::{on_off, sampled, shown};
use crate::topology::{Topology, TopologyConfig};

/// What `config`'s machine says of itself.
///
/// # Errors
/// A file that it was made from can no longer be read.
pub(super) fn describe(
    config: &MachineConfig,
    model: &CpuModel,
    topology: &Topology,
    boot: &Boot,
    running: bool,
) -> Result<SavedMachine, SaveError> {
    let digests = boot.digests()?;
    let file = |path: &Option<PathBuf>, digest| SavedFile { path: path.as_deref().map(absolute), digest };
    let named = |path: &Option<PathBuf>, digest: Option<String>| digest.map(|digest| file(path, digest));
    let Topology { sockets, clusters, cores, threads } = *topology;
    Ok(SavedMachine {
        program: concat!("armlet ", env!("CARGO_PKG_VERSION")).into(),
        board: config.machine.clone(),
        cpu: config.cpu.model.clone(),
        features: features(config, model),
        id_registers: id_registers(model),
        cpus: config.smp as u32,
        topology: [sockets, clusters, cores, threads].map(|count| count as u32),
        memory: config.memory,
        console: console(config.console).into(),
        semihosting: semihosting(config.semihosting).into(),
        entropy: config.entropy,
        no_reboot: config.on_reset == OnReset::PowerOff,
        kernel: file(&config.boot.kernel, digests.kernel),
        initrd: named(&config.boot.initrd, digests.initrd),
        dtb: named(&config.boot.dtb, digests.dtb),
        append: config.boot.append.clone(),
        kaslr: config.boot.kaslr,
        drives: config.drives.iter().map(describe_drive).collect::<Result<_, _>>()?,
        running,
    })
}

/// Those that were asked for, and the one that comes with KVM.
fn features(config: &MachineConfig, model: &CpuModel) -> Vec<(String, bool)> {
    let mut features = config.cpu.features.clone();
    if model.is_portable() && !features.iter().any(|(name, _)| name == PORTABLE) {
        features.push((PORTABLE.into(), true));
    }
    features
}

fn describe_drive(drive: &DriveConfig) -> Result<SavedDrive, SaveError> {
    let failed = |source| SaveError::Write { path: drive.file.clone(), source };
    let metadata = std::fs::metadata(&drive.file).map_err(failed)?;
    Ok(SavedDrive {
        path: absolute(&drive.file),
        raw: drive.format.is_some(),
        readonly: drive.readonly,
        digest: sampled(&drive.file)?,
        file: inode(&metadata),
        written: (metadata.mtime(), metadata.mtime_nsec()),
        pci: drive.bus == Bus::Pci,
    })
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

fn id_registers(model: &CpuModel) -> Vec<(String, u64)> {
    let named = IdReg::NAMED.iter().map(|(reg, name)| ((*name).to_owned(), model.ids().get(*reg)));
    // Guests remember these as well: the sizes of caches' lines and of DC ZVA.
    let others = [
        ("MIDR_EL1", model.midr()),
        ("CTR_EL0", model.ctr()),
        ("CLIDR_EL1", model.clidr()),
        ("DCZID_EL0", model.dczid()),
    ];
    others.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(named).collect()
}

const fn console(console: ConsoleDevice) -> &'static str {
    match console {
        ConsoleDevice::Uart => "uart",
        ConsoleDevice::Virtio => "virtio",
    }
}

const fn semihosting(semihosting: Semihosting) -> &'static str {
    match semihosting {
        Semihosting::Auto => "auto",
        Semihosting::On => "on",
        Semihosting::Off => "off",
    }
}

/// A description of the machine that was saved, from which one can be made that goes on.
///
/// # Errors
/// It has something that no machine of this program has.
pub(crate) fn config_of(saved: &SavedMachine, path: &Path) -> Result<MachineConfig, RestoreError> {
    let strange = |what: &str| RestoreError::Contents { path: path.into(), what: what.into() };
    let places = saved.topology.iter().try_fold(1_u32, |all, level| all.checked_mul(*level));
    let places = places.ok_or_else(|| strange("its CPUs cannot be arranged so"))?;
    let [sockets, clusters, cores, threads] = saved.topology.map(|level| Some(level as usize));
    let console =
        [ConsoleDevice::Uart, ConsoleDevice::Virtio].into_iter().find(|c| console(*c) == saved.console);
    let host = [Semihosting::Auto, Semihosting::On, Semihosting::Off];
    let host = host.into_iter().find(|s| semihosting(*s) == saved.semihosting);
    let path_of =
        |file: &Option<SavedFile>| file.as_ref().and_then(|file| file.path.clone()).map(PathBuf::from);
    let drive = |drive: &SavedDrive| DriveConfig {
        file: drive.path.clone().into(),
        format: drive.raw.then_some(DriveFormat::Raw),
        readonly: drive.readonly,
        snapshot: false,
        bus: if drive.pci { Bus::Pci } else { Bus::Mmio },
    };
    Ok(MachineConfig {
        machine: saved.board.clone(),
        cpu: CpuConfig { model: saved.cpu.clone(), features: saved.features.clone() },
        smp: saved.cpus as usize,
        max_cpus: Some(places as usize),
        topology: TopologyConfig { sockets, clusters, cores, threads },
        memory: saved.memory,
        boot: BootConfig {
            kernel: saved.kernel.path.clone().map(PathBuf::from),
            initrd: path_of(&saved.initrd),
            dtb: path_of(&saved.dtb),
            append: saved.append.clone(),
            kaslr: saved.kaslr,
        },
        drives: saved.drives.iter().map(drive).collect(),
        entropy: saved.entropy,
        console: console.ok_or_else(|| strange("its console is none that is known"))?,
        semihosting: host.ok_or_else(|| strange("its semihosting is none that is known"))?,
        on_reset: if saved.no_reboot { OnReset::PowerOff } else { OnReset::Restart },
        restore: Some(path.into()),
        ..MachineConfig::default()
    })
}

/// A property that two machines have in common or not: its name, and its values then and now.
type Property = (String, String, String);

/// Checks that the machine `here`, of `model`, is the one that was `saved` at `path`.
///
/// # Errors
/// The first difference; a drive that was written to since.
pub(super) fn compare(
    path: &Path,
    saved: &SavedMachine,
    here: &SavedMachine,
    drives: &[DriveConfig],
) -> Result<(), RestoreError> {
    let differs = |(what, then, now): Property| RestoreError::OtherMachine {
        path: path.into(),
        mend: mend(&what, &then),
        what,
        saved: format!("'{}'", shown(&then)),
        here: format!("'{}'", shown(&now)),
    };
    if let Some(property) = properties(saved, here).into_iter().find(|(_, then, now)| then != now) {
        return Err(differs(property));
    }
    for (number, (then, now)) in saved.drives.iter().zip(&here.drives).enumerate() {
        let changed = || RestoreError::DriveChanged { number, drive: drives[number].file.clone() };
        // The same file has changed if it was written to; another one if it holds something else.
        if then.file == now.file && then.written != now.written && !then.readonly {
            return Err(changed());
        }
        let size = |drive: &SavedDrive| drive.digest.split(',').next().unwrap_or_default().to_owned();
        if size(then) != size(now) {
            return Err(differs((format!("the size of drive {number}"), size(then), size(now))));
        }
        if then.digest != now.digest {
            return Err(changed());
        }
    }
    Ok(())
}

/// All that the guest can tell apart, but for what drives hold.
fn properties(saved: &SavedMachine, here: &SavedMachine) -> Vec<Property> {
    let mut all = Vec::new();
    let mut put = |name: &str, of: &dyn Fn(&SavedMachine) -> String| {
        all.push((name.to_owned(), of(saved), of(here)));
    };
    put("--machine", &|m| m.board.clone());
    put("--memory", &|m| size(m.memory));
    put("--smp", &|m| {
        let [sockets, clusters, cores, threads] = m.topology;
        let places = m.topology.iter().fold(1_u64, |all, level| all.saturating_mul(u64::from(*level)));
        let levels = format!("sockets={sockets},clusters={clusters},cores={cores},threads={threads}");
        format!("{},max={places},{levels}", m.cpus)
    });
    put("--console", &|m| m.console.clone());
    put("--semihosting", &|m| m.semihosting.clone());
    put("the entropy device", &|m| on_off(m.entropy));
    put("--kaslr", &|m| on_off(m.kaslr));
    put("--append", &|m| m.append.clone());
    put("--kernel", &|m| m.kernel.digest.clone());
    let digest = |file: &Option<SavedFile>| file.as_ref().map_or_else(|| "none".into(), |f| f.digest.clone());
    put("--initrd", &|m| digest(&m.initrd));
    put("--dtb", &|m| digest(&m.dtb));
    put("the number of drives", &|m| m.drives.len().to_string());
    for number in 0..saved.drives.len().min(here.drives.len()) {
        put(&format!("readonly of drive {number}"), &|m| on_off(m.drives[number].readonly));
        let bus = |m: &SavedMachine| if m.drives[number].pci { Bus::Pci } else { Bus::Mmio };
        put(&format!("the bus of drive {number}"), &|m| bus(m).name().into());
    }
    for (name, _) in &here.id_registers {
        let value = |m: &SavedMachine| {
            let found = m.id_registers.iter().find(|(n, _)| n == name);
            found.map_or_else(|| "none".into(), |(_, value)| format!("{value:#x}"))
        };
        put(&format!("{name} of the CPU"), &value);
    }
    all
}

/// What to do about a difference.
fn mend(name: &str, saved: &str) -> String {
    match name {
        "--kernel" | "--initrd" | "--dtb" => "give the file that the machine was started with".into(),
        "--kaslr" if saved == "on" => format!("add {name}"),
        "--kaslr" => format!("leave {name} out"),
        "--append" => "leave --append out".into(),
        _ if name.ends_with("of the CPU") => {
            "leave --cpu out, and choose an --accel that can run that CPU".into()
        }
        _ if name.starts_with("--") => format!("leave {name} out, or give {name} {saved}"),
        _ if name.contains("drive") => "leave --drive out, or give the same drives".into(),
        _ => "give what it was saved with".into(),
    }
}
