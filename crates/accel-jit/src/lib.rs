//! The translator: decode, lift to IR, host code.
//!
//! | module | what |
//! |---|---|
//! | [`ir`] | what instructions mean, and an interpreter of it |
//! | [`lift`] | each guest instruction, once |
//! | [`host`] | code generation for x86-64 |
//! | [`cache`] | memory for code, blocks and the jumps between them |
//! | [`mmu`] | the software TLB |
//! | [`perf`] | what host profilers see of translated code |
//! | [`runtime`] | the vCPU's loop and the slow paths |
//! | [`crash`] | what is done before the process dies of a fault |
//!
//! On hosts other than x86-64 there is no code generator, nor what depends on it: no accelerator can be made there, and
//! the error says so. What instructions mean is the same everywhere.

pub mod crash;
pub mod helpers;
pub mod ir;
pub mod lift;
#[cfg(all(feature = "mistakes", target_arch = "x86_64"))]
pub mod mistake;

#[cfg_attr(not(target_arch = "x86_64"), path = "absent.rs")]
mod accelerator;
#[cfg(target_arch = "x86_64")]
pub mod cache;
#[cfg(target_arch = "x86_64")]
pub mod host;
#[cfg(target_arch = "x86_64")]
pub mod mmu;
pub mod perf;
#[cfg(target_arch = "x86_64")]
pub mod runtime;

use std::sync::Arc;

use armlet_engine::samples::Samples;
use armlet_engine::{HostTime, InstructionCount};

#[cfg(target_arch = "x86_64")]
pub use accelerator::MachineShared;
#[cfg(not(target_arch = "x86_64"))]
pub use accelerator::cycle_counter;
pub use accelerator::{JitAccelerator, check_host};
#[cfg(target_arch = "x86_64")]
pub use host::x86_64::cycles::cycle_counter;
use perf::PerfMap;

/// Choices of the user.
#[derive(Clone, Debug)]
pub struct JitOptions {
    /// Track writes to pages that hold translated code, instead of relying on the guest's instruction cache
    /// maintenance (which the architecture demands of it).
    pub strict: bool,
    /// Count blocks and translation time, for statistics.
    pub count: bool,
    /// `HLT #0xf000` is a semihosting call.
    pub semihosting: bool,
    /// Bytes of host code kept per vCPU.
    pub code_size: usize,
    /// Use the host's SHA instructions if it has them.
    pub host_sha: bool,
    /// Use the host's AVX-512 instructions if it has them.
    pub avx512: bool,
    /// With `avx512`: begin with those vector registers that only AVX-512 reaches, for tests.
    pub upper_first: bool,
    /// Count instructions here, exactly; all vCPUs run on one thread.
    pub counter: Option<Arc<InstructionCount>>,
    /// With `counter`: make a hash of the instructions that each vCPU executes (`trace_hash` in the statistics).
    pub trace: bool,
    /// The time that the system counter shows, one tick for 16 ns, less [`HostTime::state`], if translated code may read
    /// it by itself.
    pub host_time: Option<Arc<HostTime>>,
    /// Tell it where guest code executes, once for each of its periods.
    pub samples: Option<Arc<Samples>>,
    /// Tell the host's profilers what translated code is called.
    pub perf: Option<Arc<PerfMap>>,
    /// What is translated wrongly.
    #[cfg(all(feature = "mistakes", target_arch = "x86_64"))]
    pub mistake: Option<mistake::Mistake>,
}

impl Default for JitOptions {
    fn default() -> Self {
        Self {
            strict: false,
            count: false,
            semihosting: true,
            code_size: 128 << 20,
            host_sha: true,
            avx512: true,
            upper_first: false,
            counter: None,
            trace: false,
            host_time: None,
            samples: None,
            perf: None,
            #[cfg(all(feature = "mistakes", target_arch = "x86_64"))]
            mistake: None,
        }
    }
}
