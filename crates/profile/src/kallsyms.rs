//! The symbols that a Linux kernel carries inside its own image.
//!
//! With `CONFIG_KALLSYMS` the build appends a compressed table to the read-only data: names are made of *tokens*, 256
//! pieces of text, each named by a byte. Nothing points at the table, so it is found by its shape: the tokens of the
//! digits and letters stand for themselves and follow one another; behind the tokens is an index of them, before them
//! are markers (where in the names every 256th begins) and the names. Addresses are 32-bit offsets from a base
//! (`CONFIG_KALLSYMS_BASE_RELATIVE`), before the names in older kernels and behind the tokens since 6.4. Of both
//! places the one that holds rising offsets is the right one.

use crate::Symbol;

const TOKENS: usize = 256;
/// Names that share a marker.
const MARKED: usize = 256;
/// No kernel has fewer or more symbols.
const COUNTS: std::ops::RangeInclusive<usize> = 1000..=4_000_000;
/// Bytes between the end of one table and the beginning of the next, at most: they are aligned to 8.
const GAP: usize = 256;

/// The tables as they lie in an image.
struct Tables<'a> {
    image: &'a [u8],
    /// Each token's text.
    tokens: Vec<&'a [u8]>,
    names: usize,
    count: usize,
    /// First byte behind the index of the tokens.
    end: usize,
}

/// The symbols in `image`, a plain kernel image; none if it has none, or a table of another shape.
pub(crate) fn read(image: &[u8]) -> Option<Vec<Symbol>> {
    let tables = Tables::find(image)?;
    let names = tables.names()?;
    let (offsets, base) = tables.offsets()?;
    let symbols = names.into_iter().zip(offsets).filter_map(|(name, offset)| {
        // The first character is the kind.
        let (kind, name) = name.split_at_checked(1)?;
        "tTwW"
            .contains(kind)
            .then(|| Symbol { address: base.wrapping_add(u64::from(offset)), name: name.into() })
    });
    Some(symbols.collect())
}

impl<'a> Tables<'a> {
    fn find(image: &'a [u8]) -> Option<Self> {
        let digits = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
        let mut from = 0;
        loop {
            let at = from + find(image.get(from..)?, digits)?;
            from = at + 1;
            if let Some(tables) = Self::around(image, at) {
                return Some(tables);
            }
        }
    }

    /// The tables whose token `0` is at `at`.
    fn around(image: &'a [u8], at: usize) -> Option<Self> {
        // Tokens before it: as many as the code of the character.
        let mut start = at;
        for _ in 0..usize::from(b'0') {
            start = 1 + image[..start.checked_sub(1)?].iter().rposition(|b| *b == 0)?;
        }
        let mut tokens = Vec::with_capacity(TOKENS);
        let mut next = start;
        for _ in 0..TOKENS {
            let rest = &image[next..];
            let length = rest.iter().take(64).position(|b| *b == 0)?;
            tokens.push(&rest[..length]);
            next += length + 1;
        }
        let index = align(next);
        let known = |i: usize| tokens[i].as_ptr() as usize - tokens[0].as_ptr() as usize;
        let right = (0..TOKENS).all(|i| half(image, index + 2 * i).map(usize::from) == Some(known(i)));
        if !right {
            return None;
        }
        let (names, count) = names_before(image, start)?;
        Some(Self { image, tokens, names, count, end: align(index + 2 * TOKENS) })
    }

    /// Every symbol's kind and name.
    fn names(&self) -> Option<Vec<String>> {
        let mut at = self.names;
        let mut all = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let (length, first) = length(self.image, at)?;
            let codes = self.image.get(first..first + length)?;
            let text: Vec<u8> = codes.iter().flat_map(|c| self.tokens[usize::from(*c)]).copied().collect();
            all.push(String::from_utf8(text).ok()?);
            at = first + length;
        }
        Some(all)
    }

    /// Every symbol's offset, and what it is from.
    fn offsets(&self) -> Option<(Vec<u32>, u64)> {
        let bytes = 4 * self.count;
        // Since 6.4: offsets, base. Before: offsets, base, number of symbols, names.
        let behind = (self.end..self.end + GAP).step_by(8).map(|at| (at, align(at + bytes)));
        let number = self.names.checked_sub(8)?;
        let before = number.saturating_sub(8).checked_sub(bytes).map(|at| (at & !7, number - 8));
        behind.chain(before).find_map(|(at, base)| {
            let offsets: Option<Vec<u32>> = (0..self.count).map(|i| word(self.image, at + 4 * i)).collect();
            let (offsets, base) = (offsets?, double(self.image, base)?);
            let rising = offsets.windows(2).all(|w| w[0] <= w[1]) && offsets.last() > offsets.first();
            // Kernels lie in the upper half of the addresses.
            (rising && base >> 48 == 0xffff).then_some((offsets, base))
        })
    }
}

/// Where the names begin whose markers end before `tokens`, and how many there are.
fn names_before(image: &[u8], tokens: usize) -> Option<(usize, usize)> {
    // The markers are words that rise from 0. Their first is found from their last.
    let mut first = (tokens & !3).checked_sub(4)?;
    // Up to a word of padding.
    if word(image, first)? == 0 {
        first = first.checked_sub(4)?;
    }
    while word(image, first)? != 0 {
        let before = first.checked_sub(4)?;
        if word(image, before)? >= word(image, first)? {
            return None;
        }
        first = before;
    }
    let markers = ((tokens - first) / 4).checked_sub(1)?;
    let last = word(image, first + 4 * markers).filter(|w| *w != 0);
    let markers = if last.is_some() { markers + 1 } else { markers };
    let last = word(image, first + 4 * (markers - 1))? as usize;
    // The names end before the markers, and the last marker is so far into them; they begin behind their number.
    let lowest = first.saturating_sub(last + MARKED * 600) & !7;
    (lowest..first.saturating_sub(last)).rev().filter(|at| at % 8 == 0).find_map(|number| {
        let count = word(image, number)? as usize;
        let names = number + 8;
        let fits = COUNTS.contains(&count) && count.div_ceil(MARKED) == markers;
        (fits && markers_hold(image, names, first, markers)).then_some((names, count))
    })
}

/// True if each of the first markers leads to where the names have got to.
fn markers_hold(image: &[u8], names: usize, markers: usize, count: usize) -> bool {
    let mut at = names;
    for marker in 0..count.min(4) {
        if word(image, markers + 4 * marker).map(|m| names + m as usize) != Some(at) {
            return false;
        }
        for _ in 0..MARKED {
            match length(image, at) {
                Some((length, first)) => at = first + length,
                None => return false,
            }
        }
    }
    true
}

/// How many codes the name at `at` has, and where they begin. Long ones take two bytes (since 6.1).
fn length(image: &[u8], at: usize) -> Option<(usize, usize)> {
    let low = usize::from(*image.get(at)?);
    if low & 0x80 == 0 {
        return Some((low, at + 1));
    }
    Some((low & 0x7f | usize::from(*image.get(at + 1)?) << 7, at + 2))
}

const fn align(at: usize) -> usize {
    (at + 7) & !7
}

fn bytes<const N: usize>(image: &[u8], at: usize) -> Option<[u8; N]> {
    image.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(image: &[u8], at: usize) -> Option<u16> {
    bytes(image, at).map(u16::from_le_bytes)
}

fn word(image: &[u8], at: usize) -> Option<u32> {
    bytes(image, at).map(u32::from_le_bytes)
}

fn double(image: &[u8], at: usize) -> Option<u64> {
    bytes(image, at).map(u64::from_le_bytes)
}

/// Where `what` is in `text` for the first time.
fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}
