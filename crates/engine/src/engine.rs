//! The machine-side handle: creates vCPUs, runs work on them, starts, pauses, resets and ends them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use armlet_arm::CpuState;

use crate::accel::{Accelerator, AcceleratorError};
use crate::access::{VcpuAccess, job};
use crate::control::{Control, MachineState};
use crate::error::EngineError;
use crate::event::{ExitHandler, MachineEvent, MachineListener};
use crate::gate::Gate;
use crate::pace::Pace;
use crate::power::{Power, PowerCell, PowerControl};
use crate::queue::{Job, Work};
use crate::reply::reply;
use crate::report::{Report, VcpuReport};
use crate::shared::VcpuShared;
use crate::single::Crew;
use crate::sync::{Mutex, lock};
use crate::thread::{self, Joining};
use crate::vcpu::{Then, Vcpu, VcpuState};

/// What an engine is made of.
pub struct EngineConfig {
    /// Executes guest code.
    pub accelerator: Arc<dyn Accelerator>,
    /// Handles the guest's calls.
    pub handler: Arc<dyn ExitHandler>,
    /// Hears what the machine's thread is to do, and what state the machine is in.
    pub listener: Arc<dyn MachineListener>,
    /// The longest wait for a vCPU that does not answer (work, pause, reset, exclusive sections, joining).
    pub patience: Duration,
    /// All vCPUs share one thread, in a deterministic order at this pace. `None`: each has a thread.
    pub pace: Option<Arc<dyn Pace>>,
}

impl EngineConfig {
    /// With the usual patience of 30 seconds.
    pub fn new(
        accelerator: Arc<dyn Accelerator>,
        handler: Arc<dyn ExitHandler>,
        listener: impl MachineListener + 'static,
    ) -> Self {
        let listener = Arc::new(listener);
        Self { accelerator, handler, listener, patience: Duration::from_secs(30), pace: None }
    }
}

/// Counts of the whole machine.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) exclusive_sections: AtomicU64,
    pub(crate) work_items: AtomicU64,
}

/// What the engine's threads share.
pub(crate) struct Core {
    pub(crate) accelerator: Arc<dyn Accelerator>,
    pub(crate) handler: Arc<dyn ExitHandler>,
    listener: Arc<dyn MachineListener>,
    pub(crate) patience: Duration,
    pub(crate) control: Control,
    pub(crate) gate: Gate,
    pub(crate) counters: Counters,
    /// The one thread of all vCPUs, if they share one.
    pub(crate) crew: Option<Crew>,
    /// Numbers of vCPUs that are being made. Nothing else is locked meanwhile.
    making: Mutex<Vec<usize>>,
}

/// A number that nobody else makes a vCPU with: accelerators need not have two of one number.
struct Making<'a>(&'a Core, usize);

impl<'a> Making<'a> {
    fn begin(core: &'a Core, index: usize) -> Result<Self, EngineError> {
        let mut making = lock(&core.making);
        if making.contains(&index) {
            return Err(EngineError::Exists(index));
        }
        making.push(index);
        Ok(Self(core, index))
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        lock(&self.0.making).retain(|index| *index != self.1);
    }
}

impl Core {
    pub(crate) fn send(&self, event: MachineEvent) {
        tracing::info!(?event, "machine event");
        self.listener.event(event);
    }

    fn report(&self) -> Report {
        let (state, vcpus) = self.control.look();
        let (section, executing) = (self.gate.owner(), self.gate.executing());
        let report =
            |(vcpu, stopped): &(Arc<Vcpu>, bool)| VcpuReport::new(vcpu, *stopped, section, &executing);
        Report { state, section, vcpus: vcpus.iter().map(report).collect() }
    }

    /// Who waits for whom, at the end of somebody's patience, for whoever reads the log.
    fn log_timeout(&self, error: &EngineError) {
        if matches!(error, EngineError::Timeout { .. }) {
            tracing::error!(%error, "{}", self.report());
        }
    }

    pub(crate) fn timeout(&self, what: &'static str, vcpus: Vec<usize>) -> EngineError {
        let error = EngineError::Timeout { what, seconds: self.patience.as_secs(), vcpus };
        self.log_timeout(&error);
        error
    }
}

/// All vCPUs of one machine. Share it in an `Arc`; all operations take `&self` and may be called by several
/// threads at once. Those that wait for vCPUs refuse to be called on a vCPU's thread
/// ([`EngineError::OnVcpuThread`]), and no lock that a device takes may be held around them.
///
/// Dropping it shuts the machine down.
pub struct Engine {
    core: Arc<Core>,
}

