//! `cargo xtask saved`: guests that are saved, end, and go on in another process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::boot::{self, Linux, PROMPT};
use crate::guests::{self, TestGuest};
use crate::kernel::Version;
use crate::qmp::Socket;
use crate::repeat;
use crate::session::{Session, last_lines};
use crate::{host, run};

/// How often a test guest is saved at most; it then comes to its end.
const ROUNDS: u32 = 12;
/// Lives of one Linux.
const LIVES: u32 = 3;
/// Saves that follow each other at once.
const STORM: u32 = 20;
const LIMIT: Duration = Duration::from_secs(300);

/// What to do.
#[derive(Args)]
pub struct Options {
    /// Only this test guest; `linux` for Linux
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// What decides when guests are saved; by the time if none is given
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// A guest does not go on as it should.
pub fn main(o: &Options) -> Result<()> {
    host::ensure(host::BOOT)?;
    let armlet = run::build_armlet()?;
    let wanted = |name: &str| o.only.as_ref().is_none_or(|only| only == name);
    let seed = o.seed.unwrap_or_else(repeat::seed_of_now);
    for guest in guests::build_tests()?.iter().filter(|guest| wanted(&guest.name)) {
        let saved =
            bare_metal(&armlet, guest, seed).with_context(|| format!("{}, --seed {seed}", guest.name))?;
        run::say(&format!("{}: saved {saved} times on its way", guest.name));
    }
    if wanted("linux") {
        linux(&armlet)?;
        run::say("Linux has lived on");
    }
    Ok(())
}

/// A folder for states, gone with it.
pub struct Folder(PathBuf);

impl Folder {
    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A new one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(name: &str) -> Result<Self> {
        let path = run::target().join(format!("scratch-saved-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What saves the machine at `socket` to `file`.
pub fn save(armlet: &Path, socket: &Socket, file: &Path, more: &[&str]) -> Command {
    let mut c = Command::new(armlet);
    c.arg("ctl").arg(socket.path()).arg("save").arg(file).args(more);
    c
}

/// What goes on from `file`.
pub fn restore(armlet: &Path, file: &Path) -> Command {
    let mut c = Command::new(armlet);
    c.arg("run").arg("--restore").arg(file);
    c
}

/// A conversation in QMP, as short as can be: a guest that is to be saved has ended soon.
struct Talk(BufReader<UnixStream>);

impl Talk {
    fn begin(socket: &Socket) -> Result<Self> {
        socket.wait()?;
        let mut talk = Self(BufReader::new(UnixStream::connect(socket.path())?));
        talk.answer()?;
        talk.ask(r#"{"execute": "qmp_capabilities"}"#)?;
        Ok(talk)
    }

    /// True if it is done; false if it is refused, or the machine has gone.
    fn ask(&mut self, text: &str) -> Result<bool> {
        if self.0.get_mut().write_all(text.as_bytes()).is_err() {
            return Ok(false);
        }
        while let Some(answer) = self.answer()? {
            if answer.get("event").is_none() {
                return Ok(answer.get("return").is_some());
            }
        }
        Ok(false)
    }

    fn answer(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(1..) => Ok(Some(serde_json::from_str(&line)?)),
            // An end, of whatever kind.
            _ => Ok(None),
        }
    }
}

/// Saves a test guest at random moments, each time to go on in another process, until it has ended or was saved often
/// enough; it must end as it does by itself. Returns how often it was saved.
///
/// # Errors
/// It does not.
pub fn bare_metal(armlet: &Path, guest: &TestGuest, seed: u64) -> Result<u32> {
    let folder = Folder::new(&guest.name)?;
    let file = folder.0.join("state");
    let socket = Socket::new(&format!("saved-{}", guest.name))?;
    let save =
        json!({"execute": "x-snapshot-save-file", "arguments": {"filename": file, "quit": true}}).to_string();
    let mut command = guest.armlet(armlet);
    let mut random = seed | 1;
    let mut written = String::new();
    for round in 0..=ROUNDS {
        command.arg("--paused").arg("--qmp").arg(socket.option());
        let session = Session::start(&mut command, LIMIT, false)?;
        let mut talk = Talk::begin(&socket)?;
        talk.ask(r#"{"execute": "cont"}"#)?;
        let mut saved = false;
        if round < ROUNDS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Any moment will do; some guests end within a millisecond, others take seconds.
            std::thread::sleep(Duration::from_nanos((random >> 32) % (1 << (14 + random % 11))));
            saved = talk.ask(&save)?;
        }
        let (status, text) = session.finish()?;
        written.push_str(&text);
        if saved {
            if status.code() != Some(1) {
                bail!("a machine that was saved and ends has the status {status}");
            }
            command = restore(armlet, &file);
            continue;
        }
        if status.code() == Some(guest.exit()) {
            return Ok(round);
        }
        bail!("{status} in life {round}; it says:\n{}", last_lines(&written));
    }
    bail!("it was saved although nobody asked")
}

/// Debian's kernel with 4 CPUs, room for one more, a disk in a slot, another one on PCI Express and a counter that runs: it
/// is saved, killed, and goes on in another process, more than once.
///
/// # Errors
/// It does not go on as if nothing had happened.
pub fn linux(armlet: &Path) -> Result<()> {
    let linux = Linux::prepare(Version::V6_12)?;
    let folder = Folder::new("linux")?;
    let file = folder.0.join("state");
    let disks = ["slot.img", "pci.img"].map(|name| folder.0.join(name));
    disks.iter().try_for_each(|disk| File::create(disk)?.set_len(64 << 20))?;
    let socket = Socket::new("saved-linux")?;
    let mut c = linux.command(armlet, "4,max=5", "quiet shell");
    c.arg("--drive").arg(&disks[0]).arg("--drive").arg(format!("{},bus=pci", disks[1].display()));
    c.arg("--qmp").arg(socket.option());
    let mut s = Session::start(&mut c, LIMIT, false)?;
    s.wait_for(PROMPT).context("no shell prompt")?;
    boot::ask(&mut s, "echo disks: $(cat /sys/block/vd[ab]/size)", "disks: 131072 131072")?;
    s.send_line(COUNTER)?;
    s.wait_for(PROMPT)?;
    let (mut count, mut clock) = look(&mut s)?;
    for life in 1..=LIVES {
        for disk in ["vda", "vdb"] {
            let write = format!(
                "echo life {life} | dd of=/dev/{disk} bs=512 seek={life} conv=sync,fsync 2>/dev/null; echo $?"
            );
            boot::ask(&mut s, &write, "0")?;
        }
        if life == 2 {
            for _ in 0..STORM {
                run::quiet(&mut save(armlet, &socket, &file, &[]))?;
            }
            boot::ask(&mut s, "echo $((6 * 7))", "42").context("after many saves")?;
        }
        let started = Instant::now();
        let said = run::quiet(&mut save(armlet, &socket, &file, &["--quit"]))?;
        run::say(&format!("life {life}: {} ({} ms)", said.trim(), started.elapsed().as_millis()));
        let (status, transcript) = s.finish()?;
        if status.code() != Some(1) {
            bail!("a machine that was saved and ends has the status {status}");
        }
        boot::complaints(&transcript)?;
        let mut c = restore(armlet, &file);
        c.arg("--qmp").arg(socket.option());
        s = Session::start(&mut c, LIMIT, false)?;
        s.send_line("")?;
        s.wait_for(PROMPT).context("no shell prompt in the next life")?;
        let (count_now, clock_now) = look(&mut s)?;
        if count_now <= count || clock_now < clock || clock_now > clock + 60.0 {
            bail!("counter and clock were {count} and {clock}, and are {count_now} and {clock_now}");
        }
        (count, clock) = (count_now, clock_now);
        for (before, disk) in (1..=life).flat_map(|before| [(before, "vda"), (before, "vdb")]) {
            let read = format!("dd if=/dev/{disk} bs=512 skip={before} count=1 iflag=direct 2>/dev/null");
            boot::ask(&mut s, &read, &format!("life {before}"))?;
        }
    }
    boot::ask(&mut s, "cat /sys/devices/system/cpu/online", "0-3")?;
    s.send_line("poweroff -f")?;
    let (status, transcript) = s.finish()?;
    if status.code() != Some(0) {
        bail!("armlet ended with {status}");
    }
    boot::complaints(&transcript)
}

/// Has a shell count in the background.
pub const COUNTER: &str = "(i=1000000; while :; do i=$((i+1)); echo $i >/tmp/count; done) &";

/// The counter, and how long the kernel has run, in seconds.
///
/// # Errors
/// No answer, or a strange one.
pub fn look(s: &mut Session) -> Result<(u64, f64)> {
    // Between opening and writing it is empty, and who reads just then can get zeros, which the shell drops.
    s.send_line(
        "while n=$(cat /tmp/count); [ ${#n} -ne 7 ]; do :; done; echo look $n $(cat /proc/uptime) end",
    )?;
    let answer = s.wait_for(PROMPT)?;
    let line = answer.lines().find(|line| line.starts_with("look ")).context("no answer")?;
    let mut words = line.split_whitespace().skip(1);
    let mut word = || words.next().with_context(|| format!("a strange answer: {line:?}"));
    Ok((word()?.parse()?, word()?.parse()?))
}
