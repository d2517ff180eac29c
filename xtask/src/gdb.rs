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
use crate::session::Session as Guest;
use crate::{host, run};

const CPUS: u32 = 4;
/// Of the kernel's command line.
const WORDS: &str = "quiet shell";
/// Seconds after which gdb is given up, without its steps.
const LIMIT: u32 = 150;
/// Steps that gdb manages in a second on a busy host, at least.
const STEPS_A_SECOND: u32 = 20;
/// What the guest's kernel is asked for.
const SYMBOLS: [&str; 11] = [
    "_stext",
    "_etext",
    "_einittext",
    "vectors",
    "jiffies",
    "linux_banner",
    "start_kernel",
    "secondary_start_kernel",
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
    /// Steps through an interrupt's handler and on
    #[arg(long, default_value_t = 10_000)]
    pub steps: u32,
}

/// A session, and who is at the other end.
#[derive(Clone, Copy, Default)]
struct Session {
    steps: u32,
    /// QEMU is.
    reference: bool,
    /// Tells all registers at many places.
    transcript: bool,
    /// KVM executes the guest, on a host that is emulated itself.
    kvm: bool,
}

impl Session {
    fn limit(self) -> u32 {
        (LIMIT + self.steps / STEPS_A_SECOND) * if self.kvm { 6 } else { 1 }
    }

    /// What the scripts are told.
    fn settings(self) -> Vec<(String, String)> {
        let mut settings = vec![("DEBUG_STEPS".to_owned(), self.steps.to_string())];
        let flags = [
            ("DEBUG_REFERENCE", self.reference),
            ("DEBUG_TRANSCRIPT", self.transcript),
            ("DEBUG_KVM", self.kvm),
        ];
        settings.extend(flags.iter().filter(|(_, on)| *on).map(|(name, _)| ((*name).into(), "1".into())));
        settings
    }
}

/// Runs the command.
///
/// # Errors
/// gdb has seen something that is not as it should be.
pub fn main(o: &Options) -> Result<()> {
    host::ensure(host::TEST)?;
    let armlet = run::build_armlet()?;
    let session = Session { steps: o.steps, transcript: o.reference, ..Session::default() };
    if o.reference {
        return compare(&armlet, session);
    }
    print!("{}{}", steps(&bare(&armlet, session)?), steps(&linux(&armlet, o.steps)?));
    print!("{}", steps(&backwards(&armlet)?));
    run::say("gdb has no complaint");
    Ok(())
}

/// gdb with one of our scripts.
struct Client<'a> {
    session: Session,
    script: &'static str,
    address: PathBuf,
    /// The program with its symbols.
    program: Option<&'a Path>,
    /// For the script, beside the session's.
    more: Vec<(String, String)>,
}

