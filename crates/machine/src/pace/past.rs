//! The past of a machine whose time is made of instructions: it can be lived through again, since all that came from
//! outside is remembered with its count.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use armlet_engine::pace::NEVER;

use super::{Applied, MachinePace};
use crate::lock;
use crate::recording::Input;

/// What is remembered, and how far it is being lived through again.
pub(super) struct Past {
    state: Mutex<State>,
    /// The count at which the present begins, while the past is lived through again; else 0.
    present: AtomicU64,
    /// The count at which something is next: an input, the present, a stop.
    next: AtomicU64,
}

#[derive(Default)]
struct State {
    inputs: Vec<(u64, Input)>,
    /// The next of `inputs`.
    cursor: usize,
    /// The machine is to pause at this count.
    stop_at: Option<u64>,
    /// The count behind the last instruction that each vCPU has executed; 0 if it has executed none.
    ends: Vec<u64>,
}

impl Default for Past {
    fn default() -> Self {
        Self { state: Mutex::default(), present: AtomicU64::new(0), next: AtomicU64::new(NEVER) }
    }
}

impl Past {
    /// An input was applied in the present.
    pub(super) fn note(&self, count: u64, input: &Input) {
        lock(&self.state).inputs.push((count, input.clone()));
    }

    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    pub(super) fn executed(&self, vcpu: usize, from: u64, to: u64) {
        if from == to {
            return;
        }
        let mut state = lock(&self.state);
        if state.ends.len() <= vcpu {
            state.ends.resize(vcpu + 1, 0);
        }
        state.ends[vcpu] = to;
    }

    fn plan(&self, state: &State) {
        let present = self.present.load(Ordering::Acquire);
        let input = match present {
            0 => NEVER,
            _ => state.inputs.get(state.cursor).map_or(NEVER, |(count, _)| *count),
        };
        let present = if present == 0 { NEVER } else { present };
        self.next.store(input.min(present).min(state.stop_at.unwrap_or(NEVER)), Ordering::Release);
    }
}

impl MachinePace {
    /// True while the past is lived through again.
    pub(crate) fn is_past(&self) -> bool {
        self.past.present.load(Ordering::Acquire) != 0
    }

    /// Time begins anew; what was lived through up to now comes again. The vCPUs must be stopped.
    pub(crate) fn begin_anew(&self) {
        let mut state = lock(&self.past.state);
        let present = self.past.present.load(Ordering::Acquire).max(self.count.now());
        self.past.present.store(present, Ordering::Release);
        (state.cursor, state.stop_at) = (0, None);
        state.ends.clear();
        self.count.restart();
        self.hands.mute(true);
        self.past.plan(&state);
    }

    /// Has the machine pause at `count`, unless that has passed.
    pub(crate) fn stop_at(&self, count: Option<u64>) {
        let mut state = lock(&self.past.state);
        state.stop_at = count;
        self.past.plan(&state);
    }

    /// The count at which `vcpu` began its last instruction.
    pub(crate) fn last_instruction(&self, vcpu: usize) -> Option<u64> {
        lock(&self.past.state).ends.get(vcpu)?.checked_sub(1)
    }

    /// Applies what came from outside at this count, and notices the present.
    pub(super) fn relive(&self) {
        let now = self.count.now();
        loop {
            let input = {
                let mut state = lock(&self.past.state);
                let input = state.inputs.get(state.cursor).filter(|(count, _)| *count <= now);
                let input = input.map(|(_, input)| input.clone());
                state.cursor += usize::from(input.is_some());
                if input.is_none() && now >= self.past.present.load(Ordering::Acquire) {
                    self.past.present.store(0, Ordering::Release);
                    self.hands.mute(false);
                }
                self.past.plan(&state);
                input
            };
            let Some(input) = input else { return };
            if self.hands.apply(&input) == Applied::Awaits {
                return self.await_machine();
            }
        }
    }

    /// Asks for a pause at the count for which one is wanted.
    pub(super) fn stop_if_due(&self) {
        let due = {
            let mut state = lock(&self.past.state);
            let due = state.stop_at.is_some_and(|count| count <= self.count.now());
            if due {
                state.stop_at = None;
                self.past.plan(&state);
            }
            due
        };
        if due {
            self.await_machine();
            self.hands.pause();
        }
    }
}
