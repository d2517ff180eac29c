//! Random test cases: an instruction, or a few, and the state that they run on.

use armlet_accel_jit::ir::Mem;
use armlet_accel_jit::ir::interp::{Exit, Machine, SystemOp};
use armlet_arm::fp::FPCR_EBF;
use armlet_arm::{Class, CpuState, Enc, Feature, FeatureSet, decode};

use crate::interp::{self, Fault};
use crate::random::Random;
use crate::record::{self, MEMORY_SIZE, Record};
use crate::{Case, program};

/// What to generate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The model's features.
    pub features: FeatureSet,
    /// The encodings to choose from.
    pub encodings: Vec<Enc>,
    /// The run's seed.
    pub seed: u64,
}

impl Plan {
    /// All encodings of the model that a program at EL0 can run with the same result everywhere, restricted to
    /// those whose class or name contains one of the parts of `filter`, which commas separate (without regard to
    /// case).
    pub fn new(features: FeatureSet, seed: u64, filter: Option<&str>) -> Self {
        let wanted: Vec<String> =
            filter.iter().flat_map(|f| f.split(',')).map(str::to_ascii_lowercase).collect();
        let encodings = Enc::all()
            .iter()
            .copied()
            .filter(|e| features.has(e.feature()) && testable(*e))
            .filter(|e| {
                let texts = [e.class().name(), e.name()].map(str::to_ascii_lowercase);
                wanted.is_empty() || wanted.iter().any(|w| texts.iter().any(|t| t.contains(w.as_str())))
            })
            .collect();
        Self { features, encodings, seed }
    }

    /// Case `number` of the run, to be placed at `index` of a program.
    pub fn case(&self, number: u64, index: usize) -> Option<Case> {
        let mut r = Random::new(&[self.seed, number]);
        let enc = *self.encodings.get(r.below(self.encodings.len().max(1) as u64) as usize)?;
        // Some choices of fields or state cannot be tested; the next ones are as good.
        (0..64).find_map(|_| self.attempt(&mut r, enc, number, index))
    }

    /// A case of several instructions that use each other's results, branch forwards, and load and store through
    /// pointers that survive. Built instruction by instruction along what the interpreter says is executed.
    pub fn sequence(&self, number: u64, index: usize) -> Option<Case> {
        let mut r = Random::new(&[self.seed, number, 1]);
        let first = *self.encodings.first()?;
        let mut record = random_state(&mut r, &self.features);
        let memory = program::record_address(index) + u64::from(record::MEMORY);
        for n in [0, 1, 19, 20, 29, 31] {
            record.x[n] = memory + 256 + r.below(16) * 16;
        }
        for n in [2, 3, 8] {
            record.x[n] = (r.below(64) as i64 - 32) as u64;
        }
        let length = 2 + r.below(program::MAX_BODY as u64 - 1) as usize;
        let mut case = Case { number, enc: first, body: Vec::new(), record };
        while case.body.len() < length {
            let enc = r.of(&self.encodings);
            let Some(word) = fill(&mut r, enc) else { continue };
            let room = (length - case.body.len()) as u32;
            let Some(word) = suit(&mut r, enc, word, room) else { continue };
            case.body.push(word);
            case.enc = enc;
            if !self.goes_on(&case, index) {
                case.body.pop();
            }
        }
        Some(case)
    }

    /// True if the sequence so far runs to its end, or to where the rest will be.
    fn goes_on(&self, case: &Case, index: usize) -> bool {
        let outcome = interp::execute(&self.features, case, index, &[]);
        let sp = outcome.record.x[31];
        outcome.stopped.is_none() && sp.is_multiple_of(16)
    }

    fn attempt(&self, r: &mut Random, enc: Enc, number: u64, index: usize) -> Option<Case> {
        let word = fill(r, enc)?;
        let mut record = random_state(r, &self.features);
        let here = program::body_address(index);
        let mut body = vec![word];
        match enc.class() {
            Class::BranchReg => {
                let n = (word >> 5 & 31) as usize;
                if n == 31 {
                    return None;
                }
                record.x[n] = here + 4 + program::TAKEN_OFFSET;
            }
            Class::Systemmove => {
                // Bits that some versions of the oracle keep and others do not.
                let known = if word >> 5 & 7 == 1 { 0x0800_009f } else { 0x07c8_0000 };
                record.x[(word & 31) as usize] &= if word >> 8 & 15 == 4 { known } else { u64::MAX };
            }
            Class::Ldstexclr | Class::Ldstexclp if word & (1 << 22) == 0 => {
                body.insert(0, load_exclusive_for(r, word));
            }
            _ => {}
        }
        if is_memory(enc.class()) {
            self.aim(r, &mut record, word, enc, index)?;
        }
        let case = Case { number, enc, body, record };
        self.is_sound(&case, index).then_some(case)
    }

