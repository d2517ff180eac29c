//! One test case's state in memory: what the test program loads before the instruction and stores after it.

use armlet_arm::{CpuState, Pstate};

/// Bytes of a record.
pub const SIZE: usize = 2048;
/// SP, behind X0 to X30.
pub const SP: u32 = 0xf8;
/// NZCV, in bits 31:28.
pub const NZCV: u32 = 0x100;
/// FPCR.
pub const FPCR: u32 = 0x108;
/// FPSR.
pub const FPSR: u32 = 0x110;
/// How the case ended.
pub const STATUS: u32 = 0x118;
/// Address of the next case's record, or 0.
pub const NEXT: u32 = 0x120;
/// PC at a signal.
pub const PC: u32 = 0x128;
/// Where the executors without an operating system keep ESR_EL1 after an exception.
pub const ESR: u32 = 0x130;
/// The address that an access failed at.
pub const FAR: u32 = 0x138;
/// Address of the case's code.
pub const ENTRY: u32 = 0x140;
/// V0 to V31.
pub const V: u32 = 0x200;
/// The case's own memory.
pub const MEMORY: u32 = 0x400;
/// Bytes of the case's own memory.
pub const MEMORY_SIZE: usize = SIZE - MEMORY as usize;

/// Fell through to the instruction behind.
pub const FELL: u64 = 0;
/// Branched to the target that the case has.
pub const TAKEN: u64 = 2;
/// A signal: this plus its number.
pub const SIGNAL: u64 = 100;
/// SIGILL: an instruction that is UNDEFINED.
pub const SIGILL: u64 = SIGNAL + 4;
/// SIGTRAP: BRK.
pub const SIGTRAP: u64 = SIGNAL + 5;
/// SIGBUS: an access that is not aligned.
pub const SIGBUS: u64 = SIGNAL + 7;
/// SIGSEGV: an access to what is not mapped, or not for that.
pub const SIGSEGV: u64 = SIGNAL + 11;

/// A record, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// X0 to X30, SP.
    pub x: [u64; 32],
    /// NZCV in bits 31:28.
    pub nzcv: u32,
    /// FPCR.
    pub fpcr: u32,
    /// FPSR.
    pub fpsr: u32,
    /// How the case ended.
    pub status: u64,
    /// PC at a signal.
    pub pc: u64,
    /// The address that an access failed at, at SIGSEGV; its tag removed.
    pub far: u64,
    /// V0 to V31.
    pub v: [u128; 32],
    /// The case's own memory.
    pub memory: Vec<u8>,
}

impl Record {
    /// All zero.
    pub fn new() -> Self {
        Self {
            x: [0; 32],
            nzcv: 0,
            fpcr: 0,
            fpsr: 0,
            status: 0,
            pc: 0,
            far: 0,
            v: [0; 32],
            memory: vec![0; MEMORY_SIZE],
        }
    }

    /// Writes the bytes that the test program loads; `out` has [`SIZE`] bytes and is all zero.
    pub fn put(&self, entry: u64, next: u64, out: &mut [u8]) {
        let mut put = |at: usize, data: &[u8]| out[at..at + data.len()].copy_from_slice(data);
        for (i, x) in self.x.iter().enumerate() {
            put(8 * i, &x.to_le_bytes());
        }
        put(NZCV as usize, &self.nzcv.to_le_bytes());
        put(FPCR as usize, &self.fpcr.to_le_bytes());
        put(FPSR as usize, &self.fpsr.to_le_bytes());
        put(NEXT as usize, &next.to_le_bytes());
        put(ENTRY as usize, &entry.to_le_bytes());
        for (i, v) in self.v.iter().enumerate() {
            put(V as usize + 16 * i, &v.to_le_bytes());
        }
        put(MEMORY as usize, &self.memory);
    }

    /// From what the test program stored; `bytes` has at least [`SIZE`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let word = |at: u32| -> u64 {
            let at = at as usize;
            bytes[at..at + 8].iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))
        };
        let mut r = Self::new();
        for (i, x) in r.x.iter_mut().enumerate() {
            *x = word(8 * i as u32);
        }
        (r.nzcv, r.fpcr, r.fpsr) = (word(NZCV) as u32, word(FPCR) as u32, word(FPSR) as u32);
        (r.status, r.pc) = (word(STATUS), word(PC));
        r.far = untagged(word(FAR));
        for (i, v) in r.v.iter_mut().enumerate() {
            let at = V + 16 * i as u32;
            *v = u128::from(word(at)) | u128::from(word(at + 8)) << 64;
        }
        r.memory.copy_from_slice(&bytes[MEMORY as usize..SIZE]);
        r
    }

    /// As a CPU at EL0, about to execute at `pc`.
    pub fn to_cpu(&self, pc: u64) -> CpuState {
        let mut cpu = CpuState::new(0);
        cpu.x = self.x;
        cpu.pc = pc;
        cpu.pstate = Pstate::from_bits_retain(self.nzcv & 0xf000_0000);
        cpu.fp.fpcr = self.fpcr;
        cpu.fp.fpsr = self.fpsr;
        cpu.v = self.v;
        cpu
    }

    /// Takes over a CPU's registers.
    pub fn set_cpu(&mut self, cpu: &CpuState) {
        self.x = cpu.x;
        self.nzcv = cpu.pstate.bits() & 0xf000_0000;
        (self.fpcr, self.fpsr) = (cpu.fp.fpcr, cpu.fp.fpsr);
        self.v = cpu.v;
    }

    /// True if nothing differs that [`Self::differences`] would tell.
    pub fn is_same(&self, other: &Self) -> bool {
        let signal = self.status >= SIGNAL;
        self.status == other.status
            && (!signal || self.pc == other.pc)
            && (self.status != SIGSEGV || self.far == other.far)
            && (self.x, self.nzcv, self.fpcr, self.fpsr) == (other.x, other.nzcv, other.fpcr, other.fpsr)
            && self.v == other.v
            && self.memory == other.memory
    }

    /// What differs, in words: `x3 0x1/0x2`, the left value being of `self`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut out = Vec::new();
        let mut compare = |name: String, a: u128, b: u128| {
            if a != b {
                out.push(format!("{name} {a:#x}/{b:#x}"));
            }
        };
        compare("status".into(), self.status.into(), other.status.into());
        if self.status >= SIGNAL {
            compare("pc".into(), self.pc.into(), other.pc.into());
        }
        if self.status == SIGSEGV {
            compare("far".into(), self.far.into(), other.far.into());
        }
        for i in 0..32 {
            compare(if i == 31 { "sp".into() } else { format!("x{i}") }, self.x[i].into(), other.x[i].into());
        }
        compare("nzcv".into(), self.nzcv.into(), other.nzcv.into());
        compare("fpcr".into(), self.fpcr.into(), other.fpcr.into());
        compare("fpsr".into(), self.fpsr.into(), other.fpsr.into());
        for i in 0..32 {
            compare(format!("v{i}"), self.v[i], other.v[i]);
        }
        for (i, (a, b)) in self.memory.iter().zip(&other.memory).enumerate() {
            compare(format!("memory+{i:#x}"), (*a).into(), (*b).into());
        }
        out
    }
}

/// An address without its tag (TBI).
pub const fn untagged(address: u64) -> u64 {
    ((address << 8) as i64 >> 8) as u64
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}
