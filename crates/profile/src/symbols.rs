//! What guest addresses are called.

use std::path::Path;

use object::{Object, ObjectSymbol, SymbolKind};
use thiserror::Error;

use crate::kallsyms;

/// A function's first address and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Virtual address.
    pub address: u64,
    /// Its name.
    pub name: String,
}

/// Why there are no symbols.
#[derive(Debug, Error)]
#[error("symbols '{path}' {why}: give a System.map, an output of nm, or an ELF file with symbols")]
pub struct SymbolsError {
    path: String,
    why: String,
}

/// Symbols in the order of their addresses.
#[derive(Clone, Debug, Default)]
pub struct Symbols(Vec<Symbol>);

/// Further behind the last symbol than this, nothing is called after it.
const REACH: u64 = 1 << 20;

impl Symbols {
    /// Of a file: a System.map, or ELF.
    ///
    /// # Errors
    /// It cannot be read, or has no symbols.
    pub fn open(path: &Path) -> Result<Self, SymbolsError> {
        let failed = |why: String| SymbolsError { path: path.display().to_string(), why };
        let data = std::fs::read(path).map_err(|e| failed(format!("cannot be read ({e})")))?;
        let symbols = if data.starts_with(b"\x7fELF") {
            Self::of_elf(&data).map_err(|e| failed(format!("is no ELF file that can be understood ({e})")))?
        } else {
            Self::of_map(&String::from_utf8_lossy(&data))
        };
        if symbols.0.is_empty() { Err(failed("has no symbols".into())) } else { Ok(symbols) }
    }

    /// The functions of an ELF file.
    fn of_elf(data: &[u8]) -> Result<Self, object::Error> {
        let file = object::File::parse(data)?;
        let functions = file
            .symbols()
            .filter(|s| matches!(s.kind(), SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown));
        let named =
            functions.filter_map(|s| Some(Symbol { address: s.address(), name: s.name().ok()?.to_owned() }));
        Ok(Self::sorted(named.filter(|s| s.address != 0 && is_name(&s.name)).collect()))
    }

    /// Lines of address, kind and name, as `nm` writes them.
    pub fn of_map(text: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
            let address = u64::from_str_radix(address, 16).ok()?;
            ("tTwW".contains(kind) && is_name(name)).then(|| Symbol { address, name: name.to_owned() })
        };
        Self::sorted(text.lines().filter_map(line).collect())
    }

    /// The symbols that a plain Linux image carries itself; none if it carries none. In an image that has not run yet their
    /// addresses may be from its beginning on.
    pub fn of_linux(image: &[u8]) -> Self {
        let mut symbols = kallsyms::read(image).unwrap_or_default();
        symbols.retain(|s| is_name(&s.name));
        Self::sorted(symbols)
    }

    fn sorted(mut symbols: Vec<Symbol>) -> Self {
        symbols.sort_by_key(|s| s.address);
        Self(symbols)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The function that `address` is in; of several names the first, which is as good as the others.
    pub fn find(&self, address: u64) -> Option<&Symbol> {
        let next = self.0.partition_point(|s| s.address <= address);
        let last = self.0.get(next.checked_sub(1)?)?;
        let symbol = self.0.get(self.0.partition_point(|s| s.address < last.address))?;
        let end = self.0.get(next).map_or(symbol.address.saturating_add(REACH), |s| s.address);
        (address < end).then_some(symbol)
    }

    /// The address of the function that is called so.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|s| s.name == name).map(|s| s.address)
    }
}

/// Assemblers mark kinds of contents by symbols that begin with a dollar sign (AAELF64, 5.5.4).
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.starts_with(".L")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_a_map_are_found_by_any_address_inside() {
        let map = "ffff800080010000 T _stext\nffff800080010000 t $x\nffff800080010000 T also\nffff800080010040 t work\n\
                   ffff800080020000 D data\nffff800080010100 W weak\nnonsense\n";
        let symbols = Symbols::of_map(map);
        assert_eq!(symbols.len(), 4);
        assert_eq!(symbols.address_of("also"), symbols.address_of("_stext"));
        let name = |a| symbols.find(a).map(|s| s.name.as_str());
        assert_eq!(name(0xffff_8000_8000_ffff), None);
        assert_eq!(name(0xffff_8000_8001_003c), Some("_stext"));
        assert_eq!(name(0xffff_8000_8001_0040), Some("work"));
        assert_eq!(name(0xffff_8000_8001_0104), Some("weak"));
        assert_eq!(name(0xffff_8000_9001_0104), None);
        assert_eq!(symbols.address_of("weak"), Some(0xffff_8000_8001_0100));
    }

    #[test]
    fn rubbish_has_no_symbols() {
        let digits = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
        for image in [&[][..], &[0; 4096], &digits.repeat(40), &[0xff; 5000]] {
            assert!(Symbols::of_linux(image).is_empty());
        }
    }
}
