//! What guests ask of the machine by HVC (PSCI) and HLT (semihosting).

use std::sync::Arc;
use std::time::Duration;

use armlet_arm::mmu::{self, Access, AccessKind, PhysicalMemory};
use armlet_arm::{CpuModel, CpuState, Exception, exception};
use armlet_engine::{AfterExit, ExitHandler, MachineEvent, Power, PowerControl, PowerOnError};
use armlet_memory::{AccessSize, Ram};

use crate::interrupts::Interrupts;
use crate::psci::{self, AffinityState, Call, Status};
use crate::semihosting::{Outcome, ProgramMemory, Semihosting};
use crate::spec;

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
    pub(crate) interrupts: Arc<dyn Interrupts>,
    /// Affinities of all places for vCPUs.
    pub(crate) affinities: Vec<u64>,
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
                self.interrupts.cpu_off(vcpu);
                return AfterExit::PowerOff;
            }
            Call::CpuOn { target, entry, context } => self.cpu_on(power, target, entry, context),
            Call::AffinityInfo { target, level } => self.affinity_info(power, target, level),
            Call::StolenTime => spec::STOLEN_TIME.base + vcpu as u64 * spec::STOLEN_TIME_STRIDE,
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
        self.interrupts.event_stream(vcpu)
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
        let Some(cpu) = psci::cpu_of_affinity(target, &self.affinities) else {
            return Status::InvalidParameters.register();
        };
        if !self.ram.contains(entry, INSTRUCTION) {
            return INVALID_ADDRESS;
        }
        let status = match power.power_on(cpu, entry, context) {
            Ok(()) => Status::Success,
            Err(PowerOnError::AlreadyOn) => Status::AlreadyOn,
            Err(PowerOnError::OnPending) => Status::OnPending,
            // Its place is empty, which may change: to Linux that is no failure of the CPU (DEN 0022, 5.6).
            Err(PowerOnError::Invalid) => Status::Denied,
        };
        status.register()
    }

    fn affinity_info(&self, power: &PowerControl, target: u64, level: u32) -> u64 {
        let Some(cpus) = psci::cpus_of_affinity(target, level, &self.affinities) else {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use armlet_accel_dummy::DummyAccelerator;
    use armlet_devices::clock::COUNTER_FREQUENCY;
    use armlet_devices::{Clock, TimerQueue};
    use armlet_engine::{Engine, EngineConfig, VcpuShared};

    use super::*;
    use crate::board::Times;
    use crate::console::Console;
    use crate::interrupts::Emulated;
    use crate::spec;
    use crate::topology::Topology;

    struct Rig {
        handler: Arc<Handler>,
        engine: Engine,
        state: CpuState,
    }

    const CPUS: usize = 3;

    fn rig(semihosting: bool) -> Rig {
        let model = Arc::new(CpuModel::by_name("neoverse-n1").unwrap());
        let shared: Vec<_> = (0..CPUS).map(|i| Arc::new(VcpuShared::new(i))).collect();
        let affinities = Topology::flat(CPUS).affinities();
        let time = TimerQueue::new(Arc::new(Clock::manual(COUNTER_FREQUENCY)));
        let ram = Ram::new(spec::RAM_BASE, 1 << 20).unwrap();
        let interrupts = Emulated::new(affinities.clone(), &shared, &time, &ram).unwrap();
        let semihosting = semihosting
            .then(|| Arc::new(Semihosting::new(Console::new(), "test", (0, 0), &Times::new(None))));
        let handler = Arc::new(Handler {
            model: Arc::clone(&model),
            ram,
            interrupts: Arc::new(interrupts),
            affinities,
            semihosting,
        });
        let (events, _) = mpsc::channel();
        let config = EngineConfig::new(Arc::new(DummyAccelerator), Arc::clone(&handler) as _, events);
        let engine = Engine::new(config);
        for vcpu in shared {
            let power = if vcpu.index() == 0 { Power::On } else { Power::Off };
            let state = model.reset_state(vcpu.index() as u32, 0);
            engine.create_vcpu(vcpu, state, power).unwrap();
        }
        engine.start("test").unwrap();
        let state = model.reset_state(0, 0);
        Rig { handler, engine, state }
    }

    impl Rig {
        fn call(&mut self, x: [u64; 4]) -> i64 {
            self.state.x[..4].copy_from_slice(&x);
            let after = self.handler.hypercall(&self.engine.power(), 0, 0, &mut self.state);
            assert_eq!(after, AfterExit::Resume);
            self.state.x[0] as i64
        }
    }

    const CPU_ON: u64 = 0xc400_0003;
    const AFFINITY_INFO: u64 = 0xc400_0004;

    #[test]
    fn cpu_on_starts_a_cpu_once_at_the_entry_with_the_context() {
        let mut rig = rig(false);
        assert_eq!(rig.call([AFFINITY_INFO, 1, 0, 0]), 1);
        assert_eq!(rig.call([CPU_ON, 1, spec::RAM_BASE + 0x1000, 42]), 0);
        // Work is done in order, so the one that follows sees the vCPU started.
        let registers = rig.engine.run_on(1, |a| (a.state().pc, a.state().x[0], a.state().el())).unwrap();
        assert_eq!(registers, (spec::RAM_BASE + 0x1000, 42, 1));
        assert_eq!(rig.call([AFFINITY_INFO, 1, 0, 0]), 0);
        assert_eq!(rig.call([CPU_ON, 1, spec::RAM_BASE, 0]), -4);
        assert_eq!(rig.call([CPU_ON, 0, spec::RAM_BASE, 0]), -4);
        assert_eq!(rig.call([AFFINITY_INFO, 2, 0, 0]), 1);
        assert_eq!(rig.call([AFFINITY_INFO, 0, 1, 0]), 0, "the cluster is on if one CPU is");
    }

    #[test]
    fn wrong_parameters_are_told() {
        let mut rig = rig(false);
        assert_eq!(rig.call([CPU_ON, 7, spec::RAM_BASE, 0]), -2);
        assert_eq!(rig.call([CPU_ON, 1 << 63, spec::RAM_BASE, 0]), -2);
        assert_eq!(rig.call([CPU_ON, 1, 0x10, 0]), -9);
        assert_eq!(rig.call([CPU_ON, 1, u64::MAX, 0]), -9);
        assert_eq!(rig.call([AFFINITY_INFO, 7, 0, 0]), -2);
        assert_eq!(rig.call([0xdead_beef, 0, 0, 0]), -1);
        assert_eq!(rig.call([AFFINITY_INFO, 1, 0, 0]), 1, "nothing was switched on");
    }

    #[test]
    fn calls_that_end_things_go_to_the_machine() {
        let mut rig = rig(false);
        let power = rig.engine.power();
        let mut ends = |function: u64| {
            rig.state.x[0] = function;
            rig.handler.hypercall(&power, 2, 0, &mut rig.state)
        };
        assert_eq!(ends(0x8400_0008), AfterExit::StopMachine(MachineEvent::PowerOff { vcpu: 2 }));
        assert_eq!(ends(0x8400_0009), AfterExit::StopMachine(MachineEvent::Reset { vcpu: 2 }));
        assert_eq!(ends(0x8400_0002), AfterExit::PowerOff);
    }

    #[test]
    fn what_is_not_offered_is_undefined() {
        let mut rig = rig(false);
        rig.state.pc = 0x4000_0104;
        rig.state.sys[armlet_arm::SysReg::VbarEl1] = 0x4000_8000;
        rig.handler.semihosting(0, &mut rig.state);
        assert_eq!(rig.state.pc, 0x4000_8200, "synchronous, same level, SP_ELx");
        assert_eq!(rig.state.sys[armlet_arm::SysReg::ElrEl1], 0x4000_0100, "the HLT itself");
        assert_eq!(rig.state.sys[armlet_arm::SysReg::EsrEl1] >> 26, 0, "unknown reason");
        rig.state.pc = 0x4000_0104;
        rig.handler.hypercall(&rig.engine.power(), 0, 1, &mut rig.state);
        assert_eq!(rig.state.pc, 0x4000_8200);
    }

    #[test]
    fn a_cpu_whose_place_is_empty_is_denied_until_it_is_plugged() {
        let mut rig = rig(false);
        let on = [CPU_ON, 2, spec::RAM_BASE, 0];
        rig.engine.unplug(2).unwrap();
        assert_eq!(rig.call(on), -3);
        assert_eq!(rig.call([0xc400_0004, 2, 0, 0]), 1, "AFFINITY_INFO: off");
        let state = rig.handler.model.reset_state(2, 0);
        rig.engine.create_vcpu(Arc::new(VcpuShared::new(2)), state, Power::Off).unwrap();
        rig.engine.release(2).unwrap();
        assert_eq!(rig.call(on), 0);
    }

    #[test]
    fn semihosting_reads_the_program_s_memory_and_repeats_a_read_without_input() {
        let mut rig = rig(true);
        rig.handler.ram.write(spec::RAM_BASE + 0xffe, b"a string over a page's end\0").unwrap();
        rig.state.pc = 0x104;
        rig.state.x[0] = 4;
        rig.state.x[1] = spec::RAM_BASE + 0xffe;
        assert_eq!(rig.handler.semihosting(0, &mut rig.state), AfterExit::Resume);
        assert_eq!((rig.state.x[0], rig.state.pc), (0, 0x104));
        rig.state.x[0] = 7;
        assert_eq!(rig.handler.semihosting(0, &mut rig.state), AfterExit::Resume);
        assert_eq!((rig.state.x[0], rig.state.pc), (7, 0x100));
        rig.state.x[0] = 4;
        rig.state.x[1] = 0x1234;
        rig.handler.semihosting(0, &mut rig.state);
        assert_eq!(rig.state.x[0], u64::MAX, "no RAM there");
    }
}
