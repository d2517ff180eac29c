//! The machine: built from its description, run to its end.
//!
//! Threads: one per vCPU (the engine's), one per disk (the device's), and the caller of [`Machine::run`], which is
//! the machine's own thread: it alone resets and ends the machine. Other threads use a [`MachineHandle`].

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use armlet_accel_kvm::GicVersion;
use armlet_arm::{CpuModel, CpuState};
use armlet_engine::samples::Samples;
use armlet_engine::{
    Engine, EngineConfig, EngineError, InstructionCount, MachineEvent, Pace as _, Power, Then, VcpuShared,
    VcpuState,
};
use armlet_memory::{AddressSpace, Ram};
use armlet_storage::{BlockBackend, DiskOptions, ImageFormat};
use armlet_virtio::{Block, BlockConfig, Console as VirtioConsole, Entropy, Service};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::accelerator::{self, Chosen, Needs};
use crate::board::{Board, Parts, Times};
use crate::boot::{self, Boot, KernelKind};
use crate::config::{
    Bus, ConsoleDevice, DriveConfig, DriveFormat, MachineConfig, OnReset, Semihosting as SemihostingMode,
};
use crate::console::{Console, Detour};
use crate::error::ConfigError;
use crate::handle::MachineHandle;
use crate::handler::Handler;
use crate::hung::Hanging;
use crate::notice::{Cause, Ear, Notice, Notices, Request};
use crate::pace::{Hands, MachinePace, Outcome, PaceOptions, PaceParts, SEED};
use crate::profile::{self, KernelSymbols};
use crate::recording::{self, Identity, Input, Player, Recorder};
use crate::saved::{RestoreError, Source};
use crate::semihosting::Semihosting;
use crate::statistics::Statistics;
use crate::topology::Topology;
use crate::{cpu, fdt, lock, spec};

/// This many resets within [`RESET_LOOP_TIME`] are a loop that nobody wants to watch.
const RESET_LOOP_COUNT: usize = 10;
const RESET_LOOP_TIME: Duration = Duration::from_secs(60);
/// Longest wait for devices to finish what the guest has handed over.
const DEVICE_PATIENCE: Duration = Duration::from_secs(30);

/// The vCPU that starts first, at power-on and at every reset.
pub(crate) const BOOT_CPU: usize = 0;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched the machine off, or asked for a reset that is to end it.
    PoweredOff,
    /// The guest's program ended with this status (semihosting).
    Exited(u32),
    /// The guest cannot go on: what happened.
    Crashed(String),
    /// The guest resets over and over.
    ResetLoop,
    /// Somebody outside ended the machine: who and why.
    Quit(String),
    /// A replay has come to its recording's end, which the guest had not come to by itself: why it was the end.
    Replayed(String),
    /// The time that was given is over.
    TimedOut,
    /// The machine itself failed: what happened.
    Failed(String),
}

/// A machine.
pub struct Machine {
    shared: Arc<Shared>,
    requests: Receiver<Request>,
    notes: Vec<String>,
    born: Instant,
    was_paused: bool,
}

/// What a machine and its handles share.
pub(crate) struct Shared {
    pub(crate) config: MachineConfig,
    pub(crate) model: Arc<CpuModel>,
    pub(crate) topology: Topology,
    pub(crate) memory: Arc<AddressSpace>,
    pub(crate) board: Board,
    pub(crate) boot: Boot,
    pub(crate) disks: Vec<Arc<dyn BlockBackend>>,
    pub(crate) console: Console,
    pub(crate) virtio_console: Option<Arc<VirtioConsole>>,
    pub(crate) semihosting: Option<Arc<Semihosting>>,
    accelerator: &'static str,
    /// Where guest code was found, if that is wanted.
    pub(crate) samples: Option<Arc<Samples>>,
    pub(crate) engine: Engine,
    pub(crate) requests: Sender<Request>,
    pub(crate) notices: Arc<Notices>,
    /// What comes from outside goes through them.
    pub(crate) hands: Arc<Hands>,
    /// Where time is made of instructions.
    pub(crate) pace: Option<Arc<MachinePace>>,
    /// Held while a vCPU is plugged or unplugged, and while all are reset. Taken before anything else.
    pub(crate) plugging: Mutex<()>,
}

