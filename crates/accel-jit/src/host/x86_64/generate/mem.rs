//! Loads and stores through the software TLB.
//!
//! A probe compares the page of the access's last byte with the entry of its first byte's page: it fails
//! if the page is not there *or* the access crosses into another, so unaligned accesses need no test of
//! their own. Where alignment is demanded the low bits stay in the comparison instead.

use armlet_arm::mops;

use super::locate::{Loc, spill_slot};
use super::vector::X0;
use super::*;
use crate::mmu::{LINES, NO_COPY, Place, SideEntry, SlowAccess, TlbSet};
use crate::runtime::state::JitState;

/// NOT C in the form in which NZCV is kept.
pub(super) const NOT_CARRY: i32 = 0x100;

/// Where the data of an access is, and how to get at the slow path.
pub(super) struct Probed {
    /// Host memory operand.
    pub host: M,
    /// What the slow path wants, if the access can miss.
    pub slow: Option<Slow>,
    /// A scratch register that is free.
    pub free: Gpr,
}

#[derive(Clone, Copy)]
pub(super) struct Slow {
    /// The virtual address, valid until a pinned or scratch register changes.
    pub address: M,
    /// To be bound by the slow path, unless somebody else does.
    pub miss: Option<Fixup>,
}

#[derive(Clone, Copy)]
pub(super) struct Probe {
    /// What one element is a multiple of.
    pub element: u8,
    /// Of all.
    pub bytes: u8,
    pub write: bool,
    pub aligned: bool,
    pub unprivileged: bool,
}

impl Generator {
    pub(super) fn memory(&mut self, inst: &Inst) {
        if self.options.watch {
            self.watch(inst);
        }
        match *inst {
            Inst::CheckSp => self.check_sp(),
            Inst::Load { mem, ext, d, addr } => self.load(mem, ext, d, addr),
            Inst::LoadPair { mem, ext, d1, d2, addr } => self.load_pair(mem, ext, (d1, d2), addr),
            Inst::Store { mem, s, addr } => self.store(mem, s, addr),
            Inst::StorePair { mem, s1, s2, addr } => self.store_pair(mem, (s1, s2), addr),
            Inst::LoadV { mem, d, addr } => self.load_v(mem, d, None, addr),
            Inst::LoadVPair { mem, d1, d2, addr } => self.load_v(mem, d1, Some(d2), addr),
            Inst::StoreV { mem, s, addr } => self.store_v(mem, s, None, addr),
            Inst::StoreVPair { mem, s1, s2, addr } => self.store_v(mem, s1, Some(s2), addr),
            Inst::LoadEx { mem, d, d2: None, addr } => self.load_exclusive(mem, d, addr),
            Inst::LoadEx { mem, d, d2: Some(d2), addr } => self.load_exclusive_pair(mem, (d, d2), addr),
            Inst::StoreEx { mem, status, s, s2: None, addr } => self.store_exclusive(mem, status, s, addr),
            Inst::StoreEx { mem, status, s, s2: Some(s2), addr } => {
                self.store_exclusive_pair(mem, status, (s, s2), addr);
            }
            Inst::ClearEx => {
                self.asm.store_imm(true, field(std::mem::offset_of!(JitState, cpu.monitor.address)), -1);
            }
            Inst::AtomicRmw { op, mem, d, s, addr } => self.atomic(op, mem, d, s, addr),
            Inst::Cas { mem, d, expected, new, addr } => self.cas(mem, d, expected, new, addr),
            Inst::CasPair { mem, d, s, addr } => self.cas_pair(mem, d, s, addr),
            Inst::Mops { word } => self.move_memory(word),
            Inst::Barrier(b) => self.barrier(b),
            _ => unreachable!("not a memory instruction"),
        }
    }

    /// Asks whether the access may be made; leaves if not.
    fn watch(&mut self, inst: &Inst) {
        let Some(a) = inst.any_access() else { return };
        self.clobber_flags();
        self.address_in_rax(a.addr);
        self.locations.free_scratch();
        self.asm.push_imm(i32::from(a.bytes) | if a.read { 0x100 } else { 0 });
        let pair = a.bytes > 1 << a.mem.size;
        self.asm.push_imm(
            self.describe(a.mem, a.write).with_pair(pair).with_atomic(a.atomic).with_update(a.read).bits(),
        );
        self.call_thunk(self.thunks.watch);
        self.pop_words(2);
        self.vectors.clear();
    }

