//! Loads and stores of one register or a pair, general or SIMD&FP.

use armlet_arm::{Class, Enc, mops};

use super::fields::*;
use super::{Flow, LiftContext};
use crate::ir::{Addr, Builder, Extend, Inst, Mem, Reg, UnaryOp, Width};

/// Lifts the classes of this module.
pub fn lift(b: &mut Builder, ctx: &LiftContext, enc: Enc, word: u32) -> Option<Flow> {
    match enc.class() {
        Class::LdstPos => {
            let Some(t) = Transfer::single(word) else { return Some(Flow::Next) };
            let offset = i64::from(bits(word, 10, 12)) << t.mem.size;
            indexed(b, ctx, word, t, (offset, Index::Offset));
        }
        Class::LdstUnscaled => immediate(b, ctx, word, Index::Offset),
        Class::LdstImmpost => immediate(b, ctx, word, Index::Post),
        Class::LdstImmpre => immediate(b, ctx, word, Index::Pre),
        Class::LdstUnpriv => {
            let mut t = Transfer::single(word)?;
            t.mem.unprivileged = ctx.el != 0;
            indexed(b, ctx, word, t, (sbits(word, 12, 9), Index::Offset));
        }
        Class::LdstRegoff => register_offset(b, ctx, word)?,
        Class::Loadlit => literal(b, ctx, word),
        Class::LdstnapairOffs | Class::LdstpairOff => pair(b, ctx, word, Index::Offset)?,
        Class::LdstpairPost => pair(b, ctx, word, Index::Post)?,
        Class::LdstpairPre => pair(b, ctx, word, Index::Pre)?,
        _ => return None,
    }
    Some(Flow::Next)
}

/// What is moved, and which way.
#[derive(Clone, Copy)]
struct Transfer {
    vector: bool,
    /// The extension of a load; `None` for a store.
    load: Option<Extend>,
    mem: Mem,
}

impl Transfer {
    /// From the fields size, V and opc of the single-register forms; `None` for prefetches.
    fn single(word: u32) -> Option<Self> {
        let size = bits(word, 30, 2) as u8;
        let opc = bits(word, 22, 2);
        if bit(word, 26) {
            // opc's high bit makes a 128-bit access of size 0.
            let size = if opc & 2 != 0 { 4 } else { size };
            return Some(Self {
                vector: true,
                load: (opc & 1 != 0).then_some(Extend::Zero),
                mem: Mem::plain(size),
            });
        }
        let load = match opc {
            0 => None,
            1 => Some(Extend::Zero),
            2 if size == 3 => return None,
            2 => Some(Extend::SignX),
            _ => Some(Extend::SignW),
        };
        Some(Self { vector: false, load, mem: Mem::plain(size) })
    }

    /// The access itself.
    fn emit(self, b: &mut Builder, reg: u32, addr: Addr) {
        let Self { vector, load, mem } = self;
        let v = reg as u8;
        b.emit(match (vector, load) {
            (true, Some(_)) => Inst::LoadV { mem, d: v, addr },
            (true, None) => Inst::StoreV { mem, s: v, addr },
            (false, Some(ext)) => Inst::Load { mem, ext, d: Builder::dz(reg), addr },
            (false, None) => Inst::Store { mem, s: Builder::xz(reg), addr },
        });
    }
}

/// The forms with a 9-bit offset; prefetches do nothing.
fn immediate(b: &mut Builder, ctx: &LiftContext, word: u32, index: Index) {
    if let Some(t) = Transfer::single(word) {
        indexed(b, ctx, word, t, (sbits(word, 12, 9), index));
    }
}

fn indexed(b: &mut Builder, ctx: &LiftContext, word: u32, t: Transfer, (offset, index): (i64, Index)) {
    let base = rn(word);
    check_sp(b, ctx, base);
    let loads: &[u32] = if !t.vector && t.load.is_some() { &[rd(word)] } else { &[] };
    let early = early_base(b, base, offset, index, loads);
    t.emit(b, rd(word), address(base, offset, index));
    write_back(b, base, offset, index, early);
}

/// Base + register, extended and shifted.
fn register_offset(b: &mut Builder, ctx: &LiftContext, word: u32) -> Option<()> {
    let option = bits(word, 13, 3);
    if option & 2 == 0 {
        return None;
    }
    let Some(t) = Transfer::single(word) else { return Some(()) };
    let base = rn(word);
    check_sp(b, ctx, base);
    let index = (rm(word) != 31).then(|| {
        let m = Reg(rm(word) as u8);
        match option {
            2 => b.unary(UnaryOp::ZextW, Width::X, m),
            6 => b.unary(UnaryOp::SextW, Width::X, m),
            _ => m,
        }
    });
    let shift = if bit(word, 12) { t.mem.size } else { 0 };
    t.emit(b, rd(word), Addr { base: Builder::sp(base).into(), index, shift, disp: 0 });
    Some(())
}

/// LDR (literal), LDRSW (literal), PRFM (literal).
fn literal(b: &mut Builder, ctx: &LiftContext, word: u32) {
    let opc = bits(word, 30, 2) as u8;
    let vector = bit(word, 26);
    let (size, ext) = match opc {
        _ if vector => (2 + opc, Extend::Zero),
        0 => (2, Extend::Zero),
        1 => (3, Extend::Zero),
        2 => (2, Extend::SignX),
        _ => return,
    };
    let at = b.temp();
    b.emit(Inst::PcRel { d: at, offset: i64::from(ctx.offset) + sbits(word, 5, 19) * 4 });
    Transfer { vector, load: Some(ext), mem: Mem::plain(size) }.emit(b, rd(word), Addr::offset(at, 0));
}

/// LDP, STP, LDPSW, LDNP, STNP.
fn pair(b: &mut Builder, ctx: &LiftContext, word: u32, index: Index) -> Option<()> {
    let opc = bits(word, 30, 2) as u8;
    let (vector, load) = (bit(word, 26), bit(word, 22));
    let (size, ext) = match opc {
        _ if vector => (2 + opc, Extend::Zero),
        0 => (2, Extend::Zero),
        1 if load => (2, Extend::SignX),
        2 => (3, Extend::Zero),
        _ => return None,
    };
    let (base, t1, t2) = (rn(word), rd(word), ra(word));
    let offset = sbits(word, 15, 7) << size;
    check_sp(b, ctx, base);
    let loads: &[u32] = if load && !vector { &[t1, t2] } else { &[] };
    let early = early_base(b, base, offset, index, loads);
    let (mem, addr) = (Mem::plain(size), address(base, offset, index));
    b.emit(match (vector, load) {
        (true, true) => Inst::LoadVPair { mem, d1: t1 as u8, d2: t2 as u8, addr },
        (true, false) => Inst::StoreVPair { mem, s1: t1 as u8, s2: t2 as u8, addr },
        (false, true) => {
            let d1 = if t1 == t2 { Reg::NONE } else { Builder::dz(t1) };
            Inst::LoadPair { mem, ext, d1, d2: Builder::dz(t2), addr }
        }
        (false, false) => Inst::StorePair { mem, s1: Builder::xz(t1), s2: Builder::xz(t2), addr },
    });
    write_back(b, base, offset, index, early);
    Some(())
}

/// CPY* and SET* (FEAT_MOPS).
pub fn move_memory(b: &mut Builder, word: u32) -> Option<Flow> {
    if !mops::is_defined(word) {
        return None;
    }
    b.emit(Inst::Mops { word });
    Some(Flow::Next)
}
