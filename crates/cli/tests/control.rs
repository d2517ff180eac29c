//! `--qmp` and `armlet ctl`.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

struct Machine {
    folder: PathBuf,
    child: Child,
}

fn armlet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_armlet"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Machine {
    /// A machine that executes nothing, with its socket in a folder of its own.
    fn start(name: &str, arguments: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("armlet-control-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // A socket that a dead program left behind is no obstacle.
        drop(UnixListener::bind(folder.join("socket")));
        let mut command = armlet();
        command.current_dir(&folder).args(["run", "--accel", "dummy", "--memory", "64M", "--serial", "none"]);
        command.args(["--qmp", "unix:socket", "--timeout", "60"]).args(arguments);
        let machine = Self { folder, child: command.spawn().unwrap() };
        let start = Instant::now();
        while machine.ctl("status").status.code() != Some(0) {
            assert!(start.elapsed() < LIMIT, "it never listens");
            std::thread::yield_now();
        }
        machine
    }

    fn ctl(&self, words: &str) -> Output {
        armlet().current_dir(&self.folder).args(["ctl", "socket"]).args(words.split(' ')).output().unwrap()
    }

    /// What a command that succeeds prints.
    #[track_caller]
    fn says(&self, words: &str) -> String {
        let output = self.ctl(words);
        assert_eq!(output.status.code(), Some(0), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty());
        String::from_utf8(output.stdout).unwrap()
    }

    fn end(mut self) -> (ExitStatus, bool) {
        let status = self.child.wait().unwrap();
        (status, self.folder.join("socket").exists())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The one line of complaint, and the exit status.
#[track_caller]
fn complaint(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.starts_with("armlet: ") && text.lines().count() == 1, "{text}");
    assert!(output.stdout.is_empty());
    (output.status.code(), text)
}

#[test]
fn people_control_a_machine() {
    let machine = Machine::start("people", &["--smp", "2", "--paused"]);
    assert_eq!(machine.says("status"), "prelaunch\n");
    assert_eq!(machine.says("cont"), "running\n");
    assert_eq!(machine.says("stop"), "paused\n");
    assert_eq!(machine.says("reset"), "");
    assert_eq!(machine.says("status"), "paused\n");
    assert_eq!(machine.says("cont"), "running\n");
    assert_eq!(machine.says("powerdown"), "");
    assert_eq!(machine.says("quit"), "");
    let (status, left) = machine.end();
    assert_eq!((status.code(), left), (Some(1), false));
}

#[test]
fn cpus_come_and_go() {
    let machine = Machine::start("cpus", &["--smp", "2,max=4"]);
    let taken = || {
        let list = machine.says("cpu list");
        assert_eq!(list.lines().count(), 5, "{list}");
        list.lines().skip(1).map(|line| !line.contains("no CPU")).collect::<Vec<_>>()
    };
    assert_eq!(taken(), [true, true, false, false]);
    assert!(machine.says("cpu add 3").contains("cpu3/online"));
    assert!(machine.says("cpu add").starts_with("CPU 2 added"));
    assert_eq!(taken(), [true; 4]);
    assert_eq!(machine.says("cpu remove 3"), "");
    assert_eq!(taken(), [true, true, true, false]);
    for (words, told) in [
        ("cpu add 1", "CPU[1] exists"),
        ("cpu add 4", "0 to 3"),
        ("cpu remove 3", "there is no CPU 3"),
        ("cpu remove 0", "boots the machine"),
    ] {
        let (status, text) = complaint(&machine.ctl(words));
        assert!(status == Some(1) && text.contains(told), "{words}: {text}");
    }
    machine.says("cpu add");
    let (_, text) = complaint(&machine.ctl("cpu add"));
    assert!(text.contains("every place is taken") && text.contains("--smp"), "{text}");
}

#[test]
fn cpus_are_numbered_through_the_topology() {
    let machine = Machine::start("topology", &["--smp", "3,clusters=2,cores=2,threads=2,max=8"]);
    let taken = || {
        let list = machine.says("cpu list");
        list.lines().skip(1).map(|line| !line.contains("no CPU")).collect::<Vec<_>>()
    };
    assert_eq!(taken(), [true, true, true, false, false, false, false, false]);
    assert!(machine.says("cpu add 6").contains("cpu6/online"));
    assert!(machine.says("cpu add").starts_with("CPU 3 added"));
    assert_eq!(machine.says("cpu remove 2"), "");
    assert_eq!(taken(), [true, true, false, true, false, false, true, false]);
}

#[test]
fn mistakes_are_told_in_one_line() {
    let machine = Machine::start("mistakes", &[]);
    let (status, text) = complaint(&machine.ctl("dance"));
    assert_eq!(status, Some(2));
    assert!(text.contains("'dance'") && text.contains("armlet ctl --help"), "{text}");
    let mut command = armlet();
    command.current_dir(&machine.folder).args(["run", "--accel", "dummy", "--memory", "64M"]);
    let second = command.args(["--serial", "none", "--qmp", "unix:socket"]).output().unwrap();
    let (status, text) = complaint(&second);
    assert_eq!(status, Some(2));
    assert!(text.contains("another program listens") && text.contains("another path"), "{text}");
    assert_eq!(machine.says("status"), "running\n", "the first one did not notice");
    let no_text = std::ffi::OsStr::from_bytes(b"\xff");
    let (status, text) = complaint(&armlet().arg(no_text).output().unwrap());
    assert!(status == Some(2) && text.contains("armlet --help"), "{text}");
    let nowhere = armlet().args(["ctl", "/nowhere/socket", "status"]).output().unwrap();
    let (status, text) = complaint(&nowhere);
    assert_eq!(status, Some(1));
    assert!(text.contains("/nowhere/socket") && text.contains("--qmp"), "{text}");
}

#[test]
fn a_machine_that_is_killed_leaves_a_socket_that_the_next_one_replaces() {
    let mut machine = Machine::start("killed", &[]);
    machine.child.kill().unwrap();
    machine.child.wait().unwrap();
    let socket = machine.folder.join("socket");
    assert!(socket.exists());
    let (status, text) = complaint(&machine.ctl("status"));
    assert_eq!(status, Some(1));
    assert!(text.contains("no machine listens"), "{text}");
    assert!(Path::new(&socket).exists());
    let next = Machine::start("killed", &[]);
    assert_eq!(next.says("status"), "running\n");
}
