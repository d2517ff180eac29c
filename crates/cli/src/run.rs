//! `armlet run`.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use armlet::config::{BootConfig, ConsoleDevice, OnReset, Semihosting};
use armlet::control::Server;
use armlet::debug;
use armlet::serial::{self, Carrier, Filter};
use armlet::{Cause, ConfigError, End, Machine, MachineConfig, MachineHandle, SerialError};

use crate::args::{ConsoleArg, RunArgs, SemihostingArg};
use crate::escape::{Action, Escape, HELP};
use crate::parse::Serial;
use crate::profile::Files;
use crate::terminal::{self, RawMode};
use crate::{complain, outputs, say, signals, status};

/// After this long, a person wants to know what is going on.
const LONG: Duration = Duration::from_secs(1);

/// Why a run did not begin or ended badly: what to say and the exit status.
struct Failure(String, u8);

impl Failure {
    fn usage(e: impl std::fmt::Display) -> Self {
        Self(e.to_string(), status::USAGE)
    }

    /// The host lacks something that every run needs.
    fn host(e: impl std::fmt::Display) -> Self {
        Self::other(format!(
            "the host refuses what a run needs ({e}): raise the limits on open files and threads"
        ))
    }

    fn other(e: impl std::fmt::Display) -> Self {
        Self(e.to_string(), status::OTHER)
    }
}

/// Runs a machine; the exit status.
pub fn run(args: &RunArgs) -> u8 {
    match try_run(args) {
        Ok(status) => status,
        Err(Failure(text, status)) => {
            terminal::restore();
            complain(&text);
            status
        }
    }
}

fn config(args: &RunArgs) -> MachineConfig {
    MachineConfig {
        machine: args.machine.clone(),
        cpu: args.cpu.clone(),
        smp: args.smp.count,
        max_cpus: args.smp.max,
        topology: args.smp.topology,
        memory: args.memory.0,
        accelerator: args.accel.clone(),
        boot: BootConfig {
            kernel: args.kernel.clone(),
            initrd: args.initrd.clone(),
            dtb: args.dtb.clone(),
            append: args.append.clone(),
            kaslr: args.kaslr,
        },
        drives: args.drive.clone(),
        console: match args.console {
            ConsoleArg::Uart => ConsoleDevice::Uart,
            ConsoleArg::Virtio => ConsoleDevice::Virtio,
        },
        semihosting: match args.semihosting {
            SemihostingArg::Auto => Semihosting::Auto,
            SemihostingArg::On => Semihosting::On,
            SemihostingArg::Off => Semihosting::Off,
        },
        on_reset: if args.no_reboot { OnReset::PowerOff } else { OnReset::Restart },
        count: args.stats.is_some(),
        record: args.record.clone(),
        replay: args.replay.clone(),
        profile: args.profile.is_some(),
        ..MachineConfig::default()
    }
}

/// The machine that was saved at `path`, with what is given besides.
fn restored(args: &RunArgs, path: &Path) -> Result<MachineConfig, ConfigError> {
    let asked = config(args);
    let mut config = MachineConfig::of_saved(path)?;
    let mut take = |id: &str, take: &mut dyn FnMut(&mut MachineConfig)| {
        if args.given.contains(id) {
            take(&mut config);
        }
    };
    take("machine", &mut |c| c.machine.clone_from(&asked.machine));
    take("cpu", &mut |c| c.cpu = asked.cpu.clone());
    take("smp", &mut |c| (c.smp, c.max_cpus, c.topology) = (asked.smp, asked.max_cpus, asked.topology));
    take("memory", &mut |c| c.memory = asked.memory);
    take("kernel", &mut |c| c.boot.kernel.clone_from(&asked.boot.kernel));
    take("initrd", &mut |c| c.boot.initrd.clone_from(&asked.boot.initrd));
    take("dtb", &mut |c| c.boot.dtb.clone_from(&asked.boot.dtb));
    take("append", &mut |c| c.boot.append.clone_from(&asked.boot.append));
    take("kaslr", &mut |c| c.boot.kaslr = asked.boot.kaslr);
    take("drive", &mut |c| c.drives.clone_from(&asked.drives));
    take("console", &mut |c| c.console = asked.console);
    take("semihosting", &mut |c| c.semihosting = asked.semihosting);
    take("no_reboot", &mut |c| c.on_reset = asked.on_reset);
    config.accelerator = asked.accelerator;
    (config.count, config.record, config.replay) = (asked.count, asked.record, asked.replay);
    config.profile = asked.profile;
    Ok(config)
}

