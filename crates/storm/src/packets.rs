//! A small client of gdb's remote protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(100);

/// A connection.
pub struct Packets {
    stream: TcpStream,
    input: Vec<u8>,
}

/// `body` as a packet.
pub fn framed(body: &str) -> Vec<u8> {
    let sum = body.bytes().fold(0u8, |sum, byte| sum.wrapping_add(byte));
    format!("${body}#{sum:02x}").into_bytes()
}

/// Without run lengths: `*` and a count, plus 29, repeat the character before.
fn unpacked(body: &str) -> String {
    let mut text = String::new();
    let mut characters = body.chars();
    while let Some(character) = characters.next() {
        match (character, text.chars().last()) {
            ('*', Some(last)) => {
                let count = characters.next().map_or(0, |count| (count as usize).saturating_sub(29));
                text.extend(std::iter::repeat_n(last, count));
            }
            _ => text.push(character),
        }
    }
    text
}

impl Packets {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: impl ToSocketAddrs) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the server takes nothing")
    }

    /// The next packet's body; `None` if there is none for so long.
    ///
    /// # Errors
    /// The connection ends, or a packet is damaged.
    pub fn packet(&mut self, limit: Duration) -> Result<Option<String>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(body) = self.take()? {
                return Ok(Some(body));
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the server has ended the connection"),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(e) => return Err(e).context("the connection breaks"),
            }
        }
    }

    /// A packet that is there already. Acknowledgements are skipped.
    fn take(&mut self) -> Result<Option<String>> {
        let Some(start) = self.input.iter().position(|byte| *byte == b'$') else { return Ok(None) };
        let Some(length) = self.input[start..].iter().position(|byte| *byte == b'#') else { return Ok(None) };
        let end = start + length + 3;
        if self.input.len() < end {
            return Ok(None);
        }
        let body = String::from_utf8_lossy(&self.input[start + 1..start + length]).into_owned();
        if self.input[start..end] != framed(&body) {
            bail!("a packet is damaged: {}", String::from_utf8_lossy(&self.input[start..end]));
        }
        self.input.drain(..end);
        Ok(Some(unpacked(&body)))
    }

    /// Sends a packet and gives its answer.
    ///
    /// # Errors
    /// There is none.
    pub fn ask(&mut self, body: &str) -> Result<String> {
        self.send(&framed(body))?;
        self.packet(PATIENCE)?.with_context(|| format!("there is no answer to {body}"))
    }

    /// Waits for a stop, at most for `moment`; then interrupts.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(&mut self, moment: Duration) -> Result<String> {
        let mut patience = moment;
        loop {
            match self.packet(patience)? {
                Some(text) if text.starts_with('O') => {}
                Some(stop) => return Ok(stop),
                None if patience == PATIENCE => bail!("the machine does not stop"),
                None => {
                    self.send(b"\x03")?;
                    patience = PATIENCE;
                }
            }
        }
    }
}
