//! The host bridge: bus 0 behind an ECAM window (PCIe 7.2.2) and a window of memory.

use std::sync::{Arc, PoisonError, RwLock};

use armlet_devices::UnconnectedLine;
use armlet_memory::{AccessSize, MmioDevice};

use crate::config::{BARS, ConfigSpace, Identity};
use crate::endpoint::Endpoint;
use crate::spec::{DEVICES, ECAM_BUS, ECAM_FUNCTION, NOBODY};

/// The bridge itself, as the function 0 of device 0.
const BRIDGE: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_0000,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// What sits on the bus.
///
/// Called on the accessing vCPU's thread, with no lock held but where it says so.
pub trait Function: Send + Sync {
    /// Short name for logs.
    fn name(&self) -> &str;

    /// Its configuration space and interrupts.
    fn endpoint(&self) -> &Endpoint;

    /// Reads `size` bytes at `offset` in the window of a BAR.
    fn read(&self, bar: usize, offset: u64, size: AccessSize) -> u64;

    /// Writes the low `size` bytes of `value` at `offset` in the window of a BAR.
    fn write(&self, bar: usize, offset: u64, size: AccessSize, value: u64);

    /// Reads up to four bytes of configuration space.
    fn read_config(&self, offset: u16, size: AccessSize) -> u32 {
        self.endpoint().read_config(offset, size)
    }

    /// Writes up to four bytes of configuration space.
    fn write_config(&self, offset: u16, size: AccessSize, value: u32) {
        self.endpoint().write_config(offset, size, value);
    }

    /// The whole window of a BAR is at this address now, or nowhere where the function alone would answer. Called with
    /// the bridge's routes locked: it must not access the bus.
    fn placed(&self, _bar: usize, _base: Option<u64>) {}
}

/// The requester ID of function 0 of device `number` on bus 0.
pub const fn requester_id(number: u8) -> u32 {
    (number as u32) << 3
}

/// A window of a function that answers to accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    base: u64,
    end: u64,
    function: usize,
    bar: usize,
}

struct Nothing {
    endpoint: Endpoint,
}

impl Function for Nothing {
    fn name(&self) -> &str {
        "pci host bridge"
    }

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn read(&self, _: usize, _: u64, _: AccessSize) -> u64 {
        NOBODY
    }

    fn write(&self, _: usize, _: u64, _: AccessSize, _: u64) {}
}

/// The bridge with what sits on its bus.
///
/// Lock order: routes, then a function's locks. Accesses to a function are made with nothing locked.
pub struct HostBridge {
    /// By device number; 0 is the bridge.
    functions: Vec<Arc<dyn Function>>,
    /// Bus addresses of the memory window, which are the CPU's.
    base: u64,
    size: u64,
    /// The first one that holds an address is the one that answers.
    routes: RwLock<Vec<Route>>,
}

impl HostBridge {
    /// Most functions that find a place on the bus.
    pub const MAX_FUNCTIONS: usize = DEVICES - 1;

    /// With these functions as device 1 and so on, at most [`Self::MAX_FUNCTIONS`], and a window of `size` bytes of
    /// memory from `base`.
    pub fn new(functions: Vec<Arc<dyn Function>>, base: u64, size: u64) -> Arc<Self> {
        let itself = Endpoint::new(ConfigSpace::new(&BRIDGE), Arc::new(UnconnectedLine));
        let bridge: Arc<dyn Function> = Arc::new(Nothing { endpoint: itself });
        let functions = std::iter::once(bridge).chain(functions).take(DEVICES).collect();
        Arc::new(Self { functions, base, size, routes: RwLock::default() })
    }

