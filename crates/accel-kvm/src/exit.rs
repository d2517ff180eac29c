//! What an exit from the guest means. A function over a bus: it needs no KVM, and tests feed it any exit.

use armlet_arm::psci;
use armlet_engine::DebugStop;
use armlet_memory::{AccessSize, AddressSpace};

/// What device accesses go to.
pub trait Bus {
    /// Reads a register; `None` if nothing is there.
    fn read(&self, address: u64, size: AccessSize) -> Option<u64>;
    /// Writes a register; `false` if nothing is there.
    fn write(&self, address: u64, size: AccessSize, value: u64) -> bool;
}

impl Bus for AddressSpace {
    fn read(&self, address: u64, size: AccessSize) -> Option<u64> {
        self.mmio_read(address, size).ok()
    }

    fn write(&self, address: u64, size: AccessSize, value: u64) -> bool {
        self.mmio_write(address, size, value).is_ok()
    }
}

/// Why the guest was left.
#[derive(Debug)]
pub enum Exit<'a> {
    /// A signal, or the immediate-exit flag.
    Interrupted,
    /// A load from what is not memory; `data` takes its result.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// As many bytes as the access has.
        data: &'a mut [u8],
    },
    /// A store to what is not memory.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// What it stores.
        data: &'a [u8],
    },
    /// A call that the machine answers. PC is past it.
    Call,
    /// Something that a debugger waits for.
    Debug {
        /// ESR_EL2.
        syndrome: u32,
        /// FAR_EL2.
        address: u64,
    },
    /// An access to what is not memory that the CPU does not describe (ESR_EL2.ISV is 0).
    NoSyndrome {
        /// Guest-physical address.
        address: u64,
    },
    /// The kernel asks for something that concerns the whole machine.
    System {
        /// One of `KVM_SYSTEM_EVENT_*`.
        event: u32,
        /// The kernel answers calls of PSCI, so this may be one of the guest's.
        by_call: bool,
    },
    /// The CPU could not be entered.
    FailEntry {
        /// The kernel's reason.
        reason: u64,
        /// The host's CPU.
        cpu: u32,
    },
    /// The host has no memory behind guest-physical memory.
    MemoryFault {
        /// Guest-physical address.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// KVM itself has failed.
    InternalError,
    /// `KVM_RUN` failed.
    Failed(std::io::Error),
    /// Any other, by the numbers of `KVM_EXIT_*`.
    Other(u32),
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Enter the guest again.
    Enter,
    /// As [`Self::Enter`]; the access is complete only then.
    Complete,
    /// The access meets nothing: the guest takes an external abort.
    Abort,
    /// The machine answers a call.
    Call,
    /// As [`Self::Call`], of this function, by which the guest would have asked for the same.
    CallOf(u64),
    /// A debugger is to be told.
    Debug(DebugStop),
    /// BRK with this immediate: a debugger's, or the guest's own.
    Brk(u16),
    /// It cannot go on, for the reason given.
    Fatal(String),
}

/// Exception classes of ESR_EL2, exceptions from a lower level (Arm ARM D24.2.40).
mod class {
    pub const BREAKPOINT: u32 = 0x30;
    pub const STEP: u32 = 0x32;
    pub const WATCHPOINT: u32 = 0x34;
    pub const BRK: u32 = 0x3c;
    /// ISS.WnR of a watchpoint.
    pub const WRITE: u32 = 1 << 6;
}

/// Carries out what the exit asks of `bus`, and tells what to do next.
pub fn handle(exit: Exit<'_>, bus: &dyn Bus) -> Next {
    match exit {
        Exit::Interrupted => Next::Enter,
        Exit::MmioRead { address, data } => {
            let Some(size) = size_of(data.len()) else { return odd_size(address, data.len()) };
            let Some(value) = bus.read(address, size) else { return Next::Abort };
            let length = data.len();
            data.copy_from_slice(&value.to_le_bytes()[..length]);
            Next::Complete
        }
        Exit::MmioWrite { address, data } => {
            let Some(size) = size_of(data.len()) else { return odd_size(address, data.len()) };
            let mut bytes = [0; 8];
            bytes[..data.len()].copy_from_slice(data);
            let known = bus.write(address, size, u64::from_le_bytes(bytes));
            if known { Next::Complete } else { Next::Abort }
        }
        Exit::Call => Next::Call,
        Exit::Debug { syndrome, address } => debug_stop(syndrome, address),
        Exit::NoSyndrome { address } => Next::Fatal(no_syndrome(&format!("at {address:#x} "))),
        Exit::System { event: event::SHUTDOWN, by_call: true } => Next::CallOf(psci::SYSTEM_OFF.into()),
        Exit::System { event: event::RESET, by_call: true } => Next::CallOf(psci::SYSTEM_RESET.into()),
        Exit::System { event, .. } => Next::Fatal(system(event)),
        Exit::FailEntry { reason, cpu } => Next::Fatal(format!(
            "the host's CPU {cpu} cannot execute it (reason {reason:#x}): on a host whose CPUs differ, keep the machine \
             on those of one kind (taskset)"
        )),
        Exit::MemoryFault { address, size } => Next::Fatal(format!(
            "the host has no memory behind guest-physical {address:#x} ({size} bytes): it may be short of memory, or \
             the memory may have failed; see the host's kernel log"
        )),
        Exit::InternalError => {
            Next::Fatal("KVM has failed inside the host's kernel: see the host's kernel log".into())
        }
        Exit::Failed(error) => Next::Fatal(failure(&error)),
        Exit::Other(number) => Next::Fatal(format!(
            "KVM leaves the guest for a reason that is not known here (exit {number}): the host's kernel may be newer \
             than this program"
        )),
    }
}

