//! Walks against tables laid out by hand from Arm ARM D8.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::*;
use crate::model::CpuModel;
use crate::spec::{descriptor as d, sctlr, tcr};
use crate::state::CpuState;
use crate::sysreg::SysReg;

/// Sparse memory; what was never written is not there.
#[derive(Default)]
struct Memory {
    words: RefCell<HashMap<u64, u64>>,
    read_only: bool,
    /// Value that another PE stores just before the next compare-and-exchange.
    race: Cell<Option<u64>>,
}

impl Memory {
    fn with(words: &[(u64, u64)]) -> Self {
        Self { words: RefCell::new(words.iter().copied().collect()), ..Self::default() }
    }

    fn at(&self, pa: u64) -> u64 {
        self.words.borrow()[&pa]
    }
}

impl PhysicalMemory for Memory {
    fn read_u64(&self, pa: u64) -> Option<u64> {
        assert_eq!(pa & 7, 0, "misaligned descriptor at {pa:#x}");
        self.words.borrow().get(&pa).copied()
    }

    fn compare_exchange_u64(&self, pa: u64, old: u64, new: u64) -> Option<Result<u64, u64>> {
        if self.read_only {
            return None;
        }
        let mut words = self.words.borrow_mut();
        let word = words.get_mut(&pa)?;
        if let Some(value) = self.race.take() {
            *word = value;
        }
        if *word != old {
            return Some(Err(*word));
        }
        *word = new;
        Some(Ok(old))
    }
}

const TTBR0: u64 = 0x10_0000;
const TTBR1: u64 = 0x20_0000;
const MAIR_NORMAL: u64 = 0xff;
const NORMAL_INDEX: u64 = 0;
const DEVICE_INDEX: u64 = 1 << 2;
/// A valid page or table.
const PAGE: u64 = d::VALID | d::TABLE_OR_PAGE;
const TABLE: u64 = PAGE;
const BLOCK: u64 = d::VALID;
const IPS_48: u64 = 5 << tcr::IPS_SHIFT;
const IPS_52: u64 = 6 << tcr::IPS_SHIFT;
/// 4K granule in both halves, 48-bit addresses in both.
const TCR_4K_48: u64 = 16 | 16 << 16 | 2 << 30 | IPS_48;

fn model(name: &str) -> CpuModel {
    CpuModel::by_name(name).unwrap()
}

fn context_of(name: &str, tcr: u64, sctlr: u64) -> Context {
    let model = model(name);
    let mut s = CpuState::new(0);
    s.sys[SysReg::SctlrEl1] = sctlr;
    s.sys[SysReg::TcrEl1] = tcr;
    s.sys[SysReg::Ttbr0El1] = TTBR0;
    s.sys[SysReg::Ttbr1El1] = TTBR1;
    s.sys[SysReg::MairEl1] = MAIR_NORMAL | 0x04 << 8 | 0x44 << 16;
    Context::new(&s, &model)
}

fn context(tcr: u64) -> Context {
    context_of("neoverse-n1", tcr, sctlr::M)
}

const fn access(kind: AccessKind, el: u8) -> Access {
    Access { kind, el, pan: false }
}

const READ1: Access = access(AccessKind::Read, 1);
const WRITE1: Access = access(AccessKind::Write, 1);
const FETCH1: Access = access(AccessKind::Fetch, 1);
const READ0: Access = access(AccessKind::Read, 0);
const WRITE0: Access = access(AccessKind::Write, 0);
const FETCH0: Access = access(AccessKind::Fetch, 0);

fn fault(kind: FaultKind, level: i8) -> Result<Translation, Fault> {
    Err(Fault::new(kind, level))
}

/// Four levels of the 4K granule that map `va` (48 bits, lower half) to a page.
fn four_levels(va: u64, page: u64) -> Memory {
    let index = |level: u64| (va >> (12 + 9 * (3 - level)) & 0x1ff) * 8;
    Memory::with(&[
        (TTBR0 + index(0), 0x11_1000 | TABLE),
        (0x11_1000 + index(1), 0x11_2000 | TABLE),
        (0x11_2000 + index(2), 0x11_3000 | TABLE),
        (0x11_3000 + index(3), page),
    ])
}

fn leaf_at(va: u64) -> u64 {
    0x11_3000 + (va >> 12 & 0x1ff) * 8
}

const VA: u64 = 0x0000_7ab3_4567_8abc;

#[test]
fn page_of_4k() {
    let page = 0x8765_4321_0000 | PAGE | d::AF | d::NG | 3 << d::SH_SHIFT | NORMAL_INDEX;
    let t = translate(&context(TCR_4K_48), &four_levels(VA, page), VA, READ1).unwrap();
    assert_eq!(t.pa, 0x8765_4321_0abc);
    assert_eq!(t.block_size_log2, 12);
    assert_eq!(t.attributes, 0xff);
    assert_eq!(t.shareability, 3);
    assert!(!t.device && t.non_global && !t.contiguous && !t.dirty_pending && !t.guarded);
}

