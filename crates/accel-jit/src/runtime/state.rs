//! The state that translated code works on.

use std::sync::atomic::{AtomicU8, AtomicU32};

use armlet_arm::CpuState;
use armlet_arm::fp::{self, Single};
use armlet_arm::state::FpEnv;

use super::levels::Levels;
use crate::host::x86_64::regs::VECTOR_COPIES;
use crate::ir::VECTOR_SCRATCH;
use crate::mmu::TlbSet;

/// How many temporaries may wait in memory at once.
pub const SPILL_SLOTS: usize = 256;

/// Everything that translated code reaches through rbp. One per vCPU, at a fixed address.
///
/// While translated code runs, the guest registers of [`PINNED`](crate::host::x86_64::regs::PINNED) are in
/// host registers and NZCV is in `nzcv`; both are written back before any Rust code sees `cpu`.
#[repr(C, align(64))]
pub struct JitState {
    /// Architectural state.
    pub cpu: CpuState,
    /// NZCV as LAHF and SETO leave it in AX: bit 0 V, bit 8 NOT C, bit 14 Z, bit 15 N.
    pub nzcv: u16,
    /// Whether a condition holds of which nothing else is kept.
    pub condition: u8,
    /// Nonzero: leave translated code at the next poll.
    pub poll: AtomicU32,
    /// Nonzero: an interrupt line may be up; look when DAIF is cleared.
    pub irq_hint: AtomicU8,
    /// For changes of the exception level.
    pub levels: Levels,
    /// Virtual address of the 4 KiB page that is executing.
    pub page_va: u64,
    /// The TLB set for the current EL (also in r15).
    pub tlb: *mut TlbSet,
    /// The TLB set for unprivileged accesses (LDTR, STTR).
    pub tlb_unprivileged: *mut TlbSet,
    /// Stack pointer inside translated code, to unwind to.
    pub host_sp: u64,
    /// Host's MXCSR, and the guest's.
    pub mxcsr_host: u32,
    /// Guest's MXCSR: rounding mode and cumulative flags.
    pub mxcsr_guest: u32,
    /// Room to look at MXCSR.
    pub mxcsr_now: u32,
    /// Nonzero: MXCSR may have flags that FPSR lacks.
    pub mxcsr_ahead: u32,
    /// Nonzero: a function has the host's MXCSR, and the guest's is in `mxcsr_now`.
    pub mxcsr_away: AtomicU32,
    /// Why translated code was left; see [`Exit`](super::exit::Exit).
    pub exit_code: u32,
    /// What goes with it.
    pub exit_arg: u64,
    /// Second result of a slow path.
    pub result: u64,
    /// Third.
    pub result2: u64,
    /// Nonzero: maintenance was broadcast to other vCPUs and not yet waited for.
    pub sync_pending: u32,
    /// Nonzero: there may have been a store-release since the last barrier, which a load-acquire must not pass.
    pub released: u32,
    /// Where translated code goes on after a slow access.
    pub resume: u64,
    /// Host registers across slow paths: those of temporaries.
    pub saved: [u64; 8],
    /// The same for the vector registers that hold copies.
    pub saved_vectors: [u128; VECTOR_COPIES],
    /// Instructions executed, where they are counted; in blocks that have been left.
    pub count: u64,
    /// Where `count` has to stop.
    pub limit: u64,
    /// Number in its block of the last instruction that may have left by a slow path.
    pub position: u32,
    /// Hash of the instructions executed, if wanted.
    pub trace: u64,
    /// The same before the current instruction.
    pub trace_before: u64,
    /// Blocks entered, if counting.
    pub blocks_run: u64,
    /// Vector helpers called, if counting.
    pub vector_helpers: u64,
    /// Where pointers have their codes: for instruction addresses of the lower and the upper half, then for data.
    pub pauth_mask: [u64; 4],
    /// What is there in pointers without one.
    pub pauth_ones: [u64; 4],
    /// Constants for translated code.
    pub consts: Consts,
    /// Scratch vector registers.
    pub v_scratch: [u128; VECTOR_SCRATCH as usize],
    /// Temporaries that found no host register.
    pub spill: [u64; SPILL_SLOTS],
    /// Link to the Rust side of the vCPU.
    pub vcpu: *mut super::vcpu::JitCore,
}

