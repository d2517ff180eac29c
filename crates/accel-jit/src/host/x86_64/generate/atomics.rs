//! Exclusive and atomic accesses, barriers, and what keeps ordered accesses in their order.

use super::mem::Probe;
use super::*;
use crate::mmu::{NO_COPY, Place, SlowAccess};
use crate::runtime::state::JitState;

impl Generator {
    /// A store-release must not be passed by a later load-acquire, and the host lets loads pass stores: the load, of which
    /// there may be none, has the barrier.
    pub(super) fn after_store(&mut self, mem: Mem) {
        if self.options.smp && matches!(mem.order, Order::Release | Order::AcquireRelease) {
            self.asm.store_imm(false, field(std::mem::offset_of!(JitState, released)), 1);
        }
    }

    /// The barrier of a load-acquire after a store-release. (Atomics have the host's own.)
    pub(super) fn before_load(&mut self, mem: Mem) {
        if !self.options.smp || !matches!(mem.order, Order::Acquire | Order::AcquireRelease) {
            return;
        }
        self.clobber_flags();
        let released = field(std::mem::offset_of!(JitState, released));
        self.asm.op_imm(Op2::Cmp, false, released, 0);
        let wait = self.asm.jcc(Cc::NE);
        let back = self.asm.here();
        self.defer(move |g| {
            g.asm.bind(wait);
            g.fence();
            g.asm.store_imm(false, released, 0);
            g.asm.jmp_to(back);
        });
    }

    fn fence(&mut self) {
        self.asm.push_imm(0);
        self.asm.lock_op(Op2::Or, false, M::at(RSP, 0), RAX);
        self.pop_words(1);
    }

    /// Probes for an atomic access, which reads and may write; a miss fills the TLB (or faults) and tries again. The host address ends
    /// up in the first register, the second is free, rax holds the virtual address.
    fn atomic_address(&mut self, mem: Mem, addr: Addr, update: bool) -> (Gpr, Gpr) {
        self.clobber_flags();
        let (address, s, t) = self.address_then_scratch(addr);
        if address != M::at(RAX, 0) {
            self.asm.lea(true, RAX, address);
        }
        self.probe_rax(mem, self.describe(mem, update).with_update(update), (s, t));
        // The address is in rax: the base's copy may go.
        self.locations.unlock();
        (s, t)
    }

    fn probe_rax(&mut self, mem: Mem, access: SlowAccess, (s, t): (Gpr, Gpr)) {
        self.leave_entry();
        let retry = self.asm.len() as u32;
        let unaligned = self.options.lse2 && !self.options.align_check && mem.size > 0;
        let probe = Probe { aligned: !unaligned, ..self.probe_for(mem, 1, access.write()) };
        if unaligned {
            // Not across a multiple of 16.
            self.asm.lea(true, t, M::at(RAX, (1 << mem.size) - 1));
            self.asm.op(Op2::Xor, true, t, RAX);
            self.asm.op_imm(Op2::Cmp, true, t, 16);
            let across = self.asm.jcc(Cc::AE);
            self.later(Cold::Access { from: across, index: self.side_table.len() as u32 });
        }
        let p = self.probe_at(M::at(RAX, 0), probe, (s, t));
        let access = access.with_aligned(true).with_atomic(true);
        self.slow_access(&p, access, [Place::None; 2], [NO_COPY; 2]);
        if let Some(e) = self.side_table.last_mut() {
            e.resume = retry;
        }
        self.asm.lea(true, s, p.host);
    }

    pub(super) fn load_exclusive(&mut self, mem: Mem, d: Reg, addr: Addr) {
        self.before_load(mem);
        let (s, t) = self.atomic_address(mem, addr, false);
        self.load_extended(mem.size, Extend::Zero, t, M::at(s, 0));
        self.asm.store(true, field(std::mem::offset_of!(JitState, cpu.monitor.address)), RAX);
        self.asm.store(true, field(std::mem::offset_of!(JitState, cpu.monitor.value_lo)), t);
        let size = field(std::mem::offset_of!(JitState, cpu.monitor.size));
        self.asm.store_imm(true, size, 1 << mem.size);
        let g = self.dest(d, t);
        self.asm.mov(g, t);
        self.done(d, g);
    }

