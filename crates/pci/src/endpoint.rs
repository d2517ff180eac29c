//! What every function has: configuration space, INTx, and MSI-X if it wants that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use armlet_devices::{InterruptLine, MessageSink};
use armlet_memory::AccessSize;
use armlet_saved::{SavedPciFunction, Unfit};

use crate::config::ConfigSpace;
use crate::msix::Msix;
use crate::spec::{capability, command, header, msix, status};

/// Where MSI-X's table and pending bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixPlace {
    /// The BAR.
    pub bar: u8,
    /// Offset of the table in it, a multiple of 8.
    pub table: u32,
    /// Offset of the pending bits, likewise.
    pub pending: u32,
}

struct State {
    config: ConfigSpace,
    /// The function wants to interrupt by INTx.
    wants: bool,
    /// What its pin is at.
    asserted: bool,
    /// Messages wait, whatever the registers say.
    held: bool,
}

/// The part of a function that is alike for all.
///
/// Lock order: configuration, then MSI-X, then the shared lines, then the interrupt controller. A function's own locks
/// come before.
pub struct Endpoint {
    state: Mutex<State>,
    msix: Option<(Msix, u16)>,
    pin: Arc<dyn InterruptLine>,
}

impl Endpoint {
    /// A function with this configuration space and this INTA.
    pub fn new(config: ConfigSpace, pin: Arc<dyn InterruptLine>) -> Self {
        Self {
            state: Mutex::new(State { config, wants: false, asserted: false, held: false }),
            msix: None,
            pin,
        }
    }

