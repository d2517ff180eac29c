//! The entropy device (virtio 5.4): it fills buffers with the host's random bytes.

use std::sync::Arc;
use std::time::Duration;

use armlet_memory::Ram;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::device::{Activation, DriverLink, VirtioDevice};
use crate::queue::{Chain, Queue, QueueError};
use crate::spec::device_id;
use crate::worker::{Job, Outcome, Stop, Worker};

/// Entries of the queue; drivers have one buffer in flight.
const QUEUE_SIZE: u16 = 8;
/// Bytes given per buffer. A device may give fewer than asked for (5.4.6.2).
const MAX_BYTES: u64 = 64 * 1024;
/// Bytes asked of the host at a time: up to 256 it gives all of them (getrandom(2)).
const CHUNK: usize = 256;

/// The entropy device. It has a thread, since a host that has just started may have no random bytes yet.
pub struct Entropy {
    worker: Worker<Requests>,
}

impl Entropy {
    /// A device, with its thread.
    ///
    /// # Errors
    /// The host's, if it starts no thread.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { worker: Worker::spawn("virtio-rng")? })
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
            self.worker.install(Requests { queue, memory, link });
        }
    }

    fn notify(&self, queue: u16) {
        if queue == 0 {
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

    fn shutdown(&self, deadline: Duration) -> bool {
        self.worker.shutdown(deadline)
    }
}

struct Requests {
    queue: Queue,
    memory: Ram,
    link: Arc<DriverLink>,
}

impl Requests {
    fn serve(&mut self, stop: &Stop) -> Result<Outcome, QueueError> {
        loop {
            while !stop.requested()
                && let Some(chain) = self.queue.pop()?
            {
                let written = fill(&chain, &self.memory);
                self.queue.push_used(&chain, written)?;
                if self.queue.wants_interrupt()? {
                    self.link.used_buffers();
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
fn fill(chain: &Chain, memory: &Ram) -> u32 {
    let mut buffers = chain.writable(memory).take_front(MAX_BYTES);
    let mut written = 0;
    while !buffers.is_empty() {
        let mut random = [0u8; CHUNK];
        let n = match getrandom(&mut random, GetRandomFlags::empty()) {
            Ok(n) => n,
            Err(Errno::INTR) => continue,
            Err(_) => break,
        };
        written += buffers.take_front(n as u64).copy_from(&random[..n]);
    }
    // At most MAX_BYTES.
    written as u32
}
