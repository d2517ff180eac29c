//! What a vCPU does on a real KVM: accesses to devices, doorbells, time, aborts. `cargo xtask test-kvm` brings one.
#![cfg(target_arch = "aarch64")]
#![expect(unsafe_code, reason = "an SError comes to a vCPU by an ioctl")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use armlet_accel_kvm::{
    GicLayout, GicVersion, KvmAccelerator, KvmConfig, KvmGic, KvmMachine, KvmMessage, Wanted,
};
use armlet_arm::gic::{FIRST_LPI, gits, its_table};
use armlet_arm::{CpuModel, CpuState, SysReg};
use armlet_engine::{Accelerator, VcpuBackend, VcpuExit, VcpuShared};
use armlet_memory::{AccessSize, AddressSpace, AddressSpaceBuilder, MmioDevice, Ram};
use armlet_saved::SavedIts;
use kvm_bindings::{KVMIO, kvm_vcpu_events};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

const ENTRY: u64 = 0x4000_0000;
const MEMORY: u64 = 1 << 20;
const DEVICE: u64 = 0x900_0000;
/// `HVC #0`
const CALL: u32 = 0xd400_0002;
/// `LDR W1, [X20]`, `STR W1, [X20]`, `LDP X1, X2, [X20]`, `MRS X1, CNTVCT_EL0`, `B .`
const LOAD: u32 = 0xb940_0281;
const STORE: u32 = 0xb900_0281;
const LOAD_PAIR: u32 = 0xa940_0a81;
const COUNT: u32 = 0xd53b_e041;
/// `MOV V1.16B, V0.16B`
const MOVE_VECTOR: u32 = 0x4ea0_1c01;
/// `MSR DAIFClr, #4`, `ISB`, `B .`
const UNMASK_SERROR: u32 = 0xd503_44ff;
const SYNCHRONISE: u32 = 0xd503_3fdf;
const STAY: u32 = 0x1400_0000;

mod ioctl {
    use super::*;
    ioctl_iow_nr!(KVM_SET_VCPU_EVENTS, KVMIO, 0xa0, kvm_vcpu_events);
}

/// Counts accesses, and asks the vCPU out at each, as a device might by its interrupt.
#[derive(Default)]
struct Counter {
    reads: AtomicU64,
    writes: AtomicU64,
    vcpu: OnceLock<Arc<VcpuShared>>,
}

impl Counter {
    fn ask(&self) {
        if let Some(vcpu) = self.vcpu.get() {
            vcpu.request_exit();
        }
    }
}

impl MmioDevice for Counter {
    fn name(&self) -> &str {
        "counter"
    }

    fn read(&self, _: u64, _: AccessSize) -> u64 {
        self.ask();
        0x1000 + self.reads.fetch_add(1, Ordering::SeqCst)
    }

    fn write(&self, _: u64, _: AccessSize, value: u64) {
        self.ask();
        self.writes.fetch_add(value, Ordering::SeqCst);
    }
}

struct Bench {
    machine: Arc<KvmMachine>,
    memory: Arc<AddressSpace>,
    device: Arc<Counter>,
    shared: Arc<VcpuShared>,
    vcpu: Box<dyn VcpuBackend>,
    model: Arc<CpuModel>,
}

fn bench(program: &[u32]) -> Bench {
    let ram = Ram::new(ENTRY, MEMORY).expect("the host has a megabyte");
    for (index, word) in program.iter().enumerate() {
        ram.write(ENTRY + 4 * index as u64, &word.to_le_bytes()).expect("fits");
    }
    let device = Arc::new(Counter::default());
    let mut map = AddressSpaceBuilder::new(ram);
    map.map(DEVICE, 0x1000, Arc::clone(&device) as _).expect("is free");
    let memory = Arc::new(map.build());
    let config = KvmConfig {
        affinities: vec![1 << 31],
        end: ENTRY + MEMORY,
        sve: Wanted::IfThere,
        ..KvmConfig::default()
    };
    let machine = KvmMachine::open(&config).expect("the host has KVM");
    let model = Arc::new(machine.host_model().expect("the host tells what it is"));
    let accelerator = KvmAccelerator::new(Arc::clone(&machine), Arc::clone(&memory), Arc::clone(&model));
    let accelerator = accelerator.expect("takes the memory");
    let shared = Arc::new(VcpuShared::new(0));
    let mut state = CpuState::new(0);
    (state.pc, state.x[20]) = (ENTRY, DEVICE);
    state.x[0] = 0x8400_0000;
    state.sys[SysReg::VbarEl1] = ENTRY + 0x800;
    let vcpu = accelerator.create_vcpu(Arc::clone(&shared), state).expect("can be made");
    Bench { machine, memory, device, shared, vcpu, model }
}

