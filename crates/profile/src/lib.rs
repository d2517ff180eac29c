//! Profiles of guests: samples get names, and become folded stacks, a flame graph and a table.

mod flame;
mod kallsyms;
mod report;
mod symbols;

pub use report::{Names, Profile};
pub use symbols::{Symbol, Symbols, SymbolsError};
