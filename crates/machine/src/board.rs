//! The devices of the board and their wiring.

use std::sync::Arc;
use std::time::{Duration, Instant};

use armlet_accel_jit::cycle_counter;
use armlet_accel_kvm::KvmMachine;
use armlet_arm::sysreg::ExternalRegisters;
use armlet_devices::clock::{COUNTER_FREQUENCY, Clock};
use armlet_devices::{
    Pl011, Pl031, Pl061, TimerQueue, TimerThread, WallClock, host_wall_clock, machine_wall_clock,
};
use armlet_engine::{HostTime, InstructionCount, VcpuShared};
use armlet_memory::{AddressSpace, AddressSpaceBuilder, MmioDevice, Ram};
use armlet_pci::HostBridge;
use armlet_saved::{SavedGic, SavedGpio, SavedRtc, SavedTimers, SavedUart, SavedVirtio, Unfit};
use armlet_virtio::Transport;

use crate::config::{ConsoleDevice, MachineConfig};
use crate::console::Console;
use crate::error::ConfigError;
use crate::hung::{Hanger, Hanging, Hung};
use crate::interrupts::{Emulated, InKernel, Interrupts};
use crate::pace::WALL_START;
use crate::spec;

/// The board's devices.
pub(crate) struct Board {
    pub(crate) interrupts: Arc<dyn Interrupts>,
    pub(crate) uart: Arc<Pl011>,
    rtc: Arc<Pl031>,
    pub(crate) gpio: Arc<Pl061>,
    pub(crate) time: Arc<TimerQueue>,
    /// Where time is made of instructions, nobody waits for it.
    _timer_thread: Option<TimerThread>,
    /// Of all virtio devices, in the order in which they were given.
    transports: Vec<Arc<dyn Transport>>,
    bridge: Option<Arc<HostBridge>>,
}

/// All devices of a board, saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    pub(crate) gic: SavedGic,
    pub(crate) timers: SavedTimers,
    pub(crate) uart: SavedUart,
    pub(crate) rtc: SavedRtc,
    pub(crate) gpio: SavedGpio,
    /// In the order in which they were given.
    pub(crate) virtio: Vec<SavedVirtio>,
}

/// What a board is made from.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a MachineConfig,
    pub(crate) ram: Ram,
    /// One for each place, also where no vCPU is yet.
    pub(crate) cpus: &'a [Arc<VcpuShared>],
    pub(crate) console: &'a Console,
    pub(crate) virtio: Vec<Hanging>,
    pub(crate) times: &'a Times,
    /// With the interrupt controller of the host's kernel, if it is there.
    pub(crate) kvm: Option<&'a Arc<KvmMachine>>,
}

/// The times that a guest can read.
#[derive(Clone)]
pub(crate) struct Times {
    /// The machine's time.
    pub(crate) clock: Arc<Clock>,
    /// It is made of instructions: nothing that the guest can read is the host's.
    counted: bool,
}

impl Times {
    /// The host's, or those that `count` makes, with 2^`shift` ns to the instruction.
    pub(crate) fn new(counted: Option<(&Arc<InstructionCount>, u32)>) -> Self {
        let clock = match counted {
            Some((count, shift)) => Clock::counting(COUNTER_FREQUENCY, Arc::clone(count), shift),
            None => Clock::stopped(COUNTER_FREQUENCY, HostTime::new(cycle_counter())),
        };
        Self { clock: Arc::new(clock), counted: counted.is_some() }
    }

    /// The time of day.
    pub(crate) fn wall(&self) -> WallClock {
        match self.counted {
            true => machine_wall_clock(WALL_START, Arc::clone(&self.clock)),
            false => host_wall_clock(),
        }
    }

    /// Time that has passed since now, for programs: the machine's, or the host's, which goes on during pauses.
    pub(crate) fn elapsed(&self) -> Elapsed {
        if self.counted {
            let clock = Arc::clone(&self.clock);
            return Box::new(move || Duration::from_nanos(clock.now_ns()));
        }
        let start = Instant::now();
        Box::new(move || start.elapsed())
    }
}

/// Tells how much time has passed.
pub(crate) type Elapsed = Box<dyn Fn() -> Duration + Send + Sync>;

