//! TLB sets and their invalidation.

use armlet_arm::sysop::TlbiTarget;

/// Lines of each data table.
pub const LINES: usize = 4096;
/// Lines of the table of instruction pages.
pub const PAGE_LINES: usize = 512;
/// Entries of the jump cache: a kernel and its programs return to many thousand places.
pub const JUMP_CACHE_ENTRIES: usize = 16384;
/// What differs between the two places where a branch target may be: the second has the one that was last replaced in the
/// first. Both are among the same 1024 entries, and next to each other.
pub const OTHER_JUMP: usize = 1;
/// Entries whose places are remembered, so that a few are cheap to go over.
const REMEMBERED: usize = 2048;
/// Kinds of sites: reads and writes of 1, 2, 4 … 32 bytes.
pub const SITE_CLASSES: usize = 12;
/// Sites of each kind.
pub const SITES: usize = 16;
/// A tag that no access compares equal to (tags have low bits clear, or only those below 16).
const NO_TAG: u64 = u64::MAX;
/// Address spaces of EL0 that are kept.
const EL0_SETS: usize = 15;
/// Upper halves of EL1 that are kept: a kernel that unmaps itself from its programs has two for each of them.
const EL1_SETS: usize = 12;

/// One data translation: host address = virtual address + addend.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Line {
    /// Virtual page, tag byte included.
    pub tag: u64,
    /// What to add.
    pub addend: u64,
}

/// One branch target.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Jump {
    /// Virtual address.
    pub va: u64,
    /// Outer entry of its block.
    pub host: u64,
}

/// Translation of an instruction page.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PageLine {
    /// Virtual page.
    pub tag: u64,
    /// Physical page; bit 0 if it is guarded.
    pa: u64,
}

/// Where an instruction page is, and what it is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// Physical address.
    pub page: u64,
    /// Guarded (FEAT_BTI).
    pub guarded: bool,
}

/// The translations of one address space at one exception level.
#[repr(C, align(64))]
pub struct TlbSet {
    /// Pages that may be read.
    pub read: [Line; LINES],
    /// Pages that may be written.
    pub write: [Line; LINES],
    /// Up to which offset accesses of a site may begin in its page; 0 if it has none.
    pub site_limits: [u64; SITES * SITE_CLASSES],
    /// Virtual pages of sites.
    pub site_pages: [u64; SITES * SITE_CLASSES],
    /// Where they are in the host.
    pub site_hosts: [u64; SITES * SITE_CLASSES],
    /// Nonzero: a site may have a page.
    pub sites_used: u64,
    /// Branch targets.
    pub jumps: [Jump; JUMP_CACHE_ENTRIES],
    /// Which entries of `jumps` may be filled, if `filled_count` is no more than there are places.
    filled: [u16; REMEMBERED],
    filled_count: usize,
    /// Which pages may have entries in `jumps`: one bit for each page number, folded.
    jump_pages: [u64; JUMP_PAGE_WORDS],
    /// Pages that may be executed.
    pub pages: [PageLine; PAGE_LINES],
    /// Where lines of blocks larger than a page may be: one bit for each 2 MiB of addresses, by a
    /// hash.
    blocks: [u64; BLOCK_WORDS],
    /// Where blocks larger than 2 MiB are that may have lines here; the first `huge_count` count.
    huge: [Huge; HUGE_BLOCKS],
    huge_count: usize,
    /// log2 of the bytes of the largest one, if there are more of them; else 0.
    more_huge: u8,
    /// Lines of the lower half of the address space may be here.
    has_lower: bool,
    /// Global lines of the lower and of the upper half may be here.
    global: [bool; 2],
    /// Non-global lines of the upper half may be here.
    upper_non_global: bool,
    /// Lines of the upper half to which PSTATE.PAN matters may be here.
    upper_protected: bool,
    /// Anything was filled since the last flush.
    used: bool,
}

/// Words of the map of pages with branch targets.
const JUMP_PAGE_WORDS: usize = 1024;
/// Words of the map of blocks.
const BLOCK_WORDS: usize = 1024;
/// log2 of the bytes that one bit of it stands for.
const BLOCK_SHIFT: u32 = 21;

