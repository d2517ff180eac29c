//! Names of vector instructions that are lifted to functions, and that a host may know a short sequence for.

/// An instruction. What it does is what its function in [`crate::helpers::vector`] does; the name is a hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the names are the instructions'")]
pub enum VName {
    Sha512h,
    Sha512h2,
    Sha512su0,
    Sha512su1,
    Eor3,
    Bcax,
    Rax1,
    Xar,
    Sqadd,
    Uqadd,
    Sqsub,
    Uqsub,
    Suqadd,
    Usqadd,
    Sqabs,
    Sqneg,
    Sqdmulh,
    Sqrdmulh,
    Sqdmull,
    Sqdmlal,
    Sqdmlsl,
    Sqrdmlah,
    Sqrdmlsh,
    Sshl,
    Ushl,
    Srshl,
    Urshl,
    Sqshl,
    Uqshl,
    Sqrshl,
    Uqrshl,
    /// The shape's parameter is the count.
    SqshlImmediate,
    UqshlImmediate,
    Sqshlu,
    Pmul,
    /// Of bytes.
    Pmull,
    Cls,
    Clz,
    Rbit,
    /// Table lookups; the table has 1 to 4 registers.
    Tbl(u8),
    Tbx(u8),
    Frinta,
    /// To integers of the same width, rounding as [`FrintN`](super::V2Op::FrintN) and its kind.
    Fcvtns,
    Fcvtps,
    Fcvtms,
    Fcvtas,
    Fcvtzs,
    Fcvtnu,
    Fcvtpu,
    Fcvtmu,
    Fcvtau,
    Fcvtzu,
    Scvtf,
    Ucvtf,
    Frecpe,
    Frsqrte,
    Frecps,
    Frsqrts,
    Fmulx,
    // Of half precision only; for the others the IR has operations.
    Fadd,
    Fsub,
    Fmul,
    Fnmul,
    Fdiv,
    Fabd,
    Faddp,
    Fmax,
    Fmin,
    Fmaxnm,
    Fminnm,
    Fmaxp,
    Fminp,
    Fmaxnmp,
    Fminnmp,
    Fmla,
    Fmls,
    Fmadd,
    Fmsub,
    Fnmadd,
    Fnmsub,
    Fcmeq,
    Fcmge,
    Fcmgt,
    Facge,
    Facgt,
    FcmeqZero,
    FcmgeZero,
    FcmgtZero,
    Fcmle,
    Fcmlt,
    Fabs,
    Fneg,
    Fsqrt,
    Frintn,
    Frintp,
    Frintm,
    Frintz,
    Frintx,
    Frinti,
    /// Conversions of a scalar between half precision and single or double.
    HalfToSingle,
    HalfToDouble,
    SingleToHalf,
    DoubleToHalf,
}

impl VName {
    /// It has a second source.
    pub const fn reads_m(self) -> bool {
        use VName::*;
        matches!(
            self,
            Sha512h | Sha512h2 | Sha512su1 | Eor3 | Bcax | Rax1 | Xar | Sqadd | Uqadd | Sqsub | Uqsub
        ) || matches!(self, Sqdmulh | Sqrdmulh | Sqdmull | Sqdmlal | Sqdmlsl | Sshl | Ushl | Tbl(_) | Tbx(_))
            || matches!(self, Sqrdmlah | Sqrdmlsh | Srshl | Urshl | Sqshl | Uqshl | Sqrshl | Uqrshl)
            || matches!(self, Pmul | Pmull | Frecps | Frsqrts | Fmulx | Fadd | Fsub | Fmul | Fnmul | Fdiv)
            || matches!(
                self,
                Fabd | Faddp | Fmax | Fmin | Fmaxnm | Fminnm | Fmaxp | Fminp | Fmaxnmp | Fminnmp
            )
            || matches!(self, Fmla | Fmls | Fmadd | Fmsub | Fnmadd | Fnmsub)
            || matches!(self, Fcmeq | Fcmge | Fcmgt | Facge | Facgt)
    }

    /// It has a third source.
    pub const fn reads_a(self) -> bool {
        use VName::*;
        matches!(self, Eor3 | Bcax | Fmadd | Fmsub | Fnmadd | Fnmsub)
    }

    /// The destination is an input as well.
    pub const fn reads_d(self) -> bool {
        use VName::*;
        matches!(
            self,
            Sha512h | Sha512h2 | Sha512su0 | Sha512su1 | Suqadd | Usqadd | Sqdmlal | Sqdmlsl | Tbx(_)
        ) || matches!(self, Sqrdmlah | Sqrdmlsh | Fmla | Fmls)
    }

