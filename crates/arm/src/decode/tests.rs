use super::*;

/// A small generator; the tests only need spread, not quality.
fn next(seed: &mut u64) -> u32 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 16) as u32
}

fn specificity(e: Enc) -> u32 {
    (e.mask() & !e.should_be()).count_ones()
}

fn matches(e: Enc, word: u32) -> bool {
    let mask = e.mask() & !e.should_be();
    (word ^ e.value()) & mask == 0
}

/// The obvious decoder: all rows, the most specific match.
fn decode_slowly(word: u32) -> Option<Enc> {
    Enc::all().iter().copied().filter(|&e| matches(e, word)).max_by_key(|&e| specificity(e))
}

#[test]
fn every_row_decodes_to_itself_or_to_a_more_specific_one() {
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for &e in Enc::all() {
        for k in 0..8 {
            let fill = if k == 0 { 0 } else { next(&mut seed) };
            let word = e.value() | (fill & !e.mask());
            let got = decode(word).unwrap_or_else(|| panic!("{word:#010x} of {} does not decode", e.name()));
            assert!(
                got == e || specificity(got) > specificity(e),
                "{word:#010x} of {} decodes to {}",
                e.name(),
                got.name()
            );
        }
    }
}

#[test]
fn should_be_bits_do_not_decide() {
    let mut seed = 7;
    for &e in Enc::all().iter().filter(|e| e.should_be() != 0) {
        let word = e.value() ^ (next(&mut seed) & e.should_be());
        let got = decode(word).expect("decodes");
        assert!(got == e || specificity(got) > specificity(e), "{} became {}", e.name(), got.name());
    }
}

#[test]
fn the_tree_agrees_with_a_search_of_the_whole_table() {
    let mut seed = 0x1234_5678_9abc_def1;
    for k in 0..30_000 {
        let word = if k % 2 == 0 {
            next(&mut seed)
        } else {
            // Near an encoding, so that many of the words are allocated.
            let e = Enc::all()[next(&mut seed) as usize % Enc::all().len()];
            e.value() ^ (next(&mut seed) & !e.mask()) ^ (1 << (next(&mut seed) & 31))
        };
        let (fast, slow) = (decode(word), decode_slowly(word));
        let same = match (fast, slow) {
            (Some(a), Some(b)) => a == b || specificity(a) == specificity(b),
            (a, b) => a == b,
        };
        assert!(same, "{word:#010x}: {fast:?} by the tree, {slow:?} by the table");
    }
}

#[test]
fn no_two_encodings_of_equal_specificity_overlap() {
    let rows: Vec<(u32, u32, Enc)> = Enc::all()
        .iter()
        .map(|&e| {
            let mask = e.mask() & !e.should_be();
            (mask, e.value() & mask, e)
        })
        .collect();
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[i + 1..] {
            let common = a.0 & b.0;
            let overlap = (a.1 ^ b.1) & common == 0;
            assert!(!overlap || a.0.count_ones() != b.0.count_ones(), "{} and {}", a.2.name(), b.2.name());
        }
    }
}

/// Words from the GNU assembler.
#[test]
fn known_words() {
    let words = [
        (0x9100_43ff, "ADD_64_addsub_imm"),   // add sp, sp, #0x10
        (0xd65f_03c0, "RET_64R_branch_reg"),  // ret
        (0xd503_201f, "NOP_HI_hints"),        // nop
        (0xd503_245f, "BTI_HB_hints"),        // bti c
        (0xd503_233f, "PACIASP_HI_hints"),    // paciasp
        (0xd503_2fff, "HINT_HM_hints"),       // hint #0x7f
        (0xa9bf_7bfd, "STP_64_ldstpair_pre"), // stp x29, x30, [sp, #-16]!
        (0xd538_1000, "MRS_RS_systemmove"),   // mrs x0, sctlr_el1
        (0xd503_4fdf, "MSR_SI_pstate"),       // msr daifset, #15
        (0x885f_7c20, "LDXR_LR32_ldstexclr"), // ldxr w0, [x1]
        (0x4f00_0400, "MOVI_asimdimm_L_sl"),  // movi v0.4s, #0
        (0x4f20_0400, "SSHR_asimdshf_R"),     // sshr v0.4s, v0.4s, #32
        (0x1e22_c000, "FCVT_DS_floatdp1"),    // fcvt d0, s0
        (0xb8e0_03df, "LDADDAL_32_memop"),    // ldaddal w0, wzr, [x30]
        (0xf8bf_c020, "LDAPR_64L_memop"),     // ldapr x0, [x1]
        (0x0000_0000, "UDF_only_perm_undef"), // udf #0
        (0xd400_0001, "SVC_EX_exception"),    // svc #0
        (0x5400_0001, "B_only_condbranch"),   // b.ne
    ];
    for (word, name) in words {
        assert_eq!(decode(word).map(Enc::name), Some(name), "{word:#010x}");
    }
    for word in [0xffff_ffff, 0x0001_0000] {
        assert_eq!(decode(word), None, "{word:#010x}");
    }
}

#[test]
fn features_of_well_known_encodings() {
    use crate::feature::Feature;
    let of = |name: &str| {
        Enc::all().iter().copied().find(|e| e.name() == name).unwrap_or_else(|| panic!("{name}")).feature()
    };
    let cases = [
        ("ADD_64_addsub_imm", Feature::Base),
        ("LDADD_64_memop", Feature::Lse),
        ("CASPAL_CP64_comswappr", Feature::Lse),
        ("LDAPR_64L_memop", Feature::Lrcpc),
        ("LDAPUR_64_ldapstl_unscaled", Feature::Lrcpc2),
        ("CRC32CX_64C_dp_2src", Feature::Crc32),
        ("PACIA_64P_dp_1src", Feature::PAuth),
        ("PACIASP_HI_hints", Feature::Base),
        ("BTI_HB_hints", Feature::Base),
        ("FADD_H_floatdp2", Feature::Fp16),
        ("FADD_S_floatdp2", Feature::Base),
        ("FCVT_SH_floatdp1", Feature::Base),
        ("FCVTZS_32H_float2int", Feature::Fp16),
        ("SCVTF_H32_float2fix", Feature::Fp16),
        ("FMLA_asimdelem_RH_H", Feature::Fp16),
        ("FMLA_asimdelem_R_SD", Feature::Base),
        ("FMAXV_asimdall_only_H", Feature::Fp16),
        ("FMAXV_asimdall_only_SD", Feature::Base),
        ("SDOT_asimdsame2_D", Feature::DotProd),
        ("SQRDMLAH_asisdelem_R", Feature::Rdm),
        ("FCMLA_asimdsame2_C", Feature::Fcma),
        ("AESE_B_cryptoaes", Feature::Aes),
        ("SHA1C_QSV_cryptosha3", Feature::Sha1),
        ("SHA256H_QQV_cryptosha3", Feature::Sha256),
        ("SHA512H_QQV_cryptosha512_3", Feature::Sha512),
        ("FJCVTZS_32D_float2int", Feature::Jscvt),
        ("CFINV_M_pstate", Feature::FlagM),
        ("MSR_SI_pstate", Feature::Base),
        ("SB_only_barriers", Feature::Sb),
        ("LDLAR_LR64_ldstord", Feature::Lor),
        ("LDAR_LR64_ldstord", Feature::Base),
        ("ADDG_64_addsub_immtags", Feature::Mte),
    ];
    for (name, feature) in cases {
        assert_eq!(of(name), feature, "{name}");
    }
}
