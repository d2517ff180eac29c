//! Where in RAM the kernel, the device tree and the initrd go.

use std::path::Path;

use super::dtb;
use super::{Kernel, KernelKind};
use crate::error::BootError;
use crate::spec::RAM_BASE;

/// arm64 Linux wants its image at an offset from a 2 MiB boundary, and the device tree in 2 MiB of its own.
const BLOCK: u64 = 2 << 20;
const INITRD_ALIGN: u64 = 64 << 10;
/// A file that wants to lie beyond this many bytes of RAM is no kernel that somebody made.
const NO_MACHINE_HAS: u64 = 1 << 44;

/// Guest-physical addresses of what is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First byte of the kernel (lowest address of an ELF file).
    pub kernel: u64,
    /// Most bytes that the kernel may take.
    pub kernel_limit: u64,
    /// First instruction.
    pub entry: u64,
    /// Device tree; up to [`dtb::MAX_SIZE`] bytes may be there.
    pub device_tree: u64,
    /// Initrd, if there is one.
    pub initrd: u64,
}

impl Layout {
    /// Plans for RAM of `memory` bytes and an initrd with this path and length.
    pub(crate) fn plan(
        kernel: &Kernel,
        initrd: Option<(&Path, u64)>,
        memory: u64,
    ) -> Result<Self, BootError> {
        match kernel.kind() {
            KernelKind::Linux(image) => {
                let layout = Self::linux(image.text_offset, kernel.linux_size(image));
                layout.check(kernel, initrd, memory)?;
                Ok(layout)
            }
            KernelKind::Elf(elf) => {
                let (start, end) = elf.range();
                fits("kernel", kernel.path(), end - RAM_BASE, memory)?;
                // At the start of RAM, as bare-metal programs expect, unless the program itself is there.
                let clear = start >= RAM_BASE + dtb::MAX_SIZE;
                let device_tree = if clear { RAM_BASE } else { (end - 1) / BLOCK * BLOCK + BLOCK };
                let needed = (device_tree - RAM_BASE).saturating_add(dtb::MAX_SIZE);
                fits("kernel with its device tree", kernel.path(), needed, memory)?;
                Ok(Self {
                    kernel: start,
                    kernel_limit: end - start,
                    entry: elf.entry,
                    device_tree,
                    initrd: end,
                })
            }
        }
    }

    /// Kernel at the start of RAM, then the device tree, then the initrd.
    fn linux(text_offset: u64, size: u64) -> Self {
        // A header can say anything; what is beyond any memory is cut to keep the sums in range.
        const BEYOND: u64 = 1 << 52;
        let kernel = RAM_BASE + text_offset.min(BEYOND);
        let device_tree = (kernel + size.min(BEYOND)).next_multiple_of(BLOCK);
        let initrd = (device_tree + dtb::MAX_SIZE).next_multiple_of(INITRD_ALIGN);
        Self { kernel, kernel_limit: device_tree - kernel, entry: kernel, device_tree, initrd }
    }

    fn check(&self, kernel: &Kernel, initrd: Option<(&Path, u64)>, memory: u64) -> Result<(), BootError> {
        fits("kernel", kernel.path(), self.initrd - RAM_BASE, memory)?;
        if let Some((path, len)) = initrd {
            fits("initrd", path, (self.initrd - RAM_BASE).saturating_add(len), memory)?;
        }
        Ok(())
    }
}

fn fits(what: &'static str, path: &Path, needed: u64, memory: u64) -> Result<(), BootError> {
    if needed <= memory {
        return Ok(());
    }
    if needed > NO_MACHINE_HAS {
        let why = "its headers ask for more memory than any machine has".into();
        return Err(BootError::Damaged { path: path.into(), why });
    }
    Err(BootError::DoesNotFit { what, path: path.into(), needed, memory })
}
