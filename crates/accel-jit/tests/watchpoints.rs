//! Watchpoints stop before the access, whatever instruction makes it, and at no other.
#![cfg(target_arch = "x86_64")]

use std::sync::Arc;

use armlet_accel_jit::{JitAccelerator, JitOptions};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, SysReg};
use armlet_engine::{Accelerator, DebugRequest, DebugStop, VcpuBackend, VcpuExit, VcpuShared, Watchpoint};
use armlet_memory::{AddressSpaceBuilder, Ram};

struct NoRegisters;

impl ExternalRegisters for NoRegisters {
    fn read(&self, _cpu: usize, _reg: SysReg) -> u64 {
        0
    }
    fn write(&self, _cpu: usize, _reg: SysReg, _value: u64) {}
}

const ENTRY: u64 = 0x4000_0000;
const DATA: u64 = ENTRY + 0x8000;

/// Instructions that access 64 bytes at X0 at most, with: the offset and length of the access, reads, writes.
const ACCESSES: [(u32, u64, u64, bool, bool); 16] = [
    (0xf940_0801, 16, 8, true, false),  // ldr x1, [x0, #16]
    (0x3900_3c1f, 15, 1, false, true),  // strb wzr, [x0, #15]
    (0xa941_0801, 16, 16, true, false), // ldp x1, x2, [x0, #16]
    (0x2902_0801, 16, 8, false, true),  // stp w1, w2, [x0, #16]
    (0x3dc0_0401, 16, 16, true, false), // ldr q1, [x0, #16]
    (0xad01_0801, 32, 32, false, true), // stp q1, q2, [x0, #32]
    (0xc85f_7c01, 0, 8, true, false),   // ldxr x1, [x0]
    (0x8801_7c02, 0, 4, false, true),   // stxr w1, w2, [x0]
    (0xc87f_0801, 0, 16, true, false),  // ldxp x1, x2, [x0]
    (0xf821_0002, 0, 8, true, true),    // ldadd x1, x2, [x0]
    (0x88a1_7c02, 0, 4, true, true),    // cas w1, w2, [x0]
    (0x4822_7c04, 0, 16, true, true),   // casp x2, x3, x4, x5, [x0]
    (0x4c40_7800, 0, 16, true, false),  // ld1 {v0.4s}, [x0]
    (0x4c00_2800, 0, 64, false, true),  // st1 {v0.4s-v3.4s}, [x0]
    (0x48df_fc01, 0, 2, true, false),   // ldarh w1, [x0]
    (0xf829_6801, 24, 8, false, true),  // str x1, [x0, x9], x9 = 24
];

struct Machine {
    _jit: JitAccelerator,
    cpu: Box<dyn VcpuBackend>,
}

/// The accesses one after the other, and a stop behind them.
fn machine() -> Machine {
    let ram = Ram::new(ENTRY, 1 << 20).expect("the host has a megabyte");
    let words = ACCESSES.iter().map(|a| a.0).chain([0xd45e_0000]); // hlt #0xf000
    for (i, word) in words.enumerate() {
        ram.write(ENTRY + 4 * i as u64, &word.to_le_bytes()).expect("fits");
    }
    let memory = Arc::new(AddressSpaceBuilder::new(ram).build());
    let model = Arc::new(CpuModel::by_name("neoverse-n1").expect("the default model exists"));
    let options = JitOptions { code_size: 1 << 20, ..JitOptions::default() };
    let jit = JitAccelerator::new(memory, model.clone(), Arc::new(NoRegisters), 2, options);
    let jit = jit.expect("the host can run it");
    let mut state = model.reset_state(0, armlet_arm::model::mpidr(0));
    state.pc = ENTRY;
    state.sys[SysReg::CpacrEl1] = 3 << 20;
    let cpu = jit.create_vcpu(Arc::new(VcpuShared::new(0)), state).expect("a vCPU can be made");
    Machine { _jit: jit, cpu }
}

impl Machine {
    /// From the start: the numbers of the instructions that were stopped at, and the addresses.
    fn stops(&mut self, watchpoint: Watchpoint) -> Vec<(usize, DebugStop)> {
        let watched = DebugRequest { watchpoints: vec![watchpoint], ..DebugRequest::default() };
        let s = self.cpu.state_mut();
        (s.pc, s.x) = (ENTRY, [0; 32]);
        (s.x[0], s.x[9]) = (DATA, 24);
        let mut stops = Vec::new();
        loop {
            self.cpu.set_debug(watched.clone()).expect("the translator can");
            match self.cpu.run() {
                VcpuExit::Semihosting => return stops,
                VcpuExit::Debug(stop) => stops.push((((self.cpu.state().pc - ENTRY) / 4) as usize, stop)),
                other => panic!("{other:?}"),
            }
            // Over it, without.
            self.cpu.set_debug(DebugRequest { step: true, ..DebugRequest::default() }).expect("it can");
            assert!(matches!(self.cpu.run(), VcpuExit::Debug(DebugStop::Step)));
            // Stores and loads must not change the pointers.
            let s = self.cpu.state_mut();
            (s.x[0], s.x[9]) = (DATA, 24);
        }
    }
}

#[test]
fn each_access_stops_exactly_where_it_is_watched() {
    let mut m = machine();
    for (read, write) in [(true, false), (false, true), (true, true)] {
        for offset in 0..64 {
            for length in [1, 2, 8, 24] {
                let address = DATA + offset;
                let stops = m.stops(Watchpoint { address, length, read, write });
                let want: Vec<(usize, DebugStop)> = ACCESSES
                    .iter()
                    .enumerate()
                    .filter(|(_, (_, at, bytes, r, w))| {
                        *at < offset + length && offset < at + bytes && (*r && read || *w && write)
                    })
                    .map(|(i, _)| i)
                    .map(|i| stops.iter().find(|s| s.0 == i).copied().unwrap_or((i, DebugStop::Step)))
                    .collect();
                assert_eq!(stops, want, "offset {offset}, {length} bytes, {read} {write}");
                for (i, stop) in &stops {
                    let DebugStop::Watchpoint { address, write } = *stop else { panic!("{stop:?} at {i}") };
                    let (_, at, bytes, _, w) = ACCESSES[*i];
                    assert!((at..at + bytes).contains(&(address - DATA)), "instruction {i}: {address:#x}");
                    assert_eq!(write, w);
                }
            }
        }
    }
}

#[test]
fn a_watched_access_has_not_happened() {
    let mut m = machine();
    let s = m.cpu.state_mut();
    (s.x[0], s.x[9]) = (DATA, 24);
    let watchpoint = Watchpoint { address: DATA + 15, length: 1, read: false, write: true };
    m.cpu
        .set_debug(DebugRequest { watchpoints: vec![watchpoint], ..DebugRequest::default() })
        .expect("it can");
    m.cpu.state_mut().x[1] = 5;
    assert!(matches!(m.cpu.run(), VcpuExit::Debug(DebugStop::Watchpoint { write: true, .. })));
    let s = m.cpu.state();
    assert_eq!((s.pc, s.x[1]), (ENTRY + 4, 0), "what is before it has happened");
    // Without a request it goes on as if nothing had been.
    m.cpu.set_debug(DebugRequest::default()).expect("it can");
    assert!(matches!(m.cpu.run(), VcpuExit::Semihosting));
}
