//! The decoder's tree against a search of its table.

use armlet_arm::{Enc, decode};

use crate::input::Input;

/// The encoding that matches most bits; of bits that only should be so, none is looked at.
fn searched(word: u32) -> Option<Enc> {
    let decisive = |e: &Enc| e.mask() & !e.should_be();
    let matching = Enc::all().iter().copied().filter(|e| (word ^ e.value()) & decisive(e) == 0);
    matching.max_by_key(|e| decisive(e).count_ones())
}

/// Looks at the words in `bytes`.
///
/// # Panics
/// The decoder is wrong.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let chosen = usize::from(input.u16());
        let fill = input.u32();
        let enc = Enc::all()[chosen % Enc::all().len()];
        for word in [fill, enc.value() | (fill & !enc.mask()), enc.value() ^ (1 << (fill & 31))] {
            let (got, want) = (decode(word), searched(word));
            assert_eq!(got.map(Enc::name), want.map(Enc::name), "{word:#010x}");
        }
    }
}
