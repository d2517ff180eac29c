//! Rules of access, register by register where they differ (Arm ARM D24 and the access pseudocode).

use std::sync::Mutex;

use super::*;
use crate::exception::Exception;
use crate::feature::Feature;
use crate::model::CpuModel;
use crate::spec::{cntkctl, cpacr, mdscr, sctlr, tcr};
use crate::state::{CpuState, Pstate};

/// Answers reads with the encoding, remembers writes.
#[derive(Default)]
struct External(Mutex<Vec<(usize, SysReg, u64)>>);

impl ExternalRegisters for External {
    fn read(&self, cpu: usize, reg: SysReg) -> u64 {
        u64::from(reg.encoding()) | (cpu as u64) << 32
    }
    fn write(&self, cpu: usize, reg: SysReg, value: u64) {
        self.0.lock().unwrap().push((cpu, reg, value));
    }
}

struct Cpu {
    state: CpuState,
    model: CpuModel,
    ext: External,
}

impl Cpu {
    fn new(model: &str, el: usize) -> Self {
        let model = CpuModel::parse(model).unwrap();
        let mut state = model.reset_state(2, 0x8000_0002);
        state.set_pstate(Pstate::empty().with_el(el, el > 0));
        Self { state, model, ext: External::default() }
    }

    fn n1(el: usize) -> Self {
        Self::new("neoverse-n1", el)
    }

    fn with(mut self, reg: SysReg, value: u64) -> Self {
        self.state.sys[reg] = value;
        self
    }

    fn get(&mut self, reg: SysReg) -> Result<u64, Exception> {
        read(&mut self.state, &self.model, &self.ext, reg.encoding(), 3)
    }

    fn set(&mut self, reg: SysReg, value: u64) -> Result<Effects, Exception> {
        write(&mut self.state, &self.model, &self.ext, reg.encoding(), 3, value)
    }

    fn raw(&mut self, enc: u16) -> Result<u64, Exception> {
        read(&mut self.state, &self.model, &self.ext, enc, 3)
    }
}

fn undefined<T>() -> Result<T, Exception> {
    Err(Exception::undefined())
}

fn trapped<T>(reg: SysReg, read: bool) -> Result<T, Exception> {
    Err(Exception::system_register_trap(reg.encoding(), 3, read))
}

#[test]
fn table_is_consistent() {
    for (i, &reg) in SysReg::ALL.iter().enumerate() {
        assert_eq!(reg as usize, i);
        assert_eq!(lookup(reg.encoding()), Some(reg), "{}", reg.name());
        assert!(reg.encoding() >> 14 >= 2, "{}", reg.name());
        let op1 = reg.encoding() >> 11 & 7;
        // op1 tells the lowest exception level, with the exceptions of the debug registers, of the cache
        // geometry (op1 1 and 2) and of what EL0 may only write at EL1.
        let el0 = matches!(reg.access(), Access::Rw0 | Access::Ro0 | Access::Rw1Ro0);
        assert_eq!(el0, op1 == 3, "{}", reg.name());
    }
    assert_eq!(lookup(encoding(3, 4, 1, 0, 0)), None, "SCTLR_EL2");
    assert_eq!(SysReg::SctlrEl1.encoding(), 0xc080);
    assert_eq!(SysReg::Nzcv.encoding(), 0xda10);
}

#[test]
fn el0_has_none_of_the_el1_registers() {
    let mut cpu = Cpu::n1(0);
    for &reg in SysReg::ALL {
        match reg.access() {
            Access::Rw1 | Access::Ro1 | Access::Wo1 => {
                assert_eq!(cpu.get(reg), undefined(), "{}", reg.name());
                assert_eq!(cpu.set(reg, 0), undefined(), "{}", reg.name());
            }
            Access::Ro0 | Access::Rw1Ro0 => assert_eq!(cpu.set(reg, 0), undefined(), "{}", reg.name()),
            Access::Rw0 => {}
        }
    }
    assert_eq!(cpu.raw(encoding(3, 0, 0, 4, 0)), undefined(), "ID_AA64PFR0_EL1");
    assert_eq!(cpu.raw(encoding(3, 0, 15, 1, 0)), undefined(), "CPUACTLR_EL1");
}

