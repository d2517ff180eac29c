//! An interpreter of the IR over [`CpuState`]: the oracle of tests. It shares nothing with the host code
//! generators, and is written for plainness, not for speed.

use armlet_arm::{CpuState, Exception, Pstate, crypto, mops};

use super::*;

/// What the interpreter needs from outside the registers.
pub trait Machine {
    /// Why an access or system operation did not happen.
    type Fault;

    /// Reads `buf.len()` bytes at a virtual address.
    fn read(&mut self, address: u64, buf: &mut [u8], mem: Mem) -> Result<(), Self::Fault>;

    /// Writes all bytes or none.
    fn write(&mut self, address: u64, data: &[u8], mem: Mem) -> Result<(), Self::Fault>;

    /// Performs a system operation; the result is used by [`SystemOp::Read`] only.
    fn system(&mut self, cpu: &mut CpuState, op: SystemOp) -> Result<u64, Self::Fault>;
}

/// System instructions, which the IR leaves to the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemOp {
    /// MRS.
    Read {
        /// op0 to op2, as in the instruction.
        enc: u16,
    },
    /// MSR (register).
    Write {
        /// op0 to op2, as in the instruction.
        enc: u16,
        /// The register's value.
        value: u64,
    },
    /// MSR (immediate).
    PstateImm {
        /// op1.
        op1: u8,
        /// op2.
        op2: u8,
        /// CRm.
        imm: u8,
    },
    /// SYS.
    Sys {
        /// op0 to op2, as in the instruction.
        enc: u16,
        /// The register's value.
        value: u64,
    },
    /// Pointer authentication, which depends on keys and on the translation regime.
    Pauth {
        /// What to do.
        op: pauth::Operation,
        /// The pointer.
        pointer: u64,
        /// The modifier.
        modifier: u64,
    },
}

/// How a block was left. `cpu.pc` is the address to go on at, or of the instruction that did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit<F> {
    /// By a branch, or past the last instruction.
    Goto,
    /// By an exception.
    Raise(Raise),
    /// By an exception with a syndrome of its own.
    Exception(Exception),
    /// SP is misaligned.
    SpAlignment,
    /// By an exception return.
    Eret,
    /// By an exception return to ELR authenticated by APIAKey or (true) APIBKey.
    EretAuthenticated(bool),
    /// By WFIT or (`event`) WFET; PC is past it.
    WaitUntil {
        /// WFET.
        event: bool,
        /// Value of the counter.
        until: u64,
    },
    /// By a hint; PC is past it.
    Hint(Hint),
    /// By a fault of the machine.
    Fault(F),
}

/// Runs `block`, whose 4 KiB page begins at the virtual address `page`.
pub fn run<M: Machine>(block: &Block, page: u64, cpu: &mut CpuState, machine: &mut M) -> Exit<M::Fault> {
    let (mut temps, mut scratch) = ([0; 256], [0; VECTOR_SCRATCH as usize]);
    let mut frame = Frame { cpu, machine, page, temps: &mut temps, scratch: &mut scratch, offset: 0 };
    for inst in &block.insts {
        if let Err(exit) = frame.step(inst) {
            return exit;
        }
    }
    frame.cpu.pc = page.wrapping_add(u64::from(frame.offset) + 4);
    Exit::Goto
}

pub(super) struct Frame<'a, M> {
    pub(super) cpu: &'a mut CpuState,
    machine: &'a mut M,
    page: u64,
    temps: &'a mut [u64],
    scratch: &'a mut [u128; VECTOR_SCRATCH as usize],
    offset: u16,
}

type Step<F> = Result<(), Exit<F>>;

/// Cuts a value to a width.
pub(super) fn cut(w: Width, v: u64) -> u64 {
    match w {
        Width::W => v & 0xffff_ffff,
        Width::X => v,
    }
}

/// The low `bits` bits of `v`, sign-extended.
fn sign(v: u64, bits: u32) -> u64 {
    ((v << (64 - bits)) as i64 >> (64 - bits)) as u64
}

