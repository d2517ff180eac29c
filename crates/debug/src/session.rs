//! A client, from its first packet to its leave.

use std::sync::Arc;

use armlet_machine::{Cause, MachineHandle};
use gdbstub::common::Signal;
use gdbstub::stub::MultiThreadStopReason;

use crate::link::{Input, Link, MAX_BODY};
use crate::mail::Mail;
use crate::stub::{After, Stub};
use crate::target::{Target, vcpu_of};

/// How a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It does.
    Stays,
    /// The client is to be let go; the machine runs on.
    Leaves,
    /// The client is to be let go, and wants the machine to end.
    Kills,
}

/// A client's session. Nothing here waits for the client: bytes come in, bytes go out.
pub(crate) struct Session {
    machine: MachineHandle,
    mail: Arc<Mail>,
    link: Link,
    /// From the first packet on. Only then has the machine been stopped: a connection alone does nothing.
    debugger: Option<(Stub, Target)>,
    /// The client waits for a stop.
    running: bool,
}

impl Session {
    pub(crate) fn new(machine: MachineHandle, mail: Arc<Mail>) -> Self {
        Self { machine, mail, link: Link::new(), debugger: None, running: false }
    }

    /// What is to go to the client.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        self.link.take_output()
    }

    /// Takes what the client has sent.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Flow {
        for byte in bytes {
            let flow = match self.link.push(*byte) {
                None => Flow::Stays,
                Some(Input::Packet(body)) => self.packet(&body),
                Some(Input::TooLong) => {
                    self.refuse("the packet is too long");
                    Flow::Stays
                }
                // While nothing runs there is nothing to interrupt: the client has crossed a report of ours.
                Some(Input::Interrupt) if !self.running => Flow::Stays,
                Some(Input::Interrupt) => {
                    self.interrupt();
                    Flow::Stays
                }
            };
            if flow != Flow::Stays {
                return flow;
            }
        }
        Flow::Stays
    }

    /// Looks at what the machine has told.
    pub(crate) fn look(&mut self) -> Flow {
        let Some((_, target)) = &self.debugger else { return Flow::Stays };
        if let Some(cause) = self.mail.over() {
            if self.running {
                self.report(end_of(cause));
            }
            return Flow::Leaves;
        }
        if self.running && (self.mail.has_stop() || target.stands_still()) {
            self.interrupt();
        }
        Flow::Stays
    }

    /// Takes back what the client wanted, and lets the machine run.
    pub(crate) fn end(&mut self) {
        // A machine that ends must not be set going again.
        if let Some((_, target)) = &mut self.debugger
            && self.mail.over().is_none()
        {
            target.release();
        }
    }

    fn refuse(&mut self, why: &str) {
        tracing::debug!(why, "a debugger's packet is refused");
        self.link.send(format!("E.{why}").as_bytes());
    }

    fn packet(&mut self, body: &[u8]) -> Flow {
        tracing::trace!(packet = %String::from_utf8_lossy(body), "from the debugger");
        if let Err(why) = self.begin() {
            self.refuse(&why);
            return Flow::Stays;
        }
        let Some((stub, target)) = &mut self.debugger else { return Flow::Stays };
        if self.running && !ends_session(body) {
            self.refuse("the machine runs: interrupt it first");
            return Flow::Stays;
        }
        if let Some(answer) = own_answer(target, body) {
            match answer {
                Own::Plain(answer) => self.link.send(answer.as_bytes()),
                Own::NoAcks => {
                    self.link.send(b"OK");
                    self.link.stop_acks();
                }
                Own::Kill => {
                    self.link.send(b"OK");
                    return Flow::Kills;
                }
                Own::Refused(why) => self.refuse(why),
            }
            return Flow::Stays;
        }
        match stub.packet(target, body) {
            Ok((output, after)) => {
                self.link.send_framed(output);
                self.follow(after)
            }
            Err(error) => {
                self.refuse(&format!("the packet is malformed ({})", error.0));
                Flow::Stays
            }
        }
    }

    /// Stops the machine for a client that has shown that it is one.
    fn begin(&mut self) -> Result<(), String> {
        if self.debugger.is_some() {
            return Ok(());
        }
        let mut target = Target::new(self.machine.clone(), Arc::clone(&self.mail));
        target.stop().map_err(|e| e.to_string())?;
        self.mail.take_stop();
        self.debugger = Some((Stub::new(&mut target), target));
        tracing::info!("a debugger has the machine");
        Ok(())
    }

    fn follow(&mut self, after: After) -> Flow {
        self.running = after == After::Running;
        match after {
            After::Idle => Flow::Stays,
            After::Running => {
                let trouble = self.debugger.as_ref().and_then(|(_, target)| target.trouble.clone());
                if let Some(trouble) = trouble {
                    let text = format!("armlet: the machine cannot go on: {trouble}\n");
                    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
                    self.link.send(format!("O{hex}").as_bytes());
                    self.interrupt();
                }
                // News that came before the client waited for them are still there.
                self.look()
            }
            After::Detached | After::Over => Flow::Leaves,
            After::Killed => Flow::Kills,
        }
    }

    /// Stops the machine, if it does not stand still already, and tells the client why.
    fn interrupt(&mut self) {
        let Some((_, target)) = &mut self.debugger else { return };
        if let Err(error) = target.stop() {
            tracing::warn!(%error, "the machine does not stop for the debugger");
        }
        let met = self.mail.take_stop();
        let reason = target.describe(met);
        target.trouble = None;
        self.report(reason);
    }

    fn report(&mut self, reason: MultiThreadStopReason<u64>) {
        let Some((stub, target)) = &mut self.debugger else { return };
        tracing::debug!(?reason, "to the debugger");
        let registers = target.expedited();
        let (output, _) = stub.report(target, reason, &registers);
        self.link.send_framed(output);
        self.running = false;
    }
}

