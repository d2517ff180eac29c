//! `docs/a64-coverage.md` tells the truth.

use armlet_conform::coverage;

#[test]
fn the_page_matches_the_tree() {
    let written = std::fs::read_to_string(coverage::path()).expect("the page is there");
    let page = coverage::page().expect("the model exists");
    let differs = written.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        written == page,
        "run `cargo xtask conform -- --coverage`; the first line that differs: {differs:?}"
    );
    for (name, what) in
        [("AUTIASP_HI_hints", "oracle"), ("WFI_HI_hints", "executors"), ("ADDPT_64_addsub_pt", "UNDEFINED")]
    {
        let row =
            page.lines().find(|l| l.contains(&format!("| {name} |"))).expect("every encoding has a row");
        assert!(row.ends_with(&format!("| {what} |")), "{row}");
    }
}
