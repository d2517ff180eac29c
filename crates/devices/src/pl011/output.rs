//! A bounded queue between a UART and whoever shows its output.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::{CharSink, ReadyCallback};
use crate::lock;

/// Characters on their way from a UART to a reader on the host.
///
/// Policy: at most `capacity` bytes are held. When they are, the queue takes no more and the guest sees a full
/// transmit FIFO, as with a terminal that holds CTS back. A reader that then takes nothing for
/// [`OutputQueue::PATIENCE`] counts as gone: from there on output is discarded, and counted, so that a guest that
/// polls for room goes on, until the reader takes something again. Memory stays bounded and no vCPU thread
/// ever blocks here.
///
/// Where the guest must not see how fast its reader is ([`OutputQueue::wait_for_reader`]), the queue takes everything
/// instead: the guest's thread waits for room.
pub struct OutputQueue {
    capacity: usize,
    state: Mutex<State>,
    filled: Condvar,
    /// For writers that wait.
    emptied: Condvar,
    room: OnceLock<ReadyCallback>,
}

struct State {
    bytes: VecDeque<u8>,
    /// Since when the queue has been full with nothing taken.
    full_since: Option<Instant>,
    /// The writer was turned away and wants to hear of room.
    writer_waits: bool,
    discarded: u64,
    closed: bool,
    full: WhenFull,
    muted: bool,
}

/// What a writer finds that has more than there is room for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    /// It is turned away.
    TurnAway,
    /// It waits for the reader.
    Wait,
    /// What does not fit is thrown away.
    Discard,
}

impl OutputQueue {
    /// How long a full queue waits for its reader before it discards.
    pub const PATIENCE: Duration = Duration::from_secs(1);

    /// A queue of `capacity` bytes (at least 1).
    pub fn new(capacity: usize) -> Self {
        let state = State {
            bytes: VecDeque::new(),
            full_since: None,
            writer_waits: false,
            discarded: 0,
            closed: false,
            full: WhenFull::TurnAway,
            muted: false,
        };
        Self {
            capacity: capacity.max(1),
            state: Mutex::new(state),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            room: OnceLock::new(),
        }
    }

    /// From now on every write takes everything, and waits for room as long as that takes: what the guest sees does
    /// not depend on its reader.
    pub fn wait_for_reader(&self) {
        lock(&self.state).full = WhenFull::Wait;
    }

    /// Ends all waiting for the reader, since the machine ends: what does not fit is thrown away. Nothing changes for
    /// a queue whose writers do not wait.
    pub fn stop_waiting(&self) {
        let mut state = lock(&self.state);
        if state.full == WhenFull::Wait {
            state.full = WhenFull::Discard;
            self.emptied.notify_all();
        }
    }

    /// While it is muted, what is written goes nowhere.
    pub fn mute(&self, muted: bool) {
        lock(&self.state).muted = muted;
    }

    /// Sets who is told, on the reader's thread, that there is room again after the queue was full: the
    /// UART's `transmit_ready`. Only the first call counts.
    pub fn set_room_callback(&self, callback: ReadyCallback) {
        let _ = self.room.set(callback);
    }