/// Blocks larger than 2 MiB that are kept account of.
const HUGE_BLOCKS: usize = 8;

/// What differs between addresses in a block of `1 << block` bytes; the tag byte does not count.
const fn grain(block: u32) -> u64 {
    u64::MAX >> (64 - if block < 56 { block } else { 56 })
}

/// A large block: its first and its last address, without the tag byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
struct Huge {
    first: u64,
    last: u64,
}

/// Which half of the address space: 1 for the upper one, of TTBR1_EL1.
const fn half(va: u64) -> usize {
    (va >> 55 & 1) as usize
}

/// An address without its tag byte.
const fn bare(va: u64) -> u64 {
    va << 8 >> 8
}

const LINE: Line = Line { tag: NO_TAG, addend: 0 };
const PAGE: PageLine = PageLine { tag: NO_TAG, pa: 0 };

impl Jump {
    /// An empty entry at `index`. Guests branch to any 64-bit value, so there is no address that is never looked
    /// for: this one is never looked for here, nor at the other place of those that are.
    const fn none(index: usize) -> Self {
        const AT_INDEX_0: u64 = 0;
        const AT_INDEX_2: u64 = 8;
        Self { va: if index < 2 { AT_INDEX_2 } else { AT_INDEX_0 }, host: 0 }
    }

    fn is_none(&self) -> bool {
        self.host == 0
    }
}

static NO_JUMPS: [Jump; JUMP_CACHE_ENTRIES] = {
    let mut all = [Jump::none(2); JUMP_CACHE_ENTRIES];
    all[0] = Jump::none(0);
    all[1] = Jump::none(1);
    all
};

impl TlbSet {
    fn index(va: u64) -> usize {
        (va >> 12) as usize & (LINES - 1)
    }

    fn page_index(va: u64) -> usize {
        (va >> 12) as usize & (PAGE_LINES - 1)
    }

    /// Adds a data translation.
    ///
    /// `block` is log2 of the bytes that are mapped together: a TLBI of any of them takes all away.
    pub fn fill(&mut self, va: u64, addend: u64, write: bool, block: u32, non_global: bool) {
        let line = Line { tag: va & !0xfff, addend };
        let table = if write { &mut self.write } else { &mut self.read };
        table[Self::index(va)] = line;
        self.note(va, block, non_global);
    }

    /// Host address of a byte, if its page is known.
    pub fn host_address(&self, va: u64, write: bool) -> Option<u64> {
        let line = if write { &self.write } else { &self.read }[Self::index(va)];
        (line.tag == va & !0xfff).then(|| va.wrapping_add(line.addend))
    }

    /// Functions start at multiples of 16 mostly: the page's number spreads them over all entries.
    fn jump_index(va: u64) -> usize {
        let low = va as u32;
        ((low.rotate_right(10) ^ low) >> 2) as usize & (JUMP_CACHE_ENTRIES - 1)
    }

