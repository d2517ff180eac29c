//! The ID register space: op0 = 3, op1 = 0, CRn = 0, CRm = 1 to 7 (Arm ARM D24.2).

/// Names one register of the ID space by CRm and op2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdReg(u8);

#[allow(missing_docs)]
impl IdReg {
    pub const PFR0: Self = Self::new(4, 0);
    pub const PFR1: Self = Self::new(4, 1);
    pub const PFR2: Self = Self::new(4, 2);
    pub const ZFR0: Self = Self::new(4, 4);
    pub const SMFR0: Self = Self::new(4, 5);
    pub const FPFR0: Self = Self::new(4, 7);
    pub const DFR0: Self = Self::new(5, 0);
    pub const DFR1: Self = Self::new(5, 1);
    pub const AFR0: Self = Self::new(5, 4);
    pub const AFR1: Self = Self::new(5, 5);
    pub const ISAR0: Self = Self::new(6, 0);
    pub const ISAR1: Self = Self::new(6, 1);
    pub const ISAR2: Self = Self::new(6, 2);
    pub const ISAR3: Self = Self::new(6, 3);
    pub const MMFR0: Self = Self::new(7, 0);
    pub const MMFR1: Self = Self::new(7, 1);
    pub const MMFR2: Self = Self::new(7, 2);
    pub const MMFR3: Self = Self::new(7, 3);
    pub const MMFR4: Self = Self::new(7, 4);

    /// The register at CRm (0 to 7) and op2 (0 to 7); higher bits are ignored.
    pub const fn new(crm: u8, op2: u8) -> Self {
        Self((crm & 7) << 3 | (op2 & 7))
    }

    /// Those that have a use in AArch64, with the Arm ARM's names, by rising encoding.
    pub const NAMED: [(Self, &'static str); 19] = [
        (Self::PFR0, "ID_AA64PFR0_EL1"),
        (Self::PFR1, "ID_AA64PFR1_EL1"),
        (Self::PFR2, "ID_AA64PFR2_EL1"),
        (Self::ZFR0, "ID_AA64ZFR0_EL1"),
        (Self::SMFR0, "ID_AA64SMFR0_EL1"),
        (Self::FPFR0, "ID_AA64FPFR0_EL1"),
        (Self::DFR0, "ID_AA64DFR0_EL1"),
        (Self::DFR1, "ID_AA64DFR1_EL1"),
        (Self::AFR0, "ID_AA64AFR0_EL1"),
        (Self::AFR1, "ID_AA64AFR1_EL1"),
        (Self::ISAR0, "ID_AA64ISAR0_EL1"),
        (Self::ISAR1, "ID_AA64ISAR1_EL1"),
        (Self::ISAR2, "ID_AA64ISAR2_EL1"),
        (Self::ISAR3, "ID_AA64ISAR3_EL1"),
        (Self::MMFR0, "ID_AA64MMFR0_EL1"),
        (Self::MMFR1, "ID_AA64MMFR1_EL1"),
        (Self::MMFR2, "ID_AA64MMFR2_EL1"),
        (Self::MMFR3, "ID_AA64MMFR3_EL1"),
        (Self::MMFR4, "ID_AA64MMFR4_EL1"),
    ];

    /// CRm.
    pub const fn crm(self) -> u8 {
        self.0 >> 3
    }

    /// op2.
    pub const fn op2(self) -> u8 {
        self.0 & 7
    }
}

/// Values of the whole ID space; what is not set reads as zero, as the architecture reserves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRegisters([u64; 64]);

impl Default for IdRegisters {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl IdRegisters {
    /// The register's value.
    pub const fn get(&self, reg: IdReg) -> u64 {
        self.0[reg.0 as usize]
    }

    /// Sets the whole register.
    pub fn set(&mut self, reg: IdReg, value: u64) {
        self.0[reg.0 as usize] = value;
    }

    /// The four-bit field at bit `lsb`.
    pub const fn field(&self, reg: IdReg, lsb: u32) -> u8 {
        ((self.get(reg) >> lsb) & 0xf) as u8
    }

    /// The four-bit field at bit `lsb`, signed (FP, AdvSIMD, the translation granules).
    pub const fn signed_field(&self, reg: IdReg, lsb: u32) -> i8 {
        ((self.field(reg, lsb) << 4) as i8) >> 4
    }

    /// Sets the four-bit field at bit `lsb`.
    pub fn set_field(&mut self, reg: IdReg, lsb: u32, value: u8) {
        let r = &mut self.0[reg.0 as usize];
        *r = (*r & !(0xf << lsb)) | (u64::from(value & 0xf) << lsb);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_four_bits_wide() {
        let mut ids = IdRegisters::default();
        ids.set_field(IdReg::PFR0, 16, 0x1f);
        assert_eq!(ids.get(IdReg::PFR0), 0xf_0000);
        assert_eq!(ids.field(IdReg::PFR0, 16), 15);
        assert_eq!(ids.signed_field(IdReg::PFR0, 16), -1);
        ids.set_field(IdReg::PFR0, 16, 1);
        assert_eq!(ids.signed_field(IdReg::PFR0, 16), 1);
        assert_eq!(ids.get(IdReg::PFR1), 0);
    }
}
