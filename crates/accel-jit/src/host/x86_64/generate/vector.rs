//! Vector instructions: copies of vector registers in host registers, and dispatch.
//!
//! A result stays in its copy, *dirty*, until somebody may look at its home; see [`carry`].

use super::*;
use crate::host::x86_64::upper::{LOWER_FIRST, UPPER_FIRST, UPPER_NAMES};
use crate::runtime::state::JitState;

/// Names of host registers: four for scratch, the others for copies.
const FIRST_COPY: u8 = Xmm::NAMED + 4;
const COPIES: usize = UPPER_NAMES - 4;
/// How many there are without AVX-512.
const FEW_COPIES: usize = 16 - 4;
/// Vector registers of the guest; the others are scratch, and always in memory.
pub(super) const GUEST_VECTORS: VReg = 32;
/// No vector register: the copy is zero.
const ZERO: VReg = 254;
/// No vector registers: the state of SHA256 as the host wants it.
const SHA: [VReg; 2] = [252, 253];

/// Which vector registers have copies, and how many of their bits may not be zero.
#[derive(Clone, Copy, Default)]
pub(super) struct VectorCache {
    holds: [Option<(VReg, u8)>; COPIES],
    /// How many of these the host has.
    count: usize,
    next: usize,
    /// Copies that the current IR instruction works with, as bits: they stay.
    busy: u32,
    /// Copies whose values their homes do not have, as bits.
    dirty: u32,
    /// The registers whose state [`SHA`] is.
    sha: [VReg; 2],
}

/// The copies at some point, to be reloaded after a call.
#[derive(Clone, Copy)]
pub(super) struct Snapshot([Option<(VReg, u8)>; COPIES], [VReg; 2]);

/// The registers that are meant at first.
pub(super) fn vector_names(options: &Options) -> VectorNames {
    match options {
        Options { avx512: false, .. } => NO_NAMES,
        Options { upper_first: false, .. } => LOWER_FIRST,
        _ => UPPER_FIRST,
    }
}

impl VectorCache {
    /// No copies yet.
    pub fn new(options: &Options) -> Self {
        let count = if options.avx512 { COPIES } else { FEW_COPIES };
        Self { count, ..Self::default() }
    }

    /// Forgets all copies.
    pub fn clear(&mut self) {
        debug_assert!(self.dirty == 0, "a value would be lost");
        self.holds = [None; COPIES];
    }

    /// The value of `x`, which is a copy's, is not in its home.
    pub fn make_dirty(&mut self, x: Xmm) {
        self.dirty |= 1 << (x.0 - FIRST_COPY);
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.holds, self.sha)
    }

    /// Which host registers hold the guest's vector registers.
    pub fn carried(&self, asm: &Asm) -> Carried {
        let mut carried = Carried::NOTHING;
        for (i, h) in self.holds.iter().enumerate() {
            let Some((v, _)) = h.filter(|(v, _)| *v < GUEST_VECTORS) else { continue };
            let host = asm.hardware(FIRST_COPY + i as u8);
            carried.held[usize::from(host)] = v;
            carried.dirty |= (self.dirty >> i & 1) << host;
        }
        carried
    }

    fn find(&self, v: VReg) -> Option<usize> {
        self.holds.iter().position(|h| matches!(h, Some((x, _)) if *x == v))
    }

    /// The next IR instruction begins.
    pub fn next_instruction(&mut self) {
        self.busy = 0;
    }

    /// `v` changes.
    fn forget_sha(&mut self, v: VReg) {
        if !self.sha.contains(&v) {
            return;
        }
        for h in &mut self.holds {
            *h = h.filter(|(held, _)| !SHA.contains(held));
        }
    }

    fn next_victim(&mut self) -> usize {
        if let Some(free) = (0..self.count).find(|i| self.holds[*i].is_none() && self.busy >> i & 1 == 0) {
            return free;
        }
        // An instruction works with far fewer registers than there are.
        for _ in 0..self.count {
            self.next = (self.next + 1) % self.count;
            if self.busy >> self.next & 1 == 0 {
                break;
            }
        }
        self.next
    }
}

/// Scratch vector registers.
pub(super) const X0: Xmm = Xmm(Xmm::NAMED);
pub(super) const X1: Xmm = Xmm(Xmm::NAMED + 1);
pub(super) const X2: Xmm = Xmm(Xmm::NAMED + 2);
pub(super) const X3: Xmm = Xmm(Xmm::NAMED + 3);

impl Generator {
    pub(super) fn restore_vectors(&mut self, s: &Snapshot) {
        for (i, h) in s.0.iter().enumerate() {
            let x = FIRST_COPY + i as u8;
            match h {
                Some((ZERO, _)) => self.asm.vex(opc(1, 1, 0xef), x, x, Xmm(x)),
                Some((v, _)) if SHA.contains(v) => {
                    let [abcd, efgh] = s.1.map(v_slot);
                    self.sha_form(Xmm(x), *v == SHA[1], [efgh, abcd]);
                }
                Some((v, _)) => self.asm.vex(opc(1, 1, 0x6f), x, 0, v_slot(*v)),
                None => {}
            }
        }
    }