impl Client<'_> {
    /// Holds the session; what the script has written.
    fn run(&self) -> Result<String> {
        // gdb itself waits for ever where a machine is silent.
        let limit = self.session.limit().to_string();
        let mut c = run::command("timeout", ["--kill-after=5", &limit, "gdb-multiarch", "-nx", "-batch"]);
        c.arg("-x").arg(run::root().join("xtask/gdb").join(self.script)).args(self.program);
        c.env("DEBUG_ADDRESS", &self.address).env("PYTHONDONTWRITEBYTECODE", "1");
        c.envs(self.session.settings()).envs(self.more.iter().map(|(name, value)| (name, value)));
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

/// The program for [`with_kvm`].
///
/// # Errors
/// It cannot be built.
pub fn program() -> Result<PathBuf> {
    Ok(guest()?.elf().to_owned())
}

/// A session with the bare-metal program, which KVM executes with 2 CPUs and which waits at `address`.
///
/// # Errors
/// gdb has seen something that is not as it should be.
pub fn with_kvm(address: &str) -> Result<()> {
    let session = Session { kvm: true, ..Session::default() };
    let program = program()?;
    let (address, program) = (address.into(), Some(&*program));
    Client { session, script: "bare.py", address, program, more: Vec::new() }.run().map(drop)
}

/// A session with a bare-metal program, from its first instruction to its end.
///
/// # Errors
/// gdb has seen something that is not as it should be.
pub fn bare_metal(armlet: &Path) -> Result<()> {
    bare(armlet, Session::default()).map(drop)
}

fn bare(armlet: &Path, session: Session) -> Result<String> {
    let (guest, socket) = (guest()?, Socket::new("gdb")?);
    let mut c = guest.armlet(armlet);
    c.args(["--paused", "--timeout", &session.limit().to_string(), "--gdb", &socket.option()]);
    c.stderr(std::process::Stdio::null());
    let (text, status) = hold(&mut c, &guest, &socket, session)?;
    // The status that gdb has told the program to end with.
    if status != Some(3) {
        bail!("armlet ended with {status:?}");
    }
    Ok(text)
}

/// Holds the session with the bare-metal program that `c` runs: what was written, and the exit status.
fn hold(
    c: &mut Command,
    guest: &TestGuest,
    socket: &Socket,
    session: Session,
) -> Result<(String, Option<i32>)> {
    let machine = Guest::start(c, Duration::from_secs(u64::from(session.limit()) + 10), false)?;
    let program = Some(guest.elf());
    let client = Client { session, script: "bare.py", address: socket.path(), program, more: Vec::new() };
    Ok((client.run()?, machine.finish()?.0.code()))
}

/// Debian's kernel with 4 CPUs: from its first instruction, idle, busy, and once more from its start, with so many
/// steps through interrupts. What the sessions have written.
///
/// # Errors
/// gdb has seen something that is not as it should be.
pub fn linux(armlet: &Path, steps: u32) -> Result<String> {
    let (linux, socket) = (Linux::prepare(Version::V6_12)?, Socket::new("gdb-linux")?);
    let mut c = linux.command(armlet, CPUS, WORDS);
    c.args(["--paused", "--gdb", &socket.option()]).stderr(std::process::Stdio::null());
    let session = Session { steps, ..Session::default() };
    sessions_with_linux(&mut c, &socket, &linux.map(armlet)?, session)
}

/// Debian's kernel with 4 CPUs that share a thread: forwards, backwards to its beginning, and to its end after all.
///
/// # Errors
/// gdb has seen something that is not as it should be.
pub fn backwards(armlet: &Path) -> Result<String> {
    let (linux, socket) = (Linux::prepare(Version::V6_12)?, Socket::new("gdb-back")?);
    let mut c = linux.command(armlet, CPUS, WORDS);
    c.args(["--accel", "jit,thread=single,sleep=off", "--paused", "--gdb", &socket.option()]);
    c.stderr(std::process::Stdio::null());
    let session = Session { steps: 40, ..Session::default() };
    let mut s = Guest::start(&mut c, Duration::from_secs(u64::from(2 * session.limit())), false)?;
    let more = symbols(&linux.map(armlet)?)?;
    let text = Client { session, script: "reverse.py", address: socket.path(), program: None, more }.run()?;
    s.wait_for(PROMPT).context("the guest does not come to its shell after all")?;
    s.send_line("poweroff -f")?;
    match s.finish()?.0.code() {
        Some(0) => Ok(text),
        other => bail!("armlet ended with {other:?}"),
    }
}

/// From the first instruction of a kernel that waits for gdb to its end.
fn sessions_with_linux(c: &mut Command, socket: &Socket, map: &Path, session: Session) -> Result<String> {
    let symbols = symbols(map)?;
    let phase = |phase: &str| {
        let mut more = symbols.clone();
        more.push(("DEBUG_PHASE".into(), phase.into()));
        Client { session, script: "linux.py", address: socket.path(), program: None, more }.run()
    };
    let mut s = Guest::start(c, Duration::from_secs(u64::from(4 * session.limit())), false)?;
    let mut text = phase("boot")?;
    s.wait_for(PROMPT).context("no shell prompt")?;
    text += &phase("idle")?;
    s.send_line("for i in 1 2 3 4; do while :; do :; done & done")?;
    s.wait_for(PROMPT)?;
    text += &phase("busy")?;
    s.send_line("kill %1 %2 %3 %4; wait")?;
    s.wait_for(PROMPT).context("the guest does not go on after the debugger")?;
    if !session.reference {
        // Resets the machine, and leaves it at the start of the kernel.
        text += &phase("reset")?;
        s.wait_for(PROMPT).context("no shell prompt after the reset")?;
    }
    s.send_line("poweroff -f")?;
    let (status, transcript) = s.finish()?;
    if status.code() != Some(0) {
        bail!("the machine ended with {status}");
    }
    crate::boot::complaints(&transcript)?;
    Ok(text)
}

/// Addresses of what the scripts want to know, out of a System.map.
fn symbols(map: &Path) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(map)?;
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [address, _, name] = words.as_slice()
            && SYMBOLS.contains(name)
        {
            found.push((format!("DEBUG_SYMBOL_{name}"), format!("0x{address}")));
        }
    }
    match found.len() {
        n if n == SYMBOLS.len() => Ok(found),
        _ => bail!("{} does not have all of {SYMBOLS:?}", map.display()),
    }
}

