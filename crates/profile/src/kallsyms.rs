//! The symbols that a Linux kernel carries inside its own image.
//!
//! With `CONFIG_KALLSYMS` the build appends a compressed table to the read-only data: names are made of *tokens*, 256
//! pieces of text, each named by a byte. Nothing points at the table, so it is found by its shape: the tokens of
//! most digits and letters stand for themselves and follow one another; behind the tokens is an index of them; somewhere before them are
//! the names, between their number and markers (where in the names every 256th begins). Addresses are 32-bit offsets, before the names in older kernels and
//! behind the tokens since 6.4: of both places the one where they rise is the right one. Behind the offsets may be what
//! they are from; those of the newest kernels are from where each of them is itself.

use crate::Symbol;

const TOKENS: usize = 256;
/// Names that share a marker.
const MARKED: usize = 256;
/// No kernel has fewer or more symbols.
const COUNTS: std::ops::RangeInclusive<usize> = 1000..=4_000_000;
/// A name has fewer codes.
const LONGEST: usize = 1024;
/// The names begin at most so many bytes before the tokens.
const REACH: usize = 16 << 20;
/// What tables are aligned to, in newer kernels and in older ones.
const ALIGNMENTS: [usize; 2] = [4, 8];
/// Bytes between the index of the tokens and the offsets behind it, at most.
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
        let lines = [&b"1\x002\x003\x004\x005\x006\x007\x008\x009\0"[..], b"b\0c\0d\0e\0f\0g\0h\0i\0j\0"];
        lines.into_iter().find_map(|line| {
            let mut from = 0;
            while let Some(at) = find(image.get(from..)?, line) {
                from += at + 1;
                if let Some(tables) = Self::around(image, from - 1, line[0]) {
                    return Some(tables);
                }
            }
            None
        })
    }

    /// The tables whose token `first`, which stands for itself, is at `at`.
    fn around(image: &'a [u8], at: usize, first: u8) -> Option<Self> {
        // Tokens before it: as many as the code of the character.
        let mut start = at;
        for _ in 0..first {
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
        let known = |i: usize| tokens[i].as_ptr() as usize - tokens[0].as_ptr() as usize;
        let right =
            |at: &usize| (0..TOKENS).all(|i| half(image, at + 2 * i).map(usize::from) == Some(known(i)));
        let index = ALIGNMENTS.map(|to| next.next_multiple_of(to)).into_iter().find(right)?;
        let (names, count) = names_before(image, start)?;
        Some(Self { image, tokens, names, count, end: index + 2 * TOKENS })
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

    /// Every symbol's offset, and what it is from: 0 if the image does not tell.
    fn offsets(&self) -> Option<(Vec<u32>, u64)> {
        let bytes = 4 * self.count;
        let start = self.end.next_multiple_of(4);
        let places = (start..start + GAP).step_by(4);
        let behind = places.clone().map(|at| (at, (at + bytes).next_multiple_of(8)));
        let base = (self.names & !7).saturating_sub(16);
        let before = base.checked_sub(bytes).map(|at| (at & !7, base));
        let given = behind.chain(before).find_map(|(at, base)| {
            let offsets = self.rising(|i| word(self.image, at + 4 * i))?;
            // Kernels lie in the upper half of the addresses; one that has not relocated itself may not know.
            let base = double(self.image, base).filter(|base| base >> 48 == 0xffff).unwrap_or(0);
            Some((offsets, base))
        });
        // From where each of them is itself.
        let own =
            |at: usize| move |i: usize| Some(word(self.image, at + 4 * i)?.wrapping_add((at + 4 * i) as u32));
        given.or_else(|| places.into_iter().find_map(|at| Some((self.rising(own(at))?, 0))))
    }

    /// All of `offset` if they rise. Most places are not the right one: that shows soon.
    fn rising(&self, offset: impl Fn(usize) -> Option<u32>) -> Option<Vec<u32>> {
        let mut all: Vec<u32> = Vec::new();
        for i in 0..self.count {
            let next = offset(i)?;
            if all.last().is_some_and(|last| *last > next) {
                return None;
            }
            all.push(next);
        }
        (all.first() < all.last()).then_some(all)
    }
}

/// Where the names begin that lie before `tokens`, and how many there are: behind their number, and followed by the
/// markers.
fn names_before(image: &[u8], tokens: usize) -> Option<(usize, usize)> {
    let last = tokens & !3;
    (last.saturating_sub(REACH)..last).rev().filter(|at| at % 4 == 0).find_map(|number| {
        let count = usize::try_from(word(image, number)?).ok().filter(|count| COUNTS.contains(count))?;
        let follow = |names: &usize| markers_follow(&image[..tokens], *names, count);
        ALIGNMENTS
            .map(|to| (number + 4).next_multiple_of(to))
            .into_iter()
            .find(follow)
            .map(|names| (names, count))
    })
}

/// True if `count` names from `names` on are followed by their markers.
fn markers_follow(image: &[u8], names: usize, count: usize) -> bool {
    let (mut at, mut marks) = (names, Vec::new());
    for i in 0..count {
        if i % MARKED == 0 {
            marks.push(at - names);
        }
        match length(image, at) {
            Some((length @ 1..LONGEST, first)) => at = first + length,
            _ => return false,
        }
    }
    let found = |markers: usize, i: usize| word(image, markers + 4 * i).map(|mark| mark as usize);
    let hold = |markers: usize| marks.iter().enumerate().all(|(i, mark)| found(markers, i) == Some(*mark));
    ALIGNMENTS.into_iter().any(|to| hold(at.next_multiple_of(to)))
}

/// How many codes the name at `at` has, and where they begin. Long ones take two bytes (since 6.1).
fn length(image: &[u8], at: usize) -> Option<(usize, usize)> {
    let low = usize::from(*image.get(at)?);
    if low & 0x80 == 0 {
        return Some((low, at + 1));
    }
    Some((low & 0x7f | usize::from(*image.get(at + 1)?) << 7, at + 2))
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
