//! Any instructions on any state: the IR interpreter and host code come to the same, and nothing panics.
//!
//! An input is a choice of CPU model and of how the translator works, the seed of a state, and instructions: raw words,
//! or an encoding with its fields filled. At EL0 the results are compared up to the exception that ends them; at EL1,
//! where everything is allowed, only survival counts.

use std::cell::RefCell;
use std::sync::Arc;

use armlet_accel_jit::ir::interp::{Exit, Machine, SystemOp};
use armlet_accel_jit::ir::{Hint, Mem, Raise};
use armlet_accel_jit::{JitAccelerator, JitOptions};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{Class, CpuModel, CpuState, Enc, Feature, FeatureSet, Pstate, SysReg, decode};
use armlet_conform::interp::{Fault, Memory, step};
use armlet_conform::random::Random;
use armlet_engine::{Accelerator, InstructionCount, VcpuBackend, VcpuExit, VcpuShared};
use armlet_memory::{AddressSpace, AddressSpaceBuilder, Ram};

use crate::input::Input;

/// Guest-physical address of virtual address 0.
const BASE: u64 = 0x4000_0000;
const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
/// Two pages of code, filled with SVC.
const CODE: u64 = 0x40_0000;
const CODE_SIZE: usize = 2 * PAGE as usize;
/// Two pages of data, with their places in memory swapped.
const DATA: u64 = 0x80_0000;
const DATA_SIZE: usize = 2 * PAGE as usize;
/// The EL1 vectors, each a semihosting call.
const VECTORS: u64 = 0x60_0000;
/// Tables of levels 1 and 2, and of level 3 for code and for data.
const TABLES: u64 = 0xa0_0000;
const RAM: u64 = 0xc0_0000;
const SVC: u32 = 0xd400_0001;
const HLT_SEMIHOSTING: u32 = 0xd45e_0000;
/// Instructions that one run has at most.
const LONGEST: u64 = 300;

/// No device has system registers here.
struct NoExternal;

impl ExternalRegisters for NoExternal {
    fn read(&self, _: usize, _: SysReg) -> u64 {
        0
    }
    fn write(&self, _: usize, _: SysReg, _: u64) {}
}

/// How the translator works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One vCPU.
    Single,
    /// One of several vCPUs.
    Several,
    /// Counting instructions.
    Counting,
}

/// A CPU model and a vCPU of it.
struct Bench {
    model: Arc<CpuModel>,
    memory: Arc<AddressSpace>,
    counter: Option<Arc<InstructionCount>>,
    vcpu: Box<dyn VcpuBackend>,
    /// Tables and vectors may have been written to.
    stale: bool,
}

thread_local! {
    static BENCHES: RefCell<[Option<Bench>; 6]> = const { RefCell::new([const { None }; 6]) };
}

/// One input, understood.
struct Program {
    el: usize,
    entry: u64,
    code: Vec<u8>,
    state: CpuState,
    data: Vec<u8>,
    /// At which count a counted run makes a pause.
    pause: u64,
}

/// How a run ended: class of the exception and PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Exception(u64, u64),
    /// A load or store that faulted; which fault it is depends on the order of checks.
    Access(u64),
    /// Still running, at this address.
    Running(u64),
}

/// Runs one input.
///
/// # Panics
/// The executors disagree.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.u8();
    BENCHES.with_borrow_mut(|benches| {
        let number = usize::from(choice) % 6;
        let bench = benches[number].get_or_insert_with(|| Bench::new(number));
        let program = Program::new(bench, choice / 6, &mut input);
        bench.check(&program);
    });
}

impl Bench {
    fn new(number: usize) -> Self {
        let name = ["neoverse-n1", "max"][number % 2];
        let way = [Way::Single, Way::Several, Way::Counting][number / 2];
        let model = Arc::new(CpuModel::by_name(name).expect("the model exists"));
        let ram = Ram::new(BASE, RAM).expect("memory for a guest");
        let memory = Arc::new(AddressSpaceBuilder::new(ram).build());
        let counter = (way == Way::Counting).then(|| Arc::new(InstructionCount::default()));
        let options = JitOptions { code_size: 4 << 20, counter: counter.clone(), ..Default::default() };
        let vcpus = if way == Way::Several { 2 } else { 1 };
        let jit = JitAccelerator::new(memory.clone(), model.clone(), Arc::new(NoExternal), vcpus, options);
        let jit = jit.expect("the host can run translated code");
        let state = model.reset_state(0, armlet_arm::model::mpidr(0));
        let vcpu = jit.create_vcpu(Arc::new(VcpuShared::new(0)), state).expect("memory for code");
        Self { model, memory, counter, vcpu, stale: true }
    }