    fn block_bit(va: u64) -> (usize, u64) {
        // A good spread: hits by chance make an invalidation hundreds of times more expensive.
        let n = (va << 8 >> (8 + BLOCK_SHIFT)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        (n as usize / 64, 1 << (n % 64))
    }

    fn note(&mut self, va: u64, block: u32, non_global: bool) {
        self.used = true;
        if block > BLOCK_SHIFT {
            self.note_huge(bare(va), block);
        } else if block > 12 {
            let (word, bit) = Self::block_bit(va);
            self.blocks[word] |= bit;
        }
        self.global[half(va)] |= !non_global;
        if half(va) == 0 {
            self.has_lower = true;
        } else {
            self.upper_non_global |= non_global;
        }
    }

    fn note_huge(&mut self, va: u64, block: u32) {
        let grain = grain(block);
        let new = Huge { first: va & !grain, last: va | grain };
        if self.huge[..self.huge_count].contains(&new) {
            return;
        }
        match self.huge.get_mut(self.huge_count) {
            Some(place) => {
                *place = new;
                self.huge_count += 1;
            }
            None => self.more_huge = self.largest_huge(block),
        }
    }

    /// log2 of the bytes of the largest of those that are known and one more.
    fn largest_huge(&self, block: u32) -> u8 {
        let known = self.huge[..self.huge_count].iter().map(|h| 64 - (h.last - h.first).leading_zeros());
        known.chain([block, self.more_huge.into()]).max().unwrap_or_default() as u8
    }

    /// The stretch that goes where `start` to `last` goes: with all of a large block that any of it is in.
    fn with_huge(&self, start: u64, last: u64) -> (u64, u64) {
        if self.more_huge != 0 {
            let grain = grain(self.more_huge.into());
            return (start & !grain, last | grain);
        }
        let met = self.huge[..self.huge_count].iter().filter(|h| h.first <= last && start <= h.last);
        met.fold((start, last), |(a, b), h| (a.min(h.first), b.max(h.last)))
    }

    /// Notes that PSTATE.PAN matters to the page of a line that was filled.
    pub fn note_protected(&mut self, va: u64) {
        self.upper_protected |= va >> 55 & 1 != 0;
    }

    /// PSTATE.PAN has changed: forgets the lines of the upper half that depend on it.
    fn clear_upper_protected(&mut self) {
        if self.upper_protected {
            self.clear_if(|tag| tag >> 55 & 1 != 0);
            self.upper_protected = false;
        }
    }

    /// Where an instruction page is, if that is known.
    pub fn page(&self, va: u64) -> Option<Fetch> {
        let line = &self.pages[Self::page_index(va)];
        let fetch = Fetch { page: line.pa & !1, guarded: line.pa & 1 != 0 };
        (line.tag == va & !0xfff).then_some(fetch)
    }

    /// Adds an instruction page.
    /// `block` as for [`TlbSet::fill`].
    pub fn fill_page(&mut self, va: u64, fetch: Fetch, block: u32, non_global: bool) {
        let pa = fetch.page | u64::from(fetch.guarded);
        self.pages[Self::page_index(va)] = PageLine { tag: va & !0xfff, pa };
        self.note(va, block, non_global);
    }

    /// Forgets the branch targets in the page at `page` (whose top byte does not matter).
    fn forget_jumps(&mut self, page: u64) {
        let (word, bit) = Self::jump_page_bit(page);
        if self.jump_pages[word] & bit == 0 {
            return;
        }
        // The offset in the page decides the index inside 1024 entries only, and so do pages that share the bit.
        let first = Self::jump_index(page) & !1023;
        let mut others = false;
        for (i, j) in self.jumps.iter_mut().enumerate().skip(first).take(1024) {
            if j.is_none() {
                continue;
            }
            if (j.va ^ page) << 8 >> 20 == 0 {
                *j = Jump::none(i);
            } else {
                others |= Self::jump_page_bit(j.va) == (word, bit);
            }
        }
        if !others {
            self.jump_pages[word] &= !bit;
        }
    }

    fn jump_page_bit(va: u64) -> (usize, u64) {
        let n = (va >> 12) as usize % (JUMP_PAGE_WORDS * 64);
        (n / 64, 1 << (n % 64))
    }

    /// Remembers where the block at `va` is.
    pub fn fill_jump(&mut self, va: u64, host: u64) {
        let index = Self::jump_index(va);
        let before = self.jumps[index];
        let other = &mut self.jumps[index ^ OTHER_JUMP];
        if before.is_none() || before.va == va {
            if other.va == va {
                *other = Jump::none(index ^ OTHER_JUMP);
            }
        } else {
            // The one that was here is asked for again, in turns with this one perhaps.
            self.put_jump(index ^ OTHER_JUMP, before);
        }
        self.put_jump(index, Jump { va, host });
        let (word, bit) = Self::jump_page_bit(va);
        self.jump_pages[word] |= bit;
        self.used = true;
    }

    fn put_jump(&mut self, index: usize, jump: Jump) {
        if self.jumps[index].is_none() {
            if let Some(place) = self.filled.get_mut(self.filled_count) {
                *place = index as u16;
            }
            self.filled_count += 1;
        }
        self.jumps[index] = jump;
    }

    /// Where the block at `va` is.
    pub fn jump(&self, va: u64) -> Option<u64> {
        let index = Self::jump_index(va);
        let found = [index, index ^ OTHER_JUMP].into_iter().find(|i| self.jumps[*i].va == va);
        found.map(|i| self.jumps[i].host)
    }

    /// All entries that are filled, and maybe some that are not.
    fn for_each_jump(&mut self, mut f: impl FnMut(usize, &mut Jump)) {
        if let Some(filled) = self.filled.get(..self.filled_count) {
            for i in filled.iter().copied().map(usize::from) {
                f(i, &mut self.jumps[i]);
            }
        } else {
            self.jumps.iter_mut().enumerate().for_each(|(i, jump)| f(i, jump));
        }
    }

    /// Forgets all branch targets.
    pub fn clear_jumps(&mut self) {
        if self.filled_count <= REMEMBERED {
            self.for_each_jump(|i, jump| *jump = Jump::none(i));
        } else {
            self.jumps = NO_JUMPS;
        }
        self.filled_count = 0;
        self.jump_pages = [0; JUMP_PAGE_WORDS];
    }

    fn clear_sites(&mut self) {
        if std::mem::take(&mut self.sites_used) != 0 {
            self.site_limits = [0; SITES * SITE_CLASSES];
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if !self.used {
            return;
        }
        self.clear_sites();
        self.read.fill(LINE);
        self.write.fill(LINE);
        self.pages = [PAGE; PAGE_LINES];
        self.clear_jumps();
        self.blocks = [0; BLOCK_WORDS];
        self.huge_count = 0;
        self.more_huge = 0;
        self.has_lower = false;
        self.global = [false; 2];
        self.upper_non_global = false;
        self.upper_protected = false;
        self.used = false;
    }

    /// Forgets write permissions to a page of host memory.
    pub fn forget_writes_to(&mut self, host_page: u64) {
        self.clear_sites();
        for line in &mut self.write {
            if line.tag != NO_TAG && line.tag.wrapping_add(line.addend) == host_page {
                *line = LINE;
            }
        }
    }

    /// Forgets the lower half of the address space (of TTBR0_EL1).
    pub fn clear_lower(&mut self) {
        if !self.has_lower {
            return;
        }
        self.clear_if(|tag| half(tag) == 0);
        self.has_lower = false;
        self.global[0] = false;
    }

    /// Forgets lines whose tag is chosen.
    fn clear_if(&mut self, chosen: impl Fn(u64) -> bool) {
        self.clear_sites();
        for line in self.read.iter_mut().chain(&mut self.write) {
            if line.tag != NO_TAG && chosen(line.tag) {
                *line = LINE;
            }
        }
        for line in &mut self.pages {
            if line.tag != NO_TAG && chosen(line.tag) {
                *line = PAGE;
            }
        }
        self.for_each_jump(|i, jump| {
            if !jump.is_none() && chosen(jump.va & !0xfff) {
                *jump = Jump::none(i);
            }
        });
    }

    /// Forgets what is mapped from `start` to `last` globally or for `asid`; `own` are the address space identifiers of the
    /// two halves of this set.
    fn invalidate_range(&mut self, (start, last): (u64, u64), asid: Option<u16>, own: [u16; 2]) {
        let meant = |half: usize| self.global[half] || asid.is_none_or(|asid| asid == own[half]);
        if !self.used || !(meant(half(start)) || meant(half(last))) {
            return;
        }
        self.clear_sites();
        let (start, last) = self.with_huge(bare(start) & !0xfff, bare(last) | 0xfff);
        if (last - start) >> BLOCK_SHIFT >= 4 {
            let grain = (1 << BLOCK_SHIFT) - 1;
            let (start, last) = (start & !grain, last | grain);
            return self.clear_if(|tag| (start..=last).contains(&bare(tag)));
        }
        let in_block = |va: u64| {
            let (word, bit) = Self::block_bit(va);
            self.blocks[word] & bit != 0
        };
        let grain = (1 << BLOCK_SHIFT) - 1;
        let start = if in_block(start) { start & !grain } else { start };
        let last = if in_block(last) { last | grain } else { last };
        if (last - start) >> 12 >= 32 {
            return self.clear_if(|tag| (start..=last).contains(&bare(tag)));
        }
        let mut va = start;
        while va <= last {
            for table in [&mut self.read, &mut self.write] {
                let line = &mut table[Self::index(va)];
                if line.tag != NO_TAG && bare(line.tag) == va {
                    *line = LINE;
                }
            }
            let i = Self::page_index(va);
            let tag = self.pages[i].tag;
            if tag != NO_TAG && bare(tag) == va {
                self.pages[i] = PAGE;
            }
            self.forget_jumps(va);
            va += 0x1000;
        }
    }
}

/// What tells address spaces of EL0 apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpaceKey {
    /// TTBR0_EL1.
    pub ttbr0: u64,
    /// TTBR1_EL1 (its ASID counts if TCR_EL1.A1).
    pub ttbr1: u64,
}

/// What translations of the lower half depend on at EL1; on PSTATE.PAN, those of the upper half do too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LowerKey {
    /// TTBR0_EL1.
    pub ttbr0: u64,
    /// The current address space identifier.
    pub asid: u16,
    /// PSTATE.PAN.
    pub pan: bool,
}

