//! The MMIO transport: negotiation, the status register, interrupts.

mod common;

use std::sync::Arc;

use armlet_memory::AccessSize;
use armlet_virtio::Entropy;
use armlet_virtio::spec::{feature, mmio, status};
use common::*;

fn entropy() -> Driver {
    Driver::new(Arc::new(Entropy::new().unwrap()))
}

#[test]
fn features_are_accepted_only_if_offered_and_modern() {
    let mut d = entropy();
    let offered = d.offered();
    assert_eq!(offered, feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC);
    for (taken, accepted) in [
        (offered, true),
        (feature::VERSION_1, true),
        (offered & !feature::VERSION_1, false),
        (0, false),
        (offered | 1, false),
        (offered | 1 << 63, false),
    ] {
        d.set(mmio::STATUS, 0);
        d.set(mmio::STATUS, 3);
        d.take_features(taken);
        d.set(mmio::STATUS, 11);
        assert_eq!(d.reg(mmio::STATUS), if accepted { 11 } else { 3 }, "{taken:#x}");
    }
    d.set(mmio::DEVICE_FEATURES_SEL, 2);
    assert_eq!(d.reg(mmio::DEVICE_FEATURES), 0);
}

#[test]
fn features_are_settled_by_features_ok() {
    let mut d = entropy();
    d.negotiate(feature::EVENT_IDX);
    d.take_features(0);
    d.set(mmio::STATUS, 15);
    assert_eq!(d.reg(mmio::STATUS), 15);
    d.set(mmio::STATUS, 0);
    assert_eq!(d.reg(mmio::STATUS), 0);
}

#[test]
fn a_driver_cannot_be_ready_before_its_features_are() {
    let mut d = entropy();
    d.set(mmio::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::DRIVER_OK);
    assert_eq!(d.reg(mmio::STATUS), 3);
    d.take_features(d.offered());
    // Both at once is as good as one after the other.
    d.set(mmio::STATUS, 15);
    assert_eq!(d.reg(mmio::STATUS), 15);
}

#[test]
fn status_bits_stay_until_a_reset() {
    let mut d = entropy();
    d.bring_up(0);
    d.set(mmio::STATUS, status::ACKNOWLEDGE);
    assert_eq!(d.reg(mmio::STATUS), 15);
    d.set(mmio::STATUS, 15 | status::FAILED);
    assert_eq!(d.reg(mmio::STATUS), 15 | status::FAILED);
    // Not the driver's to set.
    d.set(mmio::STATUS, 15 | status::DEVICE_NEEDS_RESET | 0xffff_ff00);
    assert_eq!(d.reg(mmio::STATUS), 15 | status::FAILED);
    d.dev.reset();
    assert_eq!(d.reg(mmio::STATUS), 0);
    assert_eq!(d.reg(mmio::QUEUE_READY), 0);
}

#[test]
fn the_line_shows_the_unacknowledged_causes() {
    let mut d = entropy();
    d.bring_up(0);
    d.add(0, &[(BUFFERS, 64, true)]);
    d.notify(0);
    d.line.wait_high();
    assert_eq!(d.reg(mmio::INTERRUPT_STATUS), 1);
    d.set(mmio::INTERRUPT_ACK, 2);
    assert!(d.line.is_high());
    d.set(mmio::INTERRUPT_ACK, 1);
    assert!(!d.line.is_high());
    assert_eq!(d.reg(mmio::INTERRUPT_STATUS), 0);

    d.wait_used(0);
    d.add(0, &[(BUFFERS, 64, true)]);
    d.notify(0);
    d.line.wait_high();
    d.set(mmio::STATUS, 0);
    assert!(!d.line.is_high(), "a reset takes the interrupt back");
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    for without in [feature::EVENT_IDX, 0] {
        let mut d = entropy();
        d.bring_up(without);
        let (avail, size) = (d.rings[0].avail, u64::from(d.rings[0].size));
        if d.event_idx {
            d.put_u16(avail + 4 + 2 * size, 5);
        } else {
            d.put_u16(avail, 1);
        }
        for done in 1..=5 {
            d.add(0, &[(BUFFERS, 8, true)]);
            d.notify(0);
            while d.u16(d.rings[0].used + 2) != done {
                std::thread::yield_now();
            }
        }
        // The device looks at the driver's wish after it has handed the chain back: have it finish that.
        d.dev.quiesce();
        assert_eq!(d.line.edges(), 0);
        d.dev.resume();
        d.put_u16(avail, 0);
        d.add(0, &[(BUFFERS, 8, true)]);
        d.notify(0);
        d.line.wait_high();
    }
}

