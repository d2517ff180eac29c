//! All that the devices do over the PCI transport as well, by the tests that they pass over the MMIO transport.

#![expect(clippy::duplicate_mod, reason = "each file of tests brings along what they share")]

#[path = "block.rs"]
mod block;
#[path = "console.rs"]
mod console;
#[path = "hostile.rs"]
mod hostile;
#[path = "saved.rs"]
mod saved;
