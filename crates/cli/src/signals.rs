//! Signals: the machine ends in order, and the terminal is sane whatever follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use armlet::{Cause, MachineHandle};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};

use crate::{complain, status, terminal};

/// How long the machine may take to end in order.
const PATIENCE: Duration = Duration::from_secs(40);

/// Watches signals for as long as it lives.
pub struct Watch(Handle);

impl Watch {
    /// Starts to watch; `machine` is asked to end when a signal says so.
    ///
    /// # Errors
    /// The host's.
    pub fn start(machine: MachineHandle) -> std::io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH])?;
        let handle = signals.handle();
        let ending = Arc::new(AtomicBool::new(false));
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in &mut signals {
                match signal {
                    SIGTSTP => {
                        terminal::suspend();
                        let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
                    }
                    SIGCONT => terminal::resume(),
                    SIGWINCH => terminal::tell_size(&machine),
                    _ if ending.swap(true, Ordering::AcqRel) => at_once(),
                    _ => end(&machine, signal),
                }
            }
        })?;
        Ok(Self(handle))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn end(machine: &MachineHandle, signal: i32) {
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    machine.quit(Cause::HostSignal, name);
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
