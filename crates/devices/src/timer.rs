//! The generic timers: EL1 physical and EL1 virtual timer of each vCPU (Arm ARM D12).
//!
//! Both compare with the same count, the machine's [`Clock`]: there is no EL2 to set an offset. A timer's output is high
//! while it is enabled, not masked, and the count has reached the compare value; the [`TimerQueue`] raises it
//! in time, writes to the registers raise and lower it at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use armlet_arm::SysReg;
use armlet_arm::sysreg::{ExternalRegisters, lookup};

use armlet_saved::{SavedTimer, SavedTimers, Unfit};

use crate::clock::{Clock, NEVER};
use crate::gic::GicV3;
use crate::line::InterruptLine;
use crate::lock;
use crate::random::RandomNumbers;
use crate::timer_queue::{TimerKey, TimerQueue};

/// Register encodings and fields.
pub mod spec {
    use armlet_arm::sysreg::encoding;

    /// Kernel control: what EL0 may do.
    pub const CNTKCTL_EL1: u16 = encoding(3, 0, 14, 1, 0);
    /// Frequency.
    pub const CNTFRQ_EL0: u16 = encoding(3, 3, 14, 0, 0);
    /// Physical count.
    pub const CNTPCT_EL0: u16 = encoding(3, 3, 14, 0, 1);
    /// Virtual count.
    pub const CNTVCT_EL0: u16 = encoding(3, 3, 14, 0, 2);
    /// Physical count, self-synchronised.
    pub const CNTPCTSS_EL0: u16 = encoding(3, 3, 14, 0, 5);
    /// Virtual count, self-synchronised.
    pub const CNTVCTSS_EL0: u16 = encoding(3, 3, 14, 0, 6);
    /// Physical timer: value to go.
    pub const CNTP_TVAL_EL0: u16 = encoding(3, 3, 14, 2, 0);
    /// Physical timer: control.
    pub const CNTP_CTL_EL0: u16 = encoding(3, 3, 14, 2, 1);
    /// Physical timer: compare value.
    pub const CNTP_CVAL_EL0: u16 = encoding(3, 3, 14, 2, 2);
    /// Virtual timer: value to go.
    pub const CNTV_TVAL_EL0: u16 = encoding(3, 3, 14, 3, 0);
    /// Virtual timer: control.
    pub const CNTV_CTL_EL0: u16 = encoding(3, 3, 14, 3, 1);
    /// Virtual timer: compare value.
    pub const CNTV_CVAL_EL0: u16 = encoding(3, 3, 14, 3, 2);

    /// CTL: timer on.
    pub const CTL_ENABLE: u64 = 1 << 0;
    /// CTL: output masked.
    pub const CTL_IMASK: u64 = 1 << 1;
    /// CTL: condition met; read-only.
    pub const CTL_ISTATUS: u64 = 1 << 2;

    /// PPI (INTID − 16) of the EL1 physical timer.
    pub const PPI_PHYSICAL: u32 = 14;
    /// PPI of the EL1 virtual timer.
    pub const PPI_VIRTUAL: u32 = 11;
}

/// The outputs of one vCPU's timers.
pub struct TimerLines {
    /// EL1 physical timer.
    pub physical: Arc<dyn InterruptLine>,
    /// EL1 virtual timer.
    pub virtual_: Arc<dyn InterruptLine>,
}

/// The timers of all vCPUs.
pub struct GenericTimers {
    clock: Arc<Clock>,
    cpus: Vec<CpuTimers>,
}

struct CpuTimers {
    physical: Arc<Timer>,
    virtual_: Arc<Timer>,
    kernel_control: AtomicU64,
}

struct Timer {
    queue: Arc<TimerQueue>,
    line: Arc<dyn InterruptLine>,
    key: TimerKey,
    state: Mutex<TimerState>,
}

#[derive(Default)]
struct TimerState {
    /// ENABLE and IMASK.
    control: u64,
    compare: u64,
    level: bool,
    /// What the queue was last told; `None` for "not armed".
    armed: Option<u64>,
}