#[test]
fn el1_reads_and_writes_by_direction() {
    let mut cpu = Cpu::n1(1).with(SysReg::CpacrEl1, cpacr::FPEN);
    for &reg in SysReg::ALL {
        let exists = cpu.model.has(reg.feature())
            && !matches!(reg.name(), "DBGWVR4_EL1" | "DBGWVR5_EL1" | "DBGWCR4_EL1" | "DBGWCR5_EL1");
        let readable = exists && reg.access() != Access::Wo1;
        let writable = exists && !matches!(reg.access(), Access::Ro1 | Access::Ro0);
        assert_eq!(cpu.get(reg).is_ok(), readable, "read {}", reg.name());
        let value = cpu.state.sys[SysReg::CpacrEl1];
        assert_eq!(cpu.set(reg, value | 1).is_ok(), writable, "write {}", reg.name());
        cpu.state.set_pstate(Pstate::empty().with_el(1, true));
        cpu.state.sys[SysReg::CpacrEl1] = cpacr::FPEN;
    }
}

#[test]
fn id_space() {
    let mut cpu = Cpu::n1(1);
    assert_eq!(cpu.get(SysReg::MidrEl1), Ok(0x414f_d0c1));
    assert_eq!(cpu.get(SysReg::MpidrEl1), Ok(0x8000_0002));
    assert_eq!(cpu.raw(encoding(3, 0, 0, 6, 0)), Ok(0x0000_1000_1021_1120), "ID_AA64ISAR0_EL1");
    assert_eq!(cpu.raw(encoding(3, 0, 0, 4, 0)), Ok(0x1100_0000_1111_0011), "ID_AA64PFR0_EL1");
    // What is reserved, and what belongs to features that are absent, reads as zero.
    for crm in 1..8 {
        for op2 in 0..8 {
            assert!(cpu.raw(encoding(3, 0, 0, crm, op2)).is_ok(), "{crm} {op2}");
        }
        assert_eq!(cpu.raw(encoding(3, 0, 0, crm, 7)), Ok(0));
    }
    let id = encoding(3, 0, 0, 4, 0);
    assert_eq!(write(&mut cpu.state, &cpu.model, &cpu.ext, id, 0, 0), undefined());
    assert_eq!(cpu.raw(encoding(3, 0, 0, 8, 0)), undefined());
    for op2 in [1, 2, 3, 4, 7] {
        assert_eq!(cpu.raw(encoding(3, 0, 0, 0, op2)), undefined());
    }
}

#[test]
fn id_space_at_el0_is_a_trap_with_idst() {
    let mut cpu = Cpu::new("max", 0);
    for enc in [
        encoding(3, 0, 0, 4, 0),
        encoding(3, 0, 0, 7, 7),
        SysReg::MidrEl1.encoding(),
        SysReg::ClidrEl1.encoding(),
        encoding(3, 3, 0, 0, 2),
    ] {
        assert_eq!(cpu.raw(enc), Err(Exception::system_register_trap(enc, 3, true)), "{enc:#x}");
    }
    assert_eq!(cpu.get(SysReg::DczidEl0), Ok(0x19));
    assert_eq!(cpu.get(SysReg::CsselrEl1), undefined(), "op1 = 2");
    assert_eq!(cpu.raw(encoding(3, 0, 0, 8, 0)), undefined());
    assert_eq!(cpu.set(SysReg::MidrEl1, 0), undefined(), "reads only");
}

