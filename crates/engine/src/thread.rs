//! A vCPU's thread: one enum for what it does, one function per state.
//!
//! Each round takes the exit request *first* and looks for reasons *afterwards* (work, hold, leave), then
//! does one step of its state. A reason that arrives later finds the request taken, sets it again and
//! kicks, so the step ends at once (G9). Work runs at the head of each round, so in every state (G2).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use armlet_arm::CpuState;

use crate::accel::{AcceleratorError, Halt, VcpuBackend, VcpuExit};
use crate::access::{Body, Seat, VcpuAccess, panic_message};
use crate::engine::Core;
use crate::event::{AfterExit, MachineEvent};
use crate::linger::Linger;
use crate::power::{Power, PowerControl};
use crate::reply::Promise;
use crate::single::Pool;
use crate::sync::{thread as threads, thread_local};
use crate::vcpu::{Then, Vcpu, VcpuState};

/// Shortest and longest sleep of a WFE that waits for a memory location (an armed exclusive monitor):
/// a store by another vCPU clears the monitor in the architecture, and sends no event here.
const MONITOR_WAIT: (Duration, Duration) = (Duration::from_micros(5), Duration::from_micros(500));

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "the model checkers' macros know no const blocks")]
    static ON_VCPU_THREAD: std::cell::Cell<bool> = std::cell::Cell::new(false);
}

/// True on the threads of vCPUs, of any machine.
pub(crate) fn on_vcpu_thread() -> bool {
    ON_VCPU_THREAD.with(std::cell::Cell::get)
}

/// Marks the calling thread as a vCPU's.
pub(crate) fn enter_vcpu_thread() {
    ON_VCPU_THREAD.with(|flag| flag.set(true));
    // Bounded sleeps are for guests that wait for microseconds; the usual slack is 50 of them.
    #[cfg(not(any(loom, shuttle)))]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
}

/// Counts of one vCPU's exits.
#[derive(Default)]
pub(crate) struct ExitCounters {
    kicked: AtomicU64,
    wfi: AtomicU64,
    wfe: AtomicU64,
    hypercall: AtomicU64,
    semihosting: AtomicU64,
    debug: AtomicU64,
    gate_waits: AtomicU64,
}

impl ExitCounters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        let all = [
            ("exits_kicked", &self.kicked),
            ("exits_wfi", &self.wfi),
            ("exits_wfe", &self.wfe),
            ("exits_hypercall", &self.hypercall),
            ("exits_semihosting", &self.semihosting),
            ("exits_debug", &self.debug),
            ("gate_waits", &self.gate_waits),
        ];
        all.iter().map(|(name, counter)| ((*name).to_owned(), counter.load(Ordering::Relaxed))).collect()
    }
}

/// A vCPU that is to be made on the thread that will run it.
pub(crate) struct Joining {
    pub(crate) vcpu: Arc<Vcpu>,
    pub(crate) state: CpuState,
    pub(crate) first: Then,
    pub(crate) promise: Promise<Result<(), AcceleratorError>>,
}

/// Starts a thread for one vCPU. It is joined by its last act ([`Vcpu::finish`]), which can be waited for with a limit.
pub(crate) fn spawn(core: &Arc<Core>, joining: Joining) -> std::io::Result<()> {
    let name = format!("CPU {}/{}", joining.vcpu.index(), core.accelerator.name());
    let core = Arc::clone(core);
    let body = move || {
        enter_vcpu_thread();
        let Joining { vcpu, state, first, promise } = joining;
        promise.begin();
        match make(&core, &vcpu, state, first) {
            Ok(backend) => {
                promise.answer(Ok(Ok(())));
                run(&core, &vcpu, backend, first);
            }
            Err(error) => promise.answer(Ok(Err(error))),
        }
        // Who waits for the thread's end finds nothing of the machine left here.
        drop(core);
        vcpu.finish();
    };
    threads::Builder::new().name(name).spawn(body).map(drop)
}

/// Makes the accelerator's vCPU, on the calling thread, which is to be `vcpu`'s.
pub(crate) fn make(
    core: &Core,
    vcpu: &Vcpu,
    state: CpuState,
    first: Then,
) -> Result<Box<dyn VcpuBackend>, AcceleratorError> {
    vcpu.note_thread();
    let create = AssertUnwindSafe(|| core.accelerator.create_vcpu(Arc::clone(&vcpu.shared), state));
    let backend = catch_unwind(create).unwrap_or_else(|panic| {
        let reason = panic_message(&*panic);
        Err(AcceleratorError(format!("The accelerator panicked while it made a vCPU: {reason}")))
    })?;
    vcpu.shared.set_kick(backend.kick_handle());
    vcpu.publish(VcpuState::Stopped(first));
    Ok(backend)
}

/// Runs a vCPU until it leaves, and tells everybody however it ends.
fn run(core: &Arc<Core>, vcpu: &Arc<Vcpu>, backend: Box<dyn VcpuBackend>, first: Then) {
    let seat = Seat(Some(Body { backend, next: None }));
    let body = || VcpuThread::new(core, vcpu, seat, first).run();
    let end = catch_unwind(AssertUnwindSafe(body));
    farewell(core, vcpu, end.err().map(|panic| panic_message(&*panic)));
}

