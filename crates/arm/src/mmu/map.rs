//! What an address space maps, from end to end: for debuggers.

use crate::mmu::{Access, AccessKind, Context, PhysicalMemory, Translation, translate};

/// A page or block that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Virtual address of its first byte.
    pub va: u64,
    /// Where it is, and what it allows.
    pub translation: Translation,
}

impl Mapping {
    /// Bytes.
    pub fn size(&self) -> u64 {
        1 << self.translation.block_size_log2
    }
}

/// The pages and blocks that are mapped, by rising address: first the lower half, then the upper one. None if
/// translation is off. Tables that are shared are seen wherever they are used, so a hostile guest can make this go
/// on for a very long time: `None` from [`Mappings::step`] gives a chance to stop.
pub struct Mappings<'a, M: ?Sized> {
    context: &'a Context,
    memory: &'a M,
    /// Where to look next, and the last address of that half.
    range: Option<(u64, u64)>,
}

impl<'a, M: PhysicalMemory + ?Sized> Mappings<'a, M> {
    /// From address `from` on. `memory` should show the Access flag as set everywhere: what it lacks is not found.
    pub fn new(context: &'a Context, memory: &'a M, from: u64) -> Self {
        let mut mappings = Self { context, memory, range: None };
        if context.enabled() {
            let upper = from >> 55 & 1 != 0;
            let (first, last) = mappings.half(upper);
            mappings.range = Some((from.clamp(first, last), last));
        }
        mappings
    }

    /// First and last address of a half.
    fn half(&self, upper: bool) -> (u64, u64) {
        let bits = self.context.halves[usize::from(upper)].input_bits;
        if upper { (u64::MAX << bits, u64::MAX) } else { (0, (1 << bits) - 1) }
    }

    /// Looks at one place: what is mapped there, or `Some(None)` if nothing is; `None` at the end.
    pub fn step(&mut self) -> Option<Option<Mapping>> {
        let (va, last) = self.range?;
        let access = Access { kind: AccessKind::Read, el: 1, pan: false };
        let half = self.context.half(va);
        let found = translate(self.context, self.memory, va, access);
        let size_log2 = match &found {
            Ok(t) => t.block_size_log2,
            Err(_) if half.disabled => 63,
            // An entry of this level covers as much.
            Err(fault) => half.page_shift + (half.page_shift - 3) * (3 - fault.level) as u8,
        };
        let size = 1u64.checked_shl(size_log2.into()).unwrap_or(0);
        let start = va & !size.wrapping_sub(1);
        let end = start.wrapping_add(size).wrapping_sub(1);
        self.range = match (end >= last || end < va, va >> 55 & 1 != 0) {
            (false, _) => Some((end + 1, last)),
            (true, false) => Some(self.half(true)),
            (true, true) => None,
        };
        let mapping = found.ok().map(|t| {
            let translation = Translation { pa: t.pa.wrapping_sub(va - start), ..t };
            Mapping { va: start, translation }
        });
        Some(mapping)
    }
}
