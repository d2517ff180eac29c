//! Shared pieces of host code: entering and leaving translated code, and calling Rust from it.

use armlet_arm::SysReg;
use armlet_arm::model::COUNTER_FREQUENCY;
use armlet_arm::spec::cntkctl;
use armlet_engine::HostTime;

use super::asm::*;
use super::generate::control::jump_if_known;
use super::generate::pointer::BTYPE_SHIFT;
use super::levels;
use super::regs::*;
use crate::mmu::OTHER_JUMP;
use crate::runtime::exit::Exit;
use crate::runtime::state::JitState;

/// Rust functions that translated code calls on its slow paths. The first argument is the state, the second
/// rax, the others the words that were pushed, last pushed first. All return 0 to go on (results are in the
/// state), 1 to leave (PC is set), or 2 to go on at PC.
pub type SlowPath = extern "sysv64" fn(*mut JitState, u64, u64, u64, u64) -> u64;

/// Where translated code finds its slow paths' implementations.
#[derive(Clone, Copy)]
pub struct SlowPaths {
    /// Accesses that the TLB does not know, by their number in the side table.
    pub access: SlowPath,
    /// Accesses while there are watchpoints.
    pub watch: SlowPath,
    /// LDXP, LDAXP.
    pub load_exclusive_pair: SlowPath,
    /// STXP, STLXP.
    pub store_exclusive_pair: SlowPath,
    /// CASP.
    pub cas_pair: SlowPath,
    /// MRS, MSR, SYS.
    pub system: SlowPath,
    /// MRS of EL1 of a register outside.
    pub external_read: SlowPath,
    /// MSR of EL1 to one.
    pub external_write: SlowPath,
    /// DSB with maintenance outstanding.
    pub sync: SlowPath,
    /// Pointer authentication.
    pub pauth: SlowPath,
    /// Memory copy and memory set.
    pub mops: SlowPath,
    /// A vector IR instruction by the reference.
    pub vector: SlowPath,
    /// Something may want the vCPU's attention; PC is set.
    pub attend: SlowPath,
    /// The same where PC is a branch target as it was given.
    pub attend_branch: SlowPath,
    /// ERET at EL1, which is at PC.
    pub eret: SlowPath,
}

/// Addresses of the shared pieces.
#[derive(Clone, Copy, Default, Debug)]
#[expect(missing_docs, reason = "named as in SlowPaths")]
pub struct Thunks {
    /// Called with the side table's number in the four bytes behind the call; goes on where the entry says.
    pub access: u64,
    /// The same where no host vector register holds anything.
    pub access_plain: u64,
    pub watch: u64,
    pub load_exclusive_pair: u64,
    pub store_exclusive_pair: u64,
    pub cas_pair: u64,
    pub system: u64,
    pub external_read: u64,
    pub external_write: u64,
    pub sync: u64,
    pub pauth: u64,
    pub mops: u64,
    pub vector: u64,
    /// As `system`, for MRS of the physical and of the virtual count.
    pub counters: [u64; 2],
    /// Calls the vector helper in rax; operands and an input on the stack; its result is in rax.
    pub helper: u64,
    /// `fn(state, code, virtual address)`: enters translated code.
    pub enter: u64,
    /// Leaves with PC = page + rax; the reason is stored already.
    pub leave_at_offset: u64,
    /// Goes on at page + rax, a target of no branch, after a look at what wants the vCPU's attention.
    pub poll: u64,
    /// Leaves for [`Exit::Chain`] by the exit whose number was pushed.
    pub chain: u64,
    /// Leaves with PC = rax for [`Exit::Indirect`].
    pub indirect: u64,
    /// Goes on at rax after a look as for `poll`.
    pub indirect_poll: u64,
    /// Goes on at rax, whose hash is in rcx, by the second place of the jump cache; else as `indirect`.
    pub second: u64,
    /// SVC of EL0, and ERET at EL1, at page + rax; `exit_arg` is stored already.
    pub svc: u64,
    pub eret: u64,
}

