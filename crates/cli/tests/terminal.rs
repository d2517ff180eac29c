//! The terminal is as it was before, however the run ends.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

const LIMIT: Duration = Duration::from_secs(60);

/// An `armlet run` that sits at a terminal of ours.
struct Session {
    terminal: File,
    controller: File,
    before: Termios,
    child: Child,
    _kernel: Kernel,
}

/// A kernel for one session, gone with it.
struct Kernel(std::path::PathBuf);

impl Kernel {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut image = vec![0; 100_000];
        image[16..24].copy_from_slice(&(1u64 << 20).to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        let path = std::env::temp_dir().join(format!("armlet-terminal-{}-{number}", std::process::id()));
        std::fs::write(&path, image).unwrap();
        Self(path)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Session {
    fn start(arguments: &[&str]) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let path = name.to_str().unwrap().to_owned();
        let terminal = File::options().read(true).write(true).open(&path).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        // `setsid -c` makes the terminal the controlling one, as a shell's is.
        let mut command = Command::new("setsid");
        command.args(["-c", env!("CARGO_BIN_EXE_armlet"), "run", "--accel", "dummy"]);
        let kernel = Kernel::new();
        command.args(["--memory", "64M", "--kernel"]).arg(&kernel.0).args(arguments);
        let copy = || OwnedFd::from(terminal.try_clone().unwrap());
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        Self { terminal, controller: File::from(controller), before, child, _kernel: kernel }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn wait_until_raw(&self) {
        let start = std::time::Instant::now();
        while !self.is_raw() {
            assert!(start.elapsed() < LIMIT, "the terminal never became raw");
            std::thread::yield_now();
        }
    }

    /// The process that holds the machine: `setsid` may have made a child for it.
    fn armlet(&self) -> Pid {
        let parent = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let child = children.ok().and_then(|c| c.split_whitespace().next()?.parse::<i32>().ok());
        Pid::from_raw(child.unwrap_or(parent as i32)).unwrap()
    }

    fn end(mut self) -> (ExitStatus, String) {
        // Somebody has to read, as a terminal's window does.
        let mut controller = self.controller.try_clone().unwrap();
        let (text, all) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = controller.read(&mut buffer) {
                let _ = text.send(String::from_utf8_lossy(&buffer[..n]).into_owned());
            }
        });
        let status = self.child.wait().unwrap();
        let after = tcgetattr(&self.terminal).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
        drop(self.terminal);
        reader.join().unwrap();
        (status, all.try_iter().collect())
    }
}

#[test]
fn signals_end_the_run_with_status_1_and_the_terminal_as_it_was() {
    use Signal as S;
    for signal in [S::TERM, S::INT, S::HUP, S::QUIT, S::USR1, S::USR2, S::ALARM, S::XCPU, S::IO, S::POWER] {
        let session = Session::start(&[]);
        session.wait_until_raw();
        kill_process(session.armlet(), signal).unwrap();
        let (status, text) = session.end();
        assert_eq!(status.code(), Some(1), "{signal:?}: {text}");
        assert!(text.to_lowercase().contains("ended by sig"), "{signal:?}: {text}");
    }
}

#[test]
fn a_fault_or_an_abort_ends_the_process_and_leaves_the_terminal_as_it_was() {
    for signal in
        [Signal::SEGV, Signal::ABORT, Signal::BUS, Signal::ILL, Signal::FPE, Signal::TRAP, Signal::SYS]
    {
        let session = Session::start(&[]);
        session.wait_until_raw();
        kill_process(session.armlet(), signal).unwrap();
        let (status, _) = session.end();
        assert!(status.signal() == Some(signal.as_raw()) || status.code() != Some(0), "{signal:?}: {status}");
    }
}

#[test]
fn a_terminal_that_takes_nothing_does_not_hold_up_the_end() {
    let session = Session::start(&[]);
    session.wait_until_raw();
    // Fills what the terminal keeps for its reader, who never comes.
    rustix::fs::fcntl_setfl(&session.terminal, rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&session.terminal, &[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&session.terminal, rustix::fs::OFlags::empty()).unwrap();
    kill_process(session.armlet(), Signal::TERM).unwrap();
    let mut child = session.child;
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(tcgetattr(&session.terminal).unwrap().local_modes, session.before.local_modes);
}

#[test]
fn a_limit_on_the_size_of_files_does_not_end_the_process() {
    let session = Session::start(&["--timeout", "1"]);
    session.wait_until_raw();
    kill_process(session.armlet(), Signal::XFSZ).unwrap();
    let (status, text) = session.end();
    assert_eq!(status.code(), Some(4), "{text}");
}

#[test]
fn ctrl_a_x_quits_and_ctrl_a_h_helps() {
    let mut session = Session::start(&[]);
    session.wait_until_raw();
    session.controller.write_all(b"some text\x01h\x01x").unwrap();
    let (status, text) = session.end();
    assert_eq!(status.code(), Some(1));
    assert!(text.contains("Ctrl-A x   quit") && text.contains("ended by Ctrl-A x"), "{text}");
}

#[test]
fn a_timeout_and_an_error_leave_the_terminal_as_it_was() {
    let (status, _) = Session::start(&["--timeout", "0.2"]).end();
    assert_eq!(status.code(), Some(4));
    let (status, _) = Session::start(&["--smp", "0"]).end();
    assert_eq!(status.code(), Some(2));
}
