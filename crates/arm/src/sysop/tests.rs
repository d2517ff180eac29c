use std::collections::HashMap;

use super::*;
use crate::mmu::{Fault, FaultKind, PhysicalMemory};
use crate::spec::{descriptor as d, tcr};
use crate::sysreg::SysReg;

fn n1() -> CpuModel {
    CpuModel::by_name("neoverse-n1").unwrap()
}

fn at_el(el: usize, sctlr: u64) -> CpuState {
    let mut s = n1().reset_state(0, 0);
    s.set_pstate(Pstate::empty().with_el(el, el > 0));
    s.sys[SysReg::SctlrEl1] = sctlr;
    s
}

const fn op(op1: u8, crn: u8, crm: u8, op2: u8) -> SysEncoding {
    SysEncoding { op1, crn, crm, op2 }
}

fn decode(el: usize, sctlr: u64, e: SysEncoding) -> Result<SysOp, Exception> {
    decode_sys(&at_el(el, sctlr), &n1(), e, 9)
}

#[test]
fn encoding_of_the_instruction() {
    // DC ZVA, X9 is 0xd50b7429.
    assert_eq!(SysEncoding::unpack((0xd50b_7429_u32 >> 5) as u16), op(3, 7, 4, 1));
    assert_eq!(op(3, 7, 4, 1).packed(), (0xd50b_7429_u32 >> 5) as u16 & 0x3fff);
}

#[test]
fn cache_maintenance() {
    for (e, what) in [
        (op(0, 7, 1, 0), SysOp::IcIallu { broadcast: true }),
        (op(0, 7, 5, 0), SysOp::IcIallu { broadcast: false }),
        (op(3, 7, 5, 1), SysOp::IcIvau),
        (op(0, 7, 6, 1), SysOp::DcInvalidate),
        (op(0, 7, 6, 2), SysOp::Nop),
        (op(0, 7, 10, 2), SysOp::Nop),
        (op(0, 7, 14, 2), SysOp::Nop),
        (op(3, 7, 4, 1), SysOp::DcZva),
        (op(3, 7, 10, 1), SysOp::DcClean),
        (op(3, 7, 11, 1), SysOp::DcClean),
        (op(3, 7, 12, 1), SysOp::DcClean),
        (op(3, 7, 14, 1), SysOp::DcClean),
    ] {
        assert_eq!(decode(1, 0, e), Ok(what), "{e:?}");
    }
    // DC CVADP, DC GVA, CFP RCTX and the EL2 forms are not in Neoverse N1; DC CVAP is not in the A72.
    for e in [op(3, 7, 13, 1), op(3, 7, 4, 3), op(3, 7, 3, 4), op(4, 8, 7, 4), op(6, 8, 7, 0), op(0, 7, 0, 0)]
    {
        assert_eq!(decode(1, 0, e), Err(Exception::undefined()), "{e:?}");
    }
    let a72 = CpuModel::by_name("cortex-a72").unwrap();
    assert_eq!(decode_sys(&at_el(1, 0), &a72, op(3, 7, 12, 1), 0), Err(Exception::undefined()));
}

#[test]
fn el0_is_trapped_or_undefined() {
    let maintenance = [op(3, 7, 5, 1), op(3, 7, 10, 1), op(3, 7, 11, 1), op(3, 7, 12, 1), op(3, 7, 14, 1)];
    for e in maintenance {
        let trap = Exception::system_instruction_trap(e.packed(), 9);
        assert_eq!(decode(0, !sctlr::UCI, e), Err(trap), "{e:?}");
        assert!(decode(0, sctlr::UCI, e).is_ok(), "{e:?}");
    }
    let zva = op(3, 7, 4, 1);
    let trap = Exception::system_instruction_trap(zva.packed(), 9);
    assert_eq!(trap.syndrome(false), 0x6212_dd28);
    assert_eq!(decode(0, !sctlr::DZE, zva), Err(trap));
    assert_eq!(decode(0, sctlr::DZE, zva), Ok(SysOp::DcZva));
    for e in [op(0, 7, 5, 0), op(0, 7, 6, 1), op(0, 7, 6, 2), op(0, 7, 8, 0), op(0, 8, 7, 0), op(0, 15, 0, 0)]
    {
        assert_eq!(decode(0, u64::MAX, e), Err(Exception::undefined()), "{e:?}");
    }
}

