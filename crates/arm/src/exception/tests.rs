//! Entry and return against the pseudocode's rules (Arm ARM D1.3, D24.2.37).

use super::*;
use crate::mmu::FaultKind;
use crate::model::CpuModel;
use crate::spec::{mdscr, sctlr, tcr};
use crate::state::{CpuState, Pstate};
use crate::sysreg::SysReg;

const VBAR: u64 = 0xffff_8000_1000_0800;

fn n1() -> CpuModel {
    CpuModel::by_name("neoverse-n1").unwrap()
}

/// At `el` with SP_ELx, everything unmasked.
fn at(el: usize) -> CpuState {
    let mut s = n1().reset_state(0, 0x8000_0000);
    s.set_pstate(Pstate::empty().with_el(el, el > 0));
    s.pc = 0x1_0000;
    s.sys[SysReg::VbarEl1] = VBAR;
    s.sys[SysReg::SctlrEl1] |= sctlr::SPAN;
    s
}

#[test]
fn syndromes() {
    let esr = |e: Exception| e.syndrome(true);
    assert_eq!(esr(Exception::undefined()), 0x0200_0000);
    assert_eq!(esr(Exception::svc(0x1234)), 0x5600_1234);
    assert_eq!(esr(Exception::hvc(1)), 0x5a00_0001);
    assert_eq!(esr(Exception::smc(2)), 0x5e00_0002);
    assert_eq!(esr(Exception::brk(0x800)), 0xf200_0800);
    assert_eq!(esr(Exception::fp_access_trap()), 0x1fe0_0000);
    assert_eq!(esr(Exception::wf_trap(false)), 0x07e0_0000);
    assert_eq!(esr(Exception::wf_trap(true)), 0x07e0_0001);
    assert_eq!(esr(Exception::wft_trap(true, 5)), 0x07e0_00a7);
    assert_eq!(esr(Exception::illegal_state()), 0x3a00_0000);
    assert_eq!(esr(Exception::branch_target(2)), 0x3600_0002);
    assert_eq!(esr(Exception::pc_alignment(3)), 0x8a00_0000);
    assert_eq!(esr(Exception::sp_alignment()), 0x9a00_0000);
    assert_eq!(esr(Exception::breakpoint()), 0xc600_0022);
    assert_eq!(Exception::breakpoint().syndrome(false), 0xc200_0022);
    assert_eq!(Exception::software_step(Some(false)).syndrome(false), 0xcb00_0022);
    assert_eq!(Exception::software_step(None).syndrome(false), 0xca00_0022);
    assert_eq!(esr(Exception::software_step(Some(true))), 0xcf00_0062);
    assert_eq!(esr(Exception::watchpoint(0, true, false)), 0xd600_0062);
    assert_eq!(Exception::watchpoint(0, false, true).syndrome(false), 0xd200_0122);
}

#[test]
fn syndromes_of_trapped_system_instructions() {
    use crate::sysreg::encoding;
    // MRS X5, CTR_EL0: op0 3, op1 3, CRn 0, CRm 0, op2 1.
    let e = Exception::system_register_trap(encoding(3, 3, 0, 0, 1), 5, true);
    assert_eq!(e.syndrome(false), 0x6200_0000 | 3 << 20 | 1 << 17 | 3 << 14 | 5 << 5 | 1);
    // DC CVAU, X7: op0 1, op1 3, CRn 7, CRm 11, op2 1.
    let e = Exception::system_instruction_trap(encoding(0, 3, 7, 11, 1), 7);
    assert_eq!(e.syndrome(false), 0x6200_0000 | 1 << 20 | 1 << 17 | 3 << 14 | 7 << 10 | 7 << 5 | 11 << 1);
    // MSR DAIFSet, #2: op0 0, op1 3, CRn 4, CRm 2, op2 6, Rt 31.
    let e = Exception::pstate_trap(3, 6, 2);
    assert_eq!(e.syndrome(false), 0x6200_0000 | 6 << 17 | 3 << 14 | 4 << 10 | 31 << 5 | 2 << 1);
}

#[test]
fn aborts() {
    let translation = Fault::new(FaultKind::Translation, 2);
    assert_eq!(Exception::data_abort(translation, 0, false).syndrome(true), 0x9600_0006);
    assert_eq!(Exception::data_abort(translation, 0, true).syndrome(false), 0x9200_0046);
    assert_eq!(Exception::maintenance_abort(translation, 0).syndrome(true), 0x9600_0146);
    assert_eq!(Exception::instruction_abort(translation, 0).syndrome(false), 0x8200_0006);
    assert_eq!(Exception::instruction_abort(translation, 0).syndrome(true), 0x8600_0006);
    assert_eq!(Exception::data_abort(Fault::alignment(), 0, false).syndrome(true), 0x9600_0021);
    assert_eq!(Exception::data_abort(Fault::external(), 0, true).syndrome(true), 0x9600_0050);
    assert_eq!(Exception::data_abort_without_address(Fault::external(), false).syndrome(true), 0x9600_0410);
}

