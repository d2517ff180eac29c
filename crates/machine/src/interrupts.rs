//! The board's interrupt controller and timers: devices of this program, or inside the host's kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use armlet_accel_kvm::{GicLayout, GicVersion, KvmGic, KvmMachine, KvmMessage, counter_frequency};
use armlet_arm::sysreg::ExternalRegisters;
use armlet_arm::{CpuState, SysReg};
use armlet_devices::clock::COUNTER_FREQUENCY;
use armlet_devices::gic::Its;
use armlet_devices::timer::check_timers;
use armlet_devices::timer::spec::CNTKCTL_EL1;
use armlet_devices::{
    BoardRegisters, GenericTimers, GicConfig, GicV3, InterruptLine, Message, MessageSender, MessageSink,
    TimerLines, TimerQueue,
};
use armlet_engine::VcpuShared;
use armlet_memory::{AccessSize, MmioDevice, Ram};
use armlet_saved::{SavedGic, SavedTimer, SavedTimers, Unfit};

use crate::error::ConfigError;
use crate::fdt::redistributor_regions;
use crate::spec;

/// SPIs that the interrupt controller has.
const SPIS: u32 = 256;

/// An interrupt controller and the CPUs' timers, which interrupt through it.
pub(crate) trait Interrupts: Send + Sync {
    /// What it is: a GICv3 wherever the host does not decide.
    fn version(&self) -> GicVersion {
        GicVersion::V3
    }

    /// The host's kernel switches CPUs on and off: all of them are on as far as the engine knows.
    fn keeps_power(&self) -> bool {
        false
    }

    /// The input of SPI `n`.
    fn spi(&self, n: u32) -> Result<Arc<dyn InterruptLine>, ConfigError>;

    /// Where functions on a bus send their interrupts as messages, to the address [`spec::ITS_TRANSLATER`]. `None` where
    /// nothing takes messages, which is a GICv2.
    fn messages(&self) -> Option<Arc<dyn MessageSink>> {
        None
    }

    /// What is to be mapped.
    fn windows(&self) -> Vec<(spec::Region, Arc<dyn MmioDevice>)>;

    /// Everything as at power-on. The vCPUs are stopped.
    fn reset(&self);

    /// CPU `cpu` switches itself off; called on its own thread.
    fn cpu_off(&self, cpu: usize);

    /// Another vCPU comes into the place of `cpu`, where everything is as at power-on.
    fn connect_cpu(&self, cpu: usize, vcpu: Arc<VcpuShared>);

    /// The system registers that are here and not in the CPU.
    fn external_registers(&self) -> Arc<dyn ExternalRegisters>;

    /// Period of a CPU's event stream, if it has one.
    fn event_stream(&self, cpu: usize) -> Option<Duration>;

    /// The vCPUs are about to run (`true`), or all have stopped. The guest's count goes on meanwhile only.
    fn time_goes(&self, goes: bool);

    /// Both, saved, but for timers that are in CPUs. The vCPUs and time stand still.
    ///
    /// # Errors
    /// What cannot be saved.
    fn save(&self) -> Result<(SavedGic, SavedTimers), Unfit>;

    /// Takes over what was saved, in a machine that was not started, whose CPUs are as they are to go on.
    ///
    /// # Errors
    /// What differs. They must not be used then.
    fn restore(&self, gic: &SavedGic, timers: &SavedTimers) -> Result<(), Unfit>;

    /// Where the timers are in the CPUs: takes a CPU's out of its registers.
    fn take_timer(&self, _state: &mut CpuState) -> Option<SavedTimer> {
        None
    }

    /// Where the timers are in the CPUs: puts a CPU's into its registers.
    fn put_timer(&self, _timer: &SavedTimer, _state: &mut CpuState) {}
}

/// Devices of this program.
pub(crate) struct Emulated {
    pub(crate) gic: Arc<GicV3>,
    its: Arc<Its>,
    pub(crate) timers: Arc<GenericTimers>,
    stolen: Arc<StolenTime>,
    ram_end: u64,
    cpus: usize,
}

