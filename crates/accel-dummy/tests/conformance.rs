//! The engine's conformance suite over the dummy.

use std::sync::Arc;

use armlet_accel_dummy::DummyAccelerator;
use armlet_engine::conformance::{Loaded, Op, Subject};

struct Dummy;

impl Subject for Dummy {
    fn executes(&self) -> bool {
        false
    }

    fn load(&self, _program: &[Op]) -> Loaded {
        Loaded { accelerator: Arc::new(DummyAccelerator), entry: 0x1000, pace: None }
    }
}

armlet_engine::conformance_tests!(Dummy);
