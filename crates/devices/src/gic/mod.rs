//! GICv3: distributor, redistributors and system-register CPU interface (Arm IHI 0069).
//!
//! One security state (`GICD_CTLR.DS` is 1), affinity routing always on: group 0 interrupts are signalled as FIQ,
//! group 1 as IRQ. With memory for their tables there are LPIs ([`GicV3::with_lpis`]), which an [`Its`] sends. Five priority bits are implemented. Choices where the architecture
//! leaves one:
//!
//! - `GICR_WAKER` is honoured for the choice of a 1-of-N target, but does not hold back interrupts that name a
//!   CPU: programs written for emulated boards often leave it alone.
//! - A 1-of-N interrupt goes to the next participating CPU in turn each time it becomes pending.
//! - `ICC_DIR_EL1` with `EOImode` 0 does nothing; an EOI that does not match the highest active priority's
//!   group drops no priority.
//!
//! # Locking
//!
//! One lock holds all state. Every operation under it is short: state is a bit per interrupt in words of 32, so
//! finding a CPU's best pending interrupt is a handful of ANDs, and its result is kept, so an acknowledge
//! looks nothing up. The vCPUs' lines are driven with the lock held, so that levels change in the order of their
//! causes; a vCPU's kick must therefore never call back into the GIC. Who sleeps is woken behind it. Devices may hold their own lock when
//! they drive a line. The ITS is such a device: its lock comes before this one.

mod cpu_interface;
mod frames;
mod its;
mod lpi;
mod saved;
pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use armlet_arm::SysReg;
use armlet_engine::VcpuShared;
use armlet_memory::{AccessSize, MmioDevice, Ram};
use thiserror::Error;

use crate::line::InterruptLine;
use crate::lock;
pub use its::Its;
use lpi::Lpis;
use spec::{MAX_CPUS, MAX_SPIS, PPIS, PRIVATE_INTIDS, REDISTRIBUTOR_SIZE, SGIS};
use state::State;

/// Why an interrupt controller or one of its lines cannot be had.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum GicError {
    /// Too few or too many CPUs.
    #[error("a GICv3 serves 1 to 512 CPUs, not {0}; choose another number of CPUs")]
    Cpus(usize),
    /// Two CPUs with one affinity.
    #[error("two CPUs have the affinity {0:#x}; give each its own")]
    Affinity(u64),
    /// Too few or too many SPIs.
    #[error("a GICv3 has 32 to 960 SPIs in steps of 32, not {0}; choose such a number")]
    Spis(u32),
    /// There is no such SPI.
    #[error("there is no SPI {0} on this board; use a lower number")]
    NoSpi(u32),
    /// There is no such PPI.
    #[error("there is no PPI {1} of CPU {0}; PPIs are 0 to 15")]
    NoPpi(usize, u32),
}

/// What a GIC is made for.
#[derive(Clone, Debug)]
pub struct GicConfig {
    /// Number of SPIs, a multiple of 32.
    pub spis: u32,
    /// `MPIDR_EL1` of each vCPU; only the affinity fields matter.
    pub affinities: Vec<u64>,
}

/// The interrupt controller.
pub struct GicV3 {
    state: Mutex<State>,
    /// Levels of the SPIs' inputs, then of the PPIs', CPU by CPU. Written with the lock held; devices that
    /// drive a line to where it is already need no lock to find that out.
    levels: Box<[AtomicBool]>,
    cpus: usize,
    spis: u32,
}

/// Aff3:Aff2:Aff1:Aff0 from the layout of MPIDR_EL1.
fn packed_affinity(mpidr: u64) -> u32 {
    (mpidr & 0xff_ffff) as u32 | ((mpidr >> 8) & 0xff00_0000) as u32
}

impl GicV3 {
    /// Makes a GIC in reset state for `cpus`, which are in the order of `config.affinities`.
    ///
    /// # Errors
    /// [`GicError`] if the numbers are out of range, or two CPUs share an affinity.
    pub fn new(config: &GicConfig, cpus: Vec<Arc<VcpuShared>>) -> Result<Arc<Self>, GicError> {
        Self::build(config, cpus, None)
    }

