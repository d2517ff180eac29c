//! Guest-physical address space: RAM (one private mapping) and MMIO dispatch.
//!
//! An [`AddressSpace`] is built once by the board and is immutable afterwards, so looking an address up
//! takes no lock. Devices synchronise themselves; [`MmioDevice`] methods take `&self`.

use std::fs::File;
use std::sync::Arc;

use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub mod fileio;
pub mod heap;
mod ram;
pub use ram::{Present, Ram};

/// Guest-physical address (bytes).
pub type Gpa = u64;

/// Width of one access to memory or to a device register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessSize {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Double,
}

impl AccessSize {
    /// Size in bytes: 1, 2, 4 or 8.
    #[inline]
    pub const fn bytes(self) -> u64 {
        1 << self as u64
    }

    /// The size whose width is `1 << log2` bytes; `log2` above 3 is taken as 3.
    pub const fn from_log2(log2: u32) -> Self {
        match log2 {
            0 => Self::Byte,
            1 => Self::Half,
            2 => Self::Word,
            _ => Self::Double,
        }
    }
}

/// A device with registers in the guest-physical address space.
///
/// Called on the accessing vCPU's thread, with no lock held. Reads of registers that do not exist give 0 and
/// writes to them are ignored, unless the device's specification says otherwise.
pub trait MmioDevice: Send + Sync {
    /// Short name for logs and the memory map.
    fn name(&self) -> &str;
    /// Reads `size` bytes at `offset` from the start of the device's window.
    fn read(&self, offset: u64, size: AccessSize) -> u64;
    /// Writes the low `size` bytes of `value` at `offset`.
    fn write(&self, offset: u64, size: AccessSize, value: u64);
}

/// Why an access to guest-physical memory failed.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum MemoryError {
    /// Nothing, or not the thing wanted (RAM for DMA), is mapped there.
    #[error("no memory at guest-physical address {0:#x}")]
    Unmapped(Gpa),
    /// Two windows overlap.
    #[error("device window at {0:#x} overlaps another")]
    Overlap(Gpa),
}

struct Window {
    base: Gpa,
    size: u64,
    device: Arc<dyn MmioDevice>,
}

/// Collects RAM and device windows for an [`AddressSpace`].
pub struct AddressSpaceBuilder {
    ram: Ram,
    windows: Vec<Window>,
}

impl AddressSpaceBuilder {
    /// Starts with the machine's RAM.
    pub fn new(ram: Ram) -> Self {
        Self { ram, windows: Vec::new() }
    }

    /// Maps `device` at `[base, base + size)`.
    ///
    /// # Errors
    /// [`MemoryError::Overlap`] if the window meets RAM or another window.
    pub fn map(&mut self, base: Gpa, size: u64, device: Arc<dyn MmioDevice>) -> Result<(), MemoryError> {
        let end = base.checked_add(size).ok_or(MemoryError::Overlap(base))?;
        let ram_end = self.ram.base() + self.ram.size();
        let meets_ram = base < ram_end && end > self.ram.base();
        let meets_window = self.windows.iter().any(|w| base < w.base + w.size && end > w.base);
        if size == 0 || meets_ram || meets_window {
            return Err(MemoryError::Overlap(base));
        }
        self.windows.push(Window { base, size, device });
        Ok(())
    }

    /// Finishes the map.
    pub fn build(mut self) -> AddressSpace {
        self.windows.sort_by_key(|w| w.base);
        AddressSpace { ram: self.ram, windows: self.windows }
    }
}

/// The guest-physical address space of one machine.
pub struct AddressSpace {
    ram: Ram,
    windows: Vec<Window>,
}

impl AddressSpace {
    /// The machine's RAM.
    #[inline]
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// The device window that holds `gpa`: its device and the offset in it.
    pub fn device_at(&self, gpa: Gpa) -> Option<(&Arc<dyn MmioDevice>, u64)> {
        let i = self.windows.partition_point(|w| w.base <= gpa).checked_sub(1)?;
        let w = &self.windows[i];
        (gpa - w.base < w.size).then(|| (&w.device, gpa - w.base))
    }

    /// Reads a device register.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] if no device is there.
    pub fn mmio_read(&self, gpa: Gpa, size: AccessSize) -> Result<u64, MemoryError> {
        let (device, offset) = self.device_at(gpa).ok_or(MemoryError::Unmapped(gpa))?;
        Ok(device.read(offset, size))
    }

    /// Writes a device register.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`] if no device is there.
    pub fn mmio_write(&self, gpa: Gpa, size: AccessSize, value: u64) -> Result<(), MemoryError> {
        let (device, offset) = self.device_at(gpa).ok_or(MemoryError::Unmapped(gpa))?;
        device.write(offset, size, value);
        Ok(())
    }

    /// Every device window: base, size, name; lowest first.
    pub fn windows(&self) -> impl Iterator<Item = (Gpa, u64, &str)> {
        self.windows.iter().map(|w| (w.base, w.size, w.device.name()))
    }
}
