//! The other executor under test: host code, made by the JIT accelerator and run by one of its vCPUs, with the MMU
//! on, at EL0, exactly as a guest's program would run.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use armlet_accel_jit::{JitAccelerator, JitOptions};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, CpuState, Pstate, SysReg};
use armlet_engine::{Accelerator, InstructionCount, VcpuExit, VcpuShared};
use armlet_memory::{AddressSpace, AddressSpaceBuilder, Ram};

use crate::record::{self, Record};
use crate::{Case, asm, program};

/// Guest-physical address of virtual address 0.
const BASE: u64 = 0x4000_0000;
/// Virtual address of the EL1 vectors, in a 2 MiB block of their own.
const VECTORS: u64 = 0x60_0000;
/// Offset of the level 1 table behind [`BASE`]; the level 2 table follows.
const TABLES: u64 = 0x1000;
/// Where a record keeps ESR_EL1 after an exception.
const ESR: u32 = 0x130;
/// A record's status after an exception.
const EXCEPTION: u64 = 0xe0;
const BLOCK: u64 = 2 << 20;
const PAGE: u64 = 4096;
/// Valid, block, AttrIdx 0, inner shareable, access flag set.
const BLOCK_ENTRY: u64 = 1 | 3 << 8 | 1 << 10;

/// No device has system registers here.
struct NoExternal;

impl ExternalRegisters for NoExternal {
    fn read(&self, _: usize, _: SysReg) -> u64 {
        0
    }
    fn write(&self, _: usize, _: SysReg, _: u64) {}
}

/// System registers of the exception handler: `op0` to `op2` as in MRS.
const fn sys(op1: u16, crn: u16, crm: u16, op2: u16) -> u32 {
    armlet_arm::sysreg::encoding(3, op1, crn, crm, op2) as u32
}

/// The handler of synchronous exceptions from EL0: stores the interrupted state in the record and returns to the
/// next case; an SVC ends the run.
fn handler() -> Vec<u32> {
    const TPIDR_EL1: u32 = sys(0, 13, 0, 4);
    const SP_EL0: u32 = sys(0, 4, 1, 0);
    const SPSR_EL1: u32 = sys(0, 4, 0, 0);
    const ELR_EL1: u32 = sys(0, 4, 0, 1);
    const ESR_EL1: u32 = sys(0, 5, 2, 0);
    let mut c = vec![asm::msr(TPIDR_EL1, 0), asm::mrs(0, asm::TPIDR_EL0), asm::str(1, 0, 8)];
    c.extend([asm::mrs(1, TPIDR_EL1), asm::str(1, 0, 0)]);
    for i in (2..30).step_by(2) {
        c.push(asm::stp(i, i + 1, 0, 8 * i));
    }
    c.push(asm::str(30, 0, 8 * 30));
    for (reg, at) in [(SP_EL0, record::SP), (ELR_EL1, record::PC), (ESR_EL1, ESR)] {
        c.extend([asm::mrs(1, reg), asm::str(1, 0, at)]);
    }
    c.extend([asm::mrs(1, SPSR_EL1), asm::and_flags(1, 1), asm::str(1, 0, record::NZCV)]);
    for (reg, at) in [(asm::FPCR, record::FPCR), (asm::FPSR, record::FPSR)] {
        c.extend([asm::mrs(1, reg), asm::str(1, 0, at)]);
    }
    for i in (0..32).step_by(2) {
        c.push(asm::stp_q(i, i + 1, 0, record::V + 16 * i));
    }
    c.extend([asm::movz(1, EXCEPTION as u32, 0), asm::str(1, 0, record::STATUS)]);
    c.extend([asm::ldr(1, 0, record::NEXT), asm::msr(ELR_EL1, 1), asm::movz(1, 0, 0), asm::msr(SPSR_EL1, 1)]);
    // EC 0x15: SVC.
    c.extend([asm::ldr(1, 0, ESR), 0xd35a_fc21, 0xf100_543f]); // lsr x1, x1, #26; cmp x1, #0x15
    c.extend([0x5400_0040, 0xd69f_03e0, 0xd45e_0000]); // b.eq +8; eret; hlt #0xf000
    c
}

