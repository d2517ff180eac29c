//! Power of single vCPUs, as PSCI needs it (G17). Function numbers and MPIDRs are the machine's business.

use std::sync::{Arc, Weak};

use armlet_arm::Pstate;
use thiserror::Error;

use crate::engine::Core;
use crate::queue::{Job, Work};
use crate::sync::{AtomicU8, Ordering, lock};
use crate::vcpu::Then;

/// Power of one vCPU; the values are those of PSCI AFFINITY_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Power {
    /// Executes code, or may.
    On = 0,
    /// Off.
    Off = 1,
    /// A CPU_ON has been accepted and is not yet carried out.
    OnPending = 2,
}

/// Why CPU_ON was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PowerOnError {
    /// The vCPU is on.
    #[error("The vCPU is on already")]
    AlreadyOn,
    /// Another CPU_ON was first.
    #[error("The vCPU is being powered on already")]
    OnPending,
    /// There is no such vCPU, or it is leaving.
    #[error("There is no such vCPU")]
    Invalid,
}

/// Where the power of a vCPU is kept.
pub(crate) struct PowerCell(AtomicU8);

/// Off for good: what no CPU_ON changes any more. No value of [`Power`].
const RETIRED: u8 = 3;

impl PowerCell {
    pub(crate) fn new(power: Power) -> Self {
        Self(AtomicU8::new(power as u8))
    }

    pub(crate) fn get(&self) -> Power {
        match self.0.load(Ordering::Acquire) {
            0 => Power::On,
            1 | RETIRED => Power::Off,
            _ => Power::OnPending,
        }
    }

    pub(crate) fn set(&self, power: Power) {
        self.0.store(power as u8, Ordering::Release);
    }

    fn request_on(&self) -> Result<(), PowerOnError> {
        let swap = |to| self.0.compare_exchange(Power::Off as u8, to, Ordering::AcqRel, Ordering::Acquire);
        match swap(Power::OnPending as u8) {
            Ok(_) => Ok(()),
            Err(now) if now == Power::On as u8 => Err(PowerOnError::AlreadyOn),
            Err(RETIRED) => Err(PowerOnError::Invalid),
            Err(_) => Err(PowerOnError::OnPending),
        }
    }

    /// Makes off be for good; of this and a CPU_ON at the same moment exactly one succeeds. False if it is not off.
    pub(crate) fn retire(&self) -> bool {
        let swap = self.0.compare_exchange(Power::Off as u8, RETIRED, Ordering::AcqRel, Ordering::Acquire);
        matches!(swap, Ok(_) | Err(RETIRED))
    }
}

/// Powers vCPUs on and tells their power. Never blocks; for exit handlers and devices.
#[derive(Clone)]
pub struct PowerControl(pub(crate) Weak<Core>);

impl PowerControl {
    /// CPU_ON: vCPU `target` leaves its reset state at `entry` with `context` in X0, on its own thread. Of
    /// racing callers exactly one succeeds.
    ///
    /// # Errors
    /// The vCPU is on, is about to be, or does not exist.
    pub fn power_on(&self, target: usize, entry: u64, context: u64) -> Result<(), PowerOnError> {
        let core = self.0.upgrade().ok_or(PowerOnError::Invalid)?;
        let vcpu = core.control.vcpu(target).map_err(|_| PowerOnError::Invalid)?;
        vcpu.power.request_on()?;
        let job_vcpu = Arc::clone(&vcpu);
        let job: Job = Box::new(move |access| {
            let Ok(access) = access else { return };
            // A reset may have come in between; it has decided about the power then.
            if job_vcpu.power.get() != Power::OnPending {
                return;
            }
            let mut state = lock(&job_vcpu.reset_state).clone();
            state.pc = entry;
            state.x[0] = context;
            state.set_pstate(Pstate::DAIF.with_el(state.el().max(1), true));
            access.backend().power_on(state);
            job_vcpu.shared.take_event();
            job_vcpu.power.set(Power::On);
            access.set_next(Then::Run);
        });
        let work = Work { awaited: false, exclusive: false, lent: false, job };
        vcpu.submit(work).map_err(|_| PowerOnError::Invalid)
    }

    /// AFFINITY_INFO: the power of vCPU `index`, if there is one.
    pub fn power(&self, index: usize) -> Option<Power> {
        Some(self.0.upgrade()?.control.vcpu(index).ok()?.power.get())
    }
}
