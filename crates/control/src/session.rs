//! One client's thread: reads commands, carries them out one after the other, sends answers and events.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::QmpError;
use crate::framing::Framer;
use crate::outbox::Outbox;
use crate::protocol::{self, Protocol};

/// Longest wait for a client to take what is left for it at the end.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes read at once.
const BUFFER: usize = 16 << 10;

/// A conversation with a client.
pub(crate) struct Session {
    socket: UnixStream,
    outbox: Arc<Outbox>,
    protocol: Protocol,
    framer: Framer,
    /// From when on nothing more is read, and what is left is sent.
    leaving: Option<Instant>,
}

/// Why a conversation goes on or does not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Wait,
    End,
}

impl Session {
    /// `socket` does not block.
    pub(crate) fn new(socket: UnixStream, outbox: Arc<Outbox>, protocol: Protocol) -> Self {
        Self { socket, outbox, protocol, framer: Framer::default(), leaving: None }
    }

    /// Serves the client until it leaves or the server ends.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.outbox.answer(&protocol::greeting());
        while self.step()? == Next::Wait {
            self.wait()?;
        }
        Ok(())
    }

    fn step(&mut self) -> io::Result<Next> {
        let all_done = loop {
            let all_done = self.carry_out();
            self.outbox.send(&self.socket)?;
            if all_done || self.outbox.is_full() {
                break all_done;
            }
        };
        if self.outbox.is_lost() {
            return Err(io::Error::other("it does not read its events"));
        }
        if self.outbox.is_ending() {
            self.leaving.get_or_insert_with(Instant::now);
        }
        let Some(since) = self.leaving else { return Ok(Next::Wait) };
        let done = all_done && self.outbox.is_empty() || since.elapsed() >= LAST_WORDS;
        Ok(if done { Next::End } else { Next::Wait })
    }

    /// Carries out what was read, for as long as the client takes the answers; true if that was all.
    fn carry_out(&mut self) -> bool {
        while !self.outbox.is_full() {
            let Some(text) = self.framer.next() else { return true };
            let answer = match text {
                Ok(text) => self.protocol.answer(&text),
                Err(e) => protocol::error(&QmpError::generic(e.to_string())),
            };
            if self.protocol.is_negotiated() {
                self.outbox.listen();
            }
            self.outbox.answer(&answer);
        }
        false
    }

    /// Waits until there is something to do, and reads.
    fn wait(&mut self) -> io::Result<()> {
        let reads = self.leaving.is_none() && !self.outbox.is_full();
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, reads);
        wanted.set(PollFlags::OUT, !self.outbox.is_empty());
        let mut fds = [PollFd::new(&self.socket, wanted), PollFd::new(&*self.outbox, PollFlags::IN)];
        let limit = self.leaving.map(|since| timespec(LAST_WORDS.saturating_sub(since.elapsed())));
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let readable = !fds[0].revents().is_empty();
        self.outbox.awake();
        if reads && readable { self.read() } else { Ok(()) }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; BUFFER];
        match self.socket.read(&mut buffer) {
            // It says no more; it may still want to hear the answers.
            Ok(0) => self.leaving = Some(Instant::now()),
            Ok(n) => self.framer.push(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}
