//! An accelerator that interprets [`Op`]s: the engine's tests need no translator and no guest memory.

use std::sync::{Arc, Mutex, PoisonError};

use armlet_arm::{CpuModel, CpuState, exception};

use super::support::PlainPace;
use super::{Loaded, Op, Subject};
use crate::accel::{
    Accelerator, AcceleratorError, DebugRequest, DebugStop, Halt, Kick, VcpuBackend, VcpuExit, Watchpoint,
};
use crate::pace::{InstructionCount, Pace};
use crate::shared::VcpuShared;
use crate::sync::{AtomicBool, Ordering, thread};

/// The same with all vCPUs on one thread.
pub struct ScriptedTogether;

impl Subject for ScriptedTogether {
    fn threads(&self) -> bool {
        false
    }

    fn load(&self, program: &[Op]) -> Loaded {
        together(program, Arc::new(PlainPace::default()))
    }
}

/// `program` for vCPUs that share one thread at `pace`.
pub fn together(program: &[Op], pace: Arc<dyn Pace>) -> Loaded {
    let count = Some(Arc::clone(pace.count()));
    let accelerator = ScriptedAccelerator { program: program.into(), vcpus: Arc::default(), count };
    Loaded { accelerator: Arc::new(accelerator), entry: ENTRY, pace: Some(pace) }
}

/// Where scripted programs stand.
pub const ENTRY: u64 = 0x1000;

/// The subject of the engine's own tests.
pub struct Scripted;

impl Subject for Scripted {
    fn load(&self, program: &[Op]) -> Loaded {
        let accelerator = ScriptedAccelerator { program: program.into(), vcpus: Arc::default(), count: None };
        Loaded { accelerator: Arc::new(accelerator), entry: ENTRY, pace: None }
    }
}

type Everybody = Arc<Mutex<Vec<Arc<VcpuShared>>>>;

/// Interprets one program on all its vCPUs.
pub struct ScriptedAccelerator {
    program: Arc<[Op]>,
    vcpus: Everybody,
    /// Instructions are counted here.
    count: Option<Arc<InstructionCount>>,
}

impl Accelerator for ScriptedAccelerator {
    fn name(&self) -> &'static str {
        "script"
    }

    fn create_vcpu(
        &self,
        shared: Arc<VcpuShared>,
        state: CpuState,
    ) -> Result<Box<dyn VcpuBackend>, AcceleratorError> {
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shared));
        let vcpu = ScriptedVcpu {
            program: Arc::clone(&self.program),
            vcpus: Arc::clone(&self.vcpus),
            count: self.count.clone(),
            limit: u64::MAX,
            kick: Arc::new(Flag(AtomicBool::new(false))),
            state: Box::new(state),
            shared,
            debug: DebugRequest::default(),
            stepped: false,
            model: CpuModel::by_name("neoverse-n1").map_err(|e| AcceleratorError(e.to_string()))?,
        };
        vcpu.shared.set_kick(vcpu.kick_handle());
        Ok(Box::new(vcpu))
    }
}

struct Flag(AtomicBool);

impl Kick for Flag {
    fn kick(&self) {
        self.0.store(true, Ordering::Release);
    }
}

struct ScriptedVcpu {
    program: Arc<[Op]>,
    vcpus: Everybody,
    count: Option<Arc<InstructionCount>>,
    limit: u64,
    kick: Arc<Flag>,
    state: Box<CpuState>,
    shared: Arc<VcpuShared>,
    debug: DebugRequest,
    stepped: bool,
    model: CpuModel,
}

impl ScriptedVcpu {
    fn step(&mut self, op: Op) -> Option<VcpuExit> {
        self.state.pc += 4;
        match op {
            Op::Increment(n) => self.state.x[usize::from(n & 31)] += 1,
            Op::Jump(to) => self.state.pc = ENTRY + 4 * u64::from(to),
            Op::Wfi if !self.shared.interrupt_pending() => return Some(VcpuExit::Halted(Halt::Interrupt)),
            Op::Wfi => {}
            Op::Wfe if !self.shared.take_event() => return Some(VcpuExit::Halted(Halt::Event)),
            Op::Wfe => {}
            Op::Sev => {
                let vcpus = self.vcpus.lock().unwrap_or_else(PoisonError::into_inner).clone();
                vcpus.iter().for_each(|vcpu| vcpu.send_event());
            }
            Op::Hvc(imm) => return Some(VcpuExit::Hypercall(imm)),
            Op::Semihosting => return Some(VcpuExit::Semihosting),
            // There is no memory.
            Op::Store(_) => {}
            Op::Eret => {
                self.state.pc -= 4;
                if exception::eret(&mut self.state, &self.model).is_err() {
                    return Some(VcpuExit::Fatal("The script returns from no exception".to_owned()));
                }
            }
        }
        None
    }

    /// What a debugger wants to hear of before `op` executes.
    fn stop_before(&self, op: Option<Op>) -> Option<DebugStop> {
        if self.debug.step {
            return None;
        }
        if self.debug.breakpoints.contains(&self.state.pc) {
            return Some(DebugStop::Breakpoint);
        }
        let (address, length) = (self.state.x[20], 8);
        let hit = |w: &Watchpoint| w.is_hit(address, length, (false, true));
        let watched = matches!(op, Some(Op::Store(_))) && self.debug.watchpoints.iter().any(hit);
        watched.then_some(DebugStop::Watchpoint { address, write: true })
    }
}

impl Drop for ScriptedVcpu {
    fn drop(&mut self) {
        let mut vcpus = self.vcpus.lock().unwrap_or_else(PoisonError::into_inner);
        vcpus.retain(|vcpu| !Arc::ptr_eq(vcpu, &self.shared));
    }
}

impl VcpuBackend for ScriptedVcpu {
    fn kick_handle(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.kick) as Arc<dyn Kick>
    }

    fn run(&mut self) -> VcpuExit {
        loop {
            if self.kick.0.swap(false, Ordering::AcqRel) && self.shared.exit_requested() {
                return VcpuExit::Kicked;
            }
            if std::mem::take(&mut self.stepped) && self.debug.step {
                return VcpuExit::Debug(DebugStop::Step);
            }
            if !self.debug.step && self.shared.irq() && self.state.pstate.takes(true, false) {
                exception::take_irq(&mut self.state, &self.model);
            }
            if let Some(count) = &self.count {
                if count.now() >= self.limit {
                    return VcpuExit::Kicked;
                }
                count.set(count.now() + 1);
            }
            let index = self.state.pc.checked_sub(ENTRY).map(|offset| (offset / 4) as usize);
            let op = index.and_then(|index| self.program.get(index)).copied();
            if let Some(stop) = self.stop_before(op) {
                return VcpuExit::Debug(stop);
            }
            let Some(op) = op else {
                return VcpuExit::Fatal(format!("The script has no op at {:#x}", self.state.pc));
            };
            let exit = self.step(op);
            self.stepped = self.debug.step;
            match exit {
                Some(VcpuExit::Halted(_)) if self.debug.step => {}
                Some(exit) => return exit,
                None => {}
            }
            thread::yield_now();
        }
    }

    fn run_until(&mut self, until: u64) -> VcpuExit {
        self.limit = until;
        self.run()
    }

    fn steps(&self) -> bool {
        self.debug.step
    }

    fn set_debug(&mut self, request: DebugRequest) -> Result<(), AcceleratorError> {
        self.debug = request;
        self.stepped = false;
        Ok(())
    }

    fn state(&self) -> &CpuState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut CpuState {
        &mut self.state
    }
}
