//! The cryptographic, polynomial and checksum instructions as pure functions on register values.
//!
//! Argument names are the instructions' register operands: `d` is the old destination.

/// The AES substitution box and its inverse.
const SBOXES: ([u8; 256], [u8; 256]) = {
    let (mut sbox, mut inverse) = ([0; 256], [0; 256]);
    // p runs through the powers of 3, q through those of its inverse.
    let (mut p, mut q) = (1u8, 1u8);
    loop {
        p ^= xtime(p);
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        if q & 0x80 != 0 {
            q ^= 0x09;
        }
        let s = q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4) ^ 0x63;
        sbox[p as usize] = s;
        inverse[s as usize] = p;
        if p == 1 {
            break;
        }
    }
    sbox[0] = 0x63;
    inverse[0x63] = 0;
    (sbox, inverse)
};
static SBOX: [u8; 256] = SBOXES.0;
static INVERSE_SBOX: [u8; 256] = SBOXES.1;

/// Multiplication by x in the AES field.
const fn xtime(a: u8) -> u8 {
    (a << 1) ^ (if a & 0x80 != 0 { 0x1b } else { 0 })
}

/// AESE: add the round key, shift rows, substitute bytes.
pub fn aese(d: u128, n: u128) -> u128 {
    let state = (d ^ n).to_le_bytes();
    let out = std::array::from_fn(|i| SBOX[usize::from(state[(i + 4 * (i & 3)) & 15])]);
    u128::from_le_bytes(out)
}

/// AESD: add the round key, inverse shift rows, inverse substitute bytes.
pub fn aesd(d: u128, n: u128) -> u128 {
    let state = (d ^ n).to_le_bytes();
    let out = std::array::from_fn(|i| INVERSE_SBOX[usize::from(state[i.wrapping_sub(4 * (i & 3)) & 15])]);
    u128::from_le_bytes(out)
}

/// Multiplies each of the 16 bytes by x.
fn xtime_all(a: u128) -> u128 {
    const ONES: u128 = u128::MAX / 0xff;
    ((a & (ONES * 0x7f)) << 1) ^ (((a >> 7) & ONES) * 0x1b)
}

/// Rotates each 32-bit column so that byte `i` gets byte `i + 1`, `by` times.
fn rotate_columns(a: u128, by: u32) -> u128 {
    map32(a, |c| c.rotate_right(8 * by))
}

fn map32(a: u128, f: impl Fn(u32) -> u32) -> u128 {
    from32(to32(a).map(f))
}

/// AESMC: mix columns.
pub fn aesmc(n: u128) -> u128 {
    let doubled = xtime_all(n);
    doubled ^ rotate_columns(doubled ^ n, 1) ^ rotate_columns(n, 2) ^ rotate_columns(n, 3)
}

/// AESIMC: inverse mix columns.
pub fn aesimc(n: u128) -> u128 {
    // The inverse matrix is the forward one times circ(5, 0, 4, 0).
    let quadrupled = xtime_all(xtime_all(n));
    aesmc(n ^ quadrupled ^ rotate_columns(quadrupled, 2))
}

fn to32(a: u128) -> [u32; 4] {
    std::array::from_fn(|i| (a >> (32 * i)) as u32)
}

fn from32(a: [u32; 4]) -> u128 {
    a.iter().rev().fold(0, |all, &w| (all << 32) | u128::from(w))
}

fn to64(a: u128) -> [u64; 2] {
    [a as u64, (a >> 64) as u64]
}

fn from64(a: [u64; 2]) -> u128 {
    u128::from(a[0]) | (u128::from(a[1]) << 64)
}

const fn choose(x: u32, y: u32, z: u32) -> u32 {
    ((y ^ z) & x) ^ z
}

const fn majority(x: u32, y: u32, z: u32) -> u32 {
    (x & y) | ((x | y) & z)
}

