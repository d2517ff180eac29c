//! What IR instructions read and write.

use super::*;

/// A load or store whose address is a guest register and a constant, with no demands beyond the access itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlainAccess {
    /// The base.
    pub base: Reg,
    /// What is added to it, bytes.
    pub disp: i32,
    /// Length of all elements together, bytes.
    pub bytes: u8,
    /// A store.
    pub write: bool,
}

/// Any access of one instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnyAccess {
    /// Its address.
    pub addr: Addr,
    /// Length of all elements together, bytes.
    pub bytes: u8,
    /// It reads.
    pub read: bool,
    /// It writes.
    pub write: bool,
    /// An element.
    pub mem: Mem,
    /// Exclusive or atomic: all of it must be aligned.
    pub atomic: bool,
}

/// What an instruction does to registers that may be the base of accesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Sets the registers that it defines.
    Definitions,
    /// Adds a constant to the one that it defines.
    Rise(i32),
    /// Translations may be others afterwards, SP another register, or any guest register another value.
    Everything,
}

/// What an instruction reads and writes, found in one go: translation asks for each instruction.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Registers and temporaries that are read, first ones first, then [`Reg::NONE`].
    pub uses: [Reg; 4],
    /// Registers and temporaries that are written.
    pub definitions: [Reg; 2],
    /// What becomes of bases.
    pub change: Change,
    /// Reads NZCV.
    pub reads_flags: bool,
    /// Writes all of NZCV.
    pub writes_flags: bool,
    /// May leave the block, or show the state to Rust code: NZCV must be in its slot if it is live.
    pub leaves: bool,
    /// The access, if it is a plain one.
    pub access: Option<PlainAccess>,
}

const NOTHING: Facts = Facts {
    uses: [Reg::NONE; 4],
    definitions: [Reg::NONE; 2],
    change: Change::Definitions,
    reads_flags: false,
    writes_flags: false,
    leaves: false,
    access: None,
};

impl Inst {
    /// Does nothing but set a general register: without anybody who needs that, it need not be done.
    pub fn is_pure(&self) -> bool {
        matches!(
            self,
            Self::Mov { .. }
                | Self::Alu { .. }
                | Self::AddShifted { .. }
                | Self::Unary { .. }
                | Self::Extract { .. }
                | Self::Insert { .. }
                | Self::Extr { .. }
                | Self::MulHigh { .. }
                | Self::Div { .. }
                | Self::MinMax { .. }
                | Self::Crc32 { .. }
                | Self::Select { .. }
                | Self::PcRel { .. }
        )
    }

    /// Asks NZCV for C and nothing else.
    pub fn asks_for_carry(&self) -> bool {
        matches!(self, Self::AddCarry { .. } | Self::AluFlags { op: FlagOp::Adc | FlagOp::Sbc, .. })
    }

    /// The condition that it asks NZCV for, if it asks for nothing else.
    pub fn condition(&self) -> Option<Cond> {
        match *self {
            Self::BranchIf { test: Test::Flags(cond), .. }
            | Self::Select { cond, .. }
            | Self::CondCompare { cond, .. }
            | Self::FSelect { cond, .. }
            | Self::FCondCompare { cond, .. } => Some(cond),
            _ => None,
        }
    }
}

impl Opnd {
    fn reg(self) -> Reg {
        match self {
            Self::Reg(r) => r,
            Self::Imm(_) => Reg::NONE,
        }
    }
}

impl Facts {
    const fn defines(self, d: Reg) -> Self {
        Self { definitions: [d, Reg::NONE], ..self }
    }

    fn uses1(self, a: Opnd) -> Self {
        Self { uses: [a.reg(), Reg::NONE, Reg::NONE, Reg::NONE], ..self }
    }

    fn uses2(self, a: Opnd, b: Opnd) -> Self {
        Self { uses: [a.reg(), b.reg(), Reg::NONE, Reg::NONE], ..self }
    }

    fn flags(self, reads_flags: bool, writes_flags: bool) -> Self {
        Self { reads_flags, writes_flags, ..self }
    }

    const fn leaves(self) -> Self {
        Self { leaves: true, ..self }
    }

    const fn everything(self) -> Self {
        Self { change: Change::Everything, ..self.leaves() }
    }

