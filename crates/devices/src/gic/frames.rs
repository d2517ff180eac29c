//! The memory-mapped frames: the distributor and the redistributors.

use armlet_memory::AccessSize;

use super::spec::{SGI_BASE, common, gicd, gicr};
use super::state::{BitRegister, Block, State};

/// Builds a read of any size from reads of 32-bit registers, which have no side effects. Misaligned reads
/// give 0.
pub(super) fn read_sized(offset: u64, size: AccessSize, read: impl Fn(u64) -> u32) -> u64 {
    if !offset.is_multiple_of(size.bytes()) {
        return 0;
    }
    match size {
        AccessSize::Double => u64::from(read(offset)) | u64::from(read(offset + 4)) << 32,
        AccessSize::Word => u64::from(read(offset)),
        AccessSize::Half => u64::from(read(offset & !3) >> (8 * (offset & 3)) & 0xffff),
        AccessSize::Byte => u64::from(read(offset & !3) >> (8 * (offset & 3)) & 0xff),
    }
}

/// Value of an identification register.
pub(super) fn identification(offset: u64) -> u32 {
    let index = ((offset - common::IDREGS) / 4) as usize;
    common::ID_VALUES.get(index).copied().map_or(0, u32::from)
}

/// The low or high word of a 64-bit register, by address.
pub(super) fn half(value: u64, offset: u64) -> u32 {
    (value >> (8 * (offset & 4))) as u32
}

/// `old` with the word that `offset` addresses replaced.
pub(super) fn with_half(old: u64, offset: u64, word: u32) -> u64 {
    let shift = 8 * (offset & 4);
    (old & !(0xffff_ffff << shift)) | u64::from(word) << shift
}

/// Priority registers and the index of the interrupt that byte `offset` is for.
fn priority_index(offset: u64) -> Option<usize> {
    (common::IPRIORITYR..common::IPRIORITYR_END)
        .contains(&offset)
        .then(|| (offset - common::IPRIORITYR) as usize)
}

/// Which block's configuration, and which half of it, `offset` is for.
fn config_index(offset: u64) -> Option<(usize, bool)> {
    (common::ICFGR..common::ICFGR_END).contains(&offset).then(|| {
        let word = ((offset - common::ICFGR) / 4) as usize;
        (word / 2, word % 2 == 1)
    })
}

impl State {
    /// Block `index` of the distributor's registers; index 0 belongs to the redistributors.
    fn spi_block(&self, index: usize) -> Option<&Block> {
        self.blocks.get(index.checked_sub(1)?)
    }

    fn spi_block_mut(&mut self, index: usize) -> Option<&mut Block> {
        self.blocks.get_mut(index.checked_sub(1)?)
    }

    fn gicd_typer(&self) -> u32 {
        let ids = match self.lpis {
            Some(_) => gicd::TYPER_IDBITS_LPIS | gicd::TYPER_LPIS,
            None => gicd::TYPER_IDBITS,
        };
        self.blocks.len() as u32 | ids | gicd::TYPER_A3V | gicd::TYPER_RSS
    }

    /// Reads a word of the distributor.
    pub(super) fn gicd_read(&self, offset: u64) -> u32 {
        match offset {
            gicd::CTLR => self.ctlr | gicd::CTLR_ARE | gicd::CTLR_DS,
            gicd::TYPER => self.gicd_typer(),
            gicd::IIDR => common::IIDR_VALUE,
            common::BIT_REGISTERS..common::IPRIORITYR => BitRegister::at(offset)
                .and_then(|(register, index)| Some(self.spi_block(index)?.read(register)))
                .unwrap_or(0),
            gicd::IROUTER..gicd::IROUTER_END => {
                self.spi_of_route(offset).map_or(0, |spi| half(self.routes[spi], offset))
            }
            common::IDREGS..common::FRAME_END => identification(offset),
            _ => {
                if let Some(i) = priority_index(offset) {
                    self.spi_block(i / 32).map_or(0, |b| b.read_priorities(i % 32))
                } else if let Some((index, high)) = config_index(offset) {
                    self.spi_block(index).map_or(0, |b| b.read_config(high))
                } else {
                    0
                }
            }
        }
    }

    /// The SPI whose IROUTER holds `offset`.
    fn spi_of_route(&self, offset: u64) -> Option<usize> {
        let spi = ((offset - gicd::IROUTER) / 8).checked_sub(32)? as usize;
        (spi < self.routes.len()).then_some(spi)
    }

    /// Writes to the distributor with any size.
    pub(super) fn gicd_write(&mut self, offset: u64, size: AccessSize, value: u64) {
        if !offset.is_multiple_of(size.bytes()) {
            return;
        }
        if let Some(first) = priority_index(offset) {
            let bytes = size.bytes() as usize;
            for (i, byte) in value.to_le_bytes().into_iter().take(bytes).enumerate() {
                if let Some(b) = self.spi_block_mut((first + i) / 32) {
                    b.write_priority((first + i) % 32, byte);
                }
            }
            return self.update_all();
        }
        match size {
            AccessSize::Double if (gicd::IROUTER..gicd::IROUTER_END).contains(&offset) => {
                self.write_route(offset, value);
            }
            AccessSize::Double => {
                self.gicd_write_word(offset, value as u32);
                self.gicd_write_word(offset + 4, (value >> 32) as u32);
            }
            AccessSize::Word => self.gicd_write_word(offset, value as u32),
            // Only the priorities may be written by less than a word.
            AccessSize::Half | AccessSize::Byte => {}
        }
    }