/// A set, and what it is for.
struct Kept<K> {
    key: K,
    set: Box<TlbSet>,
    last_used: u64,
}

/// Sets that are kept, one of which is the current one.
struct Shelf<K> {
    kept: Vec<Kept<K>>,
    current: usize,
    most: usize,
    clock: u64,
}

impl<K> Shelf<K> {
    fn new(first: K, most: usize) -> Self {
        let kept = vec![Kept { key: first, set: empty_set(), last_used: 0 }];
        Self { kept, current: 0, most, clock: 0 }
    }

    fn current(&mut self) -> &mut Kept<K> {
        &mut self.kept[self.current]
    }

    /// Makes the set that `fits` the current one; else a set with nothing in it, for `key`.
    fn choose(&mut self, key: K, fits: impl Fn(&Kept<K>) -> bool) {
        self.clock += 1;
        if let Some(i) = self.kept.iter().position(fits) {
            self.current = i;
        } else if self.kept.len() < self.most {
            self.current = self.kept.len();
            self.kept.push(Kept { key, set: empty_set(), last_used: 0 });
        } else {
            let oldest = self.kept.iter().enumerate().min_by_key(|(_, kept)| kept.last_used);
            self.current = oldest.map_or(0, |(i, _)| i);
            let kept = self.current();
            kept.set.clear();
            kept.key = key;
        }
        self.kept[self.current].last_used = self.clock;
    }

