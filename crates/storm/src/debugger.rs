//! A debugger that comes and goes: stops, looks, sets points, steps, lets some CPUs run, and leaves in every way.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use armlet::spec;

use crate::agents::Agent;
use crate::packets::{Packets, framed};

const SP: usize = 31;
const PC: usize = 32;
/// Guest memory that nobody writes: the header of the kernel's image.
const QUIET: u64 = spec::RAM_BASE;

/// Attaches and leaves.
pub fn come_and_go(agent: &mut Agent, address: SocketAddr) {
    agent.repeat(2000, |agent| {
        agent.begins("the debugger, to connect");
        let mut visit = Visit { packets: Packets::connect(address)?, points: Vec::new(), agent };
        visit.attach()?;
        for _ in 0..visit.agent.random.below(4) {
            visit.act()?;
        }
        visit.leave()
    });
}

struct Visit<'a> {
    agent: &'a mut Agent,
    packets: Packets,
    /// Packets that set what was set, without the `Z`.
    points: Vec<String>,
}

impl Visit<'_> {
    fn attach(&mut self) -> Result<()> {
        self.agent.begins("the debugger, to attach");
        let told = self.packets.ask("qSupported:multiprocess+;swbreak+;hwbreak+")?;
        if !told.contains("PacketSize") {
            bail!("it is not taken in: {told}");
        }
        self.ask_for("QStartNoAckMode", "OK")?;
        self.ask_for("?", "T")?;
        self.agent.watch.count("debugger's visits");
        Ok(())
    }

    fn ask_for(&mut self, body: &str, start: &str) -> Result<()> {
        self.agent.begins(format!("the debugger, for an answer to {body}"));
        let answer = self.packets.ask(body)?;
        if !answer.starts_with(start) {
            bail!("{body} is answered by {answer}");
        }
        Ok(())
    }

    /// The threads' names. CPUs may come and go as we look.
    fn threads(&mut self) -> Result<Vec<String>> {
        let listing = self.packets.ask("qfThreadInfo")?;
        self.ask_for("qsThreadInfo", "l")?;
        Ok(listing.trim_start_matches('m').split(',').map(str::to_owned).collect())
    }

    /// A register of a thread; `None` if its CPU is gone.
    fn register(&mut self, thread: &str, number: usize) -> Result<Option<u64>> {
        self.ask_for(&format!("Hg{thread}"), "")?;
        let hex = self.packets.ask(&format!("p{number:x}"))?;
        Ok(u64::from_str_radix(&hex, 16).ok().map(u64::swap_bytes))
    }

    fn act(&mut self) -> Result<()> {
        let threads = self.threads()?;
        let one = threads.get(self.agent.random.below(threads.len())).cloned().unwrap_or_default();
        match self.agent.random.below(7) {
            0 => self.breakpoint(&one),
            1 => self.watchpoint(&one),
            2 => self.steps(&one),
            3 => {
                let moment = self.agent.random.moment(50);
                self.go(&format!("vCont;c:{one}"), moment)
            }
            4 => self.writes(),
            5 => self.looks(&threads),
            _ => {
                let moment = self.agent.random.moment(20);
                self.go("vCont;c", moment)
            }
        }
    }

    /// Resumes, and waits for a stop or makes one.
    fn go(&mut self, how: &str, moment: Duration) -> Result<()> {
        self.agent.begins(format!("the debugger, for a stop after {how}"));
        self.packets.send(&framed(how))?;
        let stop = self.packets.stop(moment)?;
        self.agent.watch.count("debugger's stops");
        match stop.as_bytes() {
            [b'T' | b'S', ..] => Ok(()),
            // The CPU is gone that was to go.
            [b'E', ..] if how.contains(':') => Ok(()),
            _ => bail!("{how} is answered by {stop}"),
        }
    }

    fn set(&mut self, point: String) -> Result<()> {
        self.ask_for(&format!("Z{point}"), "OK")?;
        self.points.push(point);
        Ok(())
    }

    /// Where a CPU is, others may come by, and it may itself.
    fn breakpoint(&mut self, thread: &str) -> Result<()> {
        let Some(pc) = self.register(thread, PC)? else { return Ok(()) };
        let kind = self.agent.random.below(2);
        self.set(format!("{kind},{pc:x},4"))?;
        for _ in 0..self.agent.random.below(5) {
            let moment = self.agent.random.moment(100);
            self.go("vCont;c", moment)?;
            self.go(&format!("vCont;s:{thread}"), Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Its stack is what a CPU accesses most.
    fn watchpoint(&mut self, thread: &str) -> Result<()> {
        let Some(sp) = self.register(thread, SP)? else { return Ok(()) };
        let (offset, length) = (self.agent.random.below(256) as u64, 1 + self.agent.random.below(16));
        let kind = 2 + self.agent.random.below(3);
        self.set(format!("{kind},{:x},{length:x}", sp.wrapping_sub(128).wrapping_add(offset)))?;
        let moment = self.agent.random.moment(100);
        self.go("vCont;c", moment)
    }

    /// One CPU steps, alone or while the others run.
    fn steps(&mut self, thread: &str) -> Result<()> {
        let others = if self.agent.random.once_in(2) { ";c" } else { "" };
        for _ in 0..self.agent.random.below(40) {
            self.go(&format!("vCont;s:{thread}{others}"), Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// What is there already, which is an exclusive section, after which all code is made anew.
    fn writes(&mut self) -> Result<()> {
        self.ask_for("Qqemu.PhyMemMode:1", "OK")?;
        let bytes = self.packets.ask(&format!("m{QUIET:x},20"))?;
        self.ask_for(&format!("M{QUIET:x},20:{bytes}"), "OK")?;
        self.ask_for("Qqemu.PhyMemMode:0", "OK")?;
        self.agent.watch.count("writes to memory");
        Ok(())
    }

    fn looks(&mut self, threads: &[String]) -> Result<()> {
        for thread in threads {
            self.ask_for(&format!("qThreadExtraInfo,{thread}"), "")?;
            self.ask_for(&format!("Hg{thread}"), "")?;
            self.ask_for("g", "")?;
        }
        Ok(())
    }

    /// In order, or not at all.
    fn leave(mut self) -> Result<()> {
        self.agent.begins("the debugger, to leave");
        match self.agent.random.below(6) {
            0 => {
                for point in std::mem::take(&mut self.points) {
                    self.ask_for(&format!("z{point}"), "OK")?;
                }
                self.ask_for("D", "OK")
            }
            1 => self.ask_for("D;1", "OK"),
            // In the middle of a packet, of a run, of a step.
            2 => self.packets.send(b"$m4000"),
            3 => self.packets.send(&framed("vCont;c")),
            4 => {
                self.packets.send(&framed("vCont;s:p1.1"))?;
                thread::sleep(self.agent.random.moment(2));
                Ok(())
            }
            // With answers that nobody reads, which makes the host break the connection.
            _ => self.packets.send(&framed("g")),
        }
    }
}
