//! The intermediate representation: what a lifted guest instruction means.
//!
//! A [`Block`] is a straight line of [`Inst`]s with side exits, for one superblock inside one guest page.
//! Values live in *guest registers* or in *temporaries*; there is no phi and no spill code. An instruction
//! that may fault stands before every write of guest state by the same guest instruction, so state is
//! always precise at a fault; [`Inst::Start`] tells which guest instruction the following ones belong to.
//!
//! 32-bit operations ([`Width::W`]) read the low halves of their operands and zero-extend their result.

mod builder;
mod constants;
pub mod interp;
mod interp_vector;
mod known;
pub mod vectors;
pub mod visit;
pub use builder::Builder;
pub use known::VName;

use armlet_arm::fp::Rounding;
use armlet_arm::pauth;
use armlet_arm::state::FpEnv;

/// A 64-bit value's place: X0 to X30 are 0 to 30, the current SP is 31, temporaries are from 32 on.
/// The zero register has no place: reads of it are [`Opnd::Imm`] 0, writes to it go to [`Reg::NONE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct Reg(pub u8);

impl Reg {
    /// The current stack pointer.
    pub const SP: Self = Self(31);
    /// Destination of results that nobody wants.
    pub const NONE: Self = Self(255);
    /// Number of the first temporary.
    pub const FIRST_TEMP: u8 = 32;
    /// Temporaries that one block may have.
    pub const MAX_TEMPS: u8 = 200;

    /// True for X0 to X30 and SP.
    pub const fn is_guest(self) -> bool {
        self.0 < Self::FIRST_TEMP
    }

    /// True for a temporary. Each is written exactly once.
    pub const fn is_temp(self) -> bool {
        self.0 >= Self::FIRST_TEMP && self.0 != Self::NONE.0
    }
}

/// A vector register: V0 to V31 are 0 to 31; 32 to 39 are scratch, valid inside one guest instruction.
pub type VReg = u8;

/// Scratch vector registers behind V31.
pub const VECTOR_SCRATCH: u8 = 8;

/// An input: a register or a constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opnd {
    /// A register or temporary.
    Reg(Reg),
    /// A constant, sign-extended to 64 bits.
    Imm(i64),
}

impl From<Reg> for Opnd {
    fn from(r: Reg) -> Self {
        Self::Reg(r)
    }
}

/// Operation width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 32 bits.
    W,
    /// 64 bits.
    X,
}

impl Width {
    /// From the `sf` bit.
    pub const fn from_sf(sf: bool) -> Self {
        if sf { Self::X } else { Self::W }
    }

    /// 32 or 64.
    pub const fn bits(self) -> u32 {
        match self {
            Self::W => 32,
            Self::X => 64,
        }
    }
}

/// Two-operand integer operations that leave the flags alone. Shift counts are taken modulo the width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum AluOp {
    Add,
    Sub,
    And,
    Or,
    Xor,
    /// a AND NOT b
    AndNot,
    /// a OR NOT b
    OrNot,
    /// a XOR NOT b
    XorNot,
    Shl,
    Shr,
    Sar,
    Ror,
    Mul,
}

/// Two-operand operations that set NZCV as the Arm ARM's AddWithCarry or logical operations do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlagOp {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a + b + C
    Adc,
    /// a - b - NOT C
    Sbc,
    /// a AND b; C and V become 0
    And,
    /// a AND NOT b; C and V become 0
    AndNot,
}

/// One-operand integer operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum UnaryOp {
    Not,
    Neg,
    /// Absolute value; of the smallest number itself.
    Abs,
    /// Count of ones.
    Cnt,
    Clz,
    /// Count of trailing zeros.
    Ctz,
    /// Count leading sign bits (CLS).
    Cls,
    Rbit,
    /// Reverse all bytes of the width.
    Rev,
    /// Reverse bytes in each 16-bit lane.
    Rev16,
    /// Reverse bytes in each 32-bit lane (64-bit only).
    Rev32,
    SextB,
    SextH,
    /// 32 to 64 bits.
    SextW,
    ZextB,
    ZextH,
    /// 32 to 64 bits.
    ZextW,
}