    fn for_each(&mut self, mut f: impl FnMut(&mut TlbSet)) {
        self.kept.iter_mut().for_each(|kept| f(&mut kept.set));
    }
}

/// What a set of EL1 is for.
struct Kernel {
    /// The table in TTBR1_EL1.
    table: u64,
    /// Of its non-global lines.
    asid: u16,
    lower: LowerKey,
}

/// What a set of EL0 is for.
struct Space {
    key: SpaceKey,
    asid: u16,
}

/// All sets of a vCPU.
pub struct TlbSets {
    kernels: Shelf<Kernel>,
    spaces: Shelf<Space>,
}

/// A set with nothing in it, made on the heap without passing over the stack.
fn empty_set() -> Box<TlbSet> {
    let mut set: Box<TlbSet> = zeroed_set();
    set.jumps = NO_JUMPS;
    set.used = true;
    set.clear();
    set
}

#[expect(unsafe_code, reason = "a large plain-data structure is made in place")]
fn zeroed_set() -> Box<TlbSet> {
    // SAFETY: TlbSet is integers and booleans only, for which all-zero bytes are valid values.
    unsafe { Box::new_zeroed().assume_init() }
}

impl Default for TlbSets {
    fn default() -> Self {
        Self::new()
    }
}

impl TlbSets {
    /// Empty.
    pub fn new() -> Self {
        let kernel = Kernel { table: 0, asid: 0, lower: LowerKey::default() };
        let space = Space { key: SpaceKey::default(), asid: 0 };
        Self { kernels: Shelf::new(kernel, EL1_SETS), spaces: Shelf::new(space, EL0_SETS) }
    }

