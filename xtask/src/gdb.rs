//! `cargo xtask gdb`: Debian's gdb drives machines by script, and knows nothing of us.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::peer::Peer;
use crate::boot::{Linux, PROMPT};
use crate::guests::{self, TestGuest};
use crate::kernel::Version;
use crate::qmp::Socket;
use crate::session::Session;
use crate::{host, run};

const CPUS: u32 = 4;
/// Seconds after which gdb is given up.
const LIMIT: &str = "150";
/// What the guest's kernel is asked for.
const SYMBOLS: [&str; 9] = [
    "_stext",
    "_etext",
    "vectors",
    "jiffies",
    "linux_banner",
    "start_kernel",
    "el1h_64_irq_handler",
    "el0t_64_irq_handler",
    "cpu_do_idle",
];

/// What to do.
#[derive(Args)]
pub struct Options {
    /// Hold the same sessions with QEMU (fetches it), and compare the registers that gdb shows
    #[arg(long)]
    pub reference: bool,
}

/// Runs the command.
///
/// # Errors
/// gdb has seen something that is not as it should be.
pub fn main(o: &Options) -> Result<()> {
    host::ensure(host::TEST)?;
    let armlet = run::build_armlet()?;
    if o.reference {
        return compare(&armlet);
    }
    print!("{}{}", steps(&bare(&armlet)?), steps(&linux(&armlet)?));
    run::say("gdb has no complaint");
    Ok(())
}

/// gdb with one of our scripts.
struct Client<'a> {
    script: &'static str,
    address: PathBuf,
    /// The program with its symbols.
    program: Option<&'a Path>,
    /// For the script.
    settings: Vec<(String, String)>,
}

impl Client<'_> {
    /// Holds the session; what the script has written.
    fn run(&self) -> Result<String> {
        // gdb itself waits for ever where a machine is silent.
        let mut c = run::command("timeout", ["--kill-after=5", LIMIT, "gdb-multiarch", "-nx", "-batch"]);
        c.arg("-x").arg(run::root().join("xtask/gdb").join(self.script)).args(self.program);
        c.env("DEBUG_ADDRESS", &self.address).env("PYTHONDONTWRITEBYTECODE", "1");
        c.envs(self.settings.iter().map(|(name, value)| (name, value)));
        let text = run::quiet(&mut c)?;
        if !text.ends_with("all is well\n") {
            bail!("gdb has not come to the end of {}:\n{text}", self.script);
        }
        Ok(text)
    }
}

/// What a session has told of its steps.
fn steps(text: &str) -> String {
    text.lines().filter(|l| l.starts_with("ok ") || l.starts_with('·')).map(|l| format!("{l}\n")).collect()
}

/// The program that was written for it.
fn guest() -> Result<TestGuest> {
    let all = guests::build_tests()?;
    all.into_iter().find(|g| g.name == "gdb").context("there is no guests/tests/gdb.c")
}

/// A session with a bare-metal program, from its first instruction to its end.
///
/// # Errors
/// gdb has seen something that is not as it should be.
pub fn bare(armlet: &Path) -> Result<String> {
    let (guest, socket) = (guest()?, Socket::new("gdb")?);
    let mut c = guest.armlet(armlet);
    c.args(["--paused", "--timeout", LIMIT, "--gdb", &socket.option()]).stderr(std::process::Stdio::null());
    let session = Session::start(&mut c, Duration::from_secs(160), false)?;
    let program = Some(guest.elf());
    let text = Client { script: "bare.py", address: socket.path(), program, settings: Vec::new() }.run()?;
    // The status that gdb has told the program to end with.
    match session.finish()?.0.code() {
        Some(3) => Ok(text),
        other => bail!("armlet ended with {other:?}"),
    }
}

