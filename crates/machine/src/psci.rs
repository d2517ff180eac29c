//! PSCI 1.1 (Arm DEN 0022) and the SMC calling convention's own calls (DEN 0028): the registers of a call taken
//! apart and its results. What a call does is the board's business ([`crate::Machine`]).

use armlet_arm::psci::{
    AFFINITY_INFO_32, AFFINITY_INFO_64, CPU_OFF, CPU_ON_32, CPU_ON_64, CPU_SUSPEND_32, CPU_SUSPEND_64,
    MIGRATE_INFO_TYPE, PSCI_FEATURES, PSCI_VERSION, PV_TIME_ST, SMCCC_ARCH_FEATURES, SMCCC_VERSION,
    SYSTEM_OFF, SYSTEM_RESET, SYSTEM_RESET2_32, SYSTEM_RESET2_64,
};

/// PSCI version reported: 1.1.
const VERSION: u64 = 0x1_0001;
/// SMCCC version reported: 1.1.
const SMCCC: u64 = 0x1_0001;
/// `MIGRATE_INFO_TYPE`: there is no trusted OS to migrate.
const NO_TRUSTED_OS: u64 = 2;

/// Return codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Success = 0,
    /// There is no such function.
    NotSupported = -1,
    /// A parameter is wrong.
    InvalidParameters = -2,
    /// The call is not allowed now.
    Denied = -3,
    /// The CPU is on.
    AlreadyOn = -4,
    /// The CPU is being switched on.
    OnPending = -5,
    /// Something else failed.
    InternalFailure = -6,
}

impl Status {
    /// As it stands in X0.
    pub const fn register(self) -> u64 {
        self as i32 as i64 as u64
    }
}

/// What `AFFINITY_INFO` tells of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum AffinityState {
    /// It runs.
    On = 0,
    /// It is off.
    Off = 1,
    /// It was asked to start and has not yet.
    OnPending = 2,
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It has an answer that does not depend on the machine's state: X0.
    Answer(u64),
    /// The calling CPU waits for an interrupt, then goes on with success.
    CpuSuspend,
    /// The calling CPU switches off.
    CpuOff,
    /// Another CPU starts at `entry` with `context` in X0.
    CpuOn {
        /// Affinity as in `MPIDR_EL1`.
        target: u64,
        /// Physical address of its first instruction.
        entry: u64,
        /// Its X0.
        context: u64,
    },
    /// The state of the CPUs with the affinity `target`, its fields below `level` left out.
    AffinityInfo {
        /// Affinity as in `MPIDR_EL1`.
        target: u64,
        /// Lowest affinity level that counts.
        level: u32,
    },
    /// Where the calling CPU is told of stolen time.
    StolenTime,
    /// The machine switches off.
    SystemOff,
    /// The machine starts again.
    SystemReset,
}

/// The fields of `MPIDR_EL1` that name a CPU.
const AFFINITY_MASK: u64 = 0xff_00ff_ffff;

impl Call {
    /// Takes apart the call in X0 to X3.
    pub fn decode(x: [u64; 4]) -> Self {
        let function = x[0] as u32;
        // The 32-bit convention passes the low half of each register.
        let wide = function & (1 << 30) != 0;
        let arg = |i: usize| if wide { x[i] } else { x[i] & 0xffff_ffff };
        match function {
            SMCCC_VERSION => Self::Answer(SMCCC),
            SMCCC_ARCH_FEATURES => Self::Answer(arch_feature(x[1] as u32).register()),
            PSCI_VERSION => Self::Answer(VERSION),
            CPU_SUSPEND_32 | CPU_SUSPEND_64 => Self::CpuSuspend,
            CPU_OFF => Self::CpuOff,
            CPU_ON_32 | CPU_ON_64 => Self::CpuOn { target: arg(1), entry: arg(2), context: arg(3) },
            AFFINITY_INFO_32 | AFFINITY_INFO_64 => {
                Self::AffinityInfo { target: arg(1), level: arg(2) as u32 }
            }
            MIGRATE_INFO_TYPE => Self::Answer(NO_TRUSTED_OS),
            // Not announced, but whoever knew of it under KVM asks for each CPU that it starts.
            PV_TIME_ST => Self::StolenTime,
            SYSTEM_OFF => Self::SystemOff,
            SYSTEM_RESET => Self::SystemReset,
            // Bit 31 of the type is set for vendors' kinds of reset; type 0 is an architectural warm reset.
            SYSTEM_RESET2_32 | SYSTEM_RESET2_64 if x[1] as u32 == 0 => Self::SystemReset,
            SYSTEM_RESET2_32 | SYSTEM_RESET2_64 => Self::Answer(Status::InvalidParameters.register()),
            PSCI_FEATURES => Self::Answer(feature(x[1] as u32).register()),
            _ => Self::Answer(Status::NotSupported.register()),
        }
    }
}

