//! The virtual machine: memory, the descriptors of its vCPUs, time, doorbells.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use armlet_arm::sysreg::{ExternalRegisters, encoding};
use armlet_arm::{SysReg, psci};
use armlet_memory::{AccessSize, AddressSpace, Ram};
use kvm_bindings::{
    KVM_ARM_VCPU_PMU_V3, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, KVM_ARM_VCPU_SVE,
    KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, KVM_CAP_ARM_INJECT_EXT_DABT, KVM_CAP_COUNTER_OFFSET,
    KVM_CAP_STEAL_TIME, KVM_MEM_LOG_DIRTY_PAGES, kvm_smccc_filter,
    kvm_smccc_filter_action_KVM_SMCCC_FILTER_FWD_TO_USER, kvm_vcpu_init,
};
use kvm_ioctls::{VcpuFd, VmFd};

use crate::features::{self, connect_counters, features, has_feature, init_of};
use crate::identity::Caches;
use crate::patch::Patches;
use crate::registers::{OneReg, Registers, system_register};
use crate::system::{
    counter, duplicate, has, host as host_error, set_call_filter, set_counter_offset, set_memory,
    set_of_vcpu, set_register,
};
use crate::{Calls, GicLayout, GicVersion, KvmConfig, KvmError, KvmGic, gic, host};

/// Memory slots.
const SLOT_RAM: u32 = 0;
const SLOT_STOLEN_TIME: u32 = 1;
/// Bytes that tell a vCPU's stolen time, and of the pages that hold them.
const STOLEN_TIME: u64 = 64;
const STOLEN_TIME_ALIGN: u64 = 0x1_0000;
/// Where the time is among them.
const STOLEN: u64 = 8;
/// `KVM_REG_ARM_TIMER_CNT`: the virtual counter.
const VIRTUAL_COUNT: u64 = system_register(encoding(3, 3, 14, 3, 2));
/// Calls that the kernel keeps for itself: those of the architecture.
const ARCHITECTURE_CALLS: u32 = 0x1_0000;

/// A virtual machine.
///
/// It has a vCPU in the kernel for every place from the start, since the kernel's interrupt controller takes none later,
/// and can end none: one that is unplugged is put aside, and used again for the same place.
///
/// Locks: the vCPUs put aside, and the time, each for itself; no other lock is taken meanwhile.
pub struct KvmMachine {
    // In the order in which they are to be dropped: the vCPUs before the memory that they use.
    aside: Mutex<BTreeMap<usize, VcpuFd>>,
    pub(crate) vm: Arc<VmFd>,
    init: kvm_vcpu_init,
    /// See [`Self::keeps_power`].
    keeps_power: bool,
    pub(crate) mpidrs: Vec<u64>,
    pub(crate) registers: Registers,
    pub(crate) breakpoints: usize,
    pub(crate) watchpoints: usize,
    pub(crate) injects_aborts: bool,
    pub(crate) has_gic: OnceLock<()>,
    pub(crate) patches: Patches,
    /// Those of the model that the vCPUs have become.
    pub(crate) caches: OnceLock<Caches>,
    time: Mutex<Time>,
    /// By which vCPU the guest's counter is set, where the virtual machine has no offset (Linux before 6.4).
    count_by: Option<OwnedFd>,
    memory: OnceLock<Arc<AddressSpace>>,
    stolen_time: Option<Ram>,
}

