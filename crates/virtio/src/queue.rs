//! Split virtqueues (virtio 2.7) on guest memory, as devices see them.
//!
//! The ring arithmetic is the `virtio-queue` crate's. What is added here is that nothing a driver writes is
//! passed over silently: a ring or chain that the specification forbids is a [`QueueError`], after a bounded
//! amount of work, and the device then asks for a reset.

use armlet_memory::{AccessSize, Ram};
use thiserror::Error;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

use crate::spec::AVAIL_F_NO_INTERRUPT;

/// Most descriptors in a chain that a device looks at, whatever the indirect table's size. Linux's block driver makes
/// chains of at most 256.
pub const MAX_CHAIN: usize = 1024;

/// The driver broke the rules of the rings. The device cannot go on with them.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum QueueError {
    /// Size, alignment or place of the rings.
    #[error("the rings' size, alignment or place is not allowed")]
    Layout,
    /// More is available than the queue has entries, or an index is outside it.
    #[error("an index of the available ring is not possible")]
    Index,
    /// A chain has no end, is too long, or breaks off at an impossible descriptor.
    #[error("a descriptor chain is broken, has a loop or is too long")]
    Chain,
    /// A buffer that is not in RAM.
    #[error("a buffer is not in RAM")]
    Buffer,
    /// A device-readable buffer after a device-writable one.
    #[error("a readable buffer follows a writable one")]
    Order,
}

/// Where a queue lies and how large it is, as the driver wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLayout {
    /// Entries.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
}

/// How far a queue has been worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePosition {
    /// Index in the available ring of the next chain to be taken.
    pub next_available: u16,
    /// Index in the used ring of the next entry to be written.
    pub next_used: u16,
    /// Bytes of the next chain that have been done.
    pub done: u64,
}

/// A queue in use.
pub struct Queue {
    ring: virtio_queue::Queue,
    /// Bytes of the next chain that were done before this queue was made.
    done: u64,
    memory: Ram,
    available: u64,
    event_idx: bool,
}

impl Queue {
    /// Takes over the rings at `layout`; all of them must be in RAM.
    ///
    /// # Errors
    /// [`QueueError::Layout`].
    pub fn new(memory: Ram, layout: QueueLayout, max_size: u16, event_idx: bool) -> Result<Self, QueueError> {
        let bad = |_| QueueError::Layout;
        let mut ring = virtio_queue::Queue::new(max_size).map_err(bad)?;
        ring.try_set_size(layout.size).map_err(bad)?;
        ring.try_set_desc_table_address(GuestAddress(layout.descriptors)).map_err(bad)?;
        ring.try_set_avail_ring_address(GuestAddress(layout.available)).map_err(bad)?;
        ring.try_set_used_ring_address(GuestAddress(layout.used)).map_err(bad)?;
        ring.set_event_idx(event_idx);
        ring.set_ready(true);
        let size = u64::from(layout.size);
        let in_ram = memory.contains(layout.descriptors, 16 * size)
            && memory.contains(layout.available, 6 + 2 * size)
            && memory.contains(layout.used, 6 + 8 * size);
        if !in_ram {
            return Err(QueueError::Layout);
        }
        Ok(Self { ring, done: 0, memory, available: layout.available, event_idx })
    }

    /// The same queue, worked on from `position`.
    #[must_use]
    pub fn at(mut self, position: QueuePosition) -> Self {
        self.ring.set_next_avail(position.next_available);
        self.ring.set_next_used(position.next_used);
        self.done = position.done;
        self
    }

    /// How far it has been worked on. Whoever has taken a chain and not handed it back gives it back with how much of it
    /// is done, as `taken`.
    pub fn position(&self, taken: Option<u64>) -> QueuePosition {
        let next_available = self.ring.next_avail().wrapping_sub(taken.is_some().into());
        let next_used = self.ring.next_used();
        QueuePosition { next_available, next_used, done: taken.unwrap_or(self.done) }
    }

    /// Bytes of the chain just taken that are done already; told once.
    pub fn take_done(&mut self) -> u64 {
        std::mem::take(&mut self.done)
    }

