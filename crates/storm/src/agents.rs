//! Those who pause and resume the machine, do work on its vCPUs and hold exclusive sections, all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use armlet::MachineHandle;
use armlet::control::Client;
use armlet_engine::{EngineError, VcpuAccess};

use crate::random::Random;
use crate::watch::Watch;

/// What an agent has.
pub struct Agent {
    /// Its name.
    pub name: &'static str,
    /// The machine.
    pub machine: MachineHandle,
    /// Who looks after it.
    pub watch: Arc<Watch>,
    /// What it chooses by.
    pub random: Random,
}

impl Agent {
    /// Does `act` again and again, with a moment of at most so many milliseconds in between, until the storm is over or
    /// something goes wrong.
    pub fn repeat(&mut self, moment: usize, mut act: impl FnMut(&mut Self) -> Result<()>) {
        while !self.watch.is_over() {
            if let Err(error) = act(self) {
                self.watch.fails(self.name, format!("{error:#}"));
                return;
            }
            self.watch.rests(self.name);
            thread::sleep(self.random.moment(moment));
        }
    }

    /// Tells what it does.
    pub fn begins(&self, what: impl Into<String>) {
        self.watch.begins(self.name, what);
    }

    /// A vCPU that may be there.
    pub fn vcpu(&mut self) -> usize {
        let places = self.machine.places();
        self.random.below(places)
    }
}

/// CPUs may leave, and pauses be overtaken, at any moment.
fn expected(error: &EngineError) -> bool {
    matches!(error, EngineError::NoSuchVcpu(_) | EngineError::Gone(_) | EngineError::PauseCancelled)
}

fn done<R>(result: Result<R, EngineError>) -> Result<Option<R>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if expected(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Pauses and resumes.
pub fn pauses(agent: &mut Agent) {
    agent.repeat(600, |agent| {
        agent.begins("a pause");
        let paused = done(agent.machine.pause("the storm"))?;
        thread::sleep(agent.random.moment(5));
        agent.begins("a resume");
        agent.machine.resume("the storm")?;
        paused.iter().for_each(|()| agent.watch.count("pauses"));
        Ok(())
    });
}

/// Stops and continues through QMP, and looks.
pub fn controls(agent: &mut Agent, mut client: Client) {
    agent.repeat(700, |agent| {
        let command =
            agent.random.choice(&["stop", "query-status", "query-cpus-fast", "cont"]).unwrap_or("cont");
        agent.begins(format!("QMP {command}"));
        match client.execute(command, None) {
            Ok(_) => agent.watch.count("QMP commands"),
            Err(error) if command == "stop" && error.to_string().contains("overtaken") => {}
            Err(error) => return Err(error.into()),
        }
        if command == "stop" {
            thread::sleep(agent.random.moment(5));
            client.execute("cont", None)?;
        }
        Ok(())
    });
}

/// Tells, as it goes, whether work was done or cancelled: one of them happens to all of it.
struct Fate {
    tally: Arc<Tally>,
    done: bool,
}

/// Work that nobody waits for.
#[derive(Default)]
pub struct Tally {
    submitted: AtomicU64,
    done: AtomicU64,
    cancelled: AtomicU64,
}

impl Fate {
    fn meets(mut self) {
        self.done = true;
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        let fate = if self.done { &self.tally.done } else { &self.tally.cancelled };
        fate.fetch_add(1, Ordering::SeqCst);
    }
}

impl Tally {
    /// Submits a piece of work that is noted.
    fn submit(self: &Arc<Self>, machine: &MachineHandle, vcpu: usize) -> Result<()> {
        self.submitted.fetch_add(1, Ordering::SeqCst);
        let fate = Fate { tally: Arc::clone(self), done: false };
        done(machine.engine().run_on_async(vcpu, move |_| fate.meets())).map(drop)
    }

    /// Waits until all work has met its fate.
    ///
    /// # Errors
    /// Some has not.
    pub fn settle(&self, limit: Duration) -> Result<(u64, u64)> {
        let start = Instant::now();
        loop {
            let [submitted, done, cancelled] =
                [&self.submitted, &self.done, &self.cancelled].map(|n| n.load(Ordering::SeqCst));
            if done + cancelled == submitted {
                return Ok((done, cancelled));
            }
            if start.elapsed() > limit {
                bail!(
                    "of {submitted} pieces of work {done} were done and {cancelled} cancelled: the rest is lost"
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Work on one vCPU, on two that call one another, and work that nobody waits for.
pub fn works(agent: &mut Agent, tally: &Arc<Tally>) {
    agent.repeat(60, |agent| {
        let (here, there) = (agent.vcpu(), agent.vcpu());
        agent.begins(format!("work on vCPUs {here} and {there}"));
        let answer = match agent.random.below(4) {
            0 => {
                let many = agent.random.below(20);
                for _ in 0..many {
                    tally.submit(&agent.machine, here)?;
                }
                return Ok(());
            }
            1 => done(agent.machine.engine().run_on(here, |cpu| cpu.index()))?.map(|index| (index, there)),
            _ => {
                let both = move |cpu: &mut VcpuAccess<'_>| {
                    Ok::<_, EngineError>((cpu.index(), cpu.run_on(there, |other| other.index())?))
                };
                done(
                    done(agent.machine.engine().run_on(here, both))?.unwrap_or(Err(EngineError::Gone(here))),
                )?
            }
        };
        match answer {
            Some(got) if got != (here, there) => bail!("work for {here} and {there} was done on {got:?}"),
            Some(_) => agent.watch.count("pieces of work"),
            None => {}
        }
        Ok(())
    });
}

/// Exclusive sections, from outside and by one vCPU on another, which must exclude one another.
pub fn sections(agent: &mut Agent, inside: &Arc<AtomicUsize>) {
    agent.repeat(150, |agent| {
        let (here, there) = (agent.vcpu(), agent.vcpu());
        let (length, nested) = (agent.random.moment(2), agent.random.once_in(3));
        agent.begins(format!("a section on vCPUs {here} and {there}"));
        let counter = Arc::clone(inside);
        let section = move |cpu: &mut VcpuAccess<'_>| {
            let others = counter.fetch_add(1, Ordering::SeqCst);
            if nested {
                let _ = cpu.run_exclusive(there, |_| ());
            }
            thread::sleep(length);
            counter.fetch_sub(1, Ordering::SeqCst);
            others == 0 && cpu.is_exclusive()
        };
        let engine = agent.machine.engine();
        let result = match agent.random.once_in(2) {
            true => engine.run_exclusive(here, section),
            // One that another vCPU has asked for.
            false => {
                engine.run_on(there, move |cpu| cpu.run_exclusive(here, section)).and_then(|result| result)
            }
        };
        match done(result)? {
            Some(false) => bail!("two exclusive sections at once"),
            Some(true) => agent.watch.count("exclusive sections"),
            None => {}
        }
        Ok(())
    });
}
