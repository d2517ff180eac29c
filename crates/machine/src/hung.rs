//! Virtio devices and where they hang: in the board's slots, or on PCI Express.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use armlet_accel_kvm::{KvmBell, KvmMachine};
use armlet_memory::{AccessSize, MmioDevice, Ram};
use armlet_pci::{Function, HostBridge, IntxLines};
use armlet_virtio::spec::mmio::QUEUE_NOTIFY;
use armlet_virtio::{Doorbell, MmioTransport, PciPlace, PciTransport, Transport, VirtioDevice};

use crate::config::Bus;
use crate::error::ConfigError;
use crate::interrupts::Interrupts;
use crate::spec::{self, Region};

/// A device, and where it is to hang.
pub(crate) type Hanging = (Bus, Arc<dyn VirtioDevice>);

/// Windows in the guest's memory.
type Windows = Vec<(Region, Arc<dyn MmioDevice>)>;

/// All virtio devices, in the order in which they were given.
pub(crate) struct Hung {
    pub(crate) transports: Vec<Arc<dyn Transport>>,
    /// There if something is on it.
    pub(crate) bridge: Option<Arc<HostBridge>>,
    pub(crate) windows: Windows,
}

/// What devices are hung with.
pub(crate) struct Hanger<'a> {
    pub(crate) ram: &'a Ram,
    pub(crate) interrupts: &'a dyn Interrupts,
    pub(crate) kvm: Option<&'a Arc<KvmMachine>>,
}

impl Hanger<'_> {
    /// Hangs all of them.
    pub(crate) fn hang(&self, devices: Vec<Hanging>) -> Result<Hung, ConfigError> {
        let pins = IntxLines::new([
            self.interrupts.spi(spec::SPI_PCIE)?,
            self.interrupts.spi(spec::SPI_PCIE + 1)?,
            self.interrupts.spi(spec::SPI_PCIE + 2)?,
            self.interrupts.spi(spec::SPI_PCIE + 3)?,
        ]);
        let mut transports: Vec<Arc<dyn Transport>> = Vec::new();
        let mut functions: Vec<Arc<dyn Function>> = Vec::new();
        let (mut windows, mut slots) = (Windows::new(), 0);
        for (bus, device) in devices {
            match bus {
                Bus::Mmio => {
                    let (region, transport) = self.in_slot(spec::virtio_slot_of_device(slots), device)?;
                    windows.push((region, Arc::clone(&transport) as _));
                    transports.push(transport);
                    slots += 1;
                }
                Bus::Pci => {
                    // The bridge is device 0.
                    let number = functions.len() as u8 + 1;
                    let (pin, messages) = (pins.pin(number), self.interrupts.messages());
                    let place = PciPlace { number, pin, messages, bell: self.bell(&*device)? };
                    let transport = Arc::new(PciTransport::new(device, self.ram.clone(), place));
                    functions.push(Arc::clone(&transport) as _);
                    transports.push(transport);
                }
            }
        }
        let empty: Arc<dyn MmioDevice> = Arc::new(EmptySlot);
        let rest = (slots..spec::VIRTIO_MMIO_SLOTS).map(spec::virtio_slot_of_device);
        windows.extend(rest.map(|slot| (spec::virtio_mmio_slot(slot), Arc::clone(&empty))));
        let Region { base, size } = spec::PCIE_MEMORY;
        let bridge = (!functions.is_empty()).then(|| HostBridge::new(functions, base, size));
        if let Some(bridge) = &bridge {
            windows.push((spec::PCIE_MEMORY, bridge.memory()));
            windows.push((spec::PCIE_PORTS, bridge.ports()));
            windows.push((spec::PCIE_ECAM, bridge.ecam()));
        }
        Ok(Hung { transports, bridge, windows })
    }

    /// What the guest's notifications ring without an exit, if the device takes them so.
    fn bell(&self, device: &dyn VirtioDevice) -> Result<Option<Box<dyn Doorbell>>, ConfigError> {
        let Some(machine) = self.kvm.filter(|_| device.takes_doorbell()) else { return Ok(None) };
        let bell = machine.bell()?;
        device.take_doorbell(bell.descriptor()?);
        Ok(Some(Box::new(Bell { bell, refusals: AtomicU32::new(0) })))
    }

    fn in_slot(
        &self,
        slot: usize,
        device: Arc<dyn VirtioDevice>,
    ) -> Result<(Region, Arc<MmioTransport>), ConfigError> {
        let line = self.interrupts.spi(spec::SPI_VIRTIO_MMIO + slot as u32)?;
        let set = Arc::new(move |level| line.set(level));
        let region = spec::virtio_mmio_slot(slot);
        // As by [`Self::bell`], in a place that never changes.
        if let Some(machine) = self.kvm.filter(|_| device.takes_doorbell()) {
            device.take_doorbell(machine.doorbell(region.base + QUEUE_NOTIFY)?);
        }
        Ok((region, Arc::new(MmioTransport::new(device, self.ram.clone(), set))))
    }
}

/// A bell in the host's kernel.
struct Bell {
    bell: KvmBell,
    refusals: AtomicU32,
}

/// Refusals of the kernel that are logged one by one.
const MAX_LOGGED: u32 = 4;

impl Doorbell for Bell {
    fn ring_at(&self, addresses: &[u64]) {
        if let Err(error) = self.bell.ring_at(addresses)
            && self.refusals.fetch_add(1, Ordering::Relaxed) < MAX_LOGGED
        {
            tracing::warn!(%error, "a device's notifications take longer");
        }
    }
}

/// A virtio-mmio slot without a device: magic and version, device 0 (virtio 4.2.2).
struct EmptySlot;

impl MmioDevice for EmptySlot {
    fn name(&self) -> &str {
        "virtio-mmio (empty)"
    }

    fn read(&self, offset: u64, _size: AccessSize) -> u64 {
        match offset {
            0 => 0x7472_6976,
            4 => 2,
            _ => 0,
        }
    }

    fn write(&self, _offset: u64, _size: AccessSize, _value: u64) {}
}
