//! `gdbstub`'s state machine, fed with whole packets. A packet that it does not like ends it; here it is then made
//! anew with what had been agreed on, and the client is told of the error.

use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};

use crate::link::{MAX_BODY, framed};
use crate::registers::EXPEDITED;
use crate::target::{RegisterNumber, Target};

/// `$`, `#` and the checksum.
const FRAME: usize = 4;

/// Takes what `gdbstub` writes.
#[derive(Default)]
pub(crate) struct Output(Vec<u8>);

impl Connection for Output {
    type Error = std::convert::Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Self::Error> {
        self.0.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

type Machine = GdbStubStateMachine<'static, Target, Output>;

/// What follows on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The client asks and we answer.
    Idle,
    /// The client waits for a stop.
    Running,
    /// The client has taken its leave.
    Detached,
    /// The client wants the machine to end.
    Killed,
    /// The client has been told that there is nothing left to debug.
    Over,
}

/// A packet that is no packet of the protocol, or not at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

/// The state machine.
pub(crate) struct Stub {
    /// Always there, but for the length of a call.
    machine: Option<Machine>,
    /// What had an effect on the state machine itself: the last of each.
    agreed: Vec<Vec<u8>>,
}

/// Packets whose effect is in the state machine rather than in the target.
const AGREEMENTS: [&[u8]; 3] = [b"qSupported", b"Hg", b"Hc"];

impl Stub {
    pub(crate) fn new(target: &mut Target) -> Self {
        let mut stub = Self { machine: None, agreed: Vec::new() };
        stub.make(target);
        stub
    }

    fn make(&mut self, target: &mut Target) {
        let stub = GdbStub::builder(Output::default()).packet_buffer_size(MAX_BODY + FRAME).build();
        self.machine = stub.ok().and_then(|stub| stub.run_state_machine(target).ok());
        // Acknowledgements are ours.
        let _ = self.feed(target, b"QStartNoAckMode");
        for body in self.agreed.clone() {
            let _ = self.feed(target, &body);
        }
    }

    /// Handles a packet: the answer, framed, and what follows.
    pub(crate) fn packet(&mut self, target: &mut Target, body: &[u8]) -> Result<(Vec<u8>, After), Malformed> {
        match self.feed(target, body) {
            Ok(done) => {
                self.note_agreement(body);
                Ok(done)
            }
            Err(error) => {
                self.make(target);
                Err(error)
            }
        }
    }

    fn note_agreement(&mut self, body: &[u8]) {
        let Some(kind) = AGREEMENTS.iter().find(|kind| body.starts_with(kind)) else { return };
        self.agreed.retain(|old| !old.starts_with(kind));
        self.agreed.push(body.to_owned());
    }

    fn feed(&mut self, target: &mut Target, body: &[u8]) -> Result<(Vec<u8>, After), Malformed> {
        for byte in framed(body) {
            let next = match self.machine.take() {
                Some(Machine::Idle(machine)) => machine.incoming_data(target, byte),
                Some(Machine::Running(machine)) => machine.incoming_data(target, byte),
                // Left, or an interrupt, which is never fed.
                other => {
                    self.machine = other;
                    return Err(Malformed("it comes after the end".into()));
                }
            };
            self.machine = Some(next.map_err(|e| Malformed(e.to_string()))?);
        }
        Ok(self.outcome())
    }

    /// Tells the client why the machine has stopped; nothing to do if it does not wait for that.
    pub(crate) fn report(
        &mut self,
        target: &mut Target,
        reason: MultiThreadStopReason<u64>,
        registers: &[Vec<u8>],
    ) -> (Vec<u8>, After) {
        let machine = match self.machine.take() {
            Some(Machine::Running(machine)) => machine,
            other => {
                self.machine = other;
                return self.outcome();
            }
        };
        let mut expedited =
            EXPEDITED.iter().map(|n| RegisterNumber(*n)).zip(registers.iter().map(Vec::as_slice));
        match machine.report_stop_with_regs(target, reason, &mut expedited) {
            Ok(machine) => self.machine = Some(machine),
            Err(error) => {
                tracing::error!(%error, "a stop cannot be reported");
                self.make(target);
            }
        }
        self.outcome()
    }

    fn outcome(&mut self) -> (Vec<u8>, After) {
        let (output, after) = match &mut self.machine {
            Some(Machine::Idle(machine)) => (machine.borrow_conn(), After::Idle),
            Some(Machine::Running(machine)) => (machine.borrow_conn(), After::Running),
            Some(Machine::CtrlCInterrupt(machine)) => (machine.borrow_conn(), After::Running),
            Some(Machine::Disconnected(machine)) => {
                let after = match machine.get_reason() {
                    DisconnectReason::Disconnect => After::Detached,
                    DisconnectReason::Kill => After::Killed,
                    _ => After::Over,
                };
                (machine.borrow_conn(), after)
            }
            None => return (Vec::new(), After::Over),
        };
        (std::mem::take(&mut output.0), after)
    }
}
