//! What guests ask of the machine by HVC (PSCI) and HLT (semihosting).

use std::sync::Arc;
use std::time::Duration;

use armlet_arm::mmu::{self, Access, AccessKind, PhysicalMemory};
use armlet_arm::{CpuModel, CpuState, Exception, exception};
use armlet_devices::clock::COUNTER_FREQUENCY;
use armlet_devices::timer::spec::CNTKCTL_EL1;
use armlet_devices::{GenericTimers, GicV3};
use armlet_engine::{AfterExit, ExitHandler, MachineEvent, Power, PowerControl, PowerOnError};
use armlet_memory::{AccessSize, Ram};

use crate::psci::{self, AffinityState, Call, Status};
use crate::semihosting::{Outcome, ProgramMemory, Semihosting};

/// PSCI's `INVALID_ADDRESS`.
const INVALID_ADDRESS: u64 = -9i64 as u64;
/// How long a program that waits for input sleeps before it asks again.
const INPUT_WAIT: Duration = Duration::from_millis(20);
/// Length of HVC and HLT.
const INSTRUCTION: u64 = 4;

/// Answers to guests' calls.
pub(crate) struct Handler {
    pub(crate) model: Arc<CpuModel>,
    pub(crate) ram: Ram,
    pub(crate) gic: Arc<GicV3>,
    pub(crate) timers: Arc<GenericTimers>,
    pub(crate) cpus: usize,
    /// `None`: the instruction is undefined.
    pub(crate) semihosting: Option<Arc<Semihosting>>,
}

impl ExitHandler for Handler {
    fn hypercall(&self, power: &PowerControl, vcpu: usize, imm: u16, state: &mut CpuState) -> AfterExit {
        if imm != 0 {
            return self.undefined(state);
        }
        let [x0, x1, x2, x3, ..] = state.x;
        let answer = match Call::decode([x0, x1, x2, x3]) {
            Call::Answer(value) => value,
            // A standby: every state is entered as WFI by the caller's next look, so it may return at once.
            Call::CpuSuspend => Status::Success.register(),
            Call::CpuOff => {
                self.gic.reset_cpu_interface(vcpu);
                self.timers.reset_cpu(vcpu);
                return AfterExit::PowerOff;
            }
            Call::CpuOn { target, entry, context } => self.cpu_on(power, target, entry, context),
            Call::AffinityInfo { target, level } => self.affinity_info(power, target, level),
            Call::SystemOff => return AfterExit::StopMachine(MachineEvent::PowerOff { vcpu }),
            Call::SystemReset => return AfterExit::StopMachine(MachineEvent::Reset { vcpu }),
        };
        state.x[0] = answer;
        AfterExit::Resume
    }

    fn semihosting(&self, vcpu: usize, state: &mut CpuState) -> AfterExit {
        let Some(semihosting) = &self.semihosting else { return self.undefined(state) };
        let memory = View { context: mmu::Context::new(state, &self.model), ram: &self.ram, el: state.el() };
        match semihosting.call(state.x[0] as u32, state.x[1], &memory) {
            Outcome::Done(value) => {
                state.x[0] = value;
                AfterExit::Resume
            }
            Outcome::Retry => {
                semihosting.wait_for_input(INPUT_WAIT);
                state.pc = state.pc.wrapping_sub(INSTRUCTION);
                AfterExit::Resume
            }
            Outcome::Exit(status) => AfterExit::StopMachine(MachineEvent::Exit { vcpu, status }),
        }
    }

    fn event_stream(&self, vcpu: usize) -> Option<Duration> {
        const EVNTEN: u64 = 1 << 2;
        let control = self.timers.read_encoding(vcpu, CNTKCTL_EL1);
        // One event for each full cycle of the counter's bit EVNTI.
        let ticks = 2u64 << ((control >> 4) & 0xf);
        (control & EVNTEN != 0).then(|| Duration::from_nanos(ticks * (1_000_000_000 / COUNTER_FREQUENCY)))
    }
}

impl Handler {
    /// The instruction before PC is undefined after all.
    fn undefined(&self, state: &mut CpuState) -> AfterExit {
        state.pc = state.pc.wrapping_sub(INSTRUCTION);
        exception::take(state, &self.model, &Exception::undefined());
        AfterExit::Resume
    }

    fn cpu_on(&self, power: &PowerControl, target: u64, entry: u64, context: u64) -> u64 {
        let Some(cpu) = psci::cpu_of_affinity(target, self.cpus) else {
            return Status::InvalidParameters.register();
        };
        if !self.ram.contains(entry, INSTRUCTION) {
            return INVALID_ADDRESS;
        }
        let status = match power.power_on(cpu, entry, context) {
            Ok(()) => Status::Success,
            Err(PowerOnError::AlreadyOn) => Status::AlreadyOn,
            Err(PowerOnError::OnPending) => Status::OnPending,
            Err(PowerOnError::Invalid) => Status::InternalFailure,
        };
        status.register()
    }

    fn affinity_info(&self, power: &PowerControl, target: u64, level: u32) -> u64 {
        let Some(cpus) = psci::cpus_of_affinity(target, level, self.cpus) else {
            return Status::InvalidParameters.register();
        };
        let powers: Vec<_> = cpus.into_iter().filter_map(|cpu| power.power(cpu)).collect();
        let state = if powers.contains(&Power::On) {
            AffinityState::On
        } else if powers.contains(&Power::OnPending) {
            AffinityState::OnPending
        } else {
            AffinityState::Off
        };
        state as u64
    }
}

/// The calling program's memory as its own translation regime sees it.
struct View<'a> {
    context: mmu::Context,
    ram: &'a Ram,
    el: usize,
}

/// Guest RAM for the table walk.
struct Tables<'a>(&'a Ram);

impl PhysicalMemory for Tables<'_> {
    fn read_u64(&self, pa: u64) -> Option<u64> {
        self.0.load(pa, AccessSize::Double)
    }

    fn compare_exchange_u64(&self, pa: u64, old: u64, new: u64) -> Option<Result<u64, u64>> {
        self.0.compare_exchange(pa, old, new)
    }
}

/// The smallest page: what is contiguous in virtual memory is so in physical memory within one.
const PAGE: u64 = 4096;

impl View<'_> {
    /// Calls `access` with the physical address and the range in the buffer of each page's part.
    fn pages(
        &self,
        address: u64,
        len: usize,
        kind: AccessKind,
        mut access: impl FnMut(u64, std::ops::Range<usize>) -> bool,
    ) -> bool {
        let permission = Access { kind, el: self.el.min(1) as u8, pan: false };
        let mut done = 0;
        while done < len {
            let va = self.context.tag_address(address.wrapping_add(done as u64));
            let n = (len - done).min((PAGE - va % PAGE) as usize);
            let Ok(translation) = mmu::translate(&self.context, &Tables(self.ram), va, permission) else {
                return false;
            };
            if !translation.permissions.allow(permission, false) || !access(translation.pa, done..done + n) {
                return false;
            }
            done += n;
        }
        true
    }
}

impl ProgramMemory for View<'_> {
    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        self.pages(address, out.len(), AccessKind::Read, |pa, part| self.ram.read(pa, &mut out[part]).is_ok())
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        self.pages(address, data.len(), AccessKind::Write, |pa, part| self.ram.write(pa, &data[part]).is_ok())
    }
}
