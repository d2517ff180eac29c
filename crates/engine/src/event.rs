//! What vCPU threads tell the machine, and what the machine answers to their exits.

use std::time::Duration;

use armlet_arm::CpuState;

use crate::accel::DebugStop;
use crate::power::PowerControl;

/// Sent to the machine's thread. A vCPU never stops or resets its machine in place: it parks itself and
/// sends one of these (G11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// The guest asked for power-off.
    PowerOff {
        /// Who asked.
        vcpu: usize,
    },
    /// The guest asked for a reset.
    Reset {
        /// Who asked.
        vcpu: usize,
    },
    /// The guest ended itself with an exit status (semihosting).
    Exit {
        /// Who asked.
        vcpu: usize,
        /// The status.
        status: u32,
    },
    /// What a debugger waits for met a vCPU. The machine is pausing already.
    Debug {
        /// Which.
        vcpu: usize,
        /// What.
        stop: DebugStop,
    },
    /// A vCPU cannot go on. The machine is stopping already.
    Fatal {
        /// Which.
        vcpu: usize,
        /// Why, for people.
        reason: String,
    },
    /// A vCPU's thread panicked and is gone. The machine is stopping already.
    Panicked {
        /// Which.
        vcpu: usize,
        /// The panic's message.
        reason: String,
    },
    /// Somebody outside wants the machine to end (a signal, a monitor, the terminal's escape).
    Quit {
        /// Who and why, for the log.
        reason: String,
    },
}

/// What a vCPU does after its exit has been handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterExit {
    /// Goes on behind the instruction.
    Resume,
    /// Powers itself off (PSCI CPU_OFF): sleeps until [`PowerControl::power_on`] or a reset.
    PowerOff,
    /// Executes nothing any more until it is reset; the event goes to the machine's thread once the vCPU
    /// has parked.
    StopMachine(MachineEvent),
}

/// Handles what guests ask for. Called on the vCPU's own thread, outside guest execution; must not block on
/// other vCPUs (pause, reset and shutdown are asked for by [`AfterExit::StopMachine`]).
pub trait ExitHandler: Send + Sync {
    /// `HVC #imm`.
    fn hypercall(&self, power: &PowerControl, vcpu: usize, imm: u16, state: &mut CpuState) -> AfterExit;

    /// `HLT #0xf000`.
    fn semihosting(&self, vcpu: usize, state: &mut CpuState) -> AfterExit;

    /// The vCPU cannot go on. The engine stops the machine and sends [`MachineEvent::Fatal`] itself; this
    /// is for a closer report.
    fn fatal(&self, vcpu: usize, reason: &str) {
        let _ = (vcpu, reason);
    }

    /// Period of the vCPU's event stream (CNTKCTL_EL1.EVNTEN), if it is on: the longest that a WFE sleeps.
    fn event_stream(&self, vcpu: usize) -> Option<Duration> {
        let _ = vcpu;
        None
    }
}
