//! The accelerator that executes nothing.
//!
//! A vCPU of it sits in `run` until it is kicked, and honours everything else that the engine asks of an
//! accelerator. Device tests drive a whole machine through it: registers are read and written by work on
//! the vCPU's thread, time passes, interrupts arrive, and no instruction is ever executed.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use armlet_arm::CpuState;
use armlet_engine::{Accelerator, AcceleratorError, Kick, VcpuBackend, VcpuExit, VcpuShared};

/// Makes vCPUs that execute nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct DummyAccelerator;

impl Accelerator for DummyAccelerator {
    fn name(&self) -> &'static str {
        "dummy"
    }

    fn create_vcpu(
        &self,
        shared: Arc<VcpuShared>,
        state: CpuState,
    ) -> Result<Box<dyn VcpuBackend>, AcceleratorError> {
        let vcpu = DummyVcpu { state: Box::new(state), bell: Arc::new(Bell::default()), runs: 0 };
        shared.set_kick(vcpu.kick_handle());
        Ok(Box::new(vcpu))
    }
}

/// Remembers a kick until `run` has seen it.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn wait(&self) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = self.changed.wait_while(rung, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

impl Kick for Bell {
    fn kick(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

struct DummyVcpu {
    state: Box<CpuState>,
    bell: Arc<Bell>,
    runs: u64,
}

impl VcpuBackend for DummyVcpu {
    fn kick_handle(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.bell) as Arc<dyn Kick>
    }

    fn run(&mut self) -> VcpuExit {
        self.runs += 1;
        self.bell.wait();
        VcpuExit::Kicked
    }

    fn state(&self) -> &CpuState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut CpuState {
        &mut self.state
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        vec![("runs".to_owned(), self.runs)]
    }
}