    /// Tables, vectors, code and data, as if nothing had ever run.
    fn load(&mut self, p: &Program) {
        let write = |va: u64, bytes: &[u8]| self.memory.ram().write(BASE + va, bytes).expect("in memory");
        if self.stale {
            let vectors: Vec<u8> = [HLT_SEMIHOSTING; 512].iter().flat_map(|w| w.to_le_bytes()).collect();
            write(VECTORS, &vectors);
            for (at, table) in tables() {
                write(at, &table);
            }
        }
        write(CODE, &p.code);
        write(DATA + PAGE, &p.data[..PAGE as usize]);
        write(DATA, &p.data[PAGE as usize..]);
        self.stale = p.el == 1;
    }

    fn data(&self) -> Vec<u8> {
        let mut data = vec![0; DATA_SIZE];
        let (low, high) = data.split_at_mut(PAGE as usize);
        self.memory.ram().read(BASE + DATA + PAGE, low).expect("in memory");
        self.memory.ram().read(BASE + DATA, high).expect("in memory");
        data
    }

    fn check(&mut self, p: &Program) {
        self.load(p);
        self.vcpu.reset(p.state.clone());
        if p.el == 1 {
            self.survive();
            return;
        }
        let Some(expected) = Expected::new(&self.model, p) else {
            self.survive();
            return;
        };
        match expected.end {
            End::Running(_) if self.counter.is_none() => {}
            End::Running(_) => {
                let end = self.run_for(LONGEST);
                self.compare(&expected, end);
            }
            _ => {
                let _ = self.run_for(p.pause % (expected.steps + 1));
                let end = self.run_for(LONGEST + 16);
                self.compare(&expected, end);
            }
        }
    }

    /// Runs what nobody predicts, if it is sure to end.
    fn survive(&mut self) {
        if self.counter.is_some() {
            let _ = self.run_for(LONGEST);
        }
    }

    /// Runs to an exception, or in a counted run at most for `count` instructions.
    fn run_for(&mut self, count: u64) -> Option<u64> {
        let limit = self.counter.as_ref().map(|c| c.now() + count);
        for _ in 0..2 * LONGEST {
            let exit = match limit {
                Some(limit) => self.vcpu.run_until(limit),
                None if count <= LONGEST => return None,
                None => self.vcpu.run(),
            };
            match exit {
                VcpuExit::Semihosting => return Some(self.vcpu.state().sys[SysReg::EsrEl1]),
                VcpuExit::Halted(_) | VcpuExit::HaltedFor(..) | VcpuExit::Hypercall(_) => {}
                VcpuExit::Kicked => return None,
                other => panic!("the run left with {other:?}"),
            }
        }
        None
    }

    fn compare(&self, expected: &Expected, esr: Option<u64>) {
        let got = self.vcpu.state();
        let want = &expected.cpu;
        let elr = got.sys[SysReg::ElrEl1];
        let (end, sp, flags) = match esr {
            Some(esr) => (end_of(esr, elr), got.sp_el[0], got.sys[SysReg::SpsrEl1] as u32),
            None => (End::Running(got.pc), got.x[31], got.pstate.bits()),
        };
        assert_eq!(end, expected.end, "how it ended, by host code and by the interpreter");
        for n in 0..31 {
            assert_eq!(got.x[n], want.x[n], "X{n} by host code and by the interpreter");
        }
        assert_eq!(sp, want.x[31], "SP");
        assert_eq!(flags & 0xf000_0000, want.pstate.bits() & 0xf000_0000, "NZCV");
        for n in 0..32 {
            assert_eq!(got.v[n], want.v[n], "V{n}");
        }
        assert_eq!(got.fp.fpcr, want.fp.fpcr, "FPCR");
        assert_eq!(got.fp.fpsr, want.fp.fpsr, "FPSR");
        assert!(self.data() == expected.data, "memory differs");
    }
}

