//! The block device (virtio 5.2): one request queue over a disk image.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use armlet_memory::Ram;
use armlet_saved::{SavedVirtio, Unfit};
use armlet_storage::{BlockBackend, SECTOR_SIZE};

use crate::device::{Activation, DriverLink, VirtioDevice};
use crate::queue::{Queue, QueueError, QueuePosition};
use crate::registers::copy_config;
use crate::spec::device_id;
use crate::worker::{Job, Outcome, Service, Stop, Worker};

mod request;
mod spec;

use spec::{config, feature};

/// The request queue.
const QUEUE: u16 = 0;
/// Entries of it.
const QUEUE_SIZE: u16 = 256;
/// Most data buffers of a request: what the queue holds without header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Most ranges of one discard or write-zeroes request.
const MAX_RANGES: u32 = 16;
/// Longest such range in sectors (128 MiB): where the host must write the zeroes itself, one request still does not
/// hold up the others, or a reset, for long.
const MAX_RANGE_SECTORS: u32 = 1 << 18;
/// Requests that are completed before the driver is told, while more are waiting.
const TELL_BATCH: u32 = 8;
/// Host errors of a device that are logged one by one.
const MAX_LOGGED: u64 = 16;

/// How the guest sees a disk.
#[derive(Clone, Debug)]
pub struct BlockConfig {
    /// Name for logs and the device's thread.
    pub name: String,
    /// Serial number, told to the guest up to its 20th byte.
    pub serial: String,
}

/// The block device.
///
/// Requests are done in order on the device's own thread, so a vCPU never waits for the host's disk. A flush
/// completes only after the backend's, and thus `fdatasync`, has.
pub struct Block {
    name: String,
    backend: Arc<dyn BlockBackend>,
    id: [u8; spec::request::ID_LEN],
    /// The write cache as the driver set it (`CONFIG_WCE`); on after a reset.
    writeback: Arc<AtomicBool>,
    errors: Arc<AtomicU64>,
    worker: Worker<Requests>,
}

impl Block {
    /// A device over `backend`, with its thread.
    ///
    /// # Errors
    /// The host's, if it starts no thread.
    pub fn new(backend: Arc<dyn BlockBackend>, config: BlockConfig) -> std::io::Result<Self> {
        Self::with_service(backend, config, Service::Threaded)
    }

