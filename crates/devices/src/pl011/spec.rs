//! PL011 register layout, revision r1p5 (Arm DDI 0183, chapter 3).

use bitflags::bitflags;

/// Depth of both FIFOs, in characters.
pub const FIFO_DEPTH: usize = 32;
/// Peripheral identifier: part 0x011, designer Arm, revision 3 (32-deep FIFOs).
pub const PERIPH_ID: u32 = 0x0034_1011;

/// Data.
pub const DR: u64 = 0x000;
/// Receive status; error clear when written.
pub const RSR: u64 = 0x004;
/// Flags.
pub const FR: u64 = 0x018;
/// IrDA low-power counter.
pub const ILPR: u64 = 0x020;
/// Baud rate divisor, integer part.
pub const IBRD: u64 = 0x024;
/// Baud rate divisor, fraction.
pub const FBRD: u64 = 0x028;
/// Line control.
pub const LCR_H: u64 = 0x02c;
/// Control.
pub const CR: u64 = 0x030;
/// Interrupt FIFO levels.
pub const IFLS: u64 = 0x034;
/// Interrupt mask set/clear.
pub const IMSC: u64 = 0x038;
/// Raw interrupt status.
pub const RIS: u64 = 0x03c;
/// Masked interrupt status.
pub const MIS: u64 = 0x040;
/// Interrupt clear.
pub const ICR: u64 = 0x044;
/// DMA control; stored only.
pub const DMACR: u64 = 0x048;

/// Error bits of a received character, as in DR; shifted down by 8 as in RSR.
pub const DR_FRAMING: u16 = 1 << 8;
/// Parity error.
pub const DR_PARITY: u16 = 1 << 9;
/// Break.
pub const DR_BREAK: u16 = 1 << 10;
/// Characters were lost before this one.
pub const DR_OVERRUN: u16 = 1 << 11;

/// LCR_H: FIFOs on.
pub const LCR_H_FEN: u32 = 1 << 4;
/// LCR_H: all bits.
pub const LCR_H_MASK: u32 = 0xff;
/// IFLS at reset: both at half.
pub const IFLS_RESET: u32 = 0x12;
/// IFLS: all bits.
pub const IFLS_MASK: u32 = 0x3f;
/// DMACR: all bits.
pub const DMACR_MASK: u32 = 0x7;

bitflags! {
    /// UARTFR.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// Clear to send.
        const CTS = 1 << 0;
        /// Data set ready.
        const DSR = 1 << 1;
        /// Data carrier detect.
        const DCD = 1 << 2;
        /// Transmitting.
        const BUSY = 1 << 3;
        /// Receive FIFO empty.
        const RXFE = 1 << 4;
        /// Transmit FIFO full.
        const TXFF = 1 << 5;
        /// Receive FIFO full.
        const RXFF = 1 << 6;
        /// Transmit FIFO empty.
        const TXFE = 1 << 7;
        /// Ring indicator.
        const RI = 1 << 8;
    }

    /// UARTCR.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Control: u32 {
        /// UART on.
        const UARTEN = 1 << 0;
        /// IrDA on.
        const SIREN = 1 << 1;
        /// IrDA low power.
        const SIRLP = 1 << 2;
        /// Loopback.
        const LBE = 1 << 7;
        /// Transmitter on.
        const TXE = 1 << 8;
        /// Receiver on.
        const RXE = 1 << 9;
        /// Data terminal ready.
        const DTR = 1 << 10;
        /// Request to send.
        const RTS = 1 << 11;
        /// Out 1.
        const OUT1 = 1 << 12;
        /// Out 2.
        const OUT2 = 1 << 13;
        /// RTS by hardware.
        const RTSEN = 1 << 14;
        /// CTS by hardware.
        const CTSEN = 1 << 15;
    }

    /// The interrupts, as in IMSC, RIS, MIS and ICR.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Interrupts: u32 {
        /// Ring indicator changed.
        const RI = 1 << 0;
        /// Clear to send changed.
        const CTS = 1 << 1;
        /// Carrier detect changed.
        const DCD = 1 << 2;
        /// Data set ready changed.
        const DSR = 1 << 3;
        /// Receive FIFO at its level.
        const RX = 1 << 4;
        /// Transmit FIFO at its level.
        const TX = 1 << 5;
        /// Receive timeout.
        const RT = 1 << 6;
        /// Framing error.
        const FE = 1 << 7;
        /// Parity error.
        const PE = 1 << 8;
        /// Break.
        const BE = 1 << 9;
        /// Overrun.
        const OE = 1 << 10;
    }
}

/// UARTCR as the board hands it over. The chip's own reset value lacks UARTEN; programs for this board
/// expect a UART that its firmware has already switched on.
pub const CR_RESET: Control = Control::UARTEN.union(Control::TXE).union(Control::RXE);

/// Receive trigger: interrupt when the FIFO holds this many or more.
pub const fn receive_trigger(ifls: u32) -> usize {
    eighths((ifls >> 3) & 7)
}

/// Transmit trigger: interrupt when the FIFO holds this many or fewer.
pub const fn transmit_trigger(ifls: u32) -> usize {
    eighths(ifls & 7)
}

/// 1/8, 1/4, 1/2, 3/4, 7/8 of the FIFO; reserved values count as 7/8.
const fn eighths(select: u32) -> usize {
    match select {
        0 => FIFO_DEPTH / 8,
        1 => FIFO_DEPTH / 4,
        2 => FIFO_DEPTH / 2,
        3 => FIFO_DEPTH * 3 / 4,
        _ => FIFO_DEPTH * 7 / 8,
    }
}
