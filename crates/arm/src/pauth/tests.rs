//! The rules of signing and authentication; codes themselves are tested beside the ciphers.

use super::*;
use crate::spec::tcr;

const KEY: (u64, u64) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);

struct Bench {
    model: CpuModel,
    state: CpuState,
}

impl Bench {
    fn new(cpu: &str, tcr: u64) -> Self {
        let model = CpuModel::parse(cpu).unwrap();
        let mut state = model.reset_state(0, 0);
        state.sys[SysReg::TcrEl1] = tcr;
        state.sys[SysReg::SctlrEl1] |= sctlr::EN_IA | sctlr::EN_IB | sctlr::EN_DA | sctlr::EN_DB;
        for (i, key) in KEYS.into_iter().enumerate() {
            let [lo, hi] = key.registers();
            (state.sys[lo], state.sys[hi]) = (KEY.1 + i as u64, KEY.0);
        }
        Self { model, state }
    }

    fn perform(&self, operation: Operation, pointer: u64, modifier: u64) -> Result<u64, Exception> {
        let context = Context::new(&self.state, &self.model);
        perform(&self.state, &self.model, &context, operation, (pointer, modifier))
    }

    fn sign(&self, key: Key, pointer: u64) -> u64 {
        self.perform(Operation::Sign(key), pointer, 77).unwrap()
    }

    fn authenticate(&self, key: Key, pointer: u64) -> Result<u64, Exception> {
        self.perform(Operation::Authenticate(key), pointer, 77)
    }
}

/// Halves of 48 bits, without tags.
const TCR_48: u64 = 16 | 16 << 16 | 2 << 30;
const LOWER: u64 = 0x0000_7fff_1234_5678;
const UPPER: u64 = 0xffff_8000_1234_5678;

#[test]
fn operations_survive_packing() {
    for bits in 0..15 {
        assert_eq!(Operation::from_bits(bits).bits(), bits);
    }
}

#[test]
fn what_is_signed_is_authenticated_by_the_same_key_only() {
    for algorithm in ["impdef", "qarma5", "qarma3"] {
        for tcr in [TCR_48, TCR_48 | tcr::TBI0 | tcr::TBI1, 25 | 25 << 16 | 2 << 30] {
            let bench = Bench::new(&format!("max,pauth={algorithm}"), tcr);
            for pointer in [LOWER & 0x7f_ffff_ffff, UPPER | 0xffff_ff80_0000_0000] {
                for key in KEYS {
                    let signed = bench.sign(key, pointer);
                    assert_ne!(signed, pointer);
                    assert_eq!(signed >> 55 & 1, pointer >> 55 & 1);
                    assert_eq!(bench.authenticate(key, signed), Ok(pointer));
                    let data = key.is_data();
                    assert_eq!(bench.perform(Operation::Strip { data }, signed, 0), Ok(pointer));
                    for other in KEYS.into_iter().filter(|other| *other != key) {
                        let failed = bench.authenticate(other, signed);
                        assert_eq!(failed, Err(Exception::pac_fail(other.is_data(), other.is_b())));
                    }
                }
            }
        }
    }
}

#[test]
fn tags_are_kept_where_the_top_byte_is_ignored() {
    let bench = Bench::new("max", TCR_48 | tcr::TBI0 | tcr::TBI1 | tcr::TBID0 | tcr::TBID1);
    let tagged = LOWER | 0xa5 << 56;
    let signed = bench.sign(Key::Da, tagged);
    assert_eq!(signed >> 56, 0xa5);
    assert_eq!(bench.authenticate(Key::Da, signed), Ok(tagged));
    // TBID: for instructions the top byte is part of the address, and of the code.
    let signed = bench.sign(Key::Ia, LOWER);
    assert_eq!(bench.authenticate(Key::Ia, signed), Ok(LOWER));
    assert_ne!(bench.sign(Key::Ia, LOWER + 4) >> 56, 0, "eight bits of a code are seldom zero");
}