    /// A host register with the value of `v`.
    pub(super) fn vector_value(&mut self, v: VReg) -> Xmm {
        if let Some(i) = self.vectors.find(v) {
            self.vectors.busy |= 1 << i;
            return Xmm(FIRST_COPY + i as u8);
        }
        debug_assert!(self.asm.marked.is_empty(), "a slow path would not know what makes room here");
        let i = self.take_vector();
        self.vectors.busy |= 1 << i;
        self.vectors.holds[i] = Some((v, 128));
        let x = Xmm(FIRST_COPY + i as u8);
        self.asm.vex(opc(1, 1, 0x6f), x.0, 0, v_slot(v));
        x
    }

    /// How many of the low bits of `v` may be set, as far as is known.
    pub(super) fn bits_of(&self, v: VReg) -> u8 {
        self.vectors.find(v).and_then(|i| self.vectors.holds[i]).map_or(128, |(_, bits)| bits)
    }

    /// A host register to work in, for the current IR instruction.
    pub(super) fn vector_temp(&mut self) -> Xmm {
        debug_assert!(self.asm.marked.is_empty(), "a slow path would not know what makes room here");
        let i = self.take_vector();
        self.vectors.busy |= 1 << i;
        self.vectors.holds[i] = None;
        Xmm(FIRST_COPY + i as u8)
    }

    /// A register that is zero, not to be written.
    pub(super) fn zero_vector(&mut self) -> Xmm {
        let there = self.vectors.find(ZERO);
        let i = match there {
            Some(i) => i,
            None => self.take_vector(),
        };
        self.vectors.busy |= 1 << i;
        let x = Xmm(FIRST_COPY + i as u8);
        if there.is_none() {
            self.vectors.holds[i] = Some((ZERO, 0));
            self.asm.vex(opc(1, 1, 0xef), x.0, x.0, x);
        }
        x
    }

    /// The host register to compute a new value of `v` in; it may be an operand's register, so write it by
    /// the last instruction only. Follow with [`Generator::vector_store`].
    pub(super) fn vector_dest(&mut self, v: VReg) -> Xmm {
        self.carried_before = Some(self.carried_now());
        self.vectors.forget_sha(v);
        let i = match self.vectors.find(v) {
            Some(i) => i,
            None => self.take_vector(),
        };
        self.vectors.busy |= 1 << i;
        self.vectors.dirty &= !(1 << i);
        self.vectors.holds[i] = Some((v, 128));
        Xmm(FIRST_COPY + i as u8)
    }

    /// What is in `x`, from [`Generator::vector_dest`], is the value of `v` from now on; only its low `bits` may be set.
    pub(super) fn vector_store(&mut self, v: VReg, x: Xmm, bits: u8) {
        let i = usize::from(x.0 - FIRST_COPY);
        self.vectors.holds[i] = Some((v, bits));
        if v < GUEST_VECTORS {
            self.vectors.dirty |= 1 << i;
        } else {
            self.asm.vex(opc(1, 1, 0x7f), x.0, 0, v_slot(v));
        }
    }

    /// A place for a copy; what was there is stored if need be.
    fn take_vector(&mut self) -> usize {
        let i = self.vectors.next_victim();
        if self.vectors.dirty >> i & 1 != 0
            && let Some((v, _)) = self.vectors.holds[i]
        {
            self.asm.vex(opc(1, 1, 0x7f), FIRST_COPY + i as u8, 0, v_slot(v));
            self.vectors.dirty &= !(1 << i);
        }
        i
    }

    /// Stores all values that memory does not have.
    pub(super) fn clean_vectors(&mut self) {
        self.store_dirty();
        if self.cold_carried.is_none() {
            self.vectors.dirty = 0;
        }
    }

    /// Scratch register `x` becomes the new value of `v`, and another one scratch instead.
    pub(super) fn vector_adopt(&mut self, v: VReg, x: Xmm, bits: u8) {
        let d = self.vector_dest(v);
        self.asm.names.swap(usize::from(x.0 - Xmm::NAMED), usize::from(d.0 - Xmm::NAMED));
        self.vector_store(v, d, bits);
    }

    /// Takes a result in scratch register `x` as the new value of `v`; the upper half is cleared unless `q`.
    pub(super) fn vector_result(&mut self, v: VReg, x: Xmm, q: bool) {
        if !q {
            self.asm.vex(opc(2, 1, 0x7e), x.0, 0, x);
        }
        self.vector_adopt(v, x, if q { 128 } else { 64 });
    }

