//! The machine's end of its serial console: bounded queues in both directions.
//!
//! The guest's characters go to [`Console::output`], from which whoever shows them reads. What a person types goes
//! into [`Console::input`], and from there to the UART as fast as the guest takes it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use armlet_devices::{CharSink, OutputQueue, Pl011};
use armlet_virtio::{Console as VirtioConsole, ConsoleSink, Service};

use crate::lock;

/// Bytes of output that wait for a slow reader.
const OUTPUT_CAPACITY: usize = 64 << 10;
/// Bytes of input that wait for a slow guest.
const INPUT_CAPACITY: usize = 4 << 10;

/// Both directions. Cloning shares the queues.
#[derive(Clone)]
pub struct Console {
    /// From the guest.
    pub output: Arc<OutputQueue>,
    /// To the guest.
    pub input: Arc<InputQueue>,
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Console {
    /// Two empty queues.
    pub fn new() -> Self {
        Self { output: Arc::new(OutputQueue::new(OUTPUT_CAPACITY)), input: Arc::new(InputQueue::default()) }
    }

    /// Output beside the UART (semihosting): takes what fits and tells how much that was.
    pub fn write(&self, data: &[u8]) -> usize {
        CharSink::write(&*self.output, data)
    }

    /// Connects the output with the UART.
    pub(crate) fn connect_output(&self, uart: &Arc<Pl011>) {
        let weak = Arc::downgrade(uart);
        self.output.set_room_callback(Box::new(move || {
            if let Some(uart) = weak.upgrade() {
                uart.transmit_ready();
            }
        }));
    }

    /// What is typed goes to the UART.
    pub(crate) fn type_to_uart(&self, uart: &Arc<Pl011>) {
        let weak = Arc::downgrade(uart);
        let take = move |data: &[u8]| weak.upgrade().map_or(0, |uart| uart.receive(data));
        let _ = self.input.device.set(Box::new(take));
        uart.set_input_ready(self.input.feeder());
    }

    /// What is typed goes to a virtio console, which this makes; its output comes out beside the UART's.
    pub(crate) fn virtio_console(&self, service: Service) -> std::io::Result<Arc<VirtioConsole>> {
        let sink = Arc::new(Beside(Arc::clone(&self.output)));
        let device = Arc::new(VirtioConsole::with_service(sink, self.input.feeder(), service)?);
        let weak = Arc::downgrade(&device);
        let take = move |data: &[u8]| weak.upgrade().map_or(0, |device| device.receive(data));
        let _ = self.input.device.set(Box::new(take));
        Ok(device)
    }

    /// Ends both queues: readers and writers that wait return.
    pub fn close(&self) {
        self.output.close();
        self.input.close();
    }
}

/// Output of another device than the UART.
struct Beside(Arc<OutputQueue>);

/// How often a full queue is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl ConsoleSink for Beside {
    fn write(&self, bytes: &[u8], wait: Duration) -> usize {
        let n = CharSink::write(&*self.0, bytes);
        if n == 0 && !bytes.is_empty() {
            std::thread::sleep(LOOK_AGAIN.min(wait));
            return CharSink::write(&*self.0, bytes);
        }
        n
    }
}

/// Gives bytes to a device, which takes as many as it has room for.
type Take = Box<dyn Fn(&[u8]) -> usize + Send + Sync>;

/// Takes input that is on a detour.
pub(crate) type Through = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What becomes of input on its way to the queue.
pub(crate) enum Detour {
    /// It goes there, and comes back by [`InputQueue::inject`] when the guest may get it.
    Through(Through),
    /// It is ignored, and this is told.
    Ignored(Box<dyn Fn() + Send + Sync>),
}

/// Input that waits for the guest.
///
/// Lock order: this queue, then the device, or what a detour locks.
#[derive(Default)]
pub struct InputQueue {
    state: Mutex<InputState>,
    room: Condvar,
    filled: Condvar,
    device: OnceLock<Take>,
    detour: OnceLock<Detour>,
}

#[derive(Default)]
struct InputState {
    bytes: VecDeque<u8>,
    /// Bytes on a detour: there is room for them.
    away: usize,
    closed: bool,
}

impl InputState {
    fn room(&self) -> usize {
        INPUT_CAPACITY.saturating_sub(self.bytes.len() + self.away)
    }
}

impl InputQueue {
    /// Gives input to the guest without waiting; returns how much was taken.
    pub fn offer(&self, data: &[u8]) -> usize {
        let mut state = lock(&self.state);
        if state.closed {
            return data.len();
        }
        let n = data.len().min(state.room());
        match self.detour.get() {
            None => {
                state.bytes.extend(&data[..n]);
                self.feed_locked(&mut state);
            }
            Some(Detour::Through(send)) if n > 0 => {
                state.away += n;
                send(&data[..n]);
            }
            Some(Detour::Through(_)) => {}
            Some(Detour::Ignored(tell)) => {
                tell();
                return data.len();
            }
        }
        self.filled.notify_all();
        n
    }

