//! Samples of where guest code executes.
//!
//! The host sends each thread that runs vCPUs a signal for each period of the time that it has used. The handler only
//! notes the host's program counter and a few registers, and asks the vCPU to leave translated code at its next poll;
//! there, in ordinary code, the host address becomes a guest address, and the guest's stack is followed.
#![expect(
    unsafe_code,
    reason = "a signal handler looks at the vCPU that it interrupts, and a timer is the host's"
)]

use std::cell::Cell;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use armlet_arm::SysReg;
use armlet_arm::mmu::{self, Access, AccessKind, Unchanged};
use armlet_engine::samples::{MAX_CALLERS, Stack};
use armlet_memory::AccessSize;

use super::state::JitState;
use super::vcpu::JitCore;

/// The signal that means that a period is over.
const SIGNAL: i32 = libc::SIGPROF;

/// Register of the frame record, by the procedure call standard (AAPCS64, 6.2.3).
const FP: usize = 29;
const LR: usize = 30;

/// What the handler notes. Only the vCPU's thread, and the handler on it, touch it.
pub(super) struct Tick {
    state: *mut JitState,
    /// Host addresses of translated code.
    code: std::ops::Range<u64>,
    /// Periods that were not looked at yet; what follows belongs to the first of them.
    periods: AtomicU64,
    /// The host's program counter if it was in translated code, else 0.
    rip: AtomicU64,
    page_va: AtomicU64,
    fp: AtomicU64,
    lr: AtomicU64,
}

impl Tick {
    pub(super) fn new(state: *mut JitState, code: std::ops::Range<u64>) -> Box<Self> {
        let zero = || AtomicU64::new(0);
        Box::new(Self { state, code, periods: zero(), rip: zero(), page_va: zero(), fp: zero(), lr: zero() })
    }
}

/// A timer of this thread's time on the host.
struct ThreadTimer(libc::timer_t);

impl ThreadTimer {
    fn start(period: Duration) -> std::io::Result<Self> {
        let check = |result| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
        let period =
            libc::timespec { tv_sec: period.as_secs() as i64, tv_nsec: i64::from(period.subsec_nanos()) };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: a `sigevent` of zeroes is a valid one.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        // SAFETY: takes nothing.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        // SAFETY: both are valid for the call.
        check(unsafe { libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &mut event, &mut timer) })?;
        let timer = Self(timer);
        // SAFETY: the timer was just made; `times` is valid for the call.
        check(unsafe { libc::timer_settime(timer.0, 0, &times, ptr::null_mut()) })?;
        Ok(timer)
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `start` and is deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

thread_local! {
    /// The vCPU that this thread runs now, for the handler. Needs neither making nor dropping.
    static CURRENT: Cell<*const Tick> = const { Cell::new(ptr::null()) };
    /// The timer, made when the first vCPU of the thread first runs.
    static TIMER: Cell<Option<ThreadTimer>> = const { Cell::new(None) };
    /// Its name, for the handler.
    static TIMER_ID: Cell<libc::timer_t> = const { Cell::new(ptr::null_mut()) };
}

/// While it lives, signals go to one vCPU.
pub(super) struct Sampling;

impl Sampling {
    /// Samples `tick`'s vCPU on this thread, once for each `period`.
    pub(super) fn begin(tick: &Tick, period: Duration) -> Self {
        install_handler();
        CURRENT.set(tick);
        let timer = TIMER.take().or_else(|| match ThreadTimer::start(period) {
            Ok(timer) => Some(timer),
            Err(e) => {
                tracing::warn!("this CPU cannot be profiled: the host gives no timer ({e})");
                None
            }
        });
        TIMER_ID.set(timer.as_ref().map_or(ptr::null_mut(), |timer| timer.0));
        TIMER.set(timer);
        Self
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
    }
}

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a `sigaction` of zeroes is a valid one.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_period as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: the handler has the signature that its flags promise, and does only what handlers may.
        unsafe { libc::sigaction(SIGNAL, &action, ptr::null_mut()) };
    });
}

