//! What all PrimeCell peripherals share: the identification registers and how accesses meet registers.

use armlet_memory::AccessSize;

/// First of the four peripheral identification registers (UARTPeriphID0 and its like).
const PERIPH_ID0: u64 = 0xfe0;
/// End of the four PrimeCell identification registers.
const PCELL_ID_END: u64 = 0x1000;
/// UARTPCellID0 to 3: the same in every PrimeCell.
const PCELL_ID: [u8; 4] = [0x0d, 0xf0, 0x05, 0xb1];

/// Value of the identification register at `offset`, if there is one; `periph_id` is the 32-bit peripheral
/// identifier.
pub(crate) fn identification(periph_id: u32, offset: u64) -> Option<u32> {
    if !(PERIPH_ID0..PCELL_ID_END).contains(&offset) || !offset.is_multiple_of(4) {
        return None;
    }
    let index = ((offset - PERIPH_ID0) / 4) as usize;
    let byte = if index < 4 { periph_id.to_le_bytes()[index] } else { PCELL_ID[index & 3] };
    Some(u32::from(byte))
}

/// True if an access at `offset` meets a register: they are 32 bits wide, on 4-byte boundaries. Narrower
/// accesses reach the low part, wider ones the register alone; anything between boundaries reads as 0.
pub(crate) fn is_register(offset: u64) -> bool {
    offset.is_multiple_of(4)
}

/// Cuts a register's value to what an access of `size` sees.
pub(crate) fn narrow(value: u32, size: AccessSize) -> u64 {
    let value = u64::from(value);
    match size {
        AccessSize::Byte => value & 0xff,
        AccessSize::Half => value & 0xffff,
        AccessSize::Word | AccessSize::Double => value,
    }
}