/// A condition, numbered as in the architecture: EQ, NE, CS, CC, MI, PL, VS, VC, HI, LS, GE, LT, GT, LE, AL, NV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cond(pub u8);

impl Cond {
    /// The opposite; AL and NV are their own.
    pub const fn invert(self) -> Self {
        if self.0 >= 14 { self } else { Self(self.0 ^ 1) }
    }

    /// True for AL and NV.
    pub const fn always(self) -> bool {
        self.0 >= 14
    }

    /// ConditionHolds, for N, Z, C and V in bits 3 to 0 (Arm ARM, shared pseudocode).
    pub const fn holds_for(self, nzcv: u8) -> bool {
        let (n, z, c, v) = (nzcv & 8 != 0, nzcv & 4 != 0, nzcv & 2 != 0, nzcv & 1 != 0);
        let base = match self.0 >> 1 {
            0 => z,
            1 => c,
            2 => n,
            3 => v,
            4 => c && !z,
            5 => n == v,
            6 => n == v && !z,
            _ => return true,
        };
        base != (self.0 & 1 != 0)
    }
}

/// What a side exit or conditional branch tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Test {
    /// NZCV.
    Flags(Cond),
    /// Register is zero.
    Zero(Width, Reg),
    /// Register is not zero.
    NonZero(Width, Reg),
    /// Bit is clear.
    BitClear(Reg, u8),
    /// Bit is set.
    BitSet(Reg, u8),
}

/// How the second input of a conditional select is changed before it is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum SelectOp {
    None,
    Increment,
    Invert,
    Negate,
}

/// A memory address: `base + (index << shift) + disp`, 64-bit wrapping. For an index that is extended from
/// 32 bits, the lift extends into a temporary first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addr {
    /// Base (SP's alignment check is a separate [`Inst::CheckSp`]).
    pub base: Opnd,
    /// Index register.
    pub index: Option<Reg>,
    /// Left shift of the index, 0 to 4.
    pub shift: u8,
    /// Displacement.
    pub disp: i32,
}

impl Addr {
    /// `base + disp`.
    pub const fn offset(base: Reg, disp: i32) -> Self {
        Self { base: Opnd::Reg(base), index: None, shift: 0, disp }
    }
}

/// Ordering of a memory access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// None.
    Plain,
    /// LDAPR: acquire, may pass an earlier store-release.
    AcquirePc,
    /// LDAR, LDAXR, …A forms.
    Acquire,
    /// STLR, STLXR, …L forms.
    Release,
    /// …AL forms.
    AcquireRelease,
}

/// How an access is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mem {
    /// log2 of the bytes of one element: 0 to 3, and 4 for vector registers.
    pub size: u8,
    /// log2 of the bytes that an element is a multiple of where alignment counts: `size`, and less for a vector
    /// register of elements that are accesses of their own (LD1 to LD4).
    pub align: u8,
    /// Ordering. Ordered accesses must be aligned, and exclusive and atomic ones always (the backend checks).
    pub order: Order,
    /// As EL0 (LDTR, STTR), unless PSTATE.UAO says otherwise.
    pub unprivileged: bool,
}

impl Mem {
    /// A plain access of `1 << size` bytes.
    pub const fn plain(size: u8) -> Self {
        Self { size, align: size, order: Order::Plain, unprivileged: false }
    }

    /// True if `bytes` in all may be accessed at `address`, SCTLR_ELx.{A,nAA} being 0, by a CPU with FEAT_LSE2 or
    /// without (Arm ARM J1.1, AArch64.UnalignedAccessFaults).
    pub const fn may_be_at(self, address: u64, bytes: u64, lse2: bool) -> bool {
        let aligned = address.is_multiple_of(1 << self.align);
        matches!(self.order, Order::Plain) || aligned || lse2 && address % 16 + bytes <= 16
    }
}

