//! The interrupt translation service: a device's event becomes an LPI at a CPU (Arm IHI 0069, chapter 5).
//!
//! Device tables and tables of events are in the guest's memory and nowhere else: every translation reads them, every command
//! writes them, whatever they hold, so the guest's memory is all that its mappings cost. Collections are kept here as well,
//! since their table, as Linux's KVM lays it out, is a list: it is written whenever one changes, and read when the service
//! is enabled. Choices where the architecture leaves one:
//!
//! - A command that cannot be carried out is ignored. A queue that is in no memory stalls, and so does one whose commands
//!   have moved more LPIs than one access may ([`spec::WORK`]); software lets it go on (`GITS_CWRITER.Retry`).
//! - Enabling it without queue and tables is ignored, and so are writes to their registers while it is enabled.
//! - A store by a CPU to `GITS_TRANSLATER` comes from no device and is ignored.
//! - Commands are done when the write to `GITS_CWRITER` is, so SYNC has nothing to do.

mod command;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, Weak};

use armlet_memory::{AccessSize, MmioDevice, Ram};
use armlet_saved::{SavedIts, Unfit};

use super::GicV3;
use super::frames::{half, identification, read_sized, with_half};
use super::spec::{common, gits, its as spec};
use crate::lock;
use crate::message::{Message, MessageSender, MessageSink};
use table::Collections;

/// The service. Messages come to it through [`MessageSink`].
///
/// Its lock comes before the GIC's.
pub struct Its {
    me: Weak<Self>,
    gic: Arc<GicV3>,
    ram: Ram,
    /// Where messages are written.
    translater: u64,
    state: Mutex<State>,
}

/// Registers, and the collections.
#[derive(Default)]
struct State {
    enabled: bool,
    cbaser: u64,
    cwriter: u64,
    creadr: u64,
    stalled: bool,
    /// Devices, collections.
    basers: [u64; 2],
    collections: Collections,
    /// How many things have been ignored that a guest should not ask for.
    ignored: u64,
}

/// Registers that may be accessed by halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wide {
    Cbaser,
    Cwriter,
    Baser(usize),
}

impl Wide {
    fn at(offset: u64) -> Option<Self> {
        match offset & !7 {
            gits::CBASER => Some(Self::Cbaser),
            gits::CWRITER => Some(Self::Cwriter),
            at @ gits::BASER..gits::BASER_END => Some(Self::Baser(((at - gits::BASER) / 8) as usize)),
            _ => None,
        }
    }
}

impl State {
    fn wide(&self, register: Wide) -> u64 {
        match register {
            Wide::Cbaser => self.cbaser,
            Wide::Cwriter => self.cwriter,
            Wide::Baser(n) => self.baser(n),
        }
    }

    fn baser(&self, n: usize) -> u64 {
        match n {
            0 => self.basers[0] | spec::BASER0_FIXED,
            1 => self.basers[1] | spec::BASER1_FIXED,
            _ => 0,
        }
    }

    fn read(&self, offset: u64) -> u32 {
        match offset {
            gits::CTLR if self.enabled => gits::CTLR_ENABLED,
            gits::CTLR => gits::CTLR_QUIESCENT,
            gits::IIDR => common::IIDR_VALUE,
            common::IDREGS..common::FRAME_END => match identification(offset) {
                _ if offset == common::IDREGS + 0x10 => u32::from(spec::PIDR0),
                other => other,
            },
            _ => match (offset & !7, Wide::at(offset)) {
                (gits::TYPER, _) => half(spec::TYPER, offset),
                (gits::CREADR, _) => half(self.creadr | u64::from(self.stalled), offset),
                (_, Some(register)) => half(self.wide(register), offset),
                _ => 0,
            },
        }
    }

    /// Bytes of the command queue.
    fn queue_size(&self) -> u64 {
        ((self.cbaser & gits::PAGES) + 1) * gits::CBASER_PAGE
    }

    /// Notes that something was ignored; true if it should be told: the 1st, 2nd, 4th, … time.
    fn ignores(&mut self) -> bool {
        self.ignored += 1;
        self.ignored.is_power_of_two()
    }
}

impl Its {
    /// For `gic`, which has LPIs, with its tables in `ram` and its frames at `base`.
    pub fn new(gic: &Arc<GicV3>, ram: Ram, base: u64) -> Arc<Self> {
        let (gic, state) = (Arc::clone(gic), Mutex::default());
        let translater = base + gits::TRANSLATER;
        Arc::new_cyclic(|me| Self { me: Weak::clone(me), gic, ram, translater, state })
    }

    /// As at power-on. What it has put into the guest's memory stays there.
    pub fn reset(&self) {
        *lock(&self.state) = State::default();
    }

    /// All registers. The tables are in the guest's memory.
    pub fn save(&self) -> SavedIts {
        let state = lock(&self.state);
        SavedIts {
            enabled: state.enabled,
            queue: state.cbaser,
            written: state.cwriter,
            read: state.creadr | u64::from(state.stalled),
            devices: state.basers[0],
            collections: state.basers[1],
        }
    }