/// The same sessions with us and with QEMU, and what gdb shows of the registers in both.
fn compare(armlet: &Path, ours: Session) -> Result<()> {
    let (guest, peer) = (guest()?, Peer::prepare()?);
    run::say(&format!("comparing with {}", peer.version()?));
    let theirs = Session { reference: true, ..ours };
    let socket = Socket::new("gdb-theirs")?;
    let mut c = peer.debugged(guest.elf(), guest.smp(), &socket.path());
    let (other, _) = hold(&mut c, &guest, &socket, theirs)?;
    // System registers have values of the implementation's choice.
    Comparison::new(&bare(armlet, ours)?, &other, &[]).judge("the bare-metal program", 1000)?;

    let (linux, socket) = (Linux::prepare(Version::V6_12)?, Socket::new("gdb-linux-ours")?);
    let map = linux.map(armlet)?;
    let mut c = linux.command(armlet, CPUS, WORDS);
    c.args(["--paused", "--gdb", &socket.option()]).stderr(std::process::Stdio::null());
    let text = sessions_with_linux(&mut c, &socket, &map, ours)?;
    let socket = Socket::new("gdb-linux-theirs")?;
    let mut c = peer.debugged_linux(&linux, CPUS, WORDS, &socket.path());
    let other = sessions_with_linux(&mut c, &socket, &map, theirs)?;
    Comparison::new(&text, &other, MOVED).judge("Linux", 1000)
}

