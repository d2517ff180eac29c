//! Host ends of the serial console: a file, a Unix socket, a pair of descriptors.
//!
//! Each runs on threads of its own, `serial-out` and `serial-in`, which may block on the host's file; a vCPU never
//! waits for them. All end when the console closes.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use armlet_machine::Console;
use rustix::event::{PollFd, PollFlags, poll};
use thiserror::Error;

/// Why the console cannot go where it should.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each one means")]
pub enum SerialError {
    #[error("console file '{}' cannot be written ({source}): check the path and its permissions", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("console socket '{}' cannot be made ({source}): check the path, and that nobody else listens there", path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("console socket '{}': something else is there: remove it, or choose another path", path.display())]
    Occupied { path: PathBuf },
    #[error(
        "the host gives no thread or pipe for the console ({0}): raise the limits on threads and open files"
    )]
    Thread(std::io::Error),
}

/// Longest wait for a reader that takes nothing when the machine has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Output that a socket without a client keeps for the next one.
const BACKLOG: usize = 64 << 10;
const BUFFER: usize = 16 << 10;

/// `open(2)` does not wait for a pipe's other end, nor a write for its reader (this file does that by itself).
pub const NO_WAIT: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// Threads that carry the console's bytes.
pub struct Carrier {
    /// Dropping it makes the input thread's poll return.
    stop: Option<OwnedFd>,
    /// The output thread's last act is to drop its sender.
    output_done: mpsc::Receiver<()>,
    socket: Option<PathBuf>,
}

impl Carrier {
    /// Ends the threads: output that is left gets a moment to be read. Call it when the console is closed.
    pub fn finish(mut self) {
        let _ = self.output_done.recv_timeout(LAST_WORDS);
        self.stop = None;
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What the bytes that come in are made into before the guest gets them; `None` ends the input.
pub type Filter = Box<dyn FnMut(&[u8]) -> Option<Vec<u8>> + Send>;

/// Output to the file at `path`, which is emptied first, or to the reader of a named pipe; no input.
///
/// # Errors
/// [`SerialError`].
pub fn to_file(console: &Console, path: &Path) -> Result<Carrier, SerialError> {
    let failed = |source| SerialError::File { path: path.into(), source };
    let mut options = File::options();
    options.write(true).create(true).truncate(true).custom_flags(NO_WAIT);
    let file = options.open(path).map_err(failed)?;
    let path = path.to_path_buf();
    let broken = move |error: std::io::Error| {
        tracing::error!(path = %path.display(), %error, "the console's file takes no more: the rest is lost");
    };
    start(console, Box::new(file), Box::new(broken), None)
}

/// Throws output away; no input.
///
/// # Errors
/// [`SerialError::Thread`].
pub fn to_nowhere(console: &Console) -> Result<Carrier, SerialError> {
    start(console, Box::new(std::io::sink()), Box::new(|_| {}), None)
}

/// Called if the output takes no more; with [`ErrorKind::BrokenPipe`] if nobody reads it any more.
pub type Broken = Box<dyn FnOnce(std::io::Error) + Send>;

/// Output to `output`, input from `input` through `filter`.
///
/// # Errors
/// [`SerialError::Thread`].
pub fn to_descriptors(
    console: &Console,
    output: OwnedFd,
    broken: Broken,
    input: Option<(OwnedFd, Filter)>,
) -> Result<Carrier, SerialError> {
    start(console, Box::new(File::from(output)), broken, input)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), SerialError> {
    thread::Builder::new().name(name.into()).spawn(body).map(drop).map_err(SerialError::Thread)
}

fn start(
    console: &Console,
    output: Box<dyn Write + Send>,
    broken: Broken,
    input: Option<(OwnedFd, Filter)>,
) -> Result<Carrier, SerialError> {
    let (stop_reader, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| SerialError::Thread(e.into()))?;
    let (done, output_done) = mpsc::channel::<()>();
    let out = console.clone();
    spawn("serial-out", move || {
        if let Err(error) = carry_out(&out, output) {
            broken(error);
            // The guest goes on to its end; what it says is thrown away.
            let _ = carry_out(&out, Box::new(std::io::sink()));
        }
        drop(done);
    })?;
    if let Some((fd, filter)) = input {
        let console = console.clone();
        spawn("serial-in", move || carry_in(&console, File::from(fd), &stop_reader, filter))?;
    }
    Ok(Carrier { stop: Some(stop), output_done, socket: None })
}

/// Moves output until the console closes, or nobody reads.
fn carry_out(console: &Console, mut output: Box<dyn Write + Send>) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = console.output.read(&mut buffer);
        if n == 0 {
            return output.flush();
        }
        write_all(&mut *output, &buffer[..n])?;
    }
}