#[test]
fn an_access_is_complete_when_registers_are_read() {
    let mut b = bench(&[LOAD, STORE, CALL]);
    b.device.vcpu.set(Arc::clone(&b.shared)).ok().expect("once");
    // The load's device asks for the exit: its result is in the register all the same, and PC is past it.
    assert!(matches!(b.vcpu.run(), VcpuExit::Kicked));
    assert_eq!((b.vcpu.state().pc, b.vcpu.state().x[1]), (ENTRY + 4, 0x1000));
    // The request stands until the engine takes it, so nothing more is executed.
    assert!(matches!(b.vcpu.run(), VcpuExit::Kicked));
    assert_eq!(b.vcpu.state().pc, ENTRY + 4);
}

#[test]
fn calls_of_psci_come_out_with_pc_behind_them() {
    let mut b = bench(&[CALL, CALL]);
    for n in 1..=2 {
        assert!(matches!(b.vcpu.run(), VcpuExit::Hypercall(0)));
        assert_eq!(b.vcpu.state().pc, ENTRY + 4 * n);
        assert_eq!(b.vcpu.state().x[0], 0x8400_0000);
    }
}

#[test]
fn vector_registers_go_in_and_out_also_where_they_are_parts_of_scalable_ones() {
    const FPEN: u64 = 3 << 20;
    let mut b = bench(&[MOVE_VECTOR, CALL]);
    let state = b.vcpu.state_mut();
    (state.v[0], state.v[31], state.sys[SysReg::CpacrEl1]) = (u128::MAX - 5, 7, FPEN);
    assert!(matches!(b.vcpu.run(), VcpuExit::Hypercall(0)));
    let state = b.vcpu.state();
    assert_eq!((state.v[1], state.v[31]), (u128::MAX - 5, 7));
}

#[test]
fn what_is_not_described_ends_with_where_it_was() {
    let mut b = bench(&[LOAD_PAIR]);
    let VcpuExit::Fatal(why) = b.vcpu.run() else { panic!("another exit") };
    assert!(why.contains("0x9000000") && why.contains("0x40000000"), "{why}");
}

/// Takes all of the guest's memory from `kept` bytes on away from it, as a host does that has lost it.
fn lose_memory(kept: u64) {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("there is a list").flatten();
    let is_ram = |path: &std::path::Path| {
        std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().contains("armlet-ram"))
    };
    let path = descriptors.map(|entry| entry.path()).find(|path| is_ram(path)).expect("RAM is a file");
    let ram = std::fs::OpenOptions::new().write(true).open(path).expect("can be opened again");
    ram.set_len(kept).expect("can be cut");
}

#[test]
fn memory_that_the_host_has_lost_ends_with_where_it_was_and_what_helps() {
    let mut b = bench(&[LOAD]);
    b.vcpu.state_mut().x[20] = ENTRY + MEMORY / 2;
    lose_memory(MEMORY / 2);
    let VcpuExit::Fatal(why) = b.vcpu.run() else { panic!("another exit") };
    assert!(why.contains("at PC 0x40000000") && why.contains("the host's memory behind it"), "{why}");
}

#[test]
fn an_access_to_nothing_is_an_abort_of_the_guests() {
    let mut b = bench(&[LOAD]);
    b.vcpu.state_mut().x[20] = 0x1000;
    // The vector of synchronous exceptions at this level, with its own stack pointer.
    b.memory.ram().write(ENTRY + 0x800 + 0x200, &CALL.to_le_bytes()).expect("fits");
    assert!(matches!(b.vcpu.run(), VcpuExit::Hypercall(0)));
    let state = b.vcpu.state();
    assert_eq!(state.sys[SysReg::ElrEl1], ENTRY);
    // Data abort from the same level; synchronous external abort.
    assert_eq!(state.sys[SysReg::EsrEl1] >> 26, 0x25);
    assert_eq!(state.sys[SysReg::EsrEl1] & 0x3f, 0x10);
}

