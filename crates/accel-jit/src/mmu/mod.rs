//! The software TLB: per vCPU, several sets for EL1, by the table and address space
//! identifier of the upper half, and several for the address spaces of EL0.
//!
//! A set holds separate tables for reads and writes, so a hit implies the permission; a table for
//! instruction pages; and the jump cache, which maps virtual addresses of branch targets to host code. The
//! tag is the whole virtual page number with its top byte, so a tagged pointer just has its own line.

mod access;
mod sets;

pub use access::{NO_COPY, Place, SideEntry, SlowAccess};
pub use sets::{
    Fetch, JUMP_CACHE_ENTRIES, Jump, LINES, Line, LowerKey, OTHER_JUMP, PAGE_LINES, PageLine, SITE_CLASSES,
    SITES, SpaceKey, TlbSet, TlbSets,
};
