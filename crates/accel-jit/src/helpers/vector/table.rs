//! Table lookups.

use super::*;

fn lookup(regs: &Regs, op: VOperands, mut out: [u8; 16]) -> u128 {
    let s = shape(op);
    let count = s.param() as usize & 7;
    let indices = reg(regs, op.m).to_le_bytes();
    for (o, i) in out.iter_mut().zip(indices) {
        let table = usize::from(i / 16);
        if table < count {
            let v = reg(regs, op.n.wrapping_add(i / 16));
            *o = (v >> (8 * (i % 16))) as u8;
        }
    }
    u128::from_le_bytes(out) & s.mask()
}

/// TBL; the parameter is the number of table registers.
pub extern "C" fn tbl(_: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let out = lookup(regs, op, [0; 16]);
    set(regs, op.d, out);
}

/// TBX: as TBL, but an index out of range keeps the old byte.
pub extern "C" fn tbx(_: &mut FpEnv, regs: &mut Regs, op: VOperands) {
    let out = lookup(regs, op, reg(regs, op.d).to_le_bytes());
    set(regs, op.d, out);
}
