//! System registers: names, encodings, storage ([`SysRegs`]) and the rules of access by exception level
//! ([`read()`], [`write()`], [`pstate_write()`]).

mod access;
mod carry;
mod inspect;
mod table;
mod write;

#[cfg(test)]
mod tests;

use std::ops::{Index, IndexMut};

pub use access::{external, fp_access_trapped, fp_access_trapped_at, read, stored};
pub use carry::{can_hold, check_fp, settled};
pub use inspect::{Inspected, inspect, inspectable, modify};
pub use table::SysReg;
pub(crate) use table::{Access, Kind};
pub use write::{Effects, pstate_write, write};

/// Packs op0 (2 or 3), op1, CRn, CRm and op2 as in bits `[20:5]` of MRS and MSR (register).
pub const fn encoding(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    (op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2
}

/// The register that has encoding `enc` in some model; whether it exists in a given model is decided at
/// the access.
pub fn lookup(enc: u16) -> Option<SysReg> {
    table::lookup(enc)
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
    #[inline]
    fn index(&self, r: SysReg) -> &u64 {
        &self.0[r as usize]
    }
}

impl IndexMut<SysReg> for SysRegs {
    #[inline]
    fn index_mut(&mut self, r: SysReg) -> &mut u64 {
        &mut self.0[r as usize]
    }
}

/// System registers that live outside the CPU: the GIC's CPU interface (`ICC_*`), the generic timers'
/// counters, comparators and controls (`CNT*`, but not CNTFRQ_EL0; CNTKCTL_EL1 is only written to it), ISR_EL1
/// (pending interrupts, bits 8 to 6) and the random numbers. The machine gives an implementation to the
/// accelerator. Called on the vCPU's own thread, after the access rules were checked.
pub trait ExternalRegisters: Send + Sync {
    /// Reads `reg` for vCPU `cpu`.
    fn read(&self, cpu: usize, reg: SysReg) -> u64;
    /// Writes `reg` for vCPU `cpu`.
    fn write(&self, cpu: usize, reg: SysReg, value: u64);
}