#[test]
fn a_key_that_is_not_enabled_does_nothing() {
    let mut bench = Bench::new("max", TCR_48);
    bench.state.sys[SysReg::SctlrEl1] &= !sctlr::EN_IB;
    assert_eq!(bench.sign(Key::Ib, LOWER), LOWER);
    assert_eq!(bench.authenticate(Key::Ib, LOWER ^ 1 << 50), Ok(LOWER ^ 1 << 50));
    assert_ne!(bench.sign(Key::Ia, LOWER), LOWER);
}

#[test]
fn what_cannot_be_extended_gets_a_code_that_fails() {
    let bench = Bench::new("max", TCR_48);
    let signed = bench.sign(Key::Ia, LOWER | 1 << 50);
    assert!(bench.authenticate(Key::Ia, signed).is_err());
}

#[test]
fn generic_codes_fill_the_upper_half() {
    for algorithm in ["impdef", "qarma5", "qarma3"] {
        let mut bench = Bench::new(&format!("max,pauth={algorithm}"), TCR_48);
        bench.state.sys[SysReg::ApgaKeyHiEl1] = 5;
        let code = bench.perform(Operation::Generic, 1, 2).unwrap();
        assert!(code != 0 && code & 0xffff_ffff == 0);
        assert_ne!(bench.perform(Operation::Generic, 2, 2).unwrap(), code);
        assert_ne!(bench.perform(Operation::Generic, 1, 3).unwrap(), code);
    }
}

/// Every single bit of pointer, modifier and key changes about half of the code.
#[test]
fn the_fast_code_depends_on_every_bit() {
    let of = |n: usize, v: [u64; 4]| {
        let mut v = v;
        v[n / 64] ^= 1 << (n % 64);
        fast_code(v[0], v[1], (v[2], v[3]))
    };
    let base = [LOWER, UPPER, KEY.0, KEY.1];
    for n in 0..256 {
        let changed = (of(n, base) ^ fast_code(base[0], base[1], KEY)).count_ones();
        assert!((12..53).contains(&changed), "bit {n}: {changed}");
    }
}

#[test]
fn architected_codes_are_those_of_another_implementation() {
    let rows = include_str!("answers.txt").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in rows {
        let mut words = line.split(' ');
        let algorithm = words.next().unwrap();
        let n: Vec<u64> = words.map(|word| u64::from_str_radix(word, 16).unwrap()).collect();
        let mut bench = Bench::new(&format!("max,pauth={algorithm}"), n[0]);
        let keys = [
            (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210),
            (0x84be_85ce_9804_e94b, 0xec28_02d4_e0a4_88e9),
            (0x1111_1111_1111_1111, 0x2222_2222_2222_2222),
            (u64::MAX, 1),
        ];
        for (key, (low, high)) in KEYS.into_iter().zip(keys) {
            let [lo, hi] = key.registers();
            (bench.state.sys[lo], bench.state.sys[hi]) = (low, high);
        }
        bench.state.sys[SysReg::ApgaKeyLoEl1] = 0x0f1e_2d3c_4b5a_6978;
        bench.state.sys[SysReg::ApgaKeyHiEl1] = 0x8796_a5b4_c3d2_e1f0;
        let (pointer, modifier) = (n[1], n[2]);
        let perform = |operation, pointer, modifier| bench.perform(operation, pointer, modifier).unwrap();
        let [a, c] = [Key::Ia, Key::Da].map(|key| perform(Operation::Sign(key), pointer, modifier));
        let all = [
            a,
            perform(Operation::Sign(Key::Ib), pointer, modifier),
            c,
            perform(Operation::Sign(Key::Db), pointer, 0),
            perform(Operation::Generic, pointer, modifier),
            perform(Operation::Strip { data: false }, a, 0),
            perform(Operation::Strip { data: true }, c, 0),
        ];
        assert_eq!(all[..], n[3..], "{line}: {all:x?}");
        count += 1;
    }
    assert_eq!(count, 60);
}
