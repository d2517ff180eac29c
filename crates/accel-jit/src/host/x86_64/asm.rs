//! A small x86-64 assembler: legacy and VEX encodings into a byte buffer.
//!
//! Encodings follow the Intel SDM, volume 2. Only what the code generator uses is here.

/// A general register, by its hardware number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gpr(pub u8);

/// A vector register, by its hardware number, or from [`Xmm::NAMED`] on by a name that the assembler's map resolves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Xmm(pub u8);

impl Xmm {
    /// The first name: exchanging two of them takes no instruction.
    pub const NAMED: u8 = 64;
    /// How many names there are.
    pub const NAMES: usize = 32;
}

/// Hardware numbers by name.
pub type VectorNames = [u8; Xmm::NAMES];

/// Each its own; hosts without AVX-512 have the first half.
pub const NO_NAMES: VectorNames = {
    let mut names = [0; Xmm::NAMES];
    let mut i = 0;
    while i < Xmm::NAMES {
        names[i] = i as u8;
        i += 1;
    }
    names
};

#[expect(missing_docs, reason = "register names")]
mod names {
    use super::Gpr;
    pub const RAX: Gpr = Gpr(0);
    pub const RCX: Gpr = Gpr(1);
    pub const RDX: Gpr = Gpr(2);
    pub const RBX: Gpr = Gpr(3);
    pub const RSP: Gpr = Gpr(4);
    pub const RBP: Gpr = Gpr(5);
    pub const RSI: Gpr = Gpr(6);
    pub const RDI: Gpr = Gpr(7);
    pub const R8: Gpr = Gpr(8);
    pub const R9: Gpr = Gpr(9);
    pub const R10: Gpr = Gpr(10);
    pub const R11: Gpr = Gpr(11);
    pub const R12: Gpr = Gpr(12);
    pub const R13: Gpr = Gpr(13);
    pub const R14: Gpr = Gpr(14);
    pub const R15: Gpr = Gpr(15);
}
pub use names::*;

/// A memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct M {
    /// Base register.
    pub base: Gpr,
    /// Index register (not RSP) and log2 of its scale.
    pub index: Option<(Gpr, u8)>,
    /// Displacement.
    pub disp: i32,
}

impl M {
    /// `[base + disp]`
    pub const fn at(base: Gpr, disp: i32) -> Self {
        Self { base, index: None, disp }
    }
    /// `[base + index << scale + disp]`
    pub const fn indexed(base: Gpr, index: Gpr, scale: u8, disp: i32) -> Self {
        Self { base, index: Some((index, scale)), disp }
    }
}

/// The r/m operand: register or memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rm {
    /// Register number.
    R(u8),
    /// Memory.
    M(M),
}

impl From<Gpr> for Rm {
    fn from(r: Gpr) -> Self {
        Self::R(r.0)
    }
}
impl From<Xmm> for Rm {
    fn from(r: Xmm) -> Self {
        Self::R(r.0)
    }
}
impl From<M> for Rm {
    fn from(m: M) -> Self {
        Self::M(m)
    }
}

/// Condition codes, by hardware number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cc(pub u8);

#[expect(missing_docs, reason = "the hardware's names")]
impl Cc {
    pub const O: Cc = Cc(0);
    pub const NO: Cc = Cc(1);
    pub const B: Cc = Cc(2);
    pub const AE: Cc = Cc(3);
    pub const E: Cc = Cc(4);
    pub const NE: Cc = Cc(5);
    pub const BE: Cc = Cc(6);
    pub const A: Cc = Cc(7);
    pub const S: Cc = Cc(8);
    pub const NS: Cc = Cc(9);
    pub const P: Cc = Cc(10);
    pub const NP: Cc = Cc(11);
    pub const L: Cc = Cc(12);
    pub const GE: Cc = Cc(13);
    pub const LE: Cc = Cc(14);
    pub const G: Cc = Cc(15);
    /// The opposite.
    pub const fn invert(self) -> Cc {
        Cc(self.0 ^ 1)
    }
}

