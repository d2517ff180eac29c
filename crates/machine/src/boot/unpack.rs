//! Kernels that come packed: gzip'd or zstd'd images, and EFI zboot files that hold such an image.

use std::io::{Read, Seek, SeekFrom};

use super::InputFile;
use super::linux::u32_at;
use crate::error::BootError;

/// How the kernel lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) method: Method,
    /// Where the (packed) image starts in the file.
    pub(crate) offset: u64,
    /// Its length in the file.
    pub(crate) len: u64,
}

/// How the image is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Plain,
    Gzip,
    Zstd,
}

/// What the first bytes of a file say about its packing: `Err` names a method that we do not have.
pub(crate) fn detect(head: &[u8], file_len: u64) -> Result<Packing, Unsupported> {
    let whole = |method| Packing { method, offset: 0, len: file_len };
    if head.starts_with(b"MZ") && head.get(4..8) == Some(b"zimg") {
        return zboot(head, file_len);
    }
    match head {
        [0x1f, 0x8b, 8, ..] => Ok(whole(Method::Gzip)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(whole(Method::Zstd)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(Unsupported::Method("xz".into())),
        [b'B', b'Z', b'h', ..] => Err(Unsupported::Method("bzip2".into())),
        [0x02, 0x21, 0x4c, 0x18, ..] | [0x04, 0x22, 0x4d, 0x18, ..] => Err(Unsupported::Method("lz4".into())),
        _ => Ok(whole(Method::Plain)),
    }
}

/// Why a packed kernel cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsupported {
    /// This method is not known.
    Method(String),
    /// The file ends before the packed image does.
    Truncated,
}

/// The EFI zboot header: "zimg" at 4, payload offset at 8 and size at 12, method as text at 24.
fn zboot(head: &[u8], file_len: u64) -> Result<Packing, Unsupported> {
    let (Some(offset), Some(len), Some(method)) = (u32_at(head, 8), u32_at(head, 12), head.get(24..56))
    else {
        return Err(Unsupported::Truncated);
    };
    let (offset, len) = (u64::from(offset), u64::from(len));
    if offset + len > file_len {
        return Err(Unsupported::Truncated);
    }
    let text: String =
        method.iter().take_while(|c| c.is_ascii_alphanumeric()).map(|&c| char::from(c)).collect();
    let method = match text.as_str() {
        "gzip" => Method::Gzip,
        t if t.starts_with("zstd") => Method::Zstd,
        _ => {
            return Err(Unsupported::Method(if text.is_empty() { "an unknown method".into() } else { text }));
        }
    };
    Ok(Packing { method, offset, len })
}

/// The unpacked bytes.
pub(crate) fn reader<'a>(input: &'a InputFile, packing: Packing) -> Result<Box<dyn Read + 'a>, BootError> {
    let mut file = &input.file;
    file.seek(SeekFrom::Start(packing.offset)).map_err(|e| input.read_failed(e))?;
    let packed = std::io::BufReader::with_capacity(256 << 10, file.take(packing.len));
    Ok(match packing.method {
        Method::Plain => Box::new(packed),
        Method::Gzip => Box::new(flate2::bufread::GzDecoder::new(packed)),
        Method::Zstd => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(packed).map_err(|_| BootError::Damaged {
                path: input.path.clone(),
                why: "its zstd header".into(),
            })?)
        }
    })
}

/// Reads up to `limit` bytes into `buffer`; how many there were.
pub(crate) fn read_up_to(from: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match from.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The error of unpacking `input`: a file that ends early, or a damaged one.
pub(crate) fn unpack_failed(input: &InputFile, e: &std::io::Error) -> BootError {
    let path = input.path.clone();
    if e.kind() == std::io::ErrorKind::UnexpectedEof {
        return BootError::Truncated { path, why: "the packed data ends early".into() };
    }
    BootError::Damaged { path, why: e.to_string().replace('\n', " ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zboot_headers_name_method_and_payload() {
        let mut h = [0u8; 64];
        h[..8].copy_from_slice(b"MZ\0\0zimg");
        h[8..12].copy_from_slice(&0x100u32.to_le_bytes());
        h[12..16].copy_from_slice(&0x50u32.to_le_bytes());
        h[24..28].copy_from_slice(b"gzip");
        assert_eq!(detect(&h, 0x150), Ok(Packing { method: Method::Gzip, offset: 0x100, len: 0x50 }));
        assert_eq!(detect(&h, 0x14f), Err(Unsupported::Truncated));
        h[24..30].copy_from_slice(b"zstd22");
        assert_eq!(detect(&h, 0x150).unwrap().method, Method::Zstd);
        h[24..30].copy_from_slice(b"lzma\0\0");
        assert_eq!(detect(&h, 0x150), Err(Unsupported::Method("lzma".into())));
    }
}
