//! The tables in the guest's memory.

use std::collections::BTreeMap;

use armlet_memory::{AccessSize, Gpa};
use thiserror::Error;

use super::super::spec::{gits, its as spec, its_table as layout};
use super::{Its, State};

/// Most collections: their numbers have 16 bits.
const MOST_COLLECTIONS: u64 = 1 << 16;

/// Why something cannot be translated, or a command not be carried out.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub(super) enum Fault {
    #[error("there is no device {0:#x}")]
    NoDevice(u32),
    #[error("the device has no event {0:#x}")]
    NoEvent(u32),
    #[error("collection {0} is not mapped")]
    NoCollection(u16),
    #[error("there is no collection {0}")]
    CollectionRange(u16),
    #[error("there is no CPU {0}")]
    NoCpu(u64),
    #[error("INTID {0} is no LPI")]
    NoLpi(u32),
    #[error("EventIDs have 16 bits at most, not {0}")]
    EventBits(u32),
    #[error("its table is in no memory")]
    NoMemory,
    #[error("there is no command {0:#x}")]
    NoCommand(u8),
}

/// Collections and where they stand in their table, which is a list.
#[derive(Default)]
pub(super) struct Collections {
    by_id: BTreeMap<u16, Entry>,
    /// Their numbers, in the order of the list.
    list: Vec<u16>,
}

#[derive(Clone, Copy)]
struct Entry {
    place: usize,
    cpu: u32,
}

impl Collections {
    pub(super) fn cpu(&self, id: u16) -> Option<usize> {
        self.by_id.get(&id).map(|entry| entry.cpu as usize)
    }

    fn push(&mut self, id: u16, cpu: u32) {
        self.by_id.insert(id, Entry { place: self.list.len(), cpu });
        self.list.push(id);
    }

    /// The list's word at `place`.
    fn word(&self, place: usize) -> u64 {
        let entry = self.list.get(place).and_then(|id| Some((*id, self.by_id.get(id)?.cpu)));
        entry.map_or(0, |(id, cpu)| layout::collection(id, cpu))
    }
}

/// A device's table of events.
#[derive(Clone, Copy)]
pub(super) struct Events {
    table: Gpa,
    bits: u32,
}

impl Events {
    /// Where event `event` is.
    pub(super) fn place(self, event: u32) -> Result<Gpa, Fault> {
        let there = u64::from(event) < 1 << self.bits;
        let place = self.table.checked_add(u64::from(event) * layout::ENTRY);
        place.filter(|_| there).ok_or(Fault::NoEvent(event))
    }

    /// Is it the last that there can be?
    pub(super) fn is_last(self, event: u32) -> bool {
        u64::from(event) + 1 == 1 << self.bits
    }
}

impl Its {
    pub(super) fn load(&self, at: Gpa) -> Option<u64> {
        self.ram.load(at, AccessSize::Double)
    }

    pub(super) fn store(&self, at: Gpa, value: u64) -> Result<(), Fault> {
        self.ram.store(at, AccessSize::Double, value).ok_or(Fault::NoMemory)
    }

    /// Where the entry of a device is.
    pub(super) fn device_place(&self, state: &State, device: u32) -> Result<Gpa, Fault> {
        let baser = state.basers[0];
        let (table, size) = (gits::table_address(baser), gits::table_size(baser));
        let index = u64::from(device);
        let there = index < 1 << spec::ID_BITS;
        let place = if baser & gits::BASER_INDIRECT == 0 {
            Some(index * layout::ENTRY).filter(|offset| *offset < size).map(|offset| table + offset)
        } else {
            let in_page = layout::PAGE / layout::ENTRY;
            let first = Some(index / in_page * layout::ENTRY).filter(|offset| *offset < size);
            let page = first.and_then(|offset| self.load(table + offset));
            let page = page.filter(|page| page & layout::VALID != 0);
            page.map(|page| (page & layout::PAGE_ADDRESS) + index % in_page * layout::ENTRY)
        };
        place.filter(|_| there).ok_or(Fault::NoDevice(device))
    }

