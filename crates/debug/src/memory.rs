//! Guest memory as a debugger sees it: RAM only, so that looking at a device never changes it.

use armlet_arm::mmu::{self, Access, AccessKind, Context, Fault, PhysicalMemory, Translation, Unchanged};
use armlet_memory::{AccessSize, AddressSpace, Ram};

const PAGE: u64 = 4096;

/// The guest's translation tables, to look through.
pub(crate) fn tables(ram: &Ram) -> impl PhysicalMemory {
    Unchanged(|pa| ram.load(pa, AccessSize::Double))
}

/// Whose addresses are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Of this translation regime.
    Virtual(Context),
    /// Of the machine.
    Physical,
}

impl Space {
    /// Translates an address for EL1, whatever the page allows.
    pub(crate) fn translate(context: &Context, ram: &Ram, va: u64) -> Result<Translation, Fault> {
        let access = Access { kind: AccessKind::Read, el: 1, pan: false };
        mmu::translate(context, &tables(ram), va, access)
    }

    fn physical(&self, ram: &Ram, address: u64) -> Option<u64> {
        match self {
            Self::Physical => Some(address),
            Self::Virtual(context) => Self::translate(context, ram, address).ok().map(|t| t.pa),
        }
    }

    /// The pieces of `[address, address + length)`, page by page: where each is, and how long. `None` in place of one
    /// that is not RAM, and nothing after it.
    fn pieces(&self, ram: &Ram, address: u64, length: usize) -> Vec<Option<(u64, usize)>> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < length {
            let Some(at) = address.checked_add(done as u64) else {
                pieces.push(None);
                break;
            };
            let size = (length - done).min((PAGE - at % PAGE) as usize);
            let place = self.physical(ram, at).filter(|pa| ram.contains(*pa, size as u64));
            pieces.push(place.map(|pa| (pa, size)));
            if place.is_none() {
                break;
            }
            done += size;
        }
        pieces
    }

    /// Reads from `address` on; the number of bytes up to the first that cannot be read.
    pub(crate) fn read(&self, memory: &AddressSpace, address: u64, out: &mut [u8]) -> usize {
        let ram = memory.ram();
        let mut done = 0;
        for (pa, size) in self.pieces(ram, address, out.len()).into_iter().flatten() {
            if ram.read(pa, &mut out[done..done + size]).is_err() {
                break;
            }
            done += size;
        }
        done
    }

    /// Writes all of `data`, or nothing (false). The caller makes vCPUs forget code that was there.
    pub(crate) fn write(&self, memory: &AddressSpace, address: u64, data: &[u8]) -> bool {
        let ram = memory.ram();
        let pieces: Option<Vec<_>> = self.pieces(ram, address, data.len()).into_iter().collect();
        let Some(pieces) = pieces else { return false };
        let mut rest = data;
        for (pa, size) in pieces {
            let (piece, more) = rest.split_at(size);
            if ram.write(pa, piece).is_err() {
                return false;
            }
            rest = more;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use armlet_arm::spec::descriptor;
    use armlet_arm::spec::{sctlr, tcr};
    use armlet_arm::{CpuModel, CpuState, SysReg};
    use armlet_memory::AddressSpaceBuilder;

    use super::*;

    const BASE: u64 = 0x4000_0000;

    fn memory() -> AddressSpace {
        AddressSpaceBuilder::new(Ram::new(BASE, 1 << 20).unwrap()).build()
    }

    /// Maps 0x1000 and 0x2000 to pages that do not follow one another, read-only and never accessed.
    fn mapped(memory: &AddressSpace) -> Space {
        let word = |at: u64, value: u64| memory.ram().store(BASE + at, AccessSize::Double, value).unwrap();
        word(0, BASE + 0x1000 + 3);
        word(0x1000, BASE + 0x2000 + 3);
        word(0x2000, BASE + 0x3000 + 3);
        word(0x3008, BASE + 0x8000 + 3 + descriptor::AP2);
        word(0x3010, BASE + 0x6000 + 3 + descriptor::AP2);
        word(0x3018, 0x0900_0000 + 3);
        let model = CpuModel::by_name("neoverse-n1").unwrap();
        let mut state = CpuState::new(0);
        state.sys[SysReg::SctlrEl1] = sctlr::M;
        state.sys[SysReg::TcrEl1] = 16 | tcr::EPD1 | 5 << tcr::IPS_SHIFT;
        state.sys[SysReg::Ttbr0El1] = BASE;
        Space::Virtual(Context::new(&state, &model))
    }

    #[test]
    fn virtual_memory_is_read_and_written_across_pages_and_the_tables_stay_as_they_are() {
        let memory = memory();
        let space = mapped(&memory);
        let tables = |m: &AddressSpace| {
            let mut all = vec![0; 0x4000];
            m.ram().read(BASE, &mut all).unwrap();
            all
        };
        let before = tables(&memory);
        assert!(space.write(&memory, 0x1ffe, &[1, 2, 3, 4]));
        let mut out = [0; 4];
        assert_eq!(Space::Physical.read(&memory, BASE + 0x8ffe, &mut out[..2]), 2);
        assert_eq!(Space::Physical.read(&memory, BASE + 0x6000, &mut out[2..]), 2);
        assert_eq!(out, [1, 2, 3, 4]);
        let mut out = [0; 4];
        assert_eq!(space.read(&memory, 0x1ffe, &mut out), 4);
        assert_eq!(out, [1, 2, 3, 4]);
        assert_eq!(tables(&memory), before);
    }

    #[test]
    fn what_is_not_memory_is_refused_and_nothing_is_written_then() {
        let memory = memory();
        let space = mapped(&memory);
        let mut out = [0; 0x2000];
        assert_eq!(space.read(&memory, 0x2ff0, &mut out), 16, "up to the page that is a device's");
        assert_eq!(space.read(&memory, 0x3000, &mut out), 0);
        assert_eq!(space.read(&memory, u64::MAX, &mut out), 0);
        assert_eq!(space.read(&memory, 0x8000_0000_0000, &mut out), 0);
        assert!(!space.write(&memory, 0x2ff0, &[9; 17]));
        assert_eq!(space.read(&memory, 0x2ff0, &mut out[..16]), 16);
        assert_eq!(out[..16], [0; 16]);
        let end = BASE + (1 << 20);
        assert_eq!(Space::Physical.read(&memory, end - 1, &mut out), 1);
        assert!(!Space::Physical.write(&memory, end - 1, &[1, 2]));
        assert_eq!(Space::Physical.read(&memory, u64::MAX - 2, &mut out), 0);
        assert!(Space::Physical.write(&memory, end, &[]));
    }
}
