//! Guests that do what no sane guest does: whatever it is, the machine goes on or ends in order.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use armlet_arm::{CpuState, Pstate, SysReg};
use armlet_machine::config::{AcceleratorKind, ConsoleDevice, DriveConfig, OnReset};
use armlet_machine::{Cause, End, Machine, MachineConfig, spec};
use armlet_memory::AccessSize;

/// A small generator of numbers (SplitMix64), the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("armlet-hostile-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A machine with every device, which executes nothing.
fn every_device(folder: &Folder) -> Machine {
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&(1u64 << 20).to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    let mut config = MachineConfig { memory: 64 << 20, smp: 3, ..MachineConfig::default() };
    config.accelerator.kind = AcceleratorKind::Dummy;
    config.boot.kernel = Some(folder.file("Image", &image));
    config.console = ConsoleDevice::Virtio;
    let disk = |file| DriveConfig { snapshot: true, ..DriveConfig::new(file) };
    config.drives = vec![disk(folder.file("disk", &vec![7; 1 << 20]))];
    Machine::new(config).unwrap()
}

const SIZES: [AccessSize; 4] = [AccessSize::Byte, AccessSize::Half, AccessSize::Word, AccessSize::Double];

#[test]
fn random_accesses_to_every_device_do_no_harm() {
    let folder = Folder::new("mmio");
    let mut machine = every_device(&folder);
    machine.start().unwrap();
    let memory = machine.memory().clone();
    let slot = |n| spec::virtio_mmio_slot(spec::virtio_slot_of_device(n)).base;
    let places = [
        (spec::GIC_DISTRIBUTOR.base, 0x1_0000),
        (spec::GIC_REDISTRIBUTOR.base, 0x6_0000),
        (spec::UART0.base, 0x1000),
        (spec::RTC.base, 0x1000),
        (spec::GPIO.base, 0x1000),
        (slot(0), 0x200),
        (slot(1), 0x200),
        (slot(2), 0x200),
        (slot(3), 0x200),
        (spec::UART0.base - 0x1000, 0x4_0000),
        (0, spec::RAM_BASE),
    ];
    let mut numbers = Numbers(1);
    for _ in 0..1_000_000 {
        let (base, len) = numbers.of(&places);
        let size = numbers.of(&SIZES);
        let any = numbers.below(len);
        // Mostly what devices are made for, and now and then what they are not.
        let offset = if numbers.below(8) == 0 { any } else { any & !(size.bytes() - 1) };
        let value = match numbers.below(4) {
            0 => numbers.next(),
            1 => numbers.below(16),
            2 => 1 << numbers.below(64),
            // Queues in RAM.
            _ => spec::RAM_BASE + (numbers.below(1 << 20) & !0xf),
        };
        if numbers.below(2) == 0 {
            let _ = memory.mmio_read(base + offset, size);
        } else {
            let _ = memory.mmio_write(base + offset, size, value);
        }
    }
    // It still answers, and ends.
    assert_eq!(memory.mmio_read(slot(0), AccessSize::Word), Ok(0x7472_6976));
    machine.handle().quit(Cause::HostUi, "the test");
    assert_eq!(machine.run(None), End::Quit("the test".into()));
    machine.shutdown();
}

/// What every exception leads to: on behind the instruction, or somewhere in the program if the fetch failed.
#[rustfmt::skip]
const HANDLER: [u32; 17] = [
    0xd518_d080, // msr tpidr_el1, x0
    0xd538_5200, // mrs x0, esr_el1
    0xd35c_fc00, // lsr x0, x0, #28
    0xf100_201f, // cmp x0, #8       fetches that abort, addresses that are not aligned
    0x5400_0080, // b.eq 1f
    0xd538_4020, // mrs x0, elr_el1
    0x9100_1000, // add x0, x0, #4
    0x1400_0004, // b 2f
    0xd53b_e040, // 1: mrs x0, cntvct_el0
    0x927e_2c00, // and x0, x0, #0x3ffc
    0xb263_0400, // orr x0, x0, #PROGRAM
    0xd518_4020, // 2: msr elr_el1, x0
    0xd538_4000, // mrs x0, spsr_el1
    0x926b_f800, // bic x0, x0, #IL
    0xd518_4000, // msr spsr_el1, x0
    0xd538_d080, // mrs x0, tpidr_el1
    0xd69f_03e0, // eret
];
/// Where random instructions are.
const PROGRAM: u64 = 0x6000_0000;
const WORDS: usize = 4096;
const VECTORS: u64 = PROGRAM + 0x10_0000;
const DATA: u64 = PROGRAM + 0x20_0000;
const ERET: u32 = 0xd69f_03e0;
const NOP: u32 = 0xd503_201f;

/// Mask and value of every encoding but SVE's and SME's, which no model has, and their classes.
fn encodings() -> Vec<(u32, u32, &'static str)> {
    let hex = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let lines = include_str!("../../arm/data/a64-encodings.tsv").lines().filter(|l| !l.starts_with('#'));
    let rows = lines.map(|line| {
        let fields: Vec<_> = line.split('\t').collect();
        (hex(fields[1]), hex(fields[2]), fields[4])
    });
    rows.filter(|row| !["sve", "sme", "mortlach"].iter().any(|other| row.2.starts_with(other))).collect()
}

