//! PL011 UART (Arm DDI 0183, r1p5).
//!
//! Transmission takes no time: characters go to the [`CharSink`] as they are written. When the sink takes no
//! more they wait in the transmit FIFO, FR shows it, and the transmit interrupt stays away until
//! [`Pl011::transmit_ready`] or the guest's next look at FR finds room again. Reception is as fast as the guest reads:
//! [`Pl011::receive`] takes what fits. The receive timeout, 32 bit periods on the real chip, comes at the
//! end of each batch of input.

mod output;
mod saved;
pub mod spec;
#[cfg(test)]
mod tests;

use armlet_memory::{AccessSize, MmioDevice};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use crate::clock::{COUNTER_FREQUENCY, Clock};
use crate::line::InterruptLine;
use crate::{lock, primecell};
pub use output::OutputQueue;
use spec::{Control, Flags, Interrupts};

/// Where characters sent by a guest go.
pub trait CharSink: Send + Sync {
    /// Takes characters from the front of `bytes` and returns how many; never blocks. Less than all means "no
    /// room": the caller keeps the rest and tries again later.
    fn write(&self, bytes: &[u8]) -> usize;
}

/// Called when the UART has room for input again.
pub type ReadyCallback = Box<dyn Fn() + Send + Sync>;

/// The UART.
pub struct Pl011 {
    name: String,
    state: Mutex<State>,
    input_ready: OnceLock<ReadyCallback>,
}

struct State {
    line: Arc<dyn InterruptLine>,
    sink: Arc<dyn CharSink>,
    clock: Arc<Clock>,
    receive: VecDeque<u16>,
    transmit: VecDeque<u8>,
    /// RSR: errors of the last character read.
    status: u16,
    /// The next character received is marked with an overrun.
    overrun: bool,
    /// Input was turned away; its source wants to hear of room.
    input_waits: bool,
    /// Input waits for the guest's driver; after a reset again.
    holds: bool,
    driver: Driver,
    ilpr: u32,
    ibrd: u32,
    fbrd: u32,
    lcr_h: u32,
    cr: Control,
    ifls: u32,
    dmacr: u32,
    mask: Interrupts,
    raw: Interrupts,
}

/// How far a driver has come that takes input by interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    Absent,
    /// It has unmasked the receive interrupts, at this time in ns. Linux's then empties the FIFO, and unmasks them
    /// again.
    Starting(u64),
    Ready,
}

impl Driver {
    /// A driver that unmasks only once is ready after so many ns.
    const START: u64 = 500_000_000;

    fn after_unmasking(self, mask: Interrupts, clock: &Clock) -> Self {
        match self {
            _ if !mask.intersects(Interrupts::RX | Interrupts::RT) => self,
            Self::Absent => Self::Starting(clock.now_ns()),
            Self::Starting(_) | Self::Ready => Self::Ready,
        }
    }

    fn is_ready(self, clock: &Clock) -> bool {
        match self {
            Self::Absent => false,
            Self::Starting(since) => clock.now_ns().saturating_sub(since) >= Self::START,
            Self::Ready => true,
        }
    }
}

impl Pl011 {
    /// A UART called `name` that interrupts on `line` and sends to `sink`.
    pub fn new(name: &str, line: Arc<dyn InterruptLine>, sink: Arc<dyn CharSink>) -> Self {
        let state = State::new(line, sink, Arc::new(Clock::new(COUNTER_FREQUENCY)));
        Self { name: name.to_owned(), state: Mutex::new(state), input_ready: OnceLock::new() }
    }

    /// The same UART with the machine's time instead of a clock of its own.
    #[must_use]
    pub fn on_clock(self, clock: &Arc<Clock>) -> Self {
        lock(&self.state).clock = Arc::clone(clock);
        self
    }

    /// Sets who is told when input that [`Self::receive`] turned away fits again. Called on a vCPU's thread
    /// with no lock held; it must not block. Only the first call counts.
    pub fn set_input_ready(&self, callback: ReadyCallback) {
        let _ = self.input_ready.set(callback);
    }

    /// Gives characters to the guest; returns how many were taken (the FIFO's free space, none while the
    /// receiver is off). If not all, the input-ready callback will follow.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        let mut state = lock(&self.state);
        let taken = state.input(bytes);
        state.input_waits = taken < bytes.len();
        state.update_line();
        taken
    }

    /// From now on input waits, after each reset, until the guest's driver is there: a driver that empties the
    /// FIFO as it starts, as Linux's does, then loses nothing. Not for guests that poll.
    pub fn hold_input_for_driver(&self) {
        lock(&self.state).holds = true;
    }

    /// Gives the guest a break condition.
    pub fn receive_break(&self) {
        let mut state = lock(&self.state);
        if state.receiver_on() {
            state.push_received(spec::DR_BREAK);
            state.input_ended();
            state.update_line();
        }
    }

    /// The sink has room again after it turned characters away.
    pub fn transmit_ready(&self) {
        let mut state = lock(&self.state);
        state.drain();
        state.update_line();
    }

    /// Machine reset.
    pub fn reset(&self) {
        let wants_input = {
            let mut state = lock(&self.state);
            let mut fresh =
                State::new(Arc::clone(&state.line), Arc::clone(&state.sink), Arc::clone(&state.clock));
            fresh.holds = state.holds;
            let waits = state.input_waits;
            *state = fresh;
            state.update_line();
            waits
        };
        self.tell_ready(wants_input);
    }

    fn tell_ready(&self, ready: bool) {
        if ready && let Some(callback) = self.input_ready.get() {
            callback();
        }
    }
}