#[test]
fn unallocated_encodings_are_undefined() {
    let mut cpu = Cpu::n1(1);
    for (what, enc) in [
        ("SCTLR_EL2", encoding(3, 4, 1, 0, 0)),
        ("SCTLR_EL12", encoding(3, 5, 1, 0, 0)),
        ("SCR_EL3", encoding(3, 6, 1, 1, 0)),
        ("SP_EL1", encoding(3, 4, 4, 1, 0)),
        ("PMCR_EL0", encoding(3, 3, 9, 12, 0)),
        ("PMUSERENR_EL0", encoding(3, 3, 9, 14, 0)),
        ("AMCR_EL0", encoding(3, 3, 13, 2, 0)),
        ("ZCR_EL1", encoding(3, 0, 1, 2, 0)),
        ("TRFCR_EL1", encoding(3, 0, 1, 2, 1)),
        ("APIAKEYLO_EL1", encoding(3, 0, 2, 1, 0)),
        ("DIT", encoding(3, 3, 4, 2, 5)),
        ("RNDR", encoding(3, 3, 2, 4, 0)),
        ("DBGWVR4_EL1", encoding(2, 0, 0, 4, 6)),
        ("DBGBVR6_EL1", encoding(2, 0, 0, 6, 4)),
        ("ICC_AP0R1_EL1", encoding(3, 0, 12, 8, 5)),
        ("ICC_AP1R3_EL1", encoding(3, 0, 12, 9, 3)),
        ("CNTPS_CTL_EL1", encoding(3, 7, 14, 2, 1)),
    ] {
        assert_eq!(cpu.raw(enc), undefined(), "{what}");
        assert_eq!(write(&mut cpu.state, &cpu.model, &cpu.ext, enc, 0, 0), undefined(), "{what}");
    }
    assert!(cpu.get(SysReg::Dbgbvr5El1).is_ok() && cpu.get(SysReg::Dbgwvr3El1).is_ok());
    // Implementation-defined registers of the real part: read as zero, ignore writes.
    assert_eq!(cpu.raw(encoding(3, 0, 15, 1, 4)), Ok(0), "CPUECTLR_EL1");
}

#[test]
fn features_bring_registers() {
    let mut a53 = Cpu::new("cortex-a53", 1);
    for reg in [SysReg::Pan, SysReg::Uao, SysReg::Ssbs, SysReg::DisrEl1, SysReg::LorcEl1, SysReg::ErridrEl1] {
        assert_eq!(a53.get(reg), undefined(), "{}", reg.name());
        assert!(Cpu::n1(1).get(reg).is_ok(), "{}", reg.name());
    }
    // A76 announces SSBS without the instructions to read and write it.
    assert_eq!(Cpu::new("cortex-a76", 0).get(SysReg::Ssbs), undefined());
    assert_eq!(Cpu::n1(0).get(SysReg::Ssbs), Ok(0));
    assert!(Cpu::new("neoverse-n1,pan=off", 1).get(SysReg::Pan).is_err());
}

#[test]
fn traps_of_el0_by_sctlr() {
    let mut cpu = Cpu::n1(0).with(SysReg::SctlrEl1, 0);
    assert_eq!(cpu.get(SysReg::CtrEl0), trapped(SysReg::CtrEl0, true));
    assert_eq!(cpu.get(SysReg::Daif), trapped(SysReg::Daif, true));
    assert_eq!(cpu.set(SysReg::Daif, 0), trapped(SysReg::Daif, false));
    assert_eq!(cpu.get(SysReg::DczidEl0), Ok(0x19), "prohibited, not trapped");
    let mut cpu = cpu.with(SysReg::SctlrEl1, sctlr::UCT | sctlr::UMA | sctlr::DZE);
    assert_eq!(cpu.get(SysReg::CtrEl0), Ok(0x9444_c00a));
    assert_eq!(cpu.set(SysReg::Daif, 0x3c0), Ok(Effects::PSTATE | Effects::INTERRUPTS));
    assert_eq!(cpu.get(SysReg::Daif), Ok(0x3c0));
    assert_eq!(cpu.get(SysReg::DczidEl0), Ok(9));
    // EL1 is not concerned.
    assert_eq!(Cpu::n1(1).with(SysReg::SctlrEl1, 0).get(SysReg::CtrEl0), Ok(0x9444_c00a));
}