    fn check_sp(&mut self) {
        if std::mem::replace(&mut self.sp_aligned, true) {
            return;
        }
        self.clobber_flags();
        self.asm.test_imm(false, Rm::from(R13), 15);
        let bad = self.asm.jcc(Cc::NE);
        let offset = i64::from(self.offset);
        self.later(Cold::Leave { from: bad, exit: Exit::SpAlignment, offset });
    }

    pub(super) fn describe(&self, mem: Mem, write: bool) -> SlowAccess {
        SlowAccess::new(self.offset, mem.size)
            .with_align(mem.align)
            .with_write(write)
            .with_unprivileged(mem.unprivileged)
            .with_aligned(mem.order != Order::Plain || self.options.align_check)
    }

    pub(super) fn probe_for(&self, mem: Mem, count: u8, write: bool) -> Probe {
        Probe {
            element: 1 << mem.align,
            bytes: count << mem.size,
            write,
            aligned: mem.order != Order::Plain || self.options.align_check,
            unprivileged: mem.unprivileged,
        }
    }

    /// The address as one host operand: base in a register (rax if it has none), constant displacement.
    fn address(&mut self, addr: Addr) -> M {
        let base = self.value(addr.base, RAX);
        match addr.index {
            None => M::at(base, addr.disp),
            Some(i) if addr.shift <= 3 => {
                let m = match self.loc(i) {
                    Loc::Host(gi) => M::indexed(base, gi, addr.shift, addr.disp),
                    Loc::Memory(m) => {
                        let t = self.scratch();
                        self.asm.load(true, t, m);
                        M::indexed(base, t, addr.shift, addr.disp)
                    }
                };
                self.asm.lea(true, RAX, m);
                M::at(RAX, 0)
            }
            Some(i) => {
                let t = self.scratch();
                self.move_into(Width::X, t, Opnd::Reg(i));
                self.asm.shift_imm(Shift::Shl, true, t, addr.shift);
                self.asm.lea(true, RAX, M::indexed(base, t, 0, addr.disp));
                M::at(RAX, 0)
            }
        }
    }

    /// An index in memory, or one that is shifted by 4, takes a scratch register of its own and gives it
    /// back as soon as the address is in rax.
    pub(super) fn address_then_scratch(&mut self, addr: Addr) -> (M, Gpr, Gpr) {
        let needs = match addr.index {
            Some(i) => addr.shift > 3 || matches!(self.loc(i), Loc::Memory(_)),
            None => false,
        };
        if needs {
            let address = self.address(addr);
            // The index's scratch register is dead now: use it as the first of the two. It took none if it is
            // the base as well, of which there is a copy now.
            let s = match self.locations.taken_scratch() {
                Some(s) => s,
                None => self.scratch(),
            };
            let t = self.scratch();
            return (address, s, t);
        }
        let s = self.scratch();
        let t = self.scratch();
        // Taking scratch registers may have moved the index to memory.
        let moved = matches!(addr.index, Some(i) if matches!(self.loc(i), Loc::Memory(_)));
        if moved && let Some(i) = addr.index {
            self.move_into(Width::X, s, Opnd::Reg(i));
            let base = self.value(addr.base, RAX);
            self.asm.lea(true, RAX, M::indexed(base, s, addr.shift, addr.disp));
            return (M::at(RAX, 0), s, t);
        }
        let address = self.address(addr);
        (address, s, t)
    }

    fn probe(&mut self, addr: Addr, p: Probe) -> Probed {
        if !p.aligned && !p.unprivileged {
            self.accesses += 1;
            if let Some(distance) = self.window_over(addr, p.bytes, p.write) {
                return self.inside_window(addr, distance);
            }
            if let (Opnd::Reg(base), Some(stretch)) = (addr.base, self.window_ahead()) {
                return self.open_window(base, addr.disp, stretch, p.write);
            }
            if let Some(site) = self.site_for(p) {
                self.clobber_flags();
                let (address, s, t) = self.address_then_scratch(addr);
                return self.probe_site(site, address, p, (s, t));
            }
        }
        self.clobber_flags();
        let (address, s, t) = self.address_then_scratch(addr);
        self.probe_at(address, p, (s, t))
    }

    /// An access that needs no probe.
    fn inside_window(&mut self, addr: Addr, distance: Gpr) -> Probed {
        let free = self.scratch();
        let base = self.value(addr.base, RAX);
        let host = M { base, index: Some((distance, 0)), disp: addr.disp };
        Probed { host, slow: None, free }
    }