impl Timer {
    fn new(queue: &Arc<TimerQueue>, line: Arc<dyn InterruptLine>) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = Weak::clone(this);
            let key = queue.register(Arc::new(move || {
                if let Some(timer) = this.upgrade() {
                    timer.expired();
                }
            }));
            Self { queue: Arc::clone(queue), line, key, state: Mutex::default() }
        })
    }

    fn clock(&self) -> &Clock {
        self.queue.clock()
    }

    /// The queue's callback.
    fn expired(&self) {
        let mut state = lock(&self.state);
        state.armed = None;
        self.update(&mut state);
    }

    /// Brings line and queue to what the registers ask for.
    fn update(&self, state: &mut TimerState) {
        let live = state.control & spec::CTL_ENABLE != 0 && state.control & spec::CTL_IMASK == 0;
        let met = live && self.clock().now_ticks() >= state.compare;
        if met != state.level {
            state.level = met;
            self.line.set(met);
        }
        let deadline = if live && !met { self.clock().ns_of(state.compare) } else { NEVER };
        let wanted = (deadline != NEVER).then_some(deadline);
        if wanted != state.armed {
            state.armed = wanted;
            match wanted {
                Some(deadline) => self.queue.arm(self.key, deadline),
                None => self.queue.cancel(self.key),
            }
        }
    }

    fn control(&self) -> u64 {
        let state = lock(&self.state);
        let enabled = state.control & spec::CTL_ENABLE != 0;
        let met = enabled && self.clock().now_ticks() >= state.compare;
        state.control | if met { spec::CTL_ISTATUS } else { 0 }
    }

    fn set_control(&self, value: u64) {
        let mut state = lock(&self.state);
        state.control = value & (spec::CTL_ENABLE | spec::CTL_IMASK);
        self.update(&mut state);
    }

    fn compare(&self) -> u64 {
        lock(&self.state).compare
    }

    fn set_compare(&self, value: u64) {
        let mut state = lock(&self.state);
        state.compare = value;
        self.update(&mut state);
    }

    /// TVAL: the low 32 bits of what is left.
    fn value(&self) -> u64 {
        self.compare().wrapping_sub(self.clock().now_ticks()) & 0xffff_ffff
    }

    /// TVAL: signed, from now.
    fn set_value(&self, value: u64) {
        let offset = i64::from(value as i32) as u64;
        self.set_compare(self.clock().now_ticks().wrapping_add(offset));
    }

    /// Takes over the registers, and drives the line by them whatever it was.
    fn restore(&self, control: u64, compare: u64) {
        let mut state = lock(&self.state);
        (state.control, state.compare) = (control, compare);
        self.update(&mut state);
        self.line.set(state.level);
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        state.control = 0;
        state.compare = 0;
        self.update(&mut state);
    }
}

impl GenericTimers {
    /// Timers for as many vCPUs as there are `lines`, on `queue` and its clock.
    pub fn new(queue: &Arc<TimerQueue>, lines: Vec<TimerLines>) -> Self {
        let cpus = lines.into_iter().map(|lines| CpuTimers {
            physical: Timer::new(queue, lines.physical),
            virtual_: Timer::new(queue, lines.virtual_),
            kernel_control: AtomicU64::new(0),
        });
        Self { clock: Arc::clone(queue.clock()), cpus: cpus.collect() }
    }

    /// Reads a `CNT*` register for vCPU `cpu`. Others read as 0.
    pub fn read(&self, cpu: usize, register: SysReg) -> u64 {
        let Some(timers) = self.cpus.get(cpu) else { return 0 };
        match register {
            SysReg::CntpctEl0 | SysReg::CntvctEl0 | SysReg::CntpctssEl0 | SysReg::CntvctssEl0 => {
                self.clock.now_ticks()
            }
            SysReg::CntfrqEl0 => self.clock.frequency(),
            SysReg::CntkctlEl1 => timers.kernel_control.load(Ordering::Relaxed),
            SysReg::CntpTvalEl0 => timers.physical.value(),
            SysReg::CntpCtlEl0 => timers.physical.control(),
            SysReg::CntpCvalEl0 => timers.physical.compare(),
            SysReg::CntvTvalEl0 => timers.virtual_.value(),
            SysReg::CntvCtlEl0 => timers.virtual_.control(),
            SysReg::CntvCvalEl0 => timers.virtual_.compare(),
            _ => 0,
        }
    }