/// The vCPU's state at the first case's code.
fn initial_state(model: &CpuModel, entry: u64) -> CpuState {
    let mut cpu = model.reset_state(0, armlet_arm::model::mpidr(0));
    cpu.sys[SysReg::MairEl1] = 0xff;
    // 39-bit addresses below, nothing above, write-back shareable walks, top byte ignored.
    cpu.sys[SysReg::TcrEl1] = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 1 << 37;
    cpu.sys[SysReg::Ttbr0El1] = BASE + TABLES;
    cpu.sys[SysReg::VbarEl1] = VECTORS;
    cpu.sys[SysReg::CpacrEl1] = 3 << 20;
    // MMU and caches on, and what EL0 may do as under Linux; SP's alignment is not checked.
    let sctlr = cpu.sys[SysReg::SctlrEl1];
    cpu.sys[SysReg::SctlrEl1] =
        (sctlr | 1 | 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 23 | 1 << 26)
            & !(1 << 1 | 1 << 3 | 1 << 4 | 1 << 19);
    cpu.set_pstate(Pstate::from_bits_retain(0));
    cpu.pc = entry;
    cpu
}

/// Guest-physical address of a virtual one. The data's pages change places in pairs, so that what crosses from a
/// page into the next one finds it somewhere else.
fn physical(va: u64) -> u64 {
    BASE + if va >= program::DATA { va ^ PAGE } else { va }
}

/// Writes or reads the data, page by page.
fn for_each_page(
    va: u64,
    len: usize,
    mut f: impl FnMut(u64, std::ops::Range<usize>) -> Result<()>,
) -> Result<()> {
    let mut at = 0;
    while at < len {
        let here = va + at as u64;
        let end = len.min(at + (PAGE - here % PAGE) as usize);
        f(physical(here), at..end)?;
        at = end;
    }
    Ok(())
}

/// Page tables: code to read and execute, data to read and write, in pages, the vectors for EL1. The tables of
/// level 3 stand behind the data, at `last`.
fn tables(data_blocks: u64, last: u64) -> (Vec<u8>, Vec<u8>) {
    let mut t = vec![0u64; 1024];
    t[0] = (BASE + TABLES + 0x1000) | 3;
    let mut map = |va: u64, attributes: u64| {
        t[512 + (va / BLOCK) as usize] = (BASE + va) | BLOCK_ENTRY | attributes;
    };
    const PXN: u64 = 1 << 53;
    const UXN: u64 = 1 << 54;
    map(program::CODE, 3 << 6 | PXN);
    map(VECTORS, 2 << 6 | UXN);
    let first = (program::DATA / BLOCK) as usize;
    for i in 0..data_blocks {
        t[512 + first + i as usize] = (BASE + last + i * PAGE) | 3;
    }
    let pages = (0..data_blocks * BLOCK).step_by(PAGE as usize);
    let pages = pages.map(|offset| physical(program::DATA + offset) | BLOCK_ENTRY | 3 | 1 << 6 | PXN | UXN);
    let bytes = |t: &mut dyn Iterator<Item = u64>| t.flat_map(u64::to_le_bytes).collect();
    (bytes(&mut t.iter().copied()), bytes(&mut pages.into_iter()))
}

/// The Linux signal that this exception would be.
fn status(esr: u64) -> u64 {
    record::SIGNAL
        + match (esr >> 26, esr & 0x3f) {
            (0x3c, _) => 5,
            (0x24 | 0x25, 0x21) | (0x26 | 0x22, _) => 7,
            (0x20 | 0x21 | 0x24 | 0x25, _) => 11,
            _ => 4,
        }
}

/// Runs the cases and returns their states afterwards.
///
/// # Errors
/// The accelerator cannot be made, or the run did not come to its end.
pub fn execute(model: &str, cases: &[Case], code: &[u8]) -> Result<Vec<Record>> {
    execute_by(model, cases, code, run)
}

/// What a run came to that counts its instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The states afterwards.
    pub records: Vec<Record>,
    /// Instructions executed.
    pub count: u64,
    /// Hash of what they were.
    pub trace: u64,
}

/// As [`execute`], in pieces of as many instructions as `piece` says each time.
///
/// # Errors
/// As [`execute`].
pub fn execute_counted(
    model: &str,
    cases: &[Case],
    code: &[u8],
    piece: &mut dyn FnMut() -> u64,
) -> Result<Counted> {
    let (mut count, mut trace) = (0, 0);
    let records = execute_by(model, cases, code, |memory, model| {
        (count, trace) = run_counted(memory, model, piece)?;
        Ok(())
    })?;
    Ok(Counted { records, count, trace })
}