/// One instruction; `flavour` is how much there is of each kind.
fn instruction(numbers: &mut Numbers, flavour: u64, encodings: &[(u32, u32, &str)]) -> u32 {
    let any = numbers.next() as u32;
    let (mask, value, _) = numbers.of(encodings);
    let from_table = any & !mask | value;
    let kind = numbers.below(16);
    match kind ^ (flavour & 7) {
        // Loads and stores of every size, with small offsets.
        0..3 => 0x3900_0000 | any & 0xc7c0_03ff | (any >> 8 & 3) << 10,
        3 => 0x3800_0000 | any & 0xc7c0_03ff | (any & 0x1ff) << 12 | (any >> 4 & 3) << 10,
        // System registers and system instructions.
        4 => 0xd510_0000 | any & 0x2f_ffff,
        5 => 0xd508_0000 | any & 0x27_ffff,
        // Short branches.
        6 => 0x5400_0000 | (any % 64).wrapping_sub(24) << 5 & 0xff_ffe0 | any & 15,
        7 => 0x3400_0000 | any & 0x8100_001f | (any % 64).wrapping_sub(24) << 5 & 0xff_ffe0,
        8 => any,
        _ => from_table,
    }
}

/// A register's value: an address that is worth trying, or anything.
fn register(numbers: &mut Numbers) -> u64 {
    let devices = [
        spec::GIC_DISTRIBUTOR.base,
        spec::GIC_REDISTRIBUTOR.base,
        spec::GIC_REDISTRIBUTOR.base + 0x1_0000,
        spec::UART0.base,
        spec::RTC.base,
        spec::GPIO.base,
        spec::virtio_mmio_slot(31).base,
        spec::virtio_mmio_slot(30).base,
        spec::virtio_mmio_slot(0).base,
        spec::UART0.base + 0xffc,
        0x2000_0000,
        spec::RAM_BASE - 4,
        u64::MAX,
        u64::MAX << 12,
    ];
    match numbers.below(8) {
        0..4 => numbers.of(&devices).wrapping_add(numbers.below(2) * numbers.below(0x100)),
        4 => PROGRAM + numbers.below(4 * WORDS as u64),
        5 => numbers.next(),
        _ => DATA + (numbers.below(1 << 20) & !7),
    }
}

fn run_random_program(folder: &Folder, seed: u64, encodings: &[(u32, u32, &str)]) -> End {
    let mut numbers = Numbers(seed);
    let mut config = MachineConfig { memory: 1 << 30, ..MachineConfig::default() };
    config.accelerator.kind = AcceleratorKind::Jit;
    config.smp = 1 + numbers.below(2) as usize;
    config.cpu.model = numbers.of(&["neoverse-n1", "max", "cortex-a53"]).into();
    config.on_reset = OnReset::PowerOff;
    config.console = ConsoleDevice::Virtio;
    let disk = folder.0.join("disk");
    config.drives = vec![DriveConfig { snapshot: true, ..DriveConfig::new(disk) }];
    if numbers.below(3) == 0 {
        config.accelerator.options = vec![("smc".into(), "strict".into())];
    }
    let mut machine = Machine::new(config).unwrap();
    let ram = machine.memory().ram();
    let flavour = numbers.next();
    for i in 0..WORDS as u64 {
        let word = match instruction(&mut numbers, flavour, encodings) {
            // Most would go in circles.
            ERET if numbers.below(32) != 0 => NOP,
            word => word,
        };
        ram.write(PROGRAM + 4 * i, &word.to_le_bytes()).unwrap();
    }
    for vector in 0..16 {
        let handler: Vec<u8> = HANDLER.iter().flat_map(|w| w.to_le_bytes()).collect();
        ram.write(VECTORS + 128 * vector, &handler).unwrap();
    }
    let x: [u64; 32] = std::array::from_fn(|_| register(&mut numbers));
    let at_el0 = numbers.below(4) == 0;
    let set = move |state: &mut CpuState| {
        state.x = x;
        state.pc = PROGRAM;
        state.sys[SysReg::VbarEl1] = VECTORS;
        state.sys[SysReg::CpacrEl1] = 3 << 20;
        if at_el0 {
            state.pstate = Pstate::from_bits_retain(0);
        }
    };
    machine.engine().run_on(0, move |a| set(a.state_mut())).unwrap();
    machine.start().unwrap();
    let end = machine.run(Some(Duration::from_millis(40)));
    machine.shutdown();
    end
}

/// `HOSTILE_PROGRAMS` asks for more than a quick look.
fn programs() -> u64 {
    std::env::var("HOSTILE_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "needs the translator")]
fn random_instructions_never_end_the_program() {
    let folder = Folder::new("code");
    folder.file("disk", &vec![7; 1 << 20]);
    let encodings = encodings();
    for seed in 0..programs() {
        let start = Instant::now();
        let end = run_random_program(&folder, seed, &encodings);
        assert!(!matches!(end, End::Failed(_)), "seed {seed}: {end:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "seed {seed} took {:?}", start.elapsed());
    }
}