fn extend(ext: Extend, v: u64, bits: u32) -> u64 {
    match ext {
        Extend::Zero => v,
        Extend::SignW => sign(v, bits) & 0xffff_ffff,
        Extend::SignX => sign(v, bits),
    }
}

/// AddWithCarry: the result and NZCV in bits 31:28.
fn add_with_carry(w: Width, a: u64, b: u64, carry: bool) -> (u64, u32) {
    let (a, b) = (cut(w, a), cut(w, b));
    let wide = u128::from(a) + u128::from(b) + u128::from(carry);
    let r = cut(w, wide as u64);
    let top = w.bits() - 1;
    let v = ((a ^ r) & (b ^ r)) >> top & 1;
    let c = (wide >> w.bits()) as u32 & 1;
    (r, nz(w, r) | c << 29 | (v as u32) << 28)
}

fn nz(w: Width, r: u64) -> u32 {
    ((r >> (w.bits() - 1)) as u32 & 1) << 31 | u32::from(r == 0) << 30
}

fn reverse_bytes(v: u64, lane: u32, bits: u32) -> u64 {
    let mut r = 0;
    for byte in 0..bits / 8 {
        let lanes = lane / 8;
        let to = byte / lanes * lanes + (lanes - 1 - byte % lanes);
        r |= (v >> (8 * byte) & 0xff) << (8 * to);
    }
    r
}

pub(super) fn alu(op: AluOp, w: Width, a: u64, b: u64) -> u64 {
    let (a, b) = (cut(w, a), cut(w, b));
    let n = (b % u64::from(w.bits())) as u32;
    cut(
        w,
        match op {
            AluOp::Add => a.wrapping_add(b),
            AluOp::Sub => a.wrapping_sub(b),
            AluOp::And => a & b,
            AluOp::Or => a | b,
            AluOp::Xor => a ^ b,
            AluOp::AndNot => a & !b,
            AluOp::OrNot => a | !b,
            AluOp::XorNot => a ^ !b,
            AluOp::Shl => a << n,
            AluOp::Shr => a >> n,
            AluOp::Sar => (sign(a, w.bits()) as i64 >> n) as u64,
            AluOp::Ror if n == 0 => a,
            AluOp::Ror => a >> n | a << (w.bits() - n),
            AluOp::Mul => a.wrapping_mul(b),
        },
    )
}

pub(super) fn insert(w: Width, into: u64, s: u64, (lsb, width): (u8, u8)) -> u64 {
    let mask = low_mask(width) << lsb;
    cut(w, (into & !mask) | (s << lsb & mask))
}

fn unary(op: UnaryOp, w: Width, s: u64) -> u64 {
    let s = cut(w, s);
    let bits = w.bits();
    let clz = |v: u64| v.leading_zeros() - (64 - bits);
    cut(
        w,
        match op {
            UnaryOp::Not => !s,
            UnaryOp::Neg => s.wrapping_neg(),
            UnaryOp::Abs => (sign(s, bits) as i64).unsigned_abs(),
            UnaryOp::Cnt => u64::from(s.count_ones()),
            UnaryOp::Ctz => u64::from(s.trailing_zeros().min(bits)),
            UnaryOp::Clz => u64::from(clz(s)),
            // As many bits below the top one as are equal to it.
            UnaryOp::Cls => u64::from(clz(cut(w, s ^ (sign(s, bits) as i64 >> 1) as u64)) - 1),
            UnaryOp::Rbit => s.reverse_bits() >> (64 - bits),
            UnaryOp::Rev => reverse_bytes(s, bits, bits),
            UnaryOp::Rev16 => reverse_bytes(s, 16, bits),
            UnaryOp::Rev32 => reverse_bytes(s, 32, bits),
            UnaryOp::SextB => sign(s, 8),
            UnaryOp::SextH => sign(s, 16),
            UnaryOp::SextW => sign(s, 32),
            UnaryOp::ZextB => s & 0xff,
            UnaryOp::ZextH => s & 0xffff,
            UnaryOp::ZextW => s & 0xffff_ffff,
        },
    )
}

