//! What a machine boots: kernel, initrd and device tree, opened and checked once, loaded at every reset.
//!
//! Files stay open, so that a reset loads what was checked at the start, and are read straight into guest
//! RAM; nothing of their size is kept on the host's heap.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use armlet_memory::Ram;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::error::{BootError, ConfigError};
use crate::{recording, spec};

pub mod dtb;
mod elf;
mod kernel;
mod layout;
mod linux;
mod unpack;

pub use elf::{Elf, Segment};
pub use kernel::{Kernel, KernelKind};
pub use layout::Layout;
pub use linux::{LinuxImage, PageSize};

/// A regular file that was given to boot, open.
#[derive(Debug)]
pub(crate) struct InputFile {
    pub(crate) what: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) len: u64,
}

impl InputFile {
    pub(crate) fn open(what: &'static str, path: &Path) -> Result<Self, BootError> {
        let failed = |source| BootError::Open { what, path: path.into(), source };
        // Before it is opened: opening a pipe waits for its other end, opening a device may have effects.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        let other = if kind.is_dir() {
            Some("folder")
        } else if kind.is_socket() || kind.is_fifo() {
            Some("socket or pipe")
        } else if kind.is_char_device() || kind.is_block_device() {
            Some("device")
        } else {
            None
        };
        if let Some(kind) = other {
            return Err(BootError::NotAFile { what, path: path.into(), kind });
        }
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        if len == 0 {
            return Err(BootError::Empty { what, path: path.into() });
        }
        Ok(Self { what, path: path.into(), file, len })
    }

    pub(crate) fn read_failed(&self, source: std::io::Error) -> BootError {
        BootError::Open { what: self.what, path: self.path.clone(), source }
    }

    /// Copies `len` bytes from `offset` in the file to RAM at `to`.
    pub(crate) fn load(&self, offset: u64, len: u64, ram: &Ram, to: u64) -> Result<(), BootError> {
        if len == 0 {
            return Ok(());
        }
        if !ram.contains(to, len) {
            return Err(self.read_failed(std::io::Error::other("it does not fit")));
        }
        // Inside the host's kernel first: that neither faults RAM in page by page nor zeroes it before.
        let done = self.send(offset, len, ram, to).unwrap_or(0);
        self.copy(offset + done, len - done, ram, to + done)
    }

    fn copy(&self, offset: u64, len: u64, ram: &Ram, to: u64) -> Result<(), BootError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset)).map_err(|e| self.read_failed(e))?;
        let len = usize::try_from(len).map_err(|e| self.read_failed(std::io::Error::other(e)))?;
        ram.guest_memory()
            .read_exact_volatile_from(GuestAddress(to), &mut file, len)
            .map_err(|e| self.read_failed(std::io::Error::other(e.to_string())))
    }

    /// As much of [`Self::copy`] as the host's kernel does by itself; how much that was.
    fn send(&self, offset: u64, len: u64, ram: &Ram, to: u64) -> Option<u64> {
        let region = ram.guest_memory().find_region(GuestAddress(to))?;
        let memory = region.file_offset()?;
        let at = memory.start().checked_add(to.checked_sub(region.start_addr().0)?)?;
        memory.file().seek(SeekFrom::Start(at)).ok()?;
        let (mut from, mut done) = (offset, 0);
        while done < len {
            let want = usize::try_from(len - done).ok()?;
            match rustix::fs::sendfile(memory.file(), &self.file, Some(&mut from), want) {
                Ok(0) | Err(_) => break,
                Ok(n) => done += n as u64,
            }
        }
        Some(done)
    }
}

/// Everything that is loaded into RAM before the first instruction.
#[derive(Debug)]
pub struct Boot {
    kernel: Kernel,
    initrd: Option<InputFile>,
    dtb: Option<Vec<u8>>,
    layout: Layout,
}

/// What tells the files of one machine from those of another.
pub(crate) struct Digests {
    pub(crate) kernel: String,
    pub(crate) initrd: Option<String>,
    pub(crate) dtb: Option<String>,
}

/// Where the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Address of the first instruction.
    pub pc: u64,
    /// Address of the device tree, for X0.
    pub device_tree: u64,
}

