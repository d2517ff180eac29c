//! Saving and restoring what every transport has.
//!
//! A quiet device has no request half done but a console's, which says how far it has come; so what there is to save is
//! the registers and the place in each queue.

use armlet_saved::{SavedQueue, SavedVirtio, Unfit};

use crate::queue::{QueueLayout, QueuePosition};
use crate::registers::{Phase, QueueRegisters, Registers, State};
use crate::spec::{feature, interrupt, status};

const STATUS: u32 =
    status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK | status::FAILED;

impl Registers {
    /// See [`Transport::save`](crate::Transport::save).
    pub(crate) fn save(&self) -> SavedVirtio {
        let state = self.lock();
        let positions = self.device.positions().into_iter().chain(std::iter::repeat(None));
        let queue = |(queue, position): (&QueueRegisters, Option<QueuePosition>)| {
            let QueueLayout { size, descriptors, available, used } = queue.layout;
            let QueuePosition { next_available, next_used, done } = position.unwrap_or_default();
            let ready = queue.ready;
            SavedQueue { size, descriptors, available, used, ready, next_available, next_used, done }
        };
        let mut saved = SavedVirtio {
            device_id: self.device.device_id(),
            offered: self.offered(),
            status: state.status,
            device_features_sel: state.device_features_sel,
            driver_features_sel: state.driver_features_sel,
            driver_features: state.driver_features,
            queue_sel: state.queue_sel,
            queues: state.queues.iter().zip(positions).map(queue).collect(),
            causes: self.link.causes(),
            generation: self.link.generation(),
            needs_reset: self.link.needs_reset(),
            ..SavedVirtio::default()
        };
        self.device.save(&mut saved);
        saved
    }

    /// See [`Transport::restore`](crate::Transport::restore). The device must be quiet.
    pub(crate) fn restore(&self, saved: &SavedVirtio) -> Result<(), Unfit> {
        let phase = self.check(saved)?;
        self.device.restore(saved)?;
        let mut state = self.lock();
        let queue = |queue: &SavedQueue| QueueRegisters {
            layout: QueueLayout {
                size: queue.size,
                descriptors: queue.descriptors,
                available: queue.available,
                used: queue.used,
            },
            ready: queue.ready,
        };
        *state = State {
            phase,
            status: saved.status,
            device_features_sel: saved.device_features_sel,
            driver_features_sel: saved.driver_features_sel,
            driver_features: saved.driver_features,
            queue_sel: saved.queue_sel,
            queues: saved.queues.iter().map(queue).collect(),
        };
        self.link.restore(saved);
        // One that waits for its reset does nothing until then.
        if phase == Phase::Live && !saved.needs_reset {
            let queues = self.make_queues(&state).map_err(|e| self.unfit(&e.to_string()))?;
            let place = |queue: &SavedQueue| QueuePosition {
                next_available: queue.next_available,
                next_used: queue.next_used,
                done: queue.done,
            };
            let placed = queues.into_iter().zip(&saved.queues);
            let placed = placed.map(|(queue, saved)| queue.map(|queue| queue.at(place(saved))));
            self.activate(&state, placed.collect());
        }
        Ok(())
    }

    pub(crate) fn unfit(&self, what: &str) -> Unfit {
        Unfit(format!("{}: {what}", self.device.name()))
    }

    pub(crate) fn check(&self, saved: &SavedVirtio) -> Result<Phase, Unfit> {
        let fits = |fits, what: &str| if fits { Ok(()) } else { Err(self.unfit(what)) };
        let (then, now) = (saved.device_id, self.device.device_id());
        fits(then == now, &format!("it was a virtio device {then} and is a {now}"))?;
        let (then, now) = (saved.offered, self.offered());
        fits(then == now, &format!("it offered the features {then:#x} and offers {now:#x}"))?;
        fits(saved.queues.len() == self.device.queue_sizes().len(), "it had other queues")?;
        let causes = interrupt::USED_BUFFER | interrupt::CONFIG_CHANGE;
        fits(saved.status & !STATUS == 0 && saved.causes & !causes == 0, "its status cannot be as it was")?;
        let features_ok = saved.status & status::FEATURES_OK != 0;
        let taken = saved.driver_features;
        let negotiated = taken & !self.offered() == 0 && taken & feature::VERSION_1 != 0;
        fits(!features_ok || negotiated, "its features cannot be as they were")?;
        match saved.status & status::DRIVER_OK != 0 {
            true if features_ok => Ok(Phase::Live),
            true => Err(self.unfit("its status cannot be as it was")),
            false if features_ok => Ok(Phase::FeaturesOk),
            false => Ok(Phase::Negotiating),
        }
    }
}
