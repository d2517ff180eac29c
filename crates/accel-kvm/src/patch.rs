//! Breakpoints for which the host's CPU has no register: BRK stands in place of the instruction. Needs no KVM.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use armlet_memory::{AccessSize, Ram};

/// `BRK #0`
const BRK: u32 = 0xd420_0000;

/// The instructions of a machine that are replaced, by guest-physical address.
///
/// Locks: its own, and no other one meanwhile.
#[derive(Debug, Default)]
pub struct Patches(Mutex<BTreeMap<u64, Patch>>);

#[derive(Debug)]
struct Patch {
    /// The instruction that was there.
    word: u32,
    /// How many vCPUs want it.
    users: usize,
}

impl Patches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Patch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts BRK at `address`, for one more user; false if there is no memory.
    pub fn put(&self, ram: &Ram, address: u64) -> bool {
        let mut all = self.lock();
        if let Some(patch) = all.get_mut(&address) {
            patch.users += 1;
            return true;
        }
        let Some(word) = ram.load(address, AccessSize::Word) else { return false };
        all.insert(address, Patch { word: word as u32, users: 1 });
        ram.store(address, AccessSize::Word, BRK.into()).is_some()
    }

    /// One user less; the last one has the instruction put back, unless the guest has written another one meanwhile.
    pub fn remove(&self, ram: &Ram, address: u64) {
        let mut all = self.lock();
        let Some(patch) = all.get_mut(&address) else { return };
        patch.users -= 1;
        if patch.users > 0 {
            return;
        }
        let word = patch.word;
        all.remove(&address);
        if ram.load(address, AccessSize::Word) == Some(BRK.into()) {
            let _ = ram.store(address, AccessSize::Word, word.into());
        }
    }

    /// The instruction that was at `address`, if it is replaced.
    pub fn instruction(&self, address: u64) -> Option<u32> {
        self.lock().get(&address).map(|patch| patch.word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x4000_0010;

    #[test]
    fn an_instruction_comes_back_when_the_last_user_has_gone() {
        let (ram, patches) = (Ram::new(0x4000_0000, 0x1_0000).unwrap(), Patches::default());
        ram.store(AT, AccessSize::Word, 0xd503_201f).unwrap();
        let there = || ram.load(AT, AccessSize::Word);
        assert!(patches.put(&ram, AT) && patches.put(&ram, AT));
        assert_eq!((there(), patches.instruction(AT)), (Some(BRK.into()), Some(0xd503_201f)));
        patches.remove(&ram, AT);
        assert_eq!(there(), Some(BRK.into()));
        patches.remove(&ram, AT);
        assert_eq!((there(), patches.instruction(AT)), (Some(0xd503_201f), None));
        patches.remove(&ram, AT);
        assert!(!patches.put(&ram, 0x3000_0000), "there is no memory");
        assert_eq!(patches.instruction(0x3000_0000), None);
    }

    #[test]
    fn what_the_guest_has_written_since_stays() {
        let (ram, patches) = (Ram::new(0x4000_0000, 0x1_0000).unwrap(), Patches::default());
        assert!(patches.put(&ram, AT));
        ram.store(AT, AccessSize::Word, 0x1400_0000).unwrap();
        patches.remove(&ram, AT);
        assert_eq!(ram.load(AT, AccessSize::Word), Some(0x1400_0000));
    }
}
