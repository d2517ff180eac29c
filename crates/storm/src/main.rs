//! Everything that can happen to a running machine, at random and at once.
//!
//! Linux with 4 CPUs runs stress-ng, which checks its own results. Meanwhile agents, each on a thread of its own, pause
//! and resume the machine, do work on its vCPUs, hold exclusive sections, take CPUs offline and out, plug them again,
//! and debug. A watchdog ends a storm that hangs, and says who waits for whom. At the end the guest must come to an
//! orderly end, its kernel must not have complained, and the process must need no more of the host than after the first
//! minutes.

mod agents;
mod cpus;
mod debugger;
mod guest;
mod packets;
mod random;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use armlet::config::DriveConfig;
use armlet::{End, Machine, MachineConfig, MachineHandle, control, debug};
use clap::Parser;

use agents::{Agent, Tally};
use guest::Guest;
use random::Random;
use watch::{History, Needs, Watch};

/// Longest wait for the guest to come up, and to come to its end.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two samples of what the process needs.
const SAMPLE: Duration = Duration::from_secs(2);
/// What the process may need more at the end, in KiB: what a vCPU knows of its translated code comes and goes by 10 MiB
/// and more, as debuggers and stores throw code away. Something lost each time shows in a storm of half an hour.
const MORE_MEMORY: u64 = 40 << 10;
/// Clients and their threads come and go.
const MORE_OTHERS: u64 = 8;

/// Everything that can happen to a running machine, at random and at once.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Linux
    #[arg(long)]
    kernel: PathBuf,
    /// Its initial RAM disk
    #[arg(long)]
    initrd: PathBuf,
    /// The disk with stress-ng and the guest's script
    #[arg(long)]
    disk: PathBuf,
    /// How long it lasts
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// What it is made from; chosen if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// CPUs; there is room for one more
    #[arg(long, default_value_t = 4)]
    smp: usize,
}

fn main() -> ExitCode {
    armlet::heap::give_back();
    let filter = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::WARN);
    filter.with_writer(std::io::stderr).init();
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| Instant::now().elapsed().as_nanos() as u64 ^ clock());
    println!("storm: seed {seed}");
    match storm(&options, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storm: seed {seed}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |time| time.as_nanos() as u64)
}

fn machine(o: &Options) -> Result<Machine> {
    let mut config = MachineConfig { smp: o.smp, max_cpus: Some(o.smp + 1), ..MachineConfig::default() };
    config.boot.kernel = Some(o.kernel.clone());
    config.boot.initrd = Some(o.initrd.clone());
    config.boot.append = "console=ttyAMA0 quiet bench=storm".into();
    config.drives.push(DriveConfig { snapshot: true, ..DriveConfig::new(o.disk.clone()) });
    Ok(Machine::new(config)?)
}