/// What a program at EL0 sees of memory: its data, and its code to read.
struct View<'a> {
    data: &'a mut [u8],
    code: &'a [u8],
    features: &'a FeatureSet,
}

impl View<'_> {
    /// The address without its tag, if it is aligned as the access has to be.
    fn place(&self, address: u64, bytes: usize, mem: Mem) -> Result<u64, Fault> {
        let at = ((address << 8) as i64 >> 8) as u64;
        let lse2 = self.features.has(Feature::Lse2);
        if mem.may_be_at(at, bytes as u64, lse2) { Ok(at) } else { Err(Fault::Alignment) }
    }
}

fn stretch(start: u64, length: usize, at: u64, bytes: usize) -> Option<std::ops::Range<usize>> {
    let offset = usize::try_from(at.checked_sub(start)?).ok()?;
    let end = offset.checked_add(bytes)?;
    (end <= length).then_some(offset..end)
}

impl Machine for View<'_> {
    type Fault = Fault;

    fn read(&mut self, address: u64, buf: &mut [u8], mem: Mem) -> Result<(), Fault> {
        let at = self.place(address, buf.len(), mem)?;
        let from = if let Some(range) = stretch(DATA, self.data.len(), at, buf.len()) {
            &self.data[range]
        } else if let Some(range) = stretch(CODE, self.code.len(), at, buf.len()) {
            &self.code[range]
        } else {
            return Err(Fault::Address(at));
        };
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write(&mut self, address: u64, data: &[u8], mem: Mem) -> Result<(), Fault> {
        let at = self.place(address, data.len(), mem)?;
        let range = stretch(DATA, self.data.len(), at, data.len()).ok_or(Fault::Address(at))?;
        self.data[range].copy_from_slice(data);
        Ok(())
    }

    fn system(&mut self, cpu: &mut CpuState, op: SystemOp) -> Result<u64, Fault> {
        // Keys are the conformance tests' own.
        if matches!(op, SystemOp::Sys { .. } | SystemOp::Pauth { .. }) {
            return Err(Fault::Unknown);
        }
        let mut registers =
            Memory { at: 0, bytes: &mut [], code: &[], features: self.features, journal: None };
        registers.system(cpu, op)
    }
}

/// What the interpreter comes to.
struct Expected {
    end: End,
    cpu: CpuState,
    data: Vec<u8>,
    steps: u64,
}

impl Expected {
    /// `None` if the program does what the interpreter's tests leave out.
    fn new(model: &CpuModel, p: &Program) -> Option<Self> {
        let mut cpu = p.state.clone();
        let mut data = p.data.clone();
        for steps in 0..LONGEST {
            let Some(offset) = inside(cpu.pc) else {
                // PC alignment is checked before the fetch is translated.
                let ec = if cpu.pc.is_multiple_of(4) { 0x20 } else { 0x22 };
                return Some(Self { end: End::Exception(ec, cpu.pc), cpu, data, steps });
            };
            let word = u32::from_le_bytes(p.code[offset..offset + 4].try_into().ok()?);
            // An atomic instruction needs write permission even if it writes nothing.
            let code: &[u8] = if is_atomic(word) { &[] } else { &p.code };
            let mut memory = View { data: &mut data, code, features: model.features() };
            let end = match step(model.features(), &mut cpu, &mut memory, word) {
                Exit::Goto | Exit::Hint(Hint::Yield | Hint::Wfe | Hint::Wfi | Hint::Sev | Hint::Sevl) => {
                    // The lower half's top byte is ignored (TBI0).
                    cpu.pc &= if cpu.pc >> 55 & 1 == 0 { u64::MAX >> 8 } else { u64::MAX };
                    continue;
                }
                Exit::Raise(raise) => End::Exception(class(raise)?, cpu.pc + returns_behind(raise)),
                Exit::Fault(Fault::Address(_) | Fault::Alignment) => End::Access(cpu.pc),
                _ => return None,
            };
            return Some(Self { end, cpu, data, steps });
        }
        Some(Self { end: End::Running(cpu.pc), cpu, data, steps: LONGEST })
    }
}

