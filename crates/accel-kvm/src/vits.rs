//! The state of the interrupt translation service inside the host's kernel, in the form that is saved
//! (Documentation/virt/kvm/devices/arm-vgic-its.rst of Linux).
//!
//! The kernel has the mappings in structures of its own, and writes them to their tables, or reads them from there, when it
//! is told to. It never stalls.

use std::io;

use armlet_arm::gic::gits;
use armlet_saved::{SavedIts, Unfit};

/// What is saved of the registers: where tables are, how large, and whether they are there. How they are cached is the
/// kernel's business.
const QUEUE: u64 = gits::VALID | gits::CBASER_ADDRESS | gits::PAGES;
const TABLE: u64 = gits::VALID | gits::BASER_INDIRECT | 0xffff_ffff_f000 | gits::PAGES;
const DEVICES: u64 = gits::BASER;
const COLLECTIONS: u64 = gits::BASER + 8;

/// The device, by its attributes. No vCPU is inside the kernel.
pub trait Service {
    /// Reads a register.
    ///
    /// # Errors
    /// The host's.
    fn get(&self, register: u64) -> io::Result<u64>;
    /// Writes a register.
    ///
    /// # Errors
    /// The host's.
    fn set(&self, register: u64, value: u64) -> io::Result<()>;
    /// Writes all mappings to the tables in the guest's memory.
    ///
    /// # Errors
    /// The host's.
    fn write_tables(&self) -> io::Result<()>;
    /// Reads all mappings from there.
    ///
    /// # Errors
    /// The host's.
    fn read_tables(&self) -> io::Result<()>;
}

/// All registers; all mappings are in the guest's memory then.
///
/// # Errors
/// The host's.
pub fn save(service: &impl Service) -> io::Result<SavedIts> {
    service.write_tables()?;
    registers(service)
}

fn registers(service: &impl Service) -> io::Result<SavedIts> {
    let get = |register, mask| service.get(register).map(|value| value & mask);
    Ok(SavedIts {
        enabled: get(gits::CTLR, gits::CTLR_ENABLED.into())? != 0,
        queue: get(gits::CBASER, QUEUE)?,
        written: get(gits::CWRITER, gits::OFFSET)?,
        read: get(gits::CREADR, gits::OFFSET)?,
        devices: get(DEVICES, TABLE)?,
        collections: get(COLLECTIONS, TABLE & !gits::BASER_INDIRECT)?,
    })
}

/// Takes over what was saved, with the mappings in the guest's memory. The redistributors have been restored before.
///
/// # Errors
/// What the kernel's cannot be. The device must not be used then.
pub fn restore(service: &impl Service, saved: &SavedIts) -> Result<(), Unfit> {
    let stalled = saved.read & gits::CREADR_STALLED != 0;
    Unfit::unless(!stalled, || {
        "the interrupt controller: its ITS stalls, which one in the host's kernel does not".into()
    })?;
    let failed =
        |e: io::Error| Unfit::new(format!("the ITS: the host's kernel does not take what it was: {e}"));
    write(service, saved).map_err(failed)?;
    let here = registers(service).map_err(failed)?;
    for (register, then, now) in [
        ("GITS_CTLR", saved.enabled.into(), here.enabled.into()),
        ("GITS_CBASER", saved.queue & QUEUE, here.queue),
        ("GITS_CWRITER", saved.written, here.written),
        ("GITS_CREADR", saved.read, here.read),
        ("GITS_BASER0", saved.devices & TABLE, here.devices),
        ("GITS_BASER1", saved.collections & TABLE, here.collections),
    ] {
        Unfit::unless(then == now, || {
            format!("the interrupt controller: {register} was {then:#x} and is {now:#x} in the host's kernel")
        })?;
    }
    Ok(())
}

/// In the order that the kernel's documentation demands.
fn write(service: &impl Service, saved: &SavedIts) -> io::Result<()> {
    service.set(gits::CTLR, 0)?;
    service.set(gits::CBASER, saved.queue)?;
    for (register, value) in [
        (DEVICES, saved.devices),
        (COLLECTIONS, saved.collections),
        (gits::CREADR, saved.read),
        (gits::CWRITER, saved.written),
    ] {
        service.set(register, value)?;
    }
    service.read_tables()?;
    service.set(gits::CTLR, saved.enabled.into())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    /// Registers as the kernel has them, and what was done.
    #[derive(Default)]
    struct Kernel(RefCell<BTreeMap<u64, u64>>, RefCell<Vec<String>>);

    impl Service for Kernel {
        fn get(&self, register: u64) -> io::Result<u64> {
            let value = self.0.borrow().get(&register).copied().unwrap_or(0);
            // Types and sizes of entries and pages are fixed.
            let fixed = if register >= gits::BASER { 0x0107_0000_0000_0200 } else { 0 };
            Ok(value | fixed)
        }

        fn set(&self, register: u64, value: u64) -> io::Result<()> {
            self.1.borrow_mut().push(format!("{register:#x}"));
            let mut registers = self.0.borrow_mut();
            if register == gits::CBASER {
                registers.insert(gits::CREADR, 0);
                registers.insert(gits::CWRITER, 0);
            }
            let value = if register == gits::CREADR { value & gits::OFFSET } else { value };
            registers.insert(register, value);
            Ok(())
        }

        fn write_tables(&self) -> io::Result<()> {
            self.1.borrow_mut().push("write".into());
            Ok(())
        }

        fn read_tables(&self) -> io::Result<()> {
            self.1.borrow_mut().push("read".into());
            Ok(())
        }
    }

    fn some() -> SavedIts {
        SavedIts {
            enabled: true,
            queue: gits::VALID | 0x4800_0000 | 0xf,
            written: 0x1e0,
            read: 0x1c0,
            devices: gits::VALID | gits::BASER_INDIRECT | 0x4801_0000,
            collections: gits::VALID | 0x4802_0000,
        }
    }

    #[test]
    fn what_was_saved_is_there_again_in_the_order_that_is_demanded() {
        let kernel = Kernel::default();
        restore(&kernel, &some()).unwrap();
        assert_eq!(*kernel.1.borrow(), ["0x0", "0x80", "0x100", "0x108", "0x90", "0x88", "read", "0x0"]);
        kernel.1.borrow_mut().clear();
        assert_eq!(save(&kernel).unwrap(), some());
        assert_eq!(*kernel.1.borrow(), ["write"]);
    }

    #[test]
    fn how_tables_are_cached_is_not_carried() {
        let kernel = Kernel::default();
        let cached = 5 << 59 | 1 << 10;
        let saved = SavedIts { queue: some().queue | cached, devices: some().devices | cached, ..some() };
        restore(&kernel, &saved).unwrap();
        assert_eq!(save(&kernel).unwrap(), some());
    }

    #[test]
    fn one_that_stalls_is_refused() {
        let saved = SavedIts { read: some().read | gits::CREADR_STALLED, ..some() };
        assert!(restore(&Kernel::default(), &saved).unwrap_err().0.contains("stalls"));
    }

    #[test]
    fn what_the_kernel_has_not_is_named() {
        // A collection table of two levels.
        let saved = SavedIts { collections: some().collections | gits::BASER_INDIRECT, ..some() };
        assert!(restore(&Kernel::default(), &saved).unwrap_err().0.contains("GITS_BASER1"));
    }
}