impl Boot {
    /// Opens and checks what `config` names, for RAM of `memory` bytes. Nothing is loaded yet.
    ///
    /// # Errors
    /// What is wrong with the files, or that they do not fit.
    pub fn open(config: &crate::config::BootConfig, memory: u64) -> Result<Self, BootError> {
        if config.append.len() > crate::error::MAX_COMMAND_LINE || config.append.contains('\0') {
            return Err(BootError::CommandLine);
        }
        let kernel = match &config.kernel {
            Some(path) => Kernel::open(path)?,
            None if config.initrd.is_some() => return Err(BootError::InitrdWithoutKernel),
            None => Kernel::demo()?,
        };
        let initrd = config.initrd.as_deref().map(|p| InputFile::open("initrd", p)).transpose()?;
        let dtb = config.dtb.as_deref().map(dtb::read_file).transpose()?;
        if let (KernelKind::Elf(_), Some(_)) = (kernel.kind(), &initrd) {
            return Err(BootError::InitrdWithElf { path: kernel.path().into() });
        }
        let initrd_size = initrd.as_ref().map(|i| (i.path.as_path(), i.len));
        let layout = Layout::plan(&kernel, initrd_size, memory)?;
        Ok(Self { kernel, initrd, dtb, layout })
    }

    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Where things go.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The initrd's place: first and one past the last byte.
    pub fn initrd_range(&self) -> Option<(u64, u64)> {
        self.initrd.as_ref().map(|i| (self.layout.initrd, self.layout.initrd + i.len))
    }

    /// The device tree that the guest gets: the user's with `/chosen` filled in, or `generated`.
    ///
    /// # Errors
    /// [`BootError::DeviceTree`] if the user's cannot be edited.
    pub fn device_tree(&self, generated: Vec<u8>, append: &str) -> Result<Vec<u8>, BootError> {
        match &self.dtb {
            None => Ok(generated),
            Some(user) => dtb::with_chosen(user, append, self.initrd_range()),
        }
    }

    /// Puts everything into RAM.
    ///
    /// # Errors
    /// A file that can no longer be read, or a damaged one.
    pub fn load(&self, ram: &Ram, device_tree: &[u8]) -> Result<(), BootError> {
        if device_tree.len() as u64 > dtb::MAX_SIZE {
            return Err(BootError::DeviceTree("it is longer than 2M".into()));
        }
        self.kernel.load(ram, &self.layout)?;
        if let Some(initrd) = &self.initrd {
            initrd.load(0, initrd.len, ram, self.layout.initrd)?;
        }
        let fits = ram.write(self.layout.device_tree, device_tree);
        fits.map_err(|e| BootError::DeviceTree(e.to_string()))
    }

    /// Sizes and digests of the files, for people and for comparing.
    ///
    /// # Errors
    /// A file that can no longer be read.
    pub(crate) fn digests(&self) -> Result<Digests, BootError> {
        let of =
            |input: &InputFile| recording::digest(&input.file, input.len).map_err(|e| input.read_failed(e));
        Ok(Digests {
            kernel: of(self.kernel.input())?,
            initrd: self.initrd.as_ref().map(of).transpose()?,
            dtb: self.dtb.as_deref().map(recording::digest_of),
        })
    }

    /// Where the first vCPU starts.
    pub fn entry(&self) -> Entry {
        Entry { pc: self.layout.entry, device_tree: self.layout.device_tree }
    }
}

/// Checks that a CPU has the pages that the kernel was built for; `granules` are those it has.
///
/// # Errors
/// [`ConfigError::PageSize`].
pub fn check_page_size(kernel: &Kernel, granules: &[PageSize], cpu: &str) -> Result<(), ConfigError> {
    match kernel.kind() {
        KernelKind::Linux(LinuxImage { page_size: Some(p), .. }) if !granules.contains(p) => {
            Err(ConfigError::PageSize { kernel: p.name(), cpu: cpu.into() })
        }
        _ => Ok(()),
    }
}

const _: () = assert!(spec::RAM_BASE.is_multiple_of(2 << 20));