impl Emulated {
    /// For these CPUs, with timers on `time`, and tables of LPIs in `ram`.
    pub(crate) fn new(
        affinities: Vec<u64>,
        cpus: &[Arc<VcpuShared>],
        time: &Arc<TimerQueue>,
        ram: &Ram,
    ) -> Result<Self, ConfigError> {
        let config = GicConfig { spis: SPIS, affinities };
        let gic = GicV3::with_lpis(&config, cpus.to_vec(), ram.clone()).map_err(wiring)?;
        let its = Its::new(&gic, ram.clone(), spec::ITS.base);
        let ram_end = ram.base() + ram.size();
        let lines = (0..cpus.len()).map(|cpu| timer_lines(&gic, cpu)).collect::<Result<_, _>>()?;
        let timers = Arc::new(GenericTimers::new(time, lines));
        let stolen = Arc::new(StolenTime((0..cpus.len()).map(|_| AtomicU64::new(0)).collect()));
        Ok(Self { gic, its, timers, stolen, ram_end, cpus: cpus.len() })
    }
}

/// The time that was stolen from each CPU, in nanoseconds (Arm DEN 0057, 4.2). Nothing is stolen here and nobody is told of
/// the place; but a guest that had learnt of it under KVM goes on reading it.
struct StolenTime(Vec<AtomicU64>);

impl MmioDevice for StolenTime {
    fn name(&self) -> &str {
        "stolen time"
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        let cpu = self.0.get((offset / spec::STOLEN_TIME_STRIDE) as usize);
        match (offset % spec::STOLEN_TIME_STRIDE, size) {
            (8, AccessSize::Double | AccessSize::Word) => cpu.map_or(0, |cpu| cpu.load(Ordering::Relaxed)),
            (12, AccessSize::Word) => cpu.map_or(0, |cpu| cpu.load(Ordering::Relaxed) >> 32),
            // Revision and attributes are 0, and so is what is behind.
            _ => 0,
        }
    }

    fn write(&self, _: u64, _: AccessSize, _: u64) {}
}

fn timer_lines(gic: &Arc<GicV3>, cpu: usize) -> Result<TimerLines, ConfigError> {
    let line = |ppi| gic.ppi(cpu, ppi).map_err(wiring);
    Ok(TimerLines { physical: line(spec::PPI_TIMER_PHYSICAL)?, virtual_: line(spec::PPI_TIMER_VIRTUAL)? })
}

fn wiring(e: impl std::fmt::Display) -> ConfigError {
    ConfigError::Wiring(e.to_string())
}

impl Interrupts for Emulated {
    fn spi(&self, n: u32) -> Result<Arc<dyn InterruptLine>, ConfigError> {
        self.gic.spi(n).map_err(wiring)
    }

    fn messages(&self) -> Option<Arc<dyn MessageSink>> {
        Some(Arc::clone(&self.its) as _)
    }

    fn windows(&self) -> Vec<(spec::Region, Arc<dyn MmioDevice>)> {
        let mut windows = vec![(spec::GIC_DISTRIBUTOR, self.gic.distributor())];
        windows.push((spec::ITS, self.its.frames()));
        windows.push((spec::STOLEN_TIME, Arc::clone(&self.stolen) as _));
        let mut first = 0;
        for region in redistributor_regions(self.cpus, self.ram_end) {
            let count = (region.size / spec::GIC_REDISTRIBUTOR_STRIDE) as usize;
            windows.push((region, self.gic.redistributors(first..first + count)));
            first += count;
        }
        windows
    }

    fn reset(&self) {
        self.timers.reset();
        self.its.reset();
        self.gic.reset();
        self.stolen.0.iter().for_each(|cpu| cpu.store(0, Ordering::Relaxed));
    }

    fn cpu_off(&self, cpu: usize) {
        self.gic.reset_cpu_interface(cpu);
        self.timers.reset_cpu(cpu);
    }

    fn connect_cpu(&self, cpu: usize, vcpu: Arc<VcpuShared>) {
        self.timers.reset_cpu(cpu);
        self.gic.connect(cpu, vcpu);
    }

    fn external_registers(&self) -> Arc<dyn ExternalRegisters> {
        Arc::new(BoardRegisters::new(Arc::clone(&self.gic), Arc::clone(&self.timers)))
    }

