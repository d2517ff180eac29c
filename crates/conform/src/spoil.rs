//! Mistakes for the self-test: each changes what lifts say, as a wrong lift would, or which host instructions are made of
//! it, as a wrong code generator would, and must be found. Nothing but the self-test gives them to the executors.

use armlet_accel_jit::helpers::vector::Shape;
#[cfg(target_arch = "x86_64")]
use armlet_accel_jit::host::x86_64::asm::{Misemit, Opc};
use armlet_accel_jit::ir::{
    AluOp, Block, Extend, F1Op, F2Op, FlagOp, Inst, Opnd, Reg, RmwOp, UnaryOp, V3Op, VName, VOperands,
    VShiftOp, Width,
};

/// What a mistake changes.
#[derive(Clone, Copy, Debug)]
pub enum Spoil {
    /// What a lift says.
    Lift(fn(&mut Block)),
    /// Opcode and ModRM.reg of each host instruction.
    #[cfg(target_arch = "x86_64")]
    Host(Misemit),
}

impl Spoil {
    /// What it does to what a lift says.
    pub const fn lift(self) -> Option<fn(&mut Block)> {
        match self {
            Self::Lift(change) => Some(change),
            #[cfg(target_arch = "x86_64")]
            Self::Host(_) => None,
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl From<Spoil> for armlet_accel_jit::mistake::Kind {
    fn from(spoil: Spoil) -> Self {
        match spoil {
            Spoil::Lift(change) => Self::Lift(change),
            Spoil::Host(change) => Self::Host(change),
        }
    }
}

/// A mistake, and the encodings that it is made in.
pub struct Mistake {
    /// What is wrong.
    pub what: &'static str,
    /// Parts of classes' or encodings' names, as [`crate::generate::Plan::new`] takes them.
    pub encodings: &'static str,
    /// Makes it.
    pub spoil: Spoil,
}

/// One of each kind, of the lift.
pub static MISTAKES: &[Mistake] = &[
    Mistake {
        what: "V is inverted by ADDS",
        encodings: "ADDS_64_addsub_imm,ADDS_32_addsub_shift",
        spoil: Spoil::Lift(overflow),
    },
    Mistake { what: "SBCS borrows always", encodings: "SBCS_", spoil: Spoil::Lift(borrow) },
    Mistake {
        what: "a signed load into X is extended to 32 bits",
        encodings: "LDRSB_64",
        spoil: Spoil::Lift(load_extension),
    },
    Mistake {
        what: "SXTW is UXTW",
        encodings: "ADD_64_addsub_ext,SUB_64_addsub_ext",
        spoil: Spoil::Lift(extension),
    },
    Mistake { what: "a signed field is unsigned", encodings: "SBFM_", spoil: Spoil::Lift(field) },
    Mistake {
        what: "a NaN loses to a number in FMAX",
        encodings: "FMAX_S_floatdp2,FMAX_D_floatdp2",
        spoil: Spoil::Lift(maximum),
    },
    Mistake {
        what: "FCMP signals quiet NaNs",
        encodings: "FCMP_S_floatcmp,FCMP_D_floatcmp",
        spoil: Spoil::Lift(signalling),
    },
    Mistake {
        what: "FRINTX is silent",
        encodings: "FRINTX_S_floatdp1,FRINTX_D_floatdp1",
        spoil: Spoil::Lift(inexact),
    },
    Mistake { what: "the high product is unsigned", encodings: "SMULH_64", spoil: Spoil::Lift(product) },
    Mistake {
        what: "a pair is stored the wrong way round",
        encodings: "STP_64_ldstpair_off",
        spoil: Spoil::Lift(pair),
    },
    Mistake {
        what: "an atomic maximum is unsigned",
        encodings: "LDSMAX_64_memop",
        spoil: Spoil::Lift(atomic),
    },
    Mistake { what: "SQADD does not saturate", encodings: "SQADD_asimdsame", spoil: Spoil::Lift(saturation) },
    Mistake { what: "a vector shift is logical", encodings: "SSHR_asimdshf", spoil: Spoil::Lift(shift) },
    Mistake { what: "B.cond branches never", encodings: "condbranch", spoil: Spoil::Lift(branch) },
    Mistake {
        what: "fraction bits count as a number",
        encodings: "FCVTZS_32S_float2fix,SCVTF_D64_float2fix",
        spoil: Spoil::Lift(fraction),
    },
    Mistake { what: "ROR loses bits", encodings: "RORV_", spoil: Spoil::Lift(rotation) },
];

/// One of each kind, of the code generator.
#[cfg(target_arch = "x86_64")]
pub static HOST_MISTAKES: &[Mistake] = &[
    Mistake {
        what: "V is stored inverted",
        encodings: "ADDS_64_addsub_imm,SUBS_32_addsub_shift",
        spoil: Spoil::Host(|o, reg| (replaced(o, (0, 1, 0x90), 0x91), reg)),
    },
    Mistake {
        what: "a sum with carry forgets the carry",
        encodings: "ADC_64_addsub_carry,ADCS_32_addsub_carry",
        spoil: Spoil::Host(|o, reg| (replaced(o, (0, 0, 0x13), 0x03), reg)),
    },
    Mistake {
        what: "a signed load is extended with zeroes",
        encodings: "LDRSB_64_ldst_pos,LDRSB_32_ldst_pos",
        spoil: Spoil::Host(|o, reg| (replaced(o, (0, 1, 0xbe), 0xb6), reg)),
    },
    Mistake {
        what: "SXTW copies",
        encodings: "ADD_64_addsub_ext,SUB_64_addsub_ext",
        spoil: Spoil::Host(|o, reg| (replaced(o, (0, 0, 0x63), 0x8b), reg)),
    },
    Mistake {
        what: "an arithmetic shift is logical",
        encodings: "ASRV_64_dp_2src",
        spoil: Spoil::Host(|o, reg| {
            if (o.pp, o.map, o.op) == (2, 2, 0xf7) { (Opc { pp: 3, ..o }, reg) } else { (o, reg) }
        }),
    },
    Mistake {
        what: "the high product is unsigned",
        encodings: "SMULH_64",
        spoil: Spoil::Host(|o, reg| (o, if (o.map, o.op, reg) == (0, 0xf7, 5) { 4 } else { reg })),
    },
    Mistake {
        what: "a conditional select chooses the other one",
        encodings: "CSEL_64_condsel,CSINC_32_condsel",
        spoil: Spoil::Host(|o, reg| {
            (if (o.map, o.op & 0xf0) == (1, 0x40) { Opc { op: o.op ^ 1, ..o } } else { o }, reg)
        }),
    },
    Mistake {
        what: "leading zeroes are counted from the wrong end",
        encodings: "CLZ_64_dp_1src",
        spoil: Spoil::Host(|o, reg| (replaced(o, (2, 1, 0xbd), 0xbc), reg)),
    },
    Mistake {
        what: "a byte is stored as a word",
        encodings: "STRB_32_ldst_pos",
        spoil: Spoil::Host(|o, reg| (replaced(o, (0, 0, 0x88), 0x89), reg)),
    },
    // SF is never set by a comparison of floating-point numbers.
    Mistake {
        what: "a sum that is a NaN is the host's",
        encodings: "FADD_D_floatdp2,FSUB_S_floatdp2",
        spoil: Spoil::Host(|o, reg| (replaced(o, (0, 1, 0x8a), 0x88), reg)),
    },
    Mistake {
        what: "underflow is looked for after rounding, and a product's NaN is the host's",
        encodings: "FMUL_D_floatdp2,FMUL_S_floatdp2",
        spoil: Spoil::Host(|o, reg| (replaced(o, (0, 1, 0x84), 0x88), reg)),
    },
    Mistake {
        what: "FCMPE does not signal quiet NaNs",
        encodings: "FCMPE_S_floatcmp,FCMPE_D_floatcmp",
        spoil: Spoil::Host(|o, reg| {
            (if (o.map, o.op) == (1, 0x2f) { Opc { op: 0x2e, ..o } } else { o }, reg)
        }),
    },
    Mistake {
        what: "FCVTZS rounds",
        encodings: "FCVTZS_64D_float2int,FCVTZS_32S_float2int",
        spoil: Spoil::Host(|o, reg| {
            (if (o.map, o.op) == (1, 0x2c) { Opc { op: 0x2d, ..o } } else { o }, reg)
        }),
    },
    Mistake {
        what: "vectors are greater if they are equal",
        encodings: "CMGT_asimdsame_only",
        spoil: Spoil::Host(|o, reg| (replaced(o, (1, 1, 0x66), 0x76), reg)),
    },
    Mistake {
        what: "sums of doublewords are sums of words",
        encodings: "ADD_asimdsame_only",
        spoil: Spoil::Host(|o, reg| (replaced(o, (1, 1, 0xd4), 0xfe), reg)),
    },
    Mistake {
        what: "a sum of halves that is a NaN is the host's, and infinity is not",
        encodings: "FADD_asimdsamefp16_only,FSUB_H_floatdp2",
        spoil: Spoil::Host(|o, reg| (replaced(o, (1, 1, 0x65), 0x75), reg)),
    },
    Mistake {
        what: "a shift that saturates forgets what it loses",
        encodings: "SQSHL_asimdsame_only,UQSHL_asimdshf_R",
        spoil: Spoil::Host(|o, reg| (replaced(o, (1, 1, 0x76), 0x66), reg)),
    },
    Mistake {
        what: "the product is subtracted",
        encodings: "SQRDMLAH_asimdsame2_only,SQRDMLAH_asisdelem_R",
        spoil: Spoil::Host(|o, reg| (replaced(o, (1, 1, 0xfe), 0xfa), reg)),
    },
    Mistake {
        what: "fraction bits of vectors count as a number",
        encodings: "FCVTZS_asimdshf_C,SCVTF_asimdshf_C",
        spoil: Spoil::Host(|o, reg| (replaced(o, (0, 1, 0x59), 0x58), reg)),
    },
];

/// Another opcode instead of the one of this prefix and map.
#[cfg(target_arch = "x86_64")]
fn replaced(o: Opc, (pp, map, op): (u8, u8, u8), by: u8) -> Opc {
    if (o.pp, o.map, o.op) == (pp, map, op) { Opc { op: by, ..o } } else { o }
}

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
        if let Inst::VKnown { name: VName::Sqadd, es, op, .. } = *i {
            let VOperands { d, n, m, .. } = op;
            *i = Inst::V3 { op: V3Op::Add, es, q: Shape::of(op).bytes() > 8, d, n, m };
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

fn fraction(block: &mut Block) {
    each(block, |i| {
        if let Inst::F2 { op: op @ F2Op::Mul, .. } = i {
            *op = F2Op::Add;
        }
    });
}

fn rotation(block: &mut Block) {
    each(block, |i| {
        if let Inst::Alu { op: op @ AluOp::Ror, .. } = i {
            *op = AluOp::Shr;
        }
    });
}
