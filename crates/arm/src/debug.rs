//! Self-hosted debug: breakpoints, watchpoints and software step of the guest (Arm ARM D2).
//!
//! Everything here is for EL0 and EL1 in Non-secure state, with EL1 handling debug exceptions.

use crate::spec::{mdscr, oslsr};
use crate::state::{CpuState, Pstate};
use crate::sysreg::SysReg;

const BREAKPOINTS: [(SysReg, SysReg); 6] = [
    (SysReg::Dbgbvr0El1, SysReg::Dbgbcr0El1),
    (SysReg::Dbgbvr1El1, SysReg::Dbgbcr1El1),
    (SysReg::Dbgbvr2El1, SysReg::Dbgbcr2El1),
    (SysReg::Dbgbvr3El1, SysReg::Dbgbcr3El1),
    (SysReg::Dbgbvr4El1, SysReg::Dbgbcr4El1),
    (SysReg::Dbgbvr5El1, SysReg::Dbgbcr5El1),
];

const WATCHPOINTS: [(SysReg, SysReg); 6] = [
    (SysReg::Dbgwvr0El1, SysReg::Dbgwcr0El1),
    (SysReg::Dbgwvr1El1, SysReg::Dbgwcr1El1),
    (SysReg::Dbgwvr2El1, SysReg::Dbgwcr2El1),
    (SysReg::Dbgwvr3El1, SysReg::Dbgwcr3El1),
    (SysReg::Dbgwvr4El1, SysReg::Dbgwcr4El1),
    (SysReg::Dbgwvr5El1, SysReg::Dbgwcr5El1),
];

/// Fields that DBGBCRn_EL1 and DBGWCRn_EL1 share, and their own.
mod cr {
    pub const E: u64 = 1;
    /// PMC or PAC: bit 0 is EL1, bit 1 is EL0.
    pub const LEVELS: u32 = 1;
    pub const LSC: u32 = 3;
    pub const BAS: u32 = 5;
    pub const SSC: u32 = 14;
    pub const LBN: u32 = 16;
    /// DBGBCR.BT (4 bits), DBGWCR.WT (1 bit).
    pub const TYPE: u32 = 20;
    pub const MASK: u32 = 24;
}

/// Breakpoint types (DBGBCRn_EL1.BT).
mod bt {
    pub const ADDRESS: u64 = 0;
    pub const LINKED_ADDRESS: u64 = 1;
    pub const CONTEXT: u64 = 2;
    pub const LINKED_CONTEXT: u64 = 3;
}

/// What is switched on, whatever the exception level: what an executor has to look out for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Armed {
    /// Addresses of instructions with a breakpoint.
    pub breakpoints: Vec<u64>,
    /// There are watchpoints.
    pub watchpoints: bool,
    /// Each instruction needs a look: software step is on, or a breakpoint for a whole context.
    pub each: bool,
}

impl Armed {
    /// As the registers say.
    pub fn new(state: &CpuState) -> Self {
        let control = state.sys[SysReg::MdscrEl1];
        if is_locked(state) || control & (mdscr::SS | mdscr::MDE) == 0 {
            return Self::default();
        }
        let mut armed = Self { each: control & mdscr::SS != 0, ..Self::default() };
        if control & mdscr::MDE == 0 {
            return armed;
        }
        for (value, cr) in enabled(state, &BREAKPOINTS) {
            match cr >> cr::TYPE & 15 {
                bt::ADDRESS | bt::LINKED_ADDRESS => armed.breakpoints.push(address(value)),
                bt::CONTEXT => armed.each = true,
                _ => {}
            }
        }
        armed.watchpoints = enabled(state, &WATCHPOINTS).next().is_some();
        armed
    }
}

/// OSLSR_EL1.OSLK: debug exceptions are off, except those of BRK.
fn is_locked(state: &CpuState) -> bool {
    state.sys[SysReg::OslsrEl1] & oslsr::OSLK != 0
}

/// Debug exceptions are enabled from the exception level and the masks of `pstate` (Arm ARM D2.5).
fn enabled_from(state: &CpuState, pstate: Pstate) -> bool {
    let kernel = state.sys[SysReg::MdscrEl1] & mdscr::KDE != 0 && !pstate.contains(Pstate::D);
    !is_locked(state) && (pstate.el() == 0 || kernel)
}

/// Breakpoints and watchpoints are on here.
fn monitor_debug(state: &CpuState) -> bool {
    state.sys[SysReg::MdscrEl1] & mdscr::MDE != 0 && enabled_from(state, state.pstate)
}

fn enabled<'a>(
    state: &'a CpuState,
    registers: &'a [(SysReg, SysReg); 6],
) -> impl Iterator<Item = (u64, u64)> + 'a {
    let values = registers.iter().map(|&(value, control)| (state.sys[value], state.sys[control]));
    values.filter(|(_, control)| control & cr::E != 0)
}

/// The address in a value register: bits 1:0 are RES0.
fn address(value: u64) -> u64 {
    value & !3
}

