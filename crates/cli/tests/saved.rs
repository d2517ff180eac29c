//! `armlet ctl PATH save` and `armlet run --restore`.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

fn armlet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_armlet"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A folder that is deleted at the end, in which everything happens.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("armlet-cli-saved-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn command(&self, words: &str) -> Command {
        let mut command = armlet();
        command.current_dir(&self.0).args(words.split(' '));
        command
    }

    fn output(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    /// A machine that listens at `socket`.
    fn start(&self, words: &str) -> Running {
        let mut child = self
            .command(&format!("run --serial none --timeout 60 --qmp unix:socket {words}"))
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !self.output("ctl socket status").status.success() {
            assert!(child.try_wait().unwrap().is_none() && start.elapsed() < LIMIT, "it never listens");
            std::thread::yield_now();
        }
        Running(child)
    }

    #[track_caller]
    fn says(&self, words: &str) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line that a bad command line is answered with.
    #[track_caller]
    fn refused(&self, words: &str) -> String {
        let output = self.output(words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}: {text}");
        assert!(text.starts_with("armlet: ") && text.lines().count() == 1, "{text}");
        text
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Running(Child);

impl Running {
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.0.wait().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut text).unwrap();
        (status.code(), text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_machine_is_saved_ends_and_goes_on_from_its_file_alone() {
    let folder = Folder::new("alone");
    let machine = folder.start("--accel dummy --memory 64M --smp 2,max=4 --append word");
    let said = folder.says("ctl socket save vm.state");
    assert!(said.contains("MiB saved; the machine stood still for "), "{said}");
    assert_eq!(folder.says("ctl socket status"), "running\n");
    folder.says("ctl socket cpu add 3");
    folder.says("ctl socket save vm.state --quit");
    let (status, text) = machine.end();
    assert_eq!((status, text.as_str()), (Some(1), "armlet: ended by whoever saved it\n"));

    let machine = folder.start("--accel dummy --restore vm.state");
    assert_eq!(folder.says("ctl socket status"), "running\n");
    let cpus = folder.says("ctl socket cpu list");
    assert_eq!(cpus.lines().filter(|line| line.contains("(no CPU)")).count(), 1, "{cpus}");
    folder.says("ctl socket stop");
    folder.says("ctl socket save vm.state");
    folder.says("ctl socket quit");
    machine.end();

    let machine = folder.start("--accel dummy --restore vm.state --memory 64M --smp 2,max=4");
    assert_eq!(folder.says("ctl socket status"), "prelaunch\n");
    assert_eq!(folder.says("ctl socket cont"), "running\n");
    folder.says("ctl socket quit");
    let (_, text) = machine.end();
    assert!(text.starts_with("armlet: paused, as it was when it was saved: "), "{text}");

    let machine = folder.start("--accel dummy --restore vm.state --paused");
    assert_eq!(folder.says("ctl socket status"), "prelaunch\n");
    folder.says("ctl socket quit");
    machine.end();
}

#[test]
fn what_contradicts_the_file_and_what_is_no_such_file_is_refused() {
    let folder = Folder::new("refused");
    let machine = folder.start("--accel dummy --memory 64M");
    folder.says("ctl socket save vm.state");
    folder.says("ctl socket quit");
    machine.end();
    let run = "run --accel dummy --restore vm.state";
    assert_eq!(
        folder.refused(&format!("{run} --memory 128M")),
        "armlet: saved state 'vm.state' is of another machine: --memory was '64M' and is '128M': leave --memory out, or \
         give --memory 64M\n"
    );
    assert!(folder.refused(&format!("{run} --cpu cortex-a53")).contains("MIDR_EL1 of the CPU was"));
    assert!(folder.refused(&format!("{run} --smp 4")).contains("--smp was '1,max=1"));
    assert!(folder.refused(&format!("{run} --append x")).contains("--append was ''"));
    assert!(folder.refused(&format!("{run} --record x")).contains("--record"));
    let why = if cfg!(target_arch = "x86_64") { "thread=single" } else { "cannot translate" };
    assert!(folder.refused("run --restore vm.state --accel jit,thread=single").contains(why));
    assert!(folder.refused("run --restore absent").contains("saved state 'absent' cannot be read"));
    std::fs::write(folder.0.join("other"), "#!/bin/sh\n echo this is something else\n").unwrap();
    assert!(folder.refused("run --restore other").contains("it is no saved state"));
    let bytes = std::fs::read(folder.0.join("vm.state")).unwrap();
    std::fs::write(folder.0.join("cut"), &bytes[..bytes.len() - 9]).unwrap();
    assert!(folder.refused("run --accel dummy --restore cut").contains("it is cut off near byte"));
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    std::fs::write(folder.0.join("flipped"), flipped).unwrap();
    assert!(folder.refused("run --accel dummy --restore flipped").contains("it is damaged"));
}

#[test]
fn a_state_that_cannot_be_written_is_told_and_the_machine_goes_on() {
    let folder = Folder::new("unwritten");
    let machine = folder.start("--accel dummy --memory 64M");
    let output = folder.output("ctl socket save absent/vm.state");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cannot be written") && text.lines().count() == 1, "{text}");
    assert_eq!(folder.says("ctl socket status"), "running\n");
    folder.says("ctl socket quit");
    machine.end();
}
