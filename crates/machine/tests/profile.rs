//! Profiles: the function that a guest is in, and who called it.
#![cfg(target_arch = "x86_64")]

use std::time::Duration;

use armlet_machine::config::{AcceleratorKind, CpuConfig};
use armlet_machine::{End, Machine, MachineConfig};
use armlet_profile::{Profile, Symbols};

/// Calls a function that calls another, which counts down from 2^28; then switches the machine off.
const PROGRAM: [u32; 17] = [
    // start, behind the header
    0xd2a8_2000,
    0x9100_001f,
    0xd280_001d,
    0xd280_001e,
    0x9400_0004,
    0x52b0_8000,
    0x7280_0100,
    0xd400_0002,
    // outer: a frame record
    0xa9bf_7bfd,
    0x9100_03fd,
    0x9400_0003,
    0xa8c1_7bfd,
    0xd65f_03c0,
    // inner: none
    0xd2a2_0001,
    0xf100_0421,
    0x54ff_ffe1,
    0xd65f_03c0,
];
const HEADER: usize = 64;

fn profile(smp: usize, single: bool) -> (Profile, u64) {
    let mut image = vec![0; 4096];
    image[..4].copy_from_slice(&0x1400_0010_u32.to_le_bytes());
    image[16..24].copy_from_slice(&(1u64 << 20).to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    for (i, word) in PROGRAM.iter().enumerate() {
        image[HEADER + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
    }
    let path = std::env::temp_dir().join(format!("armlet-profile-{}-{smp}-{single}", std::process::id()));
    std::fs::write(&path, image).expect("is written");
    let mut config = MachineConfig { memory: 64 << 20, smp, profile: true, ..MachineConfig::default() };
    config.accelerator.kind = AcceleratorKind::Jit;
    if single {
        config.accelerator.options = vec![("thread".into(), "single".into()), ("sleep".into(), "off".into())];
    }
    config.cpu = CpuConfig::default();
    config.boot.kernel = Some(path.clone());
    let mut machine = Machine::new(config).expect("is made");
    std::fs::remove_file(path).expect("is there");
    let start = machine.engine().run_on(0, |cpu| cpu.state().pc).expect("work runs") + HEADER as u64;
    machine.start().expect("starts");
    assert_eq!(machine.run(Some(Duration::from_secs(120))), End::PoweredOff);
    machine.shutdown();
    let map = format!("{start:x} T start\n{:x} T outer\n{:x} t inner\n", start + 32, start + 52);
    let profile = machine.profile(vec![Symbols::of_map(&map)]).expect("was asked for");
    let inner =
        profile.folded().lines().filter_map(|l| l.strip_prefix("EL1;start;outer;inner ")).map(number).sum();
    (profile, inner)
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

#[test]
fn a_loop_is_found_in_its_function_with_its_callers() {
    for (smp, single) in [(1, false), (2, false), (2, true)] {
        let (profile, inner) = profile(smp, single);
        let total = profile.total();
        assert!(inner > 0 && inner * 10 >= total * 8, "{inner} of {total}:\n{}", profile.folded());
    }
}
