//! Pointer authentication (FEAT_PAuth): signing, authenticating and stripping pointers (Arm ARM D8.8 and the
//! pseudocode functions AddPAC, Auth, Strip and ComputePAC).

mod qarma;

#[cfg(test)]
mod tests;

use crate::exception::Exception;
use crate::feature::Feature;
use crate::mmu::Context;
use crate::model::CpuModel;
use crate::spec::sctlr;
use crate::state::CpuState;
use crate::sysreg::SysReg;

/// A key for pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Key {
    /// APIAKey_EL1: instruction addresses.
    Ia,
    /// APIBKey_EL1: instruction addresses.
    Ib,
    /// APDAKey_EL1: data addresses.
    Da,
    /// APDBKey_EL1: data addresses.
    Db,
}

/// What an instruction does to a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// PAC*: inserts a code.
    Sign(Key),
    /// AUT*: checks it and takes it away.
    Authenticate(Key),
    /// The same as part of a branch, a load or an exception return.
    AuthenticateCombined(Key),
    /// XPACI (`data` false), XPACD: takes it away.
    Strip {
        /// A data address.
        data: bool,
    },
    /// PACGA: a code of 32 bits for any value.
    Generic,
}

const KEYS: [Key; 4] = [Key::Ia, Key::Ib, Key::Da, Key::Db];

impl Operation {
    /// As a number below 16.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Sign(key) => key as u8,
            Self::Authenticate(key) => 4 | key as u8,
            Self::AuthenticateCombined(key) => 8 | key as u8,
            Self::Strip { data } => 12 | data as u8,
            Self::Generic => 14,
        }
    }

    /// From the number; higher bits are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        let key = KEYS[(bits & 3) as usize];
        match bits >> 2 & 3 {
            0 => Self::Sign(key),
            1 => Self::Authenticate(key),
            2 => Self::AuthenticateCombined(key),
            _ if bits & 2 != 0 => Self::Generic,
            _ => Self::Strip { data: bits & 1 != 0 },
        }
    }
}

impl Key {
    /// For data addresses.
    pub const fn is_data(self) -> bool {
        matches!(self, Self::Da | Self::Db)
    }

    /// The second of its kind.
    const fn is_b(self) -> bool {
        matches!(self, Self::Ib | Self::Db)
    }

    /// The bit of SCTLR_EL1 without which nothing is done with it.
    pub const fn enable(self) -> u64 {
        match self {
            Self::Ia => sctlr::EN_IA,
            Self::Ib => sctlr::EN_IB,
            Self::Da => sctlr::EN_DA,
            Self::Db => sctlr::EN_DB,
        }
    }

    /// Its registers: low and high half.
    pub const fn registers(self) -> [SysReg; 2] {
        match self {
            Self::Ia => [SysReg::ApiaKeyLoEl1, SysReg::ApiaKeyHiEl1],
            Self::Ib => [SysReg::ApibKeyLoEl1, SysReg::ApibKeyHiEl1],
            Self::Da => [SysReg::ApdaKeyLoEl1, SysReg::ApdaKeyHiEl1],
            Self::Db => [SysReg::ApdbKeyLoEl1, SysReg::ApdbKeyHiEl1],
        }
    }
}

/// What a code is computed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Qarma5,
    Qarma3,
    ImplementationDefined,
}

/// What the rules depend on.
struct Rules<'a> {
    context: &'a Context,
    model: &'a CpuModel,
    algorithm: Algorithm,
}

/// Executes `operation` on `pointer` with `modifier` at the state's exception level. `context` is the translation
/// regime in force.
///
/// # Errors
/// A code is wrong, and the model has FEAT_FPAC (for combined instructions FEAT_FPACCOMBINE).
pub fn perform(
    state: &CpuState,
    model: &CpuModel,
    context: &Context,
    operation: Operation,
    (pointer, modifier): (u64, u64),
) -> Result<u64, Exception> {
    let rules = Rules { context, model, algorithm: algorithm(model, operation) };
    let enabled = |key: Key| state.sys[SysReg::SctlrEl1] & key.enable() != 0;
    let halves = |[lo, hi]: [SysReg; 2]| (state.sys[hi], state.sys[lo]);
    match operation {
        Operation::Sign(key) | Operation::Authenticate(key) | Operation::AuthenticateCombined(key)
            if !enabled(key) =>
        {
            Ok(pointer)
        }
        Operation::Sign(key) => Ok(rules.sign(pointer, modifier, halves(key.registers()), key.is_data())),
        Operation::Authenticate(key) => {
            let fails = model.has(Feature::Fpac);
            rules.authenticate(pointer, modifier, halves(key.registers()), key, fails)
        }
        Operation::AuthenticateCombined(key) => {
            let fails = model.has(Feature::FpacCombine);
            rules.authenticate(pointer, modifier, halves(key.registers()), key, fails)
        }
        Operation::Strip { data } => Ok(rules.field(pointer, data).original(pointer)),
        Operation::Generic => {
            let key = halves([SysReg::ApgaKeyLoEl1, SysReg::ApgaKeyHiEl1]);
            Ok(rules.code(pointer, modifier, key) & !0xffff_ffff)
        }
    }
}

