//! PCI Express as a host bridge's guests see it: configuration space, base address registers, INTx and MSI-X, and the
//! bridge with its windows.
//!
//! All functions are endpoints of the root complex, on bus 0, one to a device. A guest may program anything: functions
//! answer where it put them, the one with the lowest number where several would, and nobody elsewhere.

pub mod bridge;
pub mod config;
pub mod endpoint;
pub mod lines;
pub mod msix;
pub mod spec;
#[cfg(test)]
mod testing;

pub use bridge::{Function, HostBridge, requester_id};
pub use config::{ConfigSpace, Identity};
pub use endpoint::{Endpoint, MsixPlace};
pub use lines::IntxLines;
pub use msix::Msix;