    /// The value of `n` becomes that of `v`.
    pub(super) fn vector_copy(&mut self, v: VReg, n: Xmm) {
        self.asm.vex(opc(1, 1, 0x6f), X0.0, 0, n);
        self.vector_adopt(v, X0, 128);
    }

    /// X1 and X2, which are the state in `of` as the host wants it, are kept for [`Generator::take_sha`].
    pub(super) fn keep_sha(&mut self, of: [VReg; 2]) {
        for (v, x) in SHA.into_iter().zip([X1, X2]) {
            let i = match self.vectors.find(v) {
                Some(i) => i,
                None => self.take_vector(),
            };
            self.vectors.busy |= 1 << i;
            self.vectors.holds[i] = Some((v, 128));
            self.asm.names.swap(usize::from(x.0 - Xmm::NAMED), usize::from(FIRST_COPY - Xmm::NAMED) + i);
        }
        self.vectors.sha = of;
    }

    /// Gets X1 and X2 back, if they are still there.
    pub(super) fn take_sha(&mut self, of: [VReg; 2]) -> bool {
        let [Some(first), Some(second)] = SHA.map(|v| self.vectors.find(v)) else { return false };
        if self.vectors.sha != of {
            return false;
        }
        for (i, x) in [first, second].into_iter().zip([X1, X2]) {
            self.vectors.holds[i] = None;
            self.asm.names.swap(usize::from(x.0 - Xmm::NAMED), usize::from(FIRST_COPY - Xmm::NAMED) + i);
        }
        true
    }

    /// Makes the first scratch register xmm0, for instructions that have that one in mind.
    pub(super) fn name_xmm0(&mut self) {
        let [now, ..] = self.asm.names;
        if let Some(holder) = self.asm.names.iter().position(|hardware| *hardware == 0)
            && now != 0
        {
            self.asm.vex(opc(1, 1, 0x6f), now, 0, Xmm(0));
            self.asm.names.swap(0, holder);
        }
    }

    /// Makes a scratch register whose value nobody wants one of the lower half, which some instructions only reach.
    pub(super) fn lower(&mut self, x: Xmm) {
        let name = usize::from(x.0 - Xmm::NAMED);
        let now = self.asm.names[name];
        if now < 16 {
            return;
        }
        let first = usize::from(FIRST_COPY - Xmm::NAMED);
        let (v, names) = (&self.vectors, &self.asm.names);
        let lower = |i: &usize| names[first + i] < 16;
        let free = (0..v.count).filter(lower).find(|i| v.holds[*i].is_none() && v.busy >> i & 1 == 0);
        // Those that such instructions have in mind stay.
        let other = |i: &usize| {
            v.busy >> i & 1 == 0 && !matches!(v.holds[*i], Some((held, _)) if SHA.contains(&held))
        };
        let Some(i) = free.or_else(|| (0..v.count).filter(lower).find(other)) else { return };
        if free.is_none() {
            self.asm.vex(opc(1, 1, 0x6f), now, 0, Xmm(self.asm.names[first + i]));
        }
        self.asm.names.swap(name, first + i);
    }

    /// An address at which `inst` stays, for slow paths.
    pub(super) fn keep(&mut self, inst: &Inst) -> i64 {
        let boxed = Box::new(*inst);
        let address = std::ptr::from_ref(&*boxed) as i64;
        self.slow_insts.push(boxed);
        address
    }

    fn note_call(&mut self) {
        #[cfg(test)]
        {
            self.called = true;
        }
    }

    /// Executes a vector instruction by the reference interpreter: the general register result is in rax.
    pub(super) fn vector_slow(&mut self, inst: &Inst) {
        self.note_call();
        self.clobber_flags();
        let s = match inst {
            Inst::VDupGpr { s, .. }
            | Inst::VInsGpr { s, .. }
            | Inst::VFromGpr { s, .. }
            | Inst::IntToF { s, .. }
            | Inst::VHelperGpr { s, .. } => *s,
            _ => Opnd::Imm(0),
        };
        let at = self.keep(inst);
        self.move_into(Width::X, RAX, s);
        self.asm.push(RAX);
        self.asm.mov_imm(RAX, at);
        self.call_thunk(self.thunks.vector);
        self.pop_words(1);
        self.vectors.clear();
    }

    /// Continues at the reference interpreter from `slow`, and after it here.
    pub(super) fn slow_from(&mut self, slow: Fixup, inst: &Inst) {
        let back = self.asm.here();
        let path = self.slow_path(inst);
        let marked = std::mem::take(&mut self.asm.marked);
        self.defer(move |g| {
            g.asm.bind(slow);
            marked.into_iter().for_each(|at| g.asm.bind(at));
            path(g, back);
        });
    }

