//! The table walk.

use crate::mmu::context::{Context, Half};
use crate::mmu::fault::{Fault, FaultKind};
use crate::mmu::{Access, AccessKind, Permissions, PhysicalMemory, Translation};
use crate::spec::descriptor as d;

/// A page or block descriptor, where it stands, and what the tables above add.
struct Leaf {
    descriptor: u64,
    address: u64,
    level: i8,
    /// The hierarchical permission bits of all tables above, or-ed.
    tables: u64,
}

/// Translates `va` for `access`. Sets the Access flag and the dirty state in memory where the regime asks
/// hardware to.
///
/// # Errors
/// The fault that the access raises.
pub fn translate<M: PhysicalMemory + ?Sized>(
    ctx: &Context,
    mem: &M,
    va: u64,
    access: Access,
) -> Result<Translation, Fault> {
    translate_here(ctx, mem, va, access)
}

/// The same where it is called, for the refill of a TLB: a result that is many small fields comes back slowly.
///
/// # Errors
/// The fault that the access raises.
#[inline(always)]
pub fn translate_here<M: PhysicalMemory + ?Sized>(
    ctx: &Context,
    mem: &M,
    va: u64,
    access: Access,
) -> Result<Translation, Fault> {
    let half = ctx.half(va);
    let top = if access.kind == AccessKind::Fetch { half.fetch_top } else { half.top };
    if !ctx.enabled {
        return flat(ctx, va, top, access);
    }
    if half.disabled || (half.el0_disabled && access.el == 0) || !half.in_range(va, top) {
        return Err(Fault::new(FaultKind::Translation, 0));
    }
    loop {
        let leaf = walk(half, mem, va)?;
        if let Some(translation) = finish(ctx, half, mem, va, access, &leaf)? {
            return Ok(translation);
        }
        // Someone else changed the descriptor under us: look again from the top.
    }
}

/// Stage 1 off: the address is physical, within the size that is implemented.
fn flat(ctx: &Context, va: u64, top: u8, access: Access) -> Result<Translation, Fault> {
    let pa = (va << (63 - top)) >> (63 - top);
    if pa >> ctx.pa_bits != 0 {
        return Err(Fault::new(FaultKind::AddressSize, 0));
    }
    let attributes = match (access.kind, ctx.cached_fetch) {
        (AccessKind::Fetch, true) => 0xaa, // Normal, write-through, read-allocate
        (AccessKind::Fetch, false) => 0x44,
        _ => 0x00, // Device-nGnRnE
    };
    Ok(Translation {
        pa,
        block_size_log2: ctx.pa_bits,
        contiguous: false,
        device: access.kind != AccessKind::Fetch,
        attributes,
        shareability: 0b10,
        permissions: Permissions::all(),
        non_global: false,
        dirty_pending: false,
        guarded: false,
    })
}

/// Finds the page or block descriptor of `va`.
#[inline(always)]
fn walk<M: PhysicalMemory + ?Sized>(half: &Half, mem: &M, va: u64) -> Result<Leaf, Fault> {
    let stride = half.page_shift - 3;
    let mut level = half.start_level;
    let mut base = half.base;
    let mut tables = 0;
    if base >> half.output_bits != 0 {
        return Err(Fault::new(FaultKind::AddressSize, 0));
    }
    let mut remaining = va & ((1 << half.input_bits) - 1);
    let mut shift = half.page_shift + stride * (3 - level) as u8;
    loop {
        let address = base + (remaining >> shift) * 8;
        remaining &= (1 << shift) - 1;
        let Some(descriptor) = mem.read_u64(address) else {
            return Err(Fault::new(FaultKind::SyncExternalOnWalk, level));
        };
        let bit1 = descriptor & d::TABLE_OR_PAGE != 0;
        let is_leaf = level == 3 || !bit1;
        let reserved = if level == 3 { !bit1 } else { !bit1 && level < half.block_level };
        if descriptor & d::VALID == 0 || reserved {
            return Err(Fault::new(FaultKind::Translation, level));
        }
        let output = half.output_address(descriptor);
        if output >> half.output_bits != 0 {
            return Err(Fault::new(FaultKind::AddressSize, level));
        }
        if is_leaf {
            return Ok(Leaf { descriptor, address, level, tables });
        }
        tables |= descriptor;
        base = output;
        level += 1;
        shift -= stride;
    }
}

