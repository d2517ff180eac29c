//! One vCPU as other threads see it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use armlet_arm::CpuState;

use crate::accel::Halt;
use crate::gate::Door;
use crate::power::PowerCell;
use crate::queue::{Work, WorkQueue};
use crate::report::WaitCell;
use crate::shared::VcpuShared;
use crate::sync::{AtomicBool, AtomicU8, Condvar, Mutex, Ordering, lock, step};
use crate::thread::ExitCounters;

/// What a vCPU goes back to when it is no longer stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Guest execution.
    Run,
    /// Being powered off.
    PoweredOff,
    /// Waiting for the machine's thread.
    AwaitMachine,
}

/// What a vCPU's thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuState {
    /// Asked to hold by the machine's control: not started, paused or being reset.
    Stopped(Then),
    /// Executes guest code, or stands at the closed gate.
    Running,
    /// Sleeps in WFI or WFE.
    Halted(Halt),
    /// Off, until PSCI CPU_ON or a reset.
    PoweredOff,
    /// Has asked the machine's thread for something (power-off, reset) or has failed: executes nothing
    /// until it is reset.
    AwaitingMachine,
    /// Leaves its loop.
    ShuttingDown,
    /// The thread has ended.
    Gone,
}

impl VcpuState {
    const ALL: [Self; 10] = [
        Self::Stopped(Then::Run),
        Self::Stopped(Then::PoweredOff),
        Self::Stopped(Then::AwaitMachine),
        Self::Running,
        Self::Halted(Halt::Interrupt),
        Self::Halted(Halt::Event),
        Self::PoweredOff,
        Self::AwaitingMachine,
        Self::ShuttingDown,
        Self::Gone,
    ];
}

/// Shared record of one vCPU; its thread is in [`crate::thread`].
pub(crate) struct Vcpu {
    pub(crate) shared: Arc<VcpuShared>,
    pub(crate) queue: WorkQueue,
    pub(crate) door: Arc<Door>,
    pub(crate) power: PowerCell,
    /// Registers as a reset or CPU_ON finds them.
    pub(crate) reset_state: Mutex<CpuState>,
    pub(crate) exits: ExitCounters,
    /// What its thread waits for, to be told.
    pub(crate) waits: WaitCell,
    /// Written under the control's lock.
    hold: AtomicBool,
    leave: AtomicBool,
    published: AtomicU8,
    /// The host's number of the thread, from its start on.
    thread_id: OnceLock<u32>,
    finished: Mutex<bool>,
    finished_changed: Condvar,
}

impl Vcpu {
    pub(crate) fn new(shared: Arc<VcpuShared>, reset_state: CpuState, power: PowerCell) -> Self {
        Self {
            door: Arc::new(Door::new(Arc::clone(&shared))),
            shared,
            queue: WorkQueue::new(),
            power,
            reset_state: Mutex::new(reset_state),
            exits: ExitCounters::default(),
            waits: WaitCell::default(),
            hold: AtomicBool::new(true),
            leave: AtomicBool::new(false),
            published: AtomicU8::new(0),
            thread_id: OnceLock::new(),
            finished: Mutex::new(false),
            finished_changed: Condvar::new(),
        }
    }

    pub(crate) fn index(&self) -> usize {
        self.shared.index()
    }

    /// Asks the vCPU to stop and stay stopped, or lets it go. Only under the control's lock.
    pub(crate) fn hold(&self, hold: bool) {
        if self.hold.swap(hold, Ordering::AcqRel) != hold {
            step("control: kick of who is to hold", || self.shared.request_exit());
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.hold.load(Ordering::Acquire)
    }

    /// Tells the thread to end; refuses and cancels all work.
    pub(crate) fn leave(&self) {
        self.leave.store(true, Ordering::Release);
        drop(self.queue.close());
        step("leave: kick of who leaves", || self.shared.request_exit());
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leave.load(Ordering::Acquire)
    }

    /// Queues work and gets the thread's attention; gives the work back if the vCPU is leaving.
    pub(crate) fn submit(&self, work: Work) -> Result<(), Work> {
        self.queue.push(work)?;
        step("work: kick of the target", || self.shared.request_exit());
        Ok(())
    }

    pub(crate) fn publish(&self, state: VcpuState) {
        let code = VcpuState::ALL.iter().position(|s| *s == state).unwrap_or(0);
        self.published.store(code as u8, Ordering::Release);
    }

    pub(crate) fn state(&self) -> VcpuState {
        VcpuState::ALL[usize::from(self.published.load(Ordering::Acquire)) % VcpuState::ALL.len()]
    }

    /// Notes the host's number of the calling thread, which is the vCPU's.
    pub(crate) fn note_thread(&self) {
        // The model checkers' threads are no threads of the host.
        #[cfg(not(any(loom, shuttle)))]
        let _ = self.thread_id.set(rustix::thread::gettid().as_raw_pid().unsigned_abs());
    }

    /// The host's number of the vCPU's thread; 0 if it has none.
    pub(crate) fn thread_id(&self) -> u32 {
        self.thread_id.get().copied().unwrap_or(0)
    }

    /// The thread's last act.
    pub(crate) fn finish(&self) {
        *lock(&self.finished) = true;
        step("vcpu: notify of the end", || self.finished_changed.notify_all());
    }

    /// Waits for the thread's last act; false if it has not come by `deadline`.
    pub(crate) fn wait_finished(&self, deadline: Instant) -> bool {
        let mut finished = lock(&self.finished);
        while !*finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            finished =
                self.finished_changed.wait_timeout(finished, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        true
    }
}
