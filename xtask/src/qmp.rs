//! `cargo xtask qmp`: machines driven by the public QMP client, which knows nothing of us.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::peer::Peer;
use crate::boot::{self, Linux, PROMPT};
use crate::kernel::Version;
use crate::session::Session;
use crate::{cache, host, run};

/// The client's version, which names its folder.
const CLIENT: &str = "qemu.qmp==0.0.6";
/// Longest wait for a machine's socket.
const PATIENCE: Duration = Duration::from_secs(20);
const CPUS: u32 = 4;

/// What to do.
#[derive(Args)]
pub struct Options {
    /// Compare answers, events and schema with QEMU's (fetches it)
    #[arg(long)]
    pub reference: bool,
    /// Let several clients loose on a booting Linux for so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub storm: Option<u64>,
    /// What the storm is made from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Runs the command.
///
/// # Errors
/// Something was not as the client expects it.
pub fn main(o: &Options) -> Result<()> {
    host::ensure(host::TEST)?;
    let armlet = run::build_armlet()?;
    if o.reference {
        compare(&armlet)?;
        run::say("answers, events and schema are the reference's");
        return Ok(());
    }
    if let Some(seconds) = o.storm {
        storm(&armlet, seconds, o.seed)?;
        run::say("the machine has come through");
        return Ok(());
    }
    drive_linux(&armlet)?;
    drive_dummy(&armlet)?;
    run::say("the client has no complaint");
    Ok(())
}

/// The Python that has the client, made in the cache folder if it is not there.
///
/// # Errors
/// It cannot be fetched.
pub fn client() -> Result<PathBuf> {
    let folder = cache::folder()?.join("tools").join(CLIENT);
    cache::once(&folder, |partial| {
        run::say("fetching the public QMP client, once");
        host::ensure(host::TEST)?;
        host::ensure_working(&mut run::command("python3", ["-c", "import ensurepip, venv"]), "python3-venv")?;
        run::quiet(run::command("python3", ["-m", "venv"]).arg(partial))?;
        let python = partial.join("bin/python");
        run::quiet(&mut run::command(&python.to_string_lossy(), ["-m", "pip", "install", "-q", CLIENT]))?;
        Ok(())
    })?;
    Ok(folder.join("bin/python"))
}

/// A folder with a socket in it, removed at the end.
pub struct Socket(PathBuf);

impl Socket {
    /// In a folder of this name.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("armlet-xtask-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// Where it will be.
    pub fn path(&self) -> PathBuf {
        self.0.join("socket")
    }

