//! Random test cases: an instruction, or many, and the state that they run on.

mod fill;
mod sequence;
mod state;

use armlet_accel_jit::ir::interp::{Exit, Machine, SystemOp};
use armlet_accel_jit::ir::{Inst, Mem, Raise};
use armlet_arm::{Class, CpuState, Enc, Feature, FeatureSet};

use crate::interp::{self, Fault};
use crate::program::{self, Layout};
use crate::random::Random;
use crate::record::Record;
use crate::{Case, Place};

pub use state::fpcr_mask;

/// How an encoding can be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// As a program's instruction, against the independent implementation.
    User,
    /// As a program's instruction, our executors against each other: the independent implementation lacks it.
    Own,
    /// As a program's instruction, against the independent implementation, but not by the interpreter.
    Jit,
    /// Not as a program's instruction: bare-metal guests do it.
    System,
    /// No CPU model has it: it must be UNDEFINED.
    Absent,
}

/// Features that the oracle does not have.
const ORACLE_LACKS: [Feature; 1] = [Feature::Lrcpc3];

/// How `e` can be tested on a CPU with these features.
pub fn reach(features: &FeatureSet, e: Enc) -> Reach {
    if !features.has(e.feature()) {
        return Reach::Absent;
    }
    match e.class() {
        // What it does is the operating system's.
        Class::Exception if e.mnemonic() == "SVC" => Reach::System,
        // Waits for events end at once; the oracle does not wait for interrupts.
        _ if matches!(e, Enc::WFI_HI_hints | Enc::WFIT_only_systeminstrswithreg) => Reach::Own,
        Class::Memcms => Reach::Jit,
        _ if ORACLE_LACKS.contains(&e.feature()) => Reach::Own,
        _ => Reach::User,
    }
}

/// What to generate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The model's features.
    pub features: FeatureSet,
    /// The encodings to test as single instructions.
    pub encodings: Vec<Enc>,
    /// The run's seed.
    pub seed: u64,
}

/// Instructions to run on several states.
#[derive(Clone, Debug)]
struct Word {
    enc: Enc,
    /// The one under test is the last.
    body: Vec<u32>,
}

impl Word {
    fn under_test(&self) -> u32 {
        self.body.last().copied().unwrap_or(0)
    }
}

/// A number that stands for an encoding's name, whatever else the table holds.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

impl Plan {
    /// All encodings whose class or name contains one of the parts of `filter`, which commas separate (without
    /// regard to case).
    pub fn new(features: FeatureSet, seed: u64, filter: Option<&str>) -> Self {
        let wanted: Vec<String> =
            filter.iter().flat_map(|f| f.split(',')).map(str::to_ascii_lowercase).collect();
        let encodings = Enc::all().iter().copied().filter(|e| {
            let texts = [e.class().name(), e.name()].map(str::to_ascii_lowercase);
            wanted.is_empty() || wanted.iter().any(|w| texts.iter().any(|t| t.contains(w.as_str())))
        });
        Self { features, encodings: encodings.collect(), seed }
    }

    /// How `e` can be tested here.
    pub fn reach(&self, e: Enc) -> Reach {
        reach(&self.features, e)
    }

    /// `states` cases of instruction number `number` of encoding `enc`, placed by `layout`. Empty if its fields or
    /// the states leave nothing that can be tested.
    pub fn cases(&self, enc: Enc, number: u64, states: u64, layout: &mut Layout) -> Vec<Case> {
        let mut r = Random::new(&[self.seed, hash(enc.name()), number]);
        let code = layout.next_code();
        // Some choices of fields cannot be tested; the next ones are as good.
        let mut out = Vec::new();
        for attempt in 0..64 {
            let Some(word) = fill::word(&mut r, &self.features, enc) else { continue };
            // One UNDEFINED instruction is like the other.
            if attempt < 48 && !r.one_in(6) && self.is_undefined(code, word.under_test()) {
                continue;
            }
            let Some(case) = self.case(&mut r, &word, Place { code, record: layout.next_record() }) else {
                continue;
            };
            layout.take_code(word.body.len());
            layout.place(code);
            out.push(case);
            for _ in 1..states {
                let place = Place { code, record: layout.next_record() };
                if let Some(case) = (0..8).find_map(|_| self.case(&mut r, &word, place)) {
                    layout.place(code);
                    out.push(case);
                }
            }
            break;
        }
        for (state, case) in out.iter_mut().enumerate() {
            (case.number, case.state) = (number, state as u64);
        }
        out
    }

