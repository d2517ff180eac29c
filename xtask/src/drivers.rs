//! Linux's drivers on our virtio devices: what Linux is told of its disk holds, however the process ends, and what it gives
//! back is free on the host.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bench::Run;
use crate::bench::peer::Peer;
use crate::boot::{self, Linux, PROMPT};
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
        Self::with_length(name, DISK_LEN)
    }

    fn with_length(name: &str, length: u64) -> Result<Self> {
        let path = run::target().join(format!("scratch-{name}-{}.img", std::process::id()));
        File::create(&path)?.set_len(length)?;
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

/// A disk on PCI Express with Linux's driver: its interrupts are messages, or a line if the kernel wants none; the function
/// is removed and found again; the disk holds what was written.
///
/// # Errors
/// Something is not as it should be.
pub fn pci(linux: &Linux, armlet: &Path, smp: u32) -> Result<()> {
    // One vector each for the configuration and the queue, or INTA, which is SPI 4.
    for (words, kind, lines) in [("", "MSI", "2"), ("pci=nomsi", "GICv3  36 ", "1")] {
        let disk = Scratch::with_length(&format!("pci-{lines}"), 16 * MIB)?;
        let mut c = linux.command(armlet, smp, &format!("quiet shell {words}"));
        c.arg("--drive").arg(format!("{},bus=pci", disk.0.display()));
        let mut s = Session::start(&mut c, LIMIT, false)?;
        s.wait_for(PROMPT).context("no shell prompt")?;
        let write =
            "dd if=/dev/urandom of=/dev/vda bs=1M count=64 conv=fsync 2>&-; md5sum /dev/vda >sum; wc -l <sum";
        boot::ask(&mut s, write, "1")?;
        boot::ask(&mut s, "echo 3 >/proc/sys/vm/drop_caches; md5sum -c sum", ": OK")?;
        boot::ask(&mut s, &format!("grep -c '{kind}' /proc/interrupts"), lines)?;
        let count = format!("awk '/{kind}/ {{ for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i }}");
        boot::ask(
            &mut s,
            &format!("{count} END {{ print (n > 15 ? \"ma\" \"ny\" : n) }}' /proc/interrupts"),
            "many",
        )?;
        boot::ask(&mut s, &format!("echo 1 >{FUNCTION}/remove; ls /dev/vda"), "No such file")?;
        boot::ask(&mut s, "echo 1 >/sys/bus/pci/rescan; md5sum -c sum", ": OK")?;
        s.send_line("cat sum; poweroff -f")?;
        let (status, transcript) = s.finish()?;
        boot::complaints(&transcript)?;
        let here = run::quiet(&mut run::command("md5sum", [&disk.0]))?;
        let sum = here.split_whitespace().next().context("no sum")?;
        if status.code() != Some(0) || !transcript.contains(&format!("{sum}  /dev/vda")) {
            bail!("with '{words}' the disk does not hold what the guest wrote, or it ended with {status}");
        }
    }
    Ok(())
}

/// The first function behind the bridge.
const FUNCTION: &str = "/sys/bus/pci/devices/0000:00:01.0";

/// Linux sees the same function as with the peer: its identity, its vectors, the features of its device.
///
/// # Errors
/// It does not.
pub fn pci_as_peer(linux: &Linux, armlet: &Path) -> Result<()> {
    let disk = Scratch::new("pci-peer")?;
    let words = "quiet shell";
    let mut ours = linux.command(armlet, 1, words);
    ours.arg("--drive").arg(format!("{},bus=pci", disk.0.display()));
    let run = Run { linux, cpu: "neoverse-n1", smp: 1, words, disk: None };
    let mut theirs = Peer::prepare()?.command(&run);
    theirs.arg("-drive").arg(format!("file={},format=raw,if=none,id=d1", disk.0.display()));
    theirs.args(["-device", "virtio-blk-pci,drive=d1,disable-legacy=on"]);
    let mut told = Vec::new();
    for command in [&mut ours, &mut theirs] {
        let mut s = Session::start(command, LIMIT, false)?;
        s.wait_for(PROMPT).context("no shell prompt")?;
        s.send_line(&format!("cd {FUNCTION}; stty cols 200"))?;
        s.wait_for(PROMPT)?;
        s.send_line("cat vendor device class revision subsystem_*; ls msi_irqs | wc -l; ls -d virtio*; readlink driver")?;
        let answer = s.wait_for(PROMPT)?;
        told.push(answer.lines().skip(1).map(|l| l.trim().to_owned()).collect::<Vec<_>>());
        s.send_line("poweroff -f")?;
        s.finish()?;
    }
    if told[0] != told[1] || told[0].len() < 8 {
        bail!("Linux sees {:?}, and with the peer {:?}", told[0], told[1]);
    }
    Ok(())
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
    short_writes(&mut s)?;
    s.send_line("poweroff -f")?;
    let (status, _) = s.finish()?;
    if status.code() == Some(0) { Ok(()) } else { bail!("it ended with {status}") }
}

/// Linux takes what it has written back before an interrupt can tell it, and disables an interrupt that told it nothing
/// 100,000 times.
fn short_writes(s: &mut Session) -> Result<()> {
    const WRITES: u64 = 20_000;
    s.send_line(&format!("yes | dd bs=1 count={WRITES} 2>/dev/null; echo wri''tten"))?;
    s.wait_for("written").context("short writes")?;
    s.wait_for(PROMPT)?;
    s.send_line("grep virtio /proc/interrupts")?;
    let table = s.wait_for(PROMPT)?;
    let counts = table.lines().filter(|line| line.contains("GIC") || line.contains("ITS"));
    let counts: Vec<u64> = counts.filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
    let interrupts: u64 = counts.iter().sum();
    if counts.is_empty() || interrupts > WRITES / 10 {
        bail!("{interrupts} interrupts for {WRITES} short writes to the virtio console: {table:?}");
    }
    Ok(())
}