/// Debian's kernel with 4 CPUs: idle, busy, and from its start.
///
/// # Errors
/// gdb has seen something that is not as it should be.
pub fn linux(armlet: &Path) -> Result<String> {
    let (linux, socket) = (Linux::prepare(Version::V6_12)?, Socket::new("gdb-linux")?);
    let mut c = linux.command(armlet, CPUS, "quiet shell");
    c.args(["--gdb", &socket.option()]);
    let mut s = Session::start(&mut c, Duration::from_secs(300), false)?;
    s.wait_for(PROMPT).context("no shell prompt")?;
    let symbols = symbols(&mut s)?;
    let session = |phase: &str| {
        let mut settings = symbols.clone();
        settings.push(("DEBUG_PHASE".into(), phase.into()));
        Client { script: "linux.py", address: socket.path(), program: None, settings }.run()
    };
    let mut text = session("idle")?;
    s.send_line("for i in 1 2 3 4; do while :; do :; done & done")?;
    s.wait_for(PROMPT)?;
    text += &session("busy")?;
    s.send_line("kill %1 %2 %3 %4; wait")?;
    s.wait_for(PROMPT).context("the guest does not go on after the debugger")?;
    // The last one resets the machine, and leaves it at the start of the kernel.
    text += &session("reset")?;
    s.wait_for(PROMPT).context("no shell prompt after the reset")?;
    s.send_line("poweroff -f")?;
    let (status, transcript) = s.finish()?;
    if status.code() != Some(0) {
        bail!("armlet ended with {status}");
    }
    crate::boot::complaints(&transcript)?;
    Ok(text)
}

/// Addresses in the running kernel, as the kernel itself tells them: Debian's package has no map of them.
fn symbols(s: &mut Session) -> Result<Vec<(String, String)>> {
    s.send_line(&format!("grep -E ' ({})$' /proc/kallsyms", SYMBOLS.join("|")))?;
    let listing = s.wait_for(PROMPT).context("no answer from /proc/kallsyms")?;
    let mut found = Vec::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [address, _, name] = words.as_slice()
            && SYMBOLS.contains(name)
        {
            found.push((format!("DEBUG_SYMBOL_{name}"), format!("0x{address}")));
        }
    }
    match found.len() {
        n if n == SYMBOLS.len() => Ok(found),
        _ => bail!("the kernel does not tell all of {SYMBOLS:?}: {listing}"),
    }
}

/// The same session with us and with QEMU, and what gdb shows of the registers in both.
fn compare(armlet: &Path) -> Result<()> {
    let (guest, peer) = (guest()?, Peer::prepare()?);
    run::say(&format!("comparing with {}", peer.version()?));
    let show = |mut c: Command, socket: &Socket, more: &[(&str, &str)]| -> Result<BTreeMap<String, String>> {
        let _session = Session::start(&mut c, Duration::from_secs(160), false)?;
        let mut settings = vec![("DEBUG_TRANSCRIPT".to_owned(), "1".to_owned())];
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let program = Some(guest.elf());
        let text = Client { script: "bare.py", address: socket.path(), program, settings }.run()?;
        let told = text.lines().filter(|l| l.starts_with("the reference differs"));
        told.for_each(|line| println!("{line}"));
        Ok(text.lines().filter_map(register).collect())
    };
    let (socket, other) = (Socket::new("gdb-ours")?, Socket::new("gdb-theirs")?);
    let mut c = guest.armlet(armlet);
    c.args(["--paused", "--gdb", &socket.option()]);
    let ours = show(c, &socket, &[])?;
    let theirs =
        show(peer.debugged(guest.elf(), guest.smp(), &other.path()), &other, &[("DEBUG_REFERENCE", "1")])?;
    let mut differ: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut same = 0;
    for (place, value) in &ours {
        match theirs.get(place) {
            Some(other) if other == value => same += 1,
            Some(other) => {
                let name = place.rsplit(' ').next().unwrap_or_default();
                differ.entry(name).or_default().push(format!("{value} here, {other} there"));
            }
            None => {}
        }
    }
    for (name, values) in &differ {
        println!("{name}: {}, and {} more", values[0], values.len() - 1);
    }
    run::say(&format!("{same} values are the same"));
    // System registers have values of the implementation's choice.
    let general = differ.keys().filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).count();
    if general == 0 && same > 1000 { Ok(()) } else { bail!("{general} general registers differ") }
}

/// A line of the transcript: where and which register, and its value.
fn register(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("reg ")?.split_once(" = ")?;
    Some((name.to_owned(), value.to_owned()))
}
