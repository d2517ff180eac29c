//! Latencies: how soon vCPUs give their attention. What the peer can be asked from outside is asked of both, by turns.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::figures::median;
use super::peer::Peer;
use super::promises::Promise;
use crate::qmp::Socket;
use crate::session::Session;
use crate::{guests, run};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// CPUs that compute while the machine is stopped.
const BUSY: &str = "8";
/// Stops of each machine in a turn, and turns.
const STOPS: (usize, usize) = (40, 5);
/// Runs of the guest that sleeps, of each.
const SLEEPS: usize = 5;

/// Measures all of them; compares with the peer if there is one.
///
/// # Errors
/// A guest could not be built or run.
pub fn measure(armlet: &Path, peer: Option<&Peer>) -> Result<Vec<Promise>> {
    let mut promises = inside()?;
    let (spin, wfi) = (guests::build_bench("spin")?, guests::build_bench("wfi")?);
    let bare = |program: &Path, smp: &str| {
        let mut c = run::command(&armlet.to_string_lossy(), ["run", "--timeout", "600", "--smp", smp]);
        c.arg("--kernel").arg(program);
        c
    };
    let controlled = |socket: &Socket| {
        let mut c = bare(&spin, BUSY);
        c.args(["--paused", "--serial", "none", "--qmp", &socket.option()]);
        c
    };
    let theirs = |socket: &Socket| peer.map(|peer| peer.controlled(&spin, BUSY, &socket.path()));
    promises.extend(stops(controlled, theirs)?);
    let peers = || peer.map(|peer| peer.bare(&wfi, "1"));
    promises.extend(sleeps(|| bare(&wfi, "1"), peers)?);
    Ok(promises)
}

/// What only a program with the machine in it can measure.
fn inside() -> Result<Vec<Promise>> {
    run::say("latencies of work, sections and pauses");
    let spin = guests::build_bench("spin")?;
    let args = ["run", "--quiet", "--release", "--package", "armlet", "--example", "latency", "--"];
    let text = run::quiet(run::command(&run::cargo(), args).arg(&spin))?;
    let of = |name: &str| -> Result<f64> {
        let line =
            text.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("no {name}: {text}"))?;
        Ok(line.split_whitespace().next().context("no number")?.parse()?)
    };
    Ok(vec![
        Promise::at_most("work on a running CPU and back: µs", of("run_on")?, 100.0),
        Promise::at_most("exclusive section with 4 running CPUs: µs", of("exclusive")?, 1000.0),
        Promise::at_most("pause of 8 busy CPUs, by the library: µs", of("pause")?, 2000.0),
    ])
}

/// Stops of 8 busy CPUs by a control client, from the command to its answer.
fn stops(
    ours: impl Fn(&Socket) -> Command,
    theirs: impl Fn(&Socket) -> Option<Command>,
) -> Result<Vec<Promise>> {
    run::say("latencies of stop and cont, by QMP");
    let (here, there) = (Socket::new("stops-ours")?, Socket::new("stops-theirs")?);
    let mut machines = vec![Controlled::start(ours(&here), &here)?];
    if let Some(command) = theirs(&there) {
        machines.push(Controlled::start(command, &there)?);
    }
    // Machines take turns; the one whose turn it is not is stopped.
    for _ in 0..STOPS.1 {
        for machine in &mut machines {
            for _ in 0..STOPS.0 {
                let resume = machine.timed("cont")?;
                std::thread::sleep(Duration::from_millis(5));
                let stop = machine.timed("stop")?;
                machine.stops.push(stop);
                machine.resumes.push(resume);
            }
        }
    }
    let figures: Vec<_> = machines.iter().map(|m| (median(&m.stops), median(&m.resumes))).collect();
    println!("stop and cont with {BUSY} busy CPUs, µs (median of {})", STOPS.0 * STOPS.1);
    for (name, (stop, resume)) in ["armlet", "peer"].iter().zip(&figures) {
        println!("  {name:8} {stop:8.0} {resume:8.0}");
    }
    let [ours, theirs] = figures[..] else { return Ok(Vec::new()) };
    Ok(vec![
        Promise::at_most("stop of 8 busy CPUs, share of the peer's time", ours.0 / theirs.0, 1.0),
        Promise::at_most("cont of 8 busy CPUs, share of the peer's time", ours.1 / theirs.1, 1.0),
    ])
}

/// How late CPUs wake up from WFI for their timers, as a guest measures it.
fn sleeps(ours: impl Fn() -> Command, theirs: impl Fn() -> Option<Command>) -> Result<Vec<Promise>> {
    run::say("latencies of timers that end WFI");
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..SLEEPS {
        here.push(late(&mut ours())?);
        if let Some(mut command) = theirs() {
            there.push(late(&mut command)?);
        }
    }
    println!("wake-up from WFI by a timer, µs late (median of {SLEEPS} runs of 1000)");
    println!("  armlet   {:8.1}", median(&here));
    if there.is_empty() {
        return Ok(Vec::new());
    }
    println!("  peer     {:8.1}", median(&there));
    let share = median(&here) / median(&there);
    Ok(vec![Promise::at_most("wake-up by a timer, share of the peer's lateness", share, 1.0)])
}

/// Runs the guest that sleeps; the median of its lateness in microseconds.
fn late(c: &mut Command) -> Result<f64> {
    let (status, text) = Session::start(c, PATIENCE, false)?.finish()?;
    let line = text.lines().find_map(|l| l.trim().strip_prefix("wfi "));
    let Some(median) = line.and_then(|l| l.split_whitespace().next()).filter(|_| status.success()) else {
        bail!("`{}` ended with {status}: {text}", run::line(c));
    };
    Ok(median.parse::<f64>()? / 1e3)
}

/// A machine with its control client.
struct Controlled {
    child: Child,
    stream: BufReader<UnixStream>,
    stops: Vec<f64>,
    resumes: Vec<f64>,
}

impl Drop for Controlled {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Controlled {
    fn start(mut c: Command, socket: &Socket) -> Result<Self> {
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = c.spawn().with_context(|| format!("cannot run `{}`", run::line(&c)))?;
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket.path()) {
                Ok(stream) => break stream,
                Err(_) if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
                Err(e) => bail!("`{}` does not listen: {e}", run::line(&c)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let stream = BufReader::new(stream);
        let mut machine = Self { child, stream, stops: Vec::new(), resumes: Vec::new() };
        machine.receive()?;
        machine.execute("qmp_capabilities")?;
        // The program starts its CPUs.
        machine.execute("cont")?;
        std::thread::sleep(Duration::from_millis(500));
        machine.execute("stop")?;
        Ok(machine)
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn execute(&mut self, command: &str) -> Result<()> {
        let text = format!("{}\n", json!({"execute": command}));
        self.stream.get_mut().write_all(text.as_bytes())?;
        loop {
            let answer = self.receive()?;
            match answer.get("error") {
                Some(error) => bail!("{command}: {error}"),
                None if answer.get("return").is_some() => return Ok(()),
                // An event.
                None => {}
            }
        }
    }

    /// Microseconds from a command to its answer.
    fn timed(&mut self, command: &str) -> Result<f64> {
        let begin = Instant::now();
        self.execute(command)?;
        Ok(begin.elapsed().as_secs_f64() * 1e6)
    }
}