#[test]
fn blocks_and_pages_of_every_granule() {
    // (TG0, bits, size of the block, level-by-level indexes, size)
    let attributes = d::AF | DEVICE_INDEX;
    let check = |tcr: u64, va: u64, words: &[(u64, u64)], pa: u64, size: u8| {
        let t = translate(&context(tcr), &Memory::with(words), va, READ1).unwrap();
        assert_eq!((t.pa, t.block_size_log2), (pa, size), "va {va:#x}");
        assert!(t.device);
    };
    // 4K: 1 GiB block at level 1 of 39 bits, 2 MiB block at level 2.
    let va = 0x55_1234_5678;
    let tcr = 25 | IPS_48;
    let l1 = TTBR0 + (va >> 30) * 8;
    check(tcr, va, &[(l1, 0x80_0000_0000 | BLOCK | attributes)], 0x80_1234_5678, 30);
    let l2 = 0x30_0000 + (va >> 21 & 0x1ff) * 8;
    check(tcr, va, &[(l1, 0x30_0000 | TABLE), (l2, 0x80_4000_0000 | BLOCK | attributes)], 0x80_4014_5678, 21);
    // 16K, 47 bits: 32 MiB block at level 2, page at level 3.
    let tcr = 17 | 2 << tcr::TG0_SHIFT | IPS_48;
    let va = 0x7abc_def0_1234;
    let l1 = TTBR0 + (va >> 36) * 8;
    let l2 = 0x30_0000 + (va >> 25 & 0x7ff) * 8;
    let l3 = 0x30_4000 + (va >> 14 & 0x7ff) * 8;
    check(
        tcr,
        va,
        &[(l1, 0x30_0000 | TABLE), (l2, 0x4000_0000 | BLOCK | attributes)],
        0x4000_0000 | va & 0x1ff_ffff,
        25,
    );
    check(
        tcr,
        va,
        &[(l1, 0x30_0000 | TABLE), (l2, 0x30_4000 | TABLE), (l3, 0x9_c000 | PAGE | attributes)],
        0x9_c000 | va & 0x3fff,
        14,
    );
    // 16K, 48 bits: level 0 has two entries.
    let tcr = 16 | 2 << tcr::TG0_SHIFT | IPS_48;
    let va = 0x8000_0000_0000;
    check(
        tcr,
        va,
        &[
            (TTBR0 + 8, 0x30_0000 | TABLE),
            (0x30_0000, 0x30_4000 | TABLE),
            (0x30_4000, 0x4000_0000 | BLOCK | attributes),
        ],
        0x4000_0000,
        25,
    );
    // 64K, 48 bits: 512 MiB block at level 2, page at level 3; 42 bits start at level 2.
    let tcr = 16 | 1 << tcr::TG0_SHIFT | IPS_48;
    let va = 0xabcd_ef01_2345;
    let l1 = TTBR0 + (va >> 42) * 8;
    let l2 = 0x40_0000 + (va >> 29 & 0x1fff) * 8;
    let l3 = 0x41_0000 + (va >> 16 & 0x1fff) * 8;
    check(
        tcr,
        va,
        &[(l1, 0x40_0000 | TABLE), (l2, 0x1_2000_0000 | BLOCK | attributes)],
        0x1_2000_0000 | va & 0x1fff_ffff,
        29,
    );
    check(
        tcr,
        va,
        &[(l1, 0x40_0000 | TABLE), (l2, 0x41_0000 | TABLE), (l3, 0x77_0000 | PAGE | attributes)],
        0x77_2345,
        16,
    );
    let tcr = 22 | 1 << tcr::TG0_SHIFT | IPS_48;
    let va = 0x3ff_e001_2345;
    let l2 = TTBR0 + (va >> 29) * 8;
    check(tcr, va, &[(l2, 0x2000_0000 | BLOCK | attributes)], 0x2001_2345, 29);
}

#[test]
fn upper_half_uses_ttbr1_and_its_granule() {
    // TG1 = 3 is 64K, 42 bits; the lower half has 4K.
    let ctx = context(16 | 22 << 16 | 3 << tcr::TG1_SHIFT | IPS_48);
    let va = 0xffff_fc00_2000_0040;
    let mem = Memory::with(&[(TTBR1 + 8, 0x2000_0000 | BLOCK | d::AF)]);
    assert_eq!(translate(&ctx, &mem, va, READ1).unwrap().pa, 0x2000_0040);
    // One bit short of all ones above the input size.
    assert_eq!(translate(&ctx, &mem, va & !(1 << 42), READ1), fault(FaultKind::Translation, 0));
}

#[test]
fn addresses_outside_both_halves() {
    let ctx = context(TCR_4K_48);
    let mem = Memory::default();
    for va in [1 << 48, 0x00ff_0000_0000_0000, 0x0100_0000_0000_0000, 0xfffe_ffff_ffff_ffff, 0x80ff << 48] {
        assert_eq!(translate(&ctx, &mem, va, READ1), fault(FaultKind::Translation, 0), "{va:#x}");
    }
}

