//! What vCPU threads tell the machine, and what the machine answers to their exits.

use std::sync::mpsc::Sender;
use std::time::Duration;

use armlet_arm::CpuState;

use crate::accel::DebugStop;
use crate::control::MachineState;
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
}

/// Hears what happens in an engine: the machine. A plain [`Sender`] keeps the events and nothing else.
pub trait MachineListener: Send + Sync {
    /// Something for the machine's thread to do. Called on vCPUs' threads; must not wait for anything.
    fn event(&self, event: MachineEvent);

    /// The machine's state has changed. Called in the order of the changes, under the control's lock: must
    /// neither wait for anything nor call the engine.
    fn state_changed(&self, from: MachineState, to: MachineState, reason: &str) {
        let _ = (from, to, reason);
    }
}

impl MachineListener for Sender<MachineEvent> {
    fn event(&self, event: MachineEvent) {
        // Nobody listens any more while the machine is taken down.
        let _ = self.send(event);
    }
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
