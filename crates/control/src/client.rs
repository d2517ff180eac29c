//! A client, for programs that control a machine: commands and their answers, one after the other.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

/// Longest answer in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// Why a command was not carried out.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum ClientError {
    #[error("no machine listens at '{}' ({source}): check the path, and that it was started with --qmp unix:PATH", path.display())]
    Connect { path: PathBuf, source: std::io::Error },
    #[error("what listens at '{}' does not speak QMP: check the path", path.display())]
    NotQmp { path: PathBuf },
    #[error("the machine has closed the connection: it may have ended")]
    Closed,
    #[error("the machine has not answered for {0} s: look at it, or end it")]
    Silent(u64),
    #[error("the connection to the machine broke ({0}): try again")]
    Broken(std::io::Error),
    #[error("the machine's answer cannot be understood: check that it is one of this version")]
    Answer,
    #[error("{0}")]
    Refused(String),
}

/// A connection to a machine.
pub struct Client {
    stream: BufReader<UnixStream>,
    patience: Duration,
    /// Number of the last command.
    number: u64,
}

impl Client {
    /// Connects to the machine that listens at `path`; no answer may take longer than `patience`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { path: path.into(), source };
        let stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(patience)).map_err(failed)?;
        stream.set_write_timeout(Some(patience)).map_err(failed)?;
        let mut client = Self { stream: BufReader::new(stream), patience, number: 0 };
        let greeting = client.receive();
        match greeting {
            Ok(greeting) if greeting.get("QMP").is_some() => {}
            // Too many clients, perhaps.
            Ok(other) => return Err(refusal(&other).unwrap_or(ClientError::NotQmp { path: path.into() })),
            Err(ClientError::Broken(e)) => return Err(ClientError::Broken(e)),
            Err(_) => return Err(ClientError::NotQmp { path: path.into() }),
        }
        client.execute("qmp_capabilities", None)?;
        Ok(client)
    }

    /// Has `command` carried out and gives what it returns. Events that come before are dropped.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn execute(&mut self, command: &str, arguments: Option<Value>) -> Result<Value, ClientError> {
        self.number += 1;
        let mut request = json!({"execute": command, "id": self.number});
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let text = format!("{request}\n");
        self.stream.get_mut().write_all(text.as_bytes()).map_err(|e| self.broken(e))?;
        loop {
            let mut answer = self.receive()?;
            if answer.get("id").and_then(Value::as_u64) != Some(self.number) {
                continue;
            }
            return match answer.get_mut("return") {
                Some(result) => Ok(result.take()),
                None => Err(refusal(&answer).unwrap_or(ClientError::Answer)),
            };
        }
    }

    fn receive(&mut self) -> Result<Value, ClientError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(MAX_ANSWER).read_until(b'\n', &mut line);
        read.map_err(|e| self.broken(e))?;
        if line.is_empty() {
            return Err(ClientError::Closed);
        }
        serde_json::from_slice(&line).map_err(|_| ClientError::Answer)
    }

    fn broken(&self, error: std::io::Error) -> ClientError {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Silent(self.patience.as_secs()),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => ClientError::Closed,
            _ => ClientError::Broken(error),
        }
    }
}

/// The error that `answer` tells of.
fn refusal(answer: &Value) -> Option<ClientError> {
    Some(ClientError::Refused(answer.get("error")?.get("desc")?.as_str()?.to_owned()))
}