    fn event_stream(&self, cpu: usize) -> Option<Duration> {
        const EVNTEN: u64 = 1 << 2;
        let control = self.timers.read_encoding(cpu, CNTKCTL_EL1);
        // One event for each full cycle of the counter's bit EVNTI.
        let ticks = 2u64 << ((control >> 4) & 0xf);
        (control & EVNTEN != 0).then(|| Duration::from_nanos(ticks * (1_000_000_000 / COUNTER_FREQUENCY)))
    }

    fn time_goes(&self, _goes: bool) {
        // The queue's clock is stopped by whoever has it.
    }

    fn save(&self) -> Result<(SavedGic, SavedTimers), Unfit> {
        let mut timers = self.timers.save();
        for (timer, stolen) in timers.cpus.iter_mut().zip(&self.stolen.0) {
            timer.stolen = stolen.load(Ordering::Relaxed);
        }
        Ok((SavedGic { its: Some(self.its.save()), ..self.gic.save() }, timers))
    }

    fn restore(&self, gic: &SavedGic, timers: &SavedTimers) -> Result<(), Unfit> {
        self.gic.check(gic)?;
        let its = gic.its.as_ref().ok_or_else(|| Unfit::new("the interrupt controller: it had no ITS"))?;
        Its::check(its)?;
        self.timers.check(timers)?;
        for (stolen, timer) in self.stolen.0.iter().zip(&timers.cpus) {
            stolen.store(timer.stolen, Ordering::Relaxed);
        }
        self.gic.restore(gic)?;
        self.its.restore(its)?;
        self.timers.restore(timers)
    }
}

/// Those of the host's kernel.
pub(crate) struct InKernel {
    machine: Arc<KvmMachine>,
    gic: Arc<KvmGic>,
    cpus: usize,
}

impl InKernel {
    /// Of `machine`, which has `cpus` places for CPUs and whose RAM ends at `ram_end`.
    pub(crate) fn new(machine: Arc<KvmMachine>, cpus: usize, ram_end: u64) -> Result<Self, ConfigError> {
        let region = |r: &spec::Region| (r.base, (r.size / spec::GIC_REDISTRIBUTOR_STRIDE) as usize);
        let redistributors = redistributor_regions(cpus, ram_end).iter().map(region).collect();
        let (distributor, interface) = (spec::GIC_DISTRIBUTOR.base, spec::GIC_INTERFACE.base);
        let layout = GicLayout { spis: SPIS, distributor, redistributors, interface, its: spec::ITS.base };
        let gic = machine.create_gic(&layout)?;
        Ok(Self { machine, gic, cpus })
    }
}

impl InKernel {
    fn check_may_be_saved(&self) -> Result<(), Unfit> {
        Unfit::unless(!self.machine.keeps_power(), || {
            "which CPUs are on is known to the host's kernel only: use Linux 6.4 or later on the host".into()
        })?;
        self.machine.unsaved().map_or(Ok(()), |(what, option)| {
            Err(Unfit::new(format!(
                "its CPUs have {what}, which is not saved yet: use --cpu host,{option}=off"
            )))
        })
    }
}

/// An input of the host's. A level tells it all that a device has to say, by one call; an event (irqfd) tells edges, or levels
/// that somebody has to look after when the guest has ended the interrupt.
struct KernelLine {
    gic: Arc<KvmGic>,
    spi: u32,
}

impl InterruptLine for KernelLine {
    fn set(&self, level: bool) {
        self.gic.set_spi(self.spi, level);
    }
}

/// The ITS in the host's kernel.
struct KernelMessages(Arc<KvmGic>);

fn kernel_message(message: Message) -> KvmMessage {
    let Message { device, address, data } = message;
    KvmMessage { device, address, data }
}

impl MessageSink for KernelMessages {
    fn send(&self, message: Message) {
        // The kernel's takes it anywhere in its frames.
        if message.address != spec::ITS_TRANSLATER {
            tracing::debug!(?message, "nothing takes messages there");
        } else if let Err(error) = self.0.send(kernel_message(message)) {
            tracing::debug!(?message, %error, "nothing takes the message");
        }
    }

    fn sender(&self, message: Message) -> Box<dyn MessageSender> {
        Box::new(KernelMessage(Self(Arc::clone(&self.0)), message))
    }
}

/// One of them. A call brings it to the guest at once; an event (irqfd) takes longer.
struct KernelMessage(KernelMessages, Message);