#[test]
fn disabled_halves() {
    let ctx = context(TCR_4K_48 | tcr::EPD0);
    assert_eq!(translate(&ctx, &Memory::default(), VA, READ1), fault(FaultKind::Translation, 0));
    // The other half is walked: the table is missing.
    assert_eq!(translate(&ctx, &Memory::default(), !0, READ1), fault(FaultKind::SyncExternalOnWalk, 0));
    let ctx = context(TCR_4K_48 | tcr::EPD1);
    assert_eq!(translate(&ctx, &Memory::default(), !0, READ1), fault(FaultKind::Translation, 0));
    // TxSZ out of range: below 16, above 39.
    for size in [15, 40] {
        let ctx = context(TCR_4K_48 & !0x3f | size);
        assert_eq!(translate(&ctx, &Memory::default(), 0, READ1), fault(FaultKind::Translation, 0));
    }
}

#[test]
fn translation_faults_tell_the_level() {
    for level in 0..4u64 {
        let mem = four_levels(VA, 0x1000 | PAGE | d::AF);
        let table = if level == 0 { TTBR0 } else { 0x11_0000 + level * 0x1000 };
        let at = table + (VA >> (12 + 9 * (3 - level)) & 0x1ff) * 8;
        let good = mem.at(at);
        let ctx = context(TCR_4K_48);
        assert!(translate(&ctx, &mem, VA, READ1).is_ok());
        mem.words.borrow_mut().insert(at, good & !d::VALID);
        let found = translate(&ctx, &mem, VA, READ1);
        assert_eq!(found, fault(FaultKind::Translation, level as i8));
        assert_eq!(found.unwrap_err().status_code(), 0b100 | level as u32);
        mem.words.borrow_mut().remove(&at);
        let found = translate(&ctx, &mem, VA, READ1);
        assert_eq!(found, fault(FaultKind::SyncExternalOnWalk, level as i8));
        assert_eq!(found.unwrap_err().status_code(), 0b1_0100 | level as u32);
    }
}

#[test]
fn reserved_descriptors() {
    // No block at level 0 of the 4K granule; no "block" at level 3.
    let mem = Memory::with(&[(TTBR0 + (VA >> 39) * 8, BLOCK | d::AF)]);
    assert_eq!(translate(&context(TCR_4K_48), &mem, VA, READ1), fault(FaultKind::Translation, 0));
    let mem = four_levels(VA, 0x1000 | BLOCK | d::AF);
    assert_eq!(translate(&context(TCR_4K_48), &mem, VA, READ1), fault(FaultKind::Translation, 3));
    // No block at level 1 of the 16K and 64K granules without LPA2 and LPA.
    for granule in [1u64, 2] {
        let tcr = 17 | granule << tcr::TG0_SHIFT | IPS_48;
        let mem = Memory::with(&[(TTBR0, BLOCK | d::AF)]);
        assert_eq!(translate(&context(tcr), &mem, 0, READ1), fault(FaultKind::Translation, 1));
    }
}

#[test]
fn permissions_of_leaves() {
    use Permissions as P;
    let p = |bits: u64, sctlr: u64| {
        let mem = four_levels(VA, 0x1000 | PAGE | d::AF | bits);
        let ctx = context_of("neoverse-n1", TCR_4K_48, sctlr | sctlr::M);
        // Every page here can be read at EL1.
        translate(&ctx, &mem, VA, READ1).unwrap().permissions
    };
    let (r1, w1, x1) = (P::EL1_R, P::EL1_W, P::EL1_X);
    let (r0, w0, x0) = (P::EL0_R, P::EL0_W, P::EL0_X);
    assert_eq!(p(0, 0), r1 | w1 | x1 | x0);
    assert_eq!(p(d::AP1, 0), r1 | w1 | r0 | w0 | x0, "writable by EL0: not executable at EL1");
    assert_eq!(p(d::AP2, 0), r1 | x1 | x0);
    assert_eq!(p(d::AP1 | d::AP2, 0), r1 | x1 | r0 | x0);
    assert_eq!(p(d::UXN, 0), r1 | w1 | x1);
    assert_eq!(p(d::PXN, 0), r1 | w1 | x0);
    assert_eq!(p(d::UXN | d::PXN | d::AP1, 0), r1 | w1 | r0 | w0);
    assert_eq!(p(0, sctlr::WXN), r1 | w1 | x0, "writable at EL1 only");
    assert_eq!(p(d::AP1, sctlr::WXN), r1 | w1 | r0 | w0);
    assert_eq!(p(d::AP1 | d::AP2, sctlr::WXN), r1 | x1 | r0 | x0);
}

#[test]
fn permission_faults() {
    let ctx = context(TCR_4K_48);
    let denied = |bits: u64, access: Access| {
        let mem = four_levels(VA, 0x1000 | PAGE | d::AF | bits);
        translate(&ctx, &mem, VA, access) == fault(FaultKind::Permission, 3)
    };
    assert!(denied(0, READ0) && denied(0, WRITE0) && !denied(0, FETCH0));
    assert!(!denied(0, READ1) && !denied(0, WRITE1) && !denied(0, FETCH1));
    assert!(denied(d::AP2, WRITE1) && denied(d::AP2 | d::AP1, WRITE0) && !denied(d::AP2 | d::AP1, READ0));
    assert!(denied(d::UXN, FETCH0) && denied(d::PXN, FETCH1) && denied(d::AP1, FETCH1));
    assert_eq!(Fault::new(FaultKind::Permission, 3).status_code(), 0b1111);
}

