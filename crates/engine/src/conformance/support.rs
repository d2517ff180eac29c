//! A small machine around a subject, and what its tests have in common.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use armlet_arm::CpuState;

use super::{Op, Subject};
use crate::accel::{Accelerator, AcceleratorError, DebugRequest, Halt, Kick, VcpuBackend, VcpuExit};
use crate::pace::{InstructionCount, NEVER, Pace};
use crate::{
    AfterExit, Engine, EngineConfig, ExitHandler, MachineEvent, Power, PowerControl, VcpuAccess, VcpuShared,
    VcpuState,
};

/// The longest that anything in these tests may take on a loaded host; reaching it is a failure.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Increments X0 for ever.
pub const COUNT: &[Op] = &[Op::Increment(0), Op::Jump(0)];

/// Fails unless `condition` comes true in time.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// What a vCPU does, seen from the thread that drives it.
#[derive(Default)]
pub struct Seen {
    /// Inside `run`.
    pub inside: AtomicBool,
    /// Calls of `run`.
    pub runs: AtomicU64,
}

/// What happens to a vCPU instead of an ordinary life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Making it fails.
    Refuse,
    /// Making it panics.
    PanicInCreation,
    /// Its first run panics.
    PanicInRun,
    /// Its first run ends with a fatal exit.
    FatalInRun,
    /// Its first run ignores kicks until the gate opens.
    Hang,
    /// Making it waits until the gate opens.
    SlowCreation,
}

/// A pace at which nothing is planned; time that is skipped passes for real.
#[derive(Default)]
pub struct PlainPace {
    count: Arc<InstructionCount>,
    /// Until when nobody has anything to do, and since when.
    idle: Mutex<Option<(u64, Instant)>>,
}

impl Pace for PlainPace {
    fn count(&self) -> &Arc<InstructionCount> {
        &self.count
    }

    fn next(&self) -> u64 {
        NEVER
    }

    fn turn(&self) -> u64 {
        200
    }

    fn happen(&self, _digest: &mut dyn FnMut() -> u64) {}

    fn counts_in(&self, time: Duration) -> u64 {
        time.as_nanos() as u64
    }

    fn idle(&self, until: u64, sleep: &mut dyn FnMut(Option<Duration>) -> bool) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let since = idle.filter(|(then, _)| *then == until).map_or_else(Instant::now, |(_, since)| since);
        let all = Duration::from_nanos(until - self.count.now());
        // Who looks in does not put it off.
        *idle = Some((until, since));
        if !sleep((until != NEVER).then(|| all.saturating_sub(since.elapsed()))) {
            self.count.skip_to(until);
            *idle = None;
        }
    }
}

/// A gate for faults that wait.
#[derive(Default)]
pub struct Latch(Mutex<bool>, std::sync::Condvar);

impl Latch {
    /// Waits until it is open.
    pub fn wait(&self) {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.1.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
    }

    /// Opens it for good.
    pub fn open(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }
}

/// The subject's accelerator, observed, and with faults put in.
struct Observed {
    inner: Arc<dyn Accelerator>,
    seen: Vec<Arc<Seen>>,
    faults: Vec<(usize, Fault)>,
    latch: Arc<Latch>,
}

impl Accelerator for Observed {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn create_vcpu(
        &self,
        shared: Arc<VcpuShared>,
        state: CpuState,
    ) -> Result<Box<dyn VcpuBackend>, AcceleratorError> {
        let index = shared.index();
        let fault = self.faults.iter().find(|(i, _)| *i == index).map(|(_, fault)| *fault);
        match fault {
            Some(Fault::Refuse) => return Err(AcceleratorError(format!("No room for vCPU {index}"))),
            Some(Fault::PanicInCreation) => panic!("test: creation of {index}"),
            Some(Fault::SlowCreation) => self.latch.wait(),
            _ => {}
        }
        let inner = self.inner.create_vcpu(shared, state)?;
        let seen = Arc::clone(&self.seen[index]);
        let home = std::thread::current().id();
        Ok(Box::new(ObservedVcpu { inner, seen, fault, latch: Arc::clone(&self.latch), home }))
    }
}

struct ObservedVcpu {
    inner: Box<dyn VcpuBackend>,
    seen: Arc<Seen>,
    fault: Option<Fault>,
    latch: Arc<Latch>,
    /// The thread that made it, which alone may touch it.
    home: ThreadId,
}

impl ObservedVcpu {
    #[track_caller]
    fn at_home(&self) {
        assert_eq!(std::thread::current().id(), self.home, "another thread's vCPU");
    }
}

impl ObservedVcpu {
    fn observe(&mut self, run: impl FnOnce(&mut dyn VcpuBackend) -> VcpuExit) -> VcpuExit {
        self.at_home();
        self.seen.runs.fetch_add(1, Ordering::Relaxed);
        self.seen.inside.store(true, Ordering::SeqCst);
        let exit = match self.fault.take() {
            Some(Fault::PanicInRun) => panic!("test: a run"),
            Some(Fault::FatalInRun) => VcpuExit::Fatal("test: a fatal exit".to_owned()),
            Some(Fault::Hang) => {
                self.latch.wait();
                VcpuExit::Kicked
            }
            _ => run(&mut *self.inner),
        };
        self.seen.inside.store(false, Ordering::SeqCst);
        exit
    }
}

