//! Function numbers of PSCI 1.1 (Arm DEN 0022), of the SMC calling convention (DEN 0028) and of paravirtualised time (DEN 0057).

/// `SMCCC_VERSION`.
pub const SMCCC_VERSION: u32 = 0x8000_0000;
/// `SMCCC_ARCH_FEATURES`.
pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
/// `PSCI_VERSION`, the first of PSCI's numbers.
pub const PSCI_VERSION: u32 = 0x8400_0000;
/// `CPU_SUSPEND`, 32-bit convention.
pub const CPU_SUSPEND_32: u32 = 0x8400_0001;
/// `CPU_SUSPEND`, 64-bit convention.
pub const CPU_SUSPEND_64: u32 = CPU_SUSPEND_32 | WIDE;
/// `CPU_OFF`.
pub const CPU_OFF: u32 = 0x8400_0002;
/// `CPU_ON`, 32-bit convention.
pub const CPU_ON_32: u32 = 0x8400_0003;
/// `CPU_ON`, 64-bit convention.
pub const CPU_ON_64: u32 = CPU_ON_32 | WIDE;
/// `AFFINITY_INFO`, 32-bit convention.
pub const AFFINITY_INFO_32: u32 = 0x8400_0004;
/// `AFFINITY_INFO`, 64-bit convention.
pub const AFFINITY_INFO_64: u32 = AFFINITY_INFO_32 | WIDE;
/// `MIGRATE`, 64-bit convention (never supported; old bindings want its number).
pub const MIGRATE_64: u32 = 0x8400_0005 | WIDE;
/// `MIGRATE_INFO_TYPE`.
pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
/// `SYSTEM_OFF`.
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// `SYSTEM_RESET`.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// `PSCI_FEATURES`.
pub const PSCI_FEATURES: u32 = 0x8400_000a;
/// `SYSTEM_RESET2`, 32-bit convention.
pub const SYSTEM_RESET2_32: u32 = 0x8400_0012;
/// `SYSTEM_RESET2`, 64-bit convention.
pub const SYSTEM_RESET2_64: u32 = SYSTEM_RESET2_32 | WIDE;
/// `PV_TIME_ST`.
pub const PV_TIME_ST: u32 = 0xc500_0021;

/// Numbers that are PSCI's, from [`PSCI_VERSION`] on, by either convention.
pub const CALLS: u32 = 0x20;
/// What a number by the 64-bit convention has besides.
pub const WIDE: u32 = 1 << 30;
