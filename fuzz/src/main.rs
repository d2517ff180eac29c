//! One program for all targets: `ARMLET_FUZZ_TARGET` says which, or `list`. Started by `cargo xtask fuzz`.

#![no_main]

use std::process::exit;
use std::sync::OnceLock;

use armlet_hostile::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("ARMLET_FUZZ_TARGET").unwrap_or_default();
    if name == "list" {
        for t in TARGETS {
            println!("{} {} {}", t.name, t.longest, t.about);
        }
        exit(0);
    }
    target(&name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
        eprintln!("ARMLET_FUZZ_TARGET is {name:?}; it is to be one of {}", names.join(", "));
        exit(2);
    })
}

fuzz_target!(
    init: {
        TARGET.get_or_init(chosen);
    },
    |bytes: &[u8]| {
        (TARGET.get_or_init(chosen).run)(bytes);
    }
);
