//! The page-table walk: any registers, any tables, any address. The answer and what became of the tables are
//! compared with those of a walk that is written after the architecture's pseudocode (Arm ARM J1.3, AArch64
//! translation), with nothing prepared beforehand.

use std::cell::RefCell;
use std::collections::HashMap;

use armlet_arm::mmu::{Access, AccessKind, Context, Fault, FaultKind, Mappings, PhysicalMemory, translate};
use armlet_arm::sysreg::{self, ExternalRegisters};
use armlet_arm::{CpuModel, CpuState, Feature, SysReg};

use crate::input::Input;

/// No device has system registers here.
struct NoExternal;

impl ExternalRegisters for NoExternal {
    fn read(&self, _: usize, _: SysReg) -> u64 {
        0
    }
    fn write(&self, _: usize, _: SysReg, _: u64) {}
}

/// Memory in which every address may hold a descriptor.
struct Tables {
    descriptors: Vec<u64>,
    changed: RefCell<HashMap<u64, u64>>,
    /// Another PE changes the descriptor before the first update.
    race: RefCell<Option<u64>>,
}

fn hash(address: u64) -> u64 {
    let z = (address ^ (address >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 29)
}

impl Tables {
    fn new(descriptors: &[u64], race: Option<u64>) -> Self {
        let race = RefCell::new(race);
        Self { descriptors: descriptors.to_vec(), changed: RefCell::default(), race }
    }
}

impl PhysicalMemory for Tables {
    fn read_u64(&self, pa: u64) -> Option<u64> {
        assert_eq!(pa & 7, 0, "misaligned descriptor at {pa:#x}");
        assert_eq!(pa >> 52, 0, "descriptor at {pa:#x}");
        if let Some(&value) = self.changed.borrow().get(&pa) {
            return Some(value);
        }
        let h = hash(pa);
        (h >> 60 != 0).then(|| self.descriptors[(h >> 8) as usize % self.descriptors.len()])
    }

    fn compare_exchange_u64(&self, pa: u64, old: u64, new: u64) -> Option<Result<u64, u64>> {
        if hash(pa) >> 60 == 1 {
            return None;
        }
        let now = self.read_u64(pa)?;
        if let Some(other) = self.race.take() {
            self.changed.borrow_mut().insert(pa, other);
            return Some(if other == old { Ok(old) } else { Err(other) });
        }
        if now != old {
            return Some(Err(now));
        }
        self.changed.borrow_mut().insert(pa, new);
        Some(Ok(old))
    }
}

/// What an access may do and where it goes.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    pa: u64,
    size_log2: u8,
    attributes: u8,
    shareability: u8,
    global: bool,
    guarded: bool,
    contiguous: bool,
}

/// The registers, and what the model has.
struct Regime<'a> {
    state: &'a CpuState,
    model: &'a CpuModel,
}

fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 != 0
}

fn bits(value: u64, high: u32, low: u32) -> u64 {
    value >> low & (u64::MAX >> (63 - (high - low)))
}

/// Size of the addresses that TCR.IPS or ID_AA64MMFR0.PARange stands for.
fn physical_size(encoded: u64) -> u32 {
    [32, 36, 40, 42, 44, 48, 52, 52][encoded as usize & 7]
}

/// S1TTWParams: what is chosen by the half of the address space.
struct Params {
    granule: u32,
    txsz: u32,
    disabled: bool,
    e0pd: bool,
    hpd: bool,
    sh: u8,
    ds: bool,
    ps: u32,
    upper: bool,
    ttbr: u64,
    top: u32,
}