/// What happens to a loaded integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extend {
    /// Zero-extend to 64 bits.
    Zero,
    /// Sign-extend to 32 bits, then zero-extend.
    SignW,
    /// Sign-extend to 64 bits.
    SignX,
}

/// Read-modify-write operations of FEAT_LSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum RmwOp {
    Add,
    /// memory AND NOT operand (LDCLR)
    Clr,
    Eor,
    Set,
    Smax,
    Smin,
    Umax,
    Umin,
    Swp,
}

/// Exceptions that an instruction raises by itself. The preferred return address follows from the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Raise {
    /// Undefined instruction (EC 0).
    Undefined,
    /// FP or SIMD access trapped by CPACR_EL1.FPEN (EC 7).
    FpTrap,
    /// SVC #imm.
    Svc(u16),
    /// HVC #imm.
    Hvc(u16),
    /// SMC #imm.
    Smc(u16),
    /// BRK #imm.
    Brk(u16),
    /// HLT #imm.
    Hlt(u16),
    /// PC alignment fault.
    PcAlignment,
    /// PSTATE.IL is set.
    IllegalState,
}

/// Barriers that the backend has to order memory for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// DMB of loads, or loads and stores as ISHLD: nothing to do on a strongly ordered host.
    Load,
    /// DMB ISHST.
    Store,
    /// DMB ISH or SY.
    Full,
    /// DSB: also completes TLB and instruction-cache maintenance.
    Sync,
    /// ISB.
    Instruction,
}

/// Hints with an effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Hint {
    Yield,
    Wfe,
    Wfi,
    Sev,
    Sevl,
}

/// Element-wise vector operations with two inputs, done inline. `es` is log2 of the element's bytes.
/// Results of 64-bit forms (`q` false) zero the upper half.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the names are the instructions'")]
pub enum V3Op {
    And,
    Bic,
    Orr,
    Orn,
    Eor,
    Add,
    Sub,
    Mul,
    CmEq,
    CmGt,
    CmGe,
    CmHi,
    CmHs,
    CmTst,
    Smax,
    Smin,
    Umax,
    Umin,
    Urhadd,
    Addp,
    Zip1,
    Zip2,
    Uzp1,
    Uzp2,
    Trn1,
    Trn2,
    /// d = d + n * m
    Mla,
    /// d = d - n * m
    Mls,
    /// Bitwise select: d = (d & n) | (!d & m)
    Bsl,
    /// Insert if true: d = (n & m) | (d & !m)
    Bit,
    /// Insert if false: d = (n & !m) | (d & m)
    Bif,
    /// TBL with one table register: n is the table, m the indices.
    Tbl1,
    Aese,
    Aesd,
    /// 64x64 to 128 polynomial multiply of the low halves (of the high halves if `q`).
    Pmull64,
    /// Floating point, elements of 4 or 8 bytes.
    Fadd,
    Fsub,
    Fmul,
    Fdiv,
    /// d = d + n * m, fused
    Fmla,
    /// d = d - n * m, fused
    Fmls,
    /// Comparisons to masks; FcmGe and FcmGt signal quiet NaNs.
    FcmEq,
    FcmGe,
    FcmGt,
    Fmax,
    Fmin,
    Fmaxnm,
    Fminnm,
    /// |n - m|
    Fabd,
    /// Products of the low 32 bits of 64-bit elements, `es` 3.
    SmulLow,
    UmulLow,
    /// d = d + the sum of the products of four bytes, `es` 2; in the last, n is unsigned and m signed.
    Sdot,
    Udot,
    Usdot,
    /// d = d + n * m transposed, as matrices of two rows of eight bytes.
    Smmla,
    Ummla,
    Usmmla,
    /// These three read d.
    Sha256h,
    Sha256h2,
    Sha256su1,
    /// These four read d, too.
    Sha1c,
    Sha1p,
    Sha1m,
    Sha1su0,
}

