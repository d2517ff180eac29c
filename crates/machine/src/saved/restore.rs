//! Restoring.

use std::fs::File;
use std::path::{Path, PathBuf};

use armlet_engine::Power;
use armlet_memory::Ram;
use armlet_saved::file::{Fault, Reader, Section};
use armlet_saved::{SavedConsole, SavedCpu, SavedMachine, SavedPower, SavedSemihosting, Unfit};
use serde::de::DeserializeOwned;

use super::{RestoreError, SaveError, identity};
use crate::board::Devices;
use crate::boot::{Boot, InputFile};
use crate::config::MachineConfig;
use crate::error::ConfigError;
use crate::machine::Shared;
use crate::topology::Topology;
use armlet_arm::CpuModel;

/// RAM was saved in pieces of whole pages.
const PAGE: u64 = 4096;

/// A saved machine, read but for its RAM.
pub(crate) struct Source {
    path: PathBuf,
    reader: Reader<File>,
    pub(crate) machine: SavedMachine,
    cpus: Vec<SavedCpu>,
    devices: Devices,
    console: SavedConsole,
    semihosting: Option<SavedSemihosting>,
    /// The first piece of RAM; `None` if there is none.
    first: Option<Vec<u8>>,
}

/// Collects sections, each of its kind once but for those that may come more often.
#[derive(Default)]
struct Parts {
    machine: Option<SavedMachine>,
    cpus: Vec<SavedCpu>,
    devices: Devices,
    console: Option<SavedConsole>,
    semihosting: Option<SavedSemihosting>,
    seen: Vec<Section>,
}

impl Parts {
    /// Takes a section in.
    fn take(&mut self, section: Section, payload: &[u8]) -> Result<(), String> {
        let several = matches!(section, Section::Cpu | Section::Virtio);
        if !several && self.seen.contains(&section) {
            return Err(format!("it has {} twice", section.name()));
        }
        self.seen.push(section);
        match section {
            Section::Machine => self.machine = Some(fields(section, payload)?),
            Section::Cpu => self.cpus.push(fields(section, payload)?),
            Section::Gic => self.devices.gic = fields(section, payload)?,
            Section::Timers => self.devices.timers = fields(section, payload)?,
            Section::Uart => self.devices.uart = fields(section, payload)?,
            Section::Rtc => self.devices.rtc = fields(section, payload)?,
            Section::Gpio => self.devices.gpio = fields(section, payload)?,
            Section::Virtio => self.devices.virtio.push(fields(section, payload)?),
            Section::Console => self.console = Some(fields(section, payload)?),
            Section::Semihosting => self.semihosting = Some(fields(section, payload)?),
            Section::Ram | Section::End => return Err("its sections are in another order".into()),
        }
        Ok(())
    }

    /// Checks that nothing is missing that every machine has.
    fn check(&self) -> Result<(), String> {
        let every = [
            Section::Machine,
            Section::Cpu,
            Section::Gic,
            Section::Timers,
            Section::Uart,
            Section::Rtc,
            Section::Gpio,
            Section::Console,
        ];
        match every.into_iter().find(|section| !self.seen.contains(section)) {
            Some(section) => Err(format!("{} is missing", section.name())),
            None => Ok(()),
        }
    }
}

fn fields<T: DeserializeOwned>(section: Section, payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|e| format!("{}: {e}", section.name()))
}

impl Source {
    /// Opens the file at `path` and reads all of it but RAM.
    ///
    /// # Errors
    /// It cannot be read, is none, or is damaged.
    pub(crate) fn open(path: &Path) -> Result<Self, ConfigError> {
        let input = InputFile::open("saved state", path)?;
        Ok(Self::read(path, input.file)?)
    }

    fn read(path: &Path, file: File) -> Result<Self, RestoreError> {
        let fault = |fault| match fault {
            Fault::Host(source) => RestoreError::Open { path: path.into(), source },
            fault => RestoreError::File { path: path.into(), fault },
        };
        let contents = |what| RestoreError::Contents { path: path.into(), what };
        let mut reader = Reader::new(file).map_err(fault)?;
        let mut parts = Parts::default();
        let mut first = None;
        while let Some((section, payload)) = reader.next().map_err(fault)? {
            if section == Section::Ram {
                first = Some(payload.to_vec());
                break;
            }
            parts.take(section, payload).map_err(contents)?;
        }
        parts.check().map_err(contents)?;
        let Parts { machine, cpus, devices, console, semihosting, .. } = parts;
        let (machine, console) = (machine.unwrap_or_default(), console.unwrap_or_default());
        Ok(Self { path: path.into(), reader, machine, cpus, devices, console, semihosting, first })
    }

