//! The ID registers: those of the host as a CPU model, and those of a model given to the host.

use std::io;

use armlet_arm::CpuModel;
use armlet_arm::id::{IdReg, IdRegisters};
use armlet_arm::model::{CacheGeometry, HostIds};
use armlet_arm::sysreg::encoding;
use kvm_ioctls::VcpuFd;

use crate::registers::{OneReg, system_register};
use crate::system::dczid;
use crate::{KvmError, KvmMachine};

/// `CLIDR_EL1` and `CTR_EL0`.
const CLIDR: u16 = encoding(3, 1, 0, 0, 1);
const CTR: u16 = encoding(3, 3, 0, 0, 1);
/// `KVM_REG_ARM_DEMUX`, of 32 bits: `CCSIDR_EL1` by `CSSELR_EL1`.
const CCSIDR: u64 = 0x6020_0000_0011_0000;
/// What a cache is taken for whose geometry the host does not tell.
const UNTOLD: CacheGeometry = CacheGeometry { size: 64 << 10, ways: 4, line: 64 };

fn id_register(register: IdReg) -> u64 {
    system_register(encoding(3, 0, 0, register.crm().into(), register.op2().into()))
}

impl KvmMachine {
    /// The host's CPU as a model, as far as guests get it.
    ///
    /// # Errors
    /// The host does not tell.
    pub fn host_model(&self) -> Result<CpuModel, KvmError> {
        let what = "tell what its CPU is";
        let read = self.with_first(read_host).ok_or(io::ErrorKind::NotFound.into());
        let ids = read.and_then(|ids| ids).map_err(|source| KvmError::Refused { what, source })?;
        Ok(CpuModel::of_host(ids))
    }

    /// Makes the vCPUs those of `model`. Before any of them has run.
    ///
    /// # Errors
    /// [`KvmError::Identity`]: the host cannot give some of its fields.
    pub fn adopt(&self, model: &CpuModel) -> Result<(), KvmError> {
        let adopted = self.with_first(|vcpu| adopt(vcpu, model)).unwrap_or(Ok(Vec::new()));
        let adopted = adopted.map_err(|source| KvmError::Refused { what: "tell what its CPU is", source })?;
        if adopted.is_empty() {
            if let Some(caches) = Caches::of(model) {
                let _ = self.caches.set(caches);
            }
            return Ok(());
        }
        Err(KvmError::Identity { cpu: model.name().into(), fields: adopted.join(", ") })
    }
}

fn read_host(vcpu: &VcpuFd) -> io::Result<HostIds> {
    let mut ids = IdRegisters::default();
    for (register, _) in IdReg::NAMED {
        // One that the host's kernel does not know reads as zero.
        ids.set(register, vcpu.get_u64(id_register(register)).unwrap_or(0));
    }
    for register in [IdReg::new(0, 0), IdReg::new(0, 6)] {
        ids.set(register, vcpu.get_u64(id_register(register))?);
    }
    Ok(HostIds {
        ids,
        clidr: vcpu.get_u64(system_register(CLIDR))?,
        ctr: vcpu.get_u64(system_register(CTR))?,
        dczid: dczid(),
        caches: [0, 1, 2].map(|selector| read_cache(vcpu, selector)),
    })
}

/// Geometry by `CCSIDR_EL1` in its format of 32 bits.
fn read_cache(vcpu: &VcpuFd, selector: u64) -> CacheGeometry {
    let mut value = [0; 4];
    if vcpu.get(CCSIDR | selector, &mut value).is_err() {
        return UNTOLD;
    }
    let value = u32::from_le_bytes(value);
    let line = 16 << (value & 7);
    let (ways, sets) = ((value >> 3 & 0x3ff) + 1, (value >> 13 & 0x7fff) + 1);
    CacheGeometry { size: line * ways * sets, ways, line }
}

/// The caches that guests are told of, which every vCPU has for itself, anew after each reset.
#[derive(Clone, Copy, Debug)]
pub struct Caches {
    clidr: u64,
    /// By `CSSELR_EL1`.
    ccsidr: [u32; 3],
}

