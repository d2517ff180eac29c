//! The QARMA block cipher as ComputePAC uses it: five rounds with S-box σ2, or three with σ1 (Arm ARM, ComputePAC;
//! R. Avanzi, "The QARMA Block Cipher Family").

const ALPHA: u64 = 0xc0ac_29b7_c97c_50dd;
const ROUND_CONSTANTS: [u64; 5] =
    [0, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89, 0x4528_21e6_38d0_1377];

/// σ2, its inverse, and σ1, which is its own.
const SIGMA2: [u8; 16] = [11, 6, 8, 15, 12, 0, 9, 14, 3, 7, 4, 5, 13, 2, 1, 10];
const SIGMA2_INVERSE: [u8; 16] = [5, 14, 13, 8, 10, 11, 1, 9, 2, 6, 15, 0, 4, 12, 7, 3];
const SIGMA1: [u8; 16] = [10, 13, 14, 6, 15, 7, 3, 5, 9, 8, 0, 12, 11, 1, 2, 4];

/// By number of the cell from the most significant one: where τ takes it from.
const TAU: [u8; 16] = [0, 11, 6, 13, 10, 1, 12, 7, 5, 14, 3, 8, 15, 4, 9, 2];
/// The same for the tweak's permutation h.
const H: [u8; 16] = [6, 5, 14, 15, 0, 1, 2, 3, 7, 12, 13, 4, 8, 9, 10, 11];
/// The tweak's cells that go through the shift register ω.
const OMEGA: [u8; 7] = [0, 1, 3, 4, 8, 11, 13];

const fn invert(table: [u8; 16]) -> [u8; 16] {
    let mut inverse = [0; 16];
    let mut i = 0;
    while i < 16 {
        inverse[table[i] as usize] = i as u8;
        i += 1;
    }
    inverse
}

const TAU_INVERSE: [u8; 16] = invert(TAU);
const H_INVERSE: [u8; 16] = invert(H);

fn cell(v: u64, n: u8) -> u64 {
    v >> (60 - 4 * n) & 15
}

fn permute(v: u64, from: &[u8; 16]) -> u64 {
    from.iter().fold(0, |out, &n| out << 4 | cell(v, n))
}

fn substitute(v: u64, table: &[u8; 16]) -> u64 {
    (0..16).fold(0, |out, n| out << 4 | u64::from(table[cell(v, n) as usize]))
}

/// Rotates each cell to the left.
fn rotate_cells(v: u64, by: u32) -> u64 {
    const LOW: u64 = 0x1111_1111_1111_1111;
    let kept = LOW * ((1 << (4 - by)) - 1);
    (v & kept) << by | (v & !kept) >> (4 - by)
}

/// Multiplies each column by the matrix circ(0, ρ, ρ², ρ). Rows are 16 bits.
fn mix(v: u64) -> u64 {
    let (one, two) = (rotate_cells(v, 1), rotate_cells(v, 2));
    one.rotate_left(16) ^ two.rotate_left(32) ^ one.rotate_left(48)
}

fn update_tweak(t: u64) -> u64 {
    let t = permute(t, &H);
    OMEGA.iter().fold(t, |t, &n| {
        let c = cell(t, n);
        let new = c >> 1 | ((c ^ c >> 1) & 1) << 3;
        t & !(15 << (60 - 4 * n)) | new << (60 - 4 * n)
    })
}

fn restore_tweak(t: u64) -> u64 {
    let t = OMEGA.iter().fold(t, |t, &n| {
        let c = cell(t, n);
        let new = c << 1 & 14 | (c ^ c >> 3) & 1;
        t & !(15 << (60 - 4 * n)) | new << (60 - 4 * n)
    });
    permute(t, &H_INVERSE)
}

fn encrypt(
    data: u64,
    tweak: u64,
    (key0, key1): (u64, u64),
    rounds: usize,
    (sbox, inverse): (&[u8; 16], &[u8; 16]),
) -> u64 {
    let modified = key0.rotate_right(1) ^ key0 >> 63;
    let mut tweak = tweak;
    let mut v = data ^ key0;
    for (i, constant) in ROUND_CONSTANTS.iter().enumerate().take(rounds) {
        v ^= key1 ^ tweak ^ constant;
        if i > 0 {
            v = mix(permute(v, &TAU));
        }
        v = substitute(v, sbox);
        tweak = update_tweak(tweak);
    }
    v ^= modified ^ tweak;
    v = substitute(mix(permute(v, &TAU)), sbox);
    v = mix(permute(v, &TAU)) ^ key1;
    v = substitute(permute(v, &TAU_INVERSE), inverse);
    v = permute(mix(v), &TAU_INVERSE) ^ key0 ^ tweak;
    for (i, constant) in ROUND_CONSTANTS.iter().enumerate().take(rounds).rev() {
        v = substitute(v, inverse);
        if i > 0 {
            v = permute(mix(v), &TAU_INVERSE);
        }
        tweak = restore_tweak(tweak);
        v ^= constant ^ key1 ^ tweak ^ ALPHA;
    }
    v ^ modified
}

/// FEAT_PACQARMA5; the key is its high and its low half.
pub(super) fn qarma5(data: u64, tweak: u64, key: (u64, u64)) -> u64 {
    encrypt(data, tweak, key, 5, (&SIGMA2, &SIGMA2_INVERSE))
}

/// FEAT_PACQARMA3.
pub(super) fn qarma3(data: u64, tweak: u64, key: (u64, u64)) -> u64 {
    encrypt(data, tweak, key, 3, (&SIGMA1, &SIGMA1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the paper: QARMA-64 of five rounds with σ2.
    #[test]
    fn five_rounds_as_published() {
        let key = (0x84be_85ce_9804_e94b, 0xec28_02d4_e0a4_88e9);
        assert_eq!(qarma5(0xfb62_3599_da6e_8127, 0x477d_469d_ec0b_8762, key), 0xc003_b939_99b3_3765);
    }

    #[test]
    fn the_same_rounds_with_the_other_box_as_published() {
        let key = (0x84be_85ce_9804_e94b, 0xec28_02d4_e0a4_88e9);
        let v = encrypt(0xfb62_3599_da6e_8127, 0x477d_469d_ec0b_8762, key, 5, (&SIGMA1, &SIGMA1));
        assert_eq!(v, 0x544b_0ab9_5bda_7c3a);
    }
}