    /// As [`Self::new`], with the work done as `service` says.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_service(
        backend: Arc<dyn BlockBackend>,
        config: BlockConfig,
        service: Service,
    ) -> std::io::Result<Self> {
        let mut id = [0; spec::request::ID_LEN];
        for (to, from) in id.iter_mut().zip(config.serial.bytes()) {
            *to = from;
        }
        Ok(Self {
            worker: Worker::spawn(&config.name, service)?,
            name: config.name,
            backend,
            id,
            writeback: Arc::new(AtomicBool::new(true)),
            errors: Arc::new(AtomicU64::new(0)),
        })
    }

    fn config(&self) -> [u8; config::LEN] {
        let mut bytes = [0; config::LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(config::CAPACITY, &(self.backend.size() / SECTOR_SIZE).to_le_bytes());
        put(config::SEG_MAX, &SEG_MAX.to_le_bytes());
        put(config::BLK_SIZE, &(SECTOR_SIZE as u32).to_le_bytes());
        // 4 KiB physical blocks: what hosts' file systems and disks like.
        put(config::PHYSICAL_BLOCK_EXP, &[3]);
        put(config::MIN_IO_SIZE, &8u16.to_le_bytes());
        put(config::WRITEBACK, &[self.writeback.load(Ordering::Relaxed).into()]);
        put(config::MAX_DISCARD_SECTORS, &MAX_RANGE_SECTORS.to_le_bytes());
        put(config::MAX_DISCARD_SEG, &MAX_RANGES.to_le_bytes());
        put(config::DISCARD_SECTOR_ALIGNMENT, &8u32.to_le_bytes());
        put(config::MAX_WRITE_ZEROES_SECTORS, &MAX_RANGE_SECTORS.to_le_bytes());
        put(config::MAX_WRITE_ZEROES_SEG, &MAX_RANGES.to_le_bytes());
        put(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
        bytes
    }
}

impl VirtioDevice for Block {
    fn device_id(&self) -> u32 {
        device_id::BLOCK
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn features(&self) -> u64 {
        let always = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY;
        if self.backend.read_only() {
            always | feature::RO
        } else {
            always | feature::CONFIG_WCE | feature::DISCARD | feature::WRITE_ZEROES
        }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, out: &mut [u8]) {
        copy_config(&self.config(), offset, out);
    }

    fn write_config(&self, features: u64, offset: u64, data: &[u8]) {
        if let ([value], true) = (data, offset == config::WRITEBACK as u64)
            && features & feature::CONFIG_WCE != 0
        {
            self.writeback.store(*value != 0, Ordering::Relaxed);
        }
    }

    fn activate(&self, activation: Activation) {
        let Activation { features, queues, memory, link } = activation;
        let Some(queue) = queues.into_iter().next().flatten() else { return };
        self.worker.install(Requests {
            queue,
            memory,
            link,
            backend: self.backend.clone(),
            id: self.id,
            features,
            writeback: self.writeback.clone(),
            errors: self.errors.clone(),
            name: self.name.clone(),
        });
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
        self.writeback.store(true, Ordering::Relaxed);
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

    fn save(&self, saved: &mut SavedVirtio) {
        saved.config = self.config().to_vec();
    }

    fn restore(&self, saved: &SavedVirtio) -> Result<(), Unfit> {
        let writeback = saved.config.get(config::WRITEBACK).copied().unwrap_or(0);
        let mut here = self.config();
        here[config::WRITEBACK] = writeback;
        Unfit::unless(saved.config == here, || format!("{} had another size or other limits", self.name))?;
        self.writeback.store(writeback != 0, Ordering::Relaxed);
        Ok(())
    }

    fn shutdown(&self, deadline: Duration) -> bool {
        self.worker.shutdown(deadline)
    }
}

/// The request queue while the driver uses the device.
struct Requests {
    queue: Queue,
    memory: Ram,
    link: Arc<DriverLink>,
    backend: Arc<dyn BlockBackend>,
    id: [u8; spec::request::ID_LEN],
    features: u64,
    writeback: Arc<AtomicBool>,
    errors: Arc<AtomicU64>,
    name: String,
}

impl Requests {
    /// Without flush requests a driver expects every write to be durable (5.2.6.2).
    fn write_through(&self) -> bool {
        self.features & feature::FLUSH == 0 || !self.writeback.load(Ordering::Relaxed)
    }

    /// Does requests until none is left, with notifications off.
    fn serve(&mut self, stop: &Stop) -> Result<Outcome, QueueError> {
        loop {
            self.queue.disable_notify()?;
            self.serve_available(stop)?;
            if stop.requested() {
                return Ok(Outcome::More);
            }
            if !self.queue.enable_notify()? {
                return Ok(Outcome::Idle);
            }
        }
    }

    /// Does what is available. The driver is told of a few requests at a time, but never later than before
    /// something that may take the host long.
    fn serve_available(&mut self, stop: &Stop) -> Result<(), QueueError> {
        let mut untold = 0;
        while let Some(chain) = self.next_unless(stop)? {
            if untold > 0 && !request::is_transfer(&chain, &self.memory) {
                self.tell()?;
                untold = 0;
            }
            let target = request::Target {
                backend: &*self.backend,
                id: &self.id,
                features: self.features,
                write_through: self.write_through(),
            };
            let done = request::execute(&target, &chain, &self.memory);
            if let Some(error) = done.host_error {
                self.log(&error);
            }
            self.queue.push_used(&chain, done.written)?;
            untold += 1;
            if untold == TELL_BATCH {
                self.tell()?;
                untold = 0;
            }
        }
        if untold > 0 {
            self.tell()?;
        }
        Ok(())
    }

    fn tell(&mut self) -> Result<(), QueueError> {
        if self.queue.wants_interrupt()? {
            self.link.used_buffers(QUEUE);
        }
        Ok(())
    }

    fn next_unless(&mut self, stop: &Stop) -> Result<Option<crate::queue::Chain>, QueueError> {
        if stop.requested() { Ok(None) } else { self.queue.pop() }
    }

    fn log(&self, error: &std::io::Error) {
        let count = self.errors.fetch_add(1, Ordering::Relaxed);
        if count < MAX_LOGGED {
            tracing::error!(device = self.name, %error, "the host failed a disk request");
        } else if count == MAX_LOGGED {
            tracing::error!(device = self.name, "more failed disk requests are not logged");
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
