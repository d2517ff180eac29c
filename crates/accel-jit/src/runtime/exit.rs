//! Why translated code was left.

use crate::ir::Raise;

/// Reasons, as translated code stores them in the state. PC is in the state too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Exit {
    /// Continue at PC: a poll, or something may be pending.
    Look = 0,
    /// An exit with this number (in `exit_arg`) wants to be chained to PC.
    Chain,
    /// An indirect branch whose target is not in the jump cache.
    Indirect,
    /// A slow path has set PC: an exception was taken, or the context has changed.
    Done,
    /// Exceptions; PC is the instruction's, `exit_arg` its immediate.
    Undefined,
    /// CPACR_EL1 trap.
    FpTrap,
    /// SVC.
    Svc,
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
    /// BRK.
    Brk,
    /// HLT.
    Hlt,
    /// PC alignment.
    PcAlignment,
    /// PSTATE.IL.
    IllegalState,
    /// SP alignment.
    SpAlignment,
    /// Exception return.
    Eret,
    /// Hints; PC is the instruction's.
    Wfi,
    /// WFE.
    Wfe,
    /// SEV.
    Sev,
    /// SEVL.
    Sevl,
    /// Fewer instructions may execute than the block at PC has.
    Limit,
    /// WFIT; `exit_arg` is its register's number, `result` that register.
    Wfit,
    /// WFET, likewise.
    Wfet,
    /// Authenticated exception return; `exit_arg` is 1 for key B.
    EretAuthenticated,
    /// A branch led to an instruction that is no target for it; `exit_arg` is 1 if SCTLR_EL1 may allow it.
    BranchTarget,
}

impl Exit {
    /// The last instruction was executed, so that a step of it is done: it raised no exception other than one
    /// that it is there to raise.
    pub fn completes(self) -> bool {
        matches!(
            self,
            Self::Look
                | Self::Chain
                | Self::Indirect
                | Self::Done
                | Self::Svc
                | Self::Hvc
                | Self::Wfi
                | Self::Wfe
                | Self::Sev
                | Self::Sevl
                | Self::Wfit
                | Self::Wfet
        )
    }

    /// How many there are.
    pub const COUNT: usize = 24;

    const ALL: [Self; Self::COUNT] = [
        Self::Look,
        Self::Chain,
        Self::Indirect,
        Self::Done,
        Self::Undefined,
        Self::FpTrap,
        Self::Svc,
        Self::Hvc,
        Self::Smc,
        Self::Brk,
        Self::Hlt,
        Self::PcAlignment,
        Self::IllegalState,
        Self::SpAlignment,
        Self::Eret,
        Self::Wfi,
        Self::Wfe,
        Self::Sev,
        Self::Sevl,
        Self::Limit,
        Self::Wfit,
        Self::Wfet,
        Self::EretAuthenticated,
        Self::BranchTarget,
    ];

    /// From the number in the state.
    pub fn from_code(code: u32) -> Self {
        Self::ALL[code as usize]
    }

    /// The exit for an exception, and its immediate.
    pub fn from_raise(raise: Raise) -> (Self, u16) {
        match raise {
            Raise::Undefined => (Self::Undefined, 0),
            Raise::FpTrap => (Self::FpTrap, 0),
            Raise::Svc(i) => (Self::Svc, i),
            Raise::Hvc(i) => (Self::Hvc, i),
            Raise::Smc(i) => (Self::Smc, i),
            Raise::Brk(i) => (Self::Brk, i),
            Raise::Hlt(i) => (Self::Hlt, i),
            Raise::PcAlignment => (Self::PcAlignment, 0),
            Raise::IllegalState => (Self::IllegalState, 0),
        }
    }

    /// Name for statistics.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; Exit::COUNT] = [
            "look",
            "chain",
            "indirect",
            "slow_path",
            "undefined",
            "fp_trap",
            "svc",
            "hvc",
            "smc",
            "brk",
            "hlt",
            "pc_alignment",
            "illegal_state",
            "sp_alignment",
            "eret",
            "wfi",
            "wfe",
            "sev",
            "sevl",
            "limit",
            "wfit",
            "wfet",
            "eret_authenticated",
            "branch_target",
        ];
        NAMES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_agree() {
        for (i, e) in Exit::ALL.iter().enumerate() {
            assert_eq!(*e as usize, i);
            assert_eq!(Exit::from_code(i as u32), *e);
        }
    }
}