/// The eight classic two-operand operations, by their opcode extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the hardware's names")]
pub enum Op2 {
    Add = 0,
    Or = 1,
    Adc = 2,
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts and rotates, by their opcode extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the hardware's names")]
pub enum Shift {
    Rol = 0,
    Ror = 1,
    Rcr = 3,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// A jump whose displacement is not known yet: offset of its four displacement bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fixup(pub usize);

/// What becomes of an opcode and ModRM.reg.
#[cfg(feature = "mistakes")]
pub type Misemit = fn(Opc, u8) -> (Opc, u8);

/// The buffer. `base` is the address at which its first byte will execute.
#[derive(Default)]
pub struct Asm {
    /// Room; the code is its first `len` bytes.
    room: Vec<u8>,
    len: usize,
    /// Execution address of the first byte.
    base: u64,
    /// Which vector registers are meant by names.
    pub names: VectorNames,
    /// Floating-point instructions may trap: each stands behind a mark, which says where to go then.
    pub marks: bool,
    /// Marks that do not say yet.
    pub marked: Vec<Fixup>,
    /// What becomes of an opcode and ModRM.reg instead of what is meant.
    #[cfg(feature = "mistakes")]
    pub mistake: Option<Misemit>,
}

/// The front of one instruction while it is put together in a register: at most prefix, REX or VEX, map,
/// opcode, ModRM and SIB, seven bytes.
#[derive(Clone, Copy)]
pub(super) struct Front {
    pub(super) bytes: u64,
    /// Length in bits.
    pub(super) bits: u32,
}

impl Front {
    #[inline(always)]
    fn b(&mut self, x: u8) {
        self.bytes |= u64::from(x) << self.bits;
        self.bits += 8;
    }
}

/// True for a vector register that only EVEX reaches.
#[inline(always)]
pub(super) const fn is_upper(register: u8) -> bool {
    register >= 16
}

/// Longest instruction, and then some: what one `put` may write.
const SLACK: usize = 32;

/// Mandatory prefix and opcode map of an SSE/VEX opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opc {
    /// 0 none, 1 = 66, 2 = F3, 3 = F2
    pub pp: u8,
    /// 1 = 0F, 2 = 0F38, 3 = 0F3A
    pub map: u8,
    /// Opcode byte.
    pub op: u8,
    /// VEX.W / REX.W
    pub w: bool,
}

/// Shorthand for [`Opc`] tables.
pub const fn opc(pp: u8, map: u8, op: u8) -> Opc {
    Opc { pp, map, op, w: false }
}

/// Shorthand with W set.
pub const fn opcw(pp: u8, map: u8, op: u8) -> Opc {
    Opc { pp, map, op, w: true }
}

impl Asm {
    /// Starts over at `base`.
    pub fn reset(&mut self, base: u64) {
        self.reset_named(base, NO_NAMES);
    }

    /// The same with these names.
    pub fn reset_named(&mut self, base: u64, names: VectorNames) {
        self.len = 0;
        self.base = base;
        self.names = names;
        self.marked.clear();
    }

