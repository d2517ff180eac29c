//! The pace, with hands that only note what they are given.

use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

use armlet_devices::clock::{COUNTER_FREQUENCY, Clock};

use super::*;
use crate::notice::Cause;
use crate::recording::Identity;

/// What was done, and at which count.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Applied(u64, Input),
    Over(u64, Outcome),
    Timer(u64),
}

#[derive(Default)]
struct Diary(Mutex<Vec<Done>>);

struct Noting {
    diary: Arc<Diary>,
    count: Arc<InstructionCount>,
}

impl Apply for Noting {
    fn apply(&self, input: &Input) -> Applied {
        lock(&self.diary.0).push(Done::Applied(self.count.now(), input.clone()));
        match input {
            Input::Reset(_) => Applied::Awaits,
            Input::Console(bytes) if bytes == b"too much" => Applied::Impossible,
            _ => Applied::Done,
        }
    }

    fn pause(&self) {}

    fn mute(&self, _muted: bool) {}

    fn over(&self, outcome: Outcome) {
        lock(&self.diary.0).push(Done::Over(self.count.now(), outcome));
    }
}

struct Rig {
    pace: MachinePace,
    diary: Arc<Diary>,
    vcpu: Arc<VcpuShared>,
    time: Arc<TimerQueue>,
}

const OPTIONS: PaceOptions = PaceOptions { shift: 3, sleep: true, trace: false };

fn rig(options: PaceOptions) -> Rig {
    let count = Arc::new(InstructionCount::default());
    let clock = Arc::new(Clock::counting(COUNTER_FREQUENCY, Arc::clone(&count), options.shift));
    let time = TimerQueue::new(clock);
    let diary = Arc::new(Diary::default());
    let hands = Arc::new(Noting { diary: Arc::clone(&diary), count: Arc::clone(&count) });
    let vcpu = Arc::new(VcpuShared::new(0));
    let vcpus = vec![Arc::clone(&vcpu)];
    let pace = MachinePace::new(PaceParts { count, options, time: Arc::clone(&time), vcpus, hands });
    Rig { pace, diary, vcpu, time }
}

impl Rig {
    fn now(&self) -> u64 {
        self.pace.count.now()
    }

    /// What a thread does whose vCPUs execute up to `until`, as the engine has it.
    fn run_to(&self, until: u64) {
        loop {
            let next = self.pace.next();
            if next > self.now() {
                self.pace.count.set(next.min(until));
            }
            if self.pace.next() > self.now() || self.held() {
                return;
            }
            // The registers are as the count is.
            self.pace.happen(&mut || self.now() ^ 0x5555);
        }
    }

    fn held(&self) -> bool {
        lock(&self.pace.word).awaited
    }

    fn diary(&self) -> Vec<Done> {
        lock(&self.diary.0).clone()
    }

    /// A timer that goes off every `counts`, and puts that in the diary.
    fn tick(&self, counts: u64) {
        let (diary, clock) = (Arc::clone(&self.diary), Arc::clone(self.time.clock()));
        let (count, queue) = (Arc::clone(&self.pace.count), Arc::downgrade(&self.time));
        let key = Arc::new(Mutex::new(None));
        let mine = Arc::clone(&key);
        let registered = self.time.register(Arc::new(move || {
            lock(&diary.0).push(Done::Timer(count.now()));
            if let (Some(queue), Some(key)) = (queue.upgrade(), *lock(&mine)) {
                queue.arm(key, clock.now_ns() + counts * 8);
            }
        }));
        *lock(&key) = Some(registered);
        self.time.arm(registered, counts * 8);
    }
}

struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("armlet-pace-{}-{n}", std::process::id())))
    }

    fn record(&self, mut rig: Rig) -> Rig {
        rig.pace = rig.pace.recording(Recorder::new(&self.0, Identity::new()).unwrap());
        rig
    }

    fn replay(&self, mut rig: Rig) -> Rig {
        rig.pace = rig.pace.replaying(Player::open(&self.0).unwrap().0);
        rig
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn typed(text: &str) -> Input {
    Input::Console(text.as_bytes().to_vec())
}

#[test]
fn timers_go_off_at_their_counts() {
    let rig = rig(OPTIONS);
    assert_eq!(rig.pace.next(), NEVER);
    rig.tick(100);
    assert_eq!(rig.pace.next(), 100);
    rig.run_to(350);
    assert_eq!(rig.diary(), [100, 200, 300].map(Done::Timer));
    assert_eq!((rig.now(), rig.pace.next()), (350, 400));
}

#[test]
fn input_is_due_at_once_and_gets_the_thread_s_attention() {
    let rig = rig(OPTIONS);
    rig.run_to(70);
    rig.pace.submit(typed("a"));
    rig.pace.submit(typed("b"));
    rig.pace.submit(Input::PowerKey);
    assert!(rig.vcpu.exit_requested());
    assert_eq!(rig.pace.next(), 70);
    rig.run_to(70);
    assert_eq!(rig.diary(), [Done::Applied(70, typed("ab")), Done::Applied(70, Input::PowerKey)]);
    assert_eq!(rig.pace.next(), NEVER);
    for _ in 0..2 * MAX_WAITING {
        rig.pace.submit(Input::Break);
    }
    assert_eq!(lock(&rig.pace.inbox).len(), MAX_WAITING);
}

#[test]
fn nothing_happens_between_a_reset_and_the_machine_s_thread() {
    let rig = rig(OPTIONS);
    rig.tick(100);
    rig.run_to(50);
    rig.pace.submit(Input::Reset(Cause::HostReset));
    rig.pace.submit(typed("after"));
    rig.run_to(1000);
    for _ in 0..3 {
        rig.pace.happen(&mut || 0);
        assert_eq!(rig.pace.next(), 50, "the vCPUs do not execute");
    }
    assert_eq!(rig.diary(), [Done::Applied(50, Input::Reset(Cause::HostReset))]);
    rig.pace.machine_acted();
    rig.run_to(120);
    assert_eq!(rig.diary()[1..], [Done::Applied(50, typed("after")), Done::Timer(100)]);
}

#[test]
fn who_waits_for_the_machine_s_thread_lets_others_stop_the_machine() {
    let rig = rig(OPTIONS);
    rig.pace.state_changed(MachineState::Running);
    rig.pace.await_machine();
    let begin = Instant::now();
    rig.pace.happen(&mut || 0);
    assert!(begin.elapsed() >= HOLD, "it waited");
    std::thread::scope(|scope| {
        scope.spawn(|| rig.pace.state_changed(MachineState::Resetting));
        while rig.pace.next() == rig.now() && lock(&rig.pace.word).running {
            rig.pace.happen(&mut || 0);
        }
    });
    rig.pace.machine_acted();
    rig.pace.happen(&mut || 0);
    assert_eq!(rig.pace.next(), NEVER);
}

#[test]
fn idle_time_passes_as_for_people_or_leaps() {
    // As the timer has it: slept to its end.
    let slow = rig(OPTIONS);
    let mut asked = Vec::new();
    slow.pace.idle(1000, &mut |time| {
        asked.push(time);
        false
    });
    assert_eq!((slow.now(), asked), (1000, vec![Some(Duration::from_nanos(8000))]));
    assert_eq!(slow.pace.count.skipped(), 1000);
    // Woken: never up to the end, however late.
    slow.pace.idle(1002, &mut |_| {
        std::thread::sleep(Duration::from_millis(1));
        true
    });
    assert_eq!(slow.now(), 1001);
    slow.pace.idle(NEVER, &mut |time| {
        assert_eq!(time, None);
        std::thread::sleep(Duration::from_millis(1));
        true
    });
    assert!(slow.now() >= 1001 + 125_000, "{}", slow.now());
    // Input that came meanwhile is due now.
    slow.pace.submit(typed("x"));
    let before = slow.now();
    slow.pace.idle(NEVER, &mut |_| panic!("there is something to do"));
    assert_eq!(slow.now(), before);

    let fast = rig(PaceOptions { sleep: false, ..OPTIONS });
    fast.pace.idle(1 << 50, &mut |_| panic!("nobody waits"));
    assert_eq!(fast.now(), 1 << 50);
    fast.pace.idle(NEVER, &mut |time| {
        assert_eq!(time, None);
        true
    });
    assert_eq!(fast.now(), 1 << 50, "nothing is planned, so no time passes");
    assert_eq!(fast.pace.counts_in(Duration::from_micros(1)), 125);
}

/// A run with inputs at odd moments; the rig at its end.
fn recorded(file: &Temp, end: &End) -> Rig {
    let rig = file.record(rig(OPTIONS));
    rig.tick(1000);
    rig.pace.submit(Input::Hold);
    rig.run_to(0);
    for (at, input) in [(777, typed("ls")), (1000, Input::PowerKey), (12_345, Input::Break)] {
        rig.run_to(at);
        rig.pace.submit(input);
        rig.run_to(at);
    }
    rig.pace.submit(Input::Reset(Cause::HostReset));
    rig.pace.submit(typed("more"));
    rig.run_to(12_400);
    assert!(rig.held());
    rig.pace.machine_acted();
    rig.run_to(2 * CHECKPOINT + 5000);
    assert_eq!(rig.pace.finish(end), None);
    rig
}

/// The same run again, up to its end or where it is held.
fn replayed(file: &Temp, limit: u64) -> Rig {
    let rig = file.replay(rig(OPTIONS));
    rig.tick(1000);
    rig.pace.submit(typed("ignored"));
    rig.run_to(limit);
    if lock(&rig.diary.0).last() == Some(&Done::Applied(12_345, Input::Reset(Cause::HostReset))) {
        rig.pace.machine_acted();
        rig.run_to(limit);
    }
    rig
}

#[test]
fn a_replay_does_the_same_at_the_same_counts_and_ends_where_the_recording_does() {
    let file = Temp::new();
    let first = recorded(&file, &End::Quit("Ctrl-A x".into()));
    let again = replayed(&file, NEVER - 1);
    let mut expected = first.diary();
    expected.push(Done::Over(first.now(), Outcome::Ends("Ctrl-A x".into())));
    assert_eq!(again.diary(), expected);
    assert_eq!(again.pace.finish(&End::Replayed(String::new())), None);
    // Idle time leaps to what comes next, and no further.
    let idle = file.replay(rig(OPTIONS));
    idle.run_to(10);
    idle.pace.idle(NEVER, &mut |_| panic!("a replay does not wait"));
    assert_eq!(idle.now(), 777);
}

#[test]
fn a_guest_that_ends_by_itself_must_do_so_again() {
    let file = Temp::new();
    let first = recorded(&file, &End::Exited(3));
    let again = replayed(&file, first.now());
    assert_eq!(again.diary(), first.diary());
    assert_eq!(again.pace.finish(&End::Exited(3)), None);
    assert!(matches!(again.pace.finish(&End::Exited(4)), Some(End::Failed(_))));
    assert_eq!(again.pace.finish(&End::Quit("early".into())), None);
    again.run_to(first.now() + 10);
    let over = again.diary().pop();
    assert!(matches!(over, Some(Done::Over(_, Outcome::Differs(_)))), "it goes on: {over:?}");
    let early = replayed(&file, first.now() - 1);
    assert!(matches!(early.pace.finish(&End::Exited(3)), Some(End::Failed(_))));
}

#[test]
fn a_replay_that_leaves_the_path_is_told_at_the_next_checkpoint() {
    let file = Temp::new();
    let first = recorded(&file, &End::PoweredOff);
    let again = file.replay(rig(OPTIONS));
    again.tick(1000);
    let mut digests = 0;
    let last = || lock(&again.diary.0).last().cloned();
    while !matches!(last(), Some(Done::Over(..))) && again.now() < first.now() {
        again.pace.count.set(again.pace.next());
        again.pace.happen(&mut || {
            digests += 1;
            again.now()
        });
        if last() == Some(Done::Applied(12_345, Input::Reset(Cause::HostReset))) {
            again.pace.machine_acted();
        }
    }
    let over = again.diary().pop();
    assert!(matches!(over, Some(Done::Over(_, Outcome::Differs(_)))), "{over:?}");
    assert_eq!(digests, 1);
}

#[test]
fn an_input_that_fits_nowhere_or_was_passed_ends_the_replay() {
    let file = Temp::new();
    let noted = file.record(rig(OPTIONS));
    noted.run_to(5);
    noted.pace.submit(typed("too much"));
    noted.run_to(5);
    noted.pace.finish(&End::TimedOut);
    let again = file.replay(rig(OPTIONS));
    again.run_to(100);
    assert!(matches!(again.diary().pop(), Some(Done::Over(5, Outcome::Differs(_)))));
    let again = file.replay(rig(OPTIONS));
    again.pace.count.set(6);
    again.run_to(100);
    assert!(matches!(again.diary()[..], [Done::Over(6, Outcome::Differs(_))]), "{:?}", again.diary());
}
