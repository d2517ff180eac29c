//! The code cache of one vCPU: memory, blocks, and the jumps between them.
//!
//! One vCPU's translated code is its own: publishing, chaining and patching need no synchronisation, and
//! maintenance by other vCPUs arrives as messages that are handled between blocks.

mod memory;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

pub use memory::CodeMemory;

use crate::host::x86_64::asm::{Asm, RAX};
use crate::host::x86_64::generate::Generator;
use crate::host::x86_64::generate::carry::{Carried, emit_bridge};
use crate::ir::Inst;
use crate::mmu::SideEntry;

/// Hashes block keys: physical addresses are spread well by one multiplication.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

type KeyMap<V> = HashMap<u64, V, BuildHasherDefault<KeyHasher>>;

/// What a block depends on: physical address of its first instruction, and context bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockKey {
    /// Physical address.
    pub pa: u64,
    /// Exception level, floating-point mode and so on, and [`CAREFUL`].
    pub context: u16,
}

impl BlockKey {
    /// Physical addresses have at most 52 bits, of which instructions' last two are zero; contexts fit in 14.
    fn packed(self) -> u64 {
        self.pa >> 2 | u64::from(self.context) << 50
    }
}

/// Context bit of a block that checks each access by itself.
pub const CAREFUL: u16 = 1 << 11;

/// Context bit of a block for EL1.
pub const EL1: u16 = 1 << 0;

/// Context bit of a block that is one instruction.
pub const STEP: u16 = 1 << 10;

/// Number of a block.
pub type BlockId = u32;

/// Where the numbering of a new block's parts begins.
#[derive(Clone, Copy, Default, Debug)]
pub struct Numbers {
    /// First exit.
    pub exit: u32,
    /// First side table entry.
    pub entry: u32,
}

struct Block {
    key: BlockKey,
    /// Offset of the code; the outer entry is there.
    code: u32,
    inner: u32,
    /// The entry at which host vector registers hold what is wanted, and what that is, by its number.
    warm: u32,
    wanted: u32,
    /// What the warm entry leads to when the block is gone.
    stale: u32,
    valid: bool,
    /// Where instructions begin, if that is wanted: offset of the code, offset in the guest's page.
    marks: Vec<(u32, u16)>,
    /// Executed by slow paths, by address.
    #[expect(clippy::vec_box, reason = "their addresses are in the code")]
    _slow: Vec<Box<Inst>>,
}

struct Exit {
    /// The block that it leaves.
    block: BlockId,
    /// Offset of the displacement.
    site: u32,
    /// The instruction that it goes to.
    target: u16,
    /// It goes to a careful block.
    careful: bool,
    /// What host vector registers hold there, by its number.
    carried: u32,
}

/// Counters of the cache.
#[derive(Clone, Copy, Default, Debug)]
pub struct CacheStatistics {
    /// Blocks made.
    pub blocks: u64,
    /// Bytes of host code made.
    pub bytes: u64,
    /// Times that everything was dropped because the memory was full.
    pub flushes: u64,
    /// Blocks invalidated by maintenance.
    pub invalidated: u64,
}

/// Blocks and their memory.
pub struct CodeCache {
    memory: CodeMemory,
    /// First byte after the thunks.
    start: usize,
    blocks: Vec<Block>,
    exits: Vec<Exit>,
    side_table: Vec<SideEntry>,
    /// What host vector registers hold at places; the first is nothing.
    carried: Vec<Carried>,
    map: KeyMap<BlockId>,
    pages: KeyMap<Vec<BlockId>>,
    /// Counters.
    pub statistics: CacheStatistics,
}

/// Room that a new block is sure to have: the largest block is far smaller.
const HEADROOM: usize = 256 << 10;

/// Room for a bridge.
const BRIDGE: usize = 1 << 10;

impl CodeCache {
    /// Host addresses that code may have.
    pub fn addresses(&self) -> Range<u64> {
        self.memory.addresses()
    }

    /// An empty cache in `memory`, whose first `used` bytes are taken by thunks.
    pub fn new(memory: CodeMemory, used: usize) -> Self {
        Self {
            memory,
            start: used,
            blocks: Vec::new(),
            exits: Vec::new(),
            side_table: Vec::new(),
            carried: vec![Carried::NOTHING],
            map: KeyMap::default(),
            pages: KeyMap::default(),
            statistics: CacheStatistics::default(),
        }
    }

    /// Finds a block.
    pub fn find(&self, key: BlockKey) -> Option<BlockId> {
        self.map.get(&key.packed()).copied()
    }

    /// True if the next block may not fit: flush first.
    pub fn is_full(&self) -> bool {
        self.memory.room() < HEADROOM
    }

    /// Address at which the next block will be.
    pub fn next_address(&self) -> u64 {
        self.memory.next_address()
    }

