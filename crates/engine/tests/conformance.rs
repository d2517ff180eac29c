//! The conformance suite over the scripted accelerator.
#![cfg(not(any(loom, shuttle)))]

mod threads {
    use armlet_engine::conformance::scripted::Scripted;

    armlet_engine::conformance_tests!(Scripted);
}

/// All vCPUs on one thread.
mod together {
    use armlet_engine::conformance::scripted::ScriptedTogether;

    armlet_engine::conformance_tests!(ScriptedTogether);
}
