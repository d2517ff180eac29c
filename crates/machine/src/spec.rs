//! Facts of the `virt` board: the memory map and the interrupt map.
//!
//! Guests learn these from the device tree, but firmware images, test suites and scripts rely on the numbers,
//! so they never change.

/// A window in the guest-physical address space: first address and size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First guest-physical address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Region {
    const fn new(base: u64, size: u64) -> Self {
        Self { base, size }
    }
}

/// GIC distributor.
pub const GIC_DISTRIBUTOR: Region = Region::new(0x0800_0000, 0x1_0000);
/// A GICv2's CPU interfaces, each CPU's at the same place.
pub const GIC_INTERFACE: Region = Region::new(0x0801_0000, 0x2000);
/// A GICv2's distributor, which is smaller.
pub const GIC_DISTRIBUTOR_V2: Region = Region::new(GIC_DISTRIBUTOR.base, 0x1000);
/// A GICv3's interrupt translation service: its control frame and the frame that takes messages, 64 KiB each.
pub const ITS: Region = Region::new(0x0808_0000, 0x2_0000);
/// Where messages are written (GITS_TRANSLATER).
pub const ITS_TRANSLATER: u64 = ITS.base + 0x1_0040;
/// GICv3 redistributors of vCPUs 0 to 122, one after the other.
pub const GIC_REDISTRIBUTOR: Region = Region::new(0x080a_0000, 123 * GIC_REDISTRIBUTOR_STRIDE);
/// Lowest place of the redistributors of vCPUs from 123 on; it moves up if RAM reaches it.
pub const GIC_REDISTRIBUTOR_HIGH_BASE: u64 = 0x40_0000_0000;
/// Size of one redistributor: its RD and SGI frames, 64 KiB each.
pub const GIC_REDISTRIBUTOR_STRIDE: u64 = 0x2_0000;
/// How many redistributors the low region holds.
pub const GIC_REDISTRIBUTOR_LOW_COUNT: usize = 123;
/// PL011 UART 0.
pub const UART0: Region = Region::new(0x0900_0000, 0x1000);
/// PL031 real-time clock.
pub const RTC: Region = Region::new(0x0901_0000, 0x1000);
/// PL061 GPIO controller with the power key.
pub const GPIO: Region = Region::new(0x0903_0000, 0x1000);
/// Where guests of KVM are told what time was stolen from their CPUs; they learn the place by a call (Arm DEN 0057).
pub const STOLEN_TIME: Region = Region::new(0x090a_0000, 0x1_0000);
/// How much of it is for each CPU, in bytes.
pub const STOLEN_TIME_STRIDE: u64 = 64;
/// virtio-mmio slots.
pub const VIRTIO_MMIO: Region = Region::new(0x0a00_0000, VIRTIO_MMIO_SLOTS as u64 * VIRTIO_MMIO_SLOT_SIZE);
/// Number of virtio-mmio slots; the first device takes the last one.
pub const VIRTIO_MMIO_SLOTS: usize = 32;
/// Size of one virtio-mmio slot in bytes.
pub const VIRTIO_MMIO_SLOT_SIZE: u64 = 0x200;
/// PCIe: the window of memory, for addresses of 32 bits.
pub const PCIE_MEMORY: Region = Region::new(0x1000_0000, 0x2eff_0000);
/// PCIe: the window of ports.
pub const PCIE_PORTS: Region = Region::new(0x3eff_0000, 0x1_0000);
/// PCIe: configuration space (ECAM), 1 MiB for each bus.
pub const PCIE_ECAM: Region = Region::new(0x3f00_0000, 0x100_0000);
/// PCIe: functions that find a place.
pub const PCIE_FUNCTIONS: usize = armlet_pci::HostBridge::MAX_FUNCTIONS;
/// PCIe: number of buses.
pub const PCIE_BUSES: u32 = 16;
/// First byte of RAM.
pub const RAM_BASE: u64 = 0x4000_0000;

/// SPI of UART 0.
pub const SPI_UART0: u32 = 1;
/// SPI of the real-time clock.
pub const SPI_RTC: u32 = 2;
/// SPI of PCIe's INTA; INTB, INTC and INTD have the ones after it.
pub const SPI_PCIE: u32 = 3;
/// SPI of the GPIO controller.
pub const SPI_GPIO: u32 = 7;
/// SPI of virtio-mmio slot 0; slot n has the n-th after it.
pub const SPI_VIRTIO_MMIO: u32 = 16;

/// PPI (device-tree number, INTID − 16) of the secure EL1 physical timer.
pub const PPI_TIMER_SECURE: u32 = 13;
/// PPI of the non-secure EL1 physical timer.
pub const PPI_TIMER_PHYSICAL: u32 = 14;
/// PPI of the virtual timer.
pub const PPI_TIMER_VIRTUAL: u32 = 11;
/// PPI of performance counters.
pub const PPI_PMU: u32 = armlet_accel_kvm::PMU_INTID - 16;
/// PPI of the EL2 physical timer.
pub const PPI_TIMER_EL2: u32 = 10;

/// PL061 line that the power key is on.
pub const GPIO_POWER_KEY: u32 = 3;

/// Most vCPUs that the board takes.
pub const MAX_CPUS: usize = 512;
/// Smallest RAM in bytes.
pub const MIN_MEMORY: u64 = 16 << 20;
/// RAM is a multiple of this many bytes.
pub const MEMORY_ALIGN: u64 = 2 << 20;

/// Address of virtio-mmio slot `slot` (below [`VIRTIO_MMIO_SLOTS`]).
pub const fn virtio_mmio_slot(slot: usize) -> Region {
    Region::new(VIRTIO_MMIO.base + slot as u64 * VIRTIO_MMIO_SLOT_SIZE, VIRTIO_MMIO_SLOT_SIZE)
}

/// The slot of the `n`-th virtio device, counted from 0.
pub const fn virtio_slot_of_device(n: usize) -> usize {
    VIRTIO_MMIO_SLOTS - 1 - n
}

/// Where the redistributors beyond the low region start, for RAM that ends at `ram_end`.
pub const fn redistributor_high_base(ram_end: u64) -> u64 {
    const ALIGN: u64 = 1 << 30;
    let above = ram_end.div_ceil(ALIGN) * ALIGN;
    if above > GIC_REDISTRIBUTOR_HIGH_BASE { above } else { GIC_REDISTRIBUTOR_HIGH_BASE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_virtio_device_takes_the_highest_slot() {
        assert_eq!(virtio_mmio_slot(virtio_slot_of_device(0)).base, 0x0a00_3e00);
    }

    #[test]
    fn the_high_region_clears_ram() {
        assert_eq!(redistributor_high_base(0x8000_0000), GIC_REDISTRIBUTOR_HIGH_BASE);
        assert_eq!(redistributor_high_base(0x40_4000_0001), 0x40_8000_0000);
    }
}