/// What is opened and checked before anything is made.
struct Opened {
    boot: Boot,
    chosen: Chosen,
    disks: Vec<armlet_storage::Disk>,
    pace: Option<PaceOptions>,
    /// What the machine is, if that is to be known, and the recording that it replays.
    identity: Option<Identity>,
    player: Option<Player>,
    /// The saved machine from which this one goes on.
    source: Option<Source>,
}

impl Opened {
    fn new(config: &MachineConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let chosen = accelerator::choose(config)?;
        let model = &chosen.model;
        cpu::check_reach(model, config.places(), config.memory)?;
        let boot = Boot::open(&config.boot, config.memory)?;
        boot::check_page_size(boot.kernel(), &cpu::granules(model), model.name())?;
        let disks = config.drives.iter().map(open_disk).collect::<Result<_, _>>()?;
        let pace = accelerator::pace(&config.accelerator);
        let mut opened = Self { boot, chosen, disks, pace, identity: None, player: None, source: None };
        opened.open_recording(config)?;
        opened.open_saved(config)?;
        Ok(opened)
    }

    /// Opens the saved machine that is to go on, and sees that it is this one.
    fn open_saved(&mut self, config: &MachineConfig) -> Result<(), ConfigError> {
        let Some(path) = &config.restore else { return Ok(()) };
        if config.record.is_some() || config.replay.is_some() {
            return Err(ConfigError::RestoreAndRecording);
        }
        if self.pace.is_some() {
            return Err(RestoreError::Deterministic.into());
        }
        let source = Source::open(path)?;
        source.check_machine(config, &self.chosen.model, &config.topology()?, &self.boot)?;
        self.source = Some(source);
        Ok(())
    }

    /// Opens the recording that is to be replayed, and sees that it is of this machine.
    fn open_recording(&mut self, config: &MachineConfig) -> Result<(), ConfigError> {
        let option = match (&config.record, &config.replay) {
            (None, None) => return Ok(()),
            (Some(_), Some(_)) => return Err(ConfigError::RecordAndReplay),
            (Some(_), None) => "--record",
            (None, Some(_)) => "--replay",
        };
        let pace = self.pace.as_ref().ok_or(ConfigError::NeedsDeterminism { option })?;
        recording::check_drives(config)?;
        let player = config.replay.as_deref().map(Player::open).transpose()?;
        let here = recording::identify(config, pace, &config.topology()?, &self.boot)?;
        if let Some((player, recorded)) = player {
            recording::compare(player.path(), &recorded, &here)?;
            self.player = Some(player);
        }
        self.identity = Some(here);
        Ok(())
    }
}

fn open_disk(drive: &DriveConfig) -> Result<armlet_storage::Disk, ConfigError> {
    let mut options = DiskOptions::new(&drive.file);
    options.format = drive.format.map(|DriveFormat::Raw| ImageFormat::Raw);
    options.read_only = drive.readonly;
    options.snapshot = drive.snapshot;
    Ok(options.open()?)
}

