//! The device tree that describes the board to the guest.
//!
//! Nodes and properties follow the Linux kernel's bindings (`arm,gic-v3`, `arm,cortex-a15-gic`, `arm,armv8-timer`,
//! `arm,armv8-pmuv3`, `arm,psci`, `arm,pl011`, `arm,pl031`, `arm,pl061`, `gpio-keys`, `virtio,mmio`, `pci-host-ecam-generic`) and the Devicetree Specification v0.4.

use vm_fdt::{Error, FdtWriter};

use armlet_accel_kvm::GicVersion;
use armlet_arm::model::CacheGeometry;
use armlet_arm::psci;

use crate::spec::{self, Region};
use crate::topology::{Position, Topology};

const PHANDLE_GIC: u32 = 1;
const PHANDLE_CLOCK: u32 = 2;
const PHANDLE_GPIO: u32 = 3;
/// The ITS, which a bus's `msi-map` names.
const PHANDLE_ITS: u32 = 4;
const PHANDLE_CPU0: u32 = 0x1000;
/// The level 2 cache of the first cluster.
const PHANDLE_L2: u32 = 0x2000;

const GIC_SPI: u32 = 0;
const GIC_PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;
/// Where the CPUs of a GICv2's private interrupt are in its flags (`arm,gic.yaml`).
const GIC_CPUS: u32 = 8;
/// `KEY_POWER` of the Linux input event codes.
const KEY_POWER: u32 = 116;
/// Rate of the clock of the PrimeCell peripherals.
const APB_CLOCK_HZ: u32 = 24_000_000;

/// What the tree describes beyond what is fixed.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    /// `compatible` of the CPU nodes.
    pub cpu_compatible: &'a str,
    /// How the CPUs are arranged.
    pub topology: Topology,
    /// Level 1 data, level 1 instruction, level 2 unified.
    pub caches: [CacheGeometry; 3],
    /// Bytes of RAM.
    pub memory: u64,
    /// The interrupt controller.
    pub gic: GicVersion,
    /// CPUs have performance counters.
    pub counters: bool,
    /// Number of virtio devices in slots; they fill them from the highest down.
    pub virtio_slots: usize,
    /// PCI Express, if there is one.
    pub pcie: Option<Pcie>,
    /// Kernel command line.
    pub append: &'a str,
    /// First and one past the last address of the initrd.
    pub initrd: Option<(u64, u64)>,
    /// Seed for the kernel's address randomisation.
    pub kaslr_seed: Option<u64>,
    /// Entropy for the kernel's generator.
    pub rng_seed: &'a [u8],
}

/// What the tree says of PCI Express beyond what is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pcie {
    /// The interrupt controller has an ITS, which takes the functions' messages.
    pub takes_messages: bool,
}

/// Makes the flattened tree.
///
/// # Errors
/// Those of the writer, which come from text in `description` that a tree cannot hold.
pub fn generate(description: &Description<'_>) -> Result<Vec<u8>, Error> {
    let mut w = FdtWriter::new()?;
    let root = w.begin_node("")?;
    w.property_string("compatible", "linux,dummy-virt")?;
    w.property_string("model", "linux,dummy-virt")?;
    w.property_u32("#address-cells", 2)?;
    w.property_u32("#size-cells", 2)?;
    w.property_u32("interrupt-parent", PHANDLE_GIC)?;
    chosen(&mut w, description)?;
    let aliases = w.begin_node("aliases")?;
    w.property_string("serial0", &node_name("pl011", spec::UART0, "/"))?;
    w.end_node(aliases)?;
    let memory = w.begin_node(&format!("memory@{:x}", spec::RAM_BASE))?;
    w.property_string("device_type", "memory")?;
    w.property_array_u64("reg", &[spec::RAM_BASE, description.memory])?;
    w.end_node(memory)?;
    cpus(&mut w, description)?;
    firmware(&mut w)?;
    interrupt_controller(&mut w, description)?;
    timer(&mut w, description)?;
    if description.counters {
        let node = w.begin_node("pmu")?;
        w.property_string("compatible", "arm,armv8-pmuv3")?;
        w.property_array_u32("interrupts", &[GIC_PPI, spec::PPI_PMU, private_level(description)])?;
        w.end_node(node)?;
    }
    peripherals(&mut w)?;
    virtio(&mut w, description.virtio_slots)?;
    if let Some(bus) = &description.pcie {
        pcie(&mut w, bus)?;
    }
    w.end_node(root)?;
    w.finish()
}

