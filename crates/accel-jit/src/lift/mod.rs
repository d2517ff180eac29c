//! Guest semantics: each A64 encoding, written once, as a lift to IR.
//!
//! One module per group of encoding classes, one small function per class. A lift function returns `None` for an
//! encoding (or a value of its fields) that is UNDEFINED. Choices where the architecture leaves one
//! (CONSTRAINED UNPREDICTABLE):
//!
//! - should-be bits are ignored;
//! - a load with write-back into its own base register ends with the written-back address;
//! - a load pair with twice the same register ends with the second element;
//! - a store with write-back from its own base register stores the old value;
//! - a store-exclusive whose status register is also a source does the store first.

mod atomics;
mod branch;
mod dp_imm;
mod dp_reg;
mod fields;
mod load_store;
mod ordered;
pub mod pointer;
mod simd;
mod simd_load_store;
mod system;
#[cfg(test)]
pub(crate) mod testing;

use armlet_arm::{Class, Enc, Feature, FeatureSet};

use crate::ir::{Builder, Inst, Raise};

/// What a lift may depend on besides the instruction: everything here is part of a block's key.
#[derive(Clone, Copy, Debug)]
pub struct LiftContext {
    /// What the CPU model has.
    pub features: FeatureSet,
    /// Current exception level.
    pub el: u8,
    /// FP and SIMD instructions are not trapped by CPACR_EL1.
    pub fp_enabled: bool,
    /// FPCR is such that inline floating point is exact (no AH, FIZ, NEP).
    pub fp_inline: bool,
    /// The same of halves (no AHP, FZ16 either).
    pub half_inline: bool,
    /// FPCR.AH: the sign of a NaN has no meaning.
    pub fp_alternate: bool,
    /// FPCR.NEP: scalar results leave the rest of a register as it is in a source.
    pub fp_merge: bool,
    /// SP alignment is checked at this EL.
    pub check_sp: bool,
    /// The page is guarded (FEAT_BTI).
    pub guarded: bool,
    /// Offset of the instruction in its 4 KiB page, bytes. May reach 4092.
    pub offset: u32,
}

/// Where execution goes after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// To the next instruction (side exits may have been emitted).
    Next,
    /// Always to page base + this offset; nothing has been emitted for the jump yet.
    Goto(i64),
    /// The block has ended: its last IR instruction leaves it.
    End,
}

/// Lifts the instruction `word`. An encoding that the model lacks becomes an Undefined exception.
pub fn lift(b: &mut Builder, ctx: &LiftContext, word: u32) -> Flow {
    let Some(enc) = armlet_arm::decode(word).filter(|e| ctx.features.has(e.feature())) else {
        return raise(b, Raise::Undefined);
    };
    let flow = if uses_simd(enc) && !ctx.fp_enabled {
        // An undefined encoding is undefined whether or not FP is trapped, so see first whether it is.
        let mut scratch = Builder::new();
        let enabled = LiftContext { fp_enabled: true, ..*ctx };
        lift_encoding(&mut scratch, &enabled, enc, word).map(|_| raise(b, Raise::FpTrap))
    } else {
        lift_encoding(b, ctx, enc, word)
    };
    flow.unwrap_or_else(|| raise(b, Raise::Undefined))
}

/// Ends the block with an exception.
fn raise(b: &mut Builder, r: Raise) -> Flow {
    b.emit(Inst::Raise(r));
    Flow::End
}

/// True for every instruction that CPACR_EL1.FPEN traps.
fn uses_simd(enc: Enc) -> bool {
    use Class::*;
    match enc.class() {
        // Bit 26 is V in all of loads and stores.
        LdstImmpost | LdstImmpre | LdstPos | LdstRegoff | LdstUnscaled | LdstnapairOffs | LdstpairOff
        | LdstpairPost | LdstpairPre | Loadlit => enc.value() & (1 << 26) != 0,
        Asisdlse | Asisdlsep | Asisdlso | Asisdlsop | LdapstlSimd => true,
        c => is_data_simd(c),
    }
}

/// Advanced SIMD and floating-point data processing.
pub fn is_data_simd(c: Class) -> bool {
    use Class::*;
    matches!(
        c,
        Asimdall
            | Asimddiff
            | Asimdelem
            | Asimdext
            | Asimdimm
            | Asimdins
            | Asimdmisc
            | Asimdmiscfp16
            | Asimdperm
            | Asimdsame
            | Asimdsame2
            | Asimdsamefp16
            | Asimdshf
            | Asimdtbl
            | Asisddiff
            | Asisdelem
            | Asisdmisc
            | Asisdmiscfp16
            | Asisdone
            | Asisdpair
            | Asisdsame
            | Asisdsame2
            | Asisdsamefp16
            | Asisdshf
            | Crypto3Imm2
            | Crypto3Imm6
            | Crypto4
            | Cryptoaes
            | Cryptosha2
            | Cryptosha3
            | Cryptosha5122
            | Cryptosha5123
            | Float2fix
            | Float2int
            | Floatccmp
            | Floatcmp
            | Floatdp1
            | Floatdp2
            | Floatdp3
            | Floatimm
            | Floatsel
    )
}

/// Lifts an encoding that the model has. `None`: UNDEFINED, with nothing of consequence emitted.
fn lift_encoding(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    use Class::*;
    match enc.class() {
        Pcreladdr | MinmaxImm | AddsubImm | LogImm | Movewide | Bitfield | Extract => {
            dp_imm::lift(b, ctx, enc, word)
        }
        LogShift | AddsubShift | AddsubExt | AddsubCarry | CondcmpImm | CondcmpReg | Condsel | Dp1src
        | Dp2src | Dp3src | Rmif | Setf => dp_reg::lift(b, ctx, enc, word),
        BranchReg if enc.feature() == Feature::PAuth => pointer::branch(b, ctx, enc, word),
        LdstPac => pointer::load(b, ctx, word),
        Memcms => load_store::move_memory(b, word),
        LdapstlSimd | LdapstlWriteback | Ldiappstilp => ordered::lift(b, ctx, enc, word),
        Asisdlso if enc.feature() == Feature::Lrcpc3 => ordered::lift(b, ctx, enc, word),
        Systeminstrswithreg => Some(system::wait_until(b, enc, word)),
        BranchImm | BranchReg | Compbranch | Condbranch | Testbranch | Exception | PermUndef => {
            branch::lift(b, ctx, enc, word)
        }
        Barriers | Hints | Pstate | Systeminstrs | Systemmove => system::lift(b, ctx, enc, word),
        LdstImmpost | LdstImmpre | LdstPos | LdstRegoff | LdstUnpriv | LdstUnscaled | LdstnapairOffs
        | LdstpairOff | LdstpairPost | LdstpairPre | Loadlit => load_store::lift(b, ctx, enc, word),
        Ldstexclp | Ldstexclr | Ldstord | LdapstlUnscaled | Memop | Comswap | Comswappr => {
            atomics::lift(b, ctx, enc, word)
        }
        Asisdlse | Asisdlsep | Asisdlso | Asisdlsop => simd_load_store::lift(b, ctx, enc, word),
        c if is_data_simd(c) => simd::lift(b, ctx, enc, word),
        _ => None,
    }
}
