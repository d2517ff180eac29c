//! PL061 register layout (Arm DDI 0190, chapter 3). Eight lines, a bit each.

/// Peripheral identifier: part 0x061, designer Arm.
pub const PERIPH_ID: u32 = 0x0004_1061;

/// Data: 256 words from 0; address bits `[9:2]` choose the lines that an access sees.
pub const DATA_END: u64 = 0x400;
/// Direction: 1 is output.
pub const DIR: u64 = 0x400;
/// Interrupt sense: 1 is level, 0 edge.
pub const IS: u64 = 0x404;
/// Interrupt on both edges.
pub const IBE: u64 = 0x408;
/// Interrupt event: 1 is rising or high, 0 falling or low.
pub const IEV: u64 = 0x40c;
/// Interrupt mask: 1 lets it through.
pub const IE: u64 = 0x410;
/// Raw interrupt status.
pub const RIS: u64 = 0x414;
/// Masked interrupt status.
pub const MIS: u64 = 0x418;
/// Interrupt clear, of edges.
pub const IC: u64 = 0x41c;
/// Hardware control of the lines; stored only.
pub const AFSEL: u64 = 0x420;

/// The line of the power key on this board.
pub const POWER_LINE: u8 = 3;