/// The security state and the exception level are among those chosen.
fn level_matches(control: u64, el: usize) -> bool {
    let secure_only = control >> cr::SSC & 3 == 2;
    let levels = control >> cr::LEVELS & 3;
    !secure_only && el < 2 && levels >> (1 - el) & 1 != 0
}

/// Breakpoint `number` is linked to, and its context is the current one.
fn linked_context_matches(state: &CpuState, number: u64) -> bool {
    let Some((value, control)) = BREAKPOINTS.get(number as usize) else { return false };
    let (value, control) = (state.sys[*value], state.sys[*control]);
    control & cr::E != 0
        && control >> cr::TYPE & 15 == bt::LINKED_CONTEXT
        && value as u32 == state.sys[SysReg::ContextidrEl1] as u32
}

/// True if the instruction at PC is to be preceded by a Breakpoint exception (Arm ARM D2.8).
pub fn breakpoint_hit(state: &CpuState) -> bool {
    monitor_debug(state)
        && enabled(state, &BREAKPOINTS).any(|(value, control)| {
            let here = address(value) == state.pc && control >> cr::BAS & 15 == 15;
            let matches = match control >> cr::TYPE & 15 {
                bt::ADDRESS => here,
                bt::LINKED_ADDRESS => here && linked_context_matches(state, control >> cr::LBN & 15),
                bt::CONTEXT => value as u32 == state.sys[SysReg::ContextidrEl1] as u32,
                _ => false,
            };
            matches && level_matches(control, state.el())
        })
}

/// An access, for watchpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchedAccess {
    /// Virtual address of the first byte.
    pub address: u64,
    /// Length.
    pub bytes: u64,
    /// It reads.
    pub read: bool,
    /// It writes.
    pub write: bool,
    /// Exception level whose permissions it has.
    pub el: usize,
}

/// The address to report, if the access is to be preceded by a Watchpoint exception (Arm ARM D2.9).
pub fn watchpoint_hit(state: &CpuState, access: &WatchedAccess) -> Option<u64> {
    if !monitor_debug(state) {
        return None;
    }
    enabled(state, &WATCHPOINTS).find_map(|(value, control)| {
        let kind = control >> cr::LSC & 3;
        let wanted = (access.read && kind & 1 != 0) || (access.write && kind & 2 != 0);
        let linked = control >> cr::TYPE & 1 == 0 || linked_context_matches(state, control >> cr::LBN & 15);
        let on = wanted && linked && level_matches(control, access.el);
        on.then(|| first_watched(value, control, access)).flatten()
    })
}

/// The first byte of the access that the watchpoint's address registers choose.
fn first_watched(value: u64, control: u64, access: &WatchedAccess) -> Option<u64> {
    let bare = |a: u64| a << 8 >> 8;
    let mask = control >> cr::MASK & 31;
    let bytes = control >> cr::BAS & 0xff;
    (0..access.bytes).map(|i| access.address.wrapping_add(i)).find(|&at| {
        if mask >= 3 {
            return bare(at) >> mask == bare(address(value)) >> mask;
        }
        let offset = bare(at).wrapping_sub(bare(address(value)));
        offset < 8 && bytes >> offset & 1 != 0
    })
}

/// Software step (Arm ARM D2.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Off, or debug exceptions are disabled here.
    Inactive,
    /// One instruction is to be executed.
    NotPending,
    /// The exception is to be taken before the next instruction.
    Pending,
}

/// The state of software step.
pub fn step(state: &CpuState) -> Step {
    if state.sys[SysReg::MdscrEl1] & mdscr::SS == 0 || !enabled_from(state, state.pstate) {
        Step::Inactive
    } else if state.pstate.contains(Pstate::SS) {
        Step::NotPending
    } else {
        Step::Pending
    }
}