impl VcpuBackend for ObservedVcpu {
    fn kick_handle(&self) -> Arc<dyn Kick> {
        self.inner.kick_handle()
    }

    fn run(&mut self) -> VcpuExit {
        self.observe(|inner| inner.run())
    }

    fn run_until(&mut self, until: u64) -> VcpuExit {
        self.observe(|inner| inner.run_until(until))
    }

    fn steps(&self) -> bool {
        self.inner.steps()
    }

    fn state(&self) -> &CpuState {
        self.at_home();
        self.inner.state()
    }

    fn state_mut(&mut self) -> &mut CpuState {
        self.at_home();
        self.inner.state_mut()
    }

    fn reset(&mut self, state: CpuState) {
        self.at_home();
        self.inner.reset(state);
    }

    fn power_on(&mut self, state: CpuState) {
        self.at_home();
        self.inner.power_on(state);
    }

    fn memory_changed(&mut self) {
        self.at_home();
        self.inner.memory_changed();
    }

    fn set_debug(&mut self, request: DebugRequest) -> Result<(), AcceleratorError> {
        self.at_home();
        self.inner.set_debug(request)
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        self.inner.statistics()
    }
}

/// What a test's hypercalls do.
pub type Hypercall = Box<dyn Fn(&PowerControl, usize, u16, &mut CpuState) -> AfterExit + Send + Sync>;

struct Handler(Hypercall, Option<Duration>);

impl ExitHandler for Handler {
    fn hypercall(&self, power: &PowerControl, vcpu: usize, imm: u16, state: &mut CpuState) -> AfterExit {
        (self.0)(power, vcpu, imm, state)
    }

    fn semihosting(&self, _vcpu: usize, _state: &mut CpuState) -> AfterExit {
        AfterExit::Resume
    }

    fn event_stream(&self, _vcpu: usize) -> Option<Duration> {
        self.1
    }
}

/// Says what a test's machine is to be.
pub struct Plan<'a> {
    subject: &'a dyn Subject,
    program: &'a [Op],
    faults: Vec<(usize, Fault)>,
    handler: Hypercall,
    event_stream: Option<Duration>,
    patience: Duration,
}

impl<'a> Plan<'a> {
    /// A machine that executes `program`.
    pub fn new(subject: &'a dyn Subject, program: &'a [Op]) -> Self {
        let handler: Hypercall = Box::new(|_, _, _, _| AfterExit::Resume);
        Self { subject, program, faults: Vec::new(), handler, event_stream: None, patience: LIMIT }
    }

    /// With a fault in vCPU `index`.
    pub fn fault(mut self, index: usize, fault: Fault) -> Self {
        self.faults.push((index, fault));
        self
    }

    /// With hypercalls that do `f`.
    pub fn hypercall(
        mut self,
        f: impl Fn(&PowerControl, usize, u16, &mut CpuState) -> AfterExit + Send + Sync + 'static,
    ) -> Self {
        self.handler = Box::new(f);
        self
    }

    /// With an event stream of that period.
    pub fn event_stream(mut self, period: Duration) -> Self {
        self.event_stream = Some(period);
        self
    }

    /// With little patience.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A machine without vCPUs yet; there may be up to 8.
    pub fn empty(self) -> Machine {
        let loaded = self.subject.load(self.program);
        let seen: Vec<Arc<Seen>> = (0..8).map(|_| Arc::default()).collect();
        let latch = Arc::new(Latch::default());
        let accelerator = Observed {
            inner: loaded.accelerator,
            seen: seen.clone(),
            faults: self.faults,
            latch: Arc::clone(&latch),
        };
        let (sender, events) = channel();
        let handler = Arc::new(Handler(self.handler, self.event_stream));
        let mut config = EngineConfig::new(Arc::new(accelerator), handler, sender);
        config.patience = self.patience;
        config.pace = loaded.pace;
        let engine = Arc::new(Engine::new(config));
        Machine {
            engine,
            shared: Vec::new(),
            events: Mutex::new(events),
            seen,
            latch,
            entry: loaded.entry,
            sleeps_inside: self.subject.sleeps_inside(),
        }
    }

    /// A machine of `count` vCPUs, all powered on, not started.
    pub fn build(self, count: usize) -> Machine {
        let mut machine = self.empty();
        for index in 0..count {
            machine.create(index, Power::On);
        }
        machine
    }

    /// The same, started.
    pub fn start(self, count: usize) -> Machine {
        let machine = self.build(count);
        machine.engine.start("test").expect("a new machine starts");
        machine
    }
}