#[test]
fn privileged_access_never() {
    let ctx = context(TCR_4K_48);
    let allowed = |bits: u64, access: Access| {
        let mem = four_levels(VA, 0x1000 | PAGE | d::AF | bits);
        translate(&ctx, &mem, VA, Access { pan: true, ..access }).is_ok()
    };
    assert!(!allowed(d::AP1, READ1) && !allowed(d::AP1, WRITE1));
    assert!(!allowed(d::AP1 | d::AP2, READ1));
    assert!(allowed(0, READ1) && allowed(0, WRITE1), "EL0 can only execute it");
    assert!(allowed(d::AP1 | d::AP2, FETCH1), "fetches are not concerned");
    assert!(allowed(d::AP1, READ0), "accesses as EL0 are not concerned");
}

#[test]
fn hierarchical_permissions() {
    use Permissions as P;
    let p = |level: u64, table_bits: u64, tcr: u64| {
        let mem = four_levels(VA, 0x1000 | PAGE | d::AF | d::AP1);
        let table = if level == 0 { TTBR0 } else { 0x11_0000 + level * 0x1000 };
        let at = table + (VA >> (12 + 9 * (3 - level)) & 0x1ff) * 8;
        let new = mem.at(at) | table_bits;
        mem.words.borrow_mut().insert(at, new);
        translate(&context(TCR_4K_48 | tcr), &mem, VA, READ1).unwrap().permissions
    };
    let all = P::EL1_R | P::EL1_W | P::EL0_R | P::EL0_W | P::EL0_X;
    for level in 0..3 {
        assert_eq!(p(level, d::AP_TABLE_NO_EL0, 0), P::EL1_R | P::EL1_W | P::EL1_X | P::EL0_X);
        assert_eq!(p(level, d::AP_TABLE_READ_ONLY, 0), P::EL1_R | P::EL1_X | P::EL0_R | P::EL0_X);
        assert_eq!(p(level, d::UXN_TABLE, 0), all - P::EL0_X);
        assert_eq!(p(level, d::PXN_TABLE | d::AP_TABLE_NO_EL0, 0), P::EL1_R | P::EL1_W | P::EL0_X);
        let everything = d::AP_TABLE_NO_EL0 | d::AP_TABLE_READ_ONLY | d::UXN_TABLE | d::PXN_TABLE;
        assert_eq!(p(level, everything, tcr::HPD0), all, "HPD0");
        assert_eq!(p(level, everything, tcr::HPD1), P::EL1_R, "HPD1 is the other half's");
    }
}

#[test]
fn access_flag_by_software_and_by_hardware() {
    let page = 0x1000 | PAGE;
    let mem = four_levels(VA, page);
    assert_eq!(translate(&context(TCR_4K_48), &mem, VA, READ1), fault(FaultKind::AccessFlag, 3));
    assert_eq!(Fault::new(FaultKind::AccessFlag, 2).status_code(), 0b1010);
    let ha = context(TCR_4K_48 | tcr::HA);
    assert!(translate(&ha, &mem, VA, READ1).is_ok());
    assert_eq!(mem.at(leaf_at(VA)), page | d::AF);
    // No update where the access is refused.
    let mem = four_levels(VA, page);
    assert_eq!(translate(&ha, &mem, VA, READ0), fault(FaultKind::Permission, 3));
    assert_eq!(mem.at(leaf_at(VA)), page);
    // A model without the feature ignores TCR.HA.
    let a72 = context_of("cortex-a72", TCR_4K_48 & !IPS_48 | 4 << tcr::IPS_SHIFT | tcr::HA, sctlr::M);
    assert_eq!(translate(&a72, &mem, VA, READ1), fault(FaultKind::AccessFlag, 3));
}

#[test]
fn dirty_state_by_hardware() {
    let clean = 0x1000 | PAGE | d::AF | d::DBM | d::AP2 | d::AP1;
    let hd = context(TCR_4K_48 | tcr::HA | tcr::HD);
    let mem = four_levels(VA, clean);
    let t = translate(&hd, &mem, VA, READ0).unwrap();
    assert!(t.dirty_pending && t.permissions.contains(Permissions::EL0_W));
    assert_eq!(mem.at(leaf_at(VA)), clean, "a read leaves it clean");
    let t = translate(&hd, &mem, VA, access(AccessKind::WriteCheck, 0)).unwrap();
    assert!(t.dirty_pending);
    assert_eq!(mem.at(leaf_at(VA)), clean, "allowed, but not written");
    let t = translate(&hd, &mem, VA, WRITE0).unwrap();
    assert!(!t.dirty_pending);
    assert_eq!(mem.at(leaf_at(VA)), clean & !d::AP2);
    assert!(!translate(&hd, &mem, VA, READ0).unwrap().dirty_pending);
    // Without HD (or with HD but not HA) DBM means nothing.
    for tcr in [0, tcr::HA, tcr::HD] {
        let mem = four_levels(VA, clean);
        let found = translate(&context(TCR_4K_48 | tcr), &mem, VA, WRITE0);
        assert_eq!(found, fault(FaultKind::Permission, 3));
    }
    // A table that is read-only above wins over DBM.
    let mem = four_levels(VA, clean);
    let at = TTBR0 + (VA >> 39) * 8;
    let table = mem.at(at);
    mem.words.borrow_mut().insert(at, table | d::AP_TABLE_READ_ONLY);
    assert_eq!(translate(&hd, &mem, VA, WRITE0), fault(FaultKind::Permission, 3));
    assert!(!translate(&hd, &mem, VA, READ0).unwrap().dirty_pending);
}