    /// Takes the next chain that the driver has made available.
    ///
    /// # Errors
    /// [`QueueError`], if ring or chain are not allowed.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        let memory = self.memory.guest_memory();
        let mut heads = self.ring.iter(memory).map_err(|_| QueueError::Index)?;
        let Some(descriptors) = heads.next() else { return Ok(None) };
        let mut chain = Chain { head: descriptors.head_index(), ..Chain::default() };
        let mut complete = false;
        for (i, d) in descriptors.enumerate() {
            if i == MAX_CHAIN {
                return Err(QueueError::Chain);
            }
            // The iterator ends in the same way at the chain's end and at a descriptor that is not allowed;
            // only the last one without a successor is an end.
            complete = !d.has_next();
            chain.push(&self.memory, d.addr().0, d.len(), d.is_write_only())?;
        }
        if complete { Ok(Some(chain)) } else { Err(QueueError::Chain) }
    }

    /// Hands a chain back, with the number of bytes written to its writable buffers.
    ///
    /// # Errors
    /// [`QueueError::Layout`], which [`new`](Self::new) has ruled out.
    pub fn push_used(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        self.ring.add_used(self.memory.guest_memory(), chain.head, written).map_err(|_| QueueError::Layout)
    }

    /// True if the driver wants an interrupt for what was handed back since the last call.
    ///
    /// # Errors
    /// As [`push_used`](Self::push_used).
    pub fn wants_interrupt(&mut self) -> Result<bool, QueueError> {
        let wanted =
            self.ring.needs_notification(self.memory.guest_memory()).map_err(|_| QueueError::Layout)?;
        if self.event_idx {
            return Ok(wanted);
        }
        let flags = self.memory.load(self.available, AccessSize::Half).ok_or(QueueError::Layout)?;
        Ok(flags & AVAIL_F_NO_INTERRUPT == 0)
    }

    /// What the driver wants an interrupt for next (virtio 2.7.7), as far as it says so: a driver that asks for interrupts
    /// moves it whenever it takes something back.
    ///
    /// # Errors
    /// As [`push_used`](Self::push_used).
    pub fn used_event(&self) -> Result<Option<u16>, QueueError> {
        if !self.event_idx {
            return Ok(None);
        }
        let at = self.available + 4 + 2 * u64::from(self.ring.size());
        let index = self.memory.load(at, AccessSize::Half).ok_or(QueueError::Layout)?;
        Ok(Some(index as u16))
    }

    /// Asks the driver not to notify while the queue is being worked on.
    ///
    /// # Errors
    /// As [`push_used`](Self::push_used).
    pub fn disable_notify(&mut self) -> Result<(), QueueError> {
        self.ring.disable_notification(self.memory.guest_memory()).map_err(|_| QueueError::Layout)
    }

    /// Asks for notifications again. True if chains have become available meanwhile, which nobody will tell:
    /// look at the queue once more.
    ///
    /// # Errors
    /// As [`push_used`](Self::push_used).
    pub fn enable_notify(&mut self) -> Result<bool, QueueError> {
        self.ring.enable_notification(self.memory.guest_memory()).map_err(|_| QueueError::Layout)
    }

    /// The memory that the rings are in.
    pub fn memory(&self) -> &Ram {
        &self.memory
    }
}

/// A buffer in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    gpa: u64,
    len: u32,
}

/// A chain of buffers: first those that the device reads, then those that it writes. It was fetched once; what
/// the driver does to the descriptors afterwards has no effect.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Chain {
    fn push(&mut self, memory: &Ram, gpa: u64, len: u32, write: bool) -> Result<(), QueueError> {
        if !write && !self.writable.is_empty() {
            return Err(QueueError::Order);
        }
        if !memory.contains(gpa, len.into()) {
            return Err(QueueError::Buffer);
        }
        if len > 0 {
            let list = if write { &mut self.writable } else { &mut self.readable };
            list.push(Segment { gpa, len });
        }
        Ok(())
    }

    /// The bytes that the device reads.
    pub fn readable<'m>(&self, memory: &'m Ram) -> Buffers<'m> {
        Buffers::new(memory, &self.readable)
    }

    /// The bytes that the device writes.
    pub fn writable<'m>(&self, memory: &'m Ram) -> Buffers<'m> {
        Buffers::new(memory, &self.writable)
    }
}

/// Guest memory in pieces, seen as one run of bytes. How a driver cuts a request into descriptors means nothing
/// (virtio 2.7.4).
#[derive(Debug, Default)]
pub struct Buffers<'m> {
    slices: Vec<VolatileSlice<'m>>,
    len: u64,
}

impl<'m> Buffers<'m> {
    fn new(memory: &'m Ram, segments: &[Segment]) -> Self {
        let memory = memory.guest_memory();
        let slice = |s: &Segment| memory.get_slice(GuestAddress(s.gpa), s.len as usize).ok();
        let slices: Vec<_> = segments.iter().filter_map(slice).collect();
        let len = slices.iter().map(|s| s.len() as u64).sum();
        Self { slices, len }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, none of them empty.
    pub fn slices(&self) -> &[VolatileSlice<'m>] {
        &self.slices
    }

    /// Cuts off the first `n` bytes (all, if there are fewer) and returns them.
    pub fn take_front(&mut self, n: u64) -> Buffers<'m> {
        let n = n.min(self.len);
        let mut front = Buffers { slices: Vec::new(), len: n };
        let mut left = n;
        let mut rest = Vec::with_capacity(self.slices.len());
        for slice in &self.slices {
            let here = left.min(slice.len() as u64) as usize;
            left -= here as u64;
            // `here` is at most the slice's length, so this cannot fail.
            if let Ok((head, tail)) = slice.split_at(here) {
                front.slices.extend((!head.is_empty()).then_some(head));
                rest.extend((!tail.is_empty()).then_some(tail));
            }
        }
        self.slices = rest;
        self.len -= n;
        front
    }

    /// Cuts off the last `n` bytes (all, if there are fewer) and returns them.
    pub fn take_back(&mut self, n: u64) -> Buffers<'m> {
        let front = self.take_front(self.len.saturating_sub(n));
        std::mem::replace(self, front)
    }

    /// Copies to `out`; returns the bytes copied.
    pub fn copy_to(&self, out: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices {
            done += slice.copy_to(&mut out[done..]);
        }
        done
    }

    /// Copies from `data`; returns the bytes copied.
    pub fn copy_from(&self, data: &[u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices {
            done += slice.write(&data[done..], 0).unwrap_or(0);
        }
        done
    }
}