impl JitState {
    /// Ready to run from `cpu`, once its TLB sets are in place.
    pub fn new(cpu: CpuState) -> Self {
        Self {
            nzcv: nzcv_from_arm(cpu.pstate.bits()),
            cpu,
            condition: 0,
            poll: AtomicU32::new(1),
            irq_hint: AtomicU8::new(1),
            levels: Levels::default(),
            page_va: 0,
            tlb: std::ptr::null_mut(),
            tlb_unprivileged: std::ptr::null_mut(),
            host_sp: 0,
            mxcsr_host: 0x1f80,
            mxcsr_guest: 0x1f80,
            mxcsr_now: 0,
            mxcsr_ahead: 1,
            mxcsr_away: AtomicU32::new(0),
            exit_code: 0,
            exit_arg: 0,
            result: 0,
            result2: 0,
            sync_pending: 0,
            released: 0,
            resume: 0,
            saved: [0; 8],
            saved_vectors: [0; VECTOR_COPIES],
            count: 0,
            limit: 0,
            position: 0,
            trace: 0,
            trace_before: 0,
            blocks_run: 0,
            vector_helpers: 0,
            pauth_mask: [0; 4],
            pauth_ones: [0; 4],
            consts: Consts::default(),
            v_scratch: [0; VECTOR_SCRATCH as usize],
            spill: [0; SPILL_SLOTS],
            vcpu: std::ptr::null_mut(),
        }
    }
}

/// Vector constants that translated code needs in memory.
#[repr(C, align(16))]
pub struct Consts {
    /// Sign bits of two doubles.
    pub sign64: u128,
    /// Sign bits of four singles.
    pub sign32: u128,
    /// Sign bits of eight halves.
    pub sign16: u128,
    /// All but the sign bits of two doubles, four singles, eight halves.
    pub abs: [u128; 3],
    /// The smallest normal numbers: two doubles, four singles, eight halves.
    pub least: [u128; 3],
    /// Low 64 bits set.
    pub low64: u128,
    /// Low 32 bits set.
    pub low32: u128,
    /// All bits set.
    pub ones: u128,
    /// Byte shuffles: reverse in 8, 4 and 2 byte groups.
    pub rev64_8: u128,
    /// Reverse bytes in words.
    pub rev32_8: u128,
    /// Reverse bytes in halfwords.
    pub rev16_8: u128,
    /// Reverse halfwords in doublewords.
    pub rev64_16: u128,
    /// Reverse halfwords in words.
    pub rev32_16: u128,
    /// 0x0f in each byte.
    pub nibble: u128,
    /// Bits set in each nibble value.
    pub nibble_count: u128,
    /// Bytes even first: 0 2 4 … 14, 1 3 … 15.
    pub deinterleave8: u128,
    /// Halfwords even first.
    pub deinterleave16: u128,
    /// 0x70 in each byte (TBL index clamp).
    pub tbl_clamp: u128,
    /// What pointer authentication multiplies by.
    pub pauth_multiplier: u64,
    /// NZCV in the translated code's form, by its architectural value.
    pub nzcv_slots: [u16; 16],
    /// NZCV in the translated code's form, by what UCOMISD leaves in AH.
    /// The second is for operands that were exchanged.
    pub fcmp_slots: [FcmpSlots; 2],
    /// Fractions of FRECPE's results in singles, by the upper 8 bits of the source's.
    pub recip: [u32; 256],
    /// Fractions of FRSQRTE's results in singles, by the lowest bit of the exponent and the upper 8 bits of the fraction.
    pub rsqrt: [u32; 512],
    /// For CRC32: the inverse of the polynomial modulo x^64 (bits reversed, as all), and the polynomial.
    pub crc32: u128,
}

/// NZCV by what UCOMISD leaves in AH.
pub type FcmpSlots = [u16; 72];