    /// As [`Self::new`], with LPIs, whose tables are in `ram`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_lpis(
        config: &GicConfig,
        cpus: Vec<Arc<VcpuShared>>,
        ram: Ram,
    ) -> Result<Arc<Self>, GicError> {
        Self::build(config, cpus, Some(Lpis::new(ram)))
    }

    fn build(
        config: &GicConfig,
        cpus: Vec<Arc<VcpuShared>>,
        lpis: Option<Lpis>,
    ) -> Result<Arc<Self>, GicError> {
        let count = cpus.len();
        if count == 0 || count > MAX_CPUS || count != config.affinities.len() {
            return Err(GicError::Cpus(count));
        }
        if config.spis == 0 || config.spis > MAX_SPIS || !config.spis.is_multiple_of(32) {
            return Err(GicError::Spis(config.spis));
        }
        let mut seen = HashSet::new();
        if let Some(&twice) = config.affinities.iter().find(|a| !seen.insert(packed_affinity(**a))) {
            return Err(GicError::Affinity(twice));
        }
        let inputs = config.spis as usize + count * PPIS as usize;
        let levels = (0..inputs).map(|_| AtomicBool::new(false)).collect();
        let cpus = cpus.into_iter().zip(config.affinities.iter().map(|a| packed_affinity(*a))).collect();
        let state = Mutex::new(State::new(config.spis, cpus, lpis));
        Ok(Arc::new(Self { state, levels, cpus: count, spis: config.spis }))
    }

    /// Number of SPIs.
    pub fn spis(&self) -> u32 {
        self.spis
    }

    /// The input of SPI `n` (INTID `n + 32`).
    ///
    /// # Errors
    /// [`GicError::NoSpi`].
    pub fn spi(self: &Arc<Self>, n: u32) -> Result<Arc<dyn InterruptLine>, GicError> {
        if n >= self.spis {
            return Err(GicError::NoSpi(n));
        }
        let input = n as usize;
        Ok(Arc::new(Input { gic: Arc::clone(self), cpu: 0, intid: n + PRIVATE_INTIDS, input }))
    }

    /// The input of PPI `n` (INTID `n + 16`) of vCPU `cpu`.
    ///
    /// # Errors
    /// [`GicError::NoPpi`].
    pub fn ppi(self: &Arc<Self>, cpu: usize, n: u32) -> Result<Arc<dyn InterruptLine>, GicError> {
        if cpu >= self.cpus || n >= PPIS {
            return Err(GicError::NoPpi(cpu, n));
        }
        let input = (self.spis + n) as usize + cpu * PPIS as usize;
        Ok(Arc::new(Input { gic: Arc::clone(self), cpu, intid: n + SGIS, input }))
    }

    /// The distributor's frame, [`spec::DISTRIBUTOR_SIZE`] bytes.
    pub fn distributor(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Distributor(Arc::clone(self)))
    }

    /// The redistributors of the CPUs in `range`, one region of [`spec::REDISTRIBUTOR_SIZE`] bytes each.
    pub fn redistributors(self: &Arc<Self>, range: Range<usize>) -> Arc<dyn MmioDevice> {
        Arc::new(Redistributors { gic: Arc::clone(self), range })
    }

    /// Reads an `ICC_*` register for vCPU `cpu`. Others read as 0.
    pub fn read_icc(&self, cpu: usize, register: SysReg) -> u64 {
        self.read_icc_encoding(cpu, register.encoding())
    }

    /// Writes an `ICC_*` register for vCPU `cpu`. Others are ignored.
    pub fn write_icc(&self, cpu: usize, register: SysReg, value: u64) {
        self.write_icc_encoding(cpu, register.encoding(), value);
    }

    /// [`Self::read_icc`] by encoding (see [`spec::icc`]).
    pub fn read_icc_encoding(&self, cpu: usize, register: u16) -> u64 {
        self.with(|state| state.read_icc(cpu, register))
    }

    /// [`Self::write_icc`] by encoding.
    pub fn write_icc_encoding(&self, cpu: usize, register: u16, value: u64) {
        self.with(|state| state.write_icc(cpu, register, value));
    }

    /// Machine reset: all registers as at power-on. Inputs keep their levels, which are the devices'.
    pub fn reset(&self) {
        self.with(State::reset);
    }

    /// Resets one CPU interface, as when its CPU is switched on again.
    pub fn reset_cpu_interface(&self, cpu: usize) {
        self.with(|state| {
            if let Some(c) = state.cpus.get_mut(cpu) {
                c.interface = cpu_interface::CpuInterface::default();
                state.participants_changed();
                state.update(cpu);
            }
        });
    }

    /// Puts another vCPU in the place of `cpu`, as when one is plugged: its redistributor and CPU interface are
    /// as at power-on, the inputs keep their levels. LPIs stay enabled and pending, in the tables that they are in: software
    /// sets those up once for each place (Linux does).
    pub fn connect(&self, cpu: usize, shared: Arc<VcpuShared>) {
        self.with(|state| {
            if let Some(c) = state.cpus.get_mut(cpu) {
                let lpis = (c.ctlr & spec::gicr::CTLR_ENABLE_LPIS, c.pendbaser);
                c.reset();
                (c.ctlr, c.pendbaser) = lpis;
                // The old one is left alone with lines that nobody drives.
                let _ = c.shared.set_lines(false, false);
                c.shared = shared;
                state.participants_changed();
                state.update(cpu);
            }
        });
    }

    /// Does something with the state locked, and wakes the vCPUs with a line that has risen when it no longer is: that takes
    /// the host long, and they would find the lock taken.
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = lock(&self.state);
        let result = f(&mut state);
        let sleeping = state.sleeping.take();
        drop(state);
        if let Some(sleeping) = sleeping {
            sleeping.wake();
        }
        result
    }
}

