//! System calls that the crate `kvm-ioctls` leaves to its users, or offers as unsafe.
#![expect(unsafe_code, reason = "ioctl and mmap take raw pointers")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use armlet_memory::Ram;
use kvm_bindings::{
    KVM_CREATE_DEVICE_TEST, KVMIO, kvm_arm_counter_offset, kvm_create_device, kvm_device_attr, kvm_one_reg,
    kvm_smccc_filter, kvm_userspace_memory_region,
};
use kvm_ioctls::{DeviceFd, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::{ioctl_iow_nr, ioctl_iowr_nr};

use crate::registers::OneReg;

ioctl_iow_nr!(KVM_ARM_SET_COUNTER_OFFSET, KVMIO, 0xb5, kvm_arm_counter_offset);
ioctl_iow_nr!(KVM_SET_ONE_REG, KVMIO, 0xac, kvm_one_reg);
ioctl_iowr_nr!(KVM_CREATE_DEVICE, KVMIO, 0xe0, kvm_create_device);

/// What `kvm-ioctls` returns, as an error of the standard library.
pub fn host(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

impl OneReg for VcpuFd {
    fn get(&self, id: u64, value: &mut [u8]) -> io::Result<()> {
        self.get_one_reg(id, value).map(drop).map_err(host)
    }

    fn set(&self, id: u64, value: &[u8]) -> io::Result<()> {
        self.set_one_reg(id, value).map(drop).map_err(host)
    }
}

/// What is taken from the host's counter to make the guest's. No vCPU may be inside the kernel.
pub fn set_counter_offset(vm: &VmFd, counter_offset: u64) -> io::Result<()> {
    let offset = kvm_arm_counter_offset { counter_offset, reserved: 0 };
    // SAFETY: the structure is the one that this ioctl reads, and outlives the call.
    let result = unsafe { ioctl_with_ref(vm, KVM_ARM_SET_COUNTER_OFFSET(), &offset) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Another descriptor of a vCPU, for whoever does not own it.
pub fn duplicate(vcpu: &VcpuFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::fcntl(vcpu.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes a register of 64 bits of a vCPU that is not inside the kernel; else it waits until it is not.
pub fn set_register(vcpu: &OwnedFd, id: u64, value: u64) -> io::Result<()> {
    let register = kvm_one_reg { id, addr: &raw const value as u64 };
    // SAFETY: the structure is the one that this ioctl reads, and names a value of the register's size; both outlive the
    // call.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_ONE_REG(), &register) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tells whether a virtual machine could have a device; it gets none.
pub fn could_create(vm: &VmFd, type_: u32) -> bool {
    let device = kvm_create_device { type_, fd: 0, flags: KVM_CREATE_DEVICE_TEST };
    // SAFETY: the structure is the one that this ioctl reads, and outlives the call; with that flag no descriptor comes.
    unsafe { ioctl_with_ref(vm, KVM_CREATE_DEVICE(), &device) == 0 }
}

/// The host's virtual counter.
pub fn counter() -> u64 {
    let value: u64;
    // SAFETY: reads a register that the host's kernel lets programs read; ISB keeps it from being read early.
    unsafe { std::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nostack, nomem)) };
    value
}

/// Frequency of the host's counter, in Hz, which is also that of its guests'.
pub fn counter_frequency() -> u64 {
    let value: u64;
    // SAFETY: reads a register that the host's kernel lets programs read.
    unsafe { std::arch::asm!("mrs {}, cntfrq_el0", out(reg) value, options(nostack, nomem)) };
    value
}

/// Has CPUs execute the instruction that was just written at guest-physical `address` of `ram` (Arm ARM B2.7.4.2). Nothing if
/// there is no memory.
pub fn synchronise_code(ram: &Ram, address: u64) {
    let Some(at) = ram.host_address(address, 4) else { return };
    // SAFETY: maintenance of caches at an address that is mapped, which the host's kernel lets programs do.
    unsafe {
        std::arch::asm!(
            "dc cvau, {at}", "dsb ish", "ic ivau, {at}", "dsb ish", "isb",
            at = in(reg) at, options(nostack)
        );
    }
}

/// `DCZID_EL0`, which guests see as it is.
pub fn dczid() -> u64 {
    let value: u64;
    // SAFETY: reads a register that programs may always read.
    unsafe { std::arch::asm!("mrs {}, dczid_el0", out(reg) value, options(nostack, nomem)) };
    value
}

/// The attribute `attr` of `group`, with a value of any kind.
fn attribute<T>(group: u32, attr: u64, value: *const T) -> kvm_device_attr {
    kvm_device_attr { group, attr, addr: value as u64, flags: 0 }
}

/// Sets an attribute of a device. `T` must be what the kernel reads for it.
pub fn set<T>(device: &DeviceFd, group: u32, attr: u64, value: &T) -> io::Result<()> {
    device.set_device_attr(&attribute(group, attr, value)).map_err(host)
}

/// Reads an attribute of a device. `T` must be what the kernel writes for it: an integer.
pub fn get<T: Copy + Default>(device: &DeviceFd, group: u32, attr: u64) -> io::Result<T> {
    let mut value = T::default();
    let mut attribute = attribute(group, attr, &raw mut value);
    // SAFETY: the address is that of `value`, which the kernel may write to and which outlives the call.
    unsafe { device.get_device_attr(&mut attribute) }.map_err(host)?;
    Ok(value)
}

/// Carries out an attribute without a value.
pub fn command(device: &DeviceFd, group: u32, attr: u64) -> io::Result<()> {
    device.set_device_attr(&attribute::<u8>(group, attr, std::ptr::null())).map_err(host)
}

/// What becomes of the calls that a filter names.
pub fn set_call_filter(vm: &VmFd, group: u32, attr: u64, filter: &kvm_smccc_filter) -> io::Result<()> {
    vm.set_device_attr(&attribute(group, attr, filter)).map_err(host)
}

/// Tells whether a virtual machine has an attribute.
pub fn has(vm: &VmFd, group: u32, attr: u64) -> bool {
    vm.has_device_attr(&attribute::<u8>(group, attr, std::ptr::null())).is_ok()
}

/// Sets an attribute of a vCPU.
pub fn set_of_vcpu<T>(vcpu: &VcpuFd, group: u32, attr: u64, value: &T) -> io::Result<()> {
    vcpu.set_device_attr(&attribute(group, attr, value)).map_err(host)
}

/// Gives the guest `ram` as its memory, in slot `slot`; `flags` as of `KVM_MEM_*`. The caller keeps a clone of `ram`
/// for as long as the virtual machine lives.
pub fn set_memory(vm: &VmFd, slot: u32, ram: &Ram, flags: u32) -> io::Result<()> {
    let address = ram.host_address(ram.base(), ram.size()).ok_or(io::ErrorKind::InvalidInput)?;
    let region = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: ram.base(),
        memory_size: ram.size(),
        userspace_addr: address as u64,
    };
    // SAFETY: the range is the whole mapping of `ram`, which lives as long as a clone of it; what is there is only
    // ever accessed as memory that others change.
    unsafe { vm.set_user_memory_region(region) }.map_err(host)
}

/// `struct kvm_run` of a vCPU, for the one byte of it that other threads write.
pub struct RunPage {
    page: *mut u8,
    length: usize,
}

// SAFETY: the mapping belongs to nobody's thread, and is only accessed by atomic stores to one byte.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl RunPage {
    /// Maps it, besides the mapping that the vCPU's owner has.
    pub fn map(vcpu: &VcpuFd) -> io::Result<Self> {
        let length = rustix::param::page_size();
        // SAFETY: a new mapping at an address of the kernel's choice. It outlives the descriptor.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { page: page.cast(), length })
    }

    /// The flag with which `KVM_RUN` returns at once.
    pub fn immediate_exit(&self) -> &std::sync::atomic::AtomicU8 {
        let offset = std::mem::offset_of!(kvm_bindings::kvm_run, immediate_exit);
        // SAFETY: the byte is inside the mapping, which lives as long as `self`, and here is only accessed as an atomic;
        // the kernel reads it as other threads do.
        unsafe { std::sync::atomic::AtomicU8::from_ptr(self.page.add(offset)) }
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and no reference to it is left.
        unsafe { libc::munmap(self.page.cast(), self.length) };
    }
}

/// The guest-physical address of an access that the CPU did not describe.
pub fn undescribed_address(vcpu: &mut VcpuFd) -> u64 {
    let run = vcpu.get_kvm_run();
    // SAFETY: the caller has seen the exit reason for which the kernel fills in this member; it is plain numbers.
    unsafe { run.__bindgen_anon_1.arm_nisv.fault_ipa }
}

/// An event's descriptor, to be owned by somebody who knows nothing of that type.
pub fn own(event: EventFd) -> OwnedFd {
    // SAFETY: the descriptor is open, and nobody else's any more.
    unsafe { OwnedFd::from_raw_fd(event.into_raw_fd()) }
}

/// The signal that gets a thread out of `KVM_RUN`.
fn signal() -> i32 {
    libc::SIGRTMIN()
}

extern "C" fn ignore(_: i32) {}

/// Makes the signal harmless, once for the process.
pub fn prepare_signal() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zeroes are a valid action; the handler does nothing. Without SA_RESTART, so that calls are left.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as *const () as usize;
            libc::sigaction(signal(), &action, std::ptr::null_mut());
        }
    });
}

/// Signals a thread of this process. If it has ended, nobody, or a thread that ignores it, is meant.
pub fn interrupt(thread: i32) {
    // SAFETY: takes no pointers; the signal's handler does nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
}