fn try_run(args: &RunArgs) -> Result<u8, Failure> {
    signals::survive_limits().map_err(Failure::host)?;
    outputs::check_apart(args).map_err(Failure::usage)?;
    let config = match &args.restore {
        Some(path) => restored(args, path).map_err(Failure::usage)?,
        None => config(args),
    };
    if let Some(path) = &args.dump_dtb {
        let tree = Machine::device_tree(&config).map_err(Failure::usage)?;
        let failed = |e| Failure::usage(cannot_write("device tree", path, &e));
        outputs::check_writable(path).and_then(|()| std::fs::write(path, tree)).map_err(failed)?;
        return Ok(status::DONE);
    }
    let mut machine = notice("loading", || Machine::new(config)).map_err(Failure::usage)?;
    for note in machine.notes() {
        complain(note);
    }
    terminal::restore_on_panic();
    armlet::before_death(terminal::restore_at_death);
    if let Some(path) = &args.stats {
        // It is written at the end; that it can be is found out now.
        outputs::check_writable(path).map_err(|e| Failure::usage(cannot_write("statistics", path, &e)))?;
    }
    let profile = args.profile.as_ref().map(|path| Files::prepare(path, &args.symbols));
    let profile = profile.transpose().map_err(Failure::usage)?;
    signals::watch(machine.handle()).map_err(Failure::host)?;
    let control = args.qmp.as_ref().map(|path| Server::start(machine.handle(), &path.0));
    let control = control.transpose().map_err(Failure::usage)?;
    let debugger = listen_for_debugger(&machine, args)?;
    let (raw, carrier) = connect(&machine, &args.serial)?;
    if !args.paused && machine.was_paused() {
        complain(&"paused, as it was when it was saved: Ctrl-A p or armlet ctl PATH cont lets it go on");
    } else if !args.paused {
        machine.start().map_err(Failure::other)?;
    }
    let end = machine.run(args.timeout);
    let stats = args.stats.as_ref().map(|path| (path, machine.statistics()));
    notice("stopping", || machine.shutdown());
    let written = profile.map_or(Ok(()), |files| files.write(&machine));
    if let Some(control) = control {
        control.finish();
    }
    if let Some(debugger) = debugger {
        debugger.finish();
    }
    carrier.finish();
    drop(raw);
    if let Some((path, stats)) = stats {
        let text = serde_json::to_string_pretty(&stats).map_err(Failure::other)?;
        let failed = |e| Failure::other(cannot_write("statistics", path, &e));
        std::fs::write(path, text + "\n").map_err(failed)?;
    }
    written.map_err(Failure::other)?;
    outcome(end)
}

fn listen_for_debugger(machine: &Machine, args: &RunArgs) -> Result<Option<debug::Server>, Failure> {
    let Some(address) = &args.gdb else { return Ok(None) };
    let server = debug::Server::start(machine.handle(), address).map_err(Failure::usage)?;
    if args.paused {
        complain(&format!("waiting for gdb: target remote {}", place(server.address())));
    }
    Ok(Some(server))
}

/// What gdb calls an address.
fn place(address: &debug::Address) -> String {
    let text = address.to_string();
    text.strip_prefix("unix:").map_or(text.clone(), ToOwned::to_owned)
}

pub(crate) fn cannot_write(what: &str, path: &std::path::Path, e: &std::io::Error) -> String {
    let path = path.display();
    format!("{what} '{path}' cannot be written ({e}): check the path and its permissions")
}

fn outcome(end: End) -> Result<u8, Failure> {
    match end {
        End::PoweredOff => Ok(status::DONE),
        End::Exited(code) => Ok(exit_status_of(code)),
        End::Crashed(why) => {
            Err(Failure(format!("the guest crashed ({why}): see its last output"), status::CRASHED))
        }
        End::ResetLoop => Err(Failure(
            "the guest resets over and over: see its last output, or add --no-reboot".into(),
            status::CRASHED,
        )),
        End::Replayed(why) => {
            complain(&format!("the recording ends here: {why}"));
            Ok(status::DONE)
        }
        End::Quit(who) => Err(Failure::other(format!("ended by {who}"))),
        End::TimedOut => Err(Failure("--timeout passed: give more, or none".into(), status::TIMED_OUT)),
        End::Failed(why) => Err(Failure::other(why)),
    }
}

