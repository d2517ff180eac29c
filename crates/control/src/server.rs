//! The control socket: takes clients in, tells all of them what happens, and ends with the machine.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use armlet_machine::{MachineHandle, Notice, NoticeListener};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::SendFlags;

use crate::command::Context;
use crate::cpus::Devices;
use crate::error::{ControlError, QmpError};
use crate::event;
use crate::outbox::{Outbox, line};
use crate::protocol::{self, Protocol};
use crate::session::{LAST_WORDS, Session};
use crate::socket::Listener;

/// Most clients at once.
pub const MAX_CLIENTS: usize = 32;
/// Pause after a host that cannot give a client its descriptor.
const BREATH: Duration = Duration::from_millis(100);

/// A machine's control socket. Dropping it ends it.
///
/// Threads: `qmp` blocks on new clients only; `qmp client`, one for each, on its client, and on the machine while it
/// carries out a command.
pub struct Server {
    shared: Arc<Shared>,
    /// Readable when the server ends.
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// Lock order: `devices`, then `clients`, then an outbox. None is held while the machine is asked for something.
struct Shared {
    machine: MachineHandle,
    devices: Arc<Mutex<Devices>>,
    clients: Mutex<Clients>,
    left: Condvar,
}

#[derive(Default)]
struct Clients {
    all: Vec<(u64, Arc<Outbox>)>,
    /// How many there have been.
    count: u64,
    ending: bool,
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a client; its number, or `None` if there are too many.
    fn enter(&self, outbox: &Arc<Outbox>) -> Option<u64> {
        let mut clients = self.clients();
        if clients.ending || clients.all.len() >= MAX_CLIENTS {
            return None;
        }
        clients.count += 1;
        let number = clients.count;
        clients.all.push((number, Arc::clone(outbox)));
        Some(number)
    }

    fn leave(&self, number: u64) {
        self.clients().all.retain(|(n, _)| *n != number);
        self.left.notify_all();
    }
}

impl NoticeListener for Shared {
    fn notice(&self, notice: &Notice) {
        let event = {
            let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
            let event = event::of_notice(notice, &devices);
            if let Notice::CpuRemoved(index) = notice {
                devices.remove(*index);
            }
            event
        };
        let Some(event) = event else { return };
        let event = line(&event);
        self.clients().all.iter().for_each(|(_, outbox)| outbox.event(&event));
    }
}

impl Server {
    /// Serves `machine` to clients of the Unix socket at `path`, which only its owner may use.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn start(machine: MachineHandle, path: &Path) -> Result<Self, ControlError> {
        let listener = Listener::bind(path)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| ControlError::Thread(e.into()))?;
        let stop = Arc::new(stop);
        let shared = Arc::new(Shared {
            machine: machine.clone(),
            devices: Arc::default(),
            clients: Mutex::default(),
            left: Condvar::new(),
        });
        machine.listen(&(Arc::clone(&shared) as _));
        let (own, stopped) = (Arc::clone(&shared), Arc::clone(&stop));
        let body = move || serve(&own, &listener, &stopped);
        let thread = thread::Builder::new().name("qmp".into()).spawn(body).map_err(ControlError::Thread)?;
        tracing::info!(path = %path.display(), "control socket");
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    /// Ends it: removes the socket, and gives clients a moment to take what they have been told.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        let mut clients = self.shared.clients();
        clients.ending = true;
        clients.all.iter().for_each(|(_, outbox)| outbox.end());
        // One that carries out a command just now is not waited for.
        let waited = self.shared.left.wait_timeout_while(clients, 2 * LAST_WORDS, |c| !c.all.is_empty());
        drop(waited);
        let _ = thread.join();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Takes clients in until `stop` is readable.
fn serve(shared: &Arc<Shared>, listener: &Listener, stop: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        if !fds[1].revents().is_empty() {
            return;
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        match listener.accept() {
            Ok(socket) => welcome(shared, socket.into()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                tracing::warn!(%error, "a control client cannot be taken in");
                thread::sleep(BREATH);
            }
        }
    }
}

/// Gives a client its thread.
fn welcome(shared: &Arc<Shared>, socket: UnixStream) {
    let outbox = match Outbox::new() {
        Ok(outbox) => Arc::new(outbox),
        Err(error) => return tracing::warn!(%error, "a control client cannot be taken in"),
    };
    let Some(client) = shared.enter(&outbox) else { return refuse(&socket) };
    tracing::debug!(client, "control client comes");
    let own = Arc::clone(shared);
    let context = Context { machine: shared.machine.clone(), devices: Arc::clone(&shared.devices), client };
    let session = Session::new(socket, outbox, Protocol::new(context));
    let body = move || {
        match session.run() {
            Ok(()) => tracing::debug!(client, "control client leaves"),
            Err(error) => tracing::debug!(client, %error, "control client is gone"),
        }
        own.leave(client);
    };
    if let Err(error) = thread::Builder::new().name("qmp client".into()).spawn(body) {
        tracing::warn!(%error, "a control client gets no thread");
        shared.leave(client);
    }
}

fn refuse(socket: &UnixStream) {
    let why = QmpError::generic(format!("{MAX_CLIENTS} clients are connected already; end one of them"));
    let _ = rustix::net::send(socket, &line(&protocol::error(&why)), SendFlags::NOSIGNAL);
}
