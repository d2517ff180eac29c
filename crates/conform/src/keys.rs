//! Pointer authentication as a program meets it: keys that it cannot see. The oracle makes them, like all its random
//! numbers, with a generator that is published, from a seed that it is given; so we know them and use the same.

use std::sync::LazyLock;

use armlet_arm::mmu::Context;
use armlet_arm::pauth::{self, Operation};
use armlet_arm::{CpuModel, CpuState, SysReg};
use rand_mt::Mt;

/// The oracle's seed.
pub const SEED: u32 = 20_261_128;

/// The keys, in the order in which the oracle makes them: low half, then high half.
const REGISTERS: [SysReg; 10] = [
    SysReg::ApiaKeyLoEl1,
    SysReg::ApiaKeyHiEl1,
    SysReg::ApibKeyLoEl1,
    SysReg::ApibKeyHiEl1,
    SysReg::ApdaKeyLoEl1,
    SysReg::ApdaKeyHiEl1,
    SysReg::ApdbKeyLoEl1,
    SysReg::ApdbKeyHiEl1,
    SysReg::ApgaKeyLoEl1,
    SysReg::ApgaKeyHiEl1,
];

/// Numbers of 32 bits that the oracle takes before (a program's AT_RANDOM).
const BEFORE: usize = 4;
/// SCTLR_EL1.{EnIA, EnIB, EnDA, EnDB}.
const ENABLED: u64 = 1 << 31 | 1 << 30 | 1 << 27 | 1 << 13;
/// Addresses of 48 bits in both halves; the lower one's top byte is ignored. 4 KiB granules; walks write-back shareable.
pub const TCR: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 16 << 16 | 1 << 23 | 2 << 30 | 1 << 37;

/// Sets the keys, what enables them, and the size of addresses.
pub fn give(cpu: &mut CpuState) {
    // The generator's seed has 64 bits.
    let mut random = Mt::new_with_key([SEED, 0]);
    for _ in 0..BEFORE {
        random.next_u32();
    }
    for register in REGISTERS {
        let low = random.next_u32();
        cpu.sys[register] = u64::from(low) | u64::from(random.next_u32()) << 32;
    }
    cpu.sys[SysReg::SctlrEl1] |= ENABLED;
    cpu.sys[SysReg::TcrEl1] = TCR;
}

/// What the interpreter knows of keys.
struct Regime {
    model: CpuModel,
    cpu: CpuState,
    context: Context,
}

/// Does `operation`, as the model that has everything.
///
/// # Errors
/// `None` if the pointer's code is wrong and that is an exception.
pub fn perform(operation: Operation, pointer: u64, modifier: u64) -> Option<u64> {
    static REGIME: LazyLock<Option<Regime>> = LazyLock::new(|| {
        let model = crate::model("max").ok()?;
        let mut cpu = CpuState::new(0);
        give(&mut cpu);
        let context = Context::new(&cpu, &model);
        Some(Regime { model, cpu, context })
    });
    let r = REGIME.as_ref()?;
    pauth::perform(&r.cpu, &r.model, &r.context, operation, (pointer, modifier)).ok()
}