#[test]
fn traps_of_el0_by_cntkctl() {
    let enable = |bits: u64, reg: SysReg| Cpu::n1(0).with(SysReg::CntkctlEl1, bits).get(reg);
    let all = cntkctl::EL0PCTEN | cntkctl::EL0VCTEN | cntkctl::EL0VTEN | cntkctl::EL0PTEN;
    for (reg, bits) in [
        (SysReg::CntpctEl0, cntkctl::EL0PCTEN),
        (SysReg::CntvctEl0, cntkctl::EL0VCTEN),
        (SysReg::CntpCtlEl0, cntkctl::EL0PTEN),
        (SysReg::CntpCvalEl0, cntkctl::EL0PTEN),
        (SysReg::CntpTvalEl0, cntkctl::EL0PTEN),
        (SysReg::CntvCtlEl0, cntkctl::EL0VTEN),
        (SysReg::CntvCvalEl0, cntkctl::EL0VTEN),
        (SysReg::CntvTvalEl0, cntkctl::EL0VTEN),
    ] {
        assert_eq!(enable(all & !bits, reg), trapped(reg, true), "{}", reg.name());
        assert_eq!(enable(bits, reg), Ok(u64::from(reg.encoding()) | 2 << 32), "{}", reg.name());
    }
    assert_eq!(enable(0, SysReg::CntfrqEl0), trapped(SysReg::CntfrqEl0, true));
    assert_eq!(enable(cntkctl::EL0PCTEN, SysReg::CntfrqEl0), Ok(62_500_000));
    assert_eq!(enable(cntkctl::EL0VCTEN, SysReg::CntfrqEl0), Ok(62_500_000));
    let mut cpu = Cpu::n1(0).with(SysReg::CntkctlEl1, 0);
    assert_eq!(cpu.set(SysReg::CntvCtlEl0, 1), trapped(SysReg::CntvCtlEl0, false));
    assert!(cpu.ext.0.lock().unwrap().is_empty());
}

#[test]
fn traps_of_el0_by_mdscr() {
    let mut cpu = Cpu::n1(0);
    assert_eq!(cpu.get(SysReg::MdccsrEl0), Ok(0));
    let mut cpu = cpu.with(SysReg::MdscrEl1, mdscr::TDCC);
    assert_eq!(cpu.get(SysReg::MdccsrEl0), trapped(SysReg::MdccsrEl0, true));
    assert_eq!(cpu.set(SysReg::DbgdtrEl0, 0), trapped(SysReg::DbgdtrEl0, false));
}

#[test]
fn floating_point_registers_follow_cpacr() {
    for (fpen, el, traps) in
        [(0u64, 0, true), (0, 1, true), (1, 0, true), (1, 1, false), (2, 1, true), (3, 0, false)]
    {
        let mut cpu = Cpu::n1(el).with(SysReg::CpacrEl1, fpen << 20);
        let expected = if traps { Err(Exception::fp_access_trap()) } else { Ok(0) };
        assert_eq!(cpu.get(SysReg::Fpcr), expected, "FPEN {fpen} EL{el}");
        assert_eq!(cpu.get(SysReg::Fpsr), expected, "FPEN {fpen} EL{el}");
        assert_eq!(fp_access_trapped(&cpu.state), traps);
    }
    let mut cpu = Cpu::n1(0).with(SysReg::CpacrEl1, cpacr::FPEN);
    assert_eq!(cpu.set(SysReg::Fpcr, u64::MAX), Ok(Effects::FP));
    assert_eq!(cpu.get(SysReg::Fpcr), Ok(0x07c8_0000), "AHP, DN, FZ, RMode, FZ16");
    cpu.set(SysReg::Fpsr, u64::MAX).unwrap();
    assert_eq!(cpu.get(SysReg::Fpsr), Ok(0x0800_009f));
    let mut a53 = Cpu::new("cortex-a53", 1).with(SysReg::CpacrEl1, cpacr::FPEN);
    a53.set(SysReg::Fpcr, u64::MAX).unwrap();
    assert_eq!(a53.get(SysReg::Fpcr), Ok(0x07c0_0000), "no FZ16");
}

