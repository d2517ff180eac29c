//! System registers and system instructions: the hot ones inline, the rest through one slow path.

use armlet_arm::SysReg;
use armlet_arm::sysreg::{self, encoding};

use super::*;
use crate::runtime::state::JitState;

const DAIF: u16 = encoding(3, 3, 4, 2, 1);
const CURRENT_EL: u16 = encoding(3, 0, 4, 2, 2);
const SP_EL0: u16 = encoding(3, 0, 4, 1, 0);
const FPCR: u16 = encoding(3, 3, 4, 4, 0);
const FPSR: u16 = encoding(3, 3, 4, 4, 1);
const DAIF_BITS: i32 = 0x3c0;

fn register(r: SysReg) -> M {
    field(std::mem::offset_of!(JitState, cpu.sys) + r as usize * 8)
}

fn pstate() -> M {
    field(std::mem::offset_of!(JitState, cpu.pstate))
}

impl Generator {
    pub(super) fn system(&mut self, inst: &Inst) {
        match *inst {
            Inst::SysRead { d, enc } => self.sys_read(d, enc),
            Inst::SysWrite { enc, s } => self.sys_write(enc, s),
            Inst::PstateImm { op1, op2, imm } => self.pstate_imm(op1, op2, imm),
            Inst::Sys { s, .. } => {
                self.system_slow(Some(s));
            }
            _ => unreachable!("not a system instruction"),
        }
    }

    /// Where a register that needs no more than a load or store is.
    fn inline_home(&self, enc: u16, write: bool) -> Option<M> {
        if enc == SysReg::TpidrEl0.encoding() {
            return Some(register(SysReg::TpidrEl0));
        }
        if enc == SysReg::TpidrroEl0.encoding() && (!write || self.options.el1h) {
            return Some(register(SysReg::TpidrroEl0));
        }
        if !self.options.el1h {
            return None;
        }
        if enc == SP_EL0 {
            return Some(field(std::mem::offset_of!(JitState, cpu.sp_el)));
        }
        let both = [SysReg::TpidrEl1, SysReg::ElrEl1, SysReg::EsrEl1, SysReg::FarEl1];
        // Kernels change the key of instructions whenever they are entered and left.
        let keys = [SysReg::ApiaKeyLoEl1, SysReg::ApiaKeyHiEl1];
        let reads = [SysReg::SpsrEl1, SysReg::Ttbr0El1, SysReg::Ttbr1El1, SysReg::SctlrEl1, SysReg::TcrEl1];
        let find = |set: &[SysReg]| set.iter().find(|r| r.encoding() == enc).map(|r| register(*r));
        let key = if self.options.pauth { find(&keys) } else { None };
        let other = || find(&reads).or_else(|| sysreg::stored(&self.options.features, enc).map(register));
        find(&both).or(key).or_else(|| if write { None } else { other() })
    }

    /// The value of a register that never changes. EL0 may be kept from reading it, or sees another.
    fn fixed_value(&self, enc: u16) -> Option<u64> {
        let [ctr, dczid] = self.options.cache_type;
        match enc {
            _ if self.options.el0 => None,
            _ if enc == SysReg::CtrEl0.encoding() => Some(ctr),
            _ if enc == SysReg::DczidEl0.encoding() => Some(dczid),
            _ => None,
        }
    }

