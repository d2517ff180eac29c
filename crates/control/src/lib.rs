//! Control of a running machine from outside: a server for the QEMU Machine Protocol (QMP), and a small client.
//!
//! The protocol is JSON, one object after the other, on a Unix socket: the server greets, the client negotiates
//! capabilities (there are none yet) and sends commands, the server answers each and tells of events in between.
//! Several clients may be there at once; each has a thread of its own, so that one that waits for the machine does
//! not keep the others waiting.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut machine = armlet_machine::Machine::new(armlet_machine::MachineConfig::default())?;
//! let server = armlet_control::Server::start(machine.handle(), "machine.sock".as_ref())?;
//! machine.start()?;
//! machine.run(None);
//! server.finish();
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | `socket` | the socket in the file system |
//! | `server`, `session`, `outbox` | clients and their threads; what waits to be sent |
//! | `framing`, `json` | where texts begin and end; what they say |
//! | `protocol` | greeting, negotiation, requests and answers |
//! | `schema` | types, which check arguments and are what clients are told |
//! | `command`, `cpus`, `event` | what can be asked for, and what is told |
//! | [`client`] | the other side |

pub mod client;
mod command;
mod cpus;
mod error;
mod event;
mod framing;
mod json;
mod outbox;
mod protocol;
mod schema;
mod server;
mod session;
pub mod socket;

pub use client::{Client, ClientError};
pub use error::ControlError;
pub use server::{MAX_CLIENTS, Server};