#[test]
fn reserved_bits_of_control_registers() {
    let mut cpu = Cpu::n1(1);
    let mut written = |reg: SysReg, value: u64| {
        cpu.set(reg, value).unwrap();
        cpu.get(reg).unwrap()
    };
    assert_eq!(written(SysReg::SctlrEl1, 0), 0x3050_0980, "RES1");
    // No EE, E0E, pointer authentication, BTI, MTE; with IESB, SPAN, DSSBS.
    let expected = 0x3050_0980
        | sctlr::DSSBS
        | sctlr::SPAN
        | sctlr::IESB
        | sctlr::UCI
        | sctlr::WXN
        | sctlr::NTWE
        | sctlr::NTWI
        | sctlr::UCT
        | sctlr::DZE
        | sctlr::I
        | sctlr::UMA
        | 0x1f;
    assert_eq!(written(SysReg::SctlrEl1, u64::MAX), expected);
    let tcr = written(SysReg::TcrEl1, u64::MAX);
    assert_eq!(tcr, 0x07_ff_f7_ff_ff_ff_bf, "A1..HPD1 and HWU, no TBID, E0PD or DS");
    assert_eq!(tcr & tcr::DS, 0);
    assert_eq!(written(SysReg::CpacrEl1, u64::MAX), cpacr::FPEN);
    assert_eq!(written(SysReg::VbarEl1, u64::MAX), !0x7ff);
    assert_eq!(written(SysReg::ContextidrEl1, u64::MAX), 0xffff_ffff);
    assert_eq!(written(SysReg::CsselrEl1, u64::MAX), 0xf);
    assert_eq!(written(SysReg::SpsrEl1, u64::MAX), 0xf0f0_13df);
    assert_eq!(written(SysReg::CntkctlEl1, u64::MAX), 0x3ff);
    assert_eq!(written(SysReg::Ttbr0El1, u64::MAX), u64::MAX);
    assert_eq!(written(SysReg::AmairEl1, u64::MAX), 0);
    assert_eq!(written(SysReg::ActlrEl1, u64::MAX), 0);
    let mut a53 = Cpu::new("cortex-a53", 1);
    a53.set(SysReg::Ttbr0El1, u64::MAX).unwrap();
    assert_eq!(a53.get(SysReg::Ttbr0El1), Ok(!1), "no CnP");
    a53.set(SysReg::SctlrEl1, 0).unwrap();
    assert_eq!(a53.get(SysReg::SctlrEl1), Ok(0x30d0_0980), "SPAN is RES1 without PAN");
    let mut max = Cpu::new("max", 1);
    max.set(SysReg::TcrEl1, u64::MAX).unwrap();
    assert_ne!(max.get(SysReg::TcrEl1).unwrap() & tcr::DS, 0);
}

#[test]
fn process_state_registers() {
    let mut cpu = Cpu::n1(1);
    assert_eq!(cpu.get(SysReg::CurrentEl), Ok(4));
    assert_eq!(cpu.set(SysReg::Nzcv, u64::MAX), Ok(Effects::empty()));
    assert_eq!(cpu.get(SysReg::Nzcv), Ok(0xf000_0000));
    for (reg, bit) in [(SysReg::Pan, Pstate::PAN), (SysReg::Uao, Pstate::UAO), (SysReg::Ssbs, Pstate::SSBS)] {
        assert_eq!(cpu.set(reg, u64::MAX), Ok(Effects::PSTATE));
        assert_eq!(cpu.get(reg), Ok(u64::from(bit.bits())), "{}", reg.name());
        assert!(cpu.state.pstate.contains(bit));
        cpu.set(reg, 0).unwrap();
        assert_eq!(cpu.get(reg), Ok(0));
    }
    assert_eq!(cpu.state.pstate, Pstate::NZCV | Pstate::empty().with_el(1, true), "nothing else changed");
}

