//! LD1 to LD4, ST1 to ST4: multiple structures, single structures, replicating loads.
//!
//! All loads go to scratch registers or temporaries first, so that a fault in a later element leaves the
//! destination as it was.

use armlet_arm::{Class, Enc};

use super::fields::*;
use super::{Flow, LiftContext};
use crate::ir::{Addr, AluOp, Builder, Extend, Inst, Mem, Opnd, V2Op, V3Op, VReg, Width};

/// First scratch vector register.
const SCRATCH: VReg = 32;

/// Lifts the classes of this module.
pub fn lift(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    let bytes = match enc.class() {
        Class::Asisdlse | Class::Asisdlsep => multiple(b, ctx, word)?,
        Class::Asisdlso | Class::Asisdlsop => single(b, ctx, word)?,
        _ => return None,
    };
    if matches!(enc.class(), Class::Asisdlsep | Class::Asisdlsop) {
        let step = if rm(word) == 31 { Opnd::Imm(i64::from(bytes)) } else { Builder::xz(rm(word)) };
        let base = Builder::sp(rn(word));
        alu(b, AluOp::Add, Width::X, base, (base.into(), step));
    }
    Some(Flow::Next)
}

/// The registers of a list, which wraps from V31 to V0.
fn list(first: u32, count: usize) -> [VReg; 4] {
    let mut regs = [0; 4];
    for (i, r) in regs.iter_mut().enumerate().take(count) {
        *r = ((first as usize + i) % 32) as VReg;
    }
    regs
}

/// Shape of the data in registers.
#[derive(Clone, Copy)]
struct Shape {
    /// log2 of the bytes of an element.
    es: u8,
    q: bool,
}

impl Shape {
    fn op3(self, b: &mut Builder, op: V3Op, d: VReg, n: VReg, m: VReg) {
        b.emit(Inst::V3 { op, es: self.es, q: self.q, d, n, m });
    }

    /// log2 of the bytes of a register.
    fn size(self) -> u8 {
        if self.q { 4 } else { 3 }
    }
}

/// LD1 to LD4 and ST1 to ST4 (multiple structures). Returns the bytes moved.
fn multiple(b: &mut Builder, ctx: &LiftContext, word: u32) -> Option<u32> {
    let (count, structured) = match bits(word, 12, 4) {
        0 => (4, true),
        2 => (4, false),
        4 => (3, true),
        6 => (3, false),
        7 => (1, false),
        8 => (2, true),
        10 => (2, false),
        _ => return None,
    };
    let shape = Shape { es: bits(word, 10, 2) as u8, q: bit(word, 30) };
    if structured && shape.es == 3 && !shape.q {
        return None;
    }
    check_sp(b, ctx, rn(word));
    let base = Builder::sp(rn(word));
    let regs = list(rd(word), count);
    let regs = &regs[..count];
    if bit(word, 22) {
        load_run(b, base.into(), shape, count);
        match (structured, count) {
            (true, 2) => deinterleave2(b, shape, regs),
            (true, 3) => through_tables(b, shape, regs, Direction::Load),
            (true, _) => deinterleave4(b, shape, regs),
            _ => move_out(b, regs),
        }
    } else {
        let from = match (structured, count) {
            (true, 2) => interleave2(b, shape, regs),
            (true, 3) => {
                through_tables(b, shape, regs, Direction::Store);
                [SCRATCH, SCRATCH + 1, SCRATCH + 2, 0]
            }
            (true, _) => interleave4(b, shape, regs),
            _ => list(rd(word), count),
        };
        store_run(b, base.into(), shape, &from[..count]);
    }
    Some((count as u32) << shape.size())
}

fn run_address(base: Opnd, size: u8, i: usize) -> Addr {
    Addr { base, index: None, shift: 0, disp: (i << size) as i32 }
}

