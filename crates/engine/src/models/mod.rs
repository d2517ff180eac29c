//! Searches through the engine's interleavings.
//!
//! The small protocols are searched completely by `loom`:
//! `RUSTFLAGS="--cfg loom" cargo test -p armlet-engine --lib --target-dir target/loom`
//!
//! The whole engine, over the scripted accelerator, is searched at random by `shuttle`; `SHUTTLE_ITERATIONS`
//! sets how long:
//! `RUSTFLAGS="--cfg shuttle" cargo test -p armlet-engine --lib --target-dir target/shuttle`

#[cfg(loom)]
mod protocols;
#[cfg(shuttle)]
mod whole;
