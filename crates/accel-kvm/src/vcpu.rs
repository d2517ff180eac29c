//! One vCPU: the loop around `KVM_RUN`.

use std::cell::OnceCell;
use std::sync::Arc;

use armlet_arm::exception::{self, Exception};
use armlet_arm::mmu::{self, Access, AccessKind, PhysicalMemory};
use armlet_arm::{CpuModel, CpuState};
use armlet_engine::{
    Accelerator, AcceleratorError, DebugRequest, DebugStop, Kick, VcpuBackend, VcpuExit, VcpuShared,
};
use armlet_memory::{AccessSize, AddressSpace, Ram};
use kvm_bindings::{KVM_EXIT_ARM_NISV, kvm_vcpu_events};
use kvm_ioctls::{VcpuExit as KvmExit, VcpuFd};

use crate::exit::{Exit, Next, handle};
use crate::kick::KvmKick;
use crate::machine::initialise;
use crate::step::Hidden;
use crate::system::{host, synchronise_code, undescribed_address};
use crate::{KvmError, KvmMachine, debug};

/// `KVM_IRQ_LINE`: a vCPU's own line, where there is no interrupt controller in the kernel; IRQ is 0, FIQ is 1.
const LINE_OF_CPU: u32 = 0;
const LINE_CPU: u32 = 16;

/// KVM as an accelerator.
pub struct KvmAccelerator {
    machine: Arc<KvmMachine>,
    memory: Arc<AddressSpace>,
    model: Arc<CpuModel>,
}

impl KvmAccelerator {
    /// Of `machine`, whose memory and devices are in `memory`, and whose vCPUs are of `model`.
    ///
    /// # Errors
    /// The host does not take the memory.
    pub fn new(
        machine: Arc<KvmMachine>,
        memory: Arc<AddressSpace>,
        model: Arc<CpuModel>,
    ) -> Result<Self, KvmError> {
        machine.set_memory(&memory)?;
        Ok(Self { machine, memory, model })
    }
}

impl Accelerator for KvmAccelerator {
    fn name(&self) -> &'static str {
        "KVM"
    }

    fn create_vcpu(
        &self,
        shared: Arc<VcpuShared>,
        state: CpuState,
    ) -> Result<Box<dyn VcpuBackend>, AcceleratorError> {
        let index = shared.index();
        let fd = self.machine.take_vcpu(index).ok_or_else(|| {
            AcceleratorError(format!("KVM has no vCPU {index} for this machine, or it is in use"))
        })?;
        let kick = match KvmKick::new(&fd) {
            Ok(kick) => Arc::new(kick),
            Err(error) => {
                self.machine.put_aside(index, fd);
                return Err(AcceleratorError(format!("the host has no room for a vCPU: {error}")));
            }
        };
        let mut vcpu = KvmVcpu {
            fd: Some(fd),
            machine: Arc::clone(&self.machine),
            memory: Arc::clone(&self.memory),
            model: Arc::clone(&self.model),
            shared,
            kick,
            known: OnceCell::new(),
            changed: None,
            incomplete: false,
            lines: [false; 2],
            request: DebugRequest::default(),
            patched: Vec::new(),
            counters: Counters::default(),
        };
        vcpu.restart(state).map_err(AcceleratorError)?;
        Ok(Box::new(vcpu))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    entries: u64,
    mmio: u64,
    calls: u64,
    interrupted: u64,
    loads: u64,
    stores: u64,
}

/// A vCPU. Its registers are in the host's kernel; they are read when somebody looks, and written when somebody has
/// changed them, before the next entry.
struct KvmVcpu {
    /// Gone only while it is dropped.
    fd: Option<VcpuFd>,
    machine: Arc<KvmMachine>,
    memory: Arc<AddressSpace>,
    model: Arc<CpuModel>,
    shared: Arc<VcpuShared>,
    kick: Arc<KvmKick>,
    /// The registers as the kernel has them, if they have been read since the last entry.
    known: OnceCell<Box<CpuState>>,
    /// As the next entry is to find them, if that is something else.
    changed: Option<Box<CpuState>>,
    /// An access to a device was answered; the next entry completes it.
    incomplete: bool,
    /// IRQ and FIQ as the kernel was told, where it has no interrupt controller.
    lines: [bool; 2],
    request: DebugRequest,
    /// Where BRK stands for this vCPU's breakpoints: virtual and physical addresses.
    patched: Vec<(u64, u64)>,
    counters: Counters,
}

impl KvmVcpu {
    fn fd(&self) -> &VcpuFd {
        self.fd.as_ref().expect("a vCPU that is not being dropped has its descriptor")
    }

