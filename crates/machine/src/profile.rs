//! Where the guest spends its time, by the names of its functions.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use armlet_engine::samples::Samples;
use armlet_memory::Ram;
use armlet_profile::{Names, Profile, Symbols};

use crate::boot::{Boot, KernelKind};
use crate::machine::Machine;

/// A period that shares no rhythm with what guests do.
const PERIOD: Duration = Duration::from_micros(1009);

/// For samples of a machine that is to be profiled.
pub(crate) fn samples(wanted: bool) -> Option<Arc<Samples>> {
    wanted.then(|| Arc::new(Samples::new(PERIOD)))
}

/// Where the kernel's own symbols are.
#[derive(Clone, Debug)]
pub(crate) enum KernelSymbols {
    /// In this ELF file.
    File(PathBuf),
    /// In guest memory, where a Linux image of so many bytes was loaded.
    Image { address: u64, size: u64 },
}

impl KernelSymbols {
    pub(crate) fn of(boot: &Boot) -> Self {
        match boot.kernel().kind() {
            KernelKind::Elf(_) => Self::File(boot.kernel().path().into()),
            KernelKind::Linux(image) => {
                Self::Image { address: boot.layout().kernel, size: boot.kernel().linux_size(image) }
            }
        }
    }

    /// Reads them; none if there are none.
    pub(crate) fn read(&self, ram: &Ram) -> Symbols {
        match self {
            Self::File(path) => Symbols::open(path).unwrap_or_default(),
            Self::Image { address, size } => {
                let mut image = vec![0; usize::try_from(*size).unwrap_or_default()];
                match ram.read(*address, &mut image) {
                    Ok(()) => Symbols::of_linux(&image),
                    Err(_) => Symbols::default(),
                }
            }
        }
    }
}

/// Names guest addresses by the kernel's symbols. Those of a Linux image are read when it executes at its virtual
/// addresses for the first time: it has relocated itself by then.
pub(crate) fn name_of(symbols: KernelSymbols, ram: Ram) -> armlet_accel_jit::perf::NameOf {
    let known = OnceLock::new();
    Box::new(move |address, vectors| {
        if matches!(symbols, KernelSymbols::Image { .. }) && address >> 63 == 0 {
            return Names::default().name(address, 0);
        }
        let (names, linked) = known.get_or_init(|| {
            let names = Names { kernel: symbols.read(&ram), files: Vec::new() };
            let linked = names.vectors();
            (names, linked)
        });
        names.name(address, linked.map_or(0, |linked| vectors.wrapping_sub(linked)))
    })
}

impl Machine {
    /// The profile of the run so far, if [`MachineConfig::profile`](crate::MachineConfig::profile) asked for one;
    /// `files` have symbols besides the kernel's own. The samples are taken away.
    pub fn profile(&self, files: Vec<Symbols>) -> Option<Profile> {
        let shared = self.shared();
        let samples = shared.samples.as_ref()?;
        let kernel = KernelSymbols::of(&shared.boot).read(shared.memory.ram());
        Some(Profile::new(samples, &Names { kernel, files }))
    }
}
