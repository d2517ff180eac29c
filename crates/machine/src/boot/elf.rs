//! ELF64 files for bare metal.

use std::os::unix::fs::FileExt;

use super::InputFile;
use super::linux::{u16_at, u32_at, u64_at};
use crate::error::BootError;
use crate::spec;

const EM_AARCH64: u16 = 183;
const PT_LOAD: u32 = 1;
const PHDR_LEN: usize = 56;
const EHDR_LEN: usize = 64;

/// A part of the file that goes to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it lies in the file.
    pub offset: u64,
    /// How much of it lies there.
    pub file_size: u64,
    /// Guest-physical address.
    pub address: u64,
    /// Size in memory; what is beyond `file_size` is zero.
    pub memory_size: u64,
}

/// What is loaded of an ELF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Guest-physical address of the first instruction.
    pub entry: u64,
    /// What to load, as in the file.
    pub segments: Vec<Segment>,
}

impl Elf {
    /// First and one past the last address in memory.
    pub fn range(&self) -> (u64, u64) {
        let start = self.segments.iter().map(|s| s.address).min().unwrap_or(0);
        let end = self.segments.iter().map(|s| s.address + s.memory_size).max().unwrap_or(0);
        (start, end)
    }

    /// True if two segments claim the same memory: a few headers could then mean any amount of work.
    fn overlaps(&self) -> bool {
        let mut all: Vec<_> = self.segments.iter().map(|s| (s.address, s.memory_size)).collect();
        all.sort_unstable();
        all.windows(2).any(|pair| pair[1].0 - pair[0].0 < pair[0].1)
    }

    /// Reads and checks the headers. `head` is the start of the file, which begins with the ELF magic.
    pub(crate) fn parse(input: &InputFile, head: &[u8]) -> Result<Self, BootError> {
        let file_len = input.len;
        let truncated = |why: &str| BootError::Truncated { path: input.path.clone(), why: why.into() };
        let damaged = |why: &str| BootError::Damaged { path: input.path.clone(), why: why.into() };
        let Some(ehdr) = head.get(..EHDR_LEN) else { return Err(truncated("it ends in the ELF header")) };
        if let Some(found) = foreign(ehdr) {
            return Err(BootError::NotArm64 { path: input.path.clone(), found });
        }
        let short = || truncated("it ends in the ELF header");
        let entry = u64_at(ehdr, 24).ok_or_else(short)?;
        let phoff = u64_at(ehdr, 32).ok_or_else(short)?;
        let phentsize = usize::from(u16_at(ehdr, 54).ok_or_else(short)?);
        let phnum = usize::from(u16_at(ehdr, 56).ok_or_else(short)?);
        if phentsize != PHDR_LEN || phnum == 0 {
            return Err(damaged("no program headers"));
        }
        let table_len = phentsize * phnum;
        if phoff.checked_add(table_len as u64).is_none_or(|end| end > file_len) {
            return Err(truncated("it ends before its program headers"));
        }
        let mut table = vec![0; table_len];
        input.file.read_exact_at(&mut table, phoff).map_err(|e| input.read_failed(e))?;
        let mut elf = Self { entry, segments: Vec::new() };
        for phdr in table.chunks_exact(phentsize) {
            elf.add(input, file_len, phdr)?;
        }
        if elf.segments.is_empty() {
            return Err(damaged("nothing in it is to be loaded"));
        }
        if elf.overlaps() {
            return Err(damaged("its segments overlap"));
        }
        Ok(elf)
    }

    fn add(&mut self, input: &InputFile, file_len: u64, phdr: &[u8]) -> Result<(), BootError> {
        let damaged = |why: &str| BootError::Damaged { path: input.path.clone(), why: why.into() };
        let field = |at| u64_at(phdr, at).ok_or_else(|| damaged("short program header"));
        let memory_size = field(40)?;
        if u32_at(phdr, 0) != Some(PT_LOAD) || memory_size == 0 {
            return Ok(());
        }
        let (offset, vaddr, address, file_size) = (field(8)?, field(16)?, field(24)?, field(32)?);
        if file_size > memory_size {
            return Err(damaged("a segment is larger in the file than in memory"));
        }
        if offset.checked_add(file_size).is_none_or(|end| end > file_len) {
            let why = "it ends before its segments".to_string();
            return Err(BootError::Truncated { path: input.path.clone(), why });
        }
        if address < spec::RAM_BASE {
            return Err(BootError::ElfOutsideRam { path: input.path.clone(), address });
        }
        if address.checked_add(memory_size).is_none() {
            return Err(damaged("a segment ends beyond the address space"));
        }
        // The entry point is a virtual address; nothing is mapped at the start, so it is taken to where that
        // virtual address is loaded.
        if self.entry >= vaddr && self.entry - vaddr < memory_size && vaddr != address {
            self.entry = self.entry - vaddr + address;
        }
        self.segments.push(Segment { offset, file_size, address, memory_size });
        Ok(())
    }
}

/// What the ELF header names instead of little-endian AArch64.
fn foreign(ehdr: &[u8]) -> Option<String> {
    let machine = match (ehdr[5], u16_at(ehdr, 18)?) {
        (2, m) => m.swap_bytes(),
        (_, m) => m,
    };
    let name = match machine {
        3 => "a 32-bit x86 ELF file".into(),
        8 => "a MIPS ELF file".into(),
        21 => "a 64-bit PowerPC ELF file".into(),
        22 => "an s390 ELF file".into(),
        40 => "a 32-bit Arm ELF file".into(),
        62 => "an x86-64 ELF file".into(),
        243 => "a RISC-V ELF file".into(),
        258 => "a LoongArch ELF file".into(),
        EM_AARCH64 if ehdr[4] != 2 => "a 32-bit (ILP32) ELF file".into(),
        EM_AARCH64 if ehdr[5] != 1 => "a big-endian ELF file".into(),
        EM_AARCH64 => return None,
        m => format!("an ELF file for machine {m}"),
    };
    Some(name)
}