/// As `write_all`, also to a descriptor that another program has made non-blocking.
fn write_all(output: &mut dyn Write, mut data: &[u8]) -> std::io::Result<()> {
    while !data.is_empty() {
        match output.write(data) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => data = &data[n..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(e) => return Err(e),
        }
    }
    output.flush()
}

/// Waits until `fd` can be read; `false` if the carrier ends first.
fn readable(fd: &impl AsFd, stop: &OwnedFd) -> bool {
    loop {
        let mut fds = [PollFd::new(fd, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return false,
            Ok(_) if !fds[0].revents().is_empty() => return true,
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return false,
        }
    }
}

fn carry_in(console: &Console, mut input: File, stop: &OwnedFd, mut filter: Filter) {
    let mut buffer = [0; 4096];
    while readable(&input, stop) {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => match filter(&buffer[..n]) {
                Some(data) if console.input.push(&data) => {}
                _ => return,
            },
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => return,
        }
    }
}

/// Listens on a Unix socket at `path` for one client after the other. A client that comes late gets the last
/// output that was missed.
///
/// # Errors
/// [`SerialError`].
pub fn to_unix_socket(console: &Console, path: &Path) -> Result<Carrier, SerialError> {
    let failed = |source| SerialError::Socket { path: path.into(), source };
    remove_stale_socket(path)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    let client = Arc::new(Mutex::new(Client::default()));
    let output = Box::new(ToClient(Arc::clone(&client)));
    let mut carrier = start(console, output, Box::new(|_| {}), None)?;
    carrier.socket = Some(path.into());
    let (stop_reader, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| SerialError::Thread(e.into()))?;
    carrier.stop = Some(stop);
    let console = console.clone();
    spawn("serial-in", move || serve(&console, &listener, &client, &stop_reader))?;
    Ok(carrier)
}

/// A socket that nobody listens on any more is in the way; anything else there is somebody's.
fn remove_stale_socket(path: &Path) -> Result<(), SerialError> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let stale = meta.file_type().is_socket() && UnixStream::connect(path).is_err();
    if !stale {
        return Err(SerialError::Occupied { path: path.into() });
    }
    std::fs::remove_file(path).map_err(|source| SerialError::Socket { path: path.into(), source })
}

/// The client of a socket, and what it will be told first.
#[derive(Default)]
struct Client {
    stream: Option<UnixStream>,
    backlog: std::collections::VecDeque<u8>,
}

struct ToClient(Arc<Mutex<Client>>);

impl Write for ToClient {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let stream = {
            let mut client = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match client.stream.as_ref().and_then(|s| s.try_clone().ok()) {
                Some(stream) => stream,
                None => {
                    client.backlog.extend(data);
                    let excess = client.backlog.len().saturating_sub(BACKLOG);
                    client.backlog.drain(..excess);
                    return Ok(data.len());
                }
            }
        };
        // Not under the lock: a client may take its time.
        match (&stream).write(data) {
            Ok(n) if n > 0 => Ok(n),
            Err(e) if e.kind() == ErrorKind::Interrupted => Err(e),
            _ => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).stream = None;
                Ok(data.len())
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn serve(console: &Console, listener: &UnixListener, client: &Mutex<Client>, stop: &OwnedFd) {
    while readable(listener, stop) {
        let Ok((stream, _)) = listener.accept() else { continue };
        let (Ok(input), Ok(mut output)) = (stream.try_clone(), stream.try_clone()) else { continue };
        {
            let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
            let missed: Vec<u8> = client.backlog.drain(..).collect();
            if output.write_all(&missed).is_ok() {
                client.stream = Some(stream);
            }
        }
        carry_in(console, File::from(OwnedFd::from(input)), stop, Box::new(|data| Some(data.to_vec())));
        client.lock().unwrap_or_else(PoisonError::into_inner).stream = None;
    }
}