impl Board {
    /// Makes the devices and maps them.
    pub(crate) fn new(parts: Parts<'_>) -> Result<(Self, AddressSpace), ConfigError> {
        let Parts { config, ram, cpus, console, virtio, times, kvm } = parts;
        let affinities = config.topology()?.affinities();
        // Time stands still until the machine starts.
        let time = TimerQueue::new(Arc::clone(&times.clock));
        time.pause();
        let ram_end = spec::RAM_BASE + config.memory;
        let interrupts: Arc<dyn Interrupts> = match kvm {
            Some(machine) => Arc::new(InKernel::new(Arc::clone(machine), cpus.len(), ram_end)?),
            None => Arc::new(Emulated::new(affinities, cpus, &time, &ram)?),
        };
        let no_thread = |source| ConfigError::Host { what: "the timers' thread", source };
        let timer_thread = if times.counted { None } else { Some(time.start().map_err(no_thread)?) };
        let uart_line = interrupts.spi(spec::SPI_UART0)?;
        let uart = Pl011::new("pl011", uart_line, Arc::clone(&console.output) as _).on_clock(&times.clock);
        let uart = Arc::new(uart);
        console.connect_output(&uart);
        if config.console == ConsoleDevice::Uart {
            console.type_to_uart(&uart);
        }
        let rtc = Pl031::new(interrupts.spi(spec::SPI_RTC)?, &time, times.wall());
        let gpio = Pl061::new(interrupts.spi(spec::SPI_GPIO)?, &time);

        let mut map = AddressSpaceBuilder::new(ram.clone());
        let mut put = |r: spec::Region, d: Arc<dyn MmioDevice>| map.map(r.base, r.size, d).map_err(wiring);
        for (region, device) in interrupts.windows() {
            put(region, device)?;
        }
        put(spec::UART0, Arc::clone(&uart) as _)?;
        put(spec::RTC, Arc::clone(&rtc) as _)?;
        put(spec::GPIO, Arc::clone(&gpio) as _)?;

        let hanger = Hanger { ram: &ram, interrupts: &*interrupts, kvm };
        let Hung { transports, bridge, windows } = hanger.hang(virtio)?;
        for (region, device) in windows {
            put(region, device)?;
        }
        let board =
            Self { interrupts, uart, rtc, gpio, time, _timer_thread: timer_thread, transports, bridge };
        Ok((board, map.build()))
    }

    /// The system registers that live in devices.
    pub(crate) fn external_registers(&self) -> Arc<dyn ExternalRegisters> {
        self.interrupts.external_registers()
    }

    /// Everything as at power-on. The vCPUs must be stopped.
    pub(crate) fn reset(&self) {
        // Those that write guest memory first, so that nothing is overwritten that is loaded afterwards.
        for transport in &self.transports {
            transport.reset();
        }
        if let Some(bridge) = &self.bridge {
            bridge.reset();
        }
        self.uart.reset();
        self.rtc.reset();
        self.gpio.reset();
        self.interrupts.reset();
    }

    /// Everything as when it was made, not just reset. The vCPUs must be stopped.
    pub(crate) fn power_on(&self) {
        self.reset();
        self.transports.iter().for_each(|transport| transport.power_on());
        self.rtc.power_on();
        self.gpio.power_on();
        self.time.cancel_all();
    }

    /// Returns when no device works for the guest; none begins until [`Self::resume`].
    pub(crate) fn quiesce(&self) {
        self.transports.iter().for_each(|transport| transport.quiesce());
    }

    /// Lets the devices work again.
    pub(crate) fn resume(&self) {
        self.transports.iter().for_each(|transport| transport.resume());
    }

    /// Saves all devices. They must be quiet, the vCPUs stopped and time with them.
    ///
    /// # Errors
    /// What cannot be saved.
    pub(crate) fn save(&self) -> Result<Devices, Unfit> {
        let (gic, timers) = self.interrupts.save()?;
        Ok(Devices {
            gic,
            timers,
            uart: self.uart.save(),
            rtc: self.rtc.save(),
            gpio: self.gpio.save(),
            virtio: self.transports.iter().map(|transport| transport.save()).collect(),
        })
    }

    /// Restores all devices, in a machine that was not started, and leaves those with work of their own quiet. RAM must
    /// have been restored before.
    ///
    /// # Errors
    /// What differs. The devices must not be used then.
    pub(crate) fn restore(&self, saved: &Devices) -> Result<(), Unfit> {
        let (then, now) = (saved.virtio.len(), self.transports.len());
        Unfit::unless(then == now, || format!("it had {then} virtio devices and has {now}"))?;
        // Time first: the others work out when something is due.
        self.interrupts.restore(&saved.gic, &saved.timers)?;
        self.uart.restore(&saved.uart)?;
        self.rtc.restore(&saved.rtc)?;
        self.gpio.restore(&saved.gpio);
        self.transports
            .iter()
            .zip(&saved.virtio)
            .try_for_each(|(transport, saved)| transport.restore(saved))?;
        if let Some(bridge) = &self.bridge {
            bridge.route();
        }
        Ok(())
    }

    /// Connects a vCPU that is plugged in the place `index`, where everything is as at power-on.
    pub(crate) fn connect_cpu(&self, index: usize, vcpu: Arc<VcpuShared>) {
        self.interrupts.connect_cpu(index, vcpu);
    }

    /// Ends the devices' threads after the work that the guest has handed over; `false` if that took too long.
    pub(crate) fn shutdown(&self, deadline: Duration) -> bool {
        // Every one is told, also after one that did not make it.
        self.transports.iter().filter(|transport| !transport.shutdown(deadline)).count() == 0
    }
}

fn wiring(e: impl std::fmt::Display) -> ConfigError {
    ConfigError::Wiring(e.to_string())
}
