//! Part of `cargo xtask test-kvm`: a guest that is saved under the JIT here, goes on with KVM in the emulated host, is saved
//! there, and goes on under the JIT; and one that began with KVM.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::boot::{self, Linux, PROMPT};
use crate::kernel::Version;
use crate::kvm::{Host, folder};
use crate::qmp::Socket;
use crate::saved::{Folder, look, restore, save};
use crate::session::Session;
use crate::{run, saved};

/// One that both sides can be.
const CPU: &str = "neoverse-n1,portable=on";
const MEMORY: &str = "256M";
/// Bytes of the guest's disk.
const DISK: u64 = 1 << 20;
/// Most bytes of what comes back.
const OUTBOX: u64 = 512 << 20;
/// What the guest writes to its disk when it is to be saved there, where nobody else can be asked.
const SIGNAL: &str = "now-please";
const LIMIT: Duration = Duration::from_secs(300);

/// What goes into the emulated host and what comes out of it: disks there, by these names.
pub struct Luggage {
    folder: Folder,
    linux: Linux,
    armlet: PathBuf,
    /// Sizes of the two states: of the guest that has a shell, and of one that is not portable.
    sizes: [u64; 2],
    past: (u64, f64),
}

impl Luggage {
    /// Boots a guest under the JIT and saves it.
    ///
    /// # Errors
    /// That fails.
    pub fn pack() -> Result<Self> {
        let armlet = run::build_armlet()?;
        let linux = Linux::prepare(Version::V6_12)?;
        let folder = Folder::new("carry")?;
        let (state, plain) = (folder.path("state"), folder.path("plain"));
        let socket = Socket::new("carry")?;
        let mut s = begin(&mut machine(&linux, &armlet, &folder, &socket)?)?;
        write_life(&mut s, 1)?;
        let past = look(&mut s)?;
        run::quiet(&mut save(&armlet, &socket, &state, &["--quit"]))?;
        finish(s, 1)?;
        // Another one, which no KVM can be.
        let mut c = Command::new(&armlet);
        c.args(["run", "--paused", "--memory", "64M"]).arg("--kernel").arg(&linux.image);
        let other = Session::start(c.arg("--qmp").arg(socket.option()), LIMIT, false)?;
        socket.wait()?;
        run::quiet(&mut save(&armlet, &socket, &plain, &["--quit"]))?;
        finish(other, 1)?;
        let mut inbox = File::create(folder.path("inbox"))?;
        let mut sizes = [0; 2];
        for (path, size) in [state, plain].iter().zip(&mut sizes) {
            *size = std::io::copy(&mut File::open(path)?, &mut inbox)?;
        }
        // Disks have whole sectors.
        inbox.set_len(sizes.iter().sum::<u64>().next_multiple_of(4096))?;
        File::create(folder.path("outbox"))?.set_len(OUTBOX)?;
        run::say(&format!("saved under the JIT: {} KiB, its counter at {}", sizes[0] >> 10, past.0));
        Ok(Self { folder, linux, armlet, sizes, past })
    }

    /// Names of the disks, which are also those of their files.
    pub fn disks(&self) -> Vec<(&'static str, PathBuf)> {
        ["inbox", "image", "outbox"].map(|name| (name, self.folder.path(name))).into()
    }

    /// Has the guest go on with KVM, then under the JIT.
    ///
    /// # Errors
    /// It does not go on as if nothing had happened.
    pub fn carry(&mut self, host: &mut Host) -> Result<()> {
        let [size, plain] = self.sizes;
        host.ask(&format!("head -c {size} /dev/inbox >state; cat /dev/image >image"), 0)?;
        host.ask(&format!("tail -c +{} /dev/inbox | head -c {plain} >plain", size + 1), 0)?;
        let before = sum(host)?;
        let guest = format!("--restore state {} --drive image,bus=pci", files());
        self.past = live(host, &guest, self.past, 2).context("saved under the JIT, with KVM")?;
        // Nothing has changed what was saved.
        if sum(host)? != before {
            bail!("a machine that goes on has changed the state that it comes from");
        }
        self.come_back(host, 2).context("saved with KVM, under the JIT")?;
        println!("from the JIT to KVM and back: ok");
        refusals(host)
    }

