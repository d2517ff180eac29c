//! The terminal in raw mode, and back as it was whatever happens.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use armlet::MachineHandle;
use rustix::termios::{self, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// The terminal's settings as they were, while it is in raw mode.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Puts the terminal on standard input into raw mode for as long as it lives.
///
/// The settings also come back by [`restore`], [`suspend`] and [`restore_at_death`], which the panic hook, the
/// signal thread and the handler of faults call.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Raw mode, if standard input is a terminal that this process may use: it is not in the background.
    pub fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() || !in_foreground() {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        if apply_raw() {
            return Some(Self(()));
        }
        restore();
        None
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn in_foreground() -> bool {
    let stdin = std::io::stdin();
    termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}

fn apply_raw() -> bool {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut raw) = saved.clone() else { return false };
    raw.input_modes -= InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON;
    raw.local_modes -=
        LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
    // Output processing stays on, so that messages on standard error do not run down the screen like stairs.
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).is_ok()
}

/// Raw mode again after the process was stopped and goes on.
pub fn resume() {
    apply_raw();
}

/// The terminal as it was, for a stop: raw mode comes back with [`resume`].
pub fn suspend() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = &*saved {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
    }
}

/// The terminal as it was, for good. Does nothing if it is not in raw mode.
pub fn restore() {
    let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = saved.take() {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// The terminal as it was, at the last moment before the process dies of a fault: from a signal handler, so
/// nothing is waited for.
pub fn restore_at_death() {
    if let Ok(saved) = SAVED.try_lock()
        && let Some(before) = &*saved
    {
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
    }
}

/// Tells the guest the terminal's size, if there is a terminal and the guest can know.
pub fn tell_size(machine: &MachineHandle) {
    if let Ok(size) = termios::tcgetwinsize(std::io::stdout())
        && size.ws_col != 0
        && size.ws_row != 0
    {
        machine.resize(size.ws_col, size.ws_row);
    }
}

/// A panic anywhere shows its message on a sane terminal.
pub fn restore_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        suspend();
        before(info);
    }));
}
