//! Saving and restoring.

use armlet_saved::{SavedUart, SavedUartDriver, Unfit};

use super::spec::{self, Control, Interrupts};
use super::{Driver, Pl011, State};
use crate::lock;

/// Error bits of a received character.
const DR_ERRORS: u16 = spec::DR_FRAMING | spec::DR_PARITY | spec::DR_BREAK | spec::DR_OVERRUN;

impl Pl011 {
    /// All registers, and what is in the FIFOs.
    pub fn save(&self) -> SavedUart {
        let state = lock(&self.state);
        let driver = match state.driver {
            Driver::Absent => SavedUartDriver::Absent,
            Driver::Starting(since) => SavedUartDriver::Starting(state.clock.now_ns().saturating_sub(since)),
            Driver::Ready => SavedUartDriver::Ready,
        };
        SavedUart {
            receive: state.receive.iter().copied().collect(),
            transmit: state.transmit.iter().copied().collect(),
            status: state.status,
            overrun: state.overrun,
            holds: state.holds,
            driver,
            ilpr: state.ilpr,
            ibrd: state.ibrd,
            fbrd: state.fbrd,
            lcr_h: state.lcr_h,
            cr: state.cr.bits(),
            ifls: state.ifls,
            dmacr: state.dmacr,
            mask: state.mask.bits(),
            raw: state.raw.bits(),
        }
    }

    /// Takes over all of that. Input that was turned away is not remembered: whoever has some offers it.
    ///
    /// # Errors
    /// A register cannot have its value; nothing has changed then.
    pub fn restore(&self, saved: &SavedUart) -> Result<(), Unfit> {
        check(saved)?;
        let mut state = lock(&self.state);
        let now = state.clock.now_ns();
        let driver = match saved.driver {
            SavedUartDriver::Absent => Driver::Absent,
            SavedUartDriver::Starting(ago) => Driver::Starting(now.saturating_sub(ago)),
            SavedUartDriver::Ready => Driver::Ready,
        };
        *state = State {
            line: state.line.clone(),
            sink: state.sink.clone(),
            clock: state.clock.clone(),
            receive: saved.receive.iter().copied().collect(),
            transmit: saved.transmit.iter().copied().collect(),
            status: saved.status,
            overrun: saved.overrun,
            input_waits: false,
            holds: saved.holds,
            driver,
            ilpr: saved.ilpr,
            ibrd: saved.ibrd,
            fbrd: saved.fbrd,
            lcr_h: saved.lcr_h,
            cr: Control::from_bits_truncate(saved.cr),
            ifls: saved.ifls,
            dmacr: saved.dmacr,
            mask: Interrupts::from_bits_truncate(saved.mask),
            raw: Interrupts::from_bits_truncate(saved.raw),
        };
        state.update_line();
        Ok(())
    }
}

fn check(saved: &SavedUart) -> Result<(), Unfit> {
    let of = |what: &str| format!("the UART: {what} cannot be as it was");
    let long = saved.receive.len().max(saved.transmit.len()) > spec::FIFO_DEPTH;
    let received = saved.receive.iter().all(|character| character & !(DR_ERRORS | 0xff) == 0);
    Unfit::unless(!long && received, || of("a FIFO"))?;
    Unfit::unless(saved.status & !DR_ERRORS == 0, || of("UARTRSR"))?;
    for (name, value, mask) in [
        ("UARTILPR", saved.ilpr, 0xff),
        ("UARTIBRD", saved.ibrd, 0xffff),
        ("UARTFBRD", saved.fbrd, 0x3f),
        ("UARTLCR_H", saved.lcr_h, spec::LCR_H_MASK),
        ("UARTCR", saved.cr, Control::all().bits()),
        ("UARTIFLS", saved.ifls, spec::IFLS_MASK),
        ("UARTDMACR", saved.dmacr, spec::DMACR_MASK),
        ("UARTIMSC", saved.mask, Interrupts::all().bits()),
        ("UARTRIS", saved.raw, Interrupts::all().bits()),
    ] {
        Unfit::unless(value & !mask == 0, || of(name))?;
    }
    Ok(())
}
