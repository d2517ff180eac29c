//! Signals: the machine ends in order, and the terminal is sane whatever follows.

use std::sync::Arc;
use std::time::Duration;

use armlet::{Cause, MachineHandle};
use rustix::process::Signal;
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGVTALRM,
    SIGWINCH, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals;

use crate::{complain, status, terminal};

/// How long the machine may take to end in order.
const PATIENCE: Duration = Duration::from_secs(40);

/// Signals that end the machine in order. Whoever sends one of the rarer ones means the same by it: its default is
/// the process's end, with the terminal left raw.
const END: [i32; 13] = [
    SIGTERM,
    SIGINT,
    SIGHUP,
    SIGQUIT,
    SIGUSR1,
    SIGUSR2,
    SIGALRM,
    SIGVTALRM,
    SIGPROF,
    SIGXCPU,
    SIGIO,
    Signal::POWER.as_raw(),
    Signal::STKFLT.as_raw(),
];

/// From here on a write beyond the limit on files' sizes fails, and whoever wrote is told, instead of ending the
/// process.
///
/// # Errors
/// The host's.
pub fn survive_limits() -> std::io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Watches signals to the end of the process; `machine` is asked to end when one says so.
///
/// # Errors
/// The host's.
pub fn watch(machine: MachineHandle) -> std::io::Result<()> {
    let mut signals = Signals::new(END.iter().chain(&[SIGTSTP, SIGCONT, SIGWINCH]))?;
    let mut ending = false;
    let body = move || {
        for signal in &mut signals {
            match signal {
                SIGTSTP => {
                    terminal::suspend();
                    let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
                }
                SIGCONT => terminal::resume(),
                SIGWINCH => terminal::tell_size(&machine),
                _ if std::mem::replace(&mut ending, true) => at_once(),
                _ => end(&machine, signal),
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(body).map(drop)
}

fn end(machine: &MachineHandle, signal: i32) {
    let name = signal_hook::low_level::signal_name(signal);
    machine.quit(Cause::HostSignal, &name.map_or_else(|| format!("signal {signal}"), str::to_owned));
    // Should the machine not end, the process does.
    let _ = std::thread::Builder::new().name("last resort".into()).spawn(|| {
        std::thread::sleep(PATIENCE);
        at_once();
    });
}

fn at_once() {
    terminal::restore();
    complain(&"ended at once: what the guest wrote last to its disks may be lost");
    std::process::exit(status::OTHER.into());
}