impl Engine {
    /// An engine without vCPUs.
    pub fn new(config: EngineConfig) -> Self {
        let EngineConfig { accelerator, handler, listener, patience, pace } = config;
        let control = Control::new(patience, Arc::clone(&listener));
        let (gate, counters, crew) = (Gate::new(), Counters::default(), pace.map(Crew::new));
        let core = Core {
            accelerator,
            handler,
            listener,
            patience,
            control,
            gate,
            counters,
            crew,
            making: Mutex::new(Vec::new()),
        };
        Self { core: Arc::new(core) }
    }

    /// Makes vCPU number `shared.index()` with a thread `CPU n/ACCELERATOR`, and returns when the
    /// accelerator has made it there. `state` is also what CPU_ON starts from. The vCPU is stopped;
    /// [`Engine::start`] lets it go, or [`Engine::release`] if the machine has been started before.
    ///
    /// # Errors
    /// The accelerator's error, the number is taken, or the host has no thread left.
    pub fn create_vcpu(
        &self,
        shared: Arc<VcpuShared>,
        state: CpuState,
        power: Power,
    ) -> Result<(), EngineError> {
        outside_vcpus()?;
        let index = shared.index();
        let _making = Making::begin(&self.core, index)?;
        if self.core.control.vcpu(index).is_ok() {
            return Err(EngineError::Exists(index));
        }
        let vcpu = Arc::new(Vcpu::new(shared, state.clone(), PowerCell::new(power)));
        self.core.gate.add(Arc::clone(&vcpu.door));
        let created = self.spawn(&vcpu, state, power).and_then(|()| {
            // Visible only now that the thread exists, has its kick and is stopped.
            self.core.control.add(Arc::clone(&vcpu)).inspect_err(|_| {
                vcpu.leave();
                vcpu.wait_finished(Instant::now() + self.core.patience);
            })
        });
        created.inspect_err(|_| self.core.gate.remove(&vcpu.door))
    }

    /// Starts the thread and waits until it has made the accelerator's vCPU.
    fn spawn(&self, vcpu: &Arc<Vcpu>, state: CpuState, power: Power) -> Result<(), EngineError> {
        let index = vcpu.index();
        let (promise, answer) = reply::<Result<(), AcceleratorError>>(index, None);
        let first = if power == Power::On { Then::Run } else { Then::PoweredOff };
        let joining = Joining { vcpu: Arc::clone(vcpu), state, first, promise };
        let spawned = match &self.core.crew {
            Some(crew) => crew.join(&self.core, joining),
            None => thread::spawn(&self.core, joining),
        };
        spawned.map_err(|source| EngineError::Thread { vcpu: index, source })?;
        let created = answer.wait(self.core.patience);
        Ok(created.unwrap_or_else(|| Err(self.core.timeout("Creating a vCPU", vec![index])))??)
    }

    /// Lets a vCPU that was created after the start take part.
    ///
    /// # Errors
    /// No such vCPU, or the machine is shutting down.
    pub fn release(&self, index: usize) -> Result<(), EngineError> {
        self.core.control.release(index)
    }

    /// Starts a machine that was just made.
    ///
    /// # Errors
    /// It was started before.
    pub fn start(&self, reason: &str) -> Result<(), EngineError> {
        self.core.control.start(reason)
    }

    /// Stops all vCPUs and returns when every one of them has stopped. Any number of threads may do this
    /// at once. A machine that is not running stays as it is.
    ///
    /// # Errors
    /// A resume came before the machine had stopped; it shuts down; a vCPU does not stop.
    pub fn pause(&self, reason: &str) -> Result<(), EngineError> {
        outside_vcpus()?;
        self.core.control.pause(reason).inspect_err(|error| self.core.log_timeout(error))
    }

    /// Asks for a pause and returns at once; for any thread.
    ///
    /// # Errors
    /// The machine is shutting down.
    pub fn request_pause(&self, reason: &str) -> Result<(), EngineError> {
        self.core.control.request_pause(reason).map(drop)
    }

    /// Lets a paused or pausing machine go on. Pauses still waited for end with
    /// [`EngineError::PauseCancelled`].
    ///
    /// # Errors
    /// The machine has failed, was never started, or is shutting down.
    pub fn resume(&self, reason: &str) -> Result<(), EngineError> {
        self.core.control.resume(reason)
    }

    /// Chooses the vCPUs that stay stopped while the machine runs, until this is called again: a debugger's way of
    /// running some of them only. Their work is done all the same. If the machine runs already, the chosen ones stop
    /// soon.
    ///
    /// # Errors
    /// The machine is shutting down.
    pub fn freeze(&self, chosen: impl Fn(usize) -> bool) -> Result<(), EngineError> {
        self.core.control.freeze(chosen)
    }

