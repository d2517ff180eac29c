use super::*;

/// Addresses that empty entries could be taken for.
const ODD: [u64; 7] = [0, 4, 8, u64::MAX, u64::MAX - 3, 1 << 63, 0xfff];

fn nowhere(set: &TlbSet) {
    for va in ODD {
        assert_eq!(set.jump(va), None, "{va:#x}");
    }
}

#[test]
fn many_branch_targets_are_forgotten_like_few() {
    let mut sets = TlbSets::new();
    let set = sets.el0();
    for count in [3, REMEMBERED as u64, 2 * JUMP_CACHE_ENTRIES as u64, 5] {
        let targets = || (0..count).map(|i| 0x40_0000 + 4 * i);
        for va in targets() {
            set.fill_jump(va, va + 1);
        }
        assert_eq!(set.jump(0x40_0000 + 4 * (count - 1)), Some(0x40_0000 + 4 * (count - 1) + 1));
        // One that goes and comes again is no new one for ever.
        set.forget_jumps(0x40_0000);
        set.fill_jump(0x40_0000, 1);
        set.clear_if(|tag| tag < 0x40_2000);
        assert!((0x40_0000..0x40_2000).step_by(4).all(|va| set.jump(va).is_none()));
        set.clear_jumps();
        assert!(targets().all(|va| set.jump(va).is_none()));
        assert!(set.jumps.iter().all(Jump::is_none));
    }
}

const UPPER: u64 = 0xffff_8000_0000_1000;
const LOWER: u64 = 0x1000;

/// Whether EL1's current set has the line of `va`.
fn has(sets: &mut TlbSets, va: u64) -> bool {
    sets.el1().read[TlbSet::index(va)].tag == va
}

#[test]
fn whatever_takes_a_line_away_empties_the_sites() {
    let takers: [fn(&mut TlbSet); 4] = [
        TlbSet::clear,
        TlbSet::clear_lower,
        |set| set.invalidate_range((LOWER, LOWER), None, [0; 2]),
        |set| set.forget_writes_to(0x8000),
    ];
    for take in takers {
        let mut set = empty_set();
        set.fill(LOWER, 0, false, 12, true);
        (set.site_limits[5], set.sites_used) = (4089, 1);
        take(&mut set);
        assert_eq!((set.site_limits[5], set.sites_used), (0, 0));
    }
}

#[test]
fn a_kernel_finds_its_upper_halves_again() {
    let mut sets = TlbSets::new();
    sets.switch_el1(0x1000, 5);
    sets.el1().fill(UPPER, 0, false, 12, true);
    sets.switch_el1(0x2000, 4);
    assert!(!has(&mut sets, UPPER), "another table");
    sets.el1().fill(UPPER, 0, false, 12, false);
    sets.switch_el1(0x1000, 6);
    assert!(!has(&mut sets, UPPER), "non-global, and another address space");
    sets.switch_el1(0x2000, 6);
    assert!(has(&mut sets, UPPER), "global");
    sets.switch_el1(0x1000, 5);
    assert!(has(&mut sets, UPPER), "as it was");
    sets.invalidate(&TlbiTarget::Asid(4));
    assert!(has(&mut sets, UPPER));
    sets.invalidate(&TlbiTarget::Asid(5));
    assert!(!has(&mut sets, UPPER));
    sets.switch_el1(0x2000, 5);
    assert!(has(&mut sets, UPPER), "global lines stay");
    // Many others come between.
    for table in 0..100 {
        sets.switch_el1(0x10_0000 + table, 0);
        sets.el1().fill(UPPER, 0, false, 12, false);
    }
    sets.switch_el1(0x2000, 5);
    assert!(!has(&mut sets, UPPER), "forgotten, and not another's");
}

#[test]
fn the_lower_half_is_only_that_of_now() {
    let mut sets = TlbSets::new();
    let key = |ttbr0, asid, pan| LowerKey { ttbr0, asid, pan };
    let fill = |sets: &mut TlbSets| {
        sets.el1().fill(UPPER, 0, false, 12, false);
        sets.el1().fill(LOWER, 0, false, 12, true);
    };
    sets.set_lower(key(1, 1, false));
    fill(&mut sets);
    sets.set_lower(key(1, 1, false));
    assert!(has(&mut sets, LOWER));
    for other in [key(2, 1, false), key(2, 2, false), key(2, 2, true)] {
        sets.set_lower(other);
        assert!(!has(&mut sets, LOWER), "{other:?}");
        fill(&mut sets);
    }
    // Of the upper half, what EL0 can access goes with PAN.
    sets.el1().fill(UPPER, 0, false, 12, false);
    sets.el1().note_protected(UPPER);
    sets.set_lower(key(3, 3, true));
    assert!(has(&mut sets, UPPER), "PAN is as it was");
    sets.set_lower(key(3, 3, false));
    assert!(!has(&mut sets, UPPER));
    // The change is seen also in a set that was not the current one then.
    sets.switch_el1(0x2000, 0);
    sets.set_lower(key(3, 3, false));
    sets.switch_el1(0, 0);
    sets.set_lower(key(3, 3, false));
    assert!(!has(&mut sets, LOWER));
}