#[test]
fn both_updates_at_once() {
    let clean = 0x1000 | PAGE | d::DBM | d::AP2;
    let mem = four_levels(VA, clean);
    translate(&context(TCR_4K_48 | tcr::HA | tcr::HD), &mem, VA, WRITE1).unwrap();
    assert_eq!(mem.at(leaf_at(VA)), 0x1000 | PAGE | d::DBM | d::AF);
}

#[test]
fn descriptor_changed_during_the_update() {
    let ha = context(TCR_4K_48 | tcr::HA);
    let mem = four_levels(VA, 0x1000 | PAGE);
    mem.race.set(Some(0x2000 | PAGE));
    assert_eq!(translate(&ha, &mem, VA, READ1).unwrap().pa, 0x2abc);
    assert_eq!(mem.at(leaf_at(VA)), 0x2000 | PAGE | d::AF);
    let mem = four_levels(VA, 0x1000 | PAGE);
    mem.race.set(Some(0));
    assert_eq!(translate(&ha, &mem, VA, READ1), fault(FaultKind::Translation, 3));
}

#[test]
fn update_of_read_only_memory() {
    let mem = Memory { read_only: true, ..four_levels(VA, 0x1000 | PAGE) };
    let found = translate(&context(TCR_4K_48 | tcr::HA), &mem, VA, READ1);
    assert_eq!(found.unwrap_err().status_code(), 0b11_0001);
}

#[test]
fn address_size_faults() {
    // IPS = 40 bits.
    let tcr = TCR_4K_48 & !(7 << tcr::IPS_SHIFT) | 2 << tcr::IPS_SHIFT;
    let ctx = context(tcr);
    let found = translate(&ctx, &four_levels(VA, 1 << 40 | PAGE | d::AF), VA, READ1);
    assert_eq!(found, fault(FaultKind::AddressSize, 3));
    assert_eq!(found.unwrap_err().status_code(), 0b11);
    // Before the Access flag is looked at.
    assert_eq!(
        translate(&ctx, &four_levels(VA, 1 << 40 | PAGE), VA, READ1),
        fault(FaultKind::AddressSize, 3)
    );
    let mem = Memory::with(&[(TTBR0 + (VA >> 39) * 8, 1 << 41 | TABLE)]);
    assert_eq!(translate(&ctx, &mem, VA, READ1), fault(FaultKind::AddressSize, 0));
    // IPS beyond what the PE has counts as what it has: 40 bits on the A53.
    let a53 = context_of("cortex-a53", TCR_4K_48, sctlr::M);
    let found = translate(&a53, &four_levels(VA, 1 << 40 | PAGE | d::AF), VA, READ1);
    assert_eq!(found, fault(FaultKind::AddressSize, 3));
    // TTBR itself.
    let mut s = CpuState::new(0);
    s.sys[SysReg::SctlrEl1] = sctlr::M;
    s.sys[SysReg::TcrEl1] = tcr;
    s.sys[SysReg::Ttbr0El1] = 1 << 40;
    let ctx = Context::new(&s, &model("neoverse-n1"));
    assert_eq!(translate(&ctx, &Memory::default(), VA, READ1), fault(FaultKind::AddressSize, 0));
}

#[test]
fn tagged_addresses() {
    let tag = 0xa5 << 56;
    let page = 0x1000 | PAGE | d::AF;
    let mem = four_levels(VA, page);
    let plain = context(TCR_4K_48);
    assert_eq!(translate(&plain, &mem, VA | tag, READ1), fault(FaultKind::Translation, 0));
    assert_eq!(plain.tag_address(VA | tag), VA | tag);
    let tbi0 = context(TCR_4K_48 | tcr::TBI0);
    assert_eq!(translate(&tbi0, &mem, VA | tag, READ1).unwrap().pa, 0x1abc);
    assert_eq!(tbi0.tag_address(VA | tag), VA);
    assert_eq!(tbi0.branch_target(VA | tag), VA);
    // Bits 55 to 48 still count.
    assert_eq!(translate(&tbi0, &mem, VA | 1 << 50, READ1), fault(FaultKind::Translation, 0));
    // The upper half is not concerned by TBI0, but by TBI1.
    let high = 0x12ff_8000_0000_1000;
    assert_eq!(tbi0.tag_address(high), high);
    let tbi1 = context(TCR_4K_48 | tcr::TBI1);
    assert_eq!(tbi1.tag_address(high), 0xffff_8000_0000_1000);
    assert_eq!(tbi1.branch_target(high), 0xffff_8000_0000_1000);
    assert_eq!(tbi1.tag_address(VA | tag), VA | tag);
}

