//! Ordered and exclusive accesses, and the atomic memory operations of FEAT_LSE.

use armlet_arm::{Class, Enc};

use super::fields::*;
use super::{Flow, LiftContext};
use crate::ir::{Addr, Builder, Extend, Inst, Mem, Order, Reg, RmwOp};

/// Lifts the classes of this module.
pub fn lift(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    if enc.class() == Class::Comswappr && (bit(word, 16) || bit(word, 0)) {
        return None; // CASP needs even registers.
    }
    check_sp(b, ctx, rn(word));
    match enc.class() {
        Class::Ldstord => ordered(b, word),
        Class::LdapstlUnscaled => ordered_unscaled(b, word)?,
        Class::Ldstexclr | Class::Ldstexclp => exclusive(b, word),
        Class::Memop => memory_operation(b, word)?,
        Class::Comswap => compare_and_swap(b, word),
        Class::Comswappr => compare_and_swap_pair(b, word),
        _ => return None,
    }
    Some(Flow::Next)
}

fn mem(size: u32, order: Order) -> Mem {
    Mem { order, ..Mem::plain(size as u8) }
}

fn order(acquire: bool, release: bool) -> Order {
    match (acquire, release) {
        (false, false) => Order::Plain,
        (true, false) => Order::Acquire,
        (false, true) => Order::Release,
        (true, true) => Order::AcquireRelease,
    }
}

fn at(word: u32) -> Addr {
    Addr::offset(Builder::sp(rn(word)), 0)
}

/// LDAR, STLR, and the limited-ordering LDLAR and STLLR, which may be stronger than they say.
fn ordered(b: &mut Builder, word: u32) {
    let size = bits(word, 30, 2);
    let addr = at(word);
    b.emit(if bit(word, 22) {
        Inst::Load { mem: mem(size, Order::Acquire), ext: Extend::Zero, d: Builder::dz(rd(word)), addr }
    } else {
        Inst::Store { mem: mem(size, Order::Release), s: Builder::xz(rd(word)), addr }
    });
}

/// LDAPUR, STLUR.
fn ordered_unscaled(b: &mut Builder, word: u32) -> Option<()> {
    let size = bits(word, 30, 2);
    let addr = Addr::offset(Builder::sp(rn(word)), sbits(word, 12, 9) as i32);
    let ext = match bits(word, 22, 2) {
        0 => {
            b.emit(Inst::Store { mem: mem(size, Order::Release), s: Builder::xz(rd(word)), addr });
            return Some(());
        }
        1 => Extend::Zero,
        2 => Extend::SignX,
        _ => Extend::SignW,
    };
    b.emit(Inst::Load { mem: mem(size, Order::AcquirePc), ext, d: Builder::dz(rd(word)), addr });
    Some(())
}

/// LDXR, STXR, LDXP, STXP and their acquire and release forms.
fn exclusive(b: &mut Builder, word: u32) {
    let (load, ordered, pair) = (bit(word, 22), bit(word, 15), bit(word, 21));
    let mem = mem(bits(word, 30, 2), order(load && ordered, !load && ordered));
    let (t, t2, addr) = (rd(word), ra(word), at(word));
    b.emit(if load {
        let d = if pair && t == t2 { Reg::NONE } else { Builder::dz(t) };
        Inst::LoadEx { mem, d, d2: pair.then(|| Builder::dz(t2)), addr }
    } else {
        let s2 = pair.then(|| Builder::xz(t2));
        Inst::StoreEx { mem, status: Builder::dz(rm(word)), s: Builder::xz(t), s2, addr }
    });
}

/// LDAPR, SWP and LDADD to LDUMIN; ST… are the same with Rt = 31.
fn memory_operation(b: &mut Builder, word: u32) -> Option<()> {
    let size = bits(word, 30, 2);
    let (d, s, addr) = (Builder::dz(rd(word)), Builder::xz(rm(word)), at(word));
    let op = match bits(word, 12, 4) {
        0 => RmwOp::Add,
        1 => RmwOp::Clr,
        2 => RmwOp::Eor,
        3 => RmwOp::Set,
        4 => RmwOp::Smax,
        5 => RmwOp::Smin,
        6 => RmwOp::Umax,
        7 => RmwOp::Umin,
        8 => RmwOp::Swp,
        12 => {
            b.emit(Inst::Load { mem: mem(size, Order::AcquirePc), ext: Extend::Zero, d, addr });
            return Some(());
        }
        _ => return None,
    };
    let mem = mem(size, order(bit(word, 23), bit(word, 22)));
    b.emit(Inst::AtomicRmw { op, mem, d, s, addr });
    Some(())
}

/// CAS.
fn compare_and_swap(b: &mut Builder, word: u32) {
    b.emit(Inst::Cas {
        mem: mem(bits(word, 30, 2), order(bit(word, 22), bit(word, 15))),
        d: Builder::dz(rm(word)),
        expected: Builder::xz(rm(word)),
        new: Builder::xz(rd(word)),
        addr: at(word),
    });
}

/// CASP.
fn compare_and_swap_pair(b: &mut Builder, word: u32) {
    b.emit(Inst::CasPair {
        mem: mem(2 + bits(word, 30, 1), order(bit(word, 22), bit(word, 15))),
        d: Reg(rm(word) as u8),
        s: Reg(rd(word) as u8),
        addr: at(word),
    });
}