const fn parity(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

fn sha1_hash(d: u128, n: u128, m: u128, f: fn(u32, u32, u32) -> u32) -> u128 {
    let mut x = to32(d);
    let mut y = n as u32;
    for w in to32(m) {
        let t = y.wrapping_add(x[0].rotate_left(5)).wrapping_add(f(x[1], x[2], x[3])).wrapping_add(w);
        (x, y) = ([t, x[0], x[1].rotate_left(30), x[2]], x[3]);
    }
    from32(x)
}

/// SHA1C: four rounds with the choice function.
pub fn sha1c(d: u128, n: u128, m: u128) -> u128 {
    sha1_hash(d, n, m, choose)
}

/// SHA1P: four rounds with parity.
pub fn sha1p(d: u128, n: u128, m: u128) -> u128 {
    sha1_hash(d, n, m, parity)
}

/// SHA1M: four rounds with the majority function.
pub fn sha1m(d: u128, n: u128, m: u128) -> u128 {
    sha1_hash(d, n, m, majority)
}

/// SHA1H: fixed rotate.
pub const fn sha1h(n: u128) -> u128 {
    (n as u32).rotate_left(30) as u128
}

/// SHA1SU0: schedule update 0.
pub const fn sha1su0(d: u128, n: u128, m: u128) -> u128 {
    ((n << 64) | (d >> 64)) ^ d ^ m
}

/// SHA1SU1: schedule update 1.
pub fn sha1su1(d: u128, n: u128) -> u128 {
    let t = to32(d ^ (n >> 32));
    let mut out = t.map(|w| w.rotate_left(1));
    out[3] ^= t[0].rotate_left(2);
    from32(out)
}

fn sha256_hash(x: u128, y: u128, w: u128) -> (u128, u128) {
    let (mut x, mut y) = (to32(x), to32(y));
    for w in to32(w) {
        let sigma1 = y[0].rotate_right(6) ^ y[0].rotate_right(11) ^ y[0].rotate_right(25);
        let sigma0 = x[0].rotate_right(2) ^ x[0].rotate_right(13) ^ x[0].rotate_right(22);
        let t = y[3].wrapping_add(sigma1).wrapping_add(choose(y[0], y[1], y[2])).wrapping_add(w);
        let new_x = t.wrapping_add(sigma0).wrapping_add(majority(x[0], x[1], x[2]));
        let new_y = t.wrapping_add(x[3]);
        x = [new_x, x[0], x[1], x[2]];
        y = [new_y, y[0], y[1], y[2]];
    }
    (from32(x), from32(y))
}

/// SHA256H: four rounds, first half of the state.
pub fn sha256h(d: u128, n: u128, m: u128) -> u128 {
    sha256_hash(d, n, m).0
}

/// SHA256H2: four rounds, second half of the state.
pub fn sha256h2(d: u128, n: u128, m: u128) -> u128 {
    sha256_hash(n, d, m).1
}

/// SHA256SU0: schedule update 0.
pub fn sha256su0(d: u128, n: u128) -> u128 {
    let t = to32((d >> 32) | (n << 96));
    let d = to32(d);
    from32(std::array::from_fn(|i| {
        (t[i].rotate_right(7) ^ t[i].rotate_right(18) ^ (t[i] >> 3)).wrapping_add(d[i])
    }))
}

/// SHA256SU1: schedule update 1.
pub fn sha256su1(d: u128, n: u128, m: u128) -> u128 {
    let t = to32((n >> 32) | (m << 96));
    let (d, m) = (to32(d), to32(m));
    let step = |w: u32, i: usize| {
        (w.rotate_right(17) ^ w.rotate_right(19) ^ (w >> 10)).wrapping_add(d[i]).wrapping_add(t[i])
    };
    let (a, b) = (step(m[2], 0), step(m[3], 1));
    from32([a, b, step(a, 2), step(b, 3)])
}

const fn big_sigma1(x: u64) -> u64 {
    x.rotate_right(14) ^ x.rotate_right(18) ^ x.rotate_right(41)
}

const fn big_sigma0(x: u64) -> u64 {
    x.rotate_right(28) ^ x.rotate_right(34) ^ x.rotate_right(39)
}

/// SHA512H: two rounds, first part.
pub fn sha512h(d: u128, n: u128, m: u128) -> u128 {
    let (w, x, y) = (to64(d), to64(n), to64(m));
    let choice = (y[1] & x[0]) ^ (!y[1] & x[1]);
    let high = choice.wrapping_add(big_sigma1(y[1])).wrapping_add(w[1]);
    let t = high.wrapping_add(y[0]);
    let choice = (t & y[1]) ^ (!t & x[0]);
    from64([choice.wrapping_add(big_sigma1(t)).wrapping_add(w[0]), high])
}

/// SHA512H2: two rounds, second part.
pub fn sha512h2(d: u128, n: u128, m: u128) -> u128 {
    let (w, x, y) = (to64(d), to64(n), to64(m));
    let majority = (x[0] & y[1]) ^ (x[0] & y[0]) ^ (y[1] & y[0]);
    let high = majority.wrapping_add(big_sigma0(y[0])).wrapping_add(w[1]);
    let majority = (high & y[0]) ^ (high & y[1]) ^ (y[1] & y[0]);
    from64([majority.wrapping_add(big_sigma0(high)).wrapping_add(w[0]), high])
}

/// SHA512SU0: schedule update 0.
pub fn sha512su0(d: u128, n: u128) -> u128 {
    let sigma = |x: u64| x.rotate_right(1) ^ x.rotate_right(8) ^ (x >> 7);
    let (w, x) = (to64(d), to64(n));
    from64([w[0].wrapping_add(sigma(w[1])), w[1].wrapping_add(sigma(x[0]))])
}

/// SHA512SU1: schedule update 1.
pub fn sha512su1(d: u128, n: u128, m: u128) -> u128 {
    let sigma = |x: u64| x.rotate_right(19) ^ x.rotate_right(61) ^ (x >> 6);
    let (w, x, y) = (to64(d), to64(n), to64(m));
    from64(std::array::from_fn(|i| w[i].wrapping_add(sigma(x[i])).wrapping_add(y[i])))
}

/// EOR3: three-way exclusive OR.
pub const fn eor3(n: u128, m: u128, a: u128) -> u128 {
    n ^ m ^ a
}

/// BCAX: bit clear and exclusive OR.
pub const fn bcax(n: u128, m: u128, a: u128) -> u128 {
    n ^ (m & !a)
}

/// RAX1: rotate by one and exclusive OR, on both halves.
pub fn rax1(n: u128, m: u128) -> u128 {
    n ^ from64(to64(m).map(|h| h.rotate_left(1)))
}

/// XAR: exclusive OR and rotate right by `by`, on both halves.
pub fn xar(n: u128, m: u128, by: u32) -> u128 {
    from64(to64(n ^ m).map(|h| h.rotate_right(by & 63)))
}

/// The SM4 substitution box: an affine transform around the inverse in GF(2^8) modulo 0x1f5.
static SM4_SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = sm4_affine(sm4_inverse(sm4_affine(i as u8)));
        i += 1;
    }
    table
};

