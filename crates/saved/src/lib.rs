//! A saved machine: the types that its parts are saved as, and the file that holds them.
//!
//! These types are apart from those that the parts run with, so that either can change without the other. Their fields
//! are numbered; the numbers are what stands in a file and are never used for anything else. A field that is not in a
//! file has its default, one that is not known is an error: a state is carried whole or not at all.
//!
//! What is here is the architecture's and the devices' registers and nothing of an accelerator, so that a machine saved
//! under one goes on under another.
//!
//! | module | what |
//! |---|---|
//! | [`cpu`] | one vCPU, and its way from and to [`CpuState`](armlet_arm::CpuState) |
//! | [`gic`] | the interrupt controller |
//! | [`device`] | timers, UART, clock, GPIO, virtio |
//! | [`machine`] | what machine it is |
//! | [`mod@file`] | sections of bytes and their checks |

/// Defines a type of numbered fields.
macro_rules! saved {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $number:literal $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* #[serde(rename = $number)] pub $field: $type,)*
        }
    )*};
}

pub mod cpu;
pub mod device;
pub mod file;
pub mod gic;
pub mod machine;

pub use cpu::{SavedCpu, SavedPower};
pub use device::{
    SavedGpio, SavedPciFunction, SavedQueue, SavedRtc, SavedTimer, SavedTimers, SavedUart, SavedUartDriver,
    SavedVector, SavedVirtio, SavedVirtioPci,
};
pub use gic::{SavedGic, SavedGicCpu, SavedInterrupts, SavedIts};
pub use machine::{SavedConsole, SavedDrive, SavedFile, SavedHandle, SavedMachine, SavedSemihosting};

/// Why a saved part cannot become the part that is here: what differs, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

impl Unfit {
    /// With this text.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// Nothing if `fits`, else that `what` does not.
    ///
    /// # Errors
    /// It does not fit.
    pub fn unless(fits: bool, what: impl FnOnce() -> String) -> Result<(), Self> {
        if fits { Ok(()) } else { Err(Self(what())) }
    }
}