    /// Writes a `CNT*` register for vCPU `cpu`. Others, and those that are read-only, are ignored.
    pub fn write(&self, cpu: usize, register: SysReg, value: u64) {
        let Some(timers) = self.cpus.get(cpu) else { return };
        match register {
            SysReg::CntkctlEl1 => timers.kernel_control.store(value, Ordering::Relaxed),
            SysReg::CntpTvalEl0 => timers.physical.set_value(value),
            SysReg::CntpCtlEl0 => timers.physical.set_control(value),
            SysReg::CntpCvalEl0 => timers.physical.set_compare(value),
            SysReg::CntvTvalEl0 => timers.virtual_.set_value(value),
            SysReg::CntvCtlEl0 => timers.virtual_.set_control(value),
            SysReg::CntvCvalEl0 => timers.virtual_.set_compare(value),
            _ => {}
        }
    }

    /// [`Self::read`] by encoding.
    pub fn read_encoding(&self, cpu: usize, register: u16) -> u64 {
        lookup(register).map_or(0, |register| self.read(cpu, register))
    }

    /// [`Self::write`] by encoding.
    pub fn write_encoding(&self, cpu: usize, register: u16, value: u64) {
        if let Some(register) = lookup(register) {
            self.write(cpu, register, value);
        }
    }

    /// All timers, and the count. Time should stand still meanwhile.
    pub fn save(&self) -> SavedTimers {
        let timer = |timer: &Timer| {
            let state = lock(&timer.state);
            (state.control, state.compare)
        };
        let save = |cpu: &CpuTimers| {
            let ((physical_control, physical_compare), (virtual_control, virtual_compare)) =
                (timer(&cpu.physical), timer(&cpu.virtual_));
            SavedTimer {
                kernel_control: cpu.kernel_control.load(Ordering::Relaxed),
                physical_control,
                physical_compare,
                virtual_control,
                virtual_compare,
                ..SavedTimer::default()
            }
        };
        let (frequency, counter) = (self.clock.frequency(), self.clock.now_ticks());
        SavedTimers { frequency, counter, cpus: self.cpus.iter().map(save).collect() }
    }

    /// Checks that `saved` is of timers like these.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, saved: &SavedTimers) -> Result<(), Unfit> {
        check_timers(saved, self.clock.frequency(), self.cpus.len())
    }

    /// Takes over all timers, and the count where time stands still.
    ///
    /// # Errors
    /// As [`Self::check`]; nothing has changed then.
    pub fn restore(&self, saved: &SavedTimers) -> Result<(), Unfit> {
        self.check(saved)?;
        self.clock.set(self.clock.ns_of(saved.counter));
        for (cpu, saved) in self.cpus.iter().zip(&saved.cpus) {
            cpu.kernel_control.store(saved.kernel_control, Ordering::Relaxed);
            cpu.physical.restore(saved.physical_control, saved.physical_compare);
            cpu.virtual_.restore(saved.virtual_control, saved.virtual_compare);
        }
        Ok(())
    }

    /// Machine reset: all timers off. The count goes on.
    pub fn reset(&self) {
        (0..self.cpus.len()).for_each(|cpu| self.reset_cpu(cpu));
    }

    /// Turns one vCPU's timers off, as when it is switched on again.
    pub fn reset_cpu(&self, cpu: usize) {
        if let Some(timers) = self.cpus.get(cpu) {
            timers.physical.reset();
            timers.virtual_.reset();
            timers.kernel_control.store(0, Ordering::Relaxed);
        }
    }
}

/// Checks that `saved` is of timers with a counter of `frequency` Hz, in `cpus` places.
///
/// # Errors
/// What differs.
pub fn check_timers(saved: &SavedTimers, frequency: u64, cpus: usize) -> Result<(), Unfit> {
    let then = saved.frequency;
    Unfit::unless(then == frequency, || {
        format!("the counter (CNTFRQ_EL0) had {then} Hz and has {frequency} Hz")
    })?;
    let then = saved.cpus.len();
    Unfit::unless(then == cpus, || format!("there were {then} places for CPUs and are {cpus}"))?;
    let known = spec::CTL_ENABLE | spec::CTL_IMASK;
    let plain = |cpu: &SavedTimer| (cpu.physical_control | cpu.virtual_control) & !known == 0;
    Unfit::unless(saved.cpus.iter().all(plain), || "a timer's control cannot be as it was".into())
}

