//! A kernel file: what it is, and loading it.

use std::os::unix::fs::FileExt;
use std::path::Path;

use armlet_memory::Ram;

use super::linux::{HEADER_LEN, LinuxImage, Pe, ends_before_pe, u32_at};
use super::unpack::{self, Method, Packing, Unsupported};
use super::{Elf, InputFile, Layout};
use crate::error::{BootError, size};

/// Largest unpacked kernel in bytes.
const MAX_UNPACKED: u64 = 1 << 30;
/// How much of a file is looked at to tell what it is: enough for a PE header with its sections.
const HEAD_LEN: usize = 4096;
/// Room for a packed kernel whose header does not say its size (before Linux 3.17).
const UNKNOWN_SIZE: u64 = 64 << 20;
const COPY_CHUNK: usize = 256 << 10;

/// A kernel, open and checked.
#[derive(Debug)]
pub struct Kernel {
    input: InputFile,
    packing: Packing,
    kind: KernelKind,
}

/// What kind of kernel it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelKind {
    /// An arm64 Linux `Image`.
    Linux(LinuxImage),
    /// A bare-metal ELF file.
    Elf(Elf),
}

impl Kernel {
    /// Opens and checks the file at `path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path) -> Result<Self, BootError> {
        Self::from_input(InputFile::open("kernel", path)?)
    }

    /// The demonstration guest that is part of this program.
    ///
    /// # Errors
    /// The host's, if it has no memory for it.
    pub fn demo() -> Result<Self, BootError> {
        Self::from_input(crate::demo::open()?)
    }

    fn from_input(input: InputFile) -> Result<Self, BootError> {
        let mut head = [0; HEAD_LEN];
        let n = read_head(&input, &mut head)?;
        let head = &head[..n];
        if head.starts_with(b"\x7fELF") {
            let kind = KernelKind::Elf(Elf::parse(&input, head)?);
            let packing = Packing { method: Method::Plain, offset: 0, len: input.len };
            return Ok(Self { input, packing, kind });
        }
        let path = || input.path.clone();
        check_machine(&input, head)?;
        let packing = unpack::detect(head, input.len).map_err(|e| match e {
            Unsupported::Method(method) => BootError::Compression { path: path(), method },
            Unsupported::Truncated => {
                BootError::Truncated { path: path(), why: "it ends before its packed image".into() }
            }
        })?;
        let image = match packing.method {
            Method::Plain => check_image(&input, head, Some(input.len))?,
            _ => {
                let mut inner = [0; HEAD_LEN];
                let mut reader = unpack::reader(&input, packing)?;
                let n = unpack::read_up_to(&mut *reader, &mut inner)
                    .map_err(|e| unpack::unpack_failed(&input, &e))?;
                check_image(&input, &inner[..n], None)?
            }
        };
        Ok(Self { input, packing, kind: KernelKind::Linux(image) })
    }

    pub(crate) fn input(&self) -> &InputFile {
        &self.input
    }

    /// The file's path, for messages.
    pub fn path(&self) -> &Path {
        &self.input.path
    }

    /// What it is.
    pub fn kind(&self) -> &KernelKind {
        &self.kind
    }

    /// Bytes that a Linux image takes in memory, as far as is known before it is loaded.
    pub(crate) fn linux_size(&self, image: &LinuxImage) -> u64 {
        let at_least = match self.packing.method {
            Method::Plain => self.packing.len,
            _ if image.image_size == 0 => UNKNOWN_SIZE,
            _ => 0,
        };
        image.image_size.max(at_least)
    }

    /// Loads it to where `layout` says.
    pub(crate) fn load(&self, ram: &Ram, layout: &Layout) -> Result<(), BootError> {
        match &self.kind {
            KernelKind::Elf(elf) => self.load_elf(ram, elf),
            KernelKind::Linux(_) if self.packing.method == Method::Plain => {
                self.input.load(0, self.input.len, ram, layout.kernel)
            }
            KernelKind::Linux(_) => self.load_packed(ram, layout),
        }
    }

    fn load_elf(&self, ram: &Ram, elf: &Elf) -> Result<(), BootError> {
        for s in &elf.segments {
            self.input.load(s.offset, s.file_size, ram, s.address)?;
            zero(ram, s.address + s.file_size, s.memory_size - s.file_size)
                .map_err(|e| self.input.read_failed(std::io::Error::other(e)))?;
        }
        Ok(())
    }

    fn load_packed(&self, ram: &Ram, layout: &Layout) -> Result<(), BootError> {
        let mut reader = unpack::reader(&self.input, self.packing)?;
        let mut buffer = vec![0; COPY_CHUNK];
        let mut done = 0u64;
        loop {
            let n = unpack::read_up_to(&mut *reader, &mut buffer)
                .map_err(|e| unpack::unpack_failed(&self.input, &e))?;
            if n == 0 {
                return Ok(());
            }
            let limit = layout.kernel_limit.min(MAX_UNPACKED);
            if done + n as u64 > limit {
                let why = format!("it unpacks to more than the {} that it announces", size(limit));
                return Err(BootError::Damaged { path: self.input.path.clone(), why });
            }
            let written = ram.write(layout.kernel + done, &buffer[..n]);
            written.map_err(|e| self.input.read_failed(std::io::Error::other(e)))?;
            done += n as u64;
        }
    }
}