impl Regime<'_> {
    fn reg(&self, reg: SysReg) -> u64 {
        self.state.sys[reg]
    }

    fn has(&self, feature: Feature) -> bool {
        self.model.has(feature)
    }

    fn params(&self, va: u64, fetch: bool) -> Params {
        let tcr = self.reg(SysReg::TcrEl1);
        let upper = bit(va, 55);
        let granule = match (upper, bits(tcr, if upper { 31 } else { 15 }, if upper { 30 } else { 14 })) {
            (false, 1) | (true, 3) => 16,
            (false, 2) | (true, 1) => 14,
            // Reserved values are as the smallest granule that there is.
            _ => 12,
        };
        let granule = self.implemented(granule);
        let (tbi, tbid) = if upper { (38, 52) } else { (37, 51) };
        let ignored = bit(tcr, tbi) && !(fetch && bit(tcr, tbid));
        let ds = bit(tcr, 59)
            && match granule {
                12 => self.has(Feature::Lpa2Granule4),
                14 => self.has(Feature::Lpa2Granule16),
                _ => false,
            };
        let implemented = u32::from(self.model.pa_bits());
        Params {
            granule,
            txsz: bits(tcr, if upper { 21 } else { 5 }, if upper { 16 } else { 0 }) as u32,
            disabled: bit(tcr, if upper { 23 } else { 7 }),
            e0pd: bit(tcr, if upper { 56 } else { 55 }),
            hpd: bit(tcr, if upper { 42 } else { 41 }),
            sh: bits(tcr, if upper { 29 } else { 13 }, if upper { 28 } else { 12 }) as u8,
            ds,
            ps: physical_size(bits(tcr, 34, 32)).min(implemented),
            upper,
            ttbr: self.reg(if upper { SysReg::Ttbr1El1 } else { SysReg::Ttbr0El1 }),
            top: if ignored { 55 } else { 63 },
        }
    }

    fn implemented(&self, granule: u32) -> u32 {
        let list = [(12, Feature::Granule4), (14, Feature::Granule16), (16, Feature::Granule64)];
        let has = |wanted: u32| list.iter().any(|&(g, f)| g == wanted && self.has(f));
        if has(granule) { granule } else { list.iter().find(|(_, f)| self.has(*f)).map_or(12, |(g, _)| *g) }
    }

    /// 52-bit addresses in descriptors of the 64K granule.
    fn lpa(&self, p: &Params) -> bool {
        p.granule == 16 && self.has(Feature::Lpa)
    }

    /// AArch64.PhysicalAddressSize.
    fn output_size(&self, p: &Params) -> u32 {
        if p.ds || self.lpa(p) { p.ps } else { p.ps.min(48) }
    }

    /// AArch64.S1TxSZFaults: a size out of range has no translation.
    fn size_faults(&self, p: &Params) -> bool {
        let wide = p.ds || (p.granule == 16 && self.has(Feature::Lva));
        let smallest = if wide { 12 } else { 16 };
        let largest = if !self.has(Feature::Ttst) { 39 } else { 48 - u32::from(p.granule == 16) };
        p.txsz < smallest || p.txsz > largest
    }

    /// The address in a descriptor, of a table or of the lowest level.
    fn address(&self, p: &Params, descriptor: u64) -> u64 {
        if p.ds {
            return bits(descriptor, 49, p.granule) << p.granule | bits(descriptor, 9, 8) << 50;
        }
        let high = if self.lpa(p) { bits(descriptor, 15, 12) << 48 } else { 0 };
        bits(descriptor, 47, p.granule) << p.granule | high
    }

    /// AArch64.S1TTBaseAddress.
    fn base(&self, p: &Params, start: i32) -> u64 {
        let stride = p.granule - 3;
        let mut size = (64 - p.txsz) - ((3 - start) as u32 * stride + p.granule) + 3;
        let table = if p.ds || (self.lpa(p) && p.ps == 52) {
            size = size.max(6);
            bits(p.ttbr, 47, 6) << 6 | bits(p.ttbr, 5, 2) << 48
        } else {
            bits(p.ttbr, 47, 1) << 1
        };
        table >> size << size
    }

    /// Whether a block may stand at this level.
    fn block_allowed(&self, p: &Params, level: i32) -> bool {
        match p.granule {
            12 => level == 2 || level == 1 || (level == 0 && p.ds),
            14 => level == 2 || (level == 1 && p.ds),
            _ => level == 2 || (level == 1 && self.lpa(p)),
        }
    }
}

/// What a walk ended at.
struct Leaf {
    descriptor: u64,
    address: u64,
    level: i32,
    ap_table: u64,
    xn_table: u64,
}

fn fault(kind: FaultKind, level: i32) -> Fault {
    Fault::new(kind, level as i8)
}