fn is_atomic(word: u32) -> bool {
    let atomic = |e: Enc| matches!(e.class(), Class::Comswap | Class::Comswappr | Class::Memop);
    decode(word).is_some_and(|e| atomic(e) && !e.mnemonic().starts_with("LDAPR"))
}

fn inside(pc: u64) -> Option<usize> {
    let offset = pc.checked_sub(CODE)?;
    (pc.is_multiple_of(4) && offset < CODE_SIZE as u64).then_some(offset as usize)
}

/// ESR_EL1.EC of an exception.
fn class(raise: Raise) -> Option<u64> {
    Some(match raise {
        // HVC and SMC are undefined at EL0.
        Raise::Undefined | Raise::Hvc(_) | Raise::Smc(_) => 0,
        Raise::Svc(_) => 0x15,
        Raise::Brk(_) => 0x3c,
        Raise::PcAlignment => 0x22,
        // HLT is undefined but for a semihosting call.
        Raise::Hlt(imm) if imm != 0xf000 => 0,
        _ => return None,
    })
}

fn returns_behind(raise: Raise) -> u64 {
    if matches!(raise, Raise::Svc(_)) { 4 } else { 0 }
}

fn end_of(esr: u64, elr: u64) -> End {
    match esr >> 26 & 0x3f {
        0x24 | 0x25 => End::Access(elr),
        class => End::Exception(class, elr),
    }
}

/// Page tables, each with its place: code to read and execute, data to read and write, the vectors for EL1.
fn tables() -> [(u64, Vec<u8>); 4] {
    const PXN: u64 = 1 << 53;
    const UXN: u64 = 1 << 54;
    // Valid page or block, inner shareable, access flag set; for EL0 too; read-only.
    const BLOCK_ENTRY: u64 = 1 | 3 << 8 | 1 << 10;
    const EL0: u64 = 1 << 6;
    const READ_ONLY: u64 = 1 << 7;
    let mut t = [[0u64; 512]; 4];
    let at = |n: u64| TABLES + n * PAGE;
    let entry = |n: u64| (BASE + at(n)) | 3;
    t[0][0] = entry(1);
    t[1][(CODE / BLOCK) as usize] = entry(2);
    t[1][(DATA / BLOCK) as usize] = entry(3);
    t[1][(VECTORS / BLOCK) as usize] = (BASE + VECTORS) | BLOCK_ENTRY | READ_ONLY | UXN;
    let (code, data) = (BASE + CODE, BASE + DATA);
    let page = BLOCK_ENTRY | 2 | EL0;
    t[2][..2].copy_from_slice(&[code, code + PAGE].map(|pa| pa | page | READ_ONLY));
    t[3][..2].copy_from_slice(&[data + PAGE, data].map(|pa| pa | page | PXN | UXN));
    let mut number = 0;
    t.map(|table| {
        number += 1;
        (at(number - 1), table.iter().flat_map(|e| e.to_le_bytes()).collect())
    })
}

impl Program {
    fn new(bench: &Bench, choice: u8, input: &mut Input<'_>) -> Self {
        let el = usize::from(choice & 7 == 7 && bench.counter.is_some());
        // In the middle of a page, or so that it goes on in the next.
        let entry = CODE + [0, PAGE - 32][usize::from(choice >> 3 & 1)];
        let mut r = Random::new(&[input.u32().into()]);
        let pause = r.below(LONGEST);
        let mut state = initial_state(&bench.model, el, entry);
        randomise(&mut state, &mut r);
        let pattern: Vec<u8> = (0..32).flat_map(|_| r.vector().to_le_bytes()).collect();
        let data = pattern.repeat(DATA_SIZE / pattern.len());
        let mut code: Vec<u8> = SVC.to_le_bytes().repeat(CODE_SIZE / 4);
        let mut at = (entry - CODE) as usize;
        while !input.is_empty() && at < CODE_SIZE {
            code[at..at + 4].copy_from_slice(&instruction(input).to_le_bytes());
            at += 4;
        }
        Self { el, entry, code, state, data, pause }
    }
}

