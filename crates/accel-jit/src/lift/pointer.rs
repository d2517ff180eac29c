//! Pointer authentication (FEAT_PAuth) and branch targets (FEAT_BTI).

use armlet_arm::pauth::{Key, Operation};
use armlet_arm::{Enc, Feature};

use super::fields::*;
use super::{Flow, LiftContext, branch};
use crate::ir::{Addr, Builder, Extend, Inst, Mem, Opnd, Reg, Width};

const LR: Reg = Reg(30);
const ZERO: Opnd = Opnd::Imm(0);

/// `d = operation(d, modifier)`.
fn change(b: &mut Builder, op: Operation, d: Reg, modifier: impl Into<Opnd>) {
    b.emit(Inst::Pauth { op, d, pointer: d.into(), modifier: modifier.into() });
}

/// The hints that sign, authenticate or strip. False for another hint, or if the model does not know them.
pub fn hint(b: &mut Builder, ctx: &LiftContext, enc: Enc) -> bool {
    use Operation::{Authenticate, Sign, Strip};
    if !ctx.features.has(Feature::PAuth) {
        return false;
    }
    let (sp, x16, x17) = (Opnd::Reg(Reg::SP), Opnd::Reg(Reg(16)), Reg(17));
    let (op, d, modifier) = match enc {
        Enc::XPACLRI_HI_hints => (Strip { data: false }, LR, ZERO),
        Enc::PACIA1716_HI_hints => (Sign(Key::Ia), x17, x16),
        Enc::PACIB1716_HI_hints => (Sign(Key::Ib), x17, x16),
        Enc::AUTIA1716_HI_hints => (Authenticate(Key::Ia), x17, x16),
        Enc::AUTIB1716_HI_hints => (Authenticate(Key::Ib), x17, x16),
        Enc::PACIAZ_HI_hints => (Sign(Key::Ia), LR, ZERO),
        Enc::PACIASP_HI_hints => (Sign(Key::Ia), LR, sp),
        Enc::PACIBZ_HI_hints => (Sign(Key::Ib), LR, ZERO),
        Enc::PACIBSP_HI_hints => (Sign(Key::Ib), LR, sp),
        Enc::AUTIAZ_HI_hints => (Authenticate(Key::Ia), LR, ZERO),
        Enc::AUTIASP_HI_hints => (Authenticate(Key::Ia), LR, sp),
        Enc::AUTIBZ_HI_hints => (Authenticate(Key::Ib), LR, ZERO),
        Enc::AUTIBSP_HI_hints => (Authenticate(Key::Ib), LR, sp),
        _ => return false,
    };
    change(b, op, d, modifier);
    true
}

const KEYS: [Key; 4] = [Key::Ia, Key::Ib, Key::Da, Key::Db];

/// PACIA to AUTDB with a modifier or with zero, XPACI, XPACD.
pub fn one_source(b: &mut Builder, word: u32) -> Option<()> {
    let opcode = bits(word, 10, 6);
    let key = KEYS[(opcode & 3) as usize];
    let (op, modifier) = match opcode >> 2 {
        0 => (Operation::Sign(key), Builder::sp(rn(word)).into()),
        1 => (Operation::Authenticate(key), Builder::sp(rn(word)).into()),
        2 => (Operation::Sign(key), ZERO),
        3 => (Operation::Authenticate(key), ZERO),
        4 if opcode & 2 == 0 => (Operation::Strip { data: opcode & 1 != 0 }, ZERO),
        _ => return None,
    };
    let d = Builder::dz(rd(word));
    b.emit(Inst::Pauth { op, d, pointer: Builder::xz(rd(word)), modifier });
    Some(())
}

/// BRAA, BLRAA, RETAA, ERETAA and their other forms.
pub fn branch(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    let second = bit(word, 10);
    let op = Operation::AuthenticateCombined(if second { Key::Ib } else { Key::Ia });
    // opc: 0 BR, 1 BLR, 2 RET, 4 ERET; bit 24: the modifier is a register rather than zero.
    let opc = bits(word, 21, 3);
    if opc == 4 {
        if ctx.el == 0 {
            return None;
        }
        b.emit(Inst::EretAuthenticated { b: second });
        return Some(Flow::End);
    }
    let (pointer, modifier): (Opnd, Opnd) = match (opc, bit(word, 24)) {
        (2, _) => (LR.into(), Reg::SP.into()),
        (_, true) => (Builder::xz(rn(word)), Builder::sp(rd(word)).into()),
        (_, false) => (Builder::xz(rn(word)), ZERO),
    };
    let to = b.temp();
    b.emit(Inst::Pauth { op, d: to, pointer, modifier });
    match opc {
        0 => branch::jump(b, ctx, to.into(), rn(word)),
        1 => branch::call(b, ctx, to.into()),
        2 => b.emit(Inst::BranchReg { target: to.into(), call: false, ret: true, btype: 0 }),
        _ => unreachable!("{enc:?} is no branch"),
    }
    Some(Flow::End)
}

/// LDRAA, LDRAB: the base is authenticated, and written back so if there is write-back.
pub fn load(b: &mut Builder, ctx: &LiftContext, word: u32) -> Option<Flow> {
    let op = Operation::AuthenticateCombined(if bit(word, 23) { Key::Db } else { Key::Da });
    let offset = sbits(word, 12, 9) & 0x1ff | -i64::from(bit(word, 22)) << 9;
    let base = Builder::sp(rn(word));
    check_sp(b, ctx, rn(word));
    let at = b.temp();
    b.emit(Inst::Pauth { op, d: at, pointer: base.into(), modifier: ZERO });
    let whole = b.alu(crate::ir::AluOp::Add, Width::X, at, Opnd::Imm(offset * 8));
    let addr = Addr::offset(whole, 0);
    b.emit(Inst::Load { mem: Mem::plain(3), ext: Extend::Zero, d: Builder::dz(rd(word)), addr });
    if bit(word, 11) {
        mov(b, Width::X, base, whole);
    }
    Some(Flow::Next)
}

/// What may be the first instruction after an indirect branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Landing {
    /// Bit n: PSTATE.BTYPE may be n.
    pub allowed: u8,
    /// For BTYPE 3 it depends on SCTLR_EL1.BT0 or BT1 (PACIASP, PACIBSP).
    pub by_control: bool,
    /// Its exception keeps BTYPE (BRK and HLT, and what is undefined).
    pub keeps: bool,
}

/// What kind of target `word` is.
pub fn landing(ctx: &LiftContext, word: u32) -> Landing {
    const ANY: u8 = 0b1111;
    let landing = |allowed, by_control, keeps| {
        let allowed = if ctx.guarded { allowed } else { ANY };
        Landing { allowed, by_control, keeps }
    };
    match armlet_arm::decode(word) {
        Some(Enc::BTI_HB_hints) => {
            // c: calls, and jumps by X16 and X17; j: jumps.
            landing([0b0001, 0b0111, 0b1011, ANY][bits(word, 6, 2) as usize], false, false)
        }
        Some(Enc::PACIASP_HI_hints | Enc::PACIBSP_HI_hints) if ctx.features.has(Feature::PAuth) => {
            landing(0b0111, true, false)
        }
        Some(Enc::BRK_EX_exception | Enc::HLT_EX_exception) => landing(ANY, false, true),
        Some(enc) if ctx.features.has(enc.feature()) && enc.mnemonic() != "UDF" => {
            landing(0b0001, false, false)
        }
        // Undefined, unless it is no target either.
        _ => landing(0b0001, false, !ctx.guarded),
    }
}
