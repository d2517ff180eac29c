//! `cargo xtask guests`: our own bare-metal programs, from their sources.

use anyhow::Result;
use clap::Args;

/// What to build.
#[derive(Args)]
pub struct Options {}

/// Runs the command.
///
/// # Errors
/// The cross compiler is missing or fails.
pub fn main(_: &Options) -> Result<()> {
    Ok(())
}
