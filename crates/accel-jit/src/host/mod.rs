//! Code generation for hosts. Nothing outside a host's folder knows its registers.

pub mod x86_64;