    /// Checks that the machine that `config` describes is the one that was saved.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn check_machine(
        &self,
        config: &MachineConfig,
        model: &CpuModel,
        topology: &Topology,
        boot: &Boot,
    ) -> Result<(), ConfigError> {
        let here = identity::describe(config, model, topology, boot, false).map_err(|e| match e {
            SaveError::Boot(e) => ConfigError::from(e),
            SaveError::Recording(e) => e.into(),
            e => self.contents(e.to_string()).into(),
        })?;
        Ok(identity::compare(&self.path, &self.machine, &here, &config.drives)?)
    }

    /// Numbers of the CPUs that are there, rising.
    ///
    /// # Errors
    /// They cannot all be.
    pub(crate) fn cpus(&self, places: usize) -> Result<Vec<usize>, RestoreError> {
        let cpus: Vec<_> = self.cpus.iter().map(|cpu| cpu.index as usize).collect();
        let rising = cpus.windows(2).all(|pair| pair[0] < pair[1]);
        let fit = cpus.first() == Some(&0) && cpus.last().is_some_and(|last| *last < places);
        if rising && fit { Ok(cpus) } else { Err(self.contents("its CPUs cannot all be there".into())) }
    }

    /// True if it was running.
    pub(crate) fn was_running(&self) -> bool {
        self.machine.running
    }

    fn contents(&self, what: String) -> RestoreError {
        RestoreError::Contents { path: self.path.clone(), what }
    }

    fn fault(&self, fault: Fault) -> RestoreError {
        RestoreError::File { path: self.path.clone(), fault }
    }

    /// Fills RAM, which must be zero, with what was saved, and reads to the file's end.
    ///
    /// # Errors
    /// The file is damaged, or what it holds is no such RAM.
    pub(crate) fn load_ram(&mut self, ram: &Ram) -> Result<(), RestoreError> {
        let Some(first) = self.first.take() else { return Ok(()) };
        let bad = || self.contents("a piece of RAM is not where RAM is".into());
        let mut behind = load_piece(ram, 0, &first).ok_or_else(bad)?;
        loop {
            match self.reader.next() {
                Ok(Some((Section::Ram, payload))) => match load_piece(ram, behind, payload) {
                    Some(end) => behind = end,
                    None => return Err(self.contents("a piece of RAM is not where RAM is".into())),
                },
                Ok(Some(_)) => return Err(self.contents("its sections are in another order".into())),
                Ok(None) => return Ok(()),
                Err(fault) => return Err(self.fault(fault)),
            }
        }
    }

    /// Puts devices and vCPUs of a machine that was just made into the state that was saved. RAM is there already.
    ///
    /// # Errors
    /// What does not fit; the machine must not be used then.
    pub(crate) fn apply(&self, shared: &Shared) -> Result<(), ConfigError> {
        let unfit = |source| RestoreError::Unfit { path: self.path.clone(), source };
        // CPUs first: in the host's kernel, one that starts anew takes its part of the interrupt controller along.
        for saved in &self.cpus {
            self.apply_cpu(shared, saved)?;
        }
        shared.board.restore(&self.devices).map_err(unfit)?;
        match (&shared.semihosting, &self.semihosting) {
            (Some(semihosting), Some(saved)) => semihosting.restore(saved).map_err(unfit)?,
            (None, None) => {}
            _ => return Err(self.contents("its semihosting is not that of the machine".into()).into()),
        }
        shared.console.input.offer(&self.console.input);
        shared.board.resume();
        Ok(())
    }
}

impl Source {
    fn apply_cpu(&self, shared: &Shared, saved: &SavedCpu) -> Result<(), ConfigError> {
        let unfit = |source| RestoreError::Unfit { path: self.path.clone(), source };
        let index = saved.index as usize;
        let (reset, _) = shared.reset_state(index);
        let mut state = saved.restore(&shared.model, &reset).map_err(unfit)?;
        if let Some(timer) = self.devices.timers.cpus.get(index) {
            shared.board.interrupts.put_timer(timer, &mut state);
        }
        let power = if saved.power == SavedPower::On { Power::On } else { Power::Off };
        let event = saved.event;
        let restored = shared.engine.run_on(index, move |access| access.restore(state, power, event))?;
        restored.map_err(|e| unfit(Unfit(format!("CPU {index}: {e}"))).into())
    }
}

/// Writes a piece to RAM, at or behind `from`; the address behind it.
fn load_piece(ram: &Ram, from: u64, payload: &[u8]) -> Option<u64> {
    let (address, bytes) = payload.split_first_chunk::<8>()?;
    let address = u64::from_le_bytes(*address);
    let length = bytes.len() as u64;
    let whole = address.is_multiple_of(PAGE) && length.is_multiple_of(PAGE) && length > 0;
    if !whole || address < from || !ram.contains(address, length) {
        return None;
    }
    ram.write(address, bytes).ok()?;
    Some(address + length)
}