/// The instructions of an input.
pub fn describe(bytes: &[u8]) -> String {
    let mut input = Input::new(bytes);
    let choice = input.u8();
    let p = Program::new(&Bench::new(usize::from(choice) % 6), choice / 6, &mut input);
    let at = (p.entry - CODE) as usize;
    let words = p.code[at..].chunks(4).take_while(|w| *w != SVC.to_le_bytes());
    let words: Vec<String> = words
        .map(|w| {
            let word = w.iter().rev().fold(0, |v, &b| v << 8 | u32::from(b));
            format!("{word:08x} {}", decode(word).map_or("-", Enc::name))
        })
        .collect();
    format!("bench {} at EL{}, {:#x}: {}", choice % 6, p.el, p.entry, words.join(", "))
}

fn initial_state(model: &CpuModel, el: usize, entry: u64) -> CpuState {
    let mut cpu = model.reset_state(0, armlet_arm::model::mpidr(0));
    cpu.sys[SysReg::MairEl1] = 0xff;
    // 39-bit addresses below, nothing above, write-back shareable walks, top byte ignored.
    cpu.sys[SysReg::TcrEl1] = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 1 << 37;
    cpu.sys[SysReg::Ttbr0El1] = BASE + TABLES;
    cpu.sys[SysReg::VbarEl1] = VECTORS;
    cpu.sys[SysReg::CpacrEl1] = 3 << 20;
    // MMU and caches on, what Linux allows EL0, no check of SP's alignment.
    let on = 1 | 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 23 | 1 << 26;
    cpu.sys[SysReg::SctlrEl1] = (cpu.sys[SysReg::SctlrEl1] | on) & !(1 << 1 | 1 << 3 | 1 << 4 | 1 << 19);
    cpu.set_pstate(Pstate::from_bits_retain(0).with_el(el, el == 1));
    cpu.pc = entry;
    cpu
}

fn randomise(cpu: &mut CpuState, r: &mut Random) {
    for x in &mut cpu.x {
        *x = r.integer();
    }
    for n in [0, 1, 19, 20, 29, 31] {
        let misaligned = if n != 31 && r.one_in(4) { r.below(16) } else { 0 };
        let tag = if n != 31 && r.one_in(8) { r.next() << 56 } else { 0 };
        cpu.x[n] = (DATA + PAGE + r.of(&[16, 256, 2048]) - r.below(32) * 16 + misaligned) | tag;
    }
    for n in [2, 3, 8] {
        cpu.x[n] = (r.below(64) as i64 - 32) as u64;
    }
    cpu.x[30] = CODE + r.below(64) * 4;
    for v in &mut cpu.v {
        *v = r.vector();
    }
    let flags = Pstate::from_bits_retain((r.next() as u32) << 28);
    cpu.pstate |= flags;
    if r.one_in(3) {
        cpu.fp.fpcr = r.next() as u32 & (3 << 22 | armlet_conform::interp::FPCR_SPECIAL);
    }
    if r.one_in(8) {
        cpu.fp.fpsr = r.next() as u32 & 0x0800_009f;
    }
}

/// The next instruction: a raw word, or an encoding of the table with its other bits filled.
fn instruction(input: &mut Input<'_>) -> u32 {
    let kind = input.u8();
    if kind & 15 == 0 {
        return input.u32();
    }
    let enc = Enc::all()[usize::from(input.u16()) % Enc::all().len()];
    let mut word = enc.value() | (input.u32() & !enc.mask());
    let loads_or_stores = word >> 25 & 5 == 4;
    if loads_or_stores && kind & 16 == 0 {
        // A base register that points to the data, and a small offset.
        let base = [0, 1, 19, 20, 29, 31][usize::from(kind >> 5) % 6];
        word = word & !(31 << 5) | base << 5;
        if word >> 27 & 7 == 7 && word >> 24 & 3 == 1 {
            word &= !(0xfc0 << 10);
        }
    }
    let near = match word >> 24 {
        // B, BL; B.cond, CBZ, CBNZ; TBZ, TBNZ: nearby.
        0x14..=0x17 | 0x94..=0x97 => Some(word & !0x3ff_fff0),
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Some(word & !0xff_fe00),
        0x36 | 0x37 | 0xb6 | 0xb7 => Some(word & !0x7_fe00),
        _ => None,
    };
    match near {
        Some(near) if kind & 16 == 0 && decode(near) == decode(word) => near,
        _ => word,
    }
}
