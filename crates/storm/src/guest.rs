//! The guest's console: its signs of life, the commands that it is given, and what its kernel complains of.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use armlet::MachineHandle;
use armlet::serial::{Carrier, to_descriptors};

use crate::watch::{Watch, lock};

/// Words with which a kernel tells of trouble.
const COMPLAINTS: [&str; 8] = [
    "Kernel panic",
    "Oops",
    "BUG:",
    "WARNING:",
    "self-detected stall",
    "detected stalls",
    "soft lockup",
    "failed to come online",
];
/// Lines that are kept for messages.
const TAIL: usize = 60;

/// The guest, as its console shows it.
pub struct Guest {
    machine: MachineHandle,
    answers: Mutex<Receiver<bool>>,
    ready: Mutex<Receiver<()>>,
    tail: Arc<Mutex<VecDeque<String>>>,
    watch: Arc<Watch>,
}

/// What the reader of the console knows.
struct Reader {
    answers: Sender<bool>,
    ready: Sender<()>,
    tail: Arc<Mutex<VecDeque<String>>>,
    watch: Arc<Watch>,
}

impl Reader {
    fn line(&self, line: &str) {
        if let Some(bad) = COMPLAINTS.iter().find(|bad| line.contains(**bad)) {
            self.watch.fails("the kernel", format!("complains ({bad}): {line}"));
        }
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["STORM-READY"] => drop(self.ready.send(())),
            ["STORM-BEAT", _] => self.watch.beat(),
            ["STORM-DONE", status] => drop(self.answers.send(*status == "0")),
            ["STORM-STRESS", "0"] => self.watch.count("runs of stress-ng"),
            // It leaves out what the guest has no resources for at the moment; nothing was wrong.
            ["STORM-STRESS", "3"] => self.watch.count("runs of stress-ng without all of it"),
            ["STORM-STRESS", status] => {
                self.watch.fails("stress-ng", format!("ended with {status}:\n{}", self.last()));
            }
            _ => {}
        }
        let mut tail = lock(&self.tail);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    }

    fn last(&self) -> String {
        lock(&self.tail).iter().rev().take(20).rev().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Guest {
    /// Connects to the console.
    ///
    /// # Errors
    /// The host has no pipe or thread for it.
    pub fn connect(machine: &MachineHandle, watch: &Arc<Watch>) -> Result<(Self, Carrier)> {
        let (from, to) = std::io::pipe()?;
        let carrier = to_descriptors(machine.console(), to.into(), Box::new(|_| {}), None)?;
        let ((answers, answer), (ready, is_ready)) = (channel(), channel());
        let tail = Arc::default();
        let reader = Reader { answers, ready, tail: Arc::clone(&tail), watch: Arc::clone(watch) };
        // Ends with the console.
        std::thread::Builder::new().name("console".into()).spawn(move || {
            let mut lines = BufReader::new(from);
            let mut bytes = Vec::new();
            while matches!(lines.read_until(b'\n', &mut bytes), Ok(1..)) {
                reader.line(String::from_utf8_lossy(&bytes).trim_end());
                bytes.clear();
            }
        })?;
        let watch = Arc::clone(watch);
        let (answers, ready) = (Mutex::new(answer), Mutex::new(is_ready));
        Ok((Self { machine: machine.clone(), answers, ready, tail, watch }, carrier))
    }

    /// Waits until it takes commands.
    ///
    /// # Errors
    /// That takes too long.
    pub fn wait_until_ready(&self, limit: Duration) -> Result<()> {
        lock(&self.ready).recv_timeout(limit).context("the guest does not come up")
    }

    fn send(&self, line: &str) {
        self.machine.console().input.push(format!("{line}\n").as_bytes());
    }

    /// Has a command carried out: whether the guest could do it. `None` if the storm ends meanwhile.
    pub fn command(&self, line: &str) -> Option<bool> {
        let answers = lock(&self.answers);
        self.send(line);
        loop {
            match answers.recv_timeout(Duration::from_millis(200)) {
                Ok(done) => return Some(done),
                // Only what has gone wrong already may cut an answer off: the next one would be taken for it.
                Err(_) if !self.watch.failures().is_empty() => return None,
                Err(_) => {}
            }
        }
    }

    /// Asks it to come to its end.
    pub fn end(&self) {
        self.send("end");
    }

    /// The last lines of its console.
    pub fn tail(&self) -> String {
        lock(&self.tail).iter().cloned().collect::<Vec<_>>().join("\n")
    }
}