/// Multiplies by the circulant matrix of SM4's affine transform and adds its constant 0xd3.
const fn sm4_affine(x: u8) -> u8 {
    let mut out = 0;
    let mut bit = 0;
    while bit < 8 {
        let row = 0xa7u8.rotate_left(bit);
        out |= (((row & x).count_ones() & 1) as u8) << bit;
        bit += 1;
    }
    out ^ 0xd3
}

const fn sm4_multiply(mut a: u8, mut b: u8) -> u8 {
    let mut out = 0;
    while b != 0 {
        if b & 1 != 0 {
            out ^= a;
        }
        a = (a << 1) ^ (if a & 0x80 != 0 { 0xf5 } else { 0 });
        b >>= 1;
    }
    out
}

const fn sm4_inverse(x: u8) -> u8 {
    // x^254.
    let mut out = 1;
    let mut power = x;
    let mut i = 1;
    while i < 8 {
        power = sm4_multiply(power, power);
        out = sm4_multiply(out, power);
        i += 1;
    }
    out
}

fn sm4_substitute(x: u32) -> u32 {
    u32::from_le_bytes(x.to_le_bytes().map(|b| SM4_SBOX[usize::from(b)]))
}

/// SM4E: four encryption rounds.
pub fn sm4e(d: u128, n: u128) -> u128 {
    let mut x = to32(d);
    for key in to32(n) {
        let t = sm4_substitute(x[1] ^ x[2] ^ x[3] ^ key);
        let t = t ^ t.rotate_left(2) ^ t.rotate_left(10) ^ t.rotate_left(18) ^ t.rotate_left(24);
        x = [x[1], x[2], x[3], x[0] ^ t];
    }
    from32(x)
}

/// SM4EKEY: four rounds of the key schedule.
pub fn sm4ekey(n: u128, m: u128) -> u128 {
    let mut x = to32(n);
    for constant in to32(m) {
        let t = sm4_substitute(x[1] ^ x[2] ^ x[3] ^ constant);
        let t = t ^ t.rotate_left(13) ^ t.rotate_left(23);
        x = [x[1], x[2], x[3], x[0] ^ t];
    }
    from32(x)
}

