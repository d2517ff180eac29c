//! What waits to be sent to one client: answers from its own thread, events from any. Bounded: a client that does
//! not read gets no more commands carried out, and one that lets events pile up is given up.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde_json::Value;

/// From here on no more commands are read.
const HIGH: usize = 256 << 10;
/// With more waiting than this, an event ends the connection.
const LIMIT: usize = 1 << 20;

/// Lock order: nothing is locked inside it.
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Readable when somebody else has changed the state.
    wake: OwnedFd,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// Wants events.
    listening: bool,
    lost: bool,
    ending: bool,
}

impl Outbox {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), wake })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an answer; for the client's own thread, which looks at [`Outbox::is_full`] before the next command.
    pub(crate) fn answer(&self, answer: &Value) {
        self.lock().bytes.extend(line(answer));
    }

    /// The client gets events from now on.
    pub(crate) fn listen(&self) {
        self.lock().listening = true;
    }

    /// Adds an event, as [`line`] writes it; for any thread.
    pub(crate) fn event(&self, event: &[u8]) {
        let mut state = self.lock();
        if !state.listening {
            return;
        }
        if state.bytes.len() + event.len() > LIMIT {
            state.lost = true;
        } else {
            state.bytes.extend(event);
        }
        drop(state);
        self.wake();
    }

    /// Nothing more comes; what is there is still sent.
    pub(crate) fn end(&self) {
        self.lock().ending = true;
        self.wake();
    }

    fn wake(&self) {
        // It only fails when the counter is full, and then it wakes anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes back the wake-ups so far, before looking for their reasons.
    pub(crate) fn awake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().bytes.is_empty()
    }

    /// So much waits that no more commands should be carried out.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().bytes.len() >= HIGH
    }

    /// Events were lost: the client cannot be served any longer.
    pub(crate) fn is_lost(&self) -> bool {
        self.lock().lost
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.lock().ending
    }

    /// Sends what the socket takes now.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) fn send(&self, socket: impl AsFd) -> io::Result<()> {
        let mut state = self.lock();
        while !state.bytes.is_empty() {
            match rustix::net::send(&socket, state.bytes.as_slices().0, SendFlags::NOSIGNAL) {
                Ok(n) => drop(state.bytes.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Outbox {
    /// To be waited for: readable when there may be something new.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// One message as it is sent.
pub(crate) fn line(message: &Value) -> Vec<u8> {
    let mut text = message.to_string().into_bytes();
    text.extend_from_slice(b"\r\n");
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn events_are_for_listeners_and_bounded() {
        let outbox = Outbox::new().unwrap();
        outbox.event(b"early");
        assert!(outbox.is_empty());
        outbox.listen();
        let event = vec![b'x'; 1000];
        for _ in 0..LIMIT / 1000 {
            outbox.event(&event);
        }
        assert!(outbox.is_full() && !outbox.is_lost());
        outbox.event(&event);
        assert!(outbox.is_lost());
        assert!(outbox.lock().bytes.len() <= LIMIT);
    }

    #[test]
    fn what_waits_is_sent_piece_by_piece() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let outbox = Outbox::new().unwrap();
        let long = Value::String("y".repeat(900_000));
        outbox.answer(&long);
        outbox.send(&ours).unwrap();
        assert!(!outbox.is_empty(), "a socket does not take all of it at once");
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; 900_004];
            theirs.read_exact(&mut all).unwrap();
            all
        });
        while !outbox.is_empty() {
            outbox.send(&ours).unwrap();
        }
        assert_eq!(reader.join().unwrap(), line(&long));
        assert!(outbox.send(&ours).is_ok(), "nothing to send");
        outbox.answer(&Value::Null);
        assert!(outbox.send(&ours).is_err(), "nobody is there");
    }
}