impl Machine {
    /// Builds the machine that `config` describes and loads what it boots. It does not run yet.
    ///
    /// # Errors
    /// What is wrong with the description, or what the host refuses. Nothing was created or changed then.
    pub fn new(config: MachineConfig) -> Result<Self, ConfigError> {
        let Opened { boot, chosen, disks, pace, identity, player, source } = Opened::new(&config)?;
        let Chosen { kind, model, kvm, note } = chosen;
        let count = pace.map(|_| Arc::new(InstructionCount::default()));
        let times = Times::new(count.as_ref().zip(pace.map(|options| options.shift)));
        let topology = config.topology()?;
        let refused = |source| ConfigError::MemoryRefused { asked: config.memory, source };
        let ram = Ram::new(spec::RAM_BASE, config.memory).map_err(refused)?;
        let model = Arc::new(model);
        let mut notes: Vec<_> = note.into_iter().chain(disks.iter().flat_map(|d| d.notes.clone())).collect();
        if let Some(player) = player.as_ref().filter(|player| player.is_cut()) {
            notes.push(format!(
                "recording '{}' has no end: it is replayed as far as it goes",
                player.path().display()
            ));
        }
        let disks: Vec<_> = disks.into_iter().map(|d| d.backend).collect();
        let console = Console::new();
        if pace.is_some() {
            console.output.wait_for_reader();
        }
        let cpus: Vec<_> = (0..config.places()).map(|i| Arc::new(VcpuShared::new(i))).collect();
        let service = if pace.is_some() { Service::Immediate } else { Service::Threaded };
        let mut virtio = virtio_devices(&config, &disks, service)?;
        let mut virtio_console = None;
        if config.console == ConsoleDevice::Virtio {
            let failed = |source| ConfigError::Host { what: "the console's thread", source };
            let device = console.virtio_console(service).map_err(failed)?;
            virtio.push((Bus::Mmio, Arc::clone(&device) as _));
            virtio_console = Some(device);
        }
        let parts = Parts {
            config: &config,
            ram: ram.clone(),
            cpus: &cpus,
            console: &console,
            virtio,
            times: &times,
            kvm: kvm.as_ref(),
        };
        let (board, memory) = Board::new(parts)?;
        let memory = Arc::new(memory);
        let external = board.external_registers();
        let semihosting =
            semihosting(&config, &boot, &console, &times).filter(|_| kvm.is_none()).map(Arc::new);
        let samples = profile::samples(config.profile);
        let needs = Needs {
            symbols: KernelSymbols::of(&boot),
            samples: samples.clone(),
            memory: Arc::clone(&memory),
            model: Arc::clone(&model),
            external,
            cpus: config.places(),
            semihosting: semihosting.is_some(),
            count: config.count,
            counter: count.clone(),
            trace: pace.is_some_and(|options| options.trace),
            host_time: times.clock.host_time().cloned(),
            kvm,
        };
        let accelerator = accelerator::make(kind, &config.accelerator, needs)?;
        let handler = Handler {
            model: Arc::clone(&model),
            ram,
            interrupts: Arc::clone(&board.interrupts),
            affinities: topology.affinities(),
            semihosting: semihosting.clone(),
        };
        let (sender, requests) = mpsc::channel();
        let name = accelerator.name();
        let notices = Arc::new(Notices::default());
        let hands = Arc::new(Hands {
            uart: Arc::clone(&board.uart),
            gpio: Arc::clone(&board.gpio),
            input: Arc::clone(&console.input),
            output: Arc::clone(&console.output),
            notices: Arc::clone(&notices),
            requests: sender.clone(),
        });
        let pace = count.zip(pace).map(|(count, options)| {
            let (time, vcpus) = (Arc::clone(&board.time), cpus.clone());
            MachinePace::new(PaceParts { count, options, time, vcpus, hands: Arc::clone(&hands) as _ })
        });
        let pace = connect_pace(pace, &config, identity, player, &console)?;
        let (time, told) = (Arc::clone(&board.time), Arc::clone(&notices));
        let interrupts = Arc::clone(&board.interrupts);
        let ear = Ear { requests: sender.clone(), time, interrupts, notices: told, pace: pace.clone() };
        let mut engine = EngineConfig::new(accelerator, Arc::new(handler), ear);
        engine.pace = pace.clone().map(|pace| pace as _);
        let engine = Engine::new(engine);
        let shared = Shared {
            config,
            model,
            topology,
            memory,
            board,
            boot,
            disks,
            console,
            virtio_console,
            semihosting,
            accelerator: name,
            samples,
            engine,
            requests: sender,
            notices,
            hands,
            pace,
            plugging: Mutex::default(),
        };
        let was_paused = source.as_ref().is_some_and(|source| !source.was_running());
        shared.begin(cpus, source)?;
        Ok(Self { shared: Arc::new(shared), requests, notes, born: Instant::now(), was_paused })
    }

    /// The device tree that the guest of a machine described so would get.
    ///
    /// # Errors
    /// What is wrong with the description.
    pub fn device_tree(config: &MachineConfig) -> Result<Vec<u8>, ConfigError> {
        let opened = Opened::new(config)?;
        let gic = opened.chosen.kvm.as_ref().map_or(GicVersion::V3, |kvm| kvm.gic_version());
        device_tree(config, &opened.chosen.model, &opened.boot, gic)
    }

    /// What a user should know about the machine, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// True if this is a restored machine that was paused when it was saved: whoever wants it as it was does not start it
    /// yet.
    pub fn was_paused(&self) -> bool {
        self.was_paused
    }

    /// A handle for other threads.
    pub fn handle(&self) -> MachineHandle {
        MachineHandle(Arc::clone(&self.shared))
    }

