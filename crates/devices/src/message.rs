//! Message-signalled interrupts: what a function on a bus writes, and what takes it for an interrupt.

/// One message, as it stands on the bus (PCI Local Bus Specification 3.0, 6.8; GIC architecture, "ITS").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The writer: its requester ID, which the GICv3 ITS takes for the DeviceID.
    pub device: u32,
    /// Guest physical address that is written.
    pub address: u64,
    /// What is written; for the GICv3 ITS the EventID.
    pub data: u32,
}

/// Where messages go. A message to an address at which nothing takes messages is lost, as it would be on the bus.
pub trait MessageSink: Send + Sync {
    /// Delivers `message`, from any thread.
    fn send(&self, message: Message);

    /// Somebody who will deliver `message` again and again, by the quickest way that there is. It is asked for when a
    /// guest sets a vector up, so it may cost something.
    fn sender(&self, message: Message) -> Box<dyn MessageSender>;
}

/// Delivers one message, which was settled before.
pub trait MessageSender: Send + Sync {
    /// Delivers it once, from any thread.
    fn send(&self);
}
