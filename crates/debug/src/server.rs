//! Listens for debuggers, and serves one at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use armlet_control::socket::Listener as UnixListener;
use armlet_machine::{Cause, MachineHandle, NoticeListener};
use rustix::event::{PollFd, PollFlags, poll};

use crate::address::Address;
use crate::error::DebugError;
use crate::link::framed;
use crate::mail::Mail;
use crate::session::{Flow, Session};

/// A client that takes nothing for this long is gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a host that cannot give a client its descriptor.
const BREATH: Duration = Duration::from_millis(100);
/// What a second client hears.
const OCCUPIED: &[u8] = b"E.another debugger is connected; end it first";

/// A machine's server for debuggers. Dropping it ends it.
///
/// Its one thread, `gdb`, blocks on clients, on the machine while it carries out what a client wants, and for a
/// moment on a client that does not take its answers.
pub struct Server {
    mail: Arc<Mail>,
    address: Address,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `machine` to debuggers that connect to `address`.
    ///
    /// # Errors
    /// [`DebugError`].
    pub fn start(machine: MachineHandle, address: &Address) -> Result<Self, DebugError> {
        let (listener, address) = Listener::bind(address)?;
        let mail = Arc::new(Mail::new().map_err(|e| DebugError::Thread(e.into()))?);
        let ear: Arc<dyn NoticeListener> = Arc::clone(&mail) as _;
        machine.listen(&ear);
        let server = Serving { machine, mail: Arc::clone(&mail), listener, client: None };
        let thread = thread::Builder::new().name("gdb".into()).spawn(move || server.run());
        tracing::info!(%address, "waits for debuggers");
        Ok(Self { mail, address, thread: Some(thread.map_err(DebugError::Thread)?) })
    }

    /// Where it listens; with the port that the host has chosen, if it was left to it.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Ends it; a client hears of the machine's end before, if that has ended.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.mail.quit();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn bind(address: &Address) -> Result<(Self, Address), DebugError> {
        let failed = |source| DebugError::Listen { address: address.clone(), source };
        match address {
            Address::Tcp { host, port } => {
                let listener = TcpListener::bind((host.as_str(), *port)).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let port = listener.local_addr().map_err(failed)?.port();
                Ok((Self::Tcp(listener), Address::Tcp { host: host.clone(), port }))
            }
            Address::Unix(path) => Ok((Self::Unix(UnixListener::bind(path)?), address.clone())),
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
            Self::Unix(listener) => Stream::Unix(listener.accept()?.into()),
        };
        stream.prepare()?;
        Ok(stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                // Answers are short, and waited for.
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITE_PATIENCE))
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_write_timeout(Some(WRITE_PATIENCE))
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// What there is to do.
struct Ready {
    /// Something has happened to the machine.
    news: bool,
    /// A client wants to come in.
    newcomer: bool,
    /// The client has sent something, or gone.
    bytes: bool,
    /// The client sends nothing more.
    gone: bool,
}

/// What the thread has.
struct Serving {
    machine: MachineHandle,
    mail: Arc<Mail>,
    listener: Listener,
    client: Option<(Stream, Session)>,
}

impl Serving {
    fn run(mut self) {
        while !self.mail.quits() {
            let ready = self.wait();
            if ready.news {
                self.mail.acknowledge();
                self.tell();
            }
            if ready.bytes {
                self.receive();
            }
            // A client that has left something behind, and gone, keeps nobody out.
            while ready.gone && ready.newcomer && self.client.is_some() {
                self.receive();
            }
            if ready.newcomer {
                self.take_in();
            }
        }
        self.tell();
        self.let_go();
    }

    /// Sleeps until there is news of the machine, a new client, or something from the one that is there.
    fn wait(&self) -> Ready {
        const GONE: PollFlags = PollFlags::HUP.union(PollFlags::RDHUP).union(PollFlags::ERR);
        let mut fds =
            vec![PollFd::new(&*self.mail, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        let client = self.client.as_ref().map(|(stream, _)| stream);
        fds.extend(client.map(|stream| PollFd::new(stream, PollFlags::IN | PollFlags::RDHUP)));
        let _ = poll(&mut fds, None);
        let ready = |n: usize| fds.get(n).map_or(PollFlags::empty(), PollFd::revents);
        Ready {
            news: !ready(0).is_empty(),
            newcomer: !ready(1).is_empty(),
            bytes: !ready(2).is_empty(),
            gone: ready(2).intersects(GONE),
        }
    }

    fn take_in(&mut self) {
        match self.listener.accept() {
            Ok(mut second) if self.client.is_some() => {
                tracing::info!("a second debugger is refused");
                let _ = second.write_all(&[b"+", &framed(OCCUPIED)[..]].concat());
            }
            Ok(stream) => {
                let session = Session::new(self.machine.clone(), Arc::clone(&self.mail));
                self.client = Some((stream, session));
                tracing::info!("a debugger connects");
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                tracing::warn!(%error, "a debugger cannot be taken in");
                thread::sleep(BREATH);
            }
        }
    }

    fn receive(&mut self) {
        let Some((stream, session)) = &mut self.client else { return };
        let mut buffer = [0; 4096];
        let flow = match stream.read(&mut buffer) {
            Ok(0) => Flow::Leaves,
            Ok(n) => session.receive(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => Flow::Stays,
            Err(_) => Flow::Leaves,
        };
        self.follow(flow);
    }

    fn tell(&mut self) {
        let Some((_, session)) = &mut self.client else { return };
        let flow = session.look();
        self.follow(flow);
    }

    /// Sends what there is to send, and does what follows.
    fn follow(&mut self, flow: Flow) {
        let Some((stream, session)) = &mut self.client else { return };
        let output = session.take_output();
        let sent = output.is_empty() || stream.write_all(&output).is_ok();
        match flow {
            Flow::Stays if sent => {}
            Flow::Kills => {
                self.machine.quit(Cause::HostUi, "the debugger's kill");
                self.client = None;
                tracing::info!("the debugger ends the machine");
            }
            _ => self.let_go(),
        }
    }

    /// Ends the session; the machine goes on.
    fn let_go(&mut self) {
        let Some((_, mut session)) = self.client.take() else { return };
        session.end();
        tracing::info!("the debugger is gone");
    }
}