/// SM3SS1.
pub fn sm3ss1(n: u128, m: u128, a: u128) -> u128 {
    let (n, m, a) = (to32(n), to32(m), to32(a));
    let t = n[3].rotate_left(12).wrapping_add(m[3]).wrapping_add(a[3]).rotate_left(7);
    u128::from(t) << 96
}

/// SM3TT1A (`choice` false) and SM3TT1B (true), with word `index` of `m`.
pub fn sm3tt1(d: u128, n: u128, m: u128, index: usize, choice: bool) -> u128 {
    let (d, n) = (to32(d), to32(n));
    let w = to32(m)[index & 3];
    let ss2 = n[3] ^ d[3].rotate_left(12);
    let f = if choice { majority(d[3], d[1], d[2]) } else { parity(d[1], d[3], d[2]) };
    let t = f.wrapping_add(d[0]).wrapping_add(ss2).wrapping_add(w);
    from32([d[1], d[2].rotate_left(9), d[3], t])
}

/// SM3TT2A (`choice` false) and SM3TT2B (true), with word `index` of `m`.
pub fn sm3tt2(d: u128, n: u128, m: u128, index: usize, choice: bool) -> u128 {
    let (d, n) = (to32(d), to32(n));
    let w = to32(m)[index & 3];
    let f = if choice { choose(d[3], d[2], d[1]) } else { parity(d[1], d[3], d[2]) };
    let t = f.wrapping_add(d[0]).wrapping_add(n[3]).wrapping_add(w);
    let t = t ^ t.rotate_left(9) ^ t.rotate_left(17);
    from32([d[1], d[2].rotate_left(19), d[3], t])
}

/// SM3PARTW1.
pub fn sm3partw1(d: u128, n: u128, m: u128) -> u128 {
    let p1 = |x: u32| x ^ x.rotate_left(15) ^ x.rotate_left(23);
    let base = to32(d ^ n);
    let m = to32(m);
    let mut out = [0; 4];
    for i in 0..3 {
        out[i] = p1(base[i] ^ m[i + 1].rotate_left(15));
    }
    out[3] = p1(base[3] ^ out[0].rotate_left(15));
    from32(out)
}

/// SM3PARTW2.
pub fn sm3partw2(d: u128, n: u128, m: u128) -> u128 {
    let mixed = n ^ map32(m, |w| w.rotate_left(7));
    let mut out = to32(d ^ mixed);
    let t = (mixed as u32).rotate_left(15);
    out[3] ^= t ^ t.rotate_left(15) ^ t.rotate_left(23);
    from32(out)
}

/// Carry-less multiplication of 64-bit polynomials (PMULL, PMULL2 with 64-bit elements).
pub const fn pmull64(n: u64, m: u64) -> u128 {
    let (mut out, mut rest, n) = (0u128, m, n as u128);
    while rest != 0 {
        out ^= n << rest.trailing_zeros();
        rest &= rest - 1;
    }
    out
}

/// Carry-less multiplication of bytes.
pub const fn pmull8(n: u8, m: u8) -> u16 {
    let (mut out, mut i) = (0, 0);
    while i < 8 {
        out ^= ((n as u16) << i) * ((m >> i) & 1) as u16;
        i += 1;
    }
    out
}

/// PMULL of the eight bytes in each operand to eight 16-bit elements.
pub fn pmull_bytes(n: u64, m: u64) -> u128 {
    let (n, m) = (n.to_le_bytes(), m.to_le_bytes());
    (0..8).rev().fold(0, |all, i| (all << 16) | u128::from(pmull8(n[i], m[i])))
}

/// PMUL: the low halves of the byte products.
pub fn pmul_bytes(n: u128, m: u128) -> u128 {
    let (n, m) = (n.to_le_bytes(), m.to_le_bytes());
    u128::from_le_bytes(std::array::from_fn(|i| pmull8(n[i], m[i]) as u8))
}

const fn crc_table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (if crc & 1 != 0 { polynomial } else { 0 });
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}
static CRC32: [u32; 256] = crc_table(0xedb8_8320);
static CRC32C: [u32; 256] = crc_table(0x82f6_3b78);