fn storm(o: &Options, seed: u64) -> Result<()> {
    let mut machine = machine(o)?;
    let (handle, watch) = (machine.handle(), Watch::new());
    let folder = std::env::temp_dir().join(format!("armlet-storm-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let socket = folder.join("qmp");
    let qmp = control::Server::start(handle.clone(), &socket)?;
    let gdb = debug::Server::start(handle.clone(), &":0".parse()?)?;
    let (guest, carrier) = Guest::connect(&handle, &watch)?;
    machine.start()?;
    let runs = thread::Builder::new().name("machine".into()).spawn(move || {
        let end = machine.run(None);
        machine.shutdown();
        end
    })?;
    let weather = Weather { o, seed, handle: handle.clone(), watch: Arc::clone(&watch), guest };
    let result = weather.blow(&socket, &gdb);
    let tail = weather.guest.tail();
    if result.is_err() {
        handle.quit(armlet::Cause::HostUi, "the storm's bad end");
    }
    let end = runs.join().map_err(|_| anyhow::anyhow!("the machine's thread panicked"))?;
    qmp.finish();
    gdb.finish();
    drop(weather);
    carrier.finish();
    let _ = std::fs::remove_dir_all(&folder);
    result.with_context(|| format!("the guest's last lines:\n{tail}\n"))?;
    match (watch.failures().as_slice(), end) {
        ([], End::PoweredOff) => Ok(()),
        ([], end) => bail!("the machine ended so: {end:?}"),
        (failures, _) => bail!("{}", failures.join("\n")),
    }
}

/// What an agent does until the storm is over.
type Body<'a> = Box<dyn FnOnce(&mut Agent) + Send + 'a>;

/// A storm over one machine.
struct Weather<'a> {
    o: &'a Options,
    seed: u64,
    handle: MachineHandle,
    watch: Arc<Watch>,
    guest: Guest,
}

impl Weather<'_> {
    fn agent(&self, name: &'static str) -> Agent {
        let (machine, watch) = (self.handle.clone(), Arc::clone(&self.watch));
        Agent { name, machine, watch, random: Random::new(self.seed, name) }
    }

    /// From the guest's readiness to its end.
    fn blow(&self, socket: &std::path::Path, gdb: &debug::Server) -> Result<()> {
        self.guest.wait_until_ready(PATIENCE)?;
        println!("storm: the guest is ready");
        let debug::Address::Tcp { host, port } = gdb.address().clone() else { bail!("no TCP port") };
        let address = std::net::SocketAddr::new(host.parse()?, port);
        let client = || control::Client::connect(socket, PATIENCE);
        let (mut for_cpus, for_control) = (client()?, client()?);
        let (inside, tally) = (Arc::new(AtomicUsize::new(0)), Arc::new(Tally::default()));
        let agents: Vec<(&'static str, Body<'_>)> = vec![
            ("pauses", Box::new(agents::pauses)),
            ("control", Box::new(|agent| agents::controls(agent, for_control))),
            ("work 1", Box::new(|agent| agents::works(agent, &tally))),
            ("work 2", Box::new(|agent| agents::works(agent, &tally))),
            ("sections 1", Box::new(|agent| agents::sections(agent, &inside))),
            ("sections 2", Box::new(|agent| agents::sections(agent, &inside))),
            ("debugger", Box::new(|agent| debugger::come_and_go(agent, address))),
            ("cpus", Box::new(|agent| cpus::come_and_go(agent, &self.guest, &mut for_cpus))),
        ];
        let history = thread::scope(|scope| {
            for (name, body) in agents {
                let mut agent = self.agent(name);
                thread::Builder::new().name(name.into()).spawn_scoped(scope, move || {
                    body(&mut agent);
                    agent.watch.rests(name);
                })?;
            }
            anyhow::Ok(self.look_on())
        });
        let history = history?;
        self.calm(&tally, &history)
    }

    /// Until the time is over: nobody may hang; samples what the process needs.
    fn look_on(&self) -> History {
        let (start, mut history) = (Instant::now(), History::default());
        let time = Duration::from_secs_f64(60.0 * self.o.minutes);
        let mut told = 0;
        while start.elapsed() < time && !self.watch.is_over() {
            thread::sleep(SAMPLE.min(time / 50));
            self.give_up_if_hung();
            let needs = history.sample();
            let minutes = start.elapsed().as_secs() / 60;
            if minutes > told {
                told = minutes;
                println!("storm: {minutes} min: {}; {}", self.watch.counts(), shown(&needs));
            }
        }
        self.watch.end();
        history
    }

    /// Ends the process if somebody hangs: its threads cannot be waited for.
    fn give_up_if_hung(&self) {
        let Some(text) = self.watch.overdue() else { return };
        eprintln!("storm: seed {}: {text}{}", self.seed, watch::report(&self.handle));
        eprintln!("the guest's last lines:\n{}", self.guest.tail());
        std::process::exit(3);
    }

    /// After the storm: all work has met its fate, the guest ends in order, the process is as it was.
    fn calm(&self, tally: &Tally, history: &History) -> Result<()> {
        let (done, cancelled) = tally.settle(PATIENCE)?;
        println!("storm: {done} pieces of work for nobody, {cancelled} cancelled; {}", self.watch.counts());
        let (time, beats) = (self.handle.time().as_secs_f64(), self.watch.beats());
        println!("storm: {time:.0} s of the guest's time, {beats} signs of life of all CPUs");
        if let Some((early, late)) = history.ends() {
            println!("storm: at first {}; at the end {}", shown(&early), shown(&late));
            flat(&early, &late)?;
        }
        if !self.watch.failures().is_empty() {
            bail!("{}", self.watch.failures().join("\n"));
        }
        self.guest.end();
        self.watch.begins("guest", "its end");
        let start = Instant::now();
        while self.handle.run_state() != armlet::RunState::Shutdown {
            if start.elapsed() > PATIENCE {
                bail!("the guest does not end:\n{}", watch::report(&self.handle));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn shown(needs: &Needs) -> String {
    let Needs { memory, threads, descriptors } = needs;
    format!("{:.1} MiB, {threads} threads, {descriptors} descriptors", *memory as f64 / 1024.0)
}

/// The needs at the end against those after the warm-up.
fn flat(early: &Needs, late: &Needs) -> Result<()> {
    for (what, early, late, more) in [
        ("KiB of memory", early.memory, late.memory, MORE_MEMORY),
        ("threads", early.threads, late.threads, MORE_OTHERS),
        ("descriptors", early.descriptors, late.descriptors, MORE_OTHERS),
    ] {
        if late > early + more {
            bail!("{early} {what} have become {late}");
        }
    }
    Ok(())
}
