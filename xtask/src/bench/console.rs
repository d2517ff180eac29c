//! Bulk output: how long a program in Linux takes to write a file to its console, as it is, until all of it has arrived on
//! this side.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::figures::median;
use super::peer::Peer;
use super::promises::Promise;
use crate::boot::{Linux, PROMPT};
use crate::run;
use crate::session::Session;

/// Longest run.
const PATIENCE: Duration = Duration::from_secs(900);
/// Files written by each.
const ROUNDS: usize = 5;
/// Writes the file. What the shell echoes is not what it writes behind it.
const WRITE: &str = "stty -opost; cat /tmp/file; stty opost; echo written to its e''nd";
const WRITTEN: &str = "written to its end";

/// A console, and how fast it is to be beside the peer's.
struct Console {
    name: &'static str,
    /// It is a virtio device.
    virtio: bool,
    /// Size of the file: the PL011 takes one character at a time.
    mib: u32,
    /// At most this share of the peer's time.
    limit: f64,
}

const CONSOLES: [Console; 2] = [
    Console { name: "virtio console", virtio: true, mib: 16, limit: 0.5 },
    Console { name: "PL011", virtio: false, mib: 1, limit: 0.5 },
];

/// Measures both consoles; compares with the peer if there is one.
///
/// # Errors
/// A guest could not be run, or does not write what it should.
pub fn measure(armlet: &Path, linux: &Linux, peer: Option<&Peer>) -> Result<Vec<Promise>> {
    let mut promises = Vec::new();
    for console in CONSOLES {
        run::say(&format!("bulk output: {}", console.name));
        let words = if console.virtio { "quiet shell console=hvc0" } else { "quiet shell" };
        let mut ours = linux.command(armlet, 1, words);
        ours.args(["--console", if console.virtio { "virtio" } else { "uart" }]);
        let mut guests = vec![Guest::start("armlet", &mut ours, console.mib)?];
        if let Some(peer) = peer {
            guests.push(Guest::start("peer", &mut peer.console(linux, words, console.virtio), console.mib)?);
        }
        for _ in 0..ROUNDS {
            for guest in &mut guests {
                guest.write().with_context(|| format!("{}: {}", guest.name, console.name))?;
            }
        }
        let times: Vec<f64> = guests.iter().map(|guest| median(&guest.times)).collect();
        for (guest, time) in guests.iter().zip(&times) {
            println!("  {} MiB to the {}, {:8} {time:6.2} s", console.mib, console.name, guest.name);
        }
        if let [armlet, peer] = times[..] {
            let what = format!("{} MiB to the {}, share of the peer's time", console.mib, console.name);
            promises.push(Promise::at_most(&what, armlet / peer, console.limit));
        }
    }
    Ok(promises)
}

/// A guest at its prompt.
struct Guest {
    name: &'static str,
    session: Session,
    times: Vec<f64>,
}

impl Guest {
    fn start(name: &'static str, command: &mut Command, mib: u32) -> Result<Self> {
        let mut session = Session::start(command, PATIENCE, false)?;
        session.wait_for(PROMPT)?;
        session.send_line(&format!("dd if=/dev/zero bs=1M count={mib} | tr '\\0' x >/tmp/file"))?;
        session.wait_for(PROMPT)?;
        Ok(Self { name, session, times: Vec::new() })
    }

    fn write(&mut self) -> Result<()> {
        let start = Instant::now();
        self.session.send_line(WRITE)?;
        self.session.wait_for(WRITTEN)?;
        self.times.push(start.elapsed().as_secs_f64());
        self.session.wait_for(PROMPT)?;
        Ok(())
    }
}
