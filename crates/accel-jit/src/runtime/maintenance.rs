//! Maintenance that one vCPU asks of the others: TLB and instruction cache invalidation.
//!
//! The issuer posts to each vCPU's mailbox and gets its attention. Its DSB waits until every vCPU that is
//! executing guest code has handled its mailbox; one that is not will do so before it executes again.
//! While waiting the issuer handles its own mailbox, so two issuers cannot wait for each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use armlet_arm::sysop::TlbiTarget;
use armlet_engine::Kick;

/// Requests that wait at most. A vCPU that is switched off, or sleeps for long, does not look at its mailbox meanwhile.
const MAX_WAITING: usize = 1024;

/// One request.
#[derive(Clone, Copy, Debug)]
pub enum Maintenance {
    /// TLB entries.
    Tlb(TlbiTarget),
    /// Code from the physical page with this number.
    CodePage(u64),
    /// All code.
    AllCode,
    /// Write permission for the physical page with this number (strict tracking of code).
    Protect(u64),
}

/// The face that a vCPU shows to the others.
#[derive(Default)]
pub struct Remote {
    mailbox: Mutex<Vec<Maintenance>>,
    posted: AtomicU64,
    handled: AtomicU64,
    executing: AtomicBool,
    kick: OnceLock<Arc<dyn Kick>>,
}

impl Remote {
    /// Sets how to get the vCPU's attention.
    pub fn set_kick(&self, kick: Arc<dyn Kick>) {
        let _ = self.kick.set(kick);
    }

    fn post(&self, m: Maintenance) {
        {
            let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
            mailbox.push(m);
            if mailbox.len() > MAX_WAITING {
                gather(&mut mailbox);
            }
            self.posted.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(k) = self.kick.get() {
            k.kick();
        }
    }

    /// True if there is something to handle.
    pub fn pending(&self) -> bool {
        self.posted.load(Ordering::Acquire) != self.handled.load(Ordering::Relaxed)
    }

    /// Announces that guest code will execute, until the result is dropped, also by a panic: others would wait for
    /// ever. The mailbox must be handled after that and before.
    pub fn begin(self: &Arc<Self>) -> Executing {
        self.executing.store(true, Ordering::SeqCst);
        Executing(Arc::clone(self))
    }

    /// Takes what was posted. Call [`Remote::acknowledge`] with the second value when it has been done.
    pub fn take(&self) -> (Vec<Maintenance>, u64) {
        let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut *mailbox), self.posted.load(Ordering::SeqCst))
    }

    /// Tells issuers that everything up to `count` has been done.
    pub fn acknowledge(&self, count: u64) {
        self.handled.store(count, Ordering::Release);
    }
}

/// Few requests in place of many, which ask for more than those did.
fn gather(mailbox: &mut Vec<Maintenance>) {
    let code = mailbox.iter().any(|m| matches!(m, Maintenance::CodePage(_) | Maintenance::AllCode));
    mailbox.clear();
    // Entries of the TLB that are made anew ask for write permission anew.
    mailbox.push(Maintenance::Tlb(TlbiTarget::All));
    mailbox.extend(code.then_some(Maintenance::AllCode));
}

/// While this exists, its vCPU may execute guest code.
pub struct Executing(Arc<Remote>);

impl Drop for Executing {
    fn drop(&mut self) {
        self.0.executing.store(false, Ordering::SeqCst);
    }
}

/// All vCPUs of a machine.
#[derive(Default)]
pub struct Remotes {
    all: RwLock<Vec<Arc<Remote>>>,
}

impl Remotes {
    /// Adds a vCPU.
    pub fn add(&self, r: Arc<Remote>) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).push(r);
    }

    /// Removes a vCPU.
    pub fn remove(&self, r: &Arc<Remote>) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).retain(|x| !Arc::ptr_eq(x, r));
    }

    /// Posts to all but `me`.
    pub fn post(&self, me: &Arc<Remote>, m: Maintenance) {
        for r in self.all.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if !Arc::ptr_eq(r, me) {
                r.post(m);
            }
        }
    }

    /// Waits until all but `me` have handled what was posted before, running `meanwhile` again and again.
    pub fn wait(&self, me: &Arc<Remote>, mut meanwhile: impl FnMut()) {
        let others: Vec<(Arc<Remote>, u64)> = {
            let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
            let others = all.iter().filter(|r| !Arc::ptr_eq(r, me));
            others.map(|r| (r.clone(), r.posted.load(Ordering::SeqCst))).collect()
        };
        for (r, count) in others {
            let mut spins = 0u32;
            while r.executing.load(Ordering::SeqCst) && r.handled.load(Ordering::Acquire) < count {
                meanwhile();
                spins += 1;
                if spins < 64 {
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_that_sleeps_for_long_is_not_buried_in_requests() {
        let (all, me, other) = (Remotes::default(), Arc::<Remote>::default(), Arc::<Remote>::default());
        all.add(me.clone());
        all.add(other.clone());
        let page = |va| Maintenance::Tlb(TlbiTarget::Va { va, asid: None });
        (0..MAX_WAITING as u64).for_each(|va| all.post(&me, page(va)));
        let (few, count) = other.take();
        assert_eq!((few.len(), count), (MAX_WAITING, MAX_WAITING as u64));
        other.acknowledge(count);
        for round in 0..20 {
            (0..MAX_WAITING as u64).for_each(|va| all.post(&me, page(va)));
            if round % 2 == 1 {
                all.post(&me, Maintenance::CodePage(7));
            }
        }
        let (many, count) = other.take();
        assert!(many.len() <= MAX_WAITING);
        assert!(many.iter().any(|m| matches!(m, Maintenance::Tlb(TlbiTarget::All))));
        assert!(many.iter().any(|m| matches!(m, Maintenance::AllCode)));
        assert!(other.pending());
        other.acknowledge(count);
        assert!(!other.pending());
    }

    #[test]
    fn nobody_waits_for_a_vcpu_that_panicked() {
        let (all, me, other) = (Remotes::default(), Arc::<Remote>::default(), Arc::<Remote>::default());
        all.add(me.clone());
        all.add(other.clone());
        let theirs = other.clone();
        let thread = std::thread::spawn(move || {
            let _executing = theirs.begin();
            panic!("test: a vCPU's thread");
        });
        assert!(thread.join().is_err());
        all.post(&me, Maintenance::AllCode);
        all.wait(&me, || panic!("it waits for a thread that is gone"));
    }
}
