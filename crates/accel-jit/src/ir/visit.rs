//! Which registers and flags an IR instruction reads and writes.

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

/// What an instruction does with NZCV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlagUse {
    /// Reads NZCV.
    pub reads: bool,
    /// Writes all of NZCV.
    pub writes: bool,
    /// May leave the block, or show the state to Rust code: NZCV must be in its slot if it is live.
    pub leaves: bool,
}

impl Inst {
    /// Calls `f` for each register that is read.
    pub fn for_each_use(&self, mut f: impl FnMut(Reg)) {
        let mut o = |o: &Opnd| {
            if let Opnd::Reg(r) = o {
                f(*r);
            }
        };
        match self {
            Inst::Mov { s, .. }
            | Inst::Unary { s, .. }
            | Inst::Extract { s, .. }
            | Inst::SetNzcv { s }
            | Inst::SysWrite { s, .. }
            | Inst::Sys { s, .. }
            | Inst::VDupGpr { s, .. }
            | Inst::VInsGpr { s, .. }
            | Inst::VFromGpr { s, .. }
            | Inst::IntToF { s, .. }
            | Inst::VHelperGpr { s, .. }
            | Inst::BranchReg { target: s, .. } => o(s),
            Inst::Alu { a, b, .. }
            | Inst::AluFlags { a, b, .. }
            | Inst::AddCarry { a, b, .. }
            | Inst::MulHigh { a, b, .. }
            | Inst::Div { a, b, .. }
            | Inst::Select { a, b, .. }
            | Inst::CondCompare { a, b, .. }
            | Inst::Crc32 { acc: a, data: b, .. }
            | Inst::Extr { hi: a, lo: b, .. }
            | Inst::Insert { into: a, s: b, .. } => {
                o(a);
                o(b);
            }
            Inst::BranchIf { test, .. } => match test {
                Test::Zero(_, r) | Test::NonZero(_, r) | Test::BitClear(r, _) | Test::BitSet(r, _) => f(*r),
                Test::Flags(_) => {}
            },
            _ => self.for_each_memory_use(f),
        }
    }

    fn for_each_memory_use(&self, mut f: impl FnMut(Reg)) {
        let mut o = |o: &Opnd| {
            if let Opnd::Reg(r) = o {
                f(*r);
            }
        };
        let addr = match self {
            Inst::Load { addr, .. }
            | Inst::LoadPair { addr, .. }
            | Inst::LoadV { addr, .. }
            | Inst::LoadVPair { addr, .. }
            | Inst::StoreV { addr, .. }
            | Inst::StoreVPair { addr, .. }
            | Inst::LoadEx { addr, .. } => addr,
            Inst::Store { s, addr, .. } | Inst::AtomicRmw { s, addr, .. } => {
                o(s);
                addr
            }
            Inst::StorePair { s1, s2, addr, .. } => {
                o(s1);
                o(s2);
                addr
            }
            Inst::StoreEx { s, s2, addr, .. } => {
                o(s);
                if let Some(s2) = s2 {
                    o(s2);
                }
                addr
            }
            Inst::Cas { expected, new, addr, .. } => {
                o(expected);
                o(new);
                addr
            }
            Inst::CasPair { d, s, addr, .. } => {
                for r in [*d, Reg(d.0 + 1), *s, Reg(s.0 + 1)] {
                    o(&Opnd::Reg(r));
                }
                addr
            }
            _ => return,
        };
        o(&addr.base);
        if let Some(i) = addr.index {
            f(i);
        }
    }

