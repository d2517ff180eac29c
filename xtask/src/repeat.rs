//! `cargo xtask repeat`: machines whose CPUs share a thread do the same again, to the instruction: our own test guests
//! and Debian's kernel run twice; Linux recorded while somebody types, pauses and resets it at random moments, and
//! replayed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::boot::Linux;
use crate::guests::{self, TestGuest};
use crate::kernel::Version;
use crate::qmp::Socket;
use crate::session::last_lines;
use crate::{host, run};

const LIMIT: Duration = Duration::from_secs(240);
const CPUS: u32 = 4;
const DISK_LEN: usize = 16 << 20;
/// The counters that two runs have in common only if they are the same.
const COUNTERS: [&str; 6] =
    ["count", "count_skipped", "trace_hash", "instructions", "interrupts", "exceptions"];

/// How much to repeat.
#[derive(Args)]
pub struct Options {
    /// Recorded sessions
    #[arg(long, default_value_t = 1)]
    pub sessions: u64,
    /// What the first session's moments are made from; each has the next
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// Two runs differ.
pub fn main(o: &Options) -> Result<()> {
    host::ensure(host::BOOT)?;
    let armlet = run::build_armlet()?;
    for guest in guests::build_tests()? {
        twice(&armlet, &guest).with_context(|| format!("guest {}", guest.name))?;
    }
    linux_twice(&armlet)?;
    let seed = o.seed.unwrap_or_else(seed_of_now);
    for session in 0..o.sessions {
        recorded(&armlet, seed.wrapping_add(session))?;
    }
    run::say("every run was the same again");
    Ok(())
}

/// A seed that nobody has chosen.
pub fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_nanos() as u64)
}

/// A folder for one comparison, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = run::target().join(format!("scratch-repeat-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a run left behind.
#[derive(PartialEq)]
struct Left {
    status: Option<i32>,
    bytes: Vec<u8>,
    counters: Vec<BTreeMap<String, u64>>,
}

impl Left {
    fn same_as(&self, other: &Self) -> Result<()> {
        if self.status != other.status {
            bail!("exit status {:?}, then {:?}", self.status, other.status);
        }
        if self.bytes != other.bytes {
            let at = self.bytes.iter().zip(&other.bytes).take_while(|(a, b)| a == b).count();
            bail!("other bytes from {at} on; the second time:\n{}", last_lines(&self.text(at + 300)));
        }
        if self.counters != other.counters {
            bail!("the counters were {:?}, then {:?}", self.counters, other.counters);
        }
        Ok(())
    }

    fn text(&self, end: usize) -> String {
        String::from_utf8_lossy(&self.bytes[..end.min(self.bytes.len())]).into_owned()
    }
}

/// A run on its way.
struct Running {
    child: Child,
    output: PathBuf,
    stats: PathBuf,
}

impl Running {
    fn start(mut c: Command, scratch: &Scratch, name: &str) -> Result<Self> {
        let (output, stats) = (scratch.file(name), scratch.file(&format!("{name}.json")));
        c.arg("--stats").arg(&stats).stdin(Stdio::piped()).stdout(File::create(&output)?);
        let child = c.spawn().with_context(|| format!("cannot run `{}`", run::line(&c)))?;
        Ok(Self { child, output, stats })
    }

    fn send(&mut self, text: &str) {
        // A guest that has ended reads no more.
        let _ = self.child.stdin.as_mut().map(|stdin| stdin.write_all(text.as_bytes()));
    }

