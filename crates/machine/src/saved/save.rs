//! Saving.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use armlet_arm::{SysReg, sysreg};
use armlet_engine::{Power, Then, VcpuState};
use armlet_memory::Ram;
use armlet_saved::file::{NewFile, Section, Writer};
use armlet_saved::{SavedConsole, SavedCpu, SavedPower, SavedTimer, Unfit};

use super::{SaveError, identity};
use crate::handle::MachineHandle;
use crate::lock;
use crate::machine::Shared;
use crate::notice::Cause;

/// How much of RAM is written at a time, in bytes.
const PIECE: u64 = 1 << 20;
/// What is zero is left out by pages.
const PAGE: usize = 4096;
/// So many zero pages are left out; fewer cost less than what separates two pieces.
const WORTH: usize = 4;
/// Longest wait for whoever shows the guest's output.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// What becomes of a machine that was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SavedThen {
    /// It goes on as before.
    #[default]
    GoesOn,
    /// It ends, without having executed anything after what was saved: its drives stay as they are in the state.
    Ends,
}

/// A state that was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveReport {
    /// Size of the file in bytes.
    pub size: u64,
    /// How long the machine stood still.
    pub stopped: Duration,
    /// How long it took until the file was safe.
    pub total: Duration,
}

impl MachineHandle {
    /// Saves the machine to the file at `path`, which appears when it is complete. The machine stands still meanwhile,
    /// which its guest does not notice by its own time; a running one runs again afterwards, a paused one is still
    /// paused. What waits for the machine (pauses, resumes, resets) waits for this.
    ///
    /// # Errors
    /// [`SaveError`]; the machine goes on, and what was at `path` is still there.
    pub fn save(&self, path: &Path, then: SavedThen) -> Result<SaveReport, SaveError> {
        let shared = &self.0;
        let begun = Instant::now();
        shared.check_may_be_saved()?;
        let failed = |source| SaveError::Write { path: path.into(), source };
        let file = NewFile::create(path).map_err(failed)?;
        let _plugging = lock(&shared.plugging);
        let saved = shared.engine.hold(&format!("saved to '{}'", path.display()), || {
            let stopped = Instant::now();
            let written = shared.save_quiet(file, path);
            let written = match (then, written) {
                (SavedThen::GoesOn, written) => written.map(|(size, file)| (size, Some(file))),
                (SavedThen::Ends, written) => written.and_then(|(size, file)| {
                    file.commit().map_err(failed)?;
                    shared.engine.request_pause("saved, and ends")?;
                    self.quit(Cause::HostQuit, "whoever saved it");
                    Ok((size, None))
                }),
            };
            written.map(|(size, file)| (size, file, stopped.elapsed()))
        })?;
        let (size, file, stopped) = saved?;
        if let Some(file) = file {
            file.commit().map_err(failed)?;
        }
        tracing::info!(path = %path.display(), size, ?stopped, "saved");
        Ok(SaveReport { size, stopped, total: begun.elapsed() })
    }
}

impl Shared {
    fn check_may_be_saved(&self) -> Result<(), SaveError> {
        if self.pace.is_some() {
            return Err(SaveError::Deterministic);
        }
        match self.config.drives.iter().position(|drive| drive.snapshot) {
            Some(number) => Err(SaveError::Snapshot(number)),
            None => Ok(()),
        }
    }

    /// Writes all to `file`, with the devices quiet; the size.
    fn save_quiet(&self, file: NewFile, path: &Path) -> Result<(u64, NewFile), SaveError> {
        if let Some(failure) = self.engine.failure() {
            return Err(SaveError::Failed(failure));
        }
        let waits = |cpu: &usize| {
            let asked = [VcpuState::AwaitingMachine, VcpuState::Stopped(Then::AwaitMachine)];
            self.engine.vcpu_state(*cpu).is_ok_and(|state| asked.contains(&state))
        };
        if self.notices.is_over() || self.engine.vcpus().iter().any(waits) {
            return Err(SaveError::Ending);
        }
        self.board.quiesce();
        let written = self.write(&file, path);
        self.board.resume();
        Ok((written?, file))
    }

