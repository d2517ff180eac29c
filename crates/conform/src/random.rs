//! Random numbers and adversarial values.

/// SplitMix64: small, and any seed is good.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream that depends on all of `parts`.
    pub fn new(parts: &[u64]) -> Self {
        let mut r = Self(0x5851_f42d_4c95_7f2d);
        for &p in parts {
            r.0 ^= p;
            r.0 = r.next();
        }
        r
    }

    /// 64 random bits.
    #[expect(clippy::should_implement_trait, reason = "an endless source, not an iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of a list.
    pub fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// An integer with a liking for edges.
    pub fn integer(&mut self) -> u64 {
        match self.below(8) {
            0 => self.of(&[0, 1, u64::MAX, 1 << 63, i64::MAX as u64, u64::MAX - 1]),
            1 => self.of(&[0x8000_0000, 0x7fff_ffff, 0xffff_ffff, 0xffff_ffff_8000_0000, 0x1_0000_0000]),
            2 => (self.below(256) as i64 - 128) as u64,
            3 => 1 << self.below(64),
            4 => (1 << self.below(64)) - 1,
            5 => self.next() & 0xffff_ffff,
            _ => self.next(),
        }
    }

    /// An encoding of a floating-point number of 16, 32 or 64 bits with a liking for edges.
    fn float(&mut self, bits: u32) -> u64 {
        let frac = [10, 23, 52][bits.trailing_zeros() as usize - 4];
        let exp_max = (1u64 << (bits - 1 - frac)) - 1;
        let frac_mask = (1u64 << frac) - 1;
        let fraction = match self.below(5) {
            0 => 0,
            1 => frac_mask,
            2 => 1 << self.below(frac.into()),
            3 => frac_mask & !(frac_mask >> self.below(u64::from(frac) + 1)),
            _ => self.next() & frac_mask,
        };
        let bias = exp_max / 2;
        let exponent = match self.below(11) {
            0 | 9 => 0,
            1 | 8 => exp_max,
            2 => self.of(&[1, 2, exp_max - 1, exp_max - 2]),
            3 => self.below(exp_max + 1),
            // Near one, and near the largest integers.
            // Products and quotients near the smallest and the largest number.
            5 => self.of(&[bias / 2, bias / 2 + bias]) + self.below(8) - 4,
            4 => (bias + self.of(&[15, 16, 31, 32, 52, 63, 64])).min(exp_max - 1),
            _ => bias + self.below(12) - 6,
        };
        (self.below(2) << (bits - 1)) | exponent << frac | fraction
    }

    /// A vector of elements of one kind.
    pub fn vector(&mut self) -> u128 {
        let kind = self.below(5);
        let bits: u32 = match kind {
            0 => 16,
            1 => 32,
            2 => 64,
            _ => self.of(&[8, 16, 32, 64]),
        };
        let mut v = 0;
        for lane in 0..128 / bits {
            let e = if kind < 3 { self.float(bits) } else { self.edge(bits) };
            v |= u128::from(e & (u64::MAX >> (64 - bits))) << (bits * lane);
        }
        v
    }

    /// A vector of floating-point numbers of 16, 32 or 64 bits.
    pub fn floats(&mut self, bits: u32) -> u128 {
        (0..128 / bits).fold(0, |v, lane| v | u128::from(self.float(bits)) << (bits * lane))
    }

    fn edge(&mut self, bits: u32) -> u64 {
        let top = 1u64 << (bits - 1);
        match self.below(4) {
            0 => self.of(&[0, 1, u64::MAX, top, top - 1, top + 1]),
            1 => 1 << self.below(bits.into()),
            _ => self.next(),
        }
    }
}