fn divide(signed: bool, w: Width, a: u64, b: u64) -> u64 {
    let (a, b) = (cut(w, a), cut(w, b));
    if b == 0 {
        return 0;
    }
    let q = if signed {
        let bits = w.bits();
        (sign(a, bits) as i64).wrapping_div(sign(b, bits) as i64) as u64
    } else {
        a / b
    };
    cut(w, q)
}

fn low_mask(width: u8) -> u64 {
    u64::MAX >> (64 - u32::from(width))
}

impl<M: Machine> Frame<'_, M> {
    fn reg(&self, r: Reg) -> u64 {
        match r {
            Reg::NONE => 0,
            r if r.is_guest() => self.cpu.x[r.0 as usize],
            r => self.temps[r.0 as usize],
        }
    }

    pub(super) fn get(&self, o: Opnd) -> u64 {
        match o {
            Opnd::Reg(r) => self.reg(r),
            Opnd::Imm(v) => v as u64,
        }
    }

    pub(super) fn set(&mut self, r: Reg, v: u64) {
        match r {
            Reg::NONE => {}
            r if r.is_guest() => self.cpu.x[r.0 as usize] = v,
            r => self.temps[r.0 as usize] = v,
        }
    }

    pub(super) fn v(&self, r: VReg) -> u128 {
        match r {
            0..32 => self.cpu.v[r as usize],
            _ => self.scratch[r as usize - 32],
        }
    }

    pub(super) fn set_v(&mut self, r: VReg, v: u128) {
        match r {
            0..32 => self.cpu.v[r as usize] = v,
            _ => self.scratch[r as usize - 32] = v,
        }
    }

    fn nzcv(&self) -> u32 {
        self.cpu.pstate.bits() & Pstate::NZCV.bits()
    }

    pub(super) fn set_nzcv(&mut self, nzcv: u32) {
        let rest = self.cpu.pstate.bits() & !Pstate::NZCV.bits();
        self.cpu.pstate = Pstate::from_bits_retain(rest | (nzcv & Pstate::NZCV.bits()));
    }

    fn carry(&self) -> bool {
        self.cpu.pstate.contains(Pstate::C)
    }

    /// ConditionHolds.
    pub(super) fn holds(&self, cond: Cond) -> bool {
        cond.holds_for((self.cpu.pstate & Pstate::NZCV).bits().wrapping_shr(28) as u8)
    }

    fn address(&self, a: Addr) -> u64 {
        let index = a.index.map_or(0, |r| self.reg(r) << a.shift);
        self.get(a.base).wrapping_add(index).wrapping_add(i64::from(a.disp) as u64)
    }

    fn leave(&mut self, pc: u64, exit: Exit<M::Fault>) -> Step<M::Fault> {
        self.cpu.pc = pc;
        Err(exit)
    }

    fn here(&self) -> u64 {
        self.page.wrapping_add(u64::from(self.offset))
    }

    /// Turns a machine's refusal into the exit at the current instruction.
    fn fault(&mut self, f: M::Fault) -> Exit<M::Fault> {
        self.cpu.pc = self.here();
        Exit::Fault(f)
    }

    fn load(&mut self, at: u64, bytes: usize, mem: Mem) -> Result<u128, Exit<M::Fault>> {
        let mut buf = [0; 16];
        self.machine.read(at, &mut buf[..bytes], mem).map_err(|f| self.fault(f))?;
        Ok(u128::from_le_bytes(buf))
    }

    fn load_two(&mut self, at: u64, mem: Mem) -> Result<[u128; 2], Exit<M::Fault>> {
        let bytes = 1usize << mem.size;
        let mut buf = [0; 32];
        self.machine.read(at, &mut buf[..2 * bytes], mem).map_err(|f| self.fault(f))?;
        Ok([0, bytes].map(|from| {
            let mut half = [0; 16];
            half[..bytes].copy_from_slice(&buf[from..from + bytes]);
            u128::from_le_bytes(half)
        }))
    }

    fn store(&mut self, at: u64, mem: Mem, values: &[u128]) -> Step<M::Fault> {
        let bytes = 1usize << mem.size;
        let mut data = Vec::with_capacity(32);
        for v in values {
            data.extend_from_slice(&v.to_le_bytes()[..bytes]);
        }
        self.machine.write(at, &data, mem).map_err(|f| self.fault(f))
    }

    fn step(&mut self, inst: &Inst) -> Step<M::Fault> {
        match *inst {
            Inst::Start { offset, .. } => self.offset = offset,
            Inst::Load { .. }
            | Inst::LoadPair { .. }
            | Inst::Store { .. }
            | Inst::StorePair { .. }
            | Inst::LoadV { .. }
            | Inst::LoadVPair { .. }
            | Inst::StoreV { .. }
            | Inst::StoreVPair { .. } => self.memory(inst)?,
            Inst::LoadEx { .. }
            | Inst::StoreEx { .. }
            | Inst::AtomicRmw { .. }
            | Inst::Cas { .. }
            | Inst::CasPair { .. } => self.atomic(inst)?,
            Inst::ClearEx => self.cpu.monitor.address = u64::MAX,
            Inst::Barrier(_) => {}
            Inst::CheckSp if self.cpu.x[31] & 15 != 0 => {
                return self.leave(self.here(), Exit::SpAlignment);
            }
            Inst::CheckSp => {}
            Inst::BranchIf { .. }
            | Inst::Branch { .. }
            | Inst::BranchReg { .. }
            | Inst::Raise(_)
            | Inst::Eret
            | Inst::EretAuthenticated { .. }
            | Inst::WaitUntil { .. }
            | Inst::Hint(_) => self.control(inst)?,
            Inst::Mops { word } => self.move_memory(word)?,
            Inst::Pauth { .. }
            | Inst::SysRead { .. }
            | Inst::SysWrite { .. }
            | Inst::PstateImm { .. }
            | Inst::Sys { .. } => {
                self.system(inst)?;
            }
            _ if self.integer(inst) => {}
            _ => self.vector(inst),
        }
        Ok(())
    }

    /// Integer instructions; false if it is none.
    fn integer(&mut self, inst: &Inst) -> bool {
        let (d, value) = match *inst {
            Inst::Mov { w, d, s } => (d, cut(w, self.get(s))),
            Inst::Alu { op, w, d, a, b } => (d, alu(op, w, self.get(a), self.get(b))),
            Inst::AluFlags { op, w, d, a, b } => (d, self.alu_flags(op, w, self.get(a), self.get(b))),
            Inst::AddCarry { sub, w, d, a, b } => {
                let b = if sub { !self.get(b) } else { self.get(b) };
                (d, add_with_carry(w, self.get(a), b, self.carry()).0)
            }
            Inst::Unary { op, w, d, s } => (d, unary(op, w, self.get(s))),
            Inst::Extract { signed, w, d, s, lsb, width } => {
                let field = cut(w, self.get(s)) >> lsb & low_mask(width);
                (d, cut(w, if signed { sign(field, width.into()) } else { field }))
            }
            Inst::Insert { w, d, into, s, lsb, width } => {
                (d, insert(w, self.get(into), self.get(s), (lsb, width)))
            }
            Inst::Extr { w, d, hi, lo, lsb } => {
                let both = u128::from(cut(w, self.get(hi))) << w.bits() | u128::from(cut(w, self.get(lo)));
                (d, cut(w, (both >> lsb) as u64))
            }
            Inst::MulHigh { signed, d, a, b } => {
                let (a, b) = (self.get(a), self.get(b));
                let high = if signed {
                    (i128::from(a as i64) * i128::from(b as i64)) >> 64
                } else {
                    ((u128::from(a) * u128::from(b)) >> 64) as i128
                };
                (d, high as u64)
            }
            Inst::MinMax { max, signed, w, d, a, b } => {
                let (a, b) = (cut(w, self.get(a)), cut(w, self.get(b)));
                let a_is_less = match signed {
                    true => (sign(a, w.bits()) as i64) < sign(b, w.bits()) as i64,
                    false => a < b,
                };
                (d, if a_is_less != max { a } else { b })
            }
            Inst::Div { signed, w, d, a, b } => (d, divide(signed, w, self.get(a), self.get(b))),
            Inst::Crc32 { c, size, d, acc, data } => {
                let f = if c { crypto::crc32c } else { crypto::crc32 };
                (d, u64::from(f(self.get(acc) as u32, self.get(data), 1 << size)))
            }
            Inst::Select { op, w, d, cond, a, b } => {
                let b = self.get(b);
                let other = match op {
                    SelectOp::None => b,
                    SelectOp::Increment => b.wrapping_add(1),
                    SelectOp::Invert => !b,
                    SelectOp::Negate => b.wrapping_neg(),
                };
                (d, cut(w, if self.holds(cond) { self.get(a) } else { other }))
            }
            Inst::CondCompare { add, w, a, b, cond, nzcv } => {
                let flags = if self.holds(cond) {
                    let (a, b) = (self.get(a), self.get(b));
                    if add { add_with_carry(w, a, b, false).1 } else { add_with_carry(w, a, !b, true).1 }
                } else {
                    u32::from(nzcv) << 28
                };
                self.set_nzcv(flags);
                return true;
            }
            Inst::GetNzcv { d } => (d, self.nzcv().into()),
            Inst::SetNzcv { s } => {
                self.set_nzcv(self.get(s) as u32);
                return true;
            }
            Inst::PcRel { d, offset } => (d, self.page.wrapping_add(offset as u64)),
            _ => return false,
        };
        self.set(d, value);
        true
    }

    fn alu_flags(&mut self, op: FlagOp, w: Width, a: u64, b: u64) -> u64 {
        let (value, flags) = match op {
            FlagOp::Add => add_with_carry(w, a, b, false),
            FlagOp::Sub => add_with_carry(w, a, !b, true),
            FlagOp::Adc => add_with_carry(w, a, b, self.carry()),
            FlagOp::Sbc => add_with_carry(w, a, !b, self.carry()),
            FlagOp::And => (cut(w, a & b), nz(w, cut(w, a & b))),
            FlagOp::AndNot => (cut(w, a & !b), nz(w, cut(w, a & !b))),
        };
        self.set_nzcv(flags);
        value
    }

    fn memory(&mut self, inst: &Inst) -> Step<M::Fault> {
        match *inst {
            Inst::Load { mem, ext, d, addr } => {
                let v = self.load(self.address(addr), 1 << mem.size, mem)?;
                self.set(d, extend(ext, v as u64, 8 << mem.size));
            }
            Inst::LoadPair { mem, ext, d1, d2, addr } => {
                let [a, b] = self.load_two(self.address(addr), mem)?;
                self.set(d1, extend(ext, a as u64, 8 << mem.size));
                self.set(d2, extend(ext, b as u64, 8 << mem.size));
            }
            Inst::Store { mem, s, addr } => {
                self.store(self.address(addr), mem, &[self.get(s).into()])?;
            }
            Inst::StorePair { mem, s1, s2, addr } => {
                self.store(self.address(addr), mem, &[self.get(s1).into(), self.get(s2).into()])?;
            }
            Inst::LoadV { mem, d, addr } => {
                let v = self.load(self.address(addr), 1 << mem.size, mem)?;
                self.set_v(d, v);
            }
            Inst::LoadVPair { mem, d1, d2, addr } => {
                let [a, b] = self.load_two(self.address(addr), mem)?;
                self.set_v(d1, a);
                self.set_v(d2, b);
            }
            Inst::StoreV { mem, s, addr } => self.store(self.address(addr), mem, &[self.v(s)])?,
            Inst::StoreVPair { mem, s1, s2, addr } => {
                self.store(self.address(addr), mem, &[self.v(s1), self.v(s2)])?;
            }
            _ => {}
        }
        Ok(())
    }

    fn atomic(&mut self, inst: &Inst) -> Step<M::Fault> {
        // These are aligned whatever their ordering; the machine checks that for ordered ones. Pairs are as a whole.
        let aligned = |mem: Mem| Mem { order: Order::AcquireRelease, ..mem };
        let pair = |mem: Mem| Mem { align: mem.size + 1, ..aligned(mem) };
        match *inst {
            Inst::LoadEx { mem, d, d2, addr } => {
                let mem = if d2.is_some() { pair(mem) } else { aligned(mem) };
                self.load_exclusive(mem, d, d2, self.address(addr))
            }
            Inst::StoreEx { mem, status, s, s2: None, addr } => {
                self.store_exclusive(aligned(mem), status, &[self.get(s)], self.address(addr))
            }
            Inst::StoreEx { mem, status, s, s2: Some(s2), addr } => {
                let values = [self.get(s), self.get(s2)];
                self.store_exclusive(pair(mem), status, &values, self.address(addr))
            }
            Inst::AtomicRmw { op, mem, d, s, addr } => {
                let (at, mem) = (self.address(addr), aligned(mem));
                let old = self.load(at, 1 << mem.size, mem)? as u64;
                let new = rmw(op, old, self.get(s), 8 << mem.size);
                self.store(at, mem, &[new.into()])?;
                self.set(d, old);
                Ok(())
            }
            Inst::Cas { mem, d, expected, new, addr } => {
                let (at, mem) = (self.address(addr), aligned(mem));
                let old = self.load(at, 1 << mem.size, mem)? as u64;
                // A write is needed whether or not the comparison holds, and may be done (Arm ARM C6.2, CAS).
                let holds = old == self.get(expected) & (u64::MAX >> (64 - (8 << mem.size)));
                self.store(at, mem, &[if holds { self.get(new) } else { old }.into()])?;
                self.set(d, old);
                Ok(())
            }
            Inst::CasPair { mem, d, s, addr } => self.cas_pair(pair(mem), d, s, self.address(addr)),
            _ => Ok(()),
        }
    }

    fn load_exclusive(&mut self, mem: Mem, d: Reg, d2: Option<Reg>, at: u64) -> Step<M::Fault> {
        let Some(d2) = d2 else {
            let v = self.load(at, 1 << mem.size, mem)? as u64;
            self.cpu.monitor = armlet_arm::state::ExclusiveMonitor {
                address: at,
                value_lo: v,
                value_hi: 0,
                size: 1 << mem.size,
            };
            self.set(d, v);
            return Ok(());
        };
        let [a, b] = self.load_two(at, mem)?.map(|v| v as u64);
        let (value_lo, value_hi) = if mem.size == 2 { (a | b << 32, 0) } else { (a, b) };
        self.cpu.monitor =
            armlet_arm::state::ExclusiveMonitor { address: at, value_lo, value_hi, size: 2 << mem.size };
        self.set(d, a);
        self.set(d2, b);
        Ok(())
    }

    fn store_exclusive(&mut self, mem: Mem, status: Reg, values: &[u64], at: u64) -> Step<M::Fault> {
        let monitor = self.cpu.monitor;
        let bytes = (values.len() as u64) << mem.size;
        // The monitor comes before all aborts (AArch64.ExclusiveMonitorsPass leaves that to the implementation).
        let mut stored = monitor.address == at && monitor.size == bytes;
        if stored {
            let mut now = [0; 16];
            self.machine.read(at, &mut now[..bytes as usize], mem).map_err(|f| self.fault(f))?;
            let held = u128::from(monitor.value_lo) | u128::from(monitor.value_hi) << 64;
            stored = u128::from_le_bytes(now) == held;
        }
        if stored {
            let values: Vec<u128> = values.iter().map(|&v| v.into()).collect();
            self.store(at, mem, &values)?;
        }
        self.cpu.monitor.address = u64::MAX;
        self.set(status, u64::from(!stored));
        Ok(())
    }

    /// Register 31 as the second of a pair is the zero register.
    fn cas_pair(&mut self, mem: Mem, d: Reg, s: Reg, at: u64) -> Step<M::Fault> {
        let second = |r: Reg| if r.0 == 30 { Reg::NONE } else { Reg(r.0 + 1) };
        let mask = u64::MAX >> (64 - (8 << mem.size));
        let old = self.load_two(at, mem)?.map(|v| v as u64);
        let expected = [self.reg(d) & mask, self.reg(second(d)) & mask];
        let new = if old == expected { [self.reg(s), self.reg(second(s))] } else { old };
        self.store(at, mem, &new.map(u128::from))?;
        self.set(d, old[0]);
        self.set(second(d), old[1]);
        Ok(())
    }

    fn control(&mut self, inst: &Inst) -> Step<M::Fault> {
        match *inst {
            Inst::BranchIf { test, target } => {
                if self.test(test) {
                    return self.leave(self.page.wrapping_add(target as u64), Exit::Goto);
                }
                Ok(())
            }
            Inst::Branch { target } => self.leave(self.page.wrapping_add(target as u64), Exit::Goto),
            Inst::BranchReg { target, .. } => self.leave(self.get(target), Exit::Goto),
            Inst::Raise(r) => self.leave(self.here(), Exit::Raise(r)),
            Inst::Eret => self.leave(self.here(), Exit::Eret),
            Inst::EretAuthenticated { b } => self.leave(self.here(), Exit::EretAuthenticated(b)),
            Inst::WaitUntil { event, until } => {
                let until = self.get(until);
                self.leave(self.here().wrapping_add(4), Exit::WaitUntil { event, until })
            }
            Inst::Hint(h) => self.leave(self.here().wrapping_add(4), Exit::Hint(h)),
            _ => Ok(()),
        }
    }

    fn test(&self, test: Test) -> bool {
        match test {
            Test::Flags(c) => self.holds(c),
            Test::Zero(w, r) => cut(w, self.reg(r)) == 0,
            Test::NonZero(w, r) => cut(w, self.reg(r)) != 0,
            Test::BitClear(r, n) => self.reg(r) >> n & 1 == 0,
            Test::BitSet(r, n) => self.reg(r) >> n & 1 != 0,
        }
    }

    fn move_memory(&mut self, word: u32) -> Step<M::Fault> {
        let mut bytes = Bytes { cpu: &mut *self.cpu, machine: &mut *self.machine };
        match mops::execute(&mut bytes, word, u64::MAX) {
            Ok(_) => Ok(()),
            Err(mops::Stop::Memory(f)) => Err(self.fault(f)),
            Err(mops::Stop::Exception(e)) => self.leave(self.here(), Exit::Exception(e)),
        }
    }

    fn system(&mut self, inst: &Inst) -> Step<M::Fault> {
        let (d, op) = match *inst {
            Inst::SysRead { d, enc } => (d, SystemOp::Read { enc }),
            Inst::SysWrite { enc, s } => (Reg::NONE, SystemOp::Write { enc, value: self.get(s) }),
            Inst::Sys { enc, s } => (Reg::NONE, SystemOp::Sys { enc, value: self.get(s) }),
            Inst::PstateImm { op1, op2, imm } => (Reg::NONE, SystemOp::PstateImm { op1, op2, imm }),
            Inst::Pauth { op, d, pointer, modifier } => {
                let (pointer, modifier) = (self.get(pointer), self.get(modifier));
                (d, SystemOp::Pauth { op, pointer, modifier })
            }
            _ => return Ok(()),
        };
        let value = self.machine.system(self.cpu, op).map_err(|f| self.fault(f))?;
        self.set(d, value);
        Ok(())
    }
}

