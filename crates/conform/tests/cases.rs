//! Cases as text, in `cases/*.txt`: what the oracle has done once, both executors do.
#![cfg(target_arch = "x86_64")]

use std::fs;
use std::path::Path;

use armlet_conform::{features, interp, jit, line, program};

const MODEL: &str = "max";

#[test]
fn written_cases_end_as_they_say() {
    let features = features(MODEL).expect("the model exists");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut run = 0;
    let mut wrong = Vec::new();
    for file in fs::read_dir(&folder).expect("the folder is there") {
        let path = file.expect("it can be read").path();
        let text = fs::read_to_string(&path).expect("it is text");
        for (number, text) in text.lines().enumerate() {
            let at = format!("{}:{}", path.file_name().unwrap_or_default().display(), number + 1);
            let parsed = line::parse(text).unwrap_or_else(|e| panic!("{at}: {e:#}"));
            let Some((cases, want)) = parsed else { continue };
            run += 1;
            let code = program::code(&features, &cases);
            let case = &cases[cases.len() - 1];
            let interpreted = interp::execute(&features, case, &code, None).record;
            let translated =
                jit::execute(MODEL, &cases, &code, true).expect("the JIT runs").pop().expect("a state");
            for (who, got) in [("interpreter", interpreted), ("JIT", translated)] {
                if !want.is_same(&got) {
                    wrong.push(format!("{at}: {who}: {}", want.differences(&got).join(", ")));
                }
            }
        }
    }
    assert!(run >= 60, "only {run} cases");
    assert!(wrong.is_empty(), "wanted/got:\n{}", wrong.join("\n"));
}
