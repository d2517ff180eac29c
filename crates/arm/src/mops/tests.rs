//! Copies and sets against what they have to come to, on memory that does a little at a time.

use super::*;
use crate::model::CpuModel;

/// Memory from address 0 on; it does at most `step` bytes at a time, and nothing at `hole`.
struct Bench {
    state: CpuState,
    bytes: Vec<u8>,
    step: u64,
    hole: Option<u64>,
}

impl Bench {
    fn new(step: u64) -> Self {
        let mut state = CpuModel::by_name("max").unwrap().reset_state(0, 0);
        state.set_pstate(Pstate::NZCV.with_el(1, true));
        Self { state, bytes: (0..=255).cycle().take(4096).collect(), step, hole: None }
    }

    /// The whole sequence, whose first instruction is `word`.
    fn run(&mut self, word: u32, [d, s, n]: [u64; 3]) {
        (self.state.x[0], self.state.x[1], self.state.x[2]) = (d, s, n);
        let stage = if word >> 22 & 3 == 3 { 1 << 14 } else { 1 << 22 };
        for i in 0..3 {
            while execute(self, word + i * stage, 1).unwrap() == Progress::More {}
        }
        assert_eq!(self.state.x[2], 0);
    }
}

impl Machine for Bench {
    type Trouble = u64;

    fn state(&mut self) -> &mut CpuState {
        &mut self.state
    }

    fn copy(&mut self, to: u64, from: u64, bytes: u64, manner: Manner) -> Result<u64, u64> {
        let n = bytes.min(self.step);
        let skipped = if manner.backward { bytes - n } else { 0 };
        let (to, from) = (to + skipped, from + skipped);
        if let Some(hole) = self.hole.filter(|hole| (to..to + n).contains(hole)) {
            return Err(hole);
        }
        self.bytes.copy_within(from as usize..(from + n) as usize, to as usize);
        Ok(n)
    }

    fn set(&mut self, to: u64, value: u8, bytes: u64, _: Manner) -> Result<u64, u64> {
        let n = bytes.min(self.step);
        if let Some(hole) = self.hole.filter(|hole| (to..to + n).contains(hole)) {
            return Err(hole);
        }
        self.bytes[to as usize..(to + n) as usize].fill(value);
        Ok(n)
    }
}

/// CPYP [x0]!, [x1]!, x2!; CPYFP; SETP [x0]!, x2!, x1.
const CPYP: u32 = 0x1d01_0440;
const CPYFP: u32 = 0x1901_0440;
const SETP: u32 = 0x19c1_0440;

#[test]
fn copies_of_overlapping_areas_are_as_of_separate_ones() {
    for (d, s) in [(100, 90), (90, 100), (100, 100), (1000, 10), (10, 1000)] {
        for step in [1, 3, 1000] {
            for n in [0, 1, 7, 200] {
                let mut bench = Bench::new(step);
                let before = bench.bytes.clone();
                bench.run(CPYP, [d, s, n]);
                let (d, s, n) = (d as usize, s as usize, n as usize);
                assert_eq!(bench.bytes[d..d + n], before[s..s + n], "{d} {s} {n} by {step}");
                assert_eq!(bench.bytes[..d], before[..d]);
                assert_eq!(bench.bytes[d + n..], before[d + n..]);
                assert!(!bench.state.pstate.intersects(Pstate::NZCV));
                let backward = s < d && s + n > d;
                let moved = if backward { 0 } else { n };
                assert_eq!(bench.state.x[..2], [(d + moved) as u64, (s + moved) as u64]);
            }
        }
    }
}

#[test]
fn sets_and_forward_copies() {
    let mut bench = Bench::new(5);
    bench.run(SETP, [50, 0x1234, 33]);
    assert!(bench.bytes[50..83].iter().all(|b| *b == 0x34));
    assert_eq!((bench.bytes[49], bench.bytes[83]), (49, 83));
    bench.run(CPYFP, [300, 50, 40]);
    assert_eq!(bench.bytes[300..340], bench.bytes[50..90]);
    assert_eq!(bench.state.x[..2], [340, 90]);
}

#[test]
fn registers_tell_how_far_it_came() {
    let mut bench = Bench::new(4);
    bench.hole = Some(118);
    (bench.state.x[0], bench.state.x[1], bench.state.x[2]) = (100, 1000, 30);
    execute(&mut bench, CPYFP, 1 << 20).unwrap();
    let main = CPYFP + (1 << 22);
    assert_eq!(execute(&mut bench, main, 1 << 20), Err(Stop::Memory(118)));
    assert_eq!(bench.state.x[..3], [130, 1030, 14u64.wrapping_neg()], "16 bytes are done");
    bench.hole = None;
    assert_eq!(execute(&mut bench, main, 1 << 20), Ok(Progress::Done));
    let source: Vec<u8> = (1000..1030).map(|i| i as u8).collect();
    assert_eq!(bench.bytes[100..130], source);
}

#[test]
fn sizes_saturate() {
    let mut bench = Bench::new(1);
    bench.state.x[2] = u64::MAX;
    execute(&mut bench, CPYP, 1).unwrap();
    assert_eq!(bench.state.x[2].wrapping_neg(), (1 << 55) - 1);
    bench.state.x[2] = u64::MAX;
    execute(&mut bench, SETP, 1).unwrap();
    assert_eq!(bench.state.x[2].wrapping_neg(), (1 << 63) - 1);
}

#[test]
fn a_sequence_of_the_other_option_is_refused() {
    for (word, iss) in [
        (CPYP + (1 << 22), 3 << 16 | 1 << 5 | 2),
        (CPYP + (2 << 22), 7 << 16 | 1 << 5 | 2),
        (CPYFP + (1 << 22) + (15 << 12), 15 << 19 | 3 << 16 | 1 << 5 | 2),
        (SETP + (1 << 14), 1 << 24 | 3 << 16 | 1 << 5 | 2),
        (SETP + (2 << 14), 1 << 24 | 7 << 16 | 1 << 5 | 2),
    ] {
        let mut bench = Bench::new(1);
        bench.state.pstate = Pstate::C.with_el(1, true);
        let refused = execute(&mut bench, word, 1);
        assert_eq!(refused, Err(Stop::Exception(Exception::memory_operation(iss))), "{word:#x}");
    }
}

#[test]
fn undefined_where_registers_overlap_or_el1_says_so() {
    assert!(is_defined(CPYP) && is_defined(SETP));
    // d = s, d = n, s = n, and register 31 in each role; it can be the source of a set.
    for word in
        [CPYP & !(31 << 16), CPYP & !(31 << 5), CPYP & !(31 << 16) | 2 << 16, CPYP | 31, CPYP | 31 << 5]
    {
        assert!(!is_defined(word), "{word:#x}");
    }
    assert!(!is_defined(CPYP | 31 << 16) && is_defined(SETP | 31 << 16));
    let undefined = Err(Stop::Exception(Exception::undefined()));
    let mut bench = Bench::new(1);
    bench.state.set_pstate(Pstate::empty().with_el(0, false));
    assert_eq!(execute(&mut bench, CPYP, 1), undefined);
    bench.state.sys[SysReg::SctlrEl1] |= sctlr::MSC_EN;
    assert_eq!(execute(&mut bench, CPYP, 1), Ok(Progress::Done));
}
