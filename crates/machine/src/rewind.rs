//! Going back in time, in a machine whose time is made of instructions: it is made as it was at power-on and lives
//! through everything again, up to the wanted count.

use std::time::Duration;

use armlet_engine::{EngineError, MachineState, Pace};
use thiserror::Error;

use crate::handle::MachineHandle;
use crate::lock;

/// How often a machine is looked at that is to come to a count.
const LOOK: Duration = Duration::from_micros(200);

/// Why a machine does not go to a moment.
#[derive(Debug, Error)]
pub enum RewindError {
    /// Its time is not made of instructions.
    #[error("only a deterministic machine can go back: start it with --accel jit,thread=single,icount=0")]
    NotDeterministic,
    /// A disk keeps what was written.
    #[error(
        "disk {0} keeps what the guest has written: give it snapshot=on or readonly=on to be able to go back"
    )]
    Disk(usize),
    /// That moment has not come yet.
    #[error("the machine has not come to count {0} yet")]
    Future(u64),
    /// The vCPUs do not do as they are told.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Memory, a disk or a boot image cannot be had as it was.
    #[error("the machine cannot be made as it was at its start: {0}")]
    Host(String),
    /// Something else stopped it.
    #[error("the machine stopped at count {0}, on its way")]
    Stopped(u64),
}

impl MachineHandle {
    /// The instruction count, if the machine's time is made of that.
    pub fn count(&self) -> Option<u64> {
        self.0.pace.as_ref().map(|pace| pace.count().now())
    }

    /// True if the machine's time is made of instructions.
    pub fn is_deterministic(&self) -> bool {
        self.0.pace.is_some()
    }

    /// The count at which `vcpu` began the instruction that it has executed last.
    pub fn last_instruction(&self, vcpu: usize) -> Option<u64> {
        self.0.pace.as_ref()?.last_instruction(vcpu)
    }

    /// Tells whether [`Self::rewind`] would go back.
    ///
    /// # Errors
    /// Why it would not.
    pub fn can_rewind(&self) -> Result<(), RewindError> {
        self.0.pace.as_ref().ok_or(RewindError::NotDeterministic)?;
        match self.0.disks.iter().position(|disk| !disk.is_revertible()) {
            Some(disk) => Err(RewindError::Disk(disk)),
            None => Ok(()),
        }
    }

    /// Goes back to `count`, where the machine is paused when this returns. What the guest says on the way goes
    /// nowhere, it has said it before; what comes from outside waits until the machine is in the present again.
    /// Debugging that is asked of vCPUs must have been taken back.
    ///
    /// # Errors
    /// It cannot go back, or does not come to `count`.
    pub fn rewind(&self, count: u64) -> Result<(), RewindError> {
        self.can_rewind()?;
        let pace = self.0.pace.as_ref().ok_or(RewindError::NotDeterministic)?;
        self.pause("going back in time")?;
        if count > pace.count().now() {
            return Err(RewindError::Future(count));
        }
        {
            let _plugging = lock(&self.0.plugging);
            let mut made = Ok(());
            let devices = || made = self.make_anew();
            self.0.engine.reset("going back in time", devices, |index| self.0.reset_state(index))?;
            made?;
        }
        match self.run_to(count)? {
            true => Ok(()),
            false => Err(RewindError::Stopped(pace.count().now())),
        }
    }

    /// Lets the paused machine go until `count`. False if something else stopped it before.
    ///
    /// # Errors
    /// It cannot run, or ends.
    pub fn run_to(&self, count: u64) -> Result<bool, RewindError> {
        let pace = self.0.pace.as_ref().ok_or(RewindError::NotDeterministic)?;
        if count > pace.count().now() {
            pace.stop_at(Some(count));
            self.resume("to a count")?;
            while !matches!(self.state(), MachineState::Paused) {
                if self.0.notices.is_over() {
                    return Err(EngineError::ShutDown.into());
                }
                std::thread::sleep(LOOK);
            }
            pace.stop_at(None);
        }
        Ok(pace.count().now() >= count)
    }

    fn make_anew(&self) -> Result<(), RewindError> {
        let shared = &self.0;
        let host = |e: std::io::Error| RewindError::Host(e.to_string());
        shared.board.power_on();
        if let Some(semihosting) = &shared.semihosting {
            semihosting.reset();
        }
        shared.console.input.clear();
        if let Some(pace) = &shared.pace {
            pace.begin_anew();
        }
        shared.memory.ram().clear().map_err(host)?;
        for disk in &shared.disks {
            disk.revert().map_err(host)?;
        }
        shared.load().map_err(|e| RewindError::Host(e.to_string()))
    }
}