    /// An access by `addr` of `count` elements, that reads `values` besides.
    fn access(self, mem: Mem, addr: Addr, (count, write): (u8, bool), values: [Reg; 2]) -> Self {
        let uses = [addr.base.reg(), addr.index.unwrap_or(Reg::NONE), values[0], values[1]];
        let plain = addr.index.is_none() && mem.order == Order::Plain && !mem.unprivileged;
        let access = match addr.base {
            Opnd::Reg(base) if plain && base.is_guest() => {
                Some(PlainAccess { base, disp: addr.disp, bytes: count << mem.size, write })
            }
            _ => None,
        };
        Self { uses, access, ..self.leaves() }
    }
}

/// The rise of a base by `d = a + b` or `d = a - b`.
fn rise(op: AluOp, w: Width, d: Reg, a: Opnd, b: Opnd) -> Change {
    match (op, b) {
        (AluOp::Add | AluOp::Sub, Opnd::Imm(v))
            if w == Width::X && a == Opnd::Reg(d) && d.is_guest() && v.abs() < 1 << 16 =>
        {
            Change::Rise(if op == AluOp::Add { v as i32 } else { -v as i32 })
        }
        _ => Change::Definitions,
    }
}

impl Inst {
    /// The access, if it is a load, a store or an atomic.
    pub fn any_access(&self) -> Option<AnyAccess> {
        let (mem, addr, count, read, write) = match *self {
            Inst::Load { mem, addr, .. } | Inst::LoadV { mem, addr, .. } => (mem, addr, 1, true, false),
            Inst::LoadPair { mem, addr, .. } | Inst::LoadVPair { mem, addr, .. } => {
                (mem, addr, 2, true, false)
            }
            Inst::Store { mem, addr, .. } | Inst::StoreV { mem, addr, .. } => (mem, addr, 1, false, true),
            Inst::StorePair { mem, addr, .. } | Inst::StoreVPair { mem, addr, .. } => {
                (mem, addr, 2, false, true)
            }
            Inst::LoadEx { mem, d2, addr, .. } => (mem, addr, 1 + u8::from(d2.is_some()), true, false),
            Inst::StoreEx { mem, s2, addr, .. } => (mem, addr, 1 + u8::from(s2.is_some()), false, true),
            Inst::AtomicRmw { mem, addr, .. } | Inst::Cas { mem, addr, .. } => (mem, addr, 1, true, true),
            Inst::CasPair { mem, addr, .. } => (mem, addr, 2, true, true),
            _ => return None,
        };
        let atomic = matches!(
            self,
            Inst::LoadEx { .. }
                | Inst::StoreEx { .. }
                | Inst::AtomicRmw { .. }
                | Inst::Cas { .. }
                | Inst::CasPair { .. }
        );
        Some(AnyAccess { addr, bytes: count << mem.size, read, write, mem, atomic })
    }