    fn load(&self) -> Result<Box<CpuState>, String> {
        let mut state = Box::new(CpuState::new(self.shared.index() as u32));
        state.sys[armlet_arm::SysReg::MpidrEl1] = self.machine.mpidrs[self.shared.index()];
        let loaded = self.machine.registers.load(self.fd(), &mut state);
        loaded.map_err(|e| format!("KVM does not tell its registers: {e}"))?;
        Ok(state)
    }

    /// The registers as the kernel has them. It has told them before, so it does now.
    fn known(&self) -> &CpuState {
        self.known.get_or_init(|| {
            self.load().unwrap_or_else(|error| {
                tracing::error!(vcpu = self.shared.index(), error, "registers are unknown");
                Box::new(CpuState::new(self.shared.index() as u32))
            })
        })
    }

    /// Registers as after a reset, then those of `state`.
    fn restart(&mut self, state: CpuState) -> Result<(), String> {
        let mpidr = self.machine.mpidrs[self.shared.index()];
        initialise(self.fd(), &self.machine.init(self.shared.index()), mpidr)
            .map_err(|e| format!("KVM cannot reset it: {e}"))?;
        if let Some(caches) = self.machine.caches.get() {
            caches.tell(self.fd()).map_err(|e| format!("KVM does not take its caches: {e}"))?;
        }
        self.known = OnceCell::from(self.load()?);
        self.changed = Some(Box::new(state));
        self.flush()
    }

    /// Writes what has been changed.
    fn flush(&mut self) -> Result<(), String> {
        let Some(new) = self.changed.take() else { return Ok(()) };
        self.counters.stores += 1;
        let stored = self.machine.registers.store(self.fd(), self.known(), &new);
        // Read again when somebody looks: some bits may not have been taken.
        self.known = OnceCell::new();
        stored.map_err(|e| format!("KVM does not take its registers: {e}"))
    }

    /// Tells the kernel the levels of the interrupt lines, where it has no interrupt controller that knows them.
    fn drive_lines(&mut self) -> Result<(), String> {
        if self.machine.has_gic.get().is_some() {
            return Ok(());
        }
        let levels = [self.shared.irq(), self.shared.fiq()];
        for (n, level) in levels.into_iter().enumerate().filter(|(n, level)| self.lines[*n] != *level) {
            let line = LINE_OF_CPU | (self.shared.index() as u32) << LINE_CPU | n as u32;
            let driven = self.machine.vm.set_irq_line(line, level);
            driven.map_err(|e| format!("KVM does not take its interrupts: {}", host(e)))?;
        }
        self.lines = levels;
        Ok(())
    }

    /// Enters the guest, and does what its exit asks of the bus.
    fn enter(&mut self) -> Next {
        self.counters.entries += 1;
        self.known = OnceCell::new();
        let fd = self.fd.as_mut().expect("a vCPU that is not being dropped has its descriptor");
        let left = self.kick.around(|| fd.run());
        self.incomplete = false;
        let bus = &*self.memory;
        let next = match left {
            Ok(KvmExit::MmioRead(address, data)) => handle(Exit::MmioRead { address, data }, bus),
            Ok(KvmExit::MmioWrite(address, data)) => handle(Exit::MmioWrite { address, data }, bus),
            Ok(KvmExit::Intr) => Next::Enter,
            Ok(KvmExit::Hypercall(_)) => Next::Call,
            Ok(KvmExit::Debug(arch)) => handle(Exit::Debug { syndrome: arch.hsr, address: arch.far }, bus),
            Ok(KvmExit::SystemEvent(event, _)) => {
                handle(Exit::System { event, by_call: self.machine.keeps_power() }, bus)
            }
            Ok(KvmExit::FailEntry(reason, cpu)) => handle(Exit::FailEntry { reason, cpu }, bus),
            Ok(KvmExit::MemoryFault { gpa, size, .. }) => {
                handle(Exit::MemoryFault { address: gpa, size }, bus)
            }
            Ok(KvmExit::InternalError) => handle(Exit::InternalError, bus),
            Ok(KvmExit::Unsupported(KVM_EXIT_ARM_NISV)) => {
                handle(Exit::NoSyndrome { address: undescribed_address(fd) }, bus)
            }
            Ok(KvmExit::Unsupported(number)) => handle(Exit::Other(number), bus),
            Ok(_) => {
                let number = fd.get_kvm_run().exit_reason;
                handle(Exit::Other(number), bus)
            }
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => handle(Exit::Interrupted, bus),
            Err(e) => handle(Exit::Failed(host(e)), bus),
        };
        match &next {
            Next::Complete => {
                self.counters.mmio += 1;
                self.incomplete = true;
            }
            Next::Call | Next::CallOf(_) => self.counters.calls += 1,
            Next::Enter => self.counters.interrupted += 1,
            _ => {}
        }
        next
    }

