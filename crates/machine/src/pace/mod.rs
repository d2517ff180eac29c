//! The pace of a machine whose time is made of instructions: when its timers go off, and when it gets what comes from
//! outside.
//!
//! Only the vCPUs' thread changes what the guest can see. What comes from outside waits in an inbox, wakes that thread,
//! and is applied by it between two instructions, at a count that a recording notes and a replay waits for. What the
//! machine's own thread has to do (a reset, the end) holds the vCPUs' thread where it is until it is done.
//!
//! Lock order: the console's input queue, then the inbox. The log, the inbox and the machine's word are never held
//! together, nor while devices are called.

mod hands;
mod past;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use armlet_devices::TimerQueue;
use armlet_engine::pace::NEVER;
use armlet_engine::{InstructionCount, MachineState, Pace, VcpuShared};

use crate::lock;
use crate::machine::End;
use crate::recording::{Ending, Input, Item, MAX_CONSOLE, Player, Recorder};
pub(crate) use hands::Hands;
use past::Past;

/// How a machine counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PaceOptions {
    /// An instruction takes 2^`shift` ns.
    pub(crate) shift: u32,
    /// While no vCPU has anything to do, time passes as it does for people.
    pub(crate) sleep: bool,
    /// Hash what is executed.
    pub(crate) trace: bool,
}

/// Seed of everything random in such a machine: the same in every run.
pub(crate) const SEED: u64 = 0x61_726d_6c65_7421;
/// The time of day at which such a machine starts, in seconds since 1970: 2026-01-01 00:00:00 UTC.
pub(crate) const WALL_START: Duration = Duration::from_secs(1_767_225_600);
/// Counts between checkpoints, at least.
const CHECKPOINT: u64 = 1 << 27;
/// Longest wait for the machine's thread before the vCPUs' thread looks at its other work.
const HOLD: Duration = Duration::from_millis(5);

/// Most inputs that wait, for a machine that is paused: who asks for more resets than that has asked for enough.
const MAX_WAITING: usize = 1024;

/// What the vCPUs' thread does to the machine for somebody outside.
pub(crate) trait Apply: Send + Sync {
    /// Carries out `input`.
    fn apply(&self, input: &Input) -> Applied;
    /// The machine is to pause here; the vCPUs' thread waits for that.
    fn pause(&self);
    /// The guest's output goes nowhere, or where it goes.
    fn mute(&self, muted: bool);
    /// The replay is over: how.
    fn over(&self, outcome: Outcome);
}

/// What follows an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The guest goes on.
    Done,
    /// The machine's thread must act before anything else happens.
    Awaits,
    /// The machine cannot take it, as no machine could that makes a recording.
    Impossible,
}

/// How a replay is over before its machine has ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The recording ends here: why.
    Ends(String),
    /// The machine does not do what it did: what.
    Differs(String),
}

/// Where inputs are noted, or come from.
enum Log {
    None,
    Record(Recorder),
    Replay(Player),
}

/// What the machine's thread is waited for.
#[derive(Default)]
struct Word {
    /// Nothing may happen until the machine's thread has acted.
    awaited: bool,
    /// The vCPUs may execute: nobody waits for them to stop.
    running: bool,
}

/// The pace of one machine.
pub(crate) struct MachinePace {
    count: Arc<InstructionCount>,
    options: PaceOptions,
    time: Arc<TimerQueue>,
    vcpus: Vec<Arc<VcpuShared>>,
    hands: Arc<dyn Apply>,
    inbox: Mutex<Vec<Input>>,
    /// The inbox has something, or the machine's thread is awaited: [`Pace::happen`] is due.
    due: AtomicBool,
    /// The count of the next record of a replay.
    planned: AtomicU64,
    log: Mutex<Log>,
    replaying: bool,
    /// Input from outside was ignored, and somebody was told.
    ignored: AtomicBool,
    word: Mutex<Word>,
    acted: Condvar,
    checkpoint: AtomicU64,
    past: Past,
}

/// What a pace is made from.
pub(crate) struct PaceParts {
    pub(crate) count: Arc<InstructionCount>,
    pub(crate) options: PaceOptions,
    pub(crate) time: Arc<TimerQueue>,
    pub(crate) vcpus: Vec<Arc<VcpuShared>>,
    pub(crate) hands: Arc<dyn Apply>,
}

impl MachinePace {
    /// A pace that notes nothing.
    pub(crate) fn new(parts: PaceParts) -> Self {
        let PaceParts { count, options, time, vcpus, hands } = parts;
        Self {
            count,
            options,
            time,
            vcpus,
            hands,
            inbox: Mutex::default(),
            due: AtomicBool::new(false),
            planned: AtomicU64::new(NEVER),
            log: Mutex::new(Log::None),
            replaying: false,
            ignored: AtomicBool::new(false),
            word: Mutex::default(),
            acted: Condvar::new(),
            checkpoint: AtomicU64::new(CHECKPOINT),
            past: Past::default(),
        }
    }