    /// Sets the base register so that the access lands in the case's memory.
    fn aim(&self, r: &mut Random, record: &mut Record, word: u32, enc: Enc, index: usize) -> Option<()> {
        if enc.class() == Class::Loadlit {
            return Some(());
        }
        let (n, m) = ((word >> 5 & 31) as usize, (word >> 16 & 31) as usize);
        if enc.class() == Class::LdstRegoff && m != 31 && m != n {
            record.x[m] = (r.below(64) as i64 - 32) as u64;
            if r.one_in(4) {
                record.x[m] = record.x[m].wrapping_neg() & 0xffff_ffff | r.next() << 32;
            }
        }
        let memory = program::record_address(index) + u64::from(record::MEMORY);
        let aligned = needs_alignment(enc.class()) || r.one_in(2);
        // Not every version of the oracle checks the alignment of ordered accesses that are not atomic.
        let checked = !matches!(enc.class(), Class::Ldstord | Class::LdapstlUnscaled)
            && !enc.mnemonic().starts_with("LDAPR");
        let step = if aligned && !(checked && r.one_in(64)) { 16 } else { 1 };
        let wanted = if step == 1 && r.one_in(3) {
            memory + 512 - r.below(64) // Perhaps across the end of a page.
        } else {
            memory + 256 + r.below(256 / step) * step
        };
        record.x[n] = 0;
        let mut cpu = record.to_cpu(program::body_address(index));
        let Exit::Fault(Some(from)) = interp::step(&self.features, &mut cpu, &mut Probe, word) else {
            return None;
        };
        let tag = if r.one_in(8) { r.next() << 56 } else { 0 };
        record.x[n] = wanted.wrapping_sub(from).wrapping_add(tag);
        if n == 31 && !record.x[31].is_multiple_of(16) {
            return None; // Whether SP's alignment is checked is the operating system's choice.
        }
        Some(())
    }

