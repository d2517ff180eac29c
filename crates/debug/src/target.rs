//! The machine as `gdbstub` asks for it: threads are vCPUs, numbered from one.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use armlet_arm::mmu::Context;
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, CpuState};
use armlet_engine::{DebugRequest, DebugStop, EngineError, MachineState, Then, VcpuAccess, VcpuState};
use armlet_machine::MachineHandle;
use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::reverse_exec::{ReplayLogPosition, ReverseContOps, ReverseStepOps};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{self, TargetError, TargetResult};

use crate::description;
use crate::mail::Mail;
use crate::memory::Space;
use crate::monitor;
use crate::points::{BreakKind, Points};
use crate::registers::{Cpu, EXPEDITED, FIRST_SYSTEM, Layout};
use crate::reverse::Arrived;

/// How often the machine is asked to stop when somebody else resumes it each time.
const STOP_TRIES: usize = 1000;
/// EFAULT, and EINVAL, as clients know them.
const BAD_ADDRESS: u8 = 14;
const INVALID: u8 = 22;

/// All registers but the system registers, as the packets `g` and `G` carry them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GeneralRegisters(pub(crate) Vec<u8>);

impl Registers for GeneralRegisters {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.0.get(256..264).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().for_each(|byte| write_byte(Some(*byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_owned();
        Ok(())
    }
}

/// Number of a register; whether there is one is decided at the access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegisterNumber(pub(crate) usize);

impl RegId for RegisterNumber {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        Some((Self(id), None))
    }

    fn to_raw_id(&self) -> Option<usize> {
        Some(self.0)
    }
}

/// AArch64.
pub(crate) enum Aarch64 {}

impl Arch for Aarch64 {
    type Usize = u64;
    type Registers = GeneralRegisters;
    type BreakpointKind = usize;
    type RegId = RegisterNumber;
}

/// What the vCPUs are to do when the machine is resumed next.
#[derive(Debug, Default)]
struct Plan {
    step: Vec<usize>,
    go: Vec<usize>,
    /// All others stay where they are.
    locked: bool,
}

impl Plan {
    fn moves(&self, vcpu: usize) -> bool {
        !self.locked || self.step.contains(&vcpu) || self.go.contains(&vcpu)
    }
}

/// The machine, and what one client wants of it.
pub(crate) struct Target {
    pub(crate) machine: MachineHandle,
    pub(crate) mail: Arc<Mail>,
    model: Arc<CpuModel>,
    external: Arc<dyn ExternalRegisters>,
    layout: Arc<Layout>,
    description: String,
    points: Points,
    /// What vCPUs have been asked for; those that are not here must be asked again.
    asked: BTreeMap<usize, DebugRequest>,
    /// What `Mail::unplugged` was then.
    unplugged: u64,
    plan: Plan,
    /// States of vCPUs that stand still: gdb asks for the same again and again. And what `Mail::changes` was.
    seen: (u64, BTreeMap<usize, Arc<CpuState>>),
    /// Addresses are physical ones.
    pub(crate) physical: bool,
    /// The vCPU that the client looks at, or that stopped last.
    pub(crate) selected: usize,
    /// Why the machine could not be resumed.
    pub(crate) trouble: Option<String>,
    /// Where a way back has ended, to be told.
    pub(crate) arrived: Option<Arrived>,
}

/// The thread that a vCPU is.
fn thread(vcpu: usize) -> Tid {
    NonZeroUsize::MIN.saturating_add(vcpu)
}

/// The vCPU that a thread is.
pub(crate) fn vcpu_of(thread: Tid) -> usize {
    thread.get() - 1
}

impl Target {
    pub(crate) fn new(machine: MachineHandle, mail: Arc<Mail>) -> Self {
        let model = Arc::clone(machine.cpu_model());
        let layout = Layout::new(&model);
        Self {
            external: machine.external_registers(),
            description: description::xml(&model, &layout),
            layout: Arc::new(layout),
            model,
            machine,
            mail,
            points: Points::default(),
            asked: BTreeMap::new(),
            unplugged: 0,
            plan: Plan::default(),
            seen: (0, BTreeMap::new()),
            physical: false,
            selected: 0,
            trouble: None,
            arrived: None,
        }
    }

