//! Errors, each one line that names the cause and the mend.

use std::path::PathBuf;

use thiserror::Error;

use crate::recording::RecordingError;
use crate::spec;

/// What helps against a refusal of memory.
fn more_memory(source: &std::io::Error) -> &'static str {
    match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
            "raise the limit on open files (ulimit -n)"
        }
        _ => "give less with --memory",
    }
}

/// Bytes as people write them: `512M`, `2G`, or the number if it is not round.
pub fn size(bytes: u64) -> String {
    match bytes {
        b if b != 0 && b.is_multiple_of(1 << 30) => format!("{}G", b >> 30),
        b if b != 0 && b.is_multiple_of(1 << 20) => format!("{}M", b >> 20),
        b if b != 0 && b.is_multiple_of(1 << 10) => format!("{}K", b >> 10),
        1 => "1 byte".into(),
        b => format!("{b} bytes"),
    }
}

/// Why a description of a machine is not one that can be built.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum ConfigError {
    #[error("unknown machine '{0}': the machine is 'virt'")]
    UnknownMachine(String),
    #[error("a machine needs at least one CPU: give --smp 1 or more")]
    NoCpus,
    #[error("{0} CPUs are more than the interrupt controller takes: give --smp {max} or less", max = spec::MAX_CPUS)]
    TooManyCpus(usize),
    #[error("{smp} CPUs at the start, but room for {max}: give --smp {smp},max={smp} or more")]
    FewerPlacesThanCpus { smp: usize, max: usize },
    #[error(transparent)]
    Topology(#[from] crate::topology::TopologyError),
    #[error("memory of 0: give --memory 1G, or at least {min}", min = size(spec::MIN_MEMORY))]
    MemoryZero,
    #[error("memory of {} is too small: give --memory {min} or more", size(*asked), min = size(spec::MIN_MEMORY))]
    MemoryTooSmall { asked: u64 },
    #[error("memory of {} is not a multiple of {align}: give --memory {}", size(*asked), size(*near), align = size(spec::MEMORY_ALIGN))]
    MemoryMisaligned { asked: u64, near: u64 },
    #[error("memory of {} is more than this host's {} MiB: give less with --memory", size(*asked), host >> 20)]
    MemoryTooLarge { asked: u64, host: u64 },
    #[error("memory of {} ends beyond the {bits}-bit physical addresses of CPU '{cpu}': give less with --memory or another --cpu", size(*asked))]
    MemoryBeyondCpu { asked: u64, bits: u32, cpu: String },
    #[error("the host refuses {} of memory for the guest ({source}): {}", size(*asked), more_memory(source))]
    MemoryRefused { asked: u64, source: std::io::Error },
    #[error("{0} virtio devices, but the machine has {slots} slots: leave some out, or put disks on PCI Express (bus=pci)", slots = spec::VIRTIO_MMIO_SLOTS)]
    TooManyDevices(usize),
    #[error("{0} disks on PCI Express, which has room for {room}: leave some out, or put them into slots (bus=mmio)", room = spec::PCIE_FUNCTIONS)]
    TooManyFunctions(usize),
    #[error(transparent)]
    Cpu(#[from] armlet_arm::model::ModelError),
    #[error("the board cannot be wired ({0}): this is a fault of this program, please report it")]
    Wiring(String),
    #[error("{0}")]
    Engine(#[from] armlet_engine::EngineError),
    #[error("{what} cannot be made by the host ({source}): free some memory or raise the limit on threads")]
    Host { what: &'static str, source: std::io::Error },
    #[error("'{path}', which perf reads, cannot be made ({source}): check the permissions of its folder, or use perf=off", path = path.display())]
    PerfMap { path: PathBuf, source: std::io::Error },
    #[error("no KVM here: {why}; or use --accel jit")]
    NoKvm { why: String },
    #[error(
        "the CPU of --accel jit cannot be 'host': it is for --accel kvm on an arm64 host; name a model (see `armlet cpus`)"
    )]
    HostCpu,
    #[error(
        "programs cannot call the host (semihosting) with --accel kvm: use --semihosting off, or --accel jit"
    )]
    SemihostingWithKvm,
    #[error("{0}")]
    Kvm(#[from] armlet_accel_kvm::KvmError),
    #[error("unknown option '{option}' of --accel {accel}: {known}")]
    AcceleratorOption { accel: &'static str, option: String, known: String },
    #[error("option '{option}' of --accel {accel} cannot be '{value}': it is one of {known}")]
    AcceleratorValue { accel: &'static str, option: String, value: String, known: String },
    #[error("{0}")]
    Accelerator(String),
    #[error("option '{option}' of --accel jit is for CPUs that share one thread: add thread=single")]
    NeedsSingleThread { option: String },
    #[error("{option} needs a machine that does the same in every run: add --accel jit,thread=single")]
    NeedsDeterminism { option: &'static str },
    #[error("--record and --replay cannot be used together: leave one out")]
    RecordAndReplay,
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error(transparent)]
    Restore(Box<crate::saved::RestoreError>),
    #[error("--restore cannot be used with --record or --replay: leave one out")]
    RestoreAndRecording,
    #[error(transparent)]
    Drive(#[from] armlet_storage::StorageError),
    #[error(
        "the kernel wants {kernel} pages, which CPU '{cpu}' does not have: choose another with --cpu, or a kernel built for 4K pages"
    )]
    PageSize { kernel: &'static str, cpu: String },
    #[error(transparent)]
    Boot(#[from] BootError),
}

/// Why a vCPU cannot be plugged or unplugged.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum PlugError {
    #[error("there is no place for CPU {cpu}: this machine has {places}, 0 to {last}; start it with --smp N,max=M for more", last = places - 1)]
    NoPlace { cpu: usize, places: usize },
    #[error("CPU {0} is there already: choose another place")]
    Present(usize),
    #[error("CPU {0} is not there: choose one that is")]
    Absent(usize),
    #[error("CPU {0} boots the machine and stays: choose another")]
    Boot(usize),
    #[error("a machine that is recorded or replayed keeps its CPUs: run it without --record and --replay")]
    Recorded,
    #[error(
        "the host's kernel decides which CPUs are on, so none can come or go: use Linux 6.4 or later on the host"
    )]
    KeptByHost,
    #[error(
        "CPU {0} is on: take it offline in the guest first (Linux: echo 0 > /sys/devices/system/cpu/cpu{0}/online)"
    )]
    On(usize),
    #[error("{0}")]
    Engine(#[from] armlet_engine::EngineError),
}