#[test]
fn a_doorbell_rings_without_an_exit() {
    let mut b = bench(&[STORE, STORE, CALL]);
    let bell = b.machine.doorbell(DEVICE).expect("can be made");
    b.vcpu.state_mut().x[1] = 5;
    assert!(matches!(b.vcpu.run(), VcpuExit::Hypercall(0)));
    assert_eq!(b.device.writes.load(Ordering::SeqCst), 0, "the device was called");
    let mut rung = [0; 8];
    assert_eq!(rustix::io::read(&bell, &mut rung).expect("has rung"), 8);
    assert_eq!(u64::from_ne_bytes(rung), 2);
}

#[test]
fn the_guests_count_begins_at_zero_and_stands_still_while_it_is_stopped() {
    let mut b = bench(&[COUNT, CALL, COUNT, CALL, COUNT, CALL]);
    let count = |b: &mut Bench| {
        assert!(matches!(b.vcpu.run(), VcpuExit::Hypercall(0)));
        b.vcpu.state().x[1]
    };
    let frequency = armlet_accel_kvm::counter_frequency();
    b.machine.time_goes(true);
    let first = count(&mut b);
    assert!(first < frequency, "it began long ago: {first}");
    b.machine.time_goes(false);
    // Not for synchronisation: this is the span that must not count.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    b.machine.time_goes(true);
    let second = count(&mut b);
    assert!(first <= second && second - first < frequency, "{first}, then {second}");
    let third = count(&mut b);
    assert!(third > second);
}

#[test]
fn a_vcpu_that_leaves_is_used_again_as_after_a_reset() {
    let b = bench(&[CALL]);
    let Bench { machine, memory, vcpu, model, .. } = b;
    let accelerator =
        KvmAccelerator::new(Arc::clone(&machine), memory, model).expect("takes the memory again");
    let shared = Arc::new(VcpuShared::new(0));
    let taken = accelerator.create_vcpu(Arc::clone(&shared), CpuState::new(0));
    assert!(taken.is_err(), "it is in use");
    drop(vcpu);
    let mut state = CpuState::new(0);
    (state.pc, state.x[0]) = (ENTRY, 0x8400_0000);
    let mut vcpu = accelerator.create_vcpu(shared, state).expect("it was put aside");
    assert_eq!((vcpu.state().x[20], vcpu.state().sys[SysReg::VbarEl1]), (0, 0));
    assert!(matches!(vcpu.run(), VcpuExit::Hypercall(0)));
}