    /// Runs `f` on the vCPU's own thread.
    pub(crate) fn on<R: Send + 'static>(
        &self,
        vcpu: usize,
        f: impl FnOnce(&mut VcpuAccess<'_>, Cpu<'_>) -> R + Send + 'static,
    ) -> Result<R, EngineError> {
        let (model, external) = (Arc::clone(&self.model), Arc::clone(&self.external));
        self.machine
            .engine()
            .run_on(vcpu, move |access| f(access, Cpu { model: &model, external: &*external }))
    }

    /// The vCPU's state, without what is in devices.
    pub(crate) fn state(&mut self, vcpu: usize) -> Result<Arc<CpuState>, EngineError> {
        let changes = self.mail.changes();
        if self.seen.0 != changes || !self.stands_still() {
            self.seen = (changes, BTreeMap::new());
        }
        if let Some(state) = self.seen.1.get(&vcpu) {
            return Ok(Arc::clone(state));
        }
        let state = Arc::new(self.on(vcpu, |access, _| access.state().clone())?);
        self.seen.1.insert(vcpu, Arc::clone(&state));
        Ok(state)
    }

    fn cpu(&self) -> Cpu<'_> {
        Cpu { model: &self.model, external: &*self.external }
    }

    /// Stops the machine, and returns when it stands still.
    pub(crate) fn stop(&self) -> Result<(), EngineError> {
        for _ in 0..STOP_TRIES {
            match self.machine.pause("the debugger") {
                // Somebody else has resumed it meanwhile.
                Err(EngineError::PauseCancelled) => {}
                other => return other,
            }
        }
        Err(EngineError::PauseCancelled)
    }

    /// Carries out the plan.
    fn go(&mut self) -> Result<(), String> {
        // So that all that has stopped for us has told so.
        self.stop().map_err(|e| e.to_string())?;
        self.mail.take_stop();
        let unplugged = self.mail.unplugged();
        if std::mem::replace(&mut self.unplugged, unplugged) != unplugged {
            self.asked.clear();
        }
        for vcpu in self.machine.engine().vcpus() {
            if self.plan.moves(vcpu) {
                let step = self.plan.step.contains(&vcpu);
                self.ask(vcpu, self.points.request(step))?;
            }
        }
        let plan = &self.plan;
        self.machine.engine().freeze(|vcpu| !plan.moves(vcpu)).map_err(|e| e.to_string())?;
        self.machine.resume("the debugger").map_err(|e| e.to_string())
    }

    /// What vCPUs have been asked for is not known any more.
    pub(crate) fn forget_asked(&mut self) {
        self.asked.clear();
    }

    /// What the client wants of a vCPU.
    pub(crate) fn request(&self, step: bool) -> DebugRequest {
        self.points.request(step)
    }

    pub(crate) fn ask(&mut self, vcpu: usize, request: DebugRequest) -> Result<(), String> {
        if self.asked.get(&vcpu) == Some(&request) {
            return Ok(());
        }
        let wanted = request.clone();
        match self.on(vcpu, move |access, _| access.backend().set_debug(wanted)) {
            Ok(Ok(())) => {
                self.asked.insert(vcpu, request);
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(EngineError::Gone(_) | EngineError::NoSuchVcpu(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes everything back that the client wanted, and lets the machine go on.
    pub(crate) fn release(&mut self) {
        self.points = Points::default();
        self.plan = Plan::default();
        self.asked.clear();
        if let Err(error) = self.let_all_go() {
            tracing::warn!(error, "the machine does not go on without the debugger");
        }
    }

    /// Whatever state the machine is in: others may pause and resume it meanwhile.
    fn let_all_go(&mut self) -> Result<(), String> {
        for vcpu in self.machine.engine().vcpus() {
            // What it has met before has asked for its pause by now, and nothing will after this.
            self.ask(vcpu, DebugRequest::default())?;
        }
        self.machine.engine().freeze(|_| false).map_err(|e| e.to_string())?;
        self.machine.resume("the debugger has gone").map_err(|e| e.to_string())
    }

    /// What to tell the client about a stop; `met` is what a vCPU has met, if that is the reason.
    pub(crate) fn describe(&mut self, met: Option<(usize, DebugStop)>) -> MultiThreadStopReason<u64> {
        let met = match self.arrived.take() {
            Some(Arrived::Begin) => {
                let tid = Some(thread(self.selected));
                return MultiThreadStopReason::ReplayLog { tid, pos: ReplayLogPosition::Begin };
            }
            Some(Arrived::At(vcpu, stop)) => Some((vcpu, stop)),
            None => met,
        };
        // Another one may have met something at the same time, which nobody hears of: it must be asked anew.
        match met {
            Some((stepped, DebugStop::Step)) => self.asked.retain(|vcpu, r| *vcpu == stepped || !r.step),
            _ => self.asked.clear(),
        }
        let Some((vcpu, stop)) = met else {
            self.select_one_that_moved();
            let signal = if self.trouble.is_some() { Signal::SIGTRAP } else { Signal::SIGINT };
            return MultiThreadStopReason::SignalWithThread { tid: thread(self.selected), signal };
        };
        self.selected = vcpu;
        let tid = thread(vcpu);
        match stop {
            DebugStop::Step => MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP },
            DebugStop::Breakpoint => {
                let pc = self.state(vcpu).map_or(0, |state| state.pc);
                match self.points.kind_at(pc) {
                    BreakKind::Software => MultiThreadStopReason::SwBreak(tid),
                    BreakKind::Hardware => MultiThreadStopReason::HwBreak(tid),
                }
            }
            DebugStop::Watchpoint { address, write } => {
                let (kind, addr) = self.points.watch_met(address, write);
                MultiThreadStopReason::Watch { tid, kind, addr }
            }
        }
    }

    /// A stop that no vCPU has caused is told of the one that is looked at, if it could have moved.
    fn select_one_that_moved(&mut self) {
        let vcpus = self.machine.engine().vcpus();
        let moved = |vcpu: &usize| vcpus.contains(vcpu) && self.plan.moves(*vcpu);
        if !moved(&self.selected) {
            self.selected = vcpus.iter().copied().find(moved).or(vcpus.first().copied()).unwrap_or(0);
        }
    }

    /// Values of the registers that are told with every stop.
    pub(crate) fn expedited(&mut self) -> Vec<Vec<u8>> {
        let Ok(state) = self.state(self.selected) else { return Vec::new() };
        EXPEDITED.iter().map_while(|n| self.layout.read(&state, self.cpu(), *n).ok()).collect()
    }

    /// The translation regime that the vCPU is in.
    pub(crate) fn context(&mut self, vcpu: usize) -> Result<Context, EngineError> {
        let state = self.state(vcpu)?;
        Ok(Context::new(&state, &self.model))
    }

    fn space(&mut self, vcpu: usize) -> TargetResult<Space, Self> {
        if self.physical {
            return Ok(Space::Physical);
        }
        self.context(vcpu).map(Space::Virtual).map_err(|_| TargetError::Errno(INVALID))
    }

    fn register(&mut self, vcpu: usize, number: usize) -> Option<Vec<u8>> {
        if number < FIRST_SYSTEM {
            let state = self.state(vcpu).ok()?;
            return self.layout.read(&state, self.cpu(), number).ok();
        }
        // It may be in a device.
        let layout = Arc::clone(&self.layout);
        self.on(vcpu, move |access, cpu| layout.read(access.state(), cpu, number)).ok()?.ok()
    }

    /// Changes a vCPU's state.
    fn change(
        &mut self,
        tid: Tid,
        f: impl FnOnce(&Layout, &mut CpuState, Cpu<'_>) -> bool + Send + 'static,
    ) -> TargetResult<(), Self> {
        let vcpu = vcpu_of(tid);
        // What it has met where it stood counts no more.
        self.asked.remove(&vcpu);
        self.seen.1.remove(&vcpu);
        let layout = Arc::clone(&self.layout);
        match self.on(vcpu, move |access, cpu| f(&layout, access.state_mut(), cpu)) {
            Ok(true) => Ok(()),
            _ => Err(TargetError::Errno(INVALID)),
        }
    }

    /// Writes memory; every vCPU forgets code that it made from what was there.
    fn write(&mut self, vcpu: usize, address: u64, data: &[u8]) -> TargetResult<(), Self> {
        let space = self.space(vcpu)?;
        let memory = Arc::clone(self.machine.memory());
        let vcpus = self.machine.engine().vcpus();
        let data = data.to_owned();
        let write = move |access: &mut VcpuAccess<'_>| {
            let written = space.write(&memory, address, &data);
            for vcpu in vcpus.into_iter().filter(|_| written) {
                // One that is gone has no code.
                let _ = access.run_on(vcpu, |access| access.backend().memory_changed());
            }
            written
        };
        // Whose addresses they are does not matter any more; the first one stays, whoever is unplugged.
        let first = self.machine.engine().vcpus().first().copied().unwrap_or(vcpu);
        match self.machine.engine().run_exclusive(first, write) {
            Ok(true) => Ok(()),
            Ok(false) => Err(TargetError::Errno(BAD_ADDRESS)),
            Err(_) => Err(TargetError::Errno(INVALID)),
        }
    }

    /// A vCPU in a few words.
    pub(crate) fn vcpu_text(&self, vcpu: usize) -> String {
        let state = self.machine.engine().vcpu_state(vcpu);
        let what = match state {
            Ok(VcpuState::PoweredOff | VcpuState::Stopped(Then::PoweredOff)) => "powered off".to_owned(),
            Ok(VcpuState::AwaitingMachine | VcpuState::Stopped(Then::AwaitMachine)) => {
                "waits for a reset".to_owned()
            }
            Ok(VcpuState::ShuttingDown | VcpuState::Gone) | Err(_) => "gone".to_owned(),
            Ok(state) => {
                let halted = if matches!(state, VcpuState::Halted(_)) { ", halted" } else { "" };
                let at = |access: &mut VcpuAccess<'_>, _: Cpu<'_>| {
                    let state = access.state();
                    (state.el(), if state.sp_index() == 0 { 't' } else { 'h' })
                };
                self.on(vcpu, at).map_or("gone".into(), |(el, sp)| format!("EL{el}{sp}{halted}"))
            }
        };
        format!("CPU {vcpu} ({what})")
    }

    /// True if nothing runs, and nothing will unless somebody asks for it.
    pub(crate) fn stands_still(&self) -> bool {
        matches!(self.machine.state(), MachineState::Paused | MachineState::Created)
    }

    fn known(&self, tid: Tid) -> Result<usize, String> {
        let vcpu = vcpu_of(tid);
        match self.machine.engine().vcpus().contains(&vcpu) {
            true => Ok(vcpu),
            false => Err(format!("there is no thread {tid}")),
        }
    }
}

impl target::Target for Target {
    type Arch = Aarch64;
    type Error = String;

    fn base_ops(&mut self) -> BaseOps<'_, Aarch64, String> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Target {
    fn read_registers(&mut self, regs: &mut GeneralRegisters, tid: Tid) -> TargetResult<(), Self> {
        let state = self.state(vcpu_of(tid)).map_err(|_| TargetError::Errno(INVALID))?;
        regs.0 = self.layout.read_general(&state, self.cpu());
        Ok(())
    }

    fn write_registers(&mut self, regs: &GeneralRegisters, tid: Tid) -> TargetResult<(), Self> {
        let bytes = regs.0.clone();
        self.change(tid, move |layout, state, cpu| layout.write_general(state, cpu, &bytes).is_ok())
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, address: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let read = self.space(vcpu_of(tid))?.read(self.machine.memory(), address, data);
        if read == 0 && !data.is_empty() { Err(TargetError::Errno(BAD_ADDRESS)) } else { Ok(read) }
    }

    fn write_addrs(&mut self, address: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        self.write(vcpu_of(tid), address, data)
    }

    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> Result<(), String> {
        self.machine.engine().vcpus().into_iter().for_each(|vcpu| active(thread(vcpu)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Target {
    fn read_register(&mut self, tid: Tid, reg: RegisterNumber, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let value = self.register(vcpu_of(tid), reg.0).ok_or(TargetError::Errno(INVALID))?;
        buf.get_mut(..value.len()).ok_or(TargetError::Errno(INVALID))?.copy_from_slice(&value);
        Ok(value.len())
    }

    fn write_register(&mut self, tid: Tid, reg: RegisterNumber, value: &[u8]) -> TargetResult<(), Self> {
        let value = value.to_owned();
        self.change(tid, move |layout, state, cpu| layout.write(state, cpu, reg.0, &value).is_ok())
    }
}

impl ThreadExtraInfo for Target {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, String> {
        let text = self.vcpu_text(vcpu_of(tid));
        let length = text.len().min(buf.len());
        buf[..length].copy_from_slice(&text.as_bytes()[..length]);
        Ok(length)
    }
}

impl MultiThreadResume for Target {
    fn resume(&mut self) -> Result<(), String> {
        if self.plan.locked && self.plan.step.is_empty() && self.plan.go.is_empty() {
            return Err("no thread is to run".into());
        }
        // The client waits for a stop now in any case, and is told the trouble with it.
        self.trouble = self.go().err();
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), String> {
        self.plan = Plan::default();
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), String> {
        let vcpu = self.known(tid)?;
        self.plan.go.push(vcpu);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_reverse_step(&mut self) -> Option<ReverseStepOps<'_, Tid, Self>> {
        self.machine.can_rewind().is_ok().then_some(self as _)
    }

    fn support_reverse_cont(&mut self) -> Option<ReverseContOps<'_, Tid, Self>> {
        self.machine.can_rewind().is_ok().then_some(self as _)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Target {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), String> {
        let vcpu = self.known(tid)?;
        self.plan.step.push(vcpu);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Target {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), String> {
        // The order in which the vCPUs of a deterministic machine execute is not to be changed.
        self.plan.locked = !self.machine.is_deterministic();
        Ok(())
    }
}

impl Breakpoints for Target {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Target {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.points.add_breakpoint(address, BreakKind::Software))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.points.remove_breakpoint(address, BreakKind::Software);
        Ok(true)
    }
}

impl HwBreakpoint for Target {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.points.add_breakpoint(address, BreakKind::Hardware))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.points.remove_breakpoint(address, BreakKind::Hardware);
        Ok(true)
    }
}

impl HwWatchpoint for Target {
    fn add_hw_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(self.points.add_watchpoint(address, length, kind))
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        self.points.remove_watchpoint(address, length, kind);
        Ok(true)
    }
}

impl TargetDescriptionXmlOverride for Target {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let all = self.description.as_bytes();
        let rest = usize::try_from(offset).ok().and_then(|start| all.get(start..)).unwrap_or_default();
        let length = rest.len().min(length).min(buf.len());
        buf[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

impl MonitorCmd for Target {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), String> {
        let text = monitor::run(self, &String::from_utf8_lossy(command));
        out.write_raw(text.as_bytes());
        Ok(())
    }
}