    /// The code so far.
    pub fn code(&self) -> &[u8] {
        &self.room[..self.len]
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing was emitted.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Execution address of the next byte.
    pub fn here(&self) -> u64 {
        self.base + self.len as u64
    }

    #[cold]
    fn grow(&mut self) {
        self.room.resize((self.room.len() * 2).max(256), 0);
    }

    /// Room for one instruction behind the code.
    #[inline(always)]
    fn space(&mut self) -> &mut [u8] {
        if self.room.len() < self.len + SLACK {
            self.grow();
        }
        &mut self.room[self.len..self.len + SLACK]
    }

    #[inline(always)]
    pub(super) fn b(&mut self, x: u8) {
        self.space()[0] = x;
        self.len += 1;
    }

    #[inline(always)]
    fn d(&mut self, x: i32) {
        self.space()[..4].copy_from_slice(&x.to_le_bytes());
        self.len += 4;
    }

    /// Appends the instruction `front` with its ModRM, SIB and displacement: two stores, whatever its length.
    #[inline(always)]
    pub(super) fn put(&mut self, front: Front, reg: u8, rm: Rm) {
        self.put_far(front, reg, rm, false);
    }

    /// The same; with `far`, a displacement has no short form.
    #[inline(always)]
    pub(super) fn put_far(&mut self, mut front: Front, reg: u8, rm: Rm, far: bool) {
        let reg = (reg & 7) << 3;
        let (mut disp, mut disp_len) = (0, 0);
        match rm {
            Rm::R(r) => front.b(0xc0 | reg | (r & 7)),
            Rm::M(m) => {
                let base = m.base.0 & 7;
                let mode = if m.disp == 0 && base != 5 {
                    0
                } else if m.disp == i32::from(m.disp as i8) && !far {
                    disp_len = 1;
                    0x40
                } else {
                    disp_len = 4;
                    0x80
                };
                disp = m.disp;
                match m.index {
                    Some((i, scale)) => {
                        front.b(mode | reg | 4);
                        front.b((scale << 6) | ((i.0 & 7) << 3) | base);
                    }
                    None if base == 4 => {
                        front.b(mode | reg | 4);
                        front.b(0x20 | base);
                    }
                    None => front.b(mode | reg | base),
                }
            }
        }
        let front_len = (front.bits / 8) as usize & 7;
        let space = self.space();
        space[..8].copy_from_slice(&front.bytes.to_le_bytes());
        space[front_len..front_len + 4].copy_from_slice(&disp.to_le_bytes());
        self.len += front_len + disp_len;
    }

    /// The hardware's number.
    #[inline(always)]
    pub fn hardware(&self, register: u8) -> u8 {
        match register.checked_sub(Xmm::NAMED) {
            Some(name) => self.names[usize::from(name) % Xmm::NAMES],
            None => register,
        }
    }

    #[inline(always)]
    fn hardware_rm(&self, rm: Rm) -> Rm {
        match rm {
            Rm::R(r) => Rm::R(self.hardware(r)),
            Rm::M(_) => rm,
        }
    }

    #[inline(always)]
    pub(super) fn rex_bits(reg: u8, rm: Rm) -> u8 {
        let r = (reg >> 3) << 2;
        match rm {
            Rm::R(x) => r | (x >> 3),
            Rm::M(m) => r | (m.index.map_or(0, |(i, _)| i.0 >> 3) << 1) | (m.base.0 >> 3),
        }
    }

    /// The opcode and ModRM.reg that are emitted: those that are meant, but for a mistake on purpose.
    #[inline(always)]
    pub(super) fn emitted(&self, o: Opc, reg: u8) -> (Opc, u8) {
        #[cfg(feature = "mistakes")]
        if let Some(mistake) = self.mistake {
            return mistake(o, reg);
        }
        (o, reg)
    }

    /// Legacy encoding: prefix, map (0 = one byte), opcode, ModRM. `byte` asks for a REX that makes
    /// SPL..DIL reachable as byte registers.
    pub(super) fn legacy(&mut self, o: Opc, reg: u8, rm: Rm, byte: bool) {
        const PREFIX: [u8; 4] = [0, 0x66, 0xf3, 0xf2];
        const MAP: [(u64, u32); 4] = [(0, 0), (0x0f, 8), (0x380f, 16), (0x3a0f, 16)];
        let (o, reg) = self.emitted(o, reg);
        let mut e =
            Front { bytes: u64::from(PREFIX[usize::from(o.pp & 3)]), bits: if o.pp == 0 { 0 } else { 8 } };
        let rex = Self::rex_bits(reg, rm) | if o.w { 8 } else { 0 };
        let byte_rex = byte && (reg >= 4 || matches!(rm, Rm::R(4..=7)));
        if rex != 0 || byte_rex {
            e.b(0x40 | rex);
        }
        let (map, map_bits) = MAP[usize::from(o.map & 3)];
        e.bytes |= (map | u64::from(o.op) << map_bits) << e.bits;
        e.bits += map_bits + 8;
        self.put(e, reg, rm);
    }

    /// VEX encoding, 128-bit (or scalar): `op reg, vvvv, rm`. EVEX where a register is one of the upper half.
    #[inline]
    pub fn vex(&mut self, o: Opc, reg: u8, vvvv: u8, rm: impl Into<Rm>) {
        self.vex_any(o, reg, vvvv, rm.into(), None);
    }

    fn vex_any(&mut self, o: Opc, reg: u8, vvvv: u8, rm: Rm, imm: Option<u8>) {
        let (reg, vvvv, rm) = (self.hardware(reg), self.hardware(vvvv), self.hardware_rm(rm));
        if is_upper(reg) || is_upper(vvvv) || matches!(rm, Rm::R(r) if is_upper(r)) {
            return self.upper(o, [reg, vvvv], rm, imm);
        }
        self.vex_l(o, reg, vvvv, rm, 0);
        if let Some(imm) = imm {
            self.b(imm);
        }
    }

    pub(super) fn vex_l(&mut self, o: Opc, reg: u8, vvvv: u8, rm: Rm, l: u8) {
        let (o, reg) = self.emitted(o, reg);
        self.mark(o);
        let mut e = Front { bytes: 0, bits: 0 };
        let rex = Self::rex_bits(reg, rm);
        let tail = ((!vvvv & 15) << 3) | (l << 2) | o.pp;
        if rex & 3 == 0 && o.map == 1 && !o.w {
            e.b(0xc5);
            e.b(((!rex & 4) << 5) | tail);
        } else {
            e.b(0xc4);
            e.b(((!rex & 7) << 5) | o.map);
            e.b(if o.w { 0x80 } else { 0 } | tail);
        }
        e.b(o.op);
        self.put(e, reg, rm);
    }

    /// VEX with an immediate byte.
    pub fn vex_imm(&mut self, o: Opc, reg: u8, vvvv: u8, rm: impl Into<Rm>, imm: u8) {
        self.vex_any(o, reg, vvvv, rm.into(), Some(imm));
    }

    /// VEX on 256-bit registers.
    pub fn vex256(&mut self, o: Opc, reg: u8, vvvv: u8, rm: impl Into<Rm>) {
        self.vex_l(o, reg, vvvv, rm.into(), 1);
    }

    /// Legacy SSE/system instruction `op reg, rm`.
    pub fn sse(&mut self, o: Opc, reg: u8, rm: impl Into<Rm>) {
        self.sse_any(o, reg, rm.into(), None);
    }

    fn sse_any(&mut self, o: Opc, reg: u8, rm: Rm, imm: Option<u8>) {
        let (reg, rm) = (self.hardware(reg), self.hardware_rm(rm));
        if is_upper(reg) || matches!(rm, Rm::R(r) if is_upper(r)) {
            return self.upper_legacy(o, reg, rm, imm);
        }
        self.legacy(o, reg, rm, false);
        if let Some(imm) = imm {
            self.b(imm);
        }
    }

    /// Legacy SSE with an immediate byte.
    pub fn sse_imm(&mut self, o: Opc, reg: u8, rm: impl Into<Rm>, imm: u8) {
        self.sse_any(o, reg, rm.into(), Some(imm));
    }

    // ---- moves ----

    /// Four bytes of data.
    pub fn word(&mut self, v: i32) {
        self.d(v);
    }

    /// mov d, s (64-bit register to register); nothing if they are the same.
    pub fn mov(&mut self, d: Gpr, s: Gpr) {
        if d != s {
            self.legacy(Opc { pp: 0, map: 0, op: 0x8b, w: true }, d.0, s.into(), false);
        }
    }

    /// mov d32, s32: also clears the upper half.
    pub fn mov32(&mut self, d: Gpr, s: Gpr) {
        self.legacy(Opc { pp: 0, map: 0, op: 0x8b, w: false }, d.0, s.into(), false);
    }

    /// Load, 64 (`w`) or 32 bits.
    pub fn load(&mut self, w: bool, d: Gpr, m: M) {
        self.legacy(Opc { pp: 0, map: 0, op: 0x8b, w }, d.0, m.into(), false);
    }

    /// Store, 64 (`w`) or 32 bits.
    pub fn store(&mut self, w: bool, m: M, s: Gpr) {
        self.legacy(Opc { pp: 0, map: 0, op: 0x89, w }, s.0, m.into(), false);
    }

    /// 16-bit store.
    pub fn store16(&mut self, m: M, s: Gpr) {
        self.legacy(Opc { pp: 1, map: 0, op: 0x89, w: false }, s.0, m.into(), false);
    }

    /// 8-bit store.
    pub fn store8(&mut self, m: M, s: Gpr) {
        self.legacy(Opc { pp: 0, map: 0, op: 0x88, w: false }, s.0, m.into(), true);
    }

    /// movzx from 8 bits.
    pub fn movzx8(&mut self, d: Gpr, s: impl Into<Rm>) {
        self.legacy(opc(0, 1, 0xb6), d.0, s.into(), true);
    }

    /// movzx from 16 bits.
    pub fn movzx16(&mut self, d: Gpr, s: impl Into<Rm>) {
        self.legacy(opc(0, 1, 0xb7), d.0, s.into(), false);
    }

    /// movsx from 8 bits to 32 or 64.
    pub fn movsx8(&mut self, w: bool, d: Gpr, s: impl Into<Rm>) {
        self.legacy(Opc { pp: 0, map: 1, op: 0xbe, w }, d.0, s.into(), true);
    }

    /// movsx from 16 bits to 32 or 64.
    pub fn movsx16(&mut self, w: bool, d: Gpr, s: impl Into<Rm>) {
        self.legacy(Opc { pp: 0, map: 1, op: 0xbf, w }, d.0, s.into(), false);
    }

    /// movsxd: 32 to 64 bits.
    pub fn movsxd(&mut self, d: Gpr, s: impl Into<Rm>) {
        self.legacy(opcw(0, 0, 0x63), d.0, s.into(), false);
    }

    /// mov d, constant; the shortest form that leaves the flags alone.
    pub fn mov_imm(&mut self, d: Gpr, v: i64) {
        if let Ok(u) = u32::try_from(v) {
            if d.0 >= 8 {
                self.b(0x41);
            }
            self.b(0xb8 | (d.0 & 7));
            self.d(u as i32);
        } else if let Ok(i) = i32::try_from(v) {
            self.legacy(opcw(0, 0, 0xc7), 0, d.into(), false);
            self.d(i);
        } else {
            self.b(0x48 | (d.0 >> 3));
            self.b(0xb8 | (d.0 & 7));
            self.space()[..8].copy_from_slice(&v.to_le_bytes());
            self.len += 8;
        }
    }

    /// mov qword/dword `[m]`, imm32 (sign-extended).
    pub fn store_imm(&mut self, w: bool, m: M, v: i32) {
        self.legacy(Opc { pp: 0, map: 0, op: 0xc7, w }, 0, m.into(), false);
        self.d(v);
    }

    /// lea d, m
    pub fn lea(&mut self, w: bool, d: Gpr, m: M) {
        self.legacy(Opc { pp: 0, map: 0, op: 0x8d, w }, d.0, m.into(), false);
    }

    // ---- integer ----

    /// op d, s (s register or memory)
    pub fn op(&mut self, o: Op2, w: bool, d: Gpr, s: impl Into<Rm>) {
        self.legacy(Opc { pp: 0, map: 0, op: (o as u8) * 8 + 3, w }, d.0, s.into(), false);
    }

    /// op `[m]`, s
    pub fn op_mem(&mut self, o: Op2, w: bool, m: M, s: Gpr) {
        self.legacy(Opc { pp: 0, map: 0, op: (o as u8) * 8 + 1, w }, s.0, m.into(), false);
    }

    /// op rm, imm32
    pub fn op_imm(&mut self, o: Op2, w: bool, d: impl Into<Rm>, v: i32) {
        if (-128..128).contains(&v) {
            self.legacy(Opc { pp: 0, map: 0, op: 0x83, w }, o as u8, d.into(), false);
            self.b(v as u8);
        } else {
            self.legacy(Opc { pp: 0, map: 0, op: 0x81, w }, o as u8, d.into(), false);
            self.d(v);
        }
    }

    /// op r8, imm8 on a low byte register
    pub fn op8_imm(&mut self, o: Op2, d: impl Into<Rm>, v: i8) {
        self.legacy(Opc { pp: 0, map: 0, op: 0x80, w: false }, o as u8, d.into(), true);
        self.b(v as u8);
    }

    /// op d, s on bytes
    pub fn op8(&mut self, o: Op2, d: Gpr, s: Gpr) {
        self.legacy(Opc { pp: 0, map: 0, op: (o as u8) << 3 | 2, w: false }, d.0, s.into(), true);
    }

    /// test byte m, imm8
    pub fn test8_imm(&mut self, m: M, v: u8) {
        self.legacy(Opc { pp: 0, map: 0, op: 0xf6, w: false }, 0, m.into(), true);
        self.b(v);
    }

    /// test a, b
    pub fn test(&mut self, w: bool, a: impl Into<Rm>, b: Gpr) {
        self.legacy(Opc { pp: 0, map: 0, op: 0x85, w }, b.0, a.into(), false);
    }

    /// test rm, imm32
    pub fn test_imm(&mut self, w: bool, a: impl Into<Rm>, v: i32) {
        self.legacy(Opc { pp: 0, map: 0, op: 0xf7, w }, 0, a.into(), false);
        self.d(v);
    }

    /// bt rm, imm8
    pub fn bt_imm(&mut self, w: bool, a: impl Into<Rm>, bit: u8) {
        self.legacy(Opc { pp: 0, map: 1, op: 0xba, w }, 4, a.into(), false);
        self.b(bit);
    }

    /// Shift by a constant.
    pub fn shift_imm(&mut self, s: Shift, w: bool, d: impl Into<Rm>, n: u8) {
        self.legacy(Opc { pp: 0, map: 0, op: 0xc1, w }, s as u8, d.into(), false);
        self.b(n);
    }

    /// Shift by CL.
    pub fn shift_cl(&mut self, s: Shift, w: bool, d: impl Into<Rm>) {
        self.legacy(Opc { pp: 0, map: 0, op: 0xd3, w }, s as u8, d.into(), false);
    }

    /// shlx / shrx / sarx d, s, count: no flags.
    pub fn shiftx(&mut self, s: Shift, w: bool, d: Gpr, src: impl Into<Rm>, count: Gpr) {
        let pp = match s {
            Shift::Shl => 1,
            Shift::Sar => 2,
            _ => 3,
        };
        self.vex(Opc { pp, map: 2, op: 0xf7, w }, d.0, count.0, src);
    }

    /// rorx d, s, imm: no flags.
    pub fn rorx(&mut self, w: bool, d: Gpr, s: impl Into<Rm>, n: u8) {
        self.vex_imm(Opc { pp: 3, map: 3, op: 0xf0, w }, d.0, 0, s, n);
    }

    /// andn d, a, b: d = !a & b.
    pub fn andn(&mut self, w: bool, d: Gpr, a: Gpr, b: impl Into<Rm>) {
        self.vex(Opc { pp: 0, map: 2, op: 0xf2, w }, d.0, a.0, b);
    }

    /// imul d, s
    pub fn imul(&mut self, w: bool, d: Gpr, s: impl Into<Rm>) {
        self.legacy(Opc { pp: 0, map: 1, op: 0xaf, w }, d.0, s.into(), false);
    }

    /// One-operand group: 2 not, 3 neg, 4 mul, 5 imul, 6 div, 7 idiv.
    pub fn group3(&mut self, ext: u8, w: bool, d: impl Into<Rm>) {
        self.legacy(Opc { pp: 0, map: 0, op: 0xf7, w }, ext, d.into(), false);
    }

    /// cdq / cqo
    pub fn sign_to_rdx(&mut self, w: bool) {
        if w {
            self.b(0x48);
        }
        self.b(0x99);
    }

    /// lzcnt d, s
    pub fn lzcnt(&mut self, w: bool, d: Gpr, s: impl Into<Rm>) {
        self.legacy(Opc { pp: 2, map: 1, op: 0xbd, w }, d.0, s.into(), false);
    }

    /// tzcnt d, s
    pub fn tzcnt(&mut self, w: bool, d: Gpr, s: impl Into<Rm>) {
        self.legacy(Opc { pp: 2, map: 1, op: 0xbc, w }, d.0, s.into(), false);
    }

    /// popcnt d, s
    pub fn popcnt(&mut self, w: bool, d: Gpr, s: impl Into<Rm>) {
        self.legacy(Opc { pp: 2, map: 1, op: 0xb8, w }, d.0, s.into(), false);
    }

    /// bswap d
    pub fn bswap(&mut self, w: bool, d: Gpr) {
        let rex = (if w { 8 } else { 0 }) | (d.0 >> 3);
        if rex != 0 {
            self.b(0x40 | rex);
        }
        self.b(0x0f);
        self.b(0xc8 | (d.0 & 7));
    }

    /// shrd d, s, imm
    pub fn shrd(&mut self, w: bool, d: Gpr, s: Gpr, n: u8) {
        self.legacy(Opc { pp: 0, map: 1, op: 0xac, w }, s.0, d.into(), false);
        self.b(n);
    }

    /// cmovcc d, s
    pub fn cmov(&mut self, cc: Cc, w: bool, d: Gpr, s: impl Into<Rm>) {
        self.legacy(Opc { pp: 0, map: 1, op: 0x40 | cc.0, w }, d.0, s.into(), false);
    }

    /// setcc r8
    pub fn setcc(&mut self, cc: Cc, d: Gpr) {
        self.legacy(opc(0, 1, 0x90 | cc.0), 0, d.into(), true);
    }

    /// setcc `[m]`
    pub fn setcc_mem(&mut self, cc: Cc, m: M) {
        self.legacy(opc(0, 1, 0x90 | cc.0), 0, m.into(), true);
    }

    /// crc32 d, m of 8 bytes (CRC32C)
    pub fn crc32c_mem(&mut self, d: Gpr, m: M) {
        self.legacy(Opc { pp: 3, map: 2, op: 0xf1, w: true }, d.0, m.into(), false);
    }

    /// crc32 d, s of `1 << size` bytes (CRC32C)
    pub fn crc32c(&mut self, size: u8, d: Gpr, s: Gpr) {
        match size {
            0 => self.legacy(opc(3, 2, 0xf0), d.0, s.into(), true),
            1 => {
                self.b(0x66);
                self.legacy(opc(3, 2, 0xf1), d.0, s.into(), false);
            }
            2 => self.legacy(opc(3, 2, 0xf1), d.0, s.into(), false),
            _ => self.legacy(opcw(3, 2, 0xf1), d.0, s.into(), false),
        }
    }

    // ---- flags and single bytes ----

    /// Reads the cycle counter into edx:eax, after everything that was read before.
    pub fn lfence_rdtsc(&mut self) {
        for x in [0x0f, 0xae, 0xe8, 0x0f, 0x31] {
            self.b(x);
        }
    }

    /// movzx eax, ah
    pub fn movzx_ah(&mut self) {
        self.b(0x0f);
        self.b(0xb6);
        self.b(0xc4);
    }
    /// lahf
    pub fn lahf(&mut self) {
        self.b(0x9f);
    }
    /// sahf
    pub fn sahf(&mut self) {
        self.b(0x9e);
    }
    /// cmc
    pub fn cmc(&mut self) {
        self.b(0xf5);
    }
    /// stc
    pub fn stc(&mut self) {
        self.b(0xf9);
    }
    /// vzeroupper
    pub fn vzeroupper(&mut self) {
        self.b(0xc5);
        self.b(0xf8);
        self.b(0x77);
    }
    /// pause
    pub fn pause(&mut self) {
        self.b(0xf3);
        self.b(0x90);
    }
    /// ret
    pub fn ret(&mut self) {
        self.b(0xc3);
    }
    /// int3
    pub fn int3(&mut self) {
        self.b(0xcc);
    }
    /// push r64
    pub fn push(&mut self, r: Gpr) {
        if r.0 >= 8 {
            self.b(0x41);
        }
        self.b(0x50 | (r.0 & 7));
    }
    /// push qword `[m]`
    pub fn push_mem(&mut self, m: M) {
        self.legacy(Opc { pp: 0, map: 0, op: 0xff, w: false }, 6, m.into(), false);
    }
    /// push imm32, sign-extended
    pub fn push_imm(&mut self, v: i32) {
        self.b(0x68);
        self.d(v);
    }
    /// pop r64
    pub fn pop(&mut self, r: Gpr) {
        if r.0 >= 8 {
            self.b(0x41);
        }
        self.b(0x58 | (r.0 & 7));
    }

    // ---- atomics ----

    /// lock op `[m]`, s
    pub fn lock_op(&mut self, o: Op2, w: bool, m: M, s: Gpr) {
        self.b(0xf0);
        self.op_mem(o, w, m, s);
    }
    /// `[lock] xadd / cmpxchg / xchg` family with size `1 << size`: opcode of the 8-bit form.
    fn sized(&mut self, map: u8, op8: u8, size: u8, m: M, s: Gpr) {
        let o = Opc { pp: u8::from(size == 1), map, op: if size == 0 { op8 } else { op8 + 1 }, w: size == 3 };
        self.legacy(o, s.0, m.into(), size == 0);
    }
    /// op `[m]`, s of `1 << size` bytes
    pub fn op_sized(&mut self, o: Op2, size: u8, m: M, s: Gpr) {
        self.sized(0, (o as u8) * 8, size, m, s);
    }
    /// mov `[m]`, s of `1 << size` bytes
    pub fn store_sized(&mut self, size: u8, m: M, s: Gpr) {
        self.sized(0, 0x88, size, m, s);
    }
    /// cmpxchg `[m]`, s (expected in rAX)
    pub fn cmpxchg(&mut self, lock: bool, size: u8, m: M, s: Gpr) {
        if lock {
            self.b(0xf0);
        }
        self.sized(1, 0xb0, size, m, s);
    }
    /// xadd `[m]`, s
    pub fn xadd(&mut self, lock: bool, size: u8, m: M, s: Gpr) {
        if lock {
            self.b(0xf0);
        }
        self.sized(1, 0xc0, size, m, s);
    }
    /// xchg `[m]`, s (always locked)
    pub fn xchg(&mut self, size: u8, m: M, s: Gpr) {
        self.sized(0, 0x86, size, m, s);
    }

    // ---- control ----

    /// jmp rel32, to be bound
    pub fn jmp(&mut self) -> Fixup {
        self.b(0xe9);
        self.d(0);
        Fixup(self.len - 4)
    }
    /// jcc rel32, to be bound
    pub fn jcc(&mut self, cc: Cc) -> Fixup {
        let (o, _) = self.emitted(opc(0, 1, 0x80 | cc.0), 0);
        self.b(0x0f);
        self.b(o.op);
        self.d(0);
        Fixup(self.len - 4)
    }
    /// jmp to an absolute address in range
    pub fn jmp_to(&mut self, target: u64) {
        let f = self.jmp();
        self.bind_to(f, target);
    }
    /// jcc to an absolute address in range
    pub fn jcc_to(&mut self, cc: Cc, target: u64) {
        let f = self.jcc(cc);
        self.bind_to(f, target);
    }
    /// call an absolute address in range
    pub fn call_to(&mut self, target: u64) {
        self.b(0xe8);
        self.d(0);
        self.bind_to(Fixup(self.len - 4), target);
    }
    /// jmp rm
    pub fn jmp_rm(&mut self, rm: impl Into<Rm>) {
        self.legacy(Opc { pp: 0, map: 0, op: 0xff, w: false }, 4, rm.into(), false);
    }
    /// call rm
    pub fn call_rm(&mut self, rm: impl Into<Rm>) {
        self.legacy(Opc { pp: 0, map: 0, op: 0xff, w: false }, 2, rm.into(), false);
    }
    /// Makes a jump go to the next byte.
    pub fn bind(&mut self, f: Fixup) {
        let target = self.here();
        self.bind_to(f, target);
    }
    /// Makes a jump go to `target`.
    pub fn bind_to(&mut self, f: Fixup, target: u64) {
        let next = self.base + f.0 as u64 + 4;
        let rel = target.wrapping_sub(next) as i64;
        let rel = i32::try_from(rel).expect("code cache spans less than 2 GiB");
        self.room[f.0..f.0 + 4].copy_from_slice(&rel.to_le_bytes());
    }
    /// ldmxcsr `[m]`
    pub fn ldmxcsr(&mut self, m: M) {
        self.legacy(opc(0, 1, 0xae), 2, m.into(), false);
    }
    /// stmxcsr `[m]`
    pub fn stmxcsr(&mut self, m: M) {
        self.legacy(opc(0, 1, 0xae), 3, m.into(), false);
    }
}