#[test]
fn vectors() {
    let model = n1();
    let e = Exception::undefined();
    let mut s = at(0);
    take(&mut s, &model, &e);
    assert_eq!(s.pc, VBAR + 0x400);
    let mut s = at(1);
    take(&mut s, &model, &e);
    assert_eq!(s.pc, VBAR + 0x200);
    let mut s = at(1);
    s.set_pstate(Pstate::empty().with_el(1, false));
    take(&mut s, &model, &e);
    assert_eq!(s.pc, VBAR);
    let mut s = at(0);
    take_irq(&mut s, &model);
    assert_eq!(s.pc, VBAR + 0x480);
    let mut s = at(1);
    take_fiq(&mut s, &model);
    assert_eq!(s.pc, VBAR + 0x300);
    let mut s = at(1);
    take_serror(&mut s, &model, 0x3);
    assert_eq!((s.pc, s.sys[SysReg::EsrEl1]), (VBAR + 0x380, 0xbe00_0003));
}

#[test]
fn entry_saves_and_masks() {
    let model = n1();
    let mut s = at(0);
    s.x[31] = 0x1111;
    s.sp_el[1] = 0x2222;
    s.sys[SysReg::FarEl1] = 0x3333;
    s.pstate |= Pstate::N | Pstate::C | Pstate::SSBS | Pstate::UAO | Pstate::SS | Pstate::IL;
    let before = s.pstate;
    take(&mut s, &model, &Exception::svc(0));
    assert_eq!(s.sys[SysReg::SpsrEl1], u64::from(before.bits()));
    assert_eq!(s.sys[SysReg::ElrEl1], 0x1_0004, "SVC returns behind itself");
    assert_eq!(s.pstate, Pstate::N | Pstate::C | Pstate::DAIF | Pstate::empty().with_el(1, true));
    assert_eq!(s.sys[SysReg::FarEl1], 0x3333, "SVC leaves FAR alone");
    assert_eq!((s.x[31], s.sp_el[0]), (0x2222, 0x1111));
}

#[test]
fn return_addresses_and_fault_addresses() {
    let model = n1();
    let fault = Fault::new(FaultKind::Permission, 3);
    for (e, elr, far) in [
        (Exception::brk(0), 0x1_0000, None),
        (Exception::undefined(), 0x1_0000, None),
        (Exception::hvc(0), 0x1_0004, None),
        (Exception::data_abort(fault, 0xabc, true), 0x1_0000, Some(0xabc)),
        (Exception::instruction_abort(fault, 0x1_0000), 0x1_0000, Some(0x1_0000)),
        (Exception::pc_alignment(0x1_0002), 0x1_0000, Some(0x1_0002)),
        (Exception::watchpoint(0xdef, false, false), 0x1_0000, Some(0xdef)),
        (Exception::software_step(None).returning_to(0x500), 0x500, None),
    ] {
        let mut s = at(1);
        s.sys[SysReg::FarEl1] = 0x77;
        take(&mut s, &model, &e);
        assert_eq!(s.sys[SysReg::ElrEl1], elr, "{e:?}");
        assert_eq!(s.sys[SysReg::FarEl1], far.unwrap_or(0x77), "{e:?}");
    }
}

#[test]
fn interrupts_leave_the_syndrome_alone() {
    let mut s = at(0);
    s.sys[SysReg::EsrEl1] = 0x55;
    take_irq(&mut s, &n1());
    assert_eq!(s.sys[SysReg::EsrEl1], 0x55);
    assert_eq!(s.sys[SysReg::ElrEl1], 0x1_0000);
}

#[test]
fn pan_and_ssbs_on_entry() {
    let model = n1();
    let entered = |sctlr: u64, pstate: Pstate, model: &CpuModel| {
        let mut s = at(0);
        s.sys[SysReg::SctlrEl1] = sctlr;
        s.pstate |= pstate;
        take_irq(&mut s, model);
        s.pstate & (Pstate::PAN | Pstate::SSBS)
    };
    assert_eq!(entered(sctlr::SPAN, Pstate::empty(), &model), Pstate::empty());
    assert_eq!(entered(sctlr::SPAN, Pstate::PAN | Pstate::SSBS, &model), Pstate::PAN);
    assert_eq!(entered(0, Pstate::empty(), &model), Pstate::PAN);
    assert_eq!(entered(sctlr::SPAN | sctlr::DSSBS, Pstate::empty(), &model), Pstate::SSBS);
    let a72 = CpuModel::by_name("cortex-a72").unwrap();
    assert_eq!(entered(sctlr::DSSBS, Pstate::empty(), &a72), Pstate::empty());
}

