//! The cryptographic instructions.

use super::*;
use armlet_arm::crypto;

macro_rules! helpers {
    ($($(#[$meta:meta])* $name:ident($d:ident, $n:ident, $m:ident, $a:ident, $p:ident) => $body:expr;)*) => {$(
        $(#[$meta])*
        #[allow(unused_variables)]
        pub extern "C" fn $name(_: &mut FpEnv, regs: &mut Regs, op: VOperands) {
            let ($d, $n, $m, $a) = (reg(regs, op.d), reg(regs, op.n), reg(regs, op.m), reg(regs, op.a));
            let $p = shape(op).param();
            set(regs, op.d, $body);
        }
    )*};
}

helpers! {
    /// SHA512H.
    sha512h(d, n, m, a, p) => crypto::sha512h(d, n, m);
    /// SHA512H2.
    sha512h2(d, n, m, a, p) => crypto::sha512h2(d, n, m);
    /// SHA512SU0.
    sha512su0(d, n, m, a, p) => crypto::sha512su0(d, n);
    /// SHA512SU1.
    sha512su1(d, n, m, a, p) => crypto::sha512su1(d, n, m);
    /// EOR3.
    eor3(d, n, m, a, p) => crypto::eor3(n, m, a);
    /// BCAX.
    bcax(d, n, m, a, p) => crypto::bcax(n, m, a);
    /// RAX1.
    rax1(d, n, m, a, p) => crypto::rax1(n, m);
    /// XAR.
    xar(d, n, m, a, p) => crypto::xar(n, m, p);
    /// SM3SS1.
    sm3ss1(d, n, m, a, p) => crypto::sm3ss1(n, m, a);
    /// SM3TT1A.
    sm3tt1a(d, n, m, a, p) => crypto::sm3tt1(d, n, m, p as usize, false);
    /// SM3TT1B.
    sm3tt1b(d, n, m, a, p) => crypto::sm3tt1(d, n, m, p as usize, true);
    /// SM3TT2A.
    sm3tt2a(d, n, m, a, p) => crypto::sm3tt2(d, n, m, p as usize, false);
    /// SM3TT2B.
    sm3tt2b(d, n, m, a, p) => crypto::sm3tt2(d, n, m, p as usize, true);
    /// SM3PARTW1.
    sm3partw1(d, n, m, a, p) => crypto::sm3partw1(d, n, m);
    /// SM3PARTW2.
    sm3partw2(d, n, m, a, p) => crypto::sm3partw2(d, n, m);
    /// SM4E.
    sm4e(d, n, m, a, p) => crypto::sm4e(d, n);
    /// SM4EKEY.
    sm4ekey(d, n, m, a, p) => crypto::sm4ekey(n, m);
}
