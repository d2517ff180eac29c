//! Everything that takes bytes from outside, given any bytes at all.
//!
//! A target is a function of bytes that panics if something is wrong. `fuzz/` runs them under libFuzzer with
//! AddressSanitizer (`cargo xtask fuzz`); the tests of this crate run each on random bytes and on those in `corpus/`,
//! which once were findings.

pub mod boot;
pub mod client;
pub mod decode;
pub mod execute;
pub mod gic;
pub mod input;
pub mod its;
pub mod pci;
pub mod virtio;
pub mod walk;

/// A way in.
pub struct Target {
    /// As the command line has it.
    pub name: &'static str,
    /// What is looked at.
    pub about: &'static str,
    /// Bytes that one input has at most.
    pub longest: usize,
    /// Looks at one input.
    pub run: fn(&[u8]),
    /// An input, for people.
    pub describe: fn(&[u8]) -> String,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    #[cfg(target_arch = "x86_64")]
    Target {
        name: "execute",
        about: "decode, lift, both executors: the same result on any instructions and state",
        longest: 512,
        run: execute::run,
        describe: execute::describe,
    },
    Target {
        name: "walk",
        about: "the page-table walk: any registers and tables, against a walk written apart",
        longest: 256,
        run: walk::run,
        describe: bytes,
    },
    Target {
        name: "decode",
        about: "the decoder, against a search of the encoding table",
        longest: 64,
        run: decode::run,
        describe: bytes,
    },
    Target {
        name: "block",
        about: "the virtio block device, by a driver that does anything",
        longest: 1024,
        run: virtio::block,
        describe: bytes,
    },
    Target {
        name: "console",
        about: "the virtio console, likewise",
        longest: 1024,
        run: virtio::console,
        describe: bytes,
    },
    Target {
        name: "entropy",
        about: "the virtio entropy device, likewise",
        longest: 1024,
        run: virtio::entropy,
        describe: bytes,
    },
    Target {
        name: "pci",
        about: "virtio devices on PCI Express, by a guest that does anything to them and to the bridge",
        longest: 1024,
        run: pci::run,
        describe: bytes,
    },
    Target {
        name: "gic",
        about: "the interrupt controller's registers and inputs",
        longest: 1024,
        run: gic::run,
        describe: bytes,
    },
    Target {
        name: "its",
        about: "LPIs and the interrupt translation service: any tables, commands, registers, messages",
        longest: 1024,
        run: its::run,
        describe: bytes,
    },
    Target {
        name: "kernel",
        about: "any bytes as a kernel",
        longest: 4096,
        run: boot::kernel,
        describe: bytes,
    },
    Target {
        name: "dtb",
        about: "any bytes as a device tree",
        longest: 4096,
        run: boot::device_tree,
        describe: bytes,
    },
    Target {
        name: "qmp",
        about: "any bytes from a control client",
        longest: 512,
        run: client::qmp,
        describe: bytes,
    },
    Target {
        name: "gdb",
        about: "any bytes and packets from a debugger",
        longest: 512,
        run: client::gdb,
        describe: bytes,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

fn bytes(bytes: &[u8]) -> String {
    format!("{bytes:02x?}")
}