    /// EL1's current set.
    pub fn el1(&mut self) -> &mut TlbSet {
        &mut self.kernels.current().set
    }

    /// Makes the set for this table in TTBR1_EL1 and this ASID EL1's current one.
    pub fn switch_el1(&mut self, table: u64, asid: u16) {
        let key = Kernel { table, asid, lower: LowerKey::default() };
        self.kernels.choose(key, |kept| {
            kept.key.table == table && (kept.key.asid == asid || !kept.set.upper_non_global)
        });
        self.kernels.current().key.asid = asid;
    }

    /// The lower half that EL1 sees now.
    pub fn set_lower(&mut self, lower: LowerKey) {
        let kept = self.kernels.current();
        let old = std::mem::replace(&mut kept.key.lower, lower);
        if old != lower {
            kept.set.clear_lower();
        }
        if old.pan != lower.pan {
            kept.set.clear_upper_protected();
        }
    }

    /// The lower half that EL1's current set is for.
    pub fn lower(&mut self) -> LowerKey {
        self.kernels.current().key.lower
    }

    /// Forgets the branch targets of EL1.
    pub fn clear_el1_jumps(&mut self) {
        self.kernels.for_each(TlbSet::clear_jumps);
    }

    /// The set of EL0's current address space.
    pub fn el0(&mut self) -> &mut TlbSet {
        &mut self.spaces.current().set
    }

    /// Forgets the branch targets of EL0.
    pub fn clear_el0_jumps(&mut self) {
        self.spaces.for_each(TlbSet::clear_jumps);
    }

    /// Makes `key` EL0's current address space.
    pub fn switch(&mut self, key: SpaceKey, asid: u16) {
        self.spaces.choose(Space { key, asid }, |kept| kept.key.key == key);
        self.spaces.current().key.asid = asid;
    }

    /// Forgets write permissions to a page of host memory.
    pub fn forget_writes_to(&mut self, host_page: u64) {
        self.for_each(|s| s.forget_writes_to(host_page));
    }

    fn for_each(&mut self, mut f: impl FnMut(&mut TlbSet)) {
        self.kernels.for_each(&mut f);
        self.spaces.for_each(f);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.for_each(TlbSet::clear);
    }

    /// Forgets all branch targets (code has moved or changed).
    pub fn clear_jumps(&mut self) {
        self.for_each(TlbSet::clear_jumps);
    }

    /// Carries out a TLBI.
    pub fn invalidate(&mut self, target: &TlbiTarget) {
        match *target {
            TlbiTarget::Nothing => {}
            TlbiTarget::All => self.clear(),
            TlbiTarget::Asid(asid) => {
                for space in self.spaces.kept.iter_mut().filter(|space| space.key.asid == asid) {
                    space.set.clear();
                }
                for kernel in &mut self.kernels.kept {
                    if kernel.key.asid == asid && kernel.set.upper_non_global {
                        kernel.set.clear();
                    } else if kernel.key.lower.asid == asid {
                        kernel.set.clear_lower();
                    }
                }
            }
            TlbiTarget::Va { va, asid } => self.invalidate_range((va, va), asid),
            TlbiTarget::Range { start, last, asid } => self.invalidate_range((start, last), asid),
        }
    }

    fn invalidate_range(&mut self, range: (u64, u64), asid: Option<u16>) {
        for kernel in &mut self.kernels.kept {
            kernel.set.invalidate_range(range, asid, [kernel.key.lower.asid, kernel.key.asid]);
        }
        for space in &mut self.spaces.kept {
            space.set.invalidate_range(range, asid, [space.key.asid; 2]);
        }
    }
}

#[cfg(test)]
mod tests;
