//! Conversations with the server, over a machine that executes nothing.

mod commands;
mod common;
mod hostile;
mod hotplug;