    fn gicd_write_word(&mut self, offset: u64, value: u32) {
        match offset {
            gicd::CTLR => {
                self.ctlr = value & gicd::CTLR_WRITABLE;
                self.update_all();
            }
            common::BIT_REGISTERS..common::IPRIORITYR => {
                let Some((register, index)) = BitRegister::at(offset) else { return };
                let Some(changed) = self.spi_block_mut(index).map(|b| b.write(register, value)) else {
                    return;
                };
                self.block_changed(index - 1, changed);
            }
            gicd::IROUTER..gicd::IROUTER_END => {
                if let Some(spi) = self.spi_of_route(offset) {
                    self.write_route(offset, with_half(self.routes[spi], offset, value));
                }
            }
            _ => {
                if let Some((index, high)) = config_index(offset)
                    && let Some(block) = self.spi_block_mut(index)
                {
                    block.write_config(high, value);
                    self.block_changed(index - 1, !0);
                }
            }
        }
    }

    fn write_route(&mut self, offset: u64, value: u64) {
        if let Some(spi) = self.spi_of_route(offset) {
            self.routes[spi] = value & gicd::IROUTER_MASK;
            self.reroute(spi);
        }
    }

    /// Reads a word of `cpu`'s redistributor; `last` if it is the last of its region.
    pub(super) fn gicr_read(&self, cpu: usize, last: bool, offset: u64) -> u32 {
        let Some(c) = self.cpus.get(cpu) else { return 0 };
        if offset >= SGI_BASE {
            return sgi_frame_read(&c.private, offset - SGI_BASE);
        }
        match offset {
            gicr::CTLR if self.lpis.is_some() => c.ctlr | gicr::CTLR_CES | gicr::CTLR_IR,
            gicr::CTLR => c.ctlr,
            gicr::IIDR => common::IIDR_VALUE,
            gicr::WAKER if c.asleep => gicr::WAKER_PROCESSOR_SLEEP | gicr::WAKER_CHILDREN_ASLEEP,
            common::IDREGS..common::FRAME_END => identification(offset),
            _ => match offset & !7 {
                gicr::TYPER => {
                    let last = if last { gicr::TYPER_LAST } else { 0 };
                    let typer = u64::from(c.affinity) << 32 | (cpu as u64) << 8 | gicr::TYPER_DPGS | last;
                    half(typer | if self.lpis.is_some() { gicr::TYPER_PLPIS } else { 0 }, offset)
                }
                gicr::PROPBASER => half(self.lpis.as_ref().map_or(0, |lpis| lpis.propbaser), offset),
                gicr::PENDBASER => half(c.pendbaser, offset),
                _ => 0,
            },
        }
    }

    /// Writes to `cpu`'s redistributor with any size.
    pub(super) fn gicr_write(&mut self, cpu: usize, offset: u64, size: AccessSize, value: u64) {
        let Some(c) = self.cpus.get_mut(cpu) else { return };
        if !offset.is_multiple_of(size.bytes()) {
            return;
        }
        if let Some(first) = offset.checked_sub(SGI_BASE).and_then(priority_index) {
            let bytes = size.bytes() as usize;
            for (i, byte) in value.to_le_bytes().into_iter().take(bytes).enumerate() {
                c.private.write_priority(first + i, byte);
            }
            return self.update(cpu);
        }
        match size {
            AccessSize::Double if offset == gicr::PENDBASER => self.write_pendbaser(cpu, value),
            AccessSize::Double => {
                self.gicr_write_word(cpu, offset, value as u32);
                self.gicr_write_word(cpu, offset + 4, (value >> 32) as u32);
            }
            AccessSize::Word => self.gicr_write_word(cpu, offset, value as u32),
            AccessSize::Half | AccessSize::Byte => {}
        }
    }

    fn gicr_write_word(&mut self, cpu: usize, offset: u64, value: u32) {
        let Some(c) = self.cpus.get_mut(cpu) else { return };
        if offset >= SGI_BASE {
            sgi_frame_write(&mut c.private, offset - SGI_BASE, value);
            return self.update(cpu);
        }
        match offset {
            gicr::CTLR => {
                let dpg = gicr::CTLR_DPG0 | gicr::CTLR_DPG1;
                c.ctlr = (c.ctlr & !dpg) | (value & dpg);
                self.switch_lpis(cpu, value & gicr::CTLR_ENABLE_LPIS != 0);
                self.participants_changed();
            }
            gicr::WAKER => {
                c.asleep = value & gicr::WAKER_PROCESSOR_SLEEP != 0;
                self.participants_changed();
            }
            gicr::INVLPIR => self.reload_lpi(value),
            gicr::INVALLR => {
                self.reload_lpis(cpu);
            }
            _ => match offset & !7 {
                gicr::PROPBASER => {
                    let old = self.lpis.as_ref().map_or(0, |lpis| lpis.propbaser);
                    self.write_propbaser(cpu, with_half(old, offset, value));
                }
                gicr::PENDBASER => {
                    let old = c.pendbaser;
                    self.write_pendbaser(cpu, with_half(old, offset, value));
                }
                _ => {}
            },
        }
    }
}

fn sgi_frame_read(block: &Block, offset: u64) -> u32 {
    if let Some((register, 0)) = BitRegister::at(offset) {
        return block.read(register);
    }
    if let Some(first) = priority_index(offset) {
        return block.read_priorities(first);
    }
    match config_index(offset) {
        Some((0, high)) => block.read_config(high),
        _ => 0,
    }
}

fn sgi_frame_write(block: &mut Block, offset: u64, value: u32) {
    if let Some((register, 0)) = BitRegister::at(offset) {
        block.write(register, value);
    } else if let Some((0, true)) = config_index(offset) {
        // The lower half, the SGIs', is fixed.
        block.write_config(true, value);
    }
}
