//! MSI-X (PCI 6.8.2): vectors, each a message that the guest has written into a table.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use armlet_devices::{Message, MessageSender, MessageSink};
use armlet_memory::AccessSize;
use armlet_saved::{SavedVector, Unfit};

use crate::spec::msix::{ADDRESS_HIGH, ADDRESS_LOW, DATA, ENTRY, MAX_VECTORS, VECTOR_CONTROL};

/// One vector.
struct Vector {
    address: u64,
    data: u32,
    masked: bool,
    /// What it stands for happened while no message could go out.
    pending: bool,
    /// Made when the message can go out, until anything about that changes.
    sender: Option<Box<dyn MessageSender>>,
}

impl Default for Vector {
    fn default() -> Self {
        Self { address: 0, data: 0, masked: true, pending: false, sender: None }
    }
}

struct State {
    vectors: Vec<Vector>,
    /// The guest has chosen messages instead of INTx.
    enabled: bool,
    /// None goes out: the function is masked, or may not access the bus.
    held: bool,
}

/// A function's vectors.
///
/// Lock order: after the function's configuration, before the interrupt controller's.
pub struct Msix {
    device: u32,
    sink: Arc<dyn MessageSink>,
    state: Mutex<State>,
}

impl Msix {
    /// `count` vectors, up to [`MAX_VECTORS`], all masked, of the function with this requester ID.
    pub fn new(count: usize, device: u32, sink: Arc<dyn MessageSink>) -> Self {
        let vectors = (0..count.clamp(1, MAX_VECTORS)).map(|_| Vector::default()).collect();
        Self { device, sink, state: Mutex::new(State { vectors, enabled: false, held: true }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of vectors.
    pub fn count(&self) -> usize {
        self.lock().vectors.len()
    }

    /// Bytes of the table.
    pub fn table_size(&self) -> u64 {
        self.count() as u64 * ENTRY
    }

    /// All as after power-on.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.vectors.iter_mut().for_each(|vector| *vector = Vector::default());
        (state.enabled, state.held) = (false, true);
    }

    /// What was to be told is not any more.
    pub fn forget(&self) {
        self.lock().vectors.iter_mut().for_each(|vector| vector.pending = false);
    }

    /// What the function's registers say: messages are wanted, and whether none may go out at present.
    pub fn configure(&self, enabled: bool, held: bool) {
        let mut state = self.lock();
        if (state.enabled, state.held) != (enabled, held) {
            (state.enabled, state.held) = (enabled, held);
            (0..state.vectors.len()).for_each(|n| self.settle(&mut state, n));
        }
    }

    /// True if the guest wants messages instead of INTx.
    pub fn is_enabled(&self) -> bool {
        self.lock().enabled
    }

    /// Sends the message of vector `n`, or notes that it is to be sent; a vector that does not exist sends none. False
    /// if the guest wants INTx.
    pub fn signal(&self, n: u16) -> bool {
        let mut state = self.lock();
        if !state.enabled {
            return false;
        }
        if let Some(vector) = state.vectors.get_mut(usize::from(n)) {
            match &vector.sender {
                Some(sender) => sender.send(),
                None => vector.pending = true,
            }
        }
        true
    }

    /// Makes or drops the sender of a vector about which something has changed, and sends what waited for that.
    fn settle(&self, state: &mut State, n: usize) {
        let may_send = state.enabled && !state.held;
        let vector = &mut state.vectors[n];
        if !may_send || vector.masked {
            vector.sender = None;
        } else if vector.sender.is_none() {
            let message = Message { device: self.device, address: vector.address, data: vector.data };
            let sender = self.sink.sender(message);
            if std::mem::take(&mut vector.pending) {
                sender.send();
            }
            vector.sender = Some(sender);
        }
    }

    /// Reads from the table; only whole words and pairs of them can be.
    pub fn read_table(&self, offset: u64, size: AccessSize) -> u64 {
        let state = self.lock();
        by_words(offset, size).fold(0, |value, (at, shift)| value | u64::from(word(&state, at)) << shift)
    }

    /// Writes to the table.
    pub fn write_table(&self, offset: u64, size: AccessSize, value: u64) {
        let mut state = self.lock();
        for (at, shift) in by_words(offset, size) {
            let (n, new) = ((at / ENTRY) as usize, (value >> shift) as u32);
            let Some(vector) = state.vectors.get_mut(n) else { continue };
            match at % ENTRY / 4 {
                // Messages are words: the lowest two bits are none of the address.
                ADDRESS_LOW => set(&mut vector.address, 0, new & !3),
                ADDRESS_HIGH => set(&mut vector.address, 32, new),
                DATA => vector.data = new,
                _ => vector.masked = new & 1 != 0,
            }
            if at % ENTRY / 4 != VECTOR_CONTROL {
                vector.sender = None;
            }
            self.settle(&mut state, n);
        }
    }

    /// Reads pending bits, which nobody can write.
    pub fn read_pending(&self, offset: u64, size: AccessSize) -> u64 {
        let state = self.lock();
        let bit = |n: u64| state.vectors.get(n as usize).is_some_and(|vector| vector.pending);
        let word = |at: u64| {
            (0..32).fold(0, |word, n| word | u64::from(bit(at.saturating_mul(8).saturating_add(n))) << n)
        };
        by_words(offset, size).fold(0, |value, (at, shift)| value | word(at) << shift)
    }

    /// The table and the pending bits.
    pub fn save(&self) -> Vec<SavedVector> {
        let vector = |v: &Vector| SavedVector {
            address: v.address,
            data: v.data,
            masked: v.masked,
            pending: v.pending,
        };
        self.lock().vectors.iter().map(vector).collect()
    }

    /// Takes that over; whoever does says then what the function's registers are ([`Self::configure`]).
    ///
    /// # Errors
    /// There were more or fewer vectors.
    pub fn restore(&self, saved: &[SavedVector]) -> Result<(), Unfit> {
        let mut state = self.lock();
        Unfit::unless(saved.len() == state.vectors.len(), || "it had other interrupt vectors".into())?;
        (state.enabled, state.held) = (false, true);
        for (vector, saved) in state.vectors.iter_mut().zip(saved) {
            let SavedVector { address, data, masked, pending } = *saved;
            *vector = Vector { address: address & !3, data, masked, pending, sender: None };
        }
        Ok(())
    }
}

/// The aligned words of an access, and where each is in its value.
fn by_words(offset: u64, size: AccessSize) -> impl Iterator<Item = (u64, u32)> {
    let words = match size {
        AccessSize::Word if offset.is_multiple_of(4) => 1,
        AccessSize::Double if offset.is_multiple_of(8) => 2,
        _ => 0,
    };
    (0..words).map(move |n| (offset.wrapping_add(4 * n), 32 * n as u32))
}

fn word(state: &State, at: u64) -> u32 {
    let Some(vector) = state.vectors.get((at / ENTRY) as usize) else { return 0 };
    match at % ENTRY / 4 {
        ADDRESS_LOW => vector.address as u32,
        ADDRESS_HIGH => (vector.address >> 32) as u32,
        DATA => vector.data,
        _ => vector.masked.into(),
    }
}

fn set(address: &mut u64, shift: u32, half: u32) {
    *address = *address & !(u64::from(u32::MAX) << shift) | u64::from(half) << shift;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Post;

    fn msix() -> (Msix, Arc<Post>) {
        let post = Arc::new(Post::default());
        (Msix::new(3, 0x18, Arc::clone(&post) as _), post)
    }

    fn write(m: &Msix, vector: u64, words: [u32; 4]) {
        for (n, word) in words.into_iter().enumerate() {
            m.write_table(16 * vector + 4 * n as u64, AccessSize::Word, word.into());
        }
    }

    const ADDRESS: u32 = 0x0809_0040;

    #[test]
    fn a_message_goes_out_as_it_was_written() {
        let (m, post) = msix();
        assert!(!m.signal(0), "INTx is wanted");
        m.configure(true, false);
        write(&m, 1, [ADDRESS | 3, 1, 7, 0]);
        assert!(m.signal(1));
        assert!(m.signal(9), "there is no such vector, and no INTx either");
        let message = Message { device: 0x18, address: 0x1_0000_0000 | u64::from(ADDRESS), data: 7 };
        assert_eq!(post.take(), [message]);
        assert_eq!(post.made(), 1, "while it is unmasked it is made once");
        write(&m, 1, [ADDRESS, 0, 8, 0]);
        m.signal(1);
        assert_eq!(post.take(), [Message { device: 0x18, address: ADDRESS.into(), data: 8 }]);
    }

    #[test]
    fn what_is_masked_is_pending_and_goes_out_once_when_it_may() {
        let (m, post) = msix();
        m.configure(true, false);
        write(&m, 2, [ADDRESS, 0, 5, 1]);
        m.signal(2);
        m.signal(2);
        assert_eq!(m.read_pending(0, AccessSize::Double), 1 << 2);
        assert_eq!(post.take(), []);
        m.write_table(0x2c, AccessSize::Word, 0);
        assert_eq!(post.take().len(), 1);
        assert_eq!(m.read_pending(0, AccessSize::Word), 0);
        // The function's mask, and a bus that it may not access, are the same to it.
        m.configure(true, true);
        m.signal(2);
        assert_eq!(m.read_pending(0, AccessSize::Word), 1 << 2);
        m.configure(true, false);
        assert_eq!(post.take().len(), 1);
        // Nothing is said of the past when messages are switched on.
        m.configure(false, false);
        assert!(!m.signal(2));
        m.configure(true, false);
        assert_eq!(post.take(), []);
    }

    #[test]
    fn the_table_reads_as_written_by_words_and_pairs_only() {
        let (m, _) = msix();
        for n in 0..3 {
            assert_eq!(m.read_table(16 * n + 12, AccessSize::Word), 1, "masked after a reset");
        }
        m.write_table(0x10, AccessSize::Double, 0x1122_3344_5566_7788);
        assert_eq!(m.read_table(0x10, AccessSize::Word), 0x5566_7788);
        assert_eq!(m.read_table(0x14, AccessSize::Word), 0x1122_3344);
        m.write_table(0x18, AccessSize::Double, 0xffff_fffe_0000_0009);
        assert_eq!(m.read_table(0x18, AccessSize::Double), 9, "only bit 0 of the control is there");
        for (offset, size) in [(0x10, AccessSize::Byte), (0x12, AccessSize::Word), (0x14, AccessSize::Double)]
        {
            m.write_table(offset, size, 0);
            assert_eq!(m.read_table(offset, size), 0);
        }
        assert_eq!(m.read_table(0x10, AccessSize::Double), 0x1122_3344_5566_7788);
        for offset in [0x30, 0xffc, u64::MAX - 3] {
            m.write_table(offset, AccessSize::Word, u64::MAX);
            assert_eq!(m.read_table(offset, AccessSize::Word), 0);
            assert_eq!(m.read_pending(offset, AccessSize::Word), 0);
        }
    }

    #[test]
    fn a_saved_table_is_the_same_elsewhere() {
        let (m, _) = msix();
        m.configure(true, false);
        write(&m, 0, [ADDRESS, 0, 5, 0]);
        write(&m, 1, [ADDRESS, 2, 6, 1]);
        m.signal(1);
        let saved = m.save();
        let (other, post) = msix();
        other.restore(&saved).unwrap();
        assert_eq!(other.save(), saved);
        other.configure(true, false);
        other.signal(0);
        other.write_table(0x1c, AccessSize::Word, 0);
        let data: Vec<_> = post.take().iter().map(|message| message.data).collect();
        assert_eq!(data, [5, 6]);
        assert!(other.restore(&saved[1..]).is_err());
        other.reset();
        assert_eq!(other.save(), msix().0.save());
    }
}