/// AArch64.S1Walk.
fn walk(r: &Regime<'_>, p: &Params, tables: &Tables, va: u64) -> Result<Leaf, Fault> {
    let stride = p.granule - 3;
    let size = 64 - p.txsz;
    let start = 3 - ((size - 1 - p.granule) / stride) as i32;
    let output = r.output_size(p);
    let mut table = r.base(p, start);
    if table >> output != 0 {
        return Err(fault(FaultKind::AddressSize, 0));
    }
    let mut leaf = Leaf { descriptor: 0, address: 0, level: start, ap_table: 0, xn_table: 0 };
    let mut high = size - 1;
    loop {
        let low = (3 - leaf.level) as u32 * stride + p.granule;
        leaf.address = table | bits(va, high, low) << 3;
        let read = tables.read_u64(leaf.address);
        leaf.descriptor = read.ok_or(fault(FaultKind::SyncExternalOnWalk, leaf.level))?;
        let is_leaf = match (leaf.descriptor & 3, leaf.level) {
            (3, 3) => true,
            (3, _) => false,
            (1, level) if r.block_allowed(p, level) => true,
            _ => return Err(fault(FaultKind::Translation, leaf.level)),
        };
        table = r.address(p, leaf.descriptor);
        if table >> output != 0 {
            return Err(fault(FaultKind::AddressSize, leaf.level));
        }
        if is_leaf {
            return Ok(leaf);
        }
        if !p.hpd {
            leaf.ap_table |= bits(leaf.descriptor, 62, 61);
            leaf.xn_table |= bits(leaf.descriptor, 60, 59);
        }
        leaf.level += 1;
        high = low - 1;
    }
}

/// AArch64.S1CheckPermissions: whether the access is refused. `ap` is AP[2:1] as it counts.
fn refused(r: &Regime<'_>, leaf: &Leaf, ap: u64, access: Access) -> bool {
    let (mut pr, mut pw, mut ur, mut uw) = [
        (true, true, false, false),
        (true, true, true, true),
        (true, false, false, false),
        (true, false, true, false),
    ][ap as usize & 3];
    if leaf.ap_table & 1 != 0 {
        (ur, uw) = (false, false);
    }
    if leaf.ap_table & 2 != 0 {
        (pw, uw) = (false, false);
    }
    let control = r.reg(SysReg::SctlrEl1);
    let ux = !(bit(leaf.descriptor, 54) || leaf.xn_table & 2 != 0);
    let mut px = !(bit(leaf.descriptor, 53) || leaf.xn_table & 1 != 0 || uw);
    let wxn = bit(control, 19);
    px &= !(wxn && pw);
    let user_execute = ux && !(wxn && uw);
    if access.pan && (ur || uw || (bit(control, 57) && user_execute)) {
        (pr, pw) = (false, false);
    }
    let (read, write, execute) = if access.el == 0 { (ur, uw, user_execute) } else { (pr, pw, px) };
    !match access.kind {
        AccessKind::Read => read,
        AccessKind::Write | AccessKind::WriteCheck => write,
        AccessKind::Fetch => execute,
    }
}

/// AArch64.S1Translate.
fn reference(r: &Regime<'_>, tables: &Tables, va: u64, access: Access) -> Result<Answer, Fault> {
    let fetch = access.kind == AccessKind::Fetch;
    let p = r.params(va, fetch);
    let control = r.reg(SysReg::SctlrEl1);
    if !bit(control, 0) {
        return disabled(r, &p, va, fetch);
    }
    let none = p.disabled || (p.e0pd && access.el == 0) || r.size_faults(&p);
    let beyond = |value: u64| bits(value, p.top, 64 - p.txsz);
    if none || beyond(va) != beyond(if p.upper { u64::MAX } else { 0 }) {
        return Err(fault(FaultKind::Translation, 0));
    }
    let tcr = r.reg(SysReg::TcrEl1);
    let hardware_access = bit(tcr, 39) && r.has(Feature::Haf);
    let hardware_dirty = hardware_access && bit(tcr, 40) && r.has(Feature::Hafdbs);
    loop {
        let leaf = walk(r, &p, tables, va)?;
        let d = leaf.descriptor;
        if !bit(d, 10) && !hardware_access {
            return Err(fault(FaultKind::AccessFlag, leaf.level));
        }
        let managed = hardware_dirty && bit(d, 51);
        let ap = bits(d, 7, 6) & if managed { 1 } else { 3 };
        if refused(r, &leaf, ap, access) {
            return Err(fault(FaultKind::Permission, leaf.level));
        }
        let mut new = d | 1 << 10;
        if managed && access.kind == AccessKind::Write {
            new &= !(1 << 7);
        }
        if new != d {
            let done = tables.compare_exchange_u64(leaf.address, d, new);
            match done.ok_or(fault(FaultKind::UnsupportedAtomicUpdate, 0))? {
                Ok(_) => {}
                Err(_) => continue,
            }
        }
        let size_log2 = (3 - leaf.level) as u32 * (p.granule - 3) + p.granule;
        return Ok(Answer {
            pa: r.address(&p, d) >> size_log2 << size_log2 | bits(va, size_log2 - 1, 0),
            size_log2: size_log2 as u8,
            attributes: (r.reg(SysReg::MairEl1) >> (8 * bits(d, 4, 2))) as u8,
            shareability: if p.ds { p.sh } else { bits(d, 9, 8) as u8 },
            global: !bit(d, 11),
            guarded: bit(d, 50),
            contiguous: bit(d, 52),
        });
    }
}