    /// What it reads and writes. Every kind of instruction is named, so that a new one cannot be forgotten.
    pub fn facts(&self) -> Facts {
        let n = NOTHING;
        let none = [Reg::NONE; 2];
        match *self {
            Inst::Mov { d, s, .. } | Inst::Unary { d, s, .. } | Inst::Extract { d, s, .. } => {
                n.defines(d).uses1(s)
            }
            Inst::Alu { op, w, d, a, b } => {
                Facts { change: rise(op, w, d, a, b), ..n.defines(d).uses2(a, b) }
            }
            Inst::AddShifted { d, a, b, .. } => n.defines(d).uses2(a, Opnd::Reg(b)),
            Inst::AluFlags { op, d, a, b, .. } => {
                n.defines(d).uses2(a, b).flags(matches!(op, FlagOp::Adc | FlagOp::Sbc), true)
            }
            Inst::AddCarry { d, a, b, .. } | Inst::Select { d, a, b, .. } => {
                n.defines(d).uses2(a, b).flags(true, false)
            }
            Inst::MulHigh { d, a, b, .. }
            | Inst::Div { d, a, b, .. }
            | Inst::MinMax { d, a, b, .. }
            | Inst::Crc32 { d, acc: a, data: b, .. }
            | Inst::Extr { d, hi: a, lo: b, .. }
            | Inst::Insert { d, into: a, s: b, .. } => n.defines(d).uses2(a, b),
            Inst::Pauth { d, pointer, modifier, .. } => n.defines(d).uses2(pointer, modifier).leaves(),
            // Its registers are guest's, whose uses nobody asks for.
            Inst::Mops { .. } => n.everything(),
            Inst::WaitUntil { until, .. } => n.uses1(until).everything(),
            Inst::CondCompare { a, b, .. } => n.uses2(a, b).flags(true, true),
            Inst::GetNzcv { d } => n.defines(d).flags(true, false),
            Inst::SetNzcv { s } => n.uses1(s).flags(false, true),
            Inst::PcRel { d, .. } | Inst::GetFpcr { d } | Inst::VGetLane { d, .. } => n.defines(d),
            Inst::FToInt { d, .. } => n.defines(d),
            Inst::CheckSp => n.leaves(),
            Inst::Load { mem, d, addr, .. } => n.defines(d).access(mem, addr, (1, false), none),
            Inst::LoadPair { mem, d1, d2, addr, .. } => {
                Facts { definitions: [d1, d2], ..n.access(mem, addr, (2, false), none) }
            }
            Inst::LoadV { mem, addr, .. } => n.access(mem, addr, (1, false), none),
            Inst::LoadVPair { mem, addr, .. } => n.access(mem, addr, (2, false), none),
            Inst::Store { mem, s, addr } => n.access(mem, addr, (1, true), [s.reg(), Reg::NONE]),
            Inst::StorePair { mem, s1, s2, addr } => n.access(mem, addr, (2, true), [s1.reg(), s2.reg()]),
            Inst::StoreV { mem, addr, .. } => n.access(mem, addr, (1, true), none),
            Inst::StoreVPair { mem, addr, .. } => n.access(mem, addr, (2, true), none),
            Inst::LoadEx { mem, d, d2, addr } => {
                let definitions = [d, d2.unwrap_or(Reg::NONE)];
                Facts { definitions, access: None, ..n.access(mem, addr, (1, false), none) }
            }
            Inst::StoreEx { mem, status, s, s2, addr } => {
                let values = [s.reg(), s2.map_or(Reg::NONE, Opnd::reg)];
                Facts { access: None, ..n.defines(status).access(mem, addr, (1, true), values) }
            }
            Inst::AtomicRmw { mem, d, s, addr, .. } => {
                Facts { access: None, ..n.defines(d).access(mem, addr, (1, true), [s.reg(), Reg::NONE]) }
            }
            Inst::Cas { mem, d, expected, new, addr } => {
                let values = [expected.reg(), new.reg()];
                Facts { access: None, ..n.defines(d).access(mem, addr, (1, true), values) }
            }
            // Its registers are guest's, whose uses nobody asks for.
            Inst::CasPair { mem, d, addr, .. } => {
                Facts { definitions: [d, Reg(d.0 + 1)], access: None, ..n.access(mem, addr, (2, true), none) }
            }
            Inst::Barrier(Barrier::Sync | Barrier::Instruction) => Facts { leaves: false, ..n.everything() },
            Inst::BranchIf { test, .. } => match test {
                Test::Zero(_, r) | Test::NonZero(_, r) | Test::BitClear(r, _) | Test::BitSet(r, _) => {
                    n.uses1(Opnd::Reg(r)).leaves()
                }
                Test::Flags(_) => n.flags(true, false).leaves(),
            },
            Inst::BranchReg { target, .. } => n.uses1(target).leaves(),
            Inst::Branch { .. } | Inst::Raise(_) | Inst::Eret | Inst::EretAuthenticated { .. } => n.leaves(),
            Inst::Hint(_) | Inst::PstateImm { .. } => n.everything(),
            Inst::SysRead { d, .. } => n.defines(d).everything(),
            Inst::SysWrite { s, .. } | Inst::Sys { s, .. } => n.uses1(s).everything(),
            Inst::VDupGpr { s, .. }
            | Inst::VInsGpr { s, .. }
            | Inst::VFromGpr { s, .. }
            | Inst::IntToF { s, .. } => n.uses1(s),
            Inst::VHelperGpr { s, d, nzcv, .. } => n.defines(d).uses1(s).flags(false, nzcv),
            Inst::FCmp { .. } => n.flags(false, true),
            Inst::FCondCompare { .. } => n.flags(true, true),
            Inst::FSelect { .. } => n.flags(true, false),
            Inst::Start { .. }
            | Inst::ClearEx
            | Inst::Barrier(_)
            | Inst::VConst { .. }
            | Inst::V3 { .. }
            | Inst::V2 { .. }
            | Inst::VShift { .. }
            | Inst::VExt { .. }
            | Inst::VDupLane { .. }
            | Inst::VInsLane { .. }
            | Inst::F2 { .. }
            | Inst::F1 { .. }
            | Inst::F3 { .. }
            | Inst::VKnown { .. }
            | Inst::VHelper { .. } => n,
        }
    }
}
