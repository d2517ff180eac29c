//! What a machine is made of, as plain data.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cpu;
use crate::error::ConfigError;
use crate::spec;
use crate::topology::{Topology, TopologyConfig};

/// A machine, described. [`crate::Machine::new`] checks it and builds the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MachineConfig {
    /// Name of the board; `virt` is the only one.
    pub machine: String,
    /// CPU model and changes to it.
    pub cpu: CpuConfig,
    /// Number of vCPUs at the start.
    pub smp: usize,
    /// Number of vCPUs that there may be, with those that are plugged later; `None`: no more than `smp`. The
    /// guest sees places for so many from the start.
    pub max_cpus: Option<usize>,
    /// How the CPUs are arranged, those that are plugged later among them.
    pub topology: TopologyConfig,
    /// RAM in bytes.
    pub memory: u64,
    /// What executes guest code.
    pub accelerator: AcceleratorConfig,
    /// What to boot.
    pub boot: BootConfig,
    /// Disks, in the order of their virtio slots.
    pub drives: Vec<DriveConfig>,
    /// Adds a virtio entropy device.
    pub entropy: bool,
    /// Where what is typed goes.
    pub console: ConsoleDevice,
    /// Who may use semihosting.
    pub semihosting: Semihosting,
    /// What a guest's request to reset the machine does.
    pub on_reset: OnReset,
    /// Counts also what costs time to count.
    pub count: bool,
    /// File to note in what comes to the guest from outside, so that the run can be repeated. Only with
    /// `thread=single` among the accelerator's options.
    pub record: Option<PathBuf>,
    /// Such a file, of a machine like this one, whose run is to be repeated.
    pub replay: Option<PathBuf>,
    /// A saved machine like this one, which this one is to go on from ([`MachineConfig::of_saved`]).
    pub restore: Option<PathBuf>,
    /// Samples where guest code executes, for [`Machine::profile`](crate::Machine::profile).
    pub profile: bool,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            machine: "virt".into(),
            cpu: CpuConfig::default(),
            smp: 1,
            max_cpus: None,
            topology: TopologyConfig::default(),
            memory: 1 << 30,
            accelerator: AcceleratorConfig::default(),
            boot: BootConfig::default(),
            drives: Vec::new(),
            entropy: true,
            console: ConsoleDevice::Uart,
            semihosting: Semihosting::Auto,
            on_reset: OnReset::Restart,
            count: false,
            record: None,
            replay: None,
            restore: None,
            profile: false,
        }
    }
}

/// A CPU model and changes to its features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CpuConfig {
    /// Name of the model, as `armlet cpus` lists it; `host`: the host's own, with KVM; `default`: that, or `neoverse-n1`.
    pub model: String,
    /// Features switched on or off, in order.
    pub features: Vec<(String, bool)>,
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self { model: cpu::DEFAULT.into(), features: Vec::new() }
    }
}

/// Which accelerator to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceleratorKind {
    /// The best that the host has.
    #[default]
    Auto,
    /// The host's virtualisation extension.
    Kvm,
    /// The just-in-time translator.
    Jit,
    /// Executes nothing; for tests of devices.
    Dummy,
}

impl AcceleratorKind {
    /// Name as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Jit => "jit",
            Self::Dummy => "dummy",
        }
    }
}

/// An accelerator and its options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AcceleratorConfig {
    /// Which one.
    pub kind: AcceleratorKind,
    /// Options as name and value.
    pub options: Vec<(String, String)>,
}

impl AcceleratorConfig {
    /// The value of an option; the last one, if it is given twice.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// What the machine boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BootConfig {
    /// Linux `Image` (plain, gzip'd or EFI zboot) or ELF file. Without one, the built-in demonstration runs.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Device tree to pass instead of the generated one.
    pub dtb: Option<PathBuf>,
    /// Kernel command line.
    pub append: String,
    /// Gives the kernel a seed for randomising its address. Linux then also isolates its page tables, which
    /// costs speed.
    pub kaslr: bool,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DriveConfig {
    /// The image file or block device.
    pub file: PathBuf,
    /// Format of the image. Never guessed from its contents, which the guest controls; without one it is raw,
    /// and an image that looks like another format is refused.
    #[serde(default)]
    pub format: Option<DriveFormat>,
    /// The guest cannot write.
    #[serde(default)]
    pub readonly: bool,
    /// Writes go to a temporary layer that is thrown away at the end.
    #[serde(default)]
    pub snapshot: bool,
    /// Where its device sits.
    #[serde(default)]
    pub bus: Bus,
}

impl DriveConfig {
    /// The disk in `file`, with everything as if nothing had been said of it.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), format: None, readonly: false, snapshot: false, bus: Bus::Mmio }
    }
}

/// Where a virtio device sits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// In a slot of the board (virtio-mmio).
    #[default]
    Mmio,
    /// On PCI Express (virtio-pci), which the machine has only if something sits there.
    Pci,
}

impl Bus {
    /// Name as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mmio => "mmio",
            Self::Pci => "pci",
        }
    }
}

/// Format of a disk image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriveFormat {
    /// The bytes of the disk, one after the other.
    #[default]
    Raw,
}

/// The device that the terminal belongs to. Output of both is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleDevice {
    /// The PL011 UART (`ttyAMA0`).
    #[default]
    Uart,
    /// A virtio console (`hvc0`), which also learns the terminal's size.
    Virtio,
}

/// Who may use semihosting calls (`HLT #0xf000`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Semihosting {
    /// Bare-metal ELF programs may, Linux may not.
    #[default]
    Auto,
    /// Every guest may.
    On,
    /// No guest may; the instruction is undefined.
    Off,
}

