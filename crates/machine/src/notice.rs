//! What the world outside is told of a machine as it happens, and what it asks of it.

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, Weak};

use armlet_devices::TimerQueue;
use armlet_engine::{DebugStop, MachineEvent, MachineListener, MachineState};

use crate::interrupts::Interrupts;
use crate::lock;
use crate::pace::{MachinePace, Outcome};

/// Who or what made a machine end or start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The host, or this program, cannot go on.
    HostError,
    /// A control client ended the machine.
    HostQuit,
    /// A control client reset the machine.
    HostReset,
    /// A signal.
    HostSignal,
    /// A person at the terminal, or a limit that one has set.
    HostUi,
    /// The guest switched the machine off or ended its program.
    GuestShutdown,
    /// The guest reset the machine.
    GuestReset,
    /// The guest crashed.
    GuestPanic,
}

impl Cause {
    /// True if the guest did it, and not somebody outside.
    pub const fn by_guest(self) -> bool {
        matches!(self, Self::GuestShutdown | Self::GuestReset | Self::GuestPanic)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostError => "an error",
            Self::HostQuit => "a control client's quit",
            Self::HostReset => "a control client's reset",
            Self::HostSignal => "a signal",
            Self::HostUi => "the user",
            Self::GuestShutdown => "the guest's power-off",
            Self::GuestReset => "the guest's reset",
            Self::GuestPanic => "the guest's crash",
        })
    }
}

/// Something that happened to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Every vCPU has stopped.
    Stopped,
    /// The vCPUs go, for the first time or again.
    Resumed,
    /// The machine was reset.
    Reset(Cause),
    /// The power key was pressed.
    PowerKey,
    /// This vCPU was unplugged.
    CpuRemoved(usize),
    /// A vCPU has met what a debugger asked it to stop at. `Stopped` follows.
    Debug {
        /// Which vCPU.
        vcpu: usize,
        /// What it has met.
        stop: DebugStop,
    },
    /// The guest crashed; the machine ends.
    GuestPanicked,
    /// The machine ends. Nothing follows.
    Shutdown(Cause),
}

/// Hears notices.
pub trait NoticeListener: Send + Sync {
    /// Called in the order in which things happen, possibly on a vCPU's thread and with the machine's locks held:
    /// must neither wait for anything nor use the machine.
    fn notice(&self, notice: &Notice);
}

/// Who is told, and what they know.
///
/// Lock order: the engine's control, then this, then what listeners lock.
#[derive(Default)]
pub(crate) struct Notices(Mutex<Told>);

#[derive(Default)]
struct Told {
    listeners: Vec<Weak<dyn NoticeListener>>,
    /// The last of `Stopped` and `Resumed` was the latter.
    running: bool,
    /// `Shutdown` was told.
    over: bool,
}

impl Told {
    fn tell(&mut self, notice: &Notice) {
        if self.over {
            return;
        }
        tracing::debug!(?notice, "notice");
        self.listeners.retain(|listener| match listener.upgrade() {
            Some(listener) => {
                listener.notice(notice);
                true
            }
            None => false,
        });
    }
}

impl Notices {
    /// Tells `listener` from now on, for as long as it lives.
    pub(crate) fn add(&self, listener: &Arc<dyn NoticeListener>) {
        lock(&self.0).listeners.push(Arc::downgrade(listener));
    }

    pub(crate) fn tell(&self, notice: &Notice) {
        let mut told = lock(&self.0);
        told.tell(notice);
        told.over |= matches!(notice, Notice::Shutdown(_));
    }

    /// Tells that the vCPUs go or have stopped, unless that was the last that was told of it: a pause that was
    /// overtaken by a resume, and a reset, are nobody's business.
    fn tell_running(&self, running: bool) {
        let mut told = lock(&self.0);
        if told.running != running {
            told.running = running;
            told.tell(if running { &Notice::Resumed } else { &Notice::Stopped });
        }
    }

    /// True once `Shutdown` was told.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.0).over
    }
}

/// What the machine's thread is asked to do.
pub(crate) enum Request {
    /// By a vCPU.
    Vcpu(MachineEvent),
    /// By somebody outside: reset.
    Reset(Cause),
    /// By somebody outside: end.
    Quit { cause: Cause, reason: String },
    /// By the vCPUs' thread, which waits: the count has come at which somebody wants the machine to pause.
    Pause,
    /// By a replay: it is over.
    Over(Outcome),
}

/// The machine's ear at its engine. Time stands still while the vCPUs do, whoever stops them.
pub(crate) struct Ear {
    pub(crate) requests: Sender<Request>,
    pub(crate) time: Arc<TimerQueue>,
    pub(crate) interrupts: Arc<dyn Interrupts>,
    pub(crate) notices: Arc<Notices>,
    pub(crate) pace: Option<Arc<MachinePace>>,
}

impl MachineListener for Ear {
    fn event(&self, event: MachineEvent) {
        // At once, and not by the machine's thread: who has seen every vCPU stop has heard of all that they have met.
        if let MachineEvent::Debug { vcpu, stop } = event {
            return self.notices.tell(&Notice::Debug { vcpu, stop });
        }
        if let Some(pace) = &self.pace {
            pace.await_machine();
        }
        // Nobody listens any more while the machine is taken down.
        let _ = self.requests.send(Request::Vcpu(event));
    }

    fn state_changed(&self, _from: MachineState, to: MachineState, _reason: &str) {
        if let Some(pace) = &self.pace {
            pace.state_changed(to);
        }
        match to {
            MachineState::Running => {
                self.interrupts.time_goes(true);
                self.time.resume();
                self.notices.tell_running(true);
            }
            MachineState::Pausing | MachineState::Held => self.time.pause(),
            MachineState::Paused => {
                self.interrupts.time_goes(false);
                self.notices.tell_running(false);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Diary(Mutex<Vec<Notice>>);

    impl NoticeListener for Diary {
        fn notice(&self, notice: &Notice) {
            lock(&self.0).push(notice.clone());
        }
    }

    #[test]
    fn only_changes_are_told_and_nothing_after_the_end() {
        let notices = Notices::default();
        let diary = Arc::new(Diary::default());
        let gone: Arc<dyn NoticeListener> = Arc::new(Diary::default());
        notices.add(&(Arc::clone(&diary) as _));
        notices.add(&gone);
        drop(gone);
        for running in [false, true, true, false, false, true] {
            notices.tell_running(running);
        }
        notices.tell(&Notice::PowerKey);
        notices.tell(&Notice::Shutdown(Cause::HostQuit));
        notices.tell_running(false);
        notices.tell(&Notice::Shutdown(Cause::HostSignal));
        let expected = [
            Notice::Resumed,
            Notice::Stopped,
            Notice::Resumed,
            Notice::PowerKey,
            Notice::Shutdown(Cause::HostQuit),
        ];
        assert_eq!(*lock(&diary.0), expected);
        assert!(notices.is_over());
        assert_eq!(lock(&notices.0).listeners.len(), 1, "who is gone is forgotten");
    }
}
