//! What can go wrong before there is a client.

use thiserror::Error;

use crate::address::Address;

/// A text that is no address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("'{0}' is no address for a debugger: use :PORT, HOST:PORT or unix:PATH")]
pub struct AddressError(pub String);

/// Why there can be no server for debuggers.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum DebugError {
    #[error("a debugger cannot be listened for at {address} ({source}): choose another address")]
    Listen { address: Address, source: std::io::Error },
    #[error(transparent)]
    Socket(#[from] armlet_control::ControlError),
    #[error("the host gives no thread for the debugger ({0}): raise the limit on threads")]
    Thread(std::io::Error),
}