/// What thunks depend on.
pub struct About<'a> {
    /// PSTATE.BTYPE is in rdx where a block is entered, and wherever a branch leaves from.
    pub bti: bool,
    /// Host vector registers that are in use.
    pub vectors: usize,
    /// What the system counter shows, if it may be read there; it must stay where it is.
    pub time: Option<&'a HostTime>,
    /// Where the levels of the vCPU's interrupt lines are, one byte each, as long as the thunks are.
    pub lines: [u64; 2],
    /// Bits of SPSR_EL1 that there are.
    pub spsr_mask: u32,
    /// Instructions are counted exactly: whatever wants attention leaves translated code.
    pub counted: bool,
    /// Count what happens.
    pub count: bool,
}

macro_rules! at {
    ($($field:tt)+) => { field(std::mem::offset_of!(JitState, $($field)+)) };
}
pub(super) use at;

fn save_pinned(a: &mut Asm) {
    for (r, g) in PINNED {
        a.store(true, x_slot(r), g);
    }
}

fn load_pinned(a: &mut Asm) {
    for (r, g) in PINNED {
        a.load(true, g, x_slot(r));
    }
}

/// Brings the guest's MXCSR back if the function that returns here had to have the host's.
fn back_from_rust(a: &mut Asm) {
    a.op_imm(Op2::Cmp, false, at!(mxcsr_away), 0);
    let here = a.jcc(Cc::E);
    a.ldmxcsr(at!(mxcsr_now));
    a.store_imm(false, at!(mxcsr_away), 0);
    a.bind(here);
}

const SAVED: [Gpr; 6] = [RBX, RBP, R12, R13, R14, R15];

/// Emits all thunks into `a`, which must be reset to where they will execute.
pub fn emit(a: &mut Asm, slow: &SlowPaths, about: &About<'_>) -> Thunks {
    let &About { bti, vectors, time, .. } = about;
    let mut t = Thunks { enter: emit_enter(a, bti), ..Thunks::default() };
    let leave = emit_leave(a);
    t.leave_at_offset = a.here();
    emit_leave_at_offset(a, leave);
    t.chain = a.here();
    a.pop(RAX);
    a.store(true, at!(exit_arg), RAX);
    a.store_imm(false, at!(exit_code), Exit::Chain as i32);
    a.jmp_to(leave);
    t.indirect = a.here();
    emit_btype(a, bti);
    a.store_imm(false, at!(exit_code), Exit::Indirect as i32);
    a.store(true, at!(cpu.pc), RAX);
    a.jmp_to(leave);
    t.second = a.here();
    a.op_imm(Op2::Xor, false, RCX, (OTHER_JUMP as i32) << 2);
    jump_if_known(a, t.indirect);
    let look = emit_look(a, leave);
    let leave_saved = emit_leave_saved(a, about, look);
    let eret = emit_at_offset(a, slow.eret, leave_saved);
    (t.svc, t.eret) = levels::emit(a, about, &t, (eret, look));
    (t.poll, t.indirect_poll) = emit_polls(a, slow, about, (&t, leave_saved));
    for (address, f) in [
        (&mut t.watch, slow.watch),
        (&mut t.load_exclusive_pair, slow.load_exclusive_pair),
        (&mut t.store_exclusive_pair, slow.store_exclusive_pair),
        (&mut t.cas_pair, slow.cas_pair),
        (&mut t.system, slow.system),
        (&mut t.external_read, slow.external_read),
        (&mut t.external_write, slow.external_write),
        (&mut t.sync, slow.sync),
        (&mut t.pauth, slow.pauth),
        (&mut t.mops, slow.mops),
        (&mut t.vector, slow.vector),
    ] {
        *address = emit_slow(a, f, leave_saved);
    }
    t.access = emit_access(a, slow.access, leave_saved, vectors);
    t.access_plain = emit_access(a, slow.access, leave_saved, 0);
    t.helper = emit_helper(a);
    t.counters = match time {
        Some(time) => {
            let address = std::ptr::from_ref(time) as u64;
            [cntkctl::EL0PCTEN, cntkctl::EL0VCTEN].map(|allowed| emit_counter(a, address, allowed, t.system))
        }
        None => [t.system; 2],
    };
    t
}

