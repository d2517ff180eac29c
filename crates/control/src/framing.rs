//! Finds where JSON texts begin and end in a stream of bytes.
//!
//! Clients send one JSON object after the other, with or without line ends between them. Nothing is parsed here:
//! brackets are counted outside strings, so that a text that is damaged inside spoils only itself. What cannot be
//! a text is reported once and skipped: up to the end of the line, or up to a control character, by which a client
//! says that it starts afresh.

use thiserror::Error;

/// Longest text in bytes.
pub(crate) const MAX_LENGTH: usize = 1 << 20;
/// Deepest nesting of brackets; less than what `serde_json` refuses.
pub(crate) const MAX_DEPTH: usize = 100;

/// Why bytes cannot be a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum FramingError {
    /// Longer than [`MAX_LENGTH`].
    #[error("JSON text is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Deeper than [`MAX_DEPTH`].
    #[error("JSON nesting depth limit exceeded: more than {MAX_DEPTH}")]
    TooDeep,
    /// A control character, which resynchronises.
    #[error("JSON parse error, stray control character {0:#04x}")]
    Stray(u8),
    /// A line ends inside a string.
    #[error("JSON parse error, string without an end")]
    OpenString,
}

/// Where in a text the last byte was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between texts.
    #[default]
    Between,
    /// In brackets, outside strings.
    Inside,
    /// In a string.
    String,
    /// Behind a backslash in a string.
    Escape,
    /// In a number or a bare word, which is no command but has an end too.
    Word,
    /// In what was refused, up to the end of the line.
    Refused,
}

/// Takes bytes as they come and gives texts.
#[derive(Default)]
pub(crate) struct Framer {
    input: Vec<u8>,
    /// What of `input` has been looked at.
    seen: usize,
    /// Where in `input` the current text begins.
    start: usize,
    place: Place,
    depth: usize,
}

impl Framer {
    /// Adds what has been received.
    pub(crate) fn push(&mut self, data: &[u8]) {
        // What has been taken makes room first, so that no more is kept than one text and what was just read.
        self.input.drain(..self.start);
        self.seen -= self.start;
        self.start = 0;
        self.input.extend_from_slice(data);
    }

    /// The next text, or what is wrong with it; `None` if more bytes are needed.
    pub(crate) fn next(&mut self) -> Option<Result<Vec<u8>, FramingError>> {
        while let Some(&byte) = self.input.get(self.seen) {
            if is_control(byte) {
                self.seen += 1;
                self.forget(Place::Between);
                return Some(Err(FramingError::Stray(byte)));
            }
            if let Some(end) = self.step(byte) {
                return Some(end);
            }
            if self.place == Place::Refused {
                self.start = self.seen;
            } else if self.seen - self.start > MAX_LENGTH {
                self.forget(Place::Refused);
                return Some(Err(FramingError::TooLong));
            }
        }
        None
    }

    /// Looks at one byte; the text that ends with it or before it.
    fn step(&mut self, byte: u8) -> Option<Result<Vec<u8>, FramingError>> {
        let ends_word = byte.is_ascii_whitespace() || matches!(byte, b'{' | b'[' | b'"');
        if self.place == Place::Word && ends_word {
            return Some(Ok(self.take()));
        }
        self.seen += 1;
        match (self.place, byte) {
            (Place::Refused, b'\n') => self.forget(Place::Between),
            (Place::Refused, _) => {}
            (Place::Between, b' ' | b'\t' | b'\r' | b'\n') => self.start = self.seen,
            (Place::String, b'\n') => {
                self.forget(Place::Between);
                return Some(Err(FramingError::OpenString));
            }
            (Place::String, b'\\') => self.place = Place::Escape,
            (Place::String, b'"') => return self.close_if(self.depth == 0),
            (Place::String | Place::Word, _) => {}
            (Place::Escape, _) => self.place = Place::String,
            (Place::Between | Place::Inside, b'"') => self.place = Place::String,
            (Place::Between | Place::Inside, b'{' | b'[') => return self.open(),
            (Place::Inside, b'}' | b']') => {
                self.depth -= 1;
                return self.close_if(self.depth == 0);
            }
            (Place::Between, _) => self.place = Place::Word,
            (Place::Inside, _) => {}
        }
        None
    }