/// Memory as memory copy and memory set see it: byte by byte.
struct Bytes<'a, M> {
    cpu: &'a mut CpuState,
    machine: &'a mut M,
}

impl<M: Machine> Bytes<'_, M> {
    fn how(unprivileged: bool) -> Mem {
        Mem { unprivileged, ..Mem::plain(0) }
    }
}

impl<M: Machine> mops::Machine for Bytes<'_, M> {
    type Trouble = M::Fault;

    fn state(&mut self) -> &mut CpuState {
        self.cpu
    }

    fn copy(&mut self, to: u64, from: u64, bytes: u64, manner: mops::Manner) -> Result<u64, M::Fault> {
        let offset = if manner.backward { bytes - 1 } else { 0 };
        let mut byte = [0];
        self.machine.read(from.wrapping_add(offset), &mut byte, Self::how(manner.read_unprivileged))?;
        self.machine.write(to.wrapping_add(offset), &byte, Self::how(manner.write_unprivileged))?;
        Ok(1)
    }

    fn set(&mut self, to: u64, value: u8, _: u64, manner: mops::Manner) -> Result<u64, M::Fault> {
        self.machine.write(to, &[value], Self::how(manner.write_unprivileged))?;
        Ok(1)
    }
}

fn rmw(op: RmwOp, old: u64, s: u64, bits: u32) -> u64 {
    let mask = u64::MAX >> (64 - bits);
    let s = s & mask;
    let (signed_old, signed_s) = (sign(old, bits) as i64, sign(s, bits) as i64);
    mask & match op {
        RmwOp::Add => old.wrapping_add(s),
        RmwOp::Clr => old & !s,
        RmwOp::Eor => old ^ s,
        RmwOp::Set => old | s,
        RmwOp::Smax => signed_old.max(signed_s) as u64,
        RmwOp::Smin => signed_old.min(signed_s) as u64,
        RmwOp::Umax => old.max(s),
        RmwOp::Umin => old.min(s),
        RmwOp::Swp => s,
    }
}