    /// What executes `inst`, whose code has just been emitted, by the reference interpreter, to be emitted behind the block
    /// with where to go on.
    pub(super) fn slow_path(&self, inst: &Inst) -> impl FnOnce(&mut Self, u64) + 'static + use<> {
        let copies = self.vectors.snapshot();
        let inst = *inst;
        let before = self.carried_before;
        move |g, back| {
            if before.is_some() {
                g.cold_carried = before;
            }
            let at = g.keep(&inst);
            g.asm.push_imm(0);
            g.asm.mov_imm(RAX, at);
            g.call_thunk(g.thunks.vector);
            g.pop_words(1);
            g.restore_vectors(&copies);
            g.asm.jmp_to(back);
        }
    }

    /// A vector helper without general registers, called directly.
    pub(super) fn helper(&mut self, f: VectorHelper, op: VOperands) {
        self.clobber_flags();
        self.count_helper();
        self.push_operands(op);
        self.asm.mov_imm(RAX, f as usize as i64);
        self.call_thunk(self.thunks.helper);
        self.pop_words(1);
        self.vectors.clear();
    }

    fn count_helper(&mut self) {
        self.note_call();
        if self.options.count {
            let m = field(std::mem::offset_of!(JitState, vector_helpers));
            self.asm.op_imm(Op2::Add, true, m, 1);
        }
    }

    fn push_operands(&mut self, op: VOperands) {
        let packed = u64::from_le_bytes([op.d, op.n, op.m, op.a, 0, 0, 0, 0]) | (u64::from(op.imm) << 32);
        self.asm.mov_imm(RAX, packed as i64);
        self.asm.push(RAX);
    }

    fn helper_gpr(&mut self, f: VectorGprHelper, op: VOperands, s: Opnd, d: Reg, nzcv: bool) {
        if nzcv {
            self.nzcv = Nzcv::Slot;
        } else {
            self.clobber_flags();
        }
        self.move_into(Width::X, RAX, s);
        self.asm.push(RAX);
        self.count_helper();
        self.push_operands(op);
        self.asm.mov_imm(RAX, f as usize as i64);
        self.call_thunk(self.thunks.helper);
        self.pop_words(2);
        self.vectors.clear();
        let g = self.dest(d, RAX);
        self.asm.mov(g, RAX);
        self.done(d, g);
        if nzcv {
            let s = self.scratch();
            self.asm.shift_imm(Shift::Shr, false, RAX, 28);
            self.asm.lea(true, s, field(std::mem::offset_of!(JitState, consts.nzcv_slots)));
            self.asm.movzx16(RAX, M::indexed(s, RAX, 1, 0));
            let slot = self.nzcv_slot();
            self.asm.store16(slot, RAX);
        }
    }

    pub(super) fn vector(&mut self, inst: &Inst) {
        match *inst {
            Inst::VKnown { .. } => self.v_known(inst),
            Inst::VHelper { f, op } => self.helper(f, op),
            Inst::VHelperGpr { f, op, s, d, nzcv } => self.helper_gpr(f, op, s, d, nzcv),
            Inst::GetFpcr { d } => {
                let g = self.dest(d, RAX);
                self.asm.load(false, g, field(std::mem::offset_of!(JitState, cpu.fp.fpcr)));
                self.done(d, g);
            }
            Inst::VConst { d, lo, hi } => self.v_const(d, lo, hi),
            Inst::V3 { .. } => self.v3(inst),
            Inst::V2 { .. } => self.v2(inst),
            Inst::VShift { .. } => self.v_shift(inst),
            Inst::VExt { q, d, n, m, imm } => self.v_ext(q, d, n, m, imm),
            Inst::VDupLane { es, q, d, n, lane } => self.v_dup_lane(es, q, d, n, lane),
            Inst::VDupGpr { es, q, d, s } => self.v_dup_gpr(es, q, d, s),
            Inst::VInsLane { es, d, dl, n, nl } => self.v_ins_lane(es, d, dl, n, nl),
            Inst::VInsGpr { es, d, lane, s } => self.v_ins_gpr(es, d, lane, s),
            Inst::VGetLane { es, ext, d, n, lane } => self.v_get_lane(es, ext, d, n, lane),
            Inst::VFromGpr { es, d, s } => self.v_from_gpr(es, d, s),
            Inst::F2 { .. } | Inst::F1 { .. } | Inst::F3 { .. } => self.float(inst),
            Inst::FCmp { double, signal, n, m } => self.fcmp(double, signal, n, m),
            Inst::FCondCompare { .. } => self.fccmp(inst),
            Inst::FSelect { es, cond, d, n, m } => self.fselect(es, cond, d, n, m),
            Inst::FToInt { .. } => self.float_to_int(inst),
            Inst::IntToF { .. } => self.int_to_float(inst),
            _ => unreachable!("not a vector instruction"),
        }
    }
}
