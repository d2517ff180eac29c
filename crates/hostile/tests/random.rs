//! Every target on random inputs, and on all that are kept.

use armlet_conform::random::Random;
use armlet_hostile::TARGETS;

const SEED: u64 = 20_261_128;

#[test]
fn random_bytes() {
    for target in TARGETS {
        let mut r = Random::new(&[SEED, target.longest as u64]);
        for number in 0..2000 {
            let length = r.below(target.longest as u64 + 1);
            let bytes: Vec<u8> = (0..length).map(|_| r.next() as u8).collect();
            let done = std::panic::catch_unwind(|| (target.run)(&bytes));
            assert!(done.is_ok(), "{}: input {number} of seed {SEED}: {bytes:02x?}", target.name);
        }
    }
}

#[test]
fn kept_inputs() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut count = 0;
    for target in TARGETS {
        let Ok(inputs) = std::fs::read_dir(folder.join(target.name)) else { continue };
        for input in inputs {
            let path = input.expect("the folder can be read").path();
            println!("{}", path.display());
            (target.run)(&std::fs::read(&path).expect("the input can be read"));
            count += 1;
        }
    }
    assert!(count > 0, "no kept inputs in {}", folder.display());
}