/// Loads `count` whole registers one after the other into the scratch registers.
fn load_run(b: &mut Builder, base: Opnd, shape: Shape, count: usize) {
    let mem = Mem { align: shape.es, ..Mem::plain(shape.size()) };
    for i in (0..count).step_by(2) {
        let (d1, addr) = (SCRATCH + i as VReg, run_address(base, mem.size, i));
        b.emit(if i + 1 < count {
            Inst::LoadVPair { mem, d1, d2: d1 + 1, addr }
        } else {
            Inst::LoadV { mem, d: d1, addr }
        });
    }
}

fn store_run(b: &mut Builder, base: Opnd, shape: Shape, regs: &[VReg]) {
    let mem = Mem { align: shape.es, ..Mem::plain(shape.size()) };
    for (i, two) in regs.chunks(2).enumerate() {
        let addr = run_address(base, mem.size, 2 * i);
        b.emit(match *two {
            [s1, s2] => Inst::StoreVPair { mem, s1, s2, addr },
            _ => Inst::StoreV { mem, s: two[0], addr },
        });
    }
}

fn move_out(b: &mut Builder, regs: &[VReg]) {
    for (i, &d) in regs.iter().enumerate() {
        b.emit(Inst::V2 { op: V2Op::Mov, es: 0, q: true, d, n: SCRATCH + i as VReg });
    }
}

fn deinterleave2(b: &mut Builder, shape: Shape, regs: &[VReg]) {
    shape.op3(b, V3Op::Uzp1, regs[0], SCRATCH, SCRATCH + 1);
    shape.op3(b, V3Op::Uzp2, regs[1], SCRATCH, SCRATCH + 1);
}

fn interleave2(b: &mut Builder, shape: Shape, regs: &[VReg]) -> [VReg; 4] {
    shape.op3(b, V3Op::Zip1, SCRATCH, regs[0], regs[1]);
    shape.op3(b, V3Op::Zip2, SCRATCH + 1, regs[0], regs[1]);
    [SCRATCH, SCRATCH + 1, 0, 0]
}

fn deinterleave4(b: &mut Builder, shape: Shape, regs: &[VReg]) {
    let [even_lo, even_hi, odd_lo, odd_hi] = [SCRATCH + 4, SCRATCH + 5, SCRATCH + 6, SCRATCH + 7];
    shape.op3(b, V3Op::Uzp1, even_lo, SCRATCH, SCRATCH + 1);
    shape.op3(b, V3Op::Uzp1, even_hi, SCRATCH + 2, SCRATCH + 3);
    shape.op3(b, V3Op::Uzp2, odd_lo, SCRATCH, SCRATCH + 1);
    shape.op3(b, V3Op::Uzp2, odd_hi, SCRATCH + 2, SCRATCH + 3);
    shape.op3(b, V3Op::Uzp1, regs[0], even_lo, even_hi);
    shape.op3(b, V3Op::Uzp1, regs[1], odd_lo, odd_hi);
    shape.op3(b, V3Op::Uzp2, regs[2], even_lo, even_hi);
    shape.op3(b, V3Op::Uzp2, regs[3], odd_lo, odd_hi);
}

fn interleave4(b: &mut Builder, shape: Shape, regs: &[VReg]) -> [VReg; 4] {
    let [a, c, d, e] = [SCRATCH + 4, SCRATCH + 5, SCRATCH + 6, SCRATCH + 7];
    shape.op3(b, V3Op::Zip1, a, regs[0], regs[2]);
    shape.op3(b, V3Op::Zip2, c, regs[0], regs[2]);
    shape.op3(b, V3Op::Zip1, d, regs[1], regs[3]);
    shape.op3(b, V3Op::Zip2, e, regs[1], regs[3]);
    shape.op3(b, V3Op::Zip1, SCRATCH, a, d);
    shape.op3(b, V3Op::Zip2, SCRATCH + 1, a, d);
    shape.op3(b, V3Op::Zip1, SCRATCH + 2, c, e);
    shape.op3(b, V3Op::Zip2, SCRATCH + 3, c, e);
    [SCRATCH, SCRATCH + 1, SCRATCH + 2, SCRATCH + 3]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Load,
    Store,
}

