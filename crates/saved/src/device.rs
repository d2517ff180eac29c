//! Devices, by their registers.

saved! {
    /// The generic timers of one CPU. With no CPU in its place all are off.
    SavedTimer {
        /// CNTKCTL_EL1.
        "1" kernel_control: u64,
        /// CNTP_CTL_EL0 without ISTATUS.
        "2" physical_control: u64,
        /// CNTP_CVAL_EL0.
        "3" physical_compare: u64,
        /// CNTV_CTL_EL0 without ISTATUS.
        "4" virtual_control: u64,
        /// CNTV_CVAL_EL0.
        "5" virtual_compare: u64,
        /// Nanoseconds stolen from the CPU, as the guest is told (Arm DEN 0057).
        "6" stolen: u64,
    }

    /// The generic timers, and the time.
    SavedTimers {
        /// Of the counter, in Hz.
        "1" frequency: u64,
        /// CNTPCT_EL0 and CNTVCT_EL0 at the moment of saving. They go on from here.
        "2" counter: u64,
        /// All places for CPUs.
        "3" cpus: Vec<SavedTimer>,
    }

    /// The PL011.
    SavedUart {
        /// Received characters with their error bits, as UARTDR has them.
        "1" receive: Vec<u16>,
        /// Characters that wait to be sent.
        "2" transmit: Vec<u8>,
        /// UARTRSR's errors, as in UARTDR.
        "3" status: u16,
        /// The next character received is marked with an overrun.
        "4" overrun: bool,
        /// Input waits for the guest's driver.
        "5" holds: bool,
        /// How far the driver has come.
        "6" driver: SavedUartDriver,
        /// UARTILPR.
        "7" ilpr: u32,
        /// UARTIBRD.
        "8" ibrd: u32,
        /// UARTFBRD.
        "9" fbrd: u32,
        /// UARTLCR_H.
        "10" lcr_h: u32,
        /// UARTCR.
        "11" cr: u32,
        /// UARTIFLS.
        "12" ifls: u32,
        /// UARTDMACR.
        "13" dmacr: u32,
        /// UARTIMSC.
        "14" mask: u32,
        /// UARTRIS.
        "15" raw: u32,
    }

    /// The PL031.
    SavedRtc {
        /// The guest's time less the host's, in seconds, modulo 2^32.
        "1" offset: u32,
        /// RTCMR.
        "2" match_value: u32,
        /// RTCLR.
        "3" load: u32,
        /// RTCIMSC.
        "4" mask: u32,
        /// RTCRIS.
        "5" raw: u32,
        /// Second since 1970, by the host, at which the match comes that is awaited.
        "6" awaited: Option<u64>,
    }

    /// The PL061.
    SavedGpio {
        /// Levels driven from outside.
        "1" input: u8,
        /// GPIODATA of outputs.
        "2" output: u8,
        /// GPIODIR.
        "3" direction: u8,
        /// GPIOIS.
        "4" sense_level: u8,
        /// GPIOIBE.
        "5" both_edges: u8,
        /// GPIOIEV.
        "6" event: u8,
        /// GPIOIE.
        "7" mask: u8,
        /// Edges seen and not yet cleared.
        "8" edges: u8,
        /// GPIOAFSEL.
        "9" hardware: u8,
        /// Nanoseconds of the machine's time until the power key is let go of.
        "10" release_in: Option<u64>,
    }

    /// One virtio queue.
    SavedQueue {
        /// Entries, as the driver chose.
        "1" size: u16,
        /// Guest-physical address of the descriptor table.
        "2" descriptors: u64,
        /// Guest-physical address of the available ring.
        "3" available: u64,
        /// Guest-physical address of the used ring.
        "4" used: u64,
        /// QueueReady.
        "5" ready: bool,
        /// Index in the available ring of the next chain to be taken; one that is being worked on was not taken.
        "6" next_available: u16,
        /// Index in the used ring of the next entry to be written.
        "7" next_used: u16,
        /// Bytes of the next chain that have been done.
        "8" done: u64,
    }

    /// A vector of MSI-X.
    SavedVector {
        /// Message address.
        "1" address: u64,
        /// Message data.
        "2" data: u32,
        /// The vector is masked.
        "3" masked: bool,
        /// Its pending bit.
        "4" pending: bool,
    }

    /// A PCI function.
    SavedPciFunction {
        /// Configuration space, 256 bytes.
        "1" config: Vec<u8>,
        /// MSI-X.
        "2" vectors: Vec<SavedVector>,
    }

    /// What virtio has behind the PCI transport only.
    SavedVirtioPci {
        /// The function.
        "1" function: SavedPciFunction,
        /// config_msix_vector.
        "2" config_vector: u16,
        /// queue_msix_vector of each queue.
        "3" queue_vectors: Vec<u16>,
    }

    /// A virtio device behind the MMIO transport, version 2, or the PCI transport. Registers are called as the former
    /// does.
    SavedVirtio {
        /// DeviceID.
        "1" device_id: u32,
        /// All features that the device offered.
        "2" offered: u64,
        /// Status, without DEVICE_NEEDS_RESET.
        "3" status: u32,
        /// DeviceFeaturesSel.
        "4" device_features_sel: u32,
        /// DriverFeaturesSel.
        "5" driver_features_sel: u32,
        /// DriverFeatures, both halves.
        "6" driver_features: u64,
        /// QueueSel.
        "7" queue_sel: u32,
        /// The queues.
        "8" queues: Vec<SavedQueue>,
        /// InterruptStatus.
        "9" causes: u32,
        /// ConfigGeneration.
        "10" generation: u32,
        /// The driver has broken the rules: DEVICE_NEEDS_RESET.
        "11" needs_reset: bool,
        /// The configuration as the driver reads it.
        "12" config: Vec<u8>,
        /// A console's input that the guest has not taken.
        "13" backlog: Vec<u8>,
        /// With the PCI transport.
        "14" pci: Option<SavedVirtioPci>,
    }
}

/// How far a driver of the UART has come that takes input by interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub enum SavedUartDriver {
    /// There is none yet.
    #[default]
    #[serde(rename = "1")]
    Absent,
    /// It has unmasked the receive interrupts so many nanoseconds of the machine's time ago.
    #[serde(rename = "2")]
    Starting(u64),
    /// It takes input.
    #[serde(rename = "3")]
    Ready,
}