#[test]
fn stack_pointer_selection() {
    let mut cpu = Cpu::n1(1);
    cpu.state.x[31] = 0x1111;
    cpu.set(SysReg::SpEl0, 0x2222).unwrap();
    assert_eq!(cpu.state.x[31], 0x1111);
    assert_eq!(cpu.set(SysReg::SpSel, 0), Ok(Effects::PSTATE));
    assert_eq!(cpu.state.x[31], 0x2222);
    assert_eq!(cpu.get(SysReg::SpEl0), undefined(), "it is the current one");
    assert_eq!(cpu.set(SysReg::SpEl0, 0), undefined());
    cpu.state.x[31] = 0x3333;
    cpu.set(SysReg::SpSel, 1).unwrap();
    assert_eq!((cpu.state.x[31], cpu.get(SysReg::SpEl0)), (0x1111, Ok(0x3333)));
}

#[test]
fn immediate_writes_of_pstate() {
    let mut cpu = Cpu::n1(1);
    let mut w = |op1, op2, imm| pstate_write(&mut cpu.state, &cpu.model, op1, op2, imm);
    assert_eq!(w(3, 6, 0b1010), Ok(Effects::PSTATE | Effects::INTERRUPTS), "DAIFSet D, I");
    assert_eq!(w(3, 7, 0b1000), Ok(Effects::PSTATE | Effects::INTERRUPTS), "DAIFClr D");
    assert_eq!(w(0, 4, 1), Ok(Effects::PSTATE), "PAN");
    assert_eq!(w(0, 3, 1), Ok(Effects::PSTATE), "UAO");
    assert_eq!(w(3, 1, 1), Ok(Effects::PSTATE), "SSBS");
    assert_eq!(w(3, 2, 1), undefined(), "DIT");
    assert_eq!(w(3, 4, 1), undefined(), "TCO");
    assert_eq!(w(1, 0, 1), undefined(), "ALLINT");
    assert_eq!(
        cpu.state.pstate,
        Pstate::I | Pstate::PAN | Pstate::UAO | Pstate::SSBS | Pstate::empty().with_el(1, true)
    );
    cpu.state.sp_el[0] = 0x40;
    pstate_write(&mut cpu.state, &cpu.model, 0, 5, 0).unwrap();
    assert_eq!(cpu.state.x[31], 0x40, "SPSel");
}

#[test]
fn immediate_writes_of_pstate_at_el0() {
    let mut cpu = Cpu::n1(0).with(SysReg::SctlrEl1, 0);
    let mut w = |op1, op2, imm| pstate_write(&mut cpu.state, &cpu.model, op1, op2, imm);
    assert_eq!(w(3, 6, 2), Err(Exception::pstate_trap(3, 6, 2)));
    assert_eq!(w(3, 7, 15), Err(Exception::pstate_trap(3, 7, 15)));
    for op2 in 3..6 {
        assert_eq!(w(0, op2, 1), undefined());
    }
    assert_eq!(w(3, 1, 1), Ok(Effects::PSTATE));
    let mut cpu = cpu.with(SysReg::SctlrEl1, sctlr::UMA);
    assert!(pstate_write(&mut cpu.state, &cpu.model, 3, 6, 2).is_ok());
    assert!(cpu.state.pstate.contains(Pstate::I));
}

#[test]
fn external_registers_get_through() {
    let mut cpu = Cpu::n1(1);
    assert_eq!(cpu.get(SysReg::IccIar1El1), Ok(u64::from(SysReg::IccIar1El1.encoding()) | 2 << 32));
    assert_eq!(cpu.set(SysReg::IccEoir1El1, 30), Ok(Effects::INTERRUPTS));
    assert_eq!(cpu.set(SysReg::CntvCvalEl0, 7), Ok(Effects::INTERRUPTS));
    assert_eq!(cpu.get(SysReg::IccEoir1El1), undefined());
    assert_eq!(cpu.set(SysReg::IccIar1El1, 0), undefined());
    // The timers are told of CNTKCTL_EL1, reserved bits cleared.
    assert_eq!(cpu.set(SysReg::CntkctlEl1, u64::MAX), Ok(Effects::empty()));
    assert_eq!(cpu.get(SysReg::CntkctlEl1), Ok(0x3ff));
    let writes = cpu.ext.0.into_inner().unwrap();
    let expected =
        [(2, SysReg::IccEoir1El1, 30), (2, SysReg::CntvCvalEl0, 7), (2, SysReg::CntkctlEl1, 0x3ff)];
    assert_eq!(writes, expected);
}

