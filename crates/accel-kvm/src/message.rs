//! Interrupts that are messages, to the interrupt translation service in the host's kernel.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi,
    kvm_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::KvmMessage;
use crate::system::host;

/// Messages of one virtual machine.
#[derive(Clone)]
pub struct Messages {
    vm: Arc<VmFd>,
    /// By number of a route (GSI): its message, if it is in use. The kernel is told with this lock held.
    routes: Arc<Mutex<Vec<Option<KvmMessage>>>>,
}

impl Messages {
    pub fn new(vm: &Arc<VmFd>) -> Self {
        Self { vm: Arc::clone(vm), routes: Arc::default() }
    }

    pub fn send(&self, message: KvmMessage) -> io::Result<()> {
        let KvmMessage { device, address, data } = message;
        let (address_lo, address_hi) = (address as u32, (address >> 32) as u32);
        let flags = KVM_MSI_VALID_DEVID;
        let msi = kvm_msi { address_lo, address_hi, data, flags, devid: device, pad: [0; 12] };
        self.vm.signal_msi(msi).map(drop).map_err(host)
    }

    /// Changes route `number`, or a free one; its number.
    fn set(&self, number: Option<usize>, message: Option<KvmMessage>) -> io::Result<usize> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let free = routes.iter().position(Option::is_none).unwrap_or(routes.len());
        let number = number.unwrap_or(free);
        if number == routes.len() {
            routes.push(None);
        }
        let before = std::mem::replace(&mut routes[number], message);
        let told = tell(&self.vm, &routes);
        if told.is_err() {
            routes[number] = before;
        }
        told.map(|()| number)
    }
}

/// Tells the kernel all routes, which replace those that it had.
fn tell(vm: &VmFd, routes: &[Option<KvmMessage>]) -> io::Result<()> {
    let entry = |(gsi, message): (usize, &Option<KvmMessage>)| message.map(|message| entry_of(gsi, message));
    let entries: Vec<_> = routes.iter().enumerate().filter_map(entry).collect();
    let table = KvmIrqRouting::from_entries(&entries).map_err(|_| io::ErrorKind::OutOfMemory)?;
    vm.set_gsi_routing(&table).map_err(host)
}

fn entry_of(gsi: usize, message: KvmMessage) -> kvm_irq_routing_entry {
    let KvmMessage { device, address, data } = message;
    let mut msi = kvm_irq_routing_msi {
        address_lo: address as u32,
        address_hi: (address >> 32) as u32,
        data,
        ..kvm_irq_routing_msi::default()
    };
    msi.__bindgen_anon_1.devid = device;
    let mut entry = kvm_irq_routing_entry {
        gsi: gsi as u32,
        type_: KVM_IRQ_ROUTING_MSI,
        flags: KVM_MSI_VALID_DEVID,
        ..kvm_irq_routing_entry::default()
    };
    entry.u.msi = msi;
    entry
}

/// An event (irqfd) whose signal sends a message, in the kernel.
pub struct MessageEvent {
    messages: Messages,
    event: EventFd,
    route: usize,
}

impl MessageEvent {
    pub(crate) fn new(messages: &Messages, message: KvmMessage) -> io::Result<Self> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let route = messages.set(None, Some(message))?;
        let this = Self { messages: messages.clone(), event, route };
        // If that fails, the route goes with `this`.
        this.messages.vm.register_irqfd(&this.event, route as u32).map_err(host)?;
        Ok(this)
    }

    /// Sends it once.
    pub fn send(&self) {
        // It fails only if nobody has taken 2^64 - 2 signals.
        let _ = self.event.write(1);
    }
}

impl Drop for MessageEvent {
    fn drop(&mut self) {
        // The event goes first, so that it never sends what its route is used for next.
        let _ = self.messages.vm.unregister_irqfd(&self.event, self.route as u32);
        if let Err(error) = self.messages.set(Some(self.route), None) {
            tracing::warn!(%error, "a message's route in the host's kernel stays");
        }
    }
}