fn crc(table: &[u32; 256], acc: u32, value: u64, bytes: usize) -> u32 {
    value
        .to_le_bytes()
        .iter()
        .take(bytes)
        .fold(acc, |crc, &b| table[((crc ^ u32::from(b)) & 0xff) as usize] ^ (crc >> 8))
}

/// CRC32B, CRC32H, CRC32W and CRC32X: the low `bytes` bytes of `value`, polynomial 0x04c11db7.
pub fn crc32(acc: u32, value: u64, bytes: usize) -> u32 {
    crc(&CRC32, acc, value, bytes)
}

/// CRC32CB, CRC32CH, CRC32CW and CRC32CX: the low `bytes` bytes of `value`, polynomial 0x1edc6f41.
pub fn crc32c(acc: u32, value: u64, bytes: usize) -> u32 {
    crc(&CRC32C, acc, value, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes128_encrypts_and_decrypts_fips_197() {
        // FIPS 197 appendix B, round keys by appendix A.
        let key = 0x3c4f_cf09_8815_f7ab_a6d2_ae28_1615_7e2b_u128;
        let plain = 0x3407_37e0_a298_3131_8d30_5a88_a8f6_4332_u128;
        let cipher = 0x320b_6a19_9785_11dc_fb09_dc02_1d84_2539_u128;
        let mut keys = [key; 11];
        let mut rcon = 1;
        for i in 1..11 {
            let mut w = to32(keys[i - 1]);
            let t = w[3].rotate_right(8).to_le_bytes().map(|b| SBOX[usize::from(b)]);
            w[0] ^= u32::from_le_bytes(t) ^ u32::from(rcon);
            rcon = xtime(rcon);
            for j in 1..4 {
                w[j] ^= w[j - 1];
            }
            keys[i] = from32(w);
        }
        let mut state = plain;
        for &k in &keys[..9] {
            state = aesmc(aese(state, k));
        }
        assert_eq!(aese(state, keys[9]) ^ keys[10], cipher);
        let mut state = cipher;
        for i in (2..11).rev() {
            let k = if i == 10 { keys[10] } else { aesimc(keys[i]) };
            state = aesimc(aesd(state, k));
        }
        assert_eq!(aesd(state, aesimc(keys[1])) ^ keys[0], plain);
        assert_eq!(aesimc(aesmc(plain)), plain);
    }

    fn padded_abc() -> [u128; 4] {
        let mut words = [0u32; 16];
        words[0] = 0x6162_6380;
        words[15] = 24;
        std::array::from_fn(|i| from32([words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]]))
    }

    #[test]
    fn sha1_of_abc() {
        let mut w = padded_abc();
        let start = from32([0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476]);
        let (mut abcd, mut e) = (start, 0xc3d2_e1f0_u128);
        for i in 0..20 {
            let k = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6_u32][i / 5];
            let input = map32(w[0], |x| x.wrapping_add(k));
            let f = [sha1c, sha1p, sha1m, sha1p][i / 5];
            (abcd, e) = (f(abcd, e, input), sha1h(abcd));
            let next = sha1su1(sha1su0(w[0], w[1], w[2]), w[3]);
            w = [w[1], w[2], w[3], next];
        }
        let sum = to32(abcd).into_iter().zip(to32(start)).map(|(a, b)| a.wrapping_add(b));
        assert_eq!(sum.collect::<Vec<_>>(), [0xa999_3e36, 0x4706_816a, 0xba3e_2571, 0x7850_c26c]);
        assert_eq!((e as u32).wrapping_add(0xc3d2_e1f0), 0x9cd0_d89d);
    }

    /// The first 32 or 64 fractional bits of the cube roots of the first primes.
    fn round_constants(bits: u32, count: usize) -> Vec<u64> {
        let primes = (2u32..).filter(|n| (2..*n).all(|d| n % d != 0));
        primes
            .take(count)
            .map(|p| {
                // Binary search for floor(cbrt(p) * 2^bits) with a 256-bit comparison by halves.
                let (mut lo, mut hi) = (0u128, 8u128 << bits);
                while hi - lo > 1 {
                    let mid = (lo + hi) / 2;
                    if cube_exceeds(mid, p, bits) { hi = mid } else { lo = mid }
                }
                lo as u64 & (u64::MAX >> (64 - bits))
            })
            .collect()
    }

    /// Is `x^3 > p * 2^(3 * bits)`, in 32-bit limbs?
    fn cube_exceeds(x: u128, p: u32, bits: u32) -> bool {
        let limbs = |x: u128| -> Vec<u64> { to32(x).iter().map(|&w| w.into()).collect() };
        let multiply = |a: &[u64], b: &[u64]| {
            let mut out = vec![0u64; a.len() + b.len()];
            for (i, x) in a.iter().enumerate() {
                let mut carry = 0;
                for (j, y) in b.iter().enumerate() {
                    let t = x * y + out[i + j] + carry;
                    (out[i + j], carry) = (t & 0xffff_ffff, t >> 32);
                }
                out[i + b.len()] += carry;
            }
            out
        };
        let square = multiply(&limbs(x), &limbs(x));
        let cube = multiply(&square, &limbs(x));
        let mut target = vec![0u64; cube.len()];
        target[3 * bits as usize / 32] = p.into();
        cube.iter().rev().cmp(target.iter().rev()).is_gt()
    }

    #[test]
    fn sha256_of_abc() {
        let k = round_constants(32, 64);
        assert_eq!(k[0], 0x428a_2f98);
        let mut w = padded_abc();
        let h = [
            from32([0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a]),
            from32([0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19]),
        ];
        let (mut abcd, mut efgh) = (h[0], h[1]);
        for i in 0..16 {
            let k: [u32; 4] = std::array::from_fn(|j| k[4 * i + j] as u32);
            let words = to32(w[0]);
            let input = from32(std::array::from_fn(|j| words[j].wrapping_add(k[j])));
            (abcd, efgh) = (sha256h(abcd, efgh, input), sha256h2(efgh, abcd, input));
            let next = sha256su1(sha256su0(w[0], w[1]), w[2], w[3]);
            w = [w[1], w[2], w[3], next];
        }
        let sum =
            |a, b| -> Vec<u32> { to32(a).into_iter().zip(to32(b)).map(|(a, b)| a.wrapping_add(b)).collect() };
        assert_eq!(sum(abcd, h[0]), [0xba78_16bf, 0x8f01_cfea, 0x4141_40de, 0x5dae_2223]);
        assert_eq!(sum(efgh, h[1]), [0xb003_61a3, 0x9617_7a9c, 0xb410_ff61, 0xf200_15ad]);
    }

    #[test]
    fn sha512_of_abc() {
        let k = round_constants(64, 80);
        assert_eq!(k[0], 0x428a_2f98_d728_ae22);
        let mut words = [0u64; 16];
        words[0] = 0x6162_6380 << 32;
        words[15] = 24;
        let mut w: Vec<u128> = words.chunks(2).map(|c| from64([c[0], c[1]])).collect();
        let h = [
            from64([0x6a09_e667_f3bc_c908, 0xbb67_ae85_84ca_a73b]),
            from64([0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1]),
            from64([0x510e_527f_ade6_82d1, 0x9b05_688c_2b3e_6c1f]),
            from64([0x1f83_d9ab_fb41_bd6b, 0x5be0_cd19_137e_2179]),
        ];
        let [mut ab, mut cd, mut ef, mut gh] = h;
        let ext = |lo: u128, hi: u128| (lo >> 64) | (hi << 64);
        let add = |a: u128, b: u128| {
            let (a, b) = (to64(a), to64(b));
            from64([a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1])])
        };
        for i in 0..40 {
            let input = add(w[0], from64([k[2 * i], k[2 * i + 1]]));
            let swapped = ext(input, input);
            let t = add(gh, swapped);
            let sum = sha512h(t, ext(ef, gh), ext(cd, ef));
            let new_ab = sha512h2(sum, cd, ab);
            (gh, ef, cd, ab) = (ef, add(cd, sum), ab, new_ab);
            let next = sha512su1(sha512su0(w[0], w[1]), w[7], ext(w[4], w[5]));
            w.remove(0);
            w.push(next);
        }
        assert_eq!(add(ab, h[0]), from64([0xddaf_35a1_9361_7aba, 0xcc41_7349_ae20_4131]));
        assert_eq!(add(gh, h[3]), from64([0x454d_4423_643c_e80e, 0x2a9a_c94f_a54c_a49f]));
    }

    #[test]
    fn sm4_encrypts_its_standard_example() {
        // GB/T 32907 appendix A: key and plaintext 0123456789abcdeffedcba9876543210.
        let words = [0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, 0x7654_3210];
        let fk = [0xa3b1_bac6, 0x56aa_3350, 0x677d_9197, 0xb270_22dc];
        let mut key = from32(std::array::from_fn(|i| words[i] ^ fk[i]));
        let mut state = from32(words);
        for round in 0..8u32 {
            let ck = std::array::from_fn(|i| {
                (0..4).fold(0, |all, j| (all << 8) | (((4 * (4 * round + i as u32) + j) * 7) & 0xff))
            });
            key = sm4ekey(key, from32(ck));
            state = sm4e(state, key);
        }
        let mut out = to32(state);
        out.reverse();
        assert_eq!(out, [0x681e_df34, 0xd206_965e, 0x86b3_e94f, 0x536e_4246]);
    }

    #[test]
    fn sm3_of_abc() {
        let mut w = padded_abc().to_vec();
        let (lo, hi) = (
            from32([0x7380_166f, 0x4914_b2b9, 0x1724_42d7, 0xda8a_0600]),
            from32([0xa96f_30bc, 0x1631_38aa, 0xe38d_ee4d, 0xb0fb_0e4e]),
        );
        // The instructions keep A (and E) in the top word.
        let reverse = |v: u128| {
            let mut w = to32(v);
            w.reverse();
            from32(w)
        };
        let (mut a, mut e) = (reverse(lo), reverse(hi));
        for i in 0..16 {
            let ext = |x: u128, y: u128, n: u32| (x >> (32 * n)) | (y << (128 - 32 * n));
            let next =
                sm3partw2(sm3partw1(w[0], ext(w[1], w[2], 3), w[3]), ext(w[2], w[3], 2), ext(w[0], w[1], 3));
            let prime = w[0] ^ w[1];
            for j in 0..4 {
                let round = 4 * i + j;
                let t: u32 = if round < 16 { 0x79cc_4519 } else { 0x7a87_9d8a };
                let t = u128::from(t.rotate_left(round as u32 % 32)) << 96;
                let ss1 = sm3ss1(a, e, t);
                let late = round >= 16;
                (a, e) = (sm3tt1(a, ss1, prime, j, late), sm3tt2(e, ss1, w[0], j, late));
            }
            w.remove(0);
            w.push(next);
        }
        let digest = [a ^ reverse(lo), e ^ reverse(hi)].map(|v| to32(reverse(v)));
        assert_eq!(digest[0], [0x66c7_f0f4, 0x62ee_edd9, 0xd1f2_d46b, 0xdc10_e4e2]);
        assert_eq!(digest[1], [0x4167_c487, 0x5cf2_f7a2, 0x297d_a02b, 0x8f4b_a8e0]);
    }

    #[test]
    fn polynomials_multiply_without_carries() {
        assert_eq!(pmull64(3, 3), 5);
        assert_eq!(pmull64(1 << 63, 1 << 63), 1 << 126);
        assert_eq!(pmull64(u64::MAX, 2), u128::from(u64::MAX) << 1);
        assert_eq!(pmull8(0xff, 0xff), 0x5555);
        assert_eq!(pmull_bytes(0x0300_0000_0000_00ff, 0x0300_0000_0000_00ff), (5 << 112) | 0x5555);
        assert_eq!(pmul_bytes(0xff, 0xff), 0x55);
        for (a, b) in [(0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321), (0xdead_beef, 0xc0ff_ee00)] {
            assert_eq!(pmull64(a, b), pmull64(b, a));
            assert_eq!(pmull64(a, b ^ 0x55) ^ pmull64(a, 0x55), pmull64(a, b));
        }
    }

    #[test]
    fn checksums_have_their_published_check_values() {
        let text = b"123456789";
        let whole = |f: fn(u32, u64, usize) -> u32| !text.iter().fold(!0, |c, &b| f(c, b.into(), 1));
        assert_eq!(whole(crc32), 0xcbf4_3926);
        assert_eq!(whole(crc32c), 0xe306_9283);
        let word = u64::from_le_bytes(*b"12345678");
        assert_eq!(!crc32(crc32(!0, word, 8), 0x39, 1), 0xcbf4_3926);
        assert_eq!(!crc32c(crc32c(crc32c(!0, word & 0xffff_ffff, 4), word >> 32, 4), 0x39, 1), 0xe306_9283);
        assert_eq!(crc32(7, 0xffff_1234, 2), crc32(crc32(7, 0x34, 1), 0x12, 1));
    }
}