/// What a guest's request to reset the machine does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReset {
    /// The machine starts again.
    #[default]
    Restart,
    /// The machine ends as if it had been powered off.
    PowerOff,
}

impl MachineConfig {
    /// The machine that was saved at `path`, with what it was started with, to go on from there. Where its files are and
    /// what executes it may be changed; what its guest can tell apart may not.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub fn of_saved(path: &Path) -> Result<Self, ConfigError> {
        let source = crate::saved::Source::open(path)?;
        Ok(crate::saved::config_of(&source.machine, path)?)
    }

    /// Checks what can be checked without opening files.
    ///
    /// # Errors
    /// The first thing wrong, with its mend.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.machine != "virt" {
            return Err(ConfigError::UnknownMachine(self.machine.clone()));
        }
        match self.smp {
            0 => return Err(ConfigError::NoCpus),
            n if n.max(self.places()) > spec::MAX_CPUS => {
                return Err(ConfigError::TooManyCpus(n.max(self.places())));
            }
            smp if smp > self.places() => {
                return Err(ConfigError::FewerPlacesThanCpus { smp, max: self.places() });
            }
            _ => {}
        }
        self.topology()?;
        self.check_memory(host_memory())?;
        let (slots, functions) = (self.virtio_slots(), self.pci_functions());
        if slots > spec::VIRTIO_MMIO_SLOTS {
            return Err(ConfigError::TooManyDevices(slots));
        }
        if functions > spec::PCIE_FUNCTIONS {
            return Err(ConfigError::TooManyFunctions(functions));
        }
        Ok(())
    }

    /// Number of places for vCPUs.
    pub fn places(&self) -> usize {
        self.max_cpus.unwrap_or(self.smp)
    }

    /// How the places for vCPUs are arranged.
    ///
    /// # Errors
    /// They cannot be arranged as `topology` asks.
    pub fn topology(&self) -> Result<Topology, ConfigError> {
        Ok(self.topology.resolve(self.smp, self.places())?)
    }

    /// Number of virtio devices in the board's slots.
    pub(crate) fn virtio_slots(&self) -> usize {
        let console = self.console == ConsoleDevice::Virtio;
        self.drives_on(Bus::Mmio) + usize::from(self.entropy) + usize::from(console)
    }

    /// Number of functions on PCI Express; without any there is none.
    pub(crate) fn pci_functions(&self) -> usize {
        self.drives_on(Bus::Pci)
    }

    fn drives_on(&self, bus: Bus) -> usize {
        self.drives.iter().filter(|drive| drive.bus == bus).count()
    }

    fn check_memory(&self, host: Option<u64>) -> Result<(), ConfigError> {
        let asked = self.memory;
        if asked == 0 {
            return Err(ConfigError::MemoryZero);
        }
        if asked < spec::MIN_MEMORY {
            return Err(ConfigError::MemoryTooSmall { asked });
        }
        if let Some(host) = host.filter(|host| asked > *host) {
            return Err(ConfigError::MemoryTooLarge { asked, host });
        }
        if !asked.is_multiple_of(spec::MEMORY_ALIGN) {
            let down = asked / spec::MEMORY_ALIGN * spec::MEMORY_ALIGN;
            return Err(ConfigError::MemoryMisaligned { asked, near: down.max(spec::MIN_MEMORY) });
        }
        Ok(())
    }
}

/// Bytes of RAM that the host has, if it tells.
pub fn host_memory() -> Option<u64> {
    let info = rustix::system::sysinfo();
    #[allow(clippy::unnecessary_cast, reason = "the field's width differs between hosts")]
    (info.totalram as u64).checked_mul(u64::from(info.mem_unit.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_sizes_and_counts_are_refused_with_the_mend() {
        let base = MachineConfig::default();
        assert!(base.check().is_ok());
        let with = |f: &dyn Fn(&mut MachineConfig)| {
            let mut c = base.clone();
            f(&mut c);
            c.check().unwrap_err()
        };
        assert!(matches!(with(&|c| c.memory = 0), ConfigError::MemoryZero));
        assert!(matches!(with(&|c| c.memory = 1 << 20), ConfigError::MemoryTooSmall { .. }));
        assert!(matches!(
            with(&|c| c.memory = (64 << 20) + 4096),
            ConfigError::MemoryMisaligned { near: 0x400_0000, .. }
        ));
        assert!(matches!(with(&|c| c.memory = 1 << 60), ConfigError::MemoryTooLarge { .. }));
        assert!(matches!(with(&|c| c.smp = 0), ConfigError::NoCpus));
        assert!(matches!(with(&|c| c.smp = 513), ConfigError::TooManyCpus(513)));
        assert!(matches!(with(&|c| c.max_cpus = Some(513)), ConfigError::TooManyCpus(513)));
        assert!(matches!(
            with(&|c| c.max_cpus = Some(0)),
            ConfigError::FewerPlacesThanCpus { smp: 1, max: 0 }
        ));
        assert!(matches!(with(&|c| c.topology.threads = Some(2)), ConfigError::Topology(_)));
        assert!(matches!(with(&|c| c.machine = "raspi4".into()), ConfigError::UnknownMachine(_)));
        let mut drive = DriveConfig::new("x");
        assert!(matches!(with(&|c| c.drives = vec![drive.clone(); 32]), ConfigError::TooManyDevices(33)));
        drive.bus = Bus::Pci;
        assert!(matches!(with(&|c| c.drives = vec![drive.clone(); 32]), ConfigError::TooManyFunctions(32)));
    }
}