    /// False for a case that reaches memory which is neither its own nor surely unmapped.
    fn is_sound(&self, case: &Case, index: usize) -> bool {
        let outcome = interp::execute(&self.features, case, index, &[]);
        match outcome.stopped {
            // Literals lie in the case's own code, which is not there yet.
            Some(Exit::Fault(Fault::Address(a))) if case.enc.class() == Class::Loadlit => a < program::DATA,
            Some(Exit::Fault(Fault::Address(a))) => !(0x1000..=0xffff_0000_0000_0000).contains(&a),
            Some(Exit::Fault(Fault::System)) => false,
            _ => outcome.record.status != u64::MAX,
        }
    }
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

/// Encodings whose result depends on more than registers and memory are left out.
fn testable(e: Enc) -> bool {
    match e.class() {
        Class::Exception => e == Enc::BRK_EX_exception,
        Class::Systeminstrs => false,
        Class::Systemmove => true,
        Class::Pstate => e != Enc::MSR_SI_pstate,
        // Waiting for an event or an interrupt may take its time.
        Class::Hints => !matches!(e, Enc::WFE_HI_hints | Enc::WFI_HI_hints),
        _ => true,
    }
}

fn is_memory(c: Class) -> bool {
    use Class::*;
    matches!(
        c,
        LdstImmpost
            | LdstImmpre
            | LdstPos
            | LdstRegoff
            | LdstUnpriv
            | LdstUnscaled
            | LdstnapairOffs
            | LdstpairOff
            | LdstpairPost
            | LdstpairPre
            | Asisdlse
            | Asisdlsep
            | Asisdlso
            | Asisdlsop
    ) || needs_alignment(c)
}

fn needs_alignment(c: Class) -> bool {
    use Class::*;
    matches!(c, Ldstexclr | Ldstexclp | Ldstord | LdapstlUnscaled | Memop | Comswap | Comswappr)
}

/// Makes an instruction fit a sequence in which `room` more instructions have place; `None` if it cannot.
fn suit(r: &mut Random, enc: Enc, word: u32, room: u32) -> Option<u32> {
    // To one of the next instructions, at most to what follows the last.
    let skip = 1 + r.below(u64::from(room.min(4))) as u32;
    let base = |word: u32, n: u32| word & !(31 << 5) | n << 5;
    Some(match enc.class() {
        Class::BranchImm => word & !0x3ff_ffff | skip,
        Class::Condbranch | Class::Compbranch => word & !0xff_ffe0 | skip << 5,
        Class::Testbranch => word & !0x7_ffe0 | skip << 5,
        Class::BranchReg | Class::Loadlit | Class::Exception => return None,
        // A pair's half of LDXP and STXP with a single register's other half is CONSTRAINED UNPREDICTABLE.
        Class::Ldstexclp => return None,
        c if is_memory(c) => {
            let word = base(word, r.of(&[0, 1, 19, 20, 29, 31]));
            let word =
                if c == Class::LdstRegoff { word & !(31 << 16) | r.of(&[2, 3, 8, 31]) << 16 } else { word };
            // Small offsets, so that pointers stay inside.
            match c {
                Class::LdstPos => word & !(0xff0 << 10),
                Class::LdstImmpost | Class::LdstImmpre => word & !(0x1c0 << 12),
                _ => word,
            }
        }
        _ => word,
    })
}

/// An instruction word of this encoding.
fn fill(r: &mut Random, enc: Enc) -> Option<u32> {
    let mut word = enc.value() | (r.next() as u32 & !enc.mask());
    // Often the same register twice, or the one that is zero or SP.
    let set = |word: u32, at: u32, v: u32| word & !(31 << at) | v << at;
    let free = |at: u32| enc.mask() >> at & 31 == 0;
    let d = word & 31;
    for at in [5, 16, 10] {
        if free(at) && r.one_in(12) {
            word = set(word, at, d);
        } else if free(at) && r.one_in(16) {
            word = set(word, at, 31);
        }
    }
    if free(0) && r.one_in(16) {
        word = set(word, 0, 31);
    }
    word = match enc.class() {
        Class::BranchImm => word & !0x3ff_ffff | 2,
        Class::Condbranch | Class::Compbranch => word & !0xff_ffe0 | 2 << 5,
        Class::Testbranch => word & !0x7_ffe0 | 2 << 5,
        Class::Loadlit => word & !0xff_ffe0 | ((r.below(32) as u32).wrapping_sub(16) & 0x7_ffff) << 5,
        Class::Systemmove => {
            // NZCV, FPCR, FPSR.
            let reg = r.of(&[0xda10u32, 0xda20, 0xda21]) & 0x7fff;
            word & !(0x7fff << 5) | reg << 5
        }
        Class::Comswappr if !r.one_in(8) => word & !(1 << 16 | 1),
        _ => word,
    };
    // A pair loaded into one register is CONSTRAINED UNPREDICTABLE, and versions of the oracle disagree.
    let pair = is_pair(enc.class()) && word & (1 << 22) != 0;
    // Versions of the oracle take some unallocated immediates for neighbours of theirs.
    if enc.class() == Class::Asimdshf && word >> 19 & 15 == 0 {
        return None;
    }
    (decode(word) == Some(enc) && !(pair && word & 31 == word >> 10 & 31)).then_some(word)
}

fn is_pair(c: Class) -> bool {
    use Class::*;
    matches!(c, LdstnapairOffs | LdstpairOff | LdstpairPost | LdstpairPre | Ldstexclp)
}

/// The load-exclusive that makes a store-exclusive succeed, mostly: of the same size at the same address.
fn load_exclusive_for(r: &mut Random, word: u32) -> u32 {
    let load = word | 1 << 22 | 0x1f << 16;
    // Into registers that the store does not use, so that the address and the data stay.
    let used = [word & 31, word >> 5 & 31, word >> 10 & 31];
    let mut free = (0..31).filter(|n| !used.contains(n));
    let (a, b) = (free.next().unwrap_or(0), free.next().unwrap_or(1));
    let load = load & !31 | a;
    let load = if load & (1 << 21) != 0 { load & !(31 << 10) | b << 10 } else { load };
    if r.one_in(8) { load ^ 1 << 30 } else { load }
}

fn random_state(r: &mut Random, features: &FeatureSet) -> Record {
    let mut s = Record::new();
    for x in &mut s.x {
        *x = r.integer();
    }
    // A second register close to the first makes comparisons and subtractions interesting.
    let (a, b) = (r.below(31) as usize, r.below(31) as usize);
    s.x[a] = s.x[b].wrapping_add(r.below(3)).wrapping_sub(1);
    s.x[31] = 0x7fff_0000 + r.below(1 << 20) * 16;
    for v in &mut s.v {
        *v = r.vector();
    }
    let (a, b) = (r.below(32) as usize, r.below(32) as usize);
    s.v[a] = s.v[b];
    s.nzcv = (r.next() as u32) << 28;
    if r.one_in(3) {
        s.fpcr = (r.next() as u32) & (3 << 22);
        if r.one_in(2) {
            s.fpcr |= r.next() as u32 & interp::FPCR_SPECIAL;
        }
    }
    if features.has(Feature::Afp) && r.one_in(2) {
        s.fpcr |= r.next() as u32 & interp::FPCR_ALTERNATE;
    }
    if features.has(Feature::Ebf16) && r.one_in(4) {
        s.fpcr |= FPCR_EBF;
    }
    if r.one_in(8) {
        s.fpsr = r.next() as u32 & 0x0800_009f;
    }
    s.memory = (0..MEMORY_SIZE / 8).flat_map(|_| r.vector().to_le_bytes()[..8].to_vec()).collect();
    s
}
