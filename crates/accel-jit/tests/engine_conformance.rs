//! The engine's conformance suite over the translator.
#![cfg(target_arch = "x86_64")]

use std::sync::Arc;

use armlet_accel_jit::{JitAccelerator, JitOptions};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, SysReg};
use armlet_engine::Pace;
use armlet_engine::conformance::support::PlainPace;
use armlet_engine::conformance::{Loaded, Op, Subject};
use armlet_memory::{AddressSpaceBuilder, Ram};

/// No interrupt controller and no timers.
struct NoRegisters;

impl ExternalRegisters for NoRegisters {
    fn read(&self, _cpu: usize, _reg: SysReg) -> u64 {
        0
    }
    fn write(&self, _cpu: usize, _reg: SysReg, _value: u64) {}
}

/// Translated code, with a thread for each vCPU or one for all.
struct Translator {
    together: bool,
}

const ENTRY: u64 = 0x4000_0000;

impl Subject for Translator {
    fn threads(&self) -> bool {
        !self.together
    }

    fn load(&self, program: &[Op]) -> Loaded {
        let ram = Ram::new(ENTRY, 1 << 20).expect("the host has a megabyte");
        for (index, op) in program.iter().enumerate() {
            ram.write(ENTRY + 4 * index as u64, &op.encode(index).to_le_bytes()).expect("fits");
        }
        let memory = Arc::new(AddressSpaceBuilder::new(ram).build());
        let model = Arc::new(CpuModel::by_name("neoverse-n1").expect("the default model exists"));
        let pace: Option<Arc<dyn Pace>> = self.together.then(|| Arc::new(PlainPace::default()) as _);
        let counter = pace.as_ref().map(|pace| Arc::clone(pace.count()));
        let options = JitOptions { code_size: 1 << 20, counter, ..JitOptions::default() };
        let jit = JitAccelerator::new(memory, model, Arc::new(NoRegisters), 8, options);
        Loaded { accelerator: Arc::new(jit.expect("the host can run it")), entry: ENTRY, pace }
    }
}

mod threads {
    armlet_engine::conformance_tests!(super::Translator { together: false });
}

/// All vCPUs on one thread.
mod together {
    armlet_engine::conformance_tests!(super::Translator { together: true });
}