    /// Resets the machine: stops all vCPUs, runs `devices` (reset of everything else, reloading of boot
    /// images), gives every vCPU the registers and power that `cpu` says, and goes on as before: running,
    /// or paused if it was, or was paused meanwhile. A failure is forgotten.
    ///
    /// # Errors
    /// A vCPU does not stop or has died; the machine is then left paused and failed.
    pub fn reset(
        &self,
        reason: &str,
        devices: impl FnOnce(),
        mut cpu: impl FnMut(usize) -> (CpuState, Power),
    ) -> Result<(), EngineError> {
        outside_vcpus()?;
        let resetting = self.core.control.begin_reset(reason);
        let resetting = resetting.inspect_err(|error| self.core.log_timeout(error))?;
        devices();
        for vcpu in self.core.control.vcpus() {
            let index = vcpu.index();
            let (state, power) = cpu(index);
            *lock(&vcpu.reset_state) = state.clone();
            self.run_on(index, move |access| access.replace(state, power, false))?;
        }
        resetting.complete();
        Ok(())
    }

    /// Stops all vCPUs, runs `look`, and goes on as before: running, or paused if it was, or was paused meanwhile; resumes
    /// and pauses that come meanwhile take effect afterwards. What `look` sees changes only by its own doing:
    /// [`Engine::run_on`] works, no guest code runs, and no reset happens.
    ///
    /// # Errors
    /// A vCPU does not stop, or the machine is shutting down.
    pub fn hold<R>(&self, reason: &str, look: impl FnOnce() -> R) -> Result<R, EngineError> {
        outside_vcpus()?;
        let held = self.core.control.begin_hold(reason);
        let _held = held.inspect_err(|error| self.core.log_timeout(error))?;
        Ok(look())
    }

    /// Ends all vCPUs: refuses and cancels work, then waits for each thread, at most as long as the
    /// engine's patience. A second call waits likewise.
    ///
    /// # Errors
    /// Which threads did not end; they are left behind.
    pub fn shutdown(&self, reason: &str) -> Result<(), EngineError> {
        outside_vcpus()?;
        self.request_shutdown(reason);
        let deadline = Instant::now() + self.core.patience;
        let vcpus = self.core.control.vcpus();
        let hung: Vec<_> = vcpus.iter().filter(|v| !v.wait_finished(deadline)).map(|v| v.index()).collect();
        if !hung.is_empty() {
            let error = self.core.timeout("Shutting down", hung);
            tracing::error!(%error, "threads are left behind");
            return Err(error);
        }
        self.core.control.end_shutdown("every vCPU has left");
        Ok(())
    }

    fn request_shutdown(&self, reason: &str) {
        self.core.control.begin_shutdown(reason);
        self.core.control.vcpus().iter().for_each(|vcpu| vcpu.leave());
    }

    /// Removes one vCPU: cancels its work, ends its thread and forgets it. The guest should have taken it
    /// offline before.
    ///
    /// # Errors
    /// No such vCPU, or its thread does not end.
    pub fn unplug(&self, index: usize) -> Result<(), EngineError> {
        outside_vcpus()?;
        let vcpu = self.core.control.vcpu(index)?;
        vcpu.leave();
        if !vcpu.wait_finished(Instant::now() + self.core.patience) {
            return Err(self.core.timeout("Unplugging", vec![index]));
        }
        self.core.gate.remove(&vcpu.door);
        self.core.control.remove(&vcpu);
        Ok(())
    }

    /// As [`Engine::unplug`], but only of a vCPU that is off: of this and a CPU_ON at the same moment one
    /// succeeds.
    ///
    /// # Errors
    /// It is on, or as [`Engine::unplug`].
    pub fn unplug_if_off(&self, index: usize) -> Result<(), EngineError> {
        outside_vcpus()?;
        if !self.core.control.vcpu(index)?.power.retire() {
            return Err(EngineError::PoweredOn(index));
        }
        self.unplug(index)
    }