#[test]
fn effects_of_writes() {
    let mut cpu = Cpu::n1(1);
    for (reg, effects) in [
        (SysReg::SctlrEl1, Effects::TRANSLATION),
        (SysReg::TcrEl1, Effects::TRANSLATION),
        (SysReg::Ttbr0El1, Effects::TRANSLATION),
        (SysReg::Ttbr1El1, Effects::TRANSLATION),
        (SysReg::MairEl1, Effects::TRANSLATION),
        (SysReg::CpacrEl1, Effects::FP),
        (SysReg::MdscrEl1, Effects::DEBUG),
        (SysReg::OslarEl1, Effects::DEBUG),
        (SysReg::Dbgbcr0El1, Effects::DEBUG),
        (SysReg::Dbgwvr0El1, Effects::DEBUG),
        (SysReg::TpidrEl0, Effects::empty()),
        (SysReg::ElrEl1, Effects::empty()),
        (SysReg::VbarEl1, Effects::empty()),
    ] {
        assert_eq!(cpu.set(reg, 0), Ok(effects), "{}", reg.name());
    }
}

#[test]
fn debug_registers() {
    let mut cpu = Cpu::n1(1);
    assert_eq!(cpu.get(SysReg::OslsrEl1), Ok(0xa), "locked at reset");
    cpu.set(SysReg::MdscrEl1, u64::MAX).unwrap();
    assert_eq!(cpu.get(SysReg::MdscrEl1), Ok(0x6cc0_f041), "all of it while locked");
    cpu.set(SysReg::OslarEl1, 0).unwrap();
    assert_eq!(cpu.get(SysReg::OslsrEl1), Ok(0x8));
    cpu.set(SysReg::MdscrEl1, 0).unwrap();
    assert_eq!(cpu.get(SysReg::MdscrEl1), Ok(0x6c00_4040), "what mirrors external debug stays");
    cpu.set(SysReg::DbgclaimsetEl1, 0x1ff).unwrap();
    cpu.set(SysReg::DbgclaimclrEl1, 0x0f).unwrap();
    assert_eq!(cpu.get(SysReg::DbgclaimclrEl1), Ok(0xf0));
    assert_eq!(cpu.get(SysReg::DbgclaimsetEl1), Ok(0xff));
    cpu.set(SysReg::Dbgwvr0El1, u64::MAX).unwrap();
    assert_eq!(cpu.get(SysReg::Dbgwvr0El1), Ok(!3));
}

#[test]
fn cache_geometry_by_selection() {
    let mut cpu = Cpu::n1(1);
    let mut geometry = |csselr| {
        cpu.set(SysReg::CsselrEl1, csselr).unwrap();
        cpu.get(SysReg::CcsidrEl1).unwrap()
    };
    assert_eq!(geometry(0), 255 << 13 | 3 << 3 | 2);
    assert_eq!(geometry(2), 2047 << 13 | 7 << 3 | 2);
    assert_eq!(geometry(8), 0);
    assert_eq!(cpu.get(SysReg::Ccsidr2El1), undefined(), "needs FEAT_CCIDX");
}

