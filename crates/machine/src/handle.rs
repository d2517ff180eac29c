//! What other threads may do with a machine.

use std::sync::Arc;
use std::time::Duration;

use armlet_arm::CpuModel;
use armlet_arm::sysreg::ExternalRegisters;
use armlet_engine::{Engine, EngineError, MachineState, Power, VcpuShared};
use armlet_memory::AddressSpace;

use crate::boot::KernelKind;
use crate::console::Console;
use crate::error::PlugError;
use crate::lock;
use crate::machine::{BOOT_CPU, Shared};
use crate::notice::{Cause, Notice, NoticeListener, Request};
use crate::pace::Apply as _;
use crate::recording::Input;
use crate::topology::Topology;

/// What other threads may do with a machine. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct MachineHandle(pub(crate) Arc<Shared>);

/// What a machine does, as people and control clients see it. [`MachineState`] has the steps in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Not started yet.
    Prelaunch,
    /// Guest code may run.
    Running,
    /// Stopped, or about to be.
    Paused,
    /// A vCPU has failed; nothing runs.
    Failed,
    /// The machine ends or has ended.
    Shutdown,
}

/// A vCPU that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuInfo {
    /// Its number.
    pub index: usize,
    /// The host's number of its thread.
    pub thread_id: u32,
}

impl MachineHandle {
    /// Asks the machine to end; `reason` says who wants it, for people.
    pub fn quit(&self, cause: Cause, reason: &str) {
        let _ = self.0.requests.send(Request::Quit { cause, reason: reason.into() });
    }

    /// Gives the machine what comes from outside, at a count of its own where time is made of instructions.
    fn input(&self, input: Input) {
        match &self.0.pace {
            Some(pace) => pace.submit(input),
            None => drop(self.0.hands.apply(&input)),
        }
    }

    /// Asks for a reset of the machine. The machine's thread carries it out; [`Notice::Reset`] tells when. A replay
    /// takes no such requests.
    pub fn reset(&self, cause: Cause) {
        self.input(Input::Reset(cause));
    }

    /// Stops the vCPUs and returns when every one has stopped.
    ///
    /// # Errors
    /// A resume came first, a vCPU does not stop, the machine is ending, or this is a vCPU's thread.
    pub fn pause(&self, reason: &str) -> Result<(), EngineError> {
        self.0.engine.pause(reason)
    }

    /// Asks for a pause and returns at once; for any thread.
    ///
    /// # Errors
    /// The machine is ending.
    pub fn request_pause(&self, reason: &str) -> Result<(), EngineError> {
        self.0.engine.request_pause(reason)
    }

    /// Starts the vCPUs, or lets them go on.
    ///
    /// # Errors
    /// The machine has failed or is ending.
    pub fn resume(&self, reason: &str) -> Result<(), EngineError> {
        if self.state() == MachineState::Created {
            match self.0.engine.start(reason) {
                // Somebody else was faster.
                Err(EngineError::BadState { .. }) => {}
                other => return other,
            }
        }
        self.0.engine.resume(reason)
    }

    /// True if the vCPUs may execute, or will when the reset is over that is going on.
    pub fn is_running(&self) -> bool {
        self.0.engine.is_running()
    }

    /// What the vCPUs do as a whole.
    pub fn state(&self) -> MachineState {
        self.0.engine.state()
    }

    /// What the machine does, as people see it.
    pub fn run_state(&self) -> RunState {
        let (engine, notices) = (&self.0.engine, &self.0.notices);
        match engine.state() {
            MachineState::ShuttingDown | MachineState::Gone => RunState::Shutdown,
            _ if notices.is_over() => RunState::Shutdown,
            _ if engine.failure().is_some() => RunState::Failed,
            MachineState::Created => RunState::Prelaunch,
            // A reset changes nothing about whether the machine runs.
            _ if engine.is_running() => RunState::Running,
            _ => RunState::Paused,
        }
    }

    /// Tells `listener` what happens from now on, for as long as it lives.
    pub fn listen(&self, listener: &Arc<dyn NoticeListener>) {
        self.0.notices.add(listener);
    }

    /// The vCPUs that are there, by rising number.
    pub fn cpus(&self) -> Vec<CpuInfo> {
        let engine = &self.0.engine;
        let info = |index| Some(CpuInfo { index, thread_id: engine.thread_id(index).ok()? });
        engine.vcpus().into_iter().filter_map(info).collect()
    }

    /// How many vCPUs there may be. Their numbers are those below.
    pub fn places(&self) -> usize {
        self.0.config.places()
    }

