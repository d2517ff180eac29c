//! Programs that have once gone wrong.
#![cfg(target_arch = "x86_64")]

use std::sync::Arc;

use armlet_accel_jit::{JitAccelerator, JitOptions};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, CpuState, SysReg};
use armlet_engine::{Accelerator, VcpuBackend, VcpuExit, VcpuShared};
use armlet_memory::{AddressSpaceBuilder, Ram};

struct NoRegisters;

impl ExternalRegisters for NoRegisters {
    fn read(&self, _cpu: usize, _reg: SysReg) -> u64 {
        0
    }
    fn write(&self, _cpu: usize, _reg: SysReg, _value: u64) {}
}

const ENTRY: u64 = 0x4000_0000;
const HLT: u32 = 0xd45e_0000;

/// The state after `words`, which end with HLT, from `x`.
fn run(words: &[u32], strict: bool, x: &[(usize, u64)]) -> CpuState {
    let ram = Ram::new(ENTRY, 1 << 20).expect("the host has a megabyte");
    for (i, word) in words.iter().enumerate() {
        ram.write(ENTRY + 4 * i as u64, &word.to_le_bytes()).expect("fits");
    }
    let memory = Arc::new(AddressSpaceBuilder::new(ram).build());
    let model = Arc::new(CpuModel::by_name("neoverse-n1").expect("the default model exists"));
    let options = JitOptions { code_size: 1 << 20, strict, ..JitOptions::default() };
    let jit = JitAccelerator::new(memory, model.clone(), Arc::new(NoRegisters), 2, options);
    let jit = jit.expect("the host can run it");
    let mut state = model.reset_state(0, armlet_arm::model::mpidr(0));
    state.pc = ENTRY;
    for (register, value) in x {
        state.x[*register] = *value;
    }
    let mut cpu = jit.create_vcpu(Arc::new(VcpuShared::new(0)), state).expect("a vCPU can be made");
    assert!(matches!(cpu.run(), VcpuExit::Semihosting));
    VcpuBackend::state(&*cpu).clone()
}

#[test]
fn a_register_may_be_base_and_index_at_once() {
    // ldr x0, [x20, x20]; ldr x1, [x20, x20, lsl #3]; the base is half of the address, or a ninth.
    for (word, x20) in [(0xf874_6a80, (ENTRY + 0x800) / 2), (0xf874_7a80, (ENTRY + 0x800) / 9 / 8 * 8)] {
        let address = if word == 0xf874_6a80 { 2 * x20 } else { 9 * x20 };
        let mut words = [0u32; 0x400];
        (words[0], words[1]) = (word, HLT);
        words[((address - ENTRY) / 4) as usize] = 0x1234;
        assert_eq!(run(&words, false, &[(20, x20)]).x[0], 0x1234);
    }
}

#[test]
fn an_atomic_may_write_to_its_own_page_while_code_is_tracked() {
    // br x3; ldadd x21, x22, [x20]; hlt. The atomic is the first of its block.
    let mut words = [0u32; 64];
    (words[0], words[1], words[2]) = (0xd61f_0060, 0xf835_0296, HLT);
    words[32] = 5;
    let at = ENTRY + 4 * 32;
    let s = run(&words, true, &[(3, ENTRY + 4), (20, at), (21, 3)]);
    assert_eq!(s.x[22], 5);
}
