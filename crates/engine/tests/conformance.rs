//! The conformance suite over the scripted accelerator.
#![cfg(not(any(loom, shuttle)))]

use armlet_engine::conformance::scripted::Scripted;

armlet_engine::conformance_tests!(Scripted);
