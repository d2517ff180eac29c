//! Runs that are recorded and repeated: the built-in demonstration, which answers what is typed.
#![cfg(target_arch = "x86_64")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("armlet-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `armlet run` with CPUs on one thread, its words as given, and each line typed so many milliseconds after the one
/// before.
fn run(folder: &Path, words: &str, typed: &[(u64, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_armlet"));
    command.args(["run", "--timeout", "60", "--accel"]).args(words.split(' ')).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for (pause, text) in typed {
        std::thread::sleep(Duration::from_millis(*pause));
        // A run that has ended reads nothing more.
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait_with_output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What was executed, from the statistics.
fn counters(folder: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let wanted = ["\"count\"", "\"count_skipped\"", "\"trace_hash\"", "\"instructions\""];
    text.lines().filter(|line| wanted.iter().any(|w| line.contains(w))).map(str::to_owned).collect()
}

#[test]
fn a_conversation_is_repeated_to_the_instruction() {
    let folder = Folder::new("replay");
    let typed = [(150, "one\n"), (333, "tw"), (57, "o\n"), (210, "q\n")];
    let jit = "jit,thread=single,trace=on --smp 3";
    let first = run(&folder.0, &format!("{jit} --record run.rec --stats first"), &typed);
    assert_eq!(first.status.code(), Some(0), "{}", told(&first));
    let said = String::from_utf8_lossy(&first.stdout);
    assert!(said.contains("two") && said.contains("Good-bye"), "{said}");
    for _ in 0..2 {
        let again = run(&folder.0, &format!("{jit} --replay run.rec --stats again"), &[(0, "q\n")]);
        assert_eq!(again.status.code(), Some(0), "{}", told(&again));
        assert!(again.stdout == first.stdout, "other bytes came out");
        assert_eq!(counters(&folder.0, "first"), counters(&folder.0, "again"));
        assert!(counters(&folder.0, "first").iter().any(|line| line.contains("trace_hash")));
    }

    let other = run(&folder.0, "jit,thread=single --smp 2 --replay run.rec", &[]);
    assert_eq!((other.status.code(), told(&other).lines().count()), (Some(2), 1));
    assert!(
        told(&other).contains("--smp was '3,max=3") && told(&other).contains("give --smp 3"),
        "{}",
        told(&other)
    );
    let other = run(&folder.0, "jit,thread=single,icount=1 --smp 3 --replay run.rec", &[]);
    assert!(told(&other).contains("give --accel jit,thread=single,icount=0"), "{}", told(&other));

    // Cut off in the middle, as by a crash of the host.
    let bytes = std::fs::read(folder.0.join("run.rec")).unwrap();
    std::fs::write(folder.0.join("cut.rec"), &bytes[..bytes.len() - 3]).unwrap();
    let cut = run(&folder.0, "jit,thread=single --smp 3 --replay cut.rec", &[]);
    assert_eq!(cut.status.code(), Some(0), "{}", told(&cut));
    assert!(told(&cut).contains("has no end") && told(&cut).contains("cut off"), "{}", told(&cut));
    assert!(first.stdout.starts_with(&cut.stdout));
}

#[test]
fn a_run_that_was_ended_from_outside_ends_there_again() {
    let folder = Folder::new("replay-end");
    let mut command = Command::new(env!("CARGO_BIN_EXE_armlet"));
    let words = "run --accel jit,thread=single,icount=2 --record run.rec --serial file:first";
    command.args(words.split(' ')).current_dir(&folder.0).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let far = || std::fs::read(folder.0.join("first")).is_ok_and(|said| said.ends_with(b" > "));
    for _ in 0..6000 {
        if far() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let again = run(&folder.0, "jit,thread=single,icount=2 --replay run.rec --serial file:again", &[]);
    assert_eq!(again.status.code(), Some(0), "{}", told(&again));
    assert!(told(&again).contains("the recording ends here: SIGTERM"), "{}", told(&again));
    let read = |name| std::fs::read(folder.0.join(name)).unwrap();
    assert!(!read("first").is_empty() && read("first") == read("again"));
}