/// Checks the access against the leaf and does what hardware does to its descriptor. `None` if the
/// descriptor has changed meanwhile.
#[inline(always)]
fn finish<M: PhysicalMemory + ?Sized>(
    ctx: &Context,
    half: &Half,
    mem: &M,
    va: u64,
    access: Access,
    leaf: &Leaf,
) -> Result<Option<Translation>, Fault> {
    let descriptor = leaf.descriptor;
    let accessed = descriptor & d::AF != 0;
    if !accessed && !ctx.set_access_flag {
        return Err(Fault::new(FaultKind::AccessFlag, leaf.level));
    }
    let tables = if half.flat_permissions { 0 } else { leaf.tables };
    let clean = ctx.set_dirty && descriptor & d::DBM != 0 && descriptor & d::AP2 != 0;
    let permissions = permissions(ctx, descriptor, tables, clean);
    if !permissions.allow(access, ctx.epan) {
        return Err(Fault::new(FaultKind::Permission, leaf.level));
    }
    let make_dirty = clean && access.kind == AccessKind::Write;
    if !accessed || make_dirty {
        let new = (descriptor | d::AF) & if make_dirty { !d::AP2 } else { !0 };
        match mem.compare_exchange_u64(leaf.address, descriptor, new) {
            Some(Ok(_)) => {}
            Some(Err(_)) => return Ok(None),
            None => return Err(Fault::new(FaultKind::UnsupportedAtomicUpdate, 0)),
        }
    }
    let size_log2 = half.page_shift + (half.page_shift - 3) * (3 - leaf.level) as u8;
    let offset_mask = (1u64 << size_log2) - 1;
    let attributes = (ctx.mair >> ((descriptor >> d::ATTR_INDEX_SHIFT & 7) * 8)) as u8;
    Ok(Some(Translation {
        pa: half.output_address(descriptor) & !offset_mask | va & offset_mask,
        block_size_log2: size_log2,
        contiguous: descriptor & d::CONTIGUOUS != 0,
        device: attributes & 0xf0 == 0,
        attributes,
        shareability: half.shareability.unwrap_or((descriptor >> d::SH_SHIFT & 3) as u8),
        permissions,
        non_global: descriptor & d::NG != 0,
        dirty_pending: clean && !make_dirty && permissions.contains(Permissions::EL1_W),
        guarded: descriptor & d::GP != 0,
    }))
}

/// Permissions of a leaf (Arm ARM D8.4), `clean` meaning that a write may make it dirty.
#[inline]
fn permissions(ctx: &Context, descriptor: u64, tables: u64, clean: bool) -> Permissions {
    let el0 = descriptor & d::AP1 != 0 && tables & d::AP_TABLE_NO_EL0 == 0;
    let writable = (descriptor & d::AP2 == 0 || clean) && tables & d::AP_TABLE_READ_ONLY == 0;
    let el0_writable = el0 && writable;
    let uxn = descriptor & d::UXN != 0 || tables & d::UXN_TABLE != 0;
    let pxn = descriptor & d::PXN != 0 || tables & d::PXN_TABLE != 0;
    let mut p = Permissions::EL1_R;
    p.set(Permissions::EL0_R, el0);
    p.set(Permissions::EL0_W, el0_writable);
    p.set(Permissions::EL0_X, !(uxn || (ctx.wxn && el0_writable)));
    p.set(Permissions::EL1_W, writable);
    // What EL0 can write is never executable at EL1.
    p.set(Permissions::EL1_X, !(pxn || el0_writable || (ctx.wxn && writable)));
    p
}
