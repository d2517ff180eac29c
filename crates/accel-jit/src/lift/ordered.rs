//! Ordered accesses of FEAT_LRCPC3: pairs, vectors, write-back.

use armlet_arm::{Class, Enc};

use super::fields::*;
use super::{Flow, LiftContext};
use crate::ir::{Addr, Builder, Extend, Inst, Mem, Order, Reg};

/// Lifts the classes of this module.
pub fn lift(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    check_sp(b, ctx, rn(word));
    match enc.class() {
        Class::LdapstlSimd => vector(b, word),
        Class::LdapstlWriteback => with_write_back(b, word),
        Class::Ldiappstilp => pair(b, word),
        Class::Asisdlso => element(b, word),
        _ => return None,
    }
    Some(Flow::Next)
}

fn mem(size: u8, load: bool) -> Mem {
    let order = if load { Order::AcquirePc } else { Order::Release };
    Mem { order, ..Mem::plain(size) }
}

/// LDAPUR, STLUR (SIMD&FP).
fn vector(b: &mut Builder, word: u32) {
    // opc's high bit makes a 128-bit access of size 0.
    let size = if bit(word, 23) { 4 } else { bits(word, 30, 2) as u8 };
    let (load, addr) = (bit(word, 22), Addr::offset(Builder::sp(rn(word)), sbits(word, 12, 9) as i32));
    let (mem, v) = (mem(size, load), rd(word) as u8);
    b.emit(if load { Inst::LoadV { mem, d: v, addr } } else { Inst::StoreV { mem, s: v, addr } });
}

/// LDAPR behind which the base rises, STLR before which it falls.
fn with_write_back(b: &mut Builder, word: u32) {
    let (size, load, base) = (bits(word, 30, 2) as u8, bit(word, 22), rn(word));
    let (mem, bytes) = (mem(size, load), 1i64 << size);
    let (offset, index) = if load { (bytes, Index::Post) } else { (-bytes, Index::Pre) };
    let loads: &[u32] = if load { &[rd(word)] } else { &[] };
    let early = early_base(b, base, offset, index, loads);
    let addr = address(base, offset, index);
    b.emit(if load {
        Inst::Load { mem, ext: Extend::Zero, d: Builder::dz(rd(word)), addr }
    } else {
        Inst::Store { mem, s: Builder::xz(rd(word)), addr }
    });
    write_back(b, base, offset, index, early);
}

/// LDIAPP, STILP.
fn pair(b: &mut Builder, word: u32) {
    let (size, load, base) = (2 + bits(word, 30, 1) as u8, bit(word, 22), rn(word));
    let (t1, t2) = (rd(word), rm(word));
    let (mem, bytes) = (mem(size, load), 2i64 << size);
    let (offset, index) = match (bit(word, 12), load) {
        (true, _) => (0, Index::Offset),
        (false, true) => (bytes, Index::Post),
        (false, false) => (-bytes, Index::Pre),
    };
    let loads: &[u32] = if load { &[t1, t2] } else { &[] };
    let early = early_base(b, base, offset, index, loads);
    let addr = address(base, offset, index);
    b.emit(if load {
        let d1 = if t1 == t2 { Reg::NONE } else { Builder::dz(t1) };
        Inst::LoadPair { mem, ext: Extend::Zero, d1, d2: Builder::dz(t2), addr }
    } else {
        Inst::StorePair { mem, s1: Builder::xz(t1), s2: Builder::xz(t2), addr }
    });
    write_back(b, base, offset, index, early);
}

/// LDAP1, STL1: one 64-bit element of a vector register.
fn element(b: &mut Builder, word: u32) {
    let (lane, v, addr) = (bits(word, 30, 1) as u8, rd(word) as u8, Addr::offset(Builder::sp(rn(word)), 0));
    let t = b.temp();
    if bit(word, 22) {
        b.emit(Inst::Load { mem: mem(3, true), ext: Extend::Zero, d: t, addr });
        b.emit(Inst::VInsGpr { es: 3, d: v, lane, s: t.into() });
    } else {
        b.emit(Inst::VGetLane { es: 3, ext: Extend::Zero, d: t, n: v, lane });
        b.emit(Inst::Store { mem: mem(3, false), s: t.into(), addr });
    }
}
