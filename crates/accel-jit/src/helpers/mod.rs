//! Functions that translated code and the IR interpreter call.

pub mod vector;
