//! A litmus test.

use std::fmt;

/// What an operation does to its location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// LDR.
    Load,
    /// LDAR.
    LoadAcquire,
    /// LDAPR.
    LoadRcpc,
    /// STR.
    Store,
    /// STLR.
    StoreRelease,
    /// SWP, with acquire and release semantics or without.
    Swap(bool, bool),
    /// LDXR and STXR until it succeeds, with acquire and release semantics or without.
    Exclusive(bool, bool),
}

impl What {
    /// It reads.
    pub fn reads(self) -> bool {
        !matches!(self, Self::Store | Self::StoreRelease)
    }

    /// It writes.
    pub fn writes(self) -> bool {
        matches!(self, Self::Store | Self::StoreRelease | Self::Swap(..) | Self::Exclusive(..))
    }
}

/// Which accesses a barrier is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Barrier {
    /// All.
    Full,
    /// Loads before, all after.
    Load,
    /// Stores.
    Store,
}

/// What stands between an operation and the one before it in its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// Nothing.
    None,
    /// DMB, or DSB if so said.
    Barrier(Barrier, bool),
    /// The address depends on what was read.
    Address,
    /// The value stored depends on what was read.
    Data,
    /// A branch depends on what was read.
    Control,
    /// A branch, and an ISB.
    ControlIsb,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Op {
    /// What it does.
    pub what: What,
    /// To which location, 0 to 3.
    pub location: usize,
    /// What it writes, 1 to 3; all writes to a location differ.
    pub value: u8,
    /// What stands before it.
    pub link: Link,
}

/// A test: all locations are zero at first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Test {
    /// The shape's name.
    pub shape: &'static str,
    /// The threads.
    pub threads: Vec<Vec<Op>>,
    /// Barriers are of the inner shareable domain rather than the full system.
    pub inner: bool,
    /// log2 of the bytes of every access.
    pub size: u32,
}

/// Most bits that an outcome may have.
pub const OUTCOME_BITS: u32 = 16;

impl Test {
    /// Number of locations.
    pub fn locations(&self) -> usize {
        self.threads.iter().flatten().map(|op| op.location + 1).max().unwrap_or(0)
    }

    fn reads_of(&self, thread: usize) -> u32 {
        self.threads[thread].iter().filter(|op| op.what.reads()).count() as u32
    }

    /// Where in an outcome the reads of `thread` begin; each has two bits, in program order.
    pub fn reads_shift(&self, thread: usize) -> u32 {
        2 * (0..thread).map(|t| self.reads_of(t)).sum::<u32>()
    }

    /// Where in an outcome the last value of a location is, two bits; `None` if it says nothing.
    pub fn final_shift(&self, location: usize) -> Option<u32> {
        let several = |l: usize| {
            self.threads.iter().flatten().filter(|o| o.location == l && o.what.writes()).count() > 1
        };
        let before = (0..location).filter(|&l| several(l)).count() as u32;
        several(location).then(|| self.reads_shift(self.threads.len()) + 2 * before)
    }

    /// Bits of an outcome.
    pub fn outcome_bits(&self) -> u32 {
        let finals = (0..self.locations()).filter_map(|l| self.final_shift(l)).map(|s| s + 2).max();
        finals.unwrap_or_else(|| self.reads_shift(self.threads.len()))
    }

    /// An outcome in words: `1:x=1 1:y=0 [z]=2`.
    pub fn describe(&self, outcome: u32) -> String {
        let mut words = Vec::new();
        for (t, ops) in self.threads.iter().enumerate() {
            for (n, op) in ops.iter().filter(|op| op.what.reads()).enumerate() {
                let value = outcome >> (self.reads_shift(t) + 2 * n as u32) & 3;
                words.push(format!("{t}:{}={value}", letter(op.location)));
            }
        }
        for location in 0..self.locations() {
            if let Some(shift) = self.final_shift(location) {
                words.push(format!("[{}]={}", letter(location), outcome >> shift & 3));
            }
        }
        words.join(" ")
    }
}

fn letter(location: usize) -> char {
    [b'x', b'y', b'z', b'w'][location & 3] as char
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link {
            Link::None => {}
            Link::Barrier(kind, dsb) => {
                let name = if dsb { "dsb" } else { "dmb" };
                let kind = match kind {
                    Barrier::Full => "",
                    Barrier::Load => ".ld",
                    Barrier::Store => ".st",
                };
                write!(f, "{name}{kind} ")?;
            }
            Link::Address => write!(f, "addr ")?,
            Link::Data => write!(f, "data ")?,
            Link::Control => write!(f, "ctrl ")?,
            Link::ControlIsb => write!(f, "ctrl+isb ")?,
        }
        let suffix = |acquire, release| match (acquire, release) {
            (false, false) => "",
            (true, false) => ".A",
            (false, true) => ".L",
            (true, true) => ".AL",
        };
        let x = letter(self.location);
        match self.what {
            What::Load => write!(f, "R{x}"),
            What::LoadAcquire => write!(f, "R.A{x}"),
            What::LoadRcpc => write!(f, "R.Q{x}"),
            What::Store => write!(f, "W{x}{}", self.value),
            What::StoreRelease => write!(f, "W.L{x}{}", self.value),
            What::Swap(a, l) => write!(f, "SWP{}{x}{}", suffix(a, l), self.value),
            What::Exclusive(a, l) => write!(f, "EXC{}{x}{}", suffix(a, l), self.value),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.shape)?;
        for (n, ops) in self.threads.iter().enumerate() {
            write!(f, "{}", if n == 0 { " " } else { " | " })?;
            let words: Vec<String> = ops.iter().map(Op::to_string).collect();
            write!(f, "{}", words.join("; "))?;
        }
        write!(f, " ({} bytes{})", 1 << self.size, if self.inner { ", inner" } else { "" })
    }
}
