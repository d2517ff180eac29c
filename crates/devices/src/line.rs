//! Interrupt lines: what a device drives and an interrupt controller listens to.

/// The device's end of one interrupt input.
///
/// A line has a level. The receiver decides by its own configuration whether the level or the rising edge
/// counts, so devices just keep the line at the level that their registers ask for. `set` is cheap when the
/// level does not change; callers serialise their own calls (they hold the device's lock).
pub trait InterruptLine: Send + Sync {
    /// Drives the line high or low.
    fn set(&self, level: bool);
}

/// A line that leads nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnconnectedLine;

impl InterruptLine for UnconnectedLine {
    fn set(&self, _level: bool) {}
}
