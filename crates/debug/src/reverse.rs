//! Going backwards, in a deterministic machine: it goes back to an earlier moment and lives through what came then
//! again, see [`MachineHandle::rewind`](armlet_machine::MachineHandle::rewind).
//!
//! Backwards to a breakpoint or watchpoint means to the last time that it was met before now. What is met in a stretch
//! of the past is only found by living through it; longer and longer stretches before now are searched.

use armlet_engine::{DebugRequest, DebugStop};
use armlet_machine::RewindError;
use gdbstub::common::Tid;
use gdbstub::target::ext::base::reverse_exec::{ReverseCont, ReverseStep};

use crate::target::{Target, vcpu_of};

/// Lengths of the stretches that are searched, in instructions.
const STRETCHES: [u64; 4] = [20_000, 2_000_000, 200_000_000, u64::MAX];

/// Where a way back has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Where this vCPU met this.
    At(usize, DebugStop),
    /// Where the machine began.
    Begin,
}

/// What was met, where.
struct Met {
    count: u64,
    vcpu: usize,
    stop: DebugStop,
}

impl ReverseStep<Tid> for Target {
    fn reverse_step(&mut self, tid: Tid) -> Result<(), String> {
        let vcpu = vcpu_of(tid);
        self.go_back(|target| {
            // One that is alone is what the client means; among several it is the one that it has chosen.
            let Some(count) = target.machine.last_instruction(vcpu) else {
                target.machine.rewind(0)?;
                return Ok(Arrived::Begin);
            };
            target.machine.rewind(count)?;
            Ok(Arrived::At(vcpu, DebugStop::Step))
        });
        Ok(())
    }
}

impl ReverseCont<Tid> for Target {
    fn reverse_cont(&mut self) -> Result<(), String> {
        self.go_back(Self::back_to_a_stop);
        Ok(())
    }
}

impl Target {
    /// Goes back; the client waits for a stop then in any case, and is told of trouble with it.
    fn go_back(&mut self, f: impl FnOnce(&mut Self) -> Result<Arrived, RewindError>) {
        let arrived = self.let_go_of_vcpus().and_then(|()| f(self).map_err(|e| e.to_string()));
        // Whatever was met on the way is old news.
        self.mail.take_stop();
        self.forget_asked();
        match arrived {
            Ok(arrived) => self.arrived = Some(arrived),
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    fn back_to_a_stop(&mut self) -> Result<Arrived, RewindError> {
        let now = self.machine.count().ok_or(RewindError::NotDeterministic)?;
        for length in STRETCHES {
            let from = now.saturating_sub(length);
            if let Some(met) = self.last_met(from, now)? {
                self.machine.rewind(met.count)?;
                return Ok(Arrived::At(met.vcpu, met.stop));
            }
            if from == 0 {
                break;
            }
        }
        self.machine.rewind(0)?;
        Ok(Arrived::Begin)
    }

    /// What was met last in a stretch of the past. Nothing is asked of vCPUs before and after.
    fn last_met(&mut self, from: u64, to: u64) -> Result<Option<Met>, RewindError> {
        let trouble = RewindError::Host;
        self.machine.rewind(from)?;
        self.ask_all(|target| target.request(false)).map_err(trouble)?;
        let mut last = None;
        loop {
            self.mail.take_stop();
            let arrived = self.machine.run_to(to)?;
            let count = self.machine.count().unwrap_or(to);
            let (vcpu, request) = match self.mail.take_stop() {
                _ if arrived => break,
                None => return Err(RewindError::Stopped(count)),
                Some((vcpu, DebugStop::Step)) => (vcpu, self.request(false)),
                Some((vcpu, stop)) => {
                    last = Some(Met { count, vcpu, stop });
                    // Past it, by a step that nothing stops.
                    (vcpu, DebugRequest { step: true, ..DebugRequest::default() })
                }
            };
            self.ask(vcpu, request).map_err(trouble)?;
        }
        self.let_go_of_vcpus().map_err(trouble)?;
        Ok(last)
    }

    /// Nothing is asked of any vCPU any more, and all may run.
    fn let_go_of_vcpus(&mut self) -> Result<(), String> {
        self.stop().map_err(|e| e.to_string())?;
        self.mail.take_stop();
        self.ask_all(|_| DebugRequest::default())?;
        self.machine.engine().freeze(|_| false).map_err(|e| e.to_string())
    }

    fn ask_all(&mut self, what: impl Fn(&Self) -> DebugRequest) -> Result<(), String> {
        self.forget_asked();
        let request = what(self);
        self.machine.engine().vcpus().into_iter().try_for_each(|vcpu| self.ask(vcpu, request.clone()))
    }
}