    /// Completes an access that was answered: the next entry does, and the flag makes it nothing more.
    fn complete(&mut self) {
        while self.incomplete {
            self.kick.set();
            // Anything but an interruption would be an exit that nobody handles; there is none.
            let next = self.enter();
            debug_assert_eq!(next, Next::Enter);
        }
    }

    /// The guest's access meets nothing: a synchronous external abort.
    fn abort(&mut self) -> Result<(), String> {
        if !self.machine.injects_aborts {
            return Err(
                "it accesses an address where nothing is, and this host's KVM cannot tell it so".into()
            );
        }
        let mut events = kvm_vcpu_events::default();
        events.exception.ext_dabt_pending = 1;
        let told = self.fd().set_vcpu_events(&events);
        told.map_err(|e| format!("KVM does not take an abort: {}", host(e)))?;
        // The registers are those of the abort after the next entry.
        self.incomplete = true;
        Ok(())
    }

    /// Where the instruction at `address` is in memory.
    fn fetched_from(&self, address: u64, el: usize) -> Option<u64> {
        let state = self.state();
        let fetch = Access { kind: AccessKind::Fetch, el: el.min(1) as u8, pan: false };
        let context = mmu::Context::new(state, &self.model);
        let translation = mmu::translate(&context, &Tables(self.memory.ram()), address, fetch).ok()?;
        self.memory.ram().contains(translation.pa, 4).then_some(translation.pa)
    }

    /// The instruction at PC.
    fn next_instruction(&self) -> Option<u32> {
        let at = self.fetched_from(self.state().pc, self.state().el())?;
        self.machine
            .patches
            .instruction(at)
            .or_else(|| self.memory.ram().load(at, AccessSize::Word).map(|word| word as u32))
    }

    /// Takes this vCPU's breakpoints out of memory.
    fn unpatch(&mut self) {
        for (_, at) in self.patched.drain(..) {
            self.machine.patches.remove(self.memory.ram(), at);
            synchronise_code(self.memory.ram(), at);
        }
    }

    /// Puts breakpoints into memory for which the CPU has no registers; gives those that are to be in registers.
    fn patch(&mut self, breakpoints: &[u64]) -> Result<Vec<u64>, AcceleratorError> {
        let room = self.machine.breakpoints;
        if breakpoints.len() <= room {
            return Ok(breakpoints.to_vec());
        }
        // An address that is not mapped now can only be in a register.
        let find = |address: u64| {
            let at = [1, 0].into_iter().find_map(|el| self.fetched_from(address, el));
            (address, at)
        };
        let mut found: Vec<_> = breakpoints.iter().map(|address| find(*address)).collect();
        found.sort_by_key(|(_, at)| at.is_some());
        let in_memory = found.split_off(room);
        for (address, at) in in_memory {
            let at = at.filter(|at| self.machine.patches.put(self.memory.ram(), *at)).ok_or_else(|| {
                AcceleratorError(format!(
                    "this host's CPU has {room} breakpoints for a guest, and no more of them can be where nothing is \
                     mapped, as at {address:#x}: remove some"
                ))
            })?;
            synchronise_code(self.memory.ram(), at);
            self.patched.push((address, at));
        }
        Ok(found.into_iter().map(|(address, _)| address).collect())
    }

    /// The guest has met BRK: somebody's breakpoint, or it takes the exception that it has asked for.
    fn brk(&mut self, comment: u16) -> Option<DebugStop> {
        let pc = self.state().pc;
        let at = self.fetched_from(pc, self.state().el());
        let is_ours = self.patched.iter().any(|(address, _)| *address == pc);
        if is_ours || at.is_some_and(|at| self.machine.patches.instruction(at).is_some()) {
            return Some(DebugStop::Breakpoint);
        }
        let model = Arc::clone(&self.model);
        exception::take(self.state_mut(), &model, &Exception::brk(comment));
        // A step that ends in its vector has been made.
        self.request.step.then_some(DebugStop::Step)
    }

    fn execute(&mut self) -> Result<VcpuExit, String> {
        let word = if self.request.step { self.next_instruction() } else { None };
        let hidden = if self.request.step { Hidden::begin(self.state_mut(), word) } else { None };
        let exit = self.execute_until_exit();
        if let Some(hidden) = hidden {
            hidden.end(self.state_mut());
        }
        exit
    }

