//! The translation context: what blocks and TLB sets depend on, kept in step with the system registers.

use armlet_arm::fp::{FPCR_AH, FPCR_AHP, FPCR_FIZ, FPCR_FZ, FPCR_FZ16, FPCR_NEP};
use armlet_arm::mmu::Context;
use armlet_arm::{Feature, Pstate, SysReg, pauth};

use super::vcpu::JitCore;
use crate::host::x86_64::generate::Options;
use crate::lift::LiftContext;
use crate::mmu::{LowerKey, SpaceKey};

const SCTLR_M: u64 = 1 << 0;
const SCTLR_A: u64 = 1 << 1;
const SCTLR_SA: u64 = 1 << 3;
const SCTLR_SA0: u64 = 1 << 4;
/// FPCR bits that inline floating point cannot honour, and those that it cannot with halves.
pub(super) const FPCR_SPECIAL: u32 = FPCR_FIZ | FPCR_AH | FPCR_NEP;
const FPCR_SPECIAL_HALVES: u32 = FPCR_AHP | FPCR_FZ16;

/// Bits of a block's context.
pub(super) mod bit {
    pub const EL1: u16 = crate::cache::EL1;
    pub const SP_EL1: u16 = 1 << 1;
    pub const FP: u16 = 1 << 2;
    pub const FP_INLINE: u16 = 1 << 3;
    pub const CHECK_SP: u16 = 1 << 4;
    pub const ALIGN: u16 = 1 << 5;
    /// Made for debugging.
    pub const DEBUG: u16 = 1 << 6;
    pub const FP_ALTERNATE: u16 = 1 << 7;
    pub const FP_MERGE: u16 = 1 << 8;
    /// In a guarded page. Only in the keys of blocks.
    pub const GUARDED: u16 = 1 << 9;
    // Bits 10 and 11 are the cache's.
    /// Denormal numbers are flushed to zero.
    pub const FP_FLUSH: u16 = 1 << 12;
    pub const HALF_INLINE: u16 = 1 << 13;
}

/// System registers that TLB contents were made under.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Regime {
    sctlr: u64,
    tcr: u64,
    mair: u64,
    ttbr0: u64,
    ttbr1: u64,
}

/// All that decides what `update_context` finds.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Inputs {
    regime: Regime,
    cpacr: u64,
    fpcr: u32,
    pstate: Pstate,
    /// The debugger's part: whether each instruction is a block, and whether blocks are made for it.
    debug: [bool; 2],
}

/// TTBR1_EL1 without its ASID.
const TTBR_TABLE: u64 = 0x0000_ffff_ffff_fffe;

impl JitCore {
    /// Brings everything that depends on registers up to date. Cheap if nothing has changed.
    pub(super) fn update_context(&mut self) {
        let now = self.inputs();
        if self.inputs != Some(now) {
            self.inputs = Some(now);
            self.update_sets(now.regime);
        }
        let s = self.state_mut();
        let [el0, el1] = s.levels.sets;
        let (user, uao) = (s.cpu.el() == 0, s.cpu.pstate.contains(Pstate::UAO));
        s.tlb = if user { el0 } else { el1 };
        s.tlb_unprivileged = if user || !uao { el0 } else { el1 };
    }

    fn inputs(&self) -> Inputs {
        let cpu = &self.state().cpu;
        let sys = &cpu.sys;
        let regime = Regime {
            sctlr: sys[SysReg::SctlrEl1],
            tcr: sys[SysReg::TcrEl1],
            mair: sys[SysReg::MairEl1],
            ttbr0: sys[SysReg::Ttbr0El1],
            ttbr1: sys[SysReg::Ttbr1El1],
        };
        let level = Pstate::empty().with_el(3, true);
        Inputs {
            regime,
            cpacr: sys[SysReg::CpacrEl1],
            fpcr: cpu.fp.fpcr,
            pstate: cpu.pstate & (level | Pstate::PAN),
            debug: [self.debug.each(), self.debug.shapes_code()],
        }
    }

    fn update_sets(&mut self, regime: Regime) {
        self.update_regime(regime);
        let s = self.state();
        let el = s.cpu.el();
        let sp = s.cpu.pstate.contains(Pstate::SP);
        let contexts = [self.context_bits(0, false), self.context_bits(1, true)];
        let context = if el == 0 || sp { contexts[el & 1] } else { self.context_bits(1, false) };
        if el != 0 {
            let pan = self.pan();
            // EL0 has sets of its own; its PAN, which means nothing there, is not that of EL1.
            self.sets.set_lower(LowerKey { ttbr0: self.regime.ttbr0, asid: self.mmu.asid(), pan });
        }
        if self.el_context[el & 1] != context {
            self.el_context[el & 1] = context;
            // Branch targets found under another context lead to blocks made for it.
            if el == 0 { self.sets.clear_el0_jumps() } else { self.sets.clear_el1_jumps() }
        }
        self.prepare_levels(contexts);
    }

    /// The context at the current exception level.
    pub(super) fn context(&self) -> u16 {
        self.el_context[self.state().cpu.el() & 1]
    }