/// A vCPU's thread is done with it, by a panic if there is a reason.
pub(crate) fn farewell(core: &Core, vcpu: &Vcpu, panic: Option<String>) {
    drop(vcpu.queue.close());
    if let Some(reason) = panic {
        report_panic(core, vcpu.index(), reason);
    }
    vcpu.publish(VcpuState::Gone);
    core.control.declare_gone(vcpu);
}

fn report_panic(core: &Core, vcpu: usize, reason: String) {
    tracing::error!(vcpu, reason, "the thread of a vCPU panicked");
    core.control.fail(&format!("the thread of vCPU {vcpu} panicked: {reason}"));
    core.send(MachineEvent::Panicked { vcpu, reason });
}

pub(crate) struct VcpuThread {
    pub(crate) core: Arc<Core>,
    pub(crate) vcpu: Arc<Vcpu>,
    power: PowerControl,
    pub(crate) seat: Seat,
    pub(crate) state: VcpuState,
    /// WFEs with an armed monitor in a row.
    monitor_waits: u32,
    /// How long the halt lasts at most.
    pub(crate) halt_limit: Option<Duration>,
    /// When the halt ends by itself. Fixed as it begins: work and kicks do not put it off.
    wake_at: Option<Instant>,
    linger: Linger,
}

impl VcpuThread {
    pub(crate) fn new(core: &Arc<Core>, vcpu: &Arc<Vcpu>, seat: Seat, first: Then) -> Self {
        Self {
            core: Arc::clone(core),
            vcpu: Arc::clone(vcpu),
            power: PowerControl(Arc::downgrade(core)),
            seat,
            state: VcpuState::Stopped(first),
            monitor_waits: 0,
            halt_limit: None,
            wake_at: None,
            linger: Linger::new(),
        }
    }

    fn run(mut self) {
        loop {
            self.vcpu.shared.clear_exit_request();
            self.drain(None);
            if self.vcpu.is_leaving() {
                self.enter(VcpuState::ShuttingDown);
            }
            let next = match self.state {
                VcpuState::Stopped(then) => self.stopped(then),
                VcpuState::Running => self.running(),
                VcpuState::Halted(halt) => self.halted(halt),
                VcpuState::PoweredOff => self.off(Then::PoweredOff),
                VcpuState::AwaitingMachine => self.off(Then::AwaitMachine),
                VcpuState::ShuttingDown | VcpuState::Gone => return,
            };
            self.enter(next);
        }
    }

    pub(crate) fn enter(&mut self, state: VcpuState) {
        if self.state != state {
            self.state = state;
            self.vcpu.publish(state);
        }
    }

    /// Does the work that there is now, and takes over what it chose as the next state. Tells whether it did choose.
    ///
    /// What comes meanwhile is for the next round: callers who submit faster than work is done would keep a vCPU
    /// from a pause and from leaving for ever.
    pub(crate) fn drain(&mut self, pool: Option<&Pool>) -> bool {
        let (now, _) = self.vcpu.queue.lengths();
        for _ in 0..now {
            // Work can itself do other work of this vCPU, while it waits.
            let Some(work) = self.vcpu.queue.pop() else { break };
            let mut access = VcpuAccess {
                seat: &mut self.seat,
                vcpu: &self.vcpu,
                core: &self.core,
                exclusive: false,
                pool,
            };
            access.perform(work);
        }
        let Some(then) = self.seat.body_mut().next.take() else { return false };
        let next = match self.state {
            VcpuState::Stopped(_) => VcpuState::Stopped(then),
            _ => resumed(then),
        };
        self.enter(next);
        self.monitor_waits = 0;
        true
    }

    /// Something waits at the head of the next round.
    fn attention(&self) -> bool {
        self.vcpu.queue.has_work() || self.vcpu.is_leaving() || self.vcpu.is_held()
    }

    fn stopped(&mut self, then: Then) -> VcpuState {
        if self.core.control.rest(&self.vcpu) { resumed(then) } else { VcpuState::Stopped(then) }
    }

    fn running(&mut self) -> VcpuState {
        if self.vcpu.is_held() {
            return VcpuState::Stopped(Then::Run);
        }
        let exit = {
            let Some(_inside) = self.core.gate.enter(&self.vcpu.door) else {
                self.wait_at_gate();
                return VcpuState::Running;
            };
            self.seat.body_mut().backend.run()
        };
        self.handle(exit)
    }

    fn wait_at_gate(&self) {
        ExitCounters::count(&self.vcpu.exits.gate_waits);
        let _waiting = self.vcpu.door.wait();
        self.vcpu.shared.sleep_until(None, || self.core.gate.is_open() || self.attention());
    }