/// PSTATE.BTYPE from rdx, where it is inside translated code.
fn emit_btype(a: &mut Asm, bti: bool) {
    if bti {
        a.shift_imm(Shift::Shl, false, RDX, BTYPE_SHIFT);
        a.op_mem(Op2::Or, false, at!(cpu.pstate), RDX);
    }
}

/// What polls lead to that have found something: `poll` and `indirect_poll`.
fn emit_polls(
    a: &mut Asm,
    slow: &SlowPaths,
    about: &About<'_>,
    (t, leave_saved): (&Thunks, u64),
) -> (u64, u64) {
    if about.counted {
        let here = a.here();
        a.store_imm(false, at!(exit_code), Exit::Look as i32);
        a.jmp_to(t.leave_at_offset);
        return (here, t.indirect);
    }
    let poll = emit_at_offset(a, slow.attend, leave_saved);
    let indirect = a.here();
    emit_btype(a, about.bti);
    emit_at_pc(a, slow.attend_branch, leave_saved);
    (poll, indirect)
}

/// Calls `f` with PC = page + rax, and goes on at PC or leaves. Nothing else in host registers than pinned ones counts.
fn emit_at_offset(a: &mut Asm, f: SlowPath, leave_saved: u64) -> u64 {
    let here = a.here();
    a.op(Op2::Add, true, RAX, at!(page_va));
    emit_at_pc(a, f, leave_saved);
    here
}

/// The same with PC = rax.
fn emit_at_pc(a: &mut Asm, f: SlowPath, leave_saved: u64) {
    a.store(true, at!(cpu.pc), RAX);
    save_pinned(a);
    a.load(true, RSP, at!(host_sp));
    a.lea(true, RDI, M::at(RBP, -STATE_BIAS));
    a.mov_imm(RAX, f as usize as i64);
    a.call_rm(RAX);
    a.jmp_to(leave_saved);
}

fn emit_enter(a: &mut Asm, bti: bool) -> u64 {
    let here = a.here();
    for g in SAVED {
        a.push(g);
    }
    a.lea(true, RSP, M::at(RSP, -8));
    a.lea(true, RBP, M::at(RDI, STATE_BIAS));
    a.store(true, at!(host_sp), RSP);
    a.stmxcsr(at!(mxcsr_host));
    a.ldmxcsr(at!(mxcsr_guest));
    a.store_imm(false, at!(mxcsr_ahead), 1);
    a.mov(RAX, RDX);
    a.mov(RCX, RSI);
    a.load(true, R15, at!(tlb));
    if bti {
        a.load(false, RDX, at!(cpu.pstate));
        a.shift_imm(Shift::Shr, false, RDX, BTYPE_SHIFT);
        a.op_imm(Op2::And, false, RDX, 3);
        a.op_imm(Op2::And, false, at!(cpu.pstate), !(3 << BTYPE_SHIFT));
    }
    load_pinned(a);
    a.jmp_rm(RCX);
    here
}

fn emit_leave(a: &mut Asm) -> u64 {
    let here = a.here();
    save_pinned(a);
    emit_return(a);
    here
}

/// Leaves with PC = rax, a target that is not known: it is found outside.
fn emit_look(a: &mut Asm, leave: u64) -> u64 {
    let here = a.here();
    a.store(true, at!(cpu.pc), RAX);
    a.store_imm(false, at!(exit_code), Exit::Look as i32);
    a.jmp_to(leave);
    here
}