fn algorithm(model: &CpuModel, operation: Operation) -> Algorithm {
    let generic = operation == Operation::Generic;
    let (qarma5, qarma3) = match generic {
        true => (Feature::PacGenericQarma5, Feature::PacGenericQarma3),
        false => (Feature::PacQarma5, Feature::PacQarma3),
    };
    if model.has(qarma5) {
        Algorithm::Qarma5
    } else if model.has(qarma3) {
        Algorithm::Qarma3
    } else {
        Algorithm::ImplementationDefined
    }
}

/// Where pointers of a half of the address space (`upper`: that of TTBR1_EL1) have their code; `data` as opposed to
/// instruction addresses.
pub fn code_mask(context: &Context, upper: bool, data: bool) -> u64 {
    let tagged = context.ignores_top(u64::from(upper) << 55, data);
    Field::new(context.address_bits(upper), tagged).mask
}

/// True if the model's codes are those of [`fast_code`], exclusive-ored with the pointer.
pub fn is_fast(model: &CpuModel) -> bool {
    let fast = algorithm(model, Operation::Strip { data: false }) == Algorithm::ImplementationDefined;
    fast && model.has(Feature::PAuth2)
}

/// Where a pointer's code is: above its address bits, around bit 55, below the tag if there is one.
#[derive(Clone, Copy)]
struct Field {
    /// The code's bits, without bit 55.
    mask: u64,
    /// The same with bit 55: what extends an address.
    extension: u64,
}

impl Field {
    fn new(bottom: u8, tagged: bool) -> Self {
        let top = if tagged { 56 } else { 64 };
        let extension = (u64::MAX << bottom) & (u64::MAX >> (64 - top));
        Self { mask: extension & !(1 << 55), extension }
    }

    /// The pointer with bit 55 in all bits of the extension.
    fn original(self, pointer: u64) -> u64 {
        self.extended(pointer, pointer >> 55 & 1 != 0)
    }

    fn extended(self, pointer: u64, ones: bool) -> u64 {
        if ones { pointer | self.extension } else { pointer & !self.extension }
    }

    fn is_extended(self, pointer: u64) -> bool {
        pointer & self.extension == 0 || pointer & self.extension == self.extension
    }
}

impl Rules<'_> {
    /// The field of a pointer that has one already.
    fn field(&self, pointer: u64, data: bool) -> Field {
        Field::new(self.context.address_bits(pointer >> 55 & 1 != 0), self.context.ignores_top(pointer, data))
    }

    fn code(&self, pointer: u64, modifier: u64, key: (u64, u64)) -> u64 {
        match self.algorithm {
            Algorithm::Qarma5 => qarma::qarma5(pointer, modifier, key),
            Algorithm::Qarma3 => qarma::qarma3(pointer, modifier, key),
            Algorithm::ImplementationDefined => fast_code(pointer, modifier, key),
        }
    }

    fn sign(&self, pointer: u64, modifier: u64, key: (u64, u64), data: bool) -> u64 {
        let tagged = self.context.ignores_top(pointer, data);
        let by_55 = self.context.ignores_top(0, data) || self.context.ignores_top(1 << 55, data);
        let upper = pointer >> if by_55 { 55 } else { 63 } & 1 != 0;
        let field = Field::new(self.context.address_bits(upper), tagged);
        let mut code = self.code(field.extended(pointer, upper), modifier, key);
        if !field.is_extended(pointer) {
            if self.model.has(Feature::Epac) {
                code = 0;
            } else if !self.model.has(Feature::PAuth2) {
                code ^= 1 << if tagged { 54 } else { 62 };
            }
        }
        let base = if self.model.has(Feature::PAuth2) { pointer } else { pointer & !field.mask };
        (base ^ code & field.mask) & !(1 << 55) | u64::from(upper) << 55
    }

    fn authenticate(
        &self,
        pointer: u64,
        modifier: u64,
        key: (u64, u64),
        name: Key,
        fails: bool,
    ) -> Result<u64, Exception> {
        let field = self.field(pointer, name.is_data());
        let original = field.original(pointer);
        let code = self.code(original, modifier, key) & field.mask;
        if self.model.has(Feature::PAuth2) {
            let result = pointer ^ code;
            if fails && !field.is_extended(result) {
                return Err(Exception::pac_fail(name.is_data(), name.is_b()));
            }
            return Ok(result);
        }
        if code == pointer & field.mask {
            return Ok(original);
        }
        // The top two bits of the code tell which key it was.
        let (lsb, error) =
            (if field.mask >> 63 != 0 { 61 } else { 53 }, if name.is_b() { 0b10 } else { 0b01 });
        Ok(original & !(3 << lsb) | error << lsb)
    }
}

/// The implementation-defined code: two rounds of folded multiplication, a few host instructions.
pub fn fast_code(pointer: u64, modifier: u64, (hi, lo): (u64, u64)) -> u64 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let first = fold(pointer ^ lo, FAST_MULTIPLIER);
    fold(first ^ modifier ^ hi, FAST_MULTIPLIER) ^ lo
}

/// Odd, and half of its bits set: that of the golden ratio.
pub const FAST_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
