//! Advanced SIMD and floating point against an independent implementation, by random instructions.
//!
//! Needs `qemu-aarch64` (Debian package `qemu-user`), in `PATH` or named by `ARMLET_QEMU_USER`; without it the
//! test says so and passes. `ARMLET_SEED` and `ARMLET_CASES` change the seed and the cases per encoding.

mod qemu_user;

use armlet_accel_jit::ir::interp::{Exit, Machine, SystemOp, run};
use armlet_accel_jit::ir::{Builder, Mem, Raise};
use armlet_accel_jit::lift::{Flow, LiftContext, is_data_simd, lift};
use armlet_arm::model::CpuModel;
use armlet_arm::{Class, CpuState, Enc, FeatureSet, Pstate};
use qemu_user::Registers;

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()]
    }
}

/// One element: an edge of its format, a small number, or anything.
fn element(rng: &mut Rng, bits: u32) -> u64 {
    let (frac, max) = match bits {
        16 => (10, 0x7c00),
        32 => (23, 0x7f80_0000),
        64 => (52, 0x7ff0_0000_0000_0000),
        _ => return rng.next() & 0xff,
    };
    let one = (max >> 1) & !((1u64 << frac) - 1);
    let edges = [
        0,
        1,
        (1 << frac) - 1,
        1 << frac,
        one,
        one + 1,
        one - 1,
        max - 1,
        max,
        max | 1,
        max | 1 << (frac - 1),
    ];
    let v = match rng.next() % 8 {
        0..3 => rng.pick(&edges),
        // Magnitudes near one, and near integers.
        3 | 4 => {
            let exponent = (one >> frac) + rng.next() % 13 - 6;
            exponent << frac | rng.next() & ((1 << frac) - 1)
        }
        5 => (one + ((rng.next() % 4) << frac)) | (rng.next() & 7) << (frac - 3),
        _ => rng.next(),
    };
    let sign = (rng.next() & 1) << (bits - 1);
    (v ^ sign) & (u64::MAX >> (64 - bits))
}

fn vector(rng: &mut Rng) -> u128 {
    let bits = rng.pick(&[8, 16, 32, 64]);
    (0..128 / bits).fold(0, |v, i| v | u128::from(element(rng, bits)) << (i * bits))
}

fn general(rng: &mut Rng) -> u64 {
    match rng.next() % 4 {
        0 => rng.pick(&[0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 31) - 1, 0xffff_ffff]),
        1 => rng.next() >> (rng.next() & 63),
        _ => rng.next(),
    }
}

const RMODES: [u32; 4] = [0, 1 << 22, 2 << 22, 3 << 22];

fn registers(rng: &mut Rng) -> Registers {
    let special = match rng.next() % 4 {
        0 => rng.pick(&[1 << 24, 1 << 25, 1 << 26, 1 << 19, 1 << 24 | 1 << 25, 1 << 19 | 1 << 24]),
        _ => 0,
    };
    Registers {
        v: std::array::from_fn(|_| vector(rng)),
        x: std::array::from_fn(|_| general(rng)),
        fp: special | rng.pick(&RMODES),
        nzcv: (rng.next() as u32) << 28,
        undefined: false,
    }
}

/// A random word of an encoding, with registers below 16.
fn word(rng: &mut Rng, enc: Enc) -> u32 {
    use Class::*;
    let mut free = !enc.mask();
    if enc.class() != Asimdimm {
        free &= !(1 << 9);
    }
    free &= !(1 << 4);
    let register_at_16 = !matches!(
        enc.class(),
        Asimdimm | Asimdshf | Asisdshf | Asimdins | Asisdone | Floatimm | Float2fix | Float2int
    );
    if register_at_16 {
        free &= !(1 << 20);
    }
    if matches!(enc.class(), Floatdp3 | Crypto4) {
        free &= !(1 << 14);
    }
    let word = (enc.value() & enc.mask()) | (rng.next() as u32 & free);
    // With immh zero it is another class, where the reference accepts an unallocated word.
    let other_class = enc.class() == Asimdshf && word & 0xf << 19 == 0;
    if other_class { word | 1 << 20 } else { word }
}

struct NoMachine;
impl Machine for NoMachine {
    type Fault = ();
    fn read(&mut self, _: u64, _: &mut [u8], _: Mem) -> Result<(), ()> {
        Err(())
    }
    fn write(&mut self, _: u64, _: &[u8], _: Mem) -> Result<(), ()> {
        Err(())
    }
    fn system(&mut self, _: &mut CpuState, _: SystemOp) -> Result<u64, ()> {
        Err(())
    }
}

