//! What machine it is, and what hangs on it.

saved! {
    /// A file that the machine boots from.
    SavedFile {
        /// Where it was.
        "1" path: Option<String>,
        /// Its size and a digest of it, as text.
        "2" digest: String,
    }

    /// A disk.
    SavedDrive {
        /// Where its image was.
        "1" path: String,
        /// `format=raw` was given.
        "2" raw: bool,
        /// The guest cannot write.
        "3" readonly: bool,
        /// Its size and a digest of samples of it, as text.
        "4" digest: String,
        /// Device and inode of the image.
        "5" file: (u64, u64),
        /// When the image was last written: seconds and nanoseconds since 1970.
        "6" written: (i64, i64),
        /// It is on PCI Express.
        "7" pci: bool,
    }

    /// The machine.
    SavedMachine {
        /// The program that saved it, for people.
        "1" program: String,
        /// `--machine`.
        "2" board: String,
        /// `--cpu`: the model.
        "3" cpu: String,
        /// `--cpu`: its features, switched on or off, in order.
        "4" features: Vec<(String, bool)>,
        /// MIDR_EL1, CTR_EL0, CLIDR_EL1, DCZID_EL0 and the ID registers of the model: name and value.
        "5" id_registers: Vec<(String, u64)>,
        /// `--smp`: CPUs at the start.
        "6" cpus: u32,
        /// Sockets, clusters of each, cores of each, threads of each: the places for CPUs.
        "7" topology: [u32; 4],
        /// `--memory`, in bytes.
        "8" memory: u64,
        /// `--console`.
        "9" console: String,
        /// `--semihosting`.
        "10" semihosting: String,
        /// There is an entropy device.
        "11" entropy: bool,
        /// `--no-reboot`.
        "12" no_reboot: bool,
        /// `--kernel`.
        "13" kernel: SavedFile,
        /// `--initrd`.
        "14" initrd: Option<SavedFile>,
        /// `--dtb`.
        "15" dtb: Option<SavedFile>,
        /// `--append`.
        "16" append: String,
        /// `--kaslr`.
        "17" kaslr: bool,
        /// `--drive`, in order.
        "18" drives: Vec<SavedDrive>,
        /// The machine was running.
        "19" running: bool,
    }

    /// Input that was typed and that the guest has not got yet.
    SavedConsole {
        /// The characters.
        "1" input: Vec<u8>,
    }

    /// Semihosting.
    SavedSemihosting {
        /// Open handles, by number.
        "1" handles: Vec<SavedHandle>,
        /// `SYS_ERRNO`.
        "2" errno: u64,
        /// `SYS_ELAPSED`, in nanoseconds.
        "3" elapsed: u64,
    }
}

/// A handle of semihosting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub enum SavedHandle {
    /// None.
    #[serde(rename = "1")]
    Closed,
    /// The console, for reading.
    #[serde(rename = "2")]
    Input,
    /// The console, for writing.
    #[serde(rename = "3")]
    Output,
    /// `:semihosting-features`, read up to here.
    #[serde(rename = "4")]
    Features(u64),
}
