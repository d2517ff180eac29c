//! System registers: names, encodings, storage.

use std::ops::{Index, IndexMut};

macro_rules! sysregs {
    ($($variant:ident $name:literal $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal;)*) => {
        /// A system register that has storage or a device behind it. The discriminant is its index in
        /// [`SysRegs`]; saved state uses the encoding, not the index.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[allow(missing_docs)]
        pub enum SysReg { $($variant),* }

        impl SysReg {
            /// All of them, by index.
            pub const ALL: &[SysReg] = &[$(SysReg::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The Arm ARM's name, such as `SCTLR_EL1`.
            pub const fn name(self) -> &'static str {
                match self { $(SysReg::$variant => $name),* }
            }

            /// The encoding op0:op1:CRn:CRm:op2, 16 bits as in MRS/MSR bits `[20:5]`.
            pub const fn encoding(self) -> u16 {
                match self { $(SysReg::$variant => encoding($op0, $op1, $crn, $crm, $op2)),* }
            }
        }
    };
}

/// Packs op0 (2 or 3), op1, CRn, CRm and op2 as in bits `[20:5]` of MRS and MSR (register).
pub const fn encoding(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    (op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2
}

sysregs! {
    SctlrEl1 "SCTLR_EL1" 3 0 1 0 0;
    Ttbr0El1 "TTBR0_EL1" 3 0 2 0 0;
    Ttbr1El1 "TTBR1_EL1" 3 0 2 0 1;
    TcrEl1 "TCR_EL1" 3 0 2 0 2;
    SpsrEl1 "SPSR_EL1" 3 0 4 0 0;
    ElrEl1 "ELR_EL1" 3 0 4 0 1;
    EsrEl1 "ESR_EL1" 3 0 5 2 0;
    FarEl1 "FAR_EL1" 3 0 6 0 0;
    ParEl1 "PAR_EL1" 3 0 7 4 0;
    MairEl1 "MAIR_EL1" 3 0 10 2 0;
    VbarEl1 "VBAR_EL1" 3 0 12 0 0;
    ContextidrEl1 "CONTEXTIDR_EL1" 3 0 13 0 1;
    TpidrEl1 "TPIDR_EL1" 3 0 13 0 4;
    CpacrEl1 "CPACR_EL1" 3 0 1 0 2;
    TpidrEl0 "TPIDR_EL0" 3 3 13 0 2;
    TpidrroEl0 "TPIDRRO_EL0" 3 3 13 0 3;
}

/// Values of all system registers, indexed by [`SysReg`].
#[derive(Clone, Debug)]
#[repr(C)]
pub struct SysRegs(pub [u64; SysReg::COUNT]);

impl Default for SysRegs {
    fn default() -> Self {
        Self([0; SysReg::COUNT])
    }
}

impl Index<SysReg> for SysRegs {
    type Output = u64;
    fn index(&self, r: SysReg) -> &u64 {
        &self.0[r as usize]
    }
}

impl IndexMut<SysReg> for SysRegs {
    fn index_mut(&mut self, r: SysReg) -> &mut u64 {
        &mut self.0[r as usize]
    }
}

/// System registers that live outside the CPU: the GIC's CPU interface (`ICC_*`) and the generic timers
/// (`CNT*`). The machine gives an implementation to the accelerator. Called on the vCPU's own thread.
pub trait ExternalRegisters: Send + Sync {
    /// Reads `reg` for vCPU `cpu`.
    fn read(&self, cpu: usize, reg: SysReg) -> u64;
    /// Writes `reg` for vCPU `cpu`.
    fn write(&self, cpu: usize, reg: SysReg, value: u64);
}