    /// The same, noting what happens.
    pub(crate) fn recording(mut self, recorder: Recorder) -> Self {
        self.log = Mutex::new(Log::Record(recorder));
        // So that the file is there from the first instruction on.
        self.due = AtomicBool::new(true);
        self
    }

    /// The same, with what happened when `player`'s recording was made instead of what comes from outside.
    pub(crate) fn replaying(mut self, player: Player) -> Self {
        self.planned = AtomicU64::new(planned(&player));
        self.log = Mutex::new(Log::Replay(player));
        self.replaying = true;
        self
    }

    /// True if a recording is made or replayed.
    pub(crate) fn is_recorded(&self) -> bool {
        !matches!(*lock(&self.log), Log::None)
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.replaying
    }

    /// Something has come from outside: the guest gets it soon. For any thread.
    pub(crate) fn submit(&self, input: Input) {
        if self.replaying {
            if !self.ignored.swap(true, Ordering::Relaxed) {
                tracing::warn!("this is a replay: what is typed or asked for from outside is ignored");
            }
            return;
        }
        {
            let mut inbox = lock(&self.inbox);
            let waiting = inbox.len();
            match (inbox.last_mut(), input) {
                (Some(Input::Console(bytes)), Input::Console(more))
                    if bytes.len() + more.len() <= MAX_CONSOLE =>
                {
                    bytes.extend(more);
                }
                // Its queue limits it.
                (_, input @ Input::Console(_)) => inbox.push(input),
                (_, input) if waiting < MAX_WAITING => inbox.push(input),
                _ => return,
            }
            self.due.store(true, Ordering::Release);
        }
        self.vcpus.iter().for_each(|vcpu| vcpu.request_exit());
    }

    /// The engine's state has changed. Called under its lock.
    pub(crate) fn state_changed(&self, to: MachineState) {
        lock(&self.word).running = to == MachineState::Running;
        self.acted.notify_all();
    }

    /// The machine's thread is to act (called by the vCPUs' thread): nothing happens before it has.
    pub(crate) fn await_machine(&self) {
        lock(&self.word).awaited = true;
        self.due.store(true, Ordering::Release);
    }

    /// The machine's thread has acted, and the vCPUs may go on.
    pub(crate) fn machine_acted(&self) {
        lock(&self.word).awaited = false;
        self.acted.notify_all();
    }

    /// The run is over, with `end`, and the vCPUs have stopped: writes the recording's end, or compares with it. Returns
    /// another end if that is not as it should be.
    pub(crate) fn finish(&self, end: &End) -> Option<End> {
        let (count, ending) = (self.count.now(), Ending::of(end));
        match &mut *lock(&self.log) {
            Log::None => None,
            Log::Record(recorder) => {
                recorder.note(count, &Item::End(ending));
                recorder.error().map(|e| End::Failed(e.to_string()))
            }
            Log::Replay(player) if ending.by_guest() => {
                let same =
                    player.next().is_some_and(|(at, item)| at == count && *item == Item::End(ending.clone()));
                (!same).then(|| End::Failed(differs(count, &format!("it ended by itself ({ending:?})"))))
            }
            Log::Replay(_) => None,
        }
    }

    /// Applies what is in the inbox.
    fn apply_inbox(&self) {
        if let Log::Record(recorder) = &mut *lock(&self.log) {
            recorder.begin();
        }
        let mut inputs = {
            let mut inbox = lock(&self.inbox);
            self.due.store(false, Ordering::Release);
            std::mem::take(&mut *inbox)
        };
        let mut done = 0;
        for input in &inputs {
            self.note(&Item::Input(input.clone()));
            done += 1;
            if self.apply(input) == Applied::Awaits {
                self.await_machine();
                break;
            }
        }
        if done < inputs.len() {
            // They come after what the machine's thread does.
            let rest = inputs.split_off(done);
            lock(&self.inbox).splice(0..0, rest);
            self.due.store(true, Ordering::Release);
        }
    }

    /// Applies an input, which becomes part of the past.
    fn apply(&self, input: &Input) -> Applied {
        self.past.note(self.count.now(), input);
        self.hands.apply(input)
    }

    fn note(&self, item: &Item) {
        if let Log::Record(recorder) = &mut *lock(&self.log) {
            recorder.note(self.count.now(), item);
        }
    }