    /// The numbers that the next block's first exit and first side table entry will have.
    pub fn next_numbers(&self) -> Numbers {
        Numbers { exit: self.exits.len() as u32, entry: self.side_table.len() as u32 }
    }

    /// What slow access `number` is to do. None if there is no such entry.
    pub fn side_entry(&self, number: u32) -> Option<&SideEntry> {
        self.side_table.get(number as usize)
    }

    /// Execution address of the code at `offset`, as side table entries give it.
    pub fn address(&self, offset: u32) -> u64 {
        self.memory.address(offset as usize)
    }

    /// Forgets all blocks. The caller forgets all branch targets.
    pub fn flush(&mut self) {
        self.memory.truncate(self.start);
        self.blocks.clear();
        self.exits.clear();
        self.side_table.clear();
        self.carried.truncate(1);
        self.map.clear();
        self.pages.clear();
        self.statistics.flushes += 1;
    }

    /// Takes the code that `generator` has just made for `key`.
    pub fn insert(&mut self, key: BlockKey, generator: &mut Generator) -> BlockId {
        let id = self.blocks.len() as BlockId;
        let code = self.memory.append(generator.asm.code()) as u32;
        let wanted = generator.wanted_number();
        let before = self.carried.len() as u32;
        self.carried.extend(generator.carried.iter().skip(1));
        // The first is the same everywhere.
        let carried = |number: u32| if number == 0 { 0 } else { before + number - 1 };
        let exits = generator.exits.iter();
        self.exits.extend(exits.map(|e| Exit {
            block: id,
            site: code + e.fixup,
            target: e.target,
            careful: e.careful,
            carried: carried(e.carried),
        }));
        let entries = generator.side_table.iter();
        self.side_table.extend(entries.map(|e| SideEntry {
            resume: code + e.resume,
            otherwise: code + e.otherwise,
            carried: carried(e.carried),
            ..*e
        }));
        self.blocks.push(Block {
            key,
            code,
            inner: code + generator.inner_entry,
            warm: code + generator.warm_entry,
            wanted: carried(wanted),
            stale: code + generator.stale_entry,
            valid: true,
            marks: std::mem::take(&mut generator.marks),
            _slow: std::mem::take(&mut generator.slow_insts),
        });
        self.map.insert(key.packed(), id);
        self.pages.entry(key.pa >> 12).or_default().push(id);
        self.statistics.blocks += 1;
        self.statistics.bytes += generator.asm.len() as u64;
        id
    }

    /// Address of the outer entry: rax must hold the virtual address.
    pub fn outer(&self, id: BlockId) -> u64 {
        self.memory.address(self.blocks[id as usize].code as usize)
    }

    /// The instruction offset that exit `number` goes to, if it still exists, and whether to a careful block.
    pub fn exit_target(&self, number: u32) -> Option<(u16, bool)> {
        self.exits.get(number as usize).map(|e| (e.target, e.careful))
    }

    /// The instruction that host code at `address` is of, if it is known: its offset in its page, and its exception level.
    /// Code behind a block's instructions, such as slow paths, counts as the last one's.
    pub fn instruction_at(&self, address: u64) -> Option<(u16, u8)> {
        let offset = u32::try_from(address.checked_sub(self.memory.address(0))?).ok()?;
        let next = self.blocks.partition_point(|b| b.code <= offset);
        let block = self.blocks.get(next.checked_sub(1)?)?;
        let inside = offset - block.code;
        let mark = block.marks.partition_point(|(code, _)| *code <= inside).checked_sub(1);
        let first = (block.key.pa & 0xfff) as u16;
        let instruction = mark.map_or(first, |m| block.marks[m].1);
        Some((instruction, u8::from(block.key.context & EL1 != 0)))
    }

    /// Makes exit `number` jump to block `id` directly, if that holds wherever the exit's block is mapped:
    /// both are in the same physical page. Maintenance may have come between: the exit's block may be gone,
    /// its code overwritten, or the virtual page be another one now. Tells whether it did.
    pub fn chain(&mut self, number: u32, id: BlockId) -> bool {
        let Some(exit) = self.exits.get(number as usize) else { return false };
        let (from, to) = (&self.blocks[exit.block as usize], &self.blocks[id as usize]);
        let same_context = (from.key.context ^ to.key.context) & !CAREFUL == 0;
        let as_careful = (to.key.context & CAREFUL != 0) == exit.careful;
        let same = from.key.pa >> 12 == to.key.pa >> 12 && same_context && as_careful;
        if !(same && from.valid && to.valid) {
            return false;
        }
        if self.memory.room() < BRIDGE {
            return false;
        }
        let site = exit.site as usize;
        let target = self.bridge((exit.carried, to.wanted), (to.inner, to.warm));
        let displacement = target.wrapping_sub(site as u32 + 4);
        self.memory.patch(site, &displacement.to_le_bytes());
        true
    }

