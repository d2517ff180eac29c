//! The PCI transport worked as if it were the MMIO transport, by INTx.

use std::sync::Arc;
use std::time::Duration;

use armlet_devices::InterruptLine;
use armlet_memory::{AccessSize, MmioDevice, Ram};
use armlet_pci::{Endpoint, Function};
use armlet_saved::{SavedVirtio, Unfit};
use armlet_virtio::spec::mmio;
use armlet_virtio::spec::pci::common;
use armlet_virtio::{PciPlace, PciTransport, Transport, VirtioDevice};

use super::Line;

pub const ISR: u64 = 0x1000;
pub const DEVICE: u64 = 0x2000;
pub const NOTIFY: u64 = 0x3000;
/// Memory and bus master.
pub const ON: u32 = 6;

impl InterruptLine for Line {
    fn set(&self, level: bool) {
        Line::set(self, level);
    }
}

pub fn place(pin: Arc<Line>) -> PciPlace {
    PciPlace { number: 1, pin, messages: None, bell: None }
}

pub struct AsMmio(pub PciTransport);

impl AsMmio {
    pub fn new(device: Arc<dyn VirtioDevice>, ram: Ram, line: Arc<Line>) -> Self {
        let transport = Self(PciTransport::new(device, ram, place(line)));
        transport.0.write_config(4, AccessSize::Half, ON);
        transport
    }

    fn endpoint(&self) -> &Endpoint {
        self.0.endpoint()
    }
}

/// Where in BAR 0 an MMIO register is, and how wide.
fn field(offset: u64) -> Option<(u64, AccessSize)> {
    Some(match offset {
        mmio::DEVICE_FEATURES => (common::DEVICE_FEATURE, AccessSize::Word),
        mmio::DEVICE_FEATURES_SEL => (common::DEVICE_FEATURE_SELECT, AccessSize::Word),
        mmio::DRIVER_FEATURES => (common::DRIVER_FEATURE, AccessSize::Word),
        mmio::DRIVER_FEATURES_SEL => (common::DRIVER_FEATURE_SELECT, AccessSize::Word),
        mmio::QUEUE_SEL => (common::QUEUE_SELECT, AccessSize::Half),
        mmio::QUEUE_NUM | mmio::QUEUE_NUM_MAX => (common::QUEUE_SIZE, AccessSize::Half),
        mmio::QUEUE_READY => (common::QUEUE_ENABLE, AccessSize::Half),
        mmio::STATUS => (common::DEVICE_STATUS, AccessSize::Byte),
        mmio::CONFIG_GENERATION => (common::CONFIG_GENERATION, AccessSize::Byte),
        mmio::INTERRUPT_STATUS => (ISR, AccessSize::Byte),
        mmio::QUEUE_DESC_LOW..=mmio::QUEUE_DESC_HIGH => {
            (common::QUEUE_DESC + offset - mmio::QUEUE_DESC_LOW, AccessSize::Word)
        }
        mmio::QUEUE_DRIVER_LOW..=mmio::QUEUE_DRIVER_HIGH => {
            (common::QUEUE_DRIVER + offset - mmio::QUEUE_DRIVER_LOW, AccessSize::Word)
        }
        mmio::QUEUE_DEVICE_LOW..=mmio::QUEUE_DEVICE_HIGH => {
            (common::QUEUE_DEVICE + offset - mmio::QUEUE_DEVICE_LOW, AccessSize::Word)
        }
        _ => return None,
    })
}

impl MmioDevice for AsMmio {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        let ids = self.endpoint().read_config(0, AccessSize::Word);
        match (offset, field(offset)) {
            (mmio::MAGIC_VALUE, _) => mmio::MAGIC.into(),
            (mmio::VERSION, _) => 2,
            (mmio::DEVICE_ID, _) => u64::from(ids >> 16) - 0x1040,
            (mmio::CONFIG.., _) => {
                let inside = offset.checked_add(DEVICE - mmio::CONFIG).filter(|at| *at < NOTIFY);
                inside.map_or(0, |at| self.0.read(0, at, size))
            }
            (_, Some((at, size))) => self.0.read(0, at, size),
            _ => 0,
        }
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        match (offset, field(offset)) {
            (mmio::CONFIG.., _) => self.0.write(0, DEVICE + offset - mmio::CONFIG, size, value),
            (mmio::QUEUE_NOTIFY, _) => {
                self.0.write(0, NOTIFY + 4 * value.min(0x3ff), AccessSize::Half, value);
            }
            (mmio::INTERRUPT_STATUS, _) => {}
            // What does not fit is as bad as what cannot be.
            (_, Some((at, AccessSize::Half))) => self.0.write(0, at, AccessSize::Half, value.min(0xffff)),
            (_, Some((at, size))) => self.0.write(0, at, size, value),
            _ => {}
        }
    }
}

impl Transport for AsMmio {
    fn device(&self) -> &Arc<dyn VirtioDevice> {
        self.0.device()
    }

    /// And a driver that makes it a bus master again.
    fn reset(&self) {
        self.0.reset();
        self.0.write_config(4, AccessSize::Half, ON);
    }

    fn quiesce(&self) {
        self.0.quiesce();
    }

    fn resume(&self) {
        self.0.resume();
    }

    fn save(&self) -> SavedVirtio {
        self.0.save()
    }

    fn restore(&self, saved: &SavedVirtio) -> Result<(), Unfit> {
        self.0.restore(saved)
    }

    fn shutdown(&self, deadline: Duration) -> bool {
        self.0.shutdown(deadline)
    }
}
