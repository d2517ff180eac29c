//! Register layout and constants of "Virtual I/O Device (VIRTIO) Version 1.2" that all devices share.
//! Section numbers are that document's.

/// Registers of the MMIO transport, version 2 (4.2.2). All are 32 bits wide.
pub mod mmio {
    /// "virt".
    pub const MAGIC_VALUE: u64 = 0x000;
    /// 2: not legacy.
    pub const VERSION: u64 = 0x004;
    /// Kind of device.
    pub const DEVICE_ID: u64 = 0x008;
    /// Vendor.
    pub const VENDOR_ID: u64 = 0x00c;
    /// 32 feature bits that the device offers.
    pub const DEVICE_FEATURES: u64 = 0x010;
    /// Which 32 of them.
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    /// 32 feature bits that the driver takes.
    pub const DRIVER_FEATURES: u64 = 0x020;
    /// Which 32 of them.
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// Queue that the queue registers are about.
    pub const QUEUE_SEL: u64 = 0x030;
    /// Most entries it can have.
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    /// Entries that the driver uses.
    pub const QUEUE_NUM: u64 = 0x038;
    /// 1: the queue is set up.
    pub const QUEUE_READY: u64 = 0x044;
    /// There are buffers in the queue with this number.
    pub const QUEUE_NOTIFY: u64 = 0x050;
    /// Pending interrupt causes.
    pub const INTERRUPT_STATUS: u64 = 0x060;
    /// Causes that the driver has handled.
    pub const INTERRUPT_ACK: u64 = 0x064;
    /// Device status (2.1).
    pub const STATUS: u64 = 0x070;
    /// Descriptor table, low half.
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    /// Descriptor table, high half.
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    /// Available ring, low half.
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    /// Available ring, high half.
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    /// Used ring, low half.
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    /// Used ring, high half.
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    /// Shared memory region's length, low half; all ones if there is none.
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    /// Shared memory region's length, high half.
    pub const SHM_LEN_HIGH: u64 = 0x0b4;
    /// Shared memory region's base, low half.
    pub const SHM_BASE_LOW: u64 = 0x0b8;
    /// Shared memory region's base, high half.
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    /// Changes when the configuration does.
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    /// Start of the device's configuration.
    pub const CONFIG: u64 = 0x100;
    /// Size in bytes of one transport's window on the `virt` board.
    pub const WINDOW_SIZE: u64 = 0x200;

    /// Value of [`MAGIC_VALUE`].
    pub const MAGIC: u32 = 0x7472_6976;
    /// Value of [`VERSION`].
    pub const VERSION_2: u32 = 2;
    /// Value of [`VENDOR_ID`]: "ARML". Drivers do not look at it.
    pub const VENDOR: u32 = u32::from_le_bytes(*b"ARML");
}

/// The PCI transport (4.1).
pub mod pci {
    /// Red Hat, which lends virtio its number.
    pub const VENDOR: u16 = 0x1af4;
    /// Device of kind 0; the others have their kind added (4.1.2).
    pub const DEVICE: u16 = 0x1040;
    /// Not transitional (4.1.2.1).
    pub const REVISION: u8 = 1;
    /// Whose board it is and which: what guests know virtual machines by.
    pub const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);

    /// Kinds of the vendor's capabilities (4.1.4).
    pub mod cfg_type {
        /// Common configuration.
        pub const COMMON: u8 = 1;
        /// Notifications.
        pub const NOTIFY: u8 = 2;
        /// Interrupt status.
        pub const ISR: u8 = 3;
        /// The device's own configuration.
        pub const DEVICE: u8 = 4;
        /// Access to the BARs by configuration space.
        pub const PCI: u8 = 5;
    }

    /// Fields of a capability (4.1.4), from its first byte.
    pub mod cap {
        /// Which BAR.
        pub const BAR: u16 = 4;
        /// Offset in it.
        pub const OFFSET: u16 = 8;
        /// Length of the structure, or of the access.
        pub const LENGTH: u16 = 12;
        /// What was read, or is to be written (4.1.4.9).
        pub const DATA: u16 = 16;
    }

    /// Common configuration (4.1.4.3). Fields are accessed whole, those of 64 bits also by halves.
    pub mod common {
        /// Which 32 of the features offered.
        pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
        /// 32 feature bits that the device offers.
        pub const DEVICE_FEATURE: u64 = 0x04;
        /// Which 32 of the features taken.
        pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
        /// 32 feature bits that the driver takes.
        pub const DRIVER_FEATURE: u64 = 0x0c;
        /// Vector of configuration changes, 16 bits.
        pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
        /// Number of queues, 16 bits.
        pub const NUM_QUEUES: u64 = 0x12;
        /// Device status, 8 bits.
        pub const DEVICE_STATUS: u64 = 0x14;
        /// Changes when the configuration does, 8 bits.
        pub const CONFIG_GENERATION: u64 = 0x15;
        /// Queue that the fields behind are about, 16 bits.
        pub const QUEUE_SELECT: u64 = 0x16;
        /// Its entries, 16 bits: at most those of the reset.
        pub const QUEUE_SIZE: u64 = 0x18;
        /// Its vector, 16 bits.
        pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
        /// 1: it is set up, 16 bits.
        pub const QUEUE_ENABLE: u64 = 0x1c;
        /// Where it is notified, 16 bits, in units of the notification capability.
        pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
        /// Descriptor table, 64 bits.
        pub const QUEUE_DESC: u64 = 0x20;
        /// Available ring, 64 bits.
        pub const QUEUE_DRIVER: u64 = 0x28;
        /// Used ring, 64 bits.
        pub const QUEUE_DEVICE: u64 = 0x30;
        /// Length of the structure.
        pub const LENGTH: u64 = 0x40;
    }

    /// No interrupt (4.1.5.1.2).
    pub const NO_VECTOR: u16 = 0xffff;
}

/// Bits of the device status (2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The guest has a driver for it.
    pub const DRIVER: u32 = 2;
    /// The driver is ready to use it.
    pub const DRIVER_OK: u32 = 4;
    /// The driver is done with the features.
    pub const FEATURES_OK: u32 = 8;
    /// The device met something that it cannot go on from until it is reset.
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    /// The guest has given up.
    pub const FAILED: u32 = 128;
}

/// Bits of the interrupt status (4.2.2).
pub mod interrupt {
    /// Buffers were used.
    pub const USED_BUFFER: u32 = 1;
    /// The configuration, or the need to be reset, changed.
    pub const CONFIG_CHANGE: u32 = 2;
}

/// Feature bits that no device owns (6).
pub mod feature {
    /// Descriptors may refer to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Notifications are suppressed by ring index.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
}

/// Device kinds (5).
pub mod device_id {
    /// Block device (5.2).
    pub const BLOCK: u32 = 2;
    /// Console device (5.3).
    pub const CONSOLE: u32 = 3;
    /// Entropy device (5.4).
    pub const ENTROPY: u32 = 4;
}

/// Flag of the available ring: the driver wants no interrupts (2.7.6).
pub const AVAIL_F_NO_INTERRUPT: u64 = 1;