fn no_syndrome(place: &str) -> String {
    format!(
        "it accesses a device, or nothing, {place}by an instruction that the host's CPU does not describe to KVM (of \
         pairs, vectors, exclusives, or one that changes its base register): let the guest access devices by plain \
         loads and stores, or use --accel jit on an x86-64 host"
    )
}

/// Linux's numbers of errors.
mod errno {
    pub const ENOMEM: i32 = 12;
    pub const EFAULT: i32 = 14;
    pub const ENOSYS: i32 = 38;
    pub const EHWPOISON: i32 = 133;
}

/// Why `KVM_RUN` itself failed.
fn failure(error: &std::io::Error) -> String {
    let mend = match error.raw_os_error() {
        // Linux before 5.5 tells of undescribed accesses so.
        Some(errno::ENOSYS) => return no_syndrome(""),
        Some(errno::EHWPOISON) => {
            "the host's memory behind it has failed: start the machine anew, and have the host's memory tested if that \
             happens again"
        }
        Some(errno::ENOMEM) => {
            "the host has no memory left for it: free some, or give the machine less (--memory)"
        }
        Some(errno::EFAULT) => {
            "the host's memory behind it cannot be accessed, as where a limit of memory (a control group's) is met or \
             the host's disk for swapped memory fails: see the host's kernel log"
        }
        _ => "see the host's kernel log",
    };
    format!("KVM cannot run it ({error}): {mend}")
}

fn size_of(length: usize) -> Option<AccessSize> {
    [AccessSize::Byte, AccessSize::Half, AccessSize::Word, AccessSize::Double]
        .into_iter()
        .find(|size| size.bytes() == length as u64)
}

fn odd_size(address: u64, length: usize) -> Next {
    Next::Fatal(format!(
        "it accesses a device at {address:#x} with {length} bytes at once, which no device takes"
    ))
}

fn debug_stop(syndrome: u32, address: u64) -> Next {
    match syndrome >> 26 {
        class::BREAKPOINT => Next::Debug(DebugStop::Breakpoint),
        class::BRK => Next::Brk(syndrome as u16),
        class::STEP => Next::Debug(DebugStop::Step),
        class::WATCHPOINT => {
            Next::Debug(DebugStop::Watchpoint { address, write: syndrome & class::WRITE != 0 })
        }
        other => Next::Fatal(format!("KVM tells of a debug exception of an unknown class, {other:#x}")),
    }
}

/// `KVM_SYSTEM_EVENT_*` (Documentation/virt/kvm/api.rst of Linux, 5).
mod event {
    pub const SHUTDOWN: u32 = 1;
    pub const RESET: u32 = 2;
    pub const CRASH: u32 = 3;
    pub const WAKEUP: u32 = 4;
    pub const SUSPEND: u32 = 5;
}

