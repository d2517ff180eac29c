//! INTA to INTD: lines that functions share.

use std::sync::{Arc, Mutex, PoisonError};

use armlet_devices::InterruptLine;

/// The four lines of a root bus.
pub struct IntxLines([Arc<Shared>; 4]);

struct Shared {
    line: Arc<dyn InterruptLine>,
    /// A bit for each device that asserts it. The line is set under this lock, so that it always shows them.
    asserted: Mutex<u32>,
}

impl IntxLines {
    /// Over these inputs of the interrupt controller.
    pub fn new(lines: [Arc<dyn InterruptLine>; 4]) -> Self {
        Self(lines.map(|line| Arc::new(Shared { line, asserted: Mutex::new(0) })))
    }

    /// INTA of device `number` on the bus: the lines are dealt out to the devices in turns.
    pub fn pin(&self, number: u8) -> Arc<dyn InterruptLine> {
        let shared = Arc::clone(&self.0[usize::from(number % 4)]);
        Arc::new(Pin { shared, bit: 1 << (number % 32) })
    }
}

struct Pin {
    shared: Arc<Shared>,
    bit: u32,
}

impl InterruptLine for Pin {
    fn set(&self, level: bool) {
        let mut asserted = self.shared.asserted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *asserted;
        *asserted = if level { before | self.bit } else { before & !self.bit };
        if (before != 0) != (*asserted != 0) {
            self.shared.line.set(*asserted != 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Counted(Arc<AtomicU32>);

    impl InterruptLine for Counted {
        fn set(&self, level: bool) {
            self.0.store(level.into(), Ordering::SeqCst);
        }
    }

    #[test]
    fn a_line_is_high_while_anybody_asserts_it() {
        let levels: [Arc<AtomicU32>; 4] = Default::default();
        let lines = IntxLines::new(levels.clone().map(|level| Arc::new(Counted(level)) as _));
        let (one, five, two) = (lines.pin(1), lines.pin(5), lines.pin(2));
        let shown = || levels.each_ref().map(|level| level.load(Ordering::SeqCst));
        one.set(true);
        five.set(true);
        one.set(false);
        assert_eq!(shown(), [0, 1, 0, 0]);
        two.set(true);
        five.set(false);
        assert_eq!(shown(), [0, 0, 1, 0]);
    }
}
