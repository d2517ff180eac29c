//! The console device (virtio 5.3): one port.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use armlet_memory::Ram;
use armlet_saved::{SavedVirtio, Unfit};

use crate::device::{Activation, DriverLink, VirtioDevice};
use crate::queue::{Chain, Queue, QueueError, QueuePosition};
use crate::registers::copy_config;
use crate::spec::device_id;
use crate::worker::{Job, LATE, Outcome, Service, Settle, Stop, Worker};

/// Feature: the configuration has the terminal's size (5.3.3).
const F_SIZE: u64 = 1 << 0;
/// The queue of what the guest reads.
const RECEIVE_QUEUE: u16 = 0;
/// The queue of what the guest writes.
const TRANSMIT_QUEUE: u16 = 1;
/// Entries of each queue.
const QUEUE_SIZE: u16 = 64;
/// Bytes of input that are kept for a guest that does not read.
const BACKLOG: usize = 4096;
/// Bytes handed to the sink at a time.
const CHUNK: usize = 4096;
/// How long a sink may take to find that it can take nothing. A reset of the device may have to wait that long.
const SINK_WAIT: Duration = Duration::from_millis(50);

/// Where the guest's output goes.
pub trait ConsoleSink: Send + Sync {
    /// Takes as many of `bytes` as it can and returns how many. If it can take none, it waits for that to change,
    /// at most for `wait`. Called by whoever does the console's work ([`Service`]).
    fn write(&self, bytes: &[u8], wait: Duration) -> usize;
}

/// Called when input has room again after [`Console::receive`] did not take all.
pub type RoomCallback = Box<dyn Fn() + Send + Sync>;

/// The console device.
///
/// A reader on the host that does not read stops the guest's writer: output is never stored beyond what the guest
/// has in its own buffers.
pub struct Console {
    sink: Arc<dyn ConsoleSink>,
    input: Mutex<Input>,
    on_room: RoomCallback,
    output: Worker<Output>,
}

/// What the guest reads. Lock: taken last, but for the link's.
struct Input {
    backlog: VecDeque<u8>,
    /// [`Console::receive`] has refused bytes since there last was room.
    refused: bool,
    /// Nothing is moved to the guest for now.
    quiet: bool,
    columns: u16,
    rows: u16,
    active: Option<ActiveInput>,
}

struct ActiveInput {
    queue: Queue,
    memory: Ram,
    link: Arc<DriverLink>,
    features: u64,
}

impl Console {
    /// A device that writes to `sink`, with its thread. `on_room` is called, with nothing locked, when input that
    /// was refused can be offered again.
    ///
    /// # Errors
    /// The host's, if it starts no thread.
    pub fn new(sink: Arc<dyn ConsoleSink>, on_room: RoomCallback) -> std::io::Result<Self> {
        Self::with_service(sink, on_room, Service::Threaded)
    }

