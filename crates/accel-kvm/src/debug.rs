//! What a debugger wants of a vCPU, in the host's breakpoint and watchpoint registers (Arm ARM D2.9, D2.10).

use armlet_engine::{AcceleratorError, DebugRequest, Watchpoint};
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW, KVM_GUESTDBG_USE_SW_BP,
    kvm_guest_debug, kvm_guest_debug_arch,
};

/// DBGBCR: enabled, at EL0 and EL1, all four bytes of the instruction.
const BREAKPOINT: u64 = 0xf << 5 | 3 << 1 | 1;
/// DBGWCR: enabled, at EL0 and EL1.
const WATCHPOINT: u64 = 3 << 1 | 1;
const WATCH_LOADS: u64 = 1 << 3;
const WATCH_STORES: u64 = 2 << 3;
/// Where DBGWCR has a bit for each byte, and how many low bits of the address do not count.
const WATCH_BYTES: u32 = 5;
const WATCH_MASK: u32 = 24;
/// Bytes that one watchpoint register can tell apart, and the most that it can cover.
const GRAIN: u64 = 8;
const LARGEST: u64 = 1 << 31;

/// The request as KVM takes it, on a host with so many breakpoints and watchpoints; the request's breakpoints are those that
/// are to be in registers.
///
/// # Errors
/// The host has fewer registers than are needed.
pub fn guest_debug(
    request: &DebugRequest,
    breakpoints: usize,
    watchpoints: usize,
) -> Result<kvm_guest_debug, AcceleratorError> {
    let mut arch = kvm_guest_debug_arch::default();
    let mut control = 0;
    if *request != DebugRequest::default() {
        // BRK comes out as well: that of a breakpoint in memory, or the guest's own.
        control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
    }
    if request.step {
        control |= KVM_GUESTDBG_SINGLESTEP;
    } else if !request.breakpoints.is_empty() {
        // A step does not stop at the place where it begins, nor anywhere but where it ends.
        if request.breakpoints.len() > breakpoints.min(arch.dbg_bvr.len()) {
            return Err(too_many("breakpoints", request.breakpoints.len(), breakpoints));
        }
        control |= KVM_GUESTDBG_USE_HW;
        for (n, address) in request.breakpoints.iter().enumerate() {
            (arch.dbg_bvr[n], arch.dbg_bcr[n]) = (*address, BREAKPOINT);
        }
    }
    let parts: Vec<_> = request.watchpoints.iter().flat_map(watch).collect();
    if parts.len() > watchpoints.min(arch.dbg_wvr.len()) {
        return Err(too_many("watchpoints (of 8 bytes, or of a power of two)", parts.len(), watchpoints));
    }
    if !parts.is_empty() {
        control |= KVM_GUESTDBG_USE_HW;
    }
    for (n, (value, wcr)) in parts.into_iter().enumerate() {
        (arch.dbg_wvr[n], arch.dbg_wcr[n]) = (value, wcr);
    }
    Ok(kvm_guest_debug { control, pad: 0, arch })
}

fn too_many(what: &str, asked: usize, most: usize) -> AcceleratorError {
    AcceleratorError(format!(
        "this host's CPU has {most} {what} for a guest, and {asked} are wanted: remove some"
    ))
}

/// Values for DBGWVR and DBGWCR that together cover the watchpoint.
fn watch(watchpoint: &Watchpoint) -> Vec<(u64, u64)> {
    let Watchpoint { address, length, read, write } = *watchpoint;
    let kind = WATCHPOINT | if read { WATCH_LOADS } else { 0 } | if write { WATCH_STORES } else { 0 };
    if length > GRAIN && length.is_power_of_two() && length <= LARGEST && address.is_multiple_of(length) {
        let mask = u64::from(length.ilog2());
        return vec![(address, kind | 0xff << WATCH_BYTES | mask << WATCH_MASK)];
    }
    let mut parts = Vec::new();
    let (mut at, mut left) = (address, length);
    // No host has more of them; what is over is refused.
    while left > 0 && parts.len() <= 16 {
        let (first, room) = (at % GRAIN, GRAIN - at % GRAIN);
        let bytes = left.min(room);
        let select = ((1 << bytes) - 1) << first;
        parts.push((at - first, kind | select << WATCH_BYTES));
        at = at.wrapping_add(bytes);
        left -= bytes;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchpoints_cover_their_bytes_and_no_others() {
        let w = |address, length| Watchpoint { address, length, read: true, write: true };
        let kind = WATCHPOINT | WATCH_LOADS | WATCH_STORES;
        assert_eq!(watch(&w(0x1003, 2)), [(0x1000, kind | 0b1_1000 << WATCH_BYTES)]);
        assert_eq!(watch(&w(0x1000, 8)), [(0x1000, kind | 0xff << WATCH_BYTES)]);
        assert_eq!(watch(&w(0x1000, 64)), [(0x1000, kind | 0xff << WATCH_BYTES | 6 << WATCH_MASK)]);
        assert_eq!(
            watch(&w(0x1006, 4)),
            [(0x1000, kind | 0xc0 << WATCH_BYTES), (0x1008, kind | 3 << WATCH_BYTES)]
        );
        let only = Watchpoint { read: false, ..w(0, 1) };
        assert_eq!(watch(&only), [(0, WATCHPOINT | WATCH_STORES | 1 << WATCH_BYTES)]);
    }

    #[test]
    fn more_than_the_host_has_is_refused_with_its_number() {
        let request = DebugRequest { breakpoints: vec![0, 4, 8], ..DebugRequest::default() };
        assert!(guest_debug(&request, 3, 0).is_ok());
        assert!(guest_debug(&request, 2, 0).is_err_and(|e| e.to_string().contains("has 2 breakpoints")));
        let stepping = DebugRequest { step: true, ..request };
        let debug = guest_debug(&stepping, 2, 0).expect("breakpoints do not matter in a step");
        let enabled = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
        assert_eq!(debug.control, enabled | KVM_GUESTDBG_SINGLESTEP);
        assert_eq!(guest_debug(&DebugRequest::default(), 0, 0).expect("nothing is wanted").control, 0);
    }
}
