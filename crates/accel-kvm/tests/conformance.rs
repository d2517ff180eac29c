//! The engine's conformance suite over KVM. It needs an arm64 host with KVM; `cargo xtask test-kvm` brings one.
#![cfg(target_arch = "aarch64")]

use std::sync::Arc;

use armlet_accel_kvm::{Calls, KvmAccelerator, KvmConfig, KvmMachine};
use armlet_engine::conformance::catalogue::SUITE;
use armlet_engine::conformance::{Loaded, Op, Subject};
use armlet_memory::{AddressSpaceBuilder, Ram};

const ENTRY: u64 = 0x4000_0000;
const MEMORY: u64 = 1 << 20;
const CPUS: u64 = 8;

/// A virtual machine without an interrupt controller: the suite drives the vCPUs' lines itself.
struct Kvm;

const SLEEPS_INSIDE: &str =
    "a vCPU that waits for an interrupt sleeps in the host's kernel, inside `run`: it is got out";
const NO_EVENTS: &str = "WFE does not sleep: KVM lets another thread run and goes on";
const ENDS_EARLY: &str = "a kick ends WFI early, as the architecture allows";

/// What cannot be had, and why.
const CANNOT: &[(&str, &str)] = &[
    ("g07_a_section_leaves_halted_vcpus_asleep", SLEEPS_INSIDE),
    ("g13_a_vcpu_in_wfe_uses_no_host_time", NO_EVENTS),
    ("g13_wfe_wakes_on_the_event_register_and_clears_it", NO_EVENTS),
    ("g13_wfe_wakes_on_an_unmasked_interrupt", NO_EVENTS),
    ("g13_wfe_with_an_armed_monitor_ends_by_itself", NO_EVENTS),
    ("g13_the_event_stream_ends_wfe", NO_EVENTS),
    ("g13_sev_wakes_the_others", NO_EVENTS),
    ("g13_work_does_not_end_a_halt", ENDS_EARLY),
    ("bug_idle_guests_in_wfe_burn_a_host_core", NO_EVENTS),
];

impl Subject for Kvm {
    fn sleeps_inside(&self) -> bool {
        true
    }

    fn cannot(&self, test: &str) -> Option<&'static str> {
        CANNOT.iter().find(|(name, _)| *name == test).map(|(_, why)| *why)
    }

    fn load(&self, program: &[Op]) -> Loaded {
        let ram = Ram::new(ENTRY, MEMORY).expect("the host has a megabyte");
        for (index, op) in program.iter().enumerate() {
            ram.write(ENTRY + 4 * index as u64, &op.encode(index).to_le_bytes()).expect("fits");
        }
        let memory = Arc::new(AddressSpaceBuilder::new(ram).build());
        let affinities = (0..CPUS).map(|cpu| 1 << 31 | cpu).collect();
        let config = KvmConfig { affinities, end: ENTRY + MEMORY, calls: Calls::All, ..KvmConfig::default() };
        let machine = KvmMachine::open(&config).expect("the host has KVM");
        let model = Arc::new(machine.host_model().expect("the host tells what it is"));
        let accelerator = KvmAccelerator::new(machine, memory, model).expect("the host takes the memory");
        Loaded { accelerator: Arc::new(accelerator), entry: ENTRY, pace: None }
    }
}

#[test]
fn what_cannot_be_had_is_in_the_suite() {
    for (name, why) in CANNOT {
        assert!(SUITE.contains(name), "there is no test {name}");
        println!("not on KVM: {name}: {why}");
    }
}

armlet_engine::conformance_tests!(Kvm);