    /// As [`Self::new`], with output handed on as `service` says.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_service(
        sink: Arc<dyn ConsoleSink>,
        on_room: RoomCallback,
        service: Service,
    ) -> std::io::Result<Self> {
        let input = Input {
            backlog: VecDeque::with_capacity(BACKLOG),
            refused: false,
            quiet: false,
            columns: 80,
            rows: 25,
            active: None,
        };
        let output = Worker::spawn("virtio-console", service)?;
        Ok(Self { sink, input: Mutex::new(input), on_room, output })
    }

    /// Offers input to the guest; returns how many bytes were taken, which never is more than a small buffer's
    /// worth ahead of what the guest has read.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        let mut input = self.lock();
        let mut taken = 0;
        loop {
            let room = BACKLOG - input.backlog.len();
            let n = room.min(bytes.len() - taken);
            input.backlog.extend(&bytes[taken..taken + n]);
            taken += n;
            let moved = input.deliver();
            if taken == bytes.len() || moved == 0 {
                input.refused = taken < bytes.len();
                return taken;
            }
        }
    }

    /// Tells the guest the terminal's new size in characters.
    pub fn resize(&self, columns: u16, rows: u16) {
        let mut input = self.lock();
        if (input.columns, input.rows) == (columns, rows) {
            return;
        }
        (input.columns, input.rows) = (columns, rows);
        if let Some(active) = input.active.as_ref().filter(|a| a.features & F_SIZE != 0) {
            active.link.config_changed();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Input> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves input to the guest, and says so if there is room that was missed.
    fn deliver(&self) {
        let mut input = self.lock();
        input.deliver();
        let has_room = input.refused && input.backlog.len() < BACKLOG;
        input.refused &= !has_room;
        drop(input);
        if has_room {
            (self.on_room)();
        }
    }
}

impl Input {
    /// Moves what it can to the guest's buffers; returns the bytes moved.
    fn deliver(&mut self) -> usize {
        if self.quiet || self.backlog.is_empty() {
            return 0;
        }
        let Some(active) = &mut self.active else { return 0 };
        match active.fill(&mut self.backlog) {
            Ok(moved) => moved,
            Err(error) => {
                active.link.fail(error);
                self.active = None;
                0
            }
        }
    }
}

impl ActiveInput {
    fn fill(&mut self, backlog: &mut VecDeque<u8>) -> Result<usize, QueueError> {
        let mut moved = 0;
        // At most a queueful: a guest that keeps adding empty buffers must not keep this thread.
        for _ in 0..QUEUE_SIZE {
            if backlog.is_empty() {
                break;
            }
            let Some(chain) = self.queue.pop()? else {
                if self.queue.enable_notify()? {
                    continue;
                }
                break;
            };
            let buffers = chain.writable(&self.memory);
            let n = buffers.copy_from(backlog.make_contiguous());
            backlog.drain(..n);
            moved += n;
            // At most BACKLOG.
            self.queue.push_used(&chain, n as u32)?;
        }
        if self.queue.wants_interrupt()? && moved > 0 {
            self.link.used_buffers(RECEIVE_QUEUE);
        }
        Ok(moved)
    }
}

impl VirtioDevice for Console {
    fn device_id(&self) -> u32 {
        device_id::CONSOLE
    }

    fn name(&self) -> &str {
        "virtio-console"
    }

    fn features(&self) -> u64 {
        F_SIZE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, out: &mut [u8]) {
        // Columns, rows, number of ports (1, of interest to multiport drivers only).
        let (columns, rows) = {
            let input = self.lock();
            (input.columns.to_le_bytes(), input.rows.to_le_bytes())
        };
        copy_config(&[columns[0], columns[1], rows[0], rows[1], 1, 0, 0, 0], offset, out);
    }

    fn activate(&self, activation: Activation) {
        let Activation { features, queues, memory, link } = activation;
        let mut queues = queues.into_iter();
        if let Some(queue) = queues.next().flatten() {
            self.lock().active =
                Some(ActiveInput { queue, memory: memory.clone(), link: link.clone(), features });
        }
        if let Some(queue) = queues.next().flatten() {
            self.output.install(Output {
                queue,
                memory,
                link,
                sink: self.sink.clone(),
                current: None,
                owed: None,
                seen: None,
            });
        }
        self.deliver();
    }

    fn notify(&self, queue: u16) {
        match queue {
            RECEIVE_QUEUE => self.deliver(),
            TRANSMIT_QUEUE => self.output.wake_or_attempt(),
            _ => {}
        }
    }

    fn reset(&self) {
        self.lock().active = None;
        self.output.remove();
    }

    fn quiesce(&self) {
        self.lock().quiet = true;
        self.output.quiesce();
    }

    fn resume(&self) {
        self.lock().quiet = false;
        self.output.resume();
        self.deliver();
    }

    fn positions(&self) -> Vec<Option<QueuePosition>> {
        let receive = self.lock().active.as_ref().map(|active| active.queue.position(None));
        let taken = |output: &Output| output.current.as_ref().map(|(_, done)| *done);
        vec![receive, self.output.look(|output| output.queue.position(taken(output)))]
    }

    fn save(&self, saved: &mut SavedVirtio) {
        let input = self.lock();
        saved.config = [input.columns.to_le_bytes(), input.rows.to_le_bytes()].concat();
        saved.backlog = input.backlog.iter().copied().collect();
    }

    fn restore(&self, saved: &SavedVirtio) -> Result<(), Unfit> {
        let [c0, c1, r0, r1] = saved.config[..] else {
            return Err(Unfit::new("the console has no size"));
        };
        Unfit::unless(saved.backlog.len() <= BACKLOG, || "the console kept more input than it can".into())?;
        let mut input = self.lock();
        (input.columns, input.rows) = (u16::from_le_bytes([c0, c1]), u16::from_le_bytes([r0, r1]));
        input.backlog = saved.backlog.iter().copied().collect();
        Ok(())
    }

    fn shutdown(&self, deadline: Duration) -> bool {
        self.lock().active = None;
        self.output.shutdown(deadline)
    }
}

/// The transmit queue while the driver uses the device.
struct Output {
    queue: Queue,
    memory: Ram,
    link: Arc<DriverLink>,
    sink: Arc<dyn ConsoleSink>,
    /// A chain that the sink has taken some of: how many bytes.
    current: Option<(Chain, u64)>,
    /// Since when the driver has not been told what was handed back to it.
    ///
    /// Linux looks at the queue until its buffer is back, with the interrupt nevertheless asked for. If it comes when there
    /// is nothing to be found any more, and that 100,000 times, Linux says that nobody cared for it and disables it.
    owed: Option<Instant>,
    /// What [`Queue::used_event`] was when that was looked at last.
    seen: Option<u16>,
}

/// Whether output may wait for the sink.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Waiting,
    AtOnce,
}