fn node_name(name: &str, region: Region, prefix: &str) -> String {
    format!("{prefix}{name}@{:x}", region.base)
}

fn chosen(w: &mut FdtWriter, d: &Description<'_>) -> Result<(), Error> {
    let node = w.begin_node("chosen")?;
    w.property_string("stdout-path", &node_name("pl011", spec::UART0, "/"))?;
    if !d.append.is_empty() {
        w.property_string("bootargs", d.append)?;
    }
    if let Some((start, end)) = d.initrd {
        w.property_u64("linux,initrd-start", start)?;
        w.property_u64("linux,initrd-end", end)?;
    }
    if let Some(seed) = d.kaslr_seed {
        w.property_u64("kaslr-seed", seed)?;
    }
    w.property("rng-seed", d.rng_seed)?;
    w.end_node(node)
}

fn cpus(w: &mut FdtWriter, d: &Description<'_>) -> Result<(), Error> {
    let node = w.begin_node("cpus")?;
    let affinities = d.topology.affinities();
    // Aff3 is in a cell of its own (the Linux kernel's arm/cpus.yaml).
    let wide = affinities.iter().any(|affinity| affinity >> 32 != 0);
    w.property_u32("#address-cells", if wide { 2 } else { 1 })?;
    w.property_u32("#size-cells", 0)?;
    cpu_map(w, &d.topology)?;
    for (i, affinity) in affinities.into_iter().enumerate() {
        let cpu = w.begin_node(&format!("cpu@{affinity:x}"))?;
        w.property_string("device_type", "cpu")?;
        w.property_string("compatible", d.cpu_compatible)?;
        match wide {
            true => w.property_u64("reg", affinity)?,
            false => w.property_u32("reg", affinity as u32)?,
        }
        w.property_string("enable-method", "psci")?;
        let [data, instruction, _] = d.caches;
        cache(w, "d-cache", data)?;
        cache(w, "i-cache", instruction)?;
        w.property_u32("next-level-cache", PHANDLE_L2 + cluster_of(&d.topology, i) as u32)?;
        w.property_phandle(PHANDLE_CPU0 + i as u32)?;
        w.end_node(cpu)?;
    }
    for cluster in 0..d.topology.sockets * d.topology.clusters {
        let l2 = w.begin_node(&format!("l2-cache{cluster}"))?;
        w.property_string("compatible", "cache")?;
        w.property_u32("cache-level", 2)?;
        w.property_null("cache-unified")?;
        cache(w, "cache", d.caches[2])?;
        w.property_phandle(PHANDLE_L2 + cluster as u32)?;
        w.end_node(l2)?;
    }
    w.end_node(node)
}

/// The cluster of CPU `index`, counted through all sockets.
fn cluster_of(topology: &Topology, index: usize) -> usize {
    let Position { socket, cluster, .. } = topology.position(index);
    socket * topology.clusters + cluster
}

/// Size, line size and sets; the properties' names begin with `name`.
fn cache(w: &mut FdtWriter, name: &str, cache: CacheGeometry) -> Result<(), Error> {
    w.property_u32(&format!("{name}-size"), cache.size)?;
    w.property_u32(&format!("{name}-line-size"), cache.line)?;
    w.property_u32(&format!("{name}-sets"), cache.sets())
}