/// Calls that would end in these are forwarded, so none is expected.
fn system(event: u32) -> String {
    let what = match event {
        event::SHUTDOWN => {
            "a power-off that the guest has not asked this program for: let the guest power off by PSCI, as its device \
             tree says"
        }
        event::RESET => {
            "a reset that the guest has not asked this program for: let the guest reset by PSCI, as its device tree says"
        }
        event::CRASH => "the end of a guest that has crashed: see the guest's last messages",
        event::WAKEUP => {
            "a CPU that is suspended to be woken, but this program suspends none: the host's kernel may be newer than \
             this program"
        }
        event::SUSPEND => {
            "the guest to be suspended to memory, which this machine does not offer: have the guest use another kind of \
             sleep (Linux: echo s2idle > /sys/power/mem_sleep)"
        }
        _ => "something that is not known here: the host's kernel may be newer than this program",
    };
    format!("KVM asks for {what} (system event {event})")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// One register at 0x1000.
    #[derive(Default)]
    struct Register {
        accesses: RefCell<Vec<(u64, AccessSize, Option<u64>)>>,
    }

    impl Bus for Register {
        fn read(&self, address: u64, size: AccessSize) -> Option<u64> {
            self.accesses.borrow_mut().push((address, size, None));
            (address == 0x1000).then_some(0x8877_6655_4433_2211)
        }

        fn write(&self, address: u64, size: AccessSize, value: u64) -> bool {
            self.accesses.borrow_mut().push((address, size, Some(value)));
            address == 0x1000
        }
    }

    #[test]
    fn loads_and_stores_reach_the_bus_with_their_size_and_value() {
        let bus = Register::default();
        for (length, size, value) in [
            (1, AccessSize::Byte, 0x11),
            (2, AccessSize::Half, 0x2211),
            (4, AccessSize::Word, 0x4433_2211),
            (8, AccessSize::Double, 0x8877_6655_4433_2211),
        ] {
            let mut data = [0xaa; 8];
            let read = Exit::MmioRead { address: 0x1000, data: &mut data[..length] };
            assert_eq!(handle(read, &bus), Next::Complete);
            assert!(data[length..].iter().all(|b| *b == 0xaa));
            let write = Exit::MmioWrite { address: 0x1000, data: &data[..length] };
            assert_eq!(handle(write, &bus), Next::Complete);
            let seen = bus.accesses.take();
            assert_eq!(seen, [(0x1000, size, None), (0x1000, size, Some(value))]);
        }
    }

    #[test]
    fn where_nothing_is_the_guest_takes_an_abort() {
        let bus = Register::default();
        assert_eq!(handle(Exit::MmioRead { address: 0x2000, data: &mut [0; 4] }, &bus), Next::Abort);
        assert_eq!(handle(Exit::MmioWrite { address: 0x2000, data: &[0; 4] }, &bus), Next::Abort);
        let odd = handle(Exit::MmioRead { address: 0x1000, data: &mut [0; 3] }, &bus);
        assert!(matches!(odd, Next::Fatal(text) if text.contains("0x1000") && text.contains("3 bytes")));
    }

    #[test]
    fn a_debuggers_stops_are_told_apart() {
        let bus = Register::default();
        let stop = |syndrome| handle(Exit::Debug { syndrome, address: 0x77 }, &bus);
        assert_eq!(stop(0x30 << 26), Next::Debug(DebugStop::Breakpoint));
        assert_eq!(stop(0x3c << 26 | 1 << 25 | 0x800), Next::Brk(0x800));
        assert_eq!(stop(0x32 << 26 | 0x22), Next::Debug(DebugStop::Step));
        let watch = |write| Next::Debug(DebugStop::Watchpoint { address: 0x77, write });
        assert_eq!(stop(0x34 << 26 | 1 << 6), watch(true));
        assert_eq!(stop(0x34 << 26), watch(false));
        assert!(matches!(stop(0x15 << 26), Next::Fatal(_)));
    }

    #[test]
    fn what_ends_the_machine_is_the_guests_call_where_the_kernel_answers_calls() {
        let bus = Register::default();
        let next = |event| handle(Exit::System { event, by_call: true }, &bus);
        assert_eq!((next(1), next(2)), (Next::CallOf(0x8400_0008), Next::CallOf(0x8400_0009)));
        assert!(matches!(next(3), Next::Fatal(text) if text.contains("crashed")));
    }

    #[test]
    fn what_cannot_go_on_says_where_and_what_to_do() {
        let bus = Register::default();
        let text = |exit| match handle(exit, &bus) {
            Next::Fatal(text) => text,
            other => panic!("{other:?}"),
        };
        assert!(text(Exit::NoSyndrome { address: 0x900_0000 }).contains("0x9000000"));
        assert!(text(Exit::MemoryFault { address: 0x4000_0000, size: 4096 }).contains("0x40000000"));
        let system = |event| text(Exit::System { event, by_call: false });
        for (event, words) in [
            (1, "power off by PSCI"),
            (2, "reset by PSCI"),
            (3, "guest's last messages"),
            (4, "newer than this program"),
            (5, "mem_sleep"),
            (99, "newer than this program (system event 99)"),
        ] {
            let told = system(event);
            assert!(told.contains(words) && !told.contains('\n'), "{told}");
        }
        assert!(text(Exit::FailEntry { reason: 0x10, cpu: 3 }).contains("CPU 3"));
        assert!(text(Exit::InternalError).contains("kernel log"));
        assert!(text(Exit::Other(1234)).contains("1234"));
        for (number, words) in [
            (12, "--memory"),
            (14, "Bad address"),
            (22, "see the host's kernel log"),
            (38, "plain loads and stores"),
            (133, "memory tested"),
        ] {
            let told = text(Exit::Failed(std::io::Error::from_raw_os_error(number)));
            assert!(told.contains(words) && !told.contains('\n'), "{told}");
        }
        assert_eq!(handle(Exit::Interrupted, &bus), Next::Enter);
        assert_eq!(handle(Exit::Call, &bus), Next::Call);
    }
}
