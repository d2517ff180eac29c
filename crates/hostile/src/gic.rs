//! The interrupt controller: any accesses to its frames and system registers, any levels of its inputs.

use std::sync::Arc;

use armlet_arm::SysReg;
use armlet_devices::gic::{GicConfig, GicV3};
use armlet_engine::VcpuShared;
use armlet_memory::AccessSize;

use crate::input::Input;

const CPUS: usize = 3;
const SPIS: u32 = 64;
/// Bytes of a CPU's redistributor frames.
const REDISTRIBUTOR: u64 = 0x2_0000;
const SPURIOUS: u64 = 1023;

const REGISTERS: [SysReg; 8] = [
    SysReg::IccPmrEl1,
    SysReg::IccIgrpen0El1,
    SysReg::IccIgrpen1El1,
    SysReg::IccIar0El1,
    SysReg::IccIar1El1,
    SysReg::IccEoir0El1,
    SysReg::IccEoir1El1,
    SysReg::IccSgi1rEl1,
];

/// Runs one input.
///
/// # Panics
/// The controller does what it must not.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let cpus: Vec<_> = (0..CPUS).map(|n| Arc::new(VcpuShared::new(n))).collect();
    let affinities = (0..CPUS as u32).map(armlet_arm::model::mpidr).collect();
    let gic = GicV3::new(&GicConfig { spis: SPIS, affinities }, cpus).expect("a controller");
    let distributor = gic.distributor();
    let redistributors = gic.redistributors(0..CPUS);
    let sizes = [AccessSize::Byte, AccessSize::Half, AccessSize::Word, AccessSize::Double];
    while !input.is_empty() {
        let what = input.u8();
        let cpu = usize::from(what >> 3) % CPUS;
        let size = sizes[usize::from(what >> 6)];
        match what & 7 {
            0 => distributor.write(input.u16().into(), size, input.u64()),
            1 => {
                distributor.read(input.u16().into(), size);
            }
            2 => {
                let offset = u64::from(input.u32()) % (CPUS as u64 * REDISTRIBUTOR);
                redistributors.write(offset, size, input.u64());
                redistributors.read(offset, size);
            }
            3 => gic.write_icc_encoding(cpu, input.u16(), input.u64()),
            4 => {
                gic.read_icc_encoding(cpu, input.u16());
            }
            5 => {
                let register = REGISTERS[usize::from(input.u8()) % REGISTERS.len()];
                gic.write_icc(cpu, register, input.u32().into());
                gic.read_icc(cpu, register);
            }
            6 => {
                let level = input.u8();
                let n = u32::from(level >> 1);
                let line = if n < 16 { gic.ppi(cpu, n) } else { gic.spi(n % SPIS) };
                line.expect("there is such a line").set(level & 1 != 0);
            }
            _ => gic.reset_cpu_interface(cpu),
        }
    }
    gic.reset();
    for cpu in 0..CPUS {
        for register in [SysReg::IccIar0El1, SysReg::IccIar1El1] {
            assert_eq!(gic.read_icc(cpu, register), SPURIOUS, "an interrupt after a reset");
        }
    }
}