    /// Where an exit goes on its way to a block with these entries, which may have to be made. What the exit holds and
    /// the block wants are given by their numbers.
    fn bridge(&mut self, (held, wanted): (u32, u32), (inner, warm): (u32, u32)) -> u32 {
        let [held, wanted] = [held, wanted].map(|number| self.carried[number as usize]);
        let entries = [inner, warm].map(|entry| self.memory.address(entry as usize));
        let here = self.memory.next_address();
        let mut a = Asm::default();
        a.reset(here);
        match emit_bridge(&mut a, &held, &wanted, entries) {
            Some(entry) if entry == entries[1] => warm,
            Some(_) => inner,
            None => {
                self.statistics.bytes += a.len() as u64;
                self.memory.append(a.code()) as u32
            }
        }
    }

    /// What host vector registers hold at the place of this number.
    pub fn carried(&self, number: u32) -> Carried {
        self.carried.get(number as usize).copied().unwrap_or(Carried::NOTHING)
    }

    /// True if there is code from the physical page `page` (number, not address).
    pub fn has_page(&self, page: u64) -> bool {
        self.pages.get(&page).is_some_and(|p| !p.is_empty())
    }

    /// Invalidates the blocks of the physical page `page`. `thunks` are where its entries will go. Tells
    /// whether there were any.
    pub fn invalidate_page(&mut self, page: u64, thunks: &crate::host::x86_64::thunks::Thunks) -> bool {
        let Some(blocks) = self.pages.remove(&page) else { return false };
        let any = !blocks.is_empty();
        for id in blocks {
            self.invalidate(id, thunks);
        }
        any
    }

    /// Jumps into the block, from anywhere, will leave translated code and look for a new one.
    fn invalidate(&mut self, id: BlockId, thunks: &crate::host::x86_64::thunks::Thunks) {
        let block = &mut self.blocks[id as usize];
        if !std::mem::replace(&mut block.valid, false) {
            return;
        }
        let (code, inner, warm) = (block.code as usize, block.inner as usize, block.warm as usize);
        let (key, stale) = (block.key, block.stale as usize);
        self.map.remove(&key.packed());
        self.statistics.invalidated += 1;
        let mut a = Asm::default();
        a.reset(self.memory.address(code));
        a.jmp_to(thunks.indirect);
        self.memory.patch(code, a.code());
        a.reset(self.memory.address(inner));
        a.mov_imm(RAX, (key.pa & 0xfff) as i64);
        a.jmp_to(thunks.poll);
        self.memory.patch(inner, a.code());
        if warm != inner {
            a.reset(self.memory.address(warm));
            a.jmp_to(self.memory.address(stale));
            self.memory.patch(warm, a.code());
        }
    }

    /// Invalidates all blocks.
    pub fn invalidate_all(&mut self, thunks: &crate::host::x86_64::thunks::Thunks) -> bool {
        let pages: Vec<u64> = self.pages.keys().copied().collect();
        let mut any = false;
        for page in pages {
            any |= self.invalidate_page(page, thunks);
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::x86_64::generate::ExitSite;
    use crate::host::x86_64::thunks::Thunks;

    /// Offset of the one patchable exit in each of the blocks below.
    const SITE: u32 = 1;

    fn cache() -> CodeCache {
        CodeCache::new(CodeMemory::new(1 << 20).expect("memory"), 0)
    }

    /// A block of 64 bytes with one exit, at physical address `pa`.
    fn insert(cache: &mut CodeCache, pa: u64, context: u16) -> BlockId {
        let mut g = Generator::new(Thunks::default());
        g.asm.reset(cache.next_address());
        (0..64).for_each(|_| g.asm.int3());
        g.exits.push(ExitSite { fixup: SITE, target: 0x40, careful: false, carried: 0 });
        cache.insert(BlockKey { pa, context }, &mut g)
    }

    #[test]
    fn only_blocks_of_one_page_and_context_are_chained() {
        let mut c = cache();
        insert(&mut c, 0x1000, 1);
        let elsewhere = insert(&mut c, 0x2040, 1);
        let other_context = insert(&mut c, 0x1040, 3);
        let to = insert(&mut c, 0x1040, 1);
        assert!(!c.chain(0, elsewhere), "another physical page");
        assert!(!c.chain(0, other_context), "another context");
        assert!(c.chain(0, to));
    }

    #[test]
    fn the_exit_of_an_invalid_block_is_left_alone() {
        let mut c = cache();
        insert(&mut c, 0x1000, 1);
        let near = c.next_address();
        c.invalidate_page(1, &Thunks { indirect: near, poll: near, ..Thunks::default() });
        let to = insert(&mut c, 0x1040, 1);
        assert!(!c.chain(0, to));
    }
}
