//! Which architecture feature each encoding belongs to.

use std::sync::LazyLock;

use super::{Class, Enc};
use crate::feature::Feature;

/// By encoding; the rules below work on names, which is too slow for every decoded instruction.
static FEATURES: LazyLock<Vec<Feature>> = LazyLock::new(|| Enc::all().iter().map(|&e| classify(e)).collect());

impl Enc {
    /// The feature without which this encoding is UNDEFINED; [`Feature::Base`] for what every A64 CPU has, and
    /// [`Feature::Absent`] for features that no model of this crate knows.
    ///
    /// The hint space is `Base` throughout: a hint that a CPU does not know executes as NOP (Arm ARM C6.2.*).
    /// Some encodings have forms that need more, chosen by fields (such as half-precision forms of `FMOV`
    /// (immediate)); those have rows of their own in the table.
    pub fn feature(self) -> Feature {
        FEATURES[self as usize]
    }
}

fn classify(e: Enc) -> Feature {
    match e.class() {
        Class::Sve => Feature::Sve,
        Class::Sme => Feature::Sme,
        Class::Hints => Feature::Base,
        c if is_simd(c) => simd(e, c),
        c if is_load_store(c) => load_store(e, c),
        c => base(e, c),
    }
}

fn is_simd(c: Class) -> bool {
    let n = c.name();
    n.starts_with("Asi") && !n.starts_with("Asisdls") || n.starts_with("Float") || n.starts_with("Crypto")
}

fn is_load_store(c: Class) -> bool {
    let n = c.name();
    ["Asisdls", "Ld", "Memop", "Memcms", "Memset", "Comswap", "Rcw", "Loadlit"]
        .iter()
        .any(|p| n.starts_with(p))
}

fn any(s: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|p| s.starts_with(p))
}

/// Control, data processing (immediate), data processing (register).
fn base(e: Enc, c: Class) -> Feature {
    use Class::*;
    let m = e.mnemonic();
    match c {
        CompbranchImm | CompbranchRegs | CompbranchRegs2 => Feature::Absent,
        CompfaultImm | CompfaultRegs | Testfault | TchangeImm | TchangeReg | Systemresult | Extendedhints => {
            Feature::Absent
        }
        Miscbranch | Dp1srcImm => Feature::PAuthLr,
        Syspairinstrs => Feature::SysInstr128,
        Systemmovepr => Feature::SysReg128,
        Systeminstrswithreg => Feature::WfxT,
        MinmaxImm => Feature::Cssc,
        AddsubImmtags => Feature::Mte,
        AddsubPt => Feature::Cpa,
        Rmif | Setf => Feature::FlagM,
        Pstate => match m {
            "CFINV" => Feature::FlagM,
            "XAFLAG" | "AXFLAG" => Feature::FlagM2,
            _ => Feature::Base,
        },
        Barriers => match e {
            Enc::SB_only_barriers => Feature::Sb,
            Enc::DSB_BOn_barriers => Feature::Xs,
            _ => Feature::Base,
        },
        Condbranch if m == "BC" => Feature::Hbc,
        Exception if any(m, &["TENTER", "FLT"]) => Feature::Absent,
        BranchReg => match m {
            "TEXIT" => Feature::Absent,
            "RETAASPPCR" | "RETABSPPCR" => Feature::PAuthLr,
            _ if any(m, &["BRA", "BRB", "BLRA", "BLRB", "RETA", "RETB", "ERETA", "ERETB"]) => Feature::PAuth,
            _ => Feature::Base,
        },
        Dp1src => match m {
            "ABS" | "CNT" | "CTZ" => Feature::Cssc,
            _ if m.contains("SPPC") || m.contains("171615") => Feature::PAuthLr,
            _ if any(m, &["PAC", "AUT", "XPAC"]) => Feature::PAuth,
            _ => Feature::Base,
        },
        Dp2src => match m {
            "SMAX" | "SMIN" | "UMAX" | "UMIN" => Feature::Cssc,
            "GMI" | "IRG" | "SUBP" | "SUBPS" => Feature::Mte,
            "PACGA" => Feature::PAuthGeneric,
            _ if m.starts_with("CRC32") => Feature::Crc32,
            _ => Feature::Base,
        },
        Dp3src if m.ends_with("PT") => Feature::Cpa,
        _ => Feature::Base,
    }
}

fn load_store(e: Enc, c: Class) -> Feature {
    use Class::*;
    let m = e.mnemonic();
    match c {
        Comswap | Comswappr => Feature::Lse,
        ComswapUnpriv | ComswapprUnpriv | LdstexclrUnpriv | MemopUnpriv => Feature::Lsui,
        LdapstlUnscaled => Feature::Lrcpc2,
        LdapstlSimd | LdapstlWriteback => Feature::Lrcpc3,
        Ldiappstilp if any(m, &["LDIAPP", "STILP"]) => Feature::Lrcpc3,
        Ldiappstilp => Feature::Absent,
        LdstGcs => Feature::Gcs,
        LdstPac => Feature::PAuth,
        Ldsttags => Feature::Mte2,
        Memcms if m.starts_with("SETG") => Feature::Mte2,
        Memcms => Feature::Mops,
        MemsetGo => Feature::MopsGo,
        Memop128 if m.starts_with("RCW") => Feature::D128,
        Memop128 => Feature::Lse128,
        Rcwcomswap => Feature::The,
        Rcwcomswappr => Feature::D128,
        LdstnapairOffs | LdstpairOff | LdstpairPost | LdstpairPre => match m {
            "STGP" => Feature::Mte,
            "LDTP" | "STTP" | "LDTNP" | "STTNP" => Feature::Lsui,
            _ => Feature::Base,
        },
        Ldstord if any(m, &["LDLAR", "STLLR"]) => Feature::Lor,
        Asisdlso if any(m, &["LDAP1", "STL1"]) => Feature::Lrcpc3,
        Memop => memop(m),
        _ => Feature::Base,
    }
}