    /// Probes for all of `stretch` and keeps the distance.
    fn open_window(&mut self, base: Reg, disp: i32, (lo, hi): (i32, i32), write: bool) -> Probed {
        self.clobber_flags();
        let (s, t) = (self.scratch(), self.scratch());
        let g = self.value(Opnd::Reg(base), RAX);
        let retry = self.asm.len() as u32;
        let p = Probe { element: 1, bytes: 1, write, aligned: false, unprivileged: false };
        let miss = self.compare_tag(M::at(g, lo), hi - lo - 1, p, (s, t));
        let index = self.side_table.len() as u32;
        self.side_table.push(SideEntry {
            access: SlowAccess::new(self.offset, 0).with_write(write),
            resume: retry,
            otherwise: 0,
            window: (hi - lo) as u16,
            base: g.0,
            disp: lo,
            values: [Place::None; 2],
            copies: [NO_COPY; 2],
            carried: 0,
        });
        self.later(Cold::Window { from: miss, index, offset: self.offset, registers: (s, t) });
        self.keep_window(s, base, (lo, hi), write);
        Probed { host: M { base: g, index: Some((s, 0)), disp }, slow: None, free: t }
    }

    pub(super) fn probe_at(&mut self, address: M, p: Probe, (s, t): (Gpr, Gpr)) -> Probed {
        // Aligned elements do not cross pages by themselves: look at the last one's first byte.
        let last = i32::from(if p.aligned { p.bytes - p.element } else { p.bytes - 1 });
        let miss = self.compare_tag(address, last, p, (s, t));
        let host = M { base: address.base, index: Some((s, 0)), disp: address.disp };
        Probed { host, slow: Some(Slow { address, miss: Some(miss) }), free: t }
    }

    /// Looks up the page of `address` and compares it with that of the byte `last` behind. s becomes the host's
    /// distance; the jump is taken if the TLB does not know.
    pub(super) fn compare_tag(&mut self, address: M, last: i32, p: Probe, (s, t): (Gpr, Gpr)) -> Fixup {
        if address.disp == 0 {
            self.asm.rorx(true, s, address.base, 8);
        } else {
            self.asm.lea(true, s, address);
            self.asm.rorx(true, s, s, 8);
        }
        self.asm.op_imm(Op2::And, false, s, (LINES as i32 - 1) << 4);
        self.asm.lea(true, t, M::at(address.base, address.disp.wrapping_add(last)));
        let mask = if p.aligned { -4096 | (i32::from(p.element) - 1) } else { -4096 };
        self.asm.op_imm(Op2::And, true, t, mask);
        let table = if p.write {
            std::mem::offset_of!(TlbSet, write) as i32
        } else {
            std::mem::offset_of!(TlbSet, read) as i32
        };
        let entry = if p.unprivileged {
            self.asm.op(Op2::Add, true, s, field(std::mem::offset_of!(JitState, tlb_unprivileged)));
            M::at(s, table)
        } else {
            M::indexed(R15, s, 0, table)
        };
        self.asm.op(Op2::Cmp, true, t, entry);
        let miss = self.asm.jcc(Cc::NE);
        self.carried_at_miss = self.carried_now();
        self.asm.load(true, s, M { disp: entry.disp + 8, ..entry });
        miss
    }

    // ---- plain loads and stores ----

    pub(super) fn load_extended(&mut self, size: u8, ext: Extend, g: Gpr, m: M) {
        let x = ext == Extend::SignX;
        match (size, ext) {
            (0, Extend::Zero) => self.asm.movzx8(g, m),
            (1, Extend::Zero) => self.asm.movzx16(g, m),
            (0, _) => self.asm.movsx8(x, g, m),
            (1, _) => self.asm.movsx16(x, g, m),
            (2, Extend::SignX) => self.asm.movsxd(g, m),
            (2, _) => self.asm.load(false, g, m),
            _ => self.asm.load(true, g, m),
        }
    }

    /// The slow path of an access that ends here: all that it has to know goes to the side table.
    pub(super) fn slow_access(
        &mut self,
        p: &Probed,
        access: SlowAccess,
        values: [Place; 2],
        copies: [u8; 2],
    ) {
        let Some(Slow { address, miss }) = p.slow else { return };
        let index = self.side_table.len() as u32;
        let dirty = self.carried_at_miss.dirty != 0;
        let carried = if dirty { self.note_carried(self.carried_at_miss) } else { 0 };
        self.side_table.push(SideEntry {
            access,
            resume: self.asm.len() as u32,
            otherwise: 0,
            window: 0,
            base: address.base.0,
            disp: address.disp,
            values,
            copies,
            carried,
        });
        if let Some(from) = miss {
            self.later(Cold::Access { from, index });
        }
    }

