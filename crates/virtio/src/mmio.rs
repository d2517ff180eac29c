//! The MMIO transport (virtio 4.2), version 2.

use std::sync::Arc;

use armlet_memory::{AccessSize, MmioDevice, Ram};
use armlet_saved::{SavedVirtio, Unfit};

use crate::device::{LineSetter, VirtioDevice};
use crate::registers::{Registers, Transport, set_high, set_low};
use crate::spec::mmio;

/// A virtio device with its registers in the guest-physical address space.
pub struct MmioTransport {
    registers: Registers,
}

impl MmioTransport {
    /// Puts `device` behind registers; its buffers are in `memory`, and `line` is its interrupt line
    /// (level-sensitive, active high).
    pub fn new(device: Arc<dyn VirtioDevice>, memory: Ram, line: LineSetter) -> Self {
        Self { registers: Registers::new(device, memory, Box::new(line)) }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let registers = &self.registers;
        match offset {
            mmio::MAGIC_VALUE => mmio::MAGIC,
            mmio::VERSION => mmio::VERSION_2,
            mmio::DEVICE_ID => registers.device.device_id(),
            mmio::VENDOR_ID => mmio::VENDOR,
            mmio::INTERRUPT_STATUS => registers.link.causes(),
            mmio::CONFIG_GENERATION => registers.link.generation(),
            mmio::DEVICE_FEATURES => registers.device_features(),
            mmio::QUEUE_NUM_MAX => registers.queue_size_max().into(),
            mmio::QUEUE_READY => registers.queue().ready.into(),
            mmio::STATUS => registers.status(),
            // No shared memory regions: length and base of all ones (4.2.2).
            mmio::SHM_LEN_LOW | mmio::SHM_LEN_HIGH | mmio::SHM_BASE_LOW | mmio::SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        let registers = &self.registers;
        match offset {
            // The two registers of the fast path take no lock here.
            mmio::QUEUE_NOTIFY => {
                if let Ok(queue) = u16::try_from(value) {
                    registers.device.notify(queue);
                }
            }
            mmio::INTERRUPT_ACK => {
                registers.link.acknowledge(value);
            }
            mmio::STATUS => registers.write_status(value),
            mmio::DEVICE_FEATURES_SEL => registers.lock().device_features_sel = value,
            mmio::DRIVER_FEATURES_SEL => registers.lock().driver_features_sel = value,
            mmio::DRIVER_FEATURES => registers.write_features(value),
            mmio::QUEUE_SEL => registers.lock().queue_sel = value,
            mmio::QUEUE_READY => registers.write_ready(value & 1 != 0),
            _ => registers.write_layout(|layout| match offset {
                // A size that does not fit is refused when the device goes live, as 0 is.
                mmio::QUEUE_NUM => layout.size = u16::try_from(value).unwrap_or(0),
                mmio::QUEUE_DESC_LOW => set_low(&mut layout.descriptors, value),
                mmio::QUEUE_DESC_HIGH => set_high(&mut layout.descriptors, value),
                mmio::QUEUE_DRIVER_LOW => set_low(&mut layout.available, value),
                mmio::QUEUE_DRIVER_HIGH => set_high(&mut layout.available, value),
                mmio::QUEUE_DEVICE_LOW => set_low(&mut layout.used, value),
                mmio::QUEUE_DEVICE_HIGH => set_high(&mut layout.used, value),
                _ => {}
            }),
        }
    }
}

impl Transport for MmioTransport {
    fn device(&self) -> &Arc<dyn VirtioDevice> {
        &self.registers.device
    }

    fn reset(&self) {
        self.registers.reset();
    }

    fn quiesce(&self) {
        self.registers.device.quiesce();
    }

    fn resume(&self) {
        self.registers.device.resume();
    }

    fn save(&self) -> SavedVirtio {
        self.registers.save()
    }

    fn restore(&self, saved: &SavedVirtio) -> Result<(), Unfit> {
        self.quiesce();
        if saved.pci.is_some() {
            return Err(self.registers.unfit("it was a PCI function and is none"));
        }
        self.registers.restore(saved)
    }
}

impl MmioDevice for MmioTransport {
    fn name(&self) -> &str {
        self.registers.device.name()
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        if let Some(offset) = offset.checked_sub(mmio::CONFIG) {
            let mut bytes = [0; 8];
            self.registers.device.read_config(offset, &mut bytes[..size.bytes() as usize]);
            return u64::from_le_bytes(bytes);
        }
        // Drivers must use aligned words here (4.2.2.2).
        if size == AccessSize::Word && offset.is_multiple_of(4) {
            self.read_register(offset).into()
        } else {
            0
        }
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        if let Some(offset) = offset.checked_sub(mmio::CONFIG) {
            let features = self.registers.lock().driver_features;
            self.registers.device.write_config(
                features,
                offset,
                &value.to_le_bytes()[..size.bytes() as usize],
            );
        } else if size == AccessSize::Word && offset.is_multiple_of(4) {
            self.write_register(offset, value as u32);
        }
    }
}
