//! The few A64 instructions that the test program's frame is made of. Fields as in the Arm ARM; callers give
//! offsets in bytes that the encodings can hold.

/// TPIDR_EL0.
pub const TPIDR_EL0: u32 = 0xde82;
/// NZCV.
pub const NZCV: u32 = 0xda10;
/// FPCR.
pub const FPCR: u32 = 0xda20;
/// FPSR.
pub const FPSR: u32 = 0xda21;

/// CLREX.
pub const CLREX: u32 = 0xd503_305f;
/// SVC #0.
pub const SVC: u32 = 0xd400_0001;

/// MOVZ Xd, #value, LSL #16 * part.
pub const fn movz(d: u32, value: u32, part: u32) -> u32 {
    0xd280_0000 | part << 21 | value << 5 | d
}

/// MOVK Xd, #value, LSL #16 * part.
pub const fn movk(d: u32, value: u32, part: u32) -> u32 {
    0xf280_0000 | part << 21 | value << 5 | d
}

/// MSR.
pub const fn msr(reg: u32, t: u32) -> u32 {
    0xd510_0000 | (reg & 0x7fff) << 5 | t
}

/// MRS.
pub const fn mrs(t: u32, reg: u32) -> u32 {
    0xd530_0000 | (reg & 0x7fff) << 5 | t
}

/// `LDR Xt, [Xn, #offset]`.
pub const fn ldr(t: u32, n: u32, offset: u32) -> u32 {
    0xf940_0000 | (offset / 8) << 10 | n << 5 | t
}

/// `STR Xt, [Xn, #offset]`.
pub const fn str(t: u32, n: u32, offset: u32) -> u32 {
    0xf900_0000 | (offset / 8) << 10 | n << 5 | t
}

/// `LDR Wt, [Xn, #offset]`.
pub const fn ldr_w(t: u32, n: u32, offset: u32) -> u32 {
    0xb940_0000 | (offset / 4) << 10 | n << 5 | t
}

/// `LDP Xt, Xt2, [Xn, #offset]`.
pub const fn ldp(t: u32, t2: u32, n: u32, offset: u32) -> u32 {
    0xa940_0000 | (offset / 8) << 15 | t2 << 10 | n << 5 | t
}

/// `STP Xt, Xt2, [Xn, #offset]`.
pub const fn stp(t: u32, t2: u32, n: u32, offset: u32) -> u32 {
    0xa900_0000 | (offset / 8) << 15 | t2 << 10 | n << 5 | t
}

/// `LDP Qt, Qt2, [Xn, #offset]`.
pub const fn ldp_q(t: u32, t2: u32, n: u32, offset: u32) -> u32 {
    0xad40_0000 | (offset / 16) << 15 | t2 << 10 | n << 5 | t
}

/// `STP Qt, Qt2, [Xn, #offset]`.
pub const fn stp_q(t: u32, t2: u32, n: u32, offset: u32) -> u32 {
    0xad00_0000 | (offset / 16) << 15 | t2 << 10 | n << 5 | t
}

/// MOV SP, Xn.
pub const fn mov_to_sp(n: u32) -> u32 {
    0x9100_0000 | n << 5 | 31
}

/// MOV Xd, SP.
pub const fn mov_from_sp(d: u32) -> u32 {
    0x9100_03e0 | d
}

/// MOV Xd, Xm.
pub const fn mov(d: u32, m: u32) -> u32 {
    0xaa00_03e0 | m << 16 | d
}

/// ADD Xd, Xn, #value.
pub const fn add_imm(d: u32, n: u32, value: u32) -> u32 {
    0x9100_0000 | value << 10 | n << 5 | d
}

/// ADD Xd, Xn, Xm.
pub const fn add(d: u32, n: u32, m: u32) -> u32 {
    0x8b00_0000 | m << 16 | n << 5 | d
}

/// SUBS Xd, Xn, Xm.
pub const fn subs(d: u32, n: u32, m: u32) -> u32 {
    0xeb00_0000 | m << 16 | n << 5 | d
}

/// AND Xd, Xn, #0xf0000000.
pub const fn and_flags(d: u32, n: u32) -> u32 {
    0x9264_0c00 | n << 5 | d
}

/// BR Xn.
pub const fn br(n: u32) -> u32 {
    0xd61f_0000 | n << 5
}

/// B, from `at` to `to`.
pub const fn b(at: u64, to: u64) -> u32 {
    0x1400_0000 | ((to.wrapping_sub(at) >> 2) & 0x3ff_ffff) as u32
}

/// B.NE, from `at` to `to`.
pub const fn b_ne(at: u64, to: u64) -> u32 {
    0x5400_0001 | (((to.wrapping_sub(at) >> 2) & 0x7_ffff) as u32) << 5
}

/// `CBZ Xt`, from `at` to `to`.
pub const fn cbz(t: u32, at: u64, to: u64) -> u32 {
    0xb400_0000 | (((to.wrapping_sub(at) >> 2) & 0x7_ffff) as u32) << 5 | t
}

/// `CBNZ Wt`, from `at` to `to`.
pub const fn cbnz_w(t: u32, at: u64, to: u64) -> u32 {
    0x3500_0000 | (((to.wrapping_sub(at) >> 2) & 0x7_ffff) as u32) << 5 | t
}

/// SUB Wd, Wn, #value.
pub const fn sub_imm_w(d: u32, n: u32, value: u32) -> u32 {
    0x5100_0000 | value << 10 | n << 5 | d
}

/// MOVZ Wd, #value.
pub const fn movz_w(d: u32, value: u32) -> u32 {
    0x5280_0000 | value << 5 | d
}

/// MSR DIT, #0.
pub const MSR_DIT_0: u32 = 0xd503_405f;
/// MSR SSBS, #0.
pub const MSR_SSBS_0: u32 = 0xd503_403f;
/// NOP.
pub const NOP: u32 = 0xd503_201f;