    /// Runs `f` on vCPU `index`'s own thread, outside guest execution, and returns its result. On vCPU
    /// threads use [`VcpuAccess::run_on`].
    ///
    /// # Errors
    /// No such vCPU, it leaves, it does not answer in time (`f` will not run then), or `f` panics.
    pub fn run_on<R, F>(&self, index: usize, f: F) -> Result<R, EngineError>
    where
        R: Send + 'static,
        F: FnOnce(&mut VcpuAccess<'_>) -> R + Send + 'static,
    {
        self.call(index, false, f)
    }

    /// As [`Engine::run_on`], while every other vCPU is outside guest execution. The guest never sees a
    /// partial effect.
    ///
    /// # Errors
    /// As [`Engine::run_on`]; also if another vCPU does not leave guest execution in time.
    pub fn run_exclusive<R, F>(&self, index: usize, f: F) -> Result<R, EngineError>
    where
        R: Send + 'static,
        F: FnOnce(&mut VcpuAccess<'_>) -> R + Send + 'static,
    {
        self.call(index, true, f)
    }

    fn call<R, F>(&self, index: usize, exclusive: bool, f: F) -> Result<R, EngineError>
    where
        R: Send + 'static,
        F: FnOnce(&mut VcpuAccess<'_>) -> R + Send + 'static,
    {
        outside_vcpus()?;
        let vcpu = self.core.control.vcpu(index)?;
        let (promise, answer) = reply(index, None);
        let work = Work { awaited: true, exclusive, lent: false, job: job(promise, false, f) };
        vcpu.submit(work).map_err(|_| EngineError::Gone(index))?;
        answer.wait(self.core.patience).unwrap_or_else(|| Err(self.core.timeout("Work", vec![index])))
    }

    /// Queues `f` for vCPU `index`'s thread and returns at once; for any thread, also the vCPU's own.
    ///
    /// # Errors
    /// No such vCPU, or it is leaving.
    pub fn run_on_async<F>(&self, index: usize, f: F) -> Result<(), EngineError>
    where
        F: FnOnce(&mut VcpuAccess<'_>) + Send + 'static,
    {
        let vcpu = self.core.control.vcpu(index)?;
        let job: Job = Box::new(move |access| {
            if let Ok(access) = access {
                f(access);
            }
        });
        let work = Work { awaited: false, exclusive: false, lent: false, job };
        vcpu.submit(work).map_err(|_| EngineError::Gone(index))
    }

    /// What the machine does.
    pub fn state(&self) -> MachineState {
        self.core.control.state()
    }

    /// True if guest code may run, or will when the reset is over that is going on.
    pub fn is_running(&self) -> bool {
        self.core.control.is_running()
    }

    /// Why the machine has failed, if it has.
    pub fn failure(&self) -> Option<String> {
        self.core.control.failure()
    }

    /// Numbers of the vCPUs there are, rising.
    pub fn vcpus(&self) -> Vec<usize> {
        self.core.control.vcpus().iter().map(|vcpu| vcpu.index()).collect()
    }

    /// What vCPU `index` does at this moment.
    ///
    /// # Errors
    /// No such vCPU.
    pub fn vcpu_state(&self, index: usize) -> Result<VcpuState, EngineError> {
        Ok(self.core.control.vcpu(index)?.state())
    }

    /// What the machine and every vCPU do, and whom they wait for. Waits for no vCPU.
    pub fn report(&self) -> Report {
        self.core.report()
    }

    /// The host's number of vCPU `index`'s thread, as the host's tools know it.
    ///
    /// # Errors
    /// No such vCPU.
    pub fn thread_id(&self, index: usize) -> Result<u32, EngineError> {
        Ok(self.core.control.vcpu(index)?.thread_id())
    }

    /// Power of vCPUs, for exit handlers and devices.
    pub fn power(&self) -> PowerControl {
        PowerControl(Arc::downgrade(&self.core))
    }

    /// Counters of one vCPU: its exits and what its accelerator counts.
    ///
    /// # Errors
    /// As [`Engine::run_on`].
    pub fn vcpu_statistics(&self, index: usize) -> Result<Vec<(String, u64)>, EngineError> {
        self.run_on(index, |access| {
            let mut all = access.vcpu.exits.list();
            all.extend(access.backend().statistics());
            all
        })
    }

    /// Counters of the whole machine.
    pub fn statistics(&self) -> Vec<(String, u64)> {
        let counters = &self.core.counters;
        let all =
            [("exclusive_sections", &counters.exclusive_sections), ("work_items", &counters.work_items)];
        all.iter()
            .map(|(name, value)| ((*name).to_owned(), value.load(std::sync::atomic::Ordering::Relaxed)))
            .collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        match thread::on_vcpu_thread() {
            // Cannot wait for itself.
            true => self.request_shutdown("the engine was dropped"),
            false => drop(self.shutdown("the engine was dropped")),
        }
    }
}

fn outside_vcpus() -> Result<(), EngineError> {
    if thread::on_vcpu_thread() { Err(EngineError::OnVcpuThread) } else { Ok(()) }
}