    /// Waits for output and moves what there is, at most `buffer`'s length, into it; 0 if the queue is closed
    /// and empty (or `buffer` is).
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        let mut state = lock(&self.state);
        while state.bytes.is_empty() && !state.closed && !buffer.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.take(state, buffer)
    }

    /// [`Self::read`] without waiting: 0 if there is nothing.
    pub fn try_read(&self, buffer: &mut [u8]) -> usize {
        self.take(lock(&self.state), buffer)
    }

    fn take(&self, mut state: std::sync::MutexGuard<'_, State>, buffer: &mut [u8]) -> usize {
        let n = state.bytes.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(state.bytes.drain(..n)) {
            *to = from;
        }
        let mut tell = false;
        if n > 0 {
            state.full_since = None;
            tell = std::mem::take(&mut state.writer_waits);
            self.emptied.notify_all();
        }
        drop(state);
        if tell && let Some(callback) = self.room.get() {
            callback();
        }
        n
    }

    /// Waits until the reader has taken everything, at most for `limit`; false if it has not.
    pub fn wait_until_empty(&self, limit: Duration) -> bool {
        let state = lock(&self.state);
        let waits = |state: &mut State| !state.bytes.is_empty() && !state.closed;
        let result = self.emptied.wait_timeout_while(state, limit, waits);
        !result.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Ends the queue: output is discarded, readers get what is left, then 0.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Bytes discarded so far.
    pub fn discarded(&self) -> u64 {
        lock(&self.state).discarded
    }

    /// Bytes waiting for the reader.
    pub fn len(&self) -> usize {
        lock(&self.state).bytes.len()
    }

    /// True if nothing waits for the reader.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn write_at(&self, bytes: &[u8], now: impl Fn() -> Instant) -> usize {
        let mut state = lock(&self.state);
        if state.muted {
            return bytes.len();
        }
        if state.full != WhenFull::TurnAway {
            self.write_all(state, bytes);
            return bytes.len();
        }
        if state.closed {
            state.discarded += bytes.len() as u64;
            return bytes.len();
        }
        let was_empty = state.bytes.is_empty();
        let n = bytes.len().min(self.capacity - state.bytes.len());
        state.bytes.extend(&bytes[..n]);
        if was_empty && n > 0 {
            self.filled.notify_one();
        }
        if n == bytes.len() {
            return n;
        }
        let now = now();
        let since = *state.full_since.get_or_insert(now);
        if now.duration_since(since) < Self::PATIENCE {
            state.writer_waits = true;
            return n;
        }
        state.discarded += (bytes.len() - n) as u64;
        bytes.len()
    }

    fn write_all(&self, mut state: std::sync::MutexGuard<'_, State>, mut bytes: &[u8]) {
        loop {
            let n = if state.closed { 0 } else { bytes.len().min(self.capacity - state.bytes.len()) };
            state.bytes.extend(&bytes[..n]);
            bytes = &bytes[n..];
            if n > 0 {
                self.filled.notify_one();
            }
            if bytes.is_empty() {
                return;
            }
            if state.closed || state.full != WhenFull::Wait {
                state.discarded += bytes.len() as u64;
                return;
            }
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl CharSink for OutputQueue {
    fn write(&self, bytes: &[u8]) -> usize {
        self.write_at(bytes, Instant::now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn passes_bytes_in_order() {
        let q = OutputQueue::new(8);
        assert_eq!(q.write(b"abc"), 3);
        let mut buffer = [0; 2];
        assert_eq!(q.read(&mut buffer), 2);
        assert_eq!(&buffer, b"ab");
        assert_eq!(q.try_read(&mut buffer), 1);
        assert_eq!(buffer[0], b'c');
        assert_eq!(q.try_read(&mut buffer), 0);
    }

    #[test]
    fn holds_back_then_discards_then_recovers() {
        let q = OutputQueue::new(4);
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        q.set_room_callback(Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        let start = Instant::now();
        assert_eq!(q.write_at(b"abcdef", || start), 4);
        assert_eq!(q.write_at(b"ef", || start + OutputQueue::PATIENCE / 2), 0);
        assert_eq!(q.discarded(), 0);
        assert_eq!(q.write_at(b"ef", || start + OutputQueue::PATIENCE), 2);
        assert_eq!(q.discarded(), 2);
        assert_eq!(q.len(), 4);
        assert_eq!(q.try_read(&mut [0; 1]), 1);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        // The patience starts afresh.
        assert_eq!(q.write_at(b"gh", || start + OutputQueue::PATIENCE * 2), 1);
        assert_eq!(q.discarded(), 2);
    }

    #[test]
    fn a_writer_that_may_wait_loses_nothing_until_it_is_told_to_stop() {
        let q = Arc::new(OutputQueue::new(4));
        q.wait_for_reader();
        let text: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let writer = {
            let (q, text) = (Arc::clone(&q), text.clone());
            std::thread::spawn(move || q.write(&text))
        };
        let mut got: Vec<u8> = Vec::new();
        while got.len() < text.len() {
            let mut buffer = [0; 3];
            let n = q.read(&mut buffer);
            got.extend(&buffer[..n]);
        }
        assert_eq!(writer.join().ok(), Some(text.len()));
        assert_eq!(got, text);
        for end in [OutputQueue::stop_waiting, OutputQueue::close] {
            let q = Arc::new(OutputQueue::new(4));
            q.wait_for_reader();
            let writer = {
                let q = Arc::clone(&q);
                std::thread::spawn(move || q.write(b"abcdefg"))
            };
            while q.len() < 4 {
                std::thread::yield_now();
            }
            end(&q);
            assert_eq!(writer.join().ok(), Some(7));
            assert_eq!((q.len(), q.discarded()), (4, 3));
            assert_eq!(q.write(b"h"), 1);
            assert_eq!(q.discarded(), 4);
        }
        let q = OutputQueue::new(1);
        q.stop_waiting();
        assert_eq!(q.write(b"ab"), 1, "others are turned away as before");
    }

    #[test]
    fn close_wakes_a_reader_and_discards() {
        let q = Arc::new(OutputQueue::new(4));
        let reader = {
            let q = Arc::clone(&q);
            std::thread::spawn(move || q.read(&mut [0; 4]))
        };
        q.close();
        assert_eq!(reader.join().ok(), Some(0));
        assert_eq!(q.write(b"xy"), 2);
        assert_eq!(q.discarded(), 2);
    }
}