/// The system registers of the board's interrupt controller, timers and random numbers, for an accelerator.
pub struct BoardRegisters {
    gic: Arc<GicV3>,
    timers: Arc<GenericTimers>,
    random: RandomNumbers,
}

impl BoardRegisters {
    /// Of `gic` and `timers`.
    pub fn new(gic: Arc<GicV3>, timers: Arc<GenericTimers>) -> Self {
        let random = RandomNumbers::new(Arc::clone(&timers.clock));
        Self { gic, timers, random }
    }

    /// CRn 14 is the generic timers' space.
    fn is_timer(register: SysReg) -> bool {
        (register.encoding() >> 7) & 0xf == 14
    }
}

impl ExternalRegisters for BoardRegisters {
    fn read(&self, cpu: usize, reg: SysReg) -> u64 {
        match reg {
            SysReg::Rndr | SysReg::Rndrrs => self.random.next(cpu),
            _ if Self::is_timer(reg) => self.timers.read(cpu, reg),
            _ => self.gic.read_icc(cpu, reg),
        }
    }

    fn write(&self, cpu: usize, reg: SysReg, value: u64) {
        if Self::is_timer(reg) {
            self.timers.write(cpu, reg, value);
        } else {
            self.gic.write_icc(cpu, reg, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use armlet_engine::VcpuShared;

    use super::spec::*;
    use super::*;
    use crate::clock::COUNTER_FREQUENCY;
    use crate::gic::GicConfig;
    use crate::testing::{Probe, Random};

    struct Bench {
        clock: Arc<Clock>,
        queue: Arc<TimerQueue>,
        timers: GenericTimers,
        lines: Vec<(Arc<Probe>, Arc<Probe>)>,
    }

    fn bench(cpus: usize) -> Bench {
        let clock = Arc::new(Clock::manual(COUNTER_FREQUENCY));
        let queue = TimerQueue::new(Arc::clone(&clock));
        let lines: Vec<(Arc<Probe>, Arc<Probe>)> = (0..cpus).map(|_| Default::default()).collect();
        let outputs =
            lines.iter().map(|(p, v)| TimerLines { physical: p.clone(), virtual_: v.clone() }).collect();
        Bench { timers: GenericTimers::new(&queue, outputs), clock, queue, lines }
    }

    impl Bench {
        fn pass(&self, ticks: u64) {
            self.clock.advance(ticks * 16);
            self.queue.run_expired();
        }

        fn r(&self, register: u16) -> u64 {
            self.timers.read_encoding(0, register)
        }

        fn w(&self, register: u16, value: u64) {
            self.timers.write_encoding(0, register, value);
        }
    }

    #[test]
    fn counts() {
        let b = bench(1);
        assert_eq!(b.r(CNTFRQ_EL0), 62_500_000);
        b.pass(1000);
        for register in [CNTPCT_EL0, CNTVCT_EL0, CNTPCTSS_EL0, CNTVCTSS_EL0] {
            assert_eq!(b.r(register), 1000);
        }
        b.w(CNTVCT_EL0, 5);
        assert_eq!(b.r(CNTVCT_EL0), 1000, "read-only");
    }

    #[test]
    fn fires_at_the_compare_value_and_stays() {
        let b = bench(2);
        b.w(CNTV_CVAL_EL0, 100);
        b.w(CNTV_CTL_EL0, CTL_ENABLE);
        assert_eq!(b.r(CNTV_CTL_EL0), CTL_ENABLE);
        b.pass(99);
        assert!(!b.lines[0].1.level());
        b.pass(1);
        assert!(b.lines[0].1.level());
        assert!(!b.lines[0].0.level() && !b.lines[1].1.level(), "no other timer's");
        assert_eq!(b.r(CNTV_CTL_EL0), CTL_ENABLE | CTL_ISTATUS);
        b.pass(1000);
        assert!(b.lines[0].1.level(), "a level, not a pulse");
        b.w(CNTV_CTL_EL0, CTL_ENABLE | CTL_IMASK);
        assert!(!b.lines[0].1.level());
        assert_eq!(b.r(CNTV_CTL_EL0), CTL_ENABLE | CTL_IMASK | CTL_ISTATUS);
        b.w(CNTV_CVAL_EL0, 2000);
        assert_eq!(b.r(CNTV_CTL_EL0), CTL_ENABLE | CTL_IMASK);
        b.w(CNTV_CTL_EL0, CTL_ENABLE);
        b.pass(900);
        assert!(b.lines[0].1.level());
        assert_eq!(b.lines[0].1.rises(), 2);
        b.w(CNTV_CTL_EL0, 0);
        assert!(!b.lines[0].1.level());
        assert_eq!(b.r(CNTV_CTL_EL0), 0);
    }

    #[test]
    fn the_two_timers_are_independent() {
        let b = bench(1);
        b.w(CNTP_CVAL_EL0, 50);
        b.w(CNTV_CVAL_EL0, 70);
        b.w(CNTP_CTL_EL0, CTL_ENABLE);
        b.w(CNTV_CTL_EL0, CTL_ENABLE);
        b.pass(60);
        assert!(b.lines[0].0.level() && !b.lines[0].1.level());
        b.w(CNTP_CTL_EL0, 0);
        b.pass(10);
        assert!(!b.lines[0].0.level() && b.lines[0].1.level());
    }

    #[test]
    fn timer_values_are_signed_and_relative() {
        let b = bench(1);
        b.pass(1000);
        b.w(CNTP_TVAL_EL0, 25);
        assert_eq!(b.r(CNTP_CVAL_EL0), 1025);
        b.pass(5);
        assert_eq!(b.r(CNTP_TVAL_EL0), 20);
        b.w(CNTP_CTL_EL0, CTL_ENABLE);
        b.pass(20);
        assert!(b.lines[0].0.level());
        b.pass(3);
        assert_eq!(b.r(CNTP_TVAL_EL0), 0xffff_fffd);
        b.w(CNTP_TVAL_EL0, 0xffff_ffff);
        assert_eq!(b.r(CNTP_CVAL_EL0), 1027);
        assert!(b.lines[0].0.level(), "already past");
        b.w(CNTP_TVAL_EL0, 0xdead_0000_0001);
        assert!(!b.lines[0].0.level(), "only the low half counts");
        b.w(CNTP_TVAL_EL0, 0x8000_0000);
        assert_eq!(b.r(CNTP_CVAL_EL0), 1028_u64.wrapping_sub(1 << 31));
        assert!(!b.lines[0].0.level(), "before 0 is far in the future");
    }

    #[test]
    fn far_deadlines_never_come() {
        let b = bench(1);
        b.w(CNTV_CVAL_EL0, u64::MAX);
        b.w(CNTV_CTL_EL0, CTL_ENABLE);
        assert_eq!(b.queue.next_deadline(), None);
        b.w(CNTV_CVAL_EL0, 10);
        assert_eq!(b.queue.next_deadline(), Some(160));
        b.w(CNTV_CTL_EL0, 0);
        assert_eq!(b.queue.next_deadline(), None);
    }

    #[test]
    fn reset_turns_all_off() {
        let b = bench(2);
        b.w(CNTV_CTL_EL0, CTL_ENABLE);
        b.w(CNTKCTL_EL1, 3);
        assert!(b.lines[0].1.level(), "0 has been reached");
        b.timers.reset();
        assert!(!b.lines[0].1.level());
        assert_eq!((b.r(CNTV_CTL_EL0), b.r(CNTKCTL_EL1)), (0, 0));
    }

    #[test]
    fn a_real_clock_raises_the_line_of_a_gic() {
        let shared = Arc::new(VcpuShared::new(0));
        let config = GicConfig { spis: 32, affinities: vec![0] };
        let gic = GicV3::new(&config, vec![Arc::clone(&shared)]).expect("a GIC");
        let lines = TimerLines {
            physical: gic.ppi(0, PPI_PHYSICAL).expect("a PPI"),
            virtual_: gic.ppi(0, PPI_VIRTUAL).expect("a PPI"),
        };
        let queue = TimerQueue::new(Arc::new(Clock::new(COUNTER_FREQUENCY)));
        let _thread = queue.start().expect("a thread");
        let timers = GenericTimers::new(&queue, vec![lines]);
        use crate::gic::spec::{SGI_BASE, gicd, icc};
        use armlet_memory::AccessSize::Word;
        gic.distributor().write(gicd::CTLR, Word, 3);
        let redistributor = gic.redistributors(0..1);
        redistributor.write(SGI_BASE + 0x80, Word, !0);
        redistributor.write(SGI_BASE + 0x100, Word, !0);
        gic.write_icc_encoding(0, icc::PMR, 0xff);
        gic.write_icc_encoding(0, icc::IGRPEN1, 1);
        for (control, value, intid) in [(CNTV_CTL_EL0, CNTV_TVAL_EL0, 27), (CNTP_CTL_EL0, CNTP_TVAL_EL0, 30)]
        {
            for _ in 0..20 {
                timers.write_encoding(0, value, 3000);
                timers.write_encoding(0, control, CTL_ENABLE);
                while !shared.irq() {
                    std::hint::spin_loop();
                }
                assert_eq!(gic.read_icc_encoding(0, icc::IAR1), intid);
                assert_ne!(timers.read_encoding(0, control) & CTL_ISTATUS, 0);
                timers.write_encoding(0, control, 0);
                gic.write_icc_encoding(0, icc::EOIR1, intid);
                assert!(!shared.irq());
            }
        }
    }

    #[test]
    fn a_restored_one_goes_on_as_the_saved_one_does() {
        let mut random = Random::seeded("timer saved");
        for _ in 0..50 {
            let (one, other) = (bench(2), bench(2));
            let registers =
                [CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTP_TVAL_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTV_TVAL_EL0];
            for bench in [&one, &other] {
                for _ in 0..30 {
                    let register = registers[random.below(6) as usize];
                    bench.timers.write_encoding(random.below(2) as usize, register, random.below(400));
                    bench.pass(random.below(40));
                }
            }
            one.clock.pause();
            other.clock.pause();
            let saved = one.timers.save();
            other.timers.restore(&saved).unwrap();
            assert_eq!(other.timers.save(), saved);
            one.clock.resume();
            other.clock.resume();
            for _ in 0..40 {
                for (a, b) in one.lines.iter().zip(&other.lines) {
                    assert_eq!((a.0.level(), a.1.level()), (b.0.level(), b.1.level()));
                }
                for register in registers.into_iter().chain([CNTVCT_EL0]) {
                    let read = |b: &Bench| b.timers.read_encoding(1, register);
                    assert_eq!(read(&one), read(&other), "{register:#x}");
                }
                let ticks = random.below(20);
                one.pass(ticks);
                other.pass(ticks);
            }
        }
        let b = bench(2);
        let saved = b.timers.save();
        let refused = |change: fn(&mut SavedTimers)| {
            let mut other = saved.clone();
            change(&mut other);
            b.timers.restore(&other).unwrap_err().to_string()
        };
        assert!(refused(|s| s.frequency = 1_000_000_000).contains("CNTFRQ_EL0"));
        assert!(refused(|s| s.cpus.truncate(1)).contains("places"));
        assert!(refused(|s| s.cpus[0].virtual_control = 4).contains("control"));
    }

    #[test]
    fn random_writes_agree_with_the_definition() {
        let b = bench(1);
        let mut random = Random::seeded("timer");
        for _ in 0..20_000 {
            match random.below(6) {
                0 => b.w(CNTV_CTL_EL0, random.next()),
                1 => b.w(CNTV_CVAL_EL0, b.r(CNTVCT_EL0) + random.below(100)),
                2 => b.w(CNTV_CVAL_EL0, random.next()),
                3 => b.w(CNTV_TVAL_EL0, random.next() >> random.below(60)),
                4 => b.w(CNTV_TVAL_EL0, random.below(50)),
                _ => b.pass(random.below(40)),
            }
            let control = b.r(CNTV_CTL_EL0);
            let met = control & CTL_ENABLE != 0 && b.r(CNTVCT_EL0) >= b.r(CNTV_CVAL_EL0);
            assert_eq!(control & CTL_ISTATUS != 0, met);
            assert_eq!(b.lines[0].1.level(), met && control & CTL_IMASK == 0);
        }
    }
}