/// Vector operations with one input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the names are the instructions'")]
pub enum V2Op {
    Mov,
    Not,
    Neg,
    Abs,
    Rev64,
    Rev32,
    Rev16,
    Cnt,
    Aesmc,
    Aesimc,
    /// Sign- or zero-extend the low (or, if `q`, high) half's elements of size `es` to the next size.
    Sxtl,
    Uxtl,
    /// Narrow elements of size `es + 1` to `es`; `q` writes the upper half and keeps the lower.
    Xtn,
    Fneg,
    Fabs,
    Fsqrt,
    CmEqZero,
    CmGtZero,
    CmGeZero,
    CmLtZero,
    CmLeZero,
    /// Saturating narrowing, as Xtn.
    Sqxtn,
    Uqxtn,
    /// From signed to unsigned.
    Sqxtun,
    /// Roundings to integral values, `es` 2 or 3.
    FrintN,
    FrintP,
    FrintM,
    FrintZ,
    FrintX,
    FrintI,
    /// To signed 32-bit integers, rounding towards zero; `es` 2.
    Fcvtzs,
    /// From signed 32-bit integers; `es` 2.
    Scvtf,
    /// From the low (`q`: high) half's elements of size `es` (1 or 2) to the next precision.
    Fcvtl,
    /// From elements of size `es + 1` to `es` (1 or 2); `q` writes the upper half and keeps the lower.
    Fcvtn,
    /// Reads d.
    Sha256su0,
    Sha1h,
    /// Reads d.
    Sha1su1,
}

/// Vector shifts by a constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the names are the instructions'")]
pub enum VShiftOp {
    Shl,
    Sshr,
    Ushr,
    /// d += n >> imm, signed
    Ssra,
    /// d += n >> imm, unsigned
    Usra,
    /// Insert: d = (n << imm) | low bits of d
    Sli,
    /// Insert: d = (n >> imm) | high bits of d
    Sri,
}

/// Scalar floating-point operations with two inputs (single and double). The upper part of d is zeroed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the names are the instructions'")]
pub enum F2Op {
    Add,
    Sub,
    Mul,
    Div,
    Nmul,
    Min,
    Max,
    Minnm,
    Maxnm,
}

/// Scalar floating-point operations with one input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the names are the instructions'")]
pub enum F1Op {
    Mov,
    Neg,
    Abs,
    Sqrt,
    /// FCVT to the other precision (single to double, double to single): `double` is the source's.
    Cvt,
    /// FRINTN, P, M, Z, X, I.
    RintN,
    RintP,
    RintM,
    RintZ,
    RintX,
    RintI,
}

/// Fused multiply-add forms: FMADD a+n*m, FMSUB a-n*m, FNMADD -a-n*m, FNMSUB -a+n*m.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the names are the instructions'")]
pub enum F3Op {
    Madd,
    Msub,
    Nmadd,
    Nmsub,
}

/// Operands of a vector helper, packed by the lift.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(C)]
pub struct VOperands {
    /// Destination (also third source where the instruction reads it).
    pub d: u8,
    /// First source.
    pub n: u8,
    /// Second source.
    pub m: u8,
    /// Third source.
    pub a: u8,
    /// Anything else: shift, index, rounding mode, …
    pub imm: u32,
}

/// A vector or floating-point instruction as a function: reads and writes whole registers.
pub type VectorHelper = extern "C" fn(&mut FpEnv, &mut [u128; 32], VOperands);
/// The same with a general register in and one out (FMOV, FCVTZS Xd, UMOV, SCVTF Xn; FCMP gives NZCV in
/// bits 31:28).
pub type VectorGprHelper = extern "C" fn(&mut FpEnv, &mut [u128; 32], VOperands, u64) -> u64;

