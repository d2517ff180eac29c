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

/// The states of all properties of a model.
fn states(model: &CpuModel) -> Vec<(&'static str, bool)> {
    Property::all().iter().map(|p| (p.name, p.is_on(model.ids()))).collect()
}

/// Follows the mends of errors until there is none; how many there were.
fn mended(model: &CpuModel, changes: &[(&'static str, bool)]) -> usize {
    let mut changes = changes.to_vec();
    for errors in 0..Property::all().len() {
        match model.with_features(changes.iter().copied()) {
            Ok(_) => return errors,
            Err(ModelError::Needs { name, .. }) => {
                changes.retain(|(other, _)| *other != name);
                changes.push((name, false));
            }
            Err(ModelError::Exclusive { first, .. }) => {
                changes.retain(|(other, _)| *other != first);
                changes.push((first, false));
            }
            Err(other) => panic!("{changes:?}: {other}"),
        }
    }
    panic!("the mends of {changes:?} do not end");
}

/// Every pair of changes of every model gives exactly what was asked for, or an error that names a property that was asked
/// for and whose mends both work.
#[test]
fn every_pair_of_properties_is_what_was_asked_for_or_an_error_with_a_mend() {
    let (mut good, mut bad) = (0, 0);
    for model in CpuModel::all() {
        let before = states(&model);
        let switches = || Property::all().iter().flat_map(|p| [(p.name, false), (p.name, true)]);
        for (one, other) in switches().flat_map(|one| switches().map(move |other| (one, other))) {
            let pair = [one, other];
            let result = model.with_features(pair);
            let swapped = model.with_features([other, one]);
            assert_eq!(result, swapped, "{} {pair:?}", model.name());
            match result {
                Ok(changed) => {
                    let expected = before.iter().map(|(name, on)| {
                        (
                            *name,
                            pair.iter().find(|(asked, _)| asked == name).map_or(*on, |(_, wanted)| *wanted),
                        )
                    });
                    assert_eq!(states(&changed), expected.collect::<Vec<_>>(), "{} {pair:?}", model.name());
                    assert_eq!(*changed.features(), FeatureSet::from_ids(changed.ids()));
                    good += 1;
                }
                Err(ModelError::Contradiction(name)) => {
                    assert!(one.0 == name && other.0 == name && one.1 != other.1, "{pair:?}");
                }
                Err(ModelError::Needs { name, needs }) => {
                    assert!(pair.iter().any(|(asked, _)| *asked == name || *asked == needs), "{pair:?}");
                    assert!(mended(&model, &pair) > 0);
                    // The other mend: what is needed is switched on.
                    let with =
                        [one, other, (needs, true)].map(|c| if c.0 == needs { (needs, true) } else { c });
                    let unmet = model.with_features(with);
                    assert!(
                        !matches!(unmet, Err(ModelError::Needs { needs: same, .. }) if same == needs),
                        "{pair:?}"
                    );
                    bad += 1;
                }
                Err(ModelError::Exclusive { first, second, .. }) => {
                    assert!(
                        pair.iter().any(|(asked, on)| *on && [first, second].contains(asked)),
                        "{pair:?}"
                    );
                    assert!(mended(&model, &pair) > 0);
                    bad += 1;
                }
                Err(error) => panic!("{pair:?}: {error}"),
            }
        }
    }
    assert!(good > 10_000 && bad > 100, "{good} {bad}");
}

/// The property `name` and all that cannot be without it.
fn dependants(name: &'static str) -> Vec<&'static str> {
    let mut found = vec![name];
    let mut next = 0;
    while let Some(name) = found.get(next).copied() {
        let needing = Property::all().iter().filter(|p| p.needs().contains(&name)).map(|p| p.name);
        found.extend(needing.filter(|n| !found.contains(n)).collect::<Vec<_>>());
        next += 1;
    }
    found
}

#[test]
fn what_is_switched_off_and_on_again_is_as_before() {
    for model in CpuModel::all() {
        for p in Property::all().iter().filter(|p| p.is_on(model.ids())) {
            let mut group = dependants(p.name);
            group.retain(|name| states(&model).contains(&(*name, true)));
            let off = model.with_features(group.iter().map(|name| (*name, false))).unwrap();
            assert!(!p.is_on(off.ids()) && off.features() != model.features(), "{}", p.name);
            let again = off.with_features(group.iter().map(|name| (*name, true))).unwrap();
            assert_eq!(again, model, "{} {}", model.name(), p.name);
        }
    }
}

#[test]
fn what_a_property_needs_exists_and_the_models_have_it() {
    for p in Property::all() {
        for needs in p.needs() {
            assert!(Property::all().iter().any(|q| q.name == *needs), "{} needs {needs}", p.name);
        }
    }
    for model in CpuModel::all() {
        assert_eq!(model.with_features([]), Ok(model.clone()));
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
        F::Lrcpc3,
        F::Lse2,
        F::PAuth,
        F::PAuthGeneric,
        F::PAuth2,
        F::FpacCombine,
        F::PacImp,
        F::Bti,
        F::Dit,
        F::Rng,
        F::WfxT,
        F::Cssc,
        F::Mops,
        F::Ecv,
        F::Clrbhb,
        F::Sb,
        F::SpecRes,
        F::SpecRes2,
        F::Dgh,
        F::Hbc,
        F::Ttst,
        F::Idst,
        F::Ttl,
        F::Bbm,
        F::E0pd,
        F::Fhm,
        F::Fcma,
        F::Frintts,
        F::I8mm,
        F::Bf16,
        F::Ebf16,
        F::Afp,
        F::Rpres,
    ] {
        assert!(max.has(f), "{}", f.name());
    }
    for f in [F::Sha256, F::Pmull, F::Lse, F::DotProd, F::Lrcpc, F::Uao] {
        assert!(max.has(f), "{}", f.name());
    }
    for f in [F::Lse128, F::Mte, F::Sve, F::Epac, F::PAuthLr, F::PacQarma5, F::PacQarma3, F::Xs] {
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
    assert_eq!(says("max,lpa=off"), "CPU feature 'lpa2' needs 'lpa': write lpa=on, or lpa2=off");
    assert_eq!(
        says("neoverse-n1,dpb2=on,dpb=off"),
        "CPU feature 'dpb2' needs 'dpb': write dpb=on, or dpb2=off"
    );
    assert_eq!(
        says("neoverse-n1,sha1=off"),
        "CPU feature 'sha256' needs 'sha1': write sha1=on, or sha256=off"
    );
    assert_eq!(
        says("max,lse=off,lse=on"),
        "CPU feature 'lse' is given as on and as off: leave one of them out"
    );
    assert!(CpuModel::parse("max,lse=off,lse=off").is_ok());
    assert_eq!(
        says("max,pauth=sha1"),
        "CPU feature 'pauth' cannot be 'sha1': write pauth= with one of impdef, qarma5, qarma3, on or off"
    );
    assert_eq!(
        says("max,pauth-qarma5=on"),
        "CPU features 'pauth-impdef' and 'pauth-qarma5' cannot both be on: write pauth-impdef=off, or pauth=... for \
         one of them"
    );
}

#[test]
fn pointers_are_authenticated_by_one_algorithm_at_most() {
    let with = |value: &str| CpuModel::parse(&format!("max,pauth={value}")).unwrap();
    for (value, has) in [
        ("impdef", [true, false, false]),
        ("on", [true, false, false]),
        ("qarma5", [false, true, false]),
        ("qarma3", [false, false, true]),
        ("off", [false, false, false]),
    ] {
        let model = with(value);
        let algorithms = [Feature::PacImp, Feature::PacQarma5, Feature::PacQarma3];
        assert_eq!(algorithms.map(|f| model.has(f)), has, "{value}");
        for f in [Feature::PAuth, Feature::PAuthGeneric, Feature::PAuth2, Feature::FpacCombine] {
            assert_eq!(model.has(f), value != "off", "{value} {}", f.name());
        }
    }
    assert_eq!(with("impdef"), CpuModel::by_name("max").unwrap());
    assert!(CpuModel::parse("neoverse-n1,pauth=qarma3").unwrap().has(Feature::PacQarma3));
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
fn a_portable_model_has_what_the_part_has_and_behaves_the_same() {
    for model in CpuModel::all().iter().filter(|model| model.name() != "max") {
        let portable = CpuModel::parse(&format!("{},portable=on", model.name())).unwrap();
        assert!(portable.is_portable() && !model.is_portable());
        // DminLine and IminLine of 64 bytes; DC ZVA likewise; neither IDC nor DIC, so there is a level of unification.
        assert_eq!((portable.ctr() & 0xf_000f, portable.ctr() >> 28 & 3), (0x4_0004, 0), "{}", model.name());
        assert_eq!((portable.zva_bytes(), portable.dczid()), (64, 4));
        assert_eq!((portable.clidr() >> 21 & 7, portable.clidr() >> 27 & 7), (1, 1));
        assert_eq!(CpuModel::parse(&format!("{},portable=off", model.name())).as_ref(), Ok(model));
        // Of the features only those of EL2 differ, where no guest is.
        for feature in Feature::ALL.iter().filter(|f| portable.has(**f) != model.has(**f)) {
            let of_el2 = [Feature::Vhe, Feature::Xnx];
            assert!(of_el2.contains(feature), "{}: {}", model.name(), feature.name());
        }
    }
    // As MIDR_EL1 names it; Arm's Technical Reference Manual of the core, 100616.
    let n1 = CpuModel::parse("neoverse-n1,portable=on,lse=off").unwrap();
    assert_eq!(n1.ctr(), 0x8444_c004);
    assert_eq!(n1.ids().get(IdReg::MMFR1), 0x1021_2122);
    assert!(!n1.has(Feature::Lse));
    assert_eq!(CpuModel::parse("max,portable=on"), Err(ModelError::NotPortable("max")));
    let both = CpuModel::parse("neoverse-n1,portable=on,portable=off");
    assert_eq!(both, Err(ModelError::Contradiction("portable")));
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