/// Which CPU is which thread of which core (the Linux kernel's cpu/cpu-topology.txt).
fn cpu_map(w: &mut FdtWriter, t: &Topology) -> Result<(), Error> {
    let mut phandle = PHANDLE_CPU0..;
    let mut cpu = |w: &mut FdtWriter| w.property_u32("cpu", phandle.next().unwrap_or(PHANDLE_CPU0));
    let map = w.begin_node("cpu-map")?;
    for socket in 0..t.sockets {
        let socket = w.begin_node(&format!("socket{socket}"))?;
        for cluster in 0..t.clusters {
            let cluster = w.begin_node(&format!("cluster{cluster}"))?;
            for core in 0..t.cores {
                let core = w.begin_node(&format!("core{core}"))?;
                match t.threads {
                    1 => cpu(w)?,
                    threads => (0..threads).try_for_each(|thread| {
                        let thread = w.begin_node(&format!("thread{thread}"))?;
                        cpu(w)?;
                        w.end_node(thread)
                    })?,
                }
                w.end_node(core)?;
            }
            w.end_node(cluster)?;
        }
        w.end_node(socket)?;
    }
    w.end_node(map)
}

fn firmware(w: &mut FdtWriter) -> Result<(), Error> {
    let node = w.begin_node("psci")?;
    let compatible = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];
    w.property_string_list("compatible", compatible.map(String::from).to_vec())?;
    w.property_string("method", "hvc")?;
    w.property_u32("cpu_suspend", psci::CPU_SUSPEND_64)?;
    w.property_u32("cpu_off", psci::CPU_OFF)?;
    w.property_u32("cpu_on", psci::CPU_ON_64)?;
    w.property_u32("migrate", psci::MIGRATE_64)?;
    w.end_node(node)
}

fn interrupt_controller(w: &mut FdtWriter, d: &Description<'_>) -> Result<(), Error> {
    let node = w.begin_node(&node_name("intc", spec::GIC_DISTRIBUTOR, ""))?;
    w.property_u32("#interrupt-cells", 3)?;
    w.property_null("interrupt-controller")?;
    w.property_u32("#address-cells", 2)?;
    w.property_u32("#size-cells", 2)?;
    w.property_null("ranges")?;
    let cells = |regions: &[Region]| regions.iter().flat_map(|r| [r.base, r.size]).collect::<Vec<_>>();
    match d.gic {
        GicVersion::V2 => {
            w.property_string("compatible", "arm,cortex-a15-gic")?;
            w.property_array_u64("reg", &cells(&[spec::GIC_DISTRIBUTOR_V2, spec::GIC_INTERFACE]))?;
        }
        GicVersion::V3 => {
            w.property_string("compatible", "arm,gic-v3")?;
            let mut regions = redistributor_regions(d.topology.places(), spec::RAM_BASE + d.memory);
            w.property_u32("#redistributor-regions", regions.len() as u32)?;
            regions.insert(0, spec::GIC_DISTRIBUTOR);
            w.property_array_u64("reg", &cells(&regions))?;
        }
    }
    w.property_phandle(PHANDLE_GIC)?;
    if d.gic == GicVersion::V3 {
        translation_service(w)?;
    }
    w.end_node(node)
}

fn translation_service(w: &mut FdtWriter) -> Result<(), Error> {
    let node = w.begin_node(&node_name("its", spec::ITS, ""))?;
    w.property_string("compatible", "arm,gic-v3-its")?;
    w.property_null("msi-controller")?;
    w.property_u32("#msi-cells", 1)?;
    w.property_array_u64("reg", &[spec::ITS.base, spec::ITS.size])?;
    w.property_phandle(PHANDLE_ITS)?;
    w.end_node(node)
}

/// The windows that the redistributors of `cpus` CPUs take, for RAM that ends at `ram_end`.
pub fn redistributor_regions(cpus: usize, ram_end: u64) -> Vec<Region> {
    let region = |base, count: usize| Region { base, size: count as u64 * spec::GIC_REDISTRIBUTOR_STRIDE };
    let low = cpus.min(spec::GIC_REDISTRIBUTOR_LOW_COUNT);
    let mut regions = vec![region(spec::GIC_REDISTRIBUTOR.base, low)];
    if cpus > low {
        regions.push(region(spec::redistributor_high_base(ram_end), cpus - low));
    }
    regions
}