/// A machine without memory or system registers, for vector instructions alone.
struct Nothing;

impl Machine for Nothing {
    type Fault = ();

    fn read(&mut self, _: u64, _: &mut [u8], _: Mem) -> Result<(), ()> {
        Err(())
    }

    fn write(&mut self, _: u64, _: &[u8], _: Mem) -> Result<(), ()> {
        Err(())
    }

    fn system(&mut self, _: &mut CpuState, _: SystemOp) -> Result<u64, ()> {
        Err(())
    }
}

/// Executes one vector instruction on `cpu`. `input` stands for its general register source, and the
/// result is what its general register destination would get.
pub fn vector_instruction(
    inst: &Inst,
    cpu: &mut CpuState,
    scratch: &mut [u128; VECTOR_SCRATCH as usize],
    input: u64,
) -> u64 {
    const RESULT: Reg = Reg(Reg::FIRST_TEMP);
    let mut inst = *inst;
    match &mut inst {
        Inst::VDupGpr { s, .. }
        | Inst::VInsGpr { s, .. }
        | Inst::VFromGpr { s, .. }
        | Inst::IntToF { s, .. }
        | Inst::VHelperGpr { s, .. } => *s = Opnd::Imm(input as i64),
        _ => {}
    }
    if let Inst::FToInt { d, .. } | Inst::VGetLane { d, .. } | Inst::VHelperGpr { d, .. } = &mut inst {
        *d = RESULT;
    }
    let mut temps = [0; RESULT.0 as usize + 1];
    Frame { cpu, machine: &mut Nothing, page: 0, temps: &mut temps, scratch, offset: 0 }.vector(&inst);
    temps[RESULT.0 as usize]
}
