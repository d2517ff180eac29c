//! Which vector registers IR instructions read and write.

use super::*;

/// No vector register.
pub const NO_VECTOR: VReg = VReg::MAX;

/// What an instruction reads and writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VectorUse {
    /// Registers that are read, first ones first, then [`NO_VECTOR`].
    pub reads: [VReg; 4],
    /// Registers that are written.
    pub writes: [VReg; 2],
}

const NOTHING: VectorUse = VectorUse { reads: [NO_VECTOR; 4], writes: [NO_VECTOR; 2] };

impl VectorUse {
    const fn new(d: VReg, reads: [VReg; 4]) -> Self {
        Self { reads, writes: [d, NO_VECTOR] }
    }
}

impl V3Op {
    /// The destination is an input as well.
    const fn reads_d(self) -> bool {
        use V3Op::*;
        matches!(
            self,
            Mla | Mls
                | Bsl
                | Bit
                | Bif
                | Fmla
                | Fmls
                | Sdot
                | Udot
                | Usdot
                | Smmla
                | Ummla
                | Usmmla
                | Sha256h
                | Sha256h2
                | Sha256su1
                | Sha1c
                | Sha1p
                | Sha1m
                | Sha1su0
        )
    }
}

impl Inst {
    /// Vector registers that it reads and writes, but for those of helpers ([`Inst::VHelper`]), which use memory.
    pub const fn vector_use(&self) -> VectorUse {
        const N: VReg = NO_VECTOR;
        match *self {
            Inst::LoadV { d, .. }
            | Inst::VConst { d, .. }
            | Inst::VDupGpr { d, .. }
            | Inst::VFromGpr { d, .. }
            | Inst::IntToF { d, .. } => VectorUse::new(d, [N; 4]),
            Inst::LoadVPair { d1, d2, .. } => VectorUse { writes: [d1, d2], ..NOTHING },
            Inst::StoreV { s, .. } => VectorUse::new(N, [s, N, N, N]),
            Inst::StoreVPair { s1, s2, .. } => VectorUse::new(N, [s1, s2, N, N]),
            Inst::V3 { op, d, n, m, .. } => VectorUse::new(d, [n, m, if op.reads_d() { d } else { N }, N]),
            Inst::V2 { op, q, d, n, .. } => {
                use V2Op::*;
                let upper = q && matches!(op, Xtn | Sqxtn | Uqxtn | Sqxtun | Fcvtn);
                let reads_d = upper || matches!(op, Sha256su0 | Sha1su1);
                VectorUse::new(d, [n, if reads_d { d } else { N }, N, N])
            }
            Inst::VShift { op, d, n, .. } => {
                use VShiftOp::*;
                let reads_d = matches!(op, Ssra | Usra | Sli | Sri);
                VectorUse::new(d, [n, if reads_d { d } else { N }, N, N])
            }
            Inst::VExt { d, n, m, .. } | Inst::F2 { d, n, m, .. } | Inst::FSelect { d, n, m, .. } => {
                VectorUse::new(d, [n, m, N, N])
            }
            Inst::F3 { d, n, m, a, .. } => VectorUse::new(d, [n, m, a, N]),
            Inst::VDupLane { d, n, .. } | Inst::F1 { d, n, .. } => VectorUse::new(d, [n, N, N, N]),
            Inst::VInsLane { d, n, .. } => VectorUse::new(d, [n, d, N, N]),
            Inst::VInsGpr { d, .. } => VectorUse::new(d, [d, N, N, N]),
            Inst::VGetLane { n, .. } | Inst::FToInt { n, .. } => VectorUse::new(N, [n, N, N, N]),
            Inst::FCmp { n, m, .. } => {
                let m = match m {
                    Some(m) => m,
                    None => N,
                };
                VectorUse::new(N, [n, m, N, N])
            }
            Inst::FCondCompare { n, m, .. } => VectorUse::new(N, [n, m, N, N]),
            Inst::VKnown { name, op, .. } => {
                let (m, a, d) = (name.reads_m(), name.reads_a(), name.reads_d());
                let reads =
                    [op.n, if m { op.m } else { N }, if a { op.a } else { N }, if d { op.d } else { N }];
                VectorUse::new(op.d, reads)
            }
            _ => NOTHING,
        }
    }
}