#[test]
fn accesses_to_check() {
    let kernel = at_el(1, 0);
    let user = at_el(0, 0);
    let mut pan = at_el(1, 0);
    pan.pstate |= Pstate::PAN;
    let access = |kind, el, pan| Some(Access { kind, el, pan });
    assert_eq!(SysOp::DcZva.access(&user), access(AccessKind::Write, 0, false));
    assert_eq!(SysOp::DcZva.access(&pan), access(AccessKind::Write, 1, true));
    assert_eq!(SysOp::DcClean.access(&user), access(AccessKind::Read, 0, false));
    assert_eq!(SysOp::DcClean.access(&pan), access(AccessKind::Read, 1, false));
    assert_eq!(SysOp::DcInvalidate.access(&kernel), access(AccessKind::WriteCheck, 1, false));
    assert_eq!(SysOp::IcIvau.access(&user), access(AccessKind::Read, 0, false));
    assert_eq!(SysOp::Nop.access(&user), None);
}

fn tlbi(kind: TlbiKind, broadcast: bool) -> Result<SysOp, Exception> {
    Ok(SysOp::Tlbi(Tlbi { kind, broadcast }))
}

#[test]
fn tlb_maintenance() {
    for (crm, broadcast) in [(3, true), (7, false)] {
        for (op2, kind) in [
            (0, TlbiKind::All),
            (1, TlbiKind::Va { last_level: false }),
            (2, TlbiKind::Asid),
            (3, TlbiKind::VaAllAsids { last_level: false }),
            (5, TlbiKind::Va { last_level: true }),
            (7, TlbiKind::VaAllAsids { last_level: true }),
        ] {
            assert_eq!(decode(1, 0, op(0, 8, crm, op2)), tlbi(kind, broadcast));
        }
    }
    // Outer Shareable, range and nXS forms come with later features.
    for e in [op(0, 8, 1, 0), op(0, 8, 2, 1), op(0, 8, 5, 1), op(0, 8, 6, 1), op(0, 9, 7, 0)] {
        assert_eq!(decode(1, 0, e), Err(Exception::undefined()), "{e:?}");
    }
    assert_eq!(decode(1, 0, op(0, 8, 7, 4)), Err(Exception::undefined()));
}

#[test]
fn operands_of_tlb_maintenance() {
    let target = |kind, xt: u64, tcr: u64| {
        let mut s = at_el(1, 0);
        s.sys[SysReg::TcrEl1] = tcr;
        Tlbi { kind, broadcast: false }.target(xt, &s, &n1())
    };
    let va = TlbiKind::Va { last_level: false };
    let xt = 0xabcd_0000_0000_0000 | 0xffff_8000_1234_5000 >> 12 & 0xfff_ffff_ffff;
    let expected = |asid| TlbiTarget::Va { va: 0xffff_8000_1234_5000, asid };
    assert_eq!(target(va, xt, tcr::AS), expected(Some(0xabcd)));
    assert_eq!(target(va, xt, 0), expected(Some(0xcd)));
    assert_eq!(target(TlbiKind::VaAllAsids { last_level: true }, xt, 0), expected(None));
    // TTL is a hint and not part of the address.
    assert_eq!(target(va, xt | 0xf << 44, 0), expected(Some(0xcd)));
    assert_eq!(target(TlbiKind::Asid, xt, tcr::AS), TlbiTarget::Asid(0xabcd));
    assert_eq!(target(TlbiKind::All, xt, 0), TlbiTarget::All);
    let range = TlbiKind::Range { last_level: false };
    // 4K granule, SCALE 1, NUM 2: 3 * 2^6 pages.
    let xt = 0x12 << 48 | 1 << 46 | 1 << 44 | 2 << 39 | 0x1000;
    let expected =
        TlbiTarget::Range { start: 0x100_0000, last: 0x100_0000 + 192 * 4096 - 1, asid: Some(0x12) };
    assert_eq!(target(range, xt, 0), expected);
    assert_eq!(target(range, xt & !(3 << 46), 0), TlbiTarget::Nothing);
    // The largest range at the very top of the address space, 64K granule.
    let xt = 3 << 46 | 3 << 44 | 0x1f << 39 | 0x1f_ffff_ffff;
    let expected = TlbiTarget::Range { start: !0xffff, last: u64::MAX, asid: None };
    assert_eq!(target(TlbiKind::RangeAllAsids { last_level: true }, xt, 0), expected);
}

#[derive(Default)]
struct Memory(HashMap<u64, u64>);