    /// Starts a guest with KVM and has it go on under the JIT.
    ///
    /// # Errors
    /// As [`Self::carry`].
    pub fn return_from_kvm(&mut self, host: &mut Host) -> Result<()> {
        host.ask(&format!("dd if=/dev/zero of=image bs={DISK} count=1"), 0)?;
        let append = format!("--append '{WORDS}'");
        let guest =
            format!("--cpu {CPU} --memory {MEMORY} --smp 2 {} {append} --drive image,bus=pci", files());
        self.past = live(host, &guest, (0, 0.0), 1).context("started with KVM")?;
        self.come_back(host, 1).context("started with KVM, under the JIT")?;
        println!("from KVM to the JIT: ok");
        Ok(())
    }

    fn come_back(&self, host: &mut Host, lives: u32) -> Result<()> {
        let told = host.ask("stat -c 'size %s end' out; cat out image >/dev/outbox && sync", 0)?;
        // The line is echoed before it is answered.
        let size = told.rsplit("size ").next().and_then(|rest| rest.split(' ').next());
        let size: u64 = size.context("no size")?.parse()?;
        let state = self.folder.path("back");
        let mut outbox = File::open(self.folder.path("outbox"))?;
        std::io::copy(&mut (&mut outbox).take(size), &mut File::create(&state)?)?;
        outbox.seek(SeekFrom::Start(size))?;
        // The emulated host still has its disk open.
        let image = self.folder.path("image-back");
        std::io::copy(&mut outbox.take(DISK), &mut File::create(&image)?)?;
        let mut c = restore(&self.armlet, &state);
        c.arg("--kernel").arg(&self.linux.image).arg("--initrd").arg(&self.linux.initrd);
        let mut s = Session::start(c.arg("--drive").arg(drive(&image)), LIMIT, false)?;
        s.send_line("")?;
        s.wait_for(PROMPT).context("no shell prompt")?;
        goes_on(self.past, look(&mut s)?)?;
        for life in 1..=lives {
            boot::ask(&mut s, &read_life(life), &format!("life {life}"))?;
        }
        write_life(&mut s, lives + 1)?;
        // Its disk's interrupts are LPIs.
        boot::ask(&mut s, MESSAGES, "messages: 1")?;
        boot::ask(&mut s, "dmesg | grep -c 'ITS@.*Devices'", "1")?;
        // A CPU that starts anew there.
        boot::ask(
            &mut s,
            "cd /sys/devices/system/cpu/cpu1; echo 0 >online; echo 1 >online; cat online",
            "1",
        )?;
        boot::ask(&mut s, "cat /sys/devices/system/cpu/online", "0-1")?;
        s.send_line("poweroff -f")?;
        finish(s, 0)
    }
}

/// The guest's disk, whose interrupts are messages.
fn drive(image: &Path) -> String {
    format!("{},bus=pci", image.display())
}

/// How many of the disk's interrupts have come by the ITS.
const MESSAGES: &str =
    "awk '/ITS.*-req/ { n += $2 + $3 > 0 } END { print \"messages: \" n }' /proc/interrupts";

const WORDS: &str = "console=ttyAMA0 quiet shell";

/// Of the state.
fn sum(host: &mut Host) -> Result<String> {
    let told = host.ask("md5sum <state", 0)?;
    let word = told.split_whitespace().find(|w| w.len() == 32 && w.bytes().all(|b| b.is_ascii_hexdigit()));
    Ok(word.context("no sum")?.to_owned())
}

fn files() -> String {
    let folder = folder(Version::V6_12);
    format!("--kernel {folder}/Image --initrd {folder}/initrd")
}

fn machine(linux: &Linux, armlet: &Path, folder: &Folder, socket: &Socket) -> Result<Command> {
    let image = folder.path("image");
    File::create(&image)?.set_len(DISK)?;
    let mut c = linux.command(armlet, 2, "quiet shell");
    c.args(["--cpu", CPU, "--memory", MEMORY])
        .arg("--drive")
        .arg(drive(&image))
        .arg("--qmp")
        .arg(socket.option());
    Ok(c)
}

/// Up to the shell, with a counter that runs.
fn begin(c: &mut Command) -> Result<Session> {
    let mut s = Session::start(c, LIMIT, false)?;
    s.wait_for(PROMPT).context("no shell prompt")?;
    s.send_line(saved::COUNTER)?;
    s.wait_for(PROMPT)?;
    Ok(s)
}

fn finish(s: Session, expected: i32) -> Result<()> {
    let (status, transcript) = s.finish()?;
    if status.code() != Some(expected) {
        bail!("armlet ended with {status}, not {expected}");
    }
    boot::complaints(&transcript)
}