    /// Calls the slow path of entry `index` of the side table.
    pub(super) fn call_access(&mut self, index: u32) {
        let vectors = self.side_table[index as usize].values.iter().any(|v| matches!(v, Place::Vector(_)));
        let plain = !vectors && self.carried_now().is_nothing();
        self.asm.call_to(if plain { self.thunks.access_plain } else { self.thunks.access });
        self.asm.word((self.numbers.entry + index) as i32);
    }

    fn load(&mut self, mem: Mem, ext: Extend, d: Reg, addr: Addr) {
        self.before_load(mem);
        let p = self.probe(addr, self.probe_for(mem, 1, false));
        let g = self.dest(d, RAX);
        self.load_extended(mem.size, ext, g, p.host);
        let access = self.describe(mem, false).with_extend(ext);
        self.slow_access(&p, access, [Place::Host(g.0), Place::None], [NO_COPY; 2]);
        self.done(d, g);
    }

    fn load_pair(&mut self, mem: Mem, ext: Extend, (d1, d2): (Reg, Reg), addr: Addr) {
        self.before_load(mem);
        let p = self.probe(addr, self.probe_for(mem, 2, false));
        if self.pairs_at_once() {
            return self.load_pair_at_once(mem, ext, (d1, d2), &p);
        }
        // The first result must not destroy the address of the second.
        let g1 = match self.dest(d1, p.free) {
            g if g == p.host.base => p.free,
            g => g,
        };
        let g2 = self.dest(d2, RAX);
        self.load_extended(mem.size, ext, g1, p.host);
        let second = M { disp: p.host.disp.wrapping_add(1 << mem.size), ..p.host };
        self.load_extended(mem.size, ext, g2, second);
        let access = self.describe(mem, false).with_extend(ext).with_pair(true);
        self.slow_access(&p, access, [Place::Host(g1.0), Place::Host(g2.0)], [NO_COPY; 2]);
        self.done(d1, g1);
        self.done(d2, g2);
    }

    /// Pairs that do not cross a multiple of 16 are accessed at once, as the host does with one access.
    fn pairs_at_once(&self) -> bool {
        self.options.lse2 && self.options.smp
    }

    fn load_pair_at_once(&mut self, mem: Mem, ext: Extend, (d1, d2): (Reg, Reg), p: &Probed) {
        let both = X0;
        self.load_vector(mem.size + 1, both, p.host);
        let g1 = match self.dest(d1, p.free) {
            g if g == p.host.base => p.free,
            g => g,
        };
        let g2 = self.dest(d2, RAX);
        let wide = mem.size == 3;
        // vmovq or vmovd, vpextrq or vpextrd.
        self.asm.vex(Opc { w: wide, ..opc(1, 1, 0x7e) }, both.0, 0, g1);
        self.asm.vex_imm(Opc { w: wide, ..opc(1, 3, 0x16) }, both.0, 0, g2, 1);
        if !wide && ext == Extend::SignX {
            self.asm.movsxd(g1, g1);
            self.asm.movsxd(g2, g2);
        }
        let access = self.describe(mem, false).with_extend(ext).with_pair(true);
        self.slow_access(p, access, [Place::Host(g1.0), Place::Host(g2.0)], [NO_COPY; 2]);
        self.done(d1, g1);
        self.done(d2, g2);
    }

    fn store_pair_at_once(&mut self, size: u8, (v1, v2): (Place, Place), p: &Probed) {
        let (both, wide) = (X0, size == 3);
        for (lane, v) in [(0, v1), (1, v2)] {
            let from = match (v, Self::place_in_memory(v)) {
                (_, Some(m)) => Rm::from(m),
                (Place::Host(g), _) => Gpr(g).into(),
                (Place::Constant(c), _) => {
                    self.asm.mov_imm(p.free, i64::from(c));
                    p.free.into()
                }
                _ => unreachable!("not the value of an integer store"),
            };
            // vmovq or vmovd, vpinsrq or vpinsrd.
            if lane == 0 {
                self.asm.vex(Opc { w: wide, ..opc(1, 1, 0x6e) }, both.0, 0, from);
            } else {
                self.asm.vex_imm(Opc { w: wide, ..opc(1, 3, 0x22) }, both.0, both.0, from, lane);
            }
        }
        self.store_vector(size + 1, both, p.host);
    }

