//! `armlet cpus`, `armlet machines`.

use std::fmt::Write as _;
use std::io::Write as _;

use armlet::arm::CpuModel;
use armlet::arm::model::{PORTABLE, Property};
use armlet::{MachineConfig, spec};

use crate::{complain, status};

/// Prints to standard output; a reader that has seen enough is no error.
pub fn print(text: &str) -> u8 {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&format!("standard output cannot be written ({e}): check where it goes"));
            status::OTHER
        }
        _ => status::DONE,
    }
}

/// The models, or the features of one.
pub fn cpus(model: Option<&str>) -> u8 {
    let Some(name) = model else { return print(&models()) };
    match CpuModel::by_name(name) {
        Ok(model) => print(&features(&model)),
        Err(e) => {
            complain(&e);
            status::USAGE
        }
    }
}

fn models() -> String {
    let default = MachineConfig::default().cpu.model;
    let mut text = String::new();
    for model in CpuModel::all() {
        let mark = if model.name() == default { '*' } else { ' ' };
        let _ = writeln!(text, "{mark} {:14} {}", model.name(), model.description());
    }
    text.push_str("\n* is the default. Features: armlet cpus NAME\n");
    text
}

fn features(model: &CpuModel) -> String {
    let mut text = format!("{}: {}\n\n", model.name(), model.description());
    for property in Property::all() {
        let on = if property.is_on(model.ids()) { "on" } else { "off" };
        let _ = writeln!(text, "  {:10} {on:3}  {}", property.name, property.description);
    }
    let portable = "tells of itself only what KVM can give guests of that core: saved machines go on there";
    let _ = writeln!(text, "  {PORTABLE:10} off  {portable}");
    let _ = write!(text, "\nTo change one: --cpu {},NAME=on or NAME=off\n", model.name());
    text
}

/// The machines.
pub fn machines() -> u8 {
    let text = format!(
        "* virt   GICv3, generic timers, PL011, PL031, PL061, {slots} virtio-mmio slots; up to {cpus} CPUs\n\
         \x20        PCI Express if something sits there (--drive FILE,bus=pci), for up to {functions} virtio-pci devices\n\n\
         RAM starts at {ram:#x}, the UART is at {uart:#x}.\n",
        slots = spec::VIRTIO_MMIO_SLOTS,
        cpus = spec::MAX_CPUS,
        functions = spec::PCIE_FUNCTIONS,
        ram = spec::RAM_BASE,
        uart = spec::UART0.base,
    );
    print(&text)
}
