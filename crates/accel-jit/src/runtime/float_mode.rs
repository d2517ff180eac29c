//! MXCSR while guest code runs: rounding, flags, and what the host traps for where denormal numbers are flushed to zero.
//!
//! The host flushes them without a flag (operands), or with other flags than Arm's (results). Flags are cumulative: while
//! FPSR lacks one, MXCSR has the host trap where it would be set, and the handler sends the instruction that its
//! [mark](crate::host::x86_64::marks) stands before to the reference. So MXCSR depends on FPCR and FPSR; that it
//! traps for more than it has to is never wrong.
#![expect(unsafe_code, reason = "the host's floating-point mode is a register, and its traps are signals")]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use armlet_arm::fp::{FPCR_FZ, FPSR_IDC, FPSR_IXC, FPSR_UFC};
use armlet_arm::state::FpEnv;

use super::context::FPCR_SPECIAL;
use super::state::JitState;
use super::vcpu::JitCore;
use crate::host::x86_64::marks::{self, Mark};

/// MXCSR with every exception masked.
const DEFAULT: u32 = 0x1f80;
/// Flags: all, and those of what is trapped for.
const FLAGS: u32 = 0x3f;
const DENORMAL: u32 = 1 << 1;
const UNDERFLOW: u32 = 1 << 4;
const PRECISION: u32 = 1 << 5;
/// From an exception's flag to its mask.
const TO_MASK: u32 = 7;
/// Denormal operands are zeros; tiny results are.
const DAZ: u32 = 1 << 6;
const FTZ: u32 = 1 << 15;

/// MXCSR for the guest's mode, without flags.
pub(super) fn mxcsr(fp: &FpEnv) -> u32 {
    // RMode: nearest, up, down, zero; RC: nearest, down, up, zero.
    let rc = match fp.fpcr >> 22 & 3 {
        0 => 0,
        1 => 2,
        2 => 1,
        _ => 3,
    };
    let mode = DEFAULT | rc << 13;
    if fp.fpcr & FPCR_FZ == 0 || fp.fpcr & FPCR_SPECIAL != 0 {
        return mode;
    }
    let has = |flags: u32| fp.fpsr & flags == flags;
    let operands = if has(FPSR_IDC) { mode | DAZ } else { mode & !(DENORMAL << TO_MASK) };
    let inexact = if has(FPSR_IXC) { operands } else { operands & !(PRECISION << TO_MASK) };
    // To flush a result, the host says that it is inexact, which Arm does not.
    if has(FPSR_UFC | FPSR_IXC) { inexact | FTZ } else { inexact & !(UNDERFLOW << TO_MASK) }
}

/// Moves the flags of `mxcsr` to FPSR.
pub(super) fn move_flags(mxcsr: &mut u32, fp: &mut FpEnv) {
    // IE, ZE, OE, UE, PE to IOC, DZC, OFC, UFC, IXC; the host's denormal flag has no counterpart here.
    fp.fpsr |= (*mxcsr & 1) | (*mxcsr >> 1 & 0x1e);
    *mxcsr &= !FLAGS;
}

impl JitCore {
    /// Moves the host's cumulative floating-point flags to FPSR, on a slow path.
    pub(super) fn merge_fp_flags(&mut self) {
        let mut csr = self.guest_mxcsr();
        move_flags(&mut csr, &mut self.state_mut().cpu.fp);
        write_mxcsr(csr);
    }

    /// Makes the host round and trap as FPCR and FPSR say, on a slow path.
    pub(super) fn load_fp_mode(&mut self) {
        let fp = &self.state().cpu.fp;
        if fp.fpcr & FPCR_FZ != 0 {
            install_handler();
        }
        let csr = mxcsr(fp) | (self.guest_mxcsr() & FLAGS);
        write_mxcsr(csr);
    }

    /// FPSR may have flags now that it did not have, on a slow path.
    pub(super) fn exceptions_raised(&mut self) {
        if self.state().cpu.fp.fpcr & FPCR_FZ != 0 {
            self.load_fp_mode();
        }
    }

    fn guest_mxcsr(&self) -> u32 {
        let s = self.state();
        if s.mxcsr_away.swap(0, Ordering::Relaxed) != 0 { s.mxcsr_now } else { read_mxcsr() }
    }
}

fn read_mxcsr() -> u32 {
    let mut v = 0u32;
    // SAFETY: stores the register to the variable, nothing else.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut v, options(nostack, preserves_flags)) };
    v
}

fn write_mxcsr(v: u32) {
    // SAFETY: translated code computes under it; of Rust code on slow paths, which hardly does, the handler takes care.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &v, options(nostack, preserves_flags)) };
}

