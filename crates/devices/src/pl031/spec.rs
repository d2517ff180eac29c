//! PL031 register layout (Arm DDI 0224, chapter 3).

/// Peripheral identifier: part 0x031, designer Arm.
pub const PERIPH_ID: u32 = 0x0004_1031;

/// Data: the time, in seconds; read-only.
pub const DR: u64 = 0x000;
/// Match.
pub const MR: u64 = 0x004;
/// Load: sets the time.
pub const LR: u64 = 0x008;
/// Control; bit 0 is "started", which cannot be undone.
pub const CR: u64 = 0x00c;
/// Interrupt mask set/clear; bit 0.
pub const IMSC: u64 = 0x010;
/// Raw interrupt status.
pub const RIS: u64 = 0x014;
/// Masked interrupt status.
pub const MIS: u64 = 0x018;
/// Interrupt clear.
pub const ICR: u64 = 0x01c;

/// The one bit of CR, IMSC, RIS, MIS and ICR.
pub const BIT: u32 = 1;