const fn bytes(b: [u8; 16]) -> u128 {
    u128::from_le_bytes(b)
}

impl Default for Consts {
    fn default() -> Self {
        Self {
            sign64: 0x8000_0000_0000_0000_8000_0000_0000_0000,
            sign32: 0x8000_0000_8000_0000_8000_0000_8000_0000,
            sign16: 0x8000_8000_8000_8000_8000_8000_8000_8000,
            abs: [
                !0x8000_0000_0000_0000_8000_0000_0000_0000,
                !0x8000_0000_8000_0000_8000_0000_8000_0000,
                !0x8000_8000_8000_8000_8000_8000_8000_8000,
            ],
            least: [
                0x0010_0000_0000_0000_0010_0000_0000_0000,
                0x0080_0000_0080_0000_0080_0000_0080_0000,
                0x0400_0400_0400_0400_0400_0400_0400_0400,
            ],
            low64: u64::MAX as u128,
            low32: u32::MAX as u128,
            ones: u128::MAX,
            rev64_8: bytes([7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8]),
            rev32_8: bytes([3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12]),
            rev16_8: bytes([1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14]),
            rev64_16: bytes([6, 7, 4, 5, 2, 3, 0, 1, 14, 15, 12, 13, 10, 11, 8, 9]),
            rev32_16: bytes([2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13]),
            nibble: bytes([0x0f; 16]),
            nibble_count: bytes([0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4]),
            deinterleave8: bytes([0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15]),
            deinterleave16: bytes([0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15]),
            tbl_clamp: bytes([0x70; 16]),
            pauth_multiplier: armlet_arm::pauth::FAST_MULTIPLIER,
            nzcv_slots: std::array::from_fn(|i| nzcv_from_arm((i as u32) << 28)),
            fcmp_slots: [false, true].map(|swapped| std::array::from_fn(|ah| fcmp_slot(ah, swapped))),
            recip: std::array::from_fn(|i| {
                fraction(fp::recip_estimate::<Single>(
                    &mut FpEnv::default(),
                    127 << 23 | (i as u64) << 15,
                    false,
                ))
            }),
            rsqrt: std::array::from_fn(|i| {
                fraction(fp::rsqrt_estimate::<Single>(
                    &mut FpEnv::default(),
                    126 << 23 | (i as u64) << 15,
                    false,
                ))
            }),
            crc32: 0x0000_0001_db71_0641_b4e5_b025_f701_1641,
        }
    }
}

/// The fraction of a single.
const fn fraction(single: u64) -> u32 {
    single as u32 & 0x007f_ffff
}

/// Unordered is 0011, equal 0110, less 1000, greater 0010 (Arm ARM, FPCompare).
fn fcmp_slot(ah: usize, swapped: bool) -> u16 {
    let nzcv = match (ah & 4 != 0, ah & 0x40 != 0, ah & 1 != 0) {
        (true, ..) => 0b0011,
        (_, true, _) => 0b0110,
        (.., below) if below != swapped => 0b1000,
        _ => 0b0010,
    };
    nzcv_from_arm(nzcv << 28)
}

/// NZCV in PSTATE.
pub const NZCV_BITS: u32 = armlet_arm::Pstate::NZCV.bits();

/// NZCV in bits 31:28, from the form that translated code keeps.
pub const fn nzcv_to_arm(slot: u16) -> u32 {
    let s = slot as u32;
    ((s & 0x8000) << 16) | ((s & 0x4000) << 16) | ((!s & 0x100) << 21) | ((s & 1) << 28)
}

/// The form that translated code keeps, from NZCV in bits 31:28.
pub const fn nzcv_from_arm(nzcv: u32) -> u16 {
    (((nzcv >> 16) & 0xc000) | ((!nzcv >> 21) & 0x100) | ((nzcv >> 28) & 1)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_survive_both_conversions() {
        for f in 0..16u32 {
            assert_eq!(nzcv_to_arm(nzcv_from_arm(f << 28)), f << 28);
        }
    }
}
