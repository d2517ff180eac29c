//! Litmus tests of the Arm memory model.
//!
//! | module | what |
//! |---|---|
//! | [`mod@test`] | a test: a few threads of a few accesses each |
//! | [`shapes`] | the classic shapes, and variants of them |
//! | [`model`] | which outcomes a memory model allows: Arm's, sequential consistency, x86-TSO |
//! | [`code`] | a test as A64 code for a bare-metal guest |
//!
//! No verdict is written down: [`model`] enumerates every candidate execution of a test and asks the axioms.

pub mod code;
pub mod model;
pub mod shapes;
pub mod test;