    /// Where the value of a store is; the register to put it into if it must be in one.
    pub(super) fn place(&mut self, s: Opnd) -> Place {
        match s {
            Opnd::Reg(r) => match self.loc(r) {
                Loc::Host(g) => Place::Host(g.0),
                Loc::Memory(_) if r.is_guest() => Place::Guest(r.0),
                Loc::Memory(_) => Place::Spill(r.0),
            },
            Opnd::Imm(v) => Place::Constant(u8::try_from(v).expect("lifts put constants into temporaries")),
        }
    }

    /// The memory operand of a value that is in memory.
    fn place_in_memory(place: Place) -> Option<M> {
        match place {
            Place::Guest(r) => Some(x_slot(r)),
            Place::Spill(t) => Some(spill_slot(t)),
            _ => None,
        }
    }

    pub(super) fn push_value(&mut self, v: Place) {
        match (v, Self::place_in_memory(v)) {
            (_, Some(m)) => self.asm.push_mem(m),
            (Place::Host(g), _) => self.asm.push(Gpr(g)),
            (Place::Constant(c), _) => self.asm.push_imm(i32::from(c)),
            _ => unreachable!("not the value of an integer store"),
        }
    }

    fn store_value(&mut self, size: u8, v: Place, m: M, t: Gpr) {
        let g = match (v, Self::place_in_memory(v)) {
            (Place::Constant(c), _) if size >= 2 => {
                return self.asm.store_imm(size == 3, m, i32::from(c));
            }
            (Place::Constant(c), _) => {
                self.asm.mov_imm(t, i64::from(c));
                t
            }
            (_, Some(slot)) => {
                self.asm.load(true, t, slot);
                t
            }
            (Place::Host(g), _) => Gpr(g),
            _ => unreachable!("not the value of an integer store"),
        };
        match size {
            0 => self.asm.store8(m, g),
            1 => self.asm.store16(m, g),
            2 => self.asm.store(false, m, g),
            _ => self.asm.store(true, m, g),
        }
    }

    fn store(&mut self, mem: Mem, s: Opnd, addr: Addr) {
        let p = self.probe(addr, self.probe_for(mem, 1, true));
        let v = self.place(s);
        self.store_value(mem.size, v, p.host, p.free);
        let access = self.describe(mem, true);
        self.slow_access(&p, access, [v, Place::None], [NO_COPY; 2]);
        self.after_store(mem);
    }

    fn store_pair(&mut self, mem: Mem, (s1, s2): (Opnd, Opnd), addr: Addr) {
        let p = self.probe(addr, self.probe_for(mem, 2, true));
        let v1 = self.place(s1);
        let v2 = self.place(s2);
        if self.pairs_at_once() {
            self.store_pair_at_once(mem.size, (v1, v2), &p);
        } else {
            self.store_value(mem.size, v1, p.host, p.free);
            let second = M { disp: p.host.disp.wrapping_add(1 << mem.size), ..p.host };
            self.store_value(mem.size, v2, second, p.free);
        }
        let access = self.describe(mem, true).with_pair(true);
        self.slow_access(&p, access, [v1, v2], [NO_COPY; 2]);
        self.after_store(mem);
    }

    // ---- vector loads and stores ----

    fn load_v(&mut self, mem: Mem, d: VReg, d2: Option<VReg>, addr: Addr) {
        self.before_load(mem);
        let count = if d2.is_some() { 2 } else { 1 };
        let p = self.probe(addr, self.probe_for(mem, count, false));
        let back_of = |g: &mut Generator, d: VReg, m: M| {
            let r = g.vector_dest(d);
            g.load_vector(mem.size, r, m);
            r
        };
        // Both registers first: taking the second must not evict the first before it is stored.
        let r1 = back_of(self, d, p.host);
        self.vector_store(d, r1, 8 << mem.size);
        let mut values = [Place::Vector(d), Place::None];
        let mut copies = [self.asm.hardware(r1.0), NO_COPY];
        if let Some(d2) = d2 {
            let second = M { disp: p.host.disp.wrapping_add(1 << mem.size), ..p.host };
            let r = back_of(self, d2, second);
            self.vector_store(d2, r, 8 << mem.size);
            values[1] = Place::Vector(d2);
            copies[1] = self.asm.hardware(r.0);
        }
        let access = self.describe(mem, false).with_pair(d2.is_some()).with_vector(true);
        self.slow_access(&p, access, values, copies);
    }