/// Whose translated code a thread executes, and where that is.
#[derive(Clone, Copy)]
struct Current {
    state: *mut JitState,
    from: u64,
    to: u64,
}

const NOBODY: Current = Current { state: ptr::null_mut(), from: 0, to: 0 };

thread_local! {
    /// For the handler. Needs neither making nor dropping.
    static CURRENT: Cell<Current> = const { Cell::new(NOBODY) };
}

/// What the process did about SIGFPE before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// While it lives, traps of this thread are one vCPU's.
pub(super) struct Trapping;

impl Trapping {
    /// `code`: host addresses of the translated code of `state`'s vCPU.
    pub(super) fn begin(state: *mut JitState, code: Range<u64>) -> Self {
        // SAFETY: the vCPU, which owns its state, is about to run on this thread.
        let fpcr = unsafe { (*state).cpu.fp.fpcr };
        if fpcr & FPCR_FZ != 0 {
            install_handler();
        }
        CURRENT.set(Current { state, from: code.start, to: code.end });
        Self
    }
}

impl Drop for Trapping {
    fn drop(&mut self) {
        CURRENT.set(NOBODY);
    }
}

/// True if traps of guests are this module's.
pub(crate) fn handles_traps() -> bool {
    BEFORE.get().is_some()
}

fn install_handler() {
    BEFORE.get_or_init(|| {
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a `sigaction` of zeroes is a valid one; the handler has the signature that its flags promise, and does only
        // what handlers may; what was there before goes to memory of the right size.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_trap as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGFPE, &action, before.as_mut_ptr());
            before.assume_init()
        }
    });
}

extern "C" fn on_trap(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the host passes a valid `info` and context to a handler that is installed with SA_SIGINFO.
    let (sent, context) = unsafe { ((*info).si_code <= 0, &mut *context.cast::<libc::ucontext_t>()) };
    if !sent && go_on(context).is_some() {
        return;
    }
    // A trap happens again when the handler returns, and meets what was there before; what was sent has to be sent again.
    if let Some(before) = BEFORE.get() {
        // SAFETY: the action was in force before; it is only read.
        unsafe { libc::sigaction(libc::SIGFPE, before, ptr::null_mut()) };
    }
    if sent {
        // SAFETY: takes no pointers; the signal waits until this handler returns.
        unsafe { libc::raise(libc::SIGFPE) };
    }
}

/// Goes on behind a trap; None if it is none of translated code's, nor of a function that it called.
fn go_on(context: &mut libc::ucontext_t) -> Option<()> {
    let Current { state, from, to } = CURRENT.get();
    if state.is_null() {
        return None;
    }
    // SAFETY: the host saves the floating-point state where its context says.
    let csr = unsafe { &mut context.uc_mcontext.fpregs.as_mut()?.mxcsr };
    // Other exceptions are masked always; none at all is a division of integers.
    let why = *csr & !(*csr >> TO_MASK) & (DENORMAL | UNDERFLOW | PRECISION);
    if why == 0 {
        return None;
    }
    let flags = *csr & FLAGS & !(DENORMAL | UNDERFLOW | PRECISION);
    let rip = context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    if !(from + marks::LENGTH as u64..to).contains(&rip) {
        // SAFETY: `CURRENT` is only set while the vCPU, which owns its state, runs on this thread. The function that has
        // trapped computes, and does not look at these fields.
        unsafe {
            (*state).mxcsr_now = *csr & !FLAGS | flags;
            (*state).mxcsr_away.store(1, Ordering::Relaxed);
        }
        *csr = DEFAULT;
        return Some(());
    }
    // SAFETY: this is in the translated code, which can be read and which only this thread changes.
    let mark = unsafe { ((rip - marks::LENGTH as u64) as *const [u8; marks::LENGTH]).read_unaligned() };
    match Mark::read(mark)? {
        Mark::Again => {
            let raised = [(DENORMAL, FPSR_IDC), (PRECISION, FPSR_IXC)];
            let raised = raised.into_iter().filter(|(exception, _)| why & exception != 0);
            // SAFETY: as above; translated code was executing, so nobody holds a reference.
            let fp = unsafe { &mut (*state).cpu.fp };
            fp.fpsr |= raised.fold(0, |flags, (_, flag)| flags | flag);
            *csr = mxcsr(fp) | flags;
        }
        Mark::Elsewhere(distance) => {
            *csr = *csr & !FLAGS | flags;
            context.uc_mcontext.gregs[libc::REG_RIP as usize] += i64::from(distance);
        }
    }
    Some(())
}
