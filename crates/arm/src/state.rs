//! The architectural state of one processing element, the same for every accelerator.

use crate::sysreg::SysRegs;

bitflags::bitflags! {
    /// PSTATE, in the layout of `SPSR_EL1` for an exception taken from AArch64 (Arm ARM C5.2.19).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    #[repr(transparent)]
    pub struct Pstate: u32 {
        /// Negative.
        const N = 1 << 31;
        /// Zero.
        const Z = 1 << 30;
        /// Carry.
        const C = 1 << 29;
        /// Overflow.
        const V = 1 << 28;
        /// Tag check override.
        const TCO = 1 << 25;
        /// Data independent timing.
        const DIT = 1 << 24;
        /// User access override.
        const UAO = 1 << 23;
        /// Privileged access never.
        const PAN = 1 << 22;
        /// Software step.
        const SS = 1 << 21;
        /// Illegal execution state.
        const IL = 1 << 20;
        /// All interrupts masked (non-maskable ones too).
        const ALLINT = 1 << 13;
        /// Speculative store bypass safe.
        const SSBS = 1 << 12;
        /// Branch type, bit 1.
        const BTYPE1 = 1 << 11;
        /// Branch type, bit 0.
        const BTYPE0 = 1 << 10;
        /// Debug exceptions masked.
        const D = 1 << 9;
        /// SError masked.
        const A = 1 << 8;
        /// IRQ masked.
        const I = 1 << 7;
        /// FIQ masked.
        const F = 1 << 6;
        /// AArch32 (never set here).
        const AARCH32 = 1 << 4;
        /// Exception level, bit 1.
        const EL_HI = 1 << 3;
        /// Exception level, bit 0.
        const EL_LO = 1 << 2;
        /// Stack pointer select: SP_ELx rather than SP_EL0.
        const SP = 1 << 0;
        const _ = !0;
    }
}

impl Pstate {
    /// The condition flags N, Z, C and V.
    pub const NZCV: Self = Self::N.union(Self::Z).union(Self::C).union(Self::V);
    /// The branch type.
    pub const BTYPE: Self = Self::BTYPE1.union(Self::BTYPE0);
    /// The interrupt masks D, A, I and F.
    pub const DAIF: Self = Self::D.union(Self::A).union(Self::I).union(Self::F);

    /// Current exception level, 0 to 3.
    #[inline]
    pub const fn el(self) -> usize {
        ((self.bits() >> 2) & 3) as usize
    }

    /// True if an interrupt whose line is up would be taken: its own mask is clear.
    #[inline]
    pub const fn takes(self, irq: bool, fiq: bool) -> bool {
        (irq && !self.contains(Self::I)) || (fiq && !self.contains(Self::F))
    }

    /// The same state at exception level `el` with the stack pointer chosen by `sp`.
    #[inline]
    pub const fn with_el(self, el: usize, sp: bool) -> Self {
        Self::from_bits_retain((self.bits() & !0x1f) | ((el as u32) << 2) | sp as u32)
    }
}

/// Floating-point control and status, as floating-point functions take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FpEnv {
    /// FPCR.
    pub fpcr: u32,
    /// FPSR: cumulative exception flags and QC.
    pub fpsr: u32,
}

/// The local exclusive monitor, by value: a store-exclusive succeeds if memory still holds what the
/// load-exclusive read (ABA is not noticed, as the architecture's users expect from other emulators).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ExclusiveMonitor {
    /// Virtual address of the load-exclusive; `u64::MAX` when the monitor is open.
    pub address: u64,
    /// What was read (low half; 64 bits or less), zero-extended.
    pub value_lo: u64,
    /// What was read (high half of a pair).
    pub value_hi: u64,
    /// Bytes read: 1, 2, 4, 8 or 16.
    pub size: u64,
}

/// All architectural registers of one vCPU.
///
/// `x[31]` is the *current* stack pointer; the others are banked in `sp_el`, whose entry for the current
/// one is stale until [`CpuState::bank_sp`].
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct CpuState {
    /// X0 to X30, and the current SP at index 31.
    pub x: [u64; 32],
    /// Program counter.
    pub pc: u64,
    /// Process state. The JIT keeps NZCV elsewhere while translated code runs.
    pub pstate: Pstate,
    /// FPCR and FPSR.
    pub fp: FpEnv,
    /// Index of this vCPU in its machine.
    pub index: u32,
    /// V0 to V31.
    pub v: [u128; 32],
    /// SP_EL0 to SP_EL3.
    pub sp_el: [u64; 4],
    /// The local exclusive monitor.
    pub monitor: ExclusiveMonitor,
    /// System registers.
    pub sys: SysRegs,
}

impl CpuState {
    /// Everything zero, at EL1h with interrupts masked; the CPU model sets the reset values.
    pub fn new(index: u32) -> Self {
        Self {
            x: [0; 32],
            pc: 0,
            pstate: Pstate::DAIF.with_el(1, true),
            fp: FpEnv::default(),
            index,
            v: [0; 32],
            sp_el: [0; 4],
            monitor: ExclusiveMonitor { address: u64::MAX, ..Default::default() },
            sys: SysRegs::default(),
        }
    }

    /// Current exception level.
    #[inline]
    pub fn el(&self) -> usize {
        self.pstate.el()
    }

    /// Index in `sp_el` of the stack pointer in use.
    pub fn sp_index(&self) -> usize {
        if self.pstate.contains(Pstate::SP) { self.el() } else { 0 }
    }

    /// Writes the current SP back to its bank.
    pub fn bank_sp(&mut self) {
        self.sp_el[self.sp_index()] = self.x[31];
    }

    /// Changes PSTATE, switching the stack pointer if EL or SP select changes.
    #[inline]
    pub fn set_pstate(&mut self, new: Pstate) {
        self.bank_sp();
        self.pstate = new;
        self.x[31] = self.sp_el[self.sp_index()];
    }
}