    /// Waits until somebody listens.
    ///
    /// # Errors
    /// Nobody does.
    pub fn wait(&self) -> Result<()> {
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.path()).is_err() {
            if start.elapsed() > PATIENCE {
                bail!("nobody listens at {}", self.path().display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// As an option of `armlet run`.
    pub fn option(&self) -> String {
        format!("unix:{}", self.path().display())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The client's side of one stage.
fn stage(socket: &Path, name: &str, argument: &str) -> Result<Command> {
    let script = run::root().join("xtask/qmp/client.py");
    let mut c = run::command(&client()?.to_string_lossy(), [&script]);
    c.arg(name).arg(socket).arg(argument);
    Ok(c)
}

fn act(socket: &Path, name: &str, argument: &str) -> Result<()> {
    run::quiet(&mut stage(socket, name, argument)?).map(drop)
}

/// Does `action` while a client listens for the event `expected` (its name and reason), which it must bring.
fn hear(socket: &Path, expected: &str, action: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut child = stage(socket, "hear", expected)?.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no pipe from the client")?).read_line(&mut line)?;
    action()?;
    let status = child.wait()?;
    if !status.success() {
        bail!("the client did not hear {expected}: {status}");
    }
    Ok(())
}

/// Debian's kernel with 4 CPUs: stopped, resumed, given a CPU, reset and watched by the client.
///
/// # Errors
/// Something was not as it should be.
pub fn drive_linux(armlet: &Path) -> Result<()> {
    let linux = Linux::prepare(Version::V6_12)?;
    let socket = Socket::new("linux")?;
    let mut c = linux.command(armlet, format!("{CPUS},max={}", CPUS + 1), "quiet shell");
    c.arg("--qmp").arg(socket.option());
    let mut s = Session::start(&mut c, Duration::from_secs(180), false)?;
    s.wait_for(PROMPT).context("no shell prompt")?;
    let socket = socket.path();
    act(&socket, "look", &CPUS.to_string())?;

    act(&socket, "stop", "")?;
    s.send_line("echo $((6 * 7))")?;
    s.quiet_for(Duration::from_millis(300))?;
    if s.has_said("42") {
        bail!("a stopped machine computes");
    }
    act(&socket, "cont", "")?;
    s.wait_for("42")?;
    s.wait_for(PROMPT)?;
    act(&socket, "powerdown", "")?;
    plug_and_unplug(&mut s, &socket)?;

    act(&socket, "reset", "")?;
    s.wait_for(PROMPT).context("no shell prompt after the client's reset")?;
    boot::ask(&mut s, "cat /sys/devices/system/cpu/online", "0-4").context("a plugged CPU stays")?;
    hear(&socket, "RESET:guest-reset", || s.send_line("reboot -f"))?;
    s.wait_for(PROMPT).context("no shell prompt after the guest's reset")?;
    hear(&socket, "SHUTDOWN:guest-shutdown", || s.send_line("poweroff -f"))?;
    let (status, transcript) = s.finish()?;
    if status.code() != Some(0) {
        bail!("armlet ended with {status}");
    }
    boot::complaints(&transcript)
}

/// Several clients stop, resume, reset, plug and unplug at random while Debian's kernel boots and runs, which it must
/// survive.
///
/// # Errors
/// It does not, or a client was answered badly.
pub fn storm(armlet: &Path, seconds: u64, seed: u64) -> Result<()> {
    let linux = Linux::prepare(Version::V6_12)?;
    let socket = Socket::new("storm")?;
    let mut c = linux.command(armlet, format!("{CPUS},max={}", CPUS + 2), "quiet shell");
    c.arg("--qmp").arg(socket.option());
    let mut s = Session::start(&mut c, Duration::from_secs(180 + 2 * seconds), false)?;
    socket.wait()?;
    act(&socket.path(), "storm", &format!("{seconds}:{seed}")).context("the storm")?;
    // Whatever state the storm has left the guest in, it boots once more.
    act(&socket.path(), "reset", "")?;
    s.quiet_for(Duration::from_millis(500))?;
    s.forget();
    s.wait_for(PROMPT).context("no shell prompt after the storm")?;
    boot::ask(&mut s, "echo $((6 * 7))", "42")?;
    s.send_line("poweroff -f")?;
    let (status, transcript) = s.finish()?;
    if status.code() != Some(0) {
        bail!("armlet ended with {status}");
    }
    boot::complaints(&transcript)
}

/// A CPU more, and one less, twice, with Linux switching it on and off.
fn plug_and_unplug(s: &mut Session, socket: &Path) -> Result<()> {
    let cpu = format!("/sys/devices/system/cpu/cpu{CPUS}/online");
    let online = "cat /sys/devices/system/cpu/online";
    boot::ask(s, online, "0-3")?;
    for _ in 0..2 {
        boot::ask(s, &format!("echo 1 >{cpu}; echo $?"), "1").context("an empty place has no CPU")?;
        act(socket, "plug", &CPUS.to_string())?;
        boot::ask(s, &format!("echo 1 >{cpu}; {online}"), "0-4")?;
        boot::ask(s, "taskset 10 sh -c 'echo $((6 * 7))'", "42").context("the new CPU does not compute")?;
        act(socket, "keep", &CPUS.to_string()).context("a CPU in use")?;
        boot::ask(s, &format!("echo 0 >{cpu}; {online}"), "0-3")?;
        act(socket, "unplug", &CPUS.to_string())?;
        if threads(s.process())?.iter().any(|name| name.starts_with("CPU 4/")) {
            bail!("the thread of a CPU that was unplugged is still there");
        }
    }
    act(socket, "plug", &CPUS.to_string())
}

/// Names of a process's threads.
fn threads(process: u32) -> Result<Vec<String>> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"))?;
    Ok(tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok()).collect())
}

/// A process that must not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts `c` and waits until it listens at `socket`.
    fn start(c: &mut Command, socket: &Socket) -> Result<Self> {
        let running = Self(c.spawn().with_context(|| format!("cannot run `{}`", run::line(c)))?);
        socket.wait()?;
        Ok(running)
    }
}

fn dummy(armlet: &Path, smp: u32, socket: &Socket) -> Command {
    let mut c = run::command(&armlet.to_string_lossy(), ["run", "--accel", "dummy", "--memory", "64M"]);
    c.args(["--paused", "--serial", "none", "--timeout", "120", "--smp", &smp.to_string()]);
    c.arg("--qmp").arg(socket.option()).stderr(Stdio::null());
    c
}

/// A machine that executes nothing, started and ended by the client.
///
/// # Errors
/// Something was not as it should be.
pub fn drive_dummy(armlet: &Path) -> Result<()> {
    let socket = Socket::new("dummy")?;
    let mut machine = Running::start(&mut dummy(armlet, 1, &socket), &socket)?;
    act(&socket.path(), "cont", "")?;
    act(&socket.path(), "quit", "")?;
    let status = machine.0.wait()?;
    if status.code() != Some(1) || socket.path().exists() {
        bail!("armlet ended with {status}, its socket is there: {}", socket.path().exists());
    }
    Ok(())
}

/// The same requests to QEMU: the same answers and events; and what we tell of ourselves is true of it.
fn compare(armlet: &Path) -> Result<()> {
    let (ours, theirs) = (Socket::new("ours")?, Socket::new("theirs")?);
    let peer = Peer::prepare()?;
    run::say(&format!("comparing with {}", peer.version()?));
    let _armlet = Running::start(&mut dummy(armlet, 2, &ours), &ours)?;
    let _peer = Running::start(&mut peer.control(2, &theirs.path()), &theirs)?;
    act(&ours.path(), "compare", &theirs.path().to_string_lossy())
}
