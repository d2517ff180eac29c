//! What every vCPU does and whom it waits for: for whoever looks for a hang.
//!
//! A report is taken without the help of any vCPU, one after the other while they go on: of a machine that moves it
//! is not of one moment.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::control::MachineState;
use crate::vcpu::{Vcpu, VcpuState};

/// What a vCPU's thread waits for in the middle of a piece of work, or on its way into guest execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The end of the exclusive section of this vCPU, to enter guest execution or to begin its own.
    Gate(Option<usize>),
    /// These vCPUs, to leave guest execution, for its exclusive section.
    Executing(Vec<usize>),
    /// This vCPU, to do a piece of work.
    Work(usize),
}

/// What a vCPU does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuReport {
    /// Its number.
    pub index: usize,
    /// The host's number of its thread.
    pub thread_id: u32,
    /// What its thread does.
    pub state: VcpuState,
    /// It is inside guest execution.
    pub executing: bool,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// It is asked to stop.
    pub held: bool,
    /// It has declared itself stopped.
    pub stopped: bool,
    /// It is asked to leave.
    pub leaving: bool,
    /// Pieces of work that have not begun.
    pub queued: usize,
    /// Those of them that somebody waits for.
    pub awaited: usize,
}

/// What an engine does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the machine does.
    pub state: MachineState,
    /// The vCPU that is in an exclusive section, or is about to be.
    pub section: Option<usize>,
    /// All vCPUs, by rising number.
    pub vcpus: Vec<VcpuReport>,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate(Some(owner)) => write!(f, "the exclusive section of vCPU {owner}"),
            Self::Gate(None) => f.write_str("an exclusive section that has just ended"),
            Self::Executing(vcpus) => write!(f, "vCPUs {vcpus:?} to leave guest code"),
            Self::Work(vcpu) => write!(f, "work on vCPU {vcpu}"),
        }
    }
}

impl fmt::Display for VcpuReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vCPU {} (thread {}): {:?}", self.index, self.thread_id, self.state)?;
        if self.executing {
            f.write_str(", in guest code")?;
        }
        match (self.held, self.stopped) {
            (true, false) => f.write_str(", has not stopped as it is asked to")?,
            (false, true) => f.write_str(", has not gone on as it may")?,
            _ => {}
        }
        if self.leaving {
            f.write_str(", is to leave")?;
        }
        if self.queued > 0 {
            write!(f, ", {} pieces of work, {} of them waited for", self.queued, self.awaited)?;
        }
        self.wait.iter().try_for_each(|wait| write!(f, ", waits for {wait}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the machine is {}", self.state)?;
        self.section.iter().try_for_each(|vcpu| write!(f, ", vCPU {vcpu} has the gate"))?;
        self.vcpus.iter().try_for_each(|vcpu| write!(f, "\n{vcpu}"))
    }
}

/// What a vCPU's thread notes while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// For its turn at the gate.
    Turn,
    /// For others to leave guest execution.
    Executing,
    /// For work on another.
    Work(usize),
}

impl Waiting {
    fn code(self) -> u64 {
        match self {
            Self::Turn => 1,
            Self::Executing => 2,
            Self::Work(vcpu) => 3 + vcpu as u64,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => None,
            1 => Some(Self::Turn),
            2 => Some(Self::Executing),
            vcpu => Some(Self::Work((vcpu - 3) as usize)),
        }
    }
}

/// Where it is noted. Nothing depends on it, so it is none of the atomics that the models search.
#[derive(Default)]
pub(crate) struct WaitCell(AtomicU64);

/// While it lives, the wait is noted; then the one around it again.
pub(crate) struct Noted<'a>(&'a WaitCell, u64);

impl WaitCell {
    pub(crate) fn note(&self, waiting: Waiting) -> Noted<'_> {
        Noted(self, self.0.swap(waiting.code(), Ordering::Relaxed))
    }

    fn get(&self) -> Option<Waiting> {
        Waiting::from_code(self.0.load(Ordering::Relaxed))
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.0.store(self.1, Ordering::Relaxed);
    }
}

impl VcpuReport {
    /// Of one that has `stopped`, at a gate that `section` has closed while `executing` are inside.
    pub(crate) fn new(vcpu: &Vcpu, stopped: bool, section: Option<usize>, executing: &[usize]) -> Self {
        let (queued, awaited) = vcpu.queue.lengths();
        let index = vcpu.index();
        let wait = match vcpu.waits.get() {
            Some(Waiting::Turn) => Some(Wait::Gate(section)),
            Some(Waiting::Executing) => Some(Wait::Executing(executing.to_owned())),
            Some(Waiting::Work(other)) => Some(Wait::Work(other)),
            None => vcpu.door.is_waiting().then_some(Wait::Gate(section)),
        };
        Self {
            index,
            thread_id: vcpu.thread_id(),
            state: vcpu.state(),
            executing: executing.contains(&index),
            wait,
            held: vcpu.is_held(),
            stopped,
            leaving: vcpu.is_leaving(),
            queued,
            awaited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::Then;

    #[test]
    fn waits_are_noted_inside_one_another() {
        let cell = WaitCell::default();
        {
            let _outer = cell.note(Waiting::Work(0));
            {
                let _inner = cell.note(Waiting::Turn);
                assert_eq!(cell.get(), Some(Waiting::Turn));
            }
            assert_eq!(cell.get(), Some(Waiting::Work(0)));
        }
        assert_eq!(cell.get(), None);
    }

    #[test]
    fn a_report_reads_as_who_waits_for_whom() {
        let vcpu = |index, state, wait| VcpuReport {
            index,
            thread_id: 70,
            state,
            executing: false,
            wait,
            held: false,
            stopped: false,
            leaving: false,
            queued: 0,
            awaited: 0,
        };
        let mut vcpus = vec![
            vcpu(0, VcpuState::Running, Some(Wait::Executing(vec![2]))),
            vcpu(1, VcpuState::Stopped(Then::Run), Some(Wait::Work(0))),
            vcpu(2, VcpuState::Running, None),
        ];
        (vcpus[1].queued, vcpus[1].awaited) = (3, 1);
        (vcpus[2].executing, vcpus[2].held) = (true, true);
        let report = Report { state: MachineState::Pausing, section: Some(0), vcpus };
        assert_eq!(
            report.to_string(),
            "the machine is pausing, vCPU 0 has the gate\n\
             vCPU 0 (thread 70): Running, waits for vCPUs [2] to leave guest code\n\
             vCPU 1 (thread 70): Stopped(Run), 3 pieces of work, 1 of them waited for, waits for work on vCPU 0\n\
             vCPU 2 (thread 70): Running, in guest code, has not stopped as it is asked to"
        );
    }
}
