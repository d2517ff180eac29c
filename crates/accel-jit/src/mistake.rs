//! Mistakes on purpose, for the tests that must find them. Only they build this in (feature `mistakes`).

use crate::host::x86_64::asm::Misemit;
use crate::ir::Block;

/// A mistake of the translator.
#[derive(Clone, Copy, Debug)]
pub struct Mistake {
    /// Guest-physical address of the first page of code that it is made in; what lies below is translated rightly.
    pub from: u64,
    /// What is wrong.
    pub kind: Kind,
}

/// Where a mistake is made.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// By the lift of a whole block.
    Lift(fn(&mut Block)),
    /// By the code generator: another opcode than it meant, or another register or opcode extension in ModRM.reg.
    Host(Misemit),
}
