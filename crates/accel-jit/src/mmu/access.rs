//! What a slow path has to know about the access that missed.

/// Where the slow path of an access finds or puts a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Place {
    /// Nowhere.
    #[default]
    None,
    /// A host register, by number.
    Host(u8),
    /// A guest register's home in memory.
    Guest(u8),
    /// A temporary's slot in memory.
    Spill(u8),
    /// A small constant.
    Constant(u8),
    /// A vector register's home.
    Vector(u8),
}

/// An entry of the side table: all that the slow path of one access has to know. Translated code passes only
/// its number, so a site costs little code and nothing is stored before an access that may fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SideEntry {
    /// The access.
    pub access: SlowAccess,
    /// Where to go on afterwards: offset in the code.
    pub resume: u32,
    /// For a window: where to go on if it cannot be had; offset in the code.
    pub otherwise: u32,
    /// Length of the window, bytes; 0 for an access.
    pub window: u16,
    /// Host register with the address, by number.
    pub base: u8,
    /// What to add to it, bytes.
    pub disp: i32,
    /// Values of a store, results of a load.
    pub values: [Place; 2],
    /// Host registers with copies of the vector registers that a load writes, by number.
    pub copies: [u8; 2],
    /// What host vector registers hold whose homes have other values, by its number; 0 is for nothing.
    pub carried: u32,
}

/// No host register.
pub const NO_COPY: u8 = u8::MAX;

/// A description of an access in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlowAccess(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $with:ident $get:ident = $bit:literal;)*) => {
        $(
            $(#[$doc])*
            pub const fn $get(self) -> bool {
                self.0 & (1 << $bit) != 0
            }

            /// Sets it.
            pub const fn $with(self, on: bool) -> Self {
                Self(self.0 & !(1 << $bit) | (on as u32) << $bit)
            }
        )*
    };
}

impl SlowAccess {
    /// Access of `1 << size` bytes by the instruction at `offset` in its page.
    pub const fn new(offset: u16, size: u8) -> Self {
        Self(offset as u32 | (size as u32) << 12 | (size as u32) << 24)
    }

    /// The same access, `1 << align` being what the address is a multiple of where alignment counts.
    pub const fn with_align(self, align: u8) -> Self {
        Self(self.0 & !(7 << 24) | (align as u32) << 24)
    }

    /// Bytes that the address is a multiple of where alignment counts.
    pub const fn align(self) -> u64 {
        1 << (self.0 >> 24 & 7)
    }

    /// True if the address is a multiple of that.
    pub const fn is_aligned(self, va: u64) -> bool {
        va & (self.align() - 1) == 0
    }

    /// From the word.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits as u32)
    }

    /// The word, as constants in code want it.
    pub const fn bits(self) -> i32 {
        self.0 as i32
    }

    /// Offset of the instruction in its page, bytes.
    pub const fn offset(self) -> u64 {
        (self.0 & 0xfff) as u64
    }

    /// log2 of the bytes of one element.
    pub const fn size(self) -> u32 {
        (self.0 >> 12) & 7
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        1 << self.size()
    }

    flags! {
        /// Sign-extend to 64 bits.
        with_sign_x sign_x = 15;
        /// Sign-extend to 32 bits.
        with_sign_w sign_w = 16;
        /// Two elements.
        with_pair pair = 17;
        /// Vector registers; their numbers are the first value.
        with_vector vector = 18;
        /// A write.
        with_write write = 19;
        /// With EL0's permissions, unless UAO.
        with_unprivileged unprivileged = 20;
        /// Must be aligned (to all of a pair).
        with_aligned aligned = 21;
        /// Part of an atomic access: must be Normal memory.
        with_atomic atomic = 22;
        /// Reads what it writes.
        with_update update = 23;
    }

    /// How an integer load extends.
    pub const fn with_extend(self, ext: crate::ir::Extend) -> Self {
        match ext {
            crate::ir::Extend::Zero => self,
            crate::ir::Extend::SignW => self.with_sign_w(true),
            crate::ir::Extend::SignX => self.with_sign_x(true),
        }
    }

    /// Extends a loaded value.
    pub const fn extend(self, v: u64) -> u64 {
        if self.size() >= 3 || !(self.sign_x() || self.sign_w()) {
            return v;
        }
        let bits = 64 - 8 * self.bytes() as u32;
        let s = ((v << bits) as i64 >> bits) as u64;
        if self.sign_w() { s & 0xffff_ffff } else { s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_extend_as_asked() {
        let a = SlowAccess::new(0xffc, 0).with_write(true);
        assert_eq!((a.offset(), a.size(), a.write(), a.pair()), (0xffc, 0, true, false));
        assert_eq!(a.extend(0x80), 0x80);
        assert!(!SlowAccess::new(0, 3).is_aligned(4) && SlowAccess::new(0, 3).with_align(2).is_aligned(4));
        assert_eq!(a.with_sign_x(true).extend(0x80), 0xffff_ffff_ffff_ff80);
        assert_eq!(a.with_sign_w(true).extend(0x80), 0xffff_ff80);
    }
}