fn write_life(s: &mut Session, life: u32) -> Result<()> {
    let write =
        format!("echo life {life} | dd of=/dev/vda bs=512 seek={life} conv=sync,fsync 2>/dev/null; echo $?");
    boot::ask(s, &write, "0")
}

fn read_life(life: u32) -> String {
    format!("dd if=/dev/vda bs=512 skip={life} count=1 iflag=direct 2>/dev/null")
}

fn goes_on(past: (u64, f64), now: (u64, f64)) -> Result<()> {
    if now.0 <= past.0 || now.1 < past.1 || now.1 > past.1 + 60.0 {
        bail!("counter and clock were {past:?}, and are {now:?}");
    }
    Ok(())
}

/// One life of the guest with KVM; it is saved to `out` at the end. What it had counted by then.
fn live(host: &mut Host, guest: &str, past: (u64, f64), life: u32) -> Result<(u64, f64)> {
    // The console is the guest's; its disk tells when.
    let wait = format!("while ! head -c 10 image | grep -q {SIGNAL}; do sleep 0.3; done");
    host.ask(
        &format!("rm -f out; ({wait}; armlet ctl qmp save out --quit >said 2>&1; echo $? >>said) & true"),
        0,
    )?;
    let s = host.session();
    s.send_line(&format!("armlet run --accel kvm {guest} --qmp unix:qmp; echo \"end\"\"=$?=\""))?;
    if past.0 == 0 {
        s.wait_for(PROMPT).context("no shell in the guest")?;
        s.send_line(saved::COUNTER)?;
    } else {
        // Typed ahead, for whoever reads it then.
        s.send_line("")?;
    }
    s.wait_for(PROMPT).context("no shell in the guest")?;
    let now = look(s)?;
    if past.0 != 0 {
        goes_on(past, now)?;
        (1..life).try_for_each(|before| boot::ask(s, &read_life(before), &format!("life {before}")))?;
    }
    write_life(s, life)?;
    boot::ask(s, MESSAGES, "messages: 1")?;
    boot::ask(s, "dmesg | grep -c 'ITS@.*Devices'", "1")?;
    let timers = "a=$(cut -d. -f1 /proc/uptime); sleep 1; b=$(cut -d. -f1 /proc/uptime); \
                  [ $((b - a)) -ge 1 ] && echo clock\" \"goes";
    boot::ask(s, timers, "clock goes")?;
    let now = look(s)?;
    s.send_line(&format!("echo {SIGNAL} | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null"))?;
    s.wait_for("end=")?;
    let status = s.wait_for("=")?;
    host.prompt()?;
    let said = host.ask("wait; cat said", 0)?;
    if status != "1" || !said.lines().any(|line| line == "0") {
        bail!("it was to be saved and to end with status 1, not {status}:\n{said}");
    }
    Ok(now)
}

/// What does not fit is named, with status 2, and no machine is made.
fn refusals(host: &mut Host) -> Result<()> {
    let files = files();
    let cases = [
        ("state", "--memory 512M", "--memory was '256M' and is '512M'"),
        ("state", "--smp 1", "--smp was"),
        ("state", "--console virtio", "--console was"),
        ("state", "--append other", "--append was"),
        ("state", "--cpu host", "CTR_EL0 of the CPU was '0x8444c004'"),
        ("state", "--cpu neoverse-n1,lse=off", "ID_AA64ISAR0_EL1 of the CPU was"),
        ("state", "--cpu cortex-a76", "MIDR_EL1[15:4]"),
        // Lines of a size that no part has.
        ("plain", "", "CTR_EL0 of the CPU was"),
    ];
    for (state, options, words) in cases {
        let rest = match state {
            "state" => format!("{files} --drive image,bus=pci"),
            _ => format!("--kernel {}/Image", folder(Version::V6_12)),
        };
        let told =
            host.ask(&format!("armlet run --accel kvm --restore {state} {rest} {options} </dev/null"), 2)?;
        if !told.contains(words) {
            bail!("`{options}` does not tell of {words:?}, but:\n{told}");
        }
    }
    let flip = "cat state >bad; echo flip | dd of=bad bs=1 seek=200000 conv=notrunc";
    for change in ["head -c 100000 state >bad", flip] {
        let line = format!(
            "{change}; armlet run --accel kvm --restore bad {files} --drive image,bus=pci </dev/null"
        );
        let told = host.ask(&line, 2)?;
        if !told.contains("bad' cannot be restored") {
            bail!("what `{change}` makes is not refused, but:\n{told}");
        }
    }
    println!("states that do not fit: ok");
    Ok(())
}