/// The guest's counter.
#[derive(Debug, Default)]
struct Time {
    /// What is taken from the host's.
    offset: u64,
    /// The host's when the guest's was stopped; `None` while it goes.
    stopped: Option<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn refused(what: &'static str) -> impl Fn(io::Error) -> KvmError {
    move |source| KvmError::Refused { what, source }
}

impl KvmMachine {
    /// A virtual machine without memory, with all of its vCPUs.
    ///
    /// # Errors
    /// What the host lacks, and the mend.
    pub fn open(config: &KvmConfig) -> Result<Arc<Self>, KvmError> {
        let kvm = host::open()?;
        let vm = Arc::new(host::create(&kvm, config)?);
        let forwards = has(&vm, KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER.into());
        match (forwards, config.calls) {
            (true, calls) => filter_calls(&vm, calls)?,
            (false, Calls::Psci) => {}
            (false, Calls::All) => {
                return Err(KvmError::TooOld { what: "forwarding of a guest's calls", since: "6.4" });
            }
        }
        let init = features(&kvm, &vm, config)?;
        let stolen_time =
            config.stolen_time.filter(|_| kvm.check_extension_raw(KVM_CAP_STEAL_TIME.into()) > 0);
        let page =
            stolen_time.map(|base| make_stolen_time(&vm, base, config.affinities.len())).transpose()?;
        let mut aside = BTreeMap::new();
        let mut registers = None;
        for (index, mpidr) in config.affinities.iter().enumerate() {
            let no_vcpu = |e| KvmError::Refused { what: "make a vCPU", source: host_error(e) };
            let vcpu = vm.create_vcpu(index as u64).map_err(no_vcpu)?;
            initialise(&vcpu, &init_of(&init, index, !forwards), *mpidr)
                .map_err(refused("initialise a vCPU"))?;
            if let Some(base) = stolen_time {
                let address = base + index as u64 * STOLEN_TIME;
                let (group, attribute) = (KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA.into());
                set_of_vcpu(&vcpu, group, attribute, &address).map_err(refused("tell of stolen time"))?;
            }
            if has_feature(&init, KVM_ARM_VCPU_SVE) {
                // Once for ever, with all lengths that there are.
                let settled = vcpu.vcpu_finalize(&(KVM_ARM_VCPU_SVE as i32)).map_err(host_error);
                settled.map_err(refused("give a vCPU scalable vectors"))?;
            }
            registers.get_or_insert_with(|| Registers::of(&vcpu));
            aside.insert(index, vcpu);
        }
        let has_offset = kvm.check_extension_raw(KVM_CAP_COUNTER_OFFSET.into()) > 0;
        let first = aside.get(&0).filter(|_| !has_offset);
        let count_by = first.map(duplicate).transpose().map_err(refused("set a guest's time"))?;
        Ok(Arc::new(Self {
            aside: Mutex::new(aside),
            vm,
            init,
            keeps_power: !forwards,
            count_by,
            mpidrs: config.affinities.clone(),
            registers: registers.unwrap_or_default(),
            breakpoints: usize::try_from(kvm.get_guest_debug_hw_bps()).unwrap_or(0),
            watchpoints: usize::try_from(kvm.get_guest_debug_hw_wps()).unwrap_or(0),
            injects_aborts: kvm.check_extension_raw(KVM_CAP_ARM_INJECT_EXT_DABT.into()) > 0,
            has_gic: OnceLock::new(),
            patches: Patches::default(),
            caches: OnceLock::new(),
            time: Mutex::new(Time { offset: 0, stopped: Some(0) }),
            memory: OnceLock::new(),
            stolen_time: page,
        }))
    }

    /// Gives the guest its memory; once.
    pub(crate) fn set_memory(&self, memory: &Arc<AddressSpace>) -> Result<(), KvmError> {
        set_memory(&self.vm, SLOT_RAM, memory.ram(), 0).map_err(refused("give a guest memory"))?;
        let _ = self.memory.set(Arc::clone(memory));
        Ok(())
    }

    /// Notes which pages of memory the guest changes from now on, or stops noting.
    ///
    /// # Errors
    /// The host's.
    pub fn log_changes(&self, on: bool) -> Result<(), KvmError> {
        let Some(memory) = self.memory.get() else { return Ok(()) };
        let flags = if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        set_memory(&self.vm, SLOT_RAM, memory.ram(), flags).map_err(refused("note changes of memory"))
    }

    /// A bit for each page of memory (of the host's size) that the guest has changed since it was asked last.
    ///
    /// # Errors
    /// The host's, or changes are not being noted.
    pub fn changed_pages(&self) -> Result<Vec<u64>, KvmError> {
        let size = self.memory.get().map_or(0, |memory| memory.ram().size() as usize);
        let log = self.vm.get_dirty_log(SLOT_RAM, size);
        log.map_err(|e| KvmError::Refused { what: "tell changes of memory", source: host_error(e) })
    }

    /// What interrupt controller [`Self::create_gic`] makes.
    pub fn gic_version(&self) -> GicVersion {
        gic::version(&self.vm)
    }

    /// Puts an interrupt controller into the host's kernel.
    ///
    /// # Errors
    /// The host's serves no guest, or fewer CPUs.
    pub fn create_gic(self: &Arc<Self>, layout: &GicLayout) -> Result<Arc<KvmGic>, KvmError> {
        let gic = KvmGic::new(&self.vm, &self.mpidrs, layout)?;
        let _ = self.has_gic.set(());
        if has_feature(&self.init, KVM_ARM_VCPU_PMU_V3) {
            let all = lock(&self.aside);
            all.values().try_for_each(connect_counters).map_err(refused("connect performance counters"))?;
        }
        Ok(Arc::new(gic))
    }

    /// What is rung when the guest stores a word at `address`, which then needs no exit.
    ///
    /// # Errors
    /// The host's.
    pub fn doorbell(&self, address: u64) -> Result<OwnedFd, KvmError> {
        let bell = self.bell()?;
        bell.ring_at(&[address])?;
        bell.descriptor()
    }

    /// Has the guest's counter go, or stand still: the first when vCPUs are about to run, the second when all have
    /// stopped.
    pub fn time_goes(&self, goes: bool) {
        let mut time = lock(&self.time);
        match (goes, time.stopped) {
            (true, Some(since)) => {
                time.offset = time.offset.wrapping_add(counter().wrapping_sub(since));
                time.stopped = None;
                let set = host::when_idle(|| self.set_offset(time.offset));
                if let Err(error) = set {
                    tracing::error!(%error, "the guest's time cannot be set: it has gone on during a pause");
                }
            }
            (false, None) => time.stopped = Some(counter()),
            _ => {}
        }
    }

    fn set_offset(&self, offset: u64) -> io::Result<()> {
        match &self.count_by {
            None => set_counter_offset(&self.vm, offset),
            // One vCPU's is all vCPUs'. The physical counter is the host's then.
            Some(vcpu) => set_register(vcpu, VIRTUAL_COUNT, counter().wrapping_sub(offset)),
        }
    }