extern "C" fn on_period(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let tick = CURRENT.get();
    if tick.is_null() {
        return;
    }
    // SAFETY: `CURRENT` is only set while the vCPU, which owns it, runs on this thread.
    let tick = unsafe { &*tick };
    // The host looks at its threads' time at its own pace, which may be slower: then several periods are over.
    // SAFETY: the timer is this thread's, and it sent this signal; the call may be made in handlers.
    let more = unsafe { libc::timer_getoverrun(TIMER_ID.get()) };
    let before = tick.periods.load(Ordering::Relaxed);
    tick.periods.store(before + 1 + u64::try_from(more).unwrap_or_default(), Ordering::Relaxed);
    if before != 0 {
        return;
    }
    // SAFETY: the host passes a valid context to a handler that is installed with SA_SIGINFO.
    let rip =
        unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] } as u64;
    let inside = tick.code.contains(&rip);
    tick.rip.store(if inside { rip } else { 0 }, Ordering::Relaxed);
    let s = tick.state;
    // SAFETY: the state is alive as the vCPU is. Only this thread writes these fields, and it is here; they are read
    // through a pointer, and where the vCPU was in the middle of changing them they may be old, which samples may be.
    unsafe {
        tick.page_va.store(ptr::read_volatile(&raw const (*s).page_va), Ordering::Relaxed);
        tick.fp.store(ptr::read_volatile(&raw const (*s).cpu.x[FP]), Ordering::Relaxed);
        tick.lr.store(ptr::read_volatile(&raw const (*s).cpu.x[LR]), Ordering::Relaxed);
        (*s).poll.store(1, Ordering::SeqCst);
    }
}

impl JitCore {
    /// Adds what the handler has noted since the last time. Called where the architectural state is complete but for
    /// the flags.
    pub(super) fn take_sample(&mut self) {
        let Some(tick) = &self.tick else { return };
        let periods = tick.periods.swap(0, Ordering::Relaxed);
        if periods == 0 {
            return;
        }
        let noted = |field: &AtomicU64| field.load(Ordering::Relaxed);
        let (rip, page, fp, lr) = (noted(&tick.rip), noted(&tick.page_va), noted(&tick.fp), noted(&tick.lr));
        let block = self.cache.instruction_at(rip);
        let cpu = &self.state().cpu;
        let (pc, el) = match block {
            Some((offset, el)) => (page + u64::from(offset), el),
            None => (cpu.pc, cpu.el() as u8),
        };
        let vectors = cpu.sys[SysReg::VbarEl1];
        let asid = if el == 0 { self.mmu.asid() } else { 0 };
        let stack = Stack { el, asid, pc, lr, callers: self.callers(fp), accelerator: block.is_none() };
        if let Some(samples) = &self.machine.options.samples {
            samples.add(stack, periods, vectors);
        }
    }

    /// Return addresses, by the chain of frame records that begins at `fp`.
    fn callers(&self, mut fp: u64) -> Vec<u64> {
        let mut callers = Vec::new();
        while fp != 0 && fp.is_multiple_of(8) && callers.len() < MAX_CALLERS {
            let (Some(next), Some(back)) = (self.peek(fp), self.peek(fp.wrapping_add(8))) else { break };
            if back == 0 {
                break;
            }
            callers.push(back);
            if next == fp {
                break;
            }
            fp = next;
        }
        callers
    }

    /// A doubleword of guest RAM, as EL1 would read it; looking changes nothing.
    fn peek(&self, va: u64) -> Option<u64> {
        let ram = self.machine.memory.ram();
        let access = Access { kind: AccessKind::Read, el: 1, pan: false };
        let tables = Unchanged(|pa| ram.load(pa, AccessSize::Double));
        let pa = mmu::translate(&self.mmu, &tables, va, access).ok()?.pa;
        ram.load(pa, AccessSize::Double)
    }
}
