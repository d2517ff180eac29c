//! The `armlet` command.
fn main() {}