fn memop(m: &str) -> Feature {
    match m {
        "LDAPR" | "LDAPRB" | "LDAPRH" => Feature::Lrcpc,
        "LD64B" | "ST64B" => Feature::Ls64,
        "ST64BV" => Feature::Ls64V,
        "ST64BV0" => Feature::Ls64Accdata,
        "LDA64B" | "STL64B" | "STL64BV" | "STL64BV0" => Feature::Absent,
        _ if m.starts_with("RCW") => Feature::The,
        _ if any(m, &["LDF", "STF", "LDBF", "STBF"]) => Feature::Lsfe,
        _ => Feature::Lse,
    }
}

/// Advanced SIMD and floating point; the class and the name together say the precision.
fn simd(e: Enc, c: Class) -> Feature {
    use Class::*;
    let m = e.mnemonic();
    match c {
        Cryptoaes => Feature::Aes,
        Cryptosha2 | Cryptosha3 if m.starts_with("SHA1") => Feature::Sha1,
        Cryptosha2 | Cryptosha3 => Feature::Sha256,
        Crypto3Imm2 => Feature::Sm3,
        Crypto3Imm6 => Feature::Sha3,
        Crypto4 | Cryptosha5122 | Cryptosha5123 => match m {
            "BCAX" | "EOR3" | "RAX1" => Feature::Sha3,
            "SM4E" | "SM4EKEY" => Feature::Sm4,
            _ if m.starts_with("SM3") => Feature::Sm3,
            _ => Feature::Sha512,
        },
        Asimdtbl if m.starts_with("LUT") => Feature::Lut,
        Asimdsame2 | Asisdsame2 | Asimdelem | Asisdelem => by_mnemonic(m, e.name()),
        Asimdmisc => match m {
            "BFCVTN" => Feature::Bf16,
            _ if any(m, &["BF1CVT", "BF2CVT", "F1CVT", "F2CVT"]) => Feature::Fp8,
            _ if any(m, &["FRINT32", "FRINT64"]) => Feature::Frintts,
            _ => Feature::Base,
        },
        // The 64-bit polynomial product is FEAT_PMULL; the lift checks that form by its size field.
        Asimdmiscfp16 | Asisdmiscfp16 => Feature::Fp16,
        Asimdsame | Asimdsamefp16 if any(m, &["FAMAX", "FAMIN"]) => Feature::Faminmax,
        Asimdsame | Asimdsamefp16 if m == "FSCALE" => Feature::Fp8,
        Asimdsame if any(m, &["FMLAL", "FMLSL"]) => Feature::Fhm,
        Asimdsamefp16 | Asisdsamefp16 => Feature::Fp16,
        Asimdall if half_reduction(e, m) => Feature::Fp16,
        Asisdpair if e.name().ends_with("_H") => Feature::Fp16,
        Asimdimm if e == Enc::FMOV_asimdimm_H_h => Feature::Fp16,
        _ if c.name().starts_with("Float") => float(e, m),
        _ => Feature::Base,
    }
}

fn half_reduction(e: Enc, m: &str) -> bool {
    m.starts_with('F') && e.name().ends_with("_H")
}

/// The classes where features are mixed most: three-same extra and by-element.
fn by_mnemonic(m: &str, name: &str) -> Feature {
    match m {
        "SQRDMLAH" | "SQRDMLSH" => Feature::Rdm,
        "SDOT" | "UDOT" => Feature::DotProd,
        "USDOT" | "SUDOT" | "SMMLA" | "UMMLA" | "USMMLA" => Feature::I8mm,
        "BFDOT" | "BFMLAL" | "BFMMLA" => Feature::Bf16,
        "FCADD" | "FCMLA" => Feature::Fcma,
        "FMLAL" | "FMLAL2" | "FMLSL" | "FMLSL2" => Feature::Fhm,
        "FDOT" if name.contains("FP16FP32") => Feature::Absent,
        "FDOT" if name.ends_with("_D") && name.contains("elem") || name.ends_with("_DD") => Feature::Fp8Dot4,
        "FDOT" => Feature::Fp8Dot2,
        "FCVTN" => Feature::Fp8,
        "FMLALB" | "FMLALT" | "FMLALLBB" | "FMLALLBT" | "FMLALLTB" | "FMLALLTT" => Feature::Fp8Fma,
        "FMMLA" => Feature::Absent,
        _ if name.contains("_RH_H") => Feature::Fp16,
        _ => Feature::Base,
    }
}

/// Scalar floating point. A half-precision operand makes an encoding FEAT_FP16, except in the conversions between
/// half and the other precisions, which every FP unit has.
fn float(e: Enc, m: &str) -> Feature {
    let name = e.name();
    match m {
        "FJCVTZS" => return Feature::Jscvt,
        "BFCVT" => return Feature::Bf16,
        "FCVT" => return Feature::Base,
        "FCMTL" | "FCMTLMG" => return Feature::Absent,
        _ if any(m, &["FRINT32", "FRINT64"]) => return Feature::Frintts,
        _ if any(m, &["FMAXINM", "FMININM", "FMAXMG", "FMINMG"]) => return Feature::Absent,
        _ if name.contains("_sisd_") => return Feature::Fprcvt,
        _ => {}
    }
    // Names are like FADD_H_floatdp2, FCVTZS_32H_float2int, SCVTF_H32_float2fix, FCMP_HZ_floatcmp.
    let operand = name.split('_').nth(1).unwrap_or("");
    if operand.contains('H') { Feature::Fp16 } else { Feature::Base }
}
