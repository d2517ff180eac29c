//! The command queue (IHI 0069, 5.3).

use armlet_memory::Gpa;

use super::super::spec::{FIRST_LPI, gits, its as spec, its_table as layout};
use super::table::{Events, Fault};
use super::{Its, State};

/// A command, as it stands in the queue.
struct Command([u64; 4]);

impl Command {
    fn number(&self) -> u8 {
        self.0[0] as u8
    }

    fn device(&self) -> u32 {
        (self.0[0] >> 32) as u32
    }

    fn event(&self) -> u32 {
        self.0[1] as u32
    }

    fn intid(&self) -> u32 {
        match self.number() {
            gits::MAPI => self.event(),
            _ => (self.0[1] >> 32) as u32,
        }
    }

    /// MAPD: bits of EventIDs.
    fn event_bits(&self) -> u32 {
        (self.0[1] & 0x1f) as u32 + 1
    }

    /// MAPD: where the table of events is.
    fn events(&self) -> Gpa {
        self.0[2] & 0xf_ffff_ffff_ff00
    }

    fn collection(&self) -> u16 {
        self.0[2] as u16
    }

    /// A CPU in word `word`.
    fn cpu(&self, word: usize) -> u64 {
        (self.0[word] >> 16) & 0xf_ffff_ffff
    }

    fn is_valid(&self) -> bool {
        self.0[2] & gits::VALID != 0
    }
}

impl Its {
    /// Carries out what is in the queue.
    pub(super) fn process(&self, state: &mut State) {
        let mut work = 0;
        while state.enabled && !state.stalled && state.creadr != state.cwriter {
            let Some(command) = self.next(state).filter(|_| work < spec::WORK) else {
                state.stalled = true;
                tracing::debug!(place = state.creadr, "the ITS's command queue stalls");
                return;
            };
            match self.execute(state, &command) {
                Ok(moved) => work += moved,
                Err(error) if state.ignores() => {
                    tracing::warn!(command = command.number(), %error, "the ITS ignores a command");
                }
                Err(_) => {}
            }
            work += 1;
            state.creadr = (state.creadr + gits::COMMAND_SIZE) % state.queue_size();
        }
    }

    fn next(&self, state: &State) -> Option<Command> {
        let at = (state.cbaser & gits::CBASER_ADDRESS) + state.creadr;
        let mut words = [0; 4];
        for (n, word) in (0..).zip(&mut words) {
            *word = self.load(at + 8 * n)?;
        }
        Some(Command(words))
    }

    /// Carries a command out; how many LPIs were moved or looked at.
    fn execute(&self, state: &mut State, command: &Command) -> Result<u32, Fault> {
        let (device, event) = (command.device(), command.event());
        let gic = &self.gic;
        match command.number() {
            gits::MAPD => self.map_device(state, command)?,
            gits::MAPC if command.is_valid() => {
                let cpu = self.check_cpu(command.cpu(2))?;
                self.set_collection(state, command.collection(), Some(cpu as u32))?;
            }
            gits::MAPC => self.set_collection(state, command.collection(), None)?,
            gits::MAPTI | gits::MAPI => self.map_event(state, command)?,
            gits::MOVI => {
                Self::check_collection(state, command.collection())?;
                let events = self.events(state, device)?;
                let (_, intid, _) = self.event_in(events, event)?;
                self.set_event(events, command, intid)?;
                if let Some(cpu) = state.collections.cpu(command.collection()) {
                    gic.with(|gic| gic.move_lpi(intid, cpu));
                }
            }
            gits::MOVALL => {
                let (from, to) = (self.check_cpu(command.cpu(2))?, self.check_cpu(command.cpu(3))?);
                return Ok(gic.with(|gic| gic.move_lpis(from, to)));
            }
            gits::INT => {
                let (intid, cpu) = self.translate(state, device, event)?;
                gic.with(|gic| gic.set_lpi(cpu, intid));
            }
            gits::CLEAR => {
                let (_, intid, _) = self.event(state, device, event)?;
                gic.with(|gic| gic.clear_lpi(intid));
            }
            gits::DISCARD => {
                let (place, intid, _) = self.event(state, device, event)?;
                gic.with(|gic| gic.clear_lpi(intid));
                self.store(place, 0)?;
            }
            gits::INV => {
                let (_, intid, _) = self.event(state, device, event)?;
                gic.with(|gic| gic.reload_lpi(intid));
            }
            gits::INVALL => {
                let id = command.collection();
                let cpu = state.collections.cpu(id).ok_or(Fault::NoCollection(id))?;
                return Ok(gic.with(|gic| gic.reload_lpis(cpu)));
            }
            gits::SYNC => {
                self.check_cpu(command.cpu(2))?;
            }
            number => return Err(Fault::NoCommand(number)),
        }
        Ok(0)
    }

    fn check_cpu(&self, number: u64) -> Result<usize, Fault> {
        let cpu = usize::try_from(number).ok().filter(|cpu| *cpu < self.gic.cpus);
        cpu.ok_or(Fault::NoCpu(number))
    }

    fn map_device(&self, state: &State, command: &Command) -> Result<(), Fault> {
        let place = self.device_place(state, command.device())?;
        if !command.is_valid() {
            return self.store(place, 0);
        }
        let bits = command.event_bits();
        if bits > spec::ID_BITS {
            return Err(Fault::EventBits(bits));
        }
        self.store(place, layout::device(command.events(), bits))
    }

    fn map_event(&self, state: &State, command: &Command) -> Result<(), Fault> {
        let intid = command.intid();
        Self::check_collection(state, command.collection())?;
        let events = self.events(state, command.device())?;
        if !(FIRST_LPI..self.gic.with(|gic| gic.lpis_end())).contains(&intid) {
            return Err(Fault::NoLpi(intid));
        }
        self.set_event(events, command, intid)
    }

    /// Writes the entry of the command's event, one of `events`, with its collection.
    fn set_event(&self, events: Events, command: &Command, intid: u32) -> Result<(), Fault> {
        let (event, collection) = (command.event(), command.collection());
        self.store(events.place(event)?, layout::event(intid, collection, events.is_last(event)))
    }
}