    fn execute_until_exit(&mut self) -> Result<VcpuExit, String> {
        self.flush()?;
        loop {
            // First the kick, then what it may have been for.
            self.kick.take();
            if self.shared.exit_requested() {
                self.complete();
                return Ok(VcpuExit::Kicked);
            }
            self.drive_lines()?;
            match self.enter() {
                Next::Enter | Next::Complete => {}
                Next::Abort => self.abort()?,
                Next::Call => return Ok(VcpuExit::Hypercall(0)),
                Next::CallOf(function) => {
                    self.state_mut().x[0] = function;
                    return Ok(VcpuExit::Hypercall(0));
                }
                Next::Debug(stop) => return Ok(VcpuExit::Debug(stop)),
                Next::Brk(comment) => match self.brk(comment) {
                    Some(stop) => return Ok(VcpuExit::Debug(stop)),
                    None => self.flush()?,
                },
                Next::Fatal(why) => return Err(format!("at PC {:#x}: {why}", self.state().pc)),
            }
        }
    }
}

/// The guest's translation tables.
struct Tables<'a>(&'a Ram);

impl PhysicalMemory for Tables<'_> {
    fn read_u64(&self, pa: u64) -> Option<u64> {
        self.0.load(pa, AccessSize::Double)
    }

    fn compare_exchange_u64(&self, pa: u64, old: u64, new: u64) -> Option<Result<u64, u64>> {
        self.0.compare_exchange(pa, old, new)
    }
}

impl VcpuBackend for KvmVcpu {
    fn kick_handle(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.kick) as _
    }

    fn run(&mut self) -> VcpuExit {
        self.execute().unwrap_or_else(VcpuExit::Fatal)
    }

    fn state(&self) -> &CpuState {
        self.changed.as_deref().unwrap_or_else(|| self.known())
    }

    fn state_mut(&mut self) -> &mut CpuState {
        if self.changed.is_none() {
            self.changed = Some(Box::new(self.known().clone()));
        }
        self.changed.as_mut().expect("was just made")
    }

    fn unsaved(&self) -> Option<&'static str> {
        // What was begun is complete then.
        self.known();
        match self.fd().get_vcpu_events() {
            Ok(events) if events.exception.serror_pending == 0 => None,
            Ok(_) => {
                Some("an SError is pending, which is not saved: save the machine when its guest has taken it")
            }
            Err(_) => Some("the host's KVM does not tell whether an SError is pending"),
        }
    }

    fn reset(&mut self, state: CpuState) {
        if let Err(error) = self.restart(state.clone()) {
            tracing::error!(vcpu = self.shared.index(), error, "the reset is incomplete");
            *self.state_mut() = state;
        }
    }

    fn replace(&mut self, state: CpuState) -> Result<(), AcceleratorError> {
        self.restart(state.clone()).map_err(AcceleratorError)?;
        match self.machine.registers.difference(&state, self.known()) {
            Some((name, wanted, there)) => Err(AcceleratorError(format!(
                "{name} was {wanted:#x} and stays {there:#x} with the host's KVM"
            ))),
            None => Ok(()),
        }
    }

    fn power_on(&mut self, state: CpuState) {
        self.reset(state);
    }

    fn set_debug(&mut self, request: DebugRequest) -> Result<(), AcceleratorError> {
        self.unpatch();
        let in_registers = if request.step { Ok(Vec::new()) } else { self.patch(&request.breakpoints) };
        if in_registers.is_err() {
            self.unpatch();
        }
        let in_registers = DebugRequest { breakpoints: in_registers?, ..request.clone() };
        let machine = &self.machine;
        let debug = debug::guest_debug(&in_registers, machine.breakpoints, machine.watchpoints)?;
        let set = self.fd().set_guest_debug(&debug);
        set.map_err(|e| AcceleratorError(format!("KVM cannot debug this guest: {}", host(e))))?;
        self.request = request;
        Ok(())
    }

    fn steps(&self) -> bool {
        self.request.step
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        let c = &self.counters;
        let all = [
            ("kvm_entries", c.entries),
            ("mmio_accesses", c.mmio),
            ("kvm_calls", c.calls),
            ("kvm_interrupted", c.interrupted),
            ("registers_loaded", c.loads),
            ("registers_stored", c.stores),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

impl Drop for KvmVcpu {
    fn drop(&mut self) {
        self.unpatch();
        if let Some(fd) = self.fd.take() {
            if self.request != DebugRequest::default() {
                // The next user of the descriptor wants nothing of it.
                let _ = fd.set_guest_debug(&kvm_bindings::kvm_guest_debug::default());
            }
            self.machine.put_aside(self.shared.index(), fd);
        }
    }
}