    /// PSTATE.PAN.
    pub(super) fn pan(&self) -> bool {
        self.state().cpu.pstate.contains(Pstate::PAN)
    }

    /// TTBR0_EL1 as it was looked at last.
    pub(super) fn ttbr0(&self) -> u64 {
        self.regime.ttbr0
    }

    fn update_regime(&mut self, now: Regime) {
        let old = self.regime;
        if now == old {
            return;
        }
        self.regime = now;
        if (now.sctlr, now.tcr, now.mair) == (old.sctlr, old.tcr, old.mair) {
            self.mmu.set_tables([now.ttbr0, now.ttbr1]);
        } else {
            self.mmu = Context::new(&self.state().cpu, &self.machine.model);
            self.update_pointer_fields();
            self.prepare_entry();
            self.sets.clear();
        }
        let asid = self.mmu.asid();
        self.sets.switch_el1(now.ttbr1 & TTBR_TABLE, asid);
        self.sets.switch(SpaceKey { ttbr0: now.ttbr0, ttbr1: now.ttbr1 }, asid);
    }

    /// Where pointers have their codes.
    fn update_pointer_fields(&mut self) {
        for (i, data) in [false, true].into_iter().enumerate() {
            for (upper, ones) in [(false, 0), (true, u64::MAX)] {
                let mask = pauth::code_mask(&self.mmu, upper, data);
                let at = 2 * i + usize::from(upper);
                let s = self.state_mut();
                (s.pauth_mask[at], s.pauth_ones[at]) = (mask, mask & ones);
            }
        }
    }

    fn context_bits(&self, el: usize, sp: bool) -> u16 {
        let cpu = &self.state().cpu;
        let el1 = el > 0;
        let sctlr = self.regime.sctlr;
        let mut bits = 0;
        let mut set = |on: bool, bit: u16| bits |= if on { bit } else { 0 };
        set(el1, bit::EL1);
        set(sp, bit::SP_EL1);
        set(self.debug.shapes_code(), bit::DEBUG);
        set(!armlet_arm::sysreg::fp_access_trapped_at(cpu, el), bit::FP);
        set(cpu.fp.fpcr & FPCR_SPECIAL == 0, bit::FP_INLINE);
        set(cpu.fp.fpcr & FPCR_FZ != 0, bit::FP_FLUSH);
        set(cpu.fp.fpcr & FPCR_SPECIAL_HALVES == 0, bit::HALF_INLINE);
        set(cpu.fp.fpcr & FPCR_AH != 0, bit::FP_ALTERNATE);
        set(cpu.fp.fpcr & FPCR_NEP != 0, bit::FP_MERGE);
        set(sctlr & if el1 { SCTLR_SA } else { SCTLR_SA0 } != 0, bit::CHECK_SP);
        set(sctlr & SCTLR_A != 0 || sctlr & SCTLR_M == 0, bit::ALIGN);
        bits
    }

    pub(super) fn lift_context(&self) -> LiftContext {
        let context = self.context();
        let on = |bit| context & bit != 0;
        LiftContext {
            features: *self.machine.model.features(),
            el: u8::from(on(bit::EL1)),
            fp_enabled: on(bit::FP),
            fp_inline: on(bit::FP_INLINE),
            half_inline: on(bit::HALF_INLINE),
            fp_alternate: on(bit::FP_ALTERNATE),
            fp_merge: on(bit::FP_MERGE),
            check_sp: on(bit::CHECK_SP),
            guarded: false,
            offset: 0,
        }
    }

    pub(super) fn generator_options(&self) -> Options {
        let context = self.context();
        let on = |bit| context & bit != 0;
        Options {
            smp: self.machine.smp && self.machine.options.counter.is_none(),
            count: self.machine.options.count,
            align_check: on(bit::ALIGN),
            el1h: on(bit::EL1) && on(bit::SP_EL1),
            el0: !on(bit::EL1),
            sha: self.machine.options.host_sha && std::arch::is_x86_feature_detected!("sha"),
            avx512: self.machine.options.avx512,
            upper_first: self.machine.options.upper_first,
            // Strict tracking of code may withhold a page at any access.
            watch: false,
            windows: !on(bit::ALIGN) && !self.machine.options.strict,
            fp: on(bit::FP),
            flush: on(bit::FP_FLUSH) && on(bit::FP_INLINE),
            cache_type: [self.machine.model.ctr(), self.machine.model.dczid()],
            spsr_mask: self.machine.model.spsr_mask(),
            counted: self.machine.options.counter.is_some(),
            trace: self.machine.options.trace,
            bti: self.machine.model.has(Feature::Bti),
            landing: None,
            pauth: self.machine.model.has(Feature::PAuth),
            pauth_inline: pauth::is_fast(&self.machine.model),
            lse2: self.machine.model.has(Feature::Lse2),
            ecv: self.machine.model.has(Feature::Ecv),
            features: *self.machine.model.features(),
            marks: self.machine.options.samples.is_some(),
        }
    }
}