/// One IR instruction. Field names: d destination, s source, a and b or n and m inputs, w width, q 128-bit form,
/// es log2 of element bytes, enc system-register encoding.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug)]
pub enum Inst {
    /// The guest instruction at this offset in the page begins (its word is kept for syndromes).
    Start { offset: u16, word: u32 },

    // ---- integer ----
    /// d = s
    Mov { w: Width, d: Reg, s: Opnd },
    /// d = a op b
    Alu { op: AluOp, w: Width, d: Reg, a: Opnd, b: Opnd },
    /// d = a op b, NZCV set. `d` may be [`Reg::NONE`].
    AluFlags { op: FlagOp, w: Width, d: Reg, a: Opnd, b: Opnd },
    /// d = a + b + C (`sub`: a - b - NOT C), flags kept.
    AddCarry { sub: bool, w: Width, d: Reg, a: Opnd, b: Opnd },
    /// d = op s
    Unary { op: UnaryOp, w: Width, d: Reg, s: Opnd },
    /// d = s[lsb .. lsb + width], sign- or zero-extended to w. lsb + width <= bits of w.
    Extract { signed: bool, w: Width, d: Reg, s: Opnd, lsb: u8, width: u8 },
    /// d = into with bits [lsb .. lsb + width] replaced by the low bits of s (BFI, BFXIL by an Extract first).
    Insert { w: Width, d: Reg, into: Opnd, s: Opnd, lsb: u8, width: u8 },
    /// d = (hi:lo) >> lsb, low half (EXTR). lsb < bits of w.
    Extr { w: Width, d: Reg, hi: Opnd, lo: Opnd, lsb: u8 },
    /// d = high 64 bits of the 128-bit product.
    MulHigh { signed: bool, d: Reg, a: Opnd, b: Opnd },
    /// d = a / b as Arm divides: by zero gives 0, MIN / -1 gives MIN.
    Div { signed: bool, w: Width, d: Reg, a: Opnd, b: Opnd },
    /// d = the larger (`max`) or the smaller of a and b
    MinMax { max: bool, signed: bool, w: Width, d: Reg, a: Opnd, b: Opnd },
    /// d = pointer, signed, authenticated or stripped; may trap.
    Pauth { op: pauth::Operation, d: Reg, pointer: Opnd, modifier: Opnd },
    /// CRC32 (poly 0x04C11DB7) or CRC32C (`c`) of `1 << size` bytes of `data` into `acc`.
    Crc32 { c: bool, size: u8, d: Reg, acc: Opnd, data: Opnd },
    /// d = cond ? a : op(b)
    Select { op: SelectOp, w: Width, d: Reg, cond: Cond, a: Opnd, b: Opnd },
    /// NZCV = cond ? flags(a - b, or a + b if `add`) : nzcv (bits N=3, Z=2, C=1, V=0)
    CondCompare { add: bool, w: Width, a: Opnd, b: Opnd, cond: Cond, nzcv: u8 },
    /// d = NZCV in bits 31:28
    GetNzcv { d: Reg },
    /// NZCV = bits 31:28 of s
    SetNzcv { s: Opnd },
    /// d = virtual address of this page + offset (ADR, ADRP, links, literals)
    PcRel { d: Reg, offset: i64 },