    fn open(&mut self) -> Option<Result<Vec<u8>, FramingError>> {
        self.place = Place::Inside;
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            return None;
        }
        self.forget(Place::Refused);
        Some(Err(FramingError::TooDeep))
    }

    fn close_if(&mut self, whole: bool) -> Option<Result<Vec<u8>, FramingError>> {
        self.place = Place::Inside;
        whole.then(|| Ok(self.take()))
    }

    fn take(&mut self) -> Vec<u8> {
        let text = self.input[self.start..self.seen].to_vec();
        self.forget(Place::Between);
        text
    }

    fn forget(&mut self, place: Place) {
        (self.place, self.depth, self.start) = (place, 0, self.seen);
    }
}

/// Bytes that are in no JSON text: control characters but for white space, and the one that no UTF-8 has.
fn is_control(byte: u8) -> bool {
    byte == 0xff || byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    type Texts = Vec<Result<String, FramingError>>;

    /// What comes of `input` in pieces of `size` bytes.
    fn frame(input: &[u8], size: usize) -> Texts {
        let mut framer = Framer::default();
        let mut texts = Texts::new();
        for piece in input.chunks(size) {
            framer.push(piece);
            while let Some(text) = framer.next() {
                texts.push(text.map(|t| String::from_utf8_lossy(&t).into_owned()));
            }
            assert!(framer.input.len() <= MAX_LENGTH + 2 * size + 1, "{}", framer.input.len());
        }
        texts
    }

    fn ok(texts: &[&str]) -> Texts {
        texts.iter().map(|t| Ok((*t).to_owned())).collect()
    }

    #[test]
    fn texts_end_where_their_brackets_close() {
        assert_eq!(frame(b"{}{\"a\":[1,{}]} \r\n[ ]\n", 3), ok(&["{}", "{\"a\":[1,{}]}", "[ ]"]));
        assert_eq!(frame(br#"{"}\"{":"\\"}{}"#, 1), ok(&[r#"{"}\"{":"\\"}"#, "{}"]));
        assert_eq!(frame(b"5 true\n\"a b\"{}", 2), ok(&["5", "true", "\"a b\"", "{}"]));
        assert_eq!(frame(b"{\"a\":\n1}", 100), ok(&["{\"a\":\n1}"]));
        assert_eq!(
            frame(b"}\n{]\n{}", 100),
            ok(&["}", "{]", "{}"]),
            "what is inside is the parser's business"
        );
        assert_eq!(frame(b"{\"execute\"", 4), ok(&[]));
    }

    #[test]
    fn what_cannot_be_a_text_is_told_once_and_skipped() {
        let stray = |b| Err(FramingError::Stray(b));
        assert_eq!(frame(b"{\"a\":\x1d{}", 4), [stray(0x1d), Ok("{}".into())]);
        assert_eq!(frame(b"\xff{}\0", 4), [stray(0xff), Ok("{}".into()), stray(0)]);
        assert_eq!(frame(b"{\"exec\n{}", 4), [Err(FramingError::OpenString), Ok("{}".into())]);
        let deep = [vec![b'['; 100_000], b"]]]]\n{}".to_vec()].concat();
        assert_eq!(frame(&deep, 4096), [Err(FramingError::TooDeep), Ok("{}".into())]);
        let long = [b"{\"a\":\"".to_vec(), vec![b'x'; 5 << 20], b"\"}\n{}".to_vec()].concat();
        assert_eq!(frame(&long, 4096), [Err(FramingError::TooLong), Ok("{}".into())]);
        let fits = [b"\"".to_vec(), vec![b'x'; MAX_LENGTH - 2], b"\"".to_vec()].concat();
        assert!(matches!(&frame(&fits, 4096)[..], [Ok(text)] if text.len() == MAX_LENGTH));
    }

    /// However the bytes are cut into pieces, the same comes out, and memory stays bounded.
    #[test]
    fn damaged_streams_give_the_same_in_any_pieces() {
        let whole = br#"{"execute":"query-status","id":[1,{"a":"\u0041\\\""}]} {"x":-1e5,"y":[null]}"#;
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 33) as usize % below
        };
        for _ in 0..3000 {
            let mut bytes = [&whole[..], b"\n", whole, b"\n"].concat();
            for _ in 0..random(6) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes.truncate(at + 1),
                    2 => bytes.insert(at, b"{}[]\"\\\n\x01 "[random(9)]),
                    _ => drop(bytes.remove(at)),
                }
                bytes.push(b'\n');
            }
            let expected = frame(&bytes, bytes.len());
            assert_eq!(frame(&bytes, 1 + random(9)), expected, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
