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
    Sshl,
    Ushl,
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
}

impl VName {
    /// It has a second source.
    pub const fn reads_m(self) -> bool {
        use VName::*;
        matches!(
            self,
            Sha512h | Sha512h2 | Sha512su1 | Eor3 | Bcax | Rax1 | Xar | Sqadd | Uqadd | Sqsub | Uqsub
        ) || matches!(self, Sqdmulh | Sqrdmulh | Sqdmull | Sqdmlal | Sqdmlsl | Sshl | Ushl | Tbl(_) | Tbx(_))
            || matches!(self, Frecps | Frsqrts)
    }

    /// It has a third source.
    pub const fn reads_a(self) -> bool {
        matches!(self, Self::Eor3 | Self::Bcax)
    }

    /// The destination is an input as well.
    pub const fn reads_d(self) -> bool {
        use VName::*;
        matches!(
            self,
            Sha512h | Sha512h2 | Sha512su0 | Sha512su1 | Suqadd | Usqadd | Sqdmlal | Sqdmlsl | Tbx(_)
        )
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
