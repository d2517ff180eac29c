//! Address translation: VMSAv8-64 stage 1 of the EL1&0 regime (Arm ARM D8).
//!
//! [`Context`] holds what the system registers say; [`translate`] walks the tables. Nothing here caches
//! translations: that is the accelerator's TLB.

mod context;
mod fault;
mod map;
mod walk;

#[cfg(test)]
mod tests;

pub use context::Context;
pub(crate) use context::branch_target;
pub use fault::{Fault, FaultKind};
pub use map::{Mapping, Mappings};
pub use walk::{translate, translate_here};

bitflags::bitflags! {
    /// What a page allows, by exception level; PAN is not in it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Permissions: u8 {
        /// EL0 may read.
        const EL0_R = 1 << 0;
        /// EL0 may write.
        const EL0_W = 1 << 1;
        /// EL0 may execute.
        const EL0_X = 1 << 2;
        /// EL1 may read.
        const EL1_R = 1 << 3;
        /// EL1 may write.
        const EL1_W = 1 << 4;
        /// EL1 may execute.
        const EL1_X = 1 << 5;
    }
}

impl Permissions {
    /// True if the access is allowed. With `access.pan`, EL1's data accesses to what EL0 can access are
    /// not; with `epan` (SCTLR_EL1.EPAN) to what EL0 can only execute neither.
    #[inline]
    pub const fn allow(self, access: Access, epan: bool) -> bool {
        let bit = match access.kind {
            AccessKind::Read => Self::EL0_R,
            AccessKind::Write | AccessKind::WriteCheck => Self::EL0_W,
            AccessKind::Fetch => Self::EL0_X,
        };
        if access.el == 0 {
            return self.contains(bit);
        }
        let is_fetch = matches!(access.kind, AccessKind::Fetch);
        if access.pan && !is_fetch && self.is_protected(epan) {
            return false;
        }
        self.bits() & (bit.bits() << 3) != 0
    }

    /// True if PSTATE.PAN forbids EL1's data accesses: EL0 can read or write here, or with `epan` execute.
    #[inline]
    pub const fn is_protected(self, epan: bool) -> bool {
        let unprivileged = Self::EL0_R.union(Self::EL0_W);
        self.intersects(if epan { unprivileged.union(Self::EL0_X) } else { unprivileged })
    }
}

/// Kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// As a write, but nothing will be written, so the dirty state is not set: AT and DC IVAC.
    WriteCheck,
    /// Instruction fetch.
    Fetch,
}

/// An access to translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Read, write or fetch.
    pub kind: AccessKind,
    /// Exception level whose permissions count, 0 or 1: 0 for LDTR and STTR unless UAO is set.
    pub el: u8,
    /// PAN applies: PSTATE.PAN is set, and the access is made as EL1.
    pub pan: bool,
}

/// A successful translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Physical address of the virtual address that was asked for.
    pub pa: u64,
    /// Size of the page or block, log2 of bytes. The contiguous hint does not enlarge it.
    pub block_size_log2: u8,
    /// The contiguous hint was set: neighbours are mapped likewise.
    pub contiguous: bool,
    /// Device memory rather than Normal.
    pub device: bool,
    /// Memory attributes, as in one field of MAIR_EL1.
    pub attributes: u8,
    /// Shareability, as in a descriptor's SH.
    pub shareability: u8,
    /// What the page allows.
    pub permissions: Permissions,
    /// Valid for the current ASID only.
    pub non_global: bool,
    /// The page is writable, but a write has to set the dirty state first: it must be translated again
    /// as a write before the permission may be cached.
    pub dirty_pending: bool,
    /// Guarded page (FEAT_BTI).
    pub guarded: bool,
}

/// Physical memory as the table walker sees it.
pub trait PhysicalMemory {
    /// Reads eight aligned bytes atomically; `None` where there is no memory.
    fn read_u64(&self, pa: u64) -> Option<u64>;
    /// Replaces eight aligned bytes if they equal `old`; tells what was there otherwise. `None` where
    /// there is no memory that can be updated atomically.
    fn compare_exchange_u64(&self, pa: u64, old: u64, new: u64) -> Option<Result<u64, u64>>;
}

/// Translation tables as they are, read by a function that gives eight aligned bytes, with the Access flag set
/// everywhere: a look through them changes nothing, and does not fail because nobody has looked before.
pub struct Unchanged<F>(pub F);

impl<F: Fn(u64) -> Option<u64>> PhysicalMemory for Unchanged<F> {
    fn read_u64(&self, pa: u64) -> Option<u64> {
        // In a table descriptor, hardware ignores this bit.
        Some((self.0)(pa)? | crate::spec::descriptor::AF)
    }

    fn compare_exchange_u64(&self, _: u64, _: u64, _: u64) -> Option<Result<u64, u64>> {
        None
    }
}