    pub(super) fn store_exclusive(&mut self, mem: Mem, status: Reg, v: Opnd, addr: Addr) {
        self.clobber_flags();
        let (address, s, t) = self.address_then_scratch(addr);
        if address != M::at(RAX, 0) {
            self.asm.lea(true, RAX, address);
        }
        let open = field(std::mem::offset_of!(JitState, cpu.monitor.address));
        self.asm.op(Op2::Cmp, true, RAX, open);
        let fail1 = self.asm.jcc(Cc::NE);
        let size = field(std::mem::offset_of!(JitState, cpu.monitor.size));
        self.asm.op_imm(Op2::Cmp, true, size, 1 << mem.size);
        let fail2 = self.asm.jcc(Cc::NE);
        self.probe_rax(mem, self.describe(mem, true), (s, t));
        self.locations.unlock();
        self.move_into(Width::X, t, v);
        self.asm.load(true, RAX, field(std::mem::offset_of!(JitState, cpu.monitor.value_lo)));
        let fail3 = self.compare_and_store(mem.size, M::at(s, 0), t);
        self.asm.mov_imm(RAX, 0);
        let done = self.asm.here();
        self.defer(move |g| {
            for fail in [fail1, fail2, fail3] {
                g.asm.bind(fail);
            }
            g.asm.mov_imm(RAX, 1);
            g.asm.jmp_to(done);
        });
        self.asm.store_imm(true, open, -1);
        let g = self.dest(status, RAX);
        self.asm.mov(g, RAX);
        self.done(status, g);
    }

    /// Stores `t` if memory has what is in rax; the jump is taken if not. No device writes what a guest's CPU has an
    /// exclusive or atomic access to, so one CPU needs nothing atomic.
    fn compare_and_store(&mut self, size: u8, m: M, t: Gpr) -> Fixup {
        if self.options.smp {
            self.asm.cmpxchg(true, size, m, t);
            return self.asm.jcc(Cc::NE);
        }
        self.asm.op_sized(Op2::Cmp, size, m, RAX);
        let differs = self.asm.jcc(Cc::NE);
        self.asm.store_sized(size, m, t);
        differs
    }

    fn lock_cmpxchg(&mut self, size: u8, m: M, s: Gpr) {
        self.asm.cmpxchg(self.options.smp, size, m, s);
    }

    pub(super) fn address_in_rax(&mut self, addr: Addr) {
        let (address, _, _) = self.address_then_scratch(addr);
        if address != M::at(RAX, 0) {
            self.asm.lea(true, RAX, address);
        }
    }

    pub(super) fn load_exclusive_pair(&mut self, mem: Mem, (d, d2): (Reg, Reg), addr: Addr) {
        self.clobber_flags();
        self.address_in_rax(addr);
        self.asm.push_imm(self.describe(mem, false).with_pair(true).with_aligned(true).bits());
        self.call_thunk(self.thunks.load_exclusive_pair);
        self.pop_words(1);
        self.vectors.clear();
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
        let g = self.dest(d2, RAX);
        self.asm.load(true, g, field(std::mem::offset_of!(JitState, result2)));
        self.done(d2, g);
    }

    pub(super) fn store_exclusive_pair(&mut self, mem: Mem, status: Reg, (s1, s2): (Opnd, Opnd), addr: Addr) {
        self.clobber_flags();
        self.address_in_rax(addr);
        let v1 = self.place(s1);
        let v2 = self.place(s2);
        self.push_value(v2);
        self.push_value(v1);
        self.asm.push_imm(self.describe(mem, true).with_pair(true).with_aligned(true).bits());
        self.call_thunk(self.thunks.store_exclusive_pair);
        self.pop_words(3);
        self.vectors.clear();
        let g = self.dest(status, RAX);
        self.asm.mov(g, RAX);
        self.done(status, g);
    }

    pub(super) fn cas_pair(&mut self, mem: Mem, d: Reg, s: Reg, addr: Addr) {
        self.clobber_flags();
        self.address_in_rax(addr);
        self.asm.push_imm(i32::from(d.0) | (i32::from(s.0) << 8));
        self.asm.push_imm(self.describe(mem, true).with_pair(true).with_aligned(true).bits());
        self.call_thunk(self.thunks.cas_pair);
        self.pop_words(2);
        self.locations.drop_copies();
        self.vectors.clear();
    }

