//! Signals after which a process cannot go on: a fault in translated code or elsewhere, or an abort.
//!
//! The process dies of the signal as it would have; before that it may do one thing, such as giving a terminal back.
#![expect(unsafe_code, reason = "signal handlers are installed by calls that take raw pointers")]

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

const FATAL: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];

static LAST_ACT: OnceLock<fn()> = OnceLock::new();
/// What the process did about each of [`FATAL`] before.
static BEFORE: OnceLock<[libc::sigaction; FATAL.len()]> = OnceLock::new();

/// Has `last_act` called before the process dies of a fault or an abort. Only the first call of this has an effect. It is
/// to be called before the first guest runs: later it may leave SIGFPE out.
///
/// `last_act` runs in a signal handler, on whatever thread it hit: it must not allocate, wait for a lock, or panic.
pub fn before_death(last_act: fn()) {
    if LAST_ACT.set(last_act).is_err() {
        return;
    }
    let before = FATAL.map(action);
    let _ = BEFORE.set(before);
    for (signal, old) in FATAL.into_iter().zip(before) {
        // Traps of guests that run already are their way of computing.
        if signal == libc::SIGFPE && guests_trap() {
            continue;
        }
        let mut new = old;
        new.sa_sigaction = handler as *const () as usize;
        // On the thread's second stack, since the fault may be the first one's end.
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        set_action(signal, &new);
    }
}

/// True if guests have begun to compute by traps.
#[cfg(target_arch = "x86_64")]
fn guests_trap() -> bool {
    crate::runtime::handles_traps()
}

/// Only translated code does that.
#[cfg(not(target_arch = "x86_64"))]
fn guests_trap() -> bool {
    false
}

fn action(signal: i32) -> libc::sigaction {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only reads the action, into memory of the right size; all zeroes are a valid one, should it fail.
    unsafe {
        libc::sigaction(signal, ptr::null(), old.as_mut_ptr());
        old.assume_init()
    }
}

fn set_action(signal: i32, action: &libc::sigaction) {
    // SAFETY: the action is a default one, one that was installed before, or `handler` with the flags that its
    // signature needs; `handler` only does what signal handlers may.
    unsafe { libc::sigaction(signal, action, ptr::null_mut()) };
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(last_act) = LAST_ACT.get() {
        last_act();
    }
    // SAFETY: the host passes a valid `info` to a handler that is installed with SA_SIGINFO.
    let sent = unsafe { (*info).si_code } <= 0;
    let before = FATAL.iter().position(|s| *s == signal).and_then(|i| BEFORE.get()?.get(i));
    match before {
        // A fault happens again when the handler returns, and meets what was there before.
        Some(before) if !sent => set_action(signal, before),
        // A signal that was sent, by abort() too, has to be sent again.
        _ => {
            let mut default = action(signal);
            default.sa_sigaction = libc::SIG_DFL;
            default.sa_flags = 0;
            set_action(signal, &default);
            // SAFETY: takes no pointers; the signal waits until this handler returns.
            unsafe { libc::raise(signal) };
        }
    }
}