/// True for the load-exclusive instructions, LDXR to LDAXP: software step tells of them (ESR_ELx.EX).
pub const fn is_load_exclusive(word: u32) -> bool {
    // o2 clear, L set; with o1, of a pair: what would be a pair of bytes or halfwords is CASP.
    let single = word & 0x3fe0_0000 == 0x0840_0000;
    let pair = word & 0xbfe0_0000 == 0x8860_0000;
    single || pair
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = mdscr::MDE | mdscr::KDE;

    fn state(el: usize, control: u64) -> CpuState {
        let mut s = CpuState::new(0);
        s.set_pstate(Pstate::empty().with_el(el, el > 0));
        s.sys[SysReg::MdscrEl1] = control;
        s
    }

    /// E, both levels, A64's byte select.
    const BREAK: u64 = 1 | 3 << 1 | 15 << 5;

    #[test]
    fn breakpoints_want_their_address_level_and_enables() {
        let mut s = state(1, ALL);
        s.pc = 0xffff_8000_0000_1004;
        (s.sys[SysReg::Dbgbvr5El1], s.sys[SysReg::Dbgbcr5El1]) = (s.pc, BREAK);
        assert!(breakpoint_hit(&s));
        assert_eq!(Armed::new(&s), Armed { breakpoints: vec![s.pc], ..Armed::default() });
        for (name, change) in [
            ("the next instruction", (|s: &mut CpuState| s.pc += 4) as fn(&mut CpuState)),
            ("MDE clear", |s| s.sys[SysReg::MdscrEl1] = mdscr::KDE),
            ("KDE clear", |s| s.sys[SysReg::MdscrEl1] = mdscr::MDE),
            ("PSTATE.D set", |s| s.pstate |= Pstate::D),
            ("OS lock", |s| s.sys[SysReg::OslsrEl1] |= oslsr::OSLK),
            ("E clear", |s| s.sys[SysReg::Dbgbcr5El1] &= !1),
            ("EL0 only", |s| s.sys[SysReg::Dbgbcr5El1] = BREAK & !(1 << 1)),
            ("Secure only", |s| s.sys[SysReg::Dbgbcr5El1] = BREAK | 2 << 14),
        ] {
            let mut t = s.clone();
            change(&mut t);
            assert!(!breakpoint_hit(&t), "{name}");
        }
        let mut user = state(0, mdscr::MDE);
        user.pc = s.pc;
        user.pstate |= Pstate::D;
        (user.sys[SysReg::Dbgbvr5El1], user.sys[SysReg::Dbgbcr5El1]) = (s.pc, BREAK);
        assert!(breakpoint_hit(&user), "EL0 needs no KDE and has no mask");
    }

    #[test]
    fn a_linked_breakpoint_wants_its_context() {
        let mut s = state(1, ALL);
        s.pc = 0x1000;
        (s.sys[SysReg::Dbgbvr0El1], s.sys[SysReg::Dbgbcr0El1]) = (0x1000, BREAK | 1 << 20 | 4 << 16);
        (s.sys[SysReg::Dbgbvr4El1], s.sys[SysReg::Dbgbcr4El1]) = (77, BREAK | 3 << 20);
        assert!(!breakpoint_hit(&s));
        s.sys[SysReg::ContextidrEl1] = 77;
        assert!(breakpoint_hit(&s));
        assert!(!Armed::new(&s).each);
        s.sys[SysReg::Dbgbcr4El1] = BREAK | 2 << 20;
        s.pc = 0x2000;
        assert!(breakpoint_hit(&s) && Armed::new(&s).each, "a breakpoint for a context is anywhere in it");
    }

    #[test]
    fn watchpoints_choose_bytes_kinds_and_levels() {
        let mut s = state(1, ALL);
        // Bytes 2 and 3 of the doubleword, stores of EL0.
        (s.sys[SysReg::Dbgwvr1El1], s.sys[SysReg::Dbgwcr1El1]) = (0x1000, 1 | 2 << 1 | 2 << 3 | 0xc << 5);
        let hit = |s: &CpuState, address, bytes, write: bool, el| {
            watchpoint_hit(s, &WatchedAccess { address, bytes, read: !write, write, el })
        };
        assert!(Armed::new(&s).watchpoints);
        assert_eq!(hit(&s, 0x1000, 8, true, 0), Some(0x1002));
        assert_eq!(hit(&s, 0x1003, 1, true, 0), Some(0x1003));
        assert_eq!(hit(&s, 0xab00_0000_0000_1003, 1, true, 0), Some(0xab00_0000_0000_1003), "tag");
        assert_eq!(hit(&s, 0x1000, 2, true, 0), None);
        assert_eq!(hit(&s, 0x1004, 4, true, 0), None);
        assert_eq!(hit(&s, 0x1002, 2, false, 0), None, "a load");
        assert_eq!(hit(&s, 0x1002, 2, true, 1), None, "of EL1");
        // 64 bytes.
        s.sys[SysReg::Dbgwcr1El1] = 1 | 3 << 1 | 3 << 3 | 0xff << 5 | 6 << 24;
        assert_eq!(hit(&s, 0xff8, 16, false, 1), Some(0x1000));
        assert_eq!(hit(&s, 0x103f, 1, true, 1), Some(0x103f));
        assert_eq!(hit(&s, 0x1040, 8, true, 1), None);
    }

    #[test]
    fn software_step_has_three_states() {
        let mut s = state(1, mdscr::SS | mdscr::KDE);
        assert_eq!(step(&s), Step::Pending);
        assert!(Armed::new(&s).each);
        s.pstate |= Pstate::SS;
        assert_eq!(step(&s), Step::NotPending);
        s.pstate |= Pstate::D;
        assert_eq!(step(&s), Step::Inactive);
        s.sys[SysReg::MdscrEl1] = 0;
        s.pstate.remove(Pstate::D);
        assert_eq!(step(&s), Step::Inactive);
    }
    #[test]
    fn load_exclusives_are_told_from_their_neighbours() {
        // LDXRB, LDXR, LDAXR, LDXP, LDAXP.
        for word in [0x085f_7c41, 0xc85f_7c41, 0x885f_fc41, 0xc87f_0c41, 0x887f_8c41] {
            assert!(is_load_exclusive(word), "{word:#x}");
        }
        // STXR, LDAR, STXP, CASP, CAS, LDR.
        for word in [0xc803_7c41, 0xc8df_fc41, 0xc823_0c41, 0x4860_7c82, 0xc8e0_7c41, 0xf940_0041] {
            assert!(!is_load_exclusive(word), "{word:#x}");
        }
    }
}