impl Caches {
    /// Those of a model that is not the host's own.
    fn of(model: &CpuModel) -> Option<Self> {
        let ccsidr = model.caches().map(|cache| cache.ccsidr(false) as u32);
        model.is_portable().then(|| Self { clidr: model.clidr(), ccsidr })
    }

    /// Tells `vcpu` of them where it has others.
    pub fn tell(&self, vcpu: &VcpuFd) -> io::Result<()> {
        if vcpu.get_u64(system_register(CLIDR))? != self.clidr {
            vcpu.set_u64(system_register(CLIDR), self.clidr)?;
        }
        for (selector, value) in (0..).zip(self.ccsidr) {
            let mut there = [0; 4];
            vcpu.get(CCSIDR | selector, &mut there)?;
            if there != value.to_le_bytes() {
                vcpu.set(CCSIDR | selector, &value.to_le_bytes())?;
            }
        }
        Ok(())
    }
}

/// Writes the model's registers where the host has others; tells the fields that it does not take.
fn adopt(vcpu: &VcpuFd, model: &CpuModel) -> io::Result<Vec<String>> {
    let mut bad = Vec::new();
    let main = (IdReg::new(0, 0), "MIDR_EL1");
    for (register, name) in std::iter::once(main).chain(IdReg::NAMED) {
        let wanted = model.ids().get(register);
        bad.extend(give(vcpu, (id_register(register), name), wanted, &fields(register == main.0)));
    }
    bad.extend(give(vcpu, (system_register(CTR), "CTR_EL0"), model.ctr(), &fields(false)));
    // One that cannot be chosen.
    let block = dczid() & 0xf;
    if block != model.dczid() {
        bad.push(format!("DCZID_EL0[3:0] is {:#x} there and {block:#x} here", model.dczid()));
    }
    if bad.is_empty() && Caches::of(model).is_some_and(|caches| caches.tell(vcpu).is_err()) {
        bad.push("CLIDR_EL1 or CCSIDR_EL1 is another there than here".into());
    }
    Ok(bad)
}

/// Gives a register the value that is wanted; the fields of it that the host does not take.
fn give(vcpu: &VcpuFd, (id, name): (u64, &str), wanted: u64, fields: &[Field]) -> Vec<String> {
    let Ok(there) = vcpu.get_u64(id) else { return Vec::new() };
    if there == wanted || vcpu.set_u64(id, wanted).is_ok() {
        return Vec::new();
    }
    let mut bad = Vec::new();
    for field in fields.iter().filter(|f| f.of(there) != f.of(wanted)) {
        // One field at a time; what is taken stays, and does no harm: the machine is not made.
        let alone = there & !field.mask() | wanted & field.mask();
        if vcpu.set_u64(id, alone).is_err() {
            bad.push(format!(
                "{name}{field} is {:#x} there and {:#x} here",
                field.of(wanted),
                field.of(there)
            ));
        }
    }
    if bad.is_empty() {
        bad.push(format!("{name} is {wanted:#x} there and {there:#x} here"));
    }
    bad
}

/// A field of an identification register.
#[derive(Clone, Copy)]
struct Field {
    low: u32,
    bits: u32,
}

impl Field {
    const fn mask(self) -> u64 {
        ((1 << self.bits) - 1) << self.low
    }

    const fn of(self, value: u64) -> u64 {
        (value & self.mask()) >> self.low
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}:{}]", self.low + self.bits - 1, self.low)
    }
}

/// Four bits each, but in `MIDR_EL1` (`main`): revision, part, architecture, variant, implementer.
fn fields(main: bool) -> Vec<Field> {
    const MAIN: [Field; 5] = [
        Field { low: 0, bits: 4 },
        Field { low: 4, bits: 12 },
        Field { low: 16, bits: 4 },
        Field { low: 20, bits: 4 },
        Field { low: 24, bits: 8 },
    ];
    if main { MAIN.into() } else { (0..16).map(|n| Field { low: 4 * n, bits: 4 }).collect() }
}