    fn store_v(&mut self, mem: Mem, s: VReg, s2: Option<VReg>, addr: Addr) {
        let count = if s2.is_some() { 2 } else { 1 };
        let r1 = self.vector_value(s);
        let r2 = s2.map(|v| self.vector_value(v));
        let p = self.probe(addr, self.probe_for(mem, count, true));
        self.store_vector(mem.size, r1, p.host);
        if let Some(r2) = r2 {
            let second = M { disp: p.host.disp.wrapping_add(1 << mem.size), ..p.host };
            self.store_vector(mem.size, r2, second);
        }
        let access = self.describe(mem, true).with_pair(s2.is_some()).with_vector(true);
        let values = [Place::Vector(s), s2.map_or(Place::None, Place::Vector)];
        self.slow_access(&p, access, values, [NO_COPY; 2]);
        self.after_store(mem);
    }

    fn load_vector(&mut self, size: u8, x: Xmm, m: M) {
        match size {
            0 => {
                self.asm.vex(opc(1, 1, 0xef), x.0, x.0, x);
                self.asm.vex_imm(opc(1, 3, 0x20), x.0, x.0, m, 0);
            }
            1 => {
                self.asm.vex(opc(1, 1, 0xef), x.0, x.0, x);
                self.asm.vex_imm(opc(1, 1, 0xc4), x.0, x.0, m, 0);
            }
            2 => self.asm.vex(opc(1, 1, 0x6e), x.0, 0, m),
            3 => self.asm.vex(opc(2, 1, 0x7e), x.0, 0, m),
            _ => self.asm.vex(opc(2, 1, 0x6f), x.0, 0, m),
        }
    }

    fn store_vector(&mut self, size: u8, x: Xmm, m: M) {
        match size {
            0 => self.asm.vex_imm(opc(1, 3, 0x14), x.0, 0, m, 0),
            1 => self.asm.vex_imm(opc(1, 3, 0x15), x.0, 0, m, 0),
            2 => self.asm.vex(opc(1, 1, 0x7e), x.0, 0, m),
            3 => self.asm.vex(opc(1, 1, 0xd6), x.0, 0, m),
            _ => self.asm.vex(opc(2, 1, 0x7f), x.0, 0, m),
        }
    }

    fn move_memory(&mut self, word: u32) {
        self.clobber_flags();
        self.clean_vectors();
        // The last instruction of a sequence has mostly nothing left to do.
        let left = mops::left_for_epilogue(word).filter(|_| !self.options.el0);
        let nothing = left.map(|n| {
            let option = self.nzcv_slot();
            self.asm.test_imm(false, option, NOT_CARRY);
            let other_option = self.asm.jcc(Cc::E);
            match self.loc(Reg(n)) {
                Loc::Host(g) => self.asm.test(true, g, g),
                Loc::Memory(m) => self.asm.op_imm(Op2::Cmp, true, m, 0),
            }
            let nothing = self.asm.jcc(Cc::E);
            self.asm.bind(other_option);
            nothing
        });
        self.leave_entry();
        self.asm.push_imm(word as i32);
        self.asm.push_imm(i32::from(self.offset));
        self.call_thunk(self.thunks.mops);
        self.pop_words(2);
        if let Some(nothing) = nothing {
            self.asm.bind(nothing);
        }
        self.locations.drop_copies();
        self.vectors.clear();
    }

    pub(super) fn extend(&mut self, size: u8, signed: bool, d: Gpr, s: Gpr) {
        match (size, signed) {
            (0, true) => self.asm.movsx8(true, d, s),
            (1, true) => self.asm.movsx16(true, d, s),
            (2, true) => self.asm.movsxd(d, s),
            (0, false) => self.asm.movzx8(d, s),
            (1, false) => self.asm.movzx16(d, s),
            (2, false) => self.asm.mov32(d, s),
            _ => self.asm.mov(d, s),
        }
    }

    pub(super) fn pop_words(&mut self, n: i32) {
        self.asm.lea(true, RSP, M::at(RSP, 8 * n));
    }

    /// Calls Rust code, which looks for everything in memory.
    pub(super) fn call_thunk(&mut self, thunk: u64) {
        self.clean_vectors();
        self.asm.call_to(thunk);
    }
}