/// What a slow path leads to that has returned rax, which is not 0. Pinned registers are in the state.
fn emit_leave_saved(a: &mut Asm, about: &About<'_>, look: u64) -> u64 {
    let here = a.here();
    a.op_imm(Op2::Cmp, false, RAX, 1);
    let go_on = a.jcc(Cc::NE);
    a.store_imm(false, at!(exit_code), Exit::Done as i32);
    emit_return(a);
    a.bind(go_on);
    a.load(true, RSP, at!(host_sp));
    load_pinned(a);
    a.load(true, R15, at!(tlb));
    a.load(true, RAX, at!(cpu.pc));
    levels::go(a, about, look);
    here
}

fn emit_return(a: &mut Asm) {
    a.load(true, RSP, at!(host_sp));
    a.stmxcsr(at!(mxcsr_guest));
    a.ldmxcsr(at!(mxcsr_host));
    a.lea(true, RSP, M::at(RSP, 8));
    for g in SAVED.into_iter().rev() {
        a.pop(g);
    }
    a.ret();
}

fn emit_leave_at_offset(a: &mut Asm, leave: u64) {
    a.op(Op2::Add, true, RAX, at!(page_va));
    a.store(true, at!(cpu.pc), RAX);
    a.jmp_to(leave);
}

/// Host registers of temporaries, which slow paths keep.
const TEMP_SLOTS: usize = TEMPS.len();

fn temp_slot(i: usize) -> M {
    field(std::mem::offset_of!(JitState, saved) + i * 8)
}

/// `call`ed with rax and up to three words pushed before; returns with the result in rax.
fn emit_slow(a: &mut Asm, f: SlowPath, leave_saved: u64) -> u64 {
    let here = a.here();
    save_pinned(a);
    for (i, g) in TEMPS.iter().enumerate().take(TEMP_SLOTS) {
        a.store(true, temp_slot(i), *g);
    }
    a.lea(true, RDI, M::at(RBP, -STATE_BIAS));
    a.mov(RSI, RAX);
    a.load(true, RDX, M::at(RSP, 8));
    a.load(true, RCX, M::at(RSP, 16));
    a.load(true, R8, M::at(RSP, 24));
    a.mov(RBX, RSP);
    a.op_imm(Op2::And, true, RSP, -16);
    a.mov_imm(RAX, f as usize as i64);
    a.call_rm(RAX);
    a.mov(RSP, RBX);
    back_from_rust(a);
    a.test(false, RAX, RAX);
    a.jcc_to(Cc::NE, leave_saved);
    load_pinned(a);
    for (i, g) in TEMPS.iter().enumerate().take(TEMP_SLOTS) {
        a.load(true, *g, temp_slot(i));
    }
    a.load(true, R15, at!(tlb));
    a.load(true, RAX, at!(result));
    a.ret();
    here
}

fn vector_slot(i: usize) -> M {
    field(std::mem::offset_of!(JitState, saved_vectors) + i * 16)
}

/// The slow path of an access: everything that translated code holds in registers is where
/// [`saved_at`] says while Rust runs, and comes back from there.
fn emit_access(a: &mut Asm, f: SlowPath, leave_saved: u64, vectors: usize) -> u64 {
    let here = a.here();
    save_pinned(a);
    a.store(true, at!(result), RAX);
    for (i, g) in TEMPS.iter().enumerate() {
        a.store(true, temp_slot(i), *g);
    }
    for i in 0..vectors {
        a.vex(opc(1, 1, 0x7f), i as u8, 0, vector_slot(i));
    }
    // What is behind the call is the number.
    a.pop(RSI);
    a.load(false, RSI, M::at(RSI, 0));
    a.lea(true, RDI, M::at(RBP, -STATE_BIAS));
    a.mov_imm(RAX, f as usize as i64);
    a.call_rm(RAX);
    back_from_rust(a);
    a.test(false, RAX, RAX);
    a.jcc_to(Cc::NE, leave_saved);
    load_pinned(a);
    for (i, g) in TEMPS.iter().enumerate() {
        a.load(true, *g, temp_slot(i));
    }
    for i in 0..vectors {
        a.vex(opc(1, 1, 0x6f), i as u8, 0, vector_slot(i));
    }
    a.load(true, R15, at!(tlb));
    a.load(true, RAX, at!(result));
    a.jmp_rm(at!(resume));
    here
}

