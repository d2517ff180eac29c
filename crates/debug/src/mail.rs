//! What the machine tells the debugger's thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use armlet_engine::DebugStop;
use armlet_machine::{Cause, Notice, NoticeListener};
use rustix::event::{EventfdFlags, eventfd};

/// News, and something to wait for in `poll`.
///
/// Its lock is the last that is taken: the machine may hold any of its own when it tells something.
pub(crate) struct Mail {
    news: Mutex<News>,
    came: Condvar,
    wake: OwnedFd,
}

#[derive(Default)]
struct News {
    /// The first vCPU that has met what it was asked to stop at, since somebody looked.
    stop: Option<(usize, DebugStop)>,
    resets: u64,
    /// How often vCPUs may have changed.
    changes: u64,
    /// How many vCPUs have been unplugged.
    unplugged: u64,
    over: Option<Cause>,
    /// The server is to end.
    quit: bool,
}

impl Mail {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { news: Mutex::default(), came: Condvar::new(), wake })
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.news());
        self.came.notify_all();
        // Fails only if it is readable anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Asks the server to end.
    pub(crate) fn quit(&self) {
        self.change(|news| news.quit = true);
    }

    /// Whether it is to end.
    pub(crate) fn quits(&self) -> bool {
        self.news().quit
    }

    /// Notes that news will be looked at now.
    pub(crate) fn acknowledge(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// The first stop since the last call, if there was one; forgets the others.
    pub(crate) fn take_stop(&self) -> Option<(usize, DebugStop)> {
        self.news().stop.take()
    }

    /// True if a vCPU has stopped.
    pub(crate) fn has_stop(&self) -> bool {
        self.news().stop.is_some()
    }

    /// Why the machine has ended, if it has.
    pub(crate) fn over(&self) -> Option<Cause> {
        self.news().over
    }

    /// How many resets there have been.
    pub(crate) fn resets(&self) -> u64 {
        self.news().resets
    }

    /// A number that is another one after vCPUs may have changed by executing or by a reset.
    pub(crate) fn changes(&self) -> u64 {
        self.news().changes
    }

    /// How many vCPUs have been unplugged: another one may have a number that is known.
    pub(crate) fn unplugged(&self) -> u64 {
        self.news().unplugged
    }

    /// Waits until there have been more resets than `before`; false if that takes too long, or the machine ends.
    pub(crate) fn wait_for_reset(&self, before: u64, limit: Duration) -> bool {
        let waits = |news: &mut News| news.resets <= before && news.over.is_none();
        let news = self.came.wait_timeout_while(self.news(), limit, waits);
        news.unwrap_or_else(PoisonError::into_inner).0.resets > before
    }
}

impl AsFd for Mail {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl NoticeListener for Mail {
    fn notice(&self, notice: &Notice) {
        self.change(|news| match notice {
            Notice::Debug { vcpu, stop } if news.stop.is_none() => {
                news.stop = Some((*vcpu, *stop));
            }
            Notice::Reset(_) => {
                news.resets += 1;
                news.changes += 1;
            }
            Notice::Resumed => news.changes += 1,
            Notice::CpuRemoved(_) => {
                news.unplugged += 1;
                news.changes += 1;
            }
            Notice::Shutdown(cause) => news.over = Some(*cause),
            // Seen from the machine's state.
            _ => {}
        });
    }
}