    // ---- memory ----
    /// Faults with SP alignment if SP is used as base and not 16-byte aligned (SCTLR_EL1.SA/SA0 is in the key).
    CheckSp,
    /// d = memory
    Load { mem: Mem, ext: Extend, d: Reg, addr: Addr },
    /// Two elements next to each other, one access for permission and alignment. d1 or d2 may be the base.
    LoadPair { mem: Mem, ext: Extend, d1: Reg, d2: Reg, addr: Addr },
    /// memory = s
    Store { mem: Mem, s: Opnd, addr: Addr },
    /// Two elements.
    StorePair { mem: Mem, s1: Opnd, s2: Opnd, addr: Addr },
    /// Vector register = memory, zero-extended to 128 bits (mem.size 0 to 4).
    LoadV { mem: Mem, d: VReg, addr: Addr },
    /// Two of them.
    LoadVPair { mem: Mem, d1: VReg, d2: VReg, addr: Addr },
    /// memory = low bytes of a vector register.
    StoreV { mem: Mem, s: VReg, addr: Addr },
    /// Two of them.
    StoreVPair { mem: Mem, s1: VReg, s2: VReg, addr: Addr },
    /// Load-exclusive: as Load, and sets the monitor. With `d2` a pair (of 4 or 8 byte elements).
    LoadEx { mem: Mem, d: Reg, d2: Option<Reg>, addr: Addr },
    /// Store-exclusive: status (a register or NONE) = 0 if stored, 1 if not.
    StoreEx { mem: Mem, status: Reg, s: Opnd, s2: Option<Opnd>, addr: Addr },
    /// CLREX.
    ClearEx,
    /// d (may be NONE) = old memory; memory = op(old, s).
    AtomicRmw { op: RmwOp, mem: Mem, d: Reg, s: Opnd, addr: Addr },
    /// Compare `expected` with memory, store `new` if equal; d = old memory (CAS: d is expected's register).
    Cas { mem: Mem, d: Reg, expected: Opnd, new: Opnd, addr: Addr },
    /// CASP: pairs of 4- or 8-byte elements, d and d + 1 expected and old, s and s + 1 new. d and s are even;
    /// the register behind 30 is the zero register, not SP.
    CasPair { mem: Mem, d: Reg, s: Reg, addr: Addr },
    /// A memory copy or memory set instruction; its registers are guest's. It may leave, to be executed again.
    Mops { word: u32 },
    /// Memory barrier.
    Barrier(Barrier),

    // ---- control ----
    /// Leaves for page base + target if the test holds, else goes on.
    BranchIf { test: Test, target: i64 },
    /// Leaves for page base + target. Ends the block.
    Branch { target: i64 },
    /// Leaves for the address in `target`, where PSTATE.BTYPE will be `btype`. Ends the block.
    BranchReg { target: Opnd, call: bool, ret: bool, btype: u8 },
    /// Raises an exception. Ends the block.
    Raise(Raise),
    /// Exception return. Ends the block.
    Eret,
    /// Exception return to ELR authenticated by APIAKey or (`b`) APIBKey, with SP as modifier. Ends the block.
    EretAuthenticated { b: bool },
    /// WFIT, or (`event`) WFET: until the counter reaches `until`. May leave (PC past it).
    WaitUntil { event: bool, until: Opnd },
    /// A hint with an effect. WFI and WFE may leave (PC past them).
    Hint(Hint),

    // ---- system ----
    /// d = system register (MRS); may trap.
    SysRead { d: Reg, enc: u16 },
    /// System register = s (MSR); may trap, may leave the block after it is done.
    SysWrite { enc: u16, s: Opnd },
    /// MSR (immediate): fields as in the instruction.
    PstateImm { op1: u8, op2: u8, imm: u8 },
    /// SYS: cache, TLB and address-translation maintenance. enc as in MSR with op0 = 1.
    Sys { enc: u16, s: Opnd },