    /// Calls `f` for each guest register and temporary that is written.
    pub fn for_each_definition(&self, mut f: impl FnMut(Reg)) {
        match *self {
            Inst::Mov { d, .. }
            | Inst::Alu { d, .. }
            | Inst::AluFlags { d, .. }
            | Inst::AddCarry { d, .. }
            | Inst::Unary { d, .. }
            | Inst::Extract { d, .. }
            | Inst::Insert { d, .. }
            | Inst::Extr { d, .. }
            | Inst::MulHigh { d, .. }
            | Inst::Div { d, .. }
            | Inst::Crc32 { d, .. }
            | Inst::Select { d, .. }
            | Inst::GetNzcv { d }
            | Inst::PcRel { d, .. }
            | Inst::Load { d, .. }
            | Inst::LoadEx { d, d2: None, .. }
            | Inst::StoreEx { status: d, .. }
            | Inst::AtomicRmw { d, .. }
            | Inst::Cas { d, .. }
            | Inst::SysRead { d, .. }
            | Inst::GetFpcr { d }
            | Inst::VGetLane { d, .. }
            | Inst::FToInt { d, .. }
            | Inst::VHelperGpr { d, .. } => f(d),
            Inst::LoadPair { d1, d2, .. } | Inst::LoadEx { d: d1, d2: Some(d2), .. } => {
                f(d1);
                f(d2);
            }
            Inst::CasPair { d, .. } => {
                f(d);
                f(Reg(d.0 + 1));
            }
            Inst::Start { .. }
            | Inst::CondCompare { .. }
            | Inst::SetNzcv { .. }
            | Inst::CheckSp
            | Inst::Store { .. }
            | Inst::StorePair { .. }
            | Inst::LoadV { .. }
            | Inst::LoadVPair { .. }
            | Inst::StoreV { .. }
            | Inst::StoreVPair { .. }
            | Inst::ClearEx
            | Inst::Barrier(_)
            | Inst::BranchIf { .. }
            | Inst::Branch { .. }
            | Inst::BranchReg { .. }
            | Inst::Raise(_)
            | Inst::Eret
            | Inst::Hint(_)
            | Inst::SysWrite { .. }
            | Inst::PstateImm { .. }
            | Inst::Sys { .. }
            | Inst::VConst { .. }
            | Inst::V3 { .. }
            | Inst::V2 { .. }
            | Inst::VShift { .. }
            | Inst::VExt { .. }
            | Inst::VDupLane { .. }
            | Inst::VDupGpr { .. }
            | Inst::VInsLane { .. }
            | Inst::VInsGpr { .. }
            | Inst::VFromGpr { .. }
            | Inst::F2 { .. }
            | Inst::F1 { .. }
            | Inst::F3 { .. }
            | Inst::FCmp { .. }
            | Inst::FCondCompare { .. }
            | Inst::FSelect { .. }
            | Inst::IntToF { .. }
            | Inst::VHelper { .. } => {}
        }
    }

    /// The access, if it is a plain one off a guest register.
    pub fn plain_access(&self) -> Option<PlainAccess> {
        let (mem, addr, count, write) = match self {
            Inst::Load { mem, addr, .. } | Inst::LoadV { mem, addr, .. } => (mem, addr, 1, false),
            Inst::LoadPair { mem, addr, .. } | Inst::LoadVPair { mem, addr, .. } => (mem, addr, 2, false),
            Inst::Store { mem, addr, .. } | Inst::StoreV { mem, addr, .. } => (mem, addr, 1, true),
            Inst::StorePair { mem, addr, .. } | Inst::StoreVPair { mem, addr, .. } => (mem, addr, 2, true),
            _ => return None,
        };
        match *addr {
            Addr { base: Opnd::Reg(base), index: None, disp, .. }
                if base.is_guest() && mem.order == Order::Plain && !mem.unprivileged =>
            {
                Some(PlainAccess { base, disp, bytes: count << mem.size, write })
            }
            _ => None,
        }
    }

    /// NZCV effects.
    pub fn flag_use(&self) -> FlagUse {
        let (reads, writes, leaves) = match self {
            Inst::AluFlags { op, .. } => (matches!(op, FlagOp::Adc | FlagOp::Sbc), true, false),
            Inst::AddCarry { .. } | Inst::Select { .. } | Inst::GetNzcv { .. } | Inst::FSelect { .. } => {
                (true, false, false)
            }
            Inst::CondCompare { .. } | Inst::FCondCompare { .. } => (true, true, false),
            Inst::SetNzcv { .. } | Inst::FCmp { .. } => (false, true, false),
            Inst::VHelperGpr { nzcv, .. } => (false, *nzcv, false),
            Inst::BranchIf { test, .. } => (matches!(test, Test::Flags(_)), false, true),
            Inst::Branch { .. }
            | Inst::BranchReg { .. }
            | Inst::Raise(_)
            | Inst::Eret
            | Inst::Hint(_)
            | Inst::SysRead { .. }
            | Inst::SysWrite { .. }
            | Inst::PstateImm { .. }
            | Inst::Sys { .. }
            | Inst::CheckSp
            | Inst::Load { .. }
            | Inst::LoadPair { .. }
            | Inst::Store { .. }
            | Inst::StorePair { .. }
            | Inst::LoadV { .. }
            | Inst::LoadVPair { .. }
            | Inst::StoreV { .. }
            | Inst::StoreVPair { .. }
            | Inst::LoadEx { .. }
            | Inst::StoreEx { .. }
            | Inst::AtomicRmw { .. }
            | Inst::Cas { .. }
            | Inst::CasPair { .. } => (false, false, true),
            _ => (false, false, false),
        };
        FlagUse { reads, writes, leaves }
    }
}
