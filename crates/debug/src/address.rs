//! Where a debugger connects.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::AddressError;

/// The address to listen at when none is given.
const LOOPBACK: &str = "127.0.0.1";

/// Where a debugger connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port of an address of this host.
    Tcp {
        /// Name or address.
        host: String,
        /// The port; 0 lets the host choose.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = AddressError;

    /// `:PORT` or `PORT` (of the loopback address), `HOST:PORT`, `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let place = text.strip_prefix("tcp:").unwrap_or(text);
        let (host, port) = place.rsplit_once(':').unwrap_or(("", place));
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or_else(bad)?;
        let host = if host.is_empty() { LOOPBACK } else { host };
        Ok(Self::Tcp { host: host.into(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, shown) in [
            (":1234", "127.0.0.1:1234"),
            ("1234", "127.0.0.1:1234"),
            ("tcp::1234", "127.0.0.1:1234"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("localhost:65535", "localhost:65535"),
            ("[::1]:1234", "[::1]:1234"),
            ("unix:/tmp/a:b", "unix:/tmp/a:b"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown, "{text}");
        }
        for text in ["", ":", "unix:", "localhost", "1.2.3.4:", ":65536", ":-1", ":+1", "tcp:", ":1a"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("unix:PATH"), "{error}");
        }
    }
}