/// Why what was given to boot cannot be booted.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum BootError {
    #[error("{what} '{}' cannot be read ({source}): check the path and its permissions", path.display())]
    Open { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what} '{}' is a {kind}: give a file", path.display())]
    NotAFile { what: &'static str, path: PathBuf, kind: &'static str },
    #[error("{what} '{}' is empty: give a file with contents", path.display())]
    Empty { what: &'static str, path: PathBuf },
    #[error("kernel '{}' is truncated ({why}): copy or download it again", path.display())]
    Truncated { path: PathBuf, why: String },
    #[error("kernel '{}' is damaged ({why}): copy, download or build it again", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("kernel '{}' is {found}, not for arm64: give an arm64 Linux Image or an AArch64 ELF file", path.display())]
    NotArm64 { path: PathBuf, found: String },
    #[error("kernel '{}' is no kernel known here: give an arm64 Linux Image or an AArch64 ELF file", path.display())]
    NotAKernel { path: PathBuf },
    #[error("kernel '{}' is big-endian, which no CPU here boots: give a little-endian one", path.display())]
    BigEndian { path: PathBuf },
    #[error("kernel '{}' is compressed with {method}, which is not supported: unpack it first", path.display())]
    Compression { path: PathBuf, method: String },
    #[error("{what} '{}' does not fit: it needs memory up to {} MiB of RAM, the guest has {}; give --memory {}", path.display(), needed.div_ceil(1 << 20), size(*memory), size(suggest(*needed)))]
    DoesNotFit { what: &'static str, path: PathBuf, needed: u64, memory: u64 },
    #[error("ELF '{}' loads at {address:#x}, where there is no RAM: link it at {:#x} or above", path.display(), spec::RAM_BASE)]
    ElfOutsideRam { path: PathBuf, address: u64 },
    #[error("an initrd was given, but '{}' is a bare-metal ELF file: leave --initrd out", path.display())]
    InitrdWithElf { path: PathBuf },
    #[error("an initrd was given without a kernel: add --kernel")]
    InitrdWithoutKernel,
    #[error("device tree '{}' is not one ({why}): give a .dtb made by dtc", path.display())]
    BadDtb { path: PathBuf, why: String },
    #[error("device tree '{}' is {} long, more than the 2M that Linux takes: make it smaller", path.display(), size(*len))]
    DtbTooLarge { path: PathBuf, len: u64 },
    #[error("the kernel command line has a NUL character or is over {max} bytes long: shorten --append", max = MAX_COMMAND_LINE)]
    CommandLine,
    #[error("the device tree cannot be made: {0}")]
    DeviceTree(String),
}

/// Longest kernel command line in bytes: arm64's `COMMAND_LINE_SIZE`, less the NUL.
pub const MAX_COMMAND_LINE: usize = 2047;

fn suggest(needed: u64) -> u64 {
    needed.next_power_of_two().max(64 << 20)
}

impl From<crate::saved::RestoreError> for ConfigError {
    fn from(e: crate::saved::RestoreError) -> Self {
        Self::Restore(Box::new(e))
    }
}