/// A test's machine.
pub struct Machine {
    /// The engine under test.
    pub engine: Arc<Engine>,
    /// What its vCPUs share, by number.
    pub shared: Vec<Arc<VcpuShared>>,
    /// What its vCPUs sent.
    pub events: Mutex<Receiver<MachineEvent>>,
    /// What its vCPUs are seen doing, by number.
    pub seen: Vec<Arc<Seen>>,
    /// Ends the waiting of faults that wait.
    pub latch: Arc<Latch>,
    /// Address of the program.
    pub entry: u64,
    /// As of [`Subject::sleeps_inside`].
    pub sleeps_inside: bool,
}

impl Machine {
    /// Registers of vCPU `index` at the program's start.
    pub fn reset_state(&self, index: usize) -> CpuState {
        reset_state(index, self.entry)
    }

    /// Makes vCPU `index`.
    pub fn create(&mut self, index: usize, power: Power) {
        let shared = Arc::new(VcpuShared::new(index));
        self.engine
            .create_vcpu(Arc::clone(&shared), self.reset_state(index), power)
            .expect("a vCPU can be made");
        self.shared.push(shared);
    }

    /// Sets what a debugger wants of vCPU `index`.
    #[track_caller]
    pub fn debug(&self, index: usize, request: DebugRequest) {
        let set = self.engine.run_on(index, move |cpu| cpu.backend().set_debug(request));
        set.expect("work runs").expect("the accelerator can debug");
    }

    /// PC of vCPU `index`, as the number of an op.
    #[track_caller]
    pub fn at(&self, index: usize) -> u64 {
        (self.engine.run_on(index, |cpu| cpu.state().pc).expect("work runs") - self.entry) / 4
    }

    /// X`register` of vCPU `index`.
    #[track_caller]
    pub fn x(&self, index: usize, register: usize) -> u64 {
        self.engine.run_on(index, move |cpu| cpu.state().x[register]).expect("work runs")
    }

    /// Waits until X0 of vCPU `index` rises.
    #[track_caller]
    pub fn progresses(&self, index: usize) {
        let before = self.x(index, 0);
        eventually("progress of the guest", || self.x(index, 0) > before);
    }

    /// Waits until vCPU `index` is in `state`.
    #[track_caller]
    pub fn reaches(&self, index: usize, state: VcpuState) {
        let reached = || self.engine.vcpu_state(index).ok() == Some(state);
        eventually(&format!("vCPU {index} is {state:?}"), reached);
    }

    /// The state of a vCPU that has come to rest in `halt`.
    pub fn resting(&self, halt: Halt) -> VcpuState {
        if self.sleeps_inside { VcpuState::Running } else { VcpuState::Halted(halt) }
    }

    /// Waits until vCPU `index` has come to rest in `halt`. Where it sleeps inside `run`, the host tells whether its thread
    /// does.
    #[track_caller]
    pub fn rests(&self, index: usize, halt: Halt) {
        self.reaches(index, self.resting(halt));
        if self.sleeps_inside {
            let thread = self.engine.run_on(index, |_| rustix::thread::gettid()).expect("work runs");
            let asleep = || halt == Halt::Event || thread_sleeps(thread);
            eventually("the vCPU rests inside", || self.is_inside(index) && asleep());
        }
    }

    /// Keeps vCPU `index` busy with work, outside guest execution but not stopped, until the latch opens.
    #[track_caller]
    pub fn occupy(&self, index: usize) -> Arc<Latch> {
        self.reaches(index, VcpuState::Running);
        let (latch, begun) = (Arc::new(Latch::default()), Arc::new(AtomicBool::new(false)));
        let (held, flag) = (Arc::clone(&latch), Arc::clone(&begun));
        let work = move |_: &mut VcpuAccess<'_>| {
            flag.store(true, Ordering::SeqCst);
            held.wait();
        };
        self.engine.run_on_async(index, work).expect("queued");
        eventually("the vCPU is busy", || begun.load(Ordering::SeqCst));
        latch
    }

    /// True if vCPU `index` is inside `run`.
    pub fn is_inside(&self, index: usize) -> bool {
        self.seen[index].inside.load(Ordering::SeqCst)
    }

    /// How often vCPU `index` was run.
    pub fn runs(&self, index: usize) -> u64 {
        self.seen[index].runs.load(Ordering::Relaxed)
    }

    /// The next event.
    #[track_caller]
    pub fn event(&self) -> MachineEvent {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv_timeout(LIMIT)
            .expect("an event arrives")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.latch.open();
    }
}

/// Registers at a program's start.
pub fn reset_state(index: usize, entry: u64) -> CpuState {
    let mut state = CpuState::new(index as u32);
    state.pc = entry;
    state
}

/// True if a thread of this process sleeps, as the host tells it (proc(5)).
fn thread_sleeps(thread: rustix::thread::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", thread.as_raw_nonzero()));
    // The name before it may have spaces and brackets.
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')))
}

/// Processor time that the thread of vCPU `index` has used.
pub fn thread_time(engine: &Engine, index: usize) -> Duration {
    let now = engine.run_on(index, |_| rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime));
    let now = now.expect("work runs");
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}