    /// Applies the records whose count has come.
    fn apply_records(&self, digest: &mut dyn FnMut() -> u64) {
        let now = self.count.now();
        while self.planned.load(Ordering::Relaxed) <= now && !lock(&self.word).awaited {
            let Some((count, item)) = self.next_record() else { return };
            if count < now && !matches!(item, Item::End(_)) {
                return self.over(Outcome::Differs(differs(now, "it came past an input without a stop")));
            }
            match item {
                Item::Input(input) => match self.apply(&input) {
                    Applied::Done => {}
                    Applied::Awaits => self.await_machine(),
                    Applied::Impossible => {
                        let what = differs(now, "there is no room for what was typed");
                        return self.over(Outcome::Differs(what));
                    }
                },
                Item::Checkpoint(then) if then == digest() => {}
                Item::Checkpoint(_) => {
                    return self.over(Outcome::Differs(differs(now, "its registers have other values")));
                }
                Item::End(Ending::Outside(why)) => return self.over(Outcome::Ends(why)),
                Item::End(_) => {
                    return self.over(Outcome::Differs(differs(now, "it goes on after its end")));
                }
            }
        }
    }

    /// Takes the next record out of the log.
    fn next_record(&self) -> Option<(u64, Item)> {
        let Log::Replay(player) = &mut *lock(&self.log) else { return None };
        let (count, item) = player.next().map(|(count, item)| (count, item.clone()))?;
        player.advance();
        self.planned.store(planned(player), Ordering::Relaxed);
        Some((count, item))
    }

    /// The replay is over.
    fn over(&self, outcome: Outcome) {
        self.planned.store(NEVER, Ordering::Relaxed);
        self.await_machine();
        self.hands.over(outcome);
    }

    /// Now and then, notes how far the run is and what was executed.
    fn check(&self, digest: &mut dyn FnMut() -> u64) {
        let now = self.count.now();
        if now < self.checkpoint.load(Ordering::Relaxed) {
            return;
        }
        self.checkpoint.store(now.saturating_add(CHECKPOINT), Ordering::Relaxed);
        if self.is_recorded() {
            self.note(&Item::Checkpoint(digest()));
        }
    }

    /// Waits for the machine's thread if that is to act, but not for long.
    fn hold(&self) {
        let word = lock(&self.word);
        if !word.awaited {
            return;
        }
        // Whatever happens now, the next look decides.
        self.due.store(true, Ordering::Release);
        if word.running {
            drop(self.acted.wait_timeout(word, HOLD).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// How long `counts` take; `None` if for ever.
    fn duration(&self, counts: u64) -> Option<Duration> {
        let ns = counts.checked_mul(1 << self.options.shift)?;
        Some(Duration::from_nanos(ns))
    }
}

/// The count at which the next record of a replay is due. A guest that is to end by itself there gets until the next
/// instruction.
fn planned(player: &Player) -> u64 {
    match player.next() {
        None => NEVER,
        Some((count, Item::End(ending))) if ending.by_guest() => count.saturating_add(1),
        Some((count, _)) => count,
    }
}

fn differs(count: u64, what: &str) -> String {
    format!(
        "the replay differs from the recording at count {count}: {what}; replay it with the program, and on a machine, like those that made it"
    )
}

impl Pace for MachinePace {
    fn count(&self) -> &Arc<InstructionCount> {
        &self.count
    }

    fn next(&self) -> u64 {
        if self.is_past() {
            // What comes from outside waits until the present.
            let due = if lock(&self.word).awaited { self.count.now() } else { NEVER };
            return self.time.next_count().min(self.past.next()).min(due);
        }
        if self.due.load(Ordering::Acquire) {
            return self.count.now();
        }
        self.time.next_count().min(self.planned.load(Ordering::Relaxed)).min(self.past.next())
    }

    fn happen(&self, digest: &mut dyn FnMut() -> u64) {
        if !lock(&self.word).awaited {
            self.time.run_expired();
            if self.is_past() {
                self.relive();
            } else if self.replaying {
                self.due.store(false, Ordering::Release);
                self.apply_records(digest);
            } else {
                self.check(digest);
                self.apply_inbox();
            }
            self.stop_if_due();
        }
        self.hold();
    }

    fn executed(&self, vcpu: usize, from: u64, to: u64) {
        self.past.executed(vcpu, from, to);
    }

    fn counts_in(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos()).map_or(NEVER, |ns| ns >> self.options.shift)
    }

    fn idle(&self, until: u64, sleep: &mut dyn FnMut(Option<Duration>) -> bool) {
        let until = until.min(self.next());
        let now = self.count.now();
        if until <= now {
            return;
        }
        let at_once = self.replaying || self.is_past() || !self.options.sleep;
        if at_once && until != NEVER {
            return self.count.skip_to(until);
        }
        let begin = Instant::now();
        let limit = if until == NEVER { None } else { self.duration(until - now) };
        if !sleep(limit) && limit.is_some() {
            return self.count.skip_to(until);
        }
        if !at_once {
            let passed = self.counts_in(begin.elapsed());
            self.count.skip_to(now.saturating_add(passed).min(until - 1));
        }
    }
}

impl Drop for MachinePace {
    fn drop(&mut self) {
        if let Log::Record(recorder) = self.log.get_mut().unwrap_or_else(PoisonError::into_inner)
            && let Some(error) = recorder.error()
        {
            tracing::error!(%error);
        }
    }
}