fn feature(function: u32) -> Status {
    match function {
        PSCI_VERSION | CPU_SUSPEND_32 | CPU_SUSPEND_64 | CPU_OFF | CPU_ON_32 | CPU_ON_64
        | AFFINITY_INFO_32 | AFFINITY_INFO_64 | MIGRATE_INFO_TYPE | SYSTEM_OFF | SYSTEM_RESET
        | PSCI_FEATURES | SYSTEM_RESET2_32 | SYSTEM_RESET2_64 | SMCCC_VERSION => Status::Success,
        _ => Status::NotSupported,
    }
}

fn arch_feature(function: u32) -> Status {
    match function {
        SMCCC_VERSION | SMCCC_ARCH_FEATURES => Status::Success,
        _ => Status::NotSupported,
    }
}

/// The number of the vCPU with affinity `target`, by the affinities of all.
pub fn cpu_of_affinity(target: u64, affinities: &[u64]) -> Option<usize> {
    affinities.iter().position(|affinity| *affinity == target)
}

/// The vCPUs that `AFFINITY_INFO` asks about, by the affinities of all; `None` if `level` is not one, or there are none.
pub fn cpus_of_affinity(target: u64, level: u32, affinities: &[u64]) -> Option<Vec<usize>> {
    if level > 3 {
        return None;
    }
    // Level 3 is bits [39:32]; the others are bytes 0 to 2.
    let mask = match level {
        3 => 0xff_0000_0000,
        n => AFFINITY_MASK & !((1 << (8 * n)) - 1),
    };
    let found: Vec<_> = (0..affinities.len()).filter(|&i| affinities[i] & mask == target & mask).collect();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    const NOT_SUPPORTED: u64 = u64::MAX;

    #[test]
    fn calls_decode_as_the_specification_numbers_them() {
        assert_eq!(Call::decode([0x8400_0000, 0, 0, 0]), Call::Answer(0x1_0001));
        assert_eq!(Call::decode([0x8000_0000, 0, 0, 0]), Call::Answer(0x1_0001));
        assert_eq!(
            Call::decode([0xc400_0003, 0x101, 0x1_4000_0000, 7]),
            Call::CpuOn { target: 0x101, entry: 0x1_4000_0000, context: 7 }
        );
        assert_eq!(
            Call::decode([0xffff_ffff_8400_0003, 0xdead_0000_0001, 0x1_4000_0000, 1 << 32]),
            Call::CpuOn { target: 1, entry: 0x4000_0000, context: 0 }
        );
        assert_eq!(Call::decode([0x8400_0008, 0, 0, 0]), Call::SystemOff);
        assert_eq!(Call::decode([0x8400_0009, 0, 0, 0]), Call::SystemReset);
        assert_eq!(Call::decode([0x8400_0006, 0, 0, 0]), Call::Answer(2));
        assert_eq!(Call::decode([0xc400_0012, 0, 0, 0]), Call::SystemReset);
        assert_eq!(Call::decode([0x1234_5678, 0, 0, 0]), Call::Answer(NOT_SUPPORTED));
        assert_eq!(Call::decode([u64::MAX; 4]), Call::Answer(NOT_SUPPORTED));
    }

    #[test]
    fn features_are_those_that_decode() {
        for f in 0x8400_0000..0x8400_0020u32 {
            let told = Call::decode([0x8400_000a, f.into(), 0, 0]) == Call::Answer(0);
            let there = Call::decode([f.into(), 0x8400_0000, 0, 0]) != Call::Answer(NOT_SUPPORTED);
            assert_eq!(told, there, "{f:#x}");
        }
    }

    #[test]
    fn affinities_name_the_cpus() {
        let flat = |n| Topology::flat(n).affinities();
        assert_eq!(cpu_of_affinity(0x102, &flat(32)), Some(18));
        assert_eq!(cpu_of_affinity(0x102, &flat(16)), None);
        assert_eq!(cpu_of_affinity(1 << 31, &flat(16)), None);
        assert_eq!(cpus_of_affinity(0x100, 1, &flat(20)), Some(vec![16, 17, 18, 19]));
        assert_eq!(cpus_of_affinity(0, 2, &flat(20)).unwrap().len(), 20);
        assert_eq!(cpus_of_affinity(0x1_0000_0000, 3, &flat(4)), None);
        assert_eq!(cpus_of_affinity(0, 4, &flat(4)), None);
        let all = Topology { sockets: 2, clusters: 2, cores: 2, threads: 2 }.affinities();
        assert_eq!(cpu_of_affinity(0x1_0001_0001, &all), Some(13));
        assert_eq!(cpus_of_affinity(0x1_0001_0100, 0, &all), Some(vec![14]), "a thread");
        assert_eq!(cpus_of_affinity(0x1_0001_0100, 1, &all), Some(vec![14, 15]), "a core");
        assert_eq!(cpus_of_affinity(0x1_0001_0100, 2, &all), Some(vec![12, 13, 14, 15]), "a cluster");
        assert_eq!(cpus_of_affinity(0x1_0000_0000, 3, &all), Some((8..16).collect()), "a socket");
    }
}
