//! A server for debuggers that speak gdb's remote protocol.
//!
//! [`Server`] listens and serves one client at a time. What a client sends becomes packets (module `link`), which the
//! `gdbstub` crate understands (`stub`) and asks of the machine (`target`): registers and memory, breakpoints,
//! and which vCPUs run. Nothing of it is in the way of a machine that nobody debugs: vCPUs know of breakpoints only
//! while there are some.

mod address;
mod description;
mod error;
mod link;
mod mail;
mod memory;
mod monitor;
mod points;
mod registers;
mod reverse;
mod server;
mod session;
mod stub;
mod target;

pub use address::Address;
pub use error::{AddressError, DebugError};
pub use server::Server;