    /// By the mnemonic of an instruction that does nothing but what its name says.
    pub fn by_mnemonic(mnemonic: &str) -> Option<Self> {
        Some(match mnemonic {
            "SHA512H" => Self::Sha512h,
            "SHA512H2" => Self::Sha512h2,
            "SHA512SU0" => Self::Sha512su0,
            "SHA512SU1" => Self::Sha512su1,
            "EOR3" => Self::Eor3,
            "BCAX" => Self::Bcax,
            "RAX1" => Self::Rax1,
            "XAR" => Self::Xar,
            "SQADD" => Self::Sqadd,
            "UQADD" => Self::Uqadd,
            "SQSUB" => Self::Sqsub,
            "UQSUB" => Self::Uqsub,
            "SUQADD" => Self::Suqadd,
            "USQADD" => Self::Usqadd,
            "SQABS" => Self::Sqabs,
            "SQNEG" => Self::Sqneg,
            "SQDMULH" => Self::Sqdmulh,
            "SQRDMULH" => Self::Sqrdmulh,
            "SQDMULL" => Self::Sqdmull,
            "SQDMLAL" => Self::Sqdmlal,
            "SQDMLSL" => Self::Sqdmlsl,
            "SSHL" => Self::Sshl,
            "USHL" => Self::Ushl,
            "SQRDMLAH" => Self::Sqrdmlah,
            "SQRDMLSH" => Self::Sqrdmlsh,
            "SRSHL" => Self::Srshl,
            "URSHL" => Self::Urshl,
            "SQSHL" => Self::Sqshl,
            "UQSHL" => Self::Uqshl,
            "SQRSHL" => Self::Sqrshl,
            "UQRSHL" => Self::Uqrshl,
            "SQSHLU" => Self::Sqshlu,
            "PMUL" => Self::Pmul,
            "PMULL" => Self::Pmull,
            "CLS" => Self::Cls,
            "FMULX" => Self::Fmulx,
            "FADD" => Self::Fadd,
            "FSUB" => Self::Fsub,
            "FMUL" => Self::Fmul,
            "FNMUL" => Self::Fnmul,
            "FDIV" => Self::Fdiv,
            "FABD" => Self::Fabd,
            "FADDP" => Self::Faddp,
            "FMAX" => Self::Fmax,
            "FMIN" => Self::Fmin,
            "FMAXNM" => Self::Fmaxnm,
            "FMINNM" => Self::Fminnm,
            "FMAXP" => Self::Fmaxp,
            "FMINP" => Self::Fminp,
            "FMAXNMP" => Self::Fmaxnmp,
            "FMINNMP" => Self::Fminnmp,
            "FMLA" => Self::Fmla,
            "FMLS" => Self::Fmls,
            "FMADD" => Self::Fmadd,
            "FMSUB" => Self::Fmsub,
            "FNMADD" => Self::Fnmadd,
            "FNMSUB" => Self::Fnmsub,
            "FCMEQ" => Self::Fcmeq,
            "FCMGE" => Self::Fcmge,
            "FCMGT" => Self::Fcmgt,
            "FACGE" => Self::Facge,
            "FACGT" => Self::Facgt,
            "FCMLE" => Self::Fcmle,
            "FCMLT" => Self::Fcmlt,
            "FABS" => Self::Fabs,
            "FNEG" => Self::Fneg,
            "FSQRT" => Self::Fsqrt,
            "FRINTN" => Self::Frintn,
            "FRINTP" => Self::Frintp,
            "FRINTM" => Self::Frintm,
            "FRINTZ" => Self::Frintz,
            "FRINTX" => Self::Frintx,
            "FRINTI" => Self::Frinti,
            "CLZ" => Self::Clz,
            "RBIT" => Self::Rbit,
            "FRINTA" => Self::Frinta,
            "FCVTNS" => Self::Fcvtns,
            "FCVTPS" => Self::Fcvtps,
            "FCVTMS" => Self::Fcvtms,
            "FCVTAS" => Self::Fcvtas,
            "FCVTZS" => Self::Fcvtzs,
            "FCVTNU" => Self::Fcvtnu,
            "FCVTPU" => Self::Fcvtpu,
            "FCVTMU" => Self::Fcvtmu,
            "FCVTAU" => Self::Fcvtau,
            "FCVTZU" => Self::Fcvtzu,
            "SCVTF" => Self::Scvtf,
            "UCVTF" => Self::Ucvtf,
            "FRECPE" => Self::Frecpe,
            "FRSQRTE" => Self::Frsqrte,
            "FRECPS" => Self::Frecps,
            "FRSQRTS" => Self::Frsqrts,
            _ => return None,
        })
    }
}
