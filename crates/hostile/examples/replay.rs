//! `cargo run -p armlet-hostile --example replay TARGET FILE…`: runs a target on kept inputs, and shows what they are.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(target) = arguments.next().and_then(|name| armlet_hostile::target(&name)) else {
        eprintln!("usage: replay TARGET FILE…");
        return ExitCode::FAILURE;
    };
    for file in arguments {
        match std::fs::read(&file) {
            Ok(bytes) => {
                println!("{file}: {}", (target.describe)(&bytes));
                (target.run)(&bytes);
            }
            Err(e) => {
                eprintln!("cannot read {file}: {e}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