    fn finish(mut self) -> Result<Left> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status.code();
            }
            if start.elapsed() > LIMIT {
                let said = fs::read(&self.output)?;
                bail!("it does not end; its last lines:\n{}", last_lines(&String::from_utf8_lossy(&said)));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let bytes = fs::read(&self.output)?;
        let text = fs::read_to_string(&self.stats).context("no statistics")?;
        Ok(Left { status, bytes, counters: counters(&serde_json::from_str(&text)?) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The counters of the machine, then of each CPU.
fn counters(stats: &serde_json::Value) -> Vec<BTreeMap<String, u64>> {
    let cpus = stats["cpus"].as_array().cloned().unwrap_or_default();
    let of = |value: &serde_json::Value| {
        let known = COUNTERS.iter().filter_map(|name| Some(((*name).to_owned(), value[*name].as_u64()?)));
        known.collect()
    };
    std::iter::once(&stats["machine"]).chain(&cpus).map(of).collect()
}

/// Runs a test guest twice, while time is slept through and while it leaps.
///
/// # Errors
/// The runs differ, or show nothing.
pub fn twice(armlet: &Path, guest: &TestGuest) -> Result<()> {
    let scratch = Scratch::new()?;
    let run = |name: &str, sleep: &str| {
        let mut c = guest.armlet(armlet);
        c.args(["--timeout", "200", "--accel"]).arg(format!("jit,thread=single,trace=on,sleep={sleep}"));
        Running::start(c, &scratch, name)?.finish()
    };
    let first = run("first", "on")?;
    if first.counters.first().and_then(|all| all.get("trace_hash")).is_none_or(|hash| *hash == 0) {
        bail!("no hash was made of its instructions");
    }
    first.same_as(&run("second", "on")?)?;
    first.same_as(&run("third", "off")?).context("with sleep=off")
}

/// Linux with several CPUs and a disk, whose writes are thrown away.
struct Guest {
    linux: Linux,
    scratch: Scratch,
    /// Where the disk sits.
    bus: &'static str,
}

impl Guest {
    fn new(bus: &'static str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let mut linux = Linux::prepare(Version::V6_12)?;
        // Other commands write it anew.
        let initrd = scratch.file("initrd.gz");
        fs::copy(&linux.initrd, &initrd)?;
        linux.initrd = initrd;
        let disk: Vec<u8> = (0..DISK_LEN).map(|i| ((i * i) >> 9) as u8).collect();
        fs::write(scratch.file("disk.img"), disk)?;
        Ok(Self { linux, scratch, bus })
    }

    fn start(&self, armlet: &Path, name: &str, words: &str, more: &[String]) -> Result<Running> {
        let mut c = self.linux.command(armlet, CPUS, words);
        c.args(["--timeout", "200", "--accel", "jit,thread=single,trace=on"]);
        let disk = self.scratch.file("disk.img");
        c.arg("--drive").arg(format!("{},snapshot=on,bus={}", disk.display(), self.bus));
        c.args(more);
        Running::start(c, &self.scratch, name)
    }
}

/// Debian's kernel with several CPUs and a disk, twice.
///
/// # Errors
/// The runs differ.
pub fn linux_twice(armlet: &Path) -> Result<()> {
    let guest = Guest::new("mmio")?;
    let run = |name| guest.start(armlet, name, "disk", &[])?.finish();
    let first = run("first")?;
    let text = first.text(usize::MAX);
    if first.status != Some(0) || !text.contains("/dev/vda") {
        bail!("it did not do its work:\n{}", last_lines(&text));
    }
    first.same_as(&run("second")?)
}

/// Random moments.
struct Moments(u64);

impl Moments {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % n
    }

    fn wait(&mut self, most: u64) {
        std::thread::sleep(Duration::from_millis(self.below(most)));
    }
}

/// What is typed, in pieces of random lengths.
const TYPED: &str = "uname -a\nmd5sum /dev/vda & seq 300 | tail -n 2\ncat /proc/interrupts\n\
    head -c 20 /dev/urandom | od -x; date\ndd if=/dev/zero of=/dev/vda bs=64k count=50 conv=fsync\n\
    wait; md5sum /dev/vda\ncat /proc/uptime\n";

/// Linux with several CPUs and a disk, recorded while it is typed to, paused, reset and its power key pressed, all at
/// random moments, and replayed.
///
/// # Errors
/// The replay differs.
pub fn recorded(armlet: &Path, seed: u64) -> Result<()> {
    run::say(&format!("a session with seed {seed}"));
    let guest = Guest::new("pci")?;
    let socket = Socket::new(&format!("repeat-{seed}"))?;
    let recording = guest.scratch.file("run.rec").display().to_string();
    let options = ["--record".to_owned(), recording.clone(), "--qmp".to_owned(), socket.option()];
    let mut running = guest.start(armlet, "recorded", "shell", &options)?;
    socket.wait()?;
    let ctl = |what: &str| {
        run::quiet(run::command(&armlet.to_string_lossy(), ["ctl"]).arg(socket.path()).arg(what)).map(drop)
    };
    let mut moments = Moments(seed | 1);
    moments.wait(2000);
    ctl("reset")?;
    let mut rest = TYPED;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(1 + moments.below(rest.len().min(40) as u64) as usize);
        running.send(piece);
        rest = after;
        moments.wait(400);
        match moments.below(8) {
            0 => ctl("powerdown")?,
            1 => {
                ctl("stop")?;
                moments.wait(100);
                ctl("cont")?;
            }
            _ => {}
        }
    }
    running.send("poweroff -f\n");
    let first = running.finish()?;
    let text = first.text(usize::MAX);
    if first.status != Some(0) || !text.contains("reboot: Power down") {
        bail!("the session did not end as it should:\n{}", last_lines(&text));
    }
    let again = guest.start(armlet, "replayed", "shell", &["--replay".to_owned(), recording])?.finish()?;
    first.same_as(&again).with_context(|| format!("the session with seed {seed}, replayed"))
}