    /// How the places for vCPUs are arranged.
    pub fn topology(&self) -> Topology {
        self.0.topology
    }

    /// Adds vCPU `index`. It is off until the guest switches it on (Linux: `echo 1 > …/cpuN/online`).
    ///
    /// # Errors
    /// There is no such place, it is taken, or the host or the accelerator refuses.
    pub fn plug_cpu(&self, index: usize) -> Result<(), PlugError> {
        let shared = &self.0;
        self.check_may_change_cpus()?;
        let places = self.places();
        if index >= places {
            return Err(PlugError::NoPlace { cpu: index, places });
        }
        let _plugging = lock(&shared.plugging);
        if shared.engine.vcpu_state(index).is_ok() {
            return Err(PlugError::Present(index));
        }
        let vcpu = Arc::new(VcpuShared::new(index));
        shared.board.connect_cpu(index, Arc::clone(&vcpu));
        let (state, _) = shared.reset_state(index);
        shared.engine.create_vcpu(vcpu, state, Power::Off)?;
        shared.engine.release(index)?;
        tracing::info!(cpu = index, "plugged");
        Ok(())
    }

    /// Removes vCPU `index`, which the guest must have switched off (Linux: `echo 0 > …/cpuN/online`). Its thread has
    /// ended when this returns.
    ///
    /// # Errors
    /// It is not there, it is on, it boots the machine, or its thread does not end.
    pub fn unplug_cpu(&self, index: usize) -> Result<(), PlugError> {
        let shared = &self.0;
        self.check_may_change_cpus()?;
        let _plugging = lock(&shared.plugging);
        if shared.engine.vcpu_state(index).is_err() {
            return Err(PlugError::Absent(index));
        }
        if index == BOOT_CPU {
            return Err(PlugError::Boot(index));
        }
        match shared.engine.unplug_if_off(index) {
            Err(EngineError::PoweredOn(_)) => return Err(PlugError::On(index)),
            other => other?,
        }
        // What the guest does to the empty place reaches nobody.
        shared.board.connect_cpu(index, Arc::new(VcpuShared::new(index)));
        tracing::info!(cpu = index, "unplugged");
        shared.notices.tell(&Notice::CpuRemoved(index));
        Ok(())
    }

    /// A recording knows nothing of CPUs that come and go, nor does a kernel that has their power to itself.
    fn check_may_change_cpus(&self) -> Result<(), PlugError> {
        match &self.0.pace {
            Some(pace) if pace.is_recorded() => Err(PlugError::Recorded),
            _ if self.0.board.interrupts.keeps_power() => Err(PlugError::KeptByHost),
            _ => Ok(()),
        }
    }

    /// The guest's time: how long the vCPUs have been running.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.0.board.time.clock().now_ns())
    }

    /// The engine with the machine's vCPUs, for debuggers.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The guest-physical address space.
    pub fn memory(&self) -> &Arc<AddressSpace> {
        &self.0.memory
    }

    /// The system registers that live in devices. Use each vCPU's on its own thread.
    pub fn external_registers(&self) -> Arc<dyn ExternalRegisters> {
        self.0.board.external_registers()
    }

    /// The CPU model.
    pub fn cpu_model(&self) -> &Arc<CpuModel> {
        &self.0.model
    }

    /// Presses the power key: a guest that listens shuts down in order.
    pub fn press_power_key(&self) {
        self.input(Input::PowerKey);
    }

    /// Sends a break condition on the serial line.
    pub fn send_break(&self) {
        self.input(Input::Break);
    }

    /// For input that nobody types (a script): it waits for the guest's driver instead of being lost to early
    /// boot. Bare-metal programs, which may have no such driver, get theirs at once.
    pub fn hold_input_for_driver(&self) {
        if !matches!(self.0.boot.kernel().kind(), KernelKind::Linux(_)) {
            return;
        }
        // In a replay, what was so when it was recorded is.
        if !self.0.pace.as_ref().is_some_and(|pace| pace.is_replay()) {
            self.input(Input::Hold);
        }
    }

    /// Tells the guest the terminal's size, if its console can know. One that does the same in every run has 80
    /// columns and 25 rows.
    pub fn resize(&self, columns: u16, rows: u16) {
        if self.0.pace.is_some() {
            return;
        }
        if let Some(console) = &self.0.virtio_console {
            console.resize(columns, rows);
        }
    }

    /// The serial console.
    pub fn console(&self) -> &Console {
        &self.0.console
    }
}
