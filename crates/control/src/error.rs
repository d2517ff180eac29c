//! What can go wrong: for clients ([`QmpError`]), and for who starts a server ([`ControlError`]).

use std::path::PathBuf;

use armlet_engine::EngineError;
use armlet_machine::{PlugError, SaveError};
use serde_json::{Value, json};
use thiserror::Error;

/// Class of an error, for programs. Most are [`ErrorClass::GenericError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// None of the others.
    GenericError,
    /// There is no such command, or not now.
    CommandNotFound,
    /// There is no such device.
    DeviceNotFound,
}

impl ErrorClass {
    const fn name(self) -> &'static str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotFound => "DeviceNotFound",
        }
    }
}

/// Why a command failed: its class, and a description for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QmpError {
    pub(crate) class: ErrorClass,
    pub(crate) desc: String,
}

impl QmpError {
    pub(crate) fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Self { class, desc: desc.into() }
    }

    pub(crate) fn generic(desc: impl Into<String>) -> Self {
        Self::new(ErrorClass::GenericError, desc)
    }

    pub(crate) fn json(&self) -> Value {
        json!({"class": self.class.name(), "desc": self.desc})
    }
}

impl From<EngineError> for QmpError {
    fn from(error: EngineError) -> Self {
        Self::generic(error.to_string())
    }
}

impl From<SaveError> for QmpError {
    fn from(error: SaveError) -> Self {
        Self::generic(error.to_string())
    }
}

impl From<PlugError> for QmpError {
    fn from(error: PlugError) -> Self {
        Self::generic(error.to_string())
    }
}

/// Why a socket cannot be had.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum ControlError {
    #[error("socket '{}': another program listens there: end it, or choose another path", path.display())]
    InUse { path: PathBuf },
    #[error("socket '{}': something else is there: remove it, or choose another path", path.display())]
    Occupied { path: PathBuf },
    #[error("socket '{}': the path is too long for a socket: choose one of at most 107 bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("socket '{}' cannot be made ({source}): check the path and its permissions", path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("the host gives no thread for the control socket ({0}): raise the limit on threads")]
    Thread(std::io::Error),
}
