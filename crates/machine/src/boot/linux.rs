//! The arm64 Linux `Image` header (Linux documentation, "Booting AArch64 Linux") and the PE header that EFI
//! kernels carry as well.

/// `"ARM\x64"` at offset 56.
const MAGIC: [u8; 4] = *b"ARM\x64";
/// Length of the header.
pub(crate) const HEADER_LEN: usize = 64;
/// What kernels from before the header's `image_size` (3.17) expect.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;
/// PE machine numbers.
const PE_ARM64: u16 = 0xaa64;

/// Page size that a kernel was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl PageSize {
    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::K4 => "4K",
            Self::K16 => "16K",
            Self::K64 => "64K",
        }
    }
}

/// What the header of an `Image` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinuxImage {
    /// Offset from a 2 MiB boundary at which the image wants to be.
    pub text_offset: u64,
    /// Bytes of memory that the image takes, with its BSS; 0 if the kernel does not say.
    pub image_size: u64,
    /// Page size, if the kernel says.
    pub page_size: Option<PageSize>,
    /// Built for big-endian CPUs.
    pub big_endian: bool,
}

impl LinuxImage {
    /// Reads the header; `None` if there is none.
    pub fn parse(head: &[u8]) -> Option<Self> {
        let head = head.get(..HEADER_LEN)?;
        if head[56..60] != MAGIC {
            return None;
        }
        let image_size = u64_at(head, 16)?;
        let flags = u64_at(head, 24)?;
        let page_size = match (flags >> 1) & 3 {
            1 => Some(PageSize::K4),
            2 => Some(PageSize::K16),
            3 => Some(PageSize::K64),
            _ => None,
        };
        let text_offset = if image_size == 0 { OLD_TEXT_OFFSET } else { u64_at(head, 8)? };
        Some(Self { text_offset, image_size, page_size, big_endian: flags & 1 != 0 })
    }
}

/// What a PE header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pe {
    pub(crate) machine: u16,
    /// End of what the file holds: sections, and the signature behind them.
    pub(crate) file_end: u64,
}

/// Offset in a PE32+ optional header of the certificate table's entry: file offset and length.
const CERTIFICATES: usize = 112 + 4 * 8;
/// The optional header's magic number of PE32+.
const PE32_PLUS: u16 = 0x20b;

/// Where a signature ends in the file, if the optional header behind the COFF header at `coff` names one.
fn signature_end(head: &[u8], coff: usize) -> Option<u64> {
    let optional = coff + 20;
    let has_entry = u32_at(head, optional + 108)? > 4;
    let at = u32_at(head, optional + CERTIFICATES)?;
    let len = u32_at(head, optional + CERTIFICATES + 4)?;
    (u16_at(head, optional)? == PE32_PLUS && has_entry).then(|| u64::from(at) + u64::from(len))
}

/// True for a file of `len` bytes that says it has a PE header, but ends before that.
pub(crate) fn ends_before_pe(head: &[u8], len: u64) -> bool {
    head.starts_with(b"MZ") && u32_at(head, 0x3c).is_some_and(|pe| u64::from(pe) + 4 > len)
}

impl Pe {
    /// Reads the PE header of a file that starts with `head`. `None` if there is none, or it is not in `head`.
    pub(crate) fn parse(head: &[u8]) -> Option<Self> {
        if head.get(..2)? != b"MZ" {
            return None;
        }
        let pe = u32_at(head, 0x3c)? as usize;
        if head.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
            return None;
        }
        let coff = pe + 4;
        let machine = u16_at(head, coff)?;
        let sections = u16_at(head, coff + 2)?;
        let table = coff + 20 + usize::from(u16_at(head, coff + 16)?);
        let mut file_end = signature_end(head, coff).unwrap_or(0);
        for i in 0..usize::from(sections) {
            let section = table + i * 40;
            let (Some(len), Some(at)) = (u32_at(head, section + 16), u32_at(head, section + 20)) else {
                break;
            };
            if len != 0 {
                file_end = file_end.max(u64::from(at) + u64::from(len));
            }
        }
        Some(Self { machine, file_end })
    }

    pub(crate) fn is_arm64(self) -> bool {
        self.machine == PE_ARM64
    }

    pub(crate) fn machine_name(self) -> String {
        match self.machine {
            0x8664 => "an x86-64 kernel".into(),
            0x14c => "a 32-bit x86 kernel".into(),
            0x1c0 | 0x1c2 | 0x1c4 => "a 32-bit Arm kernel".into(),
            0x5064 => "a RISC-V kernel".into(),
            0x6264 => "a LoongArch kernel".into(),
            m => format!("a kernel for PE machine {m:#x}"),
        }
    }
}

pub(crate) fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_the_boot_protocol_says() {
        let mut h = [0u8; 64];
        h[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
        h[16..24].copy_from_slice(&0x123_4000u64.to_le_bytes());
        h[24] = 0b1010;
        h[56..60].copy_from_slice(b"ARM\x64");
        let image = LinuxImage::parse(&h).unwrap();
        assert_eq!(image.text_offset, 0x20_0000);
        assert_eq!(image.image_size, 0x123_4000);
        assert_eq!(image.page_size, Some(PageSize::K4));
        assert!(!image.big_endian);
        h[16..24].fill(0);
        assert_eq!(LinuxImage::parse(&h).unwrap().text_offset, OLD_TEXT_OFFSET);
        h[56] = 0;
        assert_eq!(LinuxImage::parse(&h), None);
        assert_eq!(LinuxImage::parse(&h[..63]), None);
    }

    #[test]
    fn a_pe_offset_beyond_the_file_is_no_pe() {
        let mut h = vec![0u8; 64];
        h[..2].copy_from_slice(b"MZ");
        h[0x3c..0x40].fill(0xff);
        assert_eq!(Pe::parse(&h), None);
        assert!(ends_before_pe(&h, 64));
        h[0x3c..0x40].copy_from_slice(&60u32.to_le_bytes());
        assert!(!ends_before_pe(&h, 64));
    }

    #[test]
    fn the_file_ends_behind_its_signature() {
        let mut h = vec![0u8; 0x200];
        h[..2].copy_from_slice(b"MZ");
        h[0x3c] = 0x40;
        h[0x40..0x44].copy_from_slice(b"PE\0\0");
        let optional = 0x58;
        h[optional..optional + 2].copy_from_slice(&PE32_PLUS.to_le_bytes());
        h[optional + 108] = 6;
        h[optional + CERTIFICATES..][..4].copy_from_slice(&0x1000u32.to_le_bytes());
        h[optional + CERTIFICATES + 4..][..4].copy_from_slice(&0x5c0u32.to_le_bytes());
        assert_eq!(Pe::parse(&h).unwrap().file_end, 0x15c0);
        h[optional + 108] = 4;
        assert_eq!(Pe::parse(&h).unwrap().file_end, 0);
    }
}
