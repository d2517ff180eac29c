//! Getting a vCPU out of the guest.
//!
//! What ends `KVM_RUN` is the immediate-exit flag: who kicks sets it first, and a vCPU that enters afterwards comes out
//! at once. The signal is for one that is inside already, and only then is it sent. The vCPU announces that it is about to
//! enter and *then* enters (the kernel looks at the flag); who kicks sets the flag and *then* looks for the
//! announcement; so one of the two sees the other.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use armlet_engine::Kick;
use kvm_ioctls::VcpuFd;

use crate::system::{self, RunPage};

/// One vCPU's.
pub struct KvmKick {
    page: RunPage,
    thread: i32,
    inside: AtomicBool,
}

impl KvmKick {
    /// For the vCPU that the calling thread will run.
    pub fn new(vcpu: &VcpuFd) -> io::Result<Self> {
        system::prepare_signal();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        Ok(Self { page: RunPage::map(vcpu)?, thread, inside: AtomicBool::new(false) })
    }

    /// Takes the kicks so far; what they were for is to be looked at afterwards.
    pub fn take(&self) {
        self.page.immediate_exit().swap(0, Ordering::AcqRel);
    }

    /// Has the next `KVM_RUN` return at once.
    pub fn set(&self) {
        self.page.immediate_exit().store(1, Ordering::SeqCst);
    }

    /// Runs `enter`, which is `KVM_RUN`.
    pub fn around<R>(&self, enter: impl FnOnce() -> R) -> R {
        self.inside.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let result = enter();
        self.inside.store(false, Ordering::Release);
        result
    }
}

impl Kick for KvmKick {
    fn kick(&self) {
        self.set();
        fence(Ordering::SeqCst);
        if self.inside.load(Ordering::Relaxed) {
            system::interrupt(self.thread);
        }
    }
}