    /// The same with `count` vectors, of the function with the requester ID `device`.
    #[must_use]
    pub fn with_msix(
        mut self,
        count: usize,
        place: MsixPlace,
        device: u32,
        sink: Arc<dyn MessageSink>,
    ) -> Self {
        let vectors = Msix::new(count, device, sink);
        let mut body = [0; msix::LENGTH - 2];
        body[..2].copy_from_slice(&(vectors.count() as u16 - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(place.table | u32::from(place.bar)).to_le_bytes());
        body[6..].copy_from_slice(&(place.pending | u32::from(place.bar)).to_le_bytes());
        let writable = (msix::ENABLE | msix::MASK_ALL).to_le_bytes();
        let at = self.lock().config.add_capability(capability::MSI_X, &body, &writable);
        self.msix = Some((vectors, at));
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its vectors.
    pub fn msix(&self) -> Option<&Msix> {
        self.msix.as_ref().map(|(msix, _)| msix)
    }

    /// Looks at the configuration space, or changes what the guest cannot.
    pub fn with_config<R>(&self, f: impl FnOnce(&mut ConfigSpace) -> R) -> R {
        f(&mut self.lock().config)
    }

    /// Reads up to four bytes of configuration space.
    pub fn read_config(&self, offset: u16, size: AccessSize) -> u32 {
        let state = self.lock();
        let value = state.config.read(offset, size);
        let byte = header::STATUS.checked_sub(offset).filter(|&n| u64::from(n) < size.bytes().min(4));
        match byte {
            Some(byte) if state.wants && !self.sends_messages(&state) => {
                value | u32::from(status::INTERRUPT) << (8 * byte)
            }
            _ => value,
        }
    }

    /// Writes up to four bytes, with all that follows from it inside of the function.
    pub fn write_config(&self, offset: u16, size: AccessSize, value: u32) {
        let mut state = self.lock();
        state.config.write(offset, size, value);
        self.settle(&mut state);
    }

    /// True if the function may access memory.
    pub fn is_bus_master(&self) -> bool {
        self.lock().config.command() & command::BUS_MASTER != 0
    }

    /// Has messages wait, or lets them go. When this returns for the former, all that were sent have come to the interrupt
    /// controller, which some ways do not promise ([`MessageSender`](armlet_devices::MessageSender)s are gone then).
    pub fn hold(&self, held: bool) {
        let mut state = self.lock();
        state.held = held;
        self.settle(&mut state);
    }

    /// Whether the function wants to interrupt by INTx.
    pub fn set_interrupt(&self, wants: bool) {
        let mut state = self.lock();
        state.wants = wants;
        self.settle(&mut state);
    }

    fn sends_messages(&self, state: &State) -> bool {
        let control = self.msix.as_ref().map_or(0, |(_, at)| state.config.half(at + msix::CONTROL));
        control & msix::ENABLE != 0
    }

    /// Has the vectors and the pin follow the registers.
    fn settle(&self, state: &mut State) {
        let messages = self.sends_messages(state);
        let command = state.config.command();
        if let Some((vectors, at)) = &self.msix {
            let masked = state.config.half(at + msix::CONTROL) & msix::MASK_ALL != 0;
            let held = state.held || command & command::BUS_MASTER == 0;
            vectors.configure(messages, masked || held);
        }
        let asserted = state.wants && !messages && command & command::INTX_DISABLE == 0;
        if asserted != state.asserted {
            state.asserted = asserted;
            self.pin.set(asserted);
        }
    }

    /// As after power-on, but for what the function itself wants.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.config.reset();
        if let Some((vectors, _)) = &self.msix {
            vectors.reset();
        }
        self.settle(&mut state);
    }

    /// Configuration space and vectors.
    pub fn save(&self) -> SavedPciFunction {
        let state = self.lock();
        let vectors = self.msix.as_ref().map_or_else(Vec::new, |(msix, _)| msix.save());
        SavedPciFunction { config: state.config.save(), vectors }
    }

    /// Takes that over.
    ///
    /// # Errors
    /// It is another function's.
    pub fn restore(&self, saved: &SavedPciFunction) -> Result<(), Unfit> {
        let mut state = self.lock();
        state.config.restore(&saved.config)?;
        match &self.msix {
            Some((msix, _)) => msix.restore(&saved.vectors)?,
            None => Unfit::unless(saved.vectors.is_empty(), || "it had interrupt vectors".into())?,
        }
        self.settle(&mut state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Identity;
    use crate::testing::Post;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Default)]
    struct Level(AtomicBool);

    impl InterruptLine for Level {
        fn set(&self, level: bool) {
            self.0.store(level, Ordering::SeqCst);
        }
    }

    fn endpoint() -> (Endpoint, Arc<Level>, Arc<Post>) {
        let identity =
            Identity { vendor: 1, device: 2, revision: 3, class: 4, subsystem_vendor: 5, subsystem: 6 };
        let mut config = ConfigSpace::new(&identity);
        config.add_interrupt();
        let (level, post) = (Arc::new(Level::default()), Arc::new(Post::default()));
        let place = MsixPlace { bar: 1, table: 0, pending: 0x800 };
        let endpoint =
            Endpoint::new(config, Arc::clone(&level) as _).with_msix(2, place, 8, Arc::clone(&post) as _);
        (endpoint, level, post)
    }

    #[test]
    fn intx_is_asserted_unless_it_is_disabled_or_messages_are_wanted() {
        let (e, level, _) = endpoint();
        let high = || level.0.load(Ordering::SeqCst);
        e.set_interrupt(true);
        assert!(high());
        for (offset, size, bit) in
            [(6, AccessSize::Half, 8), (4, AccessSize::Word, 8 << 16), (6, AccessSize::Byte, 8)]
        {
            assert_eq!(e.read_config(offset, size) & bit, bit);
        }
        e.write_config(4, AccessSize::Half, command::INTX_DISABLE.into());
        assert!(!high());
        assert_eq!(e.read_config(6, AccessSize::Half) & 8, 8, "it still wants to");
        e.write_config(4, AccessSize::Half, 0);
        assert!(high());
        e.write_config(0x42, AccessSize::Half, msix::ENABLE.into());
        assert!(!high());
        assert_eq!(e.read_config(6, AccessSize::Half) & 8, 0);
        e.write_config(0x42, AccessSize::Half, 0);
        assert!(high());
        e.set_interrupt(false);
        assert!(!high());
    }

    #[test]
    fn messages_wait_for_the_bus_and_for_the_functions_mask() {
        let (e, _, post) = endpoint();
        let msix = e.msix().unwrap();
        msix.write_table(12, AccessSize::Word, 0);
        e.write_config(0x42, AccessSize::Half, (msix::ENABLE | msix::MASK_ALL).into());
        assert_eq!(e.read_config(0x42, AccessSize::Half), 0xc001);
        assert!(msix.signal(0));
        e.write_config(0x42, AccessSize::Half, msix::ENABLE.into());
        assert_eq!(post.take(), [], "it is no bus master yet");
        e.write_config(4, AccessSize::Half, command::BUS_MASTER.into());
        assert_eq!(post.take().len(), 1);
        assert!(e.is_bus_master());
        e.hold(true);
        msix.signal(0);
        assert_eq!(post.take(), []);
        e.hold(false);
        assert_eq!(post.take().len(), 1);
        let saved = e.save();
        let (other, _, post) = endpoint();
        other.restore(&saved).unwrap();
        other.msix().unwrap().signal(0);
        assert_eq!(post.take().len(), 1);
        assert_eq!(other.save(), saved);
        other.reset();
        assert_eq!(other.save(), endpoint().0.save());
    }
}