/// An SError for the only vCPU of this process, as from the host's kernel.
fn send_serror() {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("there is a list").flatten();
    let is_vcpu = |path: &std::path::Path| {
        std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().contains("kvm-vcpu"))
    };
    let path = descriptors.map(|entry| entry.path()).find(|path| is_vcpu(path)).expect("a vCPU is a file");
    let name = path.file_name().and_then(|name| name.to_str()).expect("it has a number");
    let fd: std::os::fd::RawFd = name.parse().expect("it is a number");
    let mut events = kvm_vcpu_events::default();
    events.exception.serror_pending = 1;
    // SAFETY: the structure is the one that this ioctl reads, and outlives the call.
    let result = unsafe { ioctl_with_ref(&fd, ioctl::KVM_SET_VCPU_EVENTS(), &events) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn an_serror_is_the_guests_own_and_is_told_until_it_is_taken() {
    let mut b = bench(&[CALL, UNMASK_SERROR, SYNCHRONISE, STAY]);
    b.memory.ram().write(ENTRY + 0x800 + 0x380, &CALL.to_le_bytes()).expect("fits");
    assert!(matches!(b.vcpu.run(), VcpuExit::Hypercall(0)));
    assert_eq!(b.vcpu.unsaved(), None);
    send_serror();
    assert!(b.vcpu.unsaved().is_some_and(|what| what.contains("SError is pending")));
    assert!(matches!(b.vcpu.run(), VcpuExit::Hypercall(0)));
    assert_eq!(b.vcpu.state().pc, ENTRY + 0x800 + 0x384);
    // SError interrupt.
    assert_eq!(b.vcpu.state().sys[SysReg::EsrEl1] >> 26, 0x2f);
    assert_eq!(b.vcpu.unsaved(), None);
}

const ITS: u64 = 0x808_0000;
const CONFIGURATION: u64 = ENTRY + 0x1_0000;
const PENDING: u64 = ENTRY + 0x2_0000;
const QUEUE: u64 = ENTRY + 0x3_0000;
const DEVICES: u64 = ENTRY + 0x4_0000;
const COLLECTIONS: u64 = ENTRY + 0x5_0000;
const EVENTS: u64 = ENTRY + 0x6_0000;
const REQUESTER: u32 = 8;

/// A virtual machine with memory and a GICv3.
fn with_its(ram: &Ram) -> (Arc<KvmMachine>, Arc<KvmGic>) {
    let config = KvmConfig { affinities: vec![1 << 31], end: ENTRY + MEMORY, ..KvmConfig::default() };
    let machine = KvmMachine::open(&config).expect("the host has KVM");
    let memory = Arc::new(AddressSpaceBuilder::new(ram.clone()).build());
    let model = Arc::new(machine.host_model().expect("the host tells what it is"));
    KvmAccelerator::new(Arc::clone(&machine), memory, model).expect("takes the memory");
    let layout = GicLayout {
        spis: 64,
        distributor: 0x800_0000,
        redistributors: vec![(0x80a_0000, 1)],
        interface: 0x801_0000,
        its: ITS,
    };
    let gic = machine.create_gic(&layout).expect("the host has a GIC");
    assert_eq!(gic.version(), GicVersion::V3);
    (machine, gic)
}

/// The word of the pending table that has the first LPI and the next 63.
fn pending(ram: &Ram) -> u64 {
    ram.load(PENDING + u64::from(FIRST_LPI) / 8, AccessSize::Double).expect("is memory")
}

#[test]
fn messages_become_lpis_and_those_that_are_pending_are_carried() {
    let ram = Ram::new(ENTRY, MEMORY).expect("the host has a megabyte");
    let put = |at, value| ram.store(at, AccessSize::Double, value).expect("is memory");
    put(DEVICES + 8 * u64::from(REQUESTER), its_table::device(EVENTS, 4));
    put(COLLECTIONS, its_table::collection(0, 0));
    for event in [3, 4, 15] {
        put(EVENTS + 8 * u64::from(event), its_table::event(FIRST_LPI + event, 0, event == 15));
    }
    let (_machine, gic) = with_its(&ram);
    let mut saved = gic.save().expect("is told");
    let cpu = &mut saved.cpus[0];
    (cpu.propbaser, cpu.pendbaser, cpu.redistributor_ctlr) = (CONFIGURATION | 15, PENDING, 1);
    saved.its = Some(SavedIts {
        enabled: true,
        queue: gits::VALID | QUEUE,
        devices: gits::VALID | DEVICES,
        collections: gits::VALID | COLLECTIONS,
        ..SavedIts::default()
    });
    gic.restore(&saved).expect("is taken");
    let message = |data| KvmMessage { device: REQUESTER, address: ITS + gits::TRANSLATER, data };
    gic.send(message(3)).expect("is mapped");
    assert!(gic.send(message(5)).is_err(), "there is no such event");
    assert!(gic.send(KvmMessage { address: DEVICE, ..message(3) }).is_err(), "nothing takes it there");
    gic.send(message(15)).expect("is mapped");
    let wanted = 1 << 3 | 1 << 15;
    assert_eq!(gic.save().expect("is told"), saved);
    assert_eq!(pending(&ram), wanted);
    // Another machine goes on from there.
    let (_machine, other) = with_its(&ram);
    other.restore(&saved).expect("is taken");
    put(PENDING + u64::from(FIRST_LPI) / 8, 0);
    assert_eq!(other.save().expect("is told"), saved);
    assert_eq!(pending(&ram), wanted);
    // And a reset forgets it all.
    other.reset();
    assert!(other.send(message(3)).is_err());
    assert_eq!(other.save().expect("is told").its, Some(SavedIts::default()));
}