    /// The host's kernel answers calls of PSCI itself (Linux before 6.4): it switches CPUs on and off, inside `run`, and
    /// only what ends the machine comes out. All CPUs are on as far as others know.
    pub fn keeps_power(&self) -> bool {
        self.keeps_power
    }

    /// What of its vCPUs is not in the state that is saved, and how to have vCPUs without it.
    pub fn unsaved(&self) -> Option<(&'static str, &'static str)> {
        features::unsaved(&self.init)
    }

    /// What vCPU `index` is initialised with.
    pub(crate) fn init(&self, index: usize) -> kvm_vcpu_init {
        init_of(&self.init, index, self.keeps_power)
    }

    /// The guest's counter, while it stands still.
    pub fn counter(&self) -> u64 {
        let time = lock(&self.time);
        time.stopped.unwrap_or_else(counter).wrapping_sub(time.offset)
    }

    /// Sets the guest's counter, while it stands still.
    pub fn set_counter(&self, value: u64) {
        let mut time = lock(&self.time);
        let now = counter();
        *time = Time { offset: now.wrapping_sub(value), stopped: Some(now) };
    }

    /// Nanoseconds stolen from vCPU `index`, as its guest is told; `None` if it is not.
    pub fn stolen(&self, index: usize) -> Option<u64> {
        let page = self.stolen_time.as_ref()?;
        page.load(page.base() + index as u64 * STOLEN_TIME + STOLEN, AccessSize::Double)
    }

    /// Sets what [`Self::stolen`] tells; the host's kernel goes on from there. False if there is no such place.
    pub fn set_stolen(&self, index: usize, value: u64) -> bool {
        let Some(page) = &self.stolen_time else { return false };
        page.write(page.base() + index as u64 * STOLEN_TIME + STOLEN, &value.to_le_bytes()).is_ok()
    }

    /// The descriptor of vCPU `index`; it comes back with [`Self::put_aside`].
    pub(crate) fn take_vcpu(&self, index: usize) -> Option<VcpuFd> {
        lock(&self.aside).remove(&index)
    }

    /// Keeps the descriptor of a vCPU that nobody runs any more.
    pub(crate) fn put_aside(&self, index: usize, vcpu: VcpuFd) {
        lock(&self.aside).insert(index, vcpu);
    }

    /// Does something with vCPU 0, which is put aside while the machine is being made.
    pub(crate) fn with_first<R>(&self, f: impl FnOnce(&VcpuFd) -> R) -> Option<R> {
        lock(&self.aside).get(&0).map(f)
    }
}

/// The machine's devices hold none of a CPU's registers: all of them are in the host's kernel.
impl ExternalRegisters for KvmMachine {
    fn read(&self, _cpu: usize, _register: SysReg) -> u64 {
        0
    }

    fn write(&self, _cpu: usize, _register: SysReg, _value: u64) {}
}

/// Registers as after a reset, but for `MPIDR_EL1`, which is the machine's.
pub(crate) fn initialise(vcpu: &VcpuFd, init: &kvm_vcpu_init, mpidr: u64) -> io::Result<()> {
    vcpu.vcpu_init(init).map_err(host_error)?;
    let id = system_register(SysReg::MpidrEl1.encoding());
    // The kernel's own arrangement is the usual one.
    if vcpu.get_u64(id)? != mpidr {
        vcpu.set_u64(id, mpidr)?;
    }
    Ok(())
}

fn filter_calls(vm: &VmFd, calls: Calls) -> Result<(), KvmError> {
    let ranges: &[(u32, u32)] = match calls {
        Calls::Psci => &[(psci::PSCI_VERSION, psci::CALLS), (psci::PSCI_VERSION | psci::WIDE, psci::CALLS)],
        Calls::All => {
            const FAST: u32 = 1 << 31;
            const AFTER: u32 = FAST + ARCHITECTURE_CALLS;
            &[
                (0, FAST),
                (AFTER, psci::WIDE - ARCHITECTURE_CALLS),
                (AFTER | psci::WIDE, psci::WIDE - ARCHITECTURE_CALLS),
            ]
        }
    };
    for (base, count) in ranges {
        let action = kvm_smccc_filter_action_KVM_SMCCC_FILTER_FWD_TO_USER as u8;
        let filter = kvm_smccc_filter { base: *base, nr_functions: *count, action, pad: [0; 15] };
        let set = set_call_filter(vm, KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER.into(), &filter);
        set.map_err(refused("forward a guest's calls"))?;
    }
    Ok(())
}

fn make_stolen_time(vm: &VmFd, base: u64, vcpus: usize) -> Result<Ram, KvmError> {
    let size = (vcpus as u64 * STOLEN_TIME).next_multiple_of(STOLEN_TIME_ALIGN);
    let what = "tell of stolen time";
    let ram = Ram::new(base, size).map_err(refused(what))?;
    set_memory(vm, SLOT_STOLEN_TIME, &ram, 0).map_err(refused(what))?;
    Ok(ram)
}
