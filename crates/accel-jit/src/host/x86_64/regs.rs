//! Where guest registers live while translated code runs.
//!
//! | host | use |
//! |---|---|
//! | rbp | [`JitState`] + 128, so that X0 to X30 are reached with one displacement byte |
//! | r15 | the current [`TlbSet`](crate::mmu::TlbSet) |
//! | rax | scratch inside one IR instruction; virtual address at a block's outer entry |
//! | rcx, rdx, r9, r12, r14 | temporaries, and copies of guest registers that live in memory |
//! | rbx, rsi, rdi, r8, r10, r11, r13 | seven guest registers, see [`PINNED`] |
//! | xmm0 to xmm15, with AVX-512 to xmm31 | four of them scratch inside one IR instruction, the others copies of vector registers, which the |
//! | | state has when somebody may look; at a block's inner entry none is, at its warm entry those that it wants |

use super::asm::*;
use crate::ir::Reg;
use crate::runtime::state::JitState;

/// Offset that rbp points past the start of the state.
pub const STATE_BIAS: i32 = 128;

/// Guest registers that have a host register of their own.
pub const PINNED: [(u8, Gpr); 7] = [(0, RBX), (1, RSI), (2, RDI), (3, R8), (8, R10), (19, R11), (31, R13)];

const PINNED_BY_GUEST: [Option<Gpr>; 32] = {
    let mut table = [None; 32];
    let mut i = 0;
    while i < PINNED.len() {
        table[PINNED[i].0 as usize] = Some(PINNED[i].1);
        i += 1;
    }
    table
};

/// The host register of a guest register, if it has one.
pub const fn pinned(r: Reg) -> Option<Gpr> {
    if r.is_guest() { PINNED_BY_GUEST[r.0 as usize] } else { None }
}

/// Host registers that hold temporaries and copies, in the order of preference.
pub const TEMPS: [Gpr; 5] = [RCX, RDX, R14, R9, R12];

/// Host vector registers, each of which may hold a copy; hosts without AVX-512 have half of them.
pub const VECTOR_COPIES: usize = 32;

/// Where a host register is while a slow path runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SavedAt {
    /// In the home of this guest register.
    Guest(u8),
    /// In `saved`, at this index.
    Temp(u8),
    /// In `result` (rax).
    Result,
}

/// Where host register `number` is while a slow path runs.
pub fn saved_at(number: u8) -> SavedAt {
    let host = Gpr(number);
    if let Some((guest, _)) = PINNED.iter().find(|(_, g)| *g == host) {
        SavedAt::Guest(*guest)
    } else if let Some(i) = TEMPS.iter().position(|g| *g == host) {
        SavedAt::Temp(i as u8)
    } else {
        SavedAt::Result
    }
}

/// A field of the state, by its offset.
pub const fn field(offset: usize) -> M {
    M::at(RBP, offset as i32 - STATE_BIAS)
}

/// The memory home of general register `r` (X0 to X30, SP).
pub const fn x_slot(r: u8) -> M {
    field(std::mem::offset_of!(JitState, cpu.x) + r as usize * 8)
}

/// The memory home of vector register `v` (0 to 31, then scratch).
pub const fn v_slot(v: u8) -> M {
    if v < 32 {
        field(std::mem::offset_of!(JitState, cpu.v) + v as usize * 16)
    } else {
        field(std::mem::offset_of!(JitState, v_scratch) + (v as usize - 32) * 16)
    }
}