    // ---- vectors ----
    /// d = FPCR
    GetFpcr { d: Reg },
    /// d = 128-bit constant
    VConst { d: VReg, lo: u64, hi: u64 },
    /// d = op(n, m)
    V3 { op: V3Op, es: u8, q: bool, d: VReg, n: VReg, m: VReg },
    /// d = op(n)
    V2 { op: V2Op, es: u8, q: bool, d: VReg, n: VReg },
    /// d = op(n, constant)
    VShift { op: VShiftOp, es: u8, q: bool, d: VReg, n: VReg, imm: u8 },
    /// d = bytes imm.. of m:n (EXT)
    VExt { q: bool, d: VReg, n: VReg, m: VReg, imm: u8 },
    /// All elements of d = element `lane` of n.
    VDupLane { es: u8, q: bool, d: VReg, n: VReg, lane: u8 },
    /// All elements of d = s.
    VDupGpr { es: u8, q: bool, d: VReg, s: Opnd },
    /// Element dl of d = element nl of n.
    VInsLane { es: u8, d: VReg, dl: u8, n: VReg, nl: u8 },
    /// Element of d = s (the others stay).
    VInsGpr { es: u8, d: VReg, lane: u8, s: Opnd },
    /// d = element of n, extended (UMOV, SMOV, FMOV to general).
    VGetLane { es: u8, ext: Extend, d: Reg, n: VReg, lane: u8 },
    /// d = s zero-extended to 128 bits; `es` 2 or 3 (FMOV from general).
    VFromGpr { es: u8, d: VReg, s: Opnd },
    /// Scalar floating point.
    F2 { op: F2Op, double: bool, d: VReg, n: VReg, m: VReg },
    /// Scalar floating point.
    F1 { op: F1Op, double: bool, d: VReg, n: VReg },
    /// Scalar fused multiply-add.
    F3 { op: F3Op, double: bool, d: VReg, n: VReg, m: VReg, a: VReg },
    /// NZCV = compare; `m` none compares with 0.0; `signal`: FCMPE.
    FCmp { double: bool, signal: bool, n: VReg, m: Option<VReg> },
    /// NZCV = cond ? compare : nzcv (bits N=3, Z=2, C=1, V=0). FCCMP, FCCMPE.
    FCondCompare { double: bool, signal: bool, n: VReg, m: VReg, cond: Cond, nzcv: u8 },
    /// d = cond ? n : m (es 1, 2 or 3), upper part zeroed.
    FSelect { es: u8, cond: Cond, d: VReg, n: VReg, m: VReg },
    /// d (integer of width w) = n rounded, saturated (FCVTZS, FCVTZU and their kind).
    FToInt { signed: bool, double: bool, rounding: Rounding, w: Width, d: Reg, n: VReg },
    /// d = s (integer of width w) rounded by FPCR (SCVTF, UCVTF).
    IntToF { signed: bool, double: bool, w: Width, d: VReg, s: Opnd },
    /// A function of whole registers with elements of `1 << es` bytes, that the host may do without calling it.
    VKnown { name: VName, es: u8, f: VectorHelper, op: VOperands },
    /// Anything else, as a function.
    VHelper { f: VectorHelper, op: VOperands },
    /// The same with a general register in and out. `d` may be NONE. `nzcv`: the result also becomes NZCV.
    VHelperGpr { f: VectorGprHelper, op: VOperands, s: Opnd, d: Reg, nzcv: bool },
}

/// A translated superblock's IR.
#[derive(Default, Debug)]
pub struct Block {
    /// The instructions; the last one leaves the block.
    pub insts: Vec<Inst>,
    /// Temporaries used.
    pub temps: u8,
    /// Targets in the page at which NZCV is replaced before anything asks for it or can fault.
    pub flags_dead: Vec<i64>,
}

impl Block {
    /// The offset in the page of the first guest instruction.
    pub fn first_offset(&self) -> u16 {
        match self.insts.first() {
            Some(Inst::Start { offset, .. }) => *offset,
            _ => 0,
        }
    }

    /// What is executed again and again if it branches to its own beginning.
    pub fn loop_body(&self) -> Option<&[Inst]> {
        let head = i64::from(self.first_offset());
        let back = |inst: &Inst| match inst {
            Inst::BranchIf { target, .. } | Inst::Branch { target } => *target == head,
            _ => false,
        };
        let last = self.insts.iter().rposition(back)?;
        self.insts.get(..=last)
    }
}
