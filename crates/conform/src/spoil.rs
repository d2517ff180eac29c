//! Mistakes for the self-test: each changes what lifts say, as a wrong lift would, and must be found. Nothing but the
//! self-test gives them to the interpreter.

use armlet_accel_jit::ir::{
    AluOp, Block, Extend, F1Op, F2Op, FlagOp, Inst, Opnd, Reg, RmwOp, UnaryOp, V3Op, VShiftOp, Width,
};

use crate::interp::Spoil;

/// A mistake, and the encodings that it is made in.
pub struct Mistake {
    /// What is wrong.
    pub what: &'static str,
    /// Parts of classes' or encodings' names, as [`crate::generate::Plan::new`] takes them.
    pub encodings: &'static str,
    /// Makes it.
    pub spoil: Spoil,
}

/// One of each kind.
pub static MISTAKES: &[Mistake] = &[
    Mistake {
        what: "V is inverted by ADDS",
        encodings: "ADDS_64_addsub_imm,ADDS_32_addsub_shift",
        spoil: overflow,
    },
    Mistake { what: "SBCS borrows always", encodings: "SBCS_", spoil: borrow },
    Mistake {
        what: "a signed load into X is extended to 32 bits",
        encodings: "LDRSB_64",
        spoil: load_extension,
    },
    Mistake { what: "SXTW is UXTW", encodings: "ADD_64_addsub_ext,SUB_64_addsub_ext", spoil: extension },
    Mistake { what: "a signed field is unsigned", encodings: "SBFM_", spoil: field },
    Mistake {
        what: "a NaN loses to a number in FMAX",
        encodings: "FMAX_S_floatdp2,FMAX_D_floatdp2",
        spoil: maximum,
    },
    Mistake {
        what: "FCMP signals quiet NaNs",
        encodings: "FCMP_S_floatcmp,FCMP_D_floatcmp",
        spoil: signalling,
    },
    Mistake { what: "FRINTX is silent", encodings: "FRINTX_S_floatdp1,FRINTX_D_floatdp1", spoil: inexact },
    Mistake { what: "the high product is unsigned", encodings: "SMULH_64", spoil: product },
    Mistake { what: "a pair is stored the wrong way round", encodings: "STP_64_ldstpair_off", spoil: pair },
    Mistake { what: "an atomic maximum is unsigned", encodings: "LDSMAX_64_memop", spoil: atomic },
    Mistake { what: "SQADD does not saturate", encodings: "SQADD_asimdsame", spoil: saturation },
    Mistake { what: "a vector shift is logical", encodings: "SSHR_asimdshf", spoil: shift },
    Mistake { what: "B.cond branches never", encodings: "condbranch", spoil: branch },
    Mistake { what: "ROR loses bits", encodings: "RORV_", spoil: rotation },
];

fn each(block: &mut Block, change: impl Fn(&mut Inst)) {
    block.insts.iter_mut().for_each(change);
}

fn overflow(block: &mut Block) {
    let sets = |i: &Inst| matches!(i, Inst::AluFlags { op: FlagOp::Add, .. });
    if let Some(at) = block.insts.iter().position(sets) {
        let first = Reg::FIRST_TEMP + block.temps;
        let (old, new) = (Reg(first), Reg(first + 1));
        block.temps += 2;
        let (a, b) = (Opnd::Reg(old), Opnd::Imm(1 << 28));
        let invert = Inst::Alu { op: AluOp::Xor, w: Width::X, d: new, a, b };
        let wrong = [Inst::GetNzcv { d: old }, invert, Inst::SetNzcv { s: Opnd::Reg(new) }];
        block.insts.splice(at + 1..at + 1, wrong);
    }
}

fn borrow(block: &mut Block) {
    each(block, |i| {
        if let Inst::AluFlags { op: op @ FlagOp::Sbc, .. } = i {
            *op = FlagOp::Sub;
        }
    });
}

fn load_extension(block: &mut Block) {
    each(block, |i| {
        if let Inst::Load { ext: ext @ Extend::SignX, .. } = i {
            *ext = Extend::SignW;
        }
    });
}

fn extension(block: &mut Block) {
    each(block, |i| match i {
        Inst::Unary { op: op @ UnaryOp::SextW, .. } => *op = UnaryOp::ZextW,
        Inst::Extract { signed, .. } => *signed = false,
        _ => {}
    });
}

fn field(block: &mut Block) {
    each(block, |i| match i {
        Inst::Extract { signed, .. } => *signed = false,
        Inst::Unary { op: op @ UnaryOp::SextB, .. } => *op = UnaryOp::ZextB,
        _ => {}
    });
}

fn maximum(block: &mut Block) {
    each(block, |i| {
        if let Inst::F2 { op: op @ F2Op::Max, .. } = i {
            *op = F2Op::Maxnm;
        }
    });
}

fn signalling(block: &mut Block) {
    each(block, |i| {
        if let Inst::FCmp { signal, .. } = i {
            *signal = true;
        }
    });
}

fn inexact(block: &mut Block) {
    each(block, |i| {
        if let Inst::F1 { op: op @ F1Op::RintX, .. } = i {
            *op = F1Op::RintI;
        }
    });
}

fn product(block: &mut Block) {
    each(block, |i| {
        if let Inst::MulHigh { signed, .. } = i {
            *signed = false;
        }
    });
}

fn pair(block: &mut Block) {
    each(block, |i| {
        if let Inst::StorePair { s1, s2, .. } = i {
            std::mem::swap(s1, s2);
        }
    });
}

fn atomic(block: &mut Block) {
    each(block, |i| {
        if let Inst::AtomicRmw { op: op @ RmwOp::Smax, .. } = i {
            *op = RmwOp::Umax;
        }
    });
}

fn saturation(block: &mut Block) {
    each(block, |i| {
        if let Inst::V3 { op: op @ V3Op::Sqadd, .. } = i {
            *op = V3Op::Add;
        }
    });
}

fn shift(block: &mut Block) {
    each(block, |i| {
        if let Inst::VShift { op: op @ VShiftOp::Sshr, .. } = i {
            *op = VShiftOp::Ushr;
        }
    });
}

fn branch(block: &mut Block) {
    block.insts.retain(|i| !matches!(i, Inst::BranchIf { .. }));
}

fn rotation(block: &mut Block) {
    each(block, |i| {
        if let Inst::Alu { op: op @ AluOp::Ror, .. } = i {
            *op = AluOp::Shr;
        }
    });
}
