//! Configuration space of one function: a header of type 0 and a list of capabilities.

use armlet_memory::AccessSize;
use armlet_saved::Unfit;

use crate::spec::{capability, command, express, header, status};

/// Bytes that are not zero anywhere. The extended space behind has no capabilities.
pub const SIZE: usize = 256;
/// Base address registers.
pub const BARS: usize = 6;

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Base class, subclass and interface, 24 bits.
    pub class: u32,
    /// Vendor of the board.
    pub subsystem_vendor: u16,
    /// The board.
    pub subsystem: u16,
}

/// The bytes, and which of their bits the guest can write.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    at_reset: [u8; SIZE],
    /// Of each BAR's window; 0 if there is none.
    bar_sizes: [u32; BARS],
    /// The pointer to the next capability: where it stands.
    link: usize,
    /// The first byte that is free.
    free: usize,
}

impl ConfigSpace {
    /// Of a function that does not interrupt and has neither BARs nor capabilities yet.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            at_reset: [0; SIZE],
            bar_sizes: [0; BARS],
            link: header::CAPABILITIES.into(),
            free: header::END.into(),
        };
        space.put(header::VENDOR_ID.into(), &identity.vendor.to_le_bytes());
        space.put(header::DEVICE_ID.into(), &identity.device.to_le_bytes());
        let class = identity.class << 8 | u32::from(identity.revision);
        space.put(header::REVISION_ID.into(), &class.to_le_bytes());
        space.put(header::SUBSYSTEM_VENDOR_ID.into(), &identity.subsystem_vendor.to_le_bytes());
        space.put(header::SUBSYSTEM_ID.into(), &identity.subsystem.to_le_bytes());
        let command =
            command::MEMORY | command::BUS_MASTER | command::PARITY | command::SERR | command::INTX_DISABLE;
        space.open(header::COMMAND.into(), &command.to_le_bytes());
        space.open(header::CACHE_LINE_SIZE.into(), &[0xff]);
        space
    }

    /// Says that the function interrupts by INTA.
    pub fn add_interrupt(&mut self) {
        self.put(header::INTERRUPT_PIN.into(), &[1]);
        self.open(header::INTERRUPT_LINE.into(), &[0xff]);
    }

    /// Adds a window of `size` bytes (a power of two of at least 16) of 32-bit memory, not prefetchable.
    pub fn add_bar(&mut self, bar: usize, size: u32) {
        let at = usize::from(header::BAR0) + 4 * bar;
        self.bar_sizes[bar] = size;
        self.open(at, &(!(size - 1)).to_le_bytes());
    }

    /// Adds a capability of this kind: `body` comes behind its two bytes of head, `writable` says which bits of that can
    /// be written. Returns where it is.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let at = self.free;
        self.put(self.link, &[at as u8]);
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.open(at + 2, writable);
        (self.link, self.free) = (at + 1, (at + 2 + body.len()).next_multiple_of(4));
        let has_list = self.bytes[usize::from(header::STATUS)] | status::CAPABILITIES as u8;
        self.put(header::STATUS.into(), &[has_list]);
        at as u16
    }

    /// Adds the PCI Express capability of an endpoint that is part of the root complex.
    pub fn add_express(&mut self) {
        let mut body = [0; express::LENGTH - 2];
        let mut put = |at: usize, value: &[u8]| body[at - 2..at - 2 + value.len()].copy_from_slice(value);
        put(express::CAPABILITIES, &express::INTEGRATED_ENDPOINT.to_le_bytes());
        put(express::DEVICE_CAPABILITIES, &express::ROLE_BASED_ERRORS.to_le_bytes());
        put(express::DEVICE_CONTROL, &express::DEVICE_CONTROL_RESET.to_le_bytes());
        let mut writable = [0; express::LENGTH - 2];
        writable[express::DEVICE_CONTROL - 2..express::DEVICE_CONTROL]
            .copy_from_slice(&express::DEVICE_CONTROL_WRITABLE.to_le_bytes());
        self.add_capability(capability::EXPRESS, &body, &writable);
    }

    /// Puts what can be written back to what was there at first.
    pub fn reset(&mut self) {
        self.bytes = self.at_reset;
    }

    /// Reads up to four bytes.
    pub fn read(&self, offset: u16, size: AccessSize) -> u32 {
        let byte = |n: u64| self.bytes.get(usize::from(offset) + n as usize).copied().unwrap_or(0);
        (0..size.bytes().min(4)).fold(0, |value, n| value | u32::from(byte(n)) << (8 * n))
    }

    /// Writes up to four bytes, as far as the guest can.
    pub fn write(&mut self, offset: u16, size: AccessSize, value: u32) {
        let bytes = value.to_le_bytes();
        for (at, new) in (usize::from(offset)..SIZE).zip(&bytes[..size.bytes().min(4) as usize]) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | new & mask;
        }
    }

    /// A 16-bit register.
    pub fn half(&self, at: u16) -> u16 {
        self.read(at, AccessSize::Half) as u16
    }

    /// A 32-bit register.
    pub fn word(&self, at: u16) -> u32 {
        self.read(at, AccessSize::Word)
    }

    /// Puts `bytes` there, whatever the guest can write.
    pub fn store(&mut self, at: u16, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(at.into()).zip(bytes) {
            *to = *from;
        }
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.half(header::COMMAND)
    }

    /// First address and size of a BAR's window, if the function answers to accesses there.
    pub fn window(&self, bar: usize) -> Option<(u64, u64)> {
        let size = self.bar_sizes[bar];
        let base = self.word(header::BAR0 + 4 * bar as u16) & !0xf;
        let on = size != 0 && self.command() & command::MEMORY != 0;
        on.then_some((base.into(), size.into()))
    }

    /// All bytes.
    pub fn save(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Takes over what was saved.
    ///
    /// # Errors
    /// It is of another function.
    pub fn restore(&mut self, saved: &[u8]) -> Result<(), Unfit> {
        let fixed = |(saved, (here, writable)): (&u8, (&u8, &u8))| (saved ^ here) & !writable == 0;
        let fits = saved.len() == SIZE && saved.iter().zip(self.bytes.iter().zip(&self.writable)).all(fixed);
        Unfit::unless(fits, || "its PCI configuration space is that of another function".into())?;
        self.bytes.copy_from_slice(saved);
        Ok(())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.at_reset[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn open(&mut self, at: usize, bits: &[u8]) {
        self.writable[at..at + bits.len()].copy_from_slice(bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let identity = Identity {
            vendor: 0x1af4,
            device: 0x1042,
            revision: 1,
            class: 0x01_0000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        let mut space = ConfigSpace::new(&identity);
        space.add_interrupt();
        space.add_bar(1, 0x1000);
        space
    }

    #[test]
    fn a_bar_tells_its_size_and_answers_where_it_is_put_while_it_may() {
        let mut s = space();
        s.write(0x14, AccessSize::Word, u32::MAX);
        assert_eq!(s.word(0x14), 0xffff_f000);
        s.write(0x10, AccessSize::Word, u32::MAX);
        assert_eq!(s.word(0x10), 0, "there is no such BAR");
        s.write(0x14, AccessSize::Word, 0x1234_5678);
        assert_eq!(s.window(1), None);
        s.write(0x04, AccessSize::Half, 0xffff);
        assert_eq!(s.word(0x04), 0x0546);
        assert_eq!(s.window(1), Some((0x1234_5000, 0x1000)));
        s.write(0x16, AccessSize::Byte, 0x99);
        assert_eq!(s.window(1), Some((0x1299_5000, 0x1000)), "bytes are as good");
        s.reset();
        assert_eq!((s.command(), s.word(0x14)), (0, 0));
    }

    #[test]
    fn what_is_read_only_stays() {
        let mut s = space();
        s.add_express();
        let before = s.save();
        for at in (0..SIZE as u16).step_by(4) {
            s.write(at, AccessSize::Word, u32::MAX);
        }
        assert_eq!(s.word(0x00), 0x1042_1af4);
        assert_eq!(s.word(0x08), 0x0100_0001);
        assert_eq!(s.word(0x2c), 0x1100_1af4);
        assert_eq!(s.word(0x3c), 0x01ff);
        assert_eq!(s.half(0x42), 0x0092);
        assert_eq!(s.half(0x48), 0x78ff);
        s.reset();
        assert_eq!(s.save(), before);
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut s = space();
        assert_eq!(s.half(0x06) & status::CAPABILITIES, 0);
        s.add_express();
        let at = s.add_capability(capability::VENDOR, &[7, 8, 9], &[0, 0xff]);
        assert_eq!(s.half(0x06) & status::CAPABILITIES, status::CAPABILITIES);
        assert_eq!(s.read(0x34, AccessSize::Byte), 0x40);
        assert_eq!(s.half(0x40), u16::from(capability::EXPRESS) | at << 8);
        assert_eq!(s.word(at), 0x0807_0009);
        s.write(at + 2, AccessSize::Half, 0xffff);
        assert_eq!(s.word(at), 0xff07_0009);
    }

    #[test]
    fn accesses_at_the_end_and_behind_it_do_no_harm() {
        let mut s = space();
        for size in [AccessSize::Byte, AccessSize::Half, AccessSize::Word, AccessSize::Double] {
            for offset in [0xfd, 0xff, 0x100, 0xffc, u16::MAX] {
                s.write(offset, size, u32::MAX);
                assert_eq!(s.read(offset, size), 0);
            }
        }
    }

    #[test]
    fn another_functions_space_is_refused() {
        let mut s = space();
        s.write(0x04, AccessSize::Half, 6);
        let saved = s.save();
        let mut other = space();
        other.restore(&saved).unwrap();
        assert_eq!(other.command(), 6);
        for (at, bit) in [(0x00, 1), (0x34, 4), (0x14, 1)] {
            let mut changed = saved.clone();
            changed[at] ^= bit;
            assert!(space().restore(&changed).is_err(), "{at:#x}");
        }
        assert!(space().restore(&saved[..255]).is_err());
    }
}