fn timer(w: &mut FdtWriter, d: &Description<'_>) -> Result<(), Error> {
    let node = w.begin_node("timer")?;
    w.property_string_list("compatible", vec!["arm,armv8-timer".into(), "arm,armv7-timer".into()])?;
    w.property_null("always-on")?;
    let ppis =
        [spec::PPI_TIMER_SECURE, spec::PPI_TIMER_PHYSICAL, spec::PPI_TIMER_VIRTUAL, spec::PPI_TIMER_EL2];
    let cells: Vec<u32> = ppis.iter().flat_map(|&ppi| [GIC_PPI, ppi, private_level(d)]).collect();
    w.property_array_u32("interrupts", &cells)?;
    w.end_node(node)
}

/// Flags of a CPU's own level interrupt. A GICv2's binding has the CPUs in it.
fn private_level(d: &Description<'_>) -> u32 {
    match d.gic {
        GicVersion::V2 => LEVEL_HIGH | ((1 << d.topology.places()) - 1) << GIC_CPUS,
        GicVersion::V3 => LEVEL_HIGH,
    }
}

fn peripherals(w: &mut FdtWriter) -> Result<(), Error> {
    let clock = w.begin_node("apb-pclk")?;
    w.property_string("compatible", "fixed-clock")?;
    w.property_u32("#clock-cells", 0)?;
    w.property_u32("clock-frequency", APB_CLOCK_HZ)?;
    w.property_string("clock-output-names", "clk24mhz")?;
    w.property_phandle(PHANDLE_CLOCK)?;
    w.end_node(clock)?;

    let uart = w.begin_node(&node_name("pl011", spec::UART0, ""))?;
    primecell(w, "arm,pl011", spec::UART0, spec::SPI_UART0)?;
    w.property_array_u32("clocks", &[PHANDLE_CLOCK, PHANDLE_CLOCK])?;
    w.property_string_list("clock-names", vec!["uartclk".into(), "apb_pclk".into()])?;
    w.end_node(uart)?;

    let rtc = w.begin_node(&node_name("pl031", spec::RTC, ""))?;
    primecell(w, "arm,pl031", spec::RTC, spec::SPI_RTC)?;
    apb_clock(w)?;
    w.end_node(rtc)?;

    let gpio = w.begin_node(&node_name("pl061", spec::GPIO, ""))?;
    primecell(w, "arm,pl061", spec::GPIO, spec::SPI_GPIO)?;
    apb_clock(w)?;
    w.property_null("gpio-controller")?;
    w.property_u32("#gpio-cells", 2)?;
    w.property_null("interrupt-controller")?;
    w.property_u32("#interrupt-cells", 2)?;
    w.property_u32("#address-cells", 0)?;
    w.property_phandle(PHANDLE_GPIO)?;
    w.end_node(gpio)?;

    let keys = w.begin_node("gpio-keys")?;
    w.property_string("compatible", "gpio-keys")?;
    let key = w.begin_node("poweroff")?;
    w.property_string("label", "GPIO Key Poweroff")?;
    w.property_u32("linux,code", KEY_POWER)?;
    w.property_array_u32("gpios", &[PHANDLE_GPIO, spec::GPIO_POWER_KEY, 0])?;
    w.end_node(key)?;
    w.end_node(keys)
}

fn primecell(w: &mut FdtWriter, compatible: &str, region: Region, spi: u32) -> Result<(), Error> {
    w.property_string_list("compatible", vec![compatible.into(), "arm,primecell".into()])?;
    w.property_array_u64("reg", &[region.base, region.size])?;
    w.property_array_u32("interrupts", &[GIC_SPI, spi, LEVEL_HIGH])
}

fn apb_clock(w: &mut FdtWriter) -> Result<(), Error> {
    w.property_u32("clocks", PHANDLE_CLOCK)?;
    w.property_string("clock-names", "apb_pclk")
}