/// A program's status as one of a process; one that does not fit is still a failure.
fn exit_status_of(code: u32) -> u8 {
    match u8::try_from(code) {
        Ok(status) => status,
        Err(_) => u8::try_from(code & 0xff).ok().filter(|s| *s != 0).unwrap_or(status::OTHER),
    }
}

/// Says what takes so long, if it does and a person is looking.
fn notice<R>(what: &str, work: impl FnOnce() -> R) -> R {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, wait) = mpsc::channel::<()>();
    let line = format!("armlet: {what} ...\r\n");
    let teller = std::thread::Builder::new().name("notice".into()).spawn(move || {
        if wait.recv_timeout(LONG) == Err(mpsc::RecvTimeoutError::Timeout) {
            say(&line);
        }
    });
    let result = work();
    drop(done);
    if let Ok(teller) = teller {
        let _ = teller.join();
    }
    result
}

fn connect(machine: &Machine, place: &Serial) -> Result<(Option<RawMode>, Carrier), Failure> {
    let console = machine.console();
    let bad = |e: SerialError| Failure::usage(e);
    match place {
        Serial::File(path) => Ok((None, serial::to_file(console, path).map_err(bad)?)),
        Serial::Unix(path) => Ok((None, serial::to_unix_socket(console, path).map_err(bad)?)),
        Serial::None => Ok((None, serial::to_nowhere(console).map_err(bad)?)),
        Serial::Stdio => stdio(machine),
    }
}

fn stdio(machine: &Machine) -> Result<(Option<RawMode>, Carrier), Failure> {
    terminal::tell_size(&machine.handle());
    let raw = RawMode::enter();
    if raw.is_none() {
        machine.handle().hold_input_for_driver();
    }
    let duplicate = |fd: std::io::Result<OwnedFd>| fd.map_err(Failure::host);
    let output = duplicate(std::io::stdout().as_fd().try_clone_to_owned())?;
    let stdin = std::io::stdin();
    // A terminal that this process does not own is somebody else's to read.
    let input = if raw.is_some() || !stdin.is_terminal() {
        let fd = duplicate(stdin.as_fd().try_clone_to_owned())?;
        Some((fd, filter(raw.is_some(), machine.handle())))
    } else {
        None
    };
    let handle = machine.handle();
    let broken = Box::new(move |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::BrokenPipe => {
            handle.quit(Cause::HostError, "the end of whoever read standard output")
        }
        _ => handle.quit(Cause::HostError, &format!("standard output, which cannot be written: {e}")),
    });
    let carrier = serial::to_descriptors(machine.console(), output, broken, input).map_err(Failure::other)?;
    Ok((raw, carrier))
}

/// What is typed goes to the guest as it is, but for the keys that are ours, which only a terminal has.
fn filter(terminal: bool, machine: MachineHandle) -> Filter {
    if !terminal {
        return Box::new(|data| Some(data.to_vec()));
    }
    let mut escape = Escape::default();
    Box::new(move |typed| {
        let (guest, actions) = escape.feed(typed);
        let mut sent = 0;
        for (at, action) in actions {
            if !machine.console().input.push(&guest[sent..at]) {
                return None;
            }
            sent = at;
            act(&machine, action);
        }
        Some(guest[sent..].to_vec())
    })
}

fn act(machine: &MachineHandle, action: Action) {
    match action {
        Action::Quit => machine.quit(Cause::HostUi, "Ctrl-A x"),
        Action::Help => say(HELP),
        Action::Break => machine.send_break(),
        Action::PowerKey => machine.press_power_key(),
        Action::Pause => {
            let running = machine.is_running();
            let done = if running { machine.request_pause("Ctrl-A p") } else { machine.resume("Ctrl-A p") };
            match done {
                Ok(()) => say(&format!("\r\narmlet: {}\r\n", if running { "paused" } else { "running" })),
                Err(e) => say(&format!("\r\narmlet: {e}\r\n")),
            }
        }
    }
}