    /// Checks that `saved` has values that the registers can have.
    ///
    /// # Errors
    /// The first one that cannot be.
    pub fn check(saved: &SavedIts) -> Result<(), Unfit> {
        let SavedIts { enabled, queue, written, read, devices, collections } = *saved;
        let valid = [queue, devices, collections].iter().all(|register| register & gits::VALID != 0);
        let size = ((queue & gits::PAGES) + 1) * gits::CBASER_PAGE;
        for (register, fits) in [
            ("GITS_CBASER", queue & !gits::CBASER_MASK == 0),
            ("GITS_CWRITER", written & !gits::OFFSET == 0 && written < size),
            ("GITS_CREADR", read & !(gits::OFFSET | gits::CREADR_STALLED) == 0 && read < size),
            ("GITS_BASER0", devices & !gits::BASER_MASK == 0),
            ("GITS_BASER1", collections & !(gits::BASER_MASK & !gits::BASER_INDIRECT) == 0),
            ("GITS_CTLR", valid || !enabled),
        ] {
            Unfit::unless(fits, || format!("the interrupt controller: {register} cannot be as it was"))?;
        }
        Ok(())
    }

    /// Takes over all registers, with the tables that are in the guest's memory, which must be there.
    ///
    /// # Errors
    /// As [`Self::check`]; nothing has changed then.
    pub fn restore(&self, saved: &SavedIts) -> Result<(), Unfit> {
        Self::check(saved)?;
        let mut state = lock(&self.state);
        *state = State {
            enabled: saved.enabled,
            cbaser: saved.queue,
            cwriter: saved.written,
            creadr: saved.read & gits::OFFSET,
            stalled: saved.read & gits::CREADR_STALLED != 0,
            basers: [saved.devices, saved.collections],
            ..State::default()
        };
        if state.enabled {
            self.load_collections(&mut state);
        }
        Ok(())
    }

    /// Its frames, [`gits::SIZE`] bytes.
    pub fn frames(&self) -> Arc<dyn MmioDevice> {
        Arc::new(Frames(self.me.upgrade()))
    }

    fn write_word(&self, state: &mut State, offset: u64, value: u32) {
        match (offset, Wide::at(offset)) {
            (gits::CTLR, _) => self.switch(state, value & gits::CTLR_ENABLED != 0),
            (_, Some(register)) => {
                let value = with_half(state.wide(register), offset, value);
                self.write_wide(state, register, value);
            }
            _ => {}
        }
    }

    fn switch(&self, state: &mut State, on: bool) {
        let valid = |register: &u64| register & gits::VALID != 0;
        if on && !state.enabled && valid(&state.cbaser) && state.basers.iter().all(valid) {
            state.enabled = true;
            self.load_collections(state);
            self.process(state);
        } else if !on {
            state.enabled = false;
        }
    }

    fn write_wide(&self, state: &mut State, register: Wide, value: u64) {
        match register {
            Wide::Cwriter => {
                // Behind the queue there is nothing to read.
                if value & gits::OFFSET < state.queue_size() {
                    state.cwriter = value & gits::OFFSET;
                }
                state.stalled &= value & gits::CWRITER_RETRY == 0;
                self.process(state);
            }
            _ if state.enabled => {}
            Wide::Cbaser => {
                state.cbaser = value & gits::CBASER_MASK;
                (state.creadr, state.cwriter, state.stalled) = (0, 0, false);
            }
            Wide::Baser(0) => state.basers[0] = value & gits::BASER_MASK,
            // One level is enough for all collections.
            Wide::Baser(1) => state.basers[1] = value & gits::BASER_MASK & !gits::BASER_INDIRECT,
            Wide::Baser(_) => {}
        }
    }

    /// Translates a message, and has its LPI pending.
    fn deliver(&self, message: Message) {
        if message.address != self.translater {
            tracing::debug!(?message, "nothing takes messages there");
            return;
        }
        let mut state = lock(&self.state);
        if !state.enabled {
            return;
        }
        match self.translate(&state, message.device, message.data) {
            Ok((intid, cpu)) => self.gic.with(|gic| gic.set_lpi(cpu, intid)),
            Err(error) if state.ignores() => {
                tracing::warn!(device = message.device, event = message.data, %error, "a message is lost");
            }
            Err(_) => {}
        }
    }
}

impl MessageSink for Its {
    fn send(&self, message: Message) {
        self.deliver(message);
    }

    fn sender(&self, message: Message) -> Box<dyn MessageSender> {
        Box::new(Sender { its: Weak::clone(&self.me), message })
    }
}

struct Sender {
    its: Weak<Its>,
    message: Message,
}

impl MessageSender for Sender {
    fn send(&self) {
        // A mapping can change at any moment, so nothing is worked out before.
        if let Some(its) = self.its.upgrade() {
            its.deliver(self.message);
        }
    }
}

struct Frames(Option<Arc<Its>>);

impl MmioDevice for Frames {
    fn name(&self) -> &str {
        "gicv3-its"
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        let Some(its) = self.0.as_ref().filter(|_| offset < common::FRAME_END) else { return 0 };
        let state = lock(&its.state);
        read_sized(offset, size, |o| state.read(o))
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        let aligned = offset.is_multiple_of(size.bytes()) && offset < common::FRAME_END;
        let Some(its) = self.0.as_ref().filter(|_| aligned) else { return };
        let mut state = lock(&its.state);
        match (size, Wide::at(offset)) {
            (AccessSize::Double, Some(register)) => its.write_wide(&mut state, register, value),
            (AccessSize::Double, None) => {
                its.write_word(&mut state, offset, value as u32);
                its.write_word(&mut state, offset + 4, (value >> 32) as u32);
            }
            (AccessSize::Word, _) => its.write_word(&mut state, offset, value as u32),
            (AccessSize::Half | AccessSize::Byte, _) => {}
        }
    }
}