#[test]
fn legal_returns() {
    let model = n1();
    let mut s = at(1);
    s.monitor.address = 0x40;
    s.sp_el[0] = 0x1234;
    s.x[31] = 0x5678;
    s.sys[SysReg::ElrEl1] = 0x40_0000;
    s.sys[SysReg::SpsrEl1] = u64::from((Pstate::Z | Pstate::I | Pstate::PAN | Pstate::SSBS).bits());
    eret(&mut s, &model).unwrap();
    assert_eq!(s.pstate, Pstate::Z | Pstate::I | Pstate::PAN | Pstate::SSBS);
    assert_eq!((s.pc, s.x[31], s.sp_el[1]), (0x40_0000, 0x1234, 0x5678));
    assert_eq!(s.monitor.address, u64::MAX);
    // EL1t and EL1h; IL in SPSR comes back.
    for mode in [4, 5] {
        let mut s = at(1);
        s.sys[SysReg::SpsrEl1] = mode | 1 << 20;
        eret(&mut s, &model).unwrap();
        assert_eq!(u64::from(s.pstate.bits()), mode | 1 << 20);
    }
}

#[test]
fn returns_drop_state_that_the_model_lacks() {
    let mut s = at(1);
    s.sys[SysReg::SpsrEl1] = 0xffff_ffff & !0x1f & !(1 << 20);
    eret(&mut s, &n1()).unwrap();
    let expected = Pstate::NZCV | Pstate::UAO | Pstate::PAN | Pstate::SSBS | Pstate::DAIF;
    assert_eq!(s.pstate, expected, "neither DIT, TCO nor BTYPE; SS only when stepping");
    let mut s = at(1);
    s.sys[SysReg::SpsrEl1] = 0xffff_ffff & !0x1f & !(1 << 20);
    eret(&mut s, &CpuModel::by_name("cortex-a53").unwrap()).unwrap();
    assert_eq!(s.pstate, Pstate::NZCV | Pstate::DAIF);
}

#[test]
fn illegal_returns() {
    // EL0h, reserved mode, EL2t, EL2h, EL3h, AArch32 user.
    for mode in [1, 2, 3, 6, 7, 8, 9, 13, 0x10, 0x13] {
        let mut s = at(1);
        s.x[31] = 0x99;
        s.pstate |= Pstate::UAO;
        s.sys[SysReg::ElrEl1] = 0x123;
        s.sys[SysReg::SpsrEl1] =
            mode | u64::from((Pstate::C | Pstate::F | Pstate::PAN | Pstate::SSBS).bits());
        eret(&mut s, &n1()).unwrap();
        let expected = Pstate::IL | Pstate::C | Pstate::F | Pstate::PAN | Pstate::empty().with_el(1, true);
        assert_eq!(s.pstate, expected, "mode {mode:#x}");
        assert_eq!((s.pc, s.x[31]), (0x123, 0x99));
    }
}

#[test]
fn eret_is_undefined_at_el0() {
    assert_eq!(eret(&mut at(0), &n1()), Err(Exception::undefined()));
}

#[test]
fn return_address_loses_its_tag() {
    let mut s = at(1);
    s.sys[SysReg::TcrEl1] = tcr::TBI0;
    s.sys[SysReg::ElrEl1] = 0xa5 << 56 | 0x1000;
    eret(&mut s, &n1()).unwrap();
    assert_eq!(s.pc, 0x1000);
}

#[test]
fn software_step_is_armed_by_the_return() {
    let step = |mdscr: u64, locked: bool, from: Pstate, spsr: u64| {
        let mut s = at(1);
        s.set_pstate(from | Pstate::empty().with_el(1, true));
        s.sys[SysReg::MdscrEl1] = mdscr;
        s.sys[SysReg::OslsrEl1] = if locked { 0xa } else { 0x8 };
        s.sys[SysReg::SpsrEl1] = spsr | 1 << 21;
        eret(&mut s, &n1()).unwrap();
        s.pstate.contains(Pstate::SS)
    };
    assert!(step(mdscr::SS, false, Pstate::D, 0), "to EL0");
    assert!(!step(0, false, Pstate::D, 0), "step is off");
    assert!(!step(mdscr::SS, true, Pstate::D, 0), "OS lock");
    assert!(!step(mdscr::SS, false, Pstate::D, 5), "EL1 without KDE");
    assert!(step(mdscr::SS | mdscr::KDE, false, Pstate::D, 5), "EL1 with KDE, unmasking D");
    assert!(!step(mdscr::SS | mdscr::KDE, false, Pstate::D, 5 | 1 << 9), "D stays masked");
    assert!(!step(mdscr::SS | mdscr::KDE, false, Pstate::empty(), 5), "debug enabled here already");
}