/// A device's end of an SPI or PPI.
struct Input {
    gic: Arc<GicV3>,
    cpu: usize,
    intid: u32,
    /// Index in `levels`.
    input: usize,
}

impl InterruptLine for Input {
    fn set(&self, level: bool) {
        let known = &self.gic.levels[self.input];
        if known.load(Ordering::Acquire) == level {
            return;
        }
        self.gic.with(|state| {
            known.store(level, Ordering::Release);
            state.set_line(self.cpu, self.intid, level);
        });
    }
}

struct Distributor(Arc<GicV3>);

impl MmioDevice for Distributor {
    fn name(&self) -> &str {
        "gicv3-distributor"
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        let state = lock(&self.0.state);
        frames::read_sized(offset, size, |o| state.gicd_read(o))
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        self.0.with(|state| state.gicd_write(offset, size, value));
    }
}

struct Redistributors {
    gic: Arc<GicV3>,
    range: Range<usize>,
}

impl Redistributors {
    /// The CPU whose redistributor holds `offset`, and the offset in it.
    fn cpu_at(&self, offset: u64) -> Option<(usize, u64)> {
        let index = usize::try_from(offset / REDISTRIBUTOR_SIZE).ok()?;
        let cpu = self.range.start.checked_add(index)?;
        (cpu < self.range.end).then_some((cpu, offset % REDISTRIBUTOR_SIZE))
    }
}

impl MmioDevice for Redistributors {
    fn name(&self) -> &str {
        "gicv3-redistributors"
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        let Some((cpu, offset)) = self.cpu_at(offset) else { return 0 };
        let last = cpu + 1 == self.range.end;
        let state = lock(&self.gic.state);
        frames::read_sized(offset, size, |o| state.gicr_read(cpu, last, o))
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        if let Some((cpu, offset)) = self.cpu_at(offset) {
            self.gic.with(|state| state.gicr_write(cpu, offset, size, value));
        }
    }
}