    pub(super) fn cas(&mut self, mem: Mem, d: Reg, expected: Opnd, new: Opnd, addr: Addr) {
        let (s, t) = self.atomic_address(mem, addr, true);
        self.move_into(Width::X, t, new);
        self.move_into(Width::X, RAX, expected);
        self.lock_cmpxchg(mem.size, M::at(s, 0), t);
        self.zero_extend(mem.size, RAX);
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    fn zero_extend(&mut self, size: u8, g: Gpr) {
        match size {
            0 => self.asm.movzx8(g, g),
            1 => self.asm.movzx16(g, g),
            2 => self.asm.mov32(g, g),
            _ => {}
        }
    }

    pub(super) fn atomic(&mut self, op: RmwOp, mem: Mem, d: Reg, v: Opnd, addr: Addr) {
        let (s, t) = self.atomic_address(mem, addr, true);
        let m = M::at(s, 0);
        match op {
            RmwOp::Add if !self.options.smp => {
                self.move_into(Width::X, t, v);
                if d == Reg::NONE {
                    return self.asm.op_sized(Op2::Add, mem.size, m, t);
                }
                self.load_extended(mem.size, Extend::Zero, RAX, m);
                self.asm.op(Op2::Add, true, t, RAX);
                self.asm.store_sized(mem.size, m, t);
            }
            RmwOp::Swp if !self.options.smp => {
                self.move_into(Width::X, t, v);
                self.load_extended(mem.size, Extend::Zero, RAX, m);
                self.asm.store_sized(mem.size, m, t);
            }
            RmwOp::Add => {
                self.move_into(Width::X, t, v);
                self.asm.xadd(true, mem.size, m, t);
                self.zero_extend(mem.size, t);
                self.asm.mov(RAX, t);
            }
            RmwOp::Swp => {
                self.move_into(Width::X, t, v);
                self.asm.xchg(mem.size, m, t);
                self.zero_extend(mem.size, t);
                self.asm.mov(RAX, t);
            }
            _ => self.atomic_loop(op, mem, v, (s, t)),
        }
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
    }

    /// Compare-and-swap until it holds; the old value ends in rax.
    fn atomic_loop(&mut self, op: RmwOp, mem: Mem, v: Opnd, (s, t): (Gpr, Gpr)) {
        let m = M::at(s, 0);
        let u = self.scratch();
        self.move_into(Width::X, u, v);
        let signed = matches!(op, RmwOp::Smax | RmwOp::Smin);
        if op == RmwOp::Clr {
            self.asm.group3(2, true, u);
        } else if matches!(op, RmwOp::Smax | RmwOp::Smin | RmwOp::Umax | RmwOp::Umin) {
            self.extend(mem.size, signed, u, u);
        }
        self.load_extended(mem.size, Extend::Zero, RAX, m);
        let again = self.asm.here();
        self.extend(mem.size, signed, t, RAX);
        match op {
            RmwOp::Clr => self.asm.op(Op2::And, true, t, u),
            RmwOp::Eor => self.asm.op(Op2::Xor, true, t, u),
            RmwOp::Set => self.asm.op(Op2::Or, true, t, u),
            _ => {
                self.asm.op(Op2::Cmp, true, t, u);
                let cc = match op {
                    RmwOp::Smax => Cc::L,
                    RmwOp::Smin => Cc::G,
                    RmwOp::Umax => Cc::B,
                    _ => Cc::A,
                };
                self.asm.cmov(cc, true, t, u);
            }
        }
        if !self.options.smp {
            return self.asm.store_sized(mem.size, m, t);
        }
        self.lock_cmpxchg(mem.size, m, t);
        self.asm.jcc_to(Cc::NE, again);
        self.zero_extend(mem.size, RAX);
    }

    pub(super) fn barrier(&mut self, b: Barrier) {
        match b {
            Barrier::Load | Barrier::Store | Barrier::Instruction => {}
            Barrier::Full if self.options.smp => {
                self.clobber_flags();
                self.fence();
            }
            Barrier::Sync if self.options.smp => {
                self.clobber_flags();
                self.fence();
                self.asm.op_imm(Op2::Cmp, false, field(std::mem::offset_of!(JitState, sync_pending)), 0);
                let wait = self.asm.jcc(Cc::NE);
                let back = self.asm.here();
                let copies = self.vectors.snapshot();
                let offset = i32::from(self.offset);
                self.defer(move |g| {
                    g.asm.bind(wait);
                    g.asm.push_imm(offset);
                    g.call_thunk(g.thunks.sync);
                    g.pop_words(1);
                    g.restore_vectors(&copies);
                    g.asm.jmp_to(back);
                });
            }
            Barrier::Full | Barrier::Sync => {}
        }
    }
}
