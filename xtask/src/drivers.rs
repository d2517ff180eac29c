//! Linux's drivers on our virtio devices: what Linux is told of its disk holds, however the process ends, and what it gives
//! back is free on the host.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::boot::{Linux, PROMPT};
use crate::run;
use crate::session::Session;

const LIMIT: Duration = Duration::from_secs(180);
const DISK_LEN: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
const SECTOR: usize = 512;

/// An empty disk for one test, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let path = run::target().join(format!("scratch-{name}-{}.img", std::process::id()));
        File::create(&path)?.set_len(DISK_LEN)?;
        Ok(Self(path))
    }

    /// KiB that it takes on the host.
    fn used(&self) -> Result<u64> {
        Ok(fs::metadata(&self.0)?.blocks() / 2)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn shell(linux: &Linux, armlet: &Path, disk: &Scratch, words: &str) -> Result<Session> {
    let mut c = linux.command(armlet, 1, words);
    c.arg("--drive").arg(&disk.0);
    let mut s = Session::start(&mut c, LIMIT, false)?;
    s.wait_for(PROMPT).context("no shell prompt")?;
    Ok(s)
}

/// Ends the process by `signal` (a name as kill(1) knows it) while the guest writes to its disk, and compares the
/// disk with every flush that the guest was told had completed.
///
/// # Errors
/// One is not there, or the process does not end as it should.
pub fn killed(linux: &Linux, armlet: &Path, signal: &str) -> Result<()> {
    let disk = Scratch::new(signal)?;
    let mut s = shell(linux, armlet, &disk, "quiet shell")?;
    // Other writes go on meanwhile, which nobody flushes.
    s.send_line(
        "while :; do dd if=/dev/urandom of=/dev/vda bs=1M seek=32 count=20 conv=notrunc; done 2>&- &",
    )?;
    let record = "echo record $n | dd of=/dev/vda bs=512 seek=$n conv=sync,notrunc,fsync 2>&-";
    s.send_line(&format!("n=0; while {record}; do echo told $n; n=$((n + 1)); done"))?;
    s.wait_for("told 20")?;
    run::quiet(&mut run::command("kill", ["-s", signal, &s.process().to_string()]))?;
    let (status, transcript) = s.finish()?;
    match status.code() {
        None if signal == "KILL" => {}
        Some(1) if signal != "KILL" => {}
        _ => bail!("it ended with {status}"),
    }
    let contents = fs::read(&disk.0)?;
    // A line that was cut off is one that nobody has read.
    let whole = transcript.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let told = whole.lines().filter_map(|l| l.trim().strip_prefix("told ")?.parse::<usize>().ok());
    let mut count = 0;
    for n in told {
        let sector = contents.get(n * SECTOR..(n + 1) * SECTOR).unwrap_or_default();
        if !sector.starts_with(format!("record {n}\n").as_bytes()) {
            bail!("the guest was told that record {n} is on the disk, and it is not");
        }
        count += 1;
    }
    if count < 20 { bail!("only {count} records were told of") } else { Ok(()) }
}

/// Tries what the block and entropy devices can with Linux's drivers.
///
/// # Errors
/// Something does not work.
pub fn block_and_entropy(linux: &Linux, armlet: &Path) -> Result<()> {
    let disk = Scratch::new("block")?;
    let mut s = shell(linux, armlet, &disk, "quiet shell")?;
    let mut ask = |line: &str| -> Result<String> {
        s.send_line(line)?;
        s.wait_for(PROMPT)
    };
    let random = ask("dd if=/dev/hwrng bs=4096 count=16 2>&- | wc -c")?;
    if !random.contains("65536") {
        bail!("/dev/hwrng gave {random:?}");
    }
    ask("dd if=/dev/urandom of=/dev/vda bs=1M count=64 conv=fsync 2>&-")?;
    let full = disk.used()?;
    if full < DISK_LEN / 1024 {
        bail!("a full disk takes {full} KiB");
    }
    let discard = ask("blkdiscard -o 8388608 -l 33554432 /dev/vda && sync && echo discarded $((1 + 1))")?;
    let left = disk.used()?;
    if !discard.contains("discarded 2") || left > full - 30 * MIB / 1024 {
        bail!("a discard of 32 MiB left {left} of {full} KiB: {discard:?}");
    }
    let zeroes = ask("cmp -n 33554432 /dev/vda /dev/zero 8388608 0 && echo zero $((1 + 1))")?;
    if !zeroes.contains("zero 2") {
        bail!("what was discarded is not zero: {zeroes:?}");
    }
    s.send_line("poweroff -f")?;
    let (status, _) = s.finish()?;
    if status.code() == Some(0) { Ok(()) } else { bail!("it ended with {status}") }
}

/// A conversation in a shell on the virtio console.
///
/// # Errors
/// It does not answer, or is on another device.
pub fn virtio_console(linux: &Linux, armlet: &Path) -> Result<()> {
    let mut c = linux.command(armlet, 1, "console=hvc0 quiet shell");
    c.args(["--console", "virtio"]);
    let mut s = Session::start(&mut c, LIMIT, false)?;
    s.wait_for(PROMPT).context("no shell prompt")?;
    s.send_line("tty")?;
    let answer = s.wait_for(PROMPT)?;
    if !answer.contains("/dev/hvc0") {
        bail!("the shell is not on the virtio console: {answer:?}");
    }
    s.send_line("seq 5000 | tail -n 1")?;
    s.wait_for("5000")?;
    s.send_line("poweroff -f")?;
    let (status, _) = s.finish()?;
    if status.code() == Some(0) { Ok(()) } else { bail!("it ended with {status}") }
}