#[test]
fn stage_1_off() {
    let off = context_of("neoverse-n1", 0, 0);
    let mem = Memory::default();
    let t = translate(&off, &mem, 0x4008_1234, WRITE1).unwrap();
    assert_eq!(t.pa, 0x4008_1234);
    assert!(t.device && t.attributes == 0 && t.permissions == Permissions::all() && !t.non_global);
    let t = translate(&off, &mem, 0x4008_1234, FETCH1).unwrap();
    assert_eq!((t.device, t.attributes), (false, 0x44));
    let cached = context_of("neoverse-n1", 0, sctlr::I);
    assert_eq!(translate(&cached, &mem, 0x4008_1234, FETCH0).unwrap().attributes, 0xaa);
    assert!(translate(&off, &mem, 0xffff_ffff_ffff, READ1).is_ok());
    let found = translate(&off, &mem, 1 << 48, READ1);
    assert_eq!(found, fault(FaultKind::AddressSize, 0));
    // The top byte is ignored here as well.
    let tbi = context_of("neoverse-n1", tcr::TBI0, 0);
    assert_eq!(translate(&tbi, &mem, 0xa5 << 56 | 0x4000_0000, READ1).unwrap().pa, 0x4000_0000);
}

#[test]
fn wide_addresses_with_64k_pages() {
    // LVA and LPA: 52 bits each way; level 1 has 1024 entries; PA[51:48] is in bits [15:12].
    let tcr = 12 | 1 << tcr::TG0_SHIFT | IPS_52;
    let ctx = context_of("max", tcr, sctlr::M);
    let va = 0xf_edcb_a987_6543;
    let l1 = TTBR0 + (va >> 42) * 8;
    let l2 = 0x40_0000 + (va >> 29 & 0x1fff) * 8;
    let l3 = 0xa_0000_0041_0000 + (va >> 16 & 0x1fff) * 8;
    let mem = Memory::with(&[
        (l1, 0x40_0000 | TABLE),
        (l2, 0x41_0000 | 0xa << 12 | TABLE),
        (l3, 0x1234_0000 | 0xc << 12 | PAGE | d::AF),
    ]);
    assert_eq!(translate(&ctx, &mem, va, READ1).unwrap().pa, 0xc_0000_1234_6543);
    // A 4 TiB block at level 1.
    let mem = Memory::with(&[(l1, 0x400_0000_0000 | 0x3 << 12 | BLOCK | d::AF)]);
    let t = translate(&ctx, &mem, va, READ1).unwrap();
    assert_eq!((t.pa, t.block_size_log2), (0x3_0400_0000_0000 | va & 0x3ff_ffff_ffff, 42));
    // With IPS = 48 bits the upper bits are an address size fault.
    let ctx = context_of("max", 12 | 1 << tcr::TG0_SHIFT | IPS_48, sctlr::M);
    assert_eq!(translate(&ctx, &mem, va, READ1), fault(FaultKind::AddressSize, 1));
    // Without LVA, 52 bits are out of range.
    let ctx = context_of("neoverse-n1", tcr, sctlr::M);
    assert_eq!(translate(&ctx, &mem, 0, READ1), fault(FaultKind::Translation, 0));
}

#[test]
fn wide_table_base() {
    let mut s = CpuState::new(0);
    s.sys[SysReg::SctlrEl1] = sctlr::M;
    s.sys[SysReg::TcrEl1] = 22 | 1 << tcr::TG0_SHIFT | IPS_52;
    // TTBR[5:2] is PA[51:48]; CnP and the ASID are not part of the address.
    s.sys[SysReg::Ttbr0El1] = 0x1234 << 48 | 0x5_0000 | 0x9 << 2 | 1;
    let ctx = Context::new(&s, &model("max"));
    let mem = Memory::with(&[(0x9_0000_0005_0000, 0x2000_0000 | BLOCK | d::AF)]);
    assert_eq!(translate(&ctx, &mem, 0x1234, READ1).unwrap().pa, 0x2000_1234);
}