#[test]
fn no_access_of_any_size_anywhere_does_harm() {
    let mut d = entropy();
    d.bring_up(0);
    for size in [AccessSize::Byte, AccessSize::Half, AccessSize::Word, AccessSize::Double] {
        for offset in 0..mmio::WINDOW_SIZE {
            d.dev.read(offset, size);
            if offset != mmio::STATUS {
                d.dev.write(offset, size, u64::MAX);
            }
        }
    }
    // Registers are words: other sizes read as zero.
    assert_eq!(d.dev.read(mmio::MAGIC_VALUE, AccessSize::Byte), 0);
    assert_eq!(d.dev.read(mmio::MAGIC_VALUE + 1, AccessSize::Word), 0);
    d.bring_up(0);
    d.add(0, &[(BUFFERS, 64, true)]);
    d.notify(0);
    assert_eq!(d.wait_used(0).1, 64);
}

#[test]
fn entropy_fills_what_it_says_with_bytes_that_differ() {
    let mut d = entropy();
    d.bring_up(0);
    d.add(0, &[(BUFFERS, 1, true), (BUFFERS + 0x100, 600, true)]);
    d.notify(0);
    assert_eq!(d.wait_used(0).1, 601);
    let first = d.bytes(BUFFERS + 0x100, 600);
    assert_eq!(d.bytes(BUFFERS + 0x100 + 600, 8), [0; 8], "beyond the buffer");
    d.add(0, &[(BUFFERS + 0x100, 600, true)]);
    d.notify(0);
    d.wait_used(0);
    let second = d.bytes(BUFFERS + 0x100, 600);
    assert_ne!(first, second);
    // 600 random bytes have about 230 different values; fewer than 100 is beyond any bad luck.
    let different = second.iter().collect::<std::collections::HashSet<_>>().len();
    assert!(different > 100, "{different}");

    // A giant request is answered in part; one with nothing to fill, with nothing.
    d.add(0, &[(BUFFERS, 8 << 20, true)]);
    d.add(0, &[(BUFFERS, 8, false)]);
    d.notify(0);
    assert_eq!(d.wait_used(0).1, 65536);
    assert_eq!(d.wait_used(0).1, 0);
}

#[test]
fn entropy_with_a_seed_is_the_same_in_every_run_and_there_when_the_notification_returns() {
    let run = |seed| {
        let mut d = Driver::new(Arc::new(Entropy::seeded(seed).unwrap()));
        let mut all = Vec::new();
        for _ in 0..2 {
            d.bring_up(0);
            for len in [1, 600] {
                d.add(0, &[(BUFFERS, len, true)]);
                d.notify(0);
                assert_eq!(d.poll_used(0).map(|(_, written)| written), Some(len));
                assert_ne!(d.reg(mmio::INTERRUPT_STATUS) & 1, 0);
                d.acknowledge();
                all.extend(d.bytes(BUFFERS, len as usize));
            }
            d.set(mmio::STATUS, 0);
        }
        all
    };
    let first = run(1);
    assert_eq!(first, run(1));
    assert_ne!(first, run(2));
    assert_ne!(first[1..601], first[602..], "a reset does not start it again");
}