/// Calls `rax(env, registers, operands, input)`.
fn emit_helper(a: &mut Asm) -> u64 {
    let here = a.here();
    save_pinned(a);
    for (i, g) in TEMPS.iter().enumerate().take(TEMP_SLOTS) {
        a.store(true, temp_slot(i), *g);
    }
    a.lea(true, RDI, at!(cpu.fp));
    a.lea(true, RSI, at!(cpu.v));
    a.load(true, RDX, M::at(RSP, 8));
    a.load(true, RCX, M::at(RSP, 16));
    a.mov(RBX, RSP);
    a.op_imm(Op2::And, true, RSP, -16);
    a.call_rm(RAX);
    a.mov(RSP, RBX);
    back_from_rust(a);
    load_pinned(a);
    for (i, g) in TEMPS.iter().enumerate().take(TEMP_SLOTS) {
        a.load(true, *g, temp_slot(i));
    }
    a.ret();
    here
}

/// A tick is 2^4 ns.
const TICK_SHIFT: u8 = 4;
const _: () = assert!(COUNTER_FREQUENCY << TICK_SHIFT == 1_000_000_000);

/// The system counter in rax, as [`HostTime::now`] and the machine's clock have it; keeps everything else. By `system` if
/// EL0 is not allowed to read it, if there is no line or the clock stands. `call`ed as that is.
fn emit_counter(a: &mut Asm, time: u64, allowed: u64, system: u64) -> u64 {
    let here = a.here();
    let layout = HostTime::LAYOUT;
    let part = |offset: usize| M::at(R9, offset as i32);
    let mut slow = Vec::new();
    for g in [RCX, RDX, R9, R12] {
        a.push(g);
    }
    // PSTATE.M: the exception level.
    a.test_imm(false, at!(cpu.pstate), 0b1100);
    let el1 = a.jcc(Cc::NE);
    let control = field(std::mem::offset_of!(JitState, cpu.sys) + SysReg::CntkctlEl1 as usize * 8);
    a.test_imm(false, control, allowed as i32);
    slow.push(a.jcc(Cc::E));
    a.bind(el1);
    a.mov_imm(R9, time as i64);
    a.load(true, R12, part(layout.version));
    a.test_imm(false, R12, 1);
    slow.push(a.jcc(Cc::NE));
    a.lfence_rdtsc();
    a.shift_imm(Shift::Shl, true, RDX, 32);
    a.op(Op2::Or, true, RAX, RDX);
    // Nothing below is read before the counter is.
    a.mov(RCX, RAX);
    a.op_imm(Op2::And, true, RCX, 0);
    a.op(Op2::Add, true, R9, RCX);
    a.op(Op2::Sub, true, RAX, part(layout.cycles));
    a.op(Op2::Cmp, true, RAX, part(layout.span));
    slow.push(a.jcc(Cc::AE));
    const MUL: u8 = 4;
    a.group3(MUL, true, part(layout.rate));
    a.op(Op2::Add, true, RDX, part(layout.ns));
    a.load(true, RAX, part(layout.state));
    a.op(Op2::Cmp, true, R12, part(layout.version));
    slow.push(a.jcc(Cc::NE));
    a.mov(RCX, RAX);
    a.shift_imm(Shift::Shr, true, RCX, 62);
    slow.push(a.jcc(Cc::NE));
    a.op(Op2::Sub, true, RDX, RAX);
    slow.push(a.jcc(Cc::B));
    a.shift_imm(Shift::Shr, true, RDX, TICK_SHIFT);
    a.mov(RAX, RDX);
    for g in [R12, R9, RDX, RCX] {
        a.pop(g);
    }
    a.ret();
    slow.into_iter().for_each(|f| a.bind(f));
    for g in [R12, R9, RDX, RCX] {
        a.pop(g);
    }
    a.jmp_to(system);
    here
}
