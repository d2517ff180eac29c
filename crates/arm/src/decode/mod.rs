//! The A64 decoder: from an instruction word to the encoding that Arm's machine-readable specification names.
//!
//! The enums [`Enc`] and [`Class`] and the decision tree behind [`decode`] are generated at build time from
//! `data/a64-encodings.tsv`, so that every encoding of the architecture is known by name, whether or not a CPU
//! model has it. Which feature an encoding belongs to is said by [`Enc::feature`].

mod feature;
#[cfg(test)]
mod tests;

struct Info {
    name: &'static str,
    mask: u32,
    value: u32,
    should_be: u32,
    class: Class,
}

include!(concat!(env!("OUT_DIR"), "/a64.rs"));

const LEAF_FLAG: u32 = 1 << 31;

impl Enc {
    /// All encodings, in the table's order.
    pub fn all() -> &'static [Enc] {
        &ALL
    }

    fn info(self) -> &'static Info {
        &INFO[self as usize]
    }

    /// The specification's name, such as `ADD_32_addsub_imm`.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The fixed bits, should-be bits included.
    pub fn mask(self) -> u32 {
        self.info().mask
    }

    /// The value of the fixed bits.
    pub fn value(self) -> u32 {
        self.info().value
    }

    /// The fixed bits that should be as in [`value`](Self::value) but do not decide the decode: another value is
    /// CONSTRAINED UNPREDICTABLE and executes as if it were the right one.
    pub fn should_be(self) -> u32 {
        self.info().should_be
    }

    /// The encoding class.
    pub fn class(self) -> Class {
        self.info().class
    }

    /// The mnemonic part of the name, such as `ADD`.
    pub fn mnemonic(self) -> &'static str {
        let name = self.name();
        name.split('_').next().unwrap_or(name)
    }
}

/// Decodes an instruction word: the most specific encoding that matches it, whatever features a CPU has, or
/// `None` where the architecture allocates nothing. Should-be bits are ignored.
pub fn decode(word: u32) -> Option<Enc> {
    let mut node = NODES[0];
    while node & LEAF_FLAG == 0 {
        let field = (word >> (node >> 26)) & ((1 << ((node >> 22) & 0xf)) - 1);
        node = NODES[((node & 0x3f_ffff) + field) as usize];
    }
    let first = (node & 0xf_ffff) as usize;
    let count = ((node >> 20) & 0x7ff) as usize;
    CANDIDATES[first..first + count]
        .iter()
        .find(|(mask, value, _)| word & mask == *value)
        .map(|&(_, _, enc)| enc)
}