    /// Sends input on a detour from now on. Only the first call counts.
    pub(crate) fn divert(&self, detour: Detour) {
        let _ = self.detour.set(detour);
    }

    /// Input that was on a detour, or was typed in another run; false if there is no room for it.
    pub(crate) fn inject(&self, data: &[u8]) -> bool {
        let mut state = lock(&self.state);
        state.away = state.away.saturating_sub(data.len());
        if data.len() > state.room() {
            return state.closed;
        }
        state.bytes.extend(data);
        self.feed_locked(&mut state);
        self.filled.notify_all();
        true
    }

    /// Gives all of `data` to the guest, waiting for room. `false` if the queue was closed before all was
    /// taken.
    pub fn push(&self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let n = self.offer(data);
            data = &data[n..];
            let mut state = lock(&self.state);
            while state.room() == 0 && !state.closed {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return false;
            }
        }
        true
    }

    /// Forgets what waits for the guest.
    pub(crate) fn clear(&self) {
        lock(&self.state).bytes.clear();
        self.room.notify_all();
    }

    /// What waits for the guest.
    pub(crate) fn waiting(&self) -> Vec<u8> {
        lock(&self.state).bytes.iter().copied().collect()
    }

    /// Takes one byte past the UART (semihosting).
    pub(crate) fn take_one(&self) -> Option<u8> {
        let byte = lock(&self.state).bytes.pop_front();
        if byte.is_some() {
            self.room.notify_all();
        }
        byte
    }

    /// Waits until there is input, at most for `limit`. Where none can come there is nothing to wait for.
    pub(crate) fn wait(&self, limit: Duration) {
        if matches!(self.detour.get(), Some(Detour::Ignored(_))) {
            return;
        }
        let state = lock(&self.state);
        let none = |state: &mut InputState| state.bytes.is_empty() && state.away == 0 && !state.closed;
        drop(self.filled.wait_timeout_while(state, limit, none));
    }

    /// For a device that has room again.
    fn feeder(self: &Arc<Self>) -> Box<dyn Fn() + Send + Sync> {
        let this = Arc::downgrade(self);
        Box::new(move || {
            if let Some(this) = this.upgrade() {
                this.feed_locked(&mut lock(&this.state));
            }
        })
    }

    fn feed_locked(&self, state: &mut InputState) {
        let Some(take) = self.device.get() else { return };
        let taken = take(state.bytes.make_contiguous());
        state.bytes.drain(..taken.min(state.bytes.len()));
        if taken > 0 {
            self.room.notify_all();
        }
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.room.notify_all();
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detour_holds_input_until_it_is_injected() {
        let queue = Arc::new(InputQueue::default());
        let away = Arc::new(Mutex::new(Vec::new()));
        let there = Arc::clone(&away);
        queue.divert(Detour::Through(Box::new(move |data| lock(&there).extend_from_slice(data))));
        assert_eq!(queue.offer(b"abc"), 3);
        queue.wait(Duration::from_secs(600));
        assert_eq!(queue.take_one(), None, "the guest has nothing yet");
        assert!(queue.inject(b"abc"));
        assert_eq!(queue.take_one(), Some(b'a'));
        // What is away takes room.
        assert_eq!(queue.offer(&[7; 2 * INPUT_CAPACITY]), INPUT_CAPACITY - 2);
        assert_eq!(queue.offer(b"x"), 0);
        assert_eq!(lock(&away).len(), INPUT_CAPACITY + 1);
        assert!(queue.inject(&[7; INPUT_CAPACITY - 2]));
        assert!(!queue.inject(b"x"), "more than a recording machine takes");
        assert_eq!(queue.take_one(), Some(b'b'));
        assert_eq!(queue.offer(b"xy"), 1);
    }

    #[test]
    fn input_that_is_ignored_is_taken_and_told() {
        let queue = InputQueue::default();
        let told = Arc::new(Mutex::new(0));
        let tell = Arc::clone(&told);
        queue.divert(Detour::Ignored(Box::new(move || *lock(&tell) += 1)));
        assert!(queue.push(&[7; 2 * INPUT_CAPACITY]));
        queue.wait(Duration::from_secs(600));
        assert_eq!((queue.take_one(), *lock(&told)), (None, 1));
        assert!(queue.inject(b"x"));
        assert_eq!(queue.take_one(), Some(b'x'));
    }

    #[test]
    fn input_beyond_the_capacity_waits_and_close_ends_the_wait() {
        let queue = Arc::new(InputQueue::default());
        assert_eq!(queue.offer(&[7; INPUT_CAPACITY + 1]), INPUT_CAPACITY);
        let pusher = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.push(b"x"))
        };
        for _ in 0..INPUT_CAPACITY {
            assert_eq!(queue.take_one(), Some(7));
        }
        assert!(pusher.join().unwrap());
        assert_eq!(queue.take_one(), Some(b'x'));
        assert_eq!(queue.offer(&[1; INPUT_CAPACITY]), INPUT_CAPACITY);
        let pusher = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.push(b"y"))
        };
        queue.close();
        assert!(!pusher.join().unwrap());
    }
}