#[test]
fn wide_addresses_with_4k_and_16k_pages() {
    // LPA2: 4K with 52 bits starts at level -1, OA[51:50] is in bits [9:8], SH comes from TCR.
    let tcr = 12 | 3 << tcr::SH0_SHIFT | IPS_52 | tcr::DS;
    let ctx = context_of("max", tcr, sctlr::M);
    let va = 0xf_edcb_a987_6543;
    let index = |level: i8| (va >> (12 + 9 * (3 - level)) & 0x1ff) * 8;
    let mem = Memory::with(&[
        (TTBR0 + (va >> 48) * 8, 0x30_0000 | TABLE),
        (0x30_0000 + index(0), 0x30_1000 | TABLE),
        (0x30_1000 + index(1), 0x30_2000 | 2 << 8 | TABLE),
        (0x8_0000_0030_2000 + index(2), 0x30_3000 | TABLE),
        (0x30_3000 + index(3), 0x3_0000_5555_0000 | 1 << 8 | PAGE | d::AF),
    ]);
    let t = translate(&ctx, &mem, va, READ1).unwrap();
    assert_eq!(t.pa, 0x7_0000_5555_0543);
    assert_eq!(t.shareability, 3);
    // Faults at level -1 have codes of their own.
    let missing = translate(&ctx, &Memory::default(), va, READ1);
    assert_eq!(missing.unwrap_err().status_code(), 0b01_0011);
    let invalid = translate(&ctx, &Memory::with(&[(TTBR0 + (va >> 48) * 8, 0)]), va, READ1);
    assert_eq!(invalid.unwrap_err().status_code(), 0b10_1011);
    // A block at level 0 is 512 GiB; none at level -1.
    let l0 = 0x30_0000 + index(0);
    let mem = Memory::with(&[(TTBR0 + (va >> 48) * 8, 0x30_0000 | TABLE), (l0, 1 << 39 | BLOCK | d::AF)]);
    let t = translate(&ctx, &mem, va, READ1).unwrap();
    assert_eq!((t.pa, t.block_size_log2), (1 << 39 | va & 0x7f_ffff_ffff, 39));
    let mem = Memory::with(&[(TTBR0 + (va >> 48) * 8, BLOCK | d::AF)]);
    assert_eq!(translate(&ctx, &mem, va, READ1), fault(FaultKind::Translation, -1));
    // 16K: 64 GiB block at level 1, start at level 0.
    let tcr = 12 | 2 << tcr::TG0_SHIFT | IPS_52 | tcr::DS;
    let ctx = context_of("max", tcr, sctlr::M);
    let l1 = 0x30_0000 + (va >> 36 & 0x7ff) * 8;
    let mem = Memory::with(&[
        (TTBR0 + (va >> 47) * 8, 0x30_0000 | TABLE),
        (l1, 0x1_0000_0000_0000 | 3 << 8 | BLOCK | d::AF),
    ]);
    let t = translate(&ctx, &mem, va, READ1).unwrap();
    assert_eq!((t.pa, t.block_size_log2), (0xd_0000_0000_0000 | va & 0xf_ffff_ffff, 36));
}

#[test]
fn ds_without_lpa2_does_nothing() {
    // Bits [9:8] stay the shareability.
    let mem = four_levels(VA, 0x1000 | 2 << d::SH_SHIFT | PAGE | d::AF);
    let t = translate(&context(TCR_4K_48 | tcr::DS), &mem, VA, READ1).unwrap();
    assert_eq!((t.pa, t.shareability), (0x1abc, 2));
}

#[test]
fn address_space_identifiers() {
    let asid = |tcr: u64, name: &str| {
        let mut s = CpuState::new(0);
        s.sys[SysReg::TcrEl1] = tcr;
        s.sys[SysReg::Ttbr0El1] = 0x1234 << 48;
        s.sys[SysReg::Ttbr1El1] = 0xabcd << 48;
        Context::new(&s, &model(name)).asid()
    };
    assert_eq!(asid(0, "neoverse-n1"), 0x34);
    assert_eq!(asid(tcr::A1, "neoverse-n1"), 0xcd);
    assert_eq!(asid(tcr::AS, "neoverse-n1"), 0x1234);
    assert_eq!(asid(tcr::A1 | tcr::AS, "neoverse-n1"), 0xabcd);
}

#[test]
fn reserved_or_absent_granules_count_as_4k() {
    let page = 0x1000 | PAGE | d::AF;
    for (name, tg) in [("neoverse-n1", 3u64), ("cortex-a72", 2)] {
        let tcr = TCR_4K_48 & !(7 << tcr::IPS_SHIFT) | tg << tcr::TG0_SHIFT | 4 << tcr::IPS_SHIFT;
        let ctx = context_of(name, tcr, sctlr::M);
        assert_eq!(translate(&ctx, &four_levels(VA, page), VA, READ1).unwrap().block_size_log2, 12);
    }
}

#[test]
fn contiguous_hint_and_memory_types() {
    let ctx = context(TCR_4K_48);
    let t = |bits: u64| translate(&ctx, &four_levels(VA, 0x1000 | PAGE | d::AF | bits), VA, READ1).unwrap();
    assert!(t(d::CONTIGUOUS).contiguous);
    assert_eq!(t(d::CONTIGUOUS).block_size_log2, 12);
    assert!(t(DEVICE_INDEX).device && t(DEVICE_INDEX).attributes == 0x04);
    let non_cacheable = t(2 << 2);
    assert!(!non_cacheable.device && non_cacheable.attributes == 0x44);
}

