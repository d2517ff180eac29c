//! Who looks after the storm: what every agent is doing and for how long, and what the process needs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use armlet::MachineHandle;

/// Longest that anything may take; far more than the engine's patience, on a host that is busy with other things.
const LIMIT: Duration = Duration::from_secs(150);
/// Longest that a report of the engine may take.
const REPORT_LIMIT: Duration = Duration::from_secs(5);

/// Locks, whoever panicked with it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all agents share.
pub struct Watch {
    over: AtomicBool,
    doing: Mutex<BTreeMap<&'static str, (String, Instant)>>,
    done: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<Vec<String>>,
    beats: AtomicU64,
}

impl Watch {
    /// Nothing has happened yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            over: AtomicBool::new(false),
            doing: Mutex::default(),
            done: Mutex::default(),
            failures: Mutex::default(),
            beats: AtomicU64::new(0),
        })
    }

    /// The agents are to come to an end.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// True if they are.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes what `agent` does from now on.
    pub fn begins(&self, agent: &'static str, what: impl Into<String>) {
        lock(&self.doing).insert(agent, (what.into(), Instant::now()));
    }

    /// Notes that `agent` waits for nothing.
    pub fn rests(&self, agent: &'static str) {
        lock(&self.doing).remove(agent);
    }

    /// Counts something that went as it should.
    pub fn count(&self, what: &'static str) {
        *lock(&self.done).entry(what).or_default() += 1;
    }

    /// Notes something that did not; the storm ends.
    pub fn fails(&self, agent: &str, why: impl std::fmt::Display) {
        lock(&self.failures).push(format!("{agent}: {why}"));
        self.end();
    }

    /// What went wrong.
    pub fn failures(&self) -> Vec<String> {
        lock(&self.failures).clone()
    }

    /// The guest has told that all its CPUs work.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        self.begins("guest", "its next sign of life");
    }

    /// How often.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// All that was counted.
    pub fn counts(&self) -> String {
        let counts = lock(&self.done);
        counts.iter().map(|(what, n)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
    }

    /// Who has been doing the same for too long, and what everybody does, if there is one.
    pub fn overdue(&self) -> Option<String> {
        let doing = lock(&self.doing);
        let late: Vec<_> = doing.iter().filter(|(_, (_, since))| since.elapsed() > LIMIT).collect();
        let names: Vec<_> = late.iter().map(|(agent, _)| **agent).collect();
        let mut text = format!("{} of the storm hang:\n", names.join(", "));
        for (agent, (what, since)) in doing.iter() {
            let _ = writeln!(text, "{agent}: {what}, for {:.1} s", since.elapsed().as_secs_f64());
        }
        (!late.is_empty()).then_some(text)
    }
}

/// Who waits for whom in the machine. The engine may be what hangs, so it is asked on another thread.
pub fn report(machine: &MachineHandle) -> String {
    let (sender, receiver) = mpsc::channel();
    let machine = machine.clone();
    std::thread::spawn(move || sender.send(machine.engine().report().to_string()));
    receiver.recv_timeout(REPORT_LIMIT).unwrap_or_else(|_| "the engine's control does not answer".to_owned())
}

/// What the process has of the host.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Memory of its own in KiB: neither the guest's RAM nor the translated code, which is a shared mapping.
    pub memory: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

impl Needs {
    /// At this moment.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let threads = kib(status.lines(), "Threads:").next().unwrap_or(0);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let sizes = kib(maps.lines(), "Size:").zip(kib(maps.lines(), "Anonymous:"));
        let memory = sizes.filter(|(size, _)| *size < GUEST_RAM).map(|(_, memory)| memory).sum();
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
        Self { memory, threads, descriptors }
    }
}

/// Mappings from so many KiB on are the guest's RAM: there are no others that large.
const GUEST_RAM: u64 = 1 << 18;

/// The values of all lines that begin with `name`.
fn kib<'a>(lines: std::str::Lines<'a>, name: &'a str) -> impl Iterator<Item = u64> + 'a {
    lines.filter_map(move |line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Needs over time.
#[derive(Default)]
pub struct History(Vec<Needs>);

impl History {
    /// Adds the present.
    pub fn sample(&mut self) -> Needs {
        let now = Needs::now();
        self.0.push(now);
        now
    }

    /// Needs after the warm-up and at the end, as medians, if there are enough to compare.
    pub fn ends(&self) -> Option<(Needs, Needs)> {
        let fifth = self.0.len() / 5;
        let median = |of: &[Needs]| {
            let middle = |f: &dyn Fn(&Needs) -> u64| {
                let mut all: Vec<u64> = of.iter().map(f).collect();
                all.sort_unstable();
                all[all.len() / 2]
            };
            Needs {
                memory: middle(&|n| n.memory),
                threads: middle(&|n| n.threads),
                descriptors: middle(&|n| n.descriptors),
            }
        };
        (fifth > 0).then(|| (median(&self.0[fifth..2 * fifth]), median(&self.0[self.0.len() - fifth..])))
    }
}