impl MmioDevice for Pl011 {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        if !primecell::is_register(offset) {
            return 0;
        }
        let (value, ready) = {
            let mut state = lock(&self.state);
            let value = state.read(offset);
            (value, state.take_ready())
        };
        self.tell_ready(ready);
        primecell::narrow(value, size)
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        if !primecell::is_register(offset) {
            return;
        }
        let ready = {
            let mut state = lock(&self.state);
            state.write(offset, primecell::narrow(value as u32, size) as u32);
            state.take_ready()
        };
        self.tell_ready(ready);
    }
}

impl State {
    fn new(line: Arc<dyn InterruptLine>, sink: Arc<dyn CharSink>, clock: Arc<Clock>) -> Self {
        Self {
            line,
            sink,
            clock,
            receive: VecDeque::with_capacity(spec::FIFO_DEPTH),
            transmit: VecDeque::with_capacity(spec::FIFO_DEPTH),
            status: 0,
            overrun: false,
            input_waits: false,
            holds: false,
            driver: Driver::Absent,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: spec::CR_RESET,
            ifls: spec::IFLS_RESET,
            dmacr: 0,
            mask: Interrupts::empty(),
            raw: Interrupts::empty(),
        }
    }

    fn fifos_on(&self) -> bool {
        self.lcr_h & spec::LCR_H_FEN != 0
    }

    /// Depth of the FIFOs: with FEN 0 they are one-character registers.
    fn depth(&self) -> usize {
        if self.fifos_on() { spec::FIFO_DEPTH } else { 1 }
    }

    fn receive_trigger(&self) -> usize {
        if self.fifos_on() { spec::receive_trigger(self.ifls) } else { 1 }
    }

    fn transmit_trigger(&self) -> usize {
        if self.fifos_on() { spec::transmit_trigger(self.ifls) } else { 0 }
    }

    fn receiver_on(&self) -> bool {
        self.cr.contains(Control::UARTEN | Control::RXE)
    }

    fn held(&self) -> bool {
        self.holds && !self.driver.is_ready(&self.clock)
    }

    fn transmitter_on(&self) -> bool {
        self.cr.contains(Control::UARTEN | Control::TXE)
    }

    fn update_line(&self) {
        self.line.set(self.raw.intersects(self.mask));
    }