    /// The serial console.
    pub fn console(&self) -> &Console {
        &self.shared.console
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The engine with the machine's vCPUs, for debuggers and tests.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// The guest-physical address space.
    pub fn memory(&self) -> &Arc<AddressSpace> {
        &self.shared.memory
    }

    /// The CPU model.
    pub fn cpu_model(&self) -> &Arc<CpuModel> {
        &self.shared.model
    }

    /// The accelerator's name.
    pub fn accelerator(&self) -> &'static str {
        self.shared.accelerator
    }

    /// Lets the vCPUs go.
    ///
    /// # Errors
    /// The machine was started before.
    pub fn start(&self) -> Result<(), EngineError> {
        self.shared.engine.start("the machine starts")
    }

    /// Waits for the machine's end, and carries out resets until then; at most for `limit`. The vCPUs do not run
    /// any more when this returns, the disks are flushed.
    pub fn run(&mut self, limit: Option<Duration>) -> End {
        let deadline = limit.and_then(|l| Instant::now().checked_add(l));
        let mut resets = Resets::default();
        let (end, cause) = loop {
            let Some(request) = self.next_request(deadline) else { break (End::TimedOut, Cause::HostUi) };
            let end = match request {
                Request::Vcpu(event) if self.is_stale(&event) => None,
                Request::Vcpu(MachineEvent::Reset { .. }) => self.reset(Cause::GuestReset, &mut resets),
                Request::Vcpu(event) => end_of(event),
                Request::Reset(cause) => self.reset(cause, &mut resets),
                Request::Quit { cause, reason } => Some((End::Quit(reason), cause)),
                Request::Pause => {
                    self.pause_here();
                    None
                }
                Request::Over(Outcome::Ends(why)) => Some((End::Replayed(why), Cause::HostUi)),
                Request::Over(Outcome::Differs(what)) => Some((End::Failed(what), Cause::HostError)),
            };
            if let Some(end) = end {
                break end;
            }
        };
        tracing::info!(?end, %cause, "the machine ends");
        if cause == Cause::GuestPanic {
            self.shared.notices.tell(&Notice::GuestPanicked);
        }
        self.shared.notices.tell(&Notice::Shutdown(cause));
        self.stop();
        self.shared.pace.as_ref().and_then(|pace| pace.finish(&end)).unwrap_or(end)
    }