#[test]
fn every_encoding_has_an_answer() {
    for name in ["neoverse-n1", "cortex-a53", "max"] {
        for el in 0..2 {
            let mut cpu = Cpu::new(name, el);
            for enc in 0x8000..=0xffff {
                let known = lookup(enc).is_some_and(|r| cpu.model.has(r.feature()));
                let found = cpu.raw(enc);
                if !known && el == 0 {
                    let trap = Err(Exception::system_register_trap(enc, 3, true));
                    assert!(found == undefined() || (name == "max" && found == trap), "{enc:#x}");
                }
                let _ = write(&mut cpu.state, &cpu.model, &cpu.ext, enc, 0, u64::MAX);
                cpu.state.set_pstate(Pstate::empty().with_el(el, el > 0));
            }
            assert!(cpu.model.has(Feature::Base));
        }
    }
}

#[test]
fn inspection_shows_all_that_can_be_read_at_any_level_and_changes_nothing() {
    for name in ["neoverse-n1", "max", "cortex-a53"] {
        let mut cpu = Cpu::new(name, 0);
        cpu.state.pstate |= Pstate::NZCV;
        let before = format!("{:?}", cpu.state);
        let registers = inspectable(&cpu.model);
        let names: Vec<_> = registers.iter().map(|r| r.name()).collect();
        for name in ["SCTLR_EL1", "TTBR0_EL1", "ESR_EL1", "SP_EL0", "SP_EL1", "ID_AA64PFR0_EL1", "CNTVCT_EL0"]
        {
            assert!(names.contains(&name), "{name}");
        }
        for name in ["ICC_IAR1_EL1", "ICC_EOIR1_EL1", "RNDR", "OSLAR_EL1", "FPCR"] {
            assert!(!names.contains(&name), "{name}");
        }
        let values: Vec<_> =
            registers.iter().map(|&r| inspect(&cpu.state, &cpu.model, &cpu.ext, r)).collect();
        assert_eq!(format!("{:?}", cpu.state), before);
        assert!(cpu.ext.0.lock().unwrap().is_empty());
        // What MRS reads at EL1 is what is shown.
        cpu.state.set_pstate(cpu.state.pstate.with_el(1, true));
        for (reg, value) in registers.iter().zip(values) {
            if let Inspected::Register(r) = *reg
                && !matches!(r, SysReg::CurrentEl | SysReg::SpSel | SysReg::DczidEl0)
            {
                assert_eq!(cpu.get(r), Ok(value), "{}", reg.name());
            }
        }
    }
}

#[test]
fn inspection_changes_what_can_be_written() {
    let mut cpu = Cpu::n1(0);
    let set = |cpu: &mut Cpu, reg, value| modify(&mut cpu.state, &cpu.model, &cpu.ext, reg, value);
    assert!(set(&mut cpu, Inspected::Register(SysReg::VbarEl1), 0x1234_5fff));
    assert_eq!(cpu.state.sys[SysReg::VbarEl1], 0x1234_5800);
    // At EL0, SP is SP_EL0.
    assert!(set(&mut cpu, Inspected::Register(SysReg::SpEl0), 16));
    assert!(set(&mut cpu, Inspected::SpEl1, 32));
    assert_eq!((cpu.state.x[31], cpu.state.sp_el[0], cpu.state.sp_el[1]), (16, 16, 32));
    cpu.state.set_pstate(Pstate::empty().with_el(1, true));
    assert_eq!(cpu.state.x[31], 32);
    cpu.state.x[31] = 48;
    assert_eq!(inspect(&cpu.state, &cpu.model, &cpu.ext, Inspected::SpEl1), 48);
    assert_eq!(inspect(&cpu.state, &cpu.model, &cpu.ext, Inspected::Register(SysReg::SpEl0)), 16);
    assert!(set(&mut cpu, Inspected::Register(SysReg::CntvCtlEl0), 1));
    assert_eq!(*cpu.ext.0.lock().unwrap(), [(2, SysReg::CntvCtlEl0, 1)]);
    let before = format!("{:?}", cpu.state);
    for reg in inspectable(&cpu.model).into_iter().filter(|r| !r.writable()) {
        assert!(!set(&mut cpu, reg, !0), "{}", reg.name());
    }
    assert_eq!(format!("{:?}", cpu.state), before);
}