/// Nodes of the slots in use, first device first: Linux numbers its disks in the order of the nodes.
fn virtio(w: &mut FdtWriter, devices: usize) -> Result<(), Error> {
    for slot in (0..devices).map(spec::virtio_slot_of_device) {
        let region = spec::virtio_mmio_slot(slot);
        let node = w.begin_node(&node_name("virtio_mmio", region, ""))?;
        w.property_string("compatible", "virtio,mmio")?;
        w.property_array_u64("reg", &[region.base, region.size])?;
        w.property_array_u32("interrupts", &[GIC_SPI, spec::SPI_VIRTIO_MMIO + slot as u32, LEVEL_HIGH])?;
        w.property_null("dma-coherent")?;
        w.end_node(node)?;
    }
    Ok(())
}

/// The host bridge (the Linux kernel's pci/host-generic-pci.yaml, pci/pci-msi.txt; IEEE 1275 PCI bus binding).
fn pcie(w: &mut FdtWriter, bus: &Pcie) -> Result<(), Error> {
    /// Kinds of address in a range: ports, memory of 32 bits.
    const PORTS: u32 = 1 << 24;
    const MEMORY: u32 = 2 << 24;
    /// Device and pin of an interrupt, the bits that count.
    const MASK: [u32; 4] = [0x1800, 0, 0, 7];
    let halves = |value: u64| [(value >> 32) as u32, value as u32];
    let node = w.begin_node(&node_name("pcie", spec::PCIE_MEMORY, ""))?;
    w.property_string("compatible", "pci-host-ecam-generic")?;
    w.property_string("device_type", "pci")?;
    w.property_u32("#address-cells", 3)?;
    w.property_u32("#size-cells", 2)?;
    w.property_u32("#interrupt-cells", 1)?;
    w.property_u32("linux,pci-domain", 0)?;
    w.property_array_u32("bus-range", &[0, spec::PCIE_BUSES - 1])?;
    w.property_null("dma-coherent")?;
    w.property_array_u64("reg", &[spec::PCIE_ECAM.base, spec::PCIE_ECAM.size])?;
    // Ports begin at 0, memory is where the CPU has it.
    let range = |kind, at: u64, region: Region| {
        [vec![kind], [at, region.base, region.size].into_iter().flat_map(halves).collect()].concat()
    };
    let ports = range(PORTS, 0, spec::PCIE_PORTS);
    let memory = range(MEMORY, spec::PCIE_MEMORY.base, spec::PCIE_MEMORY);
    w.property_array_u32("ranges", &[ports, memory].concat())?;
    let entry = |device: u32, pin: u32| {
        let spi = spec::SPI_PCIE + (device + pin - 1) % 4;
        [device << 11, 0, 0, pin, PHANDLE_GIC, 0, 0, GIC_SPI, spi, LEVEL_HIGH]
    };
    let map: Vec<u32> = (0..4).flat_map(|device| (1..=4).flat_map(move |pin| entry(device, pin))).collect();
    w.property_array_u32("interrupt-map", &map)?;
    w.property_array_u32("interrupt-map-mask", &MASK)?;
    if bus.takes_messages {
        // A requester ID is the DeviceID.
        w.property_array_u32("msi-map", &[0, PHANDLE_ITS, 0, 0x1_0000])?;
    }
    w.end_node(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHES: [CacheGeometry; 3] = [
        CacheGeometry { size: 64 << 10, ways: 4, line: 64 },
        CacheGeometry { size: 32 << 10, ways: 2, line: 64 },
        CacheGeometry { size: 1 << 20, ways: 8, line: 64 },
    ];

    fn tree(cpus: usize, virtio_slots: usize) -> Vec<u8> {
        arranged(Topology::flat(cpus), virtio_slots)
    }

    fn arranged(topology: Topology, virtio_slots: usize) -> Vec<u8> {
        generate(&described(topology, virtio_slots)).unwrap()
    }

    fn described(topology: Topology, virtio_slots: usize) -> Description<'static> {
        Description {
            cpu_compatible: "arm,neoverse-n1",
            topology,
            caches: CACHES,
            memory: 2 << 30,
            gic: GicVersion::V3,
            counters: false,
            virtio_slots,
            pcie: None,
            append: "console=ttyAMA0",
            initrd: Some((0x4800_0000, 0x4810_0000)),
            kaslr_seed: Some(7),
            rng_seed: &[1; 32],
        }
    }

    #[test]
    fn a_gicv3_has_an_its_below_it() {
        let blob = tree(2, 1);
        let tree = fdt::Fdt::new(&blob).unwrap();
        let its = tree.find_node("/intc@8000000/its@8080000").unwrap();
        assert_eq!(its.compatible().unwrap().first(), "arm,gic-v3-its");
        let region = its.reg().unwrap().next().unwrap();
        assert_eq!((region.starting_address as u64, region.size), (0x0808_0000, Some(0x2_0000)));
        assert!(its.property("msi-controller").is_some());
        assert_eq!(its.property("#msi-cells").unwrap().as_usize(), Some(1));
        assert_eq!(its.property("phandle").unwrap().as_usize(), Some(PHANDLE_ITS as usize));
    }

    #[test]
    fn a_gicv2_has_its_cpu_interfaces_and_its_private_interrupts_their_cpus() {
        let v2 = Description { gic: GicVersion::V2, counters: true, ..described(Topology::flat(3), 1) };
        let blob = generate(&v2).unwrap();
        let tree = fdt::Fdt::new(&blob).unwrap();
        let gic = tree.find_compatible(&["arm,cortex-a15-gic"]).unwrap();
        let regions: Vec<_> =
            gic.reg().unwrap().map(|r| (r.starting_address as u64, r.size.unwrap() as u64)).collect();
        assert_eq!(regions, [(0x0800_0000, 0x1000), (0x0801_0000, 0x2000)]);
        assert!(tree.find_compatible(&["arm,gic-v3"]).is_none());
        assert!(tree.find_compatible(&["arm,gic-v3-its"]).is_none());
        let timer = tree.find_compatible(&["arm,armv8-timer"]).unwrap();
        assert_eq!(timer.property("interrupts").unwrap().value[8..12], [0, 0, 7, 4]);
        let counters = tree.find_compatible(&["arm,armv8-pmuv3"]).unwrap().property("interrupts").unwrap();
        assert_eq!(counters.value, [0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 7, 4]);
    }

    #[test]
    fn an_independent_reader_finds_the_board() {
        let blob = tree(4, 2);
        let tree = fdt::Fdt::new(&blob).unwrap();
        assert_eq!(tree.chosen().bootargs(), Some("console=ttyAMA0"));
        assert_eq!(tree.chosen().stdout().unwrap().name, "pl011@9000000");
        assert_eq!(tree.cpus().map(|c| c.ids().first()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let memory = tree.memory();
        let region = memory.regions().next().unwrap();
        assert_eq!(region.starting_address as u64, spec::RAM_BASE);
        assert_eq!(region.size, Some(2 << 30));
        for provider in ["/intc@8000000", "/pl061@9030000"] {
            let node = tree.find_node(provider).unwrap();
            assert!(
                ["#interrupt-cells", "#address-cells"].iter().all(|p| node.property(p).is_some()),
                "{provider}"
            );
        }
        assert_eq!(tree.find_node("/psci").unwrap().property("method").unwrap().as_str(), Some("hvc"));
        let first = tree.find_compatible(&["virtio,mmio"]).unwrap();
        assert_eq!(first.name, "virtio_mmio@a003e00");
        let irq: Vec<u8> = first.property("interrupts").unwrap().value.to_vec();
        assert_eq!(irq, [0, 0, 0, 0, 0, 0, 0, 47, 0, 0, 0, 4]);
        assert_eq!(tree.all_nodes().filter(|n| n.name.starts_with("virtio_mmio")).count(), 2);
    }

    #[test]
    fn pci_express_is_there_if_something_is_on_it() {
        let none = tree(1, 1);
        assert!(fdt::Fdt::new(&none).unwrap().find_compatible(&["pci-host-ecam-generic"]).is_none());
        let cells = |property: &str, takes_messages| {
            let blob = generate(&Description {
                pcie: Some(Pcie { takes_messages }),
                ..described(Topology::flat(1), 1)
            });
            let blob = blob.unwrap();
            let tree = fdt::Fdt::new(&blob).unwrap();
            let node = tree.find_node("/pcie@10000000").unwrap();
            let bytes = node.property(property).map_or(&[][..], |property| property.value);
            let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
            bytes.chunks(4).map(word).collect::<Vec<_>>()
        };
        assert_eq!(cells("reg", false), [0, 0x3f00_0000, 0, 0x100_0000]);
        assert_eq!(cells("bus-range", false), [0, 15]);
        let ports = [0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000];
        let memory = [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000];
        assert_eq!(cells("ranges", false), [ports, memory].concat());
        let map = cells("interrupt-map", false);
        let spi = |device: u32, pin: u32| {
            let entry = map.chunks(10).find(|e| e[..4] == [device << 11, 0, 0, pin]).unwrap();
            assert_eq!(entry[4..8], [PHANDLE_GIC, 0, 0, GIC_SPI]);
            assert_eq!(entry[9], LEVEL_HIGH);
            entry[8]
        };
        assert_eq!(map.len(), 160);
        assert_eq!([spi(0, 1), spi(1, 1), spi(2, 1), spi(3, 1), spi(3, 2)], [3, 4, 5, 6, 3]);
        assert!(cells("msi-map", false).is_empty());
        assert_eq!(cells("msi-map", true), [0, PHANDLE_ITS, 0, 0x1_0000]);
    }

    #[test]
    fn cpus_are_arranged_and_have_caches() {
        let blob = arranged(Topology { sockets: 2, clusters: 2, cores: 2, threads: 2 }, 1);
        let tree = fdt::Fdt::new(&blob).unwrap();
        let number = |node: &fdt::node::FdtNode<'_, '_>, name: &str| {
            node.property(name).map(|p| p.value.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte)))
        };
        let map = tree.find_node("/cpus/cpu-map/socket1/cluster0/core1/thread1").unwrap();
        let cpu = tree.find_node("/cpus/cpu@100000101").unwrap();
        assert_eq!(number(&map, "cpu"), number(&cpu, "phandle"));
        assert_eq!(number(&cpu, "reg"), Some(0x1_0000_0101));
        assert_eq!(tree.all_nodes().filter(|n| n.name.starts_with("thread")).count(), 16);
        let l2 = tree.find_node("/cpus/l2-cache2").unwrap();
        assert_eq!(number(&cpu, "next-level-cache"), number(&l2, "phandle"));
        let told = |node, prefix: &str| {
            ["size", "line-size", "sets"].map(|p| number(node, &format!("{prefix}cache-{p}")).unwrap())
        };
        assert_eq!(told(&cpu, "d-"), [64 << 10, 64, 256]);
        assert_eq!(told(&cpu, "i-"), [32 << 10, 64, 256]);
        assert_eq!(told(&l2, ""), [1 << 20, 64, 2048]);
    }

    #[test]
    fn without_threads_a_core_is_a_cpu_and_its_affinity_one_cell() {
        let blob = tree(4, 1);
        let tree = fdt::Fdt::new(&blob).unwrap();
        let cells = tree.find_node("/cpus").unwrap().property("#address-cells").unwrap().as_usize();
        let core = tree.find_node("/cpus/cpu-map/socket0/cluster0/core3").unwrap();
        let cpu = core.property("cpu").unwrap().as_usize();
        assert_eq!((cells, cpu), (Some(1), Some(PHANDLE_CPU0 as usize + 3)));
    }

    #[test]
    fn redistributors_beyond_the_low_region_get_a_second_one() {
        assert_eq!(redistributor_regions(123, 1 << 32).len(), 1);
        let two = redistributor_regions(512, 1 << 32);
        assert_eq!(two[0], spec::GIC_REDISTRIBUTOR);
        assert_eq!(two[1].base, spec::GIC_REDISTRIBUTOR_HIGH_BASE);
        assert_eq!(two[1].size, 389 * 0x2_0000);
        let blob = tree(512, 32);
        let parsed = fdt::Fdt::new(&blob).unwrap();
        assert_eq!(parsed.cpus().count(), 512);
        let gic = parsed.find_compatible(&["arm,gic-v3"]).unwrap();
        assert_eq!(gic.reg().unwrap().count(), 3);
    }
}