/// Random TCR, TTBR and tables: whatever software writes, the walk ends in an answer.
#[test]
fn garbage_never_panics() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    struct Noise(u64);
    impl PhysicalMemory for Noise {
        fn read_u64(&self, pa: u64) -> Option<u64> {
            let x = (pa ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Some((x ^ x >> 31) & !(0xfff << 40) | 3)
        }
        fn compare_exchange_u64(&self, _: u64, old: u64, _: u64) -> Option<Result<u64, u64>> {
            Some(Ok(old))
        }
    }
    let models = CpuModel::all();
    let mut hits = 0;
    for round in 0..20_000 {
        let mut s = CpuState::new(0);
        for reg in [SysReg::TcrEl1, SysReg::Ttbr0El1, SysReg::Ttbr1El1, SysReg::MairEl1] {
            s.sys[reg] = next();
        }
        if round % 2 != 0 {
            // Sizes that are valid, so that the walk gets further.
            let fixed = 0x3f | tcr::EPD0 | 0x3f << 16 | tcr::EPD1 | 7 << tcr::IPS_SHIFT;
            s.sys[SysReg::TcrEl1] = s.sys[SysReg::TcrEl1] & !fixed | 28 | 28 << 16 | IPS_52;
            s.sys[SysReg::Ttbr0El1] &= 0xff_ffff_ffff;
            s.sys[SysReg::Ttbr1El1] &= 0xff_ffff_ffff;
        }
        s.sys[SysReg::SctlrEl1] = next() | sctlr::M;
        let ctx = Context::new(&s, &models[round % models.len()]);
        let va = if round % 2 == 0 { next() } else { ((next() as i64) >> 28) as u64 };
        let kind = [AccessKind::Read, AccessKind::Write, AccessKind::Fetch][round % 3];
        let access = Access { kind, el: (round / 3 % 2) as u8, pan: round % 5 == 0 };
        if let Ok(t) = translate(&ctx, &Noise(next()), va, access) {
            hits += 1;
            assert!(t.pa >> 52 == 0);
            assert!(t.permissions.allow(access, ctx.epan()));
        }
    }
    assert!(hits > 100, "the noise reaches pages: {hits}");
}

#[test]
fn the_map_of_an_address_space_is_complete_and_in_order() {
    // A page and its neighbour below a table, a block of 2 MiB, one of 1 GiB; a page in the upper half.
    let leaf = |va: u64| (va >> 12 & 0x1ff) * 8;
    let mem = Memory::with(&[
        (TTBR0, 0x11_1000 | TABLE),
        (0x11_1000, 0x11_2000 | TABLE),
        (0x11_1008, 0x8000_0000 | BLOCK | d::AF),
        (0x11_2000, 0x11_3000 | TABLE),
        (0x11_2008, 0x4020_0000 | BLOCK | d::AF | d::AP1),
        (0x11_3000 + leaf(0x5000), 0x4000_5000 | PAGE | d::AF),
        (0x11_3000 + leaf(0x6000), 0x4123_0000 | PAGE | d::AF | d::AP2),
        (TTBR1 + 8 * 511, 0x22_1000 | TABLE),
        (0x22_1000 + 8 * 511, 0x22_2000 | TABLE),
        (0x22_2000 + 8 * 511, 0x22_3000 | TABLE),
        (0x22_3000 + 8 * 511, 0x4fff_f000 | PAGE | d::AF),
    ]);
    for table in [TTBR0, 0x11_1000, 0x11_2000, 0x11_3000, TTBR1, 0x22_1000, 0x22_2000, 0x22_3000] {
        for i in 0..512 {
            mem.words.borrow_mut().entry(table + 8 * i).or_insert(0);
        }
    }
    let ctx = context(TCR_4K_48);
    let all = |from: u64| {
        let mut mappings = Mappings::new(&ctx, &mem, from);
        let mut steps = 0;
        let found = std::iter::from_fn(|| mappings.step()).inspect(|_| steps += 1).flatten();
        let found: Vec<_> = found.map(|m| (m.va, m.translation.pa, m.size())).collect();
        (found, steps)
    };
    let want = [
        (0x5000, 0x4000_5000, 0x1000),
        (0x6000, 0x4123_0000, 0x1000),
        (0x20_0000, 0x4020_0000, 0x20_0000),
        (0x4000_0000, 0x8000_0000, 0x4000_0000),
        (0xffff_ffff_ffff_f000, 0x4fff_f000, 0x1000),
    ];
    let (found, steps) = all(0);
    assert_eq!(found, want);
    assert!(steps < 4096 + 1024, "empty tables are skipped whole: {steps}");
    assert_eq!(all(0x6123).0, want[1..]);
    assert_eq!(all(0x7fff_ffff_ffff).0, want[4..]);
    assert_eq!(all(1 << 50).0, want[4..], "between the halves");
    assert_eq!(all(1 << 63).0, want[4..]);
    // Halves that are disabled, and translation that is off.
    let ctx = context(TCR_4K_48 | tcr::EPD0 | tcr::EPD1);
    assert_eq!(Mappings::new(&ctx, &mem, 0).step(), Some(None));
    let ctx = context_of("neoverse-n1", TCR_4K_48, 0);
    assert_eq!(Mappings::new(&ctx, &mem, 0).step(), None);
}
