//! Branches and exception generation.

use armlet_arm::{Class, Enc};

use super::fields::*;
use super::{Flow, LiftContext, raise};
use crate::ir::{Builder, Cond, Inst, Opnd, Raise, Reg, Test, Width};

/// The link register.
const LR: Reg = Reg(30);

/// Lifts the classes of this module.
pub fn lift(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    match enc.class() {
        Class::BranchImm => Some(immediate(b, ctx, word)),
        Class::Condbranch => Some(conditional(b, ctx, word)),
        Class::Compbranch => Some(compare(b, ctx, word)),
        Class::Testbranch => Some(test_bit(b, ctx, word)),
        Class::BranchReg => register(b, ctx, enc, word),
        Class::Exception => exception(b, ctx, enc, word),
        // UDF is permanently undefined.
        _ => None,
    }
}

/// Page offset that a branch field of words at `lo` leads to.
fn target(ctx: &LiftContext, word: u32, lo: u32, width: u32) -> i64 {
    i64::from(ctx.offset) + sbits(word, lo, width) * 4
}

fn link(b: &mut Builder, ctx: &LiftContext) {
    b.emit(Inst::PcRel { d: LR, offset: i64::from(ctx.offset) + 4 });
}

/// B, BL.
fn immediate(b: &mut Builder, ctx: &LiftContext, word: u32) -> Flow {
    if bit(word, 31) {
        link(b, ctx);
    }
    Flow::Goto(target(ctx, word, 0, 26))
}

/// B.cond (and BC.cond, which only adds a prediction hint).
fn conditional(b: &mut Builder, ctx: &LiftContext, word: u32) -> Flow {
    let target = target(ctx, word, 5, 19);
    let cond = Cond(bits(word, 0, 4) as u8);
    if cond.always() {
        return Flow::Goto(target);
    }
    b.emit(Inst::BranchIf { test: Test::Flags(cond), target });
    Flow::Next
}

/// CBZ, CBNZ.
fn compare(b: &mut Builder, ctx: &LiftContext, word: u32) -> Flow {
    let target = target(ctx, word, 5, 19);
    let nonzero = bit(word, 24);
    let w: Width = sf(word);
    match Builder::xz(rd(word)) {
        Opnd::Reg(r) => {
            let test = if nonzero { Test::NonZero(w, r) } else { Test::Zero(w, r) };
            b.emit(Inst::BranchIf { test, target });
            Flow::Next
        }
        Opnd::Imm(_) if nonzero => Flow::Next,
        Opnd::Imm(_) => Flow::Goto(target),
    }
}

/// TBZ, TBNZ.
fn test_bit(b: &mut Builder, ctx: &LiftContext, word: u32) -> Flow {
    let target = target(ctx, word, 5, 14);
    let set = bit(word, 24);
    let n = ((bits(word, 31, 1) << 5) | bits(word, 19, 5)) as u8;
    match Builder::xz(rd(word)) {
        Opnd::Reg(r) => {
            let test = if set { Test::BitSet(r, n) } else { Test::BitClear(r, n) };
            b.emit(Inst::BranchIf { test, target });
            Flow::Next
        }
        Opnd::Imm(_) if set => Flow::Next,
        Opnd::Imm(_) => Flow::Goto(target),
    }
}

/// Jumps to `to`, which register `from` has held.
pub fn jump(b: &mut Builder, ctx: &LiftContext, to: Opnd, from: u32) {
    // Veneers use X16 and X17, and may go wherever a call may.
    let btype = if ctx.guarded && !matches!(from, 16 | 17) { 3 } else { 1 };
    b.emit(Inst::BranchReg { target: to, call: false, ret: false, btype });
}

/// Calls `to`, which is not the link register.
pub fn call(b: &mut Builder, ctx: &LiftContext, to: Opnd) {
    link(b, ctx);
    b.emit(Inst::BranchReg { target: to, call: true, ret: false, btype: 2 });
}

/// BR, BLR, RET, ERET. DRPS is for debug state only, which a guest never enters.
fn register(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    let to = Builder::xz(rn(word));
    match enc {
        Enc::BR_64_branch_reg => jump(b, ctx, to, rn(word)),
        Enc::RET_64R_branch_reg => b.emit(Inst::BranchReg { target: to, call: false, ret: true, btype: 0 }),
        Enc::BLR_64_branch_reg => {
            // The target may be the link register itself.
            let to = if to == Opnd::Reg(LR) {
                let t = b.temp();
                mov(b, Width::X, t, to);
                t.into()
            } else {
                to
            };
            call(b, ctx, to);
        }
        Enc::ERET_64E_branch_reg if ctx.el > 0 => b.emit(Inst::Eret),
        _ => return None,
    }
    Some(Flow::End)
}

/// SVC, HVC, SMC, BRK, HLT. DCPS1 to DCPS3 are for debug state only.
fn exception(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    let imm = bits(word, 5, 16) as u16;
    let r = match enc {
        Enc::SVC_EX_exception => Raise::Svc(imm),
        Enc::HVC_EX_exception if ctx.el > 0 => Raise::Hvc(imm),
        Enc::SMC_EX_exception if ctx.el > 0 => Raise::Smc(imm),
        Enc::BRK_EX_exception => Raise::Brk(imm),
        Enc::HLT_EX_exception => Raise::Hlt(imm),
        _ => return None,
    };
    Some(raise(b, r))
}
