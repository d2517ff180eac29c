//! Counters of a run.

use std::collections::BTreeMap;

use armlet_engine::{Engine, InstructionCount};
use serde::Serialize;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Name of the accelerator.
    pub accelerator: String,
    /// The machine as a whole: the engine's counters and the sums over all vCPUs.
    pub machine: BTreeMap<String, u64>,
    /// By vCPU, in the order of their numbers.
    pub cpus: Vec<BTreeMap<String, u64>>,
}

impl Statistics {
    pub(crate) fn collect(accelerator: &str, engine: &Engine, count: Option<&InstructionCount>) -> Self {
        let mut all = Self { accelerator: accelerator.into(), ..Self::default() };
        for index in engine.vcpus() {
            // A vCPU whose thread is gone has taken its counters along.
            let counters = engine.vcpu_statistics(index).unwrap_or_default();
            for (name, value) in &counters {
                let sum = all.machine.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*value);
            }
            all.cpus.push(counters.into_iter().collect());
        }
        all.machine.extend(engine.statistics());
        if let Some(count) = count {
            all.machine.insert("count".into(), count.now());
            all.machine.insert("count_skipped".into(), count.skipped());
        }
        all
    }
}