/// AArch64.S1DisabledOutput.
fn disabled(r: &Regime<'_>, p: &Params, va: u64, fetch: bool) -> Result<Answer, Fault> {
    let pa = bits(va, p.top, 0);
    let size = u32::from(r.model.pa_bits());
    if pa >> size != 0 {
        return Err(fault(FaultKind::AddressSize, 0));
    }
    let cached = bit(r.reg(SysReg::SctlrEl1), 12);
    let attributes = match (fetch, cached) {
        (true, true) => 0xaa,
        (true, false) => 0x44,
        _ => 0,
    };
    Ok(Answer {
        pa,
        size_log2: size as u8,
        attributes,
        shareability: 2,
        global: true,
        guarded: false,
        contiguous: false,
    })
}

/// Legal values of the registers that matter.
fn state(input: &mut Input<'_>, model: &CpuModel) -> CpuState {
    let mut state = model.reset_state(0, armlet_arm::model::mpidr(0));
    let regs = [SysReg::SctlrEl1, SysReg::TcrEl1, SysReg::Ttbr0El1, SysReg::Ttbr1El1, SysReg::MairEl1];
    for reg in regs {
        let mut value = input.u64();
        if reg == SysReg::SctlrEl1 {
            // Nearly always on.
            value |= u64::from(value >> 60 != 15);
        }
        let done = sysreg::write(&mut state, model, &NoExternal, reg.encoding(), 0, value);
        assert!(done.is_ok(), "EL1 may write {}", reg.name());
    }
    state
}

fn model(choice: u8) -> CpuModel {
    let models = CpuModel::all();
    let chosen = usize::from(choice) % models.len();
    models.into_iter().nth(chosen).expect("there are models")
}

/// Runs one input.
///
/// # Panics
/// The two walks disagree.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let model = model(input.u8());
    let how = input.u8();
    let state = state(&mut input, &model);
    let va = input.u64();
    let mut descriptors = vec![input.u64()];
    while !input.is_empty() && descriptors.len() < 16 {
        descriptors.push(input.u64());
    }
    let race = (how >> 5 == 7).then(|| descriptors[0]);
    let kinds = [AccessKind::Read, AccessKind::Write, AccessKind::WriteCheck, AccessKind::Fetch];
    let el = how >> 2 & 1;
    let access = Access { kind: kinds[usize::from(how) & 3], el, pan: el == 1 && how & 8 != 0 };
    let context = Context::new(&state, &model);
    let (ours, theirs) = (Tables::new(&descriptors, race), Tables::new(&descriptors, race));
    let got = translate(&context, &ours, va, access);
    let want = reference(&Regime { state: &state, model: &model }, &theirs, va, access);
    let got = got.map(|t| {
        assert!(
            !context.enabled() || t.permissions.allow(access, context.epan()),
            "a translation that does not allow {access:?}"
        );
        assert_eq!(t.device, t.attributes & 0xf0 == 0, "device memory");
        Answer {
            pa: t.pa,
            size_log2: t.block_size_log2,
            attributes: t.attributes,
            shareability: t.shareability,
            global: !t.non_global,
            guarded: t.guarded,
            contiguous: t.contiguous,
        }
    });
    assert_eq!(got, want, "{va:#x} for {access:?}: armlet's walk, and the one to compare with");
    assert!(*ours.changed.borrow() == *theirs.changed.borrow(), "the tables differ afterwards");
    let mut mappings = Mappings::new(&context, &ours, va);
    let mut steps = 0;
    while steps < 32 && mappings.step().is_some() {
        steps += 1;
    }
}