    /// `states` cases of a word that is allocated to nothing.
    pub fn unallocated(&self, number: u64, layout: &mut Layout) -> Vec<Case> {
        let mut r = Random::new(&[self.seed, hash("unallocated"), number]);
        let word = std::iter::repeat_with(|| r.next() as u32).find(|&w| armlet_arm::decode(w).is_none());
        let code = layout.next_code();
        layout.take_code(1);
        let record = state::random(&mut r, &self.features);
        let body = vec![word.unwrap_or(0)];
        let enc = Enc::all()[0];
        vec![Case { enc, number, state: 0, body, place: layout.place(code), record }]
    }

    fn is_undefined(&self, code: u64, word: u32) -> bool {
        let mut cpu = CpuState::new(0);
        cpu.pc = code;
        let block = interp::lifted(&self.features, &cpu, word);
        matches!(block.insts.last(), Some(Inst::Raise(Raise::Undefined)))
    }

    fn case(&self, r: &mut Random, word: &Word, place: Place) -> Option<Case> {
        let mut record = state::random(r, &self.features);
        let w = word.under_test();
        if let Some(bits) = fill::float_bits(word.enc, w)
            && !r.one_in(4)
        {
            state::floats(r, &mut record, w, bits);
        }
        match word.enc.class() {
            Class::BranchReg if word.enc.mnemonic() != "ERET" => {
                // RETAA and RETAB have no field for it.
                let n = if word.enc.mask() >> 5 & 31 == 0 { (w >> 5 & 31) as usize } else { 30 };
                if n == 31 {
                    return None;
                }
                record.x[n] = place.code + 4 * word.body.len() as u64 + program::TAKEN_OFFSET;
            }
            Class::LdstPac => {
                let n = (w >> 5 & 31) as usize;
                let offset = (w << 9) as i32 >> 31 << 9 | (w >> 12 & 0x1ff) as i32;
                let wanted = place.memory() + 256 + r.below(32) * 8;
                record.x[n] = wanted.wrapping_sub((i64::from(offset) * 8) as u64);
                if n == 31 && !record.x[31].is_multiple_of(16) {
                    return None;
                }
            }
            Class::Dp1src | Class::Dp2src | Class::Hints => state::pointers(r, &mut record, place),
            Class::Memcms => state::for_copy(r, &mut record, w, place),
            Class::Systeminstrs if w & 31 == 31 => return None,
            Class::Systeminstrs => record.x[(w & 31) as usize] = place.memory() + r.below(1024),
            Class::Systemmove => {
                // Bits that some versions of the oracle keep and others do not.
                let known =
                    if w >> 5 & 7 == 1 { 0x0800_009f } else { state::fpcr_mask(&self.features).into() };
                let fp = w >> 8 & 0xff == 0x44;
                record.x[(w & 31) as usize] &= if fp { known } else { u64::MAX };
            }
            _ => {}
        }
        if self.reach(word.enc) != Reach::Absent && fill::is_memory(word.enc.class()) {
            self.aim(r, &mut record, word, place)?;
        }
        let case = Case { enc: word.enc, number: 0, state: 0, body: word.body.clone(), place, record };
        self.is_sound(&case).then_some(case)
    }

