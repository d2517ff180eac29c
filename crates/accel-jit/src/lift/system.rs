//! System instructions: hints, barriers, PSTATE, system registers, maintenance.

use armlet_arm::{Class, Enc, Feature, sysreg};

use super::fields::*;
use super::{Flow, LiftContext, pointer};
use crate::ir::{AluOp, Barrier, Builder, Hint, Inst, Opnd, Reg, Width};

/// NZCV, the only system register that is part of the JIT's own register state.
const NZCV: u16 = sysreg::encoding(3, 3, 4, 2, 0);

/// Floating-point control: readable at every EL if floating point is enabled.
const FPCR: u16 = sysreg::encoding(3, 3, 4, 4, 0);

/// Lifts the classes of this module.
pub fn lift(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    match enc.class() {
        Class::Hints if pointer::hint(b, ctx, enc) => {}
        Class::Hints => hint(b, enc),
        Class::Barriers => return barrier(b, ctx, enc, word),
        Class::Pstate => pstate(b, ctx, enc, word)?,
        Class::Systemmove => register(b, ctx, word),
        Class::Systeminstrs => {
            // SYSL has no instruction in any feature that a model has.
            if enc != Enc::SYS_CR_systeminstrs {
                return None;
            }
            b.emit(Inst::Sys { enc: bits(word, 5, 16) as u16, s: Builder::xz(rd(word)) });
        }
        _ => return None,
    }
    Some(Flow::Next)
}

/// The hint space: what is not listed does nothing, whatever the model.
fn hint(b: &mut Builder, enc: Enc) {
    let hint = match enc {
        Enc::YIELD_HI_hints => Hint::Yield,
        Enc::WFE_HI_hints => Hint::Wfe,
        Enc::WFI_HI_hints => Hint::Wfi,
        Enc::SEV_HI_hints => Hint::Sev,
        Enc::SEVL_HI_hints => Hint::Sevl,
        _ => return,
    };
    b.emit(Inst::Hint(hint));
}

/// WFIT, WFET.
pub fn wait_until(b: &mut Builder, enc: Enc, word: u32) -> Flow {
    let event = enc == Enc::WFET_only_systeminstrswithreg;
    b.emit(Inst::WaitUntil { event, until: Builder::xz(rd(word)) });
    Flow::Next
}

/// CLREX, DMB, DSB, ISB, SB.
fn barrier(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    match enc {
        Enc::CLREX_BN_barriers => b.emit(Inst::ClearEx),
        Enc::DSB_BO_barriers | Enc::DSB_BOn_barriers => b.emit(Inst::Barrier(Barrier::Sync)),
        Enc::DMB_BO_barriers => b.emit(Inst::Barrier(match bits(word, 8, 2) {
            1 => Barrier::Load,
            2 => Barrier::Store,
            _ => Barrier::Full,
        })),
        Enc::ISB_BI_barriers => {
            // What follows may have been changed by what came before: it is fetched anew.
            b.emit(Inst::Barrier(Barrier::Instruction));
            b.emit(Inst::Branch { target: i64::from(ctx.offset) + 4 });
            return Some(Flow::End);
        }
        Enc::SB_only_barriers => {}
        _ => return None,
    }
    Some(Flow::Next)
}

/// MSR (immediate), CFINV, XAFLAG, AXFLAG.
fn pstate(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<()> {
    match enc {
        Enc::CFINV_M_pstate => {
            let t = b.temp();
            b.emit(Inst::GetNzcv { d: t });
            let t = b.alu(AluOp::Xor, Width::X, t, Opnd::Imm(1 << 29));
            b.emit(Inst::SetNzcv { s: t.into() });
        }
        Enc::AXFLAG_M_pstate => arm_to_external(b),
        Enc::XAFLAG_M_pstate => external_to_arm(b),
        _ => {
            let (op1, imm, op2) = (bits(word, 16, 3) as u8, bits(word, 8, 4) as u8, bits(word, 5, 3) as u8);
            let (needs, privileged) = match (op1, op2) {
                (0, 3) => (Feature::Uao, true),
                (0, 4) => (Feature::Pan, true),
                (0, 5) => (Feature::Base, true),
                (3, 1) => (Feature::Ssbs2, false),
                (3, 2) => (Feature::Dit, false),
                (3, 6 | 7) => (Feature::Base, false),
                _ => return None,
            };
            if !ctx.features.has(needs) || (privileged && ctx.el == 0) {
                return None;
            }
            b.emit(Inst::PstateImm { op1, op2, imm });
        }
    }
    Some(())
}

/// Bit `n` of `s` as 0 or 1.
fn flag(b: &mut Builder, s: Reg, n: u8) -> Reg {
    let d = b.temp();
    b.emit(Inst::Extract { signed: false, w: Width::X, d, s: s.into(), lsb: n, width: 1 });
    d
}

/// Sets NZCV from four values of 0 or 1.
fn set_flags(b: &mut Builder, flags: [Opnd; 4]) {
    let mut all = Opnd::Imm(0);
    for (f, n) in flags.into_iter().zip([31, 30, 29, 28]) {
        let d = b.temp();
        alu(b, AluOp::Shl, Width::X, d, (f, Opnd::Imm(n)));
        let sum = b.temp();
        alu(b, AluOp::Or, Width::X, sum, (all, d.into()));
        all = sum.into();
    }
    b.emit(Inst::SetNzcv { s: all });
}

/// AXFLAG: N = 0, Z = Z or V, C = C and not V, V = 0.
fn arm_to_external(b: &mut Builder) {
    let t = b.temp();
    b.emit(Inst::GetNzcv { d: t });
    let (z, c, v) = (flag(b, t, 30), flag(b, t, 29), flag(b, t, 28));
    let z = b.alu(AluOp::Or, Width::X, z, v);
    let c = b.alu(AluOp::AndNot, Width::X, c, v);
    set_flags(b, [Opnd::Imm(0), z.into(), c.into(), Opnd::Imm(0)]);
}

/// XAFLAG: N = not C and not Z, Z = Z and C, C = C or Z, V = not C and Z.
fn external_to_arm(b: &mut Builder) {
    let t = b.temp();
    b.emit(Inst::GetNzcv { d: t });
    let (z, c) = (flag(b, t, 30), flag(b, t, 29));
    let either = b.alu(AluOp::Or, Width::X, z, c);
    let n = b.alu(AluOp::Xor, Width::X, either, Opnd::Imm(1));
    let both = b.alu(AluOp::And, Width::X, z, c);
    let v = b.alu(AluOp::AndNot, Width::X, z, c);
    set_flags(b, [n.into(), both.into(), either.into(), v.into()]);
}

/// MRS, MSR (register).
fn register(b: &mut Builder, ctx: &LiftContext, word: u32) {
    let enc = bits(word, 5, 16) as u16;
    let read = bit(word, 21);
    match (read, enc) {
        (true, NZCV) if rd(word) == 31 => {}
        (true, NZCV) => b.emit(Inst::GetNzcv { d: Builder::dz(rd(word)) }),
        (false, NZCV) => b.emit(Inst::SetNzcv { s: Builder::xz(rd(word)) }),
        // Arithmetic on quad precision in software reads this for every operation.
        (true, FPCR) if ctx.fp_enabled && rd(word) != 31 => {
            b.emit(Inst::GetFpcr { d: Builder::dz(rd(word)) });
        }
        (true, _) => b.emit(Inst::SysRead { d: Builder::dz(rd(word)), enc }),
        (false, _) => b.emit(Inst::SysWrite { enc, s: Builder::xz(rd(word)) }),
    }
}