    /// Configuration space of all buses.
    pub fn ecam(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Ecam(Arc::clone(self)))
    }

    /// The window of memory.
    pub fn memory(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Memory(Arc::clone(self)))
    }

    /// The window of ports, at which nothing answers: no function has any.
    pub fn ports(&self) -> Arc<dyn MmioDevice> {
        Arc::new(Ports)
    }

    /// Everything as after power-on, the functions' registers included.
    pub fn reset(&self) {
        self.functions[0].endpoint().reset();
        self.route();
    }

    /// Works out who answers where, after a change of any configuration space.
    pub fn route(&self) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let windows = |(n, function): (usize, &Arc<dyn Function>)| {
            let window = |bar| Some((bar, function.endpoint().with_config(|config| config.window(bar))?));
            let all: Vec<_> = (0..BARS).filter_map(window).collect();
            all.into_iter().map(move |(bar, (base, size))| Route { base, end: base + size, function: n, bar })
        };
        let new: Vec<_> = self.functions.iter().enumerate().flat_map(windows).collect();
        if *routes == new {
            return;
        }
        let bars =
            || self.functions.iter().enumerate().flat_map(|(n, f)| (0..BARS).map(move |bar| (n, f, bar)));
        let moves: Vec<_> = bars()
            .map(|(n, f, bar)| (f, bar, self.place(&routes, n, bar), self.place(&new, n, bar)))
            .filter(|(.., then, now)| then != now)
            .collect();
        // All have left before the first one comes.
        moves.iter().filter(|(.., then, _)| then.is_some()).for_each(|(f, bar, ..)| f.placed(*bar, None));
        moves.iter().filter(|(.., now)| now.is_some()).for_each(|(f, bar, _, now)| f.placed(*bar, *now));
        *routes = new;
    }

    /// Where a window is, if it is wholly in the memory window and nobody answers there before it.
    fn place(&self, routes: &[Route], function: usize, bar: usize) -> Option<u64> {
        let at = routes.iter().position(|route| (route.function, route.bar) == (function, bar))?;
        let Route { base, end, .. } = routes[at];
        let inside = base >= self.base && end <= self.base + self.size;
        let covered = routes[..at].iter().any(|other| base < other.end && end > other.base);
        (inside && !covered).then_some(base)
    }

    fn answering(&self, address: u64) -> Option<(&Arc<dyn Function>, usize, u64)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let route = routes.iter().find(|route| (route.base..route.end).contains(&address))?;
        Some((&self.functions[route.function], route.bar, address - route.base))
    }

    /// The function whose configuration space is at `offset` of the ECAM window, and where in it that is.
    fn configured(&self, offset: u64) -> Option<(&Arc<dyn Function>, u16)> {
        let number = offset / ECAM_FUNCTION;
        // Bus 0 only, and of each device function 0 only.
        if offset >= ECAM_BUS || !number.is_multiple_of(8) {
            return None;
        }
        let function = self.functions.get((number / 8) as usize)?;
        Some((function, (offset % ECAM_FUNCTION) as u16))
    }
}

/// What nobody answers to, as wide as the access.
fn nobody(size: AccessSize) -> u64 {
    NOBODY >> (64 - 8 * size.bytes())
}

/// The parts of an access to configuration space, which are at most words: offset, size, place in the value.
fn parts(offset: u64, size: AccessSize) -> impl Iterator<Item = (u64, AccessSize, u32)> {
    let (count, size) = match size {
        AccessSize::Double => (2, AccessSize::Word),
        size => (1, size),
    };
    (0..count).map(move |n| (offset.wrapping_add(4 * n), size, 32 * n as u32))
}

struct Ecam(Arc<HostBridge>);

impl MmioDevice for Ecam {
    fn name(&self) -> &str {
        "pcie configuration"
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        let read = |(offset, size, shift)| {
            let value = match self.0.configured(offset) {
                Some((function, at)) => function.read_config(at, size).into(),
                None => nobody(size),
            };
            value << shift
        };
        parts(offset, size).map(read).fold(0, |all, part| all | part)
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        for (offset, size, shift) in parts(offset, size) {
            if let Some((function, at)) = self.0.configured(offset) {
                function.write_config(at, size, (value >> shift) as u32);
                self.0.route();
            }
        }
    }
}

struct Memory(Arc<HostBridge>);

impl MmioDevice for Memory {
    fn name(&self) -> &str {
        "pcie memory"
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        match self.0.answering(self.0.base.wrapping_add(offset)) {
            Some((function, bar, at)) => function.read(bar, at, size),
            None => nobody(size),
        }
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        if let Some((function, bar, at)) = self.0.answering(self.0.base.wrapping_add(offset)) {
            function.write(bar, at, size, value);
        }
    }
}

struct Ports;

impl MmioDevice for Ports {
    fn name(&self) -> &str {
        "pcie ports"
    }

    fn read(&self, _: u64, size: AccessSize) -> u64 {
        nobody(size)
    }

    fn write(&self, _: u64, _: AccessSize, _: u64) {}
}

#[cfg(test)]
mod tests;
