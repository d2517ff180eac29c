//! Host code that takes SVC of EL0 and returns from EL1, without leaving translated code. What it depends on is in
//! [`Levels`](crate::runtime::levels::Levels). Nothing is changed before it is sure that there is nothing unusual; but for
//! registers that would get the same values again.

use armlet_arm::exception::ExceptionClass;
use armlet_arm::{Pstate, SysReg};

use super::asm::*;
use super::generate::control::{hash_rax, jump_if_known};
use super::regs::*;
use super::thunks::{About, Thunks, at};
use crate::runtime::exit::Exit;
use crate::runtime::state::{JitState, NZCV_BITS};

/// PSTATE.M of EL1 with SP_EL1.
const EL1H: i32 = 0b0101;
/// PSTATE.M.
const MODE: i32 = 0b1111;
/// Where vectors are, and where among them exceptions from EL0.
const VBAR_BASE: i32 = !0x7ff;
const FROM_EL0: i32 = 0x400;

/// What makes a return unusual. M is looked at besides.
const UNUSUAL: Pstate =
    Pstate::AARCH32.union(Pstate::IL).union(Pstate::SS).union(Pstate::BTYPE).union(Pstate::UAO);

fn register(r: SysReg) -> M {
    field(std::mem::offset_of!(JitState, cpu.sys) + r as usize * 8)
}

fn bank(el: usize) -> M {
    field(std::mem::offset_of!(JitState, cpu.sp_el) + el * 8)
}

fn set(el: usize) -> M {
    field(std::mem::offset_of!(JitState, levels.sets) + el * 8)
}

fn back(el: usize) -> M {
    field(std::mem::offset_of!(JitState, levels.back) + el * 4)
}

/// The host register of the current SP.
const SP: Gpr = PINNED[PINNED.len() - 1].1;
const _: () = assert!(PINNED[PINNED.len() - 1].0 == 31);

/// Emits SVC and ERET, given the thunks that there are. `eret` does what is unusual, at page + rax; `look` leaves with
/// PC = rax.
pub fn emit(a: &mut Asm, about: &About<'_>, t: &Thunks, (eret, look): (u64, u64)) -> (u64, u64) {
    let slow = a.here();
    a.store_imm(false, at!(exit_code), Exit::Svc as i32);
    a.jmp_to(t.leave_at_offset);
    (emit_svc(a, about, slow, look), emit_eret(a, about, eret, look))
}

/// Goes on at the address in rax, a target of no branch; at `look` if it is not known.
pub fn go(a: &mut Asm, about: &About<'_>, look: u64) {
    hash_rax(a);
    if about.bti {
        a.mov_imm(RDX, 0);
    }
    jump_if_known(a, look);
}

fn emit_svc(a: &mut Asm, about: &About<'_>, slow: u64, look: u64) -> u64 {
    let here = a.here();
    a.op_imm(Op2::Cmp, false, at!(levels.enter), 0);
    a.jcc_to(Cc::E, slow);
    // NZCV from the form of translated code, in ecx.
    a.movzx16(RDX, at!(nzcv));
    a.mov32(RCX, RDX);
    a.op_imm(Op2::And, false, RCX, 0xc000);
    a.shift_imm(Shift::Shl, false, RCX, 16);
    a.mov32(R9, RDX);
    a.op_imm(Op2::And, false, R9, 0x100);
    a.op_imm(Op2::Xor, false, R9, 0x100);
    a.shift_imm(Shift::Shl, false, R9, 21);
    a.op(Op2::Or, false, RCX, R9);
    a.op_imm(Op2::And, false, RDX, 1);
    a.shift_imm(Shift::Shl, false, RDX, 28);
    a.op(Op2::Or, false, RCX, RDX);
    a.load(false, RDX, at!(cpu.pstate));
    a.op_imm(Op2::And, false, RDX, !(NZCV_BITS as i32));
    a.op(Op2::Or, false, RDX, RCX);
    a.store(true, register(SysReg::SpsrEl1), RDX);
    // PSTATE; the set of EL1 must be for its PAN.
    a.op(Op2::And, false, RDX, at!(levels.kept));
    a.op(Op2::Or, false, RDX, at!(levels.set));
    a.mov32(RCX, RDX);
    a.op(Op2::Xor, false, RCX, at!(levels.pan));
    a.test_imm(false, RCX, Pstate::PAN.bits() as i32);
    a.jcc_to(Cc::NE, slow);
    a.store(false, at!(cpu.pstate), RDX);
    a.op(Op2::Add, true, RAX, at!(page_va));
    a.op_imm(Op2::Add, true, RAX, 4);
    a.store(true, register(SysReg::ElrEl1), RAX);
    a.load(false, RCX, at!(exit_arg));
    a.op_imm(Op2::Or, false, RCX, i32::from(ExceptionClass::Svc.ec(false)) << 26 | 1 << 25);
    a.store(true, register(SysReg::EsrEl1), RCX);
    a.store(true, bank(0), SP);
    a.load(true, SP, bank(1));
    a.load(true, R15, set(1));
    a.store(true, at!(tlb), R15);
    if about.count {
        a.op_imm(Op2::Add, true, at!(levels.entries), 1);
    }
    a.load(true, RAX, register(SysReg::VbarEl1));
    a.op_imm(Op2::And, true, RAX, VBAR_BASE);
    a.op_imm(Op2::Add, true, RAX, FROM_EL0);
    go(a, about, look);
    here
}