    fn write(&self, file: &NewFile, path: &Path) -> Result<u64, SaveError> {
        for (number, disk) in self.disks.iter().enumerate().filter(|(_, disk)| !disk.read_only()) {
            disk.flush().map_err(|source| SaveError::Flush { number, source })?;
        }
        if !self.console.output.wait_until_empty(READER_PATIENCE) {
            tracing::warn!("output of the guest waits for its reader and is not in the saved state");
        }
        let running = self.engine.is_running();
        let machine = identity::describe(&self.config, &self.model, &self.topology, &self.boot, running)?;
        let mut devices = self.board.save()?;
        let mut cpus = Vec::new();
        for cpu in self.engine.vcpus() {
            let (saved, timer) = self.save_cpu(cpu)?;
            cpus.push(saved);
            if let (Some(timer), Some(place)) = (timer, devices.timers.cpus.get_mut(cpu)) {
                *place = SavedTimer { stolen: place.stolen, ..timer };
            }
        }
        let write = || {
            let mut out = Writer::new(BufWriter::with_capacity(1 << 16, file.file()))?;
            out.fields(Section::Machine, &machine)?;
            cpus.iter().try_for_each(|cpu| out.fields(Section::Cpu, cpu))?;
            out.fields(Section::Gic, &devices.gic)?;
            out.fields(Section::Timers, &devices.timers)?;
            out.fields(Section::Uart, &devices.uart)?;
            out.fields(Section::Rtc, &devices.rtc)?;
            out.fields(Section::Gpio, &devices.gpio)?;
            devices.virtio.iter().try_for_each(|device| out.fields(Section::Virtio, device))?;
            out.fields(Section::Console, &SavedConsole { input: self.console.input.waiting() })?;
            if let Some(semihosting) = &self.semihosting {
                out.fields(Section::Semihosting, &semihosting.save())?;
            }
            write_ram(&mut out, self.memory.ram())?;
            out.finish()?;
            Ok(file.file().metadata()?.len())
        };
        write().map_err(|source| SaveError::Write { path: path.into(), source })
    }

    /// A CPU, and its timers if they are in it.
    fn save_cpu(&self, cpu: usize) -> Result<(SavedCpu, Option<SavedTimer>), SaveError> {
        let interrupts = Arc::clone(&self.board.interrupts);
        let (model, (reset, _)) = (Arc::clone(&self.model), self.reset_state(cpu));
        let saved = self.engine.run_on(cpu, move |access| {
            if let Some(what) = access.backend().unsaved() {
                return Err(Unfit::new(format!("CPU {cpu}: {what}")));
            }
            // A CPU_ON that was accepted has been carried out by work before this.
            let power = if access.power() == Power::On { SavedPower::On } else { SavedPower::Off };
            let mut state = access.state().clone();
            let timer = interrupts.take_timer(&mut state);
            if timer.is_some() {
                // A real CPU may keep bits that mean nothing to it.
                for &reg in SysReg::ALL {
                    state.sys[reg] = sysreg::settled(&model, &reset, reg, state.sys[reg]);
                }
            }
            // A CPU that waits for events by itself does not tell whether there was one: it looks once more.
            let event = access.event_pending() || timer.is_some();
            Ok((SavedCpu::of(&state, power, event), timer))
        })?;
        Ok(saved?)
    }
}

/// Writes what of RAM is not zero.
fn write_ram(out: &mut Writer<impl Write>, ram: &Ram) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE as usize];
    for stretch in ram.present() {
        let (start, length) = stretch?;
        let at = start + length;
        // Cut at multiples of a piece, so that the same memory is always cut in the same places.
        for piece in (start / PIECE * PIECE..at).step_by(PIECE as usize) {
            let (piece, end) = (piece.max(start), (piece + PIECE).min(at));
            let bytes = &mut buffer[..(end - piece) as usize];
            ram.read(piece, bytes).map_err(std::io::Error::other)?;
            for (from, to) in runs(bytes) {
                let address = piece + from as u64;
                out.section(Section::Ram, &[&address.to_le_bytes(), &bytes[from..to]])?;
            }
        }
    }
    Ok(())
}

/// The parts of `bytes` to write: whole pages, between longer stretches of zeroes.
fn runs(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        if page == &[0; PAGE][..page.len()] {
            continue;
        }
        let (start, end) = (number * PAGE, number * PAGE + page.len());
        match runs.last_mut() {
            Some((_, last)) if start - *last <= WORTH * PAGE => *last = end,
            _ => runs.push((start, end)),
        }
    }
    runs
}