#[test]
fn an_invalidation_takes_all_of_a_large_block_and_nothing_else() {
    let mut sets = TlbSets::new();
    let at = |n: u64| UPPER + (n << 30);
    let both = |sets: &mut TlbSets| {
        sets.el1().fill(at(0), 0, false, 30, false);
        sets.el1().fill(at(1) + 0x1000, 0, false, 12, false);
    };
    both(&mut sets);
    let va = |va| TlbiTarget::Va { va, asid: None };
    sets.invalidate(&va(at(1) + 0x2000));
    assert!(has(&mut sets, at(0)) && has(&mut sets, at(1) + 0x1000));
    sets.invalidate(&va(at(1) + 0x1000));
    assert!(has(&mut sets, at(0)) && !has(&mut sets, at(1) + 0x1000));
    both(&mut sets);
    sets.invalidate(&va(at(0) + 0x3000_0000));
    assert!(!has(&mut sets, at(0)) && has(&mut sets, at(1) + 0x1000));
    // More than are kept account of: each is taken by an address anywhere in it.
    for n in 0..20 {
        sets.el1().fill(at(n) + (n << 12), 0, false, 30, false);
    }
    for n in 0..20 {
        sets.invalidate(&va(at(n) + 0x2fff_0000));
        assert!(!has(&mut sets, at(n) + (n << 12)), "{n}");
    }
}

#[test]
fn an_invalidation_for_an_address_space_takes_its_lines_and_global_ones() {
    let (mut sets, upper) = (TlbSets::new(), UPPER + 0x1000);
    let va = |va, asid| TlbiTarget::Va { va, asid: Some(asid) };
    let space = |n: u16| (SpaceKey { ttbr0: n.into(), ttbr1: 0 }, n);
    let line =
        |sets: &TlbSets| sets.spaces.kept[sets.spaces.current].set.read[TlbSet::index(LOWER)].tag == LOWER;
    for n in 1..=3 {
        let (key, asid) = space(n);
        sets.switch(key, asid);
        sets.el0().fill(LOWER, 0, false, 12, n != 3);
    }
    sets.set_lower(LowerKey { ttbr0: 3, asid: 3, pan: false });
    sets.el1().fill(LOWER, 0, false, 12, true);
    sets.el1().fill(upper, 0, false, 12, false);
    sets.invalidate(&va(LOWER, 1));
    let left = [1, 2, 3].map(|n| {
        let (key, asid) = space(n);
        sets.switch(key, asid);
        line(&sets)
    });
    assert_eq!(left, [false, true, false], "its own, another's, a global one");
    assert!(has(&mut sets, LOWER) && has(&mut sets, upper));
    sets.invalidate(&va(LOWER, 3));
    sets.invalidate(&va(upper, 1));
    assert!(!has(&mut sets, LOWER) && !has(&mut sets, upper));
}

#[test]
fn a_block_of_any_size_goes_by_any_address_in_it() {
    for size in [21, 25, 30, 36, 39, 42] {
        let mut sets = TlbSets::new();
        let va = 3 << 42 | LOWER;
        sets.el1().fill(va, 0, false, size, false);
        sets.invalidate(&TlbiTarget::Va { va: 4 << 42, asid: None });
        assert!(has(&mut sets, va), "{size}: behind it");
        sets.invalidate(&TlbiTarget::Va { va: (3 << 42) + (1 << size) - 0x1000, asid: None });
        assert!(!has(&mut sets, va), "{size}");
    }
}

#[test]
fn two_branch_targets_that_meet_are_both_found_and_both_forgotten() {
    let mut sets = TlbSets::new();
    let set = sets.el1();
    let base = 0x40_0000;
    let index = TlbSet::jump_index(base);
    let meet: Vec<u64> =
        (0x40_1000..).step_by(4).filter(|va| TlbSet::jump_index(*va) == index).take(2).collect();
    let (a, b, c) = (base, meet[0], meet[1]);
    set.fill_jump(a, 1);
    set.fill_jump(b, 2);
    assert_eq!([a, b, c].map(|va| set.jump(va)), [Some(1), Some(2), None]);
    // One that has moved and comes again is in one place only.
    set.fill_jump(a, 3);
    assert_eq!([a, b].map(|va| set.jump(va)), [Some(3), Some(2)]);
    set.forget_jumps(a);
    assert_eq!([a, b].map(|va| set.jump(va)), [None, Some(2)]);
    set.fill_jump(b, 4);
    set.forget_jumps(b & !0xfff);
    assert_eq!(set.jump(b), None);
    set.fill_jump(a, 5);
    set.fill_jump(b, 6);
    set.fill_jump(c, 7);
    assert_eq!([a, b, c].map(|va| set.jump(va)), [None, Some(6), Some(7)], "the oldest has gone");
    set.clear_jumps();
    assert!([a, b, c].iter().all(|va| set.jump(*va).is_none()));
    assert!(set.jumps.iter().all(Jump::is_none));
}

#[test]
fn no_address_leads_to_an_empty_entry_of_the_jump_cache() {
    let mut sets = TlbSets::new();
    let set = sets.el1();
    nowhere(set);
    let fill = |set: &mut TlbSet| {
        for va in ODD {
            set.fill_jump(va, 0x1000);
            assert_eq!(set.jump(va), Some(0x1000));
        }
    };
    fill(set);
    set.clear_jumps();
    nowhere(set);
    fill(set);
    for va in ODD {
        set.invalidate_range((va, va), None, [0; 2]);
    }
    nowhere(set);
    fill(set);
    set.clear_if(|_| true);
    nowhere(set);
}