    fn read(&mut self, offset: u64) -> u32 {
        match offset {
            spec::DR => self.read_data(),
            spec::RSR => u32::from(self.status >> 8),
            spec::FR => self.flags().bits(),
            spec::ILPR => self.ilpr,
            spec::IBRD => self.ibrd,
            spec::FBRD => self.fbrd,
            spec::LCR_H => self.lcr_h,
            spec::CR => self.cr.bits(),
            spec::IFLS => self.ifls,
            spec::IMSC => self.mask.bits(),
            spec::RIS => self.raw.bits(),
            spec::MIS => self.raw.intersection(self.mask).bits(),
            spec::DMACR => self.dmacr,
            _ => primecell::identification(spec::PERIPH_ID, offset).unwrap_or(0),
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        match offset {
            spec::DR => self.write_data(value as u8),
            spec::RSR => {
                self.status = 0;
                self.overrun = false;
            }
            spec::ILPR => self.ilpr = value & 0xff,
            spec::IBRD => self.ibrd = value & 0xffff,
            spec::FBRD => self.fbrd = value & 0x3f,
            spec::LCR_H => self.write_line_control(value),
            spec::CR => {
                self.write_control(Control::from_bits_truncate(value));
            }
            spec::IFLS => self.ifls = value & spec::IFLS_MASK,
            spec::IMSC => {
                self.mask = Interrupts::from_bits_truncate(value);
                self.driver = self.driver.after_unmasking(self.mask, &self.clock);
            }
            spec::ICR => self.raw.remove(Interrupts::from_bits_truncate(value)),
            spec::DMACR => self.dmacr = value & spec::DMACR_MASK,
            _ => return,
        }
        self.update_line();
    }

    fn read_data(&mut self) -> u32 {
        let Some(character) = self.receive.pop_front() else { return 0 };
        self.status = character & 0xff00;
        if self.receive.len() < self.receive_trigger() {
            self.raw.remove(Interrupts::RX);
        }
        if self.receive.is_empty() {
            self.raw.remove(Interrupts::RT);
        }
        self.update_line();
        u32::from(character)
    }

    fn write_data(&mut self, byte: u8) {
        // A full FIFO loses what is written to it, as the chip's does.
        if self.transmit.len() < self.depth() {
            self.transmit.push_back(byte);
        }
        self.raw.set(Interrupts::TX, self.raw.contains(Interrupts::TX) && self.at_transmit_level());
        self.drain();
    }

    fn at_transmit_level(&self) -> bool {
        self.transmit.len() <= self.transmit_trigger()
    }

    /// Sends what can be sent now, and raises the transmit interrupt if the level was reached by that.
    fn drain(&mut self) {
        if !self.transmitter_on() || self.transmit.is_empty() {
            return;
        }
        let waiting = self.transmit.make_contiguous();
        let sent = if self.cr.contains(Control::LBE) {
            let looped: Vec<u8> = self.transmit.drain(..).collect();
            if self.receiver_on() {
                looped.into_iter().for_each(|b| self.push_received(u16::from(b)));
                self.input_ended();
            }
            1
        } else {
            let sent = self.sink.write(waiting).min(waiting.len());
            self.transmit.drain(..sent);
            sent
        };
        if sent > 0 && self.at_transmit_level() {
            self.raw.insert(Interrupts::TX);
        }
    }

    /// Takes input from outside, as much as fits.
    fn input(&mut self, bytes: &[u8]) -> usize {
        if self.held() || !self.receiver_on() || self.cr.contains(Control::LBE) {
            return 0;
        }
        let taken = bytes.len().min(self.depth().saturating_sub(self.receive.len()));
        for &b in &bytes[..taken] {
            self.push_received(u16::from(b));
        }
        if taken > 0 {
            self.input_ended();
        }
        taken
    }

    fn push_received(&mut self, mut character: u16) {
        if self.receive.len() >= self.depth() {
            self.overrun = true;
            self.raw.insert(Interrupts::OE);
            return;
        }
        if std::mem::take(&mut self.overrun) {
            character |= spec::DR_OVERRUN;
        }
        if character & spec::DR_BREAK != 0 {
            self.raw.insert(Interrupts::BE);
        }
        self.receive.push_back(character);
        if self.receive.len() >= self.receive_trigger() {
            self.raw.insert(Interrupts::RX);
        }
    }

    /// A pause in the input: the receive timeout, if anything is there.
    fn input_ended(&mut self) {
        if !self.receive.is_empty() {
            self.raw.insert(Interrupts::RT);
        }
    }

    /// True, once, if input that was turned away fits again: at half, so that the host side is not called
    /// for every single character.
    fn take_ready(&mut self) -> bool {
        let room =
            self.receiver_on() && !self.cr.contains(Control::LBE) && self.receive.len() <= self.depth() / 2;
        room && !self.held() && std::mem::take(&mut self.input_waits)
    }

    fn flags(&mut self) -> Flags {
        if !self.transmit.is_empty() {
            // A guest that polls for room makes us look again.
            self.drain();
            self.update_line();
        }
        let mut flags = self.modem_inputs();
        flags.set(Flags::RXFE, self.receive.is_empty());
        flags.set(Flags::RXFF, self.receive.len() >= self.depth());
        flags.set(Flags::TXFE, self.transmit.is_empty());
        flags.set(Flags::TXFF, self.transmit.len() >= self.depth());
        flags.set(Flags::BUSY, !self.transmit.is_empty());
        flags
    }

    /// The modem inputs: a terminal that is always there, or in loopback our own outputs.
    fn modem_inputs(&self) -> Flags {
        if !self.cr.contains(Control::LBE) {
            return Flags::CTS | Flags::DSR | Flags::DCD;
        }
        let mut flags = Flags::empty();
        flags.set(Flags::CTS, self.cr.contains(Control::RTS));
        flags.set(Flags::DSR, self.cr.contains(Control::DTR));
        flags.set(Flags::DCD, self.cr.contains(Control::OUT1));
        flags.set(Flags::RI, self.cr.contains(Control::OUT2));
        flags
    }

    fn write_control(&mut self, cr: Control) {
        let before = self.modem_inputs();
        self.cr = cr;
        let changed = before ^ self.modem_inputs();
        for (flag, interrupt) in [
            (Flags::RI, Interrupts::RI),
            (Flags::CTS, Interrupts::CTS),
            (Flags::DCD, Interrupts::DCD),
            (Flags::DSR, Interrupts::DSR),
        ] {
            if changed.contains(flag) {
                self.raw.insert(interrupt);
            }
        }
        self.drain();
    }

    fn write_line_control(&mut self, value: u32) {
        let before = self.fifos_on();
        self.lcr_h = value & spec::LCR_H_MASK;
        if self.fifos_on() != before {
            // Switching the FIFOs empties them; what waits to be sent is kept, it would be lost for nothing.
            self.receive.clear();
            self.raw.remove(Interrupts::RX | Interrupts::RT);
        }
    }
}
