//! Virtio 1.2 devices: the MMIO and PCI transports, split virtqueues, and the block, entropy and console devices.
//!
//! A device implements [`VirtioDevice`] and knows nothing of its transport; [`MmioTransport`] is the transport
//! that the board maps, [`PciTransport`] the one that sits on its PCI bus. Drivers are not trusted: nothing that a guest writes to registers, rings or buffers
//! makes a device panic, loop without bound, or touch anything but guest RAM. A device whose driver breaks the
//! rules of the rings says `DEVICE_NEEDS_RESET` and works again after a reset.

mod block;
mod console;
mod device;
mod entropy;
mod mmio;
mod pci;
mod queue;
mod registers;
mod saved;
pub mod spec;
mod worker;

pub use block::{Block, BlockConfig};
pub use console::{Console, ConsoleSink};
pub use device::{Activation, DriverLink, LineSetter, VirtioDevice};
pub use entropy::Entropy;
pub use mmio::MmioTransport;
pub use pci::{Doorbell, PciPlace, PciTransport};
pub use queue::{Buffers, Chain, MAX_CHAIN, Queue, QueueError, QueueLayout, QueuePosition};
pub use registers::Transport;
pub use worker::Service;