impl MessageSender for KernelMessage {
    fn send(&self) {
        self.0.send(self.1);
    }
}

impl Interrupts for InKernel {
    fn messages(&self) -> Option<Arc<dyn MessageSink>> {
        let has_its = self.gic.version() == GicVersion::V3;
        has_its.then(|| Arc::new(KernelMessages(Arc::clone(&self.gic))) as _)
    }

    fn keeps_power(&self) -> bool {
        self.machine.keeps_power()
    }

    fn version(&self) -> GicVersion {
        self.gic.version()
    }

    fn spi(&self, spi: u32) -> Result<Arc<dyn InterruptLine>, ConfigError> {
        if spi >= SPIS {
            return Err(ConfigError::Wiring(format!("there is no SPI {spi} on this board")));
        }
        Ok(Arc::new(KernelLine { gic: Arc::clone(&self.gic), spi }))
    }

    fn windows(&self) -> Vec<(spec::Region, Arc<dyn MmioDevice>)> {
        // Accesses to the host's never come here.
        Vec::new()
    }

    fn reset(&self) {
        // The timers are reset with their CPUs.
        self.gic.reset();
    }

    fn cpu_off(&self, _cpu: usize) {
        // When it is switched on again, its timers are reset. Its CPU interface is then set up by whoever runs on it, as
        // with the kernel's own PSCI.
    }

    fn connect_cpu(&self, _cpu: usize, _vcpu: Arc<VcpuShared>) {
        // The kernel's vCPU of that place is used again.
    }

    fn external_registers(&self) -> Arc<dyn ExternalRegisters> {
        Arc::clone(&self.machine) as _
    }

    fn event_stream(&self, _cpu: usize) -> Option<Duration> {
        // A CPU that waits for events does so in the guest.
        None
    }

    fn time_goes(&self, goes: bool) {
        self.machine.time_goes(goes);
    }

    fn save(&self) -> Result<(SavedGic, SavedTimers), Unfit> {
        self.check_may_be_saved()?;
        let (frequency, counter) = (counter_frequency(), self.machine.counter());
        let stolen = |cpu| self.machine.stolen(cpu).unwrap_or(0);
        let cpus = (0..self.cpus).map(|cpu| SavedTimer { stolen: stolen(cpu), ..SavedTimer::default() });
        let cpus = cpus.collect();
        Ok((self.gic.save()?, SavedTimers { frequency, counter, cpus }))
    }

    fn restore(&self, gic: &SavedGic, timers: &SavedTimers) -> Result<(), Unfit> {
        self.check_may_be_saved()?;
        check_timers(timers, counter_frequency(), self.cpus)?;
        for (cpu, timer) in timers.cpus.iter().enumerate().filter(|(_, timer)| timer.stolen != 0) {
            Unfit::unless(self.machine.set_stolen(cpu, timer.stolen), || {
                "the guest is told of stolen time, and this host's KVM tells none".into()
            })?;
        }
        self.machine.set_counter(timers.counter);
        self.gic.restore(gic)
    }

    fn take_timer(&self, state: &mut CpuState) -> Option<SavedTimer> {
        let mut take = |register| std::mem::take(&mut state.sys[register]);
        let timer = SavedTimer {
            physical_control: take(SysReg::CntpCtlEl0),
            physical_compare: take(SysReg::CntpCvalEl0),
            virtual_control: take(SysReg::CntvCtlEl0),
            virtual_compare: take(SysReg::CntvCvalEl0),
            kernel_control: state.sys[SysReg::CntkctlEl1],
            ..SavedTimer::default()
        };
        // The host's is with the counter. This is what every CPU has after a reset.
        state.sys[SysReg::CntfrqEl0] = COUNTER_FREQUENCY;
        Some(timer)
    }

    fn put_timer(&self, timer: &SavedTimer, state: &mut CpuState) {
        for (register, value) in [
            (SysReg::CntpCtlEl0, timer.physical_control),
            (SysReg::CntpCvalEl0, timer.physical_compare),
            (SysReg::CntvCtlEl0, timer.virtual_control),
            (SysReg::CntvCvalEl0, timer.virtual_compare),
        ] {
            state.sys[register] = value;
        }
    }
}