fn run_counted(
    memory: &Arc<AddressSpace>,
    model: &Arc<CpuModel>,
    piece: &mut dyn FnMut() -> u64,
) -> Result<(u64, u64)> {
    let counter = Arc::new(InstructionCount::default());
    let options = JitOptions {
        code_size: 64 << 20,
        counter: Some(Arc::clone(&counter)),
        trace: true,
        ..Default::default()
    };
    let jit = JitAccelerator::new(memory.clone(), model.clone(), Arc::new(NoExternal), 1, options)?;
    let mut vcpu =
        jit.create_vcpu(Arc::new(VcpuShared::new(0)), initial_state(model, program::first_code()))?;
    loop {
        let limit = counter.now() + piece();
        match vcpu.run_until(limit) {
            VcpuExit::Semihosting => break,
            VcpuExit::Kicked if counter.now() == limit => {}
            other => bail!("the run left with {other:?} at count {} instead of {limit}", counter.now()),
        }
        if counter.now() > 100_000_000 {
            bail!("the run does not end; it is at {:#x}", vcpu.state().pc);
        }
    }
    let trace = vcpu.statistics().into_iter().find(|(name, _)| name == "trace_hash");
    Ok((counter.now(), trace.map_or(0, |(_, value)| value)))
}

fn execute_by(
    model: &str,
    cases: &[Case],
    code: &[u8],
    run: impl FnOnce(&Arc<AddressSpace>, &Arc<CpuModel>) -> Result<()>,
) -> Result<Vec<Record>> {
    let model = Arc::new(CpuModel::by_name(model)?);
    let records: Vec<Vec<u8>> = cases
        .iter()
        .enumerate()
        .map(|(i, c)| c.record.to_bytes(program::next_code(i, cases.len())))
        // What the last SVC stores.
        .chain([vec![0; record::SIZE]])
        .collect();
    let data = program::data(&records);
    let blocks = (data.len() as u64).div_ceil(BLOCK);
    if code.len() as u64 > VECTORS - program::CODE {
        bail!("too many cases for one run");
    }
    let last = program::DATA + blocks * BLOCK;
    let size = (last + blocks * PAGE).next_multiple_of(BLOCK);
    let ram = Ram::new(BASE, size).context("no memory for the guest")?;
    let memory = AddressSpaceBuilder::new(ram).build();
    let ram = memory.ram();
    let put = |va: u64, bytes: &[u8]| ram.write(BASE + va, bytes).context("the images fit into memory");
    let (upper, pages) = tables(blocks, last);
    put(TABLES, &upper)?;
    put(last, &pages)?;
    put(program::CODE, code)?;
    put(program::FINISH, &words(&program::finish_by_call(cases.len())))?;
    put(VECTORS + 0x400, &words(&handler()))?;
    for_each_page(program::DATA, data.len(), |pa, range| {
        ram.write(pa, &data[range]).context("the data fits into memory")
    })?;
    let memory = Arc::new(memory);
    run(&memory, &model)?;
    let mut out = Vec::new();
    for i in 0..cases.len() {
        let mut bytes = vec![0; record::SIZE];
        for_each_page(program::record_address(i), record::SIZE, |pa, range| {
            memory.ram().read(pa, &mut bytes[range]).context("records are in memory")
        })?;
        let mut r = Record::from_bytes(&bytes);
        if r.status == EXCEPTION {
            let at = ESR as usize;
            r.status = status(bytes[at..at + 8].iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)));
        }
        out.push(r);
    }
    Ok(out)
}

fn words(code: &[u32]) -> Vec<u8> {
    code.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn run(memory: &Arc<AddressSpace>, model: &Arc<CpuModel>) -> Result<()> {
    let options = JitOptions { code_size: 64 << 20, ..Default::default() };
    let jit = JitAccelerator::new(memory.clone(), model.clone(), Arc::new(NoExternal), 1, options)?;
    let shared = Arc::new(VcpuShared::new(0));
    let mut vcpu = jit.create_vcpu(shared, initial_state(model, program::first_code()))?;
    for _ in 0..1000 {
        match vcpu.run() {
            VcpuExit::Semihosting => return Ok(()),
            VcpuExit::Kicked | VcpuExit::Halted(_) => {}
            other => bail!("the run left with {other:?} at {:#x}", vcpu.state().pc),
        }
    }
    bail!("the run does not end; it is at {:#x}", vcpu.state().pc)
}