/// The table-lookup indices that take from source register `source` the bytes that target register `target`
/// wants; bytes that come from other sources get an index out of range, which gives 0.
fn three_way_indices(shape: Shape, direction: Direction, source: usize, target: usize) -> u128 {
    let (element, register) = (1usize << shape.es, 1usize << shape.size());
    let mut indices = u128::MAX;
    for byte in 0..register {
        // Where this byte of the target is in the source side, as if its registers were one run.
        let from = match direction {
            Direction::Load => {
                let structure = byte / element;
                (structure * 3 + target) * element + byte % element
            }
            Direction::Store => {
                let at = target * register + byte;
                let (structure, member) = (at / element / 3, at / element % 3);
                member * register + structure * element + byte % element
            }
        };
        if from / register == source {
            let shift = 8 * byte;
            indices = (indices & !(0xff << shift)) | (((from % register) as u128) << shift);
        }
    }
    indices
}

/// LD3 and ST3: each target register gathers bytes from three sources. Loads read the scratch registers and write
/// `regs`; stores the other way round.
fn through_tables(b: &mut Builder, shape: Shape, regs: &[VReg], direction: Direction) {
    let (index, part) = (SCRATCH + 6, SCRATCH + 7);
    let gathered: [VReg; 3] = match direction {
        Direction::Load => [SCRATCH, SCRATCH + 1, SCRATCH + 2],
        Direction::Store => [regs[0], regs[1], regs[2]],
    };
    for (target, &reg) in regs.iter().enumerate() {
        let scratch = SCRATCH + target as VReg;
        let d = if direction == Direction::Load { reg } else { scratch };
        let sum = SCRATCH + 5;
        for (source, &n) in gathered.iter().enumerate() {
            let k = three_way_indices(shape, direction, source, target);
            b.emit(Inst::VConst { d: index, lo: k as u64, hi: (k >> 64) as u64 });
            let to = if source == 0 { sum } else { part };
            shape.op3(b, V3Op::Tbl1, to, n, index);
            match source {
                0 => {}
                1 => shape.op3(b, V3Op::Orr, sum, sum, part),
                _ => shape.op3(b, V3Op::Orr, d, sum, part),
            }
        }
    }
}

/// LD1 to LD4 and ST1 to ST4 (single structure), LD1R to LD4R. Returns the bytes moved.
fn single(b: &mut Builder, ctx: &LiftContext, word: u32) -> Option<u32> {
    let opcode = bits(word, 13, 3);
    let (q, s, size) = (bits(word, 30, 1), bits(word, 12, 1), bits(word, 10, 2));
    let load = bit(word, 22);
    let count = ((opcode & 1) * 2 + bits(word, 21, 1) + 1) as usize;
    let replicate = opcode >= 6;
    let (es, lane) = match opcode >> 1 {
        0 => (0, q << 3 | s << 2 | size),
        1 if size & 1 == 0 => (1, q << 2 | s << 1 | size >> 1),
        2 if size == 0 => (2, q << 1 | s),
        2 if size == 1 && s == 0 => (3, q),
        3 if load && s == 0 => (size as u8, 0),
        _ => return None,
    };
    let lane = lane as u8;
    check_sp(b, ctx, rn(word));
    let base = Opnd::Reg(Builder::sp(rn(word)));
    let regs = list(rd(word), count);
    for (i, &s) in regs.iter().enumerate().take(count) {
        let (mem, addr) = (Mem::plain(es), run_address(base, es, i));
        if load {
            b.emit(Inst::LoadV { mem, d: SCRATCH + i as VReg, addr });
        } else if lane == 0 {
            b.emit(Inst::StoreV { mem, s, addr });
        } else {
            let t = b.temp();
            b.emit(Inst::VGetLane { es, ext: Extend::Zero, d: t, n: s, lane });
            b.emit(Inst::Store { mem, s: t.into(), addr });
        }
    }
    if load {
        for (i, &d) in regs.iter().enumerate().take(count) {
            let n = SCRATCH + i as VReg;
            b.emit(if replicate {
                Inst::VDupLane { es, q: q != 0, d, n, lane: 0 }
            } else {
                Inst::VInsLane { es, d, dl: lane, n, nl: 0 }
            });
        }
    }
    Some((count as u32) << es)
}