fn read_head(input: &InputFile, head: &mut [u8]) -> Result<usize, BootError> {
    let n = head.len().min(usize::try_from(input.len).unwrap_or(usize::MAX));
    input.file.read_exact_at(&mut head[..n], 0).map_err(|e| input.read_failed(e))?;
    Ok(n)
}

/// Refuses another machine's kernel by its PE header; gives that header if there is one.
fn check_machine(input: &InputFile, head: &[u8]) -> Result<Option<Pe>, BootError> {
    match Pe::parse(head) {
        Some(pe) if !pe.is_arm64() => {
            Err(BootError::NotArm64 { path: input.path.clone(), found: pe.machine_name() })
        }
        pe => Ok(pe),
    }
}

/// Checks the start of an (unpacked) `Image` whose file is `len` bytes long, if that is known.
fn check_image(input: &InputFile, head: &[u8], len: Option<u64>) -> Result<LinuxImage, BootError> {
    let path = || input.path.clone();
    let pe = check_machine(input, head)?;
    let Some(image) = LinuxImage::parse(head) else {
        if head.len() < HEADER_LEN {
            let why = format!("{} bytes are no kernel header", head.len());
            return Err(BootError::Truncated { path: path(), why });
        }
        return Err(match known_other(head) {
            Some(found) => BootError::NotArm64 { path: path(), found: found.into() },
            None => BootError::NotAKernel { path: path() },
        });
    };
    if image.big_endian {
        return Err(BootError::BigEndian { path: path() });
    }
    if len.is_some_and(|len| ends_before_pe(head, len)) {
        return Err(BootError::Truncated { path: path(), why: "it ends before its PE header".into() });
    }
    if let (Some(len), Some(pe)) = (len, pe)
        && len < pe.file_end
    {
        let why = format!("{len} of {} bytes", pe.file_end);
        return Err(BootError::Truncated { path: path(), why });
    }
    Ok(image)
}

/// Kernels of other kinds that people hand over by mistake.
fn known_other(head: &[u8]) -> Option<&'static str> {
    if u32_at(head, 0x24) == Some(0x016f_2818) {
        return Some("a 32-bit Arm zImage");
    }
    if head.starts_with(&[0x27, 0x05, 0x19, 0x56]) {
        return Some("a U-Boot uImage");
    }
    if head.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]) {
        return Some("a device tree or FIT image");
    }
    if u32_at(head, 0x202) == Some(u32::from_le_bytes(*b"HdrS")) {
        return Some("an x86 bzImage");
    }
    None
}

fn zero(ram: &Ram, at: u64, len: u64) -> Result<(), armlet_memory::MemoryError> {
    let zeros = [0u8; 4096];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(4096);
        ram.write(at + done, &zeros[..n as usize])?;
        done += n;
    }
    Ok(())
}
