use super::*;

#[test]
fn default_model_is_armv8_2() {
    let m = CpuModel::by_name("neoverse-n1").unwrap();
    assert_eq!(CpuModel::all()[0], m);
    assert_eq!(m.midr(), 0x414f_d0c1);
    use Feature as F;
    for f in [
        F::Lse,
        F::Rdm,
        F::Fp16,
        F::DotProd,
        F::Crc32,
        F::Aes,
        F::Pmull,
        F::Sha1,
        F::Sha256,
        F::Lrcpc,
        F::Dpb,
        F::Pan,
        F::Pan2,
        F::Uao,
        F::Ras,
        F::Ssbs,
        F::Ssbs2,
        F::Hafdbs,
        F::Hpds,
        F::Granule4,
        F::Granule16,
        F::Granule64,
        F::Asid16,
        F::Iesb,
        F::TtCnp,
        F::GicCpuInterface,
    ] {
        assert!(m.has(f), "{}", f.name());
    }
    for f in [
        F::El2,
        F::El3,
        F::PmuV3,
        F::Spe,
        F::Sve,
        F::Lrcpc2,
        F::Dpb2,
        F::FlagM,
        F::PAuth,
        F::Bti,
        F::Mte,
        F::Lva,
        F::Lpa,
        F::Lpa2,
        F::Sha512,
        F::Fhm,
        F::Dit,
        F::BigEnd,
        F::Absent,
    ] {
        assert!(!m.has(f), "{}", f.name());
    }
    assert_eq!(m.pa_bits(), 48);
}

#[test]
fn early_models_lack_what_came_later() {
    for name in ["cortex-a53", "cortex-a57", "cortex-a72"] {
        let m = CpuModel::by_name(name).unwrap();
        for f in [Feature::Lse, Feature::Fp16, Feature::Pan, Feature::Haf, Feature::Granule16, Feature::Ssbs]
        {
            assert!(!m.has(f), "{name} {}", f.name());
        }
        assert!(m.has(Feature::Crc32) && m.has(Feature::Pmull), "{name}");
    }
    assert_eq!(CpuModel::by_name("cortex-a53").unwrap().pa_bits(), 40);
}

#[test]
fn max_has_all_of_the_default() {
    let max = CpuModel::by_name("max").unwrap();
    for f in CpuModel::by_name("neoverse-n1").unwrap().features().iter() {
        assert!(max.has(f), "{}", f.name());
    }
    assert!(max.has(Feature::Lva) && max.has(Feature::Lpa) && max.has(Feature::Lpa2));
    assert_eq!(max.pa_bits(), 52);
}

#[test]
fn every_property_switches_off_and_on_again() {
    let n1 = CpuModel::by_name("neoverse-n1").unwrap();
    let max = CpuModel::by_name("max").unwrap();
    for p in Property::all() {
        // lpa2 needs lpa, so lpa alone cannot go.
        let base = match p.name {
            "lpa" => max.with_feature("lpa2", false).unwrap(),
            _ if p.is_on(n1.ids()) => n1.clone(),
            _ => max.clone(),
        };
        assert!(p.is_on(base.ids()), "{}: max has it", p.name);
        let off = base.with_feature(p.name, false).unwrap();
        assert!(!p.is_on(off.ids()), "{}", p.name);
        assert_ne!(off.features(), base.features(), "{}", p.name);
        assert_eq!(off.with_feature(p.name, true).unwrap(), base, "{}", p.name);
    }
}