    /// The events of a device.
    pub(super) fn events(&self, state: &State, device: u32) -> Result<Events, Fault> {
        let entry = self.load(self.device_place(state, device)?).and_then(layout::device_of);
        let (table, bits) = entry.ok_or(Fault::NoDevice(device))?;
        Ok(Events { table, bits })
    }

    /// An event: where its entry is, its interrupt and its collection.
    pub(super) fn event(&self, state: &State, device: u32, event: u32) -> Result<(Gpa, u32, u16), Fault> {
        self.event_in(self.events(state, device)?, event)
    }

    /// The same of a device's events.
    pub(super) fn event_in(&self, events: Events, event: u32) -> Result<(Gpa, u32, u16), Fault> {
        let place = events.place(event)?;
        let (intid, collection) = layout::event_of(self.load(place).ok_or(Fault::NoMemory)?);
        if intid == 0 { Err(Fault::NoEvent(event)) } else { Ok((place, intid, collection)) }
    }

    /// An event's interrupt, and the CPU that it goes to.
    pub(super) fn translate(&self, state: &State, device: u32, event: u32) -> Result<(u32, usize), Fault> {
        let (_, intid, collection) = self.event(state, device, event)?;
        let cpu = state.collections.cpu(collection).ok_or(Fault::NoCollection(collection))?;
        Ok((intid, cpu))
    }

    /// Can there be a collection of this number?
    pub(super) fn check_collection(state: &State, id: u16) -> Result<(), Fault> {
        let there = u64::from(id) * layout::ENTRY < gits::table_size(state.basers[1]);
        if there { Ok(()) } else { Err(Fault::CollectionRange(id)) }
    }

    /// Reads the collections anew. What cannot be one is left out.
    pub(super) fn load_collections(&self, state: &mut State) {
        let baser = state.basers[1];
        let most = (gits::table_size(baser) / layout::ENTRY).min(MOST_COLLECTIONS);
        state.collections = Collections::default();
        for place in 0..most {
            let entry = self.load(gits::table_address(baser) + place * layout::ENTRY);
            let Some((id, cpu)) = entry.and_then(layout::collection_of) else { return };
            if cpu < self.gic.cpus as u64 && state.collections.cpu(id).is_none() {
                state.collections.push(id, cpu as u32);
            }
        }
    }

    /// Gives a collection a CPU, or takes it away, here and in the table.
    pub(super) fn set_collection(&self, state: &mut State, id: u16, cpu: Option<u32>) -> Result<(), Fault> {
        Self::check_collection(state, id)?;
        let collections = &mut state.collections;
        let known = collections.by_id.get(&id).copied();
        let place = match (known, cpu) {
            (None, None) => return Ok(()),
            (None, Some(cpu)) => {
                collections.push(id, cpu);
                collections.list.len() - 1
            }
            (Some(Entry { place, .. }), Some(cpu)) => {
                collections.by_id.insert(id, Entry { place, cpu });
                place
            }
            (Some(Entry { place, .. }), None) => {
                // The last one takes its place.
                collections.by_id.remove(&id);
                collections.list.swap_remove(place);
                let moved = collections.list.get(place).copied();
                if let Some(entry) = moved.and_then(|moved| collections.by_id.get_mut(&moved)) {
                    entry.place = place;
                }
                place
            }
        };
        self.store_collection(state, place)?;
        // What ends the list, if it does not fill its table.
        self.store_collection(state, state.collections.list.len())
    }

    fn store_collection(&self, state: &State, place: usize) -> Result<(), Fault> {
        let (baser, offset) = (state.basers[1], place as u64 * layout::ENTRY);
        if offset >= gits::table_size(baser) {
            return Ok(());
        }
        self.store(gits::table_address(baser) + offset, state.collections.word(place))
    }
}