    fn next_request(&self, deadline: Option<Instant>) -> Option<Request> {
        let gone = || Request::Quit { cause: Cause::HostError, reason: "the machine is gone".into() };
        let Some(deadline) = deadline else { return Some(self.requests.recv().unwrap_or_else(|_| gone())) };
        let left = deadline.saturating_duration_since(Instant::now());
        match self.requests.recv_timeout(left) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(gone()),
        }
    }

    /// True for what a vCPU asked for before a reset that has been carried out since: it waits no more.
    fn is_stale(&self, event: &MachineEvent) -> bool {
        let vcpu = match event {
            // Of a thread that is gone for good.
            MachineEvent::Panicked { .. } => return false,
            // A debugger's business.
            MachineEvent::Debug { .. } => return false,
            MachineEvent::PowerOff { vcpu }
            | MachineEvent::Reset { vcpu }
            | MachineEvent::Exit { vcpu, .. }
            | MachineEvent::Fatal { vcpu, .. } => *vcpu,
        };
        let waits = [VcpuState::AwaitingMachine, VcpuState::Stopped(Then::AwaitMachine)];
        let stale = self.shared.engine.vcpu_state(vcpu).is_ok_and(|state| !waits.contains(&state));
        if stale {
            tracing::info!(?event, "is from before the last reset");
        }
        stale
    }

    /// Time for counting resets: the guest's where everything depends on that alone.
    fn now(&self) -> Duration {
        match &self.shared.pace {
            Some(_) => Duration::from_nanos(self.shared.board.time.clock().now_ns()),
            None => self.born.elapsed(),
        }
    }

    /// Resets the machine; its end and why, if it ends instead.
    fn reset(&self, cause: Cause, resets: &mut Resets) -> Option<(End, Cause)> {
        let shared = &self.shared;
        if shared.config.on_reset == OnReset::PowerOff {
            return Some((End::PoweredOff, cause));
        }
        let again = shared.pace.as_ref().is_some_and(|pace| pace.is_past());
        if cause.by_guest() && !again && resets.count_one(self.now()) {
            return Some((End::ResetLoop, cause));
        }
        let _plugging = lock(&shared.plugging);
        let mut loaded = None;
        let devices = || {
            shared.board.reset();
            if let Some(semihosting) = &shared.semihosting {
                semihosting.reset();
            }
            loaded = Some(shared.load());
            if let Some(pace) = &shared.pace {
                pace.machine_acted();
            }
        };
        let cpu = |index| shared.reset_state(index);
        let result = shared.engine.reset(&cause.to_string(), devices, cpu);
        match (loaded, result) {
            (Some(Err(e)), _) => Some((End::Failed(e.to_string()), Cause::HostError)),
            (_, Err(e)) => Some((End::Failed(e.to_string()), Cause::HostError)),
            _ => {
                shared.notices.tell(&Notice::Reset(cause));
                None
            }
        }
    }

    /// Pauses the machine where its vCPUs' thread waits for this.
    fn pause_here(&self) {
        // It fails only if the machine ends.
        let _ = self.shared.engine.request_pause("the count has come");
        if let Some(pace) = &self.shared.pace {
            pace.machine_acted();
        }
    }

    /// Stops the vCPUs, then lets the devices finish, then flushes the disks.
    fn stop(&self) {
        self.shared.console.output.stop_waiting();
        if let Err(error) = self.shared.engine.pause("the machine ends") {
            tracing::warn!(%error, "the vCPUs do not stop");
        }
        if !self.shared.board.shutdown(DEVICE_PATIENCE) {
            tracing::warn!("a device did not finish its work in time");
        }
        for disk in &self.shared.disks {
            if disk.read_only() {
                continue;
            }
            if let Err(error) = disk.flush() {
                tracing::error!(%error, "a disk image cannot be flushed: what the guest wrote last may be lost");
            }
        }
    }

    /// Counters of the run so far; also after [`Machine::run`], before [`Machine::shutdown`].
    pub fn statistics(&self) -> Statistics {
        let count = self.shared.pace.as_ref().map(|pace| pace.count());
        Statistics::collect(self.shared.accelerator, &self.shared.engine, count.map(|count| &**count))
    }

    /// Ends all threads. The console's readers see its end.
    pub fn shutdown(&self) {
        if let Err(error) = self.shared.engine.shutdown("the machine ends") {
            tracing::warn!(%error, "threads are left behind");
        }
        self.shared.console.close();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Shared {
    /// Makes the vCPUs that are there at the start, with everything as at power-on or as it was saved.
    fn begin(&self, cpus: Vec<Arc<VcpuShared>>, source: Option<Source>) -> Result<(), ConfigError> {
        let create = |vcpu: Arc<VcpuShared>| {
            let (state, power) = self.reset_state(vcpu.index());
            self.engine.create_vcpu(vcpu, state, power)
        };
        let Some(mut source) = source else {
            self.load()?;
            return Ok(cpus.into_iter().take(self.config.smp).try_for_each(create)?);
        };
        let there = source.cpus(cpus.len())?;
        source.load_ram(self.memory.ram())?;
        cpus.into_iter().filter(|vcpu| there.contains(&vcpu.index())).try_for_each(create)?;
        source.apply(self)
    }

    /// Puts everything into RAM.
    pub(crate) fn load(&self) -> Result<(), ConfigError> {
        let gic = self.board.interrupts.version();
        let tree = device_tree(&self.config, &self.model, &self.boot, gic)?;
        Ok(self.boot.load(self.memory.ram(), &tree)?)
    }

    /// Registers and power of a vCPU after a reset.
    pub(crate) fn reset_state(&self, index: usize) -> (CpuState, Power) {
        let mut state = self.model.reset_state(index as u32, self.topology.mpidr(index));
        if index != BOOT_CPU {
            let on = self.board.interrupts.keeps_power();
            return (state, if on { Power::On } else { Power::Off });
        }
        let entry = self.boot.entry();
        state.pc = entry.pc;
        state.x[0] = entry.device_tree;
        (state, Power::On)
    }
}

/// The end that a vCPU's event means, if it means one, and why.
fn end_of(event: MachineEvent) -> Option<(End, Cause)> {
    Some(match event {
        MachineEvent::Debug { .. } => return None,
        MachineEvent::PowerOff { .. } => (End::PoweredOff, Cause::GuestShutdown),
        MachineEvent::Exit { status, .. } => (End::Exited(status), Cause::GuestShutdown),
        MachineEvent::Fatal { vcpu, reason } => {
            (End::Crashed(format!("CPU {vcpu}: {reason}")), Cause::GuestPanic)
        }
        MachineEvent::Panicked { vcpu, reason } => {
            let what = format!("CPU {vcpu}'s thread failed ({reason}); this is a fault of this program");
            (End::Failed(what), Cause::HostError)
        }
        MachineEvent::Reset { .. } => (End::ResetLoop, Cause::GuestReset),
    })
}

/// When the machine was reset lately.
#[derive(Default)]
struct Resets(Vec<Duration>);

impl Resets {
    /// Notes a reset; true if it is one of a loop.
    fn count_one(&mut self, now: Duration) -> bool {
        self.0.retain(|&then| now.saturating_sub(then) < RESET_LOOP_TIME);
        self.0.push(now);
        self.0.len() >= RESET_LOOP_COUNT
    }
}

fn virtio_devices(
    config: &MachineConfig,
    disks: &[Arc<dyn BlockBackend>],
    service: Service,
) -> Result<Vec<Hanging>, ConfigError> {
    let mut devices: Vec<Hanging> = Vec::new();
    for (n, (disk, drive)) in disks.iter().zip(&config.drives).enumerate() {
        let name = drive.file.file_name().map_or_else(String::new, |f| f.to_string_lossy().into_owned());
        let block = BlockConfig { name: format!("disk {n}"), serial: name };
        let failed = |source| ConfigError::Host { what: "a disk's thread", source };
        let block = Block::with_service(Arc::clone(disk), block, service).map_err(failed)?;
        devices.push((drive.bus, Arc::new(block)));
    }
    if config.entropy {
        let failed = |source| ConfigError::Host { what: "the entropy device's thread", source };
        let entropy = match service {
            Service::Threaded => Entropy::new(),
            Service::Immediate => Entropy::seeded(SEED),
        };
        devices.push((Bus::Mmio, Arc::new(entropy.map_err(failed)?)));
    }
    Ok(devices)
}

fn device_tree(
    config: &MachineConfig,
    model: &CpuModel,
    boot: &Boot,
    gic: GicVersion,
) -> Result<Vec<u8>, ConfigError> {
    let seed = seeds(config)?;
    let (kaslr, rng) = seed.split_at(8);
    let kaslr = kaslr.try_into().map(u64::from_le_bytes).ok().filter(|_| config.boot.kaslr);
    let description = fdt::Description {
        cpu_compatible: &cpu::compatible(model),
        topology: config.topology()?,
        caches: model.caches(),
        memory: config.memory,
        gic,
        counters: cpu::has_counters(model),
        virtio_slots: config.virtio_slots(),
        pcie: (config.pci_functions() > 0).then_some(fdt::Pcie { takes_messages: gic == GicVersion::V3 }),
        append: &config.boot.append,
        initrd: boot.initrd_range(),
        kaslr_seed: kaslr,
        rng_seed: rng,
    };
    let bad = |e: vm_fdt::Error| crate::BootError::DeviceTree(e.to_string());
    let generated = fdt::generate(&description).map_err(bad)?;
    Ok(boot.device_tree(generated, &config.boot.append)?)
}

/// Random bytes for the kernel to begin with: 8 for its address, the others for its random numbers.
fn seeds(config: &MachineConfig) -> Result<[u8; 40], ConfigError> {
    let mut seeds = [0; 40];
    if accelerator::pace(&config.accelerator).is_some() {
        ChaCha20Rng::seed_from_u64(SEED ^ 1).fill_bytes(&mut seeds);
        return Ok(seeds);
    }
    let failed = |e: rustix::io::Errno| ConfigError::Host { what: "random numbers", source: e.into() };
    // So few at once are always had whole (getrandom(2)).
    rustix::rand::getrandom(&mut seeds, rustix::rand::GetRandomFlags::empty()).map_err(failed)?;
    Ok(seeds)
}

fn semihosting(config: &MachineConfig, boot: &Boot, console: &Console, times: &Times) -> Option<Semihosting> {
    let elf = match boot.kernel().kind() {
        KernelKind::Elf(elf) => Some(elf),
        KernelKind::Linux(_) => None,
    };
    match config.semihosting {
        SemihostingMode::Off => return None,
        SemihostingMode::Auto if elf.is_none() => return None,
        _ => {}
    }
    let end = spec::RAM_BASE + config.memory;
    let program_end = elf.map_or(spec::RAM_BASE, |e| e.range().1);
    let tree_end = boot.layout().device_tree + boot::dtb::MAX_SIZE;
    let start = if tree_end > program_end { tree_end } else { program_end };
    let start = start.next_multiple_of(4096).min(end);
    let name = boot.kernel().path().file_name().map_or_else(String::new, |f| f.to_string_lossy().into());
    let command_line = format!("{name} {}", config.boot.append);
    let semihosting = Semihosting::new(console.clone(), command_line.trim(), (start, end), times);
    let shares_thread = accelerator::pace(&config.accelerator).is_some() && config.places() > 1;
    Some(if shares_thread { semihosting.impatient() } else { semihosting })
}

/// Gives the pace its recording, and puts it between the console and the guest.
fn connect_pace(
    pace: Option<MachinePace>,
    config: &MachineConfig,
    identity: Option<Identity>,
    player: Option<Player>,
    console: &Console,
) -> Result<Option<Arc<MachinePace>>, ConfigError> {
    let Some(pace) = pace else { return Ok(None) };
    let pace = match (player, &config.record, identity) {
        (Some(player), ..) => pace.replaying(player),
        (None, Some(path), Some(identity)) => pace.recording(Recorder::new(path, identity)?),
        _ => pace,
    };
    let pace = Arc::new(pace);
    let to = Arc::downgrade(&pace);
    let submit = move |input: Input| {
        if let Some(pace) = to.upgrade() {
            pace.submit(input);
        }
    };
    console.input.divert(match pace.is_replay() {
        true => Detour::Ignored(Box::new(move || submit(Input::Break))),
        false => Detour::Through(Box::new(move |data| submit(Input::Console(data.to_vec())))),
    });
    Ok(Some(pace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_resets_in_a_short_time_are_a_loop_and_slow_ones_are_not() {
        let mut resets = Resets::default();
        let quick = (1..=RESET_LOOP_COUNT as u32).map(|i| Duration::from_millis(100) * i);
        assert_eq!(quick.filter(|t| resets.count_one(*t)).count(), 1);
        let mut resets = Resets::default();
        let mut slow = (1..100).map(|i| Duration::from_secs(7) * i);
        assert!(!slow.any(|t| resets.count_one(t)));
    }

    /// Keeps what it hears.
    #[derive(Default)]
    struct Diary(Mutex<Vec<Notice>>);

    impl crate::NoticeListener for Diary {
        fn notice(&self, notice: &Notice) {
            lock(&self.0).push(notice.clone());
        }
    }

    #[test]
    fn a_crash_of_the_guest_is_told_as_one() {
        let mut config = MachineConfig { memory: 64 << 20, ..MachineConfig::default() };
        config.accelerator.kind = crate::config::AcceleratorKind::Dummy;
        let mut machine = Machine::new(config).unwrap();
        let diary = Arc::new(Diary::default());
        machine.handle().listen(&(Arc::clone(&diary) as _));
        // No vCPU of that number can have been reset since.
        let fatal = MachineEvent::Fatal { vcpu: 9, reason: "test".into() };
        machine.shared.requests.send(Request::Vcpu(fatal)).unwrap();
        assert_eq!(machine.run(None), End::Crashed("CPU 9: test".into()));
        assert_eq!(*lock(&diary.0), [Notice::GuestPanicked, Notice::Shutdown(Cause::GuestPanic)]);
    }

    #[test]
    fn what_a_vcpu_asked_for_before_a_reset_is_forgotten() {
        let mut config = MachineConfig { memory: 64 << 20, smp: 2, ..MachineConfig::default() };
        config.accelerator.kind = crate::config::AcceleratorKind::Dummy;
        let mut machine = Machine::new(config).unwrap();
        machine.start().unwrap();
        let reason = || String::from("test");
        let asked = [
            MachineEvent::PowerOff { vcpu: 0 },
            MachineEvent::Reset { vcpu: 1 },
            MachineEvent::Exit { vcpu: 0, status: 3 },
            MachineEvent::Fatal { vcpu: 1, reason: reason() },
        ];
        // Neither vCPU waits for the machine's thread.
        asked.into_iter().for_each(|event| machine.shared.requests.send(Request::Vcpu(event)).unwrap());
        machine.handle().quit(Cause::HostUi, "the test");
        assert_eq!(machine.run(None), End::Quit("the test".into()));
        let panicked = MachineEvent::Panicked { vcpu: 0, reason: reason() };
        machine.shared.requests.send(Request::Vcpu(panicked)).unwrap();
        assert!(matches!(machine.run(None), End::Failed(_)));
    }
}
