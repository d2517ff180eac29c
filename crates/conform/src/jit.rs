//! The other executor under test: host code, made by the JIT accelerator and run by one of its vCPUs, with the MMU
//! on, at EL0, exactly as a guest's program would run.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use armlet_accel_jit::mistake::{Kind, Mistake};
use armlet_accel_jit::{JitAccelerator, JitOptions};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, CpuState, Pstate, SysReg};
use armlet_engine::{Accelerator, InstructionCount, VcpuExit, VcpuShared};
use armlet_memory::{AddressSpace, AddressSpaceBuilder, Ram};

use crate::program::{EDGE_READ, EDGE_SIZE, EDGE_WRITE, PAGE};
use crate::record::{self, ESR, Record};
use crate::{Case, asm, keys, program};

/// Guest-physical address of virtual address 0.
const BASE: u64 = 0x4000_0000;
/// Virtual address of the EL1 vectors, in a 2 MiB block of their own.
const VECTORS: u64 = 0x60_0000;
/// Offset of the level 0 table behind [`BASE`]; those of levels 1 and 2 follow.
const TABLES: u64 = 0x1000;
/// A record's status after an exception.
const EXCEPTION: u64 = 0xe0;
const BLOCK: u64 = 2 << 20;
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
    const FAR_EL1: u32 = sys(0, 6, 0, 0);
    let mut c = vec![asm::msr(TPIDR_EL1, 0), asm::mrs(0, asm::TPIDR_EL0), asm::str(1, 0, 8)];
    c.extend([asm::mrs(1, TPIDR_EL1), asm::str(1, 0, 0)]);
    for i in (2..30).step_by(2) {
        c.push(asm::stp(i, i + 1, 0, 8 * i));
    }
    c.push(asm::str(30, 0, 8 * 30));
    for (reg, at) in [(SP_EL0, record::SP), (ELR_EL1, record::PC), (ESR_EL1, ESR), (FAR_EL1, record::FAR)] {
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
    // EC 0x15: SVC.
    c.extend([asm::ldr(1, 0, ESR), 0xd35a_fc21, 0xf100_543f]); // lsr x1, x1, #26; cmp x1, #0x15
    c.extend([0x5400_0041, 0xd45e_0000]); // b.ne +8; hlt #0xf000
    // To the next case, or to the end.
    let low = |address: u64| asm::movz(1, address as u32 & 0xffff, 0);
    let high = |address: u64| asm::movk(1, (address >> 16) as u32, 1);
    c.extend([asm::ldr(28, 0, record::NEXT), low(program::LOAD), high(program::LOAD)]);
    c.extend([0xb500_007c, low(program::FINISH), high(program::FINISH)]); // cbnz x28, +12
    c.extend([asm::msr(ELR_EL1, 1), asm::movz(1, 0, 0), asm::msr(SPSR_EL1, 1), 0xd69f_03e0]); // eret
    c
}