impl PhysicalMemory for Memory {
    fn read_u64(&self, pa: u64) -> Option<u64> {
        self.0.get(&pa).copied()
    }
    fn compare_exchange_u64(&self, _: u64, _: u64, _: u64) -> Option<Result<u64, u64>> {
        None
    }
}

/// 64K granule, 42 bits: one 512 MiB block with `bits` at address 0.
fn translate(what: SysEncoding, bits: Option<u64>, pan: bool) -> (Result<(), Exception>, u64) {
    let model = n1();
    let mut s = at_el(1, sctlr::M);
    s.pstate.set(Pstate::PAN, pan);
    s.sys[SysReg::TcrEl1] = 22 | 1 << tcr::TG0_SHIFT | 5 << tcr::IPS_SHIFT;
    s.sys[SysReg::Ttbr0El1] = 0x1_0000;
    s.sys[SysReg::MairEl1] = 0xff | 0x04 << 8 | 0x44 << 16;
    s.sys[SysReg::ParEl1] = 0x5555;
    let mem = Memory(bits.map(|b| (0x1_0000, 0x8000_0000 | b)).into_iter().collect());
    let Ok(SysOp::At(at)) = decode_sys(&s, &model, what, 0) else { panic!("not AT: {what:?}") };
    let result = address_translate(&mut s, &model, &mem, at, 0x123_4567);
    (result, s.sys[SysReg::ParEl1])
}

#[test]
fn address_translation() {
    let (s1e1r, s1e1w, s1e0r, s1e0w) = (op(0, 7, 8, 0), op(0, 7, 8, 1), op(0, 7, 8, 2), op(0, 7, 8, 3));
    let (s1e1rp, s1e1wp) = (op(0, 7, 9, 0), op(0, 7, 9, 1));
    let block = d::VALID | d::AF | 3 << d::SH_SHIFT;
    let par = |what, bits| translate(what, Some(bits), false).1;
    // Attributes, address of the page, RES1, NS, inner shareable.
    assert_eq!(par(s1e1r, block), 0xff << 56 | 0x8123_4000 | 1 << 11 | 1 << 9 | 3 << 7);
    // Device and non-cacheable memory are outer shareable.
    assert_eq!(par(s1e1r, block | 1 << 2), 0x04 << 56 | 0x8123_4000 | 1 << 11 | 1 << 9 | 2 << 7);
    assert_eq!(par(s1e1r, block | 2 << 2), 0x44 << 56 | 0x8123_4000 | 1 << 11 | 1 << 9 | 2 << 7);
    // Permission fault, level 2: FST 0b001110.
    let denied = 1 << 11 | 0b1110 << 1 | 1;
    assert_eq!(par(s1e0r, block), denied);
    assert_eq!(par(s1e0w, block | d::AP1 | d::AP2), denied);
    assert_eq!(par(s1e1w, block | d::AP2), denied);
    assert_eq!(par(s1e0r, block | d::AP1) & 1, 0);
    assert_eq!(par(s1e0w, block | d::AP1) & 1, 0);
    // Translation fault, level 2.
    assert_eq!(par(s1e1r, 0), 1 << 11 | 0b110 << 1 | 1);
    // PAN counts only for the P forms.
    let user = block | d::AP1;
    assert_eq!(translate(s1e1r, Some(user), true).1 & 1, 0);
    assert_eq!(translate(s1e1rp, Some(user), true).1, denied);
    assert_eq!(translate(s1e1wp, Some(user), true).1, denied);
    assert_eq!(translate(s1e1rp, Some(user), false).1 & 1, 0);
    assert_eq!(translate(s1e1r, None, false).1, 0x5555, "an external abort leaves PAR alone");
    let external = Fault::new(FaultKind::SyncExternalOnWalk, 2);
    assert_eq!(translate(s1e1r, None, false).0, Err(Exception::maintenance_abort(external, 0x123_4567)));
}

#[test]
fn every_encoding_has_an_answer() {
    let mut defined = 0;
    for bits in 0..0x4000 {
        for el in 0..2 {
            let found = decode(el, u64::MAX, SysEncoding::unpack(bits));
            defined += usize::from(found.is_ok());
            if SysEncoding::unpack(bits).op1 > 3 {
                assert_eq!(found, Err(Exception::undefined()), "EL2 and EL3 forms");
            }
        }
    }
    assert!(defined > 40);
}