fn end_of(cause: Cause) -> MultiThreadStopReason<u64> {
    match cause {
        Cause::GuestPanic | Cause::HostError => MultiThreadStopReason::Terminated(Signal::SIGABRT),
        Cause::HostSignal => MultiThreadStopReason::Terminated(Signal::SIGTERM),
        _ => MultiThreadStopReason::Exited(0),
    }
}

/// Packets that a client may send while it waits for a stop.
fn ends_session(body: &[u8]) -> bool {
    body == b"k" || body == b"D" || body.starts_with(b"D;") || body.starts_with(b"vKill")
}

/// An answer that is not `gdbstub`'s.
enum Own {
    Plain(String),
    NoAcks,
    Kill,
    Refused(&'static str),
}

/// Answers what `gdbstub` does not know, or does in another way than we need.
fn own_answer(target: &mut Target, body: &[u8]) -> Option<Own> {
    let text = std::str::from_utf8(body).ok()?;
    if let Some(thread) = text.strip_prefix("Hg") {
        // For our commands; gdbstub does the rest.
        note_selected(target, thread);
        return None;
    }
    match text {
        "QStartNoAckMode" => return Some(Own::NoAcks),
        "qqemu.PhyMemMode" => return Some(Own::Plain(u8::from(target.physical).to_string())),
        "Qqemu.PhyMemMode:0" | "Qqemu.PhyMemMode:1" => {
            target.physical = text.ends_with('1');
            return Some(Own::Plain("OK".into()));
        }
        _ => {}
    }
    if text.starts_with("vKill") {
        return Some(Own::Kill);
    }
    let length = text.strip_prefix('m').and_then(|rest| rest.split_once(',')).map(|(_, length)| length);
    match length.map(|length| u64::from_str_radix(length, 16)) {
        Some(Ok(length)) if length > MAX_BODY as u64 / 2 => Some(Own::Refused("that is too much at once")),
        Some(Err(_)) => Some(Own::Refused("the length is no number")),
        _ => None,
    }
}

/// `pPID.TID` or `TID`, hexadecimal; 0 and -1 choose nothing.
fn note_selected(target: &mut Target, thread: &str) {
    let tid = thread.rsplit('.').next().unwrap_or_default();
    let tid = usize::from_str_radix(tid, 16).ok().and_then(std::num::NonZeroUsize::new);
    if let Some(tid) = tid {
        target.selected = vcpu_of(tid);
    }
}