/// The vCPU's state at the first case.
fn initial_state(model: &CpuModel) -> CpuState {
    let mut cpu = model.reset_state(0, armlet_arm::model::mpidr(0));
    cpu.sys[SysReg::MairEl1] = 0xff;
    keys::give(&mut cpu);
    cpu.sys[SysReg::Ttbr0El1] = BASE + TABLES;
    cpu.sys[SysReg::VbarEl1] = VECTORS;
    cpu.sys[SysReg::CpacrEl1] = 3 << 20;
    // MMU and caches on, and what EL0 may do as under Linux; SP's alignment is not checked.
    let sctlr = cpu.sys[SysReg::SctlrEl1];
    cpu.sys[SysReg::SctlrEl1] =
        (sctlr | 1 | 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 23 | 1 << 26 | 1 << 33)
            & !(1 << 1 | 1 << 3 | 1 << 4 | 1 << 19);
    cpu.set_pstate(Pstate::from_bits_retain(0));
    cpu.pc = program::LOAD;
    cpu.x[28] = program::record_address(0);
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

/// What a leaf entry of the page tables allows besides its default.
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
/// For EL0 to read, to read and write; for EL1 to read alone.
const EL0_READ: u64 = 3 << 6;
const EL0_WRITE: u64 = 1 << 6;
const EL1_READ: u64 = 2 << 6;

/// Where things are behind the data in the guest's RAM, as offsets from [`BASE`].
struct Plan {
    /// Blocks of 2 MiB that the data has.
    blocks: u64,
    /// Tables of level 3 for the data, and one more for the edges.
    tables: u64,
    /// The pages of the edges.
    edges: u64,
    /// Bytes of RAM.
    size: u64,
}

impl Plan {
    fn new(data: usize) -> Self {
        let blocks = (data as u64).div_ceil(BLOCK);
        let tables = program::DATA + blocks * BLOCK;
        let edges = tables + (blocks + 1) * PAGE;
        Self { blocks, tables, edges, size: (edges + EDGE_SIZE).next_multiple_of(BLOCK) }
    }

    /// The tables of levels 0 to 2: code to read and execute, data to read and write, in pages, the vectors for
    /// EL1.
    fn upper(&self) -> Vec<u8> {
        let mut t = vec![0u64; 1536];
        t[0] = (BASE + TABLES + 0x1000) | 3;
        t[512] = (BASE + TABLES + 0x2000) | 3;
        let mut map = |va: u64, entry: u64| t[1024 + (va / BLOCK) as usize] = entry;
        map(program::CODE, (BASE + program::CODE) | BLOCK_ENTRY | EL0_READ | PXN);
        map(VECTORS, (BASE + VECTORS) | BLOCK_ENTRY | EL1_READ | UXN);
        for i in 0..self.blocks {
            map(program::DATA + i * BLOCK, (BASE + self.tables + i * PAGE) | 3);
        }
        map(EDGE_READ, (BASE + self.tables + self.blocks * PAGE) | 3);
        t.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    /// The tables of level 3.
    fn pages(&self) -> Vec<u8> {
        const DATA: u64 = BLOCK_ENTRY | 3 | PXN | UXN;
        let pages = (0..self.blocks * BLOCK).step_by(PAGE as usize);
        let mut t: Vec<u64> =
            pages.map(|offset| physical(program::DATA + offset) | DATA | EL0_WRITE).collect();
        let mut edges = [0; 512];
        for (va, access) in [(EDGE_READ, EL0_READ), (EDGE_WRITE, EL0_WRITE)] {
            let offset = va - EDGE_READ;
            edges[(offset / PAGE) as usize] = (BASE + self.edges + offset) | DATA | access;
        }
        t.extend(edges);
        t.into_iter().flat_map(u64::to_le_bytes).collect()
    }
}

/// The Linux signal that this exception would be.
fn status(esr: u64) -> u64 {
    match (esr >> 26, esr & 0x3f) {
        (0x3c, _) => record::SIGTRAP,
        (0x24 | 0x25, 0x21) | (0x26 | 0x22, _) => record::SIGBUS,
        (0x20 | 0x21 | 0x24 | 0x25, _) => record::SIGSEGV,
        _ => record::SIGILL,
    }
}

/// Runs the cases and returns their states afterwards.
///
/// # Errors
/// The accelerator cannot be made, or the run did not come to its end.
pub fn execute(model: &str, cases: &[Case], code: &[u8], avx512: bool) -> Result<Vec<Record>> {
    execute_by(model, cases, code, |memory, model| run(memory, model, avx512, None))
}

/// As [`execute`], with a mistake in the cases' own instructions.
///
/// # Errors
/// As [`execute`].
pub fn execute_mistaken(model: &str, cases: &[Case], code: &[u8], kind: Kind) -> Result<Vec<Record>> {
    let mistake = Mistake { from: physical(program::BODIES), kind };
    execute_by(model, cases, code, |memory, model| run(memory, model, true, Some(mistake)))
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
    let mut vcpu = jit.create_vcpu(Arc::new(VcpuShared::new(0)), initial_state(model))?;
    loop {
        let limit = counter.now() + piece();
        match vcpu.run_until(limit) {
            VcpuExit::Semihosting => break,
            VcpuExit::Kicked if counter.now() == limit => {}
            VcpuExit::Halted(_) | VcpuExit::HaltedFor(..) => {}
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
    let model = Arc::new(crate::model(model)?);
    let mut data = program::data(cases);
    // What the last SVC stores.
    let end = program::record_address(cases.len() + 1) - program::DATA;
    data.resize(data.len().max(end as usize), 0);
    let plan = Plan::new(data.len());
    if code.len() as u64 > program::CODE_SIZE || program::DATA + plan.blocks * BLOCK > EDGE_READ {
        bail!("too many cases for one run");
    }
    let ram = Ram::new(BASE, plan.size).context("no memory for the guest")?;
    let memory = AddressSpaceBuilder::new(ram).build();
    let ram = memory.ram();
    let put = |va: u64, bytes: &[u8]| ram.write(BASE + va, bytes).context("the images fit into memory");
    put(TABLES, &plan.upper())?;
    put(plan.tables, &plan.pages())?;
    put(program::CODE, code)?;
    put(program::FINISH, &words(&program::finish_by_call(cases.len())))?;
    put(VECTORS + 0x400, &words(&handler()))?;
    let [read, write] = program::edges();
    put(plan.edges, &read)?;
    put(plan.edges + EDGE_WRITE - EDGE_READ, &write)?;
    for_each_page(program::DATA, data.len(), |pa, range| {
        ram.write(pa, &data[range]).context("the data fits into memory")
    })?;
    let memory = Arc::new(memory);
    run(&memory, &model)?;
    for_each_page(program::DATA, data.len(), |pa, range| {
        memory.ram().read(pa, &mut data[range]).context("records are in memory")
    })?;
    let records = &data[(program::record_address(0) - program::DATA) as usize..];
    Ok(records.chunks(record::SIZE).take(cases.len()).map(with_status).collect())
}

/// A record, with the signal that its exception would be.
fn with_status(bytes: &[u8]) -> Record {
    let mut r = Record::from_bytes(bytes);
    if r.status == EXCEPTION {
        let at = ESR as usize;
        r.status = status(bytes[at..at + 8].iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)));
    }
    r
}

fn words(code: &[u32]) -> Vec<u8> {
    code.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn run(
    memory: &Arc<AddressSpace>,
    model: &Arc<CpuModel>,
    avx512: bool,
    mistake: Option<Mistake>,
) -> Result<()> {
    // Without AVX-512, all are of the lower half.
    let upper_first = avx512;
    let options = JitOptions { code_size: 64 << 20, avx512, upper_first, mistake, ..Default::default() };
    let jit = JitAccelerator::new(memory.clone(), model.clone(), Arc::new(NoExternal), 1, options)?;
    let shared = Arc::new(VcpuShared::new(0));
    let mut vcpu = jit.create_vcpu(shared, initial_state(model))?;
    // Each wait may end the run of translated code.
    for _ in 0..100_000 {
        match vcpu.run() {
            VcpuExit::Semihosting => return Ok(()),
            VcpuExit::Kicked | VcpuExit::Halted(_) | VcpuExit::HaltedFor(..) => {}
            other => bail!("the run left with {other:?} at {:#x}", vcpu.state().pc),
        }
    }
    bail!("the run does not end; it is at {:#x}", vcpu.state().pc)
}