impl Output {
    fn work(&mut self, stop: &Stop, pace: Pace) -> Outcome {
        let result = self.serve(stop, pace);
        self.outcome(result)
    }

    fn outcome(&self, result: Result<Outcome, QueueError>) -> Outcome {
        result.unwrap_or_else(|error| {
            self.link.fail(error);
            Outcome::Broken
        })
    }

    /// Tells the driver what was handed back to it, if it has not found that out by itself.
    fn tell(&mut self, when: Settle) -> Result<(), QueueError> {
        if self.owed.is_none() {
            return Ok(());
        }
        let seen = self.queue.used_event()?;
        if when == Settle::Due && seen != self.seen {
            // It is at it.
            self.seen = seen;
            self.owed = Some(Instant::now());
            return Ok(());
        }
        self.owed = None;
        if self.queue.wants_interrupt()? {
            self.link.used_buffers(TRANSMIT_QUEUE);
        }
        Ok(())
    }

    /// Without more to do.
    fn rest(&self) -> Outcome {
        if self.owed.is_some() { Outcome::Owing } else { Outcome::Idle }
    }

    /// Hands on what there is; if it may not wait, at most a queueful.
    fn serve(&mut self, stop: &Stop, pace: Pace) -> Result<Outcome, QueueError> {
        // A guest that keeps adding buffers must not keep a vCPU's thread here.
        let mut left = QUEUE_SIZE;
        loop {
            while let Some((chain, done)) = self.next(stop)? {
                let (written, complete) = self.send(&chain, done, stop, pace);
                if !complete {
                    self.current = Some((chain, written));
                    if pace == Pace::AtOnce {
                        return Ok(Outcome::More);
                    }
                    self.tell(Settle::Due)?;
                    continue;
                }
                self.queue.push_used(&chain, 0)?;
                if self.owed.get_or_insert_with(Instant::now).elapsed() >= LATE {
                    self.tell(Settle::Due)?;
                }
                if pace == Pace::AtOnce {
                    left -= 1;
                    if left == 0 {
                        return Ok(Outcome::More);
                    }
                }
            }
            if stop.requested() {
                return Ok(Outcome::More);
            }
            if !self.queue.enable_notify()? {
                return Ok(self.rest());
            }
        }
    }

    fn next(&mut self, stop: &Stop) -> Result<Option<(Chain, u64)>, QueueError> {
        if stop.requested() {
            return Ok(None);
        }
        match self.current.take() {
            Some(current) => Ok(Some(current)),
            None => Ok(self.queue.pop()?.map(|chain| (chain, self.queue.take_done()))),
        }
    }

    /// Hands the chain's bytes from `done` on to the sink. Returns how many it has had, and whether that is all.
    fn send(&self, chain: &Chain, mut done: u64, stop: &Stop, pace: Pace) -> (u64, bool) {
        let wait = if pace == Pace::AtOnce { Duration::ZERO } else { SINK_WAIT };
        let mut rest = chain.readable(&self.memory);
        rest.take_front(done);
        let mut chunk = [0; CHUNK];
        while !rest.is_empty() {
            let piece = rest.take_front(CHUNK as u64);
            let n = piece.copy_to(&mut chunk);
            let mut bytes = &chunk[..n];
            while !bytes.is_empty() {
                if stop.requested() {
                    return (done, false);
                }
                let taken = self.sink.write(bytes, wait).min(bytes.len());
                bytes = &bytes[taken..];
                done += taken as u64;
                if taken == 0 {
                    return (done, false);
                }
            }
        }
        (done, true)
    }
}

impl Job for Output {
    fn run(&mut self, stop: &Stop) -> Outcome {
        self.work(stop, Pace::Waiting)
    }

    fn attempt(&mut self, stop: &Stop) -> Outcome {
        self.work(stop, Pace::AtOnce)
    }

    fn settle(&mut self, when: Settle) -> Outcome {
        let result = self.tell(when).map(|()| self.rest());
        self.outcome(result)
    }
}