    fn halted(&mut self, halt: Halt) -> VcpuState {
        if self.vcpu.is_held() {
            // Completing WFI and WFE early is allowed, so nothing needs to be remembered.
            return VcpuState::Stopped(Then::Run);
        }
        let (shared, begin) = (&self.vcpu.shared, Instant::now());
        let ready = || self.is_awake(halt) || self.attention();
        let woken = self.linger.look(self.wake_at, ready) || shared.sleep_until(self.wake_at, ready);
        self.linger.learn(begin.elapsed());
        if woken && !self.is_awake(halt) {
            return VcpuState::Halted(halt);
        }
        self.end_halt(halt)
    }

    /// Something ends the halt.
    pub(crate) fn is_awake(&self, halt: Halt) -> bool {
        self.vcpu.shared.ends(halt, self.seat.body().backend.state().pstate)
    }

    pub(crate) fn end_halt(&self, halt: Halt) -> VcpuState {
        if halt == Halt::Event {
            self.vcpu.shared.take_event();
        }
        VcpuState::Running
    }

    /// How long a WFE may sleep at most.
    fn event_limit(&mut self) -> Option<Duration> {
        let stream = self.core.handler.event_stream(self.vcpu.index());
        if self.seat.body().backend.state().monitor.address == u64::MAX {
            return stream;
        }
        let wait = MONITOR_WAIT.0.saturating_mul(1 << self.monitor_waits.min(16)).min(MONITOR_WAIT.1);
        self.monitor_waits = self.monitor_waits.saturating_add(1);
        Some(stream.map_or(wait, |stream| stream.min(wait)))
    }

    /// Off or parked: only work changes that.
    fn off(&mut self, then: Then) -> VcpuState {
        if self.vcpu.is_held() {
            return VcpuState::Stopped(then);
        }
        self.vcpu.shared.sleep_until(None, || self.attention());
        resumed(then)
    }

    /// What an exit leads to. Knows nothing of the accelerator, so tests feed it any exit.
    pub(crate) fn handle(&mut self, exit: VcpuExit) -> VcpuState {
        let exits = &self.vcpu.exits;
        let index = self.vcpu.index();
        match exit {
            VcpuExit::Kicked => {
                ExitCounters::count(&exits.kicked);
                VcpuState::Running
            }
            VcpuExit::Halted(Halt::Interrupt) => {
                ExitCounters::count(&exits.wfi);
                self.monitor_waits = 0;
                (self.halt_limit, self.wake_at) = (None, None);
                VcpuState::Halted(Halt::Interrupt)
            }
            VcpuExit::Halted(Halt::Event) => {
                ExitCounters::count(&exits.wfe);
                self.halt_limit = self.event_limit();
                self.wake_at = self.halt_limit.map(|limit| Instant::now() + limit);
                VcpuState::Halted(Halt::Event)
            }
            VcpuExit::HaltedFor(halt, limit) => {
                let halted = self.handle(VcpuExit::Halted(halt));
                let limit = self.halt_limit.map_or(limit, |other| other.min(limit));
                // What is too far away to be a moment of the host never comes.
                (self.halt_limit, self.wake_at) = (Some(limit), Instant::now().checked_add(limit));
                halted
            }
            VcpuExit::Hypercall(imm) => {
                ExitCounters::count(&exits.hypercall);
                let state = self.seat.body_mut().backend.state_mut();
                let after = self.core.handler.hypercall(&self.power, index, imm, state);
                self.after(after)
            }
            VcpuExit::Semihosting => {
                ExitCounters::count(&exits.semihosting);
                let state = self.seat.body_mut().backend.state_mut();
                let after = self.core.handler.semihosting(index, state);
                self.after(after)
            }
            VcpuExit::Debug(stop) => {
                ExitCounters::count(&exits.debug);
                // Before the event: who hears of it finds the machine pausing.
                let _ = self.core.control.request_pause("debugger");
                self.core.send(MachineEvent::Debug { vcpu: index, stop });
                VcpuState::Running
            }
            VcpuExit::Fatal(reason) => self.fatal(reason),
        }
    }

    fn after(&mut self, after: AfterExit) -> VcpuState {
        match after {
            AfterExit::Resume => VcpuState::Running,
            AfterExit::PowerOff => {
                // Off becomes visible only now, outside guest execution: a CPU_ON that sees it finds a
                // thread that does its work.
                self.vcpu.power.set(Power::Off);
                VcpuState::PoweredOff
            }
            AfterExit::StopMachine(event) => {
                self.enter(VcpuState::AwaitingMachine);
                self.core.send(event);
                VcpuState::AwaitingMachine
            }
        }
    }

    fn fatal(&mut self, reason: String) -> VcpuState {
        let vcpu = self.vcpu.index();
        tracing::error!(vcpu, reason, "a vCPU cannot go on");
        self.core.handler.fatal(vcpu, &reason);
        self.enter(VcpuState::AwaitingMachine);
        self.core.control.fail(&format!("vCPU {vcpu} cannot go on: {reason}"));
        self.core.send(MachineEvent::Fatal { vcpu, reason });
        VcpuState::AwaitingMachine
    }
}

pub(crate) fn resumed(then: Then) -> VcpuState {
    match then {
        Then::Run => VcpuState::Running,
        Then::PoweredOff => VcpuState::PoweredOff,
        Then::AwaitMachine => VcpuState::AwaitingMachine,
    }
}
