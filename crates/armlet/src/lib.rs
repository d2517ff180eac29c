//! armlet as a library: build an arm64 machine, run it, look inside.
//!
//! ```no_run
//! use armlet::{End, Machine, MachineConfig};
//!
//! let mut config = MachineConfig::default();
//! config.boot.kernel = Some("Image".into());
//! let mut machine = Machine::new(config)?;
//! let log = armlet::serial::to_file(machine.console(), "console.log".as_ref())?;
//! machine.start()?;
//! assert_eq!(machine.run(None), End::PoweredOff);
//! machine.shutdown();
//! log.finish();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod serial;

pub use armlet_arm as arm;
pub use armlet_control as control;
pub use armlet_debug as debug;
pub use armlet_machine::{
    BootError, Cause, ConfigError, Console, CpuInfo, End, Machine, MachineConfig, MachineHandle, Notice,
    NoticeListener, PlugError, RestoreError, RunState, SaveError, SaveReport, SavedThen, Statistics,
    before_death, config, cpu, error, spec, topology,
};
pub use armlet_memory::heap;
pub use armlet_profile as profile;
pub use serial::SerialError;
