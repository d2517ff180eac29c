//! Many programs beside the peer that are not in the workload: what is true for programs in general, and which ones are
//! slow.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::figures::{Group, Table};
use super::peer::Peer;
use super::promises::Promise;
use super::{Options, Run, contestant, disk, to_the_end};
use crate::boot::Linux;
use crate::kernel::Version;
use crate::run;

/// Where the results go.
const TABLE: &str = "docs/programs.txt";
/// Longest run of `bench/guest/sweep`.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Its measurements.
const GROUPS: &[Group] = &[
    Group {
        title: "OpenSSL",
        least: 2.0,
        names: &[
            "md5",
            "sha1",
            "sha512",
            "sha3-256",
            "blake2b512",
            "chacha20-poly1305",
            "aes-128-cbc",
            "aes-256-ctr",
            "sm3",
            "camellia-128-cbc",
            "rsa2048",
            "ecdsap256",
            "ecdhx25519",
        ],
    },
    Group {
        title: "integers, strings, memory",
        least: 2.0,
        names: &[
            "cpu-ackermann",
            "cpu-bitops",
            "cpu-callfunc",
            "cpu-crc16",
            "cpu-div32",
            "cpu-dither",
            "cpu-fft",
            "cpu-fletcher16",
            "cpu-gcd",
            "cpu-gray",
            "cpu-hamming",
            "cpu-hanoi",
            "cpu-ipv4checksum",
            "cpu-intconversion",
            "cpu-jmp",
            "cpu-loop",
            "cpu-lfsr32",
            "cpu-int128",
            "cpu-parity",
            "cpu-queens",
            "cpu-rand",
            "cpu-rgb",
            "cpu-sieve",
            "cpu-union",
            "bitops",
            "branch",
            "funccall",
            "hash",
            "heapsort",
            "hsearch",
            "insertionsort",
            "judy",
            "lsearch",
            "memcpy",
            "mergesort",
            "qsort",
            "radixsort",
            "skiplist",
            "tree",
            "wcs",
            "zlib",
        ],
    },
    Group {
        title: "floating point and vectors",
        least: 4.0,
        names: &[
            "cpu-cdouble",
            "cpu-cfloat",
            "cpu-correlate",
            "cpu-euler",
            "cpu-factorial",
            "cpu-fibonacci",
            "cpu-float",
            "cpu-float16",
            "cpu-floatconversion",
            "cpu-longdouble",
            "cpu-gamma",
            "cpu-hyperbolic",
            "cpu-idct",
            "cpu-int32float",
            "cpu-int64double",
            "cpu-ln2",
            "cpu-nsqrt",
            "cpu-omega",
            "cpu-phi",
            "cpu-pi",
            "cpu-psi",
            "cpu-sqrt",
            "cpu-stats",
            "cpu-trig",
            "cpu-zeta",
            "besselmath",
            "expmath",
            "fma",
            "fp",
            "logmath",
            "monte-carlo",
            "powmath",
            "trig",
            "veccmp",
            "vecfp",
            "vecmath",
            "vecshuf",
            "vecwide",
            "bodies",
            "bodies-fast",
            "blur",
            "blur-fast",
        ],
    },
    Group {
        title: "system",
        least: 6.0,
        names: &["clock", "dup", "futex", "mmap", "mutex", "msg", "sem", "sigsegv", "signal", "switch", "vm"],
    },
];

/// Measures, and writes the table.
///
/// # Errors
/// Something could not be built or run, a program failed, or the table could not be written.
pub fn measure(armlet: PathBuf, o: &Options) -> Result<Vec<Promise>> {
    let (linux, disk, peer) = (Linux::prepare(Version::V6_12)?, disk::prepare()?, Peer::prepare()?);
    let title = format!("{}, --cpu {}, {} CPU", peer.version()?, o.cpu, o.smp);
    let mut contestants =
        [contestant("peer", move |r| peer.command(r)), contestant("armlet", move |r| r.armlet(&armlet))];
    let words = format!("quiet bench=sweep{}", if o.quick { " QUICK" } else { "" });
    let rounds = if o.quick { 1 } else { o.rounds };
    for round in 1..=rounds {
        for c in &mut contestants {
            run::say(&format!("programs, round {round} of {rounds}: {}", c.name));
            let r = Run { linux: &linux, disk: Some(&disk), smp: o.smp, cpu: &o.cpu, words: &words };
            let text = to_the_end(&mut (c.command)(&r), PATIENCE, "SWEEP-END")?;
            c.figures.read(&text).with_context(|| format!("{}'s programs", c.name))?;
        }
    }
    let [peer, armlet] = &contestants;
    let table = Table { base: &peer.figures, other: &armlet.figures, groups: GROUPS };
    println!("{table}");
    fs::write(TABLE, format!("{title}, medians of {rounds}\n{table}"))
        .with_context(|| format!("cannot write {TABLE}"))?;
    let promise = |g: &Group| {
        let title = format!("programs: {}, speed against the peer's", g.title);
        table.geometric_mean(g.names).map(|speed| Promise::at_least(&title, speed, g.least))
    };
    Ok(GROUPS.iter().filter_map(promise).collect())
}
