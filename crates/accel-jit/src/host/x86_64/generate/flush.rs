//! Flushing denormal numbers to zero (FPCR.FZ): what the host's own flushing does not do as Arm wants it.
//!
//! The values are the same: the host flushes operands (DAZ) and results (FTZ), but for results that round up to the smallest
//! normal number, for which all blocks look. The flags are not. Those that Arm sets are cumulative, so as long as FPSR
//! lacks one, the host traps where it would be set (`runtime::float_mode`), and the reference
//! executes that instruction; after that the host flushes by itself. Every instruction that may trap has its
//! [mark](crate::host::x86_64::marks), which leads to the slow path that it has anyway.
//!
//! What remains: the host says nothing of a denormal operand beside a NaN, nor where it converts to integers or rounds to
//! them; and where it divides by zero or takes the root of a negative number, it says something else first. Operands of
//! these are compared with themselves before, for which the host traps.

use super::vector::*;
use super::*;
use crate::ir::VName;

/// The predicate of comparisons that signal nothing.
const UNORDERED: u8 = 3;

impl Generator {
    /// Behind an instruction: its marks that lead nowhere yet lead to the reference, unless it is enough to note the exception.
    pub(super) fn settle_marks(&mut self, inst: &Inst) {
        if self.asm.marked.is_empty() {
            return;
        }
        if raises_one(inst) {
            return self.asm.marked.clear();
        }
        debug_assert!(!self.flags_wanted(), "the slow path would change them");
        let path = self.slow_path(inst);
        let (marked, back) = (std::mem::take(&mut self.asm.marked), self.asm.here());
        self.defer(move |g| {
            marked.into_iter().for_each(|at| g.asm.bind(at));
            path(g, back);
        });
    }

    /// Emits code that looks at a result, which is not denormal and so does not trap.
    pub(super) fn look(&mut self, emit: impl FnOnce(&mut Self)) {
        let marks = std::mem::replace(&mut self.asm.marks, false);
        emit(self);
        self.asm.marks = marks;
    }

    /// Compares scalars by UCOMIS or COMIS. A NaN is the rarer case, so a denormal number beside one is looked for behind
    /// the block.
    pub(super) fn compare_scalars(&mut self, double: bool, code: u8, (n, m): (Xmm, Xmm)) {
        let compare = opc(u8::from(double), 1, code);
        self.asm.vex(compare, n.0, 0, m);
        if !self.options.flush {
            return;
        }
        let unordered = self.asm.jcc(Cc::P);
        let back = self.asm.here();
        self.defer(move |g| {
            g.asm.bind(unordered);
            g.trap_if_denormal(double, n);
            g.trap_if_denormal(double, m);
            g.asm.vex(compare, n.0, 0, m);
            g.asm.jmp_to(back);
        });
    }

    /// Has the host trap if the scalar `x` is denormal. Clobbers EFLAGS.
    pub(super) fn trap_if_denormal(&mut self, double: bool, x: Xmm) {
        if self.options.flush {
            self.asm.vex(opc(u8::from(double), 1, 0x2e), x.0, 0, x);
        }
    }

    /// The same for the elements of `x`. Clobbers X0.
    pub(super) fn trap_if_any_denormal(&mut self, double: bool, x: Xmm) {
        if self.options.flush {
            self.asm.vex_imm(opc(u8::from(double), 1, 0xc2), X0.0, x.0, x, UNORDERED);
        }
    }
}

/// True for what the host can only trap for by one exception, and that one as Arm has it: comparisons, by denormal operands,
/// and conversions from integers, by inexact results.
fn raises_one(inst: &Inst) -> bool {
    match *inst {
        Inst::FCmp { .. } | Inst::FCondCompare { .. } | Inst::IntToF { .. } => true,
        Inst::V3 { op, .. } => matches!(op, V3Op::FcmEq | V3Op::FcmGe | V3Op::FcmGt),
        Inst::V2 { op, .. } => op == V2Op::Scvtf,
        Inst::VKnown { name, es, .. } => matches!(name, VName::Scvtf | VName::Ucvtf) && es >= 2,
        _ => false,
    }
}