/// A register that holds an address which the loader or the kernel has chosen: what must be the same about it.
struct Moved {
    place: &'static str,
    register: &'static str,
    same: fn(value: u64, at: At<'_>) -> Option<u64>,
}

/// The value of a register at the same place.
type At<'a> = &'a dyn Fn(&str) -> Option<u64>;

/// Where the loader puts the kernel and its device tree is its own choice, and where the kernel has its stacks and
/// tasks depends on it.
const MOVED: &[Moved] = &[
    // The device tree, which the script looks at.
    Moved { place: "start_kernel", register: "x21", same: |value, _| Some(value % 8) },
    // A physical address inside the kernel: the same virtual one, which is X4 further.
    Moved { place: "start_kernel", register: "x3", same: |value, at| Some(value.wrapping_add(at("x4")?)) },
    // From the kernel's physical addresses to its virtual ones: it is loaded at multiples of 2 MiB.
    Moved { place: "start_kernel", register: "x4", same: |value, _| Some(value % (2 << 20)) },
    // Stacks have 16 KiB.
    Moved { place: "CPU ", register: "sp", same: |value, _| Some(value % (16 << 10)) },
    Moved { place: "CPU ", register: "x29", same: |value, _| Some(value % (16 << 10)) },
    // The CPU's own variables and its task are also in system registers.
    Moved { place: "CPU ", register: "x1", same: |value, at| Some(value.wrapping_sub(at("SYS TPIDR_EL1")?)) },
    Moved { place: "CPU ", register: "x2", same: |value, at| Some(value.wrapping_sub(at("SYS SP_EL0")?)) },
];

/// Values by where and in which register they were.
type Registers = BTreeMap<String, String>;

impl Moved {
    /// True if this is about `place`, and holds of both.
    fn is_same(&self, place: &str, ours: &Registers, theirs: &Registers) -> bool {
        let Some((at, register)) = place.rsplit_once(' ') else { return false };
        if !at.starts_with(self.place) || register != self.register {
            return false;
        }
        let form = |all: &Registers| {
            let value = |name: &str| all.get(&format!("{at} {name}")).and_then(|v| number(v));
            (self.same)(value(register)?, &value)
        };
        form(ours).is_some_and(|ours| Some(ours) == form(theirs))
    }
}

/// A hexadecimal number.
fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Values that two implementations show.
#[derive(Default)]
struct Comparison {
    same: usize,
    /// Addresses that are the same but for where things are.
    moved: usize,
    /// By register: both values, and where.
    differ: BTreeMap<String, Vec<String>>,
}

impl Comparison {
    fn new(ours: &str, theirs: &str, moved: &[Moved]) -> Self {
        theirs.lines().filter(|l| l.starts_with("the reference differs")).for_each(|line| println!("{line}"));
        let theirs: Registers = theirs.lines().filter_map(register).collect();
        let ours: Registers = ours.lines().filter_map(register).collect();
        let mut all = Self::default();
        for (place, value) in &ours {
            match theirs.get(place) {
                Some(other) if other == value => all.same += 1,
                Some(_) if moved.iter().any(|m| m.is_same(place, &ours, &theirs)) => all.moved += 1,
                Some(other) => {
                    let name = place.rsplit(' ').next().unwrap_or_default().to_owned();
                    let told = format!("{value} here, {other} there, at {place}");
                    all.differ.entry(name).or_default().push(told);
                }
                None => {}
            }
        }
        all
    }

    /// Shows what differs; nothing but system registers may.
    fn judge(&self, what: &str, least: usize) -> Result<()> {
        for (name, values) in &self.differ {
            println!("{name}: {}, and {} more", values[0], values.len() - 1);
        }
        let moved = match self.moved {
            0 => String::new(),
            n => format!(", and {n} addresses of what each has elsewhere"),
        };
        run::say(&format!("{what}: {} values are the same{moved}", self.same));
        let general =
            self.differ.keys().filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).count();
        if general == 0 && self.same > least { Ok(()) } else { bail!("{general} general registers differ") }
    }
}

/// A line of the transcript: where and which register, and its value.
fn register(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("reg ")?.split_once(" = ")?;
    Some((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str =
        "reg start_kernel x3 = 0x41891000\nreg start_kernel x4 = 0xffff800040000000\nreg CPU 1 x5 = 0x1";

    fn compared(theirs: &str) -> Comparison {
        Comparison::new(OURS, theirs, MOVED)
    }

    #[test]
    fn addresses_may_move_and_nothing_else_may() {
        let moved = compared(
            "reg start_kernel x3 = 0x41a91000\nreg start_kernel x4 = 0xffff80003fe00000\nreg CPU 1 x5 = 0x1",
        );
        assert_eq!((moved.same, moved.moved, moved.differ.len()), (1, 2, 0));
        let elsewhere = compared(
            "reg start_kernel x3 = 0x41a92000\nreg start_kernel x4 = 0xffff80003fe00000\nreg CPU 1 x5 = 0x2",
        );
        assert_eq!((elsewhere.same, elsewhere.moved, elsewhere.differ.len()), (0, 1, 2));
    }
}
