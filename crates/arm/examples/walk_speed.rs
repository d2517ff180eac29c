//! Measures what is on the paths of a TLB miss, a system register access and an exception: nanoseconds,
//! the fastest of many short batches (so that other load on the machine does not count).

use std::hint::black_box;
use std::time::Instant;

use armlet_arm::exception::{Exception, eret, take};
use armlet_arm::mmu::{Access, AccessKind, Context, PhysicalMemory, translate};
use armlet_arm::sysreg::{ExternalRegisters, read};
use armlet_arm::{CpuModel, CpuState, SysReg};

struct Ram(Vec<u64>);

impl PhysicalMemory for Ram {
    fn read_u64(&self, pa: u64) -> Option<u64> {
        self.0.get((pa / 8) as usize).copied()
    }
    fn compare_exchange_u64(&self, _: u64, _: u64, _: u64) -> Option<Result<u64, u64>> {
        None
    }
}

struct NoDevices;

impl ExternalRegisters for NoDevices {
    fn read(&self, _: usize, _: SysReg) -> u64 {
        0
    }
    fn write(&self, _: usize, _: SysReg, _: u64) {}
}

fn measure(what: &str, mut f: impl FnMut(u64)) {
    const BATCH: u32 = 512;
    let mut best = f64::MAX;
    for _ in 0..4000 {
        let start = Instant::now();
        for i in 0..BATCH {
            f(u64::from(i));
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH));
    }
    println!("{what}: {best:.1} ns");
}

/// Four levels of the 4K granule from 0x1000 on: 512 pages.
fn tables() -> Ram {
    let mut ram = Ram(vec![0; 0x5000 / 8]);
    for level in 1..4 {
        ram.0[level * 0x200] = ((level as u64 + 1) * 0x1000) | 3;
    }
    for page in 0..512 {
        ram.0[0x800 + page] = (page as u64) << 12 | 1 << 10 | 3;
    }
    ram
}

fn main() {
    let model = CpuModel::by_name("neoverse-n1").expect("the default model");
    let mut state = CpuState::new(0);
    state.sys[SysReg::SctlrEl1] = 1;
    state.sys[SysReg::TcrEl1] = 16 | 16 << 16 | 2 << 30 | 5 << 32;
    state.sys[SysReg::Ttbr0El1] = 0x1000;
    let ram = tables();
    let ctx = Context::new(&state, &model);
    let access = Access { kind: AccessKind::Read, el: 1, pan: false };
    measure("translate", |i| {
        black_box(translate(black_box(&ctx), &ram, black_box(i << 12), access).expect("mapped"));
    });
    let dynamic: &dyn PhysicalMemory = &ram;
    measure("translate through dyn", |i| {
        black_box(
            translate(black_box(&ctx), black_box(dynamic), black_box(i << 12), access).expect("mapped"),
        );
    });
    measure("Context::new", |_| {
        black_box(Context::new(black_box(&state), black_box(&model)));
    });
    let enc = SysReg::EsrEl1.encoding();
    measure("sysreg::read", |_| {
        let _ = black_box(read(black_box(&mut state), black_box(&model), &NoDevices, black_box(enc), 0));
    });
    measure("take and eret", |i| {
        state.pc = i;
        take(black_box(&mut state), &model, &Exception::svc(0));
        let _ = black_box(eret(&mut state, &model));
    });
}