/// What the lift and the interpreter make of an instruction.
fn ours(features: FeatureSet, word: u32, input: &Registers, fp_inline: bool) -> Registers {
    let ctx = LiftContext { features, el: 0, fp_enabled: true, fp_inline, check_sp: false, offset: 0 };
    let mut b = Builder::new();
    let flow = lift(&mut b, &ctx, word);
    let mut cpu = CpuState::new(0);
    cpu.v[..16].copy_from_slice(&input.v);
    cpu.x[..16].copy_from_slice(&input.x);
    cpu.fp.fpcr = input.fp;
    cpu.pstate = Pstate::from_bits_retain(input.nzcv);
    let exit = run(&b.finish(), 0x1000, &mut cpu, &mut NoMachine);
    let undefined = match exit {
        Exit::Goto => false,
        Exit::Raise(Raise::Undefined) => true,
        other => panic!("{word:#010x}: {flow:?}, {other:?}"),
    };
    assert_eq!(flow == Flow::End, undefined, "{word:#010x}");
    Registers {
        v: std::array::from_fn(|i| cpu.v[i]),
        x: std::array::from_fn(|i| cpu.x[i]),
        fp: cpu.fp.fpsr,
        nzcv: cpu.pstate.bits() & 0xf000_0000,
        undefined,
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn compare(model: &str, cpu: &str) {
    let Some(qemu) = qemu_user::qemu() else {
        eprintln!("skipped: no qemu-aarch64; install qemu-user or set ARMLET_QEMU_USER");
        return;
    };
    let features = *CpuModel::by_name(model).expect("the model is known").features();
    let mut rng = Rng(number("ARMLET_SEED", 1));
    let mut cases = Vec::new();
    for &enc in Enc::all().iter().filter(|e| is_data_simd(e.class()) && features.has(e.feature())) {
        for _ in 0..number("ARMLET_CASES", 24) {
            cases.push((word(&mut rng, enc), registers(&mut rng)));
        }
    }
    let theirs = qemu_user::run(&qemu, cpu, &cases);
    let changed = cases.iter().zip(&theirs).filter(|((_, i), o)| !o.undefined && (i.v, i.x) != (o.v, o.x));
    let changed = changed.count();
    eprintln!("{} cases, {changed} with a new register value", cases.len());
    assert!(changed > cases.len() / 2, "most instructions do something");
    let mut wrong: Vec<String> = Vec::new();
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for ((word, input), theirs) in cases.iter().zip(&theirs) {
        let plain = input.fp & (1 << 19 | 7 << 24) == 0;
        for fp_inline in if plain { &[false, true][..] } else { &[false] } {
            let ours = ours(features, *word, input, *fp_inline);
            if ours == *theirs || (ours.undefined && theirs.undefined) {
                continue;
            }
            let enc = armlet_arm::decode(*word).map_or("none", |e| e.name());
            let count = seen.entry(enc).or_default();
            *count += 1;
            if *count <= 2 {
                wrong.push(describe(enc, *word, input, &ours, theirs));
            }
        }
    }
    assert!(wrong.is_empty(), "{} encodings differ: {seen:?}\n{}", seen.len(), wrong.join("\n"));
}

/// The registers that an instruction may name, and the differences.
fn describe(enc: &str, word: u32, input: &Registers, ours: &Registers, theirs: &Registers) -> String {
    use std::fmt::Write;
    let (d, n, m) = (word as usize & 15, word as usize >> 5 & 15, word as usize >> 16 & 15);
    let mut s = format!("{enc} {word:#010x} fpcr {:#x} nzcv {:#x}\n", input.fp, input.nzcv);
    let _ = writeln!(s, "  in   d {:032x} n {:032x} m {:032x}", input.v[d], input.v[n], input.v[m]);
    let _ = writeln!(s, "       xd {:016x} xn {:016x}", input.x[d], input.x[n]);
    for (who, r) in [("ours", ours), ("qemu", theirs)] {
        let _ = writeln!(
            s,
            "  {who} d {:032x} xd {:016x} fpsr {:#x} nzcv {:#x} undefined {}",
            r.v[d], r.x[d], r.fp, r.nzcv, r.undefined
        );
    }
    s
}

#[test]
fn neoverse_n1_agrees() {
    compare("neoverse-n1", "neoverse-n1");
}