#[test]
fn max_has_what_is_implemented_beyond_the_default() {
    let max = CpuModel::by_name("max").unwrap();
    use Feature as F;
    for f in [
        F::Sha512,
        F::Sha3,
        F::Sm3,
        F::Sm4,
        F::FlagM,
        F::FlagM2,
        F::TlbiOs,
        F::TlbiRange,
        F::Dpb2,
        F::Jscvt,
        F::Lrcpc2,
        F::Sb,
        F::SpecRes,
        F::Dgh,
        F::Hbc,
        F::Ttst,
        F::Idst,
        F::Ttl,
        F::Bbm,
        F::E0pd,
    ] {
        assert!(max.has(f), "{}", f.name());
    }
    for f in [F::Sha256, F::Pmull, F::Lse, F::DotProd, F::Lrcpc, F::Uao] {
        assert!(max.has(f), "{}", f.name());
    }
    for f in [F::Lrcpc3, F::Lse128, F::Lse2, F::PAuth, F::Mte, F::Bti, F::Sve, F::Fcma, F::Cssc, F::Xs] {
        assert!(!max.has(f), "{}", f.name());
    }
}

#[test]
fn command_line_texts() {
    let m = CpuModel::parse("cortex-a72,lse=on,crc32=off").unwrap();
    assert!(m.has(Feature::Lse) && !m.has(Feature::Crc32));
    assert!(CpuModel::parse("neoverse-n1,lpa2=on,lpa=on").is_ok());
    let says = |text: &str| CpuModel::parse(text).unwrap_err().to_string();
    assert!(says("z80").starts_with("unknown CPU 'z80': use one of neoverse-n1, cortex-a53"));
    assert!(says("").starts_with("unknown CPU ''"));
    assert!(says("max,foo=on").starts_with("unknown CPU feature 'foo': use one of aes"));
    assert_eq!(says("max,lse"), "CPU feature 'lse' has no value: write lse=on or lse=off");
    assert_eq!(says("max,lse=1"), "CPU feature 'lse' cannot be '1': write lse=on or lse=off");
    assert_eq!(says("max,lpa=off"), "CPU feature 'lpa2' needs 'lpa': add lpa=on, or leave lpa2 off");
}

#[test]
fn cache_registers_describe_real_caches() {
    let n1 = CpuModel::by_name("neoverse-n1").unwrap();
    // 64 KiB, 4 ways, 64-byte lines: 256 sets.
    assert_eq!(n1.ccsidr(0), 255 << 13 | 3 << 3 | 2);
    assert_eq!(n1.ccsidr(1), n1.ccsidr(0));
    assert_eq!(n1.ccsidr(2), 2047 << 13 | 7 << 3 | 2);
    assert_eq!(n1.ccsidr(4), 0);
    // The level of coherency covers both levels, Ctype1 = 3, Ctype2 = 4.
    assert_eq!(n1.clidr() & 0x3f, 0o43);
    assert_eq!(n1.clidr() >> 24 & 7, 2);
    assert_eq!(n1.ctr() >> 28 & 3, 1, "IDC set, DIC clear");
    assert_eq!(4 << (n1.ctr() & 0xf), 4096, "IminLine");
    assert_eq!((DC_ZVA_BYTES, 4 << n1.dczid()), (2048, 2048));
    assert_eq!(CacheGeometry { size: 1 << 20, ways: 16, line: 64 }.ccsidr(true), 1023 << 32 | 15 << 3 | 2);
}

#[test]
fn affinity_of_processors() {
    assert_eq!(mpidr(0), 0x8000_0000);
    assert_eq!(mpidr(15), 0x8000_000f);
    assert_eq!(mpidr(16), 0x8000_0100);
    assert_eq!(mpidr(122), 0x8000_070a);
}

#[test]
fn reset_is_el1_with_everything_masked() {
    let n1 = CpuModel::by_name("neoverse-n1").unwrap();
    let s = n1.reset_state(3, mpidr(3));
    assert_eq!(s.pstate, Pstate::DAIF | Pstate::from_bits_retain(5));
    // RES1: LSMAOE, nTLSMD, EIS, TSCXT, EOS, SED, ITD.
    assert_eq!(s.sys[SysReg::SctlrEl1], 0x3050_0980);
    assert_eq!(s.sys[SysReg::CntfrqEl0], 62_500_000);
    assert_eq!(s.sys[SysReg::MpidrEl1], 0x8000_0003);
    assert_eq!(s.sys[SysReg::OslsrEl1], 0xa);
    assert_eq!(s.pc, 0);
    assert_eq!(s.index, 3);
}