fn emit_eret(a: &mut Asm, about: &About<'_>, slow: u64, look: u64) -> u64 {
    let here = a.here();
    // What is to be looked at first, or an interrupt that may be taken behind the return.
    a.op_imm(Op2::Cmp, false, at!(poll), 0);
    a.jcc_to(Cc::NE, slow);
    for line in about.lines {
        a.mov_imm(RCX, line as i64);
        a.op8_imm(Op2::Cmp, M::at(RCX, 0), 0);
        a.jcc_to(Cc::NE, slow);
    }
    a.load(false, RDX, register(SysReg::SpsrEl1));
    a.test_imm(false, RDX, UNUSUAL.bits() as i32);
    a.jcc_to(Cc::NE, slow);
    // An address whose top byte is to be ignored is not yet PC.
    a.load(true, R12, register(SysReg::ElrEl1));
    a.mov(RCX, R12);
    a.shift_imm(Shift::Shl, true, RCX, 8);
    a.shift_imm(Shift::Sar, true, RCX, 8);
    a.op(Op2::Cmp, true, RCX, R12);
    a.jcc_to(Cc::NE, slow);
    a.mov32(RCX, RDX);
    a.op_imm(Op2::And, false, RCX, MODE);
    let to_el0 = a.jcc(Cc::E);
    a.op_imm(Op2::Cmp, false, RCX, EL1H);
    a.jcc_to(Cc::NE, slow);
    a.op_imm(Op2::Cmp, false, back(1), 0);
    a.jcc_to(Cc::E, slow);
    a.mov32(RCX, RDX);
    a.op(Op2::Xor, false, RCX, at!(levels.pan));
    a.test_imm(false, RCX, Pstate::PAN.bits() as i32);
    a.jcc_to(Cc::NE, slow);
    a.load(true, RAX, set(0));
    a.store(true, at!(tlb_unprivileged), RAX);
    emit_restore(a, about, look);
    a.bind(to_el0);
    a.op_imm(Op2::Cmp, false, back(0), 0);
    a.jcc_to(Cc::E, slow);
    a.store(true, bank(1), SP);
    a.load(true, SP, bank(0));
    a.load(true, R15, set(0));
    a.store(true, at!(tlb), R15);
    a.store(true, at!(tlb_unprivileged), R15);
    emit_restore(a, about, look);
    here
}

/// PSTATE from edx; goes on at r12.
fn emit_restore(a: &mut Asm, about: &About<'_>, look: u64) {
    a.op_imm(Op2::And, false, RDX, about.spsr_mask as i32);
    a.store(false, at!(cpu.pstate), RDX);
    a.shift_imm(Shift::Shr, false, RDX, 28);
    let slots = std::mem::offset_of!(JitState, consts.nzcv_slots) as i32 - STATE_BIAS;
    a.movzx16(RDX, M::indexed(RBP, RDX, 1, slots));
    a.store16(at!(nzcv), RDX);
    a.store_imm(true, at!(cpu.monitor.address), -1);
    a.store_imm(false, at!(levels.event), 1);
    a.mov(RAX, R12);
    go(a, about, look);
}
