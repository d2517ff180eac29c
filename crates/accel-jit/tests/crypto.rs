//! AES, SHA1, SHA256, SHA512 and SHA3 in translated code, with and without the host's SHA and AVX-512 instructions, against
//! the plain functions of `armlet_arm::crypto`.
#![cfg(target_arch = "x86_64")]

use std::sync::Arc;

use armlet_accel_jit::{JitAccelerator, JitOptions};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuModel, SysReg, crypto};
use armlet_engine::{Accelerator, VcpuExit, VcpuShared};
use armlet_memory::{AddressSpaceBuilder, Ram};

const ENTRY: u64 = 0x4000_0000;
/// A semihosting call: ends the program.
const END: u32 = 0xd45e_0000;

struct NoRegisters;

impl ExternalRegisters for NoRegisters {
    fn read(&self, _cpu: usize, _reg: SysReg) -> u64 {
        0
    }
    fn write(&self, _cpu: usize, _reg: SysReg, _value: u64) {}
}

type Vectors = [u128; 32];

/// Opcode, and the result from the old destination and the sources.
type Instruction = (u32, fn(u128, u128, u128) -> u128);

const MOV: Instruction = (0x4ea0_1c00, |_, n, _| n);
const AESE: Instruction = (0x4e28_4800, |d, n, _| crypto::aese(d, n));
const AESMC: Instruction = (0x4e28_6800, |_, n, _| crypto::aesmc(n));
const AESD: Instruction = (0x4e28_5800, |d, n, _| crypto::aesd(d, n));
const AESIMC: Instruction = (0x4e28_7800, |_, n, _| crypto::aesimc(n));
const SHA256H: Instruction = (0x5e00_4000, crypto::sha256h);
const SHA256H2: Instruction = (0x5e00_5000, crypto::sha256h2);

const ALL: [Instruction; 20] = [
    MOV,
    AESE,
    AESMC,
    AESD,
    AESIMC,
    SHA256H,
    SHA256H2,
    (0x5e28_2800, |d, n, _| crypto::sha256su0(d, n)),
    (0x5e00_6000, crypto::sha256su1),
    (0x5e00_0000, crypto::sha1c),
    (0x5e00_1000, crypto::sha1p),
    (0x5e00_2000, crypto::sha1m),
    (0x5e00_3000, crypto::sha1su0),
    (0x5e28_0800, |_, n, _| crypto::sha1h(n)),
    (0x5e28_1800, |d, n, _| crypto::sha1su1(d, n)),
    (0xce60_8000, crypto::sha512h),
    (0xce60_8400, crypto::sha512h2),
    (0xcec0_8000, |d, n, _| crypto::sha512su0(d, n)),
    (0xce60_8800, crypto::sha512su1),
    (0xce60_8c00, |_, n, m| crypto::rax1(n, m)),
];

/// An instruction with its registers d, n, m.
#[derive(Clone, Copy)]
struct Step(Instruction, u8, u8, u8);

impl Step {
    /// Only some have a second source register (bits 20:16); MOV is ORR with its source twice.
    fn word(self) -> u32 {
        let Self((opcode, _), d, n, m) = self;
        let m = match opcode {
            0x4ea0_1c00 => n,
            _ if opcode == 0xcec0_8000 || opcode >> 24 != 0xce && opcode & 0x0028_0800 != 0 => 0,
            _ => m,
        };
        opcode | u32::from(m) << 16 | u32::from(n) << 5 | u32::from(d)
    }

    fn apply(self, v: &mut Vectors) {
        let Self((_, f), d, n, m) = self;
        v[usize::from(d)] = f(v[usize::from(d)], v[usize::from(n)], v[usize::from(m)]);
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u8 {
        ((self.next() >> 20) % n) as u8
    }

    fn vectors(&mut self) -> Vectors {
        std::array::from_fn(|_| u128::from(self.next()) << 64 | u128::from(self.next()))
    }
}

fn translated(steps: &[Step], v: Vectors, host_sha: bool, avx512: bool, upper_first: bool) -> Vectors {
    let ram = Ram::new(ENTRY, 1 << 20).expect("the host has a megabyte");
    for (i, word) in steps.iter().map(|s| s.word()).chain([END]).enumerate() {
        ram.write(ENTRY + 4 * i as u64, &word.to_le_bytes()).expect("fits");
    }
    let memory = Arc::new(AddressSpaceBuilder::new(ram).build());
    let model = Arc::new(CpuModel::by_name("max").expect("a known model"));
    let options = JitOptions { code_size: 1 << 20, host_sha, avx512, upper_first, ..JitOptions::default() };
    let mut cpu = model.reset_state(0, armlet_arm::model::mpidr(0));
    cpu.pc = ENTRY;
    cpu.v = v;
    cpu.sys[SysReg::CpacrEl1] = 3 << 20;
    let jit = JitAccelerator::new(memory, model, Arc::new(NoRegisters), 1, options).expect("a fit host");
    let mut vcpu = jit.create_vcpu(Arc::new(VcpuShared::new(0)), cpu).expect("a vCPU");
    assert!(matches!(vcpu.run(), VcpuExit::Semihosting), "stopped at {:#x}", vcpu.state().pc);
    vcpu.state().v
}

fn check(steps: &[Step], v: Vectors) {
    let mut expected = v;
    for s in steps {
        s.apply(&mut expected);
    }
    let words: Vec<String> = steps.iter().map(|s| format!("{:#010x}", s.word())).collect();
    let choices = [(true, true, false), (true, true, true), (false, true, false), (true, false, false)];
    for (host_sha, avx512, upper_first) in choices {
        let got = translated(steps, v, host_sha, avx512, upper_first);
        for i in 0..32 {
            assert_eq!(
                got[i], expected[i],
                "V{i}, host's SHA: {host_sha}, AVX-512: {avx512}, upper half first: {upper_first}, {words:?}"
            );
        }
    }
}

#[test]
fn single_instructions_with_all_overlaps_of_registers() {
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    for instruction in ALL {
        for (d, n, m) in [(0, 1, 2), (3, 3, 4), (5, 6, 5), (7, 8, 8), (9, 9, 9)] {
            let v = r.vectors();
            check(&[Step(instruction, d, n, m)], v);
        }
    }
}

#[test]
fn instructions_that_are_fused() {
    let mut r = Random(0x2545_f491_4f6c_dd1d);
    // A copy of the first half, then both halves: registers as they should be, then every kind of overlap.
    for registers in 0..4_u32.pow(4) {
        let [c, a, b, w] = std::array::from_fn(|i| (registers >> (2 * i) & 3) as u8);
        let v = r.vectors();
        check(&[Step(MOV, c, a, 0), Step(SHA256H, a, b, w), Step(SHA256H2, b, c, w)], v);
    }
    for (first, second) in [(AESE, AESMC), (AESD, AESIMC), (AESE, AESIMC)] {
        for (d, n, d2, n2) in [(0, 1, 0, 0), (0, 0, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1), (0, 1, 1, 1)] {
            let v = r.vectors();
            check(&[Step(first, d, n, 0), Step(second, d2, n2, 0)], v);
        }
    }
}

#[test]
fn random_programs() {
    let mut r = Random(0x1234_5678_9abc_def1);
    for _ in 0..40 {
        let v = r.vectors();
        let steps: Vec<Step> = (0..60)
            .map(|_| {
                let instruction = ALL[usize::from(r.below(ALL.len() as u64))];
                // More registers than there are copies of them in the host's.
                Step(instruction, r.below(16), r.below(16), r.below(16))
            })
            .collect();
        check(&steps, v);
    }
}
