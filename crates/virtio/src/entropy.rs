//! The entropy device (virtio 5.4): it fills buffers with random bytes, the host's or, where every run is to be the
//! same, those of a generator with a seed.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use armlet_memory::Ram;
use armlet_saved::{SavedVirtio, Unfit};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::device::{Activation, DriverLink, VirtioDevice};
use crate::queue::{Chain, Queue, QueueError, QueuePosition};
use crate::spec::device_id;
use crate::worker::{Job, Outcome, Service, Stop, Worker};

/// The only queue.
const QUEUE: u16 = 0;
/// Entries of it; drivers have one buffer in flight.
const QUEUE_SIZE: u16 = 8;
/// Bytes given per buffer. A device may give fewer than asked for (5.4.6.2).
const MAX_BYTES: u64 = 64 * 1024;
/// Bytes asked of the host at a time: up to 256 it gives all of them (getrandom(2)).
const CHUNK: usize = 256;

/// The entropy device. It has a thread, since a host that has just started may have no random bytes yet.
pub struct Entropy {
    worker: Worker<Requests>,
    source: Source,
    seed: u64,
}

/// Where the bytes come from.
#[derive(Clone)]
enum Source {
    Host,
    Generator(Arc<Mutex<ChaCha20Rng>>),
}

impl Source {
    /// Fills the start of `buffer`; returns how much, 0 if there is nothing to be had.
    fn fill(&self, buffer: &mut [u8; CHUNK]) -> usize {
        match self {
            Self::Host => loop {
                match getrandom(&mut *buffer, GetRandomFlags::empty()) {
                    Ok(n) => return n,
                    Err(Errno::INTR) => {}
                    Err(_) => return 0,
                }
            },
            Self::Generator(generator) => {
                generator.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(buffer);
                buffer.len()
            }
        }
    }
}

impl Entropy {
    /// A device, with its thread.
    ///
    /// # Errors
    /// The host's, if it starts no thread.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { worker: Worker::spawn("virtio-rng", Service::Threaded)?, source: Source::Host, seed: 0 })
    }

    /// A device whose bytes are the same in every run, and so no secret: those of ChaCha20 with `seed`. Requests are
    /// done at once ([`Service::Immediate`]). A reset of the device does not start the sequence again; power-on
    /// does.
    ///
    /// # Errors
    /// None; as [`Self::new`].
    pub fn seeded(seed: u64) -> std::io::Result<Self> {
        let generator = Mutex::new(ChaCha20Rng::seed_from_u64(seed));
        let worker = Worker::spawn("virtio-rng", Service::Immediate)?;
        Ok(Self { worker, source: Source::Generator(Arc::new(generator)), seed })
    }
}

impl VirtioDevice for Entropy {
    fn device_id(&self) -> u32 {
        device_id::ENTROPY
    }

    fn name(&self) -> &str {
        "virtio-rng"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, _out: &mut [u8]) {}

    fn activate(&self, activation: Activation) {
        let Activation { queues, memory, link, .. } = activation;
        if let Some(queue) = queues.into_iter().next().flatten() {
            self.worker.install(Requests { queue, memory, link, source: self.source.clone() });
        }
    }

    fn takes_doorbell(&self) -> bool {
        self.worker.has_thread()
    }

    fn take_doorbell(&self, bell: OwnedFd) {
        self.worker.take_doorbell(bell);
    }

    fn notify(&self, queue: u16) {
        if queue == QUEUE {
            self.worker.wake();
        }
    }

    fn reset(&self) {
        self.worker.remove();
    }

    fn quiesce(&self) {
        self.worker.quiesce();
    }

    fn resume(&self) {
        self.worker.resume();
    }

    fn positions(&self) -> Vec<Option<QueuePosition>> {
        vec![self.worker.look(|requests| requests.queue.position(None))]
    }

    fn save(&self, _saved: &mut SavedVirtio) {}

    fn restore(&self, _saved: &SavedVirtio) -> Result<(), Unfit> {
        Ok(())
    }

    fn power_on(&self) {
        if let Source::Generator(generator) = &self.source {
            *generator.lock().unwrap_or_else(PoisonError::into_inner) = ChaCha20Rng::seed_from_u64(self.seed);
        }
    }

    fn shutdown(&self, deadline: Duration) -> bool {
        self.worker.shutdown(deadline)
    }
}

struct Requests {
    queue: Queue,
    memory: Ram,
    link: Arc<DriverLink>,
    source: Source,
}

impl Requests {
    fn serve(&mut self, stop: &Stop) -> Result<Outcome, QueueError> {
        loop {
            while !stop.requested()
                && let Some(chain) = self.queue.pop()?
            {
                let written = fill(&chain, &self.memory, &self.source);
                self.queue.push_used(&chain, written)?;
                if self.queue.wants_interrupt()? {
                    self.link.used_buffers(QUEUE);
                }
            }
            if stop.requested() {
                return Ok(Outcome::More);
            }
            if !self.queue.enable_notify()? {
                return Ok(Outcome::Idle);
            }
        }
    }
}

impl Job for Requests {
    fn run(&mut self, stop: &Stop) -> Outcome {
        self.serve(stop).unwrap_or_else(|error| {
            self.link.fail(error);
            Outcome::Broken
        })
    }
}

/// Fills the chain's buffers; returns the bytes written.
fn fill(chain: &Chain, memory: &Ram, source: &Source) -> u32 {
    let mut buffers = chain.writable(memory).take_front(MAX_BYTES);
    let mut written = 0;
    while !buffers.is_empty() {
        let mut random = [0u8; CHUNK];
        let n = source.fill(&mut random);
        if n == 0 {
            break;
        }
        written += buffers.take_front(n as u64).copy_from(&random[..n]);
    }
    // At most MAX_BYTES.
    written as u32
}