    /// Sets the base register so that the access lands in the case's memory, or at the edges.
    fn aim(&self, r: &mut Random, record: &mut Record, word: &Word, place: Place) -> Option<()> {
        let class = word.enc.class();
        if class == Class::Loadlit {
            return Some(());
        }
        let w = word.under_test();
        let (n, m) = ((w >> 5 & 31) as usize, (w >> 16 & 31) as usize);
        if class == Class::LdstRegoff && m != 31 && m != n {
            record.x[m] = (r.below(64) as i64 - 32) as u64;
            if r.one_in(4) {
                record.x[m] = record.x[m].wrapping_neg() & 0xffff_ffff | r.next() << 32;
            }
        }
        let aligned = fill::needs_alignment(class) || r.one_in(2);
        let checked = self.oracle_aligns_alike();
        let step = if aligned && !(checked && r.one_in(6)) { 16 } else { 1 };
        let wanted = if r.one_in(24) {
            let edge = r.of(&[program::EDGE_READ, program::EDGE_WRITE]);
            edge + program::PAGE - r.below(48 / step + 1) * step
        } else if step == 1 && r.one_in(3) {
            place.memory() + 512 - r.below(64) // Perhaps across the end of a page.
        } else {
            place.memory() + 256 + r.below(256 / step) * step
        };
        record.x[n] = 0;
        let mut cpu = record.to_cpu(place.code);
        // A store-exclusive accesses nothing without the load before it, whose address is the same.
        let first = word.body.first().copied().unwrap_or(w);
        let Exit::Fault(Some(from)) = interp::step(&self.features, &mut cpu, &mut Probe, first) else {
            // UNDEFINED, or nothing is accessed at all.
            return (n != 31).then_some(());
        };
        let tag = if r.one_in(8) { r.next() << 56 } else { 0 };
        record.x[n] = wanted.wrapping_sub(from).wrapping_add(tag);
        if n == 31 && !record.x[31].is_multiple_of(16) {
            return None; // Whether SP's alignment is checked is the operating system's choice.
        }
        Some(())
    }

    /// The oracle's CPU with everything has FEAT_LSE2; ours may not have it yet.
    fn oracle_aligns_alike(&self) -> bool {
        self.features.has(Feature::Lse2) || !self.features.has(Feature::Lrcpc2)
    }

    /// False for a case that reaches memory which is neither its own nor surely unmapped.
    fn is_sound(&self, case: &Case) -> bool {
        if case.enc.class() == Class::Memcms {
            return true; // By its addresses; the interpreter leaves it to the runtime.
        }
        let outcome = interp::execute(&self.features, case, &[], None);
        match outcome.stopped {
            // Literals lie in the program's own code, which is not there yet.
            Some(Exit::Fault(Fault::Address(a))) if case.enc.class() == Class::Loadlit => {
                a < program::DATA || is_unmapped(a)
            }
            Some(Exit::Fault(Fault::Address(a))) => is_unmapped(a),
            Some(Exit::Fault(Fault::Unknown)) => false,
            _ => outcome.record.status != u64::MAX,
        }
    }
}

/// True for addresses at which no executor has memory, or none for this access.
fn is_unmapped(a: u64) -> bool {
    !(0x1000..=0xffff_0000_0000_0000).contains(&a)
        || (program::EDGE_READ..program::EDGE_READ + program::EDGE_SIZE).contains(&a)
}

/// Refuses the first access and tells its address.
struct Probe;

impl Machine for Probe {
    type Fault = Option<u64>;

    fn read(&mut self, address: u64, _: &mut [u8], _: Mem) -> Result<(), Option<u64>> {
        Err(Some(address))
    }

    fn write(&mut self, address: u64, _: &[u8], _: Mem) -> Result<(), Option<u64>> {
        Err(Some(address))
    }

    fn system(&mut self, _: &mut CpuState, _: SystemOp) -> Result<u64, Option<u64>> {
        Err(None)
    }
}
