//! Bells that the guest rings by stores, without an exit (ioeventfd).

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use crate::KvmError;
use crate::machine::{KvmMachine, refused};
use crate::system::{host, own};

/// A bell, and the addresses at which it is rung.
pub struct KvmBell {
    vm: Arc<VmFd>,
    event: EventFd,
    /// The kernel is told with this lock held.
    places: Mutex<Vec<u64>>,
}

impl KvmMachine {
    /// A bell that nothing rings yet.
    ///
    /// # Errors
    /// The host's.
    pub fn bell(&self) -> Result<KvmBell, KvmError> {
        let event = EventFd::new(EFD_CLOEXEC).map_err(refused("make a doorbell"))?;
        Ok(KvmBell { vm: Arc::clone(&self.vm), event, places: Mutex::default() })
    }
}

impl KvmBell {
    /// What is rung.
    ///
    /// # Errors
    /// The host's.
    pub fn descriptor(&self) -> Result<OwnedFd, KvmError> {
        Ok(own(self.event.try_clone().map_err(refused("make a doorbell"))?))
    }

    /// Has stores of any size to these addresses ring it from now on, and to no others. What the kernel does not take
    /// stays an exit.
    ///
    /// # Errors
    /// The first one that it has not taken; the others are as they should be.
    pub fn ring_at(&self, addresses: &[u64]) -> Result<(), KvmError> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places.drain(..) {
            // It fails only if it is not there.
            let _ = self.vm.unregister_ioevent(&self.event, &IoEventAddress::Mmio(place), NoDatamatch);
        }
        let mut result = Ok(());
        for &address in addresses {
            match self.vm.register_ioevent(&self.event, &IoEventAddress::Mmio(address), NoDatamatch) {
                Ok(()) => places.push(address),
                Err(e) => result = result.and(Err(host(e))),
            }
        }
        result.map_err(refused("connect a doorbell"))
    }
}