    fn sys_read(&mut self, d: Reg, enc: u16) {
        if let Some(v) = self.fixed_value(enc) {
            let g = self.dest(d, RAX);
            self.asm.mov_imm(g, v as i64);
            return self.done(d, g);
        }
        if let Some(home) = self.inline_home(enc, false) {
            let g = self.dest(d, RAX);
            self.asm.load(true, g, home);
            return self.done(d, g);
        }
        if !self.options.el0 && (enc == DAIF || enc == CURRENT_EL) {
            self.clobber_flags();
            let g = self.dest(d, RAX);
            self.asm.load(false, g, pstate());
            let mask = if enc == DAIF { DAIF_BITS } else { 0xc };
            self.asm.op_imm(Op2::And, false, g, mask);
            return self.done(d, g);
        }
        if self.options.fp && enc == FPSR {
            return self.read_fpsr(d);
        }
        if self.options.fp && enc == FPCR {
            let g = self.dest(d, RAX);
            self.asm.load(false, g, field(std::mem::offset_of!(JitState, cpu.fp.fpcr)));
            return self.done(d, g);
        }
        match self.counter(enc) {
            Some(counter) => self.system_by(counter, None, self.word),
            None => match self.external(enc, true) {
                Some(reg) => self.system_by(self.thunks.external_read, None, reg as u32),
                None => self.system_slow(None),
            },
        }
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    /// What reads the system counter, if that is what is to be read.
    fn counter(&self, enc: u16) -> Option<u64> {
        let [physical, virtual_] = self.thunks.counters;
        let is = |r: SysReg| enc == r.encoding();
        match () {
            () if is(SysReg::CntpctEl0) => Some(physical),
            () if is(SysReg::CntvctEl0) => Some(virtual_),
            () if self.options.ecv && is(SysReg::CntpctssEl0) => Some(physical),
            () if self.options.ecv && is(SysReg::CntvctssEl0) => Some(virtual_),
            () => None,
        }
    }

    /// A register of a device that EL1 may access whatever the state is.
    fn external(&self, enc: u16, read: bool) -> Option<SysReg> {
        if self.options.el0 { None } else { sysreg::external(&self.options.features, enc, read) }
    }

    /// FPCR: mostly the value that it has already.
    fn write_fpcr(&mut self, s: Opnd) {
        self.clobber_flags();
        self.move_into(Width::X, RAX, s);
        let fpcr = field(std::mem::offset_of!(JitState, cpu.fp.fpcr));
        self.asm.op(Op2::Cmp, false, RAX, fpcr);
        let changes = self.asm.jcc(Cc::NE);
        let back = self.asm.here();
        let copies = self.vectors.snapshot();
        let (word, offset) = (self.word as i32, i32::from(self.offset));
        self.defer(move |g| {
            g.asm.bind(changes);
            g.asm.push_imm(word);
            g.asm.push_imm(offset);
            g.call_thunk(g.thunks.system);
            g.pop_words(2);
            g.restore_vectors(&copies);
            g.asm.jmp_to(back);
        });
    }

    fn sys_write(&mut self, enc: u16, s: Opnd) {
        if let Some(home) = self.inline_home(enc, true) {
            let g = self.value(s, RAX);
            return self.asm.store(true, home, g);
        }
        if !self.options.el0 && enc == DAIF {
            self.clobber_flags();
            self.move_into(Width::W, RAX, s);
            self.asm.op_imm(Op2::And, false, RAX, DAIF_BITS);
            self.asm.op_imm(Op2::And, false, pstate(), !DAIF_BITS);
            self.asm.op_mem(Op2::Or, false, pstate(), RAX);
            return self.check_interrupts();
        }
        // With flushing, what the host traps for depends on FPSR.
        if self.options.fp && enc == FPSR && !self.options.flush {
            return self.write_fpsr(s);
        }
        if self.options.fp && enc == FPCR {
            return self.write_fpcr(s);
        }
        if self.options.el1h && enc == SysReg::SpsrEl1.encoding() {
            self.clobber_flags();
            self.move_into(Width::W, RAX, s);
            self.asm.op_imm(Op2::And, false, RAX, self.options.spsr_mask as i32);
            return self.asm.store(true, register(SysReg::SpsrEl1), RAX);
        }
        match self.external(enc, false) {
            Some(reg) => self.system_by(self.thunks.external_write, Some(s), reg as u32),
            None => self.system_slow(Some(s)),
        }
    }

    fn pstate_imm(&mut self, op1: u8, op2: u8, imm: u8) {
        if !self.options.el0 && op1 == 3 && matches!(op2, 6 | 7) {
            self.clobber_flags();
            let mask = i32::from(imm & 15) << 6;
            if op2 == 6 {
                return self.asm.op_imm(Op2::Or, false, pstate(), mask);
            }
            self.asm.op_imm(Op2::And, false, pstate(), !mask);
            return self.check_interrupts();
        }
        self.system_slow(None);
    }

    /// After interrupts may have been unmasked: looks closer if a line may be up.
    fn check_interrupts(&mut self) {
        let hint = field(std::mem::offset_of!(JitState, irq_hint));
        self.asm.op_imm(Op2::Cmp, false, hint, 0);
        let pending = self.asm.jcc(Cc::NE);
        let next = i64::from(self.offset) + 4;
        self.defer(move |g| {
            g.asm.bind(pending);
            g.spend(g.count);
            g.store_dirty();
            g.asm.mov_imm(RAX, next);
            g.asm.jmp_to(g.thunks.poll);
        });
    }

    /// The instruction word tells the slow path everything; the value goes in rax, the result comes in rax.
    fn system_slow(&mut self, s: Option<Opnd>) {
        self.system_by(self.thunks.system, s, self.word);
    }

    /// The same with what the slow path needs in place of the word.
    fn system_by(&mut self, thunk: u64, s: Option<Opnd>, what: u32) {
        self.clobber_flags();
        if let Some(s) = s {
            self.move_into(Width::X, RAX, s);
        }
        self.asm.push_imm(what as i32);
        self.asm.push_imm(i32::from(self.offset));
        self.call_thunk(thunk);
        self.pop_words(2);
        self.vectors.clear();
    }
}
